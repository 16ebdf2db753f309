//! What rules are told: all of it ([`RulesConfig`]), about one metric by the pipeline file ([`DeclaredMetric`]), by
//! the program itself ([`MetricSpec`]), and why a stored one cannot be taken up again ([`RestoreError`]).

use super::METRICS_MAX;
use super::mapping::Mapping;
use super::typed::TypedConfig;
use crate::event::{Buckets, Expose, Group, Kind, Metric, MetricId, Scale, Unit};
use crate::sketch::Digits;
use std::sync::Arc;

/// What becomes of tags that a declared metric does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraLabels {
    /// Left out and counted: stock clients add `env`, `service` and `version` to everything.
    Drop,
    /// Kept as labels.
    Keep,
    /// The line is refused.
    Error,
}

/// How metrics that nothing declares are kept and shown.
#[derive(Clone, Debug)]
pub struct Undeclared {
    /// Distributions only; at least one is set.
    pub expose: Expose,
    /// In [0, 1], ascending.
    pub quantiles: Arc<[f64]>,
    /// Resolution of sketches.
    pub digits: Digits,
    /// At least 1.
    pub window_slices: u32,
    /// Nanoseconds without a sample after which a series leaves memory.
    pub idle: Option<i64>,
    /// Whether counters get `_total` and timings `_seconds`.
    pub suffixes: bool,
}

/// Everything rules are compiled from; plain values, checked by the plan.
#[derive(Clone, Debug)]
pub struct RulesConfig {
    /// Metrics that nothing declares.
    pub undeclared: Undeclared,
    /// Tags that a declared metric does not name.
    pub extra_labels: ExtraLabels,
    /// On every series that has no label of that name itself; valid, unreserved names.
    pub constant_labels: Vec<(String, String)>,
    /// The same for the samples of one source, whose labels go first; at the place of its index.
    pub source_labels: Vec<Vec<(String, String)>>,
    /// Valid exposed names, each once.
    pub declared: Vec<DeclaredMetric>,
    /// What feeds them.
    pub typed: TypedConfig,
    /// Mapping files of sources.
    pub mappings: Mappings,
    /// Most metrics: a flood of names is refused past it (`too_many_metrics`), as series fold past theirs.
    pub metrics_max: usize,
}

impl Default for RulesConfig {
    /// The defaults of the pipeline file, with nothing declared.
    fn default() -> RulesConfig {
        RulesConfig {
            undeclared: Undeclared {
                expose: Expose { summary: true, histogram: false },
                quantiles: Arc::new([0.5, 0.9, 0.95, 0.99]),
                digits: Digits::Two,
                window_slices: 30,
                idle: Some(24 * 3600 * 1_000_000_000),
                suffixes: true,
            },
            extra_labels: ExtraLabels::Drop,
            constant_labels: Vec::new(),
            source_labels: Vec::new(),
            declared: Vec::new(),
            typed: TypedConfig::default(),
            mappings: Mappings::default(),
            metrics_max: METRICS_MAX,
        }
    }
}

/// Which source reads names by which mapping file.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// At the place of the source's index; what lies past the end has none.
    pub by_source: Vec<Option<Arc<Mapping>>>,
    /// Nanoseconds of a slice, which a `max_age` is rounded up to; above 0 where there is a mapping.
    pub slice: i64,
}

/// A metric of the pipeline file, checked and with its defaults filled.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredMetric {
    /// The exposed name, namespace included; valid, at most 200 bytes.
    pub name: String,
    /// The namespace it stands under, empty for none.
    pub namespace: String,
    /// What its series are.
    pub kind: Kind,
    /// `# HELP`.
    pub help: String,
    /// Its unit.
    pub unit: Unit,
    /// The unit of its sums.
    pub scale: Scale,
    /// Exactly the labels of its series, constant labels apart.
    pub labels: Vec<String>,
    /// Distributions only.
    pub expose: Expose,
    /// In [0, 1], ascending.
    pub quantiles: Arc<[f64]>,
    /// Resolution of its sketches.
    pub digits: Digits,
    /// At least 1.
    pub window_slices: u32,
    /// For distributions that are exposed as histograms.
    pub buckets: Option<Arc<Buckets>>,
    /// Where it is shown.
    pub group: Group,
    /// Nanoseconds; `None` = never.
    pub idle: Option<i64>,
    /// See [`Metric::holds`].
    pub holds: Option<i64>,
}

impl DeclaredMetric {
    /// The metric without its number.
    pub(super) fn into_metric(self) -> Metric {
        Metric {
            id: MetricId(0),
            name: self.name.into(),
            kind: self.kind,
            unit: self.unit,
            scale: self.scale,
            help: self.help.into(),
            declared: true,
            label_names: Some(self.labels.into_iter().map(String::into_boxed_str).collect()),
            expose: self.expose,
            quantiles: self.quantiles,
            digits: self.digits,
            window_slices: self.window_slices,
            buckets: self.buckets,
            group: self.group,
            idle: self.idle,
            holds: self.holds,
        }
    }
}

/// A metric that the program itself keeps: `hydrograph_*`, `host_*`. Its series never expire.
#[derive(Clone, Debug)]
pub struct MetricSpec<'a> {
    /// Exactly the exposed name.
    pub name: &'a str,
    /// What its series are.
    pub kind: Kind,
    /// `# HELP`.
    pub help: &'a str,
    /// `None` = as the name ends.
    pub unit: Option<Unit>,
    /// `None` = by kind and unit.
    pub scale: Option<Scale>,
    /// Where it is shown.
    pub group: Group,
    /// `None` = any.
    pub label_names: Option<&'a [&'a str]>,
    /// Distributions only; `None` = as undeclared ones.
    pub expose: Option<Expose>,
    /// See [`Metric::holds`].
    pub holds: Option<i64>,
}

impl<'a> MetricSpec<'a> {
    /// A metric on `/metrics` and in a group, its unit and scale by its name.
    pub fn new(name: &'a str, kind: Kind, help: &'a str, group: &str) -> MetricSpec<'a> {
        let group = Group::Named(group.into());
        MetricSpec { name, kind, help, unit: None, scale: None, group, label_names: None, expose: None, holds: None }
    }
}

/// Why a stored metric cannot be taken up again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its name belongs to another metric now, by declaration; the stored series stay in the file, unshown.
    #[error("stored {} {name:?} clashes with a metric that the pipeline file declares", kind.as_str())]
    Clash {
        /// The stored name.
        name: String,
        /// The stored kind.
        kind: Kind,
    },
    /// Declared in another scale than its sums are counted in (R2).
    #[error(
        "metric {name:?} is stored in units of 1e-{stored} and declared in units of 1e-{now}; declare `scale = 1e-{stored}`, or start once with `--accept {name}`, which retires the old series"
    )]
    Scale {
        /// The metric.
        name: String,
        /// Exponent of the stored scale.
        stored: u8,
        /// Exponent of the declared scale.
        now: u8,
    },
    /// Declared with another unit than it is stored in (R2).
    #[error(
        "metric {name:?} is stored with unit {stored:?} and declared with unit {now:?}; keep the unit, or start once with `--accept {name}`, which retires the old series"
    )]
    Unit {
        /// The metric.
        name: String,
        /// The stored unit; empty for none.
        stored: String,
        /// The declared unit; empty for none.
        now: String,
    },
    /// Not a metric name.
    #[error("stored metric name {name:?} is not a metric name")]
    Name {
        /// What stands in the store.
        name: String,
    },
}
