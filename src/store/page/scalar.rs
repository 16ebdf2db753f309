//! Counters and gauges of one series: rows to columns and back.
//!
//! In: rows in slot order. Out: heads and tokens, and the rows again. Invariant: what follows from something else costs
//! nothing: the minimum, maximum and sum of a single set from its value, its time from the line that the series of one
//! scrape share, its position from its time.
//!
//! ```text
//! counter = 0 nanos / 10^9:wide column | 1 nanos:wide column | 2 relation nanos / 10^9:column
//! gauge   = form:u8 [q:varint] flags:u8 line:varint [relation] last:column [times: difference from the line:column] position:column
//!           [several: count:column, and of rows with count ≠ 1: last - min:column, max - last:column]
//!           [sums: sum - count · round(last · 10^scale):wide column]
//! form    = the form of last, min and max | the scale of the sum << 4
//! flags   = 1 times | 2 several | 4 sums | 8 positions are those less the time | 16 related
//! ```

use super::column::{self, ColumnScratch, Heads};
use super::floats::{self, Form, POW10};
use super::ints::{Sink, Source};
use super::rans::Counts;
use super::relation::Neighbours;
use super::shared::{Shared, SharedReader};
use crate::delta::part::Corrupt;
use crate::delta::varint::put_u64;
use crate::delta::{CounterSum, GaugeSum};
use crate::event::UNITS_MAX;

/// Nanos of a whole unit of a counter (V1).
const NANO: i128 = 1_000_000_000;
/// Largest scale of a gauge's sum that is tried; what has another pays for its sums.
const SCALE_MAX: u8 = 15;
/// Rows that a scale is chosen by.
const SCALE_ROWS: usize = 4;

const TIMES: u8 = 1;
const SEVERAL: u8 = 2;
const SUMS: u8 = 4;
const FROM_TIME: u8 = 8;
const RELATED: u8 = 16;

/// Buffers of a writer or a reader.
#[derive(Default)]
pub(super) struct ScalarScratch {
    pub(super) columns: ColumnScratch,
    pub(super) whole: Vec<i64>,
    low: Vec<i64>,
    high: Vec<i64>,
    pub(super) wide: Vec<i128>,
    differences: Vec<i64>,
    /// The scale of the last gauge's sum, which is likely that of the next.
    scale: u8,
    /// The series of the block so far.
    pub(super) neighbours: Neighbours,
}

/// Where what is written goes.
pub(super) struct Out<'o> {
    pub(super) heads: &'o mut Vec<u8>,
    pub(super) sink: &'o mut Sink,
    pub(super) counts: &'o mut Counts,
}

impl Out<'_> {
    pub(super) fn column(&mut self, values: &[i64], scratch: &mut ColumnScratch) {
        column::write(values, scratch, self.heads, self.sink, self.counts);
    }

    pub(super) fn wide(&mut self, values: &[i128], scratch: &mut ColumnScratch) {
        column::write_wide(values, scratch, self.heads, self.sink, self.counts);
    }
}

/// Writes the increments of one counter.
pub(super) fn write_counters(pattern: usize, nanos: &[i128], scratch: &mut ScalarScratch, out: &mut Out<'_>) {
    // 64-bit division where it is enough: the wide one costs as much as all the rest.
    let to_whole = |nanos: i128| -> Option<i64> {
        match i64::try_from(nanos) {
            Ok(nanos) => {
                let whole = nanos / NANO as i64;
                (whole * NANO as i64 == nanos).then_some(whole)
            }
            Err(_) if nanos % NANO == 0 => i64::try_from(nanos / NANO).ok(),
            Err(_) => None,
        }
    };
    scratch.whole.clear();
    scratch.whole.extend(nanos.iter().map_while(|nanos| to_whole(*nanos)));
    if scratch.whole.len() == nanos.len() {
        let ScalarScratch { neighbours, whole, low, columns, .. } = scratch;
        match neighbours.relation(pattern, Form::WHOLE, whole) {
            Some(relation) => {
                out.heads.push(2);
                relation.write(out.heads);
                neighbours.differences(&relation, Form::WHOLE, whole, low);
                out.column(low, columns);
            }
            None => {
                out.heads.extend([0, 0]);
                out.column(whole, columns);
            }
        }
        neighbours.add(pattern, Form::WHOLE, whole);
    } else {
        scratch.neighbours.add(pattern, Form::WHOLE, &[]);
        out.heads.push(1);
        out.wide(nanos, &mut scratch.columns);
    }
}

/// Buffers that rows are read into.
#[derive(Default)]
pub(super) struct ScalarColumns {
    main: Vec<i64>,
    /// The series of the block so far.
    pub(super) neighbours: Neighbours,
    wide: Vec<i128>,
    times: Vec<i64>,
    positions: Vec<i64>,
    counts: Vec<i64>,
    lows: Vec<i64>,
    highs: Vec<i64>,
    sums: Vec<i64>,
}

