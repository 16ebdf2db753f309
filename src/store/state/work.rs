//! Background work as the store sees it: which job runs, which of its steps is written next (H5).
//!
//! In: what is due, steps that were made. Out: at most one step a commit. Owns: the steps that wait. Invariants: one job
//! at a time; a step whose inputs have changed is dropped with its job; behind an I/O error all of it is (C4).

use super::super::base::ExpireStep;
use super::super::due::{ExpiryDue, TierExpiry};
use super::super::error::StoreError;
use super::super::job::{HistoryJob, Purpose};
use super::super::ledger::Ledger;
use super::super::segment::SegmentStep;
use super::super::tier::{TierChange, span_end};
use super::super::worker::{Job, Step, WorkerHandle};
use super::{Store, Timestamp};
use crate::event::Slice;
use std::collections::VecDeque;

/// The work under way.
#[derive(Default)]
pub(super) struct Work {
    /// Makes the steps; without one they are made here, when they are written.
    worker: Option<WorkerHandle>,
    /// Of the last job that began.
    number: u64,
    /// The job, where no worker has it.
    job: Option<Job>,
    is_under_way: bool,
    /// Made and not known to have landed, oldest first.
    steps: VecDeque<Step>,
}

impl Work {
    pub(super) fn set_worker(&mut self, worker: WorkerHandle) {
        self.stop();
        self.worker = Some(worker);
    }

    /// Drops the job: what it has written is rubbish that the next one of its place deletes.
    pub(super) fn stop(&mut self) {
        self.job = None;
        self.steps.clear();
        if std::mem::take(&mut self.is_under_way)
            && let Some(worker) = &self.worker
        {
            worker.drop_job();
        }
        self.number += 1;
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_under_way
    }

    pub(super) fn begin(&mut self, job: Job) {
        self.number += 1;
        self.is_under_way = true;
        match &self.worker {
            Some(worker) => self.is_under_way = worker.begin(self.number, job),
            None => self.job = Some(job),
        }
    }

