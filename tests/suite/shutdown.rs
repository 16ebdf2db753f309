//! SIGTERM and SIGINT: everything accepted is committed, the last line balances, and a restart goes on from there.

use crate::harness::{Home, Launch, Pipeline, wait};
use crate::load::{Kept, Target, Writer};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The numbers of the last line, and whether they balance.
#[derive(Debug, PartialEq)]
pub(crate) struct LastLine {
    pub(crate) lines: u64,
    pub(crate) events: u64,
    pub(crate) rejected: u64,
    pub(crate) samples: u64,
    pub(crate) committed: u64,
    pub(crate) dropped: u64,
    pub(crate) in_flight: u64,
    pub(crate) exit: u64,
}

/// Reads `draining … lines 17 = events 16 + rejected 1 (bad_value 1) · samples 16 = committed 16 + dropped 0 + in flight 0
/// · store 61 KB · exit 0` and asserts both equations.
pub(crate) fn last_line(said: &str) -> LastLine {
    let line = said.lines().last().unwrap_or_default();
    assert!(line.starts_with("draining … "), "the last line is {line:?}");
    let after = |word: &str| -> u64 {
        let rest = line.split_once(&format!("{word} ")).unwrap_or_else(|| panic!("no {word:?} in {line:?}")).1;
        let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '_' | ',')).collect();
        digits.replace(['_', ','], "").parse().unwrap_or_else(|_| panic!("no number after {word:?} in {line:?}"))
    };
    let last = LastLine {
        lines: after("lines"),
        events: after("= events"),
        rejected: after("+ rejected"),
        samples: after("· samples"),
        committed: after("= committed"),
        dropped: after("+ dropped"),
        in_flight: after("+ in flight"),
        exit: after("· exit"),
    };
    assert_eq!(last.lines, last.events + last.rejected, "{line}");
    assert_eq!(last.samples, last.committed + last.dropped + last.in_flight, "{line}");
    last
}

/// Bytes that lie in the kernel's queues when the signal comes are read, counted and committed.
#[test]
fn sigterm_loses_nothing_that_was_written_before_it() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut expected = 0;
    for round in 1..=5u64 {
        let server = pipeline.start(&home);
        let targets = [
            ("gram", Target::Gram(home.socket("dsd.socket"))),
            ("framed", Target::Framed(home.socket("dsd-stream.socket"))),
            ("lines", Target::Lines(home.socket("dsd-stream.socket"))),
            ("tcp", Target::Tcp(pipeline.tcp)),
        ];
        let mut clients: Vec<_> =
            targets.iter().map(|(n, t)| (*n, t.connect().expect("the socket takes connections"))).collect();
        for _ in 0..200 {
            for (name, client) in &mut clients {
                client.send(format!("stop.{name}:1|c\n").repeat(20).as_bytes()).expect("the socket takes a packet");
            }
        }
        expected += 200 * 20;
        wait::until("the last bytes to arrive", || clients.iter().all(|(_, c)| c.has_arrived()).then_some(()));
        let end = server.terminate();
        assert_eq!(end.status.code(), Some(0), "round {round}: {}", end.said());
        let last = last_line(&end.stdout);
        assert_eq!((last.in_flight, last.dropped, last.exit), (0, 0, 0), "{last:?}");
        let server = pipeline.start(&home);
        let scrape = server.scrape();
        for (name, _) in &targets {
            let total = scrape.value(&format!("stop_{name}_total"), &[]);
            assert_eq!(total, Some(expected as f64), "round {round}, {name}");
        }
        server.kill();
    }
}

/// Writers that go on until they are cut off: everything written before the signal is kept, and what is kept is a prefix.
#[test]
fn sigterm_under_load_keeps_a_prefix_that_covers_the_signal() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut writers = [
        Writer::new("gram", Target::Gram(home.socket("dsd.socket"))),
        Writer::new("framed", Target::Framed(home.socket("dsd-stream.socket"))),
        Writer::new("tcp", Target::Tcp(pipeline.tcp)),
    ];
    let server = pipeline.start(&home);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stop = &stop;
    let (end, written) = std::thread::scope(|scope| {
        let running: Vec<_> = writers
            .iter_mut()
            .map(|w| scope.spawn(|| w.run(|| stop.load(std::sync::atomic::Ordering::Relaxed))))
            .collect();
        wait::load_for(Duration::from_millis(500));
        let end = server.terminate();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (end, running.into_iter().map(|r| r.join().expect("the writer ends")).collect::<Vec<_>>())
    });
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let last = last_line(&end.stdout);
    assert_eq!(last.in_flight, 0);
    let server = pipeline.start(&home);
    let scrape = server.await_laws(None);
    let mut samples = 0;
    for (writer, written) in writers.iter().zip(&written) {
        let kept = Kept::of(writer.name, &scrape);
        kept.is_prefix_after(Kept::default(), 0).unwrap_or_else(|e| panic!("{}: {e}", writer.name));
        assert!(kept.mark > 0 && kept.mark <= written + 1, "{}: {kept:?} of {written} written", writer.name);
        samples += kept.increments + kept.timings + kept.mark;
    }
    assert_eq!(last.committed, samples, "the last line and the restarted process agree");
}

