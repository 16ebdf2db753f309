//! The history against a naive model: whatever is committed, folded, paged, rolled up, expired, reopened or crashed, any
//! read of any tier says what the samples say, and base and history are everything ever committed (H1, C5).

use super::disk::{Op, SimDisk, apply, crash_image};
use super::script::{Rng, SLICE_NANOS, TIERS, def, part};
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::delta::{CounterSum, DistributionSum, EncodedPart, GaugeSum};
use crate::event::{CommitId, Kind, SeriesId, Slice, Timestamp, WEIGHT_ONE};
use crate::sketch::Distinct;
use crate::store::due::ExpiryDue;
use crate::store::job::{HistoryJob, HistorySpec, HistoryStep};
use crate::store::page::{Page, PageBuffers, Wanted};
use crate::store::{BaseSums, CommitBatch, Ledger, SumMap, TierPlan, TotalsBlock};
use redb::ReadableDatabase;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(7);
const SERIES: u32 = 1500;
const NOTHING: CommitBatch<'static> = CommitBatch::new(CommitId(0), NOW, NOW);

/// An aggregate that merges by the aggregates' own code.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Naive {
    Counter(CounterSum),
    Gauge(GaugeSum),
    Distribution(DistributionSum),
    Set(Distinct),
}

impl Naive {
    pub(super) fn of(value: &RowValue<'_>) -> Naive {
        match value {
            RowValue::Counter(sum) => Naive::Counter(*sum),
            RowValue::Gauge(sum) => Naive::Gauge(sum.clone()),
            RowValue::Distribution(row) => Naive::Distribution(row.to_sum()),
            RowValue::Set(distinct) => Naive::Set(distinct.clone()),
        }
    }

    pub(super) fn merge(&mut self, other: &Naive) {
        match (self, other) {
            (Naive::Counter(a), Naive::Counter(b)) => a.nanos += b.nanos,
            (Naive::Gauge(a), Naive::Gauge(b)) => a.merge(b),
            (Naive::Distribution(a), Naive::Distribution(b)) => a.merge(b),
            (Naive::Set(a), Naive::Set(b)) => a.merge(b),
            _ => panic!("two kinds under one id"),
        }
    }

    fn sums(&self) -> Option<BaseSums> {
        Some(match self {
            Naive::Counter(sum) => BaseSums { kind: Kind::Counter, count: 0, weight: 0, sum: sum.nanos },
            Naive::Gauge(sum) => BaseSums { kind: Kind::Gauge, count: sum.count, weight: 0, sum: sum.sum },
            Naive::Distribution(sum) => {
                let factor = if sum.weighted { 1 } else { WEIGHT_ONE };
                let cells: u64 = sum.sketch.cells().map(|(_, n)| n).sum();
                let (weight, sum4096) = (cells * factor, sum.sum * i128::from(factor));
                BaseSums { kind: Kind::Distribution, count: sum.count, weight, sum: sum4096 }
            }
            Naive::Set(_) => return None,
        })
    }
}

/// By (first slice of the slot, series).
pub(super) type Rows = BTreeMap<(u32, SeriesId), Naive>;

fn add(rows: &mut Rows, slice: u32, id: SeriesId, value: Naive) {
    match rows.get_mut(&(slice, id)) {
        Some(mine) => mine.merge(&value),
        None => drop(rows.insert((slice, id), value)),
    }
}

pub(super) fn add_part(rows: &mut Rows, slice: u32, bytes: &[u8]) {
    let (mut cursor, mut scratch) = (PartCursor::new(bytes).expect("a part"), Scratch::default());
    while let Some(row) = cursor.next(&mut scratch).expect("whole") {
        add(rows, slice, row.id, Naive::of(&row.value));
    }
}

