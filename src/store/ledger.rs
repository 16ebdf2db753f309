//! The ledger: the durable truth as a plain synchronous value of one thread (format: [`super::format`]).
//!
//! In: a configuration, then commits (see `write.rs`). Out: what is durable, read back. Owns: the redb
//! handle, and in memory one entry per slice and per block of totals. Invariants: after any error the
//! handle is never used again before [`Ledger::reopen`] (C4); every value read was verified (H3).

use super::disk::{Disk, LedgerConfig, LedgerPath, let_go};
use super::error::{Fault, StoreError, corrupt, guard};
use super::format::*;
use super::read::{get, scan};
use super::reader::{SharedDatabase, StoreReader};
use super::rubbish::{Entry, KEY_RUBBISH, decode};
use super::series::decode_whole;
use super::tier::{History, Tier, TierSpan};
use crate::delta::part::Corrupt;
use crate::event::{CommitId, SeriesId, Slice, SliceWidth, Timestamp};
use crate::rule::RestoreError;
use redb::{Database, ReadableDatabase};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// The store's file, or memory.
pub struct Ledger {
    pub(super) disk: Disk,
    /// What it must be; `None` takes what the file says.
    pub(super) slice_nanos: Option<i64>,
    /// Shared with readers of other threads; they hold the lock for as long as one read takes.
    db: SharedDatabase,
    is_broken: Cell<bool>,
    pub(super) meta: Meta,
    pub(super) spans: BTreeMap<u32, Span>,
    pub(super) history: History,
    /// What nobody reads any more and is not deleted yet.
    pub(super) rubbish: Vec<Entry>,
    /// `as_of` of the totals of each block; 0 until known.
    pub(super) totals_as_of: Vec<u64>,
}

/// What the file holds of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceState {
    /// Which.
    pub slice: Slice,
    /// True when a segment stands.
    pub has_segment: bool,
    /// The newest commit that touched it.
    pub newest: CommitId,
    /// Rows that are not folded into a segment yet.
    pub log_rows: u64,
    /// Bytes of parts in the log.
    pub log_bytes: u64,
    /// Bytes of parts in segments.
    pub segment_bytes: u64,
}

/// Rows and content bytes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Its name in the file.
    pub table: &'static str,
    /// Rows.
    pub rows: u64,
    /// Content without keys and checksums.
    pub bytes: u64,
}

/// What the file holds of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSize {
    /// Slices of one slot.
    pub resolution: u32,
    /// Nanoseconds, as the pipeline file said last.
    pub keep: i64,
    /// False when the pipeline file has it no more: it stays until [`Ledger::prune`].
    pub is_planned: bool,
    /// The first slice that it holds.
    pub from: Slice,
    /// The first slice of its oldest span.
    pub oldest: Option<Slice>,
    /// Spans that stand, and those of them that coarser tiers do not hold too.
    pub spans: u64,
    /// See `spans`.
    pub unrolled: u64,
    /// More than spans where readers have something to merge.
    pub generations: u64,
    /// Pages.
    pub rows: u64,
    /// Content without keys and checksums.
    pub bytes: u64,
    /// What the pages take of the file, by redb's allocation.
    pub allocated: u64,
}

impl Ledger {
    /// Opens the store, or creates it. `now` is kept as its time of creation.
    ///
    /// # Errors
    /// Every [`StoreError`] but `Broken`; nothing was changed then.
    pub fn open(config: &LedgerConfig, now: Timestamp) -> Result<Ledger, StoreError> {
        assert!(SliceWidth::from_nanos(config.slice_nanos).is_some(), "the plan checks the width of a slice");
        Ledger::open_with(config, Some(config.slice_nanos), now)
    }

    /// Opens a store that exists, whatever the width of its slices: for tools.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and `Io` where there is no such file.
    pub fn open_existing(path: &Path) -> Result<Ledger, StoreError> {
        // Opening would make a store of a file that is not there, or is empty.
        let length =
            std::fs::metadata(path).map_err(|error| StoreError::from_io(&path.display().to_string(), error))?;
        if length.len() == 0 {
            return Err(StoreError::NotADatabase { path: path.display().to_string() });
        }
        let config = LedgerConfig::new(LedgerPath::File(path.to_owned()), 0);
        Ledger::open_with(&config, None, Timestamp(0))
    }

