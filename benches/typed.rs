//! Question: what does a typed event as JSON cost, read alone and in the whole server process, from a Unix stream
//! until the samples of its three metrics are committed, and how many a second does that allow?
//!
//! Expected floor: reading at 1 to 2 bytes a nanosecond (100 to 150 ns), three series found and recorded (60 to 100 ns),
//! the kernel's copy 30 ns. Targets: 700 ns CPU an event, 1.0 M events/s beside a generator on the other core.
//! Last answer (7 pairs, 2 shared EPYC cores): reading 84 ns, 2.9 and 5.5 times as fast as `serde_json` into a struct and
//! into a tree; 531 [524, 579] ns CPU an event and 1.88 M events/s at 300 series, 842 [768, 906] ns and 1.19 M/s at 30,000.
//!
//! Method: events of 180 bytes with five fields beside name and time, values patched on every send. Reading: in
//! process, thread CPU time, beside `serde_json` on the same bytes (into a struct that borrows, and into a tree), in
//! turns. Server: `hydrograph generate --kind event` on core 1, the server alone on core 0; a first run creates the
//! series and is not counted.

mod common;

use common::{
    Figures, Options, Random, Server, Table, generate_to, is_quick, method, pairs, thread_cpu, verdict, warm_memory,
};
use hydrograph::codec::json::{Object, Value};
use std::hint::black_box;

const EVENTS: usize = 4096;

/// What `generate --kind event` sends, measured three times.
const RULES: &str = r#"
[events.checkout_request_finished]
fields = { route = "string", region = "string", host = "string", duration = "seconds", response_bytes = "bytes" }
[metrics.requests_total]
type = "counter"
help = "Requests"
from = { event = "checkout_request_finished", labels = ["route", "region", "host"] }
[metrics.request_duration_seconds]
type = "summary"
help = "Duration of a request"
from = { event = "checkout_request_finished", value = "duration", labels = ["route", "region", "host"] }
[metrics.response_size_bytes]
type = "summary"
help = "Size of an answer"
from = { event = "checkout_request_finished", value = "response_bytes", labels = ["route", "region", "host"] }
"#;

fn main() {
    method();
    reading();
    if !common::can_pin() {
        println!("not pinned: taskset or a second core is missing, so generator and server disturb each other");
    }
    let columns = [("series", 9), ("CPU ns an event", 26), ("user", 5), ("system", 6), ("M events/s", 18), ("lost", 6)];
    let table = Table::new(&columns);
    for hosts in [100u64, 10_000] {
        server(&table, hosts, hosts == 100);
    }
}

/// Events one after the other, and where each begins.
struct Corpus {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Corpus {
    fn new(random: &mut Random) -> Corpus {
        let mut corpus = Corpus { bytes: Vec::new(), starts: vec![0] };
        for _ in 0..EVENTS {
            let (nanos, size, host) = (random.latency(), 100_000 + random.next() % 900_000, random.next() % 1000);
            let time = 1_763_629_375_000 + random.next() % 1_000_000;
            let event = format!(
                "{{\"event\":\"checkout_request_finished\",\"time\":{time},\"route\":\"/api/v2/checkout/payments\",\
                 \"region\":\"eu-west\",\"host\":\"checkout-{host:06}\",\"duration\":{:.3},\"response_bytes\":{size}}}",
                nanos as f64 / 1e6
            );
            corpus.bytes.extend_from_slice(event.as_bytes());
            corpus.starts.push(corpus.bytes.len());
        }
        corpus
    }

    fn events(&self) -> impl Iterator<Item = &[u8]> {
        self.starts.windows(2).map(|ends| &self.bytes[ends[0]..ends[1]])
    }

    /// Nanoseconds an event.
    fn time(&self, mut read: impl FnMut(&[u8]) -> f64) -> f64 {
        let before = thread_cpu();
        let mut sum = 0.0;
        for event in self.events() {
            sum += read(black_box(event));
        }
        black_box(sum);
        (thread_cpu() - before) as f64 / EVENTS as f64
    }
}

/// What a program would write with `serde`.
#[derive(serde::Deserialize)]
struct Borrowed<'a> {
    event: &'a str,
    time: f64,
    route: &'a str,
    region: &'a str,
    host: &'a str,
    duration: f64,
    response_bytes: f64,
}

