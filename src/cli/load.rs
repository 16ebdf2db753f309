//! Prepared load: datagrams in memory whose values are patched in place before every send.
//!
//! In: how many series, which kinds, how large a datagram, a seed. Out: packets, ready to send. Owns: their
//! bytes (76 a line with three tags, 180 a typed event) and the counts. Invariants: in one round every series has the same number
//! of lines; a patch never changes a length; the numbers of events and increments are those of the bytes sent.
//!
//! Why prepared: formatting a line costs more than decoding one, so a generator that formats would measure
//! itself. Why patched: fixed values touch three cells a series and flatter every sketch 4 to 10 times.

use crate::event::Timestamp;
use std::fmt::Write as _;
use std::ops::Range;

/// Digits of a patched value: `9.1234`, `12.345`, `123.45`.
const VALUE_BYTES: usize = 6;
/// Values prepared: 2^13 × 8 bytes stay in the first-level cache beside a packet.
const VALUES: usize = 1 << 13;

/// What a line measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Timing,
    Counter,
    Gauge,
    Set,
    /// A typed event as JSON, instead of a line of DogStatsD.
    Event,
}

/// Where the patched values of a typed event stand, from the first of them on.
const EVENT_BYTES_AT: usize = "12.345,\"response_bytes\":".len();
/// As [`EVENT_BYTES_AT`], before it.
const EVENT_TIME_BEFORE: usize =
    "1763629375123,\"route\":\"/api/v2/checkout/payments\",\"region\":\"eu-west\",\"host\":\"checkout-000001\",\"duration\":".len();
/// Digits of a time in milliseconds, from 2001 to 2286.
const TIME_BYTES: usize = 13;

impl LineKind {
    /// The kinds of DogStatsD lines.
    pub(super) const ALL: [LineKind; 4] = [LineKind::Timing, LineKind::Counter, LineKind::Gauge, LineKind::Set];

    /// Name, a value to be patched, type. The names are chosen so that every kind's line is equally long.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            LineKind::Timing => ("checkout.request.latency", "12.345", "ms"),
            LineKind::Counter => ("checkout.request.handled.count", "1", "c"),
            LineKind::Gauge => ("checkout.request.inflight", "12.345", "g"),
            LineKind::Set => ("checkout.request.customer", "12.345", "s"),
            LineKind::Event => ("checkout_request_finished", "12.345", "JSON"),
        }
    }
}

/// What to prepare.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// At least one; they share the series.
    pub(super) kinds: Vec<LineKind>,
    /// Distinct series, at least 1.
    pub(super) series: u64,
    /// Largest datagram; at least one line is in each.
    pub(super) packet_bytes: usize,
    /// Tags a line; 0 only for one series a kind.
    pub(super) tags: usize,
    /// Four bytes of length before each packet, as DogStatsD's stream framing wants.
    pub(super) is_framed: bool,
    /// Of the values.
    pub(super) seed: u64,
}

/// One datagram.
struct Packet {
    bytes: Range<usize>,
    /// Of `Load::values`.
    values: Range<usize>,
    kind: LineKind,
}

/// All datagrams of a round.
pub(super) struct Load {
    bytes: Vec<u8>,
    /// Where in its packet each line's value begins.
    values: Vec<u32>,
    packets: Vec<Packet>,
    table: Box<[[u8; 8]; VALUES]>,
    /// Whole numbers of six digits.
    sizes: Box<[[u8; 8]; VALUES]>,
    random: u64,
    frame_bytes: usize,
}

/// A packet that may be sent now.
pub(super) struct Ready<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) events: u64,
    /// What its counters add up to.
    pub(super) increments: u64,
}

