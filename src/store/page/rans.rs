//! The entropy coder: tokens under a context each, at the cost that a table of the context gives them.
//!
//! In: (context, token) pairs. Out: 16-bit words, and the pairs again. Owns: the tables. Invariants: the frequencies of
//! a table sum to [`TOTAL`]; a stream that was written in full ends with the state it began with, so that damage shows.
//!
//! A range variant of asymmetric numeral systems (J. Duda, arXiv:1311.2540) with a state of 32 bits, words of 16 and
//! frequencies of 11: one look into a table and one multiplication a token.

use super::defaults;
use crate::delta::part::Corrupt;
use crate::delta::varint::{put_u64, read_u64};

/// Binary logarithm of [`TOTAL`].
const TOTAL_BITS: u32 = 11;
/// What the frequencies of a table sum to.
pub(super) const TOTAL: u32 = 1 << TOTAL_BITS;
/// The least state between two tokens.
const STATE_MIN: u32 = 1 << 16;
/// Tokens of any alphabet are below.
pub(super) const TOKENS: usize = 160;
/// Contexts there are.
pub(super) const CONTEXTS: usize = defaults::FREQUENCIES.len();
const _: () = assert!(CONTEXTS <= 64, "a page says in one word which tables are its own");

/// One token under its context, as it waits for the tables.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) context: u8,
    pub(super) token: u8,
}

/// How often each token came under each context.
pub(super) struct Counts(Vec<[u32; TOKENS]>);

impl Counts {
    pub(super) fn new() -> Counts {
        Counts(vec![[0; TOKENS]; CONTEXTS])
    }

    #[inline(always)]
    pub(super) fn add(&mut self, pair: Pair) {
        let count = &mut self.0[usize::from(pair.context)][usize::from(pair.token)];
        *count = count.wrapping_add(1);
    }
}

/// −log₂ of a frequency over [`TOTAL`] in 1/16 bits, rounded up: what a token costs.
const COST: [u8; TOTAL as usize + 1] = {
    let mut table = [u8::MAX; TOTAL as usize + 1];
    let mut frequency = 1;
    while frequency <= TOTAL as usize {
        // log₂ by squaring a mantissa in [1, 2) four times, with 30 bits behind the point.
        let whole = frequency.ilog2();
        let mut mantissa = ((frequency as u64) << 30) >> whole;
        let mut log = whole as u64;
        let mut step = 0;
        while step < 4 {
            mantissa = (mantissa * mantissa) >> 30;
            log <<= 1;
            if mantissa >= 2 << 30 {
                mantissa >>= 1;
                log |= 1;
            }
            step += 1;
        }
        table[frequency] = (TOTAL_BITS as u64 * 16 - log) as u8;
        frequency += 1;
    }
    table
};

/// What each token costs under the built-in tables, in 1/16 bits.
static DEFAULT_COST: [[u8; TOKENS]; CONTEXTS] = {
    let mut costs = [[0; TOKENS]; CONTEXTS];
    let mut at = 0;
    while at < CONTEXTS * TOKENS {
        costs[at / TOKENS][at % TOKENS] = COST[defaults::FREQUENCIES[at / TOKENS][at % TOKENS] as usize];
        at += 1;
    }
    costs
};

/// What a token costs under the built-in tables, in 1/16 bits.
#[inline(always)]
pub(super) fn default_cost(pair: Pair) -> u32 {
    u32::from(DEFAULT_COST[usize::from(pair.context)][usize::from(pair.token)])
}

/// The tables of a page, for writing.
pub(super) struct Encoder {
    /// Per context and token: the first state of its range << 16 | its frequency.
    ranges: Vec<[u32; TOKENS]>,
}

impl Encoder {
    /// Chooses a table for each context: the built-in one, or its own where that saves more than it takes, which is then
    /// written to `out`: a word of bits that says which, and per table its length and frequencies (0 = a run of them).
    pub(super) fn choose(counts: &Counts, out: &mut Vec<u8>) -> Encoder {
        let mut ranges = vec![[0; TOKENS]; CONTEXTS];
        let (mut own, mut bytes) = (0u64, Vec::new());
        for (context, counts) in counts.0.iter().enumerate() {
            let mut frequencies = defaults::FREQUENCIES[context];
            if counts.iter().any(|count| *count > 0) {
                let fitted = normalise(counts);
                let written = bytes.len();
                put_table(&fitted, &mut bytes);
                let cost = |table: &[u16; TOKENS]| -> u64 {
                    let all = counts.iter().zip(table).filter(|(count, _)| **count > 0);
                    all.map(|(count, frequency)| u64::from(*count) * u64::from(COST[usize::from(*frequency)])).sum()
                };
                if cost(&fitted) + (bytes.len() - written) as u64 * 128 < cost(&frequencies) {
                    frequencies = fitted;
                    own |= 1 << context;
                } else {
                    bytes.truncate(written);
                }
            }
            let mut first = 0u32;
            for (range, frequency) in ranges[context].iter_mut().zip(frequencies) {
                *range = first << 16 | u32::from(frequency);
                first += u32::from(frequency);
            }
        }
        put_u64(out, own);
        out.append(&mut bytes);
        Encoder { ranges }
    }

