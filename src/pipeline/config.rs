//! The pipeline file as written: which tables and keys there are, and their types. Nothing is judged here.
//!
//! In: files and the variables of the environment. Out: `Config`, every value with its place. Several files
//! are one pipeline: what is declared twice is an error that names both places. Each file's `namespace` is its
//! own. Invariant: the lists of keys below are all there is; a key of a later version is an unknown key.

use super::diagnostic::{Diagnostic, Diagnostics, Place, SourceText};
use super::reader::{
    At, Bytes, Entry, Nanos, Node, NodeKind, Overrides, PREFIX, SecretText, TableReader, TextMap, Written, parse,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One pipeline file.
#[derive(Clone, Debug)]
pub struct PipelineFile {
    /// What diagnostics call it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Where relative paths inside it stand.
    pub directory: PathBuf,
}

impl PipelineFile {
    /// Reads a file.
    ///
    /// # Errors
    /// One diagnostic that names the file and the system's reason.
    pub fn read(path: &Path) -> Result<PipelineFile, Diagnostic> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| Diagnostic::bare(format!("cannot read {name}: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Diagnostic::bare(format!("{name}:{line}: not UTF-8"))
        })?;
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(PipelineFile { name, text, directory: directory.to_owned() })
    }

    /// The text of `pipelines/default.toml`, which `run` without a file uses.
    pub fn built_in() -> PipelineFile {
        PipelineFile {
            name: "pipeline default (built in)".into(),
            text: BUILT_IN.into(),
            directory: PathBuf::from("."),
        }
    }
}

/// The built-in default pipeline.
pub const BUILT_IN: &str = include_str!("../../pipelines/default.toml");

/// Declares the keys of a table once: the fields, their reading, and the list for "did you mean".
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "some tables' place, and the type that chose a source's table, are not asked for again")]
        pub(super) struct $name {
            pub(super) place: Place,
            $(pub(super) $key: Option<At<$kind>>,)*
        }

        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$(key_name(stringify!($key)),)*];

            /// Reads the keys; `tables` are known beside them.
            fn read(mut reader: TableReader<'_>, tables: &[&str]) -> $name {
                let out = $name {
                    place: reader.place.clone(),
                    $($key: reader.take(key_name(stringify!($key))),)*
                };
                reader.finish(&[Self::KEYS, tables].concat());
                out
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

tables! {
    /// The keys before the first table; `namespace` belongs to each file, `defaults` and so on are tables.
    TopTable {
        name: String,
        slice: Nanos,
        window: Nanos,
        lateness: Nanos,
        accept_late: Nanos,
        max_future: Nanos,
        idle_source: Nanos,
        hold_max: Nanos,
        labels: TextMap,
    }
    DefaultsTable {
        expose: Vec<At<String>>,
        quantiles: Vec<At<f64>>,
        digits: u64,
        suffixes: bool,
        extra_labels: String,
    }
    StoreTable {
        path: String,
        commit_every: Nanos,
        retention: Vec<At<TierWritten>>,
        max_size: Bytes,
    }
    LimitsTable {
        series: u64,
        series_per_metric: u64,
        stored_series: u64,
        cells: u64,
        pending: Bytes,
        memory: Bytes,
        idle: Nanos,
    }
    HttpTable {
        enabled: bool,
        listen: Vec<At<String>>,
        token_file: String,
        token: SecretText,
        created: bool,
    }
    SocketTable {
        r#type: String,
        enabled: bool,
        listen: Vec<At<String>>,
        mode: String,
        group: String,
        threads: String,
    }
    HostTable {
        r#type: String,
        enabled: bool,
        every: Nanos,
        disk: String,
    }
    InternalTable {
        r#type: String,
        enabled: bool,
    }
    MetricTable {
        r#type: String,
        help: String,
        unit: String,
        scale: f64,
        buckets: BucketsWritten,
        expose: Vec<At<String>>,
        quantiles: Vec<At<f64>>,
        digits: u64,
        window: Nanos,
        idle: Nanos,
        enabled: bool,
        labels: Vec<At<String>>,
        namespace: String,
        group: String,
    }
}

/// A tier of the retention: `"24h"` or `{ resolution = "10s", keep = "24h" }`.
#[derive(Clone, Debug)]
pub(super) struct TierWritten {
    pub(super) resolution: Option<At<Nanos>>,
    pub(super) keep: Option<At<Nanos>>,
}

impl Written for TierWritten {
    fn read(node: Node) -> Result<TierWritten, Diagnostic> {
        let place = node.place.clone();
        let NodeKind::Table(entries) = node.kind else {
            let keep = Nanos::read(node)?;
            return Ok(TierWritten { resolution: None, keep: Some(At { value: keep, place }) });
        };
        let mut tier = TierWritten { resolution: None, keep: None };
        for entry in entries {
            let place = entry.node.place.clone();
            let field = match entry.key.as_str() {
                "resolution" => &mut tier.resolution,
                "keep" => &mut tier.keep,
                other => {
                    let message = format!("unknown key \"{other}\" in a tier of retention");
                    return Err(Diagnostic::new(&entry.key_place, message).nearest(other, ["resolution", "keep"]));
                }
            };
            *field = Some(At { value: Nanos::read(entry.node)?, place });
        }
        Ok(tier)
    }
}

/// Bounds, or the name of a preset.
#[derive(Clone, Debug)]
pub(super) enum BucketsWritten {
    Preset(String),
    Bounds(Vec<At<f64>>),
}

impl Written for BucketsWritten {
    fn read(node: Node) -> Result<BucketsWritten, Diagnostic> {
        match &node.kind {
            NodeKind::Text { text, .. } if !text.contains(|c: char| c.is_ascii_digit()) => {
                Ok(BucketsWritten::Preset(text.clone()))
            }
            _ => Vec::<At<f64>>::read(node).map(BucketsWritten::Bounds),
        }
    }
}

/// A source by its type.
#[derive(Clone, Debug)]
pub(super) enum SourceTable {
    Socket(SocketTable),
    Host(HostTable),
    Internal(InternalTable),
}

pub(super) const SOURCE_TYPES: [&str; 3] = ["socket", "host", "internal"];

/// `[metrics.NAME]` and the namespace of its file.
#[derive(Clone, Debug)]
pub(super) struct MetricEntry {
    pub(super) name: At<String>,
    pub(super) table: MetricTable,
    pub(super) namespace: Option<At<String>>,
}

/// Everything the files say.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) top: TopTable,
    pub(super) defaults: DefaultsTable,
    pub(super) store: StoreTable,
    pub(super) limits: LimitsTable,
    pub(super) http: HttpTable,
    pub(super) sources: Vec<(At<String>, SourceTable)>,
    pub(super) metrics: Vec<MetricEntry>,
}

