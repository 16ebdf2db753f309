//! One metric in one slice, decoded: what the parts of the slice hold of its series, by id.
//!
//! In: parts. Out: rows by series. Owns: the decoded values. Invariants: ids ascend; counters and gauges have one row a
//! series, because they merge for nothing; distributions and sets keep one a part, since merging sketches costs more
//! than visiting two rows; a column knows where the series of its metric stand in it, so that one is searched for once
//! and not in each slice again (half of what a thousand expressions over 100,000 series and 30 slices cost).

use crate::delta::BucketRule;
use crate::delta::part::{Corrupt, DistributionRow, PartCursor, RowValue, Scratch};
use crate::event::{Buckets, Kind, SeriesId, Slice, WEIGHT_ONE};
use crate::query::data::{DistributionSlice, GaugeRow, Need};
use crate::sketch::{Digits, Distinct};
use std::ops::Range;
use std::sync::Arc;

/// One metric in one slice.
pub(super) struct Column {
    slice: Slice,
    ids: Vec<SeriesId>,
    values: Values,
    /// The list of series that the two below are about; 0 for none.
    list: u64,
    /// So many series of the list stand at the same places here, each once.
    same: usize,
    /// By the place in the list the first place here plus one, 0 for a series without rows; empty where `same` or a
    /// search are as good.
    places: Vec<u32>,
}

/// A series by its place in the list of all of its metric.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) id: SeriesId,
    /// The number of the list: it stays while the list only grows at its end.
    pub(super) list: u64,
    pub(super) place: usize,
}

impl Found {
    /// A series that stands in no list.
    pub(super) fn unlisted(id: SeriesId) -> Found {
        Found { id, list: u64::MAX, place: 0 }
    }
}

enum Values {
    Counters(Vec<i128>),
    Gauges(Vec<GaugeRow>),
    Distributions { heads: Vec<Head>, lists: Lists },
    Sets(Vec<Distinct>),
}

/// A distribution's row without its lists, which stand there.
#[derive(Clone, Copy)]
pub(super) struct Head {
    digits: Digits,
    weighted: bool,
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
    cells: (u32, u32),
    below: (u32, u32),
}

/// Lists of many distributions, one after another.
#[derive(Clone, Default)]
pub(super) struct Lists {
    cells: Vec<(i32, u64)>,
    below: Vec<(u16, u64)>,
}

impl Lists {
    /// Keeps a row.
    pub(super) fn push(&mut self, row: &DistributionRow<'_>) -> Head {
        let (from_cell, from_below) = (self.cells.len() as u32, self.below.len() as u32);
        self.cells.extend_from_slice(row.cells);
        self.below.extend_from_slice(row.below);
        Head {
            digits: row.digits,
            weighted: row.weighted,
            count: row.count,
            sum: row.sum,
            min: row.min,
            max: row.max,
            cells: (from_cell, self.cells.len() as u32),
            below: (from_below, self.below.len() as u32),
        }
    }

    /// The row that was kept.
    pub(super) fn row(&self, head: &Head) -> DistributionRow<'_> {
        DistributionRow {
            digits: head.digits,
            count: head.count,
            weighted: head.weighted,
            sum: head.sum,
            min: head.min,
            max: head.max,
            cells: &self.cells[head.cells.0 as usize..head.cells.1 as usize],
            below: &self.below[head.below.0 as usize..head.below.1 as usize],
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        (self.cells.capacity() + self.below.capacity()) * 16
    }
}

impl Column {
    fn new(slice: Slice, kind: Kind) -> Column {
        let values = match kind {
            Kind::Counter => Values::Counters(Vec::new()),
            Kind::Gauge => Values::Gauges(Vec::new()),
            Kind::Distribution => Values::Distributions { heads: Vec::new(), lists: Lists::default() },
            Kind::Set => Values::Sets(Vec::new()),
        };
        Column { slice, ids: Vec::new(), values, list: 0, same: 0, places: Vec::new() }
    }

    fn push(&mut self, id: SeriesId, value: RowValue<'_>) {
        match (&mut self.values, value) {
            (Values::Counters(sums), RowValue::Counter(sum)) => sums.push(sum.nanos),
            (Values::Gauges(rows), RowValue::Gauge(sum)) => rows.push(GaugeRow {
                slice: self.slice,
                last: sum.last,
                order: (sum.time, sum.position),
                min: sum.min,
                max: sum.max,
                sum: sum.sum,
                count: sum.count,
            }),
            (Values::Distributions { heads, lists }, RowValue::Distribution(row)) => heads.push(lists.push(&row)),
            (Values::Sets(sets), RowValue::Set(set)) => sets.push(set),
            // The id says the kind: a row of another is of no series that was asked for.
            _ => return,
        }
        self.ids.push(id);
    }

