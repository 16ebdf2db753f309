//! What two plans differ in, by name and content.
//!
//! In: the plan that runs and another. Out: a [`ReloadReport`] for people, and the first key that a running pipeline cannot
//! change. Owns: nothing.

use crate::pipeline::graph::Graph;
use crate::pipeline::plan::{Plan, SourceKind, SourcePlan};
use std::collections::HashMap;

/// Names of one table of the pipeline file, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Not there before.
    pub added: Vec<String>,
    /// There before, with other words.
    pub changed: Vec<String>,
    /// There no more.
    pub removed: Vec<String>,
}

impl Changes {
    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn of<T>(old: &[T], new: &[T], name: impl Fn(&T) -> &str, is_same: impl Fn(&T, &T) -> bool) -> Changes {
        let by_name: HashMap<&str, &T> = old.iter().map(|item| (name(item), item)).collect();
        let mut changes = Changes::default();
        for item in new {
            match by_name.get(name(item)) {
                None => changes.added.push(name(item).to_owned()),
                Some(old) if !is_same(old, item) => changes.changed.push(name(item).to_owned()),
                Some(_) => {}
            }
        }
        let now: HashMap<&str, &T> = new.iter().map(|item| (name(item), item)).collect();
        let gone = by_name.keys().filter(|name| !now.contains_key(*name));
        changes.removed.extend(gone.map(|name| (*name).to_owned()));
        for list in [&mut changes.added, &mut changes.changed, &mut changes.removed] {
            list.sort_unstable();
        }
        changes
    }
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    /// `[metrics]`, with what feeds them.
    pub metrics: Changes,
    /// `[events]`
    pub events: Changes,
    /// `[pairs]`
    pub pairs: Changes,
    /// `[widgets]`
    pub widgets: Changes,
    /// `[sources]`
    pub sources: Changes,
    /// Other keys that changed, sorted; `mapping_file` where there is one, since it was read again.
    pub others: Vec<&'static str>,
    /// How long it took, reading the files not included.
    pub micros: u64,
}

impl ReloadReport {
    /// True when the plan says what the one before said.
    pub fn is_empty(&self) -> bool {
        let tables = [&self.metrics, &self.events, &self.pairs, &self.widgets, &self.sources];
        tables.iter().all(|changes| changes.is_empty()) && self.others.is_empty()
    }

    pub(super) fn of(old: &Plan, new: &Plan) -> ReloadReport {
        let feeds = |plan: &Plan| -> HashMap<String, String> {
            let mut feeds: HashMap<String, String> = HashMap::new();
            for feed in &plan.typed.feeds {
                let of_metric = feeds.entry(plan.metrics[feed.metric].name.clone()).or_default();
                of_metric.push_str(&format!("{:?}", (&feed.from, &feed.labels, &feed.when, feed.op, feed.scale)));
            }
            feeds
        };
        let (fed, feeds) = (feeds(old), feeds(new));
        let (a, b) = (&old.store, &new.store);
        let others = [
            ("accept_late", old.accept_late == new.accept_late),
            ("defaults", same_defaults(old, new)),
            ("hold_max", old.hold_max == new.hold_max),
            ("http.created", old.http.created == new.http.created),
            ("idle_source", old.idle_source == new.idle_source),
            ("lateness", old.lateness == new.lateness),
            ("limits", old.limits == new.limits),
            ("mapping_file", same_mappings(old, new)),
            ("max_future", old.max_future == new.max_future),
            ("name", old.name == new.name),
            ("panels", old.panels == new.panels),
            ("rules", old.rules_files == new.rules_files),
            ("store.commit_every", a.commit_every == b.commit_every),
            ("store.retention", a.tiers == b.tiers),
            ("tests", old.tests == new.tests),
        ];
        ReloadReport {
            metrics: Changes::of(
                &old.metrics,
                &new.metrics,
                |metric| &metric.name,
                |was, is| was == is && fed.get(&was.name) == feeds.get(&is.name),
            ),
            events: Changes::of(&old.typed.events, &new.typed.events, |event| &event.name, PartialEq::eq),
            pairs: Changes::of(&old.typed.pairs, &new.typed.pairs, |pair| &pair.name, PartialEq::eq),
            widgets: Changes::of(&old.widgets, &new.widgets, |widget| &widget.name, PartialEq::eq),
            sources: Changes::of(&old.sources, &new.sources, |source| &source.name, is_same_source),
            others: others.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect(),
            micros: 0,
        }
    }
}

/// The mapping file is no part of the comparison: it belongs to the rules.
fn is_same_source(a: &SourcePlan, b: &SourcePlan) -> bool {
    let is_same_kind = match (&a.kind, &b.kind) {
        (SourceKind::Socket(a), SourceKind::Socket(b)) => {
            a.listen == b.listen
                && a.mode == b.mode
                && a.group == b.group
                && a.threads == b.threads
                && a.json == b.json
                && a.mapping.is_some() == b.mapping.is_some()
        }
        (SourceKind::Host(a), SourceKind::Host(b)) => a.every == b.every && a.disk == b.disk,
        (SourceKind::Process(a), SourceKind::Process(b)) => a == b,
        (SourceKind::Gpu(a), SourceKind::Gpu(b)) => a == b,
        (SourceKind::Internal, SourceKind::Internal) => true,
        _ => false,
    };
    is_same_kind && a.enabled == b.enabled && a.labels == b.labels
}

/// The first key whose change a running pipeline does not take: what the open file is made by, and what is in the identity
/// of every series.
pub(in crate::pipeline) fn restart_key(old: &Plan, new: &Plan) -> Option<String> {
    let (a, b) = (&old.store, &new.store);
    let keys = [
        ("slice", old.slice.nanos() == new.slice.nanos()),
        ("labels", old.labels == new.labels),
        ("store.path", a.path == b.path),
        ("store.max_size", a.max_size == b.max_size),
        ("store.cache", a.cache == b.cache),
    ];
    if let Some((key, _)) = keys.into_iter().find(|(_, is_same)| !is_same) {
        return Some(key.to_owned());
    }
    if Graph::reads_apart(old) == Graph::reads_apart(new) {
        return None;
    }
    // One source decides for all of them.
    let threads = |plan: &Plan, name: &str| {
        let source = plan.sources.iter().find(|source| source.name == name && source.enabled);
        source
            .and_then(|source| if let SourceKind::Socket(socket) = &source.kind { Some(socket.threads) } else { None })
    };
    let mut names = new.sources.iter().chain(&old.sources).map(|source| source.name.as_str());
    let changed = names.find(|name| threads(old, name) != threads(new, name));
    Some(format!("sources.{}.threads", changed.unwrap_or("*")))
}

fn same_defaults(old: &Plan, new: &Plan) -> bool {
    let (a, b) = (&old.defaults.undeclared, &new.defaults.undeclared);
    old.defaults.extra_labels == new.defaults.extra_labels
        && old.window_slices == new.window_slices
        && (a.expose, a.digits, a.window_slices, a.idle, a.suffixes)
            == (b.expose, b.digits, b.window_slices, b.idle, b.suffixes)
        && a.quantiles == b.quantiles
}

/// A mapping is read again with every load, so that what counts is whether there is one.
fn same_mappings(old: &Plan, new: &Plan) -> bool {
    let has_mapping =
        |source: &SourcePlan| matches!(&source.kind, SourceKind::Socket(socket) if socket.mapping.is_some());
    !old.sources.iter().chain(&new.sources).any(has_mapping)
}
