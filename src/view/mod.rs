//! The view: totals since the beginning and sliding windows of every live series, in memory.
//!
//! In: durable commits, from the store's thread through [`ViewFold`]. Out: [`View`], which any thread may
//! read. Owns: per series the totals, and one merged sketch and the extremes of its window. Invariants:
//! everything shown is durable; totals never go down but by a reset (R3); a window equals, to the bit, the sum of the
//! rows of its slices (an expired slice is read back from the store and subtracted, because a ring of 30
//! sketches costs ten times the memory of one); a reader holds one chunk of 1,024 series at a time (Q3),
//! so it sees each series as of one commit, and never makes the store wait longer than a chunk takes.
//!
//! Reading order: `state` (what is kept), `window` (what slides), `chunk`, [`ViewFold`], [`read`].

mod adopt;
mod audit;
mod chunk;
mod departed;
mod fold;
mod native;
mod past;
pub mod read;
mod reset;
mod rows;
mod state;
#[cfg(test)]
mod tests;
mod totals;
mod window;

pub use audit::{Compared, Difference, compare};
pub use fold::ViewFold;
pub use native::NativeBuckets;
pub use past::{PastRow, PastTotals};
pub use read::{
    CounterValue, DistributionStats, DistributionValue, GaugeValue, HistogramValue, Quantile, SetValue, Value,
};
pub use reset::Reset;

use crate::delta::SeriesTable;
use crate::event::{CommitId, Kind, Labels, Metric, MetricId, SeriesId, SliceWidth, Slot, Timestamp};
use crate::store::SeriesRow;
use chunk::{CHUNK_LEN, Chunk};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The reading end of the view; cheap to clone.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

/// The series of one metric.
#[derive(Clone, Debug)]
pub struct Family {
    /// The metric, as it was declared last.
    pub metric: Arc<Metric>,
    /// Ascending by id.
    pub series: Vec<(SeriesId, Slot)>,
    /// Changes when `series` changes other than by growing at its end.
    pub version: u64,
    /// How many series came back to memory under their old ids: only those have rows in slices that were read before
    /// they stood in `series`, because a new series touches every slice it has rows in.
    pub returned: u64,
}

type MetricMap<V> = HashMap<u32, V, foldhash::fast::FixedState>;

pub(crate) struct Shared {
    chunks: RwLock<Vec<Option<Arc<Mutex<Chunk>>>>>,
    families: Mutex<MetricMap<Family>>,
    /// Metrics whose name belongs to another kind now: they keep their series, and nobody is shown them.
    retired: Mutex<HashSet<u32>>,
    commit: Mutex<(CommitId, Timestamp)>,
    committed: Condvar,
    table: Arc<SeriesTable>,
    width: SliceWidth,
    /// The slice that holds the wall clock.
    open: AtomicU32,
    /// Counts everything that readers could notice.
    revision: AtomicU64,
    /// Odd while a commit is being folded: what is read of several series may then be of two commits.
    folding: AtomicU64,
    cell_bytes: AtomicU64,
    coarsened: AtomicU64,
    /// True once any series held estimated buckets (R2): only then is it worth looking for them.
    has_estimates: AtomicBool,
}

/// An empty view of the series of `table`: the end that folds, and the end that reads.
///
/// `cells_max` is `limits.cells`: past it the widest windows drop to one digit.
pub fn view(table: Arc<SeriesTable>, width: SliceWidth, cells_max: usize) -> (ViewFold, View) {
    let shared = Arc::new(Shared {
        chunks: RwLock::default(),
        families: Mutex::default(),
        retired: Mutex::default(),
        commit: Mutex::default(),
        committed: Condvar::new(),
        table,
        width,
        open: AtomicU32::new(0),
        revision: AtomicU64::new(0),
        folding: AtomicU64::new(0),
        cell_bytes: AtomicU64::new(0),
        coarsened: AtomicU64::new(0),
        has_estimates: AtomicBool::new(false),
    });
    let view = View { shared: Arc::clone(&shared) };
    (ViewFold::new(shared, cells_max), view)
}

