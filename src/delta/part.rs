//! Parts: rows of aggregates sorted by (kind, series id). The values of the commit log and of segments.
//!
//! In: aggregates in order through [`PartWriter`]. Out: the same through [`PartCursor`]. Invariant:
//! `decode(encode(x)) == x`, and no bytes make the cursor panic or allocate more than a row needs.
//!
//! Format 1, all integers little-endian or LEB128 *varints* (zigzag where signed):
//!
//! ```text
//! part  = version:u8=1 block*
//! block = kind:u8 rows:varint first_id:varint length:varint row*      (length: bytes of the rows)
//! row   = id_gap:varint body                        (gap to the previous id; 0 for the first of a block)
//! counter      = v:varint        v odd: v>>1 is 10⁻⁹ units, v even: v>>1 is whole units
//! gauge        = count:varint last:f64 time:zigzag position:varint [count>1: min:f64 max:f64] sum:zigzag
//! distribution = h:varint        h = count<<4 | has_below<<3 | weighted<<2 | digits
//!                min:zigzag [not a lone unweighted sample: (max-min):varint sum:zigzag cells]
//!                [has_below: n:varint (bound:varint weight:varint)*]
//! cells        = n:varint first:zigzag count:varint, then n-1 times
//!                one byte (gap-1)<<4 | (count-1)   when gap ≤ 15 and count ≤ 16, else
//!                0xF0 gap:varint count:varint
//! set          = the bytes of [`Distinct::encode`]
//! ```
//!
//! A block holds at most [`BLOCK_ROWS`] rows, so that a reader can skip to a series.

use super::side::{CounterSum, DistributionSum, GaugeSum};
use super::varint::{self, put_i64, put_i128, put_u64, put_u128};
use crate::event::{Kind, SeriesId, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, layout};

/// The format version, the first byte of a part.
pub const VERSION: u8 = 1;
/// Most rows of a block.
pub const BLOCK_ROWS: u32 = 4096;
/// The byte that announces a cell that does not fit one byte: gap 16, which is never packed.
const ESCAPE: u8 = 0xF0;

/// Bytes that are not a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored part is corrupt at byte {at}")]
pub struct Corrupt {
    /// Where reading stopped making sense.
    pub at: usize,
}

/// One row.
#[derive(Debug)]
pub struct Row<'a> {
    /// Whose.
    pub id: SeriesId,
    /// What.
    pub value: RowValue<'a>,
}

/// A row's aggregate.
#[derive(Debug)]
pub enum RowValue<'a> {
    /// An increment.
    Counter(CounterSum),
    /// Sets; relative operations were resolved before encoding.
    Gauge(GaugeSum),
    /// Values.
    Distribution(DistributionRow<'a>),
    /// Members.
    Set(Distinct),
}

impl RowValue<'_> {
    /// The kind of series this row belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            RowValue::Counter(_) => Kind::Counter,
            RowValue::Gauge(_) => Kind::Gauge,
            RowValue::Distribution(_) => Kind::Distribution,
            RowValue::Set(_) => Kind::Set,
        }
    }
}

/// A distribution as it lies in a part. Fields as in [`DistributionSum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributionRow<'a> {
    /// Resolution of the cells.
    pub digits: Digits,
    /// Samples seen.
    pub count: u64,
    /// True when `sum`, `cells` and `below` are × 4096.
    pub weighted: bool,
    /// Σ in scale units.
    pub sum: i128,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// Ascending cells with their counts.
    pub cells: &'a [(i32, u64)],
    /// Per straddled bound the weight not above it.
    pub below: &'a [(u16, u64)],
}

impl DistributionRow<'_> {
    /// The same as an owned aggregate.
    pub fn to_sum(&self) -> DistributionSum {
        let mut sum = DistributionSum::new(self.digits);
        (sum.count, sum.weighted, sum.sum, sum.min, sum.max) =
            (self.count, self.weighted, self.sum, self.min, self.max);
        if self.weighted {
            sum.sketch.make_weighted();
        }
        sum.sketch.add_sorted(self.cells);
        sum.below = self.below.to_vec();
        sum
    }
}

