//! Digital Actors: messages to characters, the calls behind them, connections, and a guarded scrape.

use super::{LATENCY, Rows, System};
use crate::harness::Scrape;

const EVENTS: &[&str] = &[
    r#"{"event":"message","scene":"tavern","character":"eleanor","status":"success","response_time":1.8}"#,
    r#"{"event":"message","scene":"tavern","character":"eleanor","status":"success","response_time":0.4}"#,
    r#"{"event":"message","scene":"tavern","character":"eleanor","status":"error"}"#,
    r#"{"event":"message","scene":"dock","character":"mara","status":"success","response_time":12}"#,
    r#"{"event":"llm_call","provider":"anthropic","model":"claude","duration":1.1}"#,
    r#"{"event":"llm_call","provider":"anthropic","model":"claude","duration":0.9}"#,
    r#"{"event":"tts_call","duration":0.7}"#,
    r#"{"event":"db_query","operation":"select","duration":0.004}"#,
    r#"{"event":"actor_error","error_type":"llm","message":"overloaded, try later"}"#,
    r#"{"event":"websocket_open","session_id":"a"}"#,
    r#"{"event":"websocket_open","session_id":"b"}"#,
    r#"{"event":"websocket_close","session_id":"a"}"#,
    r#"{"metric":"custom_operation_seconds","type":"histogram","value":0.7,"unit":"s"}"#,
    "custom_events:1|c|#event_type:player_action,env:prod",
];

fn full(name: &str) -> String {
    format!("digital_actors_{name}")
}

/// A store of 10 GB belongs on a disk, not in this test's memory, and slices of a second need their own tier.
const SMALL: [(&str, &str); 3] =
    [("HYDROGRAPH_STORE__MAX_SIZE", "256MiB"), ("HYDROGRAPH_STORE__RETENTION", "24h"), ("HYDROGRAPH_SLICE", "1s")];

/// The page's queries as metrics of a second file, so that the running process answers them.
const QUERIES: &str = r#"
[metrics.query_request_rate]
type = "gauge"
help = "A12"
from = { expr = "rate(digital_actors_requests_total[5m])", labels = ["scene", "character", "status"] }
[metrics.query_p95]
type = "gauge"
help = "A13"
from = { expr = "histogram_quantile(0.95, rate(digital_actors_response_time_seconds_bucket[5m]))", labels = ["scene", "character"] }
[metrics.query_error_rate]
type = "gauge"
help = "A14"
from = { expr = "rate(digital_actors_errors_total[5m]) / rate(digital_actors_requests_total[5m])", labels = ["error_type"] }
[metrics.query_llm_average]
type = "gauge"
help = "A15"
from = { expr = "rate(digital_actors_llm_latency_seconds_sum[5m]) / rate(digital_actors_llm_latency_seconds_count[5m])", labels = ["provider", "model"] }
"#;

pub(super) fn rows() -> Rows {
    let mut rows = Rows::default();
    let mut run = System::start("digital_actors", &SMALL, &[QUERIES]);
    run.send(EVENTS);
    let scrape = run.settle(EVENTS.len() as u64);
    metrics(&mut rows, &scrape);
    routes(&mut rows, &run);
    computed(&mut rows, &run);
    guarded(&mut rows);
    rows
}

