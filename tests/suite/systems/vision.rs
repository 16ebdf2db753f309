//! vision_detect_segment: frames, detections, Redis, tracks, inference, memory, queues; and its metrics API.

use super::{Check, LATENCY, RATIO, Rows, SIZE, System, embedded};
use crate::harness::Scrape;
use hydrograph::timed;
use std::time::Duration;

const EVENTS: &[&str] = &[
    r#"{"event":"frame_processed","model":"owlv2","success":true}"#,
    r#"{"event":"frame_processed","model":"owlv2","success":true}"#,
    r#"{"event":"frame_processed","model":"owlv2","success":false}"#,
    r#"{"event":"frame_dropped","model":"owlv2","reason":"backpressure"}"#,
    r#"{"event":"detection","model":"owlv2","class_name":"cat","confidence":0.97}"#,
    r#"{"event":"detection","model":"owlv2","class_name":"cat","confidence":0.55}"#,
    r#"{"event":"detection_latency","model":"owlv2","duration":0.15,"stage":"inference"}"#,
    r#"{"event":"detection_latency","model":"owlv2","duration":0.05,"stage":"inference"}"#,
    r#"{"event":"redis_operation","operation":"publish","duration":0.003,"success":true}"#,
    r#"{"event":"redis_operation","operation":"publish","duration":0.2,"success":false,"error_type":"timeout"}"#,
    r#"{"event":"redis_operation","operation":"publish","duration":0.2,"success":false}"#,
    r#"{"event":"active_tracks","model":"owlv2","count":15}"#,
    r#"{"event":"active_tracks_changed","model":"owlv2","started":1}"#,
    r#"{"event":"active_tracks_changed","model":"owlv2","ended":4}"#,
    r#"{"event":"track_lifetime","model":"owlv2","class_name":"cat","lifetime":12.5}"#,
    r#"{"event":"track_created","model":"owlv2"}"#,
    r#"{"event":"track_lost","model":"owlv2","reason":"occluded"}"#,
    r#"{"event":"model_inference","model":"owlv2","duration":0.042,"device":"cuda:0","batch_size":8}"#,
    r#"{"event":"memory_usage","rss":734003200,"vms":2147483648}"#,
    r#"{"event":"gpu_memory","device":"cuda:0","bytes":1073741824}"#,
    r#"{"event":"vision_error","component":"detector","error_type":"out_of_memory"}"#,
    r#"{"event":"queue_size","queue_type":"frames","size":3}"#,
    r#"{"event":"queue_wait","queue_type":"frames","duration":0.006}"#,
    // The service's own metrics, by the lines that a stock client writes.
    "api_requests:1|c|#endpoint:/detect,method:POST,status:200,env:prod",
    "processing_time:150|ms|#operation:preprocessing",
    "response_time:120|ms|#endpoint:/detect",
    "robot_position_mm:12.5|g|#axis:x,robot_id:r1",
];

fn full(name: &str) -> String {
    format!("vision_detect_segment_{name}")
}

pub(super) fn rows() -> Rows {
    let mut rows = Rows::default();
    // The page's queries as metrics of a second file, so that the running process answers them.
    let queries = r#"
        [metrics.query_latency_avg]
        type = "gauge"
        help = "V44"
        from = { expr = "rate(vision_detect_segment_detection_latency_seconds_sum[5m]) / rate(vision_detect_segment_detection_latency_seconds_count[5m])", labels = ["model", "stage"] }
        [metrics.query_frames_per_second]
        type = "gauge"
        help = "V45"
        from = { expr = "rate(vision_detect_segment_frames_processed_total[1m])", labels = ["model", "status"] }
        [metrics.query_error_rate]
        type = "gauge"
        help = "V45"
        from = { expr = "rate(vision_detect_segment_errors_total[5m])", labels = ["component", "error_type"] }
    "#;
    let mut run = System::start(
        "vision",
        // A store in memory keeps an hour, and widgets look back a day unless told otherwise.
        &[
            ("HYDROGRAPH_SLICE", "1s"),
            ("HYDROGRAPH_STORE__PATH", "vision.redb"),
            ("HYDROGRAPH_STORE__RETENTION", "24h"),
        ],
        &[queries],
    );
    run.send(EVENTS);
    let scrape = run.settle(EVENTS.len() as u64);
    table(&mut rows, &scrape, &run);
    own(&mut rows, &scrape, &run);
    routes(&mut rows, &scrape, &run);
    queries_and_widget(&mut rows, &run);
    mismatch(&mut rows, &mut run);
    api(&mut rows);
    rows
}

