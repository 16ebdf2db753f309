//! The text formats against golden lines, and against a small parser that shares nothing with the writers.

use super::*;
use crate::event::LabelsBuilder;
use proptest::prelude::*;

/// One sample line: name, labels, value text.
type Line = (String, Vec<(String, String)>, String);

/// Parses sample lines as the 0.0.4 format describes them.
fn parse(body: &str) -> Vec<Line> {
    body.lines().filter(|line| !line.starts_with('#')).map(parse_line).collect()
}

fn parse_line(line: &str) -> Line {
    let mut chars = line.chars().peekable();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| *c != '{' && *c != ' ') {
        name.push(c);
    }
    let mut labels = Vec::new();
    if chars.next_if_eq(&'{').is_some() {
        while chars.next_if_eq(&'}').is_none() {
            let mut key = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=') {
                key.push(c);
            }
            assert_eq!((chars.next(), chars.next()), (Some('='), Some('"')));
            let mut value = String::new();
            loop {
                match chars.next().expect("a value ends") {
                    '"' => break,
                    '\\' => value.push(match chars.next().expect("an escape ends") {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        other => panic!("unknown escape {other}"),
                    }),
                    c => value.push(c),
                }
            }
            labels.push((key, value));
            chars.next_if_eq(&',');
        }
    }
    assert_eq!(chars.next(), Some(' '), "{line}");
    (name, labels, chars.collect())
}

fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = LabelsBuilder::new();
    for (key, value) in pairs {
        builder.push(*key, *value);
    }
    let mut text = Vec::new();
    put_labels(&mut text, &builder.build().expect("valid"));
    text
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).expect("UTF-8")
}

const OPENMETRICS: TextFormat = TextFormat::OpenMetrics { created: false };
const WITH_CREATED: TextFormat = TextFormat::OpenMetrics { created: true };

fn head(format: TextFormat, name: &str, kind: FamilyType, help: &str, unit: &str) -> String {
    let mut out = Vec::new();
    put_head(&mut out, format, &FamilyHead { name, kind, help, unit });
    text(out)
}

#[test]
fn heads_follow_each_format() {
    use FamilyType::{Counter, Gauge, Summary};
    let prometheus = TextFormat::Prometheus;
    assert_eq!(
        head(prometheus, "a_total", Counter, "x\\y\n\"z\"", ""),
        "# HELP a_total x\\\\y\\n\"z\"\n# TYPE a_total counter\n"
    );
    assert_eq!(
        head(OPENMETRICS, "a_total", Counter, "x\\y\n\"z\"", ""),
        "# TYPE a counter\n# HELP a x\\\\y\\n\\\"z\\\"\n"
    );
    assert_eq!(head(prometheus, "a", Counter, "", ""), "# TYPE a counter\n");
    assert_eq!(head(OPENMETRICS, "a", Counter, "", ""), "# TYPE a unknown\n", "a counter without _total");
    assert_eq!(
        head(OPENMETRICS, "a_seconds_total", Counter, "", "seconds"),
        "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n"
    );
    assert_eq!(
        head(OPENMETRICS, "a_seconds", Summary, "h", "seconds"),
        "# TYPE a_seconds summary\n# UNIT a_seconds seconds\n# HELP a_seconds h\n"
    );
    assert_eq!(
        head(OPENMETRICS, "a_ratio", Gauge, "", "seconds"),
        "# TYPE a_ratio gauge\n",
        "no unit that the name does not end with"
    );
    assert_eq!(head(OPENMETRICS, "aseconds", Gauge, "", "seconds"), "# TYPE aseconds gauge\n");
}

