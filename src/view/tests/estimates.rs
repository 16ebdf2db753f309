//! Buckets that are declared after their samples came (R2), against a naive oracle.

use super::*;

/// Declares the buckets of a series' metric, or that it is shown as a summary, and reloads.
fn declare(bench: &mut Bench, series: usize, bounds: Option<&[i64]>) {
    let metric = Arc::make_mut(&mut bench.series[series].metric);
    let after = metric.buckets.as_ref().map_or(0, |buckets| buckets.first + buckets.units.len() as u16);
    metric.expose.histogram = bounds.is_some();
    metric.buckets = bounds.map(|units| {
        let bounds = units.iter().map(|unit| *unit as f64 / 1e6).collect();
        Arc::new(Buckets { first: after, bounds, units: units.into() })
    });
    let metric = Arc::clone(&bench.series[series].metric);
    bench.fold.reload(std::slice::from_ref(&metric), &[]);
}

/// (counts of the buckets, count, whether some are estimates)
fn shown(bench: &Bench, series: usize) -> (Vec<u128>, u128, bool) {
    let metric = bench.metric(series);
    let bounds = metric.buckets.as_ref().map_or(0, |buckets| buckets.units.len());
    let mut found = None;
    bench.view.read_histograms(&[bench.series[series].id], bounds, |histogram| {
        let histogram = histogram.expect("live");
        found = Some((histogram.counts.to_vec(), histogram.value.count, histogram.value.estimated_buckets));
    });
    found.expect("visited")
}

fn bench_with(series: usize, values: &[i64]) -> Bench {
    let mut bench = bench_of(5);
    bench.commit(values.iter().map(|value| sample(series, 1_000, *value)).collect());
    bench
}

const VALUES: [i64; 4] = [500, 5_000, 7_000, 50_000];

#[test]
fn r2_buckets_that_are_declared_later_hold_what_came_before_and_say_so() {
    // Series 3 was never a histogram: it has neither old buckets nor a native histogram.
    let mut bench = bench_with(3, &VALUES);
    bench.store_totals(2);
    let mut at_start = bench_with(3, &VALUES);
    at_start.store_totals(2);
    declare(&mut bench, 3, Some(&[1_000, 10_000]));
    assert_eq!(shown(&bench, 3), (vec![1, 3], 4, true));
    bench.commit(vec![sample(3, 1_000, 800)]);
    assert_eq!(shown(&bench, 3), (vec![2, 4], 5, true));
    bench.store_totals(2);
    bench.restart();
    assert_eq!(shown(&bench, 3), (vec![2, 4], 5, true), "the mark is in the file");
    // The same by a restart with another file; the first commit is when the window is there.
    let metric = Arc::clone(&bench.series[3].metric);
    at_start.series[3].metric = metric;
    at_start.restart();
    at_start.commit(vec![sample(0, 1_000, 1)]);
    assert_eq!(shown(&at_start, 3), (vec![1, 3], 4, true));
}

#[test]
fn r2_without_a_window_the_estimate_lies_between_the_least_and_the_greatest() {
    let mut bench = bench_with(3, &(1..=100).map(|n| n * 100).collect::<Vec<_>>());
    bench.advance(10);
    declare(&mut bench, 3, Some(&[50, 2_500, 5_000, 10_000, 20_000]));
    assert_eq!(shown(&bench, 3), (vec![0, 24, 50, 100, 100], 100, true));
    declare(&mut bench, 3, Some(&[50, 10_000, 20_000]));
    assert_eq!(shown(&bench, 3), (vec![0, 100, 100], 100, false), "what lies beyond all samples is known");
}

#[test]
fn r2_counts_wait_while_a_metric_is_shown_as_a_summary() {
    let mut bench = bench_with(2, &[]);
    declare(&mut bench, 2, Some(&[1_000, 10_000]));
    bench.commit(VALUES.iter().map(|value| sample(2, 1_000, *value)).collect());
    for is_restarted in [false, true] {
        bench.advance(10);
        declare(&mut bench, 2, None);
        bench.store_totals(1);
        if is_restarted {
            bench.restart();
        }
        declare(&mut bench, 2, Some(&[1_000, 10_000]));
        assert_eq!(shown(&bench, 2), (vec![1, 3], 4, false), "{is_restarted}");
    }
    // What came meanwhile is estimated, above what was counted.
    declare(&mut bench, 2, None);
    bench.commit([900, 9_000, 90_000].map(|value| sample(2, bench.open, value)).to_vec());
    declare(&mut bench, 2, Some(&[1_000, 10_000]));
    assert_eq!(shown(&bench, 2), (vec![2, 5], 7, true));
}

#[test]
fn r2_a_bound_between_old_ones_is_estimated_by_the_native_histogram() {
    let mut bench = bench_with(2, &[]);
    declare(&mut bench, 2, Some(&[1_000, 10_000]));
    bench.commit(VALUES.iter().map(|value| sample(2, 1_000, *value)).collect());
    bench.advance(10);
    declare(&mut bench, 2, Some(&[1_000, 6_000, 10_000]));
    assert_eq!(shown(&bench, 2), (vec![1, 2, 3], 4, true));
    bench.store_totals(1);
    bench.restart();
    assert_eq!(shown(&bench, 2), (vec![1, 2, 3], 4, true));
    declare(&mut bench, 2, Some(&[1_000, 10_000]));
    assert_eq!(shown(&bench, 2), (vec![1, 3], 4, false), "what is left was counted");
}

