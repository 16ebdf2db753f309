//! A decoder's cache: raw key bytes (name, type, tags) → slot and how to record there. No lock.
//!
//! In: the hash of a key. Out: a candidate, then its verification, in two steps so that the caller can
//! prefetch in between. Owns: copies of the keys, each name once. Invariants: growth never rehashes the whole table
//! (doubling one of a million entries takes 48 ms; splitting a segment of 4,096 takes 20 µs); a hit is
//! always verified byte by byte; an overflow verdict is never put in (S3).
//!
//! The table is extendible hashing: the upper 32 bits of the hash are the *tag*; its top `depth` bits
//! choose a segment through the directory, its low 12 bits the home place in it. Everything a split
//! needs is in the tag, so keys are not touched.

use crate::codec::dogstatsd::NAME_BYTES_MAX;
use crate::delta::{PageBox, prefetch};
use crate::event::{Kind, Slot, WireType};
use crate::sketch::Digits;
use std::collections::HashMap;

const SEGMENT_BITS: u32 = 12;
const SEGMENT_LEN: usize = 1 << SEGMENT_BITS;
/// A segment is split at ¾ full.
const SEGMENT_FULL: usize = SEGMENT_LEN / 4 * 3;
/// The directory takes tag bits that the place in a segment does not: 2^20 segments.
const DEPTH_MAX: u32 = 32 - SEGMENT_BITS;
/// Longer keys (a name has at most 200 bytes) are resolved anew each time.
pub(super) const KEY_BYTES_MAX: usize = 4096;
const ARENA_CHUNK: usize = 1 << 18;
/// What a name takes at most, in both of its places.
const NAME_BYTES: usize = 2 * (NAME_BYTES_MAX + 20);
/// What a processor fetches at once. A key touches as few of them as its length allows.
const LINE: usize = 64;
/// Set in [`Entry::key`] when the key needs a second line.
const IS_LONG: u32 = 1 << 31;

/// How the samples of a key are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Meta(u32);

impl Meta {
    /// `shift` is what values are multiplied by first, as a power of ten.
    pub(super) fn new(
        kind: Kind,
        digits: Digits,
        is_bucketed: bool,
        exponent: i8,
        shift: i8,
        labels_dropped: u16,
    ) -> Meta {
        let dropped = u32::from(labels_dropped.min(255));
        Meta(
            kind as u32
                | u32::from(is_bucketed) << 2
                | u32::from(kind == Kind::Distribution && digits != Digits::Two) << 3
                | (digits as u32) << 4
                | u32::from(exponent as u8) << 8
                | dropped << 16
                | u32::from(shift as u8) << 24,
        )
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Distribution,
            _ => Kind::Set,
        }
    }

    /// True when a distribution fits the compact record: two digits, no declared buckets.
    #[inline(always)]
    pub(super) fn is_compact(self) -> bool {
        self.0 & 0b1100 == 0
    }

    pub(super) fn is_bucketed(self) -> bool {
        self.0 & 0b100 != 0
    }

    pub(super) fn digits(self) -> Digits {
        Digits::from_u8((self.0 >> 4 & 3) as u8).unwrap_or(Digits::Two)
    }

    #[inline(always)]
    pub(super) fn exponent(self) -> i8 {
        (self.0 >> 8) as u8 as i8
    }

    pub(super) fn labels_dropped(self) -> u32 {
        self.0 >> 16 & 255
    }

    pub(super) fn shift(self) -> i8 {
        (self.0 >> 24) as u8 as i8
    }

    /// True when no label was dropped and values are taken as they are.
    #[inline(always)]
    pub(super) fn is_plain(self) -> bool {
        self.0 >> 16 == 0
    }
}

/// One place of the table, 16 bytes: four in a cache line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    tag: u32,
    /// Position of the key in units of 8 bytes, and [`IS_LONG`]; 0 = the place is free.
    key: u32,
    slot: u32,
    pub(super) meta: Meta,
}

impl Entry {
    #[inline(always)]
    pub(super) fn slot(&self) -> Slot {
        Slot(self.slot)
    }
}

struct Segment {
    depth: u32,
    used: usize,
    entries: PageBox<Entry, SEGMENT_LEN>,
}

impl Segment {
    fn new(depth: u32) -> Segment {
        Segment { depth, used: 0, entries: PageBox::of(Entry::default()) }
    }

    fn insert(&mut self, entry: Entry) {
        let mut at = entry.tag as usize % SEGMENT_LEN;
        while self.entries[at].key != 0 {
            at = (at + 1) % SEGMENT_LEN;
        }
        self.entries[at] = entry;
        self.used += 1;
    }
}

