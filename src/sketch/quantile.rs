//! Quantiles of a sketch, and how right they are (rule V4).
//!
//! The q-quantile is the sample of rank max(1, ⌈q·count⌉) in ascending order. It is answered by the midpoint of its
//! cell, clamped to the exact least and greatest value seen, which the caller keeps beside the sketch.

use super::layout::midpoint;
use super::{Digits, Sketch};
use std::ops::ControlFlow;

/// Rank, from 1, of the sample that is the `q`-quantile of `count` samples (or weights): max(1, ⌈q·count⌉).
///
/// `q` is the decimal somebody wrote: a product within rounding of a whole number is that number, so that 0.07 of 100
/// is the 7th sample and not the 8th. `q` outside [0, 1] counts as the nearer end.
pub fn rank(q: f64, count: u128) -> u128 {
    let exact = q.clamp(0.0, 1.0) * count as f64;
    let nearest = exact.round();
    let rank = if (exact - nearest).abs() <= exact * (4.0 * f64::EPSILON) { nearest } else { exact.ceil() };
    (rank as u128).clamp(1, count.max(1))
}

/// Relative error bound of a quantile that reads `value_units` scale units: what the cell allows or half the unit that
/// each sample was rounded to, whichever is larger. Infinite at zero, where only the half unit itself can be promised.
pub fn bound(digits: Digits, value_units: f64) -> f64 {
    digits.relative_error().max(0.5 / value_units.abs())
}

impl Sketch {
    /// The `q`-quantile in scale units, clamped to `[min, max]`; `None` if the sketch is empty.
    pub fn quantile(&self, q: f64, min: i64, max: i64) -> Option<i64> {
        let mut out = Vec::with_capacity(1);
        self.quantiles(&[q], min, max, &mut out);
        out.pop()
    }

    /// Several quantiles in one pass, `qs` ascending in [0, 1]. `out` is cleared and gets one value per quantile, in
    /// scale units and clamped to `[min, max]`; it stays empty if the sketch is.
    pub fn quantiles(&self, qs: &[f64], min: i64, max: i64, out: &mut Vec<i64>) {
        debug_assert!(qs.is_sorted(), "quantiles ascend");
        out.clear();
        let total = self.total();
        if total == 0 {
            return;
        }
        let (mut below, mut ranks) = (0u128, qs.iter().map(|&q| rank(q, total)).peekable());
        self.walk(|part| {
            let upto = below + u128::from(part.total);
            while let Some(rank) = ranks.next_if(|&rank| rank <= upto) {
                let cell = part.cell_of_rank((rank - below) as u64);
                // `min` bounds last, so that a caller whose bounds crossed gets a value and no panic.
                out.push(midpoint(self.digits(), cell).min(max).max(min));
            }
            below = upto;
            if ranks.peek().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sketch::WEIGHT_ONE;
    use crate::sketch::layout::{VALUE_MAX, cell_of};
    use proptest::prelude::*;

    const ALL: [Digits; 3] = [Digits::One, Digits::Two, Digits::Three];
    /// Per cent, so that the oracle's rank is integer arithmetic and shares nothing with `rank`.
    const PERCENTS: [u64; 7] = [0, 1, 50, 90, 95, 99, 100];

    /// xorshift64*: the same samples in every run.
    fn uniform(seed: u64, count: usize) -> impl Iterator<Item = f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
        })
        .take(count)
    }

    /// Samples of a lognormal distribution, by Box and Muller.
    pub(in crate::sketch) fn lognormal(seed: u64, count: usize, mu: f64, sigma: f64) -> Vec<i64> {
        let pairs: Vec<f64> = uniform(seed, 2 * count).collect();
        let normal = |pair: &[f64]| (-2.0 * (1.0 - pair[0]).ln()).sqrt() * (std::f64::consts::TAU * pair[1]).cos();
        pairs.chunks_exact(2).map(|pair| (mu + sigma * normal(pair)).exp() as i64).collect()
    }

    fn distributions() -> Vec<(&'static str, Vec<i64>)> {
        let scaled = |seed, count, shape: &dyn Fn(f64) -> f64| -> Vec<i64> {
            uniform(seed, count).map(|u| shape(u).clamp(-1e18, 1e18) as i64).collect()
        };
        vec![
            ("heavy tail", scaled(1, 5_000, &|u| 1_000.0 * (1.0 - u).powf(-1.0 / 0.7))),
            ("bimodal", scaled(2, 3_000, &|u| if u < 0.5 { 100.0 + u * 40.0 } else { 5e9 + u * 1e9 })),
            ("constant", vec![42_000_000; 1_000]),
            ("one sample", vec![42_000_000]),
            ("two samples", vec![1, VALUE_MAX]),
            ("zeros", vec![0; 500]),
            ("mostly zeros", scaled(3, 900, &|u| if u < 0.7 { 0.0 } else { u * 1e6 })),
            ("negative", scaled(4, 2_000, &|u| -1e6 - u * 1e7)),
            ("both signs", scaled(5, 2_500, &|u| (u - 0.5) * 1e5)),
            ("uniform", scaled(6, 10_000, &|u| u * 1e9)),
            ("lognormal", lognormal(7, 3_000, 17.0, 0.8)),
            ("wide lognormal", lognormal(8, 3_000, 20.0, 4.0)),
            ("tiny values", scaled(9, 1_000, &|u| u * 4.0)),
            ("huge values", scaled(10, 1_000, &|u| 1e18 - u * 1e17)),
            ("exponential", scaled(11, 4_000, &|u| -(1.0 - u).ln() * 1e6)),
            ("seven samples", scaled(12, 7, &|u| u * 1e6)),
        ]
    }

