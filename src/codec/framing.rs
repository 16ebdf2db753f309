//! Cutting a byte stream into frames: length-prefixed (DogStatsD over Unix streams) or newline text.
//!
//! In: the bytes of one connection, in pieces of any size. Out: frames, each one or more whole lines; only
//! a frame that is spread over pieces is copied. Owns: at most one unfinished frame. Invariant: how the
//! bytes were split changes neither the lines nor the errors nor their order. Memory is bounded by the
//! limit on frames.

use crate::event::RejectReason;

/// Longest frame, or line, by default: what the largest datagram could bring.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Fewer than four bytes have come.
    Undecided,
    /// Each frame is a u32, little-endian, and so many bytes.
    LengthPrefixed,
    /// Lines.
    Newline,
}

/// The framing that the first bytes of a connection show: a length below 65,536 has two NULs at its end,
/// and text never holds a NUL.
pub fn detect(first: [u8; 4]) -> Framing {
    if first[2] == 0 && first[3] == 0 { Framing::LengthPrefixed } else { Framing::Newline }
}

/// Cuts one connection's bytes into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    framing: Framing,
    frame_bytes_max: usize,
    /// The bytes of an unfinished frame: its prefix too, when it has one. At most `frame_bytes_max` + 4.
    pending: Vec<u8>,
    /// Inside a line that was over the limit and has been reported: everything up to its newline is
    /// thrown away.
    skipping: bool,
    /// Set by the error that closes the connection.
    failed: Option<RejectReason>,
}

const PREFIX_BYTES: usize = 4;

/// What the place of unfinished frames may keep while there is none: the tail of a usual line costs no allocation, and
/// a connection that once had a long frame is soon as small as any.
const PLACE_BYTES_MAX: usize = 1024;

