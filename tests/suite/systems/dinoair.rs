//! DinoAir: API, models, errors, sessions, workflows, files, caches, and the machine.

use super::{LATENCY, Rows, SIZE, System};
use crate::harness::{Home, Launch, wait};

const EVENTS: &[&str] = &[
    r#"{"event":"api_request","service":"comfyui","endpoint":"/generate","response_time":1.23,"status_code":200,"method":"POST"}"#,
    r#"{"event":"api_request","service":"comfyui","endpoint":"/generate","response_time":0.5,"status_code":503,"method":"POST"}"#,
    r#"{"event":"api_request","service":"ollama","endpoint":"/api/tags","response_time":0.04,"status_code":404,"method":"GET"}"#,
    r#"{"event":"model_generation","model_name":"llama2-7b","generation_time":15.4,"success":true,"prompt_length":256,"output_length":512}"#,
    r#"{"event":"model_generation","model_name":"llama2-7b","generation_time":3,"success":false}"#,
    r#"{"event":"model_queue","model":"llama2-7b","size":9}"#,
    r#"{"event":"model_queue","model":"llama2-7b","size":4}"#,
    r#"{"event":"error","error_type":"connection_timeout","error_message":"no \"answer\" from comfyui after 30 s","service":"comfyui","severity":"error"}"#,
    r#"{"event":"error","error_type":"connection_timeout","error_message":"no answer","service":"comfyui","severity":"error"}"#,
    r#"{"event":"service_status","service":"comfyui","up":true}"#,
    r#"{"event":"service_status","service":"ollama","up":true}"#,
    r#"{"event":"service_status","service":"whisper","up":false}"#,
    r#"{"event":"workflow_execution","workflow_name":"image_generation","execution_time":45.2,"success":true,"steps_completed":4,"total_steps":5}"#,
    r#"{"event":"file_operation","operation":"upload","file_size":1024000,"duration":2.1,"success":true}"#,
    r#"{"event":"cache_operation","operation":"get","hit":true,"duration":0.002}"#,
    r#"{"event":"cache_operation","operation":"get","hit":false,"duration":0.004}"#,
    r#"{"event":"cache_operation","operation":"get","hit":true,"duration":0.004,"weight":10}"#,
];

pub(super) fn rows() -> Rows {
    let mut rows = Rows::default();
    events(&mut rows);
    sessions(&mut rows);
    expressions(&mut rows);
    switches(&mut rows);
    rows
}

