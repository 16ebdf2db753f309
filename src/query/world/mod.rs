//! The running pipeline as [`Data`]: totals from the view, slices from the store, both of one commit.
//!
//! In: the view, a reader of the store, and which metrics and slices somebody will ask for. Out: [`World`], one commit
//! that any number of expressions may be evaluated over. Owns: decoded columns of recent slices, shared by all worlds
//! until a commit touches their slice or an old series returns to their metric; answers of selections until a series
//! comes or goes. Older history stays in the file until an evaluation reads it (`pages`). Invariants: what a world tells
//! does not change while it lives: where the file has moved on, it tells nothing more; a snapshot of the store is held for
//! copying and never for decoding, but once for each metric that a series has left since its past was asked for; columns
//! are bounded by [`COLUMN_BYTES_MAX`] and the least recently used go first.

mod column;
mod declared;
mod departed;
mod family;
mod listing;
mod matching;
mod overlay;
mod pages;
mod probe;

use super::cover::Zones;
use super::data::{Data, DataError, Extent, Need, Visit};
use super::eval::evaluate_range;
use super::matcher::Matcher;
use super::parse::Expression;
use super::plan::{At, Selector};
use super::series;
use crate::delta::part::Corrupt;
use crate::event::{CommitId, Labels, Metric, SeriesId, Slice, SliceWidth, Slot, Timestamp};
use crate::store::{SliceRow, StoreError, StoreReader};
use crate::view::View;
use crate::view::read::{Totals, TotalsRow};
use column::{Column, Decoding};
use declared::{Declared, ZERO};
use departed::DepartedOf;
use family::{Family, From, Member};
pub use matching::Meant;
use overlay::Overlay;
use pages::{History, PageCache};
use probe::Probe;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of decoded columns that are kept: 100,000 counters over 30 slices are 60 MB.
pub const COLUMN_BYTES_MAX: usize = 256 << 20;

/// Selections that are kept: a thousand expressions ask about as many.
const SELECTIONS_MAX: usize = 10_000;

/// Bytes of parts that are copied before they are decoded: past it a long range is decoded while the snapshot is held.
const COPIED_BYTES_MAX: usize = 64 << 20;

/// How long to wait for the fold of a commit that the file already holds, and how often.
const FOLD_WAIT: Duration = Duration::from_millis(500);
const FOLD_TRIES: usize = 20;

/// Where worlds come from; one for the pipeline.
pub struct Worlds {
    view: View,
    reader: StoreReader,
    declared: Mutex<Arc<Declared>>,
    departed: Mutex<HashMap<u32, DepartedOf>>,
    cache: Mutex<Cache>,
    pages: Mutex<PageCache>,
}

#[derive(Default)]
struct Cache {
    columns: HashMap<(u32, u32), Cached>,
    bytes: usize,
    /// Counts worlds, to know what was used last.
    clock: u64,
    selections: HashMap<Selection, (Stamp, Arc<[SeriesId]>)>,
    /// The newest list of a metric's series, and its number: one that only grew at its end keeps it.
    ids: HashMap<u32, (u64, Arc<Vec<SeriesId>>)>,
    lists: u64,
}

struct Cached {
    column: Arc<Column>,
    /// What it holds is all there is while both stand: the slice's newest commit, and how many series have returned to
    /// the metric, since rows of a series that was not in memory were passed over.
    newest: CommitId,
    returned: u64,
    /// True when rows of series that were not in memory were not passed over.
    is_whole: bool,
    used: u64,
}

/// A slice whose parts were copied, and the metrics that have no column of it.
struct Copied {
    row: SliceRow,
    missing: Vec<u32>,
    parts: Vec<Vec<u8>>,
}

type Selection = (u32, Box<[Matcher]>);

/// A metric's version, and how many series it has and had: the same ones while these stand.
type Stamp = (u64, usize, usize);

/// A metric that somebody will ask for, and the first slice of it that [`Data::read`] may be asked for.
#[derive(Clone, Debug)]
struct Want {
    metric: Arc<Metric>,
    from: Slice,
}