/// The tables that stand once, besides the top level.
const SINGLE: [&str; 4] = ["defaults", "store", "limits", "http"];

/// Reads the files as one pipeline. Whatever could be read is in the result; what could not, in `errors`.
pub(super) fn read(
    files: &[PipelineFile],
    variables: &BTreeMap<String, String>,
    errors: &mut Diagnostics,
) -> Option<Config> {
    let overrides = Overrides::new(variables);
    let mut merged = Merged::default();
    let mut home: Option<Place> = None;
    for file in files {
        let source = Arc::new(SourceText { name: file.name.clone(), text: file.text.clone() });
        home.get_or_insert_with(|| Place { source: source.clone(), span: 0..0, variable: None });
        let place = Place { source: source.clone(), span: 0..0, variable: None };
        let entries = parse(&source, variables, errors);
        merged.add(entries, &place, &overrides, errors);
    }
    let home = home?;

    let Merged { top, mut single, sources, metrics } = merged;
    let reader = TableReader::new("[top level]".into(), PREFIX.into(), home.clone(), top, &overrides, errors);
    let top = TopTable::read(reader, &["namespace", "sources", "metrics", "defaults", "store", "limits", "http"]);

    let mut open = |name: &str, errors: &mut Diagnostics| {
        let node = single.remove(name);
        let place = node.as_ref().map_or_else(|| home.clone(), |entry| entry.key_place.clone());
        (table_of(node, errors), place)
    };
    macro_rules! single {
        ($table:ident, $name:literal) => {{
            let (entries, place) = open($name, errors);
            let variable = Overrides::variable(PREFIX, $name);
            let label = concat!("[", $name, "]").into();
            $table::read(TableReader::new(label, variable, place, entries, &overrides, errors), &[])
        }};
    }
    let defaults = single!(DefaultsTable, "defaults");
    let store = single!(StoreTable, "store");
    let limits = single!(LimitsTable, "limits");
    let http = single!(HttpTable, "http");
    let sources = sources.into_iter().filter_map(|entry| read_source(entry, &overrides, errors)).collect();
    let metrics = metrics
        .into_iter()
        .map(|(entry, namespace)| {
            let variable = Overrides::variable(&Overrides::variable(PREFIX, "metrics"), &entry.key);
            let label = format!("[metrics.{}]", entry.key);
            let name = At { value: entry.key.clone(), place: entry.key_place.clone() };
            let place = entry.key_place.clone();
            let rest = table_of(Some(entry), errors);
            let table = MetricTable::read(TableReader::new(label, variable, place, rest, &overrides, errors), &[]);
            MetricEntry { name, table, namespace }
        })
        .collect();
    for variable in overrides.unused() {
        errors.push(
            Diagnostic::bare(format!("environment variable {variable} names no key of the pipeline"))
                .note("a key's variable is its path in capitals with \"__\" between, as in HYDROGRAPH_HTTP__LISTEN"),
        );
    }
    Some(Config { top, defaults, store, limits, http, sources, metrics })
}

