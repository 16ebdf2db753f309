//! Question: how long does a tick hold up a decoder, and what does it cost the store?
//!
//! Expected floor: a tick swaps two pointers and reads the rings (10 µs); a decoder's buffer of 8 KiB takes 4 to 8 µs, a
//! new series 1 µs. Encoding walks what was touched (20 to 40 ns a counter, 0.5 µs a timing series of 60 cells).
//! Targets: stall 50 µs, p99.9 of a buffer 100 µs, also while series are created; encode and commit of 100,000 counters
//! 10 ms, of 100,000 timing series with 60 samples each 100 ms, fold of the latter 60 ms.
//! Last answer (7 pairs, the same machine): stall 24 µs; p99.9 of a buffer 34 µs, 37 with a new series in each; when every line is
//! one, p50 is 83 µs and p99.9 5.3 ms, the host's first touch of a page of 2 MiB (511 µs where pages are there); counters
//! 1.8 ms; timings 46 ms, fold 58 [53, 310] ms; waiting for the disk 0.4 to 5 ms.
//!
//! Method: a shard, its ledger on a file and the view in one process; thread CPU time, wall time beside it. Waiting for
//! the disk is what a commit's wall time has above its CPU time.

mod common;

use common::world::{START, World, add_timing};
use common::{Figures, Random, Table, is_quick, method, pairs, thread_cpu, verdict, wall, warm_memory};
use hydrograph::delta::Combiner;
use hydrograph::delta::epoch::{InputGroup, SealSink, Sealed, ShardPort};
use hydrograph::event::{CommitId, Kind, ShardIndex, SourceIndex};
use hydrograph::shard::{Origin, Shard, ShardHandle};
use hydrograph::store::{CommitBatch, Fold, Ledger, LedgerConfig, LedgerPath, Resetting, TotalsBlock};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

const SERIES: u32 = 100_000;
const ORIGIN: Origin = Origin { source: SourceIndex(0), reader: 0 };

fn main() {
    method();
    stalls();
    store(Kind::Counter, 1, 10.0, f64::INFINITY);
    store(Kind::Distribution, 60, 100.0, 60.0);
}

/// What a shard seals, on its way to a store.
struct Sink(Mutex<Sender<Sealed>>);

impl SealSink for Sink {
    fn sealed(&self, sealed: Sealed) {
        // The receiving end lives as long as the measurement.
        let _ = self.0.lock().expect("not poisoned").send(sealed);
    }

    fn wants_tick(&self) {}
}

/// Datagrams of 8 KiB with the lines of these series, values already varied.
fn datagrams(series: &[u32], random: &mut Random) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::with_capacity(8192)];
    for n in series {
        let micros = random.latency() / 1_000 % 1_000_000;
        let line = format!(
            "checkout.request.latency:{:03}.{:03}|ms|#region:eu-west,host:web-{n:07},code:200\n",
            micros / 1000,
            micros % 1000
        );
        if all.last().is_some_and(|last| last.len() + line.len() > 8192) {
            all.push(Vec::with_capacity(8192));
        }
        all.last_mut().expect("never empty").extend_from_slice(line.as_bytes());
    }
    all
}

/// Empties what a shard sealed and gives it back, as the store's thread does beside it.
fn store_thread(sealed: Receiver<Sealed>, handle: ShardHandle, mut world: World) {
    for mut sealed in sealed {
        let now = sealed.sealed_at;
        world.tick(&mut sealed.combiner, now);
        handle.give_back(InputGroup::Live, sealed.combiner);
    }
}

fn stalls() {
    let world = World::new(30);
    let (sender, receiver) = channel();
    let (mut shard, handle) =
        Shard::new(ShardIndex(0), world.decoder(), Arc::new(Sink(Mutex::new(sender))), START).expect("a descriptor");
    let mut random = Random(11);
    let mut order: Vec<u32> = (0..SERIES).collect();
    random.shuffle(&mut order);
    let known = datagrams(&order, &mut random);
    let store = {
        let handle = handle.clone();
        std::thread::Builder::new().spawn(move || store_thread(receiver, handle, world)).expect("a thread")
    };
    // Twice, with ticks between: the series are created, and both combiners are touched for the first time.
    for epoch in 0..3 {
        for buffer in &known {
            shard.ingest(ORIGIN, buffer, START);
            let _ = shard.turn(START);
        }
        handle.seal(epoch);
        let _ = shard.turn(START);
        common::sleep(300);
    }
    let mut next_new = SERIES;
    let ticks = if is_quick() { 15 } else { 60 };
    let table = Table::new(&[
        ("decoder, 100,000 series", 34),
        ("tick µs (CPU)", 22),
        ("tick µs (wall)", 22),
        ("buffer p50", 10),
        ("p99.9 CPU", 10),
        ("p99.9 wall", 10),
        ("max CPU", 8),
        ("target", 8),
        ("", 8),
    ]);
    for (name, new_in_buffer) in [("known series", 0), ("one new series a buffer", 1), ("every line a new series", 107)]
    {
        warm_memory();
        let mut tick_cpu = Figures::default();
        let mut tick_wall = Figures::default();
        let (mut cpu, mut waited) = (Vec::new(), Vec::new());
        for epoch in 3..ticks + 3 {
            // What a second brings at 2 M lines/s; less where every line costs the store a series.
            let buffers = if new_in_buffer == 107 { 300 } else { 4_000 };
            for n in 0..buffers {
                let new: Vec<u32> = (next_new..next_new + new_in_buffer).collect();
                next_new += new_in_buffer;
                let mut buffer = if new_in_buffer == 107 { Vec::new() } else { known[n % known.len()].clone() };
                if !new.is_empty() {
                    let lines = datagrams(&new, &mut random).swap_remove(0);
                    buffer.truncate(8192 - lines.len());
                    let end = memchr::memrchr(b'\n', &buffer).map_or(0, |at| at + 1);
                    buffer.truncate(end);
                    buffer.extend_from_slice(&lines);
                }
                let (began, spent) = (wall(), thread_cpu());
                shard.ingest(ORIGIN, &buffer, START);
                let _ = shard.turn(START);
                cpu.push((thread_cpu() - spent) as f64 / 1e3);
                waited.push((wall() - began) as f64 / 1e3);
            }
            handle.seal(epoch);
            let (began, spent) = (wall(), thread_cpu());
            let _ = shard.turn(START);
            tick_cpu.push((thread_cpu() - spent) as f64 / 1e3);
            tick_wall.push((wall() - began) as f64 / 1e3);
        }
        let quantile = |all: &mut Vec<f64>, q: f64| {
            all.sort_by(f64::total_cmp);
            all[((all.len() - 1) as f64 * q) as usize]
        };
        let p999 = quantile(&mut cpu, 0.999);
        let is_reached = tick_cpu.median() <= 50.0 && p999 <= 100.0;
        table.row(&[
            name.to_owned(),
            tick_cpu.show(1),
            tick_wall.show(1),
            format!("{:.1}", quantile(&mut cpu, 0.5)),
            format!("{p999:.1}"),
            format!("{:.1}", quantile(&mut waited, 0.999)),
            format!("{:.0}", quantile(&mut cpu, 1.0)),
            "50; 100".to_owned(),
            verdict(is_reached),
        ]);
    }
    drop(shard);
    drop(handle);
    store.join().expect("the store's thread ends when nobody seals any more");
}

