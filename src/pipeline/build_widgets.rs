//! Widgets, panels, rule files and tests as meant.
//!
//! In: the tables as written. Out: [`Shown`]. Expressions are checked elsewhere, with all that they may name in view
//! (`build_expr.rs`). Invariant: no path of a widget begins with another, so that its JSON has one shape.

use super::build_typed::{Event, unknown_event};
use super::config::{Config, SourceTable};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::forms::LeafWritten;
use super::paths::beside;
use super::plan::{
    PanelKind, PanelPlan, TestAction, TestExpect, TestInput, TestPlan, Threshold, Want, WidgetLeaf, WidgetPlan,
};
use super::reader::At;
use super::tables::{ExpectTable, InputTable, LeafTable, PanelTable, TestTable};
use std::path::PathBuf;

/// Events of a list in a widget: the page shows them all.
const EVENTS_MAX: u64 = 1000;
const EVENTS_DEFAULT: u32 = 20;

/// What is shown and tested.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) widgets: Vec<WidgetPlan>,
    pub(super) panels: Vec<PanelPlan>,
    pub(super) rules_files: Vec<PathBuf>,
    pub(super) tests: Vec<TestPlan>,
}

impl Shown {
    pub(super) fn build(config: &Config, events: &[Event], errors: &mut Diagnostics) -> Shown {
        let mut shown = Shown::default();
        for (name, leaves) in &config.widgets {
            let mut widget = Widget { events, leaves: Vec::new() };
            let valid =
                !name.value.is_empty() && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if !valid {
                let d = Diagnostic::new(&name.place, format!("\"{}\" is not a widget name", name.value));
                errors
                    .push(d.note("letters, digits, \"_\", \"-\" and \".\": it is a part of an address, ?widget=NAME"));
            }
            for (key, leaf) in leaves {
                widget.add(&[], key, leaf, errors);
            }
            if leaves.is_empty() {
                let d = Diagnostic::new(&name.place, format!("[widgets.{}] is empty", name.value));
                errors.push(d.note("each key is a key of its JSON: error_rate = \"EXPRESSION\""));
            }
            let leaves = widget.leaves.into_iter().map(|(path, leaf, _)| (path, leaf)).collect();
            shown.widgets.push(WidgetPlan { name: name.value.clone(), leaves });
        }
        shown.panels = config.panels.iter().filter_map(|at| panel(at, errors)).collect();
        for at in config.rules.iter().flat_map(|table| &table.files).flat_map(|at| &at.value) {
            if at.value.is_empty() {
                errors.push(Diagnostic::new(&at.place, "an empty path").note("files = [\"rules/*.yml\"]"));
            } else if at.value.rsplit_once('/').is_some_and(|(directory, _)| directory.contains('*')) {
                let d = Diagnostic::new(&at.place, format!("\"{}\" has a * in a directory", at.value));
                errors.push(d.note("a * stands for anything in the name of the file"));
            } else {
                shown.rules_files.push(beside(at, &config.files));
            }
        }
        let mut names: Vec<(&str, &str)> = Vec::new();
        for at in &config.tests {
            let Some(plan) = test(at, config, errors) else { continue };
            let name = at.value.name.as_ref().map_or("", |at| at.value.as_str());
            let place = &at.value.name.as_ref().map_or(&at.place, |at| &at.place);
            if names.contains(&(place.source.name.as_str(), name)) {
                errors.push(Diagnostic::new(place, format!("a second test \"{name}\" in this file")));
            }
            names.push((&at.place.source.name, name));
            shown.tests.push(plan);
        }
        shown
    }
}

struct Widget<'a> {
    events: &'a [Event],
    leaves: Vec<(Vec<String>, WidgetLeaf, At<String>)>,
}

