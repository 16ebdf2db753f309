//! Lines and events that callers hand over whole: HTTP's, and those of `send`.
//!
//! In: bytes. Out: what each line or event became. Invariant: the events of one call stay in their order.

use super::*;

impl Pipeline {
    /// Decodes lines one by one and says what each became; nothing waits for a commit.
    ///
    /// # Errors
    /// [`Gone`] when the shard has too much to do, or the pipeline has stopped.
    pub fn lines(&self, payload: Vec<u8>) -> Result<Vec<(String, LineOutcome)>, Gone> {
        let (reply, answer) = mpsc::sync_channel(1);
        let source = self.graph.source_index(HTTP_LINES);
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
        answer.recv_timeout(FLUSH_WAIT).map_err(|_| Gone)
    }

    /// Takes typed events, one line of JSON each, and says which were refused; nothing waits for a commit. The events
    /// of one call are taken in their order, by one shard.
    ///
    /// # Errors
    /// [`EventsRefused`]; then none was taken, unless the pipeline stopped meanwhile.
    pub fn events(&self, lines: &[u8]) -> Result<EventsVerdict, EventsRefused> {
        let status = self.graph.store.status();
        if !status.has_room {
            return Err(EventsRefused::NotCommitting);
        }
        let source = self.graph.source_index(HTTP_LINES);
        let next = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let shard = &self.graph.shards[next % self.graph.shards.len()];
        let mut verdict = EventsVerdict::default();
        // Parcels are short, so that the shard looks at its sockets between them.
        for parcel in parcels(lines) {
            let (reply, answer) = mpsc::sync_channel(1);
            let reply = Box::new(move |verdict| {
                // The waiting side may have given up.
                let _ = reply.send(verdict);
            });
            let is_first = verdict == EventsVerdict::default();
            shard.events(source, parcel.to_vec(), !is_first, reply).map_err(|_| EventsRefused::Busy)?;
            verdict.append(answer.recv_timeout(FLUSH_WAIT).map_err(|_| EventsRefused::Busy)?);
        }
        Ok(verdict)
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
