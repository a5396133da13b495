//! The closed path grammar: an API, a method and a path in, the endpoint that they mean out.

use crate::{
    api::{Api, Endpoint, State},
    denial::Denial,
};

/// What a method and path mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route<'a> {
    /// The endpoint, as a policy names it.
    pub endpoint: Endpoint,
    /// What of the provider's stored things the path itself reaches.
    pub state: Option<State>,
    /// The model that the path names.
    pub model: Option<&'a str>,
    /// The body that belongs to it.
    pub body: Body,
}

/// The body that belongs to an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// One JSON object, read by [`crate::body::read`].
    Json,
    /// None.
    None,
    /// Bytes that are not read here (multipart): no fact is known of them, so a grant for them
    /// must allow every model.
    Opaque,
}

/// Finds what `method` and `path` mean. `path` is what stays after the provider's prefix, without
/// query: `/v1/chat/completions`.
///
/// # Errors
/// [`Denial::PathNotNormal`] for an endpoint in other letter case, [`Denial::ForbiddenEndpoint`]
/// for one that nobody may use, [`Denial::UnknownEndpoint`] for all that the grammar has not.
pub fn resolve<'a>(api: Api, method: &str, path: &'a str) -> Result<Route<'a>, Denial> {
    let _ = (api, method, path);
    Err(Denial::UnknownEndpoint)
}
