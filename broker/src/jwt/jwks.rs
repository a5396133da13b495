//! An issuer's keys, kept: takes a key id and an algorithm, gives the one key that fits both.
//!
//! ```text
//!  never fetched ──fetch──▶ fresh ──MAX_AGE──▶ aging ──MAX_STALE──▶ unavailable
//!                             ▲                  │                      │
//!                             └─────fetch ok─────┴──────────────────────┘
//! ```
//! Aging keys are used where a fetch fails. An unknown key id asks for a fetch too; whatever the
//! reason, one fetch runs at a time and none starts within [`MIN_PAUSE`] of the last one, so that
//! tokens with made-up key ids can't make this broker flood an issuer.

use std::{sync::Arc, time::Duration};

use almoner_core::units::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use tokio::sync::{Mutex, RwLock};
use tracing::{info, warn};

use super::fetch::{Source, SourceError};
use crate::{config, metrics::Metrics};

const MAX_AGE: Duration = Duration::from_mins(5);
const MAX_STALE: Duration = Duration::from_hours(1);
const MIN_PAUSE: Duration = Duration::from_secs(10);

/// The keys of one issuer.
pub(super) struct KeySet {
    issuer: String,
    source: Source,
    held: RwLock<Held>,
    /// Held while a fetch runs; the time when the last one started.
    fetching: Mutex<Option<Timestamp>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Held {
    keys: Vec<Jwk>,
    /// When they were fetched; `None` before the first time.
    fetched: Option<Timestamp>,
}

/// What is known about a key.
pub(super) enum Found {
    /// The key that the token must be signed with.
    Key(DecodingKey),
    /// The issuer has no such key.
    Nothing,
    /// The issuer's keys are not known.
    Unavailable,
}

impl KeySet {
    pub(super) fn new(issuer: &config::Issuer, metrics: Arc<Metrics>) -> Result<Self, SourceError> {
        Ok(Self {
            issuer: issuer.issuer.clone(),
            source: Source::new(issuer)?,
            held: RwLock::default(),
            fetching: Mutex::default(),
            metrics,
        })
    }

    /// The key with this id for this algorithm.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Found {
        let known = self.known(kid, algorithm, now, MAX_AGE).await;
        if let Found::Key(_) = known {
            return known;
        }
        self.refresh(now).await;
        self.known(kid, algorithm, now, MAX_STALE).await
    }

    /// What the kept keys say, if they are no older than `age`.
    async fn known(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
        age: Duration,
    ) -> Found {
        let held = self.held.read().await;
        if held.fetched.is_none_or(|fetched| now.since(fetched) > age) {
            return Found::Unavailable;
        }
        let key = choose(&held.keys, kid, algorithm).map(DecodingKey::from_jwk);
        key.and_then(Result::ok).map_or(Found::Nothing, Found::Key)
    }

    /// Fetches the keys, unless that was tried a moment ago. Who comes while a fetch runs waits for it.
    async fn refresh(&self, now: Timestamp) {
        let mut last = self.fetching.lock().await;
        if last.is_some_and(|last| now.since(last) < MIN_PAUSE) {
            return;
        }
        *last = Some(now);
        let outcome = match self.source.fetch().await {
            Ok(JwkSet { keys }) => {
                info!(
                    issuer = self.issuer,
                    keys = keys.len(),
                    "fetched the issuer's keys"
                );
                *self.held.write().await = Held {
                    keys,
                    fetched: Some(now),
                };
                "ok"
            }
            Err(error) => {
                warn!(issuer = self.issuer, %error, "could not fetch the issuer's keys");
                "failed"
            }
        };
        self.metrics
            .jwks_refreshes
            .with_label_values(&[self.issuer.as_str(), outcome])
            .inc();
    }
}

/// The one key that this token can be signed with. Without a key id there must be one candidate
/// only; two keys with one id are as good as none.
fn choose<'a>(keys: &'a [Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let mut fitting = keys.iter().filter(|key| {
        (kid.is_none() || key.common.key_id.as_deref() == kid) && fits(key, algorithm)
    });
    let only = fitting.next()?;
    fitting.next().is_none().then_some(only)
}

