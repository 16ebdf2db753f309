//! The collectors' threads: which there are, and which begin and end at a reload (R1).
//!
//! In: plans, one after another. Out: running collectors. Owns: their threads. Invariants: a collector whose table and feeds
//! say what they said is not touched; one that was changed begins anew, and its series go on; the thread that evaluates
//! recorded expressions outlives every reload.

use super::collect::{Counted, Into, collect_gpu, collect_host, collect_process, goes_on, internal};
use super::names::shown_as;
use super::plan::{Plan, SourceKind, SourcePlan};
use super::roster::Roster;
use crate::actor::{Failures, Thread, spawn};
use crate::channel::{Receiver, Sender, bounded};
use crate::delta::SeriesTable;
use crate::event::{Clock, CommitId, SourceIndex};
use crate::record::{Recorded, Recorder};
use crate::rule::SharedRules;
use crate::rule::typed::FeedSource;
use crate::shard::ring::RingPolicy;
use crate::shard::{LineOutcome, RecentRejects, ShardHandle};
use crate::source::inproc::{Producers, RING_CAPACITY};
use crate::store::StoreHandle;
use crate::view::View;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The source of the pipeline's own metrics.
const INTERNAL: SourceIndex = SourceIndex(0);

/// What a collector works with.
#[derive(Clone)]
pub(super) struct Kit {
    pub(super) rules: Arc<SharedRules>,
    pub(super) table: Arc<SeriesTable>,
    pub(super) shards: Vec<ShardHandle>,
    pub(super) recent: Arc<RecentRejects>,
    pub(super) store: StoreHandle,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) failures: Failures,
}

impl Kit {
    /// The way in of a source of this process.
    pub(super) fn producers(&self, source: SourceIndex) -> Arc<Producers> {
        let producers = Producers::new(
            Arc::clone(&self.rules),
            Arc::clone(&self.table),
            self.shards.clone(),
            Arc::clone(&self.clock),
            source,
            RING_CAPACITY,
            RingPolicy::Block,
        );
        Arc::new(producers.with_recent(Arc::clone(&self.recent)))
    }
}

/// One running thread.
struct Collecting {
    source: SourceIndex,
    /// Everything in the files that it depends on.
    words: String,
    /// Dropping it ends the thread.
    stop: Sender<()>,
    thread: Thread,
}

/// The running collectors.
pub(super) struct Collectors {
    kit: Kit,
    running: Vec<Collecting>,
    /// The one of recorded expressions.
    recorder: (Sender<()>, Thread),
    /// Told to end, which takes as long as the reading under way.
    ending: Vec<Thread>,
    counted: Arc<Mutex<Counted>>,
}

impl Collectors {
    /// Starts the thread that evaluates recorded expressions; what they come to is input of `internal`.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(super) fn new(kit: Kit, recorder: Recorder, regroup: Regroup, view: View) -> std::io::Result<Collectors> {
        let (stop, stopped) = bounded::<()>(1);
        let shard = kit.shards[0].clone();
        let thread = spawn("record", &kit.failures, move || record(recorder, &regroup, &view, &shard, &stopped))?;
        let counted = Arc::default();
        Ok(Collectors { kit, running: Vec::new(), recorder: (stop, thread), ending: Vec::new(), counted })
    }

    /// Ends what the plan does not say any more and starts what it says anew: one thread for each collecting source.
    ///
    /// # Errors
    /// When the system refuses another thread; the others run.
    pub(super) fn follow(&mut self, plan: &Plan, roster: &Roster) -> std::io::Result<()> {
        let collects = |source: &&SourcePlan| source.enabled && !matches!(source.kind, SourceKind::Socket(_));
        let wanted: Vec<(SourceIndex, &SourcePlan, String)> = plan
            .sources
            .iter()
            .filter(collects)
            .filter_map(|source| Some((roster.index(&source.name)?, source, words_of(plan, source))))
            .collect();
        let is_wanted =
            |known: &Collecting| wanted.iter().any(|(at, _, words)| *at == known.source && *words == known.words);
        let (stays, ends): (Vec<_>, Vec<_>) = self.running.drain(..).partition(is_wanted);
        self.running = stays;
        self.ending.extend(ends.into_iter().map(|ended| ended.thread));
        let (ended, ending) = self.ending.drain(..).partition(Thread::is_finished);
        self.ending = ending;
        Vec::into_iter(ended).for_each(Thread::join);
        let mut refused = Ok(());
        for (at, source, words) in wanted {
            if !self.running.iter().any(|known| known.source == at) {
                match self.start(at, source, words) {
                    Ok(collecting) => self.running.push(collecting),
                    Err(error) => refused = Err(error),
                }
            }
        }
        refused
    }

    fn start(&self, at: SourceIndex, source: &SourcePlan, words: String) -> std::io::Result<Collecting> {
        let producers = self.kit.producers(at);
        let (stop, stopped) = bounded::<()>(1);
        let Kit { table, store, clock, failures, .. } = self.kit.clone();
        let (rules, name) = (self.kit.rules.load(), source.name.clone());
        let prefix = shown_as(source);
        let thread = match source.kind.clone() {
            SourceKind::Socket(_) => unreachable!("sockets are read by reactors"),
            SourceKind::Internal => {
                let counted = Arc::clone(&self.counted);
                spawn(&source.name, &failures, move || {
                    internal(&producers, &store, &rules, &table, &counted, &stopped)
                })?
            }
            SourceKind::Host(host) => spawn(&source.name, &failures, move || {
                collect_host(&name, &host, &producers, &rules, &*clock, &stopped);
            })?,
            SourceKind::Process(process) => spawn(&source.name, &failures, move || {
                let Some(into) = Into::new(&producers, &rules, &name, prefix, "process") else { return };
                collect_process(&name, &process, into, &*clock, &stopped);
            })?,
            SourceKind::Gpu(gpu) => spawn(&source.name, &failures, move || {
                let Some(into) = Into::new(&producers, &rules, &name, prefix, "gpu") else { return };
                collect_gpu(&name, &gpu, into, &stopped);
            })?,
        };
        Ok(Collecting { source: at, words, stop, thread })
    }

    pub(super) fn stop(self) {
        let mut threads = self.ending;
        drop(self.recorder.0);
        threads.push(self.recorder.1);
        for Collecting { stop, thread, .. } in self.running {
            drop(stop);
            threads.push(thread);
        }
        threads.into_iter().for_each(Thread::join);
    }
}

