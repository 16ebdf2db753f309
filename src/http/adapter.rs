//! The running pipeline as the routes see it, and the thread that serves it.
//!
//! In: a [`Pipeline`]. Out: a [`Backend`], and a [`Server`]. Owns: the runtime of the front door, and what
//! was seen last of each source, for rates. Invariant: nothing here decides anything; it only says what is.

use super::{
    Accepted, Backend, Component, ComponentState, EventsError, EventsTaken, Format, Health, HealthStatus, IndexData,
    Laws, LineOutcome, Listener, ListenerInfo, NoticeFields, Quantile, RecentItem, RecentKind, Refused, RefusedEvent,
    ScrapeBody, ScrapeRequest, SeriesInfo, SourceInfo, StoreInfo, Token, Unavailable, UnknownGroup, serve,
};
use crate::actor::{Failures, Thread, spawn};
use crate::delta::SourceTally;
use crate::event::{DropReason, Group, Kind, Metric, RejectReason, WireType};
use crate::pipeline::{EventsRefused, Pipeline, Report, WidgetError, as_number, series_name};
use crate::shard;
use crate::sink::scrape;
use crate::store::KeptRow;
use std::sync::{Arc, Mutex, PoisonError};

/// A rate is taken over at least this long.
const RATE_NANOS_MIN: i64 = 2_000_000_000;
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
    urls: Vec<String>,
    seen: Mutex<Seen>,
}

