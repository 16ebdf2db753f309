//! The part of `hydrograph check` that is about events, what they feed, and what is shown of them.
//!
//! In: a plan. Out: text, as `check.rs` says.

use crate::pipeline::plan::{Plan, WidgetLeaf};
use crate::pipeline::value::show_duration;
use crate::rule::typed::{
    Class, DeriveFrom, DeriveSpec, FeedSource, FeedSpec, FieldSpec, FieldType, GaugeOp, PairValue,
};
use std::fmt::{Result, Write};

/// Sections `events` and `pairs`; nothing without any.
pub(super) fn events(out: &mut String, plan: &Plan) -> Result {
    if !plan.typed.events.is_empty() {
        writeln!(out, "\nevents")?;
    }
    for event in &plan.typed.events {
        let fields: Vec<String> = event.fields.iter().map(field).collect();
        let keep = if event.keep == 0 { String::new() } else { format!(" · the newest {} are kept", event.keep) };
        writeln!(out, "  {}{keep}", event.name)?;
        writeln!(out, "    {}", if fields.is_empty() { "no fields".into() } else { fields.join(", ") })?;
        for derived in &event.derived {
            writeln!(out, "    {} = {}", derived.name, derive(derived))?;
        }
    }
    if !plan.typed.pairs.is_empty() {
        writeln!(out, "\npairs")?;
    }
    for pair in &plan.typed.pairs {
        let timeout = show_duration(pair.timeout);
        writeln!(out, "  {}  {} to {} by {} · expires after {timeout}", pair.name, pair.start, pair.end, pair.key)?;
    }
    Ok(())
}

fn field(field: &FieldSpec) -> String {
    let ty = match field.ty {
        FieldType::String => "string",
        FieldType::Bool => "bool",
        FieldType::Int => "int",
        FieldType::Float => "float",
        FieldType::Seconds => "seconds",
        FieldType::Milliseconds => "milliseconds",
        FieldType::Microseconds => "microseconds",
        FieldType::Bytes => "bytes",
        FieldType::Timestamp => "timestamp",
    };
    let optional = if field.optional { "?" } else { "" };
    let path = if field.path == [field.name.clone()] { String::new() } else { format!(" at {}", field.path.join(".")) };
    format!("{} {ty}{optional}{path}", field.name)
}

fn derive(spec: &DeriveSpec) -> String {
    match &spec.from {
        DeriveFrom::Const(text) => format!("{text:?}"),
        DeriveFrom::Field { field, regex, class, map, default, distinct_max, other } => {
            let mut out = field.clone();
            if let Some((regex, replace)) = regex {
                out.push_str(&format!(", {regex:?} by {replace:?}"));
            }
            if *class == Some(Class::Http) {
                out.push_str(", 200 as 2xx");
            }
            if !map.is_empty() {
                let map: Vec<String> = map.iter().map(|(from, to)| format!("{from} as {to:?}")).collect();
                out.push_str(&format!(", {}", map.join(", ")));
            }
            if let Some(text) = default {
                out.push_str(&format!(", {text:?} where it is missing"));
            }
            if let Some(most) = distinct_max {
                out.push_str(&format!(", at most {most} values, then {other:?}"));
            }
            out
        }
    }
}

/// What feeds a metric, each kind once; empty for a metric that is fed by its name.
pub(super) fn feeds_of(plan: &Plan, metric: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for feed in plan.typed.feeds.iter().filter(|feed| feed.metric == metric) {
        let op = match feed.op {
            GaugeOp::Set => "",
            GaugeOp::Add => " +",
            GaugeOp::Sub => " -",
        };
        let part = match &feed.from {
            FeedSource::Event { event, value: Some(value) } => format!("{event}.{value}{op}{}", condition(feed)),
            FeedSource::Event { event, value: None } => format!("{event}{op}{}", condition(feed)),
            FeedSource::Pair { pair, value } => {
                let value = match value {
                    PairValue::Open => "open",
                    PairValue::Duration => "duration",
                    PairValue::Expired => "expired",
                };
                format!("pair {pair}.{value}{}", condition(feed))
            }
            FeedSource::Source { source, value } => format!("{source}.{value}"),
            FeedSource::Statsd { pattern } => format!("statsd {pattern}"),
            FeedSource::Expr { .. } => "expression".into(),
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(", ")
}

fn condition(feed: &FeedSpec) -> String {
    feed.when.as_ref().map(|text| format!(" if {text}")).unwrap_or_default()
}

/// Whether any metric is fed by this source.
pub(super) fn is_named(plan: &Plan, source: &str) -> bool {
    plan.typed
        .feeds
        .iter()
        .any(|feed| matches!(&feed.from, FeedSource::Source { source: named, .. } if named == source))
}

/// Sections `widgets`, `panels`, `rules` and `tests`; nothing where there are none.
pub(super) fn shown(out: &mut String, plan: &Plan) -> Result {
    if !plan.widgets.is_empty() {
        writeln!(out, "\nwidgets")?;
    }
    let width = plan.widgets.iter().map(|widget| widget.name.chars().count()).max().unwrap_or(0);
    for widget in &plan.widgets {
        let leaves: Vec<String> = widget
            .leaves
            .iter()
            .map(|(path, leaf)| {
                let what = match leaf {
                    WidgetLeaf::Value { key: None, .. } => String::new(),
                    WidgetLeaf::Value { key: Some(key), .. } => format!(" by {key}"),
                    WidgetLeaf::Series { key: None, .. } => " (points)".into(),
                    WidgetLeaf::Series { key: Some(key), .. } => format!(" (points by {key})"),
                    WidgetLeaf::Events { events, limit } => format!(" (newest {limit} of {})", events.join(", ")),
                };
                format!("{}{what}", path.join("."))
            })
            .collect();
        writeln!(out, "  {:<width$}  {}", widget.name, leaves.join(", "))?;
    }
    if !plan.panels.is_empty() {
        writeln!(out, "\npanels")?;
    }
    for panel in &plan.panels {
        let row = panel.row.as_ref().map(|row| format!("{row}: ")).unwrap_or_default();
        let count = if panel.exprs.len() == 1 { String::new() } else { format!(" of {}", panel.exprs.len()) };
        writeln!(out, "  {row}{} ({}{count})", panel.title, panel.kind.as_str())?;
    }
    if !plan.rules_files.is_empty() {
        writeln!(out, "\nrules")?;
    }
    for path in &plan.rules_files {
        writeln!(out, "  {}", path.display())?;
    }
    if !plan.tests.is_empty() {
        writeln!(out, "\ntests")?;
    }
    for test in &plan.tests {
        writeln!(out, "  {} ({} inputs, {} expectations)", test.name, test.input.len(), test.expect.len())?;
    }
    Ok(())
}
