//! `derive`: texts that labels and conditions name like fields, each made once an event.
//!
//! In: the values of an event. Out: [`Texts`]. Owns: in the plan, the distinct values that were let through; in a
//! [`Memo`], of one decoder, what raw texts came to. Invariants: a text seen before costs one lookup and no allocation; a
//! memo is bounded and may be forgotten at any time, because making a text again gives the same text: a value let through
//! stays so, and one that came past `distinct_max` never gets in.

use super::value::{FieldValue, Fields, bool_text};
use super::{Class, DeriveFrom, EventSpec, whole_text};
use hashbrown::HashMap;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Raw texts that one decoder remembers of one derived text.
const MEMO_TEXTS_MAX: usize = 4096;
/// Bytes of them, raw and derived.
const MEMO_BYTES_MAX: usize = 512 << 10;
/// What a memo takes at most: its texts, 130 B for each text's places and allocations, and the longest event on top.
pub const DERIVE_MEMO_BYTES: usize = MEMO_BYTES_MAX + MEMO_TEXTS_MAX * 130 + (64 << 10);

/// Bytes of one distinct value beside its text: its place in a tree that is two thirds full, and its allocation.
const DISTINCT_OVERHEAD: usize = 48;

/// What the distinct values of one derived text may take: 128 B for each of `distinct_max`, or 64 KiB. Past it a new
/// value becomes `other` as past the count.
pub fn distinct_bytes(distinct_max: u32) -> u64 {
    (u64::from(distinct_max) * 128).max(64 << 10)
}

/// The distinct values that were let through.
#[derive(Default)]
struct Distinct {
    texts: BTreeSet<Box<str>>,
    bytes: u64,
}

impl Distinct {
    /// Whether a text is one of at most `max`.
    fn lets_through(&mut self, text: &str, max: u32) -> bool {
        if self.texts.contains(text) {
            return true;
        }
        let bytes = (text.len() + DISTINCT_OVERHEAD) as u64;
        if self.texts.len() >= max as usize || self.bytes + bytes > distinct_bytes(max) {
            return false;
        }
        self.bytes += bytes;
        self.texts.insert(text.into())
    }
}
/// The key of a missing field in a memo: no UTF-8 text begins so.
const MISSING: &[u8] = &[0xFF];
/// What a class makes of what it does not know.
const OTHER: &str = "other";

/// One compiled entry.
pub(super) struct DerivePlan {
    how: How,
    steps: Option<Steps>,
}

enum How {
    /// Always this.
    Const(Box<str>),
    /// The text of a field as it is.
    Same(usize),
    /// A bool has two texts; the third is for a missing field.
    Bool { field: usize, texts: [Option<Box<str>>; 3] },
    /// The class of a status code: `1xx` to `5xx`, what is none of them, and for a missing field.
    Http { field: usize, texts: [Option<Box<str>>; 7] },
    /// Whatever the steps make of the field.
    Steps { field: usize },
}

struct Steps {
    replace: Option<(Regex, Box<str>)>,
    class: Option<Class>,
    map: BTreeMap<Box<str>, Box<str>>,
    default: Option<Box<str>>,
    distinct: Option<(u32, Mutex<Distinct>)>,
    other: Box<str>,
}

