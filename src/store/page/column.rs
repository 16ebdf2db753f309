//! One number per row of a series, all of one meaning: what predicts them, and what is left.
//!
//! In: i64 in row order. Out: a head of a few bytes, and what the prediction leaves through [`ints`](super::ints).
//! Invariants: a column of equal numbers is its head alone; every prediction wraps, so that no stored head makes
//! arithmetic fail.
//!
//! ```text
//! column = 0 value:zigzag                                  all equal
//!        | mode:u8 first:zigzag [factor:varint] [start:zigzag] scale:u8, then a token a row
//!        | 5 distinct:varint column column               the distinct numbers, ascending; per row which of them
//! mode   = predictor | 8 where a factor is stored
//! ```
//!
//! A number is first + factor · u. The predictors of u: 1 the one before, 2 `start`, 3 a running mean that begins at
//! `start` (the newest with weight ⅛), 4 the line through the two before. What is left is zigzag. With 1 and 4 the
//! first row is `first` and has no token.
//!
//! ```text
//! wide column = 0 column, where all fit i64 | 1 value:zigzag*      (128-bit, each a varint)
//! ```

use super::floats::gcd;
use super::ints::{Scale, Sink, Source};
use super::rans::Counts;
use crate::delta::part::Corrupt;
use crate::delta::varint::{put_i64, put_i128, put_u64, read_u64, read_u128, unzigzag, unzigzag_128};

const EQUAL: u8 = 0;
const BEFORE: u8 = 1;
const START: u8 = 2;
const MEAN: u8 = 3;
const LINE: u8 = 4;
const TABLE: u8 = 5;
/// A factor follows.
const FACTOR: u8 = 8;
/// Spans below this are predicted in all ways: a running mean needs six bits, a sum of 4,096 numbers twelve.
const NARROW: u64 = 1 << 48;
/// Numbers that tell the scale a column begins with.
const SCALE_ROWS: usize = 16;

/// log₂(number + 1) × 16 and a constant, roughly: what a number below 2⁶³ costs. The bits of a float are its logarithm.
#[inline(always)]
fn weight(number: u64) -> u64 {
    (number.wrapping_add(1) as i64 as f64).to_bits() >> 48
}

#[inline(always)]
fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)) as u64
}

/// A running mean with six bits behind the point.
#[derive(Clone, Copy)]
struct Mean(i64);

impl Mean {
    #[inline(always)]
    fn new(start: i64) -> Mean {
        Mean(start.wrapping_shl(6))
    }

    #[inline(always)]
    fn get(self) -> i64 {
        self.0.wrapping_add(32) >> 6
    }

    #[inline(always)]
    fn note(&mut self, value: i64) {
        self.0 = self.0.wrapping_add(value.wrapping_shl(6).wrapping_sub(self.0) >> 3);
    }
}

/// Rows below which a table of distinct numbers is not tried.
const TABLE_ROWS: usize = 48;
/// Rows that tell whether it is worth trying: so many of them are the same as another, and cost so many bits by
/// themselves.
const TABLE_PROBES: usize = 32;
const TABLE_REPEATS: usize = 8;
const TABLE_BITS: u32 = 6;

fn bits(difference: i64) -> u32 {
    64u32.wrapping_sub(difference.unsigned_abs().leading_zeros())
}

/// What a column costs as differences, in bits.
fn difference_bits(values: &[i64]) -> u32 {
    let differences = values.windows(2).map(|two| two[1].wrapping_sub(two[0]));
    let shift = differences.clone().fold(0, |all, difference| all | difference).trailing_zeros().min(63);
    differences.map(|difference| bits(difference >> shift) + 1).sum()
}

