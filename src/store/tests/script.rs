//! A deterministic series of commits, and a fingerprint of everything a ledger says.

use crate::delta::EncodedPart;
use crate::delta::epoch::PartitionPosition;
use crate::delta::part::{DistributionRow, PartWriter};
use crate::delta::{CounterSum, GaugeSum};
use crate::event::{CommitId, Kind, LabelsBuilder, Scale, SeriesId, Slice, Timestamp, series_hash};
use crate::sketch::{Digits, Distinct, layout};
use crate::store::due::ExpiryDue;
use crate::store::job::HistoryJob;
use crate::store::tier::History;
use crate::store::{CommitBatch, Ledger, SeriesDef, StoreError, TierPlan, TotalsBlock};
use redb::ReadableDatabase;
use std::collections::BTreeSet;

/// Splitmix64: the same numbers for the same seed.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(crate) const SLICE_NANOS: i64 = 10_000_000_000;

pub(crate) fn kind_of(id: u32) -> Kind {
    Kind::ALL[id as usize % 4]
}

pub(crate) fn def(id: u32, created: i64) -> SeriesDef {
    let mut labels = LabelsBuilder::new();
    labels.push("host", format!("h{id}")).push("zone", "eu");
    let labels = labels.build().expect("valid labels");
    let (kind, name) = (kind_of(id), format!("metric_{}", id % 7));
    SeriesDef {
        id: SeriesId(id),
        hash: series_hash(kind, &name, &labels),
        kind,
        name: name.into(),
        scale: Scale::MICRO,
        unit: if id.is_multiple_of(2) { "" } else { "celsius" }.into(),
        digits: Digits::Two,
        labels,
        created: Timestamp(created),
    }
}

/// A part with random rows of series below `series`.
pub(crate) fn part(rng: &mut Rng, slice: u32, series: u32, rows: u64) -> EncodedPart {
    let ids: BTreeSet<(Kind, u32)> =
        (0..rows).map(|_| rng.below(u64::from(series)) as u32).map(|id| (kind_of(id), id)).collect();
    let mut writer = PartWriter::new(Vec::new());
    for (kind, id) in ids {
        let key = SeriesId(id);
        match kind {
            Kind::Counter => writer.counter(key, CounterSum { nanos: i128::from(rng.next() >> 8) * 7 }),
            Kind::Gauge => {
                let count = 1 + rng.below(3);
                let last = rng.below(1000) as f64 / 8.0;
                let (min, max) = if count > 1 { (last - 1.0, last + 2.0) } else { (last, last) };
                let (time, position) = (rng.below(50) as i64, rng.next());
                writer.gauge(key, &GaugeSum { count, last, time, position, min, max, sum: 12, adjust: None });
            }
            Kind::Distribution => {
                let digits = Digits::Two;
                let weighted = rng.below(3) == 0;
                let factor = if weighted { 4096 } else { 1 };
                let mut values: Vec<i64> = (0..1 + rng.below(40)).map(|_| rng.below(1 << 20) as i64 - 1000).collect();
                values.sort_unstable();
                let mut cells: Vec<(i32, u64)> = Vec::new();
                for value in &values {
                    let cell = layout::cell_of(digits, *value);
                    match cells.last_mut() {
                        Some((last, n)) if *last == cell => *n += factor,
                        _ => cells.push((cell, factor)),
                    }
                }
                let below = [(3u16, factor), (9, 2 * factor)];
                writer.distribution(
                    key,
                    &DistributionRow {
                        digits,
                        count: values.len() as u64,
                        weighted,
                        sum: values.iter().map(|v| i128::from(*v)).sum::<i128>() * i128::from(factor),
                        min: values[0],
                        max: *values.last().expect("not empty"),
                        cells: &cells,
                        below: if rng.below(2) == 0 { &below } else { &[] },
                    },
                );
            }
            Kind::Set => {
                let mut set = Distinct::default();
                (0..rng.below(20) + 1).for_each(|_| set.insert(rng.below(1000)));
                writer.set(key, &set);
            }
        }
    }
    let rows = writer.rows();
    EncodedPart { slice: Slice(slice), bytes: writer.finish(), rows }
}

