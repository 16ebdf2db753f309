//! From pipeline files to a running graph: the file as written, the plan as meant.
//!
//! In: TOML files and the environment. Out: a checked [`plan::Plan`], or [`diagnostic::Diagnostics`] that show
//! every error with its place. Owns: nothing that runs. Invariant: components get checked values only.

mod build;
mod build_edge;
mod build_expr;
mod build_feed;
mod build_label;
mod build_metric;
mod build_source;
mod build_typed;
mod build_widgets;
mod collect;
mod collectors;
pub mod config;
pub mod diagnostic;
pub mod export;
mod forms;
mod graph;
mod holds;
mod include;
mod live;
pub mod memory;
pub mod names;
mod overflow;
pub mod paths;
pub mod plan;
mod plan_widgets;
pub mod queries;
mod reader;
pub(crate) mod recording;
pub mod rehearsal;
mod reload;
mod roster;
mod running;
pub mod schema;
mod tables;
pub mod tap;
pub mod upkeep;
pub mod value;
mod widgets;
mod written;

pub use graph::{ListenerState, Report, StartError};
pub use overflow::{Overflow, Overflows};
pub use reload::{Changes, Follower, Loader, Prepared, ReloadError, ReloadReport};
pub use running::{BuildError, Builder, EventsRefused, Pipeline, ReadError, ResetError, as_number, series_name};
pub use widgets::{POINTS_MAX, TIMEFRAME_HOURS, WidgetError};

#[cfg(test)]
mod tests;
