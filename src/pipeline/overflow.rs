//! Metrics that met a limit of series, and who is to blame.
//!
//! In: the table of series. Out: the worst of them, each with its culprit. Pure. Invariant: what it costs depends on how
//! many are asked for, not on how many there are.

use crate::delta::{Limit, Overflowed, SeriesTableGuard};

/// A metric that met a limit of series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Its exposed name.
    pub metric: String,
    /// Resolutions that got no series of their own.
    pub count: u64,
    /// Its label with the most distinct values, or with the longest where `is_long`; empty when it has no label.
    pub label: String,
    /// What it met is the limit of the bytes of labels, not that of their number.
    pub is_long: bool,
    /// Where it is below its own limit and `limits.series` is used up: the metric with the most series, how many, and
    /// its label with the most distinct values.
    pub greediest: Option<(String, u32, String)>,
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
    /// Reads the table; each metric may have `series_per_metric`.
    pub(super) fn of(table: &SeriesTableGuard<'_>, series_per_metric: u32, worst: usize) -> Overflows {
        let mut all: Vec<_> = table.overflowed().iter().collect();
        if all.is_empty() {
            return Overflows::default();
        }
        all.sort_by_key(|known| (std::cmp::Reverse(known.count), known.metric.id));
        let others = all.len().saturating_sub(worst);
        let widest = |metric: &crate::event::Metric| table.widest_label(metric).unwrap_or_default();
        let greediest = table.greediest().map(|(metric, series)| (metric.name.to_string(), series, widest(&metric)));
        let of = |known: &Overflowed| {
            let (metric, is_long) = (&known.metric, known.limit == Limit::KeyBytes);
            Overflow {
                metric: metric.name.to_string(),
                count: known.count,
                label: if is_long { table.longest_label(metric).unwrap_or_default() } else { widest(metric) },
                is_long,
                greediest: greediest.clone().filter(|_| !is_long && table.series_of(metric) < series_per_metric),
            }
        };
        Overflows { worst: all.into_iter().take(worst).map(of).collect(), others }
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
        assert_eq!(Overflows::of(&table.lock(), 5, 10), Overflows::default());
        fill(&table, &greedy, 0..9);
        let found = Overflows::of(&table.lock(), 5, 10);
        assert_eq!((found.worst.len(), found.others), (1, 0));
        let own = &found.worst[0];
        assert_eq!((&*own.metric, own.count, &*own.label, &own.greediest), ("greedy_total", 4, "user", &None));
        // The next one meets the limit of all: it is not to blame, and its overflow series has no label to blame.
        fill(&table, &metric(2, "third_total", Kind::Counter), 0..3);
        fill(&table, &other, 0..3);
        let found = Overflows::of(&table.lock(), 5, 10);
        let other = found.worst.iter().find(|overflow| overflow.metric == "other_total").expect("it met the limit");
        assert_eq!((other.count, &*other.label), (3, ""));
        assert_eq!(other.greediest, Some(("greedy_total".into(), 5, "user".into())));
    }

    #[test]
    fn only_the_worst_are_named() {
        let table = SeriesTable::new(TableLimits { series: 1, series_per_metric: 5 }, Labels::empty());
        for n in 0..50 {
            fill(&table, &metric(n, &format!("m{n}_total"), Kind::Counter), 0..n + 1);
        }
        let found = Overflows::of(&table.lock(), 5, 10);
        assert_eq!((found.worst.len(), found.others), (10, 39));
        assert_eq!((&*found.worst[0].metric, found.worst[0].count), ("m49_total", 50));
    }
}
