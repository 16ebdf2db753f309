//! Values of this machine: processor, memory, disks, network.
//!
//! In: `/proc`, `/sys` and the file systems, through sysinfo where it reads no more than is needed. Out:
//! [`HostSample`]s. Owns: the last reading of everything that is shown as a difference. Invariants: counters
//! are increments since the reading before, first reading 0; a device that disappears or starts again takes
//! nothing back; a value that the system does not tell is left out.

use crate::event::{Kind, Labels, LabelsBuilder, Unit};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, System};

/// Less than this apart, two readings of the processor's clocks say nothing (sysinfo's own limit).
const CPU_NANOS_MIN: i64 = 200_000_000;
/// Sectors of `/proc/diskstats` have this size, whatever the device's are.
const SECTOR_BYTES: u64 = 512;

/// What a value of this machine is.
#[derive(Debug, PartialEq)]
pub struct HostValue {
    /// The word in a pipeline file: `cpu_percent`.
    pub key: &'static str,
    /// The exposed name while no metric names it: `host_cpu_percent`.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// `# HELP`.
    pub help: &'static str,
}

/// Declares the values, so that a key and its name cannot differ.
macro_rules! host_values {
    ($($id:ident = $key:literal, $kind:ident, $unit:expr, $help:literal;)*) => {
        $(static $id: HostValue =
            HostValue { key: $key, name: concat!("host_", $key), kind: Kind::$kind, unit: $unit, help: $help };)*
        /// Every value there is.
        pub static HOST_VALUES: &[&HostValue] = &[$(&$id,)*];
    };
}

host_values! {
    CPU_PERCENT = "cpu_percent", Gauge, Unit::Other("percent"), "Processor time in use, of all processors together, 0 to 100.";
    LOAD1 = "load1", Gauge, Unit::None, "Load average over 1 minute.";
    LOAD5 = "load5", Gauge, Unit::None, "Load average over 5 minutes.";
    LOAD15 = "load15", Gauge, Unit::None, "Load average over 15 minutes.";
    MEMORY_TOTAL = "memory_total_bytes", Gauge, Unit::Bytes, "Memory of this machine.";
    MEMORY_USED = "memory_used_bytes", Gauge, Unit::Bytes, "Memory in use: total less available.";
    MEMORY_AVAILABLE = "memory_available_bytes", Gauge, Unit::Bytes, "Memory that programs can still get.";
    MEMORY_PERCENT = "memory_percent", Gauge, Unit::Other("percent"), "Memory in use, 0 to 100.";
    SWAP_USED = "swap_used_bytes", Gauge, Unit::Bytes, "Swap space in use.";
    DISK_PERCENT = "disk_percent", Gauge, Unit::Other("percent"), "Space of the file system in use, as df shows it, 0 to 100.";
    DISK_USED = "disk_used_bytes", Gauge, Unit::Bytes, "Space of the file system in use.";
    DISK_TOTAL = "disk_total_bytes", Gauge, Unit::Bytes, "Size of the file system.";
    DISK_READ = "disk_read_bytes_total", Counter, Unit::Bytes, "Bytes read from the disks of this machine.";
    DISK_WRITTEN = "disk_written_bytes_total", Counter, Unit::Bytes, "Bytes written to the disks of this machine.";
    NETWORK_RECEIVED = "network_received_bytes_total", Counter, Unit::Bytes, "Bytes received, loopback excepted.";
    NETWORK_SENT = "network_sent_bytes_total", Counter, Unit::Bytes, "Bytes sent, loopback excepted.";
    NETWORK_RATE = "network_bits_per_second", Gauge, Unit::None, "Bits received and sent a second since the last reading.";
    PROCESSES = "processes", Gauge, Unit::None, "Processes of this machine.";
    UPTIME = "uptime_seconds", Gauge, Unit::Seconds, "Time since this machine was started.";
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSample {
    /// Which.
    pub what: &'static HostValue,
    /// Gauges: the value. Counters: the increment since the last reading, a whole number.
    pub value: f64,
    /// `mount` on values of a file system, where that was asked for.
    pub labels: Labels,
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// A path in the file system that `disk_*` is about.
    pub disk: PathBuf,
    /// Every mounted file system too, with label `mount`.
    pub by_mount: bool,
    /// Whether `network_bits_per_second` is there too.
    pub network_rate: bool,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions { disk: "/".into(), by_mount: false, network_rate: false }
    }
}

