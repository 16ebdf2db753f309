//! History in the formats that others read: every point of the chosen series over a span, piece by piece.
//!
//! In: a format, selectors, a span of time. Out: bytes, a piece at a time, to whoever takes them. Owns nothing.
//! Invariants: a name's series are of one commit; a series is written once, whatever several selectors mean; one series is
//! in memory at a time; where nobody takes the pieces any more the writing ends.

use super::queries::{Unanswered, unanswered};
use super::running::Pipeline;
use crate::codec::exposition::{
    CSV_HEADER, CsvRow, FamilyHead, FamilyType, InfluxLine, OPENMETRICS_END, TextFormat, put_f64, put_head,
    put_json_f64, put_json_labels, put_json_string, put_labels, put_prefix, put_units, put_unknown_head,
};
use crate::event::{Kind, Labels, Timestamp};
use crate::query::points::{self, Name, Role};
use crate::query::{EvalError, Selector};
use std::collections::HashSet;
use std::sync::Arc;

/// A piece is handed over when it has become so long.
const PIECE_BYTES: usize = 64 * 1024;
/// How often a name is gone on with over a new world.
const WORLDS_MAX: usize = 100;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Prometheus text 0.0.4 with timestamps.
    Prometheus,
    /// OpenMetrics 1.0 with timestamps: what `promtool tsdb create-blocks-from openmetrics` reads.
    OpenMetrics,
    /// An array of the objects of [`ExportFormat::Ndjson`].
    Json,
    /// A line a series: `{"name","type","unit","labels","points":[[seconds, value], ...]}`.
    Ndjson,
    /// A row a point, under the header of the current values.
    Csv,
    /// InfluxDB's line protocol, a line a point.
    Influx,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportRequest {
    /// How it is written.
    pub format: ExportFormat,
    /// PromQL selectors; none is everything.
    pub selectors: Vec<String>,
    /// Points after this time.
    pub start: Timestamp,
    /// Up to this one.
    pub end: Timestamp,
}

impl ExportRequest {
    /// The selectors.
    ///
    /// # Errors
    /// Words for whoever wrote one that is none.
    pub fn parsed(&self) -> Result<Vec<Selector>, String> {
        let parsed = self.selectors.iter().map(|text| Selector::parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(if parsed.is_empty() { vec![Selector::all()] } else { parsed })
    }
}

/// Takes the pieces; `false` ends the writing.
pub type Take<'t> = dyn FnMut(Vec<u8>) -> bool + 't;

impl Pipeline {
    /// Writes the points of a span, piece by piece, until it is done or `is_over`.
    ///
    /// # Errors
    /// [`Unanswered`]; the pieces before it stand and are not the whole.
    pub fn export(
        &self,
        request: &ExportRequest,
        is_over: &dyn Fn() -> bool,
        take: &mut Take<'_>,
    ) -> Result<(), Unanswered> {
        let selectors = request.parsed().map_err(Unanswered::Wrong)?;
        let worlds = self.worlds();
        // Neither further back than anything is kept nor into the future: both hold nothing.
        let now = self.now();
        let end = request.end.min(now);
        let start = request.start.max(Timestamp(now.0.saturating_sub(self.plan().store.keep_longest())));
        let start = start.min(end);
        let mut out = Out { format: request.format, bytes: Vec::new(), family: None, series: 0, take };
        out.begin();
        for name in worlds.names(&selectors) {
            let mut seen: HashSet<Labels, foldhash::fast::FixedState> = HashSet::default();
            let named = name.selectors(&selectors);
            let mut attempts = 0;
            loop {
                let written = worlds.world_of(&named, start, true).map_err(EvalError::from).and_then(|world| {
                    points::points(&world, &selectors, &name, (start, end), is_over, &mut |labels, points| match seen
                        .insert(labels.clone())
                    {
                        true => out.series(&name, labels, points),
                        false => Ok(()),
                    })
                });
                attempts += 1;
                match written {
                    // What was written stands; the rest is read over a new world.
                    Err(EvalError::Data(error)) if error.is_stale && attempts < WORLDS_MAX => {}
                    outcome => break outcome.map_err(unanswered)?,
                }
            }
        }
        out.end();
        match out.hand_over() {
            true => Ok(()),
            false => Err(Unanswered::TimeIsOver),
        }
    }
}

/// What is being written.
struct Out<'t> {
    format: ExportFormat,
    bytes: Vec<u8>,
    /// The family, or the name, whose head stands last.
    family: Option<Arc<str>>,
    series: u64,
    take: &'t mut dyn FnMut(Vec<u8>) -> bool,
}

fn family_type(name: &Name) -> FamilyType {
    match name.metric.kind {
        Kind::Counter => FamilyType::Counter,
        Kind::Gauge | Kind::Set => FamilyType::Gauge,
        Kind::Distribution if name.metric.expose.histogram && *name.family == *name.metric.name => {
            FamilyType::Histogram
        }
        Kind::Distribution => FamilyType::Summary,
    }
}

