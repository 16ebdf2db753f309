//! What was refused lately: the newest examples, for people; and, beside them, what is no sample, and who looks at
//! everything that passes.
//!
//! In: refused lines with their reason, at most so many a second from each shard. Out: newest first.
//! Invariant: bounded in count and bytes; counting is not done here (tallies count every refusal).

use super::notices::RecentNotices;
use super::tap::TapHub;
use crate::event::{RejectReason, SourceIndex, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Examples kept.
const KEPT_MAX: usize = 1000;
/// Bytes kept of each.
const TEXT_BYTES_MAX: usize = 512;
/// Examples a second from one shard: enough to see every reason, too few to cost anything.
const PER_SECOND_MAX: u32 = 100;

/// One refused input.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// When it was read.
    pub time: Timestamp,
    /// From which source.
    pub source: SourceIndex,
    /// Why.
    pub reason: RejectReason,
    /// What it said; lossy UTF-8, cut at 512 bytes.
    pub text: String,
    /// Which event and field it is about, where that is known; else empty.
    pub detail: String,
}

/// The newest refusals of all shards, the newest notices, and the open taps.
#[derive(Default)]
pub struct RecentRejects {
    rejects: Mutex<VecDeque<Reject>>,
    notices: RecentNotices,
    taps: Arc<TapHub>,
}

impl RecentRejects {
    /// None.
    pub fn new() -> RecentRejects {
        RecentRejects::default()
    }

    /// DogStatsD events and service checks.
    pub fn notices(&self) -> &RecentNotices {
        &self.notices
    }

    /// Who looks at what passes.
    #[inline(always)]
    pub fn taps(&self) -> &Arc<TapHub> {
        &self.taps
    }

    /// The newest first, at most `limit`.
    pub fn newest(&self, limit: usize) -> Vec<Reject> {
        let kept = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().take(limit).cloned().collect()
    }

    /// Keeps an example.
    pub fn push(&self, time: Timestamp, source: SourceIndex, reason: RejectReason, text: &[u8]) {
        self.push_about(time, source, reason, "", text);
    }

    /// Keeps an example, with what is wrong in words.
    pub fn push_about(&self, time: Timestamp, source: SourceIndex, reason: RejectReason, detail: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]).into_owned();
        let mut kept = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Reject { time, source, reason, text, detail: detail.chars().take(TEXT_BYTES_MAX).collect() });
    }
}

/// How many examples one shard, or one thread of producers, may still give this second.
#[derive(Default)]
pub struct Allowance {
    second: i64,
    used: u32,
}

impl Allowance {
    /// True while this second's examples are not used up.
    pub fn take(&mut self, now: Timestamp) -> bool {
        self.take_of(PER_SECOND_MAX, now)
    }

    /// The same, of another number a second.
    pub(super) fn take_of(&mut self, per_second_max: u32, now: Timestamp) -> bool {
        let second = now.0.div_euclid(1_000_000_000);
        if self.second != second {
            (self.second, self.used) = (second, 0);
        }
        self.used = self.used.saturating_add(1);
        self.used <= per_second_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_cuts_long_text() {
        let recent = RecentRejects::new();
        for n in 0..KEPT_MAX as i64 + 5 {
            recent.push(Timestamp(n), SourceIndex(1), RejectReason::Malformed, &[b'x'; 2000]);
        }
        let newest = recent.newest(2);
        assert_eq!(newest[0].time, Timestamp(KEPT_MAX as i64 + 4));
        assert_eq!(newest[0].text.len(), TEXT_BYTES_MAX);
        assert_eq!(recent.newest(usize::MAX).len(), KEPT_MAX);
    }

    #[test]
    fn a_second_has_a_bounded_number_of_examples() {
        let mut allowance = Allowance::default();
        let taken = (0..500).filter(|_| allowance.take(Timestamp(5))).count();
        assert_eq!(taken, PER_SECOND_MAX as usize);
        assert!(allowance.take(Timestamp(1_000_000_005)));
    }
}
