//! Prometheus's protobuf exposition: length-delimited `io.prometheus.client.MetricFamily` messages.
//!
//! In: a family's head, then its series as plain integers with their encoded labels. Out: bytes. The only format with
//! native histograms and with creation times that cost no series. Invariants: a decimal becomes the double nearest
//! to it, so that text and protobuf read the same; a histogram's native buckets add up to its count, and none ever
//! goes down, or Prometheus would count everything anew: so where samples stand for fractions, counts are told as
//! such. (Whole numbers cannot do both: buckets of a half each, of which only one may be shown, whichever came first.)
//!
//! Source: prometheus/client_model `io/prometheus/client/metrics.proto` (proto2: repeated numbers are not packed);
//! protocol buffers encoding.

use super::number::put_units;
use super::text::{FamilyHead, FamilyType};
use crate::delta::varint::{put_i64, put_u64};
use crate::event::{Labels, WEIGHT_ONE};

/// Wire types of protocol buffers.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;

/// Width of the zero bucket: only zero itself counts there. Not 0, by which Prometheus would tell a histogram
/// without native buckets; the value is client_golang's default, 2^-128.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;
/// Spans closer than this are one, with empty buckets between: two deltas are smaller than a span.
const GAP_MAX: i32 = 2;

/// The native buckets of a histogram in weights, which are counts × 4096 (V2); each list ascends by index, weights are
/// not zero.
#[derive(Clone, Copy, Debug)]
pub struct NativePoint<'a> {
    /// Bucket i holds the values in (2^((i-1)·2^-schema), 2^(i·2^-schema)].
    pub schema: u8,
    /// (index of the magnitude, weight) of negative values.
    pub negative: &'a [(i32, u64)],
    /// Of values that are zero.
    pub zero: u64,
    /// (index, weight) of positive values.
    pub positive: &'a [(i32, u64)],
    /// Per declared bound the weight not above it.
    pub below: &'a [u128],
}

impl NativePoint<'_> {
    /// True when every bucket's count is a whole number.
    fn is_whole(&self) -> bool {
        let mut weights = self.negative.iter().chain(self.positive).map(|(_, weight)| *weight).chain([self.zero]);
        weights.all(|weight| weight.is_multiple_of(WEIGHT_ONE))
    }

    /// The exact count.
    fn count(&self) -> f64 {
        let weights = self.negative.iter().chain(self.positive).map(|(_, weight)| *weight).chain([self.zero]);
        exact(weights.map(u128::from).sum())
    }
}

/// A weight as the number of samples it stands for.
fn exact(weight: u128) -> f64 {
    weight as f64 / WEIGHT_ONE as f64
}

/// A histogram or summary of one series; counts cumulative, values in scale units.
#[derive(Clone, Copy, Debug)]
pub struct ProtobufPoint<'a> {
    /// From [`put_protobuf_labels`].
    pub labels: &'a [u8],
    /// `10^-exponent` of the base unit is a scale unit.
    pub exponent: u8,
    /// Σ weight.
    pub count: u128,
    /// Σ value × weight.
    pub sum: i128,
    /// Nanoseconds since the epoch; `None` before the first sample.
    pub created: Option<i64>,
}

/// Writes one family: `put_series` writes its series. Nothing at all when it writes none.
pub fn put_protobuf_family(out: &mut Vec<u8>, head: &FamilyHead<'_>, put_series: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_bytes(out, 1, head.name.as_bytes());
    if !head.help.is_empty() {
        put_bytes(out, 2, head.help.as_bytes());
    }
    let kind = match head.kind {
        FamilyType::Counter => 0,
        FamilyType::Gauge => 1,
        FamilyType::Summary => 2,
        FamilyType::Histogram => 4,
    };
    put_tagged(out, 3, kind);
    if head.has_unit_in_name() {
        put_bytes(out, 5, head.unit.as_bytes());
    }
    let series = out.len();
    put_series(out);
    if out.len() == series {
        return out.truncate(start);
    }
    frame(out, start);
}

/// Writes the labels of a series: what a renderer caches.
pub fn put_protobuf_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (key, value) in labels.iter() {
        message(out, 1, |out| {
            put_bytes(out, 1, key.as_bytes());
            put_bytes(out, 2, value.as_bytes());
        });
    }
}

/// Writes a series of a counter (with its creation time, when it has one) or gauge.
pub fn put_protobuf_scalar(out: &mut Vec<u8>, labels: &[u8], kind: FamilyType, value: f64, created: Option<i64>) {
    let field = if kind == FamilyType::Counter { 3 } else { 2 };
    message(out, 4, |out| {
        out.extend_from_slice(labels);
        message(out, field, |out| {
            put_double(out, 1, value);
            put_created(out, 3, created.filter(|_| kind == FamilyType::Counter));
        });
    });
}

/// Writes a series of a summary: quantiles with their values, `None` for an empty window.
pub fn put_protobuf_summary(out: &mut Vec<u8>, point: &ProtobufPoint<'_>, quantiles: &[f64], values: Option<&[i64]>) {
    message(out, 4, |out| {
        out.extend_from_slice(point.labels);
        message(out, 4, |out| {
            put_totals(out, point);
            for (at, q) in quantiles.iter().enumerate() {
                let value = values.and_then(|values| values.get(at));
                let value = value.map_or(f64::NAN, |units| double_of(i128::from(*units), point.exponent));
                message(out, 3, |out| {
                    put_double(out, 1, *q);
                    put_double(out, 2, value);
                });
            }
            put_created(out, 4, point.created);
        });
    });
}

