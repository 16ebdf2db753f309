//! Bodies of some series only, by PromQL selectors: what an export of the current values asks for.
//!
//! In: selectors. Out: a body of the series that any of them means. Owns nothing: such a body is made for one reader and
//! not kept. Invariant: a selector means a family by its name or by the name of one of its samples, as `name[]` does.

use super::{Body, Scrape, ScrapeBody, ScrapeError, ScrapeRequest, gzip, wants};
use crate::event::Labels;
use crate::query::Selector;
use std::sync::{Arc, PoisonError};

/// Which series.
#[derive(Clone, Debug)]
pub struct Chosen(Vec<Selector>);

impl Chosen {
    /// The series that any of these selectors means.
    ///
    /// # Errors
    /// Words for the person who wrote one that is no plain selector, or that asks for parts of a distribution.
    pub fn new(selectors: &[impl AsRef<str>]) -> Result<Chosen, String> {
        selectors.iter().map(|text| Selector::of_series(text.as_ref())).collect::<Result<_, _>>().map(Chosen)
    }

    fn names<'a>(&'a self, family: &'a str) -> impl Iterator<Item = &'a Selector> {
        self.0.iter().filter(move |selector| {
            let is_named = |name: &Arc<str>| wants(&[name.to_string()], family);
            selector.name.as_ref().is_none_or(is_named) && selector.name_matchers.iter().all(|m| m.accepts(family))
        })
    }

    /// Whether a series of this family is one of them.
    pub(super) fn accepts(&self, family: &str, labels: &Labels) -> bool {
        self.names(family).any(|selector| {
            selector.matchers.iter().all(|matcher| matcher.accepts(labels.get(matcher.name()).unwrap_or("")))
        })
    }
}

impl Scrape {
    /// Renders those series only, for one reader.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn render_chosen(&self, request: &ScrapeRequest, chosen: &Chosen) -> Result<ScrapeBody, ScrapeError> {
        let mut live = (self.live)();
        for family in &mut live.families {
            family.samples.retain(|(labels, _)| chosen.accepts(family.name, labels));
        }
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *guard;
        let mut exposed = self.exposed(&inner.plan, request)?;
        exposed.retain(|family| chosen.names(&family.name).next().is_some());
        let no_room = ScrapeError::NoRoom { bytes_max: inner.plan.bytes_max.unwrap_or(usize::MAX) };
        let Some(bytes_max) = inner.make_room(0) else { return Err(no_room) };
        let mut bytes = Vec::new();
        let is_whole = self.render_families(inner, request.format, &exposed, Some(chosen), &mut bytes, bytes_max);
        inner.trim_texts();
        if !is_whole || inner.make_room(bytes.len()).is_none() {
            return Err(no_room);
        }
        let names = exposed.into_iter().map(|exposed| exposed.name).collect();
        let body = Body { revision: 0, last_used: 0, bytes: Arc::new(bytes), names, gzip: None };
        let (head, tail) = self.around(request, &live, &body, inner.plan.created);
        let pieces = match request.gzip {
            true => gzip::join(&head, &gzip::Segment::new(&body.bytes), &tail),
            false => [Arc::new(head), body.bytes, Arc::new(tail)],
        };
        // While it is read it takes room like any other.
        inner.readers.note(Arc::clone(&pieces[1]));
        Ok(ScrapeBody { content_type: request.format.content_type(), gzip: request.gzip, pieces })
    }
}
