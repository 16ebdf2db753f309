//! What every black-box test stands on: the real binary as a child with directories and ports of its own,
//! a small HTTP client, and a strict reader of the exposition.
//!
//! In: the path of the built binary. Out: [`Home`], [`Pipeline`], [`Launch`], [`Server`], [`Scrape`], [`wait`].
//! Owns: each child it starts; dropping a [`Server`] ends that child and no other process.
//! Invariant: nothing here sleeps for a fixed time to let something happen; it polls a condition with a deadline.

pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod wait;

pub(crate) use exposition::Scrape;
pub(crate) use server::{Home, Launch, Pipeline, Server};