/// Writes a part. Rows must come in ascending (kind, id).
pub struct PartWriter {
    out: Vec<u8>,
    body: Vec<u8>,
    kind: Kind,
    rows: u32,
    rows_total: u64,
    first: u32,
    previous: u32,
}

impl PartWriter {
    /// An empty part; `buffer` gives its memory.
    pub fn new(mut buffer: Vec<u8>) -> PartWriter {
        buffer.clear();
        buffer.push(VERSION);
        PartWriter { out: buffer, body: Vec::new(), kind: Kind::Counter, rows: 0, rows_total: 0, first: 0, previous: 0 }
    }

    /// Rows written.
    pub fn rows(&self) -> u64 {
        self.rows_total
    }

    /// How long the part would be if it were finished now, up to the head of its last block.
    pub fn bytes_len(&self) -> usize {
        self.out.len() + self.body.len()
    }

    /// The finished bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.out
    }

    fn begin_row(&mut self, kind: Kind, id: SeriesId) {
        if self.rows == BLOCK_ROWS || (self.rows > 0 && self.kind != kind) {
            self.end_block();
        }
        if self.rows == 0 {
            assert!(self.rows_total == 0 || kind > self.kind || id.0 > self.previous, "rows come in order");
            (self.kind, self.first) = (kind, id.0);
            self.body.push(0);
        } else {
            assert!(id.0 > self.previous, "rows come in order");
            put_u64(&mut self.body, u64::from(id.0 - self.previous));
        }
        self.previous = id.0;
        self.rows += 1;
        self.rows_total += 1;
    }

    fn end_block(&mut self) {
        if self.rows > 0 {
            self.out.push(self.kind as u8);
            put_u64(&mut self.out, u64::from(self.rows));
            put_u64(&mut self.out, u64::from(self.first));
            put_u64(&mut self.out, self.body.len() as u64);
            self.out.append(&mut self.body);
            self.rows = 0;
        }
    }

    /// Writes a counter's row; `nanos` must not be negative.
    pub fn counter(&mut self, id: SeriesId, sum: CounterSum) {
        debug_assert!(sum.nanos >= 0, "counters only grow");
        self.begin_row(Kind::Counter, id);
        let nanos = sum.nanos.unsigned_abs();
        let whole = nanos / 1_000_000_000;
        if whole * 1_000_000_000 == nanos {
            put_u128(&mut self.body, whole << 1);
        } else {
            put_u128(&mut self.body, nanos << 1 | 1);
        }
    }

    /// Writes a counter's row of a whole number, without 128-bit arithmetic.
    pub fn counter_whole(&mut self, id: SeriesId, whole: u64) {
        self.begin_row(Kind::Counter, id);
        match whole.checked_mul(2) {
            Some(v) => put_u64(&mut self.body, v),
            None => put_u128(&mut self.body, u128::from(whole) << 1),
        }
    }

    /// Writes a gauge's row. Relative operations must have been resolved.
    pub fn gauge(&mut self, id: SeriesId, sum: &GaugeSum) {
        debug_assert!(sum.adjust.is_none() && sum.count > 0, "operations are resolved before encoding");
        self.begin_row(Kind::Gauge, id);
        put_u64(&mut self.body, sum.count);
        self.body.extend_from_slice(&sum.last.to_le_bytes());
        put_i64(&mut self.body, sum.time);
        put_u64(&mut self.body, sum.position);
        if sum.count > 1 {
            self.body.extend_from_slice(&sum.min.to_le_bytes());
            self.body.extend_from_slice(&sum.max.to_le_bytes());
        }
        put_i128(&mut self.body, sum.sum);
    }

    /// Writes a distribution's row.
    pub fn distribution(&mut self, id: SeriesId, row: &DistributionRow<'_>) {
        debug_assert!(row.count > 0 && row.min <= row.max, "an empty distribution has no row");
        self.begin_row(Kind::Distribution, id);
        let has_below = !row.below.is_empty();
        let flags = u64::from(has_below) << 3 | u64::from(row.weighted) << 2 | row.digits as u64;
        put_u64(&mut self.body, row.count << 4 | flags);
        put_i64(&mut self.body, row.min);
        if row.count > 1 || row.weighted {
            put_u64(&mut self.body, row.max.wrapping_sub(row.min) as u64);
            put_i128(&mut self.body, row.sum);
            put_cells(&mut self.body, row.cells);
        }
        if has_below {
            put_u64(&mut self.body, row.below.len() as u64);
            for (bound, weight) in row.below {
                put_u64(&mut self.body, u64::from(*bound));
                put_u64(&mut self.body, *weight);
            }
        }
    }

    /// Writes a set's row.
    pub fn set(&mut self, id: SeriesId, distinct: &Distinct) {
        self.begin_row(Kind::Set, id);
        distinct.encode(&mut self.body);
    }

    /// Writes any row again.
    pub fn row(&mut self, id: SeriesId, value: &RowValue<'_>) {
        match value {
            RowValue::Counter(sum) => self.counter(id, *sum),
            RowValue::Gauge(sum) => self.gauge(id, sum),
            RowValue::Distribution(row) => self.distribution(id, row),
            RowValue::Set(distinct) => self.set(id, distinct),
        }
    }
}

