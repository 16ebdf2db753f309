//! Writing a page.
//!
//! In: rows in ascending (series, slot). Out: bytes. Owns: the tokens of the whole page, because its tables are chosen by
//! them. Invariant: a series lies in one block, and a block ends when reading it would be felt.

use super::cells::Group;
use super::distribution::{self, Head};
use super::ints::Sink;
use super::rans::{Counts, Encoder};
use super::scalar::{self, Out, ScalarScratch};
use super::shared::Shared;
use super::{BLOCK_ROWS_MAX, SLOTS_MAX, VERSION, column};
use crate::delta::GaugeSum;
use crate::delta::part::RowValue;
use crate::delta::varint::put_u64;
use crate::event::{Kind, SeriesId};

/// A block ends behind the series that gives it this many tokens: some 40 µs of reading.
const BLOCK_TOKENS: usize = 4096;
/// Or this many series, where they have few tokens.
const BLOCK_SERIES: usize = 64;
/// Or so many rows, which a reader of one series keeps; one more series fits below [`BLOCK_ROWS_MAX`].
const BLOCK_ROWS: usize = BLOCK_ROWS_MAX - SLOTS_MAX as usize;
/// Or so many bytes of heads and sets.
const BLOCK_BYTES: usize = 8192;
/// Most bytes of a scalar row before its series is complete.
const ROW_BYTES: usize = 64;

/// Writes one page: rows of one kind. Series come in ascending id, slots of a series ascending, one row a (series, slot).
pub struct PageWriter {
    kind: Kind,
    series: Option<SeriesId>,
    slots: Vec<u16>,
    counters: Vec<i128>,
    gauges: Vec<GaugeSum>,
    distributions: Vec<Head>,
    lengths: Vec<i64>,
    counts: Counts,
    shared: Shared,
    scratch: ScalarScratch,
    block: Block,
    blocks: Vec<Block>,
    closed_bytes: usize,
}

/// Some series, until the tables are chosen.
#[derive(Default)]
struct Block {
    ids: Vec<SeriesId>,
    rows: usize,
    heads: Vec<u8>,
    sink: Sink,
    groups: Vec<Group>,
    /// Most bytes of the groups that are full.
    full_bytes: usize,
    sets: Vec<u8>,
}

impl Block {
    fn bytes_len(&self) -> usize {
        let groups = self.full_bytes + self.groups.last().map_or(0, Group::bytes_len) + 8 * self.groups.len();
        32 + 5 * self.ids.len() + self.heads.len() + self.sink.bytes_len() + groups + self.sets.len()
    }

    fn is_full(&self) -> bool {
        self.sink.pairs.len() >= BLOCK_TOKENS
            || self.ids.len() >= BLOCK_SERIES
            || self.rows >= BLOCK_ROWS
            || self.heads.len() + self.sets.len() >= BLOCK_BYTES
    }

    fn write(mut self, encoder: &Encoder, words: &mut Vec<u16>, out: &mut Vec<u8>) {
        put_u64(out, self.heads.len() as u64);
        out.append(&mut self.heads);
        encoder.encode(&self.sink.pairs, words, out);
        put_u64(out, self.sink.bits.bytes_len() as u64);
        self.sink.bits.finish(out);
        if !self.groups.is_empty() {
            let mut bodies = Vec::new();
            put_u64(out, self.groups.len() as u64);
            for group in self.groups {
                put_u64(out, group.rows() as u64);
                let start = bodies.len();
                group.write(encoder, words, &mut bodies);
                put_u64(out, (bodies.len() - start) as u64);
            }
            out.append(&mut bodies);
        }
        out.append(&mut self.sets);
    }
}

impl PageWriter {
    /// An empty page of one kind.
    pub fn new(kind: Kind) -> PageWriter {
        PageWriter {
            kind,
            series: None,
            slots: Vec::new(),
            counters: Vec::new(),
            gauges: Vec::new(),
            distributions: Vec::new(),
            lengths: Vec::new(),
            counts: Counts::new(),
            shared: Shared::default(),
            scratch: ScalarScratch::default(),
            block: Block::default(),
            blocks: Vec::new(),
            closed_bytes: 0,
        }
    }

