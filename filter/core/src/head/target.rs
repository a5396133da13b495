//! The request target: the bytes of `:path` in, path and query in their one normal spelling out.

use crate::denial::Denial;

/// A request target in origin form (RFC 9112, section 3.2.1), spelled in its one normal way.
///
/// The path needs no decoding and no resolving: every hop that reads these bytes reads the same
/// segments, whether it normalises or not. So it is refused, never repaired, where it has an empty
/// or dot segment, a percent-encoding, a `;`, a `\`, or any byte but `A-Z a-z 0-9 - . _ ~ : @ /`.
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
        let value = str::from_utf8(value).map_err(|_| Denial::PathNotNormal)?;
        let (path, query) = match value.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (value, None),
        };
        let segments = path.strip_prefix('/').ok_or(Denial::PathNotNormal)?;
        if !segments.is_empty() && !segments.split('/').all(is_plain_segment) {
            return Err(Denial::PathNotNormal);
        }
        // A fragment never travels (RFC 9110, section 4.2.5): a `#` here was put in by hand.
        if query.is_some_and(|query| query.bytes().any(|b| !b.is_ascii_graphic() || b == b'#')) {
            return Err(Denial::PathNotNormal);
        }
        Ok(Self { path, query })
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
        let rest = self.path.strip_prefix(prefix.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// Whether a segment of a path reads the same to everyone: `[A-Za-z0-9._~:@-]+`, not dots alone.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@');
    segment.bytes().all(plain) && segment.bytes().any(|b| b != b'.')
}
