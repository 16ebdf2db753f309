//! The file, byte by byte: format 5. Everything the store writes is encoded and checked here.
//!
//! A store is one redb file. Integers are little-endian in values and **big-endian in keys**, so that redb's
//! byte order is number order. *varint* is LEB128.
//!
//! # Every value is sealed (H3)
//!
//! ```text
//! stored value = checksum:u64 content
//! checksum     = XXH3-64(content, seed = XXH3-64(table name ‖ 0x00 ‖ key))
//! ```
//!
//! redb verifies nothing on read. The seed makes a value that moved to another key or table wrong. Rows
//! that vanish, or appear twice, are found by *manifests*: a manifest is a number of rows, the sum of their
//! content lengths and the xor of their checksums. Row `store` of table `meta` holds one for each of
//! series, spans, totals, base, positions, state, pairs, recent, tier_spans and tiers; a row of `spans` holds one for the
//! segment rows and one for the log rows of its slice; a row of `tier_spans` one for the pages of each of its generations.
//! They change in the transaction that changes the rows, and are compared whenever all rows they cover have been read.
//!
//! # Tables
//!
//! ```text
//! meta            "format" → version:u32
//!                 "store"  → id:u128 created:i64 slice_nanos:i64 last_commit:u64 commit_time:i64
//!                            watermark:i64 next_series:u32 series_index_xor:u64 (rows:u64 bytes:u64 xor:u64) × 10
//! series          first id:u32 → created:i64 metrics:varint metric* rows:varint row*
//!                   metric = kind:u8 scale:u8 digits:u8 name_len:varint name unit_len:varint unit
//!                   row    = metric:varint labels_len:varint labels      (ids ascend by one)
//! series_by_hash  hash:[u8;16] → id:u32 checksum:u64                     (fixed width: 1,024 rows take 36 KiB)
//! log             slice:u32 commit:u64 part:u16 chunk:u16 → a part (crate::delta::part)
//! segments        slice:u32 generation:u32 kind:u8 first id:u32 → a part of one kind
//! spans           slice:u32 → generation:u32 through:u64 newest:u64 (rows bytes xor) of segments, of log
//! totals          block:u32 → as_of:u64 and what the fold encoded
//! base            block:u32 → row*   row = id − 1024·block:u16 kind:u8 count:u64 weight:u64 sum:i128
//! positions       partition → next:u64 clock:i64
//! state           any name → whatever its owner encoded; "rubbish": see `rubbish.rs`                     (format 5)
//! pairs           see `pairs/rows.rs`                                     (format 2)
//! recent          see `kept.rs`                                           (format 2)
//! pages           resolution:u32 start:u32 generation:u32 kind:u8 first id:u32 → a page (`page.rs`)       (format 5)
//! tier_spans      resolution:u32 start:u32 → rolled:u8 generation:u32 newest:u64                          (format 5)
//!                   (generation:u32 allocated:u64 rows:u64 bytes:u64 xor:u64)*
//! tiers           resolution:u32 → from:u32 until:u32 keep:i64                                            (format 5)
//! ```
//!
//! # Tiers of history (H1)
//!
//! A *tier* keeps history at a *resolution*, in slices (1 in the first). A *span* of it is 360 slots of that resolution,
//! aligned to the epoch and named by its first slice, so that spans of a tier nest in those of the next. What is kept of a
//! span are *pages*: rows of series of one kind whose ids share id / 1024, each with its slots. Pages are never edited: a
//! job writes a *generation* of them, and a span is all the generations that its row of `tier_spans` lists. They are
//! disjoint in samples: a reader merges them. `generation` is the highest number a listed one ever had; rows of a higher
//! one are rubbish. `newest` is the commit that changed what the span says (folding generations into one does not).
//! A span is *rolled* when everything in it has been added to coarser tiers, or to `base`, too.
//!
//! `from` of a tier is the first slice that it still holds, `until` the first that it gets nothing of any more (2^32 − 1
//! while the pipeline file has the tier; a tier that the file lost ends with the last span it had begun). A slice's samples
//! leave the segments for the finest tier that holds the slice, and if its span is rolled already (late data) for the next
//! one too, and so on, in one transaction; when every one is rolled, or none holds the slice, for `base` too.
//!
//! A part longer than [`CHUNK_BYTES`] is stored as several *chunks*, cut between its blocks: redb allocates by
//! powers of two, so values stay below 2^20 − 256 where the blocks allow it. Each chunk is a part of its own.
//!
//! Format 1 had neither `pairs` nor `recent`, and six manifests. A file of it is opened and becomes one of format 2 at
//! once; before that nothing is lost that the older program would need.
//! Format 2 had no resets in the rows of `totals`, whose blocks say their own version: such a file is opened, becomes one of
//! format 3 at once, and its blocks are written anew as their turn comes. Format 3 had no estimated buckets in them, and
//! becomes one of format 4 in the same way. Format 4 had no tiers: neither `pages` nor `tier_spans` nor `tiers`, and eight
//! manifests; its segments are paged when their turn comes.
//!
//! # Invariants
//!
//! 1. `last_commit` grows by one with each commit; everything a commit brings is in one redb transaction
//!    with it (C3): new series, log rows, positions, totals, state, pairs, kept events, one step of a job, one expiry.
//! 2. Ids are dense: the rows of `series` cover 0..next_series, each once; `series_by_hash` has as many rows.
//! 3. A sample is in exactly one place: a log row, or a segment row of the slice's present generation, or a page of a listed
//!    generation of a span that is not rolled, or `base`. (Pages of rolled spans repeat, finer, what others hold.) In
//!    particular **a log row never lives beside a segment that holds it**: the transaction that
//!    makes a segment visible deletes exactly the log rows that were folded into it (all have
//!    commit ≤ `through`), so a reader takes everything it finds.
//! 4. A log row is deleted only when the totals of every block are `as_of` its commit or newer: totals are
//!    the stored rows plus every log row with commit > `as_of`.
//! 5. Segment rows of another generation than the span's are rubbish of an unfinished job; nobody reads
//!    them, and the next job of the slice (which uses the same number) deletes them first. Segments that were paged,
//!    generations that were folded and spans that expired are rubbish too, which row `rubbish` of `state` lists: it is
//!    deleted in bounded pieces by the next commits, and until then nothing is written under its keys.
//! 6. base + all log rows + all present segment rows + all listed pages of spans that are not rolled = the sums of
//!    everything ever committed (C5).
//! 7. No slice that a window may still read back, or that recovery puts into one, is paged.
//! 8. `from` of a tier is a whole slot of the next tier and the edge of a span, and moves only when every span before it is
//!    rolled, or its sums are in `base`: so tiers join without a seam.
//!
//! # What happens when it stops in the middle
//!
//! Every transaction is `Durability::Immediate` with quick-repair (two-phase): after a crash redb shows the
//! last transaction whose second sync returned, or the one in flight if its header reached the disk.
//!
//! | step | killed, or an I/O error, in it | after opening |
//! |---|---|---|
//! | create | `NAME.new` is written, synced, then renamed | no file, or a whole empty store; rubbish in `NAME.new` is overwritten |
//! | commit n | all of n or nothing | `last_commit` is n or n − 1: the caller compares and re-applies or skips (C4) |
//! | segment step, not the last | rows of a generation that nobody reads | rubbish (invariant 5); the job starts again |
//! | last segment step | one transaction: new generation, log rows gone | before or after, never both (invariant 3) |
//! | expiry of slices | one transaction: rows gone, sums in `base` | before or after (invariant 6) |
//! | step of pages, not the last (paging, rolling up, folding generations) | pages of generations that no row of `tier_spans` lists | rubbish; the next job of that span uses the same numbers and deletes them first; what is left of an expired span is deleted whole |
//! | last step of paging | one transaction: the generations are listed in every tier they go to, the segments are listed as rubbish | before or after, never both (invariant 3) |
//! | last step of rolling up | one transaction: the generations are listed, the span says that it is rolled | before or after; a span that does not say so is rolled up again from the beginning, over rubbish |
//! | last step of folding generations | one transaction: the new one is listed, the old ones as rubbish | before or after: the same samples |
//! | expiry of spans | one transaction: rows of `tier_spans` gone, their pages listed as rubbish, `from` moved; sums of what was not rolled went to `base` before, when the span was marked as rolled | before or after (invariant 6) |
//! | clearing | one transaction: some rows gone, the list of rubbish shorter | it goes on |
//! | another list of tiers | rows of `tiers`, in the next commit | before or after; nothing is paged or expired before the rows say what the pipeline file says |
//! | upgrade of an older file | one transaction: new tables, new manifests, the version | the older file, or this format's |
//! | no space (ENOSPC, EDQUOT, EFBIG) | redb latches the handle; the file keeps the last commit | reopening needs no space; the batch is committed when there is some |
//! | the handle is dropped after an error | redb writes nothing more to it | quick-repair reads the saved allocator state |
//! | a flipped bit | a checksum, a manifest, redb's own check or a caught panic | `Corrupt`; nothing is written afterwards |

