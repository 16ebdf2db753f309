//! R3: resets against a naive oracle, over restarts, disks that fail and power that is cut, at any moment of it.

use super::failing::{commit, live};
use super::world::{SECOND, Setup, World};
use crate::event::{Kind, SeriesId};
use crate::pipeline::paths::Environment;
use crate::pipeline::{Pipeline, ResetError};
use crate::store::tests::script::Rng;
use crate::view::Value;
use crate::view::read::Totals;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const LABELS: [&str; 3] = ["a", "b", "c"];

/// What a series has seen since its last reset.
#[derive(Clone, Debug, Default, PartialEq)]
struct Life {
    /// Samples; of gauges sets.
    count: u64,
    /// Milliseconds, or wholes.
    sum: i128,
    min: i128,
    max: i128,
    last: f64,
    /// Resets behind it.
    resets: usize,
}

impl Life {
    fn see(&mut self, value: i128) {
        (self.min, self.max) = match self.count {
            0 => (value, value),
            _ => (self.min.min(value), self.max.max(value)),
        };
        (self.count, self.sum) = (self.count + 1, self.sum + value);
        self.last = value as f64;
    }

    /// A gauge is set to 0, which is its first sample.
    fn reset(&mut self, kind: Kind) {
        *self = Life { resets: self.resets + 1, ..Life::default() };
        if kind == Kind::Gauge {
            self.see(0);
        }
    }
}

type Lives = BTreeMap<(&'static str, &'static str), Life>;

fn kind_of(name: &str) -> Kind {
    match name {
        "hits_total" => Kind::Counter,
        "depth" => Kind::Gauge,
        _ => Kind::Distribution,
    }
}

/// Says random lines and what they come to.
fn say(world: &mut World, rng: &mut Rng, lives: &mut Lives, has_gauges: bool) {
    for _ in 0..1 + rng.below(8) {
        world.clock.advance(1_000);
        let now = world.now();
        let label = LABELS[rng.below(3) as usize];
        let value = rng.below(1000) as i128;
        // Late ones are of slices long before the last reset, and count for what is.
        let late = now.0 / SECOND - (rng.below(3) * 40) as i64;
        let (line, name) = match rng.below(4) {
            0 => (format!("hits:{value}|c|#k:{label}|T{late}"), "hits_total"),
            1 => (format!("took:{value}|ms|#k:{label}"), "took_seconds"),
            2 if has_gauges => (format!("depth:{value}|g|#k:{label}"), "depth"),
            _ => (format!("bucketed_bytes:{value}|h|#k:{label}"), "bucketed_bytes"),
        };
        let shard = rng.below(world.setup.shards as u64) as usize;
        world.process().lines(shard, &line, now);
        lives.entry((name, label)).or_default().see(value);
    }
}

/// An operation is applied to the newest set, whether that is a sample or a reset (V6).
fn add_to_gauges(world: &mut World, rng: &mut Rng, lives: &mut Lives) {
    for ((name, label), life) in lives.iter_mut().filter(|(key, _)| key.0 == "depth") {
        let now = world.now();
        let shard = rng.below(world.setup.shards as u64) as usize;
        world.process().lines(shard, &format!("{name}:+7|g|#k:{label}"), now);
        life.see(life.last as i128 + 7);
    }
    world.settle(rng);
}

fn ids(world: &mut World, meant: &[(&'static str, &'static str)]) -> Vec<(Kind, SeriesId)> {
    let view = world.process().view.clone();
    let mut found = Vec::new();
    for (name, label) in meant {
        let Some(metric) = view.metric(name) else { continue };
        let series = view.series(&metric);
        let mut places = series.iter();
        view.labels(metric.kind, &series, |labels| {
            let (id, _) = places.next().expect("as many");
            if labels.get("k") == Some(label) {
                found.push((metric.kind, *id));
            }
        });
    }
    found
}

/// True when what is shown is exactly this.
fn compare(world: &mut World, lives: &Lives) -> Result<(), String> {
    for ((name, label), life) in lives {
        let Some((_, id)) = ids(world, &[(name, label)]).first().copied() else {
            return Err(format!("{name} {label} is not there"));
        };
        let view = &world.process().view;
        let metric = view.metric(name).expect("found above");
        let mut resets = 0;
        let mut ages = true;
        view.read_totals(&[id], |row| {
            let row = row.expect("live");
            resets = row.resets.len();
            ages = row.resets.windows(2).all(|pair| pair[0].at < pair[1].at);
            ages &= row.resets.first().is_none_or(|reset| row.born < reset.at);
        });
        let units = metric.scale.per_one() as i128;
        let (found, created) = match view.value(&metric, id).expect("live") {
            Value::Counter(value) => (Life { sum: value.nanos / units, ..life.clone() }, value.created),
            Value::Gauge(value) => {
                let (min, max) = (value.min as i128, value.max as i128);
                (Life { count: value.count, last: value.last.unwrap_or(-1.0), min, max, ..life.clone() }, value.created)
            }
            Value::Distribution(value) => {
                let unit = if *name == "took_seconds" { units / 1000 } else { units };
                let (min, max) = (value.min.map_or(0, i128::from), value.max.map_or(0, i128::from));
                let (sum, min, max) = (value.sum / unit, min / unit, max / unit);
                (Life { count: value.samples, sum, min, max, ..life.clone() }, value.created)
            }
            other => panic!("{name} is {other:?}"),
        };
        let mut last = None;
        view.read_totals(&[id], |row| last = row.expect("live").resets.last().map(|reset| reset.at));
        ages &= last.is_none_or(|last| last == created);
        let found = Life { resets, ..found };
        if found != *life || !ages {
            return Err(format!("{name} {label}: {found:?}, not {life:?}; {created:?} after {last:?}"));
        }
    }
    Ok(())
}

