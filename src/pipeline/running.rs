//! A running pipeline, as the crate's users and the front door hold it.
//!
//! In: a plan. Out: handles, reads that see your own writes, bodies, a report at the end. Owns: the graph.
//! Invariants: every call is synchronous and may be made inside or outside a runtime; those that wait have
//! a twin that does not block; dropping the last clone stops the pipeline.

mod intake;
mod reloading;
mod reset;
mod shown;

pub use reset::ResetError;
pub use shown::{as_number, series_name};

use super::config::PipelineFile;
use super::diagnostic::Diagnostics;
use super::graph::{Graph, ListenerState, Report, StartError};
use super::live::{Refusals, live_values};
use super::memory::body_bytes;
use super::paths::Environment;
use super::plan::Plan;
use super::reload::{Follower, Loader, ReloadError, ReloadReport};
use crate::delta::SourceTally;
use crate::event::{Clock, CommitId, Kind, Labels, Metric, SystemClock, Timestamp, WireType};
use crate::query::world::Worlds;
use crate::shard::{EventsVerdict, Gone, LineOutcome, RecentRejects};
use crate::sink::scrape::{LiveValues, Scrape, ScrapeBody, ScrapeError, ScrapeFormat, ScrapePlan, ScrapeRequest};
use crate::source::inproc::shared::{Counter, Gauge, Histogram, Set};
use crate::source::inproc::{Event, HandleError, Producer};
use crate::source::internal::ProcessCollector;
use crate::store::{KeptRow, StoreReader, StoreStatus};
use crate::view::{DistributionStats, Quantile, Value, View};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

/// How long a read waits for its commit before it answers from what is durable.
const FLUSH_WAIT: Duration = Duration::from_secs(10);
/// Events of a request that one command holds: 360 of 180 bytes, 0.3 ms of decoding.
const PARCEL_BYTES: usize = 64 * 1024;

/// Why a pipeline cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The files say something wrong.
    #[error("{0}")]
    Configuration(Diagnostics),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store does not commit now, so the answer would not hold your own writes.
    #[error("the store does not commit now")]
    NotCommitted,
    /// No such metric or series.
    #[error("no such series")]
    Unknown,
    /// The metric has another type.
    #[error("the metric is of another type")]
    OtherType,
    /// The body is longer than `limits.memory` leaves for bodies.
    #[error("limits.memory leaves no room for a body of this length")]
    NoRoom,
}

/// Why no events are taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsRefused {
    /// The shard has too much to do, or has stopped.
    #[error("the pipeline has too much to do")]
    Busy,
    /// What was accepted before cannot be committed (C4).
    #[error("the store does not commit and limits.pending is reached")]
    NotCommitting,
}

/// Collects what a pipeline is made of.
pub struct Builder {
    /// With where each is read from again.
    files: Vec<(PipelineFile, Option<PathBuf>)>,
    environment: Environment,
    clock: Arc<dyn Clock>,
}

impl Builder {
    /// Adds a pipeline file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Builder, BuildError> {
        let file = PipelineFile::read(path.as_ref()).map_err(|error| {
            let mut errors = Diagnostics::new();
            errors.push(error);
            BuildError::Configuration(errors)
        })?;
        self.files.push((file, Some(path.as_ref().to_owned())));
        Ok(self)
    }

    /// Adds the text of a pipeline file; relative paths stand in the working directory.
    pub fn text(mut self, text: impl Into<String>) -> Builder {
        let name = format!("text {}", self.files.len() + 1);
        self.files.push((PipelineFile { name, text: text.into(), directory: PathBuf::from(".") }, None));
        self
    }

    /// Another environment than the process's, for references and directories.
    pub fn environment(mut self, environment: Environment) -> Builder {
        self.environment = environment;
        self
    }

    /// Another clock than the machine's: virtual time.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder {
        self.clock = clock;
        self
    }

    /// The plan, without starting it. Without a file or text: an embedded pipeline in memory.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn plan(&self) -> Result<Plan, BuildError> {
        let embedded = [PipelineFile {
            name: "embedded".into(),
            text: "name = \"embedded\"\n[store]\npath = \":memory:\"\nmax_size = \"256MiB\"\n".into(),
            directory: PathBuf::from("."),
        }];
        let files: Vec<PipelineFile> = self.files.iter().map(|(file, _)| file.clone()).collect();
        let files = if files.is_empty() { &embedded[..] } else { &files };
        Plan::load(files, &self.environment).map_err(BuildError::Configuration)
    }

    /// Starts the pipeline.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn start(self) -> Result<Pipeline, BuildError> {
        let plan = self.plan()?;
        let pipeline = Pipeline::start_plan(plan, &self.environment, Arc::clone(&self.clock))?;
        pipeline.reload_from(Box::new(move || self.read_again()));
        Ok(pipeline)
    }

    /// The plan of the files as they are now; texts stay what they were.
    fn read_again(&self) -> Result<Plan, Diagnostics> {
        let mut errors = Diagnostics::new();
        let mut files = Vec::with_capacity(self.files.len());
        for (file, path) in &self.files {
            match path.as_ref().map_or_else(|| Ok(file.clone()), |path| PipelineFile::read(path)) {
                Ok(file) => files.push((file, None)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let again = Builder { files, environment: self.environment.clone(), clock: Arc::clone(&self.clock) };
        again.plan().map_err(|error| match error {
            BuildError::Configuration(errors) => errors,
            BuildError::Start(_) => unreachable!("nothing was started"),
        })
    }

    /// As [`start`](Self::start), on a thread of its own while the caller's runtime goes on.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn start_async(self) -> Result<Pipeline, BuildError> {
        off_runtime("start", move || self.start()).await.unwrap_or_else(|error| Err(StartError::System(error).into()))
    }
}

/// Runs something that blocks on a thread of its own, so that no runtime is needed or held up.
async fn off_runtime<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let (answer, waiting) = tokio::sync::oneshot::channel();
    crate::actor::spawn(name, &crate::actor::Failures::new(), move || {
        // The caller may have given up.
        let _ = answer.send(work());
    })?;
    waiting.await.map_err(|_| std::io::Error::other("the call panicked"))
}

