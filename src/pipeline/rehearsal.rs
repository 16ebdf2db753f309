//! The tests of a pipeline file, in virtual time: the pipeline's own parts, step by step on one thread.
//!
//! In: a [`Plan`]. Out: a [`TestReport`] for each of its tests. Owns: for the time of one test, a clock that begins at the
//! epoch, a store in memory and one process on it. Invariants: no thread, no socket, no file, no waiting; the same
//! plan gives the same reports; what a kill takes away is what a crash takes away (K7).
//!
//! Time begins at 1970-01-01T00:00:00Z, an edge of every slice, so that a small number in a `time` of a line means seconds
//! since the start of the test. What happens at a time comes in the order of the file, and before what must hold at that
//! time; what must hold is read as every read in the process is: after a commit (Q5).

mod process;
#[cfg(test)]
mod tests;

use self::process::Process;
use super::diagnostic::Diagnostics;
use super::plan::{Plan, SourceKind, SourcePlan, TestAction, TestExpect, TestInput, TestPlan, Want};
use super::reload::ReloadError;
use super::running::series_name;
use super::value::show_duration;
use crate::event::{Clock, ManualClock, SliceWidth, SourceIndex, Timestamp};
use crate::query::{DataError, EvalError, Expression, Value};
use crate::store::{LedgerPath, MEMORY_BYTES, StoreError};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Series that a report shows of each name.
const SHOWN_MAX: usize = 10;
/// Slices that a test may pass: eleven days of ten seconds, which take seconds. One of a hundred years would run for hours.
const SLICES_MAX: i64 = 100_000;
/// Notes of one test.
const NOTES_MAX: usize = 20;

/// What became of one test.
#[derive(Clone, Debug, Default)]
pub struct TestReport {
    /// Its name.
    pub name: String,
    /// Where it stands, `my.toml:120:1`.
    pub place: String,
    /// What did not hold, in the order of time.
    pub failures: Vec<Failure>,
    /// Why it could not be run to its end.
    pub problem: Option<String>,
    /// Lines and results that were refused or dropped, with the reason: not wrong in itself, often the cause of a failure.
    /// Each once, at most twenty.
    pub notes: Vec<String>,
}

impl TestReport {
    /// True when everything held.
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty() && self.problem.is_none()
    }
}

/// An expectation that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Where it stands, `my.toml:121:12`.
    pub place: String,
    /// Nanoseconds after the start.
    pub at: i64,
    /// PromQL.
    pub expr: String,
    /// What it must be.
    pub want: Want,
    /// What it is: the series (empty for a number) and the value.
    pub found: Vec<(String, f64)>,
    /// Why it has no value at all.
    pub problem: Option<String>,
    /// What the names that it reads hold at that time, at most ten series each; without values: nothing.
    pub near: Vec<(String, Vec<(String, f64)>)>,
}

