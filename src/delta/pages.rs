//! Memory for what is large and hit at random: pages of 2 MiB from the kernel, cut into arrays.
//!
//! In: how many elements. Out: [`PageBox`], a fixed array, and [`PageVec`], one that grows. Owns: the regions of the
//! process, one lock, taken when an array is made or dropped. Why: with pages of 4 KiB each hit of a few hundred megabytes
//! waits for a walk through the page tables first, a prefetch too. Invariants: the first regions have small pages, so that
//! a small pipeline pays for what it touches; a region that nobody uses goes back to the kernel.

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::{align_of, needs_drop, size_of};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

/// A huge page of x86-64 and of most ARM kernels. Where they differ, advice that does not fit changes nothing.
const REGION_BYTES: usize = 2 << 20;
/// What is given out is a multiple of this.
const GRAIN_BYTES: usize = 8 << 10;
const GRAINS: usize = REGION_BYTES / GRAIN_BYTES;
/// Regions with small pages. Huge ones pay where a second-level TLB ends, at some megabytes.
const SMALL_REGIONS: usize = 4;

/// A part of the address space, aligned to its size.
struct Region {
    start: NonNull<u8>,
    /// A bit per grain that is given out.
    taken: [u64; GRAINS / 64],
    free: usize,
}

// SAFETY: a region is memory of the process, tied to no thread, and only the holder of the pool's lock changes its marks.
unsafe impl Send for Region {}

/// Ordered as regions came; those that went are left out.
static POOL: Mutex<Vec<Region>> = Mutex::new(Vec::new());

impl Region {
    fn map(is_huge: bool) -> Region {
        let layout = Layout::from_size_align(REGION_BYTES, REGION_BYTES).expect("both are powers of two");
        let Some(start) = map(is_huge) else { handle_alloc_error(layout) };
        Region { start, taken: [0; GRAINS / 64], free: GRAINS }
    }

    fn is_taken(&self, grain: usize) -> bool {
        self.taken[grain / 64] >> (grain % 64) & 1 == 1
    }

    /// The first run of so many free grains.
    fn find(&self, grains: usize) -> Option<usize> {
        if self.free < grains {
            return None;
        }
        let (mut from, mut at) = (0, 0);
        while at < GRAINS {
            if at % 64 == 0 && self.taken[at / 64] == u64::MAX {
                (from, at) = (at + 64, at + 64);
                continue;
            }
            at += 1;
            if self.is_taken(at - 1) {
                from = at;
            } else if at - from == grains {
                return Some(from);
            }
        }
        None
    }

    fn mark(&mut self, from: usize, grains: usize, is_taken: bool) {
        for grain in from..from + grains {
            let bit = 1 << (grain % 64);
            if is_taken {
                self.taken[grain / 64] |= bit;
            } else {
                self.taken[grain / 64] &= !bit;
            }
        }
        self.free = if is_taken { self.free - grains } else { self.free + grains };
    }
}

/// Maps a region; `None` when the kernel has no memory.
#[cfg(not(miri))]
fn map(is_huge: bool) -> Option<NonNull<u8>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
    let whole =
        unsafe { mmap_anonymous(std::ptr::null_mut(), 2 * REGION_BYTES, protection, MapFlags::PRIVATE) }.ok()?;
    let before = whole.cast::<u8>().align_offset(REGION_BYTES) % REGION_BYTES;
    let start = whole.wrapping_byte_add(before);
    // SAFETY: both ranges are parts of the mapping above that nobody has seen: `before` is less than a region, and the
    // mapping has two. A failure leaves address space mapped that is never touched.
    let _ = unsafe {
        if before > 0 {
            let _ = munmap(whole, before);
        }
        munmap(start.wrapping_byte_add(REGION_BYTES), REGION_BYTES - before)
    };
    if is_huge {
        // SAFETY: the range is mapped, and this advice changes no content. Where the kernel has no huge pages or will
        // not give them, small ones do.
        let _ = unsafe { madvise(start, REGION_BYTES, Advice::LinuxHugepage) };
    }
    NonNull::new(start.cast())
}

#[cfg(not(miri))]
fn unmap(start: NonNull<u8>) {
    // SAFETY: the range is a region that `map` returned, and nobody has an array in it any more.
    let _ = unsafe { rustix::mm::munmap(start.as_ptr().cast(), REGION_BYTES) };
}

#[cfg(miri)]
fn map(_: bool) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(REGION_BYTES, REGION_BYTES).expect("both are powers of two");
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { std::alloc::alloc(layout) })
}

