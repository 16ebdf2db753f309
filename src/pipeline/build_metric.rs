//! `[metrics.NAME]` as meant: names, types, units, buckets, and that no two of them clash.
//!
//! In: the tables as written and what they inherit. Out: [`DeclaredMetric`]s in the order of the file.
//! Invariant: every name an exposition could write for the result belongs to one metric only (the same claims
//! that rules make at run time), so the declared metrics can always be registered.

use super::build::{digits_of, expose, label_name, nanos, quantiles, window};
use super::build_expr::{Order, warn_unknown};
use super::build_feed::{Feeds, Scope, feeds};
use super::config::MetricEntry;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::forms::BucketsWritten;
use super::names::Names;
use super::plan::DefaultsPlan;
use super::reader::At;
use super::tables::MetricTable;
use crate::event::{Buckets, Expose, Group, Kind, Scale, SliceWidth, Unit};
use crate::query::Expression;
use crate::rule::typed::FeedSpec;
use crate::rule::{
    BucketError, DeclaredMetric, NAME_BYTES_MAX, PRESETS, buckets, claims, default_bounds, default_scale,
    escape_metric_name, is_label_name, is_metric_name, is_reserved_name, preset, unit_of_name, unit_of_word,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What metrics inherit.
pub(super) struct Context<'a> {
    pub(super) slice: SliceWidth,
    pub(super) window_slices: u32,
    pub(super) defaults: &'a DefaultsPlan,
    pub(super) labels: &'a [(String, String)],
    pub(super) idle: i64,
    pub(super) scope: Scope<'a>,
}

const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "set"];

/// Builds all metrics and what feeds them; those switched off are checked and left out, and so are those whose feeds
/// all are. `names` learns them all.
pub(super) fn metrics(
    entries: &[MetricEntry],
    context: &Context<'_>,
    names: &mut Names,
    errors: &mut Diagnostics,
) -> (Vec<DeclaredMetric>, Vec<FeedSpec>) {
    let mut built: Vec<Option<(DeclaredMetric, Feeds)>> = entries.iter().map(|_| None).collect();
    // Recorded expressions last: they may read metrics that the file declares further down, but no recorded ones.
    let (fed, recorded): (Vec<usize>, Vec<usize>) = (0..entries.len()).partition(|at| expr_of(&entries[*at]).is_none());
    for at in fed {
        built[at] = metric(&entries[at], context, names, errors);
    }
    let mut order = Order { later: BTreeMap::new() };
    for at in recorded.iter().map(|at| &entries[*at]) {
        order.later.extend(full_name(at, &mut Diagnostics::new()).map(|(name, _)| (name, at.name.place.line())));
    }
    for at in recorded {
        let entry = &entries[at];
        built[at] = metric(entry, context, names, errors);
        if let (Some((metric, _)), Some(expr)) = (&built[at], expr_of(entry))
            && let Ok(expression) = Expression::parse(&expr.value)
        {
            order.check(expr, &metric.name, &expression, errors);
            order.later.remove(&metric.name);
        }
    }
    for expr in entries.iter().filter_map(expr_of) {
        if let Ok(expression) = Expression::parse(&expr.value) {
            warn_unknown(expr, &expression, names, errors);
        }
    }
    assemble(entries, built, errors)
}

/// The expression of a recorded metric.
fn expr_of(entry: &MetricEntry) -> Option<&At<String>> {
    entry.table.from.as_ref()?.value.iter().find_map(|at| at.value.expr.as_ref())
}

