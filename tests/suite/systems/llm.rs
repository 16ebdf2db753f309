//! AI Automation Framework: LLM requests, the API around them, the machine, a service's process; and its metrics API.

use super::{Rows, System, embedded};
use crate::harness::{Home, Launch, Scrape};
use hydrograph::{Pipeline, ResetError, ScrapeFormat, TimedExt, Value, timed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

const EVENTS: &[&str] = &[
    r#"{"event":"llm_request","duration":1.5,"success":true,"tokens":750,"model":"gpt-4"}"#,
    r#"{"event":"llm_request","duration":0.5,"success":true,"tokens":250,"model":"gpt-4"}"#,
    r#"{"event":"llm_request","duration":0.2,"success":false,"tokens":0,"model":"gpt-4"}"#,
    "api_requests_total:5|c",
    r#"{"metric":"api_active_requests","type":"gauge","value":3}"#,
    r#"{"metric":"api_active_requests","type":"gauge","op":"add","value":-1}"#,
    r#"{"metric":"api_request_duration","type":"histogram","value":0.1,"unit":"s"}"#,
    "api_errors_total:1|c",
    "api_process_request:250|ms",
];

pub(super) fn rows() -> Rows {
    let mut rows = Rows::default();
    let run = {
        let mut run = System::start(
            "llm",
            &[
                ("HYDROGRAPH_SOURCES__HOST__EVERY", "1s"),
                ("HYDROGRAPH_SOURCES__SERVICE__EVERY", "1s"),
                // The service is this test's own process.
                ("LLM_SERVICE", &own_command()),
            ],
            &[],
        );
        run.send(EVENTS);
        run.settle(EVENTS.len() as u64);
        run
    };
    let system = ["system_memory_bytes", "system_memory_percent", "system_cpu_percent"];
    let scrape = run.scrape_when(20, |s| system.iter().all(|name| s.value(name, &[]).is_some()));
    requests(&mut rows, &scrape, &run);
    machine(&mut rows, &scrape, &run);
    formats(&mut rows, &scrape, &run);
    handles(&mut rows);
    resets(&mut rows);
    reading(&mut rows);
    timing(&mut rows);
    rows
}

fn own_command() -> String {
    let path = std::env::current_exe().expect("this test is a file");
    path.file_name().expect("with a name").to_string_lossy().into_owned()
}

fn requests(rows: &mut Rows, scrape: &Scrape, run: &System) {
    let by = [("model", "gpt-4")];
    for (id, name, value) in [
        ("L21", "llm_requests_total", 3.0),
        ("L22", "llm_requests_success", 2.0),
        ("L23", "llm_requests_error", 1.0),
        ("L24", "llm_tokens_total", 1000.0),
    ] {
        rows.row(id, "counter by model under exactly this name", |row| {
            row.family(scrape, name, "counter", &["model"]);
            row.value(scrape, name, &by, value);
        });
    }
    rows.row("L25", "histogram by model", |row| {
        let name = "llm_request_duration_seconds";
        row.family(scrape, name, "histogram", &["model"]);
        row.buckets(scrape, name, &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        row.histogram(scrape, name, &by, (3.0, 2.2), &[("0.1", 0.0), ("0.25", 1.0), ("0.5", 2.0), ("2.5", 3.0)]);
    });
    rows.row("L20", "the event with the argument names of the page's call", |row| {
        row.equal("refused", scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
        row.value(scrape, "llm_requests_total", &by, 3.0);
    });
    rows.row("L7", "counters without `_total` keep their name; OpenMetrics calls them unknown", |row| {
        row.equal("text", scrape.types.get("llm_requests_success").map(String::as_str), Some("counter"));
        let open = run.open_metrics();
        row.that("unknown", open.text().contains("# TYPE llm_requests_success unknown\n"));
        row.that("same name", open.text().contains("llm_requests_success{model=\"gpt-4\"} 2"));
    });
    rows.row("L26", "declared with the page's names, durations without a suffix and without a unit line", |row| {
        row.value(scrape, "api_requests_total", &[], 5.0);
        row.value(scrape, "api_active_requests", &[], 2.0);
        row.family(scrape, "api_request_duration", "histogram", &[]);
        row.histogram(scrape, "api_request_duration", &[], (1.0, 0.1), &[("0.05", 0.0), ("0.1", 1.0)]);
        row.value(scrape, "api_errors_total", &[], 1.0);
        row.histogram(scrape, "api_process_request", &[], (1.0, 0.25), &[("0.1", 0.0), ("0.25", 1.0)]);
        row.that("no unit line", !run.open_metrics().text().contains("# UNIT api_"));
    });
}

fn machine(rows: &mut Rows, scrape: &Scrape, run: &System) {
    for (id, name, most) in [
        ("L14", "system_memory_bytes", 1e14),
        ("L15", "system_memory_percent", 100.0),
        ("L16", "system_cpu_percent", 100.0),
    ] {
        rows.row(id, "gauge from the host source", |row| {
            row.family(scrape, name, "gauge", &[]);
            let value = scrape.value(name, &[]);
            row.that(&format!("{value:?}"), value.is_some_and(|value| (0.0..=most).contains(&value)));
        });
    }
    rows.row("L14", "unit bytes", |row| {
        row.that("unit", run.open_metrics().text().contains("# UNIT system_memory_bytes bytes\n"));
    });
    let service = run.scrape_when(10, |s| s.value("process_cpu_percent", &[]).is_some());
    rows.row("L17", "gauge from the process source: the process whose command matches", |row| {
        let value = service.value("process_memory_bytes", &[]);
        row.that(&format!("{value:?}"), value > Some(1e6));
    });
    rows.row("L18", "gauge from the process source", |row| {
        let value = service.value("process_cpu_percent", &[]);
        row.that(&format!("{value:?}"), value.is_some_and(|value| value >= 0.0));
    });
    rows.row("L19", "`every`: read again without being asked", |row| {
        let first = scrape.value("system_memory_bytes", &[]);
        let again = run.scrape_when(20, |s| s.value("system_memory_bytes", &[]) != first);
        row.that("another value", again.value("system_memory_bytes", &[]) != first);
    });
}

fn formats(rows: &mut Rows, scrape: &Scrape, run: &System) {
    rows.row("L27", "HELP, TYPE and values, read by a strict reader", |row| {
        for name in ["llm_requests_total", "llm_request_duration_seconds", "system_cpu_percent"] {
            row.that(name, scrape.helps.contains_key(name) && scrape.types.contains_key(name));
        }
    });
    let json = run.server.get("/api/metrics?format=json").json();
    rows.row(
        "L29",
        "`timestamp`, `uptime_seconds`, `metrics.NAME` with its five keys, and `samples` on every family",
        |row| {
            let one = &json["metrics"]["api_requests_total"];
            row.equal("value", one["value"].as_f64(), Some(5.0));
            row.equal("type", one["type"].as_str(), Some("counter"));
            row.that("timestamp", one["timestamp"].as_f64() > Some(1.7e9));
            row.that("labels and help", one["labels"].is_object() && one["help"] == "Total API requests");
            row.that(
                "samples everywhere",
                json["metrics"].as_object().is_some_and(|all| all.values().all(|f| f["samples"].is_array())),
            );
            row.that("RFC 3339", json["timestamp"].as_str().is_some_and(|t| t.len() > 19 && t.as_bytes()[10] == b'T'));
            row.that("uptime", json["uptime_seconds"].as_f64() > Some(0.0));
        },
    );
    rows.row("L31", "`len(metrics)` is the number of families that the text has", |row| {
        let json: Vec<&String> = json["metrics"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        let text = run.server.scrape();
        let ours = |name: &&String| name.starts_with("llm_") || name.starts_with("api_") || name.starts_with("system_");
        row.equal("families", json.into_iter().filter(ours).count(), text.types.keys().filter(ours).count());
    });
    rows.row("L30", "`Accept: application/json` on `/metrics`", |row| {
        let answer = run.server.get_with("/metrics", &[("Accept", "application/json")]);
        row.that("JSON", answer.content_type().starts_with("application/json"));
        row.equal("the same shape", answer.json()["metrics"]["api_requests_total"]["value"].as_f64(), Some(5.0));
    });
    let home = Home::new();
    rows.row("L32", "every family of the file has a help; `check` warns of one without", |row| {
        let ours = scrape.types.keys().filter(|name| name.starts_with("llm_") || name.starts_with("api_"));
        row.that("helps", ours.clone().count() >= 9);
        for name in ours {
            row.that(name, scrape.helps.get(name).is_some_and(|help| !help.is_empty()));
        }
        let file = home.write("bare.toml", "name = \"bare\"\n[metrics.bare_total]\ntype = \"counter\"\n");
        let said = Launch::new(&home).arg("check").arg(file).finish();
        row.that(
            &said.said(),
            said.status.success() && said.said().contains("bare_total") && said.said().contains("help"),
        );
    });
    rows.row("L28", "`export --format prometheus --output FILE`", |row| {
        let file = home.path().join("metrics.prom");
        let url = format!("http://{}", run.server.address);
        let done = Launch::new(&home)
            .args(["--url", &url, "export", "--format", "prometheus", "--output"])
            .arg(&file)
            .finish();
        row.that(&done.said(), done.status.success());
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        row.that("the families", text.contains("llm_requests_total{model=\"gpt-4\"} 3"));
    });
}

fn empty() -> Pipeline {
    Pipeline::builder().start().expect("an embedded pipeline")
}

fn handles(rows: &mut Rows) {
    let pipeline = empty();
    rows.row(
        "L1",
        "`inc`, `add`, `get()` on a handle, `reset` as L9 says; a negative amount over JSON is refused with a reason",
        |row| {
            let counter = pipeline.counter("jobs", &[]).expect("a counter");
            counter.inc();
            counter.add(5);
            counter.add_f64(0.5);
            row.equal("get", pipeline.get("jobs_total", &[]).expect("readable"), 6.5);
            let said = pipeline
                .lines(b"jobs:-1|c\n{\"metric\":\"jobs\",\"type\":\"counter\",\"value\":-1}\n".to_vec())
                .expect("taken")
                .expect("in time");
            row.equal("two lines", said.len(), 2);
            let json = format!("{:?}", said[1].1);
            row.that(&json, json.contains("Refused"));
            row.equal("unchanged by the refused one", pipeline.get("jobs_total", &[]).expect("readable") <= 6.5, true);
        },
    );
    rows.row("L2", "`set`, `inc`, `dec`, `get()`, `reset` as L9 says; over JSON `op`", |row| {
        let gauge = pipeline.gauge("active_users", &[]).expect("a gauge");
        gauge.set(10.0);
        gauge.inc(1.0);
        gauge.dec(5.0);
        row.equal("get", pipeline.get("active_users", &[]).expect("readable"), 6.0);
        pipeline
            .events(b"{\"metric\":\"active_users\",\"type\":\"gauge\",\"op\":\"add\",\"value\":-2}\n")
            .expect("taken");
        row.equal("op", pipeline.get("active_users", &[]).expect("readable"), 4.0);
    });
    rows.row("L3", "`observe`, a snapshot of everything, `reset` as L9 says", |row| {
        let histogram = pipeline.histogram("request_duration", &[]).expect("a histogram");
        histogram.observe(0.5);
        histogram.observe(1.2);
        row.equal("count", pipeline.get("request_duration", &[]).expect("readable"), 2.0);
        let body = pipeline.render(ScrapeFormat::MetricsJson).expect("rendered");
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        row.equal("snapshot", json["request_duration"]["samples"][0]["sum"].as_f64(), Some(1.7));
    });
    rows.row("L6", "one family, two series; another type under the name is an error", |row| {
        let ok = pipeline.counter("http_requests", &[("status", "200"), ("method", "GET")]).expect("a counter");
        let failed = pipeline.counter("http_requests", &[("status", "500"), ("method", "POST")]).expect("a counter");
        ok.add(2);
        failed.inc();
        row.equal(
            "first",
            pipeline.get("http_requests_total", &[("status", "200"), ("method", "GET")]).expect("readable"),
            2.0,
        );
        row.equal(
            "second",
            pipeline.get("http_requests_total", &[("status", "500"), ("method", "POST")]).expect("readable"),
            1.0,
        );
        row.that("another type", pipeline.gauge("http_requests_total", &[]).is_err());
    });
    rows.row("L11", "10 threads × 1,000 increments, `get()` at once: exactly 10,000", |row| {
        let counter = pipeline.counter("concurrent_counter", &[]).expect("a counter");
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| (0..1000).for_each(|_| counter.inc()));
            }
        });
        row.equal("get", pipeline.get("concurrent_counter_total", &[]).expect("readable"), 10_000.0);
    });
    pipeline.stop(Duration::from_secs(5));
}

