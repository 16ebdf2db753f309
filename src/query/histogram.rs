//! Distributions while they are calculated with: merged cells, exact sums, and quantiles by rule V4.
//!
//! In: rows of slices. Out: [`Cells`] of any span, quantiles with their bound, and the figures of a histogram.
//! Invariants: cells, weights and sums stay integers until a figure is asked, so adding up slices and series in any order
//! gives the same bits; only `factor` (per second, per share) is a float, and two histograms are added only when theirs
//! are equal.

use super::data::DistributionSlice;
use super::value::{Histogram, Quality};
use crate::event::{Scale, WEIGHT_ONE};
use crate::sketch::{Digits, Sketch, bound, layout};

/// A distribution over some span, or of several series.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub(super) sketch: Sketch,
    pub(super) scale: Scale,
    /// In 4096ths.
    pub(super) weight: u128,
    /// In 4096ths of a scale unit.
    pub(super) sum: i128,
    pub(super) min: i64,
    pub(super) max: i64,
    /// What counts and sums are multiplied with.
    pub(super) factor: f64,
    /// Seconds the cells cover.
    pub(super) seconds: f64,
    /// Weight and sum since creation, where the histogram is one of an instant; the cells are then of the window.
    pub(super) totals: Option<(u128, i128)>,
    pub(super) late: Option<u64>,
    pub(super) clamped: Option<u64>,
}

/// Two histograms whose counts do not mean the same.
#[derive(Debug)]
pub(super) struct Mixed;

/// The weight of a row in 4096ths.
pub(super) fn row_weight(slice: &DistributionSlice<'_>) -> u128 {
    match slice.row.weighted {
        true => slice.row.cells.iter().map(|(_, weight)| u128::from(*weight)).sum(),
        false => u128::from(slice.row.count) * u128::from(WEIGHT_ONE),
    }
}

/// The sum of a row in 4096ths of a scale unit.
pub(super) fn row_sum(slice: &DistributionSlice<'_>) -> i128 {
    match slice.row.weighted {
        true => slice.row.sum,
        false => slice.row.sum * i128::from(WEIGHT_ONE),
    }
}

impl Cells {
    fn empty(digits: Digits, weighted: bool, scale: Scale) -> Cells {
        let mut sketch = Sketch::new(digits);
        if weighted {
            sketch.make_weighted();
        }
        Cells {
            sketch,
            scale,
            weight: 0,
            sum: 0,
            min: i64::MAX,
            max: i64::MIN,
            factor: 1.0,
            seconds: 0.0,
            totals: None,
            late: Some(0),
            clamped: Some(0),
        }
    }

    /// Adds another to this one.
    pub(super) fn merge(&mut self, other: &Cells) -> Result<(), Mixed> {
        if self.scale != other.scale || self.factor != other.factor || self.totals.is_some() != other.totals.is_some() {
            return Err(Mixed);
        }
        self.sketch.merge(&other.sketch);
        self.weight += other.weight;
        self.sum += other.sum;
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.seconds = self.seconds.max(other.seconds);
        if let (Some((weight, sum)), Some((more, and_more))) = (&mut self.totals, other.totals) {
            (*weight, *sum) = (*weight + more, *sum + and_more);
        }
        self.late = self.late.zip(other.late).map(|(a, b)| a.saturating_add(b));
        self.clamped = self.clamped.zip(other.clamped).map(|(a, b)| a.saturating_add(b));
        Ok(())
    }

    /// What the samples stand for. Of totals it is rounded half up, as it is exposed (V2).
    pub(super) fn count(&self) -> f64 {
        let one = u128::from(WEIGHT_ONE);
        match self.totals {
            Some((weight, _)) => ((weight + one / 2) / one) as f64 * self.factor,
            None => self.weight as f64 / WEIGHT_ONE as f64 * self.factor,
        }
    }

    /// Σ in base units.
    pub(super) fn sum(&self) -> f64 {
        let sum = self.totals.map_or(self.sum, |(_, sum)| sum);
        sum as f64 / (WEIGHT_ONE as f64 * self.scale.per_one()) * self.factor
    }

    /// The quantile by rule V4, in base units, and how right it is; NaN without samples.
    pub(super) fn quantile(&self, q: f64) -> (f64, Quality) {
        let mut quality = Quality {
            bound: f64::NAN,
            count: self.weight as f64 / WEIGHT_ONE as f64,
            span: self.seconds,
            late: self.late,
            clamped: self.clamped,
        };
        let value = match self.sketch.quantile(q.clamp(0.0, 1.0), self.min, self.max) {
            _ if q.is_nan() => f64::NAN,
            None => f64::NAN,
            Some(_) if q < 0.0 => f64::NEG_INFINITY,
            Some(_) if q > 1.0 => f64::INFINITY,
            Some(units) => {
                quality.bound = bound(self.sketch.digits(), units as f64);
                self.scale.value_of(i128::from(units))
            }
        };
        (value, quality)
    }

    /// Variance of the cells' midpoints.
    pub(super) fn variance(&self) -> f64 {
        let total = self.sketch.total() as f64;
        if total == 0.0 {
            return f64::NAN;
        }
        let mean = self.sum as f64 / self.weight as f64 / self.scale.per_one();
        let digits = self.sketch.digits();
        let squares = self.sketch.cells().map(|(cell, count)| {
            let value = self.scale.value_of(i128::from(layout::midpoint(digits, cell).clamp(self.min, self.max)));
            (value - mean).powi(2) * count as f64
        });
        squares.sum::<f64>() / total
    }

