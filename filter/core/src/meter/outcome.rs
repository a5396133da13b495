//! How an answer ended, and what it used.

use serde::Serialize;

use crate::{units::Tokens, usage::Usage};

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
