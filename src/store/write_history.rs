//! What a commit writes of the history: pages, spans, tiers, and sums that go to `base`.
//!
//! In: steps of jobs, expiries, changes of the tiers, in the transaction of a commit. Out: rows. Invariants: a step whose
//! spec is not current is never written; what leaves one place appears in the others in the same transaction.

use super::base::{SumMap, add_sums, decode_base, encode_base};
use super::due::TierExpiry;
use super::error::{Fault, corrupt};
use super::format::*;
use super::job::{HistoryFinish, HistorySpec, HistoryStep, Purpose};
use super::ledger::Ledger;
use super::rubbish::{Entry, KEY_RUBBISH, encode};
use super::tier::{TierChange, TierSpan};
use super::write::{Change, put};
use redb::{ReadableTable, WriteTransaction};
use std::collections::BTreeMap;

impl Ledger {
    /// The span of a tier as this transaction leaves it.
    fn tier_span<'c>(&self, change: &'c mut Change, key: (u32, u32)) -> &'c mut TierSpan {
        let stored = || self.history.spans.get(&key).cloned().unwrap_or_default();
        change.tier_spans.entry(key).or_insert_with(|| Some(stored())).get_or_insert_default()
    }

    pub(super) fn write_tiers(&self, tiers: &TierChange, change: &mut Change) {
        for resolution in &tiers.emptied {
            let spans: Vec<u32> = self.history.spans_of(*resolution, 0..u32::MAX).map(|(start, _)| start).collect();
            self.drop_spans(*resolution, &spans, change);
        }
        change.tiers.extend(tiers.rows.iter().copied());
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
            Purpose::Page => self.drop_segments(spec, change),
            Purpose::Roll => self.tier_span(change, source).is_rolled = true,
            Purpose::Fold => {
                let gone = spec.generations.iter().map(|generation| {
                    let (resolution, start) = source;
                    Entry { resolution, start, end: generation.number, bytes: generation.allocated }
                });
                self.rubbish_of(change).extend(gone);
                let is_gone = |number: u32| spec.generations.iter().any(|generation| generation.number == number);
                self.tier_span(change, source).generations.retain(|generation| !is_gone(generation.number));
            }
        }
        add_to_base(txn, &finish.sums, change)
    }

    /// The segments of a span of the first tier are not read any more. Log rows stay: they came later.
    fn drop_segments(&self, spec: &HistorySpec, change: &mut Change) {
        let bytes = spec.segments.iter().map(|segment| segment.rows.bytes).sum();
        self.rubbish_of(change).push(Entry::segments(spec.start, bytes));
        for segment in &spec.segments {
            let span = self.span(change, segment.slice);
            (span.generation, span.segments) = (0, Manifest::default());
            if span.log.rows == 0 {
                *span = Span::default();
            }
        }
    }

    pub(super) fn write_tier_expiry(&self, step: &TierExpiry, change: &mut Change) -> Result<(), Fault> {
        self.drop_spans(step.resolution, &step.spans, change);
        let tier = change
            .tiers
            .get(&step.resolution)
            .copied()
            .unwrap_or_else(|| self.history.tiers.get(&step.resolution).copied());
        let tier = tier.ok_or_else(|| corrupt("the expiry of a tier that is not there"))?;
        change.tiers.insert(step.resolution, Some(super::tier::Tier { from: step.from, ..tier }));
        Ok(())
    }

    /// Spans of a tier are not read any more.
    fn drop_spans(&self, resolution: u32, spans: &[u32], change: &mut Change) {
        for start in spans {
            if let Some(span) = self.history.spans.get(&(resolution, *start)) {
                self.rubbish_of(change).push(Entry::span(resolution, *start, span));
                change.tier_spans.insert((resolution, *start), None);
            }
        }
    }

    /// Rows of `tiers` and `tier_spans`, and the list of rubbish, as this transaction leaves them.
    pub(super) fn put_history(&self, txn: &WriteTransaction, change: &mut Change) -> Result<(), Fault> {
        let tiers: Vec<_> = change.tiers.iter().map(|(r, tier)| (r.to_be_bytes(), tier.map(|t| t.encode()))).collect();
        put(txn, Table::Tiers, tiers, change)?;
        let spans = change.tier_spans.iter();
        let spans = spans.map(|((resolution, start), span)| {
            (tier_span_key(*resolution, *start), span.as_ref().map(TierSpan::encode))
        });
        let spans: Vec<_> = spans.collect();
        put(txn, Table::TierSpans, spans, change)?;
        let Some(rubbish) = &change.rubbish else { return Ok(()) };
        let row = (!rubbish.is_empty()).then(|| encode(rubbish));
        put(txn, Table::State, [(KEY_RUBBISH, row)], change)
    }
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