/// The cache.
pub(super) struct KeyCache {
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
    arena: Vec<PageBox<u8, ARENA_CHUNK>>,
    /// Each name once, by the number that keys know it by: it is near when the key is not.
    names: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>,
    /// Next free byte of the last arena chunk.
    free: usize,
    len: usize,
    /// Bytes of keys past which everything is forgotten: raw text is bounded (S3).
    arena_bytes_max: usize,
    seed: u64,
    /// Everything was forgotten since this was last asked.
    has_forgotten: bool,
}

/// Where a probe stands: to go on behind a candidate whose key is another one.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    segment: u32,
    at: u32,
}

impl KeyCache {
    pub(super) fn new(seed: u64, arena_bytes_max: usize) -> KeyCache {
        KeyCache {
            directory: vec![0],
            depth: 0,
            segments: vec![Segment::new(0)],
            arena: Vec::new(),
            names: Vec::new(),
            numbers: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(seed)),
            free: ARENA_CHUNK,
            len: 0,
            arena_bytes_max,
            seed,
            has_forgotten: false,
        }
    }

    /// True once after everything was forgotten: candidates of before must not be verified any more.
    #[inline(always)]
    pub(super) fn take_forgotten(&mut self) -> bool {
        self.has_forgotten && std::mem::take(&mut self.has_forgotten)
    }

    #[inline(always)]
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn start(&self, hash: u64) -> Probe {
        let tag = (hash >> 32) as u32;
        let index = (u64::from(tag) << self.depth >> 32) as usize;
        Probe { segment: self.directory[index], at: tag % SEGMENT_LEN as u32 }
    }

    /// Brings the first place of a probe closer.
    #[inline(always)]
    pub(super) fn prefetch_place(&self, hash: u64) {
        let probe = self.start(hash);
        prefetch(&self.segments[probe.segment as usize].entries[probe.at as usize]);
    }

    /// The first entry with this hash's tag, not verified.
    #[inline(always)]
    pub(super) fn candidate(&self, hash: u64) -> Option<(Entry, Probe)> {
        self.next_candidate(hash, self.start(hash))
    }

    #[inline(always)]
    fn next_candidate(&self, hash: u64, mut probe: Probe) -> Option<(Entry, Probe)> {
        let tag = (hash >> 32) as u32;
        let entries = &self.segments[probe.segment as usize].entries;
        loop {
            let entry = entries[probe.at as usize % SEGMENT_LEN];
            if entry.key == 0 {
                return None;
            }
            if entry.tag == tag {
                return Some((entry, probe));
            }
            probe.at = (probe.at + 1) % SEGMENT_LEN as u32;
        }
    }

    /// Brings the candidate's key closer.
    #[inline(always)]
    pub(super) fn prefetch_key(&self, entry: &Entry) {
        let at = position(entry.key);
        let chunk = &self.arena[at / ARENA_CHUNK];
        prefetch(&chunk[at % ARENA_CHUNK]);
        if entry.key & IS_LONG != 0
            && let Some(next) = chunk.get(at % ARENA_CHUNK + LINE)
        {
            prefetch(next);
        }
    }

    /// The entry whose key is exactly this one, starting from a candidate.
    #[inline(always)]
    pub(super) fn verify(
        &self,
        hash: u64,
        candidate: (Entry, Probe),
        name: &[u8],
        wire: WireType,
        tags: &[u8],
    ) -> Option<Entry> {
        let (entry, probe) = candidate;
        if self.is_key(entry.key, name, wire as u8, tags) {
            return Some(entry);
        }
        self.verify_next(hash, probe, name, wire, tags)
    }

    #[cold]
    fn verify_next(&self, hash: u64, mut probe: Probe, name: &[u8], wire: WireType, tags: &[u8]) -> Option<Entry> {
        loop {
            probe.at = (probe.at + 1) % SEGMENT_LEN as u32;
            let (entry, next) = self.next_candidate(hash, probe)?;
            if self.is_key(entry.key, name, wire as u8, tags) {
                return Some(entry);
            }
            probe = next;
        }
    }

    #[inline(always)]
    fn is_key(&self, key: u32, name: &[u8], code: u8, tags: &[u8]) -> bool {
        let at = position(key);
        let stored = &self.arena[at / ARENA_CHUNK][at % ARENA_CHUNK..];
        let Some((head, body)) = stored.split_first_chunk::<8>() else { return false };
        let head = u64::from_le_bytes(*head);
        head >> 32 == shape_of(code, tags)
            && body.len() >= tags.len()
            && body[..tags.len()] == *tags
            && *self.names[head as u32 as usize] == *name
    }

    /// The entry of a key that is no line's: `code` says what kind of key it is, and is no wire type.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8], code: u8) -> Option<Entry> {
        let mut probe = self.start(hash);
        loop {
            let (entry, at) = self.next_candidate(hash, probe)?;
            if self.is_key(entry.key, b"", code, key) {
                return Some(entry);
            }
            probe = Probe { at: (at.at + 1) % SEGMENT_LEN as u32, ..at };
        }
    }

    /// Puts a key in that is no line's, and is not there.
    pub(super) fn insert_key(&mut self, hash: u64, key: &[u8], code: u8, slot: Slot, meta: Meta) {
        self.insert_as(hash, b"", code, key, slot, meta);
    }

    /// Puts a key in that is not there. Keys over [`KEY_BYTES_MAX`] are not kept.
    pub(super) fn insert(&mut self, hash: u64, name: &[u8], wire: WireType, tags: &[u8], slot: Slot, meta: Meta) {
        self.insert_as(hash, name, wire as u8, tags, slot, meta);
    }

    fn insert_as(&mut self, hash: u64, name: &[u8], code: u8, tags: &[u8], slot: Slot, meta: Meta) {
        let length = 8 + tags.len();
        if name.len() + tags.len() > KEY_BYTES_MAX {
            return;
        }
        let (names, keys) = (self.names.len() * NAME_BYTES, self.arena.len() * ARENA_CHUNK);
        let has_room = self.start_of(length) + length <= ARENA_CHUNK && names < self.arena_bytes_max.max(ARENA_CHUNK);
        if names + keys >= self.arena_bytes_max && !has_room {
            self.forget_all();
        }
        let key = self.keep(name, code, tags, length);
        let tag = (hash >> 32) as u32;
        let mut index = self.start(hash).segment as usize;
        while self.segments[index].used >= SEGMENT_FULL && self.segments[index].depth < DEPTH_MAX {
            self.split(index);
            index = self.start(hash).segment as usize;
        }
        if self.segments[index].used >= SEGMENT_LEN - 1 {
            return;
        }
        self.segments[index].insert(Entry { tag, key, slot: slot.0, meta });
        self.len += 1;
    }

    /// Where a key of this length starts: behind the last one, or at the next line if that saves it one.
    fn start_of(&self, length: usize) -> usize {
        let within = self.free % LINE;
        let lines = |from: usize| (from + length).div_ceil(LINE);
        if lines(within) > lines(0) { self.free.next_multiple_of(LINE) } else { self.free }
    }

    fn keep(&mut self, name: &[u8], code: u8, tags: &[u8], length: usize) -> u32 {
        let mut start = self.start_of(length);
        if start + length > ARENA_CHUNK {
            self.arena.push(PageBox::of(0));
            // Position 0 means a free place, so the very first key starts behind it.
            start = if self.arena.len() == 1 { LINE } else { 0 };
        }
        let head = u64::from(self.number(name)) | shape_of(code, tags) << 32;
        let chunk = self.arena.len() - 1;
        let place = &mut self.arena[chunk][start..start + length];
        place[..8].copy_from_slice(&head.to_le_bytes());
        place[8..].copy_from_slice(tags);
        self.free = start + length.next_multiple_of(8);
        let key = ((chunk * ARENA_CHUNK + start) / 8) as u32;
        if start % LINE + length > LINE { key | IS_LONG } else { key }
    }

    /// The number of a name.
    fn number(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    fn split(&mut self, index: usize) {
        let depth = self.segments[index].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|segment| [*segment, *segment]).collect();
            self.depth = depth;
        }
        let other = self.segments.len() as u32;
        let old = std::mem::replace(&mut self.segments[index], Segment::new(depth));
        self.segments.push(Segment::new(depth));
        let bit = 32 - depth;
        for entry in old.entries.iter().filter(|entry| entry.key != 0) {
            let to = if entry.tag >> bit & 1 == 1 { other as usize } else { index };
            self.segments[to].insert(*entry);
        }
        let shift = self.depth - depth;
        for (place, segment) in self.directory.iter_mut().enumerate() {
            if *segment == index as u32 && place >> shift & 1 == 1 {
                *segment = other;
            }
        }
    }

    fn forget_all(&mut self) {
        *self = KeyCache { has_forgotten: true, ..KeyCache::new(self.seed, self.arena_bytes_max) };
    }

    /// Forgets every key of these slots, so that the slots may be given to other series.
    pub(super) fn forget(&mut self, mut is_gone: impl FnMut(Kind, Slot) -> bool) {
        for segment in &mut self.segments {
            if segment.entries.iter().any(|e| e.key != 0 && is_gone(e.meta.kind(), Slot(e.slot))) {
                let old = std::mem::replace(segment, Segment::new(segment.depth));
                for entry in old.entries.iter().filter(|entry| entry.key != 0) {
                    if is_gone(entry.meta.kind(), Slot(entry.slot)) {
                        self.len -= 1;
                    } else {
                        segment.insert(*entry);
                    }
                }
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.segments.len() * SEGMENT_LEN * size_of::<Entry>()
            + self.arena.len() * ARENA_CHUNK
            + self.names.len() * NAME_BYTES
    }
}

#[inline(always)]
fn position(key: u32) -> usize {
    (key & !IS_LONG) as usize * 8
}

/// What a key holds of itself beside the name's number.
#[inline(always)]
fn shape_of(code: u8, tags: &[u8]) -> u64 {
    tags.len() as u64 | u64::from(code) << 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dogstatsd::key_hash;

    fn find(cache: &KeyCache, name: &[u8], tags: &[u8]) -> Option<u32> {
        let hash = key_hash(name, WireType::Count, tags, cache.seed());
        let candidate = cache.candidate(hash)?;
        cache.verify(hash, candidate, name, WireType::Count, tags).map(|entry| entry.slot().0)
    }

    fn meta() -> Meta {
        Meta::new(Kind::Counter, Digits::Two, false, -3, 0, 0)
    }

    #[test]
    fn keys_are_found_through_every_split() {
        let mut cache = KeyCache::new(7, usize::MAX);
        let tags = |n: u32| format!("host:h{n}");
        for n in 0..50_000 {
            assert_eq!(find(&cache, b"name", tags(n).as_bytes()), None);
            let hash = key_hash(b"name", WireType::Count, tags(n).as_bytes(), 7);
            cache.insert(hash, b"name", WireType::Count, tags(n).as_bytes(), Slot(n), meta());
        }
        for n in 0..50_000 {
            assert_eq!(find(&cache, b"name", tags(n).as_bytes()), Some(n));
        }
        assert_eq!(cache.len(), 50_000);
        cache.forget(|_, slot| slot.0 % 2 == 0);
        for n in 0..50_000 {
            assert_eq!(find(&cache, b"name", tags(n).as_bytes()), (n % 2 == 1).then_some(n));
        }
        assert_eq!(cache.len(), 25_000);
    }

    #[test]
    fn s3_equal_hashes_are_told_apart_and_text_is_bounded() {
        let mut cache = KeyCache::new(7, 4 * ARENA_CHUNK);
        cache.insert(42 << 32, b"a", WireType::Count, b"", Slot(1), meta());
        cache.insert(42 << 32, b"b", WireType::Count, b"", Slot(2), meta());
        let found = |name: &[u8]| {
            let candidate = cache.candidate(42 << 32)?;
            cache.verify(42 << 32, candidate, name, WireType::Count, b"").map(|entry| entry.slot().0)
        };
        assert_eq!((found(b"a"), found(b"b"), found(b"c")), (Some(1), Some(2), None));
        for n in 0..200_000u64 {
            cache.insert(
                n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                b"name",
                WireType::Count,
                b"tag:value",
                Slot(0),
                meta(),
            );
        }
        assert!(cache.heap_bytes() < 16 << 20, "bounded: {}", cache.heap_bytes());
    }

    #[test]
    fn a_key_that_fits_a_line_stands_in_one() {
        let mut cache = KeyCache::new(7, usize::MAX);
        for length in (0..=LINE - 8).chain((0..=LINE - 8).rev()) {
            let key = cache.keep(b"name", 0, &vec![b'a'; length], 8 + length);
            assert_eq!(key & IS_LONG, 0, "{length}");
            assert!(position(key) % LINE + 8 + length <= LINE, "{length}");
        }
        let key = cache.keep(b"name", 0, &[b'a'; LINE - 7], LINE + 1);
        assert_ne!(key & IS_LONG, 0);
    }

    #[test]
    fn s3_names_are_bounded_too() {
        let mut cache = KeyCache::new(7, 4 * ARENA_CHUNK);
        let name = |n: u32| format!("{n:0>200}");
        for n in 0..20_000 {
            let hash = key_hash(name(n).as_bytes(), WireType::Count, b"", cache.seed());
            cache.insert(hash, name(n).as_bytes(), WireType::Count, b"", Slot(n), meta());
            assert_eq!(find(&cache, name(n).as_bytes(), b""), Some(n));
        }
        assert!(cache.names.len() < 5_000, "{}", cache.names.len());
    }

    #[test]
    fn meta_keeps_what_it_was_given() {
        let meta = Meta::new(Kind::Distribution, Digits::Three, true, -12, -3, 300);
        assert_eq!((meta.shift(), meta.is_plain()), (-3, false));
        assert_eq!((meta.kind(), meta.digits(), meta.is_bucketed()), (Kind::Distribution, Digits::Three, true));
        assert_eq!((meta.exponent(), meta.labels_dropped(), meta.is_compact()), (-12, 255, false));
        assert!(Meta::new(Kind::Distribution, Digits::Two, false, 6, 0, 0).is_compact());
    }
}
