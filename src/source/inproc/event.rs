//! Typed events of the embedding program: fields in, the samples of every metric that the event feeds out.
//!
//! In: an event by name, resolved once; fields by name. Out: ring events, as handles write them; what a ring cannot
//! carry (pairs, kept events, a time) goes to a shard as it is. Owns: per thread, the series that its events met. Invariants:
//! the plan is the one that decoders run, so that an event is refused or recorded alike wherever it comes from; an event
//! is one input; a known series costs one lookup without a lock; an event begun after a reload is by the new plan.

#![expect(
    clippy::redundant_allocation,
    reason = "a count of this thread alone costs a call nothing, a shared one 5 ns"
)]

use super::shared::thread_writer;
use super::{HandleError, Pinned, Producers};
use crate::codec::json::write_string;
use crate::delta::Interned;
use crate::event::{Kind, Number, RejectReason, Timestamp, WEIGHT_ONE};
use crate::rule::Rules;
use crate::rule::typed::{Amount, Emitted, EventPlan, Fault, FieldType, FieldValue, Fields, Scratch, Weight};
use crate::shard::ring::{EventHead, RingOp, RingWriter};
use crate::shard::tap::{TapKind, TapKinds};
use crate::shard::{Allowance, Gone, OwnedEvent, pack_weight};
use crate::sketch::Digits;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Series that one thread remembers for its events; past it all are forgotten and met again. About 200 bytes each.
const SERIES_MAX: usize = 1 << 16;
/// The weight that still fits a ring's event.
const RING_WEIGHT_MAX: u64 = 1 << 22;

/// An event of the pipeline file, by its name; may travel between threads.
#[derive(Clone)]
pub struct Event {
    producers: Arc<Producers>,
    plan: usize,
}

/// Why an event was refused. It is counted, and shown among the recent rejects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: {reason}: {detail}")]
pub struct EventError {
    /// The reason that is counted.
    pub reason: RejectReason,
    /// Which event and field, and what is wrong.
    pub detail: String,
}

/// A value of a field: text, a bool, a number, a [`Duration`]; `None` for a field that is missing.
#[derive(Clone, Copy, Debug)]
pub struct EventValue<'v>(Given<'v>);

#[derive(Clone, Copy, Debug)]
enum Given<'v> {
    /// As JSON would have it: a number in the field's unit.
    Plain(FieldValue<'v>),
    /// In whatever unit of time the field has.
    Span(Duration),
    NotFinite,
}

macro_rules! whole_numbers {
    ($($int:ty),*) => {
        $(impl From<$int> for EventValue<'_> {
            fn from(value: $int) -> Self {
                EventValue(Given::Plain(FieldValue::Number(Number::from_i64(i64::from(value)))))
            }
        })*
    };
}

whole_numbers!(i8, i16, i32, i64, u8, u16, u32);

impl From<u64> for EventValue<'_> {
    fn from(value: u64) -> Self {
        EventValue(Given::Plain(FieldValue::Number(Number::from_u64(value))))
    }
}

impl From<usize> for EventValue<'_> {
    fn from(value: usize) -> Self {
        EventValue::from(value as u64)
    }
}

impl From<f64> for EventValue<'_> {
    fn from(value: f64) -> Self {
        let number = Number::from_f64(value).map(|number| Given::Plain(FieldValue::Number(number)));
        EventValue(number.unwrap_or(Given::NotFinite))
    }
}

impl From<bool> for EventValue<'_> {
    fn from(value: bool) -> Self {
        EventValue(Given::Plain(FieldValue::Bool(value)))
    }
}

impl<'v> From<&'v str> for EventValue<'v> {
    fn from(value: &'v str) -> Self {
        EventValue(Given::Plain(FieldValue::Text(value.as_bytes())))
    }
}

impl<'v> From<&'v String> for EventValue<'v> {
    fn from(value: &'v String) -> Self {
        EventValue::from(value.as_str())
    }
}

impl From<Duration> for EventValue<'_> {
    fn from(value: Duration) -> Self {
        EventValue(Given::Span(value))
    }
}

impl<'v, T: Into<EventValue<'v>>> From<Option<T>> for EventValue<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(EventValue(Given::Plain(FieldValue::Missing)), Into::into)
    }
}

impl Event {
    /// The event of this name.
    ///
    /// # Errors
    /// `unknown_event` for a name that the pipeline file does not declare.
    pub fn new(producers: &Arc<Producers>, name: &str) -> Result<Event, HandleError> {
        let rules = producers.rules.load();
        let plan = rules.typed().event(name.as_bytes());
        let plan = plan.ok_or(HandleError::Refused(RejectReason::UnknownEvent))?.index();
        Ok(Event { producers: Arc::clone(producers), plan })
    }

