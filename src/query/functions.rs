//! Functions of values: arithmetic, dates, sorting, absence, and ranges made by subqueries.
//!
//! In: vectors and scalars per step. Out: vectors. Invariant: a place without a value stays without one; what a function
//! does to a value says nothing about its quality any more.

use super::eval::{Context, EvalError};
use super::over::{TimedValue, over_points};
use super::plan::{Math, Over, Source};
use super::value::{Point, Series};
use super::vector::{ABSENT, Grid, Head, Vector, is_absent};
use crate::event::{LabelsBuilder, Timestamp};

/// Times that a subquery evaluates: a month of five-second steps.
const SUBQUERY_STEPS_MAX: usize = 500_000;

pub(super) fn negate(mut vector: Vector) -> Vector {
    vector.values.iter_mut().filter(|value| !is_absent(**value)).for_each(|value| *value = -*value);
    vector.cells.clear();
    vector.drop_names();
    vector
}

/// The only value of each step, else NaN.
pub(super) fn only_value(vector: &Vector) -> Vec<f64> {
    let of = |step| {
        let mut present = (0..vector.heads.len()).filter(|at| vector.has(*at, step));
        match (present.next(), present.next()) {
            (Some(at), None) if !is_absent(vector.get(at, step)) => vector.get(at, step),
            _ => f64::NAN,
        }
    };
    (0..vector.steps).map(of).collect()
}

/// The evaluated times, where there are values.
pub(super) fn times(mut vector: Vector, grid: &Grid) -> Vector {
    for at in 0..vector.heads.len() {
        for step in 0..vector.steps {
            if vector.has(at, step) {
                vector.set(at, step, grid.time(step) as f64 / 1e9);
            }
        }
    }
    vector.cells.clear();
    vector.quality.clear();
    vector.drop_names();
    vector
}

/// 1 where nothing is, with the labels that the selector fixes.
pub(super) fn absent(vector: &Vector, labels: &[(Box<str>, Box<str>)]) -> Result<Vector, EvalError> {
    let mut builder = LabelsBuilder::new();
    labels.iter().for_each(|(key, value)| {
        builder.push(&**key, &**value);
    });
    let labels = builder.build_reserved().map_err(|_| EvalError::Labels("absent"))?;
    let is_empty = |step| (0..vector.heads.len()).all(|at| !vector.has(at, step));
    let row: Vec<f64> = (0..vector.steps).map(|step| if is_empty(step) { 1.0 } else { ABSENT }).collect();
    let mut out = Vector::new(vector.steps);
    out.push_row(Head { name: None, labels }, &row);
    Ok(out)
}

/// By value, NaN last; over several steps there is no such order.
pub(super) fn sort(mut vector: Vector, descending: bool) -> Vector {
    // A histogram has no place among numbers.
    vector.cells.clear();
    if vector.steps != 1 {
        return vector;
    }
    let mut order: Vec<usize> = (0..vector.heads.len()).filter(|at| vector.has(*at, 0)).collect();
    order.sort_by(|a, b| {
        let (x, y) = (vector.get(*a, 0), vector.get(*b, 0));
        let by_value = if descending { y.total_cmp(&x) } else { x.total_cmp(&y) };
        let by_labels = || vector.heads[*a].cmp(&vector.heads[*b]);
        x.is_nan().cmp(&y.is_nan()).then(by_value).then_with(by_labels)
    });
    let mut sorted = vector.reordered(&order);
    sorted.is_sorted = true;
    sorted
}

/// A function of each value, with scalars per step.
pub(super) fn math(math: Math, mut vector: Vector, scalars: &[Vec<f64>]) -> Vector {
    let steps = vector.steps;
    let scalar = |at: usize, step: usize, default: f64| scalars.get(at).map_or(default, |scalar| scalar[step]);
    for (at, value) in vector.values.iter_mut().enumerate() {
        if !is_absent(*value) {
            let step = at % steps;
            *value = of_value(math, *value, |at, default| scalar(at, step, default));
        }
    }
    vector.cells.clear();
    vector.quality.clear();
    vector.is_sorted = false;
    vector.drop_names();
    vector
}

fn of_value(math: Math, value: f64, scalar: impl Fn(usize, f64) -> f64) -> f64 {
    let date = || Date::of(value);
    match math {
        Math::Abs => value.abs(),
        Math::Ceil => value.ceil(),
        Math::Floor => value.floor(),
        Math::Round => {
            // Through the inverse, so that 0.1 rounds to what 1/10 is; halves go up.
            let inverse = 1.0 / scalar(0, 1.0);
            (value * inverse + 0.5).floor() / inverse
        }
        Math::Sqrt => value.sqrt(),
        Math::Exp => value.exp(),
        Math::Ln => value.ln(),
        Math::Log2 => value.log2(),
        Math::Log10 => value.log10(),
        Math::Sgn if value > 0.0 => 1.0,
        Math::Sgn if value < 0.0 => -1.0,
        Math::Sgn => value,
        Math::Clamp => {
            let (least, most) = (scalar(0, f64::NEG_INFINITY), scalar(1, f64::INFINITY));
            match least > most {
                true => ABSENT,
                false => clamped(clamped(value, most, false), least, true),
            }
        }
        Math::ClampMin => clamped(value, scalar(0, f64::NAN), true),
        Math::ClampMax => clamped(value, scalar(0, f64::NAN), false),
        Math::Sin => value.sin(),
        Math::Cos => value.cos(),
        Math::Tan => value.tan(),
        Math::Asin => value.asin(),
        Math::Acos => value.acos(),
        Math::Atan => value.atan(),
        Math::Sinh => value.sinh(),
        Math::Cosh => value.cosh(),
        Math::Tanh => value.tanh(),
        Math::Asinh => value.asinh(),
        Math::Acosh => value.acosh(),
        Math::Atanh => value.atanh(),
        Math::Deg => value.to_degrees(),
        Math::Rad => value.to_radians(),
        _ if !value.is_finite() => f64::NAN,
        Math::Minute => date().minute(),
        Math::Hour => date().hour(),
        Math::DayOfWeek => date().day_of_week(),
        Math::DayOfMonth => date().day as f64,
        Math::DayOfYear => date().day_of_year(),
        Math::DaysInMonth => days_in_month(date().year, date().month) as f64,
        Math::Month => date().month as f64,
        Math::Year => date().year as f64,
    }
}