/// Whether a key is meant for signatures of this algorithm (RFC 7517, sections 4.1 to 4.4; RFC
/// 8725, section 3.1: the key decides about the algorithm, never the token alone).
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let family = DecodingKey::from_jwk(key).map(|key| key.family());
    let common = &key.common;
    let for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let alone = common
        .key_algorithm
        .is_none_or(|only| only == KeyAlgorithm::from(algorithm));
    family.is_ok_and(|family| family == algorithm.family()) && for_signatures && verifies && alone
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn after(span: Duration) -> Timestamp {
        NOW.after(span)
    }

    /// A point of P-256 in name only: no signature is verified here.
    fn ec(kid: &str, more: &Value) -> Value {
        let half = "A".repeat(43);
        let mut key = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": half, "y": half });
        let fields = key.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        key
    }

    fn show(path: &Path, keys: &[Value]) {
        fs::write(path, json!({ "keys": keys }).to_string()).expect("written");
    }

    fn key_set(path: &Path) -> KeySet {
        let issuer = json!({ "issuer": "i", "audiences": ["a"], "jwks_file": path });
        let issuer = serde_json::from_value(issuer).expect("an issuer");
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        KeySet::new(&issuer, metrics).expect("a key set")
    }

    async fn find(keys: &KeySet, kid: &str, now: Timestamp) -> &'static str {
        match keys.find(Some(kid), Algorithm::ES256, now).await {
            Found::Key(_) => "key",
            Found::Nothing => "nothing",
            Found::Unavailable => "unavailable",
        }
    }

    #[tokio::test]
    async fn a_rotated_key_is_found_and_its_predecessor_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jwks.json");
        show(&path, &[ec("old", &json!({}))]);
        let keys = key_set(&path);
        assert_eq!(find(&keys, "old", NOW).await, "key");
        show(&path, &[ec("new", &json!({}))]);
        assert_eq!(
            find(&keys, "new", NOW).await,
            "nothing",
            "one fetch was enough for now"
        );
        assert_eq!(find(&keys, "new", after(MIN_PAUSE)).await, "key");
        assert_eq!(find(&keys, "old", after(MIN_PAUSE)).await, "nothing");
    }

    #[tokio::test]
    async fn a_withdrawn_key_is_forgotten_though_nobody_asks_for_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jwks.json");
        show(&path, &[ec("a", &json!({}))]);
        let keys = key_set(&path);
        assert_eq!(find(&keys, "a", NOW).await, "key");
        show(&path, &[]);
        assert_eq!(find(&keys, "a", after(MAX_AGE)).await, "key");
        assert_eq!(
            find(&keys, "a", after(MAX_AGE + Duration::from_secs(1))).await,
            "nothing"
        );
    }

    #[tokio::test]
    async fn known_keys_outlast_an_issuer_that_is_down_for_an_hour() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jwks.json");
        let keys = key_set(&path);
        assert_eq!(find(&keys, "a", NOW).await, "unavailable");
        show(&path, &[ec("a", &json!({}))]);
        assert_eq!(
            find(&keys, "a", NOW).await,
            "unavailable",
            "not asked again at once"
        );
        let fetched = after(MIN_PAUSE);
        assert_eq!(find(&keys, "a", fetched).await, "key");
        fs::remove_file(&path).expect("removed");
        assert_eq!(find(&keys, "a", fetched.after(MAX_STALE)).await, "key");
        let later = fetched.after(MAX_STALE + Duration::from_secs(1));
        assert_eq!(find(&keys, "a", later).await, "unavailable");
    }

    #[test]
    fn only_a_key_that_is_meant_for_it_is_chosen() {
        let choose = |keys: &[&Value], kid: Option<&str>, algorithm| {
            let set: JwkSet = serde_json::from_value(json!({ "keys": keys })).expect("keys");
            choose(&set.keys, kid, algorithm).is_some()
        };
        let (plain, other) = (ec("a", &json!({})), ec("b", &json!({})));
        let (es256, es384) = (Algorithm::ES256, Algorithm::ES384);
        assert!(choose(&[&plain], Some("a"), es256));
        assert!(choose(&[&plain], None, es256));
        assert!(!choose(&[&plain], Some("b"), es256));
        assert!(!choose(&[&plain], Some("a"), Algorithm::RS256));
        assert!(!choose(&[&plain], Some("a"), Algorithm::EdDSA));
        assert!(
            !choose(&[&plain, &plain], Some("a"), es256),
            "two with one id"
        );
        assert!(!choose(&[&plain, &other], None, es256), "without an id");
        for (more, algorithm, expected) in [
            (
                json!({ "use": "sig", "key_ops": ["verify"], "alg": "ES256" }),
                es256,
                true,
            ),
            (json!({ "use": "enc" }), es256, false),
            (json!({ "key_ops": ["sign"] }), es256, false),
            (json!({ "alg": "ES256" }), es384, false),
        ] {
            assert_eq!(
                choose(&[&ec("a", &more)], Some("a"), algorithm),
                expected,
                "{more}"
            );
        }
        let secret = json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" });
        assert!(!choose(&[&secret], Some("a"), es256));
    }
}
