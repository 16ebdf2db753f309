//! Typed events through a whole pipeline: in the process from many threads, as JSON, with pairs; exact to the unit.

use crate::event::{Clock, RejectReason, SystemClock, Timestamp};
use crate::pipeline::Pipeline;
use crate::pipeline::paths::Environment;
use crate::source::inproc::HandleError;
use std::time::Duration;

const TEXT: &str = r#"
name = "events"
[store]
path = ":memory:"
max_size = "64MiB"
commit_every = "100ms"
[sources.internal]
type = "internal"

[events.generation]
fields = { model = "string", took = "milliseconds", ok = "bool", tokens = "int?" }
derive = { status = { field = "ok", map = { true = "success", false = "error" } } }
[events.begin]
fields = { id = "string", user = "string" }
keep = 2
[events.end]
fields = { id = "string" }
[pairs.session]
start = "begin"
end = "end"
key = "id"
timeout = "1h"

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
[metrics.open_sessions]
type = "gauge"
help = "Sessions"
from = { pair = "session", value = "open", labels = ["user"] }
"#;

fn pipeline() -> Pipeline {
    let environment = Environment::fixed([], 1000, |_| false);
    Pipeline::builder().environment(environment).text(TEXT).start().expect("starts")
}

/// Inputs, samples and refusals of the source of in-process events, both laws checked.
fn committed(pipeline: &Pipeline) -> (u64, u64, u64) {
    let tallies = pipeline.tallies();
    let tally = &tallies.iter().find(|(name, _)| name == "process").expect("the source of handles").1;
    assert_eq!(tally.inputs, tally.events + tally.rejected_total());
    assert_eq!(tally.samples_total(), tally.recorded_total() + tally.dropped_total());
    (tally.inputs, tally.recorded_total(), tally.rejected_total())
}

#[test]
fn an_event_that_is_refused_says_why_and_is_counted() {
    let pipeline = pipeline();
    assert_eq!(pipeline.event("generatoin").err(), Some(HandleError::Refused(RejectReason::UnknownEvent)));
    let generation = pipeline.event("generation").expect("declared");
    let check = |result: Result<(), crate::EventError>, reason: RejectReason, words: &str| {
        let error = result.expect_err(words);
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.detail.contains(words) && error.detail.contains("generation"), "{error}");
    };
    let full = || generation.field("model", "m").field("ok", true);
    check(full().emit(), RejectReason::MissingField, "\"took\"");
    check(full().field("took", "fast").emit(), RejectReason::WrongType, "\"took\" is no milliseconds but text");
    check(full().field("took", f64::NAN).emit(), RejectReason::NotFinite, "\"took\"");
    check(full().field("took", -1).emit(), RejectReason::Negative, "\"took\"");
    check(full().field("took", 1).field("took", 2).emit(), RejectReason::DuplicateField, "\"took\"");
    check(full().field("tooks", 1).emit(), RejectReason::ExtraField, "\"tooks\"");
    check(full().field("took", 1).weight(0.5).emit(), RejectReason::BadWeight, "weight");
    full().field("took", Duration::from_millis(1500)).weight(2.0).emit().expect("accepted");
    assert_eq!(pipeline.get("generations_total", &[("model", "m"), ("status", "success")]), Ok(2.0));
    assert_eq!(pipeline.stats("generation_seconds", &[("model", "m")]).expect("it exists").sum, 3.0);
    assert_eq!(committed(&pipeline), (8, 2, 7));
    let newest = pipeline.recent_rejects().newest(1);
    assert_eq!(newest[0].text, r#"{"event":"generation","model":"m","took":1,"ok":true}"#);
    assert_eq!(pipeline.source_names()[usize::from(newest[0].source.0)], "process");
}

#[test]
fn v8_pairs_and_times_of_events_in_the_process_go_the_same_way() {
    let pipeline = pipeline();
    let (begin, end) = (pipeline.event("begin").expect("declared"), pipeline.event("end").expect("declared"));
    for n in 0..10 {
        begin.field("id", &format!("s{n}")).field("user", "ann").emit().expect("accepted");
    }
    for n in 0..4 {
        end.field("id", &format!("s{n}")).emit().expect("accepted");
    }
    assert_eq!(pipeline.get("open_sessions", &[("user", "ann")]), Ok(6.0));
    let generation = pipeline.event("generation").expect("declared");
    let now = SystemClock.wall();
    let old = generation.field("model", "m").field("took", 1).field("ok", false);
    old.time(now.plus_nanos(-60_000_000_000)).emit().expect("accepted");
    let ancient = generation.field("model", "m").field("took", 1).field("ok", false);
    ancient.time(Timestamp(0)).emit().expect("accepted, and dropped as too late");
    assert_eq!(pipeline.get("generations_total", &[("model", "m"), ("status", "error")]), Ok(1.0));
    let tallies = pipeline.tallies();
    let tally = &tallies.iter().find(|(name, _)| name == "process").expect("the source of handles").1;
    assert_eq!((tally.inputs, tally.dropped_total(), tally.late), (16, 1, 1));
}

#[test]
fn json_and_calls_come_to_the_same() {
    let pipeline = pipeline();
    let generation = pipeline.event("generation").expect("declared");
    for n in 0..50 {
        generation.field("model", "a").field("took", n).field("ok", true).field("tokens", n).emit().expect("accepted");
        let line = format!(r#"{{"event":"generation","model":"b","took":{n},"ok":true,"tokens":{n}}}"#);
        pipeline.lines(line.into_bytes()).expect("decoded");
    }
    let stats = |model: &str| pipeline.stats("generation_seconds", &[("model", model)]).expect("it exists");
    let (a, b) = (stats("a"), stats("b"));
    assert_eq!((a.count, a.sum, a.min, a.max), (b.count, b.sum, b.min, b.max));
    assert_eq!(a.buckets, b.buckets);
    assert_eq!(pipeline.get("tokens_total", &[("model", "a")]), pipeline.get("tokens_total", &[("model", "b")]));
    assert_eq!(pipeline.get("last_tokens", &[]), Ok(49.0));
}

/// What a source reads is counted by its codec, understood or refused, and both together are its inputs.
#[test]
fn c6_inputs_are_counted_by_codec() {
    let pipeline = pipeline();
    let lines = concat!(
        "plain:1|c\nplain:2|c\nnonsense\n",
        r#"{"event":"generation","model":"m","took":5,"ok":true}"#,
        "\n",
        r#"{"specversion":"1.0","type":"end","source":"x","id":"1","data":{"id":"a"}}"#,
        "\n",
        r#"{"event":"unheard"}"#,
        "\n{\n",
    );
    pipeline.lines(lines.as_bytes().to_vec()).expect("it runs").expect("it commits");
    pipeline.flush().expect("commits");
    let tallies = pipeline.tallies();
    let tally = &tallies.iter().find(|(name, _)| name == "http").expect("the source of lines").1;
    assert_eq!((tally.inputs, tally.json, tally.rejected_total()), (7, 4, 3));
    assert_eq!(tally.inputs, tally.events + tally.rejected_total());
    let text = String::from_utf8(pipeline.render(crate::sink::scrape::ScrapeFormat::Text).expect("renders")).unwrap();
    for (codec, count) in [("dogstatsd", 3), ("json", 4)] {
        let line = format!("hydrograph_events_received_total{{codec=\"{codec}\",source=\"http\"}} {count}\n");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}
