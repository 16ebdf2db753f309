//! The way of one in-process thread to its shard: a ring of 16-byte events and slots for counters.
//!
//! In: one producer thread writes, without a lock and without allocation. Out: its shard reads, at least
//! every poll and always before a seal. Owns: the ring's memory. Invariants: exactly one writer and one
//! reader; an event is visible once `tail` is; a counter's slot only grows (it wraps), so the reader
//! takes differences. No `unsafe`: the words are relaxed atomics, which cost plain loads and stores.

use crate::channel::Waker;
use crate::event::{Kind, RejectReason, Slot};
use arrayvec::ArrayVec;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What an event's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RingOp {
    /// A distribution's value in scale units (i64).
    Units = 0,
    /// A gauge set to this (f64 bits).
    Set = 1,
    /// A gauge moved by this (f64 bits).
    Adjust = 2,
    /// A set's member (its hash).
    Member = 3,
}

/// Why a handle may refuse a call.
pub const REFUSALS: [RejectReason; 3] = [RejectReason::NotFinite, RejectReason::Negative, RejectReason::OutOfRange];

/// How long a producer sleeps that finds its ring full; the kernel's slack adds 50 µs.
const FULL_WAIT: Duration = Duration::from_micros(20);
/// How often it wakes its shard anew while the ring stays full: a wrong wake-up costs less than a lost one.
const LOOKS_BETWEEN_WAKES: u32 = 16;
/// Events that are handed over together.
pub const RUN: usize = 64;

/// One event as the reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingEvent {
    /// Slot (32 bits), operation (8), weight (24), from the lowest bit.
    first: u64,
    /// See [`RingOp`].
    pub value: u64,
}

impl RingEvent {
    /// The series.
    #[inline(always)]
    pub fn slot(self) -> Slot {
        Slot(self.first as u32)
    }

    /// What `value` means.
    #[inline(always)]
    pub fn op(self) -> RingOp {
        match self.first >> 32 & 0xFF {
            0 => RingOp::Units,
            1 => RingOp::Set,
            2 => RingOp::Adjust,
            _ => RingOp::Member,
        }
    }

    /// Its meaning is the operation's; see [`super::pack_weight`].
    #[inline(always)]
    pub fn weight(self) -> u64 {
        self.first >> 40
    }

    /// True for a distribution's value without weight, digits or buckets of its own: the common case.
    #[inline(always)]
    pub fn is_plain_units(self) -> bool {
        self.first >> 32 == 0
    }
}

#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// The shared part of a ring.
pub struct Ring {
    events: Box<[[AtomicU64; 2]]>,
    /// Events written; only the producer stores.
    tail: Padded<AtomicU64>,
    /// Events read; only the shard stores.
    head: Padded<AtomicU64>,
    closed: AtomicBool,
    /// True once nobody reads any more.
    abandoned: AtomicBool,
    /// Events refused because the ring was full (policy `drop_newest`).
    dropped: AtomicU64,
    /// Calls refused by a handle: not finite, negative, out of range.
    refused: [AtomicU64; REFUSALS.len()],
    counters: Mutex<Vec<Arc<CounterCell>>>,
    waker: Waker,
}

/// A counter's slot, written by one thread; a cache line of its own, so that threads do not share it.
#[repr(align(64))]
#[derive(Default)]
pub struct CounterCell {
    /// Whole increments since the start, wrapping.
    whole: AtomicU64,
    /// Fractions in 10⁻⁹ since the start, wrapping.
    nanos: AtomicI64,
    slot: u32,
    /// What the reader has seen, touched by the shard only.
    seen_whole: AtomicU64,
    seen_nanos: AtomicI64,
}

