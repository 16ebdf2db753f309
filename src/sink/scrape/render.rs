//! Families to text: label text once per series, values per revision.
//!
//! In: exposed families, the view. Out: bytes without the live set. Owns: the label text of every series,
//! one arena per metric, extended when series come (100,000 counters cost 3 ms a scrape instead of the
//! 20 that escaping labels anew would). Invariant: series appear in the order of their ids.

use super::{Chosen, Exposed, Inner, Scrape, ScrapeFormat, json, protobuf, table, text_format};
use crate::codec::exposition::{
    DistributionPart, DistributionPoint, DistributionWriter, FamilyHead, FamilyType, TextFormat, put_counter_created,
    put_float, put_head, put_labels, put_prefix, put_protobuf_labels, put_scalar, put_unknown_head,
};
use crate::event::{Kind, Labels, Metric, SeriesId, Slot};
use crate::view::read::Distributions;
use crate::view::{Value, View};
use std::borrow::Cow;

/// Series read at a time: a chunk of the view, which is what stays in cache.
pub(super) const RUN: usize = 1024;

/// The cached text of a metric's series.
#[derive(Default)]
pub(super) struct FamilyText {
    version: u64,
    /// Ascending.
    pub(super) ids: Vec<SeriesId>,
    /// Of the same series: what the table of labels is asked by.
    pub(super) slots: Vec<Slot>,
    /// As text `name{labels} ` of counters, gauges and sets, `labels` of distributions; as protobuf `labels`.
    arena: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl FamilyText {
    /// Learns what series came and went.
    fn update(&mut self, view: &View, metric: &Metric, is_protobuf: bool) {
        let (family, continues) = view.series_since(metric, self.version, self.ids.len());
        if !continues {
            *self = FamilyText::default();
        }
        self.version = family.version;
        if family.series.is_empty() {
            return;
        }
        self.ids.extend(family.series.iter().map(|(id, _)| *id));
        self.slots.extend(family.series.iter().map(|(_, slot)| *slot));
        let mut labels_text = Vec::new();
        view.labels(metric.kind, &family.series, |labels| {
            if is_protobuf {
                put_protobuf_labels(&mut self.arena, labels);
            } else if metric.kind == Kind::Distribution {
                put_labels(&mut self.arena, labels);
            } else {
                labels_text.clear();
                put_labels(&mut labels_text, labels);
                put_prefix(&mut self.arena, &metric.name, &labels_text);
            }
            self.ends.push(self.arena.len());
        });
    }

    /// What it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.arena.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.ids.capacity() * size_of::<SeriesId>()
            + self.slots.capacity() * size_of::<Slot>()
    }

    /// The same of those series only whose labels are accepted.
    fn chosen(&self, view: &View, kind: Kind, is_accepted: impl Fn(&Labels) -> bool) -> FamilyText {
        let series: Vec<_> = self.ids.iter().copied().zip(self.slots.iter().copied()).collect();
        let mut kept = FamilyText::default();
        let mut places = 0..series.len();
        view.labels(kind, &series, |labels| {
            if let Some(at) = places.next().filter(|_| is_accepted(labels)) {
                kept.ids.push(self.ids[at]);
                kept.slots.push(self.slots[at]);
                kept.arena.extend_from_slice(self.text(at));
                kept.ends.push(kept.arena.len());
            }
        });
        kept
    }

    /// The cached text of the series at a place in `ids`.
    pub(super) fn text(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.arena[from..self.ends[at]]
    }
}

/// The labels of a metric's only series before its first sample: none of its own. A gauge has no value before its first,
/// so it has no series; 0 would be a claim.
fn zero_labels<'a>(metric: &Metric, constant: &'a Labels) -> Option<&'a Labels> {
    if metric.kind == Kind::Gauge {
        return None;
    }
    let names = metric.label_names.as_ref()?;
    names.iter().all(|name| constant.get(name).is_some()).then_some(constant)
}

/// What a family is, and that buckets of it are estimates where they are (R2): the text formats have no other place for it.
pub(super) fn help_of<'a>(view: &View, family: &'a Exposed, text: &FamilyText) -> Cow<'a, str> {
    let help = &*family.metric.help;
    match family.kind == FamilyType::Histogram && view.has_estimates(&text.ids) {
        true => Cow::from(format!("{help} (buckets of samples from before they were declared are estimated)")),
        false => Cow::from(help),
    }
}

