//! Typed events through a decoder: each rule by an example, all together against an interpreter that knows no better.

mod oracle;

use super::*;
use crate::delta::part::{PartCursor, RowValue, Scratch as PartScratch};
use crate::delta::{Combiner, IdMap, SeriesTable, SourceTally, TableLimits, encode};
use crate::event::{DropReason, Expose, Group, Kind, Labels, SeriesId, SliceWidth, Slot, SourceIndex, Timestamp, Unit};
use crate::rule::typed::{
    DeriveFrom, DeriveSpec, EventSpec, FeedSource, FeedSpec, FieldSpec, FieldType, GaugeOp, LabelSource, PairSpec,
    PairValue, TypedConfig,
};
use crate::rule::{DeclaredMetric, RulesConfig};
use crate::shard::{Acceptance, Origin, RecentRejects};
use std::collections::BTreeMap;

const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000 * SECOND);
const SOURCE: SourceIndex = SourceIndex(2);
const ORIGIN: Origin = Origin { source: SOURCE, reader: 0 };

fn metric(name: &str, kind: Kind, unit: Unit, labels: &[&str]) -> DeclaredMetric {
    DeclaredMetric {
        name: name.into(),
        namespace: String::new(),
        kind,
        help: String::new(),
        unit,
        scale: crate::rule::default_scale(kind, unit),
        labels: labels.iter().map(|label| (*label).into()).collect(),
        expose: Expose { summary: kind == Kind::Distribution, histogram: false },
        quantiles: Arc::new([0.5]),
        digits: crate::sketch::Digits::Two,
        window_slices: 6,
        buckets: None,
        group: Group::Main,
        idle: None,
        holds: None,
    }
}

fn field(name: &str, ty: FieldType) -> FieldSpec {
    let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
    FieldSpec { name: name.into(), ty, optional, path: vec![name.into()] }
}

fn derive(name: &str, field: &str, map: &[(&str, &str)], distinct_max: Option<u32>) -> DeriveSpec {
    let map = map.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    let from = DeriveFrom::Field {
        field: field.into(),
        regex: None,
        class: None,
        map,
        default: None,
        distinct_max,
        other: "other".into(),
    };
    DeriveSpec { name: name.into(), from }
}

fn feed(metric: usize, kind: Kind, event: &str, value: Option<&str>, labels: &[(&str, &str)]) -> FeedSpec {
    FeedSpec {
        metric,
        kind,
        from: FeedSource::Event { event: event.into(), value: value.map(Into::into) },
        labels: labels.iter().map(|(label, from)| ((*label).into(), LabelSource::Field((*from).into()))).collect(),
        when: None,
        op: GaugeOp::Set,
        scale: 1.0,
    }
}

/// The example of the contract, with a feed of every kind.
fn config() -> RulesConfig {
    let mut nested = field("deep?", FieldType::Int);
    nested.path = vec!["payload".into(), "n".into()];
    let generation = EventSpec {
        name: "gen".into(),
        fields: vec![
            field("model", FieldType::String),
            field("took", FieldType::Milliseconds),
            field("ok", FieldType::Bool),
            field("tokens?", FieldType::Int),
            nested,
        ],
        derived: vec![
            derive("status", "ok", &[("true", "success"), ("false", "error")], None),
            derive("few", "model", &[], Some(3)),
        ],
        keep: 2,
    };
    let session = |name: &str| EventSpec {
        name: name.into(),
        fields: vec![field("id", FieldType::String), field("user?", FieldType::String)],
        derived: Vec::new(),
        keep: 0,
    };
    let moved =
        EventSpec { name: "moved".into(), fields: vec![field("by", FieldType::Float)], derived: Vec::new(), keep: 0 };
    let pair = |metric, kind, value| FeedSpec {
        from: FeedSource::Pair { pair: "session".into(), value },
        ..feed(metric, kind, "", None, &[("user", "user")])
    };
    let metrics = vec![
        metric("gens_total", Kind::Counter, Unit::None, &["few", "status"]),
        metric("gen_seconds", Kind::Distribution, Unit::Seconds, &["model"]),
        metric("gen_tokens", Kind::Gauge, Unit::None, &[]),
        metric("gen_models", Kind::Set, Unit::None, &["deep"]),
        metric("gen_token_total", Kind::Counter, Unit::None, &[]),
        metric("level", Kind::Gauge, Unit::None, &[]),
        metric("open_sessions", Kind::Gauge, Unit::None, &["user"]),
        metric("session_seconds", Kind::Distribution, Unit::Seconds, &["user"]),
    ];
    let feeds = vec![
        feed(0, Kind::Counter, "gen", None, &[("few", "few"), ("status", "status")]),
        FeedSpec {
            when: Some("ok and took < 60".into()),
            ..feed(1, Kind::Distribution, "gen", Some("took"), &[("model", "model")])
        },
        feed(2, Kind::Gauge, "gen", Some("tokens"), &[]),
        feed(3, Kind::Set, "gen", Some("model"), &[("deep", "deep")]),
        FeedSpec { scale: 0.5, ..feed(4, Kind::Counter, "gen", Some("tokens"), &[]) },
        FeedSpec { op: GaugeOp::Sub, ..feed(5, Kind::Gauge, "moved", Some("by"), &[]) },
        pair(6, Kind::Gauge, PairValue::Open),
        pair(7, Kind::Distribution, PairValue::Duration),
    ];
    let pairs = vec![PairSpec {
        name: "session".into(),
        start: "begin".into(),
        end: "end".into(),
        key: "id".into(),
        timeout: 60 * SECOND,
    }];
    let events = vec![generation, session("begin"), session("end"), moved];
    RulesConfig {
        declared: metrics,
        typed: TypedConfig { events, pairs, feeds, count_unknown: false },
        ..RulesConfig::default()
    }
}

