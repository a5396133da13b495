//! One budget's part of a reservation: takes an amount and the time; reserves, adds, gives back,
//! and counts what was used in the balance that it found.

use std::time::Duration;

use crate::units::Timestamp;

use super::{
    Ask, Reason, Standing,
    amounts::Clamp,
    balance::Balance,
    ledger::{Account, Fault, Found, attempt, load, swap},
    store::Store,
};

/// What is reserved in one budget.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) ask: Ask,
    /// In the budget's unit, top-ups included.
    pub(crate) amount: u64,
    /// How the budget stood when this last changed.
    pub(super) standing: Standing,
    key: String,
    /// Of the balance at `key`.
    generation: u64,
    taken: Taken,
}

/// How the balance counts what was reserved.
#[derive(Clone, Copy, Debug)]
enum Taken {
    /// As held, until this time; then as spent.
    Held(Timestamp),
    /// As spent, since this time.
    Spent(Timestamp),
}

impl Account {
    pub(super) fn take(
        &self,
        store: &impl Store,
        ask: Ask,
        amount: u64,
        now: Timestamp,
        hold: Duration,
    ) -> Result<Part, Reason> {
        attempt(|| {
            let Some(mut found) = self.find(store, ask.owner, now)? else {
                return Ok(None);
            };
            found.balance.reshape(self.budget.window);
            self.admit(&found.balance, ask.clamp, amount, now)?;
            let taken = if self.budget.unit.is_spent_at_admission() {
                Taken::Spent(found.balance.spend(amount))
            } else {
                Taken::Held(found.balance.hold(amount, hold))
            };
            let standing = self.standing(&found.balance, ask.clamp, now);
            let generation = found.balance.generation;
            let key = found.replace(store)?;
            Ok(key.map(|key| Part {
                ask,
                amount,
                standing,
                key,
                generation,
                taken,
            }))
        })
    }

    /// Reserves `amount` more.
    pub(super) fn take_more(
        &self,
        store: &impl Store,
        part: &mut Part,
        amount: u64,
        now: Timestamp,
    ) -> Result<(), Reason> {
        if amount == 0 {
            return Ok(());
        }
        part.standing = attempt(|| {
            let Some(mut found) = part.find(store, now)? else {
                return Err(Reason::Lapsed);
            };
            self.admit(&found.balance, part.ask.clamp, amount, now)?;
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.hold_more(amount, ends);
                }
                Taken::Held(_) => return Err(Reason::Lapsed),
                Taken::Spent(_) => {
                    found.balance.spend(amount);
                }
            }
            let standing = self.standing(&found.balance, part.ask.clamp, now);
            Ok(found.replace(store)?.map(|_| standing))
        })?;
        part.amount = part.amount.saturating_add(amount);
        Ok(())
    }

    /// Undoes [`take_more`](Self::take_more). Where that fails, the part keeps the amount.
    pub(super) fn give_back(
        &self,
        store: &impl Store,
        part: &mut Part,
        amount: u64,
        now: Timestamp,
    ) {
        if amount == 0 {
            return;
        }
        let given: Result<Standing, Fault> = attempt(|| {
            let Some(mut found) = part.find(store, now)? else {
                return Ok(Some(part.standing));
            };
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.unhold(amount, ends);
                }
                Taken::Held(since) | Taken::Spent(since) => found.balance.refund(amount, since),
            }
            let standing = self.standing(&found.balance, part.ask.clamp, now);
            Ok(found.replace(store)?.map(|_| standing))
        });
        if let Ok(standing) = given {
            part.standing = standing;
            part.amount = part.amount.saturating_sub(amount);
        }
    }

    /// Puts what was used in the place of what was reserved.
    pub(super) fn close(
        &self,
        store: &impl Store,
        part: &Part,
        used: u64,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if used == part.amount && matches!(part.taken, Taken::Spent(_)) {
            return Ok(());
        }
        let (over, unused) = (
            used.saturating_sub(part.amount),
            part.amount.saturating_sub(used),
        );
        attempt(|| {
            let Some(mut found) = part.find(store, now)? else {
                // The slot was another's since, so all that was reserved has left the window.
                return self.spend(store, part, over, now);
            };
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.unhold(part.amount, ends);
                    found.balance.spend(used);
                }
                Taken::Held(since) | Taken::Spent(since) => {
                    found.balance.refund(unused, since);
                    found.balance.spend(over);
                }
            }
            Ok(found.replace(store)?.map(drop))
        })
    }

    /// Counts what was used beyond a reservation of which nothing is left.
    fn spend(
        &self,
        store: &impl Store,
        part: &Part,
        over: u64,
        now: Timestamp,
    ) -> Result<Option<()>, Fault> {
        if over == 0 {
            return Ok(Some(()));
        }
        let Some(mut found) = self.find(store, part.ask.owner, now)? else {
            return Ok(None);
        };
        found.balance.spend(over);
        Ok(found.replace(store)?.map(drop))
    }

    fn admit(
        &self,
        balance: &Balance,
        clamp: Clamp,
        amount: u64,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let standing = self.standing(balance, clamp, now);
        let total = balance.total().checked_add(amount);
        if total.is_some_and(|total| total <= standing.limit) {
            return Ok(());
        }
        let fits_at = balance.fits_at(amount, standing.limit);
        Err(Reason::Spent {
            standing,
            retry_after: fits_at.map(|time| time.since(now)),
        })
    }

    fn standing(&self, balance: &Balance, clamp: Clamp, now: Timestamp) -> Standing {
        let limit = clamp.of(self.budget.limit);
        Standing {
            limit,
            remaining: limit.saturating_sub(balance.total()),
            reset: balance.resets_at().since(now),
        }
    }
}

impl Part {
    /// The balance that was reserved in, at `now`; `None` where its owner has left that slot,
    /// which happens only when nothing of theirs counts in it any more.
    fn find(&self, store: &impl Store, now: Timestamp) -> Result<Option<Found>, Fault> {
        let stored = load(store, &self.key)?;
        let mut balance = Balance::decode(&stored.value).ok_or(Fault::Malformed)?;
        balance.advance(now);
        let is_ours = balance.generation == self.generation && balance.owner == self.ask.owner;
        Ok(is_ours.then(|| Found {
            key: self.key.clone(),
            balance,
            version: stored.version,
        }))
    }
}

impl Found {
    /// Writes the balance back; gives its key, or `None` where another worker was faster.
    fn replace(self, store: &impl Store) -> Result<Option<String>, Fault> {
        let swapped = swap(store, &self.key, &self.balance.encode(), self.version)?;
        Ok(swapped.then_some(self.key))
    }
}
