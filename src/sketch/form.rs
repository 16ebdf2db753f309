//! The forms a sketch takes, and the one place where they are chosen.
//!
//! In: ascending cells with counts above zero. Out: the same, one by one or in parts whose sums are known. Owns the heap
//! block. Invariant: form and count width are a function of digits, weighting and contents, as `Store::build` states;
//! whoever changes a store in place asks `fits` afterwards and rebuilds if the answer is no.

use super::blocks::{BLOCK_CELLS, Blocks, count_blocks};
use super::dense::Dense;
use super::sparse::{Key, Sparse};
use super::{Count, Digits, width_of};
use std::ops::ControlFlow;

/// Samples the inline form holds; with the form's tag they fill the 24 bytes that a heap form's pointer needs anyway.
pub(super) const INLINE_16: usize = 11;
/// The same with the wider keys of 3 digits.
pub(super) const INLINE_32: usize = 5;

#[derive(Clone)]
pub(super) enum Store {
    Inline16([i16; INLINE_16]),
    Inline32([i32; INLINE_32]),
    Sparse16W1(Sparse<i16, u8>),
    Sparse16W2(Sparse<i16, u16>),
    Sparse16W4(Sparse<i16, u32>),
    Sparse16W8(Sparse<i16, u64>),
    Sparse32W1(Sparse<i32, u8>),
    Sparse32W2(Sparse<i32, u16>),
    Sparse32W4(Sparse<i32, u32>),
    Sparse32W8(Sparse<i32, u64>),
    BlocksW1(Blocks<u8>),
    BlocksW2(Blocks<u16>),
    BlocksW4(Blocks<u32>),
    Dense(Box<Dense>),
}

/// One match arm per form instead of one per width; the compiler still names a form that was forgotten.
macro_rules! by_form {
    ($store:expr, inline($keys:ident) => $on_inline:expr, sparse($sparse:ident) => $on_sparse:expr,
     blocks($blocks:ident) => $on_blocks:expr, dense($dense:ident) => $on_dense:expr $(,)?) => {
        match $store {
            Store::Inline16($keys) => $on_inline,
            Store::Inline32($keys) => $on_inline,
            Store::Sparse16W1($sparse) => $on_sparse,
            Store::Sparse16W2($sparse) => $on_sparse,
            Store::Sparse16W4($sparse) => $on_sparse,
            Store::Sparse16W8($sparse) => $on_sparse,
            Store::Sparse32W1($sparse) => $on_sparse,
            Store::Sparse32W2($sparse) => $on_sparse,
            Store::Sparse32W4($sparse) => $on_sparse,
            Store::Sparse32W8($sparse) => $on_sparse,
            Store::BlocksW1($blocks) => $on_blocks,
            Store::BlocksW2($blocks) => $on_blocks,
            Store::BlocksW4($blocks) => $on_blocks,
            Store::Dense($dense) => $on_dense,
        }
    };
}

pub(super) use by_form;

/// Bytes of a heap block that are asked for ahead: all of a usual window; more lines than the core can have in flight
/// would only push out what the present fold reads.
const PREFETCH_BYTES: usize = 2_048;

/// Asks for the lines of a heap block. Folding 50 cells into each of 100,000 windows takes 4 to 5 ns a cell with it, 10
/// without: the processor guesses neither the next block nor where in it the cells fall.
#[inline]
fn prefetch((first, bytes): (*const u8, usize)) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..bytes.min(PREFETCH_BYTES)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that reads nothing and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(offset).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, bytes);
}

/// Samples that the inline form holds.
pub(super) const fn inline_max(digits: Digits) -> usize {
    match digits {
        Digits::Three => INLINE_32,
        Digits::One | Digits::Two => INLINE_16,
    }
}

/// Most blocks that so many cells may be spread over in the block form: those at which it takes half as much again as
/// the sparse one. Equal size would be the frugal choice; the margin buys additions that need no search and move no
/// entries.
const fn blocks_max(digits: Digits, cell_count: usize, width: usize) -> usize {
    let key_bytes = if matches!(digits, Digits::Three) { 4 } else { 2 };
    let id_bytes = if width < 2 { 2 } else { width };
    3 * cell_count * (key_bytes + width) / (2 * (BLOCK_CELLS * width + id_bytes))
}

impl Store {
    pub(super) const fn empty(digits: Digits) -> Store {
        match digits {
            Digits::Three => Store::Inline32([0; INLINE_32]),
            Digits::One | Digits::Two => Store::Inline16([0; INLINE_16]),
        }
    }

