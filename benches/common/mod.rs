//! What the benchmarks share: a server in a process of its own, load, CPU time, and figures with intervals.
//!
//! In: `HYDROGRAPH_BENCH_PAIRS` (7 unless set; 1 to 3 is a quick look). Out: lines of a table. Owns: the child
//! processes, which end with their handle. Invariant: CPU time is that of every thread of the process, user and
//! system; a figure is a median with the interval that holds it with 95 %, and losses stand beside it.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use hydrograph::event::{Clock, SystemClock};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) mod world;

/// The program under test: the one built with the benchmark, or another, to compare two versions.
pub(crate) fn program() -> String {
    std::env::var("HYDROGRAPH_BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hydrograph").to_owned())
}

/// Pairs to measure, and whether fewer than the method's seven were asked for.
pub(crate) fn pairs() -> usize {
    std::env::var("HYDROGRAPH_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(7).max(1)
}

/// True when the row is asked for: `cargo bench --bench NAME -- WORD...` measures the rows that hold every word.
pub(crate) fn is_asked(row: &str) -> bool {
    let words = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    words.into_iter().all(|word| row.split(' ').any(|part| part == word))
}

/// True for a quick look.
pub(crate) fn is_quick() -> bool {
    pairs() < 7
}

pub(crate) fn thread_cpu() -> i64 {
    nanos(ClockId::ThreadCPUTime)
}

pub(crate) fn process_cpu() -> i64 {
    nanos(ClockId::ProcessCPUTime)
}

fn nanos(clock: ClockId) -> i64 {
    let t = clock_gettime(clock);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

pub(crate) fn wall() -> i64 {
    SystemClock.monotonic()
}

/// Touches a gigabyte and gives it back, so that what follows finds memory in this machine. A virtual machine may hand
/// free pages back to its host, and then the first touch of a page is the host's work, counted as ours: 2.3 s a
/// gigabyte where it was seen, 0.06 s otherwise.
pub(crate) fn warm_memory() {
    const BYTES: usize = 1 << 30;
    let mut block: Vec<u8> = Vec::with_capacity(BYTES);
    for page in block.spare_capacity_mut().chunks_mut(4096) {
        page[0].write(1);
    }
    std::hint::black_box(&mut block);
}

pub(crate) fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// CPU nanoseconds of every thread of a process, as its scheduler counts them.
pub(crate) fn cpu_of(pid: u32) -> i64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_task = |task: std::io::Result<std::fs::DirEntry>| -> Option<i64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(of_task).sum()
}

/// As [`cpu_of`], by the names of the threads.
pub(crate) fn cpu_by_thread(pid: u32) -> std::collections::BTreeMap<String, i64> {
    let mut by_name = std::collections::BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return by_name };
    for path in tasks.flatten().map(|task| task.path()) {
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let nanos = read("schedstat").split_ascii_whitespace().next().and_then(|text| text.parse::<i64>().ok());
        *by_name.entry(read("comm").trim().to_owned()).or_insert(0) += nanos.unwrap_or(0);
    }
    by_name
}

/// User and system time of a process in nanoseconds, in steps of 10 ms.
pub(crate) fn split_of(pid: u32) -> (i64, i64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = text.rsplit(')').next().unwrap_or("").split_ascii_whitespace().skip(11);
    let mut next = || fields.next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0) * 10_000_000;
    (next(), next())
}

/// A line of `/proc/PID/status` in MB (10^6 bytes).
pub(crate) fn status_mb(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

/// Measured figures of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let n = sorted.len();
        if n == 0 { f64::NAN } else { (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0 }
    }

    /// The order statistics that hold the median with at least 95 %, whatever the distribution; with fewer than
    /// six figures, all of them.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let n = sorted.len();
        if n == 0 {
            return (f64::NAN, f64::NAN);
        }
        let (mut rank, mut term, mut below) = (0, 0.5f64.powi(n as i32), 0.0);
        loop {
            below += term;
            if below > 0.025 || rank + 1 >= n.div_ceil(2) {
                break;
            }
            term = term * (n - rank) as f64 / (rank + 1) as f64;
            rank += 1;
        }
        let at = rank.saturating_sub(1).min(n - 1);
        (sorted[at], sorted[n - 1 - at])
    }

    /// `median [low, high]`.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (low, high) = self.interval();
        format!("{:.digits$} [{low:.digits$}, {high:.digits$}]", self.median())
    }
}

/// A table that prints itself line by line.
pub(crate) struct Table(Vec<usize>);