fn table_of(entry: Option<Entry>, errors: &mut Diagnostics) -> Vec<Entry> {
    match entry.map(|entry| (entry.key, entry.node)) {
        None => Vec::new(),
        Some((_, Node { kind: NodeKind::Table(entries), .. })) => entries,
        Some((key, node)) => {
            errors.push(Diagnostic::new(&node.place, format!("\"{key}\" is a table")));
            Vec::new()
        }
    }
}

fn read_source(entry: Entry, overrides: &Overrides<'_>, errors: &mut Diagnostics) -> Option<(At<String>, SourceTable)> {
    let name = At { value: entry.key.clone(), place: entry.key_place.clone() };
    let variable = Overrides::variable(&Overrides::variable(PREFIX, "sources"), &entry.key);
    let label = format!("[sources.{}]", entry.key);
    let rest = table_of(Some(entry), errors);
    let reader = TableReader::new(label.clone(), variable, name.place.clone(), rest, overrides, errors);
    let (kind, place) = match reader.peek("type").map(|entry| &entry.node) {
        Some(Node { kind: NodeKind::Text { text, .. }, place }) => (text.clone(), place.clone()),
        Some(other) => {
            let message = "expected a string for \"type\"";
            reader.errors.push(Diagnostic::new(&other.place.clone(), message));
            return None;
        }
        None => {
            let message = format!("{label} has no type");
            reader
                .errors
                .push(Diagnostic::new(&name.place, message).note("add type = \"socket\", \"host\" or \"internal\""));
            return None;
        }
    };
    let table = match kind.as_str() {
        "socket" => SourceTable::Socket(SocketTable::read(reader, &[])),
        "host" => SourceTable::Host(HostTable::read(reader, &[])),
        "internal" => SourceTable::Internal(InternalTable::read(reader, &[])),
        other => {
            let message = format!("unknown source type \"{other}\"");
            reader.errors.push(Diagnostic::new(&place, message).nearest(other, SOURCE_TYPES));
            return None;
        }
    };
    Some((name, table))
}

/// The tables of all files, each name once.
#[derive(Default)]
struct Merged {
    top: Vec<Entry>,
    single: BTreeMap<String, Entry>,
    sources: Vec<Entry>,
    metrics: Vec<(Entry, Option<At<String>>)>,
}

impl Merged {
    fn add(&mut self, entries: Vec<Entry>, file: &Place, overrides: &Overrides<'_>, errors: &mut Diagnostics) {
        let (namespace, entries): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.key == "namespace");
        let mut reader =
            TableReader::new("[top level]".into(), PREFIX.into(), file.clone(), namespace, overrides, errors);
        let namespace: Option<At<String>> = reader.take("namespace");
        for entry in entries {
            match entry.key.as_str() {
                "sources" => {
                    for source in table_of(Some(entry), errors) {
                        match self.sources.iter().find(|known| known.key == source.key) {
                            Some(known) => errors.push(twice("sources.", &source, known)),
                            None => self.sources.push(source),
                        }
                    }
                }
                "metrics" => {
                    for metric in table_of(Some(entry), errors) {
                        let same = |known: &&(Entry, Option<At<String>>)| {
                            known.0.key == metric.key
                                && known.1.as_ref().map(|n| &n.value) == namespace.as_ref().map(|n| &n.value)
                        };
                        match self.metrics.iter().find(same) {
                            Some((known, _)) => errors.push(twice("metrics.", &metric, known)),
                            None => self.metrics.push((metric, namespace.clone())),
                        }
                    }
                }
                key if SINGLE.contains(&key) => match self.single.get(key) {
                    Some(known) => errors.push(twice("", &entry, known)),
                    None => {
                        self.single.insert(entry.key.clone(), entry);
                    }
                },
                key => match self.top.iter().find(|known| known.key == key) {
                    Some(known) => errors.push(twice("", &entry, known)),
                    None => self.top.push(entry),
                },
            }
        }
    }
}

fn twice(path: &str, second: &Entry, first: &Entry) -> Diagnostic {
    let source = &first.key_place.source;
    let start = first.key_place.span.start.min(source.text.len());
    let line = source.text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1;
    Diagnostic::new(&second.key_place, format!("\"{path}{}\" is declared twice", second.key))
        .note(format!("first in {}:{line}", source.name))
}