/// An expression and the times it will be evaluated at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'e> {
    /// What.
    pub expression: &'e Expression,
    /// The first time.
    pub start: Timestamp,
    /// The last time.
    pub end: Timestamp,
}

/// Everything of one commit that expressions over the wanted metrics need.
pub struct World<'w> {
    worlds: &'w Worlds,
    commit: CommitId,
    declared: Arc<Declared>,
    families: HashMap<u32, Family>,
    overlay: Overlay,
    history: History,
}

impl Worlds {
    /// What it reads the store through.
    pub fn reader(&self) -> &StoreReader {
        &self.reader
    }

    /// Worlds of a pipeline.
    pub fn new(view: View, reader: StoreReader) -> Worlds {
        let (declared, departed) = (Mutex::default(), Mutex::default());
        Worlds { view, reader, declared, departed, cache: Mutex::default(), pages: Mutex::default() }
    }

    /// Takes over which metrics are declared, at the start and with every reload: those without labels of their own count 0
    /// from then on, as a scrape shows them. `constant` stand on every series.
    pub fn declare(&self, metrics: impl IntoIterator<Item = Arc<Metric>>, constant: Labels, now: Timestamp) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        *declared = Arc::new(declared.followed_by(metrics, constant, self.view.slice_width(), now));
    }

    fn declared(&self) -> Arc<Declared> {
        Arc::clone(&self.declared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The view they are made from.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest commit with what these expressions read.
    ///
    /// # Errors
    /// When the file cannot be read, or commits follow each other faster than they can be read.
    pub fn world_for(&self, asked: &[Asked<'_>]) -> Result<World<'_>, DataError> {
        let declared = self.declared();
        let probe = Probe::new(&self.view, &declared);
        let width = self.view.slice_width();
        let mut wants = Vec::new();
        for Asked { expression, start, end } in asked {
            // What fails here fails over the real world too, with the same words.
            let _ = evaluate_range(expression, &probe, *start, *end, (end.0 - start.0).max(1));
            let fixed = expression.selectors().iter().filter_map(|selector| match selector.at {
                Some(At::Time(time)) => Some(time),
                _ => None,
            });
            let first = fixed.chain([start.0]).min().unwrap_or(start.0).saturating_sub(expression.reach());
            let first = width.slice_of(Timestamp(first.max(0)));
            wants.extend(probe.take().into_iter().map(|metric| {
                let from = Slice(first.0.saturating_sub(metric.window_slices.saturating_add(1)));
                Want { metric, from }
            }));
        }
        self.world(&wants, declared, true)
    }

    /// The newest commit with every series of these selectors that was there since `from`, and with its slices since then
    /// or without any.
    ///
    /// # Errors
    /// As [`world_for`](Self::world_for).
    pub fn world_of(&self, selectors: &[Selector], from: Timestamp, has_slices: bool) -> Result<World<'_>, DataError> {
        let declared = self.declared();
        let probe = Probe::new(&self.view, &declared);
        let from = self.view.slice_width().slice_of(Timestamp(from.0.max(0)));
        let metrics = series::metrics(&probe, selectors).into_iter();
        let wants: Vec<Want> = metrics
            .map(|metric| {
                // What a window shows at the first time lies before it.
                let from = Slice(from.0.saturating_sub(metric.window_slices.saturating_add(1)));
                Want { metric, from }
            })
            .collect();
        self.world(&wants, declared, has_slices)
    }

    /// Slices of a range that hold anything, with the newest commit that touched each.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn touched(&self, range: std::ops::Range<Slice>) -> Result<Vec<SliceRow>, DataError> {
        self.reader.snapshot(|snapshot| snapshot.slices(range)).map_err(failed)
    }

    /// A world of these metrics, with their slices or without.
    fn world(&self, wants: &[Want], declared: Arc<Declared>, has_slices: bool) -> Result<World<'_>, DataError> {
        let mut spans: BTreeMap<u32, (Arc<Metric>, Slice)> = BTreeMap::new();
        for want in wants {
            let entry = spans.entry(want.metric.id.0).or_insert_with(|| (Arc::clone(&want.metric), want.from));
            entry.1 = entry.1.min(want.from);
        }
        for _ in 0..FOLD_TRIES {
            // The view is read first and costs more: the snapshot then only has to show the same commit.
            let Some((commit, mut families)) = self.view.consistent(|| self.families(&spans, &declared)) else {
                self.view.wait_for(CommitId(self.view.last_commit().0 + 1), FOLD_WAIT);
                continue;
            };
            let outcome = self.reader.snapshot(|snapshot| {
                if snapshot.last_commit() != commit {
                    return Ok(Err(snapshot.last_commit()));
                }
                let from = spans.values().map(|(_, from)| *from).min().unwrap_or(Slice(u32::MAX));
                // Where only coarser slots are held, times are floored to theirs, further back than was asked.
                let (history, from) = History::read(snapshot, from)?;
                let back = |(metric, from): &(Arc<Metric>, Slice)| {
                    (Arc::clone(metric), Slice(history.zones.reach_back(from.0)))
                };
                let spans: BTreeMap<_, _> = spans.iter().map(|(number, want)| (*number, back(want))).collect();
                self.add_departed(snapshot, &mut families, &spans)?;
                let (mut copied, mut bytes) = (Vec::new(), 0);
                let rows = if has_slices { snapshot.slices(from..Slice(u32::MAX))? } else { Vec::new() };
                for row in rows {
                    let missing = self.take_cached(&mut families, &spans, row);
                    if missing.is_empty() {
                        continue;
                    }
                    let mut parts = Vec::new();
                    snapshot.read_slice(row.slice, &mut |part| {
                        bytes += part.bytes.len();
                        parts.push(part.bytes.to_vec());
                        Ok(())
                    })?;
                    copied.push(Copied { row, missing, parts });
                    if bytes > COPIED_BYTES_MAX {
                        bytes = 0;
                        self.decode(&mut families, std::mem::take(&mut copied))?;
                    }
                }
                Ok(Ok((copied, history)))
            });
            match outcome.map_err(failed)? {
                Ok((copied, history)) => {
                    self.decode(&mut families, copied).map_err(failed)?;
                    self.cache().trim();
                    let overlay = Overlay::default();
                    return Ok(World { worlds: self, commit, declared, families, overlay, history });
                }
                Err(newer) => {
                    self.view.wait_for(newer, FOLD_WAIT);
                }
            }
        }
        Err(DataError::new("commits follow each other faster than they can be read"))
    }

    /// Members of the wanted metrics with their totals.
    fn families(&self, spans: &BTreeMap<u32, (Arc<Metric>, Slice)>, declared: &Declared) -> HashMap<u32, Family> {
        spans.values().map(|(metric, _)| (metric.id.0, self.family(metric, declared))).collect()
    }

    fn family(&self, metric: &Metric, declared: &Declared) -> Family {
        let (family, _) = self.view.series_since(metric, 0, usize::MAX);
        let zero = declared.zero(&family.metric);
        let since = zero.as_ref().map_or(Timestamp(i64::MAX), |zero| zero.since);
        let bounds = family.metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
        let mut series = Vec::with_capacity(family.series.len());
        let ids: Vec<SeriesId> = family.series.iter().map(|(id, _)| *id).collect();
        let mut labels = Vec::with_capacity(ids.len());
        self.view.live_labels(metric.kind, &family.series, |found| labels.push(found.cloned()));
        let mut labels = labels.into_iter();
        let mut places = family.series.iter();
        let mut buckets = Vec::new();
        self.view.read_totals(&ids, |found| {
            let (place, labels): (&(SeriesId, Slot), _) = match (places.next(), labels.next()) {
                (Some(place), Some(labels)) => (place, labels),
                _ => return,
            };
            // One that is leaving is already out of the table or out of the view.
            let (Some(labels), Some(TotalsRow { totals, born, seen, resets })) = (labels, found) else { return };
            // Of all lives together: the past is told from what came after it.
            let earlier = resets.last();
            let (base, base_weight) = earlier.map_or((0, 0), |reset| (reset.total, reset.weight));
            let (total, weight) = match totals {
                Totals::Counter(nanos) => (nanos + base, 0),
                Totals::Distribution { weight, sum, buckets: known } => {
                    let before = earlier.map_or(&[][..], |reset| &reset.buckets);
                    let of = |list: &[u128], at: usize| list.get(at).copied().unwrap_or(0);
                    buckets.extend((0..bounds).map(|at| of(known, at) + of(before, at)));
                    (sum + base, weight + base_weight)
                }
                Totals::None => (0, 0),
            };
            let resets = resets.into();
            series.push(Member { id: place.0, labels, created: born.min(since), resets, last: seen, total, weight });
        });
        let ids: Vec<SeriesId> = series.iter().map(|member| member.id).collect();
        let (list, ids) = self.cache().list(family.metric.id.0, ids);
        let (version, returned) = (family.version, family.returned);
        Family {
            metric: family.metric,
            series,
            zero,
            departed: Vec::new(),
            is_whole: false,
            ids,
            list,
            version,
            returned,
            columns: BTreeMap::new(),
            buckets,
            bounds,
            by_value: RefCell::default(),
        }
    }

    /// Gives the wanted metrics their cached columns of a slice; those that have none.
    fn take_cached(
        &self,
        families: &mut HashMap<u32, Family>,
        spans: &BTreeMap<u32, (Arc<Metric>, Slice)>,
        row: SliceRow,
    ) -> Vec<u32> {
        let mut missing = Vec::new();
        let mut cache = self.cache();
        cache.clock += 1;
        let clock = cache.clock;
        for (metric, (_, from)) in spans {
            if row.slice < *from {
                continue;
            }
            let Some(family) = families.get_mut(metric) else { continue };
            match cache.columns.get_mut(&(*metric, row.slice.0)) {
                Some(cached) if cached.newest == row.newest && cached.holds(family) => {
                    cached.used = clock;
                    family.columns.insert(row.slice.0, Arc::clone(&cached.column));
                }
                _ => missing.push(*metric),
            }
        }
        missing
    }

    /// Makes the missing columns, those of a slice by one pass over its parts.
    fn decode(&self, families: &mut HashMap<u32, Family>, copied: Vec<Copied>) -> Result<(), StoreError> {
        for Copied { row, missing, parts } in copied {
            let wanted = missing.iter().filter_map(|metric| families.get(metric));
            let wanted = wanted.map(|family| (family.metric.kind, family.all_ids()));
            let mut decoding = Decoding::new(row.slice, wanted);
            let read = parts.iter().try_for_each(|part| decoding.add(part));
            read.map_err(|source| self.reader.corrupt_part(source))?;
            let mut cache = self.cache();
            let clock = cache.clock;
            for (metric, mut column) in missing.iter().zip(decoding.finish()) {
                let Some(family) = families.get_mut(metric) else { continue };
                column.align(family.list, &family.ids);
                let column = Arc::new(column);
                family.columns.insert(row.slice.0, Arc::clone(&column));
                cache.bytes += column.heap_bytes();
                let (returned, is_whole) = (family.returned, family.is_whole);
                let entry = Cached { column, newest: row.newest, returned, is_whole, used: clock };
                if let Some(old) = cache.columns.insert((*metric, row.slice.0), entry) {
                    cache.bytes -= old.column.heap_bytes();
                }
            }
        }
        Ok(())
    }
}

