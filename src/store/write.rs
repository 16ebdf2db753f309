//! One commit, one transaction (C3).
//!
//! In: a [`CommitBatch`]. Out: the file holds all of it, or, after an error, all or nothing. Invariants:
//! manifests change with the rows they cover; memory changes only after the transaction returned.

use super::base::ExpireStep;
use super::due::TierExpiry;
use super::error::{Fault, StoreError, corrupt};
use super::fold::TotalsBlock;
use super::format::*;
use super::job::HistoryStep;
use super::ledger::{KEY_STORE, Ledger};
use super::read::{log_range, segment_range};
use super::rubbish::Entry;
use super::segment::SegmentStep;
use super::series::{SeriesDef, encode_series};
use super::tier::{Tier, TierChange, TierSpan};
use crate::delta::EncodedPart;
use crate::delta::epoch::PartitionPosition;
use crate::delta::part::{self, block_ranges};
use crate::event::{CommitId, Timestamp};
use redb::WriteTransaction;
use std::collections::BTreeMap;

/// Everything that becomes durable together.
#[derive(Clone, Copy, Debug)]
pub struct CommitBatch<'a> {
    /// One more than [`Ledger::last_commit`].
    pub id: CommitId,
    /// Wall clock.
    pub time: Timestamp,
    /// T2.
    pub watermark: Timestamp,
    /// With ids dense from [`Ledger::next_series`].
    pub new_series: &'a [SeriesDef],
    /// At most 65,536 of one slice; they get the part numbers of their order.
    pub log: &'a [EncodedPart],
    /// Of the partitions that moved.
    pub positions: &'a [PartitionPosition],
    /// Blocks to rewrite, `as_of` at most this commit.
    pub totals: &'a [TotalsBlock],
    /// Rows that somebody else encodes, by name; `None` deletes.
    pub state: &'a [(&'a str, Option<&'a [u8]>)],
    /// Rows of table `pairs`, by key; `None` deletes.
    pub pairs: &'a [(Vec<u8>, Option<Vec<u8>>)],
    /// Rows of table `recent`, by key; `None` deletes.
    pub recent: &'a [(Vec<u8>, Option<Vec<u8>>)],
    /// A step of a segment; from [`Ledger::segment_step`].
    pub segment: Option<&'a SegmentStep>,
    /// Whole segments of short slices, made at once; in no commit of a step of a job.
    pub segments: &'a [SegmentStep],
    /// Slices to drop; from [`Ledger::expire_step`].
    pub expire: Option<&'a ExpireStep>,
    /// A step of a job of the history.
    pub history: Option<&'a HistoryStep>,
    /// Spans to drop.
    pub expire_spans: Option<&'a TierExpiry>,
    /// From [`Ledger::tier_change`].
    pub tiers: Option<&'a TierChange>,
    /// A bounded piece of what nobody reads any more is deleted.
    pub clears: bool,
}

impl CommitBatch<'_> {
    /// A commit that says nothing but the time.
    pub const fn new(id: CommitId, time: Timestamp, watermark: Timestamp) -> Self {
        CommitBatch {
            id,
            time,
            watermark,
            new_series: &[],
            log: &[],
            positions: &[],
            totals: &[],
            state: &[],
            pairs: &[],
            recent: &[],
            segment: None,
            segments: &[],
            expire: None,
            history: None,
            expire_spans: None,
            tiers: None,
            clears: false,
        }
    }
}

/// What a transaction has changed so far, beside the file.
pub(super) struct Change {
    pub(super) meta: Meta,
    pub(super) spans: BTreeMap<u32, Span>,
    pub(super) tiers: BTreeMap<u32, Option<Tier>>,
    pub(super) tier_spans: BTreeMap<(u32, u32), Option<TierSpan>>,
    pub(super) rubbish: Option<Vec<Entry>>,
    pub(super) sealed: Vec<u8>,
}

impl Change {
    pub(super) fn new(meta: &Meta) -> Change {
        let (spans, tiers, tier_spans, rubbish) = Default::default();
        Change { meta: meta.clone(), spans, tiers, tier_spans, rubbish, sealed: Vec::new() }
    }
}

