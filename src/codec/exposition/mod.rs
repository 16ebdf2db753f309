//! The formats that show values to the world: Prometheus text 0.0.4, OpenMetrics 1.0, JSON.
//!
//! In: plain integers, floats and label text. Out: bytes. Pure. Invariants: an integer never passes through a
//! float; whatever labels and help contain, a line stays a line; `+Inf` equals `_count`.

mod escape;
mod json;
mod number;
#[cfg(test)]
mod tests;
mod text;

pub use escape::put_labels;
pub use json::{put_json_f64, put_json_labels, put_json_string};
pub use number::{put_f64, put_u64, put_u128, put_units};
pub use text::{
    DistributionPart, DistributionPoint, DistributionWriter, FamilyHead, FamilyType, OPENMETRICS_END, TextFormat,
    put_counter_created, put_float, put_head, put_prefix, put_scalar, put_unknown_head,
};

/// The `Content-Type` of text 0.0.4.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The `Content-Type` of OpenMetrics 1.0.
pub const CONTENT_TYPE_OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The `Content-Type` of JSON.
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// The name of the summary beside a histogram: `window` before the unit.
pub fn window_name(name: &str, unit: &str) -> String {
    match name.strip_suffix(unit).and_then(|stem| stem.strip_suffix('_')) {
        Some(stem) if !unit.is_empty() => format!("{stem}_window_{unit}"),
        _ => format!("{name}_window"),
    }
}
