//! Tables of every form, and the properties that hold for all bytes.

use super::*;
use proptest::prelude::*;

fn sample(line: &str) -> Line<'_> {
    match parse(line.as_bytes()) {
        Ok(Parsed::Sample(line)) => line,
        other => panic!("{line}: {other:?}"),
    }
}

fn numbers(line: &Line<'_>) -> Vec<f64> {
    values(line).map(|value| value.expect("parse has read it").to_f64()).collect()
}

#[track_caller]
fn refused(line: &str, reason: RejectReason) {
    assert_eq!(parse(line.as_bytes()), Err(reason), "{line}");
}

/// A line, and the parts it has: name, values, type, tags.
#[track_caller]
fn check<'a>(line: &'a str, name: &str, numbers_expected: &[f64], wire: WireType, tags: &str) -> Line<'a> {
    let found = sample(line);
    assert_eq!(found.name, name.as_bytes(), "{line}");
    assert_eq!(numbers(&found), numbers_expected, "{line}");
    assert_eq!(found.value.to_f64(), numbers_expected[0], "{line}");
    assert_eq!(found.packed, numbers_expected.len() > 1, "{line}");
    assert_eq!((found.wire, found.tags), (wire, tags.as_bytes()), "{line}");
    found
}

#[test]
fn captured_lines_of_real_clients() {
    let buffer = b"a.b:1|c|#k:v,service:svc1\ng:1|g|#service:svc1|T1700000000\n_e{1,5}:T|hello|#service:svc1\n\
        _sc|svc|0|#service:svc1|m:ok\n\ny:3.200000|ms";
    let mut at = 0;
    let mut found = Vec::new();
    while let Some(item) = parse_next(buffer, &mut at) {
        found.push(item.expect("real clients write well-formed lines"));
    }
    assert_eq!(at, buffer.len());
    assert_eq!(found.len(), 5);
    check("a.b:1|c|#k:v,service:svc1", "a.b", &[1.0], WireType::Count, "k:v,service:svc1");
    assert_eq!(found[0], Parsed::Sample(sample("a.b:1|c|#k:v,service:svc1")));
    let gauge = check("g:1|g|#service:svc1|T1700000000", "g", &[1.0], WireType::Gauge, "service:svc1");
    assert_eq!(gauge.time, Some(1_700_000_000));
    assert_eq!(found[1], Parsed::Sample(gauge));
    let Parsed::Event(event) = found[2] else { panic!("{:?}", found[2]) };
    assert_eq!((event.title, event.text), (&b"T"[..], &b"hello"[..]));
    assert_eq!(event.details(), EventDetails { tags: b"service:svc1", ..EventDetails::default() });
    let Parsed::Check(status) = found[3] else { panic!("{:?}", found[3]) };
    assert_eq!((status.name, status.status), (&b"svc"[..], CheckStatus::Ok));
    assert_eq!(status.details(), CheckDetails { tags: b"service:svc1", message: b"ok", ..CheckDetails::default() });
    assert_eq!(found[4], Parsed::Sample(check("y:3.200000|ms", "y", &[3.2], WireType::Timing, "")));
    // hot-shots with a container id, and its distribution of an array.
    let hot = check("h:7|h|@0.5|#a:b|c:in-6536", "h", &[7.0], WireType::Histogram, "a:b");
    assert_eq!((hot.weight, hot.unknown_fields), (8192, 0));
    refused("d:1,2|d", RejectReason::BadValue);
    // etsy clients: a relative gauge, and an absolute negative one as two lines.
    assert!(sample("gauge:+3|g").value.has_sign());
    assert!(!sample("gauge:0|g").value.has_sign());
    assert!(sample("gauge:-3|g").value.has_sign());
}

