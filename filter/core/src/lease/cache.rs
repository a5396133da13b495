//! The leases of one worker: takes lookups and answers, says who must fetch and who goes on.

use std::{collections::BTreeMap, mem, rc::Rc, time::Duration};

use super::{BrokerFailure, Lease, LeaseKey};
use crate::{
    secret::CredentialId,
    units::{Timestamp, millis},
};

/// A refusal is remembered that long, so that a refused caller does not load the broker.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);
/// The same for a broker that does not answer.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// A lease is dropped because of a provider's answer at most that often.
const DROP_EVERY: Duration = Duration::from_mins(1);

/// A bounded cache of leases and refusals, one fetch at a time per key.
///
/// `W` is whatever names a waiting exchange.
pub struct Leases<W> {
    entries: BTreeMap<LeaseKey, Entry<W>>,
    capacity: usize,
}

struct Entry<W> {
    lease: Option<Rc<Lease>>,
    failure: Option<(BrokerFailure, Timestamp)>,
    fetching: bool,
    waiting: Vec<W>,
    dropped: Option<Timestamp>,
}

/// What the cache knows.
pub enum Found {
    /// Nothing: fetch it, or join who does.
    Nothing,
    /// A valid lease, and whether to fetch the next one ahead.
    Lease(Rc<Lease>, Renewal),
    /// A failure that is still remembered.
    Failure(BrokerFailure),
}

/// Whether a lease is due for renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// Past four fifths of its life, and nobody fetches yet.
    Due,
    /// Not yet, or under way.
    NotDue,
}

/// What somebody who needs a lease must do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fetch {
    /// Wait: a fetch is under way.
    Join,
    /// Fetch.
    Start,
}

impl<W> Leases<W> {
    /// An empty cache of at most `capacity` keys.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            capacity,
        }
    }

    /// What is known under this key.
    #[must_use]
    pub fn find(&self, key: &LeaseKey, now: Timestamp) -> Found {
        let Some(entry) = self.entries.get(key) else {
            return Found::Nothing;
        };
        if let Some(lease) = entry.lease.as_ref().filter(|lease| now < lease.expires) {
            let rest = entry.failure.is_some_and(|(_, until)| now < until);
            let due = !entry.fetching && !rest && now >= renewal_time(lease);
            let renewal = if due { Renewal::Due } else { Renewal::NotDue };
            return Found::Lease(Rc::clone(lease), renewal);
        }
        match entry.failure {
            Some((failure, until)) if now < until => Found::Failure(failure),
            _ => Found::Nothing,
        }
    }

    /// Asks for a fetch under this key; `waiting` is told when it ends (nobody, to renew ahead).
    ///
    /// # Errors
    /// [`BrokerFailure::Full`] where no entry can make room.
    pub fn fetch(
        &mut self,
        key: LeaseKey,
        waiting: Option<W>,
        now: Timestamp,
    ) -> Result<Fetch, BrokerFailure> {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            self.make_room(now)?;
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            lease: None,
            failure: None,
            fetching: false,
            waiting: Vec::new(),
            dropped: None,
        });
        entry.waiting.extend(waiting);
        Ok(if mem::replace(&mut entry.fetching, true) {
            Fetch::Join
        } else {
            Fetch::Start
        })
    }

    /// A fetch has ended: keeps what came of it, gives who waited.
    pub fn complete(
        &mut self,
        key: &LeaseKey,
        result: Result<Lease, BrokerFailure>,
        now: Timestamp,
    ) -> Vec<W> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        entry.fetching = false;
        match result {
            Ok(lease) => {
                entry.lease = Some(Rc::new(lease));
                entry.failure = None;
            }
            Err(failure) => {
                if failure == BrokerFailure::Refused {
                    entry.lease = None;
                }
                let lasts = match failure {
                    BrokerFailure::Refused | BrokerFailure::WrongSubject => REFUSAL_LASTS,
                    BrokerFailure::BadAnswer | BrokerFailure::Full | BrokerFailure::Unavailable => {
                        FAILURE_LASTS
                    }
                };
                entry.failure = Some((failure, now.after(lasts)));
            }
        }
        mem::take(&mut entry.waiting)
    }

    /// The provider did not accept a credential: forget its lease, unless another one has taken
    /// its place, or one was dropped within the last minute (an account that is closed would
    /// otherwise load the broker with each request). Says whether it was forgotten.
    pub fn drop_refused(
        &mut self,
        key: &LeaseKey,
        credential: &CredentialId,
        now: Timestamp,
    ) -> Dropped {
        let Some(entry) = self.entries.get_mut(key) else {
            return Dropped::No;
        };
        let held = entry
            .lease
            .as_ref()
            .is_some_and(|lease| lease.credential_id == *credential);
        let recent = entry.dropped.is_some_and(|at| now.since(at) < DROP_EVERY);
        if !held || recent {
            return Dropped::No;
        }
        entry.lease = None;
        entry.dropped = Some(now);
        Dropped::Yes
    }

    /// How many leases are valid.
    #[must_use]
    pub fn valid(&self, now: Timestamp) -> usize {
        let held = self
            .entries
            .values()
            .filter_map(|entry| entry.lease.as_ref());
        held.filter(|lease| now < lease.expires).count()
    }

    /// Removes what is over, or else the lease that would be over first.
    fn make_room(&mut self, now: Timestamp) -> Result<(), BrokerFailure> {
        self.entries.retain(|_, entry| {
            entry.fetching
                || entry
                    .lease
                    .as_ref()
                    .is_some_and(|lease| now < lease.expires)
                || entry.failure.is_some_and(|(_, until)| now < until)
        });
        if self.entries.len() < self.capacity {
            return Ok(());
        }
        let first = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.fetching)
            .min_by_key(|(_, entry)| entry.lease.as_ref().map(|lease| lease.expires))
            .map(|(key, _)| *key)
            .ok_or(BrokerFailure::Full)?;
        self.entries.remove(&first);
        Ok(())
    }
}

