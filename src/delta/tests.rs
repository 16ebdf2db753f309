//! Combiner and parts against a naive aggregation; parts against any bytes.

use super::part::{DistributionRow, PartCursor, PartWriter, Row, RowValue, Scratch, block_ranges};
use super::*;
use crate::event::{Buckets, Kind, SeriesId, Slice, Slot, SourceIndex, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, layout};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const HOT: Slice = Slice(1000);
const BOUNDS: [i64; 5] = [-777, 5, 1_003, 50_021, 1_000_000_007];

/// One call of a combiner; `slice` is relative to the hot one.
#[derive(Clone, Copy, Debug)]
enum Op {
    Whole { slot: u32, whole: i64 },
    Nanos { slice: i8, slot: u32, nanos: i128 },
    Value { slice: i8, slot: u32, units: i64, weight: u64 },
    Set { slice: i8, slot: u32, value: f64, time: i64, position: u64 },
    Member { slice: i8, slot: u32, hash: u64 },
}

/// Slots tell resolution and buckets apart, as metrics do.
fn digits_of(slot: u32) -> Digits {
    [Digits::Two, Digits::One, Digits::Three, Digits::Two][slot as usize % 4]
}

fn rule_of(slot: u32) -> Option<BucketRule> {
    let buckets = Buckets { first: 0, bounds: BOUNDS.iter().map(|b| *b as f64).collect(), units: BOUNDS.into() };
    slot.is_multiple_of(3).then(|| BucketRule::new(Arc::new(buckets), digits_of(slot)))
}

fn slice_of(offset: i8) -> Slice {
    Slice((1000 + i32::from(offset)) as u32)
}

fn apply(combiner: &mut Combiner, op: Op) {
    match op {
        Op::Whole { slot, whole } => combiner.add_whole(slot, whole),
        Op::Nanos { slice, slot, nanos } => combiner.add_whole_at(slice_of(slice), slot, nanos),
        Op::Value { slice, slot, units, weight } => {
            let digits = digits_of(slot);
            let rule = rule_of(slot);
            let cell = layout::cell_of(digits, units);
            combiner.add_value_at(slice_of(slice), slot, digits, units, cell, weight, rule.as_ref());
        }
        Op::Set { slice, slot, value, time, position } => {
            combiner.set_gauge_at(slice_of(slice), slot, value, value as i64, time, position);
        }
        Op::Member { slice, slot, hash } => combiner.add_member_at(slice_of(slice), slot, hash),
    }
}

/// Everything that can be said of a row, unweighted counts × 4096.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Counter(i128),
    Gauge(GaugeSum),
    Distribution { count: u64, sum: i128, min: i64, max: i64, cells: BTreeMap<i32, u64>, below: Vec<u64> },
    Set(Distinct),
}

type Rows = BTreeMap<(u32, Kind, u32), Said>;

