//! Decimal numbers as text, without floats in between.
//!
//! In: the bytes of a number as a client wrote it. Out: [`Number`], 16 bytes, which answers in scale
//! units (V1), as the nearest f64, or as a counter's increment after division by its rate, each rounded
//! once. Invariant: a `Number` is always finite. Units and f64 are what exact arithmetic on the text would
//! answer, however many digits it has; a counter's increment is so up to 19 significant digits.

mod arithmetic;

use super::{RejectReason, UNITS_MAX};

/// The text began with `-`.
const NEGATIVE: u64 = 1 << 32;
/// The text began with `+` or `-`: on a gauge, an operation instead of a value (V6).
const SIGNED: u64 = 2 << 32;
/// Non-zero digits after the nineteenth were cut off: the value is larger than the mantissa says.
const TRUNCATED: u64 = 4 << 32;
/// With `TRUNCATED`: the nearest f64 of the text is that of mantissa + 1.
const ROUND_UP: u64 = 8 << 32;

/// Inside `parse` only: there is no number.
const REFUSED: u64 = 16 << 32;

/// Most digits that always fit a u64.
const MANTISSA_DIGITS_MAX: u32 = 19;
/// Exponents are cut here, far beyond every f64 and every scale; a longer one changes no answer.
const EXPONENT_LIMIT: i32 = 1_000_000;
/// Nanos in a whole.
const NANO: u64 = 1_000_000_000;

const POW10: [u64; 20] = {
    let mut table = [1u64; 20];
    let mut n = 1;
    while n < 20 {
        table[n] = table[n - 1] * 10;
        n += 1;
    }
    table
};

/// Powers of ten that an f64 holds exactly (Clinger's fast path).
const POW10_F64: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A finite decimal number: ± mantissa × 10^exponent.
///
/// Two words, so that it travels in registers: written as smaller fields and copied as one, it would
/// wait for the store buffer at every copy (5 ns a number, measured).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number {
    mantissa: u64,
    /// The exponent as an i32 in the low half, flags in the high half. The exponent is within
    /// ±[`EXPONENT_LIMIT`], give or take the length of the text.
    shape: u64,
}

const _: () = assert!(size_of::<Number>() == 16);

impl std::fmt::Debug for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.has(NEGATIVE) { "-" } else { "" };
        write!(f, "{sign}{}e{} ({:#x})", self.mantissa, self.exponent(), self.shape >> 32)
    }
}

/// A value beyond ±10^18 scale units; `clamped` is the end of the range it lies behind (V4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// `UNITS_MAX` or `-UNITS_MAX`.
    pub clamped: i64,
}

impl Number {
    /// 0, without a sign.
    pub const ZERO: Number = Number::from_u64(0);
    /// 1, without a sign.
    pub const ONE: Number = Number::from_u64(1);

    /// A whole number, without a sign.
    pub const fn from_u64(value: u64) -> Number {
        Number { mantissa: value, shape: 0 }
    }

    #[inline(always)]
    fn new(mantissa: u64, exponent: i32, flags: u64) -> Number {
        Number { mantissa, shape: u64::from(exponent as u32) | flags }
    }

    #[inline(always)]
    fn exponent(self) -> i32 {
        self.shape as u32 as i32
    }

    #[inline(always)]
    fn has(self, flag: u64) -> bool {
        self.shape & flag != 0
    }

    /// ± mantissa × 10^exponent; a sign is explicit when `negative`.
    pub fn from_decimal(negative: bool, mantissa: u64, exponent: i16) -> Number {
        let flags = if negative { NEGATIVE | SIGNED } else { 0 };
        Number::new(mantissa, i32::from(exponent), flags)
    }

    /// Without sign, digits ÷ 10^decimals: what the fast path of a line has found.
    #[inline]
    pub(crate) fn from_digits(mantissa: u64, decimals: u32) -> Number {
        Number::new(mantissa, -(decimals as i32), 0)
    }

