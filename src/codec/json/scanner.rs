//! One value at a place of a text: where it ends and what it is.
//!
//! In: a text and a place in it. Out: a value and the place behind it, or the first thing that is wrong.
//! Owns: the grammar of RFC 8259. Invariants: containers are passed over without recursion; every string
//! that is passed is checked to be UTF-8 with right escapes; nothing is read twice but long numbers and
//! strings that are not ASCII.

use super::error::error;
use super::scan::{self, Found};
use super::{DEPTH_MAX, JsonError, JsonErrorKind, Text, Value};
use crate::codec::number::Number;

/// The place of the next byte that is not white space.
#[inline(always)]
pub(super) fn skip_space(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(byte) if *byte > b' ' => at,
        _ => skip_some_space(bytes, at),
    }
}

#[inline]
fn skip_some_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Nothing but white space may follow.
#[inline]
pub(super) fn end_of_text(bytes: &[u8], at: usize) -> Result<(), JsonError> {
    let at = skip_space(bytes, at);
    if at < bytes.len() { Err(error(JsonErrorKind::Trailing, at)) } else { Ok(()) }
}

/// The byte there cannot stand there, or there is none.
#[cold]
pub(super) fn unexpected(bytes: &[u8], at: usize) -> JsonError {
    error(if at < bytes.len() { JsonErrorKind::Unexpected } else { JsonErrorKind::Ended }, at.min(bytes.len()))
}

/// A key and the place where its value begins.
#[inline(always)]
pub(super) fn key(bytes: &[u8], at: usize) -> Result<(Text<'_>, usize), JsonError> {
    if bytes.get(at) != Some(&b'"') {
        return Err(unexpected(bytes, at));
    }
    let (key, end) = string(bytes, at + 1)?;
    let colon = skip_space(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(unexpected(bytes, colon));
    }
    Ok((key, skip_space(bytes, colon + 1)))
}

/// The value that begins at `at`, where no white space stands, and the place behind it. It stands within
/// `depth` containers.
#[inline]
pub(super) fn value(bytes: &[u8], at: usize, depth: u32) -> Result<(Value<'_>, usize), JsonError> {
    match bytes.get(at) {
        Some(b'"') => string(bytes, at + 1).map(|(text, end)| (Value::Text(text), end)),
        Some(b'-' | b'0'..=b'9') => number(bytes, at).map(|(number, end)| (Value::Number(number), end)),
        Some(b't') => literal(bytes, at, b"true").map(|end| (Value::Bool(true), end)),
        Some(b'f') => literal(bytes, at, b"false").map(|end| (Value::Bool(false), end)),
        Some(b'n') => literal(bytes, at, b"null").map(|end| (Value::Null, end)),
        Some(b'{') => container(bytes, at, depth).map(|end| (Value::Object(&bytes[at..end]), end)),
        Some(b'[') => container(bytes, at, depth).map(|end| (Value::Array(&bytes[at..end]), end)),
        _ => Err(unexpected(bytes, at)),
    }
}

#[inline(always)]
fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    if bytes[at..].starts_with(word) { Ok(at + word.len()) } else { Err(bad_literal(bytes, at, word)) }
}

#[cold]
fn bad_literal(bytes: &[u8], at: usize, word: &[u8]) -> JsonError {
    let same = bytes[at..].iter().zip(word).take_while(|(byte, wanted)| byte == wanted).count();
    unexpected(bytes, at + same)
}

/// The 16 bytes from `at` on, or what is left of them: with `Found` for those only, and how many they are.
/// `None` when the whole text has less than 16 bytes.
#[inline(always)]
fn look_at(bytes: &[u8], at: usize) -> Option<(Found, usize)> {
    let rest = bytes.get(at..)?;
    if let Some(block) = rest.first_chunk::<16>() {
        return Some((scan::look(block), 16));
    }
    // The last 16 bytes of the text, of which the first were looked at before.
    let found = scan::look(bytes.last_chunk::<16>()?);
    let shift = 16 - rest.len();
    Some((Found { stops: found.stops >> shift, high: found.high >> shift }, rest.len()))
}

