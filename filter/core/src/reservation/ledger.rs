//! Takes the budgets of a configuration; gives the keys to create, and an owner's balance.

use std::fmt::Write;

use thiserror::Error;

use crate::units::Timestamp;

use super::{
    amounts::Unit,
    balance::{Balance, State},
    owner::OwnerId,
    store::{Store, Stored, Swap, Version},
    table::{Size, Table},
    window::Window,
};

/// Passes over one balance before a worker gives up. Each lost pass is another worker's progress.
const ATTEMPTS: usize = 32;

/// A limit in a unit per window, and for whom balances are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Budget {
    /// The name in the configuration: part of the keys.
    pub name: String,
    /// What the limit counts.
    pub unit: Unit,
    /// The most that may be spent and held at a time, in the unit.
    pub limit: u64,
    /// For how long what is spent counts.
    pub window: Window,
    /// Whose spending is counted apart.
    pub owners: Owners,
}

/// Whose balances a budget keeps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Owners {
    /// These, a balance each: known from the configuration (policies, providers, everybody).
    Listed(Vec<OwnerId>),
    /// Whoever comes, up to this many who spend within one window (subjects): a table of slots.
    /// Above 64, another number spreads owners anew: each may find a slot that is not its old one.
    Table(u32),
}

/// The place of a budget in the list that made the ledger.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BudgetIndex(pub usize);

/// Why a balance could not be read or changed. In each case nothing was freed, and nothing spent.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Fault {
    /// Other workers changed the balance each time that this one tried.
    #[error("lost the race for a balance {ATTEMPTS} times")]
    Contended,
    /// The value was not one of ours; it counts as spent for one window from now.
    #[error("a balance could not be read and counts as spent")]
    Malformed,
    /// No such budget, owner or key: the configuration and the layout do not match.
    #[error("a balance was never laid out")]
    Missing,
    /// The host failed.
    #[error("shared data could not be read or written")]
    StoreFailed,
    /// Each slot that this subject may have is another's, who spent within the window.
    #[error("all slots for balances are taken")]
    TableFull,
}

/// All budgets of a configuration, over balances in shared data.
#[derive(Debug)]
pub struct Ledger {
    accounts: Vec<Account>,
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) budget: Budget,
    /// What all keys of this budget begin with.
    prefix: String,
}

/// A balance as it was found, open, and the version by which it may be replaced.
pub(super) struct Found {
    pub(super) key: String,
    pub(super) balance: Balance,
    pub(super) version: Version,
}

impl Ledger {
    /// A ledger of these budgets, whose names are unique. Ledgers of the same namespace and shared
    /// data share the balances of budgets of the same name, whatever limit and window each has.
    #[must_use]
    pub fn new(namespace: &str, budgets: Vec<Budget>) -> Self {
        let accounts = budgets.into_iter().map(|budget| Account {
            // The lengths keep two pairs of names from spelling one key.
            prefix: format!(
                "almoner/budget/1/{}:{namespace}/{}:{}/",
                namespace.len(),
                budget.name.len(),
                budget.name
            ),
            budget,
        });
        Self {
            accounts: accounts.collect(),
        }
    }

    /// Every key of this ledger with its first value. Whoever loads the configuration creates
    /// those that are missing, and leaves those that exist as they are, before the first request.
    pub fn layout(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.accounts
            .iter()
            .flat_map(|account| -> Box<dyn Iterator<Item = _>> {
                let prefix = account.prefix.as_str();
                match &account.budget.owners {
                    Owners::Listed(owners) => Box::new(owners.iter().map(|owner| {
                        let window = account.budget.window;
                        let balance =
                            Balance::new(*owner, State::Open, window, Timestamp::default());
                        (owner_key(prefix, *owner), balance.encode())
                    })),
                    Owners::Table(owners) => Box::new(Size::of(*owners).layout(prefix)),
                }
            })
    }

    /// The budget of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<BudgetIndex> {
        self.accounts
            .iter()
            .position(|account| account.budget.name == name)
            .map(BudgetIndex)
    }

    /// What the budget counts; `None` where there is no such budget.
    #[must_use]
    pub fn unit(&self, index: BudgetIndex) -> Option<Unit> {
        self.accounts
            .get(index.0)
            .map(|account| account.budget.unit)
    }

    pub(super) fn account(&self, index: BudgetIndex) -> Result<&Account, Fault> {
        self.accounts.get(index.0).ok_or(Fault::Missing)
    }
}

impl Account {
    /// The owner's balance, open and at `now`; `None` where another worker was faster.
    pub(super) fn find(
        &self,
        store: &impl Store,
        owner: OwnerId,
        now: Timestamp,
    ) -> Result<Option<Found>, Fault> {
        let Budget { window, owners, .. } = &self.budget;
        let found = match owners {
            Owners::Table(owners) => {
                let (prefix, size) = (self.prefix.as_str(), Size::of(*owners));
                Table {
                    store,
                    prefix,
                    size,
                    window: *window,
                }
                .find(owner, now)?
            }
            Owners::Listed(owners) if owners.contains(&owner) => {
                Found::load(store, owner_key(&self.prefix, owner), owner, *window, now)?
            }
            Owners::Listed(_) => return Err(Fault::Missing),
        };
        Ok(found.map(|mut found| {
            found.balance.advance(now);
            found
        }))
    }
}

impl Found {
    /// The balance of an owner who has this key alone. What can't be read becomes spent.
    fn load(
        store: &impl Store,
        key: String,
        owner: OwnerId,
        window: Window,
        now: Timestamp,
    ) -> Result<Option<Self>, Fault> {
        let Stored { value, version } = load(store, &key)?;
        match Balance::decode(&value) {
            Some(balance) if balance.owner == owner && balance.state == State::Open => {
                Ok(Some(Self {
                    key,
                    balance,
                    version,
                }))
            }
            _ => {
                let spent = Balance::spent(owner, State::Open, window, now).encode();
                if swap(store, &key, &spent, version)? {
                    Err(Fault::Malformed)
                } else {
                    Ok(None)
                }
            }
        }
    }
}

/// Runs `pass` until it gives something, a bounded number of times.
pub(super) fn attempt<T, E: From<Fault>>(
    mut pass: impl FnMut() -> Result<Option<T>, E>,
) -> Result<T, E> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = pass()? {
            return Ok(done);
        }
    }
    Err(Fault::Contended.into())
}

pub(super) fn load(store: &impl Store, key: &str) -> Result<Stored, Fault> {
    store
        .load(key)
        .map_err(|_| Fault::StoreFailed)?
        .ok_or(Fault::Missing)
}

/// Whether the value was replaced; if not, another worker was faster.
pub(super) fn swap(
    store: &impl Store,
    key: &str,
    value: &[u8],
    version: Version,
) -> Result<bool, Fault> {
    let swap = store
        .swap(key, value, version)
        .map_err(|_| Fault::StoreFailed)?;
    Ok(swap == Swap::Done)
}

fn owner_key(prefix: &str, owner: OwnerId) -> String {
    let mut key = prefix.to_owned();
    for byte in owner.as_bytes() {
        // Writing to a string does not fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}