/// What one commit of the script brings.
pub(crate) struct Owned {
    pub(crate) time: i64,
    pub(crate) new_series: Vec<SeriesDef>,
    pub(crate) log: Vec<EncodedPart>,
    pub(crate) positions: Vec<PartitionPosition>,
    pub(crate) totals: Vec<TotalsBlock>,
}

/// Commit `id` of the script: some new series, parts of the present slice and sometimes of an old one,
/// positions, and the totals of the stalest block.
pub(crate) fn commit_of(seed: u64, id: u64, ledger: &Ledger, rows: u64) -> Owned {
    commit_in(seed, id, ledger, rows, (id / 4) as u32, 3)
}

/// As [`commit_of`], in a slice, and sometimes in one so far behind it.
fn commit_in(seed: u64, id: u64, ledger: &Ledger, rows: u64, slice: u32, behind: u32) -> Owned {
    let mut rng = Rng(seed ^ id.wrapping_mul(0xABCD_EF01));
    let time = id as i64 * 1_000_000_000;
    let first = ledger.next_series().0;
    let new_series: Vec<SeriesDef> =
        (first..first + if id == 1 { 300 } else { rng.below(8) as u32 }).map(|n| def(n, time)).collect();
    let series = first + new_series.len() as u32;
    let mut log = vec![part(&mut rng, slice, series, rows), part(&mut rng, slice, series, rows / 3 + 1)];
    if rng.below(4) == 0 {
        log.push(part(&mut rng, slice.saturating_sub(behind), series, 5));
    }
    let positions = vec![PartitionPosition {
        partition: format!("kafka/{}", id % 3).as_str().into(),
        next: id * 100,
        clock: Timestamp(time - 5),
    }];
    let blocks = ledger.stalest_totals(2);
    let as_of = CommitId(id);
    let totals = blocks.into_iter().map(|block| TotalsBlock { block, as_of, bytes: rng.next().to_le_bytes().to_vec() });
    Owned { time, new_series, log, positions, totals: totals.collect() }
}

/// Commits the next commit of the script, with a step of a segment and an expiry when they are due.
pub(crate) fn commit_next(seed: u64, ledger: &mut Ledger, rows: u64) -> Result<(), StoreError> {
    let id = ledger.last_commit().0 + 1;
    let owned = commit_of(seed, id, ledger, rows);
    let open = (id / 4) as u32;
    let expire = match id % 5 {
        0 => ledger.expire_step(Slice(open.saturating_sub(6)), 2)?,
        _ => None,
    };
    let mut step = None;
    if expire.is_none()
        && let Some(slice) = ledger.segment_candidate(Slice(open))
    {
        let mut job = ledger.segment_job(slice);
        // Half of the steps are first steps of jobs that are then abandoned.
        let rows_max = if id.is_multiple_of(2) { 10 } else { usize::MAX };
        step = Some(ledger.segment_step(&mut job, rows_max)?);
    }
    let count = id.to_le_bytes();
    let state: &[(&str, Option<&[u8]>)] =
        &[("tallies", Some(&count)), ("odd", (id % 2 == 1).then_some(b"x".as_slice()))];
    ledger.commit(&CommitBatch {
        new_series: &owned.new_series,
        log: &owned.log,
        positions: &owned.positions,
        totals: &owned.totals,
        state,
        segment: step.as_ref(),
        expire: expire.as_ref(),
        ..CommitBatch::new(CommitId(id), Timestamp(owned.time), Timestamp(owned.time - 30_000_000_000))
    })
}

/// The tiers of the long script.
pub(crate) const TIERS: [TierPlan; 3] = [
    TierPlan { resolution: 1, keep: 500 * SLICE_NANOS },
    TierPlan { resolution: 6, keep: 3_000 * SLICE_NANOS },
    TierPlan { resolution: 36, keep: 9_000 * SLICE_NANOS },
];

