//! The running graph: started from the sinks up, stopped from the sources down.
//!
//! In: a [`Plan`]. Out: running threads, and the ends that the rest of the program holds. Owns: every
//! thread of the pipeline. Invariants: what was accepted before a stop is committed before it returns; a
//! panic in any actor is remembered and ends the whole (one for all).

mod listeners;
mod settings;

use super::collectors::{Collectors, Kit, Regroup};
use super::memory::key_caches_bytes;
use super::overflow::Overflows;
use super::paths::{self, Environment, PathError};
use super::plan::{Listener, Plan, ReaderThreads, SocketPlan, SourceKind, SourcePlan, StorePath};
use super::reload::{Follower, Loader};
use super::roster::Roster;
use super::tap::TappedFold;
use super::{holds, recording};
use crate::actor::{Failures, Thread, spawn};
use crate::channel::{Waker, bounded};
use crate::delta::epoch::{ReplayPort, SealSink, ShardPort};
use crate::delta::{SeriesTable, SourceTally};
use crate::event::{Clock, CommitId, Labels, LabelsBuilder, Metric, ShardIndex, SourceIndex};
use crate::query::world::Worlds;
use crate::record::Recorder;
use crate::rule::{Rules, SharedRules};
use crate::shard::{Acceptance, Decoder, RecentRejects, Shard, ShardHandle};
use crate::source::inproc::Producers;
use crate::source::listener::{BindError, BoundListener, FileAccess, ListenerSpec, bind, warn_of_short_datagram_queue};
use crate::source::reactor::Reactor;
use crate::source::shard_loop::{Buffers, ShardLoop};
use crate::source::split::{ShardInbox, SplitReader};
use crate::store::{
    EventsPlan, Ledger, LedgerConfig, LedgerPath, RESOLUTION_MAX, SeriesDef, Store, StoreActor, StoreError,
    StoreHandle, StoreLimits, TierPlan, store_channel, store_worker,
};
use crate::view::{View, view};
pub(super) use listeners::Listeners;
use rustix::event::{PollFd, PollFlags, poll};
pub(super) use settings::{acceptance, cache_bytes, pin_declared, store_limits};
use settings::{ledger_config, retire_accepted};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Duration;

