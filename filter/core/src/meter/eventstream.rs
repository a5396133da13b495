//! Takes an `application/vnd.amazon.eventstream` in pieces of any size; gives each frame's payload
//! to the scanner.
//!
//! A frame is `u32` total length, `u32` headers length, `u32` CRC-32 of these eight bytes; headers;
//! payload; `u32` CRC-32 of all before it (Smithy, Amazon event stream specification). Payloads are
//! read as they pass: a frame of 16 MiB needs no more memory than one of 16 bytes.

use super::{grammar::Node, json::Scanner, tally::Tally};

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// Longer headers are passed over: the ones that we look for take less than a hundred bytes.
const MAX_HEADERS: usize = 4096;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Prelude,
    Headers,
    Payload,
    Checksum,
    /// What came is not an event stream, or was damaged on the way.
    Broken,
}

/// A reader of one stream.
pub(super) struct EventStream {
    scanner: Scanner,
    part: Part,
    /// What is read of a part that is kept: all but the payload.
    kept: Vec<u8>,
    /// Bytes of the part still to come.
    left: u32,
    headers_len: u32,
    payload_len: u32,
    crc: Crc,
    /// What was known before this frame: it stands again if the frame was damaged.
    before: Tally,
}

impl EventStream {
    pub(super) fn new(root: &'static Node) -> Self {
        Self {
            scanner: Scanner::new(root),
            part: Part::Prelude,
            kept: Vec::new(),
            left: PRELUDE as u32,
            headers_len: 0,
            payload_len: 0,
            crc: Crc::START,
            before: Tally::default(),
        }
    }

    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.part, Part::Broken)
    }

    /// Bytes of memory, itself included.
    pub(super) fn kept(&self) -> usize {
        let parts = [
            size_of::<Self>(),
            self.scanner.kept(),
            self.kept.capacity(),
            self.before.kept(),
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }

    /// Reads all of `chunk`.
    pub(super) fn push(&mut self, chunk: &[u8], tally: &mut Tally) {
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_broken() {
            let len = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (run, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            rest = after;
            self.left = self
                .left
                .saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
            match self.part {
                Part::Checksum => self.kept.extend_from_slice(run),
                Part::Payload => {
                    self.crc.push(run);
                    self.scanner.push(run, tally);
                }
                Part::Headers | Part::Prelude => {
                    self.crc.push(run);
                    let room = MAX_HEADERS.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(run.get(..room).unwrap_or(run));
                }
                Part::Broken => {}
            }
            // A part may be empty: headers and payload can be.
            while self.left == 0 && !self.is_broken() {
                self.end_part(tally);
            }
        }
    }

    fn end_part(&mut self, tally: &mut Tally) {
        (self.part, self.left) = match self.part {
            Part::Prelude => {
                self.before.clone_from(tally);
                self.prelude()
                    .map_or((Part::Broken, 0), |()| (Part::Headers, self.headers_len))
            }
            Part::Headers => {
                if is_exception(&self.kept) {
                    tally.error();
                }
                (Part::Payload, self.payload_len)
            }
            Part::Payload => (Part::Checksum, CHECKSUM as u32),
            Part::Checksum if u32_at(&self.kept, 0) == Some(self.crc.value()) => {
                self.scanner.restart(tally);
                self.crc = Crc::START;
                (Part::Prelude, PRELUDE as u32)
            }
            Part::Checksum | Part::Broken => {
                tally.clone_from(&self.before);
                (Part::Broken, 0)
            }
        };
        self.kept.clear();
    }

    /// Takes the lengths out of a prelude that is whole.
    fn prelude(&mut self) -> Option<()> {
        let total = u32_at(&self.kept, 0)?;
        self.headers_len = u32_at(&self.kept, 4)?;
        if u32_at(&self.kept, 8)? != checksum(self.kept.get(..8)?) {
            return None;
        }
        let overhead = self.headers_len.checked_add((PRELUDE + CHECKSUM) as u32)?;
        self.payload_len = total.checked_sub(overhead)?;
        Some(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether these headers say that the frame is not an event: `:message-type` is `exception` or
/// `error`.
fn is_exception(mut headers: &[u8]) -> bool {
    while let Some((name, value, rest)) = header(headers) {
        if name == b":message-type" {
            return value != b"event";
        }
        headers = rest;
    }
    false
}

/// The first header, if it is a string as those that we look for are, and what follows it.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const STRING: u8 = 7;
    let (&name_len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (&[kind, high, low], rest) = rest.split_first_chunk()?;
    if kind != STRING {
        return None;
    }
    let value_len = u16::from_be_bytes([high, low]);
    let (value, rest) = rest.split_at_checked(usize::from(value_len))?;
    Some((name, value, rest))
}

/// CRC-32 as of ISO 3309, of bytes that come in pieces.
struct Crc(u32);

impl Crc {
    const START: Self = Self(u32::MAX);

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            let entry = TABLE
                .get(usize::from(low ^ byte))
                .copied()
                .unwrap_or_default();
            self.0 = entry ^ (self.0 >> 8);
        }
    }

    const fn value(&self) -> u32 {
        !self.0
    }
}

/// The CRC-32 of bytes that are all there.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::START;
    crc.push(bytes);
    crc.value()
}

static TABLE: [u32; 256] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where it can't trap"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let mut entry = byte as u32;
        let mut bit = 0u8;
        while bit < 8 {
            entry = if entry & 1 == 1 {
                0xedb8_8320 ^ (entry >> 1)
            } else {
                entry >> 1
            };
            bit = bit.saturating_add(1);
        }
        table[byte as usize] = entry;
        if byte == u8::MAX {
            return table;
        }
        byte = byte.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }
}
