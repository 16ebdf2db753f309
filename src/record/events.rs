//! A result as the JSON event that source `internal` takes in.
//!
//! In: [`RecordedValue`]. Out: one line. Invariant: the value is written with all its digits, so that what is read back
//! is the same f64.

use super::RecordedValue;
use crate::event::time::rfc3339;
use serde_json::json;

/// A gauge set at a time, in the primitive form of JSON events.
pub fn event(recorded: &RecordedValue) -> String {
    let labels: serde_json::Map<String, serde_json::Value> =
        recorded.labels.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "metric": &*recorded.metric.name,
        "type": "gauge",
        "op": "set",
        "value": recorded.value,
        "labels": labels,
        // A number would be read by its size, and near the epoch nanoseconds look like seconds.
        "time": rfc3339(recorded.time),
    })
    .to_string()
}
