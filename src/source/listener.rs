//! Binding the sockets that events come in on, and taking their files away again.
//!
//! In: a [`ListenerSpec`], file mode and group. Out: a [`BoundListener`]: a non-blocking descriptor, its
//! printable address and the line to paste into a client. Owns: the socket files and the lock beside each.
//! Invariants: a file is removed only if it is a socket, ours, and nobody answers on it, and only under the
//! lock `PATH.lock`; nothing but a socket is ever removed; at no moment is a socket file open to more people
//! than its final mode says.

use super::socket_file::{GroupError, Lock, SocketFile, group_id, remove_stale};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn` (4,096 by default).
const ACCEPT_BACKLOG: i32 = 4096;
/// What is asked for as the receive buffer of a UDP socket; without `CAP_NET_ADMIN` the kernel cuts it to
/// `net.core.rmem_max`. 16 MiB hold about a tenth of a second of 1,432-byte datagrams at 10 GBit/s.
const UDP_RECEIVE_BYTES: usize = 16 * 1024 * 1024;
/// Queue length of Unix datagram sockets below which fast clients lose datagrams before we see them.
pub const DATAGRAM_QUEUE_MIN: u32 = 256;

/// What to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerSpec {
    /// A Unix datagram socket at an absolute path.
    UnixDatagram(PathBuf),
    /// A Unix stream socket at an absolute path.
    UnixStream(PathBuf),
    /// A UDP socket; port 0 takes a free one.
    Udp(SocketAddr),
    /// A TCP socket; port 0 takes a free one.
    Tcp(SocketAddr),
}

impl ListenerSpec {
    /// True when connections are accepted on it.
    pub fn is_stream(&self) -> bool {
        matches!(self, ListenerSpec::UnixStream(_) | ListenerSpec::Tcp(_))
    }
}

impl fmt::Display for ListenerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenerSpec::UnixDatagram(path) => write!(f, "unixgram {}", path.display()),
            ListenerSpec::UnixStream(path) => write!(f, "unixstream {}", path.display()),
            ListenerSpec::Udp(address) => write!(f, "udp {address}"),
            ListenerSpec::Tcp(address) => write!(f, "tcp {address}"),
        }
    }
}

/// Who may use a socket file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccess {
    /// Permission bits of the socket file, such as `0o722`; in [0, 0o777].
    pub mode: u32,
    /// Name or number of the group that the file is given to; `None` leaves the process's own.
    pub group: Option<String>,
}

impl Default for FileAccess {
    fn default() -> FileAccess {
        FileAccess { mode: 0o722, group: None }
    }
}

/// Why a listener could not be bound. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A live process has the path.
    #[error("another process answers on {}: stop it, or give this one another path", path.display())]
    Answered {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else than a socket is there.
    #[error("{} is {what}, not a socket: it is left alone, remove it or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// A dead socket of somebody else is there.
    #[error("{} is a socket left behind by uid {owner}, and this process is uid {uid}: remove it", path.display())]
    ForeignSocket {
        /// The path.
        path: PathBuf,
        /// Who left it.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// The path does not fit into a socket address.
    #[error("{} has {} bytes, and a socket path has at most 107", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The group is unknown.
    #[error("cannot give {} to its group: {source}", path.display())]
    Group {
        /// The path.
        path: PathBuf,
        /// Why.
        source: GroupError,
    },
    /// A port is taken.
    #[error("{address} is in use by another process")]
    InUse {
        /// The listener.
        address: String,
    },
    /// A step failed in the system.
    #[error("cannot {step} {subject} as uid {uid}: {source}")]
    System {
        /// What was done.
        step: &'static str,
        /// The path or address.
        subject: String,
        /// Who we are.
        uid: u32,
        /// The system's answer.
        source: std::io::Error,
    },
}

pub(super) fn system(step: &'static str, subject: impl fmt::Display) -> impl FnOnce(Errno) -> BindError {
    let subject = subject.to_string();
    move |errno| BindError::System { step, subject, uid: uid(), source: errno.into() }
}

pub(super) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A socket that is bound and, for streams, listening.
///
/// A clone shares the socket and its file. The file goes when [`BoundListener::unlink`] is called, or with
/// the last clone.
#[derive(Clone, Debug)]
pub struct BoundListener {
    socket: Arc<OwnedFd>,
    /// With the actual port.
    spec: ListenerSpec,
    file: Option<Arc<SocketFile>>,
    /// UDP: the number of the socket in `/proc/net/udp`, and the drops that have been counted.
    udp: Option<Arc<(u64, AtomicU32)>>,
}

impl BoundListener {
    /// What it listens on, with the port that was actually taken.
    pub fn spec(&self) -> &ListenerSpec {
        &self.spec
    }

    /// The printable address: `unixgram /run/x.socket`, `udp 127.0.0.1:8125`.
    pub fn address(&self) -> String {
        self.spec.to_string()
    }

    /// The line to paste into the environment of a DogStatsD client.
    pub fn client_line(&self) -> String {
        match &self.spec {
            ListenerSpec::UnixDatagram(path) => format!("DD_DOGSTATSD_URL=unix://{}", path.display()),
            ListenerSpec::UnixStream(path) => format!("DD_DOGSTATSD_URL=unixstream://{}", path.display()),
            ListenerSpec::Udp(address) => format!("DD_DOGSTATSD_URL=udp://{}", reachable(*address)),
            // No DogStatsD client speaks TCP; this is what a person can try.
            ListenerSpec::Tcp(address) => {
                let address = reachable(*address);
                format!("echo 'example:1|c' | nc {} {}", address.ip(), address.port())
            }
        }
    }

    /// Bytes that the kernel keeps for the socket; `None` for Unix sockets, where the sender's count.
    pub fn receive_bytes(&self) -> Option<usize> {
        match self.spec {
            ListenerSpec::Udp(_) => sockopt::socket_recv_buffer_size(&self.socket).ok(),
            _ => None,
        }
    }

    /// The number of a UDP socket in `/proc/net/udp`.
    pub(super) fn inode(&self) -> Option<u64> {
        self.udp.as_ref().map(|udp| udp.0)
    }

    /// Of the kernel's drop counter, modulo 2^32, what nobody has counted yet: readers that share the socket
    /// count each drop once.
    pub(super) fn drops_since(&self, drops: u32) -> u64 {
        let Some(udp) = &self.udp else { return 0 };
        let counted = udp.1.load(Ordering::Acquire);
        let more = drops.wrapping_sub(counted);
        // More than half the range is an older reading than the one that was counted.
        let is_newer = more > 0 && more <= u32::MAX / 2;
        if is_newer && udp.1.compare_exchange(counted, drops, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            u64::from(more)
        } else {
            0
        }
    }

    /// Tells listeners of one process apart, clones of one not; a number may come again when the listener is gone.
    pub fn number(&self) -> usize {
        Arc::as_ptr(&self.socket) as usize
    }

    /// True for clones of one socket.
    pub fn is_same(&self, other: &BoundListener) -> bool {
        Arc::ptr_eq(&self.socket, &other.socket)
    }

    /// Gives the socket file to other people; a socket without a file has none to give.
    ///
    /// # Errors
    /// [`BindError`]; the mode may have changed and the group not.
    pub fn set_access(&self, access: &FileAccess) -> Result<(), BindError> {
        let (Some(file), ListenerSpec::UnixDatagram(path) | ListenerSpec::UnixStream(path)) = (&self.file, &self.spec)
        else {
            return Ok(());
        };
        // Without a group the file is the process's own again.
        let group = match &access.group {
            Some(name) => group_id(name).map_err(|source| BindError::Group { path: path.clone(), source })?,
            None => rustix::process::getegid().as_raw(),
        };
        file.set_access(access.mode & 0o777, Some(group))
    }

    /// Removes the socket file and its lock, once; what is queued can still be read.
    pub fn unlink(&self) {
        if let Some(file) = &self.file {
            file.unlink();
        }
    }
}

impl AsFd for BoundListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An address on which a client of this machine reaches a listener that may be bound to every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Binds a listener.
///
/// # Errors
/// [`BindError`], whose text says what to do.
pub fn bind(spec: &ListenerSpec, access: &FileAccess) -> Result<BoundListener, BindError> {
    match spec {
        ListenerSpec::UnixDatagram(path) => bind_unix(spec, path, SocketType::DGRAM, access),
        ListenerSpec::UnixStream(path) => bind_unix(spec, path, SocketType::STREAM, access),
        ListenerSpec::Udp(address) => bind_inet(spec, *address, SocketType::DGRAM),
        ListenerSpec::Tcp(address) => bind_inet(spec, *address, SocketType::STREAM),
    }
}

pub(super) fn socket(family: AddressFamily, kind: SocketType, name: &impl fmt::Display) -> Result<OwnedFd, BindError> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
        .map_err(system("open a socket for", name))
}

fn bind_inet(spec: &ListenerSpec, address: SocketAddr, kind: SocketType) -> Result<BoundListener, BindError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, kind, spec)?;
    if kind == SocketType::STREAM {
        // A restart must not wait for connections in TIME_WAIT. On UDP the option would let two processes
        // share a port without noticing.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(system("prepare", spec))?;
    } else if sockopt::set_socket_recv_buffer_size_force(&socket, UDP_RECEIVE_BYTES).is_err() {
        // Cut to what is allowed, so it cannot fail for its size.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, UDP_RECEIVE_BYTES);
    }
    rustix::net::bind(&socket, &address).map_err(|errno| match errno {
        Errno::ADDRINUSE => BindError::InUse { address: spec.to_string() },
        errno => system("bind", spec)(errno),
    })?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, ACCEPT_BACKLOG).map_err(|errno| match errno {
            Errno::ADDRINUSE => BindError::InUse { address: spec.to_string() },
            errno => system("listen on", spec)(errno),
        })?;
    }
    let actual = rustix::net::getsockname(&socket)
        .and_then(SocketAddr::try_from)
        .map_err(system("read the address of", spec))?;
    if kind == SocketType::STREAM {
        return Ok(BoundListener { socket: Arc::new(socket), spec: ListenerSpec::Tcp(actual), file: None, udp: None });
    }
    let inode = rustix::fs::fstat(&socket).map_err(system("look at", spec))?.st_ino;
    let udp = Some(Arc::new((inode, AtomicU32::new(0))));
    Ok(BoundListener { socket: Arc::new(socket), spec: ListenerSpec::Udp(actual), file: None, udp })
}

fn bind_unix(
    spec: &ListenerSpec,
    path: &Path,
    kind: SocketType,
    access: &FileAccess,
) -> Result<BoundListener, BindError> {
    let address = SocketAddrUnix::new(path).map_err(|_| BindError::PathTooLong { path: path.to_owned() })?;
    let group = match &access.group {
        Some(name) => {
            let found = group_id(name);
            Some(found.map_err(|source| BindError::Group { path: path.to_owned(), source })?)
        }
        None => None,
    };
    let lock = Lock::take(path)?;
    remove_stale(path, &address, kind)?;
    let socket = socket(AddressFamily::UNIX, kind, spec)?;
    // The mode of the unbound socket is what the new file starts with (less the umask): first without the
    // group's rights, because the file is not given to the right group yet.
    let mode = access.mode & 0o777;
    let first = if group.is_some() { mode & !0o070 } else { mode };
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(first)).map_err(system("prepare", path.display()))?;
    rustix::net::bind(&socket, &address).map_err(|errno| match errno {
        Errno::ADDRINUSE => BindError::Answered { path: path.to_owned() },
        errno => system("bind", path.display())(errno),
    })?;
    // From here on the file is ours, and goes when `file` is dropped on an error.
    let file = SocketFile::new(path, lock).map_err(system("find", path.display()))?;
    file.set_access(mode, group)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, ACCEPT_BACKLOG).map_err(system("listen on", path.display()))?;
    }
    Ok(BoundListener { socket: Arc::new(socket), spec: spec.clone(), file: Some(Arc::new(file)), udp: None })
}

/// How many datagrams the kernel queues on a Unix datagram socket made now (`net.unix.max_dgram_qlen`).
pub fn datagram_queue_length() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok()?.trim().parse().ok()
}

/// Warns, once in the life of the process, when Unix datagram clients will lose bursts before we see them.
/// Answers the length that was read.
pub fn warn_of_short_datagram_queue() -> Option<u32> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let length = datagram_queue_length();
    if let Some(length) = length
        && length < DATAGRAM_QUEUE_MIN
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "the kernel queues only {length} datagrams for a Unix socket, so bursts are lost in the client, where \
             nothing here can count them: set net.unix.max_dgram_qlen=512 and restart, or use the stream socket"
        );
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn gram(path: &Path) -> Result<BoundListener, BindError> {
        bind(&ListenerSpec::UnixDatagram(path.to_owned()), &FileAccess::default())
    }

    fn stream(path: &Path) -> Result<BoundListener, BindError> {
        bind(&ListenerSpec::UnixStream(path.to_owned()), &FileAccess::default())
    }

    #[test]
    fn a_socket_file_lives_as_long_as_its_listener() {
        let folder = folder();
        let path = folder.path().join("a.socket");
        let lock = folder.path().join("a.socket.lock");
        let listener = gram(&path).expect("binds");
        assert!(path.metadata().expect("there").file_type().is_socket() && lock.exists());
        assert_eq!(listener.address(), format!("unixgram {}", path.display()));
        assert_eq!(listener.client_line(), format!("DD_DOGSTATSD_URL=unix://{}", path.display()));
        let other = listener.clone();
        drop(listener);
        assert!(path.exists());
        other.unlink();
        assert!(!path.exists() && !lock.exists());
        // Somebody else's new socket at the same path stays when the last clone goes.
        let next = gram(&path).expect("binds again");
        drop(other);
        assert!(path.exists() && lock.exists());
        drop(next);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn stale_sockets_of_both_kinds_are_replaced() {
        let folder = folder();
        let path = folder.path().join("a.socket");
        for round in 0..50 {
            // Dropping a std socket leaves its file, as kill -9 does.
            if round % 2 == 0 {
                drop(UnixDatagram::bind(&path).expect("binds"));
            } else {
                drop(UnixListener::bind(&path).expect("binds"));
            }
            std::fs::write(folder.path().join("a.socket.lock"), "").expect("left behind too");
            let listener = if round % 3 == 0 { stream(&path) } else { gram(&path) };
            drop(listener.expect("replaces"));
        }
    }

    #[test]
    fn live_sockets_are_refused_by_name() {
        let folder = folder();
        let path = folder.path().join("a.socket");
        let foreign = UnixDatagram::bind(&path).expect("binds");
        for tried in [gram(&path), stream(&path)] {
            let error = tried.expect_err("somebody answers");
            assert!(matches!(error, BindError::Answered { .. }), "{error}");
            assert!(error.to_string().contains("another process answers on"), "{error}");
            assert!(error.to_string().contains("a.socket"), "{error}");
        }
        assert!(path.exists());
        drop(foreign);
        let listening = folder.path().join("b.socket");
        let _foreign = UnixListener::bind(&listening).expect("binds");
        assert!(matches!(stream(&listening), Err(BindError::Answered { .. })));
        assert!(matches!(gram(&listening), Err(BindError::Answered { .. })));
        assert!(UnixStream::connect(&listening).is_ok(), "still there");
        // Ours: the lock tells, before anything else is looked at.
        let ours = folder.path().join("c.socket");
        let first = gram(&ours).expect("binds");
        assert!(matches!(gram(&ours), Err(BindError::Answered { .. })));
        let client = UnixDatagram::unbound().expect("opens");
        assert!(client.send_to(b"x", &ours).is_ok(), "the first one is whole");
        drop(first);
    }

    #[test]
    fn nothing_but_a_socket_is_removed() {
        let folder = folder();
        let regular = folder.path().join("data");
        std::fs::write(&regular, "precious").expect("written");
        let link = folder.path().join("link");
        symlink(&regular, &link).expect("linked");
        let stale = folder.path().join("stale");
        drop(UnixDatagram::bind(&stale).expect("binds"));
        let link_to_stale = folder.path().join("link2");
        symlink(&stale, &link_to_stale).expect("linked");
        let directory = folder.path().join("directory");
        std::fs::create_dir(&directory).expect("made");
        for (path, what) in [
            (&regular, "a regular file"),
            (&link, "a symbolic link"),
            (&link_to_stale, "a symbolic link"),
            (&directory, "a directory"),
        ] {
            let error = gram(path).expect_err("left alone");
            assert!(error.to_string().contains(what), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&regular).expect("there"), "precious");
        assert!(link_to_stale.is_symlink() && stale.exists());
    }

    #[test]
    fn a_lock_that_is_a_symbolic_link_is_not_followed() {
        let folder = folder();
        symlink(folder.path().join("elsewhere"), folder.path().join("a.socket.lock")).expect("linked");
        let error = gram(&folder.path().join("a.socket")).expect_err("refused");
        assert!(error.to_string().contains("open the lock"), "{error}");
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn mode_and_group_are_the_wanted_ones_whatever_the_umask() {
        let folder = folder();
        for (name, mode) in [("a", 0o722), ("b", 0o777), ("c", 0o600), ("d", 0o660)] {
            let path = folder.path().join(name);
            let own = rustix::process::getegid().as_raw();
            let access = FileAccess { mode, group: Some(own.to_string()) };
            let listener = bind(&ListenerSpec::UnixStream(path.clone()), &access).expect("binds");
            let metadata = path.metadata().expect("there");
            assert_eq!(metadata.permissions().mode() & 0o7777, mode);
            assert_eq!(metadata.gid(), own);
            drop(listener);
        }
        if rustix::process::geteuid().is_root() {
            let path = folder.path().join("e");
            let access = FileAccess { mode: 0o720, group: Some("12345".into()) };
            let _listener = bind(&ListenerSpec::UnixDatagram(path.clone()), &access).expect("binds");
            let metadata = path.metadata().expect("there");
            assert_eq!((metadata.gid(), metadata.permissions().mode() & 0o7777), (12345, 0o720));
        }
        let access = FileAccess { mode: 0o722, group: Some("no-such-group".into()) };
        let error = bind(&ListenerSpec::UnixDatagram(folder.path().join("f")), &access).expect_err("unknown");
        assert!(error.to_string().contains("no-such-group"), "{error}");
    }

    #[test]
    fn paths_that_cannot_be_are_clear_errors() {
        let folder = folder();
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(gram(&long), Err(BindError::PathTooLong { .. })));
        let error = gram(&folder.path().join("missing/a.socket")).expect_err("no folder");
        let text = error.to_string();
        assert!(text.contains("missing/a.socket") && text.contains("as uid"), "{text}");
    }

    #[test]
    fn ports_are_found_and_refused() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let access = FileAccess::default();
        for (spec, word) in [(ListenerSpec::Udp(any), "udp"), (ListenerSpec::Tcp(any), "tcp")] {
            let listener = bind(&spec, &access).expect("binds");
            let address = listener.address();
            assert!(address.starts_with(&format!("{word} 127.0.0.1:")) && !address.ends_with(":0"), "{address}");
            let error = bind(listener.spec(), &access).expect_err("taken");
            assert_eq!(error.to_string(), format!("{address} is in use by another process"));
            assert_eq!(listener.receive_bytes().is_some(), word == "udp");
            assert!(listener.receive_bytes().is_none_or(|bytes| bytes >= 200_000));
        }
        let everywhere = bind(&ListenerSpec::Udp("0.0.0.0:0".parse().expect("an address")), &access).expect("binds");
        assert!(everywhere.client_line().starts_with("DD_DOGSTATSD_URL=udp://127.0.0.1:"));
    }

    #[test]
    fn of_many_at_once_one_gets_the_socket() {
        let folder = folder();
        let path = folder.path().join("a.socket");
        drop(UnixDatagram::bind(&path).expect("stale"));
        let barrier = std::sync::Barrier::new(8);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        gram(&path)
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().expect("ends")).collect()
        });
        assert_eq!(bound.iter().filter(|one| one.is_ok()).count(), 1);
        let client = UnixDatagram::unbound().expect("opens");
        assert!(client.send_to(b"x", &path).is_ok());
    }

    #[test]
    fn the_kernel_tells_its_queue_length() {
        assert!(datagram_queue_length().is_some_and(|length| length > 0));
        assert_eq!(warn_of_short_datagram_queue(), datagram_queue_length());
    }
}