    /// The form that these cells call for.
    pub(super) fn build(digits: Digits, weighted: bool, cells: &[(i32, u64)]) -> Store {
        debug_assert!(cells.iter().all(|&(_, count)| count > 0));
        let total = cells.iter().fold(0u64, |sum, &(_, count)| sum.saturating_add(count));
        if cells.is_empty() || (!weighted && total <= inline_max(digits) as u64) {
            let mut store = Self::empty(digits);
            match &mut store {
                Store::Inline16(keys) => insert_inline(keys, 0, cells),
                Store::Inline32(keys) => insert_inline(keys, 0, cells),
                _ => unreachable!("the empty store is inline"),
            };
            return store;
        }
        let width = width_of(cells.iter().map(|&(_, count)| count).max().unwrap_or(0));
        let limit = blocks_max(digits, cells.len(), width);
        let blocks = count_blocks(cells.iter().map(|&(cell, _)| cell), limit) <= limit;
        match (blocks, digits, width) {
            (true, _, 1) => Store::BlocksW1(Blocks::build(cells)),
            (true, _, 2) => Store::BlocksW2(Blocks::build(cells)),
            (true, _, 4) => Store::BlocksW4(Blocks::build(cells)),
            (true, _, _) => Store::Dense(Box::new(Dense::build(digits, cells))),
            (false, Digits::Three, 1) => Store::Sparse32W1(Sparse::build(cells)),
            (false, Digits::Three, 2) => Store::Sparse32W2(Sparse::build(cells)),
            (false, Digits::Three, 4) => Store::Sparse32W4(Sparse::build(cells)),
            (false, Digits::Three, _) => Store::Sparse32W8(Sparse::build(cells)),
            (false, _, 1) => Store::Sparse16W1(Sparse::build(cells)),
            (false, _, 2) => Store::Sparse16W2(Sparse::build(cells)),
            (false, _, 4) => Store::Sparse16W4(Sparse::build(cells)),
            (false, _, _) => Store::Sparse16W8(Sparse::build(cells)),
        }
    }

    /// Whether sparse entries or blocks are what so many cells call for, their width being right.
    pub(super) fn fits(&self, digits: Digits, used: usize) -> bool {
        by_form!(self,
            inline(_keys) => true,
            sparse(sparse) => {
                sparse.block_count(used) > blocks_max(digits, used, sparse.width())
            },
            blocks(blocks) => blocks.blocks().len() <= blocks_max(digits, used, blocks.width()),
            dense(_dense) => {
                let limit = blocks_max(digits, used, size_of::<u64>());
                count_blocks(self.cells(used).map(|(cell, _)| cell), limit) <= limit
            },
        )
    }

    /// Whether narrower counts would do.
    pub(super) fn is_too_wide(&self, used: usize) -> bool {
        let (count_max, width) = by_form!(self,
            inline(_keys) => return false,
            sparse(sparse) => {
                (sparse.count_max(used), sparse.width())
            },
            blocks(blocks) => (blocks.count_max(), blocks.width()),
            dense(_dense) => (self.cells(used).map(|(_, count)| count).max().unwrap_or(0), size_of::<u64>()),
        );
        width_of(count_max) < width
    }

    #[inline]
    pub(super) fn prefetch(&self) {
        by_form!(self,
            inline(_keys) => {},
            sparse(sparse) => prefetch(sparse.place()),
            blocks(blocks) => prefetch(blocks.place()),
            dense(_dense) => {},
        );
    }

    pub(super) const fn is_inline(&self) -> bool {
        matches!(self, Store::Inline16(_) | Store::Inline32(_))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        by_form!(self,
            inline(_keys) => 0,
            sparse(sparse) => sparse.heap_bytes(),
            blocks(blocks) => blocks.heap_bytes(),
            dense(dense) => dense.heap_bytes(),
        )
    }

    /// Name of the form and width of its counts.
    pub(super) fn name(&self) -> (&'static str, usize) {
        by_form!(self,
            inline(_keys) => ("inline", 0),
            sparse(sparse) => ("sparse", sparse.width()),
            blocks(blocks) => ("blocks", blocks.width()),
            dense(_dense) => ("dense", size_of::<u64>()),
        )
    }

