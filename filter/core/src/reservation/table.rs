//! Takes a subject's digest; finds the one slot that keeps its balance, or claims an idle one.
//!
//! A table is made when the configuration loads: buckets of up to 64 slots, a key each, and for each
//! bucket an index, one more key, with the owner of each slot. An owner's digest picks its bucket.
//! Several workers find and claim at once, and each may die between any two steps.
//!
//! **The slot's own owner is the truth; the index only finds it.** What must hold: (1) an owner
//! never has two balances that count, and (2) while a balance counts, the index says where it is.
//! Compare-and-swap covers one key at a time, so slots and index meet in this order:
//!
//! - *Claim.* Swap an idle slot to `(me, claimed, zero)`; load it; swap the index to say so; only
//!   then swap the slot, by the version of that load, to `open` with the first spending.
//! - *A claimed slot counts for nothing*: whoever finds one may take it, so a worker that died, or
//!   lost the race for the index to a claim of the same owner elsewhere, leaves nothing to tidy up.
//! - *Found claimed* (through the index, by another worker of the same owner): swap the index to
//!   what it already is. That new version fails every swap of the index that was prepared before.
//! - *Found with another owner*: clear the entry, start again.
//!
//! Why this is enough: an entry of mine is only ever overwritten by one who loaded the index and
//! *then* saw the slot not mine. I open my slot by a version that I loaded *before* my own swap of
//! the index; so nobody who loaded the index before that swap can still write it, and whoever loads
//! it after sees the slot mine until I am idle again. (2) holds from there, and (1) follows: a
//! claimant looks into the index first, and its own swap of it fails if I was entered since.

use std::fmt::Write;

use crate::units::Timestamp;

use super::{
    balance::{Balance, State, VACANT, VERSION},
    ledger::{Fault, Found, load, swap},
    owner::OwnerId,
    store::{Store, Version},
    window::Window,
};

/// The most slots of a bucket.
const SLOTS: usize = 64;

/// Owners that a bucket of a large table is made for. Digests fill buckets unevenly: at this load
/// one of 3,000 buckets is too small with a probability of 0.06 %.
const LOAD: u32 = 32;

/// How many buckets, and of how many slots each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    buckets: u32,
    /// From 1 to `SLOTS`.
    slots: usize,
}

/// The slots that keep one budget's balances.
pub(super) struct Table<'a, S> {
    pub(super) store: &'a S,
    /// What all keys of this budget begin with.
    pub(super) prefix: &'a str,
    pub(super) size: Size,
    pub(super) window: Window,
}

impl Size {
    /// A table for this many owners: one bucket holds as many exactly, several about twice as many.
    pub(super) fn of(owners: u32) -> Self {
        match owners as usize {
            slots @ ..=SLOTS => Self {
                buckets: 1,
                slots: slots.max(1),
            },
            _ => Self {
                buckets: owners.div_ceil(LOAD),
                slots: SLOTS,
            },
        }
    }

    /// The keys of a table of this size and their first values.
    pub(super) fn layout(self, prefix: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
        (0..self.buckets).flat_map(move |bucket| {
            let slots = 0..self.slots;
            let slots = slots.map(move |at| (slot_key(prefix, bucket, at), VACANT.to_vec()));
            std::iter::once((index_key(prefix, bucket), Index::empty().0)).chain(slots)
        })
    }

    fn bucket_of(self, owner: OwnerId) -> u32 {
        // Below `buckets`, so the conversion is lossless; a table has at least one bucket.
        owner
            .spread()
            .checked_rem(u64::from(self.buckets))
            .unwrap_or(0) as u32
    }
}

