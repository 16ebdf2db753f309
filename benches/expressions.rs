//! Question: how much of a core do 1,000 recorded expressions take that together read 100,000 counters over five minutes,
//! once per ten-second slice, over the real store and view, results fed back and committed?
//!
//! Expected floor: the rows of one new slice decoded once (100,000 × 10 commits, 20 ns each), 3 M rows visited (10 ns each),
//! results encoded and decoded (1 µs each). Limit: 20 % of a core, 2 s CPU a slice.
//! Last answer (7 slices, 2 shared EPYC cores in use): 0.33 s with 7,000 results, 0.69 s with 100,000; 0.14 s without them.
//!
//! Method: a server in a process of its own; 29 past slices are filled by lines with times, then every series moves once a
//! second and one more series appears, so that no list of series stays what it was. CPU of every thread of the server between the middles of slices, so that each span holds one evaluation and one
//! close; the same load with and without the expressions, and the difference by thread. The evaluator alone stands
//! beside it, over the naive memory, whose copying out of a tree is measured too.

mod common;

use common::{Figures, Options, Server, Table, cpu_by_thread, is_quick, method, pairs, sleep, verdict};
use hydrograph::Timestamp;
use hydrograph::event::{Clock, Kind, Metric, SeriesId, Slice, SliceWidth, SystemClock};
use hydrograph::query::cover::Zones;
use hydrograph::query::memory::Memory;
use hydrograph::query::{
    Data, DataError, Expression, Extent, MatchOp, Matcher, Need, Rows, Span, Value, Visit, evaluate,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

const T0: i64 = 1_700_000_000;
const GROUPS: usize = 1_000;
const SERIES: usize = 100_000;
const SLICE: i64 = 10;
/// Slices that are filled before the first live one; with it the range of five minutes.
const PAST: i64 = 29;
/// Bytes of a datagram.
const DATAGRAM: usize = 32 << 10;

/// What is recorded of each group.
const SHAPES: [(&str, &str); 2] = [
    ("sums", "sum by (shard) (rate(requests_total{group=\"#\"}[5m]))"),
    ("vectors", "rate(requests_total{group=\"#\"}[5m]) > 0"),
];

fn main() {
    method();
    let modes = std::env::var("HYDROGRAPH_BENCH_MODES").unwrap_or_else(|_| "plain,sums,vectors,evaluator".into());
    let modes: Vec<&str> = modes.split(',').collect();
    let mut plain = None;
    for mode in modes.iter().filter(|mode| **mode != "evaluator") {
        let shape = SHAPES.iter().find(|(name, _)| name == mode).map(|(_, shape)| *shape);
        let figures = served(mode, shape);
        match (shape, plain) {
            (None, _) => plain = Some(figures),
            (Some(_), Some(plain)) => {
                let more = (figures - plain) / 1e9;
                println!(
                    "{mode}: {more:.3} s CPU a slice more, {:.1} % of a core: {}",
                    more * 10.0,
                    verdict(more <= 2.0)
                );
            }
            (Some(_), None) => {}
        }
    }
    if modes.contains(&"evaluator") {
        evaluator();
    }
}

/// The labels of a series.
fn tags(n: usize) -> (String, String, String) {
    (format!("g{}", n % GROUPS), format!("s{}", n % 7), format!("/path/{n}"))
}

/// Every series once, in datagrams.
struct Load {
    lines: Vec<String>,
    socket: UnixDatagram,
}

impl Load {
    fn new(server: &Server) -> Load {
        let socket = UnixDatagram::unbound().expect("opens");
        socket.connect(server.socket()).expect("connects");
        let line = |n: usize| {
            let (group, shard, path) = tags(n);
            format!("requests_total:{}|c|#group:{group},shard:{shard},path:{path},env:production", 1 + n % 13)
        };
        Load { lines: (0..SERIES).map(line).collect(), socket }
    }

    /// One more series.
    fn new_series(&self, second: i64) {
        let line = format!("requests_total:1|c|#group:g{},shard:s1,path:/new/{second},env:production", second % 1000);
        self.socket.send(line.as_bytes()).expect("sends");
    }

    /// Sends some of them; a full queue makes it wait.
    fn send(&self, from: usize, to: usize, time: Option<i64>) {
        let mut datagram = String::with_capacity(DATAGRAM + 256);
        for line in &self.lines[from..to] {
            datagram.push_str(line);
            if let Some(time) = time {
                let _ = write!(datagram, "|T{time}");
            }
            datagram.push('\n');
            if datagram.len() >= DATAGRAM {
                self.socket.send(datagram.as_bytes()).expect("sends");
                datagram.clear();
            }
        }
        if !datagram.is_empty() {
            self.socket.send(datagram.as_bytes()).expect("sends");
        }
    }
}

/// The median of CPU nanoseconds a slice, with this expression for every group or none.
fn served(mode: &str, shape: Option<&str>) -> f64 {
    let mut tail = String::from(
        "[metrics.requests_total]\ntype = \"counter\"\nhelp = \"Requests\"\nlabels = [\"group\", \"shard\", \"path\", \"env\"]\n",
    );
    for group in (0..GROUPS).filter(|_| shape.is_some()) {
        let text = shape.unwrap_or_default().replace('#', &format!("g{group}")).replace('"', "\\\"");
        let _ = write!(
            tail,
            "[metrics.recorded_{group}]\ntype = \"gauge\"\nhelp = \"Recorded\"\nfrom = {{ expr = \"{text}\" }}\n"
        );
    }
    let options = Options { tail: tail.leak(), is_pinned: false, ..Options::default() };
    let server = Server::start(&options);
    let load = Load::new(&server);
    let now = || SystemClock.wall().0 / 1_000_000_000;
    let first = now() / SLICE * SLICE;
    for back in (1..=PAST).rev() {
        load.send(0, SERIES, Some(first - back * SLICE + 5));
    }
    let mut sent = SERIES as u64 * PAST as u64;
    server.wait_for(sent);
    let slices = if is_quick() { pairs() } else { 7 };
    let mut figures = Figures::default();
    let mut by_thread: BTreeMap<String, Figures> = BTreeMap::new();
    // The middle of a slice, one whole slice later: the first evaluation fills the caches.
    let mut last: Option<BTreeMap<String, i64>> = None;
    let mut second = now() + 1;
    let mut middle = (second / SLICE + 1) * SLICE + SLICE / 2;
    while figures.all().len() < slices {
        while now() < second {
            sleep(2);
        }
        if second == middle {
            let cpu = cpu_by_thread(server.pid());
            if let Some(last) = &last {
                let spent = |name: &String| cpu[name] - last.get(name).copied().unwrap_or(0);
                figures.push(cpu.keys().map(spent).sum::<i64>() as f64);
                cpu.keys().for_each(|name| by_thread.entry(name.clone()).or_default().push(spent(name) as f64 / 1e6));
            }
            last = Some(cpu);
            middle += SLICE;
        }
        load.send(0, SERIES, None);
        load.new_series(second);
        sent += SERIES as u64 + 1;
        second = (second + 1).max(now());
    }
    server.wait_for(sent);
    let shown: Vec<String> = by_thread.iter().map(|(name, ms)| format!("{name} {:.0} ms", ms.median())).collect();
    println!("{mode}: {:.3} s CPU a slice, of it {}", figures.median() / 1e9, shown.join(", "));
    if shape.is_some() {
        let text = server.get("/metrics");
        let results = String::from_utf8_lossy(&text).lines().filter(|line| line.starts_with("recorded_")).count();
        println!("{mode}: {results} results a slice, {} samples lost", server.lost());
        assert!(results >= GROUPS, "expressions were recorded");
    }
    figures.median()
}

type Selections = HashMap<(u32, Vec<Matcher>), Arc<[SeriesId]>>;

/// The memory, with the cache of selections that the trait asks of an implementor.
struct Cached {
    memory: Memory,
    selections: RefCell<Selections>,
}

impl Data for Cached {
    fn slice_width(&self) -> SliceWidth {
        self.memory.slice_width()
    }

    fn zones(&self) -> &Zones {
        self.memory.zones()
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.memory.metric(name)
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.memory.metrics()
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let key = (metric.id.0, matchers.to_vec());
        if let Some(known) = self.selections.borrow().get(&key) {
            return Ok(Arc::clone(known));
        }
        let found = self.memory.select(metric, matchers)?;
        self.selections.borrow_mut().insert(key, Arc::clone(&found));
        Ok(found)
    }

    fn read(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        self.memory.read(metric, ids, extent, need, visit)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(table: &Table, what: &str, mut run: impl FnMut() -> usize) {
    let mut figures = Figures::default();
    let mut answers = 0;
    for _ in 0..3 {
        let started = Instant::now();
        answers = run();
        figures.push(started.elapsed().as_secs_f64() * 1e3);
    }
    table.row(&[what.to_owned(), figures.show(0), answers.to_string()]);
}

/// The evaluator over the naive memory.
fn evaluator() {
    let at = |seconds: i64| Timestamp::from_seconds(T0 + seconds);
    let mut memory = Memory::new(SLICE);
    let metric = memory.declare("requests_total", Kind::Counter, |_| {});
    for n in 0..SERIES {
        let (group, shard, path) = tags(n);
        let labels = [("group", &*group), ("shard", &*shard), ("path", &*path), ("env", "production")];
        let id = memory.series(&metric, &labels, at(0));
        (0..30).for_each(|slice| memory.increment(id, at(slice * SLICE + 5), (1 + n % 13) as f64));
    }
    let data = Cached { memory, selections: RefCell::default() };
    let to = Slice((T0 / SLICE + 30) as u32);
    let span = Span { from: Slice(to.0 - 30), to };
    let window = span.from.0..span.to.0;
    let extent = Extent { span, windows: std::slice::from_ref(&window), edges: None };
    let need = Need { totals: false, rows: true, cells: false };
    let table = Table::new(&[("evaluator alone", 58), ("ms", 14), ("answers", 9)]);
    timed(&table, "reading without it", || {
        let mut rows = 0;
        for group in 0..GROUPS {
            let matcher = Matcher::new("group", MatchOp::Equal, &format!("g{group}")).expect("a matcher");
            let ids = data.select(&metric, &[matcher]).expect("series");
            let mut count = |_: usize, series: &hydrograph::query::SeriesRows<'_>| {
                let Rows::Counter { increments, .. } = series.rows else { return Ok(()) };
                rows += increments.len();
                Ok(())
            };
            data.read(&metric, &ids, extent, need, &mut count).expect("rows");
        }
        rows
    });
    for (_, shape) in SHAPES {
        let parse = |group| Expression::parse(&shape.replace('#', &format!("g{group}"))).expect("an expression");
        let expressions: Vec<Expression> = (0..GROUPS).map(parse).collect();
        timed(&table, shape, || {
            let answers = expressions.iter().map(|expression| match evaluate(expression, &data, at(300)) {
                Ok(Value::Vector(samples)) => samples.len(),
                other => panic!("{other:?} is no vector"),
            });
            answers.sum()
        });
    }
}
