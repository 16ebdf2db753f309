//! Bytes to typed values and back: number texts, stream framing, DogStatsD, JSON, the exposition formats.
//!
//! In: byte slices that somebody else received, or values to show. Out: borrowed views, or bytes. Owns: the
//! grammar of every wire format. Invariant: pure; no byte sequence whatever makes a codec panic or
//! allocate on its hot path, and everything refused has a `RejectReason`.

pub mod dogstatsd;
pub mod exposition;
pub mod framing;
pub mod json;

/// Numbers as text; they live in `event`, because rules compare and scale them.
pub use crate::event::number;
