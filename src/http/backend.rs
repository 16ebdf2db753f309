//! What the routes need of a running pipeline, and the words they answer with.
//!
//! In: nothing. Out: the trait [`Backend`] and plain data, whose `Serialize` form is the wire form.
//! Invariant: methods may block (they are called off the runtime's thread), but [`Backend::is_ready`] must not.

pub use super::laws::Laws;
use crate::event::Timestamp;
use crate::event::time::rfc3339;
use crate::pipeline::WidgetError;
use crate::pipeline::export::{ExportRequest, Take};
use crate::pipeline::queries::{Answer, Question, Unanswered};
use crate::pipeline::tap::{TapError, TapLine, TapRequest};
use crate::pipeline::upkeep::{StoreCheck, StoreStats};
use serde::{Deserialize, Serialize, Serializer};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// The running pipeline, as HTTP sees it.
pub trait Backend: Send + Sync + 'static {
    /// The current values of the families asked for. A body is rendered at most once per commit and shared (Q3).
    ///
    /// # Errors
    /// [`NoScrape`].
    fn scrape(&self, request: &ScrapeRequest) -> Result<ScrapeBody, NoScrape>;

    /// The state of every part.
    fn health(&self) -> Health;

    /// True once sources are bound and the store is open. Must not block.
    fn is_ready(&self) -> bool;

    /// Kept inputs, newest first, at most `limit`; `name` keeps those of one source, event or check.
    fn recent(&self, kind: RecentKind, name: Option<&str>, limit: usize) -> Vec<RecentItem>;

    /// Takes lines as a source does. With `wait` it returns after the commit that holds them.
    ///
    /// # Errors
    /// When the pipeline cannot take samples now (C4): then it has taken none.
    fn lines(&self, body: Vec<u8>, wait: bool) -> Result<LinesTaken, Unavailable>;

    /// Takes events, one line of JSON each, as a source does; what is no object is refused. With `wait` it returns
    /// after the commit that holds them.
    ///
    /// # Errors
    /// When the pipeline cannot take events now: then it has taken none.
    fn events(&self, lines: Vec<u8>, wait: bool) -> Result<EventsTaken, EventsError>;

    /// Counts a client that was not served as it asked. Must not block.
    fn note_refusal(&self, refusal: Refusal);

    /// Whether the schema of an event names this field. Must not block.
    fn has_field(&self, event: &[u8], field: &[u8]) -> bool;

    /// Reads the pipeline file again and takes it over: what changed, as JSON. The metrics of `accept` may have another
    /// scale or unit: their old series are retired (R2).
    ///
    /// # Errors
    /// The diagnostics; the old pipeline runs on.
    fn reload(&self, accept: &[String]) -> Result<serde_json::Value, String>;

    /// Begins the series anew that any of these selectors means (R3), and says how many, after the commit.
    ///
    /// # Errors
    /// [`ResetRefused`].
    fn reset(&self, selectors: &[String]) -> Result<usize, ResetRefused>;

    /// What the index page shows.
    fn index(&self) -> IndexData;

    /// The data of a widget, its series over so many hours; `None` is as long as usual.
    ///
    /// # Errors
    /// [`WidgetError`].
    fn widget(&self, name: &str, hours: Option<f64>) -> Result<serde_json::Value, WidgetError>;

    /// Answers a question in PromQL, within `patience`.
    ///
    /// # Errors
    /// [`Unanswered`].
    fn ask(&self, question: &Question, patience: Duration) -> Result<Answer, Unanswered>;

    /// What the store holds.
    ///
    /// # Errors
    /// Why it cannot be told now.
    fn store_stats(&self) -> Result<StoreStats, String>;

    /// Verifies all of the store.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or why it cannot be read.
    fn store_check(&self) -> Result<StoreCheck, String>;

    /// A consistent copy of the store's file, at its beginning and without a name.
    ///
    /// # Errors
    /// Why it could not be made.
    fn store_copy(&self) -> Result<File, String>;

    /// Writes the points of a span, piece by piece, until it is done, `is_over`, or a piece is not taken any more.
    ///
    /// # Errors
    /// [`Unanswered`].
    fn export(
        &self,
        request: &ExportRequest,
        is_over: &dyn Fn() -> bool,
        take: &mut Take<'_>,
    ) -> Result<(), Unanswered>;

    /// Opens a tap; it closes when it is dropped.
    ///
    /// # Errors
    /// [`TapError`].
    fn tap(&self, request: &TapRequest) -> Result<Box<dyn TapFeed>, TapError>;
}

/// An open tap, looked at again and again.
pub trait TapFeed: Send {
    /// True when there is nothing to say now. Must not block.
    fn is_idle(&self) -> bool;

    /// True once everything that was asked for is shown. Must not block.
    fn is_over(&self) -> bool;

    /// What there is to say now.
    fn read(&mut self) -> Vec<TapLine>;

