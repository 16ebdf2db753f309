//! What the evaluator asks of the world: which metrics there are, which of their series match, and their slices.
//!
//! In: matchers and a span of slices. Out: borrowed rows, series by series. Owns: the shapes of the question and of the
//! answer. Invariants: a span is asked once per selector and evaluation, whatever the number of steps; rows are borrowed
//! for the length of one visit, so that the store may lend decoded pages and the memory form its own vectors; several
//! rows of one slice are merged by the evaluator, so that commits and generations need no merging before (H1).

use super::cover::Zones;
use super::matcher::Matcher;
use crate::delta::part::DistributionRow;
use crate::event::{Kind, Labels, Metric, SeriesId, Slice, SliceWidth, Timestamp};
use crate::sketch::Distinct;
use crate::view::Reset;
use std::ops::Range;
use std::sync::Arc;

/// A run of slices, `from` included and `to` not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first slice.
    pub from: Slice,
    /// The slice after the last: its start is the edge at which totals are told.
    pub to: Slice,
}

impl Span {
    /// True when a slice lies in it.
    pub fn contains(self, slice: Slice) -> bool {
        self.from <= slice && slice < self.to
    }

    /// How many slices it has.
    pub fn len(self) -> u32 {
        self.to.0.saturating_sub(self.from.0)
    }

    /// True without any slice.
    pub fn is_empty(self) -> bool {
        self.to <= self.from
    }
}

/// Which slices the evaluator will look at, and how finely.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'e> {
    /// From the first slice to the edge at which totals are told.
    pub span: Span,
    /// What of it is looked at, ascending and apart: rows of other slices may be left out, except where totals are asked.
    pub windows: &'e [Range<u32>],
    /// Edges, ascending: rows between two of them may come as one, that of the first slice, merged as they are merged in
    /// coarser tiers. `None`: every row is needed by itself, as fine as it is held.
    pub edges: Option<&'e [u32]>,
}

/// What of each series the evaluator will look at: the rest may be left empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Need {
    /// Cumulative totals at the end of the span (`total`, `totals`); else they may be anything. Counters and
    /// distributions only.
    pub totals: bool,
    /// Rows of the span.
    pub rows: bool,
    /// Cells and the exact counts of straddled bounds in the rows of distributions. Without it they may be left out of
    /// rows that are not weighted; the weight of a weighted row is known from its cells alone.
    pub cells: bool,
}

/// What a gauge was in one slice. In base units but for `sum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaugeRow {
    /// The slice.
    pub slice: Slice,
    /// The newest value set.
    pub last: f64,
    /// Its event time in nanoseconds, and the order among equal times (V6).
    pub order: (i64, u64),
    /// Least value set.
    pub min: f64,
    /// Greatest value set.
    pub max: f64,
    /// Σ of the values set, in the metric's scale units.
    pub sum: i128,
    /// Sets seen; a row without sets is ignored.
    pub count: u64,
}

/// What came after the beginning: cumulative figures of a distribution at the end of a span, × 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistributionTotals<'a> {
    /// What its samples stand for, in 4096ths (V2).
    pub weight: u128,
    /// Σ in 4096ths of a scale unit.
    pub sum: i128,
    /// Per declared bound of the metric the weight not above it, in 4096ths; empty without declared buckets.
    pub buckets: &'a [u128],
}

/// What a distribution saw in one slice.
#[derive(Clone, Copy, Debug)]
pub struct DistributionSlice<'a> {
    /// The slice.
    pub slice: Slice,
    /// As a part's row.
    pub row: DistributionRow<'a>,
    /// Samples that came after the slice had closed; `None` where the file does not tell.
    pub late: Option<u64>,
    /// Samples that were clamped to the range of the layout; `None` where the file does not tell.
    pub clamped: Option<u64>,
}

/// The rows of one series, ascending by slice; several rows of a slice stand next to each other.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Increments.
    Counter {
        /// The total at the end of the span, in 10⁻⁹ (V1).
        total: i128,
        /// Increments by slice, in 10⁻⁹.
        increments: &'a [(Slice, i128)],
    },
    /// Sets by slice.
    Gauge(&'a [GaugeRow]),
    /// Values by slice.
    Distribution {
        /// At the end of the span.
        totals: DistributionTotals<'a>,
        /// By slice.
        rows: &'a [DistributionSlice<'a>],
    },
    /// Members by slice.
    Set(&'a [(Slice, &'a Distinct)]),
}

impl Rows<'_> {
    /// The kind of series these rows belong to.
    pub fn kind(&self) -> Kind {
        match self {
            Rows::Counter { .. } => Kind::Counter,
            Rows::Gauge(_) => Kind::Gauge,
            Rows::Distribution { .. } => Kind::Distribution,
            Rows::Set(_) => Kind::Set,
        }
    }

    /// How many rows there are: what counts against [`Limits::samples`](super::Limits::samples).
    pub fn len(&self) -> usize {
        match self {
            Rows::Counter { increments, .. } => increments.len(),
            Rows::Gauge(rows) => rows.len(),
            Rows::Distribution { rows, .. } => rows.len(),
            Rows::Set(rows) => rows.len(),
        }
    }

    /// True without any row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One series, lent for one visit.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRows<'a> {
    /// Its labels, without name; the evaluator keeps a clone, which is one count.
    pub labels: &'a Labels,
    /// `_created` of its first life (S2): totals are told since then.
    pub created: Timestamp,
    /// When it was reset, ascending, and what it had come to then (R3).
    pub resets: &'a [Reset],
    /// When its last sample came: with `Metric::idle` it says until when a series exists (Q1).
    pub last: Timestamp,
    /// What was asked of it.
    pub rows: Rows<'a>,
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DataError {
    /// What happened, lower-case, for the person who asked.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// True when the file has moved on since the world was made: over a new one the same question is answered.
    pub is_stale: bool,
}

impl DataError {
    /// An error without a deeper cause.
    pub fn new(message: impl Into<String>) -> DataError {
        DataError { message: message.into(), source: None, is_stale: false }
    }
}

/// Called with the place in `ids` and the series; an error ends the reading and is handed through.
pub type Visit<'v> = dyn FnMut(usize, &SeriesRows<'_>) -> Result<(), DataError> + 'v;

/// The world as the evaluator sees it: everything durable.
///
/// Names that a metric is exposed under beside its own (`_bucket`, `_sum`, `_count`, `_window`) are the evaluator's
/// business; here a metric has one name. A group of a thousand expressions asks the same few questions again and again:
/// an implementor caches the answers of [`select`](Data::select) by (metric, matchers) and the pages behind
/// [`read`](Data::read).
pub trait Data {
    /// The width of a slice.
    fn slice_width(&self) -> SliceWidth;

    /// The metric of exactly this name, if it has series.
    fn metric(&self, name: &str) -> Option<Arc<Metric>>;

    /// Every metric that has series, in any order: asked for selectors without a plain name.
    fn metrics(&self) -> Vec<Arc<Metric>>;

    /// The series of a metric that all matchers accept, in any stable order, each once. No matcher is for `__name__`,
    /// `le` or `quantile`. A label that a series does not have counts as empty. Series that left memory but have rows
    /// in the file belong to the answer.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError>;

    /// Where which resolution is held; none where every slice is held since the beginning.
    fn zones(&self) -> &Zones;

    /// Reads slices and visits each of `ids` at most once, in their order; a series that is not there any more is passed
    /// over. Rows of a slot that is coarser than a slice are of the slot's first slice.
    ///
    /// # Errors
    /// When the file cannot be read, or what `visit` returned.
    fn read(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError>;
}
