//! The DogStatsD protocol 1.1 to 1.3 and plain StatsD: one text line is one sample, event or check.
//!
//! In: lines, or buffers of lines. Out: borrowed [`Parsed`] views, or a [`RejectReason`]. Owns nothing.
//! Grammar: `name:value[:value...]|type[|@rate][|#k:v,...][|c:..][|e:..][|card:..][|T<unix>]`, fields in
//! any order (docs.datadoghq.com, "DogStatsD datagram format and shell usage").
//!
//! Invariants: no bytes make it panic or allocate; the fast path and the general path answer alike; of a
//! [`Line`], only name, type and tags say which series it belongs to (they are what [`key_hash`] takes), so
//! that no rate, time or container id can make a new one. Whether names and tags are UTF-8 is not asked
//! here: the rules ask once per new key.

mod fast;
mod general;
mod item;
mod key;
mod render;
mod scan;
mod tags;

pub use item::{AlertType, CheckDetails, CheckStatus, EventDetails, EventItem, Priority, ServiceCheck};
pub use key::key_hash;
pub use render::write_line;
pub use tags::tags;

use super::number::Number;
use crate::event::{RejectReason, WEIGHT_ONE, WireType};

/// Longest metric name in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// The smallest sample rate, 2⁻²⁰: below it a weight would not fit what sketches count (V2).
pub const RATE_MIN: f64 = 1.0 / (1 << 20) as f64;

/// A line of metric samples; every slice points into the line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// As sent: not empty, at most [`NAME_BYTES_MAX`] bytes, not checked to be UTF-8.
    pub name: &'a [u8],
    /// What stood after `#`, as sent; empty without tags. [`tags()`] takes it apart.
    pub tags: &'a [u8],
    /// The text between the name and the type: one number, several between `:`, or a set's member.
    pub values: &'a [u8],
    /// The first value; 0 for a set.
    pub value: Number,
    /// The sample rate, in [2⁻²⁰, 1]; [`Number::ONE`] when none was sent.
    pub rate: Number,
    /// `round(4096 / rate)`, from [`WEIGHT_ONE`] to 2³² (V2).
    pub weight: u64,
    /// Seconds since the epoch, above zero; only on `c` and `g`.
    pub time: Option<i64>,
    /// The type letters.
    pub wire: WireType,
    /// True when `values` holds more than one number.
    pub packed: bool,
    /// How many fields were ignored: unknown ones, empty ones, `T` on a type that has no time.
    pub unknown_fields: u8,
}

/// What a line can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// `name:value|type`
    Sample(Line<'a>),
    /// `_e{..}:title|text`
    Event(EventItem<'a>),
    /// `_sc|name|status`
    Check(ServiceCheck<'a>),
    /// A line that begins with `{`, unread: JSON may stand among the lines of any socket.
    Json(&'a [u8]),
}

/// Reads one line, without its newline; `\r` at its end is dropped.
///
/// # Errors
/// The first thing that is wrong, in the order name, type, values, fields. A packed line with one bad
/// value is refused whole. An empty line is `Malformed`.
pub fn parse(line: &[u8]) -> Result<Parsed<'_>, RejectReason> {
    let found = match line.first_chunk::<64>() {
        Some(block) => {
            fast::head(block).and_then(|head| fast::short(line, block, head).or_else(|| fast::long(line, head)))
        }
        None => fast::tail(line),
    };
    match found {
        Some((sample, consumed)) if consumed == line.len() => Ok(Parsed::Sample(sample)),
        _ => general::parse(line),
    }
}

/// Reads the line that begins at `at` and moves `at` behind its newline; lines that are empty, or hold
/// only `\r`, are skipped. `None` at the end of the buffer. An error carries the line that was refused.
///
/// This is the hot path: searching the newline and parsing are one pass.
#[inline]
pub fn parse_next<'a>(buffer: &'a [u8], at: &mut usize) -> Option<Result<Parsed<'a>, (RejectReason, &'a [u8])>> {
    let rest = buffer.get(*at..)?;
    let Some(block) = rest.first_chunk::<64>() else { return parse_next_tail(buffer, at) };
    let Some(head) = fast::head(block) else { return parse_next_general(buffer, at) };
    let Some((line, consumed)) = fast::short(rest, block, head) else { return parse_next_long(buffer, at, head) };
    *at += consumed;
    Some(Ok(Parsed::Sample(line)))
}

#[inline(never)]
fn parse_next_long<'a>(
    buffer: &'a [u8],
    at: &mut usize,
    head: fast::Head,
) -> Option<Result<Parsed<'a>, (RejectReason, &'a [u8])>> {
    let Some((line, consumed)) = fast::long(buffer.get(*at..)?, head) else { return parse_next_general(buffer, at) };
    *at += consumed;
    Some(Ok(Parsed::Sample(line)))
}

#[inline(never)]
fn parse_next_tail<'a>(buffer: &'a [u8], at: &mut usize) -> Option<Result<Parsed<'a>, (RejectReason, &'a [u8])>> {
    let Some((line, consumed)) = fast::tail(buffer.get(*at..)?) else { return parse_next_general(buffer, at) };
    *at += consumed;
    Some(Ok(Parsed::Sample(line)))
}

#[cold]
#[inline(never)]
fn parse_next_general<'a>(buffer: &'a [u8], at: &mut usize) -> Option<Result<Parsed<'a>, (RejectReason, &'a [u8])>> {
    let mut lines = Lines::new(buffer.get(*at..)?);
    let line = lines.next();
    *at = buffer.len() - lines.rest.len();
    line.map(|line| general::parse(line).map_err(|reason| (reason, line)))
}

/// The numbers of a line that is not a set, in their order. `parse` has read them all once, so none of
/// them is an error on a line that came from it.
pub fn values<'a>(line: &Line<'a>) -> impl Iterator<Item = Result<Number, RejectReason>> + use<'a> {
    let mut rest = Some(line.values);
    std::iter::from_fn(move || {
        let text = rest?;
        let (value, tail) = match memchr::memchr(b':', text) {
            Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
            None => (text, None),
        };
        rest = tail;
        Some(Number::parse(value))
    })
}

/// Splits a buffer into lines, without their newlines and any `\r` before them, skipping empty ones.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The lines of `buffer`; the last one needs no newline.
    pub fn new(buffer: &'a [u8]) -> Lines<'a> {
        Lines { rest: buffer }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (line, rest) = match memchr::memchr(b'\n', self.rest) {
                Some(newline) => (&self.rest[..newline], &self.rest[newline + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let line = strip_returns(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }
}

/// Without `\r` at the end, of which clients on some systems send one.
fn strip_returns(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests;
