//! Scales and bounds where nothing declares them.
//!
//! In: kind, unit, wire type. Out: the scale of sums (V1), the power of ten from wire value to scale units, the bounds of a
//! histogram.

use super::*;

/// The scale that sums of a metric are counted in unless the file says another (V1).
pub fn default_scale(kind: Kind, unit: Unit) -> Scale {
    match kind {
        Kind::Counter => Scale::NANO,
        Kind::Gauge | Kind::Distribution => unit.default_scale(),
        Kind::Set => Scale::ONE,
    }
}

/// wire value × 10^result = scale units. A timing is in milliseconds on the wire; a metric that says no unit
/// of time keeps timings in seconds, Prometheus's base unit.
pub(super) fn input_exponent(metric: &Metric, wire: WireType) -> Result<i8, RejectReason> {
    let scale = metric.scale.exponent() as i8;
    match (wire, metric.unit) {
        (WireType::Set, _) => Ok(0),
        (WireType::Timing, Unit::Other("milliseconds")) => Ok(scale),
        (WireType::Timing, Unit::Other("microseconds")) => Ok(scale + 3),
        (WireType::Timing, Unit::Other("nanoseconds")) => Ok(scale + 6),
        (WireType::Timing, Unit::Bytes) => Err(RejectReason::TypeConflict),
        (WireType::Timing, _) => Ok(scale - 3),
        _ => Ok(scale),
    }
}

pub(super) fn default_buckets(expose: Expose, unit: Unit, scale: Scale) -> Option<Arc<crate::event::Buckets>> {
    let preset = expose.histogram.then(|| default_bounds(unit))?;
    // A coarse scale may merge the finest bounds; the coarser ones are still good.
    let bounds: Vec<f64> =
        preset.iter().copied().filter(|bound| (bound * scale.per_one()).round() == bound * scale.per_one()).collect();
    buckets(if bounds.is_empty() { &[1.0] } else { &bounds }, scale).ok().map(Arc::new)
}
