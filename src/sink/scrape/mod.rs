//! The scrape endpoint's bodies, without HTTP.
//!
//! In: the view, a request. Out: a complete body with its content type. Owns: the rendered text of each
//! family's labels, and the newest body per (format, group, names). Invariants: a body is rendered at most
//! once per revision of the view and shared by all scrapers (Q3); bodies, also those that slow readers still hold,
//! take at most [`ScrapePlan::bytes_max`]; the live set, which must be seen when nothing commits any more, is
//! rendered at every scrape (C4).

mod chosen;
mod gzip;
mod json;
mod protobuf;
mod render;
mod room;
mod table;
mod walk;

use crate::codec::exposition::{
    CONTENT_TYPE_CSV, CONTENT_TYPE_INFLUX, CONTENT_TYPE_JSON, CONTENT_TYPE_NDJSON, CONTENT_TYPE_OPENMETRICS,
    CONTENT_TYPE_PROTOBUF, CONTENT_TYPE_TEXT, CSV_HEADER, FamilyHead, FamilyType, OPENMETRICS_END, TextFormat,
    put_float, put_head, put_labels, put_prefix, window_name,
};
use crate::event::{Group, Kind, Labels, Metric, Timestamp};
use crate::view::View;
pub use chosen::Chosen;
use gzip::Segment;
use render::FamilyText;
use room::Readers;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bodies kept: a few formats and groups, and room for one-off `name[]=` filters.
const BODIES_MAX: usize = 16;
/// The group of client telemetry.
const INTERNAL: &str = "internal";

/// A format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeFormat {
    /// Text 0.0.4.
    Text,
    /// OpenMetrics 1.0; `_created` lines as the pipeline file says.
    OpenMetrics,
    /// Prometheus's protobuf, with native histograms.
    Protobuf,
    /// The object of `/metrics.json`.
    MetricsJson,
    /// The object of `/api/metrics`.
    ApiJson,
    /// A table, one row a series.
    Csv,
    /// InfluxDB's line protocol.
    Influx,
    /// One JSON object a series and line.
    Ndjson,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScrapeRequest {
    /// The format.
    pub format: ScrapeFormat,
    /// `/metrics/{group}`; `None` = everything but client telemetry.
    pub group: Option<String>,
    /// `name[]`: names of families or of their samples; empty = all.
    pub names: Vec<String>,
    /// The client reads gzip.
    pub gzip: bool,
}

/// A body.
#[derive(Clone, Debug)]
pub struct ScrapeBody {
    /// Complete.
    pub content_type: &'static str,
    /// The body is gzip; only when asked for.
    pub gzip: bool,
    /// The body, in pieces to be sent one after another: the large one is shared with every scrape of the
    /// same revision.
    pub pieces: [Arc<Vec<u8>>; 3],
}

impl ScrapeFormat {
    /// The `Content-Type` of its bodies.
    pub fn content_type(self) -> &'static str {
        match self {
            ScrapeFormat::Text => CONTENT_TYPE_TEXT,
            ScrapeFormat::OpenMetrics => CONTENT_TYPE_OPENMETRICS,
            ScrapeFormat::Protobuf => CONTENT_TYPE_PROTOBUF,
            ScrapeFormat::MetricsJson | ScrapeFormat::ApiJson => CONTENT_TYPE_JSON,
            ScrapeFormat::Csv => CONTENT_TYPE_CSV,
            ScrapeFormat::Influx => CONTENT_TYPE_INFLUX,
            ScrapeFormat::Ndjson => CONTENT_TYPE_NDJSON,
        }
    }

    /// True when a metric is one member, row or line whatever `expose` says, not a family for each.
    fn is_per_metric(self) -> bool {
        match self {
            ScrapeFormat::Text | ScrapeFormat::OpenMetrics | ScrapeFormat::Protobuf => false,
            ScrapeFormat::MetricsJson
            | ScrapeFormat::ApiJson
            | ScrapeFormat::Csv
            | ScrapeFormat::Influx
            | ScrapeFormat::Ndjson => true,
        }
    }
}

impl ScrapeBody {
    /// Bytes of the whole body.
    pub fn length(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// The whole body, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length());
        self.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }
}

