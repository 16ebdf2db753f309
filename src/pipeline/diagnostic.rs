//! What is wrong with a pipeline file, as a person wants to read it: file, line, caret, cause, fix.
//!
//! In: a message, a place (file and byte range) and notes. Out: plain text. Owns: the text of the files.
//! Invariant: rendering never panics, whatever the range (it is clamped to the text) and whatever the bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The text of one pipeline file and the name it is shown under.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// As given on the command line, or `pipeline default (built in)`.
    pub name: String,
    /// The whole file.
    pub text: String,
}

/// A byte range of a file, or an environment variable that took the place of one.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file.
    pub source: Arc<SourceText>,
    /// Bytes of it.
    pub span: Range<usize>,
    /// The variable that gave the value, if one did; the span is then that of the table.
    pub variable: Option<Arc<str>>,
}

impl Place {
    /// A part of the text that this place holds: `range` are bytes of `text`. The whole place where the file writes
    /// the text otherwise (escapes, references, a variable).
    #[must_use]
    pub fn inside(&self, text: &str, range: &Range<usize>) -> Place {
        let written = self.source.text.get(self.span.clone()).and_then(|raw| raw.find(text));
        match written {
            Some(at) if self.variable.is_none() && range.start <= range.end && range.end <= text.len() => {
                let start = self.span.start + at;
                Place { span: start + range.start..start + range.end, ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// `my.toml:12`
    pub fn line(&self) -> String {
        format!("{}:{}", self.source.name, Line::of(&self.source.text, &self.span).number)
    }

    /// `my.toml:12:3`, or the variable.
    pub fn shown(&self) -> String {
        match &self.variable {
            Some(variable) => format!("environment variable {variable}"),
            None => {
                let line = Line::of(&self.source.text, &self.span);
                format!("{}:{}:{}", self.source.name, line.number, line.column)
            }
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pipeline does not start.
    Error,
    /// It starts, and this is worth a look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, lower-case, with the value and the limit.
    pub message: String,
    /// Where; `None` where a file could not be read at all.
    pub place: Option<Place>,
    /// What would be right: nearest key, allowed values, the other place.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn new(place: &Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, message: message.into(), place: Some(place.clone()), notes: Vec::new() }
    }

    /// A warning at a place.
    pub fn warning(place: &Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::new(place, message) }
    }

    /// An error without a place.
    pub fn bare(message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, message: message.into(), place: None, notes: Vec::new() }
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }

    /// Adds `did you mean`, or the whole list where nothing is near and the list is short.
    #[must_use]
    pub fn nearest<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(word, &known) {
            Some(best) => self.note(format!("did you mean \"{best}\"?")),
            None if known.is_empty() => self,
            None => self.note(format!("known here: {}", known.join(", "))),
        }
    }

    /// Adds `did you mean` where something is near, and nothing else: for long lists.
    #[must_use]
    pub fn nearest_only<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(word, &known) {
            Some(best) => self.note(format!("did you mean \"{best}\"?")),
            None => self,
        }
    }
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let score = |candidate: &str| strsim::jaro_winkler(&word, candidate);
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) >= 0.8).then_some(*best)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        let mut margin = 1;
        if let Some(place) = &self.place {
            let line = Line::of(&place.source.text, &place.span);
            let number = line.number.to_string();
            margin = number.len() + 1;
            match &place.variable {
                Some(variable) => {
                    writeln!(f, "{:margin$}--> environment variable {variable}", "")?;
                }
                None => {
                    writeln!(f, "{:margin$}--> {}:{}:{}", "", place.source.name, line.number, line.column)?;
                    writeln!(f, "{:margin$} |", "")?;
                    writeln!(f, " {number} | {}", redacted(line.text))?;
                    writeln!(f, "{:margin$} | {}{}", "", line.padding, "^".repeat(line.carets))?;
                }
            }
        }
        for note in &self.notes {
            writeln!(f, "{:margin$} = {note}", "")?;
        }
        Ok(())
    }
}

