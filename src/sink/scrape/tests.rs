//! Whole bodies: golden text, groups, filters, caching, the live set.

mod formats;

use super::*;
use crate::delta::part::{DistributionRow, PartWriter};
use crate::delta::testing::metric;
use crate::delta::{CounterSum, EncodedPart, GaugeSum, Interned, SeriesTable, TableLimits};
use crate::event::{Buckets, CommitId, Expose, LabelsBuilder, Scale, SeriesId, Slice, SliceWidth, Unit};
use crate::sketch::{Digits, Distinct, layout, member_hash};
use crate::store::{Committed, Fold, SeriesRow};
use crate::view::{ViewFold, view};
use std::io::Read;

const ALL_FORMATS: [ScrapeFormat; 7] = [
    ScrapeFormat::Text,
    ScrapeFormat::OpenMetrics,
    ScrapeFormat::Protobuf,
    ScrapeFormat::MetricsJson,
    ScrapeFormat::ApiJson,
    ScrapeFormat::Csv,
    ScrapeFormat::Influx,
];
const CREATED: Timestamp = Timestamp(1_700_000_000_000_000_000);

struct Bench {
    fold: ViewFold,
    view: View,
    table: Arc<SeriesTable>,
    commits: u64,
    ids: u32,
}

fn edit(id: u32, name: &str, kind: Kind, change: impl FnOnce(&mut Metric)) -> Arc<Metric> {
    let mut metric = Arc::unwrap_or_clone(metric(id, name, kind));
    change(&mut metric);
    Arc::new(metric)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let mut builder = LabelsBuilder::new();
    for (key, value) in pairs {
        builder.push(*key, *value);
    }
    builder.build().expect("valid")
}

impl Bench {
    fn new() -> Bench {
        let limits = TableLimits { series: 1000, series_per_metric: 1000 };
        let table = Arc::new(SeriesTable::new(limits, Labels::empty()));
        let width = SliceWidth::from_nanos(10_000_000_000).expect("ten seconds");
        let (mut fold, view) = view(Arc::clone(&table), width, usize::MAX);
        fold.leaving(width.slice_of(CREATED));
        Bench { fold, view, table, commits: 0, ids: 0 }
    }

    fn series(&mut self, metric: &Arc<Metric>, pairs: &[(&str, &str)]) -> SeriesRow {
        let labels = labels(pairs);
        let Interned::Slot(slot) = self.table.intern(metric, &labels) else { panic!("no limit") };
        let id = SeriesId(self.ids);
        self.ids += 1;
        self.table.lock().get_mut(metric.kind, slot).expect("interned").id = Some(id);
        SeriesRow { id, hash: 0, metric: Arc::clone(metric), labels, slot, created: CREATED }
    }

    /// Commits rows of the open slice.
    fn commit(&mut self, series: &[SeriesRow], write: impl FnOnce(&mut PartWriter)) {
        self.commits += 1;
        let mut writer = PartWriter::new(Vec::new());
        write(&mut writer);
        let slice = self.view.slice_width().slice_of(CREATED);
        let parts = [EncodedPart { slice, rows: writer.rows(), bytes: writer.finish() }];
        let id = CommitId(self.commits);
        self.fold.commit(&Committed { id, time: CREATED, series, resets: &[], parts: &parts }).expect("encoded here");
    }

    fn scrape(&self, plan: ScrapePlan) -> Scrape {
        Scrape::new(self.view.clone(), plan, || LiveValues {
            now: CREATED,
            uptime_seconds: 1.5,
            families: vec![LiveFamily {
                name: "hydrograph_up",
                kind: FamilyType::Gauge,
                help: "1 while samples can be taken and committed",
                unit: "",
                samples: vec![(Labels::empty(), 1.0)],
            }],
        })
    }
}

fn put_values(writer: &mut PartWriter, id: SeriesId, values: &[i64]) {
    let mut cells: Vec<(i32, u64)> = Vec::new();
    for value in values {
        cells.push((layout::cell_of(Digits::Two, *value), 1));
    }
    cells.sort_unstable();
    cells.dedup_by(|b, a| {
        a.0 == b.0 && {
            a.1 += b.1;
            true
        }
    });
    let row = DistributionRow {
        digits: Digits::Two,
        count: values.len() as u64,
        weighted: false,
        sum: values.iter().map(|v| i128::from(*v)).sum(),
        min: *values.iter().min().expect("values"),
        max: *values.iter().max().expect("values"),
        cells: &cells,
        below: &[],
    };
    writer.distribution(id, &row);
}

