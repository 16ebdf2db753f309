//! One feed of a metric: what of an event becomes a sample, and of which series.
//!
//! In: the values and derived texts of an event. Out: an [`Emitted`] sample and its key. Invariants: values are rounded
//! once, into the metric's scale (V1); a key names exactly one series: the feed's number, then each label value with
//! its length, constant ones left out.

use super::derive::Texts;
use super::value::{FieldValue, Fields, Weight};
use super::{Condition, EventSpec, FeedSpec, FieldType, GaugeOp, LabelSource};
use crate::event::{Kind, LABEL_VALUE_BYTES_MAX, Metric, Number, RejectReason, UNITS_MAX, Unit};
use crate::sketch::member_hash;
use std::sync::Arc;

/// One sample, ready to be recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A counter's increment, weight included.
    Count {
        /// Whole part.
        whole: i64,
        /// In 10⁻⁹, of the same sign.
        nanos: i64,
    },
    /// A gauge set to this.
    Set {
        /// In base units.
        value: f64,
        /// In scale units.
        units: i64,
    },
    /// A gauge moved by this.
    Adjust(f64),
    /// A distribution's value in scale units, recorded with the event's weight.
    Units {
        /// Within ±10^18.
        units: i64,
        /// True when it lay beyond (V4).
        is_clamped: bool,
    },
    /// A set's member, by its hash.
    Member(u64),
}

impl Amount {
    /// The kind of series it is for.
    pub fn kind(self) -> Kind {
        match self {
            Amount::Count { .. } => Kind::Counter,
            Amount::Set { .. } | Amount::Adjust(_) => Kind::Gauge,
            Amount::Units { .. } => Kind::Distribution,
            Amount::Member(_) => Kind::Set,
        }
    }
}

/// A sample of one feed.
#[derive(Clone, Copy, Debug)]
pub struct Emitted {
    /// Place of the feed in its plan.
    pub feed: usize,
    /// What it adds.
    pub amount: Amount,
    /// Where its key stands in the scratch.
    pub(super) key: (usize, usize),
}

/// What values are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Factor {
    One,
    PowerOfTen(i32),
    Number(Number),
}

impl Factor {
    fn new(scale: f64) -> Result<Factor, String> {
        if scale == 1.0 {
            return Ok(Factor::One);
        }
        let number = Number::from_f64(scale).ok_or_else(|| format!("scale {scale} is not a number"))?;
        let power = (-30..=30).find(|power| number.compare(Number::ONE.shifted(*power)).is_eq());
        Ok(power.map_or(Factor::Number(number), Factor::PowerOfTen))
    }

    fn apply(self, value: Number) -> Number {
        match self {
            Factor::One => value,
            Factor::PowerOfTen(power) => value.shifted(power),
            Factor::Number(factor) => value.times(factor),
        }
    }
}

/// The power of ten that a scale is.
///
/// # Errors
/// A scale that is none.
pub(super) fn power_of_ten(scale: f64) -> Result<i8, String> {
    match Factor::new(scale)? {
        Factor::One => Ok(0),
        Factor::PowerOfTen(power @ -12..=12) => Ok(power as i8),
        _ => Err(format!("a scale of this feed is a power of ten from 1e-12 to 1e12, not {scale}")),
    }
}

enum LabelPart {
    Field(usize),
    Derived(usize),
    Const(Box<str>),
}

/// A compiled feed of an event, or of a pair through its start.
pub struct FeedPlan {
    number: u32,
    metric: Arc<Metric>,
    /// `None` = by 1.
    value: Option<usize>,
    factor: Factor,
    scale: f64,
    op: GaugeOp,
    condition: Option<Condition>,
    labels: Box<[(Box<str>, LabelPart)]>,
    refuses_negative: bool,
}

impl FeedPlan {
    /// Compiles a feed from the fields of `event`.
    ///
    /// # Errors
    /// Something that is not there or does not fit; the pipeline file was checked before, so this is for other callers.
    pub(super) fn new(
        number: u32,
        feed: &FeedSpec,
        metric: &Arc<Metric>,
        event: &EventSpec,
        value: Option<&str>,
    ) -> Result<FeedPlan, String> {
        let about = |what: String| format!("metric {:?} from event {:?}: {what}", metric.name, event.name);
        let field_of = |name: &str| event.fields.iter().position(|field| field.name == name);
        let value = match value {
            None => None,
            Some(name) => Some(field_of(name).ok_or_else(|| about(format!("no field {name:?}")))?),
        };
        if let Some(at) = value
            && metric.kind != Kind::Set
            && !event.fields[at].ty.is_number()
            && (metric.kind, event.fields[at].ty) != (Kind::Gauge, FieldType::Bool)
        {
            return Err(about(format!("field {:?} is no number", event.fields[at].name)));
        }
        if value.is_none() && metric.kind == Kind::Set {
            return Err(about("a set needs a value".into()));
        }
        let mut labels: Vec<(Box<str>, LabelPart)> = Vec::new();
        for (label, from) in &feed.labels {
            let part = match from {
                LabelSource::Const(text) => LabelPart::Const(text.as_str().into()),
                LabelSource::Field(name) => match field_of(name) {
                    Some(at) => LabelPart::Field(at),
                    None => {
                        let at = event.derived.iter().position(|derived| derived.name == *name);
                        LabelPart::Derived(at.ok_or_else(|| about(format!("no field {name:?} for label {label:?}")))?)
                    }
                },
                LabelSource::Own | LabelSource::Template(_) => {
                    return Err(about(format!("label {label:?} has no value in an event")));
                }
            };
            labels.push((label.as_str().into(), part));
        }
        let condition = match &feed.when {
            None => None,
            Some(text) => Some(Condition::parse(text, event).map_err(|error| about(error.message))?),
        };
        let is_duration = metric.unit == Unit::Seconds || value.is_some_and(|at| event.fields[at].ty.is_duration());
        Ok(FeedPlan {
            number,
            metric: Arc::clone(metric),
            value,
            factor: Factor::new(feed.scale).map_err(about)?,
            scale: feed.scale,
            op: feed.op,
            condition,
            labels: labels.into(),
            refuses_negative: metric.kind == Kind::Counter || (metric.kind == Kind::Distribution && is_duration),
        })
    }

