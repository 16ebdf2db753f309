//! Dream.OS: agents, requests, components, and file operations that arrive as log records.

use super::{Check, LATENCY, Rows, System};
use crate::harness::server::free_port;
use crate::harness::{Scrape, http};
use crate::load::Target;
use std::collections::HashMap;

const EVENTS: &[&str] = &[
    r#"{"event":"agent_status","agent":"planner","up":true,"cpu_percent":12.5,"memory_bytes":1048576}"#,
    r#"{"event":"agent_status","agent":"coder","up":false}"#,
    r#"{"event":"agent_task","agent":"planner","status":"completed","duration":1.5}"#,
    r#"{"event":"agent_task","agent":"planner","status":"completed","duration":0.5}"#,
    r#"{"event":"agent_task","agent":"planner","status":"completed"}"#,
    r#"{"event":"agent_task","agent":"planner","status":"failed"}"#,
    r#"{"event":"request","endpoint":"/run","duration":0.2,"success":true}"#,
    r#"{"event":"request","endpoint":"/run","duration":0.3,"success":true}"#,
    r#"{"event":"request","endpoint":"/run","duration":4,"success":true}"#,
    r#"{"event":"request","endpoint":"/run","duration":0.02,"success":false}"#,
    r#"{"event":"queue_status","queue":"tasks","length":7}"#,
    r#"{"event":"cache","cache":"prompts","hit":true}"#,
    r#"{"event":"cache","cache":"prompts","hit":true}"#,
    r#"{"event":"cache","cache":"prompts","hit":true}"#,
    r#"{"event":"cache","cache":"prompts","hit":false}"#,
    r#"{"event":"component_status","component":"db","kind":"dependency","up":true}"#,
    r#"{"event":"component_status","component":"api","kind":"service","up":false}"#,
    r#"{"event":"component_error","component":"api","error":"timeout after 5 s"}"#,
    r#"{"event":"component_warning","component":"api","warning":"slow"}"#,
    r#"{"event":"component_warning","component":"api"}"#,
];

/// The host source's own names.
const GAUGES: [&str; 6] =
    ["host_cpu_percent", "host_memory_percent", "host_processes", "host_load1", "host_load5", "host_load15"];
const COUNTERS: [&str; 4] = [
    "host_disk_read_bytes_total",
    "host_disk_written_bytes_total",
    "host_network_received_bytes_total",
    "host_network_sent_bytes_total",
];

/// What a JSON log formatter writes: the message is the event, the extras are its fields, and more stands beside them.
const LOG: &[&str] = &[
    r#"{"message":"file_write","levelname":"INFO","name":"dreamos.files","lineno":42,"path":"data.txt","bytes":120,"encoding":"utf-8","duration":0.02}"#,
    r#"{"message":"file_write","levelname":"INFO","path":"data.txt","bytes":80,"encoding":"utf-8","operation":"atomic_write"}"#,
    r#"{"message":"file_read","levelname":"INFO","path":"in.txt","bytes":300,"encoding":"utf-8","duration":0.004}"#,
    r#"{"message":"file_write_error","levelname":"ERROR","path":"data.txt","error":"disk is full: 'data.txt'"}"#,
    r#"{"message":"file_read_error","levelname":"ERROR","path":"gone.txt","error":"no such file"}"#,
    r#"{"message":"directory_created","levelname":"INFO","path":"out"}"#,
    r#"{"message":"directory_cleared","levelname":"INFO","path":"out"}"#,
    r#"{"message":"directory_cleared","levelname":"INFO","path":"tmp"}"#,
];

