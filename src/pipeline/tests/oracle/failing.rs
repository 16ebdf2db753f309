//! The store's thread when things go wrong or slow: disks, shards, limits, clocks.

use super::world::{LIVE, SECOND, START, Setup, World};
use crate::event::{LabelsBuilder, RejectReason, Timestamp};
use crate::store::tests::script::Rng;
use crate::view::Value;
use std::sync::mpsc;
use std::time::Duration;

pub(super) fn live(setup: Setup) -> World {
    World::new(setup, Vec::new())
}

/// Turns until what was said before is committed: two ticks.
pub(super) fn commit(world: &mut World) {
    for _ in 0..2 {
        world.clock.advance(SECOND + 1_000_000);
        world.turn_all();
    }
}

/// Lines at the present moment, each a microsecond after the last.
pub(super) fn say(world: &mut World, shard: usize, lines: &str) {
    for line in lines.lines() {
        world.clock.advance(1_000);
        let now = world.now();
        world.process().lines(shard, line, now);
    }
}

pub(super) fn gauge(world: &mut World, name: &str) -> Option<f64> {
    let view = &world.process().view;
    let metric = view.metric(name)?;
    let id = view.id_of(&metric, &LabelsBuilder::new().build().expect("none"))?;
    match view.value(&metric, id)? {
        Value::Gauge(value) => value.last,
        other => panic!("{name} is {other:?}"),
    }
}

pub(super) fn set_failing(world: &World, is_failing: bool) {
    let mut inner = world.disk.0.lock().expect("unpoisoned");
    inner.fail_at = is_failing.then_some(inner.calls + 1);
    inner.fail_for = u64::MAX / 2;
    inner.fail_kind = Some(std::io::ErrorKind::StorageFull);
}

#[test]
fn c4_a_disk_that_fails_for_a_while_stops_nothing_and_loses_what_it_says() {
    let mut world = live(Setup { pending: 600, ..Setup::default() });
    let mut sent = 0;
    for n in 0..300 {
        if n == 20 {
            set_failing(&world, true);
        }
        if n == 200 {
            let status = world.process().store.status();
            assert!(!status.is_up && status.error.is_some() && !status.is_fatal, "{status:?}");
            assert!(!status.has_room && status.pending_bytes < 600 + 3000, "{status:?}");
            set_failing(&world, false);
        }
        let now = world.now();
        for shard in 0..2 {
            world.process().lines(shard, &format!("hits:1|c\nhits:1|c|#k:{}\nlat:{n}|ms\n", n % 50), now);
            sent += 2;
        }
        world.clock.advance(500_000_000);
        world.turn_all();
    }
    commit(&mut world);
    let process = world.process();
    let status = process.store.status();
    assert!(status.is_up && status.error.is_none() && status.pending_bytes == 0 && status.has_room, "{status:?}");
    process.check_laws("after the disk came back");
    let kept = process.sum("hits_total", &[]);
    let dropped = process.sum("hydrograph_dropped_total", &[("edge", "store"), ("reason", "pending")]);
    let samples = process.sum("hydrograph_samples_total", &[("source", "live")]);
    assert_eq!(samples, i128::from(sent) / 2 * 3, "every sample is counted");
    assert!(dropped > 0 && kept < i128::from(sent), "{dropped} dropped, {kept} kept");
    world.kill(2);
    world.turn_all();
    let process = world.process();
    process.check_laws("after a restart");
    assert_eq!(process.sum("hits_total", &[]), kept);
}

#[test]
fn c4_a_short_failure_loses_nothing() {
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let mut world = live(Setup::default());
        let mut sent = 0;
        for _ in 0..40 {
            if rng.below(6) == 0 {
                let mut inner = world.disk.0.lock().expect("unpoisoned");
                inner.fail_at = Some(inner.calls + 1 + rng.below(40));
                inner.fail_for = 1 + rng.below(30);
            }
            say(&mut world, rng.below(2) as usize, "hits:1|c\nhits:2|c\n");
            sent += 2;
            world.clock.advance(rng.below(900_000_000) as i64);
            world.turn_all();
        }
        world.settle(&mut rng);
        let process = world.process();
        assert_eq!(process.sum("hits_total", &[]), sent / 2 * 3, "seed {seed}");
        let committed = process.sum("hydrograph_samples_committed_total", &[("source", "live")]);
        assert_eq!(committed, sent, "seed {seed}");
    }
}

