//! Names by a mapping file: statsd_exporter's own YAML, so that its users can move with the file they have.
//!
//! In: the file's text; then names of lines, on a decoder's miss only. Out: what each becomes ([`Mapped`]), or that
//! it is dropped, or nothing where no rule matches. Owns: compiled patterns. Invariant: as in statsd_exporter, globs
//! are asked before regular expressions, and each kind in the order of the file.
//! Format: <https://github.com/prometheus/statsd_exporter#metric-mapping-and-configuration>.

mod pattern;
mod written;

use super::bucket::{BucketError, CLIENT_BOUNDS, buckets};
use super::name::escape_metric_name;
use crate::event::{Buckets, Scale, WireType};
use pattern::{Glob, Template};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use written::{ActionWritten, FileWritten, MatchTypeWritten, MetricTypeWritten, ObserverWritten, RuleWritten};

/// Quantiles of a mapped summary that says none.
const DEFAULT_QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Most bytes that a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A compiled mapping file.
#[derive(Debug)]
pub struct Mapping {
    rules: Vec<Rule>,
    /// Places of globs by how many parts they have, in the order of the file.
    globs: HashMap<usize, Vec<usize>>,
    /// Places of regular expressions, in the order of the file.
    regexes: Vec<usize>,
    /// `glob_disable_ordering`: the most literal glob wins instead of the first.
    is_unordered: bool,
    warnings: Vec<String>,
}

/// Why a mapping file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MappingError {
    /// What is wrong, with the rule it is about.
    pub message: String,
    /// Line of the file from 1, where it is known.
    pub line: Option<usize>,
}

/// What rules say of a metric besides its name and labels.
#[derive(Clone, Debug, PartialEq)]
pub struct MappedSpec {
    /// Timings, histograms and distributions: as a histogram instead of a summary.
    pub is_histogram: bool,
    /// Bounds in base units, for histograms.
    pub bounds: Arc<[f64]>,
    /// In [0, 1], ascending, for summaries.
    pub quantiles: Arc<[f64]>,
    /// What summaries cover, in nanoseconds; `None` = the pipeline's window.
    pub max_age: Option<i64>,
    /// Nanoseconds without a sample after which a series leaves memory; `None` = the pipeline's `idle`.
    pub ttl: Option<i64>,
    /// `# HELP`; `None` = as undeclared metrics.
    pub help: Option<Arc<str>>,
    /// Values are multiplied by 10^this.
    pub exponent: i8,
    /// Tags of the line win over labels of the rule.
    pub honor_labels: bool,
}

impl MappedSpec {
    /// Bounds as integers of a scale.
    pub(super) fn buckets(&self, scale: Scale) -> Result<Buckets, BucketError> {
        buckets(&self.bounds, scale)
    }
}

/// What a name becomes.
#[derive(Debug, PartialEq)]
pub enum Mapped<'m> {
    /// A metric.
    Metric {
        /// Its exposed name, valid, without a suffix.
        name: String,
        /// Names and values; a value may be empty, which is no label.
        labels: Vec<(&'m str, String)>,
        /// The rest.
        spec: &'m MappedSpec,
    },
    /// `action: drop`
    Dropped,
}

#[derive(Debug)]
struct Rule {
    matcher: Matcher,
    wire: Option<WireClass>,
    is_drop: bool,
    name: Template,
    labels: Vec<(String, Template)>,
    spec: MappedSpec,
}

#[derive(Debug)]
enum Matcher {
    Glob(Glob),
    Regex(regex::Regex),
}

/// `match_metric_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WireClass {
    Counter,
    Gauge,
    Observer,
}

impl WireClass {
    fn takes(self, wire: WireType) -> bool {
        match wire {
            WireType::Count => self == WireClass::Counter,
            WireType::Gauge => self == WireClass::Gauge,
            WireType::Timing | WireType::Histogram | WireType::Distribution => self == WireClass::Observer,
            // statsd_exporter knows no sets: only rules without a type take them.
            WireType::Set => false,
        }
    }
}

