//! What many series of a page have in common: the slots they have rows in, and the times of their gauges (V6).
//!
//! In: the slots and times of one series after the other. Out: small numbers that name them. Owns: the page's patterns
//! and lines. Invariants: what was named does not change; a line only grows by slots that it did not have.
//!
//! ```text
//! patterns = (length:varint pattern)*        pattern: 0 (gap:varint run-1:varint)* | 1 first:varint bitmap
//! lines    = (length:varint line)*           line: pattern_len:varint pattern step:zigzag column, a block of its own
//! ```

use super::SLOTS_MAX;
use super::column::{self, ColumnScratch, Heads};
use super::ints::{Sink, Source};
use super::rans::{Counts, Encoder, Tables, Tokens};
use crate::delta::part::Corrupt;
use crate::delta::varint::{put_i64, put_u64, read_u64};

/// Lines that a series is compared with, the newest ones.
const LINES_TRIED: usize = 32;

/// Most bytes of a pattern: a bit a slot, and its first.
const PATTERN_BYTES: usize = SLOTS_MAX as usize / 8 + 8;

/// Writes slots, ascending.
fn put_pattern(slots: &[u16], out: &mut Vec<u8>) {
    let begin = out.len();
    out.push(0);
    let (mut next, mut at) = (0, 0);
    while at < slots.len() {
        let run = slots[at..].iter().zip(slots[at]..).take_while(|(slot, expected)| **slot == *expected).count();
        put_u64(out, u64::from(slots[at]) - next);
        put_u64(out, run as u64 - 1);
        next = u64::from(slots[at]) + run as u64;
        at += run;
    }
    let (Some(first), Some(last)) = (slots.first(), slots.last()) else { return };
    let bytes = usize::from(last - first) / 8 + 1;
    if out.len() - begin > bytes + 3 {
        out.truncate(begin);
        out.push(1);
        put_u64(out, u64::from(*first));
        let start = out.len();
        out.resize(start + bytes, 0);
        for slot in slots {
            out[start + usize::from(slot - first) / 8] |= 1 << ((slot - first) & 7);
        }
    }
}

/// Reads slots; all of `bytes` is the pattern.
fn read_pattern(bytes: &[u8], out: &mut Vec<u16>) -> Option<()> {
    out.clear();
    let mut at = 1;
    match bytes.first()? {
        0 => {
            let mut next = 0u64;
            while at < bytes.len() {
                let first = next.checked_add(read_u64(bytes, &mut at)?)?;
                next = first.checked_add(read_u64(bytes, &mut at)?)?.checked_add(1)?;
                if next > u64::from(SLOTS_MAX) {
                    return None;
                }
                out.extend(first as u16..next as u16);
            }
        }
        1 => {
            let first = read_u64(bytes, &mut at)?;
            let bits = bytes.get(at..)?;
            if first + bits.len() as u64 * 8 > u64::from(SLOTS_MAX) + 8 {
                return None;
            }
            for (at, byte) in bits.iter().enumerate() {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                    out.push(first as u16 + at as u16 * 8 + bit);
                }
            }
            if out.last().is_some_and(|last| *last >= SLOTS_MAX) {
                return None;
            }
        }
        _ => return None,
    }
    (!out.is_empty()).then_some(())
}

/// Patterns and lines of a page that is written.
#[derive(Default)]
pub(super) struct Shared {
    patterns: Vec<Vec<u16>>,
    pattern_used: usize,
    known: std::collections::HashMap<Vec<u16>, usize>,
    lines: Vec<Line>,
    line_used: usize,
    /// Most bytes of all.
    bytes: usize,
}

#[derive(Default)]
struct Line {
    /// By slot; meaningless where `is_known` is false.
    times: Vec<i64>,
    is_known: Vec<bool>,
}

impl Line {
    fn has(&self, slot: u16, time: i64) -> bool {
        let at = usize::from(slot);
        self.is_known.get(at) == Some(&true) && self.times[at] == time
    }

    /// Takes the times of slots that it does not have, and says how many.
    fn take(&mut self, slots: &[u16], times: &[i64]) -> usize {
        let end = usize::from(slots.last().copied().unwrap_or(0)) + 1;
        if self.times.len() < end {
            self.times.resize(end, 0);
            self.is_known.resize(end, false);
        }
        let mut taken = 0;
        for (slot, time) in slots.iter().zip(times) {
            let at = usize::from(*slot);
            if !self.is_known[at] {
                (self.times[at], self.is_known[at]) = (*time, true);
                taken += 1;
            }
        }
        taken
    }

