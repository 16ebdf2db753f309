//! Connections: accept, limit, hand to the routes, end in time.
//!
//! In: bound listeners and a moment to stop. Out: nothing. Owns: the number of open connections and their
//! timeouts. Invariants: a client that is slow, silent or greedy costs one of [`CONNECTIONS_MAX`] places for
//! at most [`HEADER_PATIENCE`]; running out of descriptors delays new connections and ends none.

use super::{Backend, Token, routes};
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

/// Open connections of all listeners. Each costs up to 16 KiB of header buffer: 8 MiB in all. More wait in the
/// kernel's backlog.
const CONNECTIONS_MAX: usize = 512;
/// For the whole header of a request, and between requests; above Prometheus' usual interval of 15 s, so that its
/// connections live on.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);
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
    token: Option<Token>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = routes::router(backend, token);
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut doors = Tasks::new();
    let mut files = Vec::new();
    for listener in listeners {
        let room = Room { router: router.clone(), places: places.clone(), stopping: stopping.clone() };
        let door = match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Door::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener, path) => {
                listener.set_nonblocking(true)?;
                files.push(path);
                Door::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        };
        doors.spawn(room.accept_all(door));
    }
    shutdown.await;
    for path in files {
        // Gone already is as good; anything else the next start will report.
        let _ = std::fs::remove_file(path);
    }
    // Receivers live in the doors; if all are gone there is nothing left to stop.
    let _ = stop.send(true);
    doors.finish(STOP_PATIENCE + Duration::from_millis(200)).await;
    Ok(())
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
struct Room {
    router: axum::Router,
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Room {
    /// Accepts until told to stop, then waits for its connections.
    async fn accept_all(mut self, door: Door) {
        let mut connections = Tasks::new();
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let place = tokio::select! {
                place = self.places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
                _ = self.stopping.changed() => break,
            };
            let accepted = tokio::select! {
                accepted = door.accept() => accepted,
                _ = self.stopping.changed() => break,
            };
            match accepted {
                Ok(stream) => {
                    pause = ACCEPT_PAUSE.0;
                    let connection = converse(stream, self.router.clone(), self.stopping.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
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
async fn converse(stream: Box<dyn Stream>, router: axum::Router, mut stopping: watch::Receiver<bool>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
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
