//! Floats of one series as whole numbers, to the bit.
//!
//! In: f64, no NaN. Out: i64 and one byte that says how, and the floats again. Invariant: a way is only taken where every
//! float of the series comes back with the same bits.
//!
//! What people and exporters write has few decimals: i is chosen so that i / 10^e is the float, and a division of two
//! exact f64 rounds as the reading of the decimal did. Percentages and other shares of something constant (used of
//! usable bytes) have 52 bits of digits but are i / q or i / q · 100 of one q, which their continued fractions tell.
//! Whatever is neither is taken by its place among all floats: neighbours there are neighbours as numbers, and floats
//! that were an f32 keep 29 zero bits that a factor takes out.
//!
//! ```text
//! form = 0..=12 decimals | 13 share | 14 percentage | 15 places among all floats; behind 13 and 14 q:varint
//! ```

use super::column::Heads;
use crate::delta::part::Corrupt;
use crate::delta::varint::put_u64;

/// Most decimals.
const DECIMALS_MAX: u8 = 12;
/// Shares of one divisor.
const SHARE: u8 = 13;
/// The same times 100.
const PERCENTAGE: u8 = 14;
/// Places among all floats.
const ORDINAL: u8 = 15;
/// Fractions are sought with divisors below: with larger ones every float is near enough to some fraction.
const SOUGHT_DIVISOR_END: u64 = 1 << 25;
/// Their least common multiple is below.
const DIVISOR_END: u64 = 1 << 32;
/// Floats whose fraction is sought before a series is given up.
const SOUGHT_MAX: u32 = 16;
/// Whole numbers below are exact as f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Powers of ten, each exact.
pub(super) const POW10: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// How the floats of a series are whole numbers.
#[derive(Clone, Copy)]
pub(super) struct Form {
    byte: u8,
    divisor: f64,
    /// 1 or 100.
    factor: f64,
}