/// Those that are on, in the order of the file, none of which clashes with another.
fn assemble(
    entries: &[MetricEntry],
    built: Vec<Option<(DeclaredMetric, Feeds)>>,
    errors: &mut Diagnostics,
) -> (Vec<DeclaredMetric>, Vec<FeedSpec>) {
    let mut out: Vec<DeclaredMetric> = Vec::new();
    let mut fed: Vec<FeedSpec> = Vec::new();
    let mut claimed: BTreeMap<String, String> = BTreeMap::new();
    for (entry, built) in entries.iter().zip(built) {
        let Some((metric, feeds)) = built else { continue };
        if is_off(entry, &feeds) {
            continue;
        }
        let names = claims(&metric.name, metric.kind, metric.unit, metric.expose);
        if let Some((name, owner)) = names.iter().find_map(|name| claimed.get_key_value(name)) {
            let message = if *owner == metric.name {
                format!("metric \"{}\" is declared twice", metric.name)
            } else {
                format!("metric \"{}\" clashes with \"{owner}\"", metric.name)
            };
            let note = format!("both would be exposed with a family or sample named \"{name}\"");
            errors.push(Diagnostic::new(&entry.name.place, message).note(note));
            continue;
        }
        advise(entry, &metric, errors);
        claimed.extend(names.into_iter().map(|name| (name, metric.name.clone())));
        fed.extend(feeds.feeds.into_iter().map(|feed| FeedSpec { metric: out.len(), ..feed }));
        out.push(metric);
    }
    (out, fed)
}

fn is_off(entry: &MetricEntry, feeds: &Feeds) -> bool {
    feeds.is_off || entry.table.enabled.as_ref().is_some_and(|at| !at.value)
}

/// Warns of what is allowed and seldom meant.
fn advise(entry: &MetricEntry, metric: &DeclaredMetric, errors: &mut Diagnostics) {
    let name = &entry.name;
    if entry.table.help.as_ref().is_none_or(|at| at.value.trim().is_empty()) {
        let d = Diagnostic::warning(&name.place, format!("metric \"{}\" has no help", metric.name));
        errors.push(d.note("add help = \"what it counts, in a sentence\""));
    }
    if metric.kind != Kind::Counter && metric.name.ends_with("_total") {
        let kind = entry.table.r#type.as_ref().map_or(metric.kind.as_str(), |at| at.value.as_str());
        let d = Diagnostic::warning(&name.place, format!("{kind} \"{}\" is named like a counter", metric.name));
        errors
            .push(d.note("it is exposed under exactly this name; dashboards take what ends with _total for a counter"));
    }
}

fn metric(
    entry: &MetricEntry,
    context: &Context<'_>,
    names: &mut Names,
    errors: &mut Diagnostics,
) -> Option<(DeclaredMetric, Feeds)> {
    let table = &entry.table;
    let (name, namespace) = full_name(entry, errors)?;
    let (kind, own_expose) = kind_of(entry, errors)?;
    let distribution = kind == Kind::Distribution;

    let none = Expose { summary: false, histogram: false };
    let mut shown = own_expose.unwrap_or(none);
    if let Some(at) = &table.expose {
        if distribution {
            shown = expose(at, errors).unwrap_or(shown);
        } else {
            only_distributions("expose", &at.place, kind, errors);
        }
    }
    for (key, place) in [
        ("quantiles", table.quantiles.as_ref().map(|at| &at.place)),
        ("digits", table.digits.as_ref().map(|at| &at.place)),
        ("buckets", table.buckets.as_ref().map(|at| &at.place)),
    ] {
        if let (Some(place), false) = (place, distribution) {
            only_distributions(key, place, kind, errors);
        }
    }
    let unit = unit_of(table, &name, errors);
    let scale = scale_of(table, kind, unit, errors);
    let own = table.labels.is_some().then(|| labels_of(table, errors));
    let feeds = feeds(entry, (kind, unit), own.as_deref(), &context.scope, names, errors);
    let labels = feeds.labels.clone().unwrap_or_default();
    if labels.len() + context.labels.len() > crate::event::LABELS_MAX {
        let place = table.labels.as_ref().map_or(&entry.name.place, |at| &at.place);
        let message = format!("{} labels with the constant ones", labels.len() + context.labels.len());
        errors.push(Diagnostic::new(place, message).note(format!("at most {}", crate::event::LABELS_MAX)));
    }
    let inherited = &context.defaults.undeclared;
    let own = table.quantiles.as_ref().and_then(|at| quantiles(at, errors));
    // Labels with constant values name one series, which never expires.
    let idle = (!labels.is_empty()).then(|| nanos(&table.idle, "idle", context.idle, 1_000_000_000..=i64::MAX, errors));
    let metric = DeclaredMetric {
        help: table.help.as_ref().map_or_else(|| name.clone(), |at| at.value.clone()),
        namespace,
        kind,
        unit,
        scale,
        labels,
        expose: shown,
        quantiles: own.unwrap_or_else(|| inherited.quantiles.clone()),
        digits: digits_of(&table.digits, errors).unwrap_or(inherited.digits),
        window_slices: match &table.window {
            Some(_) => window(&table.window, context.slice.nanos(), context.slice, errors),
            None => context.window_slices,
        },
        buckets: buckets_of(table, shown, unit, scale, errors),
        group: group_of(table, errors),
        idle,
        holds: None,
        name,
    };
    names.add(&metric, !is_off(entry, &feeds));
    Some((metric, feeds))
}

