//! The data of the comparison, in both forms, and naive oracles over its plain numbers.
//!
//! Owns: per series one value per slice edge, as Prometheus sees it, and the memory form of the same. Invariant: the
//! oracles know only those plain numbers; they share no code with the evaluator.

use hydrograph::Timestamp;
use hydrograph::event::{Kind, Scale, WEIGHT_ONE};
use hydrograph::query::memory::Memory;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The first slice edge, in seconds.
pub(crate) const T0: i64 = 1_700_000_000;
/// Seconds of a slice.
pub(crate) const SLICE: i64 = 10;
const SLICES: i64 = 420;
pub(crate) const BOUNDS: [f64; 8] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// One series as Prometheus stores it: (seconds, value), ascending.
pub(crate) struct Raw {
    name: &'static str,
    labels: Vec<(String, String)>,
    samples: Vec<(i64, f64)>,
    is_counter: bool,
}

pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) openmetrics: String,
    series: Vec<Raw>,
    /// Per path and slice the distribution's values in microseconds.
    latencies: BTreeMap<&'static str, Vec<Vec<i64>>>,
}

/// xorshift64*: the same world in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit) as i64
    }
}

fn middle(slice: i64) -> Timestamp {
    Timestamp::from_seconds(T0 + slice * SLICE + SLICE / 2)
}

fn edge(slice: i64) -> i64 {
    T0 + (slice + 1) * SLICE
}

impl World {
    pub(crate) fn new() -> World {
        let memory = Memory::new(SLICE);
        let mut world = World { memory, openmetrics: String::new(), series: Vec::new(), latencies: BTreeMap::new() };
        let mut random = Random(42);
        let requests = world.memory.declare("http_requests_total", Kind::Counter, |_| {});
        let bytes = world.memory.declare("bytes_total", Kind::Counter, |_| {});
        for method in ["get", "post", "put"] {
            for status in ["200", "404", "500"] {
                for instance in ["a", "b"] {
                    let labels = [("method", method), ("status", status), ("instance", instance)];
                    let often = if status == "200" { 40 } else { 3 };
                    world.counter(&requests, "http_requests_total", &labels, |_| random.below(often) as f64 / 4.0);
                }
            }
        }
        for instance in ["a", "b"] {
            world.counter(&bytes, "bytes_total", &[("instance", instance)], |_| random.below(5_000_000) as f64);
        }
        for (floor, room) in [("0", "hall"), ("1", "attic"), ("2", "cellar"), ("0", "yard")] {
            let labels = [("room", room), ("floor", floor)];
            let mut now = 10 + random.below(8);
            world.gauge("temperature_celsius", &labels, |_| {
                now = (now + random.below(9) - 4).clamp(-40, 100);
                Some(now as f64 / 4.0)
            });
        }
        for queue in ["a", "b", "c"] {
            for instance in ["a", "b"] {
                let labels = [("queue", queue), ("instance", instance)];
                world.gauge("queue_depth", &labels, |_| Some(random.below(41) as f64));
                let limit = 10 + random.below(20);
                if (queue, instance) != ("c", "b") {
                    world.gauge("queue_limit", &labels, |slice| Some((limit + slice / 100) as f64));
                }
            }
        }
        world.gauge("sparse", &[("kind", "hour")], |slice| (slice % 45 == 3).then_some((slice * 7 % 13) as f64));
        world.gauge("sparse", &[("kind", "burst")], |slice| (slice % 90 < 12).then_some((slice % 5) as f64 - 2.0));
        for (instance, version) in [("a", "1.2.3"), ("b", "1.3.0")] {
            world.gauge("build_info", &[("instance", instance), ("version", version)], |_| Some(1.0));
            let often = if instance == "a" { 3 } else { 20 };
            world.gauge("flag", &[("instance", instance)], |slice| Some((slice / often % 2) as f64));
        }
        world.distribution(&mut random);
        world.openmetrics = world.write();
        world
    }

    fn counter(
        &mut self,
        metric: &std::sync::Arc<hydrograph::Metric>,
        name: &'static str,
        labels: &[(&str, &str)],
        mut increment: impl FnMut(i64) -> f64,
    ) {
        let id = self.memory.series(metric, labels, Timestamp::from_seconds(T0));
        let (mut total, mut samples) = (0.0, vec![(T0, 0.0)]);
        for slice in 0..SLICES {
            let amount = increment(slice);
            if amount > 0.0 {
                self.memory.increment(id, middle(slice), amount);
            }
            total += amount;
            samples.push((edge(slice), total));
        }
        self.push(name, labels, samples, true);
    }

