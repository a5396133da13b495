//! The head of a request: header pairs as Envoy gives them in, the parts that decide out.

pub mod endpoint;
pub mod headers;
pub mod query;
mod target;

pub use target::Target;

use crate::denial::Denial;

/// The parts of a request's head that decide, borrowed from the header pairs.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method: a token of upper-case letters, not `CONNECT`.
    pub method: &'a str,
    /// The path and query, in their one normal spelling.
    pub target: Target<'a>,
    /// The authority, as sent; empty where there is none.
    pub authority: &'a str,
    /// Beta flags of `anthropic-beta` and `openai-beta`, in order, each once per occurrence.
    pub betas: Vec<&'a str>,
    content_type: Option<&'a [u8]>,
    content_length: Option<u64>,
}

impl<'a> Head<'a> {
    /// Reads the pairs once. Names are lower-case, as Envoy has them; a repeated header is
    /// repeated pairs.
    ///
    /// # Errors
    /// A method, path or framing that can be read in more than one way; an upgrade; a
    /// `content-encoding`.
    pub fn read<I>(pairs: I) -> Result<Self, Denial>
    where
        I: IntoIterator<Item = (&'a [u8], &'a [u8])>,
    {
        let _ = pairs.into_iter();
        Err(Denial::MethodUnsupported)
    }

    /// Checks that the body will be what `body` says, as far as the head can tell.
    ///
    /// # Errors
    /// A media type other than JSON in UTF-8 where JSON is expected; a body where none is.
    pub fn expect(&self, body: endpoint::Body) -> Result<(), Denial> {
        let _ = (body, self.content_type, self.content_length);
        Err(Denial::ContentTypeUnsupported)
    }
}