    /// What JSON says: digits ÷ 10^decimals, negative or not, and never a gauge's operation.
    #[inline(always)]
    pub(crate) fn from_json(is_negative: bool, mantissa: u64, decimals: u32) -> Number {
        Number::new(mantissa, -(decimals as i32), if is_negative { NEGATIVE } else { 0 })
    }

    /// The same value, never a gauge's operation.
    pub(crate) fn without_sign_flag(self) -> Number {
        Number { shape: self.shape & !SIGNED, ..self }
    }

    /// Reads `12`, `-3.5`, `+4`, `1e3`, `.5`, `5.`; nothing may stand around the number.
    ///
    /// # Errors
    /// `NotFinite` for `nan`, `inf` and `infinity` in any case, with or without a sign; `BadValue` for
    /// everything else that is not a number (hexadecimal, white space, `1,2`, nothing at all).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Number, RejectReason> {
        let (flags, digits) = match bytes {
            [b'-', rest @ ..] => (NEGATIVE | SIGNED, rest),
            [b'+', rest @ ..] => (SIGNED, rest),
            _ => (0, bytes),
        };
        if digits.len() <= 8
            && let Some((mantissa, decimals)) = short_decimal(load_short(digits), digits.len() as u32)
        {
            return Ok(Number::new(mantissa, -(decimals as i32), flags));
        }
        let number = parse_long(digits, flags);
        if number.has(REFUSED) { Err(not_a_number(digits)) } else { Ok(number) }
    }

    /// True when the text began with `+` or `-`.
    #[inline]
    pub fn has_sign(self) -> bool {
        self.has(SIGNED)
    }

    /// True below zero; `-0` is not.
    #[inline]
    pub fn is_negative(self) -> bool {
        self.has(NEGATIVE) && self.mantissa != 0
    }

    /// The magnitude as a fraction of numbers below 2^44, if it is that short: most sample rates are.
    #[inline]
    pub(crate) fn small_fraction(self) -> Option<(u64, u64)> {
        let decimals = self.exponent().checked_neg()?;
        ((0..=13).contains(&decimals) && self.mantissa < 1 << 44).then(|| (self.mantissa, POW10[decimals as usize]))
    }

    /// The value × 10^`exponent`, rounded once, half away from zero: scale units, when `exponent` is the
    /// scale's (V1), less 3 for what arrives in thousandths of the base unit.
    ///
    /// # Errors
    /// [`OutOfRange`] beyond ±10^18 units.
    #[inline]
    pub fn to_units(self, exponent: i8) -> Result<i64, OutOfRange> {
        let shift = self.exponent() + i32::from(exponent);
        if (0..=19).contains(&shift)
            && let Some(units) = self.mantissa.checked_mul(POW10[shift as usize])
            && units < UNITS_MAX as u64
        {
            return Ok(self.signed(units));
        }
        if (-18..0).contains(&shift) {
            let divisor = POW10[shift.unsigned_abs() as usize];
            let (whole, rest) = (self.mantissa / divisor, self.mantissa % divisor);
            let units = whole + u64::from(rest >= divisor - rest);
            if units < UNITS_MAX as u64 {
                return Ok(self.signed(units));
            }
        }
        self.to_units_slow(shift)
    }

    #[cold]
    fn to_units_slow(self, shift: i32) -> Result<i64, OutOfRange> {
        let beyond = Err(OutOfRange { clamped: self.signed(UNITS_MAX as u64) });
        let units = if self.mantissa == 0 {
            0
        } else if shift >= 0 {
            // More than 10^18 times at least 1 is out of range anyway.
            match 10u128.checked_pow(shift.min(20) as u32).and_then(|p| p.checked_mul(u128::from(self.mantissa))) {
                Some(units) => units,
                None => return beyond,
            }
        } else {
            // A mantissa has at most 20 digits: divided by 10^21 or more it rounds to 0. Digits that were
            // cut off cannot reach the half: at least one digit after the point is still there, or the
            // value is out of range.
            let divisor = 10u128.pow(shift.unsigned_abs().min(21));
            (u128::from(self.mantissa) + divisor / 2) / divisor
        };
        let limit = UNITS_MAX as u128;
        if units > limit || (units == limit && self.has(TRUNCATED)) {
            return beyond;
        }
        Ok(self.signed(units as u64))
    }

    /// `magnitude` is at most 10^18.
    #[inline]
    fn signed(self, magnitude: u64) -> i64 {
        if self.has(NEGATIVE) { -(magnitude as i64) } else { magnitude as i64 }
    }

    /// The f64 nearest to the text; always finite, the largest f64 stands for everything beyond it.
    #[inline]
    pub fn to_f64(self) -> f64 {
        let magnitude = if self.mantissa < 1 << 53 && (-22..=22).contains(&self.exponent()) {
            // Both operands are exact, so the one operation rounds once (Clinger, 1990).
            let power = POW10_F64[self.exponent().unsigned_abs() as usize];
            if self.exponent() < 0 { self.mantissa as f64 / power } else { self.mantissa as f64 * power }
        } else {
            nearest(self.mantissa + u64::from(self.has(ROUND_UP)), self.exponent())
        };
        if self.has(NEGATIVE) { -magnitude } else { magnitude }
    }

    /// The value ÷ `rate` as whole and nano parts of one sign, rounded once to 10⁻⁹: what a counter adds
    /// (V1, V2). `|nano| < 10^9`.
    ///
    /// # Errors
    /// [`OutOfRange`] (clamped in wholes) when the quotient lies beyond ±10^18. `rate` is above zero.
    #[inline]
    pub fn scaled_by_rate(self, rate: Number) -> Result<(i64, i64), OutOfRange> {
        if self.exponent() == 0 && rate == Number::ONE && self.mantissa < UNITS_MAX as u64 {
            return Ok((self.signed(self.mantissa), 0));
        }
        self.divide(rate)
    }

    fn divide(self, rate: Number) -> Result<(i64, i64), OutOfRange> {
        let beyond = Err(OutOfRange { clamped: self.signed(UNITS_MAX as u64) });
        if self.mantissa == 0 {
            return Ok((0, 0));
        }
        let shift = self.exponent() - rate.exponent();
        let (dividend, divisor) = if shift >= 0 {
            match 10u128.checked_pow(shift as u32).and_then(|p| p.checked_mul(u128::from(self.mantissa))) {
                Some(dividend) => (dividend, u128::from(rate.mantissa)),
                None => return beyond,
            }
        } else {
            // 2^64 × 2 × 10^9 < 10^29: a larger divisor gives less than half a nano. Below that,
            // remainder × 10^9 stays within 128 bits.
            match 10u128.checked_pow(shift.unsigned_abs()).and_then(|p| p.checked_mul(u128::from(rate.mantissa))) {
                Some(divisor) if divisor < 10u128.pow(29) => (u128::from(self.mantissa), divisor),
                _ => return Ok((0, 0)),
            }
        };
        if divisor == 0 {
            return beyond;
        }
        let (mut whole, remainder) = (dividend / divisor, dividend % divisor);
        let mut nano = ((remainder * u128::from(NANO) + divisor / 2) / divisor) as u64;
        if nano == NANO {
            (whole, nano) = (whole + 1, 0);
        }
        let limit = UNITS_MAX as u128;
        if whole > limit || (whole == limit && (nano != 0 || self.has(TRUNCATED))) {
            return beyond;
        }
        Ok((self.signed(whole as u64), self.signed(nano)))
    }

    /// The value as whole and nano parts, as [`scaled_by_rate`](Self::scaled_by_rate) with rate 1; `None`
    /// beyond ±10^18.
    pub fn whole_and_nano(self) -> Option<(i64, i64)> {
        self.scaled_by_rate(Number::ONE).ok()
    }

    /// Appends the number as text that [`parse`](Self::parse) reads back to the same value and sign.
    pub fn write_to(self, out: &mut Vec<u8>) {
        if self.has(NEGATIVE | SIGNED) {
            out.push(if self.has(NEGATIVE) { b'-' } else { b'+' });
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.mantissa).as_bytes();
        let decimals = self.exponent().unsigned_abs() as usize;
        if self.exponent() == 0 {
            out.extend_from_slice(digits);
        } else if self.exponent() < 0 && decimals < digits.len() {
            let (whole, fraction) = digits.split_at(digits.len() - decimals);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else if self.exponent() < 0 && decimals <= 12 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + decimals - digits.len(), b'0');
            out.extend_from_slice(digits);
        } else {
            out.extend_from_slice(digits);
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(self.exponent()).as_bytes());
        }
    }
}

