//! What a series is at a time, by rule Q1: counters from their total, gauges from their slices, windows from theirs.
//!
//! In: one series' rows. Out: its value at a slice edge, its points, and functions of a range. Times are slice edges:
//! edge n is the moment where slice n begins, or, where only coarser slots are held, where one of those does. Invariants: an increase is an exact sum of integers; a counter exists from
//! `_created` to its last sample + `idle`; a gauge is its last set of the five minutes before.

use super::cover::Zones;
use super::data::{GaugeRow, SeriesRows};
use super::over::{TimedValue, growth, over_points, seconds};
use super::plan::Over;
use super::vector::ABSENT;
use crate::event::{Metric, Scale};
use std::cell::Cell;

/// Nanoseconds of a slice, and where edges lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges<'z> {
    pub(super) width: i64,
    pub(super) zones: &'z Zones,
}

impl Edges<'_> {
    pub(super) fn time(self, edge: u32) -> i64 {
        i64::from(edge).saturating_mul(self.width)
    }

    /// The edge at a moment or before it.
    pub(super) fn at(self, time: i64) -> u32 {
        self.zones.floor(time.div_euclid(self.width).clamp(0, i64::from(u32::MAX)) as u32)
    }

    /// The edge at least so many slices before another.
    pub(super) fn before(self, edge: u32, slices: u32) -> u32 {
        self.zones.before(edge, slices)
    }

    /// The next edge behind one, or the end of a slot.
    pub(super) fn next(self, edge: u32) -> u32 {
        self.zones.slot_end(edge)
    }
}

impl<'z> Edges<'z> {
    /// Every edge behind `from`, up to `to`.
    pub(super) fn between(self, from: u32, to: u32) -> impl Iterator<Item = u32> + use<'z> {
        let next = move |edge: &u32| Some(self.next(*edge)).filter(|next| next > edge);
        std::iter::successors(next(&from), next).take_while(move |edge| *edge <= to)
    }
}

/// When a series is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'z> {
    created: i64,
    until: i64,
    edges: Edges<'z>,
}

impl<'z> Life<'z> {
    pub(super) fn new(series: &SeriesRows<'_>, metric: &Metric, edges: Edges<'z>) -> Life<'z> {
        let until = metric.idle.map_or(i64::MAX, |idle| series.last.0.saturating_add(idle));
        Life { created: series.created.0, until, edges }
    }

    pub(super) fn is_at(&self, edge: u32) -> bool {
        let time = self.edges.time(edge);
        self.created <= time && time <= self.until
    }

    /// True when it is there at some time of `[from, to]`, in nanoseconds.
    pub(super) fn is_between(&self, from: i64, to: i64) -> bool {
        self.created <= to && from <= self.until
    }

    /// The first and the last edge at which it is there.
    fn edges(&self) -> (u32, u32) {
        let width = self.edges.width;
        let edge = |at: i64| at.clamp(0, i64::from(u32::MAX)) as u32;
        let first = self.created.div_euclid(width) + i64::from(self.created.rem_euclid(width) > 0);
        (edge(first), edge(self.until.div_euclid(width)))
    }

    /// True when it is there at some time of a range.
    pub(super) fn is_in(&self, from: u32, to: u32) -> bool {
        self.created <= self.edges.time(to) && self.edges.time(from) <= self.until
    }
}

/// Of lives as [`Cumulative::lives`]: what those before the one at a time came to.
pub(super) fn earlier(lives: &[(i64, i128)], time: i64) -> i128 {
    lives[..lives.partition_point(|(at, _)| *at <= time)].last().map_or(0, |(_, base)| *base)
}

/// A figure that only grows, but where it was reset: a counter, or a count, sum or bucket of a distribution.
pub(super) struct Cumulative<'s> {
    pub(super) life: Life<'s>,
    /// Slices with rows, ascending; a slice may stand several times.
    pub(super) slices: &'s [u32],
    /// One longer than `slices`: Σ of the rows before each.
    pub(super) sums: &'s [i128],
    /// At the end of the span, of all lives together.
    pub(super) total: i128,
    /// When each life but the first began, ascending, and what all before it came to (R3).
    pub(super) lives: &'s [(i64, i128)],
    /// False for a sum of values that may be negative.
    pub(super) grows: bool,
    /// What one is.
    pub(super) one: f64,
    /// True when the value at a time is a whole number, rounded half up (V2).
    pub(super) rounds: bool,
    /// Where the last range began and ended: the next one is near.
    pub(super) near: [Cell<usize>; 2],
}

