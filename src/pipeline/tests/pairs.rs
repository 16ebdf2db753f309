//! Pairs against naive oracles (V8): any order within `lateness`, duplicates, two sources, ticks, restarts of a key,
//! disks that fail and machines that lose power.
//!
//! Two oracles: one knows only the true sessions and what must come of them; the other applies the written rules to
//! lists, for schedules in which no truth exists (duplicates, keys that restart, lost input).

use crate::delta::epoch::{InputGroup, Sealed};
use crate::delta::pair::{PairFeed, PairIndex, PairRole};
use crate::delta::{Combiner, Interned, SeriesTable, TableLimits};
use crate::event::{
    Buckets, Expose, Group, Kind, Labels, Scale, ShardIndex, SliceWidth, SourceIndex, Timestamp, Unit, WireType,
};
use crate::rule::{DeclaredMetric, Rules, RulesConfig};
use crate::sketch::Digits;
use crate::store::tests::disk::{Op, SimDisk, apply, crash_image};
use crate::store::tests::script::{Rng, SLICE_NANOS};
use crate::store::{EventsPlan, Ledger, PairPlan, Store, StoreLimits};
use crate::view::{Value, View, view};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 * SECOND;
const LATENESS: i64 = 5 * SECOND;
/// Of the two pairs; the second is shorter than lateness.
const TIMEOUTS: [i64; 2] = [40 * SECOND, 3 * SECOND];
const BOUNDS: [f64; 4] = [0.5, 2.0, 10.0, 39.9];
const LABELS: [&str; 2] = ["a", "b"];

fn declared(name: &str, kind: Kind) -> DeclaredMetric {
    let units = BOUNDS.iter().map(|bound| (bound * 1e9) as i64).collect();
    let is_duration = kind == Kind::Distribution;
    DeclaredMetric {
        name: name.into(),
        namespace: String::new(),
        kind,
        help: "declared".into(),
        unit: if is_duration { Unit::Seconds } else { Unit::None },
        scale: if kind == Kind::Gauge { Scale::MICRO } else { Scale::NANO },
        labels: vec!["k".into()],
        expose: Expose { summary: true, histogram: is_duration },
        quantiles: Arc::new([0.5]),
        digits: Digits::Two,
        window_slices: 4,
        buckets: is_duration.then(|| Arc::new(Buckets { first: 0, bounds: BOUNDS.into(), units })),
        group: Group::Main,
        idle: None,
        holds: None,
    }
}

/// A start (with the place of its label) or an end.
#[derive(Clone, Copy, Debug)]
struct Said {
    source: u16,
    pair: u16,
    key: u64,
    time: i64,
    label: Option<usize>,
}

/// A process without shards: what they would seal is made by hand.
struct Host {
    store: Store,
    view: View,
    feeds: Vec<Vec<PairFeed>>,
}

fn boot(disk: &SimDisk, now: i64, pairs_max: usize) -> Host {
    let declared = vec![
        declared("open", Kind::Gauge),
        declared("took_seconds", Kind::Distribution),
        declared("expired_total", Kind::Counter),
    ];
    let rules = Arc::new(Rules::new(RulesConfig { declared, ..RulesConfig::default() }).expect("no clash"));
    let limits = TableLimits { series: 1000, series_per_metric: 1000 };
    let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
    let slice = SliceWidth::from_nanos(SLICE_NANOS).expect("wide enough");
    let (fold, view) = view(Arc::clone(&table), slice, 1 << 20);
    let ledger = Ledger::open(&disk.config(), Timestamp(now)).expect("opens");
    let limits = StoreLimits {
        slice,
        lateness: LATENESS,
        hold_max: 600 * SECOND,
        keep: 3600 * SECOND,
        tiers: Vec::new(),
        max_size: u64::MAX,
        pending: 64 << 20,
    };
    let sources = ["internal", "one", "two"].map(|name| (name.to_owned(), "test")).to_vec();
    let mut store =
        Store::recover(ledger, Box::new(fold), Arc::clone(&table), &rules, sources, limits, 1, Timestamp(now))
            .expect("recovers");
    let pairs = ["session", "request"].iter().zip(TIMEOUTS);
    let pairs = pairs.map(|(name, timeout)| PairPlan { name: (*name).into(), timeout }).collect();
    store.set_plan(EventsPlan { pairs, pairs_max, ..EventsPlan::default() });
    let feeds = LABELS.map(|label| {
        let feed = |role: PairRole, name, wire| {
            let resolved = rules.resolve_handle(name, wire, &[("k", label)]).expect("declared");
            assert_eq!(resolved.metric.kind, role.kind());
            let Interned::Slot(slot) = table.intern(&resolved.metric, &resolved.labels) else { panic!("a slot") };
            PairFeed { role, slot, scale: 1.0 }
        };
        vec![
            feed(PairRole::Open, "open", WireType::Gauge),
            feed(PairRole::Duration, "took_seconds", WireType::Timing),
            feed(PairRole::Expired, "expired_total", WireType::Count),
        ]
    });
    Host { store, view, feeds: feeds.into() }
}

