//! Shards, store and view run step by step on one thread, over a clock and a disk that the test owns.

use super::truth::{Event, TARGETS, config};
use crate::actor::{Failures, spawn};
use crate::delta::epoch::{Barrier, PartitionPosition, ReplayPort, SealSink, ShardPort};
use crate::delta::{SeriesTable, TableLimits};
use crate::event::{Clock, Labels, ManualClock, Metric, ShardIndex, SliceWidth, SourceIndex, Timestamp};
use crate::rule::Rules;
use crate::shard::{Acceptance, Decoder, Next, Origin, RecentRejects, ReplaySample, Shard, ShardHandle};
use crate::store::tests::disk::{Op, SimDisk, apply, crash_image};
use crate::store::tests::script::{Rng, SLICE_NANOS};
use crate::store::{Ledger, Store, StoreActor, StoreHandle, StoreLimits, TierPlan, store_channel, store_worker};
use crate::view::{Value, View, view};
use std::sync::{Arc, Mutex};

pub(super) const SECOND: i64 = 1_000_000_000;
/// Where the clock begins; a slice edge.
pub(super) const START: i64 = 1_700_000_000 * SECOND;
pub(super) const REPLAYED: SourceIndex = SourceIndex(1);
pub(super) const LIVE: SourceIndex = SourceIndex(2);
const SOURCES: [&str; 3] = ["internal", "replayed", "live"];

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) shards: usize,
    pub(super) pending: usize,
    pub(super) series: u32,
    pub(super) idle: Option<i64>,
    pub(super) keep: i64,
    pub(super) tiers: &'static [TierPlan],
    pub(super) max_size: u64,
    /// Steps of jobs are made by a thread, as in a pipeline; when they come is up to it.
    pub(super) has_worker: bool,
    /// Remember every write, so that power can fail.
    pub(super) keep_ops: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            shards: 2,
            pending: 64 << 20,
            series: 1000,
            idle: None,
            keep: 3600 * SECOND,
            tiers: &[],
            max_size: u64::MAX,
            has_worker: false,
            keep_ops: false,
        }
    }
}

/// What the store asked of the source.
struct Asked(Mutex<Vec<u64>>);

impl ReplayPort for Asked {
    fn source(&self) -> SourceIndex {
        REPLAYED
    }

    fn end_epoch(&self, epoch: u64) {
        self.0.lock().expect("unpoisoned").push(epoch);
    }
}

/// One process: what a crash takes away.
pub(super) struct Process {
    pub(super) actor: StoreActor,
    pub(super) store: StoreHandle,
    pub(super) shards: Vec<Shard>,
    pub(super) handles: Vec<ShardHandle>,
    pub(super) view: View,
    pub(super) rules: Arc<Rules>,
    pub(super) table: Arc<SeriesTable>,
    pub(super) recent: Arc<RecentRejects>,
    asked: Arc<Asked>,
    /// Resolved targets.
    targets: Vec<(Arc<Metric>, Labels)>,
    /// The source: per partition the next event to read, and its clock.
    next: Vec<usize>,
    clocks: Vec<i64>,
    incarnation: u32,
    /// Commands sent to each shard since its last turn.
    queued: Vec<usize>,
}

/// Everything that survives.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) disk: SimDisk,
    pub(super) setup: Setup,
    pub(super) process: Option<Process>,
    /// The broker's log.
    pub(super) partitions: Vec<Vec<Event>>,
    /// What a disk surely holds: changes up to the last sync.
    durable: Vec<u8>,
}

impl World {
    pub(super) fn new(setup: Setup, partitions: Vec<Vec<Event>>) -> World {
        let clock = Arc::new(ManualClock::new(Timestamp(START)));
        let mut world =
            World { clock, disk: SimDisk::default(), setup, process: None, partitions, durable: Vec::new() };
        world.boot();
        world
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(super) fn clock_seconds(&self) -> i64 {
        self.now().0 / SECOND
    }

    pub(super) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process runs")
    }

