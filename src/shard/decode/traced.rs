//! Lines one by one, with what each became: for whoever sent them and asks.
//!
//! In: a buffer of lines. Out: records and tallies as for any buffer, and an outcome a line. Owns nothing. Invariant: a line
//! is recorded as it would be without being asked about.

use super::{Decoder, LineOutcome, Origin};
use crate::codec::dogstatsd::{self, Parsed, key_hash};
use crate::delta::{Combiner, Edge};
use crate::event::{DropReason, Timestamp};

impl Decoder {
    /// Decodes lines one by one and says what each became (`POST /api/v1/lines`).
    pub fn ingest_traced(
        &mut self,
        combiner: &mut Combiner,
        origin: Origin,
        payload: &[u8],
        arrival: Timestamp,
    ) -> Vec<(String, LineOutcome)> {
        let mut batch = self.batch(combiner, origin, arrival);
        let mut tapping = self.begin_tapping(&batch, payload);
        let mut outcomes = Vec::new();
        for text in dogstatsd::Lines::new(payload) {
            if text.first() == Some(&b'{') {
                let shown = String::from_utf8_lossy(text).into_owned();
                let found = self.trace_event(&mut batch, text);
                self.show_traced(&mut tapping, text, &found);
                outcomes.extend(found.into_iter().map(|outcome| (shown.clone(), outcome)));
                continue;
            }
            let outcome = match dogstatsd::parse(text) {
                Ok(Parsed::Sample(line)) => {
                    let hash = key_hash(line.name, line.wire, line.tags, self.cache.seed());
                    let dropped_before = batch.tally().dropped[Edge::Shard as usize];
                    let rejected = self.apply_line(&mut batch, &line, hash, None);
                    match rejected {
                        Err(reason) => {
                            self.refuse(&mut batch, reason, text);
                            LineOutcome::Refused(reason, String::new())
                        }
                        Ok(applied) => {
                            self.show_line(&mut tapping, text, &line, &applied);
                            LineOutcome::Accepted {
                                metric: self.metric_of(&applied),
                                slot: applied.slot,
                                samples: applied.samples,
                                dropped: DropReason::ALL.iter().copied().find(|reason| {
                                    let at = *reason as usize;
                                    batch.tally().dropped[Edge::Shard as usize][at] > dropped_before[at]
                                }),
                                recorded: None,
                            }
                        }
                    }
                }
                Ok(other) => match self.apply_notice(&mut batch, other) {
                    Ok(outcome) => {
                        self.show_traced(&mut tapping, text, std::slice::from_ref(&outcome));
                        outcome
                    }
                    Err(reason) => {
                        self.refuse(&mut batch, reason, text);
                        LineOutcome::Refused(reason, String::new())
                    }
                },
                Err(reason) => {
                    self.refuse(&mut batch, reason, text);
                    LineOutcome::Refused(reason, String::new())
                }
            };
            outcomes.push((String::from_utf8_lossy(text).into_owned(), outcome));
        }
        batch.finish();
        self.end_tapping(tapping);
        outcomes
    }
}
