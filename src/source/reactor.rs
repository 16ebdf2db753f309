//! The event loop of a thread that reads sockets.
//!
//! In: bound listeners and a [`Consumer`]. Out: every datagram and frame, handed to the consumer as borrowed
//! bytes, and a count of everything that could not be read. Owns: the epoll set, the connections, one
//! receive buffer. Invariants: no socket and no control message waits for more than one batch of another
//! socket; a batch reads the clock once; an idle connection costs nothing but its descriptor; when the
//! consumer says stop, the files go first and then every socket is read until it would block once (K7).

use super::connection::{Connections, Read};
use super::drops::udp_drops;
use super::listener::BoundListener;
use super::orders::{Inbox, Leaving};
use crate::channel::Waker;
use crate::event::{Clock, SourceIndex, Timestamp};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags, sockopt};
use std::sync::Arc;
use std::time::Duration;

/// Longest datagram, and frame, that is read: the most that UDP can carry, rounded up.
pub const PAYLOAD_BYTES_MAX: usize = crate::codec::framing::FRAME_BYTES_MAX;
/// Bytes that the half frames of all reactors of a pipeline may hold: 256 of the longest.
pub const PARTIAL_BYTES_MAX: usize = 16 << 20;
/// Datagrams, or bytes, that are read from one socket before the others and the control messages get their
/// turn: 256 KiB are about 3,400 lines, 0.2 ms of decoding.
const BATCH_DATAGRAMS: usize = 64;
const BATCH_BYTES: usize = 256 * 1024;
/// Datagrams up to so many bytes are handed over together, as soon as they come to as many: a decoder hides the wait for
/// memory behind other lines of the same payload, and a payload of one line has none.
const SHORT_BYTES: usize = 4 * 1024;
/// Under load the other sockets are asked for once in so many batches, because a call of `epoll_wait` costs
/// as much as three datagrams.
const BATCHES_BETWEEN_POLLS: u32 = 4;
/// Events taken from one `epoll_wait`.
const EVENTS_MAX: usize = 256;
/// Connections accepted from one listener in a turn.
const ACCEPT_BATCH: usize = 64;
/// How long a listener rests when the process is out of descriptors: the first time, and at most.
const ACCEPT_REST_FIRST: i64 = 10_000_000;
const ACCEPT_REST_MAX: i64 = 1_000_000_000;
/// How often the kernel is asked what it dropped.
const DROPS_EVERY: i64 = 1_000_000_000;
/// What is read from one socket after a stop: several times what the largest receive buffer holds, so that
/// only a client that keeps sending is cut.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
const DRAIN_NANOS_MAX: i64 = 1_000_000_000;
/// Longest sleep; a wrong wake-up costs less than a lost one.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Who receives what the reactor reads.
pub trait Consumer {
    /// One datagram, or several short ones each with a newline: one or more lines; at most [`PAYLOAD_BYTES_MAX`] bytes,
    /// never empty.
    fn datagram(&mut self, source: SourceIndex, reader: u16, payload: &[u8], arrival: Timestamp);
    /// One frame of a stream, or a run of whole lines; at most [`PAYLOAD_BYTES_MAX`] + 1 bytes, never empty.
    fn frame(&mut self, source: SourceIndex, reader: u16, payload: &[u8], arrival: Timestamp);
    /// So many datagrams, frames or lines were longer than the limit; they are lost whole.
    fn oversize(&mut self, source: SourceIndex, count: u64);
    /// A stream ended inside a frame.
    fn bad_frame(&mut self, source: SourceIndex);
    /// The kernel dropped so many datagrams before they could be read.
    fn kernel_drops(&mut self, source: SourceIndex, count: u64);
    /// So many connections were closed at once: too many are open, or no descriptor was left.
    fn refused_connections(&mut self, source: SourceIndex, count: u64);
    /// Called after every batch, when woken, and when the sleep it asked for is over.
    fn turn(&mut self, now: Timestamp, monotonic: i64) -> Turn;
}

/// What a consumer wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on; if nothing comes in, call again after so long.
    Sleep(Duration),
    /// Drain and return.
    Stop,
}

pub(super) struct DatagramSocket {
    pub(super) listener: BoundListener,
    pub(super) source: SourceIndex,
    /// It had something when last read, so it is read again without asking epoll.
    pub(super) is_hot: bool,
    /// It goes as soon as it would block.
    pub(super) is_leaving: bool,
}

pub(super) struct StreamListener {
    pub(super) listener: BoundListener,
    pub(super) source: SourceIndex,
    /// Monotonic time until which it is out of the epoll set.
    pub(super) rests_until: Option<i64>,
    /// How long the next rest lasts.
    rest: i64,
}

