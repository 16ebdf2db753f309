//! How much memory a plan may need, computed before it starts (architecture: bounded and computable).
//!
//! In: a [`Plan`]. Out: bytes by component. Pure. Invariant: each constant below is an upper figure for what
//! one unit of its component takes, including the allocator's rounding, so the sum is a bound and no forecast:
//! a pipeline whose limits are not reached stays far below it.

use super::plan::{Plan, StorePath};

/// One live series without its key: decoder slot and table entry (48 B), combiner slot in two epochs
/// (2 × 64 B), view row with totals (160 B), window queues (128 B), durable id and lookup both ways (96 B).
pub const SERIES_FIXED_BYTES: u64 = 560;

/// The key of a live series: canonical labels and name reference (about 120 B for four tags) and the raw text
/// in the caches of two decoders (2 × 80 B).
pub const SERIES_KEY_BYTES: u64 = 280;

/// One sketch cell: `limits.cells` counts those of the windows, with their counts, and the buckets of native
/// histograms, each as two and a half.
pub const CELL_BYTES: u64 = 4;

/// One metric: name, help, claimed names and their map entries.
pub const METRIC_BYTES: u64 = 1024;

/// Receive buffers and pools: 256 buffers of 64 KiB travel at most, and 16 MiB of in-process rings.
pub const BUFFER_BYTES: u64 = 32 << 20;

/// A series in rendered bodies: a line of about 80 B, in text and in OpenMetrics.
pub const BODY_BYTES: u64 = 160;

/// The program itself, thread stacks in use and its libraries.
pub const PROGRAM_BYTES: u64 = 24 << 20;

/// What a plan may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Component, bytes, and how they were computed.
    pub parts: Vec<(&'static str, u64, String)>,
}

impl MemoryNeed {
    /// The sum, saturating.
    pub fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes, _)| sum.saturating_add(*bytes))
    }
}

/// The need of a plan by component.
pub fn memory_need(plan: &Plan) -> MemoryNeed {
    let limits = &plan.limits;
    let series = u64::from(limits.series);
    let metrics = (plan.rules().metrics_max + plan.metrics.len()) as u64;
    let mut parts = Vec::new();
    let mut add = |name, count: u64, each: u64, how: String| parts.push((name, count.saturating_mul(each), how));
    add(
        "series",
        series,
        SERIES_FIXED_BYTES + SERIES_KEY_BYTES,
        format!("limits.series {series} × ({SERIES_FIXED_BYTES} + {SERIES_KEY_BYTES} for the key) B"),
    );
    add("metrics", metrics, METRIC_BYTES, format!("{metrics} × {METRIC_BYTES} B"));
    add("cells", limits.cells, CELL_BYTES, format!("limits.cells {} × {CELL_BYTES} B", limits.cells));
    add("pending", limits.pending, 1, "limits.pending".into());
    add("bodies", series, BODY_BYTES, format!("limits.series {series} × {BODY_BYTES} B rendered"));
    add("buffers", 1, BUFFER_BYTES, "receive buffers and rings".into());
    add("store cache", plan.store.cache as u64, 1, "pages of the store".into());
    if plan.store.path == StorePath::Memory {
        add("store", plan.store.max_size, 1, "store.max_size, since it is in memory".into());
    }
    add("program", 1, PROGRAM_BYTES, "code, stacks".into());
    MemoryNeed { parts }
}