fn request(format: ScrapeFormat) -> ScrapeRequest {
    ScrapeRequest { format, group: None, names: Vec::new(), gzip: false }
}

fn render(scrape: &Scrape, request: &ScrapeRequest) -> String {
    String::from_utf8(scrape.render(request).expect("known group").to_vec()).expect("UTF-8")
}

/// A counter, a gauge, a histogram with its window, a set, client telemetry, a named group.
fn filled() -> (Bench, ScrapePlan) {
    let mut bench = Bench::new();
    let orders = edit(0, "orders_total", Kind::Counter, |m| m.help = "Orders".into());
    let load = edit(1, "load", Kind::Gauge, |_| {});
    let took = edit(2, "took_seconds", Kind::Distribution, |m| {
        (m.unit, m.scale) = (Unit::Seconds, Scale::NANO);
        m.expose = Expose { summary: true, histogram: true };
        m.quantiles = Arc::new([0.5, 0.99]);
        m.buckets =
            Some(Arc::new(Buckets { first: 0, bounds: [0.05, 1.0].into(), units: [50_000_000, 1_000_000_000].into() }));
        m.group = Group::Named("models".into());
    });
    let users = edit(3, "users", Kind::Set, |_| {});
    let client = edit(4, "hydrograph_client_metrics_total", Kind::Counter, |m| m.group = Group::InternalOnly);
    let idle = edit(5, "retries_total", Kind::Counter, |m| {
        m.declared = true;
        m.label_names = Some(Arc::new([]));
    });
    let rows = [
        bench.series(&orders, &[("region", "eu")]),
        bench.series(&orders, &[("region", "us \"x\"")]),
        bench.series(&load, &[]),
        bench.series(&took, &[("model", "m")]),
        bench.series(&users, &[]),
        bench.series(&client, &[]),
    ];
    let ids: Vec<SeriesId> = rows.iter().map(|row| row.id).collect();
    bench.commit(&rows, |writer| {
        writer.counter(ids[0], CounterSum { nanos: 17_000_000_000 });
        writer.counter(ids[1], CounterSum { nanos: 2_500_000_000 });
        writer.counter(ids[5], CounterSum { nanos: 1_000_000_000 });
        let sum = GaugeSum { count: 1, last: -0.25, time: CREATED.0, min: -0.25, max: -0.25, ..GaugeSum::default() };
        writer.gauge(ids[2], &sum);
        put_values(writer, ids[3], &[42_000_000]);
        let mut set = Distinct::default();
        set.insert(member_hash(b"a"));
        set.insert(member_hash(b"b"));
        writer.set(ids[4], &set);
    });
    let plan = ScrapePlan { created: false, declared: vec![idle], constant_labels: Labels::empty(), bytes_max: None };
    (bench, plan)
}

