//! The running pipeline as the routes see it.
//!
//! In: a [`Pipeline`]. Out: a [`Backend`]. Owns: what was seen last of each source,
//! for rates. Invariant: nothing here decides anything; it only says what is.

use super::doors::Doors;
use super::tap::Feed;
use super::wording::{client_hint, culprit, fields_of, unheard};
use super::{
    Accepted, Backend, Component, ComponentState, EventsError, EventsTaken, Format, Health, HealthStatus, IndexData,
    Laws, LineOutcome, LinesTaken, ListenerInfo, NoScrape, Quantile, RecentItem, RecentKind, Refusal, Refused,
    RefusedEvent, ResetRefused, ScrapeBody, ScrapeRequest, SeriesInfo, SourceInfo, StoreInfo, TapFeed, Unavailable,
    UnknownGroup,
};
use crate::delta::SourceTally;
use crate::event::{DropReason, Group, Kind, Metric, RejectReason, WireType};
use crate::pipeline::export::{ExportRequest, Take};
use crate::pipeline::queries::{Answer, Question, Unanswered};
use crate::pipeline::tap::{TapError, TapRequest};
use crate::pipeline::upkeep::{StoreCheck, StoreStats};
use crate::pipeline::{EventsRefused, Pipeline, Report, ResetError, WidgetError, as_number, series_name};
use crate::rule::{escape_metric_name, is_reserved_name};
use crate::shard;
use crate::sink::scrape;
use crate::store::KeptRow;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A rate is taken over at least this long.
const RATE_NANOS_MIN: i64 = 2_000_000_000;
/// Metrics past their limit that `/health` names; the others are counted.
const WORST: usize = 10;
/// Series and rejects on the index page.
const NEWEST: usize = 20;

/// What was read of the sources some seconds ago.
#[derive(Default)]
struct Seen {
    at: i64,
    inputs: Vec<u64>,
    rates: Vec<f64>,
}

/// A pipeline behind routes.
pub struct Front {
    pipeline: Pipeline,
    doors: Arc<Doors>,
    seen: Mutex<Seen>,
}

impl Front {
    /// The front of a pipeline that is served at these doors.
    pub(super) fn new(pipeline: Pipeline, doors: Arc<Doors>) -> Front {
        Front { pipeline, doors, seen: Mutex::default() }
    }

    /// Waits for a commit, unless the store is known not to make any.
    fn commits(&self) -> bool {
        self.pipeline.status().is_up && self.pipeline.flush().is_ok()
    }

    /// Inputs a second of each source, over the last few seconds.
    fn rates(&self, tallies: &[(String, SourceTally)]) -> Vec<f64> {
        let now = self.pipeline.clock().monotonic();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs: Vec<u64> = tallies.iter().map(|(_, tally)| tally.inputs).collect();
        if seen.inputs.len() != inputs.len() {
            let uptime = (self.pipeline.clock().wall().0 - self.pipeline.started_at().0).max(1);
            let rates = inputs.iter().map(|count| *count as f64 / (uptime as f64 / 1e9)).collect();
            *seen = Seen { at: now, inputs, rates };
        } else if now - seen.at >= RATE_NANOS_MIN {
            let seconds = (now - seen.at) as f64 / 1e9;
            let rates =
                inputs.iter().zip(&seen.inputs).map(|(new, old)| new.saturating_sub(*old) as f64 / seconds).collect();
            *seen = Seen { at: now, inputs, rates };
        }
        seen.rates.clone()
    }

    /// Refused input.
    fn rejects(&self) -> Vec<RecentItem> {
        let rejects = self.pipeline.recent_rejects().newest(usize::MAX);
        let item = |reject: shard::Reject| RecentItem {
            time: reject.time,
            source: self.source(reject.source),
            reason: reject.reason.as_str().to_owned(),
            hint: match reject.detail.is_empty() {
                true => hint_of(&self.pipeline, reject.reason, &reject.text),
                false => reject.detail,
            },
            text: reject.text,
            notice: None,
        };
        rejects.into_iter().map(item).collect()
    }

