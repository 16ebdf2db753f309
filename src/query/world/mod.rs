//! The running pipeline as [`Data`]: totals from the view, slices from the store, both of one commit.
//!
//! In: the view, a reader of the store, and which metrics and slices somebody will ask for. Out: [`World`], one commit
//! that any number of expressions may be evaluated over. Owns: decoded columns of recent slices, shared by all worlds
//! until a commit touches their slice; answers of selections until a series comes or goes. Invariants: what a world
//! tells does not change while it lives; columns are bounded by [`COLUMN_BYTES_MAX`] and the least recently used go
//! first.

mod column;
mod overlay;
mod probe;

use super::data::{Data, DataError, DistributionTotals, Need, Rows, SeriesRows, Span, Visit};
use super::eval::evaluate_range;
use super::matcher::Matcher;
use super::parse::Expression;
use super::plan::At;
use crate::event::{CommitId, Kind, Labels, Metric, SeriesId, Slice, SliceWidth, Slot, Timestamp};
use crate::store::{SliceRow, StoreError, StoreReader};
use crate::view::View;
use crate::view::read::Totals;
use column::{Column, Decoding};
use overlay::Overlay;
use probe::Probe;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of decoded columns that are kept: 100,000 counters over 30 slices are 60 MB.
pub const COLUMN_BYTES_MAX: usize = 256 << 20;

/// Selections that are kept: a thousand expressions ask about as many.
const SELECTIONS_MAX: usize = 10_000;

/// How long to wait for the fold of a commit that the file already holds, and how often.
const FOLD_WAIT: Duration = Duration::from_millis(500);
const FOLD_TRIES: usize = 20;

/// Where worlds come from; one for the pipeline.
pub struct Worlds {
    view: View,
    reader: StoreReader,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    columns: HashMap<(u32, u32), Cached>,
    bytes: usize,
    /// Counts worlds, to know what was used last.
    clock: u64,
    selections: HashMap<Selection, (u64, usize, Arc<[SeriesId]>)>,
}

struct Cached {
    column: Arc<Column>,
    newest: CommitId,
    used: u64,
}

type Selection = (u32, Box<[Matcher]>);

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
    families: HashMap<u32, Family>,
    overlay: Overlay,
}

/// One wanted metric.
struct Family {
    metric: Arc<Metric>,
    series: Vec<Member>,
    version: u64,
    /// Columns of the wanted slices and, for totals, of all later ones; ascending.
    columns: BTreeMap<u32, Arc<Column>>,
    /// Of distributions, so many per member.
    buckets: Vec<u128>,
    bounds: usize,
}

struct Member {
    id: SeriesId,
    labels: Labels,
    created: Timestamp,
    last: Timestamp,
    total: i128,
    weight: u128,
}

impl Worlds {
    /// Worlds of a pipeline.
    pub fn new(view: View, reader: StoreReader) -> Worlds {
        Worlds { view, reader, cache: Mutex::default() }
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
        let probe = Probe::new(&self.view);
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
        self.world(&wants)
    }