/// The chunk of a series, and its place in it.
#[inline(always)]
fn place_of(id: SeriesId) -> (u32, u16) {
    (id.0 / CHUNK_LEN, (id.0 % CHUNK_LEN) as u16)
}

impl Shared {
    fn families(&self) -> MutexGuard<'_, MetricMap<Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A series appeared, or returned.
    fn enlist(&self, row: &SeriesRow, metric: &Arc<Metric>, has_returned: bool) {
        let mut families = self.families();
        let family = families.entry(row.metric.id.0).or_insert_with(|| Family {
            metric: Arc::clone(metric),
            series: Vec::new(),
            version: 0,
            returned: 0,
        });
        family.returned += u64::from(has_returned);
        let entry = (row.id, row.slot);
        if family.series.last().is_none_or(|(last, _)| *last < row.id) {
            return family.series.push(entry);
        }
        match family.series.binary_search_by_key(&row.id, |(id, _)| *id) {
            Ok(at) if family.series[at] == entry => return,
            Ok(at) => family.series[at] = entry,
            Err(at) => family.series.insert(at, entry),
        }
        family.version += 1;
    }

    /// A metric is meant in another way.
    fn redeclare(&self, metric: &Arc<Metric>) {
        if let Some(family) = self.families().get_mut(&metric.id.0) {
            family.metric = Arc::clone(metric);
        }
    }