    /// The share of samples between two values: cells count where their midpoint lies.
    pub(super) fn fraction(&self, lower: f64, upper: f64) -> f64 {
        let total = self.sketch.total() as f64;
        if total == 0.0 || lower.is_nan() || upper.is_nan() {
            return f64::NAN;
        }
        let digits = self.sketch.digits();
        let inside = self.sketch.cells().filter(|(cell, _)| {
            let units = layout::midpoint(digits, *cell).clamp(self.min, self.max);
            let value = self.scale.value_of(i128::from(units));
            lower <= value && value <= upper
        });
        inside.map(|(_, count)| count as f64).sum::<f64>() / total
    }

    /// As a value for the world.
    pub(super) fn to_histogram(&self) -> Histogram {
        let digits = self.sketch.digits();
        let one = if self.sketch.weighted() { WEIGHT_ONE as f64 } else { 1.0 };
        let edge = |units: i64| self.scale.value_of(i128::from(units));
        let cells = self.sketch.cells().map(|(cell, count)| {
            let (low, high) = match cell {
                0.. => (layout::lowest(digits, cell), layout::highest(digits, cell).saturating_add(1)),
                _ => (layout::lowest(digits, cell).saturating_sub(1), layout::highest(digits, cell)),
            };
            (edge(low), edge(high), count as f64 / one * self.factor)
        });
        Histogram { count: self.count(), sum: self.sum(), cells: cells.collect() }
    }
}

/// Sums of runs of rows that slide forward: what leaves is subtracted and what comes is added.
pub(super) struct Slider<'r> {
    rows: &'r [DistributionSlice<'r>],
    scale: Scale,
    /// True when all rows have cells of one layout and unit, so that subtracting undoes adding to the bit.
    is_uniform: bool,
    run: std::ops::Range<usize>,
    cells: Cells,
    scratch: Vec<(i32, u64)>,
}

impl<'r> Slider<'r> {
    pub(super) fn new(rows: &'r [DistributionSlice<'r>], scale: Scale) -> Slider<'r> {
        let like = |slice: &DistributionSlice<'_>| (slice.row.digits, slice.row.weighted);
        let first = rows.first().map_or((Digits::Two, false), like);
        let is_uniform = rows.iter().all(|slice| like(slice) == first);
        let cells = Cells::empty(first.0, first.1, scale);
        Slider { rows, scale, is_uniform, run: 0..0, cells, scratch: Vec::new() }
    }

    /// Rows that advancing to a run looks at, at most.
    pub(super) fn cost(&self, from: u32, to: u32) -> usize {
        let start = self.rows.partition_point(|slice| slice.slice.0 < from);
        self.rows.partition_point(|slice| slice.slice.0 < to).saturating_sub(start)
    }

    /// The sum of the rows of slices in `[from, to)`.
    pub(super) fn advance(&mut self, from: u32, to: u32) -> &mut Cells {
        let start = self.rows.partition_point(|slice| slice.slice.0 < from);
        let run = start..self.rows.partition_point(|slice| slice.slice.0 < to).max(start);
        let slides = self.is_uniform && self.run.start <= run.start && self.run.end <= run.end;
        let overlap = self.run.end.saturating_sub(run.start);
        // Undoing costs as much as doing: it pays only where less leaves than stays.
        if slides && (run.start - self.run.start) < overlap {
            for at in self.run.start..run.start {
                self.remove(at);
            }
            for at in self.run.end..run.end {
                self.add(at);
            }
        } else {
            let digits = self.rows[run.clone()].iter().map(|slice| slice.row.digits).min();
            let weighted = self.rows[run.clone()].iter().any(|slice| slice.row.weighted);
            self.cells = Cells::empty(digits.unwrap_or(self.cells.sketch.digits()), weighted, self.scale);
            for at in run.clone() {
                self.add(at);
            }
        }
        let rows = &self.rows[run.clone()];
        self.cells.min = rows.iter().map(|slice| slice.row.min).min().unwrap_or(i64::MAX);
        self.cells.max = rows.iter().map(|slice| slice.row.max).max().unwrap_or(i64::MIN);
        self.cells.late = rows.iter().map(|slice| slice.late).try_fold(0u64, |sum, n| Some(sum + n?));
        self.cells.clamped = rows.iter().map(|slice| slice.clamped).try_fold(0u64, |sum, n| Some(sum + n?));
        self.run = run;
        &mut self.cells
    }

    fn add(&mut self, at: usize) {
        let slice = &self.rows[at];
        let sketch = &mut self.cells.sketch;
        if slice.row.digits == sketch.digits() && slice.row.weighted == sketch.weighted() {
            sketch.add_sorted(slice.row.cells);
        } else {
            let times = if sketch.weighted() && !slice.row.weighted { WEIGHT_ONE } else { 1 };
            self.scratch.clear();
            for (cell, count) in slice.row.cells {
                let cell = layout::coarsen(*cell, slice.row.digits, sketch.digits());
                match self.scratch.last_mut() {
                    Some((last, sum)) if *last == cell => *sum += count * times,
                    _ => self.scratch.push((cell, count * times)),
                }
            }
            sketch.add_sorted(&self.scratch);
        }
        self.cells.weight += row_weight(slice);
        self.cells.sum += row_sum(slice);
    }

    fn remove(&mut self, at: usize) {
        let slice = &self.rows[at];
        let held = self.cells.sketch.subtract_sorted(slice.row.cells);
        held.expect("what is subtracted was added before, in the same layout and unit");
        self.cells.weight -= row_weight(slice);
        self.cells.sum -= row_sum(slice);
    }
}
