//! `/api/v1/store`: figures of the store, a check of all of it, and a copy, while it runs.
//!
//! In: requests of `hydrograph store`. Out: JSON, or the copy's bytes. Owns: the copy's file, which has no name any more once
//! it is sent, so that nothing is left over. Invariant: one of them at a time, since each reads the whole file.

use super::connection::Counted;
use super::routes::{ANSWER_PATIENCE, Desk, come_again, error, is_cross_site, json_answer, off_thread};
use crate::actor::blocking;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;

/// Of one piece of a copy.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) async fn stats(State(desk): State<Desk>) -> Response {
    let backend = desk.backend;
    match off_thread(&desk.renders, ANSWER_PATIENCE, move || backend.store_stats()).await {
        Ok(Ok(stats)) => json_answer(StatusCode::OK, &stats),
        Ok(Err(reason)) => come_again(&reason),
        Err(answer) => answer,
    }
}

pub(super) async fn check(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a check is not asked for by another site's pages");
    }
    let Ok(place) = desk.upkeep.clone().try_acquire_owned() else {
        return come_again("the store is being read as a whole already");
    };
    let backend = desk.backend;
    let work = move || (backend.store_check(), place).0;
    match blocking(work).await {
        Ok(Ok(found)) => json_answer(StatusCode::OK, &found),
        Ok(Err(reason)) => error(StatusCode::INTERNAL_SERVER_ERROR, &reason),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the check could not be made; see the log"),
    }
}

pub(super) async fn backup(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a copy is not asked for by another site's pages");
    }
    let Ok(place) = desk.upkeep.clone().try_acquire_owned() else {
        return come_again("the store is being read as a whole already");
    };
    let backend = desk.backend;
    let file = match blocking(move || backend.store_copy()).await {
        Ok(Ok(file)) => file,
        Ok(Err(reason)) => return error(StatusCode::INTERNAL_SERVER_ERROR, &reason),
        Err(_) => return error(StatusCode::INTERNAL_SERVER_ERROR, "the copy could not be made; see the log"),
    };
    let length = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let copy = Copy { file, left: length, _place: place };
    let mut answer = Response::new(Body::from_stream(Pieces(Box::pin(copy.next()))));
    // It lies in a file, and one piece at a time in memory.
    answer.extensions_mut().insert(Counted::ELSEWHERE);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer
}

/// What is left of a copy.
struct Copy {
    file: File,
    left: u64,
    _place: tokio::sync::OwnedSemaphorePermit,
}

type NextPiece = Pin<Box<dyn Future<Output = Option<(Copy, std::io::Result<Bytes>)>> + Send>>;

impl Copy {
    async fn next(self) -> Option<(Copy, std::io::Result<Bytes>)> {
        if self.left == 0 {
            return None;
        }
        let read = blocking(move || {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(self.left).unwrap_or(PIECE_BYTES))];
            let read = (&self.file).read_exact(&mut piece);
            let left = if read.is_ok() { self.left - piece.len() as u64 } else { 0 };
            (Copy { left, ..self }, read.map(|()| Bytes::from(piece)))
        });
        // A runtime that ends: so does the answer, shorter than it said.
        read.await.ok()
    }
}

/// Piece after piece.
struct Pieces(NextPiece);

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.0 = Box::pin(std::future::ready(None));
                Poll::Ready(None)
            }
            Poll::Ready(Some((copy, piece))) => {
                self.0 = Box::pin(copy.next());
                Poll::Ready(Some(piece))
            }
        }
    }
}
