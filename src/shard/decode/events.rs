//! Typed events of a request: taken one by one, with a verdict on each.
//!
//! In: lines of JSON. Out: how many were understood, and the first of the others with their reasons. Owns
//! nothing. Invariant: each line that is not blank is counted once, here and in the tally.

use super::{Decoder, Origin};
use crate::codec::dogstatsd::Lines;
use crate::delta::Combiner;
use crate::event::{RejectReason, Timestamp};

/// Refused events that a verdict names; more are only counted.
const NAMED_MAX: usize = 100;

/// What became of the events of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventsVerdict {
    /// How many were understood.
    pub accepted: u64,
    /// How many were refused.
    pub rejected: u64,
    /// The first of these, in order.
    pub refused: Vec<RefusedEvent>,
}

/// A refused event.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedEvent {
    /// Its place among the events of the request, from 0.
    pub index: u64,
    /// Why.
    pub reason: RejectReason,
    /// Which event and field, where known; may be empty.
    pub detail: String,
}

impl EventsVerdict {
    /// Adds the verdict on the events that follow.
    pub fn append(&mut self, next: EventsVerdict) {
        let before = self.accepted + self.rejected;
        let room = NAMED_MAX.saturating_sub(self.refused.len());
        let named = next.refused.into_iter().take(room);
        self.refused.extend(named.map(|refused| RefusedEvent { index: before + refused.index, ..refused }));
        self.accepted += next.accepted;
        self.rejected += next.rejected;
    }
}

impl Decoder {
    /// Takes lines of JSON, one event each; what is no JSON object is refused, also if it is a line of DogStatsD.
    pub fn ingest_events(
        &mut self,
        combiner: &mut Combiner,
        origin: Origin,
        payload: &[u8],
        arrival: Timestamp,
    ) -> EventsVerdict {
        let mut batch = self.batch(combiner, origin, arrival);
        let mut tapping = self.begin_tapping(&batch, payload);
        let mut verdict = EventsVerdict::default();
        let mut outcomes = Vec::new();
        for text in Lines::new(payload) {
            outcomes.clear();
            let trace = tapping.is_shown().then_some(&mut outcomes);
            match self.take_json(&mut batch, text, trace) {
                Ok(()) => {
                    verdict.accepted += 1;
                    self.show_traced(&mut tapping, text, &outcomes);
                }
                Err((reason, detail)) => {
                    if verdict.refused.len() < NAMED_MAX {
                        let index = verdict.accepted + verdict.rejected;
                        verdict.refused.push(RefusedEvent { index, reason, detail });
                    }
                    verdict.rejected += 1;
                }
            }
        }
        batch.finish();
        self.end_tapping(tapping);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_on_parts_add_up() {
        let refused = |index| RefusedEvent { index, reason: RejectReason::BadEvent, detail: String::new() };
        let mut whole = EventsVerdict { accepted: 2, rejected: 1, refused: vec![refused(1)] };
        whole.append(EventsVerdict { accepted: 0, rejected: 2, refused: vec![refused(0), refused(1)] });
        assert_eq!((whole.accepted, whole.rejected), (2, 3));
        assert_eq!(whole.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1, 3, 4]);
        for _ in 0..50 {
            whole.append(EventsVerdict { accepted: 0, rejected: 5, refused: (0..5).map(refused).collect() });
        }
        assert_eq!((whole.rejected, whole.refused.len()), (253, NAMED_MAX));
    }
}
