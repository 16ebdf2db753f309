//! Sealed combiners on their way into a commit: live ones one by one, replayable epochs as a whole (C1, C2).
//!
//! In: what shards sealed. Out: combiners in the order they may be drained. Owns: combiners that cannot be
//! drained yet. Invariant: of a replayable epoch either every shard's part is drained, with the
//! positions behind it, or none.

use crate::delta::Combiner;
use crate::delta::epoch::{InputGroup, Sealed};
use crate::event::SourceIndex;
use std::collections::{BTreeMap, VecDeque};

/// A combiner on its way back to its shard.
pub type GivenBack = (usize, InputGroup, Box<Combiner>);

/// What waits of one replayable source.
#[derive(Default)]
struct Lane {
    incarnation: u32,
    /// Parts of one epoch, at most one of each shard.
    waiting: Vec<Sealed>,
    /// The last epoch that was drained.
    done: u64,
}

/// Everything that was sealed and is not drained.
#[derive(Default)]
pub(super) struct Lanes {
    live: VecDeque<Sealed>,
    replay: BTreeMap<SourceIndex, Lane>,
}

fn discard(sealed: Sealed) -> GivenBack {
    (usize::from(sealed.shard.0), sealed.group, Box::new(Combiner::new(sealed.combiner.slice())))
}

impl Lanes {
    /// Takes a sealed combiner in; what an older incarnation sealed is discarded (C2).
    ///
    /// # Panics
    /// When parts of two epochs of one incarnation meet: an epoch was begun before the last was whole.
    pub(super) fn push(&mut self, sealed: Sealed) -> Vec<GivenBack> {
        let InputGroup::Replayable(source) = sealed.group else {
            self.live.push_back(sealed);
            return Vec::new();
        };
        let (incarnation, epoch) = sealed.barrier.as_ref().map_or((0, 0), |b| (b.incarnation, b.epoch));
        if incarnation < self.replay.entry(source).or_default().incarnation {
            return vec![discard(sealed)];
        }
        let given_back = self.begin_incarnation(source, incarnation);
        let lane = self.replay.entry(source).or_default();
        let is_same = |other: &Sealed| other.barrier.as_ref().is_some_and(|barrier| barrier.epoch == epoch);
        assert!(lane.waiting.iter().all(is_same), "an epoch begins when the last one is whole");
        lane.waiting.push(sealed);
        given_back
    }

    /// Discards what older incarnations left.
    pub(super) fn begin_incarnation(&mut self, source: SourceIndex, incarnation: u32) -> Vec<GivenBack> {
        let lane = self.replay.entry(source).or_default();
        if incarnation <= lane.incarnation {
            return Vec::new();
        }
        lane.incarnation = incarnation;
        lane.waiting.drain(..).map(discard).collect()
    }

    /// The oldest live combiner.
    pub(super) fn live(&mut self) -> Option<&mut Sealed> {
        self.live.front_mut()
    }

    /// Takes the oldest live combiner out.
    pub(super) fn pop_live(&mut self) -> Option<Sealed> {
        self.live.pop_front()
    }

    /// Sources with an epoch that every shard has sealed.
    pub(super) fn whole(&self, shards: usize) -> Vec<SourceIndex> {
        self.replay.iter().filter(|(_, lane)| lane.waiting.len() >= shards).map(|(source, _)| *source).collect()
    }

    /// The parts of a source's epoch.
    pub(super) fn parts(&mut self, source: SourceIndex) -> &mut [Sealed] {
        self.replay.get_mut(&source).map_or(&mut [], |lane| &mut lane.waiting)
    }

    /// Takes a whole epoch out.
    pub(super) fn pop_whole(&mut self, source: SourceIndex) -> Vec<Sealed> {
        let Some(lane) = self.replay.get_mut(&source) else { return Vec::new() };
        lane.done = lane.waiting.first().map_or(lane.done, |part| part.epoch);
        std::mem::take(&mut lane.waiting)
    }

    /// The last epoch of a source that was drained.
    pub(super) fn done(&self, source: SourceIndex) -> u64 {
        self.replay.get(&source).map_or(0, |lane| lane.done)
    }

    /// Every combiner that waits.
    pub(super) fn combiners(&self) -> impl Iterator<Item = &Combiner> {
        let replay = self.replay.values().flat_map(|lane| &lane.waiting);
        self.live.iter().chain(replay).map(|sealed| &*sealed.combiner)
    }

    /// True when live combiners wait.
    pub(super) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }
}
