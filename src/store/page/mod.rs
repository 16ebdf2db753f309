//! Pages: the rows of many series over one span of a tier, by series and slot (H1).
//!
//! In: rows in order through [`PageWriter`]. Out: the same through [`Page::read`], for the series and slots that are
//! asked for. Owns: the format of the values of table `pages`. No I/O, no clock. Invariant: `read(write(x)) == x` to the
//! bit, and no bytes make a reader panic or allocate more than a bounded multiple of what they hold.
//!
//! Format 0, integers are LEB128 (zigzag where signed):
//!
//! ```text
//! page      = version:u8=0 kind:u8 series:varint directory body*
//! directory = (id gap, length of its body)*
//! body      = (slot gap, row)*               row: as in a part, without its id
//! ```

mod write;
mod read;

pub use read::{Page, PageBuffers, Wanted};
pub use write::PageWriter;

#[cfg(test)]
mod tests;

/// The format version, the first byte of a page.
const VERSION: u8 = 0;
