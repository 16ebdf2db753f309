//! Reading a page, or a few series of it.
//!
//! In: bytes. Out: rows. Owns: nothing but buffers that the caller keeps. Invariant: of a page only the blocks that hold
//! a wanted series are decoded, and of a block nothing behind the last one.

use super::bits::BitReader;
use super::cells::{GroupReader, RowCells};
use super::column::{self, Heads};
use super::distribution::{self, Head, HeadColumns};
use super::ints::Source;
use super::rans::{Tables, Tokens};
use super::scalar::{self, ScalarColumns};
use super::shared::SharedReader;
use super::{BLOCK_ROWS_MAX, VERSION};
use crate::delta::part::{Corrupt, DistributionRow, RowValue};
use crate::delta::varint::read_u64;
use crate::event::{Kind, SeriesId};
use crate::sketch::Distinct;
use std::ops::Range;

/// Which series are read.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'w> {
    /// Every one.
    All,
    /// These; ascending.
    Ids(&'w [SeriesId]),
}

/// What rows are decoded into; kept by the caller, so that many pages are read without allocating.
#[derive(Default)]
pub struct PageBuffers {
    tables: Tables,
    shared: SharedReader,
    scalars: ScalarColumns,
    columns: HeadColumns,
    heads: Vec<Head>,
    cells: RowCells,
    lengths: Vec<i64>,
    series: Vec<(SeriesId, bool)>,
    owners: Vec<usize>,
}

/// A page whose head was read; its blocks are decoded when they are asked for.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    kind: Kind,
    blocks: u64,
    /// Per block: series, bytes, and the ids.
    directory: &'a [u8],
    tables: &'a [u8],
    shared: &'a [u8],
    bodies: &'a [u8],
}

/// A part of the directory.
struct Entry {
    series: u64,
    body: Range<usize>,
}

/// Walks a directory. It was checked when the page was made.
struct Directory<'a> {
    bytes: &'a [u8],
    at: usize,
    next_id: u64,
    body: usize,
}

impl<'a> Directory<'a> {
    fn new(bytes: &'a [u8]) -> Directory<'a> {
        Directory { bytes, at: 0, next_id: 0, body: 0 }
    }

    fn entry(&mut self) -> Option<Entry> {
        let series = read_u64(self.bytes, &mut self.at)?;
        let length = usize::try_from(read_u64(self.bytes, &mut self.at)?).ok()?;
        let end = self.body.checked_add(length)?;
        let body = std::mem::replace(&mut self.body, end)..end;
        Some(Entry { series, body })
    }

    fn id(&mut self) -> Option<SeriesId> {
        let id = u32::try_from(read_u64(self.bytes, &mut self.at)?.checked_add(self.next_id)?).ok()?;
        self.next_id = u64::from(id) + 1;
        Some(SeriesId(id))
    }
}

impl<'a> Page<'a> {
    /// Reads the head and checks the directory.
    ///
    /// # Errors
    /// [`Corrupt`] when the version is unknown, or the directory does not add up to the bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Page<'a>, Corrupt> {
        let [VERSION, kind, ..] = *bytes else { return Err(Corrupt { at: 0 }) };
        let kind = Kind::from_code(kind).ok_or(Corrupt { at: 1 })?;
        let mut at = 2;
        let mut parse = || {
            let tables = usize::try_from(read_u64(bytes, &mut at)?).ok()?;
            let shared = usize::try_from(read_u64(bytes, &mut at)?).ok()?;
            let blocks = read_u64(bytes, &mut at)?;
            let start = at;
            let mut directory = Directory { bytes, at, next_id: 0, body: 0 };
            for _ in 0..blocks {
                let entry = directory.entry()?;
                if entry.series == 0 {
                    return None;
                }
                for _ in 0..entry.series {
                    directory.id()?;
                }
                at = directory.at;
            }
            let (directory, bodies) = (&bytes[start..directory.at], directory.body);
            let rest = &bytes[at..];
            let (tables, rest) = rest.split_at_checked(tables)?;
            let (shared, rest) = rest.split_at_checked(shared)?;
            (rest.len() == bodies).then_some(Page { kind, blocks, directory, tables, shared, bodies: rest })
        };
        parse().ok_or(Corrupt { at })
    }

    /// What its rows are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Appends the ids of its series, ascending.
    ///
    /// # Errors
    /// [`Corrupt`] when the directory cannot be read.
    pub fn ids(&self, out: &mut Vec<SeriesId>) -> Result<(), Corrupt> {
        let mut directory = Directory::new(self.directory);
        let mut walk = || {
            for _ in 0..self.blocks {
                for _ in 0..directory.entry()?.series {
                    out.push(directory.id()?);
                }
            }
            Some(())
        };
        walk().ok_or(Corrupt { at: 0 })
    }