/// A running pipeline; cloned freely.
#[derive(Clone)]
pub struct Pipeline {
    graph: Arc<Graph>,
    scrape: Arc<Scrape>,
    /// Who takes the events of the next request.
    next_shard: Arc<AtomicUsize>,
    refusals: Arc<Refusals>,
}

impl Pipeline {
    /// Begins to describe a pipeline.
    pub fn builder() -> Builder {
        Builder { files: Vec::new(), environment: Environment::of_process(), clock: Arc::new(SystemClock) }
    }

    /// Starts the pipeline of a file.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Pipeline, BuildError> {
        Pipeline::builder().file(path)?.start()
    }

    /// Starts a plan.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_plan(plan: Plan, environment: &Environment, clock: Arc<dyn Clock>) -> Result<Pipeline, StartError> {
        let graph = Arc::new(Graph::start(plan, environment, clock)?);
        let scrape_plan = ScrapePlan {
            created: graph.plan().http.created,
            declared: graph.rules.load().declared(),
            constant_labels: graph.constant_labels(),
            bytes_max: Some(body_bytes(&graph.plan())),
        };
        let refusals = Arc::new(Refusals::default());
        let live = {
            let refusals = Arc::clone(&refusals);
            let process = ProcessCollector::new();
            // Weak, since a graph that is held by its own scrape would never end.
            let graph = Arc::downgrade(&graph);
            move || {
                let Some(graph) = graph.upgrade() else { return LiveValues::default() };
                let names = Arc::clone(graph.roster().names());
                let status = graph.store.status();
                let mut live = live_values(&status, &process, &names, graph.clock.wall(), graph.started_at);
                live.families.push(refusals.family());
                live
            }
        };
        let scrape = Arc::new(Scrape::new(graph.view.clone(), scrape_plan, live));
        Ok(Pipeline { graph, scrape, next_shard: Arc::default(), refusals })
    }

    /// A producer for the calling thread: the fastest way in.
    ///
    /// # Errors
    /// [`Gone`] after a stop.
    pub fn producer(&self) -> Result<Producer, Gone> {
        self.graph.producers.producer()
    }

    /// A counter that may travel between threads.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Result<Counter, HandleError> {
        Counter::new(&self.graph.producers, name, labels)
    }

    /// A gauge that may travel between threads.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Result<Gauge, HandleError> {
        Gauge::new(&self.graph.producers, name, labels)
    }

    /// A histogram (any distribution) that may travel between threads; values in base units.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Result<Histogram, HandleError> {
        Histogram::new(&self.graph.producers, name, labels)
    }

    /// A histogram of durations, named and scaled as a StatsD timing is.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn timing(&self, name: &str, labels: &[(&str, &str)]) -> Result<Histogram, HandleError> {
        Histogram::timing(&self.graph.producers, name, labels)
    }

    /// A set that may travel between threads.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn set(&self, name: &str, labels: &[(&str, &str)]) -> Result<Set, HandleError> {
        Set::new(&self.graph.producers, name, labels)
    }

    /// A typed event of the pipeline file, resolved once; may travel between threads:
    /// `pipeline.event("model_generation")?.field("took", 15.4).field("success", true).emit()`.
    ///
    /// # Errors
    /// [`HandleError::Refused`] with `unknown_event` for a name that the file does not declare.
    pub fn event(&self, name: &str) -> Result<Event, HandleError> {
        Event::new(&self.graph.producers, name)
    }

    /// Waits until everything received before this call is durable and can be read (Q5).
    ///
    /// # Errors
    /// [`ReadError::NotCommitted`] while the store cannot commit.
    pub fn flush(&self) -> Result<CommitId, ReadError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.graph.store.flush(Box::new(move |commit| {
            // The waiting side may have given up.
            let _ = reply.send(commit);
        }));
        match answer.recv_timeout(FLUSH_WAIT) {
            Ok(Some(commit)) => Ok(commit),
            _ => Err(ReadError::NotCommitted),
        }
    }

    /// As [`flush`](Self::flush), without blocking the runtime.
    ///
    /// # Errors
    /// [`ReadError::NotCommitted`].
    pub async fn flush_async(&self) -> Result<CommitId, ReadError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.graph.store.flush(Box::new(move |commit| {
            // The waiting side may have given up.
            let _ = reply.send(commit);
        }));
        answer.await.ok().flatten().ok_or(ReadError::NotCommitted)
    }

    /// The value of a series under its exposed name: a counter's total, a gauge's last value, a
    /// distribution's count, a set's distinct members in the window. Sees every call that returned before.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, ReadError> {
        self.flush()?;
        Ok(as_number(&self.read(name, labels)?))
    }

    /// As [`get`](Self::get), without blocking the runtime.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get_async(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, ReadError> {
        self.flush_async().await?;
        Ok(as_number(&self.read(name, labels)?))
    }

    /// Everything about a distribution: count, sum, min, max, mean and buckets since creation, quantiles of
    /// the window with their bounds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn stats(&self, name: &str, labels: &[(&str, &str)]) -> Result<DistributionStats, ReadError> {
        self.flush()?;
        self.read_stats(name, labels, None)
    }

    /// As [`stats`](Self::stats), without blocking the runtime.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stats_async(&self, name: &str, labels: &[(&str, &str)]) -> Result<DistributionStats, ReadError> {
        self.flush_async().await?;
        self.read_stats(name, labels, None)
    }

    /// The q-quantile (q in [0, 1]) of a distribution's window, with its bound.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn quantile(&self, name: &str, labels: &[(&str, &str)], q: f64) -> Result<Quantile, ReadError> {
        self.flush()?;
        let stats = self.read_stats(name, labels, Some(q))?;
        stats.quantiles.first().copied().ok_or(ReadError::Unknown)
    }

    /// As [`quantile`](Self::quantile), without blocking the runtime.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn quantile_async(&self, name: &str, labels: &[(&str, &str)], q: f64) -> Result<Quantile, ReadError> {
        self.flush_async().await?;
        let stats = self.read_stats(name, labels, Some(q))?;
        stats.quantiles.first().copied().ok_or(ReadError::Unknown)
    }

    /// The value of every live series.
    ///
    /// # Errors
    /// [`ReadError::NotCommitted`].
    pub fn all(&self) -> Result<Vec<(Arc<Metric>, Labels, Value)>, ReadError> {
        self.flush()?;
        let mut all = Vec::new();
        for metric in self.graph.view.metrics() {
            let (family, _) = self.graph.view.series_since(&metric, u64::MAX, 0);
            let mut labels = Vec::with_capacity(family.series.len());
            self.graph.view.labels(metric.kind, &family.series, |found| labels.push(found.clone()));
            let ids: Vec<_> = family.series.iter().map(|(id, _)| *id).collect();
            let mut values = Vec::with_capacity(ids.len());
            self.graph.view.read(&metric, &ids, &mut values);
            for (labels, value) in labels.into_iter().zip(values) {
                if let Some(value) = value {
                    all.push((Arc::clone(&metric), labels, value));
                }
            }
        }
        Ok(all)
    }

    /// Takes no more input, drains and commits what was accepted, ends every thread.
    pub fn stop(&self, timeout: Duration) -> Report {
        self.graph.stop(timeout)
    }

    /// As [`stop`](Self::stop), on a thread of its own while the caller's runtime goes on.
    pub async fn stop_async(&self, timeout: Duration) -> Report {
        let pipeline = self.clone();
        match off_runtime("stop", move || pipeline.stop(timeout)).await {
            Ok(report) => report,
            Err(_) => self.stop(timeout),
        }
    }

    /// The plan it runs.
    pub fn plan(&self) -> Arc<Plan> {
        self.graph.plan()
    }

    /// The view, for readers that need more than the calls above.
    pub fn view(&self) -> &View {
        &self.graph.view
    }

    /// The state of the store.
    pub fn status(&self) -> StoreStatus {
        self.graph.store.status()
    }

    /// Committed tallies by source name, since the start.
    pub fn tallies(&self) -> Vec<(String, SourceTally)> {
        let mut tallies = self.graph.store.status().tallies;
        let names = self.source_names();
        tallies.resize_with(names.len(), SourceTally::default);
        names.iter().cloned().zip(tallies).collect()
    }

    /// Every listener, also those that were skipped.
    pub fn listeners(&self) -> Vec<ListenerState> {
        self.graph.listeners.lock().unwrap_or_else(PoisonError::into_inner).states()
    }

    /// Inputs that were refused lately.
    pub fn recent_rejects(&self) -> &RecentRejects {
        &self.graph.recent
    }

    /// Which metric a refused line of this name and type clashes with.
    pub fn conflicting(&self, name: &str, wire: WireType) -> Option<Arc<Metric>> {
        self.graph.rules.load().conflicting(name, wire)
    }

    /// Says which labels a sample under this name should have had, where a declaration fixes them.
    pub fn labels_hint(&self, name: &str, wire: WireType) -> Option<String> {
        self.graph.rules.load().labels_hint(name, wire)
    }

    /// The wall clock.
    pub(super) fn now(&self) -> Timestamp {
        self.graph.clock.wall()
    }

    /// What expressions are evaluated over.
    pub(super) fn worlds(&self) -> &Worlds {
        &self.graph.worlds
    }

    /// The newest whole events of schemas with `keep`, newest first: of one event, or of all.
    pub fn kept_events(&self, event: Option<&str>, limit: usize) -> Vec<KeptRow> {
        self.graph.store.kept(event, limit)
    }

    /// What reads the store from other threads.
    pub(super) fn store_reader(&self) -> StoreReader {
        self.graph.worlds.reader().clone()
    }

    /// The file of the store, and whether this start made it; `None` in memory.
    pub fn store_file(&self) -> (Option<&Path>, bool) {
        (self.graph.store_path.as_deref(), self.graph.is_new_store)
    }

    /// Names of the sources by index, also of those that a reload took away.
    pub fn source_names(&self) -> Arc<[String]> {
        Arc::clone(self.graph.roster().names())
    }

    /// The sources with the words of their types; `calls` is the process itself.
    pub(super) fn source_words(&self) -> Vec<(String, &'static str)> {
        self.graph.roster().words()
    }

    /// True for a source that people feed: also those that no file names, in the process and over HTTP. False for what
    /// the program says of itself and of its machine.
    pub fn is_fed(&self, source: &str) -> bool {
        self.graph.roster().is_fed(source)
    }

    /// The first actor that panicked, or why the store gave up.
    pub fn failure(&self) -> Option<String> {
        let status = self.graph.store.status();
        self.graph.failures.first().or(if status.is_fatal { status.error } else { None })
    }

    /// When it was started.
    pub fn started_at(&self) -> Timestamp {
        self.graph.started_at
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.graph.clock
    }

    /// Live series.
    pub fn series_count(&self) -> u32 {
        self.graph.table.lock().live()
    }

    fn read(&self, name: &str, labels: &[(&str, &str)]) -> Result<Value, ReadError> {
        let metric = self.graph.view.metric(name).ok_or(ReadError::Unknown)?;
        let labels = self.graph.rules.load().labels_of(&metric, labels).map_err(|_| ReadError::Unknown)?;
        let id = self.graph.view.id_of(&metric, &labels).ok_or(ReadError::Unknown)?;
        self.graph.view.value(&metric, id).ok_or(ReadError::Unknown)
    }

    fn read_stats(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        quantile: Option<f64>,
    ) -> Result<DistributionStats, ReadError> {
        let metric = self.graph.view.metric(name).ok_or(ReadError::Unknown)?;
        if metric.kind != Kind::Distribution {
            return Err(ReadError::OtherType);
        }
        let labels = self.graph.rules.load().labels_of(&metric, labels).map_err(|_| ReadError::Unknown)?;
        let id = self.graph.view.id_of(&metric, &labels).ok_or(ReadError::Unknown)?;
        let asked = quantile.map(|q| [q]);
        let quantiles = asked.as_ref().map_or(&metric.quantiles[..], |asked| &asked[..]);
        self.graph.view.stats(&metric, id, quantiles).ok_or(ReadError::Unknown)
    }
}
