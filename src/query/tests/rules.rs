//! Rules Q1, Q2, V2, V4, V5 and V7, one test each.

use super::*;
use crate::event::{Metric, SeriesId, SliceWidth};
use crate::query::cover::Zones;
use crate::query::data::*;
use crate::query::{EvalError, Limits, Matcher, evaluate_within};
use std::sync::Arc;

#[test]
fn q1_a_time_is_floored_to_a_slice_edge() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("c_total", Kind::Counter, |_| {});
    let id = memory.series(&metric, &[], at(0));
    memory.increment(id, at_millis(9_999), 1.0);
    memory.increment(id, at_millis(10_000), 2.0);
    memory.increment(id, at_millis(25_000), 4.0);
    for (seconds, expected) in [(0, 0.0), (9, 0.0), (10, 1.0), (19, 1.0), (20, 3.0), (30, 7.0), (1_000, 7.0)] {
        check(&memory, "c_total", seconds, Some(expected));
    }
    check(&memory, "c_total offset 1s", 20, Some(1.0));
    check(&memory, "c_total offset -1s", 19, Some(3.0));
    check(&memory, "c_total @ 1700000020", 1_000, Some(3.0));
    check(&memory, "time()", 19, Some((T0 + 19) as f64));
    check(&memory, "timestamp(c_total)", 19, Some((T0 + 10) as f64));
}

#[test]
fn q1_a_range_covers_whole_slices_and_is_rounded_up_to_them() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("c_total", Kind::Counter, |_| {});
    let id = memory.series(&metric, &[], at(0));
    for slice in 0..10 {
        memory.increment(id, at(slice * 10 + 5), f64::from(1 << slice));
    }
    check(&memory, "increase(c_total[20s])", 50, Some(8.0 + 16.0));
    check(&memory, "increase(c_total[20s])", 59, Some(8.0 + 16.0));
    check(&memory, "increase(c_total[15s])", 50, Some(8.0 + 16.0));
    check(&memory, "increase(c_total[1ms])", 50, Some(16.0));
    check(&memory, "rate(c_total[15s])", 50, Some(24.0 / 20.0));
    check(&memory, "irate(c_total[1m])", 50, Some(1.6));
    check(&memory, "increase(c_total[1h])", 50, Some(31.0));
    check(&memory, "rate(c_total[1h])", 50, Some(31.0 / 3600.0));
    check(&memory, "increase(c_total[20s] offset 20s)", 70, Some(24.0));
}

#[test]
fn r3_a_reset_is_a_step_to_nothing_and_no_increase_is_negative() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("c_total", Kind::Counter, |_| {});
    let id = memory.series(&metric, &[], at(0));
    memory.increment(id, at(5), 5.0);
    memory.increment(id, at(15), 7.0);
    // A sample of the future that came before the reset is in what was.
    memory.increment(id, at(45), 100.0);
    memory.reset(id, at(25));
    memory.increment(id, at(28), 2.0);
    // Late by its slice, but after the reset.
    memory.increment(id, at(17), 3.0);
    memory.increment(id, at(55), 4.0);
    memory.reset(id, at(72));
    memory.increment(id, at(75), 1.0);
    // Edges at or before 25 are of the first life, at 72 and after of the third.
    for (seconds, expected) in [(10, 5.0), (20, 15.0), (30, 0.0), (50, 5.0), (60, 9.0), (70, 9.0), (80, 1.0)] {
        check(&memory, "c_total", seconds, Some(expected));
    }
    check(&memory, "increase(c_total[30s])", 40, Some(12.0));
    check(&memory, "rate(c_total[50s])", 70, Some(106.0 / 50.0));
    check(&memory, "increase(c_total[1m])", 80, Some(2.0 + 100.0 + 4.0 + 1.0));
    check(&memory, "resets(c_total[80s])", 80, Some(2.0));
}

#[test]
fn q1_an_increase_is_exact() {
    let mut memory = Memory::new(1);
    let metric = memory.declare("c_total", Kind::Counter, |_| {});
    let id = memory.series(&metric, &[], at(0));
    for second in 0..1_000 {
        memory.increment(id, at(second), 0.1);
    }
    // A sum of a thousand floats would be 99.9999999999986.
    assert_eq!(one(&memory, "increase(c_total[1000s])", 1_000), Some(100.0));
    assert_eq!(one(&memory, "increase(c_total[3s])", 1_000), Some(0.3));
    assert_eq!(one(&memory, "c_total", 3), Some(0.3));
}

