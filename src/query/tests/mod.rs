//! Tests of the evaluator by rule, against naive oracles, and with hostile texts.

mod hostile;
mod matching;
mod oracle;
mod rules;
mod tiers;

use super::memory::Memory;
use super::{Expression, Sample, Value, evaluate, evaluate_range};
use crate::event::{Kind, Scale, Timestamp, WEIGHT_ONE};

/// A slice edge, the beginning of every test's world.
const T0: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(T0 + seconds)
}

/// So many milliseconds after the beginning.
fn at_millis(millis: i64) -> Timestamp {
    at(0).plus_nanos(millis * 1_000_000)
}

fn value(memory: &Memory, text: &str, seconds: i64) -> Value {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    evaluate(&expression, memory, at(seconds)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn samples(memory: &Memory, text: &str, seconds: i64) -> Vec<Sample> {
    match value(memory, text, seconds) {
        Value::Vector(samples) => samples,
        other => panic!("{text} is {other:?}"),
    }
}

/// The value of an expression that answers one series or a scalar; `None` for no series.
fn one(memory: &Memory, text: &str, seconds: i64) -> Option<f64> {
    match value(memory, text, seconds) {
        Value::Scalar(value) => Some(value),
        Value::Vector(samples) => {
            assert!(samples.len() <= 1, "{text} answers {samples:?}");
            samples.first().map(|sample| sample.value)
        }
        other => panic!("{text} is {other:?}"),
    }
}

fn check(memory: &Memory, text: &str, seconds: i64, expected: Option<f64>) {
    let found = one(memory, text, seconds);
    let is_equal = match (found, expected) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * b.abs(),
        (a, b) => a.is_none() && b.is_none(),
    };
    assert!(is_equal, "{text} at +{seconds} s is {found:?}, not {expected:?}");
}

/// A counter, a gauge, a set and a distribution with everything exposed, over ten minutes of ten-second slices.
fn world() -> Memory {
    let mut memory = Memory::new(10);
    let orders = memory.declare("orders_total", Kind::Counter, |_| {});
    let depth = memory.declare("depth", Kind::Gauge, |_| {});
    let users = memory.declare("users", Kind::Set, |_| {});
    let took = memory.declare("took_seconds", Kind::Distribution, |metric| {
        metric.scale = Scale::NANO;
        metric.expose.histogram = true;
        metric.unit = crate::event::Unit::Seconds;
        metric.buckets = Memory::buckets(&[0.005, 0.1, 1.0, 2.5], Scale::NANO);
    });
    let load = memory.declare("load", Kind::Distribution, |_| {});
    for (number, region) in [(1, "eu"), (2, "us"), (3, "ap")] {
        let labels = [("region", region), ("shard", if number < 3 { "a" } else { "b" })];
        let ids = [&orders, &depth, &users, &took, &load].map(|metric| memory.series(metric, &labels, at(0)));
        for slice in 0..60 {
            let time = |offset: i64| at_millis(slice * 10_000 + offset * 1_000);
            memory.increment(ids[0], time(1), (slice % 4 * number) as f64);
            if slice % 7 != 3 {
                memory.set(ids[1], time(2), ((slice * number) % 11 - 4) as f64 / 4.0);
            }
            memory.insert(ids[2], time(3), &format!("user{}", slice % (5 * number)));
            for n in 0..number {
                let value = ((slice * 37 + n * 11) % 101) as f64 / 50.0;
                memory.observe(ids[3], time(4), value, WEIGHT_ONE);
                memory.observe(ids[4], time(4), value - 1.0, WEIGHT_ONE * (n as u64 + 1) / 2);
            }
        }
    }
    memory
}

/// A range query's points at a step are the instant query's samples at its time: one evaluator answers both.
fn check_steps(memory: &Memory, text: &str) {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let step = 17;
    let (start, end) = (-40, 660);
    let range = evaluate_range(&expression, memory, at(start), at(end), step * 1_000_000_000).unwrap();
    let Value::Matrix(series) = range else { panic!("{text} over a range is {range:?}") };
    for seconds in (start..=end).step_by(step as usize) {
        let mut expected = match value(memory, text, seconds) {
            Value::Scalar(value) => vec![(None, Default::default(), value)],
            Value::Vector(samples) => samples.into_iter().map(|s| (s.name, s.labels, s.value)).collect(),
            other => panic!("{text} is {other:?}"),
        };
        expected.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let found = series.iter().filter_map(|series| {
            let point = series.points.iter().find(|point| point.time == at(seconds))?;
            Some((series.name.clone(), series.labels.clone(), point.value))
        });
        let found: Vec<_> = found.collect();
        let bits = |all: &[(Option<std::sync::Arc<str>>, crate::event::Labels, f64)]| {
            all.iter().map(|(name, labels, v)| (name.clone(), labels.clone(), v.to_bits())).collect::<Vec<_>>()
        };
        assert_eq!(bits(&found), bits(&expected), "{text} at +{seconds} s: {found:?}, instant {expected:?}");
    }
}

/// Every kind of expression once.
const CORPUS: &[&str] = &[
    "orders_total",
    "orders_total offset 35s",
    "depth @ 1700000300",
    "{__name__=~\"depth|users\", region!=\"us\"}",
    "rate(orders_total[1m])",
    "increase(orders_total{region=~\"e.|u.\"}[95s])",
    "irate(orders_total[5m])",
    "delta(depth[2m])",
    "idelta(depth[2m])",
    "sum by (shard) (rate(orders_total[2m]))",
    "avg without (region) (depth)",
    "topk(2, depth)",
    "bottomk by (shard) (1, orders_total)",
    "count_values(\"v\", depth)",
    "quantile(0.3, depth)",
    "stddev(depth) + stdvar(depth)",
    "group(depth) or vector(7)",
    "avg_over_time(depth[1m])",
    "min_over_time(depth[1m]) - max_over_time(depth[3m])",
    "sum_over_time(depth[1m]) / count_over_time(depth[1m])",
    "quantile_over_time(0.9, depth[2m])",
    "stddev_over_time(depth[2m])",
    "last_over_time(depth[3m])",
    "changes(depth[5m]) > resets(depth[5m])",
    "deriv(depth[3m]) * 60",
    "predict_linear(depth[3m], 3600)",
    "avg_over_time(orders_total[1m])",
    "changes(orders_total[1m])",
    "users",
    "max_over_time(users[2m])",
    "took_window_seconds{quantile=\"0.9\"}",
    "avg_over_time(load{quantile=\"0.5\"}[1m])",
    "took_seconds_bucket",
    "rate(took_seconds_bucket{le=\"+Inf\"}[1m])",
    "increase(load_bucket[1m])",
    "took_seconds_sum / took_seconds_count",
    "increase(load_count[50s])",
    "increase(load_sum[50s])",
    "histogram_quantile(0.9, rate(took_seconds[2m]))",
    "histogram_quantile(0.5, sum(increase(took_seconds[1m])))",
    "histogram_quantile(0.99, sum by (le) (rate(took_seconds_bucket[2m])))",
    "histogram_quantile(0.5, load)",
    "histogram_count(took_seconds)",
    "histogram_sum(rate(load[1m])) / histogram_count(rate(load[1m]))",
    "histogram_fraction(0, 0.5, rate(took_seconds[1m]))",
    "histogram_stddev(increase(load[2m]))",
    "orders_total and on (region) depth > 0",
    "orders_total unless depth < 0",
    "depth > bool 0",
    "orders_total / on (region) group_left () users",
    "depth + ignoring (shard) users",
    "-depth ^ 2 % 3",
    "abs(depth) + ceil(depth) - floor(depth) * round(depth, 0.5)",
    "clamp(depth, -0.5, 0.5) + clamp_min(depth, 0) + clamp_max(depth, 0)",
    "sqrt(abs(depth)) + exp(depth) + ln(depth) + log2(depth) + log10(depth) + sgn(depth)",
    "time() - timestamp(depth)",
    "minute() + hour(vector(time())) + day_of_week() + day_of_month() + day_of_year() + days_in_month() + month() + year()",
    "scalar(depth{region=\"eu\"})",
    "absent(nothing{a=\"b\"})",
    "absent_over_time(depth{region=\"eu\"}[10s])",
    "label_replace(depth, \"area\", \"$1-x\", \"region\", \"(.).*\")",
    "label_join(depth, \"both\", \"/\", \"region\", \"shard\")",
    "max_over_time(rate(orders_total[1m])[5m:30s])",
    "sum(sum_over_time(depth[2m:]))",
    "sort_desc(depth) or sort(users)",
];

#[test]
fn q1_a_range_query_answers_as_instant_queries_do() {
    let memory = world();
    for text in CORPUS {
        check_steps(&memory, text);
    }
}

#[test]
fn answers_do_not_depend_on_how_rows_lie() {
    // A wrapper that hands out every row in pieces: two commits of one slice, as the log has them (H1).
    let memory = world();
    let pieces = rules::Pieces(&memory);
    for text in CORPUS {
        let expression = Expression::parse(text).unwrap();
        for seconds in [0, 95, 300, 455, 600] {
            let whole = evaluate(&expression, &memory, at(seconds)).unwrap();
            let in_pieces = evaluate(&expression, &pieces, at(seconds)).unwrap();
            // As text, so that NaN equals NaN.
            assert_eq!(format!("{whole:?}"), format!("{in_pieces:?}"), "{text} at +{seconds} s");
        }
    }
}
