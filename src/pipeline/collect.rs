//! The collectors' threads: sources `internal` and `host`, which read values instead of sockets.
//!
//! In: the clock, the store's status, this machine. Out: samples through in-process producers, like anyone
//! else's. Invariant: a collector that fails says so once and leaves the pipeline running.

use super::plan::{HostPlan, Plan, SourceKind};
use crate::actor::{Failures, Thread, spawn};
use crate::channel::{Ended, Receiver, Sender, bounded};
use crate::delta::SeriesTable;
use crate::event::{Clock, Kind, SourceIndex};
use crate::rule::{MetricSpec, Rules};
use crate::source::host::{HostCollector, HostOptions};
use crate::source::inproc::{LocalCounter, LocalGauge, LocalHistogram, Producer, Producers};
use crate::store::StoreHandle;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often `internal` looks.
const INTERNAL_EVERY: Duration = Duration::from_secs(1);
/// Two readings of the processors must lie this far apart.
const CPU_APART: Duration = Duration::from_millis(250);

/// The running collectors.
pub(super) struct Collectors {
    /// Dropping them ends the threads.
    stops: Vec<Sender<()>>,
    threads: Vec<Thread>,
}

impl Collectors {
    pub(super) fn stop(self) {
        drop(self.stops);
        self.threads.into_iter().for_each(Thread::join);
    }
}

/// Starts one thread for each collecting source.
pub(super) fn start(
    plan: &Plan,
    producers: &dyn Fn(SourceIndex) -> Arc<Producers>,
    store: &StoreHandle,
    rules: &Arc<Rules>,
    table: &Arc<SeriesTable>,
    clock: &Arc<dyn Clock>,
    failures: &Failures,
) -> std::io::Result<Collectors> {
    let mut collectors = Collectors { stops: Vec::new(), threads: Vec::new() };
    for (index, source) in plan.sources.iter().enumerate().filter(|(_, source)| source.enabled) {
        let producers = producers(SourceIndex(index as u16));
        let (stop, stopped) = bounded::<()>(1);
        let thread = match &source.kind {
            SourceKind::Socket(_) => continue,
            SourceKind::Internal => {
                let (store, table) = (store.clone(), Arc::clone(table));
                let rules = Arc::clone(rules);
                spawn(&source.name, failures, move || internal(&producers, &store, &rules, &table, &stopped))?
            }
            SourceKind::Host(host) => {
                let (host, rules, clock) = (host.clone(), Arc::clone(rules), Arc::clone(clock));
                spawn(&source.name, failures, move || collect_host(&host, &producers, &rules, &*clock, &stopped))?
            }
        };
        collectors.stops.push(stop);
        collectors.threads.push(thread);
    }
    Ok(collectors)
}

/// Waits; false when it is time to end.
fn goes_on(stopped: &Receiver<()>, wait: Duration) -> bool {
    stopped.recv_timeout(wait) == Err(Ended::TimedOut)
}

