//! The stored form of the totals of 1,024 series.
//!
//! In: a chunk, and what the file held before. Out: bytes, opaque to the store. Invariants: series that
//! are not in memory are carried over unchanged; `decode(encode(x)) == x`; no bytes make decoding panic
//! or allocate more than they are long.
//!
//! Format 4 (1 had neither `native` nor `resets`, 2 no `resets`, 3 no `adopted`; all are still read), integers as LEB128
//! varints (zigzag where signed, up to 128 bits):
//!
//! ```text
//! block        = version:u8=4 n:varint bounds*n rows:varint row*rows
//! bounds       = n:varint first:zigzag gap:varint*(n-1)          (declared bounds in scale units)
//! row          = offset_gap:varint kind:u8 created:zigzag (seen-created):zigzag body resets
//! counter      = total:zigzag                                    (10⁻⁹)
//! gauge        = count:varint [count>0: last:f64 min:f64 max:f64 time:zigzag position:varint sum:zigzag]
//! distribution = samples:varint [samples>0: weight:varint sum:zigzag min:zigzag (max-min):varint]
//!                bounds:varint                                   (0 none, else 1 + index; then per bound
//!                (count-previous count):varint*                   the weight not above it)
//!                native adopted
//! native       = form:varint                                     (0 none, else 1 + 3 - schema; then)
//!                n:varint [n>0: first:zigzag gap:varint*(n-1) weight:varint*n]     (keys: see `native`)
//! adopted      = 0, or: (1+n):varint bound:zigzag*n              (bounds whose counts hold estimates, R2)
//!                n:varint (bound:zigzag count:varint weight:varint is_estimated:varint)*n
//!                (bounds not counted now: what they had when all samples weighed so much)
//! set          = nothing                                         (a set has no totals)
//! resets       = n:varint [n>0: born:zigzag reset*n]             (R3: what stands above is since the last of them)
//! reset        = (at-previous):zigzag [counter, distribution: total:zigzag] [distribution: weight:varint buckets]
//!                (of all lives before it together; `previous` is `born` at first; buckets as above)
//! ```

use super::adopt::{Adopted, Shape, Unsettled};
use super::chunk::Chunk;
use super::native::{KEY_MAX, NativeTotals, SCHEMA_MAX};
use super::past::PastRow;
use super::reset::{Reset, Resets};
use super::rows::Rule;
use super::state::{DistributionTotals, StateRef};
use crate::delta::GaugeSum;
use crate::delta::part::Corrupt;
use crate::delta::varint::{self, put_i128 as put_signed, put_u128 as put};
use crate::event::{Kind, Timestamp};
use std::collections::BTreeMap;

const VERSION: u8 = 4;
/// Without estimates.
const VERSION_3: u8 = 3;
/// Without resets, too.
const VERSION_2: u8 = 2;
/// Without native histograms, too.
const VERSION_1: u8 = 1;

/// The totals of one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Totals {
    Counter(i128),
    Gauge(GaugeSum),
    /// The bounds stand beside: index into [`Stored::bounds`].
    Distribution(DistributionTotals, Option<usize>),
    Set,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredRow {
    created: i64,
    seen: i64,
    totals: Totals,
    /// Earlier lives (R3).
    resets: Option<Box<Resets>>,
}

/// A decoded block.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stored {
    bounds: Vec<Box<[i64]>>,
    rows: BTreeMap<u16, StoredRow>,
}