    fn retired(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some metrics are shown no more; those that are declared again are.
    fn retire(&self, declared: &[Arc<Metric>], retired: &[MetricId]) {
        let mut hidden = self.retired();
        for metric in declared {
            hidden.remove(&metric.id.0);
        }
        hidden.extend(retired.iter().map(|id| id.0));
    }

    /// A series left.
    fn delist(&self, id: SeriesId, metric: u32) {
        if let Some(family) = self.families().get_mut(&metric)
            && let Ok(at) = family.series.binary_search_by_key(&id, |(id, _)| *id)
        {
            family.series.remove(at);
            family.version += 1;
        }
    }

    /// `Metric::idle` by metric number.
    fn idle_by_metric(&self) -> Vec<Option<i64>> {
        let families = self.families();
        let mut idle = vec![None; families.keys().max().map_or(0, |max| *max as usize + 1)];
        for (metric, family) in families.iter() {
            idle[*metric as usize] = family.metric.idle;
        }
        idle
    }

    /// A commit begins to be folded; [`publish`](Self::publish) ends it.
    fn begin(&self) {
        self.folding.fetch_add(1, Ordering::AcqRel);
    }

    fn publish(&self, commit: CommitId, time: Timestamp) {
        self.revision.fetch_add(1, Ordering::Release);
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = (commit, time);
        self.folding.fetch_add(1, Ordering::AcqRel);
        self.committed.notify_all();
    }
}

impl View {
    /// The newest commit that can be read.
    pub fn last_commit(&self) -> CommitId {
        self.shared.commit.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wall clock of the newest commit that can be read; the epoch before the first.
    pub fn last_commit_time(&self) -> Timestamp {
        self.shared.commit.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Changes with every commit and whenever a window slides: what was rendered of one revision holds as
    /// long as it stands.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Runs `read` and returns what it made if all it saw was of one commit, with that commit; `None` when a fold
    /// came in between: wait and try again (Q3 promises consistency within a series only).
    pub fn consistent<T>(&self, read: impl FnOnce() -> T) -> Option<(CommitId, T)> {
        let before = self.shared.folding.load(Ordering::Acquire);
        let commit = self.last_commit();
        let value = read();
        std::sync::atomic::fence(Ordering::Acquire);
        let is_same = before.is_multiple_of(2) && self.shared.folding.load(Ordering::Acquire) == before;
        is_same.then_some((commit, value))
    }

    /// Waits until a commit can be read; false when it cannot after `timeout`.
    pub fn wait_for(&self, commit: CommitId, timeout: Duration) -> bool {
        let guard = self.shared.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.committed.wait_timeout_while(guard, timeout, |(last, _)| *last < commit);
        waited.unwrap_or_else(PoisonError::into_inner).0.0 >= commit
    }

    /// The table with the labels of the series.
    pub fn table(&self) -> &Arc<SeriesTable> {
        &self.shared.table
    }

    /// Every metric that has had a series, by name and kind.
    pub fn metrics(&self) -> Vec<Arc<Metric>> {
        let retired = self.shared.retired().clone();
        let families = self.shared.families();
        let shown = families.iter().filter(|(number, _)| !retired.contains(number));
        let mut metrics: Vec<_> = shown.map(|(_, family)| Arc::clone(&family.metric)).collect();
        drop(families);
        metrics.sort_unstable_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        metrics
    }

    /// The metric of this name, if it has had a series.
    pub fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        let retired = self.shared.retired().clone();
        let families = self.shared.families();
        let is_shown = |number: &u32, family: &Family| &*family.metric.name == name && !retired.contains(number);
        families.iter().find(|(number, family)| is_shown(number, family)).map(|(_, family)| Arc::clone(&family.metric))
    }

    /// The series of a metric: those from `known` on when its `version` is still `version`, else all.
    /// True when they continue what is known.
    pub fn series_since(&self, metric: &Metric, version: u64, known: usize) -> (Family, bool) {
        let families = self.shared.families();
        let Some(family) = families.get(&metric.id.0) else {
            let metric = Arc::new(metric.clone());
            return (Family { metric, series: Vec::new(), version, returned: 0 }, known == 0);
        };
        let continues = family.version == version && known <= family.series.len();
        let series = family.series[if continues { known } else { 0 }..].to_vec();
        let metric = Arc::clone(&family.metric);
        (Family { metric, series, version: family.version, returned: family.returned }, continues)
    }

    /// The live series of a metric, ascending by id.
    pub fn series(&self, metric: &Metric) -> Vec<(SeriesId, Slot)> {
        self.shared.families().get(&metric.id.0).map_or_else(Vec::new, |family| family.series.clone())
    }

    /// The durable id of a live series.
    pub fn id_of(&self, metric: &Metric, labels: &Labels) -> Option<SeriesId> {
        let table = self.shared.table.lock();
        table.get(metric.kind, table.lookup(metric, labels)?)?.id
    }

    /// The labels of live series, in the order asked; empty for one that has left since.
    pub fn labels(&self, kind: Kind, series: &[(SeriesId, Slot)], mut visit: impl FnMut(&Labels)) {
        let none = Labels::empty();
        self.live_labels(kind, series, |labels| visit(labels.unwrap_or(&none)));
    }

    /// The labels of live series, in the order asked; `None` for one that has left since.
    pub fn live_labels(&self, kind: Kind, series: &[(SeriesId, Slot)], mut visit: impl FnMut(Option<&Labels>)) {
        // One lock for so many, so that decoders who meet a new series do not wait long.
        for run in series.chunks(256) {
            let table = self.shared.table.lock();
            for (id, slot) in run {
                let entry = table.get(kind, *slot).filter(|entry| entry.id == Some(*id));
                visit(entry.map(|entry| &entry.labels));
            }
        }
    }

    /// The width of a slice.
    pub fn slice_width(&self) -> SliceWidth {
        self.shared.width
    }

    /// Windows that were dropped to one digit because of `limits.cells`, since the start; native histograms that gave
    /// resolution up say so by their schema.
    pub fn coarsened(&self) -> u64 {
        self.shared.coarsened.load(Ordering::Relaxed)
    }

    /// Heap bytes of the window sketches and native histograms.
    pub fn cell_bytes(&self) -> u64 {
        self.shared.cell_bytes.load(Ordering::Relaxed)
    }

    /// Heap bytes of everything, about; walks every series.
    pub fn heap_bytes(&self) -> usize {
        let members: usize = self.shared.families().values().map(|family| family.series.capacity() * 8).sum();
        let chunks = self.shared.chunks.read().unwrap_or_else(PoisonError::into_inner).clone();
        members + chunks.iter().flatten().map(|chunk| fold::lock(chunk).heap_bytes()).sum::<usize>()
    }
}