/// Asks; what was answered: 0 nothing yet, 1 done, 2 not now.
fn ask(world: &mut World, series: Vec<(Kind, SeriesId)>) -> Arc<AtomicU8> {
    let answer = Arc::new(AtomicU8::new(0));
    let said = Arc::clone(&answer);
    let reply = Box::new(move |commit: Option<_>| said.store(if commit.is_some() { 1 } else { 2 }, Ordering::SeqCst));
    world.process().store.reset(series, reply);
    answer
}

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let setup = Setup { shards: 1 + rng.below(3) as usize, keep_ops: true, ..Setup::default() };
    let mut world = World::new(setup, Vec::new());
    let mut lives = Lives::new();
    for step in 0..30 {
        let context = format!("seed {seed}, step {step}");
        say(&mut world, &mut rng, &mut lives, true);
        // Windows slide, slices become segments.
        world.clock.advance(rng.below(25) as i64 * SECOND);
        world.settle(&mut rng);
        compare(&mut world, &lives).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
        add_to_gauges(&mut world, &mut rng, &mut lives);
        let meant: Vec<_> = lives.keys().copied().filter(|_| rng.below(3) == 0).collect();
        if meant.is_empty() {
            continue;
        }
        let series = ids(&mut world, &meant);
        assert_eq!(series.len(), meant.len(), "{context}");
        let old = lives.clone();
        meant.iter().for_each(|key| lives.get_mut(key).expect("known").reset(kind_of(key.0)));
        world.clock.advance(rng.below(2) as i64 * 300_000_000);
        let answer = ask(&mut world, series);
        match rng.below(4) {
            0 => {
                // What comes between asking and the commit is of the new life.
                say(&mut world, &mut rng, &mut lives, false);
                world.settle(&mut rng);
                assert_eq!(answer.load(Ordering::SeqCst), 1, "{context}: answered");
            }
            1 => {
                // The disk fails in the middle of it; it is done when the disk works again, whatever was answered.
                {
                    let mut inner = world.disk.0.lock().expect("unpoisoned");
                    inner.fail_at = Some(inner.calls + 1 + rng.below(30));
                    inner.fail_for = 1 + rng.below(30);
                }
                for _ in 0..rng.below(8) {
                    world.clock.advance(400_000_000);
                    world.turn_all();
                }
                world.settle(&mut rng);
                assert_ne!(answer.load(Ordering::SeqCst), 0, "{context}: answered");
            }
            2 => {
                // The process or the machine ends in the middle of it: all of it or nothing.
                {
                    let mut inner = world.disk.0.lock().expect("unpoisoned");
                    inner.fail_at = Some(inner.calls + 1 + rng.below(25));
                    inner.fail_for = u64::MAX / 2;
                }
                for _ in 0..rng.below(4) {
                    world.clock.advance(400_000_000);
                    world.turn_all();
                }
                let was_answered = answer.load(Ordering::SeqCst) == 1;
                let shards = 1 + rng.below(3) as usize;
                match rng.below(2) {
                    0 => world.kill(shards),
                    _ => world.lose_power(&mut rng, shards),
                }
                world.settle(&mut rng);
                let is_new = compare(&mut world, &lives);
                if let Err(wrong) = is_new {
                    assert!(!was_answered, "{context}: it was answered, and is lost: {wrong}");
                    lives = old;
                }
            }
            _ => {
                world.settle(&mut rng);
                assert_eq!(answer.load(Ordering::SeqCst), 1, "{context}: answered");
                let shards = 1 + rng.below(3) as usize;
                match rng.below(3) {
                    0 => world.kill(shards),
                    1 => world.lose_power(&mut rng, shards),
                    _ => {}
                }
            }
        }
        world.settle(&mut rng);
        compare(&mut world, &lives).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
        add_to_gauges(&mut world, &mut rng, &mut lives);
        compare(&mut world, &lives).unwrap_or_else(|wrong| panic!("{context}: {wrong}"));
        world.process().check_both_laws(&context);
    }
}

#[test]
fn r3_resets_equal_the_oracle_over_restarts_failures_and_lost_power() {
    (0..24).for_each(run);
}