impl Mapping {
    /// Reads and compiles a file.
    ///
    /// # Errors
    /// What statsd_exporter refuses too; and a `scale` that is no power of ten.
    pub fn parse(text: &str) -> Result<Mapping, MappingError> {
        let file: FileWritten = written::read(text)?;
        let mut warnings: Vec<String> =
            file.unknown.keys().map(|key| format!("key \"{key}\" is not known and does nothing")).collect();
        warnings.extend(file.defaults.unknown.keys().map(|key| format!("key \"defaults.{key}\" does nothing")));
        let mut mapping = Mapping {
            rules: Vec::with_capacity(file.mappings.len()),
            globs: HashMap::new(),
            regexes: Vec::new(),
            is_unordered: file.defaults.glob_disable_ordering,
            warnings: Vec::new(),
        };
        for (place, rule) in file.mappings.iter().enumerate() {
            let at = |message: String| MappingError {
                message: format!("mapping {} ({:?}): {message}", place + 1, rule.pattern),
                line: None,
            };
            warnings
                .extend(rule.unknown.keys().map(|key| format!("mapping {}: key \"{key}\" does nothing", place + 1)));
            let rule = compile(rule, &file).map_err(at)?;
            match &rule.matcher {
                Matcher::Glob(glob) => mapping.globs.entry(glob.len()).or_default().push(place),
                Matcher::Regex(_) => mapping.regexes.push(place),
            }
            mapping.rules.push(rule);
        }
        mapping.warnings = warnings;
        Ok(mapping)
    }

    /// What the file says that has no effect here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Rules of the file.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True without any rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a name of that type becomes; `None` where no rule matches.
    pub fn find(&self, name: &str, wire: WireType) -> Option<Mapped<'_>> {
        self.find_glob(name, wire).or_else(|| self.find_regex(name, wire))
    }

    fn find_glob(&self, name: &str, wire: WireType) -> Option<Mapped<'_>> {
        if self.globs.is_empty() {
            return None;
        }
        let parts: Vec<Range<usize>> = parts_of(name);
        let mut best: Option<(&Rule, &Glob)> = None;
        for place in self.globs.get(&parts.len())? {
            let rule = &self.rules[*place];
            let Matcher::Glob(glob) = &rule.matcher else { continue };
            if rule.wire.is_some_and(|class| !class.takes(wire)) || !glob.is_match(name, &parts) {
                continue;
            }
            if !self.is_unordered {
                best = Some((rule, glob));
                break;
            }
            if best.is_none_or(|(_, known)| glob.is_more_literal(known)) {
                best = Some((rule, glob));
            }
        }
        let (rule, glob) = best?;
        let captures: Vec<&str> = glob.captures(&parts).map(|range| &name[range]).collect();
        Some(rule.apply(&captures))
    }

    fn find_regex(&self, name: &str, wire: WireType) -> Option<Mapped<'_>> {
        self.regexes.iter().find_map(|place| {
            let rule = &self.rules[*place];
            let Matcher::Regex(regex) = &rule.matcher else { return None };
            if rule.wire.is_some_and(|class| !class.takes(wire)) {
                return None;
            }
            let captures = regex.captures(name)?;
            let captures: Vec<&str> =
                captures.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect();
            Some(rule.apply(&captures))
        })
    }
}

impl Rule {
    fn apply(&self, captures: &[&str]) -> Mapped<'_> {
        if self.is_drop {
            return Mapped::Dropped;
        }
        let labels = self.labels.iter().map(|(key, value)| (key.as_str(), value.expand(captures))).collect();
        let name = escape_metric_name(&self.name.expand(captures)).into_owned();
        Mapped::Metric { name, labels, spec: &self.spec }
    }
}

/// The ranges of a name's parts between dots.
fn parts_of(name: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(8);
    for (at, byte) in name.bytes().enumerate() {
        if byte == b'.' {
            parts.push(start..at);
            start = at + 1;
        }
    }
    parts.push(start..name.len());
    parts
}

