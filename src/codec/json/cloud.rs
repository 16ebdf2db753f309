//! CloudEvents 1.0 as events of ours: the envelope is taken off, the data's members are the fields.
//!
//! In: an event in structured mode, or headers and a body (binary mode). Out: one line of JSON: `event` is the
//! exact `type`, `time` is `time`, then the members of `data`, then those of the other attributes (`id`, `source`,
//! `subject`, extensions) that the caller asks for. Owns: which attribute becomes what.
//! Invariants: what `data` says wins over an attribute of the same name, but for `event` and a `time` that the
//! envelope has too; a line holds no newline. (CloudEvents 1.0.2, JSON event format and HTTP protocol binding.)

use super::{JsonError, Key, Object, Text, Value, write_string};

/// Why an event cannot be taken out of its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// It is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// `specversion` is missing or not 1.x.
    #[error("specversion must be 1.0")]
    Version,
    /// `type` is missing or no text.
    #[error("a CloudEvent needs a type")]
    Type,
    /// An attribute of the envelope that comes twice.
    #[error("an attribute of a CloudEvent stands once")]
    Twice,
    /// The data is not JSON.
    #[error("the data must be JSON, not data_base64")]
    Data,
}

/// What never becomes a field: it says how to read the event, or is read here.
const ENVELOPE: [&[u8]; 7] =
    [b"specversion", b"type", b"time", b"data", b"data_base64", b"datacontenttype", b"dataschema"];

