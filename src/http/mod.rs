//! The front door: HTTP on TCP and Unix sockets. Routes and negotiation only, no logic.
//!
//! In: bound [`Listener`]s, a [`Backend`] (the running pipeline as the routes see it), an optional
//! [`Token`]. Out: answers; every body has a Content-Type, every error is JSON.
//! Owns: connections and their limits. Invariants: nothing a client sends is shown unescaped; nothing that
//! renders or waits runs on the runtime's thread; without the token only the four liveness and readiness
//! routes answer.
//!
//! Reading order: [`backend`](self) (what the routes need), `accept` (which format), `token`, `routes`,
//! `body` and `ingest` (events in), `metrics`, `prometheus` (PromQL), `export`, `page`, `tap` (what passes, live), `serve` and `connection` (who is served,
//! and how slow a client may be).

mod accept;
mod adapter;
mod backend;
mod body;
mod connection;
mod doors;
mod export;
mod ingest;
mod laws;
mod metrics;
mod page;
mod prometheus;
mod reset;
mod routes;
mod serve;
mod server;
mod tap;
mod upkeep;
mod token;
mod wording;

pub use adapter::{Front, laws_of, report_laws};
pub use backend::{
    Accepted, Backend, Component, ComponentState, EventsError, EventsTaken, Format, Health, HealthStatus, IndexData,
    Laws, LineOutcome, LinesTaken, ListenerInfo, NoScrape, NoticeFields, Quantile, RecentItem, RecentKind, Refusal,
    Refused, RefusedEvent, ResetRefused, ScrapeBody, ScrapeRequest, SeriesInfo, SourceInfo, StoreInfo, TapFeed,
    Unavailable, UnknownGroup,
};
pub use doors::{DoorError, bind, tokens_of};
pub use ingest::EVENTS_BYTES_MAX;
pub use prometheus::parse_duration;
pub use routes::{LINES_BYTES_MAX, LINES_MAX};
pub use serve::{Listener, serve};
pub use server::Server;
pub use token::{Token, TokenError, Tokens};

#[cfg(test)]
pub(crate) mod tests;
