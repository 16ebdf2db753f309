//! The loop of a shard's thread: a reactor that decodes where it reads (fused), or one without sockets that
//! takes readers' buffers (split). Both call the same decode function.
//!
//! In: datagrams, frames, buffers, commands, rings. Out: nothing; the shard seals. Invariant: after the
//! sockets are drained the shard goes on answering seals until it is told to end, so that the last tick
//! holds everything that was read.

use super::reactor::{Consumer, Turn};
use super::split::ReaderBuffer;
use crate::channel::{Receiver, Sender};
use crate::event::{RejectReason, SourceIndex, Timestamp};
use crate::shard::{Next, Origin, Shard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the loop sleeps while in-process rings have events: their capacity outlasts it at 10 M/s.
const RING_POLL_MIN: Duration = Duration::from_millis(1);
/// How long it sleeps between looks at rings that have long been quiet.
const RING_POLL_MAX: Duration = Duration::from_millis(50);

/// The buffers of split mode: where they come from and where the empty ones go.
pub struct Buffers {
    /// From the readers.
    pub filled: Receiver<ReaderBuffer>,
    /// Back to the reader with this number.
    pub empty: Vec<Sender<Vec<u8>>>,
}

/// A shard as the consumer of a reactor.
pub struct ShardLoop {
    shard: Shard,
    buffers: Option<Buffers>,
    /// Set when the sources are to stop.
    draining: Arc<AtomicBool>,
    poll: Duration,
    now: Timestamp,
    has_ended: bool,
}

impl ShardLoop {
    /// A loop around a shard.
    pub fn new(shard: Shard, buffers: Option<Buffers>, draining: Arc<AtomicBool>, now: Timestamp) -> ShardLoop {
        ShardLoop { shard, buffers, draining, poll: RING_POLL_MAX, now, has_ended: false }
    }

    /// True once the shard was told to end.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes what readers have sent.
    fn take_buffers(&mut self) -> bool {
        let Some(buffers) = &self.buffers else { return false };
        let mut has_taken = false;
        while let Some(buffer) = buffers.filled.try_recv() {
            has_taken = true;
            let ReaderBuffer { source, reader, arrival, mut bytes, counts, .. } = buffer;
            if !bytes.is_empty() {
                self.shard.ingest(Origin { source, reader }, &bytes, arrival);
            }
            for _ in 0..counts.oversize {
                self.shard.refuse(source, RejectReason::Oversize, arrival);
            }
            for _ in 0..counts.bad_frames {
                self.shard.refuse(source, RejectReason::BadFrame, arrival);
            }
            self.shard.note_kernel_drops(source, counts.kernel_drops);
            self.shard.note_refused_connections(source, counts.refused_connections);
            self.shard.note_queue_drops(source, counts.dropped_lines + counts.stopped_lines);
            bytes.clear();
            if let Some(empty) = buffers.empty.get(usize::from(reader)) {
                // A reader that has buffers enough, or is gone, lets this one go.
                let _ = empty.try_send(bytes);
            }
            if self.shard.has_commands() {
                break;
            }
        }
        has_taken
    }

    /// One turn without sockets; used after the reactor has returned.
    pub fn idle_turn(&mut self, now: Timestamp) {
        self.now = now;
        self.take_buffers();
        if self.shard.turn(now) == Next::Stop {
            self.has_ended = true;
        }
    }
}

impl Consumer for ShardLoop {
    fn datagram(&mut self, source: SourceIndex, reader: u16, payload: &[u8], arrival: Timestamp) {
        self.shard.ingest(Origin { source, reader }, payload, arrival);
    }

    fn frame(&mut self, source: SourceIndex, reader: u16, payload: &[u8], arrival: Timestamp) {
        self.shard.ingest(Origin { source, reader }, payload, arrival);
    }

    fn oversize(&mut self, source: SourceIndex, count: u64) {
        for _ in 0..count {
            self.shard.refuse(source, RejectReason::Oversize, self.now);
        }
    }

    fn bad_frame(&mut self, source: SourceIndex) {
        self.shard.refuse(source, RejectReason::BadFrame, self.now);
    }

    fn kernel_drops(&mut self, source: SourceIndex, count: u64) {
        self.shard.note_kernel_drops(source, count);
    }

    fn refused_connections(&mut self, source: SourceIndex, count: u64) {
        self.shard.note_refused_connections(source, count);
    }

    fn turn(&mut self, now: Timestamp, _monotonic: i64) -> Turn {
        self.now = now;
        let has_taken = self.take_buffers();
        match self.shard.turn(now) {
            Next::Stop => {
                self.has_ended = true;
                return Turn::Stop;
            }
            Next::Continue { is_busy } => {
                self.poll = if is_busy { RING_POLL_MIN } else { (self.poll * 2).min(RING_POLL_MAX) };
            }
        }
        if self.draining.load(Ordering::Acquire) {
            return Turn::Stop;
        }
        if has_taken {
            return Turn::Sleep(Duration::ZERO);
        }
        Turn::Sleep(if self.shard.has_rings() { self.poll } else { Duration::from_secs(60) })
    }
}
