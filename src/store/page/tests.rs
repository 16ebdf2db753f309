//! Every page reads back as it was written, parts of it as parts of the whole, and no bytes do harm.

use super::*;
use crate::delta::part::{Corrupt, DistributionRow, RowValue};
use crate::delta::{CounterSum, GaugeSum};
use crate::event::{Kind, SeriesId, WEIGHT_ONE};
use crate::sketch::{Digits, Distinct, layout};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// A row that owns what it holds, so that two can be compared to the bit.
#[derive(Clone, Debug)]
pub(super) enum Owned {
    Counter(CounterSum),
    Gauge(GaugeSum),
    Distribution(OwnedDistribution),
    Set(Distinct),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnedDistribution {
    pub(super) digits: Digits,
    pub(super) count: u64,
    pub(super) weighted: bool,
    pub(super) sum: i128,
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) cells: Vec<(i32, u64)>,
    pub(super) below: Vec<(u16, u64)>,
}

fn gauge_bits(sum: &GaugeSum) -> (u64, u64, i64, u64, u64, u64, i128) {
    let GaugeSum { count, last, time, position, min, max, sum, adjust } = *sum;
    assert!(adjust.is_none());
    (count, last.to_bits(), time, position, min.to_bits(), max.to_bits(), sum)
}

impl PartialEq for Owned {
    fn eq(&self, other: &Owned) -> bool {
        match (self, other) {
            (Owned::Counter(a), Owned::Counter(b)) => a == b,
            (Owned::Gauge(a), Owned::Gauge(b)) => gauge_bits(a) == gauge_bits(b),
            (Owned::Distribution(a), Owned::Distribution(b)) => a == b,
            (Owned::Set(a), Owned::Set(b)) => a == b,
            _ => false,
        }
    }
}

impl Owned {
    pub(super) fn of(value: &RowValue<'_>) -> Owned {
        match value {
            RowValue::Counter(sum) => Owned::Counter(*sum),
            RowValue::Gauge(sum) => Owned::Gauge(sum.clone()),
            RowValue::Set(distinct) => Owned::Set(distinct.clone()),
            RowValue::Distribution(row) => Owned::Distribution(OwnedDistribution {
                digits: row.digits,
                count: row.count,
                weighted: row.weighted,
                sum: row.sum,
                min: row.min,
                max: row.max,
                cells: row.cells.to_vec(),
                below: row.below.to_vec(),
            }),
        }
    }

