//! The first minute, as it should read: a user without root, port 8125 taken, nothing configured.

use crate::harness::Home;
use crate::harness::Launch;
use crate::harness::server::{binary_path, free_port, is_root};
use crate::load::Target;
use crate::shutdown::last_line;
use rustix::process::Signal;
use std::net::UdpSocket;

/// True when the line has the shape: `{}` stands for any text, runs of spaces count as one.
fn has_shape(line: &str, shape: &str) -> bool {
    let tidy = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, shape) = (tidy(line), tidy(shape));
    let mut rest = &line[..];
    let parts: Vec<&str> = shape.split("{}").collect();
    for (at, part) in parts.iter().enumerate() {
        let found = if at == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(start) = found else { return false };
        if at > 0 && start == 0 && !part.is_empty() {
            return false;
        }
        rest = &rest[start + part.len()..];
    }
    parts.last().is_some_and(|last| last.is_empty()) || rest.is_empty()
}

#[test]
fn shapes_match_as_they_should() {
    assert!(has_shape("  store     ~/x.redb (new)", "store {} (new)"));
    assert!(has_shape("ready after 0.04 s", "ready after {} s"));
    assert!(!has_shape("ready after 0.04 min", "ready after {} s"));
    assert!(!has_shape("store  (new)", "store {} (new)x"));
}

#[test]
fn the_first_minute_of_a_user_without_root_and_with_port_8125_taken() {
    let home = Home::new();
    let binary = if is_root() { home.give_to_nobody() } else { binary_path().to_owned() };
    // Either this test takes the port or somebody has it already: taken it is.
    let _taken = UdpSocket::bind("127.0.0.1:8125");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let run = Launch::as_user(&home, &binary).arg("run").env("HYDROGRAPH_HTTP__LISTEN", &address);
    let server = run.start(&address);

    let sockets = home.socket("hydrograph");
    let sockets = sockets.display();
    let said = server.stdout();
    let version = env!("CARGO_PKG_VERSION");
    for shape in [
        format!("hydrograph {version} · pipeline default (built in)"),
        "store ~/.local/state/hydrograph/default.redb (new)".to_owned(),
        format!("statsd unixgram {sockets}/dsd.socket export DD_DOGSTATSD_URL=unix://{sockets}/dsd.socket"),
        format!("unixstream {sockets}/dsd-stream.socket PyPI statsd{{}}"),
        "udp 127.0.0.1:8125 skipped: address in use".to_owned(),
        format!("http http://{address}/ /metrics /metrics.json{{}}"),
        // The port is not the usual one, so the line to try names it.
        format!("try hydrograph --url http://{address} send 'checkout.latency:42|ms|#region:eu'"),
        "ready after {} s".to_owned(),
    ] {
        assert!(said.lines().any(|l| has_shape(l, &shape)), "no line {shape:?} in:\n{said}");
    }

    let url = format!("http://{address}");
    let send =
        |args: &[&str]| Launch::as_user(&home, &binary).arg("send").args(args).env("HYDROGRAPH_URL", &url).finish();
    let sent = send(&["checkout.latency:42|ms|#region:eu", "load:1,2|d"]);
    assert_eq!(sent.status.code(), Some(1), "a refused line is exit 1: {}", sent.said());
    let lines: Vec<&str> = sent.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", sent.said());
    let first = "checkout_latency_seconds{region=\"eu\"} summary 1 sample, p50 0.042 ±1 % (checkout.latency in ms)";
    assert!(has_shape(lines[0], first), "{}", lines[0]);
    let second = "refused load:1,2|d \"1,2\" is not a number; values are packed with \":\", as in 1:2";
    assert!(has_shape(lines[1], second), "{}", lines[1]);

    let body = server.get("/metrics");
    let checkout: Vec<&str> = body.text().lines().filter(|l| l.starts_with("checkout")).collect();
    assert_eq!(
        checkout,
        [
            "checkout_latency_seconds{region=\"eu\",quantile=\"0.5\"} 0.042",
            "checkout_latency_seconds{region=\"eu\",quantile=\"0.9\"} 0.042",
            "checkout_latency_seconds{region=\"eu\",quantile=\"0.95\"} 0.042",
            "checkout_latency_seconds{region=\"eu\",quantile=\"0.99\"} 0.042",
            "checkout_latency_seconds_sum{region=\"eu\"} 0.042",
            "checkout_latency_seconds_count{region=\"eu\"} 1",
        ]
    );

    // Fifteen more lines through the socket a stock client would use, and the client's own telemetry, which is not counted.
    let mut client = Target::Gram(home.socket("hydrograph/dsd.socket")).connect().expect("a connection");
    for _ in 0..15 {
        client.send(b"orders:1|c|#region:eu\n").expect("the socket takes a packet");
    }
    client.send(b"datadog.dogstatsd.client.metrics:15|c|#client:py\n").expect("the socket takes a packet");
    server.await_value("orders_total", &[("region", "eu")], 15.0);

    server.signal(Signal::INT);
    let end = server.wait();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let last = last_line(&end.stdout);
    assert_eq!((last.lines, last.events, last.rejected), (17, 16, 1), "{}", end.stdout);
    assert_eq!((last.samples, last.committed, last.dropped, last.in_flight), (16, 16, 0, 0), "{}", end.stdout);
    let shape = "draining … lines 17 = events 16 + rejected 1 (bad_value 1) · samples 16 = committed 16 + dropped 0 + \
                 in flight 0 · store {}B · exit 0";
    assert!(end.stdout.lines().last().is_some_and(|l| has_shape(l, shape)), "{}", end.stdout);

    // The second start finds what the first one kept.
    let again = Launch::as_user(&home, &binary).arg("run").env("HYDROGRAPH_HTTP__LISTEN", &address).start(&address);
    assert!(!again.stdout().contains("(new)"), "{}", again.stdout());
    assert_eq!(again.scrape().value("orders_total", &[("region", "eu")]), Some(15.0));

    // Nobody answers: the address that was tried is said.
    assert_eq!(again.terminate().status.code(), Some(0));
    let nobody = send(&["a:1|c"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(nobody.stderr.contains(&address), "{}", nobody.stderr);
}
