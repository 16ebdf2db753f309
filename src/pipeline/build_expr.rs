//! Expressions of a pipeline file: that each parses, gives what its place needs, and reads what is there.
//!
//! In: the texts as written, with their places, and [`Names`]. Out: diagnostics at the byte; the labels of a recorded
//! expression. Invariant: a text in a plan has passed [`Expression::parse`].

use super::config::Config;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::forms::LeafWritten;
use super::names::{Known, Names};
use super::reader::At;
use crate::query::{Expression, ResultKind};
use std::collections::{BTreeMap, BTreeSet};

/// Parses an expression where a number or a vector is needed.
pub(super) fn parse(at: &At<String>, errors: &mut Diagnostics) -> Option<Expression> {
    match Expression::parse(&at.value) {
        Ok(expression) => match expression.kind() {
            ResultKind::Scalar | ResultKind::Vector => Some(expression),
            kind => {
                let what = if kind == ResultKind::Range { "a range" } else { "a string" };
                let d = Diagnostic::new(&at.place, format!("the expression gives {what}, not a value"));
                errors.push(match kind {
                    ResultKind::Range => d.note("rate(x[5m]), increase(x[5m]) or avg_over_time(x[5m]) make one of it"),
                    _ => d,
                });
                None
            }
        },
        Err(error) => {
            let place = at.place.inside(&at.value, &(error.span.start..error.span.end));
            errors.push(Diagnostic::new(&place, error.message));
            None
        }
    }
}

/// Where a name stands in an expression.
fn place_of(at: &At<String>, name: &str) -> super::diagnostic::Place {
    let text = at.value.as_str();
    let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b"_:".contains(b));
    let bytes = text.as_bytes();
    let found = text.match_indices(name).map(|(start, _)| start).find(|start| {
        let end = start + name.len();
        !is_word(start.checked_sub(1).and_then(|before| bytes.get(before))) && !is_word(bytes.get(end))
    });
    found.map_or_else(|| at.place.clone(), |start| at.place.inside(text, &(start..start + name.len())))
}

/// Warns of names that nothing declares.
pub(super) fn warn_unknown(at: &At<String>, expression: &Expression, names: &Names, errors: &mut Diagnostics) {
    let mut seen = BTreeSet::new();
    for name in expression.selectors().iter().filter_map(|selector| selector.name.as_deref()) {
        // A colon stands in names that rule files record.
        if name.contains(':') || !seen.insert(name) {
            continue;
        }
        let warning = match names.find(name) {
            Known::Yes => continue,
            Known::Off => Diagnostic::warning(&place_of(at, name), format!("\"{name}\" is switched off"))
                .note("or vector(0) stands in for what is not there"),
            Known::No => Diagnostic::warning(&place_of(at, name), format!("nothing declares \"{name}\""))
                .nearest_only(name, names.all())
                .note("samples of this name may still come over the wire"),
        };
        errors.push(warning);
    }
}

/// Recorded expressions read what is recorded before them only (Q4).
pub(super) struct Order {
    /// Recorded metrics that come later, or are the one at hand, with the lines they stand in.
    pub(super) later: BTreeMap<String, String>,
}

impl Order {
    pub(super) fn check(&self, at: &At<String>, own: &str, expression: &Expression, errors: &mut Diagnostics) {
        let mut seen = BTreeSet::new();
        for name in expression.selectors().iter().filter_map(|selector| selector.name.as_deref()) {
            let Some(line) = self.later.get(name).filter(|_| seen.insert(name)) else { continue };
            let place = place_of(at, name);
            errors.push(if name == own {
                Diagnostic::new(&place, format!("\"{name}\" reads itself"))
                    .note("a recorded expression reads what is recorded before it, at the same time")
            } else {
                Diagnostic::new(&place, format!("\"{name}\" is recorded after this expression reads it"))
                    .note(format!("move it up from {line}: expressions are evaluated in the order of the file"))
            });
        }
    }
}

/// Checks the expressions of widgets, panels and tests.
pub(super) fn check(config: &Config, names: &Names, errors: &mut Diagnostics) {
    let one = |at: &At<String>, key: Option<&At<String>>, errors: &mut Diagnostics| {
        let Some(expression) = parse(at, errors) else { return };
        warn_unknown(at, &expression, names, errors);
        if let Some(key) = key
            && let Some(labels) = expression.labels(&|name| names.labels_of(name))
            && !labels.contains(&key.value)
        {
            let d = Diagnostic::warning(&key.place, format!("the expression's series have no label \"{}\"", key.value));
            errors.push(d.nearest(&key.value, labels.iter().map(String::as_str)));
        }
    };
    for leaf in config.widgets.iter().flat_map(|(_, leaves)| leaves.iter().map(|(_, leaf)| leaf)) {
        leaves(leaf, &mut |at, key| one(at, key, errors));
    }
    for (_, expr) in config.panels.iter().filter_map(|at| at.value.expr.as_ref()).flat_map(|at| &at.value.0) {
        one(expr, None, errors);
    }
    for expect in config.tests.iter().filter_map(|at| at.value.expect.as_ref()).flat_map(|at| &at.value) {
        if let Some(expr) = &expect.value.expr {
            one(expr, None, errors);
        }
    }
}

/// Takes an expression and the key beside it.
type Each<'a> = dyn FnMut(&At<String>, Option<&At<String>>) + 'a;

/// Calls for each expression of a widget's leaf, with its key.
fn leaves(leaf: &LeafWritten, each: &mut Each<'_>) {
    match leaf {
        LeafWritten::Text(at) => each(at, None),
        LeafWritten::Table(all) => all.0.iter().for_each(|(_, leaf)| leaves(leaf, each)),
        LeafWritten::Leaf(table) => {
            if let Some(at) = table.expr.as_ref().or(table.series.as_ref()) {
                each(at, table.key.as_ref());
            }
        }
    }
}