use super::error::{Fault, corrupt};
use super::series::{Reader, decode_whole};
use crate::event::{CommitId, Kind, Slice};
use redb::TableDefinition;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The format this program reads and writes.
pub(super) const VERSION: u32 = 5;
/// The oldest that it can turn into its own.
pub(super) const VERSION_OLDEST: u32 = 1;
/// Ids per row of `totals` and `base`.
pub const BLOCK_SERIES: u32 = 1024;
/// Longest stored chunk of a part: just below a power of two of pages.
pub(super) const CHUNK_BYTES: usize = (1 << 20) - 256;

/// A table of byte rows.
pub(super) type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// The index of series; fixed width, so that a leaf holds as many rows as can be.
pub(super) const SERIES_BY_HASH: TableDefinition<'static, &'static [u8; 16], &'static [u8; 12]> =
    TableDefinition::new("series_by_hash");

/// Every table of byte rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Series = 0,
    Spans = 1,
    Totals = 2,
    Base = 3,
    Positions = 4,
    State = 5,
    Pairs = 6,
    Recent = 7,
    TierSpans = 8,
    Tiers = 9,
    Meta = 10,
    Log = 11,
    Segments = 12,
    Pages = 13,
}

/// How many tables have their manifest in `meta`: the first of [`Table`].
pub(super) const MANIFESTS: usize = 10;