fn only_distributions(key: &str, place: &super::diagnostic::Place, kind: Kind, errors: &mut Diagnostics) {
    let d = Diagnostic::new(place, format!("a {} has no {key}", kind.as_str()));
    errors.push(d.note(format!("{key} belongs to types histogram and summary")));
}

fn full_name(entry: &MetricEntry, errors: &mut Diagnostics) -> Option<(String, String)> {
    let namespace = entry.table.namespace.as_ref().or(entry.namespace.as_ref());
    let prefix = namespace.map_or("", |at| at.value.as_str());
    if let Some(at) = namespace
        && !prefix.is_empty()
        && !is_metric_name(prefix)
    {
        let d = Diagnostic::new(&at.place, format!("\"{prefix}\" is not a namespace"));
        errors.push(d.note(format!("letters, digits and \"_\", as in \"{}\"", escape_metric_name(prefix))));
        return None;
    }
    let own = entry.name.value.as_str();
    let name = if prefix.is_empty() { own.to_owned() } else { format!("{prefix}_{own}") };
    if !is_metric_name(&name) || own.is_empty() {
        let d = Diagnostic::new(&entry.name.place, format!("\"{own}\" is not a metric name"));
        let escaped = escape_metric_name(own);
        errors.push(
            d.note(format!("names from the wire are escaped before they are looked up, so declare \"{escaped}\"")),
        );
        return None;
    }
    if name.len() > NAME_BYTES_MAX {
        let message = format!("the name has {} bytes; at most {NAME_BYTES_MAX}", name.len());
        errors.push(Diagnostic::new(&entry.name.place, message));
        return None;
    }
    if is_reserved_name(&name) {
        let d = Diagnostic::new(&entry.name.place, format!("\"{name}\" belongs to the pipeline's own metrics"));
        errors.push(d.note("hydrograph_* and process_* are exposed by the program itself; choose another name"));
        return None;
    }
    Some((name, prefix.to_owned()))
}

fn kind_of(entry: &MetricEntry, errors: &mut Diagnostics) -> Option<(Kind, Option<Expose>)> {
    let Some(at) = &entry.table.r#type else {
        // A type that could not be read was reported by the reader; none at all is reported here, and both
        // read as `None`. Saying both is better than saying neither.
        let d = Diagnostic::new(&entry.name.place, format!("[metrics.{}] has no type", entry.name.value));
        errors.push(d.note(format!("add type = {}", TYPES.map(|t| format!("\"{t}\"")).join(", "))));
        return None;
    };
    match at.value.as_str() {
        "counter" => Some((Kind::Counter, None)),
        "gauge" => Some((Kind::Gauge, None)),
        "set" => Some((Kind::Set, None)),
        "histogram" => Some((Kind::Distribution, Some(Expose { summary: false, histogram: true }))),
        "summary" => Some((Kind::Distribution, Some(Expose { summary: true, histogram: false }))),
        other => {
            let d = Diagnostic::new(&at.place, format!("unknown metric type \"{other}\""));
            errors.push(d.nearest(other, TYPES));
            None
        }
    }
}

fn unit_of(table: &MetricTable, name: &str, errors: &mut Diagnostics) -> Unit {
    match &table.unit {
        None => unit_of_name(name),
        Some(at) if at.value.is_empty() || (is_label_name(&at.value) && at.value.len() <= 64) => {
            unit_of_word(&at.value)
        }
        Some(at) => {
            let d = Diagnostic::new(&at.place, format!("\"{}\" is not a unit", at.value));
            errors.push(d.note("a word that may end a name: \"seconds\", \"bytes\", \"ratio\", \"celsius\""));
            Unit::None
        }
    }
}

