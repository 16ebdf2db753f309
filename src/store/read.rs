//! Reading the ledger: series, totals, positions, parts; and verifying all of it (H3).
//!
//! In: the open file. Out: verified rows. Invariant: rows that a manifest covers are compared with it
//! whenever all of them were read.

use super::error::{Fault, StoreError, corrupt, guard};
use super::fold::TotalsBlock;
use super::format::*;
use super::ledger::Ledger;
use super::page::{Page, PageBuffers, Wanted};
use super::series::{Reader, SeriesDef, decode_series, decode_whole};
use super::tier::{SPAN_SLOTS, TierSpan};
use crate::delta::epoch::PartitionPosition;
use crate::delta::part::Corrupt;
use crate::event::{CommitId, SeriesId, Slice, Timestamp};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};

/// What kind of row a stored part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKind {
    /// A segment row: counts for windows; the stored totals already hold it.
    Segment,
    /// A log row: counts for windows, and for the totals of blocks whose `as_of` is older.
    Log,
}

/// One stored part, as recovery reads it.
#[derive(Debug)]
pub struct StoredPart<'a> {
    /// Of all its rows.
    pub slice: Slice,
    /// The newest commit it holds; for a log row its commit.
    pub through: CommitId,
    /// Segment or log.
    pub kind: StoredKind,
    /// See [`crate::delta::part`].
    pub bytes: &'a [u8],
}

impl Ledger {
    /// The id of a series, also one that left memory (S1, S2).
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn series_by_hash(&self, hash: u128) -> Result<Option<SeriesId>, StoreError> {
        Ok(self.series_by_hashes(&[hash])?[0])
    }