    /// Learns where the series of a list stand; `all` ascends.
    pub(super) fn align(&mut self, list: u64, all: &[SeriesId]) {
        self.list = list;
        self.same = self.ids.iter().zip(all).take_while(|(mine, known)| mine == known).count();
        if self.same > 0 && self.ids.get(self.same) == self.ids.get(self.same - 1) {
            self.same -= 1;
        }
        // A few rows that stand elsewhere, and few rows of many series, are found as fast by a search.
        if self.ids.len() - self.same <= all.len() / 64 || self.ids.len() < all.len() / 8 {
            return;
        }
        self.places = vec![0; all.len()];
        let mut at = 0;
        for (id, place) in all.iter().zip(&mut self.places) {
            at += self.ids[at..].iter().take_while(|mine| *mine < id).count();
            if self.ids.get(at) == Some(id) {
                *place = at as u32 + 1;
            }
        }
    }

    /// Brings rows of several parts into the order of ids.
    fn settle(&mut self) {
        let mut ids = std::mem::take(&mut self.ids);
        if !ids.is_sorted() {
            let mut order: Vec<u32> = (0..ids.len() as u32).collect();
            order.sort_by_key(|at| ids[*at as usize]);
            ids = order.iter().map(|at| ids[*at as usize]).collect();
            match &mut self.values {
                Values::Counters(sums) => *sums = order.iter().map(|at| sums[*at as usize]).collect(),
                Values::Gauges(rows) => *rows = order.iter().map(|at| rows[*at as usize]).collect(),
                Values::Distributions { heads, .. } => *heads = order.iter().map(|at| heads[*at as usize]).collect(),
                Values::Sets(sets) => *sets = order.iter().map(|at| sets[*at as usize].clone()).collect(),
            }
        }
        if ids.windows(2).all(|pair| pair[0] != pair[1]) {
            self.ids = ids;
            return;
        }
        let mut kept: Vec<SeriesId> = Vec::with_capacity(ids.len());
        match &mut self.values {
            Values::Counters(sums) => {
                let mut merged: Vec<i128> = Vec::with_capacity(sums.len());
                for (id, sum) in ids.iter().zip(sums.iter()) {
                    match merged.last_mut().filter(|_| kept.last() == Some(id)) {
                        Some(last) => *last += sum,
                        None => {
                            kept.push(*id);
                            merged.push(*sum);
                        }
                    }
                }
                (ids, *sums) = (kept, merged);
            }
            Values::Gauges(rows) => {
                let mut merged: Vec<GaugeRow> = Vec::with_capacity(rows.len());
                for (id, row) in ids.iter().zip(rows.iter()) {
                    match merged.last_mut().filter(|_| kept.last() == Some(id)) {
                        Some(last) => merge_gauges(last, row),
                        None => {
                            kept.push(*id);
                            merged.push(*row);
                        }
                    }
                }
                (ids, *rows) = (kept, merged);
            }
            Values::Distributions { .. } | Values::Sets(_) => {}
        }
        self.ids = ids;
    }

    #[inline]
    fn places(&self, found: Found) -> Range<usize> {
        let is_of_list = found.list == self.list;
        if is_of_list && found.place < self.same {
            return found.place..found.place + 1;
        }
        let from = match self.places.get(found.place).filter(|_| is_of_list) {
            Some(0) => return 0..0,
            Some(place) => *place as usize - 1,
            None => self.ids.partition_point(|known| *known < found.id),
        };
        from..from + self.ids[from..].iter().take_while(|known| **known == found.id).count()
    }

    /// The increment of a counter, 0 without one.
    pub(super) fn counter(&self, found: Found) -> i128 {
        match &self.values {
            Values::Counters(sums) => sums[self.places(found)].iter().sum(),
            _ => 0,
        }
    }

