//! `generate`: sends prepared load to a socket as fast as asked, and counts exactly.
//!
//! In: where to, how much, what. Out: on stdout one line: events sent, lost, seconds, events a second.
//! Owns: one sending thread and its socket. Invariant: `sent + lost` is what `--events` asked for; what is counted
//! as sent was taken by the kernel.

use super::client::Client;
use super::load::{LineKind, Load, Ready, Shape};
use super::{Exit, show};
use crate::event::{Clock, SystemClock, Timestamp};
use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Largest datagram that UDP over IPv4 carries.
const PACKET_BYTES_MAX: usize = 65_507;
/// Sends between two looks at the clock when nothing paces them; at 1 µs a send the end is met within 0.1 ms.
const SENDS_BETWEEN_LOOKS: u32 = 64;
/// A wait below this is spun: sleeping takes at least 50 µs on Linux, and would turn an even pace into bursts.
const SPIN_NANOS_MAX: i64 = 80_000;
/// While a datagram socket is full, it is tried again after so long: less than a server needs for two datagrams,
/// and no call in between, because each would slow the server down.
const RETRY_NANOS: i64 = 3_000;
/// A socket that stays full for longer is waited for asleep. Before that, falling asleep would cost more than the
/// whole queue holds: a wake-up takes 50 µs and more, ten datagrams 60.
const RETRIES_MAX: u32 = 100;
/// 512 datagrams of 8 KiB.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// Between two lines of progress.
const PROGRESS_NANOS: i64 = 200_000_000;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Generate {
    /// unixgram:PATH, unixstream:PATH, udp:HOST:PORT or tcp:HOST:PORT; default: the running instance's datagram socket
    #[arg(long, value_name = "WHERE")]
    to: Option<Address>,
    /// How many events in all
    #[arg(long, value_parser = whole, value_name = "N")]
    events: Option<u64>,
    /// For how long, in seconds; 10 unless --events is given
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: Option<f64>,
    /// Events a second; 0 = as fast as possible
    #[arg(long, default_value = "0", value_parser = whole, value_name = "R")]
    rate: u64,
    /// Distinct series
    #[arg(long, default_value = "1000", value_parser = whole, value_name = "N")]
    series: u64,
    /// What the lines measure
    #[arg(long, value_enum, default_value_t = GenerateKind::Timing)]
    kind: GenerateKind,
    /// Bytes a datagram; 0 or 1 = one line a datagram
    #[arg(long, default_value = "8192", value_parser = whole, value_name = "BYTES")]
    packet: u64,
    /// Tags a line; the first three are region, host and code; typed events have none
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(0..=60), value_name = "N")]
    tags: u8,
    /// Lose what the socket does not take at once, as most clients do, instead of waiting
    #[arg(long)]
    nonblocking: bool,
    /// Of the values
    #[arg(long, default_value = "1", value_parser = whole, value_name = "N")]
    seed: u64,
    /// Print the last line as JSON
    #[arg(long)]
    json: bool,
}

/// What `--kind` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GenerateKind {
    Timing,
    Counter,
    Gauge,
    Set,
    Mixed,
    /// Typed events: JSON objects of 180 bytes with five fields
    Event,
}

impl GenerateKind {
    fn kinds(self) -> Vec<LineKind> {
        match self {
            GenerateKind::Timing => vec![LineKind::Timing],
            GenerateKind::Counter => vec![LineKind::Counter],
            GenerateKind::Gauge => vec![LineKind::Gauge],
            GenerateKind::Set => vec![LineKind::Set],
            GenerateKind::Mixed => LineKind::ALL.to_vec(),
            GenerateKind::Event => vec![LineKind::Event],
        }
    }
}