    fn open_with(config: &LedgerConfig, slice_nanos: Option<i64>, now: Timestamp) -> Result<Ledger, StoreError> {
        let mut ledger = Ledger {
            disk: Disk::new(config),
            slice_nanos,
            db: SharedDatabase::default(),
            is_broken: Cell::new(true),
            meta: Meta::default(),
            spans: BTreeMap::new(),
            history: History::default(),
            rubbish: Vec::new(),
            totals_as_of: Vec::new(),
        };
        ledger.meta.created = now.0;
        ledger.reopen()?;
        Ok(ledger)
    }

    /// Drops the handle and opens the file again; then compare [`last_commit`](Self::last_commit) with the
    /// commit that failed: it is there as a whole or not at all (C4).
    ///
    /// # Errors
    /// As for [`open`](Self::open), and `Corrupt` when the file is another one or has lost commits; the
    /// ledger stays broken and this may be called again.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.close();
        let known = self.meta.store_id != 0;
        let (created, slice_nanos) = (self.meta.created, self.slice_nanos);
        let db = self.disk.open(!known, |db| {
            // Whoever does not know the width of a slice opens only what exists.
            slice_nanos.map_or(Ok(()), |slice_nanos| initialize(db, created, slice_nanos))?;
            upgrade(db)
        })?;
        let loaded = guard(self.disk.name(), || {
            let loaded = load(&db, self.disk.name(), slice_nanos)?;
            let meta = &loaded.meta;
            if known && (meta.store_id != self.meta.store_id || meta.last_commit < self.meta.last_commit) {
                return Err(corrupt("it was replaced by another file while it was in use"));
            }
            Ok(loaded)
        });
        *write(&self.db) = Some(db);
        match loaded {
            Ok(Loaded { meta, spans, history, rubbish }) => {
                let blocks = meta.next_series.div_ceil(BLOCK_SERIES) as usize;
                self.totals_as_of.resize(blocks, 0);
                (self.meta, self.spans, self.history, self.rubbish) = (meta, spans, history, rubbish);
                self.is_broken.set(false);
                Ok(())
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Looks whether the file is still where it was opened. If not, what it holds is copied to `NAME.rescued` beside it,
    /// since it is gone for good when this process lets go of it.
    ///
    /// # Errors
    /// `Displaced`.
    pub fn check_place(&self) -> Result<(), StoreError> {
        if self.disk.is_in_place() {
            return Ok(());
        }
        let path = self.disk.name().to_owned();
        let rescued = format!("{path}.rescued");
        let rescue = match self.copy_to(std::path::Path::new(&rescued)) {
            Ok(()) => format!("everything up to commit {} was saved to {rescued}", self.meta.last_commit),
            Err(error) => format!("its contents could not be saved to {rescued} ({error})"),
        };
        Err(StoreError::Displaced { path, rescue })
    }

    /// Lets the file go, as dropping does; nothing is written for it. Every later call but [`reopen`](Self::reopen) fails.
    pub fn close(&mut self) {
        self.is_broken.set(true);
        let db = write(&self.db).take();
        if let Some(db) = db {
            let_go(db);
        }
    }

    /// What a fold found wrong with bytes of this file.
    pub(super) fn corrupt_part(&self, source: Corrupt) -> StoreError {
        StoreError::Corrupt { path: self.disk.name().to_owned(), what: source.to_string() }
    }

    /// What the pipeline file wants of a metric that this file counts otherwise.
    pub(super) fn rescaled(&self, source: RestoreError) -> StoreError {
        StoreError::Rescaled { path: self.disk.name().to_owned(), source }
    }

    /// Something that reads beside it failed: the handle is not used again (C4).
    pub(super) fn give_up(&self) {
        self.is_broken.set(true);
    }

    /// Why nothing can be written now.
    pub(super) fn broken(&self) -> StoreError {
        StoreError::Broken { path: self.disk.name().to_owned() }
    }

    /// True after an error, until [`reopen`](Self::reopen) succeeds.
    pub fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Runs something on the database; any error breaks the ledger.
    pub(super) fn with<T>(&self, call: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        let held = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = held.as_ref().filter(|_| !self.is_broken.get()) else {
            return Err(StoreError::Broken { path: self.disk.name().to_owned() });
        };
        let result = guard(self.disk.name(), || call(db));
        self.is_broken.set(result.is_err());
        result
    }

    /// As [`with`](Self::with), for what needs the database for itself.
    pub(super) fn with_mut<T>(
        &mut self,
        call: impl FnOnce(&mut Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let path = self.disk.name();
        let mut held = write(&self.db);
        let Some(db) = held.as_mut().filter(|_| !self.is_broken.get()) else {
            return Err(StoreError::Broken { path: path.to_owned() });
        };
        let result = guard(path, || call(db));
        self.is_broken.set(result.is_err());
        result
    }

    /// What other threads read the file through.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(Arc::clone(&self.db), self.disk.name().to_owned())
    }

    /// The random number of this store.
    pub fn store_id(&self) -> u128 {
        self.meta.store_id
    }

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        Timestamp(self.meta.created)
    }

    /// The last durable commit; 0 in a new store.
    pub fn last_commit(&self) -> CommitId {
        CommitId(self.meta.last_commit)
    }

    /// Wall clock of the last commit.
    pub fn commit_time(&self) -> Timestamp {
        Timestamp(self.meta.commit_time)
    }

    /// The watermark of the last commit (T2).
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.meta.watermark)
    }

    /// The id that the next new series must get.
    pub fn next_series(&self) -> SeriesId {
        SeriesId(self.meta.next_series)
    }

    /// What is stored of each slice, oldest first.
    pub fn slices(&self) -> impl DoubleEndedIterator<Item = SliceState> {
        self.spans.iter().map(|(slice, span)| SliceState {
            slice: Slice(*slice),
            has_segment: span.generation > 0,
            newest: CommitId(span.newest),
            log_rows: span.log.rows,
            log_bytes: span.log.bytes,
            segment_bytes: span.segments.bytes,
        })
    }

    /// The oldest `as_of` of any block of totals: log rows up to here are needed for windows only.
    pub fn totals_through(&self) -> CommitId {
        CommitId(self.totals_as_of.iter().copied().min().unwrap_or(self.meta.last_commit))
    }

    /// The `count` blocks whose totals are oldest, oldest first: what the next commit should rewrite.
    pub fn stalest_totals(&self, count: usize) -> Vec<u32> {
        let mut blocks: Vec<(u64, u32)> = self.totals_as_of.iter().copied().zip(0..).collect();
        blocks.sort_unstable();
        blocks.into_iter().take(count).map(|(_, block)| block).collect()
    }

    /// Rows and bytes per table; costs nothing.
    pub fn sizes(&self) -> Vec<TableSize> {
        let mut sizes: Vec<TableSize> = Table::ALL[..MANIFESTS]
            .iter()
            .zip(&self.meta.manifests)
            .map(|(table, manifest)| TableSize { table: table.name(), rows: manifest.rows, bytes: manifest.bytes })
            .collect();
        let mut sum = |table: Table, of: fn(&Span) -> &Manifest| {
            let (rows, bytes) = self.spans.values().map(of).fold((0, 0), |sum, m| (sum.0 + m.rows, sum.1 + m.bytes));
            sizes.push(TableSize { table: table.name(), rows, bytes });
        };
        sum(Table::Log, |span| &span.log);
        sum(Table::Segments, |span| &span.segments);
        let pages =
            self.history.spans.values().map(TierSpan::size).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        sizes.push(TableSize { table: Table::Pages.name(), rows: pages.0, bytes: pages.1 });
        let series = u64::from(self.meta.next_series);
        sizes.push(TableSize { table: "series_by_hash", rows: series, bytes: series * 20 });
        sizes
    }

    /// What stands of each tier, finest first; costs nothing.
    pub fn tier_sizes(&self) -> Vec<TierSize> {
        let size = |(resolution, tier): (&u32, &Tier)| {
            let mut size = TierSize {
                resolution: *resolution,
                keep: tier.keep,
                is_planned: tier.until == u32::MAX,
                from: Slice(tier.from),
                oldest: None,
                spans: 0,
                unrolled: 0,
                generations: 0,
                rows: 0,
                bytes: 0,
                allocated: 0,
            };
            for (start, span) in self.history.spans_of(*resolution, 0..u32::MAX) {
                size.oldest.get_or_insert(Slice(start));
                size.spans += 1;
                size.unrolled += u64::from(!span.is_rolled);
                size.generations += span.generations.len() as u64;
                let (rows, bytes) = span.size();
                (size.rows, size.bytes) = (size.rows + rows, size.bytes + bytes);
                size.allocated += span.allocated();
            }
            size
        };
        self.history.tiers.iter().map(size).collect()
    }

    /// What the file takes on disk (blocks, not length), or in memory.
    pub fn allocated_bytes(&self) -> u64 {
        self.disk.allocated_bytes()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({}, commit {})", self.disk.name(), self.meta.last_commit)
    }
}

