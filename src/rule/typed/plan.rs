//! The compiled rules of typed events.
//!
//! In: [`TypedConfig`] and the declared metrics. Out: [`Typed`], asked once per event by name. Owns: one plan per event.
//! Invariant: [`EventPlan::run`] either refuses an event and has emitted nothing, or has emitted everything.

use super::derive::{DerivePlan, Memo};
use super::feed::{Emitted, FeedPlan, power_of_ten};
use super::keys::{KeyNode, tree};
use super::statsd::StatsdFeed;
use super::value::{FieldValue, Fields, Weight};
use super::{EventSpec, FIELDS_MAX, FeedSource, FeedSpec, FieldType, LabelSource, PairValue, TypedConfig};
use crate::event::{Kind, Metric, RejectReason};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All typed rules of a pipeline.
#[derive(Default)]
pub struct Typed {
    events: Vec<EventPlan>,
    by_name: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    pairs: Vec<PairPlan>,
    pub(super) statsd: Vec<StatsdFeed>,
    sources: BTreeMap<String, Vec<SourceFeed>>,
    count_unknown: bool,
}

/// A value of a collector that a metric takes.
#[derive(Clone, Debug)]
pub struct SourceFeed {
    /// Name of the value.
    pub value: String,
    /// The metric.
    pub metric: Arc<Metric>,
    /// Its labels, sorted, and where each comes from: a constant, or the collector's label of that name.
    pub labels: Vec<(String, LabelSource)>,
    /// What the value is multiplied by.
    pub scale: f64,
}

impl SourceFeed {
    /// Labels whose values come from the collector.
    pub fn own_labels(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().filter(|(_, from)| !matches!(from, LabelSource::Const(_))).map(|(label, _)| label.as_str())
    }
}

/// What both sides of a pair share.
#[derive(Clone, Debug)]
pub struct PairPlan {
    /// Its name.
    pub name: Box<str>,
    /// Nanoseconds after its start at which an open pair expires; 0 for one that is declared no more.
    pub timeout: i64,
}

/// What an event is to a pair.
pub struct PairSide {
    /// Place of the pair in [`Typed::pairs`].
    pub pair: usize,
    /// True where the event opens it.
    pub is_start: bool,
    key: usize,
    /// Of a start only: the series that the open pair feeds.
    feeds: Box<[(PairValue, FeedPlan)]>,
}

impl PairSide {
    /// What the pair feeds, each with what of it.
    pub fn feeds(&self) -> &[(PairValue, FeedPlan)] {
        &self.feeds
    }
}

/// Why an event is refused, and which field is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reason that is counted.
    pub reason: RejectReason,
    /// The field, by its place in the schema; `None` where it is not about one.
    pub field: Option<usize>,
}

impl From<RejectReason> for Fault {
    fn from(reason: RejectReason) -> Fault {
        Fault { reason, field: None }
    }
}

struct FieldPlan {
    name: Box<str>,
    ty: FieldType,
    optional: bool,
}

/// A compiled event.
pub struct EventPlan {
    index: usize,
    name: Box<str>,
    fields: Box<[FieldPlan]>,
    nodes: Box<[KeyNode]>,
    derived: Box<[DerivePlan]>,
    feeds: Box<[FeedPlan]>,
    sides: Box<[PairSide]>,
    keep: u32,
    /// Declared before a reload and not since: it keeps its place, and takes nothing.
    is_removed: bool,
}

/// What one decoder, or one thread of producers, keeps between events, and what the last one emitted.
#[derive(Default)]
pub struct Scratch {
    memos: Vec<Memo>,
    emitted: Vec<Emitted>,
    pairs: Vec<EmittedPair>,
    keys: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct EmittedPair {
    side: usize,
    key: (usize, usize),
    /// A start's feeds whose `when` holds: place and key.
    feeds: [Option<(usize, usize)>; PAIR_FEEDS_MAX],
}

/// Most metrics that one pair feeds: three values, and a few label sets of each.
pub const PAIR_FEEDS_MAX: usize = 16;

impl Scratch {
    /// The samples of the last event.
    pub fn emitted(&self) -> &[Emitted] {
        &self.emitted
    }

    /// The key of a sample's series.
    pub fn key(&self, emitted: &Emitted) -> &[u8] {
        &self.keys[emitted.key.0..emitted.key.1]
    }

