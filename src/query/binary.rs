//! Binary operators: between numbers, a vector and a number, and two vectors matched by their labels.
//!
//! In: two evaluated sides. Out: the result. Invariant: which series belong together is decided once for all steps, as
//! labels do not change; which of them are there, step by step. Rules as in Prometheus's "Vector matching".

use super::eval::{Budget, Eval, EvalError};
use super::histogram::Cells;
use super::labels::{contains, filtered, shown, value_of, with_label};
use super::plan::{Matching, Operator, Side};
use super::vector::{ABSENT, Head, Vector, is_absent};
use crate::event::Labels;
use std::collections::HashMap;

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

pub(super) fn binary(
    budget: &Budget<'_>,
    operator: Operator,
    matching: &Matching,
    left: Eval,
    right: Eval,
) -> Result<Eval, EvalError> {
    match (left, right) {
        (Eval::Scalar(mut left), Eval::Scalar(right)) => {
            for (left, right) in left.iter_mut().zip(right) {
                *left = match operator.is_comparison() {
                    true => f64::from(holds(operator, *left, right)),
                    false => arithmetic(operator, *left, right),
                };
            }
            Ok(Eval::Scalar(left))
        }
        (Eval::Vector(vector), Eval::Scalar(scalar)) => {
            Ok(Eval::Vector(with_scalar(operator, matching.returns_bool, vector, &scalar, false)))
        }
        (Eval::Scalar(scalar), Eval::Vector(vector)) => {
            Ok(Eval::Vector(with_scalar(operator, matching.returns_bool, vector, &scalar, true)))
        }
        (Eval::Vector(left), Eval::Vector(right)) => {
            let groups = Groups::new(matching, &left, &right);
            Ok(Eval::Vector(match operator {
                Operator::And => retained(left, &right, &groups, true),
                Operator::Unless => retained(left, &right, &groups, false),
                Operator::Or => either(left, &right, &groups),
                _ => matched(budget, operator, matching, &left, &right, &groups)?,
            }))
        }
        // The compiler lets no text come here.
        (Eval::Text, other) | (other, Eval::Text) => Ok(other),
    }
}

fn arithmetic(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mul => left * right,
        Operator::Div => left / right,
        Operator::Mod => left % right,
        Operator::Pow => left.powf(right),
        Operator::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}

fn holds(operator: Operator, left: f64, right: f64) -> bool {
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Greater => left > right,
        Operator::Less => left < right,
        Operator::GreaterEqual => left >= right,
        Operator::LessEqual => left <= right,
        _ => false,
    }
}

/// The value of a pair, or `ABSENT` where a comparison drops it.
fn combine(operator: Operator, returns_bool: bool, left: f64, right: f64, kept: f64) -> f64 {
    match (operator.is_comparison(), returns_bool) {
        (false, _) => arithmetic(operator, left, right),
        (true, true) => f64::from(holds(operator, left, right)),
        (true, false) if holds(operator, left, right) => kept,
        (true, false) => ABSENT,
    }
}

fn with_scalar(
    operator: Operator,
    returns_bool: bool,
    mut vector: Vector,
    scalar: &[f64],
    scalar_is_left: bool,
) -> Vector {
    let steps = vector.steps;
    for (at, value) in vector.values.iter_mut().enumerate() {
        if is_absent(*value) {
            continue;
        }
        let scalar = scalar[at % steps];
        let (left, right) = if scalar_is_left { (scalar, *value) } else { (*value, scalar) };
        *value = combine(operator, returns_bool, left, right, *value);
    }
    for (at, place) in vector.cells.iter_mut().enumerate() {
        // A histogram can be scaled, and nothing else; what has no result is not there.
        let scales = match operator {
            Operator::Mul => Some(scalar[at % steps]),
            Operator::Div if !scalar_is_left => Some(1.0 / scalar[at % steps]),
            _ => None,
        };
        *place = place.take().and_then(|mut cells| {
            cells.factor *= scales?;
            Some(cells)
        });
    }
    let keeps_bound = match operator {
        Operator::Mul => true,
        Operator::Div => !scalar_is_left,
        operator => operator.is_comparison() && !returns_bool,
    };
    if !keeps_bound {
        vector.quality.clear();
    }
    if !operator.is_comparison() || returns_bool {
        vector.drop_names();
    }
    vector
}