/// A counter's rows, as read.
pub(super) struct CounterRows<'c> {
    columns: &'c ScalarColumns,
    is_narrow: bool,
    unit: i128,
}

impl CounterRows<'_> {
    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> CounterSum {
        let value = if self.is_narrow { i128::from(self.columns.main[at]) } else { self.columns.wide[at] };
        CounterSum { nanos: value.wrapping_mul(self.unit) }
    }
}

/// Reads the increments of one counter.
pub(super) fn read_counters<'c>(
    pattern: usize,
    count: usize,
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    columns: &'c mut ScalarColumns,
) -> Result<CounterRows<'c>, Corrupt> {
    let unit = match heads.byte()? {
        0 => NANO,
        1 => 1,
        2 => {
            let relation = columns.neighbours.read_relation(pattern, heads)?;
            column::read(count, heads, source, &mut columns.main)?;
            columns.neighbours.restore(&relation, Form::WHOLE, &mut columns.main);
            columns.neighbours.add(pattern, Form::WHOLE, &columns.main);
            return Ok(CounterRows { columns, is_narrow: true, unit: NANO });
        }
        _ => return Err(heads.corrupt()),
    };
    let is_narrow = column::read_wide(count, heads, source, &mut columns.main, &mut columns.wide)?;
    let is_neighbour = is_narrow && unit == NANO;
    columns.neighbours.add(pattern, Form::WHOLE, if is_neighbour { &columns.main } else { &[] });
    Ok(CounterRows { columns, is_narrow, unit })
}

/// The sum that a value of a gauge has when it was set `count` times.
#[inline(always)]
fn expected_sum(last: f64, count: u64, scale: u8) -> i128 {
    let units = floats::round(last * POW10[usize::from(scale)]).clamp(-UNITS_MAX, UNITS_MAX);
    if count == 1 { i128::from(units) } else { i128::from(units).wrapping_mul(i128::from(count)) }
}

/// Scale units of a value whose sum is close to what it is.
fn scale_of(rows: &[GaugeSum], guess: u8) -> u8 {
    let rows = &rows[..rows.len().min(SCALE_ROWS)];
    let off = |scale: u8| -> u32 {
        let bits = |row: &GaugeSum| {
            let off = row.sum.wrapping_sub(expected_sum(row.last, row.count, scale));
            128 - off.unsigned_abs().leading_zeros()
        };
        rows.iter().map(bits).sum()
    };
    if off(guess) == 0 {
        return guess;
    }
    (0..=SCALE_MAX).min_by_key(|scale| off(*scale)).expect("scales")
}

/// Writes the sets of one gauge.
pub(super) fn write_gauges(
    pattern: usize,
    slots: &[u16],
    rows: &[GaugeSum],
    shared: &mut Shared,
    scratch: &mut ScalarScratch,
    out: &mut Out<'_>,
) {
    let is_several = rows.iter().any(|row| row.count != 1);
    let several = || rows.iter().filter(|row| row.count != 1);
    let all = rows.iter().map(|row| row.last).chain(several().flat_map(|row| [row.min, row.max]));
    let form = Form::of(all);
    let scale = scale_of(rows, scratch.scale);
    scratch.scale = scale;

    let ScalarScratch { columns, whole, low, high, wide, differences, neighbours, .. } = scratch;
    differences.clear();
    whole.clear();
    whole.extend(rows.iter().map(|row| row.time));
    let (line, is_exact) = shared.line(slots, whole, differences);
    let first = &rows[0];
    let offset = first.position.wrapping_sub(first.time as u64);
    let is_from_time = first.position >> 32 != 0
        && rows.iter().filter(|row| row.position.wrapping_sub(row.time as u64) == offset).count() * 4 > rows.len()
        || rows.iter().all(|row| row.position.wrapping_sub(row.time as u64) < 1 << 32);
    wide.clear();
    wide.extend(rows.iter().map(|row| row.sum.wrapping_sub(expected_sum(row.last, row.count, scale))));
    let has_sums = wide.iter().any(|off| *off != 0);

    whole.clear();
    whole.extend(rows.iter().map(|row| form.whole(row.last)));
    let relation = neighbours.relation(pattern, form, whole);
    let mut flags = if is_exact { 0 } else { TIMES };
    flags |= if relation.is_some() { RELATED } else { 0 };
    flags |= if is_several { SEVERAL } else { 0 };
    flags |= if has_sums { SUMS } else { 0 };
    flags |= if is_from_time { FROM_TIME } else { 0 };
    out.heads.extend([form.byte() | scale << 4, flags]);
    form.write_rest(out.heads);
    put_u64(out.heads, line as u64);
    match relation {
        Some(relation) => {
            relation.write(out.heads);
            neighbours.differences(&relation, form, whole, low);
            out.column(low, columns);
        }
        None => out.column(whole, columns),
    }
    neighbours.add(pattern, form, whole);
    if !is_exact {
        out.column(differences, columns);
    }
    whole.clear();
    let position = |row: &GaugeSum| row.position.wrapping_sub(if is_from_time { row.time as u64 } else { 0 }) as i64;
    whole.extend(rows.iter().map(position));
    out.column(whole, columns);
    if is_several {
        whole.clear();
        whole.extend(rows.iter().map(|row| row.count as i64));
        out.column(whole, columns);
        low.clear();
        high.clear();
        for row in several() {
            let last = form.whole(row.last);
            low.push(last.wrapping_sub(form.whole(row.min)));
            high.push(form.whole(row.max).wrapping_sub(last));
        }
        out.column(low, columns);
        out.column(high, columns);
    }
    if has_sums {
        out.wide(wide, columns);
    }
}