/// Appends what an event in structured mode says, as one line without its newline. `wants` is asked for the event's
/// name and an attribute's.
///
/// # Errors
/// [`CloudError`]; then `out` is as it was.
pub fn structured_event(
    bytes: &[u8],
    wants: impl Fn(&[u8], &[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), CloudError> {
    let (mut version, mut name, mut time, mut data) = (None, None, None, None);
    let mut attributes: Vec<(Key<'_>, &[u8])> = Vec::new();
    let mut seen = 0u8;
    let mut object = Object::parse(bytes)?;
    while let Some(member) = object.next_raw() {
        let (key, value, raw) = member?;
        if let Some(at) = ENVELOPE.iter().position(|known| *known == key.raw) {
            if seen & 1 << at != 0 {
                return Err(CloudError::Twice);
            }
            seen |= 1 << at;
        }
        match (key.raw, value) {
            (_, Value::Null) => {}
            (b"specversion", Value::Text(text)) => version = Some(text),
            (b"type", Value::Text(text)) => name = Some((text, raw)),
            (b"time", _) => time = Some(raw),
            (b"data", value) => data = Some((value, raw)),
            (b"data_base64", _) => return Err(CloudError::Data),
            (name, _) if ENVELOPE.contains(&name) => {}
            _ => attributes.push((key, raw)),
        }
    }
    if !version.is_some_and(|version| version.raw.starts_with(b"1.")) {
        return Err(CloudError::Version);
    }
    let (name, name_raw) = name.filter(|(name, _)| !name.raw.is_empty()).ok_or(CloudError::Type)?;
    let mut scratch = Vec::new();
    let name = name.unescaped(&mut scratch);
    attributes.retain(|(key, _)| wants(name, key.raw));
    write_event(name_raw, time, data, &attributes, out)
}

/// As [`structured_event`], of an event in binary mode: the attributes are headers `ce-NAME`, the body is the data.
/// `headers` gives names in lower case without `ce-`, and values as they were sent.
///
/// # Errors
/// [`CloudError`]; then `out` is as it was.
pub fn binary_event<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    wants: impl Fn(&[u8], &[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), CloudError> {
    let (mut version, mut name, mut time) = (None, None, None);
    let mut attributes: Vec<(&str, Vec<u8>)> = Vec::new();
    for (key, value) in headers {
        let value = percent_decoded(value);
        let mut raw = Vec::with_capacity(value.len() + 2);
        write_string(&value, &mut raw);
        match key {
            "specversion" => version = Some(value),
            "type" => name = Some((value, raw)),
            "time" => time = Some(raw),
            key if ENVELOPE.contains(&key.as_bytes()) => {}
            key => attributes.push((key, raw)),
        }
    }
    if !version.is_some_and(|version| version.starts_with("1.")) {
        return Err(CloudError::Version);
    }
    let (name, name_raw) = name.filter(|(name, _)| !name.is_empty()).ok_or(CloudError::Type)?;
    let body = body.trim_ascii();
    let data = if body.is_empty() { None } else { Some((Value::parse(body)?, body)) };
    let attributes: Vec<(Key<'_>, &[u8])> = attributes
        .iter()
        .filter(|(key, _)| wants(name.as_bytes(), key.as_bytes()))
        .map(|(key, raw)| (Text::plain(key.as_bytes()), raw.as_slice()))
        .collect();
    write_event(&name_raw, time.as_deref(), data, &attributes, out)
}

fn write_event(
    name: &[u8],
    time: Option<&[u8]>,
    data: Option<(Value<'_>, &[u8])>,
    attributes: &[(Key<'_>, &[u8])],
    out: &mut Vec<u8>,
) -> Result<(), CloudError> {
    let begin = out.len();
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(name);
    if let Some(time) = time {
        put_member(Text::plain(b"time"), time, out);
    }
    let mut own: Vec<Key<'_>> = Vec::new();
    match data {
        Some((Value::Object(members), _)) => {
            let mut members = Object::parse(members)?;
            while let Some(member) = members.next_raw() {
                // The members were checked with the whole, so this is no error that happens.
                let (key, _, raw) = member.inspect_err(|_| out.truncate(begin))?;
                if key.raw == b"event" || (time.is_some() && key.raw == b"time") {
                    continue;
                }
                put_member(key, raw, out);
                own.push(key);
            }
        }
        // Not an object: the one value is a field of the name that it has in the envelope.
        Some((Value::Null, _)) | None => {}
        Some((_, raw)) => put_member(Text::plain(b"data"), raw, out),
    }
    for (key, raw) in attributes.iter().filter(|(key, _)| !own.contains(key)) {
        put_member(*key, raw, out);
    }
    out.push(b'}');
    Ok(())
}

fn put_member(key: Key<'_>, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.raw);
    out.extend_from_slice(b"\":");
    put_on_one_line(value, out);
}

/// Appends JSON that was checked: between its tokens a newline may stand for a space.
pub fn put_on_one_line(json: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(json);
    out[from..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// A header's value: `%XX` is a byte of UTF-8 (HTTP protocol binding, §3.1.3.2); what is no UTF-8 is replaced.
fn percent_decoded(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(event: &[u8], name: &[u8]) -> bool {
        event == b"com.example.order" && matches!(name, b"source" | b"region" | b"total")
    }

    #[test]
    fn structured_events_lose_their_envelope() {
        let check = |text: &str, expected: Result<&str, CloudError>| {
            let mut out = b"x".to_vec();
            let result = structured_event(text.as_bytes(), wants, &mut out);
            let expected = expected.map(|line| format!("x{line}"));
            assert_eq!(result.map(|()| String::from_utf8(out.clone()).expect("text")), expected);
            assert!(result.is_ok() || out == b"x");
        };
        check(
            r#"{"specversion":"1.0","type":"com.example.order","source":"/shop","id":"A1","time":"2025-11-20T09:02:55Z",
                "datacontenttype":"application/json","region":"eu","total":9,
                "data":{"total": 12.5,
                        "time":1,"event":"x","items":[1,
                        2]}}"#,
            Ok(concat!(
                r#"{"event":"com.example.order","time":"2025-11-20T09:02:55Z","total":12.5,"#,
                r#""items":[1,                         2],"source":"/shop","region":"eu"}"#
            )),
        );
        check(
            r#"{"specversion":"1.0","type":"t","source":"/shop","data":{"time":1763629375},"subject":null}"#,
            Ok(r#"{"event":"t","time":1763629375}"#),
        );
        check(r#"{"specversion":"1.0","type":"t","data":3}"#, Ok(r#"{"event":"t","data":3}"#));
        check(r#"{"specversion":"1.0","type":"t"}"#, Ok(r#"{"event":"t"}"#));
        check(r#"{"type":"t","data":{}}"#, Err(CloudError::Version));
        check(r#"{"specversion":"0.3","type":"t","data":{}}"#, Err(CloudError::Version));
        check(r#"{"specversion":"1.0","data":{}}"#, Err(CloudError::Type));
        check(r#"{"specversion":"1.0","type":"t","data_base64":"AA=="}"#, Err(CloudError::Data));
        check(r#"{"specversion":"1.0","type":"t","type":"u"}"#, Err(CloudError::Twice));
        check(r#"{"specversion":"1.0","type":"t","data":{"a":1},"data":{"a":2}}"#, Err(CloudError::Twice));
    }

    #[test]
    fn binary_events_have_their_attributes_in_headers() {
        let headers: [(&str, &[u8]); 6] = [
            ("specversion", b"1.0"),
            ("type", b"com.example.order"),
            ("id", b"1"),
            ("source", b"/shop%20%C3%A9%22"),
            ("time", b"2025-11-20T09:02:55Z"),
            ("total", b"9"),
        ];
        let mut out = Vec::new();
        binary_event(headers.into_iter(), b" {\"total\":\n12.5} ", wants, &mut out).expect("an event");
        let expected =
            r#"{"event":"com.example.order","time":"2025-11-20T09:02:55Z","total":12.5,"source":"/shop é\""}"#;
        assert_eq!(String::from_utf8(out).expect("text"), expected);
        let mut out = Vec::new();
        let bad = binary_event(headers.into_iter(), b"<xml/>", wants, &mut out);
        assert!(matches!(bad, Err(CloudError::Json(_))) && out.is_empty());
    }
}