impl Host {
    /// A combiner of each source, sealed now.
    fn take(&mut self, said: &[Said], now: i64) {
        for source in [1, 2] {
            let width = SliceWidth::from_nanos(SLICE_NANOS).expect("wide enough");
            let mut combiner = Box::new(Combiner::new(width.slice_of(Timestamp(now))));
            for said in said.iter().filter(|said| said.source == source) {
                let (source, pair, time) = (SourceIndex(source), PairIndex(said.pair), Timestamp(said.time));
                let key = format!("key-{}", said.key);
                match said.label {
                    Some(label) => combiner.open_pair(source, pair, key.as_bytes(), time, &self.feeds[label]),
                    None => combiner.close_pair(source, pair, key.as_bytes(), time),
                }
            }
            let (shard, group, sealed_at) = (ShardIndex(0), InputGroup::Live, Timestamp(now));
            assert!(self.store.take(Sealed { shard, group, epoch: 0, barrier: None, sealed_at, combiner }).is_empty());
        }
        let (given_back, settled) = self.store.settle(Timestamp(now));
        settled.expect("no ids to read");
        assert!(given_back.len() == 2 && given_back.iter().all(|(_, _, combiner)| combiner.is_empty()));
    }

    /// The value of a series, by the meant labels.
    fn value(&self, name: &str, meant: &[(&str, &str)]) -> Option<Value> {
        self.values(name, meant).pop()
    }

    fn values(&self, name: &str, meant: &[(&str, &str)]) -> Vec<Value> {
        let Some(metric) = self.view.metric(name) else { return Vec::new() };
        let series = self.view.series(&metric);
        let mut labels = Vec::new();
        self.view.labels(metric.kind, &series, |found| labels.push(found.clone()));
        let ids: Vec<_> = series.iter().map(|(id, _)| *id).collect();
        let mut values = Vec::new();
        self.view.read(&metric, &ids, &mut values);
        let is_meant = |labels: &Labels| meant.iter().all(|(key, value)| labels.get(key) == Some(value));
        labels.iter().zip(values).filter(|(labels, _)| is_meant(labels)).filter_map(|(_, value)| value).collect()
    }

    fn sum(&self, name: &str, meant: &[(&str, &str)]) -> u64 {
        let whole = |value| if let Value::Counter(value) = value { (value.nanos / 1_000_000_000) as u64 } else { 0 };
        self.values(name, meant).into_iter().map(whole).sum()
    }

    fn buckets(&self, label: &str) -> Vec<u128> {
        let metric = self.view.metric("took_seconds").expect("declared");
        let mut labels = crate::event::LabelsBuilder::new();
        labels.push("k", label);
        let id = self.view.id_of(&metric, &labels.build().expect("valid")).expect("a series");
        let mut out = crate::view::read::Distributions::default();
        self.view.read_distributions(&[id], &[], BOUNDS.len(), &mut out);
        out.buckets
    }

