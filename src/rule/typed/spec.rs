//! What typed rules are told, by the pipeline file: schemas of events, pairs of them, and what feeds each metric.
//! Plain values. Whoever builds them has checked that names are valid, that what a name refers to exists and has a
//! fitting type, and that no event declares a field twice.

use crate::event::Kind;

/// Everything typed rules are compiled from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TypedConfig {
    /// Each name once.
    pub events: Vec<EventSpec>,
    /// Each name once.
    pub pairs: Vec<PairSpec>,
    /// In the order of the file.
    pub feeds: Vec<FeedSpec>,
    /// An event that no schema names is counted in `events_total{event}` instead of refused: the default pipeline.
    pub count_unknown: bool,
}

/// `[events.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct EventSpec {
    /// What key `event` holds.
    pub name: String,
    /// At most [`FIELDS_MAX`].
    pub fields: Vec<FieldSpec>,
    /// Each name once, and not a field's.
    pub derived: Vec<DeriveSpec>,
    /// So many of the newest events are kept whole.
    pub keep: u32,
}

/// Most fields of one event: one bit each in the set of fields that were seen.
pub const FIELDS_MAX: usize = 64;

/// A field of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSpec {
    /// Its name in `derive`, `when`, `value` and `labels`.
    pub name: String,
    /// What it holds on the wire.
    pub ty: FieldType,
    /// Written with `?`: may be missing or null.
    pub optional: bool,
    /// The keys that lead to it; `[name]` where the file says nothing.
    pub path: Vec<String>,
}

/// Types of fields. Times become seconds, whatever the producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `string`
    String,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `float`
    Float,
    /// `seconds`
    Seconds,
    /// `milliseconds`
    Milliseconds,
    /// `microseconds`
    Microseconds,
    /// `bytes`
    Bytes,
    /// `timestamp`: RFC 3339, or epoch s, ms, us or ns by its size. As a value: epoch seconds.
    Timestamp,
}

/// An entry of `derive`: a text that labels and conditions may name like a field.
#[derive(Clone, Debug, PartialEq)]
pub struct DeriveSpec {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub from: DeriveFrom,
}

/// How a derived text is made. The steps apply in the order of the fields below.
#[derive(Clone, Debug, PartialEq)]
pub enum DeriveFrom {
    /// `const`
    Const(String),
    /// `field`
    Field {
        /// A field of the event.
        field: String,
        /// `regex` and `replace`: the text is replaced where the pattern matches all of it; `$1` is a capture.
        regex: Option<(String, String)>,
        /// `class`
        class: Option<Class>,
        /// Text of the field → text of the label; what it does not name stays.
        map: Vec<(String, String)>,
        /// For a field that is missing.
        default: Option<String>,
        /// Most distinct values; later ones become `other`.
        distinct_max: Option<u32>,
        /// What later values become.
        other: String,
    },
}

/// Classes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 200 → `2xx`; outside 100 to 599 → `other`.
    Http,
}

/// `[pairs.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct PairSpec {
    /// Its name.
    pub name: String,
    /// The event that opens.
    pub start: String,
    /// The event that closes.
    pub end: String,
    /// The field of both that holds the key.
    pub key: String,
    /// Nanoseconds after its start at which an open pair expires.
    pub timeout: i64,
}

/// One entry of a metric's `from`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedSpec {
    /// Place of the metric in [`RulesConfig::declared`](crate::rule::RulesConfig::declared).
    pub metric: usize,
    /// Its kind.
    pub kind: Kind,
    /// What feeds it.
    pub from: FeedSource,
    /// Exactly the labels of the metric, each with where its value comes from, sorted by label.
    pub labels: Vec<(String, LabelSource)>,
    /// `when`, as written; [`Condition::parse`](super::Condition::parse) has accepted it.
    pub when: Option<String>,
    /// Gauges only.
    pub op: GaugeOp,
    /// What values are multiplied by, after times became seconds.
    pub scale: f64,
}

/// What feeds a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedSource {
    /// An event; by 1, or by a field.
    Event {
        /// Its name.
        event: String,
        /// A field that holds a number; for a set, any field.
        value: Option<String>,
    },
    /// A pair.
    Pair {
        /// Its name.
        pair: String,
        /// What of it.
        value: PairValue,
    },
    /// A value of a collector.
    Source {
        /// Name of the source.
        source: String,
        /// Name of the value, as the contract lists them.
        value: String,
    },
    /// StatsD names by a glob (`api.*.latency`) or a regular expression (`/^api\.(.*)$/`).
    Statsd {
        /// As written.
        pattern: String,
    },
    /// A recorded expression.
    Expr {
        /// PromQL.
        text: String,
    },
}

/// What of a pair feeds a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairValue {
    /// Gauge: pairs open now.
    Open,
    /// Distribution: seconds from start to end.
    Duration,
    /// Counter: pairs whose end did not come in time.
    Expired,
}

/// Where the value of a label comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSource {
    /// A field or a derived text of the event (of a pair: of its start).
    Field(String),
    /// `const`
    Const(String),
    /// `"$1"` of a StatsD pattern, with any text around it.
    Template(String),
    /// A label of the collector's value (`mount`, `gpu`) or of the expression's result.
    Own,
}

/// What a feed does to a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GaugeOp {
    /// `set`
    #[default]
    Set,
    /// `add`
    Add,
    /// `sub`
    Sub,
}