impl Cached {
    /// Whether it has every row that a world of this family may ask for.
    fn holds(&self, family: &Family) -> bool {
        self.is_whole || (self.returned == family.returned && family.departed.is_empty())
    }
}

impl Cache {
    /// The number of a metric's list of series, and the list as it is kept.
    fn list(&mut self, metric: u32, ids: Vec<SeriesId>) -> (u64, Arc<Vec<SeriesId>>) {
        let next = self.lists + 1;
        let (number, known) = self.ids.entry(metric).or_insert_with(|| (next, Arc::default()));
        if **known != ids {
            if !ids.starts_with(known) {
                *number = next;
            }
            *known = Arc::new(ids);
        }
        self.lists = self.lists.max(*number);
        (*number, Arc::clone(known))
    }

    /// Lets the columns go that were used least recently.
    fn trim(&mut self) {
        if self.bytes > COLUMN_BYTES_MAX {
            let mut by_use: Vec<(u64, (u32, u32))> =
                self.columns.iter().map(|(key, cached)| (cached.used, *key)).collect();
            by_use.sort_unstable();
            for (_, key) in by_use {
                if self.bytes <= COLUMN_BYTES_MAX {
                    break;
                }
                if let Some(old) = self.columns.remove(&key) {
                    self.bytes -= old.column.heap_bytes();
                }
            }
        }
        if self.selections.len() > SELECTIONS_MAX {
            self.selections.clear();
        }
    }
}

