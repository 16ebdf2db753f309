//! The open connections of a reactor, and which of them have something to read.
//!
//! In: accepted sockets and readiness. Out: frames, handed to the consumer. Owns: the sockets, a frame
//! decoder each. Invariants: a place is reused only when no readiness of its old connection is queued; an
//! unfinished frame is the only memory a connection holds, and it is bounded, for each and for all together.

use super::reactor::{CONNECTION, Consumer, PARTIAL_BYTES_MAX, PAYLOAD_BYTES_MAX, token};
use crate::codec::framing::{FrameDecoder, Framing};
use crate::event::{RejectReason, SourceIndex, Timestamp};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::collections::VecDeque;

/// Connections that one reactor keeps open; more are closed at once and counted. Sizing: without half frames, which
/// have a budget of their own, one holds about a KiB.
pub const CONNECTIONS_MAX: usize = 8192;

pub(super) struct Connections {
    /// [`CONNECTIONS_MAX`], or less in a test.
    pub(super) count_max: usize,
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Closed while readiness was queued: free once the queue is empty.
    freed: Vec<usize>,
    ready: VecDeque<usize>,
    /// Bytes that half frames may hold together.
    pub(super) partial_bytes_max: usize,
    /// What they hold.
    partial_bytes: usize,
    /// Reads so far: the age of a half frame.
    reads: u64,
    /// Connections with `is_leaving`.
    leaving: usize,
}

struct Connection {
    socket: OwnedFd,
    source: SourceIndex,
    /// The listener that accepted it.
    listener: usize,
    /// It is closed as soon as it would block.
    is_leaving: bool,
    decoder: FrameDecoder,
    /// In `Connections::ready`, once.
    is_queued: bool,
    /// What its half frame holds, as it was added to the sum; without one a small place at most, which counts as nothing.
    partial_bytes: usize,
    /// The read in which its half frame began.
    partial_since: u64,
}

impl Connection {
    /// Notes what the half frame holds that a read left; it began in this read if there was none or that one is whole.
    fn note_partial(&mut self, read: u64, is_whole: bool) {
        if is_whole || self.partial_bytes == 0 {
            self.partial_since = read;
        }
        self.partial_bytes = if self.decoder.is_inside() { self.decoder.held_bytes() } else { 0 };
    }
}

/// What a read brought.
pub(super) enum Read {
    /// So many bytes.
    Some(usize),
    /// It would block.
    Nothing,
    /// The connection is over and has to be closed.
    Ended,
}

impl Default for Connections {
    fn default() -> Connections {
        let (places, free, freed, ready) = Default::default();
        let (partial_bytes, reads) = (0, 0);
        let (count_max, partial_bytes_max) = (CONNECTIONS_MAX, PARTIAL_BYTES_MAX);
        Connections { count_max, places, free, freed, ready, partial_bytes_max, partial_bytes, reads, leaving: 0 }
    }
}

impl Connections {
    fn count(&self) -> usize {
        self.places.len() - self.free.len() - self.freed.len()
    }

