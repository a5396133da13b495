//! The request target: the bytes of `:path` in, path and query in their normal spelling out.

use crate::denial::Denial;

/// A request target in origin form (RFC 9112, section 3.2.1), spelled in its one normal way: the
/// bytes that are checked are the bytes that every hop reads alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target<'a> {
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Parses the value of `:path`.
    ///
    /// # Errors
    /// [`Denial::PathNotNormal`] for anything that two parsers could read differently.
    pub fn parse(value: &'a [u8]) -> Result<Self, Denial> {
        let _ = value;
        Err(Denial::PathNotNormal)
    }

    /// The path, without the query.
    #[must_use]
    pub const fn path(self) -> &'a str {
        self.path
    }

    /// The query, without its `?`; `None` where there is no `?`.
    #[must_use]
    pub const fn query(self) -> Option<&'a str> {
        self.query
    }

    /// The path after `prefix`, where the path starts with it at a segment boundary. A `/` at the
    /// prefix's end does not count.
    #[must_use]
    pub fn remainder(self, prefix: &str) -> Option<&'a str> {
        let _ = prefix;
        None
    }
}
