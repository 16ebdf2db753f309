//! The view against a naive oracle: any split of samples into parts and commits, sliding windows, restarts.

use super::*;
use crate::delta::part::{DistributionRow, PartWriter};
use crate::delta::testing::metric;
use crate::delta::{BucketRule, CounterSum, DistributionSum, EncodedPart, GaugeSum, TableLimits};
use crate::event::{Buckets, LabelsBuilder, Slice, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, layout};
use crate::store::{Committed, Fold, Resetting, TotalsBlock};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod estimates;

const SECOND: i64 = 1_000_000_000;

fn width() -> SliceWidth {
    SliceWidth::from_nanos(10 * SECOND).expect("ten seconds")
}

/// One sample of one series.
#[derive(Clone, Debug)]
struct Sample {
    series: usize,
    slice: u32,
    value: i64,
    weight: u64,
    part: usize,
}

/// The samples of a part, in the order of its rows; the last term of the key is the series' place.
type Rows<'a> = BTreeMap<(Kind, SeriesId, usize), Vec<&'a Sample>>;

/// A store that keeps everything in lists: what the real one promises, without a disk.
struct Bench {
    fold: ViewFold,
    view: View,
    table: Arc<SeriesTable>,
    metrics: Vec<Arc<Metric>>,
    series: Vec<SeriesRow>,
    live: BTreeSet<usize>,
    log: Vec<(Slice, CommitId, Vec<u8>)>,
    /// Per series how many samples there were at each reset, and when it was.
    resets: BTreeMap<usize, Vec<(usize, Timestamp)>>,
    totals: BTreeMap<u32, (CommitId, Vec<u8>)>,
    samples: Vec<Sample>,
    commit: CommitId,
    open: u32,
}

fn metrics() -> Vec<Arc<Metric>> {
    let distribution = |id, name, window_slices, digits, bounds: Option<&[i64]>| {
        let mut metric = Arc::unwrap_or_clone(metric(id, name, Kind::Distribution));
        metric.window_slices = window_slices;
        metric.digits = digits;
        metric.expose.histogram = bounds.is_some();
        metric.buckets = bounds.map(|units| {
            let bounds = units.iter().map(|unit| *unit as f64 / 1e6).collect();
            Arc::new(Buckets { first: 0, bounds, units: units.into() })
        });
        Arc::new(metric)
    };
    let mut set = Arc::unwrap_or_clone(metric(4, "members", Kind::Set));
    set.window_slices = 3;
    vec![
        metric(0, "events_total", Kind::Counter),
        metric(1, "level", Kind::Gauge),
        distribution(2, "short", 3, Digits::Two, Some(&[-50, 5, 300, 301, 302, 5_000, 70_000])),
        distribution(3, "long", 6, Digits::Two, None),
        Arc::new(set),
    ]
}

impl Bench {
    fn new(open: u32) -> Bench {
        let limits = TableLimits { series: 1 << 20, series_per_metric: 1 << 20 };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let (mut fold, view) = view(Arc::clone(&table), width(), usize::MAX);
        fold.leaving(Slice(open));
        Bench {
            fold,
            view,
            table,
            metrics: metrics(),
            series: Vec::new(),
            live: BTreeSet::new(),
            log: Vec::new(),
            resets: BTreeMap::new(),
            totals: BTreeMap::new(),
            samples: Vec::new(),
            commit: CommitId(0),
            open,
        }
    }

    fn now(&self) -> Timestamp {
        width().start(Slice(self.open))
    }

    /// Series `n` of metric `n % 5`; ids are spread so that several chunks are used.
    fn add_series(&mut self) -> usize {
        let at = self.series.len();
        let metric = Arc::clone(&self.metrics[at % 5]);
        let mut builder = LabelsBuilder::new();
        builder.push("n", at.to_string());
        let labels = builder.build().expect("valid");
        let crate::delta::Interned::Slot(slot) = self.table.intern(&metric, &labels) else { panic!("no limit") };
        let id = SeriesId(at as u32 * 700);
        self.table.lock().get_mut(metric.kind, slot).expect("interned").id = Some(id);
        self.series.push(SeriesRow { id, hash: 0, metric, labels, slot, created: self.now() });
        at
    }

    fn metric(&self, series: usize) -> &Arc<Metric> {
        &self.series[series].metric
    }