fn write(db: &SharedDatabase) -> std::sync::RwLockWriteGuard<'_, Option<Database>> {
    db.write().unwrap_or_else(PoisonError::into_inner)
}

const KEY_FORMAT: &[u8] = b"format";
pub(super) const KEY_STORE: &[u8] = b"store";

/// Makes an empty redb file a store; leaves any other as it is.
fn initialize(db: &Database, created: i64, slice_nanos: i64) -> Result<(), Fault> {
    if db.begin_read()?.list_tables()?.next().is_some() {
        return Ok(());
    }
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut id))
        .map_err(redb::StorageError::from)?;
    let meta = Meta { store_id: u128::from_le_bytes(id), created, slice_nanos, watermark: i64::MIN, ..Meta::default() };
    let mut txn = db.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    txn.set_quick_repair(true);
    for table in Table::ALL {
        txn.open_table(table.rows())?;
    }
    txn.open_table(SERIES_BY_HASH)?;
    let mut sealed = Vec::new();
    for (key, content) in [(KEY_FORMAT, VERSION.to_le_bytes().to_vec()), (KEY_STORE, meta.encode())] {
        seal(Table::Meta, key, &content, &mut sealed);
        txn.open_table(Table::Meta.rows())?.insert(key, sealed.as_slice())?;
    }
    Ok(txn.commit()?)
}

