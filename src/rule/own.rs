//! The metrics that the program brings along: what the collector `host` reads, and what it says of itself.
//!
//! Out: two lists, the one place where these names stand. In the contract they have the same order.

use super::spec::MetricSpec;
use crate::event::Kind;

/// A metric of the program.
#[derive(Clone, Copy, Debug)]
pub struct OwnMetric {
    /// The exposed name while nothing declares it.
    pub name: &'static str,
    /// What its series are.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// `# HELP`.
    pub help: &'static str,
}

impl OwnMetric {
    /// As rules take it, in a group.
    pub fn spec(&self, group: &str) -> MetricSpec<'static> {
        MetricSpec { label_names: Some(self.labels), ..MetricSpec::new(self.name, self.kind, self.help, group) }
    }
}

const fn own(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> OwnMetric {
    OwnMetric { name, kind, labels, help }
}

use Kind::{Counter, Distribution, Gauge};

/// What source `host` exposes; the collector's value is the name without `host_`.
pub const HOST_METRICS: [OwnMetric; 18] = [
    own("host_cpu_percent", Gauge, &[], "Processor time in use, of all processors"),
    own("host_load1", Gauge, &[], "Load average over 1 minute"),
    own("host_load5", Gauge, &[], "Load average over 5 minutes"),
    own("host_load15", Gauge, &[], "Load average over 15 minutes"),
    own("host_memory_total_bytes", Gauge, &[], "Memory of the machine"),
    own("host_memory_used_bytes", Gauge, &[], "Memory in use"),
    own("host_memory_available_bytes", Gauge, &[], "Memory that programs can still get"),
    own("host_memory_percent", Gauge, &[], "Memory in use"),
    own("host_swap_used_bytes", Gauge, &[], "Swap in use"),
    own("host_disk_percent", Gauge, &[], "Space in use on the disk"),
    own("host_disk_used_bytes", Gauge, &[], "Space in use on the disk"),
    own("host_disk_total_bytes", Gauge, &[], "Space on the disk"),
    own("host_disk_read_bytes_total", Counter, &[], "Read from disks"),
    own("host_disk_written_bytes_total", Counter, &[], "Written to disks"),
    own("host_network_received_bytes_total", Counter, &[], "Received over the network"),
    own("host_network_sent_bytes_total", Counter, &[], "Sent over the network"),
    own("host_processes", Gauge, &[], "Processes"),
    own("host_uptime_seconds", Gauge, &[], "Time since the machine started"),
];

/// What the pipeline says of itself, all on `/metrics` and in group `internal`.
pub const PIPELINE_METRICS: [OwnMetric; 16] = [
    own("hydrograph_up", Gauge, &[], "1 while samples can be taken and committed"),
    own("hydrograph_events_received_total", Counter, &["source", "codec"], "Inputs received"),
    own("hydrograph_events_total", Counter, &["source"], "Inputs that became events"),
    own("hydrograph_rejected_total", Counter, &["source", "reason"], "Inputs refused"),
    own("hydrograph_samples_total", Counter, &["source", "kind"], "Samples that events became"),
    own("hydrograph_samples_committed_total", Counter, &["source", "kind"], "Samples that are durable"),
    own("hydrograph_dropped_total", Counter, &["source", "edge", "reason"], "Samples dropped"),
    own("hydrograph_in_flight", Gauge, &["source"], "Samples on their way to a commit"),
    own("hydrograph_clock_steps_total", Counter, &[], "Steps of the wall clock of more than 5 s"),
    own("hydrograph_series", Gauge, &["state"], "Series in memory and in the store"),
    own("hydrograph_commit_duration_seconds", Distribution, &[], "Time a commit took"),
    own("hydrograph_commit_lag_seconds", Gauge, &[], "Age of the newest commit"),
    own("hydrograph_store_bytes", Gauge, &["table"], "Size of the store"),
    own("hydrograph_samples_late_total", Counter, &["source"], "Samples that came after their slice was closed"),
    own("hydrograph_labels_dropped_total", Counter, &["metric"], "Tags that a declared metric does not name"),
    own("hydrograph_build_info", Gauge, &["version"], "1, with the version of the program"),
];

#[cfg(test)]
mod tests {
    use super::super::{Rules, RulesConfig};
    use super::*;

    #[test]
    fn they_can_all_be_registered_side_by_side() {
        let rules = Rules::new(RulesConfig::default()).expect("nothing declared");
        for metric in HOST_METRICS {
            rules.metric(&metric.spec("host")).expect("no clash");
        }
        for metric in PIPELINE_METRICS {
            rules.metric(&metric.spec("internal")).expect("no clash");
        }
        assert_eq!(rules.metrics().len(), HOST_METRICS.len() + PIPELINE_METRICS.len());
    }
}
