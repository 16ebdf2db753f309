//! How much a store holds, told from its manifests.
//!
//! In: a snapshot. Out: [`StoreFigures`]. Owns nothing. Invariant: no row of a log, a segment or a page is read, so that it
//! takes as long as there are slices and spans, whatever they hold.

use super::error::{StoreError, corrupt, guard};
use super::format::*;
use super::ledger::{KEY_STORE, TableSize};
use super::page::{Page, PageBuffers, Wanted};
use super::read::replay_pages;
use super::reader::Snapshot;
use super::tier::{SPAN_SLOTS, Tier, TierSpan, span_end};
use crate::event::{CommitId, Slice, Timestamp};
use redb::ReadableTable;

/// Spans of a tier that are decoded to tell what a sample takes.
const WEIGHED_SPANS: usize = 2;

/// What a store holds.
#[derive(Clone, Debug)]
pub struct StoreFigures {
    /// The random number of this store.
    pub store_id: u128,
    /// The file's format.
    pub format: u32,
    /// Nanoseconds.
    pub slice_nanos: i64,
    /// When it was made.
    pub created: Timestamp,
    /// The last commit and its wall clock.
    pub commit: (CommitId, Timestamp),
    /// Series that ever got an id.
    pub series: u32,
    /// Rows and bytes of every table but `meta`.
    pub tables: Vec<TableSize>,
    /// Slices in the log or in segments, and the oldest of them.
    pub slices: (u64, Option<Slice>),
    /// Finest first.
    pub tiers: Vec<TierFigures>,
}

/// What one tier holds.
#[derive(Clone, Debug)]
pub struct TierFigures {
    /// Slices of a slot.
    pub resolution: u32,
    /// Nanoseconds that it is kept; what the pipeline file said last.
    pub keep: i64,
    /// False once the pipeline file has it no more: it goes by `compact --prune`.
    pub is_wanted: bool,
    /// The first slice of its oldest span.
    pub oldest: Option<Slice>,
    /// The end of its newest.
    pub to: Slice,
    /// Spans, and how many of them are in the next tier, too.
    pub spans: (u64, u64),
    /// Pages, and their bytes.
    pub rows: u64,
    /// Bytes of pages.
    pub bytes: u64,
    /// What they take in the file, as redb allocates it.
    pub allocated: u64,
    /// Bytes and slots of series in the newest spans: what a sample takes.
    pub weighed: (u64, u64),
}

impl Snapshot<'_> {
    /// What the store holds.
    ///
    /// # Errors
    /// I/O, or a corrupt row.
    pub fn figures(&self) -> Result<StoreFigures, StoreError> {
        guard(self.path(), || {
            let txn = self.txn();
            let row = txn.open_table(Table::Meta.rows())?.get(KEY_STORE)?;
            let row = row.ok_or_else(|| corrupt("the row that describes the store is missing"))?;
            let meta = Meta::decode(unseal(Table::Meta, KEY_STORE, row.value())?, VERSION)?;
            let mut tables: Vec<TableSize> = Table::ALL[..MANIFESTS]
                .iter()
                .zip(&meta.manifests)
                .map(|(table, manifest)| TableSize { table: table.name(), rows: manifest.rows, bytes: manifest.bytes })
                .collect();
            let (mut log, mut segments) = ((0, 0), (0, 0));
            let mut slices = (0, None);
            for row in txn.open_table(Table::Spans.rows())?.iter()? {
                let (key, value) = row?;
                let span = Span::decode(unseal(Table::Spans, key.value(), value.value())?)?;
                log = (log.0 + span.log.rows, log.1 + span.log.bytes);
                segments = (segments.0 + span.segments.rows, segments.1 + span.segments.bytes);
                let slice = Slice(u32_of(key.value())?);
                slices = (slices.0 + 1, slices.1.or(Some(slice)));
            }
            let mut tiers = Vec::new();
            for row in txn.open_table(Table::Tiers.rows())?.iter()? {
                let (key, value) = row?;
                let tier = Tier::decode(unseal(Table::Tiers, key.value(), value.value())?)?;
                tiers.push(self.tier_figures(u32_of(key.value())?, &tier)?);
            }
            let pages = tiers.iter().fold((0, 0), |sum, tier| (sum.0 + tier.rows, sum.1 + tier.bytes));
            let series = u64::from(meta.next_series);
            for (table, (rows, bytes)) in [
                (Table::Log.name(), log),
                (Table::Segments.name(), segments),
                (Table::Pages.name(), pages),
                ("series_by_hash", (series, series * 20)),
            ] {
                tables.push(TableSize { table, rows, bytes });
            }
            Ok(StoreFigures {
                store_id: meta.store_id,
                format: VERSION,
                slice_nanos: meta.slice_nanos,
                created: Timestamp(meta.created),
                commit: (CommitId(meta.last_commit), Timestamp(meta.commit_time)),
                series: meta.next_series,
                tables,
                slices,
                tiers,
            })
        })
    }

    fn tier_figures(&self, resolution: u32, tier: &Tier) -> Result<TierFigures, super::error::Fault> {
        let mut figures = TierFigures {
            resolution,
            keep: tier.keep,
            is_wanted: tier.until == u32::MAX,
            oldest: None,
            to: Slice(tier.from),
            spans: (0, 0),
            rows: 0,
            bytes: 0,
            allocated: 0,
            weighed: (0, 0),
        };
        let (first, last) = (tier_span_key(resolution, 0), tier_span_key(resolution, u32::MAX));
        let table = self.txn().open_table(Table::TierSpans.rows())?;
        let mut newest = Vec::new();
        for row in table.range::<&[u8]>(first.as_slice()..=last.as_slice())?.rev() {
            let (key, value) = row?;
            let start = tier_span_of(key.value())?.1;
            let span = TierSpan::decode(unseal(Table::TierSpans, key.value(), value.value())?)?;
            let (rows, bytes) = span.size();
            figures.spans = (figures.spans.0 + 1, figures.spans.1 + u64::from(span.is_rolled));
            (figures.rows, figures.bytes) = (figures.rows + rows, figures.bytes + bytes);
            figures.allocated += span.allocated();
            (figures.oldest, figures.to) = (Some(Slice(start)), figures.to.max(Slice(span_end(resolution, start))));
            if newest.len() < WEIGHED_SPANS && rows > 0 {
                newest.push((start, span));
            }
        }
        let mut buffers = PageBuffers::default();
        for (start, span) in newest {
            figures.weighed.0 += span.size().1;
            replay_pages(self.txn(), resolution, start, &span, &mut |bytes| {
                let all = 0..SPAN_SLOTS as u16;
                Page::new(bytes)?.read(Wanted::All, all, false, &mut buffers, &mut |_, _, _| {
                    figures.weighed.1 += 1;
                    Ok(())
                })?;
                Ok(())
            })?;
        }
        Ok(figures)
    }
}