/// Writes a series of a histogram: the declared bounds in base units with the counts not above them and `+Inf`, and
/// the native buckets if there are any. Beside rounded counts stand exact ones where native buckets have fractions:
/// readers take those.
pub fn put_protobuf_histogram(
    out: &mut Vec<u8>,
    point: &ProtobufPoint<'_>,
    bounds: &[f64],
    counts: &[u128],
    native: Option<&NativePoint<'_>>,
) {
    message(out, 4, |out| {
        out.extend_from_slice(point.labels);
        message(out, 7, |out| {
            put_totals(out, point);
            let fractions = native.filter(|native| !native.is_whole());
            let count = fractions.map(NativePoint::count);
            if let Some(count) = count {
                put_double(out, 4, count);
            }
            let below = |at: usize| fractions.map(|native| native.below.get(at).map_or(0.0, |weight| exact(*weight)));
            let buckets = bounds.iter().zip(counts).enumerate().map(|(at, (bound, count))| (*bound, *count, below(at)));
            for (bound, rounded, exact) in buckets.chain([(f64::INFINITY, point.count, count)]) {
                message(out, 3, |out| {
                    put_tagged(out, 1, clamped(rounded));
                    put_double(out, 2, bound);
                    if let Some(exact) = exact {
                        put_double(out, 4, exact);
                    }
                });
            }
            if let Some(native) = native {
                put_signed(out, 5, i64::from(native.schema));
                put_double(out, 6, ZERO_THRESHOLD);
                let form = if fractions.is_some() { Form::Fractions } else { Form::Whole };
                match form {
                    Form::Whole => put_tagged(out, 7, native.zero / WEIGHT_ONE),
                    Form::Fractions => put_double(out, 8, exact(u128::from(native.zero))),
                }
                put_side(out, 9, native.negative, form);
                put_side(out, 12, native.positive, form);
            }
            put_created(out, 15, point.created);
        });
    });
}

/// The double nearest to `units / 10^exponent`: what a reader of the decimal gets.
pub fn double_of(units: i128, exponent: u8) -> f64 {
    let ten = 10u64.pow(u32::from(exponent));
    if units.unsigned_abs() < 1 << 53 {
        // Both are exact, so one division rounds once.
        return units as f64 / ten as f64;
    }
    if units % i128::from(ten) == 0 {
        return (units / i128::from(ten)) as f64;
    }
    let mut text = Vec::with_capacity(48);
    put_units(&mut text, units, exponent);
    std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).expect("a decimal was written")
}

fn clamped(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn put_totals(out: &mut Vec<u8>, point: &ProtobufPoint<'_>) {
    put_tagged(out, 1, clamped(point.count));
    put_double(out, 2, double_of(point.sum, point.exponent));
}

/// A `google.protobuf.Timestamp`.
fn put_created(out: &mut Vec<u8>, field: u32, created: Option<i64>) {
    if let Some(created) = created {
        message(out, field, |out| {
            put_tagged(out, 1, created.div_euclid(1_000_000_000) as u64);
            put_tagged(out, 2, created.rem_euclid(1_000_000_000) as u64);
        });
    }
}

/// How counts of native buckets are written.
#[derive(Clone, Copy)]
enum Form {
    /// As deltas: the difference to the bucket before, the first one's to 0.
    Whole,
    /// As they are.
    Fractions,
}

/// Spans at `field`, deltas at the field after it or fractions at the one after that. A span is (gap to the one before,
/// length).
fn put_side(out: &mut Vec<u8>, field: u32, buckets: &[(i32, u64)], form: Form) {
    let mut next = 0;
    let mut rest = buckets;
    while let Some((first, _)) = rest.first() {
        let joined = rest.windows(2).take_while(|pair| pair[1].0 - pair[0].0 - 1 <= GAP_MAX).count();
        let end = rest[joined].0 + 1;
        message(out, field, |out| {
            put_signed(out, 1, i64::from(first - next));
            put_tagged(out, 2, (end - first) as u64);
        });
        (next, rest) = (end, &rest[joined + 1..]);
    }
    let (mut last, mut previous) = (0i64, None);
    let mut put_count = |out: &mut Vec<u8>, weight: u64| match form {
        Form::Whole => {
            let count = (weight / WEIGHT_ONE) as i64;
            put_signed(out, field + 1, count - last);
            last = count;
        }
        Form::Fractions => put_double(out, field + 2, exact(u128::from(weight))),
    };
    for (index, weight) in buckets {
        let gap = previous.map_or(0, |previous| index - previous - 1);
        if gap <= GAP_MAX {
            (0..gap).for_each(|_| put_count(out, 0));
        }
        put_count(out, *weight);
        previous = Some(*index);
    }
}

#[inline]
fn put_tag(out: &mut Vec<u8>, field: u32, wire: u32) {
    put_u64(out, u64::from(field << 3 | wire));
}

fn put_tagged(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, VARINT);
    put_u64(out, value);
}

fn put_signed(out: &mut Vec<u8>, field: u32, value: i64) {
    put_tag(out, field, VARINT);
    put_i64(out, value);
}

fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_tag(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_tag(out, field, LENGTH);
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a nested message.
fn message(out: &mut Vec<u8>, field: u32, body: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, LENGTH);
    let start = out.len();
    body(out);
    frame(out, start);
}

/// Puts the length of what was written since `start` before it. Messages are short, so moving them by the byte or
/// two of their length costs less than measuring them first.
fn frame(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    put_u64(out, length as u64);
    let bytes = out.len() - start - length;
    let mut head = [0; 10];
    head[..bytes].copy_from_slice(&out[start + length..]);
    out.copy_within(start..start + length, start + bytes);
    out[start..start + bytes].copy_from_slice(&head[..bytes]);
}
