//! The crate's own calls, on real threads: every call that returned before a read is in it, to the unit.

use crate::pipeline::paths::Environment;
use crate::pipeline::{Pipeline, ReadError};
use crate::source::inproc::TimedExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TEXT: &str = r#"
name = "handles"
[store]
path = ":memory:"
max_size = "64MiB"
commit_every = "100ms"
[sources.internal]
type = "internal"
[metrics.sized_bytes]
type = "histogram"
help = "Sizes"
labels = ["k"]
buckets = [1003, 50021]
"#;

fn pipeline() -> Pipeline {
    let environment = Environment::fixed([], 1000, |_| false);
    Pipeline::builder().environment(environment).text(TEXT).start().expect("starts")
}

fn committed(pipeline: &Pipeline) -> (u64, u64, u64) {
    let tallies = pipeline.tallies();
    let tally = &tallies.iter().find(|(name, _)| name == "process").expect("the source of handles").1;
    assert_eq!(tally.inputs, tally.events + tally.rejected_total());
    assert_eq!(tally.samples_total(), tally.recorded_total() + tally.dropped_total());
    (tally.inputs, tally.recorded_total(), tally.rejected_total())
}

#[test]
fn q5_c6_calls_of_many_threads_are_all_there() {
    const THREADS: u64 = 6;
    const CALLS: u64 = 40_000;
    let pipeline = pipeline();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let pipeline = &pipeline;
            scope.spawn(move || {
                let producer = pipeline.producer().expect("it runs");
                let label = (thread % 2).to_string();
                let hits = producer.counter("hits", &[("k", &label)]).expect("valid");
                let took = producer.timing("took", &[]).expect("valid");
                let sized = producer.histogram("sized_bytes", &[("k", &label)]).expect("valid");
                let users = producer.set("users", &[]).expect("valid");
                for n in 0..CALLS {
                    hits.inc();
                    took.observe_nanos(n);
                    if n % 4 == 0 {
                        sized.observe((n % 2006) as f64);
                        hits.add_f64(0.25);
                        users.insert((n % 100).to_le_bytes());
                    }
                    // A read in the middle sees what this thread did before.
                    if n == CALLS / 2 && thread == 0 {
                        assert!(pipeline.stats("took_seconds", &[]).expect("there").samples > CALLS / 2);
                    }
                }
                // The thread ends here: what it wrote is handed over.
            });
        }
    });
    let expected = (CALLS * THREADS) as f64 / 2.0 + (CALLS / 4 * THREADS) as f64 * 0.25 / 2.0;
    for label in ["0", "1"] {
        assert_eq!(pipeline.get("hits_total", &[("k", label)]), Ok(expected));
    }
    let stats = pipeline.stats("took_seconds", &[]).expect("there");
    assert_eq!((stats.samples, stats.count), (CALLS * THREADS, u128::from(CALLS * THREADS)));
    let nanos: u64 = (0..CALLS).sum::<u64>() * THREADS;
    assert_eq!(stats.sum, nanos as f64 / 1e9);
    assert_eq!((stats.min, stats.max), (0.0, (CALLS - 1) as f64 / 1e9));
    assert_eq!(pipeline.get("users", &[]), Ok(25.0));
    // V5: exact buckets, whichever shard saw the samples.
    let exact =
        |bound: u64| (0..CALLS).filter(|n| n % 4 == 0 && n % 2006 <= bound).count() as u128 * u128::from(THREADS) / 2;
    for label in ["0", "1"] {
        let buckets = pipeline.stats("sized_bytes", &[("k", label)]).expect("there").buckets;
        assert_eq!(buckets, [(1003.0, exact(1003)), (50021.0, exact(50021))]);
    }
    pipeline.flush().expect("commits");
    let (inputs, recorded, rejected) = committed(&pipeline);
    assert!(inputs == recorded && rejected == 0, "{inputs} {recorded} {rejected}");
    // What comes between the last read and the stop is there too.
    let late = pipeline.counter("late", &[]).expect("valid");
    late.add(41);
    late.inc();
    let report = pipeline.stop(Duration::from_secs(20));
    assert!(report.is_complete, "{report:?}");
    let view = pipeline.view();
    let metric = view.metric("late_total").expect("committed by the stop");
    let (family, _) = view.series_since(&metric, u64::MAX, 0);
    let value = view.value(&metric, family.series[0].0).expect("there");
    assert_eq!(crate::pipeline::as_number(&value), 42.0);
}

#[test]
fn a_call_after_the_stop_neither_blocks_nor_fails() {
    let pipeline = pipeline();
    let took = pipeline.timing("took", &[]).expect("valid");
    let hits = pipeline.counter("hits", &[]).expect("valid");
    took.observe(0.1);
    assert!(pipeline.stop(Duration::from_secs(20)).is_complete);
    // More than any ring holds.
    for n in 0..200_000 {
        took.observe_nanos(n);
        hits.inc();
    }
    let ended = std::thread::Builder::new().spawn(move || (0..200_000).for_each(|n| took.observe_nanos(n)));
    let ended = ended.expect("a thread").join();
    assert!(ended.is_ok());
    assert_eq!(pipeline.flush(), Err(ReadError::NotCommitted));
    assert!(pipeline.counter("new", &[]).is_err() || pipeline.get("hits_total", &[]).is_err());
}

#[test]
fn q5_a_read_sees_each_call_before_it() {
    let pipeline = pipeline();
    let gauge = pipeline.gauge("depth", &[]).expect("valid");
    let hits = pipeline.counter("hits", &[]).expect("valid");
    for n in 1..15 {
        gauge.set(f64::from(n) * 10.0);
        gauge.inc(3.0);
        gauge.dec(1.0);
        hits.add(2);
        assert_eq!(pipeline.get("depth", &[]), Ok(f64::from(n) * 10.0 + 2.0));
        assert_eq!(pipeline.get("hits_total", &[]), Ok(f64::from(n) * 2.0));
    }
    assert_eq!(pipeline.get("nothing", &[]), Err(ReadError::Unknown));
    assert_eq!(pipeline.stats("depth", &[]), Err(ReadError::OtherType));
}

