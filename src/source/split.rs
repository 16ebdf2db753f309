//! The consumer of a thread that only reads: datagrams and frames go to the shards in pooled buffers.
//!
//! In: what a reactor read. Out: whole buffers of newline-terminated lines, sent round robin to the shards,
//! and with them the counts of what could not be read. Owns: one open buffer per source. Invariants: the
//! lines of a buffer are of one source; buffers carry a sequence number, so that what came later can be told
//! (gauges); a full queue blocks for streams and drops, counted, for datagrams; at rest nothing waits
//! longer than [`HOLD_NANOS_MAX`].

use super::reactor::{Consumer, PAYLOAD_BYTES_MAX, Turn};
use crate::channel::{Receiver, Refused, Sender, Waker};
use crate::event::{SourceIndex, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of a buffer: the longest payload and its newline. Sizing: a shard's queue of 64 such buffers holds
/// 4 MiB, 55,000 lines, 3 ms of decoding.
pub const BUFFER_BYTES: usize = PAYLOAD_BYTES_MAX + 1;
/// How long an unfilled buffer waits for more while its shard is busy.
pub const HOLD_NANOS_MAX: i64 = 1_000_000;
/// How long the reader sleeps when nothing waits to be sent.
const IDLE_SLEEP: Duration = Duration::from_secs(60);

/// What a reader could not read or pass on, since its last buffer of that source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReaderCounts {
    /// Datagrams, frames and lines over the limit.
    pub oversize: u64,
    /// Streams that ended inside a frame.
    pub bad_frames: u64,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
    /// Connections closed at once.
    pub refused_connections: u64,
    /// Lines of datagrams that found every shard's queue full. Undecoded: a line may hold several samples.
    pub dropped_lines: u64,
    /// Lines that had no shard to go to any more.
    pub stopped_lines: u64,
}

/// Lines on their way to a shard.
#[derive(Debug)]
pub struct ReaderBuffer {
    /// Where they came in.
    pub source: SourceIndex,
    /// The reader that read them.
    pub reader: u16,
    /// Counts up from 0, one by one, over all buffers of this reader.
    pub sequence: u64,
    /// When the first of them was read.
    pub arrival: Timestamp,
    /// Lines, each ended by a newline; may be empty when there are only counts.
    pub bytes: Vec<u8>,
    /// Of this source.
    pub counts: ReaderCounts,
}

/// The inbox of a shard. The shard resets the waker, and then takes buffers until none is left.
pub struct ShardInbox {
    /// Its queue.
    pub buffers: Sender<ReaderBuffer>,
    /// Woken for every buffer: with several readers no depth of the queue tells whether the shard sleeps.
    pub waker: Waker,
}

/// A buffer that is being filled.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    arrival: Timestamp,
    counts: ReaderCounts,
    /// Monotonic time of the first turn that found it unsent.
    waits_since: Option<i64>,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.counts == ReaderCounts::default()
    }
}

/// The consumer of a reader thread.
pub struct SplitReader {
    reader: u16,
    shards: Vec<ShardInbox>,
    /// In `[0, shards.len())`: who gets the next buffer.
    next: usize,
    /// Emptied buffers come back here; what is lost on the way is allocated again.
    recycled: Receiver<Vec<u8>>,
    /// By source.
    open: Vec<Open>,
    sequence: u64,
    stop: Arc<AtomicBool>,
}

impl SplitReader {
    /// A reader for these shards, at least one. It stops when `stop` is set and its reactor is woken.
    ///
    /// # Panics
    /// Without a shard.
    pub fn new(
        reader: u16,
        shards: Vec<ShardInbox>,
        recycled: Receiver<Vec<u8>>,
        stop: Arc<AtomicBool>,
    ) -> SplitReader {
        assert!(!shards.is_empty(), "a reader needs a shard");
        // Readers begin with different shards.
        let next = usize::from(reader) % shards.len();
        SplitReader { reader, shards, next, recycled, open: Vec::new(), sequence: 0, stop }
    }

    /// Sends what is left, waiting for room. Called after the reactor returned.
    pub fn finish(&mut self) {
        for at in 0..self.open.len() {
            if !self.open[at].is_empty() {
                self.send_blocking(at);
            }
        }
    }

    fn open(&mut self, source: SourceIndex) -> &mut Open {
        let at = usize::from(source.0);
        if at >= self.open.len() {
            self.open.resize_with(at + 1, Open::default);
        }
        &mut self.open[at]
    }