    /// Whether at least half of these times are its own.
    fn suits(&self, slots: &[u16], times: &[i64]) -> bool {
        let n = slots.len();
        let probe = [0, n / 2, n - 1].iter().any(|at| self.has(slots[*at], times[*at]));
        probe && slots.iter().zip(times).filter(|(slot, time)| self.has(**slot, **time)).count() * 2 >= n
    }
}

impl Shared {
    /// The number of the pattern of these slots.
    pub(super) fn pattern(&mut self, slots: &[u16]) -> usize {
        if self.patterns.get(self.pattern_used).is_none_or(|pattern| pattern != slots) {
            self.pattern_used = match self.known.get(slots) {
                Some(number) => *number,
                None => {
                    self.patterns.push(slots.to_vec());
                    self.known.insert(slots.to_vec(), self.patterns.len() - 1);
                    self.bytes += (2 * slots.len()).min(PATTERN_BYTES) + 8;
                    self.patterns.len() - 1
                }
            };
        }
        self.pattern_used
    }

    /// The number of a line that has every slot of these, and whether all times are equal. What they lack is appended
    /// to `differences`.
    pub(super) fn line(&mut self, slots: &[u16], times: &[i64], differences: &mut Vec<i64>) -> (usize, bool) {
        let from = self.lines.len().saturating_sub(LINES_TRIED);
        let used = self.lines.get(self.line_used).filter(|line| line.suits(slots, times)).map(|_| self.line_used);
        let found = used.or_else(|| (from..self.lines.len()).rev().find(|at| self.lines[*at].suits(slots, times)));
        let number = found.unwrap_or_else(|| {
            self.lines.push(Line::default());
            self.bytes += PATTERN_BYTES + 40;
            self.lines.len() - 1
        });
        self.line_used = number;
        let line = &mut self.lines[number];
        self.bytes += 9 * line.take(slots, times);
        let start = differences.len();
        differences
            .extend(slots.iter().zip(times).map(|(slot, time)| time.wrapping_sub(line.times[usize::from(*slot)])));
        (number, differences[start..].iter().all(|difference| *difference == 0))
    }

    /// Most bytes that it takes when it is written.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes
    }

    /// Makes tokens of the lines; before the tables are chosen.
    pub(super) fn draft(&self, scratch: &mut ColumnScratch, counts: &mut Counts) -> Vec<(Vec<u8>, Sink)> {
        let draft = |line: &Line| {
            let slots: Vec<u16> =
                (0..).zip(&line.is_known).filter(|(_, known)| **known).map(|(slot, _)| slot).collect();
            let time = |slot: u16| line.times[usize::from(slot)];
            let (first, last) = (slots[0], slots[slots.len() - 1]);
            let step = time(last).wrapping_sub(time(first)) / i64::from(last - first).max(1);
            let (mut head, mut sink) = (Vec::new(), Sink::default());
            let mut pattern = Vec::new();
            put_pattern(&slots, &mut pattern);
            put_u64(&mut head, pattern.len() as u64);
            head.append(&mut pattern);
            put_i64(&mut head, step);
            let off = |slot: u16| time(slot).wrapping_sub(step.wrapping_mul(i64::from(slot)));
            let column: Vec<i64> = slots.iter().map(|slot| off(*slot)).collect();
            column::write(&column, scratch, &mut head, &mut sink, counts);
            (head, sink)
        };
        self.lines.iter().map(draft).collect()
    }

    /// Writes patterns, then the lines that [`draft`](Self::draft) gave.
    pub(super) fn write(&self, mut lines: Vec<(Vec<u8>, Sink)>, encoder: &Encoder, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        put_u64(out, self.patterns.len() as u64);
        for slots in &self.patterns {
            put_pattern(slots, &mut body);
            put_u64(out, body.len() as u64);
            out.append(&mut body);
        }
        put_u64(out, lines.len() as u64);
        let mut words = Vec::new();
        for (head, sink) in &mut lines {
            put_u64(&mut body, head.len() as u64);
            body.append(head);
            encoder.encode(&sink.pairs, &mut words, &mut body);
            sink.bits.finish(&mut body);
            put_u64(out, body.len() as u64);
            out.append(&mut body);
        }
    }
}

