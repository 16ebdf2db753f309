//! Handles of one thread: a series resolved once, then nothing but a store or two a call.
//!
//! In: values in base units. Out: ring events and counter slots. Invariants: a handle is not `Send`, so a
//! ring has one writer; a value that is refused is counted, never recorded half.

use super::HandleError;
use super::Pinned;
use super::timer::LocalTimer;
use crate::event::{Clock, RejectReason, UNITS_MAX, Unit, WEIGHT_ONE};
use crate::shard::pack_weight;
use crate::shard::ring::{CounterCell, EventHead, RingOp, RingWriter};
use crate::sketch::{Digits, member_hash};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Smallest rate of `sampled`: its weight still fits an event.
const RATE_MIN: f64 = 1.0 / 1024.0;

/// A counter. An increment is one load and one store of this thread's own slot.
#[derive(Clone)]
pub struct LocalCounter {
    cell: Arc<CounterCell>,
    writer: Rc<RingWriter>,
    _pinned: Rc<Pinned>,
}

impl LocalCounter {
    pub(super) fn new(pinned: Pinned, writer: Rc<RingWriter>) -> LocalCounter {
        LocalCounter { cell: writer.counter(pinned.slot), writer, _pinned: Rc::new(pinned) }
    }

    /// Adds one.
    #[inline(always)]
    pub fn inc(&self) {
        self.cell.add(1);
    }

    /// Adds a whole number; beyond 10¹⁸ it is refused and counted.
    #[inline(always)]
    pub fn add(&self, by: u64) {
        // V1. For a constant the compiler decides this.
        if by <= UNITS_MAX as u64 {
            self.cell.add(by);
        } else {
            self.writer.refuse(RejectReason::OutOfRange);
        }
    }

    /// Adds a fraction, rounded to 10⁻⁹. Negative or not finite values are refused and counted.
    #[inline]
    pub fn add_f64(&self, by: f64) {
        // 9 × 10⁹ is where 10⁻⁹ leaves i64; such a step is split. NaN fails the comparison.
        if (0.0..9e9).contains(&by) {
            self.cell.add_nanos(round_to_i64(by * 1e9));
        } else {
            self.add_large(by);
        }
    }

    #[cold]
    fn add_large(&self, by: f64) {
        if !by.is_finite() {
            self.writer.refuse(RejectReason::NotFinite);
        } else if by < 0.0 {
            self.writer.refuse(RejectReason::Negative);
        } else if by > UNITS_MAX as f64 {
            self.writer.refuse(RejectReason::OutOfRange);
        } else {
            self.cell.add(by.trunc() as u64);
            self.cell.add_nanos(round_to_i64(by.fract() * 1e9));
        }
    }
}

/// A gauge.
#[derive(Clone)]
pub struct LocalGauge {
    writer: Rc<RingWriter>,
    pinned: Rc<Pinned>,
}

impl LocalGauge {
    pub(super) fn new(pinned: Pinned, writer: Rc<RingWriter>) -> LocalGauge {
        LocalGauge { writer, pinned: Rc::new(pinned) }
    }

    /// Sets it.
    #[inline]
    pub fn set(&self, value: f64) {
        if self.accepts(value) {
            let exponent = u64::from(self.pinned.metric.scale.exponent());
            self.writer.push(EventHead::new(self.pinned.slot, RingOp::Set, exponent), value.to_bits());
        }
    }

    /// Moves it up.
    #[inline]
    pub fn inc(&self, by: f64) {
        if self.accepts(by) {
            self.writer.push(EventHead::new(self.pinned.slot, RingOp::Adjust, 0), by.to_bits());
        }
    }

    /// Moves it down.
    #[inline]
    pub fn dec(&self, by: f64) {
        self.inc(-by);
    }

    #[inline]
    fn accepts(&self, value: f64) -> bool {
        if value.abs() <= UNITS_MAX as f64 {
            return true;
        }
        self.writer.refuse(if value.is_finite() { RejectReason::OutOfRange } else { RejectReason::NotFinite });
        false
    }
}

/// A histogram: any distribution.
///
/// Its own fields are what a call reads, in half a cache line: a caller that walks many handles waits for each.
#[derive(Clone)]
pub struct LocalHistogram {
    writer: Rc<RingWriter>,
    /// With the weight of [`pack_weight`]; 0 is the plain case.
    head: EventHead,
    /// True for seconds kept in 10⁻⁹: a duration in nanoseconds is then its scale units as it is.
    is_nanos: bool,
    refuses_negative: bool,
    is_sampled: bool,
    rest: Rc<HistogramRest>,
}

/// What a plain call does not need.
#[derive(Clone)]
struct HistogramRest {
    pinned: Rc<Pinned>,
    clock: Arc<dyn Clock>,
    per_one: f64,
    /// A call is recorded when the generator stays below.
    sample_below: u64,
    random: Rc<Cell<u64>>,
}