/// The group of every row of both sides, by the labels they are matched on.
struct Groups {
    left: Vec<usize>,
    right: Vec<usize>,
    count: usize,
}

impl Groups {
    fn new(matching: &Matching, left: &Vector, right: &Vector) -> Groups {
        let mut places: Map<(Option<std::sync::Arc<str>>, Labels), usize> = Map::default();
        let mut of = |vector: &Vector| -> Vec<usize> {
            let key = |head: &Head| match matching.on {
                true => {
                    let name = head.name.clone().filter(|_| contains(&matching.labels, "__name__"));
                    (name, filtered(&head.labels, |key| contains(&matching.labels, key)))
                }
                false => (None, filtered(&head.labels, |key| !contains(&matching.labels, key))),
            };
            let rows = vector.heads.iter().map(|head| {
                let next = places.len();
                *places.entry(key(head)).or_insert(next)
            });
            rows.collect()
        };
        let (left, right) = (of(left), of(right));
        Groups { left, right, count: places.len() }
    }
}

/// `and`, `unless`: rows of the left side whose group is, or is not, on the right.
fn retained(mut left: Vector, right: &Vector, groups: &Groups, wanted: bool) -> Vector {
    let mut is_there = vec![false; groups.count];
    for step in 0..left.steps {
        is_there.fill(false);
        for (at, group) in groups.right.iter().enumerate() {
            is_there[*group] |= right.has(at, step);
        }
        for (at, group) in groups.left.iter().enumerate() {
            if is_there[*group] != wanted {
                left.set(at, step, ABSENT);
                if let Some(cells) = left.cells.get_mut(at * left.steps + step) {
                    *cells = None;
                }
            }
        }
    }
    left.is_sorted = false;
    left
}

/// `or`: everything on the left, and what is on the right in groups the left does not have.
fn either(mut left: Vector, right: &Vector, groups: &Groups) -> Vector {
    let steps = left.steps;
    let mut is_there = vec![false; groups.count];
    let rows: Vec<usize> = right.heads.iter().map(|head| left.push_absent(head.clone())).collect();
    for step in 0..steps {
        is_there.fill(false);
        for (at, group) in groups.left.iter().enumerate() {
            is_there[*group] |= left.has(at, step);
        }
        for (at, group) in groups.right.iter().enumerate() {
            if !is_there[*group] {
                left.copy(rows[at], step, right, at);
            }
        }
    }
    left.is_sorted = false;
    left
}

fn matched(
    budget: &Budget<'_>,
    operator: Operator,
    matching: &Matching,
    left: &Vector,
    right: &Vector,
    groups: &Groups,
) -> Result<Vector, EvalError> {
    // The one side has one series per group and step; without grouping it is the right one.
    let one_is_left = matching.side == Side::Right;
    let (many, one) = if one_is_left { (right, left) } else { (left, right) };
    let (many_groups, one_groups) =
        if one_is_left { (&groups.right, &groups.left) } else { (&groups.left, &groups.right) };
    let mut out = Vector::new(left.steps);
    let mut rows: Map<(usize, usize), usize> = Map::default();
    let mut row_of: Map<Head, usize> = Map::default();
    let mut ones: Vec<Option<usize>> = vec![None; groups.count];
    // Per group the many row of a one-to-one pair; per result row the step it was last filled in.
    let mut taken: Vec<Option<usize>> = vec![None; groups.count];
    let mut filled: Vec<usize> = Vec::new();
    for step in 0..left.steps {
        ones.fill(None);
        taken.fill(None);
        for (at, group) in one_groups.iter().enumerate() {
            if !one.has(at, step) {
                continue;
            }
            if let Some(other) = ones[*group].replace(at) {
                let side = if one_is_left { "left" } else { "right" };
                return Err(duplicates(side, matching, &one.heads[other], &one.heads[at]));
            }
        }
        for (at, group) in many_groups.iter().enumerate() {
            let Some(partner) = ones[*group].filter(|_| many.has(at, step)) else { continue };
            let (l, r) = if one_is_left { (partner, at) } else { (at, partner) };
            if matching.side == Side::None
                && let Some(other) = taken[*group].replace(at)
            {
                return Err(duplicates("left", matching, &many.heads[other], &many.heads[at]));
            }
            let (value, cells) = pair(operator, matching.returns_bool, (left, l), (right, r), step)?;
            if is_absent(value) && cells.is_none() {
                continue;
            }
            let row = match rows.get(&(at, partner)) {
                Some(row) => *row,
                None => {
                    let head = result(operator, matching, &many.heads[at], &one.heads[partner])?;
                    let row = match row_of.get(&head) {
                        Some(row) => *row,
                        None => {
                            budget.samples(left.steps)?;
                            filled.push(usize::MAX);
                            let row = out.push_absent(head.clone());
                            row_of.insert(head, row);
                            row
                        }
                    };
                    rows.insert((at, partner), row);
                    row
                }
            };
            if filled[row] == step {
                let shown = shown(&out.heads[row]);
                let text = format!("several series make {shown}: the labels of grouping must keep them apart");
                return Err(EvalError::Matching(text));
            }
            filled[row] = step;
            match cells {
                Some(cells) => out.set_cells(row, step, cells),
                None => out.set(row, step, value),
            }
        }
    }
    Ok(out)
}

