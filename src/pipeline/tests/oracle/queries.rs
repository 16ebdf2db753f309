//! Q1, Q3: what queries read of a running pipeline equals a world where every sample is kept, whatever the shards,
//! ticks, restarts and late samples; and recorded expressions see one commit.

use super::failing::{commit, live, say};
use super::world::{Process, SECOND, START, Setup, World};
use crate::event::{Labels, SeriesId, Timestamp};
use crate::query::memory::Memory;
use crate::query::world::{Asked, Worlds};
use crate::query::{Expression, Value, evaluate};
use crate::store::tests::script::{Rng, SLICE_NANOS};
use std::collections::BTreeMap;

pub(super) const EXPRESSIONS: [&str; 22] = [
    "resets(hits_total[1m])",
    "idelta(took_seconds_count[1m])",
    "hits_total",
    "sum by (k) (rate(hits_total[30s]))",
    "increase(hits_total{k=~\"a|b\"}[1m])",
    "hits_total offset 20s",
    "hits_total{k=\"a\"}",
    "hits_total{k=\"zzz\"}",
    "increase(hits_total{nothing=\"\",k=\"b\",k!=\"a\"}[1m])",
    "took_seconds_count{k=\"c\",k=~\"a|c\"}",
    "temp",
    "max_over_time(temp[40s]) - min_over_time(temp[40s])",
    "avg_over_time(temp{k!=\"a\"}[1m])",
    "took_seconds_count",
    "took_seconds_sum offset 30s",
    "rate(took_seconds_sum[1m]) / rate(took_seconds_count[1m])",
    "histogram_quantile(0.9, sum(rate(took_seconds[1m])))",
    "histogram_quantile(0.5, rate(took_seconds[30s]))",
    "count(members)",
    "members",
    "absent(nothing)",
    "sum({__name__=~\"hits.*\"}) + count(temp)",
];

/// Metric, label, value and time of what was said.
pub(super) type Line = (String, String, f64, Timestamp);

/// One line and what it does to the naive world.
fn apply(memory: &mut Memory, ids: &BTreeMap<(String, String), SeriesId>, line: &Line) {
    let (name, label, value, time) = line;
    if let Some(name) = name.strip_prefix("reset ") {
        let id = ids[&(name.to_owned(), label.clone())];
        if name == "temp" {
            memory.set(id, *time, 0.0);
        }
        return memory.reset(id, *time);
    }
    let Some(id) = ids.get(&(name.clone(), label.clone())) else { return };
    match name.as_str() {
        "hits_total" => memory.increment(*id, *time, *value),
        "temp" => memory.set(*id, *time, *value),
        "took_seconds" => memory.observe(*id, *time, *value / 1000.0, 4096),
        _ => memory.insert(*id, *time, &format!("{value}")),
    }
}