    /// DogStatsD events, with service checks or without.
    fn notices(&self, with_checks: bool) -> Vec<RecentItem> {
        let recent = self.pipeline.recent_rejects().notices();
        let mut notices = recent.events();
        if with_checks {
            notices.extend(recent.checks());
            notices.sort_by_key(|notice| std::cmp::Reverse(notice.arrival));
        }
        let item = |notice: shard::Notice| RecentItem {
            time: notice.time.unwrap_or(notice.arrival),
            source: self.source(notice.source),
            notice: Some(fields_of(&notice)),
            text: notice.text,
            ..RecentItem::default()
        };
        notices.into_iter().map(item).collect()
    }

    fn source(&self, index: crate::event::SourceIndex) -> String {
        self.pipeline.source_names().get(usize::from(index.0)).cloned().unwrap_or_default()
    }

    /// Whole events of schemas with `keep`.
    fn kept_events(&self, event: Option<&str>, limit: usize) -> Vec<RecentItem> {
        let item = |kept: KeptRow| RecentItem {
            time: kept.time,
            source: kept.source.to_string(),
            reason: String::new(),
            hint: if kept.is_cut { "longer than what is kept of an event" } else { "" }.to_owned(),
            text: String::from_utf8_lossy(&kept.text).into_owned(),
            notice: None,
        };
        self.pipeline.kept_events(event, limit).into_iter().map(item).collect()
    }

    fn accepted(
        &self,
        line: String,
        metric: &crate::event::Metric,
        slot: Option<crate::event::Slot>,
        samples: u32,
    ) -> Accepted {
        let view = self.pipeline.view();
        let (labels, id) = {
            let table = view.table().lock();
            let entry = slot.and_then(|slot| table.get(metric.kind, slot));
            entry.map_or((crate::event::Labels::empty(), None), |entry| (entry.labels.clone(), entry.id))
        };
        let value = id.and_then(|id| view.value(metric, id));
        let mut accepted = Accepted {
            line,
            series: series_name(&metric.name, &labels),
            kind: shown_type(metric).to_owned(),
            samples: u64::from(samples),
            ..Accepted::default()
        };
        if metric.kind == Kind::Distribution {
            if let Some(stats) = id.and_then(|id| view.stats(metric, id, &[0.5])) {
                accepted.samples = stats.window_samples;
                accepted.quantile =
                    stats.quantiles.first().map(|q| Quantile { q: q.q, value: q.value, bound: q.bound });
            }
        } else {
            accepted.value = value.as_ref().map(as_number).filter(|value| value.is_finite());
        }
        if let Some(received) = metric.help.strip_prefix("timing received as ") {
            accepted.note = format!("{received} in ms");
        }
        accepted
    }
}

/// Says which part of a line was wrong where that can be seen.
pub(super) fn hint_of(pipeline: &Pipeline, reason: RejectReason, text: &str) -> String {
    let split = text.split_once(':').and_then(|(name, rest)| Some((name, rest.split_once('|')?)));
    match (reason, split) {
        (RejectReason::BadValue, Some((_, (values, rest)))) if wire_of(rest) == Some(WireType::Set) => {
            format!("\"{values}\" is no member: those of a set are not empty")
        }
        (RejectReason::BadValue, Some((_, (values, _)))) => {
            let bad = values.split(':').find(|value| value.trim().parse::<f64>().is_err()).unwrap_or(values);
            format!("\"{bad}\" is {}", reason.hint())
        }
        (RejectReason::TypeConflict, Some((name, (_, rest)))) => {
            match wire_of(rest).and_then(|wire| pipeline.conflicting(name, wire)) {
                Some(taken) => format!("{} is a {} already: one name, one type", taken.name, shown_type(&taken)),
                None if is_reserved_name(&escape_metric_name(name)) => {
                    format!("{name} is a name of the program's own, like hydrograph_* and process_*")
                }
                None => reason.hint().to_owned(),
            }
        }
        (RejectReason::LabelMismatch, Some((name, (_, rest)))) => {
            let labels = wire_of(rest).and_then(|wire| pipeline.labels_hint(name, wire));
            labels.unwrap_or_else(|| reason.hint().to_owned())
        }
        _ => reason.hint().to_owned(),
    }
}

/// The exposed type.
fn shown_type(metric: &crate::event::Metric) -> &'static str {
    match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Set => "gauge",
        Kind::Distribution if metric.expose.histogram => "histogram",
        Kind::Distribution => "summary",
    }
}

