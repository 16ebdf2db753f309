//! What a group of recorded expressions costs.
//!
//! Question: how much of a core do 1,000 expressions take that together read 100,000 counters over five minutes, once per
//! ten-second slice? Limit: 20 %, two seconds. Peer: the same reading without an evaluator, so the difference is the
//! evaluator's own share; the rows come from the naive memory, which copies them out of a tree for each visit.

use hydrograph::Timestamp;
use hydrograph::event::{Kind, Metric, SeriesId, Slice, SliceWidth};
use hydrograph::query::memory::Memory;
use hydrograph::query::{Data, DataError, Expression, MatchOp, Matcher, Need, Rows, Span, Value, Visit, evaluate};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const T0: i64 = 1_700_000_000;
const GROUPS: usize = 1_000;

type Selections = HashMap<(u32, Vec<Matcher>), Arc<[SeriesId]>>;

/// The memory, with the cache of selections that the trait asks of an implementor.
struct Cached {
    memory: Memory,
    selections: RefCell<Selections>,
}

impl Data for Cached {
    fn slice_width(&self) -> SliceWidth {
        self.memory.slice_width()
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.memory.metric(name)
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.memory.metrics()
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        let key = (metric.id.0, matchers.to_vec());
        if let Some(known) = self.selections.borrow().get(&key) {
            return Ok(Arc::clone(known));
        }
        let found = self.memory.select(metric, matchers)?;
        self.selections.borrow_mut().insert(key, Arc::clone(&found));
        Ok(found)
    }

    fn read(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        span: Span,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        self.memory.read(metric, ids, span, need, visit)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(what: &str, mut run: impl FnMut() -> usize) {
    for round in 0..3 {
        let started = Instant::now();
        let answers = run();
        let spent = started.elapsed();
        println!("{what}: round {round}: {:.0} ms, {answers} answers", spent.as_secs_f64() * 1e3);
    }
}

fn main() {
    let at = |seconds: i64| Timestamp::from_seconds(T0 + seconds);
    let mut memory = Memory::new(10);
    let metric = memory.declare("requests_total", Kind::Counter, |_| {});
    for n in 0..100_000usize {
        let (group, shard, path) = (format!("g{}", n % GROUPS), format!("s{}", n % 7), format!("/path/{n}"));
        let labels = [("group", &*group), ("shard", &*shard), ("path", &*path), ("env", "production")];
        let id = memory.series(&metric, &labels, at(0));
        (0..30).for_each(|slice| memory.increment(id, at(slice * 10 + 5), (n % 13) as f64));
    }
    let data = Cached { memory, selections: RefCell::default() };
    let to = Slice((T0 / 10 + 30) as u32);
    let span = Span { from: Slice(to.0 - 30), to };
    let need = Need { totals: false, rows: true, cells: false };
    timed("reading alone", || {
        let mut rows = 0;
        for group in 0..GROUPS {
            let matcher = Matcher::new("group", MatchOp::Equal, &format!("g{group}")).expect("a matcher");
            let ids = data.select(&metric, &[matcher]).expect("series");
            let mut count = |_: usize, series: &hydrograph::query::SeriesRows<'_>| {
                let Rows::Counter { increments, .. } = series.rows else { return Ok(()) };
                rows += increments.len();
                Ok(())
            };
            data.read(&metric, &ids, span, need, &mut count).expect("rows");
        }
        rows
    });
    for shape in ["sum by (shard) (rate(requests_total{group=\"#\"}[5m]))", "rate(requests_total{group=\"#\"}[5m]) > 1"]
    {
        let parse = |group| Expression::parse(&shape.replace('#', &format!("g{group}"))).expect("an expression");
        let expressions: Vec<Expression> = (0..GROUPS).map(parse).collect();
        timed(shape, || {
            let answers = expressions.iter().map(|expression| match evaluate(expression, &data, at(300)) {
                Ok(Value::Vector(samples)) => samples.len(),
                other => panic!("{other:?} is no vector"),
            });
            answers.sum()
        });
    }
}
