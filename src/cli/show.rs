//! How things are written on a terminal: colour or not, sizes, columns, foreign text.
//!
//! In: values. Out: strings. Invariant: text of others never carries control characters to a terminal.

use std::io::IsTerminal;

/// True when a stream may be coloured: a terminal, and `NO_COLOR` is unset or empty (no-color.org).
pub(super) fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text with its control characters as `\u{..}`.
pub(super) fn foreign(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// A size with three digits or so: `61 KB`.
pub(super) fn bytes(count: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    for (step, word) in STEPS {
        if count >= step {
            let scaled = count as f64 / step as f64;
            return if scaled < 10.0 { format!("{scaled:.1} {word}") } else { format!("{scaled:.0} {word}") };
        }
    }
    format!("{count} B")
}

/// A path under the home directory with `~` for it.
pub(super) fn home_as_tilde(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix(&home) {
        Some(rest) if home.len() > 1 && rest.starts_with('/') => format!("~{rest}"),
        _ => path.to_owned(),
    }
}

/// A number as it is usually written: `1`, `0.042`, `1.2e30`.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && !(1e-7..1e16).contains(&value.abs()) { format!("{value:e}") } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_numbers_and_foreign_text() {
        assert_eq!(bytes(61_440), "61 KB");
        assert_eq!(bytes(1_240_000), "1.2 MB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(number(1.0), "1");
        assert_eq!(number(0.042), "0.042");
        assert_eq!(number(1e30), "1e30");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(foreign("a\u{1b}[2Jb ä"), "a\\u{1b}[2Jb ä");
    }
}
