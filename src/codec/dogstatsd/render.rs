//! Lines as a client would write them: for the load generator, `send`, and tests.
//!
//! In: the parts of a line. Out: bytes appended to a buffer. Invariant: what is written here, `parse` reads
//! back to the same parts, as long as the parts hold no `|` and no newline.

use super::{Number, WireType};

/// Appends one line with its newline. `values` is the text between name and type (a number, several
/// between `:`, or a set's member), `tags` the raw comma list, `time` seconds since the epoch.
pub fn write_line(
    out: &mut Vec<u8>,
    name: &[u8],
    values: &[u8],
    wire: WireType,
    rate: Option<Number>,
    tags: &[u8],
    time: Option<i64>,
) {
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(values);
    out.push(b'|');
    out.extend_from_slice(wire.as_str().as_bytes());
    if let Some(rate) = rate {
        out.extend_from_slice(b"|@");
        rate.write_to(out);
    }
    if !tags.is_empty() {
        out.extend_from_slice(b"|#");
        out.extend_from_slice(tags);
    }
    if let Some(time) = time {
        out.extend_from_slice(b"|T");
        out.extend_from_slice(itoa::Buffer::new().format(time).as_bytes());
    }
    out.push(b'\n');
}
