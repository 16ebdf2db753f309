//! Operators and aggregations where Prometheus's documentation says what must come out, and what must be refused.

use super::*;
use crate::query::EvalError;

/// The example of "Vector matching" in Prometheus's documentation.
fn errors_and_requests() -> Memory {
    let mut memory = Memory::new(10);
    let errors = memory.declare("errors", Kind::Gauge, |_| {});
    let requests = memory.declare("requests", Kind::Gauge, |_| {});
    let rows =
        [("get", "500", 24.0), ("get", "404", 30.0), ("put", "501", 3.0), ("post", "500", 6.0), ("post", "404", 21.0)];
    for (method, code, value) in rows {
        let id = memory.series(&errors, &[("method", method), ("code", code)], at(0));
        memory.set(id, at(1), value);
    }
    for (method, value) in [("get", 600.0), ("del", 34.0), ("post", 120.0)] {
        let id = memory.series(&requests, &[("method", method)], at(0));
        memory.set(id, at(1), value);
    }
    memory
}

/// The answer's series as text, in the order of the answer.
fn shown(text: &str) -> Vec<String> {
    let show = |sample: Sample| {
        let labels: Vec<String> = sample.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}{{{}}} {}", sample.name.as_deref().unwrap_or(""), labels.join(","), sample.value)
    };
    samples(&errors_and_requests(), text, 10).into_iter().map(show).collect()
}

fn check_set(text: &str, expected: &[&str]) {
    let mut found = shown(text);
    found.sort();
    assert_eq!(found, expected, "{text}");
}

fn check_refused(text: &str, words: &[&str]) {
    let expression = Expression::parse(text).unwrap();
    let error = evaluate(&expression, &errors_and_requests(), at(10)).expect_err(text).to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "{text}: {error}"));
}

#[test]
fn the_documentations_examples_of_matching() {
    check_set("errors{code=\"500\"} / ignoring(code) requests", &["{method=get} 0.04", "{method=post} 0.05"]);
    check_set(
        "errors / ignoring(code) group_left requests",
        &[
            "{code=404,method=get} 0.05",
            "{code=404,method=post} 0.175",
            "{code=500,method=get} 0.04",
            "{code=500,method=post} 0.05",
        ],
    );
    check_set("errors{code=\"500\"} / on(method) requests", &["{method=get} 0.04", "{method=post} 0.05"]);
    check_set("requests and on(method) errors{code=\"501\"}", &[]);
    check_set("requests unless on(method) errors", &["requests{method=del} 34"]);
    check_set(
        "requests{method=\"del\"} or ignoring(code) errors{code=\"501\"}",
        &["errors{code=501,method=put} 3", "requests{method=del} 34"],
    );
    check_set(
        "requests > on(method) group_right errors{code=\"404\"}",
        &["errors{code=404,method=get} 600", "errors{code=404,method=post} 120"],
    );
    check_set("sum by (method) (errors) > bool 10", &["{method=get} 1", "{method=post} 1", "{method=put} 0"]);
    check_set("count by (code) (errors) == 2", &["{code=404} 2", "{code=500} 2"]);
    check_set("max without (code) (errors)", &["{method=get} 30", "{method=post} 21", "{method=put} 3"]);
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    check_refused("errors / ignoring(code) requests", &["left side", "ignoring(code)", "group_left", "method"]);
    check_refused("requests / ignoring(code) errors", &["right side", "errors{"]);
    check_refused("errors / on(method) group_right requests", &["left side", "on(method)"]);
    check_refused("label_replace(errors, \"code\", \"x\", \"code\", \".*\")", &["two series", "code=\"x\""]);
    check_refused(
        "errors * on(code) group_left(method) label_replace(requests{method=\"get\"}, \"code\", \"404\", \"method\", \"get\")",
        &["several series make"],
    );
}