/// The creation time of a series, and its value.
fn born(pipeline: &Pipeline, name: &str) -> Option<(i64, f64)> {
    let all = pipeline.all().expect("readable");
    let (_, _, value) = all.iter().find(|(metric, labels, _)| &*metric.name == name && labels.is_empty())?;
    let created = match value {
        Value::Counter(value) => value.created,
        Value::Gauge(value) => value.created,
        Value::Distribution(value) => value.created,
        Value::Set(value) => value.created,
    };
    Some((created.0, hydrograph::pipeline::as_number(value)))
}

fn resets(rows: &mut Rows) {
    rows.row(
        "L9",
        "`reset(name, labels)`, `reset_all()` and their `_async` twins: value 0, a new `_created`, counting goes on; over HTTP \
         with the admin token only, `suite::resets` with kill -9; each is written to the log (the audit log is O44)",
        |row| {
            let pipeline = empty();
            let counter = pipeline.counter("jobs", &[]).expect("a counter");
            let gauge = pipeline.gauge("active_users", &[]).expect("a gauge");
            let histogram = pipeline.histogram("request_duration", &[]).expect("a histogram");
            counter.add(6);
            gauge.set(10.0);
            histogram.observe(0.5);
            histogram.observe(1.2);
            let names = ["jobs_total", "active_users", "request_duration"];
            pipeline.flush().expect("commits");
            let before = names.map(|name| born(&pipeline, name).expect("there"));
            row.equal("before", before.map(|(_, value)| value), [6.0, 10.0, 2.0]);
            row.equal("one metric", pipeline.reset("jobs_total", &[]), Ok(1));
            row.equal("reset", pipeline.get("jobs_total", &[]).expect("readable"), 0.0);
            row.equal("the others", pipeline.get("active_users", &[]).expect("readable"), 10.0);
            row.that("all", pipeline.reset_all().is_ok_and(|count| count >= 3));
            let after = names.map(|name| born(&pipeline, name).expect("there"));
            row.equal("after", after.map(|(_, value)| value), [0.0, 0.0, 0.0]);
            row.that("new creation times", before.iter().zip(&after).all(|(before, after)| before.0 < after.0));
            counter.add(2);
            gauge.inc(3.0);
            histogram.observe(4.0);
            row.equal("counter", pipeline.get("jobs_total", &[]).expect("readable"), 2.0);
            row.equal("gauge", pipeline.get("active_users", &[]).expect("readable"), 3.0);
            let stats = pipeline.stats("request_duration", &[]).expect("readable");
            row.equal("stats", (stats.count, stats.sum, stats.min, stats.max), (1, 4.0, 4.0, 4.0));
            row.equal("what is not there", pipeline.reset("nothing", &[]), Err(ResetError::Unknown));
            for (source, tally) in pipeline.tallies() {
                row.equal(&source, tally.samples_total(), tally.recorded_total() + tally.dropped_total());
            }
            pipeline.stop(Duration::from_secs(5));
        },
    );
}

