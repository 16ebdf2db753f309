//! The way of one in-process thread to its shard: a ring of events in words of 8 bytes, and slots for counters.
//!
//! In: one producer thread writes, without a lock and without allocation. Out: its shard reads, at least
//! every poll and always before a seal. Owns: the ring's memory. Invariants: exactly one writer and one
//! reader; an event is visible once `tail` is, which never stands inside an event; a counter's slot only grows
//! (it wraps), so the reader takes differences. No `unsafe`: the words are relaxed atomics, which cost plain loads
//! and stores.
//!
//! A plain value below 2³² (4.29 s in nanoseconds) of a slot below 2³¹ is one word: the slot above the value. Any other
//! event is two: `LONG` with weight, operation and slot, then the value. A line of memory that goes from one core to
//! another costs 100 ns and more, so that half the bytes are most of the price of an event.

use crate::channel::Waker;
use crate::delta::prefetch_to_write;
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
    /// A counter's increment, whole.
    Count = 4,
    /// What a counter's increment has below one, in 10⁻⁹: belongs to the sample before it, and is none itself.
    Fraction = 5,
    /// A typed event that came to no sample.
    Nothing = 6,
}

/// Why a handle may refuse a call.
pub const REFUSALS: [RejectReason; 14] = [
    RejectReason::NotFinite,
    RejectReason::Negative,
    RejectReason::OutOfRange,
    RejectReason::MissingField,
    RejectReason::WrongType,
    RejectReason::ExtraField,
    RejectReason::DuplicateField,
    RejectReason::BadTimestamp,
    RejectReason::LabelTooLong,
    RejectReason::GaugeOperationWithTime,
    RejectReason::BadWeight,
    RejectReason::TooManyLabels,
    RejectReason::ReservedLabel,
    RejectReason::InvalidUtf8,
];

/// How long a producer sleeps that finds its ring full; the kernel's slack adds 50 µs.
const FULL_WAIT: Duration = Duration::from_micros(20);
/// How often it wakes its shard anew while the ring stays full: a wrong wake-up costs less than a lost one.
const LOOKS_BETWEEN_WAKES: u32 = 16;
/// Events that are handed over together: enough that the visitor's prefetching has little beginning, and 4 KiB.
pub const RUN: usize = 256;

/// Words of a cache line, and how far ahead of its writing the producer asks for one: 16 lines, as it fills one in 10 ns.
const LINE_WORDS: u64 = 8;
const WORDS_AHEAD: u64 = 16 * LINE_WORDS;

/// Marks the first of two words.
const LONG: u64 = 1 << 63;
/// Where the operation (7 bits) and the weight (24 bits) stand in the first of two words, above the slot.
const OP_SHIFT: u32 = 32;
const WEIGHT_SHIFT: u32 = 39;
/// In the operation: one more sample of the event before.
const PART: u64 = 0x40;
/// Where the slot stands in an event of one word, above its value.
const SHORT_SLOT_SHIFT: u32 = 32;

/// One event as the reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingEvent {
    /// Slot (32 bits), operation (7), weight (24), from the lowest bit.
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
        match self.first >> OP_SHIFT & (PART - 1) {
            0 => RingOp::Units,
            1 => RingOp::Set,
            2 => RingOp::Adjust,
            3 => RingOp::Member,
            4 => RingOp::Count,
            5 => RingOp::Fraction,
            _ => RingOp::Nothing,
        }
    }

    /// True for a sample of a typed event whose first sample came before it: not an input of its own.
    #[inline(always)]
    pub fn is_part(self) -> bool {
        self.first >> OP_SHIFT & PART != 0
    }

    /// Its meaning is the operation's; see [`super::pack_weight`].
    #[inline(always)]
    pub fn weight(self) -> u64 {
        self.first >> WEIGHT_SHIFT
    }

    /// True for a distribution's value without weight, digits or buckets of its own: the common case.
    #[inline(always)]
    pub fn is_plain_units(self) -> bool {
        self.first >> OP_SHIFT == 0
    }
}

/// All of an event but its value, made once by whoever pushes the like of it often.
#[derive(Clone, Copy, Debug)]
pub struct EventHead(u64);

