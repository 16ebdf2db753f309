//! A distribution as classic buckets: declared ones exactly, others from its cells.
//!
//! In: rows of slices. Out: per row the weight not above each bound, in 4096ths, and the text of `le`. Invariant: what
//! lies beside a declared bound inside one cell is told by the exact counts of the row (V5); of other bounds a cell counts
//! where its midpoint lies (V4).

use super::data::DistributionSlice;
use crate::codec::exposition::put_f64;
use crate::event::{Buckets, Metric, WEIGHT_ONE};
use crate::rule;
use crate::sketch::layout;
use std::sync::Arc;

/// The bounds that a metric's buckets have.
pub(super) fn bounds(metric: &Metric) -> Arc<Buckets> {
    if let Some(declared) = &metric.buckets {
        return Arc::clone(declared);
    }
    let presets = rule::buckets(rule::default_bounds(metric.unit), metric.scale);
    // A scale too coarse for the presets leaves `+Inf` alone.
    Arc::new(presets.unwrap_or(Buckets { first: 0, bounds: Box::default(), units: Box::default() }))
}

/// Per row and bound, `+Inf` last: the weight of the row not above the bound, in 4096ths.
pub(super) fn weights(metric: &Metric, bounds: &Buckets, rows: &[DistributionSlice<'_>]) -> Vec<u128> {
    let is_declared = metric.buckets.is_some();
    let mut weights = Vec::with_capacity(rows.len() * (bounds.units.len() + 1));
    let mut prefix: Vec<u128> = Vec::new();
    for slice in rows {
        let row = &slice.row;
        let one = if row.weighted { 1 } else { u128::from(WEIGHT_ONE) };
        prefix.clear();
        prefix.push(0);
        let mut sum = 0;
        for (_, count) in row.cells {
            sum += u128::from(*count) * one;
            prefix.push(sum);
        }
        for (at, bound) in bounds.units.iter().enumerate() {
            let cell = layout::cell_of(row.digits, *bound);
            let below = row.cells.partition_point(|(c, _)| *c < cell);
            let holds = row.cells.get(below).is_some_and(|(c, _)| *c == cell);
            let inside = match holds {
                false => 0,
                // The whole cell lies below.
                true if layout::highest(row.digits, cell) <= *bound => prefix[below + 1] - prefix[below],
                true if is_declared => {
                    let exact = row.below.iter().find(|(index, _)| usize::from(*index) == at);
                    exact.map_or(0, |(_, count)| u128::from(*count) * one)
                }
                true if layout::midpoint(row.digits, cell) <= *bound => prefix[below + 1] - prefix[below],
                true => 0,
            };
            weights.push(prefix[below] + inside);
        }
        weights.push(sum);
    }
    weights
}

/// A number as the text exposition writes it in `le` and `quantile`.
pub(super) fn text(number: f64) -> String {
    let mut text = Vec::new();
    put_f64(&mut text, number);
    String::from_utf8(text).expect("digits are text")
}
