//! Escaping: the three rules of the text formats.
//!
//! In: any text. Out: text that stays on its line. Source: Prometheus exposition formats 0.0.4 and
//! OpenMetrics 1.0.

use crate::event::Labels;

/// Writes a label value: `\`, `"` and line feed are escaped.
pub(super) fn put_label_value(out: &mut Vec<u8>, value: &str) {
    put(out, value, true);
}

/// Writes the text of `# HELP`: `\` and line feed, in OpenMetrics also `"`.
pub(super) fn put_help(out: &mut Vec<u8>, help: &str, is_openmetrics: bool) {
    put(out, help, is_openmetrics);
}

fn put(out: &mut Vec<u8>, text: &str, quotes: bool) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            byte => out.push(byte),
        }
    }
}

/// Writes `key="value",...` without braces: nothing for no labels.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (at, (key, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"=\"");
        put_label_value(out, value);
        out.push(b'"');
    }
}
