//! The labels of a series: those of the sample, of its source, and of every series.
//!
//! In: pairs. Out: [`Labels`] in canonical form, or why there are none. Invariant: a declared metric has exactly its labels,
//! those of the source and of every series apart.

use super::typed::FeedPlan;
use super::{ExtraLabels, NO_SOURCE, Rules, escape_label_name};
use crate::event::{Labels, LabelsBuilder, Metric, RejectReason, SourceIndex};

impl Rules {
    /// The labels of a typed feed's series, from its key and its source. A value that is missing leaves its label out.
    ///
    /// # Errors
    /// `InvalidUtf8`, and those of [`LabelsBuilder::build`].
    pub fn labels_of_feed(&self, source: SourceIndex, feed: &FeedPlan, key: &[u8]) -> Result<Labels, RejectReason> {
        let mut builder = LabelsBuilder::new();
        for (label, value) in feed.labels(key) {
            builder.push(label, std::str::from_utf8(value).map_err(|_| RejectReason::InvalidUtf8)?);
        }
        self.push_constants(source, &mut builder);
        builder.build()
    }

    /// Labels that a source puts on its samples.
    pub fn labels_of_source(&self, source: SourceIndex) -> &[(String, String)] {
        self.source_labels.get(usize::from(source.0)).map_or(&[], |labels| labels)
    }

    /// Labels of the source, then those of every series, where the sample does not have them.
    fn push_constants<'b>(&'b self, source: SourceIndex, builder: &mut LabelsBuilder<'b>) {
        for (key, value) in self.labels_of_source(source).iter().chain(&self.constant_labels) {
            if !builder.has(key) {
                builder.push(key.as_str(), value.as_str());
            }
        }
    }

    pub(super) fn labels<'t>(
        &self,
        source: SourceIndex,
        metric: &Metric,
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
        extra: ExtraLabels,
    ) -> Result<(Labels, u16), RejectReason> {
        let mut builder = LabelsBuilder::new();
        let mut dropped = 0u16;
        for (key, value) in tags {
            let key = std::str::from_utf8(key).map_err(|_| RejectReason::InvalidUtf8)?;
            let value = std::str::from_utf8(value).map_err(|_| RejectReason::InvalidUtf8)?;
            if key.is_empty() {
                // A trailing comma is an empty bare tag; a value without a key is not a tag at all.
                match value {
                    "" | "true" => continue,
                    _ => return Err(RejectReason::Malformed),
                }
            }
            let key = escape_label_name(key);
            if crate::event::is_reserved(&key) {
                return Err(RejectReason::ReservedLabel);
            }
            if metric.label_names.as_ref().is_some_and(|names| !names.iter().any(|name| **name == *key)) {
                match extra {
                    ExtraLabels::Error => return Err(RejectReason::LabelMismatch),
                    ExtraLabels::Drop => {
                        dropped = dropped.saturating_add(1);
                        continue;
                    }
                    ExtraLabels::Keep => {}
                }
            }
            builder.push(key, value);
        }
        self.push_constants(source, &mut builder);
        if let Some(names) = &metric.label_names
            && names.iter().any(|name| !builder.has(name))
        {
            return Err(RejectReason::LabelMismatch);
        }
        Ok((builder.build()?, dropped))
    }

    /// The labels of a series of our own: the pairs and the constant labels, in canonical form.
    ///
    /// # Errors
    /// `LabelMismatch` where the metric names other labels, else as [`LabelsBuilder::build`].
    pub fn labels_of(&self, metric: &Metric, pairs: &[(&str, &str)]) -> Result<Labels, RejectReason> {
        self.labels_from(NO_SOURCE, metric, pairs)
    }

    /// As [`labels_of`](Self::labels_of), with the labels of a source.
    ///
    /// # Errors
    /// As [`labels_of`](Self::labels_of).
    pub fn labels_from(
        &self,
        source: SourceIndex,
        metric: &Metric,
        pairs: &[(&str, &str)],
    ) -> Result<Labels, RejectReason> {
        let pairs = pairs.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        self.labels(source, metric, pairs, ExtraLabels::Error).map(|(labels, _)| labels)
    }
}
