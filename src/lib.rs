//! Events in, quantiles out: an actor-based metrics pipeline whose every number is right and survives a crash.
//!
//! It takes DogStatsD and StatsD lines from sockets and typed calls from the program it lives in, keeps counters,
//! gauges, HDR sketches and distinct counts, commits them to one file, and shows what is durable to Prometheus.
//! As a program it is `hydrograph run`; as a crate it is [`Pipeline`]. It is no time series database, no agent that
//! forwards raw samples, and no cluster. It runs on Linux. The README says how to use it; this page says how it is built.
//!
//! # In a program
//!
//! Without a file, the pipeline lives in memory and opens no socket. Calls need no runtime, and reads wait for the
//! commit, so they see every call that returned before.
//!
//! ```
//! use hydrograph::{Pipeline, timed};
//! use std::time::Duration;
//!
//! let pipeline = Pipeline::builder().start()?;
//!
//! // Handles that may travel between threads. An undeclared counter is exposed with `_total`, a timing with `_seconds`.
//! let orders = pipeline.counter("orders", &[("region", "eu")])?;
//! let latency = pipeline.timing("checkout.latency", &[])?;
//! orders.inc();
//! orders.add(2);
//! for milliseconds in 1..=100 {
//!     latency.observe_duration(Duration::from_millis(milliseconds));
//! }
//!
//! assert_eq!(pipeline.get("orders_total", &[("region", "eu")])?, 3.0);
//! let p99 = pipeline.quantile("checkout_latency_seconds", &[], 0.99)?;
//! assert!((p99.value - 0.099).abs() <= 0.099 * p99.bound && p99.bound <= 0.01);
//!
//! // The time of an expression, also when it returns early or panics.
//! let parsed = timed!(latency, "42".parse::<u32>())?;
//! assert_eq!((parsed, pipeline.stats("checkout_latency_seconds", &[])?.count), (42, 101));
//!
//! // Handles of one thread: an increment is one load and one store.
//! let producer = pipeline.producer()?;
//! let hits = producer.counter("hits", &[])?;
//! hits.inc();
//!
//! let report = pipeline.stop(Duration::from_secs(5));
//! assert!(report.is_complete);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The flow
//!
//! ```text
//!                                     shard threads, one per core                   store thread
//!  sockets ─▶ SOURCE ─ whole buffers ─▶ SHARD: codec ▶ rule ▶ slot ▶ delta ─ seal ─▶ STORE ─▶ one redb file
//!  threads ─▶ SOURCE ─ a ring each ───▶                                ◀─ spare ─┘   │ durable rows
//!                                                                                    ▼
//!  Prometheus ◀─ HTTP ◀─ SINK: scrape ◀─ one chunk of 1,024 series at a time ─────── VIEW
//! ```
//!
//! Samples go one way. A slow disk delays ticks, not decoding; a slow scraper delays nobody. What finds no room is
//! dropped at a named edge and counted with a reason.
//!
//! # The code, in reading order
//!
//! A module uses only what stands above it; a test reads the source and enforces it.
//!
//! | module | what it does |
//! |---|---|
//! | [`event`] | the vocabulary: metric, labels, slot, time, units, every reason to refuse or to drop |
//! | [`sketch`] | HDR cells in three forms that merge exactly, quantiles with their bound, distinct counts |
//! | [`delta`] | what one tick adds: the series table, the combiner a shard fills, its encoded rows |
//! | [`codec`] | bytes to values and back: numbers, stream frames, DogStatsD, the exposition formats |
//! | [`rule`] | which metric a name is: declared or not, its kind, unit, scale, labels |
//! | [`channel`] | bounded channels and wakers between threads |
//! | [`actor`] | threads with a name and an end |
//! | [`shard`] | decode, resolve, combine; the rings of in-process producers |
//! | [`store`] | the commit log in one redb file: transactions, recovery, segments, damage and full disks |
//! | [`view`] | totals and sliding windows, folded from durable commits only |
//! | [`query`] | PromQL over slices and pages of any tier: parsed, bounded, every quantile with its bound |
//! | [`source`] | sockets, this machine, this process, and the handles of the embedding program |
//! | [`sink`] | what tells the world: the bodies of a scrape |
//! | [`pipeline`] | the file as written, the plan as meant, the running graph, [`Pipeline`] |
//! | [`http`] | the front door: routes, formats, token; no logic |
//! | [`cli`] | `run`, `init`, `check`, `generate`, `send`, `tap`, `query`, `export`, `healthcheck` |
//!
//! Whoever taps an edge is served from beside the flow: `shard/tap/` (who looks, how much is shown), `shard/decode/tapped.rs`,
//! `pipeline/tap/` (filters, deltas, lines), `http/tap.rs`.
//!
//! To follow one line from the socket to the scrape: `source/reactor.rs` reads a datagram, `shard/decode.rs` takes
//! its buffer in stages, `codec/dogstatsd/fast.rs` parses, `shard/cache.rs` finds the slot (on a miss `rule/mod.rs`
//! and `delta/table.rs` say which), `delta/combiner.rs` adds, `store/actor.rs` asks for the seal, `delta/encode.rs`
//! makes rows of it, `store/write.rs` commits them, `view/fold.rs` folds them, `sink/scrape/render.rs` writes them,
//! `http/routes.rs` answers.
//!
//! # What never happens
//!
//! - Nothing but `event/clock.rs` reads a clock; time is an argument ([`event::Clock`]).
//! - Nothing but `actor.rs` starts a thread or a task, nothing but `channel.rs` names flume, nothing outside
//!   [`store`] names redb, nothing outside [`http`] names axum, nothing outside [`cli`] names clap.
//! - No queue is without a bound, and nothing is dropped without a counter and a reason.
//! - No sum is a float: every sum counts a metric's scale units as an integer, so that merging in any order gives
//!   the same bits.
//! - No shard holds a window, a total or a file; it holds what arrived since the last tick.
//! - Nothing is shown before it is durable, so nothing that was shown is taken back by a crash.
//! - Recovery has no code of its own: opening folds the same rows with the same function as a live commit.
//! - No handle of the store is used again after an I/O error.
//! - No reader holds more than one chunk of the view, and the store never waits for a reader longer than that.
//! - No bytes from outside make a decoder panic, or allocate more than they hold.
//! - No call on a thread's own handle takes a lock, allocates, or waits for another producer.

// The vocabulary and the pure parts: no threads, no I/O, no clock.
pub mod event;
pub mod sketch;
pub mod delta;
pub mod codec;
pub mod rule;
// What carries them between threads.
pub mod channel;
pub mod actor;
// The rooms of the flow.
pub mod shard;
pub mod store;
pub mod view;
pub mod query;
pub mod source;
pub mod sink;
pub mod record;
// The whole, and its two front ends.
pub mod pipeline;
pub mod http;
pub mod cli;

pub use event::{Clock, CommitId, Labels, ManualClock, Metric, SystemClock, Timestamp};
pub use pipeline::{BuildError, Builder, Pipeline, ReadError, Report, ResetError, StartError};
pub use sink::scrape::{ScrapeBody, ScrapeFormat, ScrapeRequest};
pub use source::inproc::shared::{Counter, Gauge, Histogram, Set};
pub use source::inproc::{
    Event, EventBuilder, EventError, EventValue, HandleError, LocalCounter, LocalGauge, LocalHistogram, LocalSet,
    LocalTimer, Producer, Timed, TimedExt, Timer,
};
pub use view::{DistributionStats, Quantile, Value};

/// The README's Rust code, compiled and run with the documentation's other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
