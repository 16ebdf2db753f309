//! A naive world for the evaluator's tests: series built slice by slice, totals by adding everything up.
//!
//! In: metrics, series, and what each saw at a time. Out: [`Data`]. Owns: every slice since the beginning, so that each
//! figure is computed in the plainest way there is. Invariant: what the store answers must equal what this answers.

use super::cover::{Run, Tier, Zones, cover};
use super::data::{
    Data, DataError, DistributionSlice, DistributionTotals, Extent, GaugeRow, Need, Rows, SeriesRows, Span, Visit,
};
use super::matcher::Matcher;
use crate::delta::BucketRule;
use crate::delta::part::DistributionRow;
use crate::event::{
    Buckets, Expose, Group, Kind, Labels, LabelsBuilder, Metric, MetricId, Scale, SeriesId, Slice, SliceWidth,
    Timestamp, UNITS_MAX, Unit, WEIGHT_ONE,
};
use crate::sketch::{Digits, Distinct, Sketch, layout, member_hash};
use crate::view::Reset;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one slice of a distribution holds, as a part's row would.
#[derive(Clone, Debug, Default)]
struct Cells {
    samples: u64,
    weighted: bool,
    sum: i128,
    min: i64,
    max: i64,
    cells: BTreeMap<i32, u64>,
    below: BTreeMap<u16, u64>,
    /// Per declared bound the weight not above it, × 4096.
    buckets: Vec<u128>,
    clamped: u64,
    /// × 4096.
    weight: u128,
    total: i128,
}

#[derive(Debug)]
enum History {
    Counter(BTreeMap<Slice, i128>),
    Gauge(BTreeMap<Slice, GaugeRow>),
    Distribution(BTreeMap<Slice, Cells>),
    Set(BTreeMap<Slice, Distinct>),
}

#[derive(Debug)]
struct Stored {
    metric: Arc<Metric>,
    labels: Labels,
    created: Timestamp,
    last: Timestamp,
    resets: Vec<Reset>,
    history: History,
}

/// A world in memory.
#[derive(Debug)]
pub struct Memory {
    width: SliceWidth,
    metrics: BTreeMap<Arc<str>, Arc<Metric>>,
    series: Vec<Stored>,
    tiers: Vec<Tier>,
    zones: Zones,
}

impl Memory {
    /// An empty world with slices of so many seconds, at least one.
    pub fn new(slice_seconds: i64) -> Memory {
        let width = SliceWidth::from_nanos(slice_seconds.max(1) * 1_000_000_000).expect("a second or more is a width");
        Memory { width, metrics: BTreeMap::new(), series: Vec::new(), tiers: Vec::new(), zones: Zones::default() }
    }

    /// From now on it answers as a store with these tiers does, the finest first: with the rows of slots, merged.
    pub fn hold(&mut self, tiers: Vec<Tier>) {
        self.zones = Zones::of(&tiers);
        self.tiers = tiers;
    }

    /// A metric as an undeclared sample would make it; `edit` declares more.
    pub fn declare(&mut self, name: &str, kind: Kind, edit: impl FnOnce(&mut Metric)) -> Arc<Metric> {
        let mut metric = Metric {
            id: MetricId(self.metrics.len() as u32),
            name: name.into(),
            kind,
            unit: Unit::None,
            scale: if kind == Kind::Counter { Scale::NANO } else { Scale::MICRO },
            help: "".into(),
            declared: false,
            label_names: None,
            expose: Expose { summary: true, histogram: false },
            quantiles: [0.5, 0.9, 0.95, 0.99].into(),
            digits: Digits::Two,
            window_slices: 30,
            buckets: None,
            group: Group::Main,
            idle: None,
            holds: None,
        };
        edit(&mut metric);
        let metric = Arc::new(metric);
        self.metrics.insert(name.into(), Arc::clone(&metric));
        metric
    }

    /// Declares the buckets of a metric: bounds in base units.
    pub fn buckets(bounds: &[f64], scale: Scale) -> Option<Arc<Buckets>> {
        crate::rule::buckets(bounds, scale).ok().map(Arc::new)
    }

