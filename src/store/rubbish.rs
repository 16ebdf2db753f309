//! Rows that nobody reads any more, until they are deleted in bounded pieces (H5).
//!
//! In: what a commit took out of sight: paged segments, folded generations, expired spans. Out: their rows deleted, so much
//! a commit. Owns: row `rubbish` of table `state`. Invariants: what is listed here is listed nowhere else; no row is written
//! under a key that is listed here, so that clearing deletes nothing that counts: jobs of the history wait until the list
//! is empty, and slices in it get no segment.
//!
//! ```text
//! row   = entry*
//! entry = resolution:u32 start:u32 end:u32 bytes:u64
//! ```
//!
//! With resolution 0 an entry is the segments of the slices from `start` to before `end`; with another one the pages of a
//! span of that tier, of generation `end`, or of every generation when that is 2^32 − 1. `bytes` is what they take.

use super::error::{Fault, StoreError, corrupt};
use super::format::*;
use super::ledger::Ledger;
use super::read::segment_range;
use super::series::{Reader, decode_whole};
use super::tier::{TierSpan, span_end};
use super::write::{Change, CommitBatch};
use redb::{ReadableTable, WriteTransaction};

/// The name of the row in table `state`.
pub(super) const KEY_RUBBISH: &[u8] = b"rubbish";
/// What one commit may delete: redb reads what it deletes, and this takes some ten milliseconds.
const CLEAR_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 16 << 20 };
/// Every generation of a span.
pub(super) const ALL: u32 = u32::MAX;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) resolution: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) bytes: u64,
}

impl Entry {
    /// The segments of a span of the first tier.
    pub(super) fn segments(start: u32, bytes: u64) -> Entry {
        Entry { resolution: 0, start, end: span_end(1, start), bytes }
    }

    /// A whole span.
    pub(super) fn span(resolution: u32, start: u32, span: &TierSpan) -> Entry {
        Entry { resolution, start, end: ALL, bytes: span.allocated() }
    }

    /// Deletes about so many bytes of it; what is left of it, and of the bytes.
    fn clear(mut self, txn: &WriteTransaction, mut left: u64) -> Result<(Option<Entry>, u64), Fault> {
        if self.resolution == 0 {
            let slices = u64::from(self.end - self.start).max(1);
            let each = (self.bytes / slices).max(1);
            let count = (left / each).clamp(1, slices);
            let (first, _) = segment_range(self.start, 0);
            let (_, last) = segment_range(self.start + count as u32 - 1, u32::MAX);
            let mut table = txn.open_table(Table::Segments.rows())?;
            table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
            self.start += count as u32;
            self.bytes = self.bytes.saturating_sub(each * count);
            return Ok(((self.start < self.end).then_some(self), left.saturating_sub(each * count)));
        }
        let (from, to) = if self.end == ALL { (0, ALL) } else { (self.end, self.end) };
        let first = page_key(self.resolution, self.start, from, 0, 0);
        let last = page_key(self.resolution, self.start, to, 0xFF, u32::MAX);
        let mut table = txn.open_table(Table::Pages.rows())?;
        let mut keys = Vec::new();
        for row in table.range(first.as_slice()..=last.as_slice())? {
            if left == 0 {
                break;
            }
            let (key, value) = row?;
            let bytes = allocated(key.value().len(), value.value().len());
            (left, self.bytes) = (left.saturating_sub(bytes), self.bytes.saturating_sub(bytes));
            keys.push(key.value().to_vec());
        }
        for key in &keys {
            table.remove(key.as_slice())?;
        }
        let is_left = left == 0 && table.range(first.as_slice()..=last.as_slice())?.next().is_some();
        Ok((is_left.then_some(self), left))
    }
}

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 20);
    for entry in entries {
        for field in [entry.resolution, entry.start, entry.end] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&entry.bytes.to_le_bytes());
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
    let mut entries = Vec::new();
    let read = |r: &mut Reader<'_>| {
        while !r.is_empty() {
            entries.push(Entry { resolution: r.u32()?, start: r.u32()?, end: r.u32()?, bytes: r.u64()? });
        }
        Some(())
    };
    decode_whole(bytes, read).ok_or_else(|| corrupt("the list of rows that nobody reads does not decode"))?;
    Ok(entries)
}

impl Ledger {
    /// True while rows wait to be deleted.
    pub(super) fn has_rubbish(&self) -> bool {
        !self.rubbish.is_empty()
    }

    /// True while segments of this slice wait to be deleted: it gets no other one meanwhile.
    pub(super) fn is_rubbish(&self, slice: u32) -> bool {
        self.rubbish.iter().any(|entry| entry.resolution == 0 && (entry.start..entry.end).contains(&slice))
    }

    /// The list as this transaction leaves it.
    pub(super) fn rubbish_of<'c>(&self, change: &'c mut Change) -> &'c mut Vec<Entry> {
        change.rubbish.get_or_insert_with(|| self.rubbish.clone())
    }

    /// Deletes a bounded piece of what is listed.
    pub(super) fn write_clearing(&self, txn: &WriteTransaction, change: &mut Change) -> Result<(), Fault> {
        let entries = self.rubbish_of(change);
        let mut left = CLEAR_BYTES;
        while left > 0
            && let Some(entry) = entries.first_mut()
        {
            match entry.clear(txn, left)? {
                (Some(rest), _) => {
                    *entry = rest;
                    break;
                }
                (None, rest) => {
                    entries.remove(0);
                    left = rest;
                }
            }
        }
        Ok(())
    }

    /// Deletes everything that is listed.
    ///
    /// # Errors
    /// As [`commit`](Ledger::commit).
    pub(super) fn clear_rubbish(&mut self) -> Result<(), StoreError> {
        while self.has_rubbish() {
            self.commit(&CommitBatch { clears: true, ..self.next_batch() })?;
        }
        Ok(())
    }
}
