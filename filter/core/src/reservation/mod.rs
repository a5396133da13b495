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
mod part;
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

use ledger::Account;
pub(crate) use part::Part;

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
            let part = self
                .account(ask.budget)
                .map_err(Reason::from)
                .and_then(|account| {
                    account.take(store, *ask, amounts.of(account.budget.unit), now, hold)
                });
            match part {
                Ok(part) => reservation.parts.push(part),
                Err(reason) => {
                    // What can't be given back counts as spent when its hold ends.
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
        let mut topped: Vec<(&Account, &mut Part)> = Vec::new();
        for part in &mut reservation.parts {
            let budget = part.ask.budget;
            let more = |account: &Account| more.of(account.budget.unit);
            let taken = self
                .account(budget)
                .map_err(Reason::from)
                .and_then(|account| {
                    account.take_more(store, part, more(account), now)?;
                    Ok(account)
                });
            match taken {
                Ok(account) => topped.push((account, part)),
                Err(reason) => {
                    for (account, part) in topped.into_iter().rev() {
                        account.give_back(store, part, more(account), now);
                    }
                    return Err(Refusal { budget, reason });
                }
            }
        }
        Ok(())
    }

    /// Ends one part: counts `used` in the place of what it reserved.
    pub(crate) fn close(
        &self,
        store: &impl Store,
        part: &Part,
        used: u64,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.account(part.ask.budget)?.close(store, part, used, now)
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
