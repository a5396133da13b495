//! What the root and the streams of one worker share.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    mem,
    rc::Rc,
};

use almoner_core::{
    config::Config,
    exchange::{Exchange, Host, LeaseFetch, LeaseStep},
    lease::{BrokerFailure, Lease, LeaseKey, Leases},
    record::Record,
    reply::Reply,
    reservation::Ledger,
};
use proxy_wasm::types::LogLevel;

use crate::{
    host::{self, EnvoyAttributes, SharedData},
    metrics::Metrics,
    record,
};

/// One configuration on one worker.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) leases: RefCell<Leases<u32>>,
    /// The exchanges under way, by the id of their context.
    live: RefCell<BTreeMap<u32, Rc<Live>>>,
    /// Leases that the root has to ask for.
    fetches: RefCell<Vec<LeaseFetch>>,
    /// The queue by which a stream wakes the root.
    pub(crate) bell: u32,
}

/// An exchange under way.
pub(crate) struct Live {
    pub(crate) exchange: RefCell<Exchange>,
    /// Whether any of the body, or its end, has come.
    pub(crate) body_seen: Cell<bool>,
    /// Whether the whole body has come.
    pub(crate) body_complete: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(config: Config, ledger: Ledger, bell: u32) -> Self {
        let leases = RefCell::new(Leases::new(config.limits.leases));
        Self {
            config,
            ledger,
            metrics: Metrics::default(),
            leases,
            live: RefCell::default(),
            fetches: RefCell::default(),
            bell,
        }
    }

    /// What exchanges ask, at this moment.
    pub(crate) fn host(&self) -> Host<'_, EnvoyAttributes, SharedData> {
        Host {
            config: &self.config,
            ledger: &self.ledger,
            attributes: &EnvoyAttributes,
            store: &SharedData,
            now: host::now(),
        }
    }

    /// Begins an exchange.
    pub(crate) fn begin(&self, id: u32) -> Rc<Live> {
        let live = Rc::new(Live {
            exchange: RefCell::default(),
            body_seen: Cell::new(false),
            body_complete: Cell::new(false),
        });
        self.live.borrow_mut().insert(id, Rc::clone(&live));
        live
    }

    /// Forgets an exchange that is over.
    pub(crate) fn forget(&self, id: u32) {
        self.live.borrow_mut().remove(&id);
    }

    /// The exchanges under way.
    pub(crate) fn live(&self) -> Vec<(u32, Rc<Live>)> {
        self.live
            .borrow()
            .iter()
            .map(|(id, live)| (*id, Rc::clone(live)))
            .collect()
    }

    /// Has the root ask for a lease.
    pub(crate) fn ask(&self, fetch: LeaseFetch) {
        self.fetches.borrow_mut().push(fetch);
        if host::ring(self.bell).is_err() {
            self.critical(
                "bell_broken",
                "can't wake the root: leases wait for its next tick",
            );
        }
    }

    /// The leases that are to be asked for.
    pub(crate) fn take_fetches(&self) -> Vec<LeaseFetch> {
        mem::take(&mut self.fetches.borrow_mut())
    }

    /// A fetch has ended: whoever waited goes on. Leaves another context effective.
    pub(crate) fn fetched(&self, key: &LeaseKey, result: Result<Lease, BrokerFailure>) {
        let outcome = result
            .as_ref()
            .map_or_else(|failure| failure.reason(), |_| "issued");
        self.metrics
            .add(&format!("almoner_leases;result={outcome}"), 1);
        let waiting = self.leases.borrow_mut().complete(key, result, host::now());
        for id in waiting {
            let live = self.live.borrow().get(&id).map(Rc::clone);
            let Some(live) = live else { continue };
            if host::as_context(id).is_err() {
                continue;
            }
            let host = self.host();
            let step = live
                .exchange
                .borrow_mut()
                .on_lease(&self.leases.borrow(), &host);
            match step {
                LeaseStep::Nothing => {}
                LeaseStep::Refuse(reply) => self.answer(&reply),
                LeaseStep::Send(header) => {
                    let sent = host::set_request_header(header.name, &header.value)
                        .and_then(|()| host::resume_request());
                    if sent.is_err() {
                        self.critical("host_failure", "can't resume a request");
                        let _ = host::reset_stream();
                    }
                }
            }
        }
    }

    /// Answers the request of the effective context. Where that fails, it is ended.
    pub(crate) fn answer(&self, reply: &Reply) {
        if host::reply(reply).is_err() {
            self.critical("host_failure", "can't answer a request");
            let _ = host::reset_stream();
        }
    }

    /// An exchange is over: leaves its record, counts it.
    pub(crate) fn finish(&self, record: &Record) {
        self.metrics.count(record);
        if record::leave(record).is_err() {
            self.critical("record_lost", "can't leave a record in the access log");
        }
    }

    /// Something that an operator must see.
    pub(crate) fn critical(&self, what: &str, line: &str) {
        self.metrics
            .add(&format!("almoner_critical;reason={what}"), 1);
        host::log(LogLevel::Critical, line);
    }
}
