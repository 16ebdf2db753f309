//! The sources of a running pipeline by their numbers, through all its reloads (R1).
//!
//! In: plans, one after another. Out: what is kept by [`SourceIndex`]: names, codecs, how JSON is read, mappings. Invariants:
//! a name keeps its number for the life of the process, since samples under way, tallies and refused inputs name numbers; what
//! is under way from a source that left is read as the source last said.

use super::plan::{Plan, SourceKind, SourcePlan};
use crate::event::{SliceWidth, SourceIndex};
use crate::rule::Mappings;
use crate::shard::JsonOptions;
use std::sync::Arc;

/// The source of in-process producers and the one of `POST /api/v1/lines`, which no file names.
pub(crate) const IN_PROCESS: &str = "process";
pub(crate) const HTTP_LINES: &str = "http";

/// Numbers that one process gives. A tally of 1 KiB stands for each in every shard, so that ever new names cost a bounded
/// amount of memory.
const SOURCES_MAX: usize = 1024;

/// A source, also one that left.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    /// As a plan said it last; `None` for the two that no file names.
    plan: Option<SourcePlan>,
}

/// All sources that there have been.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    places: Vec<Place>,
    names: Arc<[String]>,
}

impl Roster {
    /// Those of the first plan, in its order, and behind them the two that no file names.
    pub(super) fn new(plan: &Plan) -> Roster {
        let named = plan.sources.iter().map(|source| Place { name: source.name.clone(), plan: Some(source.clone()) });
        let own = [IN_PROCESS, HTTP_LINES].map(|name| Place { name: name.to_owned(), plan: None });
        Roster::of(named.chain(own).collect())
    }

    fn of(places: Vec<Place>) -> Roster {
        let names = places.iter().map(|place| place.name.clone()).collect();
        Roster { places, names }
    }

    /// The roster after a reload; `None` when there have been too many names.
    pub(super) fn following(&self, plan: &Plan) -> Option<Roster> {
        let mut places = self.places.clone();
        for source in &plan.sources {
            // Under the name of one that no file names it is a source of its own.
            match places.iter_mut().find(|place| place.plan.is_some() && place.name == source.name) {
                Some(place) => place.plan = Some(source.clone()),
                None => places.push(Place { name: source.name.clone(), plan: Some(source.clone()) }),
            }
        }
        (places.len() <= SOURCES_MAX).then(|| Roster::of(places))
    }

    /// Names by number.
    pub(super) fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// The number of a source of a plan.
    pub(super) fn index(&self, name: &str) -> Option<SourceIndex> {
        let at = self.places.iter().position(|place| place.plan.is_some() && place.name == name)?;
        Some(SourceIndex(at as u16))
    }

    /// The number of in-process producers.
    pub(super) fn in_process(&self) -> SourceIndex {
        self.own(IN_PROCESS)
    }

    /// The number of what comes over HTTP.
    pub(super) fn http_lines(&self) -> SourceIndex {
        self.own(HTTP_LINES)
    }

    fn own(&self, name: &str) -> SourceIndex {
        let at = self.places.iter().position(|place| place.plan.is_none() && place.name == name);
        SourceIndex(at.expect("both stand in every roster") as u16)
    }

    /// True for a source that people feed: false for what the program says of itself and of its machine.
    pub(super) fn is_fed(&self, name: &str) -> bool {
        let plan = self.places.iter().find(|place| place.name == name).and_then(|place| place.plan.as_ref());
        plan.is_none_or(|source| matches!(source.kind, SourceKind::Socket(_)))
    }

    /// The name of each and the word of `hydrograph_events_received_total{codec}` for its inputs that are not JSON.
    pub(super) fn codecs(&self) -> Vec<(String, &'static str)> {
        let codec = |place: &Place| match place.plan.as_ref().map(|source| &source.kind) {
            Some(SourceKind::Socket(_)) => "dogstatsd",
            None if place.name == HTTP_LINES => "dogstatsd",
            _ => "call",
        };
        self.places.iter().map(|place| (place.name.clone(), codec(place))).collect()
    }

    /// The name of each and the word of its type: `http` and `calls` for those that no file names.
    pub(super) fn words(&self) -> Vec<(String, &'static str)> {
        let word = |place: &Place| match &place.plan {
            Some(source) => source.kind.as_str(),
            None if place.name == HTTP_LINES => "http",
            None => "calls",
        };
        self.places.iter().map(|place| (place.name.clone(), word(place))).collect()
    }

    /// Where the events of each have their keys.
    pub(super) fn json_options(&self) -> Arc<[JsonOptions]> {
        let options = |place: &Place| match place.plan.as_ref().map(|source| &source.kind) {
            Some(SourceKind::Socket(socket)) => socket.json.clone(),
            _ => JsonOptions::default(),
        };
        self.places.iter().map(options).collect()
    }

    /// The labels that each puts on its samples.
    pub(super) fn labels(&self) -> Vec<Vec<(String, String)>> {
        let labels = |place: &Place| place.plan.as_ref().map_or_else(Vec::new, |source| source.labels.clone());
        self.places.iter().map(labels).collect()
    }

    /// Which of them reads names by which mapping file.
    pub(super) fn mappings(&self, slice: SliceWidth) -> Mappings {
        let mapping = |place: &Place| match place.plan.as_ref().map(|source| &source.kind) {
            Some(SourceKind::Socket(socket)) => socket.mapping.as_ref().map(|file| Arc::clone(&file.mapping)),
            _ => None,
        };
        Mappings { by_source: self.places.iter().map(mapping).collect(), slice: slice.nanos() }
    }
}
