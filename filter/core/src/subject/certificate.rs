//! A caller by its certificate: takes the connection's attributes, gives its SPIFFE ID.

use super::{Proof, Subject, SubjectId};
use crate::{
    attributes::{Attributes, flag, text},
    denial::Denial,
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
    let (domain, path) = parts(&san).ok_or(Denial::CertificateWithoutSpiffeId)?;
    if path.is_empty() {
        return Err(Denial::CertificateWithoutSpiffeId);
    }
    if !trust_domains.iter().any(|known| known == domain) {
        return Err(Denial::CertificateWrongTrustDomain);
    }
    Ok(Some(Subject {
        id: SubjectId(san),
        proof: Proof::Certificate,
        claims_in: None,
    }))
}

/// Trust domain and path of a SPIFFE ID (SPIFFE-ID, section 2): the path has no empty or dot
/// segments and no escapes.
fn parts(id: &str) -> Option<(&str, &str)> {
    let rest = id.strip_prefix("spiffe://").filter(|_| id.len() <= 2048)?;
    let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    let domain_fits = !domain.is_empty()
        && domain
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    let path_fits = rest.len() == domain.len() || path.split('/').all(is_segment);
    (domain_fits && path_fits).then_some((domain, path))
}

/// Whether a text may stand between two slashes of a SPIFFE ID (section 2.2).
pub(super) fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
