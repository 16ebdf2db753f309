//! `tap`: what passes an edge of the running pipeline, filtered, limited, and with what was left out.
//!
//! In: a [`TapRequest`] in words. Out: a [`Tap`], which is asked again and again for [`TapLine`]s. Owns: the place of the
//! tap. Invariants: the first line says which edges matched, the last how many items were shown and left out; rows of
//! commits are taken apart here, by whoever reads.
//!
//! An edge has the name of the source it begins at; what passes the store has the name `store`.

mod deltas;
mod filter;
mod fold;
mod shown;
#[cfg(test)]
mod tests;

pub(super) use fold::TappedFold;
pub use shown::{Figures, TapEdge, TapLine, rfc3339};

use super::running::Pipeline;
use crate::shard::tap::{LeftOut, TAP_LIMIT_MAX, TapItem, TapKind, TapKinds, TapReader, TapSpec, TooManyTaps};
use deltas::Deltas;
use filter::Filter;
use std::sync::Arc;

/// The edge that deltas pass.
pub const STORE_EDGE: &str = "store";
/// Items a second unless asked for otherwise: what Vector shows by default, and more than a person reads.
pub const TAP_LIMIT: u32 = 100;
/// What was left out is said at most so often.
const LEFT_OUT_EVERY: i64 = 1_000_000_000;
/// Lines of one look; the rest waits for the next.
const LINES_MAX: usize = 4_000;
/// Looks after which an end is one, whatever still comes.
const ENDING_LOOKS_MAX: usize = 4;
/// Patterns and selectors are read up to this length.
const WORDS_BYTES_MAX: usize = 4096;

/// What a tap asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRequest {
    /// What it looks at; none = samples.
    pub kinds: Vec<TapKind>,
    /// Patterns of edges, with `*` and `?`; none = all but `internal`, and those that a reload brings. Patterns are held
    /// against the edges there are when the tap is opened.
    pub edges: Vec<String>,
    /// A pattern of names: of metrics for samples and deltas, of what was sent for events and rejects.
    pub name: Option<String>,
    /// A PromQL selector: conditions on the name and on labels, tags or fields.
    pub selector: Option<String>,
    /// Items a second, from 1 to 5,000.
    pub limit: u32,
    /// Ends after so many items.
    pub count: Option<u64>,
}

impl Default for TapRequest {
    fn default() -> TapRequest {
        TapRequest { kinds: Vec::new(), edges: Vec::new(), name: None, selector: None, limit: TAP_LIMIT, count: None }
    }
}

/// Why there is no tap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// All places are taken.
    #[error(transparent)]
    TooMany(#[from] TooManyTaps),
    /// No edge that any of the kinds passes has such a name.
    #[error("no edge matches {asked}; edges are {}", known.join(", "))]
    NoEdge {
        /// What was asked for.
        asked: String,
        /// The edges there are.
        known: Vec<String>,
    },
    /// A word of the request.
    #[error("{0}")]
    Request(String),
}

/// An open tap.
pub struct Tap {
    reader: TapReader,
    pipeline: Pipeline,
    /// Names by source index, as they were when it was opened.
    sources: Vec<String>,
    /// The first line, until it was given out.
    opening: Option<TapLine>,
    deltas: Deltas,
    /// Items still to show.
    left: Option<u64>,
    shown: u64,
    told: LeftOut,
    told_at: i64,
}

impl Pipeline {
    /// Opens a tap on what passes from now on; it closes when it is dropped.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn tap(&self, request: &TapRequest) -> Result<Tap, TapError> {
        if !(1..=TAP_LIMIT_MAX).contains(&request.limit) {
            return Err(TapError::Request(format!("limit is a whole number from 1 to {TAP_LIMIT_MAX}")));
        }
        let words = request.edges.iter().chain(&request.name).chain(&request.selector);
        if words.map(String::len).sum::<usize>() > WORDS_BYTES_MAX {
            return Err(TapError::Request(format!("names and selectors have at most {WORDS_BYTES_MAX} bytes")));
        }
        let kinds = if request.kinds.is_empty() { vec![TapKind::Samples] } else { request.kinds.clone() };
        let kinds: Vec<TapKind> = TapKind::ALL.into_iter().filter(|kind| kinds.contains(kind)).collect();
        let all = self.edges(&kinds);
        // What the pipeline says of itself is looked at by whoever names it.
        let is_default = |edge: &TapEdge| request.edges.is_empty() && edge.is != "internal";
        let mut is_matched: Vec<bool> = all.iter().map(is_default).collect();
        let mut unmatched = Vec::new();
        for pattern in &request.edges {
            let glob = filter::glob(pattern).map_err(TapError::Request)?;
            let mut is_any = false;
            for (edge, is_matched) in all.iter().zip(&mut is_matched) {
                if glob.accepts(&edge.edge) {
                    (*is_matched, is_any) = (true, true);
                }
            }
            if !is_any {
                unmatched.push(pattern.clone());
            }
        }
        let edges: Vec<TapEdge> =
            all.iter().zip(&is_matched).filter(|(_, is)| **is).map(|(edge, _)| edge.clone()).collect();
        if edges.is_empty() {
            let known = all.into_iter().map(|edge| edge.edge).collect();
            return Err(TapError::NoEdge { asked: request.edges.join(", "), known });
        }
        let filter = Filter::new(request.name.as_deref(), request.selector.as_deref()).map_err(TapError::Request)?;
        let sources: Vec<String> = self.source_names().to_vec();
        // A source named as the store is another edge.
        let is_tapped = |kind: TapKind| edges.iter().any(|edge| edge.kinds.contains(&kind));
        let looked_at = |name: &String| edges.iter().any(|edge| edge.edge == *name && !edge.is_store());
        let clock = self.clock();
        let reader = self.recent_rejects().taps().open(
            TapSpec {
                kinds: TapKinds::of(&kinds.iter().copied().filter(|kind| is_tapped(*kind)).collect::<Vec<_>>()),
                sources: sources.iter().map(looked_at).collect(),
                others: request.edges.is_empty(),
                filter: filter.map(|filter| Arc::new(filter) as _),
                limit: request.limit,
            },
            clock.monotonic(),
        )?;
        let opening = TapLine::Open { kinds, edges, unmatched, limit: request.limit };
        Ok(Tap {
            reader,
            sources,
            opening: Some(opening),
            deltas: Deltas::new(self.view().clone(), clock.wall().0 as u64),
            left: request.count,
            shown: 0,
            told: LeftOut::default(),
            told_at: clock.monotonic(),
            pipeline: self.clone(),
        })
    }

    /// Every edge that one of these kinds passes.
    fn edges(&self, kinds: &[TapKind]) -> Vec<TapEdge> {
        let of_source = |kind: &TapKind| *kind != TapKind::Deltas;
        let source_kinds: Vec<TapKind> = kinds.iter().copied().filter(of_source).collect();
        let mut edges = Vec::new();
        if !source_kinds.is_empty() {
            for (name, is) in self.source_words() {
                edges.push(TapEdge { edge: name, is: is.to_owned(), kinds: source_kinds.clone() });
            }
        }
        if kinds.contains(&TapKind::Deltas) {
            edges.push(TapEdge { edge: STORE_EDGE.into(), is: "store".into(), kinds: vec![TapKind::Deltas] });
        }
        edges
    }
}

