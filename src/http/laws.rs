//! The two conservation laws as people and programs read them (C6).
//!
//! In: sums of what sources did. Out: two lines of words, or JSON. Owns nothing. Invariant: every term is shown, also when a
//! law does not hold.

use serde::Serialize;
use std::fmt;

/// The terms of the two conservation laws (C6).
#[derive(Clone, Debug, PartialEq, Default, Serialize)]
pub struct Laws {
    /// Lines and calls that came.
    pub inputs: u64,
    /// Of these, understood.
    pub events: u64,
    /// Of these, refused, by reason; without zeros.
    pub rejected: Vec<(String, u64)>,
    /// Samples emitted.
    pub samples: u64,
    /// Of these, in the store.
    pub committed: u64,
    /// Of these, dropped, by reason; without zeros.
    pub dropped: Vec<(String, u64)>,
    /// Of these, on their way.
    pub in_flight: u64,
}

impl Laws {
    /// Both equations are true.
    pub fn hold(&self) -> bool {
        let sum = |terms: &[(String, u64)]| terms.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        self.inputs == self.events.saturating_add(sum(&self.rejected))
            && self.samples == self.committed.saturating_add(sum(&self.dropped)).saturating_add(self.in_flight)
    }

    /// The first law as a line: `lines 17 = events 16 + rejected 1 (bad_value 1)`.
    pub fn inputs_line(&self) -> String {
        format!("lines {} = events {} + rejected {}", self.inputs, self.events, by_reason(&self.rejected))
    }

    /// The second law as a line: `samples 16 = committed 16 + dropped 0 + in flight 0`.
    pub fn samples_line(&self) -> String {
        let dropped = by_reason(&self.dropped);
        format!(
            "samples {} = committed {} + dropped {dropped} + in flight {}",
            self.samples, self.committed, self.in_flight
        )
    }
}

impl fmt::Display for Laws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {}", self.inputs_line(), self.samples_line())
    }
}

fn by_reason(terms: &[(String, u64)]) -> String {
    let sum = terms.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
    if terms.is_empty() {
        return sum.to_string();
    }
    let parts: Vec<String> = terms.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{sum} ({})", parts.join(", "))
}