    /// Appends the words of a stream: their number, then each little-endian.
    pub(super) fn encode(&self, pairs: &[Pair], words: &mut Vec<u16>, out: &mut Vec<u8>) {
        words.clear();
        let mut state = STATE_MIN;
        for pair in pairs.iter().rev() {
            let range = self.ranges[usize::from(pair.context)][usize::from(pair.token)];
            let (first, frequency) = (range >> 16, range & 0xFFFF);
            debug_assert!(frequency > 0, "a token without a place in its table");
            if u64::from(state) >= u64::from(frequency) << (32 - TOTAL_BITS) {
                words.push(state as u16);
                state >>= 16;
            }
            let (quotient, rest) = (state / frequency, state % frequency);
            state = (quotient << TOTAL_BITS).wrapping_add(rest).wrapping_add(first);
        }
        if !pairs.is_empty() {
            words.extend([state as u16, (state >> 16) as u16]);
        }
        put_u64(out, words.len() as u64);
        out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
    }
}

/// Frequencies in proportion to counts, at least 1 where a token came at all. At least one count is above 0.
fn normalise(counts: &[u32; TOKENS]) -> [u16; TOKENS] {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let mut frequencies = [0u16; TOKENS];
    let mut sum = 0;
    for (frequency, count) in frequencies.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        *frequency = ((u64::from(*count) * u64::from(TOTAL) / total) as u16).max(1);
        sum += u32::from(*frequency);
    }
    // What is missing or too much goes to the most frequent, where it weighs least.
    while sum != TOTAL {
        let top = (0..TOKENS).max_by_key(|token| (frequencies[*token], usize::MAX - token)).expect("tokens");
        let by = if sum > TOTAL { (sum - TOTAL).min(u32::from(frequencies[top]) / 2) } else { TOTAL - sum };
        if sum > TOTAL {
            frequencies[top] -= by as u16;
            sum -= by;
        } else {
            frequencies[top] += by as u16;
            sum += by;
        }
    }
    frequencies
}

fn put_table(frequencies: &[u16; TOKENS], out: &mut Vec<u8>) {
    let length = frequencies.iter().rposition(|frequency| *frequency > 0).map_or(0, |last| last + 1);
    out.push(length as u8);
    let mut token = 0;
    while token < length {
        put_u64(out, u64::from(frequencies[token]));
        if frequencies[token] == 0 {
            let run = frequencies[token..length].iter().take_while(|frequency| **frequency == 0).count();
            put_u64(out, run as u64 - 1);
            token += run;
        } else {
            token += 1;
        }
    }
}

fn read_table(bytes: &[u8], at: &mut usize) -> Option<[u16; TOKENS]> {
    let length = usize::from(*bytes.get(*at)?);
    *at += 1;
    if length > TOKENS {
        return None;
    }
    let (mut frequencies, mut token, mut sum) = ([0u16; TOKENS], 0, 0u64);
    while token < length {
        let frequency = read_u64(bytes, at)?;
        if frequency == 0 {
            token = usize::try_from(read_u64(bytes, at)?).ok()?.checked_add(token)?.checked_add(1)?;
        } else {
            sum = sum.checked_add(frequency).filter(|sum| *sum <= u64::from(TOTAL))?;
            frequencies[token] = frequency as u16;
            token += 1;
        }
    }
    (token == length && sum == u64::from(TOTAL)).then_some(frequencies)
}

/// The tables of a page, for reading: built when a context first comes.
#[derive(Default)]
pub(super) struct Tables {
    /// Per context and state modulo [`TOTAL`]: token << 24 | place in the token's range << 12 | frequency.
    steps: Vec<[u32; TOTAL as usize]>,
    is_built: u64,
    own: Vec<[u16; TOKENS]>,
    is_own: u64,
}

impl Tables {
    /// Forgets the page before and reads the tables of another.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.steps.resize(CONTEXTS, [0; TOTAL as usize]);
        (self.is_built, self.is_own) = (0, 0);
        self.own.clear();
        let mut at = 0;
        let mut read = || {
            let own = read_u64(bytes, &mut at)?;
            if CONTEXTS < 64 && own >> CONTEXTS != 0 {
                return None;
            }
            for _ in 0..own.count_ones() {
                self.own.push(read_table(bytes, &mut at)?);
            }
            self.is_own = own;
            (at == bytes.len()).then_some(())
        };
        read().ok_or(Corrupt { at })
    }

    #[cold]
    fn build(&mut self, context: usize) {
        self.is_built |= 1 << context;
        let frequencies = if self.is_own >> context & 1 == 1 {
            &self.own[(self.is_own & ((1 << context) - 1)).count_ones() as usize]
        } else {
            &defaults::FREQUENCIES[context]
        };
        let mut rest = &mut self.steps[context][..];
        for (token, frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
            let (range, behind) = rest.split_at_mut(usize::from(*frequency));
            for (place, step) in range.iter_mut().enumerate() {
                *step = (token as u32) << 24 | (place as u32) << 12 | u32::from(*frequency);
            }
            rest = behind;
        }
    }
}