impl StreamListener {
    pub(super) fn new(listener: BoundListener, source: SourceIndex) -> StreamListener {
        StreamListener { listener, source, rests_until: None, rest: ACCEPT_REST_FIRST }
    }
}

/// What an epoll event belongs to, as its 64 bits: the kind above, the place below.
const WAKER: u64 = 0;
pub(super) const DATAGRAM: u64 = 1;
pub(super) const LISTENER: u64 = 2;
pub(super) const CONNECTION: u64 = 3;

pub(super) fn token(kind: u64, place: usize) -> epoll::EventData {
    epoll::EventData::new_u64(kind << 32 | place as u64)
}

/// The loop and everything it polls.
pub struct Reactor<C> {
    clock: C,
    reader: u16,
    pub(super) waker: Waker,
    pub(super) epoll: OwnedFd,
    pub(super) datagrams: Vec<DatagramSocket>,
    pub(super) listeners: Vec<StreamListener>,
    pub(super) connections: Connections,
    pub(super) inbox: Arc<Inbox>,
    pub(super) leaving: Leaving,
    /// Listeners that epoll reported and that have not been accepted from.
    to_accept: Vec<usize>,
    buffer: Box<[u8]>,
    /// Given up when the process is out of descriptors, so that a connection can be accepted and closed.
    reserve: Option<OwnedFd>,
    drops_checked: i64,
}