    /// Unique among all feeds of the process.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The metric it feeds.
    pub fn metric(&self) -> &Arc<Metric> {
        &self.metric
    }

    /// What a pair's values are multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The label pairs of a series from its key; a missing value is empty.
    pub fn labels<'k>(&'k self, key: &'k [u8]) -> impl Iterator<Item = (&'k str, &'k [u8])> {
        let mut rest = key.get(4..).unwrap_or_default();
        self.labels.iter().map(move |(label, part)| {
            let value = match part {
                LabelPart::Const(text) => text.as_bytes(),
                LabelPart::Field(_) | LabelPart::Derived(_) => {
                    let (value, tail) = rest
                        .split_first_chunk::<2>()
                        .and_then(|(length, tail)| tail.split_at_checked(usize::from(u16::from_le_bytes(*length))))
                        .unwrap_or_default();
                    rest = tail;
                    value
                }
            };
            (&**label, value)
        })
    }

    pub(super) fn holds(&self, fields: &Fields<'_>, texts: &Texts<'_>) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(fields, texts))
    }

    /// What the event adds to the metric; `None` where the value's field is missing.
    ///
    /// # Errors
    /// Why the event is refused, and the field.
    pub(super) fn amount(
        &self,
        fields: &Fields<'_>,
        weight: Weight,
    ) -> Result<Option<Amount>, (RejectReason, Option<usize>)> {
        let value = match self.value {
            None => FieldValue::Number(Number::ONE),
            Some(at) => fields[at],
        };
        let refuse = |reason| Err((reason, self.value));
        let number = match value {
            FieldValue::Missing => return Ok(None),
            _ if self.metric.kind == Kind::Set => {
                return Ok(Some(Amount::Member(match value {
                    FieldValue::Text(text) => member_hash(text),
                    other => {
                        let mut text = Vec::new();
                        other.put_text(&mut text);
                        member_hash(&text)
                    }
                })));
            }
            FieldValue::Number(number) => self.factor.apply(number),
            // A bool sets a gauge to 1 or 0: whether a service is up.
            FieldValue::Bool(value) if self.metric.kind == Kind::Gauge => {
                self.factor.apply(if value { Number::ONE } else { Number::ZERO })
            }
            FieldValue::Bool(_) | FieldValue::Text(_) => return refuse(RejectReason::WrongType),
        };
        if self.refuses_negative && number.is_negative() {
            return refuse(RejectReason::Negative);
        }
        let exponent = self.metric.scale.exponent() as i8;
        Ok(Some(match self.metric.kind {
            Kind::Counter => {
                let number = weight.times(number);
                match number.whole_and_nano() {
                    Some((whole, nanos)) => Amount::Count { whole, nanos },
                    None => return refuse(RejectReason::OutOfRange),
                }
            }
            Kind::Distribution => match number.to_units(exponent) {
                Ok(units) => Amount::Units { units, is_clamped: false },
                Err(beyond) => Amount::Units { units: beyond.clamped, is_clamped: true },
            },
            Kind::Gauge | Kind::Set => {
                let number = if self.op == GaugeOp::Sub { number.negated() } else { number };
                let value = number.to_f64();
                if value.abs() > UNITS_MAX as f64 {
                    return refuse(RejectReason::OutOfRange);
                }
                match self.op {
                    GaugeOp::Set => {
                        Amount::Set { value, units: number.to_units(exponent).unwrap_or_else(|beyond| beyond.clamped) }
                    }
                    GaugeOp::Add | GaugeOp::Sub => Amount::Adjust(value),
                }
            }
        }))
    }

    /// Appends the key of the event's series.
    ///
    /// # Errors
    /// `LabelTooLong` and the field.
    pub(super) fn put_key(
        &self,
        fields: &Fields<'_>,
        texts: &Texts<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, usize), (RejectReason, Option<usize>)> {
        let start = out.len();
        out.extend_from_slice(&self.number.to_le_bytes());
        for (_, part) in &self.labels {
            let field = match part {
                LabelPart::Const(_) => continue,
                LabelPart::Field(at) => Some(*at),
                LabelPart::Derived(at) => texts.field(*at),
            };
            let at = out.len();
            out.extend_from_slice(&[0; 2]);
            match part {
                LabelPart::Field(field) => fields[*field].put_text(out),
                LabelPart::Derived(derived) => out.extend_from_slice(texts.get(*derived, fields).unwrap_or_default()),
                LabelPart::Const(_) => {}
            }
            let length = out.len() - at - 2;
            if length > LABEL_VALUE_BYTES_MAX {
                return Err((RejectReason::LabelTooLong, field));
            }
            out[at..at + 2].copy_from_slice(&(length as u16).to_le_bytes());
        }
        Ok((start, out.len()))
    }
}