    /// The cells in use with their counts, ascending. `used` is what the sketch keeps beside its store.
    pub(super) fn cells(&self, used: usize) -> impl Iterator<Item = (i32, u64)> + '_ {
        // One cursor over all forms: a place among keys or entries, a slot among blocks, a cell among dense counts.
        let (mut at, end) = by_form!(self,
            inline(_keys) => (0, used as i64),
            sparse(_sparse) => (0, used as i64),
            blocks(blocks) => (0, (blocks.blocks().len() * BLOCK_CELLS) as i64),
            dense(dense) => {
                let (first, last) = dense.reach();
                (i64::from(first), i64::from(last) + 1)
            },
        );
        std::iter::from_fn(move || {
            while at < end {
                let place = at as usize;
                at += 1;
                let (cell, count) = by_form!(self,
                    inline(keys) => {
                        let key = keys[place];
                        let run = keys[place..used].iter().take_while(|&&other| other == key).count();
                        at += run as i64 - 1;
                        (key.cell(), run as u64)
                    },
                    sparse(sparse) => sparse.entry(place),
                    blocks(blocks) => {
                        let block = &blocks.blocks()[place / BLOCK_CELLS];
                        let offset = place % BLOCK_CELLS;
                        (block.base() + offset as i32, block.counts()[offset].get())
                    },
                    dense(dense) => {
                        let cell = (at - 1) as i32;
                        (cell, dense.count_at(cell))
                    },
                );
                if count > 0 {
                    return Some((cell, count));
                }
            }
            None
        })
    }

    /// Visits the contents in ascending order, whole blocks at a time, so that sums need not open each cell.
    pub(super) fn walk(&self, used: usize, mut visit: impl FnMut(Part<'_>) -> ControlFlow<()>) {
        let _ = match self {
            Store::BlocksW1(blocks) => blocks.blocks().iter().try_for_each(|block| {
                visit(Part { base: block.base(), total: block.total(), counts: Counts::W1(block.counts()) })
            }),
            Store::BlocksW2(blocks) => blocks.blocks().iter().try_for_each(|block| {
                visit(Part { base: block.base(), total: block.total(), counts: Counts::W2(block.counts()) })
            }),
            Store::BlocksW4(blocks) => blocks.blocks().iter().try_for_each(|block| {
                visit(Part { base: block.base(), total: block.total(), counts: Counts::W4(block.counts()) })
            }),
            Store::Sparse16W1(sparse) => {
                sparse.entries(used).try_for_each(|(cell, count)| visit(Part::cell(cell, count)))
            }
            _ => self.cells(used).try_for_each(|(cell, count)| visit(Part::cell(cell, count))),
        };
    }
}

/// Cells `base..` in ascending order: a block of 32, or one cell.
pub(super) struct Part<'a> {
    base: i32,
    /// Sum of the counts.
    pub(super) total: u64,
    counts: Counts<'a>,
}

enum Counts<'a> {
    One,
    W1(&'a [u8; BLOCK_CELLS]),
    W2(&'a [u16; BLOCK_CELLS]),
    W4(&'a [u32; BLOCK_CELLS]),
}

impl Part<'_> {
    fn cell(cell: i32, count: u64) -> Self {
        Part { base: cell, total: count, counts: Counts::One }
    }

    /// The cell that holds the sample of this rank, counted from 1 within the part.
    pub(super) fn cell_of_rank(&self, rank: u64) -> i32 {
        fn place<C: Count>(counts: &[C], rank: u64) -> usize {
            let mut upto = 0u64;
            let reaches = |count: &C| {
                upto += count.get();
                upto >= rank
            };
            counts.iter().position(reaches).expect("the rank is at most the part's total")
        }
        self.base
            + match self.counts {
                Counts::One => 0,
                Counts::W1(counts) => place(counts, rank),
                Counts::W2(counts) => place(counts, rank),
                Counts::W4(counts) => place(counts, rank),
            } as i32
    }
}

/// Adds samples that are known to fit and keeps the keys sorted, so that the form has one shape per contents. Returns
/// the samples now held.
pub(super) fn insert_inline<K: Key>(keys: &mut [K], mut used: usize, cells: &[(i32, u64)]) -> usize {
    for &(cell, count) in cells {
        for _ in 0..count {
            keys[used] = K::of(cell);
            used += 1;
        }
    }
    keys[..used].sort_unstable();
    used
}

/// Removes samples and returns how many are left, or `None`, with nothing changed, if one is missing.
pub(super) fn remove_inline<K: Key>(keys: &mut [K], used: usize, cells: &[(i32, u64)]) -> Option<usize> {
    let held =
        |&(cell, count): &(i32, u64)| keys[..used].iter().filter(|key| key.cell() == cell).count() as u64 >= count;
    if !cells.iter().all(held) {
        return None;
    }
    let mut left = used;
    for &(cell, count) in cells.iter().filter(|&&(_, count)| count > 0) {
        let first = keys[..left].iter().position(|key| key.cell() == cell).expect("the cell was found above");
        keys.copy_within(first + count as usize..left, first);
        left -= count as usize;
    }
    Some(left)
}