fn naive(ops: &[Op]) -> Rows {
    let mut rows = Rows::new();
    for op in ops {
        match *op {
            Op::Whole { slot, whole } => add_counter(&mut rows, 0, slot, i128::from(whole) * 1_000_000_000),
            Op::Nanos { slice, slot, nanos } => add_counter(&mut rows, slice, slot, nanos),
            Op::Set { slice, slot, value, time, position } => {
                let key = (slice_of(slice).0, Kind::Gauge, slot);
                let Said::Gauge(sum) = rows.entry(key).or_insert_with(|| Said::Gauge(GaugeSum::default())) else {
                    unreachable!()
                };
                if sum.count == 0 || (sum.time, sum.position) <= (time, position) {
                    (sum.last, sum.time, sum.position) = (value, time, position);
                }
                sum.count += 1;
                (sum.min, sum.max) = (sum.min.min(value), sum.max.max(value));
                sum.sum += i128::from(value as i64);
            }
            Op::Member { slice, slot, hash } => {
                let key = (slice_of(slice).0, Kind::Set, slot);
                let Said::Set(set) = rows.entry(key).or_insert_with(|| Said::Set(Distinct::default())) else {
                    unreachable!()
                };
                set.insert(hash);
            }
            Op::Value { slice, slot, units, weight } => {
                let bounds = if slot.is_multiple_of(3) { BOUNDS.len() } else { 0 };
                let empty = || Said::Distribution {
                    count: 0,
                    sum: 0,
                    min: i64::MAX,
                    max: i64::MIN,
                    cells: BTreeMap::new(),
                    below: vec![0; bounds],
                };
                let key = (slice_of(slice).0, Kind::Distribution, slot);
                let Said::Distribution { count, sum, min, max, cells, below } = rows.entry(key).or_insert_with(empty)
                else {
                    unreachable!()
                };
                *count += 1;
                *sum += i128::from(units) * i128::from(weight);
                (*min, *max) = ((*min).min(units), (*max).max(units));
                *cells.entry(layout::cell_of(digits_of(slot), units)).or_insert(0) += weight;
                for (n, bound) in below.iter_mut().zip(BOUNDS) {
                    *n += if units <= bound { weight } else { 0 };
                }
            }
        }
    }
    rows
}

fn add_counter(rows: &mut Rows, slice: i8, slot: u32, nanos: i128) {
    let key = (slice_of(slice).0, Kind::Counter, slot);
    let Said::Counter(sum) = rows.entry(key).or_insert(Said::Counter(0)) else { unreachable!() };
    *sum += nanos;
}

fn said(row: &Row<'_>, slot: u32) -> Said {
    match &row.value {
        RowValue::Counter(sum) => Said::Counter(sum.nanos),
        RowValue::Gauge(sum) => Said::Gauge(sum.clone()),
        RowValue::Set(set) => Said::Set(set.clone()),
        RowValue::Distribution(row) => {
            let factor = if row.weighted { 1 } else { WEIGHT_ONE };
            let cells: BTreeMap<i32, u64> = row.cells.iter().map(|(cell, n)| (*cell, n * factor)).collect();
            let below = |(index, bound): (usize, &i64)| {
                let whole = cells.iter().filter(|(cell, _)| layout::highest(row.digits, **cell) <= *bound);
                let straddled = row.below.iter().filter(|(b, _)| usize::from(*b) == index).map(|(_, n)| n * factor);
                whole.map(|(_, n)| n).sum::<u64>() + straddled.sum::<u64>()
            };
            let bounds = if slot.is_multiple_of(3) { &BOUNDS[..] } else { &[] };
            let below = bounds.iter().enumerate().map(below).collect();
            let sum = row.sum * i128::from(factor);
            Said::Distribution { count: row.count, sum, min: row.min, max: row.max, cells, below }
        }
    }
}

/// Ids in another order than slots.
fn ids() -> IdMap {
    let mut ids = IdMap::new();
    for kind in Kind::ALL {
        for slot in 0..5000 {
            ids.set(kind, Slot(slot), SeriesId((slot * 7919) % 5003 + 10));
        }
    }
    ids
}

fn drain(combiner: &mut Combiner, ids: &IdMap) -> (Vec<EncodedPart>, Vec<SourceTally>) {
    assert_eq!(combiner.unknown_slots(ids), Vec::new());
    encode(combiner, ids, &mut |_, _, sum| sum)
}

fn rows_of(parts: &[EncodedPart]) -> Rows {
    let back: BTreeMap<u32, u32> = (0..5000).map(|slot| ((slot * 7919) % 5003 + 10, slot)).collect();
    let mut rows = Rows::new();
    let mut scratch = Scratch::default();
    for part in parts {
        let mut cursor = PartCursor::new(&part.bytes).expect("a part");
        let mut count = 0;
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            let slot = back[&row.id.0];
            let old = rows.insert((part.slice.0, row.value.kind(), slot), said(&row, slot));
            assert!(old.is_none(), "a series has one row in a slice");
            count += 1;
        }
        assert_eq!(count, part.rows);
    }
    rows
}

