//! Merging the rows of one series: exact, in any order (V1, V2).
//!
//! In: decoded rows of one (kind, id). Out: one row. Owns: two buffers of cells, reused over series.
//! Invariant: every addition is checked; what does not fit is an error, never a wrong number.

use super::error::{Fault, corrupt};
use crate::delta::part::{DistributionRow, PartCursor, PartWriter, RowValue, Scratch};
use crate::delta::{CounterSum, GaugeSum};
use crate::event::{Kind, SeriesId, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, layout};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The sum of the rows added since [`begin`](Self::begin).
pub(super) struct Merged {
    value: Value,
    cells: Vec<(i32, u64)>,
    below: Vec<(u16, u64)>,
    spare: Vec<(i32, u64)>,
}

enum Value {
    Counter(CounterSum),
    Gauge(GaugeSum),
    Distribution(Head),
    Set(Distinct),
}

/// A distribution without its cells.
struct Head {
    digits: Digits,
    weighted: bool,
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged::new()
    }
}

impl Merged {
    pub(super) fn new() -> Merged {
        let value = Value::Counter(CounterSum::default());
        Merged { value, cells: Vec::new(), below: Vec::new(), spare: Vec::new() }
    }

    /// Forgets what there is and takes the first row.
    pub(super) fn begin(&mut self, row: &RowValue<'_>) -> Result<(), Fault> {
        self.value = match row {
            RowValue::Counter(sum) => Value::Counter(*sum),
            RowValue::Gauge(sum) => Value::Gauge(sum.clone()),
            RowValue::Set(distinct) => Value::Set(distinct.clone()),
            RowValue::Distribution(row) => {
                self.cells.clear();
                self.cells.extend_from_slice(row.cells);
                self.below.clear();
                self.below.extend_from_slice(row.below);
                let DistributionRow { digits, count, weighted, sum, min, max, .. } = *row;
                Value::Distribution(Head { digits, weighted, count, sum, min, max })
            }
        };
        Ok(())
    }

    /// Adds a row of the same series.
    pub(super) fn add(&mut self, row: &RowValue<'_>) -> Result<(), Fault> {
        let too_large = || corrupt("a sum does not fit its field");
        match (&mut self.value, row) {
            (Value::Counter(mine), RowValue::Counter(other)) => {
                mine.nanos = mine.nanos.checked_add(other.nanos).ok_or_else(too_large)?;
            }
            (Value::Gauge(mine), RowValue::Gauge(other)) => {
                if mine.count.checked_add(other.count).is_none() || mine.sum.checked_add(other.sum).is_none() {
                    return Err(too_large());
                }
                mine.merge(other);
            }
            (Value::Set(mine), RowValue::Set(other)) => mine.merge(other),
            (Value::Distribution(_), RowValue::Distribution(other)) => {
                self.add_distribution(other).ok_or_else(too_large)?;
            }
            _ => return Err(corrupt("two kinds under one id")),
        }
        Ok(())
    }

    fn add_distribution(&mut self, other: &DistributionRow<'_>) -> Option<()> {
        let Value::Distribution(mine) = &mut self.value else { return None };
        if other.weighted && !mine.weighted {
            mine.weighted = true;
            mine.sum = mine.sum.checked_mul(i128::from(WEIGHT_ONE))?;
            for count in self.cells.iter_mut().map(|c| &mut c.1).chain(self.below.iter_mut().map(|b| &mut b.1)) {
                *count = count.checked_mul(WEIGHT_ONE)?;
            }
        }
        if other.digits < mine.digits {
            coarsen(&mut self.cells, mine.digits, other.digits)?;
            mine.digits = other.digits;
        }
        let factor = if mine.weighted && !other.weighted { WEIGHT_ONE } else { 1 };
        mine.count = mine.count.checked_add(other.count)?;
        mine.sum = mine.sum.checked_add(other.sum.checked_mul(i128::from(factor))?)?;
        mine.min = mine.min.min(other.min);
        mine.max = mine.max.max(other.max);
        if other.digits > mine.digits {
            let mut cells = other.cells.to_vec();
            coarsen(&mut cells, other.digits, mine.digits)?;
            add_cells(&mut self.cells, &cells, factor, &mut self.spare)?;
        } else {
            add_cells(&mut self.cells, other.cells, factor, &mut self.spare)?;
        }
        for (bound, weight) in other.below {
            let weight = weight.checked_mul(factor)?;
            match self.below.binary_search_by_key(bound, |(b, _)| *b) {
                Ok(at) => self.below[at].1 = self.below[at].1.checked_add(weight)?,
                Err(at) => self.below.insert(at, (*bound, weight)),
            }
        }
        Some(())
    }

