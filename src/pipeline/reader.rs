//! Tables as they were written: values with their places, references replaced, nothing judged.
//!
//! In: the text of one file and the variables of the environment. Out: [`Node`]s, and through [`TableReader`] the
//! typed keys of a table. Owns: which overrides were used. Invariant: each key is asked for once, and whatever
//! nobody asked for is reported as unknown, so a misspelt key never passes silently. This is serde's
//! `deny_unknown_fields` with all errors of a file at once, which serde cannot give: it stops at the first.

use super::diagnostic::{Diagnostic, Diagnostics, Place, SourceText};
use super::value::substitute;
use super::written::Written;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A value as written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// `whole`: one reference or override, which takes the type of the key; `literal`: nothing was replaced.
    Text {
        text: String,
        whole: bool,
        literal: bool,
    },
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Dates, and numbers out of range.
    Other(&'static str),
    /// Reported already.
    Broken,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            NodeKind::Text { .. } => "a string",
            NodeKind::Integer(_) => "an integer",
            NodeKind::Float(_) => "a number",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::List(_) => "a list",
            NodeKind::Table(_) => "a table",
            NodeKind::Other(what) => what,
            NodeKind::Broken => "what could not be read",
        }
    }

    pub(super) fn expected(&self, what: &str) -> Diagnostic {
        Diagnostic::new(&self.place, format!("expected {what}, found {}", self.what()))
    }

    fn is_broken(&self) -> bool {
        match &self.kind {
            NodeKind::Broken => true,
            NodeKind::List(items) => items.iter().any(Node::is_broken),
            NodeKind::Table(entries) => entries.iter().any(|entry| entry.node.is_broken()),
            _ => false,
        }
    }

    /// The text of a reference or override, which may stand for any type.
    pub(super) fn whole(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text { text, whole: true, .. } => Some(text.trim()),
            _ => None,
        }
    }
}

/// Parses one file. What cannot be parsed is reported, and the rest read on.
pub(super) fn parse(
    source: &Arc<SourceText>,
    variables: &BTreeMap<String, String>,
    errors: &mut Diagnostics,
) -> Vec<Entry> {
    let (table, faults) = DeTable::parse_recoverable(&source.text);
    for fault in &faults {
        let place = Place { source: source.clone(), span: fault.span().unwrap_or(0..0), variable: None };
        errors.push(Diagnostic::new(&place, fault.message().trim_end().replace('\n', ", ")));
    }
    if !faults.is_empty() {
        // A table torn by a syntax error would only add follow-up errors.
        return Vec::new();
    }
    entries(source, table.get_ref(), variables, errors)
}

fn entries(
    source: &Arc<SourceText>,
    table: &DeTable<'_>,
    variables: &BTreeMap<String, String>,
    errors: &mut Diagnostics,
) -> Vec<Entry> {
    let place = |span: Range<usize>| Place { source: source.clone(), span, variable: None };
    let mut out: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: place(key.span()),
            node: node(source, value.get_ref(), place(value.span()), variables, errors),
        })
        .collect();
    out.sort_by_key(|entry| entry.key_place.span.start);
    out
}

fn node(
    source: &Arc<SourceText>,
    value: &DeValue<'_>,
    place: Place,
    variables: &BTreeMap<String, String>,
    errors: &mut Diagnostics,
) -> Node {
    let kind = match value {
        DeValue::String(text) => match substitute(text, variables) {
            Ok(done) => NodeKind::Text { text: done.text, whole: done.whole, literal: !done.referenced },
            Err(message) => {
                errors.push(Diagnostic::new(&place, message));
                NodeKind::Broken
            }
        },
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => NodeKind::Integer(number),
            Err(_) => NodeKind::Other("an integer out of range"),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => NodeKind::Float(number),
            Err(_) => NodeKind::Other("a number out of range"),
        },
        DeValue::Boolean(value) => NodeKind::Bool(*value),
        DeValue::Datetime(_) => NodeKind::Other("a date"),
        DeValue::Array(items) => NodeKind::List(
            items
                .iter()
                .map(|item| {
                    let place = Place { source: source.clone(), span: item.span(), variable: None };
                    node(source, item.get_ref(), place, variables, errors)
                })
                .collect(),
        ),
        DeValue::Table(table) => NodeKind::Table(entries(source, table, variables, errors)),
    };
    Node { kind, place }
}

/// The variables that override keys, `HYDROGRAPH_` and a path in capitals joined by `__`, and which were used.
pub(super) struct Overrides<'a> {
    variables: &'a BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
}

pub(super) const PREFIX: &str = "HYDROGRAPH_";

/// Variables of this prefix that name no key and mean something: to the verbs, to tests, to benchmarks.
const OTHERS: [&str; 12] = [
    "URL",
    "TOKEN_FILE",
    "BLESS",
    "EVENTS",
    "FUZZ",
    "KILLS",
    "LONG_LABELS",
    "PANICS",
    "SEED",
    "SKIPS",
    "TAGS",
    "TRIALS",
];

/// What such variables begin with; the last two are what Kubernetes sets for a service of that name.
const OTHERS_BEGIN: [&str; 4] = ["TEST_", "BENCH_", "SERVICE_", "PORT"];

