//! Native histograms beside the declared buckets of totals (V5).
//!
//! In: rows of cells. Out: [`NativeBuckets`] as Prometheus counts them: bucket i of schema s holds the values in
//! (2^((i-1)·2^-s), 2^(i·2^-s)], negative ones mirrored, zero apart. Owns: weights by bucket. Invariants: a cell
//! counts where its midpoint lies (V4); at most 160 buckets, past which the schema is lowered and neighbours merge,
//! so that the state is a function of the samples, whatever the order of the rows; sums of weights never wrap.
//!
//! Source: Prometheus, "Native histograms" (specification), client_model `metrics.proto`.

use super::state::factor;
use crate::delta::part::DistributionRow;
use crate::event::Scale;
use crate::sketch::{Digits, layout};
use std::sync::OnceLock;

/// The finest resolution: 8 buckets per doubling, 9 % wide.
pub(super) const SCHEMA_MAX: u8 = 3;
/// Buckets kept; ten bytes each, which count as cells of `limits.cells`.
pub(super) const BUCKETS_MAX: usize = 160;
/// Added to an index, so that the key of a positive value is positive, that of a negative one its negation and that
/// of zero 0. Values are 1 to 10^18 units of 10^0 to 10^-12, so indexes lie within -319..=479.
const OFFSET: i16 = 512;
/// Keys lie within ± this.
pub(super) const KEY_MAX: i16 = 1023;

/// Weights by bucket, × 4096.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NativeTotals {
    /// `SCHEMA_MAX` minus the schema: how often neighbours have merged.
    pub(super) lowered: u8,
    /// Ascending.
    pub(super) keys: Vec<i16>,
    /// Of the same buckets.
    pub(super) weights: Vec<u64>,
}

/// A native histogram as it is exposed: weights (counts × 4096, V2) by bucket, each list ascending by index, without
/// empty buckets. Weights and not counts, because rounded ones that add up to a rounded count go down now and then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeBuckets {
    /// 0 to 3.
    pub schema: u8,
    /// Of negative values, by the index of their magnitude.
    pub negative: Vec<(i32, u64)>,
    /// Values that are zero.
    pub zero: u64,
    /// Of positive values.
    pub positive: Vec<(i32, u64)>,
}

impl NativeBuckets {
    /// Of no samples.
    pub fn empty() -> NativeBuckets {
        NativeBuckets { schema: SCHEMA_MAX, ..NativeBuckets::default() }
    }

    /// The relative error bound of a quantile that is read from buckets of this schema which were counted by cells of
    /// these digits (V4).
    pub fn bound(schema: u8, digits: Digits) -> f64 {
        (-f64::from(schema)).exp2().exp2() - 1.0 + digits.relative_error()
    }
}

/// The keys of the cells of magnitudes at schema 3, by digits and scale; some 7,000 numbers at 2 digits.
fn keys_of(digits: Digits, exponent: u8) -> &'static [i16] {
    const EXPONENTS: usize = Scale::EXPONENT_MAX as usize + 1;
    static TABLES: [[OnceLock<Box<[i16]>>; EXPONENTS]; 3] = [const { [const { OnceLock::new() }; EXPONENTS] }; 3];
    let per_one = 10f64.powi(i32::from(exponent));
    TABLES[digits as usize - 1][usize::from(exponent)].get_or_init(|| {
        let key = |cell: i32| match layout::midpoint(digits, cell) {
            0 => 0,
            midpoint => OFFSET + index_of(midpoint as f64 / per_one, SCHEMA_MAX) as i16,
        };
        (0..=layout::cell_max(digits)).map(key).collect()
    })
}

/// The bucket of a positive value: the least i with value ≤ 2^(i·2^-schema).
pub(super) fn index_of(value: f64, schema: u8) -> i32 {
    (value.log2() * f64::from(1u32 << schema)).ceil() as i32
}