fn failed_part(worlds: &Worlds, source: Corrupt) -> StoreError {
    worlds.reader.corrupt_part(source)
}

fn failed(error: StoreError) -> DataError {
    DataError { message: "the store cannot be read".into(), source: Some(Box::new(error)), is_stale: false }
}

impl World<'_> {
    /// The commit it shows.
    pub fn commit(&self) -> CommitId {
        self.commit
    }

    /// What a recorded expression came to at the end of `slice`, so that later ones of the same time see it (Q4).
    pub fn record(&mut self, metric: &Arc<Metric>, slice: Slice, time: Timestamp, values: &[(Labels, f64)]) {
        // Only what somebody reads has a family here; of one that nobody reads every result is as good as new.
        let family = self.families.get(&metric.id.0);
        let members = family.into_iter().flat_map(|family| &family.series);
        let departed = family.into_iter().flat_map(|family| &family.departed).map(|departed| &departed.member);
        let known: HashMap<&Labels, SeriesId, foldhash::fast::FixedState> =
            members.chain(departed).filter(|_| !values.is_empty()).map(|member| (&member.labels, member.id)).collect();
        self.overlay.record(metric, slice, time, values, |labels| known.get(labels).copied());
    }
}

impl Data for World<'_> {
    fn slice_width(&self) -> SliceWidth {
        self.worlds.view.slice_width()
    }

    fn zones(&self) -> &Zones {
        &self.history.zones
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        let known = self.overlay.metric(name).or_else(|| self.worlds.view.metric(name));
        known.or_else(|| self.declared.metric(name).cloned())
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        let mut metrics = self.worlds.view.metrics();
        let known: HashSet<Arc<str>> = metrics.iter().map(|metric| Arc::clone(&metric.name)).collect();
        metrics.extend(self.declared.metrics().filter(|metric| !known.contains(&metric.name)).cloned());
        metrics
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let is_match =
            |labels: &Labels| matchers.iter().all(|matcher| matcher.accepts(labels.get(matcher.name()).unwrap_or("")));
        let mut found = match self.families.get(&metric.id.0) {
            None => Arc::from([]),
            Some(Family { series, zero: Some(zero), .. }) if series.is_empty() => match zero.is_selected(is_match) {
                true => Arc::from([ZERO]),
                false => Arc::from([]),
            },
            Some(family) => {
                let key: Selection = (metric.id.0, matchers.into());
                let stamp: Stamp = (family.version, family.series.len(), family.departed.len());
                let cached = self.worlds.cache().selections.get(&key).cloned();
                match cached {
                    Some((known, ids)) if known == stamp => ids,
                    _ => {
                        let ids: Arc<[SeriesId]> = family.select(matchers, is_match).into();
                        self.worlds.cache().selections.insert(key, (stamp, Arc::clone(&ids)));
                        ids
                    }
                }
            }
        };
        let fresh: Vec<SeriesId> = self.overlay.fresh(metric, is_match).collect();
        if !fresh.is_empty() {
            found = found.iter().copied().chain(fresh).collect();
        }
        Ok(found)
    }

    fn read(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        if let Some(family) = self.families.get(&metric.id.0) {
            let from = From { worlds: self.worlds, history: &self.history, overlay: &self.overlay };
            family.read(&from, ids, extent, need, visit)?;
        }
        self.overlay.read_fresh(metric, ids, extent.span, visit)
    }
}
