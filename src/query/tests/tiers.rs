//! Q1, H1: what is told of coarser tiers is what the slices tell, at the times that their slots have.

use super::*;
use crate::query::cover::{Tier, joined};
use proptest::prelude::*;

/// Slices of the slots of three tiers; a slice is ten seconds.
const SLOTS: [u32; 3] = [1, 6, 36];
/// The slice in which the world begins.
const FIRST: u32 = (T0 / 10) as u32;

/// Beside the corpus: long ranges, whose middle may come from coarse slots.
const LONG: &[&str] = &[
    "increase(orders_total[9m])",
    "rate(orders_total[8m10s] offset 20s)",
    "sum by (shard) (rate(orders_total[5m]))",
    "irate(orders_total[9m])",
    "delta(orders_total[9m])",
    "avg_over_time(orders_total[5m])",
    "resets(orders_total[5m])",
    "increase(took_seconds_bucket[8m])",
    "rate(took_seconds_count[7m]) / rate(took_seconds_sum[7m])",
    "histogram_quantile(0.9, increase(took_seconds[9m]))",
    "histogram_quantile(0.5, sum by (shard) (rate(load[9m])))",
    "histogram_quantile(0.9, sum by (le) (rate(took_seconds_bucket[9m])))",
    "histogram_quantile(0.9, took_seconds)",
    "histogram_fraction(0, 1, increase(load[9m]))",
    "took_window_seconds",
    "load{quantile=\"0.9\"}",
    "max_over_time(load{quantile=\"0.9\"}[3m])",
    "users",
    "max_over_time(users[5m])",
    "min_over_time(depth[9m])",
    "max_over_time(depth[9m])",
    "sum_over_time(depth[9m])",
    "count_over_time(depth[9m])",
    "avg_over_time(depth[9m])",
    "last_over_time(depth[9m])",
    "first_over_time(depth[9m])",
    "present_over_time(depth[9m])",
    "stddev_over_time(depth[9m])",
    "quantile_over_time(0.5, depth[9m])",
    "changes(depth[9m])",
    "rate(depth[9m])",
    "delta(depth[9m])",
    "deriv(depth[9m])",
    "timestamp(depth)",
    "timestamp(orders_total)",
    "max_over_time(increase(orders_total[2m])[6m:20s])",
    "depth",
    "orders_total @ 1700000400",
];

/// Slices of the slot that a slice lies in, where the finer tiers begin so many slices after the first.
fn resolution(slice: u32, begins: [u32; 2]) -> u32 {
    match slice {
        slice if slice >= begins[0] => SLOTS[0],
        slice if slice >= begins[1] => SLOTS[1],
        _ => SLOTS[2],
    }
}

fn floored(slice: u32, begins: [u32; 2]) -> u32 {
    slice - slice % resolution(slice, begins)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn q1_coarser_tiers_for_speed_change_no_bit(
        lacks in proptest::collection::vec((0u32..70, 1u32..12), 0..3),
        (start, steps, step) in (0i64..700, 1i64..8, 1i64..90),
    ) {
        let fine = world();
        let mut coarse = world();
        let lacks = joined(lacks.into_iter().map(|(from, len)| FIRST + from..FIRST + from + len).collect());
        let tier = |(resolution, lacks)| Tier { resolution, from: 0, until: u32::MAX, lacks };
        coarse.hold(SLOTS.into_iter().zip([Vec::new(), lacks.clone(), lacks]).map(tier).collect());
        for text in CORPUS.iter().chain(LONG) {
            let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let answers = [&fine, &coarse].map(|memory| {
                let instant = evaluate(&expression, memory, at(start));
                let end = start + steps * step;
                let range = evaluate_range(&expression, memory, at(start), at(end), step * 1_000_000_000);
                format!("{instant:?} {range:?}")
            });
            prop_assert_eq!(&answers[0], &answers[1], "{}", text);
        }
    }

    #[test]
    fn q1_where_only_coarser_slots_are_held_times_are_those_of_their_edges(
        (first, second) in (0u32..3, 0u32..8),
        (seconds, range) in (0i64..700, 1i64..400),
    ) {
        // The finer tiers begin where slots of the coarser ones do.
        let coarser = (FIRST / 36 + first) * 36;
        let begins = [coarser + second * 6, coarser];
        let fine = world();
        let mut coarse = world();
        let tier = |(resolution, from)| Tier { resolution, from, until: u32::MAX, lacks: Vec::new() };
        coarse.hold(SLOTS.into_iter().zip([begins[0], begins[1], 0]).map(tier).collect());
        let to = floored((T0 + seconds).div_euclid(10) as u32, begins);
        let before = |edge: u32, slices: u32| floored(edge - slices, begins);
        let from = before(to, (range as u32).div_ceil(10));
        let then = i64::from(to) * 10 - T0;
        let covered = (to - from) * 10;
        let same = |asked: &str, plain: &str, time: i64| -> Result<(), TestCaseError> {
            let answers = [(&coarse, asked, seconds), (&fine, plain, time)].map(|(memory, text, seconds)| {
                format!("{:?}", value(memory, text, seconds))
            });
            prop_assert_eq!(&answers[0], &answers[1], "{} is {} at {}", asked, plain, time);
            Ok(())
        };
        for function in [
            "increase(orders_total[RANGE])",
            "rate(orders_total[RANGE])",
            "sum by (shard) (rate(took_seconds_sum[RANGE]))",
            "increase(took_seconds_bucket[RANGE])",
            "histogram_quantile(0.9, rate(took_seconds[RANGE]))",
            "histogram_count(increase(load[RANGE]))",
            "max_over_time(depth[RANGE])",
            "min_over_time(depth[RANGE])",
            "avg_over_time(depth[RANGE])",
            "count_over_time(depth[RANGE])",
            "last_over_time(depth[RANGE])",
        ] {
            let plain = function.replace("RANGE", &format!("{covered}s"));
            same(&function.replace("RANGE", &format!("{range}s")), &plain, then)?;
            // However the time is said.
            let fixed = function.replace("RANGE]", &format!("{range}s] @ {}", T0 + seconds));
            let answers = [value(&coarse, &fixed, seconds + 77), value(&fine, &plain, then)];
            prop_assert_eq!(format!("{:?}", answers[0]), format!("{:?}", answers[1]), "{}", fixed);
            let moved = function.replace("RANGE]", &format!("{range}s] offset 50s"));
            let answers = [value(&coarse, &moved, seconds + 50), value(&fine, &plain, then)];
            prop_assert_eq!(format!("{:?}", answers[0]), format!("{:?}", answers[1]), "{}", moved);
        }
        same("orders_total", "orders_total", then)?;
        same("took_seconds_count", "took_seconds_count", then)?;
        let lookback = (to - before(to, 30)) * 10;
        same("depth", &format!("last_over_time(depth[{lookback}s])"), then)?;
        let last = (to - before(to, 1)) * 10;
        same(&format!("idelta(orders_total[{range}s])"), &format!("increase(orders_total[{}s])", last.min(covered)), then)?;
        same(&format!("irate(orders_total[{range}s])"), &format!("rate(orders_total[{}s])", last.min(covered)), then)?;
        // Points stand at the edges of the slots.
        let points = value(&coarse, &format!("orders_total[{range}s]"), seconds);
        let Value::Matrix(points) = points else { panic!("points") };
        for series in points {
            for point in series.points {
                let edge = (point.time.0 / 10_000_000_000) as u32;
                prop_assert!(edge == floored(edge, begins) && from < edge && edge <= to, "{edge} of {from}..{to}");
            }
        }
    }
}
