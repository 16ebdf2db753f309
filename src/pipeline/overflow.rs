//! Metrics that met a limit of series, and who is to blame.
//!
//! In: the table of series. Out: the worst of them, each with its culprit. Pure. Invariant: what it costs depends on how
//! many are asked for, not on how many there are.

use crate::delta::{Limit, Overflowed, SeriesTableGuard};
use crate::event::Metric;

/// A metric that met a limit of series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Its exposed name.
    pub metric: String,
    /// Resolutions that got no series of their own.
    pub count: u64,
    /// What the last of them met: the number of series, or the bytes of their labels.
    pub limit: Limit,
    /// Its label with the most distinct values, or where bytes are the limit with the longest; empty when it has none.
    pub label: String,
    /// Where it is below its own limit and that of all series is used up: the metric that has the most, how many series
    /// or bytes that is, and its label that is to blame.
    pub greediest: Option<(String, u64, String)>,
}

/// The metrics that met a limit of series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overflows {
    /// Those that met it most often, worst first.
    pub worst: Vec<Overflow>,
    /// How many others did.
    pub others: usize,
}

impl Overflows {
    /// Reads the table.
    pub(super) fn of(table: &SeriesTableGuard<'_>, worst: usize) -> Overflows {
        let mut all: Vec<_> = table.overflowed().iter().collect();
        all.sort_by_key(|known| (std::cmp::Reverse(known.count), known.metric.id));
        let others = all.len().saturating_sub(worst);
        all.truncate(worst);
        let label = |limit, metric: &Metric| {
            let label = match limit {
                Limit::Series => table.widest_label(metric),
                Limit::KeyBytes => table.longest_label(metric),
            };
            label.unwrap_or_default()
        };
        // Asked for once each: it is the same for all.
        let greediest = |limit| {
            let is_asked_for = all.iter().any(|known| known.is_shared && known.limit == limit);
            let (metric, most) = is_asked_for.then(|| table.greediest(limit)).flatten()?;
            Some((metric.name.to_string(), most, label(limit, &metric)))
        };
        let (by_series, by_bytes) = (greediest(Limit::Series), greediest(Limit::KeyBytes));
        let of = |known: &&Overflowed| {
            let greediest = match known.limit {
                Limit::Series => &by_series,
                Limit::KeyBytes => &by_bytes,
            };
            Overflow {
                metric: known.metric.name.to_string(),
                count: known.count,
                limit: known.limit,
                label: label(known.limit, &known.metric),
                greediest: greediest.clone().filter(|_| known.is_shared),
            }
        };
        Overflows { worst: all.iter().map(of).collect(), others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::testing::metric;
    use crate::delta::{SeriesTable, TableLimits};
    use crate::event::{Kind, Labels, LabelsBuilder, Metric};
    use std::sync::Arc;

    fn fill(table: &SeriesTable, metric: &Arc<Metric>, values: std::ops::Range<u32>) {
        for value in values {
            let mut builder = LabelsBuilder::new();
            builder.push("region", "eu");
            builder.push("user", value.to_string());
            table.intern(metric, &builder.build().expect("valid"));
        }
    }

    #[test]
    fn s3_the_culprit_of_an_overflow_is_named() {
        let table = SeriesTable::new(TableLimits { series: 8, series_per_metric: 5 }, Labels::empty());
        let (greedy, other) = (metric(0, "greedy_total", Kind::Counter), metric(1, "other_total", Kind::Counter));
        assert_eq!(Overflows::of(&table.lock(), 10), Overflows::default());
        fill(&table, &greedy, 0..9);
        let found = Overflows::of(&table.lock(), 10);
        assert_eq!((found.worst.len(), found.others), (1, 0));
        let own = &found.worst[0];
        assert_eq!((&*own.metric, own.count, &*own.label, &own.greediest), ("greedy_total", 4, "user", &None));
        // The next one meets the limit of all: it is not to blame, and its overflow series has no label to blame.
        fill(&table, &metric(2, "third_total", Kind::Counter), 0..3);
        fill(&table, &other, 0..3);
        let found = Overflows::of(&table.lock(), 10);
        let other = found.worst.iter().find(|overflow| overflow.metric == "other_total").expect("it met the limit");
        assert_eq!((other.count, &*other.label), (3, ""));
        assert_eq!(other.greediest, Some(("greedy_total".into(), 5, "user".into())));
        assert!(found.worst.iter().all(|overflow| overflow.limit == Limit::Series));
    }

    #[test]
    fn s3_the_culprit_of_long_labels_is_named() {
        let table = SeriesTable::new(TableLimits { series: 8, series_per_metric: 8 }, Labels::empty());
        let long = |metric: &Arc<Metric>, n: u32| {
            let mut builder = LabelsBuilder::new();
            builder.push("z", n.to_string());
            for key in 0..60 {
                builder.push(format!("k{key}"), format!("{n:0>1000}"));
            }
            table.intern(metric, &builder.build().expect("valid"));
        };
        // A megabyte is left to however few series: seventeen of 60 kB would fit, and eight may be.
        let greedy = metric(0, "greedy_total", Kind::Counter);
        (0..9).for_each(|n| long(&greedy, n));
        assert_eq!(Overflows::of(&table.lock(), 10).worst[0].limit, Limit::Series);
        table.set_limits(TableLimits { series: 10_000, series_per_metric: 10 });
        let other = metric(1, "other_total", Kind::Counter);
        (0..60).for_each(|n| long(&metric(2 + n / 8, &format!("m{}_total", n / 8), Kind::Counter), n));
        long(&other, 1);
        let found = Overflows::of(&table.lock(), 10);
        let other = found.worst.iter().find(|overflow| overflow.metric == "other_total").expect("it met the limit");
        assert_eq!((other.limit, &*other.label), (Limit::KeyBytes, ""));
        let (metric, bytes, label) = other.greediest.as_ref().expect("it is below its own");
        assert!(metric.ends_with("_total") && *bytes > 8 * 60_000 && label == "k10", "{other:?}");
    }

    #[test]
    fn only_the_worst_are_named() {
        let table = SeriesTable::new(TableLimits { series: 1, series_per_metric: 5 }, Labels::empty());
        for n in 0..50 {
            fill(&table, &metric(n, &format!("m{n}_total"), Kind::Counter), 0..n + 1);
        }
        let found = Overflows::of(&table.lock(), 10);
        assert_eq!((found.worst.len(), found.others), (10, 39));
        assert_eq!((&*found.worst[0].metric, found.worst[0].count), ("m49_total", 50));
    }
}
