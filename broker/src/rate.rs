//! A rate limit per Envoy: takes an identity and the time, says whether it may go on.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use almoner_core::units::{Timestamp, millis};

use crate::envoys::SpiffeId;

const MAX_IDENTITIES: usize = 10_000;

/// A bucket per Envoy identity that fills by `per_second` up to twice as much. In milli-exchanges,
/// so that a millisecond's share is a whole number.
pub(crate) struct RateLimit {
    per_second: u64,
    buckets: Mutex<BTreeMap<SpiffeId, Bucket>>,
}

struct Bucket {
    left: u64,
    filled: Timestamp,
}

impl RateLimit {
    pub(crate) const fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second as u64,
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes one exchange of this identity; `false` where none is left.
    pub(crate) fn take(&self, id: &SpiffeId, now: Timestamp) -> bool {
        let full = self.per_second.saturating_mul(2000);
        let mut buckets = self
            .buckets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if !buckets.contains_key(id) && buckets.len() >= MAX_IDENTITIES {
            // After two seconds a bucket is full again: forgetting it changes nothing.
            buckets.retain(|_, bucket| now.since(bucket.filled) < Duration::from_secs(2));
            if buckets.len() >= MAX_IDENTITIES {
                return false;
            }
        }
        let bucket = buckets.entry(id.clone()).or_insert(Bucket {
            left: full,
            filled: now,
        });
        let gained = millis(now.since(bucket.filled)).saturating_mul(self.per_second);
        bucket.left = bucket.left.saturating_add(gained).min(full);
        bucket.filled = now;
        match bucket.left.checked_sub(1000) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_the_rate_to_each_identity_alone() {
        let limit = RateLimit::new(5);
        let a = SpiffeId::parse("spiffe://p/a").expect("a SPIFFE ID");
        let b = SpiffeId::parse("spiffe://p/b").expect("a SPIFFE ID");
        let taken =
            |id, at, tries: usize| (0..tries).filter(|_| limit.take(id, Timestamp(at))).count();
        assert_eq!(taken(&a, 1000, 20), 10);
        assert_eq!(taken(&a, 1100, 20), 0);
        assert_eq!(taken(&a, 1200, 20), 1);
        assert_eq!(taken(&b, 1200, 20), 10);
        assert_eq!(taken(&a, 61_200, 20), 10);
        assert_eq!(taken(&a, 0, 20), 0, "a clock that goes back gives nothing");
    }
}
