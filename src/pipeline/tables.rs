//! Every table and key of a pipeline file, each once: its type, and what it means in a line.
//!
//! Out: structs of the values as written, the lists for "did you mean", the properties of the JSON Schema. Invariant:
//! reader and schema come from the same lines, so they cannot differ; a key of a later version stands in neither.

use super::diagnostic::{Diagnostics, Place};
use super::forms::{BucketsWritten, ExprsWritten, FieldWritten, LabelsWritten, PathWritten, TierWritten, ValueWritten};
use super::reader::{At, Node, NodeKind, Overrides, TableReader};
use super::written::{Bytes, Named, Nanos, SecretText, TextMap, Written};
use serde_json::{Value, json};

/// Declares the keys of a table once: the fields, their reading, their schema, and the list for "did you mean".
macro_rules! tables {
    ($($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $key_doc:literal])* $key:ident: $kind:ty,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "some tables' place, and the type that chose a source's table, are not asked for again")]
        pub(super) struct $name {
            pub(super) place: Place,
            $($(#[doc = $key_doc])* pub(super) $key: Option<At<$kind>>,)*
        }

        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$(key_name(stringify!($key)),)*];

            /// Reads the keys; `tables` are known beside them.
            pub(super) fn open(mut reader: TableReader<'_>, tables: &[&str]) -> $name {
                let out = $name {
                    place: reader.place.clone(),
                    $($key: reader.take(key_name(stringify!($key))),)*
                };
                reader.finish(&[Self::KEYS, tables].concat());
                out
            }

            /// The keys with their schemas.
            pub(super) fn properties() -> Vec<(&'static str, Value)> {
                vec![$((
                    key_name(stringify!($key)),
                    described(concat!($($key_doc),*), <$kind as Written>::schema()),
                ),)*]
            }
        }

        impl Written for $name {
            fn read(node: Node) -> Result<$name, Diagnostics> {
                let place = node.place.clone();
                let NodeKind::Table(entries) = node.kind else { return Err(node.expected("a table").into()) };
                let mut errors = Diagnostics::new();
                let none = Overrides::none();
                let reader =
                    TableReader::new("this table".into(), String::new(), place, entries, &none, &mut errors);
                let out = $name::open(reader, &[]);
                if errors.is_empty() { Ok(out) } else { Err(errors) }
            }

            fn schema() -> Value {
                object($name::properties())
            }
        }
    )*};
}

const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

fn described(doc: &str, mut schema: Value) -> Value {
    if let Value::Object(map) = &mut schema
        && !doc.is_empty()
    {
        map.insert("description".into(), doc.trim().into());
    }
    schema
}