    /// Starts a process on what the disk holds.
    pub(super) fn boot(&mut self) {
        self.disk.0.lock().expect("unpoisoned").keep_ops = self.setup.keep_ops;
        let now = self.now();
        let rules = Arc::new(Rules::new(config(self.setup.idle)).expect("no clash"));
        let limits = TableLimits { series: self.setup.series, series_per_metric: self.setup.series };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let width = SliceWidth::from_nanos(SLICE_NANOS).expect("wide enough");
        let (fold, view) = view(Arc::clone(&table), width, 1 << 24);
        let ledger = Ledger::open(&self.disk.config(), now).expect("opens");
        let limits = StoreLimits {
            slice: width,
            lateness: 2 * SECOND,
            hold_max: 600 * SECOND,
            keep: self.setup.keep,
            tiers: self.setup.tiers.to_vec(),
            max_size: self.setup.max_size,
            pending: self.setup.pending,
        };
        let sources = SOURCES.map(|name| (name.to_owned(), "test")).to_vec();
        let count = self.setup.shards;
        let mut store = Store::recover(ledger, Box::new(fold), Arc::clone(&table), &rules, sources, limits, count, now)
            .expect("recovers");
        let positions = store.positions();
        let (handle, inbox) = store_channel();
        if self.setup.has_worker {
            let (worker_handle, worker) = store_worker(store.ledger().reader(), handle.clone());
            store.set_worker(worker_handle);
            // It ends with the store that holds the handle.
            drop(spawn("history", &Failures::new(), move || worker.run()).expect("a thread"));
        }
        let recent = Arc::new(RecentRejects::new());
        let acceptance = Acceptance { slice: width, accept_late: 3600 * SECOND, max_future: 600 * SECOND };
        let mut shards = Vec::new();
        let mut handles = Vec::new();
        for index in 0..count {
            let decoder = Decoder::new(
                Arc::clone(&rules),
                Arc::clone(&table),
                Arc::clone(&recent),
                acceptance,
                index as u64,
                1 << 20,
            );
            let sink: Arc<dyn SealSink> = Arc::new(handle.clone());
            let (shard, shard_handle) = Shard::new(ShardIndex(index as u16), decoder, sink, now).expect("a descriptor");
            shards.push(shard);
            handles.push(shard_handle);
        }
        let ports = handles.iter().map(|handle| Arc::new(handle.clone()) as Arc<dyn ShardPort>).collect();
        let asked = Arc::new(Asked(Mutex::default()));
        let replays: Vec<Arc<dyn ReplayPort>> = vec![Arc::clone(&asked) as Arc<dyn ReplayPort>];
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let actor = StoreActor::new(store, inbox, handle.clone(), ports, replays, clock, width, SECOND);
        let targets = TARGETS
            .iter()
            .map(|target| {
                let resolved = rules.resolve_handle(target.name, target.wire, &[("k", target.label)]);
                let resolved = resolved.expect("a valid name");
                (resolved.metric, resolved.labels)
            })
            .collect();
        let mut process = Process {
            actor,
            store: handle,
            shards,
            handles,
            view,
            rules,
            table,
            recent,
            asked,
            targets,
            next: vec![0; self.partitions.len()],
            clocks: vec![i64::MIN; self.partitions.len()],
            incarnation: 0,
            queued: vec![0; count],
        };
        process.seek(&positions);
        self.process = Some(process);
    }

    /// kill -9: what was written stays.
    pub(super) fn kill(&mut self, shards: usize) {
        let bytes = self.disk.0.lock().expect("unpoisoned").bytes.clone();
        self.restart_on(bytes, shards);
    }

    /// Power fails: of what was not synced, any sectors stay.
    pub(super) fn lose_power(&mut self, rng: &mut Rng, shards: usize) {
        let ops = std::mem::take(&mut self.disk.0.lock().expect("unpoisoned").ops);
        let mut pending: Vec<&Op> = Vec::new();
        for op in &ops {
            if let Op::Sync = op {
                pending.drain(..).for_each(|op| apply(&mut self.durable, op));
            } else {
                pending.push(op);
            }
        }
        let image = crash_image(&self.durable, &pending, rng);
        self.restart_on(image, shards);
    }

    fn restart_on(&mut self, bytes: Vec<u8>, shards: usize) {
        // The old process may still write while it is dropped: to a disk that nobody looks at.
        self.disk = SimDisk::of(bytes.clone());
        self.durable = bytes;
        self.process = None;
        self.setup.shards = shards;
        self.boot();
    }

    /// The source reads up to `count` events of a partition and sends them to one shard.
    pub(super) fn read(&mut self, partition: usize, count: usize, shard: usize) {
        let wall = self.clock.wall().0;
        let process = self.process.as_mut().expect("the process runs");
        if !process.store.status().has_room || process.queued[shard] > 500 {
            return;
        }
        let from = process.next[partition];
        let events = &self.partitions[partition][from..];
        let taken = events.len().min(count);
        let mut samples = Vec::with_capacity(taken);
        for event in &events[..taken] {
            let (metric, labels) = process.targets[event.target].clone();
            process.clocks[partition] = process.clocks[partition].max(event.time.min(wall));
            samples.push(ReplaySample {
                metric,
                labels,
                value: event.value,
                time: Timestamp(event.time),
                position: event.position,
                weight: event.weight,
            });
        }
        if taken > 0 {
            process.next[partition] += taken;
            process.queued[shard] += 1;
            process.handles[shard].replay(REPLAYED, process.incarnation, samples).expect("the shard lives");
        }
    }

    /// True when every event was read.
    pub(super) fn is_exhausted(&mut self) -> bool {
        let ends: Vec<usize> = self.partitions.iter().map(Vec::len).collect();
        self.process().next == ends
    }