/// Resets some series, all of whose samples are committed (R3).
fn reset(world: &mut World, rng: &mut Rng, lines: &mut Vec<(String, String, f64, Timestamp)>) {
    let view = world.process().view.clone();
    let mut meant = Vec::new();
    for name in ["hits_total", "temp", "took_seconds", "members"] {
        let Some(metric) = view.metric(name) else { continue };
        let series = view.series(&metric);
        let mut labels = Vec::new();
        view.labels(metric.kind, &series, |found: &Labels| labels.push(found.get("k").expect("all").to_owned()));
        let of_metric = series.iter().zip(labels).map(|((id, _), label)| (name, label, (metric.kind, *id)));
        meant.extend(of_metric.filter(|_| rng.below(2) == 0));
    }
    world.process().store.reset(meant.iter().map(|(_, _, series)| *series).collect(), Box::new(|_| {}));
    world.settle(rng);
    for (name, label, (_, id)) in meant {
        let mut at = None;
        view.read_totals(&[id], |row| at = row.expect("live").resets.last().map(|reset| reset.at));
        lines.push((format!("reset {name}"), label, 0.0, at.expect("it was reset")));
    }
}

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let setup = Setup { shards: 1 + rng.below(3) as usize, ..Setup::default() };
    let mut world = World::new(setup, vec![Vec::new()]);
    let mut lines: Vec<(String, String, f64, Timestamp)> = Vec::new();
    for step in 0..60 {
        world.clock.advance(1_700_000_000 + rng.below(1_000_000_000) as i64);
        let now = world.now();
        let shards = world.setup.shards as u64;
        for _ in 0..rng.below(12) {
            let label = ["a", "b", "c"][rng.below(3) as usize];
            let value = rng.below(5000);
            // Gauges are set now: of several at one time the newest counts, which the naive world cannot know.
            let late = rng.below(3) * rng.below(2) * 10;
            let at = now.0 / SECOND - late as i64;
            let json = |metric: &str, kind: &str, value: &str| {
                format!(
                    r#"{{"metric":"{metric}","type":"{kind}","value":{value},"labels":{{"k":"{label}"}},"time":{at}}}"#
                )
            };
            let (line, name) = match rng.below(3) {
                0 => (format!("hits:{value}|c|#k:{label}|T{at}"), "hits_total"),
                // A time on a timing is JSON's alone: DogStatsD has it for counts and gauges.
                1 => (json("took", "timing", &value.to_string()), "took_seconds"),
                _ => (json("members", "set", &format!("\"{value}\"")), "members"),
            };
            let shard = rng.below(shards) as usize;
            world.process().lines(shard, &line, now);
            lines.push((name.into(), label.into(), value as f64, Timestamp(at * SECOND)));
        }
        let (label, value) = (["a", "b"][step % 2], rng.below(100));
        world.process().lines(0, &format!("temp:{value}|g|#k:{label}"), now);
        lines.push(("temp".into(), label.into(), value as f64, now));
        if rng.below(2) == 0 {
            world.turn_all();
        }
        if rng.below(6) == 0 {
            world.settle(&mut rng);
            reset(&mut world, &mut rng, &mut lines);
        }
        if rng.below(25) == 0 {
            world.settle(&mut rng);
            world.kill(1 + rng.below(3) as usize);
        }
    }
    world.settle(&mut rng);
    let process = world.process();
    let memory = naive(process, &lines);
    let worlds = Worlds::new(process.view.clone(), process.actor.store().ledger().reader());
    let last = process.view.last_commit_time().0 / SLICE_NANOS;
    let first = START / SLICE_NANOS;
    for text in EXPRESSIONS {
        let expression = Expression::parse(text).expect(text);
        for edge in (first..=last).rev().step_by(3) {
            let at = Timestamp(edge * SLICE_NANOS);
            let asked = [Asked { expression: &expression, start: at, end: at }];
            let found = evaluate(&expression, &worlds.world_for(&asked).expect("reads"), at).expect(text);
            let expected = evaluate(&expression, &memory, at).expect(text);
            assert_eq!(shown(found), shown(expected), "seed {seed}, {text} at edge {edge}");
        }
    }
}

/// The naive world of the live series of a process, after everything that was said.
pub(super) fn naive(process: &Process, lines: &[Line]) -> Memory {
    let mut memory = Memory::new(SLICE_NANOS / SECOND);
    let mut ids = BTreeMap::new();
    for name in ["hits_total", "temp", "took_seconds", "members"] {
        let Some(known) = process.view.metric(name) else { continue };
        let metric = memory.declare(name, known.kind, |metric| {
            let id = metric.id;
            *metric = (*known).clone();
            metric.id = id;
        });
        let (family, _) = process.view.series_since(&known, 0, usize::MAX);
        let mut labels = Vec::new();
        process.view.labels(known.kind, &family.series, |found: &Labels| labels.push(found.clone()));
        let series: Vec<SeriesId> = family.series.iter().map(|(id, _)| *id).collect();
        let mut created = Vec::new();
        process.view.read_totals(&series, |found| created.push(found.expect("live").born));
        for (labels, created) in labels.iter().zip(created) {
            let label = labels.get("k").expect("all have it");
            ids.insert((name.to_owned(), label.to_owned()), memory.series(&metric, &[("k", label)], created));
        }
    }
    lines.iter().for_each(|line| apply(&mut memory, &ids, line));
    memory
}