pub(super) fn rows() -> Rows {
    let mut rows = Rows::default();
    let quiet: HashMap<&str, Vec<String>> = COUNTERS.iter().map(|name| (*name, counted(name))).collect();
    let (tcp, old) = (free_port(), free_port());
    let own = free_port();
    let mut run = System::start_on(
        own,
        "dreamos",
        &[
            // The port of the page, moved: an old port beside the own one.
            ("HYDROGRAPH_HTTP__LISTEN", &format!("127.0.0.1:{own},127.0.0.1:{old}")),
            ("HYDROGRAPH_SOURCES__LOG__LISTEN", &format!("unixstream:log.socket,tcp:127.0.0.1:{tcp}")),
            ("HYDROGRAPH_SOURCES__LOG__THREADS", "fused"),
            ("HYDROGRAPH_SOURCES__HOST__EVERY", "1s"),
            ("HYDROGRAPH_SLICE", "1s"),
        ],
        &[],
    );
    let before = run.scrape_when(5, |s| GAUGES.iter().chain(&COUNTERS).all(|name| s.value(name, &[]).is_some()));
    rows.row("O37", "absent before the first file operation", |row| {
        row.equal("absent", before.value("file_error_rate", &[]), None);
    });
    rows.row("O36", "absent before the first request", |row| {
        row.equal("absent", before.value("error_rate", &[]), None)
    });
    run.send(EVENTS);
    run.settle(EVENTS.len() as u64);
    let mut log = Target::Tcp(tcp).connect().expect("the log source listens");
    for record in LOG {
        log.send(format!("{record}\n").as_bytes()).expect("a line is taken");
    }
    let scrape = run.server.scrape_until("the log records", |scrape| {
        scrape.laws("log").is_ok_and(|laws| laws.in_flight == 0.0 && laws.inputs == LOG.len() as f64)
    });
    machine(&mut rows, &run, &before, &quiet);
    agents(&mut rows, &scrape, &run);
    files(&mut rows, &scrape, &run);
    routes(&mut rows, &run, old);
    recorded(&mut rows, &run);
    paths(&mut rows, &mut run);
    rows
}

/// What the kernel counted for a value: of every interface but loopback, or of every disk.
fn counted(name: &str) -> Vec<String> {
    let (table, fields): (_, &[usize]) = match name {
        "host_disk_read_bytes_total" => ("/proc/diskstats", &[2, 5]),
        "host_disk_written_bytes_total" => ("/proc/diskstats", &[2, 9]),
        _ => ("/proc/net/dev", &[0, 1, 9]),
    };
    let text = std::fs::read_to_string(table).expect("the kernel lists its devices");
    let rows = text.lines().filter(|line| !line.contains('|') && !line.trim_start().starts_with("lo:"));
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        fields.iter().map(|at| words.get(*at).copied().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    };
    rows.map(of).collect()
}

fn machine(rows: &mut Rows, run: &System, scrape: &Scrape, quiet: &HashMap<&str, Vec<String>>) {
    rows.row("O1", "the host source's own names", |row| {
        for name in GAUGES {
            row.family(scrape, name, "gauge", &[]);
        }
        for name in COUNTERS {
            // A count that has not moved since the start has no series yet: a sandbox may be silent.
            if scrape.types.contains_key(name) {
                row.family(scrape, name, "counter", &[]);
            } else {
                row.equal(&format!("{name} did not move"), counted(name), quiet[name].clone());
            }
        }
        row.that("there are processes", scrape.value("host_processes", &[]) > Some(0.0));
    });
    rows.row("O9", "`host_cpu_percent` and `host_memory_percent`", |row| {
        for name in &GAUGES[..2] {
            let value = scrape.value(name, &[]);
            row.that(&format!("{name} = {value:?}"), value.is_some_and(|v| (0.0..=100.0).contains(&v)));
        }
        row.equal("healthy", run.server.get("/health").status, 200);
    });
}

