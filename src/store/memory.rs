//! The disk of `:memory:`: chunks that are allocated when they are written (H6).
//!
//! In: redb's page writes. Out: the same bytes. Owns: at most `bytes_max` of memory. Invariant: a chunk
//! that nobody wrote reads as zeros and costs nothing. redb's own backend is one vector that doubles and
//! is zero-filled: 244 MiB of rows took 538 MB.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

const CHUNK: usize = 64 * 1024;

/// Memory that outlives the handle, so that a ledger can be reopened.
#[derive(Clone, Debug)]
pub(super) struct ChunkedMemory {
    inner: Arc<Mutex<Chunks>>,
}

#[derive(Debug)]
struct Chunks {
    chunks: Vec<Option<Box<[u8]>>>,
    len: u64,
    used: usize,
    bytes_max: usize,
}

impl ChunkedMemory {
    pub(super) fn new(bytes_max: usize) -> ChunkedMemory {
        ChunkedMemory { inner: Arc::new(Mutex::new(Chunks { chunks: Vec::new(), len: 0, used: 0, bytes_max })) }
    }

    /// Bytes that are really allocated.
    pub(super) fn used_bytes(&self) -> u64 {
        self.lock().used as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `visit(chunk index, range in the chunk, range in the buffer)` for each chunk a span touches.
fn spans(offset: u64, len: usize, mut visit: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset as usize + done;
        let (chunk, start) = (at / CHUNK, at % CHUNK);
        let take = (CHUNK - start).min(len - done);
        visit(chunk, start..start + take, done..done + take);
        done += take;
    }
}

fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the memory")
}

impl redb::StorageBackend for ChunkedMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > inner.len) {
            return Err(out_of_range());
        }
        spans(offset, out.len(), |chunk, from, to| match &inner.chunks[chunk] {
            Some(bytes) => out[to].copy_from_slice(&bytes[from]),
            None => out[to].fill(0),
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let count = (len as usize).div_ceil(CHUNK);
        for chunk in count..inner.chunks.len() {
            if inner.chunks[chunk].is_some() {
                inner.used -= CHUNK;
            }
        }
        inner.chunks.resize_with(count, || None);
        let tail = len as usize % CHUNK;
        if len < inner.len
            && tail > 0
            && let Some(Some(last)) = inner.chunks.last_mut()
        {
            // What grows back later must read as zeros.
            last[tail..].fill(0);
        }
        inner.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > inner.len) {
            return Err(out_of_range());
        }
        let mut fresh = 0;
        spans(offset, data.len(), |chunk, _, _| fresh += usize::from(inner.chunks[chunk].is_none()) * CHUNK);
        if inner.used + fresh > inner.bytes_max {
            let what = format!("the store in memory is limited to {} bytes", inner.bytes_max);
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        inner.used += fresh;
        spans(offset, data.len(), |chunk, to, from| {
            let bytes = inner.chunks[chunk].get_or_insert_with(|| vec![0; CHUNK].into_boxed_slice());
            bytes[to].copy_from_slice(&data[from]);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend;

    #[test]
    fn reads_what_was_written_and_zeros_elsewhere() {
        let memory = ChunkedMemory::new(4 * CHUNK);
        memory.set_len(1 << 30).expect("growing is free");
        assert_eq!(memory.used_bytes(), 0);
        let data: Vec<u8> = (0..CHUNK + 100).map(|n| n as u8 | 1).collect();
        memory.write(CHUNK as u64 - 50, &data).expect("fits");
        let mut back = vec![9; CHUNK + 200];
        memory.read(CHUNK as u64 - 100, &mut back).expect("in range");
        assert!(back[..50].iter().all(|b| *b == 0) && back[50..CHUNK + 150] == data && back[CHUNK + 150..] == [0; 50]);
        assert_eq!(memory.used_bytes(), 3 * CHUNK as u64);
        memory.write(3 * CHUNK as u64, &[1; 10]).expect("the last chunk");
        let full = memory.write(10 * CHUNK as u64, &[1]).expect_err("the bound");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        memory.set_len(CHUNK as u64).expect("shrinks");
        memory.set_len(2 * CHUNK as u64).expect("grows");
        let mut back = vec![9; CHUNK];
        memory.read(CHUNK as u64, &mut back).expect("in range");
        assert!(back.iter().all(|b| *b == 0));
        assert!(memory.read(2 * CHUNK as u64 - 1, &mut [0; 2]).is_err());
    }
}
