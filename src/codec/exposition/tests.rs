//! The text formats against golden lines, and against a small parser that shares nothing with the writers.

use super::*;
use crate::event::{LabelsBuilder, WEIGHT_ONE};
use proptest::prelude::*;

/// One sample line: name, labels, value text.
pub(crate) type Line = (String, Vec<(String, String)>, String);

/// Parses sample lines as the 0.0.4 format describes them.
pub(crate) fn parse(body: &str) -> Vec<Line> {
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

fn point(labels: &[u8]) -> ProtobufPoint<'_> {
    ProtobufPoint { labels, exponent: 9, count: 6, sum: 126_000_000, created: Some(1_700_000_000_500_000_000) }
}

fn proto_labels(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = LabelsBuilder::new();
    for (key, value) in pairs {
        builder.push(*key, *value);
    }
    let mut out = Vec::new();
    put_protobuf_labels(&mut out, &builder.build().expect("valid"));
    out
}

/// The bytes of a small message, checked by hand against `metrics.proto`.
#[test]
fn protobuf_of_a_counter_byte_by_byte() {
    let mut out = Vec::new();
    let head = FamilyHead { name: "a_total", kind: FamilyType::Counter, help: "", unit: "" };
    put_protobuf_family(&mut out, &head, |out| {
        put_protobuf_scalar(out, &proto_labels(&[("k", "v")]), FamilyType::Counter, 1.5, Some(2_000_000_003));
    });
    let expected = [
        &[38][..],
        b"\x0a\x07a_total",
        b"\x18\x00",
        &[0x22, 25],
        b"\x0a\x06\x0a\x01k\x12\x01v",
        &[0x1a, 15],
        &[0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F],
        &[0x1a, 4, 0x08, 2, 0x10, 3],
    ]
    .concat();
    assert_eq!(out, expected);
}

#[test]
fn protobuf_histograms_read_back() {
    let labels = proto_labels(&[("model", "ä\"\n")]);
    let native = NativePoint {
        schema: 3,
        negative: &[(-36, WEIGHT_ONE)],
        zero: WEIGHT_ONE,
        positive: &[(-40, 2 * WEIGHT_ONE), (-37, 300 * WEIGHT_ONE), (-33, 7 * WEIGHT_ONE), (470, WEIGHT_ONE)],
        below: &[u128::from(WEIGHT_ONE), 2 * u128::from(WEIGHT_ONE)],
    };
    let mut out = Vec::new();
    let head = FamilyHead { name: "t_seconds", kind: FamilyType::Histogram, help: "h", unit: "seconds" };
    put_protobuf_family(&mut out, &head, |out| {
        put_protobuf_histogram(out, &point(&labels), &[0.25, 5.0], &[1, 2], Some(&native));
        put_protobuf_histogram(out, &point(&[]), &[], &[], None);
    });
    let families = reader::families(&out);
    let family = &families[0];
    assert_eq!((family.name.as_str(), family.help.as_str(), family.unit.as_str()), ("t_seconds", "h", "seconds"));
    assert_eq!((families.len(), family.kind, family.series.len()), (1, 4, 2));
    let first = &family.series[0];
    assert_eq!(first.labels, [("model".to_owned(), "ä\"\n".to_owned())]);
    assert_eq!((first.count, first.sum, first.created), (6, 0.126, Some((1_700_000_000, 500_000_000))));
    assert_eq!(first.steps, [(0.25, 1.0), (5.0, 2.0), (f64::INFINITY, 6.0)]);
    let read = first.native.as_ref().expect("native buckets");
    assert_eq!((read.schema, read.zero, first.exact, first.exact_steps.len()), (3, 1.0, None, 0));
    assert!(read.zero_threshold > 0.0 && read.zero_threshold < 1e-30, "Prometheus tells natives by it");
    assert_eq!(read.negative, [(-36, 1.0)]);
    assert_eq!(read.positive, [(-40, 2.0), (-37, 300.0), (-33, 7.0), (470, 1.0)]);
    assert!(family.series[1].native.is_none());
}