#[test]
fn q1_a_counter_exists_from_its_creation_until_it_was_idle() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("c_total", Kind::Counter, |metric| metric.idle = Some(60_000_000_000));
    let id = memory.series(&metric, &[], at(100));
    memory.increment(id, at(105), 1.0);
    memory.increment(id, at(125), 1.0);
    for (seconds, expected) in [(99, None), (100, Some(0.0)), (110, Some(1.0)), (180, Some(2.0)), (190, None)] {
        check(&memory, "c_total", seconds, expected);
    }
    // A range finds it as long as they share a moment, and its absence is no zero.
    check(&memory, "increase(c_total[30s])", 90, None);
    check(&memory, "increase(c_total[30s])", 100, Some(0.0));
    check(&memory, "increase(c_total[30s])", 150, Some(1.0));
    check(&memory, "increase(c_total[30s])", 160, Some(0.0));
    check(&memory, "increase(c_total[30s])", 210, Some(0.0));
    check(&memory, "increase(c_total[30s])", 220, None);
    check(&memory, "count_over_time(c_total[2m])", 220, Some(8.0));
    check(&memory, "absent(c_total)", 190, Some(1.0));
}

#[test]
fn q1_gauges_look_back_five_minutes() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("g", Kind::Gauge, |_| {});
    let id = memory.series(&metric, &[], at(0));
    memory.set(id, at(5), 3.0);
    memory.set(id, at(1), 9.0);
    memory.set(id, at(3), -1.0);
    for (seconds, expected) in [(9, None), (10, Some(3.0)), (300, Some(3.0)), (309, Some(3.0)), (310, None)] {
        check(&memory, "g", seconds, expected);
    }
    check(&memory, "timestamp(g)", 200, Some((T0 + 10) as f64));
    check(&memory, "min_over_time(g[1m])", 10, Some(-1.0));
    check(&memory, "max_over_time(g[1m])", 10, Some(9.0));
    check(&memory, "sum_over_time(g[1m])", 10, Some(11.0));
    check(&memory, "count_over_time(g[1m])", 10, Some(3.0));
    check(&memory, "avg_over_time(g[1m])", 10, Some(11.0 / 3.0));
    check(&memory, "last_over_time(g[1m])", 70, None);
    check(&memory, "last_over_time(g[1m])", 60, Some(3.0));
}

#[test]
fn q1_a_gauges_change_is_told_from_what_it_was_when_the_range_began() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("g", Kind::Gauge, |_| {});
    let id = memory.series(&metric, &[], at(0));
    for slice in 0..30 {
        memory.set(id, at(slice * 10 + 5), slice as f64);
    }
    check(&memory, "delta(g[1m])", 200, Some(6.0));
    check(&memory, "delta(g[20m])", 200, Some(19.0));
    check(&memory, "idelta(g[1m])", 200, Some(1.0));
    check(&memory, "delta(g[1m])", 10, None);
    // After its end it changes no more, and then it is not there.
    check(&memory, "delta(g[1m])", 330, Some(3.0));
    check(&memory, "delta(g[1m])", 360, None);
    check(&memory, "deriv(g[1m])", 200, Some(0.1));
    check(&memory, "predict_linear(g[1m], 100)", 200, Some(29.0));
}

#[test]
fn q2_quantiles_slide_and_an_empty_window_is_nan() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("load", Kind::Distribution, |metric| metric.window_slices = 3);
    let id = memory.series(&metric, &[("a", "b")], at(0));
    memory.observe(id, at(5), 42.0, WEIGHT_ONE);
    memory.observe(id, at(15), 7.0, WEIGHT_ONE);
    let median = "load{quantile=\"0.5\"}";
    for (seconds, expected) in [(0, f64::NAN), (10, 42.0), (20, 7.0), (30, 7.0), (40, 7.0), (50, f64::NAN)] {
        check(&memory, median, seconds, Some(expected));
    }
    assert_eq!(samples(&memory, "load", 20).len(), 4, "one series per quantile");
    assert_eq!(samples(&memory, "load{quantile=~\"0.9.*\"}", 20).len(), 3);
    check(&memory, "load_count", 1_000, Some(2.0));
    check(&memory, "load_sum", 1_000, Some(49.0));
    check(&memory, "min_over_time(load{quantile=\"0.99\"}[40s])", 40, Some(7.0));
    let quality = samples(&memory, median, 20)[0].quality.expect("a quantile says how right it is");
    assert_eq!((quality.bound, quality.count, quality.span), (0.01, 2.0, 30.0));
}

