//! What a commit writes of the history: pages, spans, tiers, and sums that go to `base`.
//!
//! In: steps of jobs, expiries, changes of the tiers, in the transaction of a commit. Out: rows. Invariants: a step whose
//! spec is not current is never written; what leaves one place appears in the others in the same transaction.

use super::base::{SumMap, add_sums, decode_base, encode_base};
use super::due::TierExpiry;
use super::error::{Fault, corrupt};
use super::format::*;
use super::job::{HistoryFinish, HistoryStep, Purpose};
use super::ledger::Ledger;
use super::read::segment_range;
use super::tier::{TierChange, TierSpan, span_end};
use super::write::{Change, put};
use redb::{ReadableTable, WriteTransaction};
use std::collections::BTreeMap;

impl Ledger {
    /// The span of a tier as this transaction leaves it.
    fn tier_span<'c>(&self, change: &'c mut Change, key: (u32, u32)) -> &'c mut TierSpan {
        let stored = || self.history.spans.get(&key).cloned().unwrap_or_default();
        change.tier_spans.entry(key).or_insert_with(|| Some(stored())).get_or_insert_default()
    }

    pub(super) fn write_tiers(
        &self,
        txn: &WriteTransaction,
        tiers: &TierChange,
        change: &mut Change,
    ) -> Result<(), Fault> {
        for resolution in &tiers.emptied {
            let spans: Vec<u32> = self.history.spans_of(*resolution, 0..u32::MAX).map(|(start, _)| start).collect();
            drop_spans(txn, *resolution, &spans, change)?;
        }
        change.tiers.extend(tiers.rows.iter().copied());
        Ok(())
    }

    pub(super) fn write_history(
        &self,
        txn: &WriteTransaction,
        step: &HistoryStep,
        commit: u64,
        change: &mut Change,
    ) -> Result<(), Fault> {
        let mut table = txn.open_table(Table::Pages.rows())?;
        if step.is_first {
            for target in &step.spec.targets {
                let first = page_key(target.resolution, target.start, target.generation, 0, 0);
                let last = page_key(target.resolution, target.start, u32::MAX, 0xFF, u32::MAX);
                table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
            }
        }
        for row in &step.rows {
            let mut stored = table.insert_reserve(row.key.as_slice(), 8 + row.bytes.len())?;
            let (head, content) = stored.as_mut().split_at_mut(8);
            content.copy_from_slice(&row.bytes);
            head.copy_from_slice(&row.sum.to_le_bytes());
        }
        drop(table);
        match &step.finish {
            Some(finish) => self.finish_history(txn, step, finish, commit, change),
            None => Ok(()),
        }
    }

    fn finish_history(
        &self,
        txn: &WriteTransaction,
        step: &HistoryStep,
        finish: &HistoryFinish,
        commit: u64,
        change: &mut Change,
    ) -> Result<(), Fault> {
        let spec = &*step.spec;
        for (target, written) in spec.targets.iter().zip(&finish.written) {
            let span = self.tier_span(change, (target.resolution, target.start));
            span.generation = target.generation;
            if spec.purpose != Purpose::Fold {
                span.newest = commit;
            }
            if written.rows.rows > 0 {
                span.generations.push(*written);
            }
        }
        let source = (spec.resolution, spec.start);
        match spec.purpose {
            Purpose::Page => self.drop_segments(txn, spec.start, change)?,
            Purpose::Roll => self.tier_span(change, source).is_rolled = true,
            Purpose::Fold => {
                let mut table = txn.open_table(Table::Pages.rows())?;
                for generation in &spec.generations {
                    let first = page_key(spec.resolution, spec.start, generation.number, 0, 0);
                    let last = page_key(spec.resolution, spec.start, generation.number, 0xFF, u32::MAX);
                    table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
                }
                let is_gone = |number: u32| spec.generations.iter().any(|generation| generation.number == number);
                self.tier_span(change, source).generations.retain(|generation| !is_gone(generation.number));
            }
        }
        add_to_base(txn, &finish.sums, change)
    }

    /// The segments of a span of the first tier go, and rubbish with them. Log rows stay: they came later.
    fn drop_segments(&self, txn: &WriteTransaction, start: u32, change: &mut Change) -> Result<(), Fault> {
        let end = span_end(1, start);
        let (first, _) = segment_range(start, 0);
        let (_, last) = segment_range(end - 1, u32::MAX);
        txn.open_table(Table::Segments.rows())?.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
        let slices: Vec<u32> = self.spans.range(start..end).map(|(slice, _)| *slice).collect();
        for slice in slices {
            let span = self.span(change, slice);
            (span.generation, span.segments) = (0, Manifest::default());
            if span.log.rows == 0 {
                *span = Span::default();
            }
        }
        Ok(())
    }

    pub(super) fn write_tier_expiry(
        &self,
        txn: &WriteTransaction,
        step: &TierExpiry,
        change: &mut Change,
    ) -> Result<(), Fault> {
        drop_spans(txn, step.resolution, &step.spans, change)?;
        let tier = change
            .tiers
            .get(&step.resolution)
            .copied()
            .unwrap_or_else(|| self.history.tiers.get(&step.resolution).copied());
        let tier = tier.ok_or_else(|| corrupt("the expiry of a tier that is not there"))?;
        change.tiers.insert(step.resolution, Some(super::tier::Tier { from: step.from, ..tier }));
        Ok(())
    }

    /// Rows of `tiers` and `tier_spans` as this transaction leaves them.
    pub(super) fn put_history(&self, txn: &WriteTransaction, change: &mut Change) -> Result<(), Fault> {
        let tiers: Vec<_> = change.tiers.iter().map(|(r, tier)| (r.to_be_bytes(), tier.map(|t| t.encode()))).collect();
        put(txn, Table::Tiers, tiers, change)?;
        let spans = change.tier_spans.iter();
        let spans = spans.map(|((resolution, start), span)| {
            (tier_span_key(*resolution, *start), span.as_ref().map(TierSpan::encode))
        });
        let spans: Vec<_> = spans.collect();
        put(txn, Table::TierSpans, spans, change)
    }
}

/// Deletes spans of a tier, with whatever stands under their keys.
fn drop_spans(txn: &WriteTransaction, resolution: u32, spans: &[u32], change: &mut Change) -> Result<(), Fault> {
    let mut table = txn.open_table(Table::Pages.rows())?;
    for start in spans {
        let first = page_key(resolution, *start, 0, 0, 0);
        let last = page_key(resolution, *start, u32::MAX, 0xFF, u32::MAX);
        table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
        change.tier_spans.insert((resolution, *start), None);
    }
    Ok(())
}

/// Adds sums to the rows of `base` (C5).
fn add_to_base(txn: &WriteTransaction, sums: &SumMap, change: &mut Change) -> Result<(), Fault> {
    let mut blocks: BTreeMap<u32, SumMap> = BTreeMap::new();
    for (id, more) in sums {
        blocks.entry(id.0 / BLOCK_SERIES).or_default().insert(*id, *more);
    }
    let mut rows = Vec::with_capacity(blocks.len());
    let table = txn.open_table(Table::Base.rows())?;
    for (block, mut sums) in blocks {
        let key = block.to_be_bytes();
        if let Some(stored) = table.get(key.as_slice())? {
            let content = unseal(Table::Base, &key, stored.value())?;
            decode_base(block, content, |id, old| add_sums(&mut sums, id, &old))?;
        }
        rows.push((key, Some(encode_base(block, &sums))));
    }
    drop(table);
    put(txn, Table::Base, rows, change)
}