impl Widget<'_> {
    fn add(&mut self, path: &[String], key: &At<String>, leaf: &LeafWritten, errors: &mut Diagnostics) {
        let mut path = path.to_vec();
        for part in key.value.split('.') {
            if part.is_empty() {
                let d = Diagnostic::new(&key.place, format!("\"{}\" is not a path of JSON keys", key.value));
                errors.push(d.note("keys joined by \".\": \"resources.cpu\""));
                return;
            }
            path.push(part.to_owned());
        }
        let plan = match leaf {
            LeafWritten::Table(all) => {
                for (key, leaf) in &all.0 {
                    self.add(&path, key, leaf, errors);
                }
                return;
            }
            LeafWritten::Text(at) => Some(WidgetLeaf::Value { expr: at.value.clone(), key: None }),
            LeafWritten::Leaf(table) => self.leaf(table, errors),
        };
        let Some(plan) = plan else { return };
        if let Some((known, _, first)) =
            self.leaves.iter().find(|(known, ..)| known.starts_with(&path) || path.starts_with(known))
        {
            let d =
                Diagnostic::new(&key.place, format!("\"{}\" stands beside \"{}\"", path.join("."), known.join(".")));
            errors.push(d.note(format!("the other in {}; a JSON key holds one of them", first.place.line())));
            return;
        }
        self.leaves.push((path, plan, key.clone()));
    }

    fn leaf(&self, table: &LeafTable, errors: &mut Diagnostics) -> Option<WidgetLeaf> {
        let key = table.key.as_ref().map(|at| at.value.clone());
        let given = [
            table.expr.as_ref().map(|at| ("expr", &at.place)),
            table.series.as_ref().map(|at| ("series", &at.place)),
            table.events.as_ref().map(|at| ("events", &at.place)),
        ];
        let mut given = given.into_iter().flatten();
        if let (Some((first, _)), Some((second, place))) = (given.next(), given.next()) {
            let d = Diagnostic::new(place, format!("a leaf has {first} or {second}, not both"));
            errors.push(d.note("give each a key of its own"));
            return None;
        }
        if let (Some(at), Some(_)) = (&table.key, &table.events) {
            errors
                .push(Diagnostic::new(&at.place, "a list of events has no key").note("key belongs to expr and series"));
        }
        if let (Some(at), None) = (&table.limit, &table.events) {
            errors
                .push(Diagnostic::new(&at.place, "an expression has no limit").note("topk(10, ...) keeps the largest"));
        }
        if let Some(at) = &table.expr {
            return Some(WidgetLeaf::Value { expr: at.value.clone(), key });
        }
        if let Some(at) = &table.series {
            return Some(WidgetLeaf::Series { expr: at.value.clone(), key });
        }
        let events = table.events.as_ref()?;
        if events.value.is_empty() {
            errors.push(
                Diagnostic::new(&events.place, "no event is named").note("events = \"NAME\", or a list of names"),
            );
        }
        for at in &events.value {
            match self.events.iter().find(|event| event.spec.name == at.value) {
                None => errors.push(unknown_event(at, self.events)),
                Some(event) if event.spec.keep == 0 && !event.broken => {
                    let d = Diagnostic::new(&at.place, format!("event \"{}\" is not kept", at.value));
                    errors.push(d.note(format!("add keep = 100 in {}", event.place.line())));
                }
                Some(_) => {}
            }
        }
        let limit = table.limit.as_ref().map_or(u64::from(EVENTS_DEFAULT), |at| at.value);
        if !(1..=EVENTS_MAX).contains(&limit) {
            let place = table.limit.as_ref().map_or(&events.place, |at| &at.place);
            errors.push(
                Diagnostic::new(place, format!("limit = {limit} is out of range")).note(format!("1 to {EVENTS_MAX}")),
            );
        }
        let names = events.value.iter().map(|at| at.value.clone()).collect();
        Some(WidgetLeaf::Events { events: names, limit: limit.clamp(1, EVENTS_MAX) as u32 })
    }
}

fn panel(at: &At<PanelTable>, errors: &mut Diagnostics) -> Option<PanelPlan> {
    let table = &at.value;
    let title = table.title.as_ref().map_or("", |at| at.value.as_str());
    if title.is_empty() {
        errors.push(Diagnostic::new(&at.place, "a panel has no title").note("add title = \"...\""));
    }
    let kind = match &table.kind {
        None => PanelKind::Line,
        Some(at) => match PanelKind::ALL.iter().find(|(word, _)| *word == at.value) {
            Some((_, kind)) => *kind,
            None => {
                let d = Diagnostic::new(&at.place, format!("unknown kind \"{}\" of a panel", at.value));
                errors.push(d.nearest(&at.value, PanelKind::ALL.map(|(word, _)| word)));
                PanelKind::Line
            }
        },
    };
    let mut thresholds: Vec<Threshold> = Vec::new();
    for at in table.thresholds.iter().flat_map(|at| &at.value) {
        let (Some(above), Some(color)) = (&at.value.above, &at.value.color) else {
            let d = Diagnostic::new(&at.place, "a threshold lacks above or color");
            errors.push(d.note("write { above = 0.05, color = \"red\" }"));
            continue;
        };
        let hex = color.value.strip_prefix('#');
        let is_color = hex.map_or_else(
            || !color.value.is_empty() && color.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            |hex| [3, 6].contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        );
        if !is_color {
            let d = Diagnostic::new(&color.place, format!("\"{}\" is not a color", color.value));
            errors.push(d.note("a name like \"red\", or \"#rrggbb\""));
        }
        if !above.value.is_finite() || thresholds.last().is_some_and(|last| last.above >= above.value) {
            let d = Diagnostic::new(&above.place, format!("above = {} is not larger than the one before", above.value));
            errors.push(d.note("thresholds ascend; below the first the panel has its own color"));
        }
        thresholds.push(Threshold { above: above.value, color: color.value.clone() });
    }
    let Some(exprs) = table.expr.as_ref().filter(|at| !at.value.0.is_empty()) else {
        let place = table.title.as_ref().map_or(&at.place, |at| &at.place);
        let d = Diagnostic::new(place, format!("panel \"{title}\" shows nothing"));
        errors.push(d.note("add expr = \"EXPRESSION\", or expr = { p50 = \"...\", p99 = \"...\" }"));
        return None;
    };
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone()).filter(|text| !text.is_empty());
    Some(PanelPlan {
        title: title.to_owned(),
        row: text(&table.row),
        kind,
        unit: text(&table.unit),
        exprs: exprs.value.0.iter().map(|(name, expr)| (name.clone(), expr.value.clone())).collect(),
        legend: text(&table.legend),
        thresholds,
    })
}