fn units() -> impl Strategy<Value = i64> {
    prop_oneof![
        -2000i64..2000,
        -1_000_000_000_000_000_000i64..=1_000_000_000_000_000_000,
        proptest::sample::select(vec![0, 1, -1, 5, 1_003, 50_021, 50_022, 1_000_000_000_000_000_000]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let slice = prop_oneof![6 => Just(0i8), 1 => -3i8..3];
    let weight = prop_oneof![4 => Just(WEIGHT_ONE), 1 => WEIGHT_ONE..=1 << 32];
    (0u8..5, slice, 0u32..9, units(), weight, any::<u64>(), 0i64..40).prop_map(
        |(kind, slice, slot, units, weight, any, time)| match kind {
            0 => Op::Whole { slot, whole: units.unsigned_abs() as i64 },
            1 => Op::Nanos { slice, slot, nanos: i128::from(units.unsigned_abs()) * i128::from(any % 3_000_000_000) },
            2 => Op::Value { slice, slot, units, weight },
            3 => Op::Set { slice, slot, value: (units / 1_000_000) as f64, time, position: any % 8 },
            _ => Op::Member { slice, slot, hash: any },
        },
    )
}

/// Drains a combiner of these calls, twice, and compares.
fn check(ops: &[Op]) {
    let ids = ids();
    let mut combiner = Combiner::new(HOT);
    for op in ops {
        apply(&mut combiner, *op);
    }
    combiner.tally(SourceIndex(2)).inputs = 5;
    let (parts, tallies) = drain(&mut combiner, &ids);
    assert_eq!(rows_of(&parts), naive(ops));
    assert_eq!(tallies.len(), 3);
    assert!(combiner.is_empty());
    let (again, none) = drain(&mut combiner, &ids);
    assert!(again.is_empty() && none.iter().all(SourceTally::is_zero), "a drained combiner is empty");
    // What was drained is as good as new, to the byte.
    combiner.start(HOT);
    for op in ops.iter().rev() {
        apply(&mut combiner, *op);
    }
    let mut fresh = Combiner::new(HOT);
    for op in ops.iter().rev() {
        apply(&mut fresh, *op);
    }
    assert_eq!(drain(&mut combiner, &ids).0, drain(&mut fresh, &ids).0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn v1_v2_v3_v5_a_combiner_equals_a_naive_aggregation(ops in proptest::collection::vec(op(), 0..400)) {
        check(&ops);
    }

    #[test]
    fn parts_hold_any_row(
        rows in proptest::collection::btree_map((0u8..4, any::<u32>()), (units(), any::<i64>(), 1u64..1 << 40, any::<bool>()), 0..40),
        bits in any::<u64>(),
    ) {
        let mut writer = PartWriter::new(Vec::new());
        let mut expected: Vec<(SeriesId, Said)> = Vec::new();
        for ((kind, id), (a, b, n, flag)) in &rows {
            let id = SeriesId(*id);
            match Kind::from_code(*kind).expect("a code") {
                Kind::Counter => {
                    let nanos = i128::from(a.unsigned_abs()) * i128::from(b.unsigned_abs());
                    writer.counter(id, CounterSum { nanos });
                    expected.push((id, Said::Counter(nanos)));
                }
                Kind::Gauge => {
                    let value = f64::from_bits(bits ^ *n);
                    let value = if value.is_finite() { value } else { -0.0 };
                    let (min, max) = if *n > 1 { (value - 1.0, value + 1.0) } else { (value, value) };
                    let sum = i128::from(*a) * i128::from(*b);
                    let gauge = GaugeSum { count: *n, last: value, time: *b, position: bits, min, max, sum, adjust: None };
                    writer.gauge(id, &gauge);
                    expected.push((id, Said::Gauge(gauge)));
                }
                Kind::Distribution => {
                    let digits = [Digits::One, Digits::Two, Digits::Three][(bits % 3) as usize];
                    let low = layout::cell_of(digits, *a);
                    let cells = if *n == 1 && !flag { vec![(low, 1)] } else { vec![(low, *n), (low + 9, 3), (low + 100, 1 << 40)] };
                    let below: &[(u16, u64)] = if bits & 8 == 0 { &[] } else { &[(0, 7), (65_535, u64::MAX)] };
                    let row = DistributionRow {
                        digits,
                        count: *n,
                        weighted: *flag,
                        sum: if *n == 1 && !flag { i128::from(*a) } else { i128::from(*a) * i128::from(*b) },
                        min: *a,
                        max: if *n == 1 && !flag { *a } else { a.saturating_add(b.saturating_abs()) },
                        cells: &cells,
                        below,
                    };
                    writer.distribution(id, &row);
                    let mut copy = PartWriter::new(Vec::new());
                    copy.distribution(id, &row);
                    let bytes = copy.finish();
                    let mut scratch = Scratch::default();
                    let mut cursor = PartCursor::new(&bytes).expect("a part");
                    let read = cursor.next(&mut scratch).expect("whole").expect("one");
                    match read.value {
                        RowValue::Distribution(read) => prop_assert_eq!(read, row),
                        _ => prop_assert!(false, "another kind"),
                    }
                    expected.push((id, Said::Counter(-1)));
                }
                Kind::Set => {
                    let mut set = Distinct::default();
                    (0..n % 70).for_each(|at| set.insert(bits.rotate_left(at as u32).wrapping_mul(at | 1)));
                    writer.set(id, &set);
                    expected.push((id, Said::Set(set)));
                }
            }
        }
        let bytes = writer.finish();
        let mut cursor = PartCursor::new(&bytes).expect("a part");
        let mut scratch = Scratch::default();
        for (id, value) in &expected {
            let peeked = cursor.peek().expect("whole").expect("one more");
            let mut resumed = PartCursor::resume(&bytes, cursor.position());
            let row = resumed.next(&mut scratch).expect("whole").expect("one more");
            prop_assert_eq!((peeked.1, row.id), (*id, *id));
            match &row.value {
                RowValue::Distribution(_) => {}
                _ => prop_assert_eq!(&said(&row, 1), value),
            }
            cursor = resumed;
        }
        prop_assert!(cursor.next(&mut scratch).expect("whole").is_none());
    }

    #[test]
    fn any_bytes_are_rows_or_an_error(
        ops in proptest::collection::vec(op(), 1..40),
        noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
        cut in any::<proptest::sample::Index>(),
    ) {
        let ids = ids();
        let mut combiner = Combiner::new(HOT);
        ops.iter().for_each(|op| apply(&mut combiner, *op));
        let (parts, _) = drain(&mut combiner, &ids);
        let mut bytes = parts[0].bytes.clone();
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len() + 1);
        let mut versioned = vec![part::VERSION];
        versioned.extend_from_slice(&garbage);
        for bytes in [&bytes[..], &bytes[..cut], &garbage[..], &versioned[..]] {
            let _ = block_ranges(bytes);
            let mut scratch = Scratch::default();
            let Ok(mut cursor) = PartCursor::new(bytes) else { continue };
            let mut rows = 0;
            while let Ok(Some(row)) = cursor.next(&mut scratch) {
                rows += 1;
                if let RowValue::Distribution(row) = row.value {
                    prop_assert!(row.cells.len() <= bytes.len() && row.below.len() <= bytes.len());
                }
            }
            prop_assert!(rows <= bytes.len(), "a row takes at least a byte");
        }
    }
}

#[test]
fn v1_v3_many_samples_of_one_series_in_one_tick() {
    for count in [15, 16, 17, 78, 79, 511, 512, 513, 1024, 4096, 70_001] {
        let value = |n: i64| Op::Value { slice: 0, slot: 4, units: n * n % 100_003 - 500, weight: WEIGHT_ONE };
        let mut ops: Vec<Op> = (0..count).map(value).collect();
        // Another series in between shares the chunks.
        ops.extend((0..count.min(500)).map(|n| Op::Value { slice: 0, slot: 8, units: n, weight: WEIGHT_ONE }));
        check(&ops);
    }
}

#[test]
fn v1_sums_that_leave_i64_are_exact() {
    let largest = 1_000_000_000_000_000_000;
    let mut ops = Vec::new();
    for n in 0..50 {
        ops.push(Op::Whole { slot: 1, whole: largest });
        ops.push(Op::Nanos { slice: 0, slot: 1, nanos: i128::from(largest) * 1_000_000_000 + 999_999_999 });
        ops.push(Op::Nanos { slice: 1, slot: 1, nanos: i128::from(u64::MAX) * 1_000_000_000 });
        ops.push(Op::Nanos { slice: 0, slot: 2, nanos: i128::from(u64::MAX) * 1_000_000_000 });
        for slot in [0, 3, 4, 7] {
            ops.push(Op::Value {
                slice: 0,
                slot,
                units: if n % 9 == 0 { -largest } else { largest },
                weight: WEIGHT_ONE,
            });
        }
        ops.push(Op::Value { slice: 0, slot: 5, units: largest, weight: 1 << 32 });
    }
    check(&ops);
}

#[test]
fn v2_a_weighted_sample_among_plain_ones_shifts_them() {
    let plain = |n: i64| Op::Value { slice: 0, slot: 4, units: n, weight: WEIGHT_ONE };
    let mut ops: Vec<Op> = (0..5000).map(plain).collect();
    ops.push(Op::Value { slice: 0, slot: 4, units: 77, weight: 13_653 });
    ops.extend((0..10).map(plain));
    check(&ops);
}

#[test]
fn v6_operations_stand_behind_the_sets_before_them() {
    let ids = ids();
    let mut combiner = Combiner::new(HOT);
    combiner.adjust_gauge_at(HOT, 1, 3.0);
    combiner.set_gauge_at(HOT, 1, 10.0, 10, 5, 1);
    combiner.adjust_gauge_at(HOT, 1, 2.0);
    // An older set changes neither the value nor what moved it.
    combiner.set_gauge_at(HOT, 1, 99.0, 99, 4, 1);
    combiner.adjust_gauge_at(Slice(1001), 2, 1.5);
    assert!(combiner.has_adjusted());
    let mut seen = Vec::new();
    encode(&mut combiner, &ids, &mut |_, slot, sum| {
        seen.push((slot.0, sum.count, sum.last, sum.adjust));
        GaugeSum { count: 1, adjust: None, ..sum }
    });
    assert_eq!(seen, [(1, 2, 10.0, Some(2.0)), (2, 0, 0.0, Some(1.5))]);
    assert!(!combiner.has_adjusted());
}

#[test]
fn s1_slots_without_an_id_are_named_whatever_they_hold() {
    let mut combiner = Combiner::new(HOT);
    combiner.add_whole(3, 0);
    combiner.add_whole_at(HOT, 4, 1);
    combiner.add_whole_at(HOT, 5, i128::MAX / 4);
    combiner.set_gauge(7, 1.0, 1, 1, 1);
    combiner.adjust_gauge(8, 0.0);
    combiner.add_value(9, 1, 1);
    combiner.add_wide(10, Digits::Three, 1, 1, WEIGHT_ONE);
    combiner.add_member(11, 5);
    combiner.add_member_at(Slice(1), 12, 5);
    let slots: Vec<(Kind, u32)> = combiner.unknown_slots(&IdMap::new()).into_iter().map(|(k, s)| (k, s.0)).collect();
    let expected = [
        (Kind::Counter, 3),
        (Kind::Counter, 4),
        (Kind::Counter, 5),
        (Kind::Gauge, 7),
        (Kind::Gauge, 8),
        (Kind::Distribution, 9),
        (Kind::Distribution, 10),
        (Kind::Set, 11),
        (Kind::Set, 12),
    ];
    assert_eq!(slots, expected);
}
