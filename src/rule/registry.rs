//! The metrics of this process: one name, one type, one number.
//!
//! In: metrics without a number. Out: `Arc<Metric>`s with one. Owns: the list, the map by name and the map of
//! claimed exposition names. Invariant: the list only grows, an entry's id, name, kind and scale never change
//! (its words may, by a reload, or when a metric restored from the store is first seen again), and no exposition name
//! belongs to two metrics. A metric whose name was declared with another kind is *retired*: its number stays.

use super::TELEMETRY_PREFIX;
use super::name::claims;
use super::reload::RedeclareError;
use crate::event::{Buckets, Kind, Metric, MetricId, RejectReason, Unit};
use hashbrown::HashMap;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(super) struct Registry {
    metrics: Vec<Entry>,
    by_name: HashMap<Arc<str>, MetricId, foldhash::fast::RandomState>,
    claimed: HashMap<Box<str>, MetricId, foldhash::fast::RandomState>,
    /// How many of them are what clients say of themselves.
    telemetry: usize,
}

#[derive(Clone)]
pub(super) struct Entry {
    metric: Arc<Metric>,
    /// Known from the store only: help, unit and group are guesses until a sample or a handle says better.
    provisional: bool,
    /// Its name belongs to another metric now: of another kind, or of another scale or unit.
    is_retired: bool,
    /// Retired for good: its series are stored under another name (R2).
    is_replaced: bool,
}

impl Registry {
    /// The metric of an exposed name, and whether its words are still guesses.
    pub(super) fn get(&self, name: &str) -> Option<(&Arc<Metric>, bool)> {
        let id = self.by_name.get(name)?;
        let entry = &self.metrics[id.0 as usize];
        Some((&entry.metric, entry.provisional))
    }

    /// The metric of a number.
    pub(super) fn numbered(&self, id: MetricId) -> Option<&Arc<Metric>> {
        self.metrics.get(id.0 as usize).map(|entry| &entry.metric)
    }

    /// The metric that claims an exposition name.
    pub(super) fn owner(&self, name: &str) -> Option<&Arc<Metric>> {
        self.numbered(*self.claimed.get(name)?)
    }

    /// The declared metrics whose names are theirs, in order of their numbers.
    pub(super) fn declared(&self) -> Vec<Arc<Metric>> {
        let is_declared = |entry: &&Entry| entry.metric.declared && !entry.is_retired;
        self.metrics.iter().filter(is_declared).map(|entry| entry.metric.clone()).collect()
    }

    /// The metric of a number, unless its name belongs to another.
    pub(super) fn current(&self, id: MetricId) -> Option<&Arc<Metric>> {
        self.metrics.get(id.0 as usize).filter(|entry| !entry.is_retired).map(|entry| &entry.metric)
    }

