//! The lines that the generator sends: JSON events and DogStatsD.
//!
//! In: names and values of the systems. Out: bytes, one line each. Invariant: texts are plain words that need no escaping.

use crate::event::Timestamp;
use std::fmt::Write;

/// Lines that wait to be sent.
pub(super) struct Lines {
    text: String,
    /// When the demo began.
    began: Timestamp,
}

impl Lines {
    pub(super) fn new(began: Timestamp) -> Lines {
        Lines { text: String::new(), began }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    /// Begins a JSON event; it ends with its value.
    pub(super) fn event(&mut self, name: &str) -> Event<'_> {
        let mut event = Event { lines: self };
        event.lines.text.push_str("{\"event\":");
        event.quoted(name);
        event
    }

    /// A line of DogStatsD, `name:value|type|#tags`.
    pub(super) fn statsd(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a String cannot fail");
    }
}

/// A JSON event that is being written.
pub(super) struct Event<'l> {
    lines: &'l mut Lines,
}

impl Event<'_> {
    fn quoted(&mut self, text: &str) {
        debug_assert!(text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\'), "{text:?}");
        self.lines.text.push('"');
        self.lines.text.push_str(text);
        self.lines.text.push('"');
    }

    fn key(&mut self, key: &str) {
        self.lines.text.push(',');
        self.quoted(key);
        self.lines.text.push(':');
    }

    fn write(mut self, key: &str, value: std::fmt::Arguments<'_>) -> Self {
        self.key(key);
        self.lines.text.write_fmt(value).expect("writing to a String cannot fail");
        self
    }

    pub(super) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.quoted(value);
        self
    }

    /// A number with up to six decimals.
    pub(super) fn number(self, key: &str, value: f64) -> Self {
        self.write(key, format_args!("{value:.6}"))
    }

    pub(super) fn whole(self, key: &str, value: u64) -> Self {
        self.write(key, format_args!("{value}"))
    }

    pub(super) fn flag(self, key: &str, value: bool) -> Self {
        self.write(key, format_args!("{value}"))
    }

    /// When it happened, in seconds from the start of the demo, negative before it.
    pub(super) fn at(self, seconds: f64) -> Self {
        let began = self.lines.began.0;
        self.write("time", format_args!("{}", (began + (seconds * 1e9) as i64).div_euclid(1_000_000)))
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        self.lines.text.push_str("}\n");
    }
}
