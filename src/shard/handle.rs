//! How others reach a shard: commands in its inbox, and what it must know before it reads a ring.
//!
//! In: calls of any thread. Out: commands, and a woken loop. Invariant: a handle waits for the shard's inbox at most.

use super::*;

/// Declared buckets of slots that handles will record to. Not a command: a shard reads rings before commands, so that a
/// seal holds every call before it, and the first value of a handle must not be read before its buckets.
#[derive(Default)]
pub(super) struct BucketNotes {
    is_pending: AtomicBool,
    notes: Mutex<Vec<(Slot, Arc<Metric>)>>,
}

impl BucketNotes {
    fn push(&self, slot: Slot, metric: Arc<Metric>) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push((slot, metric));
        self.is_pending.store(true, Ordering::Release);
    }

    /// What was noted before any event that a ring's tail shows.
    #[inline]
    pub(super) fn take(&self) -> Vec<(Slot, Arc<Metric>)> {
        if !self.is_pending.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_pending.store(false, Ordering::Relaxed);
        std::mem::take(&mut *notes)
    }
}

/// A way to reach a shard; cloned freely.
#[derive(Clone)]
pub struct ShardHandle {
    pub(super) inbox: Sender<Command>,
    pub(super) notes: Arc<BucketNotes>,
    pub(super) waker: Waker,
}

impl ShardHandle {
    /// The eventfd that the shard's loop polls.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Decodes lines one by one and answers what each became.
    ///
    /// # Errors
    /// The payload back when the shard has too much to do, or is gone.
    pub fn lines(&self, source: SourceIndex, payload: Vec<u8>, reply: LinesReply) -> Result<(), Vec<u8>> {
        self.send(Command::Lines { source, payload, reply }).map_err(|refused| match refused {
            Refused::Full(Command::Lines { payload, .. }) | Refused::Closed(Command::Lines { payload, .. }) => payload,
            _ => unreachable!("the refused command is the one sent"),
        })
    }

    /// Takes typed events, one line of JSON each, and answers which were refused. With `waits` it waits for room.
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped, or, without `waits`, has too much to do.
    pub fn events(&self, source: SourceIndex, payload: Vec<u8>, waits: bool, reply: EventsReply) -> Result<(), Gone> {
        let command = Command::Events { source, payload, reply };
        if waits { self.send_waiting(command) } else { self.send(command).map_err(|_| Gone) }
    }

    /// Takes one typed event whose fields were accepted. Waits for the shard when its inbox is full.
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped.
    pub fn event(&self, source: SourceIndex, event: Box<OwnedEvent>) -> Result<(), Gone> {
        self.send_waiting(Command::Owned { source, event })
    }

    /// Adds the ring of a new producer thread.
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped.
    pub fn attach(&self, source: SourceIndex, ring: Arc<Ring>) -> Result<(), Gone> {
        self.send_waiting(Command::Attach { source, ring })
    }

    /// Tells the shard the declared buckets of a slot before a handle records to it.
    pub fn note_buckets(&self, slot: Slot, metric: Arc<Metric>) {
        self.notes.push(slot, metric);
    }

    /// Other rules take over between two batches; then `done` is called. Sockets and rings are not touched.
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped.
    pub fn reload(&self, what: ShardReload, done: Box<dyn FnOnce() + Send>) -> Result<(), Gone> {
        self.send_waiting(Command::Reload(Box::new(Reload { what, done })))
    }

    /// Samples of a replayable source. Waits for the shard when its inbox is full (policy `block`).
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped.
    pub fn replay(&self, source: SourceIndex, incarnation: u32, samples: Vec<ReplaySample>) -> Result<(), Gone> {
        self.send_waiting(Command::Batch { source, incarnation, samples })
    }

    /// The end of a replayable source's epoch.
    ///
    /// # Errors
    /// [`Gone`] when the shard stopped.
    pub fn barrier(&self, barrier: Barrier) -> Result<(), Gone> {
        self.send_waiting(Command::Barrier(barrier))
    }

    /// Ends the shard's loop after what is queued before.
    pub fn stop(&self) {
        // A shard that is gone has stopped already.
        let _ = self.send_waiting(Command::Stop);
    }

    fn send(&self, command: Command) -> Result<(), Refused<Command>> {
        self.inbox.try_send(command)?;
        self.waker.wake();
        Ok(())
    }

    pub(super) fn send_waiting(&self, command: Command) -> Result<(), Gone> {
        match self.inbox.try_send(command) {
            Ok(()) => {}
            Err(Refused::Closed(_)) => return Err(Gone),
            Err(Refused::Full(command)) => {
                self.waker.wake();
                self.inbox.send_blocking(command).map_err(|_| Gone)?;
            }
        }
        self.waker.wake();
        Ok(())
    }
}
