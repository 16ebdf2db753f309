//! `from` of a metric as meant: what feeds it, which labels that gives, and whether the types fit.
//!
//! In: the table of a metric and what the files declare beside it. Out: [`Feeds`]. Invariants: every name in a
//! [`FeedSpec`] exists and fits the metric's kind; all feeds of a metric give the same labels; a feed of something that
//! is switched off is checked and left out.

use super::build_expr::parse;
use super::build_label::{LabelScope, Unbounded, braces};
use super::build_source::values_of;
use super::build_typed::{Event, Pair, type_word, unknown_event};
use super::config::MetricEntry;
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::names::Names;
use super::plan::{SourceKind, SourcePlan};
use super::reader::At;
use super::tables::FeedTable;
use crate::event::{Kind, Unit};
use crate::rule::typed::{Condition, FeedSource, FeedSpec, FieldType, GaugeOp, PAIR_FEEDS_MAX, PairValue};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What a feed may name.
pub(super) struct Scope<'a> {
    pub(super) events: &'a [Event],
    pub(super) pairs: &'a [Pair],
    pub(super) sources: &'a [SourcePlan],
    /// Labels without a bound, in the order of the metrics.
    pub(super) unbounded: RefCell<Vec<Unbounded>>,
    /// Feeds of each pair so far.
    pub(super) pair_feeds: RefCell<BTreeMap<String, usize>>,
}

/// What feeds a metric.
pub(super) struct Feeds {
    /// The labels of its series; `None` without `from` and without `labels`.
    pub(super) labels: Option<Vec<String>>,
    /// Without those that are switched off; their `metric` is set by whoever knows it.
    pub(super) feeds: Vec<FeedSpec>,
    /// There were feeds, and all of them are switched off.
    pub(super) is_off: bool,
}

/// Builds the feeds of a metric. `own` are the labels that the metric itself declares.
pub(super) fn feeds(
    entry: &MetricEntry,
    (kind, unit): (Kind, Unit),
    own: Option<&[String]>,
    scope: &Scope<'_>,
    names: &Names,
    errors: &mut Diagnostics,
) -> Feeds {
    let none = Feeds { labels: own.map(<[String]>::to_vec), feeds: Vec::new(), is_off: false };
    let Some(from) = &entry.table.from else { return none };
    if from.value.is_empty() {
        let d = Diagnostic::new(&from.place, "from is empty");
        errors.push(d.note("take it out: a metric without from is fed by samples of its name"));
        return none;
    }
    let mut out = none;
    if from.value.iter().any(|at| at.value.pair.is_some()) && entry.table.enabled.as_ref().is_none_or(|at| at.value) {
        count_pairs(from, scope, errors);
    }
    let mut first: Option<(Vec<String>, Place)> = own.map(|labels| {
        let place = entry.table.labels.as_ref().map_or(&entry.name.place, |at| &at.place);
        (labels.to_vec(), place.clone())
    });
    let mut on = 0;
    let mut refused = 0;
    for at in &from.value {
        let feed = Feed { at, table: &at.value, kind, unit, own, scope, names };
        let Some((spec, enabled)) = feed.build(errors) else {
            refused += 1;
            continue;
        };
        let names: Vec<String> = spec.labels.iter().map(|(name, _)| name.clone()).collect();
        match &first {
            None => first = Some((names, at.place.clone())),
            Some((known, place)) => {
                let mut sorted = known.clone();
                sorted.sort();
                if sorted != names {
                    let message = format!("this feed gives labels {}, not {}", braces(&names), braces(&sorted));
                    errors.push(Diagnostic::new(&at.place, message).note(match own {
                        Some(_) => format!("as the metric declares in {}", place.line()),
                        None => format!(
                            "as its feed in {}; const = {{ LABEL = \"VALUE\" }} gives one that is missing",
                            place.line()
                        ),
                    }));
                    continue;
                }
            }
        }
        if enabled {
            on += 1;
            out.feeds.push(spec);
        }
    }
    if let [_, second, ..] = from.value.as_slice()
        && let Some(expr) = from.value.iter().find_map(|at| at.value.expr.as_ref())
    {
        let d = Diagnostic::new(&expr.place, "an expression stands beside other feeds");
        errors.push(d.note(format!("its value would overwrite theirs ({}); declare two metrics", second.place.line())));
    }
    // The order in which the first feed, or the metric, names them.
    out.labels = first.map(|(labels, _)| labels).or(out.labels);
    out.is_off = on == 0 && refused == 0;
    out
}