/// A gauge's rows, as read.
pub(super) struct GaugeRows<'c> {
    columns: &'c ScalarColumns,
    shared: &'c SharedReader,
    form: Form,
    scale: u8,
    flags: u8,
    sums_are_narrow: bool,
    /// Rows with several sets that were given out.
    several: usize,
}

impl GaugeRows<'_> {
    /// A row; they must be asked for in order, each once.
    #[inline(always)]
    pub(super) fn next(&mut self, at: usize) -> (u16, GaugeSum) {
        let columns = self.columns;
        let slot = self.shared.slots()[at];
        let whole = columns.main[at];
        let last = self.form.value(whole);
        let mut time = self.shared.time(slot);
        if self.flags & TIMES != 0 {
            time = time.wrapping_add(columns.times[at]);
        }
        let from = if self.flags & FROM_TIME != 0 { time as u64 } else { 0 };
        let position = (columns.positions[at] as u64).wrapping_add(from);
        let (mut count, mut min, mut max) = (1, last, last);
        if self.flags & SEVERAL != 0 {
            count = columns.counts[at] as u64;
            if count != 1 {
                min = self.form.value(whole.wrapping_sub(columns.lows[self.several]));
                max = self.form.value(whole.wrapping_add(columns.highs[self.several]));
                self.several += 1;
            }
        }
        let mut sum = expected_sum(last, count, self.scale);
        if self.flags & SUMS != 0 {
            let off = if self.sums_are_narrow { i128::from(columns.sums[at]) } else { columns.wide[at] };
            sum = sum.wrapping_add(off);
        }
        (slot, GaugeSum { count, last, time, position, min, max, sum, adjust: None })
    }

    /// Leaves out the first rows.
    pub(super) fn skip(&mut self, rows: usize) {
        if self.flags & SEVERAL != 0 {
            self.several = self.columns.counts[..rows].iter().filter(|count| **count != 1).count();
        }
    }
}

/// Reads the sets of one gauge; `shared` stands at its pattern. The times are decoded only when `is_wanted`.
pub(super) fn read_gauges<'c>(
    pattern: usize,
    is_wanted: bool,
    lines: &[u8],
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    columns: &'c mut ScalarColumns,
    shared: &'c mut SharedReader,
) -> Result<GaugeRows<'c>, Corrupt> {
    let count = shared.slots().len();
    let (first, flags) = (heads.byte()?, heads.byte()?);
    if flags >= 32 {
        return Err(heads.corrupt());
    }
    let form = Form::read(first & 15, heads)?;
    let line = heads.below(shared.lines())?;
    let relation = match flags & RELATED {
        0 => None,
        _ => Some(columns.neighbours.read_relation(pattern, heads)?),
    };
    column::read(count, heads, source, &mut columns.main)?;
    if let Some(relation) = relation {
        columns.neighbours.restore(&relation, form, &mut columns.main);
    }
    columns.neighbours.add(pattern, form, &columns.main);
    if flags & TIMES != 0 {
        column::read(count, heads, source, &mut columns.times)?;
    }
    column::read(count, heads, source, &mut columns.positions)?;
    if flags & SEVERAL != 0 {
        column::read(count, heads, source, &mut columns.counts)?;
        let several = columns.counts.iter().filter(|count| **count != 1).count();
        column::read(several, heads, source, &mut columns.lows)?;
        column::read(several, heads, source, &mut columns.highs)?;
    }
    let sums_are_narrow = match flags & SUMS {
        0 => true,
        _ => column::read_wide(count, heads, source, &mut columns.sums, &mut columns.wide)?,
    };
    if is_wanted {
        shared.use_line(lines, line, source.tokens.tables())?;
    }
    Ok(GaugeRows { columns, shared, form, scale: first >> 4, flags, sums_are_narrow, several: 0 })
}