impl EventHead {
    /// The head of events of this series.
    #[inline]
    pub fn new(slot: Slot, op: RingOp, weight: u64) -> EventHead {
        if op == RingOp::Units && weight == 0 && slot.0 < 1 << 31 {
            return EventHead(u64::from(slot.0) << SHORT_SLOT_SHIFT);
        }
        EventHead(LONG | weight << WEIGHT_SHIFT | (op as u64) << OP_SHIFT | u64::from(slot.0))
    }

    /// The same, as one more sample of the event before.
    pub fn part(self) -> EventHead {
        EventHead(self.long() | PART << OP_SHIFT)
    }

    /// The first of two words.
    #[inline]
    fn long(self) -> u64 {
        if self.0 & LONG != 0 { self.0 } else { LONG | self.0 >> SHORT_SLOT_SHIFT }
    }
}

#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// The shared part of a ring.
pub struct Ring {
    words: Box<[AtomicU64]>,
    /// Words written; only the producer stores.
    tail: Padded<AtomicU64>,
    /// Words read; only the shard stores.
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
    /// A ring of `capacity` words (rounded up to a power of two, at least 16) whose shard `waker` wakes.
    pub fn new(capacity: usize, waker: Waker) -> Arc<Ring> {
        let capacity = capacity.max(16).next_power_of_two();
        Arc::new(Ring {
            words: (0..capacity).map(|_| Default::default()).collect(),
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

    /// Words waiting.
    pub fn depth(&self) -> u64 {
        self.tail.0.load(Ordering::Acquire) - self.head.0.load(Ordering::Acquire)
    }

    /// Takes up to what is queued now, oldest first, in runs of at most [`RUN`] so that the visitor can
    /// prefetch; returns how many events. By the shard only.
    pub fn drain(&self, mut visit: impl FnMut(&[RingEvent])) -> u64 {
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Acquire);
        let mask = self.words.len() - 1;
        let word = |at: u64| self.words[at as usize & mask].load(Ordering::Relaxed);
        let mut run: ArrayVec<RingEvent, RUN> = ArrayVec::new();
        let mut count = 0;
        while head != tail {
            while head != tail && !run.is_full() {
                let first = word(head);
                if first & LONG == 0 {
                    run.push(RingEvent { first: first >> SHORT_SLOT_SHIFT, value: first & u64::from(u32::MAX) });
                    head += 1;
                } else {
                    run.push(RingEvent { first: first & !LONG, value: word(head + 1) });
                    head += 2;
                }
            }
            // Giving places back in runs keeps the producer's line from bouncing at every event.
            self.head.0.store(head, Ordering::Release);
            visit(&run);
            count += run.len() as u64;
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
/// The counter is a `Cell`, so that many handles of one thread can share it without a borrow flag.
pub struct RingWriter {
    ring: Arc<Ring>,
    policy: RingPolicy,
    /// Up to here it may write without looking at `head`.
    check_at: Cell<u64>,
}

impl RingWriter {
    /// The only writer of a new ring.
    pub fn new(ring: Arc<Ring>, policy: RingPolicy) -> RingWriter {
        let check_at = ring.words.len() as u64 / 4;
        RingWriter { ring, policy, check_at: Cell::new(check_at) }
    }

    /// Writes one event.
    #[inline(always)]
    pub fn push(&self, head: EventHead, value: u64) {
        // Its own word: no copy beside it, because stores are what a saturated producer waits for.
        let tail = self.ring.tail.0.load(Ordering::Relaxed);
        // `check_at` leaves one word behind it free, so that an event of two fits.
        if tail >= self.check_at.get() && !self.make_room(tail) {
            return;
        }
        if (head.0 & LONG) | value >> SHORT_SLOT_SHIFT != 0 {
            return self.push_long(head, value, tail);
        }
        if tail.is_multiple_of(LINE_WORDS) {
            prefetch_to_write(self.word(tail + WORDS_AHEAD));
        }
        self.word(tail).store(head.0 | value, Ordering::Relaxed);
        self.publish(tail + 1);
    }

    #[inline(never)]
    fn push_long(&self, head: EventHead, value: u64, tail: u64) {
        self.word(tail).store(head.long(), Ordering::Relaxed);
        self.word(tail + 1).store(value, Ordering::Relaxed);
        self.publish(tail + 2);
    }

    #[inline(always)]
    fn word(&self, at: u64) -> &AtomicU64 {
        &self.ring.words[at as usize & (self.ring.words.len() - 1)]
    }

    #[inline(always)]
    fn publish(&self, tail: u64) {
        self.ring.tail.0.store(tail, Ordering::Release);
    }

    /// At every quarter of the ring, and when it is full: wakes the shard once half is used, waits or drops when all is.
    #[cold]
    #[inline(never)]
    fn make_room(&self, tail: u64) -> bool {
        let capacity = self.ring.words.len() as u64;
        let mut looks = 0u32;
        loop {
            let used = tail - self.ring.head.0.load(Ordering::Acquire);
            // Once is enough: a shard that was woken reads until the ring is empty. At 10 M/s its own polling comes
            // before the ring is half full, and a call is spared the wake-up.
            if used >= capacity / 2 && looks == 0 {
                self.ring.waker.wake();
            }
            // Who has waited goes on at half, so that the two do not take turns for a few events each.
            let limit = if looks == 0 { capacity - 1 } else { capacity / 2 + 1 };
            if used < limit {
                self.check_at.set(tail + (capacity - 1 - used).min(capacity / 4));
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
            // Asleep, because the shard needs this core on a small machine; it takes half a ring about as long.
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
        RingOp::Count | RingOp::Fraction | RingOp::Nothing => Kind::Counter,
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
                    ring.drain(|run| seen.extend(run.iter().copied()));
                }
                seen
            });
            for n in 0..10_000 {
                // Of one word and of two, by weight and by value.
                let head = EventHead::new(Slot(n as u32), RingOp::Units, n % 2);
                writer.push(head, n << (n % 3 * 20));
            }
            drop(writer);
            reading.join().expect("the reader ends")
        });
        let expected = |n: u64| {
            let seen = reader[n as usize];
            (seen.slot(), seen.op(), seen.weight(), seen.value)
                == (Slot(n as u32), RingOp::Units, n % 2, n << (n % 3 * 20))
        };
        assert_eq!(reader.len(), 10_000);
        assert_eq!((0..10_000).find(|n| !expected(*n)), None);
    }

    #[test]
    fn an_event_keeps_every_field() {
        let ring = Ring::new(16, Waker::new().expect("a descriptor"));
        let writer = RingWriter::new(Arc::clone(&ring), RingPolicy::Block);
        let ops = [
            RingOp::Units,
            RingOp::Set,
            RingOp::Adjust,
            RingOp::Member,
            RingOp::Count,
            RingOp::Fraction,
            RingOp::Nothing,
        ];
        for slot in [0, 1, (1 << 31) - 1, 1 << 31, u32::MAX] {
            for op in ops {
                for weight in [0, 1, (1 << 24) - 1] {
                    for value in [0, 1, u64::from(u32::MAX), 1 << 32, -1i64 as u64] {
                        writer.push(EventHead::new(Slot(slot), op, weight), value);
                        let mut seen = Vec::new();
                        ring.drain(|run| seen.extend_from_slice(run));
                        let [event] = seen[..] else { panic!("{seen:?}") };
                        assert_eq!(
                            (event.slot().0, event.op(), event.weight(), event.value),
                            (slot, op, weight, value)
                        );
                        assert_eq!(event.is_plain_units(), op == RingOp::Units && weight == 0);
                    }
                }
            }
        }
    }

    #[test]
    fn c6_a_full_ring_with_drop_newest_counts_what_it_drops() {
        let ring = Ring::new(16, Waker::new().expect("a descriptor"));
        let writer = RingWriter::new(Arc::clone(&ring), RingPolicy::DropNewest);
        for n in 0..100 {
            writer.push(EventHead::new(Slot(0), if n % 3 == 0 { RingOp::Set } else { RingOp::Units }, 0), n);
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