/// No metric is of this group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such group; known: {}", known.join(", "))]
pub struct UnknownGroup {
    /// The groups there are, sorted.
    pub known: Vec<String>,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// No metric is of this group.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// Slow readers hold what bodies may take, or one body alone is longer than that.
    #[error(
        "bodies may take {bytes_max} bytes (what limits.memory leaves), and this one finds no room among those that are being read"
    )]
    NoRoom {
        /// [`ScrapePlan::bytes_max`]
        bytes_max: usize,
    },
}

/// A family whose values are read at each scrape.
#[derive(Clone, Debug)]
pub struct LiveFamily {
    /// The exposed name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: FamilyType,
    /// `# HELP`.
    pub help: &'static str,
    /// `# UNIT`.
    pub unit: &'static str,
    /// Its series.
    pub samples: Vec<(Labels, f64)>,
}

/// What is true only now (C4), from whoever knows.
#[derive(Clone, Debug, Default)]
pub struct LiveValues {
    /// Wall clock.
    pub now: Timestamp,
    /// Since the start.
    pub uptime_seconds: f64,
    /// `hydrograph_up`, commit lag, pending bytes, drops, `process_*`; names must differ.
    pub families: Vec<LiveFamily>,
}

/// What a reload may change.
#[derive(Clone, Debug, Default)]
pub struct ScrapePlan {
    /// `created = true`: `_created` lines in OpenMetrics.
    pub created: bool,
    /// Declared metrics: those without labels exist from the first scrape.
    pub declared: Vec<Arc<Metric>>,
    /// Labels on every series.
    pub constant_labels: Labels,
    /// Bytes that bodies, with their label text, may take, whoever holds them; `None` = no bound.
    pub bytes_max: Option<usize>,
}

/// One exposed family: a metric, or the summary beside its histogram.
struct Exposed {
    name: String,
    metric: Arc<Metric>,
    kind: FamilyType,
}

/// Where a body comes from.
struct Body {
    revision: u64,
    last_used: u64,
    bytes: Arc<Vec<u8>>,
    names: Vec<String>,
    /// Compressed at the first request for it.
    gzip: Option<Segment>,
}

impl Body {
    fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.gzip.as_ref().map_or(0, Segment::heap_bytes)
    }
}

#[derive(Default)]
struct Inner {
    plan: ScrapePlan,
    /// By metric number and whether it is of protobuf.
    texts: HashMap<(u32, bool), FamilyText, foldhash::fast::FixedState>,
    bodies: HashMap<(ScrapeFormat, Option<String>, Vec<String>), Body>,
    /// How long the last body of a format was.
    lengths: HashMap<ScrapeFormat, usize>,
    readers: Readers,
    requests: u64,
}

/// The handle; share it in an `Arc`. Rendering takes milliseconds (100,000 counters) to half a second
/// (100,000 summaries with compression): call it where a thread may be busy so long.
pub struct Scrape {
    view: View,
    live: Box<dyn Fn() -> LiveValues + Send + Sync>,
    inner: Mutex<Inner>,
}

impl Scrape {
    /// A scrape endpoint of a view.
    pub fn new(view: View, plan: ScrapePlan, live: impl Fn() -> LiveValues + Send + Sync + 'static) -> Scrape {
        Scrape { view, live: Box::new(live), inner: Mutex::new(Inner { plan, ..Inner::default() }) }
    }