    /// Begins an event with its first field.
    #[inline]
    pub fn field<'v>(&self, name: &str, value: impl Into<EventValue<'v>>) -> EventBuilder<'_, 'v> {
        self.begin().field(name, value)
    }

    /// Begins an event.
    #[inline]
    pub fn begin<'v>(&self) -> EventBuilder<'_, 'v> {
        let rules = current_rules(&self.producers);
        let fields = rules.typed().event_at(self.plan).fields();
        EventBuilder { event: self, rules, fields, next: 0, time: None, weight: Weight::ONE, error: None }
    }
}

/// The rules as this thread knows them; it looks for others when there are some.
#[inline]
fn current_rules(producers: &Arc<Producers>) -> Rc<Arc<Rules>> {
    let known = THREADS.try_with(|threads| {
        let mut threads = threads.borrow_mut();
        Thread::of(&mut threads, producers).ok().map(|thread| Rc::clone(thread.current()))
    });
    // After a stop, or while the thread ends: what is built is dropped by `emit`.
    known.ok().flatten().unwrap_or_else(|| Rc::new(producers.rules.load()))
}

/// An event that is being filled. Nothing happens before [`emit`](EventBuilder::emit).
#[must_use = "an event counts once it is emitted"]
pub struct EventBuilder<'e, 'v> {
    event: &'e Event,
    /// Of the thread that began it.
    rules: Rc<Arc<Rules>>,
    fields: Fields<'v>,
    /// The field that probably comes next: the one behind the last in the schema.
    next: usize,
    time: Option<Timestamp>,
    weight: Weight,
    /// The first thing that was wrong.
    error: Option<EventError>,
}

impl<'v> EventBuilder<'_, 'v> {
    fn plan(&self) -> &EventPlan {
        self.rules.typed().event_at(self.event.plan)
    }

    /// Sets a field. A name that the schema does not have, or a value that does not fit, is said by
    /// [`emit`](Self::emit).
    #[inline]
    pub fn field(mut self, name: &str, value: impl Into<EventValue<'v>>) -> Self {
        let plan = self.plan();
        let is_next = self.next < self.fields.len() && plan.field_name(self.next) == name;
        let Some(at) = (if is_next { Some(self.next) } else { plan.field(name) }) else {
            let detail = format!("event {:?} has no field {name:?}", plan.name());
            return self.wrong(RejectReason::ExtraField, detail);
        };
        self.next = at + 1;
        if self.fields[at] != FieldValue::Missing {
            return self.fault(Fault { reason: RejectReason::DuplicateField, field: Some(at) });
        }
        let value = match value.into().0 {
            Given::Plain(value) => value,
            Given::Span(span) if self.plan().field_type(at).is_duration() => {
                let seconds = Number::from_u64(span.as_secs());
                let nanos = u64::from(span.subsec_nanos());
                // Durations of more than 584 years lose their fraction.
                let whole = span.as_secs().checked_mul(1_000_000_000).and_then(|secs| secs.checked_add(nanos));
                self.fields[at] =
                    FieldValue::Number(whole.map_or(seconds, |nanos| Number::from_u64(nanos).shifted(-9)));
                return self;
            }
            Given::Span(_) => return self.fault(Fault { reason: RejectReason::WrongType, field: Some(at) }),
            Given::NotFinite => return self.fault(Fault { reason: RejectReason::NotFinite, field: Some(at) }),
        };
        match self.plan().accept(at, value) {
            Ok(value) => self.fields[at] = value,
            Err(fault) => {
                self.fields[at] = value;
                return self.fault(fault);
            }
        }
        self
    }

    /// Says when it happened; without this it happens when it is read.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Says that it stands for so many, from 1 to 2²⁰.
    pub fn weight(mut self, weight: f64) -> Self {
        match Number::from_f64(weight).ok_or(RejectReason::BadWeight).and_then(Weight::new) {
            Ok(weight) => self.weight = weight,
            Err(reason) => return self.fault(reason.into()),
        }
        self
    }

    /// Counts it: all samples of it, or none.
    ///
    /// # Errors
    /// Why it is refused. After the pipeline has stopped, events are dropped without an error, as samples of handles
    /// are.
    pub fn emit(self) -> Result<(), EventError> {
        let gone = || Ok(());
        // The table may already be gone when a thread's other locals are destroyed.
        THREADS
            .try_with(|threads| {
                let mut threads = threads.borrow_mut();
                match Thread::of(&mut threads, &self.event.producers) {
                    Ok(thread) => thread.emit(self),
                    Err(Gone) => gone(),
                }
            })
            .unwrap_or_else(|_| gone())
    }

    #[cold]
    fn fault(self, fault: Fault) -> Self {
        let detail = self.plan().describe(fault, &self.fields);
        self.wrong(fault.reason, detail)
    }

    #[cold]
    fn wrong(mut self, reason: RejectReason, detail: String) -> Self {
        self.error.get_or_insert(EventError { reason, detail });
        self
    }

    /// The event as JSON would say it.
    fn shown(&self) -> Vec<u8> {
        let plan = self.plan();
        let mut out = b"{\"event\":".to_vec();
        write_string(plan.name(), &mut out);
        for (at, value) in self.fields.iter().enumerate() {
            if *value == FieldValue::Missing {
                continue;
            }
            out.push(b',');
            write_string(plan.field_name(at), &mut out);
            out.push(b':');
            match (value, plan.field_type(at)) {
                (FieldValue::Text(text), _) => write_string(&String::from_utf8_lossy(text), &mut out),
                (FieldValue::Number(number), FieldType::Milliseconds) => number.shifted(3).put_canonical(&mut out),
                (FieldValue::Number(number), FieldType::Microseconds) => number.shifted(6).put_canonical(&mut out),
                (value, _) => value.put_text(&mut out),
            }
        }
        out.push(b'}');
        out
    }
}