/// Patterns and lines of a page that is read: decoded when they are first asked for.
#[derive(Default)]
pub(super) struct SharedReader {
    patterns: Vec<std::ops::Range<usize>>,
    lines: Vec<std::ops::Range<usize>>,
    slots: Vec<u16>,
    pattern: Option<usize>,
    line_slots: Vec<u16>,
    offsets: Vec<i64>,
    times: Vec<i64>,
    line: Option<usize>,
}

impl SharedReader {
    /// Bytes that its vectors have taken.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        (self.patterns.capacity() + self.lines.capacity()) * 16
            + (self.slots.capacity() + self.line_slots.capacity()) * 2
            + (self.offsets.capacity() + self.times.capacity()) * 8
    }

    /// Forgets the page before and reads where the parts of another lie.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        (self.pattern, self.line) = (None, None);
        let mut at = 0;
        let mut read = |out: &mut Vec<std::ops::Range<usize>>| {
            out.clear();
            for _ in 0..read_u64(bytes, &mut at)? {
                let length = usize::try_from(read_u64(bytes, &mut at)?).ok()?;
                let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
                out.push(at..end);
                at = end;
            }
            Some(())
        };
        read(&mut self.patterns).and_then(|()| read(&mut self.lines)).ok_or(Corrupt { at })?;
        if at == bytes.len() { Ok(()) } else { Err(Corrupt { at }) }
    }

    /// How many patterns there are.
    pub(super) fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// How many lines there are.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Decodes a pattern, so that [`slots`](Self::slots) are its own.
    pub(super) fn use_pattern(&mut self, bytes: &[u8], number: usize) -> Result<(), Corrupt> {
        if self.pattern != Some(number) {
            self.pattern = None;
            let range = self.patterns[number].clone();
            read_pattern(&bytes[range.clone()], &mut self.slots).ok_or(Corrupt { at: range.start })?;
            self.pattern = Some(number);
        }
        Ok(())
    }

    /// The slots of the pattern in use, ascending, at least one.
    pub(super) fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// Decodes a line, so that [`time`](Self::time) is its own.
    pub(super) fn use_line(&mut self, bytes: &[u8], number: usize, tables: &mut Tables) -> Result<(), Corrupt> {
        if self.line == Some(number) {
            return Ok(());
        }
        self.line = None;
        let range = self.lines[number].clone();
        let corrupt = Corrupt { at: range.start };
        let bytes = &bytes[range];
        let mut at = 0;
        let length = usize::try_from(read_u64(bytes, &mut at).ok_or(corrupt)?).map_err(|_| corrupt)?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(corrupt)?;
        let mut heads = Heads { bytes: &bytes[..end], at };
        let length = heads.u64()? as usize;
        let begin = heads.at;
        heads.at = begin.checked_add(length).filter(|at| *at <= end).ok_or(corrupt)?;
        read_pattern(&bytes[begin..heads.at], &mut self.line_slots).ok_or(corrupt)?;
        let step = heads.i64()?;
        let mut source = Source::new(tables, bytes, end).ok_or(corrupt)?;
        column::read(self.line_slots.len(), &mut heads, &mut source, &mut self.offsets)?;
        source.end(&heads)?;
        self.times.clear();
        self.times.resize(usize::from(self.line_slots.last().copied().unwrap_or(0)) + 1, 0);
        for (slot, offset) in self.line_slots.iter().zip(&self.offsets) {
            self.times[usize::from(*slot)] = offset.wrapping_add(step.wrapping_mul(i64::from(*slot)));
        }
        self.line = Some(number);
        Ok(())
    }

    /// The time of the line in use at a slot; 0 where it has none, which no sound page asks for.
    #[inline(always)]
    pub(super) fn time(&self, slot: u16) -> i64 {
        self.times.get(usize::from(slot)).copied().unwrap_or(0)
    }
}

impl<'a> Source<'a> {
    /// The stream and bits of a block whose heads end at `at`; all of `bytes` behind them is theirs.
    pub(super) fn new(tables: &'a mut Tables, bytes: &'a [u8], mut at: usize) -> Option<Source<'a>> {
        let tokens = Tokens::new(tables, bytes, &mut at)?;
        Some(Source { tokens, bits: super::bits::BitReader::new(&bytes[at..]) })
    }

    /// Checks that everything was read, and nothing beyond.
    pub(super) fn end(&self, heads: &Heads<'_>) -> Result<(), Corrupt> {
        let is_whole = self.tokens.is_at_end() && !self.bits.is_past_end() && heads.at == heads.bytes.len();
        if is_whole { Ok(()) } else { Err(heads.corrupt()) }
    }
}
