//! What the collectors do: sources `internal`, `host`, `process` and `gpu`, which read values instead of sockets.
//!
//! In: the clock, the store's status, this machine, its cards. Out: samples through in-process producers, like anyone
//! else's. Invariant: a collector that fails says so once and leaves the pipeline running.

use super::plan::{GpuPlan, HostPlan, ProcessMatch, ProcessPlan};
use super::value::show_duration;
use crate::channel::{Ended, Receiver};
use crate::delta::SeriesTable;
use crate::event::{Clock, Kind, Unit};
use crate::rule::typed::{LabelSource, SourceFeed};
use crate::rule::{MetricSpec, Rules, is_reserved_name};
use crate::source::gpu::GpuCollector;
use crate::source::host::{HostCollector, HostOptions};
use crate::source::inproc::{LocalCounter, LocalGauge, LocalHistogram, Producer, Producers};
use crate::source::process::{ProcessCollector, ProcessFinder};
use crate::store::StoreHandle;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often `internal` looks.
const INTERNAL_EVERY: Duration = Duration::from_secs(1);
/// Two readings of the processors must lie this far apart.
const CPU_APART: Duration = Duration::from_millis(250);

/// Waits; false when it is time to end.
pub(super) fn goes_on(stopped: &Receiver<()>, wait: Duration) -> bool {
    stopped.recv_timeout(wait) == Err(Ended::TimedOut)
}

/// Gauges and counters by name and labels, made when first set.
struct Own<'p> {
    producer: Producer,
    rules: &'p Rules,
    gauges: HashMap<String, LocalGauge>,
    counters: HashMap<String, LocalCounter>,
}