fn table(rows: &mut Rows, scrape: &Scrape, run: &System) {
    const MODEL: (&str, &str) = ("model", "owlv2");
    let mut counter = |id: &str, by: &str, name: &str, labels: &[(&str, &str)], value: f64| {
        let name = full(name);
        rows.row(id, by, |row| {
            let keys: Vec<&str> = labels.iter().map(|(key, _)| *key).collect();
            row.family(scrape, &name, "counter", &keys);
            row.value(scrape, &name, labels, value);
        });
    };
    counter("V2", "counter by model and status", "frames_processed_total", &[MODEL, ("status", "success")], 2.0);
    counter("V2", "a failed frame is `error`", "frames_processed_total", &[MODEL, ("status", "error")], 1.0);
    counter("V3", "counter by model and reason", "frames_dropped_total", &[MODEL, ("reason", "backpressure")], 1.0);
    counter("V4", "counter by model and class", "detections_total", &[MODEL, ("class", "cat")], 2.0);
    let publish = ("operation", "publish");
    counter("V7", "counter by operation and status", "redis_operations_total", &[publish, ("status", "failure")], 2.0);
    counter("V7", "success beside it", "redis_operations_total", &[publish, ("status", "success")], 1.0);
    counter(
        "V8",
        "counter of the failed ones by type",
        "redis_errors_total",
        &[publish, ("error_type", "timeout")],
        1.0,
    );
    counter("V8", "without a type: unknown", "redis_errors_total", &[publish, ("error_type", "unknown")], 1.0);
    counter("V12", "counter by model", "tracks_created_total", &[MODEL], 1.0);
    counter("V13", "counter by model and reason", "tracks_lost_total", &[MODEL, ("reason", "occluded")], 1.0);
    counter(
        "V18",
        "counter by component and type",
        "errors_total",
        &[("component", "detector"), ("error_type", "out_of_memory")],
        1.0,
    );

    let mut histogram =
        |id: &str, name: &str, bounds: &[f64], labels: &[(&str, &str)], total: (f64, f64), below: &[(&str, f64)]| {
            let name = full(name);
            rows.row(id, "histogram with the page's labels and bounds", |row| {
                let keys: Vec<&str> = labels.iter().map(|(key, _)| *key).collect();
                row.family(scrape, &name, "histogram", &keys);
                row.buckets(scrape, &name, bounds);
                row.histogram(scrape, &name, labels, total, below);
            });
        };
    let stage = [MODEL, ("stage", "inference")];
    histogram(
        "V5",
        "detection_latency_seconds",
        &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0],
        &stage,
        (2.0, 0.2),
        &[("0.01", 0.0), ("0.05", 1.0), ("0.5", 2.0)],
    );
    histogram(
        "V6",
        "detection_confidence",
        RATIO,
        &[MODEL, ("class", "cat")],
        (2.0, 1.52),
        &[("0.5", 0.0), ("0.8", 1.0), ("0.95", 1.0), ("0.99", 2.0)],
    );
    histogram(
        "V9",
        "redis_operation_duration_seconds",
        LATENCY,
        &[publish],
        (3.0, 0.403),
        &[("0.001", 0.0), ("0.005", 1.0), ("0.25", 3.0)],
    );
    histogram(
        "V14",
        "model_inference_duration_seconds",
        LATENCY,
        &[MODEL, ("device", "cuda:0")],
        (1.0, 0.042),
        &[("0.025", 0.0), ("0.05", 1.0)],
    );
    histogram(
        "V15",
        "model_batch_size",
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
        &[MODEL],
        (1.0, 8.0),
        &[("4", 0.0), ("8", 1.0)],
    );
    histogram(
        "V20",
        "queue_wait_duration_seconds",
        LATENCY,
        &[("queue_type", "frames")],
        (1.0, 0.006),
        &[("0.005", 0.0), ("0.01", 1.0)],
    );

    let mut gauge = |id: &str, by: &str, name: &str, labels: &[(&str, &str)], value: f64| {
        let name = full(name);
        rows.row(id, by, |row| {
            let keys: Vec<&str> = labels.iter().map(|(key, _)| *key).collect();
            row.family(scrape, &name, "gauge", &keys);
            row.value(scrape, &name, labels, value);
        });
    };
    gauge("V10", "gauge by model: set to 15, one more, four less", "active_tracks", &[MODEL], 12.0);
    gauge("V16", "one event, series `rss`", "memory_usage_bytes", &[("type", "rss")], 734_003_200.0);
    gauge("V16", "and series `vms`", "memory_usage_bytes", &[("type", "vms")], 2_147_483_648.0);
    gauge("V17", "gauge by device", "gpu_memory_usage_bytes", &[("device", "cuda:0")], 1_073_741_824.0);
    gauge("V19", "gauge by queue", "queue_size", &[("queue_type", "frames")], 3.0);
    rows.row("V11", "summary by model and class over 10 minutes", |row| {
        let (name, labels) = (full("track_lifetime_seconds"), [MODEL, ("class", "cat")]);
        summary(row, scrape, &name, &labels, 12.5);
    });
    rows.row("V1", "every family of the page under its namespace", |row| {
        let ours = scrape.types.keys().filter(|name| name.starts_with("vision_detect_segment_")).count();
        row.that(&format!("{ours} families"), ours >= 23);
        row.that("nothing without it", !scrape.types.contains_key("frames_processed_total"));
    });
    rows.row("V32", "each recording call of the page as an event with its argument names", |row| {
        row.equal("refused", scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
        let answer =
            run.server.post("/api/v1/events?sync=true", &[("Content-Type", "application/json")], EVENTS[0].as_bytes());
        row.that("also over HTTP", answer.status == 200 && answer.json()["accepted"] == 1);
    });
}