fn agents(rows: &mut Rows, scrape: &Scrape, run: &System) {
    let planner = [("agent", "planner")];
    rows.row("O2", "gauge by agent", |row| {
        row.family(scrape, "dreamos_agent_up", "gauge", &["agent"]);
        row.value(scrape, "dreamos_agent_up", &planner, 1.0);
        row.value(scrape, "dreamos_agent_up", &[("agent", "coder")], 0.0);
    });
    rows.row("O3", "histogram by agent; a task without a duration is not timed", |row| {
        row.family(scrape, "dreamos_agent_response_seconds", "histogram", &["agent"]);
        row.histogram(scrape, "dreamos_agent_response_seconds", &planner, (2.0, 2.0), &[("0.5", 1.0), ("1", 1.0)]);
    });
    rows.row("O4", "counter by agent and status", |row| {
        row.family(scrape, "dreamos_agent_tasks_total", "counter", &["agent", "status"]);
        row.value(scrape, "dreamos_agent_tasks_total", &[planner[0], ("status", "completed")], 3.0);
        row.value(scrape, "dreamos_agent_tasks_total", &[planner[0], ("status", "failed")], 1.0);
    });
    rows.row("O5", "three gauges by agent; values that an agent does not send are absent", |row| {
        row.value(scrape, "dreamos_agent_cpu_percent", &planner, 12.5);
        row.value(scrape, "dreamos_agent_memory_bytes", &planner, 1_048_576.0);
        row.value(scrape, "dreamos_agent_up", &planner, 1.0);
        row.equal("absent", scrape.value("dreamos_agent_cpu_percent", &[("agent", "coder")]), None);
    });
    rows.row("O6", "two counters and a histogram by endpoint", |row| {
        row.family(scrape, "dreamos_requests_total", "counter", &[]);
        row.value(scrape, "dreamos_requests_total", &[], 4.0);
        row.value(scrape, "dreamos_request_errors_total", &[], 1.0);
        row.family(scrape, "dreamos_request_duration_seconds", "histogram", &["endpoint"]);
        let by = [("endpoint", "/run")];
        row.histogram(scrape, "dreamos_request_duration_seconds", &by, (4.0, 4.52), &[("0.25", 2.0), ("5", 4.0)]);
    });
    rows.row("O7", "gauge by queue", |row| {
        row.family(scrape, "dreamos_queue_length", "gauge", &["queue"]);
        row.value(scrape, "dreamos_queue_length", &[("queue", "tasks")], 7.0);
    });
    rows.row("O8", "counter by cache and result", |row| {
        row.family(scrape, "dreamos_cache_requests_total", "counter", &["cache", "result"]);
        row.value(scrape, "dreamos_cache_requests_total", &[("cache", "prompts"), ("result", "hit")], 3.0);
        row.value(scrape, "dreamos_cache_requests_total", &[("cache", "prompts"), ("result", "miss")], 1.0);
    });
    rows.row("O10", "gauge by component and kind", |row| {
        row.family(scrape, "dreamos_component_up", "gauge", &["component", "kind"]);
        row.value(scrape, "dreamos_component_up", &[("component", "db"), ("kind", "dependency")], 1.0);
        row.value(scrape, "dreamos_component_up", &[("component", "api"), ("kind", "service")], 0.0);
    });
    rows.row("O11", "counters by component; the texts are kept with the events", |row| {
        row.family(scrape, "dreamos_errors_total", "counter", &["component"]);
        row.value(scrape, "dreamos_errors_total", &[("component", "api")], 1.0);
        row.value(scrape, "dreamos_warnings_total", &[("component", "api")], 2.0);
        row.that("kept", kept(run, "component_error").contains("timeout after 5 s"));
    });
}

fn kept(run: &System, event: &str) -> String {
    run.server.get(&format!("/api/v1/recent?kind=events&name={event}")).json().to_string()
}

fn operation<'a>(path: &'a str, operation: &'a str) -> [(&'a str, &'a str); 2] {
    [("path", path), ("operation", operation)]
}

