//! How much memory bodies may take, and whether there is room for one more.
//!
//! In: bodies that are kept, and those that leave while a slow reader still holds them. Out: bytes. Owns weak references
//! only. Invariant: a body counts once however many read it, from its making until the last of them has it.

use super::Inner;
use std::sync::{Arc, Weak};

/// Bodies that are no longer kept and still read.
#[derive(Default)]
pub(super) struct Readers(Vec<(Weak<Vec<u8>>, usize)>);

impl Readers {
    /// A body leaves those that are kept.
    pub(super) fn note(&mut self, bytes: Arc<Vec<u8>>) {
        // Nobody else: it is gone with this call.
        if Arc::strong_count(&bytes) > 1 {
            self.0.push((Arc::downgrade(&bytes), bytes.capacity()));
        }
    }

    /// Bytes that readers hold.
    fn bytes(&mut self) -> usize {
        self.0.retain(|(bytes, _)| bytes.strong_count() > 0);
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Inner {
    /// What is taken: label text, bodies that are kept, bodies that are read.
    fn taken(&mut self) -> usize {
        let texts: usize = self.texts.values().map(|text| text.heap_bytes()).sum();
        let bodies: usize = self.bodies.values().map(|body| body.heap_bytes()).sum();
        texts + bodies + self.readers.bytes()
    }

    /// Finds room for a body of so many bytes, if need be that of bodies asked for least lately. Returns how long the
    /// body may become; `None` when readers hold too much.
    pub(super) fn make_room(&mut self, bytes: usize) -> Option<usize> {
        let Some(bytes_max) = self.plan.bytes_max else { return Some(usize::MAX) };
        loop {
            let left = bytes_max.saturating_sub(self.taken());
            if bytes <= left {
                return Some(left);
            }
            let oldest = self.bodies.iter().min_by_key(|(_, body)| body.last_used).map(|(key, _)| key.clone());
            match oldest.and_then(|oldest| self.bodies.remove(&oldest)) {
                Some(body) => self.forget(body),
                // What it will take is a guess; when nobody reads anything there is no better time to find out.
                None if self.readers.bytes() == 0 => return Some(left),
                None => return None,
            }
        }
    }

    /// A body leaves; what readers hold of it still counts.
    pub(super) fn forget(&mut self, body: super::Body) {
        self.readers.note(body.bytes);
        if let Some(gzip) = body.gzip {
            self.readers.note(gzip.into_bytes());
        }
    }

    /// After a body was made: label text is kept for the next one only where it leaves room for bodies.
    pub(super) fn trim_texts(&mut self) {
        let Some(bytes_max) = self.plan.bytes_max else { return };
        let texts: usize = self.texts.values().map(|text| text.heap_bytes()).sum();
        if texts > bytes_max / 2 {
            self.texts.clear();
        }
    }
}
