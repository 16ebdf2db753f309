//! What `hydrograph store` tells and does, of a running store and of a file that nobody serves.
//!
//! In: a reader of the store. Out: figures, what a whole check found, a copy. Owns nothing. Invariant: a check and a copy
//! are of one commit, and hold one snapshot for as long as they take: what the store frees meanwhile it uses again
//! afterwards, and after a disk error it waits for them to end.

use super::running::Pipeline;
use crate::event::time::rfc3339;
use crate::event::{SliceWidth, Timestamp};
use crate::store::{Ledger, StoreError, StoreReader, TierFigures};
use crate::view::{Compared, compare};
use serde::Serialize;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a store holds: `store stats`.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStats {
    /// The file; `:memory:` without one.
    pub path: String,
    /// The format of the file.
    pub format: u32,
    /// The random number of the store, in hexadecimal.
    pub id: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// Seconds.
    pub slice_seconds: f64,
    /// The last commit.
    pub commit: u64,
    /// Its wall clock: RFC 3339.
    pub committed: String,
    /// Series that the file knows.
    pub series: u32,
    /// What the file takes on disk.
    pub file_bytes: Option<u64>,
    /// What the file system still has for it.
    pub disk_free_bytes: Option<u64>,
    /// The beginning of the oldest span or slice: RFC 3339.
    pub oldest: Option<String>,
    /// Slices in the log or in segments.
    pub slices: u64,
    /// Rows and bytes of every table.
    pub tables: Vec<TableStats>,
    /// Finest first.
    pub tiers: Vec<TierStats>,
}

/// One table of the file.
#[derive(Clone, Debug, Serialize)]
pub struct TableStats {
    /// Its name.
    pub table: &'static str,
    /// Rows.
    pub rows: u64,
    /// Content without keys and checksums.
    pub bytes: u64,
}

/// One tier of history.
#[derive(Clone, Debug, Serialize)]
pub struct TierStats {
    /// Seconds of a slot.
    pub resolution_seconds: f64,
    /// Seconds that it is kept.
    pub keep_seconds: f64,
    /// False once the pipeline file has it no more.
    pub wanted: bool,
    /// The beginning of its oldest span: RFC 3339.
    pub oldest: Option<String>,
    /// The end of its newest.
    pub newest: Option<String>,
    /// Spans of 360 slots.
    pub spans: u64,
    /// Of these in the next tier, too.
    pub rolled_up: u64,
    /// Rows of pages.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the newest spans take for each slot of each series.
    pub bytes_per_sample: Option<f64>,
}

/// What `store check` read and found in order.
#[derive(Clone, Debug, Serialize)]
pub struct StoreCheck {
    /// The file; `:memory:` without one.
    pub path: String,
    /// The commit that it is of.
    pub commit: u64,
    /// Series that the file knows.
    pub series: u32,
    /// Slices in the log or in segments.
    pub slices: u64,
    /// Spans of all tiers.
    pub spans: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Series whose totals are not base + history; the first of them follow (C5).
    pub differing: u64,
    /// In words.
    pub differences: Vec<String>,
}