    /// Encodes samples as one part per (slice, part), ordered by (kind, id).
    fn encode(&self, samples: &[Sample]) -> Vec<EncodedPart> {
        let mut parts: BTreeMap<(u32, usize), Rows<'_>> = BTreeMap::new();
        for sample in samples {
            let key = (self.metric(sample.series).kind, self.series[sample.series].id, sample.series);
            parts.entry((sample.slice, sample.part)).or_default().entry(key).or_default().push(sample);
        }
        let encode = |((slice, _), rows): ((u32, usize), Rows<'_>)| {
            let mut writer = PartWriter::new(Vec::new());
            for ((kind, id, series), samples) in rows {
                match kind {
                    Kind::Counter => {
                        let nanos = samples.iter().map(|s| i128::from(s.value.unsigned_abs())).sum();
                        writer.counter(id, CounterSum { nanos });
                    }
                    Kind::Gauge => {
                        let mut sum = GaugeSum::default();
                        samples.iter().for_each(|sample| sum.merge(&gauge_of(sample)));
                        writer.gauge(id, &sum);
                    }
                    Kind::Distribution => {
                        let sum = distribution_of(self.metric(series), &samples);
                        let cells: Vec<_> = sum.sketch.cells().collect();
                        let row = DistributionRow {
                            digits: sum.sketch.digits(),
                            count: sum.count,
                            weighted: sum.weighted,
                            sum: sum.sum,
                            min: sum.min,
                            max: sum.max,
                            cells: &cells,
                            below: &sum.below,
                        };
                        writer.distribution(id, &row);
                    }
                    Kind::Set => {
                        let mut set = Distinct::default();
                        samples.iter().for_each(|s| set.insert(member(s)));
                        writer.set(id, &set);
                    }
                }
            }
            let rows = writer.rows();
            EncodedPart { slice: Slice(slice), bytes: writer.finish(), rows }
        };
        parts.into_iter().map(encode).collect()
    }

    fn commit(&mut self, samples: Vec<Sample>) {
        self.commit_and_reset(samples, &BTreeSet::new());
    }

    /// As the store does it: totals as of the commit before, reset, in the commit that names the series.
    fn commit_and_reset(&mut self, samples: Vec<Sample>, resets: &BTreeSet<usize>) {
        let known: Vec<usize> = resets.intersection(&self.live).copied().collect();
        let ids: Vec<SeriesId> = known.iter().map(|at| self.series[*at].id).collect();
        let at = self.now();
        for block in ids.iter().map(|id| id.0 / 1024).collect::<BTreeSet<u32>>() {
            let stored = self.totals.get(&block).map(|(_, bytes)| bytes.as_slice());
            let bytes = self.fold.encode_totals(block, stored, Resetting { ids: &ids, at }).expect("encoded here");
            self.totals.insert(block, (self.commit, bytes.expect("it has series")));
        }
        for series in known {
            let before = self.resets.entry(series).or_default();
            let created = before.last().map_or(self.series[series].created, |(_, at)| *at);
            before.push((self.samples.len(), Timestamp(at.0.max(created.0 + 1))));
        }
        self.commit.0 += 1;
        let parts = self.encode(&samples);
        let used: BTreeSet<usize> = samples.iter().map(|sample| sample.series).collect();
        let fresh: Vec<usize> = used.difference(&self.live).copied().collect();
        let now = self.now();
        for at in &fresh {
            // A series that never had a commit is created by this one.
            if !self.samples.iter().any(|sample| sample.series == *at) {
                self.series[*at].created = now;
            }
        }
        let fresh: Vec<SeriesRow> = fresh.iter().map(|at| self.series[*at].clone()).collect();
        self.live.extend(used);
        self.fold
            .commit(&Committed { id: self.commit, time: now, series: &fresh, resets: &ids, parts: &parts })
            .expect("encoded here");
        self.log.extend(parts.into_iter().map(|part| (part.slice, self.commit, part.bytes)));
        self.samples.extend(samples);
    }

    fn advance(&mut self, slices: u32) {
        self.open += slices;
        for slice in self.fold.leaving(Slice(self.open)) {
            let parts: Vec<Vec<u8>> = self.log.iter().filter(|row| row.0 == slice).map(|row| row.2.clone()).collect();
            self.fold.expire(slice, &parts).expect("encoded here");
        }
    }

    fn store_totals(&mut self, block: u32) {
        let stored = self.totals.get(&block).map(|(_, bytes)| bytes.as_slice());
        if let Some(bytes) = self.fold.encode_totals(block, stored, Resetting::default()).expect("encoded here") {
            self.totals.insert(block, (self.commit, bytes));
        }
    }

    fn restart(&mut self) {
        let (mut fold, reader) = view(Arc::clone(&self.table), width(), usize::MAX);
        fold.leaving(Slice(self.open));
        for at in &self.live {
            fold.restore_series(&self.series[*at]);
        }
        for (block, (as_of, bytes)) in &self.totals {
            fold.restore_totals(&TotalsBlock { block: *block, as_of: *as_of, bytes: bytes.clone() })
                .expect("own bytes");
        }
        for (slice, commit, bytes) in &self.log {
            fold.replay(*slice, *commit, bytes, true).expect("own bytes");
        }
        (self.fold, self.view) = (fold, reader);
    }

