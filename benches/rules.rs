//! Question: what do a pipeline file's rules cost a sample that needs none: a DogStatsD line?
//!
//! Expected floor: nothing. Rules are asked once a key, and an event's schema once an event; a line of a known key passes
//! neither. Target: instructions a line at most 1.02 times those without rules.
//! Last answer (7 pairs, 2 shared EPYC cores in use): 882.0 instructions a line, 1.0002 times with `full.toml`, 0.9986 times with
//! the line's metric declared; CPU 0.993 [0.806, 1.130] times.
//!
//! Method: instructions of the decoder by callgrind over a fixed corpus of timings at 1,000 series, three tags a line:
//! without rules; with all of `pipelines/full.toml`, which includes the five systems (events, metrics, pairs, expressions);
//! and with the corpus's own metric declared beside them. CPU pairs: the same load to a server without rules and to one
//! with those of `full.toml`, in turn, until committed.

mod common;

use common::world::{START, World};
use common::{Figures, Options, Random, Server, count_instructions, generate, is_quick, method, pairs, verdict};
use hydrograph::delta::Combiner;
use hydrograph::event::SourceIndex;
use hydrograph::pipeline::config::PipelineFile;
use hydrograph::pipeline::paths::Environment;
use hydrograph::pipeline::plan::Plan;
use hydrograph::rule::RulesConfig;
use hydrograph::shard::{Decoder, Origin};
use std::path::Path;

const CORPUS: &str = "HYDROGRAPH_BENCH_CORPUS";
const ROUNDS: u64 = 60;
const SERIES: u64 = 1_000;

const DECLARED: &str = "[metrics.checkout_request_latency_seconds]\ntype = \"summary\"\nhelp = \"Latency\"\n\
                        labels = [\"region\", \"host\", \"code\"]\n";

fn main() {
    if let Some(mode) = std::env::var_os(CORPUS) {
        return corpus(&mode.to_string_lossy());
    }
    method();
    instructions();
    cpu_pairs();
}

/// The rules of `full.toml`, and of what else is written.
fn full(more: &str) -> RulesConfig {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let file = PipelineFile::read(&directory.join("full.toml")).unwrap_or_else(|error| panic!("{error}"));
    let more = PipelineFile { name: "more.toml".into(), text: more.into(), directory };
    let environment = Environment::fixed([], 1000, |_| false);
    Plan::load(&[file, more], &environment).unwrap_or_else(|errors| panic!("{errors}")).rules()
}

/// Decodes; a function of its own, because callgrind counts only inside it.
#[inline(never)]
fn ingest_corpus(decoder: &mut Decoder, combiner: &mut Combiner, payload: &[u8]) {
    decoder.ingest(combiner, Origin { source: SourceIndex(0), reader: 0 }, payload, START);
}

/// `none`, `full` or `declared`.
fn corpus(mode: &str) {
    let mut world = match mode {
        "full" => World::of(full("")),
        "declared" => World::of(full(DECLARED)),
        _ => World::new(30),
    };
    let mut decoder = world.decoder();
    let mut random = Random(1);
    let mut combiner = world.combiner();
    for round in 0..ROUNDS {
        let mut datagrams = vec![Vec::with_capacity(8192)];
        for n in 0..SERIES {
            let micros = random.latency() / 1_000 % 1_000_000;
            let (whole, rest) = (micros / 1000, micros % 1000);
            let line =
                format!("checkout.request.latency:{whole:03}.{rest:03}|ms|#region:eu-west,host:web-{n:07},code:200\n");
            if datagrams.last().is_some_and(|last| last.len() + line.len() > 8192) {
                datagrams.push(Vec::with_capacity(8192));
            }
            datagrams.last_mut().expect("never empty").extend_from_slice(line.as_bytes());
        }
        for datagram in &datagrams {
            // The first round makes the series, which asks the rules: once in the life of a key.
            if round == 0 {
                decoder.ingest(&mut combiner, Origin { source: SourceIndex(0), reader: 0 }, datagram, START);
            } else {
                ingest_corpus(&mut decoder, &mut combiner, datagram);
            }
        }
        world.tick(&mut combiner, START);
    }
    assert_eq!(world.table.lock().live(), SERIES as u32, "every line was understood");
}

fn instructions() {
    let lines = ((ROUNDS - 1) * SERIES) as f64;
    let of = |mode| Some(count_instructions(CORPUS, mode, "*ingest_corpus*")? / lines);
    let (Some(none), Some(full), Some(declared)) = (of("none"), of("full"), of("declared")) else {
        println!("SKIPPED: instructions a line need valgrind with its tool callgrind");
        return;
    };
    println!("instructions of the decoder a line: {none:.1} without rules");
    let show = |name: &str, count: f64| {
        let ratio = count / none;
        println!("  {name}: {count:.1}, {ratio:.4} times; target 1.02: {}", verdict(ratio <= 1.02));
    };
    show("with the rules of full.toml", full);
    show("with the line's metric declared, too", declared);
}

/// The sources that the files of the five systems name.
const SOURCES: &str = r#"
[sources.log]
type = "socket"
listen = ["unixstream:log.socket"]
event_key = "message"
time_key = "timestamp"
[sources.host]
type = "host"
every = "15s"
[sources.service]
type = "process"
every = "60s"
match = { cmd = "python" }
[sources.gpu]
type = "gpu"
every = "15s"
"#;

fn cpu_pairs() {
    const SYSTEMS: [&str; 5] = ["dinoair", "dreamos", "vision", "llm", "digital_actors"];
    let without = Server::start(&Options::default());
    let with = Server::start(&Options { include: &SYSTEMS, tail: SOURCES, ..Options::default() });
    let lines = if is_quick() { "6000000" } else { "20000000" };
    let mut sent = [0u64; 2];
    let mut measure = |server: &Server, at: usize, seed: u64| {
        let before = server.cpu();
        let report = generate(&server.socket(), &["--events", lines, "--seed", &seed.to_string()]);
        sent[at] += report.events;
        server.wait_for(sent[at]);
        (server.cpu() - before) as f64 / report.events as f64
    };
    // The first runs make the series.
    measure(&without, 0, 1);
    measure(&with, 1, 1);
    let (mut base, mut ratios) = (Figures::default(), Figures::default());
    for pair in 0..pairs() as u64 {
        let (none, all) = (measure(&without, 0, pair + 2), measure(&with, 1, pair + 2));
        base.push(none);
        ratios.push(all / none);
    }
    println!("CPU of the whole process, 1,000 series: {} ns a line without rules", base.show(1));
    println!("  with those of the five systems: {} times; lost {}", ratios.show(3), without.lost() + with.lost());
}
