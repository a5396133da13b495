//! What the meter must know of an answer before its first byte.

use super::{Calibration, Form, grammar::Counts, tally};
use crate::units::Tokens;

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
    pub(super) fn complete(&self, counts: &mut Counts) {
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

/// What happens to the usage event at the end of an OpenAI chat stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UsageEvent {
    /// The caller asked for it.
    Keep,
    /// Only we asked for it: it is taken out again.
    Remove,
}
