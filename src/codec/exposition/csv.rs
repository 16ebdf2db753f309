//! Current values as a table: RFC 4180, one row a series.
//!
//! In: values. Out: rows of the [`CSV_HEADER`]'s columns, lines ended by CR LF. Invariant: a row has as many fields as
//! the header, whatever labels contain; a value that there is not (NaN, an empty window) is an empty field.
//!
//! | column | holds |
//! |---|---|
//! | `name`, `type`, `unit` | of the metric: exposed name; counter, gauge, summary or histogram; may be empty |
//! | `labels` | `key="value",...` as in the text format |
//! | `timestamp` | of the newest sample, seconds since the epoch; empty before the first |
//! | `value` | of a counter or gauge; a distribution's is its count |
//! | `count`, `sum`, `mean`, `min`, `max` | of a distribution, since creation |
//! | `quantiles` | of a distribution's window: `0.5=0.042;0.99=0.31` |

/// The first line of a document.
pub const CSV_HEADER: &[u8] = b"name,type,unit,labels,timestamp,value,count,sum,mean,min,max,quantiles\r\n";

/// How many fields a row has.
const FIELDS: usize = 12;

/// Writes one row; it is ended when it is dropped, with empty fields for those that were not written.
pub struct CsvRow<'a> {
    out: &'a mut Vec<u8>,
    written: usize,
    scratch: Vec<u8>,
}

impl<'a> CsvRow<'a> {
    /// Begins a row.
    pub fn new(out: &'a mut Vec<u8>) -> CsvRow<'a> {
        CsvRow { out, written: 0, scratch: Vec::new() }
    }

    /// Writes the next field: what `put` writes, quoted where it must be.
    pub fn field(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.written < FIELDS, "a row has the fields of the header");
        if self.written > 0 {
            self.out.push(b',');
        }
        self.written += 1;
        self.scratch.clear();
        put(&mut self.scratch);
        if self.scratch.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
            self.out.push(b'"');
            for byte in &self.scratch {
                if *byte == b'"' {
                    self.out.push(b'"');
                }
                self.out.push(*byte);
            }
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(&self.scratch);
        }
    }

    /// Writes a text field.
    pub fn text(&mut self, text: &str) {
        self.field(|out| out.extend_from_slice(text.as_bytes()));
    }
}

impl Drop for CsvRow<'_> {
    fn drop(&mut self) {
        self.out.extend(std::iter::repeat_n(b',', FIELDS - self.written.max(1)));
        self.out.extend_from_slice(b"\r\n");
    }
}
