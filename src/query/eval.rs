//! Evaluates a plan at one time or at many.
//!
//! In: an [`Expression`], [`Data`], times. Out: [`Value`]. Owns: the budget of one evaluation. Invariants: every node is
//! evaluated once for all times together, so that a selector reads its span once; an instant query is a range query of
//! one step, so both answer alike; recursion is as deep as the text's limits allow.

use super::data::{Data, DataError};
use super::parse::Expression;
use super::plan::{At, Node, Over, Selector, Source};
use super::produce::{Ask, produce, produce_points};
use super::value::{Point, Sample, Series, Value};
use super::vector::{Grid, Head, Vector, is_absent};
use super::{Limits, aggregate, binary, functions, labels, quantiles};
use crate::event::{Labels, Timestamp};
use std::cell::Cell;

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// More series than allowed: narrow the selectors.
    #[error("the expression touches more than {limit} series")]
    TooManySeries {
        /// [`Limits::series`]
        limit: usize,
    },
    /// More rows and points than allowed: shorten the range or narrow the selectors.
    #[error("the expression touches more than {limit} samples")]
    TooManySamples {
        /// [`Limits::samples`]
        limit: usize,
    },
    /// More times than allowed.
    #[error("{steps} steps are more than {limit}; take a longer step")]
    TooManySteps {
        /// What was asked.
        steps: u64,
        /// [`Limits::steps`]
        limit: usize,
    },
    /// A range selector alone, over a range of times.
    #[error("`x[5m]` alone has no value at a time; wrap it in a function such as rate()")]
    RangeOfRanges,
    /// The end lies before the start, or the step is not positive.
    #[error("a range of times ends after it starts and has a positive step")]
    Times,
    /// Series that an operator cannot tell apart.
    #[error("{0}")]
    Matching(String),
    /// Two series of the result have the same labels.
    #[error("the result has two series {0}")]
    Duplicate(String),
    /// Distributions of different scales, or per different times, cannot be added.
    #[error("distributions of different units, or of rates over different times, cannot be added")]
    MixedDistributions,
    /// More labels, or longer ones, than a series may have.
    #[error("`{0}` makes a label set beyond the limits of a series")]
    Labels(&'static str),
    /// It took longer than it may.
    #[error("the expression takes longer than it may")]
    TimeIsOver,
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Between two looks at the clock: a few milliseconds' worth of samples.
const SAMPLES_A_LOOK: usize = 1 << 18;

/// What one evaluation has touched.
pub(super) struct Budget<'b> {
    limits: Limits,
    series: Cell<usize>,
    samples: Cell<usize>,
    /// Of `samples`, when the clock was last looked at.
    looked: Cell<usize>,
    is_over: &'b dyn Fn() -> bool,
}

impl<'b> Budget<'b> {
    pub(super) fn new(limits: &Limits, is_over: &'b dyn Fn() -> bool) -> Budget<'b> {
        Budget { limits: *limits, series: Cell::new(0), samples: Cell::new(0), looked: Cell::new(0), is_over }
    }

    pub(super) fn series(&self, count: usize) -> Result<(), EvalError> {
        self.series.set(self.series.get().saturating_add(count));
        match self.series.get() <= self.limits.series {
            true if (self.is_over)() => Err(EvalError::TimeIsOver),
            true => Ok(()),
            false => Err(EvalError::TooManySeries { limit: self.limits.series }),
        }
    }

    pub(super) fn samples(&self, count: usize) -> Result<(), EvalError> {
        let samples = self.samples.get().saturating_add(count);
        self.samples.set(samples);
        if samples > self.limits.samples {
            return Err(EvalError::TooManySamples { limit: self.limits.samples });
        }
        if samples - self.looked.get() < SAMPLES_A_LOOK {
            return Ok(());
        }
        self.looked.set(samples);
        if (self.is_over)() { Err(EvalError::TimeIsOver) } else { Ok(()) }
    }
}

/// What every node sees.
pub(super) struct Context<'a> {
    pub(super) data: &'a dyn Data,
    pub(super) budget: Budget<'a>,
    pub(super) selectors: &'a [Selector],
    /// First and last of the times that were asked, for `@ start()` and `@ end()`.
    pub(super) ends: (i64, i64),
}

/// What a node yields.
pub(super) enum Eval {
    /// Per step.
    Scalar(Vec<f64>),
    Vector(Vector),
    Text,
}