    fn distributions(&self, found: Found) -> impl Iterator<Item = DistributionRow<'_>> {
        let places = self.places(found);
        let (heads, lists) = match &self.values {
            Values::Distributions { heads, lists } => (&heads[places], Some(lists)),
            _ => (&[][..], None),
        };
        heads.iter().filter_map(move |head| Some(lists?.row(head)))
    }

    /// The members of a set.
    pub(super) fn sets(&self, found: Found) -> impl Iterator<Item = (Slice, &Distinct)> {
        let places = self.places(found);
        let sets = match &self.values {
            Values::Sets(sets) => &sets[places],
            _ => &[],
        };
        sets.iter().map(|set| (self.slice, set))
    }

    /// True when a series has a row here.
    pub(super) fn has(&self, found: Found) -> bool {
        !self.places(found).is_empty()
    }

    /// Takes what this slice added out of totals, so that they stand as before it.
    pub(super) fn take_from(&self, found: Found, buckets: Option<&Arc<Buckets>>, totals: &mut TotalsBuffer) {
        self.change(found, buckets, totals, -1, u128::saturating_sub);
    }

    /// Adds what this slice added to totals that lack it.
    pub(super) fn add_to(&self, found: Found, buckets: Option<&Arc<Buckets>>, totals: &mut TotalsBuffer) {
        self.change(found, buckets, totals, 1, u128::saturating_add);
    }

    fn change(
        &self,
        found: Found,
        buckets: Option<&Arc<Buckets>>,
        totals: &mut TotalsBuffer,
        sign: i128,
        changed: impl Fn(u128, u128) -> u128,
    ) {
        for row in self.distributions(found) {
            totals.change(&row, buckets, sign, &changed);
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Counters(sums) => sums.capacity() * size_of::<i128>(),
            Values::Gauges(rows) => rows.capacity() * size_of::<GaugeRow>(),
            Values::Distributions { heads, lists } => heads.capacity() * size_of::<Head>() + lists.heap_bytes(),
            // A dense one has 4 KiB of registers; most are small.
            Values::Sets(sets) => sets.capacity() * (size_of::<Distinct>() + 512),
        };
        self.ids.capacity() * size_of::<SeriesId>() + self.places.capacity() * 4 + values + size_of::<Column>()
    }
}

/// Merges the sets of two rows of one slice (V6).
pub(super) fn merge_gauges(into: &mut GaugeRow, other: &GaugeRow) {
    if other.count == 0 {
        return;
    }
    if into.count == 0 || into.order < other.order {
        (into.last, into.order) = (other.last, other.order);
    }
    (into.min, into.max) = (into.min.min(other.min), into.max.max(other.max));
    (into.sum, into.count) = (into.sum + other.sum, into.count + other.count);
}

/// One pass over the parts of a slice, for several metrics.
pub(super) struct Decoding {
    /// Place in `columns`, plus one, by series id.
    wanted: Vec<u16>,
    columns: Vec<Column>,
    scratch: Scratch,
}

impl Decoding {
    /// Metrics by their kind and the ids of their series.
    pub(super) fn new<I: Iterator<Item = SeriesId>>(
        slice: Slice,
        metrics: impl Iterator<Item = (Kind, I)>,
    ) -> Decoding {
        let mut wanted: Vec<u16> = Vec::new();
        let mut columns = Vec::new();
        for (kind, ids) in metrics {
            columns.push(Column::new(slice, kind));
            let place = u16::try_from(columns.len()).expect("one question names fewer metrics than 65,535");
            for id in ids {
                let at = id.0 as usize;
                if wanted.len() <= at {
                    wanted.resize(at + 1, 0);
                }
                wanted[at] = place;
            }
        }
        Decoding { wanted, columns, scratch: Scratch::default() }
    }

    /// Takes the wanted rows of a part.
    pub(super) fn add(&mut self, part: &[u8]) -> Result<(), Corrupt> {
        let mut cursor = PartCursor::new(part)?;
        while let Some(row) = cursor.next(&mut self.scratch)? {
            let place = self.wanted.get(row.id.0 as usize).copied().unwrap_or(0);
            if let Some(column) = usize::from(place).checked_sub(1).and_then(|at| self.columns.get_mut(at)) {
                column.push(row.id, row.value);
            }
        }
        Ok(())
    }

    /// The columns in the order of the metrics.
    pub(super) fn finish(mut self) -> Vec<Column> {
        self.columns.iter_mut().for_each(Column::settle);
        self.columns
    }
}

/// Memory of rows between series.
#[derive(Default)]
pub(super) struct RowBuffers {
    pub(super) increments: Vec<(Slice, i128)>,
    pub(super) gauges: Vec<GaugeRow>,
}

impl RowBuffers {
    /// The increments of a counter in these slices.
    pub(super) fn counters(&mut self, columns: &[&Column], found: Found, need: Need) {
        self.increments.clear();
        if !need.rows {
            return;
        }
        for column in columns {
            if let Values::Counters(sums) = &column.values {
                self.increments.extend(sums[column.places(found)].iter().map(|sum| (column.slice, *sum)));
            }
        }
    }

