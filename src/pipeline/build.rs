//! From the file as written to the plan as meant: every check that needs no I/O, every default.
//!
//! In: [`Config`]. Out: [`Plan`], and a diagnostic for each thing that is wrong, with the way to put it right.
//! Owns: the defaults of the contract. Invariant: a value that was refused is replaced by its default, so that
//! one mistake makes one error and the rest of the file is still checked.

use super::build_feed::Scope;
use super::config::{Config, PipelineFile};
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::memory::memory_need;
use super::names::Names;
use super::plan::{DefaultsPlan, LimitsPlan, Plan, Quantiles, StorePath, StorePlan, Tier, WINDOW_SLICES_MAX, digits};
use super::reader::At;
use super::tables::{DefaultsTable, LimitsTable, StoreTable};
use super::value::{show_duration, show_size};
use super::written::{Bytes, Nanos, TextMap};
use super::{build_edge, build_expr, build_label, build_metric, build_source, build_typed, build_widgets, holds};
use crate::event::{Expose, LABEL_VALUE_BYTES_MAX, SliceWidth, is_reserved};
use crate::rule::typed::TypedConfig;
use crate::rule::{ExtraLabels, escape_label_name, is_label_name};
use crate::store::{PAIRS_MAX, RESOLUTION_MAX};
use std::cell::RefCell;
use std::path::Path;

const MS: i64 = 1_000_000;
pub(super) const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Most quantiles of a summary: each is a line of every series in every scrape.
pub(super) const QUANTILES_MAX: usize = 32;

/// Pages that redb keeps: enough for the tables' upper levels and the rows of a tick.
const CACHE_BYTES: usize = 32 << 20;
/// The same where the rows are in memory anyway.
const CACHE_BYTES_MEMORY: usize = 8 << 20;

/// Builds the plan of a config.
pub(super) fn plan(config: &Config, errors: &mut Diagnostics) -> Option<Plan> {
    let top = &config.top;
    let name = pipeline_name(config, &config.files, errors);
    let slice = nanos(&top.slice, "slice", 10 * SECOND, SECOND..=DAY, errors);
    let slice = SliceWidth::from_nanos(slice)?;
    let window_slices = window(&top.window, 5 * MINUTE, slice, errors);
    let lateness = nanos(&top.lateness, "lateness", 30 * SECOND, 0..=30 * DAY, errors);
    let accept_late = nanos(&top.accept_late, "accept_late", HOUR, 0..=i64::MAX, errors);
    if accept_late < lateness
        && let Some(at) = top.accept_late.as_ref().or(top.lateness.as_ref())
    {
        let (late, accept) = (show_duration(lateness), show_duration(accept_late));
        let message = format!("accept_late ({accept}) is shorter than lateness ({late})");
        errors.push(Diagnostic::new(&at.place, message).note(format!("set accept_late to at least \"{late}\"")));
    }
    let labels = constant_labels(&top.labels, errors);
    let defaults = defaults(&config.defaults, window_slices, &config.limits, errors);
    let store = store(&config.store, &name, slice, errors);
    let limits = limits(&config.limits, &store, errors);
    let sources = build_source::sources(config, errors);
    let events = build_typed::events(config, errors);
    build_source::check_events(config, &events, errors);
    let pairs = build_typed::pairs(config, &events, errors);
    let scope = Scope {
        events: &events,
        pairs: &pairs,
        sources: &sources,
        unbounded: RefCell::default(),
        pair_feeds: RefCell::default(),
    };
    let context =
        build_metric::Context { slice, window_slices, defaults: &defaults, labels: &labels, idle: limits.idle, scope };
    let mut names = Names::of_the_program(&sources, config.events.is_empty());
    let (metrics, feeds) = build_metric::metrics(&config.metrics, &context, &mut names, errors);
    build_label::warn_unbounded(&context.scope.unbounded.borrow(), errors);
    build_expr::check(config, &names, errors);
    let shown = build_widgets::Shown::build(config, &events, errors);
    let mut plan = Plan {
        typed: TypedConfig {
            // Whoever declares no event at all wants to see which come in, and refuses none.
            count_unknown: config.events.is_empty(),
            events: events.into_iter().filter(|event| event.enabled).map(|event| event.spec).collect(),
            pairs: pairs.into_iter().filter(|pair| pair.enabled).map(|pair| pair.spec).collect(),
            feeds,
        },
        widgets: shown.widgets,
        panels: shown.panels,
        rules_files: shown.rules_files,
        tests: shown.tests,
        warnings: Diagnostics::new(),
        accept: Vec::new(),
        name,
        slice,
        window_slices,
        lateness,
        accept_late,
        max_future: nanos(&top.max_future, "max_future", 10 * MINUTE, 0..=365 * DAY, errors),
        idle_source: nanos(&top.idle_source, "idle_source", 30 * SECOND, MS..=365 * DAY, errors),
        hold_max: nanos(&top.hold_max, "hold_max", 10 * MINUTE, 0..=365 * DAY, errors),
        labels,
        defaults,
        store,
        limits,
        http: build_edge::http(&config.http, &config.files, errors),
        sources,
        metrics,
        built_in: false,
    };
    holds::fill(&mut plan);
    check_memory(&plan, config, errors);
    Some(plan)
}

