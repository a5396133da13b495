//! Takes what a provider would answer, and a cue; gives a body that plays it, piece by piece.

use std::collections::VecDeque;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::time::Sleep;

use crate::behaviour::{Behaviour, End, Garbage};
use crate::journal::Usage;
use crate::serve::Ticket;

/// Whose wire format is spoken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Api {
    Anthropic,
    OpenAi,
}

/// An answer as the provider would give it, before any cue.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) pieces: Vec<Piece>,
    /// The last event of an answer that fails midway.
    pub(crate) error_event: Bytes,
    pub(crate) stream: bool,
    pub(crate) input: u64,
}

/// What goes out in one write.
#[derive(Clone, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Output tokens that exist once this is out.
    pub(crate) output: u64,
    /// Usage that this reports.
    pub(crate) usage: Option<Usage>,
}

/// A body that plays an answer and keeps the journal up to date.
pub(crate) struct Performance {
    pieces: VecDeque<Piece>,
    trailers: Option<HeaderMap>,
    end: End,
    pace: Duration,
    wait: Option<Pin<Box<Sleep>>>,
    /// A piece was just sent: let it be written before the next.
    sent: bool,
    ticket: Ticket,
}

/// The error that makes hyper reset the stream, or close an HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Reset;

impl Answer {
    /// One JSON value. Its two halves are two pieces, so that it can be cut in the middle.
    pub(crate) fn json(status: StatusCode, value: &Value, input: u64, output: u64) -> Self {
        let bytes = Bytes::from(value.to_string());
        let (first, second) = (
            bytes.slice(..bytes.len() / 2),
            bytes.slice(bytes.len() / 2..),
        );
        let usage = value
            .get("usage")
            .is_some()
            .then_some(Usage { input, output });
        Self {
            status,
            headers: headers(&[("content-type", "application/json")]),
            pieces: vec![
                Piece {
                    bytes: first,
                    output,
                    usage: None,
                },
                Piece {
                    bytes: second,
                    output: 0,
                    usage,
                },
            ],
            error_event: Bytes::new(),
            stream: false,
            input,
        }
    }

    /// Server-sent events.
    pub(crate) fn events(pieces: Vec<Piece>, error_event: String, input: u64) -> Self {
        Self {
            status: StatusCode::OK,
            headers: headers(&[("content-type", "text/event-stream; charset=utf-8")]),
            pieces,
            error_event: error_event.into(),
            stream: true,
            input,
        }
    }

    /// Applies what the cue says of the status, the headers and the bytes.
    pub(crate) fn bend(&mut self, cue: &Behaviour) {
        if let Some(status) = cue
            .status
            .and_then(|status| StatusCode::from_u16(status).ok())
        {
            self.status = status;
        }
        if let Some(body) = &cue.body {
            self.pieces = vec![Piece::from(body.clone())];
        }
        match cue.garbage {
            Some(Garbage::Json) if self.stream => {
                self.pieces = vec![Piece::from("data: {\"choices\": [}\n\n".to_owned()); 3];
            }
            Some(Garbage::Json) => self.pieces = vec![Piece::from("{\"usage\": {".to_owned())],
            Some(Garbage::Bytes) => {
                self.pieces = vec![(0..=u8::MAX).rev().collect::<Vec<_>>().into(); 4];
            }
            None => {}
        }
        if cue.gzip {
            self.compress();
        }
        if let Some(seconds) = cue.retry_after {
            self.headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(kind) = cue.content_type.as_ref().and_then(|kind| kind.parse().ok()) {
            self.headers.insert(CONTENT_TYPE, kind);
        }
        extend(&mut self.headers, &cue.headers);
        if !self.stream {
            self.headers.insert(CONTENT_LENGTH, self.length().into());
        }
    }

    /// Cuts the pieces as the cue says and makes a body of them.
    pub(crate) fn perform(mut self, cue: &Behaviour, ticket: Ticket) -> Performance {
        if let Some(at) = cue.at {
            self.pieces.truncate(at);
        }
        if cue.end == End::Error {
            self.pieces.push(Piece::from(self.error_event));
        }
        if let Some(size) = cue.chunk {
            self.pieces = self
                .pieces
                .into_iter()
                .flat_map(|piece| piece.split(size))
                .collect();
        }
        let mut trailers = HeaderMap::new();
        extend(&mut trailers, &cue.trailers);
        Performance {
            pieces: self.pieces.into(),
            trailers: (!trailers.is_empty()).then_some(trailers),
            end: cue.end,
            pace: Duration::from_millis(cue.pace_ms),
            wait: None,
            sent: false,
            ticket,
        }
    }

    fn length(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| piece.bytes.len())
            .fold(0, usize::saturating_add)
    }

    /// All of it in one piece: who can't read gzip sees no usage, but it was reported.
    fn compress(&mut self) {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut whole = Piece::default();
        for piece in &self.pieces {
            // Writing to a vector does not fail.
            let _ = gzip.write_all(&piece.bytes);
            whole.output = whole.output.saturating_add(piece.output);
            whole.usage = piece.usage.or(whole.usage);
        }
        whole.bytes = gzip.finish().unwrap_or_default().into();
        self.pieces = vec![whole];
        self.headers.insert(
            CONTENT_ENCODING,
            hyper::header::HeaderValue::from_static("gzip"),
        );
    }
}

impl Piece {
    /// The same bytes in smaller pieces; tokens and usage are with the last.
    fn split(mut self, size: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        while self.bytes.len() > size.max(1) {
            pieces.push(Self {
                bytes: self.bytes.split_to(size.max(1)),
                ..Self::default()
            });
        }
        pieces.push(self);
        pieces
    }
}

impl<B: Into<Bytes>> From<B> for Piece {
    fn from(bytes: B) -> Self {
        Self {
            bytes: bytes.into(),
            ..Self::default()
        }
    }
}

impl Body for Performance {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        if std::mem::take(&mut self.sent) {
            if self.pace.is_zero() {
                // Being asked again at once is enough for hyper to write what it has.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.wait = Some(Box::pin(tokio::time::sleep(self.pace)));
        }
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        if let Some(piece) = self.pieces.pop_front() {
            self.sent = true;
            self.ticket.sent(&piece);
            // Settled before the last byte is out: who has read it all finds it in the journal.
            if self.pieces.is_empty() && self.end == End::Complete && self.trailers.is_none() {
                self.ticket.complete();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece.bytes))));
        }
        match self.end {
            End::Hang => return Poll::Pending,
            End::Reset => {
                self.ticket.cut();
                return Poll::Ready(Some(Err(Reset)));
            }
            End::Error | End::Truncate => self.ticket.cut(),
            End::Complete => self.ticket.complete(),
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        let ends = matches!(self.end, End::Complete | End::Error | End::Truncate);
        ends && self.pieces.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl std::fmt::Display for Reset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("reset on cue")
    }
}

impl std::error::Error for Reset {}

/// A header map of literals.
pub(crate) fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, hyper::header::HeaderValue::from_static(value));
    }
    map
}

fn extend(map: &mut HeaderMap, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (
            name.parse::<hyper::header::HeaderName>(),
            value.parse::<hyper::header::HeaderValue>(),
        ) {
            map.append(name, value);
        }
    }
}
