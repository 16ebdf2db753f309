//! The cells of distributions, behind the heads of their block, so that nobody decodes them for a count or a sum.
//!
//! In: rows with their heads. Out: groups of rows, each with tokens of its own. Invariant: whatever the cells and
//! `below` of a row are, they come back; what a head already says (the first cell, how many samples there are) is not
//! stored in a row whose parts agree.
//!
//! ```text
//! group   = length:varint rows of shape 2, stream, bits
//! row     = shape, cells, entries of `below`, of each entry: its bound less the one behind the last, its weight
//! shape 0   the counts sum to the row's count and the first cell is that of its minimum: tokens until they do; the lone
//!           cell of a lone sample needs none
//! shape 1   number of cells, zigzag(first cell - cell of the minimum), factor of the counts: three numbers; then tokens
//! shape 2   n:varint (cell:zigzag count:varint)*
//! ```
//!
//! How many samples a cell has near the last ones is known from a running mean of counts and of gaps (the newest with
//! weight ⅛; at the beginning a quarter of count ÷ range). Where it is below 4 a token says how many cells on is the next
//! used one and how many it holds: class · 8 + count - 1, where gaps 1 to 4 are classes and from there every half
//! doubling up to 512 is one, whose lower bits are raw; 144 escapes to two numbers with 6 bits of length each. Where it is
//! 4 or more each cell has a token, as a number that is zigzag(count - mean), shifted so that its spread (the root of the
//! mean, if samples are independent) is about 4.

use super::column::Heads;
use super::floats::gcd;
use super::ints::{INT_CONTEXTS, Scale, Sink, Source};
use super::rans::{Counts, Encoder, Tables};
use crate::delta::part::{Corrupt, DistributionRow};
use crate::delta::varint::{put_i64, put_u64, read_u64, unzigzag};
use crate::sketch::{Digits, layout};

/// Contexts of sparse cells come behind those of numbers, then those of dense ones.
const SPARSE: usize = INT_CONTEXTS;
const SPARSE_CONTEXTS: usize = 14;
const DENSE: usize = SPARSE + SPARSE_CONTEXTS;
/// Classes of gaps that have tokens.
const GAP_CLASSES: u32 = 18;
/// Counts that have tokens.
const COUNTS: u64 = 8;
const ESCAPE: u32 = GAP_CLASSES * COUNTS as u32;
/// A group ends when it has this many tokens, so that a part of a span is read without most of the rest.
const GROUP_TOKENS: usize = 4096;
/// Nor does it have more rows: those of a lone sample have no tokens.
const GROUP_ROWS: usize = 1024;

/// What a token of sparse cells says.
#[derive(Clone, Copy)]
struct Step {
    /// The least gap of its class.
    gap: u16,
    /// Bits that tell which gap of the class.
    raw: u8,
    count: u8,
}

/// Steps of the tokens below [`ESCAPE`].
static STEPS: [Step; ESCAPE as usize] = {
    let mut steps = [Step { gap: 0, raw: 0, count: 0 }; ESCAPE as usize];
    let mut token = 0;
    while token < ESCAPE as usize {
        let (class, count) = ((token >> 3) as u16, (token & 7) as u8 + 1);
        steps[token] = if class < 4 {
            Step { gap: class + 1, raw: 0, count }
        } else {
            let raw = (class >> 1) - 1;
            Step { gap: ((2 | class & 1) << raw) + 1, raw: raw as u8, count }
        };
        token += 1;
    }
    steps
};

/// What the cells so far say about the next.
#[derive(Clone, Copy)]
struct Density {
    /// Mean count of a used cell × 256; of every cell where cells are dense.
    counts: u64,
    /// Mean distance of used cells × 256.
    gaps: u64,
}

impl Density {
    #[inline]
    fn new(samples: u64, range: u64) -> Density {
        if samples >= range {
            Density { counts: (samples / range).min(1 << 32) * 64, gaps: 256 }
        } else {
            Density { counts: 256, gaps: (range.min(1 << 32) * 1024) / samples.max(1) }
        }
    }

    #[inline(always)]
    fn is_dense(self) -> bool {
        self.counts >= self.gaps << 2
    }

    /// Twice the binary logarithm, rounded down.
    #[inline(always)]
    fn half_octaves(value: u64) -> i32 {
        let log = 63u32.wrapping_sub((value | 2).leading_zeros());
        ((log << 1) | (value >> log.wrapping_sub(1)) as u32 & 1) as i32
    }

