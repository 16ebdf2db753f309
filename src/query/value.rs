//! What an expression answers, and how right it is.
//!
//! In: results of the evaluator. Out: plain values for JSON, recorded series and alerts. Invariant: order is that of the
//! labels (name first), unless the expression sorts.

use crate::event::{Labels, Timestamp};
use std::sync::Arc;

/// The result of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A string literal.
    String(String),
    /// One sample per series, at one time.
    Vector(Vec<Sample>),
    /// Points over time: a range selector, or any expression over a range of times.
    Matrix(Vec<Series>),
}

/// How right a quantile is (V4). What an expression does to it afterwards keeps it only where the relative bound stays
/// what it was: filters, relabelling, sorting, and scaling by a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Relative error bound; infinite at zero, where it is half a scale unit. From buckets it is the width of the
    /// bucket that holds the quantile.
    pub bound: f64,
    /// What the samples behind it stand for.
    pub count: f64,
    /// Seconds they cover.
    pub span: f64,
    /// Samples among them that came after their slice had closed; `None` where the data does not tell.
    pub late: Option<u64>,
    /// Samples among them that were clamped to the range of the layout; `None` where the data does not tell.
    pub clamped: Option<u64>,
}

/// A native histogram as a value, over a range or since creation.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// What its samples stand for; per second after `rate`.
    pub count: f64,
    /// Σ in base units; per second after `rate`.
    pub sum: f64,
    /// (lower bound, upper bound, count) per cell, ascending, in base units: a cell holds its lower bound, and a
    /// negative one its upper bound instead. Empty where only totals are known.
    pub cells: Vec<(f64, f64, f64)>,
}

/// One series of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `__name__`; operations drop it.
    pub name: Option<Arc<str>>,
    /// The other labels.
    pub labels: Labels,
    /// The value; of a native histogram its count.
    pub value: f64,
    /// Present when the value is a native histogram.
    pub histogram: Option<Box<Histogram>>,
    /// Present when the value is a quantile.
    pub quality: Option<Quality>,
}

/// One series of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// `__name__`; operations drop it.
    pub name: Option<Arc<str>>,
    /// The other labels.
    pub labels: Labels,
    /// Ascending by time; steps without a value are not there.
    pub points: Vec<Point>,
}

/// A value at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The time that was asked for; of a range selector the end of the slice.
    pub time: Timestamp,
    /// The value; of a native histogram its count.
    pub value: f64,
    /// Present when the value is a native histogram.
    pub histogram: Option<Box<Histogram>>,
    /// Present when the value is a quantile.
    pub quality: Option<Quality>,
}
