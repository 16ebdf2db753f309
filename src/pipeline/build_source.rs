//! `[sources.NAME]` as meant.
//!
//! In: the tables as written. Out: [`SourcePlan`]s. Invariants: `internal` stands at place 0; no address is listened on
//! twice.

use super::build::{DAY, SECOND, constant_labels, nanos};
use super::build_edge::address;
use super::build_typed::{Event, unknown_event};
use super::config::{Config, PipelineFile, SourceTable};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::paths::{beside, read_regular};
use super::plan::{
    GpuPlan, HostPlan, Listener, MappingPlan, ProcessMatch, ProcessPlan, ReaderThreads, SocketPlan, SourceKind,
    SourcePlan,
};
use super::reader::At;
use super::roster::{HTTP_LINES, IN_PROCESS};
use super::tables::{ProcessTable, SocketTable};
use super::written::Nanos;
use crate::event::Kind;
use crate::rule::mapping::Mapping;
use crate::shard::JsonOptions;
use crate::source::gpu::GPU_VALUES;
use crate::source::host::HOST_VALUES;
use crate::source::process::PROCESS_VALUES;
use std::path::PathBuf;
use std::sync::Arc;

/// `[sources]`, in the order of the file but for `internal`.
pub(super) fn sources(config: &Config, errors: &mut Diagnostics) -> Vec<SourcePlan> {
    let mut internal: Option<SourcePlan> = None;
    let mut sources: Vec<SourcePlan> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, table) in &config.sources {
        let valid = (1..=64).contains(&name.value.len())
            && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !valid {
            let d = Diagnostic::new(&name.place, format!("\"{}\" is not a source name", name.value));
            errors.push(d.note("a name has 1 to 64 letters, digits, \"_\" and \"-\""));
        }
        if [IN_PROCESS, HTTP_LINES].contains(&name.value.as_str()) {
            let d = Diagnostic::new(&name.place, format!("source \"{}\" is there already", name.value));
            errors.push(d.note("that name belongs to handles in the process, and to lines over HTTP; choose another"));
        }
        let (kind, enabled, labels) = match table {
            SourceTable::Socket(table) => {
                let plan = socket(name, table, &mut seen, &config.files, errors);
                (SourceKind::Socket(plan), &table.enabled, &table.labels)
            }
            SourceTable::Host(table) => {
                let every = every(&table.every, errors);
                let disk = table.disk.as_ref().map_or_else(|| "/".into(), |at| PathBuf::from(&at.value));
                (SourceKind::Host(HostPlan { every, disk }), &table.enabled, &table.labels)
            }
            SourceTable::Process(table) => {
                let matches = process_match(name, table, &config.files, errors);
                let plan = ProcessPlan { every: every(&table.every, errors), matches };
                (SourceKind::Process(plan), &table.enabled, &table.labels)
            }
            SourceTable::Gpu(table) => {
                let library = table.library.as_ref().map(|at| beside(at, &config.files));
                let plan = GpuPlan { every: every(&table.every, errors), library };
                (SourceKind::Gpu(plan), &table.enabled, &table.labels)
            }
            SourceTable::Internal(table) => (SourceKind::Internal, &table.enabled, &None),
        };
        let labels = constant_labels(labels, errors);
        let enabled = enabled.as_ref().is_none_or(|at| at.value);
        let is_internal = matches!(kind, SourceKind::Internal);
        let source = SourcePlan { name: name.value.clone(), kind, enabled, labels };
        match (&internal, is_internal) {
            (Some(first), true) => {
                let d = Diagnostic::new(&name.place, "a second source of type internal");
                errors.push(d.note(format!("[sources.{}] is one already", first.name)));
            }
            (None, true) => internal = Some(source),
            (_, false) => sources.push(source),
        }
    }
    if sources.len() >= usize::from(u16::MAX) {
        errors.push(Diagnostic::bare(format!("{} sources; at most {}", sources.len(), u16::MAX - 1)));
    }
    let internal = internal.unwrap_or_else(|| {
        if let Some((name, _)) = config.sources.iter().find(|(name, _)| name.value == "internal") {
            let d = Diagnostic::new(&name.place, "source \"internal\" is of another type");
            errors.push(d.note("that name belongs to the pipeline's own metrics; choose another"));
        }
        SourcePlan { name: "internal".into(), kind: SourceKind::Internal, enabled: true, labels: Vec::new() }
    });
    sources.insert(0, internal);
    sources
}