fn ours(event: &[u8]) -> f64 {
    let mut sum = 0.0;
    for member in Object::parse(event).expect("an object") {
        let (key, value) = member.expect("JSON");
        sum += key.raw.len() as f64;
        match value {
            Value::Number(number) => sum += number.to_f64(),
            Value::Text(text) => sum += text.raw.len() as f64,
            _ => {}
        }
    }
    sum
}

fn as_struct(event: &[u8]) -> f64 {
    let read: Borrowed<'_> = serde_json::from_slice(event).expect("an event");
    let texts = read.event.len() + read.route.len() + read.region.len() + read.host.len();
    texts as f64 + read.time + read.duration + read.response_bytes
}

fn as_tree(event: &[u8]) -> f64 {
    let read: serde_json::Value = serde_json::from_slice(event).expect("JSON");
    read["duration"].as_f64().expect("a number") + read["response_bytes"].as_f64().expect("a number")
}

fn reading() {
    let (mut scan, mut borrowed, mut tree) = (Figures::default(), Figures::default(), Figures::default());
    let (mut to_struct, mut to_tree) = (Figures::default(), Figures::default());
    let mut random = Random(7);
    let mut length = 0;
    for _ in 0..pairs() * 8 {
        // New values each time: nothing learns the bytes by heart.
        let corpus = Corpus::new(&mut random);
        length = corpus.bytes.len() / EVENTS;
        let (a, b, c) = (corpus.time(ours), corpus.time(as_struct), corpus.time(as_tree));
        scan.push(a);
        borrowed.push(b);
        tree.push(c);
        to_struct.push(b / a);
        to_tree.push(c / a);
    }
    println!(
        "reading {length} bytes, ns an event: ours {}, serde_json into a struct {}, into a tree {}; \
         ratio {} and {}; target 150: {}",
        scan.show(1),
        borrowed.show(1),
        tree.show(1),
        to_struct.show(2),
        to_tree.show(2),
        verdict(scan.median() <= 150.0)
    );
}

fn server(table: &Table, hosts: u64, is_goal: bool) {
    let server = Server::start(&Options { tail: RULES, ..Options::default() });
    let events = if is_quick() { 1_000_000 } else { 4_000_000 }.to_string();
    let send = |seed: u64| {
        let (series, seed) = (hosts.to_string(), seed.to_string());
        let address = format!("unixstream:{}", server.stream().display());
        generate_to(&address, &["--kind", "event", "--series", &series, "--events", &events, "--seed", &seed])
    };
    let mut sent = 0;
    for seed in 1..=2 {
        sent += send(seed).events;
        server.wait_for(3 * sent);
    }
    let (mut cpu, mut user, mut system, mut wall) =
        (Figures::default(), Figures::default(), Figures::default(), Figures::default());
    for pair in 0..pairs() as u64 {
        warm_memory();
        let (before, split) = (server.cpu(), common::split_of(server.pid()));
        let report = send(3 + pair);
        sent += report.events;
        server.wait_for(3 * sent);
        let (after, split_after) = (server.cpu(), common::split_of(server.pid()));
        let each = |nanos: i64| nanos as f64 / report.events as f64;
        cpu.push(each(after - before));
        user.push(each(split_after.0 - split.0));
        system.push(each(split_after.1 - split.1));
        wall.push(report.events as f64 / report.seconds / 1e6);
    }
    table.row(&[
        (3 * hosts).to_string(),
        cpu.show(1),
        format!("{:.0}", user.median()),
        format!("{:.0}", system.median()),
        wall.show(2),
        server.lost().to_string(),
    ]);
    if is_goal {
        println!("CPU an event; target 700: {}", verdict(cpu.median() <= 700.0));
        println!("events a second, two cores; target 1.0 M: {}", verdict(wall.median() >= 1.0));
    }
}