/// Its table, and the feeds that name it with the kinds of their metrics: a collector looks its metrics up when it starts.
fn words_of(plan: &Plan, source: &SourcePlan) -> String {
    use std::fmt::Write as _;
    let mut words = format!("{:?}", (&source.kind, &source.labels));
    for feed in &plan.typed.feeds {
        if matches!(&feed.from, FeedSource::Source { source: of, .. } if *of == source.name) {
            let metric = &plan.metrics[feed.metric];
            let _ = write!(words, "{:?}", (&metric.name, metric.kind, &feed.from, &feed.labels, feed.scale));
        }
    }
    words
}

/// Where a reload leaves the next group of recorded expressions, and how long their edges are evaluated again.
pub(super) type Regroup = Arc<Mutex<Option<(Vec<Recorded>, i64)>>>;

/// How often to look for a commit that a recorded expression has not seen.
const RECORD_EVERY: Duration = Duration::from_millis(100);
/// Bytes of results in one message to the shard.
const RECORD_BYTES_MAX: usize = 1 << 20;

fn record(mut recorder: Recorder, regroup: &Regroup, view: &View, shard: &ShardHandle, stopped: &Receiver<()>) {
    let mut seen = CommitId(0);
    while goes_on(stopped, RECORD_EVERY) {
        if let Some((group, again_for)) = regroup.lock().unwrap_or_else(PoisonError::into_inner).take() {
            recorder.replace(group, again_for);
        }
        let commit = view.last_commit();
        if commit == seen {
            continue;
        }
        seen = commit;
        let results = match recorder.advance(view.last_commit_time()) {
            Ok(results) => results,
            Err(error) => {
                tracing::warn!(%error, "recorded expressions wait for the store");
                continue;
            }
        };
        let mut lines = Vec::new();
        for (at, result) in results.iter().enumerate() {
            lines.extend_from_slice(crate::record::event(result).as_bytes());
            lines.push(b'\n');
            if lines.len() < RECORD_BYTES_MAX && at + 1 < results.len() {
                continue;
            }
            let sent = shard.lines(
                INTERNAL,
                std::mem::take(&mut lines),
                Box::new(|outcomes| {
                    // Of thousands of results only the first is named: the others mostly fail alike.
                    let mut refused = outcomes.into_iter().filter_map(|(line, outcome)| match outcome {
                        LineOutcome::Refused(reason, detail) => Some((line, reason, detail)),
                        _ => None,
                    });
                    if let Some((line, reason, detail)) = refused.next() {
                        let others = refused.count();
                        tracing::warn!(%reason, detail, line, others, "results of recorded expressions were refused");
                    }
                }),
            );
            if sent.is_err() {
                tracing::warn!(
                    "results of recorded expressions found no room in the shard; the next slice has new ones"
                );
            }
        }
    }
}
