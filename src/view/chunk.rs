//! 1,024 consecutive series ids: the unit of locking.
//!
//! In: states. Out: states by id, in the order of ids. Owns them. Invariant: `places` and the arrays of
//! states name each other; kinds are mixed among ids, but not within an array, so that a fold of one kind
//! walks memory in order.

use super::adopt::Unsettled;
use super::reset::Resets;
use super::state::{CounterState, DistributionState, GaugeState, Identity, SetState, StateRef};
use crate::delta::PageVec;
use crate::event::Kind;
use std::collections::BTreeMap;

/// Ids in a chunk, and in a block of totals.
pub(super) const CHUNK_LEN: u32 = 1024;
const ABSENT: u16 = u16::MAX;
const INDEX_BITS: u32 = 10;

/// A chunk.
pub(super) struct Chunk {
    /// Per id: kind code << 10 | index in the array of the kind.
    places: Box<[u16]>,
    pub(super) counters: PageVec<CounterState>,
    pub(super) gauges: Vec<GaugeState>,
    pub(super) distributions: PageVec<DistributionState>,
    pub(super) sets: Vec<SetState>,
    /// Earlier lives, by offset: of few series, so they stand beside (R3).
    pub(super) resets: BTreeMap<u16, Box<Resets>>,
    /// Buckets to be estimated again when windows are there, by offset.
    pub(super) unsettled: BTreeMap<u16, Box<Unsettled>>,
}

/// A state on its way into a chunk.
pub(super) enum State {
    Counter(CounterState),
    Gauge(GaugeState),
    Distribution(DistributionState),
    Set(SetState),
}

impl Chunk {
    pub(super) fn new() -> Chunk {
        Chunk {
            places: vec![ABSENT; CHUNK_LEN as usize].into(),
            counters: PageVec::new(),
            gauges: Vec::new(),
            distributions: PageVec::new(),
            sets: Vec::new(),
            resets: BTreeMap::new(),
            unsettled: BTreeMap::new(),
        }
    }

    /// Where a series of this kind stands in the array of its kind.
    #[inline(always)]
    pub(super) fn index(&self, kind: Kind, offset: u16) -> Option<usize> {
        let place = self.places[usize::from(offset)];
        (place >> INDEX_BITS == kind as u16).then_some(usize::from(place & (CHUNK_LEN as u16 - 1)))
    }

    pub(super) fn contains(&self, offset: u16) -> bool {
        self.places[usize::from(offset)] != ABSENT
    }

