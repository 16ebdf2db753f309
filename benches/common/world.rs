//! Shard, store and view without threads and sockets, for the parts of a tick.
//!
//! In: series and samples. Out: sealed combiners, encoded parts, a folded view. Owns: the table, the rules and the
//! durable ids. Invariant: the same calls in the same order as the store's thread makes them.

use hydrograph::delta::{Combiner, EncodedPart, IdMap, Interned, SeriesTable, TableLimits, encode};
use hydrograph::event::{CommitId, Expose, Kind, Labels, SeriesId, SliceWidth, Slot, Timestamp, WireType};
use hydrograph::rule::{ExtraLabels, MetricSpec, Rules, RulesConfig, Undeclared};
use hydrograph::shard::{Acceptance, Decoder, RecentRejects};
use hydrograph::sketch::{Digits, layout};
use hydrograph::store::{Committed, Fold, SeriesDef, SeriesRow};
use hydrograph::view::{View, ViewFold, view};
use std::sync::Arc;

pub(crate) const SLICE_NANOS: i64 = 10_000_000_000;
/// Some wall clock, at the beginning of a slice.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000_000_000);

pub(crate) struct World {
    pub(crate) table: Arc<SeriesTable>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) acceptance: Acceptance,
    pub(crate) ids: IdMap,
    pub(crate) fold: ViewFold,
    pub(crate) view: View,
    pub(crate) commits: u64,
    next_id: u32,
}

impl World {
    pub(crate) fn new(window_slices: u32) -> World {
        let undeclared = Undeclared {
            expose: Expose { summary: true, histogram: false },
            quantiles: Arc::new([0.5, 0.9, 0.95, 0.99]),
            digits: Digits::Two,
            window_slices,
            idle: None,
            suffixes: true,
        };
        let config = RulesConfig {
            undeclared,
            extra_labels: ExtraLabels::Drop,
            source_labels: Vec::new(),
            constant_labels: vec![],
            typed: Default::default(),
            mappings: Default::default(),
            declared: vec![],
            metrics_max: 1000,
        };
        World::of(config)
    }

    pub(crate) fn of(config: RulesConfig) -> World {
        let limits = TableLimits { series: 4_000_000, series_per_metric: 4_000_000 };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let rules = Arc::new(Rules::new(config).expect("valid rules"));
        let slice = SliceWidth::from_nanos(SLICE_NANOS).expect("ten seconds");
        let (mut fold, view) = view(Arc::clone(&table), slice, usize::MAX);
        fold.leaving(slice.slice_of(START));
        let acceptance = Acceptance { slice, accept_late: 3_600_000_000_000, max_future: 600_000_000_000 };
        World { table, rules, acceptance, ids: IdMap::new(), fold, view, commits: 0, next_id: 0 }
    }

    pub(crate) fn decoder(&self) -> Decoder {
        let recent = Arc::new(RecentRejects::new());
        let (rules, table) = (Arc::clone(&self.rules), Arc::clone(&self.table));
        Decoder::new(rules, table, recent, self.acceptance, 0x1234_5678_9ABC_DEF1, usize::MAX)
    }

    pub(crate) fn combiner(&self) -> Combiner {
        Combiner::new(self.acceptance.slice.slice_of(START))
    }

    /// Series of one metric in the table, by slot.
    pub(crate) fn add_series(&mut self, kind: Kind, count: u32) -> Vec<Slot> {
        let (name, wire) = match kind {
            Kind::Counter => ("checkout.request.handled.count", WireType::Count),
            _ => ("checkout.request.latency", WireType::Timing),
        };
        let mut slots = Vec::new();
        for n in 0..count {
            let host = format!("web-{n:06}");
            let pairs = [("region", "eu-west"), ("host", &host), ("code", "200")];
            let resolved = self.rules.resolve_handle(name, wire, &pairs).expect("valid names");
            match self.table.intern(&resolved.metric, &resolved.labels) {
                Interned::Slot(slot) => slots.push(slot),
                _ => panic!("within the limits"),
            }
        }
        slots
    }

    /// Series of one metric that is exposed as a histogram with the preset of seconds, by slot.
    pub(crate) fn add_histograms(&mut self, count: u32) -> Vec<Slot> {
        let mut spec = MetricSpec::new("checkout_latency_seconds", Kind::Distribution, "Latency", "checkout");
        spec.expose = Some(Expose { summary: false, histogram: true });
        let metric = self.rules.metric(&spec).expect("a new name");
        let mut slots = Vec::new();
        for n in 0..count {
            let host = format!("web-{n:06}");
            let pairs = [("region", "eu-west"), ("host", &*host), ("code", "200")];
            let labels = self.rules.labels_of(&metric, &pairs).expect("valid labels");
            match self.table.intern(&metric, &labels) {
                Interned::Slot(slot) => slots.push(slot),
                _ => panic!("within the limits"),
            }
        }
        slots
    }

    /// Gives ids to what has none, as the store does in the commit of a series' first delta.
    pub(crate) fn give_ids(&mut self, combiner: &Combiner, now: Timestamp) -> Vec<SeriesRow> {
        let unknown = combiner.unknown_slots(&self.ids);
        let table = self.table.lock();
        let mut rows = Vec::with_capacity(unknown.len());
        for (kind, slot) in unknown {
            let id = SeriesId(self.next_id);
            self.next_id += 1;
            self.ids.set(kind, slot, id);
            let entry = table.get(kind, slot).expect("it was interned");
            let (metric, labels) = (Arc::clone(&entry.metric), entry.labels.clone());
            rows.push(SeriesRow { id, hash: entry.hash, metric, labels, slot, created: now });
        }
        drop(table);
        let mut table = self.table.lock();
        for row in &rows {
            if let Some(entry) = table.get_mut(row.metric.kind, row.slot) {
                entry.id = Some(row.id);
            }
        }
        rows
    }

    pub(crate) fn defs(rows: &[SeriesRow]) -> Vec<SeriesDef> {
        rows.iter().map(|row| SeriesDef::new(row.id, row.hash, &row.metric, row.labels.clone(), row.created)).collect()
    }

    pub(crate) fn encode(&mut self, combiner: &mut Combiner) -> Vec<EncodedPart> {
        encode(combiner, &self.ids, &mut |_, _, sum| sum).0
    }

    pub(crate) fn fold(&mut self, series: &[SeriesRow], parts: &[EncodedPart], now: Timestamp) {
        self.commits += 1;
        let committed = Committed { id: CommitId(self.commits), time: now, series, resets: &[], parts };
        self.fold.commit(&committed).expect("parts of this process are sound");
    }

    /// One tick: ids, encode, fold; without a disk.
    pub(crate) fn tick(&mut self, combiner: &mut Combiner, now: Timestamp) {
        let rows = self.give_ids(combiner, now);
        let parts = self.encode(combiner);
        self.fold(&rows, &parts, now);
    }
}

/// Adds a timing in nanoseconds as a shard does.
pub(crate) fn add_timing(combiner: &mut Combiner, slot: Slot, nanos: u64) {
    let units = nanos as i64;
    combiner.add_value(slot.0, units, layout::cell_of(Digits::Two, units) as i16);
}