#[test]
fn v2_counts_are_rounded_half_up_and_monotone() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("load", Kind::Distribution, |metric| {
        metric.expose.histogram = true;
        metric.buckets = Memory::buckets(&[1.0, 2.0], Scale::MICRO);
    });
    let id = memory.series(&metric, &[], at(0));
    // 0.75 of a sample below 1, 0.75 between.
    memory.observe(id, at(1), 0.5, WEIGHT_ONE * 3 / 4);
    memory.observe(id, at(1), 1.5, WEIGHT_ONE * 3 / 4);
    check(&memory, "load_bucket{le=\"1\"}", 10, Some(1.0));
    check(&memory, "load_bucket{le=\"2.0\"}", 10, Some(2.0));
    check(&memory, "load_count", 10, Some(2.0));
    check(&memory, "load_bucket{le=\"+Inf\"}", 10, Some(2.0));
    // What a range adds is not rounded.
    check(&memory, "increase(load_count[10s])", 10, Some(1.5));
    check(&memory, "increase(load_sum[10s])", 10, Some(1.5));
    check(&memory, "histogram_count(increase(load[10s]))", 10, Some(1.5));
    check(&memory, "histogram_count(load)", 10, Some(2.0));
}

#[test]
fn v4_a_quantile_of_cells_is_within_its_bound() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("took_seconds", Kind::Distribution, |metric| metric.scale = Scale::NANO);
    let ids: Vec<SeriesId> = ["a", "b"].iter().map(|l| memory.series(&metric, &[("l", l)], at(0))).collect();
    let mut values = Vec::new();
    for n in 0..4_000i64 {
        let value = ((n * 7_919) % 4_001) as f64 * 0.000_37 + 0.000_1;
        memory.observe(ids[(n % 2) as usize], at(n % 300), value, WEIGHT_ONE);
        values.push(value);
    }
    values.sort_by(f64::total_cmp);
    for q in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
        for spelling in ["rate", "increase"] {
            let text = format!("histogram_quantile({q}, sum({spelling}(took_seconds[5m])))");
            let answer = &samples(&memory, &text, 300)[0];
            let exact = values[((q * 4_000.0f64).ceil() as usize).max(1) - 1];
            let quality = answer.quality.expect("a quantile says how right it is");
            assert_eq!((quality.bound, quality.count, quality.span), (0.01, 4_000.0, 300.0));
            assert_eq!((quality.late, quality.clamped), (None, Some(0)));
            assert!((answer.value - exact).abs() <= quality.bound * exact, "{text}: {} for {exact}", answer.value);
        }
    }
    // Scaling keeps the relative bound; adding does not.
    let scaled = samples(&memory, "1000 * histogram_quantile(0.5, sum(rate(took_seconds[5m])))", 300);
    assert_eq!(scaled[0].quality.unwrap().bound, 0.01);
    let shifted = samples(&memory, "1 + histogram_quantile(0.5, sum(rate(took_seconds[5m])))", 300);
    assert_eq!(shifted[0].quality, None);
    check(&memory, "histogram_quantile(2, sum(rate(took_seconds[5m])))", 300, Some(f64::INFINITY));
    check(&memory, "histogram_quantile(-1, sum(rate(took_seconds[5m])))", 300, Some(f64::NEG_INFINITY));
    check(&memory, "histogram_quantile(0.5, sum(rate(took_seconds[5m])))", 900, Some(f64::NAN));
}

#[test]
fn v4_what_was_clamped_is_said() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("big", Kind::Distribution, |metric| metric.scale = Scale::ONE);
    let id = memory.series(&metric, &[], at(0));
    memory.observe(id, at(1), 5e18, WEIGHT_ONE);
    memory.observe(id, at(1), 3.0, WEIGHT_ONE);
    let answer = samples(&memory, "histogram_quantile(1, increase(big[10s]))", 10);
    assert_eq!((answer[0].value, answer[0].quality.unwrap().clamped), (1e18, Some(1)));
}

