//! Counts a list of cells: from the order they came to ascending (cell, count).
//!
//! In: cells of two-digit sketches. Out: sorted counts. Owns: a table of counts by cell and a
//! bitmap of what was touched, so that sixty cells cost one pass over a few words instead of a sort.

use super::dense::{DenseCells, HotPool};
use super::record::{CHUNK_CELLS, ChunkPool, DistributionRecord};

/// Cells lie in ±[0, 2^13): two digits at 10^18 units reach 6,911.
const CELL_LIMIT: i32 = 1 << 13;

/// Up to so many cells are sorted where they are: the table of counts is larger than a first-level cache.
const FEW_CELLS: usize = 8;

/// Counts few cells by inserting each into a sorted list.
#[inline]
fn count_few(cells: &[i16], out: &mut Vec<(i32, u64)>) {
    let mut sorted = [0i16; FEW_CELLS];
    for (len, cell) in cells.iter().enumerate() {
        let mut at = len;
        while at > 0 && sorted[at - 1] > *cell {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = *cell;
    }
    for run in sorted[..cells.len()].chunk_by(|one, next| one == next) {
        out.push((i32::from(run[0]), run.len() as u64));
    }
}

/// Reusable memory of the count.
pub(super) struct CellCounter {
    counts: Box<[u32; COUNTS]>,
    words: Box<[u64; COUNTS / 64]>,
}

const COUNTS: usize = 2 * CELL_LIMIT as usize;

impl CellCounter {
    pub(super) fn new() -> CellCounter {
        CellCounter { counts: Box::new([0; COUNTS]), words: Box::new([0; COUNTS / 64]) }
    }

    #[inline(always)]
    fn add(&mut self, cell: i16) {
        let index = (i32::from(cell) + CELL_LIMIT) as usize % COUNTS;
        // A list has fewer cells than any of these limits.
        self.counts[index] = self.counts[index].wrapping_add(1);
        self.words[index / 64] |= 1 << (index % 64);
    }

    fn add_many(&mut self, cell: i32, count: u32) {
        let index = (cell + CELL_LIMIT) as usize;
        self.counts[index] += count;
        self.words[index / 64] |= 1 << (index % 64);
    }

    /// Counts a record's cells into `out`, ascending. The chunks and blocks stay as they are.
    pub(super) fn count(
        &mut self,
        record: &DistributionRecord,
        chunks: &ChunkPool,
        hot: &HotPool,
        dense: Option<&DenseCells>,
        out: &mut Vec<(i32, u64)>,
    ) {
        out.clear();
        let listed = if record.is_hot() { 0 } else { record.count };
        let (inline, moved) = DistributionRecord::split(listed);
        let inline = &record.cells[..inline as usize];
        if let (Some(first), None) = (inline.first(), dense)
            && moved == 0
            && inline.iter().all(|cell| cell == first)
        {
            out.push((i32::from(*first), u64::from(listed)));
            return;
        }
        if listed <= FEW_CELLS as u32 && dense.is_none() {
            return count_few(inline, out);
        }
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        let mut see = |counter: &mut Self, cells: &[i16]| {
            // Apart from the counting, so that both go eight cells at a time.
            low = low.min(cells.iter().fold(i16::MAX, |low, cell| low.min(*cell)).into());
            high = high.max(cells.iter().fold(i16::MIN, |high, cell| high.max(*cell)).into());
            cells.iter().for_each(|cell| counter.add(*cell));
        };
        if !inline.is_empty() {
            see(self, inline);
        }
        let mut number = if moved == 0 { 0 } else { record.chunk };
        let mut filled = moved.wrapping_sub(1) % CHUNK_CELLS + 1;
        while number != 0 {
            let older = chunks.older(number);
            if older != 0 {
                // Counting this chunk takes about as long as memory does.
                chunks.prefetch(older);
            }
            see(self, &chunks.get(number).0[..filled as usize]);
            (number, filled) = (older, CHUNK_CELLS);
        }
        let mut see_many = |counter: &mut Self, cell: i32, count: u32| {
            low = low.min(cell);
            high = high.max(cell);
            counter.add_many(cell, count);
        };
        if record.is_hot() {
            hot.visit(record, |cell, count| see_many(self, cell, count));
        }
        if let Some(dense) = dense {
            for (offset, count) in dense.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                see_many(self, dense.lowest + offset as i32, *count);
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
