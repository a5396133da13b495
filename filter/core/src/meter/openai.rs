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
    ("audio", object(&[("transcript", TEXT)])),
    (
        "tool_calls",
        object(&[
            ("function", FUNCTION),
            ("custom", object(&[("name", CALL), ("input", TEXT)])),
        ]),
    ),
    ("function_call", FUNCTION),
]);
/// What a call costs beside its name and arguments.
const CALL: Node = Node::Call(Tokens(8));
const FUNCTION: Node = object(&[("name", CALL), ("arguments", TEXT)]);

/// A JSON answer.
pub(super) static ANSWER: Node = object(&[
    (
        "choices",
        object(&[
            ("message", MESSAGE),
            ("text", TEXT),
            ("finish_reason", FINISH),
            ("error", Node::Error),
        ]),
    ),
    (
        "output",
        object(&[
            ("content", PARTS),
            ("summary", PARTS),
            ("name", CALL),
            ("arguments", TEXT),
            ("input", TEXT),
        ]),
    ),
    ("usage", USAGE),
    ("model", MODEL),
    ("id", ID),
    ("status", STATUS),
    ("incomplete_details", INCOMPLETE),
    ("error", Node::Error),
]);

/// One event of a stream. What repeats text that came before is left out: Perplexity's `message`
/// beside each `delta`, the whole `response` at the end.
pub(super) static EVENT: Node = object(&[
    (
        "choices",
        Node::Object(
            Mark::Choice,
            &[
                ("delta", MESSAGE),
                ("text", TEXT),
                ("finish_reason", FINISH),
                ("error", Node::Error),
            ],
        ),
    ),
    ("delta", TEXT),
    ("usage", USAGE),
    ("model", MODEL),
    ("id", ID),
    ("type", Node::Label(Label::Type)),
    ("error", Node::Error),
    (
        "response",
        object(&[
            ("usage", USAGE),
            ("model", MODEL),
            ("id", ID),
            ("status", STATUS),
            ("error", Node::Error),
            ("incomplete_details", INCOMPLETE),
        ]),
    ),
    // Twice, when a call begins and when it ends.
    ("item", object(&[("name", Node::Call(Tokens(4)))])),
    // Groq.
    (
        "x_groq",
        object(&[("usage", USAGE), ("error", Node::Error)]),
    ),
]);
const FINISH: Node = Node::Label(Label::Finish);
const ID: Node = Node::Label(Label::ResponseId);
const INCOMPLETE: Node = object(&[("reason", FINISH)]);
const MODEL: Node = Node::Label(Label::Model);
const STATUS: Node = Node::Label(Label::Status);

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
