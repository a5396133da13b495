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

/// What becomes of a request header on its way to the provider. Names are lower-case, as Envoy has
/// them; anything else is on no list.
///
/// What the lists leave out, and why:
/// - Credentials, cookies, `openai-organization`, `openai-project`, `anthropic-workspace-id`,
///   `anthropic-user-profile-id`: they say whose account pays, and only the lease says that.
/// - `idempotency-key`: a provider keeps answers by it, per account, and the account is shared, so
///   a guessed key would be answered with another subject's text.
/// - `x-stainless-*`, `traceparent`, `baggage`, `x-client-request-id`: no call needs them, and they
///   tell the provider about the inside. `pass_headers` can let them through.
/// - `x-request-id`: where Envoy trusts its caller it is the caller's text. Read it before the list
///   is applied; Envoy's own `%STREAM_ID%` stays in the access log.
/// - Hop-by-hop and forwarding headers: Envoy writes its own (RFC 9110, section 7.6).
#[must_use]
pub fn request_header(api: Api, pass: &PassHeaders, name: &[u8]) -> Fate {
    match name {
        // How the request is framed and routed. The filter itself has read `:path` already.
        b":authority" | b":method" | b":path" | b":scheme" | b"content-length" => Fate::Keep,
        // What the body is, and what the caller can read.
        b"accept" | b"content-type" => Fate::Keep,
        // A compressed answer could not be metered without unpacking it.
        b"accept-encoding" => Fate::Set("identity"),
        // Providers refuse or throttle callers without one.
        b"user-agent" => Fate::Keep,
        _ if is_of_api(api, name) || pass.holds(name) => Fate::Keep,
        _ => Fate::Drop,
    }
}

/// The request headers that belong to one API. The flags in the beta headers go up only where the
/// policy names every one of them: see [`super::Head::betas`].
fn is_of_api(api: Api, name: &[u8]) -> bool {
    match api {
        Api::Anthropic => matches!(name, b"anthropic-beta" | b"anthropic-version"),
        Api::OpenAi => matches!(name, b"openai-beta"),
    }
}

/// What becomes of a response header on its way to the caller, whatever the status. Cookies, the
/// account's names (`openai-organization`, `openai-project`, `anthropic-organization-id`) and the
/// provider's machinery (`server`, `cf-*`, `x-ms-*`, `alt-svc`, `via`, ...) are on no list.
#[must_use]
pub fn response_header(api: Api, name: &[u8]) -> Fate {
    let listed = match name {
        b":status" | b"cache-control" | b"content-length" | b"content-type" | b"date" => true,
        // Should be `identity`; where the provider compressed all the same, the caller must know.
        b"content-encoding" => true,
        // What the SDKs' retry logic reads.
        b"retry-after" | b"retry-after-ms" | b"x-should-retry" => true,
        // What a caller tells the provider's support.
        b"request-id" | b"x-request-id" => true,
        _ => match api {
            Api::Anthropic => name.starts_with(b"anthropic-ratelimit-"),
            Api::OpenAi => {
                name.starts_with(b"x-ratelimit-")
                    || matches!(name, b"openai-processing-ms" | b"openai-version")
            }
        },
    };
    if listed { Fate::Keep } else { Fate::Drop }
}

/// Header names that the configuration lets through beside the API's own list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PassHeaders(Vec<String>);

/// Why `pass_headers` can't hold a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PassHeaderError {
    /// It is no header name in lower case.
    #[error("expected a header name in lower case")]
    NotAName,
    /// It may carry a secret, names an account or a caller, or frames and routes the message.
    #[error("expected a header that is no credential, cookie, account, routing or framing header")]
    Reserved,
}

impl PassHeaders {
    /// Adds a name.
    ///
    /// # Errors
    /// See [`PassHeaderError`].
    pub fn insert(&mut self, name: &str) -> Result<(), PassHeaderError> {
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(PassHeaderError::NotAName);
        }
        if is_reserved(name) {
            return Err(PassHeaderError::Reserved);
        }
        self.0.push(name.to_owned());
        Ok(())
    }

    fn holds(&self, name: &[u8]) -> bool {
        self.0.iter().any(|listed| listed.as_bytes() == name)
    }
}

/// Names that no configuration can let through. This is no strip list (nothing passes that is not
/// listed): it catches an operator's mistake when the configuration loads.
fn is_reserved(name: &str) -> bool {
    const PARTS: [&str; 10] = [
        "auth",
        "cookie",
        "credential",
        "forwarded",
        "key",
        "passw",
        "secret",
        "session",
        "signature",
        "token",
    ];
    const PREFIXES: [&str; 8] = [
        "cf-", "proxy-", "sec-", "x-amz-", "x-envoy-", "x-geo-", "x-goog-", "x-ms-",
    ];
    const NAMES: [&str; 19] = [
        // Whose account, which customer, which caller.
        "anthropic-user-profile-id",
        "anthropic-workspace-id",
        "from",
        "openai-organization",
        "openai-project",
        "referer",
        "x-real-ip",
        // How the message is framed and routed.
        "connection",
        "content-encoding",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "max-forwards",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PARTS.iter().any(|part| name.contains(part))
}
