//! Naive oracles of rules Q1 and V4: they know single samples and their times, no slices, cells or prefix sums.

use super::*;
use proptest::prelude::*;

const WIDTH: i64 = 10_000;

/// What came when, in milliseconds.
type Events = Vec<(i64, i64)>;

/// The moment that a time is floored to, and the beginning of a range before it, rounded up to whole slices.
fn bounds(time: i64, range: i64) -> (i64, i64) {
    let end = time / WIDTH * WIDTH;
    let slices = (range + WIDTH - 1) / WIDTH;
    (end - slices * WIDTH, end)
}

fn inside(events: &Events, from: i64, to: i64) -> impl Iterator<Item = &(i64, i64)> {
    events.iter().filter(move |event| from <= event.0 && event.0 < to)
}

fn counter(events: &Events) -> Memory {
    let mut memory = Memory::new(WIDTH / 1_000);
    let metric = memory.declare("c_total", Kind::Counter, |_| {});
    let id = memory.series(&metric, &[], at(0));
    events.iter().for_each(|(time, amount)| memory.increment(id, at_millis(*time), *amount as f64 / 1_000.0));
    memory
}

fn gauge(events: &Events) -> Memory {
    let mut memory = Memory::new(WIDTH / 1_000);
    let metric = memory.declare("g", Kind::Gauge, |_| {});
    let id = memory.series(&metric, &[], at(0));
    events.iter().for_each(|(time, value)| memory.set(id, at_millis(*time), *value as f64 / 1_000.0));
    memory
}

fn distribution(events: &Events) -> Memory {
    let mut memory = Memory::new(WIDTH / 1_000);
    let metric = memory.declare("d", Kind::Distribution, |_| {});
    let id = memory.series(&metric, &[], at(0));
    events.iter().for_each(|(time, value)| memory.observe(id, at_millis(*time), *value as f64 / 1_000.0, WEIGHT_ONE));
    memory
}

fn ask(memory: &Memory, text: &str, millis: i64) -> Option<f64> {
    let expression = Expression::parse(text).unwrap();
    match evaluate(&expression, memory, at_millis(millis)).unwrap() {
        Value::Vector(samples) => samples.first().map(|sample| sample.value),
        other => panic!("{other:?}"),
    }
}

fn near(found: Option<f64>, expected: Option<f64>, what: &str) -> Result<(), TestCaseError> {
    let is_near = match (found, expected) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
        (a, b) => a == b,
    };
    prop_assert!(is_near, "{what}: {found:?}, oracle {expected:?}");
    Ok(())
}