/// The key of the bucket that holds a key's bucket when neighbours merge once.
fn lower(key: i16) -> i16 {
    // Bucket j of the next lower schema holds the buckets 2j-1 and 2j.
    let merged = |key: i16| ((key - OFFSET + 1) >> 1) + OFFSET;
    match key {
        0 => 0,
        key if key < 0 => -merged(-key),
        key => merged(key),
    }
}

impl NativeTotals {
    /// Adds the cells of a row.
    pub(super) fn add(&mut self, row: &DistributionRow<'_>, exponent: u8) {
        let keys = keys_of(row.digits, exponent);
        let factor = factor(row.weighted, true);
        let mut at = 0;
        for (cell, count) in row.cells {
            // A clamped value's cell is the last; what no sample can have counts there, too.
            let key = keys[(cell.unsigned_abs() as usize).min(keys.len() - 1)];
            let key = (0..self.lowered).fold(if *cell < 0 { -key } else { key }, |key, _| lower(key));
            self.add_one(&mut at, key, count.saturating_mul(factor));
        }
        self.shrink();
    }

    /// Adds weight to a bucket that stands at `at` or later.
    fn add_one(&mut self, at: &mut usize, key: i16, weight: u64) {
        while self.keys.get(*at).is_some_and(|known| *known < key) {
            *at += 1;
        }
        if self.keys.get(*at) == Some(&key) {
            self.weights[*at] = self.weights[*at].saturating_add(weight);
        } else {
            if self.keys.len() == self.keys.capacity() {
                // By eighths: doubling would leave half unused, a hundred thousand times.
                self.keys.reserve_exact((self.keys.len() / 8).max(4));
                self.weights.reserve_exact((self.weights.len() / 8).max(4));
            }
            self.keys.insert(*at, key);
            self.weights.insert(*at, weight);
        }
    }

    /// Adds other totals.
    pub(super) fn merge(&mut self, other: &NativeTotals) {
        while self.lowered < other.lowered {
            self.lower_schema();
        }
        let mut at = 0;
        for (key, weight) in other.keys.iter().zip(&other.weights) {
            let key = (other.lowered..self.lowered).fold(*key, |key, _| lower(key));
            self.add_one(&mut at, key, *weight);
        }
        self.shrink();
    }

    /// Merges neighbours until there are few enough. Sixty doublings of either sign fit at schema 0.
    fn shrink(&mut self) {
        while self.keys.len() > BUCKETS_MAX && self.lowered < SCHEMA_MAX {
            self.lower_schema();
        }
    }

    /// Gives memory back by half the resolution; true when there was any left to give.
    pub(super) fn coarsen(&mut self) -> bool {
        if self.lowered == SCHEMA_MAX {
            return false;
        }
        self.lower_schema();
        self.keys.shrink_to_fit();
        self.weights.shrink_to_fit();
        true
    }

    fn lower_schema(&mut self) {
        self.lowered += 1;
        let mut kept = 0;
        for at in 0..self.keys.len() {
            let (key, weight) = (lower(self.keys[at]), self.weights[at]);
            if kept > 0 && self.keys[kept - 1] == key {
                self.weights[kept - 1] = self.weights[kept - 1].saturating_add(weight);
            } else {
                (self.keys[kept], self.weights[kept]) = (key, weight);
                kept += 1;
            }
        }
        self.keys.truncate(kept);
        self.weights.truncate(kept);
    }

    /// Σ weight.
    pub(super) fn weight(&self) -> u128 {
        self.weights.iter().map(|weight| u128::from(*weight)).sum()
    }

    /// The weights by bucket.
    pub(super) fn buckets(&self, out: &mut NativeBuckets) {
        out.schema = SCHEMA_MAX - self.lowered;
        out.negative.clear();
        out.positive.clear();
        out.zero = 0;
        for (key, weight) in self.keys.iter().zip(&self.weights).filter(|(_, weight)| **weight > 0) {
            let index = i32::from(key.abs() - OFFSET);
            match key.signum() {
                0 => out.zero = *weight,
                1 => out.positive.push((index, *weight)),
                _ => out.negative.push((index, *weight)),
            }
        }
        out.negative.reverse();
    }

