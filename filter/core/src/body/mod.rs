//! The JSON body of a request: its bytes in, the facts that decide about it out.

use std::borrow::Cow;

use crate::{
    api::{Endpoint, State},
    denial::Denial,
    units::Tokens,
};

/// What a JSON body says that a policy, a budget or the credential depends on.
#[derive(Debug)]
pub struct BodyFacts<'a> {
    /// Every model that any field names, the `model` field's first; may repeat.
    pub models: Vec<Cow<'a, str>>,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// The bound on the output that the request itself sets, per choice.
    pub max_output_tokens: Option<Tokens>,
    /// How many outputs are asked for (`n`, `best_of`, several prompts): at least 1.
    pub choices: u64,
    /// The kinds of the tools that the provider runs (`web_search_20250305`, `mcp`, ...).
    pub tools: Vec<Cow<'a, str>>,
    /// Beta flags in the body.
    pub betas: Vec<Cow<'a, str>>,
    /// The service tier asked for.
    pub service_tier: Option<Cow<'a, str>>,
    /// The speed asked for.
    pub speed: Option<Cow<'a, str>>,
    /// What of the provider's stored things is used, the first that was found.
    pub state: Option<State>,
    /// Whether the answer is to be made in the background and fetched later.
    pub background: bool,
    /// Whether the caller asked for usage in the stream: if not, the usage event is not theirs.
    pub usage_asked: bool,
    /// How many bytes of text the model has to read, at most: JSON escapes included, embedded
    /// images and files not.
    pub input_text_bytes: u64,
    /// How many images, files and recordings are embedded or pointed at.
    pub attachments: u64,
    /// Whom the caller says that it acts for (`user`, `safety_identifier`, `metadata.user_id`).
    pub end_user: Option<Cow<'a, str>>,
}

/// Reads the JSON body of a request to `endpoint`.
///
/// # Errors
/// A body that two parsers could read differently, or with a secret in it.
pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<BodyFacts<'_>, Denial> {
    let _ = (endpoint, body);
    Err(Denial::BodyNotJson)
}
