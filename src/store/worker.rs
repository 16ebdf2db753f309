//! The thread that merges: segments, pages, roll-ups, folds (H5).
//!
//! In: jobs, one at a time, and leave for further steps. Out: finished steps, into the store's inbox. Owns: the job.
//! Invariants: it only reads, through snapshots that live as long as one step; at most [`STEPS_AHEAD`] steps are made
//! that are not written yet; a step of a job that the store has dropped is not written.

use super::error::{Fault, StoreError};
use super::handle::StoreHandle;
use super::job::{HistoryJob, HistoryStep};
use super::ledger::Ledger;
use super::reader::StoreReader;
use super::segment::{SegmentJob, SegmentStep};
use crate::channel::{Ended, Receiver, Sender, bounded};
use redb::{ReadTransaction, ReadableDatabase};
use std::time::Duration;

/// Steps that may be made and not written: one is written while the next is made.
const STEPS_AHEAD: u32 = 2;
/// Rows of a segment that one commit may write: a bounded step (H5).
const SEGMENT_ROWS_STEP: usize = 200_000;
/// Orders that may wait: a job, and leave for each of its steps under way.
const ORDERS_MAX: usize = 16;

/// Work of several steps.
pub(super) enum Job {
    Segment(SegmentJob),
    History(Box<HistoryJob>),
}

/// What one commit writes of a job.
#[derive(Debug)]
pub(super) enum Step {
    Segment(SegmentStep),
    History(HistoryStep),
}

impl Step {
    pub(super) fn is_last(&self) -> bool {
        match self {
            Step::Segment(step) => step.is_last(),
            Step::History(step) => step.is_last(),
        }
    }
}

impl Job {
    /// The next step; `None` when the job is stale.
    pub(super) fn step(&mut self, txn: &ReadTransaction) -> Result<Option<Step>, Fault> {
        match self {
            Job::Segment(job) => Ok(Some(Step::Segment(job.step(txn, SEGMENT_ROWS_STEP)?))),
            Job::History(job) => Ok(job.step(txn)?.map(Step::History)),
        }
    }
}

impl Ledger {
    /// The next step of a job, made here.
    pub(super) fn job_step(&self, job: &mut Job) -> Result<Option<Step>, StoreError> {
        self.with(|db| job.step(&db.begin_read()?))
    }
}

enum Order {
    /// Another job, instead of whatever is under way.
    Begin(u64, Job),
    /// A step was written.
    Next(u64),
    /// The job is not wanted any more.
    Drop,
}

/// How the store reaches its worker.
pub struct WorkerHandle(Sender<Order>);

impl WorkerHandle {
    /// False when the worker takes nothing: it has stopped, or is far behind.
    pub(super) fn begin(&self, number: u64, job: Job) -> bool {
        self.0.try_send(Order::Begin(number, job)).is_ok()
    }

    pub(super) fn next(&self, number: u64) {
        // Without it the worker stands still until it gets another job, and the store gives it one.
        let _ = self.0.try_send(Order::Next(number));
    }

    pub(super) fn drop_job(&self) {
        // It would only work in vain.
        let _ = self.0.try_send(Order::Drop);
    }
}

/// The worker before its thread runs.
pub struct Worker {
    orders: Receiver<Order>,
    reader: StoreReader,
    store: StoreHandle,
    job: Option<(u64, Job)>,
    leave: u32,
}

/// A worker that reads `reader` and answers to `store`; [`Store::set_worker`](super::Store::set_worker) takes the handle.
pub fn store_worker(reader: StoreReader, store: StoreHandle) -> (WorkerHandle, Worker) {
    let (orders, receiver) = bounded(ORDERS_MAX);
    (WorkerHandle(orders), Worker { orders: receiver, reader, store, job: None, leave: 0 })
}

impl Worker {
    /// Runs until the store has let go of its handle.
    pub fn run(mut self) {
        loop {
            let order = match self.job.is_some() && self.leave > 0 {
                true => self.orders.try_recv(),
                false => match self.orders.recv_timeout(Duration::from_secs(3600)) {
                    Ok(order) => Some(order),
                    Err(Ended::TimedOut) => None,
                    Err(Ended::Closed) => return,
                },
            };
            match order {
                Some(order) => self.receive(order),
                None => {
                    if !self.step() {
                        return;
                    }
                }
            }
        }
    }

    fn receive(&mut self, order: Order) {
        match order {
            Order::Begin(number, job) => (self.job, self.leave) = (Some((number, job)), STEPS_AHEAD),
            Order::Next(number) if self.job.as_ref().is_some_and(|(of, _)| *of == number) => self.leave += 1,
            Order::Next(_) => {}
            Order::Drop => self.job = None,
        }
    }

    /// Makes a step; false when the store is gone.
    fn step(&mut self) -> bool {
        let Some((number, job)) = &mut self.job else { return true };
        let (number, outcome) = (*number, self.reader.step(|txn| job.step(txn)));
        self.leave -= 1;
        if !matches!(&outcome, Ok(Some(step)) if !step.is_last()) {
            self.job = None;
        }
        self.store.step(number, outcome)
    }
}