thread_local! {
    static THREADS: RefCell<Vec<Thread>> = const { RefCell::new(Vec::new()) };
}

/// A series that events of this thread met.
struct Known {
    pinned: Pinned,
    /// Of distributions without weight: plain where the record is compact.
    plain: u64,
    digits: Digits,
}

/// A sample that is ready for the ring.
#[derive(Clone, Copy)]
struct Ready {
    head: EventHead,
    value: u64,
    /// What a counter's increment has below one.
    fraction: Option<(EventHead, u64)>,
}

/// What one thread keeps for the events of one pipeline.
struct Thread {
    producers: Arc<Producers>,
    writer: Rc<RingWriter>,
    generation: u64,
    rules: Rc<Arc<Rules>>,
    scratch: Scratch,
    series: HashMap<Box<[u8]>, Known, foldhash::fast::RandomState>,
    ready: Vec<Ready>,
    allowance: Allowance,
}

impl Thread {
    #[inline]
    fn of<'t>(threads: &'t mut Vec<Thread>, producers: &Arc<Producers>) -> Result<&'t mut Thread, Gone> {
        let at = match threads.iter().position(|thread| Arc::ptr_eq(&thread.producers, producers)) {
            Some(at) => at,
            None => {
                threads.push(Thread {
                    producers: Arc::clone(producers),
                    writer: thread_writer(producers)?,
                    generation: producers.rules.generation(),
                    rules: Rc::new(producers.rules.load()),
                    scratch: Scratch::default(),
                    series: HashMap::default(),
                    ready: Vec::new(),
                    allowance: Allowance::default(),
                });
                threads.len() - 1
            }
        };
        Ok(&mut threads[at])
    }

    /// The rules, looked for again after a reload: series are then met again, by what feeds them now.
    #[inline]
    fn current(&mut self) -> &Rc<Arc<Rules>> {
        let generation = self.producers.rules.generation();
        if generation != self.generation {
            // Read before the rules: should another reload come in between, they are looked for once more.
            self.generation = generation;
            self.rules = Rc::new(self.producers.rules.load());
            self.series.clear();
            self.scratch = Scratch::default();
        }
        &self.rules
    }

    fn emit(&mut self, mut event: EventBuilder<'_, '_>) -> Result<(), EventError> {
        if let Some(error) = event.error.take() {
            return Err(self.refuse(error, &event));
        }
        if !Rc::ptr_eq(&self.rules, &event.rules) {
            // Another event of this thread saw a reload since this one was begun; a shard takes it as it is.
            self.hand_over(event);
            return Ok(());
        }
        let rules = Rc::clone(&event.rules);
        let (plan, weight) = (rules.typed().event_at(event.event.plan), event.weight);
        if let Err(fault) = plan.run(&event.fields, weight, &mut self.scratch) {
            let detail = plan.describe(fault, &event.fields);
            return Err(self.refuse(EventError { reason: fault.reason, detail }, &event));
        }
        let is_adjusting = |emitted: &Emitted| matches!(emitted.amount, Amount::Adjust(_));
        if event.time.is_some() && self.scratch.emitted().iter().any(is_adjusting) {
            let reason = RejectReason::GaugeOperationWithTime;
            let detail = plan.describe(reason.into(), &event.fields);
            return Err(self.refuse(EventError { reason, detail }, &event));
        }
        if event.time.is_some() || plan.has_pairs() || plan.keep() > 0 || weight.cells() > RING_WEIGHT_MAX {
            self.hand_over(event);
            return Ok(());
        }
        // Past a limit series are not remembered: they are pinned for this event only.
        let mut passing: Vec<Known> = Vec::new();
        self.ready.clear();
        for at in 0..self.scratch.emitted().len() {
            let emitted = self.scratch.emitted()[at];
            let key = self.scratch.key(&emitted);
            if let Some(known) = self.series.get(key) {
                self.ready.push(ready(emitted.amount, known, weight));
                continue;
            }
            let feed = &plan.feeds()[emitted.feed];
            let labels = match rules.labels_of_feed(self.producers.source, feed, key) {
                Ok(labels) => labels,
                Err(reason) => {
                    let detail = plan.describe(reason.into(), &event.fields);
                    return Err(self.refuse(EventError { reason, detail }, &event));
                }
            };
            let metric = Arc::clone(feed.metric());
            let is_own = match self.producers.table.intern_pinned(&metric, &labels) {
                Interned::Slot(slot) => Some((slot, true)),
                Interned::Overflow(slot) => Some((slot, false)),
                Interned::Refused => None,
            };
            let Some((slot, is_own)) = is_own else {
                // A gauge past the limit is dropped and counted, which a shard does.
                self.hand_over(event);
                return Ok(());
            };
            if metric.kind == Kind::Distribution && metric.buckets.is_some() {
                for shard in &self.producers.shards {
                    shard.note_buckets(slot, Arc::clone(&metric));
                }
            }
            let digits = metric.digits;
            let is_plain = digits == Digits::Two && metric.buckets.is_none();
            let plain = if is_plain { 0 } else { pack_weight(WEIGHT_ONE, digits) };
            let pinned = Pinned { table: Arc::clone(&self.producers.table), metric, slot };
            let known = Known { pinned, plain, digits };
            self.ready.push(ready(emitted.amount, &known, weight));
            if is_own {
                if self.series.len() >= SERIES_MAX {
                    self.series.clear();
                }
                self.series.insert(key.into(), known);
            } else {
                passing.push(known);
            }
        }
        let mut is_first = true;
        for ready in &self.ready {
            let head = if is_first { ready.head } else { ready.head.part() };
            self.writer.push(head, ready.value);
            if let Some((head, value)) = ready.fraction {
                self.writer.push(head.part(), value);
            }
            is_first = false;
        }
        if is_first {
            self.writer.push(EventHead::new(crate::event::Slot(0), RingOp::Nothing, 0), 0);
        }
        Ok(())
    }

    /// Gives a whole event to a shard.
    #[cold]
    fn hand_over(&self, event: EventBuilder<'_, '_>) {
        // A reload may have said meanwhile that it is kept.
        let shown = event.shown();
        let rules = Arc::clone(&event.rules);
        let owned = OwnedEvent::new(rules, event.event.plan, &event.fields, event.time, event.weight, shown);
        let shards = &self.producers.shards;
        // A thread's events go to one shard, so that they keep their order.
        let shard = &shards[Rc::as_ptr(&self.writer) as usize / 64 % shards.len()];
        // After a stop events are dropped.
        let _ = shard.event(self.producers.source, Box::new(owned));
    }

    #[cold]
    fn refuse(&mut self, error: EventError, event: &EventBuilder<'_, '_>) -> EventError {
        self.writer.refuse(error.reason);
        let now = self.producers.clock.wall();
        if let Some(recent) = &self.producers.recent
            && recent.taps().wants(TapKinds::of(&[TapKind::Rejects]))
        {
            recent.taps().reject(now, self.producers.source, error.reason, &error.detail, &event.shown());
        }
        if self.allowance.take(now)
            && let Some(recent) = &self.producers.recent
        {
            recent.push_about(now, self.producers.source, error.reason, &error.detail, &event.shown());
        }
        error
    }
}

fn ready(amount: Amount, known: &Known, weight: Weight) -> Ready {
    let slot = known.pinned.slot;
    let (head, value, fraction) = match amount {
        Amount::Count { whole, nanos } => {
            let fraction = (nanos != 0).then(|| (EventHead::new(slot, RingOp::Fraction, 0), nanos as u64));
            (EventHead::new(slot, RingOp::Count, 0), whole as u64, fraction)
        }
        Amount::Set { value, .. } => {
            let exponent = u64::from(known.pinned.metric.scale.exponent());
            (EventHead::new(slot, RingOp::Set, exponent), value.to_bits(), None)
        }
        Amount::Adjust(by) => (EventHead::new(slot, RingOp::Adjust, 0), by.to_bits(), None),
        Amount::Units { units, .. } => {
            let weight =
                if weight.cells() == WEIGHT_ONE { known.plain } else { pack_weight(weight.cells(), known.digits) };
            (EventHead::new(slot, RingOp::Units, weight), units as u64, None)
        }
        Amount::Member(hash) => (EventHead::new(slot, RingOp::Member, 0), hash, None),
    };
    Ready { head, value, fraction }
}