#[test]
fn v1_calls_that_cannot_be_kept_are_refused_and_counted() {
    let pipeline = pipeline();
    let hits = pipeline.counter("hits", &[]).expect("valid");
    let took = pipeline.timing("took", &[]).expect("valid");
    let depth = pipeline.gauge("depth", &[]).expect("valid");
    hits.inc();
    hits.add(u64::MAX);
    hits.add_f64(f64::NAN);
    hits.add_f64(-1.0);
    hits.add_f64(2e18);
    took.observe(f64::INFINITY);
    took.observe(-0.5);
    depth.set(f64::NAN);
    depth.inc(1e19);
    assert_eq!(pipeline.get("hits_total", &[]), Ok(1.0));
    assert_eq!(pipeline.get("took_seconds", &[]), Err(ReadError::Unknown));
    let (inputs, recorded, rejected) = committed(&pipeline);
    assert_eq!((inputs, recorded, rejected), (9, 1, 8));
}

#[test]
fn v2_sampled_calls_stand_for_all() {
    let pipeline = pipeline();
    let took = pipeline.timing("took", &[]).expect("valid");
    assert!(took.sampled(0.0).is_err() && took.sampled(1.5).is_err() && took.sampled(f64::NAN).is_err());
    let one = took.sampled(1.0).expect("a rate");
    let few = took.sampled(1.0 / 1024.0).expect("a rate");
    (0..100).for_each(|_| one.observe(0.5));
    (0..300_000).for_each(|_| few.observe(0.5));
    let stats = pipeline.stats("took_seconds", &[]).expect("there");
    let sampled = stats.samples - 100;
    assert!((150..450).contains(&sampled), "{sampled} of 300,000 at 1/1024");
    assert_eq!(stats.count, u128::from(100 + sampled * 1024), "each stands for 1,024, to the unit");
    assert_eq!(stats.sum, stats.count as f64 * 0.5);
}

#[test]
fn timers_record_however_they_end() {
    let pipeline = pipeline();
    let took = pipeline.timing("took", &[]).expect("valid");
    drop(took.start_timer());
    took.start_timer().discard();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _timer = took.start_timer();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    // Started here, dropped there.
    let timer = took.start_timer();
    std::thread::Builder::new().spawn(move || drop(timer)).expect("a thread").join().expect("it ends");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        async { 5 }.timed(&took).await;
        // Cancelled in its middle; one that was never polled took no time.
        let slow = tokio::time::sleep(Duration::from_secs(60)).timed(&took);
        assert!(tokio::time::timeout(Duration::from_millis(5), slow).await.is_err());
        drop(async {}.timed(&took));
    });
    let local = pipeline.producer().expect("it runs");
    let mine = local.timing("took", &[]).expect("valid");
    drop(mine.start_timer());
    mine.start_timer().discard();
    let stats = pipeline.stats("took_seconds", &[]).expect("there");
    assert_eq!(stats.samples, 6);
    assert!(stats.max >= 0.005, "the cancelled future took its time: {}", stats.max);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a task of the test's own runtime")]
fn every_waiting_call_has_a_twin_for_runtimes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let environment = Environment::fixed([], 1000, |_| false);
    runtime.block_on(async {
        let pipeline = Pipeline::builder().environment(environment).text(TEXT).start_async().await.expect("starts");
        let ticked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ticked);
        // The runtime's only thread goes on while a read waits for its commit.
        let beside = tokio::task::spawn(async move { flag.store(true, Ordering::Release) });
        let hits = pipeline.counter("hits", &[]).expect("valid");
        let took = pipeline.timing("took", &[]).expect("valid");
        hits.add(5);
        (1..=100).for_each(|n| took.observe_nanos(n * 1_000_000));
        // One read may be answered before it is waited for; of many at least one is not.
        for _ in 0..100 {
            assert_eq!(pipeline.get_async("hits_total", &[]).await, Ok(5.0));
            if ticked.load(Ordering::Acquire) {
                break;
            }
        }
        assert!(ticked.load(Ordering::Acquire), "nothing was held up");
        beside.await.expect("it ends");
        let median = pipeline.quantile_async("took_seconds", &[], 0.5).await.expect("there");
        assert!((median.value - 0.05).abs() <= 0.05 * median.bound, "{median:?}");
        assert_eq!(pipeline.stats_async("took_seconds", &[]).await.expect("there").samples, 100);
        assert!(pipeline.flush_async().await.expect("commits").0 > 0);
        assert!(pipeline.stop_async(Duration::from_secs(20)).await.is_complete);
    });
}

#[test]
fn an_idle_producers_last_samples_are_committed_in_time() {
    // Nobody asks: the store's own tick brings the sample.
    let pipeline = pipeline();
    let hits = pipeline.counter("hits", &[]).expect("valid");
    pipeline.flush().expect("commits");
    hits.inc();
    let began = Duration::from_nanos(pipeline.clock().monotonic() as u64);
    loop {
        let view = pipeline.view();
        if let Some(metric) = view.metric("hits_total") {
            let (family, _) = view.series_since(&metric, u64::MAX, 0);
            if !family.series.is_empty() {
                break;
            }
        }
        let waited = Duration::from_nanos(pipeline.clock().monotonic() as u64) - began;
        assert!(waited < Duration::from_secs(5), "not committed after {waited:?}");
        std::thread::yield_now();
    }
}
