//! From pipeline files to a running graph: the file as written, the plan as meant.
//!
//! In: TOML files and the environment. Out: a checked [`plan::Plan`], or [`diagnostic::Diagnostics`] that show
//! every error with its place. Owns: nothing that runs. Invariant: components get checked values only.

mod build;
mod build_edge;
mod build_metric;
mod collect;
pub mod config;
pub mod diagnostic;
mod graph;
mod live;
pub mod memory;
pub mod paths;
pub mod plan;
mod reader;
mod running;
pub mod value;

pub use graph::{ListenerState, Report, StartError};
pub use running::{BuildError, Builder, Pipeline, ReadError, as_number, series_name};

#[cfg(test)]
mod tests;