/// Adds stored totals to the series of a chunk that await them; how many bytes their native histograms grew.
pub(super) fn restore(chunk: &mut Chunk, stored: &Stored, rules: &[Option<Rule>]) -> Result<isize, Corrupt> {
    let mut grown = 0;
    for (offset, row) in &stored.rows {
        let Some(identity) = chunk.identity_mut(*offset) else { continue };
        if !identity.awaits_totals {
            continue;
        }
        identity.awaits_totals = false;
        identity.created = row.created;
        identity.seen = identity.seen.max(row.seen);
        let metric = identity.metric;
        if let Some(resets) = &row.resets {
            let mut resets = resets.clone();
            let rule = rules.get(metric as usize).and_then(Option::as_ref);
            let bounds = match &row.totals {
                Totals::Distribution(_, Some(at)) => &*stored.bounds[*at],
                _ => &[],
            };
            let shape = match &row.totals {
                Totals::Distribution(totals, _) => Shape::of(totals, None, rule.map_or(0, |rule| rule.exponent)),
                _ => Shape::default(),
            };
            resets.adopt(bounds, rule.and_then(|rule| rule.bounds.as_ref()).map(|own| &*own.units), &shape);
            chunk.resets.insert(*offset, resets);
        }
        let place = |kind: Kind| chunk.index(kind, *offset).ok_or(Corrupt { at: 0 });
        match &row.totals {
            Totals::Counter(total) => {
                let at = place(Kind::Counter)?;
                chunk.counters[at].total += total;
            }
            Totals::Gauge(sum) => {
                let at = place(Kind::Gauge)?;
                chunk.gauges[at].sum.merge(sum);
            }
            Totals::Distribution(totals, bounds) => {
                let at = place(Kind::Distribution)?;
                let rule = rules.get(metric as usize).and_then(Option::as_ref);
                let own = rule.and_then(|rule| rule.bounds.as_ref());
                let mine = &mut chunk.distributions[at].totals;
                let before = mine.native_bytes() as isize;
                let old = bounds.map_or(&[][..], |at| &stored.bounds[at]);
                let exponent = rule.map_or(0, |rule| rule.exponent);
                let (adopted, unsettled) = Unsettled::adopt(totals, old, own, exponent);
                mine.merge(&adopted);
                chunk.unsettled.extend(unsettled.map(|unsettled| (*offset, Box::new(unsettled))));
                grown += mine.native_bytes() as isize - before;
            }
            Totals::Set => {
                place(Kind::Set)?;
            }
        }
    }
    Ok(grown)
}

/// Begins a new life of a series in memory (R3), with the code that does it to a stored row; how many bytes its native
/// histogram shrank. A series that is not there stays so.
pub(super) fn reset(chunk: &mut Chunk, offset: u16, at: i64, rules: &[Option<Rule>]) -> usize {
    let mut block = Stored::default();
    let Some(state) = chunk.get(offset) else { return 0 };
    block.put_state(&state, chunk.resets_of(offset), rules);
    block.reset(offset, at);
    let row = block.rows.remove(&offset).expect("put above");
    let index = |kind| chunk.index(kind, offset).expect("the kind that the state has");
    let mut shrunk = 0;
    match row.totals {
        Totals::Counter(total) => {
            let at = index(Kind::Counter);
            chunk.counters[at].total = total;
        }
        Totals::Gauge(sum) => {
            let at = index(Kind::Gauge);
            chunk.gauges[at].sum = sum;
        }
        Totals::Distribution(totals, _) => {
            let at = index(Kind::Distribution);
            shrunk = chunk.distributions[at].totals.native_bytes();
            chunk.distributions[at].totals = totals;
            chunk.unsettled.remove(&offset);
        }
        Totals::Set => {}
    }
    if let Some(identity) = chunk.identity_mut(offset) {
        identity.created = row.created;
    }
    chunk.resets.extend(row.resets.map(|resets| (offset, resets)));
    shrunk
}

/// Encodes the series of a chunk, of `departed` those that are not in the chunk, and of `stored` the rest; those of
/// `resets` as their new life begins at `at`.
pub(super) fn encode(
    chunk: Option<&Chunk>,
    departed: Option<&Stored>,
    stored: Option<Stored>,
    rules: &[Option<Rule>],
    resets: impl Iterator<Item = u16>,
    at: i64,
) -> Option<Vec<u8>> {
    let mut block = stored.unwrap_or_default();
    if let Some(departed) = departed {
        block.put_all(departed);
    }
    if let Some(chunk) = chunk {
        chunk.iter().for_each(|state| block.put_state(&state, chunk.resets_of(state.identity().offset), rules));
    }
    resets.for_each(|offset| block.reset(offset, at));
    (!block.rows.is_empty()).then(|| block.write())
}

impl Stored {
    /// Keeps the totals of a series, in place of what was kept of it.
    pub(super) fn put_state(&mut self, state: &StateRef<'_>, resets: Option<&Resets>, rules: &[Option<Rule>]) {
        let identity = *state.identity();
        let totals = match state {
            StateRef::Counter(state) => Totals::Counter(state.total),
            StateRef::Gauge(state) => Totals::Gauge(state.sum.clone()),
            StateRef::Distribution(state) => {
                let rule = rules.get(identity.metric as usize).and_then(Option::as_ref);
                let index = rule.and_then(|rule| rule.bounds.as_ref()).map(|own| self.intern(&own.units));
                Totals::Distribution(state.totals.clone(), index)
            }
            StateRef::Set(_) => Totals::Set,
        };
        let (created, seen, resets) = (identity.created, identity.seen, resets.cloned().map(Box::new));
        self.rows.insert(identity.offset, StoredRow { created, seen, totals, resets });
    }

