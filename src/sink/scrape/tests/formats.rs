//! The bodies of the other formats: golden files, and protobuf against the text of the same commit.

use super::*;
use crate::codec::exposition::reader::{self, Family};
use crate::codec::exposition::tests::{parse, parse_csv};
use crate::delta::DistributionSum;
use crate::delta::testing::metric;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Compares with `tests/golden/NAME`; `HYDROGRAPH_BLESS=1` writes it instead.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("HYDROGRAPH_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).expect("writable");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("present; HYDROGRAPH_BLESS=1 writes it");
    assert_eq!(text, expected, "differs from {}; HYDROGRAPH_BLESS=1 accepts it", path.display());
}

#[test]
fn golden_bodies() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    for (name, format) in [
        ("scrape-metrics.json", ScrapeFormat::MetricsJson),
        ("scrape-api-metrics.json", ScrapeFormat::ApiJson),
        ("scrape.csv", ScrapeFormat::Csv),
        ("scrape.influx", ScrapeFormat::Influx),
    ] {
        golden(name, &render(&scrape, &request(format)));
    }
    for (format, content_type) in [
        (ScrapeFormat::Csv, "text/csv; charset=utf-8; header=present"),
        (
            ScrapeFormat::Protobuf,
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
    ] {
        assert_eq!(scrape.render(&request(format)).expect("no group").content_type, content_type);
    }
}

#[test]
fn l29_d42_v37_each_json_has_its_own_shape() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    let read = |format| serde_json::from_str::<serde_json::Value>(&render(&scrape, &request(format))).expect("JSON");
    let (flat, api) = (read(ScrapeFormat::MetricsJson), read(ScrapeFormat::ApiJson));
    let names = |value: &serde_json::Value| value.as_object().expect("object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&api), ["metrics", "timestamp", "uptime_seconds"]);
    assert_eq!(names(&flat), names(&api["metrics"]), "V37: names at the top level");
    for (name, family) in api["metrics"].as_object().expect("object") {
        let samples = family["samples"].as_array().expect("every family carries samples");
        assert!(family["type"].is_string() && family["help"].is_string());
        for key in ["value", "timestamp", "labels"] {
            let own = if samples.len() == 1 { samples[0].get(key) } else { None };
            assert_eq!(family.get(key), own, "L29: {name} carries {key} itself when it has one series");
            assert!(samples.iter().all(|sample| sample.get(key).is_some()));
        }
    }
}

#[test]
fn every_format_filters_by_group_and_name() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    for format in ALL_FORMATS {
        let ask = |group: Option<&str>, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let request = ScrapeRequest { group: group.map(str::to_owned), names, ..request(format) };
            String::from_utf8_lossy(&scrape.render(&request).expect("known").to_vec()).into_owned()
        };
        let all = ask(None, &[]);
        assert!(all.contains("orders") && all.contains("took") && all.contains("hydrograph_up"), "{format:?}");
        assert!(!all.contains("hydrograph_client"), "{format:?}: client telemetry has its own page");
        let group = ask(Some("models"), &[]);
        assert!(group.contains("took") && !group.contains("orders") && !group.contains("hydrograph_up"), "{format:?}");
        let named = ask(None, &["orders_total", "hydrograph_up"]);
        assert!(named.contains("orders") && named.contains("hydrograph_up") && !named.contains("took"), "{format:?}");
        assert!(ask(Some("internal"), &[]).contains("hydrograph_client"), "{format:?}");
        let job = ScrapeRequest { group: Some("job".to_owned()), ..request(format) };
        let known = vec!["internal".to_owned(), "models".to_owned()];
        assert_eq!(scrape.render(&job).expect_err("reserved"), ScrapeError::UnknownGroup(UnknownGroup { known }));
    }
}

