//! Question: how many bytes does a sample take in a page, how many a histogram, and how long does a page take?
//!
//! Expected floor: a constant nothing but its head (0.03 bytes a sample over an hour); a counter of a steady rate the
//! logarithm of its spread (a byte at 1,000 increments a slice); a float of 24 random bits three bytes; 1,000 lognormal
//! values what a coder that knew their distribution would take (182 bytes). In time a table lookup and a multiplication
//! a number each way, and twice that to choose how it is predicted.
//! Targets: 1.0 bytes a sample on what a scrape brings, and less than Prometheus; a histogram 1.15 × the entropy of its
//! cells and 230 bytes for 1,000 values (σ = 0.8, 2 digits); 30 ns to write and 15 ns to read a (series, slot); a day of
//! one series out of 24 pages 5 ms.
//! Last answer: not measured yet.
//!
//! Method: pages of an hour at 10 s, bytes of the whole page. A sample is what one scrape of one series brings Prometheus:
//! a counter that stood still is one too, though we store no row of it. Prometheus: `promtool tsdb create-blocks-from
//! openmetrics` of the same values, bytes of its chunks alone, without its index; its times are whole multiples of 10 s,
//! which is its best case. VictoriaMetrics: the same by `/api/v1/import/prometheus`, flushed and merged, its own figure of
//! `vm_data_size_bytes` of type `storage`, without its index. Ours keeps what theirs do not: nanoseconds and position of
//! every gauge's set. CPU time is that of the thread. `host` is an hour of this program's own source on a machine at work
//! (benches/data/host-hour.txt).

mod common;

use common::{Figures, Random, Table, is_asked, method, pairs, sleep, thread_cpu, verdict};
use hydrograph::delta::part::{DistributionRow, RowValue};
use hydrograph::delta::{CounterSum, GaugeSum};
use hydrograph::event::{Kind, SeriesId};
use hydrograph::sketch::{Digits, Sketch, layout};
use hydrograph::store::{Page, PageBuffers, PageWriter, Wanted};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Slots of an hour at 10 s.
const SLOTS: u16 = 360;
/// An hour inside a block of Prometheus.
const START_SECONDS: i64 = 1_700_006_400;

fn main() {
    method();
    let sets = data_sets();
    if is_asked("sizes") {
        sizes(&sets);
    }
    if is_asked("speed") {
        speed(&sets);
    }
    if is_asked("histograms") {
        histograms();
    }
}

/// One series as both sides see it.
struct Series {
    kind: Kind,
    /// What Prometheus scrapes: a gauge's value, a counter's total.
    scraped: Vec<f64>,
    rows: Vec<(u16, Scalar)>,
}

enum Scalar {
    Counter(CounterSum),
    Gauge(GaugeSum),
}

struct DataSet {
    name: &'static str,
    series: Vec<Series>,
    /// Whether the target of 1.0 is about it.
    is_judged: bool,
}

impl DataSet {
    fn samples(&self) -> usize {
        self.series.iter().map(|series| series.scraped.len()).sum()
    }
}

/// The times at which one source reads its values: every 10 s, late by up to 2 ms.
struct Scrapes(Vec<i64>);

impl Scrapes {
    fn new(random: &mut Random) -> Scrapes {
        let phase = (random.next() % 10_000_000_000) as i64;
        let at = |slot: u16| START_SECONDS * 1_000_000_000 + i64::from(slot) * 10_000_000_000 + phase;
        Scrapes((0..SLOTS).map(|slot| at(slot) + (random.next() % 2_000_000) as i64).collect())
    }

    /// A gauge that is read once a slot; `place` is its place among the values of the source.
    fn gauge(&self, values: Vec<f64>, scale: f64, place: u64) -> Series {
        let row = |(slot, value): (usize, &f64)| {
            let time = self.0[slot];
            let (last, position) = (*value, time as u64 + place);
            let sum = (last * scale).round() as i128;
            let gauge = GaugeSum { count: 1, last, time, position, min: last, max: last, sum, adjust: None };
            (slot as u16, Scalar::Gauge(gauge))
        };
        Series { kind: Kind::Gauge, rows: values.iter().enumerate().map(row).collect(), scraped: values }
    }
}