    fn value(&self, series: usize) -> Option<Value> {
        self.view.value(self.metric(series), self.series[series].id)
    }

    /// Every series against the samples.
    fn check(&self) {
        for at in &self.live {
            let all: Vec<&Sample> = self.samples.iter().filter(|sample| sample.series == *at).collect();
            let metric = self.metric(*at);
            let lowest = self.open.saturating_sub(metric.window_slices - 1);
            let inside: Vec<&Sample> = all.iter().copied().filter(|sample| sample.slice >= lowest).collect();
            // R3: what came since the last reset, however old its slice; the window is history.
            let resets = self.resets.get(at).map_or(&[][..], |resets| resets);
            let (since, created) = resets.last().copied().unwrap_or((0, self.series[*at].created));
            let own: Vec<&Sample> = self.samples[since..].iter().filter(|sample| sample.series == *at).collect();
            self.check_lives(*at, resets);
            match self.value(*at).expect("live") {
                Value::Counter(value) => {
                    assert_eq!(value.created, created);
                    assert_eq!(value.nanos, own.iter().map(|s| i128::from(s.value.unsigned_abs())).sum::<i128>());
                }
                Value::Gauge(value) => {
                    let mut sum = GaugeSum::default();
                    own.iter().for_each(|sample| sum.merge(&gauge_of(sample)));
                    let time = if sum.count > 0 { Timestamp(sum.time) } else { created };
                    assert_eq!(
                        (value.last, value.min, value.max),
                        ((sum.count > 0).then_some(sum.last), sum.min, sum.max)
                    );
                    assert_eq!((value.count, value.time, value.created), (sum.count, time, created));
                }
                Value::Set(value) => {
                    let mut set = Distinct::default();
                    inside.iter().for_each(|sample| set.insert(member(sample)));
                    assert_eq!(value.distinct, set.estimate());
                }
                Value::Distribution(value) => {
                    assert_eq!(value.created, created);
                    self.check_distribution(*at, &value, &own, &inside);
                }
            }
        }
    }

    /// Earlier lives: all samples before each reset, added up.
    fn check_lives(&self, at: usize, resets: &[(usize, Timestamp)]) {
        self.view.read_totals(&[self.series[at].id], |row| {
            let row = row.expect("live");
            assert_eq!((row.born, row.resets.len()), (self.series[at].created, resets.len()));
            for (found, (samples, time)) in row.resets.iter().zip(resets) {
                let own = self.samples[..*samples].iter().filter(|sample| sample.series == at);
                let (total, weight): (i128, u128) = match self.metric(at).kind {
                    Kind::Counter => (own.map(|s| i128::from(s.value.unsigned_abs())).sum(), 0),
                    Kind::Distribution => own.fold((0, 0), |(total, weight), s| {
                        (total + i128::from(s.value) * i128::from(s.weight), weight + u128::from(s.weight))
                    }),
                    Kind::Gauge | Kind::Set => (0, 0),
                };
                assert_eq!((found.at, found.total, found.weight), (*time, total, weight));
                let bounds = self.metric(at).buckets.as_ref().filter(|_| self.metric(at).kind == Kind::Distribution);
                for (bound, bucket) in bounds.iter().flat_map(|b| &b.units).zip(&found.buckets) {
                    let own = self.samples[..*samples].iter().filter(|s| s.series == at && s.value <= *bound);
                    assert_eq!(*bucket, own.map(|s| u128::from(s.weight)).sum::<u128>());
                }
            }
        });
    }

