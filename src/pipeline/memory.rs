//! How much memory a plan may need, computed before it starts (architecture: bounded and computable).
//!
//! In: a [`Plan`]. Out: bytes by component. Pure. Invariant: each constant below is an upper figure for what
//! one unit of its component takes, including the allocator's rounding, so the sum is a bound and no forecast:
//! a pipeline whose limits are not reached stays far below it.

use super::plan::{LimitsPlan, Plan, SourceKind, StorePath};
use crate::delta::kept::{KEPT_EVENT_BYTES, KEPT_TICK_BYTES};
use crate::delta::{SERIES_KEY_BYTES, TableLimits};
use crate::rule::typed::{DERIVE_MEMO_BYTES, DeriveFrom, distinct_bytes};
use crate::source::reactor::PARTIAL_BYTES_MAX;
use crate::store::waiting_ends_max;

/// One live series without its labels: decoder slot and table entry (48 B), combiner slot in two epochs
/// (2 × 64 B), view row with totals (160 B), window queues (128 B), durable id and lookup both ways (96 B).
pub const SERIES_FIXED_BYTES: u64 = 560;

/// The raw text of keys in the caches of all decoders together, for each series of the limit: twice 72 B.
const KEY_CACHE_BYTES: u64 = 144;
/// However few series there may be.
const KEY_CACHES_BYTES_MIN: u64 = 8 << 20;

/// One sketch cell: `limits.cells` counts those of the windows, with their counts, and the buckets of native
/// histograms, each as two and a half.
pub const CELL_BYTES: u64 = 4;

/// One metric: name, help, claimed names and their map entries.
pub const METRIC_BYTES: u64 = 1024;

/// Receive buffers and pools: 256 buffers of 64 KiB travel at most, and 16 MiB of in-process rings.
pub const BUFFER_BYTES: u64 = 32 << 20;

/// Bodies of `POST /api/v1/events` that are being read or taken, together: two of the longest.
pub const POSTED_BYTES_MAX: usize = 32 << 20;

/// A pair that may be open: its place in the table and in the order of deadlines, both of which double when they grow
/// (165 and 192 B), its set of series (160 B), and its row on the way into a commit (190 B).
pub const PAIR_BYTES: u64 = 720;

/// An end that may wait for its start: the same without a set, in a smaller table.
pub const PAIR_END_BYTES: u64 = 480;

/// A kept event: its text for readers, in the commit under way as text and as a row, and once more among those that wait
/// for the disk.
pub const KEPT_BYTES: u64 = 4 * (KEPT_EVENT_BYTES as u64 + 192);

/// What two decoders remember of one derived text.
pub const DERIVE_BYTES: u64 = 2 * DERIVE_MEMO_BYTES as u64;

/// A series in a rendered body: six lines (four quantiles, sum, count) of name, four labels and value. With its label
/// text, and in two formats or for two commits at once, twice that is what bodies want.
pub const RENDERED_BYTES: u64 = 1200;

/// What bodies need at least, a series: two lines of a counter. Bodies get what `limits.memory` leaves between this and
/// what they want; whoever asks for more than fits is told to come again, so it is a bound whatever labels look like.
pub const BODY_BYTES: u64 = 160;

/// Long answers of HTTP that are no scrape: widgets, queries, what lines became. Beyond it they are refused.
pub const ANSWERS_BYTES: u64 = 32 << 20;

/// The program itself, thread stacks in use and its libraries.
pub const PROGRAM_BYTES: u64 = 24 << 20;

/// Bodies want so much however few series there may be.
const BODIES_BYTES_MIN: u64 = 32 << 20;

/// The part that bounds bodies.
const BODIES: &str = "bodies";

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

impl LimitsPlan {
    /// What the table of live series must keep to.
    pub fn of_table(&self) -> TableLimits {
        TableLimits { series: self.series, series_per_metric: self.series_per_metric }
    }
}

/// The raw text of keys that all decoders' caches together may hold.
pub fn key_caches_bytes(limits: &LimitsPlan) -> u64 {
    (u64::from(limits.series) * KEY_CACHE_BYTES).max(KEY_CACHES_BYTES_MIN)
}

