//! What a filter asks an item for: its name, and labels by key.
//!
//! In: a series, or input as it was sent. Out: texts. Invariant: input is read only when it is asked, and nothing in it
//! makes that fail: what cannot be read has no labels.

use crate::codec::dogstatsd::{self, Parsed};
use crate::codec::json::{Object, Text, Value};
use crate::event::Labels;
use crate::shard::JsonOptions;
use std::borrow::Cow;
use std::cell::OnceCell;

/// An item as a filter sees it.
pub trait TapSubject {
    /// The exposed name of a series; of input the name that it was sent under.
    fn name(&self) -> Cow<'_, str>;

    /// The value of a label, a tag or a field; empty when it is not there.
    fn label(&self, key: &str) -> Cow<'_, str>;
}

/// A series.
pub struct SeriesSubject<'a> {
    /// Its metric's name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
}

impl TapSubject for SeriesSubject<'_> {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.name)
    }

    fn label(&self, key: &str) -> Cow<'_, str> {
        self.labels.get(key).unwrap_or_default().into()
    }
}

/// Input, as it was sent.
pub struct RawSubject<'a> {
    text: &'a [u8],
    /// Where its source has the event's name.
    options: Option<&'a JsonOptions>,
    read: OnceCell<(String, Vec<(String, String)>)>,
}

impl<'a> RawSubject<'a> {
    /// A line or an object, and where its source has the event's name if that is not under `event`.
    pub fn new(text: &'a [u8], options: Option<&'a JsonOptions>) -> RawSubject<'a> {
        RawSubject { text, options, read: OnceCell::new() }
    }

    fn read(&self) -> &(String, Vec<(String, String)>) {
        self.read.get_or_init(|| match self.text.trim_ascii_start().first() {
            Some(b'{') => self.read_object(),
            _ => read_line(self.text),
        })
    }

    fn read_object(&self) -> (String, Vec<(String, String)>) {
        let mut fields = Vec::new();
        read_members(self.text, &mut fields, 1);
        let of = |key: &str| fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        let cloud = || of("specversion").and_then(|_| of("type"));
        let said = self.options.and_then(|options| options.event.clone().or_else(|| of(&options.event_key)));
        let name = said.or_else(|| of("event")).or_else(|| of("metric")).or_else(cloud);
        (name.unwrap_or_default(), fields)
    }
}

impl TapSubject for RawSubject<'_> {
    fn name(&self) -> Cow<'_, str> {
        self.read().0.as_str().into()
    }

    fn label(&self, key: &str) -> Cow<'_, str> {
        let found = self.read().1.iter().find(|(known, _)| known == key);
        found.map_or("", |(_, value)| value.as_str()).into()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn plain(text: Text<'_>) -> String {
    let mut bytes = Vec::new();
    text.unescape_into(&mut bytes);
    lossy(&bytes)
}

/// Scalars of an object, and those one object deeper: the labels of a sample, the data of a CloudEvent.
fn read_members(text: &[u8], fields: &mut Vec<(String, String)>, depth: u8) {
    let Ok(members) = Object::parse(text) else { return };
    for (key, value) in members.map_while(Result::ok) {
        let value = match value {
            Value::Text(text) => plain(text),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => {
                let mut text = Vec::new();
                number.put_canonical(&mut text);
                lossy(&text)
            }
            Value::Object(inner) if depth > 0 => {
                read_members(inner, fields, depth - 1);
                continue;
            }
            Value::Null | Value::Object(_) | Value::Array(_) => continue,
        };
        fields.push((plain(key), value));
    }
}

fn read_line(text: &[u8]) -> (String, Vec<(String, String)>) {
    let tags_of = |tags| dogstatsd::tags(tags).map(|(key, value)| (lossy(key), lossy(value))).collect();
    match dogstatsd::parse(text) {
        Ok(Parsed::Sample(line)) => (lossy(line.name), tags_of(line.tags)),
        Ok(Parsed::Event(event)) => (lossy(event.title), tags_of(event.details().tags)),
        Ok(Parsed::Check(check)) => (lossy(check.name), tags_of(check.details().tags)),
        Ok(Parsed::Json(_)) | Err(_) => {
            // What stands before the first mark is the best that can be said of it.
            let end = text.iter().position(|byte| b":|".contains(byte)).unwrap_or(text.len());
            let tags = memchr::memmem::find(text, b"|#").map(|at| &text[at + 2..]).unwrap_or_default();
            let end_of_tags = memchr::memchr(b'|', tags).unwrap_or(tags.len());
            (lossy(&text[..end]), tags_of(&tags[..end_of_tags]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, labels: &[(&str, &str)]) {
        let subject = RawSubject::new(text.as_bytes(), None);
        assert_eq!(subject.name(), name, "{text}");
        for (key, value) in labels {
            assert_eq!(subject.label(key), *value, "{key} of {text}");
        }
    }

    #[test]
    fn names_and_labels_of_input() {
        check("checkout.latency:42|ms|#region:eu,canary", "checkout.latency", &[("region", "eu"), ("canary", "true")]);
        check("_e{6,2}:deploy|of|#env:prod", "deploy", &[("env", "prod")]);
        check("_sc|db.up|2|#role:primary", "db.up", &[("role", "primary"), ("none", "")]);
        check(r#"{"event":"order","total":3.50,"paid":true,"n":null}"#, "order", &[("total", "3.5"), ("paid", "true")]);
        check(r#"{"metric":"x","labels":{"route":"\/a"}}"#, "x", &[("route", "/a")]);
        check(r#"{"specversion":"1.0","type":"order","data":{"shop":"eu"}}"#, "order", &[("shop", "eu")]);
        let topic = JsonOptions { event: Some("checkout".into()), ..JsonOptions::default() };
        assert_eq!(RawSubject::new(br#"{"a":1}"#, Some(&topic)).name(), "checkout");
        let keyed = JsonOptions { event_key: "message".into(), ..JsonOptions::default() };
        assert_eq!(RawSubject::new(br#"{"message":"paid"}"#, Some(&keyed)).name(), "paid");
    }

    #[test]
    fn what_was_refused_has_what_can_be_read() {
        check("load:1,2|d|#a:b|T5", "load", &[("a", "b")]);
        check("nonsense", "nonsense", &[("a", "")]);
        check(r#"{"event":"order","broken"#, "order", &[]);
        check("{", "", &[]);
        check("", "", &[]);
        check("\u{0}:|#", "\u{0}", &[]);
    }
}
