//! What Bedrock's answers mean: Converse, and Invoke with whichever model's own grammar.

use super::{
    anthropic,
    grammar::{Count, Counts, Label, Mark, Members, Node, TEXT, object},
};
use crate::{units::Tokens, usage::Usage};

/// Converse writes some counts twice; the names that end in `Count` are passed over.
const CONVERSE_USAGE: Members = &[
    ("inputTokens", Node::Count(Count::Input)),
    ("outputTokens", Node::Count(Count::Output)),
    ("totalTokens", Node::Count(Count::Total)),
    ("cacheReadInputTokens", Node::Count(Count::CacheRead)),
    ("cacheWriteInputTokens", Node::Count(Count::CacheWrite)),
];
const BLOCK: Node = object(&[
    ("text", TEXT),
    (
        "toolUse",
        object(&[("name", Node::Call(Tokens(20))), ("input", Node::Words)]),
    ),
    ("reasoningContent", REASONING),
]);
const REASONING: Node = object(&[("text", TEXT), ("reasoningText", object(&[("text", TEXT)]))]);

/// A Converse answer, or the payload of one frame of ConverseStream.
pub(super) static CONVERSE: Node = object(&[
    ("delta", BLOCK),
    ("start", BLOCK),
    (
        "output",
        object(&[("message", object(&[("content", BLOCK)]))]),
    ),
    ("stopReason", Node::Label(Label::Finish)),
    ("usage", Node::Object(Mark::Report, CONVERSE_USAGE)),
]);

/// What Converse's numbers mean: cached input stands beside the input.
pub(super) fn fold_converse(counts: &Counts) -> Usage {
    Usage {
        input: sum([counts.input, counts.cache_read, counts.cache_write]),
        output: counts.output,
        total: counts.total,
        cached_input: counts.cache_read,
        cache_write: counts.cache_write,
        ..Usage::default()
    }
}

/// The payload of one frame of InvokeModelWithResponseStream.
pub(super) static INVOKE_FRAME: Node = object(&[("bytes", Node::Base64(&INVOKE))]);