impl CounterCell {
    /// Adds a whole increment: a load and a store, no locked instruction.
    #[inline(always)]
    pub fn add(&self, by: u64) {
        self.whole.store(self.whole.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
    }

    /// Adds a fraction in 10⁻⁹.
    #[inline(always)]
    pub fn add_nanos(&self, by: i64) {
        self.nanos.store(self.nanos.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
    }

    /// What was added since the last harvest, as (whole, nanos); by the reader only.
    fn harvest(&self) -> (u64, i64) {
        let (whole, nanos) = (self.whole.load(Ordering::Acquire), self.nanos.load(Ordering::Acquire));
        let new = whole.wrapping_sub(self.seen_whole.load(Ordering::Relaxed));
        let new_nanos = nanos.wrapping_sub(self.seen_nanos.load(Ordering::Relaxed));
        self.seen_whole.store(whole, Ordering::Relaxed);
        self.seen_nanos.store(nanos, Ordering::Relaxed);
        (new, new_nanos)
    }
}

/// What happens to an event that finds the ring full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RingPolicy {
    /// Wait for the shard (never for the store).
    #[default]
    Block,
    /// Drop it and count it.
    DropNewest,
}

impl Ring {
    /// A ring of `capacity` events (rounded up to a power of two, at least 16) whose shard `waker` wakes.
    pub fn new(capacity: usize, waker: Waker) -> Arc<Ring> {
        let capacity = capacity.max(16).next_power_of_two();
        Arc::new(Ring {
            events: (0..capacity).map(|_| Default::default()).collect(),
            tail: Padded::default(),
            head: Padded::default(),
            closed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            refused: Default::default(),
            counters: Mutex::new(Vec::new()),
            waker,
        })
    }

    /// Events waiting.
    pub fn depth(&self) -> u64 {
        self.tail.0.load(Ordering::Acquire) - self.head.0.load(Ordering::Acquire)
    }

    /// Takes up to what is queued now, oldest first, in runs of at most [`RUN`] so that the visitor can
    /// prefetch. By the shard only.
    pub fn drain(&self, mut visit: impl FnMut(&[RingEvent])) -> u64 {
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Acquire);
        let mask = self.events.len() - 1;
        let count = tail - head;
        let mut run: ArrayVec<RingEvent, RUN> = ArrayVec::new();
        while head != tail {
            // Giving places back in runs keeps the producer's line from bouncing at every event.
            let run_end = tail.min(head + RUN as u64);
            while head != run_end {
                let [first, value] = &self.events[head as usize & mask];
                run.push(RingEvent { first: first.load(Ordering::Relaxed), value: value.load(Ordering::Relaxed) });
                head += 1;
            }
            self.head.0.store(head, Ordering::Release);
            visit(&run);
            run.clear();
        }
        count
    }

    /// Visits every counter that grew since the last harvest. By the shard only.
    pub fn harvest(&self, mut visit: impl FnMut(Slot, u64, i64)) {
        for cell in self.counters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (whole, nanos) = cell.harvest();
            if whole != 0 || nanos != 0 {
                visit(Slot(cell.slot), whole, nanos);
            }
        }
    }

    /// Events dropped since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::AcqRel)
    }

    /// Calls that handles refused since the last call, by reason.
    pub fn take_refused(&self, mut visit: impl FnMut(RejectReason, u64)) {
        for (count, reason) in self.refused.iter().zip(REFUSALS) {
            let count = count.swap(0, Ordering::AcqRel);
            if count > 0 {
                visit(reason, count);
            }
        }
    }

    /// True when the producer is gone; what it wrote before is then visible.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Says that nobody reads any more: what is pushed from here on is dropped.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn add_counter(&self, slot: Slot) -> Arc<CounterCell> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = counters.iter().find(|cell| cell.slot == slot.0) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(CounterCell { slot: slot.0, ..CounterCell::default() });
        counters.push(Arc::clone(&cell));
        cell
    }
}

/// The writing end: owned by one thread.
///
/// The counters are `Cell`s, so that many handles of one thread can share it without a borrow flag.
pub struct RingWriter {
    ring: Arc<Ring>,
    policy: RingPolicy,
    tail: Cell<u64>,
    /// Up to here it may write without looking at `head`.
    check_at: Cell<u64>,
}

impl RingWriter {
    /// The only writer of a new ring.
    pub fn new(ring: Arc<Ring>, policy: RingPolicy) -> RingWriter {
        let check_at = ring.events.len() as u64 / 4;
        RingWriter { ring, policy, tail: Cell::new(0), check_at: Cell::new(check_at) }
    }

