//! The store's thread: ticks, commits, and goes on when the disk does not.
//!
//! In: sealed combiners, requests to flush. Out: commits; drained combiners back to their shards. Owns:
//! the [`Store`]. Invariants: a shard that does not answer a tick misses that commit and holds nobody up longer
//! than [`ANSWER_WAIT`]; a combiner is given back as soon as it is drained; a disk error never stops the draining (C4).

use super::error::StoreError;
use super::handle::{FlushReply, Message, SeekReply, StoreHandle, StoreInbox};
use super::lanes::GivenBack;
use super::state::{Done, Store};
use crate::channel::{Ended, Receiver};
use crate::delta::SourceTally;
use crate::delta::epoch::{InputGroup, ReplayPort, Sealed, ShardPort};
use crate::event::{Clock, Kind, Slice, SliceWidth, Slot, SourceIndex, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Least time between two ticks that were asked for.
const ASKED_TICK_MIN: i64 = 50_000_000;
/// How long a tick waits for its shards before it commits what has come.
const ANSWER_WAIT: i64 = 500_000_000;
/// First and longest wait before the file is opened again after an error.
const REOPEN_WAIT: (i64, i64) = (100_000_000, 5_000_000_000);
/// How often idle series are looked for, in ticks.
const IDLE_EVERY_TICKS: u64 = 60;
/// Recent commit durations kept for whoever collects them.
const DURATIONS_MAX: usize = 256;
/// Longest wait before the file is opened again once a stop waits for it.
const REOPEN_WAIT_STOPPING: i64 = 1_000_000_000;
/// Ticks without a step of a job behind one that took long.
const REST_TICKS_MAX: i64 = 30;
/// Ticks that a stop waits for shards that do not answer: 10 s.
const STOP_TICKS_MAX: u64 = 20;

/// The loop around a [`Store`].
pub struct StoreActor {
    store: Store,
    inbox: Receiver<Message>,
    handle: StoreHandle,
    shards: Vec<Arc<dyn ShardPort>>,
    replays: Vec<Arc<dyn ReplayPort>>,
    clock: Arc<dyn Clock>,
    width: SliceWidth,
    commit_every: i64,
    /// The live epoch under way and how many shards have answered it.
    epoch: u64,
    answers: usize,
    /// Monotonic time the tick under way began; `None` when none is.
    tick_began: Option<i64>,
    /// Monotonic time of the next regular tick, and of the earliest asked one.
    next_tick: i64,
    last_tick: i64,
    waiters: Vec<(u64, FlushReply)>,
    /// Who waits for resets.
    resetters: Vec<FlushReply>,
    reopen_at: Option<i64>,
    reopen_wait: i64,
    ticks: u64,
    slid_to: Slice,
    /// Ticks that every shard answered.
    whole_ticks: u64,
    /// Idle series are on their way out of memory.
    retiring: Option<Retiring>,
    /// Epoch of each replayable source.
    replay_epochs: Vec<(SourceIndex, u64)>,
    /// Wall minus monotonic, to see steps of the wall clock (T3).
    clock_offset: i64,
    stopping: Option<FlushReply>,
    stop_epoch: u64,
    /// Monotonic time at which a stop gives up on a disk that takes nothing.
    stop_by: i64,
    /// The last live epoch that every shard answered.
    answered_epoch: u64,
    /// Ticks to come that write no step of a job; at least 0.
    rest_ticks: i64,
    /// Monotonic time from which on history may expire.
    expires_from: i64,
}

/// When series that were marked idle may leave: nothing can name their slots any more.
struct Retiring {
    /// Ticks that must have been answered by every shard.
    whole_ticks: u64,
    /// Epochs of replayable sources that must have been drained.
    epochs: Vec<(SourceIndex, u64)>,
}

/// How long a wall clock must have gone on evenly before history expires by it: one that jumped years ahead, or was wrong
/// when the machine started, would take everything with it (T3).
const EXPIRY_TRUST: i64 = 3_600_000_000_000;
/// A start so long behind the last commit is taken for such a jump.
const DOWN_MAX: i64 = 86_400_000_000_000;
/// The wall clock may part from the monotonic one by this much before it counts as a step (T3).
const CLOCK_STEP: i64 = 5_000_000_000;

impl StoreActor {
    /// A store that ticks every `commit_every` nanoseconds, aligned with the slices.
    #[expect(clippy::too_many_arguments, reason = "the wiring of one actor, written once")]
    pub fn new(
        mut store: Store,
        inbox: StoreInbox,
        handle: StoreHandle,
        shards: Vec<Arc<dyn ShardPort>>,
        replays: Vec<Arc<dyn ReplayPort>>,
        clock: Arc<dyn Clock>,
        width: SliceWidth,
        commit_every: i64,
    ) -> StoreActor {
        let (wall, now) = (clock.wall(), clock.monotonic());
        let replay_epochs = replays.iter().map(|port| (port.source(), 0)).collect();
        let last_commit = store.ledger().last_commit();
        store.share_kept(&handle.kept);
        let mut actor = StoreActor {
            store,
            inbox: inbox.0,
            handle,
            shards,
            replays,
            clock,
            width,
            commit_every,
            epoch: 0,
            answers: 0,
            tick_began: None,
            next_tick: 0,
            last_tick: i64::MIN / 2,
            waiters: Vec::new(),
            resetters: Vec::new(),
            reopen_at: None,
            reopen_wait: REOPEN_WAIT.0,
            ticks: 0,
            slid_to: width.slice_of(wall),
            whole_ticks: 0,
            retiring: None,
            replay_epochs,
            clock_offset: wall.0 - now,
            stopping: None,
            stop_epoch: u64::MAX,
            stop_by: i64::MAX,
            answered_epoch: 0,
            rest_ticks: 0,
            expires_from: i64::MIN,
        };
        let committed = actor.store.ledger().commit_time();
        if committed.0 > 0 && wall.0.saturating_sub(committed.0) > DOWN_MAX {
            actor.expires_from = now.saturating_add(EXPIRY_TRUST);
        }
        actor.schedule(wall, now);
        {
            let mut status = actor.handle.lock();
            status.last_commit = last_commit;
            status.current_at = wall;
        }
        actor.report_sizes();
        actor
    }

    /// Runs until it was stopped.
    pub fn run(mut self) {
        loop {
            let wait = self.wait();
            match self.inbox.recv_timeout(wait) {
                Ok(message) => {
                    self.receive(message);
                    while let Some(message) = self.inbox.try_recv() {
                        self.receive(message);
                    }
                }
                Err(Ended::TimedOut) => {}
                Err(Ended::Closed) => break,
            }
            self.turn();
            if self.stopping.is_some() && self.is_drained() {
                break;
            }
        }
        self.store.close();
        let last = self.store.ledger().last_commit();
        let mut status = self.handle.lock();
        status.file_bytes = self.store.ledger().allocated_bytes();
        status.uncommitted = self.store.uncommitted();
        drop(status);
        self.waiters.drain(..).for_each(|(_, reply)| reply(None));
        self.resetters.drain(..).for_each(|reply| reply(None));
        if let Some(reply) = self.stopping.take() {
            let is_whole = self.handle.lock().is_up && self.answered_epoch >= self.stop_epoch;
            reply(is_whole.then_some(last));
        }
    }

    fn wait(&self) -> Duration {
        let now = self.clock.monotonic();
        let mut until = match self.tick_began {
            Some(began) => began + ANSWER_WAIT,
            None if self.is_asked() => (self.last_tick + ASKED_TICK_MIN).min(self.next_tick),
            None => self.next_tick,
        };
        if let Some(at) = self.reopen_at {
            until = until.min(at).min(self.stop_by);
        }
        Duration::from_nanos((until - now).clamp(0, 1_000_000_000) as u64)
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Sealed(sealed) => self.take(*sealed),
            Message::WantsTick => {}
            Message::Flush(reply) => {
                // A tick under way may have sealed before what the caller wrote.
                self.waiters.push((self.epoch + 1, reply));
            }
            Message::Reset(series, reply) => {
                self.store.ask_reset(&series);
                self.resetters.push(reply);
            }
            Message::Plan(plan) => self.store.set_plan(*plan),
            Message::Reload(reload, done) => {
                if reload.commit_every != self.commit_every {
                    self.commit_every = reload.commit_every;
                    self.schedule(self.clock.wall(), self.clock.monotonic());
                }
                self.store.reload(*reload);
                done();
            }
            Message::Within(call) => {
                call(&mut self.store);
                if self.store.is_broken() && self.reopen_at.is_none() {
                    self.fail(&self.store.ledger().broken());
                }
            }
            Message::Step(number, outcome) => {
                if let Err(error) = self.store.take_step(number, outcome)
                    && self.reopen_at.is_none()
                {
                    self.fail(&error);
                }
            }
            Message::Stop(reply, patience) => {
                self.stop_epoch = self.epoch + 1;
                let now = self.clock.monotonic();
                self.stop_by = now.saturating_add(i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX));
                if self.reopen_at.is_some() && !self.handle.lock().is_fatal {
                    // Not at the end of a long wait: the disk may have room by now.
                    self.reopen_wait = REOPEN_WAIT.0;
                    self.reopen_at = Some(now);
                }
                self.stopping = Some(reply);
            }
            Message::Seek { source, incarnation, reply } => self.seek(source, incarnation, reply),
        }
    }

    fn seek(&mut self, source: SourceIndex, incarnation: u32, reply: SeekReply) {
        let (given_back, positions) = self.store.begin_incarnation(source, incarnation);
        self.give_back(given_back);
        reply(positions);
        let done = self.store.epoch_done(source);
        for (port, (of, epoch)) in self.replays.iter().zip(&self.replay_epochs) {
            if *of == source && *epoch > done {
                port.end_epoch(*epoch);
            }
        }
    }

    fn give_back(&self, given_back: Vec<GivenBack>) {
        for (shard, group, combiner) in given_back {
            if let Some(shard) = self.shards.get(shard) {
                shard.give_back(group, combiner);
            }
        }
    }

    fn take(&mut self, sealed: Sealed) {
        if sealed.group == InputGroup::Live && sealed.epoch == self.epoch {
            self.answers += 1;
        }
        let given_back = self.store.take(sealed);
        self.give_back(given_back);
        self.settle();
    }

    /// Drains what can be drained.
    fn settle(&mut self) {
        let (given_back, settled) = self.store.settle(self.clock.wall());
        self.give_back(given_back);
        // While the file is closed its ids cannot be read: what waits for them is tried again behind it.
        if let Err(error) = settled
            && self.reopen_at.is_none()
        {
            self.fail(&error);
        }
    }

    /// Everything that is due.
    fn turn(&mut self) {
        let (wall, now) = (self.clock.wall(), self.clock.monotonic());
        self.watch_clock(wall, now);
        if self.reopen_at.is_some_and(|at| now >= at) {
            self.reopen(now);
        }
        if let Some(began) = self.tick_began
            && (self.answers >= self.shards.len() || now - began >= ANSWER_WAIT)
        {
            if self.answers >= self.shards.len() {
                self.answered_epoch = self.epoch;
                self.whole_ticks += 1;
                self.store.end_live_epoch(self.epoch);
            }
            self.end_tick(wall, now);
        }
        // While a stop waits for the disk only, there is nothing left to seal.
        let wants_end = self.stopping.is_some() && (self.reopen_at.is_none() || self.answered_epoch < self.stop_epoch);
        let is_asked = self.is_asked() || wants_end;
        let is_due = now >= self.next_tick || (is_asked && now - self.last_tick >= ASKED_TICK_MIN);
        // A stop that has what it needs begins no further tick, or one slow shard would keep it from ending.
        let has_ended = self.stopping.is_some() && self.is_drained();
        if self.tick_began.is_none() && is_due && !has_ended {
            self.begin_tick(wall, now);
        }
    }

    /// Somebody waits for a tick.
    fn is_asked(&self) -> bool {
        !self.waiters.is_empty() || !self.resetters.is_empty() || self.handle.wants_tick.load(Ordering::Acquire)
    }

    fn begin_tick(&mut self, wall: Timestamp, now: i64) {
        if now > self.next_tick + self.commit_every {
            self.handle.lock().late_ticks += 1;
        }
        self.handle.wants_tick.store(false, Ordering::Release);
        self.epoch += 1;
        self.ticks += 1;
        self.answers = 0;
        self.tick_began = Some(now);
        self.last_tick = now;
        for shard in &self.shards {
            shard.seal(self.epoch);
        }
        for (port, (source, epoch)) in self.replays.iter().zip(&mut self.replay_epochs) {
            // C1: shards have two combiners a source, so the next epoch begins when the last one is drained.
            if self.store.epoch_done(*source) == *epoch {
                *epoch += 1;
                port.end_epoch(*epoch);
            }
        }
        self.schedule(wall, now);
    }

    /// The next multiple of `commit_every` since the epoch, or the end of the slice if that is sooner.
    fn schedule(&mut self, wall: Timestamp, now: i64) {
        let to_tick = self.commit_every - wall.0.rem_euclid(self.commit_every);
        let to_slice = self.width.end(self.width.slice_of(wall)).0 - wall.0;
        self.next_tick = now + to_tick.min(to_slice.max(1));
    }

    fn end_tick(&mut self, wall: Timestamp, now: i64) {
        self.tick_began = None;
        if self.reopen_at.is_none() {
            self.commit(wall);
        } else {
            self.store.squeeze();
        }
        self.retire_idle(wall);
        if self.ticks.is_multiple_of(10) {
            self.report_sizes();
        }
        let mut status = self.handle.lock();
        status.pending_bytes = self.store.pending_bytes();
        status.has_room = self.store.has_room();
        if self.reopen_at.is_none() && status.pending_bytes == 0 {
            status.current_at = wall;
        }
        drop(status);
        let after = self.clock.monotonic();
        if after > now + self.commit_every {
            self.schedule(self.clock.wall(), after);
        }
    }

    /// S2: marks idle series, and lets them leave once nothing can name them.
    fn retire_idle(&mut self, wall: Timestamp) {
        if let Some(retiring) = &self.retiring {
            let is_forgotten = self.whole_ticks >= retiring.whole_ticks
                && retiring.epochs.iter().all(|(source, epoch)| self.store.epoch_done(*source) >= *epoch);
            if is_forgotten && !self.store.has_stuck() && self.store.retire(wall) {
                self.retiring = None;
            }
        } else if self.ticks.is_multiple_of(IDLE_EVERY_TICKS) {
            let marked: Arc<[(Kind, Slot)]> = self.store.mark_idle(wall).into();
            if !marked.is_empty() {
                for shard in &self.shards {
                    shard.forget(Arc::clone(&marked));
                }
                let epochs = self.replay_epochs.iter().map(|(source, epoch)| (*source, epoch + 1)).collect();
                self.retiring = Some(Retiring { whole_ticks: self.whole_ticks + 2, epochs });
            }
        }
    }

    fn commit(&mut self, wall: Timestamp) {
        let began = self.clock.monotonic();
        self.store.allow_expiry(began >= self.expires_from);
        self.store.allow_steps(self.rest_ticks == 0);
        self.rest_ticks = (self.rest_ticks - 1).max(0);
        loop {
            match self.store.commit(wall) {
                Ok(Some(done)) => {
                    let is_last = self.store.pending_bytes() == 0;
                    let nanos = self.clock.monotonic() - began;
                    if done.has_step {
                        // H5: writing steps takes half of the time at most, over a few ticks where one takes longer.
                        self.rest_ticks = (2 * nanos / self.commit_every.max(1)).clamp(0, REST_TICKS_MAX);
                    }
                    self.store.allow_steps(false);
                    self.note(done, nanos);
                    if is_last {
                        break;
                    }
                }
                Ok(None) => {
                    // Nothing waits: what the shards answered is durable already.
                    self.answer_waiters(self.answered_epoch);
                    break;
                }
                Err(error) => return self.fail(&error),
            }
        }
        if !self.store.has_resets() {
            let last = self.store.ledger().last_commit();
            self.resetters.drain(..).for_each(|reply| reply(Some(last)));
        }
        if let Err(error) = self.store.check_place() {
            return self.fail(&error);
        }
        self.settle();
        let open = self.width.slice_of(wall);
        if open != self.slid_to {
            match self.store.slide(wall) {
                Ok(()) => self.slid_to = open,
                Err(error) => self.fail(&error),
            }
        }
    }

    fn note(&mut self, done: Done, nanos: i64) {
        let mut status = self.handle.lock();
        status.last_commit = done.id;
        if status.durations.len() < DURATIONS_MAX {
            status.durations.push(nanos);
        }
        if status.tallies.len() < done.tallies.len() {
            status.tallies.resize_with(done.tallies.len(), SourceTally::default);
        }
        for (sum, new) in status.tallies.iter_mut().zip(&done.tallies) {
            sum.merge(new);
        }
        drop(status);
        self.answer_waiters(done.live_epoch);
    }

    fn answer_waiters(&mut self, epoch: u64) {
        let last = self.store.ledger().last_commit();
        self.handle.lock().file_bytes = self.store.ledger().allocated_bytes();
        for (_, reply) in self.waiters.extract_if(.., |(needed, _)| *needed <= epoch) {
            reply(Some(last));
        }
    }

    /// C4: says what is wrong; retryable errors are tried again, others are final.
    fn fail(&mut self, error: &StoreError) {
        let is_fatal = !error.is_retryable();
        let text = error.to_string();
        let mut status = self.handle.lock();
        if status.error.as_ref() != Some(&text) {
            tracing::error!(error = text, is_fatal, "the store cannot commit");
        }
        status.is_up = false;
        status.error = Some(text);
        status.is_fatal |= is_fatal;
        drop(status);
        self.reopen_at = Some(self.clock.monotonic() + self.reopen_wait);
        let longest = if self.stopping.is_some() { REOPEN_WAIT_STOPPING } else { REOPEN_WAIT.1 };
        self.reopen_wait = (self.reopen_wait * 2).min(longest);
        for (_, reply) in self.waiters.drain(..) {
            reply(None);
        }
        self.resetters.drain(..).for_each(|reply| reply(None));
    }

    fn reopen(&mut self, _now: i64) {
        if self.handle.lock().is_fatal {
            self.reopen_at = Some(i64::MAX);
            return;
        }
        self.reopen_at = None;
        if self.store.is_broken()
            && let Err(error) = self.store.reopen()
        {
            return self.fail(&error);
        }
        self.settle();
        if self.reopen_at.is_none() {
            self.commit(self.clock.wall());
        }
        if self.reopen_at.is_none() {
            self.reopen_wait = REOPEN_WAIT.0;
            let mut status = self.handle.lock();
            status.is_up = true;
            status.pending_bytes = self.store.pending_bytes();
            status.has_room = self.store.has_room();
            if status.error.take().is_some() {
                tracing::info!("the store commits again");
            }
        }
    }

    /// T3: a step is said and counted; the watermark follows because it is computed from the wall clock.
    fn watch_clock(&mut self, wall: Timestamp, now: i64) {
        let offset = wall.0 - now;
        if (offset - self.clock_offset).abs() > CLOCK_STEP {
            tracing::warn!(seconds = (offset - self.clock_offset) as f64 / 1e9, "the wall clock stepped");
            self.handle.lock().clock_steps += 1;
            self.clock_offset = offset;
            self.expires_from = now.saturating_add(EXPIRY_TRUST);
            self.schedule(wall, now);
        }
    }

    fn is_drained(&self) -> bool {
        if self.tick_began.is_some() || self.epoch < self.stop_epoch {
            return false;
        }
        let is_whole = self.answered_epoch >= self.stop_epoch || self.epoch >= self.stop_epoch + STOP_TICKS_MAX;
        if self.reopen_at.is_some() {
            return (is_whole && self.handle.lock().is_fatal) || self.clock.monotonic() >= self.stop_by;
        }
        is_whole && self.store.pending_bytes() == 0
    }

    fn report_sizes(&self) {
        let ledger = self.store.ledger();
        let tables = ledger.sizes().into_iter().map(|size| (size.table, size.bytes)).collect();
        let (file_bytes, used_bytes) = (ledger.allocated_bytes(), ledger.used_bytes());
        let mut status = self.handle.lock();
        status.tables = tables;
        status.file_bytes = file_bytes;
        status.used_bytes = used_bytes;
        status.shed = self.store.shed();
    }
}

/// For who owns the time, instead of [`run`](StoreActor::run): virtual time, and tests.
impl StoreActor {
    /// One turn of the loop without waiting.
    pub fn step(&mut self) {
        while let Some(message) = self.inbox.try_recv() {
            self.receive(message);
        }
        self.turn();
    }

    /// Begins a tick now, if none is under way.
    pub fn tick_now(&mut self) {
        if self.tick_began.is_none() {
            self.begin_tick(self.clock.wall(), self.clock.monotonic());
        }
    }

    /// The state behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

#[cfg(test)]
impl StoreActor {
    /// True once a stop was asked for and is done.
    pub(crate) fn has_ended(&self) -> bool {
        self.stopping.is_some() && self.is_drained()
    }
}
