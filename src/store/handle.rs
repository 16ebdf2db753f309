//! How others reach the store's thread: messages in, a snapshot of its state out.
//!
//! In: sealed combiners, requests. Out: messages, answers through replies. Owns: the store's inbox and the
//! status that its thread writes. Invariant: nobody waits for the store but a shard with a third combiner,
//! which does not exist.

use super::error::StoreError;
use super::events::{EventsPlan, StoreReload};
use super::kept::{KeptRow, KeptView};
use super::state::Store;
use super::worker::Step;
use crate::channel::{Receiver, Sender, bounded};
use crate::delta::SourceTally;
use crate::delta::epoch::{PartitionPosition, SealSink, Sealed};
use crate::event::{CommitId, Kind, SeriesId, SourceIndex, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Messages that may wait for the store: two sealed combiners of each shard and group, and flushes.
const INBOX_CAPACITY: usize = 4096;

/// Called with where a replayable source must seek to.
pub type SeekReply = Box<dyn FnOnce(Vec<PartitionPosition>) + Send>;

/// Called with the commit that made everything received before durable, or with `None` when it cannot.
pub type FlushReply = Box<dyn FnOnce(Option<CommitId>) + Send>;

/// What is done on the store's thread, between two of its steps.
pub type StoreCall = Box<dyn FnOnce(&mut Store) + Send>;

/// What the store's thread is told.
pub(super) enum Message {
    Sealed(Box<Sealed>),
    WantsTick,
    Flush(FlushReply),
    Seek { source: SourceIndex, incarnation: u32, reply: SeekReply },
    Plan(Box<EventsPlan>),
    Reload(Box<StoreReload>, Box<dyn FnOnce() + Send>),
    Reset(Vec<(Kind, SeriesId)>, FlushReply),
    Within(StoreCall),
    Step(u64, Result<Option<Step>, StoreError>),
    Stop(FlushReply, Duration),
}

/// What the store tells about itself; a snapshot.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// False while nothing can be committed.
    pub is_up: bool,
    /// Why not.
    pub error: Option<String>,
    /// True when the error is final (corrupt, wrong version): the pipeline stops.
    pub is_fatal: bool,
    /// The last durable commit.
    pub last_commit: CommitId,
    /// Wall clock of the last tick that left nothing waiting.
    pub current_at: Timestamp,
    /// Bytes that wait for the disk.
    pub pending_bytes: usize,
    /// False when `limits.pending` is reached: acknowledging sources must refuse.
    pub has_room: bool,
    /// Ticks that came later than they should.
    pub late_ticks: u64,
    /// Steps of the wall clock (T3).
    pub clock_steps: u64,
    /// Bytes by table.
    pub tables: Vec<(&'static str, u64)>,
    /// Bytes of the file on disk.
    pub file_bytes: u64,
    /// What all rows take of the file, by redb's allocation: what `max_size` bounds.
    pub used_bytes: u64,
    /// Spans that `max_size` took before their time, by the resolution of their tier in nanoseconds; 0 for slices that were
    /// in no tier yet. Since this process started.
    pub shed: Vec<(i64, u64)>,
    /// What the sources did since this process started, committed.
    pub tallies: Vec<SourceTally>,
    /// What was accepted and never committed, once the store has ended without it. Its recorded samples are those that
    /// were in flight.
    pub uncommitted: Vec<SourceTally>,
    /// Nanoseconds of recent commits, taken by whoever reads them.
    pub durations: Vec<i64>,
}

/// A way to reach the store; cloned freely.
#[derive(Clone)]
pub struct StoreHandle {
    inbox: Sender<Message>,
    status: Arc<Mutex<StoreStatus>>,
    pub(super) wants_tick: Arc<AtomicBool>,
    pub(super) kept: KeptView,
}

impl StoreHandle {
    /// A snapshot of its state.
    pub fn status(&self) -> StoreStatus {
        self.lock().clone()
    }

    /// Takes the durations of recent commits.
    pub fn take_durations(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock().durations)
    }

    /// Asks for a tick at once and answers when everything received before is durable and folded.
    pub fn flush(&self, reply: FlushReply) {
        if let Err(refused) = self.inbox.try_send(Message::Flush(reply)) {
            let (crate::channel::Refused::Full(message) | crate::channel::Refused::Closed(message)) = refused;
            if let Message::Flush(reply) = message {
                reply(None);
            }
        }
    }

    /// Begins new lives of these series with the next commits (R3); answers when all are durable and folded. Answered
    /// with `None` it may still happen, once the store commits again.
    pub fn reset(&self, series: Vec<(Kind, SeriesId)>, reply: FlushReply) {
        if let Err(refused) = self.inbox.try_send(Message::Reset(series, reply)) {
            let (crate::channel::Refused::Full(message) | crate::channel::Refused::Closed(message)) = refused;
            if let Message::Reset(_, reply) = message {
                reply(None);
            }
        }
    }

    /// A replayable source begins an incarnation (C2): what older ones sent and is not whole is discarded. The
    /// answer says where every known partition must be read from; an epoch under way is asked for again.
    /// The reply is dropped when the store has stopped.
    pub fn seek(&self, source: SourceIndex, incarnation: u32, reply: SeekReply) {
        // Once the store is gone there is nothing to seek to, and the dropped reply says so.
        let _ = self.inbox.send_blocking(Message::Seek { source, incarnation, reply });
    }

    /// The newest kept events, newest first: of one schema, or of all by event time.
    pub fn kept(&self, event: Option<&str>, limit: usize) -> Vec<KeptRow> {
        self.kept.newest(event, limit)
    }

    /// The pipeline was reloaded: other pairs and kept schemas from the next commit on. Sent before any shard
    /// works by the new rules, so that what they say is known.
    pub fn set_plan(&self, plan: EventsPlan) {
        // Once the store is gone there is nothing left to join.
        let _ = self.inbox.send_blocking(Message::Plan(Box::new(plan)));
    }

    /// The pipeline was reloaded. Sent before any shard works by the new rules: what they count then is folded by what
    /// is said here. `done` is called when it has taken effect, and dropped when the store has stopped.
    pub fn reload(&self, reload: StoreReload, done: Box<dyn FnOnce() + Send>) {
        // Once the store is gone there is nothing left to fold.
        let _ = self.inbox.send_blocking(Message::Reload(Box::new(reload), done));
    }

    /// Runs something on the store's thread; it is dropped when the store has stopped.
    pub fn within(&self, call: StoreCall) {
        // Once the store is gone there is nothing to do it with.
        let _ = self.inbox.send_blocking(Message::Within(call));
    }

    /// A last tick and commit, then the file is closed and the thread ends. A store that cannot commit tries again for so
    /// long, for the disk may have room in time; what it then has not written stands in [`StoreStatus::uncommitted`].
    pub fn stop(&self, patience: Duration, reply: FlushReply) {
        if let Err(refused) = self.inbox.send_blocking(Message::Stop(reply, patience)) {
            let (crate::channel::Refused::Full(message) | crate::channel::Refused::Closed(message)) = refused;
            if let Message::Stop(reply, _) = message {
                reply(None);
            }
        }
    }

    /// A step of a job, or why there is none; false when the store is gone.
    pub(super) fn step(&self, number: u64, outcome: Result<Option<Step>, StoreError>) -> bool {
        self.inbox.send_blocking(Message::Step(number, outcome)).is_ok()
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, StoreStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SealSink for StoreHandle {
    fn sealed(&self, sealed: Sealed) {
        // At most two combiners a shard and group exist, so the inbox cannot be full of them; when the
        // store is gone there is nothing left to commit to.
        let _ = self.inbox.send_blocking(Message::Sealed(Box::new(sealed)));
    }

    fn wants_tick(&self) {
        if !self.wants_tick.swap(true, Ordering::AcqRel) {
            // When the inbox is full a tick is near anyway.
            let _ = self.inbox.try_send(Message::WantsTick);
        }
    }
}

/// The inbox of a store that has not been started.
pub struct StoreInbox(pub(super) Receiver<Message>);

/// A handle and the inbox for [`StoreActor::new`](super::StoreActor::new); shards need the handle before the store can start.
pub fn store_channel() -> (StoreHandle, StoreInbox) {
    let (inbox, receiver) = bounded(INBOX_CAPACITY);
    let status = StoreStatus { is_up: true, has_room: true, ..StoreStatus::default() };
    let wants_tick = Arc::new(AtomicBool::new(false));
    let (status, kept) = (Arc::new(Mutex::new(status)), KeptView::default());
    (StoreHandle { inbox, status, wants_tick, kept }, StoreInbox(receiver))
}
