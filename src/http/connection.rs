//! Who has a connection, and how long a client may take over each part of it.
//!
//! In: accepted streams. Out: streams that end by themselves when their client is slow, and requests that say which
//! door they came through. Owns: the list of open connections and what each is doing. Invariants: at most
//! [`Connections::new`]'s number are open; when all are taken, the one that has waited longest without a request is
//! closed for a new one, and where all have requests, the one whose client has not taken its answer for longest; a
//! connection with a request that the server still works on is never closed, and [`SPARE`] more are let in for probes.

use super::routes::{come_again, is_probe};
use super::{Backend, Refusal};
use crate::pipeline::memory::ANSWERS_BYTES;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// For the whole header of a request, from its first byte, and for the first byte of a connection.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// An answer that a client takes no [`STALL_BYTES`] of in so long is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// 1.6 KB a second: slower than any network that a scrape crosses.
const STALL_BYTES: usize = 16 * 1024;
/// Answers up to this are not counted: as many as there are connections are 8 MiB.
const UNCOUNTED_BYTES: u64 = 16 * 1024;
/// Of the answers that are longer, and no body of a scrape (those are counted where they are shared), in KiB.
pub(super) const ANSWERS_KIB_MAX: usize = (ANSWERS_BYTES >> 10) as usize;

/// Connections beyond the number while all others have requests that the server works on: probes are answered, and
/// others are told to come again.
const SPARE: usize = 64;

/// What a connection is doing.
const IDLE: u8 = 0;
/// A request is being read, worked on or answered.
const SERVING: u8 = 1;
/// The whole answer is on its way to the client.
const SENDING: u8 = 2;

/// One open connection.
#[derive(Default)]
pub(super) struct Place {
    /// Beyond the number: for one request, and an answer that costs nothing.
    is_spare: bool,
    stage: AtomicU8,
    /// The client does not take what is written.
    is_stalled: AtomicBool,
    /// When the stage, or the stall, began, as a number that only grows.
    since: AtomicU64,
    /// Requests so far.
    served: AtomicU64,
    /// Told once, to make room.
    closing: Notify,
    /// Of the answer under way.
    room: Mutex<Option<OwnedSemaphorePermit>>,
}

struct Held {
    clock: u64,
    places: Vec<Arc<Place>>,
}

/// The open connections of all listeners.
pub(super) struct Connections {
    held: Mutex<Held>,
    /// Somebody left, or has no request any more.
    freed: Notify,
    count_max: usize,
}

impl Connections {
    pub(super) fn new(count_max: usize) -> Connections {
        Connections { held: Mutex::new(Held { clock: 0, places: Vec::new() }), freed: Notify::new(), count_max }
    }

    /// A place for a new connection, if need be that of one which nobody misses.
    pub(super) async fn enter(self: &Arc<Self>, backend: &Arc<dyn Backend>) -> Entry {
        loop {
            match self.try_enter(backend) {
                Some(entry) => return entry,
                None => self.freed.notified().await,
            }
        }
    }

    fn try_enter(self: &Arc<Self>, backend: &Arc<dyn Backend>) -> Option<Entry> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_spare = false;
        if held.places.len() >= self.count_max {
            let places = held.places.iter().enumerate();
            let of = |(at, place): (usize, &Arc<Place>)| Some((place.dispensable()?, at));
            match places.filter_map(of).min() {
                Some((_, at)) => {
                    held.places.swap_remove(at).closing.notify_one();
                    backend.note_refusal(Refusal::Crowded);
                }
                None if held.places.len() < self.count_max + SPARE => is_spare = true,
                None => return None,
            }
        }
        held.clock += 1;
        let place = Arc::new(Place { is_spare, since: AtomicU64::new(held.clock), ..Place::default() });
        held.places.push(Arc::clone(&place));
        Some(Entry { connections: Arc::clone(self), place })
    }

    fn tick(&self) -> u64 {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clock += 1;
        held.clock
    }

    fn leave(&self, place: &Arc<Place>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.places.retain(|other| !Arc::ptr_eq(other, place));
        drop(held);
        self.freed.notify_one();
    }
}

impl Place {
    /// How soon it may be closed for another, lowest first: those without a request, then those that do not read.
    fn dispensable(&self) -> Option<(u8, u64)> {
        let since = self.since.load(Ordering::Relaxed);
        match (self.stage.load(Ordering::Relaxed), self.is_stalled.load(Ordering::Relaxed)) {
            (IDLE, _) => Some((0, since)),
            (_, true) => Some((1, since)),
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == IDLE
    }
}

/// A place among the connections; dropping it leaves.
pub(super) struct Entry {
    connections: Arc<Connections>,
    place: Arc<Place>,
}

impl Entry {
    /// Ready when the place is needed for another.
    pub(super) async fn closed(&self) {
        self.place.closing.notified().await;
    }

    fn set_stage(&self, stage: u8) {
        self.place.since.store(self.connections.tick(), Ordering::Relaxed);
        self.place.stage.store(stage, Ordering::Relaxed);
        if stage == IDLE {
            self.connections.freed.notify_one();
        }
    }

    fn set_stalled(&self, is_stalled: bool) {
        if self.place.is_stalled.swap(is_stalled, Ordering::Relaxed) != is_stalled && is_stalled {
            self.place.since.store(self.connections.tick(), Ordering::Relaxed);
            self.connections.freed.notify_one();
        }
    }

