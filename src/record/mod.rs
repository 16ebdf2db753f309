//! Recorded expressions: evaluated at every slice boundary over what is durable, and fed back as gauges (Q4).
//!
//! In: the expressions of the pipeline file in their order, and worlds to evaluate them over. Out: events of source
//! `internal` with the time of the slice. Owns: which edges were evaluated, and at which commit. Invariants: an
//! expression sees the results of earlier ones of the same time, and never its own; a result is the value of the
//! expression over one commit; an edge is evaluated again when a commit changed a slice before it; what is not a finite
//! number is no result.

mod events;

use crate::event::{CommitId, Labels, LabelsBuilder, Metric, Slice, SliceWidth, Timestamp};
use crate::query::world::{Asked, Worlds};
use crate::query::{EvalError, Expression, Value, evaluate};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub use events::event;

/// Edges that are looked at again: an hour of the default slices. Later revisions change history, not results.
const EDGES_MAX: usize = 360;

/// One expression of the file and the gauge that it feeds.
pub struct Recorded {
    /// The gauge; its labels are those of the results.
    pub metric: Arc<Metric>,
    /// What is evaluated.
    pub expression: Expression,
    /// What results are multiplied by.
    pub scale: f64,
    /// Labels that stand on every result (`const` of the feed).
    pub labels: Vec<(String, String)>,
}

/// What an expression came to at one edge.
#[derive(Clone, Debug)]
pub struct RecordedValue {
    /// The gauge.
    pub metric: Arc<Metric>,
    /// The labels of the result, without constant ones.
    pub labels: Labels,
    /// In base units.
    pub value: f64,
    /// Just before the edge, so that it belongs to the slice that ended there.
    pub time: Timestamp,
}

/// The state of all recorded expressions of a pipeline.
pub struct Recorder {
    worlds: Arc<Worlds>,
    group: Vec<Recorded>,
    constant: Vec<String>,
    width: SliceWidth,
    edges: BTreeMap<Slice, Evaluated>,
    edges_kept: usize,
    /// What commits up to here changed was looked at.
    seen: CommitId,
}

/// How many edges are looked at again.
fn edges_kept(width: SliceWidth, again_for: i64) -> usize {
    usize::try_from(again_for / width.nanos()).unwrap_or(0).saturating_add(2).min(EDGES_MAX)
}

/// What is remembered of an edge.
#[derive(Clone, Copy)]
struct Evaluated {
    /// The commit it was last evaluated at.
    commit: CommitId,
    /// Of its results. They stand in a slice that the next edges look at, so results that did not change must not be
    /// said again: they would change that slice, and every edge would be evaluated for ever.
    fingerprint: u64,
}

impl Recorder {
    /// `constant` are the labels that stand on every series and therefore on no result; edges of the last
    /// `again_for` nanoseconds are evaluated again when their slices change.
    pub fn new(worlds: Arc<Worlds>, group: Vec<Recorded>, constant: Vec<String>, again_for: i64) -> Recorder {
        let width = worlds.view().slice_width();
        Recorder {
            worlds,
            group,
            constant,
            width,
            edges: BTreeMap::new(),
            edges_kept: edges_kept(width, again_for),
            seen: CommitId(0),
        }
    }

    /// Takes another group over: after a reload. What the old one recorded stands.
    pub fn replace(&mut self, group: Vec<Recorded>, again_for: i64) {
        self.group = group;
        self.edges_kept = edges_kept(self.width, again_for);
    }

    /// Evaluates what is due when the wall clock of the newest commit is `now`: the edge before it if it is new, those
    /// since the last one that no commit came with, and older ones whose slices changed.
    ///
    /// # Errors
    /// When the store cannot be read; nothing counts as evaluated then. An expression that fails alone is logged.
    pub fn advance(&mut self, now: Timestamp) -> Result<Vec<RecordedValue>, crate::query::DataError> {
        let open = self.width.slice_of(now);
        let mut results = Vec::new();
        if self.group.is_empty() {
            return Ok(results);
        }
        // The wall clock may have stepped back (T3): what lies ahead of it is evaluated when it comes.
        self.edges.split_off(&Slice(open.0.saturating_add(1)));
        let newest = self.edges.last_key_value().map(|(edge, _)| edge.0);
        if newest == Some(open.0) {
            return Ok(results);
        }
        let oldest = open.0.saturating_sub(u32::try_from(self.edges_kept - 1).unwrap_or(u32::MAX));
        let due = newest.map_or(open.0, |newest| newest.saturating_add(1).max(oldest))..=open.0;
        let (again, seen) = self.changed()?;
        let mut evaluated = Vec::new();
        for edge in again.into_iter().chain(due.map(Slice)) {
            let before = results.len();
            let commit = self.evaluate(edge, &mut results)?;
            let fingerprint = fingerprint(&results[before..]);
            if self.edges.get(&edge).is_some_and(|known| known.fingerprint == fingerprint) {
                results.truncate(before);
            }
            evaluated.push((edge, Evaluated { commit, fingerprint }));
        }
        // Only now: when one cannot be evaluated, the results of the others go to nobody.
        self.edges.extend(evaluated);
        self.seen = seen;
        while self.edges.len() > self.edges_kept {
            self.edges.pop_first();
        }
        Ok(results)
    }

