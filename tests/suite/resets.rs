//! Resets over HTTP of a real process that is killed with -9 (R3): what was answered is there, history is untouched.

use crate::harness::{Home, Pipeline, Server, wait};
use crate::load::Target;
use std::collections::BTreeMap;

const ADMIN: &str = "Bearer chief";

fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.http_keys = "created = true\nadmin_token = \"${RESET_TOKEN:-}\"".to_owned();
    pipeline
}

fn start(pipeline: &Pipeline, home: &Home) -> Server {
    pipeline.launch(home).env("RESET_TOKEN", "chief").start(&pipeline.address())
}

fn reset(server: &Server, selector: &str) -> (u16, serde_json::Value) {
    let escaped: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = server.post(&format!("/api/v1/reset?match={escaped}"), &[("Authorization", ADMIN)], b"");
    (answer.status, answer.json())
}

/// `_created` lines by series.
fn created(server: &Server) -> BTreeMap<String, f64> {
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let text = server.get_with("/metrics", &accept).text().to_owned();
    let line = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        series.contains("_created").then(|| (series.to_owned(), value.parse().expect("a number")))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

#[test]
fn r3_resets_over_http_are_off_by_default_and_want_the_admin_token() {
    let home = Home::new();
    let pipeline = pipeline();
    let server = pipeline.start(&home);
    let answer = server.post("/api/v1/reset?match=a", &[("Authorization", ADMIN)], b"");
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("admin_token"), "{}", answer.text());
    server.terminate();
    let server = start(&pipeline, &home);
    assert_eq!(server.post("/api/v1/reset?match=a", &[], b"").status, 401);
    assert_eq!(reset(&server, "nothing_total").0, 404);
    assert_eq!(reset(&server, "rate(a[5m])").0, 400);
    assert_eq!(reset(&server, "hydrograph_events_total").0, 400, "the laws are told with it");
    assert!(server.get("/").text().contains("/api/v1/reset"));
    server.terminate();
}

#[test]
fn r3_a_reset_that_was_answered_survives_kill_9_and_late_samples_count_for_what_is() {
    let home = Home::new();
    let pipeline = pipeline();
    let mut births = BTreeMap::new();
    for round in 1..=wait::knob("HYDROGRAPH_KILLS", 100).div_ceil(20) {
        let server = start(&pipeline, &home);
        let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
        let late = wait::epoch_seconds() as u64 - 120;
        for n in 0..100 {
            client.send(format!("jobs:3|c|#k:{}\nwait:{n}|ms\nuse:7|g\n", n % 2).as_bytes()).expect("it takes a frame");
        }
        client.send(format!("mark:{round}|g\n").as_bytes()).expect("it takes a frame");
        server.await_value("mark", &[], round as f64);
        let all = reset(&server, "{__name__=~\"jobs_total|wait_seconds|use\"}");
        assert_eq!(all, (200, serde_json::json!({"series": 4})), "round {round}");
        // Nothing is given time to be tidied up.
        server.kill();
        let server = start(&pipeline, &home);
        let scrape = server.await_laws(None);
        for k in ["0", "1"] {
            assert_eq!(scrape.value("jobs_total", &[("k", k)]), Some(0.0), "round {round}");
        }
        let zero = |name| assert_eq!(scrape.value(name, &[]), Some(0.0), "round {round}: {name}");
        ["wait_seconds_count", "wait_seconds_sum", "use"].into_iter().for_each(zero);
        let now = created(&server);
        for (series, at) in now.iter().filter(|(series, _)| series.starts_with("jobs") || series.starts_with("wait")) {
            let before = births.insert(series.clone(), *at);
            assert!(before.is_none_or(|before| before < *at), "round {round}: {series} has {before:?}, then {at}");
        }
        assert_eq!(births.len(), 3, "{births:?}");
        // Of slices long before the reset: what is counts them.
        let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
        client.send(format!("jobs:5|c|#k:0|T{late}\nuse:+2|g\n").as_bytes()).expect("it takes a frame");
        client.send(b"mark:0.5|g\n").expect("it takes a frame");
        server.await_value("mark", &[], 0.5);
        server.kill();
        let server = start(&pipeline, &home);
        let scrape = server.await_laws(None);
        assert_eq!(scrape.value("jobs_total", &[("k", "0")]), Some(5.0), "round {round}");
        assert_eq!(scrape.value("jobs_total", &[("k", "1")]), Some(0.0), "round {round}");
        assert_eq!(scrape.value("use", &[]), Some(2.0), "round {round}");
        for (series, at) in &births {
            assert_eq!(created(&server).get(series), Some(at), "round {round}");
        }
        assert_eq!(reset(&server, "jobs_total{k=\"0\"}").1, serde_json::json!({"series": 1}));
        births.insert("jobs_created{k=\"0\"}".to_owned(), 0.0);
        server.kill();
    }
}
