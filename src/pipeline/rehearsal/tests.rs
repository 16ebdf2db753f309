//! The runner of tests: what holds passes, what does not is told, and time, kills and orders are as in the process.

use super::*;
use crate::pipeline::config::PipelineFile;
use crate::pipeline::paths::Environment;

const HEAD: &str = r#"
    [sources.app]
    type = "socket"
    listen = ["udp:127.0.0.1:8125"]

    [events.order]
    fields = { shop = "string", total = "float", took = "seconds?" }

    [events.opened]
    fields = { id = "string" }

    [events.closed]
    fields = { id = "string" }

    [pairs.visit]
    start = "opened"
    end = "closed"
    key = "id"
    timeout = "30m"

    [metrics.orders_total]
    type = "counter"
    help = "Orders"
    from = { event = "order", labels = ["shop"] }

    [metrics.took_seconds]
    type = "summary"
    help = "Time"
    from = { event = "order", value = "took" }

    [metrics.revenue]
    type = "gauge"
    help = "The last total"
    from = { event = "order", value = "total", labels = ["shop"] }

    [metrics.visits_open]
    type = "gauge"
    help = "Open visits"
    from = { pair = "visit", value = "open" }

    [metrics.visits_expired_total]
    type = "counter"
    help = "Expired visits"
    from = { pair = "visit", value = "expired" }

    [metrics.orders_recent]
    type = "gauge"
    help = "Orders of the last minute"
    from = { expr = "sum(increase(orders_total[1m]))" }

    [metrics.orders_recent_doubled]
    type = "gauge"
    help = "Twice as many"
    from = { expr = "orders_recent * 2", const = { kind = "doubled" } }
"#;

fn plan(head: &str, input: &str, expect: &str) -> Plan {
    let text = format!("{head}\n[[tests]]\nname = \"t\"\ninput = [{input}]\nexpect = [{expect}]\n");
    let file = PipelineFile { name: "t.toml".into(), text, directory: "/".into() };
    let environment = Environment::fixed([], 1000, |_| false);
    Plan::load(&[file], &environment).unwrap_or_else(|errors| panic!("{errors}"))
}