#[test]
fn every_type_and_field_in_any_order() {
    check("n:1|c", "n", &[1.0], WireType::Count, "");
    check("n:-1.5|g", "n", &[-1.5], WireType::Gauge, "");
    check("n:2|ms", "n", &[2.0], WireType::Timing, "");
    check("n:-2|h", "n", &[-2.0], WireType::Histogram, "");
    check("n:1e3|d|#", "n", &[1000.0], WireType::Distribution, "");
    check("song.length:240:234|h|@0.5", "song.length", &[240.0, 234.0], WireType::Histogram, "");
    let full = "n:1:2:3|c|T1656581400|card:low|#a:b,c|e:it-false|@0.25|c:ci-1";
    let line = check(full, "n", &[1.0, 2.0, 3.0], WireType::Count, "a:b,c");
    assert_eq!((line.time, line.weight, line.unknown_fields), (Some(1_656_581_400), 16_384, 0));
    assert_eq!(line.rate.to_f64(), 0.25);
    // Strange but harmless: unknown fields, empty ones, no content, a time on a timing.
    let line = check("n:1|ms|x|zz:1||T12|T|#t", "n", &[1.0], WireType::Timing, "t");
    assert_eq!((line.time, line.unknown_fields), (None, 5));
    // The last of a repeated field counts.
    assert_eq!(check("n:1|c|@0.5|#a|#b|@0.25", "n", &[1.0], WireType::Count, "b").weight, 16_384);
    check("n:1|c|#a:b\r", "n", &[1.0], WireType::Count, "a:b");
    check("n:1|c\r", "n", &[1.0], WireType::Count, "");
    check("n:1|c|@0.5|#a\r\r", "n", &[1.0], WireType::Count, "a");
    check("имя:1|c|#ключ:знач", "имя", &[1.0], WireType::Count, "ключ:знач");
    assert_eq!(sample(&format!("n:1|c{}", "|x".repeat(300))).unknown_fields, 255);
}

#[test]
fn set_members_are_never_split() {
    let line = sample("users:a:b,c|s|#x:y|@0.5");
    assert_eq!((line.wire, line.values, line.packed), (WireType::Set, &b"a:b,c"[..], false));
    assert_eq!((line.value, line.tags), (Number::ZERO, &b"x:y"[..]));
    refused("users:|s", RejectReason::BadValue);
}

#[test]
fn what_is_refused_and_why() {
    use RejectReason::*;
    for line in ["", "name", "name|c", "name:1", "|c", "na|me:1|c", "\r"] {
        refused(line, Malformed);
    }
    refused(":1|c", EmptyName);
    refused(&format!("{}:1|c", "n".repeat(201)), NameTooLong);
    sample(&format!("{}:1|c", "n".repeat(200)));
    for line in ["n:1|", "n:1|x", "n:1|cc", "n:1|m", "n:1|mss", "n:1||#a", "n:1|C"] {
        refused(line, UnknownType);
    }
    for line in ["n:|c", "n:x|c", "n:1:|c", "n::1|c", "n:1:x|h", "n: 1|c", "n:0x10|c", "n:1_0|g", "n:--1|g", "n:+|g"] {
        refused(line, BadValue);
    }
    for line in ["n:NaN|g", "n:-inf|h", "n:1:infinity|d"] {
        refused(line, NotFinite);
    }
    for line in ["n:-1|c", "n:-0.5|ms", "n:1:-1|ms"] {
        refused(line, Negative);
    }
    sample("n:-0|c");
    for rate in ["0", "-0.5", "1.1", "nan", "", "x", "1e-7", "inf", "+0.5x"] {
        refused(&format!("n:1|c|@{rate}"), BadRate);
    }
    assert_eq!(sample("n:1|c|@1").weight, WEIGHT_ONE);
    assert_eq!(sample("n:1|c|@1.0").rate, Number::ONE);
    assert_eq!(sample("n:1|h|@0.3").weight, 13_653);
    assert_eq!(sample("n:1|h|@0.00000095367431640625").weight, 1 << 32);
    for time in ["", "0", "-5", "1.5", "x", "99999999999999999999"] {
        refused(&format!("n:1|g|T{time}"), BadTimestamp);
    }
    refused("n:+1|g|T5", GaugeOperationWithTime);
    refused("n:1:-1|g|T5", GaugeOperationWithTime);
    assert_eq!(sample("n:+1|c|T5").time, Some(5));
    for line in ["_e{", "_e{1,1}", "_e{1,1}:", "_e{1,1}:ab|c", "_e{0,1}:|c", "_e{1,2}:a|b", "_e{1,1}:a|bc", "_e{1}:a|b"]
    {
        refused(line, BadEvent);
    }
    for line in ["_sc|", "_sc|n", "_sc||0", "_sc|n|4", "_sc|n|", "_sc|n|00"] {
        refused(line, BadEvent);
    }
    // Only the whole prefix makes an event or a check: these are names.
    check("_e:1|c", "_e", &[1.0], WireType::Count, "");
    check("_sc:1|c", "_sc", &[1.0], WireType::Count, "");
}

