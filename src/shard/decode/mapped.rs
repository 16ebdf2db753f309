//! The caches of a decoder whose sources read names by mapping files. The selected one stands in the decoder.
//!
//! In: the source of a batch. Out: its cache, swapped in. Invariant: keys that one mapping resolved are never
//! found by a source with another; without mapping files nothing is ever swapped.

use crate::event::{Kind, Slot, SourceIndex};
use crate::rule::Rules;
use crate::shard::cache::KeyCache;
use std::sync::Arc;

/// All caches but the selected one, whose place holds an empty one.
pub(super) struct MappedCaches {
    /// Of each mapping; place 0 is that of no mapping.
    parked: Vec<KeyCache>,
    /// Place of each source's cache; what lies past the end has place 0.
    by_source: Box<[u16]>,
    selected: u16,
}

impl MappedCaches {
    /// As many caches as there are mappings, and one; `cache_bytes` bounds each.
    pub(super) fn new(rules: &Rules, seed: u64, cache_bytes: usize) -> MappedCaches {
        let mut mappings: Vec<*const _> = vec![std::ptr::null()];
        let mut by_source = Vec::new();
        for source in 0..rules.mapped_sources() {
            let mapping = rules.mapping_of(SourceIndex(source)).map_or(std::ptr::null(), Arc::as_ptr);
            let place = mappings.iter().position(|known| *known == mapping).unwrap_or_else(|| {
                mappings.push(mapping);
                mappings.len() - 1
            });
            by_source.push(place as u16);
        }
        let parked = mappings.iter().map(|_| KeyCache::new(seed, cache_bytes)).collect();
        MappedCaches { parked, by_source: by_source.into(), selected: 0 }
    }

    /// Makes `cache` that of a source.
    #[inline]
    pub(super) fn select(&mut self, cache: &mut KeyCache, source: SourceIndex) {
        let wanted = self.by_source.get(usize::from(source.0)).copied().unwrap_or(0);
        if wanted != self.selected {
            std::mem::swap(cache, &mut self.parked[usize::from(self.selected)]);
            std::mem::swap(cache, &mut self.parked[usize::from(wanted)]);
            self.selected = wanted;
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.parked.iter().map(KeyCache::heap_bytes).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.parked.iter().map(KeyCache::len).sum()
    }

    /// Forgets every key of these slots.
    pub(super) fn forget(&mut self, mut is_gone: impl FnMut(Kind, Slot) -> bool) {
        for cache in &mut self.parked {
            cache.forget(&mut is_gone);
        }
    }
}
