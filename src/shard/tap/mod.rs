//! Taps: whoever looks at what passes, while it passes.
//!
//! In: events, samples and refusals as shards meet them, commits as the store made them. Out: items in a bounded queue of
//! each [`TapReader`], and counts of what found no place there. Owns: the list of open taps.
//! Invariants: nobody waits for a tap, and what is not shown is counted; while none is open, a buffer costs one relaxed
//! load; at most [`TAPS_MAX`] are open.
//!
//! A tap filters first and limits then, so that every count is of items that it asked for.

mod limit;
mod subject;
mod watch;

pub use limit::Limiter;
pub use subject::{RawSubject, SeriesSubject, TapSubject};
pub(super) use watch::{Recorded, Watcher};

use crate::channel::{Receiver, Refused, Sender, bounded};
use crate::delta::EncodedPart;
use crate::event::{CommitId, DropReason, Labels, Metric, RejectReason, SourceIndex, Timestamp};
use crate::rule::typed::Amount;
use arrayvec::ArrayVec;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Taps open at once. Each may hold [`TAP_LIMIT_MAX`]` × 2` items of 1 KiB at most.
pub const TAPS_MAX: usize = 8;
/// Items a second that one tap may ask for: more than a person or a script on a terminal reads.
pub const TAP_LIMIT_MAX: u32 = 5_000;
/// Commits that wait for a tap to be taken apart; each is shared by all taps.
const COMMITS_WAITING: usize = 4;
/// Bytes of one commit that are copied for taps: a million counters. The rows of the rest are counted as left out.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// Bytes shown of an event or of refused input.
const TEXT_BYTES_MAX: usize = 1024;
/// Who did not read for so long gives its place to whoever comes when all are taken.
const UNREAD_NANOS_MAX: i64 = 30_000_000_000;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TapKind {
    /// Input that was understood: a line, an object.
    Events = 1,
    /// What it came to: one value of one series.
    Samples = 2,
    /// What a commit added to a series in a slice.
    Deltas = 4,
    /// Input that was refused.
    Rejects = 8,
}

impl TapKind {
    /// Every kind.
    pub const ALL: [TapKind; 4] = [TapKind::Events, TapKind::Samples, TapKind::Deltas, TapKind::Rejects];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TapKind::Events => "events",
            TapKind::Samples => "samples",
            TapKind::Deltas => "deltas",
            TapKind::Rejects => "rejects",
        }
    }
}

/// Any of the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TapKinds(u8);

impl TapKinds {
    /// These.
    pub const fn of(kinds: &[TapKind]) -> TapKinds {
        let (mut sum, mut at) = (0, 0);
        while at < kinds.len() {
            sum |= kinds[at] as u8;
            at += 1;
        }
        TapKinds(sum)
    }

    /// Whether this one is among them.
    pub fn has(self, kind: TapKind) -> bool {
        self.0 & kind as u8 != 0
    }
}

/// What a tap lets through beside its kinds and edges.
pub trait TapFilter: Send + Sync {
    /// True for an item of this name and these labels.
    fn accepts(&self, subject: &dyn TapSubject) -> bool;
}

/// What a tap asks for.
pub struct TapSpec {
    /// What it looks at.
    pub kinds: TapKinds,
    /// Whether it looks at a source, by index.
    pub sources: Box<[bool]>,
    /// Whether it looks at sources beyond these.
    pub others: bool,
    /// `None` lets everything through.
    pub filter: Option<Arc<dyn TapFilter>>,
    /// Items a second, from 1 to [`TAP_LIMIT_MAX`].
    pub limit: u32,
}

/// One item.
#[derive(Debug)]
pub enum TapItem {
    /// An input that was understood.
    Event {
        /// When it was read.
        time: Timestamp,
        /// Where from.
        source: SourceIndex,
        /// Its name on the wire; may be empty.
        name: String,
        /// The input, lossy UTF-8, cut at 1 KiB.
        text: String,
    },
    /// A sample.
    Sample {
        /// When it was read.
        arrival: Timestamp,
        /// Where from.
        source: SourceIndex,
        /// Its family.
        metric: Arc<Metric>,
        /// Its series; empty for one that found no place.
        labels: Labels,
        /// Its value.
        amount: Amount,
        /// In 1/4096: what a distribution's value stands for.
        weight: u64,
        /// Its event time.
        time: Timestamp,
        /// Why it was dropped.
        dropped: Option<DropReason>,
    },
    /// An input that was refused.
    Reject {
        /// When it was read.
        time: Timestamp,
        /// Where from.
        source: SourceIndex,
        /// Why.
        reason: RejectReason,
        /// Which event and field it is about, where known.
        detail: String,
        /// The input, lossy UTF-8, cut at 1 KiB.
        text: String,
    },
}