#[test]
fn events_count_bytes_and_keep_escapes() {
    let line =
        "_e{5,11}:títl|a|b\\nc: ⚡|d:1700000000|h:web|k:key|p:low|s:src|t:error|#a:b,c|c:ci|card:low|z:1|d:x|p:mid";
    let Ok(Parsed::Event(event)) = parse(line.as_bytes()) else { panic!("{:?}", parse(line.as_bytes())) };
    assert_eq!((event.title, event.text), ("títl".as_bytes(), "a|b\\nc: ⚡".as_bytes()));
    let expected = EventDetails {
        time: Some(1_700_000_000),
        host: b"web",
        aggregation_key: b"key",
        priority: Priority::Low,
        source_type: b"src",
        alert: AlertType::Error,
        tags: b"a:b,c",
        unknown_fields: 3,
    };
    assert_eq!(event.details(), expected);
    let Ok(Parsed::Event(event)) = parse(b"_e{1,0}:t|") else { panic!("an empty text is allowed") };
    assert_eq!((event.text, event.details()), (&b""[..], EventDetails::default()));
    // Would be a counter if the line began otherwise.
    let long = format!("_e{{1,1}}:1|c|#{}\n", "t".repeat(80));
    assert!(matches!(parse_next(long.as_bytes(), &mut 0), Some(Ok(Parsed::Event(_)))));
}

#[test]
fn checks_have_four_states() {
    for (code, status) in
        [CheckStatus::Ok, CheckStatus::Warning, CheckStatus::Critical, CheckStatus::Unknown].into_iter().enumerate()
    {
        let line = format!("_sc|db.up|{code}|d:5|h:web|#a:b|m:it: failed|c:x|q");
        let Ok(Parsed::Check(check)) = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!((check.name, check.status, check.status as usize), (&b"db.up"[..], status, code));
        let details = check.details();
        assert_eq!((details.time, details.host, details.tags), (Some(5), &b"web"[..], &b"a:b"[..]));
        assert_eq!((details.message, details.unknown_fields), (&b"it: failed"[..], 1));
    }
}

#[test]
fn the_key_holds_no_other_field() {
    let plain = sample("n:1|c|#a:b");
    for line in ["n:2|c|@0.5|#a:b", "n:1:2|c|c:x|#a:b|T5", "n:1|c|e:y|#a:b|card:low|zz"] {
        let other = sample(line);
        assert_eq!((other.name, other.wire, other.tags), (plain.name, plain.wire, plain.tags));
        let hash = |line: &Line<'_>| key_hash(line.name, line.wire, line.tags, 9);
        assert_eq!(hash(&other), hash(&plain));
    }
}

#[test]
fn empty_lines_are_skipped() {
    let lines: Vec<_> = Lines::new(b"\n\r\na\r\n\n\nb\n").collect();
    assert_eq!(lines, [b"a", b"b"]);
    assert_eq!(Lines::new(b"").count() + Lines::new(b"\n").count(), 0);
    let mut at = 0;
    assert_eq!(parse_next(b"\n\r\n", &mut at), None);
    assert_eq!(at, 3);
    assert_eq!(parse_next(b"", &mut 7), None);
}

/// What `parse_next` gives for a buffer must be what `parse` gives for its lines, and what the general path
/// alone gives.
fn agree(buffer: &[u8]) -> Result<(), TestCaseError> {
    let mut at = 0;
    let mut lines = Lines::new(buffer);
    loop {
        let line = lines.next();
        let expected = line.map(|line| general::parse(line).map_err(|reason| (reason, line)));
        prop_assert_eq!(line.map(|line| parse(line).map_err(|reason| (reason, line))), expected);
        let found = parse_next(buffer, &mut at);
        prop_assert_eq!(&found, &expected);
        if found.is_none() {
            break;
        }
    }
    prop_assert_eq!(at, buffer.len());
    Ok(())
}

fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,9}",
        "[0-9]{0,6}\\.[0-9]{0,6}",
        "[+-]?[0-9]{1,5}(\\.[0-9]{1,5})?",
        "[0-9]{1,25}\\.[0-9]{1,25}(e-?[0-9]{1,3})?",
        "[0-9.e+-]{0,10}",
        "nan|inf|-Infinity|1,2|0x1",
    ]
}