impl Load {
    /// Builds everything: about 80 bytes a series.
    pub(super) fn prepare(shape: &Shape) -> Load {
        let mut load = Load {
            bytes: Vec::new(),
            values: Vec::new(),
            packets: Vec::new(),
            table: Box::new([[0; 8]; VALUES]),
            sizes: Box::new([[0; 8]; VALUES]),
            random: shape.seed,
            frame_bytes: if shape.is_framed { 4 } else { 0 },
        };
        load.fill_table();
        let kinds = shape.kinds.len() as u64;
        let mut by_kind = Vec::new();
        for (place, kind) in (0u64..).zip(&shape.kinds) {
            let series = shape.series / kinds + u64::from(place < shape.series % kinds);
            let first = load.packets.len();
            load.add_kind(*kind, series, shape);
            by_kind.push(first..load.packets.len());
        }
        load.interleave(&by_kind);
        load
    }

    /// Packets of the kinds in turn, so that every stretch of the stream is mixed.
    fn interleave(&mut self, by_kind: &[Range<usize>]) {
        let mut order: Vec<(u64, usize)> = Vec::with_capacity(self.packets.len());
        for range in by_kind {
            let count = range.len() as u64;
            order.extend(
                range.clone().enumerate().map(|(place, packet)| ((place as u64 * 1_000_000) / count.max(1), packet)),
            );
        }
        order.sort_by_key(|(place, _)| *place);
        let mut packets: Vec<Option<Packet>> = std::mem::take(&mut self.packets).into_iter().map(Some).collect();
        self.packets = order.into_iter().filter_map(|(_, packet)| packets[packet].take()).collect();
    }

    fn add_kind(&mut self, kind: LineKind, series: u64, shape: &Shape) {
        if series == 0 {
            return;
        }
        let digits = (series - 1).to_string().len().max(6);
        let mut line = String::new();
        let mut value_at = write_line(&mut line, kind, 0, digits, shape.tags);
        // Whole rounds of few series fill a packet; many series fill many.
        let lines_in_packet = (shape.packet_bytes / (line.len() + 1)).max(1) as u64;
        let rounds = (lines_in_packet / series).max(1);
        let total = series * rounds;
        let order = self.shuffled(series);
        self.bytes.reserve((total as usize).saturating_mul(line.len() + 1));
        self.values.reserve(total as usize);
        let mut start = self.bytes.len();
        let mut first_value = self.values.len();
        self.bytes.extend_from_slice(&[0; 4][..self.frame_bytes]);
        for number in 0..total {
            line.clear();
            value_at = write_line(&mut line, kind, order[(number % series) as usize].into(), digits, shape.tags);
            let begun = self.bytes.len() - start;
            if begun > self.frame_bytes && begun - self.frame_bytes + line.len() >= shape.packet_bytes {
                self.close(start, first_value, kind);
                (start, first_value) = (self.bytes.len(), self.values.len());
                self.bytes.extend_from_slice(&[0; 4][..self.frame_bytes]);
            }
            self.values.push((self.bytes.len() - start + value_at) as u32);
            self.bytes.extend_from_slice(line.as_bytes());
            self.bytes.push(b'\n');
        }
        debug_assert!(value_at > 0);
        self.close(start, first_value, kind);
    }

    /// Every series once, in an order that follows the seed: a server that gives places in the order of arrival
    /// would otherwise be asked for one after the other, which no real load does.
    fn shuffled(&mut self, series: u64) -> Vec<u32> {
        // At most 10^8 series are asked for.
        let mut order: Vec<u32> = (0..series as u32).collect();
        for at in (1..order.len()).rev() {
            self.random = step(self.random);
            order.swap(at, (((self.random >> 32) * (at as u64 + 1)) >> 32) as usize);
        }
        order
    }

    fn close(&mut self, start: usize, first_value: usize, kind: LineKind) {
        self.packets.push(Packet { bytes: start..self.bytes.len(), values: first_value..self.values.len(), kind });
    }