fn socket(
    name: &At<String>,
    table: &SocketTable,
    seen: &mut Vec<(String, String)>,
    files: &[PipelineFile],
    errors: &mut Diagnostics,
) -> SocketPlan {
    let enabled = table.enabled.as_ref().is_none_or(|at| at.value);
    let mut listen = Vec::new();
    for at in table.listen.iter().flat_map(|at| &at.value) {
        let listener = match listener(&at.value) {
            Ok(listener) => listener,
            Err(note) => {
                errors.push(Diagnostic::new(&at.place, format!("cannot listen on \"{}\"", at.value)).note(note));
                continue;
            }
        };
        let shown = listener.to_string();
        // Port 0 is a new port each time.
        match seen.iter().find(|(known, _)| *known == shown && !shown.ends_with(":0")) {
            Some((_, source)) if enabled => {
                let d = Diagnostic::new(&at.place, format!("\"{shown}\" is listened on twice"));
                errors.push(d.note(format!("also in [sources.{source}]")));
            }
            None if enabled => seen.push((shown, name.value.clone())),
            _ => {}
        }
        listen.push(listener);
    }
    if listen.is_empty() && table.listen.as_ref().is_none_or(|at| at.value.is_empty()) {
        let place = table.listen.as_ref().map_or(&name.place, |at| &at.place);
        let d = Diagnostic::new(place, format!("[sources.{}] listens nowhere", name.value));
        errors.push(d.note("add listen = [\"unixgram:dsd.socket\", \"udp:127.0.0.1:8125\"]"));
    }
    let mut mode = 0o722;
    if let Some(at) = &table.mode {
        match u32::from_str_radix(at.value.trim_start_matches("0o"), 8) {
            Ok(bits) if bits <= 0o777 => mode = bits,
            _ => {
                let d = Diagnostic::new(&at.place, format!("mode \"{}\" is not an octal file mode", at.value));
                errors.push(d.note("write mode = \"0722\""));
            }
        }
    }
    let threads = match table.threads.as_ref().map(|at| (at, at.value.as_str())) {
        None => ReaderThreads::Auto,
        Some((_, "fused")) => ReaderThreads::Fused,
        Some((_, "split")) => ReaderThreads::Split,
        Some((at, other)) => {
            let d = Diagnostic::new(&at.place, format!("unknown threads \"{other}\""));
            errors.push(d.nearest(other, ["fused", "split"]));
            ReaderThreads::Auto
        }
    };
    let group = table.group.as_ref().map(|at| at.value.clone()).filter(|group| !group.is_empty());
    let mapping = table.mapping_file.as_ref().filter(|at| !at.value.is_empty());
    let mapping = mapping.and_then(|at| mapping_file(at, beside(at, files), errors));
    SocketPlan { listen, mode, group, threads, json: json(table, errors), mapping }
}

/// Reads a mapping file; what is wrong with it is said at the key that names it.
fn mapping_file(at: &At<String>, path: PathBuf, errors: &mut Diagnostics) -> Option<MappingPlan> {
    let not_utf8 = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8");
    let text = match read_regular(&path).and_then(|bytes| String::from_utf8(bytes).map_err(not_utf8)) {
        Ok(text) => text,
        Err(error) => {
            errors.push(Diagnostic::new(&at.place, format!("cannot read {}: {error}", path.display())));
            return None;
        }
    };
    match Mapping::parse(&text) {
        Ok(mapping) => {
            for warning in mapping.warnings() {
                errors.push(Diagnostic::warning(&at.place, format!("{}: {warning}", path.display())));
            }
            Some(MappingPlan { path, mapping: Arc::new(mapping) })
        }
        Err(error) => {
            let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
            let message = format!("{}{line} is not a mapping file: {error}", path.display());
            errors.push(Diagnostic::new(&at.place, message).note("it is read as statsd_exporter reads it"));
            None
        }
    }
}

fn listener(text: &str) -> Result<Listener, String> {
    let forms = "unixgram:PATH, unixstream:PATH, udp:ADDRESS:PORT or tcp:ADDRESS:PORT";
    let (scheme, rest) = text.split_once(':').ok_or_else(|| format!("write {forms}"))?;
    match scheme {
        "unixgram" | "unixstream" if rest.is_empty() => Err(format!("no path after \"{scheme}:\"")),
        "unixgram" => Ok(Listener::UnixDatagram(rest.into())),
        "unixstream" => Ok(Listener::UnixStream(rest.into())),
        "udp" => address(rest).map(Listener::Udp),
        "tcp" => address(rest).map(Listener::Tcp),
        _ => Err(format!("write {forms}")),
    }
}

