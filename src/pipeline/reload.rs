//! Reload of a running pipeline: what another plan changes takes over, everything else goes on (R1, R2).
//!
//! In: a plan, or the files that the pipeline was started from, read again. Out: what changed, or why nothing did. Owns: the
//! order in which the parts take over. Invariants: what both plans say keeps its sockets, connections, rings and slots, so
//! that no sample is lost or counted twice; whatever can be refused is refused before anything changes, new sockets are
//! bound before that; reloads come one after another.
//!
//! The order: new sockets are bound, and those of whatever follows the plan | the registry of metrics | the store and its
//! fold, by a message | each shard, between two batches | in-process producers | sockets come and go | collectors | the
//! scrape, and what follows. The store goes before the shards, because what a shard counts by the new rules comes behind
//! that message in the store's inbox; shards go before sockets, because a new source is read by the new rules.

mod report;

pub(super) use report::restart_key;
pub use report::{Changes, ReloadReport};

use super::diagnostic::Diagnostics;
use super::graph::{Graph, Listeners, StartError, acceptance, cache_bytes, pin_declared, store_limits};
use super::memory::body_bytes;
use super::plan::Plan;
use super::recording;
use super::roster::Roster;
use crate::delta::{BucketRule, SeriesTable};
use crate::event::{Kind, Metric, Slot};
use crate::record::Recorded;
use crate::rule::{Redeclaration, RedeclareError, Rules, RulesConfig};
use crate::shard::{ChangedBounds, ShardReload};
use crate::sink::scrape::{Scrape, ScrapePlan};
use crate::store::{EventsPlan, StoreReload};
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError, mpsc};
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
    /// A new socket cannot be bound, or a file cannot be given to whom the plan says.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What follows the pipeline's plan cannot follow this one.
    #[error("{0}")]
    Follower(String),
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

/// Something beside the pipeline that follows its plan: the HTTP front.
pub trait Follower: Send + Sync {
    /// Takes hold of everything that the next plan needs. Nothing changes before `apply` is called; when it is dropped
    /// instead, everything is let go again.
    ///
    /// # Errors
    /// Why the plan cannot be followed, for a person; then it is not taken over.
    fn prepare(&self, was: &Plan, is: &Plan) -> Result<Prepared, String>;
}

/// What a [`Follower`] is ready to do.
pub struct Prepared {
    /// Keys that change by it.
    pub changed: Vec<&'static str>,
    /// Does it.
    pub apply: Box<dyn FnOnce() + Send>,
}