    /// The merged row.
    pub(super) fn value(&self) -> RowValue<'_> {
        match &self.value {
            Value::Counter(sum) => RowValue::Counter(*sum),
            Value::Gauge(sum) => RowValue::Gauge(sum.clone()),
            Value::Set(distinct) => RowValue::Set(distinct.clone()),
            Value::Distribution(head) => {
                let Head { digits, weighted, count, sum, min, max } = *head;
                let (cells, below) = (&self.cells, &self.below);
                RowValue::Distribution(DistributionRow { digits, count, weighted, sum, min, max, cells, below })
            }
        }
    }

    /// Writes the merged row.
    pub(super) fn write(&self, id: SeriesId, writer: &mut PartWriter) {
        match &self.value {
            Value::Counter(sum) => writer.counter(id, *sum),
            Value::Gauge(sum) => writer.gauge(id, sum),
            Value::Set(distinct) => writer.set(id, distinct),
            Value::Distribution(head) => {
                let Head { digits, weighted, count, sum, min, max } = *head;
                let row =
                    DistributionRow { digits, count, weighted, sum, min, max, cells: &self.cells, below: &self.below };
                writer.distribution(id, &row);
            }
        }
    }
}

/// `mine += other × factor`, both ascending.
fn add_cells(mine: &mut Vec<(i32, u64)>, other: &[(i32, u64)], factor: u64, spare: &mut Vec<(i32, u64)>) -> Option<()> {
    spare.clear();
    spare.reserve(mine.len() + other.len());
    let (mut a, mut b) = (mine.as_slice(), other);
    while let (Some((x, n)), Some((y, m))) = (a.first(), b.first()) {
        if x < y {
            spare.push((*x, *n));
            a = &a[1..];
        } else if y < x {
            spare.push((*y, m.checked_mul(factor)?));
            b = &b[1..];
        } else {
            spare.push((*x, n.checked_add(m.checked_mul(factor)?)?));
            (a, b) = (&a[1..], &b[1..]);
        }
    }
    spare.extend_from_slice(a);
    for (cell, count) in b {
        spare.push((*cell, count.checked_mul(factor)?));
    }
    std::mem::swap(mine, spare);
    Some(())
}

/// Layouts nest (V3): a finer cell lies in exactly one coarser cell, and the order stays.
fn coarsen(cells: &mut Vec<(i32, u64)>, from: Digits, to: Digits) -> Option<()> {
    let mut out: Vec<(i32, u64)> = Vec::with_capacity(cells.len());
    for (cell, count) in cells.iter() {
        let cell = layout::cell_of(to, layout::midpoint(from, *cell));
        match out.last_mut() {
            Some((last, sum)) if *last == cell => *sum = sum.checked_add(*count)?,
            _ => out.push((cell, *count)),
        }
    }
    *cells = out;
    Some(())
}

