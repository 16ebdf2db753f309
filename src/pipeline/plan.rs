//! The pipeline as meant: checked, defaults filled, no I/O. What every component is started from.
//!
//! In: [`PipelineFile`]s and an [`Environment`]. Out: [`Plan`], or every [`Diagnostics`] of the files. Owns:
//! nothing that runs. Invariant: a `Plan` that exists is valid: the window is a multiple of the slice, names
//! and limits are in range, no two metrics clash, and its memory need lies within `limits.memory`.

pub use super::plan_widgets::*;

use super::config::{self, PipelineFile, ReadFile};
use super::diagnostic::Diagnostics;
use super::paths::Environment;
use crate::event::SliceWidth;
use crate::rule::mapping::Mapping;
use crate::rule::typed::TypedConfig;
use crate::rule::{DeclaredMetric, ExtraLabels, METRICS_MAX, METRICS_MIN, Mappings, RulesConfig, Undeclared};
use crate::shard::JsonOptions;
use crate::sketch::Digits;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A whole pipeline. All durations are in nanoseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[A-Za-z0-9_.-]{1,64}`; the store's file name.
    pub name: String,
    /// Width of a slice, at least 1 s.
    pub slice: SliceWidth,
    /// What summaries cover by default; in `1..=`[`WINDOW_SLICES_MAX`].
    pub window_slices: u32,
    /// How long after its end a slice is closed.
    pub lateness: i64,
    /// What is later than this behind its own source is dropped and counted; at least `lateness`.
    pub accept_late: i64,
    /// What is further ahead of the wall clock than this is dropped and counted.
    pub max_future: i64,
    /// After so long at its end a partition leaves the watermark.
    pub idle_source: i64,
    /// A lagging source holds the closing of slices at most so long.
    pub hold_max: i64,
    /// On every series; valid, unreserved names, sorted.
    pub labels: Vec<(String, String)>,
    /// Metrics that nothing declares.
    pub defaults: DefaultsPlan,
    /// `[store]`
    pub store: StorePlan,
    /// `[limits]`
    pub limits: LimitsPlan,
    /// `[http]`
    pub http: HttpPlan,
    /// In the order of the file; place 0 is always `internal` (`SourceIndex(0)`).
    pub sources: Vec<SourcePlan>,
    /// In the order of the file, without those switched off.
    pub metrics: Vec<DeclaredMetric>,
    /// What feeds them, and the events and pairs that do.
    pub typed: TypedConfig,
    /// In the order of the file.
    pub widgets: Vec<WidgetPlan>,
    /// In the order of the file.
    pub panels: Vec<PanelPlan>,
    /// Prometheus rule files, resolved; a `*` in the name stands for anything.
    pub rules_files: Vec<PathBuf>,
    /// In the order of the file.
    pub tests: Vec<TestPlan>,
    /// What is worth a look, sorted by place.
    pub warnings: Diagnostics,
    /// Metrics whose stored series are retired at the start if they are of another scale or unit: `run --accept` (R2).
    pub accept: Vec<String>,
    /// The built-in default: a listener that cannot be bound is a warning as long as one is bound.
    pub built_in: bool,
}

/// Most slices of a window: a day of 10 s slices. Each takes part in the merged sketch's expiry queue.
pub const WINDOW_SLICES_MAX: u32 = 8640;

/// `[defaults]`
#[derive(Clone, Debug)]
pub struct DefaultsPlan {
    /// How undeclared distributions are kept and shown.
    pub undeclared: Undeclared,
    /// Tags that a declared metric does not name.
    pub extra_labels: ExtraLabels,
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePath {
    /// As written; [`super::paths::store_path`] resolves it.
    File(PathBuf),
    /// `:memory:` (H6).
    Memory,
}

/// One tier of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// A multiple of the slice and of the tier before.
    pub resolution: i64,
    /// At least its resolution and the keep of the tier before.
    pub keep: i64,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// Where it is.
    pub path: StorePath,
    /// Time between ticks, in 10 ms to 1 min.
    pub commit_every: i64,
    /// Finest first; the first has the resolution of the slice. At least one.
    pub tiers: Vec<Tier>,
    /// Bytes on disk (or in memory), at least 16 MiB.
    pub max_size: u64,
    /// Bytes of redb's page cache.
    pub cache: usize,
}

impl StorePlan {
    /// How long closed slices are kept at full resolution.
    pub fn keep(&self) -> i64 {
        self.tiers[0].keep
    }

    /// The longest time anything is kept: samples older than this are too late (T1).
    pub fn keep_longest(&self) -> i64 {
        self.tiers.iter().map(|tier| tier.keep).max().unwrap_or(0)
    }
}

/// `[limits]`; all above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsPlan {
    /// Live series.
    pub series: u32,
    /// Live series of one metric.
    pub series_per_metric: u32,
    /// Series in the file.
    pub stored_series: u32,
    /// Sketch cells in memory.
    pub cells: u64,
    /// Pairs that may be open at once.
    pub pairs: u32,
    /// Bytes that may wait in memory while the store cannot commit.
    pub pending: u64,
    /// Bytes that the computed need may reach.
    pub memory: u64,
    /// Nanoseconds without a sample after which a series leaves memory.
    pub idle: i64,
}

/// An address that HTTP listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket, path as written; [`super::paths::socket_path`] resolves it.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "unixstream:{}", path.display()),
        }
    }
}

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum Token {
    /// From the environment; not empty.
    Value(Secret<String>),
    /// A file, read at start: trimmed, not empty.
    File(PathBuf),
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct HttpPlan {
    /// Empty with `enabled = false`.
    pub listen: Vec<ListenAddress>,
    /// `None` only where all addresses are loopback or Unix sockets.
    pub token: Option<Token>,
    /// Of those who may reset series; `None` switches that off.
    pub admin_token: Option<Token>,
    /// `_created` lines in OpenMetrics.
    pub created: bool,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// The value, for the one place that compares or sends it.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `[sources.NAME]`
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// `[A-Za-z0-9_-]{1,64}`; the value of label `source`.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// False when switched off: it keeps its place and is not started.
    pub enabled: bool,
    /// On every sample of this source that has no label of that name; valid, unreserved names, sorted.
    pub labels: Vec<(String, String)>,
}

/// The types of sources.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// DogStatsD and StatsD over sockets.
    Socket(SocketPlan),
    /// Values of this machine.
    Host(HostPlan),
    /// Values of one process of this machine.
    Process(ProcessPlan),
    /// Values of NVIDIA cards.
    Gpu(GpuPlan),
    /// The pipeline's own metrics.
    Internal,
}

impl SourceKind {
    /// The word of `type`.
    pub fn as_str(&self) -> &'static str {
        match self {
            SourceKind::Socket(_) => "socket",
            SourceKind::Host(_) => "host",
            SourceKind::Process(_) => "process",
            SourceKind::Gpu(_) => "gpu",
            SourceKind::Internal => "internal",
        }
    }
}

/// A `mapping_file`, read and compiled with the pipeline file.
#[derive(Clone, Debug)]
pub struct MappingPlan {
    /// Where it is.
    pub path: PathBuf,
    /// Its rules.
    pub mapping: Arc<Mapping>,
}

/// What a socket source listens on. Paths as written; [`super::paths::socket_path`] resolves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// `unixgram:PATH`
    UnixDatagram(PathBuf),
    /// `unixstream:PATH`
    UnixStream(PathBuf),
    /// `udp:ADDRESS:PORT`
    Udp(SocketAddr),
    /// `tcp:ADDRESS:PORT`
    Tcp(SocketAddr),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::UnixDatagram(path) => write!(f, "unixgram:{}", path.display()),
            Listener::UnixStream(path) => write!(f, "unixstream:{}", path.display()),
            Listener::Udp(address) => write!(f, "udp:{address}"),
            Listener::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Which threads read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderThreads {
    /// The shard's own.
    Fused,
    /// Threads of their own.
    Split,
    /// Fused below 4 cores.
    Auto,
}

/// A source of type `socket`.
#[derive(Clone, Debug)]
pub struct SocketPlan {
    /// At least one.
    pub listen: Vec<Listener>,
    /// Permission bits of the socket files.
    pub mode: u32,
    /// Group of the socket files, name or number.
    pub group: Option<String>,
    /// Which threads read.
    pub threads: ReaderThreads,
    /// How JSON events of this source are read.
    pub json: JsonOptions,
    /// How names are read.
    pub mapping: Option<MappingPlan>,
}

/// A source of type `host`.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Between two readings; at least 1 s.
    pub every: i64,
    /// The mount point of `disk_*`.
    pub disk: PathBuf,
}

/// A source of type `process`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Between two readings; at least 1 s.
    pub every: i64,
    /// Which process.
    pub matches: ProcessMatch,
}

/// How a process is found; again at every reading, since it may have been started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessMatch {
    /// A file that holds its process id, resolved.
    PidFile(PathBuf),
    /// A part of its command line, arguments joined by spaces; of several processes the oldest.
    Command(String),
    /// The systemd unit whose processes they are; their values are summed.
    Unit(String),
}

/// A source of type `gpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuPlan {
    /// Between two readings; at least 1 s.
    pub every: i64,
    /// Path of the NVML library; `None` = the system's.
    pub library: Option<PathBuf>,
}

