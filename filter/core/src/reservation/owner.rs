//! Takes whose budget it is; gives the fixed-size digest under which a balance is kept.

use sha2::{Digest, Sha256};

/// Whose balance it is: a digest, so that its size is fixed and no subject's name is in shared data.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OwnerId([u8; Self::LEN]);

impl OwnerId {
    /// Bytes of an owner's digest.
    pub(super) const LEN: usize = 16;

    /// No owner: an index entry that is free. No digest has this value.
    pub(super) const NOBODY: Self = Self([0; Self::LEN]);

    /// Everybody together: the ceiling of the whole organisation.
    #[must_use]
    pub fn all() -> Self {
        Self::digest("all", &[])
    }

    /// All subjects of the policy of this name together.
    #[must_use]
    pub fn policy(name: &str) -> Self {
        Self::digest("policy", &[name])
    }

    /// All that goes to the provider of this name.
    #[must_use]
    pub fn provider(name: &str) -> Self {
        Self::digest("provider", &[name])
    }

    /// One verified subject, in its canonical spelling.
    #[must_use]
    pub fn subject(subject: &str) -> Self {
        Self::digest("subject", &[subject])
    }

    /// One verified subject's use of one model.
    #[must_use]
    pub fn subject_model(subject: &str, model: &str) -> Self {
        Self::digest("subject_model", &[subject, model])
    }

    /// A digest that no other kind, and no other split of the same bytes into parts, shares.
    fn digest(kind: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"almoner budget owner v1");
        for part in std::iter::once(&kind).chain(parts) {
            // A usize is at most 64 bits wide on every target.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut id = Self::NOBODY;
        for (to, from) in id.0.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        id
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A number spread evenly over all owners.
    pub(super) fn spread(&self) -> u64 {
        self.0.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerId;

    #[test]
    fn owners_of_different_kinds_or_parts_never_meet() {
        let ids = [
            OwnerId::all(),
            OwnerId::policy("a"),
            OwnerId::provider("a"),
            OwnerId::subject("a"),
            OwnerId::subject_model("a", ""),
            OwnerId::subject_model("", "a"),
            OwnerId::subject_model("ab", "c"),
            OwnerId::subject_model("a", "bc"),
            OwnerId::NOBODY,
        ];
        for (i, a) in ids.iter().enumerate() {
            for b in &ids[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn an_owner_is_the_same_in_every_process() {
        assert_eq!(
            OwnerId::subject("spiffe://a/b"),
            OwnerId::subject("spiffe://a/b")
        );
    }
}