impl Table {
    pub(crate) fn new(columns: &[(&str, usize)]) -> Table {
        let table = Table(columns.iter().map(|(_, width)| *width).collect());
        table.row(&columns.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
        table
    }

    pub(crate) fn row(&self, cells: &[String]) {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(&self.0).enumerate() {
            let _ = if at == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        println!("{}", line.trim_end());
    }
}

/// Says whether a figure reaches its target.
pub(crate) fn verdict(reached: bool) -> String {
    if reached { "reached" } else { "MISSED" }.to_owned()
}

/// The sentence about how it was measured.
pub(crate) fn method() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_ascii_whitespace().take(1).collect();
    println!("{} pairs, median [interval]; {cores} cores, load {} at the start", pairs(), load.join(""));
}

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) slice: &'static str,
    pub(crate) window: &'static str,
    /// In a network namespace of its own with this `max_dgram_qlen`.
    pub(crate) queue: Option<u32>,
    /// On core 0 alone, so that the generator has the other.
    pub(crate) is_pinned: bool,
    /// Shipped pipeline files that it includes, by name.
    pub(crate) include: &'static [&'static str],
    /// Further tables of the pipeline file.
    pub(crate) tail: &'static str,
}

impl Default for Options {
    fn default() -> Options {
        Options { slice: "10s", window: "5m", queue: None, is_pinned: true, include: &[], tail: "" }
    }
}

/// True where the server and the generator can have a core each.
pub(crate) fn can_pin() -> bool {
    std::fs::exists("/usr/bin/taskset").unwrap_or(false)
        && std::thread::available_parallelism().map_or(1, usize::from) >= 2
}

/// A command on one core, if that is possible.
pub(crate) fn pinned(core: u32, program: &str) -> Command {
    if !can_pin() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// Instructions inside the functions that match, in a run of this program with a variable set; `None` without valgrind.
pub(crate) fn count_instructions(variable: &str, value: &str, inside: &str) -> Option<f64> {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", &format!("--toggle-collect={inside}")])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program"))
        .env(variable, value)
        .stderr(Stdio::null())
        .status()
        .ok()?;
    if !status.success() {
        return None;
    }
    let text = std::fs::read_to_string(out).ok()?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?;
    totals.split_ascii_whitespace().next()?.parse::<f64>().ok()
}

