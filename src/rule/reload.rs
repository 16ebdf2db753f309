//! Rules by another pipeline file, over the metrics of the old ones (R1, R2).
//!
//! In: the rules that run, what the next are compiled from. Out: the next, and what they mean otherwise. Owns: nothing.
//! Invariants: either everything takes over or nothing does; a metric keeps its number, kind and scale; an event and a pair
//! keep their places; rules that are still in use go on working until whoever holds them lets go.

use super::typed::Typed;
use super::{Rules, RulesConfig, Undeclared, default_buckets, prefixes_of};
use crate::event::{Group, Kind, Metric, MetricId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// How a running pipeline is told that series may be retired.
const ACCEPT: &str = "POST /-/reload?accept=";

/// Why other rules cannot take over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedeclareError {
    /// Sums count in another scale.
    #[error(
        "metric {name:?} counts in units of 1e-{stored} and is now declared in units of 1e-{now}; declare `scale = 1e-{stored}`, give it another name, or accept that its old series are retired ({accept}{name})", accept = ACCEPT
    )]
    Scale {
        /// The metric.
        name: String,
        /// Exponent of the scale it has.
        stored: u8,
        /// Exponent of the declared scale.
        now: u8,
    },
    /// Values are of another unit.
    #[error(
        "metric {name:?} has unit {stored} and is now declared with unit {now}; keep `unit = \"{stored}\"`, give it another name, or accept that its old series are retired ({accept}{name})", accept = ACCEPT
    )]
    Unit {
        /// The metric.
        name: String,
        /// The unit it has.
        stored: &'static str,
        /// The declared unit.
        now: &'static str,
    },
    /// Declared buckets are counted beside cells of one resolution; others merge in the file, not in memory.
    #[error(
        "metric {name:?} keeps buckets beside {stored} digits and is now declared with {now}; that needs a restart"
    )]
    Digits {
        /// The metric.
        name: String,
        /// The digits it has.
        stored: u8,
        /// The declared digits.
        now: u8,
    },
    /// Two metrics would share a name in an exposition.
    #[error("metric {name:?} would share a name on /metrics with {other:?}; that needs a restart, or another name")]
    Clash {
        /// The one.
        name: String,
        /// The other.
        other: String,
    },
    /// A name in the list of accepted ones that is none of a declared metric.
    #[error("accept names {0:?}, which is no metric of the pipeline file")]
    Accept(String),
    /// What is stored could not be retired.
    #[error("the old series could not be retired: {0}")]
    Retire(String),
    /// The typed rules do not fit together.
    #[error("{0}")]
    Typed(String),
}

/// Rules that are ready to take over.
pub struct Redeclaration {
    /// The rules.
    pub rules: Arc<Rules>,
    /// Declared for the first time, under a name or a kind that was not there.
    pub added: Vec<Arc<Metric>>,
    /// As they were, and as they are.
    pub changed: Vec<(Arc<Metric>, Arc<Metric>)>,
    /// Metrics whose name belongs to another kind, scale or unit now; their series are not shown any more.
    pub retired: Vec<MetricId>,
}

impl Rules {
    /// Compiles other rules over the same metrics. From here on whoever asks for a metric gets its new words, by these
    /// rules or the new ones.
    ///
    /// The metrics of `accept` may be of another scale or unit than they were. Those that are become other metrics under
    /// the same name and kind; `retire` is called with the old ones, while nobody can ask for a metric, and has to see to
    /// it that their series have another name from then on.
    ///
    /// # Errors
    /// [`RedeclareError`]; then nothing has changed.
    pub fn reload(
        &self,
        config: RulesConfig,
        accept: &[String],
        retire: impl FnOnce(&[Arc<Metric>]) -> Result<(), String>,
    ) -> Result<Redeclaration, RedeclareError> {
        let is_unknown = |name: &&String| !config.declared.iter().any(|metric| metric.name == **name);
        if let Some(unknown) = accept.iter().find(is_unknown) {
            return Err(RedeclareError::Accept(unknown.clone()));
        }
        let prefixes = prefixes_of(&config.declared);
        let declared = config.declared.into_iter().map(super::DeclaredMetric::into_metric).collect();
        let mut guard = self.write();
        let words = |metric: &Metric| words_of(metric, &self.undeclared, &config.undeclared);
        let (registry, outcome) = guard.reload(declared, words, accept)?;
        let typed = Typed::following(&config.typed, &outcome.declared, &self.typed).map_err(RedeclareError::Typed)?;
        let rules = Rules {
            undeclared: config.undeclared,
            extra_labels: config.extra_labels,
            constant_labels: config.constant_labels.into(),
            source_labels: config.source_labels.into(),
            mappings: config.mappings,
            metrics_max: config.metrics_max.max(registry.len()),
            prefixes,
            declared: outcome.declared.iter().map(|metric| (metric.name.clone(), metric.id)).collect(),
            typed,
            registry: Arc::clone(&self.registry),
            by_wire: RwLock::default(),
        };
        if !outcome.replaced.is_empty() {
            retire(&outcome.replaced).map_err(RedeclareError::Retire)?;
        }
        *guard = registry;
        Ok(Redeclaration {
            rules: Arc::new(rules),
            added: outcome.added,
            changed: outcome.changed,
            retired: outcome.retired,
        })
    }
}

/// How a metric that no file declares is kept and shown: what it has of the old defaults follows the new ones. One that
/// was declared has nothing but its name, kind, unit, scale and help left.
fn words_of(metric: &Metric, old: &Undeclared, new: &Undeclared) -> Metric {
    let mut metric = metric.clone();
    if metric.declared {
        metric.declared = false;
        metric.label_names = None;
        metric.group = Group::Main;
        metric.quantiles = Arc::clone(&new.quantiles);
        metric.window_slices = new.window_slices;
        (metric.idle, metric.holds) = (new.idle, None);
        if metric.kind == Kind::Distribution {
            metric.expose = new.expose;
            metric.buckets = default_buckets(metric.expose, metric.unit, metric.scale);
        }
        return metric;
    }
    if metric.quantiles == old.quantiles {
        metric.quantiles = Arc::clone(&new.quantiles);
    }
    if metric.window_slices == old.window_slices {
        metric.window_slices = new.window_slices;
    }
    if metric.idle == old.idle {
        metric.idle = new.idle;
    }
    if metric.kind == Kind::Distribution && metric.expose == old.expose && old.expose != new.expose {
        metric.expose = new.expose;
        metric.buckets = default_buckets(metric.expose, metric.unit, metric.scale);
    }
    metric
}

/// The rules that a pipeline runs by, wherever they are asked for now and then.
pub struct SharedRules {
    generation: AtomicU64,
    current: RwLock<Arc<Rules>>,
}

impl SharedRules {
    /// The first rules.
    pub fn new(rules: Arc<Rules>) -> SharedRules {
        SharedRules { generation: AtomicU64::new(0), current: RwLock::new(rules) }
    }

    /// The rules now.
    pub fn load(&self) -> Arc<Rules> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with every [`swap`](Self::swap): what was looked up in an earlier generation is to be looked up again.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Other rules take over.
    pub fn swap(&self, rules: Arc<Rules>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
