//! Question: how much memory does a server take before its first scrape?
//!
//! Expected floor: idle, the program and its runtime (10 MB); a counter its labels, its places and its cached key (350
//! bytes); a timing series with a full window its merged sketch (1 to 2 KB at 100 samples a slice).
//! Targets in MB (10^6 bytes): idle 20; 1,000,000 live counters 500 at the peak; 100,000 timing series with a window of 30
//! slices 150 with 1 sample a slice, 400 with 100.
//! Last answer: idle 15.1; counters 456 at the peak, 450 after; 149 with 1 sample a slice; 426 with 100, which is missed (381 before
//! there were pages and pools that keep their memory for some ticks).
//!
//! Method: VmRSS and VmHWM of a process of its own that gets its lines over its Unix socket. Nothing is rendered before but
//! one counter of the program's own, which says what is durable. The windows fill in virtual time: the process has a
//! clock that is moved on by a slice once the lines of a slice are durable.

mod common;

use common::world::SLICE_NANOS;
use common::{Options, Server, Table, generate, is_quick, method, sleep, status_mb, verdict};
use hydrograph::event::{Clock, SystemClock, Timestamp};
use hydrograph::pipeline::Pipeline;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

fn main() {
    serve_if_child();
    method();
    let table = Table::new(&[
        ("memory before a scrape, MB", 48),
        ("now", 8),
        ("peak", 8),
        ("bytes a series", 14),
        ("target", 7),
        ("", 8),
    ]);
    let row = |name: &str, pid: u32, series: f64, idle: f64, target: f64, is_peak: bool| {
        let (now, peak) = (status_mb(pid, "VmRSS"), status_mb(pid, "VmHWM"));
        let judged = if is_peak { peak } else { now };
        table.row(&[
            name.to_owned(),
            format!("{now:.1}"),
            format!("{peak:.1}"),
            if series > 0.0 { format!("{:.0}", (judged - idle) * 1e6 / series) } else { String::new() },
            format!("{target:.0}"),
            verdict(judged <= target),
        ]);
        now
    };

    let server = Server::start(&Options::default());
    sleep(3_000);
    let idle = row("idle", server.pid(), 0.0, 0.0, 20.0, false);

    // Several ticks in which every counter changed: both combiners and the encoded tick are at their largest.
    let events = if is_quick() { 6_000_000 } else { 20_000_000 };
    let arguments = ["--kind", "counter", "--series", "1000000", "--seed", "1", "--events", &events.to_string()];
    let sent = generate(&server.socket(), &arguments);
    server.wait_for(sent.events);
    row("1,000,000 live counters (peak)", server.pid(), 1e6, idle, 500.0, true);
    drop(server);

    for (samples, target) in [(1u64, 150.0), (100, 400.0)] {
        let mut windows = Windows::start();
        // Past the width of the window nothing grows; the peak of the expiry belongs to it.
        let slices = if is_quick() && samples > 1 { 10 } else { 32 };
        for slice in 0..slices {
            windows.fill(samples * 100_000, slice + 1);
        }
        let note = if slices < 30 { format!(", {slices} slices only") } else { String::new() };
        let name = format!("100,000 timing series, {samples} samples a slice{note}");
        row(&name, windows.child.id(), 1e5, idle, target, false);
    }
}

/// A pipeline whose clock moves on demand, in a process of its own.
struct Windows {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    directory: tempfile::TempDir,
}

const CHILD: &str = "HYDROGRAPH_BENCH_MEMORY";

impl Windows {
    fn start() -> Windows {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(CHILD, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut windows = Windows { child, answers, directory };
        windows.answer();
        windows
    }

    /// The lines of one slice, until they are durable; then the next slice begins.
    fn fill(&mut self, events: u64, seed: u64) {
        let (events, seed) = (events.to_string(), seed.to_string());
        let arguments = ["--series", "100000", "--events", &events, "--seed", &seed];
        let sent = generate(&self.directory.path().join("dsd.socket"), &arguments);
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{}", sent.events).expect("the child reads");
        self.answer();
    }

    fn answer(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the child answers");
        assert_eq!(line, "ok\n", "the child goes on");
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The machine's clock, and what was skipped.
struct Shifted(AtomicI64);

impl Shifted {
    /// Skips to the next slice.
    fn to_next_slice(&self) {
        self.0.fetch_add(SLICE_NANOS - self.wall().0 % SLICE_NANOS, Ordering::SeqCst);
    }
}

impl Clock for Shifted {
    fn wall(&self) -> Timestamp {
        SystemClock.wall().plus_nanos(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> i64 {
        SystemClock.monotonic() + self.0.load(Ordering::SeqCst)
    }
}

/// The child: each number on stdin is how many samples of the slice to wait for before the clock moves on.
fn serve_if_child() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let at = |name: &str| std::path::Path::new(&directory).join(name).display().to_string();
    let text = format!(
        "name = \"memory\"\n[limits]\nmemory = \"64GiB\"\n[store]\npath = \"{}\"\n\
         [sources.bench]\ntype = \"socket\"\nlisten = [\"unixgram:{}\"]\n",
        at("memory.redb"),
        at("dsd.socket")
    );
    let clock = Arc::new(Shifted(AtomicI64::new(0)));
    clock.to_next_slice();
    let pipeline = Pipeline::builder().text(text).clock(Arc::<Shifted>::clone(&clock)).start().expect("starts");
    println!("ok");
    let mut expected = 0;
    for line in std::io::stdin().lines() {
        expected += line.expect("text").parse::<u64>().expect("a number");
        loop {
            pipeline.flush().expect("commits");
            let committed: u64 = pipeline.tallies().iter().map(|(_, tally)| tally.samples_total()).sum();
            if committed >= expected {
                break;
            }
            sleep(10);
        }
        clock.to_next_slice();
        println!("ok");
    }
}
