//! A year in minutes: a simulated clock, every tier, and what is read at random ranges against direct computation.
//!
//! The samples are a function of series and slice, so that nothing has to be remembered.

use super::history::{Naive, Rows, read_all};
use super::script::{Rng, def, kind_of};
use crate::delta::part::{DistributionRow, PartWriter};
use crate::delta::{CounterSum, EncodedPart, GaugeSum};
use crate::event::{CommitId, Kind, SeriesId, Slice, Timestamp};
use crate::sketch::{Digits, Distinct, layout};
use crate::store::due::ExpiryDue;
use crate::store::{CommitBatch, Ledger, LedgerConfig, LedgerPath, TierPlan, TotalsBlock};

const HOUR: i64 = 3_600_000_000_000;
const DAYS: u32 = 400;

/// How large a year is.
struct Size {
    /// Slices of a day: a slice is 24 h ÷ this.
    day: u32,
    series: u32,
}

impl Size {
    fn get() -> Size {
        match std::env::var_os("HYDROGRAPH_YEAR").is_some() {
            true => Size { day: 144, series: 1000 },
            false => Size { day: 12, series: 200 },
        }
    }

    fn slice_nanos(&self) -> i64 {
        24 * HOUR / i64::from(self.day)
    }

    /// 30 days as they came, 150 days by a twelfth of a day or two slices, a year by 8 hours.
    fn tiers(&self) -> [TierPlan; 3] {
        let coarser = (self.day / 12).max(2);
        let tier = |resolution, days: i64| TierPlan { resolution, keep: days * 24 * HOUR };
        [tier(1, 30), tier(coarser, 150), tier(self.day / 3, 365)]
    }
}

/// Whether and what a series saw in a slice.
fn value_of(slice: u32, id: u32) -> Option<Rng> {
    let mut rng = Rng(u64::from(slice) << 32 | u64::from(id));
    (rng.below(10) > 0).then_some(rng)
}

/// Writes the part of a slice.
fn part_of(size: &Size, slice: u32) -> EncodedPart {
    let mut writer = PartWriter::new(Vec::new());
    for kind in Kind::ALL {
        for id in (0..size.series).filter(|id| kind_of(*id) == kind) {
            let Some(mut rng) = value_of(slice, id) else { continue };
            let key = SeriesId(id);
            match kind {
                Kind::Counter => writer.counter(key, CounterSum { nanos: i128::from(rng.below(1 << 40)) }),
                Kind::Gauge => {
                    let last = rng.below(1000) as f64 / 4.0;
                    let (time, position) = (i64::from(slice) * size.slice_nanos(), rng.next());
                    let sum = (last * 4.0) as i128;
                    writer.gauge(
                        key,
                        &GaugeSum {
                            count: 2,
                            last,
                            time,
                            position,
                            min: last - 1.0,
                            max: last + 1.0,
                            sum,
                            adjust: None,
                        },
                    );
                }
                Kind::Distribution => {
                    let mut values = [0i64; 5].map(|_| rng.below(1 << 30) as i64);
                    values.sort_unstable();
                    let mut cells: Vec<(i32, u64)> = Vec::new();
                    for value in values {
                        let cell = layout::cell_of(Digits::Two, value);
                        match cells.last_mut() {
                            Some((last, n)) if *last == cell => *n += 1,
                            _ => cells.push((cell, 1)),
                        }
                    }
                    let sum = values.iter().map(|value| i128::from(*value)).sum();
                    let (digits, weighted, count, below) = (Digits::Two, false, 5, &[][..]);
                    let (min, max, cells) = (values[0], values[4], cells.as_slice());
                    writer.distribution(key, &DistributionRow { digits, count, weighted, sum, min, max, cells, below });
                }
                Kind::Set => {
                    let mut set = Distinct::default();
                    (0..3).for_each(|_| set.insert(rng.below(50)));
                    writer.set(key, &set);
                }
            }
        }
    }
    let rows = writer.rows();
    EncodedPart { slice: Slice(slice), bytes: writer.finish(), rows }
}

/// Everything that is due when slice `open` begins.
fn work(size: &Size, ledger: &mut Ledger, open: u32) {
    while let Some(slice) = ledger.segment_candidate(Slice(open)) {
        ledger.fold_slice(slice, usize::MAX).expect("folds");
    }
    let kept_from = Slice(open.saturating_sub(size.day));
    ledger.clear_rubbish().expect("clears");
    while let Some(spec) = ledger.history_due(kept_from) {
        ledger.run_history(spec).expect("runs");
        ledger.clear_rubbish().expect("clears");
    }
    let back = |nanos: i64| Slice((i64::from(open) - nanos / size.slice_nanos()).max(0) as u32);
    loop {
        ledger.clear_rubbish().expect("clears");
        match ledger.expiry_due(back) {
            Some(ExpiryDue::ToBase(spec)) => ledger.run_history(spec).expect("runs"),
            Some(ExpiryDue::Drop(expiry)) => {
                ledger.commit(&CommitBatch { expire_spans: Some(&expiry), ..ledger.next_batch() }).expect("commits");
            }
            None => return,
        }
    }
}