/// A whole number that may be grouped: `1_000_000`.
fn whole(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|_| "not a whole number".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(seconds),
        _ => Err("not a number of seconds".to_owned()),
    }
}

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unixgram(PathBuf),
    Unixstream(PathBuf),
    Udp(String),
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let path = || PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
        let address = match scheme {
            "unixgram" => Address::Unixgram(path()),
            "unixstream" => Address::Unixstream(path()),
            "udp" => Address::Udp(rest.to_owned()),
            "tcp" => Address::Tcp(rest.to_owned()),
            _ => return Err("expected unixgram:PATH, unixstream:PATH, udp:HOST:PORT or tcp:HOST:PORT".to_owned()),
        };
        let is_complete = match &address {
            Address::Unixgram(path) | Address::Unixstream(path) => !path.as_os_str().is_empty(),
            Address::Udp(host) | Address::Tcp(host) => {
                host.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            }
        };
        if is_complete { Ok(address) } else { Err(format!("{scheme}: lacks its address")) }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
            Address::Unixstream(path) => write!(f, "unixstream:{}", path.display()),
            Address::Udp(host) => write!(f, "udp:{host}"),
            Address::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

/// A connected socket.
enum Socket {
    Unixgram(UnixDatagram),
    Unixstream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    Lost,
}

impl Socket {
    fn connect(address: &Address) -> io::Result<Socket> {
        Ok(match address {
            Address::Unixgram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Socket::Unixgram(socket)
            }
            Address::Unixstream(path) => Socket::Unixstream(UnixStream::connect(path)?),
            Address::Udp(host) => {
                // The family of the local address has to be the receiver's.
                let receiver = std::net::ToSocketAddrs::to_socket_addrs(host)?.next();
                let receiver =
                    receiver.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no address for this host"))?;
                let socket = UdpSocket::bind(if receiver.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
                socket.connect(receiver)?;
                Socket::Udp(socket)
            }
            Address::Tcp(host) => Socket::Tcp(TcpStream::connect(host)?),
        })
    }

    /// Asks for room for a whole queue of datagrams: the kernel's default holds 13 of 8 KiB, whatever
    /// `net.unix.max_dgram_qlen` says, and a client that does not wait loses the next.
    fn widen(&self) {
        let asked = match self {
            Socket::Unixgram(socket) => sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES),
            Socket::Udp(socket) => sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES),
            Socket::Unixstream(_) | Socket::Tcp(_) => Ok(()),
        };
        // The kernel gives what net.core.wmem_max allows; less only means losses, which are counted.
        let _ = asked;
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Socket::Unixgram(socket) => socket.set_nonblocking(true),
            Socket::Udp(socket) => socket.set_nonblocking(true),
            // A stream blocks in its call: cut inside a frame it would be no stream any more.
            Socket::Unixstream(_) | Socket::Tcp(_) => Ok(()),
        }
    }

    /// Sends; waits for room unless told that the socket may lose.
    fn send(&mut self, packet: &[u8], may_lose: bool, clock: &impl Clock) -> io::Result<Sent> {
        let mut retries = 0;
        loop {
            let result = match self {
                Socket::Unixgram(socket) => socket.send(packet).map(drop),
                Socket::Udp(socket) => socket.send(packet).map(drop),
                Socket::Unixstream(socket) => socket.write_all(packet),
                Socket::Tcp(socket) => socket.write_all(packet),
            };
            let Err(error) = result else { return Ok(Sent::Taken) };
            let is_udp = matches!(self, Socket::Udp(_));
            return match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock if may_lose => Ok(Sent::Lost),
                ErrorKind::WouldBlock => {
                    retries += 1;
                    self.await_room(retries, clock)?;
                    continue;
                }
                // UDP reports here that an earlier datagram found nobody; this one was not sent either.
                ErrorKind::ConnectionRefused if is_udp => Ok(Sent::Lost),
                _ if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => Ok(Sent::Lost),
                _ => Err(error),
            };
        }
    }
}