fn counter(increments: impl Iterator<Item = u64>) -> Series {
    let (mut total, mut scraped, mut rows) = (0, Vec::new(), Vec::new());
    for (slot, increment) in increments.enumerate() {
        total += increment;
        scraped.push(total as f64);
        if increment > 0 {
            let nanos = i128::from(increment) * 1_000_000_000;
            rows.push((slot as u16, Scalar::Counter(CounterSum { nanos })));
        }
    }
    Series { kind: Kind::Counter, scraped, rows }
}

fn normal(random: &mut Random) -> f64 {
    (-2.0 * random.uniform().ln()).sqrt() * (std::f64::consts::TAU * random.uniform()).cos()
}

/// A Poisson number; above 60 by its normal limit.
fn poisson(random: &mut Random, mean: f64) -> u64 {
    if mean > 60.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0) as u64;
    }
    let (limit, mut product, mut n) = ((-mean).exp(), random.uniform(), 0);
    while product > limit {
        product *= random.uniform();
        n += 1;
    }
    n
}

fn data_sets() -> Vec<DataSet> {
    let mut random = Random(4);
    let random = &mut random;
    let constant = |random: &mut Random, scrapes: &Scrapes, place| {
        let value = (random.next() % 1_000_000) as f64 / [1.0, 1.0, 10.0, 1000.0][(random.next() % 4) as usize];
        scrapes.gauge(vec![value; usize::from(SLOTS)], 1e6, place)
    };
    // Rates as a service has them: most are small, they differ by orders of magnitude and follow the hour.
    let counted = |random: &mut Random| {
        let rate = (normal(random) * 2.5 + 2.0).exp().min(1e6);
        let phase = random.uniform();
        let mean = |slot: u16| rate * (1.0 + 0.3 * (std::f64::consts::TAU * (f64::from(slot) / 360.0 + phase)).sin());
        counter((0..SLOTS).map(|slot| poisson(random, mean(slot))).collect::<Vec<_>>().into_iter())
    };
    let bytes_counted = |random: &mut Random| {
        let (rate, size) = ((normal(random) * 1.5 + 3.0).exp(), 200.0 + 2000.0 * random.uniform());
        let of = |random: &mut Random| {
            (0..poisson(random, rate)).map(|_| (size * (0.5 * normal(random)).exp()) as u64).sum()
        };
        counter((0..SLOTS).map(|_| of(random)).collect::<Vec<_>>().into_iter())
    };
    // Two decimals that wander, and memory in pages of 4 KiB.
    let wandering = |random: &mut Random, scrapes: &Scrapes, place| {
        let mut value = 2000.0 + 6000.0 * random.uniform();
        let step = 1.0 + 20.0 * random.uniform();
        let mut next = |random: &mut Random| {
            value = (value + step * normal(random)).clamp(0.0, 10_000.0);
            value.round() / 100.0
        };
        scrapes.gauge((0..SLOTS).map(|_| next(random)).collect(), 1e6, place)
    };
    let memory = |random: &mut Random, scrapes: &Scrapes, place| {
        let mut pages = 20_000.0 + 100_000.0 * random.uniform();
        let mut next = |random: &mut Random| {
            if random.uniform() < 0.4 {
                pages = (pages + 30.0 * normal(random)).max(0.0);
            }
            pages.round() * 4096.0
        };
        scrapes.gauge((0..SLOTS).map(|_| next(random)).collect(), 1.0, place)
    };
    let whole = |random: &mut Random, scrapes: &Scrapes, place| {
        let mut value = (random.next() % 200) as f64;
        let mut next = |random: &mut Random| {
            if random.uniform() < 0.15 {
                value = (value + (2.0 * normal(random)).round()).max(0.0);
            }
            value
        };
        scrapes.gauge((0..SLOTS).map(|_| next(random)).collect(), 1e6, place)
    };
    let noise = |random: &mut Random, scrapes: &Scrapes, place| {
        let values = (0..SLOTS).map(|_| 100.0 * random.uniform()).collect();
        scrapes.gauge(values, 1e6, place)
    };

    let mut sets = Vec::new();
    let mut push = |name, series, is_judged| sets.push(DataSet { name, series, is_judged });
    for (name, machines) in [("host, one machine", 1), ("host, ten machines", 10)] {
        if let Some(series) = host(random, machines) {
            push(name, series, false);
        }
    }
    let scrapes = Scrapes::new(random);
    push("constant gauges", (0..1000).map(|n| constant(random, &scrapes, n)).collect(), true);
    push("counters of events", (0..1000).map(|_| counted(random)).collect(), true);
    push("counters of bytes", (0..1000).map(|_| bytes_counted(random)).collect(), false);
    push("gauges, two decimals", (0..1000).map(|n| wandering(random, &scrapes, n)).collect(), false);
    push("gauges, memory", (0..1000).map(|n| memory(random, &scrapes, n)).collect(), false);
    push("gauges, small whole", (0..1000).map(|n| whole(random, &scrapes, n)).collect(), false);
    push("gauges, 53 random bits", (0..200).map(|n| noise(random, &scrapes, n)).collect(), false);
    let mut named: Vec<Series> = host(random, 10).unwrap_or_default();
    named.extend((0..160).map(|_| counted(random)));
    named.extend((0..160).map(|n| constant(random, &scrapes, n)));
    push("hosts, counters, constants", named, true);
    // What exporters show, roughly: a third constants, half counters, the rest moves.
    let mut mixed = Vec::new();
    for target in 0..20 {
        let scrapes = Scrapes::new(random);
        for n in 0..50 {
            mixed.push(match n {
                0..17 => constant(random, &scrapes, n),
                17..35 => counted(random),
                35..41 => bytes_counted(random),
                41..44 => wandering(random, &scrapes, n),
                44..46 => memory(random, &scrapes, n),
                46..49 => whole(random, &scrapes, n),
                _ if target % 2 == 0 => noise(random, &scrapes, n),
                _ => whole(random, &scrapes, n),
            });
        }
    }
    push("a scrape: mixed", mixed, true);
    sets
}

