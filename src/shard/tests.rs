//! Decoder and shard against a list of lines whose meaning is known, and against any bytes.

use super::ring::{EventHead, RingOp, RingPolicy, RingWriter};
use super::*;
use crate::delta::part::{PartCursor, RowValue, Scratch};
use crate::delta::{EncodedPart, GaugeSum, IdMap, Interned, SeriesTable, SourceTally, TableLimits, encode};
use crate::event::{SeriesId, SliceWidth, WireType};
use crate::rule::{Rules, RulesConfig};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000 * SECOND);
const SOURCE: SourceIndex = SourceIndex(3);
const ORIGIN: Origin = Origin { source: SOURCE, reader: 1 };

fn acceptance() -> Acceptance {
    let slice = SliceWidth::from_nanos(10 * SECOND).expect("wide enough");
    Acceptance { slice, accept_late: 3600 * SECOND, max_future: 600 * SECOND }
}

/// A decoder with a table of its own.
fn decoder(series: u32) -> (Decoder, Arc<SeriesTable>) {
    let rules = Arc::new(Rules::new(RulesConfig::default()).expect("no clash"));
    let limits = TableLimits { series, series_per_metric: series };
    let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
    let recent = Arc::new(RecentRejects::new());
    (Decoder::new(rules, Arc::clone(&table), recent, acceptance(), 7, 1 << 20), table)
}

fn ids() -> IdMap {
    let mut ids = IdMap::new();
    for kind in Kind::ALL {
        (0..3000).for_each(|slot| ids.set(kind, Slot(slot), SeriesId(slot)));
    }
    ids
}

fn drain(combiner: &mut Combiner) -> (Vec<EncodedPart>, SourceTally) {
    let (parts, mut tallies) = encode(combiner, &ids(), &mut |_, _, mut sum| {
        // Operations are the store's to resolve; here their sum stands for them.
        if let Some(by) = sum.adjust.take() {
            sum = GaugeSum {
                count: sum.count + 1,
                last: sum.last + by,
                min: sum.min.min(by),
                max: sum.max.max(by),
                ..sum
            };
        }
        sum
    });
    tallies.resize_with(usize::from(SOURCE.0) + 1, SourceTally::default);
    (parts, tallies.swap_remove(usize::from(SOURCE.0)))
}

/// Σ by kind of what parts hold: nanos, gauge sets, samples, sets with members.
fn sums(parts: &[EncodedPart]) -> [i128; 4] {
    let mut sums = [0; 4];
    let mut scratch = Scratch::default();
    for part in parts {
        let mut cursor = PartCursor::new(&part.bytes).expect("a part");
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            sums[row.value.kind() as usize] += match &row.value {
                RowValue::Counter(sum) => sum.nanos,
                RowValue::Gauge(sum) => i128::from(sum.count),
                RowValue::Distribution(row) => i128::from(row.count),
                RowValue::Set(_) => 1,
            };
        }
    }
    sums
}

fn check_laws(tally: &SourceTally) {
    assert_eq!(tally.inputs, tally.events + tally.rejected_total(), "the law of inputs");
    assert_eq!(tally.samples_total(), tally.recorded_total() + tally.dropped_total(), "the law of samples");
}