    /// All that was written is with the kernel.
    fn flushed(&self) {
        self.set_stalled(false);
        if self.place.stage.load(Ordering::Relaxed) == SENDING {
            *self.place.room.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.set_stage(IDLE);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.leave(&self.place);
    }
}

/// A connection's stream with its patience.
pub(super) struct Patient<S> {
    stream: S,
    entry: Arc<Entry>,
    backend: Arc<dyn Backend>,
    /// Of the header that is coming, and after how many requests it began.
    header: Option<(u64, Pin<Box<Sleep>>)>,
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since the stall began.
    moved: usize,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, entry: Arc<Entry>, backend: Arc<dyn Backend>) -> Patient<S> {
        let header = Some((0, Box::pin(sleep(HEADER_PATIENCE))));
        Patient { stream, entry, backend, header, stall: None, moved: 0 }
    }

    /// Judges a write: the client may be slow, but not for ever.
    fn judge(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(wrote) = wrote {
            self.entry.set_stalled(false);
            self.moved += wrote.as_ref().copied().unwrap_or(0);
            if self.moved >= STALL_BYTES {
                self.stall = None;
            }
            return Poll::Ready(wrote);
        }
        self.entry.set_stalled(true);
        if self.stall.is_none() {
            self.moved = 0;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(WRITE_PATIENCE)));
        ready!(stall.as_mut().poll(context));
        self.backend.note_refusal(Refusal::Stalled);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let served = this.entry.place.served.load(Ordering::Relaxed);
        if !this.entry.place.is_idle() || this.header.as_ref().is_some_and(|(began, _)| *began != served) {
            this.header = None;
        }
        if !this.entry.place.is_idle() {
            return read;
        }
        match read {
            Poll::Ready(read) => {
                if read.is_ok() && buffer.filled().len() > before && this.header.is_none() {
                    this.header = Some((served, Box::pin(sleep(HEADER_PATIENCE))));
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                let Some((_, header)) = &mut this.header else { return Poll::Pending };
                ready!(header.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not say what it wants")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, wrote)
    }

    /// With it a long body is written from where it is; without it hyper would copy it.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.stall = None;
        self.entry.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// How a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Through a TCP listener that only this machine reaches.
    pub(super) is_loopback: bool,
}

/// Put on an answer whose bytes are counted elsewhere, or were before it was made; then with the room it holds.
#[derive(Clone)]
pub(super) struct Counted(Option<Arc<Mutex<Option<OwnedSemaphorePermit>>>>);

impl Counted {
    /// Counted elsewhere.
    pub(super) const ELSEWHERE: Counted = Counted(None);

    /// It holds this room until the client has it.
    pub(super) fn holding(room: OwnedSemaphorePermit) -> Counted {
        Counted(Some(Arc::new(Mutex::new(Some(room)))))
    }
}

/// The routes as one connection asks them.
pub(super) struct Asked {
    pub(super) routes: TowerToHyperService<axum::Router>,
    pub(super) entry: Arc<Entry>,
    pub(super) way: Way,
    pub(super) answers: Arc<Semaphore>,
    pub(super) backend: Arc<dyn Backend>,
}

impl Asked {
    /// Takes room for a long answer, or replaces it by one that says to come again.
    fn admit(entry: &Entry, answers: &Arc<Semaphore>, backend: &Arc<dyn Backend>, mut answer: Response) -> Response {
        let bytes = answer.body().size_hint().lower();
        let room = match answer.extensions_mut().remove::<Counted>() {
            Some(Counted(room)) => room.and_then(|room| room.lock().unwrap_or_else(PoisonError::into_inner).take()),
            None if bytes <= UNCOUNTED_BYTES => None,
            None => {
                let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
                match Arc::clone(answers).try_acquire_many_owned(kib) {
                    Ok(room) => Some(room),
                    Err(_) => {
                        backend.note_refusal(Refusal::NoRoom);
                        answer = come_again("too many long answers are on their way to slow readers");
                        None
                    }
                }
            }
        };
        *entry.place.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
        answer
    }
}

impl hyper::service::Service<Request<Incoming>> for Asked {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.entry.place.served.fetch_add(1, Ordering::Relaxed);
        self.entry.set_stage(SERVING);
        let under_way = UnderWay(Arc::clone(&self.entry));
        request.extensions_mut().insert(self.way);
        let (answers, backend) = (Arc::clone(&self.answers), Arc::clone(&self.backend));
        let is_spare = self.entry.place.is_spare;
        let answer = match is_spare && !is_probe(request.uri().path()) {
            true => None,
            false => Some(hyper::service::Service::call(&self.routes, request)),
        };
        Box::pin(async move {
            let mut answer = match answer {
                Some(answer) => answer.await?,
                None => {
                    backend.note_refusal(Refusal::Crowded);
                    come_again("too many requests at once")
                }
            };
            if is_spare {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let answer = Asked::admit(&under_way.0, &answers, &backend, answer);
            Ok(answer.map(|body| Body::new(Sent { body, _under_way: under_way })))
        })
    }
}

/// Lives until the answer's last byte was handed over to be written.
struct UnderWay(Arc<Entry>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set_stage(SENDING);
    }
}

/// A body that says when all of it was handed over.
struct Sent {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
