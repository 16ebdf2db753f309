//! What can go wrong with the file, split by what the caller can do about it.
//!
//! In: errors and panics of redb, rows that do not decode. Out: [`StoreError`]. Invariant: nothing that
//! redb or a damaged file does unwinds beyond [`guard`] (H3).

use crate::rule::RestoreError;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
            Corrupt { .. } | NotADatabase { .. } | NoDirectory { .. } | Rescaled { .. } => false,
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
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Fault::Store(error))) => Err(*error),
        Ok(Err(Fault::Corrupt(what))) => Err(StoreError::Corrupt { path: path.to_owned(), what }),
        Ok(Err(Fault::Redb(error))) => Err(from_redb(path, *error)),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(StoreError::Corrupt { path: path.to_owned(), what: format!("its structure is damaged ({said})") })
        }
    }
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
        redb::Error::Io(source) => StoreError::from_io(path, source),
        other => StoreError::Corrupt { path: owned, what: other.to_string() },
    }
}
