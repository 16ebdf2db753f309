//! The block form: runs of 32 neighbouring cells, present where at least one is in use, sorted by id, in one heap block.
//!
//! What a merged window usually is: a lognormal latency touches most cells between its extremes, so a count of one
//! byte without a key (1.06 bytes a cell of the span) is smaller than a keyed entry, and adding a cell is arithmetic
//! instead of a search. A lone outlier costs one block, where a single contiguous span would pay for the gap.
//! Invariant: ids strictly ascend and no block is all zero.

use super::Count;
use super::sparse::Subtracted;

/// Binary logarithm of the cells in a block.
pub(super) const BLOCK_BITS: u32 = 5;
/// Cells in a block: 34 bytes at the usual width, so that the id costs 6 % and an outlier half a cache line.
pub(super) const BLOCK_CELLS: usize = 1 << BLOCK_BITS;

/// Block that holds a cell; 16 bits hold the id of every cell of 3 digits (±1,625).
#[inline(always)]
pub(super) const fn block_of(cell: i32) -> i16 {
    (cell >> BLOCK_BITS) as i16
}

#[inline(always)]
const fn offset_of(cell: i32) -> usize {
    cell as usize & (BLOCK_CELLS - 1)
}

#[derive(Clone, Copy)]
pub(super) struct Block<C> {
    id: i16,
    counts: [C; BLOCK_CELLS],
}

impl<C: Count> Block<C> {
    fn empty(id: i16) -> Self {
        Block { id, counts: [C::default(); BLOCK_CELLS] }
    }

    /// By one sum and not by comparison, which would be a call for each of the many cells that go to zero.
    fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// First cell of the block.
    pub(super) fn base(&self) -> i32 {
        i32::from(self.id) << BLOCK_BITS
    }

    pub(super) fn counts(&self) -> &[C; BLOCK_CELLS] {
        &self.counts
    }

    pub(super) fn total(&self) -> u64 {
        C::sum(&self.counts)
    }
}

#[derive(Clone)]
pub(super) struct Blocks<C>(Box<[Block<C>]>);

/// A run of cells applied so far, and what stopped it.
pub(super) struct Added {
    /// Cells applied.
    pub(super) applied: usize,
    /// Of them, those that were zero before.
    pub(super) new: usize,
}

impl<C: Count> Blocks<C> {
    pub(super) fn build(cells: &[(i32, u64)]) -> Self {
        let block_count = count_blocks(cells.iter().map(|&(cell, _)| cell), cells.len());
        let mut blocks: Vec<Block<C>> = Vec::with_capacity(block_count);
        for &(cell, count) in cells {
            let id = block_of(cell);
            if blocks.last().is_none_or(|last| last.id != id) {
                blocks.push(Block::empty(id));
            }
            let last = blocks.len() - 1;
            blocks[last].counts[offset_of(cell)] = C::of(count);
        }
        Blocks(blocks.into_boxed_slice())
    }

