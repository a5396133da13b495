//! Takes a reservation and what was used; gives, per budget, how the two differ.

use crate::{
    reservation::{Amounts, BudgetIndex, Fault, Ledger, Reservation, Store},
    units::Timestamp,
};

/// How one exchange's reservation was replaced by what it used, in the order in which it asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settlement {
    /// One for each budget.
    pub budgets: Vec<Settled>,
}

/// What was reserved and used in one budget, in its unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settled {
    /// Which budget.
    pub budget: BudgetIndex,
    /// What was reserved, top-ups included.
    pub reserved: u64,
    /// What was used.
    pub used: u64,
    /// Why the balance was not changed, where it was not. What was reserved then counts as spent.
    pub fault: Option<Fault>,
}

impl Settled {
    /// What was reserved and not used: free again.
    #[must_use]
    pub const fn refund(&self) -> u64 {
        match self.fault {
            Some(_) => 0,
            None => self.reserved.saturating_sub(self.used),
        }
    }

    /// What was used beyond what was reserved: it counts against the next exchange. Where there
    /// was a fault, this is what no balance knows of.
    #[must_use]
    pub const fn overdraft(&self) -> u64 {
        self.used.saturating_sub(self.reserved)
    }
}

impl Ledger {
    /// Counts what an exchange used as spent, and ends its hold. May spend beyond the limit: what
    /// was used was used.
    pub fn settle(
        &self,
        store: &impl Store,
        reservation: Reservation,
        used: &Amounts,
        now: Timestamp,
    ) -> Settlement {
        let settled = reservation.parts.iter().map(|part| {
            let used = self.unit(part.ask.budget).map_or(0, |unit| used.of(unit));
            let fault = self.close(store, part, used, now).err();
            Settled {
                budget: part.ask.budget,
                reserved: part.amount,
                used,
                fault,
            }
        });
        Settlement {
            budgets: settled.collect(),
        }
    }

    /// Gives a reservation back of which nothing was used: the exchange never went upstream. Last
    /// taken, first given back.
    pub fn release(
        &self,
        store: &impl Store,
        mut reservation: Reservation,
        now: Timestamp,
    ) -> Settlement {
        reservation.parts.reverse();
        self.settle(store, reservation, &Amounts::ZERO, now)
    }
}