impl<S: Store> Table<'_, S> {
    /// Finds or claims the owner's balance: open, and to be swapped by the version given. `None`
    /// where another worker changed something in between: try again.
    pub(super) fn find(&self, owner: OwnerId, now: Timestamp) -> Result<Option<Found>, Fault> {
        let bucket = self.size.bucket_of(owner);
        let index_key = index_key(self.prefix, bucket);
        let stored = load(self.store, &index_key)?;
        let index_version = stored.version;
        let Some(mut index) = Index::decode(stored.value) else {
            self.rebuild_index(bucket, &index_key, index_version)?;
            return Ok(None);
        };

        let Some(at) = index.find(owner) else {
            return self.claim(bucket, index, index_version, owner, now);
        };
        let key = slot_key(self.prefix, bucket, at);
        let stored = load(self.store, &key)?;
        let Some(mut balance) = Balance::decode(&stored.value) else {
            // Unreadable, so perhaps a claim of another owner: opened like one.
            if swap(self.store, &index_key, &index.0, index_version)? {
                let spent = Balance::spent(owner, State::Open, self.window, now);
                if swap(self.store, &key, &spent.encode(), stored.version)? {
                    return Err(Fault::Malformed);
                }
            }
            return Ok(None);
        };
        if balance.owner != owner {
            index.set(at, OwnerId::NOBODY);
            swap(self.store, &index_key, &index.0, index_version)?;
            return Ok(None);
        }
        if balance.state == State::Claimed {
            if !swap(self.store, &index_key, &index.0, index_version)? {
                return Ok(None);
            }
            balance.state = State::Open;
        }
        Ok(Some(Found {
            key,
            balance,
            version: stored.version,
        }))
    }

    fn claim(
        &self,
        bucket: u32,
        mut index: Index,
        index_version: Version,
        owner: OwnerId,
        now: Timestamp,
    ) -> Result<Option<Found>, Fault> {
        let Some((at, idle, version)) = self.idle_slot(bucket, &index, owner, now)? else {
            return Err(Fault::TableFull);
        };
        let key = slot_key(self.prefix, bucket, at);
        let mut balance = idle.succeed(owner, self.window, now);
        if !swap(self.store, &key, &balance.encode(), version)? {
            return Ok(None);
        }
        let stored = load(self.store, &key)?;
        if Balance::decode(&stored.value).as_ref() != Some(&balance) {
            return Ok(None);
        }
        index.set(at, owner);
        if !swap(
            self.store,
            &index_key(self.prefix, bucket),
            &index.0,
            index_version,
        )? {
            return Ok(None);
        }
        balance.state = State::Open;
        Ok(Some(Found {
            key,
            balance,
            version: stored.version,
        }))
    }

    /// A slot that may be claimed: preferably one that is in no index, then one whose owner is
    /// idle, and one that another worker is claiming only where there is no other.
    fn idle_slot(
        &self,
        bucket: u32,
        index: &Index,
        owner: OwnerId,
        now: Timestamp,
    ) -> Result<Option<(usize, Balance, Version)>, Fault> {
        let mut being_claimed = None;
        for at in index.candidates(owner, self.size.slots) {
            let key = slot_key(self.prefix, bucket, at);
            let stored = load(self.store, &key)?;
            let Some(mut balance) = Balance::decode(&stored.value) else {
                // Nobody's to take until whatever it was has left the window.
                let spent = Balance::spent(index.owner(at), State::Open, self.window, now);
                swap(self.store, &key, &spent.encode(), stored.version)?;
                continue;
            };
            balance.advance(now);
            if balance.state == State::Claimed && ![owner, OwnerId::NOBODY].contains(&balance.owner)
            {
                being_claimed.get_or_insert((at, balance, stored.version));
            } else if balance.is_idle() {
                return Ok(Some((at, balance, stored.version)));
            }
        }
        Ok(being_claimed)
    }

    /// Replaces an index that can't be read by what the slots say. Slots that are being claimed get
    /// a new version first, so that none is opened that the new index does not name.
    fn rebuild_index(&self, bucket: u32, key: &str, version: Version) -> Result<(), Fault> {
        let mut index = Index::empty();
        for at in 0..SLOTS {
            let slot_key = slot_key(self.prefix, bucket, at);
            let stored = match load(self.store, &slot_key) {
                // A bucket of fewer slots.
                Err(Fault::Missing) => break,
                stored => stored?,
            };
            match Balance::decode(&stored.value) {
                Some(Balance {
                    state: State::Open,
                    owner,
                    ..
                }) => index.set(at, owner),
                Some(Balance {
                    owner: OwnerId::NOBODY,
                    ..
                })
                | None => {}
                Some(_) => {
                    if !swap(self.store, &slot_key, &stored.value, stored.version)? {
                        return Ok(());
                    }
                }
            }
        }
        swap(self.store, key, &index.0, version)?;
        Ok(())
    }
}

/// The value of an index: the version of the encoding, and the owner of each slot.
struct Index(Vec<u8>);

impl Index {
    const LEN: usize = 1 + SLOTS * OwnerId::LEN;

    fn empty() -> Self {
        let mut value = vec![0; Self::LEN];
        if let Some(version) = value.first_mut() {
            *version = VERSION;
        }
        Self(value)
    }

    fn decode(value: Vec<u8>) -> Option<Self> {
        (value.len() == Self::LEN && value.first() == Some(&VERSION)).then_some(Self(value))
    }

    fn owners(&self) -> &[[u8; OwnerId::LEN]] {
        self.0.get(1..).unwrap_or_default().as_chunks().0
    }

    fn owner(&self, at: usize) -> OwnerId {
        let bytes = self.owners().get(at);
        bytes
            .and_then(|bytes| OwnerId::from_bytes(bytes))
            .unwrap_or(OwnerId::NOBODY)
    }

    fn find(&self, owner: OwnerId) -> Option<usize> {
        self.owners()
            .iter()
            .position(|bytes| bytes == owner.as_bytes())
    }

    fn set(&mut self, at: usize, owner: OwnerId) {
        let entries = self.0.get_mut(1..).unwrap_or_default().as_chunks_mut().0;
        if let Some(entry) = entries.get_mut(at) {
            *entry = *owner.as_bytes();
        }
    }

    /// The places of `slots` slots, free ones first; owners begin apart, so that claims rarely meet.
    fn candidates(&self, owner: OwnerId, slots: usize) -> impl Iterator<Item = usize> {
        let begin = (owner.spread() >> 32)
            .checked_rem(slots as u64)
            .unwrap_or(0) as usize;
        let places = (begin..slots).chain(0..begin);
        let free = places
            .clone()
            .filter(|at| self.owner(*at) == OwnerId::NOBODY);
        free.chain(places.filter(|at| self.owner(*at) != OwnerId::NOBODY))
    }
}

fn index_key(prefix: &str, bucket: u32) -> String {
    format!("{prefix}{bucket}")
}

fn slot_key(prefix: &str, bucket: u32, at: usize) -> String {
    let mut key = index_key(prefix, bucket);
    // Writing to a string does not fail.
    let _ = write!(key, ".{at}");
    key
}
