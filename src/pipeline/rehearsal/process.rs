//! One process of a rehearsal: what a kill takes away.
//!
//! In: lines, and the time. Out: values of expressions over what is durable. Owns: one shard, the store's actor, the
//! view and the recorder, each of which turns only when told to. Invariant: a commit is over when the call that
//! began it returns.

use super::{Evaluated, Stopped};
use crate::delta::SeriesTable;
use crate::delta::epoch::{SealSink, ShardPort};
use crate::event::{Clock, Labels, LabelsBuilder, ManualClock, ShardIndex, SliceWidth, SourceIndex, Timestamp};
use crate::pipeline::graph::{acceptance, pin_declared, store_limits};
use crate::pipeline::plan::Plan;
use crate::pipeline::recording::{constant_names, recorded};
use crate::pipeline::reload::{ReloadError, Takeover, newly_declared, restart_key};
use crate::pipeline::roster::Roster;
use crate::pipeline::value::show_duration;
use crate::query::world::{Asked, Worlds};
use crate::query::{Expression, evaluate};
use crate::record::{Recorder, event};
use crate::rule::Rules;
use crate::shard::{Decoder, LineOutcome, RecentRejects, Shard, ShardHandle};
use crate::store::{EventsPlan, Ledger, LedgerConfig, LedgerPath, Store, StoreActor, StoreHandle, store_channel};
use crate::view::view;
use std::sync::{Arc, mpsc};

/// Raw keys that the decoder may keep.
const CACHE_BYTES: usize = 16 << 20;
/// Any seed does: nobody attacks a test, and its reports are to be the same every time.
const SEED: u64 = 1;
const INTERNAL: SourceIndex = SourceIndex(0);

pub(super) struct Process {
    actor: StoreActor,
    store: StoreHandle,
    shard: Shard,
    handle: ShardHandle,
    rules: Arc<Rules>,
    table: Arc<SeriesTable>,
    roster: Roster,
    worlds: Arc<Worlds>,
    /// Labels on every series: they cannot change without a restart.
    constant: Labels,
    recorder: Recorder,
    slice: SliceWidth,
    notes: Vec<String>,
}

impl Process {
    /// Starts on what the disk holds.
    pub(super) fn boot(plan: &Plan, disk: &LedgerPath, clock: &Arc<ManualClock>) -> Result<Process, Stopped> {
        let now = clock.wall();
        let rules = Arc::new(Rules::new(plan.rules()).map_err(Stopped::Rules)?);
        let mut constant = LabelsBuilder::new();
        for (key, value) in &plan.labels {
            constant.push(key.as_str(), value.as_str());
        }
        let constant = constant.build().map_err(|reason| Stopped::Rules(reason.to_string()))?;
        let table = Arc::new(SeriesTable::new(plan.limits.of_table(), constant.clone()));
        let cells = usize::try_from(plan.limits.cells).unwrap_or(usize::MAX);
        let (fold, view) = view(Arc::clone(&table), plan.slice, cells);
        let ledger = Ledger::open(&LedgerConfig::new(disk.clone(), plan.slice.nanos()), now)?;
        let worlds = Arc::new(Worlds::new(view, ledger.reader()));
        let roster = Roster::new(plan);
        worlds.declare(rules.declared(), constant.clone(), now);
        pin_declared(&rules.declared(), &rules, &table);
        let (sources, limits) = (roster.codecs(), store_limits(plan));
        let mut store = Store::recover(ledger, Box::new(fold), Arc::clone(&table), &rules, sources, limits, 1, now)?;
        store.set_plan(EventsPlan::of(&plan.typed, plan.limits.pairs));
        let (handle, inbox) = store_channel();
        let recent = Arc::new(RecentRejects::new());
        let mut decoder =
            Decoder::new(Arc::clone(&rules), Arc::clone(&table), recent, acceptance(plan), SEED, CACHE_BYTES);
        decoder.set_json_options(roster.json_options());
        let sink: Arc<dyn SealSink> = Arc::new(handle.clone());
        let (shard, shard_handle) = Shard::new(ShardIndex(0), decoder, sink, now)?;
        let ports: Vec<Arc<dyn ShardPort>> = vec![Arc::new(shard_handle.clone())];
        let time = Arc::clone(clock) as Arc<dyn Clock>;
        let every = plan.store.commit_every;
        let actor = StoreActor::new(store, inbox, handle.clone(), ports, Vec::new(), time, plan.slice, every);
        let again_for = plan.accept_late;
        let recorder = Recorder::new(Arc::clone(&worlds), recorded(plan, &rules), constant_names(plan), again_for);
        let slice = plan.slice;
        let mut process = Process {
            actor,
            store: handle,
            shard,
            handle: shard_handle,
            rules,
            table,
            roster,
            worlds,
            constant,
            recorder,
            slice,
            notes: Vec::new(),
        };
        process.commit(now)?;
        Ok(process)
    }