fn json(table: &SocketTable, errors: &mut Diagnostics) -> JsonOptions {
    let mut plan = JsonOptions::default();
    for (key, at, into) in
        [("event_key", &table.event_key, &mut plan.event_key), ("time_key", &table.time_key, &mut plan.time_key)]
    {
        match at {
            Some(at) if at.value.is_empty() => {
                let d = Diagnostic::new(&at.place, format!("{key} is empty"));
                errors.push(d.note(format!("the key of a JSON object, as in {key} = \"{into}\"")));
            }
            Some(at) => at.value.clone_into(into),
            None => {}
        }
    }
    if let (Some(at), Some(_)) = (&table.event_key, &table.event) {
        let d = Diagnostic::new(&at.place, "both event and event_key are set");
        errors.push(d.note("event says what every object is; event_key, where each says it"));
    }
    if plan.event_key == plan.time_key {
        let at = table.time_key.as_ref().or(table.event_key.as_ref());
        let d = Diagnostic::new(at.map_or(&table.place, |at| &at.place), "event_key and time_key are the same");
        errors.push(d.note("an event's name and its time stand under two keys"));
    }
    plan.event = table.event.as_ref().map(|at| at.value.clone()).filter(|event| !event.is_empty());
    if let Some(at) = &table.extra_fields {
        match at.value.as_str() {
            "ignore" => {}
            "error" => plan.refuses_extra = true,
            other => {
                let d = Diagnostic::new(&at.place, format!("unknown extra_fields \"{other}\""));
                errors.push(d.nearest(other, ["ignore", "error"]));
            }
        }
    }
    plan
}

fn every(at: &Option<At<Nanos>>, errors: &mut Diagnostics) -> i64 {
    nanos(at, "every", 15 * SECOND, SECOND..=DAY, errors)
}

fn process_match(
    name: &At<String>,
    table: &ProcessTable,
    files: &[PipelineFile],
    errors: &mut Diagnostics,
) -> ProcessMatch {
    let nothing = ProcessMatch::Command(String::new());
    let Some(at) = &table.r#match else {
        let d = Diagnostic::new(&name.place, format!("[sources.{}] says not which process", name.value));
        errors.push(
            d.note("add match = { pid_file = \"/run/app.pid\" }, { cmd = \"app.py\" } or { unit = \"app.service\" }"),
        );
        return nothing;
    };
    let table = &at.value;
    let given: Vec<ProcessMatch> = [
        table.pid_file.as_ref().map(|at| ProcessMatch::PidFile(beside(at, files))),
        table.cmd.as_ref().map(|at| ProcessMatch::Command(at.value.clone())),
        table.unit.as_ref().map(|at| ProcessMatch::Unit(at.value.clone())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let empty = [&table.pid_file, &table.cmd, &table.unit].into_iter().flatten().find(|at| at.value.is_empty());
    if let Some(at) = empty {
        errors.push(Diagnostic::new(&at.place, "an empty text would match every process"));
    }
    match <[ProcessMatch; 1]>::try_from(given) {
        Ok([matches]) => matches,
        Err(all) => {
            let d = Diagnostic::new(&at.place, format!("match names {} ways to find the process", all.len()));
            errors.push(d.note("keep one of pid_file, cmd, unit"));
            nothing
        }
    }
}

/// Whether the event that every object of a source is meant to be is declared.
pub(super) fn check_events(config: &Config, events: &[Event], errors: &mut Diagnostics) {
    for (_, table) in &config.sources {
        if let SourceTable::Socket(SocketTable { event: Some(at), .. }) = table
            && !at.value.is_empty()
            && !config.events.is_empty()
            && !events.iter().any(|event| event.spec.name == at.value)
        {
            errors.push(unknown_event(at, events));
        }
    }
}

/// What a collecting source gives.
pub(super) struct SourceValue {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Labels that may be asked for; a card's number is always there.
    pub(super) labels: &'static [&'static str],
}

/// The values of a source, as the contract lists them.
pub(super) fn values_of(kind: &SourceKind) -> Vec<SourceValue> {
    let gauge = |name, labels| SourceValue { name, kind: Kind::Gauge, labels };
    match kind {
        SourceKind::Socket(_) | SourceKind::Internal => Vec::new(),
        SourceKind::Host(_) => HOST_VALUES
            .iter()
            .map(|value| SourceValue {
                name: value.key,
                kind: value.kind,
                labels: match value.key {
                    "disk_percent" | "disk_used_bytes" | "disk_total_bytes" => &["mount"],
                    _ => &[],
                },
            })
            .collect(),
        SourceKind::Process(_) => PROCESS_VALUES.iter().map(|value| gauge(value.key, &[])).collect(),
        SourceKind::Gpu(_) => GPU_VALUES.iter().map(|value| gauge(value.key, &["gpu"])).collect(),
    }
}