impl DerivePlan {
    /// Compiles one entry.
    ///
    /// # Errors
    /// A field that the event does not have, or a pattern that is none.
    pub(super) fn new(from: &DeriveFrom, event: &EventSpec) -> Result<DerivePlan, String> {
        let (field, regex, class, map, default, distinct_max, other) = match from {
            DeriveFrom::Const(text) => return Ok(DerivePlan { how: How::Const(text.as_str().into()), steps: None }),
            DeriveFrom::Field { field, regex, class, map, default, distinct_max, other } => {
                (field, regex, *class, map, default, *distinct_max, other)
            }
        };
        let at = event.fields.iter().position(|known| known.name == *field);
        let at = at.ok_or_else(|| format!("event {:?} has no field {field:?}", event.name))?;
        let replace = match regex {
            Some((pattern, text)) => Some((whole_text(pattern)?, text.as_str().into())),
            None => None,
        };
        let steps = Steps {
            replace,
            class,
            map: map.iter().map(|(raw, text)| (raw.as_str().into(), text.as_str().into())).collect(),
            default: default.as_deref().map(Into::into),
            distinct: distinct_max.map(|max| (max, Mutex::default())),
            other: other.as_str().into(),
        };
        let ty = event.fields[at].ty;
        let is_small = steps.replace.is_none() && steps.distinct.is_none();
        let how = if is_small && ty == super::FieldType::Bool && class.is_none() {
            How::Bool { field: at, texts: [steps.apply(Some("false")), steps.apply(Some("true")), steps.apply(None)] }
        } else if is_small && ty.is_number() && class == Some(Class::Http) {
            let codes = [Some("0"), Some("100"), Some("200"), Some("300"), Some("400"), Some("500"), None];
            How::Http { field: at, texts: codes.map(|code| steps.apply(code)) }
        } else if is_small && class.is_none() && steps.map.is_empty() && steps.default.is_none() && !ty.is_number() {
            How::Same(at)
        } else {
            How::Steps { field: at }
        };
        Ok(DerivePlan { how, steps: Some(steps) })
    }

    fn make(&self, fields: &Fields<'_>, memo: &mut DeriveMemo, raw: &mut Vec<u8>) -> Derived {
        match &self.how {
            How::Const(_) | How::Same(_) => Derived::Planned(0),
            How::Bool { field, .. } => match fields[*field] {
                FieldValue::Bool(value) => Derived::Planned(u8::from(value)),
                _ => Derived::Planned(2),
            },
            How::Http { field, .. } => Derived::Planned(match fields[*field] {
                FieldValue::Number(code) => http_class(code.to_i64(0).unwrap_or(0)) as u8,
                _ => 6,
            }),
            How::Steps { field } => {
                let text = match fields[*field] {
                    FieldValue::Missing => MISSING,
                    FieldValue::Text(text) => text,
                    FieldValue::Bool(value) => bool_text(value).as_bytes(),
                    number @ FieldValue::Number(_) => {
                        raw.clear();
                        number.put_text(raw);
                        raw
                    }
                };
                Derived::Remembered(memo.text(text, self.steps.as_ref()))
            }
        }
    }

    fn planned(&self, at: u8) -> Option<&[u8]> {
        match &self.how {
            How::Const(text) => Some(text.as_bytes()),
            How::Bool { texts, .. } => texts[usize::from(at)].as_deref().map(str::as_bytes),
            How::Http { texts, .. } => texts[usize::from(at)].as_deref().map(str::as_bytes),
            How::Same(_) | How::Steps { .. } => None,
        }
    }
}

impl Steps {
    /// The text that a raw one becomes; `None` for a missing field without a default.
    fn apply(&self, raw: Option<&str>) -> Option<Box<str>> {
        let text = match raw {
            None => self.default.clone()?,
            Some(raw) => {
                let mut text = raw.to_owned();
                if let Some((pattern, replacement)) = &self.replace
                    && let Some(captures) = pattern.captures(raw)
                {
                    text.clear();
                    captures.expand(replacement, &mut text);
                }
                if self.class == Some(Class::Http) {
                    let code = text.parse().unwrap_or(0);
                    text = match http_class(code) {
                        0 => OTHER.to_owned(),
                        class => format!("{class}xx"),
                    };
                }
                self.map.get(text.as_str()).cloned().unwrap_or_else(|| text.into())
            }
        };
        let Some((max, seen)) = &self.distinct else { return Some(text) };
        let is_let_through = seen.lock().unwrap_or_else(PoisonError::into_inner).lets_through(&text, *max);
        Some(if is_let_through { text } else { self.other.clone() })
    }
}

/// 1 to 5 for the status codes 100 to 599, else 0.
fn http_class(code: i64) -> i64 {
    if (100..600).contains(&code) { code / 100 } else { 0 }
}

/// Where a derived text of the present event is.
#[derive(Clone, Copy, Debug)]
enum Derived {
    /// In the plan, at this place.
    Planned(u8),
    /// In the memo.
    Remembered(Option<u32>),
}

/// What the raw texts of one derived text came to.
#[derive(Default)]
struct DeriveMemo {
    by_raw: HashMap<Box<[u8]>, Option<u32>, foldhash::fast::RandomState>,
    texts: Vec<Box<str>>,
    bytes: usize,
}

