//! The clock as an argument: the only file that reads the machine's clocks.
//!
//! Out: [`Clock`], [`SystemClock`] for the product, [`ManualClock`] for tests and virtual time.
//! Invariant: nothing else in the crate calls `SystemTime::now` or `Instant::now`; clippy enforces it.

use super::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Wall and monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time; may step in both directions.
    fn wall(&self) -> Timestamp;
    /// Nanoseconds since some fixed moment; never goes back.
    fn monotonic(&self) -> i64;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    fn monotonic(&self) -> i64 {
        (**self).monotonic()
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp(t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec))
    }

    fn monotonic(&self) -> i64 {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    pub fn new(wall: Timestamp) -> ManualClock {
        ManualClock { wall: AtomicI64::new(wall.0), monotonic: AtomicI64::new(0) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, nanos: i64) {
        self.wall.fetch_add(nanos, Ordering::SeqCst);
        self.monotonic.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Steps the wall clock alone, as NTP or an operator may (T3).
    pub fn step_wall(&self, to: Timestamp) {
        self.wall.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> i64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}