impl Tap {
    /// True when there is nothing to say now.
    pub fn is_idle(&self) -> bool {
        let is_told = self.reader.left_out() == self.told;
        self.opening.is_none() && self.reader.is_idle() && is_told && !self.is_over()
    }

    /// True once all items that were asked for are shown, or the place was given to another.
    pub fn is_over(&self) -> bool {
        self.left == Some(0) || self.reader.is_evicted()
    }

    /// Everything there is to say now, at most 4,000 lines.
    pub fn read(&mut self) -> Vec<TapLine> {
        let (wall, now) = (self.pipeline.clock().wall(), self.pipeline.clock().monotonic());
        self.reader.looked(now);
        let mut lines: Vec<TapLine> = self.opening.take().into_iter().collect();
        while lines.len() < LINES_MAX && self.left != Some(0) {
            let Some(item) = self.reader.next() else { break };
            lines.push(self.line(item));
            self.count(1);
        }
        while lines.len() < LINES_MAX && self.left != Some(0) {
            let Some(commit) = self.reader.next_commit() else { break };
            let left = self.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
            let rows = self.deltas.take(&commit, &self.reader, wall, left);
            self.count(rows.len() as u64);
            lines.extend(rows);
        }
        if now - self.told_at >= LEFT_OUT_EVERY {
            let left_out = self.reader.left_out();
            if left_out != self.told {
                lines.push(TapLine::LeftOut {
                    seconds: ((now - self.told_at) as f64 / 1e9 * 1e3).round() / 1e3,
                    limit: left_out.limit - self.told.limit,
                    queue: left_out.queue - self.told.queue,
                });
            }
            (self.told, self.told_at) = (left_out, now);
        }
        lines
    }

    /// What is still to say, and the last line.
    pub fn end(&mut self, reason: &str) -> Vec<TapLine> {
        let mut lines = Vec::new();
        // A queue holds a few times what one look brings.
        for _ in 0..ENDING_LOOKS_MAX {
            lines.extend(self.read());
            if self.reader.is_idle() {
                break;
            }
        }
        let reason = match (self.left, self.reader.is_evicted()) {
            (Some(0), _) => "all items that were asked for are shown",
            (_, true) => "nobody had read for 30 s and another tap took the place",
            _ => reason,
        };
        let LeftOut { limit, queue } = self.reader.left_out();
        let (reason, shown) = (reason.to_owned(), self.shown);
        lines.push(TapLine::End { reason, shown, left_out_by_limit: limit, left_out_by_queue: queue });
        lines
    }

    fn count(&mut self, items: u64) {
        self.shown += items;
        self.left = self.left.map(|left| left.saturating_sub(items));
    }

    fn line(&self, item: TapItem) -> TapLine {
        let name = |source: crate::event::SourceIndex| {
            let at = usize::from(source.0);
            // A reload may have added one since this tap began.
            self.sources.get(at).cloned().or_else(|| self.pipeline.source_names().get(at).cloned()).unwrap_or_default()
        };
        match item {
            TapItem::Event { time, source, name: event, text } => {
                TapLine::Event { time: rfc3339(time), edge: name(source), name: event, text }
            }
            TapItem::Sample { source, metric, labels, amount, weight, time, dropped, .. } => {
                shown::sample(name(source), &metric, &labels, amount, weight, time, dropped)
            }
            TapItem::Reject { time, source, reason, detail, text } => TapLine::Reject {
                time: rfc3339(time),
                edge: name(source),
                reason: reason.as_str().to_owned(),
                hint: if detail.is_empty() { reason.hint().to_owned() } else { detail },
                text,
            },
        }
    }
}
