//! Series and values in words.
//!
//! In: names, labels, values of the view. Out: text and numbers for people and answers.

use super::*;

/// `name{k="v",...}`, for people and answers; the exposition has its own writer.
pub fn series_name(name: &str, labels: &Labels) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{key}=\"{value}\"")
        })
        .collect();
    format!("{name}{{{}}}", pairs.join(","))
}

/// The one number that stands for a value.
pub fn as_number(metric: &Metric, value: &Value) -> f64 {
    match value {
        Value::Counter(counter) => metric.scale.value_of(counter.nanos),
        Value::Gauge(gauge) => gauge.last.unwrap_or(f64::NAN),
        Value::Distribution(distribution) => distribution.count as f64,
        Value::Set(set) => set.distinct as f64,
    }
}