#[test]
fn v5_declared_buckets_are_exact_and_others_count_cells_by_midpoint() {
    let mut memory = Memory::new(10);
    let declared = memory.declare("a_seconds", Kind::Distribution, |metric| {
        metric.scale = Scale::NANO;
        metric.expose.histogram = true;
        metric.buckets = Memory::buckets(&[0.005, 0.01], Scale::NANO);
    });
    let undeclared = memory.declare("b_seconds", Kind::Distribution, |metric| metric.scale = Scale::NANO);
    let ids = [memory.series(&declared, &[], at(0)), memory.series(&undeclared, &[], at(0))];
    // 5 ms lies inside a cell: only exact counts tell what is on which side.
    for value in [0.004_999_9, 0.005, 0.005_000_1, 0.02] {
        ids.iter().for_each(|id| memory.observe(*id, at(1), value, WEIGHT_ONE));
    }
    for (le, count) in [("0.005", 2.0), ("0.01", 3.0), ("+Inf", 4.0)] {
        check(&memory, &format!("a_seconds_bucket{{le=\"{le}\"}}"), 10, Some(count));
        check(&memory, &format!("increase(a_seconds_bucket{{le=\"{le}\"}}[10s])"), 10, Some(count));
    }
    // Nothing cumulative below +Inf is kept of what is not declared; a range has the usual bounds.
    assert_eq!(samples(&memory, "b_seconds_bucket", 10).len(), 1);
    assert_eq!(samples(&memory, "max_over_time(b_seconds_bucket[10s])", 10).len(), 1);
    let buckets = samples(&memory, "increase(b_seconds_bucket[10s])", 10);
    assert_eq!(buckets.len(), 12);
    check(&memory, "increase(b_seconds_bucket{le=\"0.01\"}[10s])", 10, Some(3.0));
    check(&memory, "increase(b_seconds_bucket{le=\"0.025\"}[10s])", 10, Some(4.0));
}

#[test]
fn v7_a_set_is_the_distinct_members_of_its_window() {
    let mut memory = Memory::new(10);
    let metric = memory.declare("users", Kind::Set, |metric| metric.window_slices = 2);
    let id = memory.series(&metric, &[], at(0));
    for (seconds, member) in [(1, "ann"), (2, "ann"), (3, "bob"), (11, "bob"), (12, "cat")] {
        memory.insert(id, at(seconds), member);
    }
    for (seconds, expected) in [(0, 0.0), (10, 2.0), (20, 3.0), (30, 2.0), (40, 0.0)] {
        check(&memory, "users", seconds, Some(expected));
    }
    check(&memory, "max_over_time(users[40s])", 40, Some(3.0));
}

#[test]
fn names_are_those_of_the_exposition() {
    let memory = world();
    let names = |text: &str| {
        let mut names: Vec<String> =
            samples(&memory, text, 300).iter().map(|sample| sample.name.as_deref().unwrap_or("").to_owned()).collect();
        names.dedup();
        names
    };
    assert_eq!(
        names("{region=\"eu\"}"),
        [
            "depth",
            "load",
            "load_count",
            "load_sum",
            "orders_total",
            "took_seconds",
            "took_seconds_bucket",
            "took_seconds_count",
            "took_seconds_sum",
            "took_window_seconds",
            "took_window_seconds_count",
            "took_window_seconds_sum",
            "users"
        ]
    );
    assert_eq!(names("{__name__=~\"took.*_count\"}"), ["took_seconds_count", "took_window_seconds_count"]);
    assert_eq!(names("took_window_seconds{quantile=\"0.5\"}"), ["took_window_seconds"]);
    assert!(names("nothing").is_empty() && names("took_seconds_nothing").is_empty());
    assert!(names("orders_total{le=\"1\"}").is_empty() && names("orders_total_count").is_empty());
    let native = &samples(&memory, "took_seconds{region=\"eu\"}", 300)[0];
    let histogram = native.histogram.as_ref().expect("a histogram is shown as one");
    assert_eq!((native.value, histogram.count), (30.0, 30.0));
    let of_cells: f64 = histogram.cells.iter().map(|cell| cell.2).sum();
    assert_eq!(of_cells, 30.0, "the window has everything so far");
}

#[test]
fn limits_end_an_evaluation() {
    let memory = world();
    let expression = Expression::parse("sum(rate({region=~\".+\"}[5m]))").unwrap();
    let within = |series, samples| {
        let limits = Limits { series, samples, steps: 10 };
        evaluate_within(&expression, &memory, at(300), &limits)
    };
    assert!(matches!(within(5, 1_000_000), Err(EvalError::TooManySeries { limit: 5 })));
    assert!(matches!(within(1_000, 50), Err(EvalError::TooManySamples { limit: 50 })));
    assert!(within(1_000, 1_000_000).is_ok());
    let orders = Expression::parse("orders_total").unwrap();
    let range = |start, end, step| evaluate_range(&orders, &memory, at(start), at(end), step);
    assert!(matches!(range(0, 100_000, 1_000_000_000), Err(EvalError::TooManySteps { steps: 100_001, .. })));
    assert!(matches!(range(0, 1, 0), Err(EvalError::Times)) && matches!(range(1, 0, 1), Err(EvalError::Times)));
    // A century of slices is no work where nothing is.
    check(&memory, "count_over_time(orders_total{region=\"eu\"}[100y])", 300, Some(31.0));
    check(&memory, "sum(rate(orders_total[100y])) > bool 0", 300, Some(1.0));
}