    /// The pairs that the last event opens or closes: the side, its key, and of a start each feed with the key of its
    /// series.
    pub fn pairs<'s>(
        &'s self,
        plan: &'s EventPlan,
    ) -> impl Iterator<Item = (&'s PairSide, &'s [u8], impl Iterator<Item = (PairValue, &'s FeedPlan, &'s [u8])>)> {
        self.pairs.iter().map(move |emitted| {
            let side = &plan.sides[emitted.side];
            let feeds =
                side.feeds.iter().zip(emitted.feeds).filter_map(move |((value, feed), key)| {
                    key.map(|(start, end)| (*value, feed, &self.keys[start..end]))
                });
            (side, &self.keys[emitted.key.0..emitted.key.1], feeds)
        })
    }
}

impl EventPlan {
    fn new(index: usize, spec: &EventSpec) -> Result<EventPlan, String> {
        if spec.fields.len() > FIELDS_MAX {
            return Err(format!("event {:?} has {} fields; at most {FIELDS_MAX}", spec.name, spec.fields.len()));
        }
        let field = |field: &super::FieldSpec| FieldPlan {
            name: field.name.as_str().into(),
            ty: field.ty,
            optional: field.optional,
        };
        let derived: Result<_, String> =
            spec.derived.iter().map(|derived| DerivePlan::new(&derived.from, spec)).collect();
        Ok(EventPlan {
            index,
            name: spec.name.as_str().into(),
            fields: spec.fields.iter().map(field).collect(),
            nodes: tree(spec)?,
            derived: derived?,
            feeds: Box::default(),
            sides: Box::default(),
            keep: spec.keep,
            is_removed: false,
        })
    }

    fn removed(index: usize, name: &str) -> EventPlan {
        EventPlan {
            index,
            name: name.into(),
            fields: Box::default(),
            nodes: Box::new([KeyNode::default()]),
            derived: Box::default(),
            feeds: Box::default(),
            sides: Box::default(),
            keep: 0,
            is_removed: true,
        }
    }

    /// Its place among the events of the pipeline; a name keeps it for the life of the process.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What key `event` holds.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// So many of the newest events are kept whole.
    pub fn keep(&self) -> u32 {
        self.keep
    }

    /// True where the event opens or closes a pair.
    pub fn has_pairs(&self) -> bool {
        !self.sides.is_empty()
    }

    /// The keys of the event's objects; the event itself is node 0.
    pub fn nodes(&self) -> &[KeyNode] {
        &self.nodes
    }

    /// The feeds, as [`Emitted::feed`] counts them.
    pub fn feeds(&self) -> &[FeedPlan] {
        &self.feeds
    }

    /// Name of a field.
    pub fn field_name(&self, at: usize) -> &str {
        &self.fields[at].name
    }

    /// What a field holds.
    pub fn field_type(&self, at: usize) -> FieldType {
        self.fields[at].ty
    }

    /// Place of a field by its name in the schema.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| &*field.name == name)
    }

    /// Names of all fields.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }

    /// No field seen yet.
    #[inline]
    pub fn fields<'a>(&self) -> Fields<'a> {
        self.fields.iter().map(|_| FieldValue::Missing).collect()
    }

    /// The value as field `at` means it.
    ///
    /// # Errors
    /// `WrongType`, `BadTimestamp`.
    #[inline]
    pub fn accept<'a>(&self, at: usize, value: FieldValue<'a>) -> Result<FieldValue<'a>, Fault> {
        value.accept(self.fields[at].ty).map_err(|reason| Fault { reason, field: Some(at) })
    }

    /// Emits everything that the event feeds into `scratch`; whether it may be recorded is for the caller to check.
    ///
    /// # Errors
    /// Why the whole event is refused. Nothing is emitted then.
    pub fn run(&self, fields: &Fields<'_>, weight: Weight, scratch: &mut Scratch) -> Result<(), Fault> {
        let result = self.try_run(fields, weight, scratch);
        if result.is_err() {
            scratch.emitted.clear();
            scratch.pairs.clear();
        }
        result.map_err(|(reason, field)| Fault { reason, field })
    }

    fn try_run(
        &self,
        fields: &Fields<'_>,
        weight: Weight,
        scratch: &mut Scratch,
    ) -> Result<(), (RejectReason, Option<usize>)> {
        let Scratch { memos, emitted, pairs, keys } = scratch;
        emitted.clear();
        pairs.clear();
        keys.clear();
        if self.is_removed {
            return Err((RejectReason::UnknownEvent, None));
        }
        let missing = |(value, plan): (&FieldValue<'_>, &FieldPlan)| *value == FieldValue::Missing && !plan.optional;
        if let Some(at) = fields.iter().zip(&self.fields).position(missing) {
            return Err((RejectReason::MissingField, Some(at)));
        }
        if memos.len() <= self.index {
            memos.resize_with(self.index + 1, Memo::default);
        }
        let texts = memos[self.index].derive(&self.derived, fields);
        for (at, feed) in self.feeds.iter().enumerate() {
            if feed.holds(fields, &texts)
                && let Some(amount) = feed.amount(fields, weight)?
            {
                let key = feed.put_key(fields, &texts, keys)?;
                emitted.push(Emitted { feed: at, amount, key });
            }
        }
        for (at, side) in self.sides.iter().enumerate() {
            if fields[side.key] == FieldValue::Missing {
                return Err((RejectReason::MissingField, Some(side.key)));
            }
            let start = keys.len();
            fields[side.key].put_text(keys);
            let key = (start, keys.len());
            let mut feeds = [None; PAIR_FEEDS_MAX];
            for (place, (_, feed)) in feeds.iter_mut().zip(&side.feeds) {
                if feed.holds(fields, &texts) {
                    *place = Some(feed.put_key(fields, &texts, keys)?);
                }
            }
            pairs.push(EmittedPair { side: at, key, feeds });
        }
        Ok(())
    }

    /// What is wrong, for people: names the event, the field, its type and what came instead.
    pub fn describe(&self, fault: Fault, fields: &Fields<'_>) -> String {
        let Some(at) = fault.field else {
            return format!("event {:?}: {}", self.name, fault.reason.hint());
        };
        let field = &self.fields[at];
        let (event, name, ty) = (&self.name, &field.name, field.ty.as_str());
        match fault.reason {
            RejectReason::MissingField => format!("event {event:?}: field {name:?} ({ty}) is missing"),
            RejectReason::WrongType => {
                let came = fields.get(at).copied().unwrap_or_default();
                match came {
                    FieldValue::Missing => format!("event {event:?}: field {name:?} is no {ty}"),
                    came => format!("event {event:?}: field {name:?} is no {ty} but {}", came.type_name()),
                }
            }
            reason => format!("event {event:?}: field {name:?} ({ty}): {}", reason.hint()),
        }
    }
}

