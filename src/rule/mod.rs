//! Rules: which metric and which series a sample belongs to. Asked on a decoder's miss only, never per sample.
//!
//! In: a name, a wire type and tags as bytes; or a declaration of our own. Out: [`Resolved`] (metric, canonical
//! labels, power of ten from wire value to scale units) or a [`RejectReason`]. Owns: the metrics of the process
//! behind one lock. Invariants: one name has one type for the life of the process and across restarts
//! ([`Rules::restore`]); no two metrics share a name in any exposition; a declared metric has exactly its labels.

mod bucket;
pub mod mapping;
mod labels;
mod mapped;
mod name;
mod own;
mod registry;
mod scale;
mod reload;
mod spec;
pub mod typed;

pub use bucket::{BUCKETS_MAX, BucketError, PRESETS, buckets, default_bounds, preset};
pub use name::{
    NAME_BYTES_MAX, claims, escape_label_name, escape_metric_name, is_label_name, is_metric_name, unit_of_name,
    unit_of_word, window_name, with_suffix,
};
pub use own::{HOST_METRICS, OwnMetric, PIPELINE_METRICS};
pub use reload::{Redeclaration, RedeclareError, SharedRules};
pub use scale::default_scale;
pub use spec::{DeclaredMetric, ExtraLabels, Mappings, MetricSpec, RestoreError, RulesConfig, Undeclared};

use crate::event::{Expose, Group, Kind, Labels, Metric, MetricId, RejectReason, Scale, SourceIndex, Unit, WireType};
use hashbrown::HashMap;
use registry::Registry;
use scale::{default_buckets, input_exponent};
use std::cmp::Reverse;
use std::sync::{Arc, PoisonError, RwLock};
use typed::{StatsdMatch, Typed};

/// Fewest metrics that any pipeline may have: a small `limits.series` folds series, it refuses no names.
pub const METRICS_MIN: usize = 10_000;

/// Most metrics (names) of one pipeline. A metric costs about 1 KiB with its names and help, so this is
/// 100 MB; real services have hundreds to thousands, and more than this is a flood of generated names.
pub const METRICS_MAX: usize = 100_000;

/// Names that the scrape renders live, besides all that begin with `hydrograph_`: a sample of such a name
/// would put a second family of that name into the exposition.
const LIVE_NAMES: [&str; 10] = [
    "process_cpu_seconds",
    "process_cpu_seconds_created",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_virtual_memory_max_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "process_threads",
];

/// Names that no sample and no declaration may take: the program renders them itself.
pub fn is_reserved_name(name: &str) -> bool {
    name.starts_with("hydrograph_") || LIVE_NAMES.contains(&name)
}

/// What the stock clients say of themselves begins so; it goes to group `internal` as `hydrograph_client_*`.
pub const CLIENT_TELEMETRY: &str = "datadog.dogstatsd.client.";

/// What the names of that begin with once they are exposed.
const TELEMETRY_PREFIX: &str = "hydrograph_client_";

/// Names of that beyond which new ones are refused: the stock clients have some twenty. They have a bound of their own,
/// since nobody sees them on `/metrics` and they must not take the place of what people measure.
pub const CLIENT_TELEMETRY_MAX: usize = 256;

/// Whose samples have no labels but their own and those of every series: `internal` has no table in a file.
const NO_SOURCE: SourceIndex = SourceIndex(0);

/// Where a sample goes.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The metric, declared or registered by this call.
    pub metric: Arc<Metric>,
    /// The series' labels, constant ones included.
    pub labels: Labels,
    /// wire value × 10^this = scale units of the metric; -12 to 21, 0 for sets.
    pub input_exponent: i8,
    /// Values are multiplied by 10^this first: `scale` of a mapping file.
    pub shift: i8,
    /// Tags that a declared metric does not name and that were left out.
    pub labels_dropped: u16,
}

/// There are as many metrics as there may be: a new name is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesFull {
    /// How many there are.
    pub names: usize,
    /// What most of them begin with, up to and with the first `_`; the least of several.
    pub prefix: String,
    /// How many do.
    pub with_prefix: usize,
}

