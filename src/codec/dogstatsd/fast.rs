//! Samples in one pass; at its fastest for what clients send most, `name:number|type|#tags`.
//!
//! In: the rest of a buffer. Out: the line and its length, or `None` for sets, events, checks, names of more
//! than about 50 bytes, and whatever is refused; the general path then reads it from the beginning. The
//! steps are separate so that the shortest way builds its answer in one place.
//! Invariant: what is answered here, the general path would answer too.

use super::general::{self, Extras};
use super::scan;
use super::{Line, WEIGHT_ONE, WireType, strip_returns};
use crate::codec::number::{Number, short_decimal};
use std::hint::select_unpredictable;

/// No wire type.
const UNKNOWN: u8 = u8::MAX;

/// By letter: the code of the one-letter types that carry a number.
const TYPES: [u8; 256] = {
    let mut types = [UNKNOWN; 256];
    types[b'c' as usize] = WireType::Count as u8;
    types[b'g' as usize] = WireType::Gauge as u8;
    types[b'h' as usize] = WireType::Histogram as u8;
    types[b'd' as usize] = WireType::Distribution as u8;
    types
};

/// What the first 64 bytes of a line show. The line's parts are offsets from its beginning.
#[derive(Clone, Copy)]
pub(super) struct Head {
    colon: usize,
    pipe: usize,
    /// Of the pipe or newline behind the type.
    type_end: usize,
    wire: WireType,
    /// Colons of the whole block.
    colons: u64,
    /// Pipes and newlines behind the one at `type_end`.
    after: u64,
}

/// Name, type and their ends; `block` begins with the bytes of the line.
#[inline(always)]
pub(super) fn head(block: &[u8; 64]) -> Option<Head> {
    // Events, service checks and JSON are known by their first byte.
    if matches!(block[0], b'_' | b'{') {
        return None;
    }
    let found = scan::structure(block);
    let colon = found.colons.trailing_zeros() as usize;
    let pipe = found.pipes.trailing_zeros() as usize;
    if colon == 0 || pipe >= 64 || colon >= pipe {
        return None;
    }
    let ends = (found.pipes & (found.pipes - 1)) | found.newlines;
    let type_end = ends.trailing_zeros() as usize;
    // A newline before the first pipe makes `type_end` smaller than `pipe`.
    let length = type_end.wrapping_sub(pipe);
    let (first, second) = (block[(pipe + 1) & 63], block[(pipe + 2) & 63]);
    // Types are mixed in real traffic: chosen, not branched on.
    let is_timing = (length == 3) & (first == b'm') & (second == b's');
    let code = select_unpredictable(is_timing, WireType::Timing as u8, TYPES[usize::from(first)]);
    if !is_timing & (length != 2) {
        return None;
    }
    let wire = wire_type(code)?;
    (type_end < 64).then_some(Head {
        colon,
        pipe,
        type_end,
        wire,
        colons: found.colons,
        after: ends & ends.wrapping_sub(1),
    })
}

/// The rest of a line with one short number and no fields but tags; `None` for every other. Also answers
/// how many bytes the line takes, newline included.
#[inline(always)]
pub(super) fn short<'a>(rest: &'a [u8], block: &[u8; 64], head: Head) -> Option<(Line<'a>, usize)> {
    let Head { colon, pipe, type_end, wire, after, .. } = head;
    let (tags, end) = if block[type_end] == b'\n' {
        (rest.get(type_end..type_end)?, type_end)
    } else {
        if rest.get(type_end + 1) != Some(&b'#') {
            return None;
        }
        let end = end_of_tags(rest, after);
        if rest.get(end) == Some(&b'|') {
            return None;
        }
        let tags = rest.get(type_end + 2..end)?;
        if tags.last() == Some(&b'\r') {
            return None;
        }
        (tags, end)
    };
    let word = block.get(colon + 1..colon + 9)?.try_into().expect("eight bytes");
    let length = pipe - colon - 1;
    if length > 8 {
        return None;
    }
    let (mantissa, decimals) = short_decimal(u64::from_le_bytes(word), length as u32)?;
    let line = Line {
        name: rest.get(..colon)?,
        tags,
        values: rest.get(colon + 1..pipe)?,
        value: Number::from_digits(mantissa, decimals),
        rate: Number::ONE,
        weight: WEIGHT_ONE,
        time: None,
        wire,
        packed: false,
        unknown_fields: 0,
    };
    Some((line, (end + 1).min(rest.len())))
}

