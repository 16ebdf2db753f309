//! A disk in memory that fails, and that forgets what was not synced.

use crate::store::tests::script::{Rng, SLICE_NANOS};
use crate::store::{LedgerConfig, LedgerPath};
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// What a reader sees.
    pub(crate) bytes: Vec<u8>,
    /// Every change since the disk was made.
    pub(crate) ops: Vec<Op>,
    /// Calls so far.
    pub(crate) calls: u64,
    /// This call, and `fail_for` - 1 after it, fail.
    pub(crate) fail_at: Option<u64>,
    pub(crate) fail_for: u64,
    pub(crate) fail_kind: Option<io::ErrorKind>,
    pub(crate) keep_ops: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(pub(crate) Arc<Mutex<Inner>>);

impl SimDisk {
    pub(crate) fn of(bytes: Vec<u8>) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Inner { bytes, ..Inner::default() })))
    }

    pub(crate) fn config(&self) -> LedgerConfig {
        let disk = self.clone();
        let open = move || Ok(Box::new(disk.clone()) as Box<dyn redb::StorageBackend>);
        LedgerConfig { cache_bytes: 1 << 20, ..LedgerConfig::new(LedgerPath::Disk(Arc::new(open)), SLICE_NANOS) }
    }

    fn call<T>(&self, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.0.lock().expect("tests do not panic under the lock");
        inner.calls += 1;
        if let Some(at) = inner.fail_at
            && (at..at + inner.fail_for).contains(&inner.calls)
        {
            return Err(inner.fail_kind.unwrap_or(io::ErrorKind::Other).into());
        }
        act(&mut inner)
    }

    fn change(&self, op: Op) -> io::Result<()> {
        self.call(|inner| {
            apply(&mut inner.bytes, &op);
            if inner.keep_ops {
                inner.ops.push(op);
            }
            Ok(())
        })
    }
}

pub(crate) fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => bytes[*offset as usize..][..data.len()].copy_from_slice(data),
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

/// What is left when power fails: everything synced, and of the rest any sectors of 512 bytes.
pub(crate) fn crash_image(durable: &[u8], pending: &[&Op], rng: &mut Rng) -> Vec<u8> {
    let mut image = durable.to_vec();
    // Sometimes nothing of what was pending, sometimes nearly all of it, in any order.
    let keep_of_8 = rng.below(9);
    for op in pending {
        match op {
            Op::Write(offset, data) => {
                for (sector, bytes) in data.chunks(512).enumerate() {
                    if rng.below(8) < keep_of_8 {
                        let at = *offset as usize + sector * 512;
                        if image.len() < at + bytes.len() {
                            image.resize(at + bytes.len(), 0);
                        }
                        image[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            Op::SetLen(len) => {
                if rng.below(8) < keep_of_8 {
                    image.resize(*len as usize, 0);
                }
            }
            Op::Sync => unreachable!("a sync ends what is pending"),
        }
    }
    image
}

impl redb::StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        self.call(|inner| Ok(inner.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.call(|inner| {
            let from = inner.bytes.get(offset as usize..).and_then(|bytes| bytes.get(..out.len()));
            out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(offset, data.to_vec()))
    }
}
