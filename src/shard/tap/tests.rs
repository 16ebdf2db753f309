//! Taps over a decoder of their own: what is shown, what is counted, and that nothing else changes.

use super::*;
use crate::delta::{Combiner, GaugeSum, IdMap, SeriesTable, SourceTally, TableLimits, encode};
use crate::event::{Kind, SeriesId, SliceWidth, Slot};
use crate::rule::{Rules, RulesConfig};
use crate::shard::{Acceptance, Decoder, Origin, RecentRejects};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000 * SECOND);
const SOURCE: SourceIndex = SourceIndex(2);
const ORIGIN: Origin = Origin { source: SOURCE, reader: 1 };

struct World {
    decoder: Decoder,
    combiner: Combiner,
    recent: Arc<RecentRejects>,
}

impl World {
    fn new(series: u32) -> World {
        let slice = SliceWidth::from_nanos(10 * SECOND).expect("wide enough");
        let acceptance = Acceptance { slice, accept_late: 3600 * SECOND, max_future: 600 * SECOND };
        let rules = Arc::new(Rules::new(RulesConfig::default()).expect("no clash"));
        let limits = TableLimits { series, series_per_metric: series };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let recent = Arc::new(RecentRejects::new());
        let decoder = Decoder::new(rules, table, Arc::clone(&recent), acceptance, 7, 1 << 20);
        World { decoder, combiner: Combiner::new(slice.slice_of(NOW)), recent }
    }

    fn ingest(&mut self, text: &str) {
        self.decoder.ingest(&mut self.combiner, ORIGIN, text.as_bytes(), NOW);
    }

    fn open(&self, kinds: &[TapKind], limit: u32, filter: Option<Arc<dyn TapFilter>>) -> TapReader {
        self.recent.taps().open(spec(kinds, limit, filter), 0).expect("a place")
    }

    fn drain(mut self) -> (Vec<crate::delta::EncodedPart>, Vec<SourceTally>) {
        let mut ids = IdMap::new();
        for kind in Kind::ALL {
            (0..2000).for_each(|slot| ids.set(kind, Slot(slot), SeriesId(slot)));
        }
        encode(&mut self.combiner, &ids, &mut |_, _, sum: GaugeSum| GaugeSum { adjust: None, count: 1, ..sum })
    }
}

fn spec(kinds: &[TapKind], limit: u32, filter: Option<Arc<dyn TapFilter>>) -> TapSpec {
    let sources = [false, false, true].into();
    TapSpec { kinds: TapKinds::of(kinds), sources, others: false, filter, limit }
}