struct Bench {
    decoder: Decoder,
    combiner: Combiner,
    table: Arc<SeriesTable>,
    recent: Arc<RecentRejects>,
}

/// What series hold: Σ in scale units (counters, distributions) and how many samples (gauges: the last value as bits).
type Held = BTreeMap<String, (i128, u64)>;

impl Bench {
    fn new(config: RulesConfig, series: u32) -> Bench {
        let rules = Arc::new(Rules::new(config).expect("the rules fit"));
        let limits = TableLimits { series, series_per_metric: series };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let recent = Arc::new(RecentRejects::new());
        let slice = SliceWidth::from_nanos(10 * SECOND).expect("wide enough");
        let acceptance = Acceptance { slice, accept_late: 3600 * SECOND, max_future: 600 * SECOND };
        let decoder = Decoder::new(rules, Arc::clone(&table), Arc::clone(&recent), acceptance, 7, 1 << 20);
        Bench { decoder, combiner: Combiner::new(slice.slice_of(NOW)), table, recent }
    }

    fn take(&mut self, lines: &str) {
        self.decoder.ingest(&mut self.combiner, ORIGIN, lines.as_bytes(), NOW);
    }

    /// The reason one line is refused for, and the words.
    fn refusal(&mut self, line: &str) -> (RejectReason, String) {
        self.take(line);
        let newest = self.recent.newest(1).pop().expect("refused");
        assert_eq!((newest.source, newest.text.as_str()), (SOURCE, line), "the source and the event are named");
        (newest.reason, newest.detail)
    }

    /// Drains everything, over all slices; checks both laws.
    fn drain(&mut self) -> (Held, SourceTally) {
        // As the store does before it encodes.
        self.combiner.take_pairs();
        self.combiner.take_kept();
        let mut ids = IdMap::new();
        for kind in Kind::ALL {
            (0..3000).for_each(|slot| ids.set(kind, Slot(slot), SeriesId(slot)));
        }
        let (parts, mut tallies) = encode(&mut self.combiner, &ids, &mut |_, _, mut sum| {
            if let Some(by) = sum.adjust.take() {
                (sum.count, sum.last) = (sum.count + 1, sum.last + by);
            }
            sum
        });
        tallies.resize_with(3, SourceTally::default);
        let tally = tallies.swap_remove(usize::from(SOURCE.0));
        assert_eq!(tally.inputs, tally.events + tally.rejected_total(), "the law of inputs");
        assert!(tally.json <= tally.inputs, "JSON is counted among the inputs");
        assert_eq!(tally.samples_total(), tally.recorded_total() + tally.dropped_total(), "the law of samples");
        let mut held = Held::new();
        let mut scratch = PartScratch::default();
        let table = self.table.lock();
        for part in &parts {
            let mut cursor = PartCursor::new(&part.bytes).expect("a part");
            while let Some(row) = cursor.next(&mut scratch).expect("whole") {
                let entry = table.get(row.value.kind(), Slot(row.id.0)).expect("live");
                let name = format!("{}{:?}", entry.metric.name, entry.labels);
                let place = held.entry(name).or_default();
                let (sum, count) = match &row.value {
                    RowValue::Counter(sum) => (sum.nanos, 0),
                    RowValue::Gauge(sum) => (i128::from(sum.last.to_bits()), sum.count),
                    RowValue::Distribution(row) => (row.sum, row.count),
                    RowValue::Set(set) => (0, set.estimate()),
                };
                *place = if row.value.kind() == Kind::Gauge {
                    (sum, place.1 + count)
                } else {
                    (place.0 + sum, place.1 + count)
                };
            }
        }
        (held, tally)
    }
}