impl<'a> Overrides<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, String>) -> Overrides<'a> {
        Overrides { variables, used: RefCell::default() }
    }

    /// The variable of a path, as capitals; what is not a letter or digit becomes `_`.
    pub(super) fn variable(prefix: &str, key: &str) -> String {
        let key: String =
            key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        if prefix == PREFIX { format!("{PREFIX}{key}") } else { format!("{prefix}__{key}") }
    }

    /// None at all: tables within a table stand as written.
    pub(super) fn none() -> Overrides<'static> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Overrides::new(&NONE)
    }

    fn take(&self, variable: &str, table: &Place) -> Option<Node> {
        let value = self.variables.get(variable)?;
        self.used.borrow_mut().insert(variable.to_owned());
        let place = Place { variable: Some(variable.into()), ..table.clone() };
        let kind = NodeKind::Text { text: value.clone(), whole: true, literal: false };
        Some(Node { kind, place })
    }

    /// Variables of the keys of a table that is free to have any, `HYDROGRAPH_LABELS__REGION`: the key in capitals, and
    /// the value.
    fn take_all(&self, table: &str, place: &Place) -> Vec<(String, Node)> {
        let prefix = format!("{table}__");
        let of_table =
            self.variables.keys().filter_map(|name| name.strip_prefix(&prefix).filter(|key| !key.is_empty()));
        of_table.filter_map(|key| Some((key.to_owned(), self.take(&format!("{prefix}{key}"), place)?))).collect()
    }

    /// Variables without `__` that no key asked for and nobody else does.
    pub(super) fn misspelt(&self) -> Vec<String> {
        let used = self.used.borrow();
        let is_misspelt = |name: &&String| {
            let key = name.strip_prefix(PREFIX).filter(|key| !key.contains("__") && !used.contains(*name));
            key.is_some_and(|key| !OTHERS.contains(&key) && !OTHERS_BEGIN.iter().any(|begin| key.starts_with(begin)))
        };
        self.variables.keys().filter(is_misspelt).cloned().collect()
    }

    /// Variables with `__` that no key asked for.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let own = |name: &&String| name.starts_with(PREFIX) && name.contains("__") && !used.contains(*name);
        self.variables.keys().filter(own).cloned().collect()
    }
}

/// Hands out the keys of one table.
pub(super) struct TableReader<'a> {
    /// As a person names it: `[store]`, `[sources.app]`, `[top level]`.
    pub(super) label: String,
    /// The variable of the table.
    variable: String,
    pub(super) place: Place,
    rest: Vec<Entry>,
    overrides: &'a Overrides<'a>,
    pub(super) errors: &'a mut Diagnostics,
}

impl<'a> TableReader<'a> {
    pub(super) fn new(
        label: String,
        variable: String,
        place: Place,
        rest: Vec<Entry>,
        overrides: &'a Overrides<'a>,
        errors: &'a mut Diagnostics,
    ) -> TableReader<'a> {
        TableReader { label, variable, place, rest, overrides, errors }
    }

    /// The value of a key, from the environment or the file; an unreadable one is reported and `None`.
    pub(super) fn take<T: Written>(&mut self, key: &str) -> Option<At<T>> {
        let written = self.rest.iter().position(|entry| entry.key == key).map(|at| self.rest.remove(at).node);
        let variable = Overrides::variable(&self.variable, key);
        let node = self.overrides.take(&variable, &self.place).or(written)?;
        let place = node.place.clone();
        if node.is_broken() {
            return None;
        }
        match T::read(node) {
            Ok(value) => Some(At { value, place }),
            Err(diagnostics) => {
                for diagnostic in diagnostics {
                    self.errors.push(diagnostic.note(format!("for key \"{key}\" in {}", self.label)));
                }
                None
            }
        }
    }

    /// Lets variables say single keys of a table in this one whose keys are free, as `HYDROGRAPH_LABELS__REGION` does of
    /// `labels`; a key that the file does not have is written in small letters. A variable of the whole table replaces it.
    pub(super) fn with_keys_of(mut self, table: &str) -> TableReader<'a> {
        let variable = Overrides::variable(&self.variable, table);
        if self.overrides.variables.contains_key(&variable) {
            return self;
        }
        let said = self.overrides.take_all(&variable, &self.place);
        if said.is_empty() {
            return self;
        }
        if !self.rest.iter().any(|entry| entry.key == table) {
            let node = Node { kind: NodeKind::Table(Vec::new()), place: self.place.clone() };
            self.rest.push(Entry { key: table.to_owned(), key_place: self.place.clone(), node });
        }
        let entry = self.rest.iter_mut().find(|entry| entry.key == table).expect("it was added");
        if let NodeKind::Table(entries) = &mut entry.node.kind {
            for (key, node) in said {
                let is_meant = |entry: &&mut Entry| Overrides::variable(PREFIX, &entry.key) == format!("{PREFIX}{key}");
                match entries.iter_mut().find(is_meant) {
                    Some(entry) => entry.node = node,
                    None => {
                        let key_place = node.place.clone();
                        entries.push(Entry { key: key.to_ascii_lowercase(), key_place, node });
                    }
                }
            }
        }
        self
    }

    /// Looks at a key without taking it.
    pub(super) fn peek(&self, key: &str) -> Option<&Entry> {
        self.rest.iter().find(|entry| entry.key == key)
    }

    /// The keys that nobody took yet, in the order of the file: for tables whose keys are free.
    pub(super) fn keys(&self) -> Vec<At<String>> {
        self.rest.iter().map(|entry| At { value: entry.key.clone(), place: entry.key_place.clone() }).collect()
    }

    /// Reports whatever was not taken.
    pub(super) fn finish(self, known: &[&str]) {
        for entry in self.rest {
            let message = format!("unknown key \"{}\" in {}", entry.key, self.label);
            self.errors.push(Diagnostic::new(&entry.key_place, message).nearest(&entry.key, known.iter().copied()));
        }
    }
}
