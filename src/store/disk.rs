//! Opening the file: creation that a crash cannot leave half done, locks, and errors with words.
//!
//! In: [`LedgerConfig`]. Out: an open redb database. Invariant: under the configured name there is either
//! nothing or a whole store (redb writes its magic number late, so a file that was being created when the
//! machine stopped could never be opened again).

use super::error::{Fault, StoreError, guard, quietly};
use super::memory::ChunkedMemory;
use redb::{Builder, Database, StorageBackend};
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// redb's page cache unless configured; its own default is 1 GiB.
pub const CACHE_BYTES: usize = 32 << 20;
/// What a store in memory may hold unless configured (H6).
pub const MEMORY_BYTES: usize = 256 << 20;

/// Makes a disk anew at each opening.
type OpenDisk = dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// Where a ledger is kept.
#[derive(Clone)]
pub enum LedgerPath {
    /// A file; its directory must exist.
    File(PathBuf),
    /// In memory, at most so many bytes.
    Memory(usize),
    /// Any disk, for fault injection. No other process can be kept out.
    Disk(Arc<OpenDisk>),
}

impl fmt::Debug for LedgerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl LedgerPath {
    /// Memory of at most so many bytes that lives as long as this value: a ledger that is opened on it again finds what
    /// was there, as after a crash.
    pub fn kept_memory(bytes_max: usize) -> LedgerPath {
        let memory = ChunkedMemory::new(bytes_max);
        LedgerPath::Disk(Arc::new(move || Ok(Box::new(memory.clone()))))
    }

    /// How messages name it.
    pub(super) fn name(&self) -> String {
        match self {
            LedgerPath::File(path) => path.display().to_string(),
            LedgerPath::Memory(_) => ":memory:".into(),
            LedgerPath::Disk(_) => ":disk:".into(),
        }
    }
}

/// How to open a ledger.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Where.
    pub path: LedgerPath,
    /// The width of a slice; must equal what the file holds.
    pub slice_nanos: i64,
    /// redb's page cache.
    pub cache_bytes: usize,
}

impl LedgerConfig {
    /// With the default cache.
    pub fn new(path: LedgerPath, slice_nanos: i64) -> LedgerConfig {
        LedgerConfig { path, slice_nanos, cache_bytes: CACHE_BYTES }
    }
}

/// The disk of one ledger over all its reopenings.
pub(super) struct Disk {
    path: LedgerPath,
    name: String,
    cache_bytes: usize,
    memory: Option<ChunkedMemory>,
    /// Device and number of the file that is open.
    opened: Cell<Option<(u64, u64)>>,
}

impl Disk {
    pub(super) fn new(config: &LedgerConfig) -> Disk {
        let memory = match &config.path {
            LedgerPath::Memory(bytes_max) => Some(ChunkedMemory::new(*bytes_max)),
            _ => None,
        };
        Disk {
            path: config.path.clone(),
            name: config.path.name(),
            cache_bytes: config.cache_bytes,
            memory,
            opened: Cell::new(None),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes on disk or in memory, as the file system allocates them.
    pub(super) fn allocated_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        match (&self.path, &self.memory) {
            (LedgerPath::File(path), _) => std::fs::metadata(path).map_or(0, |m| m.blocks() * 512),
            (_, Some(memory)) => memory.used_bytes(),
            _ => 0,
        }
    }

    /// False when the name leads to another file than the one that is open, or to none. Costs a system call.
    pub(super) fn is_in_place(&self) -> bool {
        match (&self.path, self.opened.get()) {
            (LedgerPath::File(path), Some(opened)) => identity(path).is_some_and(|now| now == opened),
            _ => true,
        }
    }

    /// The configured file, when it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.path {
            LedgerPath::File(path) => Some(path),
            _ => None,
        }
    }

    /// Opens what is there; a new file is first prepared whole by `initialize` under another name.
    /// Without `may_create` a file that has gone is an error, not a new store.
    pub(super) fn open(
        &self,
        may_create: bool,
        initialize: impl Fn(&Database) -> Result<(), Fault>,
    ) -> Result<Database, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let database = match (&self.path, &self.memory) {
            (LedgerPath::File(path), _) => {
                if may_create && !path.exists() {
                    self.create(path, &builder, &initialize)?;
                }
                // An existing empty file (`touch`, `mktemp`) is initialized in place.
                let is_empty = may_create && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0);
                guard(&self.name, || Ok(if is_empty { builder.create(path)? } else { builder.open(path)? }))
            }
            (_, Some(memory)) => guard(&self.name, || Ok(builder.create_with_backend(memory.clone())?)),
            (LedgerPath::Disk(open), None) => {
                let disk = open().map_err(|source| StoreError::from_io(&self.name, source))?;
                guard(&self.name, || Ok(builder.create_with_backend(AnyDisk(disk))?))
            }
            (LedgerPath::Memory(_), None) => unreachable!("a ledger in memory keeps its memory"),
        }?;
        match guard(&self.name, || initialize(&database)) {
            Ok(()) => {
                self.opened.set(self.file().and_then(identity));
                Ok(database)
            }
            Err(error) => {
                let_go(database);
                Err(error)
            }
        }
    }

    fn create(
        &self,
        path: &Path,
        builder: &Builder,
        initialize: &impl Fn(&Database) -> Result<(), Fault>,
    ) -> Result<(), StoreError> {
        let io = |source| StoreError::from_io(&self.name, source);
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            return Err(StoreError::NoDirectory { path: self.name.clone() });
        }
        let fresh = create_private(path).map_err(io)?;
        guard(&self.name, || {
            let database = builder.create(&fresh)?;
            initialize(&database)
        })?;
        File::open(&fresh).and_then(|file| file.sync_all()).map_err(io)?;
        rename_new(&fresh, path).map_err(io)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Creates an empty file beside `path`, readable by its owner only; what a crash left there goes.
pub(super) fn create_private(path: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    Ok(fresh)
}

/// Closes a database that was written as a whole, so that it is trimmed and need not be repaired.
pub(super) fn drop_quietly(database: Database) {
    let _ = quietly(|| drop(database));
}

/// Lets a store go as a crash would: nothing more is written to the file. Every commit leaves it ready to be opened, so
/// there is nothing to write; but redb's close commits once more, and over damaged pages that nobody has read yet it can
/// panic in a destructor, which ends the process. While a thread unwinds redb does not write: so this unwinds,
/// without a panic's message.
pub(super) fn let_go(database: Database) {
    let _ = catch_unwind(AssertUnwindSafe(move || {
        let _held = database;
        resume_unwind(Box::new("a database is let go"));
    }));
}

/// Renames, but never over a store that another process created meanwhile.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => std::fs::remove_file(from),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(from, to),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
struct AnyDisk(Box<dyn StorageBackend>);

impl StorageBackend for AnyDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
