//! Takes a `text/event-stream` in pieces of any size; gives each event's data to the scanner, and
//! the bytes to forward.
//!
//! WHATWG HTML section 9.2.6: lines end with LF, CRLF or CR; a byte order mark may lead; `data` lines
//! of one event are joined by LF; a blank line ends the event. Nothing is kept of what passes.

use memchr::memchr2;

use super::{
    Forward, More, UsageEvent,
    grammar::Node,
    json::{Position, Scanner},
    sieve::Sieve,
    tally::{Event, Tally},
};

const DATA: &[u8] = b"data";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The longest beginning of an event that is remembered.
const MAX_PREFIX: usize = 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    /// At the first byte of a line.
    Start,
    /// After so many bytes of the name `data`.
    Name(usize),
    /// In a line that means nothing here: another field, a comment.
    Other,
    /// After `data:`, where one space may stand.
    Space,
    /// In the value of a `data` line.
    Data,
}

/// A reader of one stream.
pub(super) struct Sse {
    scanner: Scanner,
    line: Line,
    /// The byte before was a CR: an LF belongs to it.
    after_cr: bool,
    /// What is left to come of a byte order mark.
    mark: &'static [u8],
    /// The event under way has had a byte of data.
    has_data: bool,
    prefix: Prefix,
    sieve: Option<Sieve>,
}

impl Sse {
    pub(super) fn new(root: &'static Node, usage_event: UsageEvent) -> Self {
        Self {
            scanner: Scanner::new(root),
            line: Line::Start,
            after_cr: false,
            mark: BYTE_ORDER_MARK,
            has_data: false,
            prefix: Prefix {
                bytes: Vec::new(),
                text: Position::start(root),
                event: Event::default(),
            },
            sieve: match usage_event {
                UsageEvent::Keep => None,
                UsageEvent::Remove => Some(Sieve::default()),
            },
        }
    }

    /// Bytes of memory, itself included.
    pub(super) fn kept(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.scanner.kept())
            .saturating_add(self.prefix.bytes.capacity())
            .saturating_add(self.sieve.as_ref().map_or(0, Sieve::kept))
    }

    /// Reads `chunk`; says what to forward in its place.
    pub(super) fn push(&mut self, chunk: &[u8], more: More, tally: &mut Tally) -> Forward {
        self.read(chunk, tally);
        match &mut self.sieve {
            None => Forward::Unchanged,
            Some(sieve) => sieve.end_chunk(chunk, tally.event, more),
        }
    }

    fn read(&mut self, chunk: &[u8], tally: &mut Tally) {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            let at = chunk.len().saturating_sub(rest.len());
            if self.after_cr {
                self.after_cr = false;
                if byte == b'\n' {
                    rest = tail;
                    if let Some(sieve) = &mut self.sieve {
                        sieve.end_pair(chunk, at);
                    }
                    continue;
                }
            }
            if self.line == Line::Start && matches!(byte, b'\n' | b'\r') {
                rest = tail;
                self.after_cr = byte == b'\r';
                if let Some(sieve) = &mut self.sieve {
                    sieve.end_event(chunk, at, tally.event);
                }
                self.end_event(tally);
                continue;
            }
            rest = self.step(byte, rest, tail, tally);
        }
    }

    fn end_event(&mut self, tally: &mut Tally) {
        self.scanner.restart(tally);
        self.has_data = false;
        tally.event = Event::default();
    }

    /// Reads at least one byte of a line and gives what it did not read.
    fn step<'a>(
        &mut self,
        byte: u8,
        bytes: &'a [u8],
        tail: &'a [u8],
        tally: &mut Tally,
    ) -> &'a [u8] {
        match self.line {
            Line::Start => {
                if let Some(mark) = self.mark.strip_prefix(&[byte]) {
                    self.mark = mark;
                    return tail;
                }
                self.mark = &[];
                self.line = Line::Name(0);
                bytes
            }
            Line::Name(matched) => self.name(byte, bytes, tail, matched),
            Line::Space => {
                self.line = Line::Data;
                if byte == b' ' { tail } else { bytes }
            }
            Line::Data | Line::Other => self.value(bytes, tally),
        }
    }

    fn name<'a>(&mut self, byte: u8, bytes: &'a [u8], tail: &'a [u8], matched: usize) -> &'a [u8] {
        if matched == 0
            && let Some(tail) = bytes.strip_prefix(b"data: ")
        {
            self.line = Line::Data;
            return tail;
        }
        match DATA.get(matched) {
            Some(&expected) if expected == byte => {
                self.line = Line::Name(matched.saturating_add(1));
                tail
            }
            None if byte == b':' => {
                self.line = Line::Space;
                tail
            }
            _ => {
                self.line = Line::Other;
                bytes
            }
        }
    }

    fn value<'a>(&mut self, bytes: &'a [u8], tally: &mut Tally) -> &'a [u8] {
        let end = memchr2(b'\n', b'\r', bytes);
        let (run, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or((bytes, &[]));
        if self.line == Line::Data {
            self.data(run, tally);
        }
        let Some((&end, rest)) = rest.split_first() else {
            return rest;
        };
        if self.line == Line::Data {
            // The LF that joins this line to the next one of the event, if there is one.
            self.scanner.push(b"\n", tally);
        }
        self.line = Line::Start;
        self.after_cr = end == b'\r';
        rest
    }

    fn data(&mut self, run: &[u8], tally: &mut Tally) {
        if self.has_data {
            return self.scanner.push(run, tally);
        }
        self.has_data = !run.is_empty();
        if let Some(rest) = self.prefix.resume(run, &mut self.scanner, tally) {
            return self.scanner.push(rest, tally);
        }
        let numbers = tally.numbers;
        let rest = self.scanner.push_to_text(run, tally);
        if tally.numbers == numbers
            && !tally.event.report
            && let Some(text) = self.scanner.text_position()
        {
            let read = run.len().saturating_sub(rest.len());
            self.prefix
                .remember(run.get(..read).unwrap_or_default(), text, tally.event);
        }
        self.scanner.push(rest, tally);
    }
}

/// How the last event began, up to the model's words, and what reading that led to.
///
/// Events of one stream begin alike, for most of their length. The scanner's state depends on
/// nothing but the bytes, so an event with the same beginning is read from its end. What the
/// beginning tells the tally is told already, unless it holds numbers: then it is not remembered.
struct Prefix {
    /// Empty, or all bytes that lead from a new document to `text`.
    bytes: Vec<u8>,
    text: Position,
    event: Event,
}

impl Prefix {
    fn resume<'a>(
        &self,
        run: &'a [u8],
        scanner: &mut Scanner,
        tally: &mut Tally,
    ) -> Option<&'a [u8]> {
        if self.bytes.is_empty() {
            return None;
        }
        let rest = run.strip_prefix(self.bytes.as_slice())?;
        scanner.resume(self.text);
        tally.event = self.event;
        Some(rest)
    }

    fn remember(&mut self, bytes: &[u8], text: Position, event: Event) {
        self.bytes.clear();
        if bytes.len() <= MAX_PREFIX {
            self.bytes.extend_from_slice(bytes);
            self.text = text;
            self.event = event;
        }
    }
}
