//! Shared data as the ledger needs it: two operations, which the plugin implements over its host.

use std::num::NonZeroU32;

use thiserror::Error;

/// Values that several workers share, each changed by compare-and-swap alone.
///
/// The ledger never creates a key: all of them are created when the configuration loads
/// ([`Ledger::layout`](super::Ledger::layout)), because a host's swap may not protect a key that
/// does not exist yet.
pub trait Store {
    /// What stands at `key`, or `None` where the key was never created.
    ///
    /// # Errors
    /// Where the host fails for any reason but a missing key.
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// Replaces the value at `key` if it is still the one that was loaded with `version`.
    ///
    /// # Errors
    /// Where the host fails for any reason but a lost race.
    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError>;
}

/// A value, and the version by which it may be replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The bytes as they were written.
    pub value: Vec<u8>,
    /// Changes with every write to this key.
    pub version: Version,
}

/// A version of one value. Never zero: to Envoy zero means "overwrite whatever is there".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version(pub NonZeroU32);

/// How a swap ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Swap {
    /// Another worker wrote first; nothing was changed.
    Conflict,
    /// The value is now the new one.
    Done,
}

/// The host could not read or write shared data.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("shared data could not be read or written")]
pub struct StoreError;
