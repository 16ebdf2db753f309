//! Every form of a line, field by field.
//!
//! In: one line. Out: what it says, or why it is refused. Invariant: this file is the definition of the
//! grammar; the fast path must agree with it.

use super::{Line, NAME_BYTES_MAX, Number, Parsed, RATE_MIN, RejectReason, WEIGHT_ONE, WireType, item, strip_returns};

/// See [`super::parse`].
pub(super) fn parse(line: &[u8]) -> Result<Parsed<'_>, RejectReason> {
    let line = strip_returns(line);
    match line {
        [b'{', ..] => Ok(Parsed::Json(line)),
        [b'_', b'e', b'{', ..] => item::event(line).map(Parsed::Event),
        [b'_', b's', b'c', b'|', ..] => item::check(line).map(Parsed::Check),
        _ => sample(line).map(Parsed::Sample),
    }
}

fn sample(line: &[u8]) -> Result<Line<'_>, RejectReason> {
    // A colon after the first pipe belongs to a field, not to the name.
    let colon = memchr::memchr2(b':', b'|', line).filter(|at| line[*at] == b':').ok_or(RejectReason::Malformed)?;
    let (name, values) = (&line[..colon], &line[colon + 1..]);
    let pipe = memchr::memchr(b'|', values).ok_or(RejectReason::Malformed)?;
    let (values, rest) = (&values[..pipe], &values[pipe + 1..]);
    if name.is_empty() {
        return Err(RejectReason::EmptyName);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(RejectReason::NameTooLong);
    }
    let mut fields = Fields(Some(rest));
    let wire = match fields.next() {
        Some(b"c") => WireType::Count,
        Some(b"g") => WireType::Gauge,
        Some(b"ms") => WireType::Timing,
        Some(b"h") => WireType::Histogram,
        Some(b"d") => WireType::Distribution,
        Some(b"s") => WireType::Set,
        _ => return Err(RejectReason::UnknownType),
    };
    let packed = wire != WireType::Set && memchr::memchr(b':', values).is_some();
    let (value, signed) = match wire {
        // Members may hold colons and are never split.
        WireType::Set if values.is_empty() => return Err(RejectReason::BadValue),
        WireType::Set => (Number::ZERO, false),
        _ => read_values(values, wire, packed)?,
    };
    let mut extras = Extras::NONE;
    for field in fields {
        extras.read(field, wire)?;
    }
    extras.check(wire, signed)?;
    Ok(extras.line(name, values, wire, value, packed))
}

/// What the fields behind the type say. It is collected here and becomes a [`Line`] in one step: a line
/// that is filled field by field and then moved costs more than reading it (measured).
pub(super) struct Extras<'a> {
    tags: &'a [u8],
    rate: Number,
    weight: u64,
    /// Seconds; 0 if none.
    time: i64,
    unknown_fields: u8,
}

impl<'a> Extras<'a> {
    pub(super) const NONE: Extras<'static> =
        Extras { tags: &[], rate: Number::ONE, weight: WEIGHT_ONE, time: 0, unknown_fields: 0 };

    /// Of a field that comes twice the last one counts, as in the Datadog Agent.
    #[inline(always)]
    pub(super) fn read(&mut self, field: &'a [u8], wire: WireType) -> Result<(), RejectReason> {
        match field {
            [b'@', rate @ ..] => (self.rate, self.weight) = read_rate(rate)?,
            [b'#', tags @ ..] => self.tags = tags,
            [b'T', seconds @ ..] if matches!(wire, WireType::Count | WireType::Gauge) => {
                self.time = read_seconds(seconds).ok_or(RejectReason::BadTimestamp)?;
            }
            _ if is_origin(field) => {}
            _ => self.unknown_fields = self.unknown_fields.saturating_add(1),
        }
        Ok(())
    }

