//! Question: how long does a scrape take?
//!
//! Expected floor: a counter is a copied prefix and its digits (11 ns), a summary six lines and four quantiles of a merged
//! sketch (1 to 3 µs). Targets: 100,000 counters 3 ms; 100,000 timing series as summaries with a full window 500 ms, and
//! 50 ms again within one commit.
//! Last answer (7 pairs, the same machine): 1.1 ms; 63 ms, and within a commit the body is shared (under 0.01 ms).
//!
//! Method: the scrape endpoint's body without HTTP; thread CPU time, wall time beside it. The view is folded from ticks
//! of 30 slices with 10 samples a series and slice. A commit between two renders makes every value new.

mod common;

use common::world::{SLICE_NANOS, START, World, add_timing};
use common::{Figures, Random, Table, method, pairs, thread_cpu, verdict, wall};
use hydrograph::delta::Combiner;
use hydrograph::event::{Kind, Slot};
use hydrograph::sink::scrape::{LiveValues, Scrape, ScrapeFormat, ScrapePlan, ScrapeRequest};
use hydrograph::store::Fold;

const SERIES: u32 = 100_000;
const HISTOGRAMS: u32 = 10_000;

fn main() {
    method();
    let table = Table::new(&[("100,000 series", 34), ("ms of CPU", 24), ("ms", 24), ("MB", 6), ("target", 7), ("", 8)]);
    let rows = [(Kind::Counter, 1, 1, SERIES, false), (Kind::Distribution, 30, 10, SERIES, false)];
    for (kind, slices, samples, series, is_histogram) in
        rows.into_iter().chain([(Kind::Distribution, 30, 10, HISTOGRAMS, true)])
    {
        let mut world = World::new(30);
        let slots = if is_histogram { world.add_histograms(series) } else { world.add_series(kind, series) };
        let mut random = Random(3);
        let mut now = START;
        for slice in 0..slices {
            now = START.plus_nanos(slice * SLICE_NANOS);
            let width = world.acceptance.slice;
            world.fold.leaving(width.slice_of(now));
            let mut combiner = Combiner::new(width.slice_of(now));
            fill(&mut combiner, kind, samples, &slots, &mut random);
            world.tick(&mut combiner, now);
        }
        let scrape = Scrape::new(world.view.clone(), ScrapePlan::default(), LiveValues::default);
        let name = match (kind, is_histogram) {
            (Kind::Counter, _) => "counters",
            (_, false) => "summaries, window full",
            (_, true) => "10,000 histograms, 11 buckets",
        };
        let target = if kind == Kind::Counter { 3.0 } else { 500.0 };
        for (format, gzip) in [
            (ScrapeFormat::Text, false),
            (ScrapeFormat::OpenMetrics, false),
            (ScrapeFormat::Protobuf, false),
            (ScrapeFormat::Text, true),
        ] {
            let request = ScrapeRequest { format, group: None, names: Vec::new(), gzip };
            let (mut first, mut first_wall) = (Figures::default(), Figures::default());
            let (mut again, mut again_wall) = (Figures::default(), Figures::default());
            let mut bytes = 0;
            // Once more than asked for: the first render learns the labels.
            for round in 0..=pairs() {
                let mut combiner = Combiner::new(world.acceptance.slice.slice_of(now));
                fill(&mut combiner, kind, 1, &slots, &mut random);
                world.tick(&mut combiner, now);
                let (cpu, time, length) = render(&scrape, &request);
                let (cpu_again, time_again, _) = render(&scrape, &request);
                bytes = length;
                if round > 0 {
                    first.push(cpu);
                    first_wall.push(time);
                    again.push(cpu_again);
                    again_wall.push(time_again);
                }
            }
            let how = match (format, gzip) {
                (_, true) => ", gzip",
                (ScrapeFormat::OpenMetrics, _) => ", OpenMetrics",
                (ScrapeFormat::Protobuf, _) => ", protobuf",
                _ => "",
            };
            let has_target = format == ScrapeFormat::Text && !gzip && !is_histogram;
            let row = |name: String, cpu: &Figures, time: &Figures, target: Option<f64>| {
                table.row(&[
                    name,
                    cpu.show(2),
                    time.show(2),
                    format!("{:.1}", bytes as f64 / 1e6),
                    target.map_or_else(String::new, |target| format!("{target}")),
                    target.map_or_else(String::new, |target| verdict(cpu.median() <= target)),
                ]);
            };
            row(format!("{name}{how}"), &first, &first_wall, has_target.then_some(target));
            let again_target = (has_target && kind == Kind::Distribution).then_some(50.0);
            row("  again within the commit".to_owned(), &again, &again_wall, again_target);
        }
    }
}

fn render(scrape: &Scrape, request: &ScrapeRequest) -> (f64, f64, usize) {
    let (began, spent) = (wall(), thread_cpu());
    let body = scrape.render(request).expect("everything");
    let (cpu, time) = (thread_cpu() - spent, wall() - began);
    (cpu as f64 / 1e6, time as f64 / 1e6, body.length())
}

fn fill(combiner: &mut Combiner, kind: Kind, samples: u32, slots: &[Slot], random: &mut Random) {
    for _ in 0..samples {
        for slot in slots {
            if kind == Kind::Counter {
                combiner.add_whole(slot.0, 1 + (random.next() % 100_000) as i64);
            } else {
                add_timing(combiner, *slot, random.latency());
            }
        }
    }
}
