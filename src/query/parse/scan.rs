//! Tokens of an expression with their places, limits that hold before any parser sees the text, and the place of a
//! syntax error.
//!
//! In: text. Out: tokens, or a fault with the bytes it stands at. Why: the parser's crate reports no positions, recurses
//! over the tree it builds, and compiles every regular expression with ten megabytes to spend; so nesting, operators and
//! patterns are counted here first. Invariant: [`complaint`] is asked only for texts that the parser refused, so a
//! difference between the two costs the exactness of a position and nothing else.

use crate::query::matcher::{MatchOp, Matcher};
use std::ops::Range;

/// Longest text of an expression in bytes: a dashboard's longest list of alternatives takes a few thousand.
pub(super) const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Brackets within brackets. The tree is as deep as brackets and operators together, and dropped recursively.
const NESTING_MAX: usize = 64;
/// Operators and signs: `a or b or c` nests once per operator.
const OPERATORS_MAX: usize = 256;
/// Regular expressions of one expression; each may take [`REGEX_BYTES_MAX`](crate::query::REGEX_BYTES_MAX).
const REGEXES_MAX: usize = 64;
/// Longest duration in seconds, 100 years; beyond 2^64 the parser panics.
const SECONDS_MAX: f64 = 3_155_760_000.0;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) message: String,
    /// Bytes of the text.
    pub(super) at: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Number,
    Duration,
    Text,
    Name,
    Symbol,
}

/// A word of the text.
#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    fn is(&self, text: &str) -> bool {
        self.kind != TokenKind::Text && self.text.eq_ignore_ascii_case(text)
    }

    fn is_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.is(text))
    }
}

fn fault(message: impl Into<String>, at: Range<usize>) -> Fault {
    Fault { message: message.into(), at }
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", "=~", "!~", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}", "[", "]", ",",
    ":", "@", "!", ";",
];
const WORD_OPERATORS: [&str; 4] = ["and", "or", "unless", "atan2"];
const BINARY: [&str; 12] = ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^"];
const AGGREGATORS: [&str; 14] = [
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

/// Cuts a text into tokens and checks the limits.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the expression has {} bytes, {TEXT_BYTES_MAX} are the limit", text.len());
        return Err(fault(message, 0..0));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, len) = match c {
            c if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            '#' => {
                at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                continue;
            }
            '"' | '\'' | '`' => (TokenKind::Text, text_len(rest, c).ok_or_else(|| unclosed(text, at))?),
            '0'..='9' | '.' => number_len(rest).ok_or_else(|| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
                fault(format!("`{}` is neither a number nor a duration", &rest[..end.max(1)]), at..at + end.max(1))
            })?,
            c if c == '_' || c == ':' && !in_brackets(&tokens) || c.is_ascii_alphabetic() => {
                let colon = !in_brackets(&tokens);
                let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric() || (colon && c == ':');
                (TokenKind::Name, rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (TokenKind::Symbol, symbol.len()),
                None => return Err(fault(format!("{c:?} has no meaning here"), at..at + c.len_utf8())),
            },
        };
        tokens.push(Token { kind, text: &rest[..len], start: at });
        at += len;
    }
    limits(&tokens)?;
    Ok(tokens)
}

fn in_brackets(tokens: &[Token<'_>]) -> bool {
    tokens.iter().rev().find(|token| token.is_any(&["[", "]"])).is_some_and(|token| token.text == "[")
}

fn unclosed(text: &str, at: usize) -> Fault {
    fault("this string is never closed", at..text[at..].find('\n').map_or(text.len(), |end| at + end))
}

/// Length of a string with its quotes.
fn text_len(rest: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    // Between backticks a backslash is one.
    let has_escapes = quote != '`';
    for (at, c) in rest.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if c == quote {
            return Some(at + 1);
        } else {
            is_escaped = has_escapes && c == '\\';
        }
    }
    None
}

