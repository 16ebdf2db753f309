//! What is not a sample: events, service checks, and lines that are refused.
//!
//! In: parsed notices, reasons. Out: tallies, examples for people, the gauge of a check. Owns nothing. Invariant: each
//! input is counted once, as an event or as a refusal.

use super::{Batch, Decoder, LineOutcome, meta_of};
use crate::codec::dogstatsd::{self, Line, Parsed};
use crate::codec::number::Number;
use crate::delta::{Combiner, Edge};
use crate::event::{DropReason, Kind, RejectReason, SourceIndex, Timestamp, WEIGHT_ONE};
use crate::rule::typed::Amount;
use crate::shard::notices::PER_SECOND_MAX;

impl Decoder {
    #[cold]
    pub(super) fn apply_other(&mut self, batch: &mut Batch<'_>, other: Result<Parsed<'_>, (RejectReason, &[u8])>) {
        match other {
            // A refused event is counted and shown where it was read.
            Ok(Parsed::Json(text)) => drop(self.take_event(batch, text)),
            Ok(notice) => {
                if let Err(reason) = self.apply_notice(batch, notice) {
                    self.refuse(batch, reason, b"_sc");
                }
            }
            Err((reason, text)) => self.refuse(batch, reason, text),
        }
    }

    /// Events and service checks are counted; a check is also gauge `service_check_status`.
    pub(super) fn apply_notice(
        &mut self,
        batch: &mut Batch<'_>,
        notice: Parsed<'_>,
    ) -> Result<LineOutcome, RejectReason> {
        let mut outcome = LineOutcome::Notice;
        if let Parsed::Check(check) = &notice {
            let details = check.details();
            let resolved =
                self.rules.resolve_service_check(batch.origin.source, check.name, dogstatsd::tags(details.tags))?;
            let (slot, meta) = (self.intern(&resolved, None), meta_of(&resolved));
            batch.tally().samples[Kind::Gauge as usize] += 1;
            if let Some(slot) = slot {
                let (slice, arrival) = (batch.slice, batch.arrival);
                batch.tally().recorded[Kind::Gauge as usize] += 1;
                self.record_gauge(batch, Number::from_u64(check.status as u64), slot, meta, slice, arrival);
            } else {
                batch.tally().drop_samples(Edge::Shard, DropReason::SeriesLimit, 1);
            }
            let dropped = if slot.is_none() { Some(DropReason::SeriesLimit) } else { None };
            let amount = Amount::Set { value: check.status as u64 as f64, units: 0 };
            let recorded = Some((amount, WEIGHT_ONE, batch.arrival));
            outcome = LineOutcome::Accepted { metric: resolved.metric, slot, samples: 1, dropped, recorded };
        }
        if self.notice_allowance.take_of(PER_SECOND_MAX, batch.arrival) {
            let (notices, arrival, source) = (self.recent.notices(), batch.arrival, batch.origin.source);
            match &notice {
                Parsed::Event(event) => notices.push_event(arrival, source, event),
                Parsed::Check(check) => notices.push_check(arrival, source, check),
                _ => {}
            }
        }
        batch.tally().inputs += 1;
        batch.tally().events += 1;
        batch.tally().notices += 1;
        Ok(outcome)
    }

    #[cold]
    pub(super) fn refuse_line(&mut self, batch: &mut Batch<'_>, reason: RejectReason, line: &Line<'_>) {
        let mut text = Vec::with_capacity(line.name.len() + line.values.len() + line.tags.len() + 16);
        text.extend_from_slice(line.name);
        text.push(b':');
        text.extend_from_slice(line.values);
        text.push(b'|');
        text.extend_from_slice(line.wire.as_str().as_bytes());
        if !line.tags.is_empty() {
            text.extend_from_slice(b"|#");
            text.extend_from_slice(line.tags);
        }
        self.refuse(batch, reason, &text);
    }

    #[cold]
    pub(super) fn refuse(&mut self, batch: &mut Batch<'_>, reason: RejectReason, text: &[u8]) {
        batch.tally().inputs += 1;
        batch.tally().rejected[reason as usize] += 1;
        self.recent.taps().reject(batch.arrival, batch.origin.source, reason, "", text);
        if self.allowance.take(batch.arrival) {
            self.recent.push(batch.arrival, batch.origin.source, reason, text);
        }
    }

    /// Counts an input that never was a line: an oversize datagram, a broken frame.
    pub fn refuse_input(&mut self, combiner: &mut Combiner, source: SourceIndex, reason: RejectReason, now: Timestamp) {
        let tally = combiner.tally(source);
        tally.inputs += 1;
        tally.rejected[reason as usize] += 1;
        self.recent.taps().reject(now, source, reason, "", b"");
        if self.allowance.take(now) {
            self.recent.push(now, source, reason, b"");
        }
    }
}