impl Socket {
    /// Spins at first, then sleeps until the socket can be written to.
    fn await_room(&self, retries: u32, clock: &impl Clock) -> io::Result<()> {
        if retries < RETRIES_MAX {
            let until = clock.monotonic() + RETRY_NANOS;
            while clock.monotonic() < until {
                std::hint::spin_loop();
            }
            return Ok(());
        }
        let descriptor = match self {
            Socket::Unixgram(socket) => socket.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Unixstream(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        };
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    sent: u64,
    lost: u64,
    increments: u64,
    nanos: i64,
}

impl Totals {
    fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    fn per_second(&self) -> f64 {
        if self.nanos == 0 { 0.0 } else { self.sent as f64 / self.seconds() }
    }

    fn line(&self, has_counters: bool) -> String {
        let counters = if has_counters { format!(", counters add up to {}", self.increments) } else { String::new() };
        format!(
            "{} events sent, {} lost, {:.3} s, {:.0} events/s{counters}",
            self.sent,
            self.lost,
            self.seconds(),
            self.per_second()
        )
    }
}

impl Generate {
    /// Sends and prints.
    pub(super) fn run(&self, client: impl FnOnce() -> anyhow::Result<Client>) -> anyhow::Result<Exit> {
        let kinds = self.kind.kinds();
        if let Some(problem) = self.problem(&kinds) {
            eprintln!("hydrograph generate: {problem}");
            return Ok(Exit::Usage);
        }
        let address = match &self.to {
            Some(address) => address.clone(),
            None => find(&client()?)?,
        };
        if self.nonblocking && matches!(address, Address::Unixstream(_) | Address::Tcp(_)) {
            eprintln!("hydrograph generate: --nonblocking is for datagrams; a stream waits");
            return Ok(Exit::Usage);
        }
        let mut socket = Socket::connect(&address).with_context(|| format!("nobody listens at {address}"))?;
        socket.set_nonblocking()?;
        socket.widen();
        let has_counters = kinds.contains(&LineKind::Counter);
        let mut load = Load::prepare(&Shape {
            kinds,
            series: self.series,
            packet_bytes: (self.packet as usize).clamp(1, PACKET_BYTES_MAX),
            tags: usize::from(self.tags),
            is_framed: matches!(address, Address::Unixstream(_)),
            seed: self.seed,
        });
        eprintln!("sending to {address}");
        let totals =
            self.send_all(&mut load, &mut socket, &SystemClock).with_context(|| format!("cannot send to {address}"))?;
        self.report(&totals, has_counters)?;
        Ok(if totals.sent == 0 && totals.lost > 0 { Exit::Failed } else { Exit::Done })
    }

    /// What is wrong with the arguments together.
    fn problem(&self, kinds: &[LineKind]) -> Option<&'static str> {
        if self.series == 0 {
            Some("--series is at least 1")
        } else if self.series > 100_000_000 {
            Some("--series is at most 100000000: every line is prepared in memory")
        } else if self.tags == 0 && kinds != [LineKind::Event] && self.series > kinds.len() as u64 {
            Some("without tags there is one series a kind; give --tags")
        } else if self.packet > PACKET_BYTES_MAX as u64 {
            Some("--packet is at most 65507")
        } else {
            None
        }
    }

    fn send_all(&self, load: &mut Load, socket: &mut Socket, clock: &impl Clock) -> io::Result<Totals> {
        let events_max = self.events.unwrap_or(u64::MAX);
        let seconds = self.seconds.or(if self.events.is_none() { Some(10.0) } else { None });
        let nanos_max = seconds.map_or(i64::MAX, |seconds| (seconds * 1e9) as i64);
        let mut progress = Progress::new();
        let mut totals = Totals::default();
        let began = clock.monotonic();
        let has_times = load.has_times();
        let mut looks_in = 0;
        let mut next = 0;
        loop {
            let asked = totals.sent + totals.lost;
            if asked >= events_max {
                break;
            }
            if looks_in == 0 {
                totals.nanos = clock.monotonic() - began;
                if self.rate > 0 {
                    let due = (asked as f64 / self.rate as f64 * 1e9) as i64;
                    wait(clock, began, due.min(nanos_max));
                    totals.nanos = clock.monotonic() - began;
                }
                if totals.nanos >= nanos_max {
                    break;
                }
                progress.show(&totals);
                looks_in = if self.rate > 0 { 1 } else { SENDS_BETWEEN_LOOKS };
            }
            looks_in -= 1;
            let now = if has_times { clock.wall() } else { Timestamp(0) };
            let Ready { bytes, events, increments } = load.ready(next, events_max - asked, now);
            match socket.send(bytes, self.nonblocking, clock)? {
                Sent::Taken => {
                    totals.sent += events;
                    totals.increments += increments;
                }
                Sent::Lost => totals.lost += events,
            }
            next = if next + 1 == load.packet_count() { 0 } else { next + 1 };
        }
        totals.nanos = clock.monotonic() - began;
        progress.end();
        Ok(totals)
    }

    fn report(&self, totals: &Totals, has_counters: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let mut report = serde_json::json!({
                "events": totals.sent, "lost": totals.lost, "seconds": totals.seconds(), "events_per_second": totals.per_second(),
            });
            if has_counters {
                report["increments"] = totals.increments.into();
            }
            writeln!(out, "{report}")?;
        } else {
            writeln!(out, "{}", totals.line(has_counters))?;
        }
        Ok(())
    }
}

