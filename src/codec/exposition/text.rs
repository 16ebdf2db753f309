//! Prometheus text 0.0.4 and OpenMetrics 1.0, line by line.
//!
//! In: a family's head, then its series as plain integers with their label text. Out: bytes. The two
//! formats differ in the head, in `_created`, in how a whole bound is written, and in how a counter whose
//! name lacks `_total` is called. Source: prometheus/docs exposition_formats; OpenMetrics 1.0.0.

use super::escape::put_help;
use super::number::{put_canonical, put_f64, put_u128, put_units};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFormat {
    /// Prometheus 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0; `created` adds `_created` lines.
    OpenMetrics {
        /// Off by default: Prometheus keeps each as one more series.
        created: bool,
    },
}

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyType {
    /// One cumulative number.
    Counter,
    /// One number.
    Gauge,
    /// Quantiles of a window, cumulative sum and count.
    Summary,
    /// Cumulative buckets, sum and count.
    Histogram,
}

/// The head of a family.
#[derive(Clone, Copy, Debug)]
pub struct FamilyHead<'a> {
    /// The exposed name.
    pub name: &'a str,
    /// Its type.
    pub kind: FamilyType,
    /// `# HELP`, not escaped; no line when empty.
    pub help: &'a str,
    /// `# UNIT`; written only where the name ends with it.
    pub unit: &'a str,
}

impl FamilyHead<'_> {
    /// True when the name, `_total` of a counter apart, ends with the unit: readers refuse any other.
    pub(super) fn has_unit_in_name(&self) -> bool {
        let stem = if self.kind == FamilyType::Counter { self.name.strip_suffix("_total") } else { None };
        let stem = stem.unwrap_or(self.name).strip_suffix(self.unit);
        !self.unit.is_empty() && stem.is_some_and(|stem| stem.ends_with('_'))
    }
}

impl FamilyType {
    /// The word for it in every format that has one.
    pub fn as_str(self) -> &'static str {
        match self {
            FamilyType::Counter => "counter",
            FamilyType::Gauge => "gauge",
            FamilyType::Summary => "summary",
            FamilyType::Histogram => "histogram",
        }
    }
}

/// A point of a summary or histogram; counts cumulative, values in scale units.
#[derive(Clone, Copy, Debug)]
pub struct DistributionPoint<'a> {
    /// `key="value",...`, escaped; may be empty.
    pub labels: &'a [u8],
    /// Σ weight.
    pub count: u128,
    /// Σ value × weight.
    pub sum: i128,
    /// Quantiles in the order of the writer's, `None` for an empty window (summary).
    pub quantiles: Option<&'a [i64]>,
    /// Counts not above each bound (histogram).
    pub buckets: &'a [u128],
    /// Nanoseconds since the epoch.
    pub created: i64,
}

/// Writes the head of a family.
pub fn put_head(out: &mut Vec<u8>, format: TextFormat, head: &FamilyHead<'_>) {
    let is_openmetrics = matches!(format, TextFormat::OpenMetrics { .. });
    let mut name = head.name;
    let mut kind = head.kind.as_str();
    if is_openmetrics && head.kind == FamilyType::Counter {
        // The family is named without the suffix that its samples must have.
        match name.strip_suffix("_total") {
            Some(stem) if !stem.is_empty() => name = stem,
            _ => kind = "unknown",
        }
    }
    let line = |out: &mut Vec<u8>, keyword: &str| {
        out.extend_from_slice(keyword.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
    };
    if !is_openmetrics && !head.help.is_empty() {
        line(out, "# HELP ");
        put_help(out, head.help, false);
        out.push(b'\n');
    }
    line(out, "# TYPE ");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'\n');
    if is_openmetrics {
        if head.has_unit_in_name() {
            line(out, "# UNIT ");
            out.extend_from_slice(head.unit.as_bytes());
            out.push(b'\n');
        }
        if !head.help.is_empty() {
            line(out, "# HELP ");
            put_help(out, head.help, true);
            out.push(b'\n');
        }
    }
}

/// Writes `name{labels} ` for a scalar sample: what a renderer caches.
pub fn put_prefix(out: &mut Vec<u8>, name: &str, labels: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        out.push(b'}');
    }
    out.push(b' ');
}

/// Writes a scalar sample in units of `10^-exponent`.
#[inline]
pub fn put_scalar(out: &mut Vec<u8>, prefix: &[u8], units: i128, exponent: u8) {
    out.extend_from_slice(prefix);
    put_units(out, units, exponent);
    out.push(b'\n');
}

/// Writes a scalar sample.
#[inline]
pub fn put_float(out: &mut Vec<u8>, prefix: &[u8], value: f64) {
    out.extend_from_slice(prefix);
    put_f64(out, value);
    out.push(b'\n');
}

/// Writes the `_created` line of a counter, when the format has one. A counter without `_total` is
/// `unknown` in OpenMetrics, which has none.
pub fn put_counter_created(out: &mut Vec<u8>, format: TextFormat, name: &str, labels: &[u8], created: i64) {
    if format == (TextFormat::OpenMetrics { created: true })
        && let Some(stem) = name.strip_suffix("_total").filter(|stem| !stem.is_empty())
    {
        put_created(out, stem, labels, created);
    }
}