/// Gauges and counters by name and labels, made when first set.
struct Own<'p> {
    producer: Producer,
    rules: &'p Rules,
    gauges: HashMap<(&'static str, String), LocalGauge>,
    counters: HashMap<(&'static str, String), LocalCounter>,
}

impl<'p> Own<'p> {
    fn new(producers: &Arc<Producers>, rules: &'p Rules) -> Option<Own<'p>> {
        let producer = producers.producer().ok()?;
        Some(Own { producer, rules, gauges: HashMap::new(), counters: HashMap::new() })
    }

    /// Registers a metric under exactly this name; handles then find it.
    fn declare(&self, name: &str, kind: Kind, help: &str, group: &str) {
        let mut spec = MetricSpec::new(name, kind, help, group);
        spec.help = help;
        if let Err(reason) = self.rules.metric(&spec) {
            tracing::warn!(name, %reason, "an own metric cannot be kept");
        }
    }

    fn set(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let key = (name, labels.iter().map(|(_, value)| *value).collect::<Vec<_>>().join("\u{1}"));
        if !self.gauges.contains_key(&key) {
            let Ok(gauge) = self.producer.gauge_exact(name, labels) else { return };
            self.gauges.insert(key.clone(), gauge);
        }
        self.gauges[&key].set(value);
    }

    fn add(&mut self, name: &'static str, labels: &[(&str, &str)], by: f64) {
        let key = (name, labels.iter().map(|(_, value)| *value).collect::<Vec<_>>().join("\u{1}"));
        if !self.counters.contains_key(&key) {
            let Ok(counter) = self.producer.counter_exact(name, labels) else { return };
            self.counters.insert(key.clone(), counter);
        }
        self.counters[&key].add_f64(by);
    }
}

fn internal(
    producers: &Arc<Producers>,
    store: &StoreHandle,
    rules: &Rules,
    table: &SeriesTable,
    stopped: &Receiver<()>,
) {
    let Some(mut own) = Own::new(producers, rules) else { return };
    own.declare("hydrograph_series", Kind::Gauge, "Live series, and series that met a limit", "internal");
    own.declare("hydrograph_store_bytes", Kind::Gauge, "Bytes of content by table of the store", "internal");
    own.declare("hydrograph_clock_steps_total", Kind::Counter, "Steps of the wall clock beyond 5 s", "internal");
    own.declare("hydrograph_late_ticks_total", Kind::Counter, "Ticks that came later than they should", "internal");
    own.declare("hydrograph_commit_duration_seconds", Kind::Distribution, "Time a commit takes", "internal");
    own.declare("hydrograph_build_info", Kind::Gauge, "The version of this program", "internal");
    own.declare("hydrograph_overflowed_total", Kind::Counter, "Resolutions past a limit of series", "internal");
    let durations: Option<LocalHistogram> =
        own.producer.histogram_exact("hydrograph_commit_duration_seconds", &[]).ok();
    let (mut steps, mut late) = (0, 0);
    let mut overflowed: HashMap<String, u64> = HashMap::new();
    loop {
        let status = store.status();
        own.set("hydrograph_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        // Making a handle takes the table's lock, so what is read under it is copied out first.
        let (live, refused): (u32, Vec<(String, u64)>) = {
            let table = table.lock();
            let refused = table.overflowed().iter().map(|(metric, count)| (metric.name.to_string(), *count));
            (table.live(), refused.collect())
        };
        own.set("hydrograph_series", &[("state", "live")], f64::from(live));
        for (metric, count) in refused {
            let seen = overflowed.entry(metric.clone()).or_insert(0);
            own.add("hydrograph_overflowed_total", &[("metric", &metric)], (count - *seen) as f64);
            *seen = count;
        }
        for (name, bytes) in &status.tables {
            own.set("hydrograph_store_bytes", &[("table", name)], *bytes as f64);
        }
        own.add("hydrograph_clock_steps_total", &[], (status.clock_steps - steps) as f64);
        own.add("hydrograph_late_ticks_total", &[], (status.late_ticks - late) as f64);
        (steps, late) = (status.clock_steps, status.late_ticks);
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

fn collect_host(plan: &HostPlan, producers: &Arc<Producers>, rules: &Rules, clock: &dyn Clock, stopped: &Receiver<()>) {
    let options = HostOptions { disk: plan.disk.clone(), ..HostOptions::default() };
    let mut collector = match HostCollector::new(options, clock.monotonic()) {
        Ok(collector) => collector,
        Err(error) => return tracing::warn!(%error, "source host cannot read this machine"),
    };
    let Some(mut own) = Own::new(producers, rules) else { return };
    let mut declared = std::collections::HashSet::new();
    let mut wait = CPU_APART;
    while goes_on(stopped, wait) {
        for sample in collector.collect(clock.monotonic()) {
            let what = sample.what;
            if declared.insert(what.name) {
                own.declare(what.name, what.kind, what.help, "host");
            }
            let labels: Vec<(&str, &str)> = sample.labels.iter().collect();
            match what.kind {
                Kind::Counter => own.add(what.name, &labels, sample.value),
                _ => own.set(what.name, &labels, sample.value),
            }
        }
        wait = Duration::from_nanos(plan.every.max(0) as u64);
    }
}
