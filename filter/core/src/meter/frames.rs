//! Takes a body by its media type; cuts it into documents for the scanner.

use super::{
    Dialect, Forward, MeterError, MeterSetup, More, UsageEvent, eventstream::EventStream,
    json::Scanner, sse::Sse, tally::Tally,
};

/// A body, and how it is cut.
pub(super) enum Frames {
    /// Frames of AWS, a document in each.
    Aws(Box<EventStream>),
    /// One document, or an array of them.
    Json(Box<Scanner>),
    /// One document after the other.
    Lines(Box<Scanner>),
    /// Nothing to read: an error answer, a free endpoint, a body in a form we don't know.
    Opaque,
    /// Server-sent events, a document in each.
    Sse(Box<Sse>),
    /// Neither the media type nor the first byte says what it is.
    Strange,
    /// The media type says nothing: the first byte will.
    Unknown(Dialect, UsageEvent),
}

impl Frames {
    /// How the body of the answer that `setup` describes is cut, and why it can't be, where it can't.
    pub(super) fn of(setup: &MeterSetup<'_>) -> (Self, Option<MeterError>) {
        let dialect = setup.form.dialect;
        let encoding = setup.content_encoding.trim_ascii();
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return (Self::Opaque, Some(MeterError::Compressed));
        }
        let media_type = setup
            .content_type
            .split(|&b| b == b';')
            .next()
            .unwrap_or_default();
        let frames = match media_type.trim_ascii().to_ascii_lowercase().as_slice() {
            b"application/json" => Self::json(dialect),
            b"application/jsonl" | b"application/stream+json" | b"application/x-ndjson" => {
                Self::Lines(Box::new(Scanner::new(dialect.root())))
            }
            b"application/vnd.amazon.eventstream" => {
                Self::Aws(Box::new(EventStream::new(dialect.frame_root())))
            }
            b"text/event-stream" => Self::sse(dialect, setup.usage_event),
            b"" | b"application/octet-stream" | b"text/plain" => {
                Self::Unknown(dialect, setup.usage_event)
            }
            _ => return (Self::Opaque, Some(MeterError::UnknownContentType)),
        };
        (frames, None)
    }

    fn json(dialect: Dialect) -> Self {
        Self::Json(Box::new(Scanner::new(dialect.root())))
    }

    fn sse(dialect: Dialect, usage_event: UsageEvent) -> Self {
        Self::Sse(Box::new(Sse::new(dialect.event_root(), usage_event)))
    }

    /// Reads `chunk`; says what to forward in its place.
    pub(super) fn push(&mut self, chunk: &[u8], more: More, tally: &mut Tally) -> Forward {
        match self {
            Self::Aws(frames) => frames.push(chunk, tally),
            Self::Json(scanner) | Self::Lines(scanner) => scanner.push(chunk, tally),
            Self::Opaque | Self::Strange => {}
            Self::Sse(sse) => return sse.push(chunk, more, tally),
            Self::Unknown(dialect, usage_event) => {
                if let Some(first) = chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
                    *self = match first {
                        b'[' | b'{' => Self::json(*dialect),
                        // The names of fields, a comment, a byte order mark.
                        b'd' | b'e' | b'i' | b'r' | b':' | 0xef => {
                            Self::sse(*dialect, *usage_event)
                        }
                        _ => Self::Strange,
                    };
                    return self.push(chunk, more, tally);
                }
            }
        }
        Forward::Unchanged
    }

    /// The body has ended: whether it was read to its end, and why it could not be read.
    pub(super) fn end(&self) -> (bool, Option<MeterError>) {
        let malformed = |broken| {
            if broken {
                Some(MeterError::Malformed)
            } else {
                None
            }
        };
        match self {
            Self::Aws(frames) => (false, malformed(frames.is_broken())),
            Self::Json(scanner) => (scanner.has_closed(), malformed(scanner.is_broken())),
            Self::Lines(scanner) => (false, malformed(scanner.is_broken())),
            Self::Opaque | Self::Sse(_) | Self::Unknown(..) => (false, None),
            Self::Strange => (false, Some(MeterError::UnknownContentType)),
        }
    }

    /// Bytes of memory beside itself.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Aws(frames) => frames.kept(),
            Self::Json(scanner) | Self::Lines(scanner) => scanner.kept(),
            Self::Opaque | Self::Strange | Self::Unknown(..) => 0,
            Self::Sse(sse) => sse.kept(),
        }
    }
}
