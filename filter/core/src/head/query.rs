//! The allow lists of query parameters: a request target in, the target that goes up out.

use std::borrow::Cow;

use super::Target;
use crate::api::Api;

/// The value of `:path` that goes up instead of `target`; `None` where nothing has to change.
///
/// A parameter that is not on the API's list is removed, not refused: a caller's stray key must
/// neither go up nor break the call.
#[must_use]
pub fn rewrite(api: Api, target: Target<'_>) -> Option<String> {
    let query = target.query()?;
    match allowed(api, query) {
        Cow::Borrowed(same) if same.len() == query.len() => None,
        kept if kept.is_empty() => Some(target.path().to_owned()),
        kept => Some([target.path(), "?", &kept].concat()),
    }
}

/// The part of `query` that may go up; borrowed where nothing has to be removed.
#[must_use]
pub fn allowed(api: Api, query: &str) -> Cow<'_, str> {
    // Some servers split at `;` too, and some callers put a `?` before each parameter. Here neither
    // stays: what follows is a parameter.
    let others = [';', '?'];
    let pairs = || query.split(['&', ';', '?']);
    let may_pass = |pair: &&str| may_pass(api, pair);
    if !query.contains(others) && pairs().all(|pair| may_pass(&pair)) {
        return Cow::Borrowed(query);
    }
    let mut kept = String::new();
    for pair in pairs().filter(may_pass) {
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(pair);
    }
    Cow::Owned(kept)
}

fn may_pass(api: Api, pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    decode(name).is_some_and(|name| is_listed(api, &name))
}

/// The parameters that an API documents, and nothing that names an account, a credential or a
/// caller.
fn is_listed(api: Api, name: &[u8]) -> bool {
    match api {
        Api::Anthropic => matches!(
            name,
            // The SDK's beta namespace says it on every call; the flags themselves are headers.
            b"beta"
            // Pages of models, batches and files.
            | b"after_id" | b"before_id" | b"limit"
        ),
        Api::OpenAi => matches!(
            name,
            b"beta"
            // Pages of stored objects.
            | b"after" | b"before" | b"filter" | b"limit" | b"order" | b"purpose" | b"run_id"
            // How a stored response is read again.
            | b"include" | b"include[]" | b"include_obfuscation" | b"starting_after" | b"stream"
        ),
    }
}

/// A parameter's name as the provider will read it; `None` where the percent-encoding is broken.
fn decode(name: &str) -> Option<Cow<'_, [u8]>> {
    if !name.contains(['%', '+']) {
        return Some(Cow::Borrowed(name.as_bytes()));
    }
    let mut bytes = name.bytes();
    let mut decoded = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                // `from_str_radix` takes a sign, which is no percent-encoding.
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    Some(Cow::Owned(decoded))
}
