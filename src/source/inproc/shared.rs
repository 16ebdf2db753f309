//! Handles that may travel between threads and tasks.
//!
//! In: calls from any thread. Out: the same as the thread's own [`super::Producer`] would write. A call
//! finds its thread's handle in a thread-local table (a few nanoseconds); the first call of a thread makes
//! it. Invariant: no lock after a thread's first call; a thread that ends hands over what it wrote.

use super::handle::{LocalCounter, LocalGauge, LocalHistogram, LocalSet};
use super::timer::Timer;
use super::{HandleError, Producer, Producers};
use crate::event::Clock;
use crate::shard::Gone;
use crate::shard::ring::RingWriter;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One thread's handle for a shared handle's number.
enum Local {
    Counter(LocalCounter),
    Gauge(LocalGauge),
    Histogram(LocalHistogram),
    Set(LocalSet),
}

#[derive(Default)]
struct Locals {
    /// By the number of the shared handle.
    handles: Vec<Option<Local>>,
    /// One producer for each pipeline this thread has used.
    producers: Vec<(usize, Producer)>,
}

impl Locals {
    /// The place of this thread's producer for a pipeline.
    fn producer_at(&mut self, producers: &Arc<Producers>) -> Result<usize, Gone> {
        let pipeline = Arc::as_ptr(producers) as usize;
        if let Some(at) = self.producers.iter().position(|(known, _)| *known == pipeline) {
            return Ok(at);
        }
        self.producers.push((pipeline, producers.producer()?));
        Ok(self.producers.len() - 1)
    }
}

/// The writing end of this thread's ring, which its handles share.
pub(super) fn thread_writer(producers: &Arc<Producers>) -> Result<Rc<RingWriter>, Gone> {
    LOCALS
        .try_with(|locals| {
            let mut locals = locals.borrow_mut();
            let at = locals.producer_at(producers)?;
            Ok(Rc::clone(&locals.producers[at].1.writer))
        })
        .unwrap_or(Err(Gone))
}

thread_local! {
    static LOCALS: RefCell<Locals> = RefCell::default();
}

/// Numbers handles across all pipelines of the process, so that one table a thread suffices.
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(0);

struct Shared {
    number: usize,
    producers: Arc<Producers>,
    name: String,
    labels: Vec<(String, String)>,
    kind: HandleKind,
    rate: f64,
}

#[derive(Clone, Copy)]
enum HandleKind {
    Counter,
    Gauge,
    Histogram,
    Timing,
    Set,
}

impl Shared {
    fn new(
        producers: &Arc<Producers>,
        name: &str,
        labels: &[(&str, &str)],
        kind: HandleKind,
    ) -> Result<Arc<Shared>, HandleError> {
        let shared = Arc::new(Shared {
            number: NEXT_HANDLE.fetch_add(1, Ordering::Relaxed),
            producers: Arc::clone(producers),
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            kind,
            rate: 1.0,
        });
        // Making the calling thread's handle now reports every error where the handle is made.
        LOCALS.with_borrow_mut(|locals| shared.make(locals).map(|_| ()))?;
        Ok(shared)
    }

    fn make<'l>(&self, locals: &'l mut Locals) -> Result<&'l Local, HandleError> {
        let at = locals.producer_at(&self.producers)?;
        let producer = &locals.producers[at].1;
        let labels: Vec<(&str, &str)> = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let local = match self.kind {
            HandleKind::Counter => Local::Counter(producer.counter(&self.name, &labels)?),
            HandleKind::Gauge => Local::Gauge(producer.gauge(&self.name, &labels)?),
            HandleKind::Histogram => Local::Histogram(producer.histogram(&self.name, &labels)?.sampled(self.rate)?),
            HandleKind::Timing => Local::Histogram(producer.timing(&self.name, &labels)?.sampled(self.rate)?),
            HandleKind::Set => Local::Set(producer.set(&self.name, &labels)?),
        };
        if locals.handles.len() <= self.number {
            locals.handles.resize_with(self.number + 1, || None);
        }
        Ok(locals.handles[self.number].insert(local))
    }

    /// Runs `call` with this thread's handle. After the pipeline has stopped, or while the thread is being
    /// torn down, there is none and the call does nothing.
    #[inline]
    fn with(&self, call: impl FnOnce(&Local)) {
        // The table may already be gone when a thread's other locals are destroyed.
        let _ = LOCALS.try_with(|locals| {
            let mut locals = locals.borrow_mut();
            match locals.handles.get(self.number) {
                Some(Some(local)) => call(local),
                _ => {
                    if let Ok(local) = self.make(&mut locals) {
                        call(local);
                    }
                }
            }
        });
    }
}

