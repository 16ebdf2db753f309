//! `demo` and `init`: the shipped pipelines without any file of one's own.

use crate::harness::server::free_port;
use crate::harness::{Home, Launch, http, wait};
use crate::shutdown::last_line;
use std::net::TcpListener;

const SHIPPED: [&str; 9] =
    ["default", "dinoair", "dreamos", "vision", "llm", "digital_actors", "full", "statsd", "host"];

fn entries(home: &Home, folder: &str) -> usize {
    std::fs::read_dir(home.path().join(folder)).expect("it stands").count()
}

#[test]
fn the_demo_shows_all_five_systems_and_leaves_nothing_behind() {
    let home = Home::new();
    // The address is taken, so it finds another.
    let port = free_port();
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let demo = Launch::new(&home)
        .args(["demo", "--seconds", "8", "--seed", "5"])
        .env("HYDROGRAPH_HTTP__LISTEN", format!("127.0.0.1:{port}"))
        .env("HYDROGRAPH_STORE__PATH", home.store("mine.redb"))
        .env("TMPDIR", &temporary);
    let mut server = demo.spawn("");
    server.address = wait::until("the address to open", || {
        let said = server.stdout();
        let ready = said.lines().any(|line| line.starts_with("ready"));
        let open = said.lines().find_map(|line| line.trim().strip_prefix("open").map(str::trim))?;
        ready.then(|| open.trim_start_matches("http://").trim_end_matches('/').to_owned())
    });
    assert_ne!(server.address, format!("127.0.0.1:{port}"));
    let private = std::fs::read_dir(&temporary).expect("it stands").count();
    assert_eq!(private, 1, "its own sockets stand in a directory of their own");
    let scrape = server.scrape_until("metrics of all five systems", |scrape| {
        let counted = |name: &str| scrape.sum(name, &[]) > 0.0;
        counted("dinoair_custom_api_requests_total")
            && counted("dinoair_custom_active_sessions")
            && counted("dreamos_agent_tasks_total")
            && counted("file_ops_read_total")
            && counted("vision_detect_segment_frames_processed_total")
            && counted("vision_detect_segment_api_requests_total")
            && counted("llm_requests_total")
            && counted("api_requests_total")
            && counted("process_memory_bytes")
            && counted("digital_actors_requests_total")
            && counted("digital_actors_active_sessions")
    });
    assert!(scrape.sum("dinoair_custom_api_response_time_seconds_bucket", &[("service", "ollama")]) > 0.0);
    let page = http::request(&server.address, "GET", "/", &[("Accept", "application/json")], b"").expect("an answer");
    assert_eq!((page.status, page.json().is_object()), (200, true));
    let end = server.wait();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let last = last_line(&end.stdout);
    assert!(last.lines > 100 && last.rejected == 0 && last.in_flight == 0, "{}", end.stdout);
    for folder in ["state", "run", "tmp", "home"] {
        assert_eq!(entries(&home, folder), 0, "{folder}");
    }
}

#[test]
fn a_demo_of_one_pipeline_and_of_none() {
    for name in ["statsd", "host"] {
        let home = Home::new();
        let address = format!("127.0.0.1:{}", free_port());
        let demo = Launch::new(&home).args(["demo", name]).env("HYDROGRAPH_HTTP__LISTEN", &address).start(&address);
        match name {
            "statsd" => demo.scrape_until("orders", |scrape| {
                scrape.samples.keys().any(|series| series.name.starts_with("orders")) && scrape.sum("buyers", &[]) > 0.0
            }),
            _ => demo.scrape_until("this machine", |scrape| scrape.sum("host_memory_total_bytes", &[]) > 0.0),
        };
        assert_eq!(demo.terminate().status.code(), Some(0));
        assert_eq!(entries(&home, "state"), 0);
    }
    let home = Home::new();
    let wrong = Launch::new(&home).args(["demo", "visoin"]).finish();
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.said());
    assert!(wrong.stderr.contains("did you mean \"vision\"?"), "{}", wrong.stderr);
}

#[test]
fn every_pipeline_that_init_prints_passes_check() {
    let home = Home::new();
    for name in SHIPPED {
        let printed = Launch::new(&home).args(["init", name]).finish();
        assert_eq!(printed.status.code(), Some(0), "{}", printed.said());
        home.write(&format!("{name}.toml"), &printed.stdout);
    }
    for name in SHIPPED {
        let checked = Launch::new(&home).arg("check").arg(home.path().join(format!("{name}.toml"))).finish();
        assert_eq!(checked.status.code(), Some(0), "{name}: {}", checked.said());
        assert!(checked.stdout.starts_with(&format!("pipeline {name}\n")), "{}", checked.stdout);
    }
}
