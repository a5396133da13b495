//! What Cohere's answers mean, of version 1 and 2.

use super::grammar::{Count, Counts, Label, Mark, Node, TEXT, object};
use crate::{units::Tokens, usage::Usage};

/// `tokens` is what the models read and wrote; `billed_units` leaves Cohere's own preamble out, and
/// is all that embeddings and the old generate endpoint report.
const USAGE: Node = Node::Object(
    Mark::Report,
    &[
        (
            "tokens",
            object(&[
                ("input_tokens", Node::Count(Count::Input)),
                ("output_tokens", Node::Count(Count::Output)),
            ]),
        ),
        (
            "billed_units",
            object(&[
                ("input_tokens", Node::Count(Count::OtherInput)),
                ("output_tokens", Node::Count(Count::OtherOutput)),
            ]),
        ),
        ("cached_tokens", Node::Count(Count::CacheRead)),
    ],
);
/// What a call costs beside its name and arguments.
const CALL: Node = Node::Call(Tokens(12));
const MESSAGE: Node = object(&[
    ("content", Node::Text(&[("text", TEXT), ("thinking", TEXT)])),
    ("tool_plan", TEXT),
    (
        "tool_calls",
        object(&[("function", object(&[("name", CALL), ("arguments", TEXT)]))]),
    ),
]);

/// A JSON answer, a line of a stream (version 1) or an event of one (version 2).
pub(super) static ANSWER: Node = object(&[
    // Version 2.
    ("message", MESSAGE),
    (
        "delta",
        object(&[
            ("message", MESSAGE),
            ("finish_reason", Node::Label(Label::Finish)),
            ("usage", USAGE),
            ("error", Node::Error),
        ]),
    ),
    ("usage", USAGE),
    ("id", Node::Label(Label::ResponseId)),
    // Version 1. The end of a stream repeats the text inside `response`.
    ("text", TEXT),
    (
        "tool_calls",
        object(&[("name", CALL), ("parameters", Node::Words)]),
    ),
    (
        "generations",
        object(&[
            ("text", TEXT),
            ("finish_reason", Node::Label(Label::Finish)),
        ]),
    ),
    ("finish_reason", Node::Label(Label::Finish)),
    ("meta", USAGE),
    (
        "response",
        object(&[
            ("meta", USAGE),
            ("response_id", Node::Label(Label::ResponseId)),
        ]),
    ),
    ("response_id", Node::Label(Label::ResponseId)),
]);

/// What the numbers mean: input contains the cached part.
pub(super) fn fold(counts: &Counts) -> Usage {
    Usage {
        input: counts.input.or(counts.other.input),
        output: counts.output.or(counts.other.output),
        cached_input: counts.cache_read,
        ..Usage::default()
    }
}
