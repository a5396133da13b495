//! Takes a provider's answer as it streams by; gives what it used, and the bytes to forward.
//!
//! The meter never holds an answer up and never refuses one: what it can't read is forwarded all the
//! same, and charged by estimate. It keeps no more than 64 KiB of a stream, whatever comes.
//!
//! ```text
//! chunk ──▶ frames (JSON, SSE) ──▶ scanner (one grammar per API) ──▶ tally ──▶ fold ──▶ Usage
//!                    └──▶ sieve ──▶ the bytes to forward
//! ```

mod anthropic;
mod base64;
mod bedrock;
mod calibration;
mod cohere;
mod estimate;
mod eventstream;
mod form;
mod gemini;
mod grammar;
mod json;
mod ollama;
mod openai;
mod request;
mod sieve;
mod sse;
mod tally;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_damage;
#[cfg(test)]
mod tests_dialects;

use serde::Serialize;

pub use self::{
    calibration::Calibration,
    estimate::estimate,
    form::{Charge, Dialect, Form},
    request::{estimate_request, upper_bound},
};
use self::{
    eventstream::EventStream, form::Reports, grammar::Counts, json::Scanner, sieve::Sieve,
    sse::Sse, tally::Tally,
};
use crate::{units::Tokens, usage::Usage};

/// How an exchange with a provider ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The provider ended the body, with or without trailers.
    Complete,
    /// The caller's budget, time or standing ran out, and we cut the stream.
    CutByUs,
    /// The caller hung up.
    CallerGone,
    /// The provider reset the stream, or the body ended before it should.
    ProviderReset,
}

impl End {
    /// As records and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::CutByUs => "cut",
            Self::CallerGone => "caller_gone",
            Self::ProviderReset => "provider_reset",
        }
    }
}

/// How much of a `Usage` the provider stands behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// All is what the provider reported.
    Complete,
    /// The provider reported a part before the answer broke off; the rest is an estimate.
    Partial,
    /// The provider reported nothing.
    Estimated,
    /// The provider said that it failed. What it reported before that counts.
    Failed,
    /// The endpoint is one that no meter reads; a policy allowed it by name.
    Unmetered,
}

impl Completeness {
    /// As records and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Estimated => "estimated",
            Self::Failed => "failed",
            Self::Unmetered => "unmetered",
        }
    }
}

/// What happens to the usage event at the end of an OpenAI chat stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UsageEvent {
    /// The caller asked for it.
    Keep,
    /// Only we asked for it: it is taken out again.
    Remove,
}

/// Whether a body goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum More {
    /// More bytes may follow.
    Expected,
    /// These were the last.
    Over,
}

/// What to forward in place of a chunk.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "the caller of the provider waits for these bytes"]
pub enum Forward {
    /// The chunk as it came.
    Unchanged,
    /// These bytes; possibly none.
    Replace(Vec<u8>),
}

/// Why an answer could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum MeterError {
    /// The body is compressed, although we asked for it as it is.
    #[error("expected an uncompressed body, found a content-encoding")]
    Compressed,
    /// The body is not what its media type says.
    #[error("expected what the content-type says, found something else")]
    Malformed,
    /// The media type is none that the API answers with.
    #[error("expected JSON or an event stream, found another content-type")]
    UnknownContentType,
}

/// What the meter must know before the first byte.
#[derive(Clone, Copy, Debug)]
pub struct MeterSetup<'a> {
    /// What was called, and so what the answer looks like and costs.
    pub form: Form,
    /// The response's status.
    pub status: u16,
    /// The response's `content-type`; empty where there is none.
    pub content_type: &'a [u8],
    /// The response's `content-encoding`; empty where there is none.
    pub content_encoding: &'a [u8],
    /// Whether the caller gets to see the usage event.
    pub usage_event: UsageEvent,
    /// What the response's headers report.
    pub headers: HeaderCounts,
    /// What earlier answers of this model taught about estimates.
    pub calibration: Calibration,
    /// How many tokens the request is about, for when the provider does not say.
    pub input_estimate: Tokens,
}

/// Tokens that stand in response headers: Bedrock's `x-amzn-bedrock-*-token-count`. They count where
/// the body says nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeaderCounts {
    input: Option<Tokens>,
    output: Option<Tokens>,
    cache_read: Option<Tokens>,
    cache_write: Option<Tokens>,
}

