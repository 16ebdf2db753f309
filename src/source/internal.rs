//! What this process uses, under the names that every Prometheus client library gives it.
//!
//! In: `/proc/self`. Out: [`ProcessSample`]s. Owns: the start time, read once. A value that the system does
//! not tell is left out. Names and meaning: the Prometheus guide for client libraries, "process metrics".

use crate::event::{Kind, Unit};
use rustix::process::Resource;
use rustix::time::ClockId;

/// One of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessSample {
    /// The exposed name.
    pub name: &'static str,
    /// `# HELP`.
    pub help: &'static str,
    /// A counter's value is cumulative since the start of the process.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// In that unit.
    pub value: f64,
}

/// Reads the values of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessCollector {
    /// Seconds since the epoch.
    start: Option<f64>,
}

/// `/proc` counts time in these a second, whatever the kernel's own clock (`USER_HZ` on every architecture
/// that Rust's Linux targets share).
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

impl Default for ProcessCollector {
    fn default() -> ProcessCollector {
        ProcessCollector::new()
    }
}

impl ProcessCollector {
    /// Reads what does not change.
    pub fn new() -> ProcessCollector {
        ProcessCollector { start: start_time() }
    }

    /// The values now; three small reads, under 0.1 ms with a hundred descriptors.
    pub fn collect(&self) -> Vec<ProcessSample> {
        let mut samples = Vec::with_capacity(6);
        let mut push = |name, help, kind, unit, value: Option<f64>| {
            if let Some(value) = value {
                samples.push(ProcessSample { name, help, kind, unit, value });
            }
        };
        let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        push(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            Kind::Counter,
            Unit::Seconds,
            Some(cpu),
        );
        push(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            Kind::Gauge,
            Unit::Bytes,
            status_bytes(&status, "VmRSS:"),
        );
        push(
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            Kind::Gauge,
            Unit::Bytes,
            status_bytes(&status, "VmSize:"),
        );
        push("process_open_fds", "Number of open file descriptors.", Kind::Gauge, Unit::None, open_descriptors());
        push(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            Kind::Gauge,
            Unit::None,
            // No limit is no value.
            rustix::process::getrlimit(Resource::Nofile).current.map(|limit| limit as f64),
        );
        push(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            Kind::Gauge,
            Unit::Seconds,
            self.start,
        );
        samples
    }
}

/// A line such as `VmRSS:      3412 kB`.
fn status_bytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn open_descriptors() -> Option<f64> {
    // The directory that is being read is one of them.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn start_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + start_ticks(&stat)? / TICKS_PER_SECOND)
}

/// Field 22 of `/proc/PID/stat` (proc(5)). The second, the name in parentheses, may hold spaces and
/// parentheses, so counting begins after the last one.
fn start_ticks(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clock, SystemClock};

    fn value(samples: &[ProcessSample], name: &str) -> f64 {
        samples.iter().find(|sample| sample.name == name).expect("present").value
    }

    #[test]
    fn values_of_this_process_are_plausible() {
        let collector = ProcessCollector::new();
        let held: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null").expect("opens")).collect();
        let with = collector.collect();
        assert_eq!(with.len(), 6);
        assert!(value(&with, "process_open_fds") >= 20.0 + held.len().min(3) as f64);
        assert!(value(&with, "process_max_fds") >= value(&with, "process_open_fds"));
        assert!(value(&with, "process_resident_memory_bytes") > 1e5);
        assert!(value(&with, "process_virtual_memory_bytes") >= value(&with, "process_resident_memory_bytes"));
        let age = SystemClock.wall().as_seconds_f64() - value(&with, "process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let collector = ProcessCollector::new();
        let before = value(&collector.collect(), "process_cpu_seconds_total");
        let mut sum = 0u64;
        for n in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        assert!(value(&collector.collect(), "process_cpu_seconds_total") > before);
    }

    #[test]
    fn fields_of_proc() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 98 0 0 0 1 2 0 0 20 0 1 0 8721 5 6 7";
        assert_eq!(start_ticks(stat), Some(8721.0));
        let status = "Name:\tx\nVmSize:\t   2048 kB\nVmRSS:\t     12 kB\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(12.0 * 1024.0));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
    }
}