    /// Lognormal around 12 with σ = 0.8, as latencies are: at 2 digits it touches hundreds of cells.
    fn fill_table(&mut self) {
        let mut uniform = {
            let mut state = self.random;
            move || {
                state = step(state);
                ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
            }
        };
        let mut text = String::new();
        for entry in self.table.iter_mut() {
            let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            let value = (12f64.ln() + 0.8 * normal).exp().clamp(0.001, 9999.0);
            text.clear();
            // Ten digits, cut to six characters: a point stands among the first five, as the value is below 10^4.
            let _ = write!(text, "{value:.9}");
            entry[..VALUE_BYTES].copy_from_slice(&text.as_bytes()[..VALUE_BYTES]);
        }
        for entry in self.sizes.iter_mut() {
            text.clear();
            let _ = write!(text, "{}", 100_000 + (900_000.0 * uniform()) as u32);
            entry[..VALUE_BYTES].copy_from_slice(text.as_bytes());
        }
    }

    /// True when packets hold times: then [`ready`](Self::ready) wants to know what time it is.
    pub(super) fn has_times(&self) -> bool {
        self.packets.first().is_some_and(|packet| packet.kind == LineKind::Event)
    }

    /// Packets in a round.
    pub(super) fn packet_count(&self) -> usize {
        self.packets.len()
    }

    /// Patches a packet's values and gives its first `events_max` lines. `now` is the time of its events, if it
    /// [has times](Self::has_times).
    pub(super) fn ready(&mut self, packet: usize, events_max: u64, now: Timestamp) -> Ready<'_> {
        let Packet { bytes, values, kind } = &self.packets[packet];
        let buffer = &mut self.bytes[bytes.clone()];
        let values = &self.values[values.clone()];
        let events = values.len().min(usize::try_from(events_max).unwrap_or(usize::MAX));
        let sent = &values[..events];
        let mut random = self.random;
        let mut increments = 0;
        if *kind == LineKind::Counter {
            for at in sent {
                random = step(random);
                let digit = 1 + (((random >> 32) * 9) >> 32) as u8;
                increments += u64::from(digit);
                buffer[*at as usize] = b'0' + digit;
            }
        } else if *kind == LineKind::Event {
            let mut time = [b'0'; TIME_BYTES];
            let mut millis = now.0.max(0) as u64 / 1_000_000;
            for digit in time.iter_mut().rev() {
                *digit += (millis % 10) as u8;
                millis /= 10;
            }
            for at in sent {
                random = step(random);
                let at = *at as usize;
                let value = &self.table[(random >> (64 - VALUES.trailing_zeros())) as usize];
                let size = &self.sizes[(random >> 32) as usize % VALUES];
                buffer[at..][..VALUE_BYTES].copy_from_slice(&value[..VALUE_BYTES]);
                buffer[at + EVENT_BYTES_AT..][..VALUE_BYTES].copy_from_slice(&size[..VALUE_BYTES]);
                buffer[at - EVENT_TIME_BEFORE..][..TIME_BYTES].copy_from_slice(&time);
            }
        } else {
            for at in sent {
                random = step(random);
                let value = &self.table[(random >> (64 - VALUES.trailing_zeros())) as usize];
                buffer[*at as usize..][..VALUE_BYTES].copy_from_slice(&value[..VALUE_BYTES]);
            }
        }
        self.random = random;
        let end = match values.get(events) {
            None => buffer.len(),
            // The next line begins after the last newline before its value.
            Some(next) => memchr::memrchr(b'\n', &buffer[..*next as usize]).map_or(self.frame_bytes, |at| at + 1),
        };
        if self.frame_bytes > 0 {
            buffer[..4].copy_from_slice(&((end - 4) as u32).to_le_bytes());
        }
        Ready { bytes: &buffer[..end], events: events as u64, increments }
    }
}