impl<'p> Own<'p> {
    fn new(producers: &Arc<Producers>, rules: &'p Rules) -> Option<Own<'p>> {
        let producer = producers.producer().ok()?;
        Some(Own { producer, rules, gauges: HashMap::new(), counters: HashMap::new() })
    }

    /// Registers a metric under exactly this name; handles then find it.
    fn declare(&self, name: &str, kind: Kind, help: &str, group: &str) {
        self.declare_spec(&MetricSpec::new(name, kind, help, group));
    }

    fn declare_spec(&self, spec: &MetricSpec<'_>) {
        if let Err(reason) = self.rules.metric(spec) {
            tracing::warn!(name = spec.name, %reason, "an own metric cannot be kept");
        }
    }

    fn set(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let key = series_key(name, labels);
        if !self.gauges.contains_key(&key) {
            let Ok(gauge) = self.producer.gauge_exact(name, labels) else { return };
            self.gauges.insert(key.clone(), gauge);
        }
        self.gauges[&key].set(value);
    }

    fn add(&mut self, name: &str, labels: &[(&str, &str)], by: f64) {
        let key = series_key(name, labels);
        if !self.counters.contains_key(&key) {
            let Ok(counter) = self.producer.counter_exact(name, labels) else { return };
            self.counters.insert(key.clone(), counter);
        }
        self.counters[&key].add_f64(by);
    }
}

fn series_key(name: &str, labels: &[(&str, &str)]) -> String {
    let values = labels.iter().map(|(_, value)| *value);
    std::iter::once(name).chain(values).collect::<Vec<_>>().join("\u{1}")
}

/// What `internal` has counted, so that it goes on from there when it is switched off and on again.
#[derive(Default)]
pub(super) struct Counted {
    steps: u64,
    late: u64,
    /// By the resolution of the tier.
    shed: HashMap<i64, u64>,
    overflowed: HashMap<String, u64>,
}

pub(super) fn internal(
    producers: &Arc<Producers>,
    store: &StoreHandle,
    rules: &Rules,
    table: &SeriesTable,
    counted: &Mutex<Counted>,
    stopped: &Receiver<()>,
) {
    let Some(mut own) = Own::new(producers, rules) else { return };
    own.declare("hydrograph_series", Kind::Gauge, "Live series, and series that met a limit", "internal");
    own.declare("hydrograph_store_bytes", Kind::Gauge, "Bytes of content by table of the store", "internal");
    own.declare("hydrograph_clock_steps_total", Kind::Counter, "Steps of the wall clock beyond 5 s", "internal");
    own.declare("hydrograph_late_ticks_total", Kind::Counter, "Ticks that came later than they should", "internal");
    let shed = "Spans of history that max_size took before their time";
    own.declare("hydrograph_store_shed_spans_total", Kind::Counter, shed, "internal");
    own.declare("hydrograph_commit_duration_seconds", Kind::Distribution, "Time a commit takes", "internal");
    own.declare("hydrograph_build_info", Kind::Gauge, "The version of this program", "internal");
    own.declare("hydrograph_overflowed_total", Kind::Counter, "Resolutions past a limit of series", "internal");
    let durations: Option<LocalHistogram> =
        own.producer.histogram_exact("hydrograph_commit_duration_seconds", &[]).ok();
    loop {
        let status = store.status();
        own.set("hydrograph_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        // Making a handle takes the table's lock, so what is read under it is copied out first.
        let (live, refused): (u32, Vec<(String, u64)>) = {
            let table = table.lock();
            let refused = table.overflowed().iter().map(|known| (known.metric.name.to_string(), known.count));
            (table.live(), refused.collect())
        };
        own.set("hydrograph_series", &[("state", "live")], f64::from(live));
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (metric, count) in refused {
            let seen = counted.overflowed.entry(metric.clone()).or_insert(0);
            own.add("hydrograph_overflowed_total", &[("metric", &metric)], (count - *seen) as f64);
            *seen = count;
        }
        for (name, bytes) in &status.tables {
            own.set("hydrograph_store_bytes", &[("table", name)], *bytes as f64);
        }
        for (resolution, count) in &status.shed {
            let seen = counted.shed.insert(*resolution, *count).unwrap_or(0);
            // Slices that were in no tier yet have none.
            let tier = if *resolution == 0 { "none".to_owned() } else { show_duration(*resolution) };
            own.add("hydrograph_store_shed_spans_total", &[("tier", &tier)], count.saturating_sub(seen) as f64);
        }
        own.add("hydrograph_clock_steps_total", &[], (status.clock_steps - counted.steps) as f64);
        own.add("hydrograph_late_ticks_total", &[], (status.late_ticks - counted.late) as f64);
        (counted.steps, counted.late) = (status.clock_steps, status.late_ticks);
        drop(counted);
        if let Some(histogram) = &durations {
            for nanos in store.take_durations() {
                histogram.observe_nanos(nanos.max(0) as u64);
            }
        }
        if !goes_on(stopped, INTERNAL_EVERY) {
            break;
        }
    }
}

/// What metrics take from one collector: only that is shown.
pub(super) struct Fed<'p> {
    producer: Producer,
    feeds: &'p [SourceFeed],
    /// By the feed and the label values.
    handles: HashMap<(usize, Vec<String>), FedHandle>,
}

enum FedHandle {
    Gauge(LocalGauge),
    Counter(LocalCounter),
    /// Refused: it was said once.
    None,
}

impl<'p> Fed<'p> {
    /// `None` where no metric names this source, or the pipeline has stopped.
    pub(super) fn new(producers: &Arc<Producers>, rules: &'p Rules, source: &str) -> Option<Fed<'p>> {
        let feeds = rules.typed().source_feeds(source)?;
        Some(Fed { producer: producers.producer().ok()?, feeds, handles: HashMap::new() })
    }

    /// True when some feed takes this label from the collector.
    pub(super) fn wants_label(&self, label: &str) -> bool {
        self.feeds.iter().any(|feed| feed.own_labels().any(|own| own == label))
    }

    /// True when some feed takes this value.
    pub(super) fn wants(&self, value: &str) -> bool {
        self.feeds.iter().any(|feed| feed.value == value)
    }

    /// Gives a value to every metric that takes it. `value` is an increment of a counter, else what a gauge is set to.
    pub(super) fn record(&mut self, value: &str, labels: &[(&str, &str)], number: f64) {
        for (at, feed) in self.feeds.iter().enumerate().filter(|(_, feed)| feed.value == value) {
            // A sample by mount is for metrics by mount, and the other way round.
            if feed.own_labels().count() != labels.len()
                || !labels.iter().all(|(label, _)| feed.own_labels().any(|own| own == *label))
            {
                continue;
            }
            let key = (at, labels.iter().map(|(_, value)| (*value).to_owned()).collect());
            let handle = self.handles.entry(key).or_insert_with(|| make_handle(&self.producer, feed, labels));
            match handle {
                FedHandle::Gauge(gauge) => gauge.set(number * feed.scale),
                FedHandle::Counter(counter) => counter.add_f64(number * feed.scale),
                FedHandle::None => {}
            }
        }
    }
}

fn make_handle(producer: &Producer, feed: &SourceFeed, labels: &[(&str, &str)]) -> FedHandle {
    let value_of = |label: &str| labels.iter().find(|(known, _)| *known == label).map_or("", |(_, value)| value);
    let labels: Vec<(&str, &str)> = feed
        .labels
        .iter()
        .map(|(label, from)| match from {
            LabelSource::Const(text) => (label.as_str(), text.as_str()),
            LabelSource::Own | LabelSource::Field(_) | LabelSource::Template(_) => (label.as_str(), value_of(label)),
        })
        .collect();
    let name = &feed.metric.name;
    let made = match feed.metric.kind {
        Kind::Counter => producer.counter_exact(name, &labels).map(FedHandle::Counter),
        _ => producer.gauge_exact(name, &labels).map(FedHandle::Gauge),
    };
    made.unwrap_or_else(|error| {
        tracing::warn!(metric = &**name, %error, "a value of a collector cannot be kept");
        FedHandle::None
    })
}

pub(super) fn collect_host(
    source: &str,
    plan: &HostPlan,
    producers: &Arc<Producers>,
    rules: &Rules,
    clock: &dyn Clock,
    stopped: &Receiver<()>,
) {
    let mut fed = Fed::new(producers, rules, source);
    let options = HostOptions {
        disk: plan.disk.clone(),
        by_mount: fed.as_ref().is_some_and(|fed| fed.wants_label("mount")),
        network_rate: fed.as_ref().is_some_and(|fed| fed.wants("network_bits_per_second")),
    };
    let mut collector = match HostCollector::new(options, clock.monotonic()) {
        Ok(collector) => collector,
        Err(error) => return tracing::warn!(%error, "source host cannot read this machine"),
    };
    let Some(mut own) = Own::new(producers, rules) else { return };
    let mut declared = HashSet::new();
    let mut wait = CPU_APART;
    while goes_on(stopped, wait) {
        for sample in collector.collect(clock.monotonic()) {
            let what = sample.what;
            let labels: Vec<(&str, &str)> = sample.labels.iter().collect();
            if let Some(fed) = &mut fed {
                fed.record(what.key, &labels, sample.value);
                continue;
            }
            if declared.insert(what.name) {
                own.declare(what.name, what.kind, what.help, "host");
            }
            match what.kind {
                Kind::Counter => own.add(what.name, &labels, sample.value),
                _ => own.set(what.name, &labels, sample.value),
            }
        }
        wait = Duration::from_nanos(plan.every.max(0) as u64);
    }
}

/// Where the gauges of a collector go: to the metrics that name its values, else to one metric for each value.
pub(super) struct Into<'p> {
    fed: Option<Fed<'p>>,
    own: Own<'p>,
    /// What stands before an undeclared name.
    prefix: String,
    group: &'static str,
    declared: HashSet<&'static str>,
}

impl<'p> Into<'p> {
    pub(super) fn new(
        producers: &Arc<Producers>,
        rules: &'p Rules,
        source: &str,
        prefix: String,
        group: &'static str,
    ) -> Option<Into<'p>> {
        let own = Own::new(producers, rules)?;
        Some(Into { fed: Fed::new(producers, rules, source), own, prefix, group, declared: HashSet::new() })
    }

