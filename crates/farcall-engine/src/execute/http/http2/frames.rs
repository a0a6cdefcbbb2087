//! The frames that go out, as far as it matters where requests begin and end among them (RFC 9113, section 4.1).
//!
//! Only their heads are read; nothing is kept, and nothing is judged: what is wrong is for the h2 crate, which wrote it.

/// What every connection opens with (section 3.4).
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A place in the bytes that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The first bytes of this stream's request.
    Beginning(u32),
    /// The last byte of this stream's request.
    End(u32),
}

/// Where in the stream of frames we are.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// Bytes of preface and payload that are only passed over.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// The stream whose request ends with the bytes that are passed over now.
    ends: Option<u32>,
    /// A stream that ends with its header block, which continues in further frames.
    ends_with_block: Option<u32>,
}

impl Frames {
    /// At the beginning of a client's connection.
    pub(super) const fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], head_bytes: 0, ends: None, ends_with_block: None }
    }

    /// Goes on by these bytes.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut passed: impl FnMut(Passed)) {
        while !bytes.is_empty() {
            if self.skip == 0 {
                let (taken, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head_bytes));
                self.head[self.head_bytes..][..taken.len()].copy_from_slice(taken);
                self.head_bytes += taken.len();
                bytes = rest;
                if self.head_bytes < HEAD_BYTES {
                    return;
                }
                self.head_bytes = 0;
                self.begin(&mut passed);
            }
            let skipped = bytes.len().min(self.skip);
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip == 0
                && let Some(stream) = self.ends.take()
            {
                passed(Passed::End(stream));
            }
        }
    }

    /// A frame's head is complete.
    fn begin(&mut self, passed: &mut impl FnMut(Passed)) {
        let [l2, l1, l0, kind, flags, id @ ..] = self.head;
        self.skip = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let stream = u32::from_be_bytes(id) & (u32::MAX >> 1);
        let (ends_stream, ends_headers) = (flags & END_STREAM != 0, flags & END_HEADERS != 0);
        match kind {
            HEADERS => {
                passed(Passed::Beginning(stream));
                if ends_headers {
                    self.ends = ends_stream.then_some(stream);
                } else {
                    self.ends_with_block = ends_stream.then_some(stream);
                }
            }
            CONTINUATION if ends_headers => self.ends = self.ends_with_block.take(),
            DATA if ends_stream => self.ends = Some(stream),
            _ => {}
        }
        if self.skip == 0
            && let Some(stream) = self.ends.take()
        {
            passed(Passed::End(stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Passed::{Beginning, End};
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut frame = (payload as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(std::iter::repeat_n(0x1, payload));
        frame
    }

    /// The same for whole writes and for every byte alone.
    fn check(frames: &[Vec<u8>], expected: &[Passed]) {
        let bytes = [vec![1; PREFACE_BYTES], frame(0x4, 0, 0, 18), frames.concat()].concat();
        for piece_bytes in [bytes.len(), 1, 7, 9, 10] {
            let (mut frames, mut seen) = (Frames::of_client(), Vec::new());
            for piece in bytes.chunks(piece_bytes) {
                frames.pass(piece, |passed| seen.push(passed));
            }
            assert_eq!(seen, expected, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn a_request_without_a_body_ends_with_its_head() {
        check(&[frame(HEADERS, END_STREAM | END_HEADERS, 1, 30)], &[Beginning(1), End(1)]);
        let block = [frame(HEADERS, END_STREAM, 3, 40), frame(CONTINUATION, 0, 3, 5)];
        check(&block, &[Beginning(3)]);
        check(&[&block[..], &[frame(CONTINUATION, END_HEADERS, 3, 9)]].concat(), &[Beginning(3), End(3)]);
    }

    #[test]
    fn a_body_ends_with_the_frame_that_says_so() {
        let head = frame(HEADERS, END_HEADERS, 1, 30);
        check(&[head.clone(), frame(DATA, 0, 1, 100)], &[Beginning(1)]);
        check(&[head.clone(), frame(DATA, 0, 1, 100), frame(DATA, END_STREAM, 1, 3)], &[Beginning(1), End(1)]);
        check(&[head, frame(DATA, END_STREAM, 1, 0)], &[Beginning(1), End(1)]);
    }

    #[test]
    fn requests_are_told_apart_and_other_frames_passed_over() {
        let frames = [
            frame(HEADERS, END_HEADERS, 1, 30),
            frame(0x8, 0x1, 1, 4),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, 20),
            frame(0x6, 0x1, 0, 8),
            frame(0x3, 0, 3, 4),
            frame(DATA, END_STREAM, 1, 1),
        ];
        check(&frames, &[Beginning(1), Beginning(3), End(3), End(1)]);
    }

    #[test]
    fn a_frame_that_is_not_out_yet_ends_nothing() {
        let bytes = [vec![1; PREFACE_BYTES], frame(HEADERS, END_STREAM | END_HEADERS, 1, 30)].concat();
        let (mut frames, mut seen) = (Frames::of_client(), Vec::new());
        frames.pass(&bytes[..bytes.len() - 1], |passed| seen.push(passed));
        assert_eq!(seen, [Beginning(1)]);
    }
}
