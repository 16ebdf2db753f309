//! Bounded channels between actors: the only file that names flume.
//!
//! In: whole messages, which are batches or commands. Out: the same, in order, or a counted refusal.
//! Owns: every queue's bound. Invariants: a sender never cancels a send half-way (measured: flume
//! delivers some cancelled `send_async` calls), so only `try_send` and an uncancelled blocking send
//! exist; a receiver takes everything that is queued in one go.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// What could not be sent comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// The queue is full.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The sending end.
pub struct Sender<T>(flume::Sender<T>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

/// The receiving end.
pub struct Receiver<T>(flume::Receiver<T>);

/// A channel of `capacity` messages.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = flume::bounded(capacity);
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// Sends if there is room.
    ///
    /// # Errors
    /// The message back, when the queue is full or the receiver gone.
    pub fn try_send(&self, message: T) -> Result<(), Refused<T>> {
        self.0.try_send(message).map_err(|error| match error {
            flume::TrySendError::Full(message) => Refused::Full(message),
            flume::TrySendError::Disconnected(message) => Refused::Closed(message),
        })
    }

    /// Waits for room. Only for threads that may stand still (readers with policy `block`).
    ///
    /// # Errors
    /// The message back, when the receiver is gone.
    pub fn send_blocking(&self, message: T) -> Result<(), Refused<T>> {
        self.0.send(message).map_err(|flume::SendError(message)| Refused::Closed(message))
    }

    /// Messages queued.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}

impl<T> Receiver<T> {
    /// The next message if one is queued.
    pub fn try_recv(&self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`Ended::TimedOut`] when none came in time, [`Ended::Closed`] when all senders are gone.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, Ended> {
        self.0.recv_timeout(timeout).map_err(|error| match error {
            flume::RecvTimeoutError::Timeout => Ended::TimedOut,
            flume::RecvTimeoutError::Disconnected => Ended::Closed,
        })
    }

    /// Waits for a message without blocking the runtime; dropping the future loses no message.
    pub async fn recv(&self) -> Option<T> {
        self.0.recv_async().await.ok()
    }

    /// True when nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a wait for a message ended without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// None came in time.
    TimedOut,
    /// All senders are gone.
    Closed,
}

/// Wakes a thread that sleeps in `epoll_wait`: an eventfd that the sleeper polls.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker nobody has woken.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> std::io::Result<Waker> {
        Ok(Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes the descriptor readable; cheap to repeat.
    pub fn wake(&self) {
        // The counter can only be full when the sleeper has not read it: then it is awake already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub fn reset(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