#[test]
fn s2_c4_ids_that_cannot_be_read_hold_samples_back_and_lose_none() {
    let mut world = live(Setup { idle: Some(70 * SECOND), ..Setup::default() });
    say(&mut world, 0, "hits:1|c|#k:gone\n");
    commit(&mut world);
    let before = world.process().table.lock().live();
    for _ in 0..200 {
        say(&mut world, 0, "hits:1|c\n");
        world.clock.advance(SECOND);
        world.turn_all();
    }
    assert!(world.process().table.lock().live() < before + 1, "the idle series has left");
    set_failing(&world, true);
    for n in 0..20 {
        say(&mut world, n % 2, &format!("hits:1|c|#k:gone\nhits:1|c|#k:new{n}\nhits:1|c\n"));
        world.clock.advance(SECOND);
        world.turn_all();
    }
    set_failing(&world, false);
    for _ in 0..20 {
        world.clock.advance(SECOND);
        world.turn_all();
    }
    let process = world.process();
    process.check_laws("behind the failure");
    assert_eq!(process.sum("hits_total", &[]), 1 + 200 + 60);
    assert_eq!(process.sum("hits_total", &[("k", "gone")]), 21, "S2: it resumes its total");
}

#[test]
fn s2_series_that_leave_and_return_resume_their_totals() {
    for seed in 0..3 {
        let mut rng = Rng(seed);
        let mut world = live(Setup { idle: Some(30 * SECOND), series: 100_000, ..Setup::default() });
        // Several blocks of totals, so that most of them are stale when a series leaves.
        let mut truth = std::collections::BTreeMap::<u64, i128>::new();
        let mut left = false;
        let mut most = 0;
        for round in 0..260u64 {
            let mut lines = String::new();
            let width = if round == 0 { 5000 } else { 20 };
            for n in 0..width {
                let key = if round == 0 { n } else { rng.below(5000) };
                if round < 3 || round % 100 > 95 {
                    lines += &format!("hits:1:1:1|c|#k:{key}\n");
                    *truth.entry(key).or_default() += 3;
                }
            }
            let now = world.now();
            world.process().lines((round % 2) as usize, &lines, now);
            world.clock.advance(SECOND);
            world.turn_all();
            let live = world.process().table.lock().live();
            most = most.max(live);
            left |= live + 4000 < most;
            if rng.below(90) == 0 {
                world.kill(2);
            }
        }
        commit(&mut world);
        assert!(left, "seed {seed}: series have left memory");
        let lines: String = truth.keys().map(|key| format!("hits:1|c|#k:{key}\n")).collect();
        let now = world.now();
        world.process().lines(0, &lines, now);
        commit(&mut world);
        for (key, sum) in &truth {
            let found = world.process().sum("hits_total", &[("k", &key.to_string())]);
            // What was said right before a kill may be gone; nothing may be counted twice.
            assert!(found <= sum + 1 && found > 0, "seed {seed}: {key} is {found}, not {sum} + 1");
        }
        let total = world.process().sum("hits_total", &[]);
        world.process().check_laws("series came back");
        world.kill(1);
        world.turn_all();
        // All of them fit, so the sum over the metric is in memory again.
        assert_eq!(world.process().sum("hits_total", &[]), total, "seed {seed}: a restart shows the same");
        world.process().check_laws("after the last restart");
    }
}

