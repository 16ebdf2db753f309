//! JSON (RFC 8259), read in place: a pull scanner without a tree and without allocation.
//!
//! In: the bytes of a text. Out: keys and values that point into it, numbers exact to 19 digits. Owns
//! nothing. Strict: what `serde_json` refuses is refused, what it reads is read, to the same values; that
//! holds for nested values too, which are checked whole when they are passed over.
//! Invariants: no bytes make it panic, recurse or allocate; a raw string that was handed out is UTF-8 and its
//! escapes are right.
//!
//! A key that comes twice is handed out twice: who reads an event refuses the second, as a `serde` struct does.

mod cloud;
mod error;
mod scan;
mod scanner;
mod split;
mod text;

pub use cloud::{CloudError, binary_event, put_on_one_line, structured_event};
pub use error::{JsonError, JsonErrorKind};
pub use split::Events;
pub use text::{Text, write_string};

use super::number::Number;
use error::error;

/// Most objects and arrays within each other: as `serde_json`, whose limit of 128 refuses the 128th.
pub const DEPTH_MAX: u32 = 127;

/// The text of a key.
pub type Key<'a> = Text<'a>;

/// A value; containers are whole, checked and not taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Finite. It never has a [sign](Number::has_sign) in the sense of StatsD: -3 is a value, not an operation.
    Number(Number),
    /// A string.
    Text(Text<'a>),
    /// From `{` to `}`; [`Object::parse`] takes it apart.
    Object(&'a [u8]),
    /// From `[` to `]`; [`Array::parse`] takes it apart.
    Array(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Reads a text that is one value.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &'a [u8]) -> Result<Value<'a>, JsonError> {
        let (value, end) = scanner::value(bytes, scanner::skip_space(bytes, 0), 0)?;
        scanner::end_of_text(bytes, end)?;
        Ok(value)
    }

    /// The word for what it is: `null`, `bool`, `number`, `string`, `object`, `array`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::Object(_) => "object",
            Value::Array(_) => "array",
        }
    }
}

/// What comes next in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The first member, or the end.
    First,
    /// A comma and a member, or the end.
    Next,
    /// Nothing: the end was seen, or an error was given.
    Over,
}

/// An object, pulled member by member in the order of the text.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    bytes: &'a [u8],
    at: usize,
    expect: Expect,
}

/// A member of an object: its key, its value, and the bytes of the value as written.
pub type RawMember<'a> = (Key<'a>, Value<'a>, &'a [u8]);

impl<'a> Object<'a> {
    /// Begins to read a text that is one object. Only the brace is looked at: what follows is checked as it is
    /// pulled, up to the end of the text.
    ///
    /// # Errors
    /// `Ended` for an empty text, `NotAnObject` for any other.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Object<'a>, JsonError> {
        let at = scanner::skip_space(bytes, 0);
        match bytes.get(at) {
            Some(b'{') => Ok(Object { bytes, at: at + 1, expect: Expect::First }),
            Some(_) => Err(error(JsonErrorKind::NotAnObject, at)),
            None => Err(error(JsonErrorKind::Ended, at)),
        }
    }

    /// True once a member was pulled.
    pub fn has_begun(&self) -> bool {
        self.expect != Expect::First
    }

    /// How far the text has been read, in bytes.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// As [`next`](Iterator::next), with the text of the value.
    pub fn next_raw(&mut self) -> Option<Result<RawMember<'a>, JsonError>> {
        self.pull()
    }

    #[inline(always)]
    fn pull(&mut self) -> Option<Result<RawMember<'a>, JsonError>> {
        if self.expect == Expect::Over {
            return None;
        }
        match self.member() {
            Ok(Some(member)) => Some(Ok(member)),
            Ok(None) => {
                self.expect = Expect::Over;
                None
            }
            Err(error) => {
                self.expect = Expect::Over;
                Some(Err(error))
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::type_complexity, reason = "a key, its value, and the value's text")]
    fn member(&mut self) -> Result<Option<(Key<'a>, Value<'a>, &'a [u8])>, JsonError> {
        let bytes = self.bytes;
        let mut at = scanner::skip_space(bytes, self.at);
        match (bytes.get(at), self.expect) {
            (Some(b','), Expect::Next) => at = scanner::skip_space(bytes, at + 1),
            (Some(b'}'), _) => {
                self.at = at + 1;
                scanner::end_of_text(bytes, at + 1)?;
                return Ok(None);
            }
            (Some(_), Expect::First) => {}
            _ => return Err(scanner::unexpected(bytes, at)),
        }
        let (key, start) = scanner::key(bytes, at)?;
        let (value, end) = scanner::value(bytes, start, 1)?;
        self.at = end;
        self.expect = Expect::Next;
        Ok(Some((key, value, &bytes[start..end])))
    }
}

impl<'a> Iterator for Object<'a> {
    type Item = Result<(Key<'a>, Value<'a>), JsonError>;

    /// The next member; after the last one the end of the text is checked. Nothing comes after an error.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.pull().map(|member| member.map(|(key, value, _)| (key, value)))
    }
}

/// An array, pulled element by element.
#[derive(Clone, Debug)]
pub struct Array<'a> {
    bytes: &'a [u8],
    at: usize,
    expect: Expect,
}

impl<'a> Array<'a> {
    /// Begins to read a text that is one array; see [`Object::parse`].
    ///
    /// # Errors
    /// `Ended` for an empty text, `NotAnArray` for any other.
    pub fn parse(bytes: &'a [u8]) -> Result<Array<'a>, JsonError> {
        let at = scanner::skip_space(bytes, 0);
        match bytes.get(at) {
            Some(b'[') => Ok(Array { bytes, at: at + 1, expect: Expect::First }),
            Some(_) => Err(error(JsonErrorKind::NotAnArray, at)),
            None => Err(error(JsonErrorKind::Ended, at)),
        }
    }

    fn element(&mut self) -> Result<Option<Value<'a>>, JsonError> {
        let bytes = self.bytes;
        let mut at = scanner::skip_space(bytes, self.at);
        match (bytes.get(at), self.expect) {
            (Some(b','), Expect::Next) => at = scanner::skip_space(bytes, at + 1),
            (Some(b']'), _) => {
                self.at = at + 1;
                scanner::end_of_text(bytes, at + 1)?;
                return Ok(None);
            }
            (Some(_), Expect::First) => {}
            _ => return Err(scanner::unexpected(bytes, at)),
        }
        let (value, end) = scanner::value(bytes, at, 1)?;
        self.at = end;
        self.expect = Expect::Next;
        Ok(Some(value))
    }
}

impl<'a> Iterator for Array<'a> {
    type Item = Result<Value<'a>, JsonError>;

    /// The next element; after the last one the end of the text is checked. Nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.expect == Expect::Over {
            return None;
        }
        match self.element() {
            Ok(Some(value)) => Some(Ok(value)),
            Ok(None) => {
                self.expect = Expect::Over;
                None
            }
            Err(error) => {
                self.expect = Expect::Over;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;