/// Without what only one world can know.
pub(super) fn shown(value: Value) -> Vec<String> {
    match value {
        Value::Vector(samples) => {
            samples.iter().map(|s| format!("{:?}{:?} {:?} {:?}", s.name, s.labels, s.value, s.histogram)).collect()
        }
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn q1_queries_over_the_pipeline_equal_the_naive_world() {
    (0..12).for_each(run);
}

/// The answer to `text` at an edge.
pub(super) fn answer(worlds: &Worlds, text: &str, edge: i64) -> Vec<String> {
    let expression = Expression::parse(text).expect(text);
    let at = Timestamp(edge * SLICE_NANOS);
    let asked = [Asked { expression: &expression, start: at, end: at }];
    shown(evaluate(&expression, &worlds.world_for(&asked).expect("reads"), at).expect(text))
}

/// A world is of one commit, whatever is committed while it is asked; two expressions over it are of one moment.
#[test]
fn q3_q4_a_world_does_not_change_while_it_lives() {
    let mut world = live(Setup::default());
    say(&mut world, 0, "hits:1|c|#k:a\nlat:5|ms|#k:a\ntemp:3|g|#k:a\n");
    commit(&mut world);
    let process = world.process();
    let worlds = Worlds::new(process.view.clone(), process.actor.store().ledger().reader());
    let at = Timestamp((world.now().0 / SLICE_NANOS + 1) * SLICE_NANOS);
    let texts = ["hits_total", "increase(hits_total[1m])", "lat_seconds_count", "temp", "count({k=~\".+\"})"];
    let expressions = texts.map(|text| Expression::parse(text).expect(text));
    let asked: Vec<Asked<'_>> = expressions.iter().map(|expression| Asked { expression, start: at, end: at }).collect();
    let all = |world: &crate::query::world::World<'_>| -> Vec<Vec<String>> {
        expressions.iter().map(|expression| shown(evaluate(expression, world, at).expect("answers"))).collect()
    };
    let held = worlds.world_for(&asked).expect("reads");
    let (commit_then, before) = (held.commit(), all(&held));
    say(&mut world, 0, "hits:7|c|#k:a\nhits:1|c|#k:b\nlat:9|ms|#k:a\ntemp:4|g|#k:a\nhits:2|c|#k:a|T1700000000\n");
    commit(&mut world);
    assert_eq!((held.commit(), all(&held)), (commit_then, before.clone()));
    let after = worlds.world_for(&asked).expect("reads");
    assert!(after.commit() > commit_then);
    assert_ne!(all(&after), before);
}

#[test]
fn s2_q1_the_past_of_a_series_that_left_memory_is_what_it_was() {
    let mut world = live(Setup { idle: Some(30 * SECOND), ..Setup::default() });
    let reader = |world: &mut World| {
        let process = world.process();
        Worlds::new(process.view.clone(), process.actor.store().ledger().reader())
    };
    for lines in ["hits:1|c|#k:stays\n", "hits:5|c|#k:left\nlat:5|ms|#k:left\nlevel:3|g|#k:left\nwho:a|s|#k:left\n"] {
        say(&mut world, 0, lines);
        commit(&mut world);
    }
    world.clock.advance(SLICE_NANOS);
    world.turn_all();
    say(&mut world, 0, "hits:2|c|#k:left\nlat:9|ms|#k:left\nlevel:4|g|#k:left\nwho:b|s|#k:left\n");
    world.clock.advance(SLICE_NANOS);
    world.turn_all();
    let texts = [
        "hits_total",
        "sum(hits_total)",
        "hits_total{k=\"left\"} offset 10s",
        "increase(hits_total{k=~\"l.*\"}[10m])",
        "lat_seconds_count",
        "lat_seconds_sum{k=\"left\"}",
        "lat_seconds",
        "histogram_quantile(0.5, sum(rate(lat_seconds[10m])))",
        "level",
        "max_over_time(level[10m])",
        "who",
    ];
    let edge = world.now().0 / SLICE_NANOS;
    let worlds = reader(&mut world);
    let before: Vec<_> = texts.iter().map(|text| answer(&worlds, text, edge)).collect();
    assert!(before[0].iter().any(|line| line.contains("left") && line.contains(" 7.0 ")), "{:?}", before[0]);
    let live_at_first = world.process().table.lock().live();
    for second in 0..150 {
        if second % 10 == 0 {
            say(&mut world, 0, "hits:1|c|#k:stays\n");
        }
        world.clock.advance(SECOND);
        world.turn_all();
    }
    assert!(world.process().table.lock().live() < live_at_first - 3, "they have left");
    let fresh = reader(&mut world);
    for (text, before) in texts.iter().zip(&before) {
        assert_eq!(answer(&worlds, text, edge), *before, "{text}");
        assert_eq!(answer(&fresh, text, edge), *before, "{text}, nothing decoded");
    }
    // It is not there any more, but its increments stay in ranges.
    let now = world.now().0 / SLICE_NANOS;
    assert!(answer(&fresh, "hits_total{k=\"left\"}", now).is_empty());
    assert!(answer(&fresh, "increase(hits_total{k=\"left\"}[10m])", now)[0].contains(" 7.0 "));
    // What returns is one series.
    say(&mut world, 0, "hits:2|c|#k:left\n");
    world.clock.advance(SLICE_NANOS);
    world.turn_all();
    for worlds in [&worlds, &fresh] {
        let found = answer(worlds, "hits_total{k=\"left\"}", now + 1);
        assert!(found.len() == 1 && found[0].contains(" 9.0 "), "{found:?}");
        assert_eq!(answer(worlds, "lat_seconds_count", edge), before[4]);
    }
}

/// Columns that were decoded while a series was not in memory lack its rows, and no commit touches those slices when it
/// returns.
#[test]
fn s2_q1_a_series_that_returns_has_its_old_slices_again() {
    let mut world = live(Setup { idle: Some(30 * SECOND), ..Setup::default() });
    let reader = |world: &mut World| {
        let process = world.process();
        Worlds::new(process.view.clone(), process.actor.store().ledger().reader())
    };
    // The one that leaves has the highest id of its metric: when it returns, the list only grows at its end.
    for lines in ["hits:1|c|#k:stays\n", "hits:5|c|#k:left\nlat:5|ms|#k:left\n"] {
        say(&mut world, 0, lines);
        commit(&mut world);
    }
    let live_at_first = world.process().table.lock().live();
    for second in 0..150 {
        if second % 10 == 0 {
            say(&mut world, 0, "hits:1|c|#k:stays\nlat:7|ms|#k:stays\n");
        }
        world.clock.advance(SECOND);
        world.turn_all();
    }
    assert!(world.process().table.lock().live() < live_at_first + 1, "they have left");
    let worlds = reader(&mut world);
    let texts = [
        "increase(hits_total{k=\"left\"}[10m])",
        "hits_total{k=\"left\"} offset 1m",
        "sum(increase(hits_total[10m]))",
        "increase(lat_seconds_count{k=\"left\"}[10m])",
        "histogram_quantile(0.5, sum(rate(lat_seconds[10m])))",
    ];
    let before = world.now().0 / SLICE_NANOS;
    texts.iter().for_each(|text| drop(answer(&worlds, text, before)));
    say(&mut world, 0, "hits:2|c|#k:left\nlat:9|ms|#k:left\n");
    commit(&mut world);
    world.clock.advance(SLICE_NANOS);
    world.turn_all();
    let after = world.now().0 / SLICE_NANOS;
    let fresh = reader(&mut world);
    for text in texts {
        assert_eq!(answer(&worlds, text, after), answer(&fresh, text, after), "{text}");
    }
    assert!(answer(&fresh, texts[0], after)[0].contains(" 7.0 "), "{:?}", answer(&fresh, texts[0], after));
}
