//! The running graph: started from the sinks up, stopped from the sources down.
//!
//! In: a [`Plan`]. Out: running threads, and the ends that the rest of the program holds. Owns: every
//! thread of the pipeline. Invariants: what was accepted before a stop is committed before it returns; a
//! panic in any actor is remembered and ends the whole (one for all).

mod listeners;

use super::collect::{self, Collectors, Regroup};
use super::paths::{self, Environment, PathError};
use super::plan::{Listener, Plan, ReaderThreads, SourceKind, SourcePlan, StorePath};
use super::recording;
use super::reload::Loader;
use crate::actor::{Failures, Thread, spawn};
use crate::channel::{Waker, bounded};
use crate::delta::epoch::{ReplayPort, SealSink, ShardPort};
use crate::delta::{SeriesTable, SourceTally, TableLimits};
use crate::event::{Clock, CommitId, Labels, LabelsBuilder, Metric, ShardIndex, SourceIndex};
use crate::query::world::Worlds;
use crate::record::Recorder;
use crate::rule::{Rules, SharedRules};
use crate::shard::ring::RingPolicy;
use crate::shard::{Acceptance, Decoder, JsonOptions, RecentRejects, Shard, ShardHandle};
use crate::source::inproc::{Producers, RING_CAPACITY};
use crate::source::listener::{BindError, BoundListener, FileAccess, ListenerSpec, bind, warn_of_short_datagram_queue};
use crate::source::reactor::Reactor;
use crate::source::shard_loop::{Buffers, ShardLoop};
use crate::source::split::{ShardInbox, SplitReader};
use crate::store::{
    EventsPlan, Ledger, LedgerConfig, LedgerPath, Store, StoreActor, StoreError, StoreHandle, StoreLimits,
    store_channel,
};
use crate::view::{View, view};
use listeners::bind_all;
use rustix::event::{PollFd, PollFlags, poll};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;

/// Buffers of 64 KiB that may wait for a shard from its readers: 2 MiB.
const READER_QUEUE: usize = 32;
/// From this many cores on readers have threads of their own, unless the file says otherwise.
const SPLIT_CORES: usize = 4;
/// Raw keys that a decoder may keep for each series of the limit.
const CACHE_BYTES_PER_SERIES: usize = 256;
/// How long a stop waits for the sockets to be drained.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// Why a pipeline could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A path cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener cannot be bound.
    #[error("source {source_name}: {error}")]
    Bind {
        /// The source.
        source_name: String,
        /// Why.
        error: BindError,
    },
    /// Not one listener of the built-in default could be bound.
    #[error("no listener could be bound: {0}")]
    NoListener(String),
    /// Two declared metrics clash.
    #[error("metric {0:?} clashes with an earlier one")]
    Rules(String),
    /// Threads or descriptors are used up.
    #[error("cannot start a thread: {0}")]
    System(#[from] std::io::Error),
}

/// A listener as it came out of the start.
#[derive(Clone, Debug)]
pub struct ListenerState {
    /// Its source.
    pub source: String,
    /// What was asked for.
    pub asked: String,
    /// The kind of socket: `unixgram`, `unixstream`, `udp`, `tcp`.
    pub kind: &'static str,
    /// Where it is; the actual port.
    pub address: String,
    /// The line to paste into a client; empty when skipped.
    pub client: String,
    /// Why it was skipped; `None` when bound.
    pub skipped: Option<String>,
}

/// What a pipeline did, at its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// True when everything accepted is durable.
    pub is_complete: bool,
    /// The last commit.
    pub last_commit: CommitId,
    /// What each source did since the start, by name.
    pub sources: Vec<(String, SourceTally)>,
    /// Of these, the sources of types `internal` and `host`, which nobody feeds.
    pub own: Vec<String>,
    /// Bytes of the store's file.
    pub store_bytes: u64,
    /// An actor that panicked.
    pub failure: Option<String>,
}

impl Report {
    /// The sum over the sources that people feed: all but those of types `internal` and `host`.
    pub fn fed(&self) -> SourceTally {
        let mut sum = SourceTally::default();
        for (_, tally) in self.sources.iter().filter(|(name, _)| !self.own.contains(name)) {
            sum.merge(tally);
        }
        sum
    }
}