/// Buffers of 64 KiB that may wait for a shard from its readers: 2 MiB.
const READER_QUEUE: usize = 32;
/// From this many cores on readers have threads of their own, unless the file says otherwise.
const SPLIT_CORES: usize = 4;
/// How long a stop waits for the sockets to be drained.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// What the store may take beyond its patience: an attempt that is under way, and closing the file.
const STORE_END: Duration = Duration::from_secs(2);

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
    /// An accepted name is none of a declared metric.
    #[error("--accept {0}: no metric of the pipeline file has this name")]
    Accept(String),
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
    /// What each source was accepted beyond that and was never committed; its recorded samples were still in flight.
    pub uncommitted: Vec<(String, SourceTally)>,
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
        self.sum(&self.sources)
    }

    /// What of these sources was never committed.
    pub fn fed_uncommitted(&self) -> SourceTally {
        self.sum(&self.uncommitted)
    }

    fn sum(&self, tallies: &[(String, SourceTally)]) -> SourceTally {
        let mut sum = SourceTally::default();
        for (_, tally) in tallies.iter().filter(|(name, _)| !self.own.contains(name)) {
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
    pub(super) listeners: Mutex<Listeners>,
    pub(super) store_path: Option<PathBuf>,
    pub(super) is_new_store: bool,
    /// The sources by their numbers.
    roster: RwLock<Arc<Roster>>,
    pub(super) failures: Failures,
    pub(super) started_at: crate::event::Timestamp,
    running: Mutex<Option<Running>>,
    /// Held while another plan takes over.
    pub(super) reloading: Mutex<()>,
    /// How its files are read again.
    pub(super) loader: OnceLock<Loader>,
    /// What follows its plan.
    pub(super) follower: OnceLock<Arc<dyn Follower>>,
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
    /// Ends once the store has.
    history: Thread,
}

impl Graph {
    /// The sources that there have been so far.
    pub(super) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_roster(&self, roster: Roster) {
        *self.roster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
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

    /// Collectors begin and end as a plan says.
    pub(super) fn collect(&self, plan: &Plan, roster: &Roster) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_mut()
            && let Err(error) = running.collectors.follow(plan, roster)
        {
            tracing::error!(%error, "a collector has no thread");
        }
    }

    /// True when threads of their own read the sockets.
    pub(super) fn reads_apart(plan: &Plan) -> bool {
        is_split(plan, std::thread::available_parallelism().map_or(1, usize::from))
    }

    pub(super) fn constant_labels(&self) -> Labels {
        let plan = self.plan();
        let mut constant = LabelsBuilder::new();
        for (key, value) in &plan.labels {
            constant.push(key.as_str(), value.as_str());
        }
        constant.build().unwrap_or_default()
    }

    /// The metrics that met a limit most often.
    pub(super) fn overflows(&self, worst: usize) -> Overflows {
        Overflows::of(&self.table.lock(), worst)
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
        let table = Arc::new(SeriesTable::new(plan.limits.of_table(), constant.clone()));
        let roster = Roster::new(&plan);
        let mut listeners = Listeners::bind(&plan, &roster, environment)?;
        let cells = usize::try_from(plan.limits.cells).unwrap_or(usize::MAX);
        let (fold, view) = view(Arc::clone(&table), plan.slice, cells);
        let (ledger_config, store_path) = ledger_config(&plan, environment)?;
        let is_new_store = store_path.as_ref().is_none_or(|path| !path.exists());
        let mut ledger = Ledger::open(&ledger_config, now)?;
        retire_accepted(&plan, &mut ledger)?;
        let worlds = Arc::new(Worlds::new(view.clone(), ledger.reader()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shard_count = cores.clamp(1, 64);
        worlds.declare(rules.declared(), constant, now);
        pin_declared(&rules.declared(), &rules, &table);
        holds::declare(&plan, &rules);
        let recent = Arc::new(RecentRejects::new());
        let mut store = Store::recover(
            ledger,
            Box::new(TappedFold::new(fold, Arc::clone(recent.taps()))),
            Arc::clone(&table),
            &rules,
            roster.codecs(),
            store_limits(&plan),
            shard_count,
            now,
        )?;
        store.set_plan(EventsPlan::of(&plan.typed, plan.limits.pairs));
        let (handle, inbox) = store_channel();
        let (worker_handle, worker) = store_worker(store.ledger().reader(), handle.clone());
        store.set_worker(worker_handle);
        let failures = Failures::new();
        let json = roster.json_options();
        let mut shards = Vec::new();
        let mut handles = Vec::new();
        for index in 0..shard_count {
            let mut decoder = Decoder::new(
                Arc::clone(&rules),
                Arc::clone(&table),
                Arc::clone(&recent),
                acceptance(&plan),
                hash_seed(now.0, index),
                cache_bytes(&plan),
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
        let history_thread = spawn("history", &failures, move || worker.run())?;
        let store_thread = spawn("store", &failures, move || actor.run())?;
        let draining = Arc::new(AtomicBool::new(false));
        let drained = Arc::new(AtomicUsize::new(0));
        let is_split = is_split(&plan, cores);
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
        let mut dealt = listeners.deal(if is_split { reader_count } else { shard_count }, is_split).into_iter();
        let mut reactors = Vec::new();
        let mut shard_threads = Vec::new();
        for (index, shard) in shards.into_iter().enumerate() {
            let buffers = if is_split {
                let (sender, filled) = bounded(READER_QUEUE);
                inboxes.push(ShardInbox { buffers: sender, waker: shard.waker().clone() });
                Some(Buffers { filled, empty: empties.clone() })
            } else {
                None
            };
            let waker = shard.waker().clone();
            let sockets = if is_split { Vec::new() } else { dealt.next().unwrap_or_default() };
            let reactor = Reactor::new(Arc::clone(&clock), index as u16, waker.clone(), sockets)?.share_of(shard_count);
            if !is_split {
                reactors.push(reactor.handle());
            }
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
            let sockets = dealt.next().unwrap_or_default();
            let reactor =
                Reactor::new(Arc::clone(&clock), index as u16, waker.clone(), sockets)?.share_of(reader_count);
            reactors.push(reactor.handle());
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
        listeners.reach(reactors);
        let kit = Kit {
            rules: Arc::new(SharedRules::new(Arc::clone(&rules))),
            table,
            shards: handles,
            recent,
            store: handle,
            clock,
            failures,
        };
        let group = recording::recorded(&plan, &rules);
        let recorder = Recorder::new(Arc::clone(&worlds), group, recording::constant_names(&plan), plan.lateness);
        let regroup = Regroup::default();
        let mut collectors = Collectors::new(kit.clone(), recorder, Arc::clone(&regroup), view.clone())?;
        collectors.follow(&plan, &roster)?;
        let running = Running {
            collectors,
            draining,
            reader_stop,
            reader_wakers,
            readers,
            drained,
            shards: shard_threads,
            store: store_thread,
            history: history_thread,
        };
        let producers = kit.producers(roster.in_process());
        let Kit { rules, table, shards, recent, store, clock, failures } = kit;
        Ok(Graph {
            producers,
            plan: RwLock::new(Arc::new(plan)),
            clock,
            rules,
            table,
            view,
            worlds,
            regroup,
            store,
            shards,
            recent,
            listeners: Mutex::new(listeners),
            store_path,
            is_new_store,
            roster: RwLock::new(Arc::new(roster)),
            failures,
            started_at: now,
            running: Mutex::new(Some(running)),
            reloading: Mutex::default(),
            loader: OnceLock::new(),
            follower: OnceLock::new(),
        })
    }

    /// Drains what was accepted, commits it, ends every thread. A second call reports again.
    pub(super) fn stop(&self, timeout: Duration) -> Report {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut is_complete = false;
        if let Some(running) = running {
            let deadline = self.clock.monotonic() + timeout.as_nanos() as i64;
            let remaining = || Duration::from_nanos((deadline - self.clock.monotonic()).max(0) as u64);
            // A socket that was drained must not stand open behind its reactor.
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).release();
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
            let patience = remaining();
            let stopped = Box::new(move |commit| {
                // Whoever waits may have given up.
                let _ = reply.send(commit);
            });
            self.store.stop(patience, stopped);
            is_complete = matches!(answer.recv_timeout(patience + STORE_END), Ok(Some(_)));
            self.shards.iter().for_each(ShardHandle::stop);
            running.shards.into_iter().for_each(Thread::join);
            if is_complete {
                running.store.join();
                running.history.join();
            }
        }
        let status = self.store.status();
        let (mut tallies, mut uncommitted) = (status.tallies, status.uncommitted);
        let roster = self.roster();
        let names = roster.names();
        tallies.resize_with(names.len(), SourceTally::default);
        uncommitted.resize_with(names.len(), SourceTally::default);
        Report {
            is_complete,
            last_commit: status.last_commit,
            sources: names.iter().cloned().zip(tallies).collect(),
            uncommitted: names.iter().cloned().zip(uncommitted).collect(),
            own: names.iter().filter(|name| !roster.is_fed(name)).cloned().collect(),
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

/// A different seed for every decoder and start, so that nobody can prepare colliding keys. The address of
/// a fresh allocation and the clock are what std offers without a generator of random numbers.
fn hash_seed(now: i64, index: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_i64(now);
    hasher.write_usize(index);
    hasher.finish() | 1
}
