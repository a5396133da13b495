//! The wire grammars that providers speak, and the endpoints that each of them has.

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

/// What a method and path of an API mean. The name is what a policy's `endpoints` list says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// OpenAI chat completions.
    Chat,
    /// Anthropic's token counting: answers a number, costs nothing.
    CountTokens,
    /// OpenAI embeddings.
    Embeddings,
    /// Anthropic messages.
    Messages,
    /// The list of models, or one of them: costs nothing.
    Models,
    /// OpenAI responses.
    Responses,
}
