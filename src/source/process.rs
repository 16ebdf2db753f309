//! Values of one process of this machine, or of all processes of a systemd unit.
//!
//! In: `/proc` and, for a unit, `/sys/fs/cgroup`. Out: [`ProcessReading`]s, and whether the process is there. Owns: which
//! processes it follows, and their processor time at the last reading. Invariants: a process is looked for again at
//! every reading, so that a restart is followed and costs one reading of `cpu_percent`; a value that the system does
//! not tell (descriptors of another user's process) is left out.

use super::internal::TICKS_PER_SECOND;
use crate::event::Unit;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders of control groups that are looked into for a unit: a machine has hundreds, a runaway one shall not cost more.
const GROUPS_MAX: usize = 20_000;

/// What a value is.
#[derive(Debug, PartialEq)]
pub struct ProcessValue {
    /// The word in a pipeline file, and the exposed name behind the source's.
    pub key: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// `# HELP`.
    pub help: &'static str,
}

const CPU: usize = 0;
const MEMORY: usize = 1;
const THREADS: usize = 2;
const FILES: usize = 3;

/// Every value there is; all are gauges.
pub static PROCESS_VALUES: [ProcessValue; 4] = [
    ProcessValue {
        key: "cpu_percent",
        unit: Unit::Other("percent"),
        help: "Processor time of the process since the last reading; 100 is one processor.",
    },
    ProcessValue { key: "memory_bytes", unit: Unit::Bytes, help: "Resident memory of the process." },
    ProcessValue { key: "threads", unit: Unit::None, help: "Threads of the process." },
    ProcessValue { key: "open_files", unit: Unit::None, help: "Open file descriptors of the process." },
];

/// Which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessFinder {
    /// The one whose id stands in a file.
    PidFile(PathBuf),
    /// The one that has this text in its command line, arguments joined by spaces: of several the oldest, and never
    /// this program itself.
    Command(String),
    /// All of a systemd unit, summed.
    Unit(String),
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessReading {
    /// Which.
    pub what: &'static ProcessValue,
    /// Finite, not negative.
    pub value: f64,
}

/// A process over its whole life: ids are given again.
type Identity = (u32, u64);

/// Reads the values of one process or unit.
pub struct ProcessCollector {
    finder: ProcessFinder,
    proc: PathBuf,
    cgroup: PathBuf,
    /// The folder of the unit, as long as it stands.
    group: Option<PathBuf>,
    last: Option<Reading>,
}

struct Reading {
    monotonic: i64,
    /// In ticks.
    cpu: HashMap<Identity, u64>,
    /// Of the whole unit, ended processes included, in microseconds, where the system counts it.
    group_usage: Option<u64>,
}

struct Stat {
    ticks: u64,
    start: u64,
}