    fn gauge(&mut self, name: &'static str, labels: &[(&str, &str)], mut value: impl FnMut(i64) -> Option<f64>) {
        use hydrograph::query::Data;
        let metric = self.memory.metric(name).unwrap_or_else(|| self.memory.declare(name, Kind::Gauge, |_| {}));
        let id = self.memory.series(&metric, labels, Timestamp::from_seconds(T0));
        let mut samples = Vec::new();
        for slice in 0..SLICES {
            if let Some(value) = value(slice) {
                self.memory.set(id, middle(slice), value);
                samples.push((edge(slice), value));
            }
        }
        self.push(name, labels, samples, false);
    }

    fn distribution(&mut self, random: &mut Random) {
        let metric = self.memory.declare("latency_seconds", Kind::Distribution, |metric| {
            metric.scale = Scale::NANO;
            metric.expose.histogram = true;
            metric.expose.summary = false;
            metric.buckets = Memory::buckets(&BOUNDS, Scale::NANO);
        });
        for path in ["/", "/api"] {
            let id = self.memory.series(&metric, &[("path", path)], Timestamp::from_seconds(T0));
            let mut slices = Vec::new();
            for slice in 0..SLICES {
                // Three magnitudes, so that quantiles fall into every bucket.
                let count = 4 + random.below(9);
                let values: Vec<i64> = (0..count).map(|_| (200 << random.below(12)) + random.below(200)).collect();
                for micros in &values {
                    self.memory.observe(id, middle(slice), *micros as f64 / 1e6, WEIGHT_ONE);
                }
                slices.push(values);
            }
            let cumulative = |figure: &dyn Fn(&[i64]) -> i64, one: f64| {
                let mut total = 0;
                let mut samples = vec![(T0, 0.0)];
                for (slice, values) in (0..).zip(&slices) {
                    total += figure(values);
                    samples.push((edge(slice), total as f64 / one));
                }
                samples
            };
            for bound in BOUNDS.into_iter().chain([f64::INFINITY]) {
                let below =
                    |values: &[i64]| values.iter().filter(|micros| **micros as f64 / 1e6 <= bound).count() as i64;
                let le = if bound.is_finite() { format!("{bound}") } else { "+Inf".to_owned() };
                let samples = cumulative(&below, 1.0);
                self.push("latency_seconds_bucket", &[("path", path), ("le", &le)], samples, true);
            }
            let samples = cumulative(&|values| values.len() as i64, 1.0);
            self.push("latency_seconds_count", &[("path", path)], samples, true);
            let samples = cumulative(&|values| values.iter().sum(), 1e6);
            self.push("latency_seconds_sum", &[("path", path)], samples, true);
            self.latencies.insert(path, slices);
        }
    }

    fn push(&mut self, name: &'static str, labels: &[(&str, &str)], samples: Vec<(i64, f64)>, is_counter: bool) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.series.push(Raw { name, labels, samples, is_counter });
    }

    fn write(&self) -> String {
        let mut out = String::new();
        for series in &self.series {
            let labels: Vec<String> = series.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
            for (time, value) in &series.samples {
                writeln!(out, "{}{{{}}} {value} {time}", series.name, labels.join(","))
                    .expect("a string takes everything");
            }
        }
        out + "# EOF\n"
    }

    /// The series of `name{a="b"}`, equality only.
    pub(crate) fn matching(&self, selector: &str) -> Vec<&Raw> {
        let (name, rest) = selector.split_once('{').unwrap_or((selector, "}"));
        let wanted: Vec<(&str, &str)> = rest
            .trim_end_matches('}')
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect();
        let matches = |series: &&Raw| {
            let has = |(key, value): &(&str, &str)| series.labels.iter().any(|(k, v)| k == key && v == value);
            series.name == name && wanted.iter().all(has)
        };
        self.series.iter().filter(matches).collect()
    }

