//! The names that an expression may read: every family and sample name of the pipeline, with its labels.
//!
//! In: declared metrics, sources. Out: `Names`. Invariant: a name that is not here may still exist, since samples from
//! the wire declare nothing; so an unknown name is a warning and never an error.

use super::build_source::values_of;
use super::plan::{SourceKind, SourcePlan};
use crate::event::Kind;
use crate::rule::{DeclaredMetric, HOST_METRICS, OwnMetric, PIPELINE_METRICS, is_reserved_name, window_name};
use std::collections::BTreeMap;

/// What stands before the names of a collector's values while no metric names them. A process has its source's name,
/// since there may be several and `process_*` is this program's own.
pub fn shown_as(source: &SourcePlan) -> String {
    match &source.kind {
        SourceKind::Process(_) => {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = source.name.replace(|c: char| !is_word(c), "_");
            if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
        }
        kind => kind.as_str().to_owned(),
    }
}

/// Names with the labels of their series, `le` and `quantile` among them, constant ones not.
#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<String, Option<Vec<String>>>,
    /// Metrics that are switched off.
    off: BTreeMap<String, Option<Vec<String>>>,
    /// Beginnings of names that appear by themselves.
    prefixes: Vec<String>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    Off,
    No,
}

impl Names {
    /// What the program itself shows, and what its sources do while no metric names them.
    pub(super) fn of_the_program(sources: &[SourcePlan], counts_unknown: bool) -> Names {
        let mut names = Names { prefixes: vec!["hydrograph_client_".into()], ..Names::default() };
        let mut own = |metric: &OwnMetric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            names.add_family(metric.name, metric.kind, true, true, &labels, true);
        };
        PIPELINE_METRICS.iter().for_each(&mut own);
        if sources.iter().any(|source| source.enabled && matches!(source.kind, SourceKind::Host(_))) {
            HOST_METRICS.iter().for_each(&mut own);
        }
        for source in sources.iter().filter(|source| source.enabled) {
            let prefix = shown_as(source);
            for value in values_of(&source.kind) {
                names.known.entry(format!("{prefix}_{}", value.name)).or_insert(None);
            }
        }
        for name in ["service_check_status", "up"] {
            names.known.insert(name.into(), None);
        }
        if counts_unknown {
            names.known.insert("events_total".into(), Some(vec!["event".into()]));
        }
        names
    }

    /// Adds a declared metric.
    pub(super) fn add(&mut self, metric: &DeclaredMetric, is_on: bool) {
        let (summary, histogram) = (metric.expose.summary, metric.expose.histogram);
        self.add_family(&metric.name, metric.kind, summary, histogram, &metric.labels, is_on);
        if summary && histogram {
            self.add_family(&window_name(&metric.name, metric.unit), metric.kind, true, false, &metric.labels, is_on);
        }
    }

    fn add_family(&mut self, name: &str, kind: Kind, summary: bool, histogram: bool, labels: &[String], is_on: bool) {
        let into = if is_on { &mut self.known } else { &mut self.off };
        let with = |label: &str| Some(labels.iter().cloned().chain([label.to_owned()]).collect());
        let plain = Some(labels.to_vec());
        if kind == Kind::Distribution {
            for suffix in ["_sum", "_count"] {
                into.insert(format!("{name}{suffix}"), plain.clone());
            }
            // The cells answer for buckets too, whatever is exposed.
            into.insert(format!("{name}_bucket"), with("le"));
            into.insert(name.to_owned(), if summary && !histogram { with("quantile") } else { plain });
        } else {
            into.insert(name.to_owned(), plain);
        }
    }

    /// What is known of a name that an expression reads.
    pub(super) fn find(&self, name: &str) -> Known {
        let is_known = self.known.contains_key(name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            // The rest of the program's own names: the scrape renders them live.
            || (name.starts_with("process_") && is_reserved_name(name));
        match is_known {
            true => Known::Yes,
            false if self.off.contains_key(name) => Known::Off,
            false => Known::No,
        }
    }

    /// The labels of a name, where they are known.
    pub(super) fn labels_of(&self, name: &str) -> Option<Vec<String>> {
        self.known.get(name).or_else(|| self.off.get(name)).cloned().flatten()
    }

    /// All names.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }
}
