//! Series that follow from another one of their block: a percentage from its bytes, the used from the free.
//!
//! In: the whole numbers of one series after the other. Out: for some the line through the values of an earlier one
//! that predicts theirs. Owns: the series of a block so far, on both sides the same. Invariant: predictions are f64
//! products and sums, rounded each, so every machine has the same.
//!
//! ```text
//! relation = back:varint shape:u8 [slope:f64] [offset:f64]
//!            value ≈ slope · value of the series `back` + 1 before + offset
//! shape    = 0 slope and offset | 1 slope | 2 offset, the slope is 1 | 3 offset, the slope is -1
//! ```
//!
//! The column of a related series holds what the prediction is off by, in its own form.

use super::column::Heads;
use super::floats::Form;
use crate::delta::part::Corrupt;
use crate::delta::varint::put_u64;
use std::ops::Range;

/// Rows on which a relation is tried before it is taken.
const PROBES: usize = 16;
/// Bits a row that a series must cost before another is looked for; a relation costs 20 bytes and its own search.
const COSTLY_BITS: u32 = 6;
/// Rows below which 20 bytes are not worth it.
const ROWS_MIN: usize = 24;

const BOTH: u8 = 0;
const SLOPE: u8 = 1;
const PLUS: u8 = 2;
const MINUS: u8 = 3;

/// The series of a block so far.
#[derive(Default)]
pub(super) struct Neighbours {
    values: Vec<i64>,
    series: Vec<Neighbour>,
}

struct Neighbour {
    /// Rows compare only where both have the same slots.
    pattern: usize,
    form: Form,
    /// Empty where there is nothing to compare.
    values: Range<usize>,
}

/// How a series follows from another.
pub(super) struct Relation {
    /// Its place among the neighbours.
    neighbour: usize,
    back: u64,
    slope: f64,
    offset: f64,
}

impl Relation {
    #[inline(always)]
    fn predict(&self, value: f64, form: Form) -> i64 {
        form.whole(self.slope * value + self.offset)
    }

    /// Writes the relation.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.back);
        let shape = match (self.slope, self.offset) {
            (_, 0.0) => SLOPE,
            (1.0, _) => PLUS,
            (-1.0, _) => MINUS,
            _ => BOTH,
        };
        out.push(shape);
        if shape <= SLOPE {
            out.extend(self.slope.to_bits().to_le_bytes());
        }
        if shape != SLOPE {
            out.extend(self.offset.to_bits().to_le_bytes());
        }
    }
}

fn bits(difference: i64) -> u32 {
    64 - difference.unsigned_abs().leading_zeros()
}

impl Neighbours {
    /// Bytes that its vectors have taken.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * 8 + self.series.capacity() * size_of::<Neighbour>()
    }

    /// A new block.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.series.clear();
    }

    /// Adds the next series; every series is added, in order.
    pub(super) fn add(&mut self, pattern: usize, form: Form, values: &[i64]) {
        let start = self.values.len();
        self.values.extend_from_slice(values);
        self.series.push(Neighbour { pattern, form, values: start..self.values.len() });
    }

    /// The relation of a series to an earlier one, if there is one that spares more than it costs.
    pub(super) fn relation(&self, pattern: usize, form: Form, values: &[i64]) -> Option<Relation> {
        let n = values.len();
        if n < ROWS_MIN {
            return None;
        }
        // What the rows cost by themselves, on some of them.
        let probe = |at: usize| 1 + at * (n - 2) / (PROBES - 1);
        let alone: u32 = (0..PROBES).map(|at| bits(values[probe(at)].wrapping_sub(values[probe(at) - 1]))).sum();
        if alone < COSTLY_BITS * PROBES as u32 {
            return None;
        }
        let first = form.value(values[0]);
        let far = (0..PROBES)
            .map(probe)
            .max_by(|a, b| (form.value(values[*a]) - first).abs().total_cmp(&(form.value(values[*b]) - first).abs()))?;
        let (from, to) = (first, form.value(values[far]));
        for (number, neighbour) in self.series.iter().enumerate().rev() {
            let other = &self.values[neighbour.values.clone()];
            if neighbour.pattern != pattern || other.len() != n || other[0] == other[far] {
                continue;
            }
            let value = |at: usize| neighbour.form.value(other[at]);
            let mut slope = (to - from) / (value(far) - value(0));
            if (slope.abs() - 1.0).abs() < 1e-9 {
                slope = slope.signum();
            }
            let mut offset = from - slope * value(0);
            if offset.abs() <= 1e-9 * from.abs().max(to.abs()) {
                (slope, offset) = (if to.abs() > from.abs() { to / value(far) } else { from / value(0) }, 0.0);
            }
            if !slope.is_finite() || !offset.is_finite() {
                continue;
            }
            let relation = Relation { neighbour: number, back: (self.series.len() - 1 - number) as u64, slope, offset };
            let mut related = 0;
            for at in (0..PROBES).map(probe) {
                related += bits(values[at].wrapping_sub(relation.predict(value(at), form)));
                if related * 2 > alone {
                    break;
                }
            }
            if related * 2 <= alone {
                return Some(relation);
            }
        }
        None
    }

    /// What the predictions of a series are off by.
    pub(super) fn differences(&self, relation: &Relation, form: Form, values: &[i64], out: &mut Vec<i64>) {
        let neighbour = &self.series[relation.neighbour];
        let others = &self.values[neighbour.values.clone()];
        out.clear();
        let predicted = others.iter().map(|other| relation.predict(neighbour.form.value(*other), form));
        out.extend(values.iter().zip(predicted).map(|(value, predicted)| value.wrapping_sub(predicted)));
    }

    /// Adds the predictions to what they were off by.
    pub(super) fn restore(&self, relation: &Relation, form: Form, values: &mut [i64]) {
        let neighbour = &self.series[relation.neighbour];
        for (value, other) in values.iter_mut().zip(&self.values[neighbour.values.clone()]) {
            *value = value.wrapping_add(relation.predict(neighbour.form.value(*other), form));
        }
    }

    /// Reads the relation of a series with this pattern.
    pub(super) fn read_relation(&self, pattern: usize, heads: &mut Heads<'_>) -> Result<Relation, Corrupt> {
        let back = heads.below(self.series.len())?;
        let neighbour = self.series.len() - 1 - back;
        let shape = heads.byte()?;
        let slope = match shape {
            BOTH | SLOPE => heads.f64()?,
            PLUS => 1.0,
            MINUS => -1.0,
            _ => return Err(heads.corrupt()),
        };
        let offset = if shape == SLOPE { 0.0 } else { heads.f64()? };
        let of = &self.series[neighbour];
        if of.pattern != pattern || of.values.is_empty() {
            return Err(heads.corrupt());
        }
        Ok(Relation { neighbour, back: back as u64, slope, offset })
    }
}