#[test]
fn what_an_expression_reads_is_known() {
    let expression =
        Expression::parse("rate(a[5m] offset 1h) / on () (b + b{x=\"y\"}) + max_over_time(c[1h:1m])").unwrap();
    let names: Vec<_> = expression.selectors().iter().map(|s| (s.name.as_deref(), s.range / 1_000_000_000)).collect();
    assert_eq!(names, [(Some("a"), 300), (Some("b"), 0), (Some("b"), 0), (Some("c"), 0)]);
    assert_eq!(expression.reach() / 1_000_000_000, 3_900, "a: 5m + 1h; c: 1h and five minutes of lookback");
    assert_eq!(expression.kind(), crate::query::ResultKind::Vector);
}

/// Hands out every row as two commits of its slice.
pub(super) struct Pieces<'m>(pub(super) &'m Memory);

impl Data for Pieces<'_> {
    fn slice_width(&self) -> SliceWidth {
        self.0.slice_width()
    }

    fn zones(&self) -> &Zones {
        self.0.zones()
    }

    fn metric(&self, name: &str) -> Option<Arc<Metric>> {
        self.0.metric(name)
    }

    fn metrics(&self) -> Vec<Arc<Metric>> {
        self.0.metrics()
    }

    fn select(&self, metric: &Metric, matchers: &[Matcher]) -> Result<Arc<[SeriesId]>, DataError> {
        self.0.select(metric, matchers)
    }

    fn read(
        &self,
        metric: &Metric,
        ids: &[SeriesId],
        extent: Extent<'_>,
        need: Need,
        visit: &mut Visit<'_>,
    ) -> Result<(), DataError> {
        self.0.read(metric, ids, extent, need, &mut |at, series| match series.rows {
            Rows::Counter { total, increments } => {
                let total = if need.totals { total } else { i128::from(u64::MAX) };
                let halves = |(slice, n): &(_, i128)| [(*slice, n / 2), (*slice, n - n / 2)];
                let increments: Vec<_> = increments.iter().flat_map(halves).collect();
                visit(at, &SeriesRows { rows: Rows::Counter { total, increments: &increments }, ..*series })
            }
            Rows::Gauge(rows) => {
                let halves = |row: &GaugeRow| {
                    // The newest set comes first: order is told by time, not by place.
                    let newest = GaugeRow { sum: 0, count: 1, ..*row };
                    let rest = GaugeRow { last: 99.0, order: (0, 0), count: row.count - 1, ..*row };
                    let without = GaugeRow { count: 0, min: -1e9, ..*row };
                    if row.count > 1 { vec![newest, rest] } else { vec![*row, without] }
                };
                let rows: Vec<GaugeRow> = rows.iter().flat_map(halves).collect();
                visit(at, &SeriesRows { rows: Rows::Gauge(&rows), ..*series })
            }
            Rows::Distribution { totals, rows } => {
                // Each cell apart; the sum stands in the first piece, and bounds' exact counts in that of their cell.
                let garbage = DistributionTotals { weight: 77, sum: 77, buckets: &[] };
                let totals = if need.totals { totals } else { garbage };
                let mut pieces = Vec::new();
                for slice in rows {
                    for (n, cell) in slice.row.cells.iter().enumerate() {
                        let mut row = slice.row;
                        row.cells = std::slice::from_ref(cell);
                        row.count = if row.weighted { 1 } else { cell.1 };
                        row.sum = if n == 0 { row.sum } else { 0 };
                        pieces.push(DistributionSlice {
                            row,
                            clamped: slice.clamped.filter(|_| n == 0).or(Some(0)),
                            ..*slice
                        });
                    }
                }
                visit(at, &SeriesRows { rows: Rows::Distribution { totals, rows: &pieces }, ..*series })
            }
            Rows::Set(rows) => {
                let rows: Vec<_> = rows.iter().flat_map(|row| [*row, *row]).collect();
                visit(at, &SeriesRows { rows: Rows::Set(&rows), ..*series })
            }
        })
    }
}
