//! The dense form: the `hdrhistogram` crate's `Histogram<u64>`, one for magnitudes of each sign.
//!
//! Taken where most cells of a range are in use and some count needs 64 bits. Owns the two histograms. Invariant: no
//! count ever reaches the crate's saturating arithmetic, because each sum is checked here first.

use super::Digits;
use super::layout::{highest, lowest};
use hdrhistogram::Histogram;

#[derive(Clone)]
pub(super) struct Dense {
    digits: Digits,
    positive: Histogram<u64>,
    negative: Option<Histogram<u64>>,
}

impl Dense {
    pub(super) fn build(digits: Digits, cells: &[(i32, u64)]) -> Self {
        // Sized by the contents; a later cell past the end makes the crate grow its array.
        let sized = |cell: i32| {
            let limit = highest(digits, cell).unsigned_abs().max(2);
            let mut histogram = Histogram::new_with_bounds(1, limit, digits as u8)
                .expect("bounds of 1 to at least 2 with 1 to 3 digits are valid");
            histogram.auto(true);
            histogram
        };
        let last = cells.last().map_or(0, |&(cell, _)| cell.max(0));
        let first = cells.first().map_or(0, |&(cell, _)| cell.min(0));
        let mut dense =
            Dense { digits, positive: sized(last), negative: (first < 0).then(|| sized(first.wrapping_neg())) };
        let new = dense.add(cells);
        debug_assert_eq!(new, cells.len());
        dense
    }

    /// Adds cells and returns how many were new.
    ///
    /// # Panics
    /// If a count passes 2^64 - 1: a window would have to see 2^32 samples of the largest weight in one cell.
    pub(super) fn add(&mut self, cells: &[(i32, u64)]) -> usize {
        let mut new = 0;
        for &(cell, count) in cells.iter().filter(|&&(_, count)| count > 0) {
            let before = self.count_at(cell);
            before.checked_add(count).expect("the count of a cell fits 64 bits");
            let histogram = if cell >= 0 {
                &mut self.positive
            } else {
                self.negative.get_or_insert_with(|| {
                    let mut histogram = Histogram::new(self.digits as u8).expect("1 to 3 digits are valid");
                    histogram.auto(true);
                    histogram
                })
            };
            let value = lowest(self.digits, cell.abs()).unsigned_abs();
            histogram.record_n(value, count).expect("a resizing histogram takes every value");
            new += usize::from(before == 0);
        }
        new
    }

    pub(super) fn count_at(&self, cell: i32) -> u64 {
        let histogram = if cell >= 0 { Some(&self.positive) } else { self.negative.as_ref() };
        // The crate answers a value past its array with the count of the last cell; our cells are its indexes.
        histogram
            .filter(|histogram| (cell.unsigned_abs() as usize) < histogram.distinct_values())
            .map_or(0, |histogram| histogram.count_at(lowest(self.digits, cell.abs()).unsigned_abs()))
    }

    /// Least and greatest cell that may be in use, for iteration.
    pub(super) fn reach(&self) -> (i32, i32) {
        use super::layout::cell_of;
        let most = |histogram: &Histogram<u64>| cell_of(self.digits, histogram.max() as i64);
        (self.negative.as_ref().map_or(0, |histogram| -most(histogram)), most(&self.positive))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let counts = |histogram: &Histogram<u64>| histogram.distinct_values() * size_of::<u64>();
        size_of::<Self>() + counts(&self.positive) + self.negative.as_ref().map_or(0, counts)
    }
}
