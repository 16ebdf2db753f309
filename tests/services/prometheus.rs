//! Debian's Prometheus scrapes the real endpoint; promtool finds nothing to say about the default pipeline.

use crate::harness::server::free_port;
use crate::harness::{Home, Launch, Pipeline, http, wait};
use crate::peers;
use std::process::{Child, Command, Stdio};

/// A peer that goes with its value.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The value of an instant query that answers one series.
fn query(address: &str, expr: &str) -> Option<f64> {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in expr.bytes() {
        path.push_str(&format!("%{byte:02X}"));
    }
    let answer = http::request(address, "GET", &path, &[], b"").ok()?;
    if answer.status != 200 {
        return None;
    }
    answer.json()["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn prometheus_scrapes_it() {
    let Some(program) = peers::find_or_skip("prometheus_scrapes_it", "prometheus") else { return };
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let secret = home.write("token", "s3cret");
    pipeline.http_keys = format!("token_file = \"{}\"\n", secret.display());
    pipeline.tail =
        "[metrics.latency_seconds]\ntype = \"histogram\"\nhelp = \"Latency\"\nbuckets = [0.01, 0.1]\n".to_owned();
    let server = pipeline.start(&home);
    let headers = [("Authorization", "Bearer s3cret"), ("Content-Type", "text/plain")];
    let lines = b"orders:41|c|#region:eu\norders:1|c|#region:eu\nlatency:5:50:500|ms\ntook:20|ms\ntemp:-4.5|g\nq:1|c|#a:x\"y\\z\n";
    assert_eq!(server.post("/api/v1/lines", &headers, lines).status, 200);

    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: hydrograph\n  authorization: \
         {{type: Bearer, credentials_file: {}}}\n  static_configs: [{{targets: ['{}']}}]\n",
        secret.display(),
        pipeline.address()
    );
    let config = home.write("prometheus.yml", &config);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={address}"));
    command.arg(format!("--storage.tsdb.path={}", home.path().join("prometheus").display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
    let _peer = Peer(command.spawn().expect("Prometheus starts"));

    let eventually = |expr: &str, expected: f64| {
        let mut last = None;
        let reached = wait::within(wait::PATIENCE, || {
            last = query(&address, expr);
            (last == Some(expected)).then_some(())
        });
        assert!(reached.is_some(), "{expr} answers {last:?}, not {expected}");
    };
    eventually("up", 1.0);
    eventually("orders_total{region=\"eu\"}", 42.0);
    eventually("latency_seconds_bucket{le=\"0.1\"}", 2.0);
    eventually("latency_seconds_bucket{le=\"+Inf\"}", 3.0);
    eventually("latency_seconds_count", 3.0);
    eventually("took_seconds{quantile=\"0.5\"}", 0.02);
    eventually("temp", -4.5);
    eventually("q_total{a=\"x\\\"y\\\\z\"}", 1.0);
    eventually("hydrograph_up", 1.0);
    // It goes on while more comes, and a killed and restarted server is no counter reset.
    assert_eq!(server.post("/api/v1/lines", &headers, b"orders:8|c|#region:eu\n").status, 200);
    eventually("orders_total{region=\"eu\"}", 50.0);
    server.kill();
    let _server = pipeline.start(&home);
    eventually("up", 1.0);
    eventually("orders_total{region=\"eu\"}", 50.0);
    eventually("resets(orders_total{region=\"eu\"}[5m])", 0.0);
}

#[test]
fn promtool_has_nothing_to_say_about_the_default_pipeline() {
    let Some(promtool) = peers::find_or_skip("promtool_has_nothing_to_say_about_the_default_pipeline", "promtool")
    else {
        return;
    };
    let home = Home::new();
    let address = format!("127.0.0.1:{}", free_port());
    let server = Launch::new(&home).arg("run").env("HYDROGRAPH_HTTP__LISTEN", &address).start(&address);
    let lines = b"checkout.latency:42|ms|#region:eu\norders:1|c\nload:3:4|d\ndepth:5|g\nusers:ann|s\n";
    assert_eq!(server.post("/api/v1/lines", &[("Content-Type", "text/plain")], lines).status, 200);
    for path in ["/metrics", "/metrics/internal"] {
        let body = server.get(path);
        let output = peers::run(Command::new(&promtool).args(["check", "metrics"]), &body.body);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(said.trim(), "", "{path}");
    }
}