/// The laws as they read for this sum of tallies.
pub fn laws_of(sum: &SourceTally) -> Laws {
    let rejected = RejectReason::ALL
        .iter()
        .filter(|reason| sum.rejected[**reason as usize] > 0)
        .map(|reason| (reason.as_str().to_owned(), sum.rejected[*reason as usize]))
        .collect();
    let by_reason = |reason: &DropReason| sum.dropped.iter().map(|edge| edge[*reason as usize]).sum::<u64>();
    let dropped = DropReason::ALL
        .iter()
        .filter(|reason| by_reason(reason) > 0)
        .map(|reason| (reason.as_str().to_owned(), by_reason(reason)))
        .collect();
    let (samples, committed) = (sum.samples_total(), sum.recorded_total());
    Laws {
        inputs: sum.inputs,
        events: sum.events,
        rejected,
        samples,
        committed,
        dropped,
        // Tallies are committed with their samples, so nothing they count is in flight.
        in_flight: 0,
    }
}

impl Backend for Front {
    fn scrape(&self, asked: &ScrapeRequest) -> Result<ScrapeBody, NoScrape> {
        let request = scrape::ScrapeRequest {
            format: match asked.format {
                Format::Text => scrape::ScrapeFormat::Text,
                Format::OpenMetrics => scrape::ScrapeFormat::OpenMetrics,
                Format::Protobuf => scrape::ScrapeFormat::Protobuf,
                Format::Json => scrape::ScrapeFormat::MetricsJson,
                Format::ApiJson => scrape::ScrapeFormat::ApiJson,
                Format::Csv => scrape::ScrapeFormat::Csv,
                Format::Influx => scrape::ScrapeFormat::Influx,
                Format::Ndjson => scrape::ScrapeFormat::Ndjson,
            },
            group: asked.group.clone(),
            names: asked.names.clone(),
            gzip: asked.gzip,
        };
        let body = match asked.selectors.is_empty() {
            true => self.pipeline.scrape(&request),
            false => {
                let chosen = scrape::Chosen::new(&asked.selectors).map_err(NoScrape::Selector)?;
                self.pipeline.scrape_chosen(&request, &chosen)
            }
        };
        let body = body.map_err(|error| match error {
            scrape::ScrapeError::UnknownGroup(error) => NoScrape::UnknownGroup(UnknownGroup { known: error.known }),
            scrape::ScrapeError::NoRoom { .. } => NoScrape::NoRoom(error.to_string()),
        })?;
        Ok(ScrapeBody { content_type: body.content_type, pieces: body.pieces, gzip: body.gzip })
    }

    fn health(&self) -> Health {
        let status = self.pipeline.status();
        let mut components = Vec::new();
        let mut component = |name: String, state, reason: String| components.push(Component { name, state, reason });
        let store = if status.is_up { ComponentState::Ok } else { ComponentState::Down };
        component("store".into(), store, status.error.clone().unwrap_or_default());
        if !status.has_room {
            component("pending".into(), ComponentState::Down, "limits.pending is reached: samples are dropped".into());
        }
        for listener in self.pipeline.listeners() {
            let state = if listener.skipped.is_some() { ComponentState::Degraded } else { ComponentState::Ok };
            let name = format!("source {} {}", listener.source, listener.asked);
            component(name, state, listener.skipped.clone().unwrap_or_default());
        }
        let overflows = self.pipeline.overflows(WORST);
        for overflow in overflows.worst {
            let reason = format!("{} resolutions past the limit of series{}", overflow.count, culprit(&overflow));
            component(format!("metric {}", overflow.metric), ComponentState::Degraded, reason);
        }
        if overflows.others > 0 {
            let reason = format!("{} more met a limit of series", overflows.others);
            component("metrics".into(), ComponentState::Degraded, reason);
        }
        if let Some(full) = self.pipeline.names_full() {
            let reason = format!(
                "{} names, the most there may be, so a new one is refused; {} of them begin with `{}`: what varies belongs \
                 into a tag",
                full.names, full.with_prefix, full.prefix
            );
            component("names".into(), ComponentState::Degraded, reason);
        }
        if let Some(failure) = self.pipeline.failure() {
            component("actor".into(), ComponentState::Down, failure);
        }
        let worst = |wanted| components.iter().any(|component| component.state == wanted);
        let status = if worst(ComponentState::Down) {
            HealthStatus::Down
        } else if worst(ComponentState::Degraded) {
            HealthStatus::Degraded
        } else {
            HealthStatus::Ok
        };
        Health { status, components }
    }