    fn check_distribution(&self, at: usize, value: &DistributionValue, own: &[&Sample], inside: &[&Sample]) {
        let metric = self.metric(at);
        let weight: u128 = own.iter().map(|s| u128::from(s.weight)).sum();
        let half = u128::from(WEIGHT_ONE / 2);
        assert_eq!(value.count, (weight + half) / u128::from(WEIGHT_ONE), "V2: rounded half up");
        assert_eq!(value.samples, own.len() as u64);
        let sum: i128 = own.iter().map(|s| i128::from(s.value) * i128::from(s.weight)).sum();
        assert_eq!(value.sum, (sum + half as i128).div_euclid(i128::from(WEIGHT_ONE)));
        assert_eq!(value.min, own.iter().map(|s| s.value).min());
        assert_eq!(value.max, own.iter().map(|s| s.value).max());
        assert_eq!(value.window_samples, inside.len() as u64);
        let stats = self.view.stats(metric, self.series[at].id, &[0.0, 0.5, 1.0]).expect("live");
        if let Some(buckets) = &metric.buckets {
            for ((_, count), bound) in stats.buckets.iter().zip(&buckets.units) {
                let below = own.iter().filter(|s| s.value <= *bound).map(|s| u128::from(s.weight)).sum::<u128>();
                assert_eq!(*count, (below + half) / u128::from(WEIGHT_ONE), "V5: buckets are exact");
            }
        }
        if metric.expose.histogram {
            self.check_native(at, value.count, own);
        }
        let chunk =
            self.view.shared.chunks.read().expect("not poisoned")[(self.series[at].id.0 / CHUNK_LEN) as usize].clone();
        let chunk = chunk.expect("live");
        let chunk = fold::lock(&chunk);
        let offset = place_of(self.series[at].id).1;
        let window = &chunk.distributions[chunk.index(Kind::Distribution, offset).expect("live")].window;
        let mut cells: BTreeMap<i32, u64> = BTreeMap::new();
        for sample in inside {
            *cells.entry(layout::cell_of(metric.digits, sample.value)).or_default() += sample.weight;
        }
        let factor = if window.sketch.weighted() { 1 } else { WEIGHT_ONE };
        let held: BTreeMap<i32, u64> = window.sketch.cells().map(|(cell, n)| (cell, n * factor)).collect();
        assert_eq!(held, cells, "the window's sketch is the sum of its slices");
        let extremes = inside.iter().map(|s| s.value).min().zip(inside.iter().map(|s| s.value).max());
        assert_eq!(window.extremes(), extremes);
        if inside.is_empty() {
            assert!(stats.quantiles.iter().all(|quantile| quantile.value.is_nan()), "Q2: an empty window is NaN");
        }
    }
}

impl Bench {
    /// V5: native buckets hold every sample where its cell's midpoint lies, through splits, restarts and returns.
    fn check_native(&self, at: usize, count: u128, own: &[&Sample]) {
        let metric = self.metric(at);
        let bounds = metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
        let mut found = None;
        self.view.read_histograms(&[self.series[at].id], bounds, |histogram| {
            let histogram = histogram.expect("live");
            found = Some((histogram.value.count, histogram.native.cloned()));
        });
        let (seen, native) = found.expect("visited");
        assert_eq!(seen, count);
        let Some(native) = native else {
            assert!(own.is_empty(), "native buckets hold every sample");
            return;
        };
        let mut weights: BTreeMap<(i64, i32), u64> = BTreeMap::new();
        for sample in own {
            let midpoint = layout::midpoint(metric.digits, layout::cell_of(metric.digits, sample.value));
            let magnitude = metric.scale.value_of(i128::from(midpoint.abs()));
            let index = if midpoint == 0 { 0 } else { native::index_of(magnitude, native.schema) };
            // Ascending by value: the higher the index of a negative one, the less it is.
            let sign = midpoint.signum();
            *weights.entry((sign, index * if sign < 0 { -1 } else { 1 })).or_default() += sample.weight;
        }
        let mut expected = NativeBuckets { schema: native.schema, ..NativeBuckets::default() };
        let mut sum = 0;
        for ((sign, index), weight) in weights {
            sum += weight;
            match sign {
                -1 => expected.negative.insert(0, (-index, weight)),
                0 => expected.zero = weight,
                _ => expected.positive.push((index, weight)),
            }
        }
        assert_eq!(native, expected);
        assert_eq!(u128::from((sum + WEIGHT_ONE / 2) / WEIGHT_ONE), count, "V2: buckets add up to the count");
    }
}

fn gauge_of(sample: &Sample) -> GaugeSum {
    let value = sample.value as f64 / 8.0;
    // The position makes the order of two samples of one moment certain.
    let position = sample.value.abs_diff(i64::MIN);
    let time = i64::from(sample.slice) * 10 * SECOND;
    GaugeSum {
        count: 1,
        last: value,
        time,
        position,
        min: value,
        max: value,
        sum: i128::from(sample.value),
        adjust: None,
    }
}

fn member(sample: &Sample) -> u64 {
    crate::sketch::member_hash(&(sample.value % 40).to_le_bytes())
}

fn distribution_of(metric: &Metric, samples: &[&Sample]) -> DistributionSum {
    let rule = metric.buckets.as_ref().map(|buckets| BucketRule::new(Arc::clone(buckets), metric.digits));
    let mut sum = DistributionSum::new(metric.digits);
    for sample in samples {
        let cell = layout::cell_of(metric.digits, sample.value);
        sum.add(sample.value, cell, sample.weight);
        if let Some(rule) = &rule {
            rule.exact_below(cell, sample.value, |bound| sum.add_below(bound, sample.weight));
        }
    }
    sum
}

