//! What a list of events must come to, computed without any of the pipeline's arithmetic.

use crate::delta::GaugeSum;
use crate::event::{Buckets, Expose, Group, Kind, Scale, Unit, WireType};
use crate::rule::{DeclaredMetric, RulesConfig, Undeclared};
use crate::sketch::{Digits, Distinct, layout};
use crate::store::tests::script::{Rng, SLICE_NANOS};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A series that events may go to.
pub(super) struct Target {
    pub(super) wire: WireType,
    /// As a handle names it.
    pub(super) name: &'static str,
    /// As it is exposed.
    pub(super) exposed: &'static str,
    pub(super) label: &'static str,
    pub(super) digits: Digits,
}

const fn target(
    wire: WireType,
    name: &'static str,
    exposed: &'static str,
    label: &'static str,
    digits: Digits,
) -> Target {
    Target { wire, name, exposed, label, digits }
}

/// Every kind, every resolution, with and without declared buckets.
pub(super) const TARGETS: [Target; 12] = [
    target(WireType::Count, "orders", "orders_total", "a", Digits::Two),
    target(WireType::Count, "orders", "orders_total", "b", Digits::Two),
    target(WireType::Gauge, "depth", "depth", "a", Digits::Two),
    target(WireType::Gauge, "depth", "depth", "b", Digits::Two),
    target(WireType::Timing, "took", "took_seconds", "a", Digits::Two),
    target(WireType::Timing, "took", "took_seconds", "b", Digits::Two),
    target(WireType::Histogram, "bucketed_bytes", "bucketed_bytes", "a", Digits::Two),
    target(WireType::Histogram, "fine", "fine", "a", Digits::Three),
    target(WireType::Histogram, "coarse", "coarse", "a", Digits::One),
    target(WireType::Set, "users", "users", "a", Digits::Two),
    target(WireType::Set, "users", "users", "b", Digits::Two),
    target(WireType::Histogram, "bucketed_fine", "bucketed_fine", "a", Digits::Three),
];

/// Bounds that no cell of two digits begins or ends at.
pub(super) const BOUNDS: [i64; 6] = [-5_000, 5, 1_001, 5_003, 123_457, 10_000_019];

/// Slices of a window.
pub(super) const WINDOW: u32 = 4;

fn declared(name: &str, digits: Digits, has_buckets: bool) -> DeclaredMetric {
    let units: Box<[i64]> = BOUNDS.into();
    DeclaredMetric {
        name: name.into(),
        namespace: String::new(),
        kind: Kind::Distribution,
        help: "declared".into(),
        unit: Unit::Bytes,
        scale: Scale::ONE,
        labels: vec!["k".into()],
        expose: Expose { summary: true, histogram: has_buckets },
        quantiles: Arc::new([0.5, 0.99]),
        digits,
        window_slices: WINDOW,
        buckets: has_buckets
            .then(|| Arc::new(Buckets { first: 0, bounds: units.iter().map(|bound| *bound as f64).collect(), units })),
        group: Group::Main,
        idle: None,
        holds: None,
    }
}

/// Rules that give every target its resolution.
pub(super) fn config(idle: Option<i64>) -> RulesConfig {
    RulesConfig {
        undeclared: Undeclared { window_slices: WINDOW, idle, ..RulesConfig::default().undeclared },
        declared: vec![
            declared("bucketed_bytes", Digits::Two, true),
            declared("fine", Digits::Three, false),
            declared("coarse", Digits::One, false),
            declared("bucketed_fine", Digits::Three, true),
        ],
        ..RulesConfig::default()
    }
}

/// One replayable event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Index into [`TARGETS`].
    pub(super) target: usize,
    /// Nanos, scale units, bits of an f64, or a hash.
    pub(super) value: i128,
    pub(super) weight: u64,
    pub(super) time: i64,
    pub(super) position: u64,
}