impl LocalHistogram {
    pub(super) fn new(pinned: Pinned, writer: Rc<RingWriter>, clock: Arc<dyn Clock>) -> LocalHistogram {
        let metric = &pinned.metric;
        let is_plain = metric.digits == Digits::Two && metric.buckets.is_none();
        let seed = pinned.slot.0 as u64 ^ clock.monotonic() as u64 | 1;
        let weight = if is_plain { 0 } else { pack_weight(WEIGHT_ONE, metric.digits) };
        LocalHistogram {
            writer,
            head: EventHead::new(pinned.slot, RingOp::Units, weight),
            is_nanos: metric.unit == Unit::Seconds && metric.scale.exponent() == 9,
            refuses_negative: metric.unit == Unit::Seconds,
            is_sampled: false,
            rest: Rc::new(HistogramRest {
                per_one: metric.scale.per_one(),
                sample_below: u64::MAX,
                random: Rc::new(Cell::new(seed)),
                pinned: Rc::new(pinned),
                clock,
            }),
        }
    }

    /// The same histogram, recording each call with this probability and a weight of its inverse.
    ///
    /// # Errors
    /// [`HandleError::Rate`] outside [1/1024, 1].
    pub fn sampled(&self, rate: f64) -> Result<LocalHistogram, HandleError> {
        if !(RATE_MIN..=1.0).contains(&rate) {
            return Err(HandleError::Rate(rate));
        }
        let mut sampled = self.clone();
        if rate < 1.0 {
            let pinned = &self.rest.pinned;
            let weight = pack_weight((WEIGHT_ONE as f64 / rate).round() as u64, pinned.metric.digits);
            sampled.head = EventHead::new(pinned.slot, RingOp::Units, weight);
            sampled.is_sampled = true;
            Rc::make_mut(&mut sampled.rest).sample_below = (rate * u64::MAX as f64) as u64;
        }
        Ok(sampled)
    }

    /// Records a value in base units (seconds, bytes, ...).
    #[inline]
    pub fn observe(&self, value: f64) {
        let units = value * self.rest.per_one;
        if units.abs() < UNITS_MAX as f64 && !(self.refuses_negative && value < 0.0) {
            self.push(round_to_i64(units));
        } else {
            self.observe_odd(value);
        }
    }

    #[cold]
    fn observe_odd(&self, value: f64) {
        if !value.is_finite() {
            self.writer.refuse(RejectReason::NotFinite);
        } else if value < 0.0 && self.refuses_negative {
            self.writer.refuse(RejectReason::Negative);
        } else {
            // V4: a distribution's value beyond the range is clamped to its end.
            self.push(if value < 0.0 { -UNITS_MAX } else { UNITS_MAX });
        }
    }

    /// Records a duration; for metrics in seconds this is exact and costs no floating point.
    #[inline(always)]
    pub fn observe_duration(&self, duration: Duration) {
        if self.is_nanos && duration.as_secs() < 1_000_000_000 {
            self.push(duration.as_secs() as i64 * 1_000_000_000 + i64::from(duration.subsec_nanos()));
        } else {
            self.observe(duration.as_secs_f64());
        }
    }

    /// Records a duration in nanoseconds.
    #[inline(always)]
    pub fn observe_nanos(&self, nanos: u64) {
        if self.is_nanos && nanos < UNITS_MAX as u64 {
            self.push(nanos as i64);
        } else {
            self.observe(nanos as f64 / 1e9);
        }
    }

    #[inline(always)]
    fn push(&self, units: i64) {
        if self.is_sampled && !self.is_chosen() {
            return;
        }
        self.writer.push(self.head, units as u64);
    }

    /// xorshift64* (Vigna 2016): independent of the value, so that sampling is unbiased.
    fn is_chosen(&self) -> bool {
        let mut x = self.rest.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.rest.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) <= self.rest.sample_below
    }

    /// Records the time until it is dropped, also by a panic or a cancelled future.
    pub fn start_timer(&self) -> LocalTimer<'_> {
        LocalTimer::start(self, &*self.rest.clock)
    }
}

/// A set.
#[derive(Clone)]
pub struct LocalSet {
    writer: Rc<RingWriter>,
    pinned: Rc<Pinned>,
}

impl LocalSet {
    pub(super) fn new(pinned: Pinned, writer: Rc<RingWriter>) -> LocalSet {
        LocalSet { writer, pinned: Rc::new(pinned) }
    }

    /// Adds a member.
    #[inline]
    pub fn insert(&self, member: impl AsRef<[u8]>) {
        self.writer.push(EventHead::new(self.pinned.slot, RingOp::Member, 0), member_hash(member.as_ref()));
    }
}

/// Rounds to the nearest integer, ties to even, by adding and taking away 1.5 × 2^52 where that is exact:
/// `f64::round` is a library call without SSE4.1.
#[inline(always)]
fn round_to_i64(value: f64) -> i64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    if value.abs() < 2_251_799_813_685_248.0 { (value + MAGIC - MAGIC) as i64 } else { value.round() as i64 }
}

#[cfg(test)]
mod tests {
    use super::round_to_i64;

    #[test]
    fn rounding_is_to_the_nearest() {
        for (value, expected) in
            [(0.4, 0), (0.6, 1), (-0.6, -1), (12_345_678.9, 12_345_679), (1e17 + 16.0, 100_000_000_000_000_016)]
        {
            assert_eq!(round_to_i64(value), expected, "{value}");
        }
    }
}
