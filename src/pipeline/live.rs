//! What a scrape must show even when nothing commits any more (C4).
//!
//! In: the store's status, `/proc/self` (through a collector made once, which holds the start time). Out: families that are rendered at each scrape, beside the shared
//! body. Invariant: reading them needs no commit, no lock that the store holds long, and no disk.

use crate::codec::exposition::FamilyType;
use crate::delta::Edge;
use crate::event::{DropReason, Kind, Labels, LabelsBuilder, Timestamp};
use crate::sink::scrape::{LiveFamily, LiveValues};
use crate::source::internal::ProcessCollector;
use crate::store::StoreStatus;
use std::sync::{Mutex, PoisonError};

/// Clients that the front door did not serve as they asked, since the start, by reason.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Vec<(&'static str, u64)>>);

impl Refusals {
    pub(super) fn note(&self, reason: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }

    pub(super) fn family(&self) -> LiveFamily {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        LiveFamily {
            name: "hydrograph_http_refused_total",
            kind: FamilyType::Counter,
            help: "Clients that were told to come again or closed: no_room, crowded, stalled",
            unit: "",
            samples: counts.iter().map(|(reason, count)| (labels(&[("reason", *reason)]), *count as f64)).collect(),
        }
    }
}

/// The live set of now.
pub(super) fn live_values(
    status: &StoreStatus,
    process: &ProcessCollector,
    sources: &[String],
    now: Timestamp,
    started: Timestamp,
) -> LiveValues {
    let seconds = |since: Timestamp| ((now.0 - since.0) as f64 / 1e9).max(0.0);
    let lag = if status.is_up && status.pending_bytes == 0 { 0.0 } else { seconds(status.current_at) };
    let mut families = vec![
        gauge("hydrograph_up", "1 while samples can be taken and committed", "", f64::from(u8::from(status.is_up))),
        gauge(
            "hydrograph_commit_lag_seconds",
            "Age of the oldest sample that is not durable, beyond one tick",
            "seconds",
            lag,
        ),
        gauge("hydrograph_pending_bytes", "Bytes that wait for the disk", "bytes", status.pending_bytes as f64),
        gauge("hydrograph_store_file_bytes", "Blocks of the store's file on disk", "bytes", status.file_bytes as f64),
        gauge("hydrograph_last_commit", "The number of the last durable commit", "", status.last_commit.0 as f64),
    ];
    let mut dropped = LiveFamily {
        name: "hydrograph_live_dropped_samples",
        kind: FamilyType::Gauge,
        help: "Samples dropped since this start",
        unit: "",
        samples: Vec::new(),
    };
    let mut in_flight = LiveFamily {
        name: "hydrograph_in_flight",
        kind: FamilyType::Gauge,
        help: "Samples of committed ticks that are neither committed nor dropped",
        unit: "",
        samples: Vec::new(),
    };
    for (tally, source) in status.tallies.iter().zip(sources) {
        for edge in Edge::ALL {
            for reason in DropReason::ALL {
                let count = tally.dropped[edge as usize][*reason as usize];
                if count > 0 {
                    let pairs = [("source", source.as_str()), ("edge", edge.as_str()), ("reason", reason.as_str())];
                    dropped.samples.push((labels(&pairs), count as f64));
                }
            }
        }
        if !tally.is_zero() {
            let landed = tally.recorded_total() + tally.dropped_total();
            let flying = tally.samples_total() as f64 - landed as f64;
            in_flight.samples.push((labels(&[("source", source)]), flying));
        }
    }
    families.push(dropped);
    families.push(in_flight);
    for sample in process.collect() {
        families.push(LiveFamily {
            name: sample.name,
            kind: if sample.kind == Kind::Counter { FamilyType::Counter } else { FamilyType::Gauge },
            help: sample.help,
            unit: sample.unit.as_str(),
            samples: vec![(Labels::empty(), sample.value)],
        });
    }
    LiveValues { now, uptime_seconds: seconds(started), families }
}

fn gauge(name: &'static str, help: &'static str, unit: &'static str, value: f64) -> LiveFamily {
    LiveFamily { name, kind: FamilyType::Gauge, help, unit, samples: vec![(Labels::empty(), value)] }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let mut builder = LabelsBuilder::new();
    for (key, value) in pairs {
        builder.push(*key, *value);
    }
    builder.build().expect("own labels are few, short and not reserved")
}
