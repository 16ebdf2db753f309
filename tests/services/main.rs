//! Service tests: real peers and the clients people already have, against the real binary.
//!
//! The test command puts Python and npm packages under `target/test-tools` and names that folder in
//! `HYDROGRAPH_TEST_TOOLS`. A peer that is not there is a loud, counted skip, and a failure in CI.

#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "the harness serves two test binaries; this one needs less of it")]
mod harness;

mod api;
mod browser;
mod clients;
mod expressions;
mod peers;
mod prometheus;
mod systems;
