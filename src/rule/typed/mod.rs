//! Typed events: what a producer says (a name and fields) becomes samples of declared metrics.
//!
//! In: [`TypedConfig`] from the pipeline file. Out: plans that a decoder runs per event without a lookup by string.
//! Owns: the distinct values that `derive` has seen. Invariants: an event is checked whole before any sample of it
//! exists; a number stays decimal until its metric's scale is known (V1); nothing allocates for values seen before.

mod derive;
mod feed;
mod keys;
mod plan;
mod spec;
mod statsd;
#[cfg(test)]
mod tests;
mod value;
mod when;

pub use derive::{DERIVE_MEMO_BYTES, distinct_bytes};
pub use feed::{Amount, Emitted, FeedPlan};
pub use keys::{Key, KeyNode, KeyOrder};
pub use plan::{EventPlan, Fault, PAIR_FEEDS_MAX, PairPlan, PairSide, Scratch, SourceFeed, Typed};
pub use spec::{
    Class, DeriveFrom, DeriveSpec, EventSpec, FIELDS_MAX, FeedSource, FeedSpec, FieldSpec, FieldType, GaugeOp,
    LabelSource, PairSpec, PairValue, TypedConfig,
};
pub use statsd::StatsdMatch;
pub use value::{FieldValue, Fields, Weight};
pub use when::{Condition, ConditionError};

use regex::Regex;

/// A pattern that must match all of a text, newlines included, as PromQL's do.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn whole_text(pattern: &str) -> Result<Regex, String> {
    // Checked alone first: `a)(b` must not become a pattern by what is put around it.
    let one_line = |error: regex::Error| {
        let text = error.to_string();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        format!("the pattern is no regular expression: {}", last.trim().trim_start_matches("error: "))
    };
    Regex::new(pattern).map_err(one_line)?;
    Regex::new(&format!("^(?s:{pattern})$")).map_err(one_line)
}