    /// The metrics in order of their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Metric>> {
        self.metrics.iter().map(|entry| &entry.metric)
    }

    /// How many there are, without what clients say of themselves.
    pub(super) fn len(&self) -> usize {
        self.metrics.len() - self.telemetry
    }

    /// How many of what clients say of themselves there are.
    pub(super) fn telemetry(&self) -> usize {
        self.telemetry
    }

    /// Adds a metric; its `id` is replaced by the next one.
    ///
    /// # Errors
    /// `TypeConflict` when one of its exposition names is taken.
    pub(super) fn insert(&mut self, mut metric: Metric, provisional: bool) -> Result<Arc<Metric>, RejectReason> {
        let names = claims(&metric.name, metric.kind, metric.unit, metric.expose);
        if names.iter().any(|name| self.claimed.contains_key(name.as_str())) {
            return Err(RejectReason::TypeConflict);
        }
        let id = MetricId(u32::try_from(self.metrics.len()).expect("the caller bounds the number of metrics"));
        metric.id = id;
        let metric = Arc::new(metric);
        for name in names {
            self.claimed.insert(name.into_boxed_str(), id);
        }
        self.by_name.insert(metric.name.clone(), id);
        self.telemetry += usize::from(metric.name.starts_with(TELEMETRY_PREFIX));
        self.metrics.push(Entry { metric: metric.clone(), provisional, is_retired: false, is_replaced: false });
        Ok(metric)
    }

    /// Gives a provisional metric the words it really has; identity stays.
    pub(super) fn settle(&mut self, mut metric: Metric) -> Option<Arc<Metric>> {
        let id = *self.by_name.get(&metric.name)?;
        let entry = &self.metrics[id.0 as usize];
        if !entry.provisional {
            return Some(entry.metric.clone());
        }
        let known: (Kind, _) = (entry.metric.kind, entry.metric.scale);
        if known != (metric.kind, metric.scale) {
            return None;
        }
        let names = claims(&metric.name, metric.kind, metric.unit, metric.expose);
        if names.iter().any(|name| self.claimed.get(name.as_str()).is_some_and(|owner| *owner != id)) {
            return None;
        }
        let guessed = &entry.metric;
        for name in claims(&guessed.name, guessed.kind, guessed.unit, guessed.expose) {
            self.claimed.remove(name.as_str());
        }
        for name in names {
            self.claimed.insert(name.into_boxed_str(), id);
        }
        metric.id = id;
        let metric = Arc::new(metric);
        self.metrics[id.0 as usize] =
            Entry { metric: metric.clone(), provisional: false, is_retired: false, is_replaced: false };
        Some(metric)
    }

    /// The registry as a reload leaves it. `words` says how a metric that is declared no more, or never was, is kept and
    /// shown from now on; a metric in `accept` may be of another scale or unit than before, and is another one then.
    ///
    /// # Errors
    /// Why it cannot be; nothing is changed.
    pub(super) fn reload(
        &self,
        declared: Vec<Metric>,
        words: impl Fn(&Metric) -> Metric,
        accept: &[String],
    ) -> Result<(Registry, Redeclared), RedeclareError> {
        let mut next = Registry { metrics: self.metrics.clone(), telemetry: self.telemetry, ..Registry::default() };
        let mut outcome = Redeclared::default();
        let mut is_declared = vec![false; next.metrics.len()];
        for metric in declared {
            let name = Arc::clone(&metric.name);
            let of_name = self.by_name.get(&name).copied();
            let same_kind = |id: MetricId| self.metrics[id.0 as usize].metric.kind == metric.kind;
            let known = match of_name.filter(|id| same_kind(*id)) {
                Some(id) => Some(id),
                None => self.retired(&metric),
            };
            if let Some(old) = of_name.filter(|id| Some(*id) != known) {
                next.metrics[old.0 as usize].is_retired = true;
                outcome.retired.push(old);
            }
            let known = match known.map(|id| (id, check_same(&self.metrics[id.0 as usize], &metric))) {
                Some((id, Ok(()))) => Some(id),
                Some((id, Err(_))) if accept.iter().any(|accepted| **accepted == *metric.name) => {
                    let old = &mut next.metrics[id.0 as usize];
                    (old.is_retired, old.is_replaced) = (true, true);
                    outcome.retired.push(id);
                    outcome.replaced.push(Arc::clone(&old.metric));
                    None
                }
                Some((_, Err(error))) => return Err(error),
                None => None,
            };
            let metric = match known {
                Some(id) => {
                    is_declared[id.0 as usize] = true;
                    let was = &self.metrics[id.0 as usize];
                    next.replace(id, metric, was, &mut outcome)
                }
                None => {
                    let id = MetricId(u32::try_from(next.metrics.len()).expect("a file has fewer metrics"));
                    let metric = Arc::new(Metric { id, ..metric });
                    let entry = Entry {
                        metric: Arc::clone(&metric),
                        provisional: false,
                        is_retired: false,
                        is_replaced: false,
                    };
                    next.metrics.push(entry);
                    is_declared.push(true);
                    outcome.added.push(Arc::clone(&metric));
                    metric
                }
            };
            next.claim(&metric)?;
            next.by_name.insert(name, metric.id);
            outcome.declared.push(metric);
        }
        for (at, was) in self.metrics.iter().enumerate() {
            if is_declared[at] || next.metrics[at].is_retired {
                continue;
            }
            let id = was.metric.id;
            let metric = next.replace(id, words(&was.metric), was, &mut outcome);
            next.claim(&metric)?;
            next.by_name.insert(Arc::clone(&metric.name), id);
        }
        Ok((next, outcome))
    }

    /// A metric of this name and kind whose name another kind took over.
    fn retired(&self, metric: &Metric) -> Option<MetricId> {
        let of_kind = |entry: &&Entry| entry.is_retired && !entry.is_replaced && entry.metric.kind == metric.kind;
        let found = self.metrics.iter().filter(of_kind).find(|entry| entry.metric.name == metric.name);
        found.map(|entry| entry.metric.id)
    }

    /// Gives a metric other words; its number stays, and whoever holds the old ones may go on using them.
    fn replace(&mut self, id: MetricId, metric: Metric, was: &Entry, outcome: &mut Redeclared) -> Arc<Metric> {
        let mut metric = Metric { id, ..metric };
        renumber(&mut metric, &was.metric);
        let is_changed = was.is_retired || !is_meant_alike(&metric, &was.metric);
        let metric = if is_changed { Arc::new(metric) } else { Arc::clone(&was.metric) };
        if is_changed {
            outcome.changed.push((Arc::clone(&was.metric), Arc::clone(&metric)));
        }
        let provisional = was.provisional && !metric.declared;
        self.metrics[id.0 as usize] =
            Entry { metric: Arc::clone(&metric), provisional, is_retired: false, is_replaced: false };
        metric
    }

    fn claim(&mut self, metric: &Metric) -> Result<(), RedeclareError> {
        for name in claims(&metric.name, metric.kind, metric.unit, metric.expose) {
            if let Some(owner) = self.claimed.insert(name.into_boxed_str(), metric.id) {
                let (name, other) = (metric.name.to_string(), &self.metrics[owner.0 as usize].metric.name);
                return Err(RedeclareError::Clash { name, other: other.to_string() });
            }
        }
        Ok(())
    }
}