fn reading(rows: &mut Rows) {
    let pipeline = embedded("llm");
    let by = [("model", "gpt-4")];
    let durations = pipeline.histogram("llm_request_duration_seconds", &by).expect("declared");
    for n in 1..=100 {
        durations.observe(f64::from(n) / 10.0);
    }
    rows.row("L4", "`stats()`: count, sum, min, max, mean, buckets; `mean` in JSON", |row| {
        let stats = pipeline.stats("llm_request_duration_seconds", &by).expect("readable");
        row.equal("five", (stats.count, stats.sum, stats.min, stats.max, stats.mean), (100, 505.0, 0.1, 10.0, 5.05));
        let buckets: Vec<u128> = stats.buckets.iter().map(|(_, n)| *n).collect();
        row.equal("buckets", buckets[..9].to_vec(), vec![1, 2, 5, 10, 25, 50, 100, 100, 100]);
        let json: serde_json::Value =
            serde_json::from_slice(&pipeline.render(ScrapeFormat::ApiJson).expect("rendered")).expect("JSON");
        row.equal("mean", json["metrics"]["llm_request_duration_seconds"]["samples"][0]["mean"].as_f64(), Some(5.05));
    });
    rows.row("L5", "`quantile(p / 100)` for any p, with its bound", |row| {
        for p in [1.0, 50.0, 95.0, 99.9] {
            let found = pipeline.quantile("llm_request_duration_seconds", &by, p / 100.0).expect("readable");
            let exact = (p / 100.0 * 100.0_f64).ceil() / 10.0;
            row.that(&format!("p{p}: {found:?}"), (found.value - exact).abs() <= exact * found.bound + 0.1);
        }
    });
    rows.row("L8", "`get` by name, `all()`; no global: two pipelines know nothing of each other", |row| {
        let all = pipeline.all().expect("readable");
        row.that(
            "by name",
            all.iter().any(|(metric, labels, _)| &*metric.name == "llm_request_duration_seconds" && !labels.is_empty()),
        );
        let other = empty();
        row.that("another pipeline", other.get("llm_request_duration_seconds", &by).is_err());
        other.stop(Duration::from_secs(5));
    });
    rows.row("L10", "`summary()`: a line a series", |row| {
        let summary = pipeline.summary().expect("readable");
        row.that(&summary, summary.lines().any(|line| line == "llm_request_duration_seconds{model=\"gpt-4\"} 100"));
    });
    pipeline.stop(Duration::from_secs(5));
}

fn timing(rows: &mut Rows) {
    let pipeline = empty();
    let took = pipeline.timing("api_call", &[]).expect("a timing");
    let count = || pipeline.stats("api_call_seconds", &[]).expect("readable").count;
    rows.row("L12", "`timed!(handle, expr)` and `future.timed(&handle)`", |row| {
        row.equal("its value", timed!(took, 6 * 7), 42);
        let mut future = pin!(async { 7 }.timed(&took));
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        row.equal("the future's value", polled, std::task::Poll::Ready(7));
        row.equal("both", count(), 2);
    });
    rows.row("L13", "recorded on panic and on cancel; `discard()` records nothing", |row| {
        let failed = catch_unwind(AssertUnwindSafe(|| timed!(took, panic!("the call fails"))));
        row.that("it panicked", failed.is_err());
        row.equal("on panic", count(), 3);
        let mut never = Box::pin(std::future::pending::<()>().timed(&took));
        row.that("pending", never.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(never);
        row.equal("on cancel", count(), 4);
        took.start_timer().discard();
        row.equal("discarded", count(), 4);
    });
    pipeline.stop(Duration::from_secs(5));
}
