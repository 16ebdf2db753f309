//! The formats that show values to the world: Prometheus text 0.0.4 and protobuf, OpenMetrics 1.0, JSON, CSV, InfluxDB's
//! line protocol.
//!
//! In: plain integers, floats and label text. Out: bytes. Pure. Invariants: an integer never passes through a
//! float; whatever labels and help contain, a line stays a line; `+Inf` equals `_count`.

mod csv;
mod escape;
mod influx;
mod json;
mod number;
mod protobuf;
#[cfg(test)]
pub(crate) mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use csv::{CSV_HEADER, CsvRow};
pub use escape::put_labels;
pub use influx::InfluxLine;
pub use json::{put_json_f64, put_json_labels, put_json_string};
pub use number::{put_f64, put_u64, put_u128, put_units};
pub use protobuf::{
    NativePoint, ProtobufPoint, double_of, put_protobuf_family, put_protobuf_histogram, put_protobuf_labels,
    put_protobuf_scalar, put_protobuf_summary,
};
pub use text::{
    DistributionPart, DistributionPoint, DistributionWriter, FamilyHead, FamilyType, OPENMETRICS_END, TextFormat,
    put_counter_created, put_float, put_head, put_prefix, put_scalar, put_unknown_head,
};

/// The `Content-Type` of text 0.0.4.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The `Content-Type` of OpenMetrics 1.0.
pub const CONTENT_TYPE_OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The `Content-Type` of Prometheus's protobuf.
pub const CONTENT_TYPE_PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
/// The `Content-Type` of CSV.
pub const CONTENT_TYPE_CSV: &str = "text/csv; charset=utf-8; header=present";
/// The `Content-Type` of InfluxDB's line protocol, which has no registered one.
pub const CONTENT_TYPE_INFLUX: &str = "text/plain; charset=utf-8";
/// The `Content-Type` of JSON.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// The `Content-Type` of one JSON object a line.
pub const CONTENT_TYPE_NDJSON: &str = "application/x-ndjson";

/// The name of the summary beside a histogram: `window` before the unit.
pub fn window_name(name: &str, unit: &str) -> String {
    match name.strip_suffix(unit).and_then(|stem| stem.strip_suffix('_')) {
        Some(stem) if !unit.is_empty() => format!("{stem}_window_{unit}"),
        _ => format!("{name}_window"),
    }
}