fn scale_of(table: &MetricTable, kind: Kind, unit: Unit, errors: &mut Diagnostics) -> Scale {
    let fallback = default_scale(kind, unit);
    let Some(at) = &table.scale else { return fallback };
    if kind == Kind::Set {
        errors.push(Diagnostic::new(&at.place, "a set has no scale").note("it counts members"));
        return fallback;
    }
    let exponent = (0..=Scale::EXPONENT_MAX).find(|e| {
        let power = 10f64.powi(-i32::from(*e));
        (at.value - power).abs() <= power * 1e-9
    });
    exponent.and_then(Scale::from_exponent).unwrap_or_else(|| {
        let d = Diagnostic::new(&at.place, format!("scale = {} is not a power of ten from 1e-12 to 1", at.value));
        errors.push(d.note("sums are counted in whole units of the scale, as in scale = 1e-6"));
        fallback
    })
}

fn labels_of(table: &MetricTable, errors: &mut Diagnostics) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for at in table.labels.iter().flat_map(|at| &at.value) {
        if !label_name(at, errors) {
            continue;
        }
        if labels.contains(&at.value) {
            errors.push(Diagnostic::new(&at.place, format!("label \"{}\" is named twice", at.value)));
            continue;
        }
        labels.push(at.value.clone());
    }
    labels
}

fn buckets_of(
    table: &MetricTable,
    shown: Expose,
    unit: Unit,
    scale: Scale,
    errors: &mut Diagnostics,
) -> Option<Arc<Buckets>> {
    let Some(at) = &table.buckets else {
        let bounds = shown.histogram.then(|| default_bounds(unit))?;
        return match buckets(bounds, scale) {
            Ok(buckets) => Some(Arc::new(buckets)),
            Err(_) => {
                let message = "the default buckets are too fine for this unit and scale";
                errors.push(Diagnostic::new(&table.place, message).note("add buckets = [...]"));
                None
            }
        };
    };
    let (bounds, places): (Vec<f64>, Vec<_>) = match &at.value {
        BucketsWritten::Preset(name) => match preset(name) {
            Some(bounds) => (bounds.to_vec(), Vec::new()),
            None => {
                let d = Diagnostic::new(&at.place, format!("unknown preset \"{name}\" of buckets"));
                errors.push(d.nearest(name, PRESETS.map(|(name, _)| name)));
                return None;
            }
        },
        // The bucket of everything is always there, so `inf` at the end says nothing.
        BucketsWritten::Bounds(bounds) => {
            let infinite = bounds.last().is_some_and(|at| at.value == f64::INFINITY);
            let finite = &bounds[..bounds.len() - usize::from(infinite)];
            finite.iter().map(|At { value, place }| (*value, place)).unzip()
        }
    };
    if !shown.histogram {
        if shown.summary {
            let d = Diagnostic::new(&at.place, "buckets of a metric that is not exposed as a histogram");
            errors.push(d.note("add expose = [\"histogram\", \"summary\"], or take the buckets out"));
        }
        return None;
    }
    match buckets(&bounds, scale) {
        Ok(buckets) => Some(Arc::new(buckets)),
        Err(error) => {
            let index = match error {
                BucketError::Count => None,
                BucketError::NotFinite(n) | BucketError::NotAscending(n) | BucketError::TooFine(n) => Some(n),
            };
            let place = index.and_then(|n| places.get(n).copied()).unwrap_or(&at.place);
            errors.push(Diagnostic::new(place, error.to_string()));
            None
        }
    }
}

fn group_of(table: &MetricTable, errors: &mut Diagnostics) -> Group {
    let Some(at) = &table.group else { return Group::Main };
    let group = at.value.as_str();
    if group == "job" {
        let d = Diagnostic::new(&at.place, "group \"job\" is reserved");
        errors.push(d.note("/metrics/job/... is where push clients send to"));
        return Group::Main;
    }
    if group.is_empty() || group.len() > 64 || !group.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        let d = Diagnostic::new(&at.place, format!("\"{group}\" is not a group"));
        errors.push(d.note("letters, digits, \"_\" and \"-\": it is a part of a path, /metrics/{group}"));
        return Group::Main;
    }
    Group::Named(group.into())
}
