//! What Ollama's answers mean, in its own grammar: JSON, or a line for each piece.

use super::grammar::{Count, Counts, Label, Node, TEXT, object};
use crate::usage::Usage;

/// A JSON answer, or a line of a stream; the counts stand in the last one.
pub(super) static ANSWER: Node = object(&[
    ("model", Node::Label(Label::Model)),
    (
        "message",
        object(&[
            ("content", TEXT),
            ("thinking", TEXT),
            (
                "tool_calls",
                object(&[(
                    "function",
                    object(&[("name", TEXT), ("arguments", Node::Words)]),
                )]),
            ),
        ]),
    ),
    ("response", TEXT),
    ("thinking", TEXT),
    ("done_reason", Node::Label(Label::Finish)),
    ("prompt_eval_count", Node::Count(Count::Input)),
    ("eval_count", Node::Count(Count::Output)),
    ("error", Node::Error),
]);

/// What the numbers mean: input is all that was in the context.
pub(super) fn fold(counts: &Counts) -> Usage {
    Usage {
        input: counts.input,
        output: counts.output,
        ..Usage::default()
    }
}
