//! C1, C2, C4, T4: whatever happens between its reads, a replayable log is counted exactly once.

use super::export::{check_totals, export};
use super::truth::{Event, TARGETS, by_slice, event, totals};
use super::world::{SECOND, START, Setup, World};
use crate::event::Slice;
use crate::store::tests::script::Rng;
use crate::store::{Snapshot, TierPlan};

/// Schedules of the normal test run.
const SCHEDULES: u64 = 2000;

/// How long the events of a schedule are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    /// 40 s, out of order by up to a minute.
    Short,
    /// Nine hours, out of order by up to three: what is late finds its span paged, rolled up or not.
    Hours,
}

/// Tiers of which the first keeps everything, so that it can be compared slice by slice.
const TIERS: [TierPlan; 2] =
    [TierPlan { resolution: 1, keep: i64::MAX / 4 }, TierPlan { resolution: 6, keep: i64::MAX / 4 }];

/// Events of some partitions, out of order.
fn log(rng: &mut Rng, length: Length) -> Vec<Vec<Event>> {
    let (seconds, late) = if length == Length::Hours { (9 * 3600, 3 * 3600) } else { (40, 60) };
    (0..1 + rng.below(3))
        .map(|partition| {
            let count = 20 + rng.below(100);
            let at = |n: u64, rng: &mut Rng| {
                START + (n * seconds / count) as i64 * SECOND - rng.below(late * SECOND as u64) as i64
            };
            (0..count)
                .map(|n| {
                    let time = at(n, rng);
                    event(rng, time, partition << 48 | n)
                })
                .collect()
        })
        .collect()
}

/// One random schedule of everything that may happen; the seed says which. How many spans were paged.
fn run(seed: u64, length: Length) -> usize {
    let mut rng = Rng(seed);
    let is_long = length == Length::Hours;
    let setup = Setup {
        shards: 1 + rng.below(4) as usize,
        pending: if rng.below(4) == 0 { 600 } else { 64 << 20 },
        keep_ops: rng.below(3) == 0,
        keep: if is_long { 400 * SECOND } else { 3600 * SECOND },
        tiers: if is_long { &TIERS } else { &[] },
        has_worker: is_long && rng.below(3) == 0,
        ..Setup::default()
    };
    let partitions = log(&mut rng, length);
    let step = if is_long { 400 * SECOND } else { 6 * SECOND };
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
            30..34 => world.clock.advance(rng.below(if is_long { 1500 * SECOND as u64 } else { 700_000_000 }) as i64),
            34 => world.clock.advance(rng.below(step as u64) as i64),
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
    if is_long {
        work(&mut world);
    }
    check(&mut world, &format!("seed {seed}, {setup:?}"));
    // A recovery shows the same as what ran.
    let shards = 1 + rng.below(4) as usize;
    world.kill(shards);
    world.turn_all();
    check(&mut world, &format!("seed {seed} after a restart, {setup:?}"));
    let spans = |snapshot: &Snapshot<'_>| snapshot.page_spans(1, Slice(0)..Slice(u32::MAX));
    world.process().actor.store().ledger().reader().snapshot(spans).expect("readable").len()
}

/// Turns until background work is done, all events being past.
fn work(world: &mut World) {
    world.clock.advance(10 * 3600 * SECOND);
    for _ in 0..400 {
        let now = world.now();
        world.process().lines(0, "hits:1|c\n", now);
        world.turn_all();
        world.clock.advance(SECOND);
        if world.setup.has_worker {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    world.clock.advance(SECOND);
    world.turn_all();
    world.turn_all();
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
        run(seed, Length::Short);
        return;
    }
    let schedules = number("SCHEDULES").unwrap_or(SCHEDULES);
    let threads = 2;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                (thread..schedules).step_by(threads as usize).for_each(|seed| {
                    run(seed, Length::Short);
                })
            });
        }
    });
}

#[test]
fn c1_c5_t4_h1_a_log_of_hours_is_paged_and_counted_exactly_once_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SCHEDULE") {
        run(seed, Length::Hours);
        return;
    }
    let schedules = number("SCHEDULES").unwrap_or(SCHEDULES) / 40;
    let paged: usize = (0..schedules).map(|seed| run(seed, Length::Hours)).sum();
    assert!(paged as u64 > schedules, "{paged} spans in {schedules} schedules");
}

#[test]
fn h4_c5_past_max_size_the_oldest_goes_first_and_totals_are_base_and_history() {
    let mut rng = Rng(77);
    // The least that shows it; a plan has at least 16 MiB.
    let setup = Setup { keep: 400 * SECOND, tiers: &TIERS, max_size: 72_000, ..Setup::default() };
    let partitions = log(&mut rng, Length::Hours);
    let mut world = World::new(setup, partitions);
    for _ in 0..100 {
        for partition in 0..world.partitions.len() {
            world.read(partition, 3, 0);
        }
        world.turn_all();
        world.clock.advance(300 * SECOND);
    }
    world.settle(&mut rng);
    work(&mut world);
    let events: Vec<Event> = world.partitions.iter().flatten().copied().collect();
    let process = world.process();
    check_totals(&process.view, &totals(events.iter()), "shed");
    let status = process.store.status();
    let shed: u64 = status.shed.iter().map(|(_, count)| count).sum();
    assert!(shed > 0 && status.used_bytes < 72_000, "{:?}, {} bytes", status.shed, status.used_bytes);
    let ledger = process.actor.store().ledger();
    assert!(!ledger.base().expect("readable").is_empty());
    let counted: i128 = {
        let sums = ledger.sums().expect("readable");
        let mut ids = Vec::new();
        ledger.all_series(|def| ids.extend((*def.name == *"hits_total").then_some(def.id))).expect("readable");
        ids.iter().filter_map(|id| sums.get(id)).map(|sums| sums.sum).sum()
    };
    assert_eq!(counted / 1_000_000_000, process.sum("hits_total", &[]), "C5: totals are base and history");
}
