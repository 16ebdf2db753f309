//! The front door: HTTP on TCP and Unix sockets. Routes and negotiation only, no logic.
//!
//! In: bound [`Listener`]s, a [`Backend`] (the running pipeline as the routes see it), an optional
//! [`Token`]. Out: answers; every body has a Content-Type, every error is JSON.
//! Owns: connections and their limits. Invariants: nothing a client sends is shown unescaped; nothing that
//! renders or waits runs on the runtime's thread; without the token only the four liveness and readiness
//! routes answer.
//!
//! Reading order: [`backend`](self) (what the routes need), `accept` (which format), `token`, `routes`,
//! `ingest` (events in), `metrics`, `page`, `serve` (connections).

mod accept;
mod adapter;
mod backend;
mod ingest;
mod metrics;
mod page;
mod routes;
mod serve;
mod token;

pub use adapter::{Front, Server, laws_of, report_laws};
pub use backend::{
    Accepted, Backend, Component, ComponentState, EventsError, EventsTaken, Format, Health, HealthStatus, IndexData,
    Laws, LineOutcome, ListenerInfo, NoticeFields, Quantile, RecentItem, RecentKind, Refused, RefusedEvent, ScrapeBody,
    ScrapeRequest, SeriesInfo, SourceInfo, StoreInfo, Unavailable, UnknownGroup,
};
pub use ingest::EVENTS_BYTES_MAX;
pub use routes::LINES_BYTES_MAX;
pub use serve::{Listener, serve};
pub use token::{Token, TokenError};

#[cfg(test)]
pub(crate) mod tests;
