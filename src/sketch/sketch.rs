//! The sketch: cells with counts, in whichever form is smallest for its contents.
//!
//! In: ascending (cell, count) pairs of one delta, or another sketch. Out: the same, and answers (`quantile`). Owns at
//! most one heap block (the dense form two). Invariants: counts are exact (they widen and never saturate); subtracting
//! what was added gives back what was there; the form is a function of the contents; a sketch is weighted or not as a
//! whole, and a weighted one counts in 1/4096 of a sample (rule V2).
//!
//! Forms: *inline* holds up to 11 samples as sorted keys in the struct itself; *sparse* holds sorted keys and their
//! counts; *blocks* holds runs of 32 neighbouring cells without keys; *dense* is the `hdrhistogram` crate's histogram
//! and takes the place of blocks once a count needs 64 bits.

use super::Digits;
use super::form::{Part, Store, by_form, inline_max, insert_inline, remove_inline};
use super::layout::{cell_max, coarsen};
use std::ops::ControlFlow;

/// Weight of one sample in a weighted sketch: a rate is kept as `round(4096 / rate)`, at most 0.013 % off.
pub const WEIGHT_ONE: u64 = 4096;

/// A subtraction asked for more than the sketch holds: the two do not stem from the same history. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sketch holds less than what is to be subtracted from it")]
pub struct Underflow;

/// A mergeable sketch of a distribution: 32 bytes, and nothing on the heap up to 11 samples (5 at 3 digits).
#[derive(Clone)]
pub struct Sketch {
    store: Store,
    /// Samples in the inline form, cells in use in every other.
    used: u32,
    digits: Digits,
    weighted: bool,
}

const _: () = assert!(size_of::<Sketch>() <= 32, "the view holds one sketch per series");

impl Sketch {
    /// An empty, unweighted sketch.
    pub const fn new(digits: Digits) -> Self {
        Sketch { store: Store::empty(digits), used: 0, digits, weighted: false }
    }

    /// The layout of its cells.
    pub const fn digits(&self) -> Digits {
        self.digits
    }

    /// Whether it holds no sample.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether counts are in 1/4096 of a sample.
    pub const fn weighted(&self) -> bool {
        self.weighted
    }

    /// Adds `count` (in 1/4096 of a sample if weighted) to one cell.
    ///
    /// # Panics
    /// As `add_sorted`.
    pub fn add(&mut self, cell: i32, count: u64) {
        self.add_sorted(&[(cell, count)]);
    }

    /// Adds cells of this sketch's digits and weighting, strictly ascending. Costs a few nanoseconds a cell once the
    /// cells or their neighbours are in use, and allocates only where new ones need room.
    ///
    /// # Panics
    /// If the count of one cell passes 2^64 - 1: 2^32 samples of the largest weight (rate 2^-20) in one window.
    pub fn add_sorted(&mut self, cells: &[(i32, u64)]) {
        self.check(cells);
        let used = self.used as usize;
        let rebuild_from = by_form!(&mut self.store,
            inline(keys) => {
                let count = cells.iter().fold(0u64, |sum, &(_, count)| sum.saturating_add(count));
                let fits = !self.weighted && count <= (keys.len() - used) as u64;
                if fits {
                    self.used = insert_inline(keys, used, cells) as u32;
                }
                if fits || count == 0 { cells.len() } else { 0 }
            },
            sparse(sparse) => {
                let added = sparse.add(used, cells);
                self.used += added.new as u32;
                added.applied
            },
            blocks(blocks) => {
                let added = blocks.add(cells);
                self.used += added.new as u32;
                added.applied
            },
            dense(dense) => {
                self.used += dense.add(cells) as u32;
                cells.len()
            },
        );
        if rebuild_from < cells.len() || !self.store.fits(self.digits, self.used as usize) {
            self.rebuild_with(&cells[rebuild_from..]);
        }
    }