/// Whether a lease was forgotten.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dropped {
    /// It was not.
    #[default]
    No,
    /// It was.
    Yes,
}

fn renewal_time(lease: &Lease) -> Timestamp {
    let life = millis(lease.expires.since(lease.issued));
    lease
        .issued
        .after(Duration::from_millis((life / 5).saturating_mul(4)))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{config::PolicyDigest, lease::Attach, secret::Credential, subject::SubjectId};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn key(subject: &str) -> LeaseKey {
        LeaseKey::of(
            &SubjectId::vouched(subject),
            "openai",
            None,
            &PolicyDigest([0; 32]),
        )
    }

    fn lease(id: &str, lasts: Duration) -> Lease {
        Lease {
            attach: Attach::Bearer,
            credential: Credential::new(Zeroizing::new("secret".to_owned())).unwrap(),
            credential_id: CredentialId::new(id).unwrap(),
            issued: NOW,
            expires: NOW.after(lasts),
        }
    }

    fn held(leases: &Leases<u32>, subject: &str, now: Timestamp) -> Option<String> {
        match leases.find(&key(subject), now) {
            Found::Lease(lease, _) => Some(lease.credential_id.as_str().to_owned()),
            Found::Nothing | Found::Failure(_) => None,
        }
    }

    #[test]
    fn one_fetches_and_all_who_waited_go_on() {
        let mut leases = Leases::new(10);
        assert_eq!(leases.fetch(key("a"), Some(1), NOW), Ok(Fetch::Start));
        assert_eq!(leases.fetch(key("a"), Some(2), NOW), Ok(Fetch::Join));
        assert_eq!(leases.fetch(key("b"), Some(3), NOW), Ok(Fetch::Start));
        let waited = leases.complete(&key("a"), Ok(lease("c1", Duration::from_mins(1))), NOW);
        assert_eq!(waited, [1, 2]);
        assert_eq!(held(&leases, "a", NOW).as_deref(), Some("c1"));
        assert_eq!(held(&leases, "b", NOW), None);
    }

    #[test]
    fn a_lease_ends_at_its_expiry_and_is_renewed_ahead_once() {
        let mut leases = Leases::<u32>::new(10);
        leases.fetch(key("a"), None, NOW).unwrap();
        leases.complete(&key("a"), Ok(lease("c1", Duration::from_secs(100))), NOW);
        let renewal = |leases: &Leases<u32>, secs| match leases
            .find(&key("a"), NOW.after(Duration::from_secs(secs)))
        {
            Found::Lease(_, renewal) => Some(renewal),
            Found::Nothing | Found::Failure(_) => None,
        };
        assert_eq!(renewal(&leases, 79), Some(Renewal::NotDue));
        assert_eq!(renewal(&leases, 80), Some(Renewal::Due));
        leases.fetch(key("a"), None, NOW).unwrap();
        assert_eq!(renewal(&leases, 81), Some(Renewal::NotDue));
        assert_eq!(renewal(&leases, 99), Some(Renewal::NotDue));
        assert_eq!(renewal(&leases, 100), None);
    }

    #[test]
    fn a_broker_that_is_down_leaves_the_lease_and_a_refusal_takes_it() {
        let mut leases = Leases::<u32>::new(10);
        leases.fetch(key("a"), None, NOW).unwrap();
        leases.complete(&key("a"), Ok(lease("c1", Duration::from_secs(100))), NOW);
        let later = NOW.after(Duration::from_secs(90));
        leases.fetch(key("a"), None, later).unwrap();
        leases.complete(&key("a"), Err(BrokerFailure::Unavailable), later);
        assert_eq!(held(&leases, "a", later).as_deref(), Some("c1"));
        leases.fetch(key("a"), None, later).unwrap();
        leases.complete(&key("a"), Err(BrokerFailure::Refused), later);
        let failure = leases.find(&key("a"), later);
        assert!(matches!(failure, Found::Failure(BrokerFailure::Refused)));
        let forgiven = later.after(REFUSAL_LASTS);
        assert!(matches!(leases.find(&key("a"), forgiven), Found::Nothing));
    }

    #[test]
    fn a_refused_credential_is_dropped_once_a_minute() {
        let mut leases = Leases::<u32>::new(10);
        let old = CredentialId::new("c1").unwrap();
        let put = |leases: &mut Leases<u32>, id: &str| {
            leases.fetch(key("a"), None, NOW).unwrap();
            leases.complete(&key("a"), Ok(lease(id, Duration::from_mins(10))), NOW);
        };
        put(&mut leases, "c1");
        assert_eq!(leases.drop_refused(&key("a"), &old, NOW), Dropped::Yes);
        put(&mut leases, "c2");
        assert_eq!(
            leases.drop_refused(&key("a"), &old, NOW),
            Dropped::No,
            "another credential"
        );
        put(&mut leases, "c1");
        assert_eq!(
            leases.drop_refused(&key("a"), &old, NOW),
            Dropped::No,
            "just dropped one"
        );
        assert_eq!(
            leases.drop_refused(&key("a"), &old, NOW.after(DROP_EVERY)),
            Dropped::Yes
        );
    }

    #[test]
    fn holds_no_more_than_its_capacity() {
        let mut leases = Leases::<u32>::new(2);
        for (subject, secs) in [("a", 50), ("b", 20)] {
            leases.fetch(key(subject), None, NOW).unwrap();
            leases.complete(
                &key(subject),
                Ok(lease(subject, Duration::from_secs(secs))),
                NOW,
            );
        }
        assert_eq!(leases.fetch(key("c"), Some(1), NOW), Ok(Fetch::Start));
        assert_eq!(held(&leases, "a", NOW).as_deref(), Some("a"));
        assert_eq!(
            held(&leases, "b", NOW),
            None,
            "the first to expire makes room"
        );
        assert_eq!(leases.fetch(key("d"), Some(2), NOW), Ok(Fetch::Start));
        assert_eq!(
            leases.fetch(key("e"), Some(3), NOW),
            Err(BrokerFailure::Full)
        );
    }
}
