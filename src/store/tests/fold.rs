//! A segment equals the naive merge of its parts; base + history = everything ever committed.

use super::script::{Rng, SLICE_NANOS, commit_next, commit_of, def, part};
use crate::delta::EncodedPart;
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::delta::{CounterSum, DistributionSum, GaugeSum};
use crate::event::{CommitId, Kind, SeriesId, Slice, Timestamp};
use crate::sketch::Distinct;
use crate::store::{CommitBatch, Ledger, LedgerConfig, LedgerPath, MEMORY_BYTES, SumMap, TotalsBlock};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(7);

fn memory() -> Ledger {
    Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("a new store")
}

#[derive(Clone, Debug, PartialEq)]
enum Naive {
    Counter(CounterSum),
    Gauge(GaugeSum),
    Distribution(DistributionSum),
    Set(Distinct),
}

/// Decodes parts in order and merges rows with the aggregates' own merge.
fn naive(parts: &[Vec<u8>]) -> BTreeMap<(Kind, SeriesId), Naive> {
    let mut map: BTreeMap<(Kind, SeriesId), Naive> = BTreeMap::new();
    let mut scratch = Scratch::default();
    for part in parts {
        let mut cursor = PartCursor::new(part).expect("a part");
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            let value = match &row.value {
                RowValue::Counter(sum) => Naive::Counter(*sum),
                RowValue::Gauge(sum) => Naive::Gauge(sum.clone()),
                RowValue::Distribution(row) => Naive::Distribution(row.to_sum()),
                RowValue::Set(distinct) => Naive::Set(distinct.clone()),
            };
            let key = (row.value.kind(), row.id);
            match (map.get_mut(&key), value) {
                (None, value) => drop(map.insert(key, value)),
                (Some(Naive::Counter(a)), Naive::Counter(b)) => a.nanos += b.nanos,
                (Some(Naive::Gauge(a)), Naive::Gauge(b)) => a.merge(&b),
                (Some(Naive::Distribution(a)), Naive::Distribution(b)) => a.merge(&b),
                (Some(Naive::Set(a)), Naive::Set(b)) => a.merge(&b),
                _ => panic!("two kinds under one id"),
            }
        }
    }
    map
}

fn totals(ledger: &Ledger) -> Vec<TotalsBlock> {
    let as_of = CommitId(ledger.last_commit().0 + 1);
    ledger.stalest_totals(usize::MAX).into_iter().map(|block| TotalsBlock { block, as_of, bytes: vec![] }).collect()
}

fn commit(ledger: &mut Ledger, log: &[EncodedPart], with_totals: bool) {
    let totals = if with_totals { totals(ledger) } else { Vec::new() };
    let id = CommitId(ledger.last_commit().0 + 1);
    ledger.commit(&CommitBatch { log, totals: &totals, ..CommitBatch::new(id, NOW, NOW) }).expect("commits");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn h1_a_segment_is_the_merge_of_its_parts(
        seed in any::<u64>(), commits in 1u64..10, rows in 1u64..120, series in 1u32..90, rows_max in 1usize..40,
    ) {
        let mut ledger = memory();
        let mut rng = Rng(seed);
        let new_series: Vec<_> = (0..series).map(|id| def(id, NOW.0)).collect();
        let first = CommitBatch::new(CommitId(1), NOW, NOW);
        ledger.commit(&CommitBatch { new_series: &new_series, ..first }).expect("commits");
        for round in 0..2 {
            for _ in 0..commits {
                let log = [part(&mut rng, 3, series, rows), part(&mut rng, 3, series, rows), part(&mut rng, 4, series, 2)];
                commit(&mut ledger, &log, false);
            }
            commit(&mut ledger, &[], true);
            let before = naive(&ledger.read_slice(Slice(3)).expect("readable"));
            prop_assert_eq!(ledger.segment_candidate(Slice(4)), Some(Slice(3)));
            if round == 1 {
                // A job that is abandoned after its first step leaves rows that nobody sees.
                let mut job = ledger.segment_job(Slice(3));
                let step = ledger.segment_step(&mut job, 2).expect("readable");
                if !step.is_last() {
                    let id = CommitId(ledger.last_commit().0 + 1);
                    let batch = CommitBatch::new(id, NOW, NOW);
                    ledger.commit(&CommitBatch { segment: Some(&step), ..batch }).expect("commits");
                }
            }
            ledger.fold_slice(Slice(3), rows_max).expect("folds");
            let folded = ledger.read_slice(Slice(3)).expect("readable");
            let state = ledger.slices().next().expect("slice 3");
            prop_assert!(state.has_segment && state.log_rows == 0);
            prop_assert_eq!(naive(&folded), before);
        }
        ledger.verify().expect("whole");
    }
}

#[test]
fn h1_rows_that_come_while_a_segment_is_built_stay_in_the_log() {
    let mut ledger = memory();
    let mut rng = Rng(2);
    let new_series: Vec<_> = (0..200).map(|id| def(id, NOW.0)).collect();
    ledger
        .commit(&CommitBatch { new_series: &new_series, ..CommitBatch::new(CommitId(1), NOW, NOW) })
        .expect("commits");
    for _ in 0..5 {
        commit(&mut ledger, &[part(&mut rng, 1, 200, 100)], true);
    }
    let mut job = ledger.segment_job(Slice(1));
    let mut steps = 0;
    loop {
        let step = ledger.segment_step(&mut job, 20).expect("readable");
        let late = [part(&mut rng, 1, 200, 10)];
        let id = CommitId(ledger.last_commit().0 + 1);
        let mut before = ledger.read_slice(Slice(1)).expect("readable");
        before.push(late[0].bytes.clone());
        let batch = CommitBatch { log: &late, segment: Some(&step), ..CommitBatch::new(id, NOW, NOW) };
        ledger.commit(&batch).expect("commits");
        steps += 1;
        assert_eq!(naive(&ledger.read_slice(Slice(1)).expect("readable")), naive(&before));
        if step.is_last() {
            break;
        }
    }
    let state = ledger.slices().next().expect("slice 1");
    assert!(steps > 5 && state.has_segment && state.log_rows == steps, "{state:?} after {steps} steps");
}

#[test]
fn c5_base_and_history_are_everything_ever_committed() {
    let mut ledger = memory();
    let mut reference = memory();
    let mut expired = 0;
    for id in 1..=120 {
        let owned = commit_of(21, id, &ledger, 40);
        // The reference never folds or expires: its history is everything.
        let batch = CommitBatch {
            new_series: &owned.new_series,
            log: &owned.log,
            ..CommitBatch::new(CommitId(id), Timestamp(owned.time), NOW)
        };
        reference.commit(&batch).expect("commits");
        let before = ledger.slices().count();
        commit_next(21, &mut ledger, 40).expect("commits");
        expired += usize::from(ledger.slices().count() < before);
        if id % 10 == 0 {
            assert_eq!(ledger.sums().expect("readable"), reference.sums().expect("readable"), "after commit {id}");
        }
    }
    assert!(expired > 5 && ledger.slices().any(|slice| slice.has_segment), "the script expires and folds");
    assert_ne!(ledger.base().expect("readable"), SumMap::new());
    ledger.verify().expect("whole");
}
