//! Pages: the rows of many series over one span of a tier, by series and slot (H1).
//!
//! In: rows in order through [`PageWriter`]. Out: the same through [`Page::read`], for the series and slots that are
//! asked for. Owns: the format of the values of table `pages`. No I/O, no clock. Invariant: `read(write(x)) == x` to the
//! bit, and no bytes make a reader panic or allocate more than a bounded multiple of what they hold.
//!
//! Format 1 (to be written).

mod bits;
mod cells;
mod column;
mod defaults;
mod distribution;
mod floats;
mod ints;
mod rans;
mod read;
mod scalar;
mod shared;
mod write;

pub use read::{Page, PageBuffers, Wanted};
pub use write::PageWriter;

#[cfg(test)]
mod tests;

/// The format version, the first byte of a page.
const VERSION: u8 = 1;
/// Slots of a page are below; a span has 360.
pub(super) const SLOTS_MAX: u16 = 4096;
