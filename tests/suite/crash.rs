//! `kill -9` under full load: what a scrape has shown is never taken back, and what is kept of each writer is a prefix.

use crate::harness::exposition::Series;
use crate::harness::{Home, Pipeline, Scrape, wait};
use crate::load::{Kept, Target, Writer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Cumulative series must stand at or above every value that any scrape has shown.
#[derive(Default)]
struct Shown(BTreeMap<Series, f64>);

impl Shown {
    fn check(&mut self, scrape: &Scrape, when: &str) {
        let now: BTreeMap<&Series, f64> = scrape.cumulative().collect();
        for (series, shown) in &self.0 {
            let value = now.get(series).copied();
            assert!(value.is_some_and(|v| v >= *shown), "{when}: {series:?} went from {shown} to {value:?}");
        }
        self.0 = now.into_iter().map(|(s, v)| (s.clone(), v)).collect();
    }
}

/// Creation times as OpenMetrics shows them.
fn created(server: &crate::harness::Server, writer: &str) -> Option<String> {
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let response = server.get_with("/metrics", &accept);
    let name = format!("{writer}_k_created ");
    response.text().lines().find_map(|l| l.strip_prefix(&name).map(str::to_owned))
}

/// Where the writers' sockets belong to one thread, what is kept of each writer is a prefix besides.
#[test]
fn kill_9_under_full_load_never_takes_back_what_was_shown() {
    kill_9(wait::knob("HYDROGRAPH_KILLS", 100), "fused");
}

/// The same with readers on threads of their own, which deal their buffers out to all shards; a tenth of the kills.
#[test]
fn kill_9_with_split_readers_never_takes_back_what_was_shown() {
    kill_9(wait::knob("HYDROGRAPH_KILLS", 100).div_ceil(10), "split");
}

fn kill_9(kills: u64, threads: &str) {
    let seed = wait::knob("HYDROGRAPH_SEED", 1);
    let mut dice = wait::Dice::new(seed);
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.http_keys = "created = true".to_owned();
    pipeline.source = format!("threads = \"{threads}\"\n");
    let mut writers = [
        Writer::new("gram", Target::Gram(home.socket("dsd.socket"))),
        Writer::new("framed", Target::Framed(home.socket("dsd-stream.socket"))),
        Writer::new("lines", Target::Lines(home.socket("dsd-stream.socket"))),
        Writer::new("tcp", Target::Tcp(pipeline.tcp)),
        Writer::new("udp", Target::Udp(pipeline.udp)),
    ];
    let mut shown = Shown::default();
    let mut before = [Kept::default(); 5];
    let mut first = [0; 5];
    let mut births: BTreeMap<&str, String> = BTreeMap::new();
    let mut processes: Vec<f64> = Vec::new();

    for round in 0..=kills {
        let server = pipeline.start(&home);
        let when = format!("seed {seed}, after kill {round}");
        let scrape = server.await_laws(None);
        shown.check(&scrape, &when);
        processes.push(scrape.value("process_start_time_seconds", &[]).expect("the process says when it began"));
        for (at, writer) in writers.iter().enumerate() {
            let kept = Kept::of(writer.name, &scrape);
            // A datagram over UDP may be lost before it is received; everything else blocks its writer instead.
            if writer.name != "udp" && threads == "fused" {
                let prefix = kept.is_prefix_after(before[at], first[at]);
                prefix.unwrap_or_else(|e| panic!("{when}, {}: {e}", writer.name));
            }
            assert!(kept.mark >= before[at].mark && kept.mark <= writer.mark, "{when}, {}: {kept:?}", writer.name);
            if let Some(birth) = created(&server, writer.name) {
                let known = births.entry(writer.name).or_insert_with(|| birth.clone());
                assert_eq!(*known, birth, "{when}: {} has a new creation time", writer.name);
            }
            before[at] = kept;
            first[at] = writer.mark;
        }
        if round == kills {
            break;
        }

        let stop = AtomicBool::new(false);
        let pause = Duration::from_millis(40 + dice.below(360) as u64);
        std::thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.run(|| stop.load(Ordering::Relaxed)));
            }
            wait::load_for(pause / 2);
            for _ in 0..1 + dice.below(3) {
                let scrape = server.scrape();
                shown.check(&scrape, &format!("seed {seed}, under load {round}"));
            }
            wait::load_for(pause / 2);
            let end = server.kill();
            assert!(!end.stderr.contains("panicked"), "{}", end.stderr);
            stop.store(true, Ordering::Relaxed);
        });
    }
    assert!(births.len() == writers.len(), "creation times were shown for {births:?} only");
    assert!(processes.windows(2).all(|w| w[0] <= w[1]) && processes.first() < processes.last());
    let total: u64 = before.iter().map(|k| k.increments).sum();
    assert!(total > kills * 100, "hardly any load was committed: {before:?}");
}

/// Input that is older than `commit_every` plus one commit survives a kill whole, not only as a prefix.
#[test]
fn what_was_received_before_the_newest_shown_commit_is_all_there() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    for round in 1..=10u64 {
        let server = pipeline.start(&home);
        let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
        for _ in 0..500 {
            client.send(b"kept:1|c\nkept.took:3|ms\n").expect("the stream takes a frame");
        }
        client.send(format!("barrier:{round}|g\n").as_bytes()).expect("the stream takes a frame");
        server.await_value("barrier", &[], round as f64);
        server.kill();
        let server = pipeline.start(&home);
        let scrape = server.await_laws(Some(1001 * round));
        assert_eq!(scrape.value("kept_total", &[]), Some(500.0 * round as f64));
        assert_eq!(scrape.value("kept_took_seconds_count", &[]), Some(500.0 * round as f64));
        assert_eq!(scrape.value("kept_took_seconds_sum", &[]), Some(1.5 * round as f64));
        assert_eq!(scrape.value("barrier", &[]), Some(round as f64));
        server.kill();
    }
}
