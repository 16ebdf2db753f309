//! A shard: decodes, resolves, combines; one thread each. It holds only what arrived since the last tick.
//!
//! In: whole buffers of lines, events of in-process rings, batches of replayable sources. Out: sealed
//! combiners, through [`SealSink`]. Owns: a decoder, and per input group a combiner and its spare (C1).
//! Invariants: a batch is never held back; at most two combiners a group exist; what an older incarnation
//! sent is discarded (C2).
//!
//! [`Shard`] is plain state: the loop that feeds it (a fused reactor, or a channel of buffers) stands in
//! `source`, time is an argument. [`ShardHandle`] is how others reach it; [`tap`] is how people look at what passes.

mod acceptance;
mod cache;
mod decode;
mod notices;
mod recent;
mod replay;
mod handle;
pub mod ring;
pub mod tap;
#[cfg(test)]
mod tests;

pub use acceptance::Acceptance;
pub use decode::{Decoder, EventsVerdict, JsonOptions, LineOutcome, Origin, OwnedEvent, RefusedEvent};
pub use notices::{Notice, NoticeBody, RecentNotices};
pub use recent::{Allowance, RecentRejects, Reject};

pub use handle::ShardHandle;

use crate::channel::{Receiver, Refused, Sender, Waker, bounded};
use crate::delta::epoch::{Barrier, InputGroup, SealSink, Sealed, ShardPort};
use crate::delta::{BucketRule, Combiner, Edge};
use crate::event::{
    DropReason, Kind, Labels, Metric, RejectReason, ShardIndex, Slice, Slot, SourceIndex, Timestamp, UNITS_MAX,
};
use crate::rule::Rules;
use crate::sketch::{Digits, layout};
use ring::{Ring, RingEvent, RingOp, kind_of};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Commands that may wait for a shard. The store has at most a handful under way; `send` requests and new
/// producers fill the rest and are refused beyond.
const INBOX_CAPACITY: usize = 1024;
/// Entries of side maps (samples of other slices) at which a shard asks for an early tick: about 16 MB.
const SIDE_ENTRIES_MAX: usize = 200_000;
/// Events of a ring between the wish for a record and its use, and between the wish for its cells and theirs: memory
/// takes 100 ns, an event 5.
const RECORD_AHEAD: usize = 32;
const CELL_AHEAD: usize = 16;

/// Who asked for traced lines gets them back through this.
pub type LinesReply = Box<dyn FnOnce(Vec<(String, LineOutcome)>) + Send>;

/// A sample of a replayable source, resolved by whoever decodes it.
#[derive(Clone, Debug)]
pub struct ReplaySample {
    /// The family.
    pub metric: Arc<Metric>,
    /// The series.
    pub labels: Labels,
    /// Increment in 10⁻⁹ (counters), value in scale units (distributions), f64 bits (gauges), member hash.
    pub value: i128,
    /// Event time.
    pub time: Timestamp,
    /// Order among gauges of one time: (partition, offset, index).
    pub position: u64,
    /// In 1/4096.
    pub weight: u64,
}

/// Who asked for events to be taken gets the verdict through this.
pub type EventsReply = Box<dyn FnOnce(EventsVerdict) + Send>;

enum Command {
    Seal { epoch: u64 },
    Spare { group: InputGroup, combiner: Box<Combiner> },
    Forget { slots: Arc<[(Kind, Slot)]> },
    Lines { source: SourceIndex, payload: Vec<u8>, reply: LinesReply },
    Events { source: SourceIndex, payload: Vec<u8>, reply: EventsReply },
    Owned { source: SourceIndex, event: Box<OwnedEvent> },
    Attach { source: SourceIndex, ring: Arc<Ring> },
    Reload(Box<Reload>),
    Batch { source: SourceIndex, incarnation: u32, samples: Vec<ReplaySample> },
    Barrier(Barrier),
    Stop,
}

/// What a reload changes for a shard; takes effect between two batches.
#[derive(Clone)]
pub struct ShardReload {
    /// Other rules over the same metrics.
    pub rules: Arc<Rules>,
    /// Slots whose declared buckets changed.
    pub bounds: ChangedBounds,
    /// Where each source has its events' keys, by source index.
    pub json: Arc<[JsonOptions]>,
    /// The times to decide by; the width of a slice stays.
    pub acceptance: Acceptance,
    /// Raw text that the decoder may keep.
    pub cache_bytes: usize,
}

