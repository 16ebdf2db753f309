//! What a series was before it was reset (R3): its earlier lives.
//!
//! In: the totals of a series and the time of a reset. Out: totals that begin at 0, and what they were, for questions about
//! the past. Owns: per series the sum of all earlier lives at each reset, cumulative, so that one subtraction tells a
//! value of any life. Invariants: earlier lives + the present totals = everything ever committed (C5); resets ascend in
//! time; the file and memory are reset by the same function ([`StoredRow::reset`](super::totals::StoredRow::reset)).

use super::adopt::{Ends, Kept, Shape, estimate};
use super::totals::{Reader, Totals};
use crate::delta::part::Corrupt;
use crate::delta::varint::{put_i128 as put_signed, put_u128 as put};
use crate::event::{Kind, Timestamp};

/// Resets that are remembered of a series, so that a script which resets every minute does not fill the file. Of an older
/// one the past shows no step any more; increments are right whatever is forgotten.
const RESETS_MAX: usize = 32;

/// A reset: when, and what all lives before it came to together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reset {
    /// Wall clock of the commit: `_created` of the life that it began.
    pub at: Timestamp,
    /// Counters: 10⁻⁹. Distributions: scale units × 4096. Else 0.
    pub total: i128,
    /// Σ weight × 4096 of distributions.
    pub weight: u128,
    /// Per declared bound the weight not above it.
    pub buckets: Box<[u128]>,
}

/// The earlier lives of one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resets {
    /// `_created` of the first life.
    pub(super) born: i64,
    /// Ascending in time; not empty.
    pub(super) list: Vec<Reset>,
}

impl Resets {
    /// One more life has ended at `at` with these totals.
    pub(super) fn end(earlier: Option<Resets>, created: i64, at: i64, totals: &Totals) -> Resets {
        let mut resets = earlier.unwrap_or(Resets { born: created, list: Vec::new() });
        let mut reset = resets.list.last().cloned().unwrap_or_default();
        reset.at = Timestamp(at);
        match totals {
            Totals::Counter(total) => reset.total = reset.total.saturating_add(*total),
            Totals::Distribution(totals, _) => {
                reset.total = reset.total.saturating_add(totals.sum);
                reset.weight = reset.weight.saturating_add(totals.weight);
                if reset.buckets.len() == totals.buckets.len() {
                    reset.buckets.iter_mut().zip(&totals.buckets).for_each(|(sum, more)| *sum += more);
                } else {
                    reset.buckets = totals.buckets.clone();
                }
            }
            Totals::Gauge(_) | Totals::Set => {}
        }
        if resets.list.len() >= RESETS_MAX {
            resets.list.remove(0);
        }
        resets.list.push(reset);
        resets
    }

    /// Goes over to a metric's present bounds, as totals do.
    pub(super) fn adopt(&mut self, old: &[i64], new: Option<&[i64]>, shape: &Shape) {
        let new = new.unwrap_or(&[]);
        if self.list.iter().all(|reset| reset.buckets.len() == old.len()) && new == old {
            return;
        }
        // Life by life, so that no life has less than nothing in a bucket.
        let mut before = Reset::default();
        let mut sum = vec![0u128; new.len()];
        for reset in &mut self.list {
            let weight = reset.weight.saturating_sub(before.weight);
            let is_whole = reset.buckets.len() == old.len();
            let mut highest = 0;
            let known = old.iter().zip(&reset.buckets).enumerate().filter(|_| is_whole).map(|(at, (bound, count))| {
                let count = count.saturating_sub(before.buckets.get(at).copied().unwrap_or(0));
                highest = count.max(highest).min(weight);
                Kept { bound: *bound, count: highest, at: weight, is_estimated: false }
            });
            let known: Vec<Kept> = known.collect();
            // Of a life that has ended only its mean is kept beside the buckets.
            let mean = (reset.total.saturating_sub(before.total)) as f64 / weight.max(1) as f64;
            let (low, high) = shape.ends().unwrap_or((mean - 1.0, mean));
            let counts = estimate(&known, weight, Ends::Guessed(low, high), shape, new);
            sum.iter_mut().zip(&counts).for_each(|(sum, (count, _))| *sum = sum.saturating_add(*count));
            before = std::mem::replace(reset, Reset { buckets: sum.clone().into(), ..reset.clone() });
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let bytes = |reset: &Reset| size_of::<Reset>() + reset.buckets.len() * size_of::<u128>();
        size_of::<Resets>() + self.list.iter().map(bytes).sum::<usize>()
    }

    /// Writes the resets of a row; `bounds` is how many its distribution has.
    pub(super) fn write(resets: Option<&Resets>, kind: Kind, bounds: usize, out: &mut Vec<u8>) {
        let list = resets.map_or(&[][..], |resets| &resets.list);
        put(out, list.len() as u128);
        let mut previous = resets.map_or(0, |resets| resets.born);
        if !list.is_empty() {
            put_signed(out, i128::from(previous));
        }
        for reset in list {
            put_signed(out, i128::from(reset.at.0) - i128::from(previous));
            previous = reset.at.0;
            if matches!(kind, Kind::Counter | Kind::Distribution) {
                put_signed(out, reset.total);
            }
            if kind == Kind::Distribution {
                put(out, reset.weight);
                let mut below = 0;
                for at in 0..bounds {
                    let bucket = reset.buckets.get(at).copied().unwrap_or(below);
                    put(out, bucket - below);
                    below = bucket;
                }
            }
        }
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(super) fn read(reader: &mut Reader<'_>, kind: Kind, bounds: usize) -> Result<Option<Box<Resets>>, Corrupt> {
        let len = reader.length()?;
        if len == 0 {
            return Ok(None);
        }
        let born = reader.signed_64()?;
        let mut resets = Resets { born, list: Vec::with_capacity(len.min(RESETS_MAX)) };
        let mut previous = born;
        for _ in 0..len {
            let at = i128::from(previous).checked_add(reader.signed()?).and_then(|at| i64::try_from(at).ok());
            previous = at.filter(|at| *at > previous).ok_or(reader.corrupt())?;
            let mut reset = Reset { at: Timestamp(previous), ..Reset::default() };
            if matches!(kind, Kind::Counter | Kind::Distribution) {
                reset.total = reader.signed()?;
            }
            if kind == Kind::Distribution {
                reset.weight = reader.unsigned()?;
                let mut below = 0u128;
                let mut buckets = Vec::with_capacity(bounds);
                for _ in 0..bounds {
                    below = below.checked_add(reader.unsigned()?).ok_or(reader.corrupt())?;
                    buckets.push(below);
                }
                reset.buckets = buckets.into();
            }
            resets.list.push(reset);
        }
        Ok(Some(Box::new(resets)))
    }
}
