//! Families as protobuf messages.
//!
//! In: exposed families, the view. Out: length-delimited messages. Invariant: the same families, series and values as
//! in the text format; a histogram's declared and native buckets stand in one message, as of one commit.

use super::render::{FamilyText, RUN, help_of};
use super::{Exposed, LiveFamily};
use crate::codec::exposition::{
    FamilyHead, FamilyType, NativePoint, ProtobufPoint, double_of, put_protobuf_family, put_protobuf_histogram,
    put_protobuf_labels, put_protobuf_scalar, put_protobuf_summary,
};
use crate::event::Labels;
use crate::view::read::Distributions;
use crate::view::{HistogramValue, NativeBuckets, Value, View};

/// One family with its series, or the one series that it has before its first sample.
pub(super) fn put_family(out: &mut Vec<u8>, view: &View, family: &Exposed, text: &FamilyText, zero: Option<&Labels>) {
    let metric = &*family.metric;
    let help = &*help_of(view, family, text);
    let head = FamilyHead { name: &family.name, kind: family.kind, help, unit: metric.unit.as_str() };
    put_protobuf_family(out, &head, |out| match (zero, family.kind) {
        (Some(labels), _) => put_zero(out, family, labels),
        (None, FamilyType::Counter) => put_counters(out, view, text),
        (None, FamilyType::Gauge) => put_gauges(out, view, family, text),
        (None, FamilyType::Summary) => put_summaries(out, view, family, text),
        (None, FamilyType::Histogram) => put_histograms(out, view, family, text),
    });
}

fn put_counters(out: &mut Vec<u8>, view: &View, text: &FamilyText) {
    let mut at = 0;
    view.read_counters(&text.ids, |value| {
        let labels = text.text(at);
        at += 1;
        if let Some(value) = value {
            let double = double_of(value.nanos, 9);
            put_protobuf_scalar(out, labels, FamilyType::Counter, double, Some(value.created.0));
        }
    });
}

fn put_gauges(out: &mut Vec<u8>, view: &View, family: &Exposed, text: &FamilyText) {
    let mut values = Vec::new();
    for (run, ids) in text.ids.chunks(RUN).enumerate() {
        values.clear();
        view.read(&family.metric, ids, &mut values);
        for (at, value) in values.iter().enumerate() {
            let value = match value {
                Some(Value::Gauge(gauge)) => match gauge.last {
                    Some(last) => last,
                    None => continue,
                },
                Some(Value::Set(set)) => set.distinct as f64,
                Some(Value::Counter(_) | Value::Distribution(_)) | None => continue,
            };
            put_protobuf_scalar(out, text.text(run * RUN + at), FamilyType::Gauge, value, None);
        }
    }
}

fn put_summaries(out: &mut Vec<u8>, view: &View, family: &Exposed, text: &FamilyText) {
    let (quantiles, exponent) = (&family.metric.quantiles[..], family.metric.scale.exponent());
    let mut column = Distributions::default();
    for (run, ids) in text.ids.chunks(RUN).enumerate() {
        view.read_distributions(ids, quantiles, 0, &mut column);
        for (at, value) in column.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let answers = &column.quantiles[at * quantiles.len()..][..quantiles.len()];
            let point = ProtobufPoint {
                labels: text.text(run * RUN + at),
                exponent,
                count: value.count,
                sum: value.sum,
                created: Some(value.created.0),
            };
            put_protobuf_summary(out, &point, quantiles, (value.window_samples > 0).then_some(answers));
        }
    }
}

fn put_histograms(out: &mut Vec<u8>, view: &View, family: &Exposed, text: &FamilyText) {
    let metric = &*family.metric;
    let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
    let mut at = 0;
    view.read_histograms(&text.ids, bounds.len(), |found| {
        let labels = text.text(at);
        at += 1;
        let Some(HistogramValue { value, counts, weights, native }) = found else { return };
        let point = ProtobufPoint {
            labels,
            exponent: metric.scale.exponent(),
            count: value.count,
            sum: value.sum,
            created: Some(value.created.0),
        };
        put_protobuf_histogram(out, &point, bounds, counts, native.map(|native| point_of(native, weights)).as_ref());
    });
}

fn point_of<'a>(native: &'a NativeBuckets, below: &'a [u128]) -> NativePoint<'a> {
    let NativeBuckets { schema, negative, zero, positive } = native;
    NativePoint { schema: *schema, negative, zero: *zero, positive, below }
}

/// A declared metric without labels before its first sample.
fn put_zero(out: &mut Vec<u8>, family: &Exposed, labels: &Labels) {
    let metric = &*family.metric;
    let mut text = Vec::new();
    put_protobuf_labels(&mut text, labels);
    let point = ProtobufPoint { labels: &text, exponent: 0, count: 0, sum: 0, created: None };
    match family.kind {
        FamilyType::Counter | FamilyType::Gauge => put_protobuf_scalar(out, &text, family.kind, 0.0, None),
        FamilyType::Summary => put_protobuf_summary(out, &point, &metric.quantiles, None),
        FamilyType::Histogram => {
            let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
            // Native from the beginning, or the first scrape would see another kind of series.
            let native = NativeBuckets::empty();
            put_protobuf_histogram(out, &point, bounds, &vec![0; bounds.len()], Some(&point_of(&native, &[])));
        }
    }
}

/// One live family.
pub(super) fn put_live(out: &mut Vec<u8>, family: &LiveFamily) {
    let head = FamilyHead { name: family.name, kind: family.kind, help: family.help, unit: family.unit };
    put_protobuf_family(out, &head, |out| {
        let mut text = Vec::new();
        for (labels, value) in &family.samples {
            text.clear();
            put_protobuf_labels(&mut text, labels);
            put_protobuf_scalar(out, &text, family.kind, *value, None);
        }
    });
}
