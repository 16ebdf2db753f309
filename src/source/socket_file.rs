//! The files of Unix sockets: the lock beside each, who may use it, and what an ended process left behind.
//!
//! In: a path. Out: a [`SocketFile`] that goes with its owner. Owns: the file and `PATH.lock`. Invariants: a
//! file is removed only if it is a socket, ours, and nobody answers on it, and only under the lock; the lock
//! file is removed only by who holds it.

use super::listener::{BindError, socket, system, uid};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A lock file that its holder removes between our `open` and our `flock` is opened again so many times.
const LOCK_TRIES: usize = 16;

/// Removes what an ended process left at `path`, if it is nothing but that. Called under the lock.
pub(super) fn remove_stale(path: &Path, address: &SocketAddrUnix, kind: SocketType) -> Result<(), BindError> {
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(system("look at", path.display())(errno)),
    };
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => None,
        FileType::RegularFile => Some("a regular file"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Directory => Some("a directory"),
        _ => Some("a special file"),
    };
    if let Some(what) = what {
        return Err(BindError::NotASocket { path: path.to_owned(), what });
    }
    let probe = socket(AddressFamily::UNIX, kind, &path.display())?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {}
        // Gone between the two calls: its owner has just ended.
        Err(Errno::NOENT) => return Ok(()),
        // A connection, a full backlog, or a live socket of the other kind.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => {
            return Err(BindError::Answered { path: path.to_owned() });
        }
        Err(errno) => return Err(system("probe", path.display())(errno)),
    }
    if stat.st_uid != uid() {
        return Err(BindError::ForeignSocket { path: path.to_owned(), owner: stat.st_uid, uid: uid() });
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(system("remove the stale socket", path.display())(errno)),
    }
}

/// The lock that a process holds as long as it has the socket beside it.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: OwnedFd,
}

impl Lock {
    pub(super) fn take(socket: &Path) -> Result<Lock, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..LOCK_TRIES {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
                .map_err(system("open the lock", path.display()))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(BindError::Answered { path: socket.to_owned() }),
                Err(errno) => return Err(system("lock", path.display())(errno)),
            }
            let held = rustix::fs::fstat(&file).map_err(system("look at", path.display()))?;
            // Its last holder may have removed the file before we locked it; then the next process would
            // lock another one.
            if rustix::fs::lstat(&path).is_ok_and(|there| same_file(&there, &held)) {
                return Ok(Lock { path, file });
            }
        }
        Err(BindError::Answered { path: socket.to_owned() })
    }
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// A socket file that we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    lock: Lock,
    /// The file itself (`O_PATH`), whatever stands at its path by now.
    handle: OwnedFd,
    removed: AtomicBool,
}

impl SocketFile {
    pub(super) fn new(path: &Path, lock: Lock) -> Result<SocketFile, Errno> {
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(SocketFile { path: path.to_owned(), lock, handle, removed: AtomicBool::new(false) })
    }

    pub(super) fn set_access(&self, mode: u32, group: Option<u32>) -> Result<(), BindError> {
        if let Some(group) = group {
            let group = rustix::fs::Gid::from_raw(group);
            rustix::fs::chownat(&self.handle, "", None, Some(group), AtFlags::EMPTY_PATH)
                .map_err(system("give to its group", self.path.display()))?;
        }
        // By descriptor and not by path, so that nobody can slip another file under it.
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.handle));
        rustix::fs::chmodat(CWD, own, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(system("set the mode of", self.path.display()))
    }

    pub(super) fn unlink(&self) {
        if self.removed.swap(true, Ordering::AcqRel) {
            return;
        }
        let ours = rustix::fs::fstat(&self.handle).ok();
        let there = rustix::fs::lstat(&self.path).ok();
        if let (Some(ours), Some(there)) = (ours, there)
            && same_file(&ours, &there)
            && let Err(error) = rustix::fs::unlink(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "socket file not removed");
        }
        // Removed while still locked: see `Lock::take`. The lock itself ends with this value.
        let _ = rustix::fs::unlink(&self.lock.path);
        let _ = rustix::fs::flock(&self.lock.file, FlockOperation::Unlock);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Why a group was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No such name.
    #[error("no group \"{0}\" in /etc/group; the number of a group works too")]
    Unknown(String),
    /// `/etc/group` cannot be read.
    #[error("/etc/group: {0}")]
    Unreadable(String),
}

/// The number of a group given by name or number. Directory services (LDAP) are not asked: a number always
/// works.
///
/// # Errors
/// When the name is not in `/etc/group`.
pub(super) fn group_id(name: &str) -> Result<u32, GroupError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string("/etc/group").map_err(|error| GroupError::Unreadable(error.to_string()))?;
    find_group(&text, name).ok_or_else(|| GroupError::Unknown(name.to_owned()))
}

/// Lines are `name:password:number:members`.
fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number() {
        let text = "root:x:0:\nmetrics-readers:x:99:a\nmetrics:x:1001:a,b\n";
        assert_eq!(find_group(text, "metrics"), Some(1001));
        assert_eq!(find_group(text, "metric"), None);
        assert_eq!(group_id("4711"), Ok(4711));
        assert_eq!(group_id("no-such-group"), Err(GroupError::Unknown("no-such-group".into())));
    }
}