    /// Visits rows of the wanted series (ascending) within `slots`, series by series, ascending slots. Blocks without a
    /// wanted series are not decoded. With `cells` false, cells and `below` of unweighted distributions may be left out.
    ///
    /// # Errors
    /// [`Corrupt`] where the bytes stop making sense, and whatever `visit` answers.
    pub fn read(
        &self,
        wanted: Wanted<'_>,
        slots: Range<u16>,
        cells: bool,
        buffers: &mut PageBuffers,
        visit: &mut dyn FnMut(SeriesId, u16, &RowValue<'_>) -> Result<(), Corrupt>,
    ) -> Result<(), Corrupt> {
        let mut directory = Directory::new(self.directory);
        let mut left = match wanted {
            Wanted::All => &[],
            Wanted::Ids(ids) => ids,
        };
        let mut is_begun = false;
        for _ in 0..self.blocks {
            if matches!(wanted, Wanted::Ids(_)) && left.is_empty() {
                break;
            }
            let corrupt = Corrupt { at: directory.at };
            let entry = directory.entry().ok_or(corrupt)?;
            buffers.series.clear();
            let mut end = 0;
            for _ in 0..entry.series {
                let id = directory.id().ok_or(corrupt)?;
                let is_wanted = match wanted {
                    Wanted::All => true,
                    Wanted::Ids(_) => {
                        left = &left[left.iter().take_while(|wanted| **wanted < id).count()..];
                        left.first() == Some(&id)
                    }
                };
                buffers.series.push((id, is_wanted));
                if is_wanted {
                    end = buffers.series.len();
                }
            }
            if end == 0 {
                continue;
            }
            if !is_begun {
                buffers.tables.begin(self.tables)?;
                buffers.shared.begin(self.shared)?;
                is_begun = true;
            }
            let is_whole = end == buffers.series.len();
            buffers.series.truncate(end);
            let block = BlockReader { kind: self.kind, shared: self.shared, bytes: &self.bodies[entry.body], is_whole };
            block.read(&slots, cells, buffers, visit)?;
        }
        Ok(())
    }
}

type Visit<'v> = dyn FnMut(SeriesId, u16, &RowValue<'_>) -> Result<(), Corrupt> + 'v;

struct BlockReader<'a> {
    kind: Kind,
    shared: &'a [u8],
    bytes: &'a [u8],
    /// Whether its last series is read too, so that all of it must be used up.
    is_whole: bool,
}

impl BlockReader<'_> {
    fn read(
        &self,
        slots: &Range<u16>,
        cells: bool,
        buffers: &mut PageBuffers,
        visit: &mut Visit<'_>,
    ) -> Result<(), Corrupt> {
        let corrupt = Corrupt { at: 0 };
        let bytes = self.bytes;
        let mut at = 0;
        let length = usize::try_from(read_u64(bytes, &mut at).ok_or(corrupt)?).map_err(|_| corrupt)?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(corrupt)?;
        let mut heads = Heads { bytes: &bytes[..end], at };
        let PageBuffers { tables, shared, scalars, columns, heads: rows, cells: scratch, lengths, series, owners } =
            buffers;
        at = end;
        let tokens = Tokens::new(tables, bytes, &mut at).ok_or(corrupt)?;
        let length = usize::try_from(read_u64(bytes, &mut at).ok_or(corrupt)?).map_err(|_| corrupt)?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(corrupt)?;
        let mut source = Source { tokens, bits: BitReader::new(&bytes[at..end]) };
        let tail = &bytes[end..];

        rows.clear();
        scalars.neighbours.clear();
        owners.clear();
        let mut set_at = 0usize;
        let mut left = BLOCK_ROWS_MAX;
        for (number, (id, is_wanted)) in series.iter().enumerate() {
            let pattern = heads.below(shared.patterns())?;
            shared.use_pattern(self.shared, pattern)?;
            let count = shared.slots().len();
            left = left.checked_sub(count).ok_or(heads.corrupt())?;
            let first = shared.slots().partition_point(|slot| *slot < slots.start);
            let last = shared.slots().partition_point(|slot| *slot < slots.end);
            let asked = if *is_wanted { first..last.max(first) } else { 0..0 };
            match self.kind {
                Kind::Counter => {
                    let rows = scalar::read_counters(pattern, count, &mut heads, &mut source, scalars)?;
                    for at in asked {
                        visit(*id, shared.slots()[at], &RowValue::Counter(rows.get(at)))?;
                    }
                }
                Kind::Gauge => {
                    let mut rows = scalar::read_gauges(
                        pattern,
                        !asked.is_empty(),
                        self.shared,
                        &mut heads,
                        &mut source,
                        scalars,
                        shared,
                    )?;
                    rows.skip(asked.start);
                    for at in asked {
                        let (slot, sum) = rows.next(at);
                        visit(*id, slot, &RowValue::Gauge(sum))?;
                    }
                }
                Kind::Distribution => {
                    distribution::read(shared.slots(), &mut heads, &mut source, columns, rows)?;
                    owners.resize(rows.len(), number);
                }
                Kind::Set => {
                    column::read(count, &mut heads, &mut source, lengths)?;
                    for (at, length) in lengths.iter().enumerate() {
                        let length = usize::try_from(*length).map_err(|_| heads.corrupt())?;
                        let end = set_at.checked_add(length).ok_or(heads.corrupt())?;
                        let bytes = tail.get(set_at..end).ok_or(heads.corrupt())?;
                        set_at = end;
                        if asked.contains(&at) {
                            let (distinct, used) = Distinct::decode(bytes).ok_or(heads.corrupt())?;
                            if used != length {
                                return Err(heads.corrupt());
                            }
                            visit(*id, shared.slots()[at], &RowValue::Set(distinct))?;
                        }
                    }
                }
            }
        }
        if self.is_whole {
            source.end(&heads)?;
            if self.kind != Kind::Distribution && set_at != tail.len() {
                return Err(heads.corrupt());
            }
        }
        if self.kind == Kind::Distribution {
            Rows { heads: rows, owners, series, slots, cells }.visit(tail, tables, scratch, visit)?;
        }
        Ok(())
    }
}

