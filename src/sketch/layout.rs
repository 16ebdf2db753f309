//! The log-linear layout of HDR histograms: a value in integer scale units to its cell and back.
//!
//! In: a value within ±`VALUE_MAX` (callers clamp and count what lies beyond). Out: a signed cell, and the values it
//! covers. Invariant: cell order is value order, cells of a negative value mirror those of its magnitude, layouts nest
//! (each cell lies in one cell of every coarser layout), and bounds equal `lowest_equivalent`/`highest_equivalent` of
//! `hdrhistogram::Histogram::new_with_bounds(1, 10^18, digits)`, whose own index functions are private.
//!
//! Layout (HdrHistogram, G. Tene): with `half = 2^(3·digits + 1)`, values below `2·half` have a cell each; from there
//! every doubling is cut into `half` cells of equal width.

use super::Digits;

/// Largest magnitude in scale units that the layout promises to hold.
pub const VALUE_MAX: i64 = 1_000_000_000_000_000_000;

/// Binary logarithm of the cells per doubling: 16, 128 and 1,024 cells, the least powers of two ≥ 10^digits.
const fn half_bits(digits: Digits) -> u32 {
    3 * digits as u32 + 1
}

/// Cell of a magnitude. Wrapping, because release builds check overflow and this runs for every sample: no operand can
/// reach its limit for any `u64`.
#[inline(always)]
const fn index<const HALF_BITS: u32>(magnitude: u64) -> u32 {
    let doubling = (63 - HALF_BITS).wrapping_sub((magnitude | ((2 << HALF_BITS) - 1)).leading_zeros());
    (doubling << HALF_BITS).wrapping_add((magnitude >> doubling) as u32)
}

/// Puts the sign of `value` on the cell of its magnitude, without a branch: signs may come in any order.
#[inline(always)]
const fn signed(value: i64, index: u32) -> i32 {
    let sign = (value >> 63) as i32;
    (index as i32 ^ sign).wrapping_sub(sign)
}

/// Cell of a value in scale units.
#[inline]
pub const fn cell_of(digits: Digits, value: i64) -> i32 {
    let magnitude = value.unsigned_abs();
    let index = match digits {
        Digits::One => index::<4>(magnitude),
        Digits::Two => index::<7>(magnitude),
        Digits::Three => index::<10>(magnitude),
    };
    signed(value, index)
}

/// `cell_of(Digits::One, value)`; every cell fits 16 bits.
#[inline]
pub const fn cell_of_1(value: i64) -> i16 {
    signed(value, index::<4>(value.unsigned_abs())) as i16
}

/// `cell_of(Digits::Two, value)`; every cell fits 16 bits.
#[inline]
pub const fn cell_of_2(value: i64) -> i16 {
    signed(value, index::<7>(value.unsigned_abs())) as i16
}

/// `cell_of(Digits::Three, value)`.
#[inline]
pub const fn cell_of_3(value: i64) -> i32 {
    signed(value, index::<10>(value.unsigned_abs()))
}

/// Cell of `VALUE_MAX`: cells of clamped values lie in `-cell_max..=cell_max`. Decoders check stored cells with it.
pub const fn cell_max(digits: Digits) -> i32 {
    cell_of(digits, VALUE_MAX)
}

/// First value and width of a cell of a magnitude.
#[inline]
const fn span(digits: Digits, index: u32) -> (i64, i64) {
    let doubling = (index >> half_bits(digits)).saturating_sub(1);
    debug_assert!(doubling <= 60, "the cell lies beyond every clamped value");
    let within = index - (doubling << half_bits(digits));
    ((within as i64) << doubling, 1 << doubling)
}

/// Least value of a cell.
///
/// # Panics
/// If the cell lies far beyond `cell_max`; so do `highest`, `midpoint` and `coarsen`.
#[inline]
pub const fn lowest(digits: Digits, cell: i32) -> i64 {
    if cell < 0 {
        return -highest(digits, -cell);
    }
    span(digits, cell as u32).0
}

/// Greatest value of a cell.
#[inline]
pub const fn highest(digits: Digits, cell: i32) -> i64 {
    if cell < 0 {
        return -lowest(digits, -cell);
    }
    let (first, width) = span(digits, cell as u32);
    first + (width - 1)
}