/// An Invoke answer, or one chunk of a stream: the grammars of all model families in one, because
/// the model is known by its ARN at best. None of their names means two things.
pub(super) static INVOKE: Node = object(&[
    // Anthropic.
    ("type", Node::Label(Label::Type)),
    (
        "message",
        object(&[
            ("usage", INVOKE_USAGE),
            ("model", Node::Label(Label::Model)),
            ("id", Node::Label(Label::ResponseId)),
        ]),
    ),
    (
        "content_block",
        object(&[("text", TEXT), ("name", anthropic::CALL)]),
    ),
    (
        "content",
        object(&[
            ("text", TEXT),
            ("thinking", TEXT),
            ("name", anthropic::CALL),
            ("input", Node::Words),
        ]),
    ),
    (
        "delta",
        object(&[
            ("text", TEXT),
            ("thinking", TEXT),
            ("partial_json", TEXT),
            ("stop_reason", Node::Label(Label::Finish)),
        ]),
    ),
    ("usage", INVOKE_USAGE),
    ("stop_reason", Node::Label(Label::Finish)),
    ("completion", TEXT),
    ("model", Node::Label(Label::Model)),
    ("id", Node::Label(Label::ResponseId)),
    // Nova.
    ("contentBlockDelta", object(&[("delta", BLOCK)])),
    (
        "messageStop",
        object(&[("stopReason", Node::Label(Label::Finish))]),
    ),
    ("metadata", object(&[("usage", INVOKE_USAGE)])),
    (
        "output",
        object(&[("message", object(&[("content", BLOCK)]))]),
    ),
    ("stopReason", Node::Label(Label::Finish)),
    // Titan.
    ("inputTextTokenCount", Node::Count(Count::Input)),
    ("totalOutputTextTokenCount", Node::Count(Count::Output)),
    ("outputText", TEXT),
    ("completionReason", Node::Label(Label::Finish)),
    (
        "results",
        object(&[
            ("tokenCount", Node::Sum(Count::Output)),
            ("outputText", TEXT),
            ("completionReason", Node::Label(Label::Finish)),
        ]),
    ),
    // Llama.
    ("prompt_token_count", Node::Count(Count::Input)),
    ("generation_token_count", Node::Count(Count::Output)),
    ("generation", TEXT),
    // Cohere, Mistral, AI21, and those that speak OpenAI's grammar.
    ("text", TEXT),
    ("finish_reason", Node::Label(Label::Finish)),
    (
        "generations",
        object(&[
            ("text", TEXT),
            ("finish_reason", Node::Label(Label::Finish)),
        ]),
    ),
    (
        "outputs",
        object(&[("text", TEXT), ("stop_reason", Node::Label(Label::Finish))]),
    ),
    (
        "completions",
        object(&[
            ("data", object(&[("text", TEXT)])),
            (
                "finishReason",
                object(&[("reason", Node::Label(Label::Finish))]),
            ),
        ]),
    ),
    (
        "choices",
        object(&[
            ("delta", object(&[("content", TEXT), ("reasoning", TEXT)])),
            ("message", object(&[("content", TEXT), ("reasoning", TEXT)])),
            ("finish_reason", Node::Label(Label::Finish)),
            ("stop_reason", Node::Label(Label::Finish)),
        ]),
    ),
    // Bedrock, at the end of a stream.
    (
        "amazon-bedrock-invocationMetrics",
        object(&[
            ("inputTokenCount", Node::Count(Count::OtherInput)),
            ("outputTokenCount", Node::Count(Count::OtherOutput)),
            (
                "cacheReadInputTokenCount",
                Node::Count(Count::OtherCacheRead),
            ),
            (
                "cacheWriteInputTokenCount",
                Node::Count(Count::OtherCacheWrite),
            ),
        ]),
    ),
]);
const INVOKE_USAGE: Node = Node::Object(
    Mark::Merge,
    &[
        ("input_tokens", Node::Count(Count::Input)),
        ("output_tokens", Node::Count(Count::Output)),
        ("cache_read_input_tokens", Node::Count(Count::CacheRead)),
        (
            "cache_creation_input_tokens",
            Node::Count(Count::CacheWrite),
        ),
        (
            "cache_creation",
            object(&[(
                "ephemeral_1h_input_tokens",
                Node::Count(Count::CacheWriteHour),
            )]),
        ),
        (
            "output_tokens_details",
            object(&[("thinking_tokens", Node::Count(Count::Reasoning))]),
        ),
        ("inputTokens", Node::Count(Count::Input)),
        ("outputTokens", Node::Count(Count::Output)),
        ("cacheReadInputTokens", Node::Count(Count::CacheRead)),
        ("cacheWriteInputTokens", Node::Count(Count::CacheWrite)),
        ("prompt_tokens", Node::Count(Count::Input)),
        ("completion_tokens", Node::Count(Count::Output)),
    ],
);

/// What Invoke's numbers mean: cached input stands beside the input. What the model's own answer
/// leaves out stands in Bedrock's metrics (of a stream) or headers (of a JSON answer). The two
/// disagree at times; then the model's own answer counts.
pub(super) fn fold_invoke(counts: &Counts) -> Usage {
    let other = counts.other;
    let input = counts.input.or(other.input);
    let cache_read = counts.cache_read.or(other.cache_read);
    let cache_write = counts.cache_write.or(other.cache_write);
    Usage {
        input: input.and_then(|input| sum([Some(input), cache_read, cache_write])),
        output: counts.output.or(other.output),
        total: None,
        cached_input: cache_read,
        cache_write,
        cache_write_hour: counts.cache_write_hour,
        reasoning: counts.reasoning,
    }
}

fn sum(parts: [Option<Tokens>; 3]) -> Option<Tokens> {
    parts.into_iter().flatten().reduce(Tokens::plus)
}