/// Reads the tokens of one stream.
pub(super) struct Tokens<'a> {
    tables: &'a mut Tables,
    words: &'a [[u8; 2]],
    at: usize,
    state: u32,
}

impl<'a> Tokens<'a> {
    /// A stream at `at` of the bytes; moves behind it. Its number of tokens is the caller's to know.
    pub(super) fn new(tables: &'a mut Tables, bytes: &'a [u8], at: &mut usize) -> Option<Tokens<'a>> {
        let count = usize::try_from(read_u64(bytes, at)?).ok()?;
        let end = count.checked_mul(2)?.checked_add(*at)?;
        let words = bytes.get(*at..end)?.as_chunks().0;
        *at = end;
        let state = match words {
            [] => STATE_MIN,
            [high, low, ..] => u32::from(u16::from_le_bytes(*high)) << 16 | u32::from(u16::from_le_bytes(*low)),
            _ => return None,
        };
        Some(Tokens { tables, words, at: words.len().min(2), state })
    }

    /// The next token; after the end of the stream any.
    #[inline(always)]
    pub(super) fn next(&mut self, context: usize) -> u32 {
        if self.tables.is_built >> context & 1 == 0 {
            self.tables.build(context);
        }
        let step = self.tables.steps[context][(self.state & (TOTAL - 1)) as usize];
        self.state = (step & 0xFFF).wrapping_mul(self.state >> TOTAL_BITS).wrapping_add(step >> 12 & 0xFFF);
        // Without a branch, which nobody could predict.
        let word = match self.words.get(self.at) {
            Some(word) => u32::from(u16::from_le_bytes(*word)),
            None => 0,
        };
        let is_low = self.state < STATE_MIN;
        self.state = if is_low { self.state << 16 | word } else { self.state };
        self.at = self.at.wrapping_add(usize::from(is_low));
        step >> 24
    }

    /// The tables, for another stream in between.
    pub(super) fn tables(&mut self) -> &mut Tables {
        self.tables
    }

    /// Whether more was read than there is; true as early as it is sure.
    pub(super) fn is_past_end(&self) -> bool {
        self.at > self.words.len()
    }

    /// Whether all of the stream was read, and nothing else.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.words.len() && self.state == STATE_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Rng;
    use super::*;

    #[test]
    fn tokens_come_back_under_built_in_and_own_tables() {
        let mut rng = Rng(9);
        for length in [0, 1, 2, 50, 5_000] {
            let mut counts = Counts::new();
            let pairs: Vec<Pair> = (0..length)
                .map(|_| {
                    let context = rng.below(CONTEXTS as u64) as usize;
                    let frequencies = defaults::FREQUENCIES[context];
                    let used: Vec<usize> = (0..TOKENS).filter(|token| frequencies[*token] > 0).collect();
                    // Skewed another way than the built-in tables are.
                    let n = used.len() as u64;
                    let token = used[(n - 1 - rng.below(n).min(rng.below(n)).min(rng.below(n))) as usize];
                    Pair { context: context as u8, token: token as u8 }
                })
                .collect();
            pairs.iter().for_each(|pair| counts.add(*pair));
            let (mut tables, mut bytes) = (Vec::new(), Vec::new());
            let encoder = Encoder::choose(&counts, &mut tables);
            encoder.encode(&pairs, &mut Vec::new(), &mut bytes);
            assert!((tables.len() > 2) == (length == 5_000), "{length}");
            let cost: u32 = pairs.iter().map(|pair| default_cost(*pair)).sum();
            assert!(bytes.len() + tables.len() <= cost as usize / 128 + 16);
            let mut decoder = Tables::default();
            decoder.begin(&tables).expect("tables");
            let mut at = 0;
            let mut tokens = Tokens::new(&mut decoder, &bytes, &mut at).expect("a stream");
            for pair in &pairs {
                assert_eq!(tokens.next(usize::from(pair.context)), u32::from(pair.token));
            }
            assert!(tokens.is_at_end() && at == bytes.len());
        }
    }

    #[test]
    fn built_in_tables_sum_to_their_total() {
        for (context, frequencies) in defaults::FREQUENCIES.iter().enumerate() {
            assert_eq!(frequencies.iter().map(|f| u32::from(*f)).sum::<u32>(), TOTAL, "{context}");
        }
    }
}
