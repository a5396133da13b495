//! The way down: the provider's answer, its count, the settlement and the record.

use std::time::Duration;

use super::{
    Exchange, HeaderEdits, Host, Sent, State,
    request::{Pairs, leads_to},
};
use crate::{
    attributes::{Attributes, number},
    head::headers::{self, Fate},
    lease::{self, Leases},
    meter::{
        Calibration, Completeness, End, Forward, HeaderCounts, Meter, MeterSetup, Metered, More,
        UsageEvent,
    },
    record::{Reached, Record},
    refusal::{OperatorFault, ProviderFault},
    reply::Reply,
    reservation::{Amounts, Store},
    usage::Usage,
};

/// An answer that is passing.
pub(super) struct Answering {
    sent: Sent,
    meter: Meter,
    /// Whether the provider ended the body.
    ended: bool,
}

/// What to do with an answer's head.
#[derive(Debug)]
pub enum AnswerStep {
    /// Edit its headers and let it pass.
    Pass(HeaderEdits),
    /// Answer in its place.
    Refuse(Reply),
}

impl Exchange {
    /// The head of an answer has come. Envoy's own answers and ours come through here, too: only
    /// `response.code_details` tells the provider's.
    pub fn on_answer_head<W>(
        &mut self,
        pairs: Pairs<'_>,
        leases: &mut Leases<W>,
        host: &Host<'_, impl Attributes, impl Store>,
    ) -> AnswerStep {
        let header = |name: &[u8]| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(&b""[..], |(_, value)| value)
        };
        let status = str::from_utf8(header(b":status")).ok();
        let status = status.and_then(|s| s.parse().ok()).unwrap_or(0);
        if !from_provider(status, host.attributes) {
            return AnswerStep::Pass(HeaderEdits::default());
        }
        let State::Sent(sent) = std::mem::replace(&mut self.state, State::Over) else {
            return AnswerStep::Refuse(self.out_of_order(host));
        };
        if !leads_to(&sent.provider, host.attributes) {
            // The first look was at the caller's headers; Envoy looked for a route again after
            // ours. Too late for this credential, in time for the operator to see it.
            self.state = State::Sent(sent);
            return AnswerStep::Refuse(self.refuse(OperatorFault::WrongCluster, host));
        }
        self.record.status = Some(status);
        let api = sent.provider.api;
        if lease::is_refused(api, status)
            && let Some(credential) = &self.record.credential
        {
            self.record.dropped = leases.drop_refused(&sent.lease, credential, host.now);
            let metered = Metered {
                completeness: Completeness::Failed,
                ..Metered::unread(Usage::default())
            };
            self.settle(*sent, End::Complete, metered, host);
            return AnswerStep::Refuse(self.refuse(ProviderFault::BadCredential, host));
        }
        let meter = Meter::new(&MeterSetup {
            form: sent.form,
            status,
            content_type: header(b"content-type"),
            content_encoding: header(b"content-encoding"),
            usage_event: sent.usage_event,
            headers: HeaderCounts::read(pairs.iter().copied()),
            calibration: Calibration::default(),
            input_estimate: sent.input_estimate,
        });
        let mut edits = HeaderEdits::default();
        for &(name, _) in pairs {
            match headers::response_header(api, name) {
                Fate::Keep => {}
                Fate::Set(value) => edits.set(name, value),
                Fate::Drop => edits.remove(name),
            }
        }
        if sent.usage_event == UsageEvent::Remove && !header(b"content-length").is_empty() {
            edits.remove(b"content-length");
        }
        self.state = State::Answering(Box::new(Answering {
            sent: *sent,
            meter,
            ended: false,
        }));
        AnswerStep::Pass(edits)
    }

    /// More of the answer has come: counts it, says what to forward in its place.
    pub fn on_answer_bytes(&mut self, chunk: &[u8], more: More) -> Forward {
        let State::Answering(answering) = &mut self.state else {
            return Forward::Unchanged;
        };
        answering.ended |= more == More::Over;
        answering.meter.push(chunk, more)
    }

    /// The answer ended with trailers.
    pub fn on_answer_trailers(&mut self) {
        if let State::Answering(answering) = &mut self.state {
            answering.ended = true;
        }
    }

    /// It is all over, one way or another: settles, and gives what is to be remembered of it.
    pub fn on_end(mut self, host: &Host<'_, impl Attributes, impl Store>) -> Record {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Answering(answering) => {
                let end = if answering.ended {
                    End::Complete
                } else {
                    broken_off(host.attributes)
                };
                self.settle_answer(*answering, end, host);
            }
            State::Sent(sent) => self.settle_unanswered(*sent, broken_off(host.attributes), host),
            State::Leasing(sent) => sent.release(host),
            State::Fresh | State::Holding(_) | State::Refused | State::Over => {}
        }
        self.record.attempts = number(host.attributes, &["upstream", "request_attempt_count"]);
        self.record.end = host.now;
        self.record
    }

    pub(super) fn settle_answer(
        &mut self,
        answering: Answering,
        end: End,
        host: &Host<'_, impl Attributes, impl Store>,
    ) {
        let metered = answering.meter.finish(end);
        self.settle(answering.sent, end, metered, host);
    }

    /// It went up and no answer came. If it reached nobody, nothing is charged; if it may have
    /// reached the provider, all that was reserved is: a caller who hangs up early must not get
    /// for nothing what the provider goes on to make.
    pub(super) fn settle_unanswered(
        &mut self,
        sent: Sent,
        end: End,
        host: &Host<'_, impl Attributes, impl Store>,
    ) {
        if reached_nobody(host.attributes) {
            self.record.reached = Reached::Nobody;
            return sent.release(host);
        }
        let usage = Usage {
            input: Some(sent.input_estimate),
            output: Some(sent.reserved.output),
            ..Usage::default()
        };
        self.settle(sent, end, Metered::unread(usage), host);
    }

    fn settle(
        &mut self,
        sent: Sent,
        end: End,
        metered: Metered,
        host: &Host<'_, impl Attributes, impl Store>,
    ) {
        let used = Amounts {
            requests: 1,
            input: metered.usage.input.unwrap_or_default(),
            output: metered.usage.output.unwrap_or_default(),
            ..Amounts::ZERO
        };
        self.record.charged = Some(used);
        self.record.reserved = Some(sent.reserved);
        self.record.end_of_answer = Some(end);
        self.record.metered = Some(metered);
        if let Some(reservation) = sent.reservation {
            self.record.settlement =
                Some(host.ledger.settle(host.store, reservation, &used, host.now));
        }
    }
}

