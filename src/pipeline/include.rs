//! Several files as one pipeline: those given, and those they include.
//!
//! In: files, and a way to read more of them. Out: the tables of all, each name once, with the namespace of its file.
//! Invariants: every file is read once, whatever includes it; what an included file says of sources, store, HTTP,
//! limits, defaults and the pipeline itself is not taken; its metrics come before those of the file that includes it.

use super::config::{PipelineFile, ReadFile, table_of};
use super::diagnostic::{Diagnostic, Diagnostics, Place, SourceText};
use super::paths::{beside, lexical};
use super::reader::{At, Entry, Node, NodeKind, Overrides, PREFIX, TableReader, parse};
use super::tables::{FileTable, TopTable};
use super::written::Written;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tables that stand once, besides the top level.
pub(super) const SINGLE: [&str; 4] = ["defaults", "store", "limits", "http"];

/// The tables that hold several.
pub(super) const NAMED: [&str; 8] = ["sources", "events", "pairs", "metrics", "widgets", "panels", "rules", "tests"];

/// Tables of the format that this version has not.
const LATER: [&str; 2] = ["sinks", "notify"];

/// A file that includes a file that includes a file: nobody can follow more of them, and a loop of links ends here.
const DEPTH_MAX: usize = 16;

/// The tables of all files.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) top: Vec<Entry>,
    pub(super) single: BTreeMap<String, Entry>,
    pub(super) sources: Vec<Entry>,
    pub(super) events: Vec<Entry>,
    pub(super) pairs: Vec<Entry>,
    pub(super) metrics: Vec<(Entry, Option<At<String>>)>,
    pub(super) widgets: Vec<Entry>,
    pub(super) panels: Vec<Node>,
    pub(super) rules: Vec<Entry>,
    pub(super) tests: Vec<Node>,
}

struct Walk<'a> {
    variables: &'a BTreeMap<String, String>,
    overrides: &'a Overrides<'a>,
    read_file: ReadFile<'a>,
    /// By their place, so that each is read once.
    seen: BTreeSet<PathBuf>,
    /// Those that include the one at hand.
    stack: Vec<PathBuf>,
    included: Vec<PipelineFile>,
    merged: Merged,
}

/// The first file's place, all files, and their tables. `None` without a file.
pub(super) fn merge(
    files: &[PipelineFile],
    variables: &BTreeMap<String, String>,
    overrides: &Overrides<'_>,
    read_file: ReadFile<'_>,
    errors: &mut Diagnostics,
) -> Option<(Place, Vec<PipelineFile>, Merged)> {
    let seen = files.iter().map(|file| lexical(Path::new(&file.name))).collect();
    let (stack, included, merged) = (Vec::new(), Vec::new(), Merged::default());
    let mut walk = Walk { variables, overrides, read_file, seen, stack, included, merged };
    let mut home: Option<Place> = None;
    for file in files {
        let place = walk.file(file, None, errors);
        home.get_or_insert(place);
    }
    let all = files.iter().cloned().chain(walk.included).collect();
    Some((home?, all, walk.merged))
}

impl Walk<'_> {
    /// Adds a file and first what it includes. `by` is where it is included.
    fn file(&mut self, file: &PipelineFile, by: Option<&Place>, errors: &mut Diagnostics) -> Place {
        let source = Arc::new(SourceText { name: file.name.clone(), text: file.text.clone() });
        let place = Place { source: source.clone(), span: 0..0, variable: None };
        let entries = parse(&source, self.variables, errors);
        let (own, entries): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| FileTable::KEYS.contains(&entry.key.as_str()));
        let none = Overrides::none();
        let overrides = if by.is_none() { self.overrides } else { &none };
        let reader = TableReader::new("[top level]".into(), PREFIX.into(), place.clone(), own, overrides, errors);
        let FileTable { namespace, include, .. } = FileTable::open(reader, &[]);
        self.stack.push(lexical(Path::new(&file.name)));
        for at in include.iter().flat_map(|at| &at.value) {
            self.include(at, file, errors);
        }
        self.stack.pop();
        match by {
            None => self.merged.add(entries, &namespace, errors),
            Some(_) => self.merged.add_included(entries, &namespace, errors),
        }
        place
    }

    fn include(&mut self, at: &At<String>, by: &PipelineFile, errors: &mut Diagnostics) {
        let path = lexical(&beside(at, std::slice::from_ref(by)));
        if self.stack.contains(&path) {
            let chain: Vec<String> = self.stack.iter().map(|path| path.display().to_string()).collect();
            let message = format!("\"{}\" includes itself", path.display());
            errors.push(
                Diagnostic::new(&at.place, message)
                    .note(format!("{} -> {}", chain.join(" -> "), path.display()))
                    .note("take one of these includes out"),
            );
            return;
        }
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} files include one another");
            errors.push(Diagnostic::new(&at.place, message));
            return;
        }
        if !self.seen.insert(path.clone()) {
            return;
        }
        match (self.read_file)(&path) {
            Ok(file) => {
                self.file(&file, Some(&at.place), errors);
                self.included.push(file);
            }
            Err(Diagnostic { message, notes, .. }) => {
                let diagnostic = Diagnostic { notes, ..Diagnostic::new(&at.place, message) };
                errors.push(diagnostic.note("an include stands beside the file that names it"));
            }
        }
    }
}

