//! Counts of a distribution's cells by index, for series that get many samples in one tick.
//!
//! In: cells of two-digit sketches. Out: (cell, count). Owns: [`HotPool`], blocks of one-byte counts of one combiner, and
//! [`DenseCells`] for what does not fit there. Invariant: Σ of both = samples of the record.
//!
//! A block counts 16 pages of 128 cells (one doubling each); a page lies at its number modulo 16, and the record notes
//! which page lies where. One byte a count, because 1,000 series then touch half a megabyte and stay in a second-level
//! cache; when a byte wraps, 256 go to `DenseCells`.

use super::record::{CHUNK_CELLS, ChunkPool, DistributionRecord, FOLD_EVERY, INLINE_CELLS};

/// Cells in a page: a doubling of a two-digit sketch.
const PAGE_CELLS: usize = 128;
/// Pages in a block; the record's list of cells becomes the list of their numbers.
const PAGES: usize = 16;
/// No page lies here.
const NO_PAGE: i16 = i16::MIN;
/// Set in [`DistributionRecord::chunk`] when the rest is the number of a block.
const HOT: u32 = 1 << 31;
/// Pages a two-digit cell may lie on: cells are 16 bits, pages 9, with their sign.
const PAGE_NUMBERS: usize = 1 << 9;

type Block = [u8; PAGES * PAGE_CELLS];

const BLOCKS: usize = 32;

const _: () = assert!(PAGES == INLINE_CELLS as usize);

/// The page of a cell.
#[inline(always)]
fn page_of(cell: i16) -> i16 {
    cell >> PAGE_CELLS.trailing_zeros()
}

impl DistributionRecord {
    /// True when its cells are counted in a block, not listed.
    #[inline(always)]
    pub(super) fn is_hot(&self) -> bool {
        self.chunk & HOT != 0
    }
}

/// Blocks of one combiner, allocated many at once (growth never copies), and kept.
pub(super) struct HotPool {
    blocks: Vec<Box<[Block; BLOCKS]>>,
    used: u32,
    /// As in [`ChunkPool`].
    recent: usize,
}

impl HotPool {
    pub(super) fn new() -> HotPool {
        HotPool { blocks: Vec::new(), used: 0, recent: 0 }
    }

    #[inline(always)]
    fn block(&mut self, chunk: u32) -> &mut Block {
        let index = (chunk & !HOT) as usize;
        &mut self.blocks[index / BLOCKS][index % BLOCKS]
    }

    /// Where the count of `cell` lies, if its page does.
    #[inline(always)]
    fn count_of(&mut self, record: &DistributionRecord, cell: i16) -> Option<&mut u8> {
        let page = page_of(cell);
        if record.cells[page as usize % PAGES] != page {
            return None;
        }
        Some(&mut self.block(record.chunk)[cell as u16 as usize % (PAGES * PAGE_CELLS)])
    }

    /// For prefetching: where the count of `cell` lies if its page does.
    #[inline(always)]
    pub(super) fn peek(&self, chunk: u32, cell: i16) -> &u8 {
        let index = (chunk & !HOT) as usize;
        &self.blocks[index / BLOCKS][index % BLOCKS][cell as u16 as usize % (PAGES * PAGE_CELLS)]
    }

    /// Counts a cell of a hot record; false when it, or 256 of it after a wrap, belong beside: see [`Self::beside`].
    #[inline(always)]
    pub(super) fn count(&mut self, record: &DistributionRecord, cell: i16) -> bool {
        match self.count_of(record, cell) {
            Some(count) => {
                *count = count.wrapping_add(1);
                *count != 0
            }
            None => false,
        }
    }

    /// What [`count`](Self::count) could not count: adds it to a page that is still free, or to `dense`.
    #[cold]
    pub(super) fn beside(&mut self, record: &mut DistributionRecord, cell: i16, dense: &mut DenseCells) {
        let page = page_of(cell);
        let place = &mut record.cells[page as usize % PAGES];
        if *place == page {
            dense.add(i32::from(cell), 256);
        } else if *place == NO_PAGE {
            *place = page;
            self.count(record, cell);
        } else {
            dense.add(i32::from(cell), 1);
        }
    }

    /// Turns a record whose list is full into a hot one and gives its chunks back.
    #[cold]
    pub(super) fn heat(&mut self, record: &mut DistributionRecord, chunks: &mut ChunkPool, dense: &mut DenseCells) {
        debug_assert!(record.count == FOLD_EVERY && !record.is_hot());
        let mut cells = [0i16; FOLD_EVERY as usize];
        let mut at = INLINE_CELLS as usize;
        cells[..at].copy_from_slice(&record.cells);
        let mut filled = ((FOLD_EVERY - INLINE_CELLS - 1) % CHUNK_CELLS + 1) as usize;
        while record.chunk != 0 {
            cells[at..at + filled].copy_from_slice(&chunks.get(record.chunk).0[..filled]);
            (at, filled) = (at + filled, CHUNK_CELLS as usize);
            chunks.free(record.chunk);
            record.chunk = chunks.older(record.chunk);
        }
        if self.used as usize == self.blocks.len() * BLOCKS {
            self.blocks.push(Box::new([[0; PAGES * PAGE_CELLS]; BLOCKS]));
        }
        record.chunk = HOT | self.used;
        self.used += 1;
        self.block(record.chunk).fill(0);
        // Of two pages for one place the one with more samples takes it: a stray value must not push out the usual ones.
        let mut samples = [0u16; PAGE_NUMBERS];
        let number = |page: i16| (page + PAGE_NUMBERS as i16 / 2) as usize;
        cells.iter().for_each(|cell| samples[number(page_of(*cell))] += 1);
        record.cells = [NO_PAGE; PAGES];
        for cell in &cells {
            let page = page_of(*cell);
            let place = &mut record.cells[page as usize % PAGES];
            if *place == NO_PAGE || samples[number(page)] > samples[number(*place)] {
                *place = page;
            }
        }
        for cell in &cells {
            if !self.count(record, *cell) {
                self.beside(record, *cell, dense);
            }
        }
    }

