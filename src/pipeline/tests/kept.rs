//! Kept events: the newest of each schema, durable with their commit, whatever the disk does.

use super::pairs::SECOND;
use crate::delta::epoch::{InputGroup, SealSink, Sealed};
use crate::delta::kept::{KEPT_EVENT_BYTES, KeptIndex};
use crate::delta::{Combiner, SeriesTable, TableLimits};
use crate::event::{Clock, Labels, ManualClock, ShardIndex, SliceWidth, SourceIndex, Timestamp};
use crate::rule::{Rules, RulesConfig};
use crate::store::tests::disk::SimDisk;
use crate::store::tests::script::{Rng, SLICE_NANOS};
use crate::store::{
    EventsPlan, KeptPlan, Ledger, LedgerConfig, LedgerPath, MEMORY_BYTES, Store, StoreActor, StoreHandle, StoreLimits,
    store_channel,
};
use crate::view::view;
use std::sync::Arc;

const START: i64 = 1_700_000_000 * SECOND;
const NAMES: [(&str, u32); 4] = [("order", 3), ("ignored", 0), ("orders", 20), ("rare", 1)];

struct Host {
    actor: StoreActor,
    handle: StoreHandle,
    clock: Arc<ManualClock>,
}

fn plan(names: &[(&str, u32)]) -> EventsPlan {
    let kept = names.iter().map(|(name, keep)| KeptPlan { name: (*name).into(), keep: *keep }).collect();
    EventsPlan { kept, ..EventsPlan::default() }
}

fn boot(config: &LedgerConfig, clock: &Arc<ManualClock>, plan: EventsPlan) -> Host {
    let now = clock.wall();
    let rules = Arc::new(Rules::new(RulesConfig::default()).expect("no clash"));
    let table = Arc::new(SeriesTable::new(TableLimits { series: 1000, series_per_metric: 1000 }, Labels::empty()));
    let slice = SliceWidth::from_nanos(SLICE_NANOS).expect("wide enough");
    let (fold, _) = view(Arc::clone(&table), slice, 1 << 20);
    let (tiers, max_size) = (Vec::new(), u64::MAX);
    let (keep, pending) = (3600 * SECOND, 64 << 20);
    let limits = StoreLimits { slice, lateness: SECOND, hold_max: SECOND, keep, tiers, max_size, pending };
    let sources = ["internal", "one"].map(|name| (name.to_owned(), "test")).to_vec();
    let ledger = Ledger::open(config, now).expect("opens");
    let mut store = Store::recover(ledger, Box::new(fold), table, &rules, sources, limits, 1, now).expect("recovers");
    store.set_plan(plan);
    let (handle, inbox) = store_channel();
    let shared: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    let actor = StoreActor::new(store, inbox, handle.clone(), Vec::new(), Vec::new(), shared, slice, SECOND);
    Host { actor, handle, clock: Arc::clone(clock) }
}

impl Host {
    fn keep(&mut self, events: &[(u16, i64, String)]) {
        let slice = SliceWidth::from_nanos(SLICE_NANOS).expect("wide enough").slice_of(self.clock.wall());
        let mut combiner = Box::new(Combiner::new(slice));
        for (event, time, text) in events {
            let (source, keep) = (SourceIndex(1), NAMES[usize::from(*event)].1);
            combiner.keep_event(source, KeptIndex(*event), keep, Timestamp(*time), text.as_bytes());
        }
        let sealed_at = self.clock.wall();
        let sealed =
            Sealed { shard: ShardIndex(0), group: InputGroup::Live, epoch: 0, barrier: None, sealed_at, combiner };
        self.handle.sealed(sealed);
    }

    fn tick(&mut self) {
        self.clock.advance(SECOND);
        for _ in 0..3 {
            self.actor.step();
        }
    }

    fn texts(&self, event: Option<&str>, limit: usize) -> Vec<String> {
        let text = |row: crate::store::KeptRow| {
            assert_eq!(&*row.source, "one");
            format!("{} {}", row.event, String::from_utf8(row.text.to_vec()).expect("as it came"))
        };
        self.handle.kept(event, limit).into_iter().map(text).collect()
    }
}

#[test]
fn keep_the_newest_of_each_schema_survive_crashes_and_failing_disks() {
    for seed in 0..25 {
        let mut rng = Rng(seed);
        let clock = Arc::new(ManualClock::new(Timestamp(START)));
        let mut disk = SimDisk::default();
        let mut host = boot(&disk.config(), &clock, plan(&NAMES));
        // What was said and is committed, newest last, by schema.
        let mut said: Vec<Vec<String>> = vec![Vec::new(); NAMES.len()];
        let mut number = 0;
        for round in 0..60 {
            if rng.below(6) == 0 {
                let mut inner = disk.0.lock().expect("unpoisoned");
                (inner.fail_at, inner.fail_for) = (Some(inner.calls + 1 + rng.below(30)), 1 + rng.below(20));
            }
            let mut events = Vec::new();
            for _ in 0..rng.below(9) {
                let event = [0, 0, 1, 2, 2, 2, 3][rng.below(7) as usize];
                number += 1;
                let text = format!("{{\"n\":{number}}}");
                said[event].push(format!("{} {text}", NAMES[event].0));
                events.push((event as u16, clock.wall().0 + number, text));
            }
            host.keep(&events);
            if rng.below(3) > 0 {
                host.tick();
            }
            if rng.below(8) > 0 {
                continue;
            }
            for _ in 0..12 {
                disk.0.lock().expect("unpoisoned").fail_at = None;
                host.tick();
            }
            let context = format!("seed {seed}, round {round}");
            for restarted in [false, true] {
                for ((name, keep), said) in NAMES.iter().zip(&said) {
                    let newest: Vec<String> = said.iter().rev().take(*keep as usize).cloned().collect();
                    assert_eq!(host.texts(Some(name), 1000), newest, "{context}, {name}, restarted {restarted}");
                    assert_eq!(host.texts(Some(name), 2), newest[..newest.len().min(2)], "{context}, {name}");
                }
                assert!(host.texts(None, 1000).len() <= 24);
                let bytes = disk.0.lock().expect("unpoisoned").bytes.clone();
                disk = SimDisk::of(bytes);
                host = boot(&disk.config(), &clock, plan(&NAMES));
            }
        }
    }
}

#[test]
fn keep_what_is_too_long_is_cut_and_what_is_kept_no_more_goes() {
    let config = LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS);
    let clock = Arc::new(ManualClock::new(Timestamp(START)));
    let mut host = boot(&config, &clock, plan(&NAMES));
    let long = "x".repeat(3 * KEPT_EVENT_BYTES);
    host.keep(&[(0, START, "short".into()), (0, START + 1, long), (2, START + 2, "other".into())]);
    assert!(host.handle.kept(None, 9).is_empty(), "nothing is shown before it is durable");
    host.tick();
    let kept = host.handle.kept(Some("order"), 9);
    assert_eq!(
        kept.iter().map(|row| (row.text.len(), row.is_cut)).collect::<Vec<_>>(),
        [(KEPT_EVENT_BYTES, true), (5, false)]
    );
    assert_eq!(host.handle.kept(None, 2).iter().map(|row| row.time.0 - START).collect::<Vec<_>>(), [2, 1]);
    host.handle.set_plan(plan(&[("order", 1)]));
    host.tick();
    assert_eq!(host.texts(None, 9).len(), 1, "fewer of one, none of the other");
    let rows = host.actor.store().ledger().sizes().into_iter().find(|size| size.table == "recent").expect("a table");
    assert_eq!(rows.rows, 1, "also in the file");
}
