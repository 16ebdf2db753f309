//! The vocabulary every other module speaks: kinds, series, time, reasons. No I/O, no async, no locks.
//!
//! In: nothing. Out: plain types. Owns: the words of the design and the canonical form of labels.
//! Invariant: whatever is persisted or compared between machines (kind codes, label bytes, series
//! hashes) has one encoding, and it is defined here.

mod clock;
mod labels;
mod metric;
pub mod number;
mod reason;
pub mod time;

pub use clock::{Clock, ManualClock, SystemClock};
pub use labels::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, Labels, LabelsBuilder, is_reserved};
pub use metric::{Buckets, Expose, Group, Metric, MetricId, Scale, Unit};
pub use number::Number;
pub use reason::{DropReason, RejectReason};

use std::fmt;

/// What a series measures. The code is persisted and part of a series' identity (S1, R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A sum of increments.
    Counter = 0,
    /// The last value set, with the minimum, maximum and sum of what was set.
    Gauge = 1,
    /// Values with a weight: timings, sizes; kept as HDR cells.
    Distribution = 2,
    /// Distinct members, kept as a HyperLogLog.
    Set = 3,
}

impl Kind {
    /// Every kind, in the order of its code.
    pub const ALL: [Kind; 4] = [Kind::Counter, Kind::Gauge, Kind::Distribution, Kind::Set];

    /// The kind with this persisted code.
    pub fn from_code(code: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(code)).copied()
    }

    /// The lower-case word used in the wire contract and the kind label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Distribution => "distribution",
            Kind::Set => "set",
        }
    }
}

/// The type letter of a StatsD line, before rules decide what kind of series it feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WireType {
    /// `c`
    Count = 0,
    /// `g`
    Gauge = 1,
    /// `ms`, in milliseconds
    Timing = 2,
    /// `h`
    Histogram = 3,
    /// `d`
    Distribution = 4,
    /// `s`
    Set = 5,
}

impl WireType {
    /// Every type, in the order of its code.
    pub const ALL: [WireType; 6] = [
        WireType::Count,
        WireType::Gauge,
        WireType::Timing,
        WireType::Histogram,
        WireType::Distribution,
        WireType::Set,
    ];

    /// The letters on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            WireType::Count => "c",
            WireType::Gauge => "g",
            WireType::Timing => "ms",
            WireType::Histogram => "h",
            WireType::Distribution => "d",
            WireType::Set => "s",
        }
    }

    /// The kind of series that a sample of this type feeds.
    pub fn kind(self) -> Kind {
        match self {
            WireType::Count => Kind::Counter,
            WireType::Gauge => Kind::Gauge,
            WireType::Timing | WireType::Histogram | WireType::Distribution => Kind::Distribution,
            WireType::Set => Kind::Set,
        }
    }
}

/// Nanoseconds since the Unix epoch, UTC. Negative before 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// A whole number of seconds since the epoch, saturating at the ends of the range (year 2262).
    pub fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp(seconds.saturating_mul(1_000_000_000))
    }

    /// Seconds since the epoch, rounded to the nearest f64.
    pub fn as_seconds_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This moment moved by so many nanoseconds, saturating.
    pub fn plus_nanos(self, nanos: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos))
    }
}

/// The number of a slice: event time since the epoch divided by the slice width, floored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Slice(pub u32);

/// The width of a slice in nanoseconds; at least one second, so that a `Slice` lasts until 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceWidth(i64);

impl SliceWidth {
    /// `None` below one second.
    pub fn from_nanos(nanos: i64) -> Option<SliceWidth> {
        (nanos >= 1_000_000_000).then_some(SliceWidth(nanos))
    }

    /// Nanoseconds.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// The slice that holds this moment; moments outside the range of `Slice` go to its ends.
    pub fn slice_of(self, time: Timestamp) -> Slice {
        Slice(time.0.div_euclid(self.0).clamp(0, i64::from(u32::MAX)) as u32)
    }

    /// The first moment of a slice.
    pub fn start(self, slice: Slice) -> Timestamp {
        Timestamp(i64::from(slice.0).saturating_mul(self.0))
    }

    /// The first moment after a slice.
    pub fn end(self, slice: Slice) -> Timestamp {
        Timestamp((i64::from(slice.0) + 1).saturating_mul(self.0))
    }
}

/// The durable number of a series: dense, given by the store in the transaction of the series' first
/// delta, never reused (S1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

/// The place of a live series in this process: dense per kind, reused after the series expired from
/// memory. Never persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The place of a source in the plan; `SourceIndex(0)` is always `internal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceIndex(pub u16);

/// The place of a shard, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

/// The number of a commit in one store: 1 is the first, each is one more than the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CommitId(pub u64);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Values, in scale units, beyond this are clamped (distributions) or refused (counters and gauges, in
/// value): V1, V4.
pub const UNITS_MAX: i64 = 1_000_000_000_000_000_000;

/// The fixed-point one of a sample's weight: a weight is `round(4096 / rate)` (V2).
pub const WEIGHT_ONE: u64 = 4096;

/// The durable identity of a series: XXH3-128 (seed 0) over kind code, name length (u16, little-endian),
/// name, and the canonical label bytes of [`Labels`]. Published and fixed (S1).
pub fn series_hash(kind: Kind, name: &str, labels: &Labels) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&[kind as u8]);
    hasher.update(&(name.len() as u16).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(labels.as_bytes());
    hasher.digest128()
}
