//! Decoded rows that wait to be sorted: those of a few series from several generations.
//!
//! In: rows in the order of their generation. Out: the same by (id, slice). Owns: their cells in two arenas.
//! Invariant: a row comes out as it went in.

use super::super::error::Fault;
use super::Push;
use crate::delta::CounterSum;
use crate::delta::GaugeSum;
use crate::delta::part::{DistributionRow, RowValue};
use crate::event::SeriesId;
use crate::sketch::{Digits, Distinct};
use std::ops::Range;

enum Value {
    Counter(CounterSum),
    Gauge(GaugeSum),
    Distribution(Head),
    Set(Distinct),
}

/// A distribution whose cells stand in the arenas.
struct Head {
    digits: Digits,
    weighted: bool,
    count: u64,
    sum: i128,
    min: i64,
    max: i64,
    cells: Range<usize>,
    below: Range<usize>,
}

/// See the file's head.
#[derive(Default)]
pub(super) struct RowBuffer {
    rows: Vec<(SeriesId, u32, Value)>,
    cells: Vec<(i32, u64)>,
    below: Vec<(u16, u64)>,
}

impl RowBuffer {
    pub(super) fn add(&mut self, id: SeriesId, slice: u32, value: &RowValue<'_>) {
        let value = match value {
            RowValue::Counter(sum) => Value::Counter(*sum),
            RowValue::Gauge(sum) => Value::Gauge(sum.clone()),
            RowValue::Set(distinct) => Value::Set(distinct.clone()),
            RowValue::Distribution(row) => {
                let (cells, below) = (self.cells.len(), self.below.len());
                self.cells.extend_from_slice(row.cells);
                self.below.extend_from_slice(row.below);
                let DistributionRow { digits, count, weighted, sum, min, max, .. } = *row;
                let (cells, below) = (cells..self.cells.len(), below..self.below.len());
                Value::Distribution(Head { digits, weighted, count, sum, min, max, cells, below })
            }
        };
        self.rows.push((id, slice, value));
    }

    /// Gives everything away in order, rows of the same place in the order they came.
    pub(super) fn drain(&mut self, push: &mut Push<'_>) -> Result<(), Fault> {
        self.rows.sort_by_key(|(id, slice, _)| (*id, *slice));
        for (id, slice, value) in self.rows.drain(..) {
            let value = match value {
                Value::Counter(sum) => RowValue::Counter(sum),
                Value::Gauge(sum) => RowValue::Gauge(sum),
                Value::Set(distinct) => RowValue::Set(distinct),
                Value::Distribution(head) => {
                    let Head { digits, weighted, count, sum, min, max, cells, below } = head;
                    let (cells, below) = (&self.cells[cells], &self.below[below]);
                    RowValue::Distribution(DistributionRow { digits, count, weighted, sum, min, max, cells, below })
                }
            };
            push(id, slice, &value)?;
        }
        self.cells.clear();
        self.below.clear();
        Ok(())
    }
}
