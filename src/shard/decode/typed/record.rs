//! From what an event emitted to its series and their records.
//!
//! In: emitted samples and their keys. Out: records, operations of pairs, counts. Owns nothing. Invariant: the cache is
//! asked first; the table of series, which has a lock, only for what the cache does not know.

use super::{Frame, KeyKind, TypedState};
use crate::codec::dogstatsd::key_hash;
use crate::delta::pair::{PairFeed, PairIndex, PairRole};
use crate::delta::{Edge, Interned};
use crate::event::{DropReason, Kind, Labels, Metric, RejectReason, Slice, Slot, SourceIndex, Timestamp, WireType};
use crate::rule::Resolved;
use crate::rule::typed::{Amount, EventPlan, PAIR_FEEDS_MAX, PairValue, Weight};
use crate::shard::cache::{Entry, Meta};
use crate::shard::decode::{Applied, Batch, Decoder, LineOutcome, meta_of};
use arrayvec::ArrayVec;
use std::sync::Arc;

/// A sample on its way to its series.
pub(super) struct Staged {
    hash: u64,
    found: Found,
}

enum Found {
    Known(Entry),
    New(Labels),
}

impl Decoder {
    /// Finds the series of every sample, step by step so that the memory of all is fetched at once; those that are new
    /// get their labels made, which is the last thing that may refuse the event.
    pub(super) fn stage(&mut self, source: SourceIndex, plan: &EventPlan) -> Result<(), RejectReason> {
        let Decoder { typed, cache, rules, .. } = self;
        let TypedState { scratch, hashes, staged, .. } = typed;
        hashes.clear();
        staged.clear();
        for emitted in scratch.emitted() {
            let hash = key_hash(scratch.key(emitted), WireType::Count, b"", cache.seed());
            cache.prefetch_place(hash);
            hashes.push(hash);
        }
        for (emitted, hash) in scratch.emitted().iter().zip(hashes) {
            let key = scratch.key(emitted);
            let found = match cache.find(*hash, key, KeyKind::Feed as u8) {
                Some(entry) => Found::Known(entry),
                None => Found::New(rules.labels_of_feed(source, &plan.feeds()[emitted.feed], key)?),
            };
            staged.push(Staged { hash: *hash, found });
        }
        if plan.has_pairs() {
            for (_, feed, key) in scratch.pairs(plan).flat_map(|(_, _, feeds)| feeds) {
                rules.labels_of_feed(source, feed, key)?;
            }
        }
        Ok(())
    }

    pub(super) fn record_event(
        &mut self,
        batch: &mut Batch<'_>,
        plan: &EventPlan,
        weight: Weight,
        slice: Slice,
        time: Timestamp,
        mut trace: Option<&mut Vec<LineOutcome>>,
    ) {
        let mut staged = std::mem::take(&mut self.typed.staged);
        for (at, staged) in staged.drain(..).enumerate() {
            let emitted = self.typed.scratch.emitted()[at];
            let metric = plan.feeds()[emitted.feed].metric();
            let (slot, meta) = match staged.found {
                Found::Known(entry) => (Some(entry.slot()), entry.meta),
                Found::New(labels) => {
                    let resolved = Resolved {
                        metric: Arc::clone(metric),
                        labels,
                        input_exponent: metric.scale.exponent() as i8,
                        shift: 0,
                        labels_dropped: 0,
                    };
                    let meta = meta_of(&resolved);
                    (self.intern_feed(&resolved, staged.hash, at, meta), meta)
                }
            };
            self.record_amount(batch, emitted.amount, slot, meta, weight, slice, time);
            if let Some(trace) = trace.as_deref_mut() {
                trace.push(LineOutcome::Accepted {
                    metric: Arc::clone(metric),
                    slot,
                    samples: 1,
                    dropped: slot.is_none().then_some(DropReason::SeriesLimit),
                    recorded: Some((emitted.amount, weight.cells(), time)),
                });
            }
        }
        self.typed.staged = staged;
    }

    /// Opens and closes the pairs that the event is a side of (V8). The series that an open pair feeds get their slots now,
    /// with the labels of its start.
    pub(super) fn join_pairs(&mut self, batch: &mut Batch<'_>, plan: &EventPlan, time: Timestamp) {
        if !plan.has_pairs() {
            return;
        }
        let source = batch.origin.source;
        for (side, key, feeds) in self.typed.scratch.pairs(plan) {
            let pair = PairIndex(side.pair as u16);
            if !side.is_start {
                batch.combiner.close_pair(source, pair, key, time);
                continue;
            }
            let slots: ArrayVec<PairFeed, PAIR_FEEDS_MAX> = feeds
                .filter_map(|(value, feed, key)| {
                    let role = match value {
                        PairValue::Open => PairRole::Open,
                        PairValue::Duration => PairRole::Duration,
                        PairValue::Expired => PairRole::Expired,
                    };
                    let hash = key_hash(key, WireType::Count, b"", self.cache.seed());
                    let slot = match self.cache.find(hash, key, KeyKind::Feed as u8) {
                        Some(entry) => Some(entry.slot()),
                        None => {
                            // Its labels were checked with those of the samples.
                            let labels = self.rules.labels_of_feed(source, feed, key).ok()?;
                            match self.table.intern(feed.metric(), &labels) {
                                Interned::Slot(slot) => {
                                    let metric = feed.metric();
                                    let bucketed = metric.buckets.is_some();
                                    let meta = Meta::new(metric.kind, metric.digits, bucketed, 0, 0, 0);
                                    self.cache.insert_key(hash, key, KeyKind::Feed as u8, slot, meta);
                                    Some(slot)
                                }
                                Interned::Overflow(slot) => Some(slot),
                                Interned::Refused => None,
                            }
                        }
                    };
                    slot.map(|slot| PairFeed { role, slot, scale: feed.scale() })
                })
                .collect();
            batch.combiner.open_pair(source, pair, key, time, &slots);
        }
    }

