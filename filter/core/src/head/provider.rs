//! Whom a request is for: takes authority and path, gives the one provider that claims them.

use std::sync::Arc;

use super::Target;
use crate::{api::Api, config::Provider, denial::Denial};

/// The provider that matches, and the path after its prefix.
///
/// # Errors
/// [`Denial::UnknownProvider`] where none does; [`Denial::AmbiguousProvider`] where one does by its
/// path and another by its authority: the route that Envoy took is a decision of its own, and two
/// readings of one request are how a credential reaches the wrong provider.
pub fn find<'c, 'r>(
    providers: &'c [Arc<Provider>],
    authority: &str,
    target: Target<'r>,
) -> Result<(&'c Arc<Provider>, &'r str), Denial> {
    let host = host(authority);
    let mut claims = providers.iter().filter_map(|provider| {
        let named = provider
            .authority
            .as_deref()
            .is_none_or(|own| own.eq_ignore_ascii_case(host));
        let rest = target.remainder(&provider.path_prefix)?;
        named.then_some((provider, rest))
    });
    match (claims.next(), claims.next()) {
        (Some(claim), None) => Ok(claim),
        (None, _) => Err(Denial::UnknownProvider),
        (Some(_), Some(_)) => Err(Denial::AmbiguousProvider),
    }
}

/// The API that a request is probably for, by its path as sent: for the shape of a refusal where
/// the head can't be read, and for nothing else.
#[must_use]
pub fn likely_api(providers: &[Arc<Provider>], path: &[u8]) -> Option<Api> {
    let prefixes = |provider: &&Arc<Provider>| {
        !provider.path_prefix.is_empty() && path.starts_with(provider.path_prefix.as_bytes())
    };
    Some(providers.iter().find(prefixes)?.api)
}

/// The host of an authority: without its port, and without the dot that ends an absolute name.
fn host(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}
