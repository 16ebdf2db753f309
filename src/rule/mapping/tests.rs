//! The behaviour that statsd_exporter documents, case by case.

use super::*;

fn mapping(text: &str) -> Mapping {
    Mapping::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `name{label=value,...}`, labels sorted, empty ones left out; `dropped`; `-` where no rule matches.
fn shown(mapping: &Mapping, name: &str, wire: WireType) -> String {
    match mapping.find(name, wire) {
        None => "-".into(),
        Some(Mapped::Dropped) => "dropped".into(),
        Some(Mapped::Metric { name, mut labels, .. }) => {
            labels.sort();
            let labels: Vec<String> = labels
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("{name}{{{}}}", labels.join(","))
        }
    }
}

fn check(text: &str, cases: &[(&str, &str)]) {
    let mapping = mapping(text);
    for (name, expected) in cases {
        assert_eq!(shown(&mapping, name, WireType::Count), *expected, "{name}");
    }
}

fn refused(text: &str, part: &str) {
    let error = Mapping::parse(text).expect_err(text);
    assert!(error.message.contains(part), "{error}, not {part:?}");
}

fn spec(text: &str) -> MappedSpec {
    match mapping(text).find("test.a.b", WireType::Timing) {
        Some(Mapped::Metric { spec, .. }) => spec.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn globs_capture_whole_parts_in_the_order_of_the_file() {
    check(
        r#"
mappings:
- match: test.dispatcher.*.*.*
  name: "dispatch_events"
  labels: { processor: "$1", action: "$2", result: "$3", job: "test_dispatcher" }
- match: "*.*"
  name: "catchall"
  labels: { first: "$1", second: "$2", third: "$3", job: "$1-$2-$3" }
- match: order.*.*
  name: first
- match: order.*.bbb
  name: second
"#,
        &[
            (
                "test.dispatcher.Foo.send.succeeded",
                "dispatch_events{action=send,job=test_dispatcher,processor=Foo,result=succeeded}",
            ),
            ("foo.bar", "catchall{first=foo,job=foo-bar-,second=bar}"),
            ("order.good.bbb", "first{}"),
            ("foo.bar.baz", "-"),
            ("foo", "-"),
        ],
    );
}

#[test]
fn without_ordering_the_most_literal_glob_wins() {
    check(
        r#"
defaults: { glob_disable_ordering: true }
mappings:
- { match: noorder.*.*, name: a, labels: { l: "${1}_foo" } }
- { match: noorder.*.bbb, name: b, labels: { l: "${1}_foo" } }
- { match: noorder.ccc.bbb, name: c, labels: { l: ccc_foo } }
- { match: backtrack.*.bbb, name: d, labels: { l: "${1}_foo" } }
- { match: backtrack.just.aaa, name: e, labels: { l: "${1}_foo" } }
"#,
        &[
            ("noorder.x.y", "a{l=x_foo}"),
            ("noorder.x.bbb", "b{l=x_foo}"),
            ("noorder.ccc.bbb", "c{l=ccc_foo}"),
            ("backtrack.just.bbb", "d{l=just_foo}"),
            ("backtrack.just.aaa", "e{l=_foo}"),
        ],
    );
}

#[test]
fn regular_expressions_come_after_globs_and_match_anywhere() {
    check(
        r#"
mappings:
- { match: '(.*)\.(.*)-(.*)\.(.*)', match_type: regex, name: proxy_requests_total, labels: { job: $1, protocol: $2, endpoint: $3, result: $4 } }
- { match: "proxy.*.x", name: glob }
- { match: 'inner', match_type: regex, name: found }
"#,
        &[
            (
                "proxy-1.http-goober.success",
                "proxy_requests_total{endpoint=goober,job=proxy-1,protocol=http,result=success}",
            ),
            ("proxy.http-a.x", "glob{}"),
            ("some.inner.part", "found{}"),
        ],
    );
}

#[test]
fn templates_are_those_of_go() {
    check(
        r#"
mappings:
- { match: bad.*, name: name, labels: { label: "$1_foo" } }
- { match: good.*, name: name, labels: { label: "${1}_foo" } }
- { match: test1.*.*, name: "$1" }
- { match: test2.*.*, name: "${1}_$2" }
- { match: 'test3\.(\w+)\.(\w+)', match_type: regex, name: "${2}_$1" }
"#,
        &[
            ("bad.a", "name{}"),
            ("good.a", "name{label=a_foo}"),
            ("test1.total_requests.count", "total_requests{}"),
            ("test2.total_requests.count", "total_requests_count{}"),
            ("test3.total_requests.count", "count_total_requests{}"),
            ("test1.0-x.count", "_0_x{}"),
        ],
    );
}

#[test]
fn drop_and_types_of_metrics() {
    let text = r#"
mappings:
- { match: test.*, match_metric_type: counter, name: counted, labels: { provider: $1 } }
- { match: test.*, match_metric_type: timer, name: timed }
- { match: test.*, match_metric_type: observer, name: never }
- { match: gone.*, action: drop, name: dropped }
- { match: ., match_type: regex, action: drop, name: dropped }
"#;
    let mapping = mapping(text);
    assert_eq!(shown(&mapping, "test.a", WireType::Count), "counted{provider=a}");
    for wire in [WireType::Timing, WireType::Histogram, WireType::Distribution] {
        assert_eq!(shown(&mapping, "test.a", wire), "timed{}");
    }
    assert_eq!(shown(&mapping, "test.a", WireType::Gauge), "dropped");
    assert_eq!(shown(&mapping, "gone.a", WireType::Count), "dropped");
}

#[test]
fn observers_buckets_quantiles_ages_and_ttl() {
    let plain = spec("mappings: [{ match: test.*.*, name: foo }]");
    assert!(!plain.is_histogram);
    assert_eq!(&*plain.quantiles, &[0.5, 0.9, 0.99]);
    assert_eq!((plain.max_age, plain.ttl, plain.exponent), (None, None, 0));

    let own = spec(
        "mappings: [{ match: test.*.*, name: foo, observer_type: summary, ttl: 1m20s, help: words, summary_options: \
         { quantiles: [{ quantile: 0.7, error: 0.002 }, { quantile: 0.42, error: 0.04 }], max_age: 5m, age_buckets: 2, buf_cap: 1000 } }]",
    );
    assert_eq!(&*own.quantiles, &[0.42, 0.7]);
    assert_eq!((own.max_age, own.ttl), (Some(300_000_000_000), Some(80_000_000_000)));
    assert_eq!(own.help.as_deref(), Some("words"));

    let old = spec("mappings: [{ match: test.*.*, name: foo, timer_type: histogram, buckets: [0.01, 0.1, .inf] }]");
    assert!(old.is_histogram);
    assert_eq!(&*old.bounds, &[0.01, 0.1]);
    assert_eq!(&*spec("mappings: [{ match: test.*.*, name: foo, observer_type: histogram }]").bounds, &CLIENT_BOUNDS);

    let defaults = "defaults: { observer_type: histogram, histogram_options: { buckets: [1, 2] }, buckets: [3], ttl: 1h, match_type: glob }\n";
    let inherited = spec(&format!("{defaults}mappings: [{{ match: test.*.*, name: foo }}]"));
    assert!(inherited.is_histogram);
    assert_eq!((&*inherited.bounds, inherited.ttl), (&[1.0, 2.0][..], Some(3_600_000_000_000)));
    let overridden =
        spec(&format!("{defaults}mappings: [{{ match: test.*.*, name: foo, observer_type: summary, ttl: 5s }}]"));
    assert!(!overridden.is_histogram);
    assert_eq!(overridden.ttl, Some(5_000_000_000));

    let scaled = spec("mappings: [{ match: test.*.*, name: foo, scale: 0.001, honor_labels: true }]");
    assert_eq!((scaled.exponent, scaled.honor_labels), (-3, true));
}

#[test]
fn what_statsd_exporter_refuses_is_refused() {
    refused("mappings: [{ match: bad--metric-line.*.*, name: foo }]", "not a glob");
    refused("mappings: [{ match: foo, name: foo }]", "not a glob");
    refused("mappings: [{ match: a*.b, name: foo }]", "not a glob");
    refused("mappings: [{ match: test.*.*, name: 0foo }]", "not a metric name");
    refused("mappings: [{ match: test.*.*, labels: { this: $1 } }]", "has no name");
    refused("mappings: [{ match: *.test.*, name: x }]", "");
    refused("mappings: [{ match: test.*, name: x, observer_type: wrong }]", "wrong");
    refused("mappings: [{ match: test.*, name: x, match_metric_type: wrong }]", "wrong");
    refused("mappings: [{ match: test.*, name: x, action: wrong }]", "wrong");
    refused("mappings: [{ match: test.*, name: x, labels: { 'a-b': c } }]", "cannot be a label");
    refused("mappings: [{ match: '(', match_type: regex, name: x }]", "regular expression");
    refused("mappings: [{ match: test.*, name: x, ttl: 5 parsecs }]", "duration");
    refused(
        "mappings: [{ match: test.*, name: x, quantiles: [{ quantile: 0.5 }], summary_options: { quantiles: [{ quantile: 0.5 }] } }]",
        "both",
    );
    refused("mappings: [{ match: test.*, name: x, buckets: [1], histogram_options: { buckets: [1] } }]", "both");
    refused(
        "mappings: [{ match: test.*, name: x, observer_type: histogram, summary_options: { max_age: 5m } }]",
        "summary_options",
    );
    refused(
        "mappings: [{ match: test.*, name: x, observer_type: summary, histogram_options: { buckets: [1] } }]",
        "histogram_options",
    );
    refused("mappings: [{ match: test.*, name: x, scale: 0.3 }]", "power of ten");
    refused("mappings: [{ match: test.*, name: x, buckets: [2, 1], observer_type: histogram }]", "not larger");
}

#[test]
fn an_error_of_syntax_names_its_line_and_odd_keys_are_warned_of() {
    let error = Mapping::parse("mappings:\n- match: test.*\n  name: [\n").expect_err("broken");
    assert!(error.line.is_some_and(|line| line >= 3), "{error:?}");
    assert!(mapping("").is_empty());
    assert!(mapping("---\n# nothing\n").is_empty());
    let odd = mapping("mappings: [{ match: test.*, name: x, lables: { a: b } }]");
    assert_eq!(odd.warnings(), ["mapping 1: key \"lables\" does nothing"]);
}