/// Everything that runs.
pub(super) struct Graph {
    plan: RwLock<Arc<Plan>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: Arc<SharedRules>,
    pub(super) table: Arc<SeriesTable>,
    pub(super) view: View,
    pub(super) worlds: Arc<Worlds>,
    /// The next group of recorded expressions, until the recorder takes it.
    pub(super) regroup: Regroup,
    pub(super) store: StoreHandle,
    pub(super) shards: Vec<ShardHandle>,
    pub(super) recent: Arc<RecentRejects>,
    pub(super) producers: Arc<Producers>,
    pub(super) listeners: Vec<ListenerState>,
    pub(super) store_path: Option<PathBuf>,
    pub(super) is_new_store: bool,
    /// Names by source index.
    pub(super) sources: Vec<String>,
    pub(super) failures: Failures,
    pub(super) started_at: crate::event::Timestamp,
    running: Mutex<Option<Running>>,
    /// Held while another plan takes over.
    pub(super) reloading: Mutex<()>,
    /// How its files are read again.
    pub(super) loader: OnceLock<Loader>,
}

/// What a stop takes down, in this order.
struct Running {
    collectors: Collectors,
    draining: Arc<AtomicBool>,
    reader_stop: Arc<AtomicBool>,
    reader_wakers: Vec<Waker>,
    readers: Vec<Thread>,
    drained: Arc<AtomicUsize>,
    shards: Vec<Thread>,
    store: Thread,
}

/// The source of in-process producers and the one of `POST /api/v1/lines`, behind those of the plan.
pub(super) const IN_PROCESS: &str = "process";
pub(super) const HTTP_LINES: &str = "http";

impl Graph {
    pub(super) fn source_index(&self, name: &str) -> SourceIndex {
        let at = self.sources.iter().position(|known| known == name).unwrap_or(0);
        SourceIndex(at as u16)
    }

    /// The plan that it runs by now.
    pub(super) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_plan(&self, plan: Plan) {
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
    }

