//! The sparse form: ascending keys, then their counts, 3 to 12 bytes a cell, in one heap block.
//!
//! Owns one boxed slice with room for as many cells as `room_for` says; the number in use is kept by the sketch and
//! passed in. Keys and counts lie apart, so that a search compares eight keys at once and never guesses, and a change
//! moves whole runs instead of entries. Invariant: the first `used` keys strictly ascend and have counts above zero; the
//! keys behind them are `Key::LAST`.

use super::Count;
use super::blocks::{Added, BLOCK_BITS};
use std::marker::PhantomData;

/// Keys that a search compares at once, and the least step of the room for cells.
const GROUP: usize = 8;
/// Cells that are looked up before the new ones among them are put in, with one move for each.
const BATCH: usize = 32;

/// A cell key as stored: 16 bits hold every cell of 1 and 2 digits, 3 digits need 32.
pub(super) trait Key: Copy + Default + Ord {
    /// Its bytes as they lie in the block.
    type Raw: Copy;
    /// Stands behind the keys in use; no cell reaches it.
    const LAST: Self;
    fn cell(self) -> i32;
    fn of(cell: i32) -> Self;
    /// The key of a cell, or of the nearest that has one: for comparisons.
    fn nearest(cell: i32) -> Self;
    /// What tells whether two cells share a block.
    fn block(self) -> Self;
    fn raws(bytes: &[u8]) -> &[Self::Raw];
    fn raws_mut(bytes: &mut [u8]) -> &mut [Self::Raw];
    fn from_raw(raw: Self::Raw) -> Self;
    fn to_raw(self) -> Self::Raw;
}

macro_rules! key {
    ($($width:ty)*) => {$(
        impl Key for $width {
            type Raw = [u8; size_of::<$width>()];
            const LAST: Self = <$width>::MAX;
            #[inline(always)]
            fn cell(self) -> i32 {
                i32::from(self)
            }
            #[inline(always)]
            fn of(cell: i32) -> Self {
                <$width>::try_from(cell).expect("a cell of 1 or 2 digits fits 16 bits")
            }
            #[inline(always)]
            fn nearest(cell: i32) -> Self {
                cell.clamp(i32::from(<$width>::MIN), i32::from(<$width>::MAX)) as $width
            }
            #[inline(always)]
            fn block(self) -> Self {
                self >> BLOCK_BITS
            }
            #[inline(always)]
            fn raws(bytes: &[u8]) -> &[Self::Raw] {
                bytes.as_chunks().0
            }
            #[inline(always)]
            fn raws_mut(bytes: &mut [u8]) -> &mut [Self::Raw] {
                bytes.as_chunks_mut().0
            }
            #[inline(always)]
            fn from_raw(raw: Self::Raw) -> Self {
                <$width>::from_le_bytes(raw)
            }
            #[inline(always)]
            fn to_raw(self) -> Self::Raw {
                self.to_le_bytes()
            }
        }
    )*};
}

key!(i16 i32);

/// Cells that there is room for when so many are in use: enough that a window that fills or slides seldom asks the
/// allocator, and a sixth too many at most once there are a hundred.
const fn room_for(used: usize) -> usize {
    used.next_multiple_of(match used {
        0..=16 => GROUP,
        17..=192 => 2 * GROUP,
        _ => 4 * GROUP,
    })
}

#[derive(Clone)]
pub(super) struct Sparse<K: Key, C: Count>(Box<[u8]>, PhantomData<(K, C)>);

/// What a subtraction left behind, for the choice of the form.
pub(super) struct Subtracted {
    /// Cells that went to zero.
    pub(super) removed: usize,
    /// A count that needed this width came to fit the narrower one, so the width must be looked at again.
    pub(super) may_narrow: bool,
}

/// Cells of a batch that have no key yet, by their place in it, and the keys before which each belongs.
struct New {
    len: usize,
    places: [u32; BATCH],
    cells: [u8; BATCH],
}

impl<K: Key, C: Count> Sparse<K, C> {
    const CELL_BYTES: usize = size_of::<K>() + size_of::<C>();

    /// No cells and room for some; the keys are there already.
    fn with_room(room: usize) -> Self {
        let mut sparse = Sparse(vec![0; room * Self::CELL_BYTES].into_boxed_slice(), PhantomData);
        sparse.split_mut().0.fill(K::LAST.to_raw());
        sparse
    }

