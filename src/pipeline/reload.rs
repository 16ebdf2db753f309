//! Reload of a running pipeline: what another plan changes takes over, everything else goes on (R1, R2).
//!
//! In: a plan, or the files that the pipeline was started from, read again. Out: what changed, or why nothing did. Owns: the
//! order in which the parts take over. Invariants: sockets, connections, rings and slots are not touched, so that no sample
//! is lost or counted twice; whatever can be refused is refused before anything changes; reloads come one after another.
//!
//! The order: the registry of metrics | the store and its fold, by a message | each shard, between two batches | in-process
//! producers | the scrape. The store goes before the shards, because what a shard counts by the new rules comes behind that
//! message in the store's inbox.

use super::diagnostic::Diagnostics;
use super::graph::{Graph, keep_of, pin_declared};
use super::plan::{Plan, SourceKind, SourcePlan, Token};
use super::recording;
use crate::delta::{BucketRule, SeriesTable};
use crate::event::{Kind, Metric, Slot};
use crate::rule::typed::FeedSource;
use crate::rule::{Redeclaration, RedeclareError};
use crate::shard::ChangedBounds;
use crate::sink::scrape::{Scrape, ScrapePlan};
use crate::store::{EventsPlan, StoreReload};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

/// How long a reload waits for one part that has much to do; it takes over later then.
const PART_WAIT: Duration = Duration::from_secs(10);

/// Reads the plan of a pipeline again.
pub type Loader = Box<dyn Fn() -> Result<Plan, Diagnostics> + Send + Sync>;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files say something wrong.
    #[error("{0}")]
    Configuration(Diagnostics),
    /// Something changed that a running pipeline keeps as it is.
    #[error("needs a restart: {key} changed")]
    NeedsRestart {
        /// The key of the pipeline file.
        key: String,
    },
    /// A metric cannot be what it is declared now.
    #[error(transparent)]
    Rules(#[from] RedeclareError),
    /// The pipeline has stopped.
    #[error("the pipeline has stopped")]
    Stopped,
    /// It was started from a plan.
    #[error("the pipeline was not started from files")]
    NoFiles,
}

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
    /// Other keys that changed: `defaults`, `http.created`, `mapping_file` (read again), `panels`, `rules`, `tests`.
    pub others: Vec<&'static str>,
    /// How long it took, reading the files not included.
    pub micros: u64,
}

impl ReloadReport {
    /// True when the plan says what the one before said.
    pub fn is_empty(&self) -> bool {
        let tables = [&self.metrics, &self.events, &self.pairs, &self.widgets];
        tables.iter().all(|changes| changes.is_empty()) && self.others.is_empty()
    }

    fn of(old: &Plan, new: &Plan) -> ReloadReport {
        let feeds = |plan: &Plan| -> HashMap<String, String> {
            let mut feeds: HashMap<String, String> = HashMap::new();
            for feed in &plan.typed.feeds {
                let of_metric = feeds.entry(plan.metrics[feed.metric].name.clone()).or_default();
                of_metric.push_str(&format!("{:?}", (&feed.from, &feed.labels, &feed.when, feed.op, feed.scale)));
            }
            feeds
        };
        let (fed, feeds) = (feeds(old), feeds(new));
        let others = [
            ("defaults", !same_defaults(old, new)),
            ("http.created", old.http.created != new.http.created),
            ("mapping_file", !same_mappings(old, new)),
            ("panels", old.panels != new.panels),
            ("rules", old.rules_files != new.rules_files),
            ("tests", old.tests != new.tests),
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
            others: others.into_iter().filter(|(_, is_other)| *is_other).map(|(key, _)| key).collect(),
            micros: 0,
        }
    }
}

impl Graph {
    /// Takes another plan over.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub(super) fn reload(&self, mut plan: Plan, scrape: &Scrape) -> Result<ReloadReport, ReloadError> {
        let _one_by_one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_running() {
            return Err(ReloadError::Stopped);
        }
        let began = self.clock.monotonic();
        let old = self.plan();
        plan.built_in = old.built_in;
        keep_sources(&old, &mut plan)?;
        if let Some(key) = restart_key(&old, &plan) {
            return Err(ReloadError::NeedsRestart { key });
        }
        let mut report = ReloadReport::of(&old, &plan);
        let redeclared = self.rules.load().reload(plan.rules())?;
        // Nothing is refused from here on.
        let took_over = self.tell_store(&plan, &redeclared);
        self.tell_shards(&redeclared);
        self.rules.swap(Arc::clone(&redeclared.rules));
        pin_declared(newly_declared(&redeclared), &redeclared.rules, &self.table);
        let declared = redeclared.rules.declared();
        let group = recording::recorded(&plan, &redeclared.rules);
        *self.regroup.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
        let constant_labels = self.constant_labels();
        let created = plan.http.created;
        self.set_plan(plan);
        // What is read after this call is shown by the new words.
        if took_over.recv_timeout(PART_WAIT).is_err() {
            tracing::warn!("the store takes the reload over when it comes to it");
        }
        scrape.reload(ScrapePlan { created, declared, constant_labels });
        report.micros = u64::try_from((self.clock.monotonic() - began) / 1000).unwrap_or(0);
        Ok(report)
    }

    fn tell_store(&self, plan: &Plan, redeclared: &Redeclaration) -> mpsc::Receiver<()> {
        let (done, took_over) = mpsc::sync_channel(1);
        let changed = redeclared.changed.iter().map(|(_, metric)| metric);
        let reload = StoreReload {
            events: EventsPlan::following(redeclared.rules.typed()),
            keep: keep_of(plan),
            metrics: changed.chain(&redeclared.added).map(Arc::clone).collect(),
            retired: redeclared.retired.clone(),
        };
        self.store.reload(
            reload,
            Box::new(move || {
                // Whoever waits may have given up.
                let _ = done.send(());
            }),
        );
        took_over
    }

    /// Every shard goes over between two batches; all at once, since none waits for another.
    fn tell_shards(&self, redeclared: &Redeclaration) {
        let bounds = changed_bounds(&self.table, &redeclared.changed);
        let waits: Vec<mpsc::Receiver<()>> = self
            .shards
            .iter()
            .map(|shard| {
                let (done, took_over) = mpsc::sync_channel(1);
                let done = Box::new(move || {
                    // Whoever waits may have given up.
                    let _ = done.send(());
                });
                // A shard that is gone has stopped, and with it the pipeline.
                let _ = shard.reload(Arc::clone(&redeclared.rules), Arc::clone(&bounds), done);
                took_over
            })
            .collect();
        for took_over in waits {
            if took_over.recv_timeout(PART_WAIT).is_err() {
                tracing::warn!("a shard takes the reload over when it comes to it");
            }
        }
    }
}

