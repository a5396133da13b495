//! One request and its answer: the only caller of every stage, in their order.
//!
//! ```text
//!          head ok           body ok, lease held           answer begins
//!  Fresh ──────────▶ Holding ───────────────────▶ Sent ───────────────────▶ Answering
//!    │                │   │  lease must be had    ▲ │                           │
//!    │                │   └──────────▶ Leasing ───┘ │                           │
//!    │ refused        │ refused          │ refused  │ bad credential            │
//!    └────────────────┴──────────────────┴──────────┴──────▶ Over ◀─────────────┘
//! ```
//!
//! While it is `Fresh`, `Holding` or `Leasing` nothing may go up, whatever the host calls:
//! [`Exchange::stance`] tells each callback what to return. A reservation is made on the way out of
//! `Holding`, and released or settled on the way to `Over`, once.

mod answer;
mod request;

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

pub use self::{answer::AnswerStep, request::Pairs};
use self::{answer::Answering, request::Holding};
use crate::{
    api::Api,
    attributes::Attributes,
    config::{Config, Provider},
    lease::LeaseKey,
    meter::{End, Form, UsageEvent},
    record::Record,
    refusal::{OperatorFault, Refusal},
    reply::{Reply, reply},
    reservation::{Amounts, Ledger, Reservation, Store},
    subject::SubjectId,
    units::{Timestamp, Tokens},
};

/// What an exchange may ask while it decides.
pub struct Host<'a, A, S> {
    /// What the operator decided.
    pub config: &'a Config,
    /// The budgets.
    pub ledger: &'a Ledger,
    /// What Envoy knows of the request.
    pub attributes: &'a A,
    /// Shared data.
    pub store: &'a S,
    /// The time of this callback.
    pub now: Timestamp,
}

/// One request and its answer.
pub struct Exchange {
    state: State,
    record: Record,
    api: Option<Api>,
}

enum State {
    /// Nothing is known.
    Fresh,
    /// The head is accepted, the body not complete.
    Holding(Box<Holding>),
    /// The body is accepted; a lease is being fetched.
    Leasing(Box<Sent>),
    /// It went up; no answer yet.
    Sent(Box<Sent>),
    /// The provider's answer is passing.
    Answering(Box<Answering>),
    /// Answered by us: nothing may go up any more.
    Refused,
    /// Ended.
    Over,
}

/// A request that went up, or is ready to.
struct Sent {
    provider: Arc<Provider>,
    /// What its answer looks like and costs.
    form: Form,
    /// `None` where the policy only observes and the budget would have refused.
    reservation: Option<Reservation>,
    /// What was held for it, in each unit.
    reserved: Amounts,
    /// What the request is about, by estimate.
    input_estimate: Tokens,
    usage_event: UsageEvent,
    lease: LeaseKey,
    /// How long it may last.
    longest: Duration,
}

/// What a callback of the request must return.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stance {
    /// Nothing may go up: pause.
    Hold,
    /// It may pass.
    Pass,
}

/// Changes to a header map.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct HeaderEdits {
    /// Names to remove, every value of each.
    pub remove: Vec<String>,
    /// Names and values to set, in place of all values that there are.
    pub set: Vec<(String, String)>,
}

impl HeaderEdits {
    fn remove(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        if !self.remove.iter().any(|known| *known == name) {
            self.remove.push(name.into_owned());
        }
    }

    fn set(&mut self, name: &[u8], value: &str) {
        let name = String::from_utf8_lossy(name);
        if !self.set.iter().any(|(known, _)| *known == name) {
            self.set.push((name.into_owned(), value.to_owned()));
        }
    }
}

/// What to do with a request's head.
#[derive(Debug)]
pub enum HeadStep {
    /// Edit the headers and hold the request until its body is complete.
    Hold(HeaderEdits),
    /// Answer it.
    Refuse(Reply),
}

/// What to do with a request whose body is complete.
pub enum BodyStep {
    /// Replace the body if there is another one, and hold on until the lease arrives.
    Await(BodyEdit, Option<LeaseFetch>),
    /// Answer it.
    Refuse(Reply),
    /// Replace the body if there is another one, attach the credential, let it go up; renew the
    /// lease beside it where that is due.
    Send(BodyEdit, CredentialHeader, Option<LeaseFetch>),
}

/// The body in the place of the caller's, if it must be another.
pub type BodyEdit = Option<Vec<u8>>;

/// The header that carries the credential. It has no `Debug`.
pub struct CredentialHeader {
    /// Its name.
    pub name: &'static str,
    /// Its value: secret.
    pub value: Zeroizing<String>,
}

/// A lease that must be asked for.
pub struct LeaseFetch {
    /// What it is kept under.
    pub key: LeaseKey,
    /// Who it is for.
    pub subject: SubjectId,
    /// The form to post: it contains the caller's token.
    pub form: Zeroizing<String>,
}

/// What to do when a fetch has ended.
pub enum LeaseStep {
    /// The exchange does not wait (any more).
    Nothing,
    /// Answer it.
    Refuse(Reply),
    /// Attach the credential and let the request go up.
    Send(CredentialHeader),
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            state: State::Fresh,
            record: Record::default(),
            api: None,
        }
    }
}

impl Exchange {
    /// What a callback of the request must return now.
    #[must_use]
    pub const fn stance(&self) -> Stance {
        match self.state {
            State::Fresh | State::Holding(_) | State::Leasing(_) | State::Refused | State::Over => {
                Stance::Hold
            }
            State::Sent(_) | State::Answering(_) => Stance::Pass,
        }
    }

    /// For how long it has been known; nothing before its head has come.
    #[must_use]
    pub const fn age(&self, now: Timestamp) -> Duration {
        match self.state {
            State::Fresh => Duration::ZERO,
            _ => now.since(self.record.began),
        }
    }

    /// Whether the provider's answer has begun to pass: then no other answer can be given.
    #[must_use]
    pub const fn answer_began(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// How long it may last, once it may go up.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        match &self.state {
            State::Leasing(sent) | State::Sent(sent) => Some(sent.longest),
            State::Answering(answering) => Some(answering.longest()),
            State::Fresh | State::Holding(_) | State::Refused | State::Over => None,
        }
    }

    /// Ends it with an answer of ours. What was reserved is released or settled: nothing of a
    /// request that was not sent is charged.
    pub fn refuse(
        &mut self,
        refusal: impl Into<Refusal>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> Reply {
        let refusal = refusal.into();
        match std::mem::replace(&mut self.state, State::Refused) {
            State::Leasing(sent) => sent.release(host),
            State::Sent(sent) => self.settle_unanswered(*sent, End::CutByUs, host),
            State::Answering(answering) => {
                self.settle_answer(*answering, End::CutByUs, host);
            }
            State::Fresh | State::Holding(_) | State::Refused | State::Over => {}
        }
        self.record.refusal = Some(refusal);
        reply(refusal, self.api, &self.record.request_id)
    }

    /// A callback came that this state has no use for.
    fn out_of_order(&mut self, host: &Host<'_, impl Attributes, impl Store>) -> Reply {
        self.refuse(OperatorFault::Host, host)
    }
}

#[cfg(test)]
mod tests;
