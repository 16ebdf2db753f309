//! Counts a list of cells: from the order they came to ascending (cell, count).
//!
//! In: cells of two-digit sketches. Out: sorted counts. Owns: a table of counts by cell and a
//! bitmap of what was touched, so that sixty cells cost one pass over a few words instead of a sort.

use super::combiner::DenseCells;
use super::record::{CHUNK_CELLS, ChunkPool, DistributionRecord, FOLD_EVERY, INLINE_CELLS};

/// Cells lie in ±[0, 2^13): two digits at 10^18 units reach 6,911.
const CELL_LIMIT: i32 = 1 << 13;

/// Reusable memory of the count.
pub(super) struct CellCounter {
    counts: Box<[u32]>,
    words: Box<[u64]>,
}

impl CellCounter {
    pub(super) fn new() -> CellCounter {
        let len = 2 * CELL_LIMIT as usize;
        CellCounter { counts: vec![0; len].into(), words: vec![0; len / 64].into() }
    }

    #[inline(always)]
    fn add(&mut self, cell: i16) {
        let index = ((i32::from(cell) + CELL_LIMIT) as usize) & (2 * CELL_LIMIT as usize - 1);
        self.counts[index] += 1;
        self.words[index / 64] |= 1 << (index % 64);
    }

    /// Counts a record's cells into `out`, ascending. The chunks stay as they are.
    pub(super) fn count(
        &mut self,
        record: &DistributionRecord,
        chunks: &ChunkPool,
        dense: Option<&DenseCells>,
        out: &mut Vec<(i32, u64)>,
    ) {
        out.clear();
        let listed = record.count & (FOLD_EVERY - 1);
        let inline = &record.cells[..listed.min(INLINE_CELLS) as usize];
        if let (Some(first), None) = (inline.first(), dense)
            && listed <= INLINE_CELLS
            && inline.iter().all(|cell| cell == first)
        {
            out.push((i32::from(*first), u64::from(listed)));
            return;
        }
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        let mut see = |counter: &mut Self, cells: &[i16]| {
            for cell in cells {
                low = low.min(i32::from(*cell));
                high = high.max(i32::from(*cell));
                counter.add(*cell);
            }
        };
        see(self, inline);
        let mut number = record.chunk;
        let mut filled = listed.saturating_sub(INLINE_CELLS);
        filled = if filled == 0 { 0 } else { (filled - 1) % CHUNK_CELLS + 1 };
        while number != 0 {
            let chunk = chunks.get(number);
            see(self, &chunk.cells[..filled as usize]);
            (number, filled) = (chunk.older, CHUNK_CELLS);
        }
        if let Some(dense) = dense {
            for (offset, count) in dense.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let cell = dense.lowest + offset as i32;
                low = low.min(cell);
                high = high.max(cell);
                let index = (cell + CELL_LIMIT) as usize;
                self.counts[index] += count;
                self.words[index / 64] |= 1 << (index % 64);
            }
        }
        if low > high {
            return;
        }
        for word in (low + CELL_LIMIT) as usize / 64..=(high + CELL_LIMIT) as usize / 64 {
            let mut bits = std::mem::take(&mut self.words[word]);
            while bits != 0 {
                let index = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let count = std::mem::take(&mut self.counts[index]);
                out.push((index as i32 - CELL_LIMIT, u64::from(count)));
            }
        }
    }
}
