//! What can be asked of the view.
//!
//! In: durable ids. Out: plain values, copied under the lock of one chunk at a time. Invariants: the
//! answers of one series are of one commit; counts and buckets are cumulative / 4096 rounded half up, so
//! that `+Inf` = count and buckets are monotone (V2); a quantile carries its bound and what it covers (V4).

use super::chunk::Chunk;
use super::state::{DistributionState, StateRef};
use super::{NativeBuckets, Reset, View, fold, place_of};
use crate::event::{Kind, Metric, SeriesId, Timestamp, WEIGHT_ONE};
use crate::sketch::{self, Digits};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Cumulative figures of one series, as they are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Totals<'a> {
    /// In 10⁻⁹.
    Counter(i128),
    /// Everything × 4096.
    Distribution {
        /// Σ weight.
        weight: u128,
        /// Σ value × weight in scale units.
        sum: i128,
        /// Per declared bound the weight not above it.
        buckets: &'a [u128],
    },
    /// Gauges and sets have none.
    None,
}

/// Cumulative figures of one series, and since when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TotalsRow<'a> {
    /// Since the last reset.
    pub totals: Totals<'a>,
    /// Since when the series exists: its first life's creation (S2).
    pub born: Timestamp,
    /// Of the newest sample, about: its commit.
    pub seen: Timestamp,
    /// Ascending in time (R3).
    pub resets: &'a [Reset],
}

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterValue {
    /// Total in 10⁻⁹.
    pub nanos: i128,
    /// Since when (S2).
    pub created: Timestamp,
    /// Of the newest sample, about: its commit.
    pub seen: Timestamp,
}

/// A gauge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaugeValue {
    /// The newest value; `None` before the first, and when it holds no more ([`Metric::holds`]).
    pub last: Option<f64>,
    /// Event time of the newest value.
    pub time: Timestamp,
    /// Sets seen since `created`, and their least and greatest value.
    pub count: u64,
    /// Infinite before the first.
    pub min: f64,
    /// Infinite before the first.
    pub max: f64,
    /// Since when (S2).
    pub created: Timestamp,
}

/// A set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetValue {
    /// Distinct members in the window.
    pub distinct: u64,
    /// Since when (S2).
    pub created: Timestamp,
    /// Of the newest sample, about: its commit.
    pub seen: Timestamp,
}

/// A distribution, without its buckets and quantiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributionValue {
    /// What its samples stand for since `created`: Σ weight, rounded.
    pub count: u128,
    /// Samples seen.
    pub samples: u64,
    /// Σ value × weight in scale units, rounded.
    pub sum: i128,
    /// Least value in scale units; `None` before the first.
    pub min: Option<i64>,
    /// Greatest value in scale units.
    pub max: Option<i64>,
    /// Samples seen in the window.
    pub window_samples: u64,
    /// Counts of its buckets hold samples from before their bounds were declared, which were estimated (R2).
    pub estimated_buckets: bool,
    /// Resolution of the window.
    pub digits: Digits,
    /// Since when (S2).
    pub created: Timestamp,
    /// Of the newest sample, about: its commit.
    pub seen: Timestamp,
}

/// Distributions of one metric, in columns: what a renderer reads.
#[derive(Default)]
pub struct Distributions {
    /// In the order asked; `None` for a series that has left.
    pub values: Vec<Option<DistributionValue>>,
    /// Per value as many as were asked for, in scale units; meaningless when its window is empty.
    pub quantiles: Vec<i64>,
    /// Per value the counts not above each declared bound.
    pub buckets: Vec<u128>,
}

/// A distribution as a histogram.
#[derive(Clone, Copy, Debug)]
pub struct HistogramValue<'a> {
    /// Its figures.
    pub value: DistributionValue,
    /// The counts not above each declared bound, rounded.
    pub counts: &'a [u128],
    /// The same × 4096, not rounded.
    pub weights: &'a [u128],
    /// Its native buckets, while they hold every sample.
    pub native: Option<&'a NativeBuckets>,
}

/// One quantile of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// In [0, 1].
    pub q: f64,
    /// In base units; NaN when the window is empty.
    pub value: f64,
    /// Relative error bound; infinite at zero, where it is half a scale unit.
    pub bound: f64,
}