/// Encode, commit and fold of one tick in which every series changed.
fn store(kind: Kind, samples: u32, target: f64, fold_target: f64) {
    let directory = tempfile::tempdir().expect("a directory");
    let config = LedgerConfig::new(LedgerPath::File(directory.path().join("tick.redb")), common::world::SLICE_NANOS);
    let mut ledger = Ledger::open(&config, START).expect("opens");
    let mut world = World::new(30);
    let mut slots = world.add_series(kind, SERIES);
    let mut random = Random(5);
    random.shuffle(&mut slots);
    let mut combiner = world.combiner();
    let (mut encode, mut commit, mut sync, mut fold, mut bytes) =
        (Figures::default(), Figures::default(), Figures::default(), Figures::default(), Figures::default());
    // The first ticks create the series and fill both the view and the file's free pages.
    for round in 0..pairs() as u64 + 3 {
        warm_memory();
        // A tick a second, so the slice rolls after ten.
        let now = START.plus_nanos(round as i64 * 1_000_000_000);
        fill(&mut combiner, kind, samples, &slots, &mut random);
        let rows = world.give_ids(&combiner, now);
        let defs = World::defs(&rows);
        let began = thread_cpu();
        let parts = world.encode(&mut combiner);
        let encoded = thread_cpu();
        let as_of = ledger.last_commit();
        let blocks = ledger.next_series().0.div_ceil(1024) as usize;
        let totals: Vec<TotalsBlock> = ledger
            .stalest_totals(blocks.div_ceil(60))
            .into_iter()
            .filter_map(|block| {
                let bytes = world.fold.encode_totals(block, None, Resetting::default()).expect("sound")?;
                Some(TotalsBlock { block, as_of, bytes })
            })
            .collect();
        let mut batch = CommitBatch::new(CommitId(ledger.last_commit().0 + 1), now, now.plus_nanos(-30_000_000_000));
        batch.new_series = &defs;
        batch.log = &parts;
        batch.totals = &totals;
        let waiting = wall();
        ledger.commit(&batch).expect("commits");
        let (committed, waited) = (thread_cpu(), wall() - waiting);
        world.fold(&rows, &parts, now);
        let folded = thread_cpu();
        if round >= 3 {
            encode.push((encoded - began) as f64 / 1e6);
            commit.push((committed - encoded) as f64 / 1e6);
            sync.push((waited - (committed - encoded)).max(0) as f64 / 1e6);
            fold.push((folded - committed) as f64 / 1e6);
            bytes.push(parts.iter().map(|part| part.bytes.len()).sum::<usize>() as f64 / 1e6);
        }
    }
    let mut both = Figures::default();
    for (encode, commit) in encode.all().iter().zip(commit.all()) {
        both.push(encode + commit);
    }
    let what = if kind == Kind::Counter { "counters" } else { "timing series, 60 samples each" };
    println!("one tick of 100,000 {what} ({:.1} MB), ms of CPU", bytes.median());
    println!(
        "  encode {}, commit {}: {}; target {target}: {}",
        encode.show(2),
        commit.show(2),
        both.show(2),
        verdict(both.median() <= target)
    );
    let fold_verdict = if fold_target.is_finite() {
        format!("; target {fold_target}: {}", verdict(fold.median() <= fold_target))
    } else {
        String::new()
    };
    println!("  fold {}{fold_verdict}; waiting for the disk {}", fold.show(2), sync.show(2));
}

fn fill(combiner: &mut Combiner, kind: Kind, samples: u32, slots: &[hydrograph::event::Slot], random: &mut Random) {
    for _ in 0..samples {
        for slot in slots {
            if kind == Kind::Counter {
                combiner.add_whole(slot.0, 1 + (random.next() % 1000) as i64);
            } else {
                add_timing(combiner, *slot, random.latency());
            }
        }
    }
}
