//! The sparse form: cells sorted by key, each a packed (key, count) of 3 to 12 bytes, in one heap block.
//!
//! Owns one boxed slice whose length is the number of cells rounded up to `GRANULE`; the number in use is kept by the
//! sketch and passed in. Invariant: the first `used` entries are strictly ascending by key and have counts above zero.

use super::Count;

/// Entries are allocated in steps of this many: few enough to waste ≤ 21 bytes at the usual 3 bytes an entry, enough
/// that a window that slides one sample at a time seldom asks the allocator.
const GRANULE: usize = 8;

/// A cell key as stored: 16 bits hold every cell of 1 and 2 digits, 3 digits need 32.
pub(super) trait Key: Copy + Default + Ord {
    fn cell(self) -> i32;
    fn of(cell: i32) -> Self;
}

impl Key for i16 {
    #[inline(always)]
    fn cell(self) -> i32 {
        i32::from(self)
    }
    #[inline(always)]
    fn of(cell: i32) -> Self {
        i16::try_from(cell).expect("a cell of 1 or 2 digits fits 16 bits")
    }
}

impl Key for i32 {
    #[inline(always)]
    fn cell(self) -> i32 {
        self
    }
    #[inline(always)]
    fn of(cell: i32) -> Self {
        cell
    }
}

#[repr(C, packed)]
#[derive(Default)]
pub(super) struct Entry<K: Key, C: Count> {
    key: K,
    count: C,
}

impl<K: Key, C: Count> Copy for Entry<K, C> {}
impl<K: Key, C: Count> Clone for Entry<K, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Key, C: Count> Entry<K, C> {
    #[inline(always)]
    pub(super) fn cell(self) -> i32 {
        let key = self.key;
        key.cell()
    }

    #[inline(always)]
    pub(super) fn count(self) -> u64 {
        let count = self.count;
        count.get()
    }

    fn of(cell: i32, count: u64) -> Self {
        Entry { key: K::of(cell), count: C::of(count) }
    }
}

#[derive(Clone)]
pub(super) struct Sparse<K: Key, C: Count>(Box<[Entry<K, C>]>);

/// What a subtraction left behind, for the choice of the form.
pub(super) struct Subtracted {
    /// Cells that went to zero.
    pub(super) removed: usize,
    /// A count that needed this width came to fit the narrower one, so the width must be looked at again.
    pub(super) may_narrow: bool,
}

impl<K: Key, C: Count> Sparse<K, C> {
    pub(super) fn build(cells: &[(i32, u64)]) -> Self {
        let mut entries = vec![Entry::default(); cells.len().next_multiple_of(GRANULE)];
        for (entry, &(cell, count)) in entries.iter_mut().zip(cells) {
            *entry = Entry::of(cell, count);
        }
        Sparse(entries.into_boxed_slice())
    }

    #[inline]
    pub(super) fn used(&self, used: usize) -> &[Entry<K, C>] {
        &self.0[..used]
    }

    /// Bytes of a count.
    pub(super) const fn width(&self) -> usize {
        size_of::<C>()
    }

    /// Where the heap block lies, and its size.
    #[inline]
    pub(super) fn place(&self) -> (*const u8, usize) {
        (self.0.as_ptr().cast(), size_of_val(&*self.0))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Adds ascending cells. Returns how many were new, or `None`, with nothing changed, if a count needs a wider form.
    pub(super) fn add(&mut self, used: usize, cells: &[(i32, u64)]) -> Option<usize> {
        let new = self.count_new(used, cells)?;
        let after = used + new;
        if after > self.0.len() {
            let mut grown = vec![Entry::default(); after.next_multiple_of(GRANULE)];
            grown[..used].copy_from_slice(&self.0[..used]);
            self.0 = grown.into_boxed_slice();
        }
        // Both sides are sorted, so merging from the top moves each entry once and in place.
        let entries = &mut self.0[..after];
        let (mut from, mut to) = (used, after);
        for &(cell, count) in cells.iter().rev() {
            if count == 0 {
                continue;
            }
            while from > 0 && entries[from - 1].cell() > cell {
                from -= 1;
                to -= 1;
                entries[to] = entries[from];
            }
            to -= 1;
            if from > 0 && entries[from - 1].cell() == cell {
                from -= 1;
                entries[to] = Entry::of(cell, entries[from].count() + count);
            } else {
                entries[to] = Entry::of(cell, count);
            }
        }
        debug_assert_eq!(from, to);
        Some(new)
    }

    /// Cells without an entry yet; `None` if a sum does not fit this width.
    fn count_new(&self, used: usize, cells: &[(i32, u64)]) -> Option<usize> {
        let entries = &self.0[..used];
        let (mut at, mut new) = (0, 0);
        for &(cell, count) in cells {
            at = seek(entries, at, cell);
            let before = match entries.get(at) {
                Some(entry) if entry.cell() == cell => entry.count(),
                _ => {
                    new += usize::from(count != 0);
                    0
                }
            };
            if count > C::COUNT_MAX - before {
                return None;
            }
        }
        Some(new)
    }

    /// Whether every cell holds at least the given count.
    pub(super) fn holds(&self, used: usize, cells: &[(i32, u64)]) -> bool {
        let entries = &self.0[..used];
        let mut at = 0;
        cells.iter().all(|&(cell, count)| {
            at = seek(entries, at, cell);
            count == 0 || entries.get(at).is_some_and(|entry| entry.cell() == cell && entry.count() >= count)
        })
    }

    /// Takes ascending cells away; the caller has checked `holds`.
    pub(super) fn subtract(&mut self, used: usize, cells: &[(i32, u64)]) -> Subtracted {
        let entries = &mut self.0[..used];
        let (mut at, mut removed, mut may_narrow) = (0, 0, false);
        for &(cell, count) in cells {
            if count == 0 {
                continue;
            }
            at = seek(entries, at, cell);
            let before = entries[at].count();
            let after = before - count;
            entries[at] = Entry::of(cell, after);
            removed += usize::from(after == 0);
            may_narrow |= before > C::NARROWER_MAX && after <= C::NARROWER_MAX;
        }
        if removed > 0 {
            let mut to = 0;
            for from in 0..used {
                let entry = entries[from];
                entries[to] = entry;
                to += usize::from(entry.count() != 0);
            }
            let length = to.next_multiple_of(GRANULE);
            if length < self.0.len() {
                self.0 = self.0[..length].into();
            }
        }
        Subtracted { removed, may_narrow }
    }
}

/// First entry at or after `from` whose key is not below `cell`: by doubling steps, then by halves.
#[inline]
fn seek<K: Key, C: Count>(entries: &[Entry<K, C>], from: usize, cell: i32) -> usize {
    let mut step = 1;
    let mut low = from;
    while let Some(entry) = entries.get(low + step - 1) {
        if entry.cell() >= cell {
            break;
        }
        low += step;
        step *= 2;
    }
    let high = (low + step - 1).min(entries.len());
    low + entries[low..high].partition_point(|entry| entry.cell() < cell)
}