    fn is_ready(&self) -> bool {
        self.pipeline.status().is_up
    }

    fn recent(&self, kind: RecentKind, name: Option<&str>, limit: usize) -> Vec<RecentItem> {
        let mut items = match kind {
            RecentKind::Rejects => self.rejects(),
            RecentKind::Events => {
                // Whole events of schemas with `keep`, and events of DogStatsD: one list, newest first.
                let mut items = self.kept_events(name, limit);
                let notices = self.notices(false).into_iter();
                items.extend(notices.filter(|item| name.is_none_or(|name| is_named(item, name))));
                items.sort_by_key(|item| std::cmp::Reverse(item.time));
                items.truncate(limit);
                return items;
            }
            RecentKind::Checks => self.notices(true),
        };
        if let Some(name) = name {
            items.retain(|item| is_named(item, name));
        }
        items.truncate(limit);
        items
    }

    fn lines(&self, body: Vec<u8>, wait: bool) -> Result<LinesTaken, Unavailable> {
        let status = self.pipeline.status();
        if !status.has_room {
            return Err(Unavailable("the store does not commit and limits.pending is reached".into()));
        }
        let sent = body.clone();
        let outcomes = self.pipeline.lines(body).map_err(|gone| Unavailable(gone.to_string()))?;
        // From here on they are taken: nothing may say that they should be sent again.
        let Some(outcomes) = outcomes else {
            return Ok(LinesTaken { outcomes: unheard(&sent), awaits_commit: true });
        };
        let awaits_commit = wait && !self.commits();
        let wait = wait && !awaits_commit;
        let outcomes = outcomes
            .into_iter()
            .map(|(line, outcome)| match outcome {
                shard::LineOutcome::Refused(reason, detail) => {
                    let hint = if detail.is_empty() { hint_of(&self.pipeline, reason, &line) } else { detail };
                    LineOutcome::Refused(Refused { hint, reason: reason.as_str().into(), line })
                }
                shard::LineOutcome::Accepted { dropped: Some(reason), .. } => {
                    LineOutcome::Refused(Refused { line, reason: reason.as_str().into(), hint: reason.hint().into() })
                }
                shard::LineOutcome::Accepted { metric, slot, samples, .. } => {
                    let mut accepted = self.accepted(line, &metric, slot, samples);
                    if !wait {
                        // The view does not hold this line yet: an older value would be taken for its own.
                        accepted = Accepted { samples: samples.into(), value: None, quantile: None, ..accepted };
                    }
                    LineOutcome::Accepted(Accepted { committed: awaits_commit.then_some(false), ..accepted })
                }
                shard::LineOutcome::Notice => LineOutcome::Accepted(Accepted {
                    line,
                    series: "hydrograph_notices_total".into(),
                    kind: "counter".into(),
                    samples: 1,
                    committed: awaits_commit.then_some(false),
                    ..Accepted::default()
                }),
            })
            .collect();
        Ok(LinesTaken { outcomes, awaits_commit })
    }

    fn events(&self, lines: Vec<u8>, wait: bool) -> Result<EventsTaken, EventsError> {
        let (verdict, is_complete) = self.pipeline.events(&lines).map_err(|refused| match refused {
            EventsRefused::Busy => EventsError::Busy(refused.to_string()),
            EventsRefused::NotCommitting => EventsError::Unavailable(refused.to_string()),
        })?;
        // From here on they are taken: nothing may say that they should be sent again.
        let awaits_commit = !is_complete || (wait && verdict.accepted > 0 && !self.commits());
        let errors = verdict
            .refused
            .into_iter()
            .map(|refused| RefusedEvent {
                index: usize::try_from(refused.index).unwrap_or(usize::MAX),
                reason: refused.reason.as_str().to_owned(),
                hint: if refused.detail.is_empty() { refused.reason.hint().to_owned() } else { refused.detail },
            })
            .collect();
        Ok(EventsTaken { accepted: verdict.accepted, rejected: verdict.rejected, errors, awaits_commit })
    }

