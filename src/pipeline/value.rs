//! How durations, sizes and references to the environment are written.
//!
//! In: text of the pipeline file or of a variable. Out: nanoseconds, bytes, substituted text; errors as
//! sentences. Pure. Invariant: what [`show_duration`] and [`show_size`] write is read back to the same value.

use std::collections::BTreeMap;

const DURATIONS: [(&str, i64); 9] = [
    ("y", 365 * 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Nanoseconds of `10s`, `1h30m`, `2y` (of 365 days).
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("\"{text}\" is not a duration; write \"10s\", \"5m\", \"1h30m\" (y w d h m s ms us ns)");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let word = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = &rest[digits..digits + word];
        let (_, nanos) = DURATIONS.iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
        let part = number.checked_mul(*nanos);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("\"{text}\" is longer than 292 years"))?;
        rest = &rest[digits + word..];
    }
    Ok(total)
}

/// A duration in the largest units that write it exactly.
pub fn show_duration(nanos: i64) -> String {
    if nanos <= 0 {
        return "0s".into();
    }
    let mut rest = nanos;
    let mut out = String::new();
    for (unit, size) in DURATIONS {
        // Weeks read badly beside days.
        if unit != "w" && rest >= size {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

const SIZES: [(&str, u64); 11] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

/// Bytes of `10GiB` (2^30), `10GB` (10^9), `4096`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size; write \"256MiB\" (2^20) or \"10GB\" (10^9)");
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit = trimmed[digits..].trim_start();
    let (_, bytes) = SIZES.iter().find(|(known, _)| *known == unit).ok_or_else(wrong)?;
    number.checked_mul(*bytes).filter(|n| *n <= i64::MAX as u64).ok_or_else(|| format!("\"{text}\" is beyond 8 EiB"))
}

/// A size in the largest unit that writes it exactly.
pub fn show_size(bytes: u64) -> String {
    let exact = SIZES[..9].iter().filter(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    let exact = exact.max_by_key(|(_, size)| *size);
    exact.map_or_else(|| format!("{bytes}B"), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// Text whose references to the environment were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Substituted {
    pub(super) text: String,
    /// At least one reference was replaced.
    pub(super) referenced: bool,
    /// The whole text was one reference, so that it takes the key's type.
    pub(super) whole: bool,
}

/// Replaces `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$`. Any other `$` stays as it is.
pub(super) fn substitute(text: &str, variables: &BTreeMap<String, String>) -> Result<Substituted, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut references = 0;
    let mut literal = false;
    while let Some(at) = rest.find('$') {
        literal |= at > 0;
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            literal = true;
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let end = tail.find('}').ok_or("\"${\" without \"}\"; a dollar sign is written \"$$\"")?;
            out.push_str(&reference(&tail[..end], variables)?);
            references += 1;
            rest = &tail[end + 1..];
        } else {
            out.push('$');
            literal = true;
        }
    }
    literal |= !rest.is_empty();
    out.push_str(rest);
    Ok(Substituted { text: out, referenced: references > 0, whole: references == 1 && !literal })
}

fn reference(inside: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let name_end = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, rest) = inside.split_at(name_end);
    if name.is_empty() {
        return Err(format!("\"${{{inside}}}\" names no environment variable"));
    }
    let value = variables.get(name);
    if rest.is_empty() {
        return value
            .cloned()
            .ok_or_else(|| format!("environment variable {name} is not set; ${{{name}:-default}} gives it a default"));
    }
    let set = value.filter(|value| !value.is_empty());
    if let Some(default) = rest.strip_prefix(":-") {
        return Ok(set.map_or_else(|| default.to_owned(), Clone::clone));
    }
    if let Some(message) = rest.strip_prefix(":?") {
        return set.cloned().ok_or_else(|| format!("environment variable {name} is not set: {message}"));
    }
    Err(format!(
        "\"${{{inside}}}\" is not a reference; write ${{{name}}}, ${{{name}:-default}} or ${{{name}:?message}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, nanos: Option<i64>| assert_eq!(parse_duration(text).ok(), nanos, "{text}");
        check("10s", Some(10_000_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("250ms", Some(250_000_000));
        check("2y", Some(730 * 86_400_000_000_000));
        check("0s", Some(0));
        for wrong in ["", "10", "s", "1x", "-1s", "1.5h", "10 s", "300y", "99999999999999999999s", "ß"] {
            check(wrong, None);
        }
        for nanos in [1, 999, 1_500_000_000, 86_400_000_000_000, 400 * 86_400_000_000_000 + 7] {
            assert_eq!(parse_duration(&show_duration(nanos)), Ok(nanos));
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text).ok(), bytes, "{text}");
        check("10GiB", Some(10 << 30));
        check("10GB", Some(10_000_000_000));
        check("256 MiB", Some(256 << 20));
        check("12", Some(12));
        check("10gb", None);
        check("GiB", None);
        check("-1B", None);
        check("99999999TiB", None);
        for bytes in [0, 1, 1023, 1 << 20, 2_000_000_000, (3 << 30) + 1] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn references() {
        let variables: BTreeMap<String, String> =
            [("A", "one"), ("EMPTY", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = |text: &str, expected: Result<(&str, bool), ()>| {
            let got = substitute(text, &variables);
            assert_eq!(got.as_ref().map(|s| (s.text.as_str(), s.whole)).map_err(|_| ()), expected, "{text}");
        };
        check("${A}", Ok(("one", true)));
        check("x-${A}", Ok(("x-one", false)));
        check("${A}${A}", Ok(("oneone", false)));
        check("${EMPTY}", Ok(("", true)));
        check("${EMPTY:-two}", Ok(("two", true)));
        check("${B:-}", Ok(("", true)));
        check("$$ $1 ${A}$", Ok(("$ $1 one$", false)));
        check("$${A}", Ok(("${A}", false)));
        check("${B}", Err(()));
        check("${B:?say it}", Err(()));
        check("${A", Err(()));
        check("${A:+x}", Err(()));
        check("${}", Err(()));
        assert!(substitute("${B:?say it}", &variables).is_err_and(|e| e.ends_with("say it")));
    }
}
