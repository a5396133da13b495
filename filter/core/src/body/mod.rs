//! The JSON body of a request: its bytes in, the facts that decide about it out.
//!
//! What is read is read strictly: whatever two JSON parsers could read differently (RFC 8259,
//! sections 4, 6 and 8) is refused, so that the provider sees the model and the limits that the
//! policy saw. What is not read passes as it came.

mod depth;
mod keys;
mod schema;
mod value;
mod walk;

use std::{borrow::Cow, ops::Range};

use crate::{
    api::{Endpoint, State},
    denial::Denial,
    units::Tokens,
};

/// What a JSON body says that a policy, a budget or the credential depends on.
#[derive(Debug)]
pub struct BodyFacts<'a> {
    /// Every model that any field names, the `model` field's first.
    pub models: Vec<Cow<'a, str>>,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// The bound on the output that the request itself sets, per choice: the largest, where it
    /// sets several.
    pub max_output_tokens: Option<Tokens>,
    /// How many outputs are asked for (`n`, `best_of`, several prompts): at least 1.
    pub choices: u64,
    /// The kinds of the tools that the provider runs (`web_search_20250305`, `mcp`, ...).
    pub tools: Vec<Cow<'a, str>>,
    /// Beta flags in the body.
    pub betas: Vec<Cow<'a, str>>,
    /// The service tier asked for.
    pub service_tier: Option<Cow<'a, str>>,
    /// The speeds asked for: the request's and its fallbacks'.
    pub speeds: Vec<Cow<'a, str>>,
    /// What of the provider's stored things is used, the first that was found.
    pub state: Option<State>,
    /// Whether the answer is to be made in the background and fetched later.
    pub background: bool,
    /// Whether the caller asked for usage in the stream: if not, the usage event is not theirs.
    pub usage_asked: bool,
    /// How many bytes of text the model has to read, at most: JSON around it included, embedded
    /// images and files not.
    pub input_text_bytes: u64,
    /// How many images, files and recordings are embedded or pointed at.
    pub attachments: u64,
    /// Whom the caller says that it acts for (`safety_identifier`, `user`, `metadata.user_id`).
    pub end_user: Option<Cow<'a, str>>,

    pub(crate) text: &'a str,
    pub(crate) endpoint: Endpoint,
    pub(crate) places: Places,
}

/// Where in the body the fields stand that an edit may have to change.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The top-level object.
    pub(crate) top: Object,
    /// The `null` of the field that [`limit_fields`] names first.
    pub(crate) null_limit: Option<Range<usize>>,
    /// Whether any field bounds the output of the request itself.
    pub(crate) is_limited: bool,
    /// The value of `store`: a boolean or `null`.
    pub(crate) store: Option<Range<usize>>,
    /// The value of `stream_options`.
    pub(crate) stream_options: StreamOptions,
}

/// Where in the body an object begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Object {
    /// The offset behind its `{`.
    pub(crate) start: usize,
    /// Whether it has no field.
    pub(crate) is_empty: bool,
}

impl Object {
    /// The object whose `{` stands at `brace`.
    fn new(text: &str, brace: usize) -> Self {
        let start = brace.saturating_add(1);
        let rest = text.get(start..).unwrap_or_default();
        Self {
            start,
            is_empty: rest.trim_ascii_start().starts_with('}'),
        }
    }
}

/// What stands as `stream_options`.
#[derive(Clone, Debug, Default)]
pub(crate) enum StreamOptions {
    /// Nothing.
    #[default]
    Absent,
    /// `null`, there.
    Null(Range<usize>),
    /// An object without `include_usage`.
    Without(Object),
    /// An object with `include_usage`, whose value is there.
    With(Range<usize>),
}

/// The fields that bound an endpoint's output. The first is the one to set where none is there.
pub(crate) const fn limit_fields(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Chat => &["max_completion_tokens", "max_tokens"],
        Endpoint::Complete => &["max_tokens_to_sample"],
        Endpoint::Completions | Endpoint::Messages => &["max_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Assistants
        | Endpoint::AudioSpeech
        | Endpoint::AudioTranscriptions
        | Endpoint::AudioTranslations
        | Endpoint::Batches
        | Endpoint::Containers
        | Endpoint::Conversations
        | Endpoint::CountTokens
        | Endpoint::Embeddings
        | Endpoint::Files
        | Endpoint::FineTuning
        | Endpoint::ImagesEdits
        | Endpoint::ImagesGenerations
        | Endpoint::ImagesVariations
        | Endpoint::Models
        | Endpoint::Moderations
        | Endpoint::ResponsesCompact
        | Endpoint::VectorStores => &[],
    }
}

/// Reads the JSON body of a request to `endpoint`.
///
/// # Errors
/// A body that two parsers could read differently, a field that decides and is not of its
/// documented type, or a secret.
pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<BodyFacts<'_>, Denial> {
    let text = str::from_utf8(body).map_err(|_| Denial::BodyNotUtf8)?;
    if text.starts_with('\u{feff}') {
        return Err(Denial::BodyNotUtf8);
    }
    match text.trim_ascii_start().as_bytes().first() {
        None => return Err(Denial::BodyMissing),
        Some(b'{') => depth::check(text)?,
        Some(_) => return Err(Denial::BodyNotObject),
    }
    walk::walk(endpoint, text)
}

impl<'a> BodyFacts<'a> {
    fn new(endpoint: Endpoint, text: &'a str) -> Self {
        let start = text.find('{').unwrap_or_default();
        Self {
            models: Vec::new(),
            stream: false,
            max_output_tokens: None,
            choices: 1,
            tools: Vec::new(),
            betas: Vec::new(),
            service_tier: None,
            speeds: Vec::new(),
            state: None,
            background: false,
            usage_asked: false,
            input_text_bytes: 0,
            attachments: 0,
            end_user: None,
            text,
            endpoint,
            places: Places {
                top: Object::new(text, start),
                ..Places::default()
            },
        }
    }
}