/// The place of a float among all floats: ascending with it, −0 just below 0.
#[inline(always)]
pub(super) fn ordinal(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The float at a place.
#[inline(always)]
fn at_ordinal(place: i64) -> f64 {
    f64::from_bits((place ^ ((place >> 63) as u64 >> 1) as i64) as u64)
}

/// The nearest whole number, halves away from zero; beyond what an f64 holds exactly as the library rounds.
#[inline(always)]
pub(super) fn round(value: f64) -> i64 {
    // Without SSE 4.1 the library's rounding is a call; this is exact below 2^52, where whole numbers are.
    if value.abs() < EXACT / 4.0 {
        let whole = value as i64;
        let rest = value - whole as f64;
        whole + i64::from(rest >= 0.5) - i64::from(rest <= -0.5)
    } else {
        value.round() as i64
    }
}

impl Form {
    /// Whole numbers that are their own floats.
    pub(super) const WHOLE: Form = Form { byte: 0, divisor: 1.0, factor: 1.0 };
    const ORDINAL: Form = Form { byte: ORDINAL, divisor: 1.0, factor: 1.0 };

    fn decimals(decimals: u8) -> Form {
        Form { byte: decimals, divisor: POW10[usize::from(decimals)], factor: 1.0 }
    }

    /// The form in which each of these floats comes back.
    pub(super) fn of(values: impl Iterator<Item = f64> + Clone) -> Form {
        let (mut form, mut largest) = (Form::WHOLE, 0f64);
        for value in values.clone() {
            largest = largest.max(value.abs());
            while !form.is_exact(value) {
                if form.byte == DECIMALS_MAX {
                    return Form::shares(values).unwrap_or(Form::ORDINAL);
                }
                form = Form::decimals(form.byte + 1);
            }
        }
        if largest * form.divisor < EXACT { form } else { Form::ORDINAL }
    }

    fn shares(values: impl Iterator<Item = f64> + Clone) -> Option<Form> {
        let of = |byte, factor| {
            let (mut divisor, mut sought, mut largest) = (1, 0, 0f64);
            let mut form = Form { byte, divisor: 1.0, factor };
            for value in values.clone() {
                largest = largest.max(value.abs());
                if !form.is_exact(value) {
                    sought += 1;
                    let found = divisor_of(value, factor).filter(|_| sought <= SOUGHT_MAX)?;
                    divisor = found / gcd(found, divisor) * divisor;
                    if divisor >= DIVISOR_END {
                        return None;
                    }
                    form.divisor = divisor as f64;
                    if !form.is_exact(value) {
                        return None;
                    }
                }
            }
            (largest * form.divisor < EXACT).then_some(form)
        };
        of(PERCENTAGE, 100.0).or_else(|| of(SHARE, 1.0))
    }

    /// The byte in which the form is stored; what belongs to it follows with [`write_rest`](Self::write_rest).
    pub(super) fn byte(self) -> u8 {
        self.byte
    }

    /// Writes the divisor of shares.
    pub(super) fn write_rest(self, out: &mut Vec<u8>) {
        if (SHARE..ORDINAL).contains(&self.byte) {
            put_u64(out, self.divisor as u64);
        }
    }

    /// The form of a stored byte below 16.
    pub(super) fn read(byte: u8, heads: &mut Heads<'_>) -> Result<Form, Corrupt> {
        Ok(match byte {
            0..=DECIMALS_MAX => Form::decimals(byte),
            ORDINAL => Form::ORDINAL,
            _ => {
                let divisor = heads.u64()?;
                if divisor == 0 || divisor >= DIVISOR_END {
                    return Err(heads.corrupt());
                }
                Form { byte, divisor: divisor as f64, factor: if byte == PERCENTAGE { 100.0 } else { 1.0 } }
            }
        })
    }

    #[inline(always)]
    fn is_exact(self, value: f64) -> bool {
        self.value(self.whole(value)).to_bits() == value.to_bits()
    }

    /// A float as a whole number; the nearest one, if it is none of those that the form was found for.
    #[inline(always)]
    pub(super) fn whole(self, value: f64) -> i64 {
        if self.byte == ORDINAL { ordinal(value) } else { round(value / self.factor * self.divisor) }
    }

    /// The float of a whole number.
    #[inline(always)]
    pub(super) fn value(self, whole: i64) -> f64 {
        if self.byte == ORDINAL { at_ordinal(whole) } else { whole as f64 / self.divisor * self.factor }
    }
}

/// The least divisor of a fraction that, times `factor`, is this float.
fn divisor_of(value: f64, factor: f64) -> Option<u64> {
    let target = value.abs() / factor;
    if !(0.0..=EXACT).contains(&target) {
        return None;
    }
    let (mut numerators, mut divisors) = ((0u64, 1u64), (1u64, 0u64));
    let mut rest = target;
    loop {
        let whole = rest as u64;
        numerators = (numerators.1, whole.checked_mul(numerators.1)?.checked_add(numerators.0)?);
        divisors = (divisors.1, whole.checked_mul(divisors.1)?.checked_add(divisors.0)?);
        if divisors.1 >= SOUGHT_DIVISOR_END {
            return None;
        }
        if numerators.1 as f64 / divisors.1 as f64 * factor == value.abs() {
            return Some(divisors.1);
        }
        // Infinite where nothing is left.
        rest = 1.0 / (rest - whole as f64);
        if rest.abs() >= SOUGHT_DIVISOR_END as f64 {
            return None;
        }
    }
}

/// Greatest common divisor.
pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64]) -> u8 {
        let form = Form::of(values.iter().copied());
        let mut stored = Vec::new();
        form.write_rest(&mut stored);
        let mut heads = Heads { bytes: &stored, at: 0 };
        let form = Form::read(form.byte(), &mut heads).expect("a form");
        for value in values {
            let back = form.value(form.whole(*value));
            assert_eq!(back.to_bits(), value.to_bits(), "{value:e} by {}", form.byte);
        }
        form.byte
    }

    #[test]
    fn decimals_are_found_and_everything_else_comes_back() {
        assert_eq!(check(&[0.0, 1.0, -17.0, 9e15]), 0);
        assert_eq!(check(&[99.99, 0.5, 12.0]), 2);
        assert_eq!(check(&[0.000_001, 3.0]), 6);
        for odd in [-0.0, std::f64::consts::PI, 5e-324, 1e300, f64::MAX, f64::MIN, 1e18 + 256.0] {
            assert_eq!(check(&[odd, 1.5]), ORDINAL, "{odd:e}");
        }
        assert_eq!(check(&[1e15, 0.25]), ORDINAL);
    }

    #[test]
    fn shares_and_percentages_are_found() {
        assert_eq!(check(&[1.0 / 3.0, 2.0 / 3.0, 0.0]), SHARE);
        let percentage = |of: f64, all: f64| of / all * 100.0;
        assert_eq!(check(&[percentage(5e9, 25_276_510_208.0), percentage(5e9 + 4096.0, 25_276_510_208.0)]), ORDINAL);
        let pages = [611_203.0, 611_207.0, 622_000.0, 0.0].map(|n| percentage(n * 4096.0, 25_276_510_208.0));
        assert_eq!(check(&pages), PERCENTAGE);
    }

    proptest! {
        #[test]
        fn any_floats_come_back(bits in proptest::collection::vec(any::<u64>(), 1..20), decimals in 0i32..14) {
            let values: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).filter(|v| v.is_finite()).collect();
            check(&values);
            let short: Vec<f64> = bits.iter().map(|b| (*b >> 40) as f64 / 10f64.powi(decimals)).collect();
            check(&short);
            let shares: Vec<f64> = bits.iter().map(|b| (*b >> 40) as f64 / (bits[0] >> 36) as f64).collect();
            if shares.iter().all(|share| share.is_finite()) {
                check(&shares);
            }
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            prop_assert!(sorted.is_sorted_by_key(|value| ordinal(*value)));
        }
    }
}