impl Plan {
    /// Reads files as one pipeline, and what they include from disk.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(files: &[PipelineFile], environment: &Environment) -> Result<Plan, Diagnostics> {
        Plan::load_from(files, environment, &PipelineFile::read)
    }

    /// As [`load`](Plan::load), with another way to read what they include.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_from(
        files: &[PipelineFile],
        environment: &Environment,
        read_file: ReadFile<'_>,
    ) -> Result<Plan, Diagnostics> {
        let mut errors = Diagnostics::new();
        let config = config::read(files, environment.variables(), read_file, &mut errors);
        let plan = config.and_then(|config| super::build::plan(&config, &mut errors));
        match plan {
            Some(plan) => errors.into_warnings().map(|warnings| Plan { warnings, ..plan }),
            None => {
                if errors.is_empty() {
                    errors.push(super::diagnostic::Diagnostic::bare("no pipeline file was given"));
                }
                Err(errors.sorted())
            }
        }
    }

    /// The built-in default pipeline, which `run` without a file uses.
    ///
    /// # Errors
    /// What is wrong with a variable that overrides one of its keys.
    pub fn built_in(environment: &Environment) -> Result<Plan, Diagnostics> {
        let mut plan = Plan::load(&[PipelineFile::built_in()], environment)?;
        plan.built_in = true;
        Ok(plan)
    }

    /// Which source reads names by which mapping file.
    fn mappings(&self) -> Mappings {
        let by_source = |plan: &SourcePlan| match &plan.kind {
            SourceKind::Socket(socket) => socket.mapping.as_ref().map(|file| Arc::clone(&file.mapping)),
            SourceKind::Host(_) | SourceKind::Process(_) | SourceKind::Gpu(_) | SourceKind::Internal => None,
        };
        Mappings { by_source: self.sources.iter().map(by_source).collect(), slice: self.slice.nanos() }
    }

    /// What rules are compiled from.
    pub fn rules(&self) -> RulesConfig {
        RulesConfig {
            undeclared: self.defaults.undeclared.clone(),
            extra_labels: self.defaults.extra_labels,
            constant_labels: self.labels.clone(),
            source_labels: self.sources.iter().map(|source| source.labels.clone()).collect(),
            declared: self.metrics.clone(),
            typed: self.typed.clone(),
            mappings: self.mappings(),
            metrics_max: (self.limits.series as usize).clamp(METRICS_MIN, METRICS_MAX),
        }
    }
}

impl Default for DefaultsPlan {
    fn default() -> DefaultsPlan {
        let RulesConfig { undeclared, extra_labels, .. } = RulesConfig::default();
        DefaultsPlan { undeclared, extra_labels }
    }
}

/// The digits of a sketch by their number.
pub(super) fn digits(number: u64) -> Option<Digits> {
    match number {
        1 => Some(Digits::One),
        2 => Some(Digits::Two),
        3 => Some(Digits::Three),
        _ => None,
    }
}

/// Quantiles as a metric keeps them.
pub(super) type Quantiles = Arc<[f64]>;
