//! Typed events of the embedding program that a ring cannot carry: those of pairs, kept ones, ones with a time.
//!
//! In: accepted fields, owned. Out: what the same event would come to as JSON. Owns nothing. Invariant: one way to record
//! an event, wherever it comes from.

use super::Frame;
use crate::delta::Combiner;
use crate::event::RejectReason;
use crate::event::{Number, Timestamp};
use crate::rule::Rules;
use crate::rule::typed::{EventPlan, FieldValue, Fields, Weight};
use crate::shard::decode::{Decoder, Origin};
use std::sync::Arc;

/// One event, its fields accepted by its plan.
#[derive(Clone)]
pub struct OwnedEvent {
    /// Whose plan accepted them.
    rules: Arc<Rules>,
    plan: usize,
    fields: Vec<OwnedValue>,
    texts: Vec<u8>,
    time: Option<Timestamp>,
    weight: Weight,
    /// What a kept event shows.
    shown: Vec<u8>,
}

#[derive(Clone, Debug)]
enum OwnedValue {
    Missing,
    Bool(bool),
    Number(Number),
    Text(usize, usize),
}

impl OwnedEvent {
    /// Copies the fields of an event of the plan with this [`index`](crate::rule::typed::EventPlan::index); `shown` is
    /// what is kept of it, and shown when it is refused.
    pub fn new(
        rules: Arc<Rules>,
        plan: usize,
        fields: &Fields<'_>,
        time: Option<Timestamp>,
        weight: Weight,
        shown: Vec<u8>,
    ) -> OwnedEvent {
        let mut texts = Vec::new();
        let fields = fields
            .iter()
            .map(|value| match *value {
                FieldValue::Missing => OwnedValue::Missing,
                FieldValue::Bool(value) => OwnedValue::Bool(value),
                FieldValue::Number(number) => OwnedValue::Number(number),
                FieldValue::Text(text) => {
                    texts.extend_from_slice(text);
                    OwnedValue::Text(texts.len() - text.len(), texts.len())
                }
            })
            .collect();
        OwnedEvent { rules, plan, fields, texts, time, weight, shown }
    }

    fn fields(&self) -> Fields<'_> {
        let value = |value: &OwnedValue| match *value {
            OwnedValue::Missing => FieldValue::Missing,
            OwnedValue::Bool(value) => FieldValue::Bool(value),
            OwnedValue::Number(number) => FieldValue::Number(number),
            OwnedValue::Text(start, end) => FieldValue::Text(&self.texts[start..end]),
        };
        self.fields.iter().map(value).collect()
    }

    /// The fields as another plan of the same event has them, by name: a reload came in between. One of another type
    /// is left out, which refuses the event where it must be there.
    fn fields_for(&self, plan: &EventPlan) -> Fields<'_> {
        let old = self.rules.typed().event_at(self.plan);
        let given = self.fields();
        let mut fields = plan.fields();
        for (at, value) in fields.iter_mut().enumerate() {
            if let Some(was) = old.field(plan.field_name(at))
                && old.field_type(was) == plan.field_type(at)
            {
                *value = given[was];
            }
        }
        fields
    }
}

impl Decoder {
    /// Takes one event.
    pub fn ingest_owned(&mut self, combiner: &mut Combiner, origin: Origin, event: &OwnedEvent, arrival: Timestamp) {
        let mut batch = self.batch(combiner, origin, arrival);
        let mut tapping = self.begin_tapping(&batch, &event.shown);
        let rules = Arc::clone(&self.rules);
        let is_current = Arc::ptr_eq(&rules, &event.rules);
        let plan = match is_current {
            true => Some(rules.typed().event_at(event.plan)),
            false => rules.typed().event(event.rules.typed().event_at(event.plan).name().as_bytes()),
        };
        let Some(plan) = plan else {
            let detail = "a reload took the event away".to_owned();
            self.refuse_event(&mut batch, RejectReason::UnknownEvent, &detail, &event.shown);
            self.end_tapping(tapping);
            return batch.finish();
        };
        let fields = if is_current { event.fields() } else { event.fields_for(plan) };
        let frame = Frame { time: event.time, weight: event.weight, ..Frame::new() };
        let mut outcomes = Vec::new();
        let trace = tapping.is_shown().then_some(&mut outcomes);
        match self.run_event(&mut batch, plan, &fields, (&frame, &event.shown), trace) {
            Ok(()) => self.show_traced(&mut tapping, &event.shown, &outcomes),
            Err((reason, detail)) => self.refuse_event(&mut batch, reason, &detail, &event.shown),
        }
        batch.finish();
        self.end_tapping(tapping);
    }
}
