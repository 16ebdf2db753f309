//! Typed events: one JSON object becomes samples of every metric that its event feeds.
//!
//! In: the text of an object; per source, where its keys are. Out: records and a tally, or a refusal that names event and
//! field. Owns: what was derived from texts seen before, the order of keys seen last. Invariants: an event is one input;
//! it is checked whole, then recorded whole, or refused and nothing is recorded; known series cost no lock and known
//! values no allocation.

mod owned;
mod read;
mod record;
#[cfg(test)]
mod tests;

pub use owned::OwnedEvent;
pub(super) use read::{Frame, bad_json};

use super::{Batch, Decoder, LineOutcome};
use crate::codec::dogstatsd::key_hash;
use crate::codec::json::{Object, Value, structured_event};
use crate::delta::kept::KeptIndex;
use crate::delta::{Edge, Interned};
use crate::event::{RejectReason, SourceIndex, WireType};
use crate::rule::Rules;
use crate::rule::typed::{Amount, EventPlan, Fault, Fields, KeyOrder, Scratch, Typed};
use read::FieldReader;
use record::Staged;
use std::sync::Arc;

/// Where a source's events have what every event has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonOptions {
    /// The key that holds the event's name.
    pub event_key: String,
    /// The key that holds its time.
    pub time_key: String,
    /// Every object is this event, whatever it says.
    pub event: Option<String>,
    /// A key that no field names refuses the event; else it is passed over and counted.
    pub refuses_extra: bool,
}

impl Default for JsonOptions {
    /// `event`, `time`, extra keys passed over.
    fn default() -> JsonOptions {
        JsonOptions { event_key: "event".into(), time_key: "time".into(), event: None, refuses_extra: false }
    }
}

/// What kind of key the cache holds besides those of lines (which are wire types, below 16).
#[derive(Clone, Copy)]
pub(super) enum KeyKind {
    /// A feed's number and label values.
    Feed = 16,
    /// A JSON sample: name, type and labels as they came.
    Primitive = 17,
    /// The name of an event that no schema names.
    Unknown = 18,
}

/// What stays as it is while an event is read.
struct Home {
    rules: Arc<Rules>,
    /// By source.
    options: Arc<[JsonOptions]>,
    standard: JsonOptions,
}

/// What the decoder keeps for typed events.
pub(super) struct TypedState {
    /// Taken out while an event is read, so that its plan can be looked at while the decoder changes: to count a
    /// reference at every event instead would make the shards wait for each other.
    home: Option<Box<Home>>,
    pub(super) scratch: Scratch,
    /// By event.
    orders: Vec<KeyOrder>,
    /// Texts whose escapes were taken out.
    plain: Vec<u8>,
    /// An event out of its envelope.
    unwrapped: Vec<u8>,
    hashes: Vec<u64>,
    staged: Vec<Staged>,
    /// A key that is being made.
    pub(super) key: Vec<u8>,
}

impl TypedState {
    pub(super) fn new(rules: Arc<Rules>) -> TypedState {
        let home = Home { rules, options: Arc::default(), standard: JsonOptions::default() };
        TypedState { home: Some(Box::new(home)), ..TypedState::new_empty() }
    }

    fn new_empty() -> TypedState {
        TypedState {
            home: None,
            scratch: Scratch::default(),
            orders: Vec::new(),
            plain: Vec::new(),
            unwrapped: Vec::new(),
            hashes: Vec::new(),
            staged: Vec::new(),
            key: Vec::new(),
        }
    }
}

impl TypedState {
    /// Other rules: places of fields and numbers of feeds mean something else.
    pub(super) fn reload(&mut self, rules: Arc<Rules>) {
        let options = self.home.take().map(|home| home.options).unwrap_or_default();
        let home = Home { rules, options, standard: JsonOptions::default() };
        *self = TypedState { home: Some(Box::new(home)), ..TypedState::new_empty() };
    }
}

/// What a refusal is about, for people.
type Refusal = (RejectReason, String);

impl Decoder {
    /// Tells where each source has its events' keys, by source index.
    pub fn set_json_options(&mut self, options: Arc<[JsonOptions]>) {
        if let Some(home) = &mut self.typed.home {
            home.options = options;
        }
    }

    /// Where a source has its events' keys, if it said.
    pub(super) fn json_options(&self, source: SourceIndex) -> Option<&JsonOptions> {
        self.typed.home.as_ref()?.options.get(usize::from(source.0))
    }

    /// Takes one object. Refused or not, it is counted here.
    ///
    /// # Errors
    /// The reason, and what it is about.
    pub(super) fn take_event(&mut self, batch: &mut Batch<'_>, text: &[u8]) -> Result<(), Refusal> {
        self.take_json(batch, text, None)
    }

    /// As [`take_event`](Self::take_event), and says what each sample became; one outcome at least.
    pub(super) fn trace_event(&mut self, batch: &mut Batch<'_>, text: &[u8]) -> Vec<LineOutcome> {
        let mut outcomes = Vec::new();
        match self.take_json(batch, text, Some(&mut outcomes)) {
            Err((reason, detail)) => vec![LineOutcome::Refused(reason, detail)],
            Ok(()) if outcomes.is_empty() => vec![LineOutcome::Notice],
            Ok(()) => outcomes,
        }
    }