/// Declared metrics that were not before.
fn newly_declared(redeclared: &Redeclaration) -> impl Iterator<Item = &Arc<Metric>> {
    let again = redeclared.changed.iter().filter(|(was, is)| !was.declared && is.declared);
    redeclared.added.iter().chain(again.map(|(_, is)| is))
}

/// The live series of metrics whose buckets changed, with the rule that counts from here on.
fn changed_bounds(table: &SeriesTable, changed: &[(Arc<Metric>, Arc<Metric>)]) -> ChangedBounds {
    let mut rules: HashMap<u32, Option<Arc<BucketRule>>> = HashMap::new();
    for (was, is) in changed.iter().filter(|(_, is)| is.kind == Kind::Distribution) {
        let is_same = match (&was.buckets, &is.buckets) {
            (None, None) => true,
            (Some(was), Some(is)) => Arc::ptr_eq(was, is),
            _ => false,
        };
        if !is_same {
            let rule = is.buckets.as_ref().map(|buckets| Arc::new(BucketRule::new(Arc::clone(buckets), is.digits)));
            rules.insert(is.id.0, rule);
        }
    }
    if rules.is_empty() {
        return Arc::default();
    }
    let mut bounds: Vec<(Slot, Option<Arc<BucketRule>>)> = Vec::new();
    let table = table.lock();
    for entry in table.of_kind(Kind::Distribution) {
        if let Some(rule) = rules.get(&entry.metric.id.0) {
            bounds.push((entry.slot, rule.clone()));
        }
    }
    bounds.into()
}

/// Sources are matched by name and keep their places, which is what samples under way name.
fn keep_sources(old: &Plan, new: &mut Plan) -> Result<(), ReloadError> {
    let needs = |name: &str| ReloadError::NeedsRestart { key: format!("sources.{name}") };
    let mut kept = Vec::with_capacity(old.sources.len());
    for source in &old.sources {
        let at = new.sources.iter().position(|other| other.name == source.name);
        let other = new.sources.swap_remove(at.ok_or_else(|| needs(&source.name))?);
        if !is_same_source(source, &other) {
            return Err(needs(&source.name));
        }
        kept.push(other);
    }
    if let Some(added) = new.sources.first() {
        return Err(needs(&added.name));
    }
    new.sources = kept;
    Ok(())
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

/// The first key whose change a running pipeline does not take.
fn restart_key(old: &Plan, new: &Plan) -> Option<String> {
    let is_same_token = match (&old.http.token, &new.http.token) {
        (None, None) => true,
        (Some(Token::Value(a)), Some(Token::Value(b))) => a == b,
        (Some(Token::File(a)), Some(Token::File(b))) => a == b,
        _ => false,
    };
    let (a, b) = (&old.store, &new.store);
    let keys = [
        ("name", old.name == new.name),
        ("slice", old.slice.nanos() == new.slice.nanos()),
        ("lateness", old.lateness == new.lateness),
        ("accept_late", old.accept_late == new.accept_late),
        ("max_future", old.max_future == new.max_future),
        ("idle_source", old.idle_source == new.idle_source),
        ("hold_max", old.hold_max == new.hold_max),
        ("labels", old.labels == new.labels),
        ("limits", old.limits == new.limits),
        ("store.path", a.path == b.path),
        ("store.commit_every", a.commit_every == b.commit_every),
        ("store.tiers", a.tiers == b.tiers),
        ("store.max_size", a.max_size == b.max_size),
        ("store.cache", a.cache == b.cache),
        ("http.listen", old.http.listen == new.http.listen),
        ("http.token", is_same_token),
    ];
    if let Some((key, _)) = keys.into_iter().find(|(_, is_same)| !is_same) {
        return Some(key.to_owned());
    }
    // Collectors look their metrics up when they start.
    let (fed, feeds) = (collected(old), collected(new));
    let other = feeds.iter().find(|feed| !fed.contains(feed)).or_else(|| fed.iter().find(|feed| !feeds.contains(feed)));
    other.map(|(metric, ..)| format!("metrics.{metric}.from (a source)"))
}

/// What metrics take from collectors.
fn collected(plan: &Plan) -> Vec<(String, String)> {
    let of_source = plan.typed.feeds.iter().filter(|feed| matches!(feed.from, FeedSource::Source { .. }));
    of_source
        .map(|feed| {
            let metric = plan.metrics[feed.metric].name.clone();
            let rest = format!("{:?}", (&feed.from, &feed.labels, feed.scale));
            (metric, rest)
        })
        .collect()
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