/// A decoder makes the series of all feeds of a pair at its start, side by side.
fn count_pairs(from: &At<Vec<At<FeedTable>>>, scope: &Scope<'_>, errors: &mut Diagnostics) {
    for at in from.value.iter().filter_map(|at| at.value.pair.as_ref()) {
        let mut counts = scope.pair_feeds.borrow_mut();
        let count = counts.entry(at.value.clone()).or_insert(0);
        *count += 1;
        if *count == PAIR_FEEDS_MAX + 1 {
            let d =
                Diagnostic::new(&at.place, format!("pair \"{}\" feeds more than {PAIR_FEEDS_MAX} metrics", at.value));
            errors.push(d.note("a second pair of the same events feeds as many"));
        }
    }
}

/// One feed at hand.
pub(super) struct Feed<'a> {
    pub(super) at: &'a At<FeedTable>,
    pub(super) table: &'a FeedTable,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    pub(super) own: Option<&'a [String]>,
    pub(super) scope: &'a Scope<'a>,
    pub(super) names: &'a Names,
}

impl Feed<'_> {
    /// The feed, and whether what it names is switched on.
    fn build(&self, errors: &mut Diagnostics) -> Option<(FeedSpec, bool)> {
        let before = errors.errors();
        let table = self.table;
        let named: [(&str, &Option<At<String>>); 5] = [
            ("event", &table.event),
            ("pair", &table.pair),
            ("source", &table.source),
            ("statsd", &table.statsd),
            ("expr", &table.expr),
        ];
        let mut given = named.iter().filter_map(|(key, at)| Some((*key, at.as_ref()?)));
        let Some((what, at)) = given.next() else {
            let d = Diagnostic::new(&self.at.place, "a feed of nothing");
            errors.push(d.note("name one of event, pair, source, statsd, expr"));
            return None;
        };
        if let Some((second, at)) = given.next() {
            let d = Diagnostic::new(&at.place, format!("a feed has {what} or {second}, not both"));
            errors.push(d.note("from takes a list of feeds: from = [{ ... }, { ... }]"));
            return None;
        }
        let (from, labels, enabled) = match what {
            "event" => self.event(at, errors),
            "pair" => self.pair(at, errors),
            "source" => self.source(at, errors),
            "statsd" => self.statsd(at, errors),
            _ => self.expr(at, errors),
        }?;
        let when = self.when(what, &labels, errors);
        let labels = self.labels(&labels, errors);
        let op = self.op(errors);
        let scale = self.scale(errors);
        let spec = FeedSpec { metric: 0, kind: self.kind, from, labels, when, op, scale };
        (errors.errors() == before).then_some((spec, enabled))
    }

    fn event(&self, at: &At<String>, errors: &mut Diagnostics) -> Option<(FeedSource, LabelScope<'_>, bool)> {
        let Some(event) = self.scope.events.iter().find(|event| event.spec.name == at.value) else {
            errors.push(unknown_event(at, self.scope.events));
            return None;
        };
        if let Some(value) = &self.table.value {
            self.value_of_event(value, event, errors);
            self.unit_of_event(value, event, errors);
        } else if let Some(missing) = self.without_value() {
            let d = Diagnostic::new(&self.at.place, format!("a {} of events needs a value", self.kind_word()));
            errors.push(d.note(missing));
        }
        let value = self.table.value.as_ref().map(|at| at.value.clone());
        let from = FeedSource::Event { event: at.value.clone(), value };
        Some((from, LabelScope::Event(event), event.enabled))
    }

    /// What to write, where a metric of this kind cannot do without `value`.
    fn without_value(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Counter => None,
            Kind::Gauge if self.table.op.as_ref().is_some_and(|at| at.value != "set") => None,
            Kind::Gauge => Some("add value = \"FIELD\", or op = \"add\" or \"sub\" to go up or down by 1"),
            Kind::Distribution => Some("add value = \"FIELD\", a field that holds a number"),
            Kind::Set => Some("add value = \"FIELD\", the field whose distinct values are counted"),
        }
    }

    fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::Distribution => "histogram or summary",
            kind => kind.as_str(),
        }
    }

    fn value_of_event(&self, at: &At<String>, event: &Event, errors: &mut Diagnostics) {
        let spec = &event.spec;
        let is_derived = spec.derived.iter().any(|derived| derived.name == at.value);
        if self.kind == Kind::Set && is_derived {
            return;
        }
        let Some(field) = spec.fields.iter().find(|field| field.name == at.value) else {
            if is_derived {
                let d = Diagnostic::new(&at.place, format!("\"{}\" is a derived text, not a number", at.value));
                errors.push(d.note("value names a field that holds a number; a derived text may be a label"));
            } else if !event.broken {
                let d = Diagnostic::new(&at.place, format!("event \"{}\" has no field \"{}\"", spec.name, at.value));
                errors.push(d.nearest(&at.value, spec.fields.iter().map(|field| field.name.as_str())));
            }
            return;
        };
        let note = match (field.ty, self.kind) {
            (_, Kind::Set) => return,
            (FieldType::String, _) => {
                "value names a field of type int, float, seconds, milliseconds, microseconds or bytes"
            }
            (FieldType::Bool, Kind::Gauge) if self.op_word() == "set" => return,
            (FieldType::Bool, _) => "when = \"FIELD\" counts the events in which it is true",
            (FieldType::Timestamp, Kind::Gauge) if self.op_word() == "set" => return,
            (FieldType::Timestamp, _) => "a point in time can only set a gauge, to seconds since 1970",
            _ => return,
        };
        let message = format!(
            "\"{}\" is of type {}, not a number that a {} takes",
            field.name,
            type_word(field.ty),
            self.kind_word()
        );
        errors.push(Diagnostic::new(&at.place, message).note(note));
    }

    /// Refuses times as bytes and bytes as times: rounded to the metric's scale they would look like numbers.
    fn unit_of_event(&self, at: &At<String>, event: &Event, errors: &mut Diagnostics) {
        let field = event.spec.fields.iter().find(|field| field.name == at.value);
        let Some(ty) = field.map(|field| field.ty) else { return };
        let is_wrong = match self.unit {
            Unit::Bytes => ty.is_duration(),
            Unit::Seconds => ty == FieldType::Bytes,
            Unit::None | Unit::Other(_) => false,
        };
        if is_wrong && self.kind != Kind::Set && self.table.scale.is_none() {
            let message = format!("\"{}\" is in {}, the metric in {}", at.value, type_word(ty), self.unit.as_str());
            errors.push(Diagnostic::new(&at.place, message).note("unit = \"...\" of the metric says what it counts"));
        }
    }

    fn pair(&self, at: &At<String>, errors: &mut Diagnostics) -> Option<(FeedSource, LabelScope<'_>, bool)> {
        const VALUES: [(&str, PairValue, Kind); 3] = [
            ("open", PairValue::Open, Kind::Gauge),
            ("duration", PairValue::Duration, Kind::Distribution),
            ("expired", PairValue::Expired, Kind::Counter),
        ];
        let Some(pair) = self.scope.pairs.iter().find(|pair| pair.spec.name == at.value) else {
            let d = Diagnostic::new(&at.place, format!("unknown pair \"{}\"", at.value));
            errors.push(d.nearest(&at.value, self.scope.pairs.iter().map(|pair| pair.spec.name.as_str())));
            return None;
        };
        let Some(value) = &self.table.value else {
            let d = Diagnostic::new(&self.at.place, "a pair needs a value");
            errors.push(
                d.note("add value = \"open\" (gauge), \"duration\" (histogram, summary) or \"expired\" (counter)"),
            );
            return None;
        };
        let Some((word, found, kind)) = VALUES.iter().find(|(word, ..)| *word == value.value) else {
            let d = Diagnostic::new(&value.place, format!("a pair has no value \"{}\"", value.value));
            errors.push(d.nearest(&value.value, VALUES.map(|(word, ..)| word)));
            return None;
        };
        if *kind != self.kind {
            let expected = if *kind == Kind::Distribution { "histogram or summary" } else { kind.as_str() };
            let message = format!("\"{word}\" of a pair is a {expected}, not a {}", self.kind_word());
            errors
                .push(Diagnostic::new(&value.place, message).note(format!("set type = \"{}\"", first_word(expected))));
        }
        let start = self.scope.events.iter().find(|event| event.spec.name == pair.spec.start)?;
        let from = FeedSource::Pair { pair: at.value.clone(), value: *found };
        Some((from, LabelScope::Event(start), pair.enabled))
    }

    fn source(&self, at: &At<String>, errors: &mut Diagnostics) -> Option<(FeedSource, LabelScope<'_>, bool)> {
        let Some(source) = self.scope.sources.iter().find(|source| source.name == at.value) else {
            let d = Diagnostic::new(&at.place, format!("unknown source \"{}\"", at.value));
            let known = self.scope.sources.iter().filter(|source| !values_of(&source.kind).is_empty());
            errors.push(
                d.nearest(&at.value, known.map(|source| source.name.as_str()))
                    .note("an include brings no sources: the file that includes it declares them"),
            );
            return None;
        };
        let values = values_of(&source.kind);
        if values.is_empty() {
            let message = format!("source \"{}\" of type {} has no values", at.value, source.kind.as_str());
            errors.push(Diagnostic::new(&at.place, message).note(match source.kind {
                SourceKind::Socket(_) => "name the event that arrives there, from = { event = \"...\" }",
                _ => "sources of types host, process and gpu have",
            }));
            return None;
        }
        let Some(value) = &self.table.value else {
            let d = Diagnostic::new(&self.at.place, format!("source \"{}\" needs a value", at.value));
            errors.push(
                d.note(format!("one of {}", values.iter().map(|value| value.name).collect::<Vec<_>>().join(", "))),
            );
            return None;
        };
        let Some(found) = values.iter().find(|known| known.name == value.value) else {
            let message =
                format!("source \"{}\" of type {} has no value \"{}\"", at.value, source.kind.as_str(), value.value);
            errors.push(
                Diagnostic::new(&value.place, message).nearest(&value.value, values.iter().map(|value| value.name)),
            );
            return None;
        };
        let fits = match found.kind {
            Kind::Counter => self.kind == Kind::Counter,
            _ => matches!(self.kind, Kind::Gauge | Kind::Distribution),
        };
        if !fits {
            let message = format!("\"{}\" is a {}, not a {}", found.name, found.kind.as_str(), self.kind_word());
            errors.push(Diagnostic::new(&value.place, message).note(format!("set type = \"{}\"", found.kind.as_str())));
        }
        let from = FeedSource::Source { source: at.value.clone(), value: value.value.clone() };
        let listed = found.labels.to_vec();
        Some((from, LabelScope::Listed(listed), source.enabled))
    }

    fn statsd(&self, at: &At<String>, errors: &mut Diagnostics) -> Option<(FeedSource, LabelScope<'_>, bool)> {
        if let Some(value) = &self.table.value {
            let d = Diagnostic::new(&value.place, "a feed of StatsD names has no value");
            errors.push(d.note("the value of the line is taken"));
        }
        match captures(&at.value) {
            Ok(captures) => {
                let from = FeedSource::Statsd { pattern: at.value.clone() };
                Some((from, LabelScope::Line(Some(captures)), true))
            }
            Err(message) => {
                let d = Diagnostic::new(&at.place, format!("\"{}\" is not a pattern: {message}", at.value));
                errors.push(d.note("a glob like \"api.*.latency\", where * is one part, or \"/^api\\\\.(.*)$/\""));
                None
            }
        }
    }

    fn expr(&self, at: &At<String>, errors: &mut Diagnostics) -> Option<(FeedSource, LabelScope<'_>, bool)> {
        if self.kind != Kind::Gauge {
            let d = Diagnostic::new(&at.place, format!("an expression cannot feed a {}", self.kind_word()));
            errors.push(d.note("what is recorded is a value at a time: set type = \"gauge\""));
        }
        for (key, place) in [
            ("value", self.table.value.as_ref().map(|at| &at.place)),
            ("op", self.table.op.as_ref().map(|at| &at.place)),
            ("scale", self.table.scale.as_ref().map(|at| &at.place)),
        ] {
            if let Some(place) = place {
                let d = Diagnostic::new(place, format!("an expression has no {key}"));
                errors.push(d.note("write it into the expression"));
            }
        }
        let expression = parse(at, errors)?;
        let labels = expression.labels(&|name| self.names.labels_of(name));
        if labels.is_none() && self.own.is_none() && self.table.labels.is_none() {
            let d = Diagnostic::warning(&at.place, "nobody can tell which labels this expression gives");
            errors.push(d.note("none are taken; labels = [\"...\"] names them, sum by (...) fixes them"));
        }
        let written = self.written_labels();
        if let (Some(labels), Some((written, place))) = (&labels, written)
            && !written.iter().eq(labels)
        {
            let (gives, asked): (Vec<String>, Vec<String>) =
                (labels.iter().cloned().collect(), written.into_iter().collect());
            let d = Diagnostic::new(
                &place,
                format!("the expression gives labels {}, not {}", braces(&gives), braces(&asked)),
            );
            errors.push(d.note("sum by (...) changes what it gives; take labels out to have them as they are"));
        }
        Some((FeedSource::Expr { text: at.value.clone() }, LabelScope::Result(labels), true))
    }

    fn when(&self, what: &str, labels: &LabelScope<'_>, errors: &mut Diagnostics) -> Option<String> {
        let at = self.table.when.as_ref()?;
        let LabelScope::Event(event) = labels else {
            let d = Diagnostic::new(&at.place, format!("a feed of {} has no when", article(what)));
            errors.push(d.note("a condition is about the fields of an event"));
            return None;
        };
        if !event.broken
            && let Err(error) = Condition::parse(&at.value, &event.spec)
        {
            let place = at.place.inside(&at.value, &error.span);
            errors.push(Diagnostic::new(&place, error.message));
        }
        Some(at.value.clone())
    }

    fn op_word(&self) -> &str {
        self.table.op.as_ref().map_or("set", |at| at.value.as_str())
    }

    fn op(&self, errors: &mut Diagnostics) -> GaugeOp {
        let Some(at) = &self.table.op else { return GaugeOp::Set };
        if self.kind != Kind::Gauge {
            let d = Diagnostic::new(&at.place, format!("a {} has no op", self.kind_word()));
            errors.push(d.note("op belongs to gauges: set, add or sub"));
        } else if self.table.event.is_none() {
            let d = Diagnostic::new(&at.place, "op belongs to feeds of an event");
            errors.push(d.note("a collected value, a pair's count and a line set the gauge themselves"));
        }
        match at.value.as_str() {
            "set" => GaugeOp::Set,
            "add" => GaugeOp::Add,
            "sub" => GaugeOp::Sub,
            other => {
                let d = Diagnostic::new(&at.place, format!("unknown op \"{other}\""));
                errors.push(d.nearest(other, ["set", "add", "sub"]));
                GaugeOp::Set
            }
        }
    }

    fn scale(&self, errors: &mut Diagnostics) -> f64 {
        let Some(at) = &self.table.scale else { return 1.0 };
        let counts = self.table.event.is_some() && self.table.value.is_none();
        if self.kind == Kind::Set {
            errors.push(Diagnostic::new(&at.place, "a set has no scale").note("it counts members"));
        } else if !at.value.is_finite() || at.value == 0.0 {
            errors.push(Diagnostic::new(&at.place, format!("scale = {} makes nothing of a value", at.value)));
        } else if counts {
            let d = Diagnostic::new(&at.place, "scale without value");
            errors.push(d.note("each event counts by 1; value = \"FIELD\" adds a field"));
        } else if self.table.statsd.is_some() && !is_power_of_ten(at.value) {
            let d = Diagnostic::new(&at.place, format!("scale = {} of StatsD lines is not a power of ten", at.value));
            errors.push(d.note("from 1e-12 to 1e12; values of a line stay decimal until they are rounded"));
        } else if self.kind == Kind::Counter && at.value < 0.0 {
            errors.push(Diagnostic::new(&at.place, "a counter cannot go down").note("scale is above 0 here"));
        }
        at.value
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

fn article(what: &str) -> String {
    match what {
        "event" | "expr" => format!("an {what}"),
        _ => format!("a {what}"),
    }
}

fn is_power_of_ten(value: f64) -> bool {
    // Parsed and not computed, so that 1e-7 is the number that a file's 1e-7 is.
    (-12..=12).any(|power| format!("1e{power}").parse() == Ok(value))
}

/// The captures of a StatsD pattern: `*` of a glob, groups of a regular expression.
fn captures(pattern: &str) -> Result<usize, String> {
    if pattern.is_empty() {
        return Err("it is empty".into());
    }
    if let Some(inner) = pattern.strip_prefix('/') {
        let Some(regex) = inner.strip_suffix('/') else { return Err("\"/\" without an end".into()) };
        let compiled = regex::Regex::new(regex).map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
        })?;
        return Ok(compiled.captures_len() - 1);
    }
    let mut stars = 0;
    for part in pattern.split('.') {
        if part.is_empty() {
            return Err("it has an empty part between its dots".into());
        }
        if part.contains('*') && part != "*" {
            return Err(format!("\"*\" is a whole part, not one of \"{part}\""));
        }
        stars += usize::from(part == "*");
    }
    Ok(stars)
}
