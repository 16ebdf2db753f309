//! InfluxDB's line protocol: one line a series.
//!
//! In: values. Out: `measurement,tag=value field=1,field=2 nanoseconds`. Invariants: whatever labels contain, a line
//! stays a line and its tags stay what they are; a line has at least one field. What the protocol cannot say is
//! written as near as it can be: a line break in a tag is a space, a backslash before a character that needs one
//! itself, or at the end, is left out (readers differ in what two of them mean).
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
            b'\\' if bytes.get(at + 1).is_none_or(|next| is_special(*next, special) || *next == b'\\') => {}
            byte if is_special(*byte, special) => {
                out.push(b'\\');
                out.push(if byte.is_ascii_control() { b' ' } else { *byte });
            }
            byte if byte.is_ascii_control() => out.push(b'?'),
            byte => out.push(*byte),
        }
    }
}

/// Line breaks are written as spaces, so they need an escape like one.
fn is_special(byte: u8, special: &[u8]) -> bool {
    special.contains(&byte) || matches!(byte, b'\n' | b'\r' | b'\t')
}