    /// What is still to say, and the last line, with the reason.
    fn end(&mut self, reason: &str) -> Vec<TapLine>;
}

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's protobuf.
    Protobuf,
    /// `/metrics.json`.
    Json,
    /// `/api/metrics?format=json`.
    ApiJson,
    /// `/api/metrics?format=csv`.
    Csv,
    /// `/api/metrics?format=influx`.
    Influx,
    /// `/api/metrics?format=ndjson`.
    Ndjson,
}

/// What a scrape asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeRequest {
    /// The format of the body.
    pub format: Format,
    /// `/metrics/{group}`; `None` = all families but those of group `internal`'s own page.
    pub group: Option<String>,
    /// `name[]`: exposed family names; empty = all.
    pub names: Vec<String>,
    /// `match[]`: selectors of the series to show; empty = all.
    pub selectors: Vec<String>,
    /// The client reads gzip.
    pub gzip: bool,
}

/// A rendered body.
#[derive(Clone, Debug)]
pub struct ScrapeBody {
    /// Complete, with version and charset.
    pub content_type: &'static str,
    /// Sent one after another; the long one is shared with every scrape of the same commit.
    pub pieces: [Arc<Vec<u8>>; 3],
    /// It is gzip; only ever when the request allowed it.
    pub gzip: bool,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoScrape {
    /// No family is of the group.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// Slow readers hold as much as bodies may take; it passes.
    #[error("{0}")]
    NoRoom(String),
    /// A selector is none; the words say which and why.
    #[error("{0}")]
    Selector(String),
}

/// How a client was not served as it asked; the words are the label of `hydrograph_http_refused_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Told to come again: answers on their way to slow readers take all the room there is.
    NoRoom,
    /// Closed without a request, or with an answer it did not take, because another needed the connection.
    Crowded,
    /// Closed because it did not take its answer.
    Stalled,
}

/// No family is of this group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such group; known: {}", known.join(", "))]
pub struct UnknownGroup {
    /// The groups there are.
    pub known: Vec<String>,
}

/// The pipeline cannot take samples now; the words say why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What became of the lines of a request.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LinesTaken {
    /// In their order.
    pub outcomes: Vec<LineOutcome>,
    /// The commit was waited for and did not come: they are taken, and whoever sends them again counts them twice.
    pub awaits_commit: bool,
}

/// Why nothing was reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetRefused {
    /// Nothing is committed now; it may happen later.
    #[error("{0}")]
    Unavailable(String),
    /// No series is meant.
    #[error("no such series")]
    Unknown,
    /// The selector is none, or means what is never reset.
    #[error("{0}")]
    Wrong(String),
}

/// What became of the events of a request.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct EventsTaken {
    /// How many were understood.
    pub accepted: u64,
    /// How many were refused.
    pub rejected: u64,
    /// The first of them.
    pub errors: Vec<RefusedEvent>,
    /// The commit was waited for and did not come, or what became of all was not heard in time: they are taken, and
    /// whoever sends them again counts them twice.
    pub awaits_commit: bool,
}

/// A refused event of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedEvent {
    /// Its place in the body, from 0; blank lines do not count.
    pub index: usize,
    /// The word of `hydrograph_rejected_total{reason}`.
    pub reason: String,
    /// One sentence for a person, with event and field where known.
    pub hint: String,
}

/// Why no events are taken now; both pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// Too much to do.
    #[error("{0}")]
    Busy(String),
    /// The store cannot commit.
    #[error("{0}")]
    Unavailable(String),
}

/// The state of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    Ok,
    /// Whole but impaired: a sink is down, a listener was skipped.
    Degraded,
    /// It cannot take or commit samples.
    Down,
}

/// The state of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// Works.
    Ok,
    /// Works in part or is retrying.
    Degraded,
    /// Does not work.
    Down,
}

/// One part of the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Component {
    /// As in the pipeline file: `source app`, `store`.
    pub name: String,
    /// Its state.
    pub state: ComponentState,
    /// Why it is not `ok`; empty when it is.
    pub reason: String,
}

/// The answer of `/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// The whole.
    pub status: HealthStatus,
    /// Its parts.
    pub components: Vec<Component>,
}

/// What `/api/v1/recent` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecentKind {
    /// Refused input.
    Rejects,
    /// Kept events: whole typed events of schemas with `keep`, and DogStatsD events.
    Events,
    /// DogStatsD events and service checks.
    Checks,
}

impl RecentKind {
    /// Every kind.
    pub const ALL: [RecentKind; 3] = [RecentKind::Rejects, RecentKind::Events, RecentKind::Checks];

    /// The word of the query string.
    pub fn as_str(self) -> &'static str {
        match self {
            RecentKind::Rejects => "rejects",
            RecentKind::Events => "events",
            RecentKind::Checks => "checks",
        }
    }
}