/// What a reload made of the metrics.
#[derive(Default)]
pub(super) struct Redeclared {
    /// The declared ones, in the order of the file.
    pub(super) declared: Vec<Arc<Metric>>,
    /// Declared for the first time, under a name or a kind that was not there.
    pub(super) added: Vec<Arc<Metric>>,
    /// As they were and as they are, where that differs.
    pub(super) changed: Vec<(Arc<Metric>, Arc<Metric>)>,
    /// Their name belongs to another kind, scale or unit now.
    pub(super) retired: Vec<MetricId>,
    /// Of these, those of the same kind: what is stored of them needs another name.
    pub(super) replaced: Vec<Arc<Metric>>,
}

/// Scale and unit of what may be stored already stay (R2). Whether it has series is not asked: somebody may be about to
/// make the first.
fn check_same(was: &Entry, metric: &Metric) -> Result<(), RedeclareError> {
    let old = &was.metric;
    let name = || metric.name.to_string();
    if old.scale != metric.scale {
        let (stored, now) = (old.scale.exponent(), metric.scale.exponent());
        return Err(RedeclareError::Scale { name: name(), stored, now });
    }
    // What nothing declared only guesses its unit, by its name.
    if old.declared && old.unit != metric.unit {
        let word = |unit: Unit| if unit == Unit::None { "none" } else { unit.as_str() };
        return Err(RedeclareError::Unit { name: name(), stored: word(old.unit), now: word(metric.unit) });
    }
    // What was counted beside a cell that a bound straddles belongs to cells of its own digits.
    let has_buckets = old.buckets.is_some() || metric.buckets.is_some();
    if metric.kind == Kind::Distribution && has_buckets && old.digits != metric.digits {
        let (stored, now) = (old.digits as u8, metric.digits as u8);
        return Err(RedeclareError::Digits { name: name(), stored, now });
    }
    Ok(())
}

/// Bounds that change are numbered behind the old ones; those that do not are the same object.
fn renumber(metric: &mut Metric, was: &Metric) {
    let (Some(new), Some(old)) = (&metric.buckets, &was.buckets) else { return };
    if new.units == old.units && new.bounds == old.bounds {
        metric.buckets = Some(Arc::clone(old));
        return;
    }
    let after = usize::from(old.first) + old.units.len();
    let fits = after + new.units.len() <= usize::from(u16::MAX);
    let first = if fits { after as u16 } else { 0 };
    metric.buckets = Some(Arc::new(Buckets { first, ..(**new).clone() }));
}

fn is_meant_alike(a: &Metric, b: &Metric) -> bool {
    a.unit == b.unit
        && a.help == b.help
        && a.declared == b.declared
        && a.label_names == b.label_names
        && a.expose == b.expose
        && a.quantiles == b.quantiles
        && a.window_slices == b.window_slices
        && a.digits == b.digits
        && a.buckets == b.buckets
        && a.group == b.group
        && a.idle == b.idle
        && a.holds == b.holds
}