fn events(rows: &mut Rows) {
    // The port and path of the system, its interval shortened.
    let mut run = System::start("dinoair", &[("HYDROGRAPH_SOURCES__HOST__EVERY", "1s")], &[]);
    run.send(EVENTS);
    run.settle(EVENTS.len() as u64);
    // Rates of the machine need a second look.
    let host = ["cpu_usage_percent", "memory_usage_percent", "disk_usage_percent", "network_bandwidth_mbps"];
    let scrape =
        run.scrape_when(20, |scrape| host.iter().all(|name| scrape.named(&format!("dinoair_{name}")).next().is_some()));
    for (id, name, most) in
        [("D1", host[0], 100.0), ("D2", host[1], 100.0), ("D3", host[2], 100.0), ("D4", host[3], 1e6)]
    {
        let name = format!("dinoair_{name}");
        rows.row(id, &format!("`{name}` from the host source, 0 to its most"), |row| {
            row.family(&scrape, &name, "gauge", &[]);
            let value = scrape.value(&name, &[]);
            row.that(&format!("{name} = {value:?}"), value.is_some_and(|value| (0.0..=most).contains(&value)));
            row.that("in use at all", id == "D4" || id == "D1" || value > Some(0.0));
        });
    }
    rows.row("D33", "the machine is read every second when `every` says so by the environment", |row| {
        row.that("both rates came in time", host.iter().all(|n| scrape.value(&format!("dinoair_{n}"), &[]).is_some()));
    });
    rows.row("D5", "no driver, no series; the rest of the file works", |row| {
        let gpu = scrape.named("dinoair_gpu_usage_percent").count();
        row.that("one series a card", std::path::Path::new("/dev/nvidia0").exists() || gpu == 0);
        row.that("the process answers", run.server.get("/readyz").status == 200);
    });

    rows.row("D8", "counter by service, endpoint, method, class of status", |row| {
        let name = "dinoair_custom_api_requests_total";
        row.family(&scrape, name, "counter", &["service", "endpoint", "method", "status"]);
        let mut labels = [("service", "comfyui"), ("endpoint", "/generate"), ("method", "POST"), ("status", "2xx")];
        row.value(&scrape, name, &labels, 1.0);
        labels[3].1 = "5xx";
        row.value(&scrape, name, &labels, 1.0);
    });
    rows.row("D9", "counter of answers of 400 and above", |row| {
        let name = "dinoair_custom_api_errors_total";
        row.family(&scrape, name, "counter", &["service", "endpoint"]);
        row.value(&scrape, name, &[("service", "comfyui"), ("endpoint", "/generate")], 1.0);
        row.value(&scrape, name, &[("service", "ollama"), ("endpoint", "/api/tags")], 1.0);
    });
    rows.row("D11", "histogram with the declared bounds, seconds", |row| {
        let name = "dinoair_custom_api_response_time_seconds";
        row.family(&scrape, name, "histogram", &["service", "endpoint"]);
        row.buckets(&scrape, name, &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let labels = [("service", "comfyui"), ("endpoint", "/generate")];
        row.histogram(&scrape, name, &labels, (2.0, 1.73), &[("0.25", 0.0), ("0.5", 1.0), ("2.5", 2.0)]);
    });
    rows.row("D15", "counter by model and status", |row| {
        let name = "dinoair_custom_model_generations_total";
        row.family(&scrape, name, "counter", &["model", "status"]);
        row.value(&scrape, name, &[("model", "llama2-7b"), ("status", "success")], 1.0);
        row.value(&scrape, name, &[("model", "llama2-7b"), ("status", "error")], 1.0);
    });
    rows.row("D16", "histogram of the successful ones by model, sum over count is the average", |row| {
        let name = "dinoair_custom_model_generation_time_seconds";
        row.family(&scrape, name, "histogram", &["model"]);
        row.buckets(&scrape, name, &[0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0]);
        row.histogram(&scrape, name, &[("model", "llama2-7b")], (1.0, 15.4), &[("10", 0.0), ("20", 1.0)]);
    });
    rows.row("D18", "gauge by model, the last size", |row| {
        row.family(&scrape, "dinoair_custom_model_queue_size", "gauge", &["model"]);
        row.value(&scrape, "dinoair_custom_model_queue_size", &[("model", "llama2-7b")], 4.0);
    });
    rows.row("D19", "two histograms by model; an event without lengths adds nothing to them", |row| {
        for (name, sum) in [("prompt", 256.0), ("output", 512.0)] {
            let name = format!("dinoair_custom_model_{name}_length");
            row.family(&scrape, &name, "histogram", &["model"]);
            row.buckets(&scrape, &name, &[16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0]);
            row.histogram(&scrape, &name, &[("model", "llama2-7b")], (1.0, sum), &[("64", 0.0), ("1024", 1.0)]);
        }
    });
    rows.row("D20", "counter by type, service, severity", |row| {
        let name = "dinoair_custom_errors_total";
        row.family(&scrape, name, "counter", &["type", "service", "severity"]);
        let labels = [("type", "connection_timeout"), ("service", "comfyui"), ("severity", "error")];
        row.value(&scrape, name, &labels, 2.0);
    });
    rows.row("D22", "kept whole with its time, newest first, on `GET /api/v1/recent?kind=events&name=error`", |row| {
        let recent = run.server.get("/api/v1/recent?kind=events&name=error").json();
        let texts: Vec<_> = recent.as_array().into_iter().flatten().map(|item| item["text"].to_string()).collect();
        row.equal("both are kept", texts.len(), 2);
        row.that("the message is whole", texts.iter().any(|text| text.contains("from comfyui after 30 s")));
        row.that("with times", recent.as_array().into_iter().flatten().all(|item| !item["time"].is_null()));
        let labelled = scrape.samples.keys().any(|s| s.labels.values().any(|value| value.contains("answer")));
        row.that("no label holds a message", !labelled);
    });
    rows.row("D23", "counter, histogram and two counters of steps", |row| {
        let by = [("workflow", "image_generation")];
        let executions = "dinoair_custom_workflow_executions_total";
        row.family(&scrape, executions, "counter", &["workflow", "status"]);
        row.value(&scrape, executions, &[by[0], ("status", "success")], 1.0);
        row.family(&scrape, "dinoair_custom_workflow_duration_seconds", "histogram", &["workflow"]);
        row.histogram(
            &scrape,
            "dinoair_custom_workflow_duration_seconds",
            &by,
            (1.0, 45.2),
            &[("30", 0.0), ("60", 1.0)],
        );
        row.value(&scrape, "dinoair_custom_workflow_steps_completed_total", &by, 4.0);
        row.value(&scrape, "dinoair_custom_workflow_steps_total", &by, 5.0);
    });
    rows.row("D24", "counter and two histograms", |row| {
        let by = [("operation", "upload")];
        row.family(&scrape, "dinoair_custom_file_operations_total", "counter", &["operation", "status"]);
        row.value(&scrape, "dinoair_custom_file_operations_total", &[by[0], ("status", "success")], 1.0);
        row.family(&scrape, "dinoair_custom_file_size_bytes", "histogram", &["operation"]);
        row.buckets(&scrape, "dinoair_custom_file_size_bytes", SIZE);
        row.histogram(&scrape, "dinoair_custom_file_size_bytes", &by, (1.0, 1_024_000.0), &[("102400", 0.0)]);
        row.buckets(&scrape, "dinoair_custom_file_duration_seconds", LATENCY);
        row.histogram(&scrape, "dinoair_custom_file_duration_seconds", &by, (1.0, 2.1), &[("1", 0.0), ("2.5", 1.0)]);
    });
    rows.row("D25", "labels instead of names", |row| {
        let by = [("operation", "get")];
        row.family(&scrape, "dinoair_custom_cache_operations_total", "counter", &["operation"]);
        row.value(&scrape, "dinoair_custom_cache_operations_total", &by, 12.0);
        row.value(&scrape, "dinoair_custom_cache_hits_total", &by, 11.0);
        row.family(&scrape, "dinoair_custom_cache_duration_seconds", "histogram", &["operation"]);
        row.histogram(&scrape, "dinoair_custom_cache_duration_seconds", &by, (12.0, 0.046), &[("0.001", 0.0)]);
    });
    rows.row("D66", "`weight`: an event that stands for ten counts as ten, in counters and histograms", |row| {
        row.value(&scrape, "dinoair_custom_cache_operations_total", &[("operation", "get")], 12.0);
        row.value(&scrape, "dinoair_custom_cache_duration_seconds_count", &[("operation", "get")], 12.0);
    });
    rows.row("D14", "declared, so it stands at 0 from the first scrape", |row| {
        row.family(&scrape, "dinoair_custom_sessions_expired_total", "counter", &[]);
        row.value(&scrape, "dinoair_custom_sessions_expired_total", &[], 0.0);
    });

    // The schemas refuse what the page's types do not allow, and name event, field and source.
    let wrong = [
        (
            "D26",
            r#"{"event":"api_request","service":"a","endpoint":"/","response_time":"slow","status_code":200,"method":"GET"}"#,
            "response_time",
        ),
        ("D27", r#"{"event":"model_generation","model_name":"m","generation_time":1,"success":"yes"}"#, "success"),
        ("D28", r#"{"event":"error","error_type":"t","error_message":"m","service":"s"}"#, "severity"),
        ("D29", r#"{"event":"session_start","user_agent":"Mozilla/5.0"}"#, "session_id"),
        (
            "D30",
            r#"{"event":"workflow_execution","workflow_name":"w","execution_time":1,"success":true,"steps_completed":1.5,"total_steps":2}"#,
            "steps_completed",
        ),
        (
            "D31",
            r#"{"event":"file_operation","operation":"o","file_size":"big","duration":1,"success":true}"#,
            "file_size",
        ),
        ("D32", r#"{"event":"cache_operation","operation":"get","duration":1}"#, "hit"),
    ];
    let mut inputs = EVENTS.len() as u64;
    for (id, event, field) in wrong {
        run.send_stream(&[event]);
        inputs += 1;
        let after = run.settle(inputs);
        rows.row(id, "its events above; another type or a missing field is refused by the field's name", |row| {
            row.equal(
                "refused",
                after.sum("hydrograph_rejected_total", &[("source", "app")]),
                (inputs - EVENTS.len() as u64) as f64,
            );
            let named = run.server.rejects().first().map(ToString::to_string).unwrap_or_default();
            row.that(&format!("{field} is named: {named}"), named.contains(field));
        });
    }

    formats(rows, &run);
}

fn formats(rows: &mut Rows, run: &System) {
    let text = run.server.get("/api/metrics");
    let prometheus = run.server.get("/api/metrics?format=prometheus");
    rows.row("D41", "`GET /api/metrics`, text by default and by `format=prometheus`", |row| {
        for answer in [&text, &prometheus] {
            row.equal("status", answer.status, 200);
            row.that("text 0.0.4", answer.content_type().starts_with("text/plain; version=0.0.4"));
            row.that("the families", answer.text().contains("dinoair_custom_api_requests_total{"));
        }
    });
    rows.row("D62", "`metrics_path: /api/metrics`: Prometheus's Accept header gets a format it reads", |row| {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        let answer =
            run.server.get_with("/api/metrics", &[("Accept", accept), ("X-Prometheus-Scrape-Timeout-Seconds", "10")]);
        row.equal("status", answer.status, 200);
        row.that("OpenMetrics or text", answer.content_type().contains("version="));
    });
    let json = run.server.get("/api/metrics?format=json").json();
    rows.row("D42", "`timestamp`, `uptime_seconds`, `metrics`", |row| {
        row.that("timestamp", json["timestamp"].is_string());
        row.that("uptime_seconds", json["uptime_seconds"].as_f64() > Some(0.0));
        row.equal("a value", json["metrics"]["dinoair_custom_model_queue_size"]["value"].as_f64(), Some(4.0));
    });
    rows.row("D59", "every current value on one route, by name", |row| {
        let count = json["metrics"].as_object().map_or(0, serde_json::Map::len);
        row.that(&format!("{count} families"), count >= 20);
        let one = run.server.get("/metrics?name[]=dinoair_custom_model_queue_size");
        row.that("one alone", one.text().contains("model_queue_size") && !one.text().contains("api_requests"));
    });
    let csv = run.server.get("/api/metrics?format=csv");
    let influx = run.server.get("/api/metrics?format=influx");
    rows.row("D43", "`format=csv` and `format=influx`", |row| {
        row.that("CSV", csv.status == 200 && csv.text().contains("dinoair_custom_model_queue_size"));
        row.that(
            "line protocol",
            influx.text().lines().any(|l| l.starts_with("dinoair_custom_model_queue_size,model=llama2-7b ")),
        );
    });
    rows.row("D40", "the four formats of `/api/metrics`", |row| {
        for format in ["prometheus", "json", "csv", "influx"] {
            row.equal(format, run.server.get(&format!("/api/metrics?format={format}")).status, 200);
        }
    });
    rows.row("D51", "an unknown format or widget is 400 with the known ones", |row| {
        let format = run.server.get("/api/metrics?format=xml");
        row.equal("format", format.status, 400);
        row.that(
            "the known formats",
            ["prometheus", "json", "csv", "influx"].iter().all(|f| format.text().contains(f)),
        );
        let widget = run.server.get("/api/metrics/dashboard?widget=nothing");
        row.equal("widget", widget.status, 400);
        row.that("the known widgets", ["overview", "models", "users"].iter().all(|w| widget.text().contains(w)));
    });
    rows.row("D61", "`GET /health`: status, parts, reasons", |row| {
        let health = run.server.get("/health");
        row.equal("status", health.status, 200);
        row.equal("ok", health.json()["status"].as_str().map(str::to_owned), Some("ok".to_owned()));
    });
    rows.row("D52", "`GET /monitoring` answers the page", |row| {
        let page = run.server.get_with("/monitoring", &[("Accept", "text/html")]);
        row.that("a page", page.status == 200 && page.content_type().starts_with("text/html"));
    });
}

/// Pairs over two sockets and through `kill -9`, on a store file of the page's own choice.
fn sessions(rows: &mut Rows) {
    let mut run = System::start(
        "dinoair",
        &[
            ("HYDROGRAPH_STORE__PATH", "metrics.redb"),
            ("HYDROGRAPH_ACCEPT_LATE", "24h"),
            ("HYDROGRAPH_SOURCES__HOST__ENABLED", "false"),
            ("HYDROGRAPH_LATENESS", "2s"),
        ],
        &[],
    );
    let at = |seconds_ago: f64| wait::epoch_seconds() - seconds_ago;
    run.send(&[
        r#"{"event":"session_start","session_id":"a","user_agent":"Mozilla/5.0 (X11; Linux)"}"#,
        r#"{"event":"session_start","session_id":"b"}"#,
        &format!(r#"{{"event":"session_start","session_id":"c","time":{:.6}}}"#, at(100.0)),
    ]);
    let opened = run.scrape_when(20, |s| s.value("dinoair_custom_active_sessions", &[]) == Some(3.0));
    rows.row("D12", "open pairs as a gauge", |row| {
        row.family(&opened, "dinoair_custom_active_sessions", "gauge", &[]);
        row.value(&opened, "dinoair_custom_active_sessions", &[], 3.0);
    });
    rows.row("D35", "`store.path` from the environment is the file it writes", |row| {
        row.that("the file", run.home.store("metrics.redb").is_file());
    });
    let mut run = run.kill_and_start();
    let again = run.server.scrape();
    rows.row("D12", "also after `kill -9` on the same store, without a new event", |row| {
        row.value(&again, "dinoair_custom_active_sessions", &[], 3.0);
    });
    // An end of a session from before the kill, over the other socket, and an end that overtakes its start.
    run.send_stream(&[
        r#"{"event":"session_end","session_id":"c"}"#,
        &format!(r#"{{"event":"session_end","session_id":"d","time":{:.6}}}"#, at(0.0)),
    ]);
    run.send(&[&format!(r#"{{"event":"session_start","session_id":"d","time":{:.6}}}"#, at(400.0))]);
    let ended = run.scrape_when(20, |s| s.value("dinoair_custom_session_durations_count", &[]) == Some(2.0));
    rows.row("D12", "an end that overtakes its start pairs", |row| {
        row.value(&ended, "dinoair_custom_active_sessions", &[], 2.0);
    });
    rows.row("D13", "histogram of seconds under the page's name, without `# UNIT`", |row| {
        let name = "dinoair_custom_session_durations";
        row.family(&ended, name, "histogram", &[]);
        row.buckets(&ended, name, &[60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0]);
        for (bound, count) in [("60", 0.0), ("300", 1.0), ("900", 2.0)] {
            row.value(&ended, &format!("{name}_bucket"), &[("le", bound)], count);
        }
        let sum = ended.value("dinoair_custom_session_durations_sum", &[]).unwrap_or(0.0);
        row.that(&format!("100 s and 400 s: {sum}"), (499.0..530.0).contains(&sum));
        row.that("no unit line", !run.open_metrics().text().contains("# UNIT dinoair_custom_session_durations"));
    });
    rows.row("D29", "starts without a user agent, and no label holds one", |row| {
        let labelled = again.samples.keys().any(|s| s.labels.values().any(|value| value.contains("Mozilla")));
        row.that("no label", !labelled);
        row.equal("none refused", ended.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
    });
    run.send(&[&format!(r#"{{"event":"session_start","session_id":"e","time":{:.6}}}"#, at(12.0 * 3600.0 + 5.0))]);
    let expired = run.scrape_when(30, |s| s.value("dinoair_custom_sessions_expired_total", &[]) == Some(1.0));
    rows.row("D14", "after 12 h: counted as expired, gauge down, not in the histogram", |row| {
        row.value(&expired, "dinoair_custom_sessions_expired_total", &[], 1.0);
        row.value(&expired, "dinoair_custom_active_sessions", &[], 2.0);
        row.value(&expired, "dinoair_custom_session_durations_count", &[], 2.0);
    });
}

/// What is computed at slice edges, without a machine whose load would move the score.
fn expressions(rows: &mut Rows) {
    let mut run =
        System::start("dinoair", &[("HYDROGRAPH_SOURCES__HOST__ENABLED", "false"), ("HYDROGRAPH_SLICE", "1s")], &[]);
    let before = run.scrape_when(10, |s| s.value("dinoair_system_health_score", &[]).is_some());
    rows.row("D6", "gauge, 100 from the first slice", |row| {
        row.family(&before, "dinoair_system_health_score", "gauge", &[]);
        row.value(&before, "dinoair_system_health_score", &[], 100.0);
    });
    rows.row("D7", "0 when there is none", |row| {
        row.value(&before, "dinoair_active_services_total", &[], 0.0);
    });
    rows.row("D21", "0 before the first error", |row| {
        row.value(&before, "dinoair_custom_error_rate_per_minute", &[], 0.0);
    });
    run.send(EVENTS);
    let after = run.scrape_when(10, |s| {
        s.value("dinoair_custom_error_rate_per_minute", &[]) == Some(0.4)
            && s.value("dinoair_active_services_total", &[]) == Some(2.0)
            && s.value("dinoair_custom_cache_hit_rate", &[("operation", "get")]).is_some()
            && s.value("dinoair_custom_api_response_time_avg", &[("service", "comfyui")]).is_some()
    });
    rows.row("D6", "two points off for each error a minute", |row| {
        row.near("score", after.value("dinoair_system_health_score", &[]), 99.2);
    });
    rows.row("D7", "gauge under its own name in every format: the sum of `dinoair_service_up`", |row| {
        row.family(&after, "dinoair_active_services_total", "gauge", &[]);
        row.value(&after, "dinoair_active_services_total", &[], 2.0);
        row.value(&after, "dinoair_service_up", &[("service", "whisper")], 0.0);
        row.that("OpenMetrics", run.open_metrics().text().contains("# TYPE dinoair_active_services_total gauge\n"));
    });
    rows.row("D10", "gauge by service, without a unit line", |row| {
        row.family(&after, "dinoair_custom_api_response_time_avg", "gauge", &["service"]);
        let average = after.value("dinoair_custom_api_response_time_avg", &[("service", "comfyui")]);
        row.near("average", average, 0.865);
        row.that("no unit line", !run.open_metrics().text().contains("# UNIT dinoair_custom_api_response_time_avg"));
    });
    rows.row("D21", "gauge, errors a minute over 5 minutes", |row| {
        row.family(&after, "dinoair_custom_error_rate_per_minute", "gauge", &[]);
        row.near("rate", after.value("dinoair_custom_error_rate_per_minute", &[]), 0.4);
    });
    rows.row("D25", "and a recorded hit rate", |row| {
        row.near("rate", after.value("dinoair_custom_cache_hit_rate", &[("operation", "get")]), 11.0 / 12.0);
    });
    let overview = run.widget_when("overview", |shown| shown["total_requests"].as_f64() == Some(3.0));
    rows.row("D44", "`GET /api/metrics/dashboard?widget=overview`", |row| {
        row.near("error_rate", overview["error_rate"].as_f64(), 0.4);
        row.near("health_score", overview["health_score"].as_f64(), 99.2);
        row.near("total_requests", overview["total_requests"].as_f64(), 3.0);
        row.that("resources", overview["resources"].is_object());
    });
    let models = run.widget_when("models", |shown| shown["success_rate"].to_string().contains("0.5"));
    rows.row("D17", "`success_rate` of widget `models`, by model", |row| {
        row.that(&format!("a half: {}", models["success_rate"]), models["success_rate"].to_string().contains("0.5"));
    });
    rows.row(
        "D63",
        "the rule's expression `dinoair_custom_error_rate_per_minute > 5` reads a value that is there",
        |row| {
            row.that("the gauge", after.value("dinoair_custom_error_rate_per_minute", &[]).is_some());
            row.that(
                "the rule",
                include_str!("../../../pipelines/rules/dinoair.yml")
                    .contains("dinoair_custom_error_rate_per_minute > 5"),
            );
        },
    );
    rows.row("D64", "the rule's expression `dinoair_cpu_usage_percent > 90` (D1)", |row| {
        row.that(
            "the rule",
            include_str!("../../../pipelines/rules/dinoair.yml").contains("dinoair_cpu_usage_percent > 90"),
        );
    });
}

fn switches(rows: &mut Rows) {
    let off = [
        ("HYDROGRAPH_SOURCES__HOST__ENABLED", "false"),
        ("HYDROGRAPH_EVENTS__API_REQUEST__ENABLED", "false"),
        ("HYDROGRAPH_PAIRS__SESSION__ENABLED", "false"),
        ("HYDROGRAPH_METRICS__CUSTOM_ERRORS_TOTAL__ENABLED", "false"),
    ];
    let home = Home::new();
    let check = |variables: &[(&str, &str)]| {
        let mut launch = Launch::new(&home).arg("check").arg(super::running::shipped("dinoair"));
        for (key, value) in variables {
            launch = launch.env(key, *value);
        }
        launch.finish()
    };
    let (all, less) = (check(&[]), check(&off));
    rows.row("D36", "`enabled = false` on a source, an event, a pair, a metric, here by the environment", |row| {
        row.that(&format!("both plans are valid: {}", less.said()), all.status.success() && less.status.success());
        for name in
            ["dinoair_cpu_usage_percent", "custom_api_requests_total", "custom_active_sessions", "custom_errors_total"]
        {
            row.that(&format!("{name} is in the whole plan"), all.stdout.contains(name));
        }
        let metrics = |text: &str| text.lines().filter(|line| line.contains("dinoair_")).count();
        row.that("fewer metrics", metrics(&less.stdout) < metrics(&all.stdout));
        row.that("no requests", !less.stdout.contains("custom_api_requests_total "));
    });
    rows.row("D33", "15 s to 60 s are valid", |row| {
        for every in ["15s", "60s"] {
            row.that(every, check(&[("HYDROGRAPH_SOURCES__HOST__EVERY", every)]).status.success());
        }
    });
    rows.row("D67", "`--log` with a level and levels of parts", |row| {
        let logged = Launch::new(&home)
            .args(["--log", "warn,store=debug,source=info", "check"])
            .arg(super::running::shipped("dinoair"));
        row.that("accepted", logged.finish().status.success());
        let wrong = Launch::new(&home).args(["--log", "loudly", "check"]).arg(super::running::shipped("dinoair"));
        row.that("an unknown level is refused", !wrong.finish().status.success());
    });
    // A metric and a widget of the user's own, beside the shipped file.
    let own = "[metrics.custom_scans_total]\ntype = \"counter\"\nhelp = \"Scans\"\n";
    let mut run = System::start("dinoair", &[("HYDROGRAPH_SOURCES__HOST__ENABLED", "false")], &[own]);
    run.send(&["custom.scans:3|c"]);
    let scrape = run.settle(1);
    rows.row(
        "D69",
        "a metric of the user's own file beside the shipped one; sources, sinks and codecs are one file each",
        |row| {
            row.equal(
                "counted",
                scrape.sum("dinoair_custom_scans_total", &[]) + scrape.sum("custom_scans_total", &[]),
                3.0,
            );
        },
    );
}
