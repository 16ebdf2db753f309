//! Label matchers: `= != =~ !~`, with regular expressions anchored and compiled once.
//!
//! In: operator, label name and pattern. Out: whether a value is accepted. Invariants: a pattern matches the whole value
//! (as in PromQL); a compiled pattern takes at most [`REGEX_BYTES_MAX`]; the engine is linear in the value, so no value
//! makes a matcher slow. Two matchers are equal when they are written alike: what caches compare.

use regex::{Regex, RegexBuilder};
use std::hash::{Hash, Hasher};

/// Memory of one compiled pattern. Alternatives of a thousand label values fit; a repeated repeat does not.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    op: MatchOp,
    value: Box<str>,
    /// Of the two regex operators.
    pattern: Option<Pattern>,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// Plain words between bars: compared without an engine.
    Words(Box<[Box<str>]>),
    /// `.*`
    Any,
    /// `.+`
    NotEmpty,
    Regex(Regex),
}

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// Words for a pattern that is no regular expression, or too large a one.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Matcher, String> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Pattern::new(value)?),
        };
        Ok(Matcher { name: name.into(), op, value: value.into(), pattern })
    }

    /// Which label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with, as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// True when a label of this value is accepted; a label that is not there has the empty value.
    pub fn accepts(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => *self.value == *value,
            MatchOp::NotEqual => *self.value != *value,
            MatchOp::Regex => self.pattern.as_ref().is_some_and(|pattern| pattern.matches(value)),
            MatchOp::NotRegex => !self.pattern.as_ref().is_some_and(|pattern| pattern.matches(value)),
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, String> {
        match text {
            ".*" => return Ok(Pattern::Any),
            ".+" => return Ok(Pattern::NotEmpty),
            _ => {}
        }
        if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:/ |".contains(&byte) || byte >= 0x80) {
            return Ok(Pattern::Words(text.split('|').map(Into::into).collect()));
        }
        let build = |text: &str| {
            // As in Prometheus since 3.0, a dot takes a line break too.
            let mut builder = RegexBuilder::new(&format!("^(?:{text})$"));
            builder.dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
        };
        // What stands between braces and is no repetition is plain text in RE2, an error here.
        let built = build(text).or_else(|error| build(&escape_braces(text)).map_err(|_| error));
        built.map(Pattern::Regex).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression {text:?} takes more than {} KiB", REGEX_BYTES_MAX / 1024)
            }
            _ => format!("{text:?} is not a regular expression"),
        })
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Words(words) => words.iter().any(|word| **word == *value),
            Pattern::Any => true,
            Pattern::NotEmpty => !value.is_empty(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Escapes every brace that does not open or close a repetition `{n}`, `{n,}`, `{n,m}`.
fn escape_braces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '\\' => {
                taken += rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..taken]);
            }
            '{' => match rest.find('}') {
                Some(end) if is_repetition(&rest[1..end]) => {
                    taken = end + 1;
                    out.push_str(&rest[..taken]);
                }
                _ => out.push_str("\\{"),
            },
            '}' => out.push_str("\\}"),
            c => out.push(c),
        }
        rest = &rest[taken..];
    }
    out
}

fn is_repetition(inside: &str) -> bool {
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    !least.is_empty() && least.bytes().chain(most.bytes()).all(|byte| byte.is_ascii_digit())
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, pattern: &str, yes: &[&str], no: &[&str]) {
        let matcher = Matcher::new("l", op, pattern).unwrap();
        for value in yes {
            assert!(matcher.accepts(value), "{pattern} takes {value:?}");
        }
        for value in no {
            assert!(!matcher.accepts(value), "{pattern} does not take {value:?}");
        }
    }

    #[test]
    fn the_four_operators_are_anchored() {
        check(MatchOp::Equal, "a", &["a"], &["", "ab"]);
        check(MatchOp::Equal, "", &[""], &["a"]);
        check(MatchOp::NotEqual, "a", &["", "ab"], &["a"]);
        check(MatchOp::Regex, "a|b", &["a", "b"], &["", "ab", "xa"]);
        check(MatchOp::Regex, "a|", &["a", ""], &["b"]);
        check(MatchOp::Regex, "5..", &["500", "5\n0"], &["50", "1500", "5000"]);
        check(MatchOp::Regex, ".*", &["", "x\ny"], &[]);
        check(MatchOp::Regex, ".+", &["x"], &[""]);
        check(MatchOp::Regex, "(?i)get", &["GET", "get"], &["got"]);
        check(MatchOp::NotRegex, "5..", &["404", ""], &["500"]);
        check(MatchOp::Regex, "/a/{id}/b{2}", &["/a/{id}/bb"], &["/a/id/bb"]);
    }

    #[test]
    fn what_is_no_pattern_or_too_large_a_one_is_refused() {
        assert!(Matcher::new("l", MatchOp::Regex, "(").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, "(((a{100}){100}){100}){100}").unwrap_err().contains("KiB"));
        assert!(Matcher::new("l", MatchOp::Equal, "(").is_ok());
    }
}