/// `hydrograph run` in a process of its own.
pub(crate) struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(options: &Options) -> Server {
        let directory = tempfile::tempdir().expect("a directory for the server");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let file = at("bench.toml");
        std::fs::write(&file, pipeline_text(directory.path(), options)).expect("writes the pipeline file");
        let program = program();
        let mut command = match options.queue {
            None if options.is_pinned => pinned(0, &program),
            None => Command::new(&program),
            Some(queue) => {
                let pin = if can_pin() { "taskset -c 0 " } else { "" };
                let script =
                    format!("echo {queue} > /proc/sys/net/unix/max_dgram_qlen && exec {pin}'{program}' run '{file}'");
                let mut command = Command::new("unshare");
                command.args(["-n", "sh", "-c", &script]);
                command
            }
        };
        if options.queue.is_none() {
            command.args(["run", &file]);
        }
        let log = std::fs::File::create(at("log")).expect("writes the log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("starts the server");
        let server = Server { child, directory };
        for _ in 0..200 {
            if server.socket().exists() && server.try_get("/health").is_some() {
                return server;
            }
            sleep(50);
        }
        let log = std::fs::read_to_string(server.directory.path().join("log")).unwrap_or_default();
        panic!("the server does not answer:\n{log}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("dsd.socket")
    }

    pub(crate) fn stream(&self) -> PathBuf {
        self.directory.path().join("stream.socket")
    }

    fn try_get(&self, path: &str) -> Option<Vec<u8>> {
        let mut stream = UnixStream::connect(self.directory.path().join("http.socket")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// The whole answer to a GET, head included.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        self.try_get(path).expect("the server answers")
    }

    /// The sum of a counter over the series of source `bench`; asks for this family alone.
    fn sum(&self, name: &str) -> u64 {
        let answer = self.get(&format!("/metrics?name%5B%5D={name}"));
        let text = String::from_utf8_lossy(&answer);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains("source=\"bench\""));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// Samples of the load that are durable.
    pub(crate) fn committed(&self) -> u64 {
        self.sum("hydrograph_samples_committed_total")
    }

    /// Samples of the load that were dropped, and lines that were refused.
    pub(crate) fn lost(&self) -> u64 {
        self.sum("hydrograph_dropped_total") + self.sum("hydrograph_rejected_total")
    }

    /// Waits until so many samples are durable.
    pub(crate) fn wait_for(&self, committed: u64) {
        let mut last = (0, 0);
        while last.1 < 200 {
            let now = self.committed();
            if now >= committed {
                return;
            }
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
            sleep(50);
        }
        panic!("only {} of {committed} samples became durable within 10 s", last.0);
    }

    pub(crate) fn cpu(&self) -> i64 {
        cpu_of(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cells for a million windows at two digits: with the default 50 M they would fall to one digit, and be less work.
fn pipeline_text(directory: &Path, options: &Options) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let include: Vec<String> =
        options.include.iter().map(|name| shipped.join(name).with_extension("toml").display().to_string()).collect();
    format!(
        "name = \"bench\"\ninclude = {include:?}\nslice = \"{}\"\nwindow = \"{}\"\n\
         [limits]\nseries = 2_000_000\nseries_per_metric = 2_000_000\ncells = 500_000_000\nmemory = \"64GiB\"\n\
         [store]\npath = \"{}\"\n[http]\nlisten = [\"unixstream:{}\"]\n\
         [sources.bench]\ntype = \"socket\"\nlisten = [\"unixgram:{}\", \"unixstream:{}\"]\n\
         [sources.internal]\ntype = \"internal\"\n{}",
        options.slice,
        options.window,
        at("bench.redb"),
        at("http.socket"),
        at("dsd.socket"),
        at("stream.socket"),
        options.tail,
    )
}

/// What `generate` reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) events: u64,
    pub(crate) lost: u64,
    pub(crate) seconds: f64,
}

/// Runs `generate` on core 1 to its end.
pub(crate) fn generate(socket: &Path, arguments: &[&str]) -> Sent {
    generate_to(&format!("unixgram:{}", socket.display()), arguments)
}

/// As [`generate`], to any address.
pub(crate) fn generate_to(address: &str, arguments: &[&str]) -> Sent {
    let mut command = pinned(1, &program());
    command.args(["generate", "--json", "--to", address]).args(arguments);
    let output = command.stderr(Stdio::null()).output().expect("runs the generator");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the generator reports");
    Sent {
        events: report["events"].as_u64().expect("a number"),
        lost: report["lost"].as_u64().expect("a number"),
        seconds: report["seconds"].as_f64().expect("a number"),
    }
}

/// The datagram that ends a bare receive loop's account.
const MARK: &[u8] = b"MARK";

/// The other side of every comparison: a process that receives the same datagrams and counts newlines.
pub(crate) struct Bare {
    child: Child,
    directory: tempfile::TempDir,
}

impl Bare {
    /// The benchmark starts itself anew; its `main` has to call [`Bare::serve_if_child`] first.
    pub(crate) fn start() -> Bare {
        let directory = tempfile::tempdir().expect("a directory for the socket");
        let socket = directory.path().join("bare.socket");
        let program = std::env::current_exe().expect("this program").display().to_string();
        let mut command = pinned(0, &program);
        let child = command.env("HYDROGRAPH_BENCH_BARE", &socket).stdout(Stdio::piped()).spawn().expect("starts");
        let bare = Bare { child, directory };
        while !bare.socket().exists() {
            sleep(10);
        }
        bare
    }

    /// Receives forever, when started by [`Bare::start`].
    pub(crate) fn serve_if_child() {
        let Some(path) = std::env::var_os("HYDROGRAPH_BENCH_BARE") else { return };
        let socket = UnixDatagram::bind(path).expect("binds");
        let mut buffer = vec![0; 1 << 16];
        let mut lines = 0u64;
        loop {
            let length = socket.recv(&mut buffer).expect("receives");
            if &buffer[..length] == MARK {
                println!("{lines} {}", process_cpu());
                std::io::stdout().flush().expect("the benchmark reads");
            } else {
                lines += memchr::memchr_iter(b'\n', &buffer[..length]).count() as u64;
            }
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("bare.socket")
    }

    /// Lines and CPU nanoseconds so far; everything sent before is counted.
    pub(crate) fn account(&mut self) -> (u64, i64) {
        let socket = UnixDatagram::unbound().expect("opens");
        socket.send_to(MARK, self.socket()).expect("sends");
        let out = self.child.stdout.as_mut().expect("piped");
        let (mut line, mut byte) = (Vec::new(), [0]);
        while out.read(&mut byte).expect("reads") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let text = String::from_utf8(line).expect("two numbers");
        let (lines, cpu) = text.split_once(' ').expect("two numbers");
        (lines.parse().expect("a number"), cpu.parse().expect("a number"))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Lognormal around 12 ms with σ = 0.8, in nanoseconds, as latencies are.
    pub(crate) fn latency(&mut self) -> u64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        (12e6 * (0.8 * normal).exp()).clamp(1e3, 1e10) as u64
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, (self.next() % (at as u64 + 1)) as usize);
        }
    }
}