/// A duration within limits, or its default.
pub(super) fn nanos(
    at: &Option<At<Nanos>>,
    key: &str,
    default: i64,
    allowed: std::ops::RangeInclusive<i64>,
    errors: &mut Diagnostics,
) -> i64 {
    let Some(at) = at else { return default };
    if allowed.contains(&at.value.0) {
        return at.value.0;
    }
    let from = show_duration(*allowed.start());
    let range = match *allowed.end() {
        i64::MAX => format!("at least {from}"),
        end => format!("{from} to {}", show_duration(end)),
    };
    let message = format!("{key} = \"{}\" is out of range", show_duration(at.value.0));
    errors.push(Diagnostic::new(&at.place, message).note(format!("{key} is {range}")));
    default
}

/// A window in slices. The default shrinks or grows to a multiple of the slice.
pub(super) fn window(at: &Option<At<Nanos>>, default: i64, slice: SliceWidth, errors: &mut Diagnostics) -> u32 {
    let width = slice.nanos();
    let fallback = (default / width).clamp(1, i64::from(WINDOW_SLICES_MAX)) as u32;
    let Some(at) = at else { return fallback };
    let nanos = at.value.0;
    let slices = nanos / width;
    if nanos % width != 0 || slices == 0 {
        let (window, slice) = (show_duration(nanos), show_duration(width));
        let near = show_duration(width.saturating_mul(slices.saturating_add(1)));
        let message = format!("window = \"{window}\" is not a multiple of slice = \"{slice}\"");
        errors.push(Diagnostic::new(&at.place, message).note(format!("the next multiple is \"{near}\"")));
        return fallback;
    }
    if slices > i64::from(WINDOW_SLICES_MAX) {
        let message = format!("a window of {slices} slices is too long");
        let most = show_duration(width.saturating_mul(i64::from(WINDOW_SLICES_MAX)));
        errors.push(Diagnostic::new(&at.place, message).note(format!(
            "at most {WINDOW_SLICES_MAX} slices, \"{most}\" with this slice; a wider slice allows a longer window"
        )));
        return fallback;
    }
    slices as u32
}

fn pipeline_name(config: &Config, files: &[PipelineFile], errors: &mut Diagnostics) -> String {
    let valid = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !name.starts_with('.')
    };
    if let Some(at) = &config.top.name {
        if valid(&at.value) {
            return at.value.clone();
        }
        errors.push(
            Diagnostic::new(&at.place, format!("\"{}\" is not a pipeline name", at.value))
                .note("a name has 1 to 64 letters, digits, \"_\", \"-\" and \".\", and names the store's file"),
        );
    }
    let stem = files.first().and_then(|file| Path::new(&file.name).file_stem()).and_then(|stem| stem.to_str());
    stem.filter(|stem| valid(stem)).unwrap_or("hydrograph").to_owned()
}