fn line_text() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        "#[a-z:,]{0,90}",
        "@0?\\.[0-9]{1,3}",
        "T[0-9]{1,11}",
        "c:[a-z-]{0,9}",
        "card:low",
        "[a-z#@T:]{0,4}"
    ];
    let values = proptest::collection::vec(number_text(), 1..3).prop_map(|values| values.join(":"));
    let kind = prop_oneof![9 => "c|g|ms|h|d|s", 1 => "[a-z]{0,3}"];
    let name = prop_oneof![9 => "[a-z._]{1,40}", 1 => "[a-z._:{]{0,70}", 1 => "_e\\{1,1\\}"];
    (name, values, kind, proptest::collection::vec(field, 0..4), "(\r?\n)?").prop_map(
        |(name, values, kind, fields, end)| {
            let fields: String = fields.iter().flat_map(|field| ["|", field]).collect();
            format!("{name}:{values}|{kind}{fields}{end}")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn fast_and_general_agree_on_lines(lines in proptest::collection::vec(line_text(), 1..8)) {
        agree(lines.concat().as_bytes())?;
    }

    #[test]
    fn fast_and_general_agree_on_damaged_lines(
        lines in proptest::collection::vec(line_text(), 1..5),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(b'|'), Just(b':'), Just(b'\n'), Just(b'#'), Just(b'.'), Just(b'_'), Just(b'\r'), any::<u8>()]), 0..6),
    ) {
        let mut bytes = lines.join("\n").into_bytes();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        agree(&bytes)?;
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in proptest::collection::vec(prop_oneof![
            2 => any::<u8>(), 3 => proptest::sample::select(b"_esc{}|:#@T0123456789.-+,\n\rabm".to_vec())], 0..300),
    ) {
        agree(&bytes)?;
        for line in Lines::new(&bytes) {
            match parse(line) {
                Ok(Parsed::Sample(line)) => {
                    tags(line.tags).for_each(drop);
                    if line.wire != WireType::Set {
                        prop_assert!(values(&line).all(|value| value.is_ok_and(|v| v.to_f64().is_finite())));
                        let counted = line.value.scaled_by_rate(line.rate);
                        prop_assert!(counted.is_err() || counted.is_ok_and(|(_, nano)| nano.abs() < 1_000_000_000));
                    }
                    prop_assert!((WEIGHT_ONE..=1 << 32).contains(&line.weight));
                }
                Ok(Parsed::Event(event)) => drop(event.details()),
                Ok(Parsed::Check(check)) => drop(check.details()),
                Ok(Parsed::Json(line)) => assert_eq!(line[0], b'{'),
                Err(_) => {}
            }
        }
        // Also where the general path is entered with a newline inside.
        let _ = parse(&bytes);
    }

    #[test]
    fn what_is_written_is_read_back(
        name in "[a-zA-Z0-9._/ -]{1,200}",
        wire in proptest::sample::select(vec![WireType::Count, WireType::Gauge, WireType::Timing,
            WireType::Histogram, WireType::Distribution]),
        numbers in proptest::collection::vec((any::<bool>(), any::<u64>(), -30i16..30), 1..5),
        rate in proptest::option::of(1u64..1000),
        tags in "[a-z0-9_:.,-]{0,120}",
        time in proptest::option::of(1i64..5_000_000_000),
    ) {
        let absolute = matches!(wire, WireType::Count | WireType::Timing | WireType::Gauge);
        let numbers: Vec<Number> =
            numbers.iter().map(|(negative, m, e)| Number::from_decimal(*negative && !absolute, *m, *e)).collect();
        let mut text = Vec::new();
        for number in &numbers {
            if !text.is_empty() {
                text.push(b':');
            }
            number.write_to(&mut text);
        }
        let rate = rate.map(|rate| Number::from_decimal(false, rate, -3));
        let time = time.filter(|_| matches!(wire, WireType::Count | WireType::Gauge));
        let mut out = Vec::new();
        write_line(&mut out, name.as_bytes(), &text, wire, rate, tags.as_bytes(), time);
        prop_assume!(!name.starts_with("_e{"));
        let Some(Ok(Parsed::Sample(line))) = parse_next(&out, &mut 0) else { panic!("{:?}", String::from_utf8(out)) };
        prop_assert_eq!(line.name, name.as_bytes());
        prop_assert_eq!(line.tags, tags.as_bytes());
        prop_assert_eq!((line.wire, line.time, line.packed), (wire, time, numbers.len() > 1));
        prop_assert_eq!(line.rate.to_f64(), rate.map_or(1.0, Number::to_f64));
        let found: Vec<Number> = values(&line).map(|value| value.expect("written by us")).collect();
        for (found, wanted) in found.iter().zip(&numbers) {
            // u64::MAX has a digit more than are kept, so compare what numbers answer.
            prop_assert_eq!(found.to_f64(), wanted.to_f64());
            prop_assert_eq!(found.to_units(6), wanted.to_units(6));
            prop_assert_eq!(found.has_sign(), wanted.has_sign());
        }
        prop_assert_eq!(found.len(), numbers.len());
    }
}
