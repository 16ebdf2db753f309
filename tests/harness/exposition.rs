//! A strict reader of the text exposition 0.0.4: what the format demands is demanded, nothing is repaired.
//!
//! In: the body of a scrape. Out: [`Scrape`], or the line that broke a rule. Format:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//! Invariant: an accepted body has one HELP and one TYPE per family, contiguous families, no repeated series,
//! well-formed escapes, monotone buckets that end in `+Inf` = `_count`, and no value after the value.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type LabelSet = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: LabelSet,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) samples: BTreeMap<Series, f64>,
    /// family → type
    pub(crate) types: BTreeMap<String, String>,
    /// family → help, as written
    pub(crate) helps: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads a body or says which line is wrong.
    pub(crate) fn read(body: &str) -> Result<Scrape, String> {
        let mut scrape = Scrape::default();
        let mut finished: BTreeSet<String> = BTreeSet::new();
        let mut current = String::new();
        if !body.is_empty() && !body.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        for line in body.split_terminator('\n') {
            let wrong = |why: &str| format!("{why}: {line:?}");
            if line.is_empty() {
                continue;
            }
            let family;
            if let Some(comment) = line.strip_prefix("# ") {
                let (word, rest) = comment.split_once(' ').ok_or_else(|| wrong("a comment of one word"))?;
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                if !is_name(name, true) {
                    return Err(wrong("not a metric name"));
                }
                let table = match word {
                    "TYPE" => &mut scrape.types,
                    "HELP" => &mut scrape.helps,
                    _ => return Err(wrong("neither HELP nor TYPE")),
                };
                if word == "TYPE" && !["counter", "gauge", "histogram", "summary", "untyped"].contains(&text) {
                    return Err(wrong("unknown type"));
                }
                if table.insert(name.to_owned(), text.to_owned()).is_some() {
                    return Err(wrong("said twice"));
                }
                family = name.to_owned();
            } else {
                let (series, value) = sample(line).map_err(wrong)?;
                family = scrape.family_of(&series).ok_or_else(|| wrong("a sample without its TYPE"))?;
                let number = number(value).ok_or_else(|| wrong("not a value"))?;
                if scrape.types.get(&family).is_some_and(|t| t == "counter") && (number.is_nan() || number < 0.0) {
                    return Err(wrong("a counter below zero"));
                }
                if scrape.samples.insert(series, number).is_some() {
                    return Err(wrong("a series twice"));
                }
            }
            if family != current {
                if !finished.insert(family.clone()) {
                    return Err(wrong("a family in two places"));
                }
                current = family;
            }
        }
        scrape.check_distributions()?;
        Ok(scrape)
    }

    /// The family a sample line belongs to by the types seen so far.
    fn family_of(&self, series: &Series) -> Option<String> {
        let name = &series.name;
        if let Some(kind) = self.types.get(name) {
            let fits = match kind.as_str() {
                "summary" => series.labels.contains_key("quantile"),
                "histogram" => false,
                _ => true,
            };
            return fits.then(|| name.clone());
        }
        for (suffix, kinds) in [
            ("_sum", &["summary", "histogram"][..]),
            ("_count", &["summary", "histogram"]),
            ("_bucket", &["histogram"]),
        ] {
            if let Some(base) = name.strip_suffix(suffix)
                && let Some(kind) = self.types.get(base)
                && kinds.contains(&kind.as_str())
                && (suffix == "_bucket") == series.labels.contains_key("le")
            {
                return Some(base.to_owned());
            }
        }
        None
    }

    fn check_distributions(&self) -> Result<(), String> {
        for (family, kind) in &self.types {
            match kind.as_str() {
                "histogram" => self.check_histogram(family)?,
                "summary" => {
                    for (series, _) in self.named(family) {
                        let q = series.labels.get("quantile").and_then(|q| q.parse::<f64>().ok());
                        if !q.is_some_and(|q| (0.0..=1.0).contains(&q)) {
                            return Err(format!("{series:?} has no quantile in [0, 1]"));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_histogram(&self, family: &str) -> Result<(), String> {
        let mut buckets: BTreeMap<LabelSet, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, value) in self.named(&format!("{family}_bucket")) {
            let mut labels = series.labels.clone();
            let le = labels.remove("le").as_deref().and_then(number).ok_or(format!("{series:?} has no bound"))?;
            buckets.entry(labels).or_default().push((le, value));
        }
        for (labels, mut row) in buckets {
            row.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count = self.exactly(&format!("{family}_count"), &labels);
            let last = row.last().copied();
            if last.map(|(le, _)| le) != Some(f64::INFINITY) || last.map(|(_, n)| n) != count {
                return Err(format!("{family}{labels:?}: +Inf bucket {last:?} is not the count {count:?}"));
            }
            if row.windows(2).any(|w| w[0].1 > w[1].1) {
                return Err(format!("{family}{labels:?}: buckets go down"));
            }
        }
        Ok(())
    }

    /// Samples with this very name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (&Series, f64)> {
        self.samples.iter().filter(move |(s, _)| s.name == name).map(|(s, v)| (s, *v))
    }

    /// The value of the one series with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: LabelSet = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.exactly(name, &labels)
    }

    fn exactly(&self, name: &str, labels: &LabelSet) -> Option<f64> {
        self.samples.get(&Series { name: name.to_owned(), labels: labels.clone() }).copied()
    }

    /// The sum over all series of this name that carry at least these labels; 0 without any.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.named(name)
            .filter(|(s, _)| labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|have| have == v)))
            .map(|(_, v)| v)
            .fold(0.0, |sum, v| sum + v)
    }

    /// Everything that must never go down while its process or its store lives: counters, and the sums and counts of
    /// distributions. What describes the process (`process_*`) starts again with it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (&Series, f64)> {
        self.samples.iter().map(|(s, v)| (s, *v)).filter(|(series, _)| {
            let family = self.family_of(series).expect("a sample was read with its family");
            let kind = self.types[&family].as_str();
            let grows = match kind {
                "counter" => true,
                "histogram" => !series.name.ends_with("_sum"),
                "summary" => series.name.ends_with("_count"),
                _ => false,
            };
            grows && !family.starts_with("process_")
        })
    }

    /// Both conservation laws of a source as this scrape shows them, or the words that say which is broken (C6).
    pub(crate) fn laws(&self, source: &str) -> Result<Laws, String> {
        let by = [("source", source)];
        let laws = Laws {
            inputs: self.sum("hydrograph_events_received_total", &by),
            events: self.sum("hydrograph_events_total", &by),
            rejected: self.sum("hydrograph_rejected_total", &by),
            samples: self.sum("hydrograph_samples_total", &by),
            committed: self.sum("hydrograph_samples_committed_total", &by),
            dropped: self.sum("hydrograph_dropped_total", &by),
            in_flight: self.sum("hydrograph_in_flight", &by),
        };
        if laws.inputs != laws.events + laws.rejected {
            return Err(format!("inputs = events + rejected is broken: {laws:?}"));
        }
        if laws.samples != laws.committed + laws.dropped + laws.in_flight {
            return Err(format!("samples = committed + dropped + in flight is broken: {laws:?}"));
        }
        Ok(laws)
    }
}

