//! Every point of some series over a span of time, one series after another: what an export writes.
//!
//! In: selectors, a span, [`Data`]. Out: the names they mean, in the order of families; per name the series with their
//! points. Owns nothing. Invariants: a point is what the raw range of a selector (`x[1h]`) shows; the points of one series
//! at a time are in memory, whatever the span.

use super::Limits;
use super::data::Data;
use super::eval::{Budget, Context, EvalError};
use super::plan::Selector;
use super::produce::each_points;
use super::select::{Part, targets};
use super::vector::Grid;
use crate::event::{Labels, Metric, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name that is exposed, and which metric and which part of it stands under it.
#[derive(Clone, Debug)]
pub struct Name {
    /// Whose.
    pub metric: Arc<Metric>,
    /// The name in text.
    pub name: Arc<str>,
    /// The name of the family that it belongs to: that of a histogram, or of the summary beside it.
    pub family: Arc<str>,
    /// What it is of the family.
    pub role: Role,
    /// Which of the selectors mean it.
    selectors: Vec<usize>,
}

impl Name {
    /// The selectors that mean it, for this name alone.
    pub fn selectors(&self, selectors: &[Selector]) -> Vec<Selector> {
        self.selectors.iter().map(|at| self.alone(&selectors[*at])).collect()
    }

    fn alone(&self, selector: &Selector) -> Selector {
        Selector { name: Some(Arc::clone(&self.name)), name_matchers: Vec::new(), ..selector.clone() }
    }
}

/// What a name is of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The only one: of a counter, a gauge, a set.
    Value,
    /// One series a quantile.
    Quantile,
    /// One series a bound.
    Bucket,
    /// Σ of the values.
    Sum,
    /// How many.
    Count,
}

/// The names that selectors mean, each once: families by name, and within one steps, sum, count.
pub fn names(data: &dyn Data, selectors: &[Selector]) -> Vec<Name> {
    let mut found: BTreeMap<(Arc<str>, Role, u32), Name> = BTreeMap::new();
    for (at, selector) in selectors.iter().enumerate() {
        for target in targets(data, selector) {
            let (role, suffix) = match target.part {
                Part::Value => (Role::Value, ""),
                Part::Quantile => (Role::Quantile, ""),
                Part::Bucket => (Role::Bucket, "_bucket"),
                Part::Sum => (Role::Sum, "_sum"),
                Part::Count => (Role::Count, "_count"),
                Part::Native => continue,
            };
            let family: Arc<str> = target.name.strip_suffix(suffix).unwrap_or(&target.name).into();
            let key = (Arc::clone(&family), role, target.metric.id.0);
            let name = found.entry(key).or_insert_with(|| Name {
                metric: target.metric,
                name: target.name,
                family,
                role,
                selectors: Vec::new(),
            });
            name.selectors.push(at);
        }
    }
    found.into_values().collect()
}

/// Called with the labels of each series and its points: (nanoseconds, value), ascending.
pub type Visit<'v> = dyn FnMut(&Labels, &[(i64, f64)]) -> Result<(), EvalError> + 'v;

/// Visits every series of a name that any of the selectors means, with its points after `start` up to `end`: (nanoseconds,
/// value), ascending. One that several selectors mean is visited several times.
///
/// # Errors
/// [`EvalError`], or what `visit` returned.
pub fn points(
    data: &dyn Data,
    selectors: &[Selector],
    name: &Name,
    (start, end): (Timestamp, Timestamp),
    is_over: &dyn Fn() -> bool,
    visit: &mut Visit<'_>,
) -> Result<(), EvalError> {
    // One series is in memory at a time, so that nothing but time bounds how many there may be.
    let limits = Limits { series: usize::MAX, samples: usize::MAX, steps: 1 };
    let grid = Grid { start: end.0, step: 1, steps: 1 };
    for at in &name.selectors {
        let selector = Selector { range: end.0.saturating_sub(start.0).max(1), ..name.alone(&selectors[*at]) };
        let budget = Budget::new(&limits, is_over);
        let context = Context { data, budget, selectors: &[], ends: (end.0, end.0) };
        each_points(&context, &selector, &grid, &mut |_, labels, points| visit(&labels, points))?;
    }
    Ok(())
}