    pub(super) fn with<T>(&self, take: impl FnOnce(&RowValue<'_>) -> T) -> T {
        match self {
            Owned::Counter(sum) => take(&RowValue::Counter(*sum)),
            Owned::Gauge(sum) => take(&RowValue::Gauge(sum.clone())),
            Owned::Set(distinct) => take(&RowValue::Set(distinct.clone())),
            Owned::Distribution(row) => take(&RowValue::Distribution(DistributionRow {
                digits: row.digits,
                count: row.count,
                weighted: row.weighted,
                sum: row.sum,
                min: row.min,
                max: row.max,
                cells: &row.cells,
                below: &row.below,
            })),
        }
    }

    fn without_cells(&self) -> Owned {
        match self {
            Owned::Distribution(row) if !row.weighted => {
                Owned::Distribution(OwnedDistribution { cells: Vec::new(), below: Vec::new(), ..row.clone() })
            }
            other => other.clone(),
        }
    }
}

pub(super) type Rows = BTreeMap<(u32, u16), Owned>;

pub(super) fn written(kind: Kind, rows: &Rows) -> Vec<u8> {
    let mut writer = PageWriter::new(kind);
    assert!(writer.is_empty());
    for ((id, slot), row) in rows {
        row.with(|value| writer.row(SeriesId(*id), *slot, value));
    }
    assert_eq!(writer.is_empty(), rows.is_empty());
    let estimate = writer.bytes_len();
    let bytes = writer.finish();
    assert!(bytes.len() <= estimate, "{} bytes where {estimate} were the most", bytes.len());
    bytes
}

type Read = Vec<((u32, u16), Owned)>;

fn read(bytes: &[u8], wanted: Wanted<'_>, slots: Range<u16>, cells: bool) -> Result<Read, Corrupt> {
    read_with(&mut PageBuffers::default(), bytes, wanted, slots, cells)
}

fn read_with(
    buffers: &mut PageBuffers,
    bytes: &[u8],
    wanted: Wanted<'_>,
    slots: Range<u16>,
    cells: bool,
) -> Result<Read, Corrupt> {
    let mut rows = Vec::new();
    Page::new(bytes)?.read(wanted, slots, cells, buffers, &mut |id, slot, value| {
        rows.push(((id.0, slot), Owned::of(value)));
        Ok(())
    })?;
    Ok(rows)
}

/// Everything that is promised about one page.
fn check(kind: Kind, rows: &Rows) {
    let bytes = written(kind, rows);
    assert_eq!(bytes, written(kind, rows), "the bytes are a function of the rows");
    let page = Page::new(&bytes).expect("a page");
    assert_eq!(page.kind(), kind);
    let mut ids = Vec::new();
    page.ids(&mut ids).expect("ids");
    let mut all: Vec<u32> = rows.keys().map(|(id, _)| *id).collect();
    all.dedup();
    assert_eq!(ids.iter().map(|id| id.0).collect::<Vec<_>>(), all);

    let mut buffers = PageBuffers::default();
    let whole = read_with(&mut buffers, &bytes, Wanted::All, 0..u16::MAX, true).expect("reads");
    for (mine, theirs) in whole.iter().zip(rows) {
        assert_eq!((&mine.0, &mine.1), theirs);
    }
    assert_eq!(whole.len(), rows.len());

    // Parts of it are parts of the whole.
    let some: Vec<SeriesId> = all.iter().enumerate().filter(|(n, _)| n % 3 == 1).map(|(_, id)| SeriesId(*id)).collect();
    let foreign: Vec<SeriesId> = all.iter().map(|id| SeriesId(id ^ 1)).collect();
    let mut foreign_sorted = foreign.clone();
    foreign_sorted.sort();
    let last = all.last().map(|id| vec![SeriesId(*id)]).unwrap_or_default();
    for wanted in [Wanted::All, Wanted::Ids(&some), Wanted::Ids(&foreign_sorted), Wanted::Ids(&last), Wanted::Ids(&[])]
    {
        for slots in [0..u16::MAX, 0..1, 7..180, 359..360, 100..100] {
            for cells in [true, false] {
                let part = read_with(&mut buffers, &bytes, wanted, slots.clone(), cells).expect("reads");
                let is_asked = |id: u32| match wanted {
                    Wanted::All => true,
                    Wanted::Ids(ids) => ids.binary_search(&SeriesId(id)).is_ok(),
                };
                let of_whole: Read = whole
                    .iter()
                    .filter(|((id, slot), _)| is_asked(*id) && slots.contains(slot))
                    .map(|(key, row)| (*key, if cells { row.clone() } else { row.without_cells() }))
                    .collect();
                let part: Read =
                    part.into_iter().map(|(k, row)| (k, if cells { row } else { row.without_cells() })).collect();
                assert!(part == of_whole, "{kind:?} {wanted:?} {slots:?} {cells}");
            }
        }
    }
}

/// Splitmix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nearly normal, and the same on every machine: a sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What the values of one series look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Constant,
    Steady,
    Walk,
    Sparse,
    Decimal,
    Extreme,
    Anything,
}

const SHAPES: [Shape; 7] =
    [Shape::Constant, Shape::Steady, Shape::Walk, Shape::Sparse, Shape::Decimal, Shape::Extreme, Shape::Anything];

const FLOATS: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e18,
    -1e18,
    5e-324,
    -5e-324,
    f64::MIN_POSITIVE,
    1.0 / 3.0,
    99.999,
    123_456_789.5,
    1e-9,
];