/// Knuth's MMIX generator: one multiplication; its upper bits are good enough to choose values.
fn step(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// Writes one line; gives the place of its value. `host` alone tells the series of a kind apart.
fn write_line(line: &mut String, kind: LineKind, series: u64, digits: usize, tags: usize) -> usize {
    const REGIONS: [&str; 4] = ["eu-west", "us-east", "ap-east", "sa-east"];
    const CODES: [&str; 4] = ["200", "404", "429", "500"];
    let (name, value, letters) = kind.parts();
    if kind == LineKind::Event {
        let region = REGIONS[(series % 4) as usize];
        let _ = write!(
            line,
            "{{\"event\":\"{name}\",\"time\":1763629375123,\"route\":\"/api/v2/checkout/payments\",\"region\":\"{region}\",\
             \"host\":\"checkout-{series:06}\",\"duration\":",
        );
        let value_at = line.len();
        let _ = write!(line, "{value},\"response_bytes\":123456}}");
        return value_at;
    }
    line.push_str(name);
    line.push(':');
    let value_at = line.len();
    line.push_str(value);
    line.push('|');
    line.push_str(letters);
    for tag in 0..tags {
        line.push_str(if tag == 0 { "|#" } else { "," });
        // Infallible: a String takes everything.
        let _ = match tag {
            0 if tags > 1 => write!(line, "region:{}", REGIONS[(series % 4) as usize]),
            0 | 1 => write!(line, "host:web-{series:0digits$}"),
            2 => write!(line, "code:{}", CODES[(series / 4 % 4) as usize]),
            _ => write!(line, "tag{tag}:value-{tag}"),
        };
    }
    value_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn shape(kinds: &[LineKind], series: u64, packet_bytes: usize) -> Shape {
        Shape { kinds: kinds.to_vec(), series, packet_bytes, tags: 3, is_framed: false, seed: 7 }
    }

    /// Splits a line as a server does; panics on what no server takes.
    fn parse(line: &str) -> (&str, f64, &str, Vec<&str>) {
        let (name, rest) = line.split_once(':').unwrap();
        let mut fields = rest.split('|');
        let value = fields.next().unwrap().parse().unwrap();
        let letters = fields.next().unwrap();
        let tags = fields.next().map_or(Vec::new(), |tags| tags.strip_prefix('#').unwrap().split(',').collect());
        assert_eq!(fields.next(), None);
        (name, value, letters, tags)
    }

    #[test]
    fn lines_have_76_bytes_and_every_series_has_as_many() {
        for kind in LineKind::ALL {
            for (series, packet_bytes) in [(1, 8192), (7, 8192), (1000, 8192), (1000, 1), (2500, 1432)] {
                let mut load = Load::prepare(&shape(&[kind], series, packet_bytes));
                let mut counts: HashMap<String, u32> = HashMap::new();
                let mut increments = 0.0;
                let mut expected = 0;
                for packet in 0..load.packet_count() {
                    let ready = load.ready(packet, u64::MAX, Timestamp(0));
                    assert!(ready.bytes.len() <= packet_bytes.max(76), "{} bytes", ready.bytes.len());
                    assert_eq!(ready.bytes.len() as u64, ready.events * 76);
                    expected += ready.increments;
                    for line in std::str::from_utf8(ready.bytes).unwrap().lines() {
                        let (_, value, letters, tags) = parse(line);
                        assert!(value > 0.0 && tags.len() == 3 && letters == kind.parts().2);
                        increments += if kind == LineKind::Counter { value } else { 0.0 };
                        *counts.entry(tags.join(",")).or_default() += 1;
                    }
                }
                assert_eq!(counts.len() as u64, series);
                let any = *counts.values().next().unwrap();
                assert!(counts.values().all(|count| *count == any));
                assert_eq!(increments, expected as f64);
            }
        }
    }

    #[test]
    fn values_vary_and_follow_the_seed() {
        let all = |seed| {
            let mut load = Load::prepare(&Shape { seed, ..shape(&[LineKind::Timing], 100, 8192) });
            (0..3)
                .map(|_| String::from_utf8(load.ready(0, u64::MAX, Timestamp(0)).bytes.to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        let rounds = all(1);
        assert_ne!(rounds[0], rounds[1]);
        assert_eq!(rounds, all(1));
        assert_ne!(rounds, all(2));
        let mut values: Vec<f64> = rounds.iter().flat_map(|text| text.lines().map(|line| parse(line).1)).collect();
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        assert!((9.0..16.0).contains(&median), "{median}");
        assert!(values[values.len() - 1] > 3.0 * median);
    }

    #[test]
    fn cut_packets_end_after_a_line() {
        for is_framed in [false, true] {
            let mut load = Load::prepare(&Shape { is_framed, ..shape(&[LineKind::Timing], 1000, 8192) });
            for events_max in [0, 1, 5, 106] {
                let ready = load.ready(1, events_max, Timestamp(0));
                assert_eq!(ready.events, events_max);
                let frame = if is_framed { 4 } else { 0 };
                assert_eq!(ready.bytes.len() - frame, events_max as usize * 76);
                if is_framed {
                    let length = u32::from_le_bytes(ready.bytes[..4].try_into().unwrap());
                    assert_eq!(length as usize, ready.bytes.len() - 4);
                }
            }
        }
    }

    #[test]
    fn mixed_kinds_share_the_series_and_alternate() {
        let mut load = Load::prepare(&shape(&LineKind::ALL, 4001, 8192));
        let (mut series, mut kinds) = (std::collections::HashSet::new(), Vec::new());
        for packet in 0..load.packet_count() {
            let text = String::from_utf8(load.ready(packet, u64::MAX, Timestamp(0)).bytes.to_vec()).unwrap();
            kinds.push(parse(text.lines().next().unwrap()).2.to_owned());
            for line in text.lines() {
                let (name, _, _, tags) = parse(line);
                series.insert(format!("{name} {}", tags.join(",")));
            }
        }
        assert_eq!(series.len(), 4001);
        assert_eq!(kinds[..8].iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn typed_events_are_json_with_fresh_values() {
        let mut load = Load::prepare(&shape(&[LineKind::Event], 1000, 8192));
        assert!(load.has_times());
        let now = Timestamp(1_790_000_000_123_456_789);
        let (mut hosts, mut durations, mut sizes) =
            <(std::collections::HashSet<String>, Vec<f64>, Vec<u64>)>::default();
        for packet in 0..load.packet_count() {
            let ready = load.ready(packet, u64::MAX, now);
            let text = std::str::from_utf8(ready.bytes).unwrap();
            assert_eq!(text.lines().count() as u64, ready.events);
            for line in text.lines() {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(event.as_object().unwrap().len(), 7);
                assert_eq!(event["event"], "checkout_request_finished");
                assert_eq!(event["time"], 1_790_000_000_123_u64);
                hosts.insert(event["host"].as_str().unwrap().to_owned());
                durations.push(event["duration"].as_f64().unwrap());
                sizes.push(event["response_bytes"].as_u64().unwrap());
                assert!((170..=190).contains(&line.len()), "{} bytes", line.len());
            }
        }
        assert_eq!((hosts.len(), durations.len()), (1000, 1000));
        let distinct = |values: &mut Vec<u64>| {
            values.sort_unstable();
            values.dedup();
            values.len()
        };
        assert!(distinct(&mut sizes) > 800 && sizes[0] >= 100_000);
        assert!(distinct(&mut durations.iter().map(|value| value.to_bits()).collect()) > 500);
    }

    #[test]
    fn tags_from_none_to_many() {
        for tags in [0, 1, 2, 3, 8] {
            let series = if tags == 0 { 1 } else { 5 };
            let mut load = Load::prepare(&Shape { tags, ..shape(&[LineKind::Gauge], series, 1) });
            let text = String::from_utf8(load.ready(0, u64::MAX, Timestamp(0)).bytes.to_vec()).unwrap();
            assert_eq!(parse(text.trim_end()).3.len(), tags);
        }
    }
}