fn files(rows: &mut Rows, scrape: &Scrape, run: &System) {
    let write = |row: &mut Check| {
        row.value(scrape, "file_ops_write_total", &operation("data.txt", "write"), 1.0);
        row.value(scrape, "file_ops_write_total", &operation("data.txt", "atomic_write"), 1.0);
    };
    rows.row("O13", "log records of a JSON formatter over TCP", write);
    rows.row("O15", "log records of a JSON formatter over TCP", |row| {
        row.value(scrape, "file_ops_read_total", &operation("in.txt", "read"), 1.0);
    });
    rows.row("O14", "counted by operation; the error is kept, no label", |row| {
        row.value(scrape, "file_errors_total", &[("operation", "write")], 1.0);
        row.that("kept whole", kept(run, "file_write_error").contains("disk is full: 'data.txt'"));
        row.that("no label", !scrape.samples.keys().any(|s| s.labels.values().any(|v| v.contains("disk is full"))));
    });
    rows.row("O16", "counted by operation; the error is kept, no label", |row| {
        row.value(scrape, "file_errors_total", &[("operation", "read")], 1.0);
        row.that("kept whole", kept(run, "file_read_error").contains("no such file"));
    });
    rows.row("O17", "counter by operation", |row| {
        row.family(scrape, "directory_ops_total", "counter", &["operation"]);
        row.value(scrape, "directory_ops_total", &[("operation", "created")], 1.0);
        row.value(scrape, "directory_ops_total", &[("operation", "cleared")], 2.0);
    });
    rows.row("O18", "`event_key = \"message\"`; what the formatter adds is ignored, nothing is refused", |row| {
        row.equal("events", scrape.sum("hydrograph_events_total", &[("source", "log")]), LOG.len() as f64);
        row.equal("refused", scrape.sum("hydrograph_rejected_total", &[("source", "log")]), 0.0);
    });
    rows.row("O19", "`file_ops_write_total`, `file_errors_total{operation}` (two), `file_ops_read_total`, `directory_ops_total`, `file_bytes_total`, in this order", |row| {
        row.equal("file_writes", scrape.sum("file_ops_write_total", &[]), 2.0);
        row.equal("file_write_errors", scrape.sum("file_errors_total", &[("operation", "write")]), 1.0);
        row.equal("file_reads", scrape.sum("file_ops_read_total", &[]), 1.0);
        row.equal("file_read_errors", scrape.sum("file_errors_total", &[("operation", "read")]), 1.0);
        row.equal("directory_ops", scrape.sum("directory_ops_total", &[]), 3.0);
        row.equal("total_bytes", scrape.sum("file_bytes_total", &[]), 500.0);
        row.family(scrape, "file_bytes_total", "counter", &["operation"]);
    });
    for (id, name, help) in
        [("O20", "file_ops_write_total", "Total file writes"), ("O21", "file_ops_read_total", "Total file reads")]
    {
        rows.row(id, "counter by path and operation with the page's help", |row| {
            row.family(scrape, name, "counter", &["path", "operation"]);
            row.equal("help", scrape.helps.get(name).map(String::as_str), Some(help));
        });
    }
    rows.row("O22", "gauge by path, set by write and by read, unit bytes", |row| {
        row.family(scrape, "file_size_bytes", "gauge", &["path"]);
        row.equal("help", scrape.helps.get("file_size_bytes").map(String::as_str), Some("File size in bytes"));
        row.value(scrape, "file_size_bytes", &[("path", "data.txt")], 80.0);
        row.value(scrape, "file_size_bytes", &[("path", "in.txt")], 300.0);
        row.that("unit", run.open_metrics().text().contains("# UNIT file_size_bytes bytes\n"));
    });
    rows.row("O23", "histogram by operation over the latency bounds, unit seconds", |row| {
        let name = "file_operation_duration_seconds";
        row.family(scrape, name, "histogram", &["operation"]);
        row.equal("help", scrape.helps.get(name).map(String::as_str), Some("Time spent on file operations"));
        row.buckets(scrape, name, LATENCY);
        row.histogram(scrape, name, &[("operation", "write")], (1.0, 0.02), &[("0.01", 0.0), ("0.025", 1.0)]);
        row.histogram(scrape, name, &[("operation", "read")], (1.0, 0.004), &[("0.005", 1.0)]);
        row.that("unit", run.open_metrics().text().contains("# UNIT file_operation_duration_seconds seconds\n"));
    });
    rows.row("O24", "the page's example values as labels; `write` and `read` where the record says none", write);
    rows.row("O25", "`start_timer` on a handle of the declared metric", |row| {
        let pipeline = super::embedded("dreamos");
        let operations = pipeline.histogram("file_operation_duration_seconds", &[("operation", "write")]);
        let operations = operations.expect("a declared metric");
        hydrograph::timed!(operations, std::hint::black_box(1 + 1));
        drop(operations.start_timer());
        let count = pipeline.get("file_operation_duration_seconds", &[("operation", "write")]);
        row.equal("timed", count.expect("readable"), 2.0);
        pipeline.stop(std::time::Duration::from_secs(5));
    });
}

