//! Exact counts of declared buckets beside the cells (V5).
//!
//! In: a metric's bounds. Out: which cells straddle a bound; only there a value is compared. A cell lies
//! wholly below, wholly above, or straddles; none of the usual bounds is a cell edge, so without this
//! the buckets would be off by up to one cell.

use crate::event::Buckets;
use crate::sketch::{Digits, layout};
use std::sync::Arc;

/// The bounds of one metric at one resolution.
#[derive(Clone, Debug)]
pub struct BucketRule {
    buckets: Arc<Buckets>,
    digits: Digits,
    /// (cell, index of bound), ascending: every bound that lies inside a cell wider than itself.
    straddled: Box<[(i32, u16)]>,
}

impl BucketRule {
    /// Finds the straddled cells.
    pub fn new(buckets: Arc<Buckets>, digits: Digits) -> BucketRule {
        let straddled = buckets
            .units
            .iter()
            .enumerate()
            .filter_map(|(index, bound)| {
                let cell = layout::cell_of(digits, *bound);
                (layout::highest(digits, cell) > *bound).then_some((cell, index as u16))
            })
            .collect();
        BucketRule { buckets, digits, straddled }
    }

    /// The bounds.
    pub fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    /// Calls `visit` with the number of every bound that straddles this value's cell and is not below the value.
    #[inline]
    pub fn exact_below(&self, cell: i32, units: i64, mut visit: impl FnMut(u16)) {
        let from = self.straddled.partition_point(|(c, _)| *c < cell);
        for (c, index) in &self.straddled[from..] {
            if *c != cell {
                break;
            }
            if units <= self.buckets.units[usize::from(*index)] {
                visit(self.buckets.first + *index);
            }
        }
    }

    /// How many of a cell's samples lie at or below a bound: `Some(true)` all, `Some(false)` none, `None`
    /// when only the exact counts know.
    pub fn covers(&self, bound: usize, cell: i32) -> Option<bool> {
        let bound_cell = layout::cell_of(self.digits, self.buckets.units[bound]);
        if cell < bound_cell {
            Some(true)
        } else if cell > bound_cell {
            Some(false)
        } else if layout::highest(self.digits, bound_cell) <= self.buckets.units[bound] {
            Some(true)
        } else {
            None
        }
    }
}
