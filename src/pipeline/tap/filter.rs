//! The words of a filter, compiled.
//!
//! In: a pattern of names, a PromQL selector. Out: whether an item passes. Invariant: both must hold; a label that is not
//! there is empty, as in PromQL.

use crate::query::{Expression, MatchOp, Matcher};
use crate::shard::tap::{TapFilter, TapSubject};

/// See the file's head.
pub(super) struct Filter {
    /// Conditions on the name.
    names: Vec<Matcher>,
    /// Conditions on labels.
    labels: Vec<Matcher>,
}

impl Filter {
    /// `None` when neither is given.
    ///
    /// # Errors
    /// In words, for what is no selector.
    pub(super) fn new(name: Option<&str>, selector: Option<&str>) -> Result<Option<Filter>, String> {
        if name.is_none() && selector.is_none() {
            return Ok(None);
        }
        let mut filter = Filter { names: Vec::new(), labels: Vec::new() };
        if let Some(name) = name {
            filter.names.push(glob(name)?);
        }
        if let Some(text) = selector {
            filter.select(text.trim())?;
        }
        Ok(Some(filter))
    }

    fn select(&mut self, text: &str) -> Result<(), String> {
        let wrong = |reason: String| format!("match takes a selector, as in {{region=\"eu\"}}: {reason}");
        // PromQL refuses conditions that everything may meet, as in {region!="eu"}: a database must not read all of its
        // series, but a tap may look at all of what passes. A name in front makes them acceptable.
        let (expression, is_named) = match Expression::parse(text) {
            Ok(expression) => (expression, true),
            Err(error) if text.starts_with('{') => {
                let named = Expression::parse(&format!("x{text}")).map_err(|_| wrong(error.to_string()))?;
                (named, false)
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let selector = expression.as_selector().ok_or_else(|| wrong("this is an expression".into()))?;
        if selector.offset != 0 || selector.at.is_some() {
            return Err(wrong("what passes now has no offset".into()));
        }
        if let (Some(name), true) = (&selector.name, is_named) {
            self.names.push(Matcher::new("__name__", MatchOp::Equal, name)?);
        }
        self.names.extend_from_slice(&selector.name_matchers);
        self.labels.extend_from_slice(&selector.matchers);
        Ok(())
    }
}

impl TapFilter for Filter {
    fn accepts(&self, subject: &dyn TapSubject) -> bool {
        self.names.iter().all(|matcher| matcher.accepts(&subject.name()))
            && self.labels.iter().all(|matcher| matcher.accepts(&subject.label(matcher.name())))
    }
}

/// A pattern for a whole name: `*` is any text, `?` any character, everything else itself.
///
/// # Errors
/// When it is too long.
pub(super) fn glob(pattern: &str) -> Result<Matcher, String> {
    if !pattern.contains(['*', '?']) {
        return Matcher::new("__name__", MatchOp::Equal, pattern);
    }
    let mut text = String::with_capacity(pattern.len() + 8);
    for c in pattern.chars() {
        match c {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            c if c.is_alphanumeric() || c == '_' => text.push(c),
            c if c.is_ascii_punctuation() => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    Matcher::new("__name__", MatchOp::Regex, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LabelsBuilder;
    use crate::shard::tap::{RawSubject, SeriesSubject};

    fn passes(name: Option<&str>, selector: Option<&str>, series: &str, labels: &[(&str, &str)]) -> bool {
        let mut builder = LabelsBuilder::new();
        for (key, value) in labels {
            builder.push(*key, *value);
        }
        let labels = builder.build().expect("valid labels");
        let filter = Filter::new(name, selector).expect("a filter");
        filter.is_none_or(|filter| filter.accepts(&SeriesSubject { name: series, labels: &labels }))
    }

    #[test]
    fn names_by_glob() {
        for (pattern, name, expected) in [
            ("checkout_*", "checkout_latency_seconds", true),
            ("checkout_*", "xcheckout_latency", false),
            ("*latency*", "checkout_latency_seconds", true),
            ("checkout", "checkout_latency", false),
            ("a?c", "abc", true),
            ("a?c", "abbc", false),
            ("a.c", "abc", false),
            ("a.*", "a.b.c", true),
            ("a.*", "axb", false),
            ("[x]*", "[x]y", true),
            ("(a|b)*", "a", false),
            ("*", "", true),
            ("größe*", "größe_total", true),
            ("a\\*", "a\\b", true),
        ] {
            assert_eq!(passes(Some(pattern), None, name, &[]), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn labels_by_selector() {
        let eu = [("region", "eu"), ("code", "503")];
        for (selector, expected) in [
            (r#"{region="eu"}"#, true),
            (r#"{region="us"}"#, false),
            (r#"{region!="us"}"#, true),
            (r#"{region!="eu"}"#, false),
            (r#"{missing=""}"#, true),
            (r#"{code=~"5.."}"#, true),
            (r#"{code=~"5"}"#, false),
            (r#"{code!~"5..",region="eu"}"#, false),
            (r#"requests_total{region="eu"}"#, true),
            (r#"other_total{region="eu"}"#, false),
            (r#"{__name__=~"requests_.*"}"#, true),
            (r#"{__name__=~"other_.*"}"#, false),
            ("requests_total", true),
            ("{}", true),
        ] {
            assert_eq!(passes(None, Some(selector), "requests_total", &eu), expected, "{selector}");
        }
        assert!(passes(Some("requests_*"), Some(r#"{region="eu"}"#), "requests_total", &eu));
        assert!(!passes(Some("other_*"), Some(r#"{region="eu"}"#), "requests_total", &eu));
    }

    #[test]
    fn input_is_filtered_by_what_it_says() {
        let filter = Filter::new(Some("check*"), Some(r#"{region="eu"}"#)).expect("a filter").expect("given");
        for (text, expected) in [
            ("checkout:1|c|#region:eu", true),
            ("checkout:1|c|#region:us", false),
            ("other:1|c|#region:eu", false),
            (r#"{"event":"checkout","region":"eu"}"#, true),
            (r#"{"event":"checkout","region":"us"}"#, false),
            (r#"{"event":"checkout"}"#, false),
            ("", false),
        ] {
            assert_eq!(filter.accepts(&RawSubject::new(text.as_bytes(), None)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_in_words() {
        for text in ["sum(x)", "x[5m]", "x offset 5m", "x @ 5", "1", "{region=}", "{region=~\"(\"}", "{", "", "x or y"]
        {
            let error = Filter::new(None, Some(text)).err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(error.starts_with("match takes a selector, as in {region=\"eu\"}: "), "{error}");
        }
        assert!(Filter::new(None, None).expect("nothing").is_none());
    }
}