/// Places looked at one by one before a search costs less.
const NEAR: usize = 8;

impl Cumulative<'_> {
    fn before(&self, edge: u32) -> i128 {
        self.sums[self.place(1, edge)]
    }

    /// How many rows stand before an edge: searched for from where the last one was (a search from nowhere for each of a
    /// thousand steps is most of what a rate over a day costs).
    fn place(&self, end: usize, edge: u32) -> usize {
        let mut at = self.near[end].get();
        if at > self.slices.len() || (at > 0 && self.slices[at - 1] >= edge) {
            at = 0;
        }
        let rest = &self.slices[at..];
        at += match rest.iter().take(NEAR).position(|slice| *slice >= edge) {
            Some(steps) => steps,
            None => rest.partition_point(|slice| *slice < edge),
        };
        self.near[end].set(at);
        at
    }

    /// Whether there are rows in a range, and what they come to.
    fn change(&self, from: u32, to: u32) -> (bool, f64) {
        let (from, to) = (self.place(0, from), self.place(1, to));
        (from < to, (self.sums[to] - self.sums[from]) as f64 / self.one)
    }

    /// What earlier lives than the one at an edge came to.
    fn earlier(&self, edge: u32) -> i128 {
        earlier(self.lives, self.life.edges.time(edge))
    }

    /// Its value at an edge: total − what came after, since the life began.
    pub(super) fn at(&self, edge: u32) -> f64 {
        // Of what lies before everything that is held only the sum is known.
        if !self.life.is_at(edge) || edge < self.life.edges.zones.first() {
            return ABSENT;
        }
        let after = self.sums[self.sums.len() - 1] - self.before(edge);
        let mut units = self.total - after - self.earlier(edge);
        if self.grows && !self.lives.is_empty() {
            // What was reset may have held samples of slices that had not begun.
            units = units.max(0);
        }
        match self.rounds {
            true => ((units + (self.one as i128) / 2).div_euclid(self.one as i128)) as f64,
            false => units as f64 / self.one,
        }
    }

    pub(super) fn points(&self, from: u32, to: u32, out: &mut Vec<TimedValue>) {
        let (first, last) = self.life.edges();
        let edges = self.life.edges;
        for edge in edges.between(from.max(edges.before(first, 1)), to.min(last)).filter(|edge| *edge >= first) {
            out.push((edges.time(edge), self.at(edge)));
        }
    }

    pub(super) fn over(&self, over: Over, from: u32, to: u32, parameter: f64, points: &mut Vec<TimedValue>) -> f64 {
        let edges = self.life.edges;
        match over {
            Over::Increase | Over::Delta | Over::Rate => {
                let (has_rows, change) = self.change(from, to);
                if !has_rows && !self.life.is_in(from, to) {
                    return ABSENT;
                }
                if over == Over::Rate { change / seconds(edges.time(to - from)) } else { change }
            }
            Over::Irate | Over::Idelta => {
                let last = edges.before(to, 1).max(from);
                let (has_rows, change) = self.change(last, to);
                if !has_rows && !self.life.is_at(to) {
                    return ABSENT;
                }
                // Before the epoch's first slice there is none.
                if over == Over::Irate { change / seconds(edges.time((to - last).max(1))) } else { change }
            }
            _ => {
                points.clear();
                self.points(from, to, points);
                over_points(over, points, edges.time(to), parameter).unwrap_or(ABSENT)
            }
        }
    }
}

/// A gauge: one row per slice that saw a set, merged.
pub(super) struct Gauge<'s> {
    pub(super) rows: &'s [GaugeRow],
    pub(super) scale: Scale,
    pub(super) edges: Edges<'s>,
    /// Slices it looks back.
    pub(super) lookback: u32,
}