/// An hour of the host source: a line of names, a line of values a slot; a counter's is its total.
fn host(random: &mut Random, machines: usize) -> Option<Vec<Series>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/data/host-hour.txt");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("THERE IS NO {}: nothing is said about a host", path.display());
        return None;
    };
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next()?.split(' ').collect();
    let mut columns = vec![Vec::new(); names.len()];
    for line in lines {
        for (column, value) in columns.iter_mut().zip(line.split(' ')) {
            column.push(value.parse::<f64>().expect("a number"));
        }
    }
    let slots = (columns[0].len() - 1).min(usize::from(SLOTS));
    let mut series = Vec::new();
    // More machines do the same at other times: the hour, begun later and turned round.
    for machine in 0..machines {
        let scrapes = Scrapes::new(random);
        for (place, (name, values)) in names.iter().zip(&columns).enumerate() {
            let turn = machine * slots / machines;
            if name.ends_with("_total") {
                let mut steps: Vec<u64> = values.windows(2).map(|two| (two[1] - two[0]) as u64).collect();
                steps.truncate(slots);
                steps.rotate_left(turn);
                series.push(counter(steps.into_iter()));
            } else {
                let mut values = values[1..=slots].to_vec();
                values.rotate_left(turn);
                let scale = if name.contains("bytes") { 1.0 } else { 1e6 };
                series.push(scrapes.gauge(values, scale, place as u64));
            }
        }
    }
    Some(series)
}

/// The pages of a set: one a kind, as the store would cut them by kind and 1,024 ids.
fn pages(set: &DataSet) -> Vec<Vec<u8>> {
    let kinds = [Kind::Counter, Kind::Gauge];
    let page = |kind: Kind| {
        let mut writer = PageWriter::new(kind);
        for (id, series) in set.series.iter().enumerate().filter(|(_, series)| series.kind == kind) {
            for (slot, value) in &series.rows {
                let value = match value {
                    Scalar::Counter(sum) => RowValue::Counter(*sum),
                    Scalar::Gauge(sum) => RowValue::Gauge(sum.clone()),
                };
                writer.row(SeriesId(id as u32), *slot, &value);
            }
        }
        (!writer.is_empty()).then(|| writer.finish())
    };
    kinds.into_iter().filter_map(page).collect()
}