    /// Adds a row. A gauge has had a set, a distribution a sample.
    ///
    /// # Panics
    /// If rows do not come in order, or of two kinds, or of a slot that no page has.
    pub fn row(&mut self, id: SeriesId, slot: u16, value: &RowValue<'_>) {
        assert!(slot < SLOTS_MAX, "slot {slot} lies beyond every span");
        if self.series == Some(id) {
            assert!(self.slots.last().is_none_or(|last| *last < slot), "slots come in order");
        } else {
            assert!(self.series.is_none_or(|last| last < id), "series come in order");
            self.end_series();
            self.series = Some(id);
        }
        self.slots.push(slot);
        match (self.kind, value) {
            (Kind::Counter, RowValue::Counter(sum)) => self.counters.push(sum.nanos),
            (Kind::Gauge, RowValue::Gauge(sum)) => {
                debug_assert!(sum.adjust.is_none() && sum.count > 0, "operations are resolved before encoding");
                self.gauges.push(sum.clone());
            }
            (Kind::Distribution, RowValue::Distribution(row)) => {
                assert!(row.count > 0, "an empty distribution has no row");
                self.distributions.push(Head::of(slot, row));
                if self.block.groups.last().is_none_or(Group::is_full) {
                    self.block.full_bytes += self.block.groups.last().map_or(0, Group::bytes_len);
                    self.block.groups.push(Group::new());
                }
                self.block.groups.last_mut().expect("pushed above").row(row, &mut self.counts);
            }
            (Kind::Set, RowValue::Set(distinct)) => {
                let start = self.block.sets.len();
                distinct.encode(&mut self.block.sets);
                self.lengths.push((self.block.sets.len() - start) as i64);
            }
            _ => panic!("a page holds one kind"),
        }
    }

    fn end_series(&mut self) {
        let Some(id) = self.series.take() else { return };
        let PageWriter { block, shared, scratch, counts, slots, .. } = self;
        block.ids.push(id);
        block.rows += slots.len();
        let pattern = shared.pattern(slots);
        put_u64(&mut block.heads, pattern as u64);
        let mut out = Out { heads: &mut block.heads, sink: &mut block.sink, counts };
        match self.kind {
            Kind::Counter => scalar::write_counters(pattern, &self.counters, scratch, &mut out),
            Kind::Gauge => scalar::write_gauges(pattern, slots, &self.gauges, shared, scratch, &mut out),
            Kind::Distribution => distribution::write(&self.distributions, scratch, &mut out),
            Kind::Set => column::write(&self.lengths, &mut scratch.columns, out.heads, out.sink, out.counts),
        }
        self.slots.clear();
        self.counters.clear();
        self.gauges.clear();
        self.distributions.clear();
        self.lengths.clear();
        if self.block.is_full() {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        self.scratch.neighbours.clear();
        let block = std::mem::take(&mut self.block);
        self.closed_bytes += block.bytes_len();
        self.blocks.push(block);
    }

    /// An upper estimate of what [`finish`](Self::finish) would give now: exact but for what the page's own tables save,
    /// and [64 bytes](ROW_BYTES) a row of the series under way.
    pub fn bytes_len(&self) -> usize {
        32 + self.closed_bytes + self.block.bytes_len() + self.shared.bytes_len() + ROW_BYTES * self.slots.len() + 560
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.series.is_none()
    }

    /// The finished bytes.
    pub fn finish(mut self) -> Vec<u8> {
        let estimate = self.bytes_len();
        self.end_series();
        if !self.block.ids.is_empty() {
            self.end_block();
        }
        let lines = self.shared.draft(&mut self.scratch.columns, &mut self.counts);
        let mut tables = Vec::new();
        let encoder = Encoder::choose(&self.counts, &mut tables);
        let mut shared = Vec::new();
        self.shared.write(lines, &encoder, &mut shared);

        let (mut directory, mut bodies, mut words) = (Vec::new(), Vec::with_capacity(estimate), Vec::new());
        let mut next = 0u64;
        put_u64(&mut directory, self.blocks.len() as u64);
        for block in self.blocks {
            let ids = block.ids.clone();
            let start = bodies.len();
            block.write(&encoder, &mut words, &mut bodies);
            put_u64(&mut directory, ids.len() as u64);
            put_u64(&mut directory, (bodies.len() - start) as u64);
            for id in ids {
                put_u64(&mut directory, u64::from(id.0) - next);
                next = u64::from(id.0) + 1;
            }
        }
        let mut out = Vec::with_capacity(16 + directory.len() + tables.len() + shared.len() + bodies.len());
        out.extend([VERSION, self.kind as u8]);
        put_u64(&mut out, tables.len() as u64);
        put_u64(&mut out, shared.len() as u64);
        for part in [&directory, &tables, &shared, &bodies] {
            out.extend_from_slice(part);
        }
        out
    }
}
