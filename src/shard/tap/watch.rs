//! A decoder's side of the taps: which are open now, what their filters say of a series, where in a batch they look.
//!
//! In: events and samples of one batch. Out: items, and counts. Owns: verdicts of filters by series. Invariants: a verdict
//! is asked for once a series; a batch that no tap can show anything of is only counted.
//!
//! When more passes than the limit, a place in the bucket mostly comes free between two batches. If the first item of the
//! next one took it, a tap would show the first line of datagrams only: so the search begins at a random place instead.

use super::{RawSubject, SeriesSubject, Tap, TapHub, TapItem, TapKind, TapKinds, text_of};
use crate::event::{DropReason, Kind, Labels, Metric, Slot, SourceIndex, Timestamp};
use crate::rule::typed::Amount;
use crate::shard::JsonOptions;
use crate::shard::tap::TapSubject;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Verdicts that are kept: past it they are asked for again.
const VERDICTS_MAX: usize = 1 << 20;

/// What was recorded of a sample.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Recorded {
    /// Its value.
    pub(in crate::shard) amount: Amount,
    /// In 1/4096.
    pub(in crate::shard) weight: u64,
    /// Its event time.
    pub(in crate::shard) time: Timestamp,
    /// Why it was dropped.
    pub(in crate::shard) dropped: Option<DropReason>,
}

/// A tap, and what this decoder knows of it.
struct Watched {
    tap: Arc<Tap>,
    verdicts: HashMap<(u8, u32), bool, foldhash::fast::FixedState>,
    /// It looks at the source of this batch.
    is_active: bool,
    /// The first place of this batch that may be shown.
    from: usize,
}

/// See the file's head.
pub(in crate::shard) struct Watcher {
    generation: u64,
    watched: Vec<Watched>,
    /// Of the batch under way.
    source: SourceIndex,
    now: Timestamp,
    dice: u64,
}

impl Watcher {
    /// A watcher that has looked at nothing. `seed` decides where in a batch it looks.
    pub(in crate::shard) fn new(seed: u64) -> Watcher {
        Watcher { generation: 0, watched: Vec::new(), source: SourceIndex(0), now: Timestamp(0), dice: seed | 1 }
    }

    /// Begins a batch of so many places (bytes or items) from one source. False when nobody looks at it.
    pub(in crate::shard) fn begin(
        &mut self,
        hub: &TapHub,
        kinds: TapKinds,
        source: SourceIndex,
        now: Timestamp,
        places: usize,
    ) -> bool {
        let generation = hub.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.generation = generation;
            let known = std::mem::take(&mut self.watched);
            self.watched = hub
                .snapshot()
                .into_iter()
                .map(|tap| {
                    let was = known.iter().find(|watched| Arc::ptr_eq(&watched.tap, &tap));
                    let verdicts = was.map(|was| was.verdicts.clone()).unwrap_or_default();
                    Watched { tap, verdicts, is_active: false, from: 0 }
                })
                .collect();
        }
        (self.source, self.now) = (source, now);
        let mut is_any = false;
        for at in 0..self.watched.len() {
            let roll = self.roll();
            let watched = &mut self.watched[at];
            watched.is_active = watched.tap.looks_at(kinds, source);
            watched.from = if watched.tap.limiter.is_starved(now) { (roll % places.max(1) as u64) as usize } else { 0 };
            is_any |= watched.is_active;
        }
        is_any
    }

    /// True when no tap can show anything of this batch and none has a filter: how many items it holds is all that
    /// must be known.
    pub(in crate::shard) fn only_counts(&self) -> bool {
        let only_counts = |tap: &Tap| tap.filter.is_none() && tap.limiter.available(self.now) == 0;
        self.watched.iter().filter(|watched| watched.is_active).all(|watched| only_counts(&watched.tap))
    }

    /// Counts the items of a batch that nobody looked into.
    pub(in crate::shard) fn leave_out(&self, events: u64, samples: u64) {
        for watched in self.watched.iter().filter(|watched| watched.is_active) {
            let of = |kind, count| if watched.tap.has(kind) { count } else { 0 };
            let count = of(TapKind::Events, events) + of(TapKind::Samples, samples);
            if count > 0 {
                watched.tap.limiter.starve();
                watched.tap.leave_out(count);
            }
        }
    }

    /// An input that was understood, whose last byte is at this place of the batch.
    pub(in crate::shard) fn event(&mut self, at: usize, text: &[u8], options: Option<&JsonOptions>) {
        let (source, time) = (self.source, self.now);
        let subject = RawSubject::new(text, options);
        for watched in self.watched.iter_mut().filter(|w| w.is_active && w.tap.has(TapKind::Events)) {
            if watched.tap.filter.as_ref().is_some_and(|filter| !filter.accepts(&subject)) {
                continue;
            }
            watched.show(at, time, || TapItem::Event {
                time,
                source,
                name: subject.name().into_owned(),
                text: text_of(text),
            });
        }
    }

    /// A sample, at this place of the batch. `series` is asked where the slot alone does not say enough.
    pub(in crate::shard) fn sample(
        &mut self,
        at: usize,
        place: (Kind, Option<Slot>),
        recorded: Recorded,
        series: &dyn Fn() -> Option<(Arc<Metric>, Labels)>,
    ) {
        let (source, arrival) = (self.source, self.now);
        for watched in self.watched.iter_mut().filter(|w| w.is_active && w.tap.has(TapKind::Samples)) {
            if !watched.accepts(place, series) {
                continue;
            }
            // Who left memory in between is counted among those not shown.
            let Some((metric, labels)) = watched.may_show(at, arrival).then(series).flatten() else {
                watched.tap.leave_out(1);
                continue;
            };
            let Recorded { amount, weight, time, dropped } = recorded;
            let make = || TapItem::Sample { arrival, source, metric, labels, amount, weight, time, dropped };
            watched.show(at, arrival, make);
        }
    }

    /// Slots mean something else from here on.
    pub(in crate::shard) fn forget(&mut self) {
        for watched in &mut self.watched {
            watched.verdicts.clear();
        }
    }

    /// The next of a row of numbers that begins at the seed (xorshift64*).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

impl Watched {
    /// Whether an item here would be shown: asked before its series is looked up.
    fn may_show(&self, at: usize, now: Timestamp) -> bool {
        if at < self.from {
            return false;
        }
        let is_empty = self.tap.limiter.available(now) == 0;
        if is_empty {
            self.tap.limiter.starve();
        }
        !is_empty
    }

    fn show(&self, at: usize, now: Timestamp, make: impl FnOnce() -> TapItem) {
        if at < self.from {
            self.tap.leave_out(1);
        } else {
            self.tap.offer(now, make);
        }
    }

    fn accepts(
        &mut self,
        (kind, slot): (Kind, Option<Slot>),
        series: &dyn Fn() -> Option<(Arc<Metric>, Labels)>,
    ) -> bool {
        let Some(filter) = &self.tap.filter else { return true };
        let ask = || {
            series()
                .is_some_and(|(metric, labels)| filter.accepts(&SeriesSubject { name: &metric.name, labels: &labels }))
        };
        let Some(slot) = slot else { return ask() };
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        *self.verdicts.entry((kind as u8, slot.0)).or_insert_with(ask)
    }
}
