//! Selectors evaluated: every series they mean, at every time that is asked.
//!
//! In: a selector and the grid. Out: a [`Vector`], or points. Owns: the span that is read, scratch for one series.
//! Invariant: each target is read once, over the union of what all steps look at; a series' row depends on its own rows
//! only, so the order of series does not matter.

use super::cover::joined;
use super::data::{DistributionSlice, Extent, GaugeRow, Need, Rows, SeriesRows, Span};
use super::eval::{Budget, Context, EvalError};
use super::histogram::{Slider, row_sum, row_weight};
use super::labels::with_label;
use super::native::native;
use super::over::{TimedValue, seconds};
use super::plan::{Over, Selector};
use super::select::{Part, Target, accepts_number, read, targets};
use super::shapes::{Cumulative, Edges, Gauge, Level, Life};
use super::value::{Point, Quality, Series};
use super::vector::{ABSENT, Grid, Head, Vector, is_absent};
use super::{LOOKBACK, buckets};
use crate::event::{Kind, Labels, Slice, Timestamp, WEIGHT_ONE};
use crate::sketch::Distinct;
use crate::view::Reset;
use std::ops::Range;
use std::sync::Arc;

/// What is asked of each series.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    /// Its value.
    Instant,
    /// Seconds of the sample that is its value.
    Time,
    /// A function of a range, with a parameter per step.
    Over(Over, &'a [f64]),
}

/// The edges between which each step looks; equal ones for an instant.
pub(super) struct Windows<'z> {
    pub(super) steps: Vec<(u32, u32)>,
    pub(super) edges: Edges<'z>,
    lookback: u32,
}

