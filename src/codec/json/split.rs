//! A body of events: one object, an array of objects, or one object a line (NDJSON).
//!
//! In: a whole body. Out: the text of each event, in order. Owns nothing. Invariants: an array is checked
//! whole before its first event is given, since one that is broken has no trustworthy pieces; lines stand
//! for themselves, so that a bad one costs only itself.

use super::scanner::{end_of_text, skip_space, value};
use super::{Expect, JsonError, JsonErrorKind, Value, error::error};

/// The events of a body. What they say is for their reader to check: an element of an array is JSON but may
/// be no object, and a line may be anything.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    form: Form<'a>,
}

#[derive(Clone, Debug)]
enum Form<'a> {
    Single(Option<&'a [u8]>),
    Array { bytes: &'a [u8], at: usize, expect: Expect },
    Lines(&'a [u8]),
}

impl<'a> Events<'a> {
    /// Looks at a body. `[` begins an array; `{` one object if it is the whole body, which may then spread over
    /// lines; everything else is lines.
    ///
    /// # Errors
    /// `Ended` for a body of white space, and the first error of an array that is not JSON.
    pub fn of_body(body: &'a [u8]) -> Result<Events<'a>, JsonError> {
        let at = skip_space(body, 0);
        let form = match body.get(at) {
            None => return Err(error(JsonErrorKind::Ended, at)),
            Some(b'[') => {
                Value::parse(body)?;
                Form::Array { bytes: body, at: at + 1, expect: Expect::First }
            }
            Some(b'{') => match value(body, at, 0) {
                Ok((Value::Object(object), end)) if end_of_text(body, end).is_ok() => Form::Single(Some(object)),
                _ => Form::Lines(body),
            },
            Some(_) => Form::Lines(body),
        };
        Ok(Events { form })
    }

    /// True for an array.
    pub fn is_array(&self) -> bool {
        matches!(self.form, Form::Array { .. })
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.form {
            Form::Single(object) => object.take(),
            Form::Array { bytes, at, expect } => {
                let start = skip_space(bytes, *at);
                let start = match (bytes.get(start), *expect) {
                    (Some(b','), Expect::Next) => skip_space(bytes, start + 1),
                    (Some(b']') | None, _) | (_, Expect::Over) => {
                        *expect = Expect::Over;
                        return None;
                    }
                    _ => start,
                };
                // The array was checked: only its end is no value.
                let (_, end) = value(bytes, start, 1).ok()?;
                (*at, *expect) = (end, Expect::Next);
                Some(&bytes[start..end])
            }
            Form::Lines(rest) => loop {
                if rest.is_empty() {
                    return None;
                }
                let (line, tail) = match memchr::memchr(b'\n', rest) {
                    Some(newline) => (&rest[..newline], &rest[newline + 1..]),
                    None => (*rest, &[][..]),
                };
                *rest = tail;
                let line = line.trim_ascii();
                if !line.is_empty() {
                    return Some(line);
                }
            },
        }
    }
}
