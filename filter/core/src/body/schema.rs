//! What the fields of a body mean: an object's level and a key in, the rule for its value out.
//!
//! One schema serves every endpoint of both APIs: providers take over each other's fields, and a
//! field that an endpoint does not have is ignored by it, so reading it too strictly does no harm.

use crate::api::State;

/// Where an object stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    /// A container of a server-side tool, or the environment of one.
    Container,
    /// What the model reads: messages, items, parts of their content.
    Content,
    /// Azure's "on your data" sources, at any depth.
    DataSource,
    /// A further model to ask.
    Fallback,
    /// Metadata of the request.
    Metadata,
    /// Something of which only the models that it names matter.
    Named,
    /// What a container may reach.
    Network,
    /// Something of which only references to earlier answers matter.
    Reference,
    /// A remote MCP server.
    Server,
    /// Embedded or linked media.
    Source,
    /// Options of the stream.
    StreamOptions,
    /// A tool.
    Tool,
    /// The body itself.
    Top,
}

/// What a field's value means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    /// `true`: the answer is made in the background.
    Background,
    /// Beta flags.
    Betas,
    /// Bytes of media, or where they are.
    Blob,
    /// A number of outputs.
    Choices(&'static str),
    /// Text, objects or arrays, to be read at this level.
    Enter(Level),
    /// Whom the caller acts for.
    EndUser(&'static str),
    /// The object's identifier.
    Id,
    /// Whether usage is asked for in the stream.
    IncludeUsage,
    /// The object's type.
    Kind,
    /// A bound on the output.
    Limit(&'static str),
    /// The model that is to answer.
    MainModel,
    /// A further model.
    Model,
    /// What makes an item more than a reference to itself.
    Payload,
    /// One prompt or several, or a stored one.
    Prompt,
    /// A secret.
    Secret(&'static str),
    /// A speed.
    Speed,
    /// What the provider keeps.
    State(State),
    /// Whether the provider keeps the answer.
    Store,
    /// Whether the answer is a stream.
    Stream,
    /// Options of the stream.
    StreamOptions,
    /// A service tier.
    Tier,
    /// A server-side tool that has a field of its own.
    Tool(&'static str),
}

/// The name in a denial of the bound that a fallback sets for itself.
pub(super) const FALLBACK_LIMIT: &str = "fallbacks.max_tokens";

/// The rule for a field; `None` where the field decides nothing.
pub(super) fn rule(level: Level, key: &str) -> Option<Rule> {
    match level {
        Level::Container => container(key).or_else(|| secret(key)),
        Level::Content => content(key),
        Level::DataSource => secret(key).or(Some(Rule::Enter(Level::DataSource))),
        Level::Fallback => fallback(key),
        Level::Metadata => (key == "user_id").then_some(Rule::EndUser("metadata.user_id")),
        Level::Named => (key == "model").then_some(Rule::Model),
        Level::Network | Level::Server => secret(key),
        Level::Reference => reference(key),
        Level::Source => source(key),
        Level::StreamOptions => (key == "include_usage").then_some(Rule::IncludeUsage),
        Level::Tool => tool(key).or_else(|| secret(key)),
        Level::Top => top(key).or_else(|| secret(key)),
    }
}

fn top(key: &str) -> Option<Rule> {
    Some(match key {
        "model" => Rule::MainModel,
        "fallback_models" | "fallbacks" | "models" => Rule::Enter(Level::Fallback),
        "moderation" => Rule::Enter(Level::Named),

        "max_completion_tokens" => Rule::Limit("max_completion_tokens"),
        "max_output_tokens" => Rule::Limit("max_output_tokens"),
        "max_tokens" => Rule::Limit("max_tokens"),
        "max_tokens_to_sample" => Rule::Limit("max_tokens_to_sample"),
        "best_of" => Rule::Choices("best_of"),
        "n" => Rule::Choices("n"),
        "service_tier" => Rule::Tier,
        "speed" => Rule::Speed,
        "anthropic_beta" | "betas" => Rule::Betas,

        "stream" => Rule::Stream,
        "stream_options" => Rule::StreamOptions,
        "background" => Rule::Background,

        "store" => Rule::Store,
        "assistant_id" => Rule::State(State::Assistant),
        "cached_content" => Rule::State(State::CachedContent),
        "container" => Rule::Enter(Level::Container),
        "conversation" | "thread" | "thread_id" => Rule::State(State::Conversation),
        "file_ids" => Rule::State(State::File),
        "fallback_credit_token" | "previous_response_id" => Rule::State(State::PreviousResponse),
        "diagnostics" | "prompt_cache_options" => Rule::Enter(Level::Reference),

        "messages" | "input" | "instructions" | "prediction" | "system" => {
            Rule::Enter(Level::Content)
        }
        "prompt" => Rule::Prompt,

        "tools" => Rule::Enter(Level::Tool),
        "data_sources" => Rule::Enter(Level::DataSource),
        "mcp_servers" => Rule::Enter(Level::Server),
        "plugins" => Rule::Tool("plugins"),
        "search_parameters" => Rule::Tool("live_search"),
        "web_search_options" => Rule::Tool("web_search"),

        "metadata" => Rule::Enter(Level::Metadata),
        "safety_identifier" => Rule::EndUser("safety_identifier"),
        "user" => Rule::EndUser("user"),
        _ => return None,
    })
}

fn content(key: &str) -> Option<Rule> {
    Some(match key {
        "type" => Rule::Kind,
        "id" => Rule::Id,
        "encrypted_content" | "result" | "role" => Rule::Payload,
        "content" | "output" => Rule::Enter(Level::Content),
        "audio" => Rule::State(State::Audio),
        "container_id" => Rule::State(State::Container),
        "file_id" | "file_ids" => Rule::State(State::File),
        "environment" => Rule::Enter(Level::Container),
        "audio_url" | "file" | "file_data" | "file_url" | "image" | "image_url" | "input_audio"
        | "source" | "video_url" => Rule::Enter(Level::Source),
        // Tools that join in the middle of a conversation.
        "definition" | "tool" | "tools" => Rule::Enter(Level::Tool),
        _ => return None,
    })
}

fn source(key: &str) -> Option<Rule> {
    Some(match key {
        "type" => Rule::Kind,
        "content" => Rule::Enter(Level::Content),
        "data" | "file_data" | "url" => Rule::Blob,
        "file_id" => Rule::State(State::File),
        _ => return None,
    })
}

fn tool(key: &str) -> Option<Rule> {
    Some(match key {
        "type" => Rule::Kind,
        "model" => Rule::Model,
        "svg" => Rule::Enter(Level::Named),
        "container" | "environment" => Rule::Enter(Level::Container),
        "file_ids" => Rule::State(State::File),
        "input_image_mask" => Rule::Enter(Level::Source),
        "network_policy" => Rule::Enter(Level::Network),
        "skills" => Rule::State(State::Skill),
        "vector_store_ids" => Rule::State(State::VectorStore),
        "definition" | "tools" => Rule::Enter(Level::Tool),
        _ => return None,
    })
}

fn container(key: &str) -> Option<Rule> {
    Some(match key {
        "container_id" | "id" => Rule::State(State::Container),
        "file_ids" => Rule::State(State::File),
        "network_policy" => Rule::Enter(Level::Network),
        "skills" => Rule::State(State::Skill),
        _ => return None,
    })
}

fn fallback(key: &str) -> Option<Rule> {
    Some(match key {
        "max_tokens" => Rule::Limit(FALLBACK_LIMIT),
        "model" => Rule::Model,
        "speed" => Rule::Speed,
        _ => return None,
    })
}

fn reference(key: &str) -> Option<Rule> {
    Some(match key {
        "comparison_response_id" | "previous_message_id" => Rule::State(State::PreviousResponse),
        _ => return None,
    })
}

/// The fields in which APIs, or the gateways that speak them, take a secret.
fn secret(key: &str) -> Option<Rule> {
    const FIELDS: [&str; 21] = [
        "access_token",
        "api_key",
        "apikey",
        "auth_token",
        "authentication",
        "authorization",
        "authorization_token",
        "aws_secret_access_key",
        "aws_session_token",
        "bearer_token",
        "client_secret",
        "connection_string",
        "credentials",
        "domain_secrets",
        "encoded_api_key",
        "extra_headers",
        "headers",
        "password",
        "secret",
        "token",
        "vertex_credentials",
    ];
    FIELDS
        .iter()
        .find(|field| **field == key)
        .map(|field| Rule::Secret(field))
}

/// Whether a tool of this kind is run by the caller, so that the provider only writes the call. A
/// kind that is not known here counts as run by the provider.
pub(super) fn is_run_by_caller(kind: &str) -> bool {
    let dated = |name: &str| {
        kind.strip_prefix(name)
            .is_some_and(|date| date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()))
    };
    match kind {
        "function" | "custom" | "namespace" => true,
        "apply_patch" | "computer" | "computer_use_preview" | "local_shell" => true,
        // Mentions of tools that are defined, and checked, elsewhere in the same body.
        "mcp_tool_reference" | "mcp_toolset_reference" | "tool_definition" | "tool_reference" => {
            true
        }
        _ => [
            "bash_",
            "browser_toolset_",
            "computer_",
            "computer_toolset_",
            "memory_",
            "text_editor_",
        ]
        .into_iter()
        .any(dated),
    }
}