/// The schema of a table that has these keys and no others.
pub(super) fn object(properties: Vec<(&'static str, Value)>) -> Value {
    let properties: serde_json::Map<String, Value> =
        properties.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

tables! {
    /// What each file says for itself.
    FileTable {
        /// Put before every metric declared in this file, joined by "_".
        namespace: String,
        /// Files whose events, pairs, metrics, widgets, panels, rules and tests belong to this pipeline too; relative beside this file.
        include: Vec<At<String>>,
    }
    /// The keys before the first table.
    TopTable {
        /// The pipeline's name, also the store's file name.
        name: String,
        /// Width of a slice, the smallest span of time that is kept apart.
        slice: Nanos,
        /// What summaries cover; a multiple of slice.
        window: Nanos,
        /// How long after its end a slice is closed.
        lateness: Nanos,
        /// What is later than this behind its own source is dropped and counted.
        accept_late: Nanos,
        /// What is further ahead of the clock than this is dropped and counted.
        max_future: Nanos,
        /// After so long at its end a partition leaves the watermark.
        idle_source: Nanos,
        /// A lagging source holds the closing of slices at most so long.
        hold_max: Nanos,
        /// On every series.
        labels: TextMap,
    }
    /// For metrics that nothing declares.
    DefaultsTable {
        /// "summary", "histogram" or both.
        expose: Vec<At<String>>,
        /// In 0 to 1.
        quantiles: Vec<At<f64>>,
        /// 1: ±10 %, 2: ±1 %, 3: ±0.1 %.
        digits: u64,
        /// Counters get _total, timings _seconds.
        suffixes: bool,
        /// Tags that a declared metric does not name: "drop", "keep" or "error".
        extra_labels: String,
    }
    /// Where what was measured is kept.
    StoreTable {
        /// A file, or ":memory:".
        path: String,
        /// Time between commits.
        commit_every: Nanos,
        /// One duration, or tiers from the finest to the coarsest.
        retention: Vec<At<TierWritten>>,
        /// Most bytes of the file.
        max_size: Bytes,
    }
    /// What bounds memory and disk.
    LimitsTable {
        /// Live series.
        series: u64,
        /// Live series of one metric.
        series_per_metric: u64,
        /// Series in the file.
        stored_series: u64,
        /// Sketch cells in memory.
        cells: u64,
        /// Pairs that may be open at once; half as many ends wait for their start at most.
        pairs: u64,
        /// What may wait in memory while the store cannot commit.
        pending: Bytes,
        /// What the computed need may reach.
        memory: Bytes,
        /// A series without samples leaves memory after so long.
        idle: Nanos,
    }
    /// The HTTP server.
    HttpTable {
        /// false switches it off.
        enabled: bool,
        /// Addresses with ports, or "unixstream:PATH".
        listen: Vec<At<String>>,
        /// A file that holds the bearer token.
        token_file: String,
        /// The bearer token, from the environment.
        token: SecretText,
        /// A file that holds the token of those who may reset series; without one resets over HTTP are off.
        admin_token_file: String,
        /// The token of those who may reset series, from the environment.
        admin_token: SecretText,
        /// _created lines in OpenMetrics.
        created: bool,
    }
    /// DogStatsD, StatsD and JSON over sockets.
    SocketTable {
        /// "socket"
        r#type: String,
        /// false switches it off, and the feeds that name it.
        enabled: bool,
        /// unixgram:PATH, unixstream:PATH, udp:ADDRESS:PORT, tcp:ADDRESS:PORT.
        listen: Vec<At<String>>,
        /// Permission bits of the socket files, octal.
        mode: String,
        /// Group of the socket files.
        group: String,
        /// "fused" or "split".
        threads: String,
        /// The key of a JSON event that holds its name; default "event".
        event_key: String,
        /// The key of a JSON event that holds its time; default "time".
        time_key: String,
        /// Every JSON object is this event.
        event: String,
        /// Keys of a JSON event that no field names: "ignore" or "error".
        extra_fields: String,
        /// A mapping file of statsd_exporter (YAML), relative beside this file.
        mapping_file: String,
        /// On every sample of this source that does not say otherwise.
        labels: TextMap,
    }
    /// Values of this machine.
    HostTable {
        /// "host"
        r#type: String,
        /// false switches it off, and the feeds that name it.
        enabled: bool,
        /// Between two readings.
        every: Nanos,
        /// The mount point of disk_*.
        disk: String,
        /// On every sample of this source.
        labels: TextMap,
    }
    /// Values of one process of this machine.
    ProcessTable {
        /// "process"
        r#type: String,
        /// false switches it off, and the feeds that name it.
        enabled: bool,
        /// Between two readings.
        every: Nanos,
        /// How it is found: one of pid_file, cmd, unit.
        r#match: MatchTable,
        /// On every sample of this source.
        labels: TextMap,
    }
    /// How a process is found.
    MatchTable {
        /// A file that holds its process id.
        pid_file: String,
        /// A part of its command line.
        cmd: String,
        /// The systemd unit whose main process it is.
        unit: String,
    }
    /// Values of NVIDIA cards.
    GpuTable {
        /// "gpu"
        r#type: String,
        /// false switches it off, and the feeds that name it.
        enabled: bool,
        /// Between two readings.
        every: Nanos,
        /// Path of the NVML library; default the system's.
        library: String,
        /// On every sample of this source.
        labels: TextMap,
    }
    /// The pipeline's own metrics.
    InternalTable {
        /// "internal"
        r#type: String,
        /// false switches it off.
        enabled: bool,
    }
    /// What a producer says.
    EventTable {
        /// false switches it off, and what it feeds.
        enabled: bool,
        /// Name → type: string bool int float seconds milliseconds microseconds bytes timestamp; "?" = may be missing.
        fields: Named<FieldWritten>,
        /// Texts made of fields, for labels and conditions.
        derive: Named<DeriveTable>,
        /// So many of the newest are kept whole.
        keep: u64,
    }
    /// A field that does not stand at the top of the object under its own name.
    FieldTable {
        /// Its type.
        r#type: String,
        /// Where it stands: keys joined by ".", or a list of keys.
        path: PathWritten,
    }
    /// A text made of a field.
    DeriveTable {
        /// The field it is made of.
        field: String,
        /// A fixed text.
        r#const: String,
        /// Replaced where it matches all of the text.
        regex: String,
        /// What it is replaced by; $1 is a capture.
        replace: String,
        /// "http": 200 becomes 2xx.
        class: String,
        /// Text of the field → text.
        map: TextMap,
        /// For a field that is missing.
        default: String,
        /// Most distinct values; later ones become `other`.
        distinct_max: u64,
        /// What later values become; default "other".
        other: String,
    }
    /// Two events with the same key.
    PairTable {
        /// false switches it off, and what it feeds.
        enabled: bool,
        /// The event that opens.
        start: String,
        /// The event that closes.
        end: String,
        /// The field of both that holds the key.
        key: String,
        /// After so long an open pair expires.
        timeout: Nanos,
    }
    /// A metric: what it is and what feeds it.
    MetricTable {
        /// counter, gauge, histogram, summary, set.
        r#type: String,
        /// # HELP
        help: String,
        /// A word that may end the name: seconds, bytes, ratio.
        unit: String,
        /// The unit of its sums, a power of ten.
        scale: f64,
        /// Bounds of a histogram, or "latency", "size", "ratio".
        buckets: BucketsWritten,
        /// "histogram", "summary" or both; default: the type.
        expose: Vec<At<String>>,
        /// In 0 to 1.
        quantiles: Vec<At<f64>>,
        /// 1: ±10 %, 2: ±1 %, 3: ±0.1 %.
        digits: u64,
        /// What the summary covers; a multiple of slice.
        window: Nanos,
        /// A series without samples leaves memory after so long.
        idle: Nanos,
        /// false takes it out.
        enabled: bool,
        /// Exactly its labels; default: those of its feeds.
        labels: Vec<At<String>>,
        /// Another namespace than the file's; "" for none.
        namespace: String,
        /// Where it is shown beside /metrics: /metrics/GROUP.
        group: String,
        /// What feeds it, one or several: an event, a pair, a source's value, StatsD names, an expression.
        from: Vec<At<FeedTable>>,
    }
    /// What feeds a metric: one of event, pair, source, statsd, expr.
    FeedTable {
        /// An event.
        event: String,
        /// A pair; value is open, duration or expired.
        pair: String,
        /// A collecting source.
        source: String,
        /// StatsD names: a glob, or /regex/.
        statsd: String,
        /// A recorded expression (PromQL).
        expr: String,
        /// A field of the event, a value of the source or of the pair; an event without it counts by 1.
        value: String,
        /// Fields that become labels, or label → field (StatsD: label → "$1").
        labels: LabelsWritten,
        /// Labels with fixed values.
        r#const: TextMap,
        /// A condition over the event.
        when: String,
        /// Gauges: set, add or sub.
        op: String,
        /// What values are multiplied by.
        scale: f64,
    }
    /// A leaf of a widget that is not an expression alone.
    LeafTable {
        /// An expression: its values now.
        expr: String,
        /// An expression: its points over the timeframe.
        series: String,
        /// The label by which several series are told apart.
        key: String,
        /// Kept events of this name or these names, newest first.
        events: Vec<At<String>>,
        /// At most so many events.
        limit: u64,
    }
    /// A panel of the dashboard.
    PanelTable {
        /// Its title.
        title: String,
        /// Panels of one row stand together.
        row: String,
        /// line, gauge, stat, bar, stacked-bar, table.
        kind: String,
        /// As Grafana writes units: s, bytes, percent, reqps.
        unit: String,
        /// An expression, or name → expression.
        expr: ExprsWritten,
        /// How a series is named: "{{model}}".
        legend: String,
        /// Colours from a value on.
        thresholds: Vec<At<ThresholdTable>>,
    }
    /// A colour from a value on.
    ThresholdTable {
        /// From here on.
        above: f64,
        /// A name or #rrggbb.
        color: String,
    }
    /// Prometheus rule groups.
    RulesTable {
        /// Files, relative beside this file; * in the name stands for anything.
        files: Vec<At<String>>,
    }
    /// A test of the pipeline, in virtual time.
    TestTable {
        /// What it shows.
        name: String,
        /// What happens, in order.
        input: Vec<At<InputTable>>,
        /// What must hold.
        expect: Vec<At<ExpectTable>>,
    }
    /// Something that happens in a test: one of line, restart, reload.
    InputTable {
        /// After the start.
        at: Nanos,
        /// A DogStatsD line or a JSON event.
        line: String,
        /// The socket source at which the line arrives; default: the first.
        source: String,
        /// "kill": the process is killed and started again.
        restart: String,
        /// Another pipeline file takes over; relative beside this file.
        reload: String,
    }
    /// What must hold in a test.
    ExpectTable {
        /// After the start.
        at: Nanos,
        /// An expression.
        expr: String,
        /// Its value.
        value: ValueWritten,
        /// How far the value may be off.
        tolerance: f64,
        /// true: it has no value.
        absent: bool,
    }
}