/// Merges whole parts into one, in memory: for what waits while nothing can be committed (C4).
pub(super) fn merge_parts(parts: &[&[u8]]) -> Result<(Vec<u8>, u64), Fault> {
    let mut rows: BTreeMap<(Kind, SeriesId), Merged> = BTreeMap::new();
    let mut scratch = Scratch::default();
    for part in parts {
        let mut cursor = PartCursor::new(part)?;
        while let Some(row) = cursor.next(&mut scratch)? {
            match rows.entry((row.value.kind(), row.id)) {
                Entry::Occupied(mut merged) => merged.get_mut().add(&row.value)?,
                Entry::Vacant(place) => place.insert(Merged::new()).begin(&row.value)?,
            }
        }
    }
    let mut writer = PartWriter::new(Vec::new());
    for ((_, id), merged) in &rows {
        merged.write(*id, &mut writer);
    }
    let rows = writer.rows();
    Ok((writer.finish(), rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::script::Rng;
    use std::collections::BTreeMap;

    struct Owned {
        digits: Digits,
        weighted: bool,
        values: Vec<i64>,
    }

    impl Owned {
        fn random(rng: &mut Rng) -> Owned {
            let digits = [Digits::One, Digits::Two, Digits::Three][rng.below(3) as usize];
            let magnitude = 1 + rng.below(60) as u32;
            let value = |rng: &mut Rng| (rng.next() as i64) >> (63 - magnitude).max(4);
            let values = (0..1 + rng.below(30)).map(|_| value(rng)).collect();
            Owned { digits, weighted: rng.below(2) == 0, values }
        }

        fn with<T>(&self, use_row: impl FnOnce(&RowValue<'_>) -> T) -> T {
            let factor = if self.weighted { WEIGHT_ONE } else { 1 };
            let cells = cells_of(&self.values, self.digits, factor);
            let below = [(self.values.len() as u16 % 3, factor)];
            use_row(&RowValue::Distribution(DistributionRow {
                digits: self.digits,
                count: self.values.len() as u64,
                weighted: self.weighted,
                sum: self.values.iter().map(|v| i128::from(*v)).sum::<i128>() * i128::from(factor),
                min: *self.values.iter().min().expect("not empty"),
                max: *self.values.iter().max().expect("not empty"),
                cells: &cells,
                below: &below,
            }))
        }
    }

    fn cells_of(values: &[i64], digits: Digits, factor: u64) -> Vec<(i32, u64)> {
        let mut cells = BTreeMap::new();
        values.iter().for_each(|value| *cells.entry(layout::cell_of(digits, *value)).or_insert(0) += factor);
        cells.into_iter().collect()
    }

    #[test]
    fn v1_v3_any_order_of_digits_and_weights_gives_what_the_values_give() {
        let mut rng = Rng(4);
        for _ in 0..300 {
            let mut rows: Vec<Owned> = (0..2 + rng.below(5)).map(|_| Owned::random(&mut rng)).collect();
            let mut written = Vec::new();
            for _ in 0..2 {
                let mut merged = Merged::new();
                rows[0].with(|row| merged.begin(row)).expect("fits");
                rows[1..].iter().for_each(|row| row.with(|row| merged.add(row)).expect("fits"));
                let mut writer = PartWriter::new(Vec::new());
                merged.write(SeriesId(1), &mut writer);
                written.push(writer.finish());
                let digits = rows.iter().map(|row| row.digits).min().expect("not empty");
                let weighted = rows.iter().any(|row| row.weighted);
                let factor = if weighted { WEIGHT_ONE } else { 1 };
                let all: Vec<i64> = rows.iter().flat_map(|row| row.values.clone()).collect();
                assert_eq!(merged.cells, cells_of(&all, digits, factor));
                let Value::Distribution(head) = &merged.value else { panic!("a distribution") };
                assert_eq!(head.sum, all.iter().map(|v| i128::from(*v)).sum::<i128>() * i128::from(factor));
                assert_eq!((head.count, head.weighted), (all.len() as u64, weighted));
                rows.reverse();
            }
            assert_eq!(written[0], written[1]);
        }
    }

    #[test]
    fn v3_a_count_that_does_not_fit_is_an_error() {
        let row = |count| RowValue::Counter(CounterSum { nanos: count });
        let mut merged = Merged::new();
        merged.begin(&row(i128::MAX)).expect("fits");
        assert!(merged.add(&row(1)).is_err());
        assert!(merged.add(&RowValue::Set(Distinct::default())).is_err(), "two kinds under one id");
    }
}
