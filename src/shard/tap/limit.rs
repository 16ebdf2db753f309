//! So many items a second, and no lock: a bucket that refills evenly.
//!
//! In: the time of an item. Out: whether it is shown. Invariants: at most [`limit`](Limiter::new) at once, and as many
//! again a second; a bucket that nobody took from for a second is full. A clock that steps back refills it.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number, the time at which the bucket is full again.

use crate::event::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// See the file's head.
#[derive(Debug)]
pub struct Limiter {
    /// Nanoseconds that one item costs.
    interval: i64,
    /// Nanoseconds that a full bucket is worth: one second, or one item.
    burst: i64,
    /// When the bucket is full again.
    full_at: AtomicI64,
    /// Somebody found it empty since it was full.
    is_starved: AtomicBool,
}

impl Limiter {
    /// A full bucket of so many a second, at least 1.
    pub fn new(limit: u32) -> Limiter {
        let interval = 1_000_000_000 / i64::from(limit.max(1));
        let burst = interval * i64::from(limit.max(1));
        Limiter { interval, burst, full_at: AtomicI64::new(i64::MIN), is_starved: AtomicBool::new(false) }
    }

    /// Takes one item out; false when there is none.
    pub fn take(&self, now: Timestamp) -> bool {
        let next = |full_at: i64| {
            let after = self.debt(full_at, now) + self.interval;
            (after <= self.burst).then(|| now.0.saturating_add(after))
        };
        let is_taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !is_taken {
            self.starve();
        }
        is_taken
    }

    /// Items came that found nothing to take.
    pub fn starve(&self) {
        self.is_starved.store(true, Ordering::Relaxed);
    }

    /// True when more passes than the limit: somebody found the bucket empty since it was full.
    pub fn is_starved(&self, now: Timestamp) -> bool {
        if self.debt(self.full_at.load(Ordering::Relaxed), now) == 0 {
            self.is_starved.store(false, Ordering::Relaxed);
        }
        self.is_starved.load(Ordering::Relaxed)
    }

    /// How many items it holds.
    pub fn available(&self, now: Timestamp) -> u64 {
        let debt = self.debt(self.full_at.load(Ordering::Relaxed), now);
        ((self.burst - debt) / self.interval).unsigned_abs()
    }

    /// Nanoseconds until it is full, in [0, burst].
    fn debt(&self, full_at: i64, now: Timestamp) -> i64 {
        let debt = full_at.saturating_sub(now.0);
        // More than a whole bucket cannot be missing: the clock stepped back.
        if debt > self.burst { 0 } else { debt.max(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::{Failures, spawn};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    const SECOND: i64 = 1_000_000_000;

    fn taken(limiter: &Limiter, at: i64, tries: usize) -> usize {
        (0..tries).filter(|_| limiter.take(Timestamp(at))).count()
    }

    #[test]
    fn a_second_is_let_through_at_once_and_refills_evenly() {
        let limiter = Limiter::new(100);
        assert!(!limiter.is_starved(Timestamp(5 * SECOND)));
        assert_eq!(limiter.available(Timestamp(5 * SECOND)), 100);
        assert_eq!(taken(&limiter, 5 * SECOND, 1000), 100);
        assert_eq!(limiter.available(Timestamp(5 * SECOND)), 0);
        assert_eq!(taken(&limiter, 5 * SECOND + SECOND / 10, 1000), 10);
        assert_eq!(taken(&limiter, 5 * SECOND + SECOND / 10, 1000), 0);
        assert!(limiter.is_starved(Timestamp(6 * SECOND)));
        assert!(!limiter.is_starved(Timestamp(5 * SECOND + SECOND / 10 + SECOND)), "full again");
        assert_eq!(taken(&limiter, 7 * SECOND, 99), 99);
        assert!(!limiter.is_starved(Timestamp(7 * SECOND)), "nobody found it empty");
        assert_eq!(taken(&limiter, 60 * SECOND, 1000), 100, "no more than a second's worth is saved up");
    }

    #[test]
    fn over_a_minute_it_is_the_limit_and_one_bucket() {
        for limit in [1, 3, 7, 1000, 5000] {
            let limiter = Limiter::new(limit);
            let shown: usize = (0..60_000).map(|ms| taken(&limiter, ms * SECOND / 1000, 20)).sum();
            let expected = 61 * limit as usize;
            assert!(shown.abs_diff(expected) <= expected / 50 + 1, "{limit}: {shown} of {expected}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_fills_it() {
        let limiter = Limiter::new(10);
        assert_eq!(taken(&limiter, 1000 * SECOND, 100), 10);
        assert_eq!(taken(&limiter, 10 * SECOND, 100), 10);
        assert_eq!(taken(&limiter, -10 * SECOND, 100), 10);
        assert_eq!(taken(&limiter, i64::MIN, 1), 1);
        assert_eq!(taken(&limiter, i64::MAX, 1), 1);
    }

    #[test]
    fn threads_together_take_no_more() {
        let limiter = Arc::new(Limiter::new(1000));
        let all = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (limiter, all) = (Arc::clone(&limiter), Arc::clone(&all));
                let body = move || {
                    all.fetch_add(taken(&limiter, 7 * SECOND, 10_000), Ordering::Relaxed);
                };
                spawn("taker", &Failures::new(), body).expect("a thread")
            })
            .collect();
        threads.into_iter().for_each(crate::actor::Thread::join);
        assert_eq!(all.load(Ordering::Relaxed), 1000);
    }
}