/// The first up to 8 bytes of a text as a little-endian word, zeros behind them.
#[inline]
fn load_short(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let overlap = 8 - bytes.len().min(8) as u32;
        let low = u64::from(u32::from_le_bytes(*first));
        let high = u64::from(u32::from_le_bytes(*last));
        return low | (high << 32) >> (8 * overlap);
    }
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return 0 };
    let middle = bytes.len() / 2;
    u64::from(*first) | u64::from(bytes[middle]) << (8 * middle) | u64::from(*last) << (8 * (bytes.len() - 1))
}

/// Digits with at most one point among them, no sign, in the first `length` (0 to 8) bytes of `word`; what
/// stands behind them does not matter. Answers the digits as one number and how many follow the point.
///
/// Without a branch per byte: the point is squeezed out, the digits are pushed to the end of the word and
/// converted two, four and eight at a time.
#[inline]
pub(crate) fn short_decimal(word: u64, length: u32) -> Option<(u64, u32)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    debug_assert!(length <= 8);
    if length == 0 {
        return None;
    }
    let word = word & (u64::MAX >> (64 - 8 * length));
    let difference = word ^ (ONES * b'.' as u64);
    // The lowest bit set is exact: borrows only spoil the bytes above the first point.
    let points = difference.wrapping_sub(ONES) & !difference & (ONES * 0x80);
    let first = points & points.wrapping_neg();
    let below = (first >> 7).wrapping_sub(1);
    let digits = (word & below) | ((word >> 8) & !below);
    let count = length - u32::from(first != 0);
    // Without a point its index reads 8, which leaves no decimals.
    let decimals = count.saturating_sub(first.trailing_zeros() / 8);
    let pad = 64 - 8 * count;
    let digits = digits.wrapping_shl(pad) | (ZEROS & !u64::MAX.wrapping_shl(pad));
    let (value, is_bad) = eight_digits(digits);
    (count != 0 && !is_bad).then_some((value, decimals))
}

