//! Reads the members of an object into the fields of an event.
//!
//! In: members in the order of the text. Out: values as the schema means them, and what every event may have. Owns
//! nothing. Invariants: a key stands once; nothing is copied but texts with escapes, and those into memory that is there.

use super::{JsonOptions, Refusal};
use crate::codec::json::{JsonError, JsonErrorKind, Object, Text, Value};
use crate::event::{RejectReason, Timestamp};
use crate::rule::typed::{EventPlan, Fault, FieldValue, Fields, Key, KeyNode, KeyOrder, Weight};

/// The parts of an event that are no fields.
pub(in crate::shard::decode) struct Frame {
    pub(super) time: Option<Timestamp>,
    pub(super) weight: Weight,
    pub(super) extra: u64,
    /// Bits of the keys that were there: 1 time, 2 weight, 4 the event's name.
    pub(super) seen: u8,
}

impl Frame {
    pub(in crate::shard::decode) fn new() -> Frame {
        Frame { time: None, weight: Weight::ONE, extra: 0, seen: 0 }
    }

    /// Of an event whose members are read from here on: what was read before is its name.
    pub(super) fn of(members: &Object<'_>) -> Frame {
        Frame { seen: if members.has_begun() { 4 } else { 0 }, ..Frame::new() }
    }
}

impl Frame {
    /// Takes a member that is no field; true when it was one of those that every event may have.
    ///
    /// # Errors
    /// A time or weight that is none; a key that was there already.
    pub(super) fn read(&mut self, key: Text<'_>, value: Value<'_>, options: &JsonOptions) -> Result<bool, Refusal> {
        if key.is(options.time_key.as_bytes()) {
            self.see(1, &options.time_key)?;
            let mut plain = Vec::new();
            let value = match value {
                Value::Null => return Ok(true),
                Value::Number(number) => FieldValue::Number(number),
                Value::Text(text) => FieldValue::Text(text.unescaped(&mut plain)),
                _ => FieldValue::Bool(false),
            };
            let about = |_| (RejectReason::BadTimestamp, format!("key {:?} holds no time", options.time_key));
            self.time = Some(value.as_time().map_err(about)?);
            return Ok(true);
        }
        if key.is(b"weight") {
            self.see(2, "weight")?;
            let weight = match value {
                Value::Null => return Ok(true),
                Value::Number(number) => Weight::new(number),
                _ => Err(RejectReason::BadWeight),
            };
            self.weight = weight.map_err(|reason| (reason, format!("key \"weight\": {}", reason.hint())))?;
            return Ok(true);
        }
        let is_name = options.event.is_none() && key.is(options.event_key.as_bytes());
        if is_name {
            self.see(4, &options.event_key)?;
        }
        Ok(is_name)
    }

    /// Readers of JSON do not agree on which of two equal keys counts, so that neither does here.
    #[inline]
    fn see(&mut self, bit: u8, key: &str) -> Result<(), Refusal> {
        if self.seen & bit != 0 {
            return Err((RejectReason::DuplicateField, format!("key {key:?} stands in the event twice")));
        }
        self.seen |= bit;
        Ok(())
    }

    pub(in crate::shard::decode) fn read_standard(&mut self, key: Text<'_>, value: Value<'_>) -> Result<bool, Refusal> {
        self.read(key, value, &JsonOptions::default())
    }

    /// Counts a key that nothing names.
    pub(in crate::shard::decode) fn pass(&mut self) {
        self.extra += 1;
    }

    pub(in crate::shard::decode) fn time(&self) -> Option<Timestamp> {
        self.time
    }

    pub(in crate::shard::decode) fn weight(&self) -> Weight {
        self.weight
    }
}

/// Reads the members of an event into its fields.
pub(super) struct FieldReader<'r, 'a> {
    pub(super) plan: &'r EventPlan,
    pub(super) options: &'r JsonOptions,
    /// Room for every text of the event without its escapes; what is left of it.
    pub(super) plain: &'a mut [u8],
    pub(super) frame: &'r mut Frame,
}