    pub(super) fn take_json(
        &mut self,
        batch: &mut Batch<'_>,
        text: &[u8],
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        batch.tally().json += 1;
        let result = self.apply_json(batch, text, trace);
        if let Err((reason, detail)) = &result {
            self.refuse_event(batch, *reason, detail, text);
        }
        result
    }

    fn apply_json(
        &mut self,
        batch: &mut Batch<'_>,
        text: &[u8],
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let home = self.typed.home.take().expect("it is put back after every event");
        let options = home.options.get(usize::from(batch.origin.source.0)).unwrap_or(&home.standard);
        let result = self.apply_form(batch, text, options, home.rules.typed(), trace);
        self.typed.home = Some(home);
        result
    }

    /// Finds out which of the three forms an object has: an event, a sample that needs no schema, or a CloudEvent.
    fn apply_form(
        &mut self,
        batch: &mut Batch<'_>,
        text: &[u8],
        options: &JsonOptions,
        typed: &Typed,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let mut members = Object::parse(text).map_err(|error| bad_json(&error))?;
        if let Some(name) = &options.event {
            return match typed.event(name.as_bytes()) {
                Some(plan) => self.apply_event(batch, plan, (members, text), options, trace),
                None => self.apply_unknown(batch, (typed, name.as_bytes()), members, options, trace),
            };
        }
        // The name mostly comes first; then nothing is read twice.
        if let Some(Ok((key, Value::Text(name)))) = members.next()
            && key.is(options.event_key.as_bytes())
            && !name.escaped
        {
            return match typed.event(name.raw) {
                Some(plan) => self.apply_event(batch, plan, (members, text), options, trace),
                None => self.apply_unknown(batch, (typed, name.raw), members, options, trace),
            };
        }
        self.apply_searched(batch, text, options, typed, trace)
    }

    #[cold]
    fn apply_searched(
        &mut self,
        batch: &mut Batch<'_>,
        text: &[u8],
        options: &JsonOptions,
        typed: &Typed,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let (mut name, mut is_sample, mut is_cloud) = (None, false, false);
        for member in Object::parse(text).map_err(|error| bad_json(&error))? {
            let (key, value) = member.map_err(|error| bad_json(&error))?;
            if key.is(options.event_key.as_bytes()) {
                name = Some(value);
            }
            is_sample |= key.is(b"metric");
            is_cloud |= key.is(b"specversion");
        }
        let members = Object::parse(text).map_err(|error| bad_json(&error))?;
        match name {
            Some(Value::Text(name)) => {
                let mut plain = Vec::new();
                let name = name.unescaped(&mut plain);
                match typed.event(name) {
                    Some(plan) => self.apply_event(batch, plan, (members, text), options, trace),
                    None => self.apply_unknown(batch, (typed, name), members, options, trace),
                }
            }
            Some(_) => Err((RejectReason::WrongType, format!("key {:?} holds no text", options.event_key))),
            None if is_cloud => self.apply_cloud(batch, text, options, typed, trace),
            None if is_sample => self.apply_sample(batch, members, trace),
            None => Err((RejectReason::NoEvent, format!("there is no key {:?}", options.event_key))),
        }
    }

    /// Takes a CloudEvent out of its envelope.
    fn apply_cloud(
        &mut self,
        batch: &mut Batch<'_>,
        text: &[u8],
        options: &JsonOptions,
        typed: &Typed,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let mut unwrapped = std::mem::take(&mut self.typed.unwrapped);
        unwrapped.clear();
        let wants = |event: &[u8], attribute: &[u8]| {
            typed.event(event).is_some_and(|plan| plan.nodes()[0].find(attribute).is_some())
        };
        // The unwrapped event has the standard keys, wherever the source has its own.
        let standard = JsonOptions { refuses_extra: options.refuses_extra, ..JsonOptions::default() };
        let result = match structured_event(text, wants, &mut unwrapped) {
            Ok(()) => self.apply_form(batch, &unwrapped, &standard, typed, trace),
            Err(error) => Err((RejectReason::BadJson, error.to_string())),
        };
        self.typed.unwrapped = unwrapped;
        result
    }