    /// Takes cells away that were added before, strictly ascending: the exact inverse of `add_sorted`.
    ///
    /// # Errors
    /// `Underflow` if a cell holds less; the sketch is then unchanged.
    pub fn subtract_sorted(&mut self, cells: &[(i32, u64)]) -> Result<(), Underflow> {
        self.check(cells);
        let used = self.used as usize;
        let mut may_narrow = false;
        by_form!(&mut self.store,
            inline(keys) => self.used = remove_inline(keys, used, cells).ok_or(Underflow)? as u32,
            sparse(sparse) => {
                if !sparse.holds(used, cells) {
                    return Err(Underflow);
                }
                let subtracted = sparse.subtract(used, cells);
                self.used -= subtracted.removed as u32;
                may_narrow = subtracted.may_narrow;
            },
            blocks(blocks) => {
                let subtracted = blocks.subtract(cells).ok_or(Underflow)?;
                self.used -= subtracted.removed as u32;
                may_narrow = subtracted.may_narrow;
            },
            dense(dense) => {
                if cells.iter().any(|&(cell, count)| dense.count_at(cell) < count) {
                    return Err(Underflow);
                }
                // The crate has no operation to lower one cell, and few series ever count past 32 bits.
                self.rebuild_without(cells);
                return Ok(());
            },
        );
        if self.fits_inline()
            || (may_narrow && self.store.is_too_wide(self.used as usize))
            || !self.store.fits(self.digits, self.used as usize)
        {
            self.rebuild_with(&[]);
        }
        Ok(())
    }

    /// Counts in 1/4096 of a sample from here on; what was counted is scaled. Does nothing if it does already.
    pub fn make_weighted(&mut self) {
        if !self.weighted {
            let mut cells = self.collect();
            for (_, count) in &mut cells {
                *count = weigh(*count);
            }
            self.weighted = true;
            self.rebuild(&cells);
        }
    }

    /// Adds another sketch. The result has the lower digits of the two and is weighted if either is.
    ///
    /// # Panics
    /// As `add_sorted`.
    pub fn merge(&mut self, other: &Sketch) {
        self.coarsen(other.digits);
        if other.weighted {
            self.make_weighted();
        }
        self.add_sorted(&other.collect_as(self.digits, self.weighted));
    }

    /// Takes another sketch away that was merged before: the exact inverse of `merge`, digits and weighting aside.
    ///
    /// # Errors
    /// `Underflow` if this sketch holds less, has more digits, or is unweighted and the other is not.
    pub fn subtract(&mut self, other: &Sketch) -> Result<(), Underflow> {
        if other.is_empty() {
            return Ok(());
        }
        if self.digits > other.digits || (other.weighted && !self.weighted) {
            return Err(Underflow);
        }
        self.subtract_sorted(&other.collect_as(self.digits, self.weighted))
    }

    /// Lowers the digits; equal to having counted at the lower digits from the start. Never raises them.
    pub fn coarsen(&mut self, digits: Digits) {
        if digits < self.digits {
            let cells = self.collect_as(digits, self.weighted);
            self.digits = digits;
            self.rebuild(&cells);
        }
    }

    /// The cells in use with their counts, ascending.
    pub fn cells(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        self.store.cells(self.used as usize)
    }

    /// Sum of the counts: samples, or 1/4096 of them if weighted.
    pub fn total(&self) -> u128 {
        let mut total = 0u128;
        self.walk(|part| {
            total += u128::from(part.total);
            ControlFlow::Continue(())
        });
        total
    }

    /// Asks the processor for the heap block. Whoever folds into many sketches calls it one or two sketches ahead, which
    /// halves the cost of `add_sorted` and `subtract_sorted` once the sketches outgrow the cache.
    #[inline]
    pub fn prefetch(&self) {
        self.store.prefetch();
    }

    /// Bytes on the heap, as asked of the allocator.
    pub fn heap_bytes(&self) -> usize {
        self.store.heap_bytes()
    }

