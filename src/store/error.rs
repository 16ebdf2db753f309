//! What can go wrong with the file, split by what the caller can do about it.
//!
//! In: errors and panics of redb, rows that do not decode. Out: [`StoreError`]. Invariant: nothing that
//! redb or a damaged file does unwinds beyond [`guard`] (H3).

use crate::rule::RestoreError;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file.
    #[error("the store {path} is in use by another process; stop it, or give this one another store.path")]
    Locked {
        /// The file.
        path: String,
    },
    /// Written by another version of hydrograph.
    #[error("the store {path} has format {found}, this version reads format {supported}; nothing was changed")]
    WrongVersion {
        /// The file.
        path: String,
        /// What the file says.
        found: u32,
        /// What this program reads and writes.
        supported: u32,
    },
    /// The width of a slice is fixed for the life of a file (R2).
    #[error(
        "the store {path} has slices of {} s, the pipeline asks for {} s; keep the old width or start a new file",
        *stored as f64 / 1e9,
        *asked as f64 / 1e9
    )]
    SliceMismatch {
        /// The file.
        path: String,
        /// Nanoseconds.
        stored: i64,
        /// Nanoseconds.
        asked: i64,
    },
    /// A metric is declared in another scale than its stored sums are counted in (R2).
    #[error("the store {path} cannot be used with this pipeline file: {source}")]
    Rescaled {
        /// The file.
        path: String,
        /// The metric and both scales.
        source: RestoreError,
    },
    /// A checksum, a count or a structure is wrong. Fail-stop: the file is left as it is.
    #[error(
        "the store {path} is corrupt: {what}; copy the file away before anything else, then restore a backup or start with an empty store"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        what: String,
    },
    /// Somebody deleted the file, or put another in its place, while it was in use. Fail-stop: what is committed from here
    /// on would be gone with the process, and a file that others put there is not written to.
    #[error(
        "the store {path} was deleted or replaced while it was in use, so nothing more is taken in; {rescue}; stop what removes it, put the file back, and start again"
    )]
    Displaced {
        /// Where it was.
        path: String,
        /// What became of its contents.
        rescue: String,
    },
    /// A file of something else.
    #[error("{path} is not a hydrograph store; nothing was changed")]
    NotADatabase {
        /// The file.
        path: String,
    },
    /// The directory does not exist.
    #[error("the directory of the store {path} does not exist")]
    NoDirectory {
        /// The file.
        path: String,
    },
    /// No permission, or a read-only file system.
    #[error("the store {path} cannot be written: {source}")]
    Denied {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No space, a quota, or a limit on file sizes. Nothing that was committed is lost.
    #[error("no space for the store {path}: {source}")]
    DiskFull {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Any other I/O error.
    #[error("i/o error in the store {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier call failed; the handle is not used again before it was opened anew (C4).
    #[error("the store {path} must be reopened after an earlier error")]
    Broken {
        /// The file.
        path: String,
    },
}

impl StoreError {
    /// True when reopening and trying again may help (C4); false means stop and say so.
    pub fn is_retryable(&self) -> bool {
        use StoreError::*;
        match self {
            Denied { .. } | DiskFull { .. } | Io { .. } | Broken { .. } => true,
            Locked { .. } | WrongVersion { .. } | SliceMismatch { .. } => false,
            Corrupt { .. } | Displaced { .. } | NotADatabase { .. } | NoDirectory { .. } | Rescaled { .. } => false,
        }
    }

    pub(super) fn from_io(path: &str, source: io::Error) -> StoreError {
        use io::ErrorKind::*;
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => StoreError::DiskFull { path, source },
            PermissionDenied | ReadOnlyFilesystem => StoreError::Denied { path, source },
            _ => StoreError::Io { path, source },
        }
    }
}

/// What a closure around redb may fail with; [`guard`] gives it the path.
#[derive(Debug)]
pub(super) enum Fault {
    Redb(Box<redb::Error>),
    Corrupt(String),
    Store(Box<StoreError>),
}

/// A fault of bytes that do not mean anything.
pub(super) fn corrupt(what: impl Display) -> Fault {
    Fault::Corrupt(what.to_string())
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(Box::new(error))
    }
}

impl From<crate::delta::part::Corrupt> for Fault {
    fn from(error: crate::delta::part::Corrupt) -> Fault {
        corrupt(error)
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault::Redb(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError,
    redb::SetDurabilityError
);

/// The only way into redb: a panic of its (H3: damaged files make it panic) becomes `Corrupt`.
pub(super) fn guard<T>(path: &str, call: impl FnOnce() -> Result<T, Fault>) -> Result<T, StoreError> {
    // Unwind safety: after any error the caller drops the handle and everything read through it.
    match quietly(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Fault::Store(error))) => Err(*error),
        Ok(Err(Fault::Corrupt(what))) => Err(StoreError::Corrupt { path: path.to_owned(), what }),
        Ok(Err(Fault::Redb(error))) => Err(from_redb(path, *error)),
        Err(said) => {
            Err(StoreError::Corrupt { path: path.to_owned(), what: format!("its structure is damaged ({said})") })
        }
    }
}

thread_local! {
    /// Calls of [`quietly`] that this thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    /// What the last panic in one of them said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs something that may panic over a damaged file, without the panic's own lines on the terminal: what it said is
/// returned instead. The process's panic hook is put behind one that is silent in these calls only.
pub(super) fn quietly<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // The hook cannot be changed while this thread unwinds; then it is installed by a later call.
    if !std::thread::panicking() {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let first = SAID.take();
                if INSIDE.get() == 0 || !first.is_empty() {
                    // A second one, while the first unwinds, ends the process: then both are told.
                    if !first.is_empty() {
                        eprintln!("{first}");
                    }
                    return before(panic);
                }
                let payload = panic.payload();
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
                SAID.set(format!("{text}{place}"));
            }));
        });
    }
    SAID.set(String::new());
    INSIDE.set(INSIDE.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(INSIDE.get() - 1);
    result.map_err(|_| SAID.take())
}

fn from_redb(path: &str, error: redb::Error) -> StoreError {
    let owned = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: owned },
        redb::Error::PreviousIo => StoreError::Broken { path: owned },
        // This is how redb says that the magic number at the start of the file is not its own.
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            StoreError::NotADatabase { path: owned }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt { path: owned, what: "the file ends before its contents do".to_owned() }
        }
        redb::Error::Io(source) => StoreError::from_io(path, source),
        other => StoreError::Corrupt { path: owned, what: other.to_string() },
    }
}
