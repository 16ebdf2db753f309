//! Sessions over two sockets and through `kill -9`: the count of open ones, their durations, what expired, what is kept.

use crate::harness::{Home, Pipeline, Server, wait};
use crate::load::{Client, Target};
use std::time::Duration;

const TABLES: &str = r#"
[events.session_start]
fields = { session_id = "string", plan = "string" }
keep = 3
[events.session_end]
fields = { session_id = "string" }
[pairs.session]
start = "session_start"
end = "session_end"
key = "session_id"
timeout = "60s"
[metrics.active_sessions]
type = "gauge"
help = "Open sessions"
from = { pair = "session", value = "open", labels = ["plan"] }
[metrics.session_duration_seconds]
type = "histogram"
help = "Length of a session"
buckets = [1, 20, 59]
from = { pair = "session", value = "duration", labels = ["plan"] }
[metrics.sessions_expired_total]
type = "counter"
help = "Sessions without an end"
from = { pair = "session", value = "expired", labels = ["plan"] }
"#;

fn start(client: &mut Client, id: &str, plan: &str, seconds_ago: f64) {
    let time = wait::epoch_seconds() - seconds_ago;
    let line = format!(r#"{{"event":"session_start","time":{time:.6},"session_id":"{id}","plan":"{plan}"}}"#);
    client.send(line.as_bytes()).expect("takes a datagram");
}

fn end(client: &mut Client, id: &str) {
    let line = format!("{{\"event\":\"session_end\",\"session_id\":\"{id}\"}}\n");
    client.send(line.as_bytes()).expect("takes a line");
}

/// (open, durations, expired) of a plan.
fn stands(server: &Server, plan: &str) -> (f64, f64, f64) {
    let scrape = server.scrape();
    let value = |name: &str| scrape.value(name, &[("plan", plan)]).unwrap_or(0.0);
    (value("active_sessions"), value("session_duration_seconds_count"), value("sessions_expired_total"))
}

fn await_stand(server: &Server, plan: &str, wanted: (f64, f64, f64)) {
    let what = format!("plan {plan} to stand at {wanted:?}");
    wait::until(&what, || (stands(server, plan) == wanted).then_some(()));
}

#[test]
fn v8_sessions_survive_kill_9_and_may_come_from_two_sockets() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.top.push_str("lateness = \"2s\"\n");
    pipeline.tail = TABLES.to_owned();
    let connect = || {
        let gram = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
        (gram, Target::Tcp(pipeline.tcp).connect().expect("a connection"))
    };

    let server = pipeline.start(&home);
    let (mut gram, mut tcp) = connect();
    start(&mut gram, "a", "x", 30.0);
    start(&mut gram, "b", "x", 10.0);
    // It is to expire some seconds behind the kill.
    start(&mut gram, "c", "free", 40.0);
    await_stand(&server, "x", (2.0, 0.0, 0.0));
    end(&mut tcp, "a");
    await_stand(&server, "x", (1.0, 1.0, 0.0));
    await_stand(&server, "free", (1.0, 0.0, 0.0));
    server.kill();

    let server = pipeline.start(&home);
    assert_eq!(stands(&server, "x"), (1.0, 1.0, 0.0), "without any new event");
    assert_eq!(stands(&server, "free"), (1.0, 0.0, 0.0), "without any new event");
    let (mut gram, mut tcp) = connect();
    end(&mut tcp, "b");
    await_stand(&server, "x", (0.0, 2.0, 0.0));
    // An end that overtakes its start, by a commit.
    end(&mut tcp, "d");
    let waits = [("pair", "session"), ("outcome", "opened")];
    assert_eq!(
        server
            .await_value("hydrograph_events_total", &[("source", "app")], 6.0)
            .value("hydrograph_pairs_total", &waits),
        Some(3.0)
    );
    start(&mut gram, "d", "x", 5.0);
    await_stand(&server, "x", (0.0, 3.0, 0.0));
    let scrape = server.scrape();
    let bucket = |le: &str| scrape.value("session_duration_seconds_bucket", &[("plan", "x"), ("le", le)]);
    assert_eq!((bucket("1"), bucket("59"), bucket("+Inf")), (Some(0.0), Some(3.0), Some(3.0)));

    let expires = wait::within(Duration::from_secs(60), || (stands(&server, "free").2 == 1.0).then_some(()));
    assert!(expires.is_some(), "an end that never comes: {:?}", stands(&server, "free"));
    assert_eq!(stands(&server, "free"), (0.0, 0.0, 1.0), "gauge down, counted, not in the histogram");
    server.await_laws(None);
    server.kill();

    let server = pipeline.start(&home);
    assert_eq!(stands(&server, "x"), (0.0, 3.0, 0.0));
    assert_eq!(stands(&server, "free"), (0.0, 0.0, 1.0));
    server.await_laws(None);
    let recent = server.get("/api/v1/recent?kind=events&name=session_start").json();
    let ids: Vec<&str> = recent
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            assert_eq!(item["source"], "app");
            let text = item["text"].as_str().expect("text");
            let at = text.find("session_id\":\"").expect("whole") + 13;
            &text[at..=at]
        })
        .collect();
    // Commits come in their order, events of one commit by their time: which of the first three are left depends on that.
    assert!(ids.len() == 3 && ids[0] == "d" && ids.contains(&"b"), "the newest three, newest first: {recent}");
    let stopped = server.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{}", stopped.said());
}