/// Waits until so long after the beginning; the last stretch without sleeping.
fn wait(clock: &impl Clock, began: i64, due: i64) {
    loop {
        let left = due - (clock.monotonic() - began);
        if left <= 0 {
            return;
        }
        if left > SPIN_NANOS_MAX {
            std::thread::sleep(Duration::from_nanos((left - SPIN_NANOS_MAX / 2) as u64));
        } else {
            std::hint::spin_loop();
        }
    }
}

/// One line on stderr that is written over, on a terminal only.
struct Progress {
    is_shown: bool,
    next: i64,
}

impl Progress {
    fn new() -> Progress {
        Progress { is_shown: io::stderr().is_terminal(), next: PROGRESS_NANOS }
    }

    fn show(&mut self, totals: &Totals) {
        if self.is_shown && totals.nanos >= self.next {
            self.next = totals.nanos + PROGRESS_NANOS;
            eprint!(
                "\r{:6.1} s  {:>14} events  {:8.2} M/s  {} lost ",
                totals.seconds(),
                totals.sent,
                totals.per_second() / 1e6,
                totals.lost
            );
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprint!("\r{:60}\r", "");
        }
    }
}

/// The datagram socket of the running instance: a Unix socket if it has one, else UDP.
fn find(client: &Client) -> anyhow::Result<Address> {
    let body = client.get("/", "application/json")?.expect_ok()?;
    let index: serde_json::Value = serde_json::from_slice(&body).context("the instance's index page is not JSON")?;
    let listeners = index["listeners"].as_array().map_or(&[][..], Vec::as_slice);
    for kind in ["unixgram", "udp"] {
        for listener in listeners {
            if listener["kind"] == kind && listener["skipped"].is_null() {
                let address = listener["address"].as_str().unwrap_or("");
                return format!("{kind}:{address}")
                    .parse()
                    .map_err(|problem: String| anyhow::anyhow!(show::foreign(&problem)));
            }
        }
    }
    bail!("the instance at {} listens on no datagram socket; say where with --to", client.target())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        generate: Generate,
    }

    fn parse(arguments: &[&str]) -> Result<Generate, clap::Error> {
        Arguments::try_parse_from([&["generate"], arguments].concat()).map(|arguments| arguments.generate)
    }

    #[test]
    fn addresses() {
        for text in ["unixgram:/run/x", "unixstream:x.sock", "udp:127.0.0.1:8125", "udp:[::1]:8125", "tcp:host:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unixgram:", "udp:", "udp:host", "udp:host:port", "kafka:x/y", "/run/x", "tcp::1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_and_their_limits() {
        let generate =
            parse(&["--events", "1_000_000", "--rate", "5_000", "--kind", "mixed", "--packet", "0"]).unwrap();
        assert_eq!((generate.events, generate.rate, generate.packet), (Some(1_000_000), 5000, 0));
        assert_eq!(generate.problem(&generate.kind.kinds()), None);
        for wrong in
            [&["--events", "-1"][..], &["--seconds", "0"], &["--kind", "x"], &["--tags", "61"], &["--to", "nowhere"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [&["--series", "0"][..], &["--tags", "0"], &["--packet", "65508"]] {
            let generate = parse(wrong).unwrap();
            assert!(generate.problem(&generate.kind.kinds()).is_some(), "{wrong:?}");
        }
    }

    /// The load that these arguments mean, for datagrams and plain streams.
    fn load_of(generate: &Generate) -> Load {
        Load::prepare(&Shape {
            kinds: generate.kind.kinds(),
            series: generate.series,
            packet_bytes: (generate.packet as usize).max(1),
            tags: usize::from(generate.tags),
            is_framed: false,
            seed: generate.seed,
        })
    }

    #[test]
    fn counts_are_those_of_the_bytes_that_arrive() {
        use std::io::Read;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        // The reader runs beside the sender: the whole does not fit into the socket's buffers.
        let (give, take) = std::sync::mpsc::channel();
        crate::actor::spawn("receiver", &crate::actor::Failures::new(), move || {
            let mut bytes = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
            give.send(bytes).unwrap();
        })
        .unwrap();
        let generate = parse(&["--events", "12345", "--kind", "counter", "--series", "321"]).unwrap();
        let mut socket = Socket::connect(&address).unwrap();
        let totals = generate.send_all(&mut load_of(&generate), &mut socket, &SystemClock).unwrap();
        drop(socket);
        assert_eq!((totals.sent, totals.lost), (12345, 0));
        let text = String::from_utf8(take.recv().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 12345);
        let value = |line: &str| line[line.find(':').unwrap() + 1..line.find('|').unwrap()].parse::<u64>().unwrap();
        assert_eq!(text.lines().map(value).sum::<u64>(), totals.increments);
        assert!(totals.line(true).ends_with(&format!(", counters add up to {}", totals.increments)));
    }

    #[test]
    fn the_running_instance_says_where_its_socket_is() {
        let served = crate::http::tests::Served::start(None);
        let client = Client::new(format!("http://{}", served.tcp).parse().unwrap(), None).unwrap();
        assert_eq!(find(&client).unwrap().to_string(), "unixgram:/run/dsd.socket");
    }

    #[test]
    fn nonblocking_losses_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dsd.socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut socket = Socket::connect(&Address::Unixgram(path)).unwrap();
        socket.set_nonblocking().unwrap();
        let arguments = ["--events", "100_000", "--packet", "1000", "--series", "100", "--nonblocking"];
        let generate = parse(&arguments).unwrap();
        let mut load = load_of(&generate);
        let totals = generate.send_all(&mut load, &mut socket, &SystemClock).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let mut received = 0;
        let mut buffer = [0; 2000];
        while let Ok(length) = receiver.recv(&mut buffer) {
            received += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        assert_eq!(received, totals.sent);
        assert_eq!(totals.sent + totals.lost, 100_000);
        assert!(totals.lost > 0);
    }

    #[test]
    fn paced_sending_keeps_its_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dsd.socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut socket = Socket::connect(&Address::Unixgram(path)).unwrap();
        let generate = parse(&["--seconds", "0.05", "--rate", "100", "--packet", "1", "--series", "1"]).unwrap();
        let mut load = load_of(&generate);
        let totals = generate.send_all(&mut load, &mut socket, &SystemClock).unwrap();
        assert_eq!(totals.sent, 5);
        assert!(totals.seconds() >= 0.05);
        drop(receiver);
    }
}