/// The distinct numbers and which of them stands in each row, where that is less than the numbers: ratios of small
/// numbers, for example, have 53 digits but few values.
fn table_of(values: &[i64]) -> Option<(Vec<i64>, Vec<i64>)> {
    if values.len() < TABLE_ROWS {
        return None;
    }
    let mut probes = [0; TABLE_PROBES];
    for (at, probe) in probes.iter_mut().enumerate() {
        *probe = values[at * values.len() / TABLE_PROBES];
    }
    if difference_bits(&probes) < TABLE_BITS * TABLE_PROBES as u32 {
        return None;
    }
    probes.sort_unstable();
    if probes.windows(2).filter(|two| two[0] == two[1]).count() < TABLE_REPEATS {
        return None;
    }
    let mut distinct = values.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let place = |value: &i64| distinct.binary_search(value).expect("it is one of them") as i64;
    let places: Vec<i64> = values.iter().map(place).collect();
    let cost = difference_bits(&distinct) + difference_bits(&places) + 128;
    (cost < difference_bits(values)).then_some((distinct, places))
}

/// Buffers of a writer of columns.
#[derive(Default)]
pub(super) struct ColumnScratch {
    units: Vec<i64>,
    narrow: Vec<i64>,
}

/// Writes a column; of none there is nothing.
pub(super) fn write(
    values: &[i64],
    scratch: &mut ColumnScratch,
    head: &mut Vec<u8>,
    sink: &mut Sink,
    counts: &mut Counts,
) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| *value == first) {
        head.push(EQUAL);
        return put_i64(head, first);
    }
    if let Some((distinct, places)) = table_of(values) {
        head.push(TABLE);
        put_u64(head, distinct.len() as u64);
        write_numbers(&distinct, scratch, head, sink, counts);
        return write_numbers(&places, scratch, head, sink, counts);
    }
    write_numbers(values, scratch, head, sink, counts);
}

/// Writes at least two numbers that are not all equal, one by one.
fn write_numbers(
    values: &[i64],
    scratch: &mut ColumnScratch,
    head: &mut Vec<u8>,
    sink: &mut Sink,
    counts: &mut Counts,
) {
    let first = values[0];
    let (low, high) = values.iter().fold((first, first), |(low, high), v| (low.min(*v), high.max(*v)));
    let is_narrow = high.checked_sub(low).is_some_and(|span| (span as u64) < NARROW);
    if !is_narrow {
        // Only differences are safe, and those wrap.
        let mut factor = 0;
        for pair in values.windows(2) {
            factor = gcd(factor, (pair[1].wrapping_sub(pair[0])).unsigned_abs());
            if factor == 1 {
                break;
            }
        }
        // A difference that wrapped is no multiple once it is taken back, but those of two are.
        let shift = factor.trailing_zeros().min(62);
        head.push(if shift > 0 { BEFORE | FACTOR } else { BEFORE });
        put_i64(head, first);
        if shift > 0 {
            put_u64(head, 1 << shift);
        }
        let number = |at: usize| zigzag(values[at].wrapping_sub(values[at - 1]) >> shift);
        return put_rows((1..values.len()).map(number), head, sink, counts);
    }

    // The powers of two first: a shift is a tenth of a division, and behind them there is rarely more.
    let all = values.iter().fold(0, |all, value| all | value.wrapping_sub(first));
    let shift = all.trailing_zeros();
    let mut odd = 0u64;
    for value in values {
        let distance = value.wrapping_sub(first).unsigned_abs() >> shift;
        if odd < 2 || !distance.is_multiple_of(odd) {
            odd = gcd(odd, distance);
            if odd == 1 {
                break;
            }
        }
    }
    let factor = odd << shift;
    let units = &mut scratch.units;
    units.clear();
    if odd > 1 {
        units.extend(values.iter().map(|value| value.wrapping_sub(first) / factor as i64));
    } else {
        units.extend(values.iter().map(|value| value.wrapping_sub(first) >> shift));
    }
    // A series that is often zero has its zero as the better middle.
    let zero = first.wrapping_neg() / factor as i64;
    let is_often_zero =
        first % factor as i64 == 0 && units.iter().filter(|unit| **unit == zero).count() > units.len() / 8;
    let sum: i64 = units.iter().fold(0i64, |sum, unit| sum.wrapping_add(*unit));
    let mean = sum / units.len() as i64;
    let start = if is_often_zero { zero } else { mean };

    let mut cost = [0u64; 4];
    let (mut before, mut before_that) = (0i64, 0i64);
    let mut running = Mean::new(mean);
    for &unit in units.iter() {
        cost[0] = cost[0].wrapping_add(weight(zigzag(unit.wrapping_sub(before))));
        cost[1] = cost[1].wrapping_add(weight(zigzag(unit.wrapping_sub(start))));
        cost[2] = cost[2].wrapping_add(weight(zigzag(unit.wrapping_sub(running.get()))));
        let line = before.wrapping_shl(1).wrapping_sub(before_that);
        cost[3] = cost[3].wrapping_add(weight(zigzag(unit.wrapping_sub(line))));
        running.note(unit);
        (before_that, before) = (before, unit);
    }
    let best = (0..4).min_by_key(|at| cost[*at]).expect("four");
    let predictor = [BEFORE, START, MEAN, LINE][best];
    head.push(if factor > 1 { predictor | FACTOR } else { predictor });
    put_i64(head, first);
    if factor > 1 {
        put_u64(head, factor);
    }
    match predictor {
        BEFORE => put_rows(units.windows(2).map(|two| zigzag(two[1].wrapping_sub(two[0]))), head, sink, counts),
        START => {
            put_i64(head, start);
            put_rows(units.iter().map(|unit| zigzag(unit.wrapping_sub(start))), head, sink, counts);
        }
        MEAN => {
            put_i64(head, mean);
            let mut running = Mean::new(mean);
            let number = |unit: &i64| {
                let number = zigzag(unit.wrapping_sub(running.get()));
                running.note(*unit);
                number
            };
            let all: Vec<u64> = units.iter().map(number).collect();
            put_rows(all.iter().copied(), head, sink, counts);
        }
        _ => {
            let (mut before, mut before_that) = (0i64, 0i64);
            let number = |unit: &i64| {
                let line = before.wrapping_shl(1).wrapping_sub(before_that);
                (before_that, before) = (before, *unit);
                zigzag(unit.wrapping_sub(line))
            };
            let all: Vec<u64> = units[1..].iter().map(number).collect();
            put_rows(all.iter().copied(), head, sink, counts);
        }
    }
}

