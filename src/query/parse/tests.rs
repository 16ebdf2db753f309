//! What is refused, with which words, and where the finger points.

use super::*;

/// `text` has the faulty place between « and ».
fn check(marked: &str, word: &str) {
    let text = marked.replace(['«', '»'], "");
    let start = marked.find('«').expect("a place is marked");
    let end = marked.find('»').expect("a place is marked") - '«'.len_utf8();
    let error = Expression::parse(&text).expect_err(&text);
    assert!(error.message.contains(word), "{text}: {}", error.message);
    assert_eq!((error.span.start, error.span.end), (start, end), "{text}: {}", error.message);
}

#[test]
fn a_syntax_error_is_pointed_at() {
    check("sum«(»rate(x[5m])", "never closed");
    check("x + «»", "found the end");
    check("x + «*» y", "expected an expression");
    check("x «y»", "expected an operator");
    check("x{a=\"b\" «c»=\"d\"}", "`,` or `}`");
    check("x{a=«b»}", "in quotes");
    check("x{a«\"b\"»}", "`=`, `!=`, `=~` or `!~`");
    check("x«{»a=\"b\"", "never closed");
    check("x{a=«\"b}»", "never closed");
    check("x «)» + y", "never opened");
    check("rate(x[«]»)", "a duration");
    check("rate(x[5m«)»", "`]`");
    check("rate(x[«5q»])", "neither a number nor a duration");
    check("x offset «y»", "a duration");
    check("x @ «y»", "seconds");
    check("sum by «x» (y)", "label names");
    check("x + on (a«=»b) y", "`,` or `)`");
    check("(x«,» y)", "comma");
    check("x «$» y", "no meaning");
    check("x{a=~«\"(\"»}", "not a regular expression");
    check("x + «and» y", "expected an expression");
    check("«»", "empty");
}

#[test]
fn errors_name_the_function() {
    check("1 + «foo»(x)", "there is no function `foo`");
    check("sum(«mad_over_time»(x[5m]))", "`mad_over_time` is not supported");
    check("«limitk»(2, x)", "`limitk` is not supported");
    check("«info»(x)", "`info` is not supported");
    check("«rate»(x)", "matrix");
    check("«label_join»(x, \"0\", \",\")", "not a label name");
    check("«label_replace»(x, \"a\", \"b\", \"c\", \"(\")", "regular expression");
    check("«count_values»(\"a b\", x)", "not a label name");
}

#[test]
fn lines_and_columns_are_counted_from_one() {
    let error = Expression::parse("sum(\n  é«").unwrap_err();
    assert_eq!((error.span.line, error.span.column), (2, 3));
    assert_eq!(error.to_string().split(' ').next(), Some("2:3:"));
    let error = Expression::parse("").unwrap_err();
    assert_eq!((error.span.start, error.span.line, error.span.column), (0, 1, 1));
}

#[test]
fn what_prometheus_takes_is_taken() {
    for text in [
        "sum by (a) (x)",
        "sum(x) by (a,)",
        "sum without() (x)",
        "x{a=\"b\",}",
        "{__name__=\"x\"}",
        "{\"x.y\", a=\"b\"}",
        "x # comment ( [ {\n + y",
        "x[1h30m] offset -5m @ 1600000000.5",
        "rate(x[5m] @ end() offset 1h)",
        "x / on (a) group_left (b) y",
        "a:b:c{d!~`e\\.f`}",
        "1e3 + 0x1F + .5 + 5. + Inf + NaN - -3",
        "max_over_time(rate(x[5m])[1h:])",
        "x == bool 1",
        "\"text\"",
        "x[5m]",
        "sum + sum",
        "histogram_quantile(0.9, x)",
        "time() % 86400 / 3600",
        "clamp(x, 0, 1) atan2 y",
    ] {
        if let Err(error) = Expression::parse(text) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn spellings_of_one_selector_are_one() {
    let expression =
        Expression::parse("x{a=\"1\",b=~\"2\"} + x{b=~\"2\",a=\"1\"} + {__name__=\"x\",a=\"1\",b=~\"2\"}").unwrap();
    assert_eq!(expression.selectors().len(), 1);
}
