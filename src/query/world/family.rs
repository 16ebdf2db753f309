//! One metric of a world: its series with their totals, and reading them together with the columns of their slices.
//!
//! In: members and columns. Out: selections and rows. Owns: both, for the life of one world. Invariants: members ascend by
//! id; a total of the past is the total less what later slices added (Q1).

use super::Worlds;
use super::column::{self, Column, Found};
use super::declared::{ZERO, Zero};
use super::departed::Departed;
use super::overlay::Overlay;
use super::pages::{self, History, PageRows};
use crate::event::{Kind, Labels, Metric, SeriesId, Slice, Timestamp};
use crate::query::cover::Run;
use crate::query::data::{DataError, DistributionSlice, DistributionTotals, Extent, Need, Rows, SeriesRows, Visit};
use crate::query::matcher::{MatchOp, Matcher};
use crate::view::Reset;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a family is read together with.
pub(super) struct From<'w> {
    pub(super) worlds: &'w Worlds,
    pub(super) history: &'w History,
    pub(super) overlay: &'w Overlay,
}

/// One wanted metric.
pub(super) struct Family {
    pub(super) metric: Arc<Metric>,
    pub(super) series: Vec<Member>,
    /// Stands for the only series that there can be, until there is one.
    pub(super) zero: Option<Zero>,
    /// Those that left memory, ascending by id; none where nobody asks so far back.
    pub(super) departed: Vec<Arc<Departed>>,
    /// True when `departed` is all that the wanted slices may hold rows of.
    pub(super) is_whole: bool,
    /// Those of `series`.
    pub(super) ids: Arc<Vec<SeriesId>>,
    /// See [`Found::list`].
    pub(super) list: u64,
    pub(super) version: u64,
    pub(super) returned: u64,
    /// Columns of the wanted slices and, for totals, of all later ones; ascending.
    pub(super) columns: BTreeMap<u32, Arc<Column>>,
    /// Of distributions, so many per member.
    pub(super) buckets: Vec<u128>,
    pub(super) bounds: usize,
    /// Places in `series` by label and value, made when a selection asks for one: a new series ends all selections, and
    /// a thousand of them would each look at every series.
    pub(super) by_value: RefCell<HashMap<Box<str>, ByValue>>,
}

pub(super) type ByValue = HashMap<Box<str>, Vec<u32>, foldhash::fast::FixedState>;

pub(super) struct Member {
    pub(super) id: SeriesId,
    pub(super) labels: Labels,
    pub(super) created: Timestamp,
    pub(super) resets: Box<[Reset]>,
    pub(super) last: Timestamp,
    pub(super) total: i128,
    pub(super) weight: u128,
}

impl Family {
    /// Every series whose rows are wanted.
    pub(super) fn all_ids(&self) -> impl Iterator<Item = SeriesId> {
        let departed = self.departed.iter().map(|departed| departed.member.id);
        self.series.iter().map(|member| member.id).chain(departed)
    }

    /// The series that a condition on labels accepts, of which the matchers are a part.
    pub(super) fn select(&self, matchers: &[Matcher], is_match: impl Fn(&Labels) -> bool) -> Vec<SeriesId> {
        let accepted = |member: &&Member| is_match(&member.labels);
        let departed = self.departed.iter().map(|departed| &departed.member).filter(accepted).map(|member| member.id);
        // A value that a series must have narrows the search; an empty one means those without the label.
        let exact = matchers.iter().find(|matcher| matcher.op() == MatchOp::Equal && !matcher.value().is_empty());
        let Some(exact) = exact else {
            return self.series.iter().filter(accepted).map(|member| member.id).chain(departed).collect();
        };
        let mut by_value = self.by_value.borrow_mut();
        if !by_value.contains_key(exact.name()) {
            let mut places = ByValue::default();
            for (place, member) in self.series.iter().enumerate() {
                let Some(value) = member.labels.get(exact.name()) else { continue };
                match places.get_mut(value) {
                    Some(known) => known.push(place as u32),
                    None => drop(places.insert(value.into(), vec![place as u32])),
                }
            }
            by_value.insert(exact.name().into(), places);
        }
        let places = by_value[exact.name()].get(exact.value()).map_or(&[][..], Vec::as_slice);
        let live = places.iter().map(|place| &self.series[*place as usize]).filter(accepted).map(|member| member.id);
        live.chain(departed).collect()
    }

    /// Visits series with their rows: of columns, of pages, and of what is not durable yet.
    pub(super) fn read(
        &self,
        from: &From<'_>,
        ids: &[SeriesId],
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        let history = from.history;
        let span = extent.span;
        let runs = if need.rows { history.cover(extent.windows, extent.edges) } else { Vec::new() };
        // What came after the span is needed as a sum only.
        let after = span.to.0..history.end();
        let later = if need.totals && span.to.0 < after.end {
            history.cover(std::slice::from_ref(&after), Some(&[]))
        } else {
            Vec::new()
        };
        if !history.has_pages(&runs) && !history.has_pages(&later) {
            return self.read_batch(from, ids, 0, &runs, &mut |_| None, extent, need, visit);
        }
        let kind = self.metric.kind;
        let mut first = 0;
        for batch in ids.chunks(pages::batch_len(kind, &[&runs, &later])) {
            let mut rows = from.worlds.gather(history, kind, batch, &runs, need.cells)?.into_iter();
            let mut sums = match later.is_empty() {
                true => Vec::new().into_iter(),
                // Weights are known from cells, and so are buckets.
                false => from.worlds.gather(history, kind, batch, &later, true)?.into_iter(),
            };
            let mut next = |_: usize| Some((rows.next()?, sums.next()));
            self.read_batch(from, batch, first, &runs, &mut next, extent, need, visit)?;
            first += batch.len();
        }
        Ok(())
    }

