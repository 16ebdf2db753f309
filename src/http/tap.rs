//! `GET /api/v1/tap`: what passes, as NDJSON that goes on until somebody ends it.
//!
//! In: a query string. Out: one JSON object a line: `open`, items, `left_out`, and `end`. Owns: the pace at which a tap is
//! looked at. Invariants: a reader that is slow, or does not read, holds up nothing but its own answer; reading a tap and
//! writing its lines is done off the runtime's thread.

use super::adapter::hint_of;
use super::backend::TapFeed;
use super::routes::{Desk, NDJSON, Pairs, error, is_cross_site, json_answer, off_thread};
use crate::actor::blocking;
use crate::event::RejectReason;
use crate::pipeline::Pipeline;
use crate::pipeline::tap::{Tap, TapError, TapLine, TapRequest};
use crate::shard::tap::TapKind;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::Stream;

/// Between two looks at a tap.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks without anything to say after which an empty line is sent, so that a reader that has gone is noticed: 10 s.
const LOOKS_IN_SILENCE: u32 = 100;
/// For opening a tap.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// When to try again if all places are taken, in seconds.
const RETRY_AFTER: &str = "5";

pub(super) async fn tap(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    // A page from elsewhere cannot read the answer, but it could take all places.
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a tap is not opened by another site's pages");
    }
    let request = match request_of(&query) {
        Ok(request) => request,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
    };
    let backend = desk.backend;
    match off_thread(&desk.renders, OPEN_PATIENCE, move || backend.tap(&request)).await {
        Ok(Ok(feed)) => {
            let headers = [(header::CONTENT_TYPE, NDJSON), (header::CACHE_CONTROL, "no-store")];
            let source = Turn { feed, stopping: desk.stopping, is_first: true, is_ended: false };
            (headers, Body::from_stream(Chunks(Box::pin(source.next())))).into_response()
        }
        Ok(Err(refused)) => refusal(&refused),
        Err(answer) => answer,
    }
}

fn refusal(refused: &TapError) -> Response {
    let text = refused.to_string();
    match refused {
        TapError::TooMany(_) => {
            ([(header::RETRY_AFTER, RETRY_AFTER)], error(StatusCode::TOO_MANY_REQUESTS, &text)).into_response()
        }
        TapError::NoEdge { known, .. } => json_answer(StatusCode::NOT_FOUND, &json!({"error": text, "edges": known})),
        TapError::Request(_) => error(StatusCode::BAD_REQUEST, &text),
    }
}

/// The request in a query string: `kind` and `edge` as often as wanted or with commas, `name`, `match` or `match[]`,
/// `limit`, `count`.
fn request_of(query: &[(String, String)]) -> Result<TapRequest, String> {
    let mut request = TapRequest::default();
    for (key, value) in query {
        let whole = |value: &str| value.parse().map_err(|_| format!("{key} is a whole number"));
        let words = || value.split(',').map(str::trim).filter(|word| !word.is_empty());
        match key.as_str() {
            "kind" => {
                for word in words() {
                    let kind = TapKind::ALL.into_iter().find(|kind| kind.as_str() == word);
                    let kinds = TapKind::ALL.map(TapKind::as_str).join(", ");
                    request.kinds.push(kind.ok_or_else(|| format!("unknown kind {word:?}; kinds are {kinds}"))?);
                }
            }
            "edge" => request.edges.extend(words().map(str::to_owned)),
            "name" => request.name = Some(value.clone()),
            "match" | "match[]" => request.selector = Some(value.clone()),
            "limit" => request.limit = u32::try_from(whole(value)?).unwrap_or(u32::MAX),
            "count" => request.count = Some(whole(value)?),
            _ => {
                return Err(format!("unknown parameter {key:?}; there are kind, edge, name, match, limit and count"));
            }
        }
    }
    Ok(request)
}

/// The answer between two chunks.
struct Turn {
    feed: Box<dyn TapFeed>,
    stopping: watch::Receiver<bool>,
    is_first: bool,
    is_ended: bool,
}

type NextChunk = Pin<Box<dyn Future<Output = Option<(Turn, Bytes)>> + Send>>;