    /// The least and the greatest magnitude of a key's bucket in base units; `None` is zero.
    pub(super) fn magnitudes(&self, key: i16) -> Option<(f64, f64)> {
        let edge = |index: i16| (f64::from(index) / f64::from(1u32 << (SCHEMA_MAX - self.lowered))).exp2();
        let index = key.abs() - OFFSET;
        (key != 0).then(|| (edge(index - 1), edge(index)))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<NativeTotals>() + self.keys.capacity() * 2 + self.weights.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::WEIGHT_ONE;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row<'a>(cells: &'a [(i32, u64)], digits: Digits) -> DistributionRow<'a> {
        let count = cells.iter().map(|(_, count)| count).sum();
        DistributionRow { digits, count, weighted: false, sum: 0, min: 0, max: 0, cells, below: &[] }
    }

    fn cells_of(digits: Digits, values: &[i64]) -> Vec<(i32, u64)> {
        let mut counts = BTreeMap::new();
        for value in values {
            *counts.entry(layout::cell_of(digits, *value)).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    fn added(rows: &[&[i64]], digits: Digits, exponent: u8) -> NativeTotals {
        let mut totals = NativeTotals::default();
        for values in rows {
            totals.add(&row(&cells_of(digits, values), digits), exponent);
        }
        totals
    }

    #[test]
    fn v4_bounds_belong_to_the_bucket_below() {
        for (value, schema, expected) in [
            (1.0, 0, 0),
            (1.5, 0, 1),
            (2.0, 0, 1),
            (2.1, 0, 2),
            (0.5, 0, -1),
            (1.0, 3, 0),
            (2.0, 3, 8),
            (1.09, 3, 1),
            (1.0906, 3, 2),
            (0.042, 3, -36),
        ] {
            assert_eq!(index_of(value, schema), expected, "{value} at schema {schema}");
        }
        for doublings in -300..300i32 {
            assert_eq!(index_of(f64::from(doublings).exp2(), 3), doublings * 8);
        }
    }

    #[test]
    fn v5_the_widest_range_keeps_its_counts_at_a_lower_schema() {
        let mut values = vec![0, 0, layout::VALUE_MAX, -layout::VALUE_MAX];
        for n in 0..59 {
            values.extend([1 << n, -(1 << n), 3 << n, 5 << n]);
        }
        let values: Vec<i64> =
            values.into_iter().map(|value: i64| value.clamp(-layout::VALUE_MAX, layout::VALUE_MAX)).collect();
        for (digits, exponent) in [(Digits::One, 0), (Digits::Two, 9), (Digits::Three, 12)] {
            let totals = added(&[&values], digits, exponent);
            assert!(totals.keys.len() <= BUCKETS_MAX, "{}", totals.keys.len());
            let mut buckets = NativeBuckets::default();
            totals.buckets(&mut buckets);
            let sum: u64 = buckets.positive.iter().chain(&buckets.negative).map(|(_, weight)| weight).sum();
            let expected = (values.len() as u64 * WEIGHT_ONE, 2 * WEIGHT_ONE, 0);
            assert_eq!((sum + buckets.zero, buckets.zero, buckets.schema), expected);
        }
    }

    #[test]
    fn v2_weights_stand_in_their_buckets_as_they_came() {
        let cells = cells_of(Digits::Two, &[1, 1000, 1_000_000]);
        let cells: Vec<_> = cells.into_iter().map(|(cell, _)| (cell, 1500)).collect();
        let mut totals = NativeTotals::default();
        totals.add(&DistributionRow { weighted: true, ..row(&cells, Digits::Two) }, 6);
        let mut buckets = NativeBuckets::default();
        totals.buckets(&mut buckets);
        assert_eq!(totals.weight(), 4500);
        assert!(buckets.positive.len() == 3 && buckets.positive.iter().all(|(_, weight)| *weight == 1500));
    }

    fn values() -> impl Strategy<Value = Vec<i64>> {
        let value = (any::<bool>(), 0u32..60, any::<i64>()).prop_map(|(negative, bits, value)| {
            let magnitude = (value & ((1i64 << bits) - 1)).min(layout::VALUE_MAX);
            if negative { -magnitude } else { magnitude }
        });
        proptest::collection::vec(value, 0..400)
    }

    /// Every bucket as it is shown, by sign and index, zero with neither.
    fn shown(totals: &NativeTotals) -> BTreeMap<(i32, i32), u64> {
        let mut buckets = NativeBuckets::default();
        totals.buckets(&mut buckets);
        let mut all = BTreeMap::from([((0, 0), buckets.zero)]);
        all.extend(buckets.negative.iter().map(|(index, weight)| ((-1, *index), *weight)));
        all.extend(buckets.positive.iter().map(|(index, weight)| ((1, *index), *weight)));
        all
    }

    proptest! {
        #[test]
        fn v2_q2_no_bucket_ever_goes_down_whatever_the_weights(
            adds in proptest::collection::vec((-40i32..40, 1u64..20_000), 1..60),
        ) {
            let mut totals = NativeTotals::default();
            let mut before = shown(&totals);
            let mut sum = 0;
            for (place, weight) in adds {
                sum += weight;
                let value = i64::from(place) * i64::from(place) * i64::from(place) * 1000;
                let cells = [(layout::cell_of(Digits::Two, value), weight)];
                totals.add(&DistributionRow { weighted: true, ..row(&cells, Digits::Two) }, 6);
                let now = shown(&totals);
                for (bucket, weight) in &before {
                    prop_assert!(now.get(bucket).is_some_and(|now| now >= weight), "{bucket:?} {weight} {now:?}");
                }
                prop_assert_eq!(now.values().sum::<u64>(), sum, "they add up to the count");
                before = now;
            }
        }

        #[test]
        fn v5_any_split_gives_the_same_and_each_cell_counts_at_its_midpoint(
            values in values(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4), exponent in 0u8..=12,
        ) {
            let whole = added(&[&values], Digits::Two, exponent);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len() + 1)).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let rows: Vec<&[i64]> = cuts.windows(2).map(|pair| &values[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&added(&rows, Digits::Two, exponent), &whole);
            let mut merged = NativeTotals::default();
            for part in rows.iter().rev() {
                merged.merge(&added(&[*part], Digits::Two, exponent));
            }
            prop_assert_eq!(&merged, &whole);
            // Oracle: every value on its own.
            let mut buckets = NativeBuckets::default();
            whole.buckets(&mut buckets);
            let mut expected: BTreeMap<(bool, i32), u64> = BTreeMap::new();
            let mut zero = 0;
            for value in &values {
                let midpoint = layout::midpoint(Digits::Two, layout::cell_of(Digits::Two, *value));
                if midpoint == 0 {
                    zero += WEIGHT_ONE;
                } else {
                    let magnitude = midpoint.unsigned_abs() as f64 / 10f64.powi(i32::from(exponent));
                    *expected.entry((midpoint < 0, index_of(magnitude, buckets.schema))).or_insert(0) += WEIGHT_ONE;
                }
            }
            let side = |negative: bool| -> Vec<(i32, u64)> {
                expected.iter().filter(|((sign, _), _)| *sign == negative).map(|((_, i), n)| (*i, *n)).collect()
            };
            prop_assert_eq!(side(false), buckets.positive);
            prop_assert_eq!(side(true), buckets.negative);
            prop_assert_eq!(zero, buckets.zero);
            let finer = SCHEMA_MAX - whole.lowered + 1;
            if finer <= SCHEMA_MAX {
                let keys: std::collections::BTreeSet<_> = values.iter().map(|value| {
                    let midpoint = layout::midpoint(Digits::Two, layout::cell_of(Digits::Two, *value));
                    let magnitude = midpoint.unsigned_abs() as f64 / 10f64.powi(i32::from(exponent));
                    (midpoint.signum(), if midpoint == 0 { 0 } else { index_of(magnitude, finer) })
                }).collect();
                prop_assert!(keys.len() > BUCKETS_MAX, "the schema is no lower than it must be");
            }
        }
    }
}
