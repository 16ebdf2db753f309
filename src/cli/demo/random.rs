//! Numbers that look like life: waiting times, durations with long tails, choices of unequal weight.
//!
//! In: a seed. Out: numbers, the same for the same seed. The generator is SplitMix64 (Steele, Lea, Flood 2014).

/// A source of numbers.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between two numbers.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number from `0..count`; 0 when there is none.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// One of several, the first ones more often: each half as often again as the next.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let mut at = 0;
        while at + 1 < of.len() && !self.chance(0.4) {
            at += 1;
        }
        of[at]
    }

    /// How often something of this mean happens by chance (Poisson, by Knuth's product; for small means).
    pub(super) fn count(&mut self, mean: f64) -> usize {
        let limit = (-mean.clamp(0.0, 50.0)).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// A value around this median with a long tail: lognormal; `spread` is the deviation of its logarithm.
    pub(super) fn around(&mut self, median: f64, spread: f64) -> f64 {
        // Box and Muller; 1 - unit() is never 0.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        median * (spread * normal).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_the_means_are_right() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.unit()).collect::<Vec<f64>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let mut random = Random::new(1);
        let n = 20_000;
        let mean = (0..n).map(|_| random.count(1.7)).sum::<usize>() as f64 / f64::from(n);
        assert!((mean - 1.7).abs() < 0.05, "{mean}");
        let mut values: Vec<f64> = (0..n).map(|_| random.around(0.2, 0.6)).collect();
        values.sort_by(f64::total_cmp);
        assert!((values[10_000] / 0.2 - 1.0).abs() < 0.05, "{}", values[10_000]);
        // The 84th percentile lies one deviation of the logarithm above the median.
        assert!((values[16_827] / (0.2 * 0.6f64.exp()) - 1.0).abs() < 0.06, "{}", values[16_827]);
        assert!((0..1000).all(|_| random.below(3) < 3) && random.below(0) == 0);
    }
}
