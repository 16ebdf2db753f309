//! Floats of one series as whole numbers, to the bit.
//!
//! In: f64, no NaN. Out: i64 and one byte that says how, and the floats again. Invariant: a way is only taken where every
//! float of the series comes back with the same bits.
//!
//! What people and exporters write has few decimals: i is chosen so that i / 10^e is the float, and a division of two
//! exact f64 rounds as the reading of the decimal did. Whatever has no such e is taken by its place among all floats:
//! neighbours there are neighbours as numbers, and floats that were an f32 keep 29 zero bits that a factor takes out.

/// The byte for places among all floats.
pub(super) const ORDINAL: u8 = 15;
/// Most decimals.
const DECIMALS_MAX: u8 = 12;
/// Whole numbers below are exact as f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Powers of ten, each exact.
pub(super) const POW10: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Whether a stored byte names a form.
pub(super) fn is_form(byte: u8) -> bool {
    byte <= DECIMALS_MAX || byte == ORDINAL
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

#[inline(always)]
fn decimal(value: f64, decimals: u8) -> i64 {
    round(value * POW10[usize::from(decimals)])
}

#[inline(always)]
fn is_decimal(value: f64, decimals: u8) -> bool {
    from_whole(decimals, decimal(value, decimals)).to_bits() == value.to_bits()
}

/// The byte that says how these floats become whole numbers; `from` is a first guess of the decimals.
pub(super) fn form_of(values: impl Iterator<Item = f64>, from: u8) -> u8 {
    let (mut decimals, mut largest) = (from.min(DECIMALS_MAX), 0f64);
    for value in values {
        largest = largest.max(value.abs());
        while !is_decimal(value, decimals) {
            decimals += 1;
            if decimals > DECIMALS_MAX {
                return ORDINAL;
            }
        }
    }
    if largest * POW10[usize::from(decimals)] < EXACT { decimals } else { ORDINAL }
}

/// A float as the whole number of a form that [`form_of`] found.
#[inline(always)]
pub(super) fn to_whole(form: u8, value: f64) -> i64 {
    if form == ORDINAL { ordinal(value) } else { decimal(value, form) }
}

/// The float of a whole number.
#[inline(always)]
pub(super) fn from_whole(form: u8, whole: i64) -> f64 {
    if form == ORDINAL { at_ordinal(whole) } else { whole as f64 / POW10[usize::from(form)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64]) -> u8 {
        let form = form_of(values.iter().copied(), 0);
        for value in values {
            let back = from_whole(form, to_whole(form, *value));
            assert_eq!(back.to_bits(), value.to_bits(), "{value:e} by {form}");
        }
        form
    }

    #[test]
    fn decimals_are_found_and_everything_else_comes_back() {
        assert_eq!(check(&[0.0, 1.0, -17.0, 9e15]), 0);
        assert_eq!(check(&[99.99, 0.5, 12.0]), 2);
        assert_eq!(check(&[0.000_001, 3.0]), 6);
        for odd in [-0.0, 1.0 / 3.0, 5e-324, 1e300, f64::MAX, f64::MIN, 1e18 + 256.0] {
            assert_eq!(check(&[odd, 1.5]), ORDINAL, "{odd:e}");
        }
        assert_eq!(check(&[1e15, 0.25]), ORDINAL);
    }

    proptest! {
        #[test]
        fn any_floats_come_back(bits in proptest::collection::vec(any::<u64>(), 1..20), decimals in 0i32..14) {
            let values: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).filter(|v| v.is_finite()).collect();
            check(&values);
            let short: Vec<f64> = bits.iter().map(|b| (*b >> 40) as f64 / 10f64.powi(decimals)).collect();
            check(&short);
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            prop_assert!(sorted.is_sorted_by_key(|value| ordinal(*value)));
        }
    }
}