/// `0` eight times.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The value of eight ASCII digits, the first in the lowest byte, and whether one of them is no digit.
#[inline(always)]
fn eight_digits(word: u64) -> (u64, bool) {
    const TOP: u64 = 0x8080_8080_8080_8080;
    let low = word.wrapping_sub(ZEROS);
    let is_bad = (word.wrapping_add(0x4646_4646_4646_4646) | low) & TOP != 0;
    let pairs = low.wrapping_mul(10).wrapping_add(low >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff, is_bad)
}

/// As [`eight_digits`], for text that may be anything.
#[inline(always)]
fn read_eight(chunk: [u8; 8]) -> Option<u64> {
    let (value, is_bad) = eight_digits(u64::from_le_bytes(chunk));
    (!is_bad).then_some(value)
}

/// More than 8 bytes, exponents, and everything that is no number.
#[inline(never)]
fn parse_long(text: &[u8], flags: u64) -> Number {
    match plain_decimal(text) {
        Some((mantissa, exponent)) => Number::new(mantissa, exponent, flags),
        None => parse_any(text, flags).unwrap_or(Number { mantissa: 0, shape: REFUSED }),
    }
}

/// At most 19 digits with a point among them: what a program writes that prints its floats whole.
#[inline]
fn plain_decimal(text: &[u8]) -> Option<(u64, i32)> {
    if text.len() > MANTISSA_DIGITS_MAX as usize + 1 {
        return None;
    }
    let point = text.iter().position(|byte| *byte == b'.')?;
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    let mantissa = run_of_digits(fraction, run_of_digits(whole, 0)?)?;
    (text.len() > 1).then_some((mantissa, -(fraction.len() as i32)))
}

