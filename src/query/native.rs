//! A distribution as native histograms, one per evaluated time.
//!
//! In: one series' rows. Out: a row of cells in a vector. Invariants: at an instant the cells are those of the metric's
//! window and the count and sum those since creation, as the exposition has them; after `rate` and its kin the cells are
//! those of the range; functions that count or average points find none, as a distribution is no number.

use super::data::{DistributionSlice, Rows, SeriesRows};
use super::eval::{Budget, EvalError};
use super::histogram::{Cells, Slider, row_sum, row_weight};
use super::over::seconds;
use super::plan::Over;
use super::produce::{Ask, Windows};
use super::select::Target;
use super::shapes::Life;
use super::vector::{Head, Vector};
use std::sync::Arc;

/// A distribution as histograms: of the window with totals at an instant, else of the range.
pub(super) fn native(
    budget: &Budget<'_>,
    vector: &mut Vector,
    target: &Target,
    series: &SeriesRows<'_>,
    windows: &Windows<'_>,
    ask: Ask<'_>,
) -> Result<(), EvalError> {
    let Rows::Distribution { totals, rows } = series.rows else { return Ok(()) };
    let metric = &*target.metric;
    let life = Life::new(series, metric, windows.edges);
    let mut slider = Slider::new(rows, metric.scale);
    let head = Head { name: Some(Arc::clone(&target.name)), labels: series.labels.clone() };
    let at = vector.push_absent(head);
    let mut has_any = false;
    let per_second = |slices: u32| 1.0 / seconds(windows.edges.time(slices.max(1)));
    let last = |from: u32, to: u32| windows.edges.before(to, 1).max(from);
    for (step, (from, to)) in windows.steps.iter().copied().enumerate() {
        let (from, to, factor) = match ask {
            Ask::Time => {
                if life.is_at(to) {
                    vector.set(at, step, seconds(windows.edges.time(to)));
                    has_any = true;
                }
                continue;
            }
            Ask::Instant => (windows.edges.before(to, metric.window_slices), to, 1.0),
            Ask::Over(Over::Increase | Over::Delta, _) => (from, to, 1.0),
            Ask::Over(Over::Rate, _) => (from, to, 1.0 / seconds(windows.edges.time(to - from))),
            Ask::Over(Over::Idelta, _) => (last(from, to), to, 1.0),
            Ask::Over(Over::Irate, _) => (last(from, to), to, per_second(to - last(from, to))),
            // What counts or averages points has none here: a distribution is no number.
            Ask::Over(..) => continue,
        };
        let has_rows = rows.iter().any(|slice| (from..to).contains(&slice.slice.0));
        let is_there = match ask {
            Ask::Instant => life.is_at(to),
            _ => has_rows || life.is_in(from, to),
        };
        if !is_there {
            continue;
        }
        budget.samples(slider.cost(from, to))?;
        let cells: &mut Cells = slider.advance(from, to);
        cells.seconds = seconds(windows.edges.time(to - from));
        let mut cells = Box::new(cells.clone());
        cells.factor = factor;
        if matches!(ask, Ask::Instant) {
            // The totals are told at the end of the span; what came between is taken off.
            let after = |slice: &&DistributionSlice<'_>| slice.slice.0 >= to;
            let weight = rows.iter().filter(after).map(row_weight).sum::<u128>();
            let sum = rows.iter().filter(after).map(row_sum).sum::<i128>();
            // Of the life at that time (R3).
            let time = windows.edges.time(to);
            let earlier = series.resets.iter().rev().find(|reset| reset.at.0 <= time);
            let (base, base_sum) = earlier.map_or((0, 0), |reset| (reset.weight, reset.total));
            cells.totals = Some((totals.weight.saturating_sub(weight + base), totals.sum - sum - base_sum));
        }
        vector.set_cells(at, step, cells);
        has_any = true;
    }
    if !has_any {
        vector.pop();
    }
    Ok(())
}
