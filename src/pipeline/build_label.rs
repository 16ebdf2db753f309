//! Labels of a feed: which it gives, and where each value comes from.
//!
//! In: what the feed and its metric name, and what the feed's source has. Out: labels sorted by name. Invariant: a label
//! that is given exists where it is taken from; a text without a bound is warned of once.

use super::build::label_name;
use super::build_feed::Feed;
use super::build_typed::{Event, type_word};
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::forms::LabelsWritten;
use super::plan::SourceKind;
use super::reader::At;
use crate::event::LABEL_VALUE_BYTES_MAX;
use crate::rule::typed::{DeriveFrom, EventSpec, FieldType, LabelSource};
use std::collections::BTreeSet;

/// Where the labels of a feed come from.
pub(super) enum LabelScope<'a> {
    /// Fields and derived texts.
    Event(&'a Event),
    /// These names, and no others.
    Listed(Vec<&'static str>),
    /// Tags of the line, or captures of the pattern: so many.
    Line(Option<usize>),
    /// The labels of the result, where they can be told.
    Result(Option<BTreeSet<String>>),
}

impl Feed<'_> {
    /// The labels that the file says a recorded expression has, constant ones apart.
    pub(super) fn written_labels(&self) -> Option<(BTreeSet<String>, Place)> {
        let consts = self.table.r#const.iter().flat_map(|at| &at.value.0).map(|(label, _)| &label.value);
        let consts: BTreeSet<&String> = consts.collect();
        let (names, place): (Vec<String>, &Place) = match (&self.table.labels, self.own) {
            (Some(at), _) => match &at.value {
                LabelsWritten::List(all) => (all.iter().map(|at| at.value.clone()).collect(), &at.place),
                LabelsWritten::Table(all) => (all.0.iter().map(|(label, _)| label.value.clone()).collect(), &at.place),
            },
            (None, Some(own)) => (own.to_vec(), &self.at.place),
            (None, None) => return None,
        };
        Some((names.into_iter().filter(|name| !consts.contains(name)).collect(), place.clone()))
    }

    /// The labels, sorted.
    pub(super) fn labels(&self, scope: &LabelScope<'_>, errors: &mut Diagnostics) -> Vec<(String, LabelSource)> {
        let mut out: Vec<(String, LabelSource)> = Vec::new();
        let mut add = |label: &At<String>, from: Option<LabelSource>, errors: &mut Diagnostics| {
            if !label_name(label, errors) {
                return;
            }
            if out.iter().any(|(known, _)| *known == label.value) {
                errors.push(Diagnostic::new(&label.place, format!("label \"{}\" is given twice", label.value)));
                return;
            }
            out.extend(from.map(|from| (label.value.clone(), from)));
        };
        for (label, value) in self.table.r#const.iter().flat_map(|at| &at.value.0) {
            if value.len() > LABEL_VALUE_BYTES_MAX || value.is_empty() {
                let d = Diagnostic::new(
                    &label.place,
                    format!("the value of label \"{}\" is empty or too long", label.value),
                );
                errors.push(d.note(format!("1 to {LABEL_VALUE_BYTES_MAX} bytes")));
            }
            add(label, Some(LabelSource::Const(value.clone())), errors);
        }
        let consts: Vec<String> =
            self.table.r#const.iter().flat_map(|at| &at.value.0).map(|(label, _)| label.value.clone()).collect();
        match self.table.labels.as_ref().map(|at| &at.value) {
            Some(LabelsWritten::List(all)) => {
                for at in all {
                    let from = self.label_of(at, at, scope, false, errors);
                    add(at, from, errors);
                }
            }
            Some(LabelsWritten::Table(all)) => {
                for (label, at) in &all.0 {
                    let from = self.label_of(label, at, scope, true, errors);
                    add(label, from, errors);
                }
            }
            None => match (self.own, scope) {
                (Some(own), _) => {
                    for name in own.iter().filter(|name| !consts.contains(name)) {
                        let at = At { value: name.clone(), place: self.at.place.clone() };
                        let from = self.label_of(&at, &at, scope, false, errors);
                        add(&at, from, errors);
                    }
                }
                (None, LabelScope::Listed(all)) if self.has_labels_always() => {
                    for name in all {
                        let at = At { value: (*name).to_owned(), place: self.at.place.clone() };
                        add(&at, Some(LabelSource::Own), errors);
                    }
                }
                (None, LabelScope::Result(Some(all))) => {
                    for name in all.iter().filter(|name| !consts.contains(name)) {
                        let at = At { value: name.clone(), place: self.at.place.clone() };
                        add(&at, Some(LabelSource::Own), errors);
                    }
                }
                (None, _) => {}
            },
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn has_labels_always(&self) -> bool {
        let source = self.table.source.as_ref().and_then(|at| self.scope.sources.iter().find(|s| s.name == at.value));
        source.is_some_and(|source| matches!(source.kind, SourceKind::Gpu(_)))
    }

    /// Where a label comes from: `at` is what was written for it, the label's own name in a list.
    fn label_of(
        &self,
        label: &At<String>,
        at: &At<String>,
        scope: &LabelScope<'_>,
        renamed: bool,
        errors: &mut Diagnostics,
    ) -> Option<LabelSource> {
        match scope {
            LabelScope::Event(event) => self.label_of_event(label, at, event, errors),
            LabelScope::Line(captures) if renamed => {
                for number in references(&at.value) {
                    if captures.is_some_and(|most| number == 0 || number > most) {
                        let d = Diagnostic::new(&at.place, format!("the pattern has no ${number}"));
                        let most = captures.unwrap_or(0);
                        errors.push(d.note(match most {
                            0 => "it has no * and no group".into(),
                            1 => "it has $1 only".into(),
                            most => format!("it has $1 to ${most}"),
                        }));
                        return None;
                    }
                }
                Some(LabelSource::Template(at.value.clone()))
            }
            LabelScope::Line(_) => Some(LabelSource::Own),
            LabelScope::Listed(_) | LabelScope::Result(_) if renamed && label.value != at.value => {
                let d = Diagnostic::new(&at.place, "labels of a source or an expression keep their names");
                errors.push(
                    d.note("write a list of them: labels = [\"...\"]; label_replace renames inside an expression"),
                );
                None
            }
            LabelScope::Result(_) => Some(LabelSource::Own),
            LabelScope::Listed(known) if known.contains(&at.value.as_str()) => Some(LabelSource::Own),
            LabelScope::Listed(known) => {
                let d = Diagnostic::new(&at.place, format!("this value has no label \"{}\"", at.value));
                errors.push(match known.is_empty() {
                    true => d.note("it has none; const = { LABEL = \"VALUE\" } gives it one"),
                    false => d.nearest(&at.value, known.iter().copied()),
                });
                None
            }
        }
    }

    fn label_of_event(
        &self,
        label: &At<String>,
        at: &At<String>,
        event: &Event,
        errors: &mut Diagnostics,
    ) -> Option<LabelSource> {
        let spec = &event.spec;
        let name = at.value.as_str();
        if let Some(derived) = spec.derived.iter().find(|derived| derived.name == name) {
            if let DeriveFrom::Field { field, class: None, distinct_max: None, .. } = &derived.from
                && spec.fields.iter().any(|known| known.name == *field && known.ty == FieldType::String)
            {
                self.note_unbounded(label, at, spec, name, format!("distinct_max = 1000 in derive.{name}"));
            }
            return Some(LabelSource::Field(name.to_owned()));
        }
        match spec.fields.iter().find(|field| field.name == name).map(|field| field.ty) {
            Some(FieldType::String) => {
                let fix = format!("derive = {{ NAME = {{ field = \"{name}\", distinct_max = 1000 }} }}");
                self.note_unbounded(label, at, spec, name, fix);
                Some(LabelSource::Field(name.to_owned()))
            }
            Some(FieldType::Bool | FieldType::Int) => Some(LabelSource::Field(name.to_owned())),
            Some(ty) => {
                let d = Diagnostic::new(
                    &at.place,
                    format!("\"{name}\" is of type {}, which cannot be a label", type_word(ty)),
                );
                errors
                    .push(d.note("labels are strings, bools and ints; every other value would be a series of its own"));
                None
            }
            None => {
                if !event.broken {
                    let known = spec.fields.iter().map(|field| field.name.as_str());
                    let known = known.chain(spec.derived.iter().map(|derived| derived.name.as_str()));
                    let message =
                        format!("event \"{}\" has no field \"{name}\" for label \"{}\"", spec.name, label.value);
                    errors.push(Diagnostic::new(&at.place, message).nearest(name, known));
                }
                None
            }
        }
    }

    /// Remembers a label that takes whatever text a producer sends; each text of an event once.
    fn note_unbounded(&self, label: &At<String>, at: &At<String>, event: &EventSpec, name: &str, fix: String) {
        let mut all = self.scope.unbounded.borrow_mut();
        if !all.iter().any(|known| known.event == event.name && known.text == name) {
            all.push(Unbounded {
                place: at.place.clone(),
                label: label.value.clone(),
                event: event.name.clone(),
                text: name.to_owned(),
                fix,
            });
        }
    }
}

/// A label whose values nobody counts.
pub(super) struct Unbounded {
    place: Place,
    label: String,
    event: String,
    /// The field or derived text.
    text: String,
    fix: String,
}

/// One warning of all labels without a bound: a file has many, and other warnings must still be seen.
pub(super) fn warn_unbounded(all: &[Unbounded], errors: &mut Diagnostics) {
    let Some(first) = all.first() else { return };
    let fix = format!("{} bounds it; past limits.series_per_metric new series are folded into one", first.fix);
    let Unbounded { place, label, event, text, .. } = first;
    if all.len() == 1 {
        let message = format!("label \"{label}\" takes whatever text \"{text}\" of event \"{event}\" holds");
        errors.push(Diagnostic::warning(place, message).note(fix));
        return;
    }
    let message = format!("{} labels take whatever text their events hold, \"{label}\" first", all.len());
    let mut warning = Diagnostic::warning(place, message);
    let mut events: Vec<&str> = Vec::new();
    for unbounded in all {
        if !events.contains(&unbounded.event.as_str()) {
            events.push(&unbounded.event);
        }
    }
    for event in events {
        let texts: Vec<&str> = all.iter().filter(|one| one.event == event).map(|one| one.text.as_str()).collect();
        warning = warning.note(format!("event {event}: {}", texts.join(", ")));
    }
    errors.push(warning.note(fix));
}

/// Labels as people write them.
pub(super) fn braces(names: &[String]) -> String {
    format!("{{{}}}", names.join(", "))
}

/// The numbers of `$1` and `${1}` in a template.
fn references(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = rest[at + 1..].trim_start_matches('{');
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        out.extend(rest[..digits].parse::<usize>().ok());
        rest = &rest[digits..];
    }
    out
}
