//! The two kinds of secret that pass through, in types that can't be printed by accident.

use zeroize::Zeroizing;

/// The provider's secret, attached upstream. It has no `Debug`, `Display` or `Serialize`; memory is
/// zeroized on drop. What may be logged is its [`CredentialId`].
pub struct Credential(Zeroizing<String>);

impl Credential {
    /// Longer than any provider's key or token (a cloud's session tokens have a few KiB).
    pub const MAX: usize = 16 * 1024;

    /// A secret that can stand in a header: visible ASCII, not empty, at most [`Self::MAX`] bytes.
    #[must_use]
    pub fn new(secret: Zeroizing<String>) -> Option<Self> {
        let fits =
            (1..=Self::MAX).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(Self(secret))
    }

    /// The secret itself, for the one place that attaches it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The name of a credential: what may be logged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialId(String);

impl CredentialId {
    /// Reads a name: 1 to 128 visible ASCII characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a caller presented as its token. It goes to the broker and nowhere else.
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// The token in a header's value: behind `Bearer ` where the slot is `authorization`.
    #[must_use]
    pub fn of_header(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?.trim();
        let token = text.strip_prefix("Bearer ").unwrap_or(text).trim();
        let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(Zeroizing::new(token.to_owned())))
    }

    /// The token itself, for the request to the broker.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
