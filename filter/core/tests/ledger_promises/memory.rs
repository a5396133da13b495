//! Shared data in memory, for tests: as Envoy's, with faults on request.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    num::NonZeroU32,
    time::Duration,
};

use almoner_core::{
    reservation::{
        Amounts, Ask, Budget, BudgetIndex, Clamp, Ledger, OwnerId, Owners, Store, StoreError,
        Stored, Swap, Unit, Version,
    },
    units::{MicroUsd, Timestamp, Tokens},
};

/// Longer than any exchange of these tests lasts.
pub(crate) const HOLD: Duration = Duration::from_secs(900);

/// A Tuesday in 2026, not on the edge of any slot.
pub(crate) const START: Timestamp = Timestamp(1_795_512_345_678);

/// One process's shared data.
#[derive(Default)]
pub(crate) struct Memory {
    values: RefCell<BTreeMap<String, (Vec<u8>, NonZeroU32)>>,
    versions: Cell<u32>,
    /// How many of the next swaps lose a race against a worker who writes the same again.
    pub(crate) conflicts: Cell<u32>,
    /// How many more operations succeed; `None` is all.
    pub(crate) dies_after: Cell<Option<u32>>,
    /// Operations so far.
    pub(crate) operations: Cell<u32>,
}

impl Memory {
    /// Shared data in which the ledger's keys were created.
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let memory = Self::default();
        memory.lay_out(ledger);
        memory
    }

    /// What a worker does when a configuration loads: creates the keys that are missing.
    pub(crate) fn lay_out(&self, ledger: &Ledger) {
        for (key, value) in ledger.layout() {
            if !self.values.borrow().contains_key(&key) {
                self.overwrite(&key, &value);
            }
        }
    }

    /// Writes without looking, as another plugin might.
    pub(crate) fn overwrite(&self, key: &str, value: &[u8]) {
        self.versions.set(self.versions.get() + 1);
        let version = NonZeroU32::new(self.versions.get()).unwrap();
        self.values
            .borrow_mut()
            .insert(key.to_owned(), (value.to_vec(), version));
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.values.borrow().keys().cloned().collect()
    }

    pub(crate) fn value(&self, key: &str) -> Vec<u8> {
        self.values.borrow()[key].0.clone()
    }

    pub(crate) fn remove(&self, key: &str) {
        self.values.borrow_mut().remove(key);
    }

    fn operate(&self) -> Result<(), StoreError> {
        self.operations.set(self.operations.get() + 1);
        match self.dies_after.get() {
            Some(0) => Err(StoreError),
            left => {
                self.dies_after.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

impl Store for Memory {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.operate()?;
        let values = self.values.borrow();
        Ok(values.get(key).map(|(value, version)| Stored {
            value: value.clone(),
            version: Version(*version),
        }))
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        self.operate()?;
        if self.conflicts.get() > 0 {
            self.conflicts.set(self.conflicts.get() - 1);
            let same = self.value(key);
            self.overwrite(key, &same);
        }
        assert!(
            self.values.borrow().contains_key(key),
            "swap would create `{key}`"
        );
        if self.values.borrow()[key].1 != version.0 {
            return Ok(Swap::Conflict);
        }
        self.overwrite(key, value);
        Ok(Swap::Done)
    }
}

pub(crate) fn budget(name: &str, unit: Unit, limit: u64, window: &str, owners: Owners) -> Budget {
    Budget {
        name: name.to_owned(),
        unit,
        limit,
        window: window.parse().unwrap(),
        owners,
    }
}

/// One budget of tokens that everybody shares.
pub(crate) fn shared(limit: u64, window: &str) -> Ledger {
    let owners = Owners::Listed(vec![OwnerId::all()]);
    Ledger::new(
        "test",
        vec![budget("all", Unit::Tokens, limit, window, owners)],
    )
}

/// One budget of tokens for each subject.
pub(crate) fn per_subject(limit: u64, window: &str, subjects: u32) -> Ledger {
    let owners = Owners::Table(subjects);
    Ledger::new(
        "test",
        vec![budget("each", Unit::Tokens, limit, window, owners)],
    )
}

pub(crate) fn ask(budget: usize, owner: OwnerId) -> Ask {
    Ask {
        budget: BudgetIndex(budget),
        owner,
        clamp: Clamp::NONE,
    }
}

pub(crate) fn everybody() -> [Ask; 1] {
    [ask(0, OwnerId::all())]
}

pub(crate) fn subject(name: &str) -> [Ask; 1] {
    [ask(0, OwnerId::subject(name))]
}

/// One request that reads nothing and writes `output`, at a micro-dollar a token.
pub(crate) fn tokens(output: u64) -> Amounts {
    Amounts {
        requests: 1,
        input: Tokens::ZERO,
        output: Tokens(output),
        cost: MicroUsd(output),
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
