//! What is known of a metric (a family of series): its name, kind, unit and how it is shown.
//!
//! In: declarations of the pipeline file, or the first undeclared sample of a name. Out: [`Metric`],
//! shared by all its series. Invariant: name, kind and scale never change during a metric's life (R2).

use super::Kind;
use crate::sketch::Digits;
use std::sync::Arc;

/// The number of a metric in this process: dense, in order of appearance. Never persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricId(pub u32);

/// The unit sums are counted in: `10^-exponent` of the metric's base unit (V1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale(u8);

impl Scale {
    /// Largest exponent: a pico-unit.
    pub const EXPONENT_MAX: u8 = 12;
    /// Whole units: bytes and counts.
    pub const ONE: Scale = Scale(0);
    /// 10⁻⁶: metrics without a unit.
    pub const MICRO: Scale = Scale(6);
    /// 10⁻⁹: seconds and counters.
    pub const NANO: Scale = Scale(9);

    /// `10^-exponent`; `None` above [`Scale::EXPONENT_MAX`].
    pub fn from_exponent(exponent: u8) -> Option<Scale> {
        (exponent <= Scale::EXPONENT_MAX).then_some(Scale(exponent))
    }

    /// n of `10^-n`.
    pub fn exponent(self) -> u8 {
        self.0
    }

    /// How many scale units make one base unit, as the f64 nearest to it (exact: 10^12 < 2^53).
    pub fn per_one(self) -> f64 {
        10f64.powi(i32::from(self.0))
    }

    /// A value in scale units as the f64 nearest to it in base units.
    pub fn value_of(self, units: i128) -> f64 {
        units as f64 / self.per_one()
    }
}

/// The unit of a metric, as its name or its declaration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Not said.
    None,
    /// `_seconds`
    Seconds,
    /// `_bytes`
    Bytes,
    /// Any other word that a name may end with (`ratio`, `celsius`, `percent`): shown, scaled as none.
    Other(&'static str),
}

impl Unit {
    /// The word of `# UNIT`, empty for none.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Other(word) => word,
        }
    }

    /// The default scale of a gauge or distribution in this unit (V1).
    pub fn default_scale(self) -> Scale {
        match self {
            Unit::Seconds => Scale::NANO,
            Unit::Bytes => Scale::ONE,
            Unit::None | Unit::Other(_) => Scale::MICRO,
        }
    }
}

/// How a distribution is shown to Prometheus. At least one is set for a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expose {
    /// As a summary with quantiles over the window.
    pub summary: bool,
    /// As a classic histogram with the declared buckets.
    pub histogram: bool,
}

/// Which page of `/metrics/{group}` a metric stands on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// `/metrics` only.
    Main,
    /// A named group; also on `/metrics`.
    Named(Arc<str>),
    /// Client telemetry: on `/metrics/internal` only.
    InternalOnly,
}

/// Upper bounds of a classic histogram, ascending, without `+Inf`.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// The number of the first bound in counts of straddled cells. A reload with other bounds goes on behind the numbers
    /// of the old ones, so that counts under way are never taken for those of other bounds.
    pub first: u16,
    /// In base units, as declared.
    pub bounds: Box<[f64]>,
    /// In scale units, rounded as samples are (V1); ascending, unique.
    pub units: Box<[i64]>,
}

/// One metric.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its number in this process.
    pub id: MetricId,
    /// The exposed name, complete with namespace and suffix; at most 200 bytes.
    pub name: Arc<str>,
    /// What its series are.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// The unit of its sums.
    pub scale: Scale,
    /// `# HELP`.
    pub help: Arc<str>,
    /// True when the pipeline file names it.
    pub declared: bool,
    /// Labels that a declared metric has exactly; `None` = any.
    pub label_names: Option<Arc<[Box<str>]>>,
    /// Distributions only.
    pub expose: Expose,
    /// In [0, 1], ascending.
    pub quantiles: Arc<[f64]>,
    /// Resolution of its sketches.
    pub digits: Digits,
    /// What its summaries cover, in slices; at least 1.
    pub window_slices: u32,
    /// Bounds of its classic histogram.
    pub buckets: Option<Arc<Buckets>>,
    /// Where it is shown.
    pub group: Group,
    /// Nanoseconds without a sample after which its series leave memory; `None` = never.
    pub idle: Option<i64>,
    /// Gauges: nanoseconds that a value holds when no other follows, where an expression or a collector says it again and
    /// again; `None` = until the next one, as for whatever is pushed.
    pub holds: Option<i64>,
}