/// The rows of one commit, or as many as may be copied.
#[derive(Debug)]
pub struct TapCommit {
    /// Its number.
    pub id: CommitId,
    /// Its wall clock.
    pub time: Timestamp,
    /// Its parts.
    pub parts: Vec<EncodedPart>,
}

/// Items that a tap did not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Beyond its limit a second.
    pub limit: u64,
    /// Its reader was too slow: they found its queue full.
    pub queue: u64,
}

impl LeftOut {
    /// All of them.
    pub fn total(self) -> u64 {
        self.limit + self.queue
    }
}

/// One tap, as those see it who fill it.
pub(super) struct Tap {
    kinds: TapKinds,
    sources: Box<[bool]>,
    others: bool,
    pub(super) filter: Option<Arc<dyn TapFilter>>,
    pub(super) limiter: Limiter,
    items: Sender<TapItem>,
    commits: Sender<Arc<TapCommit>>,
    by_limit: AtomicU64,
    by_queue: AtomicU64,
    /// Monotonic time of the reader's last look.
    looked: AtomicI64,
    /// Its place was given to another.
    is_evicted: AtomicBool,
}

impl Tap {
    /// Whether it looks at any of these kinds at this source.
    pub(super) fn looks_at(&self, kinds: TapKinds, source: SourceIndex) -> bool {
        self.kinds.0 & kinds.0 != 0 && self.sources.get(usize::from(source.0)).copied().unwrap_or(self.others)
    }

    pub(super) fn has(&self, kind: TapKind) -> bool {
        self.kinds.has(kind)
    }