#[test]
fn protobuf_carries_types_help_creation_times_and_natives() {
    let (bench, plan) = filled();
    let scrape = bench.scrape(plan);
    let body = scrape.render(&request(ScrapeFormat::Protobuf)).expect("no group").to_vec();
    let families = reader::families(&body);
    let named = |name: &str| families.iter().find(|family| family.name == name).expect("present");
    let orders = named("orders_total");
    assert_eq!((orders.kind, orders.help.as_str(), orders.series.len()), (0, "Orders", 2));
    assert_eq!(orders.series[0].created, Some((1_700_000_000, 0)), "S2");
    assert_eq!(orders.series[1].labels, [("region".to_owned(), "us \"x\"".to_owned())]);
    let retries = &named("retries_total").series[0];
    assert_eq!((retries.value, retries.created), (0.0, None), "it exists before its first sample");
    let took = named("took_seconds");
    assert_eq!((took.kind, took.unit.as_str()), (4, "seconds"));
    let native = took.series[0].native.as_ref().expect("classic and native in one message");
    assert_eq!((native.schema, native.positive.as_slice()), (3, &[(-36, 1.0)][..]), "2^(-37/8) < 0.042 <= 2^(-36/8)");
    assert_eq!(took.series[0].steps.len(), 3);
    assert!(named("took_window_seconds").series[0].native.is_none());
    assert_eq!(named("hydrograph_up").series[0].value, 1.0);
}

/// Samples by name and labels, as a scraper flattens both formats.
type Flat = BTreeMap<(String, Vec<(String, String)>), u64>;

fn of_text(body: &str) -> Flat {
    let value = |text: String| match text.as_str() {
        "NaN" => f64::NAN.to_bits(),
        text => text.parse::<f64>().expect("a number").to_bits(),
    };
    parse(body).into_iter().map(|(name, labels, text)| ((name, labels), value(text))).collect()
}

fn of_protobuf(families: &[Family]) -> Flat {
    let mut flat = Flat::new();
    for family in families {
        for series in &family.series {
            let mut put = |suffix: &str, step: Option<(&str, f64)>, value: f64| {
                let mut labels = series.labels.clone();
                labels.extend(step.map(|(key, step)| {
                    let step = if step.is_infinite() { "+Inf".to_owned() } else { step.to_string() };
                    (key.to_owned(), step)
                }));
                let name = format!("{}{suffix}", family.name);
                let value = if value.is_nan() { f64::NAN } else { value };
                assert!(flat.insert((name, labels), value.to_bits()).is_none(), "a sample stands once");
            };
            match family.kind {
                0 | 1 => put("", None, series.value),
                kind => {
                    let (suffix, key) = if kind == 2 { ("", "quantile") } else { ("_bucket", "le") };
                    series.steps.iter().for_each(|(step, value)| put(suffix, Some((key, *step)), *value));
                    put("_sum", None, series.sum);
                    put("_count", None, series.count as f64);
                }
            }
        }
    }
    flat
}

#[derive(Clone, Debug)]
struct Series {
    label: String,
    /// (value in scale units, weight)
    samples: Vec<(i64, u64)>,
}