impl Scrape {
    /// All series of the families, or those that are chosen. False when it became longer than it may: then it ends after
    /// the family that was too much.
    pub(super) fn render_families(
        &self,
        inner: &mut Inner,
        format: ScrapeFormat,
        exposed: &[Exposed],
        chosen: Option<&Chosen>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> bool {
        for family in exposed {
            if out.len() > bytes_max {
                return false;
            }
            let is_protobuf = format == ScrapeFormat::Protobuf;
            let text = inner.texts.entry((family.metric.id.0, is_protobuf)).or_default();
            text.update(&self.view, &family.metric, is_protobuf);
            let is_chosen = |labels: &Labels| chosen.is_none_or(|chosen| chosen.accepts(&family.name, labels));
            let zero =
                if text.ids.is_empty() { zero_labels(&family.metric, &inner.plan.constant_labels) } else { None };
            let zero = zero.filter(|labels| is_chosen(labels));
            let of_chosen = chosen.map(|_| text.chosen(&self.view, family.metric.kind, is_chosen));
            let text = of_chosen.as_ref().unwrap_or(text);
            if text.ids.is_empty() && zero.is_none() {
                continue;
            }
            match format {
                ScrapeFormat::Text | ScrapeFormat::OpenMetrics => {
                    self.render_text(out, text_format(format, inner.plan.created), family, text, zero);
                }
                ScrapeFormat::MetricsJson | ScrapeFormat::ApiJson => {
                    json::put_family(out, &self.view, format == ScrapeFormat::ApiJson, family, text, zero);
                }
                ScrapeFormat::Protobuf => protobuf::put_family(out, &self.view, family, text, zero),
                ScrapeFormat::Csv => table::put_csv(out, &self.view, family, text, zero),
                ScrapeFormat::Influx => table::put_influx(out, &self.view, family, text, zero),
                ScrapeFormat::Ndjson => json::put_lines(out, &self.view, family, text, zero),
            }
        }
        out.len() <= bytes_max
    }

    fn render_text(
        &self,
        out: &mut Vec<u8>,
        format: TextFormat,
        family: &Exposed,
        text: &FamilyText,
        zero: Option<&Labels>,
    ) {
        let metric = &*family.metric;
        let help = &*help_of(&self.view, family, text);
        let head = FamilyHead { name: &family.name, kind: family.kind, help, unit: metric.unit.as_str() };
        let start = out.len();
        put_head(out, format, &head);
        if let Some(labels) = zero {
            return put_zero(out, format, family, labels);
        }
        match family.kind {
            FamilyType::Counter => self.render_counters(out, format, metric, text),
            FamilyType::Gauge => self.render_gauges(out, metric, text),
            FamilyType::Summary | FamilyType::Histogram => {
                let has_negative = self.render_distributions(out, format, family, text, None);
                if has_negative && format != TextFormat::Prometheus {
                    out.truncate(start);
                    self.render_parts(out, format, family, text);
                }
            }
        }
    }

    /// A distribution with negative values in OpenMetrics, which admits none in a summary or histogram: the same
    /// samples under the same names, each name a family of type `unknown`.
    fn render_parts(&self, out: &mut Vec<u8>, format: TextFormat, family: &Exposed, text: &FamilyText) {
        for part in DistributionPart::ALL {
            let suffix = match part {
                DistributionPart::Steps if family.kind == FamilyType::Summary => "",
                DistributionPart::Steps => "_bucket",
                DistributionPart::Sum => "_sum",
                DistributionPart::Count => "_count",
            };
            let help = match part {
                DistributionPart::Steps => help_of(&self.view, family, text),
                DistributionPart::Sum | DistributionPart::Count => Cow::from(&*family.metric.help),
            };
            put_unknown_head(out, &format!("{}{suffix}", family.name), &help);
            self.render_distributions(out, format, family, text, Some(part));
        }
    }

    fn render_counters(&self, out: &mut Vec<u8>, format: TextFormat, metric: &Metric, text: &FamilyText) {
        let created = format == (TextFormat::OpenMetrics { created: true });
        let mut at = 0;
        self.view.read_counters(&text.ids, |value| {
            let prefix = text.text(at);
            at += 1;
            let Some(value) = value else { return };
            put_scalar(out, prefix, value.nanos, 9);
            if created {
                let labels = prefix[metric.name.len()..].trim_ascii_end();
                let labels = labels.strip_prefix(b"{").and_then(|l| l.strip_suffix(b"}")).unwrap_or(&[]);
                put_counter_created(out, format, &metric.name, labels, value.created.0);
            }
        });
    }

    fn render_gauges(&self, out: &mut Vec<u8>, metric: &Metric, text: &FamilyText) {
        let mut values = Vec::new();
        for (run, ids) in text.ids.chunks(RUN).enumerate() {
            values.clear();
            self.view.read(metric, ids, &mut values);
            for (at, value) in values.iter().enumerate() {
                let prefix = text.text(run * RUN + at);
                match value {
                    Some(Value::Gauge(gauge)) => {
                        if let Some(last) = gauge.last {
                            put_float(out, prefix, last);
                        }
                    }
                    Some(Value::Set(set)) => put_scalar(out, prefix, i128::from(set.distinct), 0),
                    Some(Value::Counter(_) | Value::Distribution(_)) | None => {}
                }
            }
        }
    }

    /// Writes all samples of each series, or those that share a name. True when a value or bound was negative.
    fn render_distributions(
        &self,
        out: &mut Vec<u8>,
        format: TextFormat,
        family: &Exposed,
        text: &FamilyText,
        part: Option<DistributionPart>,
    ) -> bool {
        let metric = &*family.metric;
        let is_summary = family.kind == FamilyType::Summary;
        let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
        let exponent = metric.scale.exponent();
        let mut has_negative = !is_summary && bounds.first().is_some_and(|bound| *bound < 0.0);
        let (writer, quantiles, bounds) = if is_summary {
            let writer = DistributionWriter::summary(format, &family.name, exponent, &metric.quantiles);
            (writer, &metric.quantiles[..], 0)
        } else {
            (DistributionWriter::histogram(format, &family.name, exponent, bounds), &[][..], bounds.len())
        };
        let mut column = Distributions::default();
        for (run, ids) in text.ids.chunks(RUN).enumerate() {
            self.view.read_distributions(ids, quantiles, bounds, &mut column);
            for (at, value) in column.values.iter().enumerate() {
                let Some(value) = value else { continue };
                let answers = &column.quantiles[at * quantiles.len()..][..quantiles.len()];
                let point = DistributionPoint {
                    labels: text.text(run * RUN + at),
                    count: value.count,
                    sum: value.sum,
                    quantiles: (value.window_samples > 0).then_some(answers),
                    buckets: &column.buckets[at * bounds..][..bounds],
                    created: value.created.0,
                };
                has_negative |= point.has_negative();
                match part {
                    Some(part) => writer.put_part(out, &point, is_summary, part),
                    None if is_summary => writer.put_summary(out, &point),
                    None => writer.put_histogram(out, &point),
                }
            }
        }
        has_negative
    }
}

/// A declared metric without labels before its first sample.
fn put_zero(out: &mut Vec<u8>, format: TextFormat, family: &Exposed, labels: &Labels) {
    let metric = &*family.metric;
    let mut text = Vec::new();
    put_labels(&mut text, labels);
    let bounds = metric.buckets.as_ref().map_or(&[][..], |buckets| &buckets.bounds[..]);
    let buckets = vec![0; bounds.len()];
    // It has no creation time yet, so no `_created` line either.
    let format = match format {
        TextFormat::OpenMetrics { .. } => TextFormat::OpenMetrics { created: false },
        TextFormat::Prometheus => format,
    };
    let point = DistributionPoint { labels: &text, count: 0, sum: 0, quantiles: None, buckets: &buckets, created: 0 };
    let exponent = metric.scale.exponent();
    match family.kind {
        FamilyType::Counter | FamilyType::Gauge => {
            let mut prefix = Vec::new();
            put_prefix(&mut prefix, &family.name, &text);
            put_scalar(out, &prefix, 0, 0);
        }
        FamilyType::Summary => {
            DistributionWriter::summary(format, &family.name, exponent, &metric.quantiles).put_summary(out, &point);
        }
        FamilyType::Histogram => {
            DistributionWriter::histogram(format, &family.name, exponent, bounds).put_histogram(out, &point);
        }
    }
}
