//! Counters: takes what happened, adds to Envoy's stats.
//!
//! Envoy never frees a metric, so each part of a name is a name of the configuration or of a
//! closed set; nothing that a request says can make a new one.

use std::{cell::RefCell, collections::BTreeMap};

use almoner_core::record::Record;

use crate::host;

/// The counters of one worker; Envoy adds all workers' up.
#[derive(Default)]
pub(crate) struct Metrics {
    ids: RefCell<BTreeMap<String, Option<u32>>>,
}

impl Metrics {
    /// Adds to the counter of this name, which is defined when it is first counted.
    pub(crate) fn add(&self, name: &str, by: u64) {
        let mut ids = self.ids.borrow_mut();
        let id = match ids.get(name) {
            Some(id) => *id,
            None => *ids
                .entry(name.to_owned())
                .or_insert_with(|| host::define_counter(name)),
        };
        if let Some(id) = id {
            host::add(id, by);
        }
    }

    /// Counts what a record says.
    pub(crate) fn count(&self, record: &Record) {
        record.counts(|name, by| self.add(name, by));
    }
}
