//! Totals of series that left memory and are not yet in the file.
//!
//! In: series that are forgotten, blocks that are encoded, commits. Out: what an encoding must add. A block of
//! totals may be older than the last sample of a series that leaves, and the next one is written without it:
//! its newest increments would be gone with the log. Invariant: a row stays until a commit that follows an
//! encoding with it is durable.

use super::totals::Stored;
use crate::event::CommitId;
use std::collections::HashMap;

#[derive(Default)]
struct Block {
    rows: Stored,
    /// The last commit when the block was encoded with these rows.
    encoded_after: Option<CommitId>,
}

/// By block.
#[derive(Default)]
pub(super) struct Departed(HashMap<u32, Block, foldhash::fast::FixedState>);

impl Departed {
    /// A series leaves: `keep` writes its row.
    pub(super) fn add(&mut self, block: u32, keep: impl FnOnce(&mut Stored)) {
        let block = self.0.entry(block).or_default();
        block.encoded_after = None;
        keep(&mut block.rows);
    }

    /// What left a block.
    pub(super) fn rows(&self, block: u32) -> Option<&Stored> {
        self.0.get(&block).map(|block| &block.rows)
    }

    /// A series is back.
    pub(super) fn remove(&mut self, block: u32, offset: u16) {
        if let Some(block) = self.0.get_mut(&block) {
            block.rows.remove(offset);
        }
    }

    /// A series that left begins a new life (R3).
    pub(super) fn reset(&mut self, block: u32, offset: u16, at: i64) {
        if let Some(block) = self.0.get_mut(&block) {
            block.rows.reset(offset, at);
        }
    }

    /// A block was encoded, to be written by the next commit.
    pub(super) fn encoded(&mut self, block: u32, last_commit: CommitId) {
        if let Some(block) = self.0.get_mut(&block) {
            block.encoded_after = Some(last_commit);
        }
    }

    /// A commit is durable.
    pub(super) fn committed(&mut self, commit: CommitId) {
        self.0.retain(|_, block| block.encoded_after.is_none_or(|after| after >= commit));
    }
}
