//! Functions of histograms: of native ones by rule V4, of classic buckets as Prometheus interpolates them.
//!
//! In: a vector of histograms, or of buckets with `le`. Out: one value per histogram, quantiles with their quality.
//! Invariant: a native quantile is within its stated bound of the sample of that rank; a classic one lies in the right
//! bucket, and its bound says how wide that is.

use super::eval::EvalError;
use super::labels::filtered;
use super::plan::HistogramPart;
use super::value::Quality;
use super::vector::{ABSENT, Head, Vector, is_absent};
use std::collections::HashMap;

/// Counts that fall by less than this share of themselves are noise of float sums, and no data that went back.
const SMALL_FALL: f64 = 1e-12;

/// `histogram_quantile(q, vector)`.
pub(super) fn histogram_quantile(q: &[f64], vector: Vector) -> Result<Vector, EvalError> {
    let mut out = Vector::new(vector.steps);
    let mut classic: HashMap<Head, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut groups: Vec<(Head, Vec<(f64, usize)>)> = Vec::new();
    for (at, head) in vector.heads.iter().enumerate() {
        native(q, &vector, at, &mut out);
        // Series without `le`, or with one that is no number, are not buckets.
        let Some(bound) = head.labels.get("le").and_then(|le| le.parse::<f64>().ok()) else { continue };
        let group = Head { name: None, labels: filtered(&head.labels, |key| key != "le") };
        let place = *classic.entry(group).or_insert_with_key(|group| {
            groups.push((group.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push((bound, at));
    }
    for (head, mut members) in groups {
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        let row = out.push_absent(head);
        let mut has_any = false;
        let mut buckets: Vec<(f64, f64)> = Vec::with_capacity(members.len());
        for (step, q) in q.iter().enumerate() {
            buckets.clear();
            let present = members.iter().map(|(bound, at)| (*bound, vector.get(*at, step)));
            buckets.extend(present.filter(|(_, count)| !is_absent(*count)));
            if buckets.is_empty() {
                continue;
            }
            let (value, quality) = bucket_quantile(*q, &mut buckets);
            out.set(row, step, value);
            out.set_quality(row, step, quality);
            has_any = true;
        }
        if !has_any {
            out.pop();
        }
    }
    Ok(out)
}

fn native(q: &[f64], vector: &Vector, at: usize, out: &mut Vector) {
    if vector.cells.is_empty() || !(0..vector.steps).any(|step| vector.cells_at(at, step).is_some()) {
        return;
    }
    let row = out.push_absent(Head { name: None, labels: vector.heads[at].labels.clone() });
    for (step, q) in q.iter().enumerate() {
        if let Some(cells) = vector.cells_at(at, step) {
            let (value, quality) = cells.quantile(*q);
            out.set(row, step, value);
            out.set_quality(row, step, quality);
        }
    }
}

/// The quantile of cumulative buckets (upper bound, count), ascending: linear inside the bucket that holds it.
///
/// As `bucketQuantile` in `promql/quantile.go` of Prometheus.
pub(super) fn bucket_quantile(q: f64, buckets: &mut Vec<(f64, f64)>) -> (f64, Quality) {
    let mut quality = Quality { bound: f64::NAN, count: f64::NAN, span: f64::NAN, late: None, clamped: None };
    if q.is_nan() {
        return (f64::NAN, quality);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, quality);
    }
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return (f64::NAN, quality);
    }
    // Bounds that are equal as numbers are one bucket; counts never fall.
    buckets.dedup_by(|next, kept| {
        let is_same = next.0.total_cmp(&kept.0).is_eq();
        kept.1 += if is_same { next.1 } else { 0.0 };
        is_same
    });
    let Some((_, mut least)) = buckets.first().copied() else { return (f64::NAN, quality) };
    for (_, count) in buckets.iter_mut().skip(1) {
        let is_noise = (*count - least).abs() <= SMALL_FALL * least.abs();
        if *count < least || is_noise {
            *count = least;
        }
        least = *count;
    }
    let observations = least;
    quality.count = observations;
    if buckets.len() < 2 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, quality);
    }
    let top = buckets.len() - 1;
    let mut rank = q * observations;
    let at = buckets[..top].partition_point(|(_, count)| *count < rank);
    quality.bound = f64::INFINITY;
    if at == top {
        return (buckets[top - 1].0, quality);
    }
    let (end, mut count) = buckets[at];
    if at == 0 && end <= 0.0 {
        return (end, quality);
    }
    let mut start = 0.0;
    if at > 0 {
        start = buckets[at - 1].0;
        count -= buckets[at - 1].1;
        rank -= buckets[at - 1].1;
    }
    let value = start + (end - start) * (rank / count);
    if start > 0.0 {
        quality.bound = ((value - start) / start).max((end - value) / end);
    } else if end < 0.0 {
        quality.bound = ((value - start) / -start).max((end - value) / -end);
    }
    (value, quality)
}

/// `histogram_count` and its kin: native histograms only.
pub(super) fn histogram_part(part: HistogramPart, vector: Vector) -> Vector {
    of_cells(vector, |cells, _| match part {
        HistogramPart::Count => cells.count(),
        HistogramPart::Sum => cells.sum(),
        HistogramPart::Avg => cells.sum() / cells.count(),
        HistogramPart::Stddev => cells.variance().sqrt(),
        HistogramPart::Stdvar => cells.variance(),
    })
}

/// `histogram_fraction(lower, upper, vector)`: native histograms only.
pub(super) fn histogram_fraction(lower: &[f64], upper: &[f64], vector: Vector) -> Vector {
    of_cells(vector, |cells, step| cells.fraction(lower[step], upper[step]))
}

fn of_cells(vector: Vector, figure: impl Fn(&super::histogram::Cells, usize) -> f64) -> Vector {
    let mut out = Vector::new(vector.steps);
    let mut row = Vec::with_capacity(vector.steps);
    for (at, head) in vector.heads.iter().enumerate() {
        row.clear();
        row.extend((0..vector.steps).map(|step| vector.cells_at(at, step).map_or(ABSENT, |cells| figure(cells, step))));
        out.push_row(Head { name: None, labels: head.labels.clone() }, &row);
    }
    out
}