/// What a reader finds: for each slice the finest tier that holds it, its pages, and the slices beside. The list says what
/// resolution each range of slices has.
pub(super) fn read_all(ledger: &Ledger) -> (Rows, Vec<(u32, u32, u32)>) {
    let reader = ledger.reader();
    let mut rows = Rows::new();
    let mut parts = Vec::new();
    reader
        .snapshot(|snapshot| {
            // The first slice that no finer tier tells.
            let mut below = u32::MAX;
            let mut buffers = PageBuffers::default();
            for tier in snapshot.tiers()? {
                let (from, to) = (tier.from.0, tier.to.0.min(below));
                if from >= to {
                    continue;
                }
                parts.push((from, to, tier.resolution));
                below = from;
                for span in snapshot.page_spans(tier.resolution, Slice(from)..Slice(to))? {
                    for kind in Kind::ALL {
                        // In two ranges, which must not give a page's series twice.
                        let half = SeriesId(SERIES / 2 + 7);
                        for ids in [SeriesId(0)..half, half..SeriesId(u32::MAX)] {
                            snapshot.read_pages(span, kind, ids.clone(), &mut |bytes| {
                                let page = Page::new(bytes)?;
                                assert_eq!(page.kind(), kind);
                                page.read(Wanted::All, 0..360, true, &mut buffers, &mut |id, slot, value| {
                                    let slice = span.start.0 + u32::from(slot) * span.resolution;
                                    if ids.contains(&id) && (from..to).contains(&slice) {
                                        add(&mut rows, slice, id, Naive::of(value));
                                    }
                                    Ok(())
                                })
                            })?;
                        }
                    }
                }
            }
            let slot_of = |slice: u32| match parts.iter().find(|(from, to, _)| (*from..*to).contains(&slice)) {
                Some((_, _, resolution)) => slice - slice % resolution,
                None => slice,
            };
            for row in snapshot.slices(Slice(0)..Slice(u32::MAX))? {
                snapshot.read_slice(row.slice, &mut |part| {
                    add_part(&mut rows, slot_of(row.slice.0), part.bytes);
                    Ok(())
                })?;
            }
            Ok(())
        })
        .expect("readable");
    (rows, parts)
}