/// Turns a file of an older format into one of this; leaves any other as it is, whoever's it is.
fn upgrade(db: &Database) -> Result<(), Fault> {
    if db.begin_read()?.open_table(Table::Meta.rows()).is_err() {
        return Ok(());
    }
    let Some(format) = get(db, Table::Meta, KEY_FORMAT)? else { return Ok(()) };
    let found = decode_whole(&format, |reader| reader.u32());
    let Some(found) = found.filter(|found| (VERSION_OLDEST..VERSION).contains(found)) else { return Ok(()) };
    let Some(row) = get(db, Table::Meta, KEY_STORE)? else { return Ok(()) };
    let meta = Meta::decode(&row, found)?;
    let mut txn = db.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    txn.set_quick_repair(true);
    for table in Table::ALL {
        txn.open_table(table.rows())?;
    }
    let mut sealed = Vec::new();
    for (key, content) in [(KEY_FORMAT, VERSION.to_le_bytes().to_vec()), (KEY_STORE, meta.encode())] {
        seal(Table::Meta, key, &content, &mut sealed);
        txn.open_table(Table::Meta.rows())?.insert(key, sealed.as_slice())?;
    }
    Ok(txn.commit()?)
}

/// What is in memory of a file.
struct Loaded {
    meta: Meta,
    spans: BTreeMap<u32, Span>,
    history: History,
    rubbish: Vec<Entry>,
}

fn load(db: &Database, path: &str, slice_nanos: Option<i64>) -> Result<Loaded, Fault> {
    let path = || path.to_owned();
    match db.begin_read()?.open_table(Table::Meta.rows()) {
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Err(StoreError::NotADatabase { path: path() }.into()),
        Ok(_) => {}
    }
    let format = get(db, Table::Meta, KEY_FORMAT)?.ok_or_else(|| corrupt("its format version is missing"))?;
    let found = decode_whole(&format, |reader| reader.u32()).ok_or_else(|| corrupt("its format version"))?;
    if found != VERSION {
        return Err(StoreError::WrongVersion { path: path(), found, supported: VERSION }.into());
    }
    let row = get(db, Table::Meta, KEY_STORE)?.ok_or_else(|| corrupt("the row that describes the store is missing"))?;
    let meta = Meta::decode(&row, VERSION)?;
    if let Some(asked) = slice_nanos.filter(|asked| meta.slice_nanos != *asked) {
        return Err(StoreError::SliceMismatch { path: path(), stored: meta.slice_nanos, asked }.into());
    }
    let mut spans = BTreeMap::new();
    scan(db, Table::Spans, &meta, |key, content| {
        spans.insert(u32_of(key)?, Span::decode(content)?);
        Ok(())
    })?;
    // Its rows are read one by one, so that one that has vanished would look as if it had never been.
    let mut rubbish = Vec::new();
    scan(db, Table::State, &meta, |key, content| {
        if key == KEY_RUBBISH {
            rubbish = decode(content)?;
        }
        Ok(())
    })?;
    let mut history = History::default();
    scan(db, Table::Tiers, &meta, |key, content| {
        history.tiers.insert(u32_of(key)?, Tier::decode(content)?);
        Ok(())
    })?;
    scan(db, Table::TierSpans, &meta, |key, content| {
        history.spans.insert(tier_span_of(key)?, TierSpan::decode(content)?);
        Ok(())
    })?;
    Ok(Loaded { meta, spans, history, rubbish })
}