/// Why nothing can be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the values of this machine: {0}")]
pub struct HostError(String);

/// Two cumulative counts of a device: read and written, or received and sent.
type Counts = (u64, u64);

/// Reads the values of this machine.
pub struct HostCollector {
    options: HostOptions,
    system: System,
    /// Only with `by_mount`.
    mounts: Option<Disks>,
    /// Monotonic times of the last readings.
    cpu_read: i64,
    network_read: i64,
    /// In [0, 100], once two readings were far enough apart.
    cpu_percent: Option<f64>,
    disks: HashMap<String, Counts>,
    networks: HashMap<String, Counts>,
}

impl HostCollector {
    /// Takes the first reading, from which the differences count.
    ///
    /// # Errors
    /// When this system tells nothing.
    pub fn new(options: HostOptions, monotonic: i64) -> Result<HostCollector, HostError> {
        let failed = |error: sysinfo::Error| HostError(error.to_string());
        let mut system = System::new().map_err(failed)?;
        system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        let mounts = if options.by_mount { Some(Disks::new().map_err(failed)?) } else { None };
        Ok(HostCollector {
            options,
            system,
            mounts,
            cpu_read: monotonic,
            network_read: monotonic,
            cpu_percent: None,
            disks: disk_counts().into_iter().collect(),
            networks: network_counts().into_iter().collect(),
        })
    }

    /// Reads everything once. `monotonic` is the time in nanoseconds.
    pub fn collect(&mut self, monotonic: i64) -> Vec<HostSample> {
        let mut samples = Vec::with_capacity(HOST_VALUES.len());
        let mut push = |what, value| samples.push(HostSample { what, value, labels: Labels::empty() });
        if monotonic - self.cpu_read >= CPU_NANOS_MIN {
            self.cpu_read = monotonic;
            self.system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
            self.cpu_percent = Some(f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0));
        }
        if let Some(percent) = self.cpu_percent {
            push(&CPU_PERCENT, percent);
        }
        if let Ok(load) = System::load_average() {
            push(&LOAD1, load.one);
            push(&LOAD5, load.five);
            push(&LOAD15, load.fifteen);
        }
        self.system.refresh_memory_specifics(MemoryRefreshKind::everything());
        let total = self.system.total_memory();
        let available = self.system.available_memory().min(total);
        if total > 0 {
            push(&MEMORY_TOTAL, total as f64);
            push(&MEMORY_USED, (total - available) as f64);
            push(&MEMORY_AVAILABLE, available as f64);
            push(&MEMORY_PERCENT, (total - available) as f64 / total as f64 * 100.0);
            push(&SWAP_USED, self.system.used_swap() as f64);
        }
        let (read, written) = increments(&mut self.disks, disk_counts());
        push(&DISK_READ, read as f64);
        push(&DISK_WRITTEN, written as f64);
        let (received, sent) = increments(&mut self.networks, network_counts());
        push(&NETWORK_RECEIVED, received as f64);
        push(&NETWORK_SENT, sent as f64);
        let elapsed = monotonic - self.network_read;
        self.network_read = monotonic;
        if self.options.network_rate && elapsed > 0 {
            push(&NETWORK_RATE, (received + sent) as f64 * 8.0 / (elapsed as f64 / 1e9));
        }
        if let Some(count) = process_count() {
            push(&PROCESSES, count as f64);
        }
        if let Ok(seconds) = System::uptime() {
            push(&UPTIME, seconds as f64);
        }
        self.collect_space(&mut samples);
        samples
    }

    fn collect_space(&mut self, samples: &mut Vec<HostSample>) {
        push_space(&self.options.disk, &Labels::empty(), samples);
        let Some(mounts) = &mut self.mounts else { return };
        mounts.refresh_specifics(true, DiskRefreshKind::nothing());
        let mut paths: Vec<&Path> = mounts.iter().map(|disk| disk.mount_point()).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let mut labels = LabelsBuilder::new();
            labels.push("mount", path.to_string_lossy());
            // A mount point too long for a label is left out.
            if let Ok(labels) = labels.build() {
                push_space(path, &labels, samples);
            }
        }
    }
}