fn put_rows(rows: impl Iterator<Item = u64> + Clone, head: &mut Vec<u8>, sink: &mut Sink, counts: &mut Counts) {
    let (mut bits, mut count) = (0u32, 0usize);
    for row in rows.clone().take(SCALE_ROWS) {
        bits = bits.wrapping_add(64u32.wrapping_sub(row.leading_zeros()));
        count += 1;
    }
    let byte = Scale::byte_for(bits, count);
    head.push(byte);
    let mut scale = Scale::from_byte(byte);
    for row in rows {
        sink.number(counts, &mut scale, row);
    }
}

/// Writes a column of 128-bit numbers.
pub(super) fn write_wide(
    values: &[i128],
    scratch: &mut ColumnScratch,
    head: &mut Vec<u8>,
    sink: &mut Sink,
    counts: &mut Counts,
) {
    let mut narrow = std::mem::take(&mut scratch.narrow);
    narrow.clear();
    narrow.extend(values.iter().map(|value| *value as i64));
    if narrow.iter().zip(values).all(|(narrow, value)| i128::from(*narrow) == *value) {
        head.push(0);
        write(&narrow, scratch, head, sink, counts);
    } else {
        head.push(1);
        values.iter().for_each(|value| put_i128(head, *value));
    }
    scratch.narrow = narrow;
}

/// The bytes in which heads lie.
pub(super) struct Heads<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Heads<'_> {
    pub(super) fn corrupt(&self) -> Corrupt {
        Corrupt { at: self.at }
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Corrupt> {
        let byte = *self.bytes.get(self.at).ok_or(self.corrupt())?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Corrupt> {
        read_u64(self.bytes, &mut self.at).ok_or(Corrupt { at: self.at })
    }

    pub(super) fn i64(&mut self) -> Result<i64, Corrupt> {
        self.u64().map(unzigzag)
    }

    pub(super) fn i128(&mut self) -> Result<i128, Corrupt> {
        read_u128(self.bytes, &mut self.at).map(unzigzag_128).ok_or(Corrupt { at: self.at })
    }

    pub(super) fn f64(&mut self) -> Result<f64, Corrupt> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(self.corrupt())?;
        self.at += 8;
        Ok(f64::from_le_bytes(*bytes))
    }

    /// A number that must be below `end`.
    pub(super) fn below(&mut self, end: usize) -> Result<usize, Corrupt> {
        let number = self.u64()?;
        usize::try_from(number).ok().filter(|number| *number < end).ok_or(self.corrupt())
    }
}

