//! Pages: the rows of many series over one span of a tier, by series and slot (H1).
//!
//! In: rows in order through [`PageWriter`]. Out: the same through [`Page::read`], for the series and slots that are
//! asked for. Owns: the format of the values of table `pages`. No I/O, no clock. Invariant: `read(write(x)) == x` to
//! the bit, and no bytes make a reader panic or take more memory than 16 MiB and 40 times their length.
//!
//! # Format 1
//!
//! Integers are LEB128 *varints* (zigzag where signed), words and floats little-endian.
//!
//! ```text
//! page      = version:u8=1 kind:u8 tables_len:varint shared_len:varint directory tables shared block*
//! directory = blocks:varint (series:varint block_len:varint id*)*     id: its distance from the one before, less one;
//!             the first id of a page is itself
//! tables    = own:varint table*               one bit a context whose table is the page's own   (rans)
//! table     = length:u8 (frequency:varint | 0:u8 run-1:varint)*       sums to 2,048
//! shared    = patterns lines                  slots and times that series have in common        (shared)
//! block     = heads_len:varint heads stream bits_len:varint bits tail
//! heads     = (pattern:varint, what the kind needs)*                  a series each             (scalar, distribution)
//! stream    = words:varint u16*               tokens, none or the state and what it took in     (rans)
//! bits      = what tokens leave, the least significant bit first                                (bits, ints)
//! tail      = distributions: groups:varint (rows:varint length:varint)* group*                  (cells)
//!             sets: the bytes of [`Distinct::encode`](crate::sketch::Distinct::encode) of each row; heads have lengths
//! ```
//!
//! Each file's head documents its part. A number that follows from another is not stored; a column that is constant is
//! its head alone; a series may be what an earlier one of its block predicts. So one series is read by decoding its
//! block up to it (20 to 30 µs, measured), and what pages have of other blocks is never touched.
//!
//! Why like this, and not `pco` or `zstd`, which were the candidates: a block must be small, since reading one series
//! is the common case, and their blocks have heads of their own and want thousands of numbers; the tables here belong
//! to the page and serve all blocks and scales (see `ints`). And the store has no other use for the build time of
//! either.
//!
//! # Invariants
//!
//! - The bytes are a function of the rows. So two machines that page the same rows have the same manifests.
//! - Tables that are built in ([`defaults`]) are part of the format, as is every constant of `ints`, `cells` and
//!   `column`.
//! - A reader trusts no number: each place and length is checked against the bytes, ids ascend, a pattern has slots
//!   below [`SLOTS_MAX`], the patterns of a block at most [`BLOCK_ROWS_MAX`] rows, all arithmetic on stored numbers
//!   wraps or is checked, and a stream must end in the state that it began with.
//!
//! # Reading order
//!
//! `write`, `read`; `column` (what predicts a number), `ints` (what is left of it as tokens and bits), `rans` (tokens
//! to words), `bits`; `floats`, `shared`, `relation`, `scalar`; `distribution`, `cells`.

mod bits;
mod cells;
mod column;
mod defaults;
mod distribution;
mod floats;
mod ints;
mod rans;
mod read;
mod relation;
mod scalar;
mod shared;
mod write;

pub use read::{Page, PageBuffers, Wanted};
pub use write::PageWriter;

#[cfg(test)]
mod tests;

/// The format version, the first byte of a page.
const VERSION: u8 = 1;
/// What a reader's buffers take at most, whatever the bytes say: tables, the rows of a block, the cells of a row.
#[cfg(test)]
const READER_BYTES_MAX: usize = 16 << 20;
/// Slots of a page are below; a span has 360.
const SLOTS_MAX: u16 = 4096;
/// Most rows of a block, so that a few hostile bytes cannot ask for much memory: 12,288 rows of at most 80 bytes.
const BLOCK_ROWS_MAX: usize = 3 * SLOTS_MAX as usize;