#[test]
fn golden_text() {
    let (bench, plan) = filled();
    let expected = "\
# TYPE load gauge
load -0.25
# HELP orders_total Orders
# TYPE orders_total counter
orders_total{region=\"eu\"} 17
orders_total{region=\"us \\\"x\\\"\"} 2.5
# TYPE retries_total counter
retries_total 0
# TYPE took_seconds histogram
took_seconds_bucket{model=\"m\",le=\"0.05\"} 1
took_seconds_bucket{model=\"m\",le=\"1\"} 1
took_seconds_bucket{model=\"m\",le=\"+Inf\"} 1
took_seconds_sum{model=\"m\"} 0.042
took_seconds_count{model=\"m\"} 1
# TYPE took_window_seconds summary
took_window_seconds{model=\"m\",quantile=\"0.5\"} 0.042
took_window_seconds{model=\"m\",quantile=\"0.99\"} 0.042
took_window_seconds_sum{model=\"m\"} 0.042
took_window_seconds_count{model=\"m\"} 1
# TYPE users gauge
users 2
# HELP hydrograph_up 1 while samples can be taken and committed
# TYPE hydrograph_up gauge
hydrograph_up 1
";
    let scrape = bench.scrape(plan);
    assert_eq!(render(&scrape, &request(ScrapeFormat::Text)), expected);
    assert_eq!(render(&scrape, &request(ScrapeFormat::Text)), expected, "the shared body is the same");
}

#[test]
fn golden_openmetrics_with_created() {
    let (bench, mut plan) = filled();
    plan.created = true;
    let scrape = bench.scrape(plan);
    let names = vec!["orders".to_owned(), "took_window_seconds_count".to_owned(), "retries_total".to_owned()];
    let request = ScrapeRequest { names, ..request(ScrapeFormat::OpenMetrics) };
    let expected = "\
# TYPE orders counter
# HELP orders Orders
orders_total{region=\"eu\"} 17
orders_created{region=\"eu\"} 1700000000
orders_total{region=\"us \\\"x\\\"\"} 2.5
orders_created{region=\"us \\\"x\\\"\"} 1700000000
# TYPE retries counter
retries_total 0
# TYPE took_window_seconds summary
# UNIT took_window_seconds seconds
took_window_seconds{model=\"m\",quantile=\"0.5\"} 0.042
took_window_seconds{model=\"m\",quantile=\"0.99\"} 0.042
took_window_seconds_sum{model=\"m\"} 0.042
took_window_seconds_count{model=\"m\"} 1
took_window_seconds_created{model=\"m\"} 1700000000
# EOF
";
    assert_eq!(render(&scrape, &request), expected);
}

#[test]
fn groups_have_their_pages() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    assert_eq!(scrape.groups(), ["internal", "models"]);
    let page =
        |group: &str| scrape.render(&ScrapeRequest { group: Some(group.to_owned()), ..request(ScrapeFormat::Text) });
    let internal = String::from_utf8(page("internal").expect("known").to_vec()).expect("UTF-8");
    assert_eq!(internal, "# TYPE hydrograph_client_metrics_total counter\nhydrograph_client_metrics_total 1\n");
    let models = String::from_utf8(page("models").expect("known").to_vec()).expect("UTF-8");
    assert!(models.contains("took_seconds_count") && !models.contains("orders") && !models.contains("hydrograph_up"));
    let known = vec!["internal".to_owned(), "models".to_owned()];
    assert_eq!(page("nope").expect_err("unknown"), ScrapeError::UnknownGroup(UnknownGroup { known }));
}

#[test]
fn json_bodies_parse_and_say_the_same() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    let json: serde_json::Value =
        serde_json::from_str(&render(&scrape, &request(ScrapeFormat::MetricsJson))).expect("JSON");
    let took = &json["took_seconds"];
    assert_eq!((took["type"].as_str(), took["unit"].as_str()), (Some("histogram"), Some("seconds")));
    let sample = &took["samples"][0];
    assert_eq!(sample["labels"]["model"], "m");
    assert_eq!(sample["value"], 1);
    assert_eq!(sample["mean"], 0.042);
    assert_eq!(sample["quantiles"]["0.99"], 0.042);
    assert_eq!(sample["buckets"], serde_json::json!({"0.05": 1, "1": 1, "+Inf": 1}));
    assert_eq!(sample["window"], serde_json::json!({"count": 1, "seconds": 300, "relative_error": 0.01}));
    assert_eq!(json["orders_total"]["samples"][1]["labels"]["region"], "us \"x\"");
    assert_eq!(json["orders_total"]["samples"][1]["value"], 2.5);
    assert_eq!(json["load"]["samples"][0]["timestamp"], 1_700_000_000);
    assert_eq!(json["retries_total"]["samples"][0]["value"], 0);
    assert_eq!(json["hydrograph_up"]["samples"][0]["value"], 1);
    assert!(json.get("took_window_seconds").is_none(), "one member per metric");
    let api: serde_json::Value = serde_json::from_str(&render(&scrape, &request(ScrapeFormat::ApiJson))).expect("JSON");
    assert_eq!(api["timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(api["uptime_seconds"], 1.5);
    assert_eq!(api["metrics"]["load"]["value"], -0.25, "a family with one series carries its value itself");
    assert!(api["metrics"]["orders_total"].get("value").is_none());
}

#[test]
fn q3_a_body_is_shared_until_something_changes_and_gzip_is_the_same() {
    let (mut bench, plan) = filled();
    let scrape = bench.scrape(plan);
    for format in ALL_FORMATS {
        let plain = scrape.render(&request(format)).expect("no group");
        let zipped = scrape.render(&ScrapeRequest { gzip: true, ..request(format) }).expect("no group");
        assert!(zipped.gzip && zipped.content_type == plain.content_type);
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&zipped.to_vec()[..]).read_to_end(&mut read).expect("valid gzip");
        assert_eq!(read, plain.to_vec());
        let again = scrape.render(&request(format)).expect("no group");
        assert!(Arc::ptr_eq(&plain.pieces[1], &again.pieces[1]), "{format:?} is shared, not copied");
    }
    let more = bench.series(&edit(0, "orders_total", Kind::Counter, |_| {}), &[("region", "zz")]);
    let id = more.id;
    bench.commit(&[more], |writer| writer.counter(id, CounterSum { nanos: 5_000_000_000 }));
    assert!(render(&scrape, &request(ScrapeFormat::Text)).contains("orders_total{region=\"zz\"} 5\n"));
    bench.fold.forget(SeriesId(0));
    bench.commit(&[], |writer| writer.counter(id, CounterSum { nanos: 1_000_000_000 }));
    let body = render(&scrape, &request(ScrapeFormat::Text));
    assert!(body.contains("orders_total{region=\"zz\"} 6\n") && !body.contains("region=\"eu\""));
}

#[test]
fn q2_quantiles_slide_and_totals_stay() {
    let (mut bench, plan) = filled();
    let scrape = bench.scrape(plan);
    let slice = bench.view.slice_width().slice_of(CREATED);
    let mut part = PartWriter::new(Vec::new());
    put_values(&mut part, SeriesId(3), &[42_000_000]);
    let part = part.finish();
    assert_eq!(bench.fold.leaving(Slice(slice.0 + 29)), []);
    assert_eq!(bench.fold.leaving(Slice(slice.0 + 30)), [slice]);
    bench.fold.expire(slice, &[part]).expect("encoded here");
    let body = render(&scrape, &request(ScrapeFormat::Text));
    assert!(body.contains("took_window_seconds{model=\"m\",quantile=\"0.5\"} NaN\n"), "{body}");
    assert!(body.contains("took_window_seconds_count{model=\"m\"} 1\n"));
    assert!(body.contains("took_seconds_bucket{model=\"m\",le=\"+Inf\"} 1\n"));
    assert!(body.contains("users 0\n"), "a set shows the window's members");
    assert!(body.contains("orders_total{region=\"eu\"} 17\n"));
}

#[test]
fn bodies_that_slow_readers_hold_are_bounded() {
    let mut bench = Bench::new();
    let orders = edit(0, "orders_total", Kind::Counter, |_| {});
    let rows: Vec<SeriesRow> =
        (0..500).map(|n| bench.series(&orders, &[("customer", &format!("{n:0>100}"))])).collect();
    let ids: Vec<SeriesId> = rows.iter().map(|row| row.id).collect();
    let mut rows = Some(rows);
    let mut count = |bench: &mut Bench| {
        let rows = rows.take().unwrap_or_default();
        bench
            .commit(&rows, |writer| ids.iter().for_each(|id| writer.counter(*id, CounterSum { nanos: 1_000_000_000 })));
    };
    count(&mut bench);
    // One body is some 65 KB, and so is its label text: room for the text and two bodies, and a little.
    let bytes_max = Some(230_000);
    let scrape = bench.scrape(ScrapePlan { bytes_max, ..ScrapePlan::default() });
    let mut readers = Vec::new();
    let refused = loop {
        // However many read the same body, it counts once.
        match scrape.render(&request(ScrapeFormat::Text)) {
            Ok(body) => readers.extend(std::iter::repeat_n(body, 100)),
            Err(error) => break error,
        }
        assert!(readers.len() <= 1000, "a reader of every commit is served for ever");
        count(&mut bench);
    };
    assert_eq!(refused, ScrapeError::NoRoom { bytes_max: 230_000 });
    assert!(readers.len() >= 200, "{} readers were served", readers.len());
    let held: usize = readers.iter().step_by(100).map(ScrapeBody::length).sum();
    assert!(held <= 230_000, "{held} bytes are held");
    // A reload forgets nothing of what they hold.
    scrape.reload(ScrapePlan { bytes_max, ..ScrapePlan::default() });
    assert!(scrape.render(&request(ScrapeFormat::Text)).is_err());
    readers.clear();
    for format in ALL_FORMATS {
        count(&mut bench);
        let body = scrape.render(&request(format)).expect("one body at a time finds room");
        assert!(body.length() > 10_000);
    }
    let taken = scrape.inner.lock().expect("no panic").make_room(0).map(|left| 230_000 - left);
    assert!(taken.is_some_and(|taken| taken <= 230_000));
    // A body that is longer than all room is refused, also when nobody reads.
    let narrow = bench.scrape(ScrapePlan { bytes_max: Some(10_000), ..ScrapePlan::default() });
    assert_eq!(
        narrow.render(&request(ScrapeFormat::Text)).expect_err("too long"),
        ScrapeError::NoRoom { bytes_max: 10_000 }
    );
}