/// A string from behind its opening quote; the place behind the closing one.
#[inline(always)]
pub(super) fn string(bytes: &[u8], start: usize) -> Result<(Text<'_>, usize), JsonError> {
    if let Some((found, _)) = look_at(bytes, start)
        && found.stops != 0
    {
        let length = found.stops.trailing_zeros() as usize;
        let before = (found.stops & found.stops.wrapping_neg()).wrapping_sub(1);
        if bytes[start + length] == b'"' && found.high & before == 0 {
            return Ok((Text { raw: &bytes[start..start + length], escaped: false }, start + length + 1));
        }
    }
    long_string(bytes, start)
}

#[inline(never)]
fn long_string(bytes: &[u8], start: usize) -> Result<(Text<'_>, usize), JsonError> {
    let (mut at, mut escaped, mut is_ascii) = (start, false, true);
    let end = loop {
        let (found, length) = match look_at(bytes, at) {
            Some(found) => found,
            None => look_at_few(bytes, at),
        };
        if found.stops == 0 {
            if length == 0 {
                return Err(error(JsonErrorKind::Ended, bytes.len()));
            }
            is_ascii &= found.high == 0;
            at += length;
            continue;
        }
        let stop = at + found.stops.trailing_zeros() as usize;
        is_ascii &= found.high & ((found.stops & found.stops.wrapping_neg()) - 1) == 0;
        match bytes[stop] {
            b'"' => break stop,
            b'\\' => {
                escaped = true;
                at = escape(bytes, stop)?;
            }
            _ => return Err(error(JsonErrorKind::Control, stop)),
        }
    };
    let raw = &bytes[start..end];
    if !is_ascii && let Err(wrong) = std::str::from_utf8(raw) {
        return Err(error(JsonErrorKind::Utf8, start + wrong.valid_up_to()));
    }
    Ok((Text { raw, escaped }, end + 1))
}

/// As [`look_at`], for a text of less than 16 bytes.
fn look_at_few(bytes: &[u8], at: usize) -> (Found, usize) {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut block = [b' '; 16];
    block[..rest.len()].copy_from_slice(rest);
    (scan::look(&block), rest.len())
}

/// The place behind an escape that begins at `at` with a backslash.
fn escape(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let first = hex(bytes, at + 2)?;
            match first {
                // A leading surrogate: the trailing one follows at once, or the pair is broken.
                0xD800..=0xDBFF => {
                    for (place, wanted) in [(at + 6, b'\\'), (at + 7, b'u')] {
                        match bytes.get(place) {
                            Some(byte) if *byte == wanted => {}
                            Some(_) => return Err(error(JsonErrorKind::Escape, at)),
                            None => return Err(error(JsonErrorKind::Ended, bytes.len())),
                        }
                    }
                    match hex(bytes, at + 8)? {
                        0xDC00..=0xDFFF => Ok(at + 12),
                        _ => Err(error(JsonErrorKind::Escape, at)),
                    }
                }
                0xDC00..=0xDFFF => Err(error(JsonErrorKind::Escape, at)),
                _ => Ok(at + 6),
            }
        }
        Some(_) => Err(error(JsonErrorKind::Escape, at)),
        None => Err(error(JsonErrorKind::Ended, bytes.len())),
    }
}

/// Four hexadecimal digits.
pub(super) fn hex(bytes: &[u8], at: usize) -> Result<u16, JsonError> {
    let Some(digits) = bytes.get(at..at + 4) else { return Err(error(JsonErrorKind::Ended, bytes.len())) };
    let mut value = 0;
    for digit in digits {
        let digit = char::from(*digit).to_digit(16).ok_or_else(|| error(JsonErrorKind::Escape, at))?;
        value = value << 4 | digit as u16;
    }
    Ok(value)
}

/// A run of digits: its value if it has at most 19, and the place behind it.
#[inline(always)]
fn digits(bytes: &[u8], mut at: usize, mut value: u64) -> (u64, usize) {
    while let Some(byte) = bytes.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    (value, at)
}

