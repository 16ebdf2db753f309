//! Label sets of results: parts of them, additions to them, and the two functions that rewrite them.
//!
//! In: canonical labels. Out: canonical labels. Invariant: an unchanged set keeps its bytes, so most results share theirs
//! with the series they came from.

use super::eval::EvalError;
use super::plan::Grouping;
use super::vector::{Head, Vector};
use crate::event::{Labels, LabelsBuilder};
use std::fmt::Write as _;
use std::sync::Arc;

/// A set with one label more, or with another value of it; an empty value takes it away.
pub(super) fn with_label(labels: &Labels, key: &str, value: &str) -> Result<Labels, EvalError> {
    let mut builder = LabelsBuilder::new();
    labels.iter().filter(|(k, _)| *k != key).for_each(|(k, v)| {
        builder.push(k, v);
    });
    builder.push(key, value);
    builder.build_reserved().map_err(|_| EvalError::Labels("label_replace"))
}

/// Only the labels that `keeps` names.
pub(super) fn filtered(labels: &Labels, keeps: impl Fn(&str) -> bool) -> Labels {
    if labels.iter().all(|(key, _)| keeps(key)) {
        return labels.clone();
    }
    let mut builder = LabelsBuilder::new();
    labels.iter().filter(|(key, _)| keeps(key)).for_each(|(key, value)| {
        builder.push(key, value);
    });
    builder.build_reserved().expect("a part of a valid set is valid")
}

pub(super) fn contains(names: &[Box<str>], name: &str) -> bool {
    names.binary_search_by(|known| (**known).cmp(name)).is_ok()
}

/// The group of a series.
pub(super) fn group_of(head: &Head, grouping: &Grouping) -> Head {
    let listed = |key: &str| contains(&grouping.labels, key);
    match grouping.without {
        true => Head { name: None, labels: filtered(&head.labels, |key| !listed(key)) },
        false if grouping.labels.is_empty() => Head { name: None, labels: Labels::empty() },
        false => {
            let name = head.name.clone().filter(|_| listed("__name__"));
            Head { name, labels: filtered(&head.labels, listed) }
        }
    }
}

/// A label of a series, its name among them; empty when it has none.
pub(super) fn value_of<'h>(head: &'h Head, key: &str) -> &'h str {
    match key {
        "__name__" => head.name.as_deref().unwrap_or_default(),
        key => head.labels.get(key).unwrap_or_default(),
    }
}

fn set(head: &mut Head, key: &str, value: &str, function: &'static str) -> Result<(), EvalError> {
    if key == "__name__" {
        head.name = Some(value).filter(|name| !name.is_empty()).map(Arc::from);
    } else if head.labels.get(key).unwrap_or_default() != value {
        head.labels = with_label(&head.labels, key, value).map_err(|_| EvalError::Labels(function))?;
    }
    Ok(())
}

/// `label_replace`: where the pattern matches the whole value, the replacement with `$1`, `$name` filled in.
pub(super) fn label_replace(
    mut vector: Vector,
    to: &str,
    replacement: &str,
    from: &str,
    pattern: &regex::Regex,
) -> Result<Vector, EvalError> {
    let mut expanded = String::new();
    for head in &mut vector.heads {
        let Some(captures) = pattern.captures(value_of(head, from)) else { continue };
        expanded.clear();
        captures.expand(replacement, &mut expanded);
        let value = std::mem::take(&mut expanded);
        set(head, to, &value, "label_replace")?;
        expanded = value;
    }
    Ok(vector)
}

/// `label_join`: the values of several labels, with a separator between.
pub(super) fn label_join(
    mut vector: Vector,
    to: &str,
    separator: &str,
    from: &[Arc<str>],
) -> Result<Vector, EvalError> {
    for head in &mut vector.heads {
        let values: Vec<&str> = from.iter().map(|key| value_of(head, key)).collect();
        let joined = values.join(separator);
        set(head, to, &joined, "label_join")?;
    }
    Ok(vector)
}

/// A series as it is written in PromQL.
pub(super) fn shown(head: &Head) -> String {
    let mut text = head.name.as_deref().unwrap_or_default().to_owned();
    text.push('{');
    for (at, (key, value)) in head.labels.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(text, "{comma}{key}={value:?}").expect("a string takes everything");
    }
    text.push('}');
    text
}