    #[inline(always)]
    fn sparse_context(self) -> usize {
        let log = Density::half_octaves(self.counts).wrapping_sub(Density::half_octaves(self.gaps));
        let class =
            if log >= -4 { log.min(3).wrapping_add(10) } else { (log.wrapping_add(5) >> 1).wrapping_add(5).max(0) };
        SPARSE + class as usize
    }

    /// Context, shift, and the count that is expected.
    #[inline(always)]
    fn dense_context(self) -> (usize, u32, u64) {
        let mean = self.counts.wrapping_add(128) >> 8;
        let log = 63u32.wrapping_sub((mean | 4).leading_zeros());
        if log < 6 {
            (DENSE + log.wrapping_sub(2) as usize, 0, mean)
        } else {
            (DENSE + 4 + (log & 1) as usize, log.wrapping_sub(4) >> 1, mean)
        }
    }

    #[inline(always)]
    fn note(&mut self, gap: u64, count: u64) {
        self.counts = self.counts.wrapping_sub(self.counts >> 3).wrapping_add(count.min(1 << 48) << 5);
        self.gaps = self.gaps.wrapping_sub(self.gaps >> 3).wrapping_add(gap << 5);
    }
}

/// What the head of a row tells about its cells.
#[derive(Clone, Copy)]
pub(super) struct RowHead {
    pub(super) digits: Digits,
    pub(super) count: u64,
    pub(super) min: i64,
    pub(super) max: i64,
}

impl RowHead {
    #[inline]
    fn first_cell(&self) -> i32 {
        layout::cell_of(self.digits, self.min)
    }

    #[inline]
    fn density(&self) -> Density {
        let range = i64::from(layout::cell_of(self.digits, self.max)) - i64::from(self.first_cell());
        Density::new(self.count, range.max(0) as u64 + 1)
    }
}

/// The scales of what rows have besides cells.
#[derive(Clone, Copy)]
struct RowScales {
    shape: Scale,
    irregular: [Scale; 3],
    entries: Scale,
    bound: Scale,
    weight: Scale,
}

impl RowScales {
    fn new() -> RowScales {
        let of = Scale::from_byte;
        RowScales { shape: of(0), irregular: [of(16), of(0), of(48)], entries: of(0), bound: of(4), weight: of(4) }
    }
}

/// A group that is being written.
pub(super) struct Group {
    rows: usize,
    raw: Vec<u8>,
    scales: RowScales,
    sink: Sink,
}

impl Group {
    pub(super) fn new() -> Group {
        Group { rows: 0, raw: Vec::new(), scales: RowScales::new(), sink: Sink::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.sink.pairs.len() >= GROUP_TOKENS || self.rows >= GROUP_ROWS
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Most bytes that it takes when it is written.
    pub(super) fn bytes_len(&self) -> usize {
        self.sink.bytes_len() + self.raw.len() + 16
    }

    /// Adds the cells of a row.
    pub(super) fn row(&mut self, row: &DistributionRow<'_>, counts: &mut Counts) {
        self.rows += 1;
        let head = RowHead { digits: row.digits, count: row.count, min: row.min, max: row.max };
        let first = head.first_cell();
        let limit = cell_limit(row.digits);
        let is_ascending = row.cells.iter().all(|(cell, count)| *count > 0 && cell.unsigned_abs() <= limit)
            && row.cells.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let total = row.cells.iter().try_fold(0u64, |total, (_, count)| total.checked_add(*count));
        let Group { raw, scales, sink, .. } = self;
        match row.cells.first() {
            Some((cell, _)) if is_ascending && total == Some(row.count) && *cell == first => {
                sink.number(counts, &mut scales.shape, 0);
                if row.count > 1 {
                    put_cells(sink, counts, head.density(), row.cells, 1);
                }
            }
            Some((cell, _)) if is_ascending => {
                sink.number(counts, &mut scales.shape, 1);
                let factor = row.cells.iter().fold(0, |factor, (_, count)| gcd(*count, factor));
                let offset = i64::from(*cell) - i64::from(first);
                let numbers = [row.cells.len() as u64, zigzag(offset), factor];
                for (scale, number) in scales.irregular.iter_mut().zip(numbers) {
                    sink.number(counts, scale, number);
                }
                put_cells(sink, counts, head.density(), row.cells, factor);
            }
            _ => {
                sink.number(counts, &mut scales.shape, 2);
                put_u64(raw, row.cells.len() as u64);
                for (cell, count) in row.cells {
                    put_i64(raw, i64::from(*cell));
                    put_u64(raw, *count);
                }
            }
        }
        sink.number(counts, &mut scales.entries, row.below.len() as u64);
        let mut next = 0u16;
        for (bound, weight) in row.below {
            sink.number(counts, &mut scales.bound, u64::from(bound.wrapping_sub(next)));
            sink.number(counts, &mut scales.weight, *weight);
            next = bound.wrapping_add(1);
        }
    }

    /// Appends its bytes.
    pub(super) fn write(mut self, encoder: &Encoder, words: &mut Vec<u16>, out: &mut Vec<u8>) {
        put_u64(out, self.raw.len() as u64);
        out.append(&mut self.raw);
        encoder.encode(&self.sink.pairs, words, out);
        self.sink.bits.finish(out);
    }
}

/// Cells beyond are no cells of clamped values; what has them is stored in shape 2.
fn cell_limit(digits: Digits) -> u32 {
    layout::cell_of(digits, i64::MAX).unsigned_abs()
}

#[inline(always)]
fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)) as u64
}