fn gauge(value: f64) -> i128 {
    i128::from(value.to_bits())
}

fn held(rows: &[(&str, i128, u64)]) -> Held {
    rows.iter().map(|(name, sum, count)| ((*name).into(), (*sum, *count))).collect()
}

#[test]
fn one_event_feeds_every_metric_that_names_it() {
    let mut bench = Bench::new(config(), 1000);
    for _ in 0..3 {
        // Another order of keys, escapes, a key of nobody, null: the same event.
        bench.take(concat!(
            r#"{"event":"gen","model":"m\u0031","took":1500.5,"ok":true,"tokens":7,"payload":{"n":3,"x":[1]}}"#,
            "\n",
            r#"{"took":1500.5, "event": "gen" ,"extra":{"a":1},"payload":{"n":3},"ok":true,"model":"m1","tokens":7}"#,
            "\n",
            r#"{"event":"gen","model":"m1","took":100,"ok":false,"tokens":null,"weight":2.5}"#,
            "\n",
        ));
    }
    let (rows, tally) = bench.drain();
    let expected = held(&[
        (r#"gens_total{"few": "m1", "status": "error"}"#, 7_500_000_000, 0),
        (r#"gens_total{"few": "m1", "status": "success"}"#, 6_000_000_000, 0),
        (r#"gen_seconds{"model": "m1"}"#, 6 * 1_500_500_000, 6),
        ("gen_tokens{}", gauge(7.0), 6),
        (r#"gen_models{"deep": "3"}"#, 0, 1),
        ("gen_models{}", 0, 1),
        ("gen_token_total{}", 6 * 3_500_000_000, 0),
    ]);
    assert_eq!(rows, expected);
    assert_eq!((tally.events, tally.unknown_fields), (9, 6));
    assert_eq!(tally.samples, [9 + 6, 6, 6, 9]);
}

#[test]
fn a_refused_event_names_event_field_and_source_and_records_nothing() {
    let mut bench = Bench::new(config(), 1000);
    let cases: &[(&str, RejectReason, &str)] = &[
        (r#"{"event":"gens","model":"m"}"#, RejectReason::UnknownEvent, "did you mean \"gen\""),
        (r#"{"model":"m"}"#, RejectReason::NoEvent, "\"event\""),
        (r#"{"event":3}"#, RejectReason::WrongType, "\"event\""),
        (r#"{"event":"gen","model":"m","ok":true}"#, RejectReason::MissingField, "\"took\" (milliseconds) is missing"),
        (r#"{"event":"gen","model":"m","ok":true,"took":null}"#, RejectReason::MissingField, "\"took\""),
        (r#"{"event":"gen","model":"m","ok":1,"took":1}"#, RejectReason::WrongType, "\"ok\" is no bool but a number"),
        (
            r#"{"event":"gen","model":"m","ok":true,"took":true}"#,
            RejectReason::WrongType,
            "\"took\" is no milliseconds",
        ),
        (r#"{"event":"gen","model":["m"],"ok":true,"took":1}"#, RejectReason::WrongType, "\"model\" is no string"),
        (r#"{"event":"gen","model":"m","ok":true,"took":1,"tokens":1.5}"#, RejectReason::WrongType, "\"tokens\""),
        (r#"{"event":"gen","model":"m","ok":true,"took":1,"payload":3}"#, RejectReason::WrongType, "deeper"),
        (r#"{"event":"gen","model":"m","model":"n","ok":true,"took":1}"#, RejectReason::DuplicateField, "\"model\""),
        (
            r#"{"event":"gen","event":"moved","model":"m","ok":true,"took":1}"#,
            RejectReason::DuplicateField,
            "\"event\"",
        ),
        (r#"{"model":"m","event":"gen","ok":true,"took":1,"event":"gen"}"#, RejectReason::DuplicateField, "\"event\""),
        (
            r#"{"event":"gen","model":"m","ok":true,"took":1,"time":1700000000,"time":1700000000}"#,
            RejectReason::DuplicateField,
            "\"time\"",
        ),
        (
            r#"{"event":"gen","model":"m","ok":true,"took":1,"weight":1,"weight":9}"#,
            RejectReason::DuplicateField,
            "\"weight\"",
        ),
        (r#"{"event":"gen","model":"m","ok":true,"took":-1}"#, RejectReason::Negative, "\"took\""),
        (r#"{"event":"gen","model":"m","ok":true,"took":1,"weight":0}"#, RejectReason::BadWeight, "from 1 to 1048576"),
        (r#"{"event":"gen","model":"m","ok":true,"took":1,"time":"noon"}"#, RejectReason::BadTimestamp, "\"time\""),
        (r#"{"event":"gen","model":"m","ok":true,"took":1"#, RejectReason::BadJson, "too early"),
        (r#"{"event":"gen","model":"m","ok":true,"took":1} x"#, RejectReason::BadJson, "after"),
        (r#"{"event":"moved","by":1,"time":1700000000}"#, RejectReason::GaugeOperationWithTime, "moved"),
    ];
    for (line, reason, words) in cases {
        let (found, detail) = bench.refusal(line);
        assert_eq!(found, *reason, "{line}: {detail}");
        assert!(detail.contains(words), "{line}: {detail}");
    }
    let (rows, tally) = bench.drain();
    assert_eq!((rows, tally.rejected_total(), tally.samples_total()), (Held::new(), cases.len() as u64, 0));
    assert_eq!(bench.table.lock().live(), 0, "what brings no sample takes no slot");
}

#[test]
fn t1_the_time_of_an_event_decides_its_slice_and_whether_it_counts() {
    let mut bench = Bench::new(config(), 1000);
    let at = |time: &str| format!(r#"{{"event":"gen","model":"m","ok":true,"took":1,"time":{time}}}"#) + "\n";
    bench.take(&at("1699999999"));
    bench.take(&at("1699999999999"));
    bench.take(&at("\"2023-11-14T22:13:20.5Z\""));
    bench.take(&at("1699990000"));
    bench.take(&at("1700000700"));
    let (rows, tally) = bench.drain();
    assert_eq!(rows[r#"gens_total{"few": "m", "status": "success"}"#].0, 3_000_000_000);
    let shard = &tally.dropped[Edge::Shard as usize];
    assert_eq!((shard[DropReason::TooLate as usize], shard[DropReason::TooEarly as usize]), (3, 3));
    assert_eq!((tally.events, tally.samples_total(), tally.late), (5, 15, 6));
}

#[test]
fn s3_past_a_limit_sums_stay_exact_and_gauges_are_dropped() {
    let mut bench = Bench::new(config(), 3);
    let mut text = String::new();
    for n in 0..60 {
        text += &format!("{{\"event\":\"gen\",\"model\":\"m{}\",\"ok\":true,\"took\":1,\"tokens\":2}}\n", n % 20);
    }
    bench.take(&text);
    let (rows, tally) = bench.drain();
    let total: i128 = rows.iter().filter(|(name, _)| name.starts_with("gens_total")).map(|(_, (sum, _))| sum).sum();
    let count: u64 = rows.iter().filter(|(name, _)| name.starts_with("gen_seconds")).map(|(_, (_, count))| count).sum();
    assert_eq!((total, count), (60_000_000_000, 60));
    assert_eq!(tally.samples_total(), 60 * 5);
    assert!(bench.table.lock().live() <= 3);
}

#[test]
fn v8_starts_and_ends_of_pairs_ride_in_the_combiner_and_kept_events_with_them() {
    let mut bench = Bench::new(config(), 1000);
    bench.take(concat!(
        r#"{"event":"begin","id":"s1","user":"ann","time":1700000001}"#,
        "\n",
        r#"{"event":"begin","id":"s2"}"#,
        "\n",
        r#"{"event":"end","id":"s1"}"#,
        "\n",
        r#"{"event":"begin","id":"late","time":1600000000}"#,
        "\n",
    ));
    for n in 0..3 {
        bench.take(&format!("{{\"event\":\"gen\",\"model\":\"m\",\"ok\":true,\"took\":{n}}}\n"));
    }
    let kept: Vec<String> = bench
        .combiner
        .take_kept()
        .into_events()
        .map(|(at, event)| format!("{} {}", at.0, String::from_utf8_lossy(&event.bytes)))
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(kept[1].starts_with("0 ") && kept[1].contains("\"took\":2"), "{kept:?}");
    let pairs = bench.combiner.take_pairs();
    let ops: Vec<_> = pairs.ops.iter().map(|op| (op.pair.0, op.time.0 / SECOND, op.set)).collect();
    assert_eq!(ops, [(0, 1_700_000_001, Some(0)), (0, 1_700_000_000, Some(1)), (0, 1_700_000_000, None)]);
    assert_eq!(pairs.ops[0].key, pairs.ops[2].key);
    let table = bench.table.lock();
    let shown: Vec<String> = pairs.sets[0]
        .iter()
        .map(|feed| {
            let entry = table.get(feed.role.kind(), feed.slot).expect("live");
            format!("{}{:?}", entry.metric.name, entry.labels)
        })
        .collect();
    assert_eq!(shown, [r#"open_sessions{"user": "ann"}"#, r#"session_seconds{"user": "ann"}"#]);
    drop(table);
    let (_, tally) = bench.drain();
    assert_eq!(tally.events, 7);
}

#[test]
fn sources_say_where_their_keys_are() {
    let mut bench = Bench::new(config(), 1000);
    let own = |event: Option<&str>, refuses_extra| JsonOptions {
        event_key: "message".into(),
        time_key: "at".into(),
        event: event.map(Into::into),
        refuses_extra,
    };
    let options: Arc<[JsonOptions]> = [own(None, false), own(None, false), own(None, true)].into();
    bench.decoder.set_json_options(options);
    bench.take(r#"{"message":"moved","by":2}"#);
    let (reason, detail) = bench.refusal(r#"{"message":"moved","bye":2}"#);
    assert_eq!(reason, RejectReason::ExtraField);
    assert!(detail.contains("did you mean \"by\""), "{detail}");
    bench.decoder.set_json_options([own(None, false), own(None, false), own(Some("moved"), false)].into());
    bench.take(r#"{"by":3,"message":"hello"}"#);
    let (rows, tally) = bench.drain();
    assert_eq!(rows, held(&[("level{}", gauge(-5.0), 1)]));
    assert_eq!((tally.events, tally.unknown_fields), (2, 1));
}

#[test]
fn cloud_events_are_taken_out_of_their_envelope() {
    let mut bench = Bench::new(config(), 1000);
    bench.take(r#"{"specversion":"1.0","id":"1","source":"/x","type":"moved","data":{"by":4}}"#);
    let (rows, _) = bench.drain();
    assert_eq!(rows, held(&[("level{}", gauge(-4.0), 1)]));
    let (reason, _) = bench.refusal(r#"{"specversion":"1.0","id":"1","source":"/x","type":"nobody","data":{}}"#);
    assert_eq!(reason, RejectReason::UnknownEvent);
}

#[test]
fn unknown_events_are_counted_by_name_where_the_pipeline_says_so() {
    let mut config = config();
    config.typed.count_unknown = true;
    let mut bench = Bench::new(config, 3);
    for n in 0..40 {
        bench.take(&format!("{{\"event\":\"e{}\",\"x\":1,\"weight\":2}}\n", n % 10));
    }
    let (rows, tally) = bench.drain();
    let sum: i128 = rows.iter().filter(|(name, _)| name.starts_with("events_total")).map(|(_, (sum, _))| sum).sum();
    assert_eq!((sum, tally.events, tally.samples[0]), (80_000_000_000, 40, 40));
    assert!(rows.contains_key(r#"events_total{"event": "e0"}"#));
    assert!(rows.contains_key(r#"events_total{"overflow": "true"}"#), "{rows:?}");
}

#[test]
fn samples_in_json_need_no_schema() {
    let mut bench = Bench::new(config(), 1000);
    for _ in 0..2 {
        bench.take(concat!(
            r#"{"metric":"hits","type":"counter","value":1.5,"weight":2,"labels":{"k":"v\n","n":2}}"#,
            "\n",
            r#"{"metric":"wait","type":"timing","value":12}"#,
            "\n",
            r#"{"metric":"wait","type":"timing","value":12,"unit":"s"}"#,
            "\n",
            r#"{"type":"histogram","metric":"size_bytes","value":12,"unit":"By"}"#,
            "\n",
            r#"{"metric":"temp","type":"gauge","value":-3,"time":1700000000}"#,
            "\n",
            r#"{"metric":"jobs","type":"gauge","value":-3,"op":"add"}"#,
            "\n",
            r#"{"metric":"users","type":"set","value":"ann"}"#,
            "\n",
            r#"{"metric":"users","type":"set","value":7}"#,
            "\n",
        ));
    }
    let (rows, tally) = bench.drain();
    let expected = held(&[
        ("hits_total{\"k\": \"v\\n\", \"n\": \"2\"}", 6_000_000_000, 0),
        ("wait_seconds{}", 2 * 12_012_000_000, 4),
        ("size_bytes{}", 24, 2),
        ("temp{}", gauge(-3.0), 2),
        ("jobs{}", gauge(-6.0), 1),
        ("users{}", 0, 2),
    ]);
    assert_eq!(rows, expected);
    assert_eq!(tally.events, 16);
    for (line, reason) in [
        (r#"{"metric":"hits","type":"counter","value":-1}"#, RejectReason::Negative),
        (r#"{"metric":"temp","type":"gauge","value":"x"}"#, RejectReason::WrongType),
        (r#"{"metric":"hits","type":"gauge","value":1}"#, RejectReason::TypeConflict),
        (r#"{"metric":"hits","type":"meter","value":1}"#, RejectReason::UnknownType),
        (r#"{"metric":"hits","type":"counter"}"#, RejectReason::MissingField),
        (r#"{"metric":"hits","type":"counter","value":3,"op":"set"}"#, RejectReason::WrongType),
        (r#"{"metric":"wait","type":"timing","value":3,"op":"set"}"#, RejectReason::WrongType),
        (r#"{"metric":"users","type":"set","value":"a","op":"add"}"#, RejectReason::WrongType),
        (r#"{"metric":"hits","metric":"temp","type":"counter","value":3}"#, RejectReason::DuplicateField),
        (r#"{"metric":"hits","type":"counter","value":3,"value":null}"#, RejectReason::DuplicateField),
        (r#"{"metric":"hits","type":"counter","value":3,"time":1,"time":2}"#, RejectReason::DuplicateField),
        (r#"{"metric":"wait","type":"timing","value":1,"unit":"By"}"#, RejectReason::WrongType),
        (r#"{"unit":"By","metric":"wait","value":1,"type":"timing"}"#, RejectReason::WrongType),
        (r#"{"metric":"","type":"counter","value":1}"#, RejectReason::EmptyName),
        (r#"{"metric":"hits","type":"counter","value":1,"labels":{"le":"1"}}"#, RejectReason::ReservedLabel),
        (r#"{"metric":"gens_total","type":"counter","value":1}"#, RejectReason::LabelMismatch),
        (
            r#"{"metric":"jobs","type":"gauge","value":1,"op":"add","time":1700000000}"#,
            RejectReason::GaugeOperationWithTime,
        ),
    ] {
        assert_eq!(bench.refusal(line).0, reason, "{line}");
    }
}

#[test]
fn a_traced_event_says_what_each_sample_became() {
    let mut bench = Bench::new(config(), 1000);
    let line = br#"{"event":"gen","model":"m","ok":true,"took":1}"#;
    let outcomes = bench.decoder.ingest_traced(&mut bench.combiner, ORIGIN, line, NOW);
    let names: Vec<String> = outcomes
        .iter()
        .map(|(_, outcome)| match outcome {
            LineOutcome::Accepted { metric, slot: Some(_), samples: 1, dropped: None, .. } => metric.name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["gens_total", "gen_seconds", "gen_models"]);
}