impl FrameDecoder {
    /// A decoder that finds the framing out; frames, and lines, have at most `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> FrameDecoder {
        FrameDecoder::with_framing(Framing::Undecided, frame_bytes_max)
    }

    /// A decoder for a stream whose framing is known: plain TCP is always newline text.
    pub fn with_framing(framing: Framing, frame_bytes_max: usize) -> FrameDecoder {
        FrameDecoder { framing, frame_bytes_max, pending: Vec::new(), skipping: false, failed: None }
    }

    /// True while a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Bytes of memory that an unfinished frame holds, or its place when there is none.
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity()
    }

    /// What has been found out so far.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Takes the next bytes and gives each whole frame to `frame`, in order. A newline frame is a run of
    /// whole lines; a line over the limit arrives as one `Err(Oversize)` in its place.
    ///
    /// # Errors
    /// `Oversize` when a length prefix is over the limit: the connection has to be closed, and every later
    /// call answers the same.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut frame: impl FnMut(Result<&[u8], RejectReason>),
    ) -> Result<(), RejectReason> {
        if let Some(reason) = self.failed {
            return Err(reason);
        }
        let mut bytes = bytes;
        if self.framing == Framing::Undecided {
            let missing = PREFIX_BYTES - self.pending.len();
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            if self.pending.is_empty() && !rest.is_empty() {
                // The usual case, all four at once: nothing is moved.
                self.framing = detect(head.try_into().expect("four bytes were missing"));
            } else {
                self.pending.extend_from_slice(head);
                bytes = rest;
                let Some(first) = self.pending.first_chunk::<PREFIX_BYTES>() else { return Ok(()) };
                self.framing = detect(*first);
                // What was kept for detection is read as if it had just come.
                let first = std::mem::take(&mut self.pending);
                self.feed_known(&first, &mut frame)?;
            }
        }
        self.feed_known(bytes, &mut frame)
    }

    /// The end of the stream: a last line needs no newline.
    ///
    /// # Errors
    /// `BadFrame` when the stream ended inside a length-prefixed frame, or the error that `feed` gave.
    pub fn finish(&mut self, mut frame: impl FnMut(Result<&[u8], RejectReason>)) -> Result<(), RejectReason> {
        if let Some(reason) = self.failed {
            return Err(reason);
        }
        let pending = std::mem::take(&mut self.pending);
        match self.framing {
            _ if pending.is_empty() => Ok(()),
            Framing::LengthPrefixed => self.fail(RejectReason::BadFrame),
            Framing::Undecided if pending.len() > self.frame_bytes_max => {
                frame(Err(RejectReason::Oversize));
                Ok(())
            }
            Framing::Undecided | Framing::Newline => {
                frame(Ok(&pending));
                Ok(())
            }
        }
    }

    fn fail(&mut self, reason: RejectReason) -> Result<(), RejectReason> {
        self.failed = Some(reason);
        Err(reason)
    }

    fn feed_known(
        &mut self,
        bytes: &[u8],
        frame: &mut impl FnMut(Result<&[u8], RejectReason>),
    ) -> Result<(), RejectReason> {
        match self.framing {
            Framing::LengthPrefixed => self.feed_prefixed(bytes, frame),
            Framing::Newline | Framing::Undecided => {
                self.feed_lines(bytes, frame);
                Ok(())
            }
        }
    }

    fn feed_prefixed(
        &mut self,
        bytes: &[u8],
        frame: &mut impl FnMut(Result<&[u8], RejectReason>),
    ) -> Result<(), RejectReason> {
        let mut rest = bytes;
        if !self.pending.is_empty() {
            rest = take(&mut self.pending, PREFIX_BYTES, rest);
            let Some(length) = prefix(&self.pending) else { return Ok(()) };
            if length > self.frame_bytes_max {
                return self.fail(RejectReason::Oversize);
            }
            rest = take(&mut self.pending, PREFIX_BYTES + length, rest);
            if self.pending.len() < PREFIX_BYTES + length {
                return Ok(());
            }
            if length > 0 {
                frame(Ok(&self.pending[PREFIX_BYTES..]));
            }
            self.clear_pending();
        }
        while let Some(length) = prefix(rest) {
            if length > self.frame_bytes_max {
                return self.fail(RejectReason::Oversize);
            }
            let Some(body) = rest.get(PREFIX_BYTES..PREFIX_BYTES + length) else { break };
            if length > 0 {
                frame(Ok(body));
            }
            rest = &rest[PREFIX_BYTES + length..];
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    fn feed_lines(&mut self, bytes: &[u8], frame: &mut impl FnMut(Result<&[u8], RejectReason>)) {
        let mut rest = bytes;
        if self.skipping || !self.pending.is_empty() {
            let newline = memchr::memchr(b'\n', rest);
            let (line, tail) = rest.split_at(newline.map_or(rest.len(), |at| at + 1));
            if !self.skipping {
                self.append_line(line, newline.is_some(), frame);
            }
            if newline.is_none() {
                return;
            }
            self.skipping = false;
            rest = tail;
        }
        let Some(last) = memchr::memrchr(b'\n', rest) else {
            self.append_line(rest, false, frame);
            return;
        };
        let (whole, tail) = rest.split_at(last + 1);
        if last <= self.frame_bytes_max {
            frame(Ok(whole));
        } else {
            self.split_lines(whole, frame);
        }
        self.append_line(tail, false, frame);
    }

    /// Continues the pending line with bytes that hold no newline, or end with their only one.
    fn append_line(&mut self, bytes: &[u8], ends: bool, frame: &mut impl FnMut(Result<&[u8], RejectReason>)) {
        if self.pending.len() + bytes.len() - usize::from(ends) > self.frame_bytes_max {
            self.pending = Vec::new();
            self.skipping = true;
            frame(Err(RejectReason::Oversize));
            return;
        }
        self.pending.extend_from_slice(bytes);
        if ends {
            frame(Ok(&self.pending));
            self.clear_pending();
        }
    }

    fn clear_pending(&mut self) {
        if self.pending.capacity() > PLACE_BYTES_MAX {
            self.pending = Vec::new();
        }
        self.pending.clear();
    }

    /// Whole lines of which some may be over the limit: runs of good ones stay together.
    fn split_lines(&mut self, whole: &[u8], frame: &mut impl FnMut(Result<&[u8], RejectReason>)) {
        let mut start = 0;
        let mut line = 0;
        for newline in memchr::memchr_iter(b'\n', whole) {
            if newline - line > self.frame_bytes_max {
                if start < line {
                    frame(Ok(&whole[start..line]));
                }
                frame(Err(RejectReason::Oversize));
                start = newline + 1;
            }
            line = newline + 1;
        }
        if start < whole.len() {
            frame(Ok(&whole[start..]));
        }
    }
}

/// Moves bytes to `pending` until it holds `wanted`, and answers what is left.
fn take<'a>(pending: &mut Vec<u8>, wanted: usize, bytes: &'a [u8]) -> &'a [u8] {
    let missing = wanted.saturating_sub(pending.len()).min(bytes.len());
    let (head, rest) = bytes.split_at(missing);
    pending.extend_from_slice(head);
    rest
}