fn report(input: &str, expect: &str) -> TestReport {
    let mut reports = rehearse(&plan(HEAD, input, expect), &nothing);
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

fn nothing(path: &Path) -> Result<Plan, Diagnostics> {
    panic!("{} is not asked for", path.display())
}

#[track_caller]
fn passes(input: &str, expect: &str) {
    let report = report(input, expect);
    assert!(report.is_ok(), "{report:#?}");
}

const ORDER: &str = r#"{ at = "1s", line = '{"event":"order","shop":"a","total":5,"took":0.2}' }"#;

#[test]
fn what_does_not_hold_is_told_with_what_is_there() {
    let expect = r#"
        { at = "10s", expr = "orders_total{shop='a'}", value = 1 },
        { at = "10s", expr = "orders_total{shop='a'}", value = 2 },
        { at = "10s", expr = "orders_total{shop='b'}", value = 1 },
        { at = "10s", expr = "orders_total", absent = true },
        { at = "10s", expr = "orders_total{shop='b'}", absent = true },
        { at = "10s", expr = "sum(orders_total) * 1.05", value = 1, tolerance = 0.1 }"#;
    let report = report(ORDER, expect);
    assert!(!report.is_ok() && report.problem.is_none() && report.notes.is_empty(), "{report:#?}");
    assert_eq!(report.failures.len(), 3);
    let [wrong, missing, present] = &report.failures[..] else { panic!("three") };
    assert_eq!(wrong.want, Want::Value { value: 2.0, tolerance: None });
    assert_eq!(wrong.found, [("orders_total{shop=\"a\"}".to_owned(), 1.0)]);
    assert!(wrong.place.starts_with("t.toml:") && wrong.at == 10_000_000_000, "{wrong:?}");
    assert!(missing.found.is_empty());
    assert_eq!(missing.near, [("orders_total".to_owned(), vec![("orders_total{shop=\"a\"}".to_owned(), 1.0)])]);
    assert_eq!((present.want, present.found.len()), (Want::Absent, 1));
}

#[test]
fn several_series_are_not_one_value() {
    let input = r#"
        { at = "1s", line = '{"event":"order","shop":"a","total":5}' },
        { at = "2s", line = '{"event":"order","shop":"b","total":5}' }"#;
    let report = report(input, r#"{ at = "10s", expr = "orders_total", value = 1 }"#);
    assert_eq!(report.failures[0].found.len(), 2);
}

#[test]
fn an_expectation_sees_what_came_before_the_edge_of_its_slice() {
    let input = r#"
        { at = "9999ms", line = '{"event":"order","shop":"a","total":5}' },
        { at = "10s", line = '{"event":"order","shop":"a","total":6}' }"#;
    let expect = r#"
        { at = "9s", expr = "orders_total", absent = true },
        { at = "10s", expr = "orders_total", value = 1 },
        { at = "20s", expr = "orders_total", value = 2 },
        { at = "20s", expr = "revenue", value = 6 }"#;
    passes(input, expect);
}

#[test]
fn q1_an_expectation_inside_a_slice_sees_what_was_committed_by_then() {
    let input = r#"
        { at = "0s", line = '{"event":"order","shop":"a","total":5,"took":2}' },
        { at = "6s", line = '{"event":"order","shop":"a","total":6}' },
        { at = "12s", line = '{"event":"order","shop":"a","total":7}' },
        { at = "12s", restart = "kill" }"#;
    let expect = r#"
        { at = "5s", expr = "orders_total{shop='a'}", value = 1 },
        { at = "5s", expr = "increase(orders_total[10s])", value = 1 },
        { at = "5s", expr = "revenue", value = 5 },
        { at = "5s", expr = "took_seconds_sum", value = 2 },
        { at = "5s", expr = "orders_recent", absent = true },
        { at = "9s", expr = "orders_total", value = 2 },
        { at = "11s", expr = "orders_total", value = 2 },
        { at = "11s", expr = "orders_recent", value = 2 },
        { at = "15s", expr = "orders_total", value = 2 }"#;
    passes(input, expect);
}

#[test]
fn a_declared_series_without_labels_is_0_from_the_start_as_a_scrape_shows_it() {
    let input = r#"
        { at = "31s", line = '{"event":"order","shop":"a","total":5,"took":0.2}' },
        { at = "32s", line = "failures:1|c" }"#;
    let head = format!("{HEAD}\n{ZEROS}");
    let expect = r#"
        { at = "0s", expr = "failures_total", value = 0 },
        { at = "20s", expr = "failures_total", value = 0 },
        { at = "20s", expr = "failures_total{shop='a'}", absent = true },
        { at = "20s", expr = "{__name__=~'failures_t.*'}", value = 0 },
        { at = "20s", expr = "rate(failures_total[20s])", value = 0 },
        { at = "20s", expr = "count_over_time(failures_total[20s])", value = 2 },
        { at = "20s", expr = "took_seconds_count", value = 0 },
        { at = "20s", expr = "took_seconds_sum", value = 0 },
        { at = "20s", expr = "took_seconds{quantile='0.5'}", value = nan },
        { at = "20s", expr = "sizes_bytes_bucket{le='10.0'}", value = 0 },
        { at = "20s", expr = "visitors", value = 0 },
        { at = "20s", expr = "visits_expired_total", value = 0 },
        { at = "20s", expr = "orders_total", absent = true },
        { at = "20s", expr = "visits_open", absent = true },
        { at = "20s", expr = "failures_a_second", value = 0 },
        { at = "40s", expr = "failures_total", value = 1 },
        { at = "40s", expr = "failures_total offset 20s", value = 0 },
        { at = "40s", expr = "took_seconds_count offset 20s", value = 0 },
        { at = "40s", expr = "took_seconds_count", value = 1 },
        { at = "40s", expr = "failures_total / on() sum(orders_total)", value = 1 }"#;
    let reports = rehearse(&plan(&head, input, expect), &nothing);
    assert!(reports[0].is_ok(), "{reports:#?}");
}

#[test]
fn r1_a_reload_says_which_series_are_0_from_then_on() {
    let other = format!("{HEAD}\n{ZEROS}");
    let input = r#"{ at = "15s", reload = "other.toml" }"#;
    let expect = r#"
        { at = "10s", expr = "failures_total", absent = true },
        { at = "10s", expr = "visits_expired_total", value = 0 },
        { at = "30s", expr = "failures_total", value = 0 },
        { at = "30s", expr = "failures_total @ 10", value = 0 },
        { at = "30s", expr = "failures_total @ 0", absent = true },
        { at = "30s", expr = "visits_expired_total @ 0", value = 0 }"#;
    let report = with_other(&other, input, expect);
    assert!(report.is_ok(), "{report:#?}");
}

const ZEROS: &str = r#"
    [metrics.failures_total]
    type = "counter"
    help = "Failures"

    [metrics.sizes_bytes]
    type = "histogram"
    buckets = [10, 20]
    help = "Sizes"

    [metrics.visitors]
    type = "set"
    help = "Visitors"

    [metrics.failures_a_second]
    type = "gauge"
    help = "Of the last minute"
    from = { expr = "sum(rate(failures_total[1m]))" }
"#;

#[test]
fn what_is_refused_or_dropped_is_noted() {
    let input = r#"
        { at = "1s", line = '{"event":"order","shop":"a"}' },
        { at = "2s", line = '{"event":"nobody"}' },
        { at = "3s", line = '{"event":"order","shop":"a","total":5,"time":4000}' }"#;
    let report = report(input, r#"{ at = "10s", expr = "orders_total", absent = true }"#);
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!(report.notes.len(), 3, "{:?}", report.notes);
    assert!(report.notes[0].contains("at 1s: {\"event\":\"order\""), "{:?}", report.notes);
}

#[test]
fn v4_quantiles_of_a_window() {
    let input: Vec<String> = (1..=100)
        .map(|n| format!(r#"{{ at = "{}ms", line = '{{"event":"order","shop":"a","total":1,"took":{n}}}' }}"#, n * 90))
        .collect();
    let expect = r#"
        { at = "10s", expr = "took_seconds{quantile='0.5'}", value = 50, tolerance = 0.5 },
        { at = "10s", expr = "took_seconds{quantile='0.99'}", value = 99, tolerance = 0.99 },
        { at = "10s", expr = "took_seconds_count", value = 100 },
        { at = "10s", expr = "took_seconds_sum", value = 5050 },
        { at = "10m", expr = "took_seconds_count", value = 100 }"#;
    passes(&input.join(",\n"), expect);
}

#[test]
fn t1_events_out_of_order_count_in_their_slices() {
    let input = r#"
        { at = "25s", line = '{"event":"order","shop":"a","total":3,"time":21}' },
        { at = "26s", line = '{"event":"order","shop":"a","total":2,"time":12}' },
        { at = "27s", line = '{"event":"order","shop":"a","total":1,"time":1.5}' },
        { at = "28s", line = '{"event":"order","shop":"a","total":4,"time":"1970-01-01T00:00:22Z"}' }"#;
    let expect = r#"
        { at = "30s", expr = "increase(orders_total[10s] offset 20s)", value = 1 },
        { at = "30s", expr = "increase(orders_total[10s] offset 10s)", value = 1 },
        { at = "30s", expr = "increase(orders_total[10s])", value = 2 },
        { at = "30s", expr = "revenue", value = 4 }"#;
    passes(input, expect);
}

#[test]
fn k7_a_kill_loses_nothing_that_was_committed() {
    let input = r#"
        { at = "1s", line = '{"event":"order","shop":"a","total":5}' },
        { at = "1s", line = '{"event":"opened","id":"x"}' },
        { at = "4500ms", line = '{"event":"order","shop":"a","total":6}' },
        { at = "4600ms", restart = "kill" },
        { at = "6s", line = '{"event":"order","shop":"a","total":7}' },
        { at = "7s", restart = "kill" },
        { at = "8s", restart = "kill" },
        { at = "12s", line = '{"event":"closed","id":"x"}' }"#;
    // The order of 4.5 s was never committed; that of 6 s was, at 7 s.
    let expect = r#"
        { at = "10s", expr = "orders_total", value = 2 },
        { at = "10s", expr = "revenue", value = 7 },
        { at = "10s", expr = "visits_open", value = 1 },
        { at = "20s", expr = "visits_open", value = 0 }"#;
    passes(input, expect);
}

#[test]
fn q4_recorded_expressions_follow_every_slice_and_each_other() {
    let input = r#"
        { at = "1s", line = '{"event":"order","shop":"a","total":5}' },
        { at = "15s", line = '{"event":"order","shop":"a","total":5}' },
        { at = "2m1s", line = '{"event":"order","shop":"a","total":5}' }"#;
    let expect = r#"
        { at = "10s", expr = "orders_recent", value = 1 },
        { at = "20s", expr = "orders_recent", value = 2 },
        { at = "20s", expr = "orders_recent_doubled{kind='doubled'}", value = 4 },
        { at = "70s", expr = "orders_recent", value = 1 },
        { at = "2m", expr = "max_over_time(orders_recent[2m])", value = 2 },
        { at = "2m10s", expr = "orders_recent", value = 1 }"#;
    let report = report(input, expect);
    assert!(report.is_ok() && report.notes.is_empty(), "{report:#?}");
}

#[test]
fn v8_pairs_expire_while_nothing_else_happens() {
    let input = r#"{ at = "1s", line = '{"event":"opened","id":"x"}' }"#;
    let expect = r#"
        { at = "30m", expr = "visits_open", value = 1 },
        { at = "30m10s", expr = "visits_open", value = 0 },
        { at = "30m10s", expr = "visits_expired_total", value = 1 },
        { at = "20h", expr = "visits_expired_total", value = 1 }"#;
    passes(input, expect);
}

#[test]
fn lines_arrive_at_the_source_that_is_named() {
    let head = r#"
        [sources.first]
        type = "socket"
        listen = ["udp:127.0.0.1:8125"]
        [sources.log]
        type = "socket"
        listen = ["udp:127.0.0.1:8126"]
        event_key = "message"
        [events.written]
        fields = { bytes = "bytes" }
        [metrics.bytes_total]
        type = "counter"
        help = "Bytes"
        from = { event = "written", value = "bytes" }
    "#;
    let input = r#"
        { at = "1s", source = "log", line = '{"message":"written","bytes":5}' },
        { at = "2s", line = '{"event":"written","bytes":6}' },
        { at = "3s", line = '{"message":"written","bytes":100}' },
        { at = "3s", line = 'hits:2|c' }"#;
    let expect = r#"
        { at = "10s", expr = "hits_total", value = 2 },
        { at = "10s", expr = "bytes_total", value = 11 }"#;
    let reports = rehearse(&plan(head, input, expect), &nothing);
    assert!(reports[0].is_ok() && reports[0].notes.len() == 1, "{reports:#?}");
}

/// Runs one test, where `other.toml` holds another text.
fn with_other(other: &str, input: &str, expect: &str) -> TestReport {
    let read = |path: &Path| {
        assert_eq!(path, Path::new("/other.toml"), "beside the file that names it");
        let file = PipelineFile { name: "other.toml".into(), text: other.into(), directory: "/".into() };
        Plan::load(&[file], &Environment::fixed([], 1000, |_| false))
    };
    let mut reports = rehearse(&plan(HEAD, input, expect), &read);
    reports.remove(0)
}

#[test]
fn r1_a_reload_takes_over_and_what_did_not_change_goes_on_also_across_a_kill() {
    let other = HEAD
        .replace("help = \"Open visits\"", "help = \"Visits that are open\"")
        .replace("[metrics.revenue]", "[metrics.income]")
        .replace("timeout = \"30m\"", "timeout = \"1m\"")
        .replace("\"sum(increase(orders_total[1m]))\"", "\"sum(orders_total) + 100\"");
    let input = r#"
        { at = "1s", line = '{"event":"order","shop":"a","total":5}' },
        { at = "2s", line = '{"event":"opened","id":"x"}' },
        { at = "15s", reload = "other.toml" },
        { at = "16s", line = '{"event":"order","shop":"a","total":6}' },
        { at = "18s", restart = "kill" },
        { at = "21s", line = '{"event":"order","shop":"a","total":7}' }"#;
    // The kill is after the commit of 16 s, and starts a process by the other file.
    let expect = r#"
        { at = "10s", expr = "orders_recent", value = 1 },
        { at = "14s", expr = "revenue", value = 5 },
        { at = "20s", expr = "orders_total", value = 2 },
        { at = "20s", expr = "income", value = 6 },
        { at = "20s", expr = "orders_recent", value = 102 },
        { at = "30s", expr = "orders_total", value = 3 },
        { at = "30s", expr = "income", value = 7 },
        { at = "30s", expr = "visits_open", value = 1 },
        { at = "2m", expr = "visits_open", value = 0 },
        { at = "2m", expr = "visits_expired_total", value = 1 }"#;
    let report = with_other(&other, input, expect);
    assert!(report.is_ok(), "{report:#?}");
}

#[test]
fn r1_a_source_that_a_reload_adds_reads_by_its_own_keys() {
    let other =
        format!("[sources.log]\ntype = \"socket\"\nlisten = [\"udp:127.0.0.1:8126\"]\nevent_key = \"message\"\n{HEAD}");
    let input = r#"
        { at = "1s", line = '{"message":"order","shop":"a","total":5}' },
        { at = "2s", reload = "other.toml" },
        { at = "3s", line = '{"message":"order","shop":"a","total":5}' }"#;
    // The first socket source of the file is another by then.
    let report = with_other(&other, input, r#"{ at = "10s", expr = "orders_total", value = 1 }"#);
    assert!(report.is_ok() && report.notes.len() == 1, "{report:#?}");
}

#[test]
fn r2_a_reload_that_is_refused_ends_the_test_and_says_why() {
    let input = r#"{ at = "5s", reload = "other.toml" }"#;
    let expect = r#"{ at = "10s", expr = "orders_total", absent = true }"#;
    let slice = format!("slice = \"20s\"\nwindow = \"5m\"\n{HEAD}");
    for (other, why) in [(slice.as_str(), "slice"), ("nonsense = 1", "nonsense")] {
        let problem = with_other(other, input, expect).problem.expect("it was refused");
        assert!(problem.contains("other.toml at 5s") && problem.contains(why), "{problem}");
    }
}

#[test]
fn a_test_that_would_run_for_hours_says_so_at_once() {
    let expect = r#"{ at = "100y", expr = "orders_total", absent = true }"#;
    let problem = report("", expect).problem.expect("it does not run");
    assert!(problem.contains("100y is 315360000 slices of 10s") && problem.contains("at most 100000"), "{problem}");
}

#[test]
fn values_are_equal_up_to_the_tolerance() {
    let one = |value: f64| vec![(String::new(), value)];
    let want = |value, tolerance| Want::Value { value, tolerance };
    assert!(holds(want(1.0, None), &one(1.0 + 1e-10)) && !holds(want(1.0, None), &one(1.0 + 1e-8)));
    assert!(holds(want(0.0, None), &one(0.0)) && !holds(want(0.0, None), &one(1e-12)));
    assert!(holds(want(f64::NAN, None), &one(f64::NAN)) && !holds(want(f64::NAN, None), &one(1.0)));
    assert!(holds(want(f64::INFINITY, None), &one(f64::INFINITY)));
    assert!(!holds(want(f64::INFINITY, None), &one(f64::NEG_INFINITY)) && !holds(want(1.0, None), &one(f64::NAN)));
    assert!(holds(want(10.0, Some(1.0)), &one(9.0)) && !holds(want(10.0, Some(1.0)), &one(8.9)));
    assert!(!holds(want(1.0, None), &[]) && holds(Want::Absent, &[]) && !holds(Want::Absent, &one(1.0)));
}