fn number(rng: &mut Rng, shape: Shape, at: usize, state: &mut i128) -> i128 {
    match shape {
        Shape::Constant => *state,
        Shape::Steady => *state + (rng.normal() * (state.unsigned_abs() as f64).sqrt()) as i128,
        Shape::Walk => {
            *state = state.saturating_add(rng.below(2001) as i128 - 1000);
            *state
        }
        Shape::Sparse => {
            if rng.below(20) == 0 {
                rng.below(1000) as i128
            } else {
                0
            }
        }
        Shape::Decimal => i128::from(rng.below(100_000)) * 1_000_000,
        Shape::Extreme => match rng.below(6) {
            0 => i128::MAX,
            1 => i128::MIN,
            2 => i128::from(i64::MAX) + rng.below(3) as i128,
            3 => i128::from(i64::MIN) - rng.below(3) as i128,
            4 => 0,
            _ => at as i128,
        },
        Shape::Anything => (i128::from(rng.next() as i64) << rng.below(64)) >> rng.below(127),
    }
}

fn float(rng: &mut Rng, shape: Shape, at: usize, state: &mut i128) -> f64 {
    match shape {
        Shape::Extreme => FLOATS[rng.below(FLOATS.len() as u64) as usize],
        Shape::Anything => {
            let value = f64::from_bits(rng.next());
            if value.is_finite() { value } else { 0.5 }
        }
        Shape::Decimal => rng.below(10_000) as f64 / 100.0,
        Shape::Walk => {
            *state += rng.below(2001) as i128 - 1000;
            *state as f64 / 8192.0 * 100.0 / 3.0
        }
        shape => number(rng, shape, at, state) as f64,
    }
}

fn distribution(rng: &mut Rng, shape: Shape) -> OwnedDistribution {
    let digits = [Digits::One, Digits::Two, Digits::Three][rng.below(3) as usize];
    let weighted = rng.below(4) == 0;
    let n = match shape {
        Shape::Constant => 1,
        Shape::Walk => 1 + rng.below(300),
        _ => 1 + rng.below(30),
    };
    let mut sum = crate::delta::DistributionSum::new(digits);
    for _ in 0..n {
        let units = match shape {
            Shape::Constant => 42_000_000,
            Shape::Extreme => [0, 1, -1, 1_000_000_000_000_000_000, -1_000_000_000_000_000_000][rng.below(5) as usize],
            Shape::Anything => (rng.next() as i64) >> (5 + rng.below(58)),
            _ => (12e6 * (1.0 + rng.normal() * rng.normal())) as i64,
        };
        let weight = if weighted { 1 + rng.below(20_000) } else { WEIGHT_ONE };
        sum.add(units, layout::cell_of(digits, units), weight);
    }
    if weighted && !sum.weighted {
        sum.add(1, layout::cell_of(digits, 1), 2 * WEIGHT_ONE);
    }
    let below = (0..rng.below(4)).map(|n| (n as u16 * 7, rng.next() >> rng.below(64))).collect();
    let cells: Vec<(i32, u64)> = sum.sketch.cells().collect();
    let mut row = OwnedDistribution {
        digits,
        count: sum.count,
        weighted: sum.weighted,
        sum: sum.sum,
        min: sum.min,
        max: sum.max,
        cells,
        below,
    };
    if matches!(shape, Shape::Anything) && rng.below(3) == 0 {
        // Rows whose parts do not fit each other must survive too.
        match rng.below(5) {
            0 => row.count = rng.next() >> rng.below(63) | 1,
            1 => row.cells.clear(),
            2 => row.cells = vec![(i32::MIN, u64::MAX), (-5, 1), (i32::MAX, 7)],
            3 => (row.min, row.max) = (i64::MIN, i64::MAX),
            _ => row.sum = if rng.below(2) == 0 { i128::MIN } else { i128::MAX },
        }
    }
    row
}

