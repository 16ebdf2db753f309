//! Why a text is not JSON, and where. In: nothing. Out: small `Copy` values. Invariant: no allocation.

/// What was wrong, and at which byte of the text that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What was wrong.
    pub kind: JsonErrorKind,
    /// From the beginning of the text; its length when it ended too early.
    pub offset: u32,
}

/// What can be wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JsonErrorKind {
    /// The text ended inside a value.
    #[error("the JSON text ends too early")]
    Ended,
    /// A byte that cannot stand here.
    #[error("not JSON")]
    Unexpected,
    /// Another value where an object was wanted.
    #[error("expected a JSON object")]
    NotAnObject,
    /// Another value where an array was wanted.
    #[error("expected a JSON array")]
    NotAnArray,
    /// Something stands behind the value.
    #[error("text after the JSON value")]
    Trailing,
    /// A control character inside a string.
    #[error("a control character in a JSON string")]
    Control,
    /// A backslash before something else than `"\/bfnrtu`, or half a surrogate pair.
    #[error("a wrong escape in a JSON string")]
    Escape,
    /// A string that is not UTF-8.
    #[error("a JSON string that is not UTF-8")]
    Utf8,
    /// A number that RFC 8259 does not know (`01`, `.5`, `+1`, `1.`).
    #[error("not a JSON number")]
    Number,
    /// A number beyond the largest f64.
    #[error("a JSON number beyond 1.8e308")]
    NumberRange,
    /// More than [`DEPTH_MAX`](super::DEPTH_MAX) objects and arrays within each other.
    #[error("JSON nested too deep")]
    Depth,
}

/// The error of this kind at this byte.
#[cold]
pub(super) fn error(kind: JsonErrorKind, offset: usize) -> JsonError {
    JsonError { kind, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
}