/// The need of a plan by component.
pub fn memory_need(plan: &Plan) -> MemoryNeed {
    let limits = &plan.limits;
    let series = u64::from(limits.series);
    let metrics = (plan.rules().metrics_max + plan.metrics.len()) as u64;
    let mut parts = Vec::new();
    let mut add = |name, count: u64, each: u64, how: String| parts.push((name, count.saturating_mul(each), how));
    add("series", series, SERIES_FIXED_BYTES, format!("limits.series {series} × {SERIES_FIXED_BYTES} B"));
    let labels = limits.of_table().key_bytes();
    add("labels", labels, 1, format!("limits.series {series} × {SERIES_KEY_BYTES} B, past which series overflow"));
    add("key caches", key_caches_bytes(limits), 1, format!("limits.series {series} × {KEY_CACHE_BYTES} B"));
    add("metrics", metrics, METRIC_BYTES, format!("{metrics} × {METRIC_BYTES} B"));
    add("cells", limits.cells, CELL_BYTES, format!("limits.cells {} × {CELL_BYTES} B", limits.cells));
    add("pending", limits.pending, 1, "limits.pending".into());
    add("buffers", 1, BUFFER_BYTES, "receive buffers and rings".into());
    if plan.sources.iter().any(|source| source.enabled && matches!(source.kind, SourceKind::Socket(_))) {
        add("streams", 1, PARTIAL_BYTES_MAX as u64, "half frames of connections".into());
    }
    if !plan.http.listen.is_empty() {
        // As they came, and as the lines that were made of them.
        add("posts", 2, POSTED_BYTES_MAX as u64, format!("bodies that are taken, {} MiB", POSTED_BYTES_MAX >> 20));
    }
    events(plan, &mut add);
    add("store cache", plan.store.cache as u64, 1, "pages of the store".into());
    if plan.store.path == StorePath::Memory {
        add("store", plan.store.max_size, 1, "store.max_size, since it is in memory".into());
    }
    add("program", 1, PROGRAM_BYTES, "code, stacks".into());
    add("answers", 1, ANSWERS_BYTES, "of HTTP, on their way to slow readers".into());
    let rest = MemoryNeed { parts };
    let left = limits.memory.saturating_sub(rest.total());
    let wanted = series.saturating_mul(2 * RENDERED_BYTES).max(BODIES_BYTES_MIN);
    let bodies = wanted.min(left).max(series.saturating_mul(BODY_BYTES));
    let how = if bodies < wanted {
        format!("rendered, what is left; {series} series × 2 × {RENDERED_BYTES} B would be {} MiB", wanted >> 20)
    } else {
        format!("rendered, {series} series × 2 × {RENDERED_BYTES} B")
    };
    let mut need = rest;
    need.parts.push((BODIES, bodies, how));
    need
}

/// What the bodies of scrapes may take in this plan, with their label text.
pub fn body_bytes(plan: &Plan) -> usize {
    let need = memory_need(plan);
    let bodies = need.parts.iter().find(|(name, ..)| *name == BODIES).map_or(0, |(_, bytes, _)| *bytes);
    usize::try_from(bodies).unwrap_or(usize::MAX)
}

/// What typed events need: nothing where none is declared.
fn events(plan: &Plan, add: &mut impl FnMut(&'static str, u64, u64, String)) {
    let pairs = plan.limits.pairs;
    if !plan.typed.pairs.is_empty() {
        let ends = waiting_ends_max(pairs as usize) as u64;
        let how = format!("limits.pairs {pairs} × {PAIR_BYTES} B, {ends} waiting ends × {PAIR_END_BYTES} B");
        add("pairs", u64::from(pairs) * PAIR_BYTES + ends * PAIR_END_BYTES, 1, how);
    }
    let kept: u64 = plan.typed.events.iter().map(|event| u64::from(event.keep)).sum();
    if kept > 0 {
        // Both combiners of two shards hold some on top.
        let ticks = 4 * (kept * KEPT_EVENT_BYTES as u64).min(KEPT_TICK_BYTES as u64);
        add("kept events", kept * KEPT_BYTES + ticks, 1, format!("keep {kept} in all × {KEPT_BYTES} B, and of a tick"));
    }
    let derived = plan.typed.events.iter().flat_map(|event| &event.derived).filter_map(|derived| match &derived.from {
        DeriveFrom::Field { distinct_max, .. } => Some(*distinct_max),
        DeriveFrom::Const(_) => None,
    });
    let (mut count, mut distinct) = (0, 0u64);
    for distinct_max in derived {
        count += 1;
        distinct += distinct_max.map_or(0, distinct_bytes);
    }
    if count > 0 {
        let how = format!("{count} of fields × {DERIVE_BYTES} B, and distinct values {} KiB", distinct >> 10);
        add("derive", count * DERIVE_BYTES + distinct, 1, how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Pipeline;
    use crate::pipeline::paths::Environment;

    fn plan(limits: &str) -> Plan {
        let text = format!("name = \"m\"\n[sources.internal]\ntype = \"internal\"\n[limits]\n{limits}\n");
        let environment = Environment::fixed([("HOME".to_owned(), "/root".to_owned())], 1000, |_| false);
        Pipeline::builder().environment(environment).text(text).plan().expect("valid")
    }

    #[test]
    fn bodies_get_what_the_rest_leaves_of_the_limit() {
        let small = plan("series = 1000\nseries_per_metric = 1000\ncells = 1_000_000\npending = \"16MiB\"");
        assert_eq!(body_bytes(&small), 32 << 20);
        let roomy = plan("memory = \"16GiB\"");
        assert_eq!(body_bytes(&roomy), 2_400_000_000);
        let tight = plan("");
        let need = memory_need(&tight);
        assert_eq!(need.total(), 2 << 30, "{need:?}");
        assert!((300 << 20..1200 << 20).contains(&body_bytes(&tight)), "{need:?}");
    }
}
