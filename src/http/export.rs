//! `GET /api/v1/export`: every point of the chosen series over a span, as long as the reader takes them.
//!
//! In: a query string. Out: a body in pieces. Owns: how many are written at once. Invariants: a piece waits for its reader
//! and nothing else does; a body that could not be written to its end breaks off, so that nobody takes it for whole.

use super::connection::Counted;
use super::prometheus::{Form, Problem};
use super::routes::{Desk, come_again};
use crate::actor::blocking;
use crate::channel::{Receiver, bounded};
use crate::codec::exposition::{
    CONTENT_TYPE_CSV, CONTENT_TYPE_INFLUX, CONTENT_TYPE_JSON, CONTENT_TYPE_NDJSON, CONTENT_TYPE_OPENMETRICS,
    CONTENT_TYPE_TEXT,
};
use crate::event::Timestamp;
use crate::pipeline::export::{ExportFormat, ExportRequest};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;

/// Exports at once: each holds one of the threads that render and wait, and what one read of the file takes.
pub(super) const EXPORTS_MAX: usize = 2;
/// Pieces that wait for the reader.
const PIECES_MAX: usize = 4;

/// The words of `?format=`.
const FORMATS: [(&str, ExportFormat, &str); 6] = [
    ("prometheus", ExportFormat::Prometheus, CONTENT_TYPE_TEXT),
    ("openmetrics", ExportFormat::OpenMetrics, CONTENT_TYPE_OPENMETRICS),
    ("json", ExportFormat::Json, CONTENT_TYPE_JSON),
    ("ndjson", ExportFormat::Ndjson, CONTENT_TYPE_NDJSON),
    ("csv", ExportFormat::Csv, CONTENT_TYPE_CSV),
    ("influx", ExportFormat::Influx, CONTENT_TYPE_INFLUX),
];

pub(super) async fn export(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let asked = match form.first("format") {
        "" => "prometheus",
        asked => asked,
    };
    let Some((_, format, content_type)) = FORMATS.into_iter().find(|(word, ..)| *word == asked) else {
        let words: Vec<&str> = FORMATS.iter().map(|(word, ..)| *word).collect();
        return Err(Problem::parameter("format", format_args!("formats are {}", words.join(", "))));
    };
    let start = form.needed_time("start")?;
    let end = form.time("end")?.unwrap_or(Timestamp(i64::MAX));
    if end < start {
        return Err(Problem::parameter("end", "end timestamp must not be before start time"));
    }
    let request = ExportRequest { format, selectors: form.all("match[]").map(str::to_owned).collect(), start, end };
    request.parsed().map_err(|words| Problem::parameter("match[]", words))?;
    let Ok(place) = desk.exports.clone().try_acquire_owned() else {
        return Ok(come_again("others are exporting; come again"));
    };
    let (give, pieces) = bounded::<Bytes>(PIECES_MAX);
    let (backend, stopping) = (Arc::clone(&desk.backend), desk.stopping.clone());
    let is_gone = Arc::new(AtomicBool::new(false));
    let is_over = {
        let is_gone = Arc::clone(&is_gone);
        move || is_gone.load(Ordering::Relaxed) || *stopping.borrow()
    };
    let work = blocking(move || {
        let _place = place;
        backend.export(&request, &is_over, &mut |piece| piece.is_empty() || give.send_blocking(piece.into()).is_ok())
    });
    let work = async move {
        match work.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(unanswered)) => Err(std::io::Error::other(unanswered.to_string())),
            Err(_) => Err(std::io::Error::other("the export failed")),
        }
    };
    let body =
        Body::from_stream(Pieces { work: Some(Box::pin(work)), next: Some(next(pieces)), failure: None, is_gone });
    let mut answer = body.into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A few pieces, whatever its length.
    answer.extensions_mut().insert(Counted::ELSEWHERE);
    Ok(answer)
}

type Work = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;
type Next = Pin<Box<dyn Future<Output = (Receiver<Bytes>, Option<Bytes>)> + Send>>;

/// Waits for the next piece.
fn next(pieces: Receiver<Bytes>) -> Next {
    Box::pin(async move {
        let piece = pieces.recv().await;
        (pieces, piece)
    })
}

/// Piece after piece, and at the end how the work ended.
struct Pieces {
    work: Option<Work>,
    /// `None` once all pieces are taken.
    next: Option<Next>,
    /// Said after the last piece.
    failure: Option<std::io::Error>,
    is_gone: Arc<AtomicBool>,
}

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        // The work begins when it is first looked at.
        if let Some(work) = &mut self.work
            && let Poll::Ready(outcome) = work.as_mut().poll(context)
        {
            self.work = None;
            self.failure = outcome.err();
        }
        if let Some(waiting) = &mut self.next {
            let (pieces, piece) = ready!(waiting.as_mut().poll(context));
            self.next = piece.is_some().then(|| next(pieces));
            if let Some(piece) = piece {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        // The last piece is no end before it is known how the work ended.
        match self.failure.take() {
            _ if self.work.is_some() => Poll::Pending,
            Some(problem) => {
                tracing::warn!(%problem, "an export broke off");
                Poll::Ready(Some(Err(problem)))
            }
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}