#[test]
fn protobuf_summaries_say_nan_for_an_empty_window_and_no_series_is_no_family() {
    let mut out = Vec::new();
    let head = FamilyHead { name: "t_seconds", kind: FamilyType::Summary, help: "", unit: "bytes" };
    put_protobuf_family(&mut out, &head, |_| {});
    assert_eq!(out, b"");
    put_protobuf_family(&mut out, &head, |out| {
        put_protobuf_summary(out, &point(&[]), &[0.5, 1.0], Some(&[42_000_000, 43_000_000]));
        put_protobuf_summary(out, &ProtobufPoint { created: None, ..point(&[]) }, &[0.5], None);
    });
    let families = reader::families(&out);
    assert_eq!((families[0].kind, families[0].unit.as_str()), (2, ""), "no unit that the name does not end with");
    assert_eq!(families[0].series[0].steps, [(0.5, 0.042), (1.0, 0.043)]);
    assert!(families[0].series[1].steps[0].1.is_nan() && families[0].series[1].created.is_none());
}

proptest! {
    #[test]
    fn v1_a_double_is_what_the_decimal_reads(units in any::<i128>(), shift in 0u32..127, exponent in 0u8..=12) {
        let units = units >> shift;
        let mut out = Vec::new();
        put_units(&mut out, units, exponent);
        let read: f64 = text(out).parse().expect("a decimal");
        prop_assert_eq!(double_of(units, exponent).to_bits(), read.to_bits());
    }

    #[test]
    fn native_buckets_read_back(
        negative in proptest::collection::btree_map(-330i32..490, 1u64..1 << 40, 0..30),
        positive in proptest::collection::btree_map(-330i32..490, 1u64..1 << 40, 0..160),
        zero in any::<u32>(),
        schema in 0u8..=3,
        unit in prop_oneof![Just(1), Just(WEIGHT_ONE)],
    ) {
        let scaled = |side: std::collections::BTreeMap<i32, u64>| -> Vec<(i32, u64)> {
            side.into_iter().map(|(index, count)| (index, count * unit)).collect()
        };
        let (negative, positive, zero) = (scaled(negative), scaled(positive), u64::from(zero) * unit);
        let native = NativePoint { schema, negative: &negative, zero, positive: &positive, below: &[] };
        let mut out = Vec::new();
        let head = FamilyHead { name: "t", kind: FamilyType::Histogram, help: "", unit: "" };
        put_protobuf_family(&mut out, &head, |out| put_protobuf_histogram(out, &point(&[]), &[], &[], Some(&native)));
        let families = reader::families(&out);
        let read = families[0].series[0].native.as_ref().expect("native buckets");
        let count = |weight: u64| weight as f64 / WEIGHT_ONE as f64;
        let wide = |side: &[(i32, u64)]| side.iter().map(|(i, n)| (i64::from(*i), count(*n))).collect::<Vec<_>>();
        prop_assert_eq!(&read.negative, &wide(&negative));
        prop_assert_eq!(&read.positive, &wide(&positive));
        prop_assert_eq!((read.zero, read.schema), (count(zero), i64::from(schema)));
        if let Some(exact) = families[0].series[0].exact {
            let all = negative.iter().chain(&positive).map(|(_, weight)| *weight).sum::<u64>() + zero;
            prop_assert_eq!(exact, count(all), "buckets add up to the count");
            prop_assert_eq!(&families[0].series[0].exact_steps, &vec![exact], "and so does +Inf");
        }
    }

    #[test]
    fn csv_rows_read_back(cells in proptest::collection::vec(".*", 1..12)) {
        let mut out = Vec::new();
        let mut row = CsvRow::new(&mut out);
        cells.iter().for_each(|cell| row.text(cell));
        drop(row);
        let mut expected = cells.clone();
        expected.resize(12, String::new());
        prop_assert_eq!(parse_csv(&text(out)), vec![expected]);
    }

    #[test]
    fn influx_lines_stay_lines_and_keep_their_tags(
        measurement in "[a-zA-Z_:]{1,9}", values in proptest::collection::vec("[ -~]{1,9}|.{1,9}|[\\\\,= \n%5cC]{1,6}", 0..4),
    ) {
        let mut builder = LabelsBuilder::new();
        let keys = ["a", "b_c", "d", "e"];
        for (key, value) in keys.iter().zip(&values) {
            builder.push(*key, value.as_str());
        }
        let Ok(labels) = builder.build() else { return Ok(()) };
        let mut out = Vec::new();
        let mut line = InfluxLine::new(&mut out, &measurement, &labels);
        line.units("value", 1_500_000_000, 9);
        line.float("0.5", f64::NAN);
        line.end(Some(17));
        let out = text(out);
        prop_assert_eq!(out.matches('\n').count(), 1);
        let (name, tags, fields, time) = parse_influx(out.trim_end_matches('\n'));
        prop_assert_eq!((name.as_str(), fields.as_str(), time.as_str()), (measurement.as_str(), "value=1.5", "17"));
        prop_assert_eq!(tags.len(), labels.iter().count());
        for ((key, value), (expected_key, expected)) in tags.iter().zip(labels.iter()) {
            prop_assert_eq!(key, expected_key);
            prop_assert_eq!(&unreplaced(value), expected, "so that two values never look the same: {}", value);
        }
    }
}

