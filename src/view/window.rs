//! Which slices a window holds, and the extremes of one series over them.
//!
//! In: the slice that holds the wall clock, slices of rows. Out: whether a row counts for a window of some
//! length, which slices must be taken out, least and greatest value. Owns no series.
//! Invariant: a slice enters a window row by row and leaves it once, with exactly the rows that entered;
//! a slice that has left never comes back, whatever the wall clock does (T3).

use crate::delta::prefetch;
use crate::event::Slice;
use std::collections::{BTreeMap, BTreeSet};

/// Slices that have left are remembered so long, in case the wall clock steps back to them.
const GONE_MAX: usize = 4096;

/// One window length in use.
struct Length {
    /// At least 1.
    slices: u32,
    /// The lowest slice inside.
    lowest: u32,
}

/// The windows' place in time: per length the slices inside.
///
/// A window of N slices ends with the slice that holds the wall clock (Q2). Rows of slices ahead of the
/// clock (a producer's clock runs up to `max_future` fast) count at once: refusing them here would need a
/// second way in when the clock arrives.
#[derive(Default)]
pub(super) struct WindowClock {
    open: u32,
    lengths: Vec<Length>,
    /// (slice, length index) with rows in windows of that length.
    present: BTreeSet<(u32, u8)>,
    /// Slice → lengths (by index) that it must be taken out of.
    pending: BTreeMap<u32, Vec<u8>>,
    /// (slice, length index) that have left.
    gone: BTreeSet<(u32, u8)>,
}

impl WindowClock {
    /// The slice that holds the wall clock.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// The index of a length, taken into use if it is new. At most 256 lengths are told apart; further
    /// ones share the longest.
    pub(super) fn length(&mut self, slices: u32) -> u8 {
        let slices = slices.max(1);
        if let Some(at) = self.lengths.iter().position(|length| length.slices == slices) {
            return at as u8;
        }
        if self.lengths.len() > usize::from(u8::MAX) {
            let longest = self.lengths.iter().enumerate().max_by_key(|(_, length)| length.slices);
            return longest.map_or(0, |(at, _)| at as u8);
        }
        self.lengths.push(Length { slices, lowest: lowest(self.open, slices) });
        (self.lengths.len() - 1) as u8
    }

    /// Per length: whether rows of a slice count.
    pub(super) fn inside(&self, slice: Slice) -> Vec<bool> {
        let pending = self.pending.get(&slice.0);
        let is_inside = |(at, length): (usize, &Length)| {
            let is_pending = pending.is_some_and(|lengths| lengths.contains(&(at as u8)));
            is_pending || (slice.0 >= length.lowest && !self.gone.contains(&(slice.0, at as u8)))
        };
        self.lengths.iter().enumerate().map(is_inside).collect()
    }

    /// Notes that a slice has rows in the windows that `inside` names.
    pub(super) fn note(&mut self, slice: Slice, inside: &[bool]) {
        let lengths = inside.iter().enumerate().filter(|(_, is_inside)| **is_inside);
        for (at, _) in lengths {
            self.present.insert((slice.0, at as u8));
        }
    }

    /// Moves on to `open`; the slices that must be taken out, ascending.
    pub(super) fn advance(&mut self, open: Slice) -> Vec<Slice> {
        self.open = open.0;
        for length in &mut self.lengths {
            length.lowest = lowest(open.0, length.slices);
        }
        let lengths = &self.lengths;
        let (gone, pending) = (&mut self.gone, &mut self.pending);
        self.present.retain(|(slice, index)| {
            let stays = *slice >= lengths[usize::from(*index)].lowest;
            if !stays && gone.insert((*slice, *index)) {
                pending.entry(*slice).or_default().push(*index);
            }
            stays
        });
        while self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
        self.pending.keys().map(|slice| Slice(*slice)).collect()
    }

    /// Per length: whether a slice must now be taken out of it; `None` when it need not leave any.
    pub(super) fn expire(&mut self, slice: Slice) -> Option<Vec<bool>> {
        let leaving = self.pending.remove(&slice.0)?;
        Some((0..self.lengths.len()).map(|at| leaving.contains(&(at as u8))).collect())
    }
}

fn lowest(open: u32, slices: u32) -> u32 {
    open.saturating_sub(slices - 1)
}