    /// Visits the contents in ascending order, whole blocks at a time.
    pub(super) fn walk(&self, visit: impl FnMut(Part<'_>) -> ControlFlow<()>) {
        self.store.walk(self.used as usize, visit);
    }

    /// A caller's cells must ascend and lie in the layout; a violation is a bug that would corrupt every later answer.
    fn check(&self, cells: &[(i32, u64)]) {
        debug_assert!(cells.windows(2).all(|pair| pair[0].0 < pair[1].0), "cells ascend strictly");
        debug_assert!(cells.iter().all(|&(cell, _)| cell.abs() <= cell_max(self.digits)), "cells lie in the layout");
    }

    /// Whether a heap form holds so little that the inline form is due.
    fn fits_inline(&self) -> bool {
        let few = inline_max(self.digits);
        !self.store.is_inline()
            && self.used as usize <= few
            && (self.is_empty() || (!self.weighted && self.total() <= few as u128))
    }

    fn collect(&self) -> Vec<(i32, u64)> {
        let mut cells = Vec::with_capacity(self.used as usize);
        cells.extend(self.cells());
        cells
    }

    /// The cells in the layout of `digits`, which is not finer, and in 1/4096 of a sample if asked for.
    fn collect_as(&self, digits: Digits, weighted: bool) -> Vec<(i32, u64)> {
        let mut cells: Vec<(i32, u64)> = Vec::with_capacity(self.used as usize);
        for (cell, count) in self.cells() {
            let cell = coarsen(cell, self.digits, digits);
            let count = if weighted && !self.weighted { weigh(count) } else { count };
            match cells.last_mut() {
                Some(last) if last.0 == cell => last.1 = sum(last.1, count),
                _ => cells.push((cell, count)),
            }
        }
        cells
    }

    /// Adds cells by making the form anew, for whatever the forms cannot do in place.
    #[cold]
    fn rebuild_with(&mut self, cells: &[(i32, u64)]) {
        let mut merged = Vec::with_capacity(self.used as usize + cells.len());
        let mut added = cells.iter().copied().filter(|&(_, count)| count > 0).peekable();
        for (cell, count) in self.cells() {
            while let Some(next) = added.next_if(|&(other, _)| other < cell) {
                merged.push(next);
            }
            let more = added.next_if(|&(other, _)| other == cell).map_or(0, |(_, more)| more);
            merged.push((cell, sum(count, more)));
        }
        merged.extend(added);
        self.rebuild(&merged);
    }

    /// Subtracts cells, all of which are held, by making the form anew.
    #[cold]
    fn rebuild_without(&mut self, cells: &[(i32, u64)]) {
        let mut left = self.collect();
        let mut at = 0;
        for &(cell, count) in cells.iter().filter(|&&(_, count)| count > 0) {
            while left[at].0 < cell {
                at += 1;
            }
            left[at].1 -= count;
        }
        left.retain(|&(_, count)| count > 0);
        self.rebuild(&left);
    }

    /// Takes the form that these cells call for.
    fn rebuild(&mut self, cells: &[(i32, u64)]) {
        self.store = Store::build(self.digits, self.weighted, cells);
        self.used = if self.store.is_inline() {
            cells.iter().map(|&(_, count)| count as u32).sum()
        } else {
            cells.len() as u32
        };
    }
}

/// Equal if both stand for the same weights at the same digits, whatever the forms and the unit they count in.
impl PartialEq for Sketch {
    fn eq(&self, other: &Sketch) -> bool {
        let unit = |sketch: &Sketch| u128::from(if sketch.weighted { 1 } else { WEIGHT_ONE });
        let (one, two) = (unit(self), unit(other));
        self.digits == other.digits
            && self
                .cells()
                .map(|(cell, count)| (cell, u128::from(count) * one))
                .eq(other.cells().map(|(cell, count)| (cell, u128::from(count) * two)))
    }
}

impl Eq for Sketch {}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (form, width) = self.store.name();
        write!(f, "Sketch({:?}, weighted: {}, {form} of width {width}) ", self.digits, self.weighted)?;
        f.debug_map().entries(self.cells()).finish()
    }
}