    /// A gauge's operation has no time of its own (V6). `signed`: one of the values has a sign.
    #[inline(always)]
    pub(super) fn check(&self, wire: WireType, signed: bool) -> Result<(), RejectReason> {
        let refused = self.time != 0 && signed && wire == WireType::Gauge;
        if refused { Err(RejectReason::GaugeOperationWithTime) } else { Ok(()) }
    }

    #[inline(always)]
    pub(super) fn line(
        self,
        name: &'a [u8],
        values: &'a [u8],
        wire: WireType,
        value: Number,
        packed: bool,
    ) -> Line<'a> {
        Line {
            name,
            tags: self.tags,
            values,
            value,
            rate: self.rate,
            weight: self.weight,
            time: (self.time != 0).then_some(self.time),
            wire,
            packed,
            unknown_fields: self.unknown_fields,
        }
    }
}

/// The first value, and whether any of them has a sign. `packed`: there is a colon among them.
#[inline(always)]
pub(super) fn read_values(values: &[u8], wire: WireType, packed: bool) -> Result<(Number, bool), RejectReason> {
    if packed {
        return read_packed(values, wire);
    }
    let value = Number::parse(values)?;
    if refuses(wire, value) { Err(RejectReason::Negative) } else { Ok((value, value.has_sign())) }
}

#[inline(never)]
fn read_packed(values: &[u8], wire: WireType) -> Result<(Number, bool), RejectReason> {
    let mut first = None;
    let mut signed = false;
    for text in values.split(|byte| *byte == b':') {
        let value = Number::parse(text)?;
        if refuses(wire, value) {
            return Err(RejectReason::Negative);
        }
        signed |= value.has_sign();
        first.get_or_insert(value);
    }
    Ok((first.ok_or(RejectReason::BadValue)?, signed))
}

/// A counter that goes down is no counter, and no time is below zero (V4).
fn refuses(wire: WireType, value: Number) -> bool {
    value.is_negative() && matches!(wire, WireType::Count | WireType::Timing)
}

#[inline]
fn read_rate(text: &[u8]) -> Result<(Number, u64), RejectReason> {
    let rate = Number::parse(text).map_err(|_| RejectReason::BadRate)?;
    if rate.is_negative() {
        return Err(RejectReason::BadRate);
    }
    if let Some((numerator, denominator)) = rate.small_fraction() {
        if numerator > denominator || numerator << 20 < denominator {
            return Err(RejectReason::BadRate);
        }
        if numerator == denominator {
            return Ok((Number::ONE, WEIGHT_ONE));
        }
        return Ok((rate, (WEIGHT_ONE * denominator + numerator / 2) / numerator));
    }
    let nearest = rate.to_f64();
    if !(RATE_MIN..=1.0).contains(&nearest) {
        return Err(RejectReason::BadRate);
    }
    if nearest == 1.0 {
        return Ok((Number::ONE, WEIGHT_ONE));
    }
    // The quotient is between 2^12 and 2^32, where adding a half and cutting is rounding.
    Ok((rate, (WEIGHT_ONE as f64 / nearest + 0.5) as u64))
}

/// A whole number of seconds above zero.
pub(super) fn read_seconds(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let seconds = text.iter().try_fold(0i64, |sum, byte| {
        let digit = byte.is_ascii_digit().then_some(i64::from(byte.wrapping_sub(b'0')))?;
        sum.checked_mul(10)?.checked_add(digit)
    })?;
    (seconds > 0).then_some(seconds)
}

/// Fields that say where a line came from (container, external data, cardinality): known, and stripped.
pub(super) fn is_origin(field: &[u8]) -> bool {
    field.starts_with(b"c:") || field.starts_with(b"e:") || field.starts_with(b"card:")
}

/// The texts between pipes.
pub(super) struct Fields<'a>(pub(super) Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.0?;
        let (field, rest) = match memchr::memchr(b'|', text) {
            Some(pipe) => (&text[..pipe], Some(&text[pipe + 1..])),
            None => (text, None),
        };
        self.0 = rest;
        Some(field)
    }
}