#[inline(always)]
fn number(bytes: &[u8], start: usize) -> Result<(Number, usize), JsonError> {
    let is_negative = bytes[start] == b'-';
    let first = start + usize::from(is_negative);
    let (whole, mut at) = digits(bytes, first, 0);
    let mut count = at - first;
    if count == 0 || (count > 1 && bytes[first] == b'0') {
        return Err(bad_number(bytes, if count == 0 { at } else { first }));
    }
    let (mut mantissa, mut decimals) = (whole, 0);
    if bytes.get(at) == Some(&b'.') {
        let point = at + 1;
        (mantissa, at) = digits(bytes, point, whole);
        decimals = at - point;
        if decimals == 0 {
            return Err(bad_number(bytes, at));
        }
        count += decimals;
    }
    if count > 19 || matches!(bytes.get(at), Some(b'e' | b'E')) {
        return long_number(bytes, start, at);
    }
    Ok((Number::from_json(is_negative, mantissa, decimals as u32), at))
}

/// More than 19 digits, or an exponent. `at`: behind the digits.
#[inline(never)]
fn long_number(bytes: &[u8], start: usize, mut at: usize) -> Result<(Number, usize), JsonError> {
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        let (_, end) = digits(bytes, at, 0);
        if end == at {
            return Err(bad_number(bytes, at));
        }
        at = end;
    }
    let text = &bytes[start..at];
    let number = Number::parse(text).map_err(|_| error(JsonErrorKind::Number, start))?.without_sign_flag();
    // Only the largest f64 may stand for more than itself: the text says whether it does.
    if number.to_f64().abs() == f64::MAX
        && std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()).is_none_or(f64::is_infinite)
    {
        return Err(error(JsonErrorKind::NumberRange, start));
    }
    Ok((number, at))
}

#[cold]
fn bad_number(bytes: &[u8], at: usize) -> JsonError {
    error(if at < bytes.len() { JsonErrorKind::Number } else { JsonErrorKind::Ended }, at)
}

/// Passes over an object or array that stands within `outer` others, checking everything in it; the place behind it.
#[inline(never)]
fn container(bytes: &[u8], start: usize, outer: u32) -> Result<usize, JsonError> {
    // One bit for each open container, the innermost in the lowest: 1 is an object.
    let mut open = 0u128;
    let mut depth = outer;
    let mut at = start;
    loop {
        // A value stands at `at`, without white space before it.
        let mut is_over = true;
        match bytes.get(at) {
            Some(brace @ (b'{' | b'[')) => {
                let is_object = *brace == b'{';
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(error(JsonErrorKind::Depth, at));
                }
                open = open << 1 | u128::from(is_object);
                at = skip_space(bytes, at + 1);
                let close = if is_object { b'}' } else { b']' };
                if bytes.get(at) != Some(&close) {
                    is_over = false;
                    if is_object {
                        at = key(bytes, at)?.1;
                    }
                }
            }
            Some(b'"') => at = skip_space(bytes, string(bytes, at + 1)?.1),
            Some(b'-' | b'0'..=b'9') => at = skip_space(bytes, number(bytes, at)?.1),
            Some(b't') => at = skip_space(bytes, literal(bytes, at, b"true")?),
            Some(b'f') => at = skip_space(bytes, literal(bytes, at, b"false")?),
            Some(b'n') => at = skip_space(bytes, literal(bytes, at, b"null")?),
            _ => return Err(unexpected(bytes, at)),
        }
        // Behind a value: closes what ends here, then the comma.
        while is_over {
            let is_object = open & 1 == 1;
            match bytes.get(at) {
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(b',') => {
                    at = skip_space(bytes, at + 1);
                    if is_object {
                        at = key(bytes, at)?.1;
                    }
                    is_over = false;
                    continue;
                }
                _ => return Err(unexpected(bytes, at)),
            }
            at += 1;
            open >>= 1;
            depth -= 1;
            if depth == outer {
                return Ok(at);
            }
            at = skip_space(bytes, at);
        }
    }
}
