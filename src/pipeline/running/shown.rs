//! Series and values in words.
//!
//! In: names, labels, values of the view. Out: text and numbers for people and answers.

use super::*;
use crate::event::Scale;
use crate::sink::scrape::Chosen;

/// `name{k="v",...}`, for people and answers; the exposition has its own writer.
pub fn series_name(name: &str, labels: &Labels) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{key}=\"{value}\"")
        })
        .collect();
    format!("{name}{{{}}}", pairs.join(","))
}

/// The one number that stands for a value.
pub fn as_number(value: &Value) -> f64 {
    match value {
        // Counters count in 1e-9 whatever their scale says (V1), as every exposition has it.
        Value::Counter(counter) => Scale::NANO.value_of(counter.nanos),
        Value::Gauge(gauge) => gauge.last.unwrap_or(f64::NAN),
        Value::Distribution(distribution) => distribution.count as f64,
        Value::Set(set) => set.distinct as f64,
    }
}

impl Pipeline {
    /// One line for a person for every live series: name, labels, value.
    ///
    /// # Errors
    /// [`ReadError::NotCommitted`].
    pub fn summary(&self) -> Result<String, ReadError> {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (metric, labels, value) in self.all()? {
            let _ = writeln!(text, "{} {}", series_name(&metric.name, &labels), as_number(&value));
        }
        Ok(text)
    }

    /// The exposition of everything, after a commit that holds every call that returned before.
    ///
    /// # Errors
    /// [`ReadError::NotCommitted`].
    pub fn render(&self, format: ScrapeFormat) -> Result<Vec<u8>, ReadError> {
        self.flush()?;
        let request = ScrapeRequest { format, group: None, names: Vec::new(), gzip: false };
        self.scrape(&request).map(|body| body.to_vec()).map_err(|error| match error {
            ScrapeError::UnknownGroup(_) => ReadError::Unknown,
            ScrapeError::NoRoom { .. } => ReadError::NoRoom,
        })
    }

    /// A scrape's body: what is durable now, without waiting.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn scrape(&self, request: &ScrapeRequest) -> Result<ScrapeBody, ScrapeError> {
        self.scrape.render(request)
    }

    /// As [`scrape`](Self::scrape), of some series only.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn scrape_chosen(&self, request: &ScrapeRequest, chosen: &Chosen) -> Result<ScrapeBody, ScrapeError> {
        self.scrape.render_chosen(request, chosen)
    }
}
