//! What a running reactor is told: listeners come, go, or belong to another source (R1).
//!
//! In: orders of any thread. Out: a changed set of sockets; a call once what left was read. Owns: the queue of orders.
//! Invariants: what is not named is not touched; a socket that leaves is read until it would block once, and its streams end
//! at a frame, as at a stop (K7), while the others have their turns; a client that keeps sending is cut after
//! `LEAVE_NANOS_MAX`.

use super::listener::BoundListener;
use super::reactor::{Consumer, Reactor, StreamListener, token};
use super::reactor::{DATAGRAM, DatagramSocket, LISTENER};
use crate::channel::Waker;
use crate::event::{Clock, SourceIndex};
use rustix::event::epoll;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How long a socket that leaves is read while its clients keep sending.
const LEAVE_NANOS_MAX: i64 = 1_000_000_000;
/// Connections that were waiting when a listener left and that are still accepted: its whole backlog.
const LEAVE_ACCEPTS_MAX: usize = 4096;

/// One change.
#[derive(Clone, Debug)]
pub enum Order {
    /// Reads this socket too.
    Open(SourceIndex, BoundListener),
    /// What this socket and its connections bring is of another source from here on.
    Assign(SourceIndex, BoundListener),
    /// Reads what was sent to this socket and its connections, then lets go of them.
    Close(BoundListener),
}

struct Parcel {
    orders: Vec<Order>,
    done: Box<dyn FnOnce() + Send>,
}

/// The orders that a reactor has not looked at.
#[derive(Default)]
pub(super) struct Inbox {
    /// Read in every turn, so that the lock is not.
    is_pending: AtomicBool,
    parcels: Mutex<Vec<Parcel>>,
}

impl Inbox {
    fn take(&self) -> Vec<Parcel> {
        let mut parcels = self.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_pending.store(false, Ordering::Relaxed);
        std::mem::take(&mut *parcels)
    }
}

/// A way to reach a reactor; cloned freely.
#[derive(Clone)]
pub struct ReactorHandle {
    inbox: Arc<Inbox>,
    waker: Waker,
}

impl ReactorHandle {
    /// Follows orders between two batches. `done` is called when everything that was to leave has left, and dropped when
    /// the reactor has ended.
    pub fn tell(&self, orders: Vec<Order>, done: Box<dyn FnOnce() + Send>) {
        let mut parcels = self.inbox.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        parcels.push(Parcel { orders, done });
        self.inbox.is_pending.store(true, Ordering::Release);
        drop(parcels);
        self.waker.wake();
    }
}

/// Sockets that are on their way out.
#[derive(Default)]
pub(super) struct Leaving {
    /// Monotonic time at which they are cut.
    until: i64,
    done: Vec<Box<dyn FnOnce() + Send>>,
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }
}

impl<C: Clock> Reactor<C> {
    /// How others reach it while it runs.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle { inbox: Arc::clone(&self.inbox), waker: self.waker.clone() }
    }

    /// Polls one more socket.
    pub(super) fn open(&mut self, source: SourceIndex, listener: BoundListener) -> std::io::Result<()> {
        if listener.spec().is_stream() {
            self.add(&listener, LISTENER, self.listeners.len())?;
            self.listeners.push(StreamListener::new(listener, source));
        } else {
            self.add(&listener, DATAGRAM, self.datagrams.len())?;
            self.datagrams.push(DatagramSocket { listener, source, is_hot: false, is_leaving: false });
        }
        Ok(())
    }

    /// Exclusive: of several reactors that share a socket one is woken, not all.
    pub(super) fn add(&self, listener: &BoundListener, kind: u64, place: usize) -> std::io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        Ok(epoll::add(&self.epoll, listener, token(kind, place), flags)?)
    }

    /// Follows the orders that have come; called between two batches, when nothing that epoll reported is left over.
    #[inline]
    pub(super) fn follow_orders(&mut self, monotonic: i64, consumer: &mut impl Consumer) {
        if self.inbox.is_pending.load(Ordering::Acquire) {
            for Parcel { orders, done } in self.inbox.take() {
                self.leaving.until = monotonic.saturating_add(LEAVE_NANOS_MAX);
                orders.into_iter().for_each(|order| self.follow(order, consumer));
                self.leaving.done.push(done);
            }
        }
        if !self.leaving.is_empty() {
            self.part(monotonic, consumer);
        }
    }

    fn follow(&mut self, order: Order, consumer: &mut impl Consumer) {
        match order {
            Order::Open(source, listener) => {
                let address = listener.address();
                if let Err(error) = self.open(source, listener) {
                    tracing::error!(address, %error, "a new socket cannot be polled: nothing is read from it");
                }
            }
            Order::Assign(source, listener) => {
                for socket in self.datagrams.iter_mut().filter(|socket| socket.listener.is_same(&listener)) {
                    socket.source = source;
                }
                for known in self.listeners.iter_mut().filter(|known| known.listener.is_same(&listener)) {
                    known.source = source;
                }
                self.connections.assign(listener.number(), source);
            }
            Order::Close(listener) => {
                for socket in self.datagrams.iter_mut().filter(|socket| socket.listener.is_same(&listener)) {
                    (socket.is_leaving, socket.is_hot) = (true, true);
                }
                if let Some(at) = self.listeners.iter().position(|known| known.listener.is_same(&listener)) {
                    // Who has connected may have sent already.
                    self.accept(at, LEAVE_ACCEPTS_MAX, consumer);
                    self.forget_listener(at);
                }
                self.connections.leave(listener.number());
            }
        }
    }

    fn forget_listener(&mut self, at: usize) {
        let gone = self.listeners.swap_remove(at);
        // Other reactors may hold the socket open, so that closing it would not take it out of the set. It is not in the
        // set while it rests.
        let _ = epoll::delete(&self.epoll, &gone.listener);
        if let Some(moved) = self.listeners.get(at).filter(|moved| moved.rests_until.is_none()) {
            let _ = epoll::delete(&self.epoll, &moved.listener);
            if let Err(error) = self.add(&moved.listener, LISTENER, at) {
                tracing::error!(address = moved.listener.address(), %error, "a socket cannot be polled any more");
            }
        }
    }

    fn forget_datagrams(&mut self, at: usize) {
        let gone = self.datagrams.swap_remove(at);
        let _ = epoll::delete(&self.epoll, &gone.listener);
        if let Some(moved) = self.datagrams.get(at) {
            let _ = epoll::delete(&self.epoll, &moved.listener);
            if let Err(error) = self.add(&moved.listener, DATAGRAM, at) {
                tracing::error!(address = moved.listener.address(), %error, "a socket cannot be polled any more");
            }
        }
    }

    /// Lets go of what has been read to its end.
    fn part(&mut self, monotonic: i64, consumer: &mut impl Consumer) {
        let is_over = monotonic >= self.leaving.until;
        let mut at = 0;
        while at < self.datagrams.len() {
            let socket = &self.datagrams[at];
            if socket.is_leaving && (is_over || !socket.is_hot) {
                if socket.listener.inode().is_some() {
                    self.count_drops(consumer);
                }
                self.forget_datagrams(at);
            } else {
                at += 1;
            }
        }
        if is_over {
            self.connections.cut_leaving();
        }
        if !self.connections.has_leaving() && !self.datagrams.iter().any(|socket| socket.is_leaving) {
            self.leaving.done.drain(..).for_each(|done| done());
        }
    }
}