/// Everything about one distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct DistributionStats {
    /// What its samples stand for since creation.
    pub count: u128,
    /// Samples seen since creation.
    pub samples: u64,
    /// Σ in base units.
    pub sum: f64,
    /// Least value in base units; NaN before the first.
    pub min: f64,
    /// Greatest value in base units; NaN before the first.
    pub max: f64,
    /// `sum / count`; NaN before the first.
    pub mean: f64,
    /// (declared bound in base units, count not above it).
    pub buckets: Vec<(f64, u128)>,
    /// Of the window.
    pub quantiles: Vec<Quantile>,
    /// Samples seen in the window.
    pub window_samples: u64,
    /// What the window spans, in seconds: N slices, the last of them open.
    pub window_seconds: f64,
    /// Since when (S2).
    pub created: Timestamp,
}

/// The value of any series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// See [`CounterValue`].
    Counter(CounterValue),
    /// See [`GaugeValue`].
    Gauge(GaugeValue),
    /// See [`DistributionValue`].
    Distribution(DistributionValue),
    /// See [`SetValue`].
    Set(SetValue),
}

/// × 4096 to whole, half up.
fn whole(weight: u128) -> u128 {
    weight.saturating_add(u128::from(WEIGHT_ONE / 2)) / u128::from(WEIGHT_ONE)
}

fn distribution_value(state: &DistributionState) -> DistributionValue {
    let totals = &state.totals;
    let has_samples = totals.samples > 0;
    DistributionValue {
        count: whole(totals.weight),
        samples: totals.samples,
        sum: totals.sum.saturating_add(i128::from(WEIGHT_ONE / 2)).div_euclid(i128::from(WEIGHT_ONE)),
        min: has_samples.then_some(totals.min),
        max: has_samples.then_some(totals.max),
        window_samples: state.window.samples,
        estimated_buckets: totals.has_estimates(),
        digits: state.window.sketch.digits(),
        created: Timestamp(state.identity.created),
        seen: Timestamp(state.identity.seen),
    }
}

/// `lowest` is the first slice of the window, `since` the commit that the value of a gauge must have come with or after.
fn value_of(state: StateRef<'_>, lowest: u32, since: Timestamp) -> Value {
    let identity = state.identity();
    let (created, seen) = (Timestamp(identity.created), Timestamp(identity.seen));
    match state {
        StateRef::Counter(state) => Value::Counter(CounterValue { nanos: state.total, created, seen }),
        StateRef::Gauge(state) => {
            let sum = &state.sum;
            Value::Gauge(GaugeValue {
                last: (sum.count > 0 && seen >= since).then_some(sum.last),
                time: if sum.count > 0 { Timestamp(sum.time) } else { created },
                count: sum.count,
                min: sum.min,
                max: sum.max,
                created,
            })
        }
        StateRef::Distribution(state) => Value::Distribution(distribution_value(state)),
        StateRef::Set(state) => Value::Set(SetValue { distinct: state.estimate(lowest), created, seen }),
    }
}

impl View {
    /// Calls `visit` for each id in order, with its chunk (locked once per run of ids) or `None`.
    fn visit(&self, ids: &[SeriesId], mut visit: impl FnMut(Option<(&Chunk, u16)>)) {
        let mut rest = ids;
        while let Some(first) = rest.first() {
            let (block, _) = place_of(*first);
            let run = rest.iter().take_while(|id| place_of(**id).0 == block).count();
            let chunk = self.chunk(block);
            let locked = chunk.as_deref().map(fold::lock);
            for id in &rest[..run] {
                visit(locked.as_deref().map(|chunk| (chunk, place_of(*id).1)));
            }
            drop(locked);
            rest = &rest[run..];
        }
    }

    fn chunk(&self, block: u32) -> Option<Arc<Mutex<Chunk>>> {
        self.shared.chunks.read().unwrap_or_else(PoisonError::into_inner).get(block as usize)?.clone()
    }