/// How many a file of an older format has.
fn manifests_of(version: u32) -> usize {
    match version {
        1 => 6,
        2..5 => 8,
        _ => MANIFESTS,
    }
}

impl Table {
    pub(super) const ALL: [Table; 14] = {
        use Table::*;
        [Series, Spans, Totals, Base, Positions, State, Pairs, Recent, TierSpans, Tiers, Meta, Log, Segments, Pages]
    };

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Series => "series",
            Table::Log => "log",
            Table::Segments => "segments",
            Table::Spans => "spans",
            Table::Totals => "totals",
            Table::Base => "base",
            Table::Positions => "positions",
            Table::State => "state",
            Table::Pairs => "pairs",
            Table::Recent => "recent",
            Table::TierSpans => "tier_spans",
            Table::Tiers => "tiers",
            Table::Pages => "pages",
        }
    }

    pub(super) fn rows(self) -> Rows {
        TableDefinition::new(self.name())
    }
}

/// The checksum that stands before a value.
pub(super) fn checksum(table: &str, key: &[u8], content: &[u8]) -> u64 {
    xxh3_64_with_seed(content, seed(table, key))
}

fn seed(table: &str, key: &[u8]) -> u64 {
    let mut head = [0u8; 64];
    let len = table.len() + 1 + key.len();
    if len > head.len() {
        return xxh3_64(&[table.as_bytes(), &[0], key].concat());
    }
    head[..table.len()].copy_from_slice(table.as_bytes());
    head[table.len() + 1..len].copy_from_slice(key);
    xxh3_64(&head[..len])
}

/// Puts checksum and content into `out`, whose old contents go.
pub(super) fn seal(table: Table, key: &[u8], content: &[u8], out: &mut Vec<u8>) -> u64 {
    let sum = checksum(table.name(), key, content);
    out.clear();
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(content);
    sum
}