    /// (bound, series) of a path, ascending.
    pub(crate) fn buckets(&self, path: &str) -> Vec<(f64, &Raw)> {
        let bound = |series: &Raw| {
            let le = series.labels.iter().find(|(key, _)| key == "le").expect("a bucket has a bound");
            le.1.parse::<f64>().expect("a number")
        };
        let selector = format!("latency_seconds_bucket{{path=\"{path}\"}}");
        let mut buckets: Vec<_> = self.matching(&selector).into_iter().map(|series| (bound(series), series)).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// Seconds of every value in the whole slices of a range, ascending.
    pub(crate) fn values(&self, path: &str, time: i64, range: i64) -> Vec<f64> {
        let (from, to) = slices(time, range);
        let inside = self.latencies[path].iter().zip(0..).filter(|(_, slice)| (from..to).contains(slice));
        let mut values: Vec<i64> = inside.flat_map(|(values, _)| values.iter().copied()).collect();
        values.sort_unstable();
        values.into_iter().map(|micros| micros as f64 / 1e6).collect()
    }

    /// The value of rank ⌈q·count⌉.
    pub(crate) fn exact_quantile(&self, path: &str, q: f64, time: i64, range: i64) -> f64 {
        let values = self.values(path, time, range);
        let rank = ((q * 1_000.0).round() as usize * values.len()).div_ceil(1_000).max(1);
        values[rank - 1]
    }
}

/// The slices of a range, by number: the time is floored to an edge and the range rounded up (Q1).
fn slices(time: i64, range: i64) -> (i64, i64) {
    let to = (time - T0).div_euclid(SLICE);
    (to - (range + SLICE - 1) / SLICE, to)
}

impl Raw {
    /// As a rate's result has them: without name.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    /// The newest sample not after a time, at most five minutes old.
    fn at(&self, time: i64) -> Option<f64> {
        let mut before = self.samples.iter().filter(|sample| time - 300 < sample.0 && sample.0 <= time);
        before.next_back().map(|sample| sample.1)
    }

    /// Rule Q1 over samples at slice edges: what changed between the two edges of the range.
    pub(crate) fn oracle(&self, function: &str, time: i64, range: i64) -> f64 {
        let (from, to) = slices(time, range);
        let (from, to) = (T0 + from * SLICE, T0 + to * SLICE);
        let last = self.at(to).expect("the series is there");
        // A counter was nothing before it began; a gauge was not.
        let first = self.at(from).unwrap_or_else(|| match self.is_counter {
            true => 0.0,
            false => self.samples.iter().find(|sample| sample.0 > from).expect("a sample").1,
        });
        match function {
            "rate" => (last - first) / (to - from) as f64,
            "irate" => (last - self.at(to - SLICE).expect("a slice before")) / SLICE as f64,
            _ => last - first,
        }
    }

    /// `extrapolatedRate` and `instantValue` of `promql/functions.go`, Prometheus 2.42.
    pub(crate) fn extrapolated(&self, function: &str, time: i64, range: i64) -> f64 {
        let inside: Vec<(i64, f64)> =
            self.samples.iter().copied().filter(|sample| time - range <= sample.0 && sample.0 <= time).collect();
        let (first, last) = (inside[0], inside[inside.len() - 1]);
        if function == "irate" {
            let before = inside[inside.len() - 2];
            return (last.1 - before.1) / (last.0 - before.0) as f64;
        }
        let change = last.1 - first.1;
        let sampled = (last.0 - first.0) as f64;
        let between = sampled / (inside.len() - 1) as f64;
        let mut to_start = (first.0 - (time - range)) as f64;
        let to_end = (time - last.0) as f64;
        if function != "delta" && change > 0.0 && first.1 >= 0.0 {
            to_start = to_start.min(sampled * (first.1 / change));
        }
        let reach = |gap: f64| if gap < between * 1.1 { gap } else { between / 2.0 };
        let factor = (sampled + reach(to_start) + reach(to_end)) / sampled;
        change * factor / if function == "rate" { range as f64 } else { 1.0 }
    }
}

/// A quantile of cumulative buckets, by walking up to its rank.
pub(crate) fn interpolated(q: f64, buckets: &[(f64, f64)]) -> f64 {
    // Rates are floats: counts may fall by noise.
    let mut cumulative: Vec<f64> = buckets.iter().map(|bucket| bucket.1).collect();
    (1..cumulative.len()).for_each(|at| cumulative[at] = cumulative[at].max(cumulative[at - 1]));
    let rank = q * cumulative[cumulative.len() - 1];
    let at = cumulative[..cumulative.len() - 1].iter().position(|count| *count >= rank);
    let Some(at) = at else { return buckets[buckets.len() - 2].0 };
    let (lower, before) = if at == 0 { (0.0, 0.0) } else { (buckets[at - 1].0, cumulative[at - 1]) };
    lower + (buckets[at].0 - lower) * ((rank - before) / (cumulative[at] - before))
}