/// The value of an expression at a time.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate(expression: &Expression, data: &dyn Data, at: Timestamp) -> Result<Value, EvalError> {
    evaluate_within(expression, data, at, &Limits::default())
}

/// As [`evaluate`], with limits.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate_within(
    expression: &Expression,
    data: &dyn Data,
    at: Timestamp,
    limits: &Limits,
) -> Result<Value, EvalError> {
    evaluate_until(expression, data, at, limits, &|| false)
}

/// As [`evaluate_within`], until `is_over`, which is asked every few milliseconds.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate_until(
    expression: &Expression,
    data: &dyn Data,
    at: Timestamp,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Value, EvalError> {
    let grid = Grid { start: at.0, step: 1, steps: 1 };
    let context = Context::new(expression, data, &grid, Budget::new(limits, is_over));
    match &expression.node {
        Node::Text(text) => Ok(Value::String(text.to_string())),
        Node::Range(source) => context.points(source, &grid).map(Value::Matrix),
        node => match context.node(node, &grid)? {
            Eval::Scalar(values) => Ok(Value::Scalar(values[0])),
            Eval::Vector(vector) => to_samples(vector).map(Value::Vector),
            Eval::Text => Ok(Value::String(String::new())),
        },
    }
}

/// The values of an expression at `start`, `start + step`, ... up to `end`: always a [`Value::Matrix`].
///
/// # Errors
/// [`EvalError`].
pub fn evaluate_range(
    expression: &Expression,
    data: &dyn Data,
    start: Timestamp,
    end: Timestamp,
    step: i64,
) -> Result<Value, EvalError> {
    evaluate_range_within(expression, data, start, end, step, &Limits::default())
}

/// As [`evaluate_range`], with limits.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate_range_within(
    expression: &Expression,
    data: &dyn Data,
    start: Timestamp,
    end: Timestamp,
    step: i64,
    limits: &Limits,
) -> Result<Value, EvalError> {
    evaluate_range_until(expression, data, start, end, step, limits, &|| false)
}