    /// What metrics say of pairs, against lists.
    fn check(&self, label: usize, open: usize, durations: &[i64], expired: u64, context: &str) {
        let of = &[("k", LABELS[label])];
        match self.value("open", of) {
            Some(Value::Gauge(gauge)) => assert_eq!(gauge.last.unwrap_or(0.0), open as f64, "{context}: open {of:?}"),
            _ => assert_eq!(open, 0, "{context}: no gauge {of:?}"),
        }
        assert_eq!(self.sum("expired_total", of), expired, "{context}: expired {of:?}");
        let Some(Value::Distribution(took)) = self.value("took_seconds", of) else {
            return assert!(durations.is_empty(), "{context}: no durations {of:?}");
        };
        assert_eq!(took.count, durations.len() as u128, "{context}: durations {of:?}");
        assert_eq!(took.sum, durations.iter().map(|nanos| i128::from(*nanos)).sum::<i128>(), "{context}");
        assert_eq!(
            (took.min, took.max),
            (durations.iter().min().copied(), durations.iter().max().copied()),
            "{context}"
        );
        let below = |bound: &f64| durations.iter().filter(|nanos| **nanos as f64 <= bound * 1e9).count() as u128;
        assert_eq!(self.buckets(LABELS[label]), BOUNDS.iter().map(below).collect::<Vec<_>>(), "{context}");
    }

    /// C6, and the law of pairs.
    fn check_laws(&self, context: &str) {
        for source in ["internal", "one", "two"] {
            let of = &[("source", source)];
            let samples = self.sum("hydrograph_samples_total", of);
            let committed = self.sum("hydrograph_samples_committed_total", of);
            assert_eq!(samples, committed + self.sum("hydrograph_dropped_total", of), "{context}: samples of {source}");
        }
        let of = |outcome| self.sum("hydrograph_pairs_total", &[("outcome", outcome)]);
        let open = self.store.pair_counts().0 as u64;
        assert_eq!(of("opened"), of("closed") + of("expired") + of("restarted") + open, "{context}: the law of pairs");
    }
}

/// The rules as they are written, on lists.
#[derive(Clone, Debug, Default)]
struct Naive {
    /// (pair, key, start, seen, label)
    open: Vec<(u16, u64, i64, i64, usize)>,
    /// (pair, key, end, seen)
    early: Vec<(u16, u64, i64, i64)>,
    durations: [Vec<i64>; 2],
    expired: [u64; 2],
    outcomes: BTreeMap<&'static str, u64>,
}

impl Naive {
    fn count(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    fn end(&mut self, pair: u16, label: usize, start: i64, end: i64) {
        if end - start > TIMEOUTS[usize::from(pair)] {
            self.count("expired");
            self.expired[label] += 1;
        } else {
            self.count("closed");
            self.durations[label].push(end - start);
        }
    }

    /// One commit at `now` of what came since the last, each with when it came.
    fn join(&mut self, now: i64, said: &[(Said, i64)]) {
        let mut said = said.to_vec();
        said.sort_by_key(|(said, _)| (said.time, said.label.is_none()));
        for (said, seen) in said {
            let (pair, key, time) = (said.pair, said.key, said.time);
            let opened = self.open.iter().position(|open| (open.0, open.1) == (pair, key));
            if let Some(label) = said.label {
                let ends = self.early.iter().filter(|early| (early.0, early.1) == (pair, key) && early.2 >= time);
                if let Some(end) = ends.map(|early| early.2).min() {
                    self.early.retain(|early| (early.0, early.1, early.2) != (pair, key, end));
                    self.count("opened");
                    self.end(pair, label, time, end);
                } else if opened.is_some_and(|at| self.open[at].2 >= time) {
                    self.count("duplicate");
                } else {
                    if let Some(at) = opened {
                        self.open.remove(at);
                        self.count("restarted");
                    }
                    self.count("opened");
                    self.open.push((pair, key, time, seen, label));
                }
            } else if let Some(at) = opened.filter(|at| self.open[*at].2 <= time) {
                let (_, _, start, _, label) = self.open.remove(at);
                self.end(pair, label, start, time);
            } else if self.early.iter().any(|early| (early.0, early.1, early.2) == (pair, key, time)) {
                self.count("duplicate");
            } else {
                self.early.push((pair, key, time, seen));
            }
        }
        let is_due = |open: &(u16, u64, i64, i64, usize)| {
            let timeout = TIMEOUTS[usize::from(open.0)];
            now >= open.2 + timeout && now >= open.3 + timeout.min(LATENESS)
        };
        for open in self.open.iter().filter(|open| is_due(open)) {
            self.expired[open.4] += 1;
            *self.outcomes.entry("expired").or_default() += 1;
        }
        self.open.retain(|open| !is_due(open));
        let before = self.early.len();
        self.early.retain(|early| now < early.3 + LATENESS);
        if self.early.len() < before {
            *self.outcomes.entry("unmatched").or_default() += (before - self.early.len()) as u64;
        }
    }

    fn check(&self, host: &Host, context: &str) {
        for label in 0..2 {
            let open = self.open.iter().filter(|open| open.4 == label).count();
            host.check(label, open, &self.durations[label], self.expired[label], context);
        }
        assert_eq!(host.store.pair_counts(), (self.open.len(), self.early.len()), "{context}");
        for outcome in ["opened", "closed", "expired", "restarted", "duplicate", "unmatched"] {
            let counted = host.sum("hydrograph_pairs_total", &[("outcome", outcome)]);
            assert_eq!(counted, self.outcomes.get(outcome).copied().unwrap_or(0), "{context}: {outcome}");
        }
        host.check_laws(context);
    }
}

/// A host whose disk fails and that is killed, beside the lists it must equal.
struct Bench {
    disk: SimDisk,
    durable: Vec<u8>,
    host: Host,
    now: i64,
    waiting: Vec<(Said, i64)>,
    /// What must be true after the last commit that landed, and after the one under way.
    landed: Naive,
    attempted: Option<Naive>,
}

impl Bench {
    fn new() -> Bench {
        let disk = SimDisk::default();
        disk.0.lock().expect("unpoisoned").keep_ops = true;
        let host = boot(&disk, START, 1000);
        Bench {
            disk,
            durable: Vec::new(),
            host,
            now: START,
            waiting: Vec::new(),
            landed: Naive::default(),
            attempted: None,
        }
    }