/// The rows of a block of distributions, and which of them are asked for.
struct Rows<'b> {
    heads: &'b [Head],
    /// Per row the place of its series.
    owners: &'b [usize],
    series: &'b [(SeriesId, bool)],
    slots: &'b Range<u16>,
    cells: bool,
}

impl Rows<'_> {
    fn is_asked(&self, at: usize) -> bool {
        self.series[self.owners[at]].1 && self.slots.contains(&self.heads[at].slot)
    }

    /// Walks the groups of cells, and decodes those that hold rows whose cells are asked for.
    fn visit(
        &self,
        tail: &[u8],
        tables: &mut Tables,
        scratch: &mut RowCells,
        visit: &mut Visit<'_>,
    ) -> Result<(), Corrupt> {
        let corrupt = Corrupt { at: 0 };
        let number = |at: &mut usize| read_u64(tail, at).and_then(|n| usize::try_from(n).ok()).ok_or(corrupt);
        let (mut directory, mut row) = (0, 0);
        let groups = number(&mut directory)?;
        let mut body = directory;
        for _ in 0..groups {
            number(&mut body)?;
            number(&mut body)?;
        }
        for _ in 0..groups {
            let (count, length) = (number(&mut directory)?, number(&mut directory)?);
            let bytes = body.checked_add(length).and_then(|end| tail.get(body..end)).ok_or(corrupt)?;
            body += length;
            let end = row + count.min(usize::MAX - row);
            let known = row..end.min(self.heads.len());
            row = end;
            let needs_cells = |at: usize| self.is_asked(at) && (self.cells || self.heads[at].weighted);
            let decoded = known.clone().rev().find(|at| needs_cells(*at)).map_or(known.start, |last| last + 1);
            let mut reader = None;
            if known.start < decoded {
                reader = Some(GroupReader::new(bytes, tables)?);
            }
            for at in known {
                let Head { slot, weighted, sum, row } = self.heads[at];
                let (mut cells, mut below): (&[_], &[_]) = (&[], &[]);
                if at < decoded
                    && let Some(reader) = &mut reader
                {
                    reader.row(&row, scratch)?;
                    (cells, below) = (&scratch.cells, &scratch.below);
                }
                if self.is_asked(at) {
                    let (digits, count, min, max) = (row.digits, row.count, row.min, row.max);
                    let value = DistributionRow { digits, count, weighted, sum, min, max, cells, below };
                    visit(self.series[self.owners[at]].0, slot, &RowValue::Distribution(value))?;
                }
            }
            if let Some(reader) = reader.filter(|_| decoded == end) {
                reader.end()?;
            }
            if row >= self.heads.len() {
                return Ok(());
            }
        }
        Err(corrupt)
    }
}
