//! What OpenAI's answers mean, and those of whoever speaks its grammar.
//!
//! One table for all endpoints: chat, completions, responses, embeddings, audio and images differ in
//! where usage stands, never in what a place means.

use super::grammar::{Count, Counts, Label, Mark, Node, TEXT, object};
use crate::{units::Tokens, usage::Usage};

/// Chat says prompt and completion, responses and images say input and output.
const USAGE: Node = Node::Object(
    Mark::Report,
    &[
        ("prompt_tokens", Node::Count(Count::Input)),
        ("completion_tokens", Node::Count(Count::Output)),
        ("total_tokens", Node::Count(Count::Total)),
        ("prompt_tokens_details", INPUT_DETAILS),
        ("completion_tokens_details", OUTPUT_DETAILS),
        ("input_tokens", Node::Count(Count::Input)),
        ("output_tokens", Node::Count(Count::Output)),
        ("input_tokens_details", INPUT_DETAILS),
        ("output_tokens_details", OUTPUT_DETAILS),
        // Together and Hugging Face; DeepSeek.
        ("cached_tokens", Node::Count(Count::CacheRead)),
        ("prompt_cache_hit_tokens", Node::Count(Count::CacheRead)),
        // Some Azure models.
        ("reasoning_tokens", Node::Count(Count::Reasoning)),
        // Mistral.
        ("prompt_audio_seconds", Node::Count(Count::Audio)),
    ],
);
const INPUT_DETAILS: Node = object(&[
    ("cached_tokens", Node::Count(Count::CacheRead)),
    ("cache_write_tokens", Node::Count(Count::CacheWrite)),
]);
const OUTPUT_DETAILS: Node = object(&[("reasoning_tokens", Node::Count(Count::Reasoning))]);

/// Mistral and the responses API split text into typed parts.
const PARTS: Node = Node::Text(&[
    ("text", TEXT),
    ("thinking", Node::Text(&[("text", TEXT)])),
    ("refusal", TEXT),
]);
const MESSAGE: Node = object(&[
    ("content", PARTS),
    ("refusal", TEXT),
    ("reasoning", TEXT),
    ("reasoning_content", TEXT),
    (
        "tool_calls",
        object(&[
            ("function", FUNCTION),
            ("custom", object(&[("input", TEXT)])),
        ]),
    ),
    ("function_call", FUNCTION),
]);
const FUNCTION: Node = object(&[("name", TEXT), ("arguments", TEXT)]);

/// A JSON answer, or one event of a stream.
pub(super) static ANSWER: Node = object(&[
    (
        "choices",
        Node::Object(
            Mark::Choice,
            &[
                ("delta", MESSAGE),
                ("message", MESSAGE),
                ("text", TEXT),
                ("finish_reason", Node::Label(Label::Finish)),
                ("error", Node::Error),
            ],
        ),
    ),
    ("delta", TEXT),
    ("usage", USAGE),
    ("model", Node::Label(Label::Model)),
    ("id", Node::Label(Label::ResponseId)),
    ("type", Node::Label(Label::Type)),
    ("error", Node::Error),
    (
        "response",
        object(&[
            ("usage", USAGE),
            ("model", Node::Label(Label::Model)),
            ("id", Node::Label(Label::ResponseId)),
            ("status", Node::Label(Label::Status)),
            ("error", Node::Error),
            ("incomplete_details", INCOMPLETE),
        ]),
    ),
    ("status", Node::Label(Label::Status)),
    ("incomplete_details", INCOMPLETE),
    (
        "output",
        object(&[
            ("content", PARTS),
            ("summary", PARTS),
            ("name", TEXT),
            ("arguments", TEXT),
            ("input", TEXT),
        ]),
    ),
    // Groq.
    (
        "x_groq",
        object(&[("usage", USAGE), ("error", Node::Error)]),
    ),
]);
const INCOMPLETE: Node = object(&[("reason", Node::Label(Label::Finish))]);

/// What the numbers mean: input contains the cached part. Output contains reasoning as a rule;
/// where the total is larger than both, the provider left reasoning out of it (xAI; Gemini's
/// OpenAI surface), or audio out of the input (Mistral).
pub(super) fn fold(counts: &Counts) -> Usage {
    let mut usage = Usage {
        input: counts.input,
        output: counts.output,
        total: counts.total,
        cached_input: counts.cache_read,
        cache_write: counts.cache_write,
        reasoning: counts.reasoning,
        ..Usage::default()
    };
    let (Some(total), Some(input)) = (counts.total, counts.input) else {
        return usage;
    };
    let left_out = total.minus(input).minus(counts.output.unwrap_or_default());
    if left_out > Tokens::ZERO {
        if counts.audio > Some(Tokens::ZERO) {
            usage.input = Some(input.plus(left_out));
        } else {
            usage.output = Some(total.minus(input));
        }
    }
    usage
}