impl ProcessCollector {
    /// Nothing is read yet.
    pub fn new(finder: ProcessFinder) -> ProcessCollector {
        ProcessCollector::within(finder, Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }

    fn within(finder: ProcessFinder, proc: &Path, cgroup: &Path) -> ProcessCollector {
        ProcessCollector { finder, proc: proc.to_owned(), cgroup: cgroup.to_owned(), group: None, last: None }
    }

    /// Reads everything once; nothing when there is no such process. `monotonic` is the time in nanoseconds.
    pub fn collect(&mut self, monotonic: i64) -> Vec<ProcessReading> {
        let found: Vec<(Identity, u64)> = self
            .find()
            .into_iter()
            .filter_map(|pid| self.stat(pid).map(|stat| ((pid, stat.start), stat.ticks)))
            .collect();
        if found.is_empty() {
            self.last = None;
            return Vec::new();
        }
        let group_usage = self.group.as_ref().and_then(|group| {
            let text = std::fs::read_to_string(group.join("cpu.stat")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
        });
        let now = Reading { monotonic, cpu: found.iter().copied().collect(), group_usage };
        let mut readings = Vec::with_capacity(PROCESS_VALUES.len());
        let mut push = |at: usize, value: f64| readings.push(ProcessReading { what: &PROCESS_VALUES[at], value });
        if let Some(percent) = self.last.as_ref().and_then(|last| cpu_percent(last, &now)) {
            push(CPU, percent);
        }
        self.last = Some(now);
        let (bytes, threads): (Vec<Option<u64>>, Vec<Option<u64>>) =
            found.iter().map(|((pid, _), _)| self.status(*pid)).unzip();
        for (at, values) in [(MEMORY, bytes), (THREADS, threads)] {
            let known = values.into_iter().flatten();
            if let Some(sum) = known.reduce(u64::saturating_add) {
                push(at, sum as f64);
            }
        }
        // A part of a unit's descriptors would look like all of them.
        let files: Option<usize> = found.iter().map(|((pid, _), _)| self.open_files(*pid)).sum();
        if let Some(files) = files {
            push(FILES, files as f64);
        }
        readings
    }

    fn find(&mut self) -> Vec<u32> {
        match &self.finder {
            ProcessFinder::PidFile(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                // Some daemons write more lines behind their id.
                text.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()).into_iter().collect()
            }
            ProcessFinder::Command(text) => self.find_command(text).into_iter().collect(),
            ProcessFinder::Unit(unit) => {
                if !self.group.as_ref().is_some_and(|group| group.is_dir()) {
                    let unit = if unit.contains('.') { unit.clone() } else { format!("{unit}.service") };
                    self.group = find_group(&self.cgroup, &unit);
                }
                let mut pids = Vec::new();
                if let Some(group) = &self.group {
                    walk(group, |folder| {
                        let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                        pids.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
                        false
                    });
                }
                pids
            }
        }
    }

    /// The one that was followed while it lives, else the oldest.
    fn find_command(&self, text: &str) -> Option<u32> {
        let matches = |pid: u32| {
            let mut line = std::fs::read(self.proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
            line.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
            memchr::memmem::find(&line, text.as_bytes()).is_some()
        };
        let followed = self.last.as_ref().and_then(|last| last.cpu.keys().next().copied());
        if let Some((pid, start)) = followed
            && self.stat(pid).is_some_and(|stat| stat.start == start)
            && matches(pid)
        {
            return Some(pid);
        }
        let entries = std::fs::read_dir(&self.proc).ok()?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let own = std::process::id();
        pids.filter(|pid| *pid != own && matches(*pid))
            .filter_map(|pid| Some((self.stat(pid)?.start, pid)))
            .min()
            .map(|(_, pid)| pid)
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        parse_stat(&std::fs::read_to_string(self.proc.join(pid.to_string()).join("stat")).ok()?)
    }

    /// Resident bytes and threads.
    fn status(&self, pid: u32) -> (Option<u64>, Option<u64>) {
        let text = std::fs::read_to_string(self.proc.join(pid.to_string()).join("status")).unwrap_or_default();
        let number = |key: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
            rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        (number("VmRSS:").map(|kib| kib.saturating_mul(1024)), number("Threads:"))
    }

    fn open_files(&self, pid: u32) -> Option<usize> {
        Some(std::fs::read_dir(self.proc.join(pid.to_string()).join("fd")).ok()?.count())
    }
}

/// Percent of one processor between two readings; `None` when nothing of the first is left.
fn cpu_percent(last: &Reading, now: &Reading) -> Option<f64> {
    let elapsed = (now.monotonic - last.monotonic) as f64 / 1e9;
    if elapsed <= 0.0 {
        return None;
    }
    let seconds = match (last.group_usage, now.group_usage) {
        (Some(before), Some(after)) if after >= before => (after - before) as f64 / 1e6,
        _ => {
            let mut since = now.cpu.iter().filter_map(|(id, ticks)| Some(ticks.saturating_sub(*last.cpu.get(id)?)));
            let first = since.next()?;
            since.fold(first, u64::saturating_add) as f64 / TICKS_PER_SECOND
        }
    };
    Some(seconds / elapsed * 100.0)
}

/// Columns of `/proc/PID/stat` (proc(5)), counted behind the name, which may hold spaces and parentheses: user and system
/// time 14th and 15th, start 22nd.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, columns) = text.rsplit_once(')')?;
    let mut columns = columns.split_ascii_whitespace();
    // A process that has ended and was not waited for has no values any more.
    if columns.next()? == "Z" {
        return None;
    }
    let user: u64 = columns.nth(10)?.parse().ok()?;
    let system: u64 = columns.next()?.parse().ok()?;
    let start = columns.nth(6)?.parse().ok()?;
    Some(Stat { ticks: user.saturating_add(system), start })
}

/// The folder of a unit below the root of the control groups, of either version.
fn find_group(root: &Path, unit: &str) -> Option<PathBuf> {
    let mut found = None;
    walk(root, |folder| {
        let is_it = folder.file_name().is_some_and(|name| name == unit);
        if is_it {
            found = Some(folder.to_owned());
        }
        is_it
    });
    found
}

/// Visits folders, parents first, until one says that it was enough.
fn walk(root: &Path, mut visit: impl FnMut(&Path) -> bool) {
    let mut waiting = std::collections::VecDeque::from([root.to_owned()]);
    for _ in 0..GROUPS_MAX {
        let Some(folder) = waiting.pop_front() else { return };
        if visit(&folder) {
            return;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        waiting.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clock, SystemClock};

    fn value(readings: &[ProcessReading], key: &str) -> Option<f64> {
        readings.iter().find(|reading| reading.what.key == key).map(|reading| reading.value)
    }

    /// A process as `/proc` shows it.
    fn make(root: &Path, pid: u32, command: &str, ticks: u64, start: u64) {
        let folder = root.join(pid.to_string());
        std::fs::create_dir_all(folder.join("fd")).expect("writable");
        for descriptor in ["0", "1", "2"] {
            std::fs::write(folder.join("fd").join(descriptor), "").expect("writable");
        }
        std::fs::write(folder.join("cmdline"), command.replace(' ', "\0")).expect("writable");
        let stat = format!("{pid} (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 4 0 {start} 1 1 1");
        std::fs::write(folder.join("stat"), stat).expect("writable");
        std::fs::write(folder.join("status"), "Name:\ta\nVmRSS:\t    100 kB\nThreads:\t4\n").expect("writable");
    }

    #[test]
    fn this_process_by_its_pid_file() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("pid");
        std::fs::write(&path, format!("{}\n", std::process::id())).expect("writable");
        let mut collector = ProcessCollector::new(ProcessFinder::PidFile(path.clone()));
        let began = SystemClock.monotonic();
        let first = collector.collect(began);
        assert_eq!(value(&first, "cpu_percent"), None, "two readings are needed");
        assert!(value(&first, "memory_bytes").is_some_and(|bytes| bytes > 1e5));
        assert!(value(&first, "threads").is_some_and(|threads| threads >= 1.0));
        assert!(value(&first, "open_files").is_some_and(|files| files >= 3.0));
        // Enough work to be seen in ticks of 10 ms.
        let mut x = 1u64;
        while SystemClock.monotonic() - began < 200_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let busy = value(&collector.collect(SystemClock.monotonic()), "cpu_percent");
        assert!(busy.is_some_and(|percent| percent > 5.0), "{busy:?}");
        std::fs::remove_file(path).expect("ours");
        assert!(collector.collect(SystemClock.monotonic()).is_empty());
    }

    #[test]
    fn of_several_the_oldest_is_followed_until_it_ends() {
        let root = tempfile::tempdir().expect("a directory");
        make(root.path(), 30, "python app.py --port 1", 500, 900);
        make(root.path(), 40, "python app.py --port 2", 100, 800);
        make(root.path(), 50, "bash", 7, 1);
        make(root.path(), std::process::id(), "python app.py", 7, 2);
        let finder = ProcessFinder::Command("python app.py".into());
        let mut collector = ProcessCollector::within(finder, root.path(), Path::new("/nowhere"));
        let first = collector.collect(0);
        assert_eq!(value(&first, "cpu_percent"), None);
        assert_eq!((value(&first, "memory_bytes"), value(&first, "threads")), (Some(102_400.0), Some(4.0)));
        assert_eq!(value(&first, "open_files"), Some(3.0));
        make(root.path(), 40, "python app.py --port 2", 400, 800);
        // 300 ticks of 10 ms within 2 s: one and a half processors.
        assert_eq!(value(&collector.collect(2_000_000_000), "cpu_percent"), Some(150.0));
        // A new process under the old id is another one: the other one is older now.
        make(root.path(), 40, "python app.py --port 2", 1, 1_000);
        let other = collector.collect(4_000_000_000);
        assert_eq!((value(&other, "cpu_percent"), value(&other, "threads")), (None, Some(4.0)));
        make(root.path(), 30, "python app.py --port 1", 501, 900);
        assert_eq!(value(&collector.collect(5_000_000_000), "cpu_percent"), Some(1.0));
        for pid in ["30", "40"] {
            std::fs::remove_dir_all(root.path().join(pid)).expect("ours");
        }
        assert!(collector.collect(6_000_000_000).is_empty());
    }

    #[test]
    fn a_unit_is_all_of_its_processes() {
        let root = tempfile::tempdir().expect("a directory");
        let group = root.path().join("cgroup/system.slice/app.service");
        std::fs::create_dir_all(group.join("worker")).expect("writable");
        std::fs::write(group.join("cgroup.procs"), "7\n").expect("writable");
        std::fs::write(group.join("worker/cgroup.procs"), "8\n9\n").expect("writable");
        for pid in [7, 8] {
            make(root.path(), pid, "app", 100, u64::from(pid));
        }
        let finder = ProcessFinder::Unit("app".into());
        let mut collector = ProcessCollector::within(finder, root.path(), &root.path().join("cgroup"));
        let first = collector.collect(0);
        assert_eq!((value(&first, "threads"), value(&first, "open_files")), (Some(8.0), Some(6.0)));
        make(root.path(), 7, "app", 150, 7);
        make(root.path(), 9, "app", 1_000, 9);
        // The one that is new counts from now on.
        assert_eq!(value(&collector.collect(1_000_000_000), "cpu_percent"), Some(50.0));
        std::fs::write(group.join("cpu.stat"), "usage_usec 5000000\nuser_usec 1\n").expect("writable");
        collector.collect(2_000_000_000);
        std::fs::write(group.join("cpu.stat"), "usage_usec 7500000\nuser_usec 1\n").expect("writable");
        assert_eq!(value(&collector.collect(3_000_000_000), "cpu_percent"), Some(250.0));
        std::fs::remove_dir_all(&group).expect("ours");
        assert!(collector.collect(4_000_000_000).is_empty());
    }

    #[test]
    fn a_zombie_has_no_values() {
        assert!(parse_stat("5 (x) Z 1 1 1 0 -1 0 0 0 0 0 9 9 0 0 20 0 1 0 77 1").is_none());
        let stat = parse_stat("5 (x y) z) R 1 1 1 0 -1 0 0 0 0 0 9 8 0 0 20 0 1 0 77 1").expect("well formed");
        assert_eq!((stat.ticks, stat.start), (17, 77));
    }
}
