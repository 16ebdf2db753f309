//! Decoding while somebody looks: the same records, and each event and sample shown to the open taps.
//!
//! In: batches of a source that a tap looks at. Out: what the decoder always does, and items for the taps. Owns nothing.
//! Invariants: what is recorded and counted is what it would be without a tap; a batch that no tap can show anything of
//! goes the usual way and is only counted.

use super::{Applied, Batch, Decoder, LineOutcome, Origin};
use crate::codec::dogstatsd::{self, Line, Lines, Parsed, key_hash};
use crate::codec::number::Number;
use crate::delta::Combiner;
use crate::event::{Kind, Labels, Metric, Slot, SourceIndex, Timestamp, WEIGHT_ONE};
use crate::rule::typed::Amount;
use crate::shard::cache::Meta;
use crate::shard::ring::{RingEvent, RingOp};
use crate::shard::tap::{Recorded, TapKind, TapKinds, Watcher};
use crate::shard::{ReplaySample, unpack_weight};
use crate::sketch::member_hash;
use std::sync::Arc;

/// What shards show.
const DECODED: TapKinds = TapKinds::of(&[TapKind::Events, TapKind::Samples]);
const SAMPLES: TapKinds = TapKinds::of(&[TapKind::Samples]);

/// The watcher, while a batch is shown; nothing when nobody looks.
#[derive(Default)]
pub(super) struct Tapping {
    watcher: Option<Box<Watcher>>,
    arrival: Timestamp,
    source: Option<SourceIndex>,
    /// Address of the batch's first byte: places are counted from it.
    base: usize,
}

impl Tapping {
    fn new(watcher: Box<Watcher>, batch: &Batch<'_>, payload: &[u8]) -> Tapping {
        let base = payload.as_ptr() as usize;
        Tapping { watcher: Some(watcher), arrival: batch.arrival, source: Some(batch.origin.source), base }
    }

    /// True when somebody looks at the batch.
    pub(super) fn is_shown(&self) -> bool {
        self.watcher.is_some()
    }
}

impl Decoder {
    /// True while somebody looks at events or samples: one relaxed load, asked once a batch.
    #[inline(always)]
    pub(in crate::shard) fn is_tapped(&self) -> bool {
        self.recent.taps().wants(DECODED)
    }

    pub(super) fn begin_tapping(&mut self, batch: &Batch<'_>, payload: &[u8]) -> Tapping {
        if !self.is_tapped() {
            return Tapping::default();
        }
        let (source, arrival) = (batch.origin.source, batch.arrival);
        match self.watch(DECODED, source, arrival, payload.len()) {
            Some(watcher) => Tapping::new(watcher, batch, payload),
            None => Tapping::default(),
        }
    }

    pub(super) fn end_tapping(&mut self, tapping: Tapping) {
        if let Some(watcher) = tapping.watcher {
            self.watcher = Some(watcher);
        }
    }

    /// Takes the watcher out, if somebody looks at this source.
    fn watch(
        &mut self,
        kinds: TapKinds,
        source: SourceIndex,
        arrival: Timestamp,
        places: usize,
    ) -> Option<Box<Watcher>> {
        let mut watcher = self.watcher.take()?;
        if watcher.begin(self.recent.taps(), kinds, source, arrival, places) {
            return Some(watcher);
        }
        self.watcher = Some(watcher);
        None
    }