/// The checksum that a stored value claims.
pub(super) fn claimed(stored: &[u8]) -> Result<u64, Fault> {
    let bytes = stored.get(..8).ok_or_else(|| corrupt("a value shorter than its checksum"))?;
    Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// The verified content of a stored value.
pub(super) fn unseal<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Fault> {
    let sum = claimed(stored)?;
    let content = &stored[8..];
    if sum != checksum(table.name(), key, content) {
        return Err(corrupt(format_args!("wrong checksum in table {} at key {key:02x?}", table.name())));
    }
    Ok(content)
}

/// A row of `series_by_hash`.
pub(super) fn index_value(hash: &[u8; 16], id: u32) -> [u8; 12] {
    let mut value = [0; 12];
    value[..4].copy_from_slice(&id.to_le_bytes());
    value[4..].copy_from_slice(&checksum("series_by_hash", hash, &id.to_le_bytes()).to_le_bytes());
    value
}

/// The verified id and the checksum of a row of `series_by_hash`.
pub(super) fn index_id(hash: &[u8; 16], value: &[u8; 12]) -> Result<(u32, u64), Fault> {
    let id = u32::from_le_bytes(value[..4].try_into().expect("four bytes"));
    let sum = u64::from_le_bytes(value[4..].try_into().expect("eight bytes"));
    if *value != index_value(hash, id) {
        return Err(corrupt(format_args!("wrong checksum in table series_by_hash at {hash:02x?}")));
    }
    Ok((id, sum))
}

/// Rows counted so that a missing, doubled or moved one shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) xor: u64,
}

impl Manifest {
    pub(super) fn add(&mut self, sum: u64, content_len: usize) {
        self.rows += 1;
        self.bytes += content_len as u64;
        self.xor ^= sum;
    }

    /// Takes a stored value out.
    pub(super) fn remove(&mut self, stored: &[u8]) -> Result<(), Fault> {
        self.xor ^= claimed(stored)?;
        self.rows = self.rows.checked_sub(1).ok_or_else(|| corrupt("more rows than were counted"))?;
        let bytes = self.bytes.checked_sub(stored.len() as u64 - 8);
        self.bytes = bytes.ok_or_else(|| corrupt("more bytes than were counted"))?;
        Ok(())
    }

    /// Compares with what was read.
    pub(super) fn expect(&self, seen: &Manifest, what: &str) -> Result<(), Fault> {
        if self == seen {
            return Ok(());
        }
        Err(corrupt(format_args!(
            "{what}: {} rows were written and {} are there, or their sums differ",
            self.rows, seen.rows
        )))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for field in [self.rows, self.bytes, self.xor] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Option<Manifest> {
        Some(Manifest { rows: reader.u64()?, bytes: reader.u64()?, xor: reader.u64()? })
    }
}

/// Row `store` of table `meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) store_id: u128,
    pub(super) created: i64,
    pub(super) slice_nanos: i64,
    pub(super) last_commit: u64,
    pub(super) commit_time: i64,
    pub(super) watermark: i64,
    pub(super) next_series: u32,
    pub(super) index_xor: u64,
    pub(super) manifests: [Manifest; MANIFESTS],
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        out.extend_from_slice(&self.store_id.to_le_bytes());
        for field in [self.created, self.slice_nanos, self.last_commit as i64, self.commit_time, self.watermark] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.next_series.to_le_bytes());
        out.extend_from_slice(&self.index_xor.to_le_bytes());
        self.manifests.iter().for_each(|manifest| manifest.put(&mut out));
        out
    }

    /// Reads a row of this format, or of an older one.
    pub(super) fn decode(bytes: &[u8], version: u32) -> Result<Meta, Fault> {
        let read = |reader: &mut Reader<'_>| {
            let mut meta = Meta {
                store_id: u128::from_le_bytes(reader.array()?),
                created: reader.i64()?,
                slice_nanos: reader.i64()?,
                last_commit: reader.u64()?,
                commit_time: reader.i64()?,
                watermark: reader.i64()?,
                next_series: reader.u32()?,
                index_xor: reader.u64()?,
                manifests: Default::default(),
            };
            for manifest in &mut meta.manifests[..manifests_of(version)] {
                *manifest = Manifest::take(reader)?;
            }
            Some(meta)
        };
        decode_whole(bytes, read).ok_or_else(|| corrupt("the row that describes the store does not decode"))
    }
}

/// What the file holds of one slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// Of the segment rows that count; 0 = none.
    pub(super) generation: u32,
    /// The newest commit folded into them.
    pub(super) through: u64,
    /// The newest commit that ever touched the slice.
    pub(super) newest: u64,
    pub(super) segments: Manifest,
    pub(super) log: Manifest,
}

