//! CSV and InfluxDB's line protocol: a row or line a series.
//!
//! In: a family and its ids, or a live family. Out: rows. Invariant: CSV and line protocol show the same values; what
//! a series does not have is an empty field or none.

use super::walk::{Sample, SampleValue, walk};
use super::{Exposed, LiveFamily};
use crate::codec::exposition::{CsvRow, InfluxLine, put_f64, put_labels, put_u128, put_units};
use crate::event::{Metric, Timestamp};
use crate::sink::scrape::render::FamilyText;
use crate::view::View;

/// The values of a distribution as both formats show them.
struct Figures {
    count: u128,
    /// Sum, mean, least, greatest in scale units; the mean is a float.
    sum: i128,
    mean: Option<f64>,
    min: Option<i64>,
    max: Option<i64>,
    /// (q, value in scale units); none for an empty window.
    quantiles: Vec<(f64, i64)>,
}

fn figures(sample: &Sample<'_>, metric: &Metric) -> Option<Figures> {
    let SampleValue::Distribution(value, quantiles, _) = sample.value else { return None };
    let has_window = value.window_samples > 0;
    let quantiles = metric.quantiles.iter().copied().zip(quantiles.iter().copied());
    Some(Figures {
        count: value.count,
        sum: value.sum,
        mean: (value.count > 0).then(|| metric.scale.value_of(value.sum) / value.count as f64),
        min: value.min,
        max: value.max,
        quantiles: quantiles.filter(|_| has_window).collect(),
    })
}

/// One row of each series.
pub(super) fn put_csv(
    out: &mut Vec<u8>,
    view: &View,
    family: &Exposed,
    text: &FamilyText,
    zero: Option<&crate::event::Labels>,
) {
    let metric = &*family.metric;
    let exponent = metric.scale.exponent();
    walk(view, family, text, zero, |sample| {
        let mut row = CsvRow::new(out);
        row.text(&metric.name);
        row.text(family.kind.as_str());
        row.text(metric.unit.as_str());
        row.field(|out| put_labels(out, sample.labels));
        row.field(|out| put_time(out, sample.time));
        match sample.value {
            SampleValue::Units(units, exponent) => row.field(|out| put_units(out, units, exponent)),
            SampleValue::Float(value) => row.field(|out| put_finite(out, value)),
            SampleValue::Distribution(value, ..) => row.field(|out| put_u128(out, value.count)),
        }
        let Some(figures) = figures(sample, metric) else { return };
        let put = |out: &mut Vec<u8>, units: Option<i64>| {
            if let Some(units) = units {
                put_units(out, i128::from(units), exponent);
            }
        };
        row.field(|out| put_u128(out, figures.count));
        row.field(|out| put_units(out, figures.sum, exponent));
        row.field(|out| put_finite(out, figures.mean.unwrap_or(f64::NAN)));
        row.field(|out| put(out, figures.min));
        row.field(|out| put(out, figures.max));
        row.field(|out| {
            for (at, (q, units)) in figures.quantiles.iter().enumerate() {
                if at > 0 {
                    out.push(b';');
                }
                put_f64(out, *q);
                out.push(b'=');
                put(out, Some(*units));
            }
        });
    });
}

/// One row of each live value.
pub(super) fn put_live_csv(out: &mut Vec<u8>, now: Timestamp, family: &LiveFamily) {
    for (labels, value) in &family.samples {
        let mut row = CsvRow::new(out);
        row.text(family.name);
        row.text(family.kind.as_str());
        row.text(family.unit);
        row.field(|out| put_labels(out, labels));
        row.field(|out| put_time(out, Some(now)));
        row.field(|out| put_finite(out, *value));
    }
}

fn put_time(out: &mut Vec<u8>, time: Option<Timestamp>) {
    if let Some(time) = time {
        put_units(out, i128::from(time.0), 9);
    }
}

fn put_finite(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        put_f64(out, value);
    }
}

/// One line of each series: `value`, or `count`, `sum`, `mean`, `min`, `max` and a field for each quantile, called by
/// its number, as Telegraf's Prometheus input calls them.
pub(super) fn put_influx(
    out: &mut Vec<u8>,
    view: &View,
    family: &Exposed,
    text: &FamilyText,
    zero: Option<&crate::event::Labels>,
) {
    let metric = &*family.metric;
    let exponent = metric.scale.exponent();
    walk(view, family, text, zero, |sample| {
        let mut line = InfluxLine::new(out, &metric.name, sample.labels);
        match sample.value {
            SampleValue::Units(units, exponent) => line.units("value", units, exponent),
            SampleValue::Float(value) => line.float("value", value),
            SampleValue::Distribution(..) => {}
        }
        if let Some(figures) = figures(sample, metric) {
            line.units("count", i128::try_from(figures.count).unwrap_or(i128::MAX), 0);
            line.units("sum", figures.sum, exponent);
            line.float("mean", figures.mean.unwrap_or(f64::NAN));
            for (key, units) in [("min", figures.min), ("max", figures.max)] {
                if let Some(units) = units {
                    line.units(key, i128::from(units), exponent);
                }
            }
            let mut key = Vec::new();
            for (q, units) in &figures.quantiles {
                key.clear();
                put_f64(&mut key, *q);
                line.units(&String::from_utf8_lossy(&key), i128::from(*units), exponent);
            }
        }
        line.end(sample.time.map(|time| time.0));
    });
}

/// One line of each live value.
pub(super) fn put_live_influx(out: &mut Vec<u8>, now: Timestamp, family: &LiveFamily) {
    for (labels, value) in &family.samples {
        let mut line = InfluxLine::new(out, family.name, labels);
        line.float("value", *value);
        line.end(Some(now.0));
    }
}