fn put_cells(sink: &mut Sink, counts: &mut Counts, mut density: Density, cells: &[(i32, u64)], factor: u64) {
    let mut next = i64::from(cells[0].0);
    for (cell, count) in cells {
        let count = if factor == 1 { *count } else { *count / factor };
        let cell = i64::from(*cell);
        loop {
            let gap = cell.wrapping_sub(next).wrapping_add(1) as u64;
            if density.is_dense() {
                let here = if gap == 1 { count } else { 0 };
                let (context, shift, mean) = density.dense_context();
                let off = here.wrapping_sub(mean) as i64;
                sink.shifted(counts, context, shift, zigzag(off));
                density.note(1, here);
                next = next.wrapping_add(1);
                if gap == 1 {
                    break;
                }
            } else {
                put_sparse(sink, counts, density.sparse_context(), gap, count);
                density.note(gap, count);
                next = cell.wrapping_add(1);
                break;
            }
        }
    }
}

#[inline(always)]
fn put_sparse(sink: &mut Sink, counts: &mut Counts, context: usize, gap: u64, count: u64) {
    if gap <= 512 && count <= COUNTS {
        let (class, raw) = if gap <= 4 {
            (gap as u32 - 1, 0)
        } else {
            let log = 63 - (gap - 1).leading_zeros();
            (4 + (log - 2) * 2 + ((gap - 1) >> (log - 1)) as u32 % 2, log - 1)
        };
        sink.token(counts, context, class * COUNTS as u32 + count as u32 - 1);
        if raw > 0 {
            sink.bits.put(gap - 1, raw);
        }
    } else {
        sink.token(counts, context, ESCAPE);
        for number in [gap, count] {
            let length = 63 - number.leading_zeros();
            sink.bits.put(u64::from(length), 6);
            sink.bits.put(number, length);
        }
    }
}

/// What the row was decoded to that a reader of groups read last.
#[derive(Default)]
pub(super) struct RowCells {
    /// Ascending, with their counts.
    pub(super) cells: Vec<(i32, u64)>,
    /// Declared bounds with their weights.
    pub(super) below: Vec<(u16, u64)>,
}

/// A group that is being read.
pub(super) struct GroupReader<'a> {
    heads: Heads<'a>,
    source: Source<'a>,
    scales: RowScales,
}

