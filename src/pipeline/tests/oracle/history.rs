//! H1, Q1, S2: what queries read of hours that were paged, rolled up and dropped equals a world where every sample is kept
//! and times are floored to what is held.

use super::failing::live;
use super::queries::{EXPRESSIONS, Line, answer, naive, shown};
use super::world::{SECOND, START, Setup, World};
use crate::event::{Slice, Timestamp};
use crate::query::cover::Tier;
use crate::query::world::{Asked, Worlds};
use crate::query::{Expression, Point, Series, Value, evaluate, evaluate_range};
use crate::store::TierPlan;
use crate::store::tests::script::{Rng, SLICE_NANOS};

const HOUR: i64 = 3600 * SECOND;

/// Ten seconds for two hours, a minute for five, ten minutes for good.
const TIERS: [TierPlan; 3] = [
    TierPlan { resolution: 1, keep: 2 * HOUR },
    TierPlan { resolution: 6, keep: 5 * HOUR },
    TierPlan { resolution: 60, keep: 10_000 * HOUR },
];

/// Beside those of the present.
const LONG: [&str; 14] = [
    "increase(hits_total[9h])",
    "rate(hits_total[3h15m])",
    "sum(increase(took_seconds_sum[7h]))",
    "histogram_quantile(0.9, sum(increase(took_seconds[8h])))",
    "histogram_quantile(0.5, increase(took_seconds[40m]))",
    "max_over_time(temp[6h])",
    "avg_over_time(temp[95m])",
    "last_over_time(temp[1h])",
    "count_over_time(temp[10h])",
    "increase(hits_total[30m] offset 4h)",
    "max_over_time(increase(hits_total[20m])[2h:7m])",
    "irate(hits_total[5m])",
    "took_seconds_count offset 90m",
    "took_seconds{quantile=\"0.9\"}",
];

fn worlds(world: &mut World) -> Worlds {
    let process = world.process();
    Worlds::new(process.view.clone(), process.actor.store().ledger().reader())
}

/// Commits again and again, so that what is due gets done: a step a commit.
fn work(world: &mut World, ticks: usize) {
    for _ in 0..ticks {
        let now = world.now();
        world.process().lines(0, "tick:1|c\n", now);
        world.clock.advance(SECOND + 100_000_000);
        world.turn_all();
    }
}

/// The tiers as they stand, told to the naive world, which then floors times alike; it reads nothing coarser for speed.
fn held(world: &mut World) -> Vec<Tier> {
    let infos = world.process().actor.store().ledger().reader().snapshot(|snapshot| snapshot.tiers()).expect("reads");
    let tier = |(at, info): (usize, &crate::store::TierInfo)| Tier {
        resolution: info.resolution,
        from: info.from.0,
        until: info.until.0,
        lacks: (at > 0).then_some(0..u32::MAX).into_iter().collect(),
    };
    infos.iter().enumerate().map(tier).collect()
}

/// Without what only one world can know.
fn over_time(value: Value) -> Vec<String> {
    let Value::Matrix(series) = value else { panic!("{value:?} is no matrix") };
    let points = series.into_iter().flat_map(|Series { name, labels, points }| {
        let shown =
            move |point: Point| format!("{name:?}{labels:?} {:?} {:?} {:?}", point.time, point.value, point.histogram);
        points.into_iter().map(shown).collect::<Vec<_>>()
    });
    points.collect()
}

#[test]
fn h1_q1_queries_over_pages_equal_the_naive_world() {
    let seed = 7;
    let mut rng = Rng(seed);
    let mut world = live(Setup { shards: 1, tiers: &TIERS, keep: HOUR / 2, ..Setup::default() });
    let mut lines: Vec<Line> = Vec::new();
    let steps = 13 * 36;
    for _ in 0..steps {
        world.clock.advance(90 * SECOND + rng.below(1_000_000_000) as i64);
        let now = world.now();
        for _ in 0..1 + rng.below(4) {
            let label = ["a", "b", "c"][rng.below(3) as usize];
            let value = rng.below(5000);
            // Some come when their slices have long been paged.
            let late = if rng.below(12) == 0 { rng.below(3500) } else { rng.below(30) };
            let at = now.0 / SECOND - late as i64;
            let json = |metric: &str, kind: &str, value: &str| {
                format!(
                    r#"{{"metric":"{metric}","type":"{kind}","value":{value},"labels":{{"k":"{label}"}},"time":{at}}}"#
                )
            };
            let (line, name) = match rng.below(3) {
                0 => (format!("hits:{value}|c|#k:{label}|T{at}"), "hits_total"),
                1 => (json("took", "timing", &value.to_string()), "took_seconds"),
                _ => (json("members", "set", &format!("\"{}\"", value % 50)), "members"),
            };
            world.process().lines(0, &line, now);
            lines.push((name.into(), label.into(), value as f64, Timestamp(at * SECOND)));
            if name == "members" {
                lines.last_mut().expect("pushed").2 = (value % 50) as f64;
            }
        }
        let (label, value) = (["a", "b"][rng.below(2) as usize], rng.below(100));
        world.process().lines(0, &format!("temp:{value}|g|#k:{label}"), now);
        lines.push(("temp".into(), label.into(), value as f64, now));
        work(&mut world, 12);
    }
    work(&mut world, 300);
    let tiers = held(&mut world);
    let first = (START / SLICE_NANOS) as u32;
    assert!(tiers[0].from > tiers[1].from && tiers[1].from > first && tiers[2].from <= first, "{tiers:?}");
    let worlds = worlds(&mut world);
    let process = world.process();
    let mut memory = naive(process, &lines);
    memory.hold(tiers);
    let last = process.view.last_commit_time().0 / SLICE_NANOS;
    let mut found_any = 0;
    for text in EXPRESSIONS.iter().chain(&LONG) {
        let expression = Expression::parse(text).expect(text);
        for round in 0..12 {
            let edge = last - (round * (last - i64::from(first))) / 12 - rng.below(100) as i64;
            let at = Timestamp(edge * SLICE_NANOS + rng.below(SLICE_NANOS as u64) as i64);
            let asked = [Asked { expression: &expression, start: at, end: at }];
            let found = evaluate(&expression, &worlds.world_for(&asked).expect("reads"), at).expect(text);
            let expected = evaluate(&expression, &memory, at).expect(text);
            let found = shown(found);
            found_any += found.len();
            assert_eq!(found, shown(expected), "seed {seed}, {text} at {at:?}, edge {edge}");
        }
        // Over all of it at once, at times of every resolution.
        let (start, end) = (Timestamp(START), Timestamp(last * SLICE_NANOS));
        for step in [HOUR, 10 * 60 * SECOND, 777 * SECOND] {
            let asked = [Asked { expression: &expression, start, end }];
            let over = |data: &dyn crate::query::Data| evaluate_range(&expression, data, start, end, step).expect(text);
            let found = over(&worlds.world_for(&asked).expect("reads"));
            assert_eq!(over_time(found), over_time(over(&memory)), "seed {seed}, {text} every {step}");
        }
    }
    assert!(found_any > 500, "{found_any} values were compared");
}

