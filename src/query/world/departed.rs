//! Series that left memory (S2): the file still has their rows, and questions that reach so far back find them (Q1).
//!
//! In: the families of a world and a snapshot of the same commit. Out: the series of each that are in the file only, where
//! the wanted slices may hold rows of them. Owns: what was found, until a series of the metric leaves or returns.
//! Invariants: such a series gets no sample while it is away, so that what was found of it stands; a question that
//! reaches back less far than series are kept in memory costs nothing.

use super::column::{Decoding, Found, TotalsBuffer};
use super::family::{Family, Member};
use super::{Worlds, failed_part};
use crate::event::{CommitId, Kind, Metric, SeriesId, Slice, Timestamp};
use crate::store::{BLOCK_SERIES, Snapshot, StoreError, StoredKind};
use crate::view::{PastRow, PastTotals};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

/// How far a slice may lie ahead of the commit that its samples came with: `max_future` where nothing else is said.
const AHEAD: i64 = 600 * 1_000_000_000;

/// A series that is in the file only.
pub(super) struct Departed {
    pub(super) member: Member,
    pub(super) buckets: Vec<u128>,
}

/// All of one metric.
pub(super) struct DepartedOf {
    /// It stands while these do.
    version: u64,
    returned: u64,
    metric: Arc<Metric>,
    all: Arc<[Arc<Departed>]>,
}

impl Worlds {
    /// Gives each family what left it and may have been there since the first wanted slice.
    pub(super) fn add_departed(
        &self,
        snapshot: &Snapshot<'_>,
        families: &mut HashMap<u32, Family>,
        spans: &BTreeMap<u32, (Arc<Metric>, Slice)>,
    ) -> Result<(), StoreError> {
        let width = self.view.slice_width();
        let now = self.view.last_commit_time().0;
        for (number, (_, from)) in spans {
            let Some(family) = families.get_mut(number) else { continue };
            let Some(idle) = family.metric.idle else { continue };
            // Whatever left had its last sample that long ago.
            let begin = width.start(*from).0;
            if begin > now.saturating_sub(idle).saturating_add(AHEAD) {
                continue;
            }
            let until = |departed: &Departed| departed.member.last.0.saturating_add(idle.max(AHEAD));
            let all = self.all_departed(snapshot, family)?;
            family.departed = all.iter().filter(|departed| until(departed) >= begin).cloned().collect();
            family.is_whole = true;
        }
        Ok(())
    }

    fn all_departed(&self, snapshot: &Snapshot<'_>, family: &Family) -> Result<Arc<[Arc<Departed>]>, StoreError> {
        let number = family.metric.id.0;
        let mut known = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = known.get(&number) {
            let is_same = (of.version, of.returned) == (family.version, family.returned);
            if is_same && Arc::ptr_eq(&of.metric, &family.metric) {
                return Ok(Arc::clone(&of.all));
            }
        }
        let all = read_departed(self, snapshot, family)?;
        let metric = Arc::clone(&family.metric);
        let of = DepartedOf { version: family.version, returned: family.returned, metric, all: Arc::clone(&all) };
        known.insert(number, of);
        Ok(all)
    }
}

fn read_departed(
    worlds: &Worlds,
    snapshot: &Snapshot<'_>,
    family: &Family,
) -> Result<Arc<[Arc<Departed>]>, StoreError> {
    let metric = &*family.metric;
    let mut found = Vec::new();
    let is_wanted = |kind, name: &str, scale| kind == metric.kind && scale == metric.scale && *name == *metric.name;
    snapshot.series(is_wanted, |def| {
        if family.ids.binary_search(&def.id).is_err() {
            found.push(def);
        }
    })?;
    let bounds = metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
    let mut block: Option<(u32, CommitId, Option<PastTotals>)> = None;
    let mut as_of = Vec::with_capacity(found.len());
    let mut all = Vec::with_capacity(found.len());
    for def in found {
        let number = def.id.0 / BLOCK_SERIES;
        if block.as_ref().is_none_or(|(known, ..)| *known != number) {
            let stored = snapshot.totals_block(number)?;
            let through = stored.as_ref().map_or(CommitId(0), |stored| stored.as_of);
            let totals = stored.map(|stored| PastTotals::new(&stored.bytes)).transpose();
            block = Some((number, through, totals.map_err(|source| failed_part(worlds, source))?));
        }
        let Some((_, through, totals)) = &block else { continue };
        let row = totals.as_ref().and_then(|totals| totals.get(def.id, metric));
        let row = row.unwrap_or_else(|| PastRow { born: def.created, seen: def.created, ..PastRow::default() });
        let PastRow { born, seen, resets, total, weight, buckets } = row;
        let (created, last, labels) = (born, seen, def.labels);
        let mut buckets = buckets.into_vec();
        buckets.resize(bounds, 0);
        let member = Member { id: def.id, labels, created, resets, last, total, weight };
        all.push(Departed { member, buckets });
        as_of.push((def.id, *through));
    }
    add_log(worlds, snapshot, metric, &as_of, &mut all)?;
    Ok(all.into_iter().map(Arc::new).collect())
}

/// Adds what the stored totals lack: rows of the log that are newer than they.
fn add_log(
    worlds: &Worlds,
    snapshot: &Snapshot<'_>,
    metric: &Metric,
    as_of: &[(SeriesId, CommitId)],
    all: &mut [Departed],
) -> Result<(), StoreError> {
    let Some(oldest) = as_of.iter().map(|(_, as_of)| *as_of).min() else { return Ok(()) };
    for row in snapshot.slices(Slice(0)..Slice(u32::MAX))? {
        if row.newest <= oldest {
            continue;
        }
        snapshot.read_slice(row.slice, &mut |part| {
            if part.kind != StoredKind::Log || part.through <= oldest {
                return Ok(());
            }
            let newer = as_of.iter().filter(|(_, as_of)| part.through > *as_of).map(|(id, _)| *id);
            let mut decoding = Decoding::new(row.slice, std::iter::once((metric.kind, newer)));
            decoding.add(part.bytes)?;
            let columns = decoding.finish();
            let Some(column) = columns.first() else { return Ok(()) };
            for Departed { member, buckets } in all.iter_mut() {
                let found = Found::unlisted(member.id);
                if !column.has(found) {
                    continue;
                }
                let end = worlds.view.slice_width().end(row.slice);
                member.last = member.last.max(Timestamp(end.0.min(worlds.view.last_commit_time().0)));
                match metric.kind {
                    Kind::Counter => member.total += column.counter(found),
                    Kind::Distribution => {
                        let mut totals = TotalsBuffer::new(member.weight, member.total, buckets);
                        column.add_to(found, metric.buckets.as_ref(), &mut totals);
                        (member.weight, member.total, *buckets) = (totals.weight, totals.sum, totals.buckets);
                    }
                    Kind::Gauge | Kind::Set => {}
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