    /// Begins a new life of a series, if it is there (R3).
    pub(super) fn reset(&mut self, offset: u16, at: i64) {
        if let Some(row) = self.rows.get_mut(&offset) {
            row.reset(at);
        }
    }

    /// Keeps every row of another block, in place of its own.
    fn put_all(&mut self, other: &Stored) {
        for (offset, row) in &other.rows {
            let mut row = row.clone();
            if let Totals::Distribution(_, Some(index)) = &mut row.totals {
                *index = self.intern(&other.bounds[*index]);
            }
            self.rows.insert(*offset, row);
        }
    }

    /// The figures of a series since its last reset, in other bounds (R2). `exponent` is that of the metric's scale.
    pub(super) fn past(&self, offset: u16, own: Option<&[i64]>, exponent: u8) -> Option<PastRow> {
        let row = self.rows.get(&offset)?;
        let bounds = match &row.totals {
            Totals::Distribution(_, Some(at)) => &*self.bounds[*at],
            _ => &[],
        };
        let shape = match &row.totals {
            Totals::Distribution(totals, _) => Shape::of(totals, None, exponent),
            _ => Shape::default(),
        };
        let mut resets = row.resets.clone();
        if let Some(resets) = &mut resets {
            resets.adopt(bounds, own, &shape);
        }
        let born = Timestamp(resets.as_ref().map_or(row.created, |resets| resets.born));
        let resets = resets.map(|resets| resets.list.into()).unwrap_or_default();
        let (total, weight, buckets) = match &row.totals {
            Totals::Counter(total) => (*total, 0, Box::default()),
            Totals::Distribution(totals, _) => {
                let mut totals = totals.clone();
                totals.adopt(bounds, own, &shape);
                (totals.sum, totals.weight, totals.buckets)
            }
            Totals::Gauge(_) | Totals::Set => (0, 0, Box::default()),
        };
        Some(PastRow { born, seen: Timestamp(row.seen), resets, total, weight, buckets })
    }

    /// Forgets a series.
    pub(super) fn remove(&mut self, offset: u16) {
        self.rows.remove(&offset);
    }

    pub(super) fn rows(&self) -> &BTreeMap<u16, StoredRow> {
        &self.rows
    }

    fn intern(&mut self, bounds: &[i64]) -> usize {
        self.bounds.iter().position(|known| **known == *bounds).unwrap_or_else(|| {
            self.bounds.push(bounds.into());
            self.bounds.len() - 1
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.bounds.len() as u128);
        for bounds in &self.bounds {
            put(&mut out, bounds.len() as u128);
            let mut previous = None;
            for bound in bounds {
                match previous {
                    None => put_signed(&mut out, i128::from(*bound)),
                    Some(previous) => put(&mut out, bound.wrapping_sub(previous) as u64 as u128),
                }
                previous = Some(*bound);
            }
        }
        put(&mut out, self.rows.len() as u128);
        let mut next = 0;
        for (offset, row) in &self.rows {
            put(&mut out, u128::from(offset - next));
            next = offset + 1;
            row.write(&mut out);
            let bounds = match &row.totals {
                Totals::Distribution(_, Some(at)) => self.bounds[*at].len(),
                _ => 0,
            };
            Resets::write(row.resets.as_deref(), row.kind(), bounds, &mut out);
        }
        out
    }
}

impl StoredRow {
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What all earlier lives came to together (R3).
    pub(super) fn earlier(&self) -> Option<&Reset> {
        self.resets.as_ref().and_then(|resets| resets.list.last())
    }

    fn kind(&self) -> Kind {
        match self.totals {
            Totals::Counter(_) => Kind::Counter,
            Totals::Gauge(_) => Kind::Gauge,
            Totals::Distribution(..) => Kind::Distribution,
            Totals::Set => Kind::Set,
        }
    }