/// One observation: it is every quantile, the sum, and the count is one.
fn summary(row: &mut Check, scrape: &Scrape, name: &str, labels: &[(&str, &str)], value: f64) {
    let keys: Vec<&str> = labels.iter().map(|(key, _)| *key).collect();
    row.family(scrape, name, "summary", &keys);
    row.value(scrape, &format!("{name}_count"), labels, 1.0);
    row.value(scrape, &format!("{name}_sum"), labels, value);
    let quantiles: Vec<&str> = scrape.named(name).map(|(series, _)| series.labels["quantile"].as_str()).collect();
    row.equal("quantiles", quantiles, vec!["0.5", "0.9", "0.99"]);
    for (series, found) in scrape.named(name) {
        row.that(&format!("{series:?} = {found}"), (found - value).abs() <= 0.01 * value);
    }
}

fn own(rows: &mut Rows, scrape: &Scrape, run: &System) {
    rows.row("V21", "declared without a feed, filled by a stock client; its extra tag is dropped", |row| {
        let name = full("api_requests_total");
        row.family(scrape, &name, "counter", &["endpoint", "method", "status"]);
        row.value(scrape, &name, &[("endpoint", "/detect"), ("method", "POST"), ("status", "200")], 1.0);
    });
    rows.row("V22", "histogram by operation; 150 ms on the wire are 0.15 s", |row| {
        let name = full("processing_time_seconds");
        row.family(scrape, &name, "histogram", &["operation"]);
        row.buckets(scrape, &name, &[0.001, 0.01, 0.1, 1.0, 10.0]);
        row.histogram(scrape, &name, &[("operation", "preprocessing")], (1.0, 0.15), &[("0.1", 0.0), ("1", 1.0)]);
    });
    rows.row("V23", "summary by endpoint", |row| {
        summary(row, scrape, &full("response_time_seconds"), &[("endpoint", "/detect")], 0.12);
    });
    rows.row(
        "V24",
        "gauge; a long help with quotes is read back by the strict reader and OpenMetrics escapes it",
        |row| {
            let name = full("robot_position_mm");
            row.family(scrape, &name, "gauge", &["axis", "robot_id"]);
            row.value(scrape, &name, &[("axis", "x"), ("robot_id", "r1")], 12.5);
            row.that("quoted word", scrape.helps.get(&name).is_some_and(|help| help.contains("\"home\"")));
            row.that("escaped", run.open_metrics().text().contains("\\\"home\\\""));
        },
    );
    let lists = "[metrics.own_size_bytes]\ntype = \"histogram\"\nhelp = \"h\"\nbuckets = \"size\"\n\
                 [metrics.own_latency_seconds]\ntype = \"histogram\"\nhelp = \"h\"\nbuckets = \"latency\"\n\
                 [metrics.own_ratio]\ntype = \"histogram\"\nhelp = \"h\"\nbuckets = \"ratio\"\n";
    rows.row("V25", "`buckets = \"size\"`, and `latency`, `ratio`", |row| {
        let text = format!("name = \"lists\"\n[store]\npath = \":memory:\"\n{lists}");
        let pipeline = hydrograph::Pipeline::builder().text(text).start().expect("a pipeline");
        let body = pipeline.render(hydrograph::ScrapeFormat::Text).expect("rendered");
        let scrape = Scrape::read(&String::from_utf8(body).expect("UTF-8")).expect("well-formed");
        row.buckets(&scrape, "own_size_bytes", SIZE);
        row.buckets(&scrape, "own_latency_seconds", LATENCY);
        row.buckets(&scrape, "own_ratio", RATIO);
        pipeline.stop(Duration::from_secs(5));
    });
    rows.row("V39", "address and port by `http.listen`, start and stop as a process", |row| {
        row.that("it listens where told", run.server.get("/metrics").status == 200);
        let other = System::start("vision", &[], &[]);
        row.equal("stops on SIGTERM", other.server.terminate().status.code(), Some(0));
    });
}

