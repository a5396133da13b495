//! Why a request is refused where the fault is the caller's, or the policy says no: a variant in,
//! the status, the reason code and the text of the answer out.

use std::{borrow::Cow, time::Duration};

/// A refusal that concerns the caller: what it is, what it may, what it sent, what it spent.
///
/// The answer names the reason and what to do; which rule, list or value decided stands in the
/// record alone. Faults of the broker, the provider and Envoy are no denials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// Two providers match the request, one by its path and one by its authority.
    AmbiguousProvider,
    /// A background response: its usage would be reported to nobody.
    BackgroundNotAllowed,
    /// A beta flag that the policy does not name.
    BetaNotAllowed,
    /// A request that needs a body has none.
    BodyMissing,
    /// The body is not one JSON value and nothing after it.
    BodyNotJson,
    /// The body's JSON value is not an object.
    BodyNotObject,
    /// The body is not UTF-8, or starts with a byte order mark.
    BodyNotUtf8,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body's JSON nests deeper than is read.
    BodyTooDeep,
    /// The body is larger than the configured limit.
    BodyTooLarge,
    /// A request that has no use for a body carries one.
    BodyUnexpected,
    /// Too many requests changed one budget at the same moment.
    BudgetContended,
    /// A budget of the policy is spent; `retry_after` where waiting helps.
    BudgetSpent {
        /// When part of the budget is free again.
        retry_after: Option<Duration>,
    },
    /// No slot is left to count this subject's budget in.
    BudgetTableFull,
    /// A balance in shared data can't be read: it counts as spent.
    BudgetUnreadable,
    /// The certificate holds no SPIFFE ID.
    CertificateWithoutSpiffeId,
    /// The certificate's trust domain is not a trusted one.
    CertificateWrongTrustDomain,
    /// The address of the caller is outside the policy's, or not known.
    ConditionAddress,
    /// A claim of the caller differs from the policy's, or is missing.
    ConditionClaim,
    /// The country of the caller is outside the policy's, or not known.
    ConditionCountry,
    /// The hour is outside the policy's.
    ConditionHour,
    /// A `content-encoding` on the request.
    ContentEncodingUnsupported,
    /// A `content-type` other than JSON in UTF-8 where JSON is expected.
    ContentTypeUnsupported,
    /// Two keys of one JSON object that a provider may take for the same.
    DuplicateKey,
    /// An endpoint that the policy does not name.
    EndpointNotAllowed,
    /// A field of the body has a value that is not of its documented type.
    FieldInvalid {
        /// The field, by its documented name.
        field: &'static str,
    },
    /// An endpoint that mints credentials or administers the account: no policy can name it.
    ForbiddenEndpoint,
    /// `content-length` and `transfer-encoding` leave open where the body ends.
    FramingAmbiguous,
    /// A header that says one thing was sent twice, or its value can't be read.
    HeaderInvalid {
        /// The header's name.
        name: &'static str,
    },
    /// The source of identity that every request needs is missing.
    IdentityIncomplete,
    /// A key of the body is spelled almost as one that is read (`Model`, `max_to\u{212a}ens`).
    KeyNotExact,
    /// More output is asked for than the policy allows.
    MaxOutputTokensTooLarge {
        /// The policy's limit.
        limit: u64,
    },
    /// `CONNECT`, no method, or one that is no token of upper-case letters.
    MethodUnsupported,
    /// The body names no model.
    ModelMissing,
    /// A model that the policy does not name.
    ModelNotAllowed,
    /// No identity at all.
    NoIdentity,
    /// No policy for this subject.
    NoPolicy,
    /// A cost budget, and a model that has no price.
    NoPrice,
    /// The path is missing or not spelled in its one normal way.
    PathNotNormal,
    /// A provider that the policy does not name.
    ProviderNotAllowed,
    /// A use of what the provider keeps, where the policy has `state: none`.
    ProviderState,
    /// A field of the body that carries a secret.
    SecretInBody {
        /// The field, by its documented name.
        field: &'static str,
    },
    /// A service tier that the policy does not name.
    ServiceTierNotAllowed,
    /// A speed that the policy does not name.
    SpeedNotAllowed,
    /// The verified subject has a form that can't be used.
    SubjectMalformed,
    /// The subject is revoked.
    SubjectRevoked,
    /// The token is for another audience.
    TokenBadAudience,
    /// The token's issuer is not a trusted one.
    TokenBadIssuer,
    /// The token's signature does not verify.
    TokenBadSignature,
    /// The token has expired.
    TokenExpired,
    /// The token can't be read.
    TokenMalformed,
    /// The token is not valid yet.
    TokenNotYetValid,
    /// The token was not verified, for a reason that has no code of its own.
    TokenUnverified,
    /// More keys in one JSON object than are read.
    TooManyKeys,
    /// A server-side tool that the policy does not name.
    ToolNotAllowed,
    /// A well-formed method and path that the provider's grammar does not know.
    UnknownEndpoint,
    /// No configured provider matches the request.
    UnknownProvider,
    /// An endpoint that can't be metered, and that the policy does not name.
    UnmeteredEndpoint,
    /// A protocol upgrade.
    UpgradeUnsupported,
}

