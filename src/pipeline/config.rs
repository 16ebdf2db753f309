//! The pipeline file as written: every value with its place. Nothing is judged here.
//!
//! In: files and the variables of the environment. Out: `Config`. Several files are one pipeline, and what they
//! include belongs to it (`include`); the tables and their keys stand in `tables.rs`. Invariant: what
//! could not be read is in the diagnostics and missing from the result; the rest is still there to be checked.

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::forms::LeafWritten;
use super::include::{self, Merged};
use super::paths::{is_given_open, read_regular};
use super::reader::{At, Entry, Node, NodeKind, Overrides, PREFIX, TableReader};
use super::tables::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// Reads a file, which is a regular one.
    ///
    /// # Errors
    /// One diagnostic that names the file and the system's reason.
    pub fn read(path: &Path) -> Result<PipelineFile, Diagnostic> {
        PipelineFile::of(path, read_regular(path))
    }

    /// As [`read`](Self::read), and `/dev/stdin` and what a shell writes for `<(command)` besides: they can be read once.
    ///
    /// # Errors
    /// As there.
    pub fn read_given(path: &Path) -> Result<PipelineFile, Diagnostic> {
        PipelineFile::of(path, if is_given_open(path) { std::fs::read(path) } else { read_regular(path) })
    }

    fn of(path: &Path, bytes: std::io::Result<Vec<u8>>) -> Result<PipelineFile, Diagnostic> {
        let name = path.display().to_string();
        let bytes = bytes.map_err(|e| Diagnostic::bare(format!("cannot read {name}: {e}")))?;
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

/// A source by its type.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, read once")]
pub(super) enum SourceTable {
    Socket(SocketTable),
    Host(HostTable),
    Process(ProcessTable),
    Gpu(GpuTable),
    Internal(InternalTable),
}

/// The types of sources.
pub(super) const SOURCE_TYPES: [&str; 5] = ["socket", "host", "process", "gpu", "internal"];

/// `[metrics.NAME]` and the namespace of its file.
#[derive(Clone, Debug)]
pub(super) struct MetricEntry {
    pub(super) name: At<String>,
    pub(super) table: MetricTable,
    pub(super) namespace: Option<At<String>>,
}

/// A table with a name.
pub(super) type Named<T> = (At<String>, T);

/// Everything the files say.
#[derive(Debug)]
pub(super) struct Config {
    /// Those given, then those included.
    pub(super) files: Vec<PipelineFile>,
    pub(super) top: TopTable,
    pub(super) defaults: DefaultsTable,
    pub(super) store: StoreTable,
    pub(super) limits: LimitsTable,
    pub(super) http: HttpTable,
    pub(super) sources: Vec<Named<SourceTable>>,
    /// An event that several files declare stands here as often.
    pub(super) events: Vec<Named<EventTable>>,
    pub(super) pairs: Vec<Named<PairTable>>,
    /// Those of included files before those of the file that includes them.
    pub(super) metrics: Vec<MetricEntry>,
    pub(super) widgets: Vec<Named<Vec<Named<LeafWritten>>>>,
    pub(super) panels: Vec<At<PanelTable>>,
    pub(super) rules: Vec<RulesTable>,
    pub(super) tests: Vec<At<TestTable>>,
}

/// Reads a file that another one includes.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<PipelineFile, Diagnostic>;

/// Reads the files as one pipeline. Whatever could be read is in the result; what could not, in `errors`.
pub(super) fn read(
    files: &[PipelineFile],
    variables: &BTreeMap<String, String>,
    read_file: ReadFile<'_>,
    errors: &mut Diagnostics,
) -> Option<Config> {
    let overrides = Overrides::new(variables);
    let (home, files, merged) = include::merge(files, variables, &overrides, read_file, errors)?;
    let Merged { top, mut single, sources, events, pairs, metrics, widgets, panels, rules, tests } = merged;
    let reader = TableReader::new("[top level]".into(), PREFIX.into(), home.clone(), top, &overrides, errors);
    let tables: Vec<&str> = [FileTable::KEYS, &include::SINGLE, &include::NAMED].concat();
    let top = TopTable::open(reader.with_keys_of("labels"), &tables);

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
            $table::open(TableReader::new(label, variable, place, entries, &overrides, errors), &[])
        }};
    }
    let defaults = single!(DefaultsTable, "defaults");
    let store = single!(StoreTable, "store");
    let limits = single!(LimitsTable, "limits");
    let http = single!(HttpTable, "http");
    macro_rules! named {
        ($entries:expr, $kind:literal, $open:expr) => {
            $entries.into_iter().map(|entry| named(entry, $kind, &overrides, errors, $open)).collect()
        };
    }
    let sources: Vec<Named<Option<SourceTable>>> = named!(sources, "sources", open_source);
    let config = Config {
        files,
        top,
        defaults,
        store,
        limits,
        http,
        sources: sources.into_iter().filter_map(|(name, table)| Some((name, table?))).collect(),
        events: named!(events, "events", |reader| EventTable::open(reader, &[])),
        pairs: named!(pairs, "pairs", |reader| PairTable::open(reader, &[])),
        metrics: metrics
            .into_iter()
            .map(|(entry, namespace)| {
                let open = |reader: TableReader<'_>| MetricTable::open(reader, &[]);
                let (name, table) = named(entry, "metrics", &overrides, errors, open);
                MetricEntry { name, table, namespace }
            })
            .collect(),
        widgets: named!(widgets, "widgets", open_widget),
        panels: include::list_of(panels, errors),
        rules: rules
            .into_iter()
            .map(|entry| {
                let (place, entries) = (entry.key_place.clone(), table_of(Some(entry), errors));
                let variable = Overrides::variable(PREFIX, "rules");
                RulesTable::open(TableReader::new("[rules]".into(), variable, place, entries, &overrides, errors), &[])
            })
            .collect(),
        tests: include::list_of(tests, errors),
    };
    for variable in overrides.unused() {
        errors.push(
            Diagnostic::bare(format!("environment variable {variable} names no key of the pipeline"))
                .note("a key's variable is its path in capitals with \"__\" between, as in HYDROGRAPH_HTTP__LISTEN"),
        );
    }
    for variable in overrides.misspelt() {
        let message = format!("environment variable {variable} names no key of the pipeline and changes nothing");
        let warning = Diagnostic { severity: Severity::Warning, ..Diagnostic::bare(message) };
        errors.push(warning.nearest_only(&variable[PREFIX.len()..], TopTable::KEYS.iter().copied()));
    }
    Some(config)
}