    /// Visits the series of one batch, which begins at a place among all that were asked for; `paged` tells of the next one
    /// its rows of pages, and those after the span.
    #[expect(clippy::too_many_arguments, reason = "a question, and what of its answer is already there")]
    fn read_batch(
        &self,
        from: &From<'_>,
        ids: &[SeriesId],
        first: usize,
        runs: &[Run],
        paged: &mut dyn FnMut(usize) -> Option<(PageRows, Option<PageRows>)>,
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        let span = extent.span;
        let inside: Vec<&Column> =
            self.columns.range(span.from.0..span.to.0.max(span.from.0)).map(|(_, c)| &**c).collect();
        let after: Vec<&Column> = match need.totals {
            true => self.columns.range(span.to.0..).map(|(_, column)| &**column).collect(),
            false => Vec::new(),
        };
        let is_fine = runs.iter().all(|run| run.resolution == 1);
        // What was not paged yet belongs to the slot that it will be paged into.
        let slot = |slice: Slice| {
            if is_fine {
                return slice;
            }
            let at = runs.partition_point(|run| run.to <= slice.0);
            runs.get(at).filter(|run| run.from <= slice.0).map_or(slice, |run| Slice(run.slot(slice.0)))
        };
        let mut rows = column::RowBuffers::default();
        for (place, id) in (first..).zip(ids) {
            let pages = paged(place);
            if let (ZERO, Some(zero)) = (*id, &self.zero) {
                zero.read(place, self.metric.kind, visit)?;
                continue;
            }
            let (member, buckets, found) = match self.ids.binary_search(id) {
                Ok(at) => {
                    let buckets = &self.buckets[at * self.bounds..(at + 1) * self.bounds];
                    (&self.series[at], buckets, Found { id: *id, list: self.list, place: at })
                }
                Err(_) => match self.departed.binary_search_by_key(id, |departed| departed.member.id) {
                    Ok(at) => (&self.departed[at].member, &self.departed[at].buckets[..], Found::unlisted(*id)),
                    Err(_) => continue,
                },
            };
            let (pages, sums) = pages.map_or((None, None), |(pages, sums)| (Some(pages), sums));
            let Member { labels, created, resets, last, .. } = member;
            let series = |rows| SeriesRows { labels, created: *created, resets, last: *last, rows };
            match self.metric.kind {
                Kind::Counter => {
                    let later: i128 = after.iter().map(|column| column.counter(found)).sum();
                    let paged: i128 = sums.iter().flat_map(|sums| &sums.increments).map(|(_, sum)| sum).sum();
                    rows.counters(&inside, found, need);
                    rows.increments.iter_mut().for_each(|(slice, _)| *slice = slot(*slice));
                    if let Some(pages) = &pages {
                        rows.increments.extend_from_slice(&pages.increments);
                        rows.increments.sort_by_key(|(slice, _)| *slice);
                    }
                    let rows = Rows::Counter { total: member.total - later - paged, increments: &rows.increments };
                    visit(place, &series(rows))?;
                }
                Kind::Gauge => {
                    rows.gauges(&inside, found, from.overlay.row(&self.metric, *id, span));
                    rows.gauges.iter_mut().for_each(|row| row.slice = slot(row.slice));
                    if let Some(pages) = &pages {
                        rows.gauges.extend_from_slice(&pages.gauges);
                        rows.gauges.sort_by_key(|row| row.slice);
                    }
                    visit(place, &series(Rows::Gauge(&rows.gauges)))?;
                }
                Kind::Distribution => {
                    let mut totals = column::TotalsBuffer::new(member.weight, member.total, buckets);
                    let bounds = self.metric.buckets.as_ref();
                    after.iter().for_each(|column| column.take_from(found, bounds, &mut totals));
                    let later = sums.iter().flat_map(PageRows::distributions);
                    later.for_each(|(_, row)| totals.take(&row, bounds));
                    let mut slices = column::distribution_rows(&inside, found, need);
                    slices.iter_mut().for_each(|row| row.slice = slot(row.slice));
                    slices.extend(
                        pages.iter().flat_map(PageRows::distributions).map(|(slice, row)| DistributionSlice {
                            slice,
                            row,
                            late: None,
                            clamped: None,
                        }),
                    );
                    slices.sort_by_key(|row| row.slice);
                    let totals =
                        DistributionTotals { weight: totals.weight, sum: totals.sum, buckets: &totals.buckets };
                    visit(place, &series(Rows::Distribution { totals, rows: &slices }))?;
                }
                Kind::Set => {
                    let mut members: Vec<_> = inside
                        .iter()
                        .flat_map(|column| column.sets(found))
                        .map(|(slice, set)| (slot(slice), set))
                        .chain(pages.iter().flat_map(|pages| &pages.sets).map(|(slice, set)| (*slice, set)))
                        .collect();
                    members.sort_by_key(|(slice, _)| *slice);
                    visit(place, &series(Rows::Set(&members)))?;
                }
            }
        }
        Ok(())
    }
}