/// Labels with fixed values, sorted; an empty value is no label.
pub(super) fn constant_labels(at: &Option<At<TextMap>>, errors: &mut Diagnostics) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for (key, value) in at.iter().flat_map(|at| &at.value.0) {
        let fits = label_name(key, errors);
        if value.len() > LABEL_VALUE_BYTES_MAX {
            let message = format!("the value of label \"{}\" has more than {LABEL_VALUE_BYTES_MAX} bytes", key.value);
            errors.push(Diagnostic::new(&key.place, message));
        } else if fits && !value.is_empty() {
            labels.push((key.value.clone(), value.clone()));
        }
    }
    labels.sort();
    labels.dedup_by(|a, b| a.0 == b.0);
    labels
}

/// Whether a label name is valid and free; says so if not.
pub(super) fn label_name(key: &At<String>, errors: &mut Diagnostics) -> bool {
    let name = key.value.as_str();
    if is_reserved(name) {
        let message = format!("label \"{name}\" is reserved");
        errors.push(Diagnostic::new(&key.place, message).note("le, quantile, overflow and __* belong to the formats"));
        return false;
    }
    if !is_label_name(name) || name.len() > crate::event::LABEL_KEY_BYTES_MAX {
        let escaped = escape_label_name(name);
        let d = Diagnostic::new(&key.place, format!("\"{name}\" is not a label name"));
        errors.push(d.note(format!("letters, digits and \"_\"; tags are escaped, so write \"{escaped}\"")));
        return false;
    }
    true
}

fn defaults(table: &DefaultsTable, window_slices: u32, limits: &LimitsTable, errors: &mut Diagnostics) -> DefaultsPlan {
    let mut plan = DefaultsPlan::default();
    if let Some(at) = &table.expose {
        plan.undeclared.expose = expose(at, errors).unwrap_or(plan.undeclared.expose);
    }
    if let Some(at) = &table.quantiles {
        plan.undeclared.quantiles = quantiles(at, errors).unwrap_or(plan.undeclared.quantiles);
    }
    plan.undeclared.digits = digits_of(&table.digits, errors).unwrap_or(plan.undeclared.digits);
    plan.undeclared.window_slices = window_slices;
    plan.undeclared.idle = limits.idle.as_ref().map(|at| at.value.0).filter(|n| *n > 0).or(plan.undeclared.idle);
    if let Some(at) = &table.suffixes {
        plan.undeclared.suffixes = at.value;
    }
    if let Some(at) = &table.extra_labels {
        let words = ["drop", "keep", "error"];
        plan.extra_labels = match at.value.as_str() {
            "drop" => ExtraLabels::Drop,
            "keep" => ExtraLabels::Keep,
            "error" => ExtraLabels::Error,
            other => {
                let message = format!("unknown extra_labels \"{other}\"");
                errors.push(Diagnostic::new(&at.place, message).nearest(other, words));
                plan.extra_labels
            }
        };
    }
    plan
}

pub(super) fn digits_of(at: &Option<At<u64>>, errors: &mut Diagnostics) -> Option<crate::sketch::Digits> {
    let at = at.as_ref()?;
    let found = digits(at.value);
    if found.is_none() {
        let message = format!("digits = {} is out of range", at.value);
        errors.push(Diagnostic::new(&at.place, message).note("digits is 1 (±10 %), 2 (±1 %) or 3 (±0.1 %)"));
    }
    found
}

pub(super) fn expose(at: &At<Vec<At<String>>>, errors: &mut Diagnostics) -> Option<Expose> {
    let mut expose = Expose { summary: false, histogram: false };
    for word in &at.value {
        match word.value.as_str() {
            "summary" => expose.summary = true,
            "histogram" => expose.histogram = true,
            other => {
                let d = Diagnostic::new(&word.place, format!("unknown form \"{other}\" in expose"));
                errors.push(d.nearest(other, ["summary", "histogram"]));
                return None;
            }
        }
    }
    if !expose.summary && !expose.histogram {
        let d = Diagnostic::new(&at.place, "expose is empty");
        errors.push(d.note("write \"summary\", \"histogram\" or both; enabled = false takes a metric out"));
        return None;
    }
    Some(expose)
}

