//! Connections: accept, limit, hand to the routes, end in time.
//!
//! In: bound listeners and a moment to stop. Out: nothing. Owns: the number of open connections. Invariants: a
//! client that is slow, silent or greedy costs one of [`CONNECTIONS_MAX`] places, and only until another needs it;
//! running out of descriptors delays new connections and ends none.

use super::connection::{ANSWERS_KIB_MAX, Asked, Connections, Entry, Patient, Way};
use super::doors::{Change, Changes, Gate};
use super::{Backend, Tokens, routes};
use crate::actor::Tasks;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// Open connections of all listeners. Each costs up to 16 KiB of header buffer: 8 MiB in all. One more closes the one
/// that waits longest without a request.
const CONNECTIONS_MAX: usize = 512;
/// Between requests; above Prometheus' usual interval of 15 s, so that its connections live on.
const IDLE_PATIENCE: Duration = Duration::from_secs(30);
/// Of one request; a browser or Prometheus sends less than 2 KiB.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// In one request.
const HEADERS_MAX: usize = 64;
/// For answers under way when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Between tries to accept while the process is out of descriptors: doubled from the first to the second.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound socket that HTTP is served on.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix stream socket and its file, which is removed when serving ends.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Listener {
    /// Binds TCP at `host:port`.
    ///
    /// # Errors
    /// When the address is taken, not ours or not an address.
    pub fn bind_tcp(address: &str) -> io::Result<Listener> {
        std::net::TcpListener::bind(address).map(Listener::Tcp)
    }

    /// Binds a Unix socket. A file that stands there is removed only if it is a socket that nobody answers.
    ///
    /// # Errors
    /// When something else stands there, somebody answers, or the folder does not allow it.
    pub fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket stands there"));
            }
            match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
            }
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// The file of a Unix socket.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Listener::Tcp(_) => None,
            Listener::Unix(_, path) => Some(path),
        }
    }

    /// Where a client finds it: `http://127.0.0.1:9911/` or `unixstream:/run/hydrograph/http.sock`.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn url(&self) -> io::Result<String> {
        match self {
            Listener::Tcp(listener) => Ok(format!("http://{}/", listener.local_addr()?)),
            Listener::Unix(_, path) => Ok(format!("unixstream:{}", path.display())),
        }
    }
}

/// Serves until `shutdown` is done, then lets answers under way finish for at most 2 s.
///
/// Needs a runtime with I/O and time; a current-thread runtime will do, since whatever renders or waits goes to its
/// blocking threads.
///
/// # Errors
/// When a listener cannot be registered with the runtime.
pub async fn serve(
    listeners: Vec<Listener>,
    backend: Arc<dyn Backend>,
    tokens: Tokens,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_changing(listeners, backend, Arc::new(Gate::new(tokens)), &Changes::default(), shutdown).await
}

/// As [`serve`], with tokens that may be others later, and listeners that come and go.
pub(super) async fn serve_changing(
    listeners: Vec<Listener>,
    backend: Arc<dyn Backend>,
    gate: Arc<Gate>,
    changes: &Changes,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let answers = Arc::new(Semaphore::new(ANSWERS_KIB_MAX));
    let mut house = House {
        router: routes::router(Arc::clone(&backend), gate, stopping, Arc::clone(&answers)),
        backend,
        connections: Arc::new(Connections::new(CONNECTIONS_MAX)),
        answers,
        doors: Tasks::new(),
        open: Vec::new(),
    };
    for listener in listeners {
        house.open(listener)?;
    }
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let changes = tokio::select! {
            () = &mut shutdown => break,
            changes = changes.next() => changes,
        };
        for change in changes {
            match change {
                Change::Open(listener) => {
                    if let Err(error) = house.open(listener) {
                        tracing::error!(%error, "a new http listener cannot be served");
                    }
                }
                Change::Close(url) => house.close(|door| door.url == url),
            }
        }
    }
    let _ = stop.send(true);
    house.close(|_| true);
    house.doors.finish(STOP_PATIENCE + Duration::from_millis(200)).await;
    Ok(())
}

/// What is served, and all connections.
struct House {
    router: axum::Router,
    backend: Arc<dyn Backend>,
    connections: Arc<Connections>,
    /// Room of long answers, in KiB.
    answers: Arc<Semaphore>,
    doors: Tasks,
    open: Vec<OpenDoor>,
}

/// A listener that is being accepted from.
struct OpenDoor {
    url: String,
    /// Of a Unix socket.
    file: Option<PathBuf>,
    /// True once it is to stop.
    stop: watch::Sender<bool>,
}

impl House {
    fn open(&mut self, listener: Listener) -> io::Result<()> {
        let (url, file) = (listener.url()?, listener.file().cloned());
        let mut way = Way { is_loopback: false };
        let door = match listener {
            Listener::Tcp(listener) => {
                way.is_loopback = listener.local_addr()?.ip().is_loopback();
                listener.set_nonblocking(true)?;
                Door::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                Door::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        };
        let (stop, stopping) = watch::channel(false);
        let room = Room {
            router: self.router.clone(),
            backend: Arc::clone(&self.backend),
            connections: Arc::clone(&self.connections),
            answers: Arc::clone(&self.answers),
            way,
            stopping,
        };
        self.doors.spawn(room.accept_all(door));
        self.open.push(OpenDoor { url, file, stop });
        Ok(())
    }

    /// Doors stop accepting; their connections end after the answer under way.
    fn close(&mut self, which: impl Fn(&OpenDoor) -> bool) {
        for door in self.open.extract_if(.., |door| which(door)) {
            if let Some(file) = &door.file {
                // Gone already is as good; anything else the next start will report.
                let _ = std::fs::remove_file(file);
            }
            // The receiver lives in the door; if it is gone there is nothing left to stop.
            let _ = door.stop.send(true);
        }
    }
}

/// A connection of either kind; one box a connection is nothing beside its buffers.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl Stream for tokio::net::TcpStream {}
impl Stream for tokio::net::UnixStream {}

/// A listener that the runtime knows.
enum Door {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Door {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Door::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting for more only delays them.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Door::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// What one listener needs.
#[derive(Clone)]
struct Room {
    router: axum::Router,
    backend: Arc<dyn Backend>,
    connections: Arc<Connections>,
    answers: Arc<Semaphore>,
    way: Way,
    stopping: watch::Receiver<bool>,
}

impl Room {
    /// Accepts until told to stop, then waits for its connections.
    async fn accept_all(mut self, door: Door) {
        let mut connections = Tasks::new();
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = tokio::select! {
                accepted = door.accept() => accepted,
                _ = self.stopping.changed() => break,
            };
            match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE.0;
                    let entry = tokio::select! {
                        entry = self.connections.enter(&self.backend) => Arc::new(entry),
                        _ = self.stopping.changed() => break,
                    };
                    connections.spawn(converse(stream, entry, self.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an http connection");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
        connections.finish(STOP_PATIENCE).await;
    }
}

/// One connection, from its first byte to its end.
async fn converse(stream: Box<dyn Stream>, entry: Arc<Entry>, room: Room) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_PATIENCE)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let Room { router, backend, answers, way, mut stopping, .. } = room;
    let stream = Patient::new(stream, Arc::clone(&entry), Arc::clone(&backend));
    let asked = Asked { routes: TowerToHyperService::new(router), entry: Arc::clone(&entry), way, answers, backend };
    let connection = http.serve_connection(TokioIo::new(stream), asked);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = entry.closed() => return,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that hang up or dribble are their own business.
        tracing::debug!(%error, "http connection ended early");
    }
}
