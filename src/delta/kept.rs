//! Kept events: the newest whole events of a schema with `keep`, on their way to the store.
//!
//! In: events as they came, bytes and all. Out: at most `keep` of each schema a tick, newest last. Owns: those bytes.
//! Invariant: memory is bounded whatever comes: per event by [`KEPT_EVENT_BYTES`], per tick by
//! [`KEPT_TICK_BYTES`]; what is displaced by newer ones would not have outlived the tick anyway, or is counted.

use super::Combiner;
use crate::event::{SourceIndex, Timestamp};
use std::collections::VecDeque;

/// Longest kept text of one event; what is longer is cut and marked.
pub const KEPT_EVENT_BYTES: usize = 8 * 1024;
/// Bytes that one combiner keeps between two ticks: 512 events of full length.
pub const KEPT_TICK_BYTES: usize = 4 << 20;
/// Greatest `keep`: ten thousand events of full length are 80 MiB in memory and in the file.
pub const KEEP_MAX: u32 = 10_000;

/// A schema by its place in the store's list of kept schemas. A name keeps its place for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptIndex(pub u16);

/// One whole event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    /// Who said it.
    pub source: SourceIndex,
    /// Event time.
    pub time: Timestamp,
    /// As it came, at most [`KEPT_EVENT_BYTES`].
    pub bytes: Box<[u8]>,
    /// True when bytes were cut off.
    pub is_cut: bool,
}

/// What one combiner gathered.
#[derive(Clone, Debug, Default)]
pub struct KeptEvents {
    by_event: Vec<VecDeque<KeptEvent>>,
    bytes: usize,
    displaced: u64,
}

impl KeptEvents {
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.displaced == 0 && self.by_event.iter().all(VecDeque::is_empty)
    }

    /// Bytes of the events.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that had to go because of [`KEPT_TICK_BYTES`], though they were among the newest `keep`.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// The events of each schema, in the order they came.
    pub fn into_events(self) -> impl Iterator<Item = (KeptIndex, KeptEvent)> {
        let lists = self.by_event.into_iter().enumerate();
        lists.flat_map(|(at, events)| events.into_iter().map(move |event| (KeptIndex(at as u16), event)))
    }

    fn push(&mut self, event: KeptIndex, keep: u32, kept: KeptEvent) {
        let at = usize::from(event.0);
        if self.by_event.len() <= at {
            self.by_event.resize_with(at + 1, VecDeque::new);
        }
        let events = &mut self.by_event[at];
        self.bytes += kept.bytes.len();
        events.push_back(kept);
        while events.len() > keep.min(KEEP_MAX) as usize {
            self.bytes -= events.pop_front().map_or(0, |old| old.bytes.len());
        }
        while self.bytes > KEPT_TICK_BYTES {
            // The schema with most events gives: a flood of one must not displace what is rare.
            let longest = self.by_event.iter_mut().max_by_key(|events| events.len());
            let Some(old) = longest.and_then(VecDeque::pop_front) else { break };
            self.bytes -= old.bytes.len();
            self.displaced += 1;
        }
    }
}

impl Combiner {
    /// Keeps an event whole, as one of the newest `keep` of its schema.
    pub fn keep_event(&mut self, source: SourceIndex, event: KeptIndex, keep: u32, time: Timestamp, bytes: &[u8]) {
        if keep == 0 {
            return;
        }
        let is_cut = bytes.len() > KEPT_EVENT_BYTES;
        let bytes = if is_cut { &bytes[..cut(bytes)] } else { bytes };
        self.kept.push(event, keep, KeptEvent { source, time, bytes: bytes.into(), is_cut });
    }

    /// Takes the kept events out.
    pub fn take_kept(&mut self) -> KeptEvents {
        std::mem::take(&mut self.kept)
    }
}

/// Where to cut so that no character of UTF-8 is split.
fn cut(bytes: &[u8]) -> usize {
    let mut end = KEPT_EVENT_BYTES;
    while end > KEPT_EVENT_BYTES - 4 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Slice;

    fn keep(combiner: &mut Combiner, event: u16, keep: u32, bytes: &[u8]) {
        combiner.keep_event(SourceIndex(1), KeptIndex(event), keep, Timestamp(5), bytes);
    }

    #[test]
    fn keep_holds_the_newest_of_each_schema() {
        let mut combiner = Combiner::new(Slice(1));
        for n in 0..10u8 {
            keep(&mut combiner, 0, 3, &[n]);
            keep(&mut combiner, 4, 1, &[n]);
            keep(&mut combiner, 1, 0, &[n]);
        }
        assert!(!combiner.is_empty());
        let kept: Vec<_> = combiner.take_kept().into_events().map(|(at, event)| (at.0, event.bytes[0])).collect();
        assert_eq!(kept, [(0, 7), (0, 8), (0, 9), (4, 9)]);
        assert!(combiner.is_empty());
    }

    #[test]
    fn keep_is_bounded_in_bytes_and_cuts_between_characters() {
        let mut combiner = Combiner::new(Slice(1));
        let long = format!("a{}", "ü".repeat(KEPT_EVENT_BYTES));
        keep(&mut combiner, 1, 1, b"rare");
        for _ in 0..2_000 {
            keep(&mut combiner, 0, 5_000, long.as_bytes());
        }
        let kept = combiner.take_kept();
        assert!(kept.bytes() <= KEPT_TICK_BYTES && kept.bytes() > KEPT_TICK_BYTES - KEPT_EVENT_BYTES);
        let held = kept.displaced();
        let events: Vec<_> = kept.into_events().collect();
        assert_eq!(held + events.len() as u64, 2_001);
        assert_eq!(events.last().map(|(at, event)| (at.0, &*event.bytes)), Some((1, &b"rare"[..])));
        assert!(events[0].1.is_cut && std::str::from_utf8(&events[0].1.bytes).is_ok());
    }
}