    fn set(&mut self, key: &'static str, unit: Unit, help: &str, labels: &[(&str, &str)], value: f64) {
        if let Some(fed) = &mut self.fed {
            return fed.record(key, labels, value);
        }
        let name = format!("{}_{key}", self.prefix);
        let is_reserved = is_reserved_name(&name);
        if self.declared.insert(key) {
            if is_reserved {
                tracing::warn!(
                    name,
                    "this name belongs to the program itself, so this value of a collector is not kept"
                );
            } else {
                let spec = MetricSpec::new(&name, Kind::Gauge, help, self.group);
                self.own.declare_spec(&MetricSpec { unit: Some(unit), ..spec });
            }
        }
        if !is_reserved {
            self.own.set(&name, labels, value);
        }
    }

    /// Lets go of every series, so that those of something that went away expire as others do.
    fn release(&mut self) {
        self.own.gauges.clear();
        if let Some(fed) = &mut self.fed {
            fed.handles.clear();
        }
    }
}

pub(super) fn collect_process(
    source: &str,
    plan: &ProcessPlan,
    mut into: Into<'_>,
    clock: &dyn Clock,
    stopped: &Receiver<()>,
) {
    let finder = match &plan.matches {
        ProcessMatch::PidFile(path) => ProcessFinder::PidFile(path.clone()),
        ProcessMatch::Command(text) => ProcessFinder::Command(text.clone()),
        ProcessMatch::Unit(unit) => ProcessFinder::Unit(unit.clone()),
    };
    let mut collector = ProcessCollector::new(finder);
    // The first reading only begins the first interval of the processor's time.
    collector.collect(clock.monotonic());
    let mut wait = CPU_APART;
    let mut was_there = None;
    while goes_on(stopped, wait) {
        let readings = collector.collect(clock.monotonic());
        let is_there = !readings.is_empty();
        if was_there != Some(is_there) {
            match (is_there, was_there) {
                (true, None) => {}
                (true, Some(_)) => tracing::info!(source, "the process is there"),
                (false, _) => {
                    tracing::warn!(source, "no such process, so there are no values of it until it is started");
                    into.release();
                }
            }
            was_there = Some(is_there);
        }
        for reading in readings {
            let what = reading.what;
            into.set(what.key, what.unit, what.help, &[], reading.value);
        }
        wait = Duration::from_nanos(plan.every.max(0) as u64);
    }
}

pub(super) fn collect_gpu(source: &str, plan: &GpuPlan, mut into: Into<'_>, stopped: &Receiver<()>) {
    let mut collector = GpuCollector::new(plan.library.clone());
    let mut was_there = None;
    loop {
        match collector.collect() {
            Ok(readings) => {
                was_there = Some(true);
                for reading in readings {
                    let (what, gpu) = (reading.what, reading.gpu.to_string());
                    into.set(what.key, what.unit, what.help, &[("gpu", &gpu)], reading.value);
                }
            }
            Err(error) => {
                if was_there != Some(false) {
                    tracing::warn!(source, %error, "there are no values of graphics cards");
                    into.release();
                }
                was_there = Some(false);
            }
        }
        if !goes_on(stopped, Duration::from_nanos(plan.every.max(0) as u64)) {
            break;
        }
    }
}
