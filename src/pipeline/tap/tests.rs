//! Taps over a whole pipeline: handles, lines, commits.

use super::*;
use crate::pipeline::Pipeline;
use std::time::Duration;

const FILE: &str = r#"
name = "tapped"
[store]
path = ":memory:"
commit_every = "100ms"
max_size = "64MiB"
[sources.host]
type = "host"
every = "1h"
[events.order]
fields = { shop = "string", total = "float" }
[metrics.order_value]
type = "histogram"
help = "Value of orders"
buckets = [1, 10]
from = { event = "order", value = "total", labels = ["shop"] }
"#;

fn pipeline() -> Pipeline {
    Pipeline::builder().text(FILE).start().expect("it starts")
}

fn request(kinds: &[TapKind]) -> TapRequest {
    TapRequest { kinds: kinds.to_vec(), ..TapRequest::default() }
}

/// Items until so many came; the opening is left out.
fn items(tap: &mut Tap, count: usize) -> Vec<TapLine> {
    let mut found = Vec::new();
    for _ in 0..1000 {
        found.extend(tap.read().into_iter().filter(|line| !matches!(line, TapLine::Open { .. })));
        if found.len() >= count {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    found
}

#[test]
fn handles_show_samples_and_lines_show_all() {
    let pipeline = pipeline();
    let edges = vec!["process".to_owned(), "http".to_owned()];
    let kinds = [TapKind::Samples, TapKind::Events, TapKind::Rejects];
    let mut tap = pipeline.tap(&TapRequest { edges, ..request(&kinds) }).expect("a tap");
    assert!(!tap.is_idle(), "it has its opening to say");
    let opening = tap.read();
    let TapLine::Open { kinds, edges, unmatched, limit } = &opening[0] else { panic!("{opening:?}") };
    assert_eq!((kinds.len(), edges.len(), unmatched.len(), *limit), (3, 2, 0, TAP_LIMIT));
    assert!(tap.is_idle() && !tap.is_over());
    let histogram = pipeline.timing("took", &[("shop", "eu")]).expect("a handle");
    histogram.observe(0.25);
    let counter = pipeline.counter("orders", &[]).expect("a handle");
    counter.add_f64(2.5);
    pipeline.flush().expect("it commits");
    let found = items(&mut tap, 2);
    let value = |name: &str| {
        found.iter().find_map(|line| match line {
            TapLine::Sample { metric, value, edge, .. } if metric == name => Some((edge.clone(), *value)),
            _ => None,
        })
    };
    assert_eq!(value("took_seconds"), Some(("process".into(), Some(0.25))), "{found:?}");
    assert_eq!(value("orders_total"), Some(("process".into(), Some(2.5))), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    pipeline
        .lines(b"{\"event\":\"order\",\"shop\":\"eu\",\"total\":4}\n{\"event\":\"order\"}\n".to_vec())
        .expect("taken");
    let found = items(&mut tap, 3);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(matches!(&found[0], TapLine::Event { name, edge, .. } if name == "order" && edge == "http"));
    assert!(matches!(&found[1], TapLine::Sample { metric, value: Some(4.0), labels, .. }
        if metric == "order_value" && labels.get("shop").map(String::as_str) == Some("eu")));
    assert!(
        matches!(&found[2], TapLine::Reject { reason, hint, .. }
        if reason == "missing_field" && hint.contains("shop")),
        "{found:?}"
    );
}

#[test]
fn deltas_are_those_of_the_commit() {
    let pipeline = pipeline();
    let name = Some("orders_*".to_owned());
    let mut tap = pipeline.tap(&TapRequest { name, ..request(&[TapKind::Deltas]) }).expect("a tap");
    let lines = b"orders:3|c|#shop:eu\norders:4|c|#shop:eu\norders.took:40:60|ms\norders.open:7|g\norders.users:a|s\n";
    pipeline.lines(lines.to_vec()).expect("taken");
    let commit = pipeline.flush().expect("it commits");
    let found = items(&mut tap, 4);
    let of = |name: &str| {
        let mut all = found.iter().filter_map(|line| match line {
            TapLine::Delta { metric, figures, labels, commit, edge, .. } if metric == name => {
                assert_eq!(edge, STORE_EDGE);
                Some((*figures, labels.len(), *commit))
            }
            _ => None,
        });
        let first = all.next().unwrap_or_else(|| panic!("{name} in {found:?}"));
        assert!(all.next().is_none(), "{name} once in {found:?}");
        assert!(first.2 <= commit.0);
        (first.0, first.1)
    };
    let (figures, labels) = of("orders_total");
    assert_eq!((figures.sum, figures.count, labels), (Some(7.0), None, 1));
    let (figures, _) = of("orders_took_seconds");
    assert_eq!((figures.count, figures.sum), (Some(2), Some(0.1)));
    assert_eq!((figures.min, figures.max), (Some(0.04), Some(0.06)));
    let (figures, _) = of("orders_open");
    assert_eq!((figures.value, figures.count), (Some(7.0), Some(1)));
    assert_eq!(of("orders_users").0.value, Some(1.0));
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn of_more_rows_than_the_limit_some_are_drawn_and_the_rest_is_counted() {
    let pipeline = pipeline();
    let name = Some("many*".to_owned());
    let asked = TapRequest { name, limit: 20, ..request(&[TapKind::Deltas]) };
    let mut tap = pipeline.tap(&asked).expect("a tap");
    let lines: String = (0..500).map(|n| format!("many:1|c|#n:{n}\n")).collect();
    pipeline.lines(lines.into_bytes()).expect("taken");
    pipeline.flush().expect("it commits");
    let found = items(&mut tap, 20);
    let numbers: Vec<u32> = found
        .iter()
        .filter_map(|line| match line {
            TapLine::Delta { labels, .. } => labels["n"].parse().ok(),
            _ => None,
        })
        .collect();
    assert_eq!(numbers.len(), 20, "{found:?}");
    assert!(numbers.iter().any(|n| *n >= 100), "not only the first: {numbers:?}");
    let end = tap.end("enough");
    assert!(
        matches!(end.last(), Some(TapLine::End { shown: 20, left_out_by_limit: 480, left_out_by_queue: 0, reason })
            if reason == "enough"),
        "{end:?}"
    );
}

#[test]
fn a_count_ends_it() {
    let pipeline = pipeline();
    let asked = TapRequest { count: Some(3), ..request(&[TapKind::Events]) };
    let mut tap = pipeline.tap(&asked).expect("a tap");
    pipeline.lines(b"a:1|c\nb:1|c\nc:1|c\nd:1|c\n".to_vec()).expect("taken");
    assert_eq!(items(&mut tap, 3).len(), 3);
    assert!(tap.is_over() && tap.read().is_empty());
    assert!(matches!(tap.end("x").last(), Some(TapLine::End { shown: 3, reason, .. }) if reason.contains("asked for")));
}

#[test]
fn what_cannot_be_tapped_is_said() {
    let pipeline = pipeline();
    let refused = |request: TapRequest| pipeline.tap(&request).err().expect("no tap");
    let error = refused(TapRequest { edges: vec!["app*".into()], ..TapRequest::default() });
    let TapError::NoEdge { asked, known } = &error else { panic!("{error}") };
    assert_eq!(asked, "app*");
    assert!(known.contains(&"host".into()) && known.contains(&"http".into()), "{known:?}");
    // Deltas pass the store only.
    let error = refused(TapRequest { edges: vec!["host".into()], ..request(&[TapKind::Deltas]) });
    assert!(matches!(&error, TapError::NoEdge { known, .. } if known == &["store"]), "{error}");
    let error = refused(TapRequest { selector: Some("sum(x)".into()), ..TapRequest::default() });
    assert!(matches!(error, TapError::Request(_)), "{error}");
    for limit in [0, TAP_LIMIT_MAX + 1] {
        assert!(matches!(refused(TapRequest { limit, ..TapRequest::default() }), TapError::Request(_)));
    }
    let error = refused(TapRequest { name: Some("x".repeat(5000)), ..TapRequest::default() });
    assert!(matches!(error, TapError::Request(_)), "{error}");
    let tap = pipeline.tap(&TapRequest { edges: vec!["h*".into(), "x".into()], ..TapRequest::default() });
    let opening = tap.expect("one matches").read();
    assert!(matches!(&opening[0], TapLine::Open { edges, unmatched, .. } if edges.len() == 2 && unmatched == &["x"]));
    let taps: Vec<_> = (0..8).map(|_| pipeline.tap(&TapRequest::default()).expect("a place")).collect();
    assert!(matches!(refused(TapRequest::default()), TapError::TooMany(_)));
    drop(taps);
    assert!(pipeline.tap(&TapRequest::default()).is_ok());
}