#[test]
fn h1_s2_a_series_that_left_memory_is_found_in_every_tier() {
    let mut world = live(Setup { shards: 1, tiers: &TIERS, keep: HOUR / 2, idle: Some(HOUR), ..Setup::default() });
    let begun = world.now();
    for round in 0..14 * 12 {
        let now = world.now();
        let lines = "hits:1|c|#k:stays\n";
        world.process().lines(0, lines, now);
        if round < 12 {
            world.process().lines(0, "hits:5|c|#k:left\ntook:20|ms|#k:left\n", now);
        }
        world.clock.advance(5 * 60 * SECOND);
        work(&mut world, 10);
    }
    work(&mut world, 100);
    let tiers = held(&mut world);
    let worlds = worlds(&mut world);
    let left_by = (begun.0 + HOUR + HOUR / 2) / SLICE_NANOS;
    assert!(Slice(tiers[1].from) > Slice(left_by as u32), "it is in the coarsest tier only: {tiers:?}");
    let now = world.now().0 / SLICE_NANOS;
    for (text, edge, expected) in [
        ("hits_total{k=\"left\"}", left_by, " 60.0 "),
        ("increase(hits_total{k=\"left\"}[2h])", left_by, " 60.0 "),
        ("increase(hits_total{k=\"left\"}[20h])", now, " 60.0 "),
        ("took_seconds_count{k=\"left\"}", left_by, " 12.0 "),
        ("histogram_count(sum(increase(took_seconds[20h])))", now, " 12.0 "),
    ] {
        let found = answer(&worlds, text, edge);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
    assert!(answer(&worlds, "hits_total{k=\"left\"}", now).is_empty(), "it is not there any more");
}

#[test]
fn t3_a_wall_clock_that_jumps_ahead_takes_no_history_with_it() {
    let mut world = live(Setup { shards: 1, tiers: &TIERS, keep: HOUR / 2, ..Setup::default() });
    for _ in 0..4 * 12 {
        world.clock.advance(5 * 60 * SECOND);
        work(&mut world, 3);
    }
    work(&mut world, 50);
    let spans = |world: &mut World| -> Vec<u64> {
        world.process().actor.store().ledger().tier_sizes().iter().map(|tier| tier.spans).collect()
    };
    let before = spans(&mut world);
    assert!(before[0] > 0 && before[1] > 0, "{before:?}");
    let now = world.now();
    world.clock.step_wall(Timestamp(now.0 + 5_000 * HOUR));
    work(&mut world, 200);
    let after = spans(&mut world);
    assert!(after[0] >= before[0] && after[1] >= before[1], "{before:?} {after:?}");
    // Back again, nothing is missing; and a clock that goes on from there for an hour is believed.
    let now = world.now();
    world.clock.step_wall(Timestamp(now.0 - 5_000 * HOUR));
    work(&mut world, 20);
    assert!(spans(&mut world)[0] >= before[0]);
    let now = world.now();
    world.clock.step_wall(Timestamp(now.0 + 5_000 * HOUR));
    work(&mut world, 20);
    world.clock.advance(HOUR);
    work(&mut world, 200);
    assert_eq!(spans(&mut world)[..2], [0, 0], "their time is over");
}

#[test]
fn h1_slices_as_short_as_a_commit_become_segments_and_pages() {
    let mut world = live(Setup { shards: 1, tiers: &TIERS, keep: HOUR / 2, ..Setup::default() });
    for _ in 0..3 * 360 {
        let now = world.now();
        world.process().lines(0, "hits:1|c\n", now);
        world.clock.advance(SLICE_NANOS);
        world.turn_all();
    }
    let process = world.process();
    let ledger = process.actor.store().ledger();
    let waiting = ledger.slices().filter(|slice| slice.log_rows > 0).count();
    assert!(waiting < 20, "{waiting} slices wait in the log");
    assert!(ledger.tier_sizes().iter().all(|tier| tier.spans > 0), "{:?}", ledger.tier_sizes());
    assert_eq!(process.sum("hits_total", &[]), 3 * 360);
}