impl<C: Clock> Reactor<C> {
    /// A reactor that reads `listeners`. `reader` is handed through to the consumer; `waker` ends a sleep.
    ///
    /// # Errors
    /// When the system refuses a descriptor.
    pub fn new(
        clock: C,
        reader: u16,
        waker: Waker,
        listeners: Vec<(SourceIndex, BoundListener)>,
    ) -> std::io::Result<Reactor<C>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &waker, token(WAKER, 0), epoll::EventFlags::IN)?;
        let drops_checked = clock.monotonic();
        let mut reactor = Reactor {
            clock,
            reader,
            waker,
            epoll,
            datagrams: Vec::new(),
            listeners: Vec::new(),
            connections: Connections::default(),
            inbox: Arc::default(),
            leaving: Leaving::default(),
            to_accept: Vec::new(),
            buffer: vec![0; PAYLOAD_BYTES_MAX + SHORT_BYTES].into_boxed_slice(),
            reserve: reserve(),
            drops_checked,
        };
        for (source, listener) in listeners {
            reactor.open(source, listener)?;
        }
        Ok(reactor)
    }

    /// One of so many reactors of a pipeline: half frames of its connections may hold its share only.
    pub fn share_of(mut self, reactors: usize) -> Reactor<C> {
        self.connections.partial_bytes_max = (PARTIAL_BYTES_MAX / reactors.max(1)).max(4 * PAYLOAD_BYTES_MAX);
        self
    }

    /// Reads until the consumer says stop, then drains.
    ///
    /// # Errors
    /// When polling fails, which no client can cause.
    pub fn run(mut self, consumer: &mut impl Consumer) -> std::io::Result<()> {
        // Not a field: an event holds a pointer, and the reactor is made on another thread.
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut sleep = Duration::ZERO;
        let mut batches = 0u32;
        loop {
            let is_busy = self.is_busy();
            batches = if is_busy { batches.wrapping_add(1) } else { 0 };
            if batches.is_multiple_of(BATCHES_BETWEEN_POLLS) {
                self.poll(&mut events, if is_busy { Duration::ZERO } else { sleep })?;
            }
            let now = self.clock.wall();
            let monotonic = self.clock.monotonic();
            for at in 0..self.datagrams.len() {
                if self.datagrams[at].is_hot {
                    self.read_datagrams(at, now, BATCH_DATAGRAMS, BATCH_BYTES, consumer);
                }
            }
            self.accept_reported(monotonic, consumer);
            self.read_connections(now, consumer);
            self.wake_listeners(monotonic)?;
            self.follow_orders(monotonic, consumer);
            if monotonic - self.drops_checked >= DROPS_EVERY {
                self.drops_checked = monotonic;
                self.count_drops(consumer);
            }
            match consumer.turn(now, monotonic) {
                Turn::Sleep(wanted) => sleep = self.sleep(wanted, monotonic),
                Turn::Stop => break,
            }
        }
        self.drain(consumer);
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.datagrams.iter().any(|socket| socket.is_hot) || self.connections.has_ready()
    }

    /// The sleep that the consumer wants, cut to what the reactor itself has to do.
    fn sleep(&self, wanted: Duration, monotonic: i64) -> Duration {
        let mut sleep = wanted.min(SLEEP_MAX);
        let mut until =
            |moment: i64| sleep = sleep.min(Duration::from_nanos((moment - monotonic).max(0).unsigned_abs()));
        if self.datagrams.iter().any(|socket| socket.listener.inode().is_some()) {
            until(self.drops_checked + DROPS_EVERY);
        }
        self.listeners.iter().filter_map(|listener| listener.rests_until).for_each(until);
        sleep
    }

    fn poll(&mut self, events: &mut Vec<epoll::Event>, timeout: Duration) -> std::io::Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events.iter() {
            let data = event.data.u64();
            let place = (data & u64::from(u32::MAX)) as usize;
            match data >> 32 {
                DATAGRAM => self.datagrams[place].is_hot = true,
                LISTENER => self.to_accept.push(place),
                CONNECTION => self.connections.mark_ready(place),
                _ => self.waker.reset(),
            }
        }
        Ok(())
    }

    /// Reads one batch. The socket stays hot until a read finds nothing at once: a sender that keeps up with
    /// us fills the queue again while the consumer has its turn, and then `epoll_wait` was not needed.
    fn read_datagrams(
        &mut self,
        at: usize,
        arrival: Timestamp,
        count_max: usize,
        bytes_max: usize,
        consumer: &mut impl Consumer,
    ) {
        let socket = &mut self.datagrams[at];
        let (mut bytes, mut together) = (0, 0);
        for count in 0..count_max {
            let room = &mut self.buffer[together..together + PAYLOAD_BYTES_MAX];
            // With TRUNC the answer is the datagram's own length, also when the buffer is shorter.
            match rustix::net::recv(&socket.listener, room, RecvFlags::TRUNC) {
                Ok((_, length)) if length > PAYLOAD_BYTES_MAX => {
                    consumer.oversize(socket.source, 1);
                    bytes += PAYLOAD_BYTES_MAX;
                }
                Ok((_, 0)) => {}
                Ok((_, length)) => {
                    let end = together + length;
                    bytes += length;
                    if length > SHORT_BYTES {
                        if together > 0 {
                            consumer.datagram(socket.source, self.reader, &self.buffer[..together], arrival);
                        }
                        consumer.datagram(socket.source, self.reader, &self.buffer[together..end], arrival);
                        together = 0;
                    } else {
                        self.buffer[end] = b'\n';
                        together = end + usize::from(self.buffer[end - 1] != b'\n');
                    }
                    if together >= SHORT_BYTES {
                        consumer.datagram(socket.source, self.reader, &self.buffer[..together], arrival);
                        together = 0;
                    }
                }
                Err(Errno::INTR) => {}
                // AGAIN, or an error that an earlier send of somebody left on the socket.
                Err(_) => {
                    socket.is_hot = count > 0;
                    break;
                }
            }
            if bytes >= bytes_max {
                break;
            }
        }
        if together > 0 {
            consumer.datagram(socket.source, self.reader, &self.buffer[..together], arrival);
        }
    }

    fn read_connections(&mut self, arrival: Timestamp, consumer: &mut impl Consumer) {
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(place) = self.connections.next_ready()
        {
            match self.connections.read(place, &mut self.buffer[..PAYLOAD_BYTES_MAX], self.reader, arrival, consumer) {
                Read::Some(length) => {
                    bytes += length;
                    self.connections.go_on(place);
                }
                Read::Nothing => self.connections.rest(place),
                Read::Ended => self.connections.close(place),
            }
        }
    }

    fn accept_reported(&mut self, monotonic: i64, consumer: &mut impl Consumer) {
        while let Some(at) = self.to_accept.pop() {
            if let Accepted::Exhausted = self.accept(at, ACCEPT_BATCH, consumer) {
                let listener = &mut self.listeners[at];
                tracing::warn!(
                    listener = listener.listener.address(),
                    "out of file descriptors: connections are refused; raise the limit (LimitNOFILE, ulimit -n)"
                );
                let _ = epoll::delete(&self.epoll, &listener.listener);
                listener.rests_until = Some(monotonic.saturating_add(listener.rest));
                listener.rest = (listener.rest * 2).min(ACCEPT_REST_MAX);
            }
        }
    }

    pub(super) fn accept(&mut self, at: usize, count_max: usize, consumer: &mut impl Consumer) -> Accepted {
        let listener = &mut self.listeners[at];
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..count_max {
            match rustix::net::accept_with(&listener.listener, flags) {
                Ok(socket) => {
                    listener.rest = ACCEPT_REST_FIRST;
                    let is_tcp = matches!(listener.listener.spec(), super::listener::ListenerSpec::Tcp(_));
                    if is_tcp {
                        // A peer that vanished without a word is noticed after two hours.
                        let _ = sockopt::set_socket_keepalive(&socket, true);
                    }
                    let (source, number) = (listener.source, listener.listener.number());
                    if !self.connections.open(socket, source, number, is_tcp, &self.epoll) {
                        consumer.refused_connections(listener.source, 1);
                    }
                }
                Err(Errno::AGAIN) => return Accepted::All,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.reserve = None;
                    if rustix::net::accept_with(&listener.listener, flags).is_ok() {
                        consumer.refused_connections(listener.source, 1);
                    }
                    self.reserve = reserve();
                    return Accepted::Exhausted;
                }
                // The client went before it was accepted; the next may be fine.
                Err(_) => {}
            }
        }
        Accepted::Some
    }

    fn wake_listeners(&mut self, monotonic: i64) -> std::io::Result<()> {
        for (place, listener) in self.listeners.iter_mut().enumerate() {
            if listener.rests_until.is_some_and(|until| until <= monotonic) {
                listener.rests_until = None;
                let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
                epoll::add(&self.epoll, &listener.listener, token(LISTENER, place), flags)?;
            }
        }
        Ok(())
    }

    pub(super) fn count_drops(&self, consumer: &mut impl Consumer) {
        let inodes: Vec<u64> = self.datagrams.iter().filter_map(|socket| socket.listener.inode()).collect();
        if inodes.is_empty() {
            return;
        }
        for (inode, drops) in udp_drops(&inodes) {
            for socket in self.datagrams.iter().filter(|socket| socket.listener.inode() == Some(inode)) {
                let more = socket.listener.drops_since(drops);
                if more > 0 {
                    consumer.kernel_drops(socket.source, more);
                }
            }
        }
    }

    /// The end (K7): new clients find no file, what had been sent is read, and streams end at a frame.
    fn drain(mut self, consumer: &mut impl Consumer) {
        let deadline = self.clock.monotonic().saturating_add(DRAIN_NANOS_MAX);
        for socket in &self.datagrams {
            socket.listener.unlink();
        }
        for listener in &self.listeners {
            listener.listener.unlink();
        }
        for at in 0..self.datagrams.len() {
            let mut bytes = 0;
            self.datagrams[at].is_hot = true;
            while self.datagrams[at].is_hot && bytes < DRAIN_BYTES_MAX && self.clock.monotonic() < deadline {
                let arrival = self.clock.wall();
                self.read_datagrams(at, arrival, BATCH_DATAGRAMS, BATCH_BYTES, consumer);
                bytes += BATCH_BYTES;
            }
        }
        for at in 0..self.listeners.len() {
            while self.clock.monotonic() < deadline
                && let Accepted::Some = self.accept(at, ACCEPT_BATCH, consumer)
            {}
        }
        for place in self.connections.places() {
            let mut bytes = 0;
            while bytes < DRAIN_BYTES_MAX && self.clock.monotonic() < deadline {
                let arrival = self.clock.wall();
                match self.connections.read(
                    place,
                    &mut self.buffer[..PAYLOAD_BYTES_MAX],
                    self.reader,
                    arrival,
                    consumer,
                ) {
                    Read::Some(length) => bytes += length,
                    // An unfinished frame was never wholly sent, so it is no input and no error.
                    Read::Nothing | Read::Ended => break,
                }
            }
            self.connections.close(place);
        }
        self.count_drops(consumer);
    }
}