/// The compiled rules. Shared by all decoders; cheap to ask from any thread.
pub struct Rules {
    undeclared: Undeclared,
    extra_labels: ExtraLabels,
    constant_labels: Box<[(String, String)]>,
    /// At the place of the source's index; what lies past the end has none.
    source_labels: Box<[Vec<(String, String)>]>,
    mappings: Mappings,
    metrics_max: usize,
    /// Distinct namespaces of declared metrics, each with its `_`.
    prefixes: Box<[String]>,
    declared: HashMap<Arc<str>, MetricId, foldhash::fast::RandomState>,
    typed: Typed,
    /// Shared with the rules that these follow, and that follow them.
    registry: Arc<RwLock<Registry>>,
    /// What names on the wire came to, by type; at most as many of each as there may be metrics. New series
    /// mostly come under old names, and need not be escaped and looked up again.
    by_wire: RwLock<[WireNames; 6]>,
}

type WireNames = HashMap<Box<[u8]>, MetricId, foldhash::fast::RandomState>;

/// Distinct namespaces of declared metrics, each with its `_`.
fn prefixes_of(declared: &[DeclaredMetric]) -> Box<[String]> {
    let mut prefixes: Vec<String> = Vec::new();
    for metric in declared.iter().filter(|metric| !metric.namespace.is_empty()) {
        let prefix = format!("{}_", metric.namespace);
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes.into()
}

impl Rules {
    /// Compiles rules.
    ///
    /// # Errors
    /// The name of the first declared metric that shares an exposition name with an earlier one, or what does not fit in
    /// the typed rules.
    pub fn new(config: RulesConfig) -> Result<Rules, String> {
        let mut registry = Registry::default();
        let mut declared = HashMap::default();
        let prefixes = prefixes_of(&config.declared);
        let mut metrics = Vec::with_capacity(config.declared.len());
        for metric in config.declared {
            let name = metric.name.clone();
            let metric = registry.insert(metric.into_metric(), false).map_err(|_| name)?;
            declared.insert(metric.name.clone(), metric.id);
            metrics.push(metric);
        }
        Ok(Rules {
            undeclared: config.undeclared,
            extra_labels: config.extra_labels,
            constant_labels: config.constant_labels.into(),
            source_labels: config.source_labels.into(),
            mappings: config.mappings,
            metrics_max: config.metrics_max.max(registry.len()),
            prefixes,
            declared,
            typed: Typed::new(&config.typed, &metrics)?,
            registry: Arc::new(RwLock::new(registry)),
            by_wire: RwLock::default(),
        })
    }

    /// The series of a line from the wire, whatever mapping its source has. A tag is (key, value); a bare tag's value is `true`.
    ///
    /// # Errors
    /// The reason the line is refused.
    pub fn resolve<'t>(
        &self,
        source: SourceIndex,
        name: &[u8],
        wire: WireType,
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    ) -> Result<Resolved, RejectReason> {
        self.resolve_as(source, name, wire, tags, self.extra_labels)
    }

    /// The series of a handle or another typed producer: named as on the wire, but a declared metric takes
    /// exactly its labels.
    ///
    /// # Errors
    /// The reason the handle is refused.
    pub fn resolve_handle(
        &self,
        name: &str,
        wire: WireType,
        labels: &[(&str, &str)],
    ) -> Result<Resolved, RejectReason> {
        let labels = labels.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        self.resolve_as(NO_SOURCE, name.as_bytes(), wire, labels, ExtraLabels::Error)
    }

    /// As [`resolve_handle`](Self::resolve_handle), of labels as bytes and with those of a source.
    ///
    /// # Errors
    /// The reason the sample is refused.
    pub fn resolve_exact(
        &self,
        source: SourceIndex,
        name: &str,
        wire: WireType,
        labels: &[(&[u8], &[u8])],
    ) -> Result<Resolved, RejectReason> {
        self.resolve_as(source, name.as_bytes(), wire, labels.iter().copied(), ExtraLabels::Error)
    }

    /// The series of a service check: gauge `service_check_status{check, ...tags}`, values 0 to 3.
    ///
    /// # Errors
    /// The reason the check is refused.
    pub fn resolve_service_check<'t>(
        &self,
        source: SourceIndex,
        check: &'t [u8],
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    ) -> Result<Resolved, RejectReason> {
        if check.is_empty() {
            return Err(RejectReason::EmptyName);
        }
        let tags = std::iter::once((&b"check"[..], check)).chain(tags.filter(|(key, _)| *key != b"check"));
        self.resolve(source, b"service_check_status", WireType::Gauge, tags)
    }

    fn resolve_as<'t>(
        &self,
        source: SourceIndex,
        name: &[u8],
        wire: WireType,
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
        extra: ExtraLabels,
    ) -> Result<Resolved, RejectReason> {
        let known = self.known(wire, name);
        let metric = match known {
            Some(metric) => metric,
            None => {
                if let Some(matched) = self.pattern_of(name, wire) {
                    return self.resolve_pattern(source, &matched, wire, tags, extra);
                }
                let metric = self.metric_of(name, wire)?;
                self.remember(wire, name, metric.id);
                metric
            }
        };
        let input_exponent = input_exponent(&metric, wire)?;
        let (labels, labels_dropped) = self.labels(source, &metric, tags, extra)?;
        Ok(Resolved { metric, labels, input_exponent, shift: 0, labels_dropped })
    }

    /// The metric that a name on the wire came to before.
    fn known(&self, wire: WireType, name: &[u8]) -> Option<Arc<Metric>> {
        let id = *self.by_wire.read().unwrap_or_else(PoisonError::into_inner)[wire as usize].get(name)?;
        self.read().current(id).cloned()
    }

    /// Remembers it, while fewer are than there may be metrics.
    fn remember(&self, wire: WireType, name: &[u8], id: MetricId) {
        let names = &mut self.by_wire.write().unwrap_or_else(PoisonError::into_inner)[wire as usize];
        if names.len() < self.metrics_max {
            names.insert(name.into(), id);
        }
    }

    /// The feed whose pattern a name matches, unless a declared metric has the name itself. Not remembered: the labels
    /// differ by name, and a decoder asks once a key.
    fn pattern_of(&self, name: &[u8], wire: WireType) -> Option<StatsdMatch<'_>> {
        if !self.typed.has_patterns() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?;
        match self.find_declared(&escape_metric_name(name), Some(wire)) {
            Some(found) if found.kind == wire.kind() => None,
            _ => self.typed.statsd(name, wire.kind()),
        }
    }

    fn resolve_pattern<'t>(
        &self,
        source: SourceIndex,
        matched: &StatsdMatch<'_>,
        wire: WireType,
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
        extra: ExtraLabels,
    ) -> Result<Resolved, RejectReason> {
        let mut pairs: Vec<(&[u8], &[u8])> =
            matched.labels.iter().map(|(label, text)| (label.as_bytes(), text.as_bytes())).collect();
        let captured = pairs.len();
        for pair in tags {
            if !pairs[..captured].iter().any(|(label, _)| *label == pair.0) {
                pairs.push(pair);
            }
        }
        let (labels, labels_dropped) = self.labels(source, matched.metric, pairs.into_iter(), extra)?;
        let input_exponent = input_exponent(matched.metric, wire)?;
        Ok(Resolved {
            metric: Arc::clone(matched.metric),
            labels,
            input_exponent,
            shift: matched.exponent,
            labels_dropped,
        })
    }

    /// The rules of typed events.
    pub fn typed(&self) -> &Typed {
        &self.typed
    }

    fn metric_of(&self, wire_name: &[u8], wire: WireType) -> Result<Arc<Metric>, RejectReason> {
        if wire_name.is_empty() {
            return Err(RejectReason::EmptyName);
        }
        if wire_name.len() > NAME_BYTES_MAX {
            return Err(RejectReason::NameTooLong);
        }
        let wire_name = std::str::from_utf8(wire_name).map_err(|_| RejectReason::InvalidUtf8)?;
        let telemetry = wire_name.strip_prefix(CLIENT_TELEMETRY);
        let escaped = match telemetry {
            Some(rest) => format!("{TELEMETRY_PREFIX}{}", escape_metric_name(rest)).into(),
            None => escape_metric_name(wire_name),
        };
        if telemetry.is_none() {
            if is_reserved_name(&escaped) {
                return Err(RejectReason::TypeConflict);
            }
            if let Some(found) = self.find_declared(&escaped, Some(wire)) {
                return if found.kind == wire.kind() { Ok(found) } else { Err(RejectReason::TypeConflict) };
            }
        }
        let suffixes = self.undeclared.suffixes || telemetry.is_some();
        let exposed = if suffixes { with_suffix(&escaped, wire) } else { escaped };
        if exposed.len() > NAME_BYTES_MAX {
            return Err(RejectReason::NameTooLong);
        }
        {
            let registry = self.read();
            if let Some((metric, false)) = registry.get(&exposed) {
                return if metric.kind == wire.kind() { Ok(metric.clone()) } else { Err(RejectReason::TypeConflict) };
            }
        }
        let kind = wire.kind();
        let unit = if wire == WireType::Timing { Unit::Seconds } else { unit_of_name(&exposed) };
        let word = match wire {
            WireType::Count => "counter",
            WireType::Timing => "timing",
            WireType::Histogram => "histogram",
            _ => kind.as_str(),
        };
        let group = if telemetry.is_some() { Group::InternalOnly } else { Group::Main };
        let help = format!("{word} received as {wire_name}");
        let scale = default_scale(kind, unit);
        self.register(self.undeclared_metric(&exposed, kind, unit, scale, &help, group), self.metrics_max)
    }

    /// A declared metric by its own name, by its name with the suffix of `wire`, or by either under a
    /// namespace. Of several the one of the right kind is taken.
    fn find_declared(&self, escaped: &str, wire: Option<WireType>) -> Option<Arc<Metric>> {
        if self.declared.is_empty() {
            return None;
        }
        let suffixed = wire.map(|wire| with_suffix(escaped, wire)).filter(|name| &**name != escaped);
        let bases = std::iter::once(escaped).chain(suffixed.as_deref());
        let mut other_kind = None;
        for base in bases {
            let under = self.prefixes.iter().map(|prefix| format!("{prefix}{base}").into());
            for candidate in std::iter::once(std::borrow::Cow::Borrowed(base)).chain(under) {
                if !self.declared.contains_key(&*candidate) {
                    continue;
                }
                let registry = self.read();
                let (metric, _) = registry.get(&candidate).expect("declared metrics are registered first");
                if wire.is_none_or(|wire| wire.kind() == metric.kind) {
                    return Some(metric.clone());
                }
                other_kind.get_or_insert_with(|| metric.clone());
            }
        }
        other_kind
    }

    /// The constant labels, which the overflow series of a metric has too.
    pub fn constant_labels(&self) -> &[(String, String)] {
        &self.constant_labels
    }

    /// A metric by exactly its exposed name: own metrics and collectors. A declaration of the pipeline file
    /// wins (also under a namespace), if it has the same kind.
    ///
    /// # Errors
    /// `NameTooLong`, `Malformed` (not a Prometheus name), `TypeConflict`, `TooManyMetrics`.
    pub fn metric(&self, spec: &MetricSpec<'_>) -> Result<Arc<Metric>, RejectReason> {
        if spec.name.len() > NAME_BYTES_MAX {
            return Err(RejectReason::NameTooLong);
        }
        if !is_metric_name(spec.name) {
            return Err(RejectReason::Malformed);
        }
        if let Some(found) = self.find_declared(spec.name, None) {
            return if found.kind == spec.kind { Ok(found) } else { Err(RejectReason::TypeConflict) };
        }
        let unit = spec.unit.unwrap_or_else(|| unit_of_name(spec.name));
        let scale = spec.scale.unwrap_or_else(|| default_scale(spec.kind, unit));
        let mut metric = self.undeclared_metric(spec.name, spec.kind, unit, scale, spec.help, spec.group.clone());
        (metric.idle, metric.holds) = (None, spec.holds);
        metric.label_names = spec.label_names.map(|names| names.iter().map(|name| Box::from(*name)).collect());
        if let (Kind::Distribution, Some(expose)) = (spec.kind, spec.expose) {
            metric.expose = expose;
            metric.buckets = default_buckets(expose, unit, scale);
        }
        // The program's own are few, and a small limit must not take them out.
        self.register(metric, usize::MAX)
    }

    /// A metric that the store knows from an earlier run. Its help is a guess until it is seen again.
    ///
    /// # Errors
    /// [`RestoreError`]: the series stays in the file, and is not shown.
    pub fn restore(&self, name: &str, kind: Kind, scale: Scale) -> Result<Arc<Metric>, RestoreError> {
        let known = self.read().get(name).map(|(metric, _)| metric.clone());
        if let Some(known) = known {
            if known.kind != kind {
                return Err(RestoreError::Clash { name: name.to_owned(), kind });
            }
            if known.scale != scale {
                let (stored, now) = (scale.exponent(), known.scale.exponent());
                return Err(RestoreError::Scale { name: name.to_owned(), stored, now });
            }
            return Ok(known);
        }
        if !is_metric_name(name) || name.len() > NAME_BYTES_MAX {
            return Err(RestoreError::Name { name: name.to_owned() });
        }
        let group = if name.starts_with(TELEMETRY_PREFIX) { Group::InternalOnly } else { Group::Main };
        let help = format!("{} kept from an earlier run", kind.as_str());
        let metric = self.undeclared_metric(name, kind, unit_of_name(name), scale, &help, group);
        let mut registry = self.write();
        registry.insert(metric, true).map_err(|_| RestoreError::Clash { name: name.to_owned(), kind })
    }

    /// All metrics, in order of their numbers: `MetricId(n)` stands at place n.
    pub fn metrics(&self) -> Vec<Arc<Metric>> {
        self.read().all().cloned().collect()
    }

    /// The metric of a number.
    pub fn numbered(&self, id: MetricId) -> Option<Arc<Metric>> {
        self.read().numbered(id).cloned()
    }

    /// Which metric keeps a name on the wire from becoming a sample of this type: it has the name, or one that would
    /// clash with it in an exposition.
    pub fn conflicting(&self, wire_name: &str, wire: WireType) -> Option<Arc<Metric>> {
        let escaped = escape_metric_name(wire_name);
        let declared = self.find_declared(&escaped, Some(wire)).filter(|found| found.kind != wire.kind());
        declared.or_else(|| {
            let exposed = if self.undeclared.suffixes { with_suffix(&escaped, wire) } else { escaped };
            let unit = if wire == WireType::Timing { Unit::Seconds } else { unit_of_name(&exposed) };
            let names = claims(&exposed, wire.kind(), unit, self.undeclared.expose);
            let registry = self.read();
            let owner = names.iter().find_map(|name| registry.owner(name));
            owner.filter(|owner| owner.kind != wire.kind() || *owner.name != *exposed).cloned()
        })
    }

    /// Says which labels a sample under this name on the wire should have had, where a declaration fixes them.
    pub fn labels_hint(&self, wire_name: &str, wire: WireType) -> Option<String> {
        let metric = self.find_declared(&escape_metric_name(wire_name), Some(wire))?;
        let names: Vec<&str> = metric.label_names.as_ref()?.iter().map(|name| &**name).collect();
        let fixed = if names.is_empty() { "no labels".to_owned() } else { format!("the labels {}", names.join(", ")) };
        Some(format!("metric {:?} is declared with {fixed}", metric.name))
    }

    /// The declared metrics: in the order of the pipeline file, until a reload adds one.
    pub fn declared(&self) -> Vec<Arc<Metric>> {
        self.read().declared()
    }

    /// What fills the limit of names when it is full; passes over all names then.
    pub fn names_full(&self) -> Option<NamesFull> {
        let registry = self.read();
        let names = registry.len();
        if names < self.metrics_max {
            return None;
        }
        let mut counts: HashMap<&str, usize, foldhash::fast::RandomState> = HashMap::default();
        for metric in registry.all().filter(|metric| !metric.name.starts_with(TELEMETRY_PREFIX)) {
            let end = metric.name.find('_').map_or(metric.name.len(), |at| at + 1);
            *counts.entry(&metric.name[..end]).or_default() += 1;
        }
        let (prefix, with_prefix) = counts.into_iter().max_by_key(|(prefix, count)| (*count, Reverse(*prefix)))?;
        Some(NamesFull { names, prefix: prefix.to_owned(), with_prefix })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metric of that name, added if it is new; a guess from the store gets its real words.
    fn register(&self, metric: Metric, most: usize) -> Result<Arc<Metric>, RejectReason> {
        let mut registry = self.write();
        match registry.get(&metric.name) {
            Some((known, _)) if known.kind != metric.kind => Err(RejectReason::TypeConflict),
            Some((known, false)) => Ok(known.clone()),
            Some((known, true)) => {
                let known = known.clone();
                // A sample of a guessed metric keeps the stored scale: sums already count in it (R2).
                let buckets = default_buckets(metric.expose, metric.unit, known.scale);
                let metric = Metric { scale: known.scale, buckets, ..metric };
                Ok(registry.settle(metric).unwrap_or(known))
            }
            None if metric.name.starts_with(TELEMETRY_PREFIX) && registry.telemetry() >= CLIENT_TELEMETRY_MAX => {
                Err(RejectReason::TooManyMetrics)
            }
            None if registry.len() >= most => Err(RejectReason::TooManyMetrics),
            None => registry.insert(metric, false),
        }
    }

    fn undeclared_metric(&self, name: &str, kind: Kind, unit: Unit, scale: Scale, help: &str, group: Group) -> Metric {
        let distribution = kind == Kind::Distribution;
        let none = Expose { summary: false, histogram: false };
        let expose = if distribution { self.undeclared.expose } else { none };
        Metric {
            id: MetricId(0),
            name: name.into(),
            kind,
            unit,
            scale,
            help: help.into(),
            declared: false,
            label_names: None,
            expose,
            quantiles: self.undeclared.quantiles.clone(),
            digits: self.undeclared.digits,
            window_slices: self.undeclared.window_slices,
            buckets: default_buckets(expose, unit, scale),
            group,
            idle: self.undeclared.idle,
            holds: None,
        }
    }
}

#[cfg(test)]
mod tests;
