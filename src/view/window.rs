//! Which slices a window holds, and the extremes of one series over them.
//!
//! In: the slice that holds the wall clock, slices of rows. Out: whether a row counts for a window of some
//! length, which slices must be taken out, least and greatest value. Owns no series.
//! Invariant: a slice enters a window row by row and leaves it once, with exactly the rows that entered;
//! a slice that has left never comes back, whatever the wall clock does (T3).

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

/// The least and the greatest value of a slice, in 20 bytes: some of them stand beside every window.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Span {
    slice: u32,
    least: i64,
    greatest: i64,
}

impl Span {
    const EMPTY: Span = Span { slice: 0, least: i64::MAX, greatest: i64::MIN };

    fn is_empty(self) -> bool {
        self.least > self.greatest
    }

    /// Whether neither end of the other lies outside.
    fn covers(self, other: Span) -> bool {
        self.least <= other.least && self.greatest >= other.greatest
    }

    fn widen(&mut self, other: Span) {
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }
}

/// The extremes of a window: the span of its newest slice, and of older slices what later ones do not cover, because
/// those leave later. Nearly every row is of the newest slice, so that one lies here and not behind a pointer.
pub(super) struct Extremes {
    /// Slices ascend and lie before the newest.
    older: Vec<Span>,
    newest: Span,
}

impl Default for Extremes {
    fn default() -> Extremes {
        Extremes { older: Vec::new(), newest: Span::EMPTY }
    }
}

impl Extremes {
    /// A row of a slice had these extremes.
    #[inline]
    pub(super) fn add(&mut self, slice: u32, least: i64, greatest: i64) {
        let span = Span { slice, least, greatest };
        if self.newest.is_empty() {
            self.newest = span;
        } else if self.newest.slice == slice {
            self.newest.widen(span);
        } else {
            self.add_other(span);
        }
    }

    /// A slice begins, or a row is late.
    fn add_other(&mut self, mut span: Span) {
        if span.slice > self.newest.slice {
            std::mem::swap(&mut self.newest, &mut span);
        }
        match self.older.binary_search_by(|other| { other.slice }.cmp(&{ span.slice })) {
            Ok(at) => self.older[at].widen(span),
            Err(at) => {
                if self.older.len() == self.older.capacity() {
                    self.older.reserve_exact(2);
                }
                self.older.insert(at, span);
            }
        }
        let (mut later, mut kept) = (self.newest, self.older.len());
        for at in (0..self.older.len()).rev() {
            let span = self.older[at];
            if !later.covers(span) {
                kept -= 1;
                self.older[kept] = span;
                later.widen(span);
            }
        }
        self.older.drain(..kept);
    }

    /// A slice has left.
    pub(super) fn expire(&mut self, slice: u32) {
        if self.newest.slice == slice {
            self.newest = self.older.pop().unwrap_or(Span::EMPTY);
        } else if let Ok(at) = self.older.binary_search_by(|span| { span.slice }.cmp(&slice)) {
            self.older.remove(at);
        }
    }

    /// The least and the greatest value.
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        let mut all = self.newest;
        self.older.iter().for_each(|span| all.widen(*span));
        (!all.is_empty()).then_some((all.least, all.greatest))
    }

    pub(super) fn clear(&mut self) {
        *self = Extremes::default();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.older.capacity() * size_of::<Span>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extremes_equal_a_scan(rows in proptest::collection::vec((0u32..12, -20i64..20, 0i64..9), 1..60)) {
            let mut extremes = Extremes::default();
            for (at, (slice, least, length)) in rows.iter().enumerate() {
                extremes.add(*slice, *least, least + length);
                // Late rows also come once slices have left.
                let lowest = at as u32 / 16;
                (0..lowest).for_each(|slice| extremes.expire(slice));
                let inside = || rows[..=at].iter().filter(|(slice, ..)| *slice >= lowest);
                let ends = inside().map(|(_, least, _)| *least).min().zip(inside().map(|(_, least, length)| least + length).max());
                prop_assert_eq!(extremes.ends(), ends);
            }
            for lowest in rows.len() as u32 / 16..13 {
                (0..lowest).for_each(|slice| extremes.expire(slice));
                let inside = || rows.iter().filter(|(slice, ..)| *slice >= lowest);
                let ends = inside().map(|(_, least, _)| *least).min().zip(inside().map(|(_, least, length)| least + length).max());
                prop_assert_eq!(extremes.ends(), ends);
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
