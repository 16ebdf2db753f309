//! C1, C2, C4, T4: whatever happens between its reads, a replayable log is counted exactly once.

use super::export::{check_totals, export};
use super::truth::{Event, TARGETS, by_slice, event, totals};
use super::world::{SECOND, START, Setup, World};
use crate::store::tests::script::Rng;

/// Schedules of the normal test run.
const SCHEDULES: u64 = 2000;

/// Events of some partitions, out of order by up to a minute.
fn log(rng: &mut Rng) -> Vec<Vec<Event>> {
    (0..1 + rng.below(3))
        .map(|partition| {
            let count = 20 + rng.below(100);
            let at =
                |n: u64, rng: &mut Rng| START + (n * 40 / count) as i64 * SECOND - rng.below(60_000_000_000) as i64;
            (0..count)
                .map(|n| {
                    let time = at(n, rng);
                    event(rng, time, partition << 48 | n)
                })
                .collect()
        })
        .collect()
}

/// One random schedule of everything that may happen; the seed says which.
fn run(seed: u64) {
    let mut rng = Rng(seed);
    let setup = Setup {
        shards: 1 + rng.below(4) as usize,
        pending: if rng.below(4) == 0 { 600 } else { 64 << 20 },
        keep_ops: rng.below(3) == 0,
        ..Setup::default()
    };
    let partitions = log(&mut rng);
    let mut world = World::new(setup, partitions);
    let slow = rng.below(3) == 0;
    let mut seen = 0;
    for _ in 0..120 + rng.below(120) {
        let now = world.now();
        let shard = rng.below(world.setup.shards as u64) as usize;
        match rng.below(40) {
            0..10 => {
                let partition = rng.below(world.partitions.len() as u64) as usize;
                world.read(partition, 1 + rng.below(9) as usize, shard);
            }
            10..18 => {
                let is_slow = slow && shard == 0 && rng.below(8) != 0;
                if !is_slow {
                    world.process().turn(shard, now);
                }
            }
            18..26 => world.process().actor.step(),
            26..30 => world.process().answer_epochs(),
            30..34 => world.clock.advance(rng.below(700_000_000) as i64),
            34 => world.clock.advance(rng.below(6 * SECOND as u64) as i64),
            35 => world.process().lines(shard, "hits:1|c\nhits:1|c|#k:b\nlat:5|ms\nbad\n", now),
            36 => {
                // The disk fails for a while, from one of its next calls on.
                let mut inner = world.disk.0.lock().expect("unpoisoned");
                if inner.fail_at.is_none_or(|at| inner.calls >= at + inner.fail_for) {
                    inner.fail_at = Some(inner.calls + 1 + rng.below(60));
                    inner.fail_for = 1 + rng.below(20);
                    inner.fail_kind = Some(std::io::ErrorKind::StorageFull);
                }
            }
            37 => {
                if rng.below(2) == 0 {
                    world.process().raise_incarnation();
                }
            }
            38 => {
                if rng.below(3) == 0 {
                    let shards = 1 + rng.below(4) as usize;
                    let before = world.process().view.last_commit();
                    if world.setup.keep_ops {
                        world.lose_power(&mut rng, shards);
                    } else {
                        world.kill(shards);
                    }
                    let process = world.process();
                    let after = process.actor.store().ledger().last_commit();
                    assert!(after >= before, "seed {seed}: commit {before} was shown and is gone");
                    process.check_laws(&format!("seed {seed}, after a crash"));
                }
            }
            _ => {
                let process = world.process();
                let commit = process.view.last_commit();
                if commit.0 != seen {
                    seen = commit.0;
                    process.check_laws(&format!("seed {seed}, commit {commit}"));
                }
            }
        }
    }
    world.settle(&mut rng);
    check(&mut world, &format!("seed {seed}, {setup:?}"));
    // A recovery shows the same as what ran.
    let shards = 1 + rng.below(4) as usize;
    world.kill(shards);
    world.turn_all();
    check(&mut world, &format!("seed {seed} after a restart, {setup:?}"));
}

fn check(world: &mut World, context: &str) {
    let events: Vec<Event> = world.partitions.iter().flatten().copied().collect();
    let process = world.process();
    process.check_laws(context);
    let mut found = export(process.actor.store().ledger());
    found.retain(|(_, (name, _)), _| TARGETS.iter().any(|target| target.exposed == name));
    let expected = by_slice(events.iter());
    for (key, value) in &expected {
        assert_eq!(found.get(key), Some(value), "{context}: {key:?}");
    }
    assert_eq!(found.len(), expected.len(), "{context}");
    check_totals(&process.view, &totals(events.iter()), context);
    let replayed = process.sum("hydrograph_samples_committed_total", &[("source", "replayed")]);
    assert_eq!(replayed, events.len() as i128, "{context}: the tally of committed samples");
}

#[test]
fn c1_c2_c4_t4_a_replayable_log_is_counted_exactly_once_whatever_happens() {
    // `SCHEDULES=N cargo test --lib exactly_once` runs more; `SCHEDULE=SEED` runs the one that failed.
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SCHEDULE") {
        return run(seed);
    }
    let schedules = number("SCHEDULES").unwrap_or(SCHEDULES);
    let threads = 2;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..schedules).step_by(threads as usize).for_each(run));
        }
    });
}
