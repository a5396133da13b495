//! The way down: the provider's answer, its count, the settlement and the record.

use std::time::Duration;

use super::{Exchange, HeaderEdits, Host, Sent, State, request::Pairs};
use crate::{
    attributes::{Attributes, number},
    head::headers::{self, Fate},
    lease::{self, Leases},
    meter::{
        Calibration, Completeness, End, Form, Forward, HeaderCounts, Meter, MeterSetup, Metered,
        More, UsageEvent,
    },
    record::{Reached, Record},
    refusal::ProviderFault,
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
        let from_provider = host
            .attributes
            .attribute(&["response", "code_details"])
            .is_some_and(|details| details == b"via_upstream");
        if !from_provider {
            return AnswerStep::Pass(HeaderEdits::default());
        }
        let State::Sent(sent) = std::mem::replace(&mut self.state, State::Over) else {
            return AnswerStep::Refuse(self.out_of_order(host));
        };
        let header = |name: &[u8]| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(&b""[..], |(_, value)| value)
        };
        let status = str::from_utf8(header(b":status"))
            .ok()
            .and_then(|s| s.parse().ok());
        let status = status.unwrap_or(0);
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
            form: Form::of(api, sent.endpoint),
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
            State::Sent(sent) => self.settle_unanswered(*sent, host),
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
        host: &Host<'_, impl Attributes, impl Store>,
    ) {
        let end = broken_off(host.attributes);
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

/// Envoy's response flags, by their bits (its access log documentation, `response.flags`).
mod flag {
    pub(super) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
    pub(super) const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
    pub(super) const UPSTREAM_OVERFLOW: u64 = 1 << 7;
    pub(super) const NO_ROUTE_FOUND: u64 = 1 << 8;
    pub(super) const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
}

fn flags(attributes: &impl Attributes) -> u64 {
    number(attributes, &["response", "flags"]).unwrap_or(0)
}

fn broken_off(attributes: &impl Attributes) -> End {
    if flags(attributes) & flag::DOWNSTREAM_CONNECTION_TERMINATION == 0 {
        End::ProviderReset
    } else {
        End::CallerGone
    }
}

fn reached_nobody(attributes: &impl Attributes) -> bool {
    const NOBODY: u64 = flag::NO_HEALTHY_UPSTREAM
        | flag::UPSTREAM_CONNECTION_FAILURE
        | flag::UPSTREAM_OVERFLOW
        | flag::NO_ROUTE_FOUND;
    flags(attributes) & NOBODY != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        exchange::{BodyStep, HeadStep},
        reservation::Ledger,
        secret::{Credential, CredentialId},
        testing::{Map, Memory},
        units::Timestamp,
    };

    const DOCUMENT: &str = r#"{
        "identity": { "sources": [{ "mtls": { "trust_domains": ["prod.example"] } }] },
        "providers": {
            "openai": { "api": "openai", "match": { "path_prefix": "/openai" }, "clusters": ["c"] },
            "anthropic": {
                "api": "anthropic", "match": { "path_prefix": "/anthropic" }, "clusters": ["c"] }
        },
        "broker": { "cluster": "broker" },
        "policies": [{
            "name": "bots", "subjects": ["spiffe://prod.example/bot"],
            "allow": [
                { "providers": ["openai"], "endpoints": ["chat"], "models": ["m"] },
                { "providers": ["anthropic"], "endpoints": ["messages"], "models": ["m"] } ]
        }]
    }"#;
    const CHAT: &str = "/openai/v1/chat/completions";
    const MESSAGES: &str = "/anthropic/v1/messages";

    struct Scene {
        config: Config,
        ledger: Ledger,
        attributes: Map,
        store: Memory,
        leases: Leases<u32>,
        exchange: Exchange,
    }

    impl Scene {
        /// A request whose lease was there at once: it went up.
        fn sent(path: &str, body: &str) -> Self {
            let config = Config::parse(DOCUMENT.as_bytes()).unwrap();
            let ledger = Ledger::new(&config.namespace, config.ledger_budgets());
            let mut attributes = Map::default();
            attributes
                .set("connection.mtls", [1])
                .set(
                    "connection.uri_san_peer_certificate",
                    "spiffe://prod.example/bot",
                )
                .set("xds.cluster_name", "c")
                .set("response.code_details", "via_upstream");
            let mut scene = Self {
                store: Memory::laid_out(&ledger),
                config,
                ledger,
                attributes,
                leases: Leases::new(1),
                exchange: Exchange::default(),
            };
            scene.send(path, body);
            scene
        }

        fn send(&mut self, path: &str, body: &str) {
            let pairs: [(&[u8], &[u8]); 4] = [
                (b":method", b"POST"),
                (b":path", path.as_bytes()),
                (b":authority", b"almoner"),
                (b"content-type", b"application/json"),
            ];
            let host = host(&self.config, &self.ledger, &self.attributes, &self.store);
            let step = self.exchange.on_head(&pairs, &host);
            assert!(matches!(step, HeadStep::Hold(_)), "{step:?}");
            let leases = &mut self.leases;
            let step = self.exchange.on_body(body.as_bytes(), 1, leases, &host);
            let BodyStep::Await(_, Some(fetch)) = step else {
                panic!("no fetch");
            };
            let lease = lease::Lease {
                attach: lease::Attach::Bearer,
                credential: Credential::new("secret".to_owned().into()).unwrap(),
                credential_id: CredentialId::new("id").unwrap(),
                issued: host.now,
                expires: host.now.after(Duration::from_mins(5)),
            };
            leases.complete(&fetch.key, Ok(lease), host.now);
            self.exchange.on_lease(leases, &host);
        }

        fn answer(&mut self, status: &str, content_type: &str) -> AnswerStep {
            let pairs: [(&[u8], &[u8]); 2] = [
                (b":status", status.as_bytes()),
                (b"content-type", content_type.as_bytes()),
            ];
            let host = host(&self.config, &self.ledger, &self.attributes, &self.store);
            self.exchange
                .on_answer_head(&pairs, &mut self.leases, &host)
        }

        fn end(self) -> Record {
            let host = host(&self.config, &self.ledger, &self.attributes, &self.store);
            self.exchange.on_end(&host)
        }
    }

    const fn host<'a>(
        config: &'a Config,
        ledger: &'a Ledger,
        attributes: &'a Map,
        store: &'a Memory,
    ) -> Host<'a, Map, Memory> {
        Host {
            config,
            ledger,
            attributes,
            store,
            now: Timestamp(1_000_000),
        }
    }

    #[test]
    fn takes_out_only_the_usage_event_that_it_asked_for() {
        let openai =
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
        let anthropic = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
                         {\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
        let asking = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        let silent = r#"{"model":"m","stream":true,"max_tokens":1}"#;
        for (path, body, event, expected) in [
            (CHAT, silent, openai, Forward::Replace(Vec::new())),
            (CHAT, asking, openai, Forward::Unchanged),
            (MESSAGES, silent, anthropic, Forward::Unchanged),
        ] {
            let mut scene = Scene::sent(path, body);
            scene.answer("200", "text/event-stream");
            let forward = scene
                .exchange
                .on_answer_bytes(event.as_bytes(), More::Expected);
            assert_eq!(forward, expected, "{path} {body}");
        }
    }

    #[test]
    fn a_refused_credential_costs_nothing_and_is_marked_as_a_failure() {
        let mut scene = Scene::sent(CHAT, r#"{"model":"m"}"#);
        let step = scene.answer("401", "application/json");
        assert!(matches!(step, AnswerStep::Refuse(reply) if reply.status == 502));
        let record = scene.end();
        let metered = record.metered.unwrap();
        assert_eq!(metered.completeness, Completeness::Failed);
        assert_eq!(record.charged.unwrap().output, crate::units::Tokens::ZERO);
    }
}
