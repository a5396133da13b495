//! Workloads' tokens: takes a JWT and the time, gives the subject that it proves and until when.
//!
//! Envoy has verified the token already. It is verified again, because a credential goes to
//! whoever this says, and an Envoy is trusted only for what it is listed for.

mod backend;
mod fetch;
mod jwks;

use std::{sync::Arc, time::Duration};

use almoner_core::{subject::SubjectId, units::Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use serde::Deserialize;

pub(crate) use self::fetch::SourceError;
use self::jwks::{Found, KeySet};
use crate::{config, metrics::Metrics};

/// A subject that a token proved.
pub(crate) struct Proven {
    /// Its name.
    pub(crate) subject: SubjectId,
    /// When its token expires.
    pub(crate) expires: Timestamp,
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenError {
    Audience,
    Expired,
    Issuer,
    KeysUnavailable,
    Malformed,
    NotYetValid,
    Signature,
}

impl TokenError {
    /// As audit events and metrics say it.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Audience => "token_bad_audience",
            Self::Expired => "token_expired",
            Self::Issuer => "token_bad_issuer",
            Self::KeysUnavailable => "issuer_keys_unavailable",
            Self::Malformed => "token_malformed",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Signature => "token_bad_signature",
        }
    }
}

/// The issuers whose tokens are accepted.
pub(crate) struct Verifier {
    issuers: Vec<Issuer>,
    subject_claim: String,
}

struct Issuer {
    name: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    clock_skew: Duration,
    keys: KeySet,
}

/// Enough of a token to choose its issuer; believed only once the signature is verified.
#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

/// The claims that are read (RFC 7519, section 4.1). Each once: serde refuses a field twice.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

impl Verifier {
    /// Prepares the issuers; their keys are fetched when first needed. `subject_claim` names the
    /// subject, as in the policy document.
    pub(crate) fn new(
        issuers: &[config::Issuer],
        subject_claim: String,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, SourceError> {
        backend::install();
        let issuers = issuers.iter().map(|written| {
            Ok(Issuer {
                name: written.issuer.clone(),
                audiences: written.audiences.clone(),
                algorithms: written.algorithms.clone(),
                clock_skew: written.clock_skew,
                keys: KeySet::new(written, Arc::clone(metrics))?,
            })
        });
        Ok(Self {
            issuers: issuers.collect::<Result<_, SourceError>>()?,
            subject_claim,
        })
    }

    /// Verifies a token: signature, algorithm, issuer, audience, times.
    pub(crate) async fn verify(&self, token: &str, now: Timestamp) -> Result<Proven, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, section 4.1.11: we understand no extension, so none may be critical.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let named: Unverified =
            dangerous::insecure_decode_claims(token).map_err(|_| TokenError::Malformed)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == named.iss);
        let issuer = issuer.ok_or(TokenError::Issuer)?;
        if !issuer.algorithms.contains(&header.alg) {
            return Err(TokenError::Signature);
        }
        let key = match issuer
            .keys
            .find(header.kid.as_deref(), header.alg, now)
            .await
        {
            Found::Key(key) => key,
            Found::Nothing => return Err(TokenError::Signature),
            Found::Unavailable => return Err(TokenError::KeysUnavailable),
        };
        let claims = issuer.claims(token, &key, header.alg)?;
        let expires = issuer.check_times(&claims, now)?;
        let sub = claims
            .others
            .get(&self.subject_claim)
            .and_then(serde_json::Value::as_str);
        let sub = sub
            .filter(|sub| is_name(sub))
            .ok_or(TokenError::Malformed)?;
        Ok(Proven {
            subject: SubjectId::of_token(&issuer.name, sub),
            expires,
        })
    }
}

impl Issuer {
    /// The claims of a token that this issuer signed for us. Its times are still to be judged.
    fn claims(
        &self,
        token: &str,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["aud", "exp", "iss"]);
        validation.set_audience(&self.audiences);
        validation.set_issuer(&[&self.name]);
        // Times are judged by `check_times`, by a clock that a test can set.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let verified = decode::<Claims>(token, key, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidSignature
                | ErrorKind::InvalidAlgorithm
                | ErrorKind::InvalidKeyFormat => TokenError::Signature,
                _ => TokenError::Malformed,
            }
        })?;
        Ok(verified.claims)
    }

    /// When the token expires, if it is valid now. Only `nbf` has a grace: what is issued must not
    /// outlive the token, so an expired one can't be of use.
    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, TokenError> {
        let expires = seconds(claims.exp).ok_or(TokenError::Malformed)?;
        if expires <= now {
            return Err(TokenError::Expired);
        }
        if let Some(from) = claims.nbf {
            let from = seconds(from).ok_or(TokenError::Malformed)?;
            if from > now.after(self.clock_skew) {
                return Err(TokenError::NotYetValid);
            }
        }
        Ok(expires)
    }
}

/// RFC 7519's NumericDate, within years that a clock can show.
fn seconds(date: f64) -> Option<Timestamp> {
    const YEAR_9999: f64 = 253_402_300_799.0;
    let plausible = (0.0..=YEAR_9999).contains(&date);
    plausible.then_some(Timestamp::from_secs(date as u64))
}

fn is_name(sub: &str) -> bool {
    (1..=1024).contains(&sub.len()) && !sub.contains(char::is_control)
}