    fn say(&mut self, said: &[Said]) {
        self.host.take(said, self.now);
        // Shards are drained in the order of their combiners: source one, then two.
        for source in [1, 2] {
            self.waiting.extend(said.iter().filter(|said| said.source == source).map(|said| (*said, self.now)));
        }
    }

    /// One try; false when the disk failed.
    fn commit(&mut self, context: &str) -> bool {
        if self.host.store.is_broken() && self.host.store.reopen().is_err() {
            return false;
        }
        if self.attempted.is_none() {
            let mut next = self.landed.clone();
            next.join(self.now, &std::mem::take(&mut self.waiting));
            self.attempted = Some(next);
        }
        match self.host.store.commit(Timestamp(self.now)) {
            Ok(_) => {
                self.landed = self.attempted.take().expect("set above");
                self.landed.check(&self.host, context);
                true
            }
            Err(error) => {
                assert!(error.is_retryable(), "{context}: {error}");
                false
            }
        }
    }

    fn crash(&mut self, rng: &mut Rng, context: &str) {
        let before = self.host.store.ledger().last_commit();
        let image = if rng.below(2) == 0 {
            self.disk.0.lock().expect("unpoisoned").bytes.clone()
        } else {
            let ops = std::mem::take(&mut self.disk.0.lock().expect("unpoisoned").ops);
            let mut pending: Vec<&Op> = Vec::new();
            for op in &ops {
                if let Op::Sync = op {
                    pending.drain(..).for_each(|op| apply(&mut self.durable, op));
                } else {
                    pending.push(op);
                }
            }
            crash_image(&self.durable, &pending, rng)
        };
        self.disk = SimDisk::of(image.clone());
        self.disk.0.lock().expect("unpoisoned").keep_ops = true;
        self.durable = image;
        self.waiting.clear();
        self.host = boot(&self.disk, self.now, 1000);
        let after = self.host.store.ledger().last_commit();
        match self.attempted.take() {
            Some(attempted) if after > before => self.landed = attempted,
            _ => assert_eq!(after, before, "{context}"),
        }
        // Without any new event: gauges, durations and counts are what they were.
        self.landed.check(&self.host, &format!("{context}, right after the restart"));
    }
}

#[test]
fn v8_any_schedule_with_crashes_and_failing_disks_equals_the_written_rules() {
    let mut totals = BTreeMap::<&str, u64>::new();
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let mut bench = Bench::new();
        for round in 0..60 {
            let context = format!("seed {seed}, round {round}");
            let mut said = Vec::new();
            for _ in 0..rng.below(8) {
                let spread = [0, 1, 3, 6, 50][rng.below(5) as usize] * SECOND;
                let time = bench.now - if spread == 0 { 0 } else { rng.below(spread as u64) as i64 };
                said.push(Said {
                    source: 1 + rng.below(2) as u16,
                    pair: rng.below(2) as u16,
                    key: rng.below(6),
                    time: if rng.below(3) == 0 { time / SECOND * SECOND } else { time },
                    label: (rng.below(2) == 0).then(|| rng.below(2) as usize),
                });
                if rng.below(5) == 0 {
                    said.push(*said.last().expect("just pushed"));
                }
            }
            bench.say(&said);
            if rng.below(8) == 0 {
                let mut inner = bench.disk.0.lock().expect("unpoisoned");
                inner.fail_at = Some(inner.calls + 1 + rng.below(30));
                inner.fail_for = 1 + rng.below(12);
            }
            if rng.below(4) > 0 {
                bench.commit(&context);
            }
            if rng.below(12) == 0 {
                bench.crash(&mut rng, &context);
            }
            bench.now += [0, 200_000_000, SECOND, 3 * SECOND, 20 * SECOND][rng.below(5) as usize];
        }
        bench.disk.0.lock().expect("unpoisoned").fail_at = None;
        for _ in 0..3 {
            bench.now += 60 * SECOND;
            assert!(bench.commit(&format!("seed {seed}, at the end")));
        }
        assert_eq!(bench.host.store.pair_counts(), (0, 0), "seed {seed}: everything closed or expired");
        for (outcome, count) in &bench.landed.outcomes {
            *totals.entry(outcome).or_default() += count;
        }
    }
    assert!(totals.len() == 6 && totals.values().all(|count| *count > 100), "every rule was met: {totals:?}");
}

