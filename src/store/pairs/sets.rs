//! The distinct sets of series that open pairs feed.
//!
//! In: feeds by slot, or by id from the file. Out: small numbers. Owns: one pin in the table of live series for each feed
//! of a set that something holds, so that a series cannot leave memory while a pair will feed it. Invariant: a
//! set lives while its count of holders is above 0.

use super::PairRole;
use crate::delta::pair::PairFeed;
use crate::delta::{IdMap, SeriesTable};
use crate::event::{SeriesId, Slot};
use std::collections::HashMap;

/// The number of a set in this process.
pub(super) type SetIndex = u32;
/// What an end has instead of a set.
pub(super) const NONE: SetIndex = u32::MAX;

/// A feed as the file keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoredFeed {
    pub(super) role: PairRole,
    pub(super) id: SeriesId,
    /// Bits of an f64.
    pub(super) scale: u64,
}

/// A feed and where its series is, if it is in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) stored: StoredFeed,
    pub(super) slot: Option<Slot>,
}

impl Feed {
    pub(super) fn scale(&self) -> f64 {
        f64::from_bits(self.stored.scale)
    }
}

struct Set {
    feeds: Box<[Feed]>,
    holders: u64,
}

/// See the file's head.
#[derive(Default)]
pub(super) struct Sets {
    sets: Vec<Option<Set>>,
    free: Vec<SetIndex>,
    by_feeds: HashMap<Box<[StoredFeed]>, SetIndex, foldhash::fast::FixedState>,
    /// Sets that lost their last holder and are looked at again.
    idle: Vec<SetIndex>,
}

impl Sets {
    /// The set of these feeds, made when it is new. Without a holder it goes with the next sweep.
    pub(super) fn intern(&mut self, feeds: &[PairFeed], ids: &IdMap, table: &SeriesTable) -> SetIndex {
        let stored: Vec<StoredFeed> = feeds
            .iter()
            .map(|feed| {
                let id = ids.get(feed.role.kind(), feed.slot).expect("unknown slots are resolved before draining");
                StoredFeed { role: feed.role, id, scale: feed.scale.to_bits() }
            })
            .collect();
        let set = self.stored(&stored);
        let known = self.sets[set as usize].as_mut().expect("just looked up");
        for (feed, given) in known.feeds.iter_mut().zip(feeds) {
            if feed.slot.is_none() {
                feed.slot = Some(given.slot);
                pin(table, feed);
            }
        }
        set
    }

    /// The set of these feeds, whose series may not be in memory.
    pub(super) fn stored(&mut self, stored: &[StoredFeed]) -> SetIndex {
        if let Some(set) = self.by_feeds.get(stored) {
            return *set;
        }
        let feeds = stored.iter().map(|stored| Feed { stored: *stored, slot: None }).collect();
        let set = Some(Set { feeds, holders: 0 });
        let index = match self.free.pop() {
            Some(index) => {
                self.sets[index as usize] = set;
                index
            }
            None => {
                self.sets.push(set);
                (self.sets.len() - 1) as SetIndex
            }
        };
        self.by_feeds.insert(stored.into(), index);
        index
    }

    /// Every series of any set.
    pub(super) fn series(&self) -> Vec<SeriesId> {
        let mut series: Vec<_> = self.all_feeds().map(|feed| feed.stored.id).collect();
        series.sort_unstable();
        series.dedup();
        series
    }

    fn live(&self) -> impl Iterator<Item = &Set> {
        self.sets.iter().flatten()
    }

    /// These series are in memory.
    pub(super) fn bind(&mut self, live: &HashMap<SeriesId, Slot>, table: &SeriesTable) {
        for feed in self.sets.iter_mut().flatten().flat_map(|set| set.feeds.iter_mut()) {
            if feed.slot.is_none()
                && let Some(slot) = live.get(&feed.stored.id)
            {
                feed.slot = Some(*slot);
                pin(table, feed);
            }
        }
    }

    /// Every feed of every set.
    pub(super) fn all_feeds(&self) -> impl Iterator<Item = &Feed> {
        self.live().flat_map(|set| set.feeds.iter())
    }

    /// The feeds of a set; none of [`NONE`].
    pub(super) fn feeds(&self, set: SetIndex) -> &[Feed] {
        self.sets.get(set as usize).and_then(Option::as_ref).map_or(&[], |set| &set.feeds)
    }

    /// As the file keeps them.
    pub(super) fn stored_feeds(&self, set: SetIndex) -> Vec<StoredFeed> {
        self.feeds(set).iter().map(|feed| feed.stored).collect()
    }

    /// One holder more.
    pub(super) fn acquire(&mut self, set: SetIndex) {
        if let Some(Some(set)) = self.sets.get_mut(set as usize) {
            set.holders += 1;
        }
    }

    /// One holder less; the set goes with the next sweep at the earliest, so that what was counted of it can
    /// still be written.
    pub(super) fn let_go(&mut self, index: SetIndex) {
        if let Some(Some(set)) = self.sets.get_mut(index as usize) {
            set.holders -= 1;
            if set.holders == 0 {
                self.idle.push(index);
            }
        }
    }

    /// Looks at a set that may have no holder.
    pub(super) fn note(&mut self, index: SetIndex) {
        if self.sets.get(index as usize).and_then(Option::as_ref).is_some_and(|set| set.holders == 0) {
            self.idle.push(index);
        }
    }

    /// Forgets sets without holders.
    pub(super) fn sweep(&mut self, table: &SeriesTable) {
        for index in std::mem::take(&mut self.idle) {
            let place = &mut self.sets[index as usize];
            let Some(set) = place.take_if(|set| set.holders == 0) else { continue };
            let stored: Vec<StoredFeed> = set.feeds.iter().map(|feed| feed.stored).collect();
            self.by_feeds.remove(stored.as_slice());
            self.free.push(index);
            for feed in &set.feeds {
                if let Some(slot) = feed.slot {
                    table.unpin(feed.stored.role.kind(), slot);
                }
            }
        }
    }
}

fn pin(table: &SeriesTable, feed: &Feed) {
    let slot = feed.slot.expect("pinned when it got its slot");
    let mut table = table.lock();
    let entry = table.get_mut(feed.stored.role.kind(), slot).expect("a slot in a combiner is live");
    debug_assert_eq!(entry.id, Some(feed.stored.id), "a series keeps its id");
    entry.pins += 1;
}