    /// Every quantile lies within the stated bound of the sample that an exact sort puts at its rank.
    fn check(name: &str, digits: Digits, values: &[i64]) {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        let mut plain = Sketch::new(digits);
        values.iter().for_each(|&value| plain.add(cell_of(digits, value), 1));
        let mut weighted = plain.clone();
        weighted.make_weighted();
        let qs = PERCENTS.map(|percent| percent as f64 / 100.0);
        for sketch in [&plain, &weighted] {
            let mut at_once = Vec::new();
            sketch.quantiles(&qs, min, max, &mut at_once);
            for ((percent, q), &together) in PERCENTS.iter().zip(qs).zip(&at_once) {
                let rank = (percent * sorted.len() as u64).div_ceil(100).max(1);
                let exact = sorted[rank as usize - 1];
                let answer = sketch.quantile(q, min, max).unwrap();
                assert_eq!(answer, together);
                let error = (answer as i128 - exact as i128).unsigned_abs() as f64;
                let allowed = digits.relative_error() * exact.unsigned_abs() as f64;
                assert!(error <= allowed, "{name} {digits:?} q={q}: {answer}, exactly {exact}");
                assert!(allowed <= bound(digits, exact as f64) * exact.unsigned_abs() as f64 || exact == 0);
                assert!((min..=max).contains(&answer));
            }
        }
    }

    #[test]
    fn v4_quantiles_are_within_the_bound_of_an_exact_sort() {
        for (name, values) in distributions() {
            ALL.iter().for_each(|&digits| check(name, digits, &values));
        }
    }

    proptest! {
        #[test]
        fn v4_quantiles_of_any_samples(values in prop::collection::vec(-VALUE_MAX..=VALUE_MAX, 1..80), shift in 0u32..58) {
            let values: Vec<i64> = values.iter().map(|value| value >> shift).collect();
            ALL.iter().for_each(|&digits| check("any", digits, &values));
        }

        #[test]
        fn v4_rank_is_the_decimal_ceiling(per_mille in 0u64..=1_000, count in 1u64..1_000_000_000) {
            let expected = (u128::from(per_mille) * u128::from(count)).div_ceil(1_000).max(1);
            prop_assert_eq!(rank(per_mille as f64 / 1_000.0, u128::from(count)), expected);
        }
    }

    #[test]
    fn v4_one_sample_reads_as_itself() {
        let mut sketch = Sketch::new(Digits::Two);
        sketch.add(cell_of(Digits::Two, 42_000_000), 1);
        for q in [0.0, 0.5, 1.0] {
            assert_eq!(sketch.quantile(q, 42_000_000, 42_000_000), Some(42_000_000));
        }
    }

    #[test]
    fn v4_an_empty_sketch_has_no_quantile() {
        let mut out = vec![1];
        assert_eq!(Sketch::new(Digits::Two).quantile(0.5, 0, 0), None);
        Sketch::new(Digits::Two).quantiles(&[0.5], 0, 0, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn v4_the_bound_is_the_digits_or_half_a_unit() {
        assert_eq!(bound(Digits::Two, 42e6), 0.01);
        assert_eq!(bound(Digits::Two, 10.0), 0.05);
        assert_eq!(bound(Digits::Three, -2.0), 0.25);
        assert_eq!(bound(Digits::One, 0.0), f64::INFINITY);
    }

    #[test]
    fn v2_ranks_go_over_weights() {
        // A sample at rate 0.01 stands for 100: the median of 1 × 10, 100 × 20 and 99 × 30 is 20, and so is any quantile
        // from 0.5 % to 50.5 %.
        let mut sketch = Sketch::new(Digits::Two);
        sketch.make_weighted();
        sketch.add_sorted(&[(10, WEIGHT_ONE), (20, 100 * WEIGHT_ONE), (30, 99 * WEIGHT_ONE)]);
        let mut out = Vec::new();
        sketch.quantiles(&[0.0, 0.005, 0.006, 0.5, 0.505, 0.506, 1.0], 10, 30, &mut out);
        assert_eq!(out, [10, 10, 20, 20, 20, 30, 30]);
    }
}