impl Denial {
    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AmbiguousProvider
            | Self::BodyMissing
            | Self::BodyNotJson
            | Self::BodyNotObject
            | Self::BodyNotUtf8
            | Self::BodyTooDeep
            | Self::BodyUnexpected
            | Self::DuplicateKey
            | Self::FieldInvalid { .. }
            | Self::FramingAmbiguous
            | Self::HeaderInvalid { .. }
            | Self::KeyNotExact
            | Self::MaxOutputTokensTooLarge { .. }
            | Self::MethodUnsupported
            | Self::ModelMissing
            | Self::PathNotNormal
            | Self::SecretInBody { .. }
            | Self::TooManyKeys
            | Self::UpgradeUnsupported => 400,
            Self::CertificateWithoutSpiffeId
            | Self::CertificateWrongTrustDomain
            | Self::IdentityIncomplete
            | Self::NoIdentity
            | Self::SubjectMalformed
            | Self::TokenBadAudience
            | Self::TokenBadIssuer
            | Self::TokenBadSignature
            | Self::TokenExpired
            | Self::TokenMalformed
            | Self::TokenNotYetValid
            | Self::TokenUnverified => 401,
            Self::BackgroundNotAllowed
            | Self::BetaNotAllowed
            | Self::ConditionAddress
            | Self::ConditionClaim
            | Self::ConditionCountry
            | Self::ConditionHour
            | Self::EndpointNotAllowed
            | Self::ForbiddenEndpoint
            | Self::ModelNotAllowed
            | Self::NoPolicy
            | Self::NoPrice
            | Self::ProviderNotAllowed
            | Self::ProviderState
            | Self::ServiceTierNotAllowed
            | Self::SpeedNotAllowed
            | Self::SubjectRevoked
            | Self::ToolNotAllowed
            | Self::UnknownEndpoint
            | Self::UnknownProvider
            | Self::UnmeteredEndpoint => 403,
            Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::ContentEncodingUnsupported | Self::ContentTypeUnsupported => 415,
            Self::BudgetSpent { .. } => 429,
            Self::BudgetContended | Self::BudgetTableFull | Self::BudgetUnreadable => 503,
        }
    }

    /// The code for the `almoner-reason` header, the metrics and the record.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AmbiguousProvider => "ambiguous_provider",
            Self::BackgroundNotAllowed => "background_not_allowed",
            Self::BetaNotAllowed => "beta_not_allowed",
            Self::BodyMissing => "body_missing",
            Self::BodyNotJson => "body_not_json",
            Self::BodyNotObject => "body_not_object",
            Self::BodyNotUtf8 => "body_not_utf8",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooDeep => "body_too_deep",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyUnexpected => "body_unexpected",
            Self::BudgetContended => "budget_contended",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::BudgetTableFull => "budget_table_full",
            Self::BudgetUnreadable => "budget_unreadable",
            Self::CertificateWithoutSpiffeId => "certificate_without_spiffe_id",
            Self::CertificateWrongTrustDomain => "certificate_wrong_trust_domain",
            Self::ConditionAddress => "condition_address",
            Self::ConditionClaim => "condition_claim",
            Self::ConditionCountry => "condition_country",
            Self::ConditionHour => "condition_hour",
            Self::ContentEncodingUnsupported => "content_encoding_unsupported",
            Self::ContentTypeUnsupported => "content_type_unsupported",
            Self::DuplicateKey => "duplicate_key",
            Self::EndpointNotAllowed => "endpoint_not_allowed",
            Self::FieldInvalid { .. } => "field_invalid",
            Self::ForbiddenEndpoint => "forbidden_endpoint",
            Self::FramingAmbiguous => "framing_ambiguous",
            Self::HeaderInvalid { .. } => "header_invalid",
            Self::IdentityIncomplete => "identity_incomplete",
            Self::KeyNotExact => "key_not_exact",
            Self::MaxOutputTokensTooLarge { .. } => "max_output_tokens_too_large",
            Self::MethodUnsupported => "method_unsupported",
            Self::ModelMissing => "model_missing",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::NoIdentity => "no_identity",
            Self::NoPolicy => "no_policy",
            Self::NoPrice => "no_price",
            Self::PathNotNormal => "path_not_normal",
            Self::ProviderNotAllowed => "provider_not_allowed",
            Self::ProviderState => "provider_state",
            Self::SecretInBody { .. } => "secret_in_body",
            Self::ServiceTierNotAllowed => "service_tier_not_allowed",
            Self::SpeedNotAllowed => "speed_not_allowed",
            Self::SubjectMalformed => "subject_malformed",
            Self::SubjectRevoked => "subject_revoked",
            Self::TokenBadAudience => "token_bad_audience",
            Self::TokenBadIssuer => "token_bad_issuer",
            Self::TokenBadSignature => "token_bad_signature",
            Self::TokenExpired => "token_expired",
            Self::TokenMalformed => "token_malformed",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenUnverified => "token_unverified",
            Self::TooManyKeys => "too_many_keys",
            Self::ToolNotAllowed => "tool_not_allowed",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::UnknownProvider => "unknown_provider",
            Self::UnmeteredEndpoint => "unmetered_endpoint",
            Self::UpgradeUnsupported => "upgrade_unsupported",
        }
    }

    /// The text of the answer: what to do, without what decided.
    #[must_use]
    pub fn message(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::FieldInvalid { field } => {
                return Cow::Owned(format!(
                    "The value of `{field}` is not of its documented form."
                ));
            }
            Self::HeaderInvalid { name } => {
                return Cow::Owned(format!(
                    "Send the header `{name}` once, with a plain value."
                ));
            }
            Self::MaxOutputTokensTooLarge { limit } => {
                return Cow::Owned(format!(
                    "More output tokens are asked for than this workload may have: at most {limit}."
                ));
            }
            Self::SecretInBody { field } => {
                return Cow::Owned(format!(
                    "Remove `{field}`: no secret may be sent in the body."
                ));
            }
            Self::AmbiguousProvider => {
                "The host names one provider and the path another. Send the host of this gateway."
            }
            Self::BackgroundNotAllowed => "Background responses are not allowed here.",
            Self::BetaNotAllowed => "A beta flag of this request is not allowed for this workload.",
            Self::BodyMissing => "This endpoint needs a JSON body.",
            Self::BodyNotJson => "The body must be one JSON value and nothing after it.",
            Self::BodyNotObject => "The body must be a JSON object.",
            Self::BodyNotUtf8 => "The body must be UTF-8 without a byte order mark.",
            Self::BodyTimeout => "The body did not arrive in time. Send the request again.",
            Self::BodyTooDeep => "The body's JSON nests deeper than 128 levels.",
            Self::BodyTooLarge => "The body is larger than the limit of this gateway.",
            Self::BodyUnexpected => "This endpoint takes no body.",
            Self::BudgetContended | Self::BudgetTableFull | Self::BudgetUnreadable => {
                "The budget can't be checked at this moment. Try again."
            }
            Self::BudgetSpent {
                retry_after: Some(_),
            } => "The budget of this workload is spent. Try again after the time in `retry-after`.",
            Self::BudgetSpent { retry_after: None } => {
                "The budget of this workload can't cover this request. Ask for less."
            }
            Self::CertificateWithoutSpiffeId | Self::CertificateWrongTrustDomain => {
                "The certificate identifies no workload that is known here."
            }
            Self::ConditionAddress
            | Self::ConditionClaim
            | Self::ConditionCountry
            | Self::ConditionHour => "A condition for this workload's access is not met.",
            Self::ContentEncodingUnsupported => "Send the body without `content-encoding`.",
            Self::ContentTypeUnsupported => "Send the body as `content-type: application/json`.",
            Self::DuplicateKey => "A key stands twice in one object of the body.",
            Self::EndpointNotAllowed => "This endpoint is not allowed for this workload.",
            Self::ForbiddenEndpoint => "This endpoint is not served here, to nobody.",
            Self::FramingAmbiguous => {
                "The headers leave open where the body ends. Send `content-length` once."
            }
            Self::IdentityIncomplete => "This gateway needs a further proof of identity.",
            Self::KeyNotExact => "A key of the body must be spelled exactly as documented.",
            Self::MethodUnsupported => "This method is not supported.",
            Self::ModelMissing => "The body must name a model.",
            Self::ModelNotAllowed => "This model is not allowed for this workload.",
            Self::NoIdentity => {
                "No identity was presented. Send this workload's token, or use its certificate."
            }
            Self::NoPolicy => "No policy allows this workload. Ask the owner of this gateway.",
            Self::NoPrice => "This model has no price here, so its cost can't be bounded.",
            Self::PathNotNormal => "Spell the path exactly as the provider documents it.",
            Self::ProviderNotAllowed => "This provider is not allowed for this workload.",
            Self::ProviderState => {
                "Objects that the provider keeps (earlier responses, files, conversations, stored \
                 prompts) can't be used here. Send the whole input instead."
            }
            Self::ServiceTierNotAllowed => "This service tier is not allowed for this workload.",
            Self::SpeedNotAllowed => "This speed is not allowed for this workload.",
            Self::SubjectMalformed => "The identity that was presented has an unusable form.",
            Self::SubjectRevoked => "The access of this workload is revoked.",
            Self::TokenBadAudience => "The token is meant for another audience.",
            Self::TokenBadIssuer => "The token's issuer is not trusted here.",
            Self::TokenBadSignature => "The token's signature does not verify.",
            Self::TokenExpired => "The token has expired. Fetch a new one.",
            Self::TokenMalformed => "The token is not a JSON Web Token that can be read.",
            Self::TokenNotYetValid => "The token is not valid yet. Compare the clocks.",
            Self::TokenUnverified => "The token could not be verified.",
            Self::TooManyKeys => "One object of the body has more keys than are read.",
            Self::ToolNotAllowed => {
                "A tool that the provider runs is not allowed for this workload."
            }
            Self::UnknownEndpoint => "This method and path are not an endpoint that is served.",
            Self::UnknownProvider => "No provider is configured for this host and path.",
            Self::UnmeteredEndpoint => {
                "The cost of this endpoint can't be counted, so it is refused."
            }
            Self::UpgradeUnsupported => "Protocol upgrades are not supported.",
        })
    }

    /// How long to wait before it makes sense to try again.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        if let Self::BudgetSpent { retry_after } = self {
            return retry_after;
        }
        // The other denials that pass by themselves pass soon.
        if self.status() == 503 {
            Some(Duration::from_secs(1))
        } else {
            None
        }
    }
}