impl<'z> Windows<'z> {
    fn new(context: &Context<'z>, selector: &Selector, grid: &Grid) -> Windows<'z> {
        let width = context.data.slice_width().nanos();
        let slices = |nanos: i64| u32::try_from((nanos.max(0) as u64).div_ceil(width as u64)).unwrap_or(u32::MAX);
        let edges = Edges { width, zones: context.data.zones() };
        let range = slices(selector.range);
        let step = |step| {
            // Floored to an edge; a range is rounded up to whole slots and covers those before the edge (Q1).
            let to = edges.at(context.time(selector.at, selector.offset, grid, step));
            (edges.before(to, range), to)
        };
        Windows { steps: (0..grid.steps).map(step).collect(), edges, lookback: slices(LOOKBACK) }
    }

    /// Every edge at which a sliding window will be asked: ends of ranges, and the points inside them.
    fn level_edges(&self) -> Vec<u32> {
        let mut edges = Vec::new();
        for (from, to) in &self.steps {
            match from == to {
                true => edges.push(*to),
                false => edges.extend(self.edges.between(*from, *to)),
            }
        }
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    fn points(&self) -> usize {
        self.steps.iter().map(|(from, to)| (to - from) as usize).fold(0, usize::saturating_add)
    }
}

/// Memory of one series, used again by the next.
#[derive(Default)]
struct Scratch {
    slices: Vec<u32>,
    sums: Vec<i128>,
    lives: Vec<(i64, i128)>,
    gauge: Vec<GaugeRow>,
    quality: Vec<Option<Quality>>,
}

impl Scratch {
    /// When a series' lives began, and what of each figure had come together then.
    fn live(&mut self, resets: &[Reset], figure: impl Fn(&Reset) -> i128) {
        self.lives.clear();
        self.lives.extend(resets.iter().map(|reset| (reset.at.0, figure(reset))));
    }

    /// Prefix sums of a series' rows.
    fn sum_up(&mut self, rows: impl Iterator<Item = (Slice, i128)>) {
        self.slices.clear();
        self.sums.clear();
        self.sums.push(0);
        let mut sum = 0;
        for (slice, amount) in rows {
            sum += amount;
            self.slices.push(slice.0);
            self.sums.push(sum);
        }
    }
}

/// A series as a function of edges; what every answer is made of.
enum Shape<'s> {
    Cumulative(Cumulative<'s>),
    Gauge(Gauge<'s>),
    Level(Level<'s>),
}

impl Shape<'_> {
    /// A value per step into `row`; what ranges look at again and again counts each time.
    fn fill(
        &self,
        budget: &Budget<'_>,
        windows: &Windows<'_>,
        ask: Ask<'_>,
        points: &mut Vec<TimedValue>,
        row: &mut Vec<f64>,
    ) -> Result<(), EvalError> {
        row.clear();
        for (step, (from, to)) in windows.steps.iter().copied().enumerate() {
            row.push(match ask {
                Ask::Instant => self.at(to),
                Ask::Time => match self {
                    Shape::Gauge(shape) => shape.time_at(to),
                    _ if is_absent(self.at(to)) => ABSENT,
                    _ => seconds(windows.edges.time(to)),
                },
                Ask::Over(over, parameter) => {
                    points.clear();
                    let value = match self {
                        Shape::Cumulative(shape) => shape.over(over, from, to, parameter[step], points),
                        Shape::Gauge(shape) => {
                            budget.samples(shape.cost(from, to))?;
                            shape.over(over, from, to, parameter[step], points)
                        }
                        Shape::Level(shape) => shape.over(over, from, to, parameter[step], points),
                    };
                    budget.samples(points.len())?;
                    value
                }
            });
        }
        Ok(())
    }

    fn at(&self, edge: u32) -> f64 {
        match self {
            Shape::Cumulative(shape) => shape.at(edge),
            Shape::Gauge(shape) => shape.at(edge),
            Shape::Level(shape) => shape.at(edge),
        }
    }

    fn points(&self, windows: &Windows<'_>, out: &mut Vec<TimedValue>) {
        out.clear();
        for (from, to) in &windows.steps {
            match self {
                Shape::Cumulative(shape) => shape.points(*from, *to, out),
                Shape::Gauge(shape) => shape.points(*from, *to, out),
                Shape::Level(shape) => shape.points(*from, *to, out),
            }
        }
    }
}

/// What all steps of one target look at together.
struct Looked {
    span: Span,
    windows: Vec<Range<u32>>,
    /// Ascending; `None` where rows are needed one by one.
    edges: Option<Vec<u32>>,
    need: Need,
}

impl Looked {
    fn new(target: &Target, windows: &Windows<'_>, level_edges: &[u32], ask: Option<Ask<'_>>) -> Looked {
        let edges = windows.edges;
        let window = target.metric.window_slices;
        let (mut runs, mut merges) = (Vec::with_capacity(windows.steps.len()), true);
        match (target.part, target.metric.kind) {
            (Part::Value, Kind::Gauge) => {
                merges = match ask {
                    Some(Ask::Instant) => true,
                    Some(Ask::Over(over, _)) => over.merges_gauges(),
                    Some(Ask::Time) | None => false,
                };
                let looks_back = match ask {
                    Some(Ask::Instant | Ask::Time) => true,
                    Some(Ask::Over(over, _)) => matches!(over, Over::Delta | Over::Increase | Over::Rate),
                    None => false,
                };
                let back = |from| if looks_back { edges.before(from, windows.lookback) } else { from };
                runs.extend(windows.steps.iter().map(|(from, to)| back(*from)..*to));
            }
            (Part::Value, Kind::Set) | (Part::Quantile, _) => {
                runs.extend(level_edges.iter().map(|edge| edges.before(*edge, window)..*edge));
            }
            (Part::Native, _) if matches!(ask, Some(Ask::Instant | Ask::Time)) => {
                runs.extend(windows.steps.iter().map(|(_, to)| edges.before(*to, window)..*to));
            }
            _ => {
                merges = match ask {
                    Some(Ask::Instant | Ask::Time) => true,
                    Some(Ask::Over(over, _)) => over.keeps_cells(),
                    None => false,
                };
                runs.extend(windows.steps.iter().map(|(from, to)| *from..*to));
                if matches!(ask, Some(Ask::Over(Over::Irate | Over::Idelta, _))) {
                    let last = |(from, to): &(u32, u32)| edges.before(*to, 1).max(*from)..*to;
                    runs.extend(windows.steps.iter().map(last));
                }
            }
        }
        let from = runs.iter().map(|run| run.start).min().unwrap_or(0);
        let to = windows.steps.iter().map(|step| step.1).max().unwrap_or(0);
        let span = Span { from: Slice(from), to: Slice(to.max(from)) };
        let need = need(target, span, ask);
        let edges = merges.then(|| {
            let mut edges: Vec<u32> = runs.iter().flat_map(|run| [run.start, run.end]).collect();
            edges.sort_unstable();
            edges.dedup();
            edges
        });
        // A total at an edge is told from all that came after it.
        let runs = if need.totals { std::iter::once(span.from.0..span.to.0).collect() } else { runs };
        Looked { span, windows: joined(runs), edges, need }
    }

    fn extent(&self) -> Extent<'_> {
        Extent { span: self.span, windows: &self.windows, edges: self.edges.as_deref() }
    }
}

fn need(target: &Target, span: Span, ask: Option<Ask<'_>>) -> Need {
    // A difference needs no total: what came after the span, which a total of the past is told by, stays unread.
    let is_difference = matches!(ask, Some(Ask::Over(over, _)) if over.keeps_cells());
    let is_cumulative = match target.part {
        Part::Value => target.metric.kind == Kind::Counter,
        Part::Count | Part::Sum | Part::Bucket | Part::Native => true,
        Part::Quantile => false,
    };
    Need {
        totals: is_cumulative && !is_difference,
        rows: !span.is_empty(),
        cells: matches!(target.part, Part::Bucket | Part::Quantile | Part::Native),
    }
}

/// An instant vector of a selector.
pub(super) fn produce(context: &Context<'_>, selector: usize, grid: &Grid, ask: Ask<'_>) -> Result<Vector, EvalError> {
    let selector = &context.selectors[selector];
    let windows = Windows::new(context, selector, grid);
    let mut vector = Vector::new(grid.steps);
    let (mut scratch, mut points, mut row) = (Scratch::default(), Vec::new(), Vec::new());
    for target in targets(context.data, selector) {
        let level_edges = level_edges(context, &target, &windows)?;
        let looked = Looked::new(&target, &windows, &level_edges, Some(ask));
        let need = looked.need;
        let reading = Reading {
            budget: &context.budget,
            target: &target,
            selector,
            windows: &windows,
            level_edges: &level_edges,
            needs_totals: need.totals,
        };
        read(context.data, &context.budget, &target, selector, looked.extent(), need, &mut |series| {
            context.budget.samples(grid.steps)?;
            if target.part == Part::Native {
                return native(&context.budget, &mut vector, &target, series, &windows, ask);
            }
            let fill = &mut |labels, shape: &Shape<'_>, quality: &[Option<Quality>]| {
                shape.fill(&context.budget, &windows, ask, &mut points, &mut row)?;
                if row.iter().all(|value| is_absent(*value)) {
                    return Ok(());
                }
                context.budget.samples(grid.steps)?;
                vector.push_row(Head { name: Some(Arc::clone(&target.name)), labels }, &row);
                keep_quality(&mut vector, &windows, ask, quality, &level_edges);
                Ok(())
            };
            shapes(&reading, series, &mut scratch, fill)
        })?;
    }
    Ok(vector)
}

/// The last row is one of quantiles: how right each is.
fn keep_quality(
    vector: &mut Vector,
    windows: &Windows<'_>,
    ask: Ask<'_>,
    quality: &[Option<Quality>],
    level_edges: &[u32],
) {
    if quality.is_empty() || !matches!(ask, Ask::Instant) {
        return;
    }
    let at = vector.heads.len() - 1;
    for (step, (_, to)) in windows.steps.iter().enumerate() {
        if vector.has(at, step)
            && let Ok(edge) = level_edges.binary_search(to)
            && let Some(quality) = quality[edge]
        {
            vector.set_quality(at, step, quality);
        }
    }
}

fn level_edges(context: &Context<'_>, target: &Target, windows: &Windows<'_>) -> Result<Vec<u32>, EvalError> {
    let is_level = target.part == Part::Quantile || (target.part == Part::Value && target.metric.kind == Kind::Set);
    if !is_level {
        return Ok(Vec::new());
    }
    context.budget.samples(windows.points())?;
    Ok(windows.level_edges())
}

/// The points of a range selector at the only step there is.
pub(super) fn produce_points(context: &Context<'_>, selector: usize, grid: &Grid) -> Result<Vec<Series>, EvalError> {
    let mut all = Vec::new();
    each_points(context, &context.selectors[selector], grid, &mut |name, labels, points| {
        let point =
            |&(time, value): &TimedValue| Point { time: Timestamp(time), value, histogram: None, quality: None };
        let points = points.iter().map(point).collect();
        all.push(Series { name: Some(Arc::clone(name)), labels, points });
        Ok(())
    })?;
    Ok(all)
}

/// Called with the name and the labels of each series, and its points, which are never none.
pub(super) type EachPoints<'v> = dyn FnMut(&Arc<str>, Labels, &[TimedValue]) -> Result<(), EvalError> + 'v;

/// Visits the series of a range selector one by one, so that the points of only one are in memory.
pub(super) fn each_points(
    context: &Context<'_>,
    selector: &Selector,
    grid: &Grid,
    visit: &mut EachPoints<'_>,
) -> Result<(), EvalError> {
    let windows = Windows::new(context, selector, grid);
    let mut scratch = Scratch::default();
    let mut points = Vec::new();
    for target in targets(context.data, selector) {
        if target.part == Part::Native {
            continue;
        }
        let level_edges = level_edges(context, &target, &windows)?;
        let looked = Looked::new(&target, &windows, &level_edges, None);
        let need = looked.need;
        let reading = Reading {
            budget: &context.budget,
            target: &target,
            selector,
            windows: &windows,
            level_edges: &level_edges,
            needs_totals: need.totals,
        };
        read(context.data, &context.budget, &target, selector, looked.extent(), need, &mut |series| {
            shapes(&reading, series, &mut scratch, &mut |labels, shape, _| {
                context.budget.samples(windows.points())?;
                shape.points(&windows, &mut points);
                if points.is_empty() {
                    return Ok(());
                }
                visit(&target.name, labels, &points)
            })
        })?;
    }
    Ok(())
}

/// Called with the labels of each series that a target makes of one, its shape, and the quality of its levels.
type Emit<'e> = dyn FnMut(Labels, &Shape<'_>, &[Option<Quality>]) -> Result<(), EvalError> + 'e;