impl Turn {
    /// Waits for something to say; `None` after the end.
    async fn next(mut self) -> Option<(Turn, Bytes)> {
        if self.is_ended {
            return None;
        }
        let mut silent = 0;
        loop {
            let is_stopping = if std::mem::take(&mut self.is_first) {
                *self.stopping.borrow()
            } else {
                // A sender that is gone means the same.
                tokio::time::timeout(LOOK_EVERY, self.stopping.wait_for(|is| *is)).await.is_ok()
            };
            let is_ended = is_stopping || self.feed.is_over();
            if !is_ended && self.feed.is_idle() {
                silent += 1;
                if silent == LOOKS_IN_SILENCE {
                    return Some((self, Bytes::from_static(b"\n")));
                }
                continue;
            }
            let mut feed = self.feed;
            let read = blocking(move || {
                let mut lines = if is_ended { feed.end("the instance stops") } else { feed.read() };
                let is_over = !is_ended && feed.is_over();
                if is_over {
                    lines.extend(feed.end(""));
                }
                (feed, ndjson(&lines), is_ended || is_over)
            });
            // Work that panicked, or a runtime that ends: so does the answer.
            let (feed, bytes, is_ended) = read.await.ok()?;
            self = Turn { feed, is_ended, ..self };
            if !bytes.is_empty() {
                return Some((self, bytes.into()));
            }
        }
    }
}

fn ndjson(lines: &[TapLine]) -> Vec<u8> {
    let mut body = Vec::with_capacity(lines.len().saturating_mul(192));
    for line in lines {
        serde_json::to_writer(&mut body, line).expect("strings and numbers always serialize into memory");
        body.push(b'\n');
    }
    body
}

/// Chunk after chunk.
struct Chunks(NextChunk);

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.0 = Box::pin(std::future::ready(None));
                Poll::Ready(None)
            }
            Poll::Ready(Some((turn, bytes))) => {
                self.0 = Box::pin(turn.next());
                Poll::Ready(Some(Ok(bytes)))
            }
        }
    }
}

/// A tap whose rejects say which part was wrong.
pub(super) struct Feed {
    tap: Tap,
    pipeline: Pipeline,
}

impl Feed {
    /// A tap of this pipeline.
    pub(super) fn new(tap: Tap, pipeline: Pipeline) -> Feed {
        Feed { tap, pipeline }
    }

    fn hinted(&self, mut lines: Vec<TapLine>) -> Vec<TapLine> {
        for line in &mut lines {
            if let TapLine::Reject { reason, hint, text, .. } = line
                && let Some(known) = RejectReason::ALL.iter().copied().find(|known| known.as_str() == reason)
                && known.hint() == hint
            {
                *hint = hint_of(&self.pipeline, known, text);
            }
        }
        lines
    }
}

impl TapFeed for Feed {
    fn is_idle(&self) -> bool {
        self.tap.is_idle()
    }

    fn is_over(&self) -> bool {
        self.tap.is_over()
    }

    fn read(&mut self) -> Vec<TapLine> {
        let lines = self.tap.read();
        self.hinted(lines)
    }

    fn end(&mut self, reason: &str) -> Vec<TapLine> {
        let lines = self.tap.end(reason);
        self.hinted(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<TapRequest, String> {
        let query: Vec<_> = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        request_of(&query)
    }

    #[test]
    fn the_query_string_is_read_or_refused() {
        assert_eq!(read(&[]), Ok(TapRequest::default()));
        let all = read(&[
            ("kind", "events,rejects"),
            ("kind", "deltas"),
            ("edge", "app*"),
            ("edge", "http, internal"),
            ("name", "checkout.*"),
            ("match[]", "{region=\"eu\"}"),
            ("limit", "7"),
            ("count", "3"),
        ]);
        let expected = TapRequest {
            kinds: vec![TapKind::Events, TapKind::Rejects, TapKind::Deltas],
            edges: vec!["app*".into(), "http".into(), "internal".into()],
            name: Some("checkout.*".into()),
            selector: Some("{region=\"eu\"}".into()),
            limit: 7,
            count: Some(3),
        };
        assert_eq!(all, Ok(expected));
        for (key, value, words) in [
            ("kind", "sample", "kinds are events, samples, deltas, rejects"),
            ("limit", "-1", "limit is a whole number"),
            ("count", "x", "count is a whole number"),
            ("since", "1h", "unknown parameter \"since\""),
        ] {
            assert!(read(&[(key, value)]).unwrap_err().contains(words), "{key}={value}");
        }
    }
}