impl Ledger {
    /// Makes a batch durable.
    ///
    /// # Errors
    /// Any; the ledger is then broken: [`reopen`](Ledger::reopen) and compare
    /// [`last_commit`](Ledger::last_commit). A batch that is not there can be committed again as it is.
    ///
    /// # Panics
    /// When the commit's number, the ids of new series, the totals or the job of a slice do not fit the
    /// ledger: bad code.
    pub fn commit(&mut self, batch: &CommitBatch<'_>) -> Result<(), StoreError> {
        assert_eq!(batch.id.0, self.meta.last_commit + 1, "commits are numbered without gaps");
        for (def, id) in batch.new_series.iter().zip(self.meta.next_series..) {
            assert_eq!(def.id.0, id, "ids are dense");
        }
        let next_series = self.meta.next_series + batch.new_series.len() as u32;
        for block in batch.totals {
            assert!(block.as_of <= batch.id && block.block < next_series.div_ceil(BLOCK_SERIES), "totals of the past");
        }
        if let Some(step) = batch.expire {
            assert_eq!(step.prepared_at, self.meta.last_commit, "an expiry is committed at once or prepared anew");
        }
        let has_job = batch.segment.is_some() || batch.history.is_some();
        assert!(batch.segments.is_empty() || !has_job, "a job reads segments that must stay as they are");
        for step in batch.segment.into_iter().chain(batch.segments) {
            let expires = batch.expire.is_some_and(|expire| expire.slices.contains(&step.slice));
            assert!(self.is_current_segment(step) && !expires, "an expired slice has no job");
        }
        if let Some(step) = batch.expire_spans {
            assert_eq!(step.prepared_at, self.meta.last_commit, "an expiry is committed at once or prepared anew");
        }
        let is_void = |step: &&HistoryStep| !self.is_current(&step.spec);
        assert!(batch.history.filter(is_void).is_none(), "a step whose inputs have changed is begun anew");
        let may_begin = batch.history.is_none_or(|step| !step.is_first || !self.has_rubbish());
        assert!(may_begin, "nothing is written under keys that wait to be cleared");
        let mut change = Change::new(&self.meta);
        self.with(|db| {
            let mut txn = db.begin_write()?;
            txn.set_durability(redb::Durability::Immediate)?;
            txn.set_quick_repair(true);
            self.write(&txn, batch, &mut change)?;
            Ok(txn.commit()?)
        })?;
        self.meta = change.meta;
        for (slice, span) in change.spans {
            if span == Span::default() {
                self.spans.remove(&slice);
            } else {
                self.spans.insert(slice, span);
            }
        }
        if let Some(rubbish) = change.rubbish {
            self.rubbish = rubbish;
        }
        for (resolution, tier) in change.tiers {
            match tier {
                Some(tier) => drop(self.history.tiers.insert(resolution, tier)),
                None => drop(self.history.tiers.remove(&resolution)),
            }
        }
        for (key, span) in change.tier_spans {
            match span {
                Some(span) => drop(self.history.spans.insert(key, span)),
                None => drop(self.history.spans.remove(&key)),
            }
        }
        // Series that appear now have nothing in older commits.
        self.totals_as_of.resize(next_series.div_ceil(BLOCK_SERIES) as usize, batch.id.0 - 1);
        for block in batch.totals {
            self.totals_as_of[block.block as usize] = block.as_of.0;
        }
        Ok(())
    }

