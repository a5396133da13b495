//! The wire grammars that providers speak, and the endpoints that a policy can name.

use serde::{Deserialize, Serialize};

/// A provider's wire grammar.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's REST API, and whatever speaks it.
    OpenAi,
}

impl Api {
    /// As OpenTelemetry's `gen_ai.provider.name` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
        }
    }
}

/// What a method and path of an API mean. The name is what a policy's `endpoints` list says.
///
/// An endpoint that mints provider credentials or administers the provider's account is not
/// among them, so no policy can name it and no grant can hold it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// OpenAI assistants, threads and runs.
    Assistants,
    /// OpenAI speech synthesis.
    AudioSpeech,
    /// OpenAI transcription.
    AudioTranscriptions,
    /// OpenAI translation of speech.
    AudioTranslations,
    /// Batches of either API: their usage stands in a file that is fetched later.
    Batches,
    /// OpenAI chat completions.
    Chat,
    /// Anthropic's text completion of old, which reports no usage.
    Complete,
    /// OpenAI text completions.
    Completions,
    /// OpenAI containers of the code interpreter.
    Containers,
    /// OpenAI conversations.
    Conversations,
    /// Token counting of either API: answers a number, costs nothing.
    CountTokens,
    /// OpenAI embeddings.
    Embeddings,
    /// Files and uploads of either API.
    Files,
    /// OpenAI fine-tuning.
    FineTuning,
    /// OpenAI image edits.
    ImagesEdits,
    /// OpenAI image generation.
    ImagesGenerations,
    /// OpenAI image variations.
    ImagesVariations,
    /// Anthropic messages.
    Messages,
    /// The list of models, or one of them: costs nothing.
    Models,
    /// OpenAI moderations.
    Moderations,
    /// OpenAI responses.
    Responses,
    /// OpenAI's compaction of a response.
    ResponsesCompact,
    /// OpenAI vector stores.
    VectorStores,
}

/// Whether what an endpoint costs can be counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// It costs nothing; a grant is needed, a reservation is not.
    Free,
    /// Its answer reports the tokens, and a meter reads them.
    Metered,
    /// It costs, or may cost, what no meter reads: refused unless a policy names it.
    Unmetered,
}

impl Endpoint {
    /// Whether a call of this endpoint must name a model. At the others the provider knows it
    /// (stored objects), has one of its own, or needs none.
    #[must_use]
    pub const fn needs_model(self) -> bool {
        match self {
            Self::AudioSpeech
            | Self::AudioTranscriptions
            | Self::AudioTranslations
            | Self::Chat
            | Self::Complete
            | Self::Completions
            | Self::CountTokens
            | Self::Embeddings
            | Self::ImagesEdits
            | Self::ImagesGenerations
            | Self::ImagesVariations
            | Self::Messages
            | Self::Moderations
            | Self::Responses
            | Self::ResponsesCompact => true,
            Self::Assistants
            | Self::Batches
            | Self::Containers
            | Self::Conversations
            | Self::Files
            | Self::FineTuning
            | Self::Models
            | Self::VectorStores => false,
        }
    }

    /// As a policy, records and metrics say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::AudioSpeech => "audio_speech",
            Self::AudioTranscriptions => "audio_transcriptions",
            Self::AudioTranslations => "audio_translations",
            Self::Batches => "batches",
            Self::Chat => "chat",
            Self::Complete => "complete",
            Self::Completions => "completions",
            Self::Containers => "containers",
            Self::Conversations => "conversations",
            Self::CountTokens => "count_tokens",
            Self::Embeddings => "embeddings",
            Self::Files => "files",
            Self::FineTuning => "fine_tuning",
            Self::ImagesEdits => "images_edits",
            Self::ImagesGenerations => "images_generations",
            Self::ImagesVariations => "images_variations",
            Self::Messages => "messages",
            Self::Models => "models",
            Self::Moderations => "moderations",
            Self::Responses => "responses",
            Self::ResponsesCompact => "responses_compact",
            Self::VectorStores => "vector_stores",
        }
    }

    /// Whether an API has this endpoint.
    #[must_use]
    pub const fn is_of(self, api: Api) -> bool {
        match self {
            Self::Batches | Self::CountTokens | Self::Files | Self::Models => true,
            Self::Complete | Self::Messages => {
                matches!(api, Api::Anthropic)
            }
            Self::Assistants
            | Self::AudioSpeech
            | Self::AudioTranscriptions
            | Self::AudioTranslations
            | Self::Chat
            | Self::Completions
            | Self::Containers
            | Self::Conversations
            | Self::Embeddings
            | Self::FineTuning
            | Self::ImagesEdits
            | Self::ImagesGenerations
            | Self::ImagesVariations
            | Self::Moderations
            | Self::Responses
            | Self::ResponsesCompact
            | Self::VectorStores => {
                matches!(api, Api::OpenAi)
            }
        }
    }

    /// Whether what this endpoint costs can be counted.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Embeddings
            | Self::Messages
            | Self::Responses => Class::Metered,
            Self::CountTokens | Self::Models => Class::Free,
            Self::Assistants
            | Self::AudioSpeech
            | Self::AudioTranscriptions
            | Self::AudioTranslations
            | Self::Batches
            | Self::Complete
            | Self::Containers
            | Self::Conversations
            | Self::Files
            | Self::FineTuning
            | Self::ImagesEdits
            | Self::ImagesGenerations
            | Self::ImagesVariations
            | Self::Moderations
            | Self::ResponsesCompact
            | Self::VectorStores => Class::Unmetered,
        }
    }
}

/// Something that the provider keeps for its account. On one account it is another subject's as
/// much as this one's, so a policy must say who shares it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// An assistant, a thread or a run.
    Assistant,
    /// Audio that an earlier answer left.
    Audio,
    /// A batch and its results.
    Batch,
    /// Input that was cached under a name.
    CachedContent,
    /// A container, with the files in it.
    Container,
    /// A conversation.
    Conversation,
    /// A file or an upload.
    File,
    /// A fine-tuned model or a fine-tuning job.
    FineTunedModel,
    /// An earlier response, or an item of one.
    PreviousResponse,
    /// A skill.
    Skill,
    /// The request itself asks to be kept (`store: true`).
    Store,
    /// A chat completion that was kept.
    StoredChat,
    /// A prompt that was kept.
    StoredPrompt,
    /// A vector store.
    VectorStore,
}