pub(super) fn quantiles(at: &At<Vec<At<f64>>>, errors: &mut Diagnostics) -> Option<Quantiles> {
    for q in &at.value {
        if !(0.0..=1.0).contains(&q.value) {
            let d = Diagnostic::new(&q.place, format!("quantile {} is outside 0 to 1", q.value));
            errors.push(if (1.0..=100.0).contains(&q.value) {
                d.note(format!("write {} for the {}th percentile", q.value / 100.0, q.value))
            } else {
                d
            });
            return None;
        }
    }
    if at.value.len() > QUANTILES_MAX {
        errors.push(Diagnostic::new(&at.place, format!("a summary has at most {QUANTILES_MAX} quantiles")));
        return None;
    }
    // -0.0 would read as a quantile of its own.
    let mut sorted: Vec<f64> = at.value.iter().map(|q| q.value + 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    Some(sorted.into())
}

fn store(table: &StoreTable, name: &str, slice: SliceWidth, errors: &mut Diagnostics) -> StorePlan {
    let path = match table.path.as_ref().map(|at| at.value.as_str()) {
        None => StorePath::File(format!("{name}.redb").into()),
        Some(":memory:") => StorePath::Memory,
        Some("") => {
            let place = &table.path.as_ref().map_or_else(|| table.place.clone(), |at| at.place.clone());
            errors.push(Diagnostic::new(place, "the store's path is empty").note("a file, or \":memory:\""));
            StorePath::Memory
        }
        Some(path) => StorePath::File(path.into()),
    };
    let memory = path == StorePath::Memory;
    let mut max_size = if memory { 256 << 20 } else { 10 << 30 };
    if let Some(At { value: Bytes(bytes), place }) = &table.max_size {
        max_size = *bytes;
        if max_size < 16 << 20 {
            let message = format!("max_size = \"{}\" is too small", show_size(max_size));
            errors.push(Diagnostic::new(place, message).note("at least 16MiB, what a store allocates at once"));
        }
    }
    StorePlan {
        path,
        commit_every: nanos(&table.commit_every, "commit_every", SECOND, 10 * MS..=MINUTE, errors),
        tiers: tiers(table, memory, slice.nanos(), errors),
        max_size,
        cache: if memory { CACHE_BYTES_MEMORY } else { CACHE_BYTES },
    }
}

fn tiers(table: &StoreTable, memory: bool, slice: i64, errors: &mut Diagnostics) -> Vec<Tier> {
    let fallback = || {
        if memory {
            return vec![Tier { resolution: slice, keep: HOUR.max(slice) }];
        }
        let coarser = [(MINUTE, 15 * DAY), (HOUR, 730 * DAY)];
        let mut tiers = vec![Tier { resolution: slice, keep: DAY }];
        for (resolution, keep) in coarser {
            let last = tiers[tiers.len() - 1].resolution;
            if resolution > last && resolution % last == 0 {
                tiers.push(Tier { resolution, keep });
            }
        }
        tiers
    };
    let Some(written) = &table.retention else { return fallback() };
    let mut tiers: Vec<Tier> = Vec::new();
    for tier in &written.value {
        let Some(keep) = &tier.value.keep else {
            errors.push(Diagnostic::new(&tier.place, "a tier without keep").note("add keep = \"24h\""));
            return fallback();
        };
        let resolution = tier.value.resolution.as_ref().map_or(slice, |at| at.value.0);
        let place: &Place = tier.value.resolution.as_ref().map_or(&tier.place, |at| &at.place);
        let last = tiers.last().copied();
        let wrong = match last {
            None if resolution != slice => {
                Some(format!("the first tier has the resolution of the slice, \"{}\"", show_duration(slice)))
            }
            Some(last) if resolution <= last.resolution || resolution % last.resolution != 0 => Some(format!(
                "a tier's resolution is a multiple of the one before, \"{}\"",
                show_duration(last.resolution)
            )),
            _ => None,
        };
        let slots = i64::from(RESOLUTION_MAX);
        let wrong = wrong.or_else(|| {
            let most = show_duration(slice.saturating_mul(slots));
            (resolution / slice > slots).then(|| format!("at most {slots} slices, \"{most}\""))
        });
        if let Some(note) = wrong {
            let message = format!("resolution = \"{}\" does not fit", show_duration(resolution));
            errors.push(Diagnostic::new(place, message).note(note));
            return fallback();
        }
        let least = last.map_or(resolution, |last| last.keep.max(resolution));
        if keep.value.0 < least {
            let message = format!("keep = \"{}\" is too short", show_duration(keep.value.0));
            let note =
                format!("at least \"{}\": the tier's resolution and what the tier before keeps", show_duration(least));
            errors.push(Diagnostic::new(&keep.place, message).note(note));
            return fallback();
        }
        tiers.push(Tier { resolution, keep: keep.value.0 });
    }
    if tiers.is_empty() {
        errors.push(Diagnostic::new(&written.place, "retention is empty").note("write retention = \"24h\""));
        return fallback();
    }
    tiers
}

/// What the computed need may reach unless the file says so, beside a store that is in memory itself.
const MEMORY_BYTES: u64 = 2 << 30;

fn limits(table: &LimitsTable, store: &StorePlan, errors: &mut Diagnostics) -> LimitsPlan {
    /// Ids are u32, and the fixed memory of more series than this passes 80 GB.
    const SERIES_MAX: u64 = 100_000_000;
    let mut count = |at: &Option<At<u64>>, key: &str, default: u64, max: u64| match at {
        Some(at) if at.value == 0 || at.value > max => {
            let message = format!("limits.{key} = {} is out of range", at.value);
            errors.push(Diagnostic::new(&at.place, message).note(format!("{key} is 1 to {max}")));
            default
        }
        Some(at) => at.value,
        None => default,
    };
    let series = count(&table.series, "series", 1_000_000, SERIES_MAX);
    let series_per_metric = count(&table.series_per_metric, "series_per_metric", 100_000, SERIES_MAX).min(series);
    let stored_series = count(&table.stored_series, "stored_series", series * 4, u64::from(u32::MAX));
    let cells = count(&table.cells, "cells", 50_000_000, 1 << 40);
    let pairs = count(&table.pairs, "pairs", PAIRS_MAX as u64, SERIES_MAX);
    if stored_series < series
        && let Some(at) = &table.stored_series
    {
        let message = format!("limits.stored_series ({stored_series}) is below limits.series ({series})");
        errors.push(
            Diagnostic::new(&at.place, message).note("every live series is stored; the default is 4 times as many"),
        );
    }
    let in_memory = if store.path == StorePath::Memory { store.max_size } else { 0 };
    let mut size = |at: &Option<At<Bytes>>, key: &str, default: u64| match at {
        Some(at) if at.value.0 < 1 << 20 => {
            let message = format!("limits.{key} = \"{}\" is too small", show_size(at.value.0));
            errors.push(Diagnostic::new(&at.place, message).note("at least 1MiB"));
            default
        }
        Some(at) => at.value.0,
        None => default,
    };
    LimitsPlan {
        series: series as u32,
        series_per_metric: series_per_metric as u32,
        stored_series: stored_series as u32,
        cells,
        pairs: pairs as u32,
        pending: size(&table.pending, "pending", 256 << 20),
        memory: size(&table.memory, "memory", MEMORY_BYTES + in_memory),
        idle: nanos(&table.idle, "limits.idle", DAY, SECOND..=i64::MAX, errors),
    }
}

fn check_memory(plan: &Plan, config: &Config, errors: &mut Diagnostics) {
    let need = memory_need(plan);
    if need.total() <= plan.limits.memory {
        return;
    }
    let place = config.limits.memory.as_ref().map_or(&config.limits.place, |at| &at.place);
    let message = format!(
        "the pipeline may need {} MiB of memory, above limits.memory = {}",
        need.total().div_ceil(1 << 20),
        show_size(plan.limits.memory)
    );
    let mut diagnostic = Diagnostic::new(place, message);
    for (name, bytes, how) in &need.parts {
        diagnostic = diagnostic.note(format!("{name}: {} MiB ({how})", bytes.div_ceil(1 << 20)));
    }
    errors.push(
        diagnostic.note("raise limits.memory, or lower limits.series, limits.cells, limits.pairs or limits.pending"),
    );
}
