//! Load: the ways a client writes to a socket source, and a writer whose stream can be judged after a crash.
//!
//! In: an address. Out: bytes on a socket. Invariant: a write that returned has reached the kernel in order, so what a
//! server keeps of one writer is a prefix of what it wrote.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;

/// Where a client sends.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Gram(PathBuf),
    /// A Unix stream with length prefixes, as PyPI `datadog` writes.
    Framed(PathBuf),
    /// A Unix stream with newlines, as PyPI `statsd` writes.
    Lines(PathBuf),
    Udp(u16),
    Tcp(u16),
}

/// A connected client.
pub(crate) enum Client {
    Gram(UnixDatagram),
    Framed(UnixStream),
    Lines(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Target {
    pub(crate) fn connect(&self) -> io::Result<Client> {
        Ok(match self {
            Target::Gram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Client::Gram(socket)
            }
            Target::Framed(path) => Client::Framed(UnixStream::connect(path)?),
            Target::Lines(path) => Client::Lines(UnixStream::connect(path)?),
            Target::Udp(port) => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(("127.0.0.1", *port))?;
                Client::Udp(socket)
            }
            Target::Tcp(port) => Client::Tcp(TcpStream::connect(("127.0.0.1", *port))?),
        })
    }
}

impl Client {
    /// Sends whole lines (with their newlines) as one packet.
    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        match self {
            Client::Gram(socket) => socket.send(packet).map(drop),
            Client::Udp(socket) => socket.send(packet).map(drop),
            Client::Lines(socket) => socket.write_all(packet),
            Client::Tcp(socket) => socket.write_all(packet),
            Client::Framed(socket) => {
                let mut frame = (packet.len() as u32).to_le_bytes().to_vec();
                frame.extend_from_slice(packet);
                socket.write_all(&frame)
            }
        }
    }
}

impl Client {
    /// True when everything written has arrived at the receiver's end. Of TCP the sender's kernel may still hold some,
    /// also on loopback (Nagle, the receiver's window); everything else is there when the write returns.
    pub(crate) fn has_arrived(&self) -> bool {
        let Client::Tcp(socket) = self else { return true };
        let port = socket.local_addr().expect("a connected socket has an address").port();
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists its connections");
        // local_address rem_address st tx_queue:rx_queue, in hexadecimal, after a column of numbers.
        let unsent = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let own = fields.get(1)?.ends_with(&format!(":{port:04X}"));
            own.then(|| fields.get(4)?.split_once(':').map(|(unsent, _)| unsent.to_owned())).flatten()
        });
        unsent.is_some_and(|bytes| u64::from_str_radix(&bytes, 16) == Ok(0))
    }
}

/// Increments between two marks of a [`Writer`].
pub(crate) const CHUNK: u64 = 50;

/// Writes chunks `CHUNK × NAME_k:1|c`, `NAME_t:5|ms`, `NAME_mark:N|g` with N rising by one, over its whole life and over
/// every connection. Of one connection a server must keep a prefix; counter, timing and mark say which.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    pub(crate) target: Target,
    /// The number of the last chunk that was begun.
    pub(crate) mark: u64,
}

impl Writer {
    pub(crate) fn new(name: &'static str, target: Target) -> Writer {
        Writer { name, target, mark: 0 }
    }

    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        self.mark += 1;
        let mut chunk = format!("{}_k:1|c\n", self.name).repeat(CHUNK as usize).into_bytes();
        let _ = write!(chunk, "{0}_t:5|ms\n{0}_mark:{1}|g\n", self.name, self.mark);
        chunk
    }

    /// Writes until the server is gone or `stop` says so; answers how many chunks were written whole.
    pub(crate) fn run(&mut self, stop: impl Fn() -> bool) -> u64 {
        let Ok(mut client) = self.target.connect() else { return 0 };
        let mut written = 0;
        while !stop() {
            let chunk = self.chunk();
            if client.send(&chunk).is_err() {
                break;
            }
            written += 1;
        }
        written
    }
}

/// What is durable of one writer, as a scrape shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) increments: u64,
    pub(crate) timings: u64,
    pub(crate) mark: u64,
}

impl Kept {
    pub(crate) fn of(name: &str, scrape: &crate::harness::Scrape) -> Kept {
        let value = |name: String| scrape.value(&name, &[]).unwrap_or(0.0) as u64;
        Kept {
            increments: value(format!("{name}_k_total")),
            timings: value(format!("{name}_t_seconds_count")),
            mark: value(format!("{name}_mark")),
        }
    }

    /// True when going from `before` to `self` added a prefix of the chunks that began after `first`.
    pub(crate) fn is_prefix_after(self, before: Kept, first: u64) -> Result<(), String> {
        let chunks = if self.mark == before.mark { 0 } else { self.mark - first };
        let increments = self.increments.wrapping_sub(before.increments);
        let timings = self.timings.wrapping_sub(before.timings);
        let whole = chunks * CHUNK;
        let good = (whole..=whole + CHUNK).contains(&increments)
            && (timings == chunks || (timings == chunks + 1 && increments == whole + CHUNK));
        good.then_some(()).ok_or_else(|| format!("{before:?} → {self:?} is no prefix of what began after mark {first}"))
    }
}
