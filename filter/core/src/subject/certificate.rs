//! A caller by its certificate: takes the connection's attributes, gives its SPIFFE ID.

use super::{Proof, Subject, SubjectId};
use crate::{
    attributes::{Attributes, flag, text},
    denial::Denial,
    spiffe,
};

/// `None` where the connection has no client certificate.
///
/// Envoy shows only the first URI SAN, and says `connection.mtls` for a certificate that it did not
/// verify if the listener accepts untrusted ones: that the listener does not, and that it
/// requires exactly one URI SAN, is for the check of its configuration.
pub(super) fn prove(
    trust_domains: &[String],
    attributes: &impl Attributes,
) -> Result<Option<Subject>, Denial> {
    if !flag(attributes, &["connection", "mtls"]) {
        return Ok(None);
    }
    let san = text(attributes, &["connection", "uri_san_peer_certificate"])
        .ok_or(Denial::CertificateWithoutSpiffeId)?;
    let (domain, _) = spiffe::parts(&san).ok_or(Denial::CertificateWithoutSpiffeId)?;
    if !trust_domains.iter().any(|known| known == domain) {
        return Err(Denial::CertificateWrongTrustDomain);
    }
    Ok(Some(Subject {
        id: SubjectId(san),
        proof: Proof::Certificate,
        claims_in: None,
    }))
}
