//! Gzip of a body whose middle is cached: one member, compressed in segments.
//!
//! In: bytes of segments. Out: a gzip stream (RFC 1952). Each segment ends on a byte boundary with a sync flush and
//! refers to nothing before itself, so that a cached one can stand between fresh ones; several members
//! would be simpler, but some clients stop after the first.

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use std::io::Write;
use std::sync::Arc;

/// Magic, deflate, no flags, no time, fastest, unknown system.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 0xFF];
/// An empty final block.
const END: [u8; 2] = [3, 0];

/// A compressed segment.
pub(super) struct Segment {
    bytes: Arc<Vec<u8>>,
    crc: Crc,
}

impl Segment {
    /// Compresses; fast, because a scrape crosses a local network and is compressed at every commit.
    pub(super) fn new(bytes: &[u8]) -> Segment {
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 8 + 64), Compression::fast());
        encoder.write_all(bytes).and_then(|()| encoder.flush()).expect("writing to memory does not fail");
        let mut crc = Crc::new();
        crc.update(bytes);
        Segment { bytes: Arc::new(std::mem::take(encoder.get_mut())), crc }
    }

    /// What it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The compressed bytes, which may be shared.
    pub(super) fn into_bytes(self) -> Arc<Vec<u8>> {
        self.bytes
    }
}

/// One gzip member of three segments, in three pieces: the middle one is shared, not copied.
pub(super) fn join(head: &[u8], middle: &Segment, tail: &[u8]) -> [Arc<Vec<u8>>; 3] {
    let (head, tail) = (Segment::new(head), Segment::new(tail));
    let mut crc = Crc::new();
    for segment in [&head, middle, &tail] {
        crc.combine(&segment.crc);
    }
    let first = [&HEADER[..], &head.bytes].concat();
    let last = [&tail.bytes[..], &END, &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat();
    [Arc::new(first), Arc::clone(&middle.bytes), Arc::new(last)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn segments_read_back_as_one_member() {
        for (head, middle, tail) in
            [(&b"{"[..], b"abc".repeat(50_000), &b"tail tail tail}"[..]), (b"", Vec::new(), b"")]
        {
            let joined = join(head, &Segment::new(&middle), tail).map(|piece| piece.to_vec()).concat();
            let mut decoder = flate2::bufread::GzDecoder::new(&joined[..]);
            let mut read = Vec::new();
            decoder.read_to_end(&mut read).expect("valid gzip");
            assert_eq!(read, [head, &middle, tail].concat());
            assert!(decoder.into_inner().is_empty(), "one member, nothing after it");
        }
    }
}
