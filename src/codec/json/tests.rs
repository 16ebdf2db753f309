//! The scanner against `serde_json`, on texts that are JSON and on texts that nearly are.

use super::*;
use crate::event::{Timestamp, time};
use serde_json::Value as Tree;

/// Our reading as a tree; of a key that comes twice the last one counts, as in `serde_json`'s.
fn tree_of(value: Value<'_>) -> Result<Tree, JsonError> {
    Ok(match value {
        Value::Null => Tree::Null,
        Value::Bool(value) => Tree::Bool(value),
        Value::Number(number) => serde_json::json!(number.to_f64()),
        Value::Text(text) => Tree::String(plain(text)),
        Value::Object(bytes) => {
            let mut members = serde_json::Map::new();
            for member in Object::parse(bytes)? {
                let (key, value) = member?;
                members.insert(plain(key), tree_of(value)?);
            }
            Tree::Object(members)
        }
        Value::Array(bytes) => Tree::Array(
            Array::parse(bytes)?.map(|element| element.and_then(tree_of)).collect::<Result<_, JsonError>>()?,
        ),
    })
}

fn plain(text: Text<'_>) -> String {
    let mut out = Vec::new();
    text.unescape_into(&mut out);
    String::from_utf8(out).expect("a checked string is UTF-8")
}

/// Equal but for the last place of numbers: `serde_json` rounds fast instead of right.
fn same(ours: &Tree, theirs: &Tree) -> bool {
    match (ours, theirs) {
        (Tree::Number(a), Tree::Number(b)) => {
            let (a, b) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
            a == b || (a - b).abs() <= a.abs() * 1e-15
        }
        (Tree::Array(a), Tree::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Tree::Object(a), Tree::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => ours == theirs,
    }
}

/// The verdict and the values of a text are those of `serde_json`, read whole and read by members.
fn check_against_serde(bytes: &[u8]) {
    let theirs: Result<Tree, _> = serde_json::from_slice(bytes);
    let ours = Value::parse(bytes).and_then(tree_of);
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => assert!(same(ours, theirs), "{}: {ours} and {theirs}", shown()),
        (Err(_), Err(_)) => {}
        _ => panic!("{}: {ours:?} and {theirs:?}", shown()),
    }
    let by_member = Object::parse(bytes).and_then(|mut object| object.try_for_each(|member| member.map(|_| ())));
    assert_eq!(by_member.is_ok(), matches!(theirs, Ok(Tree::Object(_))), "{}: {by_member:?}", shown());
}

#[test]
fn an_event_is_pulled_member_by_member() {
    let text = br#" {"event":"model_generation","time":1763629375.25,"ok":true,"none":null, "tokens": -256,
        "nested":{"a":[1,{"b":2}]},"list":[1, 2],"name":"a\"b\u00e4\ud83d\ude00\n","d":"\u00fc"} "#;
    let members: Vec<_> = Object::parse(text).expect("an object").map(|member| member.expect("right")).collect();
    let keys: Vec<&[u8]> = members.iter().map(|(key, _)| key.raw).collect();
    let expected = ["event", "time", "ok", "none", "tokens", "nested", "list", "name", "d"];
    assert_eq!(keys, expected.map(str::as_bytes));
    assert_eq!(members[0].1, Value::Text(Text::plain(b"model_generation")));
    let Value::Number(time) = members[1].1 else { panic!("{:?}", members[1].1) };
    assert_eq!(time.to_f64(), 1_763_629_375.25);
    assert_eq!((members[2].1, members[3].1), (Value::Bool(true), Value::Null));
    let Value::Number(tokens) = members[4].1 else { panic!("{:?}", members[4].1) };
    assert_eq!((tokens.to_f64(), tokens.is_negative(), tokens.has_sign()), (-256.0, true, false));
    assert_eq!(members[5].1, Value::Object(br#"{"a":[1,{"b":2}]}"#));
    assert_eq!(members[6].1, Value::Array(b"[1, 2]"));
    let Value::Text(name) = members[7].1 else { panic!("{:?}", members[7].1) };
    assert_eq!(plain(name), "a\"bä😀\n");
    assert!(name.is("a\"bä😀\n".as_bytes()) && !name.is(b"a"));
}

#[test]
fn errors_say_what_and_where() {
    let check = |text: &[u8], kind: JsonErrorKind, offset: u32| {
        let error = Object::parse(text)
            .and_then(|mut object| object.try_for_each(|member| member.map(|_| ())))
            .expect_err("refused");
        assert_eq!((error.kind, error.offset), (kind, offset), "{}", String::from_utf8_lossy(text));
    };
    check(b"", JsonErrorKind::Ended, 0);
    check(b" 1", JsonErrorKind::NotAnObject, 1);
    check(b"[1]", JsonErrorKind::NotAnObject, 0);
    check(b"{", JsonErrorKind::Ended, 1);
    check(b"{\"a\"", JsonErrorKind::Ended, 4);
    check(b"{\"a\":1,}", JsonErrorKind::Unexpected, 7);
    check(b"{\"a\":1 \"b\":2}", JsonErrorKind::Unexpected, 7);
    check(b"{\"a\":1} x", JsonErrorKind::Trailing, 8);
    check(b"{\"a\":01}", JsonErrorKind::Number, 5);
    check(b"{\"a\":1.}", JsonErrorKind::Number, 7);
    check(b"{\"a\":-}", JsonErrorKind::Number, 6);
    check(b"{\"a\":1e999}", JsonErrorKind::NumberRange, 5);
    check(b"{\"a\":NaN}", JsonErrorKind::Unexpected, 5);
    check(b"{\"a\":nul}", JsonErrorKind::Unexpected, 8);
    check(b"{\"a\":\"x\ty\"}", JsonErrorKind::Control, 7);
    check(b"{\"a\":\"\\x\"}", JsonErrorKind::Escape, 6);
    check(b"{\"a\":\"\\ud800\"}", JsonErrorKind::Escape, 6);
    check(b"{\"a\":\"\xff\"}", JsonErrorKind::Utf8, 6);
    check(b"{'a':1}", JsonErrorKind::Unexpected, 1);
}

#[test]
fn depth_is_bounded_as_in_serde_json() {
    for depth in [1, 2, 126, 127, 128, 129, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let text = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            check_against_serde(text.as_bytes());
            check_against_serde(format!("{{\"x\":{text}}}").as_bytes());
            check_against_serde(format!("[{text}]").as_bytes());
        }
    }
}