    /// The pipeline was reloaded.
    pub fn reload(&self, plan: ScrapePlan) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = std::mem::take(&mut inner.bodies);
        bodies.into_values().for_each(|body| inner.forget(body));
        *inner = Inner { plan, readers: std::mem::take(&mut inner.readers), ..Inner::default() };
    }

    /// The groups that have a page, sorted.
    pub fn groups(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        known_groups(&self.metrics(&inner.plan))
    }

    /// Renders, or shares what was rendered of this revision.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn render(&self, request: &ScrapeRequest) -> Result<ScrapeBody, ScrapeError> {
        let live = (self.live)();
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *guard;
        inner.requests += 1;
        let revision = self.view.revision();
        let mut names = request.names.clone();
        names.sort_unstable();
        let key = (request.format, request.group.clone(), names);
        if inner.bodies.get(&key).is_none_or(|body| body.revision != revision) {
            let exposed = self.exposed(&inner.plan, request)?;
            let mut bytes = inner.reuse(&key);
            let no_room = ScrapeError::NoRoom { bytes_max: inner.plan.bytes_max.unwrap_or(usize::MAX) };
            let guess = match request.names.is_empty() && request.group.is_none() {
                true => inner.lengths.get(&request.format).copied().unwrap_or(0),
                false => 0,
            };
            let mut is_whole;
            loop {
                let Some(bytes_max) = inner.make_room(guess.max(bytes.capacity())) else { return Err(no_room) };
                // A little more than last time, because series come a few at a time.
                bytes.reserve((guess + guess / 8).min(bytes_max));
                is_whole = self.render_families(inner, request.format, &exposed, None, &mut bytes, bytes_max);
                if is_whole || inner.bodies.is_empty() {
                    break;
                }
                // It is longer than was thought: once more, with the room of all others.
                std::mem::take(&mut inner.bodies).into_values().for_each(|body| inner.forget(body));
                bytes.clear();
            }
            if request.names.is_empty() && request.group.is_none() {
                inner.lengths.insert(request.format, bytes.len());
            }
            inner.trim_texts();
            // Label text that was made for it takes room too.
            if !is_whole || inner.make_room(bytes.len()).is_none() {
                return Err(no_room);
            }
            bytes.shrink_to(bytes.len() + bytes.len() / 8);
            if inner.bodies.len() >= BODIES_MAX {
                let oldest = inner.bodies.iter().min_by_key(|(_, body)| body.last_used).map(|(key, _)| key.clone());
                if let Some(body) = oldest.and_then(|oldest| inner.bodies.remove(&oldest)) {
                    inner.forget(body);
                }
            }
            let names = exposed.into_iter().map(|exposed| exposed.name).collect();
            inner
                .bodies
                .insert(key.clone(), Body { revision, last_used: 0, bytes: Arc::new(bytes), names, gzip: None });
        }
        let created = inner.plan.created;
        let body = inner.bodies.get_mut(&key).expect("inserted above");
        body.last_used = inner.requests;
        let (head, tail) = self.around(request, &live, body, created);
        let content_type = request.format.content_type();
        let pieces = if request.gzip {
            gzip::join(&head, body.gzip.get_or_insert_with(|| Segment::new(&body.bytes)), &tail)
        } else {
            [Arc::new(head), Arc::clone(&body.bytes), Arc::new(tail)]
        };
        Ok(ScrapeBody { content_type, gzip: request.gzip, pieces })
    }

    /// What stands before and after the shared part: the live set, and what a format needs around it.
    fn around(&self, request: &ScrapeRequest, live: &LiveValues, body: &Body, created: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let is_shown = |family: &&LiveFamily| {
            request.group.is_none()
                && wants(&request.names, family.name)
                && !family.samples.is_empty()
                && !body.names.iter().any(|name| name == family.name)
        };
        let families = live.families.iter().filter(is_shown);
        match request.format {
            ScrapeFormat::Text | ScrapeFormat::OpenMetrics => {
                families.for_each(|family| put_live(&mut tail, text_format(request.format, created), family));
                if request.format == ScrapeFormat::OpenMetrics {
                    tail.extend_from_slice(OPENMETRICS_END);
                }
            }
            ScrapeFormat::MetricsJson | ScrapeFormat::ApiJson => {
                let is_api = request.format == ScrapeFormat::ApiJson;
                json::put_head(&mut head, is_api, live);
                let mut is_first = body.bytes.is_empty();
                for family in families {
                    json::put_live(&mut tail, std::mem::replace(&mut is_first, false), is_api, live.now, family);
                }
                tail.extend_from_slice(if is_api { b"}}" } else { b"}" });
            }
            ScrapeFormat::Protobuf => families.for_each(|family| protobuf::put_live(&mut tail, family)),
            ScrapeFormat::Csv => {
                head.extend_from_slice(CSV_HEADER);
                families.for_each(|family| table::put_live_csv(&mut tail, live.now, family));
            }
            ScrapeFormat::Influx => families.for_each(|family| table::put_live_influx(&mut tail, live.now, family)),
            ScrapeFormat::Ndjson => families.for_each(|family| json::put_live_lines(&mut tail, live.now, family)),
        }
        (head, tail)
    }

    /// Metrics with series, and declared ones without.
    fn metrics(&self, plan: &ScrapePlan) -> Vec<Arc<Metric>> {
        let mut metrics = self.view.metrics();
        for declared in &plan.declared {
            if !metrics.iter().any(|metric| metric.name == declared.name) {
                metrics.push(Arc::clone(declared));
            }
        }
        metrics
    }

    /// The families of a request, sorted by name.
    fn exposed(&self, plan: &ScrapePlan, request: &ScrapeRequest) -> Result<Vec<Exposed>, UnknownGroup> {
        let metrics = self.metrics(plan);
        if let Some(group) = &request.group {
            let known = known_groups(&metrics);
            if !known.contains(group) {
                return Err(UnknownGroup { known });
            }
        }
        let mut exposed = Vec::new();
        for metric in metrics {
            let is_here = match (&metric.group, request.group.as_deref()) {
                (Group::InternalOnly, group) => group == Some(INTERNAL),
                (_, None) => true,
                (Group::Named(name), Some(group)) => &**name == group,
                (Group::Main, Some(_)) => false,
            };
            if !is_here {
                continue;
            }
            let mut push = |name: String, kind: FamilyType| {
                if wants(&request.names, &name) {
                    exposed.push(Exposed { name, metric: Arc::clone(&metric), kind });
                }
            };
            let name = metric.name.to_string();
            match metric.kind {
                Kind::Counter => push(name, FamilyType::Counter),
                Kind::Gauge | Kind::Set => push(name, FamilyType::Gauge),
                Kind::Distribution if metric.expose.histogram => {
                    push(name, FamilyType::Histogram);
                    if metric.expose.summary && !request.format.is_per_metric() {
                        push(window_name(&metric.name, metric.unit.as_str()), FamilyType::Summary);
                    }
                }
                Kind::Distribution => push(name, FamilyType::Summary),
            }
        }
        exposed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(exposed)
    }
}