#[derive(Clone, Debug)]
enum Step {
    /// (series, slices back, value, weight choice, part), and series that it resets.
    Commit(Vec<(usize, u32, i64, u8, usize)>, BTreeSet<usize>),
    Advance(u32),
    StoreTotals(u32),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![-400i64..400, 290i64..310, 0i64..100_000];
    let sample = (0usize..10, 0u32..9, value, 0u8..8, 0usize..3);
    let resets = prop_oneof![3 => Just(BTreeSet::new()), 1 => proptest::collection::btree_set(0usize..10, 1..10)];
    prop_oneof![
        6 => (proptest::collection::vec(sample, 1..20), resets).prop_map(|(samples, resets)| Step::Commit(samples, resets)),
        3 => (0u32..5).prop_map(Step::Advance),
        2 => (0u32..8).prop_map(Step::StoreTotals),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn v1_q2_c5_r3_the_view_equals_a_scan_of_all_samples(steps in proptest::collection::vec(step(), 1..25)) {
        let mut bench = Bench::new(1_000);
        for _ in 0..10 {
            bench.add_series();
        }
        for step in steps {
            match step {
                Step::Commit(samples, resets) => {
                    let open = bench.open;
                    let sample = |(series, back, value, weight, part): (usize, u32, i64, u8, usize)| {
                        let weight = match weight {
                            0 => 13_653,
                            1 => 40_960,
                            _ => WEIGHT_ONE,
                        };
                        Sample { series, slice: open + 1 - back, value, weight, part }
                    };
                    bench.commit_and_reset(samples.into_iter().map(sample).collect(), &resets);
                }
                Step::Advance(slices) => bench.advance(slices),
                Step::StoreTotals(block) => bench.store_totals(block),
                Step::Restart => bench.restart(),
            }
            bench.check();
        }
    }
}

fn sample(series: usize, slice: u32, value: i64) -> Sample {
    Sample { series, slice, value, weight: WEIGHT_ONE, part: 0 }
}

fn bench_of(series: usize) -> Bench {
    let mut bench = Bench::new(1_000);
    for _ in 0..series {
        bench.add_series();
    }
    bench
}

#[test]
fn s2_a_series_that_returns_resumes_its_total_and_creation_time() {
    let mut bench = bench_of(5);
    bench.commit((0..5).map(|series| sample(series, 1_000, 7)).collect());
    let created = bench.series[0].created;
    for block in 0..3 {
        bench.store_totals(block);
    }
    for series in 0..5 {
        bench.fold.forget(bench.series[series].id);
        assert_eq!(bench.value(series), None);
    }
    // Totals of series that are not in memory are carried over.
    for block in 0..3 {
        bench.store_totals(block);
    }
    bench.advance(10);
    for series in &bench.series {
        bench.fold.restore_series(series);
    }
    for (block, (as_of, bytes)) in &bench.totals {
        let block = TotalsBlock { block: *block, as_of: *as_of, bytes: bytes.clone() };
        bench.fold.restore_totals(&block).expect("own bytes");
        bench.fold.restore_totals(&block).expect("a second time adds nothing");
    }
    bench.live = (0..5).collect();
    bench.commit((0..5).map(|series| sample(series, 1_010, 9)).collect());
    bench.check();
    let Some(Value::Counter(counter)) = bench.value(0) else { panic!("a counter") };
    assert_eq!(counter.created, created);
    bench.advance(20);
    bench.check();
}

#[test]
fn c5_a_returned_series_takes_its_stored_total_over_once() {
    let mut bench = bench_of(1);
    bench.commit(vec![sample(0, 1_000, 7)]);
    bench.store_totals(0);
    bench.fold.forget(bench.series[0].id);
    bench.live.clear();
    bench.advance(1);
    // The store names it as returned and does not read its total: the next encoding does.
    bench.commit(vec![sample(0, 1_001, 5)]);
    bench.store_totals(0);
    bench.store_totals(0);
    bench.check();
    bench.restart();
    bench.check();
}

#[test]
fn c5_what_a_series_gained_since_its_block_was_stored_survives_its_leaving() {
    let mut bench = bench_of(5);
    bench.commit((0..5).map(|series| sample(series, 1_000, 7)).collect());
    (0..3).for_each(|block| bench.store_totals(block));
    bench.commit((0..5).map(|series| sample(series, 1_000, 8)).collect());
    for series in 0..5 {
        bench.fold.forget(bench.series[series].id);
    }
    // The file gets blocks that are newer than anything the log still counts for.
    (0..3).for_each(|block| bench.store_totals(block));
    (0..3).for_each(|block| bench.store_totals(block));
    let gone: Vec<usize> = std::mem::take(&mut bench.live).into_iter().collect();
    bench.commit(Vec::new());
    (0..3).for_each(|block| bench.store_totals(block));
    bench.live.extend(gone);
    let before = bench.fold.departed.get_mut().expect("not poisoned").rows(0).is_some();
    assert!(!before, "what is durable is not kept");
    bench.restart();
    bench.check();
    // The same without a restart, and before anything was stored.
    bench.commit((0..5).map(|series| sample(series, 1_000, 9)).collect());
    for series in 0..5 {
        bench.fold.forget(bench.series[series].id);
    }
    for series in &bench.series {
        bench.fold.restore_series(series);
    }
    for (block, (as_of, bytes)) in &bench.totals {
        let block = TotalsBlock { block: *block, as_of: *as_of, bytes: bytes.clone() };
        bench.fold.restore_totals(&block).expect("own bytes");
    }
    bench.advance(20);
    bench.check();
}

#[test]
fn s2_idle_series_are_named() {
    let mut bench = bench_of(0);
    let metric = Arc::make_mut(&mut bench.metrics[0]);
    metric.idle = Some(60 * SECOND);
    for _ in 0..2 {
        bench.add_series();
    }
    bench.commit(vec![sample(0, 1_000, 1), sample(1, 1_000, 1)]);
    let now = bench.now();
    assert_eq!(bench.fold.idle(now.plus_nanos(60 * SECOND)), []);
    let idle = bench.fold.idle(now.plus_nanos(60 * SECOND + 1));
    assert_eq!(idle, [(Kind::Counter, bench.series[0].slot, bench.series[0].id)], "a gauge without idle stays");
}

#[test]
fn t3_the_wall_clock_may_jump_and_return() {
    let mut bench = bench_of(5);
    bench.commit((0..5).map(|series| sample(series, 1_000, 7)).collect());
    bench.advance(1 << 30);
    bench.check();
    bench.open = 1_001;
    assert_eq!(bench.fold.leaving(Slice(1_001)), []);
    bench.commit((0..5).map(|series| sample(series, 1_001, 9)).collect());
    bench.commit((0..5).map(|series| sample(series, 1_000, 9)).collect());
    let Some(Value::Distribution(value)) = bench.value(3) else { panic!("a distribution") };
    assert_eq!((value.samples, value.window_samples), (3, 1), "what has left stays out, totals have all");
    bench.advance(20);
    bench.check();
}

#[test]
fn past_the_limit_the_widest_windows_drop_to_one_digit_and_say_so() {
    let mut bench = bench_of(5);
    let values = (0..2_000).map(|n| 1_000 + n * n);
    bench.commit(values.clone().map(|value| sample(3, 1_000, value)).collect());
    bench.commit(vec![sample(2, 1_000, 5)]);
    assert_eq!(bench.view.coarsened(), 0);
    let (fold, reader) = view(Arc::clone(&bench.table), width(), 50);
    let mut limited = Bench { fold, view: reader, ..bench };
    limited.fold.leaving(Slice(1_000));
    limited.commit = CommitId(0);
    limited.live.clear();
    limited.samples.clear();
    limited.log.clear();
    limited.commit(values.clone().map(|value| sample(3, 1_000, value)).collect());
    limited.commit(vec![sample(2, 1_000, 5)]);
    assert_eq!(limited.view.coarsened(), 1);
    let id = limited.series[3].id;
    let stats = limited.view.stats(limited.metric(3), id, &[0.5]).expect("live");
    let exact = (1_000 + 999 * 999) as f64 / 1e6;
    assert_eq!(stats.quantiles[0].bound, 0.1);
    assert!((stats.quantiles[0].value / exact - 1.0).abs() <= 0.1);
    let held = limited.view.cell_bytes();
    assert!(held > 0 && held < 1_500, "{held}");
    // Fine rows keep fitting into the coarse sketch, in and out.
    limited.commit(vec![sample(3, 1_001, 77)]);
    limited.advance(6);
    let value = limited.view.stats(limited.metric(3), id, &[0.5]).expect("live");
    assert_eq!((value.window_samples, value.quantiles[0].value), (1, 77e-6));
}

#[test]
fn v2_a_counter_never_goes_down_and_whole_weights_round_half_up() {
    let mut bench = bench_of(5);
    let mut last = (0, 0);
    for step in 0..40u32 {
        let weighted = Sample { weight: 2_048 + u64::from(step % 3), ..sample(3, 1_000 + step, 10) };
        bench.commit(vec![sample(0, 1_000 + step, i64::from(step % 4)), weighted]);
        bench.advance(1);
        if step % 7 == 0 {
            bench.store_totals(0);
            bench.restart();
        }
        let (Some(Value::Counter(counter)), Some(Value::Distribution(value))) = (bench.value(0), bench.value(3)) else {
            panic!("live")
        };
        assert!(counter.nanos >= last.0 && value.count >= last.1);
        last = (counter.nanos, value.count);
        bench.check();
    }
}

#[test]
fn a_reader_waits_for_a_commit() {
    let mut bench = bench_of(1);
    let view = bench.view.clone();
    assert!(!view.wait_for(CommitId(1), Duration::from_millis(1)));
    let failures = crate::actor::Failures::new();
    let wait = move || assert!(view.wait_for(CommitId(1), Duration::from_secs(20)));
    let waiter = crate::actor::spawn("waiter", &failures, wait).expect("a thread starts");
    bench.commit(vec![sample(0, 1_000, 1)]);
    waiter.join();
    assert_eq!(failures.first(), None);
    assert_eq!(bench.view.last_commit(), CommitId(1));
    assert_eq!(bench.view.id_of(bench.metric(0), &bench.series[0].labels), Some(bench.series[0].id));
    assert_eq!(bench.fold.gauge(SeriesId(0)), None);
}

#[test]
fn q3_a_commit_waits_for_no_reader_of_another_chunk() {
    let mut bench = bench_of(3);
    bench.commit(vec![sample(0, 1_000, 1), sample(2, 1_000, 1)]);
    let (view, first) = (bench.view.clone(), bench.series[0].id);
    let (arrived, is_there) = std::sync::mpsc::sync_channel(0);
    let (go_on, goes_on) = std::sync::mpsc::sync_channel::<()>(0);
    let failures = crate::actor::Failures::new();
    // It stands in the chunk of the first series until it is told to go on.
    let read = move || {
        view.read_counters(&[first], |value| {
            arrived.send(value.expect("live").nanos).expect("waited for");
            goes_on.recv().expect("told");
        });
    };
    let reader = crate::actor::spawn("reader", &failures, read).expect("a thread starts");
    let seen = is_there.recv().expect("it reads");
    // Series 2 has id 1,400: the fold would never return if it waited.
    bench.commit(vec![sample(2, 1_000, 2)]);
    let stats = bench.view.stats(bench.metric(2), bench.series[2].id, &[]).expect("live");
    assert_eq!((seen, stats.count), (1, 2));
    go_on.send(()).expect("it waits");
    reader.join();
    assert_eq!(failures.first(), None);
}

#[test]
fn q3_a_series_is_seen_as_of_one_commit() {
    let mut bench = bench_of(3);
    bench.commit(vec![sample(2, 1_000, 250)]);
    let (view, id) = (bench.view.clone(), bench.series[2].id);
    let failures = crate::actor::Failures::new();
    let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    // Every sample is 250: count, sum, buckets and native buckets say the same number, or they are of two commits.
    let read = move || {
        while !done.load(Ordering::Relaxed) {
            view.read_histograms(&[id], 7, |histogram| {
                let HistogramValue { value, counts, weights, native } = histogram.expect("live");
                let count = value.count;
                assert_eq!(value.sum, 250 * count as i128);
                assert_eq!(counts, [0, 0, count, count, count, count, count]);
                assert_eq!(weights[2], count * u128::from(WEIGHT_ONE));
                let native = native.expect("every sample is in it");
                assert_eq!(native.positive.iter().map(|(_, weight)| u128::from(*weight)).sum::<u128>(), weights[2]);
            });
        }
    };
    let reader = crate::actor::spawn("reader", &failures, read).expect("a thread starts");
    for n in 0..300 {
        bench.commit((0..1 + n % 5).map(|_| sample(2, 1_000, 250)).collect());
    }
    is_done.store(true, Ordering::Relaxed);
    reader.join();
    assert_eq!(failures.first(), None);
}

#[test]
fn buckets_that_a_reload_changed_keep_what_both_have() {
    let mut bench = bench_of(3);
    bench.commit([3, 301, 4_000, 80_000].map(|value| sample(2, 1_000, value)).to_vec());
    bench.store_totals(1);
    let metric = Arc::make_mut(&mut bench.series[2].metric);
    metric.buckets =
        Some(Arc::new(Buckets { first: 0, bounds: [0.0001, 0.0003, 0.005].into(), units: [100, 300, 5_000].into() }));
    let (metric, id) = (Arc::clone(&bench.series[2].metric), bench.series[2].id);
    let check = |view: &View| {
        let stats = view.stats(&metric, id, &[0.5]).expect("live");
        assert_eq!(stats.buckets, [(0.0001, 1), (0.0003, 1), (0.005, 3)]);
        assert_eq!((stats.count, stats.window_samples), (4, 4));
    };
    bench.fold.reload(std::slice::from_ref(&metric), &[]);
    check(&bench.view);
    bench.restart();
    check(&bench.view);
}

#[test]
fn r2_a_window_of_another_length_begins_anew() {
    let mut bench = bench_of(3);
    bench.commit(vec![sample(2, 1_000, 7)]);
    let metric = Arc::make_mut(&mut bench.series[2].metric);
    metric.window_slices = 2;
    let (metric, id) = (Arc::clone(&bench.series[2].metric), bench.series[2].id);
    bench.fold.reload(std::slice::from_ref(&metric), &[]);
    bench.advance(1);
    bench.commit(vec![sample(2, 1_001, 9), sample(2, 1_000, 9)]);
    let stats = bench.view.stats(&metric, id, &[0.5]).expect("live");
    assert_eq!((stats.count, stats.window_samples, stats.window_seconds), (3, 1, 20.0));
    for _ in 0..4 {
        bench.advance(1);
    }
    bench.check();
}

#[test]
fn a_gauge_that_holds_so_long_has_no_value_after_that_and_a_pushed_one_has() {
    let mut bench = bench_of(7);
    let (pushed, id) = (Arc::clone(bench.metric(1)), bench.series[1].id);
    let said_again = Metric { holds: Some(25 * SECOND), ..(*pushed).clone() };
    let last = |bench: &Bench, metric: &Metric| match bench.view.value(metric, id) {
        Some(Value::Gauge(value)) => value.last,
        other => panic!("{other:?}"),
    };
    bench.commit(vec![sample(1, bench.open, 8)]);
    assert_eq!((last(&bench, &pushed), last(&bench, &said_again)), (Some(1.0), Some(1.0)));
    let mut found = Vec::new();
    for _ in 0..4 {
        bench.advance(1);
        // Something else is committed: without a commit nothing is known to have ended.
        bench.commit(vec![sample(0, bench.open, 1)]);
        assert_eq!(last(&bench, &pushed), Some(1.0));
        found.push(last(&bench, &said_again));
    }
    assert_eq!(found, [Some(1.0), Some(1.0), None, None]);
    bench.commit(vec![sample(1, bench.open, 16)]);
    assert_eq!(last(&bench, &said_again), Some(2.0), "it is said again");
}

#[test]
fn past_the_limit_native_histograms_give_resolution_up_and_stay_whole() {
    let bench = bench_of(5);
    let (fold, reader) = view(Arc::clone(&bench.table), width(), 200);
    let mut limited = Bench { fold, view: reader, ..bench };
    limited.fold.leaving(Slice(1_000));
    for n in 0..3 {
        limited.commit((0..2_000).map(|value| sample(2, 1_000, 1_000 + value * value * (n + 1))).collect());
    }
    let mut found = None;
    limited.view.read_histograms(&[limited.series[2].id], 0, |histogram| {
        let histogram = histogram.expect("live");
        found = histogram.native.map(|native| (histogram.value.count, native.clone()));
    });
    let (count, native) = found.expect("every sample is in it");
    assert!(count == 6_000 && native.schema < 3, "800 bytes hold no finer one: {native:?}");
    assert_eq!(native.positive.iter().map(|(_, weight)| weight).sum::<u64>(), 6_000 * WEIGHT_ONE);
    let own: Vec<&Sample> = limited.samples.iter().collect();
    limited.check_native(2, 6_000, &own);
}

#[test]
fn totals_of_format_1_are_read_and_have_no_native_buckets() {
    // One bound (300), one row: offset 0, a distribution created at 7 and never seen since, one sample of 200.
    let bytes =
        [1, 1, 1, 0xD8, 4, 1, 0, Kind::Distribution as u8, 14, 0, 1, 0x80, 0x20, 0x80, 0x80, 0x64, 0x90, 3, 0, 1];
    let stored = totals::decode(&[&bytes[..], &[0x80, 0x20]].concat()).expect("format 1");
    let mut bench = Bench::new(1_000);
    (0..3).for_each(|_| {
        bench.add_series();
    });
    let mut row = bench.series[2].clone();
    row.id = SeriesId(0);
    bench.fold.restore_series(&row);
    let block = TotalsBlock { block: 0, as_of: CommitId(1), bytes: [&bytes[..], &[0x80, 0x20]].concat() };
    bench.fold.restore_totals(&block).expect("format 1");
    let mut found = None;
    bench.view.read_histograms(&[row.id], 7, |histogram| {
        let histogram = histogram.expect("live");
        let value = histogram.value;
        found = Some((value.samples, value.count, value.max, histogram.native.is_some()));
    });
    assert_eq!(found, Some((1, 1, Some(200), false)), "{stored:?}: natives that lack samples are not shown");
}

proptest! {
    #[test]
    fn no_bytes_make_the_totals_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
        let _ = totals::decode(&bytes);
        let mut bench = bench_of(5);
        bench.commit((0..5).map(|series| sample(series, 1_000, 7)).collect());
        bench.store_totals(0);
        let mut stored = bench.totals[&0].1.clone();
        if cut < stored.len() {
            stored[cut] ^= bytes.first().copied().unwrap_or(1);
            let _ = totals::decode(&stored);
            stored.truncate(cut);
            prop_assert!(totals::decode(&stored).is_err());
        }
    }
}