#[test]
fn numbers_are_exact() {
    let number = |text: &str| match Value::parse(text.as_bytes()) {
        Ok(Value::Number(number)) => number,
        other => panic!("{text}: {other:?}"),
    };
    for text in [
        "0",
        "-0",
        "1",
        "-1.5",
        "15.4",
        "1e3",
        "2.5E-7",
        "123456789012345678901234567890",
        "0.1",
        "18446744073709551615",
        "9007199254740993",
        "1.7976931348623157e308",
        "5e-324",
        "1e-400",
        "0e999999999999",
        "-123456789.123456789",
        "9999999999999999999",
        "99999999999999999999",
    ] {
        let expected: f64 = text.parse().expect("a number");
        assert_eq!(number(text).to_f64().to_bits(), expected.to_bits(), "{text}");
        assert!(!number(text).has_sign(), "{text}");
    }
    assert_eq!(number("0.1").to_units(9), Ok(100_000_000));
    assert_eq!(number("1e-3").to_units(9), Ok(1_000_000));
    let mut text = Vec::new();
    number("-12.5").write_to(&mut text);
    assert_eq!(text, b"-12.5");
}

#[test]
fn times_in_every_form() {
    let time_of = |value: Value<'_>| match value {
        Value::Number(number) => time::from_epoch(number),
        Value::Text(text) => time::parse_rfc3339(text.unescaped(&mut Vec::new())),
        _ => None,
    };
    let at = |text: &str| Value::parse(text.as_bytes()).ok().and_then(time_of).map(|time| time.0);
    let base = 1_763_629_375_i64 * 1_000_000_000;
    for (text, expected) in [
        ("1763629375", Some(base)),
        ("1763629375.25", Some(base + 250_000_000)),
        ("1763629375250", Some(base + 250_000_000)),
        ("1763629375250.5", Some(base + 250_500_000)),
        ("1763629375250001", Some(base + 250_001_000)),
        ("1763629375250001002", Some(base + 250_001_002)),
        ("1.763629375e9", Some(base)),
        ("-1", Some(-1_000_000_000)),
        ("0", Some(0)),
        ("1e-300", Some(0)),
        ("1e300", None),
        ("1e19", None),
        ("\"2025-11-20T09:02:55Z\"", Some(base)),
        ("\"2025-11-20T09:02:55.25Z\"", Some(base + 250_000_000)),
        ("\"2025-11-20T09:02:55.250001002Z\"", Some(base + 250_001_002)),
        ("\"2025-11-20T10:32:55+01:30\"", Some(base)),
        ("\"2025-11-20T05:02:55-04:00\"", Some(base)),
        ("\"2025-11-20 09:02:55z\"", Some(base)),
        ("\"2025-11-20T09:02:55\\u005a\"", Some(base)),
        ("\"2024-02-29T00:00:00Z\"", Some(1_709_164_800_000_000_000)),
        ("\"2023-02-29T00:00:00Z\"", None),
        ("\"2025-11-20T09:02:55\"", None),
        ("\"2025-13-20T09:02:55Z\"", None),
        ("\"2025-11-20T24:02:55Z\"", None),
        ("\"yesterday\"", None),
        ("true", None),
    ] {
        assert_eq!(at(text), expected, "{text}");
    }
}

#[test]
fn times_are_what_jiff_reads() {
    let mut random = Random(7);
    for _ in 0..20_000 {
        let nanos = random.below(8_000_000_000) as i64 * 1_000_000_000 + random.below(1_000_000_000) as i64;
        let text = jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("in range").to_string();
        assert_eq!(time::parse_rfc3339(text.as_bytes()), Some(Timestamp(nanos)), "{text}");
    }
}