    /// True when the buffer can take so many bytes and a newline.
    fn has_room(&mut self, source: SourceIndex, length: usize) -> bool {
        self.open(source).bytes.len() + length < BUFFER_BYTES
    }

    /// Room must have been made: a payload and its newline fit into an empty buffer.
    fn append(&mut self, source: SourceIndex, payload: &[u8], arrival: Timestamp) {
        if self.open(source).bytes.capacity() == 0 {
            let buffer = self.recycled.try_recv().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
            self.open(source).bytes = buffer;
        }
        let open = self.open(source);
        if open.bytes.is_empty() {
            open.arrival = arrival;
        }
        open.bytes.extend_from_slice(payload);
        if payload.last() != Some(&b'\n') {
            open.bytes.push(b'\n');
        }
    }

    fn close(&mut self, at: usize) -> ReaderBuffer {
        let open = std::mem::take(&mut self.open[at]);
        ReaderBuffer {
            source: SourceIndex(at as u16),
            reader: self.reader,
            sequence: self.sequence,
            arrival: open.arrival,
            bytes: open.bytes,
            counts: open.counts,
        }
    }

    fn reopen(&mut self, at: usize, buffer: ReaderBuffer) {
        let open = &mut self.open[at];
        open.bytes = buffer.bytes;
        open.arrival = buffer.arrival;
        open.counts = buffer.counts;
    }

    /// Sends to the first shard, from the next on, whose queue has room.
    fn try_send(&mut self, at: usize) -> bool {
        let waits_since = self.open[at].waits_since;
        let mut buffer = self.close(at);
        for _ in 0..self.shards.len() {
            let shard = &self.shards[self.next];
            self.next = (self.next + 1) % self.shards.len();
            match shard.buffers.try_send(buffer) {
                Ok(()) => {
                    self.sequence += 1;
                    shard.waker.wake();
                    return true;
                }
                Err(Refused::Full(back) | Refused::Closed(back)) => buffer = back,
            }
        }
        self.reopen(at, buffer);
        self.open[at].waits_since = waits_since;
        false
    }

    fn send_blocking(&mut self, at: usize) {
        if self.try_send(at) {
            return;
        }
        let buffer = self.close(at);
        let shard = &self.shards[self.next];
        self.next = (self.next + 1) % self.shards.len();
        match shard.buffers.send_blocking(buffer) {
            Ok(()) => {
                self.sequence += 1;
                shard.waker.wake();
            }
            Err(Refused::Full(back) | Refused::Closed(back)) => {
                // The shard is gone, which only happens when the pipeline fails as a whole.
                let lost = line_count(&back.bytes);
                self.reopen(at, back);
                let open = &mut self.open[at];
                open.bytes.clear();
                open.counts.stopped_lines += lost;
            }
        }
    }
}

fn line_count(bytes: &[u8]) -> u64 {
    let ended = memchr::memchr_iter(b'\n', bytes).count();
    (ended + usize::from(bytes.last().is_some_and(|last| *last != b'\n'))) as u64
}

impl Consumer for SplitReader {
    fn datagram(&mut self, source: SourceIndex, _: u16, payload: &[u8], arrival: Timestamp) {
        if !self.has_room(source, payload.len()) && !self.try_send(usize::from(source.0)) {
            self.open(source).counts.dropped_lines += line_count(payload);
            return;
        }
        self.append(source, payload, arrival);
    }

    fn frame(&mut self, source: SourceIndex, _: u16, payload: &[u8], arrival: Timestamp) {
        // A run of whole lines brings its own newline, so it may be one byte longer than a frame.
        let length = payload.strip_suffix(b"\n").unwrap_or(payload).len();
        if !self.has_room(source, length) {
            self.send_blocking(usize::from(source.0));
        }
        self.append(source, payload, arrival);
    }

    fn oversize(&mut self, source: SourceIndex, count: u64) {
        self.open(source).counts.oversize += count;
    }

    fn bad_frame(&mut self, source: SourceIndex) {
        self.open(source).counts.bad_frames += 1;
    }

    fn kernel_drops(&mut self, source: SourceIndex, count: u64) {
        self.open(source).counts.kernel_drops += count;
    }

    fn refused_connections(&mut self, source: SourceIndex, count: u64) {
        self.open(source).counts.refused_connections += count;
    }