impl DeriveMemo {
    fn text(&mut self, raw: &[u8], steps: Option<&Steps>) -> Option<u32> {
        if let Some(known) = self.by_raw.get(raw) {
            return *known;
        }
        self.make(raw, steps)
    }

    #[cold]
    fn make(&mut self, raw: &[u8], steps: Option<&Steps>) -> Option<u32> {
        // Codecs hand out UTF-8 only; were it not, the replaced text would be a valid label all the same.
        let made = if raw == MISSING {
            steps.and_then(|steps| steps.apply(None))
        } else {
            let text = String::from_utf8_lossy(raw);
            steps.and_then(|steps| steps.apply(Some(&text)))
        };
        let place = made.map(|text| {
            self.bytes += text.len();
            self.texts.push(text);
            (self.texts.len() - 1) as u32
        });
        self.bytes += raw.len();
        self.by_raw.insert(raw.into(), place);
        place
    }

    /// Forgets everything once it is full; between two events only.
    fn trim(&mut self) {
        if self.by_raw.len() >= MEMO_TEXTS_MAX || self.bytes >= MEMO_BYTES_MAX {
            *self = DeriveMemo::default();
        }
    }
}

/// What one decoder remembers of the derived texts of one event's schema.
#[derive(Default)]
pub(super) struct Memo {
    memos: Vec<DeriveMemo>,
    derived: Vec<Derived>,
    raw: Vec<u8>,
}

impl Memo {
    /// Makes every derived text of an event.
    pub(super) fn derive<'m>(&'m mut self, plans: &'m [DerivePlan], fields: &Fields<'_>) -> Texts<'m> {
        self.derived.clear();
        if self.memos.len() < plans.len() {
            self.memos.resize_with(plans.len(), DeriveMemo::default);
        }
        for (plan, memo) in plans.iter().zip(&mut self.memos) {
            memo.trim();
            self.derived.push(plan.make(fields, memo, &mut self.raw));
        }
        Texts { plans, memos: &self.memos, derived: &self.derived }
    }
}

/// The derived texts of one event.
pub(super) struct Texts<'m> {
    plans: &'m [DerivePlan],
    memos: &'m [DeriveMemo],
    derived: &'m [Derived],
}

impl Texts<'_> {
    /// The field that one of them is made of.
    pub(super) fn field(&self, at: usize) -> Option<usize> {
        match &self.plans[at].how {
            How::Const(_) => None,
            How::Same(field) | How::Bool { field, .. } | How::Http { field, .. } | How::Steps { field } => Some(*field),
        }
    }

    /// One of them; `None` for a missing field without a default.
    pub(super) fn get<'t>(&'t self, at: usize, fields: &'t Fields<'_>) -> Option<&'t [u8]> {
        if let How::Same(field) = &self.plans[at].how {
            return match fields[*field] {
                FieldValue::Text(text) => Some(text),
                FieldValue::Bool(value) => Some(bool_text(value).as_bytes()),
                FieldValue::Missing | FieldValue::Number(_) => None,
            };
        }
        match self.derived[at] {
            Derived::Planned(place) => self.plans[at].planned(place),
            Derived::Remembered(place) => Some(self.memos[at].texts[place? as usize].as_bytes()),
        }
    }
}

#[cfg(test)]
impl Memo {
    /// Raw texts that are remembered.
    pub(super) fn heap_texts(&self) -> usize {
        self.memos.iter().map(|memo| memo.by_raw.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_distinct_values_are_bounded_by_number_and_by_bytes() {
        let mut distinct = Distinct::default();
        assert!((0..3).all(|n| distinct.lets_through(&n.to_string(), 3)));
        assert!(!distinct.lets_through("3", 3) && distinct.lets_through("2", 3));
        let mut distinct = Distinct::default();
        let long = |n: u32| format!("{n:0>1000}");
        let through = (0..1000).filter(|n| distinct.lets_through(&long(*n), 1000)).count();
        assert_eq!(through, 122, "1000 × 128 B");
        assert!(distinct.bytes <= distinct_bytes(1000));
        assert!(distinct.lets_through(&long(5), 1000), "a value let through stays so");
    }
}