impl Front {
    /// The front of a pipeline that is served at these URLs.
    pub fn new(pipeline: Pipeline, urls: Vec<String>) -> Front {
        Front { pipeline, urls, seen: Mutex::default() }
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
                true => self.hint_of(reject.reason, &reject.text),
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

    /// Says which part of a line was wrong where that can be seen.
    fn hint_of(&self, reason: RejectReason, text: &str) -> String {
        let split = text.split_once(':').and_then(|(name, rest)| Some((name, rest.split_once('|')?)));
        match (reason, split) {
            (RejectReason::BadValue, Some((_, (values, _)))) => {
                let bad = values.split(':').find(|value| value.trim().parse::<f64>().is_err()).unwrap_or(values);
                format!("\"{bad}\" is {}", reason.hint())
            }
            (RejectReason::TypeConflict, Some((name, (_, rest)))) => {
                match wire_of(rest).and_then(|wire| self.pipeline.conflicting(name, wire)) {
                    Some(taken) => format!("{} is a {} already: one name, one type", taken.name, shown_type(&taken)),
                    None => reason.hint().to_owned(),
                }
            }
            (RejectReason::LabelMismatch, Some((name, (_, rest)))) => {
                let labels = wire_of(rest).and_then(|wire| self.pipeline.labels_hint(name, wire));
                labels.unwrap_or_else(|| reason.hint().to_owned())
            }
            _ => reason.hint().to_owned(),
        }
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
            accepted.value = value.map(|value| as_number(metric, &value)).filter(|value| value.is_finite());
        }
        if let Some(received) = metric.help.strip_prefix("timing received as ") {
            accepted.note = format!("{received} in ms");
        }
        accepted
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
    fn scrape(&self, request: &ScrapeRequest) -> Result<ScrapeBody, UnknownGroup> {
        let request = scrape::ScrapeRequest {
            format: match request.format {
                Format::Text => scrape::ScrapeFormat::Text,
                Format::OpenMetrics => scrape::ScrapeFormat::OpenMetrics,
                Format::Protobuf => scrape::ScrapeFormat::Protobuf,
                Format::Json => scrape::ScrapeFormat::MetricsJson,
                Format::ApiJson => scrape::ScrapeFormat::ApiJson,
                Format::Csv => scrape::ScrapeFormat::Csv,
                Format::Influx => scrape::ScrapeFormat::Influx,
            },
            group: request.group.clone(),
            names: request.names.clone(),
            gzip: request.gzip,
        };
        let body = self.pipeline.scrape(&request).map_err(|error| UnknownGroup { known: error.known })?;
        Ok(ScrapeBody { content_type: body.content_type, bytes: Arc::new(body.to_vec()), gzip: body.gzip })
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
        for (metric, count, label) in self.pipeline.overflows() {
            let widest = if label.is_empty() { String::new() } else { format!("; label {label} has the most values") };
            let reason = format!("{count} resolutions past the limit of series{widest}");
            component(format!("metric {metric}"), ComponentState::Degraded, reason);
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

    fn lines(&self, body: Vec<u8>, wait: bool) -> Result<Vec<LineOutcome>, Unavailable> {
        let status = self.pipeline.status();
        if !status.has_room {
            return Err(Unavailable("the store does not commit and limits.pending is reached".into()));
        }
        let outcomes = self.pipeline.lines(body).map_err(|gone| Unavailable(gone.to_string()))?;
        if wait {
            self.pipeline.flush().map_err(|error| Unavailable(error.to_string()))?;
        }
        Ok(outcomes
            .into_iter()
            .map(|(line, outcome)| match outcome {
                shard::LineOutcome::Refused(reason, detail) => {
                    let hint = if detail.is_empty() { self.hint_of(reason, &line) } else { detail };
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
                    LineOutcome::Accepted(accepted)
                }
                shard::LineOutcome::Notice => LineOutcome::Accepted(Accepted {
                    line,
                    series: "hydrograph_notices_total".into(),
                    kind: "counter".into(),
                    samples: 1,
                    ..Accepted::default()
                }),
            })
            .collect())
    }

    fn events(&self, lines: Vec<u8>, wait: bool) -> Result<EventsTaken, EventsError> {
        let verdict = self.pipeline.events(&lines).map_err(|refused| match refused {
            EventsRefused::Busy => EventsError::Busy(refused.to_string()),
            EventsRefused::NotCommitting => EventsError::Unavailable(refused.to_string()),
        })?;
        if wait && verdict.accepted > 0 {
            self.pipeline.flush().map_err(|error| EventsError::Unavailable(error.to_string()))?;
        }
        let errors = verdict
            .refused
            .into_iter()
            .map(|refused| RefusedEvent {
                index: usize::try_from(refused.index).unwrap_or(usize::MAX),
                reason: refused.reason.as_str().to_owned(),
                hint: if refused.detail.is_empty() { refused.reason.hint().to_owned() } else { refused.detail },
            })
            .collect();
        Ok(EventsTaken { accepted: verdict.accepted, rejected: verdict.rejected, errors })
    }

    fn has_field(&self, event: &[u8], field: &[u8]) -> bool {
        self.pipeline.has_field(event, field)
    }

    fn widget(&self, name: &str, hours: Option<f64>) -> Result<serde_json::Value, WidgetError> {
        self.pipeline.widget(name, hours)
    }

    fn reload(&self) -> Result<serde_json::Value, String> {
        let report = self.pipeline.reload_files().map_err(|error| error.to_string())?;
        serde_json::to_value(&report).map_err(|error| error.to_string())
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
        tallies.iter().filter(|(name, _)| plan.is_fed(name)).for_each(|(_, tally)| fed.merge(tally));
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
            http: self.urls.clone(),
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

/// What to paste, or which clients speak it.
fn client_hint(listener: &crate::pipeline::ListenerState) -> String {
    match listener.kind {
        "unixstream" if listener.skipped.is_none() => "PyPI statsd, lines of text".into(),
        "unixgram" | "udp" if listener.skipped.is_none() => format!("export {}", listener.client),
        _ => listener.client.clone(),
    }
}

/// What a notice has beside what every kept input has.
fn fields_of(notice: &shard::Notice) -> NoticeFields {
    let common = NoticeFields {
        name: notice.name.clone(),
        host: notice.host.clone(),
        tags: notice.tags.clone(),
        ..Default::default()
    };
    match &notice.body {
        shard::NoticeBody::Event { aggregation_key, source_type, priority, alert } => NoticeFields {
            kind: "event",
            alert_type: alert.as_str(),
            priority: priority.as_str(),
            aggregation_key: aggregation_key.clone(),
            source_type: source_type.clone(),
            ..common
        },
        shard::NoticeBody::Check { status } => {
            NoticeFields { kind: "service_check", status: status.as_str(), ..common }
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

/// The thread that serves a pipeline over HTTP.
pub struct Server {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<Thread>,
    /// What it serves.
    pub front: Arc<Front>,
}

impl Server {
    /// Serves a pipeline on these listeners until it is dropped or stopped.
    ///
    /// # Errors
    /// When the runtime or its thread cannot be made.
    pub fn start(pipeline: Pipeline, listeners: Vec<Listener>, token: Option<Token>) -> std::io::Result<Server> {
        let urls = listeners.iter().map(Listener::url).collect::<Result<Vec<_>, _>>()?;
        let front = Arc::new(Front::new(pipeline, urls));
        let backend: Arc<dyn Backend> = Arc::clone(&front) as Arc<dyn Backend>;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_keep_alive(std::time::Duration::from_secs(5))
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = spawn("http", &Failures::new(), move || {
            let shutdown = async move {
                // The sender was used or dropped: both mean stop.
                let _ = stopped.await;
            };
            if let Err(error) = runtime.block_on(serve(listeners, backend, token, shutdown)) {
                tracing::error!(%error, "the front door closed");
            }
        })?;
        Ok(Server { stop: Some(stop), thread: Some(thread), front })
    }

    /// Lets answers under way finish and ends the thread.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The laws of a finished run: of everything that people fed.
pub fn report_laws(report: &Report) -> Laws {
    laws_of(&report.fed())
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