pub(super) enum Accepted {
    /// Nobody waits.
    All,
    /// There may be more.
    Some,
    /// No descriptor was left.
    Exhausted,
}

/// A descriptor to give up later.
fn reserve() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SystemClock;
    use crate::source::listener::{FileAccess, ListenerSpec, bind};
    use std::io::Write;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::path::PathBuf;

    /// Notes everything, and stops when there is enough of it or after ten seconds.
    #[derive(Default)]
    struct Recorder {
        inputs: Vec<String>,
        sources: Vec<u16>,
        oversize: u64,
        bad_frames: u64,
        kernel_drops: u64,
        refused: u64,
        turns: u64,
        first_turn: Option<i64>,
        /// Stop when so many inputs, oversize inputs, bad frames and refusals have come together.
        enough: u64,
    }

    impl Recorder {
        fn until(enough: u64) -> Recorder {
            Recorder { enough, ..Recorder::default() }
        }

        fn note(&mut self, source: SourceIndex, payload: &[u8]) {
            assert!(!payload.is_empty());
            self.sources.push(source.0);
            let text = String::from_utf8_lossy(payload);
            self.inputs.extend(text.lines().map(str::to_owned));
        }

        fn sorted(mut self) -> Vec<String> {
            self.inputs.sort_unstable();
            self.inputs
        }
    }

    impl Consumer for Recorder {
        fn datagram(&mut self, source: SourceIndex, reader: u16, payload: &[u8], _: Timestamp) {
            assert_eq!(reader, 7);
            self.note(source, payload);
        }

        fn frame(&mut self, source: SourceIndex, reader: u16, payload: &[u8], _: Timestamp) {
            assert_eq!(reader, 7);
            self.note(source, payload);
        }

        fn oversize(&mut self, _: SourceIndex, count: u64) {
            self.oversize += count;
        }

        fn bad_frame(&mut self, _: SourceIndex) {
            self.bad_frames += 1;
        }

        fn kernel_drops(&mut self, _: SourceIndex, count: u64) {
            self.kernel_drops += count;
        }

        fn refused_connections(&mut self, _: SourceIndex, count: u64) {
            self.refused += count;
        }

        fn turn(&mut self, now: Timestamp, monotonic: i64) -> Turn {
            assert!(now.0 > 0);
            self.turns += 1;
            let first = *self.first_turn.get_or_insert(monotonic);
            let seen = self.inputs.len() as u64 + self.oversize + self.bad_frames + self.refused;
            if seen >= self.enough || monotonic - first > 10_000_000_000 {
                return Turn::Stop;
            }
            Turn::Sleep(Duration::from_millis(20))
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        reactor: Reactor<SystemClock>,
        waker: Waker,
        addresses: Vec<ListenerSpec>,
    }

    fn bench(specs: &[&str]) -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let any = || "127.0.0.1:0".parse().expect("an address");
        let listeners: Vec<_> = (1u16..)
            .zip(specs)
            .map(|(source, word)| {
                let spec = match *word {
                    "unixgram" => ListenerSpec::UnixDatagram(folder.path().join("gram")),
                    "unixstream" => ListenerSpec::UnixStream(folder.path().join("stream")),
                    "udp" => ListenerSpec::Udp(any()),
                    _ => ListenerSpec::Tcp(any()),
                };
                (SourceIndex(source), bind(&spec, &FileAccess::default()).expect("binds"))
            })
            .collect();
        let addresses = listeners.iter().map(|(_, listener)| listener.spec().clone()).collect();
        let waker = Waker::new().expect("a waker");
        let reactor = Reactor::new(SystemClock, 7, waker.clone(), listeners).expect("a reactor");
        Bench { folder, reactor, waker, addresses }
    }

    impl Bench {
        fn path(&self, at: usize) -> PathBuf {
            match &self.addresses[at] {
                ListenerSpec::UnixDatagram(path) | ListenerSpec::UnixStream(path) => path.clone(),
                other => panic!("{other} has no path"),
            }
        }

        fn port(&self, at: usize) -> std::net::SocketAddr {
            match &self.addresses[at] {
                ListenerSpec::Udp(address) | ListenerSpec::Tcp(address) => *address,
                other => panic!("{other} has no port"),
            }
        }

        fn run(self, enough: u64) -> Recorder {
            let mut recorder = Recorder::until(enough);
            self.reactor.run(&mut recorder).expect("runs");
            assert_eq!(std::fs::read_dir(self.folder.path()).expect("readable").count(), 0, "files are gone");
            recorder
        }
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_le_bytes()[..], payload].concat()
    }

    #[test]
    fn a_reactor_may_be_made_on_one_thread_and_run_on_another() {
        fn is_send<T: Send>(_: &T) {}
        is_send(&bench(&["unixgram", "udp"]).reactor);
    }

    #[test]
    fn every_kind_of_socket_delivers() {
        let bench = bench(&["unixgram", "unixstream", "udp", "tcp"]);
        let gram = UnixDatagram::unbound().expect("opens");
        gram.send_to(b"a:1|c\nb:1|c", bench.path(0)).expect("sent");
        gram.send_to(b"", bench.path(0)).expect("an empty datagram is no input");
        let mut prefixed = UnixStream::connect(bench.path(1)).expect("connects");
        prefixed.write_all(&[framed(b"c:1|c"), framed(b"d:1|c\n")].concat()).expect("sent");
        let mut text = UnixStream::connect(bench.path(1)).expect("connects");
        text.write_all(b"e:1|c\nf:1|c\n").expect("sent");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("opens");
        udp.send_to(b"g:1|c", bench.port(2)).expect("sent");
        let mut tcp = TcpStream::connect(bench.port(3)).expect("connects");
        tcp.write_all(b"h:1|c\n").expect("sent");
        let recorder = bench.run(8);
        assert_eq!((recorder.oversize, recorder.bad_frames, recorder.refused), (0, 0, 0));
        let mut sources = recorder.sources.clone();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources, [1, 2, 3, 4]);
        let expected = ["a:1|c", "b:1|c", "c:1|c", "d:1|c", "e:1|c", "f:1|c", "g:1|c", "h:1|c"];
        assert_eq!(recorder.sorted(), expected);
    }

    #[test]
    fn oversize_datagrams_are_counted_and_whole_ones_are_not_cut() {
        let bench = bench(&["unixgram", "udp"]);
        let (path, port) = (bench.path(0), bench.port(1));
        let recorder = std::thread::scope(|scope| {
            scope.spawn(move || {
                let gram = UnixDatagram::unbound().expect("opens");
                for length in [1, 1432, 8192, PAYLOAD_BYTES_MAX - 1, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1, 70_000] {
                    gram.send_to(&vec![b'x'; length], &path).expect("sent");
                }
                let udp = UdpSocket::bind("127.0.0.1:0").expect("opens");
                udp.send_to(&[b'y'; 65_507], port).expect("sent");
            });
            bench.run(8)
        });
        assert_eq!(recorder.oversize, 2);
        let mut lengths: Vec<_> = recorder.inputs.iter().map(String::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [1, 1432, 8192, 65_507, PAYLOAD_BYTES_MAX - 1, PAYLOAD_BYTES_MAX]);
    }

    #[test]
    fn short_datagrams_come_together_whole_and_in_order() {
        let bench = bench(&["unixgram"]);
        let path = bench.path(0);
        // Lines of all lengths around the limit, with and without a newline at the end, some with two lines.
        let lengths =
            [1, 7, 100, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 2 * SHORT_BYTES, PAYLOAD_BYTES_MAX - 1];
        let line = |n: usize| format!("{n}:{}", "x".repeat(lengths[n % 8].saturating_sub(5)));
        let expected: Vec<String> = (0..200).map(line).collect();
        let sent: Vec<String> = (0..200)
            .map(|n| match n % 5 {
                0 => format!("{}\n", line(n)),
                1 if n % 8 < 3 => format!("{}\n{}", line(n), line(n + 1)),
                2 if (n - 1) % 8 < 3 => String::new(),
                _ => line(n),
            })
            .filter(|text| !text.is_empty())
            .collect();
        let recorder = std::thread::scope(|scope| {
            scope.spawn(move || {
                let gram = UnixDatagram::unbound().expect("opens");
                sent.iter().for_each(|text| _ = gram.send_to(text.as_bytes(), &path).expect("sent"));
            });
            bench.run(200)
        });
        assert_eq!(recorder.oversize, 0);
        assert_eq!(recorder.inputs, expected);
    }

    #[test]
    fn partial_frames_are_resumed_and_broken_ones_counted() {
        let bench = bench(&["unixstream", "tcp"]);
        let (path, port) = (bench.path(0), bench.port(1));
        let recorder = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut dribble = UnixStream::connect(&path).expect("connects");
                for byte in [framed("tag:1|c|#k:ü".as_bytes()), framed(b"n:2|c")].concat() {
                    dribble.write_all(&[byte]).expect("sent");
                }
                let mut ended = UnixStream::connect(&path).expect("connects");
                ended.write_all(&framed(b"whole:1|c")).expect("sent");
                ended.write_all(&framed(b"cut:1|c")[..7]).expect("sent");
                drop(ended);
                let mut long = UnixStream::connect(&path).expect("connects");
                long.write_all(&200_000u32.to_le_bytes()).expect("a length that looks like text");
                long.write_all(b"\nlast:1|c").expect("text, then the end");
                drop(long);
                let mut over = UnixStream::connect(&path).expect("connects");
                over.write_all(&framed(b"first:1|c")).expect("sent");
                over.write_all(&(PAYLOAD_BYTES_MAX as u32 + 1).to_le_bytes()).expect("sent");
                let mut tcp = TcpStream::connect(port).expect("connects");
                tcp.write_all(b"no-newline:1|c").expect("sent");
                drop(tcp);
                // The one with the impossible length was closed by us.
                let closed = std::io::Read::read(&mut over, &mut [0; 1]);
                assert!(matches!(closed, Ok(0) | Err(_)));
            });
            bench.run(9)
        });
        assert_eq!((recorder.bad_frames, recorder.oversize), (1, 1));
        let inputs = recorder.sorted();
        for line in ["first:1|c", "last:1|c", "n:2|c", "no-newline:1|c", "tag:1|c|#k:ü", "whole:1|c"] {
            assert!(inputs.iter().any(|input| input == line), "{line} in {inputs:?}");
        }
        assert_eq!(inputs.len(), 7);
    }

    #[test]
    fn k7_stop_drains_what_was_queued() {
        let bench = bench(&["unixgram", "unixstream", "udp", "tcp"]);
        let gram = UnixDatagram::unbound().expect("opens");
        gram.set_nonblocking(true).expect("set");
        let mut queued = 0;
        while gram.send_to(b"gram:1|c", bench.path(0)).is_ok() && queued < 10_000 {
            queued += 1;
        }
        let udp = UdpSocket::bind("127.0.0.1:0").expect("opens");
        for _ in 0..200 {
            udp.send_to(b"udp:1|c", bench.port(2)).expect("sent");
        }
        let mut stream = UnixStream::connect(bench.path(1)).expect("connects");
        stream.write_all(&framed(b"stream:1|c").repeat(1000)).expect("sent");
        stream.write_all(&framed(b"never ended")[..9]).expect("sent");
        let mut tcp = TcpStream::connect(bench.port(3)).expect("connects");
        tcp.write_all("tcp:1|c\n".repeat(1000).as_bytes()).expect("sent");
        tcp.write_all(b"half:1").expect("sent");
        // Enough at once: the first turn already says stop.
        let recorder = bench.run(0);
        assert_eq!(recorder.turns, 1);
        assert_eq!((recorder.bad_frames, recorder.oversize), (0, 0));
        let count = |line: &str| recorder.inputs.iter().filter(|input| *input == line).count();
        assert_eq!(count("gram:1|c"), queued);
        assert!(queued > 0);
        assert_eq!(count("udp:1|c"), 200);
        assert_eq!(count("stream:1|c"), 1000);
        assert_eq!(count("tcp:1|c"), 1000);
        assert_eq!(recorder.inputs.len(), 2200 + queued);
    }

    #[test]
    fn a_thousand_connections() {
        let bench = bench(&["unixstream"]);
        let path = bench.path(0);
        let recorder = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut clients: Vec<_> = (0..1000).map(|_| UnixStream::connect(&path).expect("connects")).collect();
                for (n, client) in clients.iter_mut().enumerate() {
                    client.write_all(&framed(format!("m{n}:1|c").as_bytes())).expect("sent");
                }
                // Half of them go and as many come, so that places are used again.
                clients.truncate(500);
                for n in 0..500 {
                    let mut client = UnixStream::connect(&path).expect("connects");
                    client.write_all(format!("late{n}:1|c\n").as_bytes()).expect("sent");
                    clients.push(client);
                }
            });
            bench.run(1500)
        });
        assert_eq!((recorder.refused, recorder.bad_frames), (0, 0));
        let inputs = recorder.sorted();
        let mut expected: Vec<_> = (0..1000).map(|n| format!("m{n}:1|c")).collect();
        expected.extend((0..500).map(|n| format!("late{n}:1|c")));
        expected.sort_unstable();
        assert_eq!(inputs, expected);
    }

    #[test]
    fn connections_over_the_limit_are_closed_and_counted() {
        let mut bench = bench(&["unixstream"]);
        bench.reactor.connections.count_max = 3;
        let mut clients: Vec<_> = (0..5).map(|_| UnixStream::connect(bench.path(0)).expect("connects")).collect();
        for client in &mut clients {
            client.write_all(b"x:1|c\n").expect("sent");
        }
        let recorder = bench.run(5);
        assert_eq!((recorder.inputs.len(), recorder.refused), (3, 2));
    }

    #[test]
    fn half_frames_are_bounded_together_and_the_oldest_goes() {
        let mut bench = bench(&["unixstream"]);
        bench.reactor.connections.partial_bytes_max = 190_000;
        let path = bench.path(0);
        let recorder = std::thread::scope(|scope| {
            scope.spawn(move || {
                let half = framed(&[b'x'; 60_000]);
                let mut stalled = UnixStream::connect(&path).expect("connects");
                stalled.write_all(&half[..50_000]).expect("sent");
                // Others come and go on; the one that stalls is older than all of them.
                for _ in 0..40 {
                    std::thread::sleep(Duration::from_millis(2));
                    let mut client = UnixStream::connect(&path).expect("connects");
                    client.write_all(&half[..50_000]).expect("sent");
                    std::thread::sleep(Duration::from_millis(2));
                    client.write_all(&half[50_000..]).expect("sent");
                }
                let mut more: Vec<_> = (0..6).map(|_| UnixStream::connect(&path).expect("connects")).collect();
                for client in &mut more {
                    client.write_all(&half[..50_000]).expect("sent");
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Closed by us: its half frame was the oldest.
                let closed = std::io::Read::read(&mut stalled, &mut [0; 1]);
                assert!(matches!(closed, Ok(0) | Err(_)));
                let newest = more.last_mut().expect("six");
                newest.write_all(&half[50_000..]).expect("the newest goes on");
                std::thread::sleep(Duration::from_millis(50));
            });
            bench.run(41 + 2 * 4)
        });
        assert_eq!(recorder.inputs.len(), 41, "whole frames of all that go on");
        // Those that the end of the test cuts are half frames too.
        assert!(recorder.refused >= 4 && recorder.bad_frames >= recorder.refused, "{}", recorder.refused);
    }

    /// Stops when its flag is set; sleeps long.
    struct Flagged<'a> {
        stop: &'a std::sync::atomic::AtomicBool,
        noticed: Option<i64>,
        turns: u64,
    }

    impl Consumer for Flagged<'_> {
        fn datagram(&mut self, _: SourceIndex, _: u16, _: &[u8], _: Timestamp) {}
        fn frame(&mut self, _: SourceIndex, _: u16, _: &[u8], _: Timestamp) {}
        fn oversize(&mut self, _: SourceIndex, _: u64) {}
        fn bad_frame(&mut self, _: SourceIndex) {}
        fn kernel_drops(&mut self, _: SourceIndex, _: u64) {}
        fn refused_connections(&mut self, _: SourceIndex, _: u64) {}
        fn turn(&mut self, _: Timestamp, monotonic: i64) -> Turn {
            self.turns += 1;
            if self.stop.load(std::sync::atomic::Ordering::SeqCst) {
                self.noticed = Some(monotonic);
                return Turn::Stop;
            }
            Turn::Sleep(Duration::from_secs(30))
        }
    }

    #[test]
    fn a_waker_ends_the_sleep_at_once() {
        let bench = bench(&["unixgram"]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut consumer, waker) = (Flagged { stop: &stop, noticed: None, turns: 0 }, bench.waker.clone());
        let woken = std::thread::scope(|scope| {
            let woken = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                let woken = SystemClock.monotonic();
                stop.store(true, std::sync::atomic::Ordering::SeqCst);
                waker.wake();
                woken
            });
            bench.reactor.run(&mut consumer).expect("runs");
            woken.join().expect("ends")
        });
        let late = consumer.noticed.expect("stopped") - woken;
        assert!(late < 500_000_000, "{late} ns");
        assert!(consumer.turns <= 3, "it slept in between");
    }

    #[test]
    fn control_messages_are_seen_while_a_socket_is_flooded() {
        let bench = bench(&["unixgram"]);
        let path = bench.path(0);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut consumer, waker) = (Flagged { stop: &stop, noticed: None, turns: 0 }, bench.waker.clone());
        let ended = std::sync::atomic::AtomicBool::new(false);
        let woken = std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = UnixDatagram::unbound().expect("opens");
                while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                    let _ = client.send_to(b"x:1|c", &path);
                }
            });
            let woken = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                let woken = SystemClock.monotonic();
                stop.store(true, std::sync::atomic::Ordering::SeqCst);
                waker.wake();
                woken
            });
            bench.reactor.run(&mut consumer).expect("runs");
            ended.store(true, std::sync::atomic::Ordering::SeqCst);
            woken.join().expect("ends")
        });
        let late = consumer.noticed.expect("stopped") - woken;
        assert!(late < 500_000_000, "{late} ns");
    }

    #[test]
    fn kernel_drops_are_counted_once() {
        let bench = bench(&["udp"]);
        // So small a buffer that most of what follows is dropped before it is read.
        let listener = bench.reactor.datagrams[0].listener.clone();
        sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("set");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("opens");
        for _ in 0..100 {
            udp.send_to(&[b'x'; 1000], bench.port(0)).expect("sent");
        }
        let recorder = bench.run(0);
        assert!(recorder.kernel_drops > 0);
        assert_eq!(recorder.inputs.len() as u64 + recorder.kernel_drops, 100);
    }

    /// Run in a process of its own, because the limit is the process's.
    #[test]
    fn out_of_descriptors() {
        const CHILD: &str = "HYDROGRAPH_TEST_DESCRIPTORS";
        if std::env::var_os(CHILD).is_none() {
            let name = "source::reactor::tests::out_of_descriptors";
            let output = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", name, "--test-threads=1"])
                .env(CHILD, "1")
                .output()
                .expect("runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        let bench = bench(&["unixstream"]);
        let mut clients: Vec<_> = (0..20).map(|_| UnixStream::connect(bench.path(0)).expect("connects")).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.write_all(format!("m{n}:1|c\n").as_bytes()).expect("sent");
        }
        // Room for ten more descriptors.
        let open = std::fs::read_dir("/proc/self/fd").expect("readable").count() as u64 - 1;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let low = rustix::process::Rlimit { current: Some(open + 10), maximum: limit.maximum };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, low).expect("set");
        let mut recorder = Recorder::until(20);
        bench.reactor.run(&mut recorder).expect("runs");
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("set");
        assert_eq!(recorder.inputs.len() as u64 + recorder.refused, 20, "each was read or refused, and counted");
        assert!(recorder.inputs.len() >= 9 && recorder.refused >= 1, "{} refused", recorder.refused);
    }
}