struct World {
    seed: u64,
    rng: Rng,
    disk: SimDisk,
    durable: Vec<u8>,
    ledger: Ledger,
    /// Everything ever committed, by slice.
    model: Rows,
    open: u32,
    plan: Vec<TierPlan>,
    job: Option<HistoryJob>,
    counts: BTreeMap<&'static str, u64>,
    has_series: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::default();
        disk.0.lock().expect("unpoisoned").keep_ops = true;
        let ledger = Ledger::open(&disk.config(), NOW).expect("a new store");
        let (durable, counts, model) = Default::default();
        let (open, plan) = (3000, TIERS.to_vec());
        let rng = Rng(seed);
        World { seed, rng, disk, durable, ledger, model, open, plan, job: None, counts, has_series: false }
    }

    fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn totals(&self) -> Vec<TotalsBlock> {
        let as_of = CommitId(self.ledger.last_commit().0 + 1);
        let blocks = self.ledger.stalest_totals(usize::MAX).into_iter();
        blocks.map(|block| TotalsBlock { block, as_of, bytes: vec![] }).collect()
    }

    /// Commits parts, and whatever else `beside` brings; the disk may fail meanwhile.
    fn commit(&mut self, log: &[EncodedPart], beside: CommitBatch<'_>) -> bool {
        let totals = self.totals();
        let id = self.ledger.last_commit().0 + 1;
        let series: Vec<_> = match std::mem::replace(&mut self.has_series, true) {
            false => (0..SERIES).map(|id| def(id, NOW.0)).collect(),
            true => Vec::new(),
        };
        let batch = CommitBatch { id: CommitId(id), log, totals: &totals, new_series: &series, ..beside };
        if self.rng.below(40) == 0 {
            let mut inner = self.disk.0.lock().expect("unpoisoned");
            inner.fail_at = Some(inner.calls + 1 + self.rng.below(40));
            inner.fail_for = 1 + self.rng.below(3);
        }
        let outcome = self.ledger.commit(&batch);
        self.disk.0.lock().expect("unpoisoned").fail_at = None;
        if let Err(error) = &outcome {
            assert!(error.is_retryable(), "seed {}: {error}", self.seed);
            self.job = None;
            self.note("failed commit");
            if self.rng.below(2) == 0 {
                self.ledger.reopen().expect("the disk works again");
            } else {
                self.crash();
            }
            self.ledger.all_totals(|_| Ok(())).expect("readable");
        }
        let has_landed = self.ledger.last_commit().0 == id;
        assert!(has_landed || self.ledger.last_commit().0 == id - 1 && outcome.is_err(), "seed {}", self.seed);
        if has_landed {
            for part in log {
                add_part(&mut self.model, part.slice.0, &part.bytes);
            }
        } else {
            self.has_series &= id > 1;
        }
        has_landed && outcome.is_ok()
    }

    /// Power fails: of what was not synced, any sectors stay.
    fn crash(&mut self) {
        let ops = std::mem::take(&mut self.disk.0.lock().expect("unpoisoned").ops);
        let mut pending: Vec<&Op> = Vec::new();
        for op in &ops {
            if let Op::Sync = op {
                pending.drain(..).for_each(|op| apply(&mut self.durable, op));
            } else {
                pending.push(op);
            }
        }
        let image = crash_image(&self.durable, &pending, &mut self.rng);
        self.disk = SimDisk::of(image.clone());
        self.disk.0.lock().expect("unpoisoned").keep_ops = true;
        self.durable = image;
        self.job = None;
        self.ledger = Ledger::open(&self.disk.config(), NOW).expect("opens");
        self.ledger.all_totals(|_| Ok(())).expect("readable");
        self.note("crash");
    }

    fn kept_from(&self) -> Slice {
        Slice(self.open.saturating_sub(40))
    }

    fn begin(&mut self, spec: HistorySpec) {
        let bytes = [1, 2000, usize::MAX][self.rng.below(3) as usize];
        let rows = [1, 300, usize::MAX][self.rng.below(3) as usize];
        self.job = Some(HistoryJob::new(spec).limited(bytes, rows));
    }

    /// One step of the job that runs.
    fn step(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let step = self.ledger.with(|db| job.step(&db.begin_read()?)).expect("readable");
        let may_write =
            |step: &HistoryStep| self.ledger.is_current(&step.spec) && !(step.is_first && self.ledger.has_rubbish());
        let Some(step) = step.filter(may_write) else {
            return self.note("stale job");
        };
        let slice = self.open;
        let log = [part(&mut self.rng, slice, SERIES, 3)];
        if !self.commit(&log, CommitBatch { history: Some(&step), ..NOTHING }) {
            return;
        }
        if step.is_last() {
            let purpose = step.spec.purpose;
            self.note(match purpose {
                crate::store::job::Purpose::Page => "page",
                crate::store::job::Purpose::Roll => "roll",
                crate::store::job::Purpose::Fold => "fold",
            });
        } else {
            self.note("step");
            self.job = Some(job);
        }
    }

    fn expire(&mut self) {
        let open = self.open;
        let back = |nanos: i64| Slice((i64::from(open) - nanos / SLICE_NANOS).max(0) as u32);
        match self.ledger.expiry_due(back) {
            Some(ExpiryDue::Drop(expiry)) => {
                if self.commit(&[], CommitBatch { expire_spans: Some(&expiry), ..NOTHING }) {
                    self.note("expiry of spans");
                }
            }
            Some(ExpiryDue::ToBase(_)) if self.ledger.has_rubbish() => {}
            Some(ExpiryDue::ToBase(spec)) => {
                self.note("to base");
                self.begin(spec);
            }
            None => {
                let kept_from = self.kept_from();
                if let Some(step) = self.ledger.expire_step(kept_from, 3).expect("readable")
                    && self.commit(&[], CommitBatch { expire: Some(&step), ..NOTHING })
                {
                    self.note("expiry of slices");
                }
            }
        }
    }

    fn turn(&mut self) {
        if let Some(change) = self.ledger.tier_change(&self.plan) {
            self.commit(&[], CommitBatch { tiers: Some(&change), ..NOTHING });
            return;
        }
        if self.ledger.has_rubbish() && self.rng.below(3) == 0 {
            if self.commit(&[], CommitBatch { clears: true, ..NOTHING }) {
                self.note("clearing");
            }
            return;
        }
        match self.rng.below(100) {
            0..30 => {
                self.open += self.rng.below(180) as u32;
                let (slice, rows) = (self.open, 1 + self.rng.below(25));
                let log = [part(&mut self.rng, slice, SERIES, rows), part(&mut self.rng, slice - 3, SERIES, 2)];
                self.commit(&log, NOTHING);
            }
            30..36 => {
                // Late, by up to more than the longest tier keeps.
                let behind = [100, 1000, 5000, 20_000][self.rng.below(4) as usize];
                let slice = self.open.saturating_sub(self.rng.below(behind) as u32);
                let log = [part(&mut self.rng, slice, SERIES, 4)];
                self.commit(&log, NOTHING);
                self.note("late");
            }
            36..60 => {
                if let Some(slice) = self.ledger.segment_candidate(Slice(self.open)) {
                    let mut job = self.ledger.segment_job(slice);
                    let rows_max = [3, usize::MAX, usize::MAX][self.rng.below(3) as usize];
                    let step = self.ledger.segment_step(&mut job, rows_max).expect("readable");
                    self.commit(&[], CommitBatch { segment: Some(&step), ..NOTHING });
                }
            }
            60..88 => {
                if self.job.is_none() && !self.ledger.has_rubbish() {
                    let until = self.kept_from();
                    let spans = self.ledger.history.spans.iter();
                    let many: Vec<_> =
                        spans.filter(|(_, span)| span.generations.len() > 1).map(|(key, _)| *key).collect();
                    if self.rng.below(4) == 0 && !many.is_empty() {
                        let (resolution, start) = many[self.rng.below(many.len() as u64) as usize];
                        let all = self.rng.below(2) == 0;
                        let spec = self.ledger.fold_spec(resolution, start, all);
                        if spec.generations.len() > 1 {
                            self.begin(spec);
                        }
                    } else if let Some(spec) = self.ledger.history_due(until) {
                        self.begin(spec);
                    }
                }
                self.step();
            }
            88..95 => self.expire(),
            95 => {
                if self.rng.below(6) == 0 {
                    let plans: [&[TierPlan]; 4] = [&TIERS, &TIERS[..2], &[TIERS[0], TIERS[2]], &TIERS];
                    self.plan = plans[self.rng.below(4) as usize].to_vec();
                    self.note("other tiers");
                }
            }
            96 => {
                // A job that runs is forgotten.
                self.job = None;
            }
            97 => {
                self.ledger.reopen().expect("opens");
                self.ledger.all_totals(|_| Ok(())).expect("readable");
                self.note("reopen");
            }
            _ => self.crash(),
        }
    }

    /// Everything that can be read against the model.
    fn check(&mut self) {
        let context = format!("seed {}, commit {}", self.seed, self.ledger.last_commit().0);
        let mut sums = SumMap::new();
        for ((_, id), value) in &self.model {
            let Some(more) = value.sums() else { continue };
            let sum = sums.entry(*id).or_insert(BaseSums { count: 0, weight: 0, sum: 0, ..more });
            (sum.count, sum.weight, sum.sum) = (sum.count + more.count, sum.weight + more.weight, sum.sum + more.sum);
        }
        let stored: SumMap = self.ledger.sums().expect("readable");
        assert!(stored == sums, "{context}: base and history are not everything ever committed");
        let (found, parts) = read_all(&self.ledger);
        let mut expected = Rows::new();
        let holds = |slice: u32| parts.iter().find(|(from, to, _)| (*from..*to).contains(&slice));
        let slices: std::collections::BTreeSet<u32> = self.ledger.slices().map(|state| state.slice.0).collect();
        for ((slice, id), value) in &self.model {
            match holds(*slice) {
                Some((_, _, resolution)) => add(&mut expected, slice - slice % resolution, *id, value.clone()),
                None if slices.contains(slice) => add(&mut expected, *slice, *id, value.clone()),
                None => {}
            }
        }
        // What no tier holds any more may have gone in part, when it came late; what came later still stands.
        let is_held =
            |((slice, _), _): &(&(u32, SeriesId), &Naive)| holds(*slice).is_some() || *slice >= self.open - 40;
        let compare = |rows: &Rows| rows.iter().filter(is_held).map(|(k, v)| (*k, v.clone())).collect::<Vec<_>>();
        let (found, expected) = (compare(&found), compare(&expected));
        let different = found.iter().zip(&expected).find(|(a, b)| a != b);
        assert!(different.is_none(), "{context}: tiers {parts:?}, {different:#?}");
        assert_eq!(found.len(), expected.len(), "{context}: tiers {parts:?}");
    }
}