impl Graph {
    /// Takes another plan over.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub(super) fn reload(
        &self,
        mut plan: Plan,
        accept: &[String],
        scrape: &Scrape,
    ) -> Result<ReloadReport, ReloadError> {
        let _one_by_one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_running() {
            return Err(ReloadError::Stopped);
        }
        let began = self.clock.monotonic();
        let old = self.plan();
        plan.built_in = old.built_in;
        if let Some(key) = restart_key(&old, &plan) {
            return Err(ReloadError::NeedsRestart { key });
        }
        let too_many =
            || ReloadError::NeedsRestart { key: "sources (too many different names since the start)".into() };
        let roster = self.roster().following(&plan).ok_or_else(too_many)?;
        let sockets = self.listeners().prepare(&plan, &roster)?;
        let prepared = self.follower.get().map(|follower| follower.prepare(&old, &plan)).transpose();
        let prepared = prepared.map_err(ReloadError::Follower)?;
        let takeover = self.take_over(&old, &plan, &roster, accept)?;
        // Nothing is refused from here on.
        let Takeover { mut report, redeclared, store, shard, recorded } = takeover;
        let took_over = self.tell_store(store);
        self.tell_shards(&shard);
        self.rules.swap(Arc::clone(&redeclared.rules));
        self.set_roster(roster.clone());
        pin_declared(newly_declared(&redeclared), &redeclared.rules, &self.table);
        *self.regroup.lock().unwrap_or_else(PoisonError::into_inner) = Some((recorded, plan.lateness));
        let has_left = sockets.takes_away();
        let followed = self.listeners().follow(sockets);
        self.collect(&plan, &roster);
        let (declared, created) = (redeclared.rules.declared(), plan.http.created);
        let bytes_max = Some(body_bytes(&plan));
        self.set_plan(plan);
        // What is read after this call is shown by the new words.
        if took_over.recv_timeout(PART_WAIT).is_err() {
            tracing::warn!("the store takes the reload over when it comes to it");
        }
        self.worlds.declare(declared.iter().cloned(), self.constant_labels(), self.clock.wall());
        scrape.reload(ScrapePlan { created, declared, constant_labels: self.constant_labels(), bytes_max });
        if let Some(prepared) = prepared {
            report.others.extend(prepared.changed);
            report.others.sort_unstable();
            (prepared.apply)();
        }
        for followed in followed {
            // A reactor that is gone has stopped, and with it the pipeline.
            let _ = followed.recv_timeout(PART_WAIT);
        }
        if has_left {
            self.commit_what_came();
        }
        report.micros = u64::try_from((self.clock.monotonic() - began) / 1000).unwrap_or(0);
        Ok(report)
    }

    /// Compiles the next rules. Where series may have to be retired that happens on the store's thread, since until the
    /// rules stand no series may get an id under a name that changes its meaning.
    fn take_over(
        &self,
        old: &Arc<Plan>,
        plan: &Plan,
        roster: &Roster,
        accept: &[String],
    ) -> Result<Takeover, ReloadError> {
        if accept.is_empty() {
            let nobody = |_: &[Arc<Metric>]| Err("nothing was accepted".to_owned());
            return Takeover::prepare(old, plan, roster, &self.rules.load(), &self.table, accept, nobody);
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let (old, plan, roster, accept) = (Arc::clone(old), plan.clone(), roster.clone(), accept.to_vec());
        let (rules, table) = (self.rules.load(), Arc::clone(&self.table));
        self.store.within(Box::new(move |store| {
            let retire = |metrics: &[Arc<Metric>]| store.retire_metrics(metrics).map_err(|error| error.to_string());
            // Whoever asked waits for as long as it takes.
            let _ = reply.send(Takeover::prepare(&old, &plan, &roster, &rules, &table, &accept, retire));
        }));
        answer.recv().unwrap_or(Err(ReloadError::Stopped))
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What sources that left have received is durable when their reload returns, unless the store cannot commit now.
    fn commit_what_came(&self) {
        let (reply, answer) = mpsc::sync_channel(1);
        self.store.flush(Box::new(move |commit| {
            // Whoever waits may have given up.
            let _ = reply.send(commit);
        }));
        if !matches!(answer.recv_timeout(PART_WAIT), Ok(Some(_))) {
            tracing::warn!("what a removed listener received waits for the store");
        }
    }

    fn tell_store(&self, reload: StoreReload) -> mpsc::Receiver<()> {
        let (done, took_over) = mpsc::sync_channel(1);
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
    fn tell_shards(&self, what: &ShardReload) {
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
                let _ = shard.reload(what.clone(), done);
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

/// Everything that the parts of a pipeline are told, made and not yet told.
pub(super) struct Takeover {
    pub(super) report: ReloadReport,
    pub(super) redeclared: Redeclaration,
    pub(super) store: StoreReload,
    pub(super) shard: ShardReload,
    pub(super) recorded: Vec<Recorded>,
}

impl Takeover {
    /// Compiles the rules of another plan, which is the last step that can be refused: whoever asks for a metric gets its
    /// new words from here on. `accept` and `retire` as in [`Rules::reload`].
    pub(super) fn prepare(
        old: &Plan,
        plan: &Plan,
        roster: &Roster,
        rules: &Rules,
        table: &SeriesTable,
        accept: &[String],
        retire: impl FnOnce(&[Arc<Metric>]) -> Result<(), String>,
    ) -> Result<Takeover, ReloadError> {
        let config =
            RulesConfig { mappings: roster.mappings(plan.slice), source_labels: roster.labels(), ..plan.rules() };
        let redeclared = rules.reload(config, accept, retire)?;
        table.set_limits(plan.limits.of_table());
        let changed = redeclared.changed.iter().map(|(_, metric)| metric);
        let store = StoreReload {
            events: EventsPlan::following(redeclared.rules.typed(), plan.limits.pairs),
            limits: store_limits(plan),
            commit_every: plan.store.commit_every,
            cells: usize::try_from(plan.limits.cells).unwrap_or(usize::MAX),
            sources: roster.codecs(),
            metrics: changed.chain(&redeclared.added).map(Arc::clone).collect(),
            retired: redeclared.retired.clone(),
        };
        let shard = ShardReload {
            rules: Arc::clone(&redeclared.rules),
            bounds: changed_bounds(table, &redeclared.changed),
            json: roster.json_options(),
            acceptance: acceptance(plan),
            cache_bytes: cache_bytes(plan),
        };
        let recorded = recording::recorded(plan, &redeclared.rules);
        Ok(Takeover { report: ReloadReport::of(old, plan), redeclared, store, shard, recorded })
    }
}

/// Declared metrics that were not before.
pub(super) fn newly_declared(redeclared: &Redeclaration) -> impl Iterator<Item = &Arc<Metric>> {
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
