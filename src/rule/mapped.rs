//! Names that a source's mapping file turns into metrics and labels.
//!
//! In: a line's name, type and tags, on a decoder's miss. Out: as [`Rules::resolve`]. Invariants: a metric that the
//! pipeline file declares keeps its declaration, whatever the mapping says of it; the first mapped name of a metric
//! says how it is kept.

use super::mapping::{Mapped, MappedSpec, Mapping};
use super::{NAME_BYTES_MAX, Resolved, Rules, default_scale, escape_label_name, input_exponent, is_reserved_name};
use crate::event::{Expose, Group, Kind, Metric, RejectReason, SourceIndex, Unit, WireType};
use std::borrow::Cow;
use std::sync::Arc;

impl Rules {
    /// The mapping that a source's names are read by; its place tells mappings apart.
    pub fn mapping_of(&self, source: SourceIndex) -> Option<&Arc<Mapping>> {
        self.mappings.by_source.get(usize::from(source.0)).and_then(Option::as_ref)
    }

    /// Sources from this index on have neither a mapping nor labels of their own.
    pub fn special_sources(&self) -> u16 {
        let sources = self.mappings.by_source.len().max(self.source_labels.len());
        u16::try_from(sources).unwrap_or(u16::MAX)
    }

    /// As [`Rules::resolve`], by the mapping of the line's source first.
    ///
    /// # Errors
    /// The reason the line is refused: `dropped_by_mapping` where a rule says so.
    pub fn resolve_from<'t>(
        &self,
        source: SourceIndex,
        name: &[u8],
        wire: WireType,
        tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    ) -> Result<Resolved, RejectReason> {
        let text = || std::str::from_utf8(name).map_err(|_| RejectReason::InvalidUtf8);
        match self.mapping_of(source) {
            None => self.resolve(source, name, wire, tags),
            Some(mapping) => match mapping.find(text()?, wire) {
                None => self.resolve(source, name, wire, tags),
                Some(Mapped::Dropped) => Err(RejectReason::DroppedByMapping),
                Some(Mapped::Metric { name: exposed, labels, spec }) => {
                    let metric = self.mapped_metric(text()?, exposed, wire, spec)?;
                    let exponent = input_exponent(&metric, wire)?;
                    let tags = merge(labels, tags, spec.honor_labels)?;
                    let tags = tags.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
                    let (labels, labels_dropped) = self.labels(source, &metric, tags, self.extra_labels)?;
                    Ok(Resolved { metric, labels, input_exponent: exponent, shift: spec.exponent, labels_dropped })
                }
            },
        }
    }

    fn mapped_metric(
        &self,
        wire_name: &str,
        name: String,
        wire: WireType,
        spec: &MappedSpec,
    ) -> Result<Arc<Metric>, RejectReason> {
        if name.is_empty() {
            return Err(RejectReason::EmptyName);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(RejectReason::NameTooLong);
        }
        if is_reserved_name(&name) {
            return Err(RejectReason::TypeConflict);
        }
        let kind = wire.kind();
        if let Some(found) = self.find_declared(&name, Some(wire)) {
            return if found.kind == kind { Ok(found) } else { Err(RejectReason::TypeConflict) };
        }
        let known = self.read().get(&name).map(|(metric, provisional)| (metric.clone(), provisional));
        if let Some((known, false)) = known {
            return if known.kind == kind { Ok(known) } else { Err(RejectReason::TypeConflict) };
        }
        let unit = if wire == WireType::Timing { Unit::Seconds } else { super::unit_of_name(&name) };
        let scale = default_scale(kind, unit);
        let help = match &spec.help {
            Some(help) => help.to_string(),
            None => format!("{} mapped from {wire_name}", kind.as_str()),
        };
        let mut metric = self.undeclared_metric(&name, kind, unit, scale, &help, Group::Main);
        if kind == Kind::Distribution {
            metric.expose = Expose { summary: !spec.is_histogram, histogram: spec.is_histogram };
            metric.buckets = match spec.is_histogram {
                true => Some(Arc::new(spec.buckets(scale).map_err(|_| RejectReason::OutOfRange)?)),
                false => None,
            };
            metric.quantiles = Arc::clone(&spec.quantiles);
            if let (Some(age), slice @ 1..) = (spec.max_age, self.mappings.slice) {
                metric.window_slices = u32::try_from((age + slice - 1) / slice).unwrap_or(u32::MAX).max(1);
            }
        }
        metric.idle = spec.ttl.or(metric.idle);
        self.register(metric, self.metrics_max)
    }
}

type Pair<'p> = (Cow<'p, str>, Cow<'p, str>);

/// Labels of the rule and tags of the line; where both have a key, the rule's wins unless tags are honoured.
fn merge<'p, 't: 'p>(
    labels: Vec<(&'p str, String)>,
    tags: impl Iterator<Item = (&'t [u8], &'t [u8])>,
    honor_tags: bool,
) -> Result<Vec<Pair<'p>>, RejectReason> {
    let text = |bytes: &'t [u8]| std::str::from_utf8(bytes).map_err(|_| RejectReason::InvalidUtf8);
    let mut pairs: Vec<Pair<'p>> =
        labels.into_iter().map(|(key, value)| (Cow::Borrowed(key), Cow::Owned(value))).collect();
    for (key, value) in tags {
        let (key, value) = (escape_label_name(text(key)?), text(value)?);
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some(_) if !honor_tags => {}
            Some((_, known)) => *known = Cow::Borrowed(value),
            None => pairs.push((key, Cow::Borrowed(value))),
        }
    }
    Ok(pairs)
}