fn routes(rows: &mut Rows, run: &System, old: u16) {
    let all = run.server.get("/metrics");
    rows.row("O26", "text 0.0.4", |row| {
        row.that("text", all.status == 200 && all.content_type().starts_with("text/plain; version=0.0.4"));
    });
    let file = run.server.get("/metrics/file");
    rows.row("O27", "the families of group `file` alone; another group is 404 with the list", |row| {
        row.equal("status", file.status, 200);
        let families: Vec<&str> = file.text().lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        row.that("there are seven or eight", (7..=8).contains(&families.len()));
        row.that("only of files", families.iter().all(|f| f.starts_with("file_") || f.starts_with("directory_")));
        let unknown = run.server.get("/metrics/nothing");
        row.that("404 with the list", unknown.status == 404 && unknown.text().contains("file"));
    });
    rows.row("O28", "200 with JSON", |row| {
        let health = run.server.get("/health");
        row.that("ok", health.status == 200 && health.json()["status"] == "ok");
    });
    rows.row("O29", "`listen` with two ports: both answer", |row| {
        let there = http::request(&format!("127.0.0.1:{old}"), "GET", "/metrics", &[], b"");
        row.that("the old port", there.is_ok_and(|answer| answer.status == 200));
        row.equal("the own port", all.status, 200);
    });
    rows.row("O30", "two scrapes by Prometheus's own header", |row| {
        let accept = [("Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4")];
        for _ in 0..2 {
            let answer = run.server.get_with("/metrics", &accept);
            row.that("OpenMetrics to its end", answer.status == 200 && answer.text().ends_with("# EOF\n"));
        }
    });
    rows.row("O42", "a bearer token guards every route but liveness and readiness", |row| {
        // No source of this run listens, since only the routes are asked.
        let guarded = System::start(
            "dreamos",
            &[("HYDROGRAPH_HTTP__TOKEN", "s3cret"), ("HYDROGRAPH_SOURCES__LOG__ENABLED", "false")],
            &[],
        );
        for path in ["/metrics", "/metrics/file", "/health", "/api/metrics", "/"] {
            let answer = guarded.server.get(path);
            row.equal(path, answer.status, 401);
            row.that("says Bearer", answer.headers.get("www-authenticate").is_some_and(|h| h == "Bearer"));
            row.equal(path, guarded.server.get_with(path, &[("Authorization", "Bearer s3cret")]).status, 200);
        }
        row.equal("readiness", guarded.server.get("/readyz").status, 200);
    });
}