    /// Visits what a hot record counted in its block.
    pub(super) fn visit(&self, record: &DistributionRecord, mut visit: impl FnMut(i32, u32)) {
        let index = (record.chunk & !HOT) as usize;
        let block = &self.blocks[index / BLOCKS][index % BLOCKS];
        for (counts, page) in block.as_chunks::<PAGE_CELLS>().0.iter().zip(record.cells) {
            if page == NO_PAGE {
                continue;
            }
            let lowest = i32::from(page) * PAGE_CELLS as i32;
            for (group, counts) in counts.as_chunks::<8>().0.iter().enumerate() {
                if u64::from_ne_bytes(*counts) == 0 {
                    continue;
                }
                for (offset, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    visit(lowest + (group * 8 + offset) as i32, u32::from(*count));
                }
            }
        }
    }

    /// Forgets all blocks at once and keeps the memory, but not more than twice of what was used lately.
    pub(super) fn reset(&mut self) {
        self.recent = (self.used as usize * 2).div_ceil(BLOCKS).max(self.recent - self.recent.div_ceil(4));
        self.blocks.truncate(self.recent);
        self.used = 0;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.blocks.len() * size_of::<[Block; BLOCKS]>()
    }
}

/// Counts of cells that a block does not hold: `counts[cell - lowest]`.
#[derive(Clone, Debug, Default)]
pub(super) struct DenseCells {
    pub(super) lowest: i32,
    pub(super) counts: Vec<u32>,
}

impl DenseCells {
    pub(super) fn add(&mut self, cell: i32, count: u32) {
        if self.counts.is_empty() {
            self.lowest = cell;
        }
        if cell < self.lowest {
            let missing = (self.lowest - cell) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.lowest = cell;
        }
        let index = (cell - self.lowest) as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        // A record counts at most u32::MAX samples, so neither can one of its cells overflow.
        self.counts[index] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Heats a record with the first cells and counts the others, as the combiner does.
    fn check(cells: impl Iterator<Item = i16>) -> usize {
        let (mut pool, mut chunks) = (HotPool::new(), ChunkPool::new());
        let (mut record, mut dense) = (DistributionRecord::default(), DenseCells::default());
        let mut expected: BTreeMap<i32, u32> = BTreeMap::new();
        for (at, cell) in cells.enumerate() {
            *expected.entry(i32::from(cell)).or_default() += 1;
            record.count += 1;
            if !record.is_hot() {
                record.list(at as u32, cell, &mut chunks);
            } else if !pool.count(&record, cell) {
                pool.beside(&mut record, cell, &mut dense);
            }
            if record.count == FOLD_EVERY {
                pool.heat(&mut record, &mut chunks, &mut dense);
            }
        }
        let mut counted: BTreeMap<i32, u32> = BTreeMap::new();
        pool.visit(&record, |cell, count| *counted.entry(cell).or_default() += count);
        for (offset, count) in dense.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            *counted.entry(dense.lowest + offset as i32).or_default() += count;
        }
        assert!(counted == expected, "cells or counts differ");
        dense.counts.iter().filter(|count| **count > 0).count()
    }

    #[test]
    fn every_cell_is_counted_once_wherever_it_lies() {
        // One cell, wrapping its byte many times.
        assert_eq!(check(std::iter::repeat_n(-77, 100_000)), 1);
        // The whole range of 16 bits and both signs, in an order without pattern: most pages share a place.
        check((0..200_000u32).map(|n| (n.wrapping_mul(40_503) >> 3) as i16 % 6_912));
        // Two modes 16 doublings apart, and later a third one elsewhere.
        check((0..50_000).map(|n| if n % 3 == 0 { 100 } else { 100 + 2_048 }));
        check((0..50_000).map(|n| if n < 600 { 5 } else { 900 + (n % 700) as i16 }));
        check([i16::MIN + 1, i16::MAX].into_iter().cycle().take(5_000));
    }

    #[test]
    fn a_stray_value_does_not_take_the_page_of_the_usual_ones() {
        // The first sample lies 16 doublings above all the others: it alone is counted beside.
        let cells = (0..10_000).map(|n| if n == 0 { 300 + 2_048 } else { 300 + (n % 64) as i16 });
        assert_eq!(check(cells), 1);
    }
}