    fn turn(&mut self, now: Timestamp, monotonic: i64) -> Turn {
        if self.stop.load(Ordering::Acquire) {
            return Turn::Stop;
        }
        let mut sleep = IDLE_SLEEP;
        for at in 0..self.open.len() {
            if self.open[at].is_empty() {
                continue;
            }
            let waits_since = *self.open[at].waits_since.get_or_insert(monotonic);
            let is_due = monotonic - waits_since >= HOLD_NANOS_MAX;
            if self.open[at].bytes.is_empty() {
                self.open[at].arrival = now;
            }
            // An idle shard gets what there is at once; a busy one a fuller buffer later.
            let is_idle = self.shards[self.next].buffers.depth() == 0;
            if !((is_idle || is_due) && self.try_send(at)) {
                sleep = Duration::from_nanos(HOLD_NANOS_MAX.unsigned_abs());
            }
        }
        Turn::Sleep(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::bounded;

    const SOURCE: SourceIndex = SourceIndex(3);

    struct Bench {
        reader: SplitReader,
        shards: Vec<(Receiver<ReaderBuffer>, Waker)>,
        recycle: Sender<Vec<u8>>,
        stop: Arc<AtomicBool>,
    }

    fn bench(shard_count: usize, capacity: usize) -> Bench {
        let (mut inboxes, mut shards) = (Vec::new(), Vec::new());
        for _ in 0..shard_count {
            let (sender, receiver) = bounded(capacity);
            let waker = Waker::new().expect("a waker");
            inboxes.push(ShardInbox { buffers: sender, waker: waker.clone() });
            shards.push((receiver, waker));
        }
        let (recycle, recycled) = bounded(8);
        let stop = Arc::new(AtomicBool::new(false));
        Bench { reader: SplitReader::new(0, inboxes, recycled, Arc::clone(&stop)), shards, recycle, stop }
    }

    fn send(reader: &mut SplitReader, payload: &[u8]) {
        reader.datagram(SOURCE, 0, payload, Timestamp(5));
    }

    #[test]
    fn datagrams_share_a_buffer_while_the_shard_is_busy() {
        let mut bench = bench(1, 4);
        send(&mut bench.reader, b"a:1|c");
        assert_eq!(bench.reader.turn(Timestamp(5), 0), Turn::Sleep(IDLE_SLEEP), "an idle shard gets it at once");
        send(&mut bench.reader, b"b:1|c\n");
        send(&mut bench.reader, b"c:1|c\nd:1|c");
        let hold = Duration::from_nanos(HOLD_NANOS_MAX as u64);
        assert_eq!(bench.reader.turn(Timestamp(6), 10), Turn::Sleep(hold), "a busy one later");
        send(&mut bench.reader, b"e:1|c");
        assert_eq!(bench.reader.turn(Timestamp(7), 10 + HOLD_NANOS_MAX), Turn::Sleep(IDLE_SLEEP), "but not for long");
        let (receiver, _) = &bench.shards[0];
        let first = receiver.try_recv().expect("sent");
        assert_eq!((first.sequence, first.source, first.arrival), (0, SOURCE, Timestamp(5)));
        assert_eq!(first.bytes, b"a:1|c\n");
        let second = receiver.try_recv().expect("sent");
        assert_eq!((second.sequence, second.bytes.as_slice()), (1, b"b:1|c\nc:1|c\nd:1|c\ne:1|c\n".as_slice()));
        assert!(receiver.is_empty());
        bench.stop.store(true, Ordering::Release);
        assert_eq!(bench.reader.turn(Timestamp(8), 20), Turn::Stop);
    }

    #[test]
    fn buffers_go_round_and_are_used_again() {
        let mut bench = bench(2, 4);
        let payload = vec![b'x'; 40_000];
        for _ in 0..5 {
            send(&mut bench.reader, &payload);
        }
        bench.reader.finish();
        let mut sequences = Vec::new();
        for (receiver, _) in &bench.shards {
            let buffers: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
            assert!(buffers.len() >= 2, "both get some");
            sequences.extend(buffers.iter().map(|buffer| buffer.sequence));
            assert!(buffers.iter().all(|buffer| buffer.bytes.len() == 40_001));
        }
        sequences.sort_unstable();
        assert_eq!(sequences, [0, 1, 2, 3, 4]);
        let mut used = Vec::with_capacity(BUFFER_BYTES);
        used.push(b'?');
        used.clear();
        let place = used.as_ptr();
        bench.recycle.try_send(used).expect("room");
        send(&mut bench.reader, b"a:1|c");
        assert_eq!(bench.reader.open(SOURCE).bytes.as_ptr(), place);
    }

    #[test]
    fn full_queues_drop_datagrams_and_count_their_lines() {
        let mut bench = bench(2, 1);
        let payload = [vec![b'x'; 60_000], b"\ny:1|c".to_vec()].concat();
        for _ in 0..5 {
            send(&mut bench.reader, &payload);
        }
        // Two are queued, one fills the open buffer, two were dropped.
        assert_eq!(bench.reader.open(SOURCE).counts.dropped_lines, 4);
        bench.reader.oversize(SOURCE, 2);
        bench.reader.bad_frame(SOURCE);
        bench.reader.kernel_drops(SOURCE, 7);
        bench.reader.refused_connections(SOURCE, 1);
        let lines = |buffer: &ReaderBuffer| line_count(&buffer.bytes);
        let queued: Vec<_> = bench.shards.iter().filter_map(|(receiver, _)| receiver.try_recv()).collect();
        assert_eq!(queued.iter().map(lines).sum::<u64>(), 4);
        bench.reader.finish();
        let last = bench.shards.iter().find_map(|(receiver, _)| receiver.try_recv()).expect("sent");
        assert_eq!(lines(&last), 2);
        let expected = ReaderCounts {
            oversize: 2,
            bad_frames: 1,
            kernel_drops: 7,
            refused_connections: 1,
            dropped_lines: 4,
            stopped_lines: 0,
        };
        assert_eq!(last.counts, expected, "counts ride with the next buffer, once");
        assert!(bench.reader.open(SOURCE).is_empty());
    }

    #[test]
    fn streams_wait_for_room_and_lose_nothing() {
        let Bench { mut reader, shards, .. } = bench(1, 1);
        let frame = vec![b'z'; PAYLOAD_BYTES_MAX];
        let received = std::thread::scope(|scope| {
            let shard = scope.spawn(|| {
                let mut received = Vec::new();
                while let Ok(buffer) = shards[0].0.recv_timeout(Duration::from_millis(500)) {
                    std::thread::sleep(Duration::from_millis(2));
                    received.push(buffer);
                }
                received
            });
            for _ in 0..20 {
                reader.frame(SOURCE, 0, &frame, Timestamp(1));
                reader.frame(SOURCE, 0, b"a:1|c\nb:1|c\n", Timestamp(1));
            }
            reader.finish();
            drop(reader);
            shard.join().expect("ends")
        });
        assert_eq!(received.iter().map(|buffer| line_count(&buffer.bytes)).sum::<u64>(), 60);
        assert!(received.iter().all(|buffer| buffer.bytes.len() <= BUFFER_BYTES && buffer.counts.dropped_lines == 0));
    }

    #[test]
    fn without_shards_lines_are_counted_as_stopped() {
        let Bench { mut reader, shards, .. } = bench(1, 1);
        drop(shards);
        reader.frame(SOURCE, 0, b"a:1|c\nb:1|c\n", Timestamp(1));
        reader.finish();
        assert_eq!(reader.open(SOURCE).counts.stopped_lines, 2);
    }

    #[test]
    fn k7_a_stopped_reader_passes_on_everything_it_read() {
        use crate::event::SystemClock;
        use crate::source::listener::{FileAccess, ListenerSpec, bind};
        use crate::source::reactor::Reactor;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.socket");
        let listener = bind(&ListenerSpec::UnixDatagram(path.clone()), &FileAccess::default()).expect("binds");
        let Bench { mut reader, shards, stop, .. } = bench(2, 4);
        let waker = Waker::new().expect("a waker");
        let reactor = Reactor::new(SystemClock, 0, waker.clone(), vec![(SOURCE, listener)]).expect("a reactor");
        let lines: u64 = std::thread::scope(|scope| {
            scope.spawn(move || {
                reactor.run(&mut reader).expect("runs");
                reader.finish();
            });
            scope.spawn(move || {
                let client = std::os::unix::net::UnixDatagram::unbound().expect("opens");
                for n in 0..2000 {
                    client.send_to(format!("m:{n}|c|#n:{n}").as_bytes(), &path).expect("sent");
                }
                stop.store(true, Ordering::Release);
                waker.wake();
            });
            let takers: Vec<_> = shards
                .iter()
                .map(|(receiver, _)| {
                    scope.spawn(move || {
                        let mut lines = 0;
                        while let Ok(buffer) = receiver.recv_timeout(Duration::from_secs(10)) {
                            lines += line_count(&buffer.bytes) + buffer.counts.dropped_lines;
                        }
                        lines
                    })
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().expect("ends")).sum()
        });
        assert_eq!(lines, 2000);
    }
}