/// A counter.
#[derive(Clone)]
pub struct Counter(Arc<Shared>);

impl Counter {
    /// A counter of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn new(producers: &Arc<Producers>, name: &str, labels: &[(&str, &str)]) -> Result<Counter, HandleError> {
        Shared::new(producers, name, labels, HandleKind::Counter).map(Counter)
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds a whole number.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.with(|local| {
            if let Local::Counter(counter) = local {
                counter.add(by);
            }
        });
    }

    /// Adds a fraction, rounded to 10⁻⁹.
    pub fn add_f64(&self, by: f64) {
        self.0.with(|local| {
            if let Local::Counter(counter) = local {
                counter.add_f64(by);
            }
        });
    }
}

/// A gauge.
#[derive(Clone)]
pub struct Gauge(Arc<Shared>);

impl Gauge {
    /// A gauge of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn new(producers: &Arc<Producers>, name: &str, labels: &[(&str, &str)]) -> Result<Gauge, HandleError> {
        Shared::new(producers, name, labels, HandleKind::Gauge).map(Gauge)
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        self.with(|gauge| gauge.set(value));
    }

    /// Moves it up.
    pub fn inc(&self, by: f64) {
        self.with(|gauge| gauge.inc(by));
    }

    /// Moves it down.
    pub fn dec(&self, by: f64) {
        self.with(|gauge| gauge.dec(by));
    }

    fn with(&self, call: impl FnOnce(&LocalGauge)) {
        self.0.with(|local| {
            if let Local::Gauge(gauge) = local {
                call(gauge);
            }
        });
    }
}

/// A histogram: any distribution.
#[derive(Clone)]
pub struct Histogram(Arc<Shared>);

impl Histogram {
    /// A histogram of this series; values in the metric's base unit.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn new(producers: &Arc<Producers>, name: &str, labels: &[(&str, &str)]) -> Result<Histogram, HandleError> {
        Shared::new(producers, name, labels, HandleKind::Histogram).map(Histogram)
    }

    /// A histogram of durations, named and scaled as a StatsD timing is.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn timing(producers: &Arc<Producers>, name: &str, labels: &[(&str, &str)]) -> Result<Histogram, HandleError> {
        Shared::new(producers, name, labels, HandleKind::Timing).map(Histogram)
    }

    /// The same histogram, recording each call with this probability and a weight of its inverse.
    ///
    /// # Errors
    /// [`HandleError::Rate`] outside [1/1024, 1].
    pub fn sampled(&self, rate: f64) -> Result<Histogram, HandleError> {
        let shared = Arc::new(Shared {
            number: NEXT_HANDLE.fetch_add(1, Ordering::Relaxed),
            producers: Arc::clone(&self.0.producers),
            name: self.0.name.clone(),
            labels: self.0.labels.clone(),
            kind: self.0.kind,
            rate,
        });
        LOCALS.with_borrow_mut(|locals| shared.make(locals).map(|_| ()))?;
        Ok(Histogram(shared))
    }

    /// Records a value in base units.
    pub fn observe(&self, value: f64) {
        self.with(|histogram| histogram.observe(value));
    }

    /// Records a duration.
    pub fn observe_duration(&self, duration: Duration) {
        self.with(|histogram| histogram.observe_duration(duration));
    }

    /// Records a duration in nanoseconds.
    pub fn observe_nanos(&self, nanos: u64) {
        self.with(|histogram| histogram.observe_nanos(nanos));
    }

    /// Records the time until the timer is dropped.
    pub fn start_timer(&self) -> Timer {
        Timer::start(self)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.0.producers.clock
    }

    fn with(&self, call: impl FnOnce(&LocalHistogram)) {
        self.0.with(|local| {
            if let Local::Histogram(histogram) = local {
                call(histogram);
            }
        });
    }
}

/// A set.
#[derive(Clone)]
pub struct Set(Arc<Shared>);

impl Set {
    /// A set of this series.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn new(producers: &Arc<Producers>, name: &str, labels: &[(&str, &str)]) -> Result<Set, HandleError> {
        Shared::new(producers, name, labels, HandleKind::Set).map(Set)
    }

    /// Adds a member.
    pub fn insert(&self, member: impl AsRef<[u8]>) {
        self.0.with(|local| {
            if let Local::Set(set) = local {
                set.insert(member);
            }
        });
    }
}
