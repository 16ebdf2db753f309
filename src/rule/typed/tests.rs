//! What the rules of typed events promise, each by itself.

use super::*;
use crate::event::{Kind, Number, RejectReason, Scale, SourceIndex, Unit};
use crate::rule::{Rules, RulesConfig};
use std::sync::Arc;

fn field(name: &str, ty: FieldType) -> FieldSpec {
    let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
    FieldSpec { name: name.into(), ty, optional, path: vec![name.into()] }
}

fn from_field(field: &str) -> DeriveFrom {
    DeriveFrom::Field {
        field: field.into(),
        regex: None,
        class: None,
        map: Vec::new(),
        default: None,
        distinct_max: None,
        other: "other".into(),
    }
}

fn generation() -> EventSpec {
    let mut status = from_field("success");
    if let DeriveFrom::Field { map, .. } = &mut status {
        *map = vec![("true".into(), "success".into()), ("false".into(), "error".into())];
    }
    let mut model = from_field("model_name");
    if let DeriveFrom::Field { distinct_max, .. } = &mut model {
        *distinct_max = Some(2);
    }
    EventSpec {
        name: "model_generation".into(),
        fields: vec![
            field("model_name", FieldType::String),
            field("took", FieldType::Milliseconds),
            field("success", FieldType::Bool),
            field("tokens?", FieldType::Int),
            field("code?", FieldType::Int),
        ],
        derived: vec![
            DeriveSpec { name: "status".into(), from: status },
            DeriveSpec { name: "model".into(), from: model },
        ],
        keep: 0,
    }
}

fn number(text: &str) -> FieldValue<'static> {
    FieldValue::Number(Number::parse(text.as_bytes()).expect("a number"))
}

/// `model_name`, `took` in seconds, `success`, `tokens`, `code`.
fn values<'a>(model: &'a str, took: &str, success: bool, tokens: Option<&str>) -> Fields<'a> {
    let mut fields = Fields::new();
    fields.extend([
        FieldValue::Text(model.as_bytes()),
        number(took),
        FieldValue::Bool(success),
        tokens.map_or(FieldValue::Missing, number),
        FieldValue::Missing,
    ]);
    fields
}

fn holds(text: &str, fields: &Fields<'_>) -> bool {
    let event = generation();
    let condition = Condition::parse(text, &event).unwrap_or_else(|error| panic!("{text}: {error}"));
    let plans: Vec<_> = event.derived.iter().map(|d| derive::DerivePlan::new(&d.from, &event).expect("fits")).collect();
    let mut memo = derive::Memo::default();
    let texts = memo.derive(&plans, fields);
    condition.holds(fields, &texts)
}

#[test]
fn when_compares_every_type_as_the_contract_says() {
    let fields = values("llama2-7b", "1.5", true, Some("256"));
    for (text, expected) in [
        ("success", true),
        ("not success", false),
        ("success == true", true),
        ("success != false", true),
        ("success == false", false),
        ("took > 1.5", false),
        ("took >= 1.50", true),
        ("took < 1500e-3", false),
        ("took <= 1.5 and took != 1.4999", true),
        ("tokens == 256.0", true),
        ("model_name == 'llama2-7b'", true),
        ("model_name != 'llama2-7b'", false),
        ("model_name =~ 'llama.*'", true),
        ("model_name =~ 'llama'", false),
        ("model_name !~ 'llama'", true),
        ("status == 'success'", true),
        ("status =~ 'err.*|succ.*'", true),
        ("not success or tokens > 200 and took < 2", true),
        ("(not success or tokens > 200) and took > 2", false),
        ("not not success", true),
        ("not (success and tokens < 10)", true),
        ("model_name == 'it\\'s'", false),
        ("took>-1", true),
    ] {
        assert_eq!(holds(text, &fields), expected, "{text}");
    }
}

#[test]
fn when_a_field_is_missing_comparisons_are_false_and_not_is_true() {
    let fields = values("m", "1", true, None);
    for (text, expected) in [
        ("tokens == 1", false),
        ("tokens != 1", false),
        ("tokens < 1", false),
        ("not tokens < 1", true),
        ("not (tokens != 1)", true),
        ("tokens > 0 or success", true),
    ] {
        assert_eq!(holds(text, &fields), expected, "{text}");
    }
}