    /// Takes another plan over, in the order of a running pipeline: the store, the shard, the recorder.
    pub(super) fn reload(&mut self, old: &Plan, plan: &Plan, now: Timestamp) -> Result<(), ReloadError> {
        if let Some(key) = restart_key(old, plan) {
            return Err(ReloadError::NeedsRestart { key });
        }
        let too_many = || ReloadError::NeedsRestart { key: "sources".into() };
        let roster = self.roster.following(plan).ok_or_else(too_many)?;
        let Takeover { redeclared, store, mut shard, recorded, .. } =
            Takeover::prepare(old, plan, &roster, &self.rules, &self.table, &[], |_| {
                Err("nothing was accepted".into())
            })?;
        self.store.reload(store, Box::new(|| {}));
        self.actor.step();
        shard.cache_bytes = CACHE_BYTES;
        let is_taken = self.handle.reload(shard, Box::new(|| {})).is_ok();
        assert!(is_taken, "the shard is there as long as its process");
        self.shard.turn(now);
        pin_declared(newly_declared(&redeclared), &redeclared.rules, &self.table);
        self.worlds.declare(redeclared.rules.declared(), self.constant.clone(), now);
        self.recorder.replace(recorded, plan.accept_late);
        (self.rules, self.roster) = (redeclared.rules, roster);
        Ok(())
    }

    /// The number of a source of the plan.
    pub(super) fn source(&self, name: &str) -> Option<SourceIndex> {
        self.roster.index(name)
    }

    /// The number of what `send` brings.
    pub(super) fn sent(&self) -> SourceIndex {
        self.roster.http_lines()
    }

    /// Lines arrive; they are durable after the next tick.
    pub(super) fn say(&mut self, source: SourceIndex, lines: &str, now: Timestamp) {
        let (reply, answer) = mpsc::sync_channel(1);
        let reply = Box::new(move |outcomes: Vec<(String, LineOutcome)>| {
            reply.send(outcomes).expect("it is waited for");
        });
        let is_taken = self.handle.lines(source, lines.as_bytes().to_vec(), reply).is_ok();
        assert!(is_taken, "a shard between turns has an empty inbox");
        self.shard.turn(now);
        for (line, outcome) in answer.try_recv().expect("a turn answers") {
            let at = show_duration(now.0);
            self.notes.extend(match outcome {
                LineOutcome::Refused(reason, what) if what.is_empty() => Some(format!("{reason} at {at}: {line}")),
                LineOutcome::Refused(reason, what) => Some(format!("{reason} ({what}) at {at}: {line}")),
                LineOutcome::Accepted { dropped: Some(reason), .. } => Some(format!("{reason} at {at}: {line}")),
                LineOutcome::Accepted { dropped: None, .. } | LineOutcome::Notice => None,
            });
        }
    }

    /// What was refused or dropped since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// A regular tick: what came is committed, and recorded expressions see it.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<(), Stopped> {
        self.commit(now)?;
        self.record(now)?;
        Ok(())
    }

    /// Makes everything durable that came before now, the results of recorded expressions included.
    pub(super) fn read_through(&mut self, now: Timestamp) -> Result<(), Stopped> {
        self.commit(now)?;
        if self.record(now)? {
            self.commit(now)?;
        }
        Ok(())
    }

    /// When a pair may expire.
    pub(super) fn pairs_due(&self) -> Option<Timestamp> {
        self.actor.store().pairs_due()
    }

    /// The width of its slices.
    pub(super) fn slice_width(&self) -> SliceWidth {
        self.slice
    }

    /// An expression at a time, over the newest commit.
    pub(super) fn evaluate(&self, expression: &Expression, at: Timestamp) -> Result<Evaluated, Stopped> {
        let world = self.worlds.world_for(&[Asked { expression, start: at, end: at }])?;
        Ok(evaluate(expression, &world, at))
    }

    fn commit(&mut self, now: Timestamp) -> Result<(), Stopped> {
        self.actor.tick_now();
        // The shard seals; the store takes it, commits and gives the combiner back; the shard takes that.
        self.shard.turn(now);
        self.actor.step();
        self.shard.turn(now);
        let status = self.store.status();
        match status.error {
            Some(error) if !status.is_up => Err(Stopped::Commit(error)),
            _ => Ok(()),
        }
    }

    /// True when there were results; they are durable after the next commit.
    fn record(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        // No slice has ended yet.
        if self.slice.slice_of(now).0 == 0 {
            return Ok(false);
        }
        let results = self.recorder.advance(now)?;
        for result in &results {
            self.say(INTERNAL, &event(result), now);
        }
        Ok(!results.is_empty())
    }
}
