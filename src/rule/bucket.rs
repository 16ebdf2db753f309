//! Bounds of classic histograms: the presets and the form that samples are compared with.
//!
//! In: bounds in base units. Out: [`Buckets`], ascending and unique also after rounding to scale units, so
//! that "≤ bound" is decided among integers, as the samples are (V1, V5).

use crate::event::{Buckets, Scale, UNITS_MAX, Unit};

/// Most bounds of one histogram. 160 is what a native histogram may have; more bounds than that cost a
/// scrape more than they tell.
pub const BUCKETS_MAX: usize = 160;

/// The presets by name.
pub const PRESETS: [(&str, &[f64]); 3] = [
    ("latency", &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
    ("size", &[1024.0, 10240.0, 102400.0, 1048576.0, 10485760.0]),
    ("ratio", &[0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0]),
];

/// The bounds of a preset.
pub fn preset(name: &str) -> Option<&'static [f64]> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, bounds)| *bounds)
}

/// Bounds of a histogram that declares none: sizes for bytes, ratios for ratios, else the Prometheus client
/// libraries' own, which reach further up than `latency`.
pub fn default_bounds(unit: Unit) -> &'static [f64] {
    let name = match unit {
        Unit::Bytes => "size",
        Unit::Other("ratio") => "ratio",
        _ => return &CLIENT_BOUNDS,
    };
    preset(name).expect("the names above stand in PRESETS")
}

/// What the Prometheus client libraries use where nothing is said.
pub(super) const CLIENT_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why bounds cannot be used; each carries the place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// No bounds, or too many.
    #[error("a histogram has 1 to {BUCKETS_MAX} buckets")]
    Count,
    /// NaN, infinite, or beyond 10^18 scale units.
    #[error("bucket {n} is not a finite number within the range of the metric's scale (`+Inf` is always there)", n = .0 + 1)]
    NotFinite(usize),
    /// Not larger than the one before.
    #[error("bucket {n} is not larger than the one before", n = .0 + 1)]
    NotAscending(usize),
    /// Equal to the one before once rounded to the scale.
    #[error("bucket {n} equals the one before once rounded to the metric's scale; give a finer `scale`", n = .0 + 1)]
    TooFine(usize),
}

/// Checks bounds and rounds them to scale units, half away from zero, as samples are.
///
/// # Errors
/// [`BucketError`].
pub fn buckets(bounds: &[f64], scale: Scale) -> Result<Buckets, BucketError> {
    if bounds.is_empty() || bounds.len() > BUCKETS_MAX {
        return Err(BucketError::Count);
    }
    let mut units: Vec<i64> = Vec::with_capacity(bounds.len());
    for (at, bound) in bounds.iter().enumerate() {
        let unit = (bound * scale.per_one()).round();
        if unit.is_nan() || unit.abs() > UNITS_MAX as f64 {
            return Err(BucketError::NotFinite(at));
        }
        if at > 0 && *bound <= bounds[at - 1] {
            return Err(BucketError::NotAscending(at));
        }
        if units.last().is_some_and(|last| *last >= unit as i64) {
            return Err(BucketError::TooFine(at));
        }
        units.push(unit as i64);
    }
    Ok(Buckets { first: 0, bounds: bounds.into(), units: units.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bounds: &[f64], scale: Scale, expected: Result<&[i64], BucketError>) {
        assert_eq!(buckets(bounds, scale).as_ref().map(|b| &*b.units).map_err(|e| *e), expected);
    }

    #[test]
    fn bounds_are_rounded_once_and_ascend() {
        check(&[0.005, 1.0], Scale::NANO, Ok(&[5_000_000, 1_000_000_000]));
        check(&[-1.0, 0.0], Scale::ONE, Ok(&[-1, 0]));
        check(&[], Scale::ONE, Err(BucketError::Count));
        check(&[1.0, f64::INFINITY], Scale::ONE, Err(BucketError::NotFinite(1)));
        check(&[f64::NAN], Scale::ONE, Err(BucketError::NotFinite(0)));
        check(&[1e19], Scale::ONE, Err(BucketError::NotFinite(0)));
        check(&[2.0, 1.0], Scale::ONE, Err(BucketError::NotAscending(1)));
        check(&[0.1, 0.2], Scale::ONE, Err(BucketError::TooFine(1)));
    }

    #[test]
    fn presets_are_valid_in_their_units() {
        for (_, bounds) in PRESETS {
            assert!(buckets(bounds, Scale::MICRO).is_ok());
        }
        assert!(buckets(default_bounds(Unit::Bytes), Scale::ONE).is_ok());
    }
}
