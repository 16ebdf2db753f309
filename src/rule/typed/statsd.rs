//! Feeds by a pattern of StatsD names: `api.*.latency`, or `/^api\.(.*)$/`.
//!
//! In: the name of a line, on a decoder's miss. Out: the metric, the labels that the pattern captures, a power of ten.
//! Invariant: the first pattern of the file that matches, and whose metric has the line's kind, decides.

use super::feed::power_of_ten;
use super::{FeedSpec, LabelSource, Typed};
use crate::event::{Kind, Metric};
use regex::Regex;
use std::sync::Arc;

/// A compiled pattern.
pub(super) struct StatsdFeed {
    pattern: Regex,
    metric: Arc<Metric>,
    /// Constant and captured labels; the others are the line's own tags.
    labels: Vec<(String, LabelSource)>,
    exponent: i8,
}

/// What a name came to.
pub struct StatsdMatch<'a> {
    /// The metric.
    pub metric: &'a Arc<Metric>,
    /// Labels that do not come from the line's tags.
    pub labels: Vec<(&'a str, String)>,
    /// Values are × 10^this.
    pub exponent: i8,
}

impl StatsdFeed {
    pub(super) fn new(pattern: &str, feed: &FeedSpec, metric: &Arc<Metric>) -> Result<StatsdFeed, String> {
        let about = |what: String| format!("metric {:?} from StatsD {pattern:?}: {what}", metric.name);
        let labels = feed.labels.iter().filter(|(_, from)| !matches!(from, LabelSource::Own | LabelSource::Field(_)));
        Ok(StatsdFeed {
            pattern: compile(pattern).map_err(about)?,
            metric: Arc::clone(metric),
            labels: labels.cloned().collect(),
            exponent: power_of_ten(feed.scale).map_err(about)?,
        })
    }
}

/// A glob's `*` is one part between dots, and a capture, as in statsd_exporter; a pattern between slashes is a regular
/// expression that matches anywhere.
fn compile(pattern: &str) -> Result<Regex, String> {
    let text = match pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        Some(regex) => regex.to_owned(),
        None => {
            let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
            format!("^{}$", parts.join("([^.]*)"))
        }
    };
    Regex::new(&text).map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

impl Typed {
    /// The metric that a StatsD name feeds by a pattern.
    pub fn statsd(&self, name: &str, kind: Kind) -> Option<StatsdMatch<'_>> {
        self.statsd.iter().filter(|feed| feed.metric.kind == kind).find_map(|feed| {
            let captures = feed.pattern.captures(name)?;
            let labels = feed.labels.iter().filter_map(|(label, from)| match from {
                LabelSource::Const(text) => Some((label.as_str(), text.clone())),
                LabelSource::Template(template) => {
                    let mut text = String::new();
                    captures.expand(template, &mut text);
                    Some((label.as_str(), text))
                }
                LabelSource::Own | LabelSource::Field(_) => None,
            });
            Some(StatsdMatch { metric: &feed.metric, labels: labels.collect(), exponent: feed.exponent })
        })
    }
}