fn series() -> impl Strategy<Value = Vec<Series>> {
    let value = prop_oneof![-1_000i64..1_000, 0i64..5_000_000_000, any::<i32>().prop_map(|v| i64::from(v) << 28)];
    let weight = prop_oneof![3 => Just(4096u64), 1 => 1u64..1 << 20];
    let samples = proptest::collection::vec((value, weight), 1..60);
    let series = ("[a-z\"\\\\\n ]{0,6}", samples).prop_map(|(label, samples)| Series { label, samples });
    proptest::collection::vec(series, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn protobuf_says_what_text_says(all in series(), summary in any::<bool>()) {
        let mut bench = Bench::new();
        let orders = edit(0, "orders_total", Kind::Counter, |m| m.help = "Orders \\ \"x\"\nof all".into());
        let load = edit(1, "load", Kind::Gauge, |_| {});
        let took = edit(2, "took_seconds", Kind::Distribution, |m| {
            (m.unit, m.scale) = (Unit::Seconds, Scale::NANO);
            m.expose = Expose { summary, histogram: true };
            m.quantiles = Arc::new([0.25, 0.5, 0.99]);
            m.buckets =
                Some(Arc::new(Buckets { first: 0, bounds: [0.05, 1.0].into(), units: [50_000_000, 1_000_000_000].into() }));
        });
        let plain = metric(3, "plain", Kind::Distribution);
        let mut rows = Vec::new();
        for (n, series) in all.iter().enumerate() {
            for metric in [&orders, &load, &took, &plain] {
                rows.push(bench.series(metric, &[("n", &n.to_string()), ("text", &series.label)]));
            }
        }
        bench.commit(&rows, |writer| {
            for (row, series) in rows.iter().zip(all.iter().flat_map(|series| [series; 4])) {
                let sum = |signed: bool| -> i128 {
                    series.samples.iter().map(|(v, _)| i128::from(if signed { *v } else { v.abs() })).sum()
                };
                match row.metric.kind {
                    Kind::Counter => writer.counter(row.id, CounterSum { nanos: sum(false) * 1_000 + 1 }),
                    Kind::Gauge => {
                        let last = sum(true) as f64 / 3.0;
                        let sum = GaugeSum { count: 1, last, time: CREATED.0, min: last, max: last, ..GaugeSum::default() };
                        writer.gauge(row.id, &sum);
                    }
                    Kind::Distribution => {
                        let mut sum = DistributionSum::new(Digits::Two);
                        let rule = row.metric.buckets.as_ref();
                        let rule = rule.map(|buckets| crate::delta::BucketRule::new(Arc::clone(buckets), Digits::Two));
                        for (value, weight) in &series.samples {
                            let cell = layout::cell_of(Digits::Two, *value);
                            sum.add(*value, cell, *weight);
                            if let Some(rule) = &rule {
                                rule.exact_below(cell, *value, |bound| sum.add_below(bound, *weight));
                            }
                        }
                        let cells: Vec<_> = sum.sketch.cells().collect();
                        let distribution = DistributionRow {
                            digits: Digits::Two,
                            count: sum.count,
                            weighted: sum.weighted,
                            sum: sum.sum,
                            min: sum.min,
                            max: sum.max,
                            cells: &cells,
                            below: &sum.below,
                        };
                        writer.distribution(row.id, &distribution);
                    }
                    Kind::Set => unreachable!("there is none"),
                }
            }
        });
        let scrape = bench.scrape(ScrapePlan::default());
        let text = render(&scrape, &request(ScrapeFormat::Text));
        let body = scrape.render(&request(ScrapeFormat::Protobuf)).expect("no group").to_vec();
        let families = reader::families(&body);
        prop_assert_eq!(of_protobuf(&families), of_text(&text));
        for family in &families {
            for series in family.series.iter().filter(|_| family.kind == 4) {
                let native = series.native.as_ref().expect("every sample is in it");
                let sum: f64 = native.positive.iter().chain(&native.negative).map(|(_, count)| count).sum();
                let count = series.exact.unwrap_or(series.count as f64);
                prop_assert_eq!(sum + native.zero, count, "Prometheus refuses any other sum");
                prop_assert_eq!((count + 0.5).floor(), series.count as f64, "V2: rounded half up");
                let steps = series.steps.iter().map(|(_, count)| *count);
                prop_assert!(series.exact_steps.iter().zip(steps).all(|(exact, count)| (exact + 0.5).floor() == count));
            }
        }
        let csv = parse_csv(&render(&scrape, &request(ScrapeFormat::Csv)));
        prop_assert!(csv.iter().all(|row| row.len() == 12));
        prop_assert_eq!(csv.len(), 1 + all.len() * 4 + 1);
        let influx = render(&scrape, &request(ScrapeFormat::Influx));
        prop_assert_eq!(influx.lines().count(), all.len() * 4 + 1);
    }
}

#[test]
fn r2_a_family_whose_buckets_are_estimates_says_so_in_its_help() {
    let (mut bench, plan) = filled();
    // Between them, and inside one cell and one native bucket, how many are below is not known.
    bench.commit(&[], |writer| put_values(writer, SeriesId(3), &[60_000_000, 60_200_000]));
    let mark = "(buckets of samples from before they were declared are estimated)";
    let scrape = bench.scrape(plan);
    let formats = [ScrapeFormat::Text, ScrapeFormat::OpenMetrics, ScrapeFormat::Protobuf];
    let shown =
        |format| String::from_utf8_lossy(&scrape.render(&request(format)).expect("a body").to_vec()).into_owned();
    for format in formats {
        assert!(!shown(format).contains(mark), "nothing is estimated yet");
    }
    let metric = edit(2, "took_seconds", Kind::Distribution, |m| {
        (m.unit, m.scale, m.help) = (Unit::Seconds, Scale::NANO, "Took".into());
        m.expose = Expose { summary: true, histogram: true };
        m.buckets = Some(Arc::new(Buckets { first: 2, bounds: [0.0601].into(), units: [60_100_000].into() }));
    });
    bench.fold.reload(&[metric], &[]);
    for format in formats {
        let body = shown(format);
        assert_eq!(body.matches(mark).count(), 1, "of the histogram and not of the summary beside it:\n{body}");
    }
    assert!(shown(ScrapeFormat::Text).contains(&format!("# HELP took_seconds Took {mark}\n")));
}
