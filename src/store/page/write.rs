//! Writing a page.
//!
//! In: rows in ascending (series, slot). Out: bytes. Invariant: every row of a series stands in one body.

use super::VERSION;
use crate::delta::part::RowValue;
use crate::delta::varint::{put_i64, put_i128, put_u64};
use crate::event::{Kind, SeriesId};

/// Writes one page: rows of one kind. Series come in ascending id, slots of a series ascending, one row a (series, slot).
pub struct PageWriter {
    kind: Kind,
    ids: Vec<(SeriesId, usize)>,
    bodies: Vec<u8>,
    slot: u16,
}

impl PageWriter {
    /// An empty page of one kind.
    pub fn new(kind: Kind) -> PageWriter {
        PageWriter { kind, ids: Vec::new(), bodies: Vec::new(), slot: 0 }
    }

    /// Adds a row.
    pub fn row(&mut self, id: SeriesId, slot: u16, value: &RowValue<'_>) {
        assert!(value.kind() == self.kind, "a page holds one kind");
        let gap = match self.ids.last() {
            Some((last, _)) if *last == id => {
                assert!(slot > self.slot, "slots come in order");
                slot - self.slot
            }
            last => {
                assert!(last.is_none_or(|(last, _)| id > *last), "series come in order");
                self.ids.push((id, self.bodies.len()));
                slot
            }
        };
        self.slot = slot;
        let out = &mut self.bodies;
        put_u64(out, u64::from(gap));
        match value {
            RowValue::Counter(sum) => put_i128(out, sum.nanos),
            RowValue::Gauge(sum) => {
                put_u64(out, sum.count);
                out.extend_from_slice(&sum.last.to_bits().to_le_bytes());
                put_i64(out, sum.time);
                put_u64(out, sum.position);
                if sum.count > 1 {
                    out.extend_from_slice(&sum.min.to_bits().to_le_bytes());
                    out.extend_from_slice(&sum.max.to_bits().to_le_bytes());
                }
                put_i128(out, sum.sum);
            }
            RowValue::Distribution(row) => {
                put_u64(out, row.count);
                out.push(u8::from(row.weighted) << 2 | row.digits as u8);
                put_i64(out, row.min);
                put_i64(out, row.max);
                put_i128(out, row.sum);
                put_u64(out, row.cells.len() as u64);
                for (cell, count) in row.cells {
                    put_i64(out, i64::from(*cell));
                    put_u64(out, *count);
                }
                put_u64(out, row.below.len() as u64);
                for (bound, weight) in row.below {
                    put_u64(out, u64::from(*bound));
                    put_u64(out, *weight);
                }
            }
            RowValue::Set(distinct) => distinct.encode(out),
        }
    }

    /// An upper estimate of what [`finish`](Self::finish) would give now.
    pub fn bytes_len(&self) -> usize {
        16 + self.ids.len() * 10 + self.bodies.len()
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The finished bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes_len());
        out.extend([VERSION, self.kind as u8]);
        put_u64(&mut out, self.ids.len() as u64);
        let mut previous = 0;
        for (at, (id, start)) in self.ids.iter().enumerate() {
            let end = self.ids.get(at + 1).map_or(self.bodies.len(), |(_, next)| *next);
            put_u64(&mut out, u64::from(id.0) - previous);
            previous = u64::from(id.0);
            put_u64(&mut out, (end - start) as u64);
        }
        out.extend_from_slice(&self.bodies);
        out
    }
}
