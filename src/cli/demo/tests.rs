//! What is made up fits the shipped pipelines, and only them.

use super::*;
use crate::pipeline::Pipeline;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The lines of so many seconds.
fn generate(name: &str, seed: u64, seconds: f64) -> String {
    let mut systems = systems(name);
    let mut random = Random::new(seed);
    let mut lines = Lines::new(SystemClock.wall());
    for step in 0..(seconds / STEP_SECONDS) as i64 {
        for system in &mut systems {
            system.step(step as f64 * STEP_SECONDS, &mut random, &mut lines);
        }
    }
    String::from_utf8(lines.bytes().to_vec()).expect("text")
}

#[test]
fn a_seed_makes_up_the_same_events() {
    let without_times = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.contains("\"time\"")).map(str::to_owned).collect()
    };
    let first = without_times(generate("full", 3, 10.0));
    assert!(first.len() > 1_000, "{}", first.len());
    assert_eq!(first, without_times(generate("full", 3, 10.0)));
    assert_ne!(first, without_times(generate("full", 4, 10.0)));
}

#[test]
fn every_event_of_every_system_is_made_up_and_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let environment = environment(&Environment::fixed([], 1000, |_| false), directory.path());
    let mut plan = init::plan("full", &environment).unwrap_or_else(|errors| panic!("{errors}"));
    isolate(&mut plan, directory.path()).expect("writable");
    let declared: BTreeSet<String> = plan.typed.events.iter().map(|event| event.name.clone()).collect();
    let text = generate("full", 1, 300.0);
    let name = |line: &str| Some(line.strip_prefix("{\"event\":\"")?.split('"').next()?.to_owned());
    let made: BTreeSet<String> = text.lines().filter_map(name).collect();
    assert_eq!(made, declared);
    let pipeline = Pipeline::start_plan(plan, &environment, Arc::new(SystemClock)).expect("started");
    let mut socket = connect(&directory.path().join("full-stream.socket")).expect("a connection");
    socket.write_all(text.as_bytes()).expect("taken");
    drop(socket);
    let lines = text.lines().count() as f64;
    let count = || pipeline.tallies().into_iter().find(|(source, _)| source == "app").map(|(_, tally)| tally);
    let began = SystemClock.monotonic();
    let tally = loop {
        pipeline.flush().expect("committed");
        let tally = count().expect("a source");
        if tally.inputs as f64 >= lines || SystemClock.monotonic() - began > 20_000_000_000 {
            break tally;
        }
    };
    let rejected: Vec<String> = pipeline.recent_rejects().newest(5).iter().map(|r| format!("{r:?}")).collect();
    assert_eq!((tally.inputs as f64, tally.events as f64), (lines, lines), "{rejected:?}");
    pipeline.stop(Duration::from_secs(20));
}

#[test]
fn nothing_of_another_pipeline_is_reached() {
    let process = Environment::fixed(
        [
            ("HYDROGRAPH_STORE__PATH", "/var/lib/x.redb"),
            ("HYDROGRAPH_HTTP__LISTEN", "127.0.0.1:7"),
            ("STATE_DIRECTORY", "/var/lib/hydrograph"),
            ("HOME", "/home/a"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
        1000,
        |_| true,
    );
    let directory = tempfile::tempdir().expect("a directory");
    let environment = environment(&process, directory.path());
    for (name, _) in init::SHIPPED {
        let mut plan = init::plan(name, &environment).unwrap_or_else(|errors| panic!("{errors}"));
        isolate(&mut plan, directory.path()).expect("writable");
        assert_eq!(plan.store.path, StorePath::Memory);
        assert_eq!(plan.http.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:7"]);
        for source in &plan.sources {
            let SourceKind::Socket(socket) = &source.kind else { continue };
            for listener in &socket.listen {
                let (Listener::UnixDatagram(path) | Listener::UnixStream(path)) = listener else {
                    panic!("{listener} is open to others")
                };
                assert_eq!(path.parent(), Some(directory.path()));
            }
        }
    }
}

#[test]
fn the_private_directory_is_ours_and_goes() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().expect("a directory");
    let parent = root.path().to_str().filter(|path| path.len() + 32 <= DIRECTORY_BYTES_MAX);
    let (one, two) = (Private::create(parent).expect("made"), Private::create(parent).expect("made"));
    assert_ne!(one.path, two.path);
    let mode = std::fs::metadata(&one.path).expect("stands").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let path = one.path.clone();
    drop(one);
    assert!(!path.exists() && two.path.exists());
}
