//! The store: the only folder that names redb, the only thread that writes it.
//!
//! In: sealed combiners and barriers. Out: one redb transaction a tick, then the same bytes folded into
//! whatever implements [`Fold`] (the view). Owns: durable ids, the commit log, totals, positions.
//! Invariants: nothing is folded before it is durable (C3); recovery folds the same rows with the same
//! code; after an I/O error the handle is dropped and reopened, never used again (C4).

mod actor;
mod base;
mod disk;
mod due;
mod error;
mod fold;
mod format;
mod gauges;
mod handle;
mod job;
mod kept;
mod lanes;
mod laws;
mod ledger;
mod memory;
mod merge;
mod page;
mod pairs;
mod events;
mod read;
mod reader;
mod retire;
mod rubbish;
mod segment;
mod series;
mod state;
mod tier;
mod upkeep;
mod worker;
mod write;
mod write_history;

#[cfg(test)]
pub(crate) mod tests;

pub use actor::StoreActor;
pub use base::{BaseSums, ExpireStep, SumMap};
pub use disk::{CACHE_BYTES, LedgerConfig, LedgerPath, MEMORY_BYTES};
pub use due::TierExpiry;
pub use error::StoreError;
pub use events::{EventsPlan, StoreReload};
pub use fold::{Committed, Fold, Resetting, SeriesRow, TotalsBlock};
pub use format::BLOCK_SERIES;
pub use gauges::NewestSet;
pub use handle::{FlushReply, SeekReply, StoreCall, StoreHandle, StoreInbox, StoreStatus, store_channel};
pub use job::HistoryStep;
pub use kept::{KeptPlan, KeptRow};
pub use lanes::GivenBack;
pub use ledger::{Ledger, SliceState, TableSize, TierSize};
pub use page::{Page, PageBuffers, PageWriter, Wanted};
pub use pairs::{PAIRS_MAX, PairPlan, waiting_ends_max};
pub use read::{StoredKind, StoredPart};
pub use reader::{PageSpan, SliceRow, Snapshot, StoreReader, TierInfo};
pub use segment::{SegmentJob, SegmentStep};
pub use series::SeriesDef;
pub use state::{Done, Store, StoreLimits};
pub use tier::{RESOLUTION_MAX, SPAN_SLOTS, TierChange, TierPlan};
pub use worker::{Worker, WorkerHandle, store_worker};
pub use write::CommitBatch;
