//! The JSON sample that needs no schema: `{"metric":"x","type":"timing","value":12,"labels":{"route":"/"}}`.
//!
//! In: the members of an object. Out: one record, as a line of DogStatsD would make it. Owns nothing. Invariants: names,
//! labels and types follow the rules of lines, but a declared metric takes exactly its labels; a value with a unit is
//! converted without rounding.

use super::typed::{Frame, KeyKind, bad_json};
use super::{Batch, Decoder, LineOutcome};
use crate::codec::dogstatsd::key_hash;
use crate::codec::json::{Object, Text, Value};
use crate::delta::Interned;
use crate::event::{Group, Kind, Number, RejectReason, UNITS_MAX, WireType};
use crate::rule::typed::{Amount, FieldValue};
use crate::shard::cache::Meta;
use crate::sketch::member_hash;

type Refusal = (RejectReason, String);

/// What a sample says.
struct Sample<'a> {
    name: Option<Text<'a>>,
    wire: Option<WireType>,
    value: Option<Value<'a>>,
    /// Whether the value is added, where `op` says so or not.
    op: Option<bool>,
    /// Power of ten of the value's unit, where one was given: 0 for seconds and bytes.
    unit: Option<i32>,
    labels: Option<&'a [u8]>,
}

impl Decoder {
    /// Takes a sample. It is counted as an event only if it is not refused.
    ///
    /// # Errors
    /// Why it is refused, and the key it is about.
    pub(super) fn apply_sample(
        &mut self,
        batch: &mut Batch<'_>,
        members: Object<'_>,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let mut frame = Frame::new();
        let sample = read(members, &mut frame)?;
        let missing = |key: &str| (RejectReason::MissingField, format!("a sample needs a {key:?}"));
        let mut key = std::mem::take(&mut self.typed.key);
        key.clear();
        let name = sample.name.ok_or_else(|| missing("metric"))?;
        let wire = sample.wire.ok_or_else(|| missing("type"))?;
        let value = sample.value.ok_or_else(|| missing("value"))?;
        // A counter adds, and everything else but a gauge is neither set nor added to.
        if let Some(adds) = sample.op
            && wire != WireType::Gauge
            && !(adds && wire == WireType::Count)
        {
            return Err((RejectReason::WrongType, "key \"op\" belongs to gauges".to_owned()));
        }
        key.push(wire as u8);
        put(&mut key, |key| name.unescape_into(key));
        if let Some(labels) = sample.labels {
            put_labels(labels, &mut key)?;
        }
        let hash = key_hash(&key, WireType::Count, b"", self.cache.seed());
        let known = self.cache.find(hash, &key, KeyKind::Primitive as u8);
        let (slot, meta, resolved) = match known {
            Some(entry) => (Some(entry.slot()), entry.meta, None),
            None => {
                let mut parts = Parts(&key[1..]);
                let name = parts.next().unwrap_or_default();
                let mut labels = Vec::new();
                while let (Some(label), Some(text)) = (parts.next(), parts.next()) {
                    labels.push((label, text));
                }
                let name =
                    std::str::from_utf8(name).map_err(|_| (RejectReason::InvalidUtf8, "key \"metric\"".to_owned()))?;
                let resolved =
                    self.rules.resolve_exact(batch.origin.source, name, wire, &labels).map_err(|reason| {
                        let known = || self.rules.labels_hint(name, wire);
                        let labels = (reason == RejectReason::LabelMismatch).then(known).flatten();
                        (reason, labels.unwrap_or_else(|| format!("metric {name:?}: {}", reason.hint())))
                    })?;
                (None, super::meta_of(&resolved), Some(resolved))
            }
        };
        let amount = amount_of(&sample, wire, value, meta, &frame)
            .map_err(|reason| (reason, format!("key \"value\": {}", reason.hint())))?;
        let place = self.acceptance.place_at(batch.arrival, frame.time());
        let (slot, metric) = match resolved {
            None => (slot, None),
            Some(resolved) => {
                let slot = match place.is_ok().then(|| self.table.intern(&resolved.metric, &resolved.labels)) {
                    Some(Interned::Slot(slot)) => {
                        if resolved.metric.group != Group::InternalOnly {
                            self.cache.insert_key(hash, &key, KeyKind::Primitive as u8, slot, meta);
                        }
                        Some(slot)
                    }
                    Some(Interned::Overflow(slot)) => Some(slot),
                    Some(Interned::Refused) | None => None,
                };
                if let (Some(slot), Kind::Distribution) = (slot, resolved.metric.kind) {
                    self.note_buckets(slot, &resolved.metric);
                }
                (slot, Some(resolved.metric))
            }
        };
        self.typed.key = key;
        self.record_single(batch, (amount, slot, meta, metric), &frame, place, trace);
        Ok(())
    }
}

/// The keys of a sample, besides those that every event may have.
const KEYS: [&[u8]; 6] = [b"metric", b"type", b"value", b"op", b"unit", b"labels"];

