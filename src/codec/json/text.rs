//! The text of a string, and how a text becomes a string.
//!
//! In: what stands between the quotes. Out: its bytes without escapes. Invariant: `raw` was checked when it
//! was scanned, so that taking the escapes out cannot fail.

use super::scanner::hex;

/// A string: what stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Text<'a> {
    /// As in the text: UTF-8, with escapes if `escaped`.
    pub raw: &'a [u8],
    /// True when there is a backslash in `raw`; else `raw` is the text itself.
    pub escaped: bool,
}

impl<'a> Text<'a> {
    /// A text without escapes. The bytes are UTF-8, without quotes, backslashes and control characters.
    pub const fn plain(raw: &'a [u8]) -> Text<'a> {
        Text { raw, escaped: false }
    }

    /// Appends the text without its escapes. `raw` must come from a scanner; what is no right escape is
    /// left as it stands.
    pub fn unescape_into(&self, out: &mut Vec<u8>) {
        let mut rest = self.raw;
        if !self.escaped {
            out.extend_from_slice(rest);
            return;
        }
        while let Some(at) = memchr::memchr(b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let taken = match rest.get(1) {
                Some(b'b') => push(out, 0x08),
                Some(b'f') => push(out, 0x0c),
                Some(b'n') => push(out, b'\n'),
                Some(b'r') => push(out, b'\r'),
                Some(b't') => push(out, b'\t'),
                Some(byte @ (b'"' | b'\\' | b'/')) => push(out, *byte),
                Some(b'u') => push_unicode(out, rest),
                _ => push(out, b'\\') - 1,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
    }

    /// The text without its escapes; `scratch` is written only if there are any.
    pub fn unescaped<'s>(&self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        self.unescape_into(scratch);
        scratch
    }

    /// True when the text, without its escapes, is this one.
    #[inline]
    pub fn is(&self, text: &[u8]) -> bool {
        if !self.escaped {
            return self.raw == text;
        }
        let mut plain = Vec::with_capacity(self.raw.len());
        self.unescape_into(&mut plain);
        plain == text
    }
}

/// Two bytes of the string make one of the text.
fn push(out: &mut Vec<u8>, byte: u8) -> usize {
    out.push(byte);
    2
}

/// `\uXXXX`, or two of them that are a pair; how many bytes they have.
fn push_unicode(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    let first = hex(rest, 2).unwrap_or(0xFFFD);
    let (code, taken) = if (0xD800..0xDC00).contains(&first) {
        let second = hex(rest, 8).unwrap_or(0xDC00);
        (0x1_0000 + ((u32::from(first) - 0xD800) << 10) + (u32::from(second).saturating_sub(0xDC00) & 0x3FF), 12)
    } else {
        (u32::from(first), 6)
    };
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    taken
}

/// Appends a text as a JSON string, with its quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
