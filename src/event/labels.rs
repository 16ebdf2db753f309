//! Label sets in their canonical form: sorted by key, one allocation, comparable as bytes.
//!
//! In: key and value pairs in any order. Out: [`Labels`]. Invariant: two equal sets have equal bytes, so
//! a set can be hashed, stored and compared without being parsed. Limits are checked here and nowhere
//! else: 64 labels, keys and values as the contract says.

use super::RejectReason;
use std::borrow::Cow;
use std::sync::Arc;

/// Most labels a series may have.
pub const LABELS_MAX: usize = 64;
/// Longest label key in bytes (as for metric names).
pub const LABEL_KEY_BYTES_MAX: usize = 200;
/// Longest label value in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 1024;

/// A canonical label set. Byte form: per label `key length u8, value length u16 little-endian, key,
/// value`, sorted by key; keys are unique and values are not empty. Clones share the bytes: a million new
/// series pass through the store's commit without a copy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The empty set.
    pub fn empty() -> Labels {
        Labels::default()
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True without any label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads canonical bytes back; `None` when they are not in canonical form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Labels> {
        let mut rest = bytes;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let (key, value, tail) = split_first(rest)?;
            if previous.is_some_and(|p| p >= key) || value.is_empty() {
                return None;
            }
            previous = Some(key);
            rest = tail;
        }
        Some(Labels(bytes.into()))
    }

    /// The pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (key, value, tail) = split_first(rest).expect("labels are only built in canonical form");
            rest = tail;
            Some((key, value))
        })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn split_first(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let key_len = usize::from(*bytes.first()?);
    let value_len = usize::from(u16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?]));
    let key = bytes.get(3..3 + key_len)?;
    let value = bytes.get(3 + key_len..3 + key_len + value_len)?;
    let tail = &bytes[3 + key_len + value_len..];
    Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?, tail))
}

/// Collects pairs in any order and makes the canonical set of them. Pairs are borrowed where they can be: a
/// series is made of a line's tags with one allocation for its labels.
///
/// Of a repeated key the distinct values are sorted and joined with `,`; an empty value drops the label
/// (both as the contract says).
#[derive(Default)]
pub struct LabelsBuilder<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> LabelsBuilder<'a> {
    /// An empty builder.
    pub fn new() -> LabelsBuilder<'a> {
        LabelsBuilder::default()
    }

    /// Adds a pair. The key must already be a valid Prometheus label name.
    pub fn push(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> &mut Self {
        self.pairs.push((key.into(), value.into()));
        self
    }

    /// Whether a key was added with a value that is not empty.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(known, value)| known == key && !value.is_empty())
    }

    /// The canonical set.
    ///
    /// # Errors
    /// `TooManyLabels`, `LabelTooLong`, `ReservedLabel` (`le`, `quantile`, `overflow`, or a key that
    /// begins with `__`).
    pub fn build(self) -> Result<Labels, RejectReason> {
        if self.pairs.iter().any(|(key, _)| is_reserved(key)) {
            return Err(RejectReason::ReservedLabel);
        }
        self.encode()
    }

    /// As [`build`](Self::build), with `overflow` allowed: only the table of series may use it.
    ///
    /// # Errors
    /// `TooManyLabels`, `LabelTooLong`.
    pub fn build_reserved(self) -> Result<Labels, RejectReason> {
        self.encode()
    }

    fn encode(mut self) -> Result<Labels, RejectReason> {
        self.pairs.retain(|(_, value)| !value.is_empty());
        self.pairs.sort_unstable();
        self.pairs.dedup();
        self.pairs.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                let joined = kept.1.to_mut();
                joined.push(',');
                joined.push_str(&next.1);
            }
            same
        });
        if self.pairs.len() > LABELS_MAX {
            return Err(RejectReason::TooManyLabels);
        }
        let mut bytes = Vec::with_capacity(self.pairs.iter().map(|(k, v)| 3 + k.len() + v.len()).sum());
        for (key, value) in &self.pairs {
            if key.len() > LABEL_KEY_BYTES_MAX || value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(RejectReason::LabelTooLong);
            }
            bytes.push(key.len() as u8);
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Ok(Labels(bytes.into()))
    }
}

/// Label names that users may not set: the exposition formats and the overflow series own them.
pub fn is_reserved(key: &str) -> bool {
    matches!(key, "le" | "quantile" | "overflow") || key.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], expected: &[(&str, &str)]) {
        let mut builder = LabelsBuilder::new();
        for (key, value) in pairs {
            builder.push(*key, *value);
        }
        let labels = builder.build().expect("valid labels");
        assert_eq!(labels.iter().collect::<Vec<_>>(), expected);
        assert_eq!(Labels::from_bytes(labels.as_bytes()), Some(labels));
    }

    #[test]
    fn canonical_whatever_the_order() {
        check(&[("b", "2"), ("a", "1")], &[("a", "1"), ("b", "2")]);
        check(&[("a", "z"), ("a", "y"), ("a", "z")], &[("a", "y,z")]);
        check(&[("a", ""), ("b", "x")], &[("b", "x")]);
    }

    #[test]
    fn reserved_and_oversized_are_refused() {
        for key in ["le", "quantile", "overflow", "__name__"] {
            let mut builder = LabelsBuilder::new();
            builder.push(key, "x");
            assert_eq!(builder.build(), Err(RejectReason::ReservedLabel));
        }
        let mut builder = LabelsBuilder::new();
        builder.push("k", "v".repeat(LABEL_VALUE_BYTES_MAX + 1));
        assert_eq!(builder.build(), Err(RejectReason::LabelTooLong));
        let mut builder = LabelsBuilder::new();
        for n in 0..=LABELS_MAX {
            builder.push(format!("k{n}"), "v");
        }
        assert_eq!(builder.build(), Err(RejectReason::TooManyLabels));
    }

    #[test]
    fn bytes_out_of_order_are_not_labels() {
        assert_eq!(Labels::from_bytes(&[1, 1, 0, b'b', b'x', 1, 1, 0, b'a', b'x']), None);
        assert_eq!(Labels::from_bytes(&[1, 0, 0, b'b']), None);
        assert_eq!(Labels::from_bytes(&[9, 1, 0, b'b', b'x']), None);
    }
}
