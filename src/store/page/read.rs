//! Reading a page, or a few series of it.
//!
//! In: bytes. Out: rows. Invariant: nothing is read beyond the bytes of the series it belongs to.

use super::VERSION;
use crate::delta::part::{Corrupt, DistributionRow, RowValue};
use crate::delta::varint::{read_u64, read_u128, unzigzag, unzigzag_128};
use crate::delta::{CounterSum, GaugeSum};
use crate::event::{Kind, SeriesId};
use crate::sketch::{Digits, Distinct};
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
    cells: Vec<(i32, u64)>,
    below: Vec<(u16, u64)>,
}

/// A page whose head was read; its rows are decoded when they are asked for.
pub struct Page<'a> {
    bytes: &'a [u8],
    kind: Kind,
    series: u64,
    directory: usize,
    bodies: usize,
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
        let series = read_u64(bytes, &mut at).ok_or(Corrupt { at })?;
        let mut page = Page { bytes, kind, series, directory: at, bodies: 0 };
        let mut total = 0u64;
        page.bodies = page.each(&mut |_, length| {
            total = total.checked_add(length).filter(|total| *total <= bytes.len() as u64)?;
            Some(())
        })?;
        if total != (bytes.len() - page.bodies) as u64 {
            return Err(Corrupt { at: page.bodies });
        }
        Ok(page)
    }

    /// Walks the directory and returns where it ends.
    fn each(&self, see: &mut dyn FnMut(u32, u64) -> Option<()>) -> Result<usize, Corrupt> {
        let (mut at, mut id) = (self.directory, 0u32);
        for n in 0..self.series {
            let mut next = || {
                let gap = u32::try_from(read_u64(self.bytes, &mut at)?).ok()?;
                if n > 0 && gap == 0 {
                    return None;
                }
                id = id.checked_add(gap)?;
                see(id, read_u64(self.bytes, &mut at)?)
            };
            next().ok_or(Corrupt { at })?;
        }
        Ok(at)
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
        self.each(&mut |id, _| {
            out.push(SeriesId(id));
            Some(())
        })?;
        Ok(())
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
        let mut bodies = Vec::new();
        let mut start = self.bodies;
        self.each(&mut |id, length| {
            let is_wanted = match wanted {
                Wanted::All => true,
                Wanted::Ids(ids) => ids.binary_search(&SeriesId(id)).is_ok(),
            };
            let end = start + length as usize;
            if is_wanted {
                bodies.push((SeriesId(id), start..end));
            }
            start = end;
            Some(())
        })?;
        for (id, body) in bodies {
            let mut cursor = Cursor { bytes: &self.bytes[..body.end], at: body.start };
            let mut slot = None;
            while cursor.at < body.end {
                let gap = u16::try_from(cursor.u64()?).map_err(|_| cursor.corrupt())?;
                let next = match slot {
                    None => gap,
                    Some(slot) if gap > 0 => gap.checked_add(slot).ok_or(cursor.corrupt())?,
                    Some(_) => return Err(cursor.corrupt()),
                };
                slot = Some(next);
                let value = cursor.row(self.kind, buffers)?;
                if slots.contains(&next) {
                    let bare = DistributionRow {
                        cells: &[],
                        below: &[],
                        ..*match &value {
                            RowValue::Distribution(row) if !cells && !row.weighted => row,
                            other => {
                                visit(id, next, other)?;
                                continue;
                            }
                        }
                    };
                    visit(id, next, &RowValue::Distribution(bare))?;
                }
            }
        }
        Ok(())
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn corrupt(&self) -> Corrupt {
        Corrupt { at: self.at }
    }

    fn u64(&mut self) -> Result<u64, Corrupt> {
        read_u64(self.bytes, &mut self.at).ok_or(Corrupt { at: self.at })
    }

    fn i64(&mut self) -> Result<i64, Corrupt> {
        self.u64().map(unzigzag)
    }

    fn i128(&mut self) -> Result<i128, Corrupt> {
        read_u128(self.bytes, &mut self.at).map(unzigzag_128).ok_or(Corrupt { at: self.at })
    }

    fn f64(&mut self) -> Result<f64, Corrupt> {
        let bytes = self.bytes.get(self.at..self.at + 8).ok_or(self.corrupt())?;
        self.at += 8;
        Ok(f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn row<'s>(&mut self, kind: Kind, buffers: &'s mut PageBuffers) -> Result<RowValue<'s>, Corrupt> {
        Ok(match kind {
            Kind::Counter => RowValue::Counter(CounterSum { nanos: self.i128()? }),
            Kind::Gauge => {
                let count = self.u64()?;
                let (last, time, position) = (self.f64()?, self.i64()?, self.u64()?);
                let (min, max) = if count > 1 { (self.f64()?, self.f64()?) } else { (last, last) };
                RowValue::Gauge(GaugeSum { count, last, time, position, min, max, sum: self.i128()?, adjust: None })
            }
            Kind::Distribution => RowValue::Distribution(self.distribution(buffers)?),
            Kind::Set => {
                let (distinct, used) = Distinct::decode(&self.bytes[self.at..]).ok_or(self.corrupt())?;
                self.at += used;
                RowValue::Set(distinct)
            }
        })
    }

    fn distribution<'s>(&mut self, buffers: &'s mut PageBuffers) -> Result<DistributionRow<'s>, Corrupt> {
        let count = self.u64()?;
        let flags = *self.bytes.get(self.at).ok_or(self.corrupt())?;
        self.at += 1;
        let digits = Digits::from_u8(flags & 3).filter(|_| flags < 8).ok_or(self.corrupt())?;
        let (min, max, sum) = (self.i64()?, self.i64()?, self.i128()?);
        buffers.cells.clear();
        buffers.below.clear();
        for _ in 0..self.u64()? {
            let cell = i32::try_from(self.i64()?).map_err(|_| self.corrupt())?;
            buffers.cells.push((cell, self.u64()?));
        }
        for _ in 0..self.u64()? {
            let bound = u16::try_from(self.u64()?).map_err(|_| self.corrupt())?;
            buffers.below.push((bound, self.u64()?));
        }
        let weighted = flags & 4 != 0;
        Ok(DistributionRow { digits, count, weighted, sum, min, max, cells: &buffers.cells, below: &buffers.below })
    }
}