    pub(super) fn build(cells: &[(i32, u64)]) -> Self {
        let mut sparse = Self::with_room(room_for(cells.len()));
        let (keys, counts) = sparse.split_mut();
        for ((key, slot), &(cell, count)) in keys.iter_mut().zip(counts).zip(cells) {
            *key = K::of(cell).to_raw();
            *slot = C::of(count).to_raw();
        }
        sparse
    }

    #[inline(always)]
    fn room(&self) -> usize {
        self.0.len() / Self::CELL_BYTES
    }

    #[inline(always)]
    fn keys(&self) -> &[K::Raw] {
        K::raws(&self.0[..self.room() * size_of::<K>()])
    }

    #[inline(always)]
    fn counts(&self) -> &[C::Raw] {
        C::raws(&self.0[self.room() * size_of::<K>()..])
    }

    #[inline(always)]
    fn split_mut(&mut self) -> (&mut [K::Raw], &mut [C::Raw]) {
        let middle = self.room() * size_of::<K>();
        let (keys, counts) = self.0.split_at_mut(middle);
        (K::raws_mut(keys), C::raws_mut(counts))
    }

    /// The cell at a place in use, and its count.
    #[inline(always)]
    pub(super) fn entry(&self, at: usize) -> (i32, u64) {
        (K::from_raw(self.keys()[at]).cell(), C::from_raw(self.counts()[at]))
    }

