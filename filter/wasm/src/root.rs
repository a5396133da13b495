//! The root of one worker: loads the configuration, asks the broker, watches over held requests.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use almoner_core::{
    config::Config,
    denial::Denial,
    exchange::{LeaseFetch, Stance},
    lease::{self, BrokerFailure},
    refusal::{OperatorFault, ProviderFault, Refusal},
    reservation::{Ledger, Store, Swap},
    units::Timestamp,
};
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{BufferType, ContextType, LogLevel},
};

use crate::{
    host::{self, SharedData},
    stream::Stream,
    worker::{Live, Worker},
};

const TICK: Duration = Duration::from_millis(100);
/// After that long, a body that came to Envoy and not to us never will.
const HOLD_MODE_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Root {
    id: u32,
    worker: Option<Rc<Worker>>,
    /// What is being asked for, by the token of the call.
    calls: BTreeMap<u32, LeaseFetch>,
}

impl Root {
    pub(crate) const fn new(id: u32) -> Self {
        Self {
            id,
            worker: None,
            calls: BTreeMap::new(),
        }
    }

    fn configure(&self) -> Result<Worker, String> {
        let json = host::configuration().ok_or("expected a policy document, found none")?;
        let config = Config::parse(&json).map_err(|error| error.to_string())?;
        for warning in &config.warnings {
            host::log(LogLevel::Warn, warning);
        }
        let ledger = Ledger::new(&config.namespace, config.ledger_budgets());
        create_missing(&ledger)?;
        host::tick_every(TICK).map_err(|status| format!("can't set the tick: {status:?}"))?;
        let bell = format!(
            "almoner/{}/wake-{}",
            config.namespace,
            number(&config.namespace)?
        );
        let bell = host::register_queue(&bell).ok_or("can't register a queue")?;
        Ok(Worker::new(config, ledger, bell))
    }

    fn ask_for_leases(&mut self, worker: &Worker) {
        for fetch in worker.take_fetches() {
            let broker = &worker.config.broker;
            let call = host::post_form(
                &broker.cluster,
                &broker.authority,
                &broker.path,
                &fetch.form,
                broker.timeout,
            );
            match call {
                Ok(token) => {
                    self.calls.insert(token, fetch);
                }
                // No callback comes then.
                Err(_) => worker.fetched(&fetch.key, Err(BrokerFailure::Unavailable)),
            }
        }
        self.be_effective();
    }

    /// The host's calls are about this root again.
    fn be_effective(&self) {
        if host::as_context(self.id).is_err() {
            host::log(LogLevel::Critical, "can't return to the root context");
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, size: usize, _: usize) {
        let Some(worker) = self.worker.as_ref().map(Rc::clone) else {
            return;
        };
        let Some(fetch) = self.calls.remove(&token) else {
            return;
        };
        let status = if headers == 0 {
            None
        } else {
            host::call_status()
        };
        let body = if size == 0 {
            Vec::new()
        } else {
            host::buffer(BufferType::HttpCallResponseBody)
        };
        let body = zeroize::Zeroizing::new(body);
        let result = lease::read_answer(status, &body, &fetch.subject, host::now());
        worker.fetched(&fetch.key, result);
        self.be_effective();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match self.configure() {
            Ok(worker) => {
                self.worker = Some(Rc::new(worker));
                true
            }
            Err(error) => {
                host::log(
                    LogLevel::Critical,
                    &format!("configuration not loaded: {error}"),
                );
                false
            }
        }
    }

    fn on_queue_ready(&mut self, _: u32) {
        let Some(worker) = self.worker.as_ref().map(Rc::clone) else {
            return;
        };
        host::drain(worker.bell);
        self.ask_for_leases(&worker);
    }

    fn on_tick(&mut self) {
        let Some(worker) = self.worker.as_ref().map(Rc::clone) else {
            return;
        };
        self.ask_for_leases(&worker);
        let now = host::now();
        for (id, live) in worker.live() {
            if let Some(refusal) = overdue(&worker, id, &live, now)
                && host::as_context(id).is_ok()
            {
                end(&worker, &live, refusal);
            }
        }
        self.be_effective();
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let worker = self.worker.as_ref()?;
        Some(Box::new(Stream::new(id, Rc::clone(worker))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Why an exchange must end, if it must. May make its context the effective one.
fn overdue(worker: &Worker, id: u32, live: &Live, now: Timestamp) -> Option<Refusal> {
    let exchange = live.exchange.borrow();
    let age = exchange.age(now);
    if exchange.stance() == Stance::Hold && !live.body_complete.get() {
        let withheld = || host::as_context(id).is_ok() && host::body_arrived();
        if age >= HOLD_MODE_PATIENCE && !live.body_seen.get() && withheld() {
            return Some(OperatorFault::HoldModeMissing.into());
        }
        return (age >= worker.config.limits.body_timeout).then_some(Denial::BodyTimeout.into());
    }
    let longest = exchange.longest()?;
    (age >= longest).then_some(ProviderFault::TooLong.into())
}

/// Ends an exchange of the effective context from outside of its own callbacks: by an answer if its
/// answer has not begun, by a reset if it has.
fn end(worker: &Worker, live: &Live, refusal: Refusal) {
    if refusal == Refusal::Operator(OperatorFault::HoldModeMissing) {
        worker.critical(
            "hold_mode_missing",
            "a held request got no body: set `allow_on_headers_stop_iteration: true` in the \
             plugin's configuration",
        );
    }
    let mut exchange = live.exchange.borrow_mut();
    let began = exchange.answer_began();
    let reply = exchange.refuse(refusal, &worker.host());
    drop(exchange);
    if began {
        let _ = host::reset_stream();
    } else {
        worker.answer(&reply);
    }
}

/// Creates the keys that the budgets need and that don't exist yet: those of an earlier
/// configuration keep what they hold.
fn create_missing(ledger: &Ledger) -> Result<(), String> {
    for (key, initial) in ledger.layout() {
        let there = SharedData
            .load(&key)
            .map_err(|error| format!("{key}: {error}"))?;
        if there.is_none() {
            SharedData::create(&key, &initial).map_err(|error| format!("{key}: {error}"))?;
        }
    }
    Ok(())
}

/// A number that no other root of this VM id has.
fn number(namespace: &str) -> Result<u32, String> {
    let key = format!("almoner/{namespace}/roots");
    loop {
        let stored = SharedData.load(&key).map_err(|error| error.to_string())?;
        let Some(stored) = stored else {
            SharedData::create(&key, &0u32.to_le_bytes()).map_err(|error| error.to_string())?;
            continue;
        };
        let number = stored
            .value
            .as_slice()
            .try_into()
            .map_or(0, u32::from_le_bytes);
        let next = number.wrapping_add(1);
        let swap = SharedData.swap(&key, &next.to_le_bytes(), stored.version);
        if swap.map_err(|error| error.to_string())? == Swap::Done {
            return Ok(number);
        }
    }
}