fn sizes(sets: &[DataSet]) {
    let promtool = find("promtool");
    let victoria = find("victoria-metrics");
    let table = Table::new(&[
        ("bytes a sample, an hour at 10 s", 34),
        ("series", 7),
        ("samples", 8),
        ("rows", 8),
        ("pages", 7),
        ("Prometheus", 11),
        ("VictoriaMetrics", 16),
        ("target", 7),
        ("", 8),
    ]);
    for set in sets {
        let samples = set.samples();
        let rows: usize = set.series.iter().map(|series| series.rows.len()).sum();
        let ours = pages(set).iter().map(Vec::len).sum::<usize>() as f64 / samples as f64;
        let figure = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / samples as f64);
        let prometheus = figure(promtool.as_deref().map(|path| prometheus_bytes(path, set)));
        let victoria = figure(victoria.as_deref().map(|path| victoria_bytes(path, set)));
        let show = |figure: Option<f64>| figure.map_or("not there".to_owned(), |figure| format!("{figure:.3}"));
        let is_less = prometheus.is_none_or(|prometheus| ours < prometheus);
        table.row(&[
            set.name.to_owned(),
            set.series.len().to_string(),
            samples.to_string(),
            rows.to_string(),
            format!("{ours:.3}"),
            show(prometheus),
            show(victoria),
            if set.is_judged { "1.0".to_owned() } else { "less".to_owned() },
            verdict(is_less && (!set.is_judged || ours <= 1.0)),
        ]);
    }
    if promtool.is_none() || victoria.is_none() {
        println!("NOT COMPARED: promtool and victoria-metrics are looked for in PATH and in HYDROGRAPH_TEST_TOOLS/bin");
    }
}

