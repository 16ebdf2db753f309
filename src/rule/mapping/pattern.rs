//! Globs over dotted names, and templates with captures.
//!
//! In: patterns and templates as written. Out: matches, captures, text. A `*` stands for one whole part; `$1` and
//! `${1}` are captures, and, as in Go's templates, `$1_x` names the capture "1_x", which is empty.

use std::ops::Range;

/// A glob: parts between dots, each a name or a star.
#[derive(Debug)]
pub(super) struct Glob {
    /// `None` is a star.
    parts: Vec<Option<Box<str>>>,
}

impl Glob {
    /// `None` unless every part is `*` or a name (`[a-zA-Z_](-?[a-zA-Z0-9_])*`), and there are two or more.
    pub(super) fn parse(text: &str) -> Option<Glob> {
        let parts: Option<Vec<_>> = text
            .split('.')
            .map(|part| match part {
                "*" => Some(None),
                name if is_part(name) => Some(Some(Box::from(name))),
                _ => None,
            })
            .collect();
        parts.filter(|parts| parts.len() >= 2).map(|parts| Glob { parts })
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The caller has compared the number of parts.
    pub(super) fn is_match(&self, name: &str, parts: &[Range<usize>]) -> bool {
        self.parts
            .iter()
            .zip(parts)
            .all(|(want, range)| want.as_deref().is_none_or(|want| *want == name[range.clone()]))
    }

    /// Where two globs match one name: whether this one has a literal at the first place where only one has.
    pub(super) fn is_more_literal(&self, other: &Glob) -> bool {
        let differing = self.parts.iter().zip(&other.parts).find(|(own, others)| own.is_some() != others.is_some());
        differing.is_some_and(|(own, _)| own.is_some())
    }

    /// The parts that stars stand for.
    pub(super) fn captures<'p>(&'p self, parts: &'p [Range<usize>]) -> impl Iterator<Item = Range<usize>> + 'p {
        self.parts.iter().zip(parts).filter(|(want, _)| want.is_none()).map(|(_, range)| range.clone())
    }
}

fn is_part(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match bytes.first() {
        Some(first) if is_word(*first) && !first.is_ascii_digit() => {}
        _ => return false,
    }
    bytes.windows(2).all(|pair| is_word(pair[1]) || pair[1] == b'-' && pair[0] != b'-') && !name.ends_with('-')
}

/// Whether a template can become a metric name: name characters and captures.
pub(super) fn is_name_template(text: &str) -> bool {
    let Template(pieces) = Template::parse(text);
    let mut is_first = true;
    pieces.iter().all(|piece| {
        let is_start = std::mem::take(&mut is_first);
        match piece {
            Piece::Capture(_) => true,
            Piece::Text(text) => {
                let digit_first = is_start && text.as_bytes()[0].is_ascii_digit();
                !digit_first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            }
            Piece::Nothing => false,
        }
    }) && !pieces.is_empty()
}

/// Text with captures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// From 1.
    Capture(usize),
    /// A capture by a name that no pattern gives.
    Nothing,
}

impl Template {
    pub(super) fn parse(text: &str) -> Template {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            let word = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let (name, length) = match rest.strip_prefix('{') {
                Some(inner) if inner[word(inner)..].starts_with('}') => (&inner[..word(inner)], word(inner) + 2),
                Some(_) => ("", 0),
                None => (&rest[..word(rest)], word(rest)),
            };
            pieces.push(match (name, name.parse::<usize>()) {
                ("", _) => Piece::Text("$".to_owned()),
                (_, Ok(number)) if number > 0 => Piece::Capture(number),
                _ => Piece::Nothing,
            });
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Template(pieces)
    }

    /// A capture past the last is empty.
    pub(super) fn expand(&self, captures: &[&str]) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Capture(number) => out.push_str(captures.get(number - 1).unwrap_or(&"")),
                Piece::Nothing => {}
            }
        }
        out
    }
}