    /// The cells in use with their counts, ascending.
    pub(super) fn entries(&self, used: usize) -> impl Iterator<Item = (i32, u64)> + '_ {
        let counts = self.counts()[..used].iter().map(|count| C::from_raw(*count));
        self.keys()[..used].iter().map(|key| K::from_raw(*key).cell()).zip(counts)
    }

    /// Blocks that the cells in use are spread over.
    #[inline]
    pub(super) fn block_count(&self, used: usize) -> usize {
        let keys = &self.keys()[..used];
        let Some(behind) = keys.get(1..) else { return 0 };
        let opens = |(one, two): (&K::Raw, &K::Raw)| u32::from(K::from_raw(*one).block() != K::from_raw(*two).block());
        keys.iter().zip(behind).map(opens).fold(1u32, u32::wrapping_add) as usize
    }

    /// The largest count.
    pub(super) fn count_max(&self, used: usize) -> u64 {
        self.counts()[..used].iter().map(|count| C::from_raw(*count)).max().unwrap_or(0)
    }

    /// Bytes of a count.
    pub(super) const fn width(&self) -> usize {
        size_of::<C>()
    }

    /// Where the heap block lies, and its size.
    #[inline]
    pub(super) fn place(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    /// Adds ascending cells and stops before a count that needs a wider form.
    #[inline]
    pub(super) fn add(&mut self, mut used: usize, cells: &[(i32, u64)]) -> Added {
        let before = used;
        let mut applied = 0;
        for batch in cells.chunks(BATCH) {
            let done = self.add_batch(&mut used, batch);
            applied += done;
            if done < batch.len() {
                break;
            }
        }
        Added { applied, new: used - before }
    }

    /// Adds at most `BATCH` cells; how many were applied.
    #[inline]
    fn add_batch(&mut self, used: &mut usize, cells: &[(i32, u64)]) -> usize {
        let mut new = New { len: 0, places: [0; BATCH], cells: [0; BATCH] };
        let (keys, counts) = self.split_mut();
        let (mut at, mut applied) = (0, 0);
        for &(cell, count) in cells {
            at = seek::<K>(keys, at, cell);
            if at < *used && K::from_raw(keys[at]).cell() == cell {
                let before = C::from_raw(counts[at]);
                if count > C::COUNT_MAX - before {
                    break;
                }
                counts[at] = C::of(before + count).to_raw();
            } else if count > C::COUNT_MAX {
                break;
            } else if count > 0 {
                (new.places[new.len], new.cells[new.len]) = (at as u32, applied as u8);
                new.len += 1;
            }
            applied += 1;
        }
        if new.len > 0 {
            if room_for(*used + new.len) == self.room() {
                self.insert(*used, &new, cells);
            } else {
                self.insert_with_room(*used, &new, cells);
            }
            *used += new.len;
        }
        applied
    }

    /// Puts new cells in from the last to the first, so that each run moves once, over keys that are not needed.
    #[inline]
    fn insert(&mut self, used: usize, new: &New, cells: &[(i32, u64)]) {
        let (keys, counts) = self.split_mut();
        let mut end = used;
        for at in (0..new.len).rev() {
            let (place, (cell, count)) = (new.places[at] as usize, cells[usize::from(new.cells[at])]);
            keys.copy_within(place..end, place + at + 1);
            counts.copy_within(place..end, place + at + 1);
            keys[place + at] = K::of(cell).to_raw();
            counts[place + at] = C::of(count).to_raw();
            end = place;
        }
    }

    /// The same into a larger block.
    fn insert_with_room(&mut self, used: usize, new: &New, cells: &[(i32, u64)]) {
        let mut grown = Self::with_room(room_for(used + new.len));
        let (keys, counts) = grown.split_mut();
        let mut from = 0;
        for at in 0..=new.len {
            let place = if at < new.len { new.places[at] as usize } else { used };
            keys[from + at..place + at].copy_from_slice(&self.keys()[from..place]);
            counts[from + at..place + at].copy_from_slice(&self.counts()[from..place]);
            if at < new.len {
                let (cell, count) = cells[usize::from(new.cells[at])];
                keys[place + at] = K::of(cell).to_raw();
                counts[place + at] = C::of(count).to_raw();
            }
            from = place;
        }
        *self = grown;
    }

    /// Whether every cell holds at least the given count.
    pub(super) fn holds(&self, used: usize, cells: &[(i32, u64)]) -> bool {
        let (keys, counts) = (self.keys(), self.counts());
        let mut at = 0;
        cells.iter().all(|&(cell, count)| {
            at = seek::<K>(keys, at, cell);
            count == 0 || (at < used && K::from_raw(keys[at]).cell() == cell && C::from_raw(counts[at]) >= count)
        })
    }

    /// Takes ascending cells away; the caller has checked `holds`.
    pub(super) fn subtract(&mut self, used: usize, cells: &[(i32, u64)]) -> Subtracted {
        let (keys, counts) = self.split_mut();
        let (mut left, mut may_narrow) = (used, false);
        for batch in cells.chunks(BATCH) {
            let mut emptied = [0; BATCH];
            let (mut at, mut removed) = (0, 0);
            for &(cell, count) in batch.iter().filter(|&&(_, count)| count > 0) {
                at = seek::<K>(keys, at, cell);
                let before = C::from_raw(counts[at]);
                let after = before - count;
                counts[at] = C::of(after).to_raw();
                may_narrow |= before > C::NARROWER_MAX && after <= C::NARROWER_MAX;
                if after == 0 {
                    emptied[removed] = at;
                    removed += 1;
                }
            }
            for (gone, &place) in emptied[..removed].iter().enumerate() {
                let end = if gone + 1 < removed { emptied[gone + 1] } else { left };
                keys.copy_within(place + 1..end, place - gone);
                counts.copy_within(place + 1..end, place - gone);
            }
            // At once, because the next search compares whole groups.
            keys[left - removed..left].fill(K::LAST.to_raw());
            left -= removed;
        }
        let room = room_for(left);
        if room < self.room() {
            let mut shrunk = Self::with_room(room);
            let (keys, counts) = shrunk.split_mut();
            keys[..left].copy_from_slice(&self.keys()[..left]);
            counts[..left].copy_from_slice(&self.counts()[..left]);
            *self = shrunk;
        }
        Subtracted { removed: used - left, may_narrow }
    }
}

/// First key at or after `from` that is not below `cell`; those before `from` are. Compares a group at a time, because
/// a processor guesses no step of a search by halves.
#[inline(always)]
fn seek<K: Key>(keys: &[K::Raw], from: usize, cell: i32) -> usize {
    let wanted = K::nearest(cell);
    let mut at = from / GROUP * GROUP;
    while let Some(group) = keys.get(at..at + GROUP) {
        let is_below = |key: &K::Raw| u16::from(K::from_raw(*key) < wanted);
        let below = group.iter().map(is_below).fold(0, u16::wrapping_add);
        at += usize::from(below);
        if usize::from(below) < GROUP {
            break;
        }
    }
    at
}
