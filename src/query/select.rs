//! From a selector to series: which metrics a name means, which part of them, and one reading per evaluation.
//!
//! In: a [`Selector`] and [`Data`]. Out: targets, and their series one by one. Owns: the names a distribution is exposed
//! under. Invariant: whatever the scrape shows under a name, the name selects; a few names it does not show (`x_bucket`
//! of a summary, the cells of `x` inside histogram functions) are answered too when they are asked by name.

use super::data::{Data, Extent, Need, SeriesRows};
use super::eval::{Budget, EvalError};
use super::matcher::{MatchOp, Matcher};
use super::plan::Selector;
use crate::event::{Kind, Metric};
use crate::rule::window_name;
use std::sync::Arc;

/// What of a metric a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A counter, a gauge, or a set's distinct members.
    Value,
    Count,
    Sum,
    /// Cumulative, one series per bound.
    Bucket,
    /// Of the window, one series per quantile.
    Quantile,
    /// The distribution as one native histogram.
    Native,
}

impl Part {
    /// The label that tells the series of one distribution apart.
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Part::Bucket => Some("le"),
            Part::Quantile => Some("quantile"),
            Part::Value | Part::Count | Part::Sum | Part::Native => None,
        }
    }
}

/// A part of a metric, under the name it was asked by.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) metric: Arc<Metric>,
    pub(super) name: Arc<str>,
    pub(super) part: Part,
}

/// Everything a selector means, by name.
pub(super) fn targets(data: &dyn Data, selector: &Selector) -> Vec<Target> {
    let mut found = Vec::new();
    match &selector.name {
        Some(name) => named(data, name, selector.native, &mut found),
        None => data.metrics().iter().for_each(|metric| exposed(metric, selector.native, &mut found)),
    }
    found.retain(|target| selector.name_matchers.iter().all(|matcher| matcher.accepts(&target.name)));
    found.sort_by(|a, b| (&a.name, a.metric.id).cmp(&(&b.name, b.metric.id)));
    found
}

/// What `x` itself is.
fn own_part(metric: &Metric, native: bool) -> Part {
    match metric.kind {
        Kind::Distribution if native || metric.expose.histogram => Part::Native,
        Kind::Distribution => Part::Quantile,
        Kind::Counter | Kind::Gauge | Kind::Set => Part::Value,
    }
}

fn named(data: &dyn Data, name: &str, native: bool, found: &mut Vec<Target>) {
    let mut push = |metric, part| found.push(Target { metric, name: name.into(), part });
    if let Some(metric) = data.metric(name) {
        let part = own_part(&metric, native);
        push(metric, part);
    }
    let distribution = |stem: &str| data.metric(stem).filter(|metric| metric.kind == Kind::Distribution);
    for (suffix, part) in [("_bucket", Part::Bucket), ("_sum", Part::Sum), ("_count", Part::Count)] {
        let Some(stem) = name.strip_suffix(suffix) else { continue };
        if let Some(metric) = distribution(stem) {
            push(metric, part);
        } else if part != Part::Bucket
            && let Some(metric) = windowed(data, stem)
        {
            push(metric, part);
        }
    }
    if let Some(metric) = windowed(data, name) {
        push(metric, if native { Part::Native } else { Part::Quantile });
    }
}

/// The distribution whose summary stands under this name beside its histogram.
fn windowed(data: &dyn Data, name: &str) -> Option<Arc<Metric>> {
    let (at, word) = name.rmatch_indices("_window").next()?;
    let metric = data.metric(&format!("{}{}", &name[..at], &name[at + word.len()..]))?;
    let is_both = metric.kind == Kind::Distribution && metric.expose.histogram && metric.expose.summary;
    (is_both && window_name(&metric.name, metric.unit) == name).then_some(metric)
}

/// Every name a scrape shows a metric under.
fn exposed(metric: &Arc<Metric>, native: bool, found: &mut Vec<Target>) {
    let mut push = |name: String, part| found.push(Target { metric: Arc::clone(metric), name: name.into(), part });
    let name = &metric.name;
    push(name.to_string(), own_part(metric, native));
    if metric.kind != Kind::Distribution {
        return;
    }
    push(format!("{name}_sum"), Part::Sum);
    push(format!("{name}_count"), Part::Count);
    if metric.expose.histogram {
        push(format!("{name}_bucket"), Part::Bucket);
        if metric.expose.summary {
            let window = window_name(name, metric.unit);
            push(format!("{window}_sum"), Part::Sum);
            push(format!("{window}_count"), Part::Count);
            push(window, Part::Quantile);
        }
    }
}

/// Visits every series of a target.
///
/// # Errors
/// What the data says, a spent budget, or what `visit` returned.
pub(super) fn read(
    data: &dyn Data,
    budget: &Budget<'_>,
    target: &Target,
    selector: &Selector,
    extent: Extent<'_>,
    need: Need,
    visit: &mut dyn FnMut(&SeriesRows<'_>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let is_generated = |matcher: &Matcher| matches!(matcher.name(), "le" | "quantile");
    let (generated, stored): (Vec<&Matcher>, Vec<&Matcher>) = selector.matchers.iter().partition(|m| is_generated(m));
    // Series carry neither of the two labels, so a condition on one that this part does not make is one on nothing.
    let own = target.part.label();
    if !generated.iter().filter(|m| own != Some(m.name())).all(|m| m.accepts("")) {
        return Ok(());
    }
    let stored: Vec<Matcher> = stored.into_iter().cloned().collect();
    let ids = data.select(&target.metric, &stored)?;
    budget.series(ids.len())?;
    let mut stopped = None;
    let outcome = data.read(&target.metric, &ids, extent, need, &mut |_, series| {
        budget.samples(series.rows.len() + 1).and_then(|()| visit(series)).map_err(|error| {
            stopped = Some(error);
            super::data::DataError::new("the evaluation stopped")
        })
    });
    match (stopped, outcome) {
        (Some(error), _) => Err(error),
        (None, outcome) => Ok(outcome?),
    }
}

/// True when the conditions on a generated label accept a number: `le="1"` and `le="1.0"` mean the same bound.
pub(super) fn accepts_number(matchers: &[Matcher], label: &str, value: f64, text: &str) -> bool {
    matchers.iter().filter(|matcher| matcher.name() == label).all(|matcher| match matcher.op() {
        MatchOp::Equal | MatchOp::NotEqual => {
            let is_equal = matcher.value() == text || matcher.value().parse::<f64>().is_ok_and(|v| v == value);
            is_equal == (matcher.op() == MatchOp::Equal)
        }
        MatchOp::Regex | MatchOp::NotRegex => matcher.accepts(text),
    })
}