#[test]
fn when_errors_say_where_and_what_is_nearest() {
    for (text, span, part) in [
        ("", 0..0, "empty"),
        ("succes", 0..6, "did you mean `success`"),
        ("took > 'x'", 7..10, "a number"),
        ("took", 0..4, "compare it"),
        ("took =~ 'x'", 5..7, "cannot compare"),
        ("model_name < 'x'", 11..12, "cannot compare"),
        ("model_name == 5", 14..15, "single quotes"),
        ("model_name == \"x\"", 14..15, "single quotes"),
        ("success == 1", 11..12, "true or false"),
        ("(success", 0..1, "never closed"),
        ("success)", 7..8, "never opened"),
        ("success took", 8..12, "expected `and`"),
        ("took > 1s", 7..9, "not a number"),
        ("took = 1", 5..6, "`==`"),
        ("success && success", 8..9, "`and`"),
        ("model_name =~ '('", 14..17, "regular expression"),
        ("model_name == 'x", 14..16, "never closed"),
        ("took >", 6..6, "missing at the end"),
        ("success and", 11..11, "missing at the end"),
        ("1 < took", 0..1, "begins with its field"),
        ("wörld == 1", 0..1, "no field"),
    ] {
        let error = Condition::parse(text, &generation()).expect_err(text);
        assert_eq!(error.span, span, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let deep = format!("{}success{}", "(".repeat(500), ")".repeat(500));
    assert!(Condition::parse(&deep, &generation()).is_err());
    assert!(Condition::parse(&"not ".repeat(100_000), &generation()).is_err());
}

proptest::proptest! {
    #[test]
    fn when_any_text_is_parsed_or_refused_with_a_place_inside_it(text in "[a-z_ ()'<>=!~.0-9\\\\\"é]{0,60}") {
        if let Err(error) = Condition::parse(&text, &generation()) {
            proptest::prop_assert!(error.span.end <= text.len() && text.is_char_boundary(error.span.start));
            proptest::prop_assert!(text.is_char_boundary(error.span.end), "{:?}", error);
        }
    }
}

fn derived(from: DeriveFrom, ty: FieldType, raw: &[FieldValue<'_>]) -> Vec<Option<String>> {
    let event = EventSpec { name: "e".into(), fields: vec![field("x?", ty)], derived: Vec::new(), keep: 0 };
    let plans = [derive::DerivePlan::new(&from, &event).expect("fits")];
    let mut memo = derive::Memo::default();
    // Twice: made, then remembered.
    let mut run = || -> Vec<Option<String>> {
        let one = |value: &FieldValue<'_>| {
            let fields: Fields<'_> = [*value].into_iter().collect();
            let texts = memo.derive(&plans, &fields);
            texts.get(0, &fields).map(|text| String::from_utf8(text.to_vec()).expect("UTF-8"))
        };
        raw.iter().map(one).collect()
    };
    let first = run();
    assert_eq!(first, run(), "a text is remembered as it was made");
    first
}

fn text(text: &str) -> FieldValue<'_> {
    FieldValue::Text(text.as_bytes())
}

#[test]
fn derive_steps_apply_in_their_order() {
    let some = |text: &str| Some(text.to_owned());
    let steps = |regex: Option<(&str, &str)>, class, map: &[(&str, &str)], default: Option<&str>, distinct_max| {
        DeriveFrom::Field {
            field: "x".into(),
            regex: regex.map(|(pattern, replace)| (pattern.into(), replace.into())),
            class,
            map: map.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            default: default.map(Into::into),
            distinct_max,
            other: "rest".into(),
        }
    };
    let missing = FieldValue::Missing;
    assert_eq!(derived(DeriveFrom::Const("c".into()), FieldType::Int, &[missing]), [some("c")]);
    assert_eq!(derived(from_field("x"), FieldType::String, &[text("a"), missing]), [some("a"), None]);
    assert_eq!(derived(from_field("x"), FieldType::Int, &[number("2e2"), missing]), [some("200"), None]);
    assert_eq!(derived(from_field("x"), FieldType::Bool, &[FieldValue::Bool(true)]), [some("true")]);
    let http = steps(None, Some(Class::Http), &[("5xx", "broken")], Some("none"), None);
    assert_eq!(
        derived(http, FieldType::Int, &[number("200"), number("599"), number("600"), number("-1"), missing]),
        [some("2xx"), some("broken"), some("other"), some("other"), some("none")]
    );
    let http = steps(Some(("code (\\d+)", "$1")), Some(Class::Http), &[], None, None);
    assert_eq!(
        derived(http, FieldType::String, &[text("code 404"), text("404"), text("x")]),
        [some("4xx"), some("4xx"), some("other")]
    );
    let replaced = steps(Some(("/users/(\\d+)(/.*)?", "/users/:id$2")), None, &[("/users/:id", "user")], None, None);
    assert_eq!(
        derived(replaced, FieldType::String, &[text("/users/7"), text("/users/7/posts"), text("/x/users/7")]),
        [some("user"), some("/users/:id/posts"), some("/x/users/7")]
    );
    let few = steps(None, None, &[("b", "a")], Some("z"), Some(2));
    assert_eq!(
        derived(few, FieldType::String, &[text("a"), text("b"), text("c"), text("d"), missing]),
        [some("a"), some("a"), some("c"), some("rest"), some("rest")]
    );
}

#[test]
fn derive_remembers_a_bounded_number_of_texts() {
    let event = generation();
    let plans: Vec<_> = event.derived.iter().map(|d| derive::DerivePlan::new(&d.from, &event).expect("fits")).collect();
    let mut memo = derive::Memo::default();
    for n in 0..40_000 {
        let name = format!("model {}", n % 20_000);
        let fields = values(&name, "1", n % 2 == 0, None);
        let texts = memo.derive(&plans, &fields);
        let expected = if n % 20_000 < 2 { name.as_str() } else { "other" };
        assert_eq!(texts.get(1, &fields), Some(expected.as_bytes()), "{n}");
        assert_eq!(texts.get(0, &fields), Some(if n % 2 == 0 { &b"success"[..] } else { b"error" }));
    }
    assert!(memo.heap_texts() < 20_000);
}

pub(super) fn declared(
    name: &str,
    kind: Kind,
    unit: Unit,
    scale: Scale,
    labels: &[&str],
) -> crate::rule::DeclaredMetric {
    crate::rule::DeclaredMetric {
        name: name.into(),
        namespace: String::new(),
        kind,
        help: "help".into(),
        unit,
        scale,
        labels: labels.iter().map(|label| (*label).into()).collect(),
        expose: crate::event::Expose { summary: true, histogram: false },
        quantiles: Arc::new([0.5]),
        digits: crate::sketch::Digits::Two,
        window_slices: 30,
        buckets: None,
        group: crate::event::Group::Main,
        idle: None,
        holds: None,
    }
}

fn feed(metric: usize, kind: Kind, value: Option<&str>, labels: &[(&str, &str)]) -> FeedSpec {
    FeedSpec {
        metric,
        kind,
        from: FeedSource::Event { event: "model_generation".into(), value: value.map(Into::into) },
        labels: labels.iter().map(|(label, from)| ((*label).into(), LabelSource::Field((*from).into()))).collect(),
        when: None,
        op: GaugeOp::Set,
        scale: 1.0,
    }
}

fn rules() -> Rules {
    let feeds = vec![
        feed(0, Kind::Counter, None, &[("model", "model"), ("status", "status")]),
        FeedSpec {
            when: Some("success".into()),
            ..feed(1, Kind::Distribution, Some("took"), &[("model", "model_name")])
        },
        FeedSpec { scale: 0.25, ..feed(2, Kind::Gauge, Some("tokens"), &[]) },
        feed(3, Kind::Set, Some("took"), &[("tokens", "tokens")]),
    ];
    let typed = TypedConfig { events: vec![generation()], feeds, ..TypedConfig::default() };
    Rules::new(RulesConfig {
        declared: vec![
            declared("generations_total", Kind::Counter, Unit::None, Scale::NANO, &["model", "status"]),
            declared("generation_seconds", Kind::Distribution, Unit::Seconds, Scale::NANO, &["model"]),
            declared("tokens_quarter", Kind::Gauge, Unit::None, Scale::MICRO, &[]),
            declared("durations", Kind::Set, Unit::None, Scale::ONE, &["tokens"]),
        ],
        typed,
        ..RulesConfig::default()
    })
    .expect("the rules fit")
}

#[test]
fn an_event_emits_what_its_feeds_say() {
    let rules = rules();
    let plan = rules.typed().event(b"model_generation").expect("declared");
    let mut scratch = Scratch::default();
    let raw = [text("m"), number("15.4"), FieldValue::Bool(true), number("10"), FieldValue::Missing];
    let mut fields = plan.fields();
    for (at, value) in raw.into_iter().enumerate() {
        fields[at] = plan.accept(at, value).expect("fits");
    }
    plan.run(&fields, Weight::new(number_of("2.5")).expect("a weight"), &mut scratch).expect("accepted");
    let amounts: Vec<Amount> = scratch.emitted().iter().map(|emitted| emitted.amount).collect();
    assert_eq!(
        amounts,
        [
            Amount::Count { whole: 2, nanos: 500_000_000 },
            Amount::Units { units: 15_400_000, is_clamped: false },
            Amount::Set { value: 2.5, units: 2_500_000 },
            Amount::Member(crate::sketch::member_hash(b"0.0154")),
        ]
    );
    let labels: Vec<String> = scratch
        .emitted()
        .iter()
        .map(|emitted| {
            let feed = &plan.feeds()[emitted.feed];
            format!("{:?}", rules.labels_of_feed(SourceIndex(0), feed, scratch.key(emitted)).expect("labels"))
        })
        .collect();
    assert_eq!(labels, [r#"{"model": "m", "status": "success"}"#, r#"{"model": "m"}"#, "{}", r#"{"tokens": "10"}"#]);
    // `when` does not hold, `tokens` is missing: its label is left out, its value makes no sample.
    (fields[2], fields[3]) = (FieldValue::Bool(false), FieldValue::Missing);
    plan.run(&fields, Weight::ONE, &mut scratch).expect("accepted");
    let feeds: Vec<usize> = scratch.emitted().iter().map(|emitted| emitted.feed).collect();
    assert_eq!(feeds, [0, 3]);
    let last = &scratch.emitted()[1];
    assert!(rules.labels_of_feed(SourceIndex(0), &plan.feeds()[3], scratch.key(last)).expect("labels").is_empty());
}

fn number_of(text: &str) -> Number {
    Number::parse(text.as_bytes()).expect("a number")
}

#[test]
fn an_event_is_refused_whole_and_the_field_is_named() {
    let rules = rules();
    let plan = rules.typed().event(b"model_generation").expect("declared");
    let mut scratch = Scratch::default();
    let check = |at: usize, value: FieldValue<'_>, reason: RejectReason, words: &str, scratch: &mut Scratch| {
        let mut fields = plan.fields();
        let raw = [text("m"), number("15.4"), FieldValue::Bool(true), number("10"), FieldValue::Missing];
        let mut fault = None;
        for (place, given) in raw.into_iter().enumerate() {
            let given = if place == at { value } else { given };
            match plan.accept(place, given) {
                Ok(value) => fields[place] = value,
                Err(found) => {
                    fields[place] = given;
                    fault = Some(found);
                }
            }
        }
        let fault = fault.unwrap_or_else(|| plan.run(&fields, Weight::ONE, scratch).expect_err(words));
        assert_eq!((fault.reason, fault.field), (reason, Some(at)), "{words}");
        let described = plan.describe(fault, &fields);
        assert!(described.contains(words) && described.contains("model_generation"), "{described}");
        assert!(scratch.emitted().is_empty());
    };
    check(0, FieldValue::Missing, RejectReason::MissingField, "\"model_name\" (string) is missing", &mut scratch);
    check(0, number("1"), RejectReason::WrongType, "no string but a number", &mut scratch);
    check(1, FieldValue::Bool(true), RejectReason::WrongType, "no milliseconds but a bool", &mut scratch);
    check(1, number("-1"), RejectReason::Negative, "\"took\"", &mut scratch);
    check(3, number("1.5"), RejectReason::WrongType, "\"tokens\" is no int", &mut scratch);
    check(3, number("1e30"), RejectReason::OutOfRange, "\"tokens\"", &mut scratch);
    let long = "x".repeat(2000);
    check(0, text(&long), RejectReason::LabelTooLong, "\"model_name\"", &mut scratch);
    assert_eq!(Weight::new(number_of("0.5")), Err(RejectReason::BadWeight));
    assert_eq!(Weight::new(number_of("1048577")), Err(RejectReason::BadWeight));
    assert_eq!(Weight::new(number_of("3")).map(Weight::cells), Ok(3 * 4096));
}

#[test]
fn timestamps_are_read_by_size_or_as_rfc3339() {
    let seconds = |value: FieldValue<'_>| match value.accept(FieldType::Timestamp) {
        Ok(FieldValue::Number(number)) => {
            let mut out = Vec::new();
            number.put_canonical(&mut out);
            Ok(String::from_utf8(out).expect("ASCII"))
        }
        Ok(other) => panic!("{other:?}"),
        Err(reason) => Err(reason),
    };
    assert_eq!(seconds(number("1700000000123")), Ok("1700000000.123".into()));
    assert_eq!(seconds(text("2023-11-14T22:13:20.5Z")), Ok("1700000000.5".into()));
    assert_eq!(seconds(text("yesterday")), Err(RejectReason::BadTimestamp));
    assert_eq!(seconds(FieldValue::Bool(true)), Err(RejectReason::WrongType));
}

#[test]
fn keys_are_found_in_any_order_and_depth() {
    let mut event = generation();
    event.fields[1].path = vec!["payload".into(), "timing".into(), "took_ms".into()];
    event.fields[2].path = vec!["payload".into(), "ok".into()];
    let nodes = keys::tree(&event).expect("a tree");
    let Some(Key::Nested(payload)) = nodes[0].find(b"payload") else { panic!("an object") };
    let Some(Key::Nested(timing)) = nodes[payload].find(b"timing") else { panic!("an object") };
    assert_eq!(nodes[timing].find(b"took_ms"), Some(Key::Field(1)));
    assert_eq!(nodes[payload].find(b"ok"), Some(Key::Field(2)));
    assert_eq!(nodes[0].find(b"took"), None);
    let mut order = KeyOrder::default();
    for keys in [["code", "model_name", "x"], ["code", "model_name", "x"], ["model_name", "code", "code"]] {
        order.begin(&nodes[0]);
        for key in keys {
            assert_eq!(order.find(&nodes[0], key.as_bytes()), nodes[0].find(key.as_bytes()), "{key}");
        }
    }
    event.fields[0].path = vec!["payload".into()];
    assert!(keys::tree(&event).is_err(), "a value cannot be an object as well");
}

#[test]
fn statsd_names_feed_by_pattern() {
    let statsd = |pattern: &str, labels: &[(&str, &str)], scale| FeedSpec {
        from: FeedSource::Statsd { pattern: pattern.into() },
        labels: labels.iter().map(|(label, text)| ((*label).into(), LabelSource::Template((*text).into()))).collect(),
        scale,
        ..feed(0, Kind::Distribution, None, &[])
    };
    let mut glob = statsd("api.*.latency", &[("endpoint", "$1")], 1.0);
    glob.labels.push(("region".into(), LabelSource::Own));
    let mut regex = statsd("/^db\\.(\\w+)\\.(.*)$/", &[("endpoint", "${2}_$1")], 1e3);
    regex.labels.push(("region".into(), LabelSource::Const("all".into())));
    let typed = TypedConfig { feeds: vec![glob, regex], ..TypedConfig::default() };
    let labels = ["endpoint", "region"];
    let rules = Rules::new(RulesConfig {
        declared: vec![declared("api_latency_seconds", Kind::Distribution, Unit::Seconds, Scale::NANO, &labels)],
        typed,
        ..RulesConfig::default()
    })
    .expect("the rules fit");
    let resolve = |name: &str, wire, tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        rules.resolve(SourceIndex(0), name.as_bytes(), wire, tags).map(|found| {
            (
                found.metric.name.to_string(),
                format!("{:?}", found.labels),
                found.input_exponent + found.shift,
                found.labels_dropped,
            )
        })
    };
    use crate::event::WireType::{Count, Timing};
    for _ in 0..2 {
        assert_eq!(
            resolve("api.login.latency", Timing, &[("region", "eu"), ("env", "x"), ("endpoint", "y")]),
            Ok(("api_latency_seconds".into(), r#"{"endpoint": "login", "region": "eu"}"#.into(), 6, 1))
        );
    }
    assert_eq!(resolve("api.login.latency", Timing, &[]), Err(RejectReason::LabelMismatch));
    assert_eq!(
        resolve("db.read.users.all", Timing, &[]).map(|found| (found.1, found.2)),
        Ok((r#"{"endpoint": "users.all_read", "region": "all"}"#.into(), 9))
    );
    assert_eq!(resolve("api.a.b.latency", Timing, &[]).map(|found| found.0), Ok("api_a_b_latency_seconds".into()));
    assert_eq!(resolve("api.login.latency", Count, &[]).map(|found| found.0), Ok("api_login_latency_total".into()));
    assert_eq!(
        resolve("api_latency_seconds", Timing, &[("endpoint", "e"), ("region", "r")]).map(|found| found.0),
        Ok("api_latency_seconds".into()),
        "its own name feeds it too"
    );
}
