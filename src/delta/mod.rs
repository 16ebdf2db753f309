//! What one tick adds: the combiner that a shard fills and the store drains, and its encoded form.
//!
//! In: resolved samples (slot, units, cell). Out: *parts*: byte rows sorted by (kind, series id), the
//! values of the commit log. Owns: the table of live series, which gives slots. No I/O, no clock.
//! Invariants: every aggregate merges associatively and commutatively to the bit (V1); draining a
//! combiner leaves it equal to a new one; `decode(encode(x)) == x`.
//!
//! Reading order: [`SeriesTable`] (who gets a slot), [`Combiner`] (what is kept between two ticks),
//! [`part`] (how it is written).

mod bucket;
mod cells;
mod combiner;
mod dense;
mod encode;
pub mod epoch;
pub mod kept;
mod pages;
pub mod pair;
pub mod part;
mod prefetch;
mod record;
mod segment;
mod side;
mod table;
mod tally;
pub mod varint;

pub use bucket::BucketRule;
pub use combiner::Combiner;
pub use encode::{EncodedPart, Encoder, IdMap, encode, write_distribution};
pub use pages::{PageBox, PageVec};
pub use prefetch::{prefetch, prefetch_to_write};
pub use side::{CounterSum, DistributionSum, GaugeSum};
pub use table::{
    Interned, Limit, Overflowed, SERIES_KEY_BYTES, SeriesEntry, SeriesTable, SeriesTableGuard, TableLimits,
};
pub use tally::{Edge, SourceTally};

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod testing {
    //! A metric without a pipeline file, for unit tests.
    use crate::event::{Expose, Group, Kind, Metric, MetricId, Scale, Unit};
    use crate::sketch::Digits;
    use std::sync::Arc;

    /// A metric with defaults.
    pub(crate) fn metric(id: u32, name: &str, kind: Kind) -> Arc<Metric> {
        Arc::new(Metric {
            id: MetricId(id),
            name: name.into(),
            kind,
            unit: Unit::None,
            scale: if kind == Kind::Counter { Scale::NANO } else { Scale::MICRO },
            help: "".into(),
            declared: false,
            label_names: None,
            expose: Expose { summary: true, histogram: false },
            quantiles: Arc::new([0.5, 0.9, 0.95, 0.99]),
            digits: Digits::Two,
            window_slices: 30,
            buckets: None,
            group: Group::Main,
            idle: None,
            holds: None,
        })
    }
}
