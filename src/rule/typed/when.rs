//! `when`: the condition of a feed. In: its text and the fields and derived texts of the event. Out: a
//! [`Condition`], or an error with the bytes it stands at. Owns nothing but compiled patterns.
//!
//! Values of two: a field that is missing makes every comparison with it false, `!=` and `!~` too, and a bool field
//! alone false; `not` turns that around, so `not x > 5` holds where `x` is missing and `x <= 5` does not.
//! Times compare in seconds, timestamps in seconds since the epoch. Patterns match the whole text, as in PromQL.

mod parse;

use super::derive::Texts;
use super::value::FieldValue;
use super::{EventSpec, Fields};
use crate::event::Number;
use regex::Regex;
use std::cmp::Ordering;
use std::ops::Range;

/// A parsed and checked condition over one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    root: Expr,
}

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// What is wrong, lower-case, with the nearest valid name where there is one.
    pub message: String,
    /// The bytes of the text that it is about.
    pub span: Range<usize>,
}

/// What a name in a condition stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Field(usize),
    Derived(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Order::Equal => ordering.is_eq(),
            Order::NotEqual => ordering.is_ne(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Any(Vec<Expr>),
    All(Vec<Expr>),
    Not(Box<Expr>),
    /// A bool field is this.
    Bool(Operand, bool),
    Number(Operand, Order, Number),
    /// Equal to the text, or not.
    Text(Operand, bool, Box<str>),
    /// Matches the pattern, or not.
    Match(Operand, bool, Pattern),
}

#[derive(Clone, Debug)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Condition {
    /// Parses a condition: a field alone (bool), `not field`, `field OP literal` with `== != < <= > >= =~ !~`,
    /// strings in single quotes, `and`, `or`, parentheses. `not` binds tightest, then `and`, then `or`.
    ///
    /// # Errors
    /// A syntax error, an unknown field, or a literal that does not fit the field's type.
    pub fn parse(text: &str, event: &EventSpec) -> Result<Condition, ConditionError> {
        parse::parse(text, event).map(|root| Condition { root })
    }

    /// Whether it holds for these values.
    pub(super) fn holds(&self, fields: &Fields<'_>, texts: &Texts<'_>) -> bool {
        self.root.holds(fields, texts)
    }
}

impl Expr {
    fn holds(&self, fields: &Fields<'_>, texts: &Texts<'_>) -> bool {
        match self {
            Expr::Any(parts) => parts.iter().any(|part| part.holds(fields, texts)),
            Expr::All(parts) => parts.iter().all(|part| part.holds(fields, texts)),
            Expr::Not(part) => !part.holds(fields, texts),
            Expr::Bool(operand, expected) => match operand {
                Operand::Field(at) => fields[*at] == FieldValue::Bool(*expected),
                Operand::Derived(_) => false,
            },
            Expr::Number(operand, order, literal) => match operand {
                Operand::Field(at) => match fields[*at] {
                    FieldValue::Number(number) => order.holds(number.compare(*literal)),
                    _ => false,
                },
                Operand::Derived(_) => false,
            },
            Expr::Text(operand, is_equal, literal) => {
                text_of(*operand, fields, texts).is_some_and(|text| (text == literal.as_bytes()) == *is_equal)
            }
            Expr::Match(operand, is_match, pattern) => text_of(*operand, fields, texts)
                .and_then(|text| std::str::from_utf8(text).ok())
                .is_some_and(|text| pattern.0.is_match(text) == *is_match),
        }
    }
}

fn text_of<'t>(operand: Operand, fields: &'t Fields<'_>, texts: &'t Texts<'_>) -> Option<&'t [u8]> {
    match operand {
        Operand::Field(at) => match fields[at] {
            FieldValue::Text(text) => Some(text),
            _ => None,
        },
        Operand::Derived(at) => texts.get(at, fields),
    }
}