/// Appends digits, 19 in all at most, to a number; eight at a time.
#[inline]
fn run_of_digits(text: &[u8], before: u64) -> Option<u64> {
    let (chunks, rest) = text.as_chunks::<8>();
    let mut value = before;
    for chunk in chunks {
        value = value * POW10[8] + read_eight(*chunk)?;
    }
    if !rest.is_empty() {
        let pad = 64 - 8 * rest.len() as u32;
        let word = (load_short(rest) << pad) | (ZEROS & !(u64::MAX << pad));
        value = value * POW10[rest.len()] + read_eight(word.to_le_bytes())?;
    }
    Some(value)
}

/// Every form, byte by byte.
#[inline(never)]
fn parse_any(text: &[u8], flags: u64) -> Option<Number> {
    let mut mantissa = 0u64;
    let mut significant = 0u32;
    let mut exponent = 0i32;
    let mut any = false;
    let mut point = false;
    let mut truncated = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        if significant != 0
            && significant + 8 <= MANTISSA_DIGITS_MAX
            && let Some(chunk) = rest.first_chunk::<8>()
            && let Some(eight) = read_eight(*chunk)
        {
            mantissa = mantissa * POW10[8] + eight;
            significant += 8;
            exponent -= if point { 8 } else { 0 };
            rest = &rest[8..];
            continue;
        }
        match byte {
            b'0'..=b'9' => {
                any = true;
                let digit = byte - b'0';
                if significant < MANTISSA_DIGITS_MAX {
                    mantissa = mantissa * 10 + u64::from(digit);
                    significant += u32::from(mantissa != 0);
                    exponent -= i32::from(point);
                } else {
                    truncated |= digit != 0;
                    exponent += i32::from(!point);
                }
            }
            b'.' if !point => point = true,
            b'e' | b'E' if any => {
                exponent = exponent.saturating_add(exponent_of(tail)?);
                break;
            }
            _ => return None,
        }
        rest = tail;
    }
    if !any {
        return None;
    }
    let mut flags = flags;
    if truncated {
        flags |= TRUNCATED;
        let (down, up) = (nearest(mantissa, exponent), nearest(mantissa + 1, exponent));
        // The text is a number: digits, a point, an exponent. One whose f64 is the upper neighbour's must
        // be said so, for the digits that decide are not kept.
        let exact = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok()).unwrap_or(down).min(f64::MAX);
        if exact == up && up != down {
            flags |= ROUND_UP;
        }
    }
    Some(Number::new(mantissa, exponent, flags))
}

/// The digits after `e`, with an optional sign; at least one.
fn exponent_of(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0i32, |sum, d| (sum * 10 + i32::from(d - b'0')).min(EXPONENT_LIMIT));
    Some(if negative { -magnitude } else { magnitude })
}

#[cold]
fn not_a_number(text: &[u8]) -> RejectReason {
    let words: [&[u8]; 3] = [b"nan", b"inf", b"infinity"];
    if words.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        RejectReason::NotFinite
    } else {
        RejectReason::BadValue
    }
}

