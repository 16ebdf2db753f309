//! Timers: measure from their start until they are dropped.
//!
//! In: a histogram handle. Out: one duration, unless discarded. Invariant: a panic or a cancelled future
//! drops the timer and so records what it had cost until then.

use super::handle::LocalHistogram;
use super::shared::Histogram;
use crate::event::Clock;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A timer of one thread's handle.
pub struct LocalTimer<'h> {
    histogram: &'h LocalHistogram,
    clock: &'h dyn Clock,
    started: Option<i64>,
}

impl<'h> LocalTimer<'h> {
    pub(super) fn start(histogram: &'h LocalHistogram, clock: &'h dyn Clock) -> LocalTimer<'h> {
        LocalTimer { histogram, clock, started: Some(clock.monotonic()) }
    }

    /// Ends without recording.
    pub fn discard(mut self) {
        self.started = None;
    }
}

impl Drop for LocalTimer<'_> {
    fn drop(&mut self) {
        if let Some(started) = self.started {
            self.histogram.observe_nanos((self.clock.monotonic() - started).max(0) as u64);
        }
    }
}

/// A timer of a shared handle; may be dropped on another thread than it was started on.
pub struct Timer {
    histogram: Histogram,
    started: Option<i64>,
}

impl Timer {
    pub(super) fn start(histogram: &Histogram) -> Timer {
        Timer { histogram: histogram.clone(), started: Some(histogram.clock().monotonic()) }
    }

    /// Ends without recording.
    pub fn discard(mut self) {
        self.started = None;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(started) = self.started {
            let elapsed = self.histogram.clock().monotonic() - started;
            self.histogram.observe_nanos(elapsed.max(0) as u64);
        }
    }
}

/// A future that records how long it took from its first poll until it was ready or dropped.
pub struct Timed<F> {
    future: Pin<Box<F>>,
    histogram: Histogram,
    timer: Option<Timer>,
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.timer.is_none() {
            self.timer = Some(self.histogram.start_timer());
        }
        let polled = self.future.as_mut().poll(context);
        if polled.is_ready() {
            self.timer = None;
        }
        polled
    }
}

/// `future.timed(&histogram)`.
pub trait TimedExt: Future + Sized {
    /// Records into `histogram` how long this future takes.
    fn timed(self, histogram: &Histogram) -> Timed<Self> {
        Timed { future: Box::pin(self), histogram: histogram.clone(), timer: None }
    }
}

impl<F: Future> TimedExt for F {}

/// Evaluates an expression and records its time on a histogram, also when it panics or leaves the function.
///
/// `timed!(histogram, expression)` has the value of the expression. The histogram is a [`Histogram`] or a
/// [`LocalHistogram`]. An expression that awaits is timed to its end with both, but only
/// `Histogram` may be held across threads; for a future there is also [`TimedExt::timed`].
///
/// ```
/// use hydrograph::{Pipeline, timed};
///
/// let pipeline = Pipeline::builder().start()?;
/// let latency = pipeline.timing("sum", &[])?;
/// let sum = timed!(latency, (1..=1000).sum::<u64>());
/// assert_eq!(sum, 500_500);
/// assert_eq!(pipeline.get("sum_seconds", &[])?, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! timed {
    ($histogram:expr, $expression:expr $(,)?) => {{
        // Bound by reference first: a handle that is made in place lives as long as its timer.
        let histogram = &$histogram;
        let _timer = histogram.start_timer();
        $expression
    }};
}

#[cfg(test)]
mod tests {
    use super::TimedExt;
    use crate::pipeline::Pipeline;
    use std::future::Future;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    fn pipeline() -> Pipeline {
        Pipeline::builder().start().unwrap()
    }

    /// Count and sum of the timing `took`.
    fn took(pipeline: &Pipeline) -> (u128, f64) {
        let stats = pipeline.stats("took_seconds", &[]).unwrap();
        (stats.count, stats.sum)
    }

    #[test]
    fn timed_has_the_value_and_records_the_time_on_both_kinds_of_handles() {
        let pipeline = pipeline();
        let shared = pipeline.timing("took", &[]).unwrap();
        let producer = pipeline.producer().unwrap();
        let local = producer.timing("took", &[]).unwrap();
        let pause = Duration::from_millis(20);
        assert_eq!(
            timed!(shared, {
                std::thread::sleep(pause);
                1
            }),
            1
        );
        assert_eq!(
            timed!(&local, {
                std::thread::sleep(pause);
                2
            }),
            2
        );
        let in_place = || timed!(producer.timing("took", &[]).unwrap(), 3);
        assert_eq!(in_place(), 3);
        let (count, sum) = took(&pipeline);
        assert_eq!(count, 3);
        assert!(sum >= 0.04, "{sum}");
    }

    #[test]
    fn timed_records_what_leaves_early_and_what_panics() {
        let pipeline = pipeline();
        let shared = pipeline.timing("took", &[]).unwrap();
        let producer = pipeline.producer().unwrap();
        let local = producer.timing("took", &[]).unwrap();
        let leaves = |text: &str| -> Result<u32, std::num::ParseIntError> { Ok(timed!(shared, text.parse::<u32>()?)) };
        assert!(leaves("x").is_err());
        for _ in 0..2 {
            let caught =
                catch_unwind(AssertUnwindSafe(|| -> u32 { timed!(local, std::panic::resume_unwind(Box::new(1))) }));
            assert!(caught.is_err());
        }
        assert_eq!(took(&pipeline).0, 3);
    }

    #[test]
    fn a_discarded_timer_and_an_unpolled_future_leave_no_sample() {
        let pipeline = pipeline();
        let shared = pipeline.timing("took", &[]).unwrap();
        shared.start_timer().discard();
        drop(std::future::ready(1).timed(&shared));
        shared.observe_nanos(1);
        assert_eq!(took(&pipeline).0, 1);
    }

    #[test]
    fn a_future_is_timed_until_it_is_ready_or_dropped() {
        let pipeline = pipeline();
        let shared = pipeline.timing("took", &[]).unwrap();
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let mut ready = Box::pin(std::future::ready(7).timed(&shared));
        assert_eq!(ready.as_mut().poll(context), std::task::Poll::Ready(7));
        drop(ready);
        let mut cancelled = Box::pin(std::future::pending::<()>().timed(&shared));
        assert!(cancelled.as_mut().poll(context).is_pending());
        drop(cancelled);
        assert_eq!(took(&pipeline).0, 2);
    }
}