fn prefix(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<PREFIX_BYTES>().map(|length| u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 40;

    #[derive(Debug, PartialEq)]
    enum Seen {
        Line(Vec<u8>),
        Rejected(RejectReason),
        Closed(RejectReason),
    }

    /// Feeds the pieces and notes every line, so that runs of lines compare however they were grouped.
    fn run(pieces: &[&[u8]], limit: usize) -> Vec<Seen> {
        let mut decoder = FrameDecoder::new(limit);
        let mut seen = Vec::new();
        let note = |item: Result<&[u8], RejectReason>, seen: &mut Vec<Seen>| match item {
            Ok(frame) => {
                assert!(!frame.is_empty());
                let text = frame.strip_suffix(b"\n").unwrap_or(frame);
                seen.extend(text.split(|b| *b == b'\n').map(|line| Seen::Line(line.to_vec())));
            }
            Err(reason) => seen.push(Seen::Rejected(reason)),
        };
        let mut end = Ok(());
        for piece in pieces {
            end = decoder.feed(piece, |item| note(item, &mut seen));
            assert!(decoder.pending.len() <= limit.max(PREFIX_BYTES) + PREFIX_BYTES);
        }
        if end.is_ok() {
            end = decoder.finish(|item| note(item, &mut seen));
        }
        if let Err(reason) = end {
            assert_eq!(decoder.feed(b"more", |_| panic!("closed")), Err(reason));
            seen.push(Seen::Closed(reason));
        }
        seen
    }

    fn lines(text: &[&str]) -> Vec<Seen> {
        text.iter().map(|line| Seen::Line(line.as_bytes().to_vec())).collect()
    }

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    /// Every split into two pieces, and byte by byte.
    fn check(bytes: &[u8], expected: &[Seen]) {
        assert_eq!(run(&[bytes], LIMIT), expected);
        for at in 0..=bytes.len() {
            assert_eq!(run(&[&bytes[..at], &bytes[at..]], LIMIT), expected, "split at {at}");
        }
        assert_eq!(run(&bytes.chunks(1).collect::<Vec<_>>(), LIMIT), expected);
    }

    #[test]
    fn newline_text_of_a_real_client() {
        check(b"x:1|c\ny:3.200000|ms\n", &lines(&["x:1|c", "y:3.200000|ms"]));
        check(b"x:1|c\ny:3.2|ms", &lines(&["x:1|c", "y:3.2|ms"]));
        check(b"a:1", &lines(&["a:1"]));
        check(b"", &[]);
    }

    #[test]
    fn length_prefixed_frames_of_a_real_client() {
        let captured = b"\x1a\0\0\0a.b:1|c|#k:v,service:svc1\n";
        check(captured, &lines(&["a.b:1|c|#k:v,service:svc1"]));
        check(&framed(&[b"x:1|c\ny:2|c", b"", b"z:3|g\n"]), &lines(&["x:1|c", "y:2|c", "z:3|g"]));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_a_bad_frame() {
        let bytes = framed(&[b"x:1|c", b"y:2|c"]);
        let mut expected = lines(&["x:1|c"]);
        expected.push(Seen::Closed(RejectReason::BadFrame));
        check(&bytes[..bytes.len() - 1], &expected);
        check(&bytes[..bytes.len() - 7], &expected);
    }

    #[test]
    fn an_oversize_prefix_closes_after_what_came_before() {
        let mut bytes = framed(&[b"x:1|c"]);
        bytes.extend_from_slice(&41u32.to_le_bytes());
        bytes.extend_from_slice(&[b'x'; 60]);
        let mut expected = lines(&["x:1|c"]);
        expected.push(Seen::Closed(RejectReason::Oversize));
        check(&bytes, &expected);
    }

    #[test]
    fn an_oversize_line_is_skipped_and_counted_once() {
        let long = "l".repeat(LIMIT + 1);
        let longer = "m".repeat(3 * LIMIT);
        let fits = "f".repeat(LIMIT);
        let text = format!("a:1|c\n{long}\nb:1|c\n{fits}\n{longer}\n{long}\nc:1|c\n{long}");
        let over = || Seen::Rejected(RejectReason::Oversize);
        let mut expected = lines(&["a:1|c"]);
        expected.push(over());
        expected.extend(lines(&["b:1|c", &fits]));
        expected.extend([over(), over()]);
        expected.extend(lines(&["c:1|c"]));
        expected.push(over());
        check(text.as_bytes(), &expected);
    }

    #[test]
    fn a_whole_piece_is_not_copied() {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        let bytes = b"x:1|c\ny:2|c\n";
        let mut frames = 0;
        decoder
            .feed(bytes, |frame| {
                frames += 1;
                assert_eq!(frame.map(<[u8]>::as_ptr), Ok(bytes.as_ptr()));
            })
            .expect("text");
        assert_eq!((frames, decoder.pending.capacity()), (1, 0));
        assert_eq!(decoder.framing(), Framing::Newline);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines_and_errors(
            text in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(0u8), 1 => any::<u8>()], 0..200),
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..LIMIT + 2), 0..6),
            prefixed in any::<bool>(),
            cut in 0usize..8,
            cuts in proptest::collection::vec(0usize..300, 0..8),
        ) {
            let mut bytes = text;
            if prefixed {
                bytes = framed(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
                bytes.truncate(bytes.len().saturating_sub(cut));
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&bytes[start..cut]);
                start = cut;
            }
            pieces.push(&bytes[start..]);
            prop_assert_eq!(run(&pieces, LIMIT), run(&[&bytes], LIMIT));
        }
    }
}
