//! Reads a store back into the terms of [`super::truth`]: from the file's rows, and from the view.

use super::truth::{Aggregate, BOUNDS, Export, Key, TARGETS};
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::delta::{DistributionSum, GaugeSum};
use crate::event::{Kind, LabelsBuilder, SeriesId, Slice, WEIGHT_ONE};
use crate::sketch::{Distinct, layout};
use crate::store::{Ledger, Page, PageBuffers, SPAN_SLOTS, Snapshot, Wanted};
use crate::view::{Value, View};
use std::collections::BTreeMap;

enum Merged {
    Counter(i128),
    Gauge(GaugeSum),
    Distribution(DistributionSum),
    Set(Distinct),
}

/// Every slice of the file, series of the program itself left out.
pub(super) fn export(ledger: &Ledger) -> Export {
    let mut keys: BTreeMap<SeriesId, Key> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    ledger
        .all_series(|def| {
            assert!(seen.insert(def.hash), "S1: one id for each series");
            if !def.name.starts_with("hydrograph_") {
                keys.insert(def.id, (def.name.to_string(), def.labels.get("k").unwrap_or_default().to_owned()));
            }
        })
        .expect("readable");
    let mut export = Export::new();
    let mut rows: BTreeMap<(u32, SeriesId), Merged> = BTreeMap::new();
    let mut scratch = Scratch::default();
    for slice in ledger.slices().map(|state| state.slice).collect::<Vec<_>>() {
        for part in ledger.read_slice(slice).expect("readable") {
            let mut cursor = PartCursor::new(&part).expect("a part");
            while let Some(row) = cursor.next(&mut scratch).expect("whole") {
                add(&mut rows, slice.0, row.id, &row.value);
            }
        }
    }
    add_pages(ledger, &mut rows);
    for ((slice, id), merged) in rows {
        if let Some(key) = keys.get(&id) {
            export.insert((slice, key.clone()), aggregate(key, merged));
        }
    }
    export
}

fn add(rows: &mut BTreeMap<(u32, SeriesId), Merged>, slice: u32, id: SeriesId, value: &RowValue<'_>) {
    let value = match value {
        RowValue::Counter(sum) => Merged::Counter(sum.nanos),
        RowValue::Gauge(sum) => Merged::Gauge(sum.clone()),
        RowValue::Distribution(row) => Merged::Distribution(row.to_sum()),
        RowValue::Set(distinct) => Merged::Set(distinct.clone()),
    };
    match (rows.get_mut(&(slice, id)), value) {
        (None, value) => drop(rows.insert((slice, id), value)),
        (Some(Merged::Counter(a)), Merged::Counter(b)) => *a += b,
        (Some(Merged::Gauge(a)), Merged::Gauge(b)) => a.merge(&b),
        (Some(Merged::Distribution(a)), Merged::Distribution(b)) => a.merge(&b),
        (Some(Merged::Set(a)), Merged::Set(b)) => a.merge(&b),
        _ => panic!("two kinds under one id"),
    }
}

/// The pages of the first tier, whose slots are slices.
fn add_pages(ledger: &Ledger, rows: &mut BTreeMap<(u32, SeriesId), Merged>) {
    let mut buffers = PageBuffers::default();
    let read = |snapshot: &Snapshot<'_>| {
        for span in snapshot.page_spans(1, Slice(0)..Slice(u32::MAX))? {
            for kind in Kind::ALL {
                snapshot.read_pages(span, kind, SeriesId(0)..SeriesId(u32::MAX), &mut |bytes| {
                    Page::new(bytes)?.read(
                        Wanted::All,
                        0..SPAN_SLOTS as u16,
                        true,
                        &mut buffers,
                        &mut |id, slot, value| {
                            add(rows, span.start.0 + u32::from(slot), id, value);
                            Ok(())
                        },
                    )
                })?;
            }
        }
        Ok(())
    };
    ledger.reader().snapshot(read).expect("readable");
}

fn aggregate(key: &Key, merged: Merged) -> Aggregate {
    match merged {
        Merged::Counter(sum) => Aggregate::Counter(sum),
        Merged::Gauge(sum) => Aggregate::Gauge(sum),
        Merged::Set(set) => Aggregate::Set(set),
        Merged::Distribution(sum) => {
            let factor = if sum.weighted { 1 } else { WEIGHT_ONE };
            let digits = sum.sketch.digits();
            let cells: BTreeMap<i32, u64> = sum.sketch.cells().map(|(cell, n)| (cell, n * factor)).collect();
            let bucket = |(index, bound): (usize, i64)| -> u64 {
                let whole = cells.iter().filter(|(cell, _)| layout::highest(digits, **cell) <= bound);
                let below = sum.below.iter().filter(|(b, _)| usize::from(*b) == index).map(|(_, n)| n * factor);
                whole.map(|(_, n)| n).sum::<u64>() + below.sum::<u64>()
            };
            let buckets = if key.0.starts_with("bucketed") {
                BOUNDS.into_iter().enumerate().map(bucket).collect()
            } else {
                Vec::new()
            };
            let sum4096 = sum.sum * i128::from(factor);
            Aggregate::Distribution { count: sum.count, sum4096, min: sum.min, max: sum.max, cells, buckets }
        }
    }
}

/// Compares the view's totals with the truth's.
pub(super) fn check_totals(view: &View, truth: &BTreeMap<Key, Aggregate>, context: &str) {
    for (key, expected) in truth {
        let metric = view.metric(&key.0).unwrap_or_else(|| panic!("{context}: {key:?} has no metric"));
        let mut labels = LabelsBuilder::new();
        labels.push("k", key.1.as_str());
        let labels = labels.build().expect("valid");
        let id = view.id_of(&metric, &labels).unwrap_or_else(|| panic!("{context}: {key:?} has no id"));
        let value = view.value(&metric, id).unwrap_or_else(|| panic!("{context}: {key:?} has no value"));
        match (expected, value) {
            (Aggregate::Counter(sum), Value::Counter(found)) => assert_eq!(found.nanos, *sum, "{context}: {key:?}"),
            (Aggregate::Gauge(sum), Value::Gauge(found)) => {
                let found = (found.last, found.count, found.min, found.max);
                assert_eq!(found, (Some(sum.last), sum.count, sum.min, sum.max), "{context}: {key:?}");
            }
            (Aggregate::Distribution { count, sum4096, min, max, cells, buckets }, Value::Distribution(found)) => {
                let weight: u128 = cells.values().map(|n| u128::from(*n)).sum();
                assert_eq!(found.samples, *count, "{context}: {key:?}");
                assert_eq!(found.count, (weight + 2048) / 4096, "{context}: {key:?}");
                assert_eq!(found.sum, (sum4096 + 2048).div_euclid(4096), "{context}: {key:?}");
                assert_eq!((found.min, found.max), (Some(*min), Some(*max)), "{context}: {key:?}");
                let stats = view.stats(&metric, id, &[]).expect("live");
                let counts: Vec<u128> = stats.buckets.iter().map(|(_, n)| *n).collect();
                let exact: Vec<u128> = buckets.iter().map(|n| (u128::from(*n) + 2048) / 4096).collect();
                assert_eq!(counts, exact, "{context}: buckets of {key:?}");
            }
            (Aggregate::Set(_), Value::Set(_)) => {}
            (expected, found) => panic!("{context}: {key:?} is {found:?} and not {expected:?}"),
        }
    }
    for target in &TARGETS {
        let is_known = truth.keys().any(|(name, _)| name == target.exposed);
        assert!(is_known || view.metric(target.exposed).is_none(), "{context}: {} came from nowhere", target.exposed);
    }
}
