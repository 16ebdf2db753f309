//! Question: what does a call on a held handle cost the caller's thread, and how many events a second does a
//! process carry from its own calls to a commit?
//!
//! Expected floor: a counter is a load and a store of the thread's own slot (0.25 ns), a timing two stores into a ring
//! (1 ns). Targets: counter 0.6 ns and 15 times faster than metrics-exporter-prometheus' handle, fractional 3 ns;
//! pre-measured timing 2 ns at 10 M/s a producer, 5 ns saturated, 7 times faster than its histogram handle; 150 M
//! events/s at 1,000 series and 80 M at 100,000.
//! Last answer (7 pairs, 2 shared EPYC cores): counter 0.29 ns, 33 times; fractional 1.4 ns; timing 1.5 ns at 10 M/s, 2.3
//! saturated (16 times); end to end 180 [175, 189] M events/s at 1,000 series (10 ns of CPU an event) and 92 [81, 97] M at
//! 100,000 (20 ns). In a busier hour of the same machine 3.0 ns at 10 M/s, and 150 and 72 M events/s.
//!
//! Arguments `calls`, `1000` and `100000` choose parts of it.
//! Method: CPU time of the calling thread, in turn with the peer in the same process (`run_upkeep` inside its measured
//! loop, as its documentation asks for). End to end: CPU of the whole process and wall time, until `flush` returns.

mod common;

use common::world::START;
use common::{Figures, Random, Table, is_quick, method, pairs, process_cpu, thread_cpu, verdict, wall, warm_memory};
use hydrograph::pipeline::Pipeline;
use hydrograph::source::inproc::LocalHistogram;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

fn main() {
    method();
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |part: &str| only.is_empty() || only.iter().any(|wanted| wanted == part);
    if is_wanted("calls") {
        calls();
    }
    for (part, series, target) in [("1000", 1_000, 150.0), ("100000", 100_000, 80.0)] {
        if is_wanted(part) {
            end_to_end(series, target);
        }
    }
}

fn start(directory: &std::path::Path) -> Pipeline {
    let store = directory.join("handles.redb");
    let text = format!("name = \"handles\"\n[store]\npath = \"{}\"\n[limits]\nmemory = \"32GiB\"\n", store.display());
    Pipeline::builder().text(text).start().expect("starts")
}

/// Nanoseconds of this thread a call.
fn per_call(calls: u64, body: impl FnOnce()) -> f64 {
    let before = thread_cpu();
    body();
    (thread_cpu() - before) as f64 / calls as f64
}

fn calls() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipeline = start(directory.path());
    let producer = pipeline.producer().expect("runs");
    let labels = [("region", "eu-west"), ("code", "200")];
    let counter = producer.counter("handled", &labels).expect("a counter");
    let fractional = producer.counter("spent", &labels).expect("a counter");
    let timing = producer.timing("latency", &labels).expect("a timing");

    let recorder = PrometheusBuilder::new().build_recorder();
    let upkeep = recorder.handle();
    let metadata = Metadata::new("bench", Level::INFO, None);
    let key =
        |name: &'static str| Key::from_parts(name, vec![Label::new("region", "eu-west"), Label::new("code", "200")]);
    let their_counter = recorder.register_counter(&key("handled"), &metadata);
    let their_histogram = recorder.register_histogram(&key("latency"), &metadata);

    let mut random = Random(7);
    let values: Vec<u64> = (0..4096).map(|_| random.latency()).collect();
    let seconds: Vec<f64> = values.iter().map(|nanos| *nanos as f64 / 1e9).collect();
    let count: u64 = if is_quick() { 20_000_000 } else { 100_000_000 };
    let mut figures: [Figures; 7] = Default::default();
    for _ in 0..pairs() {
        figures[0].push(per_call(count, || {
            for _ in 0..count {
                black_box(&counter).inc();
            }
        }));
        figures[1].push(per_call(count / 4, || {
            for _ in 0..count / 4 {
                black_box(&their_counter).increment(1);
            }
            upkeep.run_upkeep();
        }));
        figures[2].push(per_call(count / 4, || {
            for n in 0..count / 4 {
                black_box(&fractional).add_f64(seconds[n as usize % 4096]);
            }
        }));
        figures[3].push(paced(&timing, &values, if is_quick() { 300 } else { 1000 }));
        figures[4].push(per_call(count / 4, || {
            for n in 0..count / 4 {
                black_box(&timing).observe_nanos(values[n as usize % 4096]);
            }
        }));
        // Their buckets grow until upkeep drains them; each 100,000 values, as often as 10 ms at 10 M/s.
        figures[5].push(per_call(count / 20, || {
            for n in 0..count / 20 {
                black_box(&their_histogram).record(seconds[n as usize % 4096]);
                if n % 100_000 == 99_999 {
                    upkeep.run_upkeep();
                }
            }
        }));
    }
    let ratio = |theirs: &Figures, ours: &Figures| {
        let mut ratios = Figures::default();
        for (theirs, ours) in theirs.all().iter().zip(ours.all()) {
            ratios.push(theirs / ours);
        }
        ratios
    };
    let table = Table::new(&[
        ("call on a held handle", 30),
        ("ns", 22),
        ("peer ns", 22),
        ("times", 20),
        ("target", 16),
        ("", 8),
    ]);
    let row = |name: &str, ours: &Figures, theirs: Option<&Figures>, target: f64, times: f64| {
        let ratios = theirs.map(|theirs| ratio(theirs, ours));
        let is_reached = ours.median() <= target && ratios.as_ref().is_none_or(|ratios| ratios.median() >= times);
        table.row(&[
            name.to_owned(),
            ours.show(2),
            theirs.map_or_else(String::new, |theirs| theirs.show(1)),
            ratios.map_or_else(String::new, |ratios| ratios.show(1)),
            if times > 0.0 { format!("{target} ns, {times}x") } else { format!("{target} ns") },
            verdict(is_reached),
        ]);
    };
    row("counter, inc", &figures[0], Some(&figures[1]), 0.6, 15.0);
    row("counter, add_f64", &figures[2], None, 3.0, 0.0);
    row("timing, 10 M/s", &figures[3], Some(&figures[5]), 2.0, 7.0);
    row("timing, saturated", &figures[4], Some(&figures[5]), 5.0, 0.0);
    let report = pipeline.stop(Duration::from_secs(20));
    let fed = report.fed();
    println!("samples recorded {}, dropped {}", fed.samples_total(), fed.dropped_total());
}

