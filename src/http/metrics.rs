//! Current values over HTTP: which format a request means, and the body that the backend renders or shares.
//!
//! In: requests for `/metrics`, `/metrics/{group}`, `/metrics.json` and `/api/metrics`. Out: bodies with their
//! Content-Type, gzip when asked. Invariant: an unknown group or format is answered with the list of known ones.

use super::accept;
use super::backend::{Format, NoScrape, Refusal, ScrapeRequest, UnknownGroup};
use super::connection::Counted;
use super::routes::{ANSWER_PATIENCE, Desk, Pairs, come_again, error, json_answer, not_found, off_thread, text_of};
use crate::pipeline::WidgetError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The words of `/api/metrics?format=`.
const API_FORMATS: [(&str, Format); 6] = [
    ("prometheus", Format::Text),
    ("json", Format::ApiJson),
    ("csv", Format::Csv),
    ("influx", Format::Influx),
    ("openmetrics", Format::OpenMetrics),
    ("ndjson", Format::Ndjson),
];

/// `GET /metrics`
pub(super) async fn scrape_all(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    let format = accept::scrape_format(text_of(&headers, header::ACCEPT).as_deref());
    scrape(desk, format, None, query, &headers).await
}

/// `GET /metrics/{group}`
pub(super) async fn scrape_group(
    State(desk): State<Desk>,
    group: Result<Path<String>, PathRejection>,
    Query(query): Query<Pairs>,
    headers: HeaderMap,
) -> Response {
    let Ok(Path(group)) = group else { return not_found().await };
    let format = accept::scrape_format(text_of(&headers, header::ACCEPT).as_deref());
    scrape(desk, format, Some(group), query, &headers).await
}

/// `GET /metrics.json`
pub(super) async fn scrape_json(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    scrape(desk, Format::Json, None, query, &headers).await
}

/// `GET /api/metrics`: as `/metrics`, unless the query names a format.
pub(super) async fn api(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    let asked = query.iter().rev().find(|(key, _)| key == "format").map(|(_, value)| value.as_str());
    let format = match asked {
        None => accept::scrape_format(text_of(&headers, header::ACCEPT).as_deref()),
        Some(asked) => match API_FORMATS.iter().find(|(word, _)| *word == asked) {
            Some((_, format)) => *format,
            None => {
                let formats: Vec<&str> = API_FORMATS.iter().map(|(word, _)| *word).collect();
                return json_answer(StatusCode::BAD_REQUEST, &json!({"error": "unknown format", "formats": formats}));
            }
        },
    };
    scrape(desk, format, None, query, &headers).await
}

/// `GET /api/metrics/dashboard?widget=NAME&timeframe=HOURS`
pub(super) async fn dashboard(State(desk): State<Desk>, Query(query): Query<Pairs>) -> Response {
    let asked = |key: &str| query.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
    let name = asked("widget").unwrap_or_default();
    // What is no number is told the same as a number out of range.
    let hours = asked("timeframe").map(|text| text.parse().unwrap_or(f64::NAN));
    let backend = desk.backend;
    match off_thread(&desk.renders, ANSWER_PATIENCE, move || backend.widget(&name, hours)).await {
        Ok(Ok(data)) => json_answer(StatusCode::OK, &data),
        Ok(Err(error)) => {
            let status = match &error {
                WidgetError::Unknown { .. } | WidgetError::Timeframe { .. } => StatusCode::BAD_REQUEST,
                // The same request would meet the same bound again.
                WidgetError::TooMuch(_) => StatusCode::UNPROCESSABLE_ENTITY,
                WidgetError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            let mut answer = json!({"error": error.to_string()});
            if let WidgetError::Unknown { known } = error {
                answer["widgets"] = known.into();
            }
            json_answer(status, &answer)
        }
        Err(answer) => answer,
    }
}

async fn scrape(desk: Desk, format: Format, group: Option<String>, query: Pairs, headers: &HeaderMap) -> Response {
    let all = |wanted: &str| query.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value.clone()).collect();
    let (names, selectors) = (all("name[]"), all("match[]"));
    let gzip = accept::reads_gzip(text_of(headers, header::ACCEPT_ENCODING).as_deref());
    let request = ScrapeRequest { format, group, names, selectors, gzip };
    let patience = scrape_patience(headers);
    let backend = Arc::clone(&desk.backend);
    let body = match off_thread(&desk.renders, patience, move || backend.scrape(&request)).await {
        Ok(Ok(body)) => body,
        Ok(Err(NoScrape::UnknownGroup(UnknownGroup { known }))) => {
            let answer = json!({"error": "no such group", "groups": known});
            return json_answer(StatusCode::NOT_FOUND, &answer);
        }
        Ok(Err(NoScrape::NoRoom(reason))) => {
            desk.backend.note_refusal(Refusal::NoRoom);
            return come_again(&reason);
        }
        Ok(Err(NoScrape::Selector(reason))) => return error(StatusCode::BAD_REQUEST, &reason),
        Err(answer) => return answer,
    };
    let mut answer = Response::new(Body::new(Pieces { pieces: body.pieces, next: 0 }));
    // Whoever renders knows how many readers share the bytes.
    answer.extensions_mut().insert(Counted::ELSEWHERE);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(body.content_type));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if body.gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// A rendered body as hyper wants it, without a copy.
struct Pieces {
    pieces: [Arc<Vec<u8>>; 3],
    next: usize,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(piece) = self.pieces.get(self.next).map(Arc::clone) {
            self.next += 1;
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Shared(piece))))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces[self.next..].iter().all(|piece| piece.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces[self.next..].iter().map(|piece| piece.len() as u64).sum())
    }
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Prometheus says how long it waits; an answer after that is work for nobody.
fn scrape_patience(headers: &HeaderMap) -> Duration {
    let said = headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok()?.parse().ok());
    match said {
        Some(seconds) if seconds > 0.0 && seconds < ANSWER_PATIENCE.as_secs_f64() => Duration::from_secs_f64(seconds),
        _ => ANSWER_PATIENCE,
    }
}
