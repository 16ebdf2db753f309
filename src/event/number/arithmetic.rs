//! What rules do with numbers: compare, shift, multiply, and write as a label.
//!
//! In: [`Number`]s. Out: numbers, orderings, text. Invariant: exact as long as a result has at most 19 significant
//! digits; a longer product is cut and says so, so that it is still rounded once (V1).

use super::{EXPONENT_LIMIT, MANTISSA_DIGITS_MAX, NEGATIVE, Number, POW10, ROUND_UP, SIGNED, TRUNCATED};
use std::cmp::Ordering;

impl Number {
    /// A whole number.
    pub fn from_i64(value: i64) -> Number {
        Number::from_decimal(value < 0, value.unsigned_abs(), 0)
    }

    /// The shortest decimal that reads back to this f64; `None` for NaN and infinities.
    pub fn from_f64(value: f64) -> Option<Number> {
        if value.fract() == 0.0 && value.abs() < 9e15 {
            return Some(Number::from_i64(value as i64));
        }
        value.is_finite().then(|| {
            let mut buffer = ryu::Buffer::new();
            let text = buffer.format_finite(value);
            Number::parse(text.as_bytes()).expect("a finite float is written as a number")
        })
    }

    /// The value × 10^`by`, exactly: milliseconds become seconds with -3.
    #[inline]
    pub fn shifted(self, by: i32) -> Number {
        let exponent = self.exponent().saturating_add(by).clamp(-2 * EXPONENT_LIMIT, 2 * EXPONENT_LIMIT);
        Number { mantissa: self.mantissa, shape: u64::from(exponent as u32) | (self.shape >> 32 << 32) }
    }

    /// The value × 10^`exponent` without its fraction; `None` outside i64. For times: [`to_units`](Number::to_units)
    /// ends at 10^18, which as nanoseconds since the epoch is 2001.
    pub fn to_i64(self, exponent: i32) -> Option<i64> {
        let shift = self.exponent().saturating_add(exponent);
        let power = 10u128.pow(shift.unsigned_abs().min(20));
        let magnitude = u128::from(self.mantissa);
        let magnitude = if shift >= 0 { magnitude.checked_mul(power)? } else { magnitude / power };
        let magnitude = i64::try_from(magnitude).ok()?;
        Some(if self.has(NEGATIVE) { -magnitude } else { magnitude })
    }

    /// The value with the other sign.
    pub fn negated(self) -> Number {
        Number { mantissa: self.mantissa, shape: (self.shape ^ NEGATIVE) | SIGNED }
    }

    /// The product, cut after 19 digits where it has more.
    pub fn times(self, by: Number) -> Number {
        let sign = (self.shape ^ by.shape) & NEGATIVE;
        let cut = (self.shape | by.shape) & TRUNCATED;
        let flags = if sign != 0 { sign | SIGNED } else { 0 } | cut;
        let exponent = self.exponent().saturating_add(by.exponent());
        let product = u128::from(self.mantissa) * u128::from(by.mantissa);
        let (product, exponent, flags) = match u64::try_from(product) {
            Ok(product) => (product, exponent, flags),
            Err(_) => {
                let surplus = product.ilog10() + 1 - MANTISSA_DIGITS_MAX;
                let divisor = 10u128.pow(surplus);
                let (kept, rest) = (product / divisor, product % divisor);
                let flags =
                    flags | if rest > 0 { TRUNCATED } else { 0 } | if rest >= divisor - rest { ROUND_UP } else { 0 };
                (kept as u64, exponent.saturating_add(surplus as i32), flags)
            }
        };
        Number::new(product, exponent.clamp(-2 * EXPONENT_LIMIT, 2 * EXPONENT_LIMIT), flags)
    }

    /// True for zero.
    #[inline]
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// True without a fraction; false where digits were cut off, because nobody knows them.
    #[inline]
    pub fn is_whole(self) -> bool {
        if self.has(TRUNCATED) {
            return false;
        }
        match usize::try_from(-i64::from(self.exponent())) {
            Err(_) | Ok(0) => true,
            Ok(decimals) => {
                self.mantissa == 0 || POW10.get(decimals).is_some_and(|power| self.mantissa.is_multiple_of(*power))
            }
        }
    }

    /// The order of the values, whatever their spelling: `1.50` equals `15e-1`, `-0` equals `0`.
    pub fn compare(self, other: Number) -> Ordering {
        match (self.signum(), other.signum()) {
            (mine, theirs) if mine != theirs => mine.cmp(&theirs),
            (0, _) => Ordering::Equal,
            (1, _) => self.compare_magnitude(other),
            _ => other.compare_magnitude(self),
        }
    }