/// The figures of a store.
///
/// # Errors
/// I/O, or a corrupt row.
pub fn stats(reader: &StoreReader, file: Option<&Path>) -> Result<StoreStats, StoreError> {
    let figures = reader.snapshot(|snapshot| snapshot.figures())?;
    let width = SliceWidth::from_nanos(figures.slice_nanos);
    let start = |slice| width.map(|width| width.start(slice));
    let shown = |time: Option<Timestamp>| time.map(rfc3339);
    let seconds = |nanos: i64| nanos as f64 / 1e9;
    let tier = |tier: &TierFigures| TierStats {
        resolution_seconds: seconds(figures.slice_nanos.saturating_mul(i64::from(tier.resolution))),
        keep_seconds: seconds(tier.keep),
        wanted: tier.is_wanted,
        oldest: shown(tier.oldest.and_then(start)),
        newest: shown(tier.oldest.and_then(|_| start(tier.to))),
        spans: tier.spans.0,
        rolled_up: tier.spans.1,
        pages: tier.rows,
        bytes: tier.bytes,
        bytes_per_sample: (tier.weighed.1 > 0).then(|| tier.weighed.0 as f64 / tier.weighed.1 as f64),
    };
    let oldest = figures.tiers.iter().filter_map(|tier| tier.oldest).chain(figures.slices.1).min();
    let directory =
        file.map(|file| file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let disk = directory.and_then(|directory| rustix::fs::statvfs(directory).ok());
    let tables = figures.tables.iter().map(|size| TableStats { table: size.table, rows: size.rows, bytes: size.bytes });
    Ok(StoreStats {
        path: name_of(file),
        format: figures.format,
        id: format!("{:032x}", figures.store_id),
        created: rfc3339(figures.created),
        slice_seconds: seconds(figures.slice_nanos),
        commit: figures.commit.0.0,
        committed: rfc3339(figures.commit.1),
        series: figures.series,
        file_bytes: file.and_then(|file| std::fs::metadata(file).ok()).map(|metadata| metadata.blocks() * 512),
        disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        oldest: shown(oldest.and_then(start)),
        slices: figures.slices.0,
        tables: tables.collect(),
        tiers: figures.tiers.iter().map(tier).collect(),
    })
}

/// Reads and verifies everything, and compares totals with base and history. `progress` gets the share that is done.
///
/// # Errors
/// I/O, or `Corrupt` with the first thing found.
pub fn check(
    reader: &StoreReader,
    file: Option<&Path>,
    progress: &mut dyn FnMut(f64),
) -> Result<StoreCheck, StoreError> {
    let (audit, compared, names) = reader.snapshot(|snapshot| {
        let audit = snapshot.audit(progress)?;
        let compared = compare(snapshot, &audit)?;
        let mut names = HashMap::new();
        if !compared.differences.is_empty() {
            snapshot.series(
                |_, _, _| true,
                |def| {
                    if compared.differences.iter().any(|difference| difference.id == def.id) {
                        names.insert(def.id, super::series_name(&def.name, &def.labels));
                    }
                },
            )?;
        }
        Ok((audit, compared, names))
    })?;
    let Compared { differing, differences, .. } = compared;
    let words = differences.iter().map(|difference| {
        let unknown = String::new();
        let name = names.get(&difference.id).unwrap_or(&unknown);
        format!(
            "series {} {name}: {} is {} in the totals and {} in base and history",
            difference.id.0, difference.what, difference.totals, difference.history
        )
    });
    Ok(StoreCheck {
        path: name_of(file),
        commit: audit.commit.0,
        series: audit.series,
        slices: audit.slices,
        spans: audit.spans,
        rows: audit.rows,
        bytes: audit.bytes,
        differing,
        differences: words.collect(),
    })
}

fn name_of(file: Option<&Path>) -> String {
    file.map_or_else(|| ":memory:".to_owned(), |file| file.display().to_string())
}

/// A store that nobody serves, opened by a tool.
///
/// # Errors
/// As `Ledger::open_existing`.
pub fn open_file(path: &Path) -> Result<Ledger, StoreError> {
    Ledger::open_existing(path)
}

impl Pipeline {
    /// The figures of its store.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn store_stats(&self) -> Result<StoreStats, StoreError> {
        stats(&self.store_reader(), self.store_file().0)
    }

    /// Verifies its store while it runs. Takes as long as reading the whole file does.
    ///
    /// # Errors
    /// I/O, or `Corrupt` with the first thing found.
    pub fn store_check(&self) -> Result<StoreCheck, StoreError> {
        check(&self.store_reader(), self.store_file().0, &mut |_| {})
    }

    /// Writes a consistent copy of its store to a new file.
    ///
    /// # Errors
    /// I/O, `Corrupt`, or `Io` when `to` exists.
    pub fn store_copy(&self, to: &Path) -> Result<(), StoreError> {
        self.store_reader().snapshot(|snapshot| snapshot.copy_to(to))
    }
}