    /// False once a stop began.
    pub(super) fn is_running(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn constant_labels(&self) -> Labels {
        let plan = self.plan();
        let mut constant = LabelsBuilder::new();
        for (key, value) in &plan.labels {
            constant.push(key.as_str(), value.as_str());
        }
        constant.build().unwrap_or_default()
    }

    /// Metrics that met a limit, with how often and the label that has the most values.
    pub(super) fn overflows(&self) -> Vec<(String, u64, String)> {
        let table = self.table.lock();
        let mut all: Vec<_> = table
            .overflowed()
            .iter()
            .map(|(metric, count)| (metric.name.to_string(), *count, table.widest_label(metric).unwrap_or_default()))
            .collect();
        all.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
        all
    }

    /// Starts everything.
    pub(super) fn start(plan: Plan, environment: &Environment, clock: Arc<dyn Clock>) -> Result<Graph, StartError> {
        let now = clock.wall();
        let rules = Arc::new(Rules::new(plan.rules()).map_err(StartError::Rules)?);
        let mut constant = LabelsBuilder::new();
        for (key, value) in &plan.labels {
            constant.push(key.as_str(), value.as_str());
        }
        let constant = constant.build().map_err(|reason| StartError::Rules(reason.to_string()))?;
        let limits = TableLimits { series: plan.limits.series, series_per_metric: plan.limits.series_per_metric };
        let table = Arc::new(SeriesTable::new(limits, constant));
        let (bound, listeners) = bind_all(&plan, environment)?;
        let cells = usize::try_from(plan.limits.cells).unwrap_or(usize::MAX);
        let (fold, view) = view(Arc::clone(&table), plan.slice, cells);
        let (ledger_config, store_path) = ledger_config(&plan, environment)?;
        let is_new_store = store_path.as_ref().is_none_or(|path| !path.exists());
        let ledger = Ledger::open(&ledger_config, now)?;
        let worlds = Arc::new(Worlds::new(view.clone(), ledger.reader()));
        let mut sources: Vec<String> = plan.sources.iter().map(|source| source.name.clone()).collect();
        sources.push(IN_PROCESS.into());
        sources.push(HTTP_LINES.into());
        let in_process = SourceIndex(sources.len() as u16 - 2);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shard_count = cores.clamp(1, 64);
        let store_limits = StoreLimits {
            slice: plan.slice,
            lateness: plan.lateness,
            hold_max: plan.hold_max,
            keep: keep_of(&plan),
            pending: usize::try_from(plan.limits.pending).unwrap_or(usize::MAX),
        };
        pin_declared(&rules.declared(), &rules, &table);
        let mut store = Store::recover(
            ledger,
            Box::new(fold),
            Arc::clone(&table),
            &rules,
            with_codecs(&plan, &sources),
            store_limits,
            shard_count,
            now,
        )?;
        store.set_plan(EventsPlan::of(&plan.typed));
        let (handle, inbox) = store_channel();
        let recent = Arc::new(RecentRejects::new());
        let failures = Failures::new();
        let acceptance = Acceptance { slice: plan.slice, accept_late: plan.accept_late, max_future: plan.max_future };
        let cache_bytes = (plan.limits.series as usize).saturating_mul(CACHE_BYTES_PER_SERIES).max(16 << 20);
        let json: Arc<[JsonOptions]> = plan.sources.iter().map(json_options).collect();
        let mut shards = Vec::new();
        let mut handles = Vec::new();
        for index in 0..shard_count {
            let mut decoder = Decoder::new(
                Arc::clone(&rules),
                Arc::clone(&table),
                Arc::clone(&recent),
                acceptance,
                hash_seed(now.0, index),
                cache_bytes,
            );
            decoder.set_json_options(Arc::clone(&json));
            let sink: Arc<dyn SealSink> = Arc::new(handle.clone());
            let (shard, shard_handle) = Shard::new(ShardIndex(index as u16), decoder, sink, now)?;
            shards.push(shard);
            handles.push(shard_handle);
        }
        let ports: Vec<Arc<dyn ShardPort>> =
            handles.iter().map(|handle| Arc::new(handle.clone()) as Arc<dyn ShardPort>).collect();
        let replays: Vec<Arc<dyn ReplayPort>> = Vec::new();
        let actor = StoreActor::new(
            store,
            inbox,
            handle.clone(),
            ports,
            replays,
            Arc::clone(&clock),
            plan.slice,
            plan.store.commit_every,
        );
        let store_thread = spawn("store", &failures, move || actor.run())?;
        let draining = Arc::new(AtomicBool::new(false));
        let drained = Arc::new(AtomicUsize::new(0));
        let is_split = is_split(&plan, cores);
        let (split, fused) = if is_split { (bound, Vec::new()) } else { (Vec::new(), bound) };
        let reader_stop = Arc::new(AtomicBool::new(false));
        let mut inboxes = Vec::new();
        let reader_count = if is_split { (cores / 4).clamp(1, 4) } else { 0 };
        let mut recyclers = Vec::new();
        let mut empties = Vec::new();
        for _ in 0..reader_count {
            let (sender, receiver) = bounded(READER_QUEUE * shard_count);
            recyclers.push(receiver);
            empties.push(sender);
        }
        let mut per_shard: Vec<Vec<(SourceIndex, BoundListener)>> = vec![Vec::new(); shard_count];
        for (at, listener) in fused.into_iter().enumerate() {
            per_shard[at % shard_count].push(listener);
        }
        let mut shard_threads = Vec::new();
        for (index, (shard, listeners)) in shards.into_iter().zip(per_shard).enumerate() {
            let buffers = if is_split {
                let (sender, filled) = bounded(READER_QUEUE);
                inboxes.push(ShardInbox { buffers: sender, waker: shard.waker().clone() });
                Some(Buffers { filled, empty: empties.clone() })
            } else {
                None
            };
            let waker = shard.waker().clone();
            let reactor = Reactor::new(Arc::clone(&clock), index as u16, waker.clone(), listeners)?;
            let work = ShardLoop::new(shard, buffers, Arc::clone(&draining), now);
            let (drained, clock) = (Arc::clone(&drained), Arc::clone(&clock));
            shard_threads.push(spawn(&format!("shard-{index}"), &failures, move || {
                run_shard(work, reactor, &waker, &drained, &*clock);
            })?);
        }
        let mut readers = Vec::new();
        let mut reader_wakers = Vec::new();
        for (index, recycler) in recyclers.into_iter().enumerate() {
            let waker = Waker::new()?;
            // Every reader polls every socket; the kernel wakes one (EPOLLEXCLUSIVE).
            let reactor = Reactor::new(Arc::clone(&clock), index as u16, waker.clone(), split.clone())?;
            let inboxes = inboxes
                .iter()
                .map(|inbox| ShardInbox { buffers: inbox.buffers.clone(), waker: inbox.waker.clone() })
                .collect();
            let mut reader = SplitReader::new(index as u16, inboxes, recycler, Arc::clone(&reader_stop));
            readers.push(spawn(&format!("reader-{index}"), &failures, move || {
                if let Err(error) = reactor.run(&mut reader) {
                    tracing::error!(%error, "a reader stopped");
                }
                reader.finish();
            })?);
            reader_wakers.push(waker);
        }
        let shared_rules = Arc::new(SharedRules::new(Arc::clone(&rules)));
        let producers = |source: SourceIndex| {
            let producers = Producers::new(
                Arc::clone(&shared_rules),
                Arc::clone(&table),
                handles.clone(),
                Arc::clone(&clock),
                source,
                RING_CAPACITY,
                RingPolicy::Block,
            );
            Arc::new(producers.with_recent(Arc::clone(&recent)))
        };
        let mut collectors = collect::start(&plan, &producers, &handle, &rules, &table, &clock, &failures)?;
        let group = recording::recorded(&plan, &rules);
        let recorder = Recorder::new(Arc::clone(&worlds), group, recording::constant_names(&plan), plan.lateness);
        let regroup = Regroup::default();
        collectors.record(recorder, Arc::clone(&regroup), view.clone(), handles[0].clone(), &failures)?;
        let running = Running {
            collectors,
            draining,
            reader_stop,
            reader_wakers,
            readers,
            drained,
            shards: shard_threads,
            store: store_thread,
        };
        Ok(Graph {
            producers: producers(in_process),
            plan: RwLock::new(Arc::new(plan)),
            clock,
            rules: shared_rules,
            table,
            view,
            worlds,
            regroup,
            store: handle,
            shards: handles,
            recent,
            listeners,
            store_path,
            is_new_store,
            sources,
            failures,
            started_at: now,
            running: Mutex::new(Some(running)),
            reloading: Mutex::default(),
            loader: OnceLock::new(),
        })
    }

    /// Drains what was accepted, commits it, ends every thread. A second call reports again.
    pub(super) fn stop(&self, timeout: Duration) -> Report {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut is_complete = false;
        if let Some(running) = running {
            let deadline = self.clock.monotonic() + timeout.as_nanos() as i64;
            let remaining = || Duration::from_nanos((deadline - self.clock.monotonic()).max(0) as u64);
            running.collectors.stop();
            running.reader_stop.store(true, Ordering::Release);
            running.reader_wakers.iter().for_each(Waker::wake);
            running.readers.into_iter().for_each(Thread::join);
            running.draining.store(true, Ordering::Release);
            self.shards.iter().for_each(|shard| shard.waker().wake());
            let wait = remaining().min(DRAIN_WAIT);
            let until = self.clock.monotonic() + wait.as_nanos() as i64;
            while running.drained.load(Ordering::Acquire) < running.shards.len() && self.clock.monotonic() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            let (reply, answer) = mpsc::sync_channel(1);
            self.store.stop(Box::new(move |commit| {
                // Whoever waits may have given up.
                let _ = reply.send(commit);
            }));
            is_complete = matches!(answer.recv_timeout(remaining().max(Duration::from_millis(100))), Ok(Some(_)));
            self.shards.iter().for_each(ShardHandle::stop);
            running.shards.into_iter().for_each(Thread::join);
            if is_complete {
                running.store.join();
            }
        }
        let status = self.store.status();
        let mut tallies = status.tallies;
        tallies.resize_with(self.sources.len(), SourceTally::default);
        let plan = self.plan();
        Report {
            is_complete,
            last_commit: status.last_commit,
            sources: self.sources.iter().cloned().zip(tallies).collect(),
            own: self.sources.iter().filter(|name| !plan.is_fed(name)).cloned().collect(),
            store_bytes: status.file_bytes,
            failure: self.failures.first(),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(10));
    }
}

/// Where a source's events have their keys.
pub(super) fn json_options(source: &SourcePlan) -> JsonOptions {
    match &source.kind {
        SourceKind::Socket(socket) => socket.json.clone(),
        _ => JsonOptions::default(),
    }
}

/// A shard's thread: reads until it is to stop, then goes on answering seals until it is told to end.
fn run_shard(
    mut work: ShardLoop,
    reactor: Reactor<Arc<dyn Clock>>,
    waker: &Waker,
    drained: &AtomicUsize,
    clock: &dyn Clock,
) {
    if let Err(error) = reactor.run(&mut work) {
        tracing::error!(%error, "a shard's sockets stopped");
    }
    drained.fetch_add(1, Ordering::AcqRel);
    while !work.has_ended() {
        waker.reset();
        work.idle_turn(clock.wall());
        if !work.has_ended() {
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            // An interrupted or failed wait only means one more turn.
            let _ = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&timeout));
        }
    }
}