fn recorded(rows: &mut Rows, run: &System) {
    let planner = [("agent", "planner")];
    let near = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-9);
    let scrape = run.scrape_when(10, |s| {
        near(s.value("file_error_rate", &[]), 0.4)
            && near(s.value("dreamos_stability", &[]), 0.5)
            && near(s.value("dreamos_agent_error_ratio", &planner), 0.25)
            && near(s.value("error_rate", &[]), 0.25)
            && s.value("dreamos_cache_hit_rate", &[("cache", "prompts")]).is_some()
    });
    rows.row("O2", "and their number, recorded", |row| {
        row.family(&scrape, "dreamos_agents_active", "gauge", &[]);
        row.value(&scrape, "dreamos_agents_active", &[], 1.0);
    });
    rows.row("O4", "and two recorded ratios by agent", |row| {
        row.near("completed", scrape.value("dreamos_agent_completion_ratio", &planner), 0.75);
        row.near("failed", scrape.value("dreamos_agent_error_ratio", &planner), 0.25);
    });
    rows.row("O8", "and a recorded hit rate by cache", |row| {
        row.near("rate", scrape.value("dreamos_cache_hit_rate", &[("cache", "prompts")]), 0.75);
    });
    rows.row("O12", "recorded share of components that are up", |row| {
        row.family(&scrape, "dreamos_stability", "gauge", &[]);
        row.near("share", scrape.value("dreamos_stability", &[]), 0.5);
    });
    let rules = include_str!("../../../pipelines/rules/dreamos.yml");
    rows.row("O36", "`error_rate` recorded: failed over all requests; the rule file has the page's alert", |row| {
        row.family(&scrape, "error_rate", "gauge", &[]);
        row.near("rate", scrape.value("error_rate", &[]), 0.25);
        row.that("the rule", rules.contains("alert: HighErrorRate\n        expr: error_rate > 0.1\n        for: 5m"));
    });
    rows.row("O37", "`file_error_rate` recorded; the rule file has the page's alert", |row| {
        row.near("rate", scrape.value("file_error_rate", &[]), 0.4);
        row.that(
            "the rule",
            rules.contains("alert: HighFileErrorRate\n        expr: file_error_rate > 0.05\n        for: 5m"),
        );
    });
}

/// A path has no bound: a thousand stay apart, the rest is one series.
fn paths(rows: &mut Rows, run: &mut System) {
    let before = run.server.scrape().sum("file_ops_read_total", &[]);
    let mut log = Target::Lines(run.home.socket("log.socket")).connect().expect("the log source listens");
    let mut text = String::new();
    for n in 0..1200 {
        text += &format!("{{\"message\":\"file_read\",\"path\":\"many/{n}\",\"bytes\":1,\"encoding\":\"b\"}}\n");
    }
    log.send(text.as_bytes()).expect("the stream takes the records");
    let scrape = run.server.scrape_until("1,200 reads", |s| s.sum("file_ops_read_total", &[]) == before + 1200.0);
    let distinct = scrape.named("file_ops_read_total").count();
    let other = scrape.value("file_ops_read_total", &operation("other", "read"));
    for id in ["O20", "O21"] {
        rows.row(id, "1,000 paths apart, the rest `other`", |row| {
            row.that(&format!("{distinct} series"), distinct == 1001);
            row.that(&format!("other = {other:?}"), other >= Some(200.0));
        });
    }
    rows.row("O45", "series without samples for `limits.idle` go, and their labels with them", |row| {
        let idle = System::start(
            "dreamos",
            &[
                ("HYDROGRAPH_LIMITS__IDLE", "20s"),
                ("HYDROGRAPH_SLICE", "1s"),
                ("HYDROGRAPH_WINDOW", "10s"),
                ("HYDROGRAPH_SOURCES__LOG__ENABLED", "false"),
            ],
            &[],
        );
        let mut idle = idle;
        idle.send(&[EVENTS[0]]);
        let there = idle.settle(1);
        row.value(&there, "dreamos_agent_memory_bytes", &[("agent", "planner")], 1_048_576.0);
        let gone = idle.scrape_when(50, |s| s.value("dreamos_agent_memory_bytes", &[("agent", "planner")]).is_none());
        row.equal("gone", gone.value("dreamos_agent_memory_bytes", &[("agent", "planner")]), None);
    });
}