    /// A new series. It exists from `created` on, and lasts to its last sample.
    pub fn series(&mut self, metric: &Arc<Metric>, labels: &[(&str, &str)], created: Timestamp) -> SeriesId {
        let mut builder = LabelsBuilder::new();
        for (key, value) in labels {
            builder.push(*key, *value);
        }
        let labels = builder.build_reserved().expect("a test's labels are within limits");
        let history = match metric.kind {
            Kind::Counter => History::Counter(BTreeMap::new()),
            Kind::Gauge => History::Gauge(BTreeMap::new()),
            Kind::Distribution => History::Distribution(BTreeMap::new()),
            Kind::Set => History::Set(BTreeMap::new()),
        };
        let (metric, resets) = (Arc::clone(metric), Vec::new());
        self.series.push(Stored { metric, labels, created, last: created, resets, history });
        SeriesId(self.series.len() as u32 - 1)
    }

    fn stored(&mut self, id: SeriesId, at: Timestamp) -> (&mut Stored, Slice) {
        let slice = self.width.slice_of(at);
        let stored = &mut self.series[id.0 as usize];
        stored.last = stored.last.max(at);
        (stored, slice)
    }

    /// A counter grows; `value` is rounded to 10⁻⁹.
    pub fn increment(&mut self, id: SeriesId, at: Timestamp, value: f64) {
        let (stored, slice) = self.stored(id, at);
        let History::Counter(rows) = &mut stored.history else { panic!("not a counter") };
        *rows.entry(slice).or_default() += (value * 1e9).round() as i128;
    }

    /// A gauge is set.
    pub fn set(&mut self, id: SeriesId, at: Timestamp, value: f64) {
        let (stored, slice) = self.stored(id, at);
        let units = (value * stored.metric.scale.per_one()).round() as i128;
        let History::Gauge(rows) = &mut stored.history else { panic!("not a gauge") };
        let order = (at.0, 0);
        let first = GaugeRow { slice, last: value, order, min: value, max: value, sum: 0, count: 0 };
        let row = rows.entry(slice).or_insert(first);
        if order >= row.order {
            (row.last, row.order) = (value, order);
        }
        (row.min, row.max) = (row.min.min(value), row.max.max(value));
        (row.sum, row.count) = (row.sum + units, row.count + 1);
    }

