//! The values of a line: checked all together, then recorded one by one.
//!
//! In: a line whose series is known. Out: samples in the combiner. Invariant: nothing is recorded of a line with a value
//! that is refused.

use super::*;

impl Decoder {
    /// V1: counters and gauges beyond ±10^18 in value are refused, the whole line with them.
    pub(super) fn check_values(&self, line: &Line<'_>, meta: Meta) -> Result<(), RejectReason> {
        let check = |value: Number| match (meta.kind(), value.shifted(i32::from(meta.shift()))) {
            (Kind::Counter, value) => value.scaled_by_rate(line.rate).map(|_| ()).map_err(|_| RejectReason::OutOfRange),
            (Kind::Gauge, value) if value.to_f64().abs() > 1e18 => Err(RejectReason::OutOfRange),
            _ => Ok(()),
        };
        if meta.kind() == Kind::Set {
            return Ok(());
        }
        if !line.packed {
            return check(line.value);
        }
        dogstatsd::values(line).try_for_each(|value| check(value?))
    }

    #[expect(clippy::too_many_arguments, reason = "the resolved terms of one sample")]
    pub(super) fn record_value(
        &mut self,
        batch: &mut Batch<'_>,
        line: &Line<'_>,
        value: Number,
        slot: Slot,
        meta: Meta,
        slice: Slice,
        time: Timestamp,
    ) {
        batch.tally().recorded[meta.kind() as usize] += 1;
        let value = value.shifted(i32::from(meta.shift()));
        match meta.kind() {
            Kind::Counter => {
                if let Ok((whole, nanos)) = value.scaled_by_rate(line.rate) {
                    let sum = i128::from(whole) * 1_000_000_000 + i128::from(nanos);
                    batch.combiner.add_whole_at(slice, slot.0, sum);
                }
            }
            Kind::Gauge => self.record_gauge(batch, value, slot, meta, slice, time),
            Kind::Distribution => {
                let units = value.to_units(meta.exponent()).unwrap_or_else(|out| {
                    batch.tally().clamped += 1;
                    out.clamped
                });
                let digits = meta.digits();
                let cell = layout::cell_of(digits, units);
                let rule = if meta.is_bucketed() { self.bucket_rules.get(&slot.0) } else { None };
                batch.combiner.add_value_at(slice, slot.0, digits, units, cell, line.weight, rule.map(Arc::as_ref));
            }
            Kind::Set => batch.combiner.add_member_at(slice, slot.0, member_hash(line.values)),
        }
    }

    pub(super) fn record_gauge(
        &mut self,
        batch: &mut Batch<'_>,
        value: Number,
        slot: Slot,
        meta: Meta,
        slice: Slice,
        time: Timestamp,
    ) {
        if value.has_sign() {
            // A relative operation has no time of its own, so it belongs to the open slice.
            batch.combiner.adjust_gauge_at(slice, slot.0, value.to_f64());
            return;
        }
        let position = self.next_position(batch.arrival);
        let units = value.to_units(meta.exponent()).unwrap_or_else(|out| out.clamped);
        batch.combiner.set_gauge_at(slice, slot.0, value.to_f64(), units, time.0, position);
    }
}
