//! Takes what was called; gives how its answer is written, and what it costs.

use super::{
    anthropic, bedrock, cohere, gemini,
    grammar::{Counts, Node},
    ollama, openai,
};
use crate::{
    api::{Api, Endpoint},
    usage::Usage,
};

/// What an answer looks like, and what it costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Form {
    pub(super) dialect: Dialect,
    pub(super) charge: Charge,
}

/// The grammar that an answer is written in. An API may speak several: Vertex answers for Claude as
/// Anthropic does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Anthropic's messages.
    Anthropic,
    /// Bedrock's Converse and ConverseStream.
    BedrockConverse,
    /// Bedrock's InvokeModel: each model family has its own grammar.
    BedrockInvoke,
    /// Cohere's chat, embed, rerank and generate.
    Cohere,
    /// Gemini, on its own API and on Vertex.
    Gemini,
    /// Ollama's own API.
    Ollama,
    /// OpenAI, Azure, and all that speak as they do.
    OpenAi,
}

/// What an endpoint costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charge {
    /// What was read and written.
    Both,
    /// Nothing: it counts, lists, or failed.
    Free,
    /// What was read; nothing is written.
    Input,
    /// What no answer says.
    Unknown,
}

impl Form {
    /// The form of an answer in `dialect` that costs `charge`.
    #[must_use]
    pub const fn new(dialect: Dialect, charge: Charge) -> Self {
        Self { dialect, charge }
    }

    /// The form in which `endpoint` of `api` answers.
    #[must_use]
    pub const fn of(api: Api, endpoint: Endpoint) -> Self {
        let dialect = match api {
            Api::Anthropic => Dialect::Anthropic,
            Api::OpenAi => Dialect::OpenAi,
        };
        Self {
            dialect,
            charge: charge(endpoint),
        }
    }
}

const fn charge(endpoint: Endpoint) -> Charge {
    match endpoint {
        Endpoint::AudioTranscriptions
        | Endpoint::AudioTranslations
        | Endpoint::Chat
        | Endpoint::Complete
        | Endpoint::Completions
        | Endpoint::ImagesEdits
        | Endpoint::ImagesGenerations
        | Endpoint::ImagesVariations
        | Endpoint::Messages
        | Endpoint::Responses
        | Endpoint::ResponsesCompact => Charge::Both,
        Endpoint::Embeddings | Endpoint::Moderations => Charge::Input,
        Endpoint::CountTokens | Endpoint::Models => Charge::Free,
        Endpoint::Assistants
        | Endpoint::AudioSpeech
        | Endpoint::Batches
        | Endpoint::Containers
        | Endpoint::Conversations
        | Endpoint::Files
        | Endpoint::FineTuning
        | Endpoint::VectorStores => Charge::Unknown,
    }
}

/// When a stream reports usage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reports {
    /// From the beginning, larger as it goes.
    AsItGoes,
    /// At the end.
    Once,
}

impl Dialect {
    pub(super) fn fold(self, counts: &Counts) -> Usage {
        match self {
            Self::Anthropic => anthropic::fold(counts),
            Self::BedrockConverse => bedrock::fold_converse(counts),
            Self::BedrockInvoke => bedrock::fold_invoke(counts),
            Self::Cohere => cohere::fold(counts),
            Self::Gemini => gemini::fold(counts),
            Self::Ollama => ollama::fold(counts),
            Self::OpenAi => openai::fold(counts),
        }
    }

    pub(super) const fn reports(self) -> Reports {
        match self {
            Self::Anthropic | Self::BedrockInvoke | Self::Gemini => Reports::AsItGoes,
            Self::BedrockConverse | Self::Cohere | Self::Ollama | Self::OpenAi => Reports::Once,
        }
    }

    pub(super) fn root(self) -> &'static Node {
        match self {
            Self::Anthropic => &anthropic::ANSWER,
            Self::BedrockConverse => &bedrock::CONVERSE,
            Self::BedrockInvoke => &bedrock::INVOKE,
            Self::Cohere => &cohere::ANSWER,
            Self::Gemini => &gemini::ANSWER,
            Self::Ollama => &ollama::ANSWER,
            Self::OpenAi => &openai::ANSWER,
        }
    }

    /// The root of one event of a stream.
    pub(super) fn event_root(self) -> &'static Node {
        match self {
            Self::OpenAi => &openai::EVENT,
            _ => self.root(),
        }
    }

    /// The root of one frame's payload.
    pub(super) fn frame_root(self) -> &'static Node {
        match self {
            Self::BedrockInvoke => &bedrock::INVOKE_FRAME,
            _ => self.root(),
        }
    }
}
