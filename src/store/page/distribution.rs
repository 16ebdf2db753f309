//! Heads of distributions: everything of a row but its cells.
//!
//! In: rows of one series in slot order. Out: columns, and the heads again. Invariant: of a lone sample only its value
//! is stored.
//!
//! ```text
//! heads = mean:zigzag flags:u8 form:column count:column min:column
//!         and of rows that are not a lone sample: max - min:column, sum - count · mean:wide column
//! form  = digits | weighted << 2
//! flags = 1 where rows of one unweighted sample have a maximum or sum of their own, so that they are not lone
//! ```

use super::cells::RowHead;
use super::column::{self, Heads};
use super::ints::Source;
use super::scalar::{Out, ScalarScratch};
use crate::delta::part::{Corrupt, DistributionRow};
use crate::delta::varint::put_i64;
use crate::sketch::Digits;

/// The head of one row.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) slot: u16,
    pub(super) weighted: bool,
    pub(super) sum: i128,
    pub(super) row: RowHead,
}

impl Head {
    pub(super) fn of(slot: u16, row: &DistributionRow<'_>) -> Head {
        let DistributionRow { digits, count, weighted, sum, min, max, .. } = *row;
        Head { slot, weighted, sum, row: RowHead { digits, count, min, max } }
    }

    fn is_single(&self) -> bool {
        self.row.count == 1 && !self.weighted
    }

    fn is_lone(&self) -> bool {
        self.row.min == self.row.max && self.sum == i128::from(self.row.min)
    }
}

/// Writes the heads of a series.
pub(super) fn write(heads: &[Head], scratch: &mut ScalarScratch, out: &mut Out<'_>) {
    let is_odd = heads.iter().any(|head| head.is_single() && !head.is_lone());
    let rest = || heads.iter().filter(|head| is_odd || !head.is_single());
    let samples: u128 = rest().map(|head| u128::from(head.row.count)).sum();
    let sum = rest().fold(0i128, |sum, head| sum.saturating_add(head.sum));
    let mean = i64::try_from(sum / (samples as i128).max(1)).unwrap_or(0);
    put_i64(out.heads, mean);
    out.heads.push(u8::from(is_odd));
    let ScalarScratch { columns, whole, wide, .. } = scratch;
    let form = |head: &Head| i64::from(head.weighted) << 2 | head.row.digits as i64;
    let mut column = |values: &mut dyn Iterator<Item = i64>| {
        whole.clear();
        whole.extend(values);
        out.column(whole, columns);
    };
    column(&mut heads.iter().map(form));
    column(&mut heads.iter().map(|head| head.row.count as i64));
    column(&mut heads.iter().map(|head| head.row.min));
    column(&mut rest().map(|head| head.row.max.wrapping_sub(head.row.min)));
    wide.clear();
    wide.extend(rest().map(|head| head.sum.wrapping_sub(i128::from(mean) * i128::from(head.row.count))));
    if !wide.is_empty() {
        out.wide(wide, columns);
    }
}

/// Buffers of a reader of heads.
#[derive(Default)]
pub(super) struct HeadColumns {
    forms: Vec<i64>,
    counts: Vec<i64>,
    mins: Vec<i64>,
    spans: Vec<i64>,
    sums: Vec<i64>,
    wide: Vec<i128>,
}

#[cfg(test)]
impl HeadColumns {
    /// Bytes that its vectors have taken.
    pub(super) fn bytes(&self) -> usize {
        let HeadColumns { forms, counts, mins, spans, sums, wide } = self;
        [forms, counts, mins, spans, sums].map(Vec::capacity).iter().sum::<usize>() * 8 + wide.capacity() * 16
    }
}

/// Reads the heads of a series and appends them to `out`.
pub(super) fn read(
    slots: &[u16],
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    columns: &mut HeadColumns,
    out: &mut Vec<Head>,
) -> Result<(), Corrupt> {
    let mean = heads.i64()?;
    let is_odd = match heads.byte()? {
        0 => false,
        1 => true,
        _ => return Err(heads.corrupt()),
    };
    let HeadColumns { forms, counts, mins, spans, sums, wide } = columns;
    column::read(slots.len(), heads, source, forms)?;
    column::read(slots.len(), heads, source, counts)?;
    column::read(slots.len(), heads, source, mins)?;
    let is_single = |at: usize| !is_odd && counts[at] == 1 && forms[at] & 4 == 0;
    let rest = (0..slots.len()).filter(|at| !is_single(*at)).count();
    column::read(rest, heads, source, spans)?;
    let is_narrow = rest == 0 || column::read_wide(rest, heads, source, sums, wide)?;
    out.reserve(slots.len());
    let mut at_rest = 0;
    for (at, slot) in slots.iter().enumerate() {
        let form = forms[at];
        let digits = Digits::from_u8((form & 3) as u8).filter(|_| (0..8).contains(&form)).ok_or(heads.corrupt())?;
        let (count, min) = (counts[at] as u64, mins[at]);
        if count == 0 {
            return Err(heads.corrupt());
        }
        let (mut max, mut sum) = (min, i128::from(min));
        if !is_single(at) {
            max = min.wrapping_add(spans[at_rest]);
            let off = if is_narrow { i128::from(sums[at_rest]) } else { wide[at_rest] };
            sum = off.wrapping_add(i128::from(mean) * i128::from(count));
            at_rest += 1;
        }
        out.push(Head { slot: *slot, weighted: form & 4 != 0, sum, row: RowHead { digits, count, min, max } });
    }
    Ok(())
}