/// Rows of a page: `series` of them over at most `slots`, one shape a series.
pub(super) fn random_rows(rng: &mut Rng, kind: Kind, series: u32, slots: u16, presence: u64) -> Rows {
    let mut rows = Rows::new();
    let mut id = rng.below(1 << 20) as u32;
    let jitter: Vec<i64> = (0..slots).map(|_| rng.below(2_000_000) as i64).collect();
    for n in 0..series {
        id += 1 + (rng.below(4) == 0) as u32 * rng.below(50) as u32;
        let shape = SHAPES[rng.below(SHAPES.len() as u64) as usize];
        let magnitude = rng.below(40);
        let mut state = i128::from(rng.below(1 << magnitude));
        let shares_times = rng.below(3) > 0;
        let mut kept = 0;
        for slot in 0..slots {
            if rng.below(100) >= presence && !(slot + 1 == slots && kept == 0) {
                continue;
            }
            kept += 1;
            let row = match kind {
                Kind::Counter => {
                    let whole = number(rng, shape, usize::from(slot), &mut state);
                    let factor = if matches!(shape, Shape::Extreme | Shape::Anything | Shape::Decimal) {
                        1
                    } else {
                        1_000_000_000
                    };
                    Owned::Counter(CounterSum { nanos: whole.saturating_mul(factor) })
                }
                Kind::Gauge => {
                    let last = float(rng, shape, usize::from(slot), &mut state);
                    let time = i64::from(slot) * 10_000_000_000 + 1_700_000_000_000_000_000 + jitter[usize::from(slot)];
                    let time = match (shares_times, shape) {
                        (_, Shape::Extreme) => rng.next() as i64,
                        (true, _) => time,
                        (false, _) => time + rng.below(1_000_000_000) as i64,
                    };
                    let position = match shape {
                        Shape::Anything => rng.next(),
                        _ => (time as u64).wrapping_add(u64::from(n)),
                    };
                    let scale = if rng.below(9) == 0 { 1e3 } else { 1e6 };
                    let sum = (last * scale).round() as i128;
                    let mut gauge =
                        GaugeSum { count: 1, last, time, position, min: last, max: last, sum, adjust: None };
                    if rng.below(3) == 0 {
                        let other = float(rng, shape, usize::from(slot), &mut state);
                        gauge.count = 2 + (rng.next() >> (1 + rng.below(63)));
                        gauge.min = last.min(other);
                        gauge.max = last.max(other);
                        gauge.sum = gauge.sum.saturating_add((other * scale).round() as i128);
                    }
                    if matches!(shape, Shape::Extreme) && rng.below(8) == 0 {
                        gauge.sum = if rng.below(2) == 0 { i128::MIN } else { i128::MAX };
                    }
                    Owned::Gauge(gauge)
                }
                Kind::Distribution => Owned::Distribution(distribution(rng, shape)),
                Kind::Set => {
                    let mut set = Distinct::new();
                    let members_max = if rng.below(30) == 0 { 3000 } else { 40 };
                    for _ in 0..rng.below(members_max) {
                        set.insert(rng.next());
                    }
                    Owned::Set(set)
                }
            };
            rows.insert((id, slot), row);
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn h1_every_page_reads_back_to_the_bit(
        seed in any::<u64>(), kind in 0usize..4, series in 1u32..12, slots in 1u16..40, presence in 1u64..=100,
    ) {
        let kind = Kind::ALL[kind];
        let rows = random_rows(&mut Rng(seed), kind, series, slots, presence);
        check(kind, &rows);
    }
}

#[test]
fn h1_a_whole_page_of_every_kind_reads_back() {
    let mut rng = Rng(11);
    for (kind, series, slots, presence) in [
        (Kind::Counter, 200, 360, 100),
        (Kind::Counter, 1024, 60, 3),
        (Kind::Gauge, 120, 360, 97),
        (Kind::Gauge, 1024, 6, 30),
        (Kind::Distribution, 12, 360, 50),
        (Kind::Distribution, 300, 6, 30),
        (Kind::Set, 20, 60, 50),
    ] {
        check(kind, &random_rows(&mut rng, kind, series, slots, presence));
    }
    check(Kind::Counter, &Rows::new());
}

/// What one machine says about its memory: used and free have one sum, two percentages follow, and a counter has a twin.
fn related_rows(rng: &mut Rng, kind: Kind, slots: u16) -> Rows {
    let mut rows = Rows::new();
    let total = 25_276_510_208.0;
    let (mut used, mut free) = (732_421.0 * 4096.0, 1_220_703.0 * 4096.0);
    for slot in 0..slots {
        used += (rng.normal() * 500.0).round() * 4096.0;
        free += (rng.normal() * 500.0).round() * 4096.0;
        let time = i64::from(slot) * 10_000_000_000 + 1_700_000_000_000_000_000 + rng.below(1_000_000) as i64;
        let values = [used, total - used, used / total * 100.0, 42.0, free / total, free, total - free + 0.5];
        for (n, value) in values.into_iter().enumerate() {
            let row = if kind == Kind::Counter {
                Owned::Counter(CounterSum { nanos: value as i128 * 1_000_000_000 })
            } else {
                let (last, position, sum) = (value, time as u64 + n as u64, value.round() as i128);
                Owned::Gauge(GaugeSum { count: 1, last, time, position, min: last, max: last, sum, adjust: None })
            };
            rows.insert((n as u32, slot), row);
        }
    }
    rows
}

#[test]
fn h1_what_follows_from_another_series_costs_little_and_comes_back() {
    let mut rng = Rng(21);
    for kind in [Kind::Counter, Kind::Gauge] {
        let rows = related_rows(&mut rng, kind, 360);
        check(kind, &rows);
        let bytes = |ids: &[u32]| {
            written(kind, &rows.iter().filter(|((id, _), _)| ids.contains(id)).map(|(k, r)| (*k, r.clone())).collect())
                .len()
        };
        let (alone, both) = (bytes(&[0]), bytes(&[0, 1]));
        assert!(both < alone + 100, "{kind:?}: {both} for two where one is {alone}");
        if kind == Kind::Gauge {
            let (all, two) = (bytes(&[0, 1, 2, 4, 5, 6]), bytes(&[0, 5]));
            assert!(all < two + 500, "{all} for six where the two that move are {two}");
            assert!(bytes(&[2]) < alone + 100, "a percentage by itself is no more than what it is of");
        }
    }
}

#[test]
fn h1_pages_are_as_small_as_they_were() {
    let mut rng = Rng(33);
    let hour = |of: &mut dyn FnMut(u32, u16) -> Owned| -> Rows {
        (0..50).flat_map(|id| (0..360).map(move |slot| (id, slot))).map(|key| (key, of(key.0, key.1))).collect()
    };
    let each = |kind: Kind, rows: &Rows| written(kind, rows).len() as f64 / rows.len() as f64;

    let gauge = |id: u32, slot: u16, last: f64| {
        let time = 1_700_000_000_000_000_000 + i64::from(slot) * 10_000_000_000;
        let (position, sum) = (time as u64 + u64::from(id), (last * 1e6).round() as i128);
        Owned::Gauge(GaugeSum { count: 1, last, time, position, min: last, max: last, sum, adjust: None })
    };
    let constant = hour(&mut |id, slot| gauge(id, slot, f64::from(id) * 3.25));
    assert!(each(Kind::Gauge, &constant) <= 0.05, "{}", each(Kind::Gauge, &constant));

    // Entropy of a Poisson number of mean 100: 5.37 bits.
    let counted = hour(&mut |_, _| {
        let increment = (100.0 + 10.0 * rng.normal()).round() as i128;
        Owned::Counter(CounterSum { nanos: increment * 1_000_000_000 })
    });
    assert!(each(Kind::Counter, &counted) <= 5.37 * 1.07 / 8.0, "{}", each(Kind::Counter, &counted));

    let mut rng = Rng(34);
    let timings: Rows = (0..60)
        .map(|slot| {
            let mut sum = crate::delta::DistributionSum::new(Digits::Two);
            for _ in 0..1000 {
                let units = (12e6 * (0.8 * rng.normal()).exp()) as i64;
                sum.add(units, layout::cell_of(Digits::Two, units), WEIGHT_ONE);
            }
            let cells = sum.sketch.cells().collect();
            let (digits, count, weighted, below) = (Digits::Two, sum.count, false, Vec::new());
            let (sum, min, max) = (sum.sum, sum.min, sum.max);
            let row = OwnedDistribution { digits, count, weighted, sum, min, max, cells, below };
            ((1, slot), Owned::Distribution(row))
        })
        .collect();
    assert!(each(Kind::Distribution, &timings) <= 210.0, "{}", each(Kind::Distribution, &timings));
}

/// Pages of every kind as they were when this format was fixed. A difference is a new format version, and pages of this
/// one must be read for ever.
#[test]
fn h1_the_format_is_what_it_was() {
    let mut rng = Rng(77);
    let mut pages: Vec<(Kind, Rows)> =
        Kind::ALL.iter().map(|kind| (*kind, random_rows(&mut rng, *kind, 6, 10, 80))).collect();
    pages.push((Kind::Counter, related_rows(&mut rng, Kind::Counter, 40)));
    pages.push((Kind::Gauge, related_rows(&mut rng, Kind::Gauge, 40)));
    pages.push((Kind::Gauge, random_rows(&mut rng, Kind::Gauge, 20, 60, 20)));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text: String =
        pages.iter().map(|(kind, rows)| format!("{} {}\n", kind.as_str(), hex(&written(*kind, rows)))).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/page-format-1.txt");
    if std::env::var_os("HYDROGRAPH_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).expect("writes the golden file");
    }
    let kept = std::fs::read_to_string(&path).expect("present; HYDROGRAPH_BLESS=1 writes it");
    for ((kind, rows), line) in pages.iter().zip(kept.lines()) {
        let (word, digits) = line.split_once(' ').expect("a kind and bytes");
        assert_eq!(word, kind.as_str());
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("a byte");
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let read = read(&bytes, Wanted::All, 0..u16::MAX, true).expect("a page of this format is read");
        assert!(read.iter().map(|(key, row)| (key, row)).eq(rows.iter()), "{word}: other rows than were written");
    }
    assert!(text == kept, "pages have other bytes than {}", path.display());
}

#[test]
fn h3_no_bytes_do_harm() {
    let mut rng = Rng(5);
    let mut sound: Vec<Vec<u8>> = Kind::ALL
        .iter()
        .flat_map(|kind| [(1, 1), (3, 20), (9, 30)].map(|(series, slots)| (*kind, series, slots)))
        .map(|(kind, series, slots)| written(kind, &random_rows(&mut rng, kind, series, slots, 80)))
        .collect();
    sound.push(written(Kind::Counter, &related_rows(&mut rng, Kind::Counter, 30)));
    sound.push(written(Kind::Gauge, &related_rows(&mut rng, Kind::Gauge, 30)));
    let mut buffers = PageBuffers::default();
    let mut refused = 0u32;
    for n in 0..100_000 {
        let mut bytes = sound[n % sound.len()].clone();
        match rng.below(4) {
            0 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            1 => {
                let head = rng.below(3) as usize;
                let length = rng.below(200) as usize;
                bytes.truncate(head);
                bytes.extend((0..length).map(|_| rng.next() as u8));
            }
            _ => {
                for _ in 0..1 + rng.below(4) {
                    // Half of them near the front, where the heads are.
                    let end = if rng.below(2) == 0 { bytes.len() } else { bytes.len().min(60) };
                    let at = rng.below(end as u64) as usize;
                    bytes[at] = rng.next() as u8;
                }
            }
        }
        let mut rows = 0u64;
        let outcome = Page::new(&bytes).and_then(|page| {
            page.ids(&mut Vec::new())?;
            page.read(Wanted::All, 0..u16::MAX, n % 2 == 0, &mut buffers, &mut |_, _, _| {
                rows += 1;
                if rows > 20_000 { Err(Corrupt { at: 0 }) } else { Ok(()) }
            })
        });
        refused += u32::from(outcome.is_err());
    }
    assert!(refused > 30_000, "{refused}");
}