    /// The places that are taken.
    pub(super) fn places(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|place| self.places[*place].is_some()).collect()
    }

    /// Takes a connection; false when there are too many or it cannot be polled, and then it is closed.
    pub(super) fn open(
        &mut self,
        socket: OwnedFd,
        source: SourceIndex,
        listener: usize,
        is_tcp: bool,
        epoll: &OwnedFd,
    ) -> bool {
        if self.count() >= self.count_max {
            return false;
        }
        let place = self.free.pop().unwrap_or(self.places.len());
        if epoll::add(epoll, &socket, token(CONNECTION, place), epoll::EventFlags::IN).is_err() {
            if place < self.places.len() {
                self.free.push(place);
            }
            return false;
        }
        // DogStatsD's length prefixes exist on Unix sockets only.
        let decoder = if is_tcp {
            FrameDecoder::with_framing(Framing::Newline, PAYLOAD_BYTES_MAX)
        } else {
            FrameDecoder::new(PAYLOAD_BYTES_MAX)
        };
        let connection = Connection {
            socket,
            source,
            listener,
            is_leaving: false,
            decoder,
            is_queued: false,
            partial_bytes: 0,
            partial_since: 0,
        };
        if place == self.places.len() {
            self.places.push(Some(connection));
        } else {
            self.places[place] = Some(connection);
        }
        true
    }

    pub(super) fn mark_ready(&mut self, place: usize) {
        if let Some(connection) = &mut self.places[place]
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.ready.push_back(place);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let Some(place) = self.ready.pop_front() else {
            self.free.append(&mut self.freed);
            return None;
        };
        if let Some(connection) = &mut self.places[place] {
            connection.is_queued = false;
        }
        Some(place)
    }

    /// Closing the descriptor takes it out of the epoll set too: nobody else holds it.
    pub(super) fn close(&mut self, place: usize) {
        if let Some(closed) = self.places[place].take() {
            self.partial_bytes -= closed.partial_bytes;
            self.leaving -= usize::from(closed.is_leaving);
            self.freed.push(place);
        }
    }

    /// Makes room when half frames hold more than they may: closes the connection whose half frame is oldest, and again.
    /// A client that sends on has its frame whole within a read or two; what is oldest waits for somebody who stalls.
    #[cold]
    fn close_oldest_partial(&mut self, consumer: &mut impl Consumer) {
        while self.partial_bytes > self.partial_bytes_max {
            let connections = self.places.iter().enumerate();
            let partial = connections.filter_map(|(place, connection)| {
                let connection = connection.as_ref().filter(|connection| connection.partial_bytes > 0)?;
                Some((connection.partial_since, place))
            });
            let Some((_, oldest)) = partial.min() else { break };
            let source = self.places[oldest].as_ref().expect("just found").source;
            consumer.bad_frame(source);
            consumer.refused_connections(source, 1);
            self.close(oldest);
        }
    }

    /// It brought something: one that leaves is read again at once, the others when epoll reports them.
    pub(super) fn go_on(&mut self, place: usize) {
        if self.leaving > 0 && self.is_leaving(place) {
            self.mark_ready(place);
        }
    }

    /// It would block: one that leaves has been read to its end. A frame that it began was never wholly sent, so it is
    /// no input and no error.
    pub(super) fn rest(&mut self, place: usize) {
        if self.leaving > 0 && self.is_leaving(place) {
            self.close(place);
        }
    }

    fn is_leaving(&self, place: usize) -> bool {
        self.places[place].as_ref().is_some_and(|connection| connection.is_leaving)
    }

    /// True while a connection that is to leave has not been read to its end.
    pub(super) fn has_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// The connections of a listener are read to their end and closed.
    pub(super) fn leave(&mut self, listener: usize) {
        for place in self.places() {
            if let Some(connection) = &mut self.places[place]
                && connection.listener == listener
                && !connection.is_leaving
            {
                connection.is_leaving = true;
                self.leaving += 1;
                self.mark_ready(place);
            }
        }
    }

    /// Closes what should have left.
    pub(super) fn cut_leaving(&mut self) {
        for place in self.places() {
            if self.is_leaving(place) {
                self.close(place);
            }
        }
    }

    /// What the connections of a listener bring is of another source from here on.
    pub(super) fn assign(&mut self, listener: usize, source: SourceIndex) {
        for connection in self.places.iter_mut().flatten().filter(|connection| connection.listener == listener) {
            connection.source = source;
        }
    }

    /// Reads once and hands whole frames on.
    pub(super) fn read(
        &mut self,
        place: usize,
        buffer: &mut [u8],
        reader: u16,
        arrival: Timestamp,
        consumer: &mut impl Consumer,
    ) -> Read {
        let Some(connection) = &mut self.places[place] else { return Read::Nothing };
        let (source, held_before) = (connection.source, connection.partial_bytes);
        self.reads += 1;
        let mut is_whole = false;
        let mut hand = |item: Result<&[u8], RejectReason>| {
            is_whole = true;
            match item {
                Ok(frame) => consumer.frame(source, reader, frame, arrival),
                Err(_) => consumer.oversize(source, 1),
            }
        };
        let end = match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) if length > 0 => match connection.decoder.feed(&buffer[..length], &mut hand) {
                Ok(()) => {
                    connection.note_partial(self.reads, is_whole);
                    self.partial_bytes = self.partial_bytes + connection.partial_bytes - held_before;
                    if self.partial_bytes > self.partial_bytes_max {
                        self.close_oldest_partial(consumer);
                    }
                    return Read::Some(length);
                }
                Err(reason) => Err(reason),
            },
            Ok(_) => connection.decoder.finish(&mut hand),
            Err(Errno::AGAIN | Errno::INTR) => return Read::Nothing,
            Err(_) => {
                // The connection broke: what it had begun may be half a line, and half a line can look whole.
                let mut is_inside = false;
                let end = connection.decoder.finish(|_| is_inside = true);
                if is_inside { Err(RejectReason::BadFrame) } else { end }
            }
        };
        match end {
            Ok(()) => {}
            Err(RejectReason::Oversize) => consumer.oversize(source, 1),
            Err(_) => consumer.bad_frame(source),
        }
        Read::Ended
    }
}
