//! The records of the hot path: one cache line per distribution or gauge, eight bytes per counter.
//!
//! In: samples of one series. Out: their aggregate. Invariant: `default()` is the clean state that
//! [`super::segment::Segmented`] relies on.

use super::pages::PageBox;
use super::prefetch;

/// Cells kept in the record itself: the newest. When they are full they move to a chunk together, so that a sample
/// touches one line of memory and each sixteenth a second one.
pub(super) const INLINE_CELLS: u32 = 16;
/// Cells in a chunk.
pub(super) const CHUNK_CELLS: u32 = 64;
/// Samples after which a record's cells are counted where they come instead of listed, and its chunks go back: the list
/// is then as large as the counts.
pub(super) const FOLD_EVERY: u32 = 512;

const _: () = assert!(size_of::<DistributionRecord>() == 64 && size_of::<Chunk>() == 128);
const _: () = assert!(CHUNK_CELLS.is_multiple_of(INLINE_CELLS) && FOLD_EVERY.is_multiple_of(INLINE_CELLS));
const _: () = assert!(FOLD_EVERY > INLINE_CELLS && size_of::<GaugeRecord>() <= 80);

/// A distribution between two ticks: cells are appended as they come and counted at the tick (100,000
/// series: 77 ns and 157 MB, against 98 ns and 678 MB when counted in place), until there are so many that counting in
/// place ([`super::dense`]) is less.
#[repr(C, align(64))]
#[derive(Clone, Debug)]
pub(super) struct DistributionRecord {
    /// Samples; below `FOLD_EVERY` all are listed, from there on all are counted.
    pub(super) count: u32,
    /// The newest chunk, 1-based; 0 = none. Of a hot record its block.
    pub(super) chunk: u32,
    /// In scale units; what overflows is spilled to a side map.
    pub(super) sum: i64,
    pub(super) min: i64,
    pub(super) max: i64,
    /// The newest cells. Of a hot record the pages of its block.
    pub(super) cells: [i16; INLINE_CELLS as usize],
}

impl Default for DistributionRecord {
    fn default() -> Self {
        DistributionRecord {
            count: 0,
            chunk: 0,
            sum: 0,
            min: i64::MAX,
            max: i64::MIN,
            cells: [0; INLINE_CELLS as usize],
        }
    }
}

impl DistributionRecord {
    /// How many of `listed` cells lie in the record, and how many in its chunks.
    #[inline(always)]
    pub(super) fn split(listed: u32) -> (u32, u32) {
        let inline = if listed == 0 { 0 } else { (listed - 1) % INLINE_CELLS + 1 };
        (inline, listed - inline)
    }

    /// Appends a cell to a list of `listed`, which must be below [`FOLD_EVERY`].
    #[inline(always)]
    pub(super) fn list(&mut self, listed: u32, cell: i16, chunks: &mut ChunkPool) {
        let at = listed % INLINE_CELLS;
        if at == 0 && listed != 0 {
            self.move_out(listed - INLINE_CELLS, chunks);
        }
        self.cells[at as usize] = cell;
    }

    /// Moves the cells of the record behind the `moved` that its chunks hold.
    #[inline(never)]
    fn move_out(&mut self, moved: u32, chunks: &mut ChunkPool) {
        let at = (moved % CHUNK_CELLS) as usize;
        if at == 0 {
            self.chunk = chunks.take(self.chunk);
        }
        chunks.get_mut(self.chunk).0[at..at + INLINE_CELLS as usize].copy_from_slice(&self.cells);
    }

    /// Where in its newest chunk the next cell moves the record's to; `None` when that is not next, or to a new chunk.
    #[inline(always)]
    pub(super) fn moves_to(&self) -> Option<usize> {
        if !self.count.is_multiple_of(INLINE_CELLS) || self.chunk == 0 {
            return None;
        }
        Some((self.count.wrapping_sub(INLINE_CELLS) % CHUNK_CELLS) as usize).filter(|at| *at != 0)
    }
}

/// A block of cells.
#[repr(C, align(128))]
#[derive(Clone, Debug)]
pub(super) struct Chunk(pub(super) [i16; CHUNK_CELLS as usize]);