fn test(at: &At<TestTable>, config: &Config, errors: &mut Diagnostics) -> Option<TestPlan> {
    let table = &at.value;
    let name = table.name.as_ref().map_or("", |at| at.value.as_str());
    if name.is_empty() {
        errors.push(Diagnostic::new(&at.place, "a test has no name").note("add name = \"what it shows\""));
    }
    let input = table.input.iter().flat_map(|at| &at.value).filter_map(|at| input(at, config, errors)).collect();
    let expect: Vec<TestExpect> =
        table.expect.iter().flat_map(|at| &at.value).filter_map(|at| expect(at, errors)).collect();
    if table.expect.as_ref().is_none_or(|at| at.value.is_empty()) {
        let d = Diagnostic::new(&at.place, format!("test \"{name}\" expects nothing"));
        errors.push(d.note("add expect = [{ at = \"5s\", expr = \"...\", value = 1 }]"));
    }
    Some(TestPlan { name: name.to_owned(), place: at.place.shown(), input, expect })
}

fn moment(at: &Option<At<super::written::Nanos>>, owner: &super::diagnostic::Place, errors: &mut Diagnostics) -> i64 {
    match at {
        Some(at) => at.value.0,
        None => {
            errors.push(
                Diagnostic::new(owner, "says not when").note("add at = \"0s\", counted from the start of the test"),
            );
            0
        }
    }
}

fn input(at: &At<InputTable>, config: &Config, errors: &mut Diagnostics) -> Option<TestInput> {
    let table = &at.value;
    let moment = moment(&table.at, &at.place, errors);
    let mut actions: Vec<TestAction> = Vec::new();
    actions.extend(table.line.as_ref().map(|at| TestAction::Line(at.value.clone())));
    if let Some(at) = &table.restart {
        if at.value != "kill" {
            let d = Diagnostic::new(&at.place, format!("unknown restart \"{}\"", at.value));
            errors.push(d.nearest(&at.value, ["kill"]));
        }
        actions.push(TestAction::Kill);
    }
    actions.extend(table.reload.as_ref().map(|at| TestAction::Reload(beside(at, &config.files))));
    match <[TestAction; 1]>::try_from(actions) {
        Ok([action]) => {
            let source = test_source(table, &action, config, errors);
            Some(TestInput { at: moment, action, source })
        }
        Err(all) => {
            let d = Diagnostic::new(&at.place, format!("an input does {} things", all.len()));
            errors.push(d.note("one of line = \"...\", restart = \"kill\", reload = \"other.toml\""));
            None
        }
    }
}

fn test_source(table: &InputTable, action: &TestAction, config: &Config, errors: &mut Diagnostics) -> Option<String> {
    let at = table.source.as_ref()?;
    let sockets = || {
        let all = config.sources.iter().filter(|(_, table)| matches!(table, SourceTable::Socket(_)));
        all.map(|(name, _)| name.value.as_str())
    };
    if !matches!(action, TestAction::Line(_)) {
        errors.push(Diagnostic::new(&at.place, "source belongs to a line").note("it is where the line arrives"));
    } else if !sockets().any(|name| name == at.value) {
        let d = Diagnostic::new(&at.place, format!("unknown source \"{}\" of type socket", at.value));
        errors.push(
            d.nearest(&at.value, sockets())
                .note("an include brings no sources: the file that includes it declares them"),
        );
    }
    Some(at.value.clone())
}

fn expect(at: &At<ExpectTable>, errors: &mut Diagnostics) -> Option<TestExpect> {
    let table = &at.value;
    let moment = moment(&table.at, &at.place, errors);
    let absent = table.absent.as_ref().filter(|at| at.value);
    let want = match (&table.value, absent) {
        (Some(_), Some(at)) => {
            errors.push(Diagnostic::new(&at.place, "both value and absent").note("keep one of them"));
            Want::Absent
        }
        (None, None) => {
            let d = Diagnostic::new(&at.place, "expects nothing");
            errors.push(d.note("add value = 1, or absent = true"));
            Want::Absent
        }
        (None, Some(_)) => Want::Absent,
        (Some(value), None) => {
            Want::Value { value: value.value.0, tolerance: table.tolerance.as_ref().map(|at| at.value) }
        }
    };
    if let Some(at) = &table.tolerance {
        if want == Want::Absent {
            errors.push(Diagnostic::new(&at.place, "tolerance without value"));
        } else if at.value < 0.0 || !at.value.is_finite() {
            errors.push(Diagnostic::new(&at.place, format!("tolerance = {} is not a distance", at.value)));
        }
    }
    let Some(expr) = &table.expr else {
        errors.push(Diagnostic::new(&at.place, "has no expression").note("add expr = \"...\""));
        return None;
    };
    Some(TestExpect { at: moment, expr: expr.value.clone(), want, place: at.place.shown() })
}
