//! Intermediate results: one value per series and evaluated time, in one allocation.
//!
//! In: what selectors and operations produce. Out: the same to the next operation. Invariants: `values` holds a row of
//! `steps` per head; labels do not change along a row; a place without a value holds [`ABSENT`], and operations look
//! before they calculate; a place with a histogram holds `ABSENT` as its value, so that whatever does not know
//! histograms passes them over.

use super::histogram::Cells;
use super::value::Quality;
use crate::event::Labels;
use std::sync::Arc;

/// The evaluated times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Nanoseconds since the epoch.
    pub(super) start: i64,
    /// Nanoseconds, positive.
    pub(super) step: i64,
    /// At least one.
    pub(super) steps: usize,
}

impl Grid {
    pub(super) fn time(&self, step: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(step as i64))
    }

    pub(super) fn last(&self) -> i64 {
        self.time(self.steps - 1)
    }
}

/// No value: a NaN that no calculation produces.
pub(super) const ABSENT: f64 = f64::from_bits(0x7ff8_6162_7365_6e74);

#[inline(always)]
pub(super) fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

/// Who a row is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Head {
    /// `__name__`
    pub(super) name: Option<Arc<str>>,
    pub(super) labels: Labels,
}

/// An instant vector at every evaluated time.
#[derive(Clone, Debug)]
pub(super) struct Vector {
    pub(super) steps: usize,
    pub(super) heads: Vec<Head>,
    /// `heads × steps`
    pub(super) values: Vec<f64>,
    /// Empty, or as long as `values`.
    pub(super) cells: Vec<Option<Box<Cells>>>,
    /// Empty, or as long as `values`.
    pub(super) quality: Vec<Option<Quality>>,
    /// True when the order of rows is an answer.
    pub(super) is_sorted: bool,
}

impl Vector {
    pub(super) fn new(steps: usize) -> Vector {
        let (heads, values, cells, quality) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Vector { steps, heads, values, cells, quality, is_sorted: false }
    }

    /// A row without values.
    pub(super) fn push_absent(&mut self, head: Head) -> usize {
        self.heads.push(head);
        self.values.resize(self.heads.len() * self.steps, ABSENT);
        if !self.cells.is_empty() {
            self.cells.resize(self.values.len(), None);
        }
        if !self.quality.is_empty() {
            self.quality.resize(self.values.len(), None);
        }
        self.heads.len() - 1
    }

    /// Takes the last row away again.
    pub(super) fn pop(&mut self) {
        self.heads.pop();
        let len = self.heads.len() * self.steps;
        self.values.truncate(len);
        self.cells.truncate(len);
        self.quality.truncate(len);
    }

    /// Adds a row unless it is empty.
    pub(super) fn push_row(&mut self, head: Head, row: &[f64]) {
        if row.iter().all(|value| is_absent(*value)) {
            return;
        }
        let at = self.push_absent(head);
        self.values[at * self.steps..].copy_from_slice(row);
    }

    pub(super) fn get(&self, at: usize, step: usize) -> f64 {
        self.values[at * self.steps + step]
    }

    pub(super) fn set(&mut self, at: usize, step: usize, value: f64) {
        self.values[at * self.steps + step] = value;
    }

    pub(super) fn cells_at(&self, at: usize, step: usize) -> Option<&Cells> {
        self.cells.get(at * self.steps + step)?.as_deref()
    }

    pub(super) fn set_cells(&mut self, at: usize, step: usize, cells: Box<Cells>) {
        if self.cells.is_empty() {
            self.cells.resize(self.values.len(), None);
        }
        self.values[at * self.steps + step] = ABSENT;
        self.cells[at * self.steps + step] = Some(cells);
    }

    pub(super) fn quality_at(&self, at: usize, step: usize) -> Option<Quality> {
        *self.quality.get(at * self.steps + step)?
    }

    pub(super) fn set_quality(&mut self, at: usize, step: usize, quality: Quality) {
        if self.quality.is_empty() {
            self.quality.resize(self.values.len(), None);
        }
        self.quality[at * self.steps + step] = Some(quality);
    }

    /// True when there is a value or a histogram.
    pub(super) fn has(&self, at: usize, step: usize) -> bool {
        !is_absent(self.get(at, step)) || self.cells_at(at, step).is_some()
    }

    /// Copies a place of another vector, whatever it holds.
    pub(super) fn copy(&mut self, at: usize, step: usize, from: &Vector, from_at: usize) {
        self.set(at, step, from.get(from_at, step));
        if let Some(cells) = from.cells_at(from_at, step) {
            self.set_cells(at, step, Box::new(cells.clone()));
        }
        if let Some(quality) = from.quality_at(from_at, step) {
            self.set_quality(at, step, quality);
        }
    }

    /// Forgets the names: the values are not what the names say any more.
    pub(super) fn drop_names(&mut self) {
        self.heads.iter_mut().for_each(|head| head.name = None);
    }

    /// The rows in another order, or fewer of them.
    pub(super) fn reordered(mut self, order: &[usize]) -> Vector {
        let mut out = Vector::new(self.steps);
        out.is_sorted = self.is_sorted;
        for from in order {
            let at = out.push_absent(self.heads[*from].clone());
            for step in 0..self.steps {
                out.set(at, step, self.get(*from, step));
                if let Some(cells) = self.cells.get_mut(*from * self.steps + step).and_then(Option::take) {
                    out.set_cells(at, step, cells);
                }
                if let Some(quality) = self.quality_at(*from, step) {
                    out.set_quality(at, step, quality);
                }
            }
        }
        out
    }
}
