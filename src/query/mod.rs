//! PromQL over slices: an expression's text in, values with their quality out, by rules Q1 to Q4.
//!
//! In: an expression, a time, and [`Data`], which is whatever holds the slices. Out: [`Value`]. Owns: no store, no clock,
//! no I/O; a value is a function of expression, data and time. Invariants: no text makes it panic or overflow the stack,
//! and what an evaluation touches is bounded by [`Limits`]; output order is a function of the contents.
//!
//! Reading order: [`data`] (what is asked), [`cover`] (which resolution is held when), `matcher`, `parse` (text to plan), `plan`, `eval` (the walk over the plan),
//! `select` and `produce` (selectors to values), `shapes` (rule Q1: what a series is at a time), `native`, `histogram`
//! and `quantiles` (rule V4), `aggregate`, `binary`, `functions`, `labels`, [`value`] (what is answered); `memory` is
//! the naive world of the tests.

mod aggregate;
mod binary;
mod buckets;
pub mod cover;
pub mod data;
mod eval;
mod functions;
mod histogram;
mod labels;
mod matcher;
#[doc(hidden)]
pub mod memory;
mod outline;
mod native;
mod over;
mod parse;
mod plan;
pub mod points;
mod produce;
mod quantiles;
mod select;
pub mod series;
mod shapes;
#[cfg(test)]
mod tests;
pub mod value;
mod vector;
pub mod world;

pub use data::{
    Data, DataError, DistributionSlice, DistributionTotals, Extent, GaugeRow, Need, Rows, SeriesRows, Span, Visit,
};
pub use eval::{
    EvalError, evaluate, evaluate_range, evaluate_range_until, evaluate_range_within, evaluate_until, evaluate_within,
};
pub use matcher::{MatchOp, Matcher, REGEX_BYTES_MAX};
pub use parse::{Expression, QueryError, ResultKind, TextSpan};
pub use plan::{At, Selector};
pub use value::{Histogram, Point, Quality, Sample, Series, Value};

/// Nanoseconds that a gauge is looked for before a time: five minutes, as in Prometheus (Q1).
const LOOKBACK: i64 = 300 * 1_000_000_000;

/// What one evaluation may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series that all selectors together may match. 200,000 cost a few hundred megabytes in a range query.
    pub series: usize,
    /// Rows read and points produced together. 50 million cost about a second.
    pub samples: usize,
    /// Times of a range query; as many as Prometheus answers.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { series: 200_000, samples: 50_000_000, steps: 11_000 }
    }
}