/// 10,000 values at the beginning of each millisecond; only the calls are measured.
fn paced(timing: &LocalHistogram, values: &[u64], bursts: u64) -> f64 {
    const BURST: usize = 10_000;
    let mut spent = 0;
    let began = wall();
    for burst in 0..bursts {
        let before = thread_cpu();
        for value in values.iter().cycle().take(BURST) {
            black_box(timing).observe_nanos(*value);
        }
        spent += thread_cpu() - before;
        let due = began + (burst as i64 + 1) * 1_000_000;
        let left = due - wall();
        if left > 0 {
            std::thread::sleep(Duration::from_nanos(left as u64));
        }
    }
    spent as f64 / (bursts * BURST as u64) as f64
}

fn end_to_end(series: usize, target: f64) {
    let events: u64 = if is_quick() { 100_000_000 } else { 400_000_000 };
    let (mut rate, mut cpu) = (Figures::default(), Figures::default());
    let mut lost = 0;
    let directory = tempfile::tempdir().expect("a directory");
    let pipeline = start(directory.path());
    let runs = pairs();
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        for number in 0..2u64 {
            let (pipeline, barrier) = (&pipeline, &barrier);
            scope.spawn(move || {
                let producer = pipeline.producer().expect("runs");
                // The caller walks its handles in order; the places behind them lie in another order.
                let mut order: Vec<usize> = (0..series).collect();
                let mut random = Random(START.0 as u64 ^ number);
                random.shuffle(&mut order);
                let handles: Vec<_> = order
                    .iter()
                    .map(|n| producer.timing("latency", &[("host", &format!("web-{n:06}"))]).expect("a timing"))
                    .collect();
                let values: Vec<u64> = (0..8192).map(|_| random.latency()).collect();
                for handle in &handles {
                    handle.observe_nanos(values[0]);
                }
                for _ in 0..runs {
                    barrier.wait();
                    let mut left = events / 2;
                    let mut at = 0;
                    while left > 0 {
                        for handle in handles.iter().take(left as usize) {
                            handle.observe_nanos(values[at % values.len()]);
                            at += 1;
                        }
                        left -= left.min(handles.len() as u64);
                    }
                    barrier.wait();
                }
            });
        }
        for _ in 0..runs {
            warm_memory();
            pipeline.flush().expect("commits");
            let (began, spent) = (wall(), process_cpu());
            barrier.wait();
            barrier.wait();
            pipeline.flush().expect("commits");
            rate.push(events as f64 / (wall() - began) as f64 * 1e3);
            cpu.push((process_cpu() - spent) as f64 / events as f64);
        }
    });
    let report = pipeline.stop(Duration::from_secs(20));
    let fed = report.fed();
    lost += fed.dropped_total() + fed.rejected.iter().sum::<u64>();
    println!(
        "end to end, 2 producers, {series} series: {} M events/s; CPU {} ns an event, producers included; {} recorded, {lost} lost; \
         target {target} M: {}",
        rate.show(0),
        cpu.show(2),
        fed.samples_total(),
        verdict(rate.median() >= target && lost == 0)
    );
}
