//! The words of the commit protocol (C1, C2), shared by sources, shards and the store.
//!
//! In: nothing. Out: plain messages, and two ports: what a store may ask of a shard, and what a shard
//! tells a store. The ports are traits because shard and store do not see each other.
//! Invariant: a sealed combiner is in exactly one place: shard, message or store.

use super::Combiner;
use crate::event::{Kind, ShardIndex, Slot, SourceIndex, Timestamp};
use std::sync::Arc;

/// Input that is sealed together: everything that cannot be replayed, or one replayable source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputGroup {
    /// Sockets, handles, collectors: their clock is the wall clock.
    Live,
    /// One replayable source, with positions and clocks of its own.
    Replayable(SourceIndex),
}

/// Where a replayable partition stands, and its clock (T1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPosition {
    /// `source/partition`, the key of table `positions`.
    pub partition: Arc<str>,
    /// The next position to read.
    pub next: u64,
    /// The largest event time seen, capped at the wall clock.
    pub clock: Timestamp,
}

/// The end of an epoch of a replayable source: everything before `positions` lies before the barrier.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Whose.
    pub source: SourceIndex,
    /// Raised when the source lost its assignment; older input is discarded (C2).
    pub incarnation: u32,
    /// Counts from 1 within an incarnation.
    pub epoch: u64,
    /// Of every partition the source owns.
    pub positions: Arc<[PartitionPosition]>,
}

/// What a shard hands to the store at a tick.
pub struct Sealed {
    /// Who sealed.
    pub shard: ShardIndex,
    /// What was sealed.
    pub group: InputGroup,
    /// The tick it answers (`Live`), 0 when a slice ended before one was asked for; or the barrier's epoch.
    pub epoch: u64,
    /// The barrier that sealed it; `None` for `Live`.
    pub barrier: Option<Barrier>,
    /// Wall clock of the shard when it sealed: everything in it was received before.
    pub sealed_at: Timestamp,
    /// The samples.
    pub combiner: Box<Combiner>,
}

/// What a store may ask of a shard. Never blocks.
pub trait ShardPort: Send + Sync {
    /// Seal the live input: drain the rings, swap the combiner, answer with [`SealSink::sealed`].
    fn seal(&self, epoch: u64);
    /// A drained combiner comes back as the group's spare.
    fn give_back(&self, group: InputGroup, combiner: Box<Combiner>);
    /// Forget these slots; they are gone from the shard with the second seal after this call.
    fn forget(&self, slots: Arc<[(Kind, Slot)]>);
}

/// What a store may ask of a replayable source. Never blocks.
pub trait ReplayPort: Send + Sync {
    /// Which source it is.
    fn source(&self) -> SourceIndex;
    /// Flush, send `Barrier(epoch)` to every shard, stamp what follows with the next epoch. Asked again for
    /// the same epoch after a new incarnation has begun, which then owes it.
    fn end_epoch(&self, epoch: u64);
}

/// Where shards deliver. Never blocks.
pub trait SealSink: Send + Sync {
    /// A sealed combiner.
    fn sealed(&self, sealed: Sealed);
    /// Please tick soon: a slice rolled, or a side map grew large.
    fn wants_tick(&self);
}