/// A line and what it must come to.
#[derive(Clone, Debug)]
struct Known {
    line: String,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
enum Outcome {
    /// Samples of a kind, and their Σ in nanos for counters.
    Recorded(Kind, u64, i128),
    Dropped(DropReason, Kind, u64),
    Refused(RejectReason),
    Notice,
}

fn known() -> impl Strategy<Value = Known> {
    let at = |seconds: i64| NOW.0 / SECOND + seconds;
    let tag = proptest::sample::select(vec!["", "|#k:a", "|#k:b,z", "|c:abc|#k:c", "|e:x|card:low"]);
    (0u8..22, 1u32..100_000, 0u32..40, tag).prop_map(move |(form, n, name, tag)| {
        let nanos = i128::from(n) * 1_000_000_000;
        use Kind::{Counter, Distribution, Gauge, Set};
        use Outcome::{Dropped, Recorded, Refused};
        let (line, outcome) = match form {
            0..4 => (format!("c{name}:{n}|c{tag}"), Recorded(Counter, 1, nanos)),
            4 => (format!("c{name}:{n}|c|@0.5{tag}"), Recorded(Counter, 1, 2 * nanos)),
            5 => (format!("c{name}:{n}:1:0.25|c{tag}"), Recorded(Counter, 3, nanos + 1_250_000_000)),
            6 => (format!("c{name}:{n}|c|T{}{tag}", at(-500)), Recorded(Counter, 1, nanos)),
            7 => (format!("c{name}:{n}|c|T{}{tag}", at(-4000)), Dropped(DropReason::TooLate, Counter, 1)),
            8 => (format!("g{name}:{n}|g|T{}{tag}", at(700)), Dropped(DropReason::TooEarly, Gauge, 1)),
            9 => (format!("g{name}:{n}|g{tag}"), Recorded(Gauge, 1, 0)),
            10 => (format!("t{name}:{n}|ms{tag}"), Recorded(Distribution, 1, 0)),
            11 => (format!("t{name}:{n}:7:9|ms|@0.1{tag}"), Recorded(Distribution, 3, 0)),
            12 => (format!("h{name}:-{n}|h{tag}"), Recorded(Distribution, 1, 0)),
            13 => (format!("s{name}:{n}|s{tag}"), Recorded(Set, 1, 0)),
            14 => (format!("c{name}:{n}"), Refused(RejectReason::Malformed)),
            15 => (format!("c{name}:{n}|q"), Refused(RejectReason::UnknownType)),
            16 => (format!("t{name}:-{n}|ms{tag}"), Refused(RejectReason::Negative)),
            17 => (format!("c{name}:1:x|c{tag}"), Refused(RejectReason::BadValue)),
            18 => (format!("c{name}:{n}|c|@1e-9{tag}"), Refused(RejectReason::BadRate)),
            19 => (format!("c{name}:{n}e18|c{tag}"), Refused(RejectReason::OutOfRange)),
            20 => ("_e{2,2}:ab|cd".to_owned(), Outcome::Notice),
            _ => (format!("c{name}:{n}|c|x:unknown{tag}"), Recorded(Counter, 1, nanos)),
        };
        // A value of one times 10^18 lies inside the range.
        let outcome =
            if form == 19 && n == 1 { Recorded(Counter, 1, nanos * 1_000_000_000_000_000_000) } else { outcome };
        Known { line, outcome }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn c6_v1_v2_buffers_traced_lines_and_known_lines_agree(
        buffers in proptest::collection::vec((proptest::collection::vec(known(), 0..90), 0i64..30), 1..4),
    ) {
        let (mut fast, _) = decoder(10_000);
        let (mut traced, _) = decoder(10_000);
        let hot = acceptance().slice.slice_of(NOW);
        let (mut a, mut b) = (Combiner::new(hot), Combiner::new(hot));
        let mut expected = SourceTally::default();
        let mut counted = [0i128; 4];
        for (lines, later) in &buffers {
            // Later buffers may arrive in another slice than the combiner's.
            let arrival = NOW.plus_nanos(later * SECOND);
            let payload: String = lines.iter().map(|known| format!("{}\n", known.line)).collect();
            fast.ingest(&mut a, ORIGIN, payload.as_bytes(), arrival);
            let outcomes = traced.ingest_traced(&mut b, ORIGIN, payload.as_bytes(), arrival);
            prop_assert_eq!(outcomes.len(), lines.len());
            for (known, (text, outcome)) in lines.iter().zip(outcomes) {
                prop_assert_eq!(&known.line, &text);
                expected.inputs += 1;
                expected.events += 1;
                match (&known.outcome, outcome) {
                    (Outcome::Recorded(kind, samples, nanos), LineOutcome::Accepted { samples: found, dropped: None, metric, .. }) => {
                        prop_assert_eq!((metric.kind, u64::from(found)), (*kind, *samples));
                        expected.samples[*kind as usize] += samples;
                        expected.recorded[*kind as usize] += samples;
                        counted[*kind as usize] += if *kind == Kind::Counter { *nanos } else { i128::from(*samples) };
                    }
                    (Outcome::Dropped(reason, kind, samples), LineOutcome::Accepted { dropped: Some(found), .. }) => {
                        prop_assert_eq!(found, *reason);
                        expected.samples[*kind as usize] += samples;
                        expected.dropped[Edge::Shard as usize][*reason as usize] += samples;
                    }
                    (Outcome::Refused(reason), LineOutcome::Refused(found, _)) => {
                        prop_assert_eq!(found, *reason, "{}", text);
                        expected.events -= 1;
                        expected.rejected[*reason as usize] += 1;
                    }
                    (Outcome::Notice, LineOutcome::Notice) => expected.notices += 1,
                    (known, found) => prop_assert!(false, "{text} became {found:?} and not {known:?}"),
                }
            }
        }
        let ((parts, tally), (other_parts, other_tally)) = (drain(&mut a), drain(&mut b));
        prop_assert_eq!(&parts, &other_parts, "the same records, to the byte");
        prop_assert_eq!(&tally, &other_tally);
        check_laws(&tally);
        let found = sums(&parts);
        prop_assert_eq!(found[..3].to_vec(), counted[..3].to_vec());
        (expected.late, expected.unknown_fields) = (tally.late, tally.unknown_fields);
        prop_assert_eq!(tally, expected);
    }

    #[test]
    fn c6_any_bytes_obey_both_laws(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        lines in proptest::collection::vec(known(), 0..20),
        noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut payload: Vec<u8> = lines.iter().flat_map(|known| format!("{}\n", known.line).into_bytes()).collect();
        for (at, byte) in noise {
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        let hot = acceptance().slice.slice_of(NOW);
        for payload in [&payload, &bytes] {
            let (mut fast, _) = decoder(10_000);
            let (mut traced, _) = decoder(10_000);
            let (mut a, mut b) = (Combiner::new(hot), Combiner::new(hot));
            fast.ingest(&mut a, ORIGIN, payload, NOW);
            let outcomes = traced.ingest_traced(&mut b, ORIGIN, payload, NOW);
            let ((parts, tally), other) = (drain(&mut a), drain(&mut b));
            check_laws(&tally);
            prop_assert_eq!(tally.inputs, outcomes.len() as u64);
            prop_assert_eq!(&parts, &other.0);
            prop_assert_eq!(&tally, &other.1);
        }
    }
}

#[test]
fn t1_acceptance_is_decided_to_the_second() {
    let (mut decoder, _) = decoder(100);
    let mut combiner = Combiner::new(acceptance().slice.slice_of(NOW));
    let now = NOW.0 / SECOND;
    let late = |seconds: i64| format!("a:1|c|T{}\n", now + seconds);
    for (seconds, dropped) in
        [(-3600, None), (-3601, Some(DropReason::TooLate)), (600, None), (601, Some(DropReason::TooEarly)), (0, None)]
    {
        let outcomes = decoder.ingest_traced(&mut combiner, ORIGIN, late(seconds).as_bytes(), NOW);
        let LineOutcome::Accepted { dropped: found, .. } = outcomes[0].1 else { panic!("{:?}", outcomes[0].1) };
        assert_eq!(found, dropped, "{seconds}");
    }
    let (parts, tally) = drain(&mut combiner);
    assert_eq!(sums(&parts)[0], 3_000_000_000);
    assert_eq!(tally.late, 1);
    let slices: Vec<u32> = parts.iter().map(|part| part.slice.0).collect();
    let hot = acceptance().slice.slice_of(NOW).0;
    assert_eq!(slices, [hot, hot - 360, hot + 60], "the hot slice, then the others ascending");
}

#[test]
fn s3_sums_are_exact_past_a_limit_and_nothing_of_it_is_cached() {
    let (mut decoder, table) = decoder(5);
    let hot = acceptance().slice.slice_of(NOW);
    let mut combiner = Combiner::new(hot);
    let mut text = String::new();
    for round in 0..3 {
        for n in 0..20 {
            text += &format!("c:{}|c|#k:{n}\nt:{n}|ms|#k:{n}\ng:1|g|#k:{n}\nu:{n}|s|#k:{n}\n", round + 1);
        }
    }
    decoder.ingest(&mut combiner, ORIGIN, text.as_bytes(), NOW);
    let (parts, tally) = drain(&mut combiner);
    check_laws(&tally);
    assert_eq!(sums(&parts)[0], 20 * 6 * 1_000_000_000);
    assert_eq!(sums(&parts)[2], 60);
    assert!(tally.dropped[Edge::Shard as usize][DropReason::SeriesLimit as usize] > 0);
    assert!(table.lock().live() <= 5 && decoder.cached_keys() <= 5, "{} keys", decoder.cached_keys());
}

#[test]
fn s2_a_slot_that_was_given_to_another_series_gets_its_samples_alone() {
    let (mut decoder, table) = decoder(100);
    let hot = acceptance().slice.slice_of(NOW);
    let mut combiner = Combiner::new(hot);
    decoder.ingest(&mut combiner, ORIGIN, b"a:1|c\na:1|c|#k:v\nl:5|ms\n", NOW);
    drain(&mut combiner);
    let all = [(Kind::Counter, Slot(0)), (Kind::Distribution, Slot(0))];
    let marked = table.lock().mark_retiring(all);
    decoder.forget(&marked);
    assert_eq!(table.lock().retire(&marked).len(), 2);
    decoder.ingest(&mut combiner, ORIGIN, b"b:10|c\na:100|c|#k:v\na:1000|c\n", NOW);
    let slot = |name: &str, labels: &[(&str, &str)]| {
        let rules = Rules::new(RulesConfig::default()).expect("no clash");
        let metric = rules.resolve_handle(name, WireType::Count, labels).expect("valid");
        match table.intern(&metric.metric, &metric.labels) {
            Interned::Slot(slot) => slot.0,
            other => panic!("{other:?}"),
        }
    };
    let (parts, _) = drain(&mut combiner);
    let mut found = BTreeMap::new();
    let mut scratch = Scratch::default();
    let mut cursor = PartCursor::new(&parts[0].bytes).expect("a part");
    while let Some(row) = cursor.next(&mut scratch).expect("whole") {
        if let RowValue::Counter(sum) = row.value {
            found.insert(row.id.0, sum.nanos / 1_000_000_000);
        }
    }
    assert_eq!(slot("b", &[]), 0, "the slot of the series that left");
    assert_eq!(found, BTreeMap::from([(0, 10), (slot("a", &[("k", "v")]), 100), (slot("a", &[]), 1000)]));
}

#[test]
fn s3_what_brings_no_sample_takes_no_slot() {
    let (mut decoder, table) = decoder(100);
    let mut combiner = Combiner::new(acceptance().slice.slice_of(NOW));
    for n in 0..20 {
        let lines = format!("a:1|c|T5|#k:{n}\nb:2e18|g|#k:{n}\nc:1e19|c|#k:{n}\n");
        decoder.ingest(&mut combiner, ORIGIN, lines.as_bytes(), NOW);
    }
    assert_eq!(table.lock().live(), 0);
    check_laws(&drain(&mut combiner).1);
}

#[test]
fn s3_a_cache_that_forgets_in_the_middle_of_a_buffer_loses_nothing() {
    let (mut decoder, _) = decoder(10_000);
    let mut combiner = Combiner::new(acceptance().slice.slice_of(NOW));
    // About a thousand keys of this length fill the cache; the lines between are known.
    let long = "x".repeat(900);
    let mut payload = String::new();
    for n in 0..2_500 {
        payload.push_str(&format!("a:1|c|#k:{n},l:{long}\na:1|c|#k:{},l:{long}\nb:1|c\n", n / 2));
    }
    for _ in 0..2 {
        decoder.ingest(&mut combiner, ORIGIN, payload.as_bytes(), NOW);
    }
    let (parts, tally) = drain(&mut combiner);
    assert_eq!(sums(&parts)[0], 15_000 * 1_000_000_000);
    assert_eq!(tally.recorded_total(), 15_000);
    check_laws(&tally);
    let mut scratch = Scratch::default();
    let mut counts: Vec<i128> = Vec::new();
    for part in &parts {
        let mut cursor = PartCursor::new(&part.bytes).expect("a part");
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            if let RowValue::Counter(sum) = row.value {
                counts.push(sum.nanos / 1_000_000_000);
            }
        }
    }
    counts.sort_unstable();
    // Each series by itself: the lower half came twice more.
    let expected: Vec<i128> = [vec![2; 1_250], vec![6; 1_250], vec![5_000]].concat();
    assert_eq!(counts, expected);
}

/// What shards say, in order.
#[derive(Default)]
struct Said(Mutex<(Vec<Sealed>, usize)>);

impl SealSink for Said {
    fn sealed(&self, sealed: Sealed) {
        self.0.lock().expect("unpoisoned").0.push(sealed);
    }

    fn wants_tick(&self) {
        self.0.lock().expect("unpoisoned").1 += 1;
    }
}

impl Said {
    fn take(&self) -> Vec<Sealed> {
        std::mem::take(&mut self.0.lock().expect("unpoisoned").0)
    }

    fn asked(&self) -> usize {
        self.0.lock().expect("unpoisoned").1
    }
}

fn shard() -> (Shard, ShardHandle, Arc<Said>) {
    let said = Arc::new(Said::default());
    let sink: Arc<dyn SealSink> = Arc::clone(&said) as Arc<dyn SealSink>;
    let (shard, handle) = Shard::new(ShardIndex(0), decoder(100).0, sink, NOW).expect("a descriptor");
    (shard, handle, said)
}

fn counted(sealed: &mut Sealed) -> i128 {
    sums(&drain(&mut sealed.combiner).0)[0] / 1_000_000_000
}

#[test]
fn c1_a_seal_without_a_spare_is_answered_when_it_comes_back() {
    let (mut shard, handle, said) = shard();
    shard.ingest(ORIGIN, b"a:1|c\n", NOW);
    handle.seal(1);
    shard.turn(NOW);
    let mut first = said.take();
    assert_eq!(first.len(), 1);
    shard.ingest(ORIGIN, b"a:10|c\n", NOW);
    handle.seal(2);
    shard.turn(NOW);
    // No spare: it goes on, and answers the newest seal once.
    shard.ingest(ORIGIN, b"a:100|c\n", NOW);
    handle.seal(3);
    shard.turn(NOW);
    assert!(said.take().is_empty());
    let Sealed { combiner, .. } = {
        let mut sealed = first.remove(0);
        assert_eq!((sealed.epoch, counted(&mut sealed)), (1, 1));
        sealed
    };
    handle.give_back(InputGroup::Live, combiner);
    shard.turn(NOW);
    let mut second = said.take();
    assert_eq!((second.len(), second[0].epoch, counted(&mut second[0])), (1, 3, 110));
}

#[test]
fn c1_a_slice_that_rolls_goes_to_the_store_and_without_a_spare_asks_for_a_tick_once() {
    let (mut shard, handle, said) = shard();
    let at = |slices: i64| NOW.plus_nanos(slices * 10 * SECOND);
    let by_slice = |sealed: &mut Sealed| -> Vec<(i64, i128)> {
        let first = acceptance().slice.slice_of(NOW).0;
        let (parts, _) = drain(&mut sealed.combiner);
        let of = |part: &EncodedPart| sums(std::slice::from_ref(part))[0] / 1_000_000_000;
        parts.iter().map(|part| (i64::from(part.slice.0 - first), of(part))).collect()
    };
    shard.ingest(ORIGIN, b"a:1|c\n", at(0));
    shard.ingest(ORIGIN, b"a:10|c\n", at(1));
    let mut rolled = said.take();
    assert_eq!((rolled.len(), rolled[0].epoch, by_slice(&mut rolled[0])), (1, 0, vec![(0, 1)]));
    assert_eq!(said.asked(), 0);
    // The store still has the spare.
    shard.ingest(ORIGIN, b"a:100|c\n", at(2));
    shard.ingest(ORIGIN, b"a:1000|c\n", at(2));
    assert_eq!((said.take().len(), said.asked()), (0, 1));
    handle.seal(1);
    handle.give_back(InputGroup::Live, rolled.remove(0).combiner);
    shard.turn(at(2));
    let mut asked = said.take();
    assert_eq!((asked.len(), asked[0].epoch, by_slice(&mut asked[0])), (1, 1, vec![(1, 10), (2, 1100)]));
    // Nothing to hand over: the slice only begins.
    let combiner = asked.remove(0).combiner;
    handle.give_back(InputGroup::Live, combiner);
    shard.turn(at(2));
    shard.ingest(ORIGIN, b"a:5|c\n", at(3));
    assert_eq!((said.take().len(), said.asked()), (0, 1));
}

fn replayed(n: i128) -> Vec<ReplaySample> {
    let rules = Rules::new(RulesConfig::default()).expect("no clash");
    let resolved = rules.resolve_handle("a", WireType::Count, &[]).expect("valid");
    let (metric, labels) = (resolved.metric, resolved.labels);
    vec![ReplaySample { metric, labels, value: n * 1_000_000_000, time: NOW, position: 1, weight: 4096 }]
}

fn barrier(incarnation: u32, epoch: u64) -> Barrier {
    Barrier { source: SOURCE, incarnation, epoch, positions: Arc::new([]) }
}

#[test]
fn c1_what_comes_behind_a_barrier_is_of_the_next_epoch_even_without_a_spare() {
    let (mut shard, handle, said) = shard();
    for epoch in 1..=4u64 {
        handle.replay(SOURCE, 0, replayed(i128::from(epoch))).expect("it lives");
        handle.barrier(barrier(0, epoch)).expect("it lives");
    }
    handle.replay(SOURCE, 0, replayed(100)).expect("it lives");
    shard.turn(NOW);
    let mut sealed = said.take();
    let found: Vec<(u64, i128)> = sealed.iter_mut().map(|sealed| (sealed.epoch, counted(sealed))).collect();
    assert_eq!(found, [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[test]
fn c2_an_older_incarnation_is_discarded() {
    let (mut shard, handle, said) = shard();
    handle.replay(SOURCE, 0, replayed(1)).expect("it lives");
    handle.replay(SOURCE, 2, replayed(10)).expect("it lives");
    handle.replay(SOURCE, 1, replayed(100)).expect("it lives");
    handle.barrier(barrier(1, 1)).expect("it lives");
    handle.barrier(barrier(2, 1)).expect("it lives");
    handle.replay(SOURCE, 2, replayed(1000)).expect("it lives");
    // A barrier alone begins an incarnation too.
    handle.barrier(barrier(3, 2)).expect("it lives");
    shard.turn(NOW);
    let mut sealed = said.take();
    let found: Vec<(u32, i128)> = sealed
        .iter_mut()
        .map(|sealed| (sealed.barrier.as_ref().expect("a barrier").incarnation, counted(sealed)))
        .collect();
    assert_eq!(found, [(2, 10), (3, 0)]);
}

#[test]
fn c6_rings_are_read_before_a_seal_and_a_closed_one_hands_over() {
    let (mut shard, handle, said) = shard();
    let ring = Ring::new(64, handle.waker().clone());
    handle.attach(SOURCE, Arc::clone(&ring)).expect("it lives");
    shard.turn(NOW);
    let writer = RingWriter::new(ring, RingPolicy::Block);
    let counter = writer.counter(Slot(4));
    (0..50).for_each(|n| writer.push(EventHead::new(Slot(1), RingOp::Units, 0), n));
    counter.add(7);
    writer.refuse(RejectReason::NotFinite);
    handle.seal(1);
    shard.turn(NOW);
    counter.add(5);
    writer.push(EventHead::new(Slot(2), RingOp::Member, 0), 9);
    drop(writer);
    shard.turn(NOW);
    assert!(!shard.has_rings(), "a closed ring is let go");
    let mut sealed = said.take().remove(0);
    let (parts, tally) = drain(&mut sealed.combiner);
    check_laws(&tally);
    assert_eq!((sums(&parts), tally.inputs, tally.rejected_total()), ([7_000_000_000, 0, 50, 0], 52, 1));
    handle.give_back(InputGroup::Live, sealed.combiner);
    handle.seal(2);
    shard.turn(NOW);
    let (parts, tally) = drain(&mut said.take().remove(0).combiner);
    check_laws(&tally);
    assert_eq!((sums(&parts), tally.inputs), ([5_000_000_000, 0, 0, 1], 2));
}

#[test]
fn a_producer_does_not_wait_for_a_shard_that_is_gone() {
    let (mut shard, handle, _said) = shard();
    let rings: Vec<_> = (0..2).map(|_| Ring::new(16, handle.waker().clone())).collect();
    handle.attach(SOURCE, Arc::clone(&rings[0])).expect("it lives");
    shard.turn(NOW);
    // The second one is still on its way when the shard ends.
    handle.attach(SOURCE, Arc::clone(&rings[1])).expect("it lives");
    drop(shard);
    for ring in rings {
        let writer = RingWriter::new(ring, RingPolicy::Block);
        (0..100).for_each(|n| writer.push(EventHead::new(Slot(1), RingOp::Units, 0), n));
    }
    let ring = Ring::new(16, handle.waker().clone());
    assert_eq!(handle.attach(SOURCE, ring), Err(Gone));
}

#[test]
fn v2_weights_of_events_are_kept_to_the_smallest_rate() {
    for weight in [1u64, 4096, 4097, 8192, 1 << 21, 1 << 22] {
        for digits in [Digits::One, Digits::Two, Digits::Three] {
            assert_eq!(unpack_weight(pack_weight(weight, digits)), (weight, digits));
        }
    }
}

#[test]
fn equal_lines_of_two_sources_go_by_the_mapping_of_each() {
    use crate::rule::mapping::Mapping;
    let text = "mappings: [{ match: a.*, name: mapped, labels: { x: $1 }, scale: 100 }]";
    let mut config = RulesConfig::default();
    config.mappings.by_source = vec![None, Some(Arc::new(Mapping::parse(text).expect("valid")))];
    let rules = Arc::new(Rules::new(config).expect("no clash"));
    let table = Arc::new(SeriesTable::new(TableLimits { series: 10, series_per_metric: 10 }, Labels::empty()));
    let recent = Arc::new(RecentRejects::new());
    let mut decoder = Decoder::new(rules, Arc::clone(&table), recent, acceptance(), 7, 1 << 20);
    let mut combiner = Combiner::new(acceptance().slice.slice_of(NOW));
    // Often enough that the second round comes from the caches.
    for source in [0, 1, 0, 1, 1, 0] {
        let origin = Origin { source: SourceIndex(source), reader: 1 };
        decoder.ingest(&mut combiner, origin, b"a.b:2|c\na.b:1:2|c|@0.5", NOW);
    }
    let (parts, _) = drain(&mut combiner);
    let mut sums = BTreeMap::new();
    let mut scratch = Scratch::default();
    for part in parts {
        let mut cursor = PartCursor::new(&part.bytes).expect("a part");
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            if let RowValue::Counter(sum) = row.value {
                let locked = table.lock();
                let entry = locked.get(Kind::Counter, Slot(row.id.0)).expect("live");
                *sums.entry(entry.metric.name.to_string()).or_insert(0) += sum.nanos;
            }
        }
    }
    let expected = [("a_b_total".to_owned(), 24_000_000_000), ("mapped".to_owned(), 2_400_000_000_000)];
    assert_eq!(sums, BTreeMap::from(expected));
}

#[test]
fn samples_of_a_source_have_its_labels_where_they_have_none_of_that_name() {
    let labels = |zone: &str| vec![("zone".to_owned(), zone.to_owned())];
    let mut config = RulesConfig {
        constant_labels: vec![("region".to_owned(), "eu".to_owned()), ("zone".to_owned(), "all".to_owned())],
        source_labels: vec![Vec::new(), labels("b"), labels("c")],
        ..RulesConfig::default()
    };
    config.typed.count_unknown = true;
    let rules = Arc::new(Rules::new(config).expect("no clash"));
    let table = Arc::new(SeriesTable::new(TableLimits { series: 30, series_per_metric: 30 }, Labels::empty()));
    let recent = Arc::new(RecentRejects::new());
    let mut decoder = Decoder::new(rules, Arc::clone(&table), recent, acceptance(), 7, 1 << 20);
    let mut combiner = Combiner::new(acceptance().slice.slice_of(NOW));
    let lines =
        b"a:1|c\na:1|c|#zone:own\n_sc|up|0\n{\"metric\":\"j\",\"type\":\"counter\",\"value\":1}\n{\"event\":\"e\"}";
    for source in [1, 0, 2, 1, 0, 2] {
        decoder.ingest(&mut combiner, Origin { source: SourceIndex(source), reader: 1 }, lines, NOW);
    }
    let locked = table.lock();
    let mut series = Vec::new();
    for kind in Kind::ALL {
        for slot in 0..40 {
            if let Some(entry) = locked.get(kind, Slot(slot)) {
                let pairs: Vec<_> = entry.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                series.push(format!("{} {}", entry.metric.name, pairs.join(",")));
            }
        }
    }
    series.sort();
    let mut expected = vec!["a_total region=eu,zone=own".to_owned()];
    for zone in ["all", "b", "c"] {
        expected.push(format!("a_total region=eu,zone={zone}"));
        expected.push(format!("events_total event=e,region=eu,zone={zone}"));
        expected.push(format!("j_total region=eu,zone={zone}"));
        expected.push(format!("service_check_status check=up,region=eu,zone={zone}"));
    }
    expected.sort();
    assert_eq!(series, expected);
}