    fn write(&self, txn: &WriteTransaction, batch: &CommitBatch<'_>, change: &mut Change) -> Result<(), Fault> {
        write_series(txn, batch.new_series, change)?;
        self.write_log(txn, batch, change)?;
        for step in batch.segment.into_iter().chain(batch.segments) {
            self.write_segment(txn, step, change)?;
        }
        if let Some(step) = batch.expire {
            self.write_expiry(txn, step, change)?;
        }
        if let Some(tiers) = batch.tiers {
            self.write_tiers(tiers, change);
        }
        if let Some(step) = batch.history {
            self.write_history(txn, step, batch.id.0, change)?;
        }
        if let Some(step) = batch.expire_spans {
            self.write_tier_expiry(step, change)?;
        }
        if batch.clears {
            self.write_clearing(txn, change)?;
        }
        self.put_history(txn, change)?;
        if !batch.positions.is_empty() {
            let rows = batch.positions.iter().map(|position| {
                let mut content = position.next.to_le_bytes().to_vec();
                content.extend_from_slice(&position.clock.0.to_le_bytes());
                (position.partition.as_bytes(), Some(content))
            });
            put(txn, Table::Positions, rows, change)?;
        }
        if !batch.totals.is_empty() {
            let rows = batch.totals.iter().map(|block| {
                let content = [block.as_of.0.to_le_bytes().as_slice(), &block.bytes].concat();
                (block.block.to_be_bytes(), Some(content))
            });
            put(txn, Table::Totals, rows, change)?;
        }
        put(txn, Table::State, batch.state.iter().map(|(name, content)| (name.as_bytes(), *content)), change)?;
        put(txn, Table::Pairs, batch.pairs.iter().map(|(key, content)| (key, content.as_ref())), change)?;
        put(txn, Table::Recent, batch.recent.iter().map(|(key, content)| (key, content.as_ref())), change)?;
        let spans: Vec<_> = change.spans.iter().map(|(slice, span)| (slice.to_be_bytes(), *span)).collect();
        let rows = spans.iter().map(|(key, span)| (key, (*span != Span::default()).then(|| span.encode())));
        put(txn, Table::Spans, rows, change)?;
        let meta = &mut change.meta;
        (meta.last_commit, meta.commit_time, meta.watermark) = (batch.id.0, batch.time.0, batch.watermark.0);
        seal(Table::Meta, KEY_STORE, &meta.encode(), &mut change.sealed);
        txn.open_table(Table::Meta.rows())?.insert(KEY_STORE, change.sealed.as_slice())?;
        Ok(())
    }

    /// The span of a slice as this transaction leaves it.
    pub(super) fn span<'c>(&self, change: &'c mut Change, slice: u32) -> &'c mut Span {
        change.spans.entry(slice).or_insert_with(|| self.spans.get(&slice).copied().unwrap_or_default())
    }

    fn write_log(&self, txn: &WriteTransaction, batch: &CommitBatch<'_>, change: &mut Change) -> Result<(), Fault> {
        let mut table = txn.open_table(Table::Log.rows())?;
        let mut numbers: BTreeMap<u32, u16> = BTreeMap::new();
        for encoded in batch.log.iter().filter(|part| part.rows > 0) {
            let slice = encoded.slice.0;
            let span = self.span(change, slice);
            span.newest = batch.id.0;
            let number = numbers.entry(slice).or_insert(0);
            for (chunk, blocks) in chunks(&encoded.bytes)?.into_iter().enumerate() {
                let chunk = u16::try_from(chunk).map_err(|_| corrupt("a part of more than 64 GiB"))?;
                let key = log_key(slice, batch.id.0, *number, chunk);
                let len = 1 + blocks.len();
                let mut stored = table.insert_reserve(key.as_slice(), 8 + len)?;
                let (head, content) = stored.as_mut().split_at_mut(8);
                content[0] = part::VERSION;
                content[1..].copy_from_slice(&encoded.bytes[blocks]);
                let sum = checksum(Table::Log.name(), &key, content);
                head.copy_from_slice(&sum.to_le_bytes());
                span.log.add(sum, len);
            }
            *number = number.checked_add(1).expect("a tick has fewer parts of a slice than 65,536");
        }
        Ok(())
    }

    fn write_segment(&self, txn: &WriteTransaction, step: &SegmentStep, change: &mut Change) -> Result<(), Fault> {
        let slice = step.slice.0;
        let mut table = txn.open_table(Table::Segments.rows())?;
        if step.is_first {
            let (first, last) = segment_range(slice, step.generation);
            table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
        }
        for row in &step.rows {
            let mut stored = table.insert_reserve(row.key.as_slice(), 8 + row.part.len())?;
            let (head, content) = stored.as_mut().split_at_mut(8);
            content.copy_from_slice(&row.part);
            head.copy_from_slice(&row.sum.to_le_bytes());
        }
        let Some(finish) = &step.finish else { return Ok(()) };
        let span = self.span(change, slice);
        let (first, last) = segment_range(slice, span.generation);
        table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
        let mut removed = span.log;
        remove_log(txn, slice, finish.through, &mut removed)?;
        // What is left of the manifest is what was not folded; what went must be what the job read.
        let gone = Manifest {
            rows: span.log.rows - removed.rows,
            bytes: span.log.bytes - removed.bytes,
            xor: span.log.xor ^ removed.xor,
        };
        finish.folded.expect(&gone, &format!("log of slice {slice} while it was folded"))?;
        *span = Span {
            generation: step.generation,
            through: finish.through,
            newest: span.newest,
            segments: finish.written,
            log: removed,
        };
        Ok(())
    }

    fn write_expiry(&self, txn: &WriteTransaction, step: &ExpireStep, change: &mut Change) -> Result<(), Fault> {
        let mut segments = txn.open_table(Table::Segments.rows())?;
        for slice in &step.slices {
            let (first, _) = segment_range(slice.0, 0);
            let (_, last) = segment_range(slice.0, u32::MAX);
            segments.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
            let span = self.span(change, slice.0);
            let mut log = span.log;
            remove_log(txn, slice.0, step.prepared_at, &mut log)?;
            // Rows of this very commit may have come for the slice; they expire next time.
            *span = match log.rows {
                0 => Span::default(),
                _ => Span { log, newest: span.newest, ..Span::default() },
            };
        }
        put(txn, Table::Base, step.base.iter().map(|(block, row)| (block.to_be_bytes(), Some(row.as_slice()))), change)
    }
}