    fn lowest(&self, metric: &Metric) -> u32 {
        self.shared.open.load(Ordering::Relaxed).saturating_sub(metric.window_slices.max(1) - 1)
    }

    /// Calls `visit` with the cumulative figures of series in the order asked; `None` for one that has left.
    pub fn read_totals(&self, ids: &[SeriesId], mut visit: impl FnMut(Option<TotalsRow<'_>>)) {
        self.visit(ids, |place| {
            visit(place.and_then(|(chunk, offset)| {
                let state = chunk.get(offset)?;
                let identity = state.identity();
                let totals = match state {
                    StateRef::Counter(state) => Totals::Counter(state.total),
                    StateRef::Distribution(DistributionState { totals, .. }) => {
                        Totals::Distribution { weight: totals.weight, sum: totals.sum, buckets: &totals.buckets }
                    }
                    StateRef::Gauge(_) | StateRef::Set(_) => Totals::None,
                };
                let resets = chunk.resets.get(&offset);
                Some(TotalsRow {
                    totals,
                    born: Timestamp(resets.map_or(identity.created, |resets| resets.born)),
                    seen: Timestamp(identity.seen),
                    resets: resets.map_or(&[], |resets| &resets.list),
                })
            }));
        });
    }

    /// Calls `visit` with the counters in the order asked; `None` for a series that has left. Runs under
    /// the lock of a chunk: formatting a number there is cheaper than keeping it.
    pub fn read_counters(&self, ids: &[SeriesId], mut visit: impl FnMut(Option<CounterValue>)) {
        self.visit(ids, |place| {
            visit(place.and_then(|(chunk, offset)| {
                let state = &chunk.counters[chunk.index(Kind::Counter, offset)?];
                Some(CounterValue {
                    nanos: state.total,
                    created: Timestamp(state.identity.created),
                    seen: Timestamp(state.identity.seen),
                })
            }));
        });
    }

    /// Appends the values of series of any kind but distributions' buckets and quantiles. A gauge that its metric says
    /// holds only so long has none when the newest commit is later.
    pub fn read(&self, metric: &Metric, ids: &[SeriesId], out: &mut Vec<Option<Value>>) {
        let lowest = self.lowest(metric);
        let since = metric.holds.map_or(Timestamp(i64::MIN), |holds| self.last_commit_time().plus_nanos(-holds));
        self.visit(ids, |place| {
            out.push(place.and_then(|(chunk, offset)| Some(value_of(chunk.get(offset)?, lowest, since))));
        });
    }

    /// Fills `out` with the distributions, their quantiles (ascending) over the window, and their buckets
    /// when asked for (`bounds` is how many the metric declares).
    pub fn read_distributions(&self, ids: &[SeriesId], quantiles: &[f64], bounds: usize, out: &mut Distributions) {
        out.values.clear();
        out.quantiles.clear();
        out.buckets.clear();
        let mut answers = Vec::with_capacity(quantiles.len());
        self.visit(ids, |place| {
            let state =
                place.and_then(|(chunk, offset)| Some(&chunk.distributions[chunk.index(Kind::Distribution, offset)?]));
            out.values.push(state.map(distribution_value));
            answers.clear();
            if let Some(state) = state
                && !quantiles.is_empty()
                && let Some((min, max)) = state.window.extremes()
            {
                state.window.sketch.quantiles(quantiles, min, max, &mut answers);
            }
            answers.resize(quantiles.len(), 0);
            out.quantiles.extend_from_slice(&answers);
            let buckets = state.map_or(&[][..], |state| &state.totals.buckets[..]);
            let known = buckets.len().min(bounds);
            out.buckets.extend(buckets[..known].iter().map(|weight| whole(*weight)));
            out.buckets.extend(std::iter::repeat_n(0, bounds - known));
        });
    }

    /// True when buckets of one of these distributions hold estimates (R2). Costs nothing while none ever did.
    pub fn has_estimates(&self, ids: &[SeriesId]) -> bool {
        if !self.shared.has_estimates.load(Ordering::Relaxed) {
            return false;
        }
        let mut found = false;
        self.visit(ids, |place| {
            found |= place.is_some_and(|(chunk, offset)| {
                let at = chunk.index(Kind::Distribution, offset);
                at.is_some_and(|at| chunk.distributions[at].totals.has_estimates())
            });
        });
        found
    }

    /// Calls `visit` with the histograms in the order asked, `None` for a series that has left. `bounds` is how many the
    /// metric declares. Runs under the lock of a chunk, so that all of one is of one commit.
    pub fn read_histograms(&self, ids: &[SeriesId], bounds: usize, mut visit: impl FnMut(Option<HistogramValue<'_>>)) {
        let (mut counts, mut weights) = (Vec::with_capacity(bounds), Vec::with_capacity(bounds));
        let mut natives = NativeBuckets::default();
        self.visit(ids, |place| {
            visit(place.and_then(|(chunk, offset)| {
                let state = &chunk.distributions[chunk.index(Kind::Distribution, offset)?];
                let totals = &state.totals;
                weights.clear();
                weights.extend(totals.buckets.iter().take(bounds));
                weights.resize(bounds, 0);
                counts.clear();
                counts.extend(weights.iter().map(|weight| whole(*weight)));
                let native = totals.native.as_ref().filter(|native| native.weight() == totals.weight);
                if let Some(native) = native {
                    native.buckets(&mut natives);
                }
                let native = native.is_some().then_some(&natives);
                Some(HistogramValue { value: distribution_value(state), counts: &counts, weights: &weights, native })
            }));
        });
    }

    /// The value of one series; `None` when it is not in memory.
    pub fn value(&self, metric: &Metric, id: SeriesId) -> Option<Value> {
        let mut out = Vec::with_capacity(1);
        self.read(metric, &[id], &mut out);
        out.pop()?
    }

    /// Everything about one distribution, with these quantiles (in [0, 1], ascending).
    pub fn stats(&self, metric: &Metric, id: SeriesId, quantiles: &[f64]) -> Option<DistributionStats> {
        let mut column = Distributions::default();
        let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
        self.read_distributions(&[id], quantiles, bounds.len(), &mut column);
        let value = column.values[0]?;
        let scale = metric.scale;
        let sum = scale.value_of(value.sum);
        let answer = |(q, units): (&f64, &i64)| {
            let is_empty = value.window_samples == 0;
            Quantile {
                q: *q,
                value: if is_empty { f64::NAN } else { scale.value_of(i128::from(*units)) },
                bound: if is_empty { f64::NAN } else { value.bound(*units) },
            }
        };
        let extreme = |units: Option<i64>| units.map_or(f64::NAN, |units| scale.value_of(i128::from(units)));
        Some(DistributionStats {
            count: value.count,
            samples: value.samples,
            sum,
            min: extreme(value.min),
            max: extreme(value.max),
            mean: if value.count == 0 { f64::NAN } else { sum / value.count as f64 },
            buckets: bounds.iter().copied().zip(column.buckets).collect(),
            quantiles: quantiles.iter().zip(&column.quantiles).map(answer).collect(),
            window_samples: value.window_samples,
            window_seconds: self.window_seconds(metric),
            created: value.created,
        })
    }

    /// One quantile of a distribution's window; `None` when the series is not in memory.
    pub fn quantile(&self, metric: &Metric, id: SeriesId, q: f64) -> Option<Quantile> {
        self.stats(metric, id, &[q])?.quantiles.pop()
    }

    /// What a metric's window spans, in seconds.
    pub fn window_seconds(&self, metric: &Metric) -> f64 {
        f64::from(metric.window_slices.max(1)) * (self.shared.width.nanos() as f64 / 1e9)
    }
}

impl DistributionValue {
    /// Of a series without samples.
    pub fn empty(digits: Digits) -> DistributionValue {
        DistributionValue {
            count: 0,
            samples: 0,
            sum: 0,
            min: None,
            max: None,
            window_samples: 0,
            estimated_buckets: false,
            digits,
            created: Timestamp(0),
            seen: Timestamp(0),
        }
    }

    /// The relative error bound of a quantile of this window that reads `units` (V4).
    pub fn bound(&self, units: i64) -> f64 {
        sketch::bound(self.digits, units as f64)
    }
}