fn read<'a>(members: Object<'a>, frame: &mut Frame) -> Result<Sample<'a>, Refusal> {
    let mut is_bytes = false;
    let mut seen = 0u8;
    let mut sample = Sample { name: None, wire: None, value: None, op: None, unit: None, labels: None };
    for member in members {
        let (key, value) = member.map_err(|error| bad_json(&error))?;
        let wrong = |what: &str| Err((RejectReason::WrongType, format!("key {:?} takes {what}", lossy(key))));
        // Which of two equal keys counts is nobody's to guess.
        if let Some(at) = KEYS.iter().position(|known| *known == key.raw) {
            if seen & 1 << at != 0 {
                return Err((RejectReason::DuplicateField, format!("key {:?} stands in the sample twice", lossy(key))));
            }
            seen |= 1 << at;
        }
        match (key.raw, value) {
            (_, Value::Null) => {}
            (b"metric", Value::Text(text)) => sample.name = Some(text),
            (b"type", Value::Text(text)) => match wire_of(text.raw) {
                Some(wire) => sample.wire = Some(wire),
                None => {
                    let detail = format!("type {:?} is none of counter, gauge, timing, histogram and set", lossy(text));
                    return Err((RejectReason::UnknownType, detail));
                }
            },
            (b"value", Value::Number(_) | Value::Text(_)) => sample.value = Some(value),
            (b"op", Value::Text(text)) => match text.raw {
                b"set" => sample.op = Some(false),
                b"add" => sample.op = Some(true),
                _ => return wrong("\"set\" or \"add\""),
            },
            (b"unit", Value::Text(text)) => {
                sample.unit = Some(match text.raw {
                    b"s" => 0,
                    b"By" => {
                        is_bytes = true;
                        0
                    }
                    b"ms" => -3,
                    b"us" => -6,
                    b"ns" => -9,
                    _ => return wrong("\"s\", \"ms\", \"us\", \"ns\" or \"By\""),
                });
            }
            (b"labels", Value::Object(labels)) => sample.labels = Some(labels),
            (b"metric" | b"type" | b"op" | b"unit", _) => return wrong("text"),
            (b"value", _) => return wrong("a number, or text for a set"),
            (b"labels", _) => return wrong("an object"),
            _ => {
                if !frame.read_standard(key, value)? {
                    frame.pass();
                }
            }
        }
    }
    if is_bytes && sample.wire == Some(WireType::Timing) {
        let detail = "a timing has unit \"s\", \"ms\", \"us\" or \"ns\"; bytes are a histogram";
        return Err((RejectReason::WrongType, detail.to_owned()));
    }
    Ok(sample)
}

fn wire_of(text: &[u8]) -> Option<WireType> {
    match text {
        b"counter" => Some(WireType::Count),
        b"gauge" => Some(WireType::Gauge),
        b"timing" => Some(WireType::Timing),
        b"histogram" | b"distribution" => Some(WireType::Histogram),
        b"set" => Some(WireType::Set),
        _ => None,
    }
}

fn amount_of(
    sample: &Sample<'_>,
    wire: WireType,
    value: Value<'_>,
    meta: Meta,
    frame: &Frame,
) -> Result<Amount, RejectReason> {
    if meta.kind() == Kind::Set {
        let mut text = Vec::new();
        match value {
            Value::Text(member) => member.unescape_into(&mut text),
            Value::Number(number) => number.put_canonical(&mut text),
            _ => return Err(RejectReason::WrongType),
        }
        return Ok(Amount::Member(member_hash(&text)));
    }
    let Value::Number(number) = value else { return Err(RejectReason::WrongType) };
    // On the wire a timing is in milliseconds.
    let number = match (sample.unit, wire) {
        (Some(unit), WireType::Timing) => number.shifted(unit + 3),
        (Some(unit), _) => number.shifted(unit),
        (None, _) => number,
    };
    let number = number.shifted(i32::from(meta.shift()));
    let is_signless = meta.kind() == Kind::Counter || wire == WireType::Timing;
    if is_signless && number.is_negative() {
        return Err(RejectReason::Negative);
    }
    match meta.kind() {
        Kind::Counter => {
            let weighted =
                if frame.weight().number() == Number::ONE { number } else { number.times(frame.weight().number()) };
            let (whole, nanos) = weighted.whole_and_nano().ok_or(RejectReason::OutOfRange)?;
            Ok(Amount::Count { whole, nanos })
        }
        Kind::Gauge | Kind::Set => {
            let value = number.to_f64();
            if value.abs() > UNITS_MAX as f64 {
                return Err(RejectReason::OutOfRange);
            }
            if sample.op != Some(true) {
                let units = number.to_units(meta.exponent()).unwrap_or_else(|beyond| beyond.clamped);
                return Ok(Amount::Set { value, units });
            }
            if frame.time().is_some() { Err(RejectReason::GaugeOperationWithTime) } else { Ok(Amount::Adjust(value)) }
        }
        Kind::Distribution => Ok(match number.to_units(meta.exponent()) {
            Ok(units) => Amount::Units { units, is_clamped: false },
            Err(beyond) => Amount::Units { units: beyond.clamped, is_clamped: true },
        }),
    }
}

/// Appends a part of a key: its length, then what `write` appends.
fn put(key: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = key.len();
    key.extend_from_slice(&[0; 4]);
    write(key);
    let length = (key.len() - at - 4) as u32;
    key[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_labels(labels: &[u8], key: &mut Vec<u8>) -> Result<(), Refusal> {
    for member in Object::parse(labels).map_err(|error| bad_json(&error))? {
        let (label, value) = member.map_err(|error| bad_json(&error))?;
        put(key, |key| label.unescape_into(key));
        match value {
            Value::Null => put(key, |_| {}),
            Value::Text(text) => put(key, |key| text.unescape_into(key)),
            Value::Bool(value) => put(key, |key| FieldValue::Bool(value).put_text(key)),
            Value::Number(number) => put(key, |key| number.put_canonical(key)),
            Value::Object(_) | Value::Array(_) => {
                let detail = format!("label {:?} takes text, not {}", lossy(label), value.kind());
                return Err((RejectReason::WrongType, detail));
            }
        }
    }
    Ok(())
}

/// Reads the parts of a key back.
struct Parts<'k>(&'k [u8]);

impl<'k> Iterator for Parts<'k> {
    type Item = &'k [u8];

    fn next(&mut self) -> Option<&'k [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(part)
    }
}

fn lossy(text: Text<'_>) -> String {
    String::from_utf8_lossy(text.raw).into_owned()
}