/// The greater or the lesser of two; NaN if either is.
fn clamped(value: f64, limit: f64, from_below: bool) -> f64 {
    match (value.is_nan() || limit.is_nan(), from_below) {
        (true, _) => f64::NAN,
        (false, true) => value.max(limit),
        (false, false) => value.min(limit),
    }
}

/// A moment of the proleptic Gregorian calendar, UTC.
struct Date {
    seconds: i64,
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// Of seconds since the epoch; beyond 10^14 they are taken as that.
    fn of(seconds: f64) -> Date {
        let seconds = seconds.clamp(-1e14, 1e14) as i64;
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March.
        let days = seconds.div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Date { seconds, year, month, day: day_of_year - (153 * shifted + 2) / 5 + 1 }
    }

    fn minute(&self) -> f64 {
        (self.seconds.rem_euclid(3_600) / 60) as f64
    }

    fn hour(&self) -> f64 {
        (self.seconds.rem_euclid(86_400) / 3_600) as f64
    }

    /// Sunday is 0; the epoch was a Thursday.
    fn day_of_week(&self) -> f64 {
        (self.seconds.div_euclid(86_400) + 4).rem_euclid(7) as f64
    }

    fn day_of_year(&self) -> f64 {
        ((1..self.month).map(|month| days_in_month(self.year, month)).sum::<i64>() + self.day) as f64
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A subquery's inner times, and its vector at them.
struct Inner {
    vector: Vector,
    grid: Grid,
    range: i64,
    /// The end of the range per outer step.
    ends: Vec<i64>,
}

impl Inner {
    fn new(context: &Context<'_>, source: &Source, grid: &Grid) -> Result<Option<Inner>, EvalError> {
        let Source::Subquery { node, range, step, offset, at } = source else { return Ok(None) };
        let ends: Vec<i64> = (0..grid.steps).map(|outer| context.time(*at, *offset, grid, outer)).collect();
        let first = ends.iter().min().copied().unwrap_or(0).saturating_sub(*range);
        let last = ends.iter().max().copied().unwrap_or(0);
        // Times are multiples of the step, whatever is asked, so that neighbouring queries share them.
        let start = first.div_euclid(*step).saturating_add(1).saturating_mul(*step);
        if last < start {
            return Ok(None);
        }
        let steps = usize::try_from((last - start) / step).unwrap_or(usize::MAX).saturating_add(1);
        if steps > SUBQUERY_STEPS_MAX {
            return Err(EvalError::TooManySteps { steps: steps as u64, limit: SUBQUERY_STEPS_MAX });
        }
        let inner = Grid { start, step: *step, steps };
        let vector = context.vector(node, &inner)?;
        Ok(Some(Inner { vector, grid: inner, range: *range, ends }))
    }

    /// The points of a row in the range of an outer step: after its start, up to its end.
    fn points(&self, row: usize, outer: usize, out: &mut Vec<TimedValue>) {
        out.clear();
        let (end, step) = (self.ends[outer], self.grid.step);
        let start = end.saturating_sub(self.range);
        let from = (start.saturating_sub(self.grid.start).div_euclid(step) + 1).max(0) as usize;
        let to = (end.saturating_sub(self.grid.start).div_euclid(step) + 1).max(0) as usize;
        for at in from..to.min(self.grid.steps) {
            let value = self.vector.get(row, at);
            if !is_absent(value) {
                out.push((self.grid.time(at), value));
            }
        }
    }
}

/// A function of a subquery.
pub(super) fn over_subquery(
    context: &Context<'_>,
    source: &Source,
    grid: &Grid,
    over: Over,
    parameter: &[f64],
) -> Result<Vector, EvalError> {
    let mut out = Vector::new(grid.steps);
    let Some(inner) = Inner::new(context, source, grid)? else { return Ok(out) };
    let (mut points, mut row) = (Vec::new(), Vec::with_capacity(grid.steps));
    for (at, head) in inner.vector.heads.iter().enumerate() {
        row.clear();
        for (outer, parameter) in parameter.iter().enumerate() {
            inner.points(at, outer, &mut points);
            context.budget.samples(points.len())?;
            row.push(over_points(over, &points, inner.ends[outer], *parameter).unwrap_or(ABSENT));
        }
        out.push_row(head.clone(), &row);
    }
    Ok(out)
}

/// The points of a subquery that is the whole expression.
pub(super) fn subquery_points(context: &Context<'_>, source: &Source, grid: &Grid) -> Result<Vec<Series>, EvalError> {
    let Some(inner) = Inner::new(context, source, grid)? else { return Ok(Vec::new()) };
    let mut points = Vec::new();
    let mut all = Vec::new();
    for (at, head) in inner.vector.heads.iter().enumerate() {
        inner.points(at, 0, &mut points);
        let point =
            |&(time, value): &TimedValue| Point { time: Timestamp(time), value, histogram: None, quality: None };
        if !points.is_empty() {
            let points = points.iter().map(point).collect();
            all.push(Series { name: head.name.clone(), labels: head.labels.clone(), points });
        }
    }
    Ok(all)
}
