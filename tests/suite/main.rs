//! Black-box tests: the real binary, real sockets, random ports, nothing but what the contract promises.
//!
//! Long forms by environment: `HYDROGRAPH_KILLS` (default 100), `HYDROGRAPH_FUZZ` (default 1,000,000),
//! `HYDROGRAPH_TAGS` (default 300,000), `HYDROGRAPH_EVENTS` (of each of 64 producers, default 3,000), `HYDROGRAPH_SEED`.

#[path = "../harness/mod.rs"]
mod harness;

mod cardinality;
mod collectors;
mod crash;
mod demo;
mod disk;
mod first_run;
mod hostile;
mod ingest;
mod json;
mod load;
mod pairs;
mod producers;
mod reads;
mod rehearsal;
mod reload;
mod resets;
mod routes;
mod shutdown;
mod systems;
mod tap;
mod tidy;
mod upkeep;