    /// The sets of a gauge in these slices, and one more that is not durable yet.
    pub(super) fn gauges(&mut self, columns: &[&Column], found: Found, recorded: Option<GaugeRow>) {
        self.gauges.clear();
        for column in columns {
            if let Values::Gauges(rows) = &column.values {
                self.gauges.extend_from_slice(&rows[column.places(found)]);
            }
        }
        if let Some(row) = recorded {
            let at = self.gauges.partition_point(|known| known.slice <= row.slice);
            self.gauges.insert(at, row);
        }
    }
}

/// The rows of a distribution in these slices.
pub(super) fn distribution_rows<'c>(columns: &[&'c Column], found: Found, need: Need) -> Vec<DistributionSlice<'c>> {
    if !need.rows {
        return Vec::new();
    }
    columns
        .iter()
        .flat_map(|column| {
            column.distributions(found).map(|row| DistributionSlice {
                slice: column.slice,
                row,
                late: None,
                clamped: None,
            })
        })
        .collect()
}

/// Totals of a distribution while later slices are taken out, × 4096.
pub(super) struct TotalsBuffer {
    pub(super) weight: u128,
    pub(super) sum: i128,
    pub(super) buckets: Vec<u128>,
}

impl TotalsBuffer {
    pub(super) fn new(weight: u128, sum: i128, buckets: &[u128]) -> TotalsBuffer {
        TotalsBuffer { weight, sum, buckets: buckets.to_vec() }
    }

    /// Takes a later row out.
    pub(super) fn take(&mut self, row: &DistributionRow<'_>, buckets: Option<&Arc<Buckets>>) {
        self.change(row, buckets, -1, &u128::saturating_sub);
    }

    fn change(
        &mut self,
        row: &DistributionRow<'_>,
        buckets: Option<&Arc<Buckets>>,
        sign: i128,
        changed: &impl Fn(u128, u128) -> u128,
    ) {
        let factor = if row.weighted { 1 } else { u128::from(WEIGHT_ONE) };
        let weight = match row.weighted {
            true => row.cells.iter().map(|(_, count)| u128::from(*count)).sum(),
            false => u128::from(row.count) * factor,
        };
        self.weight = changed(self.weight, weight);
        self.sum += sign * row.sum * factor as i128;
        let Some(buckets) = buckets else { return };
        let rule = BucketRule::new(Arc::clone(buckets), row.digits);
        for (bound, total) in self.buckets.iter_mut().enumerate() {
            let whole = row.cells.iter().filter(|(cell, _)| rule.covers(bound, *cell) == Some(true));
            let whole: u128 = whole.map(|(_, count)| u128::from(*count)).sum();
            let straddling = row.below.iter().find(|(at, _)| usize::from(*at) == bound);
            let straddling = straddling.map_or(0, |(_, count)| u128::from(*count));
            *total = changed(*total, (whole + straddling) * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_series_is_found_where_it_stands_whatever_the_list(
            rows in proptest::collection::vec((0u32..400, 1usize..3), 0..300),
            all in proptest::collection::btree_set(0u32..400, 0..400),
            later in proptest::collection::btree_set(400u32..500, 0..20),
            keeps_first in 0usize..400,
        ) {
            // Rows of the list's own beginning are the usual case.
            let mut all: Vec<SeriesId> = all.into_iter().map(SeriesId).collect();
            let mut ids: Vec<SeriesId> = all.iter().copied().take(keeps_first).collect();
            let others = rows.iter().filter(|(id, _)| ids.last().is_none_or(|last| *id > last.0));
            let others: std::collections::BTreeMap<u32, usize> = others.copied().collect();
            ids.extend(others.iter().flat_map(|(id, count)| std::iter::repeat_n(SeriesId(*id), *count)));
            let mut column = Column::new(Slice(1), Kind::Counter);
            column.ids = ids.clone();
            column.align(7, &all);
            // The list grows at its end and keeps its number; another list has another.
            all.extend(later.into_iter().map(SeriesId));
            for (place, id) in all.iter().enumerate() {
                let expected: Vec<usize> = (0..ids.len()).filter(|at| ids[*at] == *id).collect();
                for list in [7, 8] {
                    let found = column.places(Found { id: *id, list, place });
                    prop_assert_eq!(found.collect::<Vec<_>>(), expected.clone(), "{:?} in list {}", id, list);
                }
            }
        }
    }
}
