//! Lines and events that callers hand over whole: HTTP's, and those of `send`; and what the front door must say.
//!
//! In: bytes. Out: what each line or event became. Invariant: the events of one call stay in their order.

use super::*;
use crate::pipeline::overflow::Overflows;
use crate::rule::NamesFull;

impl Pipeline {
    /// Decodes lines one by one and says what each became; nothing waits for a commit. `None` when the shard has them
    /// and does not say in time: they are taken.
    ///
    /// # Errors
    /// [`Gone`] when the shard has too much to do, or the pipeline has stopped; then none was taken.
    pub fn lines(&self, payload: Vec<u8>) -> Result<Option<Vec<(String, LineOutcome)>>, Gone> {
        let (reply, answer) = mpsc::sync_channel(1);
        let source = self.graph.roster().http_lines();
        let shard = &self.graph.shards[0];
        shard
            .lines(
                source,
                payload,
                Box::new(move |outcomes| {
                    // The waiting side may have given up.
                    let _ = reply.send(outcomes);
                }),
            )
            .map_err(|_| Gone)?;
        match answer.recv_timeout(FLUSH_WAIT) {
            Ok(outcomes) => Ok(Some(outcomes)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            // The command was dropped undone.
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    /// Takes typed events, one line of JSON each, and says which were refused; nothing waits for a commit. The events
    /// of one call are taken in their order, by one shard.
    ///
    /// The verdict may be incomplete, and says so, when the shard has them and does not say in time, or the pipeline stops
    /// meanwhile.
    ///
    /// # Errors
    /// [`EventsRefused`]; then none was taken.
    pub fn events(&self, lines: &[u8]) -> Result<(EventsVerdict, bool), EventsRefused> {
        let status = self.graph.store.status();
        if !status.has_room {
            return Err(EventsRefused::NotCommitting);
        }
        let source = self.graph.roster().http_lines();
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.graph.shards[next % self.graph.shards.len()];
        let mut verdict = EventsVerdict::default();
        let (mut was_handed_over, mut is_complete) = (false, true);
        // Parcels are short, so that the shard looks at its sockets between them.
        for parcel in parcels(lines) {
            let (reply, answer) = mpsc::sync_channel(1);
            let reply = Box::new(move |verdict| {
                // The waiting side may have given up.
                let _ = reply.send(verdict);
            });
            let is_first = !std::mem::replace(&mut was_handed_over, true);
            if shard.events(source, parcel.to_vec(), !is_first, reply).is_err() {
                return if is_first { Err(EventsRefused::Busy) } else { Ok((verdict, false)) };
            }
            // After one that did not say in time the others follow, unheard.
            let patience = if is_complete { FLUSH_WAIT } else { Duration::ZERO };
            match answer.recv_timeout(patience) {
                Ok(more) => verdict.append(more),
                Err(mpsc::RecvTimeoutError::Disconnected) if is_first => return Err(EventsRefused::Busy),
                Err(_) => is_complete = false,
            }
        }
        Ok((verdict, is_complete))
    }

    /// Counts a client that the front door did not serve as it asked, by reason.
    pub(crate) fn note_refusal(&self, reason: &'static str) {
        self.refusals.note(reason);
    }

    /// The so many metrics that met a limit of series most often, and how many others did.
    pub fn overflows(&self, worst: usize) -> Overflows {
        self.graph.overflows(worst)
    }

    /// What fills the limit of names when it is full.
    pub fn names_full(&self) -> Option<NamesFull> {
        self.graph.rules.load().names_full()
    }

    /// Whether the schema of an event names this field.
    pub fn has_field(&self, event: &[u8], field: &[u8]) -> bool {
        let rules = self.graph.rules.load();
        let plan = rules.typed().event(event);
        std::str::from_utf8(field).is_ok_and(|field| plan.is_some_and(|plan| plan.field(field).is_some()))
    }
}

/// Whole lines, in runs of at most [`PARCEL_BYTES`] or of one line.
fn parcels(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= PARCEL_BYTES {
            rest.len()
        } else {
            let within = memchr::memrchr(b'\n', &rest[..PARCEL_BYTES]);
            within.or_else(|| memchr::memchr(b'\n', rest)).map_or(rest.len(), |newline| newline + 1)
        };
        let (parcel, tail) = rest.split_at(end);
        rest = tail;
        Some(parcel)
    })
}