fn as_rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// One kept input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecentItem {
    /// When it came.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: Timestamp,
    /// The source it came from.
    pub source: String,
    /// The word of `hydrograph_rejected_total{reason}`; empty for what was not refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// One sentence: what was wrong and what would be right.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The input, as text; the text of an event, the message of a check. Bounded by who kept it.
    pub text: String,
    /// What only DogStatsD events and service checks have.
    #[serde(flatten)]
    pub notice: Option<NoticeFields>,
}

/// A DogStatsD event or service check, beside what every kept input has. Fields that the sender left out are too.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NoticeFields {
    /// `event` or `service_check`.
    pub kind: &'static str,
    /// The title of an event, the name of a check.
    pub name: String,
    /// Of a check: `ok`, `warning`, `critical`, `unknown`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub status: &'static str,
    /// Of an event: `info`, `success`, `warning`, `error`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub alert_type: &'static str,
    /// Of an event: `normal`, `low`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub priority: &'static str,
    /// Where it happened.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Of an event: those of one key belong together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aggregation_key: String,
    /// Of an event: what sent it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_type: String,
    /// `key:value` or bare.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What a line became.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LineOutcome {
    /// Refused; it counts as rejected input.
    Refused(Refused),
    /// One series that it fed; a line that feeds several has several outcomes.
    Accepted(Accepted),
}

/// A refused line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// As it was sent.
    pub line: String,
    /// The word of `hydrograph_rejected_total{reason}`.
    pub reason: String,
    /// One sentence for a person, with the offending part where known.
    pub hint: String,
}

/// A series that a line fed.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Accepted {
    /// As it was sent.
    pub line: String,
    /// The exposed name with its labels.
    pub series: String,
    /// The exposed type: `counter`, `gauge`, `summary`, `histogram`.
    pub kind: String,
    /// Samples: of the window for a distribution, since creation otherwise.
    pub samples: u64,
    /// The value now; `None` for a distribution, and without waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The median of a distribution's window; not written for an empty window, whose quantiles are NaN.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub quantile: Option<Quantile>,
    /// What a reader may wonder about: `checkout.latency in ms`. Without parentheses; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// `false` when it was taken and its commit, which was waited for, did not come yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
}

fn is_unknown(quantile: &Option<Quantile>) -> bool {
    quantile.is_none_or(|quantile| !quantile.value.is_finite())
}

/// A quantile with its truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// In [0, 1].
    pub q: f64,
    /// In the exposed unit.
    pub value: f64,
    /// Relative bound of its error: 0.01 is ±1 %. Infinite, which JSON writes as null, where the value is 0: half the
    /// metric's unit is all that can be promised there.
    #[serde(deserialize_with = "infinite_if_null")]
    pub bound: f64,
}

fn infinite_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// What the index page and `GET /` as JSON show.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct IndexData {
    /// Of the program.
    pub version: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// The wall clock, from which ages are counted.
    #[serde(serialize_with = "as_rfc3339")]
    pub now: Timestamp,
    /// Where it listens for input.
    pub listeners: Vec<ListenerInfo>,
    /// Where this page is, as URLs: `http://127.0.0.1:9911/`.
    pub http: Vec<String>,
    /// Every source.
    pub sources: Vec<SourceInfo>,
    /// Live series.
    pub series_count: u64,
    /// The series created last, newest first.
    pub newest: Vec<SeriesInfo>,
    /// Refused input, newest first.
    pub rejects: Vec<RecentItem>,
    /// The file.
    pub store: StoreInfo,
    /// All sources but `internal` and `host`, without client telemetry.
    pub laws: Laws,
}

/// One address that input comes to.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct ListenerInfo {
    /// The source it belongs to.
    pub source: String,
    /// `unixgram`, `unixstream`, `udp` or `tcp`.
    pub kind: String,
    /// A path, or host and port.
    pub address: String,
    /// The line to paste into a client, or which clients use it.
    pub hint: String,
    /// Why it could not be bound; `None` = it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// One source's figures since the start.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct SourceInfo {
    /// As in the pipeline file.
    pub name: String,
    /// Inputs a second, over the last few seconds.
    pub inputs_per_second: f64,
    /// Lines and calls that came.
    pub inputs: u64,
    /// Of these, refused.
    pub rejected: u64,
    /// Samples that the rest became.
    pub samples: u64,
    /// Of these, dropped.
    pub dropped: u64,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct SeriesInfo {
    /// The exposed name with its labels.
    pub series: String,
    /// The exposed type.
    pub kind: String,
    /// Its first commit.
    #[serde(serialize_with = "as_rfc3339")]
    pub created: Timestamp,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct StoreInfo {
    /// A path, or `:memory:`.
    pub path: String,
    /// True when this start created it.
    pub is_new: bool,
    /// Blocks on disk, in bytes.
    pub bytes: u64,
    /// The newest commit.
    pub commit: u64,
}