    /// Shows an item that passed the filter, or counts why not.
    pub(super) fn offer(&self, now: Timestamp, make: impl FnOnce() -> TapItem) -> bool {
        let is_taken = self.limiter.take(now);
        if !is_taken {
            self.leave_out(1);
        } else if self.items.try_send(make()).is_err() {
            self.by_queue.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Counts items beyond the limit.
    pub(super) fn leave_out(&self, count: u64) {
        self.by_limit.fetch_add(count, Ordering::Relaxed);
    }
}

/// The open taps of a pipeline.
#[derive(Default)]
pub struct TapHub {
    /// All kinds that any tap looks at.
    wanted: AtomicU8,
    /// Changes with the list.
    generation: AtomicU64,
    taps: Mutex<Vec<Arc<Tap>>>,
}

/// All places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{TAPS_MAX} taps are open already")]
pub struct TooManyTaps;

impl TapHub {
    /// True while some tap looks at one of these kinds: all that a hot path asks.
    #[inline(always)]
    pub fn wants(&self, kinds: TapKinds) -> bool {
        self.wanted.load(Ordering::Relaxed) & kinds.0 != 0
    }

    /// Opens a tap; it closes when the reader is dropped. `now` is monotonic.
    ///
    /// # Errors
    /// [`TooManyTaps`].
    pub fn open(self: &Arc<Self>, spec: TapSpec, now: i64) -> Result<TapReader, TooManyTaps> {
        let limit = spec.limit.clamp(1, TAP_LIMIT_MAX);
        // The limiter lets a second's worth through at once, and another until the reader looks again.
        let (items, shown) = bounded(limit as usize * 2);
        let (commits, committed) = bounded(COMMITS_WAITING);
        let tap = Arc::new(Tap {
            kinds: spec.kinds,
            sources: spec.sources,
            others: spec.others,
            filter: spec.filter,
            limiter: Limiter::new(limit),
            items,
            commits,
            by_limit: AtomicU64::new(0),
            by_queue: AtomicU64::new(0),
            looked: AtomicI64::new(now),
            is_evicted: AtomicBool::new(false),
        });
        let mut taps = self.lock();
        if taps.len() >= TAPS_MAX {
            let unread = taps.iter().position(|tap| now - tap.looked.load(Ordering::Relaxed) > UNREAD_NANOS_MAX);
            let evicted = taps.swap_remove(unread.ok_or(TooManyTaps)?);
            evicted.is_evicted.store(true, Ordering::Release);
        }
        taps.push(Arc::clone(&tap));
        self.changed(&taps);
        drop(taps);
        Ok(TapReader { hub: Arc::clone(self), tap, items: shown, commits: committed })
    }

    /// Taps that are open.
    pub fn open_count(&self) -> usize {
        self.lock().len()
    }

    /// Shows a refusal to whoever looks at those of its source.
    #[inline]
    pub fn reject(&self, time: Timestamp, source: SourceIndex, reason: RejectReason, detail: &str, text: &[u8]) {
        if self.wants(TapKinds(TapKind::Rejects as u8)) {
            self.show_reject(time, source, reason, detail, text);
        }
    }

    #[cold]
    fn show_reject(&self, time: Timestamp, source: SourceIndex, reason: RejectReason, detail: &str, text: &[u8]) {
        let subject = RawSubject::new(text, None);
        for tap in self.looking_at(TapKinds(TapKind::Rejects as u8), source) {
            if tap.filter.as_ref().is_none_or(|filter| filter.accepts(&subject)) {
                tap.offer(time, || TapItem::Reject {
                    time,
                    source,
                    reason,
                    detail: detail.chars().take(TEXT_BYTES_MAX).collect(),
                    text: text_of(text),
                });
            }
        }
    }

    /// Shows a commit to whoever looks at deltas. Its rows are copied, at most 16 MiB of them, and taken apart by the
    /// reader, so that the store has no work with them.
    pub fn commit(&self, id: CommitId, time: Timestamp, parts: &[EncodedPart]) {
        if !self.wants(TapKinds(TapKind::Deltas as u8)) {
            return;
        }
        let (mut copied, mut bytes, mut left) = (Vec::new(), 0, 0);
        for part in parts.iter().filter(|part| part.rows > 0) {
            bytes += part.bytes.len();
            if bytes > COMMIT_BYTES_MAX {
                left += part.rows;
            } else {
                copied.push(part.clone());
            }
        }
        let rows: u64 = copied.iter().map(|part| part.rows).sum();
        let commit = Arc::new(TapCommit { id, time, parts: copied });
        let taps = self.snapshot();
        for tap in taps.iter().filter(|tap| tap.has(TapKind::Deltas)) {
            let is_full = matches!(tap.commits.try_send(Arc::clone(&commit)), Err(Refused::Full(_)));
            tap.by_queue.fetch_add(left + if is_full { rows } else { 0 }, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tap>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, taps: &[Arc<Tap>]) {
        self.wanted.store(taps.iter().fold(0, |sum, tap| sum | tap.kinds.0), Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The list, so that nothing is done while it is locked.
    fn snapshot(&self) -> ArrayVec<Arc<Tap>, TAPS_MAX> {
        self.lock().iter().map(Arc::clone).collect()
    }

    fn looking_at(&self, kinds: TapKinds, source: SourceIndex) -> ArrayVec<Arc<Tap>, TAPS_MAX> {
        let mut taps = self.snapshot();
        taps.retain(|tap| tap.looks_at(kinds, source));
        taps
    }
}

/// The reading end of a tap.
pub struct TapReader {
    hub: Arc<TapHub>,
    tap: Arc<Tap>,
    items: Receiver<TapItem>,
    commits: Receiver<Arc<TapCommit>>,
}

impl TapReader {
    /// The next item, if one waits.
    pub fn next(&self) -> Option<TapItem> {
        self.items.try_recv()
    }

    /// The next commit, if one waits.
    pub fn next_commit(&self) -> Option<Arc<TapCommit>> {
        self.commits.try_recv()
    }

    /// True when nothing waits.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.commits.is_empty()
    }

    /// Notes that somebody reads, at this monotonic time.
    pub fn looked(&self, now: i64) {
        self.tap.looked.store(now, Ordering::Relaxed);
    }

    /// True once its place was given to another, because nobody had read for half a minute.
    pub fn is_evicted(&self) -> bool {
        self.tap.is_evicted.load(Ordering::Acquire)
    }

    /// Whether an item passes the filter: for rows of commits, which the reader takes apart.
    pub fn accepts(&self, subject: &dyn TapSubject) -> bool {
        self.tap.filter.as_ref().is_none_or(|filter| filter.accepts(subject))
    }

    /// True with a filter.
    pub fn is_filtered(&self) -> bool {
        self.tap.filter.is_some()
    }

    /// Its limit.
    pub fn limiter(&self) -> &Limiter {
        &self.tap.limiter
    }

    /// Counts rows of commits beyond the limit.
    pub fn leave_out(&self, count: u64) {
        self.tap.leave_out(count);
    }

    /// Items left out since it was opened.
    pub fn left_out(&self) -> LeftOut {
        LeftOut { limit: self.tap.by_limit.load(Ordering::Relaxed), queue: self.tap.by_queue.load(Ordering::Relaxed) }
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        let mut taps = self.hub.lock();
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.hub.changed(&taps);
        drop(taps);
        // A decoder may keep the sending end until it looks again: nothing is to stay in the queue so long.
        while self.items.try_recv().is_some() {}
        while self.commits.try_recv().is_some() {}
    }
}

/// Lossy UTF-8, cut.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests;