#[test]
fn v8_sessions_are_told_whatever_the_order_within_lateness() {
    for seed in 0..40 {
        let mut rng = Rng(1000 + seed);
        // (arrival, said): each session has a key of its own, in both sources, at any time.
        let mut arrivals: Vec<(i64, Said)> = Vec::new();
        let mut durations = [Vec::new(), Vec::new()];
        let mut expired = [0, 0];
        for key in 0..300 {
            let start = START + rng.below(200 * SECOND as u64) as i64;
            let label = rng.below(2) as usize;
            let late = |rng: &mut Rng| rng.below(LATENESS as u64 * 8 / 10) as i64;
            let said = |source, time, label| Said { source, pair: 0, key, time, label };
            let source = 1 + rng.below(2) as u16;
            arrivals.push((start + late(&mut rng), said(source, start, Some(label))));
            let took = match rng.below(10) {
                0 => None,
                1 => Some(TIMEOUTS[0] + 1 + rng.below(20 * SECOND as u64) as i64),
                2 => Some(rng.below(3) as i64),
                _ => Some(rng.below((TIMEOUTS[0] - LATENESS) as u64) as i64),
            };
            if let Some(took) = took {
                arrivals.push((start + took + late(&mut rng), said(3 - source, start + took, None)));
            }
            match took {
                Some(took) if took <= TIMEOUTS[0] => durations[label].push(took),
                _ => expired[label] += 1,
            }
        }
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let mut bench = Bench::new();
        let mut arrivals = arrivals.into_iter().peekable();
        while bench.now < START + 300 * SECOND {
            bench.now += 100_000_000 + rng.below(1_500_000_000) as i64;
            let mut said = Vec::new();
            while let Some((_, next)) = arrivals.next_if(|(arrival, _)| *arrival <= bench.now) {
                said.push(next);
            }
            bench.say(&said);
            if rng.below(20) == 0 {
                let mut inner = bench.disk.0.lock().expect("unpoisoned");
                inner.fail_at = Some(inner.calls + 1 + rng.below(30));
                inner.fail_for = 1 + rng.below(12);
            }
            bench.commit(&format!("seed {seed}"));
        }
        bench.disk.0.lock().expect("unpoisoned").fail_at = None;
        bench.commit("at the end");
        bench.commit("at the end");
        for label in 0..2 {
            bench.host.check(label, 0, &durations[label], expired[label], &format!("seed {seed}: the truth"));
        }
        let last = bench.host.store.ledger().last_commit();
        bench.crash(&mut rng, "the last");
        assert_eq!(bench.host.store.ledger().last_commit(), last);
    }
}

