//! Sinks: everything that tells the world.
//!
//! In: the view. Out: bodies. Owns: what was rendered last.

pub mod scrape;