/// Whether an answer is the provider's. Envoy's own are never a success, so only others have to be
/// told apart; asking costs more than reading the head.
fn from_provider(status: u16, attributes: &impl Attributes) -> bool {
    (200..300).contains(&status)
        || attributes
            .attribute(&["response", "code_details"])
            .is_some_and(|details| details == b"via_upstream")
}

impl Answering {
    pub(super) const fn longest(&self) -> Duration {
        self.sent.longest
    }
}

impl Sent {
    /// Gives back what was reserved: nothing went up.
    pub(super) fn release(self, host: &Host<'_, impl Attributes, impl Store>) {
        if let Some(reservation) = self.reservation {
            host.ledger.release(host.store, reservation, host.now);
        }
    }
}

/// Envoy's response flags, by their bits (`CoreResponseFlag`, the attribute `response.flags`).
mod flag {
    pub(super) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub(super) const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
    pub(super) const UPSTREAM_OVERFLOW: u64 = 1 << 7;
    pub(super) const NO_ROUTE_FOUND: u64 = 1 << 8;
    pub(super) const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
    pub(super) const DOWNSTREAM_PROTOCOL_ERROR: u64 = 1 << 18;
    pub(super) const NO_CLUSTER_FOUND: u64 = 1 << 24;
    pub(super) const DNS_RESOLUTION_FAILED: u64 = 1 << 26;
    /// Of one HTTP/2 stream; the connection goes on.
    pub(super) const DOWNSTREAM_REMOTE_RESET: u64 = 1 << 28;
}

fn flags(attributes: &impl Attributes) -> u64 {
    number(attributes, &["response", "flags"]).unwrap_or(0)
}

fn broken_off(attributes: &impl Attributes) -> End {
    const CALLER: u64 = flag::DOWNSTREAM_CONNECTION_TERMINATION
        | flag::DOWNSTREAM_PROTOCOL_ERROR
        | flag::DOWNSTREAM_REMOTE_RESET;
    if flags(attributes) & CALLER == 0 {
        End::ProviderReset
    } else {
        End::CallerGone
    }
}

fn reached_nobody(attributes: &impl Attributes) -> bool {
    const NOBODY: u64 = flag::NO_HEALTHY_UPSTREAM
        | flag::UPSTREAM_CONNECTION_FAILURE
        | flag::UPSTREAM_OVERFLOW
        | flag::NO_ROUTE_FOUND
        | flag::NO_CLUSTER_FOUND
        | flag::DNS_RESOLUTION_FAILED;
    flags(attributes) & NOBODY != 0
}
