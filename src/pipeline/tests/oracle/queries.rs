//! Q1, Q3: what queries read of a running pipeline equals a world where every sample is kept, whatever the shards,
//! ticks, restarts and late samples; and recorded expressions see one commit.

use super::world::{SECOND, START, Setup, World};
use crate::event::{Labels, SeriesId, Timestamp};
use crate::query::memory::Memory;
use crate::query::world::{Asked, Worlds};
use crate::query::{Expression, Value, evaluate};
use crate::store::tests::script::{Rng, SLICE_NANOS};
use std::collections::BTreeMap;

const EXPRESSIONS: [&str; 16] = [
    "hits_total",
    "sum by (k) (rate(hits_total[30s]))",
    "increase(hits_total{k=~\"a|b\"}[1m])",
    "hits_total offset 20s",
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

/// One line and what it does to the naive world.
fn apply(memory: &mut Memory, ids: &BTreeMap<(String, String), SeriesId>, line: &(String, String, f64, Timestamp)) {
    let (name, label, value, time) = line;
    let Some(id) = ids.get(&(name.clone(), label.clone())) else { return };
    match name.as_str() {
        "hits_total" => memory.increment(*id, *time, *value),
        "temp" => memory.set(*id, *time, *value),
        "took_seconds" => memory.observe(*id, *time, *value / 1000.0, 4096),
        _ => memory.insert(*id, *time, &format!("{value}")),
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
        if rng.below(25) == 0 {
            world.settle(&mut rng);
            world.kill(1 + rng.below(3) as usize);
        }
    }
    world.settle(&mut rng);
    let process = world.process();
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
        process.view.read_totals(&series, |found| created.push(found.expect("live").1));
        for (labels, created) in labels.iter().zip(created) {
            let label = labels.get("k").expect("all have it");
            ids.insert((name.to_owned(), label.to_owned()), memory.series(&metric, &[("k", label)], created));
        }
    }
    lines.iter().for_each(|line| apply(&mut memory, &ids, line));
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

/// Without what only one world can know.
fn shown(value: Value) -> Vec<String> {
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