#[test]
fn c6_s3_the_laws_hold_when_every_limit_is_reached() {
    let mut world = live(Setup { series: 4, ..Setup::default() });
    let mut sent = 0i128;
    for n in 0..60 {
        let lines = format!(
            "hits:1|c|#k:{n}\ng:1|g|#k:{n}\nlat:{n}|ms|#k:{n}\nusers:x|s|#k:{n}\nbad\nhits:-1|c\nold:1|c|T5\nnew:1|g|T99999999999\n"
        );
        let now = world.now();
        world.process().lines(n % 2, &lines, now);
        sent += 1;
        world.clock.advance(400_000_000);
        world.turn_all();
        world.process().check_laws(&format!("round {n}"));
    }
    commit(&mut world);
    let process = world.process();
    process.check_laws("at the end");
    assert_eq!(process.sum("hits_total", &[]), sent, "S3: Σ is exact past the limit");
    assert!(process.sum("hydrograph_dropped_total", &[("reason", "series_limit")]) > 0);
    assert_eq!(process.sum("hydrograph_dropped_total", &[("reason", "too_late")]), sent);
    assert_eq!(process.sum("hydrograph_dropped_total", &[("reason", "too_early")]), sent);
    assert_eq!(process.sum("hydrograph_rejected_total", &[("source", "live")]), 2 * sent);
    world.kill(2);
    world.turn_all();
    world.process().check_laws("after a restart past the limit");
    for n in 0..10 {
        say(&mut world, 0, &format!("hits:1|c|#k:{n}\n"));
        commit(&mut world);
    }
    world.process().check_laws("and on");
    assert_eq!(world.process().sum("hits_total", &[]), sent + 10, "S2, S3: overflow resumes its total");
}