    /// Writes one event.
    #[inline(always)]
    pub fn push(&self, slot: Slot, op: RingOp, weight: u64, value: u64) {
        let tail = self.tail.get();
        if tail == self.check_at.get() && !self.make_room(tail) {
            return;
        }
        let place = &self.ring.events[tail as usize & (self.ring.events.len() - 1)];
        let first = u64::from(slot.0) | (op as u64) << 32 | weight << 40;
        place[0].store(first, Ordering::Relaxed);
        place[1].store(value, Ordering::Relaxed);
        self.tail.set(tail + 1);
        self.ring.tail.0.store(tail + 1, Ordering::Release);
    }

    /// At a quarter of the ring, and when it is full: wakes the shard, then waits or drops.
    #[cold]
    #[inline(never)]
    fn make_room(&self, tail: u64) -> bool {
        let capacity = self.ring.events.len() as u64;
        let mut looks = 0u32;
        loop {
            let head = self.ring.head.0.load(Ordering::Acquire);
            let used = tail - head;
            // Once is enough: a shard that was woken reads until the ring is empty.
            if used >= capacity / 4 && looks == 0 {
                self.ring.waker.wake();
            }
            if used < capacity {
                self.check_at.set(tail + (capacity - used).min(capacity / 4));
                return true;
            }
            if self.policy == RingPolicy::DropNewest || self.ring.abandoned.load(Ordering::Acquire) {
                self.ring.dropped.fetch_add(1, Ordering::AcqRel);
                return false;
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_BETWEEN_WAKES) {
                self.ring.waker.wake();
            }
            // Asleep, because the shard needs this core on a small machine; it takes a full ring 150 µs and more.
            std::thread::sleep(FULL_WAIT);
        }
    }

    /// Counts a call that a handle refused; the reason is one of [`REFUSALS`].
    #[cold]
    pub fn refuse(&self, reason: RejectReason) {
        if let Some(at) = REFUSALS.iter().position(|known| *known == reason) {
            self.ring.refused[at].fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The slot of a counter, the same for the same series.
    pub fn counter(&self, slot: Slot) -> Arc<CounterCell> {
        self.ring.add_counter(slot)
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }
}

impl Drop for RingWriter {
    fn drop(&mut self) {
        self.ring.closed.store(true, Ordering::Release);
        self.ring.waker.wake();
    }
}

/// The kind of series an operation belongs to.
pub fn kind_of(op: RingOp) -> Kind {
    match op {
        RingOp::Units => Kind::Distribution,
        RingOp::Set | RingOp::Adjust => Kind::Gauge,
        RingOp::Member => Kind::Set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_in_order_through_many_rounds() {
        let ring = Ring::new(64, Waker::new().expect("a descriptor"));
        let writer = RingWriter::new(Arc::clone(&ring), RingPolicy::Block);
        let reader = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut seen = Vec::new();
                while !(ring.is_closed() && ring.depth() == 0) {
                    ring.drain(|run| seen.extend(run.iter().map(|event| event.value)));
                }
                seen
            });
            for n in 0..10_000 {
                writer.push(Slot(n as u32), RingOp::Units, 4096, n);
            }
            drop(writer);
            reading.join().expect("the reader ends")
        });
        assert_eq!(reader, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn c6_a_full_ring_with_drop_newest_counts_what_it_drops() {
        let ring = Ring::new(16, Waker::new().expect("a descriptor"));
        let writer = RingWriter::new(Arc::clone(&ring), RingPolicy::DropNewest);
        for n in 0..100 {
            writer.push(Slot(0), RingOp::Set, 4096, n);
        }
        let mut seen = 0;
        ring.drain(|run| seen += run.len() as u64);
        assert_eq!(seen + ring.take_dropped(), 100);
        assert_eq!(ring.take_dropped(), 0);
    }

    #[test]
    fn a_counter_is_harvested_once() {
        let ring = Ring::new(16, Waker::new().expect("a descriptor"));
        let writer = RingWriter::new(Arc::clone(&ring), RingPolicy::Block);
        let cell = writer.counter(Slot(3));
        cell.add(5);
        cell.add_nanos(250_000_000);
        let mut harvests = Vec::new();
        ring.harvest(|slot, whole, nanos| harvests.push((slot, whole, nanos)));
        ring.harvest(|slot, whole, nanos| harvests.push((slot, whole, nanos)));
        assert_eq!(harvests, vec![(Slot(3), 5, 250_000_000)]);
    }
}
