//! What Gemini's answers mean, on its own API and on Vertex.

use super::grammar::{Count, Counts, Label, Mark, Node, TEXT, object};
use crate::{units::Tokens, usage::Usage};

/// In every event, of all until then, and not always larger than the one before: the last stands.
const USAGE: Node = Node::Object(
    Mark::Report,
    &[
        ("promptTokenCount", Node::Count(Count::Input)),
        ("toolUsePromptTokenCount", Node::Count(Count::ToolInput)),
        ("cachedContentTokenCount", Node::Count(Count::CacheRead)),
        ("candidatesTokenCount", Node::Count(Count::Output)),
        ("thoughtsTokenCount", Node::Count(Count::Reasoning)),
        ("totalTokenCount", Node::Count(Count::Total)),
        // The interactions API.
        ("total_input_tokens", Node::Count(Count::Input)),
        ("total_tool_use_tokens", Node::Count(Count::ToolInput)),
        ("total_cached_tokens", Node::Count(Count::CacheRead)),
        ("total_output_tokens", Node::Count(Count::Output)),
        ("total_thought_tokens", Node::Count(Count::Reasoning)),
        ("total_tokens", Node::Count(Count::Total)),
    ],
);

/// A JSON answer, an element of a streamed array, or one event of a stream.
pub(super) static ANSWER: Node = object(&[
    (
        "candidates",
        object(&[
            (
                "content",
                object(&[(
                    "parts",
                    object(&[
                        ("text", TEXT),
                        ("functionCall", CALL),
                        ("executableCode", object(&[("code", TEXT)])),
                    ]),
                )]),
            ),
            ("finishReason", Node::Label(Label::Finish)),
        ]),
    ),
    ("usageMetadata", USAGE),
    (
        "promptFeedback",
        object(&[("blockReason", Node::Label(Label::Finish))]),
    ),
    ("modelVersion", Node::Label(Label::Model)),
    ("responseId", Node::Label(Label::ResponseId)),
    ("error", Node::Error),
    // The interactions API.
    ("usage", USAGE),
    ("status", Node::Label(Label::Status)),
    ("model", Node::Label(Label::Model)),
    ("id", Node::Label(Label::ResponseId)),
    ("steps", STEP),
    ("step", STEP),
    (
        "delta",
        object(&[("text", TEXT), ("arguments", Node::Words)]),
    ),
    (
        "interaction",
        object(&[
            ("usage", USAGE),
            ("status", Node::Label(Label::Status)),
            ("model", Node::Label(Label::Model)),
            ("id", Node::Label(Label::ResponseId)),
        ]),
    ),
    // Vertex's `:predict`, of embedding models.
    (
        "predictions",
        object(&[(
            "embeddings",
            object(&[(
                "statistics",
                object(&[("token_count", Node::Sum(Count::Input))]),
            )]),
        )]),
    ),
]);
const STEP: Node = object(&[
    ("content", Node::Text(&[("text", TEXT)])),
    ("name", TEXT),
    ("arguments", Node::Words),
]);

const CALL: Node = object(&[
    ("name", TEXT),
    ("args", Node::Words),
    ("partialArgs", object(&[("stringValue", TEXT)])),
]);

/// What the numbers mean: what tools gave the model is input beside the input, reasoning is output
/// beside the output. Zero is left out.
pub(super) fn fold(counts: &Counts) -> Usage {
    Usage {
        input: sum(counts.input, counts.tool_input),
        output: sum(counts.output, counts.reasoning),
        total: counts.total,
        cached_input: counts.cache_read,
        reasoning: counts.reasoning,
        ..Usage::default()
    }
}

fn sum(one: Option<Tokens>, other: Option<Tokens>) -> Option<Tokens> {
    [one, other].into_iter().flatten().reduce(Tokens::plus)
}