/// Reads a column of `count` rows into `out`, which is emptied first.
pub(super) fn read(
    count: usize,
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    out: &mut Vec<i64>,
) -> Result<(), Corrupt> {
    out.clear();
    if count == 0 {
        return Ok(());
    }
    let mode = heads.byte()?;
    if mode != TABLE {
        return read_numbers(mode, count, heads, source, out);
    }
    let length = heads.below(count)?;
    let mode = heads.byte()?;
    let mut distinct = Vec::new();
    read_numbers(mode, length, heads, source, &mut distinct)?;
    let mode = heads.byte()?;
    read_numbers(mode, count, heads, source, out)?;
    for place in out.iter_mut() {
        let number = usize::try_from(*place).ok().and_then(|place| distinct.get(place));
        *place = *number.ok_or(heads.corrupt())?;
    }
    Ok(())
}

/// Reads a column without a table; `out` is empty.
fn read_numbers(
    mode: u8,
    count: usize,
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    out: &mut Vec<i64>,
) -> Result<(), Corrupt> {
    let first = heads.i64()?;
    if mode == EQUAL {
        out.resize(count, first);
        return Ok(());
    }
    let factor = if mode & FACTOR != 0 { heads.u64()? as i64 } else { 1 };
    let value = |unit: i64| first.wrapping_add(factor.wrapping_mul(unit));
    out.reserve(count);
    match mode & !FACTOR {
        BEFORE => {
            let mut scale = Scale::from_byte(heads.byte()?);
            let mut now = first;
            out.push(now);
            for _ in 1..count {
                now = now.wrapping_add(factor.wrapping_mul(unzigzag(source.number(&mut scale))));
                out.push(now);
            }
        }
        START => {
            let start = heads.i64()?;
            let mut scale = Scale::from_byte(heads.byte()?);
            for _ in 0..count {
                out.push(value(start.wrapping_add(unzigzag(source.number(&mut scale)))));
            }
        }
        MEAN => {
            let mut running = Mean::new(heads.i64()?);
            let mut scale = Scale::from_byte(heads.byte()?);
            for _ in 0..count {
                let unit = running.get().wrapping_add(unzigzag(source.number(&mut scale)));
                running.note(unit);
                out.push(value(unit));
            }
        }
        LINE => {
            let mut scale = Scale::from_byte(heads.byte()?);
            out.push(first);
            let (mut before, mut before_that) = (0i64, 0i64);
            for _ in 1..count {
                let line = before.wrapping_shl(1).wrapping_sub(before_that);
                let unit = line.wrapping_add(unzigzag(source.number(&mut scale)));
                (before_that, before) = (before, unit);
                out.push(value(unit));
            }
        }
        _ => return Err(heads.corrupt()),
    }
    if source.is_past_end() { Err(heads.corrupt()) } else { Ok(()) }
}

/// Reads a column of 128-bit numbers: into `narrow` and true where all fit i64, else into `wide`.
pub(super) fn read_wide(
    count: usize,
    heads: &mut Heads<'_>,
    source: &mut Source<'_>,
    narrow: &mut Vec<i64>,
    wide: &mut Vec<i128>,
) -> Result<bool, Corrupt> {
    match heads.byte()? {
        0 => read(count, heads, source, narrow).map(|()| true),
        1 => {
            wide.clear();
            for _ in 0..count {
                wide.push(heads.i128()?);
            }
            Ok(false)
        }
        _ => Err(heads.corrupt()),
    }
}