/// Accepts one name.
struct Named(&'static str);

impl TapFilter for Named {
    fn accepts(&self, subject: &dyn TapSubject) -> bool {
        subject.name() == self.0
    }
}

/// An item in few words.
fn words(item: TapItem) -> String {
    match item {
        TapItem::Event { name, text, .. } => format!("event {name} {text}"),
        TapItem::Sample { metric, labels, amount, weight, time, dropped, .. } => {
            let late = (NOW.0 - time.0) / SECOND;
            format!("sample {}{labels:?} {amount:?} {weight} {late} {dropped:?}", metric.name)
        }
        TapItem::Reject { reason, text, .. } => format!("reject {reason:?} {text}"),
    }
}

fn all(reader: &TapReader) -> Vec<String> {
    std::iter::from_fn(|| reader.next()).map(words).collect()
}

const SEEN: &[TapKind] = &[TapKind::Events, TapKind::Samples, TapKind::Rejects];

#[test]
fn every_form_of_input_is_shown_with_its_values() {
    let mut world = World::new(1000);
    let reader = world.open(SEEN, 1000, None);
    world.ingest(
        "a:3|c|@0.5|#k:v\nt:40:60|ms\ng:5|g\ng:-2|g\nbad\n_e{1,1}:x|y\n_sc|db|2\nu:m|s\nold:1|c|T1699990000\n\
         {\"metric\":\"j\",\"type\":\"gauge\",\"value\":2.5,\"labels\":{\"r\":\"eu\"}}\n{\"x\":1}\n",
    );
    let shown = all(&reader);
    let expected = [
        "event a a:3|c|@0.5|#k:v",
        "sample a_total{\"k\": \"v\"} Count { whole: 6, nanos: 0 } 8192 0 None",
        "event t t:40:60|ms",
        "sample t_seconds{} Units { units: 40000000, is_clamped: false } 4096 0 None",
        "sample t_seconds{} Units { units: 60000000, is_clamped: false } 4096 0 None",
        "event g g:5|g",
        "sample g{} Set { value: 5.0, units: 0 } 4096 0 None",
        "event g g:-2|g",
        "sample g{} Adjust(-2.0) 4096 0 None",
        "reject Malformed bad",
        "event x _e{1,1}:x|y",
        "event db _sc|db|2",
        "sample service_check_status{\"check\": \"db\"} Set { value: 2.0, units: 0 } 4096 0 None",
        "event u u:m|s",
        "event old old:1|c|T1699990000",
        "sample old_total{} Count { whole: 1, nanos: 0 } 4096 10000 Some(TooLate)",
        "event j {\"metric\":\"j\",\"type\":\"gauge\",\"value\":2.5,\"labels\":{\"r\":\"eu\"}}",
        "reject NoEvent {\"x\":1}",
    ];
    for line in expected {
        assert!(shown.iter().any(|s| s == line), "{line} is not in {shown:#?}");
    }
    let of_set = shown.iter().find(|s| s.starts_with("sample u{} Member(")).map(String::as_str);
    let of_json = shown.iter().find(|s| s.starts_with("sample j{\"r\": \"eu\"} Set { value: 2.5,"));
    assert!(of_set.is_some() && of_json.is_some(), "{shown:#?}");
    assert_eq!(shown.len(), expected.len() + 2, "{shown:#?}");
    assert_eq!(reader.left_out(), LeftOut::default());
}

#[test]
fn other_sources_and_other_kinds_stay_out_of_sight() {
    let mut world = World::new(1000);
    let rejects = world.open(&[TapKind::Rejects], 100, None);
    assert!(!world.decoder.is_tapped(), "refusals alone cost the decoding nothing");
    let samples = world.open(&[TapKind::Samples], 100, None);
    let named = world.open(&[TapKind::Events, TapKind::Samples], 100, Some(Arc::new(Named("b_total"))));
    world.ingest("a:1|c\nb:1|c\nnonsense\nb:2|c\n");
    let elsewhere = Origin { source: SourceIndex(1), reader: 1 };
    world.decoder.ingest(&mut world.combiner, elsewhere, b"c:1|c\nnonsense\n", NOW);
    assert_eq!(all(&rejects), ["reject Malformed nonsense"]);
    assert_eq!(all(&samples).len(), 3);
    let shown = all(&named);
    assert!(shown.len() == 2 && shown.iter().all(|item| item.starts_with("sample b_total{}")), "{shown:?}");
    assert_eq!(named.left_out().total(), 0, "what does not pass the filter is not left out");
    drop((samples, named));
    assert!(!world.decoder.is_tapped());
    drop(rejects);
    assert_eq!(world.recent.taps().open_count(), 0);
}

#[test]
fn what_is_beyond_the_limit_is_counted_to_the_item() {
    for filter in [None, Some(Arc::new(Named("a_total")) as Arc<dyn TapFilter>)] {
        let is_filtered = filter.is_some();
        let mut world = World::new(1000);
        let reader = world.open(&[TapKind::Samples], 10, filter);
        let mut passed = 0;
        for batch in 0..50 {
            // The clock goes on by 10 ms a batch, so that a place comes free every ten batches.
            let now = NOW.plus_nanos(batch * SECOND / 100);
            let lines = "a:1|c\n".repeat(20) + "b:1:2:3|h\n";
            world.decoder.ingest(&mut world.combiner, ORIGIN, lines.as_bytes(), now);
            passed += if is_filtered { 20 } else { 23 };
        }
        let shown = all(&reader).len() as u64;
        assert!((10..=15).contains(&shown), "{shown}: ten at once, and ten a second");
        assert_eq!(reader.left_out(), LeftOut { limit: passed - shown, queue: 0 });
        let tally = world.drain().1.swap_remove(usize::from(SOURCE.0));
        assert_eq!((tally.inputs, tally.samples_total(), tally.recorded_total()), (50 * 21, 50 * 23, 50 * 23));
    }
}

#[test]
fn under_load_every_line_of_a_datagram_has_its_chance() {
    let mut world = World::new(1000);
    let reader = world.open(&[TapKind::Samples], 100, None);
    let lines: String = (0..50).map(|n| format!("m{n}:1|c\n")).collect();
    for batch in 0..4000 {
        world.decoder.ingest(&mut world.combiner, ORIGIN, lines.as_bytes(), NOW.plus_nanos(batch * SECOND / 100));
        while let Some(TapItem::Sample { metric, .. }) = reader.next() {
            assert_eq!(metric.kind, Kind::Counter);
        }
    }
    let mut seen = std::collections::BTreeMap::new();
    for batch in 4000..8000 {
        world.decoder.ingest(&mut world.combiner, ORIGIN, lines.as_bytes(), NOW.plus_nanos(batch * SECOND / 100));
        while let Some(TapItem::Sample { metric, .. }) = reader.next() {
            *seen.entry(metric.name.to_string()).or_insert(0) += 1;
        }
    }
    // 4,000 items of 50 names: 80 each.
    assert_eq!(seen.len(), 50, "{seen:?}");
    assert!(seen.values().all(|count| (30..=150).contains(count)), "{seen:?}");
}

#[test]
fn a_reader_that_never_reads_costs_counts_only() {
    let mut world = World::new(1000);
    let reader = world.open(SEEN, 10, None);
    for second in 0..100 {
        let now = NOW.plus_nanos(second * SECOND);
        world.decoder.ingest(&mut world.combiner, ORIGIN, &b"a:1|c\n".repeat(10), now);
    }
    // Twenty items a second pass, ten of them within the limit; the queue takes twenty.
    let left_out = reader.left_out();
    assert_eq!(left_out.total(), 2000 - 20);
    assert_eq!(left_out.queue, 1000 - 20);
    assert_eq!(all(&reader).len(), 20);
}

#[test]
fn places_are_few_and_go_to_who_reads() {
    let hub = Arc::new(TapHub::default());
    let open = |now: i64| hub.open(spec(&[TapKind::Samples], 10, None), now);
    let readers: Vec<_> = (0..TAPS_MAX).map(|_| open(0).expect("a place")).collect();
    assert_eq!(open(UNREAD_NANOS_MAX).err(), Some(TooManyTaps));
    readers[1..].iter().for_each(|reader| reader.looked(20 * SECOND));
    let late = open(UNREAD_NANOS_MAX + 1).expect("the place of one that nobody reads");
    assert!(readers[0].is_evicted() && !readers[1].is_evicted() && !late.is_evicted());
    assert_eq!(open(UNREAD_NANOS_MAX + 2).err(), Some(TooManyTaps));
    drop(readers);
    assert_eq!(hub.open_count(), 1);
    assert!(hub.wants(TapKinds::of(&[TapKind::Samples])) && !hub.wants(TapKinds::of(&[TapKind::Deltas])));
    drop(late);
    assert!(!hub.wants(TapKinds::of(&TapKind::ALL)));
}

#[test]
fn commits_are_shared_and_bounded() {
    let hub = Arc::new(TapHub::default());
    let part = |rows, bytes| EncodedPart { slice: crate::event::Slice(1), bytes: vec![0; bytes], rows };
    hub.commit(CommitId(1), NOW, &[part(5, 10)]);
    let reader = hub.open(spec(&[TapKind::Deltas], 10, None), 0).expect("a place");
    hub.commit(CommitId(2), NOW, &[part(5, 10), part(0, 1), part(7, COMMIT_BYTES_MAX)]);
    let commit = reader.next_commit().expect("it was opened before");
    assert_eq!((commit.id, commit.parts.len()), (CommitId(2), 1));
    assert_eq!(reader.left_out(), LeftOut { limit: 0, queue: 7 });
    (0..10).for_each(|id| hub.commit(CommitId(id), NOW, &[part(1, 10)]));
    assert_eq!(reader.left_out().queue, 7 + 10 - COMMITS_WAITING as u64);
}

fn line() -> impl Strategy<Value = String> {
    let tag = proptest::sample::select(vec!["", "|#k:a", "|#k:b,z", "|c:abc|#k:c", "|e:x"]);
    (0u8..16, 1u32..100_000, 0u32..40, tag).prop_map(|(form, n, name, tag)| match form {
        0..4 => format!("c{name}:{n}|c{tag}"),
        4 => format!("c{name}:{n}:1:0.25|c|@0.5{tag}"),
        5 => format!("c{name}:{n}|c|T{}{tag}", NOW.0 / SECOND - 500),
        6 => format!("c{name}:{n}|c|T{}{tag}", NOW.0 / SECOND - 4000),
        7 => format!("t{name}:{n}|ms{tag}"),
        8 => format!("t{name}:{n}:7:9|ms|@0.1{tag}"),
        9 => format!("g{name}:{n}|g{tag}"),
        10 => format!("s{name}:{n}|s{tag}"),
        11 => format!("c{name}:{n}|q"),
        12 => format!("_sc|check{name}|1"),
        13 => format!("{{\"metric\":\"j{name}\",\"type\":\"timing\",\"value\":{n},\"weight\":3}}"),
        14 => format!("datadog.dogstatsd.client.m{name}:{n}|c{tag}"),
        _ => format!("{{\"event\":\"e{name}\",\"n\":{n}}}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What is recorded and counted is the same with and without a tap, and everything is shown or counted.
    #[test]
    fn a_tap_changes_nothing(lines in prop::collection::vec(line(), 1..120), series in 5u32..200, limit in 1u32..200) {
        let text = lines.join("\n");
        let mut plain = World::new(series);
        plain.ingest(&text);
        let (parts, tallies) = plain.drain();
        for filter in [None, Some(Arc::new(Named("c1_total")) as Arc<dyn TapFilter>)] {
            let is_filtered = filter.is_some();
            let mut tapped = World::new(series);
            let reader = tapped.open(SEEN, limit, filter);
            tapped.ingest(&text);
            let shown = all(&reader).len() as u64;
            let (tapped_parts, tapped_tallies) = tapped.drain();
            prop_assert_eq!(&tapped_parts, &parts);
            prop_assert_eq!(&tapped_tallies, &tallies);
            let sum = |of: &dyn Fn(&SourceTally) -> u64| tallies.iter().map(of).sum::<u64>();
            let passed = sum(&|t| t.events) + sum(&SourceTally::samples_total) + sum(&SourceTally::rejected_total);
            if is_filtered {
                prop_assert!(shown + reader.left_out().total() <= passed);
            } else {
                prop_assert_eq!(shown + reader.left_out().total(), passed);
            }
        }
    }
}