    /// A distribution sees a value that stands for `weight` 4096ths of a sample; 4096 is one.
    pub fn observe(&mut self, id: SeriesId, at: Timestamp, value: f64, weight: u64) {
        let (stored, slice) = self.stored(id, at);
        let metric = Arc::clone(&stored.metric);
        let exact = (value * metric.scale.per_one()).round();
        let units = exact.clamp(-(UNITS_MAX as f64), UNITS_MAX as f64) as i64;
        let History::Distribution(rows) = &mut stored.history else { panic!("not a distribution") };
        let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.units[..]);
        let row = rows.entry(slice).or_insert_with(|| Cells {
            min: i64::MAX,
            max: i64::MIN,
            buckets: vec![0; bounds.len()],
            ..Cells::default()
        });
        if weight != WEIGHT_ONE && !row.weighted {
            row.weighted = true;
            row.sum *= i128::from(WEIGHT_ONE);
            row.cells.values_mut().chain(row.below.values_mut()).for_each(|count| *count *= WEIGHT_ONE);
        }
        let count = if row.weighted { weight } else { 1 };
        let cell = layout::cell_of(metric.digits, units);
        row.samples += 1;
        row.clamped += u64::from(exact.abs() > UNITS_MAX as f64);
        row.sum += i128::from(units) * i128::from(count);
        (row.min, row.max) = (row.min.min(units), row.max.max(units));
        *row.cells.entry(cell).or_default() += count;
        if let Some(buckets) = &metric.buckets {
            let rule = BucketRule::new(Arc::clone(buckets), metric.digits);
            rule.exact_below(cell, units, |index| *row.below.entry(index).or_default() += count);
        }
        for (bucket, bound) in row.buckets.iter_mut().zip(bounds) {
            *bucket += if units <= *bound { u128::from(weight) } else { 0 };
        }
        row.weight += u128::from(weight);
        row.total += i128::from(units) * i128::from(weight);
    }

    /// A set sees a member.
    pub fn insert(&mut self, id: SeriesId, at: Timestamp, member: &str) {
        let (stored, slice) = self.stored(id, at);
        let History::Set(rows) = &mut stored.history else { panic!("not a set") };
        rows.entry(slice).or_insert_with(Distinct::new).insert(member_hash(member.as_bytes()));
    }

    /// A series begins a new life: what it has seen so far is in the old ones (R3).
    pub fn reset(&mut self, id: SeriesId, at: Timestamp) {
        let stored = &mut self.series[id.0 as usize];
        let mut reset = Reset { at, ..Reset::default() };
        match &stored.history {
            History::Counter(rows) => reset.total = rows.values().sum(),
            History::Distribution(rows) => {
                let bounds = stored.metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
                let mut buckets = vec![0; bounds];
                for row in rows.values() {
                    (reset.total, reset.weight) = (reset.total + row.total, reset.weight + row.weight);
                    buckets.iter_mut().zip(&row.buckets).for_each(|(sum, bucket)| *sum += bucket);
                }
                reset.buckets = buckets.into();
            }
            History::Gauge(_) | History::Set(_) => {}
        }
        stored.resets.push(reset);
    }

    /// All samples of a distribution's slices, merged: what an oracle compares with.
    pub fn sketch(&self, id: SeriesId, span: Span) -> Option<Sketch> {
        let stored = self.series.get(id.0 as usize)?;
        let History::Distribution(rows) = &stored.history else { return None };
        let mut sketch = Sketch::new(stored.metric.digits);
        for row in rows.range(span.from..span.to).map(|(_, row)| row) {
            let mut part = Sketch::new(stored.metric.digits);
            if row.weighted {
                part.make_weighted();
            }
            part.add_sorted(&row.cells.iter().map(|(cell, count)| (*cell, *count)).collect::<Vec<_>>());
            sketch.merge(&part);
        }
        Some(sketch)
    }
}

impl Data for Memory {
    fn slice_width(&self) -> SliceWidth {
        self.width
    }

    fn zones(&self) -> &Zones {
        &self.zones
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.metrics.get(name).cloned()
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.metrics.values().cloned().collect()
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let accepted = |stored: &Stored| {
            stored.metric.id == metric.id
                && matchers.iter().all(|m| m.accepts(stored.labels.get(m.name()).unwrap_or_default()))
        };
        let ids = (0u32..).zip(&self.series).filter(|(_, stored)| accepted(stored));
        Ok(ids.map(|(id, _)| SeriesId(id)).collect())
    }

    fn read(
        &self,
        _metric: &Metric,
        ids: &[SeriesId],
        extent: Extent<'_>,
        _need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        let runs = cover(&self.tiers, extent.windows, extent.edges);
        for (at, id) in ids.iter().enumerate() {
            let Some(stored) = self.series.get(id.0 as usize) else { continue };
            let mut show = |rows: Rows<'_>| {
                let Stored { labels, created, resets, last, .. } = stored;
                visit(at, &SeriesRows { labels, created: *created, resets, last: *last, rows })
            };
            match &stored.history {
                History::Counter(rows) => {
                    let total = rows.range(..extent.span.to).map(|(_, n)| n).sum();
                    let slots = slots(&runs, rows, |sum, n| *sum += n);
                    show(Rows::Counter { total, increments: &slots })?;
                }
                History::Gauge(rows) => {
                    let mut slots = slots(&runs, rows, merge_gauges);
                    slots.iter_mut().for_each(|(slot, row)| row.slice = *slot);
                    show(Rows::Gauge(&slots.iter().map(|(_, row)| *row).collect::<Vec<_>>()))?;
                }
                History::Distribution(rows) => {
                    let slots = slots(&runs, rows, Cells::merge);
                    show_distribution(&stored.metric, rows, extent.span, &slots, &mut show)?;
                }
                History::Set(rows) => {
                    let slots = slots(&runs, rows, |set, other| set.merge(other));
                    show(Rows::Set(&slots.iter().map(|(slot, set)| (*slot, set)).collect::<Vec<_>>()))?;
                }
            }
        }
        Ok(())
    }
}