fn duplicates(side: &str, matching: &Matching, one: &Head, other: &Head) -> EvalError {
    let labels = match (matching.on, &*matching.labels) {
        (true, labels) => format!("on({})", labels.join(", ")),
        (false, []) => "all their labels".to_owned(),
        (false, labels) => format!("ignoring({})", labels.join(", ")),
    };
    let (one, other) = (shown(one), shown(other));
    EvalError::Matching(format!(
        "{one} and {other} on the {side} side match the same series by {labels}: use group_left or group_right, or match \
         on more labels"
    ))
}

/// The value or histogram of one pair.
fn pair(
    operator: Operator,
    returns_bool: bool,
    (left, l): (&Vector, usize),
    (right, r): (&Vector, usize),
    step: usize,
) -> Result<(f64, Option<Box<Cells>>), EvalError> {
    let (a, b) = (left.get(l, step), right.get(r, step));
    if !is_absent(a) && !is_absent(b) {
        // A comparison keeps the value on its left, whichever side has many.
        return Ok((combine(operator, returns_bool, a, b, a), None));
    }
    let cells = match (operator, left.cells_at(l, step), right.cells_at(r, step)) {
        (Operator::Add, Some(a), Some(b)) => {
            let mut sum = a.clone();
            sum.merge(b).map_err(|_| EvalError::MixedDistributions)?;
            Some(sum)
        }
        (Operator::Mul | Operator::Div, Some(cells), None) if !is_absent(b) => {
            let factor = if operator == Operator::Mul { b } else { 1.0 / b };
            Some(Cells { factor: cells.factor * factor, ..cells.clone() })
        }
        (Operator::Mul, None, Some(cells)) if !is_absent(a) => {
            Some(Cells { factor: cells.factor * a, ..cells.clone() })
        }
        _ => None,
    };
    Ok((ABSENT, cells.map(Box::new)))
}

/// The labels of a pair's result.
fn result(operator: Operator, matching: &Matching, many: &Head, one: &Head) -> Result<Head, EvalError> {
    let keeps_name = operator.is_comparison() && !matching.returns_bool;
    let mut head = Head { name: many.name.clone().filter(|_| keeps_name), labels: many.labels.clone() };
    if matching.side == Side::None {
        head.labels = filtered(&head.labels, |key| contains(&matching.labels, key) == matching.on);
        if matching.on && !contains(&matching.labels, "__name__") {
            head.name = None;
        }
    }
    for label in &matching.include {
        let value = value_of(one, label);
        if **label == *"__name__" {
            head.name = one.name.clone();
        } else if head.labels.get(label).unwrap_or_default() != value {
            head.labels = with_label(&head.labels, label, value).map_err(|_| EvalError::Labels("group_left"))?;
        }
    }
    Ok(head)
}
