//! What one answer used, in one inclusive contract for every provider.

use serde::Serialize;

use crate::units::Tokens;

/// Tokens counted for one exchange. *Inclusive*: `input` contains cached reads and cache writes,
/// `output` contains reasoning; the parts stand beside them. `None` is "not reported", never zero.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// All that the model read, cached or not.
    pub input: Option<Tokens>,
    /// All that the model wrote, reasoning included.
    pub output: Option<Tokens>,
    /// The provider's own total, kept apart because providers disagree on what it sums.
    pub total: Option<Tokens>,
    /// The part of `input` that was read from a cache.
    pub cached_input: Option<Tokens>,
    /// The part of `input` that was written to a cache.
    pub cache_write: Option<Tokens>,
    /// The part of `cache_write` that the cache keeps for an hour, at a higher price.
    pub cache_write_hour: Option<Tokens>,
    /// The part of `output` that was reasoning.
    pub reasoning: Option<Tokens>,
}