/// Buffers that a cursor decodes into; kept by the caller so that rows can borrow them.
#[derive(Default)]
pub struct Scratch {
    cells: Vec<(i32, u64)>,
    below: Vec<(u16, u64)>,
}

/// The blocks of a part, as byte ranges: the version byte followed by any of them, in order, is a part
/// again. So a part can be cut without decoding its rows.
///
/// # Errors
/// [`Corrupt`] when the heads of the blocks do not add up.
pub fn block_ranges(bytes: &[u8]) -> Result<Vec<std::ops::Range<usize>>, Corrupt> {
    let mut cursor = PartCursor::new(bytes)?;
    let mut ranges = Vec::new();
    loop {
        let start = cursor.at;
        if !cursor.begin_block()? {
            return Ok(ranges);
        }
        ranges.push(start..cursor.block_end);
        cursor.at = cursor.block_end;
    }
}

/// Where a cursor stands; resumes it on the same bytes, so that bytes and cursor can be kept apart.
#[derive(Clone, Copy, Debug)]
pub struct PartPosition {
    at: usize,
    block_end: usize,
    kind: Kind,
    rows_left: u64,
    is_first: bool,
    id: u32,
}

/// Reads the rows of a part in order.
pub struct PartCursor<'a> {
    bytes: &'a [u8],
    at: usize,
    block_end: usize,
    kind: Kind,
    rows_left: u64,
    is_first: bool,
    id: u32,
}

