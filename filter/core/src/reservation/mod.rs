//! Takes what an exchange may spend, and the time; gives a reservation in all of its budgets, or a
//! refusal and nothing reserved in any.
//!
//! A [`Ledger`] keeps its balances in a [`Store`] that several workers share, each value changed
//! by compare-and-swap alone, so *spent + held + asked <= limit* is decided and written in one step.
//! An exchange that is admitted holds the most that it may spend; [`Ledger::settle`] puts what it
//! did spend in the hold's place, [`Ledger::release`] gives it back where nothing went upstream.
//!
//! ```text
//!              reserve                 settle: spent now ──────▶ leaves with the window
//!   free ───────────────────▶ held ──┤ release: given back ────▶ free
//!     requests: spent at once  ▲ │    └ nobody did: spent whole when the hold ends
//!                       top_up └─┘
//! ```
//!
//! A worker may die at any point. What it held then ends by itself and counts as spent, so the
//! limit is kept, nothing is free, and nothing is taken for ever.

mod amounts;
mod balance;
mod calendar;
mod ledger;
mod owner;
mod ring;
mod store;
mod table;
mod window;

use std::time::Duration;

use thiserror::Error;

use crate::units::Timestamp;

pub use amounts::{Amounts, Clamp, Unit};
pub use ledger::{Budget, BudgetIndex, Fault, Ledger, Owners};
pub use owner::OwnerId;
pub use store::{Store, StoreError, Stored, Swap, Version};
pub use window::{Expected, Window};

use balance::Balance;
use ledger::{Account, Found, attempt, load, swap};

/// One budget that an exchange draws on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Which budget.
    pub budget: BudgetIndex,
    /// Whose balance in it.
    pub owner: OwnerId,
    /// How much of the limit stands for this exchange.
    pub clamp: Clamp,
}

/// What one exchange holds. [`Ledger::settle`] or [`Ledger::release`] consumes it; one that is
/// dropped counts as spent, whole, when its hold ends.
#[derive(Debug)]
#[must_use = "what is held counts as spent unless it is settled or released"]
pub struct Reservation {
    pub(crate) parts: Vec<Part>,
}

/// What is reserved in one budget.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) ask: Ask,
    pub(crate) amount: u64,
    key: String,
    taken: Taken,
    standing: Standing,
}

/// How a balance counts a reservation.
#[derive(Clone, Copy, Debug)]
enum Taken {
    /// As spent, since this time.
    Spent(Timestamp),
    /// As held, until this time.
    Held(Timestamp),
}

/// How a budget stands for one owner, for the headers that tell a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The limit that stands, clamped.
    pub limit: u64,
    /// What is neither spent nor held.
    pub remaining: u64,
    /// Until all that was spent so far is free again; what running exchanges hold is left out.
    pub reset: Duration,
}

/// The budget that refused, and why. Nothing is reserved in any other.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("budget {}: {reason}", budget.0)]
pub struct Refusal {
    /// Which budget.
    pub budget: BudgetIndex,
    /// Why.
    pub reason: Reason,
}

/// Why a budget refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Reason {
    /// The balance could not be read or changed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The hold that was to be topped up has ended by itself.
    #[error("the reservation has ended")]
    Lapsed,
    /// Less is free than was asked for.
    #[error("the budget is spent")]
    Spent {
        /// How the budget stands.
        standing: Standing,
        /// After this long the same ask fits for certain, if others spend nothing until then;
        /// `None` where it is more than the limit, so that waiting does not help.
        retry_after: Option<Duration>,
    },
}

impl Ledger {
    /// Reserves each ask's budget its amount, in all of them or in none. What is held is held for
    /// at least `hold`: longer than the exchange may last.
    ///
    /// # Errors
    /// The first budget that refuses.
    pub fn reserve(
        &self,
        store: &impl Store,
        asks: &[Ask],
        amounts: &Amounts,
        now: Timestamp,
        hold: Duration,
    ) -> Result<Reservation, Refusal> {
        let mut reservation = Reservation {
            parts: Vec::with_capacity(asks.len()),
        };
        for ask in asks {
            match self.take(store, *ask, amounts, now, hold) {
                Ok(part) => reservation.parts.push(part),
                Err(reason) => {
                    // A part that can't be given back ends by itself.
                    self.release(store, reservation, now);
                    return Err(Refusal {
                        budget: ask.budget,
                        reason,
                    });
                }
            }
        }
        Ok(reservation)
    }

    /// Reserves more in a running exchange, in all of its budgets or in none. Budgets that nothing
    /// is added to are not asked.
    ///
    /// # Errors
    /// The first budget that refuses; the reservation is then as it was.
    pub fn top_up(
        &self,
        store: &impl Store,
        reservation: &mut Reservation,
        more: &Amounts,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let parts = &mut reservation.parts;
        for at in 0..parts.len() {
            let (topped, rest) = parts.split_at_mut(at);
            let Some(part) = rest.first_mut() else { break };
            if let Err(reason) = self.take_more(store, part, more, now) {
                let budget = part.ask.budget;
                for part in topped.iter_mut().rev() {
                    self.give_back(store, part, more, now);
                }
                return Err(Refusal { budget, reason });
            }
        }
        Ok(())
    }

