//! The open connections of a reactor, and which of them have something to read.
//!
//! In: accepted sockets and readiness. Out: frames, handed to the consumer. Owns: the sockets, a frame
//! decoder each. Invariants: a place is reused only when no readiness of its old connection is queued; an
//! unfinished frame is the only memory a connection holds, and it is bounded.

use super::reactor::{CONNECTION, Consumer, PAYLOAD_BYTES_MAX, token};
use crate::codec::framing::{FrameDecoder, Framing};
use crate::event::{RejectReason, SourceIndex, Timestamp};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::collections::VecDeque;

/// Connections that one reactor keeps open; more are closed at once and counted. Sizing: a connection in the
/// middle of the longest frame holds 64 KiB, so that all of them together hold at most 512 MiB; idle ones
/// hold under 1 MiB.
pub const CONNECTIONS_MAX: usize = 8192;

pub(super) struct Connections {
    /// [`CONNECTIONS_MAX`], or less in a test.
    pub(super) count_max: usize,
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Closed while readiness was queued: free once the queue is empty.
    freed: Vec<usize>,
    ready: VecDeque<usize>,
}

struct Connection {
    socket: OwnedFd,
    source: SourceIndex,
    decoder: FrameDecoder,
    /// In `Connections::ready`, once.
    is_queued: bool,
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
        Connections { count_max: CONNECTIONS_MAX, places, free, freed, ready }
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
    pub(super) fn open(&mut self, socket: OwnedFd, source: SourceIndex, is_tcp: bool, epoll: &OwnedFd) -> bool {
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
        let connection = Connection { socket, source, decoder, is_queued: false };
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
        if self.places[place].take().is_some() {
            self.freed.push(place);
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
        let source = connection.source;
        let mut hand = |item: Result<&[u8], RejectReason>| match item {
            Ok(frame) => consumer.frame(source, reader, frame, arrival),
            Err(_) => consumer.oversize(source, 1),
        };
        let end = match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) if length > 0 => match connection.decoder.feed(&buffer[..length], &mut hand) {
                Ok(()) => return Read::Some(length),
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