    pub(super) fn blocks(&self) -> &[Block<C>] {
        &self.0
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

    pub(super) fn count_max(&self) -> u64 {
        self.0.iter().flat_map(|block| &block.counts).map(|count| count.get()).max().unwrap_or(0)
    }

    /// Adds ascending cells, with blocks for those that have none, and stops before a count that needs a wider form.
    #[inline]
    pub(super) fn add(&mut self, cells: &[(i32, u64)]) -> Added {
        let (mut applied, mut new) = (0, 0);
        loop {
            let done = self.add_present(&cells[applied..]);
            applied += done.applied;
            new += done.new;
            let Some(&(cell, count)) = cells.get(applied) else { break };
            if count > C::COUNT_MAX || self.find(block_of(cell)).is_some() {
                break; // Only a count that does not fit can stop a cell whose block is present.
            }
            self.insert_blocks(&cells[applied..]);
        }
        Added { applied, new }
    }

    /// The hot loop: adds cells until one has no block or its count does not fit.
    #[inline]
    fn add_present(&mut self, cells: &[(i32, u64)]) -> Added {
        let blocks = &mut *self.0;
        let (mut at, mut new) = (0usize, 0usize);
        let Some(first) = blocks.first() else { return Added { applied: 0, new: 0 } };
        let mut id_before = i32::from(first.id);
        for (applied, &(cell, count)) in cells.iter().enumerate() {
            // Ids ascend, so the block lies at most as many places on as its id is larger; in a run without gaps
            // exactly there. No branch depends on whether the cell opens a new block, which would be mispredicted.
            let id = i32::from(block_of(cell));
            at = at.wrapping_add(id.wrapping_sub(id_before) as isize as usize);
            id_before = id;
            if blocks.get(at).is_none_or(|block| i32::from(block.id) != id) {
                let found = blocks.binary_search_by_key(&id, |block| i32::from(block.id));
                match found {
                    Ok(found) => at = found,
                    Err(_) if count == 0 => continue,
                    Err(_) => return Added { applied, new },
                }
            }
            let slot = &mut blocks[at].counts[offset_of(cell)];
            let before = slot.get();
            let (after, overflows) = before.overflowing_add(count);
            if overflows | (after > C::COUNT_MAX) {
                return Added { applied, new };
            }
            *slot = C::of(after);
            new = new.wrapping_add(usize::from((before == 0) & (count != 0)));
        }
        Added { applied: cells.len(), new }
    }

    fn find(&self, id: i16) -> Option<usize> {
        self.0.binary_search_by_key(&id, |block| block.id).ok()
    }

    /// Makes room for every cell that has no block yet.
    fn insert_blocks(&mut self, cells: &[(i32, u64)]) {
        let mut wanted = cells.iter().filter(|&&(_, count)| count > 0).map(|&(cell, _)| block_of(cell)).peekable();
        let mut merged = Vec::with_capacity(self.0.len() + 4);
        for block in &self.0 {
            while let Some(id) = wanted.next_if(|&id| id < block.id) {
                if merged.last().is_none_or(|last: &Block<C>| last.id != id) {
                    merged.push(Block::empty(id));
                }
            }
            while wanted.next_if_eq(&block.id).is_some() {}
            merged.push(*block);
        }
        for id in wanted {
            if merged.last().is_none_or(|last: &Block<C>| last.id != id) {
                merged.push(Block::empty(id));
            }
        }
        self.0 = merged.into_boxed_slice();
    }

    /// Takes ascending cells away; `None`, with nothing changed, if one holds less.
    pub(super) fn subtract(&mut self, cells: &[(i32, u64)]) -> Option<Subtracted> {
        let blocks = &mut *self.0;
        let (mut removed, mut may_narrow, mut emptied) = (0usize, false, false);
        let (mut at, mut id_before) = (0usize, blocks.first().map_or(0, |block| i32::from(block.id)));
        let mut applied = 0;
        for &(cell, count) in cells {
            let id = i32::from(block_of(cell)); // Found as in `add_present`.
            at = at.wrapping_add(id.wrapping_sub(id_before) as isize as usize);
            id_before = id;
            if blocks.get(at).is_none_or(|block| i32::from(block.id) != id) {
                match blocks.binary_search_by_key(&id, |block| i32::from(block.id)) {
                    Ok(found) => at = found,
                    Err(_) if count == 0 => {
                        applied += 1;
                        continue;
                    }
                    Err(_) => break,
                }
            }
            let block = &mut blocks[at];
            let slot = &mut block.counts[offset_of(cell)];
            let before = slot.get();
            if count > before {
                break;
            }
            let after = before.wrapping_sub(count);
            *slot = C::of(after);
            may_narrow |= (before > C::NARROWER_MAX) & (after <= C::NARROWER_MAX);
            if (after == 0) & (count > 0) {
                removed = removed.wrapping_add(1);
                emptied |= block.is_empty();
            }
            applied += 1;
        }
        if applied < cells.len() {
            // Every block is still there, and every count was held before.
            self.add_present(&cells[..applied]);
            return None;
        }
        if emptied {
            self.0 = self.0.iter().filter(|block| !block.is_empty()).copied().collect();
        }
        Some(Subtracted { removed, may_narrow })
    }
}

/// Blocks that ascending cells touch, counted no further than needed to know that they are more than `limit`.
pub(super) fn count_blocks(cells: impl Iterator<Item = i32>, limit: usize) -> usize {
    let mut last = None;
    cells.filter(|&cell| last.replace(block_of(cell)) != Some(block_of(cell))).take(limit + 1).count()
}