    /// The ids of many series in one read; fastest when the hashes are sorted.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn series_by_hashes(&self, hashes: &[u128]) -> Result<Vec<Option<SeriesId>>, StoreError> {
        self.with(|db| {
            let index = db.begin_read()?.open_table(SERIES_BY_HASH)?;
            let find = |hash: &u128| {
                let key = hash.to_be_bytes();
                let Some(value) = index.get(&key)? else { return Ok(None) };
                Ok(Some(SeriesId(index_id(&key, value.value())?.0)))
            };
            hashes.iter().map(find).collect()
        })
    }

    /// The series with this id; `None` when the id was never given.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn series_def(&self, id: SeriesId) -> Result<Option<SeriesDef>, StoreError> {
        if id.0 >= self.meta.next_series {
            return Ok(None);
        }
        self.with(|db| {
            let table = db.begin_read()?.open_table(Table::Series.rows())?;
            let row = table.range::<&[u8]>(..=id.0.to_be_bytes().as_slice())?.next_back();
            let (key, value) = row.ok_or_else(|| corrupt(format_args!("no row holds series {}", id.0)))??;
            let content = unseal(Table::Series, key.value(), value.value())?;
            let mut found = None;
            decode_series(u32_of(key.value())?, content, |def| {
                if def.id == id {
                    found = Some(def);
                }
            })?;
            found.map(Some).ok_or_else(|| corrupt(format_args!("no row holds series {}", id.0)))
        })
    }

    /// Every series in the order of ids.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing; `visit` may then have been called.
    pub fn all_series(&self, mut visit: impl FnMut(SeriesDef)) -> Result<(), StoreError> {
        self.with(|db| {
            let mut next = 0;
            scan(db, Table::Series, &self.meta, |key, content| {
                let first = u32_of(key)?;
                if first != next {
                    return Err(corrupt(format_args!("series {next} is missing")));
                }
                next += decode_series(first, content, &mut visit)?;
                Ok(())
            })?;
            if next != self.meta.next_series {
                return Err(corrupt(format_args!("{} series were given ids, {next} are there", self.meta.next_series)));
            }
            Ok(())
        })
    }

    /// Every stored block of totals. To be called once after opening, before rows are read for replay;
    /// until then no log row is ever deleted.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing.
    pub fn all_totals(&mut self, mut visit: impl FnMut(TotalsBlock) -> Result<(), Corrupt>) -> Result<(), StoreError> {
        let mut as_of = vec![0; self.totals_as_of.len()];
        self.with(|db| {
            scan(db, Table::Totals, &self.meta, |key, content| {
                let block = decode_totals(u32_of(key)?, content)?;
                let slot = as_of.get_mut(block.block as usize);
                *slot.ok_or_else(|| corrupt(format_args!("totals of block {} without series", block.block)))? =
                    block.as_of.0;
                Ok(visit(block)?)
            })
        })?;
        self.totals_as_of = as_of;
        Ok(())
    }

    /// The stored totals of one block.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn totals_block(&self, block: u32) -> Result<Option<TotalsBlock>, StoreError> {
        let content = self.with(|db| get(db, Table::Totals, &block.to_be_bytes()))?;
        content.map(|content| guard(self.disk.name(), || decode_totals(block, &content))).transpose()
    }

    /// Every partition's position and clock.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing.
    pub fn positions(&self) -> Result<Vec<PartitionPosition>, StoreError> {
        self.with(|db| {
            let mut positions = Vec::new();
            scan(db, Table::Positions, &self.meta, |key, content| {
                let partition = std::str::from_utf8(key).map_err(|_| corrupt("the name of a partition"))?;
                let read = |r: &mut Reader<'_>| Some((r.u64()?, Timestamp(r.i64()?)));
                let (next, clock) = decode_whole(content, read).ok_or_else(|| corrupt("a position"))?;
                positions.push(PartitionPosition { partition: partition.into(), next, clock });
                Ok(())
            })?;
            Ok(positions)
        })
    }

    /// What an owner keeps under a name.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|db| get(db, Table::State, name.as_bytes()))
    }

    /// Every row of table `pairs`, by key.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing; `visit`'s own.
    pub(super) fn pairs(&self, visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>) -> Result<(), StoreError> {
        self.with(|db| scan(db, Table::Pairs, &self.meta, visit))
    }

    /// Every row of table `recent`, by key.
    ///
    /// # Errors
    /// As for [`pairs`](Self::pairs).
    pub(super) fn recent(&self, visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>) -> Result<(), StoreError> {
        self.with(|db| scan(db, Table::Recent, &self.meta, visit))
    }

    /// All parts of a slice: segment rows, then log rows in the order of commits. They are disjoint: merge
    /// them all.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing.
    pub fn read_slice(&self, slice: Slice) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut parts = Vec::new();
        self.replay_slice(slice, |part| {
            parts.push(part.bytes.to_vec());
            Ok(())
        })?;
        Ok(parts)
    }

    /// Every stored part from a slice on, in the order (slice, segments, then log by commit). Each sample of
    /// the file is in exactly one of them.
    ///
    /// # Errors
    /// I/O, a corrupt row, or one that is missing; `visit`'s own error as `Corrupt`.
    pub fn replay(
        &self,
        from: Slice,
        mut visit: impl FnMut(StoredPart<'_>) -> Result<(), Corrupt>,
    ) -> Result<(), StoreError> {
        self.spans.range(from.0..).try_for_each(|(slice, _)| self.replay_slice(Slice(*slice), &mut visit))
    }

    pub(super) fn replay_slice(
        &self,
        slice: Slice,
        mut visit: impl FnMut(StoredPart<'_>) -> Result<(), Corrupt>,
    ) -> Result<(), StoreError> {
        let Some(span) = self.spans.get(&slice.0) else { return Ok(()) };
        self.with(|db| replay_parts(&db.begin_read()?, slice, span, &mut visit))
    }

    /// Reads and verifies the whole file, redb's own checksums included. Needs the file for itself.
    ///
    /// # Errors
    /// I/O, or `Corrupt` with the first thing found.
    pub fn verify(&mut self) -> Result<(), StoreError> {
        self.check_pages()?;
        self.verify_index()?;
        self.positions()?;
        self.replay(Slice(0), |_| Ok(()))?;
        self.verify_pages()?;
        self.with(|db| {
            use Table::*;
            for table in [Totals, Base, State, Spans, Pairs, Recent, TierSpans, Tiers] {
                scan(db, table, &self.meta, |_, _| Ok(()))?;
            }
            Ok(())
        })
    }

    /// Decodes every page of every span.
    pub(super) fn verify_pages(&self) -> Result<(), StoreError> {
        let mut buffers = PageBuffers::default();
        self.history.spans.iter().try_for_each(|((resolution, start), span)| {
            self.with(|db| {
                replay_pages(&db.begin_read()?, *resolution, *start, span, &mut |bytes| {
                    let all = 0..SPAN_SLOTS as u16;
                    Ok(Page::new(bytes)?.read(Wanted::All, all, true, &mut buffers, &mut |_, _, _| Ok(()))?)
                })
            })
        })
    }

    /// Looks every series up by its hash: a damaged branch of the index would otherwise give a known
    /// series a second id. Costs about half a second per million series.
    ///
    /// # Errors
    /// I/O, or `Corrupt`.
    pub fn verify_index(&self) -> Result<(), StoreError> {
        let mut known = Vec::with_capacity(self.meta.next_series as usize);
        self.all_series(|def| known.push((def.hash, def.id.0)))?;
        known.sort_unstable();
        self.with(|db| {
            let index = db.begin_read()?.open_table(SERIES_BY_HASH)?;
            if index.len()? != known.len() as u64 {
                return Err(corrupt(format_args!("{} series but {} in the index", known.len(), index.len()?)));
            }
            let mut xor = 0;
            for (hash, id) in &known {
                let key = hash.to_be_bytes();
                let value = index.get(&key)?.ok_or_else(|| corrupt(format_args!("series {id} is not in the index")))?;
                let (found, sum) = index_id(&key, value.value())?;
                xor ^= sum;
                if found != *id {
                    return Err(corrupt(format_args!("series {id} stands in the index as {found}")));
                }
            }
            if xor == self.meta.index_xor { Ok(()) } else { Err(corrupt("the sum of the index of series")) }
        })
    }
}

/// All parts of a slice as one transaction sees them: segment rows, then log rows in the order of commits.
pub(super) fn replay_parts(
    txn: &ReadTransaction,
    slice: Slice,
    span: &Span,
    visit: &mut dyn FnMut(StoredPart<'_>) -> Result<(), Corrupt>,
) -> Result<(), Fault> {
    let (mut segments, mut log) = (Manifest::default(), Manifest::default());
    if span.generation > 0 {
        let (first, last) = segment_range(slice.0, span.generation);
        for row in txn.open_table(Table::Segments.rows())?.range(first.as_slice()..=last.as_slice())? {
            let (key, value) = row?;
            let bytes = unseal(Table::Segments, key.value(), value.value())?;
            segments.add(claimed(value.value())?, bytes.len());
            visit(StoredPart { slice, through: CommitId(span.through), kind: StoredKind::Segment, bytes })?;
        }
    }
    let (first, last) = log_range(slice.0, u64::MAX);
    for row in txn.open_table(Table::Log.rows())?.range(first.as_slice()..=last.as_slice())? {
        let (key, value) = row?;
        let bytes = unseal(Table::Log, key.value(), value.value())?;
        log.add(claimed(value.value())?, bytes.len());
        let through = log_key_of(key.value())?.1;
        visit(StoredPart { slice, through, kind: StoredKind::Log, bytes })?;
    }
    span.segments.expect(&segments, &format!("segment of slice {}", slice.0))?;
    span.log.expect(&log, &format!("log of slice {}", slice.0))
}

/// All pages of a span as one transaction sees them, compared with its manifests.
pub(super) fn replay_pages(
    txn: &ReadTransaction,
    resolution: u32,
    start: u32,
    span: &TierSpan,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let table = txn.open_table(Table::Pages.rows())?;
    for generation in &span.generations {
        let first = page_key(resolution, start, generation.number, 0, 0);
        let last = page_key(resolution, start, generation.number, 0xFF, u32::MAX);
        let mut seen = Manifest::default();
        for row in table.range(first.as_slice()..=last.as_slice())? {
            let (key, value) = row?;
            let bytes = unseal(Table::Pages, key.value(), value.value())?;
            seen.add(claimed(value.value())?, bytes.len());
            visit(bytes)?;
        }
        let what = format_args!("pages of the span {start} of resolution {resolution}").to_string();
        generation.rows.expect(&seen, &what)?;
    }
    Ok(())
}

pub(super) fn log_range(slice: u32, through: u64) -> ([u8; 16], [u8; 16]) {
    (log_key(slice, 0, 0, 0), log_key(slice, through, u16::MAX, u16::MAX))
}

/// First and last possible key of a generation, whatever the kind code.
pub(super) fn segment_range(slice: u32, generation: u32) -> ([u8; 13], [u8; 13]) {
    let mut first = [0; 13];
    first[..4].copy_from_slice(&slice.to_be_bytes());
    first[4..8].copy_from_slice(&generation.to_be_bytes());
    let mut last = first;
    last[8..].fill(0xFF);
    (first, last)
}

/// One verified row.
pub(super) fn get(db: &Database, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let value = db.begin_read()?.open_table(table.rows())?.get(key)?;
    value.map(|value| unseal(table, key, value.value()).map(<[u8]>::to_vec)).transpose()
}

/// Every verified row of a table that has its manifest in `meta`.
pub(super) fn scan(
    db: &Database,
    table: Table,
    meta: &Meta,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut seen = Manifest::default();
    for row in db.begin_read()?.open_table(table.rows())?.iter()? {
        let (key, value) = row?;
        let content = unseal(table, key.value(), value.value())?;
        seen.add(claimed(value.value())?, content.len());
        visit(key.value(), content)?;
    }
    meta.manifests[table as usize].expect(&seen, &format!("table {}", table.name()))
}

pub(super) fn decode_totals(block: u32, content: &[u8]) -> Result<TotalsBlock, Fault> {
    let (as_of, bytes) = content.split_first_chunk().ok_or_else(|| corrupt(format_args!("totals of block {block}")))?;
    Ok(TotalsBlock { block, as_of: CommitId(u64::from_le_bytes(*as_of)), bytes: bytes.to_vec() })
}