    fn note_refusal(&self, refusal: Refusal) {
        self.pipeline.note_refusal(match refusal {
            Refusal::NoRoom => "no_room",
            Refusal::Crowded => "crowded",
            Refusal::Stalled => "stalled",
        });
    }

    fn has_field(&self, event: &[u8], field: &[u8]) -> bool {
        self.pipeline.has_field(event, field)
    }

    fn widget(&self, name: &str, hours: Option<f64>) -> Result<serde_json::Value, WidgetError> {
        self.pipeline.widget(name, hours)
    }

    fn ask(&self, question: &Question, patience: Duration) -> Result<Answer, Unanswered> {
        self.pipeline.ask(question, patience)
    }

    fn store_stats(&self) -> Result<StoreStats, String> {
        self.pipeline.store_stats().map_err(|error| error.to_string())
    }

    fn store_check(&self) -> Result<StoreCheck, String> {
        self.pipeline.store_check().map_err(|error| error.to_string())
    }

    fn store_copy(&self) -> Result<File, String> {
        // Beside the store, where there is room for one; a store in memory has no such place.
        let place = match self.pipeline.store_file().0 {
            Some(file) => file.to_owned(),
            None => std::env::temp_dir().join("hydrograph.redb"),
        };
        let path = place.with_extension(format!("backup-{}", std::process::id()));
        let said = |error: std::io::Error| format!("{}: {error}", path.display());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(said(error)),
            _ => {}
        }
        self.pipeline.store_copy(&path).map_err(|error| error.to_string())?;
        let file = File::open(&path).map_err(said)?;
        std::fs::remove_file(&path).map_err(said)?;
        Ok(file)
    }

    fn export(
        &self,
        request: &ExportRequest,
        is_over: &dyn Fn() -> bool,
        take: &mut Take<'_>,
    ) -> Result<(), Unanswered> {
        self.pipeline.export(request, is_over, take)
    }

    fn tap(&self, request: &TapRequest) -> Result<Box<dyn TapFeed>, TapError> {
        let tap = self.pipeline.tap(request)?;
        Ok(Box::new(Feed::new(tap, self.pipeline.clone())))
    }

    fn reload(&self, accept: &[String]) -> Result<serde_json::Value, String> {
        let report = self.pipeline.reload_files_accepting(accept).map_err(|error| error.to_string())?;
        serde_json::to_value(&report).map_err(|error| error.to_string())
    }

    fn reset(&self, selectors: &[String]) -> Result<usize, ResetRefused> {
        let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
        self.pipeline.reset_matching(&selectors).map_err(|error| match error {
            ResetError::NotCommitted => ResetRefused::Unavailable(error.to_string()),
            ResetError::Unknown => ResetRefused::Unknown,
            ResetError::Own | ResetError::Selector(_) => ResetRefused::Wrong(error.to_string()),
        })
    }

    fn index(&self) -> IndexData {
        let pipeline = &self.pipeline;
        let tallies = pipeline.tallies();
        let rates = self.rates(&tallies);
        let sources = tallies
            .iter()
            .zip(rates)
            .map(|((name, tally), rate)| SourceInfo {
                name: name.clone(),
                inputs_per_second: rate,
                inputs: tally.inputs,
                rejected: tally.rejected_total(),
                samples: tally.samples_total(),
                dropped: tally.dropped_total(),
            })
            .collect();
        let plan = pipeline.plan();
        let mut fed = SourceTally::default();
        tallies.iter().filter(|(name, _)| pipeline.is_fed(name)).for_each(|(_, tally)| fed.merge(tally));
        let now = pipeline.clock().wall();
        let status = pipeline.status();
        let (file, is_new) = pipeline.store_file();
        let name = &plan.name;
        IndexData {
            version: env!("CARGO_PKG_VERSION").into(),
            pipeline: if plan.built_in { format!("{name} (built in)") } else { name.clone() },
            uptime_seconds: ((now.0 - pipeline.started_at().0) as f64 / 1e9).max(0.0),
            now,
            listeners: pipeline
                .listeners()
                .iter()
                .map(|listener| ListenerInfo {
                    source: listener.source.clone(),
                    kind: listener.kind.into(),
                    address: listener.address.clone(),
                    hint: client_hint(listener),
                    skipped: listener.skipped.clone(),
                })
                .collect(),
            http: self.doors.urls(),
            sources,
            series_count: u64::from(pipeline.series_count()),
            newest: newest(pipeline),
            rejects: self.recent(RecentKind::Rejects, None, NEWEST),
            store: StoreInfo {
                path: file.map_or(":memory:".into(), |path| path.display().to_string()),
                is_new,
                bytes: status.file_bytes,
                commit: status.last_commit.0,
            },
            laws: laws_of(&fed),
        }
    }
}