/// A graceful restart resumes totals, sums and creation times, and the process series say that it is a new process.
#[test]
fn a_restart_resumes_totals_and_creation_times() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.http_keys = "created = true".to_owned();
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let mut births: Option<Vec<String>> = None;
    for round in 1..=3 {
        let server = pipeline.start(&home);
        let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
        client.send(b"again:2|c|#a:b\nagain.took:10:30|ms\nagain.gauge:7|g\n").expect("the socket takes a packet");
        let scrape = server.await_value("again_total", &[("a", "b")], 2.0 * f64::from(round));
        assert_eq!(scrape.value("again_took_seconds_count", &[]), Some(2.0 * f64::from(round)));
        assert_eq!(scrape.value("again_took_seconds_sum", &[]), Some(0.04 * f64::from(round)));
        assert_eq!(scrape.value("again_gauge", &[]), Some(7.0));
        let body = server.get_with("/metrics", &accept);
        let now: Vec<String> = body
            .text()
            .lines()
            .filter(|l| l.starts_with("again") && l.contains("_created"))
            .map(str::to_owned)
            .collect();
        assert_eq!(now.len(), 2, "a counter and a summary have creation times: {now:?}");
        assert_eq!(*births.get_or_insert_with(|| now.clone()), now, "round {round}");
        let end = server.terminate();
        assert_eq!(end.status.code(), Some(0), "{}", end.said());
    }
}

/// Sockets are unlinked at a graceful end; a stale socket after kill -9 is taken over; a file that is no socket is not.
#[test]
fn socket_files_are_cleaned_taken_over_and_respected() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.source.push_str("mode = \"0722\"\n");
    let socket = home.socket("dsd.socket");
    let server = pipeline.start(&home);
    let mode = std::fs::metadata(&socket).expect("the socket exists").permissions().mode();
    assert_eq!(mode & 0o7777, 0o722);
    server.kill();
    assert!(socket.exists(), "a killed process cannot remove its socket");
    let server = pipeline.start(&home);
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0));
    assert!(!socket.exists(), "a graceful end removes the socket");
    std::fs::write(&socket, "precious").expect("a file in its place");
    let end = pipeline.launch(&home).finish();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.said().contains("dsd.socket"), "{}", end.said());
    assert_eq!(std::fs::read_to_string(&socket).expect("still there"), "precious");
}

#[test]
fn sigint_drains_like_sigterm() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let answer = server.post("/api/v1/lines", &[("Content-Type", "text/plain")], b"one:1|c\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.signal(Signal::INT);
    let end = server.wait();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let last = last_line(&end.stdout);
    assert_eq!((last.lines, last.committed), (1, 1));
}

/// Two processes on one store, or on one socket: the second says what is taken, and fails; the first goes on.
#[test]
fn two_processes_on_one_store_or_one_socket() {
    let home = Home::new();
    let first = Pipeline::new();
    let server = first.start(&home);
    // The same store and the same sockets.
    let mut second = Pipeline::new();
    let end = second.launch(&home).finish();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.said().contains("t.redb") || end.said().contains("dsd.socket"), "{}", end.said());
    // The same sockets, another store.
    second.store.push_str("path = \"other.redb\"\n");
    let end = second.launch(&home).finish();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.said().contains("dsd.socket"), "{}", end.said());
    // The same store, other sockets.
    let text = Pipeline::new().text().replace("dsd", "other");
    let file = home.write("third.toml", &text);
    let end = Launch::new(&home).arg("run").arg(file).finish();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.said().contains("t.redb"), "{}", end.said());
    // The same HTTP port.
    let mut fourth = Pipeline::new();
    fourth.http = first.http;
    fourth.store.push_str("path = \"fourth.redb\"\n");
    let file = home.write("fourth.toml", &fourth.text().replace("dsd", "fourth"));
    let end = Launch::new(&home).arg("run").arg(file).finish();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.said().contains(&first.http.to_string()), "{}", end.said());
    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("the first still listens");
    client.send(b"alive:1|c\n").expect("the socket takes a packet");
    server.await_value("alive_total", &[], 1.0);
}
