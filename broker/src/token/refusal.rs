//! Why nothing is issued: takes a reason, gives the error of RFC 6749, section 5.2.

use axum::http::StatusCode;

use super::answer::Answer;
use crate::jwt::TokenError;

/// Why nothing is issued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// As many exchanges as may run at a time.
    Busy,
    /// The provider's credential has expired.
    CredentialExpired,
    /// A parameter stands twice.
    Duplicate,
    /// Another grant type.
    GrantType,
    /// Not a form.
    MediaType,
    /// A parameter is missing: which.
    Missing(&'static str),
    /// The provider has no credential here.
    NoCredential,
    /// No certificate, or none with exactly one SPIFFE ID.
    NoIdentity,
    /// The event could not be written.
    NotAudited,
    /// The Envoy may not speak for the subject.
    NotItsSubject,
    /// The certificate is no listed Envoy's.
    NotListed,
    /// The credential is for another environment than the policy's.
    OtherEnvironment,
    /// The policy says no: why.
    Policy(&'static str),
    /// More exchanges than this Envoy may ask for.
    RateLimited,
    /// A `resource`, by which we can't name a provider.
    Resource,
    /// The subject token is not a SPIFFE ID.
    SpiffeId,
    /// The subject token proves nothing: why.
    Token(TokenError),
    /// Less than a second is left.
    TooShort,
    /// The audience can't be a provider's name.
    UnknownAudience,
    /// Something of RFC 8693 that is not done here: what.
    Unsupported(&'static str),
}

impl Refusal {
    /// As audit events and metrics say it.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Busy => "busy",
            Self::CredentialExpired => "credential_expired",
            Self::Duplicate => "parameter_twice",
            Self::GrantType => "grant_type",
            Self::MediaType => "media_type",
            Self::Missing(_) => "parameter_missing",
            Self::NoCredential => "no_credential",
            Self::NoIdentity => "no_identity",
            Self::NotAudited => "not_audited",
            Self::NotItsSubject => "not_its_subject",
            Self::NotListed => "not_listed",
            Self::OtherEnvironment => "other_environment",
            Self::Policy(reason) => reason,
            Self::RateLimited => "rate_limited",
            Self::Resource => "resource",
            Self::SpiffeId => "spiffe_id_malformed",
            Self::Token(error) => error.reason(),
            Self::TooShort => "lifetime_too_short",
            Self::UnknownAudience => "unknown_audience",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// The error that the Envoy is answered with. A subject token that is no good is an
    /// `invalid_request`, a provider that it may not have an `invalid_target` (RFC 8693, section
    /// 2.2.2). 5xx and 429 say that asking again may help.
    pub(super) fn answer(self) -> Answer {
        let (status, error, description) = match self {
            Self::NoIdentity | Self::NotListed => (
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "expected the certificate of a listed Envoy",
            ),
            Self::NotItsSubject => (
                StatusCode::BAD_REQUEST,
                "unauthorized_client",
                "this Envoy may not speak for that subject",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "the body is too large",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "invalid_request",
                "the body did not arrive in time",
            ),
            Self::Duplicate => invalid("a parameter stands twice"),
            Self::GrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "expected urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            Self::MediaType => invalid("expected application/x-www-form-urlencoded"),
            Self::Missing(what) | Self::Unsupported(what) => invalid(what),
            Self::SpiffeId => invalid("subject_token is not a SPIFFE ID"),
            Self::Token(TokenError::KeysUnavailable) => {
                unavailable("the issuer's keys are not known")
            }
            Self::Token(_) => invalid("the subject token is not valid"),
            Self::CredentialExpired
            | Self::NoCredential
            | Self::OtherEnvironment
            | Self::Policy(_)
            | Self::Resource
            | Self::TooShort
            | Self::UnknownAudience => (
                StatusCode::BAD_REQUEST,
                "invalid_target",
                "no credential of that provider for that subject",
            ),
            Self::Busy | Self::NotAudited => unavailable("try again"),
            Self::RateLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "too many exchanges",
            ),
        };
        Answer::error(status, error, description)
    }
}

const fn invalid(description: &'static str) -> (StatusCode, &'static str, &'static str) {
    (StatusCode::BAD_REQUEST, "invalid_request", description)
}

/// RFC 6749 has `temporarily_unavailable` for its other endpoint; none of this one's errors fits.
const fn unavailable(description: &'static str) -> (StatusCode, &'static str, &'static str) {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        description,
    )
}