impl Out<'_> {
    fn hand_over(&mut self) -> bool {
        (self.take)(std::mem::take(&mut self.bytes))
    }

    fn begin(&mut self) {
        match self.format {
            ExportFormat::Csv => self.bytes.extend_from_slice(CSV_HEADER),
            ExportFormat::Json => self.bytes.push(b'['),
            _ => {}
        }
    }

    fn end(&mut self) {
        match self.format {
            ExportFormat::OpenMetrics => self.bytes.extend_from_slice(OPENMETRICS_END),
            ExportFormat::Json => self.bytes.extend_from_slice(b"]\n"),
            _ => {}
        }
    }

    /// The head of the next family, where the format has one.
    fn head(&mut self, name: &Name) {
        let metric = &*name.metric;
        let kind = family_type(name);
        // OpenMetrics wants the samples of one time of a summary or histogram together; here each name comes alone, and
        // stands as a family of its own that is neither.
        let is_apart = self.format == ExportFormat::OpenMetrics && name.role != Role::Value;
        let family = if is_apart { &name.name } else { &name.family };
        if self.family.as_ref() == Some(family) {
            return;
        }
        self.family = Some(Arc::clone(family));
        match self.format {
            ExportFormat::OpenMetrics if is_apart => put_unknown_head(&mut self.bytes, family, &metric.help),
            ExportFormat::OpenMetrics | ExportFormat::Prometheus => {
                let format = match self.format {
                    ExportFormat::OpenMetrics => TextFormat::OpenMetrics { created: false },
                    _ => TextFormat::Prometheus,
                };
                let head = FamilyHead { name: family, kind, help: &metric.help, unit: metric.unit.as_str() };
                put_head(&mut self.bytes, format, &head);
            }
            ExportFormat::Json | ExportFormat::Ndjson | ExportFormat::Csv | ExportFormat::Influx => {}
        }
    }

    /// One series.
    fn series(&mut self, name: &Name, labels: &Labels, points: &[(i64, f64)]) -> Result<(), EvalError> {
        self.head(name);
        let (kind, unit) = (family_type(name).as_str(), name.metric.unit.as_str());
        match self.format {
            ExportFormat::Prometheus | ExportFormat::OpenMetrics => {
                let (mut text, mut prefix) = (Vec::new(), Vec::new());
                put_labels(&mut text, labels);
                put_prefix(&mut prefix, &name.name, &text);
                for (time, value) in points {
                    self.bytes.extend_from_slice(&prefix);
                    put_f64(&mut self.bytes, *value);
                    self.bytes.push(b' ');
                    match self.format {
                        ExportFormat::OpenMetrics => put_units(&mut self.bytes, i128::from(*time), 9),
                        _ => put_units(&mut self.bytes, i128::from(time.div_euclid(1_000_000)), 0),
                    }
                    self.bytes.push(b'\n');
                    self.spill()?;
                }
            }
            ExportFormat::Csv => {
                for (time, value) in points {
                    let mut row = CsvRow::new(&mut self.bytes);
                    [&*name.name, kind, unit].into_iter().for_each(|text| row.text(text));
                    row.field(|out| put_labels(out, labels));
                    row.field(|out| put_units(out, i128::from(*time), 9));
                    row.field(|out| {
                        if value.is_finite() {
                            put_f64(out, *value);
                        }
                    });
                    drop(row);
                    self.spill()?;
                }
            }
            ExportFormat::Influx => {
                for (time, value) in points {
                    let mut line = InfluxLine::new(&mut self.bytes, &name.name, labels);
                    line.float("value", *value);
                    line.end(Some(*time));
                    self.spill()?;
                }
            }
            ExportFormat::Json | ExportFormat::Ndjson => {
                if self.format == ExportFormat::Json && self.series > 0 {
                    self.bytes.extend_from_slice(b",\n");
                }
                for (key, text) in [("{\"name\":", &*name.name), (",\"type\":", kind), (",\"unit\":", unit)] {
                    self.bytes.extend_from_slice(key.as_bytes());
                    put_json_string(&mut self.bytes, text);
                }
                self.bytes.extend_from_slice(b",\"labels\":");
                put_json_labels(&mut self.bytes, labels);
                self.bytes.extend_from_slice(b",\"points\":[");
                for (at, (time, value)) in points.iter().enumerate() {
                    self.bytes.extend_from_slice(if at == 0 { b"[" } else { b",[" });
                    put_units(&mut self.bytes, i128::from(*time), 9);
                    self.bytes.push(b',');
                    put_json_f64(&mut self.bytes, *value);
                    self.bytes.push(b']');
                    self.spill()?;
                }
                self.bytes.extend_from_slice(b"]}");
                if self.format == ExportFormat::Ndjson {
                    self.bytes.push(b'\n');
                }
            }
        }
        self.series += 1;
        Ok(())
    }

    /// Hands a piece over that is long enough.
    fn spill(&mut self) -> Result<(), EvalError> {
        if self.bytes.len() < PIECE_BYTES || self.hand_over() {
            return Ok(());
        }
        Err(EvalError::TimeIsOver)
    }
}