impl Inner {
    /// Memory for a body: that of the last one when no scraper still reads it (touching fresh pages costs as
    /// much as the digits), else none yet.
    fn reuse(&mut self, key: &(ScrapeFormat, Option<String>, Vec<String>)) -> Vec<u8> {
        let Some(last) = self.bodies.remove(key) else { return Vec::new() };
        if let Some(gzip) = last.gzip {
            self.readers.note(gzip.into_bytes());
        }
        match Arc::try_unwrap(last.bytes) {
            Ok(mut bytes) => {
                bytes.clear();
                bytes
            }
            Err(bytes) => {
                self.readers.note(bytes);
                Vec::new()
            }
        }
    }
}

fn text_format(format: ScrapeFormat, created: bool) -> TextFormat {
    if format == ScrapeFormat::OpenMetrics { TextFormat::OpenMetrics { created } } else { TextFormat::Prometheus }
}

/// Whether a filter names a family: by its name, or by the name of one of its samples.
fn wants(names: &[String], family: &str) -> bool {
    let names_it = |name: &String| {
        let rest = name.strip_prefix(family);
        rest.is_some_and(|rest| matches!(rest, "" | "_sum" | "_count" | "_bucket" | "_created"))
            || family.strip_suffix("_total").is_some_and(|stem| name == stem)
    };
    names.is_empty() || names.iter().any(names_it)
}

fn known_groups(metrics: &[Arc<Metric>]) -> Vec<String> {
    let mut known = vec![INTERNAL.to_owned()];
    known.extend(metrics.iter().filter_map(|metric| match &metric.group {
        Group::Named(name) => Some(name.to_string()),
        Group::Main | Group::InternalOnly => None,
    }));
    known.sort_unstable();
    known.dedup();
    known
}

fn put_live(out: &mut Vec<u8>, format: TextFormat, family: &LiveFamily) {
    let head = FamilyHead { name: family.name, kind: family.kind, help: family.help, unit: family.unit };
    put_head(out, format, &head);
    let (mut labels, mut prefix) = (Vec::new(), Vec::new());
    for (pairs, value) in &family.samples {
        labels.clear();
        prefix.clear();
        put_labels(&mut labels, pairs);
        put_prefix(&mut prefix, family.name, &labels);
        put_float(out, &prefix, *value);
    }
}

#[cfg(test)]
mod tests;
