//! SPIFFE IDs: takes a text, gives the trust domain and the path that it names.

/// Trust domain and path of the SPIFFE ID of a workload (SPIFFE-ID, sections 2.1 to 2.3): `None`
/// without a path, with empty or dot segments, or with escapes.
#[must_use]
pub fn parts(id: &str) -> Option<(&str, &str)> {
    let rest = id.strip_prefix("spiffe://").filter(|_| id.len() <= 2048)?;
    let parts = rest.split_once('/')?;
    (is_trust_domain(parts.0) && parts.1.split('/').all(is_segment)).then_some(parts)
}

/// Section 2.1: lower-case letters, digits, dots, dashes, underscores.
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

/// Whether a text may stand between two slashes (section 2.2).
pub(crate) fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