#[cfg(miri)]
fn unmap(start: NonNull<u8>) {
    let layout = Layout::from_size_align(REGION_BYTES, REGION_BYTES).expect("both are powers of two");
    // SAFETY: the region is of this layout, and nobody has an array in it any more.
    unsafe { std::alloc::dealloc(start.as_ptr(), layout) };
}

/// Memory of at least so many bytes, at most a region, aligned to a grain; what it holds is not defined.
fn take(bytes: usize) -> NonNull<u8> {
    assert!(bytes <= REGION_BYTES, "an array fits a region");
    let grains = bytes.div_ceil(GRAIN_BYTES);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let found = pool.iter_mut().find_map(|region| Some((region.find(grains)?, region)));
    let (from, region) = match found {
        Some(found) => found,
        None => {
            let region = Region::map(pool.len() >= SMALL_REGIONS);
            pool.push(region);
            (0, pool.last_mut().expect("pushed above"))
        }
    };
    region.mark(from, grains, true);
    // SAFETY: the grain lies within the region.
    unsafe { region.start.add(from * GRAIN_BYTES) }
}

/// Gives back what [`take`] gave for as many bytes.
fn give(start: NonNull<u8>, bytes: usize) {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let base = start.addr().get() & !(REGION_BYTES - 1);
    let at = pool.iter().position(|region| region.start.addr().get() == base).expect("it came from a region");
    pool[at].mark((start.addr().get() - base) / GRAIN_BYTES, bytes.div_ceil(GRAIN_BYTES), false);
    if pool[at].free == GRAINS {
        unmap(pool.remove(at).start);
    }
}

/// A fixed array in memory of the pool: eight bytes, as a `Box` of an array is.
pub struct PageBox<T, const N: usize> {
    array: NonNull<[T; N]>,
    owned: PhantomData<T>,
}

impl<T, const N: usize> PageBox<T, N> {
    const FITS: () = assert!(
        size_of::<[T; N]>() > 0
            && size_of::<[T; N]>() <= REGION_BYTES
            && align_of::<T>() <= GRAIN_BYTES
            && !needs_drop::<T>(),
        "an array of plain values that fits a region"
    );

    /// An array of clones.
    pub fn of(value: T) -> PageBox<T, N>
    where
        T: Clone,
    {
        const { Self::FITS };
        let first = take(size_of::<[T; N]>()).cast::<T>();
        for at in 0..N {
            // SAFETY: the memory has room for `N` values and is aligned to a grain, which is enough for `T`; it belongs
            // to nobody else.
            unsafe { first.add(at).write(value.clone()) };
        }
        PageBox { array: first.cast(), owned: PhantomData }
    }
}

impl<T, const N: usize> Deref for PageBox<T, N> {
    type Target = [T; N];
    #[inline(always)]
    fn deref(&self) -> &[T; N] {
        // SAFETY: `of` wrote every value, and the box owns them.
        unsafe { self.array.as_ref() }
    }
}

impl<T, const N: usize> DerefMut for PageBox<T, N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T; N] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { self.array.as_mut() }
    }
}

impl<T, const N: usize> Drop for PageBox<T, N> {
    fn drop(&mut self) {
        // The values need no drop, see `FITS`.
        give(self.array.cast(), size_of::<[T; N]>());
    }
}

// SAFETY: it owns its values and nothing else, as a `Box` does.
unsafe impl<T: Send, const N: usize> Send for PageBox<T, N> {}
// SAFETY: as above; a shared box gives shared values only.
unsafe impl<T: Sync, const N: usize> Sync for PageBox<T, N> {}

/// A growing array in memory of the pool, of at most a region.
pub struct PageVec<T> {
    first: NonNull<T>,
    len: usize,
    capacity: usize,
    owned: PhantomData<T>,
}

impl<T> PageVec<T> {
    const FITS: () = assert!(
        size_of::<T>() > 0 && size_of::<T>() <= GRAIN_BYTES && align_of::<T>() <= GRAIN_BYTES,
        "a grain more is room for one more"
    );

    /// Nothing, without memory.
    pub fn new() -> PageVec<T> {
        const { Self::FITS };
        PageVec { first: NonNull::dangling(), len: 0, capacity: 0, owned: PhantomData }
    }

