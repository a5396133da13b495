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
mod frames;
mod gemini;
mod grammar;
mod json;
mod ollama;
mod openai;
mod outcome;
mod request;
mod setup;
mod sieve;
mod sse;
mod tally;
mod token;

#[cfg(test)]
mod tests;

pub use self::{
    calibration::Calibration,
    estimate::estimate,
    form::{Charge, Dialect, Form},
    outcome::{Completeness, End, MeterError, Metered},
    request::{estimate_request, upper_bound},
    setup::{HeaderCounts, MeterSetup, UsageEvent},
};
use self::{form::Reports, frames::Frames, tally::Tally};
use crate::{units::Tokens, usage::Usage};

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

/// The meter of one answer.
pub struct Meter {
    frames: Frames,
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
            Charge::Both | Charge::Input => Frames::of(setup),
        };
        Self {
            frames,
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
        self.frames.push(chunk, more, &mut self.tally)
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
        [size_of::<Self>(), self.frames.kept(), self.tally.kept()]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Adds up what the answer used.
    #[must_use]
    pub fn finish(mut self, end: End) -> Metered {
        let (closed, error) = self.frames.end();
        self.tally.finished |= closed;
        self.error = self.error.or(error);
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
