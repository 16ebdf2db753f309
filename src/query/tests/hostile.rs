//! No text makes it panic, overflow the stack, or take long.

use super::*;
use proptest::prelude::*;

/// Parses and, if it is an expression, evaluates in both ways.
fn survive(memory: &Memory, text: &str) {
    match Expression::parse(text) {
        Ok(expression) => {
            let _ = evaluate(&expression, memory, at(300));
            let _ = evaluate_range(&expression, memory, at(100), at(400), 100_000_000_000);
        }
        Err(error) => {
            assert!(error.span.start <= error.span.end && error.span.end <= text.len(), "{text:?}: {error:?}");
            assert!(error.span.line >= 1 && error.span.column >= 1 && !error.message.is_empty());
            assert!(text.is_char_boundary(error.span.start) && text.is_char_boundary(error.span.end), "{text:?}");
        }
    }
}

fn small() -> Memory {
    let mut memory = Memory::new(10);
    for (name, kind) in
        [("orders_total", Kind::Counter), ("depth", Kind::Gauge), ("users", Kind::Set), ("load", Kind::Distribution)]
    {
        let metric = memory.declare(name, kind, |_| {});
        for region in ["eu", "us"] {
            let id = memory.series(&metric, &[("region", region)], at(0));
            for second in [1, 50, 120, 299] {
                match kind {
                    Kind::Counter => memory.increment(id, at(second), 1.0),
                    Kind::Gauge => memory.set(id, at(second), second as f64),
                    Kind::Set => memory.insert(id, at(second), region),
                    Kind::Distribution => memory.observe(id, at(second), second as f64, WEIGHT_ONE),
                }
            }
        }
    }
    memory
}

const WORDS: &[&str] = &[
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "'",
    "`",
    "\\",
    "=",
    "=~",
    "!~",
    "!=",
    "==",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "@",
    "#",
    "\n",
    " ",
    "é",
    "\u{0}",
    "5m",
    "1e300",
    "0x1F",
    "0xFFFFFFFFFFFFFFFFFFFFFFFFFF",
    "07777777777777777777777777777",
    "1e999999999",
    "584942417355y",
    "99999999999999999999999ms",
    "[18446744073709551616s]",
    "[4294967295y]",
    "1y2w",
    "9999999999999y",
    "Inf",
    "NaN",
    "offset",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "by",
    "without",
    "and",
    "or",
    "unless",
    "atan2",
    "sum",
    "topk",
    "rate",
    "count_values",
    "label_replace",
    "histogram_quantile",
    "start()",
    "end()",
    "fill",
    "limitk",
    "info",
    "\"(a{1000}){1000}\"",
    "depth",
    "orders_total",
    "load",
    "le",
    "[5m:1s]",
    "[1e300]",
    "offset 1e300",
    "@ 1e300",
    "@ -1e18",
    "\\x\u{e9}\u{e9}",
];

/// A mutation: (where, what, word).
type Edit = (prop::sample::Index, u8, prop::sample::Index);

fn mutated(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (place, what, word) in edits {
        let at = place.index(chars.len() + 1);
        match what % 4 {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 => drop(chars.splice(at..at, word.get(WORDS).chars())),
            2 if at < chars.len() => {
                let end = (at + word.index(12)).min(chars.len());
                let piece: Vec<char> = chars[at..end].to_vec();
                let to = (at * 7 + 3) % (chars.len() + 1);
                drop(chars.splice(to..to, piece));
            }
            _ => chars.truncate(at.max(1)),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn mutated_expressions_never_panic() {
    let memory = small();
    let strategy = (prop::sample::select(CORPUS), prop::collection::vec(any::<Edit>(), 1..6))
        .prop_map(|(text, edits)| mutated(text, &edits));
    let config = ProptestConfig { cases: 4_000, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |text| {
        survive(&memory, &text);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn words_in_any_order_never_panic() {
    let memory = small();
    let strategy = prop::collection::vec(prop::sample::select(WORDS), 0..12).prop_map(|words| words.concat());
    let spaced = prop::collection::vec(prop::sample::select(WORDS), 0..12).prop_map(|words| words.join(" "));
    let config = ProptestConfig { cases: 3_000, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&prop_oneof![strategy, spaced], |text| {
            survive(&memory, &text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn deep_and_long_texts_end_in_an_answer_or_an_error() {
    let memory = small();
    let deep = |open: &str, inner: &str, close: &str, n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    let mut texts = vec![
        deep("(", "1", ")", 64),
        deep("sum(", "depth", ")", 64),
        deep("-", "depth", "", 256),
        format!("depth{}", " + depth".repeat(256)),
        format!("depth{}", " or depth".repeat(256)),
        format!("1{}", " ^ 1".repeat(256)),
        format!("{}{}", deep("(", "depth", ")", 60), " + depth".repeat(250)),
        format!("depth{{{}}}", "region=~\"e.*\",".repeat(64)),
        format!("depth{{region=~\"{}\"}}", "a|".repeat(15_000)),
    ];
    for text in &texts {
        assert!(Expression::parse(text).is_ok(), "{}", &text[..40]);
    }
    let refused = [
        (deep("(", "1", ")", 65), "brackets"),
        (format!("depth{}", " + depth".repeat(257)), "operators"),
        (format!("depth{{{}}}", "region=~\"e.*\",".repeat(65)), "regular expressions"),
        ("x".repeat(40_000), "bytes"),
        ("depth{a=~\"(a{1000}){1000}\"}".to_owned(), "KiB"),
        ("depth[1e300]".to_owned(), "century"),
        ("depth offset -1e300".to_owned(), "century"),
    ];
    for (text, word) in refused {
        let error = Expression::parse(&text).expect_err(word);
        assert!(error.message.contains(word), "{error}");
        texts.push(text);
    }
    // On a test's stack of 2 MiB, which is the default of every thread.
    texts.iter().for_each(|text| survive(&memory, text));
}