fn operations() -> u64 {
    std::env::var("HYDROGRAPH_MODEL_OPERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

#[test]
fn h1_c5_whatever_happens_any_read_says_what_the_model_says() {
    const ROUND: u64 = 1200;
    let first = std::env::var("HYDROGRAPH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + operations().div_ceil(ROUND) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for turn in 0..ROUND {
            world.turn();
            if turn % 60 == 59 {
                world.check();
            }
        }
        world.ledger.verify().expect("whole");
        for (what, count) in world.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{counts:?}");
    for what in [
        "page",
        "roll",
        "fold",
        "clearing",
        "expiry of spans",
        "to base",
        "expiry of slices",
        "crash",
        "failed commit",
        "late",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "{what} never happened: {counts:?}");
    }
}

/// A ledger in memory with tiers, and a few commits of samples in each hour of slices up to `open`.
fn filled(disk: &SimDisk, plan: &[TierPlan], open: u32, series: u32) -> Ledger {
    let mut ledger = Ledger::open(&disk.config(), NOW).expect("a new store");
    let new_series: Vec<_> = (0..series).map(|id| def(id, NOW.0)).collect();
    let tiers = ledger.tier_change(plan).expect("new tiers");
    ledger
        .commit(&CommitBatch { new_series: &new_series, tiers: Some(&tiers), ..ledger.next_batch() })
        .expect("commits");
    let mut rng = Rng(5);
    for slice in (0..open).step_by(40) {
        let log = [part(&mut rng, slice, series, u64::from(series)), part(&mut rng, slice + 3, series, 30)];
        let as_of = CommitId(ledger.last_commit().0 + 1);
        let blocks = ledger.stalest_totals(usize::MAX).into_iter();
        let totals: Vec<_> = blocks.map(|block| TotalsBlock { block, as_of, bytes: vec![] }).collect();
        ledger.commit(&CommitBatch { log: &log, totals: &totals, ..ledger.next_batch() }).expect("commits");
        while let Some(slice) = ledger.segment_candidate(Slice(open)) {
            ledger.fold_slice(slice, usize::MAX).expect("folds");
        }
    }
    while let Some(spec) = ledger.history_due(Slice(open)) {
        ledger.run_history(spec).expect("runs");
        ledger.clear_rubbish().expect("clears");
    }
    ledger
}

#[test]
fn h4_used_bytes_are_what_the_file_takes() {
    for (open, series) in [(3000, 40), (1500, 3000)] {
        let disk = SimDisk::default();
        let mut ledger = filled(&disk, &TIERS, open, series);
        let used = ledger.used_bytes();
        ledger.compact().expect("compacts");
        let taken = disk.0.lock().expect("unpoisoned").bytes.len() as u64;
        println!("{series} series: {used} bytes counted, {taken} in the compact file, {:?}", ledger.tier_sizes());
        assert!(used > taken / 2 && used < taken * 5 / 4, "{used} bytes counted, {taken} in the compact file");
    }
}

#[test]
fn r2_a_tier_that_the_file_lost_stays_until_it_is_pruned_and_then_its_sums_are_in_base() {
    let disk = SimDisk::default();
    let mut ledger = filled(&disk, &TIERS, 14_000, 60);
    let (sums, (before, _)) = (ledger.sums().expect("readable"), read_all(&ledger));
    assert_eq!(ledger.tier_sizes().iter().map(|tier| tier.spans > 0).collect::<Vec<_>>(), [true; 3]);
    let change = ledger.tier_change(&TIERS[..1]).expect("two go");
    ledger.commit(&CommitBatch { tiers: Some(&change), ..ledger.next_batch() }).expect("commits");
    let sizes = ledger.tier_sizes();
    assert_eq!(sizes.iter().map(|tier| tier.is_planned).collect::<Vec<_>>(), [true, false, false]);
    assert!(sizes.iter().all(|tier| tier.spans > 0) && read_all(&ledger).0 == before, "nothing went");
    assert_eq!(ledger.prune().expect("prunes"), [6, 36]);
    let sizes = ledger.tier_sizes();
    assert!(sizes.len() == 1 && sizes[0].unrolled < sizes[0].spans, "{sizes:?}");
    assert_eq!(ledger.sums().expect("readable"), sums, "C5");
    assert_ne!(ledger.base().expect("readable"), SumMap::new());
    assert_eq!(read_all(&ledger).0, before, "the first tier still tells it");
    ledger.verify().expect("whole");
    assert!(ledger.prune().expect("prunes").is_empty());
}

#[test]
fn what_is_copied_holds_the_history_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("copy.redb");
    let disk = SimDisk::default();
    let ledger = filled(&disk, &TIERS, 6000, 60);
    ledger.copy_to(&path).expect("copies");
    let config = crate::store::LedgerConfig::new(crate::store::LedgerPath::File(path), SLICE_NANOS);
    let mut copy = Ledger::open(&config, NOW).expect("opens");
    assert_eq!(copy.history, ledger.history);
    assert_eq!(read_all(&copy), read_all(&ledger));
    assert_eq!(copy.sizes(), ledger.sizes());
    copy.verify().expect("whole");
}

#[test]
fn h3_a_page_that_vanished_or_moved_is_noticed() {
    use crate::store::format::{Table, page_key};
    let disk = SimDisk::default();
    let ledger = filled(&disk, &TIERS[..1], 900, 60);
    let (start, number) = (0, ledger.history.spans[&(1, 0)].generations[0].number);
    let mut ledger = ledger;
    let first = page_key(1, start, number, 0, 0);
    ledger
        .with(|db| {
            let txn = db.begin_write()?;
            assert!(txn.open_table(Table::Pages.rows())?.remove(first.as_slice())?.is_some());
            Ok(txn.commit()?)
        })
        .expect("writes");
    let error = ledger.verify().expect_err("a page is missing");
    assert!(error.to_string().contains("rows were written"), "{error}");
    ledger.reopen().expect("opens");
    ledger.all_totals(|_| Ok(())).expect("readable");
    // A job that reads it stops instead of writing a history without it.
    let mut job = HistoryJob::new(ledger.roll_spec(1, start));
    let error = ledger.with(|db| job.step(&db.begin_read()?)).expect_err("a page is missing");
    assert!(!error.is_retryable() && error.to_string().contains("not all there"), "{error}");
}
