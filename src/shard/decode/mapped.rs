//! The caches of a decoder whose sources read names by mapping files or have labels of their own. The selected one
//! stands in the decoder.
//!
//! In: the source of a batch. Out: its cache, swapped in. Invariant: keys that were resolved for one mapping and labels
//! are never found by a source with others; without either nothing is ever swapped.

use crate::event::{Kind, Slot, SourceIndex};
use crate::rule::Rules;
use crate::rule::mapping::Mapping;
use crate::shard::cache::KeyCache;
use std::sync::Arc;

/// All caches but the selected one, whose place holds an empty one.
pub(super) struct MappedCaches {
    /// Of each mapping with each set of labels; place 0 is that of neither.
    parked: Vec<KeyCache>,
    /// Place of each source's cache; what lies past the end has place 0.
    by_source: Box<[u16]>,
    selected: u16,
}

impl MappedCaches {
    /// As many caches as there are mappings and sets of labels, and one; `cache_bytes` bounds each.
    pub(super) fn new(rules: &Rules, seed: u64, cache_bytes: usize) -> MappedCaches {
        let mut profiles: Vec<(*const Mapping, &[(String, String)])> = vec![(std::ptr::null(), &[])];
        let mut by_source = Vec::new();
        for source in (0..rules.special_sources()).map(SourceIndex) {
            let mapping = rules.mapping_of(source).map_or(std::ptr::null(), Arc::as_ptr);
            let profile = (mapping, rules.labels_of_source(source));
            let place = profiles.iter().position(|known| *known == profile).unwrap_or_else(|| {
                profiles.push(profile);
                profiles.len() - 1
            });
            by_source.push(place as u16);
        }
        let parked = profiles.iter().map(|_| KeyCache::new(seed, cache_bytes)).collect();
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
