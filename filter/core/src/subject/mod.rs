//! The first stage: takes what Envoy verified about the caller, gives a typed [`Subject`].
//!
//! Nothing that a caller can write counts. A token counts if `jwt_authn` verified it, a
//! certificate if the listener verified it (the configuration check sees to that), this Envoy's
//! own identity if the operator says that the listener is a sidecar's.

mod certificate;
mod token;

use std::{fmt, sync::OnceLock};

pub(crate) use self::token::claim;
use crate::{
    attributes::{Attributes, text},
    config::{Identity, Piece, Require, Slot, Source},
    denial::Denial,
    spiffe,
};

/// The verified caller, with its type in its name: `spiffe://..` from a certificate or a sidecar,
/// `jwt:<issuer>|<sub>` (percent-escaped) from a token, so that no token can spell a SPIFFE ID.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SubjectId(String);

impl SubjectId {
    /// A subject as somebody vouched for it: the broker, or a test. Not for what a caller wrote.
    #[must_use]
    pub fn vouched(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The subject of a token whose signature, issuer, audience and times are verified.
    #[must_use]
    pub fn of_token(issuer: &str, sub: &str) -> Self {
        token::subject_id(issuer, sub)
    }

    /// The name that policies, records and budgets go by.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A caller that proved who it is.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub id: SubjectId,
    /// How it proved it: what the broker is shown.
    pub proof: Proof,
    /// The slot of the verified token, for conditions on claims; also where another source named
    /// the subject.
    pub claims_in: Option<Slot>,
}

/// How a subject's identity was proven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// By the certificate of its connection.
    Certificate,
    /// By being behind this Envoy.
    Proxy,
    /// By the token in this slot.
    Token(Slot),
}

/// Which slots the request has a header for.
pub trait Presented {
    /// Whether the caller sent this header at all.
    fn presents(&self, slot: Slot) -> bool;
}

/// Proves who the caller is.
///
/// # Errors
/// Why nobody is proven: all these are answered with 401.
pub fn prove(
    identity: &Identity,
    presented: &impl Presented,
    attributes: &impl Attributes,
) -> Result<Subject, Denial> {
    let mut named: Option<Subject> = None;
    for source in &identity.sources {
        let proven = match source {
            Source::Jwt {
                slots,
                subject,
                audience,
            } => token::prove(slots, subject, audience, presented, attributes)?,
            Source::Mtls { trust_domains } => certificate::prove(trust_domains, attributes)?,
            Source::Proxy { subject, bound } => Some(proxy(subject, bound, attributes)?),
        };
        match (identity.require, proven) {
            (Require::Any, Some(subject)) => return Ok(subject),
            (Require::Any, None) => {}
            (Require::All, None) => return Err(Denial::IdentityIncomplete),
            (Require::All, Some(subject)) => {
                named = Some(match named {
                    Some(first) => Subject {
                        claims_in: first.claims_in.or(subject.claims_in),
                        ..first
                    },
                    None => subject,
                });
            }
        }
    }
    named.ok_or(Denial::NoIdentity)
}

fn proxy(
    pieces: &[Piece],
    bound: &OnceLock<String>,
    attributes: &impl Attributes,
) -> Result<Subject, Denial> {
    let id = match bound.get() {
        Some(id) => id,
        None => bound.get_or_init({
            let id = bind(pieces, attributes)?;
            || id
        }),
    };
    Ok(Subject {
        id: SubjectId(id.clone()),
        proof: Proof::Proxy,
        claims_in: None,
    })
}

fn bind(pieces: &[Piece], attributes: &impl Attributes) -> Result<String, Denial> {
    let mut id = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => id.push_str(literal),
            Piece::NodeMetadata(field) => {
                let value = text(attributes, &["xds", "node", "metadata", field]);
                let value = value.filter(|value| spiffe::is_segment(value));
                id.push_str(&value.ok_or(Denial::SubjectMalformed)?);
            }
        }
    }
    Ok(id)
}

#[cfg(test)]
mod tests;