/// Reads one table with a name, `[KIND.NAME]`.
fn named<T>(
    entry: Entry,
    kind: &str,
    overrides: &Overrides<'_>,
    errors: &mut Diagnostics,
    open: impl FnOnce(TableReader<'_>) -> T,
) -> Named<T> {
    let variable = Overrides::variable(&Overrides::variable(PREFIX, kind), &entry.key);
    let label = format!("[{kind}.{}]", entry.key);
    let name = At { value: entry.key.clone(), place: entry.key_place.clone() };
    let place = entry.key_place.clone();
    let rest = table_of(Some(entry), errors);
    let table = open(TableReader::new(label, variable, place, rest, overrides, errors));
    (name, table)
}

/// The entries of a table; anything else is reported.
pub(super) fn table_of(entry: Option<Entry>, errors: &mut Diagnostics) -> Vec<Entry> {
    match entry.map(|entry| (entry.key, entry.node)) {
        None => Vec::new(),
        Some((_, Node { kind: NodeKind::Table(entries), .. })) => entries,
        Some((key, node)) => {
            errors.push(Diagnostic::new(&node.place, format!("\"{key}\" is a table")));
            Vec::new()
        }
    }
}

/// The keys of a widget are its own.
fn open_widget(mut reader: TableReader<'_>) -> Vec<Named<LeafWritten>> {
    let keys = reader.keys();
    keys.into_iter().filter_map(|key| Some((key.clone(), reader.take(&key.value)?.value))).collect()
}

fn open_source(reader: TableReader<'_>) -> Option<SourceTable> {
    let reader = reader.with_keys_of("labels");
    let (kind, place) = match reader.peek("type").map(|entry| &entry.node) {
        Some(Node { kind: NodeKind::Text { text, .. }, place }) => (text.clone(), place.clone()),
        Some(other) => {
            let message = "expected a string for \"type\"";
            reader.errors.push(Diagnostic::new(&other.place.clone(), message));
            return None;
        }
        None => {
            let message = format!("{} has no type", reader.label);
            let known = SOURCE_TYPES.map(|known| format!("\"{known}\"")).join(", ");
            reader.errors.push(Diagnostic::new(&reader.place, message).note(format!("add type = one of {known}")));
            return None;
        }
    };
    Some(match kind.as_str() {
        "socket" => SourceTable::Socket(SocketTable::open(reader, &[])),
        "host" => SourceTable::Host(HostTable::open(reader, &[])),
        "process" => SourceTable::Process(ProcessTable::open(reader, &[])),
        "gpu" => SourceTable::Gpu(GpuTable::open(reader, &[])),
        "internal" => SourceTable::Internal(InternalTable::open(reader, &[])),
        other => {
            let message = format!("unknown source type \"{other}\"");
            let diagnostic = Diagnostic::new(&place, message).nearest(other, SOURCE_TYPES);
            reader.errors.push(match other {
                "kafka" => diagnostic.note("this version reads no Kafka topics yet"),
                _ => diagnostic,
            });
            return None;
        }
    })
}
