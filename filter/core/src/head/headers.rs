//! The allow lists of headers: an API and a header's name in, what becomes of it out.

use crate::api::Api;

/// What becomes of a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is removed.
    Drop,
    /// It goes on as it is.
    Keep,
    /// It goes on with this value.
    Set(&'static str),
}

/// Header names that the configuration lets through beside the API's own list.
#[derive(Clone, Debug, Default)]
pub struct PassHeaders(Vec<String>);

/// A name that `pass_headers` can't hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PassHeaderError {
    /// It may carry a secret, or says who is calling or how the message is framed.
    #[error("expected a header that is no credential, cookie, routing or framing header")]
    Never,
    /// It is no header name in lower case.
    #[error("expected a header name in lower case")]
    NotAName,
}

impl PassHeaders {
    /// Adds a name.
    ///
    /// # Errors
    /// See [`PassHeaderError`].
    pub fn insert(&mut self, name: &str) -> Result<(), PassHeaderError> {
        self.0.push(name.to_owned());
        Err(PassHeaderError::Never)
    }
}

/// What becomes of a request header on its way to the provider.
#[must_use]
pub fn request_header(api: Api, pass: &PassHeaders, name: &[u8]) -> Fate {
    let _ = (api, pass, name);
    Fate::Drop
}

/// What becomes of a response header on its way to the caller.
#[must_use]
pub fn response_header(api: Api, name: &[u8]) -> Fate {
    let _ = (api, name);
    Fate::Drop
}