/// The f64 nearest to mantissa × 10^exponent, at most `f64::MAX`, by the standard library's exact parser.
#[cold]
fn nearest(mantissa: u64, exponent: i32) -> f64 {
    // 20 digits, `e`, a sign and at most 10 digits.
    let mut text = [0u8; 32];
    let mut length = 0;
    for part in [itoa::Buffer::new().format(mantissa), "e", itoa::Buffer::new().format(exponent)] {
        text[length..length + part.len()].copy_from_slice(part.as_bytes());
        length += part.len();
    }
    let value = std::str::from_utf8(&text[..length]).ok().and_then(|t| t.parse::<f64>().ok());
    value.expect("digits, e and a whole exponent are a float").min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text.as_bytes()).unwrap_or_else(|reason| panic!("{text}: {reason}"))
    }

    fn units(text: &str, exponent: i8) -> i64 {
        number(text).to_units(exponent).unwrap_or_else(|beyond| panic!("{text}: {beyond:?}"))
    }

    /// Every form against the standard library, which reads a superset of it.
    #[test]
    fn forms_that_are_numbers() {
        for text in [
            "0",
            "12",
            "-3.5",
            "+4",
            "1e3",
            ".5",
            "5.",
            "-.5",
            "1E-3",
            "1.5e+2",
            "00012",
            "0.000001",
            "12345678",
            "1234567.",
            "123456789",
            "12.345075607299805",
            "0.1",
            "-0",
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999999",
            "0.00000000000000000000000000000123456789012345678901234567890",
            "1e22",
            "1e23",
            "9007199254740993",
            "9007199254740992.9999999999999",
            "1.7976931348623157e308",
            "5e-324",
            "1e-400",
            "2.2250738585072011e-308",
            "9007199254740993.00000000000000000000000000001",
            "9007199254740993.000000",
        ] {
            let expected: f64 = text.parse().expect("the table holds numbers");
            assert_eq!(number(text).to_f64().to_bits(), expected.to_bits(), "{text}");
        }
        assert_eq!(number("1e400").to_f64(), f64::MAX);
        assert_eq!(number("-1e99999999999").to_f64(), -f64::MAX);
        assert_eq!(number("0e99999999999").to_f64(), 0.0);
        assert!(number("+4").has_sign() && number("-4").has_sign() && !number("4").has_sign());
        assert!(number("-4").is_negative() && !number("-0").is_negative() && !number("+4").is_negative());
    }

    #[test]
    fn forms_that_are_not() {
        for text in [
            "", " ", "1 ", " 1", "1,2", "0x10", "1e", "1e+", "e5", ".", "-", "+", "--1", "1.2.3", "1_0", "１", "1e5.0",
            "1:2", ".",
        ] {
            assert_eq!(Number::parse(text.as_bytes()), Err(RejectReason::BadValue), "{text}");
        }
        for text in ["nan", "NaN", "inf", "-Inf", "+INFINITY", "infinity"] {
            assert_eq!(Number::parse(text.as_bytes()), Err(RejectReason::NotFinite), "{text}");
        }
    }

    #[test]
    fn v1_units_are_rounded_once_half_away_from_zero() {
        assert_eq!(units("12.345", 6), 12_345_000);
        assert_eq!(units("42", 0), 42);
        assert_eq!(units("0.5", 0), 1);
        assert_eq!(units("-0.5", 0), -1);
        assert_eq!(units("0.4999999999999999999999999999", 0), 0);
        assert_eq!(units("2.5", 0), 3);
        assert_eq!(units("1.0000000005", 9), 1_000_000_001);
        assert_eq!(units("-1.00000000049999", 9), -1_000_000_000);
        assert_eq!(units("1e-30", 9), 0);
        assert_eq!(units("1e3", 6), 1_000_000_000);
        assert_eq!(units("15", -1), 2);
        assert_eq!(units("0.1", 9) * 3, units("0.3", 9));
        assert_eq!(units("12.345075607299805", 6), 12_345_076);
        assert_eq!(units("12345678901234567.5", 0), 12_345_678_901_234_568);
    }

    #[test]
    fn v4_beyond_the_range_clamps() {
        for (text, exponent) in [
            ("1000000000000000001", 0),
            ("1e19", 0),
            ("1e10", 9),
            ("1e300", 12),
            ("99999999999999999999", 0),
            ("1000000000000000000.00000001", 0),
        ] {
            assert_eq!(number(text).to_units(exponent), Err(OutOfRange { clamped: UNITS_MAX }), "{text}");
            assert_eq!(
                number(&format!("-{text}")).to_units(exponent),
                Err(OutOfRange { clamped: -UNITS_MAX }),
                "{text}"
            );
        }
        assert_eq!(units("1000000000000000000", 0), UNITS_MAX);
        assert_eq!(units("-1e18", 0), -UNITS_MAX);
        assert_eq!(units("1e9", 9), UNITS_MAX);
        assert_eq!(units("0e30000", 12), 0);
    }

    #[test]
    fn v2_counters_add_value_over_rate() {
        let add = |value: &str, rate: &str| number(value).scaled_by_rate(number(rate));
        assert_eq!(add("1", "1"), Ok((1, 0)));
        assert_eq!(add("1", "1.0"), Ok((1, 0)));
        assert_eq!(add("1", "0.1"), Ok((10, 0)));
        assert_eq!(add("1", "0.3"), Ok((3, 333_333_333)));
        assert_eq!(add("2", "0.3"), Ok((6, 666_666_667)));
        assert_eq!(add("2.5", "1"), Ok((2, 500_000_000)));
        assert_eq!(add("-2.5", "0.5"), Ok((-5, 0)));
        assert_eq!(add("0.9999999999", "1"), Ok((1, 0)));
        assert_eq!(add("-0.0000000005", "1"), Ok((0, -1)));
        assert_eq!(add("1e-300", "1"), Ok((0, 0)));
        assert_eq!(add("0", "0.5"), Ok((0, 0)));
        assert_eq!(add("123456789012", "0.1"), Ok((1_234_567_890_120, 0)));
        assert_eq!(add("1e18", "1"), Ok((UNITS_MAX, 0)));
        assert_eq!(add("1e18", "0.9"), Err(OutOfRange { clamped: UNITS_MAX }));
        assert_eq!(add("-1e300", "1"), Err(OutOfRange { clamped: -UNITS_MAX }));
        assert_eq!(number("1.25").whole_and_nano(), Some((1, 250_000_000)));
        assert_eq!(number("1e19").whole_and_nano(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        #[test]
        fn f64_is_the_nearest(text in "[+-]?[0-9]{0,24}\\.?[0-9]{0,24}([eE][+-]?[0-9]{1,3})?") {
            let expected = text.parse::<f64>().ok().map(|v| v.clamp(-f64::MAX, f64::MAX).to_bits());
            prop_assert_eq!(Number::parse(text.as_bytes()).ok().map(|n| n.to_f64().to_bits()), expected, "{}", text);
        }

        #[test]
        fn shortest_text_of_an_f64_reads_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value}"), format!("{value:e}")] {
                prop_assert_eq!(number(&text).to_f64().to_bits(), bits, "{}", text);
            }
        }

        /// Against big decimal arithmetic on the digits themselves.
        #[test]
        fn units_equal_long_arithmetic(negative in any::<bool>(), whole in 0u64..2_000_000_000, fraction in "[0-9]{0,30}", exponent in 0i8..10) {
            let sign = if negative { "-" } else { "" };
            let value = number(&format!("{sign}{whole}.{fraction}"));
            let mut digits = fraction.clone();
            digits.push_str("0000000000");
            let (kept, rest) = digits.split_at(exponent as usize);
            let magnitude = i128::from(whole) * 10i128.pow(exponent as u32) + kept.parse::<i128>().unwrap_or(0)
                + i128::from(rest.as_bytes()[0] >= b'5');
            let expected = if negative { -magnitude } else { magnitude };
            if magnitude > i128::from(UNITS_MAX) {
                prop_assert!(value.to_units(exponent).is_err());
            } else {
                prop_assert_eq!(value.to_units(exponent).map(i128::from), Ok(expected));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = Number::parse(&bytes) {
                prop_assert!(value.to_f64().is_finite());
            }
        }

        #[test]
        fn written_numbers_read_back(negative in any::<bool>(), mantissa in 0u64..10_000_000_000_000_000_000, exponent in -40i16..40) {
            let value = Number::from_decimal(negative, mantissa, exponent);
            let mut text = Vec::new();
            value.write_to(&mut text);
            let back = Number::parse(&text).expect("written by us");
            prop_assert_eq!(back.to_f64().to_bits(), value.to_f64().to_bits());
            prop_assert_eq!(back.to_units(6), value.to_units(6));
            prop_assert_eq!(back.has_sign(), value.has_sign());
        }
    }
}