    pub(super) fn get(&self, offset: u16) -> Option<StateRef<'_>> {
        let place = self.places[usize::from(offset)];
        if place == ABSENT {
            return None;
        }
        let index = usize::from(place & (CHUNK_LEN as u16 - 1));
        Some(match Kind::from_code((place >> INDEX_BITS) as u8)? {
            Kind::Counter => StateRef::Counter(&self.counters[index]),
            Kind::Gauge => StateRef::Gauge(&self.gauges[index]),
            Kind::Distribution => StateRef::Distribution(&self.distributions[index]),
            Kind::Set => StateRef::Set(&self.sets[index]),
        })
    }

    /// The earlier lives of a series that was reset.
    pub(super) fn resets_of(&self, offset: u16) -> Option<&Resets> {
        self.resets.get(&offset).map(|resets| &**resets)
    }

    /// Every state, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = StateRef<'_>> {
        (0..CHUNK_LEN as u16).filter_map(|offset| self.get(offset))
    }

    pub(super) fn identity_mut(&mut self, offset: u16) -> Option<&mut Identity> {
        let place = self.places[usize::from(offset)];
        if place == ABSENT {
            return None;
        }
        let index = usize::from(place & (CHUNK_LEN as u16 - 1));
        Some(match Kind::from_code((place >> INDEX_BITS) as u8)? {
            Kind::Counter => &mut self.counters[index].identity,
            Kind::Gauge => &mut self.gauges[index].identity,
            Kind::Distribution => &mut self.distributions[index].identity,
            Kind::Set => &mut self.sets[index].identity,
        })
    }

    /// Every series has the totals and the window it will get from the file.
    pub(super) fn settle(&mut self) {
        for (offset, unsettled) in std::mem::take(&mut self.unsettled) {
            if let Some(at) = self.index(Kind::Distribution, offset) {
                let state = &mut self.distributions[at];
                unsettled.settle(&mut state.totals, &state.window);
            }
        }
        for offset in 0..CHUNK_LEN as u16 {
            if let Some(identity) = self.identity_mut(offset) {
                identity.awaits_totals = false;
            }
        }
    }

    /// Adds a series whose offset is free.
    pub(super) fn insert(&mut self, offset: u16, state: State) {
        debug_assert!(!self.contains(offset), "a series is inserted once");
        let (kind, index) = match state {
            State::Counter(state) => (Kind::Counter, self.counters.push(state)),
            State::Gauge(state) => (Kind::Gauge, push(&mut self.gauges, state)),
            State::Distribution(state) => (Kind::Distribution, self.distributions.push(state)),
            State::Set(state) => (Kind::Set, push(&mut self.sets, state)),
        };
        self.places[usize::from(offset)] = (kind as u16) << INDEX_BITS | index as u16;
    }

    /// Removes a series; the metric it belonged to.
    pub(super) fn remove(&mut self, offset: u16) -> Option<u32> {
        let metric = self.get(offset)?.identity().metric;
        self.resets.remove(&offset);
        self.unsettled.remove(&offset);
        let place = std::mem::replace(&mut self.places[usize::from(offset)], ABSENT);
        let index = usize::from(place & (CHUNK_LEN as u16 - 1));
        let moved = match Kind::from_code((place >> INDEX_BITS) as u8)? {
            Kind::Counter => {
                self.counters.swap_remove(index);
                self.counters.get(index).map(|state| state.identity.offset)
            }
            Kind::Gauge => take(&mut self.gauges, index, |state| state.identity.offset),
            Kind::Distribution => {
                self.distributions.swap_remove(index);
                self.distributions.get(index).map(|state| state.identity.offset)
            }
            Kind::Set => take(&mut self.sets, index, |state| state.identity.offset),
        };
        if let Some(moved) = moved {
            self.places[usize::from(moved)] = place;
        }
        Some(metric)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(|place| *place == ABSENT)
    }

    /// Bytes, its own included.
    pub(super) fn heap_bytes(&self) -> usize {
        let windows: usize = self.distributions.iter().map(|state| state.window.heap_bytes()).sum();
        let totals = |state: &DistributionState| {
            let adopted = state.totals.adopted.as_ref().map_or(0, |adopted| adopted.heap_bytes());
            state.totals.buckets.len() * size_of::<u128>() + state.totals.native_bytes() + adopted
        };
        let buckets: usize = self.distributions.iter().map(totals).sum();
        let members: usize =
            self.sets.iter().flat_map(|state| &state.slices).map(|(_, set)| 40 + set.heap_bytes()).sum();
        self.places.len() * 2
            + self.counters.capacity() * size_of::<CounterState>()
            + self.gauges.capacity() * size_of::<GaugeState>()
            + self.distributions.capacity() * size_of::<DistributionState>()
            + self.sets.capacity() * size_of::<SetState>()
            + windows
            + buckets
            + members
            + self.resets.values().map(|resets| resets.heap_bytes()).sum::<usize>()
    }
}

/// Grows by eighths: doubling would leave half of a large chunk unused.
fn push<T>(states: &mut Vec<T>, state: T) -> usize {
    if states.len() == states.capacity() {
        states.reserve_exact((states.len() / 8).max(8));
    }
    states.push(state);
    states.len() - 1
}

/// Removes a state; the offset of the one that took its place.
fn take<T>(states: &mut Vec<T>, index: usize, offset: impl Fn(&T) -> u16) -> Option<u16> {
    states.swap_remove(index);
    states.get(index).map(offset)
}
