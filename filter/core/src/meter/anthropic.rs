//! What Anthropic's answers mean: first-party, on Vertex, and inside Bedrock.

use super::grammar::{Count, Counts, Label, Mark, Members, Node, TEXT, object};
use crate::{units::Tokens, usage::Usage};

/// `message_start` gives the input, `message_delta` overrides what it repeats: members merge.
const USAGE: Node = Node::Object(
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
        (
            "iterations",
            object(&[
                ("type", Node::Label(Label::PassType)),
                ("input_tokens", Node::Sum(Count::PassInput)),
                ("output_tokens", Node::Sum(Count::PassOutput)),
                ("cache_read_input_tokens", Node::Sum(Count::PassCacheRead)),
                (
                    "cache_creation_input_tokens",
                    Node::Sum(Count::PassCacheWrite),
                ),
            ]),
        ),
    ],
);
/// What a call costs beside its name and arguments.
pub(super) const CALL: Node = Node::Call(Tokens(38));
const BLOCK: Members = &[
    ("text", TEXT),
    ("thinking", TEXT),
    ("name", CALL),
    ("input", Node::Words),
    ("partial_json", TEXT),
];

/// A JSON answer, or one event of a stream.
pub(super) static ANSWER: Node = object(&[
    ("type", Node::Label(Label::Type)),
    (
        "delta",
        object(&[
            ("text", TEXT),
            ("thinking", TEXT),
            ("partial_json", TEXT),
            ("stop_reason", Node::Label(Label::Finish)),
        ]),
    ),
    ("usage", USAGE),
    (
        "message",
        object(&[
            ("usage", USAGE),
            ("model", Node::Label(Label::Model)),
            ("id", Node::Label(Label::ResponseId)),
        ]),
    ),
    ("content_block", object(BLOCK)),
    ("content", object(BLOCK)),
    ("stop_reason", Node::Label(Label::Finish)),
    ("model", Node::Label(Label::Model)),
    ("id", Node::Label(Label::ResponseId)),
    ("error", Node::Error),
    // The legacy text completions.
    ("completion", TEXT),
]);

/// What the numbers mean: cached input stands beside the input. Passes other than plain messages
/// (compaction, advisor) are billed but left out of the numbers beside them: then the passes count.
pub(super) fn fold(counts: &Counts) -> Usage {
    let passes = counts.passes;
    let (input, cache_read, cache_write, output) = if passes.beside {
        (
            passes.input,
            passes.cache_read,
            passes.cache_write,
            passes.output,
        )
    } else {
        (
            counts.input,
            counts.cache_read,
            counts.cache_write,
            counts.output,
        )
    };
    Usage {
        input: sum([input, cache_read, cache_write]),
        output,
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
