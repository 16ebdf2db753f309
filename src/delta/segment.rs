//! Arrays indexed by slot that grow by segments of 1,024 and remember which entries were touched.
//!
//! In: slots. Out: entries, and at the tick the touched ones in slot order. Invariants: an entry whose
//! dirty bit is clear equals `T::default()`; growth never copies entries (no table doubling on a decoder).

use super::pages::PageBox;

/// Entries in a segment.
const SEGMENT_LEN: usize = 1024;
/// Ticks without a touch after which a segment's memory is given back.
const IDLE_TICKS_MAX: u32 = 64;

/// A growing array of `T` by slot.
pub(super) struct Segmented<T> {
    /// None until the first touch of the segment.
    entries: Vec<Option<PageBox<T, SEGMENT_LEN>>>,
    /// A bit per entry, beside the entries so that finding what was touched does not walk them.
    dirty: Vec<Dirty>,
}

#[derive(Clone, Default)]
struct Dirty {
    words: [u64; SEGMENT_LEN / 64],
    idle_ticks: u32,
}

impl<T: Default + Clone> Segmented<T> {
    pub(super) fn new() -> Self {
        Segmented { entries: Vec::new(), dirty: Vec::new() }
    }

    /// The entry of a slot if its segment exists: for prefetching.
    #[inline(always)]
    pub(super) fn peek(&self, slot: u32) -> Option<&T> {
        Some(&self.entries.get(slot as usize / SEGMENT_LEN)?.as_ref()?[slot as usize % SEGMENT_LEN])
    }

    /// The entry of a slot; it is marked touched when `is_first` says that it was clean.
    #[inline(always)]
    pub(super) fn touch(&mut self, slot: u32, is_first: impl Fn(&T) -> bool) -> &mut T {
        let (index, offset) = (slot as usize / SEGMENT_LEN, slot as usize % SEGMENT_LEN);
        if !matches!(self.entries.get(index), Some(Some(_))) {
            self.open(index);
        }
        let Some(Some(segment)) = self.entries.get_mut(index) else { unreachable!("the segment is open") };
        let entry = &mut segment[offset];
        if is_first(entry) {
            self.dirty[index].words[offset / 64] |= 1 << (offset % 64);
        }
        entry
    }

    #[cold]
    #[inline(never)]
    fn open(&mut self, index: usize) {
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
            self.dirty.resize_with(index + 1, Dirty::default);
        }
        self.entries[index] = Some(PageBox::of(T::default()));
    }

    /// Segments there is room for: how far the array reaches.
    pub(super) fn segment_count(&self) -> usize {
        self.entries.len()
    }

    /// Visits every touched slot, in order.
    pub(super) fn touched(&self, mut visit: impl FnMut(u32)) {
        for (index, dirty) in self.dirty.iter().enumerate() {
            for (word, bits) in dirty.words.iter().enumerate() {
                let mut bits = *bits;
                while bits != 0 {
                    visit((index * SEGMENT_LEN + word * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }

    /// Takes a touched entry out and leaves it clean; [`finish`](Self::finish) clears the dirty bits.
    #[inline(always)]
    pub(super) fn take(&mut self, slot: u32) -> T {
        let segment = self.entries[slot as usize / SEGMENT_LEN].as_mut().expect("a touched entry's segment is open");
        std::mem::take(&mut segment[slot as usize % SEGMENT_LEN])
    }

    /// Ends a tick after every touched entry was taken: clears the marks, frees what has long been idle.
    pub(super) fn finish(&mut self) {
        for (segment, dirty) in self.entries.iter_mut().zip(&mut self.dirty) {
            let was_touched = dirty.words.iter().any(|word| *word != 0);
            dirty.words = [0; SEGMENT_LEN / 64];
            dirty.idle_ticks = if was_touched { 0 } else { dirty.idle_ticks + 1 };
            if dirty.idle_ticks > IDLE_TICKS_MAX {
                *segment = None;
                dirty.idle_ticks = 0;
            }
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.iter().all(|dirty| dirty.words.iter().all(|word| *word == 0))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.iter().flatten().count() * SEGMENT_LEN * size_of::<T>()
            + self.dirty.capacity() * size_of::<Dirty>()
    }
}
