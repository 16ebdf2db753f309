//! Functions of points over time: one number from the points of a range.
//!
//! In: (nanoseconds, value) ascending. Out: the function's value, or nothing. These are the plain definitions; counters
//! and gauges answer most functions exactly from their slices (`shapes`) and come here for the rest. Formulas follow
//! `promql/functions.go` of Prometheus 3, where rule Q1 does not say otherwise.

use super::plan::Over;

/// A value at a time in nanoseconds.
pub(super) type TimedValue = (i64, f64);

/// The function of the points of one range.
///
/// `end` is the end of the range in nanoseconds, `parameter` the quantile or the seconds to predict.
pub(super) fn over_points(over: Over, points: &[TimedValue], end: i64, parameter: f64) -> Option<f64> {
    let (first, last) = (*points.first()?, *points.last()?);
    let values = points.iter().map(|point| point.1);
    let count = points.len() as f64;
    Some(match over {
        Over::Last => last.1,
        Over::First => first.1,
        Over::Present => 1.0,
        Over::Count => count,
        Over::Sum => sum(values),
        Over::Avg => sum(values) / count,
        Over::Min => values.fold(f64::NAN, f64::min),
        Over::Max => values.fold(f64::NAN, f64::max),
        Over::Stdvar => variance(points),
        Over::Stddev => variance(points).sqrt(),
        Over::Quantile => quantile(parameter, &mut values.collect::<Vec<_>>()),
        Over::Changes => pairs(points, |a, b| b != a && !(a.is_nan() && b.is_nan())),
        Over::Resets => pairs(points, |a, b| b < a),
        Over::Delta | Over::Increase | Over::Rate | Over::Irate | Over::Idelta if points.len() < 2 => return None,
        Over::Delta => last.1 - first.1,
        Over::Increase => growth(points),
        // Points that are not slices do not fill their range; what they tell is the time between them.
        Over::Rate => growth(points) / seconds(last.0 - first.0),
        Over::Idelta => last.1 - points[points.len() - 2].1,
        Over::Irate => {
            let before = points[points.len() - 2];
            growth(&[before, last]) / seconds(last.0 - before.0)
        }
        Over::Deriv => regression(points, first.0)?.0,
        Over::PredictLinear => {
            let (slope, intercept) = regression(points, end)?;
            intercept + slope * parameter
        }
    })
}

pub(super) fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// Σ of what a counter grew; a smaller value is a reset, and the counter then grew from nothing.
pub(super) fn growth(points: &[TimedValue]) -> f64 {
    sum(points.windows(2).map(|pair| match (pair[0].1, pair[1].1) {
        (before, after) if after < before => after,
        (before, after) => after - before,
    }))
}

fn pairs(points: &[TimedValue], counts: impl Fn(f64, f64) -> bool) -> f64 {
    points.windows(2).filter(|pair| counts(pair[0].1, pair[1].1)).count() as f64
}

/// Σ with the compensation of Neumaier: the error does not grow with the number of terms.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for value in values {
        let next = sum + value;
        if next.is_infinite() {
            lost = 0.0;
        } else if sum.abs() >= value.abs() {
            lost += (sum - next) + value;
        } else {
            lost += (value - next) + sum;
        }
        sum = next;
    }
    if sum.is_infinite() { sum } else { sum + lost }
}

fn variance(points: &[TimedValue]) -> f64 {
    variance_of(points.iter().map(|point| point.1))
}

/// Population variance, in two passes.
pub(super) fn variance_of(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let mean = sum(values.clone()) / count;
    sum(values.map(|value| (value - mean) * (value - mean))) / count
}

/// The quantile of plain values: linear between the two nearest ranks, as Prometheus has it.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN sorts before every number there.
    values.sort_unstable_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let rank = q * (values.len() as f64 - 1.0);
    let lower = rank.floor();
    let upper = (lower + 1.0).min(values.len() as f64 - 1.0);
    let weight = rank - lower;
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// Least squares: slope per second, and the value at `origin`. Needs two points.
fn regression(points: &[TimedValue], origin: i64) -> Option<(f64, f64)> {
    if points.len() < 2 {
        return None;
    }
    let first = points[0].1;
    if points.iter().all(|point| point.1 == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let count = points.len() as f64;
    let time = |point: &TimedValue| seconds(point.0 - origin);
    let mean_time = sum(points.iter().map(time)) / count;
    let mean_value = sum(points.iter().map(|point| point.1)) / count;
    let covariance = sum(points.iter().map(|point| (time(point) - mean_time) * (point.1 - mean_value)));
    let variance = sum(points.iter().map(|point| (time(point) - mean_time).powi(2)));
    let slope = covariance / variance;
    Some((slope, mean_value - slope * mean_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(over: Over, values: &[f64], parameter: f64, expected: Option<f64>) {
        let points: Vec<TimedValue> = (1..).zip(values).map(|(at, v)| (at * 10_000_000_000, *v)).collect();
        let end = values.len() as i64 * 10_000_000_000;
        let found = over_points(over, &points, end, parameter);
        let is_near = |(a, b): (f64, f64)| (a - b).abs() < 1e-12 || a == b || (a.is_nan() && b.is_nan());
        assert_eq!(found.is_some(), expected.is_some(), "{over:?}");
        assert!(found.zip(expected).is_none_or(is_near), "{over:?} of {values:?} is {found:?}, not {expected:?}");
    }

    #[test]
    fn functions_of_points() {
        let values = [1.0, 3.0, 2.0, 2.0];
        for (over, expected) in [
            (Over::Last, 2.0),
            (Over::First, 1.0),
            (Over::Count, 4.0),
            (Over::Sum, 8.0),
            (Over::Avg, 2.0),
            (Over::Min, 1.0),
            (Over::Max, 3.0),
            (Over::Stdvar, 0.5),
            (Over::Changes, 2.0),
            (Over::Resets, 1.0),
            (Over::Delta, 1.0),
            (Over::Increase, 4.0),
            (Over::Rate, 4.0 / 30.0),
            (Over::Idelta, 0.0),
            (Over::Present, 1.0),
            (Over::Deriv, 0.02),
        ] {
            check(over, &values, 0.0, Some(expected));
            check(over, &[], 0.0, None);
        }
        check(Over::Quantile, &values, 0.5, Some(2.0));
        check(Over::Quantile, &values, 0.9, Some(2.7));
        check(Over::Quantile, &values, 2.0, Some(f64::INFINITY));
        check(Over::PredictLinear, &[1.0, 2.0, 3.0], 10.0, Some(4.0));
        check(Over::Rate, &[1.0], 0.0, None);
        check(Over::Deriv, &[5.0, 5.0], 0.0, Some(0.0));
    }

    #[test]
    fn sums_do_not_lose_small_terms() {
        assert_eq!(sum([1e100, 1.0, -1e100].into_iter()), 1.0);
        assert_eq!(sum([f64::INFINITY, 1.0].into_iter()), f64::INFINITY);
    }
}