impl<'a> PartCursor<'a> {
    /// A cursor before the first row.
    ///
    /// # Errors
    /// [`Corrupt`] when the version is unknown.
    pub fn new(bytes: &'a [u8]) -> Result<PartCursor<'a>, Corrupt> {
        if bytes.first() != Some(&VERSION) {
            return Err(Corrupt { at: 0 });
        }
        Ok(PartCursor { bytes, at: 1, block_end: 1, kind: Kind::Counter, rows_left: 0, is_first: true, id: 0 })
    }

    /// A cursor at a place that another cursor reached in the same bytes. Other bytes give wrong rows or
    /// [`Corrupt`], never a panic.
    pub fn resume(bytes: &'a [u8], position: PartPosition) -> PartCursor<'a> {
        let PartPosition { at, block_end, kind, rows_left, is_first, id } = position;
        let block_end = block_end.min(bytes.len());
        PartCursor { bytes, at: at.min(block_end), block_end, kind, rows_left, is_first, id }
    }

    /// Where the cursor stands.
    pub fn position(&self) -> PartPosition {
        let PartCursor { at, block_end, kind, rows_left, is_first, id, .. } = *self;
        PartPosition { at, block_end, kind, rows_left, is_first, id }
    }

    /// Whose row comes next, without moving.
    ///
    /// # Errors
    /// [`Corrupt`] where the bytes stop making sense.
    pub fn peek(&self) -> Result<Option<(Kind, SeriesId)>, Corrupt> {
        let mut ahead = PartCursor::resume(self.bytes, self.position());
        if ahead.rows_left == 0 && !ahead.begin_block()? {
            return Ok(None);
        }
        ahead.advance()?;
        Ok(Some((ahead.kind, SeriesId(ahead.id))))
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    /// [`Corrupt`] where the bytes stop making sense.
    #[inline]
    pub fn next<'s>(&mut self, scratch: &'s mut Scratch) -> Result<Option<Row<'s>>, Corrupt> {
        if self.rows_left == 0 && !self.begin_block()? {
            return Ok(None);
        }
        self.advance()?;
        self.rows_left -= 1;
        let id = SeriesId(self.id);
        let value = match self.kind {
            Kind::Counter => RowValue::Counter(self.counter()?),
            Kind::Gauge => RowValue::Gauge(self.gauge()?),
            Kind::Distribution => RowValue::Distribution(self.distribution(scratch)?),
            Kind::Set => {
                let (distinct, used) = Distinct::decode(&self.bytes[self.at..self.block_end]).ok_or(self.corrupt())?;
                self.at += used;
                RowValue::Set(distinct)
            }
        };
        if self.rows_left == 0 && self.at != self.block_end {
            return Err(self.corrupt());
        }
        Ok(Some(Row { id, value }))
    }

    #[inline(always)]
    fn advance(&mut self) -> Result<(), Corrupt> {
        let gap = self.u64()?;
        if self.is_first {
            self.is_first = false;
        } else {
            self.id = u32::try_from(gap).ok().and_then(|gap| self.id.checked_add(gap)).ok_or(self.corrupt())?;
        }
        Ok(())
    }

    fn begin_block(&mut self) -> Result<bool, Corrupt> {
        if self.at == self.bytes.len() {
            return Ok(false);
        }
        self.block_end = self.bytes.len();
        self.kind = Kind::from_code(self.bytes[self.at]).ok_or(self.corrupt())?;
        self.at += 1;
        self.rows_left = self.u64()?;
        self.id = u32::try_from(self.u64()?).map_err(|_| self.corrupt())?;
        let length = self.u64()?;
        if self.rows_left == 0 || length > (self.bytes.len() - self.at) as u64 {
            return Err(self.corrupt());
        }
        self.block_end = self.at + length as usize;
        self.is_first = true;
        Ok(true)
    }

    fn corrupt(&self) -> Corrupt {
        Corrupt { at: self.at }
    }

    fn counter(&mut self) -> Result<CounterSum, Corrupt> {
        let v = self.u128()?;
        let units = i128::try_from(v >> 1).map_err(|_| self.corrupt())?;
        let nanos = if v & 1 == 1 { Some(units) } else { units.checked_mul(1_000_000_000) };
        Ok(CounterSum { nanos: nanos.ok_or(self.corrupt())? })
    }

    fn gauge(&mut self) -> Result<GaugeSum, Corrupt> {
        let count = self.u64()?;
        if count == 0 {
            return Err(self.corrupt());
        }
        let last = self.f64()?;
        let time = self.i64()?;
        let position = self.u64()?;
        let (min, max) = if count > 1 { (self.f64()?, self.f64()?) } else { (last, last) };
        Ok(GaugeSum { count, last, time, position, min, max, sum: self.i128()?, adjust: None })
    }

    #[inline]
    fn distribution<'s>(&mut self, scratch: &'s mut Scratch) -> Result<DistributionRow<'s>, Corrupt> {
        let head = self.u64()?;
        let digits = Digits::from_u8((head & 3) as u8).ok_or(self.corrupt())?;
        let (weighted, has_below, count) = (head & 4 != 0, head & 8 != 0, head >> 4);
        if count == 0 {
            return Err(self.corrupt());
        }
        let min = self.i64()?;
        scratch.cells.clear();
        scratch.below.clear();
        let (max, sum) = if count > 1 || weighted {
            let span = self.u64()?;
            let max = min.checked_add_unsigned(span).ok_or(self.corrupt())?;
            let sum = self.i128()?;
            self.cells(&mut scratch.cells)?;
            (max, sum)
        } else {
            scratch.cells.push((layout::cell_of(digits, min), 1));
            (min, i128::from(min))
        };
        if has_below {
            for _ in 0..self.u64()? {
                let bound = u16::try_from(self.u64()?).map_err(|_| self.corrupt())?;
                scratch.below.push((bound, self.u64()?));
            }
        }
        Ok(DistributionRow { digits, count, weighted, sum, min, max, cells: &scratch.cells, below: &scratch.below })
    }

    #[inline]
    fn cells(&mut self, out: &mut Vec<(i32, u64)>) -> Result<(), Corrupt> {
        let n = self.u64()?;
        // Every further cell takes at least a byte, so a hostile length cannot reserve more than is there.
        if n == 0 || n > (self.block_end - self.at) as u64 {
            return Err(self.corrupt());
        }
        out.reserve(n as usize);
        let mut cell = i32::try_from(self.i64()?).map_err(|_| self.corrupt())?;
        out.push((cell, self.u64()?));
        for _ in 1..n {
            let byte = *self.bytes[..self.block_end].get(self.at).ok_or(self.corrupt())?;
            self.at += 1;
            let (gap, count) = if byte < ESCAPE {
                (i32::from(byte >> 4) + 1, u64::from(byte & 15) + 1)
            } else {
                (i32::try_from(self.u64()?).map_err(|_| self.corrupt())?, self.u64()?)
            };
            cell = cell.checked_add(gap).ok_or(self.corrupt())?;
            out.push((cell, count));
        }
        Ok(())
    }

    fn f64(&mut self) -> Result<f64, Corrupt> {
        let bytes = self.bytes[..self.block_end].get(self.at..self.at + 8).ok_or(self.corrupt())?;
        self.at += 8;
        Ok(f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    #[inline(always)]
    fn u64(&mut self) -> Result<u64, Corrupt> {
        match self.bytes[..self.block_end.max(self.at)].get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_u64(),
        }
    }

    fn long_u64(&mut self) -> Result<u64, Corrupt> {
        varint::read_u64(&self.bytes[..self.block_end.max(self.at)], &mut self.at).ok_or(self.corrupt())
    }

    fn u128(&mut self) -> Result<u128, Corrupt> {
        varint::read_u128(&self.bytes[..self.block_end], &mut self.at).ok_or(self.corrupt())
    }

    fn i64(&mut self) -> Result<i64, Corrupt> {
        Ok(varint::unzigzag(self.u64()?))
    }

    fn i128(&mut self) -> Result<i128, Corrupt> {
        Ok(varint::unzigzag_128(self.u128()?))
    }
}

#[inline]
fn put_cells(out: &mut Vec<u8>, cells: &[(i32, u64)]) {
    put_u64(out, cells.len() as u64);
    let Some((first, count)) = cells.first() else { return };
    put_i64(out, i64::from(*first));
    put_u64(out, *count);
    let mut previous = *first;
    for (cell, count) in &cells[1..] {
        let gap = cell.wrapping_sub(previous) as u32;
        debug_assert!(*cell > previous && *count > 0, "cells ascend");
        if gap <= 15 && *count <= 16 {
            out.push((gap as u8 - 1) << 4 | (*count as u8 - 1));
        } else {
            out.push(ESCAPE);
            put_u64(out, u64::from(gap));
            put_u64(out, *count);
        }
        previous = *cell;
    }
}

/// The weight of a whole sample in a row: 1, or 4096 when the row is weighted.
pub fn unit_weight(weighted: bool) -> u64 {
    if weighted { WEIGHT_ONE } else { 1 }
}