/// Chunks of one combiner: allocated by blocks (growth never copies), recycled through a free list.
pub(super) struct ChunkPool {
    blocks: Vec<Block>,
    used: u32,
    /// Blocks that recent ticks needed: falls by a quarter a tick, so that a short tick between two long ones does not
    /// give back what the kernel must clear again (9 % of the CPU of a pipeline at 100,000 series).
    recent: usize,
    free: Vec<u32>,
}

struct Block {
    chunks: PageBox<Chunk, { BLOCK_CHUNKS as usize }>,
    /// The next older chunk of the same record, 1-based; 0 = none.
    older: Box<[u32; BLOCK_CHUNKS as usize]>,
}

const BLOCK_CHUNKS: u32 = 512;

impl ChunkPool {
    pub(super) fn new() -> Self {
        ChunkPool { blocks: Vec::new(), used: 0, recent: 0, free: Vec::new() }
    }

    /// A chunk linked to `older`; returns its 1-based number.
    #[inline]
    pub(super) fn take(&mut self, older: u32) -> u32 {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                if self.used == self.blocks.len() as u32 * BLOCK_CHUNKS {
                    let empty = Chunk([0; CHUNK_CELLS as usize]);
                    let older = Box::new([0; BLOCK_CHUNKS as usize]);
                    self.blocks.push(Block { chunks: PageBox::of(empty), older });
                }
                self.used += 1;
                self.used
            }
        };
        let index = number - 1;
        self.blocks[(index / BLOCK_CHUNKS) as usize].older[(index % BLOCK_CHUNKS) as usize] = older;
        number
    }

    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> &Chunk {
        let index = number - 1;
        &self.blocks[(index / BLOCK_CHUNKS) as usize].chunks[(index % BLOCK_CHUNKS) as usize]
    }

    #[inline(always)]
    fn get_mut(&mut self, number: u32) -> &mut Chunk {
        let index = number - 1;
        &mut self.blocks[(index / BLOCK_CHUNKS) as usize].chunks[(index % BLOCK_CHUNKS) as usize]
    }

    /// The next older chunk, 1-based; 0 = none.
    #[inline(always)]
    pub(super) fn older(&self, number: u32) -> u32 {
        let index = number - 1;
        self.blocks[(index / BLOCK_CHUNKS) as usize].older[(index % BLOCK_CHUNKS) as usize]
    }

    /// Brings both lines of a chunk closer.
    #[inline(always)]
    pub(super) fn prefetch(&self, number: u32) {
        let chunk = self.get(number);
        prefetch(&chunk.0[0]);
        prefetch(&chunk.0[CHUNK_CELLS as usize / 2]);
    }

    /// Gives one chunk back.
    pub(super) fn free(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Forgets all chunks at once and keeps the memory, but not more than twice of what was used lately.
    pub(super) fn reset(&mut self) {
        let needed = (self.used as usize * 2).div_ceil(BLOCK_CHUNKS as usize);
        self.recent = needed.max(self.recent - self.recent.div_ceil(4));
        self.blocks.truncate(self.recent.max(1));
        self.used = 0;
        self.free.clear();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_CHUNKS as usize * (size_of::<Chunk>() + 4) + self.free.capacity() * 4
    }
}

/// A counter between two ticks: the whole part; fractions are kept apart (V1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CounterRecord(pub(super) i64);

/// A gauge between two ticks: what was set, and the relative operations after the newest set (V6).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GaugeRecord {
    /// Sets seen.
    pub(super) count: u32,
    /// True when a set came; `last`, `time` and `position` are then its own.
    pub(super) is_set: bool,
    /// True when a relative operation came after the newest set.
    pub(super) is_adjusted: bool,
    pub(super) last: f64,
    /// Nanoseconds of event time of `last`.
    pub(super) time: i64,
    /// Order among equal times.
    pub(super) position: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// In scale units.
    pub(super) sum: i128,
    /// Σ of relative operations since the newest set.
    pub(super) adjust: f64,
}

impl Default for GaugeRecord {
    fn default() -> Self {
        GaugeRecord {
            count: 0,
            is_set: false,
            is_adjusted: false,
            last: 0.0,
            time: i64::MIN,
            position: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0,
            adjust: 0.0,
        }
    }
}
