//! Samples of replayable sources: a lane of combiners for each, sealed by its barriers.
//!
//! In: batches of resolved samples, barriers. Out: sealed combiners. Invariant: what an older incarnation sent is
//! discarded (C2).

use super::*;

impl Shard {
    /// A barrier is answered at once, with a new combiner when the spare is not back: what comes behind it
    /// belongs to the next epoch. The store begins an epoch only when the last one is drained, so that
    /// this happens after a new incarnation only.
    pub(super) fn seal_replay(&mut self, barrier: Barrier, now: Timestamp) {
        let slice = self.decoder.acceptance().slice.slice_of(now);
        let lane = self.lane(barrier.source, barrier.incarnation, now);
        if barrier.incarnation < lane.incarnation {
            return;
        }
        let mut fresh = lane.spare.take().unwrap_or_else(|| Box::new(Combiner::new(slice)));
        fresh.start(slice);
        let combiner = std::mem::replace(&mut lane.current, fresh);
        let (group, epoch) = (InputGroup::Replayable(barrier.source), barrier.epoch);
        let barrier = Some(barrier);
        self.sink.sealed(Sealed { shard: self.index, group, epoch, barrier, sealed_at: now, combiner });
    }

    fn lane(&mut self, source: SourceIndex, incarnation: u32, now: Timestamp) -> &mut Lane {
        let acceptance = self.decoder.acceptance();
        let lane = self.replay.entry(source).or_insert_with(|| Lane::new(now, &acceptance));
        if incarnation > lane.incarnation {
            // C2: what the older incarnation sent was not committed and will be sent again.
            *lane.current = Combiner::new(acceptance.slice.slice_of(now));
            lane.incarnation = incarnation;
        }
        lane
    }

    pub(super) fn replay(&mut self, source: SourceIndex, incarnation: u32, samples: Vec<ReplaySample>, now: Timestamp) {
        let table = Arc::clone(self.decoder.table());
        let width = self.decoder.acceptance().slice;
        if incarnation < self.lane(source, incarnation, now).incarnation {
            return;
        }
        if self.decoder.is_tapped() {
            self.decoder.tap_replayed(source, &samples, now);
        }
        let Shard { replay, decoder, .. } = self;
        let Some(lane) = replay.get_mut(&source) else { return };
        let combiner = &mut lane.current;
        for sample in samples {
            let slot = match table.intern(&sample.metric, &sample.labels) {
                crate::delta::Interned::Slot(slot) | crate::delta::Interned::Overflow(slot) => Some(slot),
                crate::delta::Interned::Refused => None,
            };
            let kind = sample.metric.kind;
            let tally = combiner.tally(source);
            tally.inputs += 1;
            tally.events += 1;
            tally.samples[kind as usize] += 1;
            let Some(slot) = slot else {
                tally.drop_samples(Edge::Shard, DropReason::SeriesLimit, 1);
                continue;
            };
            tally.recorded[kind as usize] += 1;
            let slice = width.slice_of(sample.time);
            match kind {
                Kind::Counter => combiner.add_whole_at(slice, slot.0, sample.value),
                Kind::Gauge => {
                    let value = f64::from_bits(sample.value as u64);
                    let units = (value * sample.metric.scale.per_one()).round() as i64;
                    combiner.set_gauge_at(slice, slot.0, value, units, sample.time.0, sample.position);
                }
                Kind::Distribution => {
                    let units = sample.value as i64;
                    let digits = sample.metric.digits;
                    let cell = layout::cell_of(digits, units);
                    decoder.note_buckets(slot, &sample.metric);
                    let rule = if sample.metric.buckets.is_some() { decoder.bucket_rule(slot) } else { None };
                    combiner.add_value_at(slice, slot.0, digits, units, cell, sample.weight, rule.map(Arc::as_ref));
                }
                Kind::Set => combiner.add_member_at(slice, slot.0, sample.value as u64),
            }
        }
    }
}