    /// Values there is memory for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends a value; its index.
    ///
    /// # Panics
    /// When it would be larger than a region.
    pub fn push(&mut self, value: T) -> usize {
        if self.len == self.capacity {
            self.grow();
        }
        // SAFETY: there is room for one more, and `len` says that nothing is there.
        unsafe { self.first.add(self.len).write(value) };
        self.len += 1;
        self.len - 1
    }

    /// Grows by eighths and whole grains: doubling would leave half of it unused.
    #[cold]
    fn grow(&mut self) {
        let bytes = ((self.len + self.len / 8 + 1) * size_of::<T>()).next_multiple_of(GRAIN_BYTES);
        let first = take(bytes).cast::<T>();
        // SAFETY: the new memory is larger, aligned to a grain and nobody else's; the values move, and the old memory,
        // if there is any, goes back without dropping them.
        unsafe { first.copy_from_nonoverlapping(self.first, self.len) };
        self.give_back();
        (self.first, self.capacity) = (first, bytes / size_of::<T>());
    }

    /// Removes a value and puts the last one in its place.
    ///
    /// # Panics
    /// When there is none at `index`.
    pub fn swap_remove(&mut self, index: usize) -> T {
        let last = self.len - 1;
        self.swap(index, last);
        self.len = last;
        // SAFETY: the value was part of the array until `len` was lowered, so nobody reads it again.
        unsafe { self.first.add(last).read() }
    }

    fn give_back(&mut self) {
        if self.capacity > 0 {
            give(self.first.cast(), self.capacity * size_of::<T>());
        }
    }
}

impl<T> Default for PageVec<T> {
    fn default() -> Self {
        PageVec::new()
    }
}

impl<T> Deref for PageVec<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were written, and the array owns them; without memory `len` is 0.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for PageVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<'a, T> IntoIterator for &'a mut PageVec<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T> Drop for PageVec<T> {
    fn drop(&mut self) {
        let values: *mut [T] = &mut **self;
        // SAFETY: the values are dropped here and nowhere else; the memory behind them stays until it is given back.
        unsafe { values.drop_in_place() };
        self.give_back();
    }
}

// SAFETY: it owns its values and nothing else, as a `Vec` does.
unsafe impl<T: Send> Send for PageVec<T> {}
// SAFETY: as above; a shared array gives shared values only.
unsafe impl<T: Sync> Sync for PageVec<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn arrays_keep_their_values_apart() {
        let mut boxes: Vec<PageBox<u64, 1000>> = (0..2000).map(PageBox::of).collect();
        for (at, array) in boxes.iter_mut().enumerate() {
            assert!(array.iter().all(|value| *value == at as u64));
            array.fill(!0);
        }
        // Every other one goes; what comes into the gaps must not touch those that stay.
        let mut at = 0;
        boxes.retain(|_| {
            at += 1;
            at % 2 == 0
        });
        let wide: Vec<PageBox<u64, 3000>> = (0..300).map(PageBox::of).collect();
        let narrow: Vec<PageBox<u64, 1000>> = (0..1000).map(PageBox::of).collect();
        assert!(boxes.iter().all(|array| array.iter().all(|value| *value == !0)));
        assert!(wide.iter().enumerate().all(|(at, array)| array.iter().all(|value| *value == at as u64)));
        assert!(narrow.iter().enumerate().all(|(at, array)| array.iter().all(|value| *value == at as u64)));
    }

    #[test]
    fn a_growing_array_does_what_a_vec_does_and_drops_each_value_once() {
        let alive = Rc::new(());
        let (mut ours, mut theirs) = (PageVec::new(), Vec::new());
        for n in 0..5_000u32 {
            ours.push((n, Rc::clone(&alive)));
            theirs.push(n);
            if n % 3 == 0 {
                let index = (n as usize * 7) % theirs.len();
                assert_eq!(ours.swap_remove(index).0, theirs.swap_remove(index));
            }
        }
        assert!(ours.iter().map(|(n, _)| n).eq(&theirs) && ours.capacity() >= ours.len());
        assert_eq!(Rc::strong_count(&alive), theirs.len() + 1);
        drop(ours);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn a_region_finds_the_first_run_that_is_long_enough() {
        let mut region = Region { start: NonNull::dangling(), taken: [0; GRAINS / 64], free: GRAINS };
        region.mark(0, 130, true);
        region.mark(5, 3, false);
        assert_eq!((region.find(3), region.find(4), region.find(127)), (Some(5), Some(130), None));
        region.mark(130, GRAINS - 130, true);
        assert_eq!((region.find(3), region.find(4), region.free), (Some(5), None, 3));
    }
}
