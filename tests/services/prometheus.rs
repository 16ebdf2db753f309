//! Debian's Prometheus scrapes the real endpoint; promtool finds nothing to say about the default pipeline.

use crate::harness::server::free_port;
use crate::harness::{Home, Launch, Pipeline, http, wait};
use crate::peers;
use std::path::Path;
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

/// Starts Prometheus on a free port with this scrape configuration (of one job's keys); its address.
fn prometheus(program: &Path, home: &Home, job: &str, options: &[&str]) -> (Peer, String) {
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: hydrograph\n  {job}\n"
    );
    let config = home.write("prometheus.yml", &config);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={address}"));
    command.arg(format!("--storage.tsdb.path={}", home.path().join("prometheus").display())).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
    (Peer(command.spawn().expect("Prometheus starts")), address)
}

/// Waits until an expression answers this.
fn eventually(address: &str, expr: &str, expected: f64) {
    let mut last = None;
    let reached = wait::within(wait::PATIENCE, || {
        last = query(address, expr);
        (last == Some(expected)).then_some(())
    });
    assert!(reached.is_some(), "{expr} answers {last:?}, not {expected}");
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

    let job = format!(
        "authorization: {{type: Bearer, credentials_file: {}}}\n  static_configs: [{{targets: ['{}']}}]",
        secret.display(),
        pipeline.address()
    );
    let (_peer, address) = prometheus(&program, &home, &job, &[]);
    let eventually = |expr: &str, expected: f64| eventually(&address, expr, expected);
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

/// V4, V5: what Prometheus answers from the scraped native histogram lies within the stated bound of the exact
/// quantile, for values over six doublings, for zero, and for negative ones.
#[test]
fn v4_quantiles_of_scraped_native_histograms_are_within_their_bound() {
    const TEST: &str = "v4_quantiles_of_scraped_native_histograms_are_within_their_bound";
    let Some(program) = peers::find_or_skip(TEST, "prometheus") else { return };
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.tail = "[metrics.latency_seconds]\ntype = \"histogram\"\nhelp = \"Latency\"\nbuckets = [0.01, 0.1]\n\
                     [metrics.drift]\ntype = \"histogram\"\nhelp = \"Drift\"\nbuckets = [0, 1]\n\
                     [metrics.idle_seconds]\ntype = \"histogram\"\nhelp = \"Idle\"\nbuckets = [1]\n"
        .to_owned();
    let server = pipeline.start(&home);
    let mut state = 7u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let (mut latency, mut drift) = (Vec::new(), Vec::new());
    let mut lines = "orders:41|c|#region:eu\ntook:20|ms\n".to_owned();
    for n in 0..3_000 {
        // Nanoseconds and millionths, so that the text is exact.
        let nanos = (1e6 * (uniform() * 6.0).exp2() * (uniform() * 2.0).exp()) as u64;
        lines.push_str(&format!("latency:{}.{:06}|ms\n", nanos / 1_000_000, nanos % 1_000_000));
        latency.push(nanos as f64 / 1e9);
        let millionths = if n % 10 == 0 { 0 } else { ((uniform() - 0.4) * 5e6) as i64 };
        lines.push_str(&format!("drift:{}|d\n", millionths as f64 / 1e6));
        drift.push(millionths as f64 / 1e6);
    }
    assert_eq!(server.post("/api/v1/lines", &[("Content-Type", "text/plain")], lines.as_bytes()).status, 200);

    let job = format!("static_configs: [{{targets: ['{}']}}]", pipeline.address());
    let (_peer, address) = prometheus(&program, &home, &job, &["--enable-feature=native-histograms"]);
    eventually(&address, "up", 1.0);
    eventually(&address, "histogram_count(latency_seconds)", 3_000.0);
    eventually(&address, "histogram_count(drift)", 3_000.0);
    eventually(&address, "histogram_count(idle_seconds)", 0.0);
    // The rest of the body, through the same format.
    eventually(&address, "orders_total{region=\"eu\"}", 41.0);
    eventually(&address, "took_seconds{quantile=\"0.5\"}", 0.02);
    eventually(&address, "took_seconds_count", 1.0);
    eventually(&address, "hydrograph_up", 1.0);
    let sum: f64 = latency.iter().sum();
    let answered = query(&address, "histogram_sum(latency_seconds)").expect("a sum");
    assert!((answered / sum - 1.0).abs() < 1e-12, "{answered} for {sum}");
    let mut worst = 0f64;
    for (name, values) in [("latency_seconds", &mut latency), ("drift", &mut drift)] {
        values.sort_by(f64::total_cmp);
        for q in [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999] {
            let rank = (q * values.len() as f64).ceil() as usize;
            let exact = values[rank.max(1) - 1];
            let answered = query(&address, &format!("histogram_quantile({q}, {name})")).expect("a quantile");
            let bound = 2f64.powf(0.125) - 1.0 + 0.01;
            let error = if exact == 0.0 { answered.abs() } else { (answered / exact - 1.0).abs() };
            assert!(error <= bound, "{q} of {name}: {answered} for {exact}, off by {error}, stated {bound}");
            worst = worst.max(error);
        }
    }
    assert!(worst > 0.0, "an answer from buckets is no exact one");
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
