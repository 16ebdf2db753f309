//! Stock clients, unchanged: what they send shows up in `/metrics` with exactly its value.

use crate::harness::{Home, Pipeline, Scrape, Server};
use crate::peers;
use std::process::Command;

/// Name, labels, value.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

fn check(scrape: &Scrape, rows: &[Row<'_>]) {
    for (name, labels, expected) in rows {
        assert_eq!(scrape.value(name, labels), Some(*expected), "{name}{labels:?}");
    }
}

fn started() -> (Home, Pipeline, Server) {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    (home, pipeline, server)
}

/// PyPI `datadog` found by `DD_DOGSTATSD_URL`, over the datagram socket.
#[test]
fn pypi_datadog_over_the_datagram_socket() {
    let Some(python) = peers::python_or_skip("pypi_datadog_over_the_datagram_socket") else { return };
    let (home, _, server) = started();
    let url = format!("unix://{}", home.socket("dsd.socket").display());
    datadog(Command::new(python).arg(peers::client("datadog_client.py")).env("DD_DOGSTATSD_URL", url), &server);
}

/// PyPI `datadog` on a stream socket, where it writes length prefixes.
#[test]
fn pypi_datadog_over_the_stream_socket() {
    let Some(python) = peers::python_or_skip("pypi_datadog_over_the_stream_socket") else { return };
    let (home, _, server) = started();
    let socket = format!("unixstream://{}", home.socket("dsd-stream.socket").display());
    datadog(Command::new(python).arg(peers::client("datadog_client.py")).arg(socket), &server);
}

fn datadog(command: &mut Command, server: &Server) {
    peers::run(command, b"");
    // The last thing the client sends is the service check.
    server.scrape_until("the service check", |s| s.sum("service_check_status", &[("check", "py.check")]) == 1.0);
    let scrape = server.await_laws(None);
    check(
        &scrape,
        &[
            ("py_orders_total", &[("region", "eu")], 100.0),
            ("py_orders_total", &[("region", "us"), ("canary", "true")], 200.0),
            ("py_balance_up_total", &[], 5.0),
            ("py_depth", &[], 21.5),
            ("py_took_seconds_count", &[], 1.0),
            ("py_took_seconds_sum", &[], 0.042),
            ("py_size_sum", &[], 40.0),
            ("py_size_count", &[], 2.0),
            ("py_spread_sum", &[], 7.0),
            ("py_users", &[], 2.0),
            ("py_block_seconds_count", &[], 1.0),
        ],
    );
    assert_eq!(scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
    assert!(scrape.types.keys().all(|f| !f.contains("client_")), "the client's telemetry stays out of sight");
    let internal = server.get("/metrics/internal");
    assert!(internal.text().contains("hydrograph_client_metrics"), "{}", internal.text());
    assert_eq!(
        scrape.value("hydrograph_notices_total", &[("source", "app")]),
        Some(2.0),
        "an event and a service check"
    );
}

/// npm `hot-shots` found by `DD_DOGSTATSD_URL`.
#[test]
fn npm_hot_shots_over_the_datagram_socket() {
    let test = "npm_hot_shots_over_the_datagram_socket";
    let modules = peers::tools().join("npm/node_modules");
    let Some(node) = peers::find_or_skip(test, "node") else { return };
    if !modules.join("hot-shots").exists() || !modules.join("unix-dgram").exists() {
        return crate::harness::wait::skip(test, "hot-shots is not installed under target/test-tools");
    }
    let (home, _, server) = started();
    let mut command = Command::new(node);
    command.arg(peers::client("hot_shots_client.js")).env("NODE_PATH", modules);
    command.env("DD_DOGSTATSD_URL", format!("unix://{}", home.socket("dsd.socket").display()));
    peers::run(&mut command, b"");
    server
        .scrape_until("the last line", |s| s.value("js_users", &[]) == Some(2.0) && s.sum("js_spread_sum", &[]) == 7.0);
    let scrape = server.await_laws(None);
    check(
        &scrape,
        &[
            ("js_orders_total", &[("region", "eu")], 100.0),
            ("js_orders_total", &[("region", "us")], 200.0),
            ("js_depth", &[], 21.5),
            ("js_took_seconds_sum", &[], 0.042),
            ("js_size_sum", &[], 40.0),
            ("js_size_count", &[], 2.0),
            ("js_users", &[], 2.0),
        ],
    );
    assert_eq!(scrape.sum("hydrograph_rejected_total", &[("source", "app")]), 0.0);
}

/// PyPI `statsd` over a Unix stream, whose framing is newlines.
#[test]
fn pypi_statsd_over_the_stream_socket() {
    let Some(python) = peers::python_or_skip("pypi_statsd_over_the_stream_socket") else { return };
    let (home, _, server) = started();
    let mut command = Command::new(python);
    command.arg(peers::client("statsd_client.py")).arg(home.socket("dsd-stream.socket"));
    peers::run(&mut command, b"");
    // 100 increments, 3 gauges of which the negative one is two lines, 2 sets, 2 timings, 1 piped increment.
    let scrape = server.await_laws(Some(109));
    check(
        &scrape,
        &[
            ("etsy_hits_total", &[], 200.0),
            ("etsy_took_seconds_count", &[], 2.0),
            ("etsy_took_seconds_sum", &[], 0.4),
            ("etsy_depth", &[], 15.0),
            ("etsy_debt", &[], -3.0),
            ("etsy_users", &[], 2.0),
            ("etsy_piped_total", &[], 7.0),
        ],
    );
}

/// One line of shell, without any client: bash's own UDP and TCP, and Python's standard library for the datagram socket.
#[test]
fn a_shell_one_liner() {
    let Some(bash) = peers::find_or_skip("a_shell_one_liner", "bash") else { return };
    let (_home, pipeline, server) = started();
    for (protocol, port) in [("udp", pipeline.udp), ("tcp", pipeline.tcp)] {
        let line = format!("echo 'deploys.{protocol}:1|c|#env:prod' > /dev/{protocol}/127.0.0.1/{port}");
        peers::run(Command::new(&bash).args(["-c", &line]), b"");
        server.await_value(&format!("deploys_{protocol}_total"), &[("env", "prod")], 1.0);
    }
    server.await_laws(Some(2));
}

/// PyPI `prometheus-client`: its strict OpenMetrics parser and its text parser accept every exposition, however hostile
/// what stands behind it.
#[test]
fn pypi_prometheus_client_accepts_every_exposition() {
    let Some(python) = peers::python_or_skip("pypi_prometheus_client_accepts_every_exposition") else { return };
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.http_keys = "created = true".to_owned();
    pipeline.tail = "[metrics.plain]\ntype = \"counter\"\nhelp = \"A counter that does not end in _total\"\n\
         [metrics.latency_seconds]\ntype = \"histogram\"\nhelp = \"A \\\\ and a \\\" and a \\n in help\"\n\
         buckets = [0.005, 0.01, 0.1]\nexpose = [\"histogram\", \"summary\"]\n\
         [metrics.empty_seconds]\ntype = \"summary\"\nhelp = \"Never filled\"\n"
        .to_owned();
    let server = pipeline.start(&home);
    let mut parsed = 0;
    let mut check_all = |server: &Server| {
        for path in ["/metrics", "/metrics/internal"] {
            for (parser, accept) in
                [("openmetrics", "application/openmetrics-text; version=1.0.0"), ("text", "text/plain")]
            {
                let response = server.get_with(path, &[("Accept", accept)]);
                assert!(response.content_type().starts_with(accept.split(';').next().unwrap_or(accept)));
                let mut command = Command::new(&python);
                command.arg(peers::client("openmetrics_check.py")).arg(parser);
                peers::run(&mut command, &response.body);
                parsed += 1;
            }
        }
    };
    check_all(&server);
    let lines = "plain:3|c\nlatency:1:7:50:5000|ms\nq.size:1:2:3|h|#a:x\"y,b:p\\q,c:{z}\nq.neg:-5:5|d\nq.temp:-1.5|g\nq.u:a|s\n\
         q.big:1e17|c\nq.unit_seconds:3|d\nq.bytes:1000|g\nq.info:1|g\nq.€:1|c|#€:€\nq.x_sum:1|c\nq.x_count:1|g\nq.x:1|h\n\
         q.x_bucket:1|g\nq.y:1|ms\nq.y_seconds_created:1|g\nq.state:1|c|#empty:,t\n";
    let answer = server.post("/api/v1/lines", &[("Content-Type", "text/plain")], lines.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.scrape();
    check_all(&server);
    server.kill();
    let server = pipeline.start(&home);
    check_all(&server);
    assert_eq!(parsed, 12);
}