    /// Begins a new life: everything is 0 from here on, and `created` is `at`, or just behind the present one where the
    /// wall clock stepped back.
    fn reset(&mut self, at: i64) {
        let at = at.max(self.created.saturating_add(1));
        let earlier = self.resets.take().map(|resets| *resets);
        self.resets = Some(Box::new(Resets::end(earlier, self.created, at, &self.totals)));
        self.created = at;
        match &mut self.totals {
            Totals::Counter(total) => *total = 0,
            Totals::Gauge(sum) => *sum = GaugeSum::default(),
            Totals::Distribution(totals, _) => {
                let buckets = vec![0; totals.buckets.len()].into();
                *totals = DistributionTotals { buckets, ..DistributionTotals::new(None) };
            }
            Totals::Set => {}
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind() as u8);
        put_signed(out, i128::from(self.created));
        put_signed(out, i128::from(self.seen) - i128::from(self.created));
        match &self.totals {
            Totals::Counter(total) => put_signed(out, *total),
            Totals::Gauge(sum) => {
                put(out, u128::from(sum.count));
                if sum.count > 0 {
                    for value in [sum.last, sum.min, sum.max] {
                        out.extend_from_slice(&value.to_le_bytes());
                    }
                    put_signed(out, i128::from(sum.time));
                    put(out, u128::from(sum.position));
                    put_signed(out, sum.sum);
                }
            }
            Totals::Distribution(totals, bounds) => {
                put(out, u128::from(totals.samples));
                if totals.samples > 0 {
                    put(out, totals.weight);
                    put_signed(out, totals.sum);
                    put_signed(out, i128::from(totals.min));
                    put(out, totals.max.wrapping_sub(totals.min) as u64 as u128);
                }
                put(out, bounds.map_or(0, |at| at as u128 + 1));
                let mut previous = 0;
                for bucket in &totals.buckets {
                    put(out, bucket - previous);
                    previous = *bucket;
                }
                write_native(out, totals.native.as_deref());
                Adopted::write(totals.adopted.as_deref(), out);
            }
            Totals::Set => {}
        }
    }
}

fn write_native(out: &mut Vec<u8>, native: Option<&NativeTotals>) {
    let Some(native) = native else { return put(out, 0) };
    put(out, u128::from(native.lowered) + 1);
    put(out, native.keys.len() as u128);
    let mut previous = None;
    for key in &native.keys {
        match previous {
            None => put_signed(out, i128::from(*key)),
            Some(previous) => put(out, (key - previous) as u128),
        }
        previous = Some(*key);
    }
    native.weights.iter().for_each(|weight| put(out, u128::from(*weight)));
}

/// Reads a block.
///
/// # Errors
/// Where the bytes stop being one.
pub(super) fn decode(bytes: &[u8]) -> Result<Stored, Corrupt> {
    let version = *bytes.first().filter(|version| (VERSION_1..=VERSION).contains(*version)).ok_or(Corrupt { at: 0 })?;
    let mut reader = Reader { bytes, at: 1, version };
    let mut stored = Stored::default();
    for _ in 0..reader.unsigned()? {
        let len = reader.length()?;
        let mut bounds: Vec<i64> = Vec::with_capacity(len);
        for _ in 0..len {
            let bound = match bounds.last() {
                None => reader.signed_64()?,
                Some(previous) => {
                    let gap = u64::try_from(reader.unsigned()?).map_err(|_| reader.corrupt())?;
                    previous.checked_add_unsigned(gap).ok_or(reader.corrupt())?
                }
            };
            bounds.push(bound);
        }
        stored.bounds.push(bounds.into());
    }
    let mut next = 0u16;
    for _ in 0..reader.unsigned()? {
        let gap = u16::try_from(reader.unsigned()?).map_err(|_| reader.corrupt())?;
        let offset = next.checked_add(gap).filter(|offset| *offset < 1024).ok_or(reader.corrupt())?;
        next = offset + 1;
        stored.rows.insert(offset, reader.row(&stored.bounds)?);
    }
    if reader.at != bytes.len() {
        return Err(reader.corrupt());
    }
    Ok(stored)
}

/// A place in the bytes of a block.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u8,
}