impl HeaderCounts {
    /// What these headers report; names in lower case.
    #[must_use]
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut counts = Self::default();
        for (name, value) in headers {
            let slot = match name {
                b"x-amzn-bedrock-input-token-count" => &mut counts.input,
                b"x-amzn-bedrock-output-token-count" => &mut counts.output,
                b"x-amzn-bedrock-cache-read-input-token-count" => &mut counts.cache_read,
                b"x-amzn-bedrock-cache-write-input-token-count" => &mut counts.cache_write,
                _ => continue,
            };
            *slot = tally::parse(value);
        }
        counts
    }

    /// Fills in what the body left out.
    fn complete(&self, counts: &mut Counts) {
        let other = &mut counts.other;
        if counts.input.or(other.input).is_none() {
            (other.input, other.cache_read, other.cache_write) =
                (self.input, self.cache_read, self.cache_write);
        }
        if counts.output.or(other.output).is_none() {
            other.output = self.output;
        }
    }
}

/// What one exchange used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Metered {
    /// What to charge: what the provider reported, with estimates where it did not.
    pub usage: Usage,
    /// What the provider reported, and nothing else.
    pub reported: Usage,
    /// How much of `usage` is the provider's word.
    pub completeness: Completeness,
    /// What the model wrote, by estimate and before correction: beside `reported`, it teaches a
    /// `Calibration`.
    pub output_estimate: Tokens,
    /// Why the model stopped, each reason once; at most eight, of at most 128 bytes.
    pub finish_reasons: Vec<String>,
    /// The model that answered, as the provider names it; at most 128 bytes.
    pub model: Option<String>,
    /// The provider's id of the answer; at most 128 bytes.
    pub response_id: Option<String>,
    /// Why the answer could not be read, where it could not.
    pub error: Option<MeterError>,
}

impl Metered {
    /// An exchange of which no answer was read, charged with `usage`.
    #[must_use]
    pub fn unread(usage: Usage) -> Self {
        Self {
            usage,
            reported: Usage::default(),
            completeness: Completeness::Estimated,
            output_estimate: Tokens::ZERO,
            finish_reasons: Vec::new(),
            model: None,
            response_id: None,
            error: None,
        }
    }
}

/// How the body is cut into documents.
enum Frames {
    Aws(Box<EventStream>),
    /// One document, or an array of them.
    Json(Box<Scanner>),
    /// One document after the other.
    Lines(Box<Scanner>),
    /// Nothing to read: an error answer, a free endpoint, a body in a form we don't know.
    Opaque,
    Sse(Box<Sse>),
}

/// The meter of one answer.
pub struct Meter {
    frames: Frames,
    sieve: Option<Sieve>,
    tally: Tally,
    form: Form,
    headers: HeaderCounts,
    calibration: Calibration,
    input_estimate: Tokens,
    body_bytes: u64,
    error: Option<MeterError>,
}

impl Meter {
    /// A meter for the answer that `setup` describes.
    #[must_use]
    pub fn new(setup: &MeterSetup<'_>) -> Self {
        let refused = !(200..300).contains(&setup.status);
        let charge = if refused {
            Charge::Free
        } else {
            setup.form.charge
        };
        let (frames, error) = match charge {
            Charge::Free | Charge::Unknown => (Frames::Opaque, None),
            Charge::Both | Charge::Input => form::frames_of(setup),
        };
        let sieve = match (&frames, setup.usage_event) {
            (Frames::Sse(_), UsageEvent::Remove) => Some(Sieve::default()),
            _ => None,
        };
        Self {
            frames,
            sieve,
            tally: Tally {
                failed: refused,
                ..Tally::default()
            },
            form: Form {
                charge,
                ..setup.form
            },
            headers: setup.headers,
            calibration: setup.calibration,
            input_estimate: setup.input_estimate,
            body_bytes: 0,
            error,
        }
    }

    /// Takes the next bytes of the body; says what to forward in their place. An event that may have
    /// to be taken out is held back, at most to the end of the body: the last call says `Over`, with
    /// no bytes if need be.
    pub fn push(&mut self, chunk: &[u8], more: More) -> Forward {
        self.body_bytes = self.body_bytes.saturating_add(chunk.len() as u64);
        match &mut self.frames {
            Frames::Aws(frames) => frames.push(chunk, &mut self.tally),
            Frames::Json(scanner) | Frames::Lines(scanner) => scanner.push(chunk, &mut self.tally),
            Frames::Opaque => {}
            Frames::Sse(sse) => sse.push(chunk, &mut self.tally, &mut self.sieve),
        }
        match &mut self.sieve {
            None => Forward::Unchanged,
            Some(sieve) => sieve.end_chunk(chunk, self.tally.event, more),
        }
    }

