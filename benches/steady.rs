//! Question: does ingestion cost more while somebody scrapes every second, or with 30 slices in the window instead of 1?
//!
//! Expected floor: nothing but the store's work for it, because a decoder touches neither window nor view: 1.00.
//! Targets: instructions a line 1.05 times, CPU of the whole process 1.10 times at the upper end of its interval.
//! Last answer (7 pairs, the same machine): instructions 1.000 and 1.000 times; CPU 1.009 [0.897, 1.082] times while scraped,
//! 0.986 [0.836, 1.125] times with 30 slices.
//!
//! Method: instructions of the decoder by callgrind over a fixed corpus, with ticks, folds and renders between, which are not
//! counted (and counted beside). CPU pairs: the same load to two servers in turn, timings at 1,000 series until
//! committed; the scraping side's share includes the rendering.

mod common;

use common::world::{SLICE_NANOS, START, World};
use common::{Figures, Options, Random, Server, count_instructions, generate, is_quick, method, pairs, verdict};
use hydrograph::delta::Combiner;
use hydrograph::event::{SourceIndex, Timestamp};
use hydrograph::shard::{Decoder, Origin};
use hydrograph::sink::scrape::{LiveValues, Scrape, ScrapeFormat, ScrapePlan, ScrapeRequest};
use hydrograph::store::Fold;
use std::sync::atomic::{AtomicBool, Ordering};

const CORPUS: &str = "HYDROGRAPH_BENCH_CORPUS";
/// Lines of the corpus: 1,000 series in each of so many rounds, three rounds a slice.
const ROUNDS: i64 = 99;
const SERIES: u64 = 1_000;

fn main() {
    if let Some(mode) = std::env::var_os(CORPUS) {
        return corpus(&mode.to_string_lossy());
    }
    method();
    instructions();
    cpu_pairs();
}

/// Decodes; a function of its own, because callgrind counts only inside it.
#[inline(never)]
fn ingest_corpus(decoder: &mut Decoder, combiner: &mut Combiner, payload: &[u8], now: Timestamp) {
    decoder.ingest(combiner, Origin { source: SourceIndex(0), reader: 0 }, payload, now);
}

/// `plain-30`, `plain-1` or `scraped-30`.
fn corpus(mode: &str) {
    let is_scraped = mode.starts_with("scraped");
    let mut world = World::new(if mode.ends_with("-1") { 1 } else { 30 });
    let mut decoder = world.decoder();
    let mut random = Random(1);
    let scrape = Scrape::new(world.view.clone(), ScrapePlan::default(), LiveValues::default);
    let request = ScrapeRequest { format: ScrapeFormat::Text, group: None, names: Vec::new(), gzip: false };
    let mut combiner = world.combiner();
    let mut kept: Vec<(hydrograph::event::Slice, Vec<Vec<u8>>)> = Vec::new();
    for round in 0..ROUNDS {
        let now = START.plus_nanos(round / 3 * SLICE_NANOS);
        let slice = world.acceptance.slice.slice_of(now);
        if slice != combiner.slice() {
            combiner.start(slice);
            for leaving in world.fold.leaving(slice) {
                let parts = kept.iter().filter(|(at, _)| *at == leaving).flat_map(|(_, parts)| parts.clone());
                world.fold.expire(leaving, &parts.collect::<Vec<_>>()).expect("sound");
            }
        }
        let mut payload = Vec::with_capacity(8192);
        for n in 0..SERIES {
            let micros = random.latency() / 1_000 % 1_000_000;
            let (whole, rest) = (micros / 1000, micros % 1000);
            let line =
                format!("checkout.request.latency:{whole:03}.{rest:03}|ms|#region:eu-west,host:web-{n:07},code:200\n");
            if payload.len() + line.len() > 8192 {
                ingest_corpus(&mut decoder, &mut combiner, &payload, now);
                payload.clear();
            }
            payload.extend_from_slice(line.as_bytes());
        }
        ingest_corpus(&mut decoder, &mut combiner, &payload, now);
        let rows = world.give_ids(&combiner, now);
        let parts = world.encode(&mut combiner);
        world.fold(&rows, &parts, now);
        kept.push((slice, parts.into_iter().map(|part| part.bytes).collect()));
        if is_scraped {
            let body = scrape.render(&request).expect("everything");
            assert!(body.length() > 1000, "a body");
        }
    }
}

fn instructions() {
    let lines = (ROUNDS as u64 * SERIES) as f64;
    let [plain, single, scraped] =
        ["plain-30", "plain-1", "scraped-30"].map(|mode| count_instructions(CORPUS, mode, "*ingest_corpus*"));
    let (Some(plain), Some(single), Some(scraped)) = (plain, single, scraped) else {
        println!("SKIPPED: instructions a line need valgrind with its tool callgrind");
        return;
    };
    println!("instructions of the decoder a line: {:.1} with 30 slices and no scrape", plain / lines);
    let ratio =
        |name: &str, ratio: f64| println!("  {name}: {ratio:.4} times; target 1.05: {}", verdict(ratio <= 1.05));
    ratio("scraped after every tick", scraped / plain);
    ratio("30 slices instead of 1", plain / single);
}

fn cpu_pairs() {
    let of_window = |window| Server::start(&Options { slice: "1s", window, ..Options::default() });
    let (single, long) = (of_window("1s"), of_window("30s"));
    let mut sent = [0u64; 2];
    let lines = if is_quick() { "6000000" } else { "20000000" };
    let mut seed = 0u64;
    // The window is full after 31 slices.
    let seconds = if is_quick() { "12" } else { "32" };
    for (server, sent) in [&single, &long].into_iter().zip(&mut sent) {
        *sent += generate(&server.socket(), &["--seconds", seconds, "--rate", "1000000"]).events;
        server.wait_for(*sent);
    }
    let mut measure = |server: &Server, sent: &mut u64, is_scraped: bool| {
        seed += 1;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let scraping = scope.spawn(|| {
                while is_scraped && !stop.load(Ordering::Relaxed) {
                    server.get("/metrics");
                    for _ in 0..20 {
                        if !stop.load(Ordering::Relaxed) {
                            common::sleep(50);
                        }
                    }
                }
            });
            let before = server.cpu();
            let report = generate(&server.socket(), &["--events", lines, "--seed", &seed.to_string()]);
            *sent += report.events;
            server.wait_for(*sent);
            let spent = server.cpu() - before;
            stop.store(true, Ordering::Relaxed);
            scraping.join().expect("the scraper ends");
            spent as f64 / report.events as f64
        })
    };
    let (mut scraped, mut slices, mut base) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..pairs() {
        let one = measure(&single, &mut sent[0], false);
        let thirty = measure(&long, &mut sent[1], false);
        let with_scrapes = measure(&long, &mut sent[1], true);
        base.push(thirty);
        slices.push(thirty / one);
        scraped.push(with_scrapes / thirty);
    }
    println!("CPU of the whole process, slices of 1 s, 1,000 series: {} ns a line", base.show(1));
    let ratio = |name: &str, ratios: &Figures| {
        println!("  {name}: {} times; target upper end 1.10: {}", ratios.show(3), verdict(ratios.interval().1 <= 1.10));
    };
    ratio("scraped every second", &scraped);
    ratio("30 slices instead of 1", &slices);
    let lost = single.lost() + long.lost();
    println!("  lost: {lost} lines");
}
