//! When a sample counts: its slice, or why it comes too late or too early (T1).
//!
//! In: the arrival of a batch, the time a line carries. Out: slice and time, or a reason. Owns: nothing.
//! Invariant: the clock of these sources is the wall clock, so what was stamped on arrival is never refused.

use crate::event::{DropReason, Slice, SliceWidth, Timestamp};

/// The times a decoder decides by (T1), in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance {
    /// Width of a slice.
    pub slice: SliceWidth,
    /// Older than the source's clock by more than this: dropped as `too_late`.
    pub accept_late: i64,
    /// Ahead of the wall clock by more than this: dropped as `too_early`.
    pub max_future: i64,
}

impl Acceptance {
    /// The slice and time of a sample that carries these seconds since the epoch, or none.
    #[inline]
    pub(super) fn place(&self, arrival: Timestamp, seconds: Option<i64>) -> Result<(Slice, Timestamp), DropReason> {
        self.place_at(arrival, seconds.map(Timestamp::from_seconds))
    }

    /// As [`place`](Self::place), of a time to the nanosecond.
    #[inline]
    pub(super) fn place_at(
        &self,
        arrival: Timestamp,
        time: Option<Timestamp>,
    ) -> Result<(Slice, Timestamp), DropReason> {
        let Some(time) = time else { return Ok((self.slice.slice_of(arrival), arrival)) };
        if time < arrival.plus_nanos(-self.accept_late) {
            return Err(DropReason::TooLate);
        }
        if time > arrival.plus_nanos(self.max_future) {
            return Err(DropReason::TooEarly);
        }
        Ok((self.slice.slice_of(time), time))
    }
}