    /// Slices of a range that hold anything, with the newest commit that touched each.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn touched(&self, range: std::ops::Range<Slice>) -> Result<Vec<SliceRow>, DataError> {
        self.reader.snapshot(|snapshot| snapshot.slices(range)).map_err(failed)
    }

    fn world(&self, wants: &[Want]) -> Result<World<'_>, DataError> {
        let mut spans: BTreeMap<u32, (Arc<Metric>, Slice)> = BTreeMap::new();
        for want in wants {
            let entry = spans.entry(want.metric.id.0).or_insert_with(|| (Arc::clone(&want.metric), want.from));
            entry.1 = entry.1.min(want.from);
        }
        for _ in 0..FOLD_TRIES {
            // The snapshot is taken first: what the view shows is then at most as new, and equal when no commit
            // came in between.
            let outcome = self.reader.snapshot(|snapshot| {
                let commit = snapshot.last_commit();
                let Some((seen, mut families)) = self.view.consistent(|| self.families(&spans)) else {
                    return Ok(Err(commit));
                };
                if seen != commit {
                    return Ok(Err(commit));
                }
                let from = spans.values().map(|(_, from)| *from).min().unwrap_or(Slice(0));
                for row in snapshot.slices(from..Slice(u32::MAX))? {
                    self.fill(&mut families, &spans, row, |decoding| {
                        snapshot.read_slice(row.slice, &mut |part| decoding.add(part.bytes))
                    })?;
                }
                Ok(Ok(World { worlds: self, commit, families, overlay: Overlay::default() }))
            });
            match outcome.map_err(failed)? {
                Ok(world) => {
                    self.cache().trim();
                    return Ok(world);
                }
                Err(commit) => {
                    self.view.wait_for(commit, FOLD_WAIT);
                }
            }
        }
        Err(DataError::new("commits follow each other faster than they can be read"))
    }

    /// Members of the wanted metrics with their totals.
    fn families(&self, spans: &BTreeMap<u32, (Arc<Metric>, Slice)>) -> HashMap<u32, Family> {
        spans.values().map(|(metric, _)| (metric.id.0, self.family(metric))).collect()
    }

    fn family(&self, metric: &Metric) -> Family {
        let (family, _) = self.view.series_since(metric, 0, usize::MAX);
        let bounds = family.metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
        let mut series = Vec::with_capacity(family.series.len());
        let ids: Vec<SeriesId> = family.series.iter().map(|(id, _)| *id).collect();
        let mut labels = Vec::with_capacity(ids.len());
        self.view.labels(metric.kind, &family.series, |found| labels.push(found.clone()));
        let mut labels = labels.into_iter();
        let mut places = family.series.iter();
        let mut buckets = Vec::new();
        self.view.read_totals(&ids, |found| {
            let (place, labels): (&(SeriesId, Slot), _) = match (places.next(), labels.next()) {
                (Some(place), Some(labels)) => (place, labels),
                _ => return,
            };
            let Some((totals, created, last)) = found else { return };
            let (total, weight) = match totals {
                Totals::Counter(nanos) => (nanos, 0),
                Totals::Distribution { weight, sum, buckets: known } => {
                    buckets.extend((0..bounds).map(|at| known.get(at).copied().unwrap_or(0)));
                    (sum, weight)
                }
                Totals::None => (0, 0),
            };
            series.push(Member { id: place.0, labels, created, last, total, weight });
        });
        Family { metric: family.metric, series, version: family.version, columns: BTreeMap::new(), buckets, bounds }
    }

    /// Gives the wanted metrics their columns of a slice: cached ones, or all missing ones by one pass over its parts.
    fn fill(
        &self,
        families: &mut HashMap<u32, Family>,
        spans: &BTreeMap<u32, (Arc<Metric>, Slice)>,
        row: SliceRow,
        read: impl FnOnce(&mut Decoding) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        {
            let mut cache = self.cache();
            cache.clock += 1;
            let clock = cache.clock;
            for (metric, (_, from)) in spans {
                if row.slice < *from {
                    continue;
                }
                match cache.columns.get_mut(&(*metric, row.slice.0)) {
                    Some(cached) if cached.newest == row.newest => {
                        cached.used = clock;
                        if let Some(family) = families.get_mut(metric) {
                            family.columns.insert(row.slice.0, Arc::clone(&cached.column));
                        }
                    }
                    _ => missing.push(*metric),
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut decoding = Decoding::new(
            row.slice,
            missing
                .iter()
                .filter_map(|metric| families.get(metric))
                .map(|family| (family.metric.kind, family.series.iter().map(|member| member.id))),
        );
        read(&mut decoding)?;
        let mut cache = self.cache();
        let clock = cache.clock;
        for (metric, column) in missing.iter().zip(decoding.finish()) {
            let column = Arc::new(column);
            if let Some(family) = families.get_mut(metric) {
                family.columns.insert(row.slice.0, Arc::clone(&column));
            }
            cache.bytes += column.heap_bytes();
            let entry = Cached { column, newest: row.newest, used: clock };
            if let Some(old) = cache.columns.insert((*metric, row.slice.0), entry) {
                cache.bytes -= old.column.heap_bytes();
            }
        }
        Ok(())
    }
}

impl Cache {
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

fn failed(error: StoreError) -> DataError {
    DataError { message: "the store cannot be read".into(), source: Some(Box::new(error)) }
}

impl World<'_> {
    /// The commit it shows.
    pub fn commit(&self) -> CommitId {
        self.commit
    }

    /// What a recorded expression came to at the end of `slice`, so that later ones of the same time see it (Q4).
    pub fn record(&mut self, metric: &Arc<Metric>, slice: Slice, time: Timestamp, values: &[(Labels, f64)]) {
        let family = self.families.get(&metric.id.0);
        let known = |labels: &Labels| {
            let members = family.map_or(&[][..], |family| &family.series);
            members.iter().find(|member| member.labels == *labels).map(|member| member.id)
        };
        self.overlay.record(metric, slice, time, values, known);
    }
}

impl Data for World<'_> {
    fn slice_width(&self) -> SliceWidth {
        self.worlds.view.slice_width()
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.overlay.metric(name).or_else(|| self.worlds.view.metric(name))
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.worlds.view.metrics()
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let is_match =
            |labels: &Labels| matchers.iter().all(|matcher| matcher.accepts(labels.get(matcher.name()).unwrap_or("")));
        let mut found = match self.families.get(&metric.id.0) {
            None => Arc::from([]),
            Some(family) => {
                let key: Selection = (metric.id.0, matchers.into());
                let stamp = (family.version, family.series.len());
                let cached = self.worlds.cache().selections.get(&key).cloned();
                match cached {
                    Some((version, len, ids)) if (version, len) == stamp => ids,
                    _ => {
                        let members = family.series.iter().filter(|member| is_match(&member.labels));
                        let ids: Arc<[SeriesId]> = members.map(|member| member.id).collect();
                        self.worlds.cache().selections.insert(key, (stamp.0, stamp.1, Arc::clone(&ids)));
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
        span: Span,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        if let Some(family) = self.families.get(&metric.id.0) {
            family.read(ids, span, need, &self.overlay, visit)?;
        }
        self.overlay.read_fresh(metric, ids, span, visit)
    }
}

impl Family {
    fn read(
        &self,
        ids: &[SeriesId],
        span: Span,
        need: Need,
        overlay: &Overlay,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        let inside: Vec<&Column> =
            self.columns.range(span.from.0..span.to.0.max(span.from.0)).map(|(_, c)| &**c).collect();
        let after: Vec<&Column> = match need.totals {
            true => self.columns.range(span.to.0..).map(|(_, column)| &**column).collect(),
            false => Vec::new(),
        };
        let mut rows = column::RowBuffers::default();
        for (place, id) in ids.iter().enumerate() {
            let Ok(at) = self.series.binary_search_by_key(id, |member| member.id) else { continue };
            let member = &self.series[at];
            let series = |rows| SeriesRows { labels: &member.labels, created: member.created, last: member.last, rows };
            match self.metric.kind {
                Kind::Counter => {
                    let later: i128 = after.iter().map(|column| column.counter(*id)).sum();
                    rows.counters(&inside, *id, need);
                    let rows = Rows::Counter { total: member.total - later, increments: &rows.increments };
                    visit(place, &series(rows))?;
                }
                Kind::Gauge => {
                    rows.gauges(&inside, *id, overlay.row(&self.metric, *id, span));
                    visit(place, &series(Rows::Gauge(&rows.gauges)))?;
                }
                Kind::Distribution => {
                    let mut totals = column::TotalsBuffer::new(
                        member.weight,
                        member.total,
                        &self.buckets[at * self.bounds..(at + 1) * self.bounds],
                    );
                    let buckets = self.metric.buckets.as_ref();
                    after.iter().for_each(|column| column.take_from(*id, buckets, &mut totals));
                    let mut found = column::distribution_rows(&inside, *id, need);
                    found.sort_by_key(|row| row.slice);
                    let totals =
                        DistributionTotals { weight: totals.weight, sum: totals.sum, buckets: &totals.buckets };
                    visit(place, &series(Rows::Distribution { totals, rows: &found }))?;
                }
                Kind::Set => {
                    let found: Vec<_> = inside.iter().flat_map(|column| column.sets(*id)).collect();
                    visit(place, &series(Rows::Set(&found)))?;
                }
            }
        }
        Ok(())
    }
}