/// A random event at about `time`.
pub(super) fn event(rng: &mut Rng, time: i64, position: u64) -> Event {
    let at = rng.below(TARGETS.len() as u64) as usize;
    let mut weight = 4096;
    let value = match TARGETS[at].wire {
        WireType::Count => i128::from(rng.below(5_000_000_000)) * i128::from(1 + rng.below(1000)),
        WireType::Gauge => i128::from(((rng.below(2001) as f64 - 1000.0) / 8.0).to_bits()),
        WireType::Set => i128::from(rng.below(40).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        _ => {
            if rng.below(8) == 0 {
                weight = 4096 * (1 + rng.below(50)) + rng.below(3);
            }
            let magnitude = 1u64 << rng.below(40);
            let value = rng.below(magnitude + 1) as i128;
            let is_negative = TARGETS[at].wire == WireType::Histogram && rng.below(3) == 0;
            // Bounds themselves and their neighbours are where buckets go wrong.
            let value = if rng.below(4) == 0 {
                i128::from(BOUNDS[rng.below(6) as usize]) + rng.below(3) as i128 - 1
            } else if is_negative {
                -value
            } else {
                value
            };
            if TARGETS[at].wire == WireType::Timing { value.abs() } else { value }
        }
    };
    Event { target: at, value, weight, time, position }
}

/// What one series saw in one slice, or in all of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Aggregate {
    Counter(i128),
    Gauge(GaugeSum),
    Distribution { count: u64, sum4096: i128, min: i64, max: i64, cells: BTreeMap<i32, u64>, buckets: Vec<u64> },
    Set(Distinct),
}

/// (exposed name, value of label `k`).
pub(super) type Key = (String, String);

/// Every series of every slice.
pub(super) type Export = BTreeMap<(u32, Key), Aggregate>;

fn empty(target: &Target) -> Aggregate {
    match target.wire.kind() {
        Kind::Counter => Aggregate::Counter(0),
        Kind::Gauge => Aggregate::Gauge(GaugeSum::default()),
        Kind::Set => Aggregate::Set(Distinct::default()),
        Kind::Distribution => {
            let buckets = if target.name.starts_with("bucketed") { vec![0; BOUNDS.len()] } else { Vec::new() };
            Aggregate::Distribution {
                count: 0,
                sum4096: 0,
                min: i64::MAX,
                max: i64::MIN,
                cells: BTreeMap::new(),
                buckets,
            }
        }
    }
}

fn add(aggregate: &mut Aggregate, event: &Event) {
    let target = &TARGETS[event.target];
    match aggregate {
        Aggregate::Counter(sum) => *sum += event.value,
        Aggregate::Gauge(sum) => {
            let value = f64::from_bits(event.value as u64);
            if sum.count == 0 || (sum.time, sum.position) < (event.time, event.position) {
                (sum.last, sum.time, sum.position) = (value, event.time, event.position);
            }
            sum.count += 1;
            sum.min = sum.min.min(value);
            sum.max = sum.max.max(value);
            // The values are eighths, so micro-units are exact.
            sum.sum += (value * 1e6) as i128;
        }
        Aggregate::Set(set) => set.insert(event.value as u64),
        Aggregate::Distribution { count, sum4096, min, max, cells, buckets } => {
            let units = event.value as i64;
            *count += 1;
            *sum4096 += event.value * i128::from(event.weight);
            *min = (*min).min(units);
            *max = (*max).max(units);
            *cells.entry(layout::cell_of(target.digits, units)).or_insert(0) += event.weight;
            for (bucket, bound) in buckets.iter_mut().zip(BOUNDS) {
                *bucket += if units <= bound { event.weight } else { 0 };
            }
        }
    }
}

fn key_of(event: &Event) -> Key {
    let target = &TARGETS[event.target];
    (target.exposed.to_owned(), target.label.to_owned())
}

/// Per slice and series.
pub(super) fn by_slice<'e>(events: impl Iterator<Item = &'e Event>) -> Export {
    let mut export = Export::new();
    for event in events {
        let slice = event.time.div_euclid(SLICE_NANOS) as u32;
        let aggregate = export.entry((slice, key_of(event))).or_insert_with(|| empty(&TARGETS[event.target]));
        add(aggregate, event);
    }
    export
}

/// Per series, over all slices.
pub(super) fn totals<'e>(events: impl Iterator<Item = &'e Event>) -> BTreeMap<Key, Aggregate> {
    let mut totals = BTreeMap::new();
    for event in events {
        add(totals.entry(key_of(event)).or_insert_with(|| empty(&TARGETS[event.target])), event);
    }
    totals
}

/// Value of rank max(1, ⌈q·Σweight⌉) among (value, weight).
pub(super) fn quantile(samples: &mut [(i64, u64)], q: f64) -> i64 {
    samples.sort_unstable();
    let total: u128 = samples.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let rank = crate::sketch::rank(q, total);
    let mut below = 0u128;
    for (value, weight) in samples.iter() {
        below += u128::from(*weight);
        if below >= rank {
            return *value;
        }
    }
    panic!("no samples");
}
