//! Which series there are, under the names and with the labels that they are exposed by.
//!
//! In: selectors, a span of time, [`Data`]. Out: name and labels of each series, once. Owns nothing. Invariant: what is told
//! is what a scrape shows in text: a distribution is its quantiles or buckets with `_sum` and `_count`, and never the one
//! native histogram that the cells also are.

use super::data::{Data, Extent, Need, Span};
use super::eval::{Budget, EvalError};
use super::labels::with_label;
use super::matcher::Matcher;
use super::plan::Selector;
use super::select::{self, Part, Target, accepts_number};
use super::shapes::{Edges, Life};
use super::{Limits, buckets};
use crate::event::{Labels, Metric, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Called with the name and the other labels of each series.
pub type Told<'t> = dyn FnMut(&Arc<str>, &Labels) + 't;

/// Everything that a selector means in text, by name.
fn targets(data: &dyn Data, selector: &Selector) -> Vec<Target> {
    let mut found = select::targets(data, selector);
    found.retain(|target| target.part != Part::Native);
    found
}

/// The metrics that these selectors mean, each once.
pub fn metrics(data: &dyn Data, selectors: &[Selector]) -> Vec<Arc<Metric>> {
    let found = selectors.iter().flat_map(|selector| targets(data, selector));
    let by_id: BTreeMap<u32, Arc<Metric>> = found.map(|target| (target.metric.id.0, target.metric)).collect();
    by_id.into_values().collect()
}

/// Tells every series that any of these selectors means and that is there at some time of `[from, to]`. A series that
/// several selectors mean is told several times.
///
/// # Errors
/// [`EvalError`].
pub fn series(
    data: &dyn Data,
    selectors: &[Selector],
    (from, to): (Timestamp, Timestamp),
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
    tell: &mut Told<'_>,
) -> Result<(), EvalError> {
    let budget = Budget::new(limits, is_over);
    let edges = Edges { width: data.slice_width().nanos(), zones: data.zones() };
    let at = data.slice_width().slice_of(to);
    let nothing = Extent { span: Span { from: at, to: at }, windows: &[], edges: Some(&[]) };
    for selector in selectors {
        for target in targets(data, selector) {
            let matchers = &selector.matchers;
            let parts = parts(&target, matchers);
            select::read(data, &budget, &target, selector, nothing, Need::default(), &mut |series| {
                if !Life::new(series, &target.metric, edges).is_between(from.0, to.0) {
                    return Ok(());
                }
                budget.samples(parts.len())?;
                match target.part.label() {
                    None => tell(&target.name, series.labels),
                    Some(label) => {
                        for part in &parts {
                            tell(&target.name, &with_label(series.labels, label, part)?);
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The values of the label that tells the series of one distribution apart.
fn parts(target: &Target, matchers: &[Matcher]) -> Vec<String> {
    let Some(label) = target.part.label() else { return Vec::new() };
    let bounds = match target.part {
        Part::Bucket => buckets::bounds(&target.metric).bounds.iter().copied().chain([f64::INFINITY]).collect(),
        _ => target.metric.quantiles.to_vec(),
    };
    let texts = bounds.into_iter().map(|bound: f64| (bound, buckets::text(bound)));
    texts.filter(|(bound, text)| accepts_number(matchers, label, *bound, text)).map(|(_, text)| text).collect()
}