struct Reload {
    what: ShardReload,
    done: Box<dyn FnOnce() + Send>,
}

/// Slots whose declared buckets a reload changed, with those that count now.
pub type ChangedBounds = Arc<[(Slot, Option<Arc<BucketRule>>)]>;

/// The shard has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has stopped")]
pub struct Gone;

impl ShardPort for ShardHandle {
    fn seal(&self, epoch: u64) {
        let _ = self.send_waiting(Command::Seal { epoch });
    }

    fn give_back(&self, group: InputGroup, combiner: Box<Combiner>) {
        let _ = self.send_waiting(Command::Spare { group, combiner });
    }

    fn forget(&self, slots: Arc<[(Kind, Slot)]>) {
        let _ = self.send_waiting(Command::Forget { slots });
    }
}

/// A combiner, its spare, and for replayable input the incarnation it belongs to.
struct Lane {
    current: Box<Combiner>,
    spare: Option<Box<Combiner>>,
    incarnation: u32,
    /// A live seal that found no spare: answered as soon as one comes back.
    waiting: Option<u64>,
}

impl Lane {
    fn new(now: Timestamp, acceptance: &Acceptance) -> Lane {
        let slice = acceptance.slice.slice_of(now);
        Lane {
            current: Box::new(Combiner::new(slice)),
            spare: Some(Box::new(Combiner::new(slice))),
            incarnation: 0,
            waiting: None,
        }
    }
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Go on; in-process rings had events this turn when true.
    Continue {
        /// True when a ring had events: poll again soon.
        is_busy: bool,
    },
    /// A stop was asked for.
    Stop,
}

/// What one look at a ring brought.
#[derive(Default)]
struct Read {
    samples: [u64; Kind::ALL.len()],
    /// Samples that belong to the event of the one before: no inputs of their own.
    parts: u64,
    /// Events without a sample.
    empty: u64,
}

/// One shard's state.
pub struct Shard {
    index: ShardIndex,
    decoder: Decoder,
    inbox: Receiver<Command>,
    handle: ShardHandle,
    sink: Arc<dyn SealSink>,
    live: Lane,
    replay: BTreeMap<SourceIndex, Lane>,
    rings: Vec<(SourceIndex, Arc<Ring>)>,
    has_asked: bool,
    /// Plain events of rings may belong to slots with declared buckets.
    plain_has_buckets: bool,
}

impl Shard {
    /// A shard and its inbox.
    ///
    /// # Errors
    /// When no descriptor for its waker is left.
    pub fn new(
        index: ShardIndex,
        decoder: Decoder,
        sink: Arc<dyn SealSink>,
        now: Timestamp,
    ) -> std::io::Result<(Shard, ShardHandle)> {
        let (inbox, receiver) = bounded(INBOX_CAPACITY);
        let handle = ShardHandle { inbox, notes: Arc::default(), waker: Waker::new()? };
        let live = Lane::new(now, &decoder.acceptance());
        let shard = Shard {
            index,
            decoder,
            inbox: receiver,
            handle: handle.clone(),
            sink,
            live,
            replay: BTreeMap::new(),
            rings: Vec::new(),
            has_asked: false,
            plain_has_buckets: false,
        };
        Ok((shard, handle))
    }

    /// The eventfd to poll beside the sockets.
    pub fn waker(&self) -> &Waker {
        self.handle.waker()
    }

