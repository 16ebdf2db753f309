//! InfluxDB's line protocol: one line a series.
//!
//! In: values. Out: `measurement,tag=value field=1,field=2 nanoseconds`. Invariants: whatever labels contain, a line
//! stays a line, a line has at least one field, and different series stay different. What the protocol cannot say is
//! written as in a URL, `%` and two hexadecimal digits: control characters, and a backslash at the end or before a
//! character that needs one itself or another backslash (readers differ in what two of them mean). So that nothing else
//! reads like that, a `%` before two such digits is written `%25`; every other text stays what it is.
//!
//! Source: InfluxData, "Line protocol reference" (v2).

use super::number::{put_f64, put_units};
use crate::event::Labels;

/// Writes one line; without any field nothing is written.
pub struct InfluxLine<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    fields: usize,
}

impl<'a> InfluxLine<'a> {
    /// Begins a line with its measurement and tags.
    pub fn new(out: &'a mut Vec<u8>, measurement: &str, tags: &Labels) -> InfluxLine<'a> {
        let start = out.len();
        put_escaped(out, measurement, b", ");
        for (key, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
            out.push(b',');
            put_escaped(out, key, b", =");
            out.push(b'=');
            put_escaped(out, value, b", =");
        }
        InfluxLine { out, start, fields: 0 }
    }

    fn key(&mut self, key: &str) {
        self.out.push(if self.fields == 0 { b' ' } else { b',' });
        self.fields += 1;
        put_escaped(self.out, key, b", =");
        self.out.push(b'=');
    }

    /// Writes a field of `10^-exponent` units.
    pub fn units(&mut self, key: &str, units: i128, exponent: u8) {
        self.key(key);
        put_units(self.out, units, exponent);
    }

    /// Writes a field, unless it is NaN or infinite, which the protocol has no word for.
    pub fn float(&mut self, key: &str, value: f64) {
        if value.is_finite() {
            self.key(key);
            put_f64(self.out, value);
        }
    }

    /// Ends the line; without a time the reader takes its own.
    pub fn end(self, nanos: Option<i64>) {
        if self.fields == 0 {
            return self.out.truncate(self.start);
        }
        if let Some(nanos) = nanos {
            self.out.push(b' ');
            put_units(self.out, i128::from(nanos), 0);
        }
        self.out.push(b'\n');
    }
}

fn put_escaped(out: &mut Vec<u8>, text: &str, special: &[u8]) {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' if bytes.get(at + 1).is_none_or(|next| special.contains(next) || *next == b'\\') => {
                put_replaced(out, *byte);
            }
            b'%' if bytes.get(at + 1..at + 3).is_some_and(|next| next.iter().all(u8::is_ascii_hexdigit)) => {
                put_replaced(out, *byte);
            }
            byte if special.contains(byte) => out.extend_from_slice(&[b'\\', *byte]),
            byte if byte.is_ascii_control() => put_replaced(out, *byte),
            byte => out.push(*byte),
        }
    }
}

fn put_replaced(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}