/// What one target is read for.
struct Reading<'a> {
    budget: &'a Budget<'a>,
    target: &'a Target,
    selector: &'a Selector,
    windows: &'a Windows<'a>,
    level_edges: &'a [u32],
    /// False where only differences are asked.
    needs_totals: bool,
}

/// Every series that a target makes of one stored series.
fn shapes(
    reading: &Reading<'_>,
    series: &SeriesRows<'_>,
    scratch: &mut Scratch,
    emit: &mut Emit<'_>,
) -> Result<(), EvalError> {
    let Reading { budget, target, selector, windows, level_edges, needs_totals } = *reading;
    let metric = &*target.metric;
    let life = Life::new(series, metric, windows.edges);
    let labels = || series.labels.clone();
    let scale = metric.scale;
    match (target.part, series.rows) {
        (Part::Value, Rows::Counter { total, increments }) => {
            scratch.sum_up(increments.iter().copied());
            scratch.live(series.resets, |reset| reset.total);
            let Scratch { slices, sums, lives, .. } = scratch;
            let one = 1e9;
            let near = Default::default();
            let shape = Cumulative { life, slices, sums, total, lives, grows: true, one, rounds: false, near };
            emit(labels(), &Shape::Cumulative(shape), &[])
        }
        (Part::Value, Rows::Gauge(rows)) => {
            let rows = match Gauge::merged(rows) {
                Some(merged) => {
                    scratch.gauge = merged;
                    &scratch.gauge
                }
                None => rows,
            };
            let shape = Gauge { rows, scale, edges: windows.edges, lookback: windows.lookback };
            emit(labels(), &Shape::Gauge(shape), &[])
        }
        (Part::Value, Rows::Set(rows)) => {
            let merged = rows.len().min(metric.window_slices as usize);
            budget.samples(level_edges.len().saturating_mul(merged))?;
            let values: Vec<f64> = level_edges
                .iter()
                .map(|edge| distinct(rows, windows.edges.before(*edge, metric.window_slices), *edge))
                .collect();
            emit(labels(), &Shape::Level(Level { life, edges: level_edges, values: &values }), &[])
        }
        (Part::Count | Part::Sum, Rows::Distribution { totals, rows }) => {
            let is_count = target.part == Part::Count;
            let amount = |slice: &DistributionSlice<'_>| match is_count {
                true => row_weight(slice) as i128,
                false => row_sum(slice),
            };
            scratch.sum_up(rows.iter().map(|slice| (slice.slice, amount(slice))));
            scratch.live(series.resets, |reset| if is_count { reset.weight as i128 } else { reset.total });
            let Scratch { slices, sums, lives, .. } = scratch;
            let (total, one) = match is_count {
                true => (totals.weight as i128, WEIGHT_ONE as f64),
                false => (totals.sum, WEIGHT_ONE as f64 * scale.per_one()),
            };
            let near = Default::default();
            let shape = Cumulative { life, slices, sums, total, lives, grows: is_count, one, rounds: is_count, near };
            emit(labels(), &Shape::Cumulative(shape), &[])
        }
        (Part::Bucket, Rows::Distribution { totals, rows }) => {
            let bounds = buckets::bounds(metric);
            budget.samples(rows.len().saturating_mul(bounds.units.len() + 1))?;
            let weights = buckets::weights(metric, &bounds, rows);
            for (at, bound) in bounds.bounds.iter().copied().chain([f64::INFINITY]).enumerate() {
                let text = buckets::text(bound);
                if !accepts_number(&selector.matchers, "le", bound, &text) {
                    continue;
                }
                let total = match totals.buckets.get(at) {
                    _ if bound.is_infinite() => totals.weight,
                    Some(total) => *total,
                    // Without declared buckets nothing cumulative is kept below `+Inf` (V5): only ranges answer.
                    None if needs_totals => continue,
                    None => 0,
                };
                let width = bounds.bounds.len() + 1;
                let amounts = weights.iter().skip(at).step_by(width);
                scratch.sum_up(rows.iter().zip(amounts).map(|(slice, weight)| (slice.slice, *weight as i128)));
                scratch.live(series.resets, |reset| match reset.buckets.get(at) {
                    _ if bound.is_infinite() => reset.weight as i128,
                    found => found.map_or(0, |weight| *weight as i128),
                });
                let Scratch { slices, sums, lives, .. } = &*scratch;
                let one = WEIGHT_ONE as f64;
                let (total, near) = (total as i128, Default::default());
                let shape = Cumulative { life, slices, sums, total, lives, grows: true, one, rounds: true, near };
                emit(with_label(series.labels, "le", &text)?, &Shape::Cumulative(shape), &[])?;
            }
            Ok(())
        }
        (Part::Quantile, Rows::Distribution { rows, .. }) => {
            for q in metric.quantiles.iter() {
                let text = buckets::text(*q);
                if !accepts_number(&selector.matchers, "quantile", *q, &text) {
                    continue;
                }
                let mut slider = Slider::new(rows, scale);
                scratch.quality.clear();
                let mut values = Vec::with_capacity(level_edges.len());
                for edge in level_edges {
                    let from = windows.edges.before(*edge, metric.window_slices);
                    budget.samples(slider.cost(from, *edge))?;
                    let cells = slider.advance(from, *edge);
                    cells.seconds = seconds(windows.edges.time(edge - from));
                    let (value, quality) = cells.quantile(*q);
                    values.push(value);
                    scratch.quality.push(Some(quality));
                }
                let shape = Shape::Level(Level { life, edges: level_edges, values: &values });
                emit(with_label(series.labels, "quantile", &text)?, &shape, &scratch.quality)?;
            }
            Ok(())
        }
        // The data answered with another kind than the metric has: it is no series of this target.
        _ => Ok(()),
    }
}

/// Distinct members of the window that ends at an edge (V7).
fn distinct(rows: &[(Slice, &Distinct)], begin: u32, edge: u32) -> f64 {
    let from = rows.partition_point(|(slice, _)| slice.0 < begin);
    let to = rows.partition_point(|(slice, _)| slice.0 < edge).max(from);
    match &rows[from..to] {
        [] => 0.0,
        [(_, only)] => only.estimate() as f64,
        many => {
            let mut merged = Distinct::new();
            many.iter().for_each(|(_, set)| merged.merge(set));
            merged.estimate() as f64
        }
    }
}