#[test]
fn v8_past_the_limit_operations_are_dropped_and_counted() {
    let disk = SimDisk::default();
    let mut host = boot(&disk, START, 10);
    let said = |source, key, label| Said { source, pair: 0, key, time: START, label };
    // Ends without a start have a share of their own: they keep no start out, however many come first.
    let ends: Vec<Said> = (0..20).map(|n| said(2, 100 + n, None)).collect();
    host.take(&ends, START);
    host.store.commit(Timestamp(START)).expect("commits");
    assert_eq!(host.store.pair_counts(), (0, 3));
    let many: Vec<Said> = (0..25).map(|key| said(1, key, Some(0))).collect();
    host.take(&many, START);
    host.store.commit(Timestamp(START)).expect("commits");
    assert_eq!(host.store.pair_counts(), (10, 3));
    host.check_laws("full");
    let dropped = |host: &Host, source| {
        host.sum("hydrograph_dropped_total", &[("source", source), ("edge", "store"), ("reason", "pair_limit")])
    };
    assert_eq!((dropped(&host, "one"), dropped(&host, "two")), (15, 17));
    // An end makes room.
    let open: Vec<Said> = (0..25).map(|key| said(2, key, None)).collect();
    host.take(&open, START + SECOND);
    host.store.commit(Timestamp(START + SECOND)).expect("commits");
    assert_eq!(host.store.pair_counts().0, 0);
    host.check(0, 0, &[0; 10], 0, "all that were open have ended");
    host.check_laws("empty");
}

#[test]
fn v8_a_pair_that_is_declared_no_more_expires_and_its_series_may_leave() {
    let disk = SimDisk::default();
    let mut host = boot(&disk, START, 1000);
    let said = |key| Said { source: 1, pair: 0, key, time: START, label: Some(1) };
    host.take(&[said(1), said(2)], START);
    host.store.commit(Timestamp(START)).expect("commits");
    host.check(1, 2, &[], 0, "open");
    host.store.set_plan(EventsPlan::default());
    host.store.commit(Timestamp(START + 10 * SECOND)).expect("commits");
    host.check(1, 0, &[], 2, "expired");
    host.check_laws("without the pair");
    let pins = host.feeds[1].iter().map(|feed| {
        let table = host.view.table().lock();
        table.get(feed.role.kind(), feed.slot).expect("live").pins
    });
    assert_eq!(pins.collect::<Vec<_>>(), [0, 0, 0], "nothing keeps them");
}

#[test]
fn v8_c4_without_room_operations_are_dropped_and_the_laws_hold() {
    let disk = SimDisk::default();
    let mut host = boot(&disk, START, 1_000_000);
    host.store.commit(Timestamp(START)).expect("nothing to say");
    {
        let mut inner = disk.0.lock().expect("unpoisoned");
        (inner.fail_at, inner.fail_for) = (Some(inner.calls + 1), u64::MAX / 2);
    }
    let mut sent = 0;
    let mut now = START;
    while host.store.has_room() {
        let many: Vec<Said> =
            (0..50_000).map(|n| Said { source: 1, pair: 0, key: sent + n, time: now, label: Some(0) }).collect();
        host.take(&many, now);
        sent += many.len() as u64;
        now += SECOND / 10;
        assert!(sent < 20_000_000, "it fills up");
    }
    host.take(&[Said { source: 2, pair: 0, key: 1, time: now, label: None }], now);
    assert!(host.store.commit(Timestamp(now)).is_err());
    disk.0.lock().expect("unpoisoned").fail_at = None;
    host.store.reopen().expect("opens");
    while host.store.commit(Timestamp(now)).expect("commits").is_some() && host.store.pending_bytes() > 0 {}
    host.check_laws("behind the failure");
    assert_eq!(host.sum("hydrograph_dropped_total", &[("source", "two"), ("reason", "pending")]), 1);
    let one = host.sum("hydrograph_dropped_total", &[("source", "one")]);
    assert_eq!(host.store.pair_counts().0 as u64, sent - one);
}