/// Length and kind of a number or a duration.
fn number_len(rest: &str) -> Option<(TokenKind, usize)> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let len = 2 + rest[2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        return (len > 2).then_some((TokenKind::Number, len));
    }
    let whole = digits(0);
    let mut len = whole;
    if rest[len..].starts_with('.') {
        len += 1 + digits(len + 1);
        if len == 1 {
            return None;
        }
    }
    if rest[len..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
        len += 1 + sign + digits(len + 1 + sign);
    } else if len == whole && rest[len..].starts_with(|c: char| c.is_ascii_alphabetic()) {
        len += rest[len..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_unit = |part: &str| matches!(part, "ms" | "s" | "m" | "h" | "d" | "w" | "y");
        let mut parts = rest[..len].split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty());
        return (parts.all(is_unit) && rest[..len].ends_with(|c: char| c.is_ascii_alphabetic()))
            .then_some((TokenKind::Duration, len));
    }
    (!rest[len..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .then_some((TokenKind::Number, len))
}

/// The text with every string between backticks written between double quotes: the parser's lexer reads escapes where
/// there are none, and so refuses `` `\d+` ``.
pub(super) fn without_backticks<'a>(text: &'a str, tokens: &[Token<'_>]) -> std::borrow::Cow<'a, str> {
    let mut out = String::new();
    let mut done = 0;
    for token in tokens.iter().filter(|token| token.kind == TokenKind::Text && token.text.starts_with('`')) {
        out.push_str(&text[done..token.start]);
        let inner = &token.text[1..token.text.len() - 1];
        out.push('"');
        out.push_str(&promql_parser::util::escape_string(inner));
        out.push('"');
        done = token.range().end;
    }
    if done == 0 {
        return text.into();
    }
    out.push_str(&text[done..]);
    out.into()
}

fn limits(tokens: &[Token<'_>]) -> Result<(), Fault> {
    let (mut depth, mut operators, mut regexes) = (0usize, 0usize, 0usize);
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        if token.is_any(&["(", "{", "["]) {
            depth += 1;
        } else if token.is_any(&[")", "}", "]"]) {
            depth = depth.saturating_sub(1);
        } else if token.is_any(&BINARY) || token.is_any(&WORD_OPERATORS) {
            operators += 1;
        } else if token.kind == TokenKind::Number
            && before.is_some_and(|before| before.is_any(&["[", ":", "offset", "-", "+"]))
        {
            check_seconds(token, tokens, at)?;
        } else if token.kind == TokenKind::Text && before.is_some_and(|before| before.is_any(&["=~", "!~"])) {
            regexes += 1;
            // A text that cannot be unquoted is the parser's to refuse.
            if regexes <= REGEXES_MAX
                && let Ok(pattern) = promql_parser::util::unquote_string(token.text)
            {
                Matcher::new("", MatchOp::Regex, &pattern).map_err(|message| fault(message, token.range()))?;
            }
        }
        let limit = |message: String| Err(fault(message, token.range()));
        if depth > NESTING_MAX {
            return limit(format!("more than {NESTING_MAX} brackets within each other"));
        } else if operators > OPERATORS_MAX {
            return limit(format!("more than {OPERATORS_MAX} operators in one expression"));
        } else if regexes > REGEXES_MAX {
            return limit(format!("more than {REGEXES_MAX} regular expressions in one expression"));
        }
    }
    Ok(())
}

/// A plain number that is a duration, in brackets or after `offset`, must be one that a duration can hold.
fn check_seconds(token: &Token<'_>, tokens: &[Token<'_>], at: usize) -> Result<(), Fault> {
    let before = &tokens[at - 1];
    let is_offset = before.is("offset") || (before.is_any(&["-", "+"]) && at >= 2 && tokens[at - 2].is("offset"));
    if !is_offset && !before.is_any(&["[", ":"]) {
        return Ok(());
    }
    let is_small = token.text.parse::<f64>().is_ok_and(|seconds| (0.0..=SECONDS_MAX).contains(&seconds));
    // What is no decimal number (hexadecimal) the parser reads as a duration with units, and refuses.
    if is_small || token.text.parse::<f64>().is_err() {
        return Ok(());
    }
    Err(fault(format!("a duration of {} seconds is longer than a century", token.text), token.range()))
}

/// Where a text that the parser refused stops making sense; `None` when its words stand in a possible order.
pub(super) fn complaint(text: &str, tokens: &[Token<'_>]) -> Option<Fault> {
    let mut walk = Walk { text, tokens, at: 0, open: Vec::new() };
    walk.run().err()
}

/// What a round bracket holds.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Group,
    Call { aggregates: bool },
}

struct Walk<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
    at: usize,
    open: Vec<(Open, usize)>,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is one of these.
    fn take(&mut self, texts: &[&str]) -> bool {
        let is_next = self.peek().is_some_and(|token| token.is_any(texts));
        self.at += usize::from(is_next);
        is_next
    }

    fn take_kind(&mut self, kinds: &[TokenKind]) -> bool {
        let is_next = self.peek().is_some_and(|token| kinds.contains(&token.kind));
        self.at += usize::from(is_next);
        is_next
    }

    fn expected(&self, what: &str) -> Fault {
        match self.peek() {
            Some(token) => fault(format!("expected {what}, found `{}`", shortened(token.text)), token.range()),
            None => fault(format!("expected {what}, found the end"), self.text.len()..self.text.len()),
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        loop {
            self.operand()?;
            if !self.after_operand()? {
                return Ok(());
            }
        }
    }

    /// To the end of the first operand that has one: through signs and opening brackets.
    fn operand(&mut self) -> Result<(), Fault> {
        loop {
            while self.take(&["+", "-"]) {}
            let Some(token) = self.peek() else { return Err(self.expected("an expression")) };
            match token.kind {
                TokenKind::Number | TokenKind::Duration | TokenKind::Text => {
                    self.at += 1;
                    return Ok(());
                }
                TokenKind::Name => {
                    let is_operator = token.is_any(&WORD_OPERATORS) || token.is_any(&["on", "ignoring", "offset"]);
                    if is_operator {
                        return Err(self.expected("an expression"));
                    }
                    self.at += 1;
                    let aggregates = token.is_any(&AGGREGATORS);
                    if aggregates && self.take(&["by", "without"]) {
                        self.label_list()?;
                    }
                    if self.peek().is_some_and(|token| token.is("(")) {
                        self.open.push((Open::Call { aggregates }, self.at));
                        self.at += 1;
                        if !aggregates && self.take(&[")"]) {
                            self.open.pop();
                            return Ok(());
                        }
                        continue;
                    }
                    if self.peek().is_some_and(|token| token.is("{")) {
                        self.braces()?;
                    }
                    return Ok(());
                }
                TokenKind::Symbol if token.text == "{" => {
                    self.braces()?;
                    return Ok(());
                }
                TokenKind::Symbol if token.text == "(" => {
                    self.open.push((Open::Group, self.at));
                    self.at += 1;
                }
                TokenKind::Symbol => return Err(self.expected("an expression")),
            }
        }
    }

    /// From the end of an operand to the beginning of the next; false at the end.
    fn after_operand(&mut self) -> Result<bool, Fault> {
        // True right after the bracket that ends an aggregation.
        let mut aggregates = false;
        loop {
            let Some(token) = self.peek() else {
                return match self.open.last() {
                    Some((_, at)) => Err(fault("this bracket is never closed", self.tokens[*at].range())),
                    None => Ok(false),
                };
            };
            if self.take(&["["]) {
                self.brackets()?;
            } else if self.take(&["offset"]) {
                let _ = self.take(&["+", "-"]);
                if !self.take_kind(&[TokenKind::Duration, TokenKind::Number]) {
                    return Err(self.expected("a duration such as `5m`"));
                }
            } else if self.take(&["@"]) {
                self.at_time()?;
            } else if aggregates && self.take(&["by", "without"]) {
                self.label_list()?;
            } else if self.take(&[")"]) {
                match self.open.pop() {
                    Some((open, _)) => aggregates = open == Open::Call { aggregates: true },
                    None => return Err(fault("this bracket was never opened", token.range())),
                }
                continue;
            } else if self.take(&[","]) {
                return match self.open.last() {
                    Some((Open::Call { .. }, _)) => Ok(true),
                    _ => Err(fault("a comma stands between arguments only", token.range())),
                };
            } else if self.take(&BINARY) || self.take(&WORD_OPERATORS) {
                self.modifiers()?;
                return Ok(true);
            } else {
                return Err(self.expected("an operator"));
            }
            aggregates = false;
        }
    }

    /// After a binary operator.
    fn modifiers(&mut self) -> Result<(), Fault> {
        let _ = self.take(&["bool"]);
        if self.take(&["on", "ignoring"]) {
            self.label_list()?;
            if self.take(&["group_left", "group_right"]) && self.peek().is_some_and(|token| token.is("(")) {
                // A bracket after it may hold labels or the right operand.
                let before = self.at;
                if self.label_list().is_err() {
                    self.at = before;
                }
            }
        }
        Ok(())
    }

    fn at_time(&mut self) -> Result<(), Fault> {
        if self.take(&["start", "end"]) {
            return match self.take(&["("]) && self.take(&[")"]) {
                true => Ok(()),
                false => Err(self.expected("`()`")),
            };
        }
        let _ = self.take(&["+", "-"]);
        match self.take_kind(&[TokenKind::Number]) {
            true => Ok(()),
            false => Err(self.expected("seconds since the epoch")),
        }
    }

    fn label_list(&mut self) -> Result<(), Fault> {
        if !self.take(&["("]) {
            return Err(self.expected("`(` and label names"));
        }
        loop {
            if self.take(&[")"]) {
                return Ok(());
            }
            if !self.take_kind(&[TokenKind::Name, TokenKind::Text]) {
                return Err(self.expected("a label name"));
            }
            if !self.take(&[","]) && !self.peek().is_some_and(|token| token.is(")")) {
                return Err(self.expected("`,` or `)`"));
            }
        }
    }

    /// After `[`.
    fn brackets(&mut self) -> Result<(), Fault> {
        let duration = [TokenKind::Duration, TokenKind::Number];
        if !self.take_kind(&duration) {
            return Err(self.expected("a duration such as `5m`"));
        }
        if self.take(&[":"]) {
            let _ = self.take_kind(&duration);
        }
        if !self.take(&["]"]) {
            return Err(self.expected("`]`"));
        }
        Ok(())
    }

    /// From `{` to `}`.
    fn braces(&mut self) -> Result<(), Fault> {
        let open = self.at;
        self.at += 1;
        loop {
            if self.take(&["}"]) {
                return Ok(());
            }
            if self.peek().is_none() {
                return Err(fault("this bracket is never closed", self.tokens[open].range()));
            }
            let is_text = self.peek().is_some_and(|token| token.kind == TokenKind::Text);
            if !self.take_kind(&[TokenKind::Name, TokenKind::Text]) {
                return Err(self.expected("a label name"));
            }
            let ends = |token: Option<&Token<'_>>| token.is_some_and(|token| token.is_any(&[",", "}"]));
            if !(is_text && ends(self.peek())) {
                if !self.take(&["=", "!=", "=~", "!~"]) {
                    return Err(self.expected("`=`, `!=`, `=~` or `!~`"));
                }
                if !self.take_kind(&[TokenKind::Text]) {
                    return Err(self.expected("a label's value in quotes"));
                }
            }
            if !self.take(&[","]) && !ends(self.peek()) && self.peek().is_some() {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }
}

/// A word for a message: the first forty characters.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