/// The value that stands for a cell: within `|value|·10^-digits` of each of its values, and exact where the cell holds
/// one value. The true factor is 2^-(half_bits + 1): 0.39 % at 2 digits.
#[inline]
pub const fn midpoint(digits: Digits, cell: i32) -> i64 {
    if cell < 0 {
        return -midpoint(digits, -cell);
    }
    let (first, width) = span(digits, cell as u32);
    first + width / 2
}

/// The cell of a coarser layout that holds this one; the same cell if `to` is not coarser.
#[inline]
pub const fn coarsen(cell: i32, from: Digits, to: Digits) -> i32 {
    if to as u8 >= from as u8 {
        return cell;
    }
    if cell < 0 { -coarsen(-cell, from, to) } else { cell_of(to, lowest(from, cell)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    const ALL: [Digits; 3] = [Digits::One, Digits::Two, Digits::Three];

    /// Values of every magnitude, both signs, with the powers of two and their neighbours over-represented.
    fn value() -> impl Strategy<Value = i64> {
        let bits = (0u32..60, any::<u64>(), -2i64..=2, any::<bool>(), any::<bool>());
        bits.prop_map(|(bits, noise, near, at_edge, negative)| {
            let base = 1i64 << bits;
            let magnitude =
                if at_edge { (base + near).max(0) } else { base + (noise & (base as u64 - 1)) as i64 }.min(VALUE_MAX);
            if negative { -magnitude } else { magnitude }
        })
    }

    fn check(digits: Digits, value: i64, reference: &Histogram<u64>) {
        let cell = cell_of(digits, value);
        let magnitude = value.unsigned_abs();
        let low = reference.lowest_equivalent(magnitude) as i64;
        let high = reference.highest_equivalent(magnitude) as i64;
        let (low, high) = if value < 0 { (-high, -low) } else { (low, high) };
        assert_eq!((lowest(digits, cell), highest(digits, cell)), (low, high), "{digits:?} {value}");
        assert_eq!(cell_of(digits, low), cell);
        assert_eq!(cell_of(digits, high), cell);
        let middle = midpoint(digits, cell);
        assert!((low..=high).contains(&middle));
        for end in [low, high] {
            let allowed = end.unsigned_abs() as f64 * digits.relative_error();
            assert!((middle - end).abs() as f64 <= allowed, "{digits:?} {value}: {middle} against {end}");
        }
        if low == high {
            assert_eq!(middle, value);
        }
    }

    #[test]
    fn v3_layout_is_hdr() {
        for digits in ALL {
            let reference = Histogram::<u64>::new_with_bounds(1, VALUE_MAX as u64, digits as u8).unwrap();
            for value in (0..5_000).chain([VALUE_MAX - 1, VALUE_MAX]) {
                check(digits, value, &reference);
                check(digits, -value, &reference);
            }
            // Every cell up to the last one is reached, in order, without a hole.
            let mut next = 0i64;
            for cell in 0..=cell_max(digits) {
                assert_eq!(lowest(digits, cell), next);
                next = highest(digits, cell) + 1;
            }
            assert!(next > VALUE_MAX);
            // The array of the crate ends at the doubling that holds VALUE_MAX, so ours is never longer.
            assert!((cell_max(digits) as usize) < reference.distinct_values());
        }
        assert!(cell_max(Digits::Two) <= i32::from(i16::MAX));
        assert_eq!(cell_of_2(i64::MIN), cell_of(Digits::Two, i64::MIN) as i16);
    }

    proptest! {
        #[test]
        fn v3_layout_is_hdr_at_every_magnitude(value in value()) {
            for digits in ALL {
                check(digits, value, &Histogram::<u64>::new_with_bounds(1, VALUE_MAX as u64, digits as u8).unwrap());
            }
            prop_assert_eq!(i32::from(cell_of_1(value)), cell_of(Digits::One, value));
            prop_assert_eq!(i32::from(cell_of_2(value)), cell_of(Digits::Two, value));
            prop_assert_eq!(cell_of_3(value), cell_of(Digits::Three, value));
        }

        #[test]
        fn v3_cell_order_is_value_order(a in value(), b in value()) {
            for digits in ALL {
                let (low, high) = (a.min(b), a.max(b));
                prop_assert!(cell_of(digits, low) <= cell_of(digits, high));
            }
        }

        #[test]
        fn v3_layouts_nest(value in value()) {
            for from in ALL {
                for to in ALL {
                    let coarse = coarsen(cell_of(from, value), from, to);
                    prop_assert_eq!(coarse, cell_of(from.min(to), value));
                }
            }
        }
    }
}