    /// A step that the worker made, or why it made none.
    pub(super) fn take(&mut self, number: u64, outcome: Result<Option<Step>, StoreError>) -> Result<(), StoreError> {
        if number != self.number || !self.is_under_way {
            return Ok(());
        }
        match outcome {
            Ok(Some(step)) => self.steps.push_back(step),
            Ok(None) => self.stop(),
            Err(error) => {
                self.stop();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether there is a step for the next commit to write, made and still current. `until` is the first slice that must
    /// stay a segment.
    fn prepare(&mut self, ledger: &Ledger, until: Slice) -> Result<bool, StoreError> {
        if self.steps.is_empty()
            && let Some(job) = &mut self.job
        {
            match ledger.job_step(job)? {
                Some(step) => self.steps.push_back(step),
                None => self.stop(),
            }
        }
        let is_current = |step: &Step| match step {
            Step::Segment(step) => ledger.is_current_segment(step),
            Step::History(step) => {
                // A reload or a clock that stepped back may have moved what windows read back into the span.
                let is_free = step.spec.purpose != Purpose::Page || span_end(1, step.spec.start) <= until.0;
                is_free && ledger.is_current(&step.spec)
            }
        };
        if self.steps.front().is_some_and(|step| !is_current(step)) {
            self.stop();
        }
        Ok(!self.steps.is_empty())
    }

    pub(super) fn front(&self) -> Option<&Step> {
        self.steps.front()
    }

    /// The step of [`prepare`](Self::prepare) is durable.
    pub(super) fn landed(&mut self) {
        let Some(step) = self.steps.pop_front() else { return };
        if step.is_last() {
            self.is_under_way = false;
            self.job = None;
        } else if let Some(worker) = &self.worker {
            worker.next(self.number);
        }
    }
}

/// What a commit does beside what it was asked for.
#[derive(Default)]
pub(super) struct Chores {
    pub(super) expire: Option<ExpireStep>,
    pub(super) expire_spans: Option<TierExpiry>,
    pub(super) tiers: Option<TierChange>,
    /// A piece of what nobody reads any more is deleted.
    pub(super) clears: bool,
    /// A step of [`Work`].
    pub(super) has_step: bool,
    /// Whole segments of short slices.
    pub(super) segments: Vec<SegmentStep>,
    /// What goes only because of `max_size`.
    pub(super) is_shed: bool,
}

impl Store {
    /// Steps are made by a worker from here on.
    pub fn set_worker(&mut self, worker: WorkerHandle) {
        self.work.set_worker(worker);
    }

    /// Takes a step that the worker made.
    ///
    /// # Errors
    /// The worker's.
    pub(in crate::store) fn take_step(
        &mut self,
        number: u64,
        outcome: Result<Option<Step>, StoreError>,
    ) -> Result<(), StoreError> {
        match self.work.take(number, outcome) {
            // The store has let the file go meanwhile, and begins jobs anew once it has it again.
            Err(StoreError::Broken { .. }) => Ok(()),
            Err(error) => {
                self.ledger.give_up();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whether the next commits may write steps of jobs.
    pub(in crate::store) fn allow_steps(&mut self, may_step: bool) {
        self.may_step = may_step;
    }

    /// Whether spans may go because their time is over: not while the wall clock is in doubt (T3).
    pub(in crate::store) fn allow_expiry(&mut self, may_expire: bool) {
        self.may_expire = may_expire;
    }

    /// What the next commit does besides: the tiers as the pipeline file has them, then expiry, then a step of the job that
    /// runs, or the first of the one that is due.
    pub(super) fn chores(&mut self, time: Timestamp, watermark: Timestamp) -> Result<Chores, StoreError> {
        let mut chores = Chores { tiers: self.ledger.tier_change(&self.limits.tiers), ..Chores::default() };
        if chores.tiers.is_some() || !self.may_step {
            // Until the rows say what the file says nothing is paged or dropped by them.
            return Ok(chores);
        }
        if self.ledger.has_rubbish() {
            chores.clears = true;
            return Ok(chores);
        }
        // A slice that windows still hold is read back when it leaves them: it must be there then.
        let now = time.min(self.slid_at);
        let kept_from = self.oldest_kept(now);
        let width = self.limits.slice;
        if self.work.is_idle() {
            let back = |nanos: i64| width.slice_of(now.plus_nanos(-nanos));
            let shed = self.shed_due(kept_from)?;
            chores.is_shed = shed.is_some();
            let due = || self.ledger.expiry_due(back).filter(|_| self.may_expire);
            match shed.or_else(|| due().map(Shed::Spans)) {
                Some(Shed::Spans(ExpiryDue::Drop(expiry))) => {
                    chores.expire_spans = Some(expiry);
                    return Ok(chores);
                }
                Some(Shed::Spans(ExpiryDue::ToBase(spec))) => {
                    self.work.begin(Job::History(Box::new(HistoryJob::new(spec))))
                }
                Some(Shed::Slices(expire)) => {
                    chores.expire = Some(expire);
                    return Ok(chores);
                }
                None => {
                    chores.expire = self.ledger.expire_step(kept_from, super::EXPIRE_SLICES_MAX)?;
                    if chores.expire.is_some() {
                        return Ok(chores);
                    }
                    chores.segments = self.begin_due(kept_from, width.slice_of(watermark))?;
                }
            }
        }
        if chores.segments.is_empty() {
            chores.has_step = self.work.prepare(&self.ledger, kept_from)?;
        }
        Ok(chores)
    }

    /// Begins the job that is due, or makes segments at once where slices are short. In turn, so that neither segments nor
    /// pages wait for ever where slices are as short as commits.
    fn begin_due(&mut self, kept_from: Slice, open: Slice) -> Result<Vec<SegmentStep>, StoreError> {
        let until = kept_from.min(open);
        let has_turn = self.ledger.last_commit().0.is_multiple_of(2);
        let mut history = if has_turn { self.ledger.history_due(until) } else { None };
        if history.is_none() {
            let segments = self.ledger.small_segments(open)?;
            if !segments.is_empty() {
                return Ok(segments);
            }
            if let Some(slice) = self.ledger.segment_candidate(open) {
                self.work.begin(Job::Segment(self.ledger.segment_job(slice)));
                return Ok(Vec::new());
            }
            history = if has_turn { None } else { self.ledger.history_due(until) };
        }
        if let Some(spec) = history {
            self.work.begin(Job::History(Box::new(HistoryJob::new(spec))));
        }
        Ok(Vec::new())
    }
}

/// What goes before its time.
pub(super) enum Shed {
    Spans(ExpiryDue),
    Slices(ExpireStep),
}
