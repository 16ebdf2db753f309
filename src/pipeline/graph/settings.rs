//! What the parts of a graph are told of a plan.
//!
//! In: a [`Plan`]. Out: limits, times and places, each in the words of the part that it is for. Owns nothing.

use super::*;

/// Whether a source has a mapping file, and so caches of its own.
fn is_mapped(source: &SourcePlan) -> bool {
    matches!(&source.kind, SourceKind::Socket(socket) if socket.mapping.is_some())
}

/// What a store is told of a plan.
pub(in crate::pipeline) fn store_limits(plan: &Plan) -> StoreLimits {
    StoreLimits {
        slice: plan.slice,
        lateness: plan.lateness,
        hold_max: plan.hold_max,
        keep: keep_of(plan),
        tiers: tiers_of(plan),
        max_size: plan.store.max_size,
        pending: usize::try_from(plan.limits.pending).unwrap_or(usize::MAX),
    }
}

/// The times that a decoder decides by.
pub(in crate::pipeline) fn acceptance(plan: &Plan) -> Acceptance {
    Acceptance { slice: plan.slice, accept_late: plan.accept_late, max_future: plan.max_future }
}

/// Raw text that a decoder may keep.
pub(in crate::pipeline) fn cache_bytes(plan: &Plan) -> usize {
    let shards = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 64);
    let own = plan.sources.iter().filter(|source| is_mapped(source) || !source.labels.is_empty()).count();
    usize::try_from(key_caches_bytes(&plan.limits)).unwrap_or(usize::MAX) / (shards * (1 + own))
}

/// The tiers of history in slices; every resolution is a whole number of them.
pub(in crate::pipeline) fn tiers_of(plan: &Plan) -> Vec<TierPlan> {
    let slices = |nanos: i64| u32::try_from(nanos / plan.slice.nanos()).unwrap_or(RESOLUTION_MAX);
    plan.store.tiers.iter().map(|tier| TierPlan { resolution: slices(tier.resolution), keep: tier.keep }).collect()
}

/// Closed slices stay slices as long as the longest window and late samples need them; then they are paged.
pub(in crate::pipeline) fn keep_of(plan: &Plan) -> i64 {
    let widest = plan.metrics.iter().map(|metric| metric.window_slices).chain([plan.window_slices]).max();
    let window = i64::from(widest.unwrap_or(1) + 1) * plan.slice.nanos();
    plan.store.keep().min(plan.accept_late.max(window)).max(window)
}

/// R2: stored series of another scale or unit than their metric is declared in, where that was accepted.
pub(super) fn retire_accepted(plan: &Plan, ledger: &mut Ledger) -> Result<(), StartError> {
    for name in &plan.accept {
        let Some(metric) = plan.metrics.iter().find(|metric| metric.name == *name) else {
            return Err(StartError::Accept(name.clone()));
        };
        // Odd; those of a running store are even.
        let mark = 2 * ledger.last_commit().0 + 1;
        let is_other = |def: &SeriesDef| {
            let is_same = def.scale == metric.scale && *def.unit == *metric.unit.as_str();
            def.kind == metric.kind && *def.name == *metric.name && !is_same
        };
        let count = ledger.retire(&is_other, mark)?;
        tracing::info!(metric = name, series = count, "old series were retired");
    }
    Ok(())
}

/// Declared metrics without labels exist from the first scrape.
pub(in crate::pipeline) fn pin_declared<'m>(
    declared: impl IntoIterator<Item = &'m Arc<Metric>>,
    rules: &Rules,
    table: &SeriesTable,
) {
    for metric in declared {
        if metric.label_names.as_ref().is_some_and(|names| names.is_empty())
            && let Ok(labels) = rules.labels_of(metric, &[])
        {
            table.intern_pinned(metric, &labels);
        }
    }
}

/// Where a store lies, and its file.
pub(super) fn ledger_config(
    plan: &Plan,
    environment: &Environment,
) -> Result<(LedgerConfig, Option<PathBuf>), StartError> {
    let (path, file) = match &plan.store.path {
        StorePath::Memory => (LedgerPath::Memory(usize::try_from(plan.store.max_size).unwrap_or(usize::MAX)), None),
        StorePath::File(written) => {
            let (path, directory) = paths::store_path(written, environment)?;
            if let Some(directory) = directory {
                directory.create(environment)?;
            }
            (LedgerPath::File(path.clone()), Some(path))
        }
    };
    let mut config = LedgerConfig::new(path, plan.slice.nanos());
    config.cache_bytes = plan.store.cache;
    Ok((config, file))
}