impl Span {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(72);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.through.to_le_bytes());
        out.extend_from_slice(&self.newest.to_le_bytes());
        self.segments.put(&mut out);
        self.log.put(&mut out);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Span, Fault> {
        let read = |reader: &mut Reader<'_>| {
            Some(Span {
                generation: reader.u32()?,
                through: reader.u64()?,
                newest: reader.u64()?,
                segments: Manifest::take(reader)?,
                log: Manifest::take(reader)?,
            })
        };
        decode_whole(bytes, read).ok_or_else(|| corrupt("a row of table spans does not decode"))
    }
}

/// The key of a log row.
pub(super) fn log_key(slice: u32, commit: u64, part: u16, chunk: u16) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&slice.to_be_bytes());
    key[4..12].copy_from_slice(&commit.to_be_bytes());
    key[12..14].copy_from_slice(&part.to_be_bytes());
    key[14..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Slice, commit, part and chunk of a log key.
pub(super) fn log_key_of(key: &[u8]) -> Result<(Slice, CommitId, u16, u16), Fault> {
    let read = |r: &mut Reader<'_>| {
        let (slice, commit) = (u32::from_be_bytes(r.array()?), u64::from_be_bytes(r.array()?));
        Some((Slice(slice), CommitId(commit), u16::from_be_bytes(r.array()?), u16::from_be_bytes(r.array()?)))
    };
    decode_whole(key, read).ok_or_else(|| corrupt(format_args!("a key of table log: {key:02x?}")))
}

/// The key of a segment row.
pub(super) fn segment_key(slice: u32, generation: u32, kind: Kind, first: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&slice.to_be_bytes());
    key[4..8].copy_from_slice(&generation.to_be_bytes());
    key[8] = kind as u8;
    key[9..].copy_from_slice(&first.to_be_bytes());
    key
}

/// A key of four bytes.
pub(super) fn u32_of(key: &[u8]) -> Result<u32, Fault> {
    let bytes = key.try_into().map_err(|_| corrupt(format_args!("a key of {} bytes, not 4", key.len())))?;
    Ok(u32::from_be_bytes(bytes))
}

/// The key of a row of `tier_spans`.
pub(super) fn tier_span_key(resolution: u32, start: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&resolution.to_be_bytes());
    key[4..].copy_from_slice(&start.to_be_bytes());
    key
}

/// Resolution and first slice of a key of `tier_spans`.
pub(super) fn tier_span_of(key: &[u8]) -> Result<(u32, u32), Fault> {
    let read = |r: &mut Reader<'_>| Some((u32::from_be_bytes(r.array()?), u32::from_be_bytes(r.array()?)));
    decode_whole(key, read).ok_or_else(|| corrupt(format_args!("a key of table tier_spans: {key:02x?}")))
}

/// Bytes of a key of `pages`.
pub(super) const PAGE_KEY: usize = 17;

/// The key of a page; a kind of 0 comes before, one of 0xFF behind every page of the generation.
pub(super) fn page_key(resolution: u32, start: u32, generation: u32, kind: u8, first: u32) -> [u8; PAGE_KEY] {
    let mut key = [0; PAGE_KEY];
    key[..4].copy_from_slice(&resolution.to_be_bytes());
    key[4..8].copy_from_slice(&start.to_be_bytes());
    key[8..12].copy_from_slice(&generation.to_be_bytes());
    key[12] = kind;
    key[13..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Kind and first id of a page's key.
pub(super) fn page_of(key: &[u8]) -> Result<(Kind, u32), Fault> {
    let whole: Option<&[u8; PAGE_KEY]> = key.try_into().ok();
    let read = |key: &[u8; PAGE_KEY]| {
        let first = u32::from_be_bytes(key[13..].try_into().expect("four bytes"));
        Some((Kind::from_code(key[12])?, first))
    };
    whole.and_then(read).ok_or_else(|| corrupt(format_args!("a key of table pages: {key:02x?}")))
}

/// What a row takes of the file: a leaf of its own from 2 KiB on, by powers of two of 4 KiB; small rows share leaves, which
/// are three quarters full at least when rows are written in order.
pub(super) fn allocated(key_len: usize, value_len: usize) -> u64 {
    const PAGE: u64 = 4096;
    let bytes = (key_len + value_len) as u64 + 16;
    if bytes <= PAGE / 2 { bytes * 4 / 3 } else { bytes.next_power_of_two().max(PAGE) }
}