fn push_space(path: &Path, labels: &Labels, samples: &mut Vec<HostSample>) {
    let Ok(space) = rustix::fs::statvfs(path) else { return };
    let bytes = |blocks: u64| blocks as f64 * space.f_frsize as f64;
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    // As df does it: what is kept for the superuser is neither used nor free.
    let usable = used + space.f_bavail;
    if usable == 0 {
        return;
    }
    let mut push = |what, value| samples.push(HostSample { what, value, labels: labels.clone() });
    push(&DISK_PERCENT, used as f64 / usable as f64 * 100.0);
    push(&DISK_USED, bytes(used));
    push(&DISK_TOTAL, bytes(space.f_blocks));
}

/// What came in since the last reading, over all devices. A new device counts from now on; one whose count
/// went back was started again and counts from zero.
fn increments(last: &mut HashMap<String, Counts>, now: Vec<(String, Counts)>) -> Counts {
    let since = |now: u64, before: u64| if now >= before { now - before } else { now };
    let mut sum = (0u64, 0u64);
    for (device, (a, b)) in &now {
        if let Some((a_before, b_before)) = last.get(device) {
            sum.0 = sum.0.saturating_add(since(*a, *a_before));
            sum.1 = sum.1.saturating_add(since(*b, *b_before));
        }
    }
    *last = now.into_iter().collect();
    sum
}

/// Bytes read and written of each disk. Only devices that are hardware: partitions, RAID and logical volumes
/// are the same bytes again.
fn disk_counts() -> Vec<(String, Counts)> {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let mut counts = parse_disks(&text);
    counts.retain(|(device, _)| Path::new("/sys/block").join(device).join("device").exists());
    counts
}

/// Columns of `/proc/diskstats` (kernel, `admin-guide/iostats`): name third, sectors read sixth, written tenth.
fn parse_disks(text: &str) -> Vec<(String, Counts)> {
    let row = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let device = columns.nth(2)?.to_owned();
        let read: u64 = columns.nth(2)?.parse().ok()?;
        let written: u64 = columns.nth(3)?.parse().ok()?;
        Some((device, (read.checked_mul(SECTOR_BYTES)?, written.checked_mul(SECTOR_BYTES)?)))
    };
    text.lines().filter_map(row).collect()
}

/// Bytes received and sent of each interface: hardware if there is any, because bridges and tunnels carry
/// the same bytes again; else (in a container) all but the loopback.
fn network_counts() -> Vec<(String, Counts)> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut counts = parse_networks(&text);
    counts.retain(|(device, _)| device != "lo");
    let is_hardware = |device: &str| Path::new("/sys/class/net").join(device).join("device").exists();
    if counts.iter().any(|(device, _)| is_hardware(device)) {
        counts.retain(|(device, _)| is_hardware(device));
    }
    counts
}

/// Columns of `/proc/net/dev` (proc(5)): `name: received bytes, 7 more, sent bytes, ...`.
fn parse_networks(text: &str) -> Vec<(String, Counts)> {
    let row = |line: &str| {
        let (device, columns) = line.rsplit_once(':')?;
        let mut columns = columns.split_ascii_whitespace();
        let received = columns.next()?.parse().ok()?;
        let sent = columns.nth(7)?.parse().ok()?;
        Some((device.trim().to_owned(), (received, sent)))
    };
    text.lines().filter_map(row).collect()
}