/// Events in order of time, no two at one moment.
fn events(values: std::ops::Range<i64>) -> impl Strategy<Value = Events> {
    prop::collection::btree_map(0i64..900_000, values, 0..60).prop_map(|map| map.into_iter().collect())
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

proptest! {
    #[test]
    fn q1_rates_of_a_counter(events in events(0..100_000), time in 0i64..1_000_000, range in 1i64..400_000) {
        let memory = counter(&events);
        let (from, to) = bounds(time, range);
        let sum = |from, to| inside(&events, from, to).map(|event| event.1).sum::<i64>() as f64 / 1_000.0;
        for (function, expected) in [
            ("increase", sum(from, to)),
            ("delta", sum(from, to)),
            ("rate", sum(from, to) / seconds(to - from)),
            ("irate", sum(to - WIDTH, to) / seconds(WIDTH)),
            ("idelta", sum(to - WIDTH, to)),
        ] {
            near(ask(&memory, &format!("{function}(c_total[{range}ms])"), time), Some(expected), function)?;
        }
        near(ask(&memory, "c_total", time), Some(sum(0, to)), "c_total")?;
        near(ask(&memory, &format!("c_total offset {range}ms"), time), (time >= range).then(|| sum(0, bounds(time - range, 1).1)), "offset")?;
    }

    #[test]
    fn q1_changes_of_a_gauge(events in events(-100_000..100_000), time in 0i64..1_000_000, range in 1i64..400_000) {
        let memory = gauge(&events);
        let (from, to) = bounds(time, range);
        let newest = |from, to| inside(&events, from, to).last().map(|event| event.1 as f64 / 1_000.0);
        // One point a slice, the newest.
        let points: Vec<f64> = (from..to).step_by(WIDTH as usize).filter_map(|s| newest(s, s + WIDTH)).collect();
        let before = newest(from - 300_000, from);
        let delta = match (before, points.first(), points.last()) {
            (Some(before), _, Some(last)) => Some(last - before),
            (None, Some(first), Some(last)) if points.len() > 1 => Some(last - first),
            _ => None,
        };
        near(ask(&memory, &format!("delta(g[{range}ms])"), time), delta, "delta")?;
        let idelta = (points.len() > 1).then(|| points[points.len() - 1] - points[points.len() - 2]);
        near(ask(&memory, &format!("idelta(g[{range}ms])"), time), idelta, "idelta")?;
        near(ask(&memory, "g", time), newest(to - 300_000, to), "g")?;
        let all: Vec<f64> = inside(&events, from, to).map(|event| event.1 as f64 / 1_000.0).collect();
        let avg = (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        near(ask(&memory, &format!("avg_over_time(g[{range}ms])"), time), avg, "avg")?;
        near(ask(&memory, &format!("max_over_time(g[{range}ms])"), time), all.iter().copied().reduce(f64::max), "max")?;
        let count = (!all.is_empty()).then_some(all.len() as f64);
        near(ask(&memory, &format!("count_over_time(g[{range}ms])"), time), count, "count")?;
    }

    #[test]
    fn v4_quantiles_of_a_distribution(
        events in events(-1_000_000..1_000_000), time in 0i64..1_000_000, range in 1i64..400_000, per_mille in 0i64..=1_000,
    ) {
        let memory = distribution(&events);
        let (from, to) = bounds(time, range);
        let mut values: Vec<i64> = inside(&events, from, to).map(|event| event.1).collect();
        values.sort_unstable();
        let q = per_mille as f64 / 1_000.0;
        let found = ask(&memory, &format!("histogram_quantile({q}, rate(d[{range}ms]))"), time).unwrap();
        match values.len() as i64 {
            0 => prop_assert!(found.is_nan()),
            count => {
                let rank = ((per_mille * count + 999) / 1_000).max(1);
                let exact = values[rank as usize - 1] as f64 / 1_000.0;
                prop_assert!((found - exact).abs() <= 0.01 * exact.abs() + 1e-12, "{found}, oracle {exact}");
            }
        }
        let figure = |part: &str| ask(&memory, &format!("histogram_{part}(increase(d[{range}ms]))"), time);
        near(figure("count"), Some(values.len() as f64), "count")?;
        near(figure("sum"), Some(values.iter().sum::<i64>() as f64 / 1_000.0), "sum")?;
        near(ask(&memory, &format!("increase(d_count[{range}ms])"), time), Some(values.len() as f64), "count")?;
    }

    #[test]
    fn buckets_interpolate_as_a_walk_does(
        counts in prop::collection::vec(0u32..50, 1..12), per_mille in 0u32..=1_000, below in 0u32..2,
    ) {
        let bounds: Vec<f64> = (0..counts.len()).map(|at| (at as f64 - f64::from(below * 3)) * 0.5 + 0.1).collect();
        let mut cumulative = 0;
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (bound, count) in bounds.iter().zip(&counts) {
            cumulative += count;
            buckets.push((*bound, f64::from(cumulative)));
        }
        buckets.push((f64::INFINITY, f64::from(cumulative)));
        let q = f64::from(per_mille) / 1_000.0;
        let (found, quality) = crate::query::quantiles::bucket_quantile(q, &mut buckets.clone());
        if cumulative == 0 {
            prop_assert!(found.is_nan());
            return Ok(());
        }
        // The walk: the first bucket that reaches the rank, and the share of the way through it.
        let rank = q * f64::from(cumulative);
        let at = buckets.iter().position(|bucket| bucket.1 >= rank).unwrap();
        let (lower, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (upper, upto) = buckets[at];
        let expected = match at {
            0 if upper <= 0.0 => upper,
            _ if upto == before => found,
            _ => lower + (upper - lower) * ((rank - before) / (upto - before)),
        };
        prop_assert!((found - expected).abs() <= 1e-9, "{found}, walk {expected}");
        prop_assert!(quality.count == f64::from(cumulative));
    }
}