fn routes(rows: &mut Rows, scrape: &Scrape, run: &System) {
    rows.row("V36", "text 0.0.4, read by a strict reader", |row| {
        row.that("families", scrape.types.len() >= 23);
        row.that("text", run.server.get("/metrics").content_type().starts_with("text/plain; version=0.0.4"));
    });
    let json = run.server.get("/metrics.json").json();
    rows.row("V37", "names at the top level, `samples` with `labels`, `value`, a number as `timestamp`", |row| {
        let sample = &json[full("queue_size")]["samples"][0];
        row.equal("value", sample["value"].as_f64(), Some(3.0));
        row.equal("labels", sample["labels"]["queue_type"].as_str(), Some("frames"));
        row.that("timestamp", sample["timestamp"].as_f64() > Some(1.7e9));
    });
    rows.row("V47", "the page's conversion loop over the route's answer, key by key", |row| {
        // for name, data in metrics.items(): for sample in data.get("samples", []): timestamp, value, labels.items()
        let mut points = Vec::new();
        for (name, data) in json.as_object().into_iter().flatten() {
            for sample in data.get("samples").and_then(|s| s.as_array()).into_iter().flatten() {
                let tags: Vec<String> = sample["labels"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| format!("{key}:{}", value.as_str().unwrap_or_default()))
                    .collect();
                row.that(
                    &format!("{name} has a time and a value: {sample}"),
                    sample["timestamp"].is_number() && sample.get("value").is_some(),
                );
                points.push((name.clone(), sample["value"].as_f64(), tags));
            }
        }
        row.that(
            "the gauge is among them",
            points.contains(&(full("queue_size"), Some(3.0), vec!["queue_type:frames".to_owned()])),
        );
    });
    rows.row("V38", "200 and `ok`", |row| {
        let health = run.server.get("/health");
        row.that("ok", health.status == 200 && health.json()["status"] == "ok");
    });
    rows.row("V28", "`/metrics.json`: count, sum, mean of a histogram", |row| {
        let sample = &json[full("detection_latency_seconds")]["samples"][0];
        row.equal("count", sample["count"].as_f64(), Some(2.0));
        row.equal("sum", sample["sum"].as_f64(), Some(0.2));
        row.equal("mean", sample["mean"].as_f64(), Some(0.1));
    });
    let rules = include_str!("../../../pipelines/rules/vision.yml");
    rows.row("V42", "`HighDetectionLatency` of the rule file, every 30 s, over series that are there", |row| {
        row.that("the rule", rules.contains("interval: 30s") && rules.contains("alert: HighDetectionLatency"));
        row.that("its series", scrape.named(&full("detection_latency_seconds_sum")).count() == 1);
    });
    rows.row("V43", "`HighRedisErrors` of the rule file, over a series that is there", |row| {
        row.that("the rule", rules.contains("status=\"failure\"}) > 10"));
        row.value(scrape, &full("redis_operations_total"), &[("operation", "publish"), ("status", "failure")], 2.0);
    });
}

