//! The JSON bodies: `/metrics.json` and `/api/metrics`, and one object a series and line.
//!
//! In: a family and its ids. Out: one member of the object, with the comma before it unless it is the
//! first. Invariant: one member per metric, whatever `expose` says; NaN is null.

use super::render::FamilyText;
use super::walk::{Sample, SampleValue, walk};
use super::{Exposed, LiveFamily, LiveValues};
use crate::codec::exposition::{
    FamilyType, put_f64, put_json_f64, put_json_labels, put_json_string, put_u64, put_u128, put_units,
};
use crate::event::time::rfc3339;
use crate::event::{Labels, Metric, Timestamp};
use crate::view::{DistributionValue, View};

pub(super) fn put_head(out: &mut Vec<u8>, is_api: bool, live: &LiveValues) {
    if is_api {
        out.extend_from_slice(b"{\"timestamp\":");
        put_json_string(out, &rfc3339(live.now));
        out.extend_from_slice(b",\"uptime_seconds\":");
        put_json_f64(out, live.uptime_seconds);
        out.extend_from_slice(b",\"metrics\":");
    }
    out.push(b'{');
}

fn begin(out: &mut Vec<u8>, is_first: bool, is_api: bool, name: &str, kind: FamilyType, help: &str, unit: &str) {
    if !is_first {
        out.push(b',');
    }
    put_json_string(out, name);
    out.extend_from_slice(b":{\"type\":");
    put_json_string(out, kind.as_str());
    out.extend_from_slice(b",\"help\":");
    put_json_string(out, help);
    if !is_api {
        out.extend_from_slice(b",\"unit\":");
        put_json_string(out, unit);
    }
}

/// `,"labels":{},"value":n,"timestamp":n` without the comma.
fn put_sample(out: &mut Vec<u8>, labels: &Labels, time: Timestamp, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"\"labels\":");
    put_json_labels(out, labels);
    out.extend_from_slice(b",\"value\":");
    value(out);
    out.extend_from_slice(b",\"timestamp\":");
    put_units(out, i128::from(time.0), 9);
}

/// A family whose samples were written one after another, each from `{` on.
fn end(out: &mut Vec<u8>, is_api: bool, samples: &[Vec<u8>]) {
    if let ([only], true) = (samples, is_api) {
        out.push(b',');
        out.extend_from_slice(only);
    }
    out.extend_from_slice(b",\"samples\":[");
    for (at, sample) in samples.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        out.extend_from_slice(sample);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

pub(super) fn put_live(out: &mut Vec<u8>, is_first: bool, is_api: bool, now: Timestamp, family: &LiveFamily) {
    begin(out, is_first, is_api, family.name, family.kind, family.help, family.unit);
    let samples: Vec<_> = family
        .samples
        .iter()
        .map(|(labels, value)| {
            let mut sample = Vec::new();
            put_sample(&mut sample, labels, now, |out| put_json_f64(out, *value));
            sample
        })
        .collect();
    end(out, is_api, &samples);
}

/// `{"name":...,"type":...,"unit":...,` of one series, with the sample and a line's end.
fn put_line(out: &mut Vec<u8>, name: &str, kind: FamilyType, unit: &str, sample: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"name\":");
    put_json_string(out, name);
    out.extend_from_slice(b",\"type\":");
    put_json_string(out, kind.as_str());
    out.extend_from_slice(b",\"unit\":");
    put_json_string(out, unit);
    out.push(b',');
    sample(out);
    out.extend_from_slice(b"}\n");
}

/// One line of each live value.
pub(super) fn put_live_lines(out: &mut Vec<u8>, now: Timestamp, family: &LiveFamily) {
    for (labels, value) in &family.samples {
        put_line(out, family.name, family.kind, family.unit, |out| {
            put_sample(out, labels, now, |out| put_json_f64(out, *value));
        });
    }
}