fn is_split(plan: &Plan, cores: usize) -> bool {
    let modes = plan.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Socket(socket) if source.enabled => Some(socket.threads),
        _ => None,
    });
    let mut is_split = cores >= SPLIT_CORES;
    for mode in modes {
        match mode {
            ReaderThreads::Fused => return false,
            ReaderThreads::Split => is_split = true,
            ReaderThreads::Auto => {}
        }
    }
    is_split
}

/// The codec of each source: the word of `hydrograph_events_received_total{codec}`.
pub(super) fn with_codecs(plan: &Plan, sources: &[String]) -> Vec<(String, &'static str)> {
    let codec = |at: usize, name: &String| match plan.sources.get(at).map(|source| &source.kind) {
        Some(SourceKind::Socket(_)) => "dogstatsd",
        None if name == HTTP_LINES => "dogstatsd",
        _ => "call",
    };
    sources.iter().enumerate().map(|(at, name)| (name.clone(), codec(at, name))).collect()
}

/// Closed slices are kept as long as the longest window and late samples need them; tiers of history come
/// with the pages.
pub(super) fn keep_of(plan: &Plan) -> i64 {
    let widest = plan.metrics.iter().map(|metric| metric.window_slices).chain([plan.window_slices]).max();
    let window = i64::from(widest.unwrap_or(1) + 1) * plan.slice.nanos();
    plan.store.keep().min(plan.accept_late.max(window)).max(window)
}