impl<'a> GroupReader<'a> {
    /// The group in these bytes.
    pub(super) fn new(bytes: &'a [u8], tables: &'a mut Tables) -> Result<GroupReader<'a>, Corrupt> {
        let corrupt = Corrupt { at: 0 };
        let mut at = 0;
        let length = read_u64(bytes, &mut at).ok_or(corrupt)?;
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length)).ok_or(corrupt)?;
        let heads = Heads { bytes: bytes.get(..end).ok_or(corrupt)?, at };
        let source = Source::new(tables, bytes, end).ok_or(corrupt)?;
        Ok(GroupReader { heads, source, scales: RowScales::new() })
    }

    /// Reads the cells of the next row, whose head is this.
    pub(super) fn row(&mut self, head: &RowHead, scratch: &mut RowCells) -> Result<(), Corrupt> {
        scratch.cells.clear();
        scratch.below.clear();
        match self.source.number(&mut self.scales.shape) {
            0 => {
                let first = head.first_cell();
                if head.count > 1 {
                    self.cells(head, first, 1, Until::Counted(head.count), scratch)?;
                } else {
                    scratch.cells.push((first, 1));
                }
            }
            1 => {
                let [mut count, mut first, mut factor] = [0; 3];
                for (scale, number) in self.scales.irregular.iter_mut().zip([&mut count, &mut first, &mut factor]) {
                    *number = self.source.number(scale);
                }
                let first = i64::from(head.first_cell()).wrapping_add(unzigzag(first));
                let first = i32::try_from(first).map_err(|_| self.heads.corrupt())?;
                if count == 0 {
                    return Err(self.heads.corrupt());
                }
                self.cells(head, first, factor, Until::Cells(count), scratch)?;
            }
            2 => {
                let count = self.heads.below((self.heads.bytes.len() - self.heads.at) / 2 + 1)?;
                for _ in 0..count {
                    let cell = i32::try_from(self.heads.i64()?).map_err(|_| self.heads.corrupt())?;
                    scratch.cells.push((cell, self.heads.u64()?));
                }
            }
            _ => return Err(self.heads.corrupt()),
        }
        let entries = self.source.number(&mut self.scales.entries);
        if entries > 1 << 16 {
            return Err(self.heads.corrupt());
        }
        let mut next = 0u16;
        for _ in 0..entries {
            let bound = (self.source.number(&mut self.scales.bound) as u16).wrapping_add(next);
            scratch.below.push((bound, self.source.number(&mut self.scales.weight)));
            next = bound.wrapping_add(1);
        }
        if self.source.is_past_end() { Err(self.heads.corrupt()) } else { Ok(()) }
    }

    /// Checks that all of it was read.
    pub(super) fn end(&self) -> Result<(), Corrupt> {
        self.source.end(&self.heads)
    }

    #[inline]
    fn cells(
        &mut self,
        head: &RowHead,
        first: i32,
        factor: u64,
        until: Until,
        scratch: &mut RowCells,
    ) -> Result<(), Corrupt> {
        let mut density = head.density();
        let limit = i64::from(cell_limit(head.digits));
        let mut next = i64::from(first);
        let (mut samples_left, mut cells_left) = match until {
            Until::Counted(samples) => (samples, u64::MAX),
            Until::Cells(cells) => (u64::MAX, cells),
        };
        while samples_left > 0 && cells_left > 0 {
            let (cell, count) = if density.is_dense() {
                let (context, shift, mean) = density.dense_context();
                let count = mean.wrapping_add(unzigzag(self.source.shifted(context, shift)) as u64);
                density.note(1, count);
                (next, count)
            } else {
                let (gap, count) = self.sparse(density.sparse_context());
                density.note(gap, count);
                (next.wrapping_add(gap as i64).wrapping_sub(1), count)
            };
            if cell < next || cell > limit || cell < -limit {
                return Err(self.heads.corrupt());
            }
            next = cell + 1;
            if count > 0 {
                let weight = count.checked_mul(factor).ok_or(self.heads.corrupt())?;
                scratch.cells.push((cell as i32, weight));
                if let Until::Counted(_) = until {
                    samples_left = samples_left.checked_sub(count).ok_or(self.heads.corrupt())?;
                }
                cells_left = cells_left.wrapping_sub(1);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn sparse(&mut self, context: usize) -> (u64, u64) {
        let token = self.source.tokens.next(context);
        if token < ESCAPE {
            let Step { gap, raw, count } = STEPS[token as usize];
            return (u64::from(gap).wrapping_add(self.source.bits.take(u32::from(raw))), u64::from(count));
        }
        let mut number = || {
            let length = self.source.bits.take(6) as u32;
            1u64 << length | self.source.bits.take(length)
        };
        (number(), number())
    }
}

/// Where the cells of a row end.
#[derive(Clone, Copy)]
enum Until {
    /// When so many samples were counted.
    Counted(u64),
    /// After so many used cells.
    Cells(u64),
}