fn put_created(out: &mut Vec<u8>, stem: &str, labels: &[u8], created: i64) {
    out.extend_from_slice(stem.as_bytes());
    put_prefix(out, "_created", labels);
    put_units(out, i128::from(created), 9);
    out.push(b'\n');
}

/// Writes the head of a part of a distribution that OpenMetrics does not take as a summary or histogram.
pub fn put_unknown_head(out: &mut Vec<u8>, name: &str, help: &str) {
    for (keyword, text) in [("# TYPE ", "unknown"), ("# HELP ", help)] {
        out.extend_from_slice(keyword.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        put_help(out, text, true);
        out.push(b'\n');
    }
}

/// The samples of a distribution that share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DistributionPart {
    /// Quantiles or buckets.
    Steps,
    /// `_sum`
    Sum,
    /// `_count`
    Count,
}

impl DistributionPart {
    /// In the order in which they are written.
    pub const ALL: [DistributionPart; 3] = [DistributionPart::Steps, DistributionPart::Sum, DistributionPart::Count];
}

impl DistributionPoint<'_> {
    /// True when a summary or histogram of OpenMetrics may not hold it: its quantiles and sums are not negative.
    pub fn has_negative(&self) -> bool {
        self.sum < 0 || self.quantiles.is_some_and(|quantiles| quantiles.iter().any(|units| *units < 0))
    }
}

/// Writes the series of one summary or histogram family.
pub struct DistributionWriter {
    name: String,
    exponent: u8,
    created: bool,
    /// `quantile="0.5"} ` or `le="0.5"} ` per quantile or bound, then of `+Inf` for a histogram.
    steps: Vec<Vec<u8>>,
}

impl DistributionWriter {
    /// A summary with these quantiles.
    pub fn summary(format: TextFormat, name: &str, exponent: u8, quantiles: &[f64]) -> DistributionWriter {
        DistributionWriter::new(format, name, exponent, "quantile", quantiles.iter().copied())
    }

    /// A histogram with these bounds, in base units.
    pub fn histogram(format: TextFormat, name: &str, exponent: u8, bounds: &[f64]) -> DistributionWriter {
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        DistributionWriter::new(format, name, exponent, "le", bounds)
    }

    fn new(
        format: TextFormat,
        name: &str,
        exponent: u8,
        key: &str,
        steps: impl Iterator<Item = f64>,
    ) -> DistributionWriter {
        let step = |value: f64| {
            let mut text = format!("{key}=\"").into_bytes();
            match format {
                TextFormat::Prometheus => put_f64(&mut text, value),
                TextFormat::OpenMetrics { .. } => put_canonical(&mut text, value),
            }
            text.extend_from_slice(b"\"} ");
            text
        };
        DistributionWriter {
            name: name.to_owned(),
            exponent,
            created: format == (TextFormat::OpenMetrics { created: true }),
            steps: steps.map(step).collect(),
        }
    }

    fn put_step(&self, out: &mut Vec<u8>, suffix: &[u8], labels: &[u8], step: &[u8]) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(suffix);
        out.push(b'{');
        if !labels.is_empty() {
            out.extend_from_slice(labels);
            out.push(b',');
        }
        out.extend_from_slice(step);
    }

    /// Writes one series of a summary.
    pub fn put_summary(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        self.put_quantiles(out, point);
        self.put_totals(out, point);
    }

    /// Writes one series of a histogram; `+Inf` equals `_count`.
    pub fn put_histogram(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        self.put_buckets(out, point);
        self.put_totals(out, point);
    }

    /// Writes of one series what shares a name.
    pub fn put_part(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>, is_summary: bool, part: DistributionPart) {
        match part {
            DistributionPart::Steps if is_summary => self.put_quantiles(out, point),
            DistributionPart::Steps => self.put_buckets(out, point),
            DistributionPart::Sum => self.put_sum(out, point),
            DistributionPart::Count => self.put_count(out, point),
        }
    }

    fn put_quantiles(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        for (at, step) in self.steps.iter().enumerate() {
            self.put_step(out, b"", point.labels, step);
            match point.quantiles.and_then(|quantiles| quantiles.get(at)) {
                Some(units) => put_units(out, i128::from(*units), self.exponent),
                None => out.extend_from_slice(b"NaN"),
            }
            out.push(b'\n');
        }
    }

    fn put_buckets(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        let counts = point.buckets.iter().copied().chain([point.count]);
        for (step, count) in self.steps.iter().zip(counts) {
            self.put_step(out, b"_bucket", point.labels, step);
            put_u128(out, count);
            out.push(b'\n');
        }
    }

    fn put_totals(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        self.put_sum(out, point);
        self.put_count(out, point);
        if self.created {
            put_created(out, &self.name, point.labels, point.created);
        }
    }

    fn put_sum(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        out.extend_from_slice(self.name.as_bytes());
        put_prefix(out, "_sum", point.labels);
        put_units(out, point.sum, self.exponent);
        out.push(b'\n');
    }

    fn put_count(&self, out: &mut Vec<u8>, point: &DistributionPoint<'_>) {
        out.extend_from_slice(self.name.as_bytes());
        put_prefix(out, "_count", point.labels);
        put_u128(out, point.count);
        out.push(b'\n');
    }
}

/// The last line of an OpenMetrics body.
pub const OPENMETRICS_END: &[u8] = b"# EOF\n";