#[test]
fn bodies_come_apart() {
    let check = |body: &str, expected: &[&str]| {
        let events: Vec<&[u8]> = Events::of_body(body.as_bytes()).expect("a body").collect();
        assert_eq!(events, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), "{body}");
    };
    check("{\"a\":1}", &["{\"a\":1}"]);
    check("\n {\n \"a\":1\n}\r\n", &["{\n \"a\":1\n}"]);
    check("{\"a\":1}\r\n\r\n  \n{\"b\":2}\n", &["{\"a\":1}", "{\"b\":2}"]);
    check("{\"a\":1\n{\"b\":2}\nx", &["{\"a\":1", "{\"b\":2}", "x"]);
    check("{\"a\":1} {\"b\":2}", &["{\"a\":1} {\"b\":2}"]);
    check("[{\"a\":1}, {\"b\":[2]}\n, 3, \"]\" ]", &["{\"a\":1}", "{\"b\":[2]}", "3", "\"]\""]);
    check("[]", &[]);
    check("[ ]", &[]);
    for body in ["", " \n", "[{}", "[{},]", "[{\"a\":tru}]", "[] x"] {
        assert!(Events::of_body(body.as_bytes()).is_err(), "{body}");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn space(&mut self, out: &mut Vec<u8>) {
        if self.below(4) == 0 {
            out.extend_from_slice(self.choose(&[" ", "\n", "\r\n", "\t ", "  "]).as_bytes());
        }
    }

    fn string(&mut self, out: &mut Vec<u8>) {
        out.push(b'"');
        for _ in 0..self.below(6) {
            let piece = self.choose(&[
                "a",
                "model_name",
                "é",
                "😀",
                "\\n",
                "\\\"",
                "\\\\",
                "\\/",
                "\\u00e9",
                "\\ud83d\\ude00",
                "0123456789abcdef",
                "\u{7f}",
                " ",
                "\\u0000",
                "\u{fffd}",
            ]);
            out.extend_from_slice(piece.as_bytes());
        }
        out.push(b'"');
    }

    fn value(&mut self, depth: u32, out: &mut Vec<u8>) {
        let kind = self.below(if depth == 0 { 6 } else { 10 });
        match kind {
            0 => out.extend_from_slice(self.choose(&["true", "false", "null"]).as_bytes()),
            1 | 2 => self.string(out),
            3..6 => {
                let number = self.choose(&[
                    "0",
                    "-0",
                    "1",
                    "-1.5",
                    "15.4",
                    "1e3",
                    "2.5E-7",
                    "1e+2",
                    "123456789012345678901234567890",
                    "18446744073709551616",
                    "0.000123",
                    "1e-400",
                    "42",
                ]);
                out.extend_from_slice(number.as_bytes());
            }
            _ => {
                let is_object = kind < 8;
                out.push(if is_object { b'{' } else { b'[' });
                for place in 0..self.below(4) {
                    if place > 0 {
                        out.push(b',');
                    }
                    self.space(out);
                    if is_object {
                        self.string(out);
                        self.space(out);
                        out.push(b':');
                        self.space(out);
                    }
                    self.value(depth - 1, out);
                    self.space(out);
                }
                out.push(if is_object { b'}' } else { b']' });
            }
        }
    }

    fn mutate(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.below(2) {
            let at = self.below(text.len() as u64 + 1) as usize;
            let byte = match self.below(3) {
                0 => self.below(256) as u8,
                _ => {
                    let likely = b"\"\\{}[]:,0123456789eE+-.tfnu \n\t\x00\x1f\x80\xc3\xed";
                    likely[self.below(likely.len() as u64) as usize]
                }
            };
            match self.below(5) {
                0 => text.insert(at, byte),
                1 if at < text.len() => {
                    text.remove(at);
                }
                2 => text.truncate(at),
                3 if at < text.len() => {
                    let end = (at + 1 + self.below(8) as usize).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = self.below(text.len() as u64) as usize;
                    text.splice(to..to, piece);
                }
                _ if at < text.len() => text[at] = byte,
                _ => {}
            }
        }
    }
}

/// A million texts, most of them broken in one place: the same verdicts and the same values.
#[test]
fn texts_read_as_serde_json_reads_them() {
    let mut random = Random(20_261_120);
    let mut text = Vec::new();
    for case in 0..250_000 {
        text.clear();
        if case % 2 == 0 {
            random.value(4, &mut text);
        } else {
            text.push(b'{');
            for place in 0..1 + random.below(5) {
                if place > 0 {
                    text.push(b',');
                }
                random.string(&mut text);
                text.push(b':');
                random.value(3, &mut text);
            }
            text.push(b'}');
        }
        check_against_serde(&text);
        for _ in 0..3 {
            let mut broken = text.clone();
            random.mutate(&mut broken);
            check_against_serde(&broken);
        }
    }
}