    /// Everything turns, the disk works, until all was read and committed.
    pub(super) fn settle(&mut self, rng: &mut Rng) {
        self.disk.0.lock().expect("unpoisoned").fail_at = None;
        for round in 0..400 {
            for partition in 0..self.partitions.len() {
                let shard = rng.below(self.setup.shards as u64) as usize;
                self.read(partition, 50, shard);
            }
            self.turn_all();
            self.clock.advance(300_000_000);
            let is_read = self.is_exhausted();
            let ends: u64 = self.partitions.iter().map(|events| events.len() as u64).sum();
            let process = self.process();
            let committed: u64 = process
                .actor
                .store()
                .ledger()
                .positions()
                .map_or(0, |positions| positions.iter().map(|position| position.next).sum());
            let status = process.store.status();
            if is_read && committed == ends && status.pending_bytes == 0 && status.is_up && round > 8 {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.process().store.status());
    }

    /// Source, shards and store, each once and again until answers have come back.
    pub(super) fn turn_all(&mut self) {
        let now = self.now();
        let process = self.process();
        for _ in 0..3 {
            process.actor.step();
            process.answer_epochs();
            for shard in 0..process.shards.len() {
                process.turn(shard, now);
            }
        }
        process.actor.step();
    }
}

impl Process {
    /// The source stands where the store says.
    fn seek(&mut self, positions: &[PartitionPosition]) {
        self.next.fill(0);
        self.clocks.fill(i64::MIN);
        for position in positions {
            let at: usize = position.partition.trim_start_matches("replayed/").parse().expect("a number");
            self.next[at] = position.next as usize;
            self.clocks[at] = position.clock.0;
        }
    }

    /// The source lost its assignment and gets it back.
    pub(super) fn raise_incarnation(&mut self) {
        self.incarnation += 1;
        let (answer, waiting) = std::sync::mpsc::sync_channel(1);
        self.store.seek(
            REPLAYED,
            self.incarnation,
            Box::new(move |positions| {
                answer.send(positions).expect("waited for");
            }),
        );
        self.actor.step();
        let positions = waiting.try_recv().expect("answered at once");
        self.seek(&positions);
    }

    /// The source ends the epochs that it was asked to.
    pub(super) fn answer_epochs(&mut self) {
        let asked = std::mem::take(&mut *self.asked.0.lock().expect("unpoisoned"));
        let Some(epoch) = asked.last().copied() else { return };
        let positions: Arc<[PartitionPosition]> = (0..self.next.len())
            .map(|at| PartitionPosition {
                partition: format!("replayed/{at}").as_str().into(),
                next: self.next[at] as u64,
                clock: Timestamp(self.clocks[at]),
            })
            .collect();
        for (handle, queued) in self.handles.iter().zip(&mut self.queued) {
            *queued += 1;
            let positions = Arc::clone(&positions);
            let barrier = Barrier { source: REPLAYED, incarnation: self.incarnation, epoch, positions };
            handle.barrier(barrier).expect("the shard lives");
        }
    }

    pub(super) fn turn(&mut self, shard: usize, now: Timestamp) {
        self.queued[shard] = 0;
        assert!(matches!(self.shards[shard].turn(now), Next::Continue { .. }));
    }

    /// Lines of the live source.
    pub(super) fn lines(&mut self, shard: usize, lines: &str, now: Timestamp) {
        self.shards[shard].ingest(Origin { source: LIVE, reader: shard as u16 }, lines.as_bytes(), now);
    }

    /// Σ in wholes over the series of a counter that have these labels.
    pub(super) fn sum(&self, name: &str, meant: &[(&str, &str)]) -> i128 {
        let Some(metric) = self.view.metric(name) else { return 0 };
        let (family, _) = self.view.series_since(&metric, u64::MAX, 0);
        let mut labels = Vec::new();
        self.view.labels(metric.kind, &family.series, |found| labels.push(found.clone()));
        let mut values = Vec::new();
        let ids: Vec<_> = family.series.iter().map(|(id, _)| *id).collect();
        self.view.read(&metric, &ids, &mut values);
        let is_meant = |labels: &Labels| meant.iter().all(|(key, value)| labels.get(key) == Some(value));
        let found = labels.iter().zip(values).filter(|(labels, _)| is_meant(labels));
        found
            .map(|(_, value)| if let Some(Value::Counter(value)) = value { value.nanos / 1_000_000_000 } else { 0 })
            .sum()
    }

    /// Both conservation laws, for a source, in what is durable (C6), and that counters hold their samples.
    pub(super) fn check_laws(&self, context: &str) {
        self.check_both_laws(context);
        // Every live counter sample adds one.
        let counted = self.sum("hydrograph_samples_committed_total", &[("source", "live"), ("kind", "counter")]);
        assert_eq!(self.sum("hits_total", &[]), counted, "{context}: what is committed is there");
    }

    /// The laws alone: for when series that hold samples are not in memory.
    pub(super) fn check_both_laws(&self, context: &str) {
        for source in ["live", "replayed"] {
            let of = &[("source", source)];
            let inputs = self.sum("hydrograph_events_received_total", of);
            let events = self.sum("hydrograph_events_total", of);
            let rejected = self.sum("hydrograph_rejected_total", of);
            assert_eq!(inputs, events + rejected, "{context}: inputs of {source}");
            let samples = self.sum("hydrograph_samples_total", of);
            let committed = self.sum("hydrograph_samples_committed_total", of);
            let dropped = self.sum("hydrograph_dropped_total", of);
            assert_eq!(samples, committed + dropped, "{context}: samples of {source}");
        }
    }
}