/// As [`commit_next`], over so many slices that pages are written, rolled up, folded and dropped. What a commit does
/// besides is a function of what the ledger holds, so that it can be tried again.
pub(crate) fn commit_long(seed: u64, ledger: &mut Ledger, rows: u64) -> Result<(), StoreError> {
    let id = ledger.last_commit().0 + 1;
    let open = id as u32 * 200;
    let owned = commit_in(seed, id, ledger, rows, open, if id.is_multiple_of(3) { 900 } else { 210 });
    // Totals of every block, so that slices can be folded soon.
    let as_of = CommitId(id);
    let all = ledger.stalest_totals(usize::MAX).into_iter();
    let totals: Vec<_> = all.map(|block| TotalsBlock { block, as_of, bytes: id.to_le_bytes().to_vec() }).collect();
    let batch = CommitBatch::new(CommitId(id), Timestamp(owned.time), Timestamp(owned.time));
    let tiers = ledger.tier_change(&TIERS);
    let (mut expire, mut spans, mut segment, mut history) = (None, None, None, None);
    let back = |nanos: i64| Slice((i64::from(open) - nanos / SLICE_NANOS).max(0) as u32);
    let mut spec = None;
    let clears = ledger.has_rubbish() && id.is_multiple_of(2);
    if tiers.is_none() && !clears {
        match ledger.expiry_due(back).filter(|_| id.is_multiple_of(2)) {
            Some(ExpiryDue::Drop(expiry)) => spans = Some(expiry),
            Some(ExpiryDue::ToBase(to_base)) => spec = Some(to_base),
            None => expire = ledger.expire_step(Slice(open.saturating_sub(100)), 2)?,
        }
        if expire.is_none() && spans.is_none() {
            let candidate = ledger.segment_candidate(Slice(open)).filter(|_| !id.is_multiple_of(4));
            match candidate {
                Some(slice) => segment = Some(ledger.segment_step(&mut ledger.segment_job(slice), usize::MAX)?),
                None => {
                    let due = || ledger.history_due(Slice(open.saturating_sub(100)));
                    let folds = || {
                        let mut spans = ledger.history.spans.iter().filter(|(_, span)| span.generations.len() > 1);
                        spans.next().map(|((resolution, start), _)| ledger.fold_spec(*resolution, *start, true))
                    };
                    spec = spec.or_else(due).or_else(folds);
                }
            }
        }
        if let Some(spec) = spec.filter(|_| !ledger.has_rubbish()) {
            // Some are first steps of jobs that are then abandoned.
            let bytes = if id % 8 == 4 { 1 } else { usize::MAX };
            let mut job = HistoryJob::new(spec).limited(bytes, usize::MAX);
            history = ledger.with(|db| job.step(&db.begin_read()?))?;
        }
    }
    ledger.commit(&CommitBatch {
        new_series: &owned.new_series,
        log: &owned.log,
        positions: &owned.positions,
        totals: &totals,
        segment: segment.as_ref(),
        expire: expire.as_ref(),
        history: history.as_ref(),
        expire_spans: spans.as_ref(),
        tiers: tiers.as_ref(),
        clears,
        ..batch
    })
}

/// Everything a ledger says, in words that can be compared.
pub(crate) fn fingerprint(ledger: &mut Ledger) -> Result<String, StoreError> {
    use std::fmt::Write;
    let mut out = String::new();
    let head =
        (ledger.last_commit(), ledger.commit_time(), ledger.watermark(), ledger.next_series(), ledger.slice_nanos);
    write!(out, "{head:?} ").expect("to a string");
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    ledger.all_series(|def| hash.update(format!("{def:?}").as_bytes()))?;
    ledger.verify_index()?;
    ledger.all_totals(|block| {
        hash.update(format!("{block:?}").as_bytes());
        Ok(())
    })?;
    for position in ledger.positions()? {
        write!(out, "{position:?} ").expect("to a string");
    }
    for name in ["tallies", "odd", "absent"] {
        write!(out, "{:?} ", ledger.state(name)?).expect("to a string");
    }
    for state in ledger.slices() {
        write!(out, "{state:?} ").expect("to a string");
    }
    ledger.replay(Slice(0), |part| {
        hash.update(format!("{:?} {:?} {:?}", part.slice, part.through, part.kind).as_bytes());
        hash.update(part.bytes);
        Ok(())
    })?;
    if ledger.history != History::default() {
        write!(out, "{:?} {:?} ", ledger.history, ledger.rubbish).expect("to a string");
        ledger.verify_pages()?;
    }
    hash.update(format!("{:?}", ledger.sums()?).as_bytes());
    write!(out, "{:x}", hash.digest128()).expect("to a string");
    Ok(out)
}