/// The rest of any line that has a [`Head`].
#[inline(always)]
pub(super) fn long(rest: &[u8], head: Head) -> Option<(Line<'_>, usize)> {
    let Head { colon, pipe, type_end, wire, .. } = head;
    let values = rest.get(colon + 1..pipe)?;
    let later_colons = head.colons & head.colons.wrapping_sub(1);
    let packed = (later_colons.trailing_zeros() as usize) < pipe;
    let (value, signed) = general::read_values(values, wire, packed).ok()?;
    let mut extras = Extras::NONE;
    let mut ends = Ends::new(rest, head.after);
    let mut end = type_end;
    while rest.get(end) == Some(&b'|') {
        let start = end + 1;
        end = ends.next();
        let field = rest.get(start..end)?;
        let field = if rest.get(end) == Some(&b'|') { field } else { strip_returns(field) };
        extras.read(field, wire).ok()?;
    }
    extras.check(wire, signed).ok()?;
    Some((extras.line(rest.get(..colon)?, values, wire, value, packed), (end + 1).min(rest.len())))
}

/// The pipe or newline behind the tags, or the end of the buffer. `after`: those of the first 64 bytes.
#[inline(always)]
fn end_of_tags(rest: &[u8], after: u64) -> usize {
    let mut at = 64;
    if let Some(block) = rest.get(at..).and_then(|rest| rest.first_chunk::<32>()) {
        // Lines end on either side of 64 bytes with no pattern: looking at both and choosing is cheaper
        // than a branch on it.
        let ends = scan::ends(block);
        if after | u64::from(ends) != 0 {
            let (near, far) = (after.trailing_zeros() as usize, at + ends.trailing_zeros() as usize);
            return select_unpredictable(after != 0, near, far);
        }
        at += 32;
    } else if after != 0 {
        return after.trailing_zeros() as usize;
    }
    while let Some(block) = rest.get(at..).and_then(|rest| rest.first_chunk::<32>()) {
        let ends = scan::ends(block);
        if ends != 0 {
            return at + ends.trailing_zeros() as usize;
        }
        at += 32;
    }
    end_of_short_tags(rest, at)
}

#[inline(never)]
fn end_of_short_tags(rest: &[u8], at: usize) -> usize {
    let tail = rest.get(at..).unwrap_or_default();
    at + memchr::memchr2(b'\n', b'|', tail).unwrap_or(tail.len())
}

/// Walks over the pipes of a line to its newline, or to the end of the buffer.
struct Ends<'a> {
    rest: &'a [u8],
    /// Where the block of `mask` begins, and where the next one does.
    base: usize,
    next: usize,
    mask: u64,
}

impl<'a> Ends<'a> {
    /// Behind the type: `mask` is of the first 64 bytes.
    #[inline(always)]
    fn new(rest: &'a [u8], mask: u64) -> Ends<'a> {
        Ends { rest, base: 0, next: 64, mask }
    }

    /// Not to be asked again after a newline or the end.
    #[inline(always)]
    fn next(&mut self) -> usize {
        while self.mask == 0 {
            self.base = self.next;
            self.next += 32;
            let rest = self.rest.get(self.base..).unwrap_or_default();
            let copy;
            // One call for both cases: of two masks that meet, LLVM makes 32 separate bits (10 ns).
            let block = match rest.first_chunk::<32>() {
                Some(block) => block,
                None => {
                    copy = filled(rest);
                    &copy
                }
            };
            self.mask = u64::from(scan::ends(block));
        }
        let end = self.base + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        end
    }
}

/// Less than `N` bytes, filled up with newlines.
#[inline(never)]
fn filled<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut block = [b'\n'; N];
    let length = rest.len().min(N);
    block[..length].copy_from_slice(&rest[..length]);
    block
}

/// A line of which less than 64 bytes are left to read: the block is a copy, filled up with newlines.
pub(super) fn tail(rest: &[u8]) -> Option<(Line<'_>, usize)> {
    let block = filled(rest);
    let head = head(&block)?;
    short(rest, &block, head).or_else(|| long(rest, head))
}

#[inline(always)]
fn wire_type(code: u8) -> Option<WireType> {
    [WireType::Count, WireType::Gauge, WireType::Timing, WireType::Histogram, WireType::Distribution]
        .get(usize::from(code))
        .copied()
}