/// Declared metrics without labels exist from the first scrape.
pub(super) fn pin_declared<'m>(
    declared: impl IntoIterator<Item = &'m Arc<Metric>>,
    rules: &Rules,
    table: &SeriesTable,
) {
    for metric in declared {
        if metric.label_names.as_ref().is_some_and(|names| names.is_empty())
            && let Ok(labels) = rules.labels_of(metric, &[])
        {
            table.intern_pinned(metric, &labels);
        }
    }
}

fn ledger_config(plan: &Plan, environment: &Environment) -> Result<(LedgerConfig, Option<PathBuf>), StartError> {
    let (path, file) = match &plan.store.path {
        StorePath::Memory => (LedgerPath::Memory(usize::try_from(plan.store.max_size).unwrap_or(usize::MAX)), None),
        StorePath::File(written) => {
            let (path, directory) = paths::store_path(written, environment)?;
            if let Some(directory) = directory {
                directory.create(environment)?;
            }
            (LedgerPath::File(path.clone()), Some(path))
        }
    };
    let mut config = LedgerConfig::new(path, plan.slice.nanos());
    config.cache_bytes = plan.store.cache;
    Ok((config, file))
}

/// A different seed for every decoder and start, so that nobody can prepare colliding keys. The address of
/// a fresh allocation and the clock are what std offers without a generator of random numbers.
fn hash_seed(now: i64, index: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_i64(now);
    hasher.write_usize(index);
    hasher.finish() | 1
}