#[test]
fn r2_what_was_counted_for_other_bounds_is_not_taken_for_that_of_these_after_a_restart() {
    // 10,000 lies inside a cell; counted as number 1, which after the restart is that of 6,000.
    let mut bench = bench_with(2, &[]);
    declare(&mut bench, 2, None);
    declare(&mut bench, 2, Some(&[1_000, 10_000]));
    bench.commit(vec![sample(2, 1_000, 10_000), sample(2, 1_000, 500)]);
    declare(&mut bench, 2, None);
    declare(&mut bench, 2, Some(&[1_000, 6_000, 10_000]));
    bench.restart();
    let (counts, count, _) = shown(&bench, 2);
    assert_eq!((&counts[..2], count), (&[1, 1][..], 2));
    assert!(counts.is_sorted() && counts[2] <= count, "{counts:?}");
    bench.store_totals(1);
}

#[test]
fn r2_r3_earlier_lives_go_over_to_new_bounds_too() {
    let mut bench = bench_with(2, &[3, 200, 301, 4_000]);
    bench.commit_and_reset(vec![sample(2, 1_000, 301)], &BTreeSet::from([2]));
    bench.commit_and_reset(vec![sample(2, 1_000, 90_000)], &BTreeSet::from([2]));
    declare(&mut bench, 2, Some(&[5, 250, 302, 1_000_000]));
    let check = |bench: &Bench| {
        bench.view.read_totals(&[bench.series[2].id], |row| {
            let row = row.expect("live");
            assert_eq!(row.resets.len(), 2);
            let one = u128::from(WEIGHT_ONE);
            let mut before = vec![0; 4];
            for reset in row.resets {
                assert!(reset.buckets.is_sorted() && reset.buckets[3] <= reset.weight, "{reset:?}");
                assert!(before.iter().zip(&reset.buckets).all(|(before, now)| before <= now), "{reset:?}");
                before = reset.buckets.to_vec();
            }
            assert_eq!((row.resets[0].buckets[0], row.resets[0].buckets[2]), (one, 3 * one), "5 and 302 were counted");
            assert_eq!(row.resets[1].buckets[2], 4 * one);
        });
    };
    check(&bench);
    bench.store_totals(1);
    bench.restart();
    check(&bench);
}

#[derive(Clone, Debug)]
enum Turn {
    Samples(Vec<i64>),
    Declare(Option<Vec<i64>>),
    Advance,
    Store,
    Restart,
}

fn turn() -> impl Strategy<Value = Turn> {
    let value = prop_oneof![-200i64..200, 1_000i64..100_000, Just(77)];
    let bounds = proptest::collection::btree_set(prop_oneof![-250i64..250, 500i64..120_000, Just(77), Just(-3)], 1..7);
    prop_oneof![
        4 => proptest::collection::vec(value, 1..30).prop_map(Turn::Samples),
        4 => proptest::option::weighted(0.8, bounds.prop_map(|all| all.into_iter().collect())).prop_map(Turn::Declare),
        1 => Just(Turn::Advance),
        1 => Just(Turn::Store),
        1 => Just(Turn::Restart),
    ]
}

proptest! {
    #[test]
    fn r2_estimates_never_contradict_what_was_counted(
        series in 2usize..4, turns in proptest::collection::vec(turn(), 1..25),
    ) {
        let mut bench = bench_of(5);
        // The oracle: all samples; per bound that is counted whether it always was; per bound that was counted exactly
        // when it left, how many samples there were.
        let mut all: Vec<i64> = Vec::new();
        let mut exact: BTreeSet<i64> = BTreeSet::new();
        let first = bench.metric(series).buckets.clone();
        exact.extend(first.iter().flat_map(|buckets| buckets.units.iter()));
        let mut left: BTreeMap<i64, usize> = BTreeMap::new();
        let mut was: Option<BTreeMap<i64, u128>> = None;
        bench.commit(vec![sample(series, bench.open, 77)]);
        all.push(77);
        for turn in turns {
            match turn {
                Turn::Samples(values) => {
                    bench.commit(values.iter().map(|value| sample(series, bench.open, *value)).collect());
                    all.extend(values);
                }
                Turn::Declare(bounds) => {
                    let old = bench.metric(series).buckets.as_ref().map_or(vec![], |buckets| buckets.units.to_vec());
                    let new = bounds.clone().unwrap_or_default();
                    for bound in &old {
                        if !new.contains(bound) && exact.remove(bound) {
                            left.insert(*bound, all.len());
                        }
                    }
                    for bound in &new {
                        if !old.contains(bound) && left.get(bound) == Some(&all.len()) {
                            exact.insert(*bound);
                        }
                        left.remove(bound);
                    }
                    declare(&mut bench, series, bounds.as_deref());
                }
                Turn::Advance => bench.advance(4),
                Turn::Store => (0..4).for_each(|block| bench.store_totals(block)),
                // What the file does not have yet of a reload is told otherwise after a crash.
                Turn::Restart => {
                    (0..4).for_each(|block| bench.store_totals(block));
                    bench.restart();
                }
            }
            let Some(buckets) = bench.metric(series).buckets.clone() else { continue };
            let (counts, count, is_marked) = shown(&bench, series);
            prop_assert_eq!(count, all.len() as u128);
            prop_assert!(counts.is_sorted() && counts.iter().all(|below| *below <= count), "{:?} of {}", counts, count);
            let mut is_right = true;
            for (bound, below) in buckets.units.iter().zip(&counts) {
                let truth = all.iter().filter(|value| *value <= bound).count() as u128;
                if exact.contains(bound) {
                    prop_assert_eq!(*below, truth, "{} was always counted", bound);
                }
                is_right &= *below == truth;
                if let Some(before) = was.as_ref().and_then(|was| was.get(bound)) {
                    prop_assert!(below >= before, "{} went from {} to {}", bound, before, below);
                }
            }
            prop_assert!(is_right || is_marked, "{:?} {:?}", buckets.units, counts);
            was = Some(buckets.units.iter().copied().zip(counts).collect());
        }
    }
}