    /// How much the model has written so far: what is reported or what is estimated, whichever is
    /// larger.
    #[must_use]
    pub fn output_so_far(&self) -> Tokens {
        match self.form.charge {
            Charge::Both => self
                .reported()
                .output
                .unwrap_or_default()
                .max(self.output_estimate()),
            Charge::Free | Charge::Input | Charge::Unknown => Tokens::ZERO,
        }
    }

    /// Bytes of memory that this meter takes.
    #[must_use]
    pub fn kept(&self) -> usize {
        let frames = match &self.frames {
            Frames::Aws(frames) => frames.kept(),
            Frames::Json(scanner) | Frames::Lines(scanner) => scanner.kept(),
            Frames::Opaque => 0,
            Frames::Sse(sse) => sse.kept(),
        };
        let sieve = self.sieve.as_ref().map_or(0, Sieve::kept);
        [size_of::<Self>(), frames, sieve, self.tally.kept()]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Adds up what the answer used.
    #[must_use]
    pub fn finish(mut self, end: End) -> Metered {
        self.close();
        let reported = self.reported();
        let ended = self.tally.finished
            || (end == End::Complete && self.form.dialect.reports() == Reports::Once);
        let whole = ended && self.covers(&reported);
        let completeness = if self.tally.failed {
            Completeness::Failed
        } else if self.form.charge == Charge::Unknown {
            Completeness::Unmetered
        } else if whole || self.form.charge == Charge::Free {
            Completeness::Complete
        } else if reported == Usage::default() {
            Completeness::Estimated
        } else {
            Completeness::Partial
        };
        Metered {
            usage: self.charged(reported, whole),
            reported,
            completeness,
            output_estimate: self.tally.text.tokens(),
            finish_reasons: self.tally.finish_reasons,
            model: self.tally.model,
            response_id: self.tally.response_id,
            error: self.error,
        }
    }

    fn close(&mut self) {
        let broken = match &self.frames {
            Frames::Aws(frames) => frames.is_broken(),
            Frames::Json(scanner) | Frames::Lines(scanner) => scanner.is_broken(),
            Frames::Opaque | Frames::Sse(_) => false,
        };
        if broken {
            self.error = Some(MeterError::Malformed);
        }
        if let Frames::Json(scanner) = &self.frames {
            self.tally.finished |= scanner.has_closed();
        }
    }

    fn reported(&self) -> Usage {
        let mut counts = self.tally.counts;
        self.headers.complete(&mut counts);
        self.form.dialect.fold(&counts)
    }

    /// Whether `reported` holds all that this endpoint is charged by.
    fn covers(&self, reported: &Usage) -> bool {
        match self.form.charge {
            // Who reports what was read and writes nothing need not say so.
            Charge::Both => {
                reported.output.or(reported.total).is_some()
                    || (reported.input.is_some() && self.tally.text.tokens() == Tokens::ZERO)
            }
            Charge::Free | Charge::Unknown => true,
            Charge::Input => reported.input.is_some() || reported.total.is_some(),
        }
    }

    fn charged(&self, reported: Usage, whole: bool) -> Usage {
        let input = reported.input.unwrap_or(self.input_estimate);
        match self.form.charge {
            Charge::Free | Charge::Unknown => Usage::default(),
            Charge::Input => {
                let input = reported
                    .input
                    .or(reported.total)
                    .unwrap_or(self.input_estimate);
                Usage {
                    input: Some(input),
                    ..reported
                }
            }
            Charge::Both if whole => {
                let rest = reported.total.unwrap_or_default().minus(input);
                let output = reported.output.unwrap_or(rest);
                Usage {
                    input: Some(input),
                    output: Some(output),
                    ..reported
                }
            }
            Charge::Both => {
                let output = reported
                    .output
                    .unwrap_or_default()
                    .max(self.output_estimate());
                Usage {
                    input: Some(input),
                    output: Some(output),
                    total: None,
                    ..reported
                }
            }
        }
    }

    /// What can't be read as text is estimated by its size.
    fn output_estimate(&self) -> Tokens {
        let text = self.calibration.correct(self.tally.text.tokens());
        match self.error {
            None => text,
            Some(_) => text.max(Tokens(self.body_bytes / BYTES_PER_TOKEN)),
        }
    }
}

/// About how many bytes of a body that can't be read come with one token.
const BYTES_PER_TOKEN: u64 = 4;