    /// Edges whose slices were touched after they were evaluated, and the newest commit among those looked at.
    fn changed(&self) -> Result<(Vec<Slice>, CommitId), crate::query::DataError> {
        let (Some((first, _)), Some((last, _))) = (self.edges.first_key_value(), self.edges.last_key_value()) else {
            return Ok((Vec::new(), self.seen));
        };
        let reach = self.group.iter().map(|recorded| recorded.expression.reach()).max().unwrap_or(0);
        let slices = u32::try_from(reach / self.width.nanos()).unwrap_or(u32::MAX).saturating_add(1);
        let mut touched = self.worlds.touched(Slice(first.0.saturating_sub(slices))..*last)?;
        // Whatever older commits changed was evaluated again then.
        touched.retain(|row| row.newest > self.seen);
        let seen = touched.iter().map(|row| row.newest).max().unwrap_or(self.seen);
        let is_changed = |(edge, known): &(&Slice, &Evaluated)| {
            let from = edge.0.saturating_sub(slices);
            touched.iter().any(|row| row.slice.0 >= from && row.slice < **edge && row.newest > known.commit)
        };
        Ok((self.edges.iter().filter(is_changed).map(|(edge, _)| *edge).collect(), seen))
    }

    /// Evaluates the group at one edge; the commit that was seen.
    fn evaluate(&self, edge: Slice, results: &mut Vec<RecordedValue>) -> Result<CommitId, crate::query::DataError> {
        let at = self.width.start(edge);
        let time = Timestamp(at.0 - 1);
        let asked: Vec<Asked<'_>> =
            self.group.iter().map(|recorded| Asked { expression: &recorded.expression, start: at, end: at }).collect();
        let mut world = self.worlds.world_for(&asked)?;
        for recorded in &self.group {
            let values = match evaluate(&recorded.expression, &world, at) {
                Ok(value) => self.values(value, recorded),
                // Over the next world it is answered.
                Err(EvalError::Data(error)) if error.is_stale => return Err(error),
                Err(error) => {
                    tracing::warn!(metric = &*recorded.metric.name, %error, "a recorded expression failed");
                    continue;
                }
            };
            world.record(&recorded.metric, Slice(edge.0.saturating_sub(1)), time, &values);
            let metric = &recorded.metric;
            results.extend(values.into_iter().map(|(labels, value)| RecordedValue {
                metric: Arc::clone(metric),
                labels,
                value,
                time,
            }));
        }
        Ok(world.commit())
    }

    fn values(&self, value: Value, recorded: &Recorded) -> Vec<(Labels, f64)> {
        let samples = match value {
            Value::Scalar(value) => vec![(self.labels(Labels::empty(), recorded), value)],
            Value::Vector(samples) => {
                samples.into_iter().map(|sample| (self.labels(sample.labels, recorded), sample.value)).collect()
            }
            // The plan refuses expressions of other kinds.
            Value::String(_) | Value::Matrix(_) => Vec::new(),
        };
        let scaled = samples.into_iter().map(|(labels, value)| (labels, value * recorded.scale));
        scaled.filter(|(_, value)| value.is_finite()).collect()
    }

    /// The labels of a result without constant ones of the pipeline, with those of the feed.
    fn labels(&self, labels: Labels, recorded: &Recorded) -> Labels {
        if recorded.labels.is_empty() && self.constant.iter().all(|name| labels.get(name).is_none()) {
            return labels;
        }
        let mut builder = LabelsBuilder::new();
        for (key, value) in labels.iter().filter(|(key, _)| !self.constant.iter().any(|name| name == key)) {
            builder.push(key, value);
        }
        for (key, value) in &recorded.labels {
            builder.push(key.as_str(), value.as_str());
        }
        builder.build().unwrap_or_default()
    }
}

/// Equal for equal results.
fn fingerprint(results: &[RecordedValue]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for result in results {
        result.metric.id.0.hash(&mut hasher);
        result.labels.hash(&mut hasher);
        result.value.to_bits().hash(&mut hasher);
    }
    hasher.finish()
}