    fn take(
        &self,
        store: &impl Store,
        ask: Ask,
        amounts: &Amounts,
        now: Timestamp,
        hold: Duration,
    ) -> Result<Part, Reason> {
        let account = self.account(ask.budget)?;
        let amount = amounts.of(account.budget.unit);
        attempt(|| {
            let Some(mut found) = account.find(store, ask.owner, now)? else {
                return Ok(None);
            };
            found.balance.reshape(account.budget.window);
            admit(account, &found.balance, ask.clamp, amount, now)?;
            let taken = if account.budget.unit.is_spent_at_admission() {
                Taken::Spent(found.balance.spend(amount))
            } else {
                Taken::Held(found.balance.hold(amount, hold))
            };
            let standing = standing(account, &found.balance, ask.clamp, now);
            let key = found.replace(store)?;
            Ok(key.map(|key| Part {
                ask,
                amount,
                key,
                taken,
                standing,
            }))
        })
    }

    fn take_more(
        &self,
        store: &impl Store,
        part: &mut Part,
        more: &Amounts,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let account = self.account(part.ask.budget)?;
        let amount = more.of(account.budget.unit);
        if amount == 0 {
            return Ok(());
        }
        let standing = attempt(|| {
            let Some(mut found) = part.find(store, now)? else {
                return Err(Reason::Lapsed);
            };
            admit(account, &found.balance, part.ask.clamp, amount, now)?;
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.hold_more(amount, ends);
                }
                Taken::Held(_) => return Err(Reason::Lapsed),
                Taken::Spent(_) => {
                    found.balance.spend(amount);
                }
            }
            let standing = standing(account, &found.balance, part.ask.clamp, now);
            Ok(found.replace(store)?.map(|_| standing))
        })?;
        part.standing = standing;
        part.amount = part.amount.saturating_add(amount);
        Ok(())
    }
}

impl Ledger {
    /// Takes a top-up back. Where that fails, the part keeps it.
    fn give_back(&self, store: &impl Store, part: &mut Part, less: &Amounts, now: Timestamp) {
        let Ok(account) = self.account(part.ask.budget) else {
            return;
        };
        let amount = less.of(account.budget.unit);
        let given = attempt(|| {
            let Some(mut found) = part.find(store, now)? else {
                return Ok(Some(()));
            };
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.unhold(amount, ends);
                }
                Taken::Held(since) | Taken::Spent(since) => found.balance.refund(amount, since),
            }
            Ok::<_, Fault>(found.replace(store)?.map(drop))
        });
        if given.is_ok() {
            part.amount = part.amount.saturating_sub(amount);
        }
    }

    /// Puts what was used in the place of what was reserved.
    pub(crate) fn close(
        &self,
        store: &impl Store,
        part: &Part,
        used: u64,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let account = self.account(part.ask.budget)?;
        if used == part.amount && matches!(part.taken, Taken::Spent(_)) {
            return Ok(());
        }
        attempt(|| {
            let over = used.saturating_sub(part.amount);
            let Some(mut found) = part.find(store, now)? else {
                // The hold ended, what it held left the window, and the slot was another's since:
                // only what was used beyond it is still to be counted.
                if over == 0 {
                    return Ok(Some(()));
                }
                let Some(mut found) = account.find(store, part.ask.owner, now)? else {
                    return Ok(None);
                };
                found.balance.spend(over);
                return Ok(found.replace(store)?.map(drop));
            };
            match part.taken {
                Taken::Held(ends) if found.balance.holds_until(ends) => {
                    found.balance.unhold(part.amount, ends);
                    found.balance.spend(used);
                }
                Taken::Held(since) | Taken::Spent(since) => {
                    found
                        .balance
                        .refund(part.amount.saturating_sub(used), since);
                    found.balance.spend(over);
                }
            }
            Ok(found.replace(store)?.map(drop))
        })
    }
}

impl Reservation {
    /// How each budget stood for this exchange when it last reserved.
    pub fn standings(&self) -> impl Iterator<Item = (BudgetIndex, Standing)> {
        self.parts
            .iter()
            .map(|part| (part.ask.budget, part.standing))
    }

    /// Lowers or restores the limits of one owner's budgets, from the next top-up on.
    pub fn clamp(&mut self, owner: OwnerId, clamp: Clamp) {
        for part in self.parts.iter_mut().filter(|part| part.ask.owner == owner) {
            part.ask.clamp = clamp;
        }
    }
}

impl Part {
    /// The balance that was reserved in, at `now`; `None` where its owner has left that slot,
    /// which nobody does while the slot holds or counts anything of theirs.
    fn find(&self, store: &impl Store, now: Timestamp) -> Result<Option<Found>, Fault> {
        let stored = load(store, &self.key)?;
        let mut balance = Balance::decode(&stored.value, Window::DAY).ok_or(Fault::Malformed)?;
        balance.advance(now);
        let is_ours = balance.owner == self.ask.owner && balance.state == balance::State::Open;
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

fn admit(
    account: &Account,
    balance: &Balance,
    clamp: Clamp,
    amount: u64,
    now: Timestamp,
) -> Result<(), Reason> {
    let limit = clamp.of(account.budget.limit);
    if balance
        .total()
        .checked_add(amount)
        .is_some_and(|total| total <= limit)
    {
        return Ok(());
    }
    Err(Reason::Spent {
        standing: standing(account, balance, clamp, now),
        retry_after: balance.fits_at(amount, limit).map(|time| time.since(now)),
    })
}

fn standing(account: &Account, balance: &Balance, clamp: Clamp, now: Timestamp) -> Standing {
    let limit = clamp.of(account.budget.limit);
    Standing {
        limit,
        remaining: limit.saturating_sub(balance.total()),
        reset: balance.resets_at().since(now),
    }
}
