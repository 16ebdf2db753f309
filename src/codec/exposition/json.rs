//! JSON, written without an intermediate tree: a body has hundreds of thousands of samples.
//!
//! In: values. Out: bytes of RFC 8259. Invariant: NaN and infinities, which JSON cannot say, are null.

use super::number::put_f64;
use crate::event::Labels;

/// Writes a string with its quotes.
pub fn put_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1F => {
                out.extend_from_slice(b"\\u00");
                out.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(byte & 15)]);
            }
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Writes an object of labels.
pub fn put_json_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (key, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put_json_string(out, key);
        out.push(b':');
        put_json_string(out, value);
    }
    out.push(b'}');
}

/// Writes a float; null when it is not finite.
pub fn put_json_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        put_f64(out, value);
    } else {
        out.extend_from_slice(b"null");
    }
}