/// A program in PATH, or under the folder of the test tools.
fn find(name: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("HYDROGRAPH_TEST_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([tools.join("bin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Every sample as a line; a time is in seconds / `divisor`.
fn lines(set: &DataSet, per_second: i64, is_open_metrics: bool) -> String {
    let mut text = String::new();
    for (kind, name) in [(Kind::Counter, "benched_total"), (Kind::Gauge, "benched_now")] {
        if is_open_metrics && set.series.iter().any(|series| series.kind == kind) {
            let (family, word) = if kind == Kind::Counter { ("benched", "counter") } else { (name, "gauge") };
            let _ = writeln!(text, "# TYPE {family} {word}");
        }
        for (id, series) in set.series.iter().enumerate().filter(|(_, series)| series.kind == kind) {
            for (slot, value) in series.scraped.iter().enumerate() {
                let time = (START_SECONDS + slot as i64 * 10) * per_second;
                let _ = writeln!(text, "{name}{{series=\"{id}\"}} {value} {time}");
            }
        }
    }
    if is_open_metrics {
        text.push_str("# EOF\n");
    }
    text
}

fn prometheus_bytes(promtool: &Path, set: &DataSet) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let (input, output) = (directory.path().join("input"), directory.path().join("data"));
    std::fs::write(&input, lines(set, 1, true)).expect("writes the samples");
    let mut command = Command::new(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).args([&input, &output]);
    let done = command.output().expect("runs promtool");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let files = |folder: &Path| std::fs::read_dir(folder).expect("a folder").flatten().collect::<Vec<_>>();
    let chunks = files(&output).into_iter().flat_map(|block| files(&block.path().join("chunks")));
    chunks.map(|file| file.metadata().expect("a file").len()).sum()
}

/// A child that ends with its handle.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victoria_bytes(program: &Path, set: &DataSet) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let mut command = Command::new(program);
    command.arg(format!("-storageDataPath={}", directory.path().display()));
    command.arg(format!("-httpListenAddr=127.0.0.1:{port}")).args(["-retentionPeriod=100y", "-loggerLevel=ERROR"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts VictoriaMetrics");
    let _peer = Peer(child);
    let ask = |request: &str, body: &[u8]| -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .ok()?;
        stream.write_all(body).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    while ask("GET /health", b"").is_none() {
        sleep(50);
    }
    let answer = ask("POST /api/v1/import/prometheus", lines(set, 1000, false).as_bytes()).expect("imports");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let samples = set.samples() as f64;
    let mut last = BTreeMap::new();
    for _ in 0..100 {
        ask("GET /internal/force_flush", b"").expect("flushes");
        ask("GET /internal/force_merge", b"").expect("merges");
        sleep(300);
        let metrics = ask("GET /metrics", b"").expect("answers");
        let sum = |name: &str| -> f64 {
            let of_data = |line: &&str| line.starts_with(name) && line.contains("type=\"storage/");
            metrics.lines().filter(of_data).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        let (rows, bytes, parts) = (sum("vm_rows{"), sum("vm_data_size_bytes{"), sum("vm_parts{"));
        // The same figure twice, once every row is there: merging is over.
        if rows == samples && last.get("bytes") == Some(&(bytes as u64)) && parts <= 2.0 {
            return bytes as u64;
        }
        last.insert("bytes", bytes as u64);
    }
    panic!("VictoriaMetrics has not merged: {last:?}");
}

fn speed(sets: &[DataSet]) {
    let table = Table::new(&[
        ("CPU ns a (series, slot)", 34),
        ("rows", 8),
        ("write", 22),
        ("read", 22),
        ("target", 7),
        ("", 8),
        ("one series of a page, µs", 25),
    ]);
    for set in sets {
        let rows: usize = set.series.iter().map(|series| series.rows.len()).sum();
        let (mut write, mut read, mut single) = (Figures::default(), Figures::default(), Figures::default());
        let mut buffers = PageBuffers::default();
        for _ in 0..pairs() {
            let began = thread_cpu();
            let written = std::hint::black_box(pages(set));
            let ended = thread_cpu();
            write.push((ended - began) as f64 / rows as f64);
            let mut seen = 0u64;
            let began = thread_cpu();
            for page in &written {
                let page = Page::new(page).expect("a page");
                page.read(Wanted::All, 0..SLOTS, true, &mut buffers, &mut |_, slot, value| {
                    seen = seen.wrapping_add(fold(slot, value));
                    Ok(())
                })
                .expect("reads");
            }
            read.push((thread_cpu() - began) as f64 / rows as f64);
            std::hint::black_box(seen);
            let last = written.last().expect("a page");
            let mut ids = Vec::new();
            Page::new(last).and_then(|page| page.ids(&mut ids)).expect("a page");
            let began = thread_cpu();
            for n in 0..100 {
                let id = [ids[n * ids.len() / 100]];
                let page = Page::new(last).expect("a page");
                page.read(Wanted::Ids(&id), 0..SLOTS, true, &mut buffers, &mut |_, slot, value| {
                    seen = seen.wrapping_add(fold(slot, value));
                    Ok(())
                })
                .expect("reads");
            }
            single.push((thread_cpu() - began) as f64 / 100.0 / 1e3);
            std::hint::black_box(seen);
        }
        table.row(&[
            set.name.to_owned(),
            rows.to_string(),
            write.show(1),
            read.show(1),
            "30; 15".to_owned(),
            verdict(write.median() <= 30.0 && read.median() <= 15.0),
            single.show(1),
        ]);
    }
}

/// Something that needs the row.
fn fold(slot: u16, value: &RowValue<'_>) -> u64 {
    u64::from(slot)
        ^ match value {
            RowValue::Counter(sum) => sum.nanos as u64,
            RowValue::Gauge(sum) => sum.last.to_bits() ^ sum.sum as u64 ^ sum.position,
            RowValue::Distribution(row) => row.count ^ row.cells.len() as u64,
            RowValue::Set(set) => set.is_empty().into(),
        }
}

struct Slice {
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
    cells: Vec<(i32, u64)>,
}

impl Slice {
    fn random(random: &mut Random, values: u64) -> Slice {
        let mut slice = Slice { count: values, sum: 0, min: i64::MAX, max: i64::MIN, cells: Vec::new() };
        let mut sketch = Sketch::new(Digits::Two);
        for _ in 0..values {
            let value = random.latency() as i64;
            slice.sum += i128::from(value);
            (slice.min, slice.max) = (slice.min.min(value), slice.max.max(value));
            sketch.add(layout::cell_of(Digits::Two, value), 1);
        }
        slice.cells = sketch.cells().collect();
        slice
    }

    /// Bits that a coder of order 0 would take that knew how often each count comes in this slice: the empirical entropy of
    /// the counts of all cells from the first used one to the last.
    fn entropy(&self) -> f64 {
        let mut often: BTreeMap<u64, f64> = BTreeMap::new();
        self.cells.iter().for_each(|(_, count)| *often.entry(*count).or_default() += 1.0);
        let (first, last) = (self.cells[0].0, self.cells[self.cells.len() - 1].0);
        let all = f64::from(last - first) + 1.0;
        *often.entry(0).or_default() += all - self.cells.len() as f64;
        often.values().filter(|n| **n > 0.0).map(|n| n * (all / n).log2()).sum()
    }
}

fn histograms() {
    let table = Table::new(&[
        ("a slice of a histogram, 2 digits", 34),
        ("cells", 7),
        ("bytes", 8),
        ("entropy", 8),
        ("ratio", 7),
        ("target", 10),
        ("", 8),
        ("write µs", 20),
        ("read µs", 20),
        ("heads ns", 20),
    ]);
    for values in [1, 10, 100, 1_000, 10_000, 360_000] {
        let mut random = Random(values);
        // A series a page at the highest counts, for the sake of time.
        let (series, slots) = if values > 1_000 { (1, 60) } else { (8, SLOTS) };
        let slices: Vec<Slice> = (0..series * slots).map(|_| Slice::random(&mut random, values)).collect();
        let write = || {
            let mut writer = PageWriter::new(Kind::Distribution);
            for (at, slice) in slices.iter().enumerate() {
                let row = DistributionRow {
                    digits: Digits::Two,
                    count: slice.count,
                    weighted: false,
                    sum: slice.sum,
                    min: slice.min,
                    max: slice.max,
                    cells: &slice.cells,
                    below: &[],
                };
                let (id, slot) = (at as u32 / u32::from(slots), (at % usize::from(slots)) as u16);
                writer.row(SeriesId(id), slot, &RowValue::Distribution(row));
            }
            writer.finish()
        };
        let (mut wrote, mut read, mut heads) = (Figures::default(), Figures::default(), Figures::default());
        let mut buffers = PageBuffers::default();
        let mut bytes = 0;
        for _ in 0..pairs() {
            let began = thread_cpu();
            let page = std::hint::black_box(write());
            wrote.push((thread_cpu() - began) as f64 / slices.len() as f64 / 1e3);
            bytes = page.len();
            for (figures, cells, per) in [(&mut read, true, 1e3), (&mut heads, false, 1.0)] {
                let began = thread_cpu();
                let mut seen = 0u64;
                Page::new(&page)
                    .and_then(|page| {
                        page.read(Wanted::All, 0..SLOTS, cells, &mut buffers, &mut |_, slot, value| {
                            seen = seen.wrapping_add(fold(slot, value));
                            Ok(())
                        })
                    })
                    .expect("reads");
                std::hint::black_box(seen);
                figures.push((thread_cpu() - began) as f64 / slices.len() as f64 / per);
            }
        }
        let each = slices.len() as f64;
        let cells = slices.iter().map(|slice| slice.cells.len()).sum::<usize>() as f64 / each;
        let entropy = slices.iter().map(Slice::entropy).sum::<f64>() / 8.0 / each;
        let bytes = bytes as f64 / each;
        let is_reached = (bytes <= 1.15 * entropy || values < 100) && (values != 1_000 || bytes <= 230.0);
        table.row(&[
            format!("{values} values"),
            format!("{cells:.0}"),
            format!("{bytes:.1}"),
            format!("{entropy:.1}"),
            format!("{:.3}", bytes / entropy),
            if values == 1_000 { "1.15; 230" } else { "1.15" }.to_owned(),
            verdict(is_reached),
            wrote.show(2),
            read.show(2),
            heads.show(0),
        ]);
    }
}