impl Reader<'_> {
    pub(super) fn corrupt(&self) -> Corrupt {
        Corrupt { at: self.at }
    }

    fn row(&mut self, bounds: &[Box<[i64]>]) -> Result<StoredRow, Corrupt> {
        let kind = self.bytes.get(self.at).copied().and_then(Kind::from_code).ok_or(self.corrupt())?;
        self.at += 1;
        let created = self.signed_64()?;
        let seen = i128::from(created).checked_add(self.signed()?).and_then(|seen| i64::try_from(seen).ok());
        let seen = seen.ok_or(self.corrupt())?;
        let totals = match kind {
            Kind::Counter => Totals::Counter(self.signed()?),
            Kind::Gauge => Totals::Gauge(self.gauge()?),
            Kind::Distribution => self.distribution(bounds)?,
            Kind::Set => Totals::Set,
        };
        let bounds = match &totals {
            Totals::Distribution(_, Some(at)) => bounds[*at].len(),
            _ => 0,
        };
        let resets = if self.version >= VERSION_3 { Resets::read(self, kind, bounds)? } else { None };
        Ok(StoredRow { created, seen, totals, resets })
    }

    fn gauge(&mut self) -> Result<GaugeSum, Corrupt> {
        let mut sum = GaugeSum { count: self.unsigned_64()?, ..GaugeSum::default() };
        if sum.count > 0 {
            (sum.last, sum.min, sum.max) = (self.float()?, self.float()?, self.float()?);
            (sum.time, sum.position, sum.sum) = (self.signed_64()?, self.unsigned_64()?, self.signed()?);
        }
        Ok(sum)
    }

    fn distribution(&mut self, bounds: &[Box<[i64]>]) -> Result<Totals, Corrupt> {
        let mut totals = DistributionTotals::new(None);
        totals.samples = self.unsigned_64()?;
        if totals.samples > 0 {
            (totals.weight, totals.sum, totals.min) = (self.unsigned()?, self.signed()?, self.signed_64()?);
            let span = self.unsigned_64()?;
            totals.max = totals.min.checked_add_unsigned(span).ok_or(self.corrupt())?;
        }
        let index = match self.unsigned()? {
            0 => None,
            at if at <= bounds.len() as u128 => Some(at as usize - 1),
            _ => return Err(self.corrupt()),
        };
        if let Some(index) = index {
            let mut previous = 0u128;
            let mut buckets = Vec::with_capacity(bounds[index].len());
            for _ in 0..bounds[index].len() {
                previous = previous.checked_add(self.unsigned()?).ok_or(self.corrupt())?;
                buckets.push(previous);
            }
            totals.buckets = buckets.into();
        }
        if self.version >= VERSION_2 {
            totals.native = self.native()?;
        }
        if self.version >= VERSION {
            totals.adopted = Adopted::read(self)?;
        }
        Ok(Totals::Distribution(totals, index))
    }

    fn native(&mut self) -> Result<Option<Box<NativeTotals>>, Corrupt> {
        let lowered = match self.unsigned()? {
            0 => return Ok(None),
            form if form <= u128::from(SCHEMA_MAX) + 1 => form as u8 - 1,
            _ => return Err(self.corrupt()),
        };
        let len = self.length()?;
        let mut native = NativeTotals { lowered, keys: Vec::with_capacity(len), weights: Vec::with_capacity(len) };
        for _ in 0..len {
            let key = match native.keys.last() {
                None => self.signed_64()?,
                Some(previous) => {
                    let gap = i64::try_from(self.unsigned()?).ok().filter(|gap| *gap > 0).ok_or(self.corrupt())?;
                    i64::from(*previous).saturating_add(gap)
                }
            };
            let key = i16::try_from(key).ok().filter(|key| key.abs() <= KEY_MAX).ok_or(self.corrupt())?;
            native.keys.push(key);
        }
        for _ in 0..len {
            native.weights.push(self.unsigned_64()?);
        }
        Ok(Some(Box::new(native)))
    }

    pub(super) fn unsigned(&mut self) -> Result<u128, Corrupt> {
        let (from, read) = (self.at, varint::read_u128(self.bytes, &mut self.at));
        read.ok_or(Corrupt { at: from })
    }

    fn unsigned_64(&mut self) -> Result<u64, Corrupt> {
        u64::try_from(self.unsigned()?).map_err(|_| self.corrupt())
    }

    pub(super) fn signed(&mut self) -> Result<i128, Corrupt> {
        self.unsigned().map(varint::unzigzag_128)
    }

    pub(super) fn signed_64(&mut self) -> Result<i64, Corrupt> {
        i64::try_from(self.signed()?).map_err(|_| self.corrupt())
    }

    /// A number of things that take at least a byte each.
    pub(super) fn length(&mut self) -> Result<usize, Corrupt> {
        let length = self.unsigned()?;
        if length > (self.bytes.len() - self.at) as u128 {
            return Err(self.corrupt());
        }
        Ok(length as usize)
    }

    fn float(&mut self) -> Result<f64, Corrupt> {
        let bytes = self.bytes.get(self.at..self.at + 8).ok_or(self.corrupt())?;
        self.at += 8;
        Ok(f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }
}