/// As [`evaluate_range_within`], until `is_over`, which is asked every few milliseconds.
///
/// # Errors
/// [`EvalError`].
pub fn evaluate_range_until(
    expression: &Expression,
    data: &dyn Data,
    start: Timestamp,
    end: Timestamp,
    step: i64,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Value, EvalError> {
    if step <= 0 || end < start {
        return Err(EvalError::Times);
    }
    let steps = (i128::from(end.0) - i128::from(start.0)) as u128 / step as u128 + 1;
    let limit = limits.steps;
    let steps = usize::try_from(steps)
        .ok()
        .filter(|steps| *steps <= limit)
        .ok_or(EvalError::TooManySteps { steps: steps.min(u128::from(u64::MAX)) as u64, limit })?;
    let grid = Grid { start: start.0, step, steps };
    let context = Context::new(expression, data, &grid, Budget::new(limits, is_over));
    match &expression.node {
        Node::Range(_) | Node::Text(_) => Err(EvalError::RangeOfRanges),
        node => match context.node(node, &grid)? {
            Eval::Scalar(values) => {
                let points = (0..).zip(values).map(|(step, value)| Point {
                    time: Timestamp(grid.time(step)),
                    value,
                    histogram: None,
                    quality: None,
                });
                let points = points.collect();
                Ok(Value::Matrix(vec![Series { name: None, labels: Labels::empty(), points }]))
            }
            Eval::Vector(vector) => to_series(vector, &grid).map(Value::Matrix),
            Eval::Text => Err(EvalError::RangeOfRanges),
        },
    }
}

impl<'a> Context<'a> {
    /// What every node of an expression sees.
    fn new(expression: &'a Expression, data: &'a dyn Data, grid: &Grid, budget: Budget<'a>) -> Context<'a> {
        Context { data, budget, selectors: expression.selectors(), ends: (grid.start, grid.last()) }
    }

    /// The time that a selector looks at, at a step.
    pub(super) fn time(&self, at: Option<At>, offset: i64, grid: &Grid, step: usize) -> i64 {
        let time = match at {
            None => grid.time(step),
            Some(At::Time(time)) => time,
            Some(At::Start) => self.ends.0,
            Some(At::End) => self.ends.1,
        };
        time.saturating_sub(offset)
    }

    pub(super) fn node(&self, node: &Node, grid: &Grid) -> Result<Eval, EvalError> {
        match node {
            Node::Number(number) => Ok(Eval::Scalar(vec![*number; grid.steps])),
            Node::Text(_) | Node::Range(_) => Ok(Eval::Text),
            Node::Time => Ok(Eval::Scalar((0..grid.steps).map(|step| grid.time(step) as f64 / 1e9).collect())),
            Node::Negate(inner) => Ok(match self.node(inner, grid)? {
                Eval::Scalar(mut values) => {
                    values.iter_mut().for_each(|value| *value = -*value);
                    Eval::Scalar(values)
                }
                Eval::Vector(vector) => Eval::Vector(functions::negate(vector)),
                Eval::Text => Eval::Text,
            }),
            Node::Scalar(vector) => Ok(Eval::Scalar(functions::only_value(&self.vector(vector, grid)?))),
            Node::Binary { operator, matching, left, right } => {
                let left = self.node(left, grid)?;
                let right = self.node(right, grid)?;
                binary::binary(&self.budget, *operator, matching, left, right)
            }
            vector => self.vector_node(vector, grid).map(Eval::Vector),
        }
    }

    /// A node that the compiler knows to be a vector.
    pub(super) fn vector(&self, node: &Node, grid: &Grid) -> Result<Vector, EvalError> {
        match self.node(node, grid)? {
            Eval::Vector(vector) => Ok(vector),
            Eval::Scalar(_) | Eval::Text => Ok(Vector::new(grid.steps)),
        }
    }

    /// A node that the compiler knows to be a scalar.
    fn scalar(&self, node: &Node, grid: &Grid) -> Result<Vec<f64>, EvalError> {
        match self.node(node, grid)? {
            Eval::Scalar(values) => Ok(values),
            Eval::Vector(_) | Eval::Text => Ok(vec![f64::NAN; grid.steps]),
        }
    }

    fn vector_node(&self, node: &Node, grid: &Grid) -> Result<Vector, EvalError> {
        match node {
            Node::Select(selector) => produce(self, *selector, grid, Ask::Instant),
            Node::Over { over, source, parameter } => {
                let parameter = match parameter {
                    Some(node) => self.scalar(node, grid)?,
                    None => vec![0.0; grid.steps],
                };
                let mut vector = match source {
                    Source::Selector(selector) => produce(self, *selector, grid, Ask::Over(*over, &parameter))?,
                    subquery => functions::over_subquery(self, subquery, grid, *over, &parameter)?,
                };
                if !matches!(over, Over::Last | Over::First) {
                    vector.drop_names();
                }
                Ok(vector)
            }
            Node::AbsentOver { source, labels } => {
                let present = match source {
                    Source::Selector(selector) => {
                        let none = vec![0.0; grid.steps];
                        produce(self, *selector, grid, Ask::Over(Over::Present, &none))?
                    }
                    subquery => {
                        let none = vec![0.0; grid.steps];
                        functions::over_subquery(self, subquery, grid, Over::Present, &none)?
                    }
                };
                functions::absent(&present, labels)
            }
            Node::Absent { vector, labels } => functions::absent(&self.vector(vector, grid)?, labels),
            Node::Math { math, vector, scalars } => {
                let vector = self.vector(vector, grid)?;
                let scalars = scalars.iter().map(|node| self.scalar(node, grid)).collect::<Result<Vec<_>, _>>()?;
                Ok(functions::math(*math, vector, &scalars))
            }
            Node::Timestamp(vector) => match &**vector {
                Node::Select(selector) => {
                    let mut vector = produce(self, *selector, grid, Ask::Time)?;
                    vector.drop_names();
                    Ok(vector)
                }
                node => Ok(functions::times(self.vector(node, grid)?, grid)),
            },
            Node::Vector(scalar) => {
                let mut vector = Vector::new(grid.steps);
                vector.push_row(Head { name: None, labels: Labels::empty() }, &self.scalar(scalar, grid)?);
                Ok(vector)
            }
            Node::Sort { vector, descending } => Ok(functions::sort(self.vector(vector, grid)?, *descending)),
            Node::LabelReplace { vector, to, replacement, from, pattern } => {
                labels::label_replace(self.vector(vector, grid)?, to, replacement, from, pattern)
            }
            Node::LabelJoin { vector, to, separator, from } => {
                labels::label_join(self.vector(vector, grid)?, to, separator, from)
            }
            Node::HistogramQuantile { quantile, vector } => {
                let q = self.scalar(quantile, grid)?;
                quantiles::histogram_quantile(&q, self.vector(vector, grid)?)
            }
            Node::HistogramFraction { lower, upper, vector } => {
                let (lower, upper) = (self.scalar(lower, grid)?, self.scalar(upper, grid)?);
                Ok(quantiles::histogram_fraction(&lower, &upper, self.vector(vector, grid)?))
            }
            Node::HistogramPart { part, vector } => Ok(quantiles::histogram_part(*part, self.vector(vector, grid)?)),
            Node::Aggregate { aggregation, parameter, grouping, vector } => {
                let vector = self.vector(vector, grid)?;
                match parameter.as_deref() {
                    Some(Node::Text(label)) => aggregate::count_values(&self.budget, label, grouping, &vector),
                    parameter => {
                        let parameter = parameter.map(|node| self.scalar(node, grid)).transpose()?;
                        aggregate::aggregate(*aggregation, parameter.as_deref(), grouping, vector)
                    }
                }
            }
            // The rest are scalars and texts, which `node` has taken.
            _ => Ok(Vector::new(grid.steps)),
        }
    }

    /// The points of a range that is the whole expression.
    fn points(&self, source: &Source, grid: &Grid) -> Result<Vec<Series>, EvalError> {
        let mut series: Vec<Series> = match source {
            Source::Selector(selector) => produce_points(self, *selector, grid)?,
            subquery => functions::subquery_points(self, subquery, grid)?,
        };
        series.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        Ok(series)
    }
}

/// Checks that no two rows of a step are the same series, and brings rows into order.
fn settled(vector: Vector) -> Result<Vector, EvalError> {
    let heads = &vector.heads;
    let mut order: Vec<usize> = (0..heads.len()).collect();
    order.sort_by(|a, b| heads[*a].cmp(&heads[*b]));
    for twins in order.chunk_by(|a, b| heads[*a] == heads[*b]).filter(|twins| twins.len() > 1) {
        let is_double = |step| twins.iter().filter(|at| vector.has(**at, step)).count() > 1;
        if (0..vector.steps).any(is_double) {
            return Err(EvalError::Duplicate(labels::shown(&heads[twins[0]])));
        }
    }
    if vector.is_sorted || order.is_sorted() {
        return Ok(vector);
    }
    Ok(vector.reordered(&order))
}

fn to_samples(vector: Vector) -> Result<Vec<Sample>, EvalError> {
    let vector = settled(vector)?;
    let samples = vector.heads.iter().enumerate().filter(|(at, _)| vector.has(*at, 0)).map(|(at, head)| {
        let Point { value, histogram, quality, .. } = point(&vector, at, 0, 0);
        Sample { name: head.name.clone(), labels: head.labels.clone(), value, histogram, quality }
    });
    Ok(samples.collect())
}

fn to_series(vector: Vector, grid: &Grid) -> Result<Vec<Series>, EvalError> {
    // Over a range of times the order of values differs from step to step, so there is only the one of labels.
    let vector = settled(Vector { is_sorted: false, ..vector })?;
    let mut all: Vec<Series> = Vec::with_capacity(vector.heads.len());
    for (at, head) in vector.heads.iter().enumerate() {
        let steps = (0..vector.steps).filter(|step| vector.has(at, *step));
        let points: Vec<Point> = steps.map(|step| point(&vector, at, step, grid.time(step))).collect();
        match all.last_mut() {
            // Twins that are never there together are one series.
            Some(last) if last.name == head.name && last.labels == head.labels => {
                last.points.extend(points);
                last.points.sort_by_key(|point| point.time);
            }
            _ if points.is_empty() => {}
            _ => all.push(Series { name: head.name.clone(), labels: head.labels.clone(), points }),
        }
    }
    Ok(all)
}

fn point(vector: &Vector, at: usize, step: usize, time: i64) -> Point {
    let value = vector.get(at, step);
    let quality = vector.quality_at(at, step);
    match vector.cells_at(at, step) {
        Some(cells) if is_absent(value) => {
            let histogram = Box::new(cells.to_histogram());
            Point { time: Timestamp(time), value: histogram.count, histogram: Some(histogram), quality }
        }
        _ => Point { time: Timestamp(time), value, histogram: None, quality },
    }
}
