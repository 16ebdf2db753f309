//! The bodies of requests: read within limits, and what is not read is read away.
//!
//! In: requests. Out: whole bodies, or the answer that refuses one. Owns nothing. Invariant: a client that writes its
//! whole request before it reads gets the answer, also when the answer is that the body is too long: closing a
//! connection with unread bytes resets it, and the answer is lost. What is read away is bounded in bytes and time.

use super::routes::error;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Read away of one request at most: four times the longest body that is taken.
const DRAIN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// And for so long.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// The whole body, within limits of size and time.
pub(super) async fn body_within(request: Request, bytes_max: usize, patience: Duration) -> Result<Bytes, Response> {
    let too_long = || error(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {bytes_max} bytes a request"));
    let body = request.into_body();
    // Not even asked for: who waits to be told to send (`Expect: 100-continue`) is told not to.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(patience, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(problem)) => {
            let is_too_long = std::error::Error::source(&problem)
                .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
            Err(if is_too_long { too_long() } else { error(StatusCode::BAD_REQUEST, "the body ended early") })
        }
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
    }
}

/// Reads away what a handler left of its request's body.
pub(super) async fn drain(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(head, body)).await;
    }
    let asks_first = head.headers.contains_key(header::EXPECT);
    let shared = Arc::new(Mutex::new(Shared { body, is_asked_for: false, is_over: false }));
    let lent = Body::new(Lent(Arc::clone(&shared)));
    let answer = next.run(Request::from_parts(head, lent)).await;
    let is_coming = {
        let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        // The first look at the body makes the server ask for it, which nobody needs now.
        let is_asked_for = shared.is_asked_for || !asks_first;
        !shared.is_over && is_asked_for && shared.body.size_hint().lower() <= DRAIN_BYTES_MAX
    };
    if is_coming {
        let mut rest = Lent(shared);
        let read_away = async {
            let mut left = DRAIN_BYTES_MAX;
            while let Some(Ok(frame)) = rest.frame().await {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(less) = left.checked_sub(bytes) else { break };
                left = less;
            }
        };
        // What comes later than that is not waited for; the answer goes out either way.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, read_away).await;
    }
    answer
}

struct Shared {
    body: Body,
    is_asked_for: bool,
    is_over: bool,
}

/// A body that its handler may leave unread.
struct Lent(Arc<Mutex<Shared>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.is_asked_for = true;
        let frame = Pin::new(&mut shared.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || shared.body.is_end_stream() {
            shared.is_over = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}