fn metrics(rows: &mut Rows, scrape: &Scrape) {
    let eleanor = [("scene", "tavern"), ("character", "eleanor")];
    rows.row("A1", "counter by scene, character, status", |row| {
        let name = full("requests_total");
        row.family(scrape, &name, "counter", &["scene", "character", "status"]);
        row.value(scrape, &name, &[eleanor[0], eleanor[1], ("status", "success")], 2.0);
        row.value(scrape, &name, &[eleanor[0], eleanor[1], ("status", "error")], 1.0);
    });
    rows.row("A2", "histogram by scene and character over the latency list, 10 and 30", |row| {
        let name = full("response_time_seconds");
        row.family(scrape, &name, "histogram", &["scene", "character"]);
        let mut bounds = LATENCY.to_vec();
        bounds.extend([10.0, 30.0]);
        row.buckets(scrape, &name, &bounds);
        row.histogram(scrape, &name, &eleanor, (2.0, 2.2), &[("0.25", 0.0), ("0.5", 1.0), ("2.5", 2.0)]);
        row.histogram(
            scrape,
            &name,
            &[("scene", "dock"), ("character", "mara")],
            (1.0, 12.0),
            &[("10", 0.0), ("30", 1.0)],
        );
    });
    rows.row("A3", "gauge of open pairs", |row| {
        row.family(scrape, &full("active_sessions"), "gauge", &[]);
        row.value(scrape, &full("active_sessions"), &[], 1.0);
    });
    rows.row("A4", "histogram by provider and model", |row| {
        let name = full("llm_latency_seconds");
        row.family(scrape, &name, "histogram", &["provider", "model"]);
        row.histogram(
            scrape,
            &name,
            &[("provider", "anthropic"), ("model", "claude")],
            (2.0, 2.0),
            &[("1", 1.0), ("2.5", 2.0)],
        );
    });
    rows.row("A5", "histogram", |row| {
        row.family(scrape, &full("tts_latency_seconds"), "histogram", &[]);
        row.histogram(scrape, &full("tts_latency_seconds"), &[], (1.0, 0.7), &[("0.5", 0.0), ("1", 1.0)]);
    });
    rows.row("A6", "histogram by operation", |row| {
        let name = full("db_query_seconds");
        row.family(scrape, &name, "histogram", &["operation"]);
        row.histogram(scrape, &name, &[("operation", "select")], (1.0, 0.004), &[("0.001", 0.0), ("0.005", 1.0)]);
    });
    rows.row("A7", "counter by type", |row| {
        row.family(scrape, &full("errors_total"), "counter", &["error_type"]);
        row.value(scrape, &full("errors_total"), &[("error_type", "llm")], 1.0);
    });
    rows.row("A9", "histogram declared with `inf`, filled by a JSON sample", |row| {
        let name = full("custom_operation_seconds");
        row.family(scrape, &name, "histogram", &[]);
        row.buckets(scrape, &name, &[0.1, 0.5, 1.0, 5.0, 10.0]);
        row.histogram(scrape, &name, &[], (1.0, 0.7), &[("0.5", 0.0), ("1", 1.0), ("+Inf", 1.0)]);
    });
    rows.row("A10", "counter by event type, filled by a stock client", |row| {
        row.family(scrape, &full("custom_events_total"), "counter", &["event_type"]);
        row.value(scrape, &full("custom_events_total"), &[("event_type", "player_action")], 1.0);
    });
    rows.row("A32", "the seven events of the instrumented functions, none refused", |row| {
        row.equal("refused", scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
        row.equal("taken", scrape.sum("hydrograph_events_total", &[("source", "app")]), EVENTS.len() as f64);
    });
}

fn routes(rows: &mut Rows, run: &System) {
    rows.row("A11", "both routes", |row| {
        row.equal("metrics", run.server.get("/metrics").status, 200);
        row.equal("health", run.server.get("/health").status, 200);
    });
    rows.row("A31", "a route is a route: `/metrics` answers beside a page at `/` and 404 elsewhere", |row| {
        row.equal("metrics", run.server.get("/metrics").status, 200);
        row.equal("page", run.server.get("/").status, 200);
        row.equal("elsewhere", run.server.get("/metrics-of-nobody").status, 404);
        row.equal("up", run.server.scrape().value("hydrograph_up", &[]), Some(1.0));
    });
    rows.row("A30", "a scrape of this system zipped: about 10 KB or less", |row| {
        let zipped = run.server.get_with("/metrics", &[("Accept-Encoding", "gzip")]);
        row.that(&format!("{} bytes", zipped.body.len()), zipped.status == 200 && zipped.body.len() <= 12_000);
    });
}

fn computed(rows: &mut Rows, run: &System) {
    let scrape = run.scrape_when(10, |s| {
        s.value(&full("error_ratio"), &[]) == Some(0.25) && s.named(&full("query_llm_average")).count() == 1
            || s.named("query_llm_average").count() == 1
    });
    let find =
        |name: &str, labels: &[(&str, &str)]| scrape.value(&full(name), labels).or_else(|| scrape.value(name, labels));
    rows.row("A8", "recorded: sum over sum of 5 minutes", |row| {
        row.family(&scrape, &full("error_ratio"), "gauge", &[]);
        row.near("ratio", scrape.value(&full("error_ratio"), &[]), 0.25);
    });
    rows.row("A12", "the page's query as a recorded expression", |row| {
        let by = [("scene", "tavern"), ("character", "eleanor"), ("status", "success")];
        let rate = find("query_request_rate", &by);
        row.that(&format!("{rate:?}"), rate.is_some_and(|rate| rate > 0.0));
    });
    rows.row("A13", "the page's query, without `by (le)`, as a recorded expression", |row| {
        let p95 = find("query_p95", &[("scene", "tavern"), ("character", "eleanor")]);
        row.that(&format!("{p95:?}"), p95.is_some_and(|p95| (1.0..=2.5).contains(&p95)));
    });
    rows.row(
        "A14",
        "the page's query as a recorded expression: labels differ, so it is empty, as in Prometheus",
        |row| {
            // It was evaluated in the same slices as its neighbour, which has a value.
            row.that(
                "the neighbour",
                find("query_llm_average", &[("provider", "anthropic"), ("model", "claude")]).is_some(),
            );
            row.equal(
                "empty",
                scrape.named(&full("query_error_rate")).count() + scrape.named("query_error_rate").count(),
                0,
            );
        },
    );
    rows.row("A15", "the page's query as a recorded expression", |row| {
        row.near("average", find("query_llm_average", &[("provider", "anthropic"), ("model", "claude")]), 1.0);
    });
}

/// The token of the page's variable; the file says `token = "${METRICS_TOKEN:-}"`.
fn guarded(rows: &mut Rows) {
    let mut variables = SMALL.to_vec();
    variables.push(("METRICS_TOKEN", "s3cret"));
    let mut run = System::start("digital_actors", &variables, &[]);
    rows.row("A28", "`METRICS_TOKEN` guards `/metrics`: none or a wrong one is 401 with `WWW-Authenticate: Bearer`; unset is open (A11)", |row| {
        for wrong in ["", "Bearer wrong", "Basic s3cret", "Bearer s3cret2"] {
            let answer = run.server.get_with("/metrics", &[("Authorization", wrong)]);
            row.equal(wrong, answer.status, 401);
            row.equal("header", answer.headers.get("www-authenticate").map(String::as_str), Some("Bearer"));
        }
        row.equal("right", run.server.get_with("/metrics", &[("Authorization", "Bearer s3cret")]).status, 200);
        row.that("never printed", !run.server.said().contains("s3cret"));
    });
    // Open connections outlive the process.
    variables.pop();
    variables.push(("HYDROGRAPH_STORE__PATH", "actors.redb"));
    run = System::start("digital_actors", &variables, &[]);
    run.send(&[r#"{"event":"websocket_open","session_id":"a"}"#, r#"{"event":"websocket_open","session_id":"b"}"#]);
    run.settle(2);
    let mut run = run.kill_and_start();
    run.send_stream(&[r#"{"event":"websocket_close","session_id":"b"}"#]);
    let scrape = run.scrape_when(20, |s| s.value(&full("active_sessions"), &[]) == Some(1.0));
    rows.row("A3", "also through `kill -9`, opened on one socket and closed on another", |row| {
        row.value(&scrape, &full("active_sessions"), &[], 1.0);
    });
}