/// The greatest value of a slice, in 12 bytes: two queues of some of them stand beside every window.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Peak {
    slice: u32,
    value: i64,
}

/// A monotonic queue of peaks: the greatest value of the slices still inside. The least is the
/// greatest of the negated values; negation is safe because values are clamped far inside i64 (V4).
///
/// Slices ascend and values strictly descend, so the front answers and a late row finds its place.
#[derive(Default)]
pub(super) struct Extremes(Vec<Peak>);

impl Extremes {
    /// A row of a slice had this greatest value.
    #[inline]
    pub(super) fn add(&mut self, slice: u32, value: i64) {
        // Nearly every row is of the newest slice, and of those most change nothing.
        match self.0.last() {
            Some(last) if last.slice > slice => return self.add_late(slice, value),
            Some(last) if last.slice == slice && last.value >= value => return,
            _ => {}
        }
        while self.0.pop_if(|peak| peak.value <= value).is_some() {}
        self.insert(self.0.len(), Peak { slice, value });
    }

    #[cold]
    fn add_late(&mut self, slice: u32, value: i64) {
        // An entry that leaves later and is not smaller hides this one for good.
        let after = self.0.partition_point(|peak| peak.slice < slice);
        if self.0[after..].iter().any(|peak| peak.value >= value) {
            return;
        }
        let upto = after + usize::from(self.0.get(after).is_some_and(|peak| peak.slice == slice));
        let from = self.0[..upto].partition_point(|peak| peak.value > value);
        if from < upto {
            self.0[from] = Peak { slice, value };
            self.0.drain(from + 1..upto);
        } else {
            self.insert(from, Peak { slice, value });
        }
    }

    fn insert(&mut self, at: usize, peak: Peak) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(2 + self.0.len() / 2);
        }
        self.0.insert(at, peak);
    }

    /// Brings the queue closer.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        if let Some(first) = self.0.first() {
            prefetch(first);
        }
    }

    /// A slice has left.
    pub(super) fn expire(&mut self, slice: u32) {
        if let Ok(at) = self.0.binary_search_by(|peak| { peak.slice }.cmp(&slice)) {
            self.0.remove(at);
        }
    }

    /// The greatest value.
    pub(super) fn greatest(&self) -> Option<i64> {
        self.0.first().map(|peak| peak.value)
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Peak>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extremes_equal_a_scan(rows in proptest::collection::vec((0u32..12, -20i64..20), 1..60)) {
            let mut queue = Extremes::default();
            for (slice, value) in &rows {
                queue.add(*slice, *value);
            }
            for lowest in 0..13u32 {
                let expected = rows.iter().filter(|(s, _)| *s >= lowest).map(|(_, v)| *v).max();
                prop_assert_eq!(queue.greatest(), expected);
                queue.expire(lowest);
            }
        }
    }

    #[test]
    fn q2_a_slice_leaves_each_length_once_and_never_returns() {
        let mut clock = WindowClock::default();
        clock.advance(Slice(100));
        assert_eq!((clock.length(2), clock.length(5), clock.length(2)), (0, 1, 0));
        for slice in [98, 99, 100] {
            let inside = clock.inside(Slice(slice));
            clock.note(Slice(slice), &inside);
        }
        assert_eq!(clock.inside(Slice(98)), [false, true]);
        assert_eq!(clock.advance(Slice(101)), [Slice(99)]);
        assert_eq!(clock.expire(Slice(99)), Some(vec![true, false]));
        assert_eq!(clock.inside(Slice(99)), [false, true]);
        assert_eq!(clock.advance(Slice(1 << 30)), [Slice(98), Slice(99), Slice(100)]);
        assert_eq!(clock.expire(Slice(98)), Some(vec![false, true]));
        assert_eq!(clock.expire(Slice(99)), Some(vec![false, true]));
        assert_eq!(clock.expire(Slice(100)), Some(vec![true, true]));
        // T3: the clock comes back; what had left stays out, new slices count.
        assert_eq!(clock.advance(Slice(101)), []);
        assert_eq!(clock.inside(Slice(100)), [false, false]);
        assert_eq!(clock.inside(Slice(101)), [true, true]);
    }
}