impl<'a> FieldReader<'_, 'a> {
    pub(super) fn read(
        &mut self,
        members: Object<'a>,
        order: &mut KeyOrder,
        fields: &mut Fields<'a>,
    ) -> Result<(), Refusal> {
        let root = &self.plan.nodes()[0];
        order.begin(root);
        for member in members {
            let (key, value) = member.map_err(|error| bad_json(&error))?;
            let found = if key.escaped { find_escaped(root, key) } else { order.find(root, key.raw) };
            match found {
                Some(found) => self.take(found, value, fields)?,
                None => {
                    if !self.frame.read(key, value, self.options)? {
                        self.pass(key)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A nested object's members; never deeper than the paths of the schema.
    fn read_nested(&mut self, node: usize, members: Object<'a>, fields: &mut Fields<'a>) -> Result<(), Refusal> {
        for member in members {
            let (key, value) = member.map_err(|error| bad_json(&error))?;
            let node = &self.plan.nodes()[node];
            let found = if key.escaped { find_escaped(node, key) } else { node.find(key.raw) };
            match found {
                Some(found) => self.take(found, value, fields)?,
                None => self.pass(key)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, found: Key, value: Value<'a>, fields: &mut Fields<'a>) -> Result<(), Refusal> {
        let at = match (found, value) {
            (Key::Field(at), _) => at,
            (Key::Nested(_), Value::Null) => return Ok(()),
            (Key::Nested(node), Value::Object(object)) => {
                let members = Object::parse(object).map_err(|error| bad_json(&error))?;
                return self.read_nested(node, members, fields);
            }
            (Key::Nested(_), other) => {
                let detail = format!("event {:?}: {} where fields lie deeper", self.plan.name(), other.kind());
                return Err((RejectReason::WrongType, detail));
            }
        };
        if !matches!(fields[at], FieldValue::Missing) {
            return Err(self.fault(RejectReason::DuplicateField, at, fields));
        }
        let value = match value {
            Value::Null => return Ok(()),
            Value::Bool(value) => FieldValue::Bool(value),
            Value::Number(number) => FieldValue::Number(number),
            Value::Text(text) => FieldValue::Text(self.unescape(text)),
            Value::Object(_) | Value::Array(_) => return Err(self.fault(RejectReason::WrongType, at, fields)),
        };
        match self.plan.accept(at, value) {
            Ok(value) => fields[at] = value,
            Err(fault) => {
                fields[at] = value;
                return Err(self.fault(fault.reason, at, fields));
            }
        }
        Ok(())
    }

    #[inline]
    fn unescape(&mut self, text: Text<'a>) -> &'a [u8] {
        if !text.escaped {
            return text.raw;
        }
        let mut plain = Vec::with_capacity(text.raw.len());
        text.unescape_into(&mut plain);
        let (place, rest) = std::mem::take(&mut self.plain).split_at_mut(plain.len());
        place.copy_from_slice(&plain);
        self.plain = rest;
        place
    }

    fn pass(&mut self, key: Text<'_>) -> Result<(), Refusal> {
        self.frame.extra += 1;
        if self.options.refuses_extra {
            let key = String::from_utf8_lossy(key.raw);
            let names = self.plan.field_names();
            let near =
                names.map(|name| (strsim::jaro_winkler(name, &key), name)).filter(|(likeness, _)| *likeness > 0.7);
            let near = near.max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near.map_or_else(String::new, |(_, name)| format!("; did you mean {name:?}?"));
            let detail = format!("event {:?}: no field has key {key:?}{hint}", self.plan.name());
            return Err((RejectReason::ExtraField, detail));
        }
        Ok(())
    }

    #[cold]
    fn fault(&self, reason: RejectReason, at: usize, fields: &Fields<'_>) -> Refusal {
        (reason, self.plan.describe(Fault { reason, field: Some(at) }, fields))
    }
}

#[cold]
fn find_escaped(node: &KeyNode, key: Text<'_>) -> Option<Key> {
    node.find(key.unescaped(&mut Vec::new()))
}

#[cold]
pub(in crate::shard::decode) fn bad_json(error: &JsonError) -> Refusal {
    let reason = if error.kind == JsonErrorKind::Utf8 { RejectReason::InvalidUtf8 } else { RejectReason::BadJson };
    (reason, error.to_string())
}
