//! What goes before its time, because the file may not grow further (H4).
//!
//! In: what the rows take, by redb's allocation, and `max_size`. Out: the next expiry. Owns: what was counted and said.
//! Invariants: the finest spans go first, once coarser tiers have them; sums go to `base` before the last one of a span
//! does; what windows may read stays.

use super::super::due::ExpiryDue;
use super::super::error::StoreError;
use super::super::format::{MANIFESTS, Span, Table, allocated};
use super::super::ledger::Ledger;
use super::work::{Chores, Shed};
use super::{EXPIRE_SLICES_MAX, Store};
use crate::event::Slice;
use std::collections::BTreeMap;

/// Shedding begins at this share of `max_size`: what redb frees is used again, but not every piece fits.
const SHED_FROM_PERCENT: u64 = 85;
/// An episode is over when so much is free again.
const SHED_OVER_PERCENT: u64 = 80;

/// What was shed since this process started.
#[derive(Default)]
pub(super) struct Shedding {
    is_under_way: bool,
    /// Spans by resolution in slices; under 0 slices that were in no tier.
    counts: BTreeMap<u32, u64>,
}

impl Ledger {
    /// What all rows take of the file, each rounded up to redb's allocation: of pages as counted, of others as their
    /// number and bytes say.
    pub fn used_bytes(&self) -> u64 {
        let of = |rows: u64, bytes: u64, key_len: usize| {
            let mean = bytes.checked_div(rows).unwrap_or(0) as usize;
            rows * allocated(key_len, mean + 8)
        };
        let of_span =
            |span: &Span| of(span.log.rows, span.log.bytes, 16) + of(span.segments.rows, span.segments.bytes, 13);
        let slices: u64 = self.spans.values().map(of_span).sum();
        let tables = &self.meta.manifests[..MANIFESTS];
        let tables: u64 = tables.iter().map(|manifest| of(manifest.rows, manifest.bytes, 8)).sum();
        // A leaf of the index holds 113 rows when it is full, and is two thirds full as hashes come.
        let index = u64::from(self.meta.next_series) * allocated(0, 40);
        debug_assert!(Table::Meta as usize == MANIFESTS, "tables with a manifest come first");
        let rubbish: u64 = self.rubbish.iter().map(|entry| entry.bytes).sum();
        slices + tables + index + rubbish + self.history.allocated()
    }

    /// The next spans to shed: of the finest tier whose oldest spans can go.
    fn shed_spans(&self) -> Option<ExpiryDue> {
        self.history.tiers.iter().find_map(|(resolution, tier)| {
            let (oldest, _) = self.history.spans_of(*resolution, 0..u32::MAX).next()?;
            let step = self.history.expiry_step(*resolution);
            let until = u64::from(oldest) / step * step + step;
            match self.expiry_until(*resolution, tier, u32::try_from(until).ok()?)? {
                ExpiryDue::Drop(expiry) if expiry.spans() == 0 => None,
                due => Some(due),
            }
        })
    }
}

impl Store {
    /// The next thing to shed, if the file is too full.
    pub(super) fn shed_due(&mut self, kept_from: Slice) -> Result<Option<Shed>, StoreError> {
        let used = self.ledger.used_bytes();
        let share = |percent: u64| self.limits.max_size / 100 * percent;
        if used < share(SHED_OVER_PERCENT) && std::mem::take(&mut self.shedding.is_under_way) {
            let spans: u64 = self.shedding.counts.values().sum();
            tracing::info!(used, max_size = self.limits.max_size, spans, "the store is below its limit again");
        }
        if used < share(SHED_FROM_PERCENT) {
            return Ok(None);
        }
        let due = match self.ledger.shed_spans() {
            Some(due) => Some(Shed::Spans(due)),
            None => self.ledger.expire_any(kept_from, EXPIRE_SLICES_MAX)?.map(Shed::Slices),
        };
        if due.is_some() && !std::mem::replace(&mut self.shedding.is_under_way, true) {
            let max_size = self.limits.max_size;
            tracing::warn!(used, max_size, "the store reaches max_size: the oldest spans go before their time");
        }
        Ok(due)
    }

    /// Counts what a commit dropped because of `max_size`.
    pub(super) fn count_shed(&mut self, chores: &Chores) {
        if !chores.is_shed {
            return;
        }
        if let Some(expiry) = &chores.expire_spans {
            *self.shedding.counts.entry(expiry.resolution()).or_default() += expiry.spans() as u64;
        }
        if let Some(expire) = &chores.expire {
            *self.shedding.counts.entry(0).or_default() += expire.slices().len() as u64;
        }
    }

    /// Spans that went before their time: resolution in nanoseconds and count.
    pub(in crate::store) fn shed(&self) -> Vec<(i64, u64)> {
        let nanos = |resolution: u32| i64::from(resolution).saturating_mul(self.limits.slice.nanos());
        self.shedding.counts.iter().map(|(resolution, count)| (nanos(*resolution), *count)).collect()
    }
}