fn compile(rule: &RuleWritten, file: &FileWritten) -> Result<Rule, String> {
    let defaults = &file.defaults;
    for key in rule.labels.keys() {
        if !super::is_label_name(key) || crate::event::is_reserved(key) {
            return Err(format!("{key:?} cannot be a label"));
        }
    }
    let name = rule.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err("has no name".into());
    }
    if !pattern::is_name_template(name) {
        return Err(format!("{name:?} is not a metric name"));
    }
    let matcher = match rule.match_type.or(defaults.match_type).unwrap_or(MatchTypeWritten::Glob) {
        MatchTypeWritten::Glob => Matcher::Glob(
            Glob::parse(&rule.pattern).ok_or("is not a glob: parts between dots are names or a \"*\" alone")?,
        ),
        MatchTypeWritten::Regex => Matcher::Regex(
            regex::RegexBuilder::new(&rule.pattern)
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map_err(|error| format!("is not a regular expression: {error}"))?,
        ),
    };
    let is_histogram = is_histogram(rule, file)?;
    let summary = rule.summary_options.as_ref();
    let histogram = rule.histogram_options.as_ref();
    if rule.quantiles.is_some() && summary.is_some_and(|options| options.quantiles.is_some()) {
        return Err("has quantiles both at its top level and in summary_options".into());
    }
    if rule.buckets.is_some() && histogram.is_some_and(|options| options.buckets.is_some()) {
        return Err("has buckets both at its top level and in histogram_options".into());
    }
    let bounds = [
        rule.buckets.as_deref(),
        histogram.and_then(|options| options.buckets.as_deref()),
        defaults.histogram_options.as_ref().and_then(|options| options.buckets.as_deref()),
        defaults.buckets.as_deref(),
    ];
    let bounds = bounds.into_iter().flatten().find(|bounds| !bounds.is_empty()).unwrap_or(&CLIENT_BOUNDS);
    // `+Inf` is always there.
    let bounds: Vec<f64> = bounds.iter().copied().filter(|bound| *bound != f64::INFINITY).collect();
    buckets(&bounds, Scale::NANO).map_err(|error| error.to_string())?;
    let quantiles = [
        rule.quantiles.as_ref(),
        summary.and_then(|options| options.quantiles.as_ref()),
        defaults.summary_options.as_ref().and_then(|options| options.quantiles.as_ref()),
        defaults.quantiles.as_ref(),
    ];
    let quantiles = quantiles.into_iter().flatten().find(|quantiles| !quantiles.is_empty());
    let mut quantiles: Vec<f64> = quantiles
        .map_or_else(|| DEFAULT_QUANTILES.to_vec(), |written| written.iter().map(|entry| entry.quantile).collect());
    if quantiles.iter().any(|quantile| !(0.0..=1.0).contains(quantile)) {
        return Err("a quantile lies in [0, 1]".into());
    }
    quantiles.sort_by(f64::total_cmp);
    quantiles.dedup();
    let max_age =
        [summary, defaults.summary_options.as_ref()].into_iter().flatten().find_map(|options| options.max_age);
    let ttl = rule.ttl.filter(|ttl| ttl.0 > 0).or(defaults.ttl).map(|ttl| ttl.0).filter(|ttl| *ttl > 0);
    Ok(Rule {
        matcher,
        wire: rule.match_metric_type.map(|class| match class {
            MetricTypeWritten::Counter => WireClass::Counter,
            MetricTypeWritten::Gauge => WireClass::Gauge,
            MetricTypeWritten::Observer => WireClass::Observer,
        }),
        is_drop: rule.action == ActionWritten::Drop,
        name: Template::parse(name),
        labels: rule.labels.iter().map(|(key, value)| (key.clone(), Template::parse(value))).collect(),
        spec: MappedSpec {
            is_histogram,
            bounds: bounds.into(),
            quantiles: quantiles.into(),
            max_age: max_age.map(|age| age.0).filter(|age| *age > 0),
            ttl,
            help: rule.help.as_deref().map(Arc::from),
            exponent: exponent_of(rule.scale.unwrap_or(1.0))?,
            honor_labels: rule.honor_labels,
        },
    })
}

fn is_histogram(rule: &RuleWritten, file: &FileWritten) -> Result<bool, String> {
    let defaults = &file.defaults;
    let observer = rule.observer_type.or(rule.timer_type).or(defaults.observer_type).or(defaults.timer_type);
    let is_histogram = observer == Some(ObserverWritten::Histogram);
    if is_histogram && rule.summary_options.is_some() {
        return Err("is a histogram and has summary_options".into());
    }
    if observer == Some(ObserverWritten::Summary) && rule.histogram_options.is_some() {
        return Err("is a summary and has histogram_options".into());
    }
    Ok(is_histogram)
}

/// n of a scale of 10^n: sums are exact integers, which other factors would round.
fn exponent_of(scale: f64) -> Result<i8, String> {
    (-9i8..=9)
        .find(|exponent| 10f64.powi(i32::from(*exponent)) == scale)
        .ok_or_else(|| format!("a scale is a power of ten from 1e-9 to 1e9 here, not {scale}"))
}

#[cfg(test)]
mod tests;