    /// Series leave memory, or mean something else.
    pub(super) fn forget_verdicts(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.forget();
        }
    }

    /// As [`ingest`](Decoder::ingest), shown.
    #[cold]
    #[inline(never)]
    pub(super) fn ingest_tapped(
        &mut self,
        combiner: &mut Combiner,
        origin: Origin,
        payload: &[u8],
        arrival: Timestamp,
    ) {
        let Some(watcher) = self.watch(DECODED, origin.source, arrival, payload.len()) else {
            return self.ingest_lines(combiner, origin, payload, arrival);
        };
        if watcher.only_counts() {
            let before = counted(combiner, origin.source);
            self.ingest_lines(combiner, origin, payload, arrival);
            let after = counted(combiner, origin.source);
            watcher.leave_out(after.0 - before.0, after.1 - before.1);
            self.watcher = Some(watcher);
            return;
        }
        let mut batch = self.batch(combiner, origin, arrival);
        let mut tapping = Tapping::new(watcher, &batch, payload);
        let mut outcomes = Vec::new();
        for text in Lines::new(payload) {
            match dogstatsd::parse(text) {
                Ok(Parsed::Sample(line)) => {
                    let hash = key_hash(line.name, line.wire, line.tags, self.cache.seed());
                    match self.apply_line(&mut batch, &line, hash, None) {
                        Ok(applied) => self.show_line(&mut tapping, text, &line, &applied),
                        Err(reason) => self.refuse(&mut batch, reason, text),
                    }
                }
                Ok(Parsed::Json(text)) => {
                    outcomes.clear();
                    // A refused event is counted and shown where it was read.
                    if self.take_json(&mut batch, text, Some(&mut outcomes)).is_ok() {
                        self.show_traced(&mut tapping, text, &outcomes);
                    }
                }
                Ok(notice) => match self.apply_notice(&mut batch, notice) {
                    Ok(outcome) => self.show_traced(&mut tapping, text, &[outcome]),
                    Err(reason) => self.refuse(&mut batch, reason, text),
                },
                Err(reason) => self.refuse(&mut batch, reason, text),
            }
        }
        batch.finish();
        self.end_tapping(tapping);
    }

    /// Shows a line that was applied, and each of its values.
    pub(super) fn show_line(&mut self, tapping: &mut Tapping, text: &[u8], line: &Line<'_>, applied: &Applied) {
        let Some(watcher) = &mut tapping.watcher else { return };
        let at = place_of(text, tapping.base);
        watcher.event(at, text, None);
        let kind = applied.meta.kind();
        let (time, dropped) = match self.acceptance.place(tapping.arrival, line.time) {
            Ok((_, time)) if applied.slot.is_some() => (time, None),
            Ok((_, time)) => (time, Some(crate::event::DropReason::SeriesLimit)),
            Err(reason) => (line.time.map_or(tapping.arrival, Timestamp::from_seconds), Some(reason)),
        };
        let series = || self.series_of(kind, applied.slot, applied.metric.as_ref());
        let mut show = |value: Number| {
            if let Some(amount) = amount_of(line, value, applied.meta) {
                let recorded = Recorded { amount, weight: line.weight, time, dropped };
                watcher.sample(at, (kind, applied.slot), recorded, &series);
            }
        };
        if line.packed {
            dogstatsd::values(line).map_while(Result::ok).for_each(show);
        } else {
            show(line.value);
        }
    }

    /// Shows an event that was taken, and what it came to.
    pub(super) fn show_traced(&mut self, tapping: &mut Tapping, text: &[u8], outcomes: &[LineOutcome]) {
        let (Some(watcher), Some(source)) = (&mut tapping.watcher, tapping.source) else { return };
        if matches!(outcomes, [LineOutcome::Refused(..)]) {
            return;
        }
        let at = place_of(text, tapping.base);
        watcher.event(at, text, self.json_options(source));
        for outcome in outcomes {
            let LineOutcome::Accepted { metric, slot, dropped, recorded: Some((amount, weight, time)), .. } = outcome
            else {
                continue;
            };
            let recorded = Recorded { amount: *amount, weight: *weight, time: *time, dropped: *dropped };
            let series = || self.series_of(metric.kind, *slot, Some(metric));
            watcher.sample(at, (metric.kind, *slot), recorded, &series);
        }
    }

    /// Shows what a ring holds: calls on handles of the embedding program and of collectors.
    #[cold]
    pub(in crate::shard) fn tap_run(&mut self, source: SourceIndex, run: &[RingEvent], now: Timestamp) {
        let Some(mut watcher) = self.watch(SAMPLES, source, now, run.len()) else { return };
        for (at, event) in run.iter().enumerate() {
            let value = event.value;
            let mut weight = WEIGHT_ONE;
            let amount = match event.op() {
                RingOp::Units => {
                    weight = unpack_weight(event.weight()).0;
                    Amount::Units { units: value as i64, is_clamped: false }
                }
                RingOp::Set => Amount::Set { value: f64::from_bits(value), units: 0 },
                RingOp::Adjust => Amount::Adjust(f64::from_bits(value)),
                RingOp::Member => Amount::Member(value),
                RingOp::Count => {
                    // What it has below one stands behind it.
                    let next = run.get(at + 1).filter(|next| next.op() == RingOp::Fraction);
                    Amount::Count { whole: value as i64, nanos: next.map_or(0, |next| next.value as i64) }
                }
                RingOp::Fraction | RingOp::Nothing => continue,
            };
            let recorded = Recorded { amount, weight, time: now, dropped: None };
            let (kind, slot) = (amount.kind(), Some(event.slot()));
            watcher.sample(at, (kind, slot), recorded, &|| self.series_of(kind, slot, None));
        }
        self.watcher = Some(watcher);
    }

    /// Shows what a counter's handle gained since the last tick.
    #[cold]
    pub(in crate::shard) fn tap_increment(
        &mut self,
        source: SourceIndex,
        slot: Slot,
        whole: u64,
        nanos: i64,
        now: Timestamp,
    ) {
        let Some(mut watcher) = self.watch(SAMPLES, source, now, 1) else { return };
        let amount = Amount::Count { whole: i64::try_from(whole).unwrap_or(i64::MAX), nanos };
        let recorded = Recorded { amount, weight: WEIGHT_ONE, time: now, dropped: None };
        watcher.sample(0, (Kind::Counter, Some(slot)), recorded, &|| self.series_of(Kind::Counter, Some(slot), None));
        self.watcher = Some(watcher);
    }

    /// Shows samples of a replayable source.
    #[cold]
    pub(in crate::shard) fn tap_replayed(&mut self, source: SourceIndex, samples: &[ReplaySample], now: Timestamp) {
        let Some(mut watcher) = self.watch(SAMPLES, source, now, samples.len()) else { return };
        for (at, sample) in samples.iter().enumerate() {
            let value = sample.value;
            let amount = match sample.metric.kind {
                Kind::Counter => {
                    Amount::Count { whole: (value / 1_000_000_000) as i64, nanos: (value % 1_000_000_000) as i64 }
                }
                Kind::Gauge => Amount::Set { value: f64::from_bits(value as u64), units: 0 },
                Kind::Distribution => Amount::Units { units: value as i64, is_clamped: false },
                Kind::Set => Amount::Member(value as u64),
            };
            let recorded = Recorded { amount, weight: sample.weight, time: sample.time, dropped: None };
            let series = || Some((Arc::clone(&sample.metric), sample.labels.clone()));
            watcher.sample(at, (sample.metric.kind, None), recorded, &series);
        }
        self.watcher = Some(watcher);
    }

    /// The series of a slot; without one there is the metric alone.
    fn series_of(&self, kind: Kind, slot: Option<Slot>, metric: Option<&Arc<Metric>>) -> Option<(Arc<Metric>, Labels)> {
        let Some(slot) = slot else { return Some((Arc::clone(metric?), Labels::empty())) };
        let table = self.table.lock();
        let entry = table.get(kind, slot)?;
        Some((Arc::clone(&entry.metric), entry.labels.clone()))
    }
}