/// Counting names is all that is needed: sysinfo would read several files of each process.
fn process_count() -> Option<usize> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Some(entries.flatten().filter(|entry| is_process(&entry.file_name())).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clock, SystemClock};

    fn value(samples: &[HostSample], key: &str) -> Option<f64> {
        samples.iter().find(|sample| sample.what.key == key).map(|sample| sample.value)
    }

    #[test]
    fn values_of_this_machine_are_plausible() {
        let mut collector = HostCollector::new(HostOptions::default(), SystemClock.monotonic()).expect("readable");
        let first = collector.collect(SystemClock.monotonic());
        assert_eq!(value(&first, "cpu_percent"), None, "two readings are needed");
        std::thread::sleep(std::time::Duration::from_millis(220));
        let samples = collector.collect(SystemClock.monotonic());
        for known in HOST_VALUES {
            let is_there = value(&samples, known.key).is_some();
            assert_eq!(is_there, known.key != "network_bits_per_second", "{}", known.key);
            assert_eq!(known.name, format!("host_{}", known.key));
        }
        let of = |key| value(&samples, key).expect("checked above");
        assert!((0.0..=100.0).contains(&of("cpu_percent")));
        assert!((0.0..=100.0).contains(&of("memory_percent")));
        assert!((0.0..=100.0).contains(&of("disk_percent")));
        let sum = of("memory_used_bytes") + of("memory_available_bytes");
        assert!((sum - of("memory_total_bytes")).abs() < 1.0);
        assert!(of("disk_used_bytes") <= of("disk_total_bytes"));
        assert!(of("processes") >= 1.0 && of("uptime_seconds") > 0.0);
        assert!(samples.iter().all(|sample| sample.value.is_finite() && sample.value >= 0.0));
    }

    #[test]
    fn mounts_have_their_label_and_the_rate_comes_when_asked_for() {
        let options = HostOptions { by_mount: true, network_rate: true, ..HostOptions::default() };
        let mut collector = HostCollector::new(options, 0).expect("readable");
        let samples = collector.collect(2_000_000_000);
        assert!(value(&samples, "network_bits_per_second").is_some());
        let space = samples.iter().filter(|sample| sample.what.key == "disk_total_bytes");
        // The one file system of `disk` has no label; what is mounted has.
        assert_eq!(space.filter(|sample| sample.labels.get("mount").is_none()).count(), 1);
    }

    #[test]
    fn the_processor_is_not_read_twice_within_200_ms() {
        let mut collector = HostCollector::new(HostOptions::default(), 0).expect("readable");
        assert_eq!(value(&collector.collect(CPU_NANOS_MIN - 1), "cpu_percent"), None);
        let percent = value(&collector.collect(CPU_NANOS_MIN), "cpu_percent");
        assert!(percent.is_some());
        assert_eq!(value(&collector.collect(CPU_NANOS_MIN + 1), "cpu_percent"), percent);
    }

    #[test]
    fn columns_of_the_kernel() {
        let disks = " 253       0 vda 17000 3 2000 99 40 5 600 7 0 8 9\n   7  0 loop0 0 0 0 0 0 0 0\n";
        assert_eq!(parse_disks(disks), [("vda".into(), (2000 * 512, 600 * 512)), ("loop0".into(), (0, 0))]);
        let networks = "Inter-|   Receive   |  Transmit\n face |bytes packets|bytes\n\
                        \x20   lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0:123456 2 0 0 0 0 0 0 789 3 0 0 0 0 0 0\n";
        assert_eq!(parse_networks(networks), [("lo".into(), (10, 10)), ("eth0".into(), (123_456, 789))]);
    }

    #[test]
    fn devices_come_go_and_start_again() {
        let mut last = HashMap::from([("a".to_owned(), (100, 10)), ("b".to_owned(), (50, 5))]);
        let now = vec![("a".to_owned(), (160, 11)), ("c".to_owned(), (1_000, 1_000))];
        assert_eq!(increments(&mut last, now), (60, 1));
        let now = vec![("a".to_owned(), (7, 12)), ("c".to_owned(), (1_001, 1_000))];
        assert_eq!(increments(&mut last, now), (8, 1));
    }
}