#[test]
fn summaries_and_histograms() {
    let labels = labels(&[("model", "a\"b")]);
    let mut point = DistributionPoint {
        labels: &labels,
        count: 3,
        sum: 126_000_000,
        quantiles: Some(&[42_000_000, 42_000_001]),
        buckets: &[],
        created: 1_700_000_000_500_000_000,
    };
    let mut out = Vec::new();
    let writer = DistributionWriter::summary(TextFormat::Prometheus, "t_seconds", 9, &[0.5, 1.0]);
    writer.put_summary(&mut out, &point);
    point.quantiles = None;
    point.labels = &[];
    writer.put_summary(&mut out, &point);
    assert_eq!(
        text(out),
        "t_seconds{model=\"a\\\"b\",quantile=\"0.5\"} 0.042\n\
         t_seconds{model=\"a\\\"b\",quantile=\"1\"} 0.042000001\n\
         t_seconds_sum{model=\"a\\\"b\"} 0.126\n\
         t_seconds_count{model=\"a\\\"b\"} 3\n\
         t_seconds{quantile=\"0.5\"} NaN\n\
         t_seconds{quantile=\"1\"} NaN\n\
         t_seconds_sum 0.126\n\
         t_seconds_count 3\n"
    );
    let mut out = Vec::new();
    point.buckets = &[1, 2];
    DistributionWriter::histogram(WITH_CREATED, "t_seconds", 9, &[0.25, 5.0]).put_histogram(&mut out, &point);
    assert_eq!(
        text(out),
        "t_seconds_bucket{le=\"0.25\"} 1\n\
         t_seconds_bucket{le=\"5.0\"} 2\n\
         t_seconds_bucket{le=\"+Inf\"} 3\n\
         t_seconds_sum 0.126\n\
         t_seconds_count 3\n\
         t_seconds_created 1700000000.5\n"
    );
}

#[test]
fn created_lines_of_counters() {
    for (format, name, expected) in [
        (WITH_CREATED, "a_total", "a_created{k=\"v\"} 1.5\n"),
        (WITH_CREATED, "a", ""),
        (OPENMETRICS, "a_total", ""),
        (TextFormat::Prometheus, "a_total", ""),
    ] {
        let mut out = Vec::new();
        put_counter_created(&mut out, format, name, b"k=\"v\"", 1_500_000_000);
        assert_eq!(text(out), expected);
    }
}

#[test]
fn the_window_stands_before_the_unit() {
    assert_eq!(window_name("model_generation_duration_seconds", "seconds"), "model_generation_duration_window_seconds");
    assert_eq!(window_name("depth", ""), "depth_window");
    assert_eq!(window_name("size_bytes", "seconds"), "size_bytes_window");
    assert_eq!(window_name("seconds", "seconds"), "seconds_window");
}

proptest! {
    #[test]
    fn labels_read_back(values in proptest::collection::vec("[a\"\\\\\n{}=, é☃]{1,12}", 1..5), units in any::<i64>()) {
        let mut builder = LabelsBuilder::new();
        for (at, value) in values.iter().enumerate() {
            builder.push(format!("k{at}"), value.as_str());
        }
        let mut label_text = Vec::new();
        put_labels(&mut label_text, &builder.build().expect("valid"));
        let (mut prefix, mut out) = (Vec::new(), Vec::new());
        put_prefix(&mut prefix, "name", &label_text);
        put_scalar(&mut out, &prefix, i128::from(units), 0);
        let expected: Vec<_> = values.iter().enumerate().map(|(at, value)| (format!("k{at}"), value.clone())).collect();
        prop_assert_eq!(parse(&text(out)), vec![("name".to_owned(), expected, units.to_string())]);
    }

    #[test]
    fn help_stays_on_its_line(help in "[a\"\\\\\n é]{0,20}") {
        for format in [TextFormat::Prometheus, OPENMETRICS] {
            let head = head(format, "a", FamilyType::Gauge, &help, "");
            prop_assert!(head.lines().all(|line| line.starts_with("# HELP a ") || line == "# TYPE a gauge"));
            prop_assert_eq!(head.lines().count(), if help.is_empty() { 1 } else { 2 });
        }
    }

    #[test]
    fn json_strings_read_back(value in any::<String>()) {
        let mut out = Vec::new();
        put_json_string(&mut out, &value);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), value);
    }
}
