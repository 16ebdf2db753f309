//! An expression's text to its plan, with the place of what is wrong.
//!
//! In: PromQL. Out: [`Expression`], which also tells what it will read, or [`QueryError`] with a span into the text.
//! Invariants: no text panics or nests deeper than the limits of `scan`; the parser crate sees only texts within them.

mod compile;
mod names;
mod scan;
#[cfg(test)]
mod tests;

use super::plan::{Node, Selector};
use compile::{Compiled, Type, type_of};
use scan::{Fault, Token, TokenKind};
use std::fmt;

/// A place in an expression's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSpan {
    /// The first byte.
    pub start: usize,
    /// The byte after the last; equal to `start` at the end of the text.
    pub end: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Why a text is no expression that can be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct QueryError {
    /// What is wrong, lower-case, without the place.
    pub message: String,
    /// Where.
    pub span: TextSpan,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.span.line, self.span.column, self.message)
    }
}

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// One number.
    Scalar,
    /// A value per series.
    Vector,
    /// Points per series: `x[5m]` alone. It can be asked at one time only.
    Range,
    /// A string literal.
    String,
}

/// A parsed expression: immutable, cheap to evaluate again and again.
#[derive(Clone, Debug)]
pub struct Expression {
    text: Box<str>,
    pub(super) node: Node,
    selectors: Vec<Selector>,
    reach: i64,
}

impl Selector {
    /// Parses a selector that is nothing else: `name{label="value"}`, at no other time than now.
    ///
    /// # Errors
    /// Words for the person who wrote it.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let expression = Expression::parse(text).map_err(|error| error.to_string())?;
        match expression.as_selector() {
            Some(selector) if selector.at.is_none() && selector.offset == 0 => Ok(selector.clone()),
            _ => Err("this is not a selector: write name{label=\"value\"}".into()),
        }
    }

    /// As [`parse`](Self::parse), for those who mean stored series, of which a distribution is one.
    ///
    /// # Errors
    /// The same, and for a selector of a bucket or of a quantile.
    pub fn of_series(text: &str) -> Result<Selector, String> {
        let selector = Selector::parse(text)?;
        match selector.matchers.iter().find(|matcher| matches!(matcher.name(), "le" | "quantile")) {
            Some(part) => Err(format!("`{}` tells parts of a distribution apart, which is one series", part.name())),
            None => Ok(selector),
        }
    }
}

impl Expression {
    /// Parses PromQL.
    ///
    /// # Errors
    /// [`QueryError`] for a text that is not PromQL, uses what is not supported (it names the function), or is beyond a
    /// limit: 32 KiB, 64 brackets within each other, 256 operators, 64 regular expressions of at most 1 MiB each.
    pub fn parse(text: &str) -> Result<Expression, QueryError> {
        let tokens = scan::tokens(text).map_err(|fault| error(text, fault))?;
        if tokens.is_empty() {
            return Err(error(text, Fault { message: "the expression is empty".into(), at: 0..0 }));
        }
        // The limits above keep the parser from every panic known; one that is not known must not end the process.
        let plain = scan::without_backticks(text, &tokens);
        let parsed = std::panic::catch_unwind(|| promql_parser::parser::parse(&plain))
            .unwrap_or_else(|_| Err("the parser gave up on this expression".into()));
        let expr = parsed.map_err(|message| error(text, locate(text, &tokens, message)))?;
        let Compiled { node, selectors, reach } = compile::compile(&expr).map_err(|refusal| {
            let at = refusal.word.as_deref().and_then(|word| word_range(&tokens, word));
            error(text, Fault { message: refusal.message, at: at.unwrap_or(0..text.len()) })
        })?;
        Ok(Expression { text: text.into(), node, selectors, reach })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it reads, each selector once.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// The selector, when the expression is nothing but one.
    pub fn as_selector(&self) -> Option<&Selector> {
        match &self.node {
            Node::Select(at) => self.selectors.get(*at),
            _ => None,
        }
    }

    /// How many nanoseconds before the evaluated time it may look: ranges, offsets, subqueries and lookback together.
    /// Windows of summaries and `@` come on top: they are the metric's and the text's.
    pub fn reach(&self) -> i64 {
        self.reach
    }

    /// What it yields at one time.
    pub fn kind(&self) -> ResultKind {
        match type_of(&self.node) {
            Type::Scalar => ResultKind::Scalar,
            Type::Vector => ResultKind::Vector,
            Type::Range => ResultKind::Range,
            Type::Text => ResultKind::String,
        }
    }
}

fn error(text: &str, fault: Fault) -> QueryError {
    let Fault { message, at } = fault;
    let before = text.get(..at.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    QueryError { message, span: TextSpan { start: at.start, end: at.end, line, column } }
}

/// The place of what the parser says.
fn locate(text: &str, tokens: &[Token<'_>], message: String) -> Fault {
    // Where the order of the words makes no sense, that is the place; else the parser's words name what they are about.
    if let Some(fault) = scan::complaint(text, tokens) {
        return fault;
    }
    if let Some(name) = quoted(&message)
        && let Some(at) = word_range(tokens, name)
    {
        let message = match message.strip_prefix("unknown function with name ") {
            Some(_) => format!("there is no function `{name}`"),
            None => message,
        };
        return Fault { message, at };
    }
    let is_vague = message.contains("invalid promql query");
    let message = if is_vague { "this is not PromQL".into() } else { message };
    Fault { message, at: 0..text.len() }
}

/// The first word between single quotes.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('\'')?;
    Some(rest.split_once('\'')?.0)
}

/// Where a word stands in the text: as a call if it is one somewhere, else its first appearance.
fn word_range(tokens: &[Token<'_>], word: &str) -> Option<std::ops::Range<usize>> {
    let is_word = |token: &Token<'_>| token.kind != TokenKind::Text && token.text.eq_ignore_ascii_case(word);
    let call = tokens.windows(2).find(|pair| is_word(&pair[0]) && pair[1].text == "(").map(|pair| &pair[0]);
    call.or_else(|| tokens.iter().find(|token| is_word(token))).map(Token::range)
}