#[test]
fn order_is_that_of_labels_unless_it_is_asked() {
    let labels = shown("errors");
    let mut again = shown("errors or errors");
    assert_eq!(labels, again);
    again = shown("sort_desc(errors)");
    let first =
        |shown: &[String]| shown.iter().map(|text| text.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(first(&again), ["30", "24", "21", "6", "3"]);
    assert_eq!(first(&shown("sort(errors)")), ["3", "6", "21", "24", "30"]);
    assert_eq!(first(&shown("topk(2, errors)")), ["30", "24"]);
    assert_eq!(first(&shown("bottomk(2, errors)")), ["3", "6"]);
    assert_eq!(first(&shown("topk by (method) (1, errors)")).len(), 3);
    assert!(shown("topk(0, errors)").is_empty() && shown("topk(NaN, errors)").is_empty());
}

#[test]
fn labels_are_rewritten() {
    check_set(
        "label_replace(requests{method=\"get\"}, \"to\", \"${1}_$2\", \"method\", \"(g)(.*)\")",
        &["requests{method=get,to=g_et} 600"],
    );
    check_set(
        "label_replace(requests{method=\"get\"}, \"to\", \"x\", \"method\", \"e\")",
        &["requests{method=get} 600"],
    );
    check_set("label_replace(requests{method=\"get\"}, \"method\", \"\", \"method\", \".*\")", &["requests{} 600"]);
    check_set(
        "label_join(errors{code=\"501\"}, \"all\", \"-\", \"method\", \"none\", \"code\")",
        &["errors{all=put--501,code=501,method=put} 3"],
    );
    check_set("count_values(\"value\", errors > 20)", &["{value=21} 1", "{value=24} 1", "{value=30} 1"]);
    check_set("absent(nothing{a=\"b\",c!=\"d\",e=~\"f\"})", &["{a=b} 1"]);
    check_set("absent(errors)", &[]);
    check_set("sum(errors{method=\"none\"})", &[]);
    check_set("-requests{method=\"del\"}", &["{method=del} -34"]);
    check_set("vector(1) + 2", &["{} 3"]);
}

#[test]
fn distributions_that_count_different_things_are_not_added() {
    let memory = world();
    let refused = |text: &str| {
        let expression = Expression::parse(text).unwrap();
        matches!(evaluate(&expression, &memory, at(300)), Err(EvalError::MixedDistributions))
    };
    assert!(refused("histogram_quantile(0.5, sum(rate({__name__=~\"load|took_seconds\"}[1m])))"));
    assert!(refused("histogram_quantile(0.5, rate(load[1m]) + rate(load[2m]))"));
    assert!(!refused("histogram_quantile(0.5, rate(load[1m]) + rate(load[1m]))"));
    // Numbers and distributions together have no sum, and a distribution is no number.
    assert!(samples(&memory, "sum({__name__=~\"orders_total|took_seconds\"})", 300).is_empty());
    assert_eq!(one(&memory, "count({__name__=~\"orders_total|took_seconds\"})", 300), Some(6.0));
    assert!(samples(&memory, "took_seconds > 0", 300).is_empty());
    assert_eq!(samples(&memory, "2 * took_seconds{region=\"eu\"}", 300)[0].value, 60.0);
}

#[test]
fn dates_are_those_of_the_calendar() {
    let memory = Memory::new(10);
    let check_date = |seconds: i64, expected: [f64; 8]| {
        let functions =
            ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
        for (function, expected) in functions.into_iter().zip(expected) {
            check(&memory, &format!("{function}(vector({seconds}))"), 0, Some(expected));
        }
    };
    check_date(0, [0.0, 0.0, 4.0, 1.0, 1.0, 31.0, 1.0, 1970.0]);
    check_date(-1, [59.0, 23.0, 3.0, 31.0, 365.0, 31.0, 12.0, 1969.0]);
    // 2024-02-29T12:34:56Z, a Thursday; 2100-03-01T00:00:00Z, a Monday of a year that does not leap.
    check_date(1_709_210_096, [34.0, 12.0, 4.0, 29.0, 60.0, 29.0, 2.0, 2024.0]);
    check_date(4_107_542_400, [0.0, 0.0, 1.0, 1.0, 60.0, 31.0, 3.0, 2100.0]);
    check(&memory, "year()", 0, Some(2023.0));
    check(&memory, "month(vector(NaN))", 0, Some(f64::NAN));
}