/// The terms of the two conservation laws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Laws {
    pub(crate) inputs: f64,
    pub(crate) events: f64,
    pub(crate) rejected: f64,
    pub(crate) samples: f64,
    pub(crate) committed: f64,
    pub(crate) dropped: f64,
    pub(crate) in_flight: f64,
}

fn is_name(name: &str, colon: bool) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

/// Splits a sample line into its series and the text of its value.
fn sample(line: &str) -> Result<(Series, &str), &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let name = &line[..end];
    if !is_name(name, true) {
        return Err("not a metric name");
    }
    let mut labels = LabelSet::new();
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let equals = rest.find('=').ok_or("a label without =")?;
            let key = &rest[..equals];
            if !is_name(key, false) {
                return Err("not a label name");
            }
            let (value, after) = quoted(&rest[equals + 1..])?;
            if labels.insert(key.to_owned(), value).is_some() {
                return Err("a label twice");
            }
            match after.as_bytes().first() {
                Some(b',') => rest = &after[1..],
                Some(b'}') => {
                    rest = &after[1..];
                    break;
                }
                _ => return Err("neither , nor } after a label"),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok((Series { name: name.to_owned(), labels }, value))
}

/// A quoted label value with its escapes undone, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let inside = text.strip_prefix('"').ok_or("a label value without quotes")?;
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &inside[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                _ => return Err("an unknown escape"),
            },
            _ => value.push(c),
        }
    }
    Err("a label value that does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_reads_what_the_format_allows() {
        let body = "# HELP a_total Some \\n help\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n}{\"} 3\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 1\ns_count 2\n\
                    # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let scrape = Scrape::read(body).expect("a valid body");
        assert_eq!(scrape.value("a_total", &[("x", "q\"\\\n}{")]), Some(3.0));
        assert_eq!(scrape.value("s_count", &[]), Some(2.0));
        assert_eq!(scrape.cumulative().count(), 5);
    }

    #[test]
    fn the_reader_refuses_what_the_format_forbids() {
        for body in [
            "a 1\n",
            "# TYPE a counter\na 1",
            "# TYPE a counter\na -1\n",
            "# TYPE a counter\na 1\na 2\n",
            "# TYPE a gauge\na{x=\"1\" 1\n",
            "# TYPE a gauge\na{x=\"\\t\"} 1\n",
            "# TYPE a gauge\na 1 1700000000\n",
            "# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
            "# TYPE a gauge\n# TYPE b gauge\na 1\nb 1\na{x=\"1\"} 1\n",
            "# TYPE a gauge\na inf\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 3\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
            "# TYPE s summary\ns 1\n",
        ] {
            assert!(Scrape::read(body).is_err(), "{body:?} was accepted");
        }
    }
}