/// True for what the program says of itself and of its machine.
fn is_own(metric: &Metric) -> bool {
    match &metric.group {
        Group::Main => false,
        Group::Named(group) => matches!(&**group, "internal" | "host"),
        Group::InternalOnly => true,
    }
}

/// The series with the highest ids of each metric that somebody sends, newest first.
fn newest(pipeline: &Pipeline) -> Vec<SeriesInfo> {
    let view = pipeline.view();
    let mut found = Vec::new();
    for metric in view.metrics().into_iter().filter(|metric| !is_own(metric)) {
        let (family, _) = view.series_since(&metric, u64::MAX, 0);
        let start = family.series.len().saturating_sub(NEWEST);
        for entry in &family.series[start..] {
            found.push((entry.0, Arc::clone(&metric), *entry));
        }
    }
    found.sort_by_key(|(id, _, _)| std::cmp::Reverse(*id));
    found.truncate(NEWEST);
    found
        .into_iter()
        .map(|(id, metric, entry)| {
            let mut series = String::new();
            view.labels(metric.kind, &[entry], |labels| series = series_name(&metric.name, labels));
            let created = match view.value(&metric, id) {
                Some(crate::view::Value::Counter(value)) => value.created,
                Some(crate::view::Value::Gauge(value)) => value.created,
                Some(crate::view::Value::Distribution(value)) => value.created,
                Some(crate::view::Value::Set(value)) => value.created,
                None => pipeline.started_at(),
            };
            SeriesInfo { series, kind: shown_type(&metric).to_owned(), created }
        })
        .collect()
}

/// The laws of a finished run: of everything that people fed.
pub fn report_laws(report: &Report) -> Laws {
    let mut uncommitted = report.fed_uncommitted();
    let in_flight = std::mem::take(&mut uncommitted.recorded).iter().sum();
    let mut sum = report.fed();
    sum.merge(&uncommitted);
    Laws { in_flight, ..laws_of(&sum) }
}

/// Of this source, or an event or a check of this name.
fn is_named(item: &RecentItem, name: &str) -> bool {
    item.source == name || item.notice.as_ref().is_some_and(|notice| notice.name == name)
}

/// The type that the letters behind a line's first `|` name.
fn wire_of(rest: &str) -> Option<WireType> {
    let letters = rest.split('|').next().unwrap_or("");
    WireType::ALL.into_iter().find(|wire| wire.as_str() == letters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::CommitId;

    #[test]
    fn c6_the_laws_of_a_run_hold_what_was_never_committed() {
        let tally = |inputs: u64, rejected: u64| {
            let mut tally = SourceTally { inputs, events: inputs - rejected, ..SourceTally::default() };
            tally.rejected[RejectReason::Malformed as usize] = rejected;
            tally.samples[Kind::Counter as usize] = inputs - rejected;
            tally.recorded[Kind::Counter as usize] = inputs - rejected;
            tally
        };
        let mut lost = tally(18, 2);
        lost.recorded[Kind::Counter as usize] -= 3;
        lost.drop_samples(crate::delta::Edge::Store, DropReason::Pending, 3);
        let named = |tally: SourceTally| vec![("app".to_owned(), tally), ("internal".to_owned(), tally_of_own())];
        fn tally_of_own() -> SourceTally {
            SourceTally { inputs: 99, events: 99, ..SourceTally::default() }
        }
        let report = Report {
            is_complete: false,
            last_commit: CommitId(1),
            sources: named(tally(12, 0)),
            uncommitted: named(lost),
            own: vec!["internal".into()],
            store_bytes: 0,
            failure: None,
        };
        let laws = report_laws(&report);
        assert!(laws.hold());
        assert_eq!(
            laws.to_string(),
            "lines 30 = events 28 + rejected 2 (malformed 2) · \
             samples 28 = committed 12 + dropped 3 (pending 3) + in flight 13"
        );
    }
}
