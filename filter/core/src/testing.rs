//! Stand-ins for the host in the core's own tests: attributes in a map, shared data in a map.

use std::{cell::RefCell, collections::BTreeMap, num::NonZeroU32};

use crate::{
    attributes::Attributes,
    reservation::{Ledger, Store, StoreError, Stored, Swap, Version},
};

/// Attributes by their path, joined with dots.
#[derive(Default)]
pub(crate) struct Map(BTreeMap<String, Vec<u8>>);

impl Map {
    pub(crate) fn set(&mut self, path: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.0.insert(path.to_owned(), value.as_ref().to_owned());
        self
    }
}

impl Attributes for Map {
    fn attribute(&self, path: &[&str]) -> Option<Vec<u8>> {
        self.0.get(&path.join(".")).cloned()
    }
}

/// Shared data of one worker that nobody else writes to.
#[derive(Default)]
pub(crate) struct Memory(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl Memory {
    pub(crate) fn laid_out(ledger: &Ledger) -> Self {
        let memory = Self::default();
        for (key, value) in ledger.layout() {
            memory.0.borrow_mut().insert(key, (value, 1));
        }
        memory
    }
}

impl Store for Memory {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let values = self.0.borrow();
        let stored = values.get(key).and_then(|(value, version)| {
            let version = Version(NonZeroU32::new(*version)?);
            Some(Stored {
                value: value.clone(),
                version,
            })
        });
        Ok(stored)
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        let mut values = self.0.borrow_mut();
        let (old, now) = values.get_mut(key).ok_or(StoreError)?;
        if *now != version.0.get() {
            return Ok(Swap::Conflict);
        }
        *old = value.to_owned();
        *now = now.wrapping_add(1).max(1);
        Ok(Swap::Done)
    }
}
