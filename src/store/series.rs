//! Rows of table `series`, and the small readers and writers that all rows use.
//!
//! In: series as the caller knows them. Out: rows of up to 1,024 of them, and back. Invariant: no bytes
//! make a reader panic or allocate more than they hold.

use super::error::{Fault, corrupt};
use crate::delta::varint::{put_u64 as put_varint, read_u64};
use crate::event::{Kind, Labels, Metric, Scale, SeriesId, Timestamp, series_hash};
use crate::sketch::Digits;
use std::collections::HashMap;
use std::sync::Arc;

/// Most series in a row: a million new series are a thousand rows (100,000 rows in a transaction cost
/// 65-220 ms).
const SERIES_ROWS: usize = 1024;
/// The length after which a row ends early.
const SERIES_BYTES: usize = 256 * 1024;

/// A series as the file keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesDef {
    /// Durable number.
    pub id: SeriesId,
    /// [`series_hash`] of kind, name and labels; not stored beside them.
    pub hash: u128,
    /// What it is.
    pub kind: Kind,
    /// Of its metric.
    pub name: Arc<str>,
    /// Of its metric; never changes (R2).
    pub scale: Scale,
    /// Of its metric; the word, empty for none.
    pub unit: Arc<str>,
    /// Of its metric when the series was created.
    pub digits: Digits,
    /// Canonical.
    pub labels: Labels,
    /// Time of the commit that gave it its id (S2).
    pub created: Timestamp,
}

impl SeriesDef {
    /// A new series of a metric.
    pub fn new(id: SeriesId, hash: u128, metric: &Metric, labels: Labels, created: Timestamp) -> SeriesDef {
        debug_assert_eq!(hash, series_hash(metric.kind, &metric.name, &labels), "S1");
        SeriesDef {
            id,
            hash,
            kind: metric.kind,
            name: metric.name.clone(),
            scale: metric.scale,
            unit: metric.unit.as_str().into(),
            digits: metric.digits,
            labels,
            created,
        }
    }
}

/// Encodes as many of the series as fit one row (ids dense, one time of creation); returns how many.
pub(super) fn encode_series(series: &[SeriesDef], out: &mut Vec<u8>) -> usize {
    let created = series[0].created;
    let mut numbers: HashMap<(&str, Kind, u8, u8, &str), usize> = HashMap::new();
    let (mut metrics, mut rows, mut taken) = (Vec::new(), Vec::new(), 0);
    for def in series.iter().take(SERIES_ROWS).take_while(|def| def.created == created) {
        if rows.len() > SERIES_BYTES {
            break;
        }
        let next = numbers.len();
        let (scale, digits) = (def.scale.exponent(), def.digits as u8);
        let number = *numbers.entry((&def.name, def.kind, scale, digits, &def.unit)).or_insert_with(|| {
            metrics.extend_from_slice(&[def.kind as u8, scale, digits]);
            put_bytes(&mut metrics, def.name.as_bytes());
            put_bytes(&mut metrics, def.unit.as_bytes());
            next
        });
        put_varint(&mut rows, number as u64);
        put_bytes(&mut rows, def.labels.as_bytes());
        taken += 1;
    }
    out.clear();
    out.extend_from_slice(&created.0.to_le_bytes());
    put_varint(out, numbers.len() as u64);
    out.append(&mut metrics);
    put_varint(out, taken as u64);
    out.append(&mut rows);
    taken
}

/// The series of a row of table `series`.
pub(super) fn decode_series(first: u32, bytes: &[u8], visit: impl FnMut(SeriesDef)) -> Result<u32, Fault> {
    decode_series_of(first, bytes, |_, _, _| true, visit)
}

/// Those series of a row whose kind, name and scale are wanted; the labels of others are passed over.
pub(super) fn decode_series_of(
    first: u32,
    bytes: &[u8],
    is_wanted: impl Fn(Kind, &str, Scale) -> bool,
    mut visit: impl FnMut(SeriesDef),
) -> Result<u32, Fault> {
    let mut read = |reader: &mut Reader<'_>| {
        let created = Timestamp(reader.i64()?);
        let mut metrics = Vec::new();
        for _ in 0..reader.varint()? {
            let kind = Kind::from_code(reader.u8()?)?;
            let scale = Scale::from_exponent(reader.u8()?)?;
            let digits = Digits::from_u8(reader.u8()?)?;
            let name: Arc<str> = std::str::from_utf8(reader.bytes()?).ok()?.into();
            let unit: Arc<str> = std::str::from_utf8(reader.bytes()?).ok()?.into();
            let is_wanted = is_wanted(kind, &name, scale);
            metrics.push((kind, scale, digits, name, unit, is_wanted));
        }
        let rows = u32::try_from(reader.varint()?).ok()?;
        for row in 0..rows {
            let (kind, scale, digits, name, unit, is_wanted) = metrics.get(usize::try_from(reader.varint()?).ok()?)?;
            let labels = reader.bytes()?;
            if !is_wanted {
                continue;
            }
            let labels = Labels::from_bytes(labels)?;
            visit(SeriesDef {
                id: SeriesId(first.checked_add(row)?),
                hash: series_hash(*kind, name, &labels),
                kind: *kind,
                name: name.clone(),
                scale: *scale,
                unit: unit.clone(),
                digits: *digits,
                labels,
                created,
            });
        }
        Some(rows)
    };
    decode_whole(bytes, &mut read).ok_or_else(|| corrupt(format_args!("the row of series {first} does not decode")))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// At most so many bytes of a text, whole characters only.
pub(super) fn cut_text(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Runs a decoder that must use all bytes.
pub(super) fn decode_whole<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Option<T> {
    let mut reader = Reader { bytes };
    let value = read(&mut reader)?;
    reader.bytes.is_empty().then_some(value)
}

/// Takes fields off the front of bytes; `None` past their end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk()?;
        self.bytes = tail;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut at = 0;
        let value = read_u64(self.bytes, &mut at)?;
        self.bytes = &self.bytes[at..];
        Some(value)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (head, tail) = self.bytes.split_at_checked(len)?;
        self.bytes = tail;
        Some(head)
    }
}