/// Events and samples counted for a source, and for `internal`, where what clients say of themselves is counted.
fn counted(combiner: &mut Combiner, source: SourceIndex) -> (u64, u64) {
    let mut of = |source| {
        let tally = combiner.tally(source);
        (tally.events, tally.samples_total())
    };
    let (own, internal) = (of(source), of(SourceIndex(0)));
    if source == SourceIndex(0) { own } else { (own.0 + internal.0, own.1 + internal.1) }
}

/// Where a text ends in its batch.
fn place_of(text: &[u8], base: usize) -> usize {
    (text.as_ptr() as usize + text.len()).saturating_sub(base + 1)
}

/// A value of an accepted line, as it was recorded.
fn amount_of(line: &Line<'_>, value: Number, meta: Meta) -> Option<Amount> {
    let value = value.shifted(i32::from(meta.shift()));
    Some(match meta.kind() {
        Kind::Counter => {
            let (whole, nanos) = value.scaled_by_rate(line.rate).ok()?;
            Amount::Count { whole, nanos }
        }
        Kind::Gauge if value.has_sign() => Amount::Adjust(value.to_f64()),
        Kind::Gauge => Amount::Set { value: value.to_f64(), units: 0 },
        Kind::Distribution => match value.to_units(meta.exponent()) {
            Ok(units) => Amount::Units { units, is_clamped: false },
            Err(beyond) => Amount::Units { units: beyond.clamped, is_clamped: true },
        },
        Kind::Set => Amount::Member(member_hash(line.values)),
    })
}