fn queries_and_widget(rows: &mut Rows, run: &System) {
    let stage = [("model", "owlv2"), ("stage", "inference")];
    let find = |s: &Scrape, name: &str, labels: &[(&str, &str)]| {
        s.value(&full(name), labels).or_else(|| s.value(name, labels))
    };
    let scrape = run.scrape_when(10, |s| find(s, "query_latency_avg", &stage).is_some());
    rows.row("V44", "the page's quotient as a recorded expression", |row| {
        row.near("average", find(&scrape, "query_latency_avg", &stage), 0.1);
    });
    rows.row("V45", "the page's two rates as recorded expressions", |row| {
        let frames = find(&scrape, "query_frames_per_second", &[("model", "owlv2"), ("status", "success")]);
        row.that(&format!("frames {frames:?}"), frames.is_some_and(|rate| rate > 0.0));
        let errors = find(&scrape, "query_error_rate", &[("component", "detector"), ("error_type", "out_of_memory")]);
        row.that(&format!("errors {errors:?}"), errors.is_some_and(|rate| rate > 0.0));
    });
    let summary = run.widget("summary");
    rows.row("V33", "`[widgets.summary]`: `detection_stats.avg`, `redis_operations.publish_failure`", |row| {
        row.near("avg", summary["detection_stats"]["avg"].as_f64(), 0.1);
        row.near("publish_failure", summary["redis_operations"]["publish_failure"].as_f64(), 2.0);
    });
}