/// The line without the value of a key that holds a secret: a mistake beside one must not print it.
fn redacted(line: &str) -> std::borrow::Cow<'_, str> {
    let lower = line.to_ascii_lowercase();
    for word in ["token", "password", "secret"] {
        for (at, _) in lower.match_indices(word) {
            let tail = &lower[at + word.len()..];
            // The word ends its key, or a part of it: `token`, `token_x`, not `tokens` or a value somewhere in the line.
            let key = |c: char| c.is_ascii_alphanumeric() || "_-\"' ".contains(c);
            if let Some(equals) = tail.find('=')
                && !tail.starts_with("_file")
                && !tail.starts_with(|c: char| c.is_ascii_alphanumeric())
                && tail[..equals].chars().all(key)
            {
                return format!("{}= …", &line[..at + word.len() + equals]).into();
            }
        }
    }
    line.into()
}

/// The line a span begins on.
struct Line<'a> {
    /// From 1.
    number: usize,
    /// From 1, in characters.
    column: usize,
    text: &'a str,
    /// As wide as what stands before the span; tabs stay tabs so that the carets stand below it.
    padding: String,
    carets: usize,
}

impl Line<'_> {
    fn of<'a>(text: &'a str, span: &Range<usize>) -> Line<'a> {
        let start = floor_boundary(text, span.start);
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[begin..end].trim_end_matches('\r');
        let before = &text[begin..start];
        let stop = floor_boundary(text, span.end).clamp(start, begin + line.len().max(start - begin));
        let padding = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        Line {
            number: text[..start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            text: line,
            padding,
            carets: text[start..stop].chars().count().max(1),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// All that is wrong with the files, in the order of the text. Never empty when returned as an error.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// None yet.
    pub fn new() -> Diagnostics {
        Diagnostics::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds those of another list.
    pub fn append(&mut self, mut other: Diagnostics) {
        self.0.append(&mut other.0);
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Errors among them.
    pub(super) fn errors(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// Them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// The warnings, if there is no error, else the errors; both sorted by place.
    ///
    /// # Errors
    /// The errors, when there are any.
    pub fn into_warnings(self) -> Result<Diagnostics, Diagnostics> {
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
        if errors.is_empty() { Ok(Diagnostics(warnings).sorted()) } else { Err(Diagnostics(errors).sorted()) }
    }

    /// Them in the order of the text.
    pub(super) fn sorted(mut self) -> Diagnostics {
        self.0.sort_by_key(|d| d.place.as_ref().map(|p| (p.source.name.clone(), p.span.start)));
        self
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, expected: &str) {
        let source = Arc::new(SourceText { name: "my.toml".into(), text: text.into() });
        let place = Place { source, span, variable: None };
        let shown = Diagnostic::new(&place, "unknown key").nearest("widow", ["window", "slice"]).to_string();
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_caret_stands_below_the_cause() {
        check(
            "name = \"x\"\n\nwidow = \"5m\"\n",
            12..17,
            "error: unknown key\n  --> my.toml:3:1\n   |\n 3 | widow = \"5m\"\n   | ^^^^^\n   = did you mean \"window\"?\n",
        );
        check(
            "\tä = 1",
            1..3,
            "error: unknown key\n  --> my.toml:1:2\n   |\n 1 | \tä = 1\n   | \t^\n   = did you mean \"window\"?\n",
        );
    }

    #[test]
    fn no_range_is_too_wild() {
        let text = "a\r\nß\n";
        for start in 0..12 {
            for end in 0..12 {
                let source = Arc::new(SourceText { name: "x".into(), text: text.into() });
                let place = Place { source, span: start..end, variable: None };
                assert!(Diagnostic::new(&place, "m").to_string().contains("--> x:"));
            }
        }
    }

    #[test]
    fn far_words_get_the_list() {
        let d = Diagnostic::bare("m").nearest("zzz", ["counter", "gauge"]);
        assert_eq!(d.to_string(), "error: m\n  = known here: counter, gauge\n");
    }
}