#[test]
fn v6_relative_operations_compose_with_sets_in_their_order() {
    for seed in 0..150 {
        let mut rng = Rng(seed);
        let mut world = live(Setup::default());
        let mut expected = 1.0;
        say(&mut world, 0, "g:1|g\n");
        for step in 0..80 {
            let shard = rng.below(2) as usize;
            match rng.below(10) {
                0..4 => {
                    let by = rng.below(20) as f64 - 10.0;
                    expected += by;
                    say(&mut world, shard, &format!("g:{by:+}|g\n"));
                }
                4..6 => {
                    expected = rng.below(100) as f64;
                    say(&mut world, shard, &format!("g:{expected}|g\n"));
                }
                // An older set never hides a newer one, whatever moved it since.
                6 => {
                    let old = world.clock_seconds() - 200;
                    say(&mut world, shard, &format!("g:777|g|T{old}\n"));
                }
                7 => {
                    let mut inner = world.disk.0.lock().expect("unpoisoned");
                    inner.fail_at = Some(inner.calls + 1 + rng.below(30));
                    inner.fail_for = 1 + rng.below(15);
                }
                8 => world.clock.advance(rng.below(3 * SECOND as u64) as i64),
                _ => world.clock.advance(8 * SECOND),
            }
            // Shards seal in the order in which their lines came: across shards only that order is defined.
            let now = world.now();
            let process = world.process();
            process.actor.tick_now();
            process.turn(shard, now);
            process.turn(1 - shard, now);
            process.actor.step();
            if rng.below(3) == 0 {
                world.turn_all();
            }
            if step % 20 == 19 {
                world.settle(&mut rng);
                let found = gauge(&mut world, "g");
                assert_eq!(found.unwrap_or(0.0), expected, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn v6_a_set_in_one_shard_is_moved_by_another_in_the_same_commit() {
    let mut world = live(Setup::default());
    say(&mut world, 0, "g:10|g\n");
    say(&mut world, 1, "g:+5|g\n");
    commit(&mut world);
    assert_eq!(gauge(&mut world, "g"), Some(15.0));
    // A set that lies ahead of the clock is still moved by what comes later.
    let ahead = world.clock_seconds() + 300;
    say(&mut world, 0, &format!("g:100|g|T{ahead}\ng:+1|g\n"));
    commit(&mut world);
    assert_eq!(gauge(&mut world, "g"), Some(101.0));
    // Across the roll of a slice, in one combiner.
    world.clock.advance(20 * SECOND);
    say(&mut world, 0, "h:10|g\n");
    world.clock.advance(10 * SECOND);
    say(&mut world, 0, "h:20|g\nh:+5|g\n");
    commit(&mut world);
    assert_eq!(gauge(&mut world, "h"), Some(25.0));
}

#[test]
fn v1_v6_operations_out_of_range_are_refused_and_counted() {
    let mut world = live(Setup::default());
    say(&mut world, 0, "a:999999999999999999|g\nb:999999999999999999|g\nc:1|g\n");
    commit(&mut world);
    say(&mut world, 0, "a:+900000000000000000|g\nb:+900000000000000000|g\nc:+1|g\n");
    say(&mut world, 1, "a:+1|g\n");
    commit(&mut world);
    let process = world.process();
    process.check_laws("past the range");
    assert_eq!(process.sum("hydrograph_dropped_total", &[("edge", "store"), ("reason", "out_of_range")]), 2);
    assert_eq!(gauge(&mut world, "c"), Some(2.0));
}

#[test]
fn q5_a_flush_waits_for_a_slow_shard() {
    let mut world = live(Setup::default());
    commit(&mut world);
    say(&mut world, 0, "hits:1|c\n");
    let (reply, answer) = mpsc::sync_channel(1);
    world.process().store.flush(Box::new(move |commit| reply.send(commit).expect("waited for")));
    // The first shard does not turn; the second one has nothing to say.
    for _ in 0..12 {
        let now = world.now();
        world.process().actor.step();
        world.process().turn(1, now);
        world.process().actor.step();
        world.clock.advance(300_000_000);
        assert!(answer.try_recv().is_err(), "a flush is not answered before every shard");
    }
    for _ in 0..6 {
        world.turn_all();
        world.clock.advance(300_000_000);
    }
    assert!(answer.try_recv().expect("answered").is_some());
    assert_eq!(world.process().sum("hits_total", &[]), 1);
}

#[test]
fn k7_a_stop_waits_for_a_slow_shard() {
    let mut world = live(Setup::default());
    commit(&mut world);
    say(&mut world, 0, "hits:1|c\n");
    let (reply, answer) = mpsc::sync_channel(1);
    let stopped = Box::new(move |commit| reply.send(commit).expect("waited for"));
    world.process().store.stop(Duration::from_secs(10), stopped);
    for _ in 0..8 {
        let now = world.now();
        world.process().actor.step();
        assert!(!world.process().actor.has_ended(), "a shard has not answered");
        world.process().turn(1, now);
        world.clock.advance(300_000_000);
    }
    for _ in 0..4 {
        if !world.process().actor.has_ended() {
            world.turn_all();
            world.clock.advance(300_000_000);
        }
    }
    assert!(world.process().actor.has_ended());
    drop(answer);
    assert_eq!(world.process().sum("hits_total", &[]), 1);
}

#[test]
fn c6_k7_a_stop_without_a_disk_tries_for_its_time_and_says_what_it_did_not_commit() {
    let mut world = live(Setup::default());
    say(&mut world, 0, "hits:1|c\n");
    commit(&mut world);
    let committed = world.process().store.status().tallies;
    set_failing(&world, true);
    say(&mut world, 0, "hits:1|c\nhits:1|c\nbad\n");
    commit(&mut world);
    say(&mut world, 1, "hits:1|c\n");
    let (reply, answer) = mpsc::sync_channel(1);
    let stopped = Box::new(move |commit| reply.send(commit).expect("waited for"));
    world.process().store.stop(Duration::from_secs(30), stopped);
    for tenths in 0..295 {
        world.turn_all();
        assert!(!world.process().actor.has_ended(), "it gave up after {tenths} tenths of a second");
        world.clock.advance(SECOND / 10);
    }
    for _ in 0..20 {
        world.clock.advance(SECOND / 10);
        world.turn_all();
    }
    assert!(world.process().actor.has_ended());
    // What the thread says when it ends.
    let lost = world.process().actor.store().uncommitted();
    let sum = |of: &dyn Fn(&crate::delta::SourceTally) -> u64| lost.iter().map(of).sum::<u64>();
    assert_eq!((sum(&|t| t.inputs), sum(&|t| t.recorded_total()), sum(&|t| t.rejected_total())), (4, 3, 1));
    assert_eq!(world.process().store.status().tallies, committed);
    drop(answer);
}

#[test]
fn k7_c4_a_stop_commits_everything_when_the_disk_has_room_in_time() {
    let mut world = live(Setup::default());
    commit(&mut world);
    set_failing(&world, true);
    say(&mut world, 0, "hits:1|c\nhits:1|c\n");
    for _ in 0..30 {
        commit(&mut world);
    }
    let (reply, answer) = mpsc::sync_channel(1);
    let stopped = Box::new(move |commit| reply.send(commit).expect("waited for"));
    world.process().store.stop(Duration::from_secs(30), stopped);
    for _ in 0..100 {
        world.clock.advance(SECOND / 10);
        world.turn_all();
    }
    assert!(!world.process().actor.has_ended());
    set_failing(&world, false);
    for _ in 0..12 {
        world.clock.advance(SECOND / 10);
        world.turn_all();
    }
    assert!(world.process().actor.has_ended(), "a drain looks once a second");
    assert_eq!(world.process().sum("hits_total", &[]), 2);
    assert!(world.process().actor.store().uncommitted().iter().all(crate::delta::SourceTally::is_zero));
    drop(answer);
}

#[test]
fn t3_a_machine_that_slept_has_empty_windows_and_whole_totals() {
    let mut world = live(Setup { keep: 120 * SECOND, ..Setup::default() });
    for _ in 0..30 {
        say(&mut world, 0, "lat:5|ms\nlat:7|ms\n");
        world.clock.advance(SECOND);
        world.turn_all();
    }
    world.clock.advance(7200 * SECOND);
    // What wakes first is a sample: its commit may drop old slices, but none that a window still holds.
    say(&mut world, 0, "hits:1|c\n");
    commit(&mut world);
    let lat = |world: &mut World| {
        let view = &world.process().view;
        let metric = view.metric("lat_seconds").expect("known");
        let id = view.id_of(&metric, &LabelsBuilder::new().build().expect("none")).expect("known");
        match view.value(&metric, id) {
            Some(Value::Distribution(value)) => (value.samples, value.window_samples),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lat(&mut world), (60, 0), "Q2: an empty window");
    say(&mut world, 0, "lat:9|ms\n");
    commit(&mut world);
    assert_eq!(lat(&mut world), (61, 1));
    // And a clock that steps back loses nothing either.
    let back = Timestamp(world.now().0 - 3600 * SECOND);
    world.clock.step_wall(back);
    say(&mut world, 0, "lat:9|ms\n");
    for _ in 0..8 {
        commit(&mut world);
    }
    assert_eq!(lat(&mut world).0, 62);
}

#[test]
fn v4_s2_a_new_series_window_holds_samples_of_slices_before_its_first_commit() {
    let mut world = live(Setup::default());
    commit(&mut world);
    let to_edge = 10 * SECOND - (world.now().0 - START).rem_euclid(10 * SECOND);
    world.clock.advance(to_edge - 10_000_000);
    say(&mut world, 0, "lat:5|ms\n");
    // Its shard is slow: the windows slide before it answers, and its commit comes later still.
    world.clock.advance(20_000_000);
    for _ in 0..6 {
        world.clock.advance(600_000_000);
        let now = world.now();
        say(&mut world, 1, "hits:1|c\n");
        let process = world.process();
        process.actor.step();
        process.turn(1, now);
        process.actor.step();
    }
    let now = world.now();
    world.process().turn(0, now);
    world.process().actor.step();
    world.clock.advance(SECOND);
    commit(&mut world);
    let process = world.process();
    let metric = process.view.metric("lat_seconds").expect("known");
    let id = process.view.id_of(&metric, &LabelsBuilder::new().build().expect("none")).expect("known");
    let stats = process.view.stats(&metric, id, &[0.5]).expect("known");
    assert_eq!((stats.window_samples, stats.quantiles[0].value), (1, 0.005));
}

#[test]
fn s3_a_line_without_samples_takes_no_place_among_the_series() {
    let mut world = live(Setup::default());
    commit(&mut world);
    let before = world.process().table.lock().live();
    for n in 0..50 {
        say(&mut world, 0, &format!("old:1|c|T5|#k:{n}\nbig:2e18|g|#k:{n}\n"));
    }
    let process = world.process();
    assert_eq!(process.table.lock().live(), before);
    let refused = process.recent.newest(1);
    assert_eq!((refused[0].reason, refused[0].source), (RejectReason::OutOfRange, LIVE));
    assert!(process.rules.metrics().iter().any(|metric| &*metric.name == "old_total"), "the name itself is known");
}
