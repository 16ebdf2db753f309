//! Pair operations: a start opens a key, an end closes it; the store joins them inside a commit (V8).
//!
//! In: accepted events that a pair names, in the order a shard saw them. Out: operations with the series of the start,
//! for the store. Owns: the operations since the last drain, and each distinct set of series once. Invariant:
//! an operation is a few words whatever its key's length: keys are 128-bit hashes.

use super::Combiner;
use crate::event::{Kind, Slot, SourceIndex, Timestamp};
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_128;

/// A pair by its place in the store's list of pairs. A name keeps its place for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairIndex(pub u16);

/// What of a pair a series shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PairRole {
    /// A gauge: pairs open now.
    Open = 0,
    /// A distribution: seconds from start to end, times the feed's scale.
    Duration = 1,
    /// A counter: pairs whose end did not come in time.
    Expired = 2,
}

impl PairRole {
    /// The kind of series that can show it.
    pub fn kind(self) -> Kind {
        match self {
            PairRole::Open => Kind::Gauge,
            PairRole::Duration => Kind::Distribution,
            PairRole::Expired => Kind::Counter,
        }
    }

    /// The role with this code.
    pub fn from_code(code: u8) -> Option<PairRole> {
        [PairRole::Open, PairRole::Duration, PairRole::Expired].into_iter().find(|role| *role as u8 == code)
    }
}

/// A series that an open pair feeds: a feed's metric with the labels that the start event gave.
#[derive(Clone, Copy, Debug)]
pub struct PairFeed {
    /// What it shows.
    pub role: PairRole,
    /// The live series, of the role's kind.
    pub slot: Slot,
    /// What the seconds of a duration, or the 1 of a count, are multiplied by; finite.
    pub scale: f64,
}

// Compared by bits, so that equal sets of feeds are one whatever the scale.
impl PartialEq for PairFeed {
    fn eq(&self, other: &PairFeed) -> bool {
        self.terms() == other.terms()
    }
}

impl Eq for PairFeed {}

impl std::hash::Hash for PairFeed {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.terms().hash(state);
    }
}

impl PairFeed {
    fn terms(&self) -> (PairRole, Slot, u64) {
        (self.role, self.slot, self.scale.to_bits())
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairOp {
    /// Who said it: what is refused counts against it.
    pub source: SourceIndex,
    /// Which pair.
    pub pair: PairIndex,
    /// XXH3-128 of the key's bytes.
    pub key: u128,
    /// Event time.
    pub time: Timestamp,
    /// Place in [`PairOps::sets`] of the series of a start; `None` for an end.
    pub set: Option<u32>,
}

/// What one combiner gathered.
#[derive(Clone, Debug, Default)]
pub struct PairOps {
    /// In the order they came.
    pub ops: Vec<PairOp>,
    /// Distinct sets of series, in the order they came.
    pub sets: Vec<Box<[PairFeed]>>,
    by_set: HashMap<Box<[PairFeed]>, u32, foldhash::fast::FixedState>,
}

impl PairOps {
    fn set(&mut self, feeds: &[PairFeed]) -> u32 {
        if let Some(set) = self.by_set.get(feeds) {
            return *set;
        }
        // A tick brings fewer sets than operations, and those are far fewer than 2³².
        let set = self.sets.len() as u32;
        self.sets.push(feeds.into());
        self.by_set.insert(feeds.into(), set);
        set
    }

    /// Bytes on the heap, about.
    pub fn heap_bytes(&self) -> usize {
        self.ops.capacity() * size_of::<PairOp>() + self.sets.len() * 160
    }
}

impl Combiner {
    /// A start: `key` is open from `time` on, and feeds these series until its end comes or its time is over.
    ///
    /// The caller has checked that `time` is acceptable (T1). A feed whose series was refused, or whose `when`
    /// does not hold, is left out; the pair is joined even when no feed is left. Nothing is counted in the
    /// source's samples: what the store makes of pairs it counts itself.
    pub fn open_pair(&mut self, source: SourceIndex, pair: PairIndex, key: &[u8], time: Timestamp, feeds: &[PairFeed]) {
        debug_assert!(feeds.iter().all(|feed| feed.scale.is_finite()), "scales are checked by the plan");
        let set = Some(self.pairs.set(feeds));
        self.pairs.ops.push(PairOp { source, pair, key: xxh3_128(key), time, set });
    }

    /// An end. It may come before its start, within `lateness`, and from another source.
    pub fn close_pair(&mut self, source: SourceIndex, pair: PairIndex, key: &[u8], time: Timestamp) {
        self.pairs.ops.push(PairOp { source, pair, key: xxh3_128(key), time, set: None });
    }

    /// Takes the operations out.
    pub fn take_pairs(&mut self) -> PairOps {
        std::mem::take(&mut self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::IdMap;
    use crate::event::{SeriesId, Slice};

    #[test]
    fn v8_equal_sets_of_series_are_kept_once_and_are_resolved_like_samples() {
        let mut combiner = Combiner::new(Slice(7));
        let feed = |role, slot| PairFeed { role, slot: Slot(slot), scale: 1.0 };
        let (open, duration) = (feed(PairRole::Open, 3), feed(PairRole::Duration, 4));
        let (source, pair) = (SourceIndex(2), PairIndex(0));
        combiner.open_pair(source, pair, b"a", Timestamp(10), &[open, duration]);
        combiner.open_pair(source, pair, b"b", Timestamp(11), &[open, duration]);
        combiner.open_pair(source, pair, b"c", Timestamp(12), &[open]);
        combiner.close_pair(SourceIndex(3), pair, b"a", Timestamp(13));
        assert!(!combiner.is_empty(), "operations are content");
        let mut ids = IdMap::new();
        let unknown = combiner.unknown_slots(&ids);
        assert_eq!(unknown, [(Kind::Gauge, Slot(3)), (Kind::Distribution, Slot(4))]);
        ids.set(Kind::Gauge, Slot(3), SeriesId(9));
        assert_eq!(combiner.unknown_slots(&ids), [(Kind::Distribution, Slot(4))]);
        let taken = combiner.take_pairs();
        assert!(combiner.is_empty());
        assert_eq!(taken.sets.len(), 2);
        assert_eq!(taken.ops.iter().map(|op| op.set).collect::<Vec<_>>(), [Some(0), Some(0), Some(1), None]);
        assert_eq!(taken.ops[0].key, taken.ops[3].key, "one key, two sources");
        assert_ne!(taken.ops[0].key, taken.ops[1].key);
    }

    #[test]
    fn v8_roles_have_codes() {
        for role in [PairRole::Open, PairRole::Duration, PairRole::Expired] {
            assert_eq!(PairRole::from_code(role as u8), Some(role));
        }
        assert_eq!(PairRole::from_code(3), None);
    }
}
