//! Aggregations: many series to one per group, or to a few of them.
//!
//! In: a vector and its grouping. Out: a vector. Invariants: sums are compensated, so the order of series shows in no
//! digit that is promised; histograms are added cell by cell; a group that mixes numbers and histograms has no sum, as in
//! Prometheus.

use super::eval::{Budget, EvalError};
use super::histogram::Cells;
use super::labels::{group_of, with_label};
use super::over;
use super::plan::{Aggregation, Grouping};
use super::vector::{ABSENT, Head, Vector, is_absent};
use std::collections::HashMap;

/// The groups in the order they appear, with the rows of each.
fn groups(vector: &Vector, grouping: &Grouping) -> Vec<(Head, Vec<usize>)> {
    let mut places: HashMap<Head, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut groups: Vec<(Head, Vec<usize>)> = Vec::new();
    for (row, head) in vector.heads.iter().enumerate() {
        let group = group_of(head, grouping);
        let place = *places.entry(group).or_insert_with_key(|group| {
            groups.push((group.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(row);
    }
    groups
}

pub(super) fn aggregate(
    aggregation: Aggregation,
    parameter: Option<&[f64]>,
    grouping: &Grouping,
    vector: Vector,
) -> Result<Vector, EvalError> {
    let groups = groups(&vector, grouping);
    if matches!(aggregation, Aggregation::TopK | Aggregation::BottomK) {
        return Ok(select(aggregation == Aggregation::TopK, parameter, &groups, vector));
    }
    let mut out = Vector::new(vector.steps);
    let mut values = Vec::new();
    let mut row = Vec::new();
    for (head, members) in groups {
        row.clear();
        let mut histograms: Vec<(usize, Box<Cells>)> = Vec::new();
        for step in 0..vector.steps {
            values.clear();
            values.extend(members.iter().map(|at| vector.get(*at, step)).filter(|value| !is_absent(*value)));
            let cells = || members.iter().filter_map(|at| vector.cells_at(*at, step));
            let has_cells = !vector.cells.is_empty() && cells().next().is_some();
            let parameter = parameter.map_or(f64::NAN, |parameter| parameter[step]);
            let mut value = ABSENT;
            match aggregation {
                Aggregation::Sum | Aggregation::Avg if has_cells && values.is_empty() => {
                    histograms.push((step, merged(cells(), aggregation)?));
                }
                // Numbers and distributions together have no sum.
                Aggregation::Sum | Aggregation::Avg if has_cells => {}
                Aggregation::Count | Aggregation::Group if has_cells => {
                    let count = values.len() + cells().count();
                    value = if aggregation == Aggregation::Count { count as f64 } else { 1.0 };
                }
                _ if !values.is_empty() => value = of_values(aggregation, &mut values, parameter),
                _ => {}
            }
            row.push(value);
        }
        if histograms.is_empty() {
            out.push_row(head, &row);
            continue;
        }
        let at = out.push_absent(head);
        row.iter().enumerate().for_each(|(step, value)| out.set(at, step, *value));
        histograms.into_iter().for_each(|(step, cells)| out.set_cells(at, step, cells));
    }
    Ok(out)
}

fn merged<'c>(mut cells: impl Iterator<Item = &'c Cells>, aggregation: Aggregation) -> Result<Box<Cells>, EvalError> {
    let first = cells.next().expect("the caller saw one");
    let mut sum = Box::new(first.clone());
    let mut count = 1.0;
    for more in cells {
        sum.merge(more).map_err(|_| EvalError::MixedDistributions)?;
        count += 1.0;
    }
    if aggregation == Aggregation::Avg {
        sum.factor /= count;
    }
    Ok(sum)
}

fn of_values(aggregation: Aggregation, values: &mut [f64], parameter: f64) -> f64 {
    let all = values.iter().copied();
    let count = values.len() as f64;
    match aggregation {
        Aggregation::Sum => over::sum(all),
        Aggregation::Avg => over::sum(all) / count,
        // NaN only where everything is.
        Aggregation::Min => all.fold(f64::NAN, f64::min),
        Aggregation::Max => all.fold(f64::NAN, f64::max),
        Aggregation::Count => count,
        Aggregation::Group => 1.0,
        Aggregation::Stdvar => over::variance_of(all),
        Aggregation::Stddev => over::variance_of(all).sqrt(),
        Aggregation::Quantile => over::quantile(parameter, values),
        // These give rows, not values; `aggregate` and `count_values` take them.
        Aggregation::TopK | Aggregation::BottomK | Aggregation::CountValues => ABSENT,
    }
}

/// `topk`, `bottomk`: the rows themselves, at one time sorted by value.
fn select(greatest: bool, parameter: Option<&[f64]>, groups: &[(Head, Vec<usize>)], vector: Vector) -> Vector {
    let mut kept = vector.clone();
    kept.values.fill(ABSENT);
    kept.cells.clear();
    kept.quality.clear();
    let mut order = Vec::new();
    for (_, members) in groups {
        let mut ranked: Vec<(f64, usize)> = Vec::with_capacity(members.len());
        for step in 0..vector.steps {
            let limit = parameter.map_or(0.0, |parameter| parameter[step]);
            let limit = if limit >= 1.0 { limit.min(members.len() as f64) as usize } else { 0 };
            ranked.clear();
            let present = members.iter().map(|at| (vector.get(*at, step), *at));
            ranked.extend(present.filter(|(value, _)| !is_absent(*value)));
            // Stable, so that equal values keep the order of their rows; NaN comes last either way.
            ranked.sort_by(|(a, _), (b, _)| {
                let by_value = if greatest { b.total_cmp(a) } else { a.total_cmp(b) };
                a.is_nan().cmp(&b.is_nan()).then(by_value)
            });
            for (_, at) in ranked.iter().take(limit) {
                kept.copy(*at, step, &vector, *at);
                order.push(*at);
            }
        }
    }
    if vector.steps == 1 {
        kept = kept.reordered(&order);
        kept.is_sorted = true;
    }
    kept
}

/// `count_values`: one series per distinct value, which becomes a label.
pub(super) fn count_values(
    budget: &Budget<'_>,
    label: &str,
    grouping: &Grouping,
    vector: &Vector,
) -> Result<Vector, EvalError> {
    let mut out = Vector::new(vector.steps);
    for (head, members) in groups(vector, grouping) {
        let mut rows: HashMap<u64, usize, foldhash::fast::FixedState> = HashMap::default();
        for at in members {
            for step in 0..vector.steps {
                let value = vector.get(at, step);
                if is_absent(value) {
                    continue;
                }
                let row = match rows.get(&value.to_bits()) {
                    Some(row) => *row,
                    None => {
                        budget.samples(vector.steps)?;
                        let labels = with_label(&head.labels, label, &number_text(value))
                            .map_err(|_| EvalError::Labels("count_values"))?;
                        let row = out.push_absent(Head { name: head.name.clone(), labels });
                        rows.insert(value.to_bits(), row);
                        row
                    }
                };
                let count = out.get(row, step);
                out.set(row, step, if is_absent(count) { 1.0 } else { count + 1.0 });
            }
        }
    }
    Ok(out)
}

/// A value as a label: decimal, without an exponent.
fn number_text(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => format!("{value}"),
    }
}
