//! What a field of an event holds, once its type was checked.
//!
//! In: a value as a codec or a caller has it. Out: the same as the schema means it (times in seconds), or why it is
//! refused. Invariant: a number stays decimal until a metric's scale is known, so that it is rounded once (V1).

use super::{FIELDS_MAX, FieldType};
use crate::event::{Number, RejectReason, Timestamp, WEIGHT_ONE, time};
use arrayvec::ArrayVec;

/// A value, borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum FieldValue<'a> {
    /// Not there, or null.
    #[default]
    Missing,
    /// `true`, `false`
    Bool(bool),
    /// A number; times in seconds once it is accepted.
    Number(Number),
    /// Text without escapes, in UTF-8.
    Text(&'a [u8]),
}

/// The values of one event, by the place of the field in its schema.
pub type Fields<'a> = ArrayVec<FieldValue<'a>, FIELDS_MAX>;

impl<'a> FieldValue<'a> {
    /// The value as a field of this type.
    ///
    /// # Errors
    /// `WrongType`; `BadTimestamp` for a timestamp that is none.
    #[inline]
    pub fn accept(self, ty: FieldType) -> Result<FieldValue<'a>, RejectReason> {
        match (ty, self) {
            (_, FieldValue::Missing) => Ok(self),
            (FieldType::String, FieldValue::Text(_)) | (FieldType::Bool, FieldValue::Bool(_)) => Ok(self),
            (FieldType::Int, FieldValue::Number(number)) if number.is_whole() => Ok(self),
            (FieldType::Float | FieldType::Seconds | FieldType::Bytes, FieldValue::Number(_)) => Ok(self),
            (FieldType::Milliseconds, FieldValue::Number(number)) => Ok(FieldValue::Number(number.shifted(-3))),
            (FieldType::Microseconds, FieldValue::Number(number)) => Ok(FieldValue::Number(number.shifted(-6))),
            (FieldType::Timestamp, _) => match self.as_time() {
                Ok(time) => Ok(FieldValue::Number(Number::from_i64(time.0).shifted(-9))),
                Err(reason) => Err(reason),
            },
            _ => Err(RejectReason::WrongType),
        }
    }

    /// The value as a moment: RFC 3339, or a number since the epoch.
    ///
    /// # Errors
    /// `WrongType` for a bool, `BadTimestamp` for what is no time.
    pub fn as_time(self) -> Result<Timestamp, RejectReason> {
        match self {
            FieldValue::Text(text) => time::parse_rfc3339(text).ok_or(RejectReason::BadTimestamp),
            FieldValue::Number(number) => time::from_epoch(number).ok_or(RejectReason::BadTimestamp),
            FieldValue::Bool(_) | FieldValue::Missing => Err(RejectReason::WrongType),
        }
    }

    /// Appends the value as a label shows it: text as it is, `true` and `false`, numbers in their one spelling.
    #[inline]
    pub fn put_text(self, out: &mut Vec<u8>) {
        match self {
            FieldValue::Missing => {}
            FieldValue::Bool(value) => out.extend_from_slice(bool_text(value).as_bytes()),
            FieldValue::Number(number) => number.put_canonical(out),
            FieldValue::Text(text) => out.extend_from_slice(text),
        }
    }

    /// What kind of value it is, for people.
    pub fn type_name(self) -> &'static str {
        match self {
            FieldValue::Missing => "nothing",
            FieldValue::Bool(_) => "a bool",
            FieldValue::Number(_) => "a number",
            FieldValue::Text(_) => "text",
        }
    }
}

impl FieldType {
    /// The word in the pipeline file.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::String => "string",
            FieldType::Bool => "bool",
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Seconds => "seconds",
            FieldType::Milliseconds => "milliseconds",
            FieldType::Microseconds => "microseconds",
            FieldType::Bytes => "bytes",
            FieldType::Timestamp => "timestamp",
        }
    }

    /// True for types whose values are numbers.
    pub fn is_number(self) -> bool {
        !matches!(self, FieldType::String | FieldType::Bool)
    }

    /// True for spans of time, which cannot be negative as values of a distribution (V4).
    pub fn is_duration(self) -> bool {
        matches!(self, FieldType::Seconds | FieldType::Milliseconds | FieldType::Microseconds)
    }
}

/// A bool as a label.
pub(super) fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// What one event stands for: `weight` events like it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    times: Number,
    cells: u64,
}

impl Weight {
    /// An event that stands for itself.
    pub const ONE: Weight = Weight { times: Number::ONE, cells: WEIGHT_ONE };

    /// A weight from 1 to 2²⁰: the inverse of a sample rate (V2).
    ///
    /// # Errors
    /// `BadWeight` outside.
    pub fn new(weight: Number) -> Result<Weight, RejectReason> {
        let is_in = weight.compare(Number::ONE).is_ge() && weight.compare(Number::from_u64(1 << 20)).is_le();
        let cells = weight.times(Number::from_u64(WEIGHT_ONE)).to_units(0).unwrap_or(0);
        if is_in { Ok(Weight { times: weight, cells: cells as u64 }) } else { Err(RejectReason::BadWeight) }
    }

    /// In 1/4096, for sketches.
    pub fn cells(self) -> u64 {
        self.cells
    }

    /// A counter's increment times the weight.
    #[inline]
    pub(super) fn times(self, value: Number) -> Number {
        if self.times == Number::ONE { value } else { value.times(self.times) }
    }

    /// The weight as a number.
    pub fn number(self) -> Number {
        self.times
    }
}