    /// True when commands wait: a busy reader looks between buffers.
    #[inline]
    pub fn has_commands(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Decodes a buffer of lines.
    #[inline]
    pub fn ingest(&mut self, origin: Origin, payload: &[u8], arrival: Timestamp) {
        self.roll(arrival);
        self.decoder.ingest(&mut self.live.current, origin, payload, arrival);
        self.ask_if_rolled(arrival);
    }

    /// Counts an input that never was a line.
    pub fn refuse(&mut self, source: SourceIndex, reason: RejectReason, now: Timestamp) {
        self.decoder.refuse_input(&mut self.live.current, source, reason, now);
    }

    /// Counts datagrams that the kernel dropped before we could read them.
    pub fn note_kernel_drops(&mut self, source: SourceIndex, count: u64) {
        self.live.current.tally(source).kernel_drops += count;
    }

    /// Counts connections that were closed at once.
    pub fn note_refused_connections(&mut self, source: SourceIndex, count: u64) {
        self.live.current.tally(source).refused_connections += count;
    }

    /// True while in-process producers exist: their rings must be polled.
    pub fn has_rings(&self) -> bool {
        !self.rings.is_empty()
    }

    /// Counts lines of a reader's buffer that found the shard's queue full.
    pub fn note_queue_drops(&mut self, source: SourceIndex, lines: u64) {
        if lines == 0 {
            return;
        }
        let tally = self.live.current.tally(source);
        tally.inputs += lines;
        tally.events += lines;
        // What a dropped line would have been is unknown: it is counted as one sample of no kind's series.
        tally.samples[Kind::Counter as usize] += lines;
        tally.drop_samples(Edge::Queue, DropReason::QueueFull, lines);
    }

    /// When a slice has ended, hands over what came in it and goes on with the spare: until a tick everything else
    /// would go to the side map, at several times the cost.
    #[inline]
    fn roll(&mut self, now: Timestamp) {
        let slice = self.decoder.slice_of(now);
        // Once a slice: without a spare it must not look through all records for each buffer.
        if slice > self.live.current.slice() && self.live.spare.is_some() {
            if self.live.current.is_empty() {
                self.live.current.start(slice);
            } else {
                self.hand_over(0, slice, now);
            }
        }
    }

    /// A slice has rolled, or the side map is large: ask for a tick, once until it comes.
    #[inline]
    fn ask_if_rolled(&mut self, now: Timestamp) {
        if self.has_asked {
            return;
        }
        let has_rolled = self.decoder.slice_of(now) != self.live.current.slice();
        if has_rolled || self.live.current.side_len() > SIDE_ENTRIES_MAX {
            self.has_asked = true;
            self.sink.wants_tick();
        }
    }

    /// Answers commands and reads the rings: once per turn of the loop.
    pub fn turn(&mut self, now: Timestamp) -> Next {
        let is_busy = self.read_rings(now);
        while let Some(command) = self.inbox.try_recv() {
            match command {
                Command::Seal { epoch } => self.seal_live(epoch, now),
                Command::Spare { group, combiner } => self.take_spare(group, combiner, now),
                Command::Forget { slots } => self.decoder.forget(&slots),
                Command::Lines { source, payload, reply } => {
                    let origin = Origin { source, reader: u16::MAX - self.index.0 };
                    reply(self.decoder.ingest_traced(&mut self.live.current, origin, &payload, now));
                    self.ask_if_rolled(now);
                }
                Command::Events { source, payload, reply } => {
                    let origin = Origin { source, reader: u16::MAX - self.index.0 };
                    reply(self.decoder.ingest_events(&mut self.live.current, origin, &payload, now));
                    self.ask_if_rolled(now);
                }
                Command::Owned { source, event } => {
                    let origin = Origin { source, reader: u16::MAX - self.index.0 };
                    self.decoder.ingest_owned(&mut self.live.current, origin, &event, now);
                    self.ask_if_rolled(now);
                }
                Command::Attach { source, ring } => self.rings.push((source, ring)),
                Command::Reload(reload) => {
                    // A handle made before may write the plain form to a slot that has buckets from here on.
                    self.plain_has_buckets |= reload.what.bounds.iter().any(|(_, rule)| rule.is_some());
                    self.decoder.reload(reload.what);
                    (reload.done)();
                }
                Command::Batch { source, incarnation, samples } => self.replay(source, incarnation, samples, now),
                Command::Barrier(barrier) => self.seal_replay(barrier, now),
                Command::Stop => {
                    self.read_rings(now);
                    return Next::Stop;
                }
            }
        }
        Next::Continue { is_busy }
    }

    /// Takes what producers wrote; true when there was anything.
    fn read_rings(&mut self, now: Timestamp) -> bool {
        if !self.rings.is_empty() {
            self.roll(now);
        }
        let mut events = 0;
        let slice = self.decoder.acceptance().slice.slice_of(now);
        let mut rings = std::mem::take(&mut self.rings);
        let is_tapped = !rings.is_empty() && self.decoder.is_tapped();
        rings.retain(|(source, ring)| {
            let is_closed = ring.is_closed();
            let mut read = Read::default();
            events += ring.drain(|run| {
                if is_tapped {
                    self.decoder.tap_run(*source, run, now);
                }
                self.record_run(run, &mut read, slice, now);
            });
            let dropped = ring.take_dropped();
            let total = read.samples.iter().sum::<u64>() + read.empty - read.parts + dropped;
            if total > 0 || read.parts > 0 {
                let tally = self.live.current.tally(*source);
                tally.inputs += total;
                tally.events += total;
                for (kind, new) in read.samples.into_iter().enumerate() {
                    tally.samples[kind] += new;
                    tally.recorded[kind] += new;
                }
                tally.samples[Kind::Distribution as usize] += dropped;
                tally.drop_samples(Edge::Queue, DropReason::QueueFull, dropped);
            }
            ring.take_refused(|reason, count| {
                let tally = self.live.current.tally(*source);
                tally.inputs += count;
                tally.rejected[reason as usize] += count;
            });
            if is_closed {
                harvest(&mut self.live.current, &mut self.decoder, *source, ring, now);
            }
            !is_closed
        });
        self.rings.append(&mut rings);
        self.ask_if_rolled(now);
        events > 0
    }

    /// Records a run of events. At 100,000 series a record is a miss and its cells are another: they are asked for
    /// [`RECORD_AHEAD`] and [`CELL_AHEAD`] events before they are needed.
    fn record_run(&mut self, run: &[RingEvent], read: &mut Read, slice: Slice, now: Timestamp) {
        for (slot, metric) in self.handle.notes.take() {
            self.decoder.note_buckets(slot, &metric);
        }
        let is_hot = slice == self.live.current.slice();
        let is_wide = is_hot && self.live.current.is_wide();
        if is_wide {
            run.iter().take(RECORD_AHEAD).for_each(|event| prefetch_record(&self.live.current, event));
            run.iter().take(CELL_AHEAD).for_each(|event| prefetch_cell(&self.live.current, event));
        }
        let mut plain = 0;
        for (at, event) in run.iter().enumerate() {
            if is_wide && let Some(ahead) = run.get(at + RECORD_AHEAD) {
                prefetch_record(&self.live.current, ahead);
            }
            if is_wide && let Some(ahead) = run.get(at + CELL_AHEAD) {
                prefetch_cell(&self.live.current, ahead);
            }
            if is_hot && event.is_plain_units() && !self.plain_has_buckets {
                plain += 1;
                let units = units_of(event);
                self.live.current.add_value(event.slot().0, units, layout::cell_of_2(units));
            } else {
                match event.op() {
                    RingOp::Nothing => read.empty += 1,
                    RingOp::Fraction => {}
                    op => {
                        read.samples[kind_of(op) as usize] += 1;
                        read.parts += u64::from(event.is_part());
                    }
                }
                self.record(*event, slice, now);
            }
        }
        read.samples[Kind::Distribution as usize] += plain;
    }

    fn record(&mut self, event: RingEvent, slice: Slice, now: Timestamp) {
        let combiner = &mut self.live.current;
        match event.op() {
            RingOp::Units => {
                let units = units_of(&event);
                let (weight, digits) = unpack_weight(event.weight());
                let cell = layout::cell_of(digits, units);
                let rule = self.decoder.bucket_rule(event.slot()).map(Arc::as_ref);
                combiner.add_value_at(slice, event.slot().0, digits, units, cell, weight, rule);
            }
            RingOp::Set => {
                let value = f64::from_bits(event.value);
                let scale = (event.weight() & 0x0F) as i32;
                let units = (value * 10f64.powi(scale)).round().clamp(-(UNITS_MAX as f64), UNITS_MAX as f64) as i64;
                let position = self.decoder.next_position(now);
                combiner.set_gauge_at(slice, event.slot().0, value, units, now.0, position);
            }
            RingOp::Adjust => combiner.adjust_gauge_at(slice, event.slot().0, f64::from_bits(event.value)),
            RingOp::Member => combiner.add_member_at(slice, event.slot().0, event.value),
            RingOp::Count => {
                combiner.add_whole_at(slice, event.slot().0, i128::from(event.value as i64) * 1_000_000_000);
            }
            RingOp::Fraction => combiner.add_whole_at(slice, event.slot().0, i128::from(event.value as i64)),
            RingOp::Nothing => {}
        }
    }

    fn seal_live(&mut self, epoch: u64, now: Timestamp) {
        self.read_rings(now);
        for (source, ring) in &self.rings {
            harvest(&mut self.live.current, &mut self.decoder, *source, ring, now);
        }
        self.live.waiting = Some(epoch);
        self.answer_live(now);
    }

    /// Seals the live lane if that is asked for and its spare is back.
    fn answer_live(&mut self, now: Timestamp) {
        let slice = self.decoder.acceptance().slice.slice_of(now);
        if self.live.spare.is_some()
            && let Some(epoch) = self.live.waiting.take()
        {
            self.hand_over(epoch, slice, now);
            self.has_asked = false;
        }
    }

    /// Goes on with the spare, which must be there, and sends what was recorded so far.
    fn hand_over(&mut self, epoch: u64, slice: Slice, now: Timestamp) {
        let Some(mut fresh) = self.live.spare.take() else { return };
        fresh.start(slice);
        let combiner = std::mem::replace(&mut self.live.current, fresh);
        let group = InputGroup::Live;
        self.sink.sealed(Sealed { shard: self.index, group, epoch, barrier: None, sealed_at: now, combiner });
    }

    fn take_spare(&mut self, group: InputGroup, combiner: Box<Combiner>, now: Timestamp) {
        match group {
            InputGroup::Live => {
                self.live.spare = Some(combiner);
                self.answer_live(now);
            }
            InputGroup::Replayable(source) => {
                if let Some(lane) = self.replay.get_mut(&source) {
                    lane.spare = Some(combiner);
                }
            }
        }
    }
}

impl Drop for Shard {
    /// Nobody reads the rings any more: a producer must not wait for room in them.
    fn drop(&mut self) {
        for (_, ring) in &self.rings {
            ring.abandon();
        }
        while let Some(command) = self.inbox.try_recv() {
            if let Command::Attach { ring, .. } = command {
                ring.abandon();
            }
        }
    }
}

fn harvest(combiner: &mut Combiner, decoder: &mut Decoder, source: SourceIndex, ring: &Ring, now: Timestamp) {
    let mut harvested = 0;
    let slice = decoder.acceptance().slice.slice_of(now);
    let is_tapped = decoder.is_tapped();
    ring.harvest(|slot, whole, nanos| {
        if is_tapped {
            decoder.tap_increment(source, slot, whole, nanos, now);
        }
        harvested += 1;
        combiner.add_whole_at(slice, slot.0, i128::from(whole) * 1_000_000_000 + i128::from(nanos));
    });
    if harvested > 0 {
        let tally = combiner.tally(source);
        tally.inputs += harvested;
        tally.events += harvested;
        tally.samples[Kind::Counter as usize] += harvested;
        tally.recorded[Kind::Counter as usize] += harvested;
    }
}

#[inline(always)]
fn units_of(event: &RingEvent) -> i64 {
    (event.value as i64).clamp(-UNITS_MAX, UNITS_MAX)
}

#[inline(always)]
fn prefetch_record(combiner: &Combiner, event: &RingEvent) {
    if event.is_plain_units() {
        combiner.prefetch_distribution(event.slot().0);
    }
}

#[inline(always)]
fn prefetch_cell(combiner: &Combiner, event: &RingEvent) {
    if event.is_plain_units() {
        combiner.prefetch_cell(event.slot().0, || layout::cell_of_2(units_of(event)));
    }
}

/// The weight field of a distribution's event: 0 is the plain case; else digits in the low two bits and
/// the weight in 1/4096 (from 1 to 2^22) less one above.
pub fn pack_weight(weight: u64, digits: Digits) -> u64 {
    weight.clamp(1, 1 << 22).saturating_sub(1) << 2 | digits as u64
}

fn unpack_weight(packed: u64) -> (u64, Digits) {
    if packed == 0 {
        return (crate::event::WEIGHT_ONE, Digits::Two);
    }
    ((packed >> 2) + 1, Digits::from_u8((packed & 3) as u8).unwrap_or(Digits::Two))
}