/// Why a test cannot go on.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("metric {0:?} clashes with an earlier one")]
    Rules(String),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the store cannot commit: {0}")]
    Commit(String),
    #[error("{0}")]
    Data(#[from] DataError),
    #[error("{at} is {slices} slices of {slice} after the start; a test passes at most {SLICES_MAX}")]
    TooLong { at: String, slices: i64, slice: String },
    #[error("no descriptor is left: {0}")]
    System(#[from] std::io::Error),
    #[error("the reload of {path} at {at} was refused: {error}")]
    Reload { path: String, at: String, error: Box<ReloadError> },
}

/// Reads the plan that a test reloads.
pub type ReadPlan<'r> = &'r dyn Fn(&Path) -> Result<Plan, Diagnostics>;

/// Runs the tests of a plan, in the order of the file. `read` is asked for what `reload` names; of that the tests are not
/// looked at.
pub fn rehearse(plan: &Plan, read: ReadPlan<'_>) -> Vec<TestReport> {
    plan.tests.iter().map(|test| run(plan, test, read)).collect()
}

fn run(plan: &Plan, test: &TestPlan, read: ReadPlan<'_>) -> TestReport {
    let mut report = TestReport { name: test.name.clone(), place: test.place.clone(), ..TestReport::default() };
    if let Err(stopped) = play(plan, test, read, &mut report) {
        report.problem = Some(stopped.to_string());
    }
    report
}

enum Step<'t> {
    Input(&'t TestInput),
    Expect(&'t TestExpect),
}

fn play(plan: &Plan, test: &TestPlan, read: ReadPlan<'_>, report: &mut TestReport) -> Result<(), Stopped> {
    let inputs = test.input.iter().map(|input| (input.at, Step::Input(input)));
    let expects = test.expect.iter().map(|expect| (expect.at, Step::Expect(expect)));
    let mut steps: Vec<(i64, Step<'_>)> = inputs.chain(expects).collect();
    steps.sort_by_key(|(at, step)| (*at, matches!(step, Step::Expect(_))));
    let (last, slice) = (steps.last().map_or(0, |(at, _)| *at), plan.slice.nanos());
    if last / slice > SLICES_MAX {
        let (at, slice_text) = (show_duration(last), show_duration(slice));
        return Err(Stopped::TooLong { at, slices: last / slice, slice: slice_text });
    }
    let mut stage = Stage::new(plan)?;
    for (at, step) in steps {
        stage.pass(at)?;
        match step {
            Step::Input(input) => match &input.action {
                TestAction::Line(line) => stage.say(line, input.source.as_deref()),
                TestAction::Kill => stage.kill()?,
                TestAction::Reload(path) => {
                    let taken = read(path).map_err(ReloadError::Configuration).and_then(|plan| stage.reload(plan));
                    taken.map_err(|error| Stopped::Reload {
                        path: path.display().to_string(),
                        at: show_duration(at),
                        error: Box::new(error),
                    })?;
                }
            },
            Step::Expect(expect) => {
                let now = stage.clock.wall();
                stage.process().read_through(now)?;
                report.failures.extend(check(expect, stage.process())?);
            }
        }
        report.notes.extend(stage.process().take_notes());
    }
    // A line that comes again and again is said once.
    let mut known = BTreeSet::new();
    report.notes.retain(|note| known.insert(note.clone()) && known.len() <= NOTES_MAX);
    Ok(())
}

/// A pipeline on a clock of its own.
struct Stage<'p> {
    /// As a reload left it.
    plan: Cow<'p, Plan>,
    clock: Arc<ManualClock>,
    disk: LedgerPath,
    /// None while it is dead.
    process: Option<Process>,
    /// Until then input may still come to something: ticks are as frequent as the plan says.
    busy_until: i64,
}

impl<'p> Stage<'p> {
    fn new(plan: &'p Plan) -> Result<Stage<'p>, Stopped> {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let disk = LedgerPath::kept_memory(MEMORY_BYTES);
        let process = Process::boot(plan, &disk, &clock)?;
        Ok(Stage { plan: Cow::Borrowed(plan), clock, disk, process: Some(process), busy_until: 0 })
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it is dead only while it is killed")
    }

    /// Lets time pass, with every tick that matters on the way.
    fn pass(&mut self, to: i64) -> Result<(), Stopped> {
        loop {
            let now = self.clock.wall();
            if now.0 >= to {
                return Ok(());
            }
            let pairs_due = self.process().pairs_due();
            let tick = self.next_tick(now, pairs_due);
            self.clock.advance(tick.min(to) - now.0);
            if tick <= to {
                self.process().tick(Timestamp(tick))?;
            }
        }
    }

    /// The next tick that may change anything: while nothing waits, those at the edges of slices, and that at which a
    /// pair expires.
    fn next_tick(&self, now: Timestamp, pairs_due: Option<Timestamp>) -> i64 {
        let every = self.plan.store.commit_every;
        let edge = self.plan.slice.end(self.plan.slice.slice_of(now)).0;
        let wanted = match (now.0 < self.busy_until, pairs_due) {
            (true, _) => now.0 + 1,
            (false, Some(due)) => due.0.max(now.0 + 1),
            (false, None) => return edge,
        };
        // Ticks stand at multiples.
        (wanted.saturating_add(every - 1) / every).saturating_mul(every).min(edge)
    }

    fn say(&mut self, line: &str, source: Option<&str>) {
        let now = self.clock.wall();
        self.busy_until = now.0.saturating_add(self.plan.lateness).saturating_add(2 * self.plan.slice.nanos());
        let source = self.source(source);
        self.process().say(source, line, now);
    }

    /// The source of a line: as named, else the first of sockets that is on, else the one of `send`.
    fn source(&mut self, name: Option<&str>) -> SourceIndex {
        let is_first = |source: &&SourcePlan| source.enabled && matches!(source.kind, SourceKind::Socket(_));
        let first = self.plan.sources.iter().find(is_first).map(|source| source.name.clone());
        let name = name.map(str::to_owned).or(first);
        let process = self.process();
        name.and_then(|name| process.source(&name)).unwrap_or_else(|| process.sent())
    }

    /// The file says something else from now on, also to a process that is started later. Its name is not the other
    /// file's, and so is not the store's place.
    fn reload(&mut self, mut plan: Plan) -> Result<(), ReloadError> {
        plan.name.clone_from(&self.plan.name);
        plan.store.path.clone_from(&self.plan.store.path);
        let (old, now) = (std::mem::replace(&mut self.plan, Cow::Owned(plan)), self.clock.wall());
        let next = self.plan.clone();
        let process = self.process.as_mut().expect("it is dead only while it is killed");
        process.reload(&old, &next, now)
    }

    fn kill(&mut self) -> Result<(), Stopped> {
        self.process = None;
        self.process = Some(Process::boot(&self.plan, &self.disk, &self.clock)?);
        Ok(())
    }
}

/// The time at which an expectation is asked. One on an edge is an expression like any other, and sees what came before
/// (Q1). Inside a slice there is no edge to see anything from: what was committed by then is told as of the slice's end,
/// as it will be if nothing more comes.
fn asked_at(at: i64, width: SliceWidth) -> Timestamp {
    let slice = width.slice_of(Timestamp(at));
    let begin = width.start(slice);
    if begin.0 == at { begin } else { width.end(slice) }
}

/// Whether an expectation holds now.
fn check(expect: &TestExpect, process: &Process) -> Result<Option<Failure>, Stopped> {
    let expression = Expression::parse(&expect.expr).expect("the plan has parsed it");
    let at = asked_at(expect.at, process.slice_width());
    let value = match process.evaluate(&expression, at)? {
        Ok(value) => Ok(values(value)),
        Err(error) => Err(error.to_string()),
    };
    let (found, problem) = match value {
        Ok(found) if holds(expect.want, &found) => return Ok(None),
        Ok(found) => (found, None),
        Err(problem) => (Vec::new(), Some(problem)),
    };
    let mut near = Vec::new();
    for name in expression.selectors().iter().filter_map(|selector| selector.name.as_deref()) {
        if near.iter().any(|(known, _)| known == name) {
            continue;
        }
        let Ok(all) = Expression::parse(&format!("{{__name__=\"{name}\"}}")) else { continue };
        let mut series = process.evaluate(&all, at)?.map(values).unwrap_or_default();
        series.truncate(SHOWN_MAX);
        near.push((name.to_owned(), series));
    }
    let TestExpect { at, expr, want, place } = expect.clone();
    Ok(Some(Failure { place, at, expr, want, found, problem, near }))
}

/// The series of a result with their values.
fn values(value: Value) -> Vec<(String, f64)> {
    match value {
        Value::Scalar(value) => vec![(String::new(), value)],
        Value::Vector(samples) => {
            let shown =
                |sample: &crate::query::Sample| series_name(sample.name.as_deref().unwrap_or(""), &sample.labels);
            samples.iter().map(|sample| (shown(sample), sample.value)).collect()
        }
        // The plan refuses expressions of other kinds.
        Value::String(_) | Value::Matrix(_) => Vec::new(),
    }
}

fn holds(want: Want, found: &[(String, f64)]) -> bool {
    match (want, found) {
        (Want::Absent, found) => found.is_empty(),
        (Want::Value { value, tolerance }, [(_, found)]) => {
            let tolerance = tolerance.unwrap_or(1e-9 * value.abs());
            // Infinities have no distance.
            let is_near = value.is_finite() && (found - value).abs() <= tolerance;
            *found == value || (found.is_nan() && value.is_nan()) || is_near
        }
        (Want::Value { .. }, _) => false,
    }
}

type Evaluated = Result<Value, EvalError>;