impl Merged {
    fn add(&mut self, entries: Vec<Entry>, namespace: &Option<At<String>>, errors: &mut Diagnostics) {
        for entry in entries {
            match entry.key.as_str() {
                "sources" => {
                    for source in table_of(Some(entry), errors) {
                        once("sources.", &mut self.sources, source, errors);
                    }
                }
                key if SINGLE.contains(&key) => match self.single.get(key) {
                    Some(known) => errors.push(twice("", &entry, known)),
                    None => {
                        self.single.insert(entry.key.clone(), entry);
                    }
                },
                key if NAMED.contains(&key) => self.add_shared(entry, namespace, errors),
                key if LATER.contains(&key) => errors.push(later(&entry)),
                _ => once("", &mut self.top, entry, errors),
            }
        }
    }

    /// As [`add`](Merged::add), without what an include does not bring.
    fn add_included(&mut self, entries: Vec<Entry>, namespace: &Option<At<String>>, errors: &mut Diagnostics) {
        for entry in entries {
            match entry.key.as_str() {
                "sources" => {}
                key if SINGLE.contains(&key) || TopTable::KEYS.contains(&key) => {}
                key if NAMED.contains(&key) => self.add_shared(entry, namespace, errors),
                key if LATER.contains(&key) => errors.push(later(&entry)),
                key => {
                    let known = [FileTable::KEYS, TopTable::KEYS, &SINGLE, &NAMED].concat();
                    let message = format!("unknown key \"{key}\" in [top level]");
                    errors.push(Diagnostic::new(&entry.key_place, message).nearest(key, known));
                }
            }
        }
    }

    fn add_shared(&mut self, entry: Entry, namespace: &Option<At<String>>, errors: &mut Diagnostics) {
        match entry.key.as_str() {
            // Whether two declarations of an event or a pair say the same is seen when both are built.
            "events" => self.events.extend(table_of(Some(entry), errors)),
            "pairs" => self.pairs.extend(table_of(Some(entry), errors)),
            "widgets" => {
                for widget in table_of(Some(entry), errors) {
                    once("widgets.", &mut self.widgets, widget, errors);
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
            "rules" => self.rules.push(entry),
            key => {
                let into = if key == "panels" { &mut self.panels } else { &mut self.tests };
                match entry.node.kind {
                    NodeKind::List(items) => into.extend(items),
                    NodeKind::Broken => {}
                    _ => {
                        let message = format!("\"{key}\" is a list of tables");
                        errors.push(Diagnostic::new(&entry.node.place, message).note(format!("write [[{key}]]")));
                    }
                }
            }
        }
    }
}

/// Reads the tables of `[[panels]]` or `[[tests]]`.
pub(super) fn list_of<T: Written>(nodes: Vec<Node>, errors: &mut Diagnostics) -> Vec<At<T>> {
    let mut out = Vec::new();
    for node in nodes {
        let place = node.place.clone();
        match T::read(node) {
            Ok(value) => out.push(At { value, place }),
            Err(more) => errors.append(more),
        }
    }
    out
}

fn once(path: &str, known: &mut Vec<Entry>, entry: Entry, errors: &mut Diagnostics) {
    match known.iter().find(|known| known.key == entry.key) {
        Some(first) => errors.push(twice(path, &entry, first)),
        None => known.push(entry),
    }
}

fn later(entry: &Entry) -> Diagnostic {
    Diagnostic::new(&entry.key_place, format!("unknown key \"{}\" in [top level]", entry.key))
        .note(format!("[{}] belongs to a later version; this one has not got it yet", entry.key))
}

fn twice(path: &str, second: &Entry, first: &Entry) -> Diagnostic {
    Diagnostic::new(&second.key_place, format!("\"{path}{}\" is declared twice", second.key))
        .note(format!("first in {}", first.key_place.line()))
}
