//! The whole pipeline against naive oracles, on a clock and a disk that tests own: no threads, no sleeps.
//!
//! [`world`] runs shards, store and view step by step over a disk that fails and forgets; [`truth`] says
//! what a list of events must come to; [`export`] reads the same from a file.

mod exactly_once;
mod export;
mod failing;
mod gaps;
mod handles;
mod history;
mod quantiles;
mod queries;
mod recorded;
mod resets;
mod truth;
mod world;