#[test]
fn influx_escapes_as_the_reference_says() {
    let mut builder = LabelsBuilder::new();
    builder.push("path", "a b,c=d");
    builder.push("tail", "x\\");
    builder.push("two", "1\n2");
    let labels = builder.build().expect("valid");
    let mut out = Vec::new();
    let mut line = InfluxLine::new(&mut out, "took_seconds", &labels);
    line.units("count", 3, 0);
    line.float("mean", 0.5);
    line.end(None);
    let mut empty = InfluxLine::new(&mut out, "nothing", &labels);
    empty.float("value", f64::INFINITY);
    empty.end(Some(1));
    assert_eq!(text(out), "took_seconds,path=a\\ b\\,c\\=d,tail=x%5C,two=1%0A2 count=3,mean=0.5\n");
}

/// RFC 4180 as written, quotes doubled.
pub(crate) fn parse_csv(document: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut chars = document.chars().peekable();
    while chars.peek().is_some() {
        let mut row = vec![String::new()];
        loop {
            let field = row.last_mut().expect("begun");
            if field.is_empty() && chars.next_if_eq(&'"').is_some() {
                loop {
                    match chars.next().expect("a quoted field ends") {
                        '"' if chars.next_if_eq(&'"').is_some() => field.push('"'),
                        '"' => break,
                        c => field.push(c),
                    }
                }
            }
            match chars.next().expect("a row ends") {
                ',' => row.push(String::new()),
                '\r' => {
                    assert_eq!(chars.next(), Some('\n'));
                    break;
                }
                c => field.push(c),
            }
        }
        rows.push(row);
    }
    rows
}

/// Measurement, tags, fields, time: a backslash takes a following comma, equals sign or space with it.
/// A tag as it was before control characters and some backslashes were replaced.
fn unreplaced(value: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), value.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|next| *first == b'%' && next.iter().all(u8::is_ascii_hexdigit));
        match digits {
            Some(digits) => {
                let digits = std::str::from_utf8(digits).expect("ASCII");
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).expect("only ASCII is replaced")
}

fn parse_influx(line: &str) -> (String, Vec<(String, String)>, String, String) {
    let mut parts: Vec<Vec<String>> = vec![vec![String::new()]];
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let in_tags = parts.len() == 1;
        match c {
            '\\' if matches!(chars.peek(), Some(',' | '=' | ' ')) => {
                let next = chars.next().expect("peeked");
                parts.last_mut().expect("one").last_mut().expect("one").push(next);
            }
            ' ' => parts.push(vec![String::new()]),
            ',' | '=' if in_tags => parts[0].push(String::new()),
            c => parts.last_mut().expect("one").last_mut().expect("one").push(c),
        }
    }
    assert_eq!(parts.len(), 3, "{line}");
    let tags = parts[0][1..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    (parts[0][0].clone(), tags, parts[1].concat(), parts[2].concat())
}