    fn signum(self) -> i8 {
        match (self.mantissa, self.has(NEGATIVE)) {
            (0, _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        }
    }

    /// Neither is zero.
    fn compare_magnitude(self, other: Number) -> Ordering {
        let (mine, theirs) = (self.mantissa.ilog10() as i32, other.mantissa.ilog10() as i32);
        let by_size = (mine.saturating_add(self.exponent())).cmp(&theirs.saturating_add(other.exponent()));
        // Of equal size, the one with fewer digits gets the zeros it lacks: at most 19, so 20 digits in all.
        let widen = |mantissa: u64, zeros: i32| u128::from(mantissa) * u128::from(POW10[zeros.clamp(0, 19) as usize]);
        by_size
            .then_with(|| widen(self.mantissa, theirs - mine).cmp(&widen(other.mantissa, mine - theirs)))
            .then_with(|| self.has(TRUNCATED).cmp(&other.has(TRUNCATED)))
    }

    /// Appends the value in its one spelling: no sign on zero, no exponent up to 21 places, no zeros behind the
    /// point's last digit. What a number is as a label.
    pub fn put_canonical(self, out: &mut Vec<u8>) {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent());
        if mantissa == 0 {
            out.push(b'0');
            return;
        }
        while mantissa.is_multiple_of(10) {
            (mantissa, exponent) = (mantissa / 10, exponent + 1);
        }
        if self.has(NEGATIVE) {
            out.push(b'-');
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(mantissa).as_bytes();
        let decimals = exponent.unsigned_abs() as usize;
        if exponent >= 0 && digits.len() + decimals <= 21 {
            out.extend_from_slice(digits);
            out.resize(out.len() + decimals, b'0');
        } else if exponent < 0 && decimals < digits.len() {
            let (whole, fraction) = digits.split_at(digits.len() - decimals);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else if exponent < 0 && decimals <= 21 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + decimals - digits.len(), b'0');
            out.extend_from_slice(digits);
        } else {
            out.extend_from_slice(digits);
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text.as_bytes()).unwrap_or_else(|reason| panic!("{text}: {reason}"))
    }

    fn canonical(number: Number) -> String {
        let mut out = Vec::new();
        number.put_canonical(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn one_spelling_for_equal_values() {
        for (text, expected) in [
            ("1.50", "1.5"),
            ("15e-1", "1.5"),
            ("-0", "0"),
            ("0.000", "0"),
            ("1e3", "1000"),
            ("200", "200"),
            ("-2.50e2", "-250"),
            ("0.001", "0.001"),
            ("1e30", "1e30"),
        ] {
            assert_eq!(canonical(number(text)), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_known_by_value() {
        for (text, whole) in
            [("1.0", true), ("1.5", false), ("15e-1", false), ("150e-1", true), ("1e300", true), ("1e-300", false)]
        {
            assert_eq!(number(text).is_whole(), whole, "{text}");
        }
    }

    #[test]
    fn milliseconds_become_seconds_exactly() {
        assert_eq!(number("15.4").shifted(-3).to_units(9), Ok(15_400_000));
        assert_eq!(number("0.1").times(number("0.1")).to_units(9), Ok(10_000_000));
        let long = number("9999999999999999999").times(number("9999999999999999999"));
        assert_eq!((canonical(long), long.is_whole()), ("9999999999999999998e19".into(), false));
    }

    proptest! {
        #[test]
        fn v1_orders_and_products_are_those_of_whole_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, ea in 0i32..4, eb in 0i32..4) {
            let (x, y) = (Number::from_i64(a).shifted(-ea), Number::from_i64(b).shifted(-eb));
            let (wa, wb) = (a * 10i64.pow(4 - ea as u32), b * 10i64.pow(4 - eb as u32));
            prop_assert_eq!(x.compare(y), wa.cmp(&wb));
            prop_assert_eq!(x.times(y).compare(Number::from_i64(a * b).shifted(-ea - eb)), Ordering::Equal);
        }

        #[test]
        fn floats_come_back(value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
            let number = Number::from_f64(value).expect("finite");
            prop_assert_eq!(number.to_f64(), value);
            let text = canonical(number);
            prop_assert_eq!(text.parse::<f64>().expect("a float"), value);
        }
    }
}