/// Deletes the log rows of a slice up to a commit and takes them out of the manifest.
fn remove_log(txn: &WriteTransaction, slice: u32, through: u64, manifest: &mut Manifest) -> Result<(), Fault> {
    let (first, last) = log_range(slice, through);
    let mut failed = Ok(());
    txn.open_table(Table::Log.rows())?.retain_in(first.as_slice()..=last.as_slice(), |_, stored| {
        if failed.is_ok() {
            failed = manifest.remove(stored);
        }
        false
    })?;
    failed
}

/// Ranges of whole blocks, each at most [`CHUNK_BYTES`] unless one block alone is longer.
fn chunks(bytes: &[u8]) -> Result<Vec<std::ops::Range<usize>>, Fault> {
    let mut chunks: Vec<std::ops::Range<usize>> = Vec::new();
    if bytes.len() <= CHUNK_BYTES {
        chunks.push(1..bytes.len());
        return Ok(chunks);
    }
    for block in block_ranges(bytes)? {
        match chunks.last_mut() {
            Some(chunk) if block.end - chunk.start < CHUNK_BYTES => chunk.end = block.end,
            _ => chunks.push(block),
        }
    }
    Ok(chunks)
}

fn write_series(txn: &WriteTransaction, mut series: &[SeriesDef], change: &mut Change) -> Result<(), Fault> {
    if series.is_empty() {
        return Ok(());
    }
    let mut index: Vec<([u8; 16], u32)> = series.iter().map(|def| (def.hash.to_be_bytes(), def.id.0)).collect();
    // In key order neighbouring rows share a leaf: each leaf is copied once, not once per row.
    index.sort_unstable();
    let mut by_hash = txn.open_table(SERIES_BY_HASH)?;
    for (hash, id) in &index {
        let value = index_value(hash, *id);
        change.meta.index_xor ^= index_id(hash, &value)?.1;
        if by_hash.insert(hash, &value)?.is_some() {
            return Err(corrupt(format_args!("series {id} has an id already")));
        }
    }
    change.meta.next_series += series.len() as u32;
    drop(index);
    let rows = std::iter::from_fn(|| {
        let first = series.first()?;
        let mut content = Vec::new();
        let taken = encode_series(series, &mut content);
        series = &series[taken..];
        Some((first.id.0.to_be_bytes(), Some(content)))
    });
    put(txn, Table::Series, rows, change)
}

/// Writes or deletes rows of a table with a manifest in `meta`.
pub(super) fn put<K: AsRef<[u8]>, C: AsRef<[u8]>>(
    txn: &WriteTransaction,
    table: Table,
    rows: impl IntoIterator<Item = (K, Option<C>)>,
    change: &mut Change,
) -> Result<(), Fault> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let manifest = &mut change.meta.manifests[table as usize];
    let mut open = txn.open_table(table.rows())?;
    for (key, content) in rows {
        let key = key.as_ref();
        let old = match content {
            Some(content) => {
                let content = content.as_ref();
                let sum = seal(table, key, content, &mut change.sealed);
                manifest.add(sum, content.len());
                open.insert(key, change.sealed.as_slice())?
            }
            None => open.remove(key)?,
        };
        if let Some(old) = old {
            manifest.remove(old.value())?;
        }
    }
    Ok(())
}
