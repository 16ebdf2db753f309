//! Typed events of 64 threads in the process: every one is there, to the unit, and the laws hold.
//!
//! `HYDROGRAPH_EVENTS=1000000` makes it 64 million.

use crate::harness::wait;
use hydrograph::Pipeline;
use std::time::Duration;

const TEXT: &str = r#"
name = "producers"
[store]
path = ":memory:"
max_size = "64MiB"
commit_every = "100ms"

[events.generation]
fields = { model = "string", took = "milliseconds", ok = "bool", tokens = "int?" }
derive = { status = { field = "ok", map = { true = "success", false = "error" } } }

[metrics.generations_total]
type = "counter"
help = "Generations"
from = { event = "generation", labels = ["model", "status"] }
[metrics.tokens_total]
type = "counter"
help = "Tokens"
from = { event = "generation", value = "tokens", labels = ["model"] }
[metrics.generation_seconds]
type = "histogram"
help = "Durations"
buckets = [0.01, 0.1]
from = { event = "generation", value = "took", labels = ["model"], when = "ok" }
[metrics.last_tokens]
type = "gauge"
help = "Tokens of the last generation"
from = { event = "generation", value = "tokens" }
"#;

const THREADS: u64 = 64;
const MODELS: u64 = 5;

#[test]
fn c6_events_of_64_producers_are_all_there() {
    let events = wait::knob("HYDROGRAPH_EVENTS", 3_000);
    let pipeline = Pipeline::builder().text(TEXT).start().expect("starts");
    let generation = pipeline.event("generation").expect("declared");
    let began = wait::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let generation = &generation;
            scope.spawn(move || {
                let model = format!("m{}", thread % MODELS);
                for n in 0..events {
                    let event = generation.field("model", &model).field("took", n as f64 / 8.0).field("ok", n % 3 != 0);
                    let event = if n % 2 == 0 { event.field("tokens", n) } else { event.field("tokens", None::<u64>) };
                    event.emit().expect("accepted");
                }
            });
        }
    });
    pipeline.flush().expect("commits");
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{} events of {THREADS} threads in {seconds:.1} s until committed", THREADS * events);
    let successes = (0..events).filter(|n| n % 3 != 0).count() as u64;
    let tokens: u64 = (0..events).step_by(2).sum();
    // An eighth of a millisecond is 125,000 units of a nanosecond: the sum is exact.
    let nanos: u64 = (0..events).filter(|n| n % 3 != 0).map(|n| n * 125_000).sum();
    let below = |millis: u64| u128::from((0..events).filter(|n| n % 3 != 0 && *n <= millis * 8).count() as u64);
    for model in 0..MODELS {
        let threads = (0..THREADS).filter(|thread| thread % MODELS == model).count() as u64;
        let name = format!("m{model}");
        let get = |metric: &str, labels: &[(&str, &str)]| pipeline.get(metric, labels).expect("it exists");
        let by_status = |status| get("generations_total", &[("model", &name), ("status", status)]);
        assert_eq!(by_status("success"), (threads * successes) as f64);
        assert_eq!(by_status("error"), (threads * (events - successes)) as f64);
        assert_eq!(get("tokens_total", &[("model", &name)]), (threads * tokens) as f64);
        let stats = pipeline.stats("generation_seconds", &[("model", &name)]).expect("it exists");
        assert_eq!((stats.count, stats.samples), (u128::from(threads * successes), threads * successes));
        let expected = (threads * nanos) as f64 / 1e9;
        assert!((stats.sum - expected).abs() <= expected * 2.0 * f64::EPSILON, "{} {expected}", stats.sum);
        let threads = u128::from(threads);
        assert_eq!(stats.buckets, [(0.01, threads * below(10)), (0.1, threads * below(100))]);
    }
    let tallies = pipeline.tallies();
    let tally = &tallies.iter().find(|(name, _)| name == "process").expect("the source of handles").1;
    assert_eq!((tally.inputs, tally.events, tally.rejected_total()), (THREADS * events, THREADS * events, 0));
    assert_eq!((tally.samples_total(), tally.dropped_total()), (tally.recorded_total(), 0));
    // A generation each, its duration where it succeeded, and tokens, of every other, for a counter and a gauge.
    assert_eq!(tally.recorded_total(), THREADS * (events + successes + 2 * events.div_ceil(2)));
    assert!(pipeline.stop(Duration::from_secs(30)).is_complete);
}