/// The rows of the slots, each merged of its slices.
fn slots<T: Clone>(runs: &[Run], rows: &BTreeMap<Slice, T>, mut merge: impl FnMut(&mut T, &T)) -> Vec<(Slice, T)> {
    let mut slots: Vec<(Slice, T)> = Vec::new();
    for run in runs {
        for (slice, row) in rows.range(Slice(run.from)..Slice(run.to)) {
            let slot = Slice(run.slot(slice.0));
            match slots.last_mut() {
                Some((last, sum)) if *last == slot => merge(sum, row),
                _ => slots.push((slot, row.clone())),
            }
        }
    }
    slots
}

fn merge_gauges(into: &mut GaugeRow, other: &GaugeRow) {
    if other.order >= into.order {
        (into.last, into.order) = (other.last, other.order);
    }
    (into.min, into.max) = (into.min.min(other.min), into.max.max(other.max));
    (into.sum, into.count) = (into.sum + other.sum, into.count + other.count);
}

impl Cells {
    fn merge(&mut self, other: &Cells) {
        let mut other = other.clone();
        if self.weighted || other.weighted {
            self.weigh();
            other.weigh();
        }
        (self.samples, self.clamped) = (self.samples + other.samples, self.clamped + other.clamped);
        (self.sum, self.total, self.weight) =
            (self.sum + other.sum, self.total + other.total, self.weight + other.weight);
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        other.cells.iter().for_each(|(cell, count)| *self.cells.entry(*cell).or_default() += count);
        other.below.iter().for_each(|(bound, count)| *self.below.entry(*bound).or_default() += count);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, bucket)| *sum += bucket);
    }

    /// Counts in 4096ths from now on, so that any two can be added.
    fn weigh(&mut self) {
        if !std::mem::replace(&mut self.weighted, true) {
            self.sum *= i128::from(WEIGHT_ONE);
            self.cells.values_mut().chain(self.below.values_mut()).for_each(|count| *count *= WEIGHT_ONE);
        }
    }
}

fn show_distribution(
    metric: &Metric,
    rows: &BTreeMap<Slice, Cells>,
    span: Span,
    slots: &[(Slice, Cells)],
    show: &mut dyn FnMut(Rows<'_>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut buckets = vec![0u128; metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len())];
    let (mut weight, mut sum) = (0, 0);
    for row in rows.range(..span.to).map(|(_, row)| row) {
        (weight, sum) = (weight + row.weight, sum + row.total);
        buckets.iter_mut().zip(&row.buckets).for_each(|(total, bucket)| *total += bucket);
    }
    type Lists = (Vec<(i32, u64)>, Vec<(u16, u64)>);
    let lists: Vec<Lists> = slots
        .iter()
        .map(|(_, row)| {
            (row.cells.iter().map(|(c, n)| (*c, *n)).collect(), row.below.iter().map(|(b, n)| (*b, *n)).collect())
        })
        .collect();
    let rows: Vec<_> = slots
        .iter()
        .zip(&lists)
        .map(|((slice, row_of), (cells, below))| {
            let (digits, count, weighted) = (metric.digits, row_of.samples, row_of.weighted);
            let (sum, min, max) = (row_of.sum, row_of.min, row_of.max);
            let row = DistributionRow { digits, count, weighted, sum, min, max, cells, below };
            DistributionSlice { slice: *slice, row, late: None, clamped: Some(row_of.clamped) }
        })
        .collect();
    show(Rows::Distribution { totals: DistributionTotals { weight, sum, buckets: &buckets }, rows: &rows })
}