fn sum(count: u64, more: u64) -> u64 {
    count.checked_add(more).expect("the count of a cell fits 64 bits")
}

fn weigh(count: u64) -> u64 {
    count.checked_mul(WEIGHT_ONE).expect("the weight of a cell fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::layout::cell_of;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ALL: [Digits; 3] = [Digits::One, Digits::Two, Digits::Three];

    type Model = BTreeMap<i32, u64>;

    fn cells_of(digits: Digits, values: &[i64]) -> Vec<(i32, u64)> {
        let mut model = Model::new();
        values.iter().for_each(|&value| *model.entry(cell_of(digits, value)).or_default() += 1);
        model.into_iter().collect()
    }

    fn sketch_of(digits: Digits, values: &[i64]) -> Sketch {
        let mut sketch = Sketch::new(digits);
        sketch.add_sorted(&cells_of(digits, values));
        sketch
    }

    /// The contents are the model's, and the form is the one that these contents always take.
    fn check(sketch: &Sketch, model: &Model) {
        assert!(sketch.cells().eq(model.iter().map(|(&cell, &count)| (cell, count))), "{sketch:?} is not {model:?}");
        assert_eq!(sketch.total(), model.values().map(|&count| u128::from(count)).sum::<u128>());
        assert_eq!(sketch.is_empty(), model.is_empty());
        let mut direct = Sketch::new(sketch.digits());
        if sketch.weighted() {
            direct.make_weighted();
        }
        direct.rebuild(&model.iter().map(|(&cell, &count)| (cell, count)).collect::<Vec<_>>());
        same(sketch, &direct);
    }

    /// Equal in contents, unit, form and size.
    fn same(one: &Sketch, two: &Sketch) {
        assert_eq!(one, two);
        assert_eq!(
            (one.weighted, one.used, one.store.name()),
            (two.weighted, two.used, two.store.name()),
            "{one:?} {two:?}"
        );
        if one.store.name().0 != "dense" {
            assert_eq!(one.heap_bytes(), two.heap_bytes());
        }
    }

    fn digits() -> impl Strategy<Value = Digits> {
        prop::sample::select(&ALL[..])
    }

    /// Values of one series: clustered like latencies, spread over all magnitudes, or both, with zeros and negatives.
    fn values(count: usize) -> impl Strategy<Value = Vec<i64>> {
        let clustered = (0i64..4_000).prop_map(|value| 1_000_000 + value * 1_000);
        let spread = (0u32..60, any::<i64>()).prop_map(|(shift, noise)| (noise >> shift) / 16);
        let small = -40i64..40;
        let mixed = prop_oneof![8 => clustered.clone(), 1 => spread.clone(), 1 => small.clone()];
        prop_oneof![
            prop::collection::vec(clustered, 0..count),
            prop::collection::vec(spread, 0..count),
            prop::collection::vec(small, 0..count),
            prop::collection::vec(mixed, 0..count),
        ]
    }

    /// Cells with counts of every width; few distinct cells, so that operations meet. Sets that lie close together take
    /// blocks, the others entries.
    fn counted() -> impl Strategy<Value = Vec<(i32, u64)>> {
        let close = || (1_000i32..1_100).boxed();
        let spread = prop_oneof![4 => close(), 1 => -150i32..150, 1 => -1_800i32..1_800].boxed();
        let small = || (1u64..4).boxed();
        let wide = prop_oneof![
            6 => small(), 2 => 100u64..300, 1 => 60_000u64..70_000, 1 => (1u64 << 32) - 2..(1 << 33),
        ]
        .boxed();
        let cells = |cell: BoxedStrategy<i32>, count: BoxedStrategy<u64>| {
            prop::collection::btree_map(cell, count, 0..60).prop_map(|model| model.into_iter().collect())
        };
        prop_oneof![
            cells(close(), small()),
            cells(close(), wide.clone()),
            cells(spread.clone(), small()),
            cells(spread, wide)
        ]
    }

    proptest! {
        #[test]
        fn v3_merging_any_split_in_any_order_is_the_direct_sketch(
            digits in digits(), values in values(600), parts in prop::collection::vec(0usize..4, 600), shift in 0usize..4,
        ) {
            let direct = sketch_of(digits, &values);
            let mut split = vec![Vec::new(); 4];
            values.iter().zip(&parts).for_each(|(&value, &part)| split[part].push(value));
            let parts: Vec<Sketch> = split.iter().map(|values| sketch_of(digits, values)).collect();
            let mut chain = Sketch::new(digits);
            (0..4).for_each(|at| chain.merge(&parts[(at + shift) % 4]));
            same(&chain, &direct);
            let (mut left, mut right) = (parts[0].clone(), parts[2].clone());
            left.merge(&parts[1]);
            right.merge(&parts[3]);
            let mut tree = right.clone();
            tree.merge(&left);
            same(&tree, &direct);
            left.merge(&right);
            same(&left, &direct);
        }

        #[test]
        fn v3_adding_one_by_one_is_adding_at_once(digits in digits(), values in values(300)) {
            let mut one_by_one = Sketch::new(digits);
            values.iter().for_each(|&value| one_by_one.add(cell_of(digits, value), 1));
            same(&one_by_one, &sketch_of(digits, &values));
        }

        #[test]
        fn v3_subtract_is_the_inverse_of_merge(digits in digits(), kept in values(400), expired in values(400)) {
            let (kept, expired) = (sketch_of(digits, &kept), sketch_of(digits, &expired));
            let mut window = kept.clone();
            window.merge(&expired);
            window.subtract(&expired).unwrap();
            same(&window, &kept);
            window.subtract(&kept).unwrap();
            same(&window, &Sketch::new(digits));
        }

        #[test]
        fn v3_every_form_follows_the_model_through_every_operation(
            digits in digits(), steps in prop::collection::vec((counted(), any::<bool>()), 1..16),
        ) {
            let (mut sketch, mut model) = (Sketch::new(digits), Model::new());
            let limit = cell_max(digits);
            for (mut cells, adds) in steps {
                cells.retain(|&(cell, _)| cell.abs() <= limit);
                if adds {
                    sketch.add_sorted(&cells);
                    cells.iter().for_each(|&(cell, count)| *model.entry(cell).or_default() += count);
                } else {
                    // Asking for more than is held changes nothing; what is held of it goes.
                    if cells.iter().any(|&(cell, count)| model.get(&cell).copied().unwrap_or(0) < count) {
                        let before = sketch.clone();
                        prop_assert_eq!(sketch.subtract_sorted(&cells), Err(Underflow));
                        same(&sketch, &before);
                    }
                    for (cell, count) in &mut cells {
                        *count = (*count).min(model.get(cell).copied().unwrap_or(0));
                    }
                    sketch.subtract_sorted(&cells).unwrap();
                    cells.iter().filter(|&&(_, count)| count > 0).for_each(|(cell, count)| {
                        *model.get_mut(cell).unwrap() -= count;
                    });
                    model.retain(|_, count| *count > 0);
                }
                check(&sketch, &model);
            }
        }

        #[test]
        fn v3_coarsening_is_counting_at_fewer_digits(values in values(500)) {
            for from in ALL {
                for to in ALL {
                    let mut sketch = sketch_of(from, &values);
                    sketch.coarsen(to);
                    same(&sketch, &sketch_of(from.min(to), &values));
                }
            }
        }

        #[test]
        fn r2_sketches_of_different_digits_merge_at_the_lower(
            one in values(200), two in values(200), digits_one in digits(), digits_two in digits(),
        ) {
            let mut forth = sketch_of(digits_one, &one);
            forth.merge(&sketch_of(digits_two, &two));
            let mut back = sketch_of(digits_two, &two);
            back.merge(&sketch_of(digits_one, &one));
            same(&forth, &back);
            let lower = digits_one.min(digits_two);
            same(&forth, &sketch_of(lower, &[one.clone(), two].concat()));
            forth.subtract(&sketch_of(digits_one, &one)).unwrap();
        }

        #[test]
        fn v2_merging_shifts_the_unweighted_side(
            digits in digits(), plain in values(200), heavy in prop::collection::btree_map(-500i32..500, 1u64..20_000, 0..60),
        ) {
            let plain = sketch_of(digits, &plain);
            let heavy: Vec<(i32, u64)> = heavy.into_iter().filter(|&(cell, _)| cell.abs() <= cell_max(digits)).collect();
            let mut weighted = Sketch::new(digits);
            weighted.make_weighted();
            weighted.add_sorted(&heavy);
            let (mut forth, mut back) = (plain.clone(), weighted.clone());
            forth.merge(&weighted);
            back.merge(&plain);
            same(&forth, &back);
            let mut model: Model = plain.cells().map(|(cell, count)| (cell, count * WEIGHT_ONE)).collect();
            heavy.iter().for_each(|&(cell, count)| *model.entry(cell).or_default() += count);
            check(&forth, &model);
            // Exact inverse in weight: what is left stands for the same samples, in 1/4096 each.
            forth.subtract(&weighted).unwrap();
            prop_assert_eq!(&forth, &plain);
            back.subtract(&plain).unwrap();
            same(&back, &weighted);
            let mut unweighted = plain.clone();
            prop_assert_eq!(unweighted.subtract(&weighted).is_err(), !weighted.is_empty());
        }
    }

    #[test]
    fn v3_the_form_is_a_function_of_the_contents() {
        let run = |cells: std::ops::Range<i32>, step: usize, count: u64| -> Vec<(i32, u64)> {
            cells.step_by(step).map(|cell| (cell, count)).collect()
        };
        for (digits, cells, form) in [
            (Digits::Two, run(0..0, 1, 0), ("inline", 0)),
            (Digits::Two, run(0..11, 1, 1), ("inline", 0)),
            (Digits::Two, run(7..8, 1, 11), ("inline", 0)),
            (Digits::Three, run(0..5, 1, 1), ("inline", 0)),
            (Digits::Two, run(7..8, 1, 12), ("sparse", 1)),
            (Digits::Two, run(0..900, 30, 1), ("sparse", 1)),
            (Digits::Two, run(0..900, 30, 256), ("sparse", 2)),
            (Digits::Two, run(0..900, 30, 65_536), ("sparse", 4)),
            (Digits::Two, run(0..900, 30, 1 << 32), ("sparse", 8)),
            (Digits::Three, run(-9_000..9_000, 300, 1), ("sparse", 1)),
            (Digits::Three, run(-9_000..9_000, 300, 256), ("sparse", 2)),
            (Digits::Three, run(-9_000..9_000, 300, 65_536), ("sparse", 4)),
            (Digits::Three, run(-9_000..9_000, 300, 1 << 32), ("sparse", 8)),
            (Digits::Two, run(-200..200, 2, 255), ("blocks", 1)),
            (Digits::Two, run(-200..200, 1, 256), ("blocks", 2)),
            (Digits::Three, run(-200..200, 1, 65_536), ("blocks", 4)),
            (Digits::One, run(-200..200, 1, 1 << 32), ("dense", 8)),
            (Digits::Two, run(0..200, 1, u64::MAX / 2), ("dense", 8)),
        ] {
            let mut sketch = Sketch::new(digits);
            // From the top down, one by one, so that each form is grown into and not only built.
            cells.iter().rev().for_each(|&(cell, count)| sketch.add(cell, count));
            assert_eq!(sketch.store.name(), form, "{sketch:?}");
            check(&sketch, &cells.iter().copied().collect());
            let copy = sketch.clone();
            sketch.merge(&copy);
            check(&sketch, &cells.iter().map(|&(cell, count)| (cell, 2 * count)).collect());
            sketch.subtract(&copy).unwrap();
            assert_eq!(sketch.store.name(), form);
            same(&sketch, &copy);
            for &(cell, count) in &cells {
                sketch.subtract_sorted(&[(cell, count)]).unwrap();
            }
            assert_eq!((sketch.store.name().0, sketch.heap_bytes()), ("inline", 0));
        }
    }

    #[test]
    fn v3_the_dense_form_grows_past_both_ends_and_shrinks_back() {
        let mut model: Model = (100..400).map(|cell| (cell, 1 << 33)).collect();
        let mut sketch = Sketch::new(Digits::Two);
        sketch.add_sorted(&model.clone().into_iter().collect::<Vec<_>>());
        let top = cell_max(Digits::Two);
        for cells in [(400..401), (401..900), (-700..-300), (-300..100), (top - 200..top + 1), (-top..-top + 3)] {
            let cells: Vec<(i32, u64)> = cells.map(|cell| (cell, 5)).collect();
            sketch.add_sorted(&cells);
            cells.iter().for_each(|&(cell, count)| *model.entry(cell).or_default() += count);
            assert_eq!(sketch.store.name(), ("dense", 8));
            check(&sketch, &model);
        }
        assert_eq!(sketch.subtract_sorted(&[(100, 1), (top - 300, 1)]), Err(Underflow));
        let heavy: Vec<(i32, u64)> = (100..400).map(|cell| (cell, (1 << 33) - 1)).collect();
        sketch.subtract_sorted(&heavy).unwrap();
        heavy.iter().for_each(|(cell, count)| *model.get_mut(cell).unwrap() -= count);
        assert_eq!(sketch.store.name(), ("blocks", 1));
        check(&sketch, &model);
    }

    #[test]
    fn v3_counts_widen_and_never_saturate() {
        let mut sketch = Sketch::new(Digits::Two);
        let mut expected = 0u64;
        for count in [1, 10, 244, 1, 65_279, 1, u64::from(u32::MAX), 1, 1 << 62] {
            sketch.add(1_234, count);
            expected += count;
            assert_eq!(sketch.cells().collect::<Vec<_>>(), [(1_234, expected)]);
        }
        let overflow = std::panic::catch_unwind(move || sketch.add(1_234, u64::MAX - (1 << 62)));
        assert!(overflow.is_err(), "a count past 64 bits is an error, not a wrong number");
    }

    #[test]
    fn v3_counts_of_zero_leave_no_trace() {
        for length in [0, 5, 40, 400] {
            let cells: Vec<(i32, u64)> = (0..length).map(|cell| (cell, 1)).collect();
            let mut sketch = Sketch::new(Digits::Two);
            sketch.add_sorted(&cells);
            let before = sketch.clone();
            sketch.add_sorted(&[(-900, 0), (3, 0), (2_000, 0)]);
            sketch.subtract_sorted(&[(-900, 0), (3, 0), (2_000, 0)]).unwrap();
            same(&sketch, &before);
        }
    }

    #[test]
    fn v3_sizes_of_a_latency_series() {
        let size = |samples| {
            let values = crate::sketch::quantile::tests::lognormal(7, samples, 17.0, 0.8);
            sketch_of(Digits::Two, &values).heap_bytes()
        };
        assert_eq!(size_of::<Sketch>(), 32);
        assert_eq!(size(11), 0);
        assert!(size(30) <= 140, "{}", size(30));
        assert!(size(600) <= 1_200, "{}", size(600));
        assert!(size(3_000) <= 2_400, "{}", size(3_000));
    }
}