#[test]
fn h1_a_year_goes_through_all_tiers_and_reads_as_its_samples() {
    let size = Size::get();
    let config = LedgerConfig::new(LedgerPath::Memory(1 << 30), size.slice_nanos());
    let mut ledger = Ledger::open(&config, Timestamp(0)).expect("a new store");
    let series: Vec<_> = (0..size.series).map(|id| def(id, 0)).collect();
    let tiers = ledger.tier_change(&size.tiers()).expect("new tiers");
    let first = CommitBatch::new(CommitId(1), Timestamp(0), Timestamp(0));
    ledger.commit(&CommitBatch { new_series: &series, tiers: Some(&tiers), ..first }).expect("commits");
    // A few slices come a day late.
    let is_late = |slice: u32| slice % 97 == 5;
    // So that the year does not begin where every span does.
    let begin = 20_011 * size.day;
    for day in 0..DAYS {
        let slices = begin + day * size.day..begin + (day + 1) * size.day;
        let mut log: Vec<_> = slices.clone().filter(|slice| !is_late(*slice)).map(|s| part_of(&size, s)).collect();
        // Later than what is kept as slices.
        let late = slices.clone().map(|slice| slice - 40 * size.day);
        let late = late.filter(|slice| is_late(*slice) && *slice >= begin);
        log.extend(late.map(|slice| part_of(&size, slice)));
        let as_of = CommitId(ledger.last_commit().0 + 1);
        let blocks = ledger.stalest_totals(usize::MAX).into_iter();
        let totals: Vec<_> = blocks.map(|block| TotalsBlock { block, as_of, bytes: vec![] }).collect();
        let batch = CommitBatch::new(as_of, Timestamp(0), Timestamp(0));
        ledger.commit(&CommitBatch { log: &log, totals: &totals, ..batch }).expect("commits");
        work(&size, &mut ledger, slices.end);
    }
    let end = begin + DAYS * size.day;
    let is_there = |slice: u32| (begin..end).contains(&slice) && (!is_late(slice) || slice + 40 * size.day < end);
    let (found, parts) = read_all(&ledger);
    assert_eq!(parts.iter().map(|(_, _, r)| *r).collect::<Vec<_>>(), size.tiers().map(|tier| tier.resolution));
    let oldest = parts.iter().map(|(from, ..)| *from).min().expect("tiers");
    assert!(oldest > begin && end - oldest >= 365 * size.day, "the last tier expires, and not before its time");
    let mut rng = Rng(9);
    let mut compared = 0;
    for _ in 0..1000 {
        let id = rng.below(u64::from(size.series)) as u32;
        let (from, to, resolution) = parts[rng.below(3) as usize];
        let slots = u64::from((to - from) / resolution);
        let first = from + rng.below(slots) as u32 * resolution;
        let last = (first + (1 + rng.below(12)) as u32 * resolution).min(to);
        let mut expected: Option<Naive> = None;
        for slice in (first..last).filter(|slice| is_there(*slice) && value_of(*slice, id).is_some()) {
            let value = read_one(&size, slice, id);
            match &mut expected {
                Some(sum) => sum.merge(&value),
                None => expected = Some(value),
            }
        }
        let mut merged: Option<Naive> = None;
        let slots = found.range((first, SeriesId(0))..(last, SeriesId(0))).filter(|((_, of), _)| of.0 == id);
        for (_, value) in slots {
            match &mut merged {
                Some(sum) => sum.merge(value),
                None => merged = Some(value.clone()),
            }
        }
        compared += usize::from(expected.is_some());
        assert_eq!(merged, expected, "series {id}, slices {first}..{last} of resolution {resolution}");
    }
    assert!(compared > 900, "{compared} ranges held something");
    let sums = ledger.sums().expect("readable");
    for id in (0..size.series).filter(|id| kind_of(*id) == Kind::Counter) {
        let all = (begin..end).filter(|slice| is_there(*slice));
        let expected: i128 = all.filter_map(|slice| Some(i128::from(value_of(slice, id)?.below(1 << 40)))).sum();
        assert_eq!(sums[&SeriesId(id)].sum, expected, "C5: series {id}");
    }
    ledger.verify().expect("whole");
    let bytes: u64 = ledger.sizes().iter().filter(|size| size.table == "pages").map(|size| size.bytes).sum();
    println!("{} rows read, {bytes} bytes of pages, {} commits", found.len(), ledger.last_commit().0);
}

/// What a series saw in a slice, by way of the slice's own part.
fn read_one(size: &Size, slice: u32, id: u32) -> Naive {
    let part = part_of(&Size { day: size.day, series: id + 1 }, slice);
    let mut rows = Rows::new();
    super::history::add_part(&mut rows, slice, &part.bytes);
    rows.remove(&(slice, SeriesId(id))).expect("it saw something")
}