#[test]
fn r3_no_increment_is_lost_or_counted_twice_between_lives() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 200_000;
    let environment = Environment::fixed([], 1000, |_| false);
    let text = "name = \"lives\"\n[store]\npath = \":memory:\"\nmax_size = \"64MiB\"\n";
    let pipeline = Pipeline::builder().environment(environment).text(text).start().expect("starts");
    let flow = pipeline.counter("flow", &[]).expect("valid");
    let took = pipeline.timing("took", &[]).expect("valid");
    flow.inc();
    took.observe_nanos(1);
    pipeline.flush().expect("commits");
    let mut resets = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    (0..CALLS).for_each(|_| {
                        flow.inc();
                        took.observe_nanos(1);
                    });
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) || resets < 3 {
            assert_eq!(pipeline.reset_matching(&["{__name__=~\"flow_total|took_seconds\"}"]), Ok(2));
            resets += 1;
        }
    });
    let samples = i128::from(THREADS * CALLS + 1);
    pipeline.flush().expect("commits");
    let view = pipeline.view();
    for (name, one) in [("flow_total", 1_000_000_000), ("took_seconds", 4096)] {
        let metric = view.metric(name).expect("there");
        let (id, _) = view.series(&metric)[0];
        view.read_totals(&[id], |row| {
            let row = row.expect("live");
            let now = match row.totals {
                Totals::Counter(total) | Totals::Distribution { sum: total, .. } => total,
                Totals::None => panic!("it has totals"),
            };
            assert!(row.resets.len() >= 3 && row.resets.windows(2).all(|pair| pair[0].total <= pair[1].total));
            let before = row.resets.last().expect("some").total;
            assert_eq!(before + now, samples * one, "{name} over {resets} resets");
        });
    }
    assert_eq!(pipeline.reset("hydrograph_events_total", &[]), Err(ResetError::Own));
    assert_eq!(pipeline.reset("flow_total", &[("k", "none")]), Err(ResetError::Unknown));
    assert!(matches!(pipeline.reset_matching(&["flow_total[5m]"]), Err(ResetError::Selector(_))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        assert_eq!(pipeline.reset_async("flow_total", &[]).await, Ok(1));
        assert_eq!(pipeline.get_async("flow_total", &[]).await, Ok(0.0));
        assert!(pipeline.reset_all_async().await.is_ok_and(|count| count >= 2));
        assert_eq!(pipeline.reset_matching_async(&["flow_total"]).await, Ok(1));
    });
    assert!(pipeline.stop(Duration::from_secs(20)).is_complete);
    assert_eq!(pipeline.reset_all(), Err(ResetError::NotCommitted));
}

#[test]
fn r3_s2_a_series_that_was_reset_leaves_memory_and_resumes_its_new_life() {
    let mut world = live(Setup { idle: Some(70 * SECOND), ..Setup::default() });
    let now = world.now();
    world.process().lines(0, "hits:5|c|#k:a", now);
    commit(&mut world);
    let series = ids(&mut world, &[("hits_total", "a")]);
    let answer = ask(&mut world, series);
    commit(&mut world);
    assert_eq!(answer.load(Ordering::SeqCst), 1);
    let created = |world: &mut World| {
        let (_, id) = ids(world, &[("hits_total", "a")])[0];
        let view = &world.process().view;
        let Some(Value::Counter(value)) = view.value(&view.metric("hits_total").expect("there"), id) else {
            panic!("a counter")
        };
        (value.nanos / 1_000_000_000, value.created)
    };
    let (zero, reset_at) = created(&mut world);
    assert_eq!(zero, 0);
    let now = world.now();
    world.process().lines(1, "hits:2|c|#k:a", now);
    commit(&mut world);
    for _ in 0..300 {
        let now = world.now();
        world.process().lines(0, "other:1|c", now);
        world.clock.advance(SECOND);
        world.turn_all();
    }
    assert!(ids(&mut world, &[("hits_total", "a")]).is_empty(), "it has left");
    world.kill(2);
    let now = world.now();
    world.process().lines(0, "hits:4|c|#k:a", now);
    commit(&mut world);
    assert_eq!(created(&mut world), (6, reset_at), "its total and creation time are those of the reset");
}

#[test]
fn r3_more_series_than_one_commit_takes_are_all_reset_before_the_answer() {
    let mut world = live(Setup { series: 200_000, ..Setup::default() });
    for first in (0..70_000u32).step_by(10_000) {
        let lines: String = (first..first + 10_000).map(|n| format!("hits:1|c|#k:{n}\n")).collect();
        let now = world.now();
        world.process().lines(0, &lines, now);
        commit(&mut world);
    }
    assert_eq!(world.process().sum("hits_total", &[]), 70_000);
    let view = world.process().view.clone();
    let series = view.series(&view.metric("hits_total").expect("there"));
    let before = world.process().store.status().last_commit;
    let answer = ask(&mut world, series.into_iter().map(|(id, _)| (Kind::Counter, id)).collect());
    commit(&mut world);
    assert_eq!(answer.load(Ordering::SeqCst), 1);
    assert!(world.process().store.status().last_commit.0 > before.0 + 1, "a bounded step a commit");
    assert_eq!(world.process().sum("hits_total", &[]), 0);
    world.kill(2);
    world.turn_all();
    assert_eq!(world.process().sum("hits_total", &[]), 0, "and they stay so");
}