    fn apply_event(
        &mut self,
        batch: &mut Batch<'_>,
        plan: &EventPlan,
        (members, text): (Object<'_>, &[u8]),
        options: &JsonOptions,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let mut plain = std::mem::take(&mut self.typed.plain);
        let mut fields = plan.fields();
        let mut frame = Frame::of(&members);
        // Every text without its escapes is shorter than the object: one place that long holds them all.
        if plain.len() < text.len() {
            plain.resize(text.len(), 0);
        }
        if self.typed.orders.len() <= plan.index() {
            self.typed.orders.resize_with(plan.index() + 1, KeyOrder::default);
        }
        let mut reader = FieldReader { plan, options, plain: &mut plain, frame: &mut frame };
        let order = &mut self.typed.orders[plan.index()];
        let result = match reader.read(members, order, &mut fields) {
            Ok(()) => self.run_event(batch, plan, &fields, (&frame, text), trace),
            Err(refusal) => Err(refusal),
        };
        drop(fields);
        self.typed.plain = plain;
        result
    }

    /// Records an event whose fields are known, or says why not.
    pub(super) fn run_event(
        &mut self,
        batch: &mut Batch<'_>,
        plan: &EventPlan,
        fields: &Fields<'_>,
        (frame, text): (&Frame, &[u8]),
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        let refusal = |fault: Fault| (fault.reason, plan.describe(fault, fields));
        plan.run(fields, frame.weight, &mut self.typed.scratch).map_err(refusal)?;
        let is_adjusting = |emitted: &crate::rule::typed::Emitted| matches!(emitted.amount, Amount::Adjust(_));
        if frame.time.is_some() && self.typed.scratch.emitted().iter().any(is_adjusting) {
            return Err(refusal(RejectReason::GaugeOperationWithTime.into()));
        }
        let place = self.acceptance.place_at(batch.arrival, frame.time);
        if place.is_ok() {
            self.stage(batch.origin.source, plan).map_err(|reason| refusal(reason.into()))?;
        }
        // Nothing is refused from here on.
        let tally = batch.tally();
        tally.inputs += 1;
        tally.events += 1;
        tally.unknown_fields += frame.extra;
        match place {
            Ok((slice, time)) => {
                self.record_event(batch, plan, frame.weight, slice, time, trace);
                self.join_pairs(batch, plan, time);
                let source = batch.origin.source;
                batch.combiner.keep_event(source, KeptIndex(plan.index() as u16), plan.keep(), time, text);
            }
            Err(reason) => {
                for emitted in self.typed.scratch.emitted() {
                    tally.samples[emitted.amount.kind() as usize] += 1;
                    tally.drop_samples(Edge::Shard, reason, 1);
                }
                if let Some(trace) = trace {
                    trace.extend(self.typed.scratch.emitted().iter().map(|emitted| LineOutcome::Accepted {
                        metric: Arc::clone(plan.feeds()[emitted.feed].metric()),
                        slot: None,
                        samples: 1,
                        dropped: Some(reason),
                        recorded: Some((emitted.amount, frame.weight.cells(), frame.time.unwrap_or(batch.arrival))),
                    }));
                }
            }
        }
        Ok(())
    }

    /// An event that no schema names: refused, or counted by its name.
    #[cold]
    fn apply_unknown(
        &mut self,
        batch: &mut Batch<'_>,
        (typed, name): (&Typed, &[u8]),
        members: Object<'_>,
        options: &JsonOptions,
        trace: Option<&mut Vec<LineOutcome>>,
    ) -> Result<(), Refusal> {
        if !typed.counts_unknown() {
            let name = String::from_utf8_lossy(name);
            let hint = typed.nearest(&name).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            return Err((RejectReason::UnknownEvent, format!("event {name:?} is not declared{hint}")));
        }
        let mut frame = Frame::of(&members);
        for member in members {
            let (key, value) = member.map_err(|error| bad_json(&error))?;
            frame.read(key, value, options)?;
        }
        let about = |reason: RejectReason| (reason, format!("event {:?}", String::from_utf8_lossy(name)));
        let place = self.acceptance.place_at(batch.arrival, frame.time);
        let hash = key_hash(name, WireType::Count, b"", self.cache.seed());
        let amount = match frame.weight.number().whole_and_nano() {
            Some((whole, nanos)) => Amount::Count { whole, nanos },
            None => return Err(about(RejectReason::BadWeight)),
        };
        let (slot, meta, metric) = match self.cache.find(hash, name, KeyKind::Unknown as u8) {
            Some(entry) => (Some(entry.slot()), entry.meta, None),
            None => {
                let labels = [(&b"event"[..], name)];
                let resolved = self
                    .rules
                    .resolve(batch.origin.source, b"events_total", WireType::Count, labels.into_iter())
                    .map_err(about)?;
                let meta = super::meta_of(&resolved);
                let slot = place.is_ok().then(|| self.table.intern(&resolved.metric, &resolved.labels));
                let slot = match slot {
                    Some(Interned::Slot(slot)) => {
                        self.cache.insert_key(hash, name, KeyKind::Unknown as u8, slot, meta);
                        Some(slot)
                    }
                    Some(Interned::Overflow(slot)) => Some(slot),
                    Some(Interned::Refused) | None => None,
                };
                (slot, meta, Some(resolved.metric))
            }
        };
        self.record_single(batch, (amount, slot, meta, metric), &frame, place, trace);
        Ok(())
    }

    #[cold]
    fn refuse_event(&mut self, batch: &mut Batch<'_>, reason: RejectReason, detail: &str, text: &[u8]) {
        batch.tally().inputs += 1;
        batch.tally().rejected[reason as usize] += 1;
        self.recent.taps().reject(batch.arrival, batch.origin.source, reason, detail, text);
        if self.allowance.take(batch.arrival) {
            self.recent.push_about(batch.arrival, batch.origin.source, reason, detail, text);
        }
    }
}