fn mismatch(rows: &mut Rows, run: &mut System) {
    let base = EVENTS.len() as u64;
    // A stock client without a label, a JSON sample with one too many, a typed event without a field.
    run.send(&["api_requests:1|c|#endpoint:/detect,method:POST"]);
    run.send(&[r#"{"metric":"robot_position_mm","type":"gauge","value":1,"labels":{"axis":"x","robot_id":"r1","colour":"red"}}"#]);
    run.send(&[r#"{"event":"frame_dropped","model":"owlv2"}"#]);
    let scrape = run.settle(base + 3);
    rows.row("V35", "refused, counted and named for DogStatsD, JSON samples and typed events; an extra tag of a stock client is dropped and counted", |row| {
        row.equal("refused", scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 3.0);
        let said: String = run.server.rejects().iter().map(ToString::to_string).collect();
        for word in ["api_requests", "status", "robot_position_mm", "frame_dropped", "reason"] {
            row.that(&format!("{word} is named: {said}"), said.contains(word));
        }
        row.value(&scrape, &full("api_requests_total"), &[("endpoint", "/detect"), ("method", "POST"), ("status", "200")], 1.0);
    });
    run.send(&[r#"{"event":"detection_latency","model":"owlv2","duration":0.02,"stage":"pre","weight":100}"#]);
    let weighted = run.settle(base + 4);
    rows.row("V41", "`weight`: one event in a hundred stands for all", |row| {
        let labels = [("model", "owlv2"), ("stage", "pre")];
        row.histogram(&weighted, &full("detection_latency_seconds"), &labels, (100.0, 2.0), &[("0.05", 100.0)]);
    });
    let many: Vec<String> = (0..3000).map(|n| format!("{{\"metric\":\"robot_position_mm\",\"type\":\"gauge\",\"value\":1,\"labels\":{{\"axis\":\"x\",\"robot_id\":\"u{n}\"}}}}")).collect();
    let mut bounded = System::start("vision", &[("HYDROGRAPH_LIMITS__SERIES_PER_METRIC", "1000")], &[]);
    bounded.send_stream(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let scrape = bounded.settle(3000);
    rows.row("V48", "a limit of series a metric; beyond it nothing grows and all is accounted", |row| {
        let series = scrape.named(&full("robot_position_mm")).count();
        row.that(&format!("{series} series"), (1..=1001).contains(&series));
        row.that("both laws hold", scrape.laws("app").is_ok());
    });
    rows.row("V49", "`limits.idle` and `window` are keys of the file: shorter ones cost less", |row| {
        let short = System::start(
            "vision",
            &[("HYDROGRAPH_LIMITS__IDLE", "20s"), ("HYDROGRAPH_SLICE", "1s"), ("HYDROGRAPH_WINDOW", "10s")],
            &[],
        );
        let mut short = short;
        short.send(&[EVENTS[3]]);
        short.settle(1);
        let name = full("frames_dropped_total");
        let gone = short.scrape_when(50, |s| s.named(&name).count() == 0);
        row.equal("an idle series is cleared", gone.named(&name).count(), 0);
    });
}

/// The page's own calls on the crate.
fn api(rows: &mut Rows) {
    let pipeline = embedded("vision");
    let frames = [("model", "owlv2"), ("status", "success")];
    rows.row("V26", "`counter(..).inc()`, `get()`", |row| {
        let counter = pipeline.counter("frames_processed_total", &frames).expect("declared");
        counter.inc();
        counter.add(2);
        row.equal("at once", pipeline.get(&full("frames_processed_total"), &frames).expect("readable"), 3.0);
    });
    rows.row("V27", "`set`, `inc`, `dec`, `get()`", |row| {
        let labels = [("model", "owlv2")];
        let gauge = pipeline.gauge("active_tracks", &labels).expect("declared");
        gauge.set(15.0);
        gauge.inc(1.0);
        gauge.dec(2.0);
        row.equal("at once", pipeline.get(&full("active_tracks"), &labels).expect("readable"), 14.0);
    });
    let stage = [("model", "owlv2"), ("stage", "inference")];
    rows.row("V28", "`observe`, `stats()`", |row| {
        let histogram = pipeline.histogram("detection_latency_seconds", &stage).expect("declared");
        histogram.observe(0.15);
        histogram.observe(0.05);
        let stats = pipeline.stats(&full("detection_latency_seconds"), &stage).expect("readable");
        row.equal("count, sum, mean", (stats.count, stats.sum, stats.mean), (2, 0.2, 0.1));
        row.equal("buckets", stats.buckets.iter().map(|(_, n)| *n).collect::<Vec<_>>(), vec![0, 1, 1, 2, 2, 2]);
    });
    let endpoint = [("endpoint", "/detect")];
    rows.row("V29", "any quantile, with its bound", |row| {
        let summary = pipeline.histogram("response_time_seconds", &endpoint).expect("declared");
        for n in 1..=1000 {
            summary.observe(f64::from(n) / 1000.0);
        }
        for q in [0.5, 0.9, 0.99, 0.123] {
            let found = pipeline.quantile(&full("response_time_seconds"), &endpoint, q).expect("readable");
            row.that(&format!("{found:?}"), (found.value - q).abs() <= q * found.bound + 0.001 && found.bound <= 0.01);
        }
    });
    rows.row("V40", "count and sum stay, quantiles are of the window, which says its span", |row| {
        let stats = pipeline.stats(&full("response_time_seconds"), &endpoint).expect("readable");
        row.equal("count", stats.count, 1000);
        row.that(&format!("{} s", stats.window_seconds), (600.0..=610.0).contains(&stats.window_seconds));
        row.equal("in the window", stats.window_samples, 1000);
    });
    rows.row("V30", "handles by name on a pipeline, `all()`, no global", |row| {
        let set = pipeline.set("cameras", &[]).expect("a set");
        set.insert("front");
        let all = pipeline.all().expect("readable");
        for name in ["frames_processed_total", "active_tracks", "detection_latency_seconds", "response_time_seconds"] {
            row.that(name, all.iter().any(|(metric, _, _)| metric.name.to_string() == full(name)));
        }
        row.that("the set", all.iter().any(|(metric, _, _)| metric.name.to_string().ends_with("cameras")));
    });
    rows.row("V34", "`timed!` and `start_timer()` with labels", |row| {
        let labels = [("model", "owlv2"), ("stage", "pre")];
        let histogram = pipeline.histogram("detection_latency_seconds", &labels).expect("declared");
        timed!(histogram, std::thread::yield_now());
        drop(histogram.start_timer());
        row.equal("two", pipeline.get(&full("detection_latency_seconds"), &labels).expect("readable"), 2.0);
    });
    rows.row("V35", "a handle with another set of labels is refused", |row| {
        row.that("missing", pipeline.counter("frames_processed_total", &[("model", "owlv2")]).is_err());
        row.that("too many", pipeline.gauge("active_tracks", &[("model", "m"), ("x", "y")]).is_err());
    });
    rows.row("V41", "`sampled(rate)` on a handle", |row| {
        let labels = [("model", "owlv2"), ("stage", "sampled")];
        let sampled =
            pipeline.histogram("detection_latency_seconds", &labels).expect("declared").sampled(0.1).expect("a rate");
        for _ in 0..10_000 {
            sampled.observe(0.02);
        }
        let count = pipeline.get(&full("detection_latency_seconds"), &labels).expect("readable");
        row.that(&format!("about 10,000: {count}"), (8_000.0..12_000.0).contains(&count));
    });
    rows.row("V32", "and as calls in the process", |row| {
        let event = pipeline.event("frame_processed").expect("declared");
        event.field("model", "owlv2").field("success", true).emit().expect("typed");
        row.equal("counted", pipeline.get(&full("frames_processed_total"), &frames).expect("readable"), 4.0);
        row.that("a wrong type is an error", event.field("model", 1).field("success", true).emit().is_err());
    });
    pipeline.stop(Duration::from_secs(5));
    constant_label(rows);
}

fn constant_label(rows: &mut Rows) {
    rows.row(
        "V31",
        "`labels = { … }` of the file on every series of the process; in the event otherwise (V32)",
        |row| {
            let text = "name = \"v\"\nlabels = { model_id = \"owlv2\" }\n[store]\npath = \":memory:\"\n\
                    [metrics.frames_total]\ntype = \"counter\"\nhelp = \"Frames\"\n";
            let pipeline = hydrograph::Pipeline::builder().text(text).start().expect("a pipeline");
            pipeline.counter("frames_total", &[]).expect("declared").inc();
            let body =
                String::from_utf8(pipeline.render(hydrograph::ScrapeFormat::Text).expect("rendered")).expect("UTF-8");
            row.that(&body, body.contains("frames_total{model_id=\"owlv2\"} 1\n"));
            pipeline.stop(Duration::from_secs(5));
        },
    );
}