impl Gauge<'_> {
    /// Rows of one slice become one; `None` when each slice has one row already.
    pub(super) fn merged(rows: &[GaugeRow]) -> Option<Vec<GaugeRow>> {
        let is_plain =
            rows.windows(2).all(|pair| pair[0].slice < pair[1].slice) && rows.iter().all(|row| row.count > 0);
        if is_plain {
            return None;
        }
        let mut merged: Vec<GaugeRow> = Vec::with_capacity(rows.len());
        for row in rows.iter().filter(|row| row.count > 0) {
            match merged.last_mut() {
                Some(last) if last.slice == row.slice => {
                    if row.order >= last.order {
                        (last.last, last.order) = (row.last, row.order);
                    }
                    (last.min, last.max) = (last.min.min(row.min), last.max.max(row.max));
                    (last.sum, last.count) = (last.sum + row.sum, last.count + row.count);
                }
                _ => merged.push(*row),
            }
        }
        Some(merged)
    }

    fn run(&self, from: u32, to: u32) -> &[GaugeRow] {
        let start = self.rows.partition_point(|row| row.slice.0 < from);
        let end = self.rows.partition_point(|row| row.slice.0 < to);
        &self.rows[start..end.max(start)]
    }

    /// The newest set of the lookback before an edge.
    fn row_at(&self, edge: u32) -> Option<&GaugeRow> {
        self.run(self.edges.before(edge, self.lookback), edge).last()
    }

    pub(super) fn at(&self, edge: u32) -> f64 {
        self.row_at(edge).map_or(ABSENT, |row| row.last)
    }

    /// Seconds of the end of the slice that [`at`](Self::at) shows.
    pub(super) fn time_at(&self, edge: u32) -> f64 {
        self.row_at(edge).map_or(ABSENT, |row| seconds(self.edges.time(self.edges.next(row.slice.0))))
    }

    fn point(&self, row: &GaugeRow) -> TimedValue {
        (self.edges.time(self.edges.next(row.slice.0)), row.last)
    }

    pub(super) fn points(&self, from: u32, to: u32, out: &mut Vec<TimedValue>) {
        out.extend(self.run(from, to).iter().map(|row| self.point(row)));
    }

    /// Rows that a function of a range looks at.
    pub(super) fn cost(&self, from: u32, to: u32) -> usize {
        self.run(from, to).len()
    }

    pub(super) fn over(&self, over: Over, from: u32, to: u32, parameter: f64, points: &mut Vec<TimedValue>) -> f64 {
        let run = self.run(from, to);
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return ABSENT };
        let sum = || self.scale.value_of(run.iter().map(|row| row.sum).sum());
        let count = || run.iter().map(|row| row.count).sum::<u64>() as f64;
        match over {
            Over::Last => last.last,
            Over::First => first.last,
            Over::Present => 1.0,
            Over::Min => run.iter().map(|row| row.min).fold(f64::INFINITY, f64::min),
            Over::Max => run.iter().map(|row| row.max).fold(f64::NEG_INFINITY, f64::max),
            Over::Sum => sum(),
            Over::Count => count(),
            Over::Avg => sum() / count(),
            _ => {
                points.clear();
                // What it changed since the range began is told from what it was then.
                let before =
                    if matches!(over, Over::Delta | Over::Increase | Over::Rate) { self.row_at(from) } else { None };
                points.extend(before.map(|row| (self.edges.time(from), row.last)));
                self.points(from, to, points);
                match over {
                    Over::Rate if points.len() >= 2 => growth(points) / seconds(self.edges.time(to - from)),
                    _ => over_points(over, points, self.edges.time(to), parameter).unwrap_or(ABSENT),
                }
            }
        }
    }
}

/// A figure of a sliding window, known at the edges that will be asked: quantiles and distinct counts.
pub(super) struct Level<'s> {
    pub(super) life: Life<'s>,
    /// Ascending.
    pub(super) edges: &'s [u32],
    pub(super) values: &'s [f64],
}

impl Level<'_> {
    pub(super) fn at(&self, edge: u32) -> f64 {
        match self.edges.binary_search(&edge) {
            Ok(at) if self.life.is_at(edge) => self.values[at],
            _ => ABSENT,
        }
    }

    pub(super) fn points(&self, from: u32, to: u32, out: &mut Vec<TimedValue>) {
        let start = self.edges.partition_point(|edge| *edge <= from);
        let end = self.edges.partition_point(|edge| *edge <= to).max(start);
        for (edge, value) in self.edges[start..end].iter().zip(&self.values[start..end]) {
            if self.life.is_at(*edge) {
                out.push((self.life.edges.time(*edge), *value));
            }
        }
    }

    pub(super) fn over(&self, over: Over, from: u32, to: u32, parameter: f64, points: &mut Vec<TimedValue>) -> f64 {
        points.clear();
        self.points(from, to, points);
        over_points(over, points, self.life.edges.time(to), parameter).unwrap_or(ABSENT)
    }
}
