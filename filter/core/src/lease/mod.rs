//! The fifth stage: takes a [`Grant`](crate::grant::Grant) and its reservation, gives a [`Lease`].
//!
//! A lease is a credential held until an expiry. Leases live in the memory of one worker, never in
//! shared data, which any plugin of the same VM id could read.

mod cache;
mod token_exchange;

use sha2::{Digest, Sha256};

pub use self::{
    cache::{Dropped, Fetch, Found, Leases, Renewal},
    token_exchange::{Request, SPIFFE_ID_TOKEN_TYPE, read_answer, request},
};
use crate::{
    api::Api,
    config::PolicyDigest,
    secret::{Credential, CredentialId},
    subject::SubjectId,
    units::Timestamp,
};

/// A credential held until an expiry.
pub struct Lease {
    /// How it is attached.
    pub attach: Attach,
    /// The secret.
    pub credential: Credential,
    /// Its name, for records.
    pub credential_id: CredentialId,
    /// When it was issued.
    pub issued: Timestamp,
    /// From then on it is no lease any more.
    pub expires: Timestamp,
}

impl Lease {
    /// The header that carries the credential to a provider of this API, and its value.
    #[must_use]
    pub fn header(&self, api: Api) -> (&'static str, zeroize::Zeroizing<String>) {
        let secret = self.credential.expose();
        match (self.attach, api) {
            (Attach::Bearer, _) | (Attach::OwnHeader, Api::OpenAi) => (
                "authorization",
                zeroize::Zeroizing::new(format!("Bearer {secret}")),
            ),
            (Attach::OwnHeader, Api::Anthropic) => {
                ("x-api-key", zeroize::Zeroizing::new(secret.to_owned()))
            }
        }
    }
}

/// How a credential is attached, by the `token_type` of the broker's answer (RFC 8693, 2.2.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attach {
    /// `Bearer`: in `authorization`.
    Bearer,
    /// `N_A`: in the header where the provider wants its keys.
    OwnHeader,
}

/// Whether an answer of this status says that the provider does not accept the credential.
///
/// `OpenAI` and Anthropic say so by 401 alone: their 403 is about what the account may do.
#[must_use]
pub const fn is_refused(api: Api, status: u16) -> bool {
    match api {
        Api::Anthropic | Api::OpenAi => status == 401,
    }
}

/// What leases are kept under: SHA-256 of subject, provider, OAuth scope and policy digest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LeaseKey([u8; 32]);

impl LeaseKey {
    /// The key of one subject's lease for one provider under one policy document.
    #[must_use]
    pub fn of(
        subject: &SubjectId,
        provider: &str,
        scope: Option<&str>,
        policies: &PolicyDigest,
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [subject.as_str(), provider, scope.unwrap_or("")] {
            // The length in front keeps two different lists of parts from hashing the same bytes.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(policies.0);
        Self(hash.finalize().into())
    }
}

/// Why there is no lease: the broker's doing, or that of what lies between.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum BrokerFailure {
    /// An answer that is not one.
    BadAnswer,
    /// As many leases and fetches as this worker holds.
    Full,
    /// The broker says no (RFC 6749, section 5.2).
    Refused,
    /// The broker does not answer, or answers that it can't.
    Unavailable,
    /// An answer for somebody else.
    WrongSubject,
}

impl BrokerFailure {
    /// The status that the caller is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Refused => 403,
            Self::BadAnswer | Self::Full | Self::Unavailable | Self::WrongSubject => 503,
        }
    }

    /// As headers, metrics and records say it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadAnswer => "broker_bad_answer",
            Self::Full => "leases_full",
            Self::Refused => "broker_refused",
            Self::Unavailable => "broker_unavailable",
            Self::WrongSubject => "broker_wrong_subject",
        }
    }
}