impl Typed {
    /// Compiles the rules. `declared` are the metrics in the order of the pipeline file.
    ///
    /// # Errors
    /// What does not fit, in words; the pipeline file was checked before, so this is for other callers.
    pub fn new(config: &TypedConfig, declared: &[Arc<Metric>]) -> Result<Typed, String> {
        Typed::following(config, declared, &Typed::default())
    }

    /// As [`new`](Self::new), after a reload: events and pairs that `old` has keep their places, since what is under
    /// way names places.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn following(config: &TypedConfig, declared: &[Arc<Metric>], old: &Typed) -> Result<Typed, String> {
        let mut typed = Typed { count_unknown: config.count_unknown, ..Typed::default() };
        let places: BTreeMap<&str, usize> =
            old.events.iter().enumerate().map(|(at, event)| (&*event.name, at)).collect();
        let mut specs: Vec<Option<&EventSpec>> = old.events.iter().map(|_| None).collect();
        for spec in &config.events {
            let at = places.get(&*spec.name).copied().unwrap_or(specs.len());
            if at == specs.len() {
                specs.push(None);
            }
            specs[at] = Some(spec);
            if typed.by_name.insert(spec.name.as_bytes().into(), at).is_some() {
                return Err(format!("event {:?} is declared twice", spec.name));
            }
        }
        for (at, spec) in specs.iter().enumerate() {
            let plan = match spec {
                Some(spec) => EventPlan::new(at, spec)?,
                None => EventPlan::removed(at, &old.events[at].name),
            };
            typed.events.push(plan);
        }
        let mut feeds: Vec<Vec<FeedPlan>> = specs.iter().map(|_| Vec::new()).collect();
        let mut sides: Vec<Vec<PairSide>> = specs.iter().map(|_| Vec::new()).collect();
        let names = typed.by_name.clone();
        let event_of = |name: &str| {
            let at = names.get(name.as_bytes()).copied();
            at.ok_or_else(|| format!("there is no event {name:?}"))
        };
        let spec_at = |at: usize| specs[at].expect("a name leads to a declared event");
        typed.pairs.extend(old.pairs.iter().map(|pair| PairPlan { name: pair.name.clone(), timeout: 0 }));
        let mut pair_places = Vec::with_capacity(config.pairs.len());
        for pair in &config.pairs {
            let place = old.pairs.iter().position(|known| *known.name == *pair.name).unwrap_or(typed.pairs.len());
            pair_places.push(place);
            for (name, is_start) in [(&pair.start, true), (&pair.end, false)] {
                let at = event_of(name)?;
                let key = typed.events[at].field(&pair.key);
                let key =
                    key.ok_or_else(|| format!("pair {:?}: event {name:?} has no field {:?}", pair.name, pair.key))?;
                sides[at].push(PairSide { pair: place, is_start, key, feeds: Box::default() });
            }
            let plan = PairPlan { name: pair.name.as_str().into(), timeout: pair.timeout };
            match typed.pairs.get_mut(place) {
                Some(old) => *old = plan,
                None => typed.pairs.push(plan),
            }
        }
        let mut pair_feeds: Vec<Vec<(PairValue, FeedPlan)>> = typed.pairs.iter().map(|_| Vec::new()).collect();
        for (number, feed) in config.feeds.iter().enumerate() {
            let number = number as u32;
            let metric = declared.get(feed.metric).ok_or_else(|| format!("there is no metric {}", feed.metric))?;
            if metric.kind != feed.kind {
                return Err(format!("metric {:?} is no {}", metric.name, feed.kind.as_str()));
            }
            match &feed.from {
                FeedSource::Event { event, value } => {
                    let at = event_of(event)?;
                    feeds[at].push(FeedPlan::new(number, feed, metric, spec_at(at), value.as_deref())?);
                }
                FeedSource::Pair { pair, value } => {
                    let at = config.pairs.iter().position(|known| known.name == *pair);
                    let at = at.ok_or_else(|| format!("there is no pair {pair:?}"))?;
                    check_pair(feed, metric, *value)?;
                    let start = spec_at(event_of(&config.pairs[at].start)?);
                    let place = pair_places[at];
                    if pair_feeds[place].len() == PAIR_FEEDS_MAX {
                        return Err(format!("pair {pair:?} feeds more than {PAIR_FEEDS_MAX} metrics"));
                    }
                    pair_feeds[place].push((*value, FeedPlan::new(number, feed, metric, start, None)?));
                }
                FeedSource::Source { source, value } => {
                    power_of_ten(feed.scale).map(|_| ()).or_else(|_| finite(feed.scale))?;
                    typed.sources.entry(source.clone()).or_default().push(SourceFeed {
                        value: value.clone(),
                        metric: Arc::clone(metric),
                        labels: feed.labels.clone(),
                        scale: feed.scale,
                    });
                }
                FeedSource::Statsd { pattern } => typed.statsd.push(StatsdFeed::new(pattern, feed, metric)?),
                // Recorded expressions are evaluated elsewhere and come back as samples of their metric.
                FeedSource::Expr { .. } => {}
            }
        }
        for side in sides.iter_mut().flatten().filter(|side| side.is_start) {
            side.feeds = std::mem::take(&mut pair_feeds[side.pair]).into();
        }
        for (plan, (feeds, sides)) in typed.events.iter_mut().zip(feeds.into_iter().zip(sides)) {
            (plan.feeds, plan.sides) = (feeds.into(), sides.into());
        }
        Ok(typed)
    }

    /// The plan of an event; `None` for one that no schema names.
    #[inline]
    pub fn event(&self, name: &[u8]) -> Option<&EventPlan> {
        self.by_name.get(name).map(|at| &self.events[*at])
    }

    /// A plan by its [`EventPlan::index`].
    pub fn event_at(&self, index: usize) -> &EventPlan {
        &self.events[index]
    }

    /// All events by place: in the order of the pipeline file, those of a reload behind.
    pub fn events(&self) -> &[EventPlan] {
        &self.events
    }

    /// All pairs by place, as the events.
    pub fn pairs(&self) -> &[PairPlan] {
        &self.pairs
    }

    /// True when an event that no schema names is counted in `events_total{event}` instead of refused.
    pub fn counts_unknown(&self) -> bool {
        self.count_unknown
    }

    /// True when some metric is fed by a pattern of StatsD names.
    pub fn has_patterns(&self) -> bool {
        !self.statsd.is_empty()
    }

    /// The name nearest to one that is no event's.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let likeness = |event: &EventPlan| strsim::jaro_winkler(&event.name, name);
        let declared = self.events.iter().filter(|event| !event.is_removed);
        let nearest = declared.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(nearest) > 0.7).then_some(&*nearest.name)
    }

    /// What metrics take from a collector; `None` when none names it, and it shows everything it has.
    pub fn source_feeds(&self, source: &str) -> Option<&[SourceFeed]> {
        self.sources.get(source).map(Vec::as_slice)
    }
}

fn finite(scale: f64) -> Result<(), String> {
    if scale.is_finite() { Ok(()) } else { Err(format!("scale {scale} is not a number")) }
}

fn check_pair(feed: &FeedSpec, metric: &Metric, value: PairValue) -> Result<(), String> {
    let kind = match value {
        PairValue::Open => Kind::Gauge,
        PairValue::Duration => Kind::Distribution,
        PairValue::Expired => Kind::Counter,
    };
    finite(feed.scale)?;
    if metric.kind == kind { Ok(()) } else { Err(format!("metric {:?} cannot show {value:?} of a pair", metric.name)) }
}
