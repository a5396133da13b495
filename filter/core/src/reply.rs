//! Our answers: takes a refusal, gives it in the provider's own error shape.
//!
//! A caller's SDK chooses its exception by the status and reads the text from the shape:
//! `AuthenticationError` for 401, `PermissionDeniedError` for 403, `RateLimitError` for 429, ...

use std::time::Duration;

use serde_json::json;

use crate::{api::Api, refusal::Refusal, units::millis};

/// A whole answer.
#[derive(Debug, Eq, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// Waiting longer than this is nothing that an SDK should do by itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// The answer for a refusal, in the shape of `api`, or in OpenAI's where no provider is known.
#[must_use]
pub fn reply(refusal: Refusal, api: Option<Api>, request_id: &str) -> Reply {
    let status = refusal.status();
    let body = match api {
        Some(Api::Anthropic) => json!({
            "type": "error",
            "error": { "type": anthropic_type(status), "message": refusal.message() },
            "request_id": request_id,
        }),
        Some(Api::OpenAi) | None => json!({
            "error": {
                "message": refusal.message(),
                "type": openai_type(refusal),
                "param": null,
                "code": refusal.reason(),
            },
        }),
    };
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("almoner-reason", refusal.reason().to_owned()),
    ];
    if !request_id.is_empty() {
        headers.push(("x-request-id", request_id.to_owned()));
    }
    let wait = refusal.retry_after();
    if let Some(wait) = wait {
        headers.push(("retry-after", seconds(wait).to_string()));
    }
    if status == 429 && wait.is_none_or(|wait| wait > PATIENCE) {
        headers.push(("x-should-retry", "false".to_owned()));
    }
    Reply {
        status,
        headers,
        body: body.to_string().into_bytes(),
    }
}

/// Whole seconds, rounded up (RFC 9110, section 10.2.3 has no smaller unit).
const fn seconds(span: Duration) -> u64 {
    let whole = millis(span).div_ceil(1000);
    if whole == 0 { 1 } else { whole }
}

/// The `type` of OpenAI's error object.
const fn openai_type(refusal: Refusal) -> &'static str {
    match (refusal.status(), refusal.retry_after()) {
        (429, Some(_)) => "rate_limit_exceeded",
        (429, None) => "insufficient_quota",
        (403, _) => "insufficient_permissions",
        (400..=499, _) => "invalid_request_error",
        _ => "server_error",
    }
}

/// The `type` of Anthropic's error object, by status.
const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{denial::Denial, lease::BrokerFailure};

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply
            .headers
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value.as_str())
    }

    fn spent(secs: Option<u64>) -> Refusal {
        Denial::BudgetSpent {
            retry_after: secs.map(Duration::from_secs),
        }
        .into()
    }

    #[test]
    fn speaks_the_shape_of_the_provider() {
        let anthropic = reply(Denial::NoIdentity.into(), Some(Api::Anthropic), "r-1");
        let body: serde_json::Value = serde_json::from_slice(&anthropic.body).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "authentication_error");
        assert_eq!(body["request_id"], "r-1");
        assert_eq!(anthropic.status, 401);
        let openai = reply(BrokerFailure::Unavailable.into(), Some(Api::OpenAi), "");
        let body: serde_json::Value = serde_json::from_slice(&openai.body).unwrap();
        assert_eq!(body["error"]["code"], "broker_unavailable");
        assert_eq!(body["error"]["type"], "server_error");
        assert_eq!(header(&openai, "retry-after"), Some("2"));
        assert_eq!(
            header(&openai, "almoner-reason"),
            Some("broker_unavailable")
        );
    }

    #[test]
    fn says_when_to_come_back_and_when_not_to() {
        for (wait, retry_after, should_retry) in [
            (Some(3), Some("3"), None),
            (Some(3600), Some("3600"), Some("false")),
            (None, None, Some("false")),
        ] {
            let reply = reply(spent(wait), Some(Api::OpenAi), "");
            assert_eq!(reply.status, 429);
            assert_eq!(header(&reply, "retry-after"), retry_after);
            assert_eq!(header(&reply, "x-should-retry"), should_retry);
        }
    }
}