    /// As [`Decoder::intern`], for the key of sample `at`.
    fn intern_feed(&mut self, resolved: &Resolved, hash: u64, at: usize, meta: Meta) -> Option<Slot> {
        let metric = &resolved.metric;
        let (slot, is_own) = match self.table.intern(metric, &resolved.labels) {
            Interned::Slot(slot) => (slot, true),
            Interned::Overflow(slot) => (slot, false),
            Interned::Refused => return None,
        };
        if metric.kind == Kind::Distribution {
            self.note_buckets(slot, metric);
        }
        if is_own {
            let scratch = &self.typed.scratch;
            let key = scratch.key(&scratch.emitted()[at]);
            self.cache.insert_key(hash, key, KeyKind::Feed as u8, slot, meta);
        }
        Some(slot)
    }

    /// Records one sample and counts it; without a slot it is dropped.
    #[expect(clippy::too_many_arguments, reason = "the resolved terms of one sample")]
    pub(in crate::shard::decode) fn record_amount(
        &mut self,
        batch: &mut Batch<'_>,
        amount: Amount,
        slot: Option<Slot>,
        meta: Meta,
        weight: Weight,
        slice: Slice,
        time: Timestamp,
    ) {
        let kind = amount.kind() as usize;
        let is_late = slice < batch.slice;
        let tally = batch.tally();
        tally.samples[kind] += 1;
        let Some(slot) = slot else {
            tally.drop_samples(Edge::Shard, DropReason::SeriesLimit, 1);
            return;
        };
        tally.recorded[kind] += 1;
        tally.late += u64::from(is_late);
        match amount {
            Amount::Count { whole, nanos: 0 } if slice == batch.combiner.slice() => {
                batch.combiner.add_whole(slot.0, whole);
            }
            Amount::Count { whole, nanos } => {
                batch.combiner.add_whole_at(slice, slot.0, i128::from(whole) * 1_000_000_000 + i128::from(nanos));
            }
            Amount::Set { value, units } => {
                let position = self.next_position(batch.arrival);
                batch.combiner.set_gauge_at(slice, slot.0, value, units, time.0, position);
            }
            Amount::Adjust(by) => batch.combiner.adjust_gauge_at(slice, slot.0, by),
            Amount::Units { units, is_clamped } => {
                batch.tally().clamped += u64::from(is_clamped);
                let digits = meta.digits();
                let cell = crate::sketch::layout::cell_of(digits, units);
                let rule = if meta.is_bucketed() { self.bucket_rules.get(&slot.0) } else { None };
                let rule = rule.map(Arc::as_ref);
                batch.combiner.add_value_at(slice, slot.0, digits, units, cell, weight.cells(), rule);
            }
            Amount::Member(hash) => batch.combiner.add_member_at(slice, slot.0, hash),
        }
    }

    /// Records an event of one sample, and counts it.
    pub(in crate::shard::decode) fn record_single(
        &mut self,
        batch: &mut Batch<'_>,
        (amount, slot, meta, metric): (Amount, Option<Slot>, Meta, Option<Arc<Metric>>),
        frame: &Frame,
        place: Result<(Slice, Timestamp), DropReason>,
        trace: Option<&mut Vec<LineOutcome>>,
    ) {
        let tally = batch.tally();
        tally.inputs += 1;
        tally.events += 1;
        tally.unknown_fields += frame.extra;
        let dropped = match place {
            Ok((slice, time)) => {
                self.record_amount(batch, amount, slot, meta, frame.weight, slice, time);
                slot.is_none().then_some(DropReason::SeriesLimit)
            }
            Err(reason) => {
                tally.samples[amount.kind() as usize] += 1;
                tally.drop_samples(Edge::Shard, reason, 1);
                Some(reason)
            }
        };
        if let Some(trace) = trace {
            let applied = Applied { meta, slot, metric, samples: 1 };
            let slot = if dropped.is_some() { None } else { slot };
            let recorded = Some((amount, frame.weight.cells(), frame.time().unwrap_or(batch.arrival)));
            trace.push(LineOutcome::Accepted { metric: self.metric_of(&applied), slot, samples: 1, dropped, recorded });
        }
    }
}