/// One line of each series.
pub(super) fn put_lines(out: &mut Vec<u8>, view: &View, family: &Exposed, text: &FamilyText, zero: Option<&Labels>) {
    let metric = &*family.metric;
    walk(view, family, text, zero, |walked| {
        put_line(out, &metric.name, family.kind, metric.unit.as_str(), |out| put_walked(out, view, metric, walked));
    });
}

/// A series with its value, from `"labels"` on.
fn put_walked(out: &mut Vec<u8>, view: &View, metric: &Metric, walked: &Sample<'_>) {
    // A series that nothing has reached yet is as old as the epoch.
    let time = walked.time.unwrap_or(Timestamp(0));
    put_sample(out, walked.labels, time, |out| match walked.value {
        SampleValue::Units(units, exponent) => put_units(out, units, exponent),
        SampleValue::Float(value) => put_json_f64(out, value),
        SampleValue::Distribution(value, ..) => put_u128(out, value.count),
    });
    if let SampleValue::Distribution(value, quantiles, buckets) = walked.value {
        put_distribution(out, view, metric, value, quantiles, buckets);
    }
}

pub(super) fn put_family(
    out: &mut Vec<u8>,
    view: &View,
    is_api: bool,
    family: &Exposed,
    text: &FamilyText,
    zero: Option<&Labels>,
) {
    let metric = &*family.metric;
    let is_first = out.is_empty();
    begin(out, is_first, is_api, &metric.name, family.kind, &metric.help, metric.unit.as_str());
    let mut samples = Vec::new();
    walk(view, family, text, zero, |walked| {
        let mut sample = Vec::new();
        put_walked(&mut sample, view, metric, walked);
        samples.push(sample);
    });
    end(out, is_api, &samples);
}

fn put_distribution(
    out: &mut Vec<u8>,
    view: &View,
    metric: &Metric,
    value: &DistributionValue,
    quantiles: &[i64],
    buckets: &[u128],
) {
    let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
    let exponent = metric.scale.exponent();
    let put_extreme = |out: &mut Vec<u8>, key: &str, units: Option<i64>| {
        out.extend_from_slice(key.as_bytes());
        match units {
            Some(units) => put_units(out, i128::from(units), exponent),
            None => out.extend_from_slice(b"null"),
        }
    };
    out.extend_from_slice(b",\"count\":");
    put_u128(out, value.count);
    out.extend_from_slice(b",\"sum\":");
    put_units(out, value.sum, exponent);
    out.extend_from_slice(b",\"mean\":");
    put_json_f64(out, metric.scale.value_of(value.sum) / value.count as f64);
    put_extreme(out, ",\"min\":", value.min);
    put_extreme(out, ",\"max\":", value.max);
    out.extend_from_slice(b",\"quantiles\":{");
    for (at, (q, units)) in metric.quantiles.iter().zip(quantiles).enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        put_f64(out, *q);
        put_extreme(out, "\":", (value.window_samples > 0).then_some(*units));
    }
    out.extend_from_slice(b"},\"buckets\":{");
    for (bound, count) in bounds.iter().zip(buckets) {
        out.push(b'"');
        put_f64(out, *bound);
        out.extend_from_slice(b"\":");
        put_u128(out, *count);
        out.push(b',');
    }
    if bounds.is_empty() {
        out.push(b'}');
    } else {
        out.extend_from_slice(b"\"+Inf\":");
        put_u128(out, value.count);
        out.push(b'}');
    }
    if value.estimated_buckets {
        out.extend_from_slice(b",\"estimated_buckets\":true");
    }
    out.extend_from_slice(b",\"window\":{\"count\":");
    put_u64(out, value.window_samples);
    out.extend_from_slice(b",\"seconds\":");
    put_json_f64(out, view.window_seconds(metric));
    out.extend_from_slice(b",\"relative_error\":");
    put_json_f64(out, value.digits.relative_error());
    out.push(b'}');
}
