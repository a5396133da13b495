use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    denial::Denial,
    lease::{Attach, BrokerFailure, Lease, Leases},
    meter::{Forward, More},
    record::Outcome,
    secret::{Credential, CredentialId},
    testing::{Map, Memory},
};

const NOW: Timestamp = Timestamp(1_795_262_400_000);
const BODY: &[u8] = br#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}"#;
const STREAM: &[u8] = br#"{"model":"gpt-4o-mini","stream":true,"messages":[]}"#;
const ANSWER: &[u8] = br#"{"id":"c-1","object":"chat.completion","model":"gpt-4o-mini-2024",
    "choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;

/// A worker, and what its host would say.
struct Bench {
    config: Config,
    ledger: Ledger,
    memory: Memory,
    attributes: Map,
    leases: Leases<u32>,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The usual document, with these values in it.
    fn with(changes: &[(&str, serde_json::Value)]) -> Self {
        let mut document = json!({
            "identity": { "sources": [{ "mtls": { "trust_domains": ["prod.example"] } }] },
            "providers": { "openai": { "api": "openai", "match": { "path_prefix": "/openai" },
                "clusters": ["openai"], "state": "none" },
                "anthropic": { "api": "anthropic", "match": { "path_prefix": "/anthropic" },
                "clusters": ["anthropic"] } },
            "broker": { "cluster": "broker" },
            "budgets": { "tokens": { "unit": "tokens", "limit": 3000, "window": "1m" } },
            "policies": [{ "name": "bot", "subjects": ["spiffe://prod.example/**"],
                "allow": [{ "providers": ["openai"], "endpoints": ["chat"], "models": ["gpt-*"] }],
                "max_output_tokens": 1000, "budgets": ["tokens"], "mode": "enforce" }],
        });
        for (pointer, value) in changes {
            *document.pointer_mut(pointer).unwrap() = value.clone();
        }
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let ledger = Ledger::new(&config.namespace, config.ledger_budgets());
        let memory = Memory::laid_out(&ledger);
        let mut attributes = Map::default();
        attributes.set("connection.mtls", [1]);
        attributes.set(
            "connection.uri_san_peer_certificate",
            "spiffe://prod.example/a",
        );
        attributes.set("xds.cluster_name", "openai");
        attributes.set("response.code_details", "via_upstream");
        let leases = Leases::new(10);
        Self {
            config,
            ledger,
            memory,
            attributes,
            leases,
            now: NOW,
        }
    }

    fn host(&self) -> Host<'_, Map, Memory> {
        Host {
            config: &self.config,
            ledger: &self.ledger,
            attributes: &self.attributes,
            store: &self.memory,
            now: self.now,
        }
    }

    fn head(&self, exchange: &mut Exchange, extra: &[(&str, &str)]) -> HeadStep {
        let mut pairs: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":path", b"/openai/v1/chat/completions"),
            (b":authority", b"gateway.example"),
            (b"content-type", b"application/json"),
            (b"x-forwarded-proto", b"https"),
            (b"x-request-id", b"r-1"),
        ];
        pairs.retain(|(name, _)| !extra.iter().any(|(other, _)| other.as_bytes() == *name));
        pairs.extend(
            extra
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        exchange.on_head(&pairs, &self.host())
    }

    fn body(&mut self, exchange: &mut Exchange, body: &[u8]) -> BodyStep {
        let host = Host {
            config: &self.config,
            ledger: &self.ledger,
            attributes: &self.attributes,
            store: &self.memory,
            now: self.now,
        };
        exchange.on_body(body, 7, &mut self.leases, &host)
    }

    /// The broker has answered.
    fn issue(&mut self, key: &LeaseKey, result: Result<&str, BrokerFailure>) -> Vec<u32> {
        let lease = result.map(|id| Lease {
            attach: Attach::OwnHeader,
            credential: Credential::new(Zeroizing::new(format!("sk-{id}"))).unwrap(),
            credential_id: CredentialId::new(id).unwrap(),
            issued: self.now,
            expires: self.now.after(Duration::from_mins(5)),
        });
        self.leases.complete(key, lease, self.now)
    }

    /// An exchange that went up.
    fn sent(&mut self, body: &[u8]) -> Exchange {
        let mut exchange = Exchange::default();
        assert!(matches!(self.head(&mut exchange, &[]), HeadStep::Hold(_)));
        match self.body(&mut exchange, body) {
            BodyStep::Await(_, Some(fetch)) => {
                assert_eq!(self.issue(&fetch.key, Ok("c1")), [7]);
                let step = exchange.on_lease(&self.leases, &self.host());
                assert!(matches!(step, LeaseStep::Send(_)));
            }
            BodyStep::Send(..) => {}
            BodyStep::Await(_, None) | BodyStep::Refuse(_) => panic!("it was not sent"),
        }
        assert_eq!(exchange.stance(), Stance::Pass);
        exchange
    }

    fn answer(&mut self, exchange: &mut Exchange, status: &str, kind: &str) -> AnswerStep {
        let pairs: [(&[u8], &[u8]); 3] = [
            (b":status", status.as_bytes()),
            (b"content-type", kind.as_bytes()),
            (b"set-cookie", b"a=b"),
        ];
        let host = Host {
            config: &self.config,
            ledger: &self.ledger,
            attributes: &self.attributes,
            store: &self.memory,
            now: self.now,
        };
        exchange.on_answer_head(&pairs, &mut self.leases, &host)
    }

    /// How much of the budget is left, by asking for it.
    fn spent(&mut self) -> u64 {
        let owner = crate::reservation::OwnerId::subject("spiffe://prod.example/a");
        let ask = crate::reservation::Ask {
            budget: crate::reservation::BudgetIndex(0),
            owner,
            clamp: crate::reservation::Clamp::NONE,
        };
        let amounts = Amounts {
            input: Tokens(1_000_000),
            ..Amounts::ZERO
        };
        let hold = Duration::from_secs(1);
        match self
            .ledger
            .reserve(&self.memory, &[ask], &amounts, self.now, hold)
        {
            Err(refusal) => match refusal.reason {
                crate::reservation::Reason::Spent { standing, .. } => {
                    standing.limit.saturating_sub(standing.remaining)
                }
                other => panic!("{other}"),
            },
            Ok(_) => panic!("a million is more than the limit"),
        }
    }
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply
        .headers
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value.as_str())
}

#[test]
fn goes_from_head_to_record() {
    let mut bench = Bench::new();
    let mut exchange = Exchange::default();
    let step = bench.head(
        &mut exchange,
        &[("authorization", "Bearer sk-caller"), ("cookie", "a")],
    );
    let HeadStep::Hold(edits) = step else {
        panic!("refused")
    };
    for name in ["authorization", "cookie", "x-request-id"] {
        assert!(
            edits.remove.iter().any(|removed| removed == name),
            "{name} stays"
        );
    }
    assert_eq!(exchange.stance(), Stance::Hold);
    let step = bench.body(&mut exchange, BODY);
    let BodyStep::Await(Some(edited), Some(fetch)) = step else {
        panic!("no lease is asked for")
    };
    assert!(
        String::from_utf8(edited)
            .unwrap()
            .contains("\"max_completion_tokens\":1000")
    );
    assert!(
        fetch
            .form
            .contains("subject_token=spiffe%3A%2F%2Fprod.example%2Fa")
    );
    assert_eq!(exchange.stance(), Stance::Hold);
    bench.issue(&fetch.key, Ok("c1"));
    let LeaseStep::Send(credential) = exchange.on_lease(&bench.leases, &bench.host()) else {
        panic!("it does not go on")
    };
    assert_eq!(
        (credential.name, credential.value.as_str()),
        ("authorization", "Bearer sk-c1")
    );
    assert!(bench.spent() > 1000, "the reservation stands");
    let AnswerStep::Pass(edits) = bench.answer(&mut exchange, "200", "application/json") else {
        panic!("refused")
    };
    assert_eq!(edits.remove, ["set-cookie"]);
    assert_eq!(
        exchange.on_answer_bytes(ANSWER, More::Over),
        Forward::Unchanged
    );
    let record = exchange.on_end(&bench.host());
    assert_eq!(record.outcome(), Outcome::Served);
    assert_eq!(bench.spent(), 12);
    let fields = record.fields();
    let text = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| format!("{v:?}"))
    };
    for (name, expected) in [
        ("almoner.subject", "Text(\"spiffe://prod.example/a\")"),
        ("url.path", "Text(\"/openai/v1/chat/completions\")"),
        ("almoner.policy", "Text(\"bot\")"),
        ("almoner.credential_id", "Text(\"c1\")"),
        ("gen_ai.usage.input_tokens", "Number(9)"),
        ("gen_ai.response.model", "Text(\"gpt-4o-mini-2024\")"),
        ("almoner.usage.completeness", "Text(\"complete\")"),
        ("almoner.ended", "Text(\"complete\")"),
    ] {
        assert_eq!(text(name).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn a_refused_request_touches_no_lease_and_holds_nothing() {
    for (extra, body, reason) in [
        (
            &[("content-type", "text/plain")][..],
            BODY,
            "content_type_unsupported",
        ),
        (
            &[(":path", "/openai/v1/files")],
            BODY,
            "content_type_unsupported",
        ),
        (&[(":path", "/elsewhere")], BODY, "unknown_provider"),
        (&[], b"{\"model\":\"claude\"}", "model_not_allowed"),
        (&[], b"", "body_missing"),
        (
            &[],
            b"{\"model\":\"gpt-4\",\"max_tokens\":1001}",
            "max_output_tokens_too_large",
        ),
        (&[], b"{\"model\":\"gpt-4\",\"n\":9}", "budget_spent"),
    ] {
        let mut bench = Bench::new();
        let mut exchange = Exchange::default();
        let reply = match bench.head(&mut exchange, extra) {
            HeadStep::Refuse(reply) => reply,
            HeadStep::Hold(_) => match bench.body(&mut exchange, body) {
                BodyStep::Refuse(reply) => reply,
                BodyStep::Await(..) | BodyStep::Send(..) => panic!("{reason}: it went on"),
            },
        };
        assert_eq!(exchange.stance(), Stance::Hold, "{reason}");
        if reason != "content_type_unsupported" {
            assert_eq!(header(&reply, "almoner-reason"), Some(reason));
        }
        assert_eq!(exchange.on_end(&bench.host()).outcome(), Outcome::Refused);
        assert_eq!(bench.spent(), 0, "{reason}");
        assert_eq!(bench.leases.valid(NOW), 0);
    }
}

#[test]
fn a_route_to_another_cluster_is_refused() {
    let mut bench = Bench::new();
    bench.attributes.set("xds.cluster_name", "anthropic");
    let mut exchange = Exchange::default();
    let HeadStep::Refuse(reply) = bench.head(&mut exchange, &[]) else {
        panic!("accepted")
    };
    assert_eq!(
        (reply.status, header(&reply, "almoner-reason")),
        (502, Some("wrong_cluster"))
    );
}

#[test]
fn a_route_that_changed_on_the_way_up_is_noticed_and_charged() {
    let mut bench = Bench::new();
    let mut exchange = bench.sent(BODY);
    bench.attributes.set("xds.cluster_name", "anthropic");
    let step = bench.answer(&mut exchange, "200", "application/json");
    let AnswerStep::Refuse(reply) = step else {
        panic!("it passed")
    };
    assert_eq!(header(&reply, "almoner-reason"), Some("wrong_cluster"));
    let record = exchange.on_end(&bench.host());
    let mut critical = 0;
    record.counts(|name, n| {
        if name == "almoner_critical;reason=wrong_cluster" {
            critical += n;
        }
    });
    assert_eq!(critical, 1);
    assert!(bench.spent() > 1000);
}

#[test]
fn a_head_that_cannot_be_read_is_refused_in_the_shape_of_its_path() {
    for (path, place_of_type) in [
        ("/openai/v1/chat/completions", "/error/type"),
        ("/anthropic/v1/messages", "/type"),
    ] {
        let mut exchange = Exchange::default();
        let bad = [(":path", path), ("content-encoding", "gzip")];
        let HeadStep::Refuse(reply) = Bench::new().head(&mut exchange, &bad) else {
            panic!("accepted")
        };
        assert_eq!(reply.status, 415);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(body.pointer(place_of_type).is_some(), "{path}");
        assert_eq!(body.get("type").is_some(), place_of_type == "/type");
    }
}

#[test]
fn a_broker_that_says_no_gives_the_reservation_back() {
    for (failure, status) in [
        (BrokerFailure::Refused, 403),
        (BrokerFailure::Unavailable, 503),
    ] {
        let mut bench = Bench::new();
        let mut exchange = Exchange::default();
        assert!(matches!(bench.head(&mut exchange, &[]), HeadStep::Hold(_)));
        let BodyStep::Await(_, Some(fetch)) = bench.body(&mut exchange, BODY) else {
            panic!("no lease is asked for")
        };
        bench.issue(&fetch.key, Err(failure));
        let step = exchange.on_lease(&bench.leases, &bench.host());
        let LeaseStep::Refuse(reply) = step else {
            panic!("it went on")
        };
        assert_eq!(reply.status, status);
        assert_eq!(bench.spent(), 0);
        let mut second = Exchange::default();
        assert!(matches!(bench.head(&mut second, &[]), HeadStep::Hold(_)));
        assert!(
            matches!(bench.body(&mut second, BODY), BodyStep::Refuse(_)),
            "it is remembered"
        );
        assert_eq!(bench.spent(), 0);
    }
}

#[test]
fn a_caller_that_leaves_while_it_waits_costs_nothing() {
    let mut bench = Bench::new();
    let mut exchange = Exchange::default();
    assert!(matches!(bench.head(&mut exchange, &[]), HeadStep::Hold(_)));
    assert!(matches!(
        bench.body(&mut exchange, BODY),
        BodyStep::Await(..)
    ));
    assert_eq!(exchange.on_end(&bench.host()).outcome(), Outcome::Abandoned);
    assert_eq!(bench.spent(), 0);
}

#[test]
fn an_answer_that_never_came_is_charged_whole_unless_nobody_was_asked() {
    const CALLER_GONE: i64 = 1 << 14;
    const CALLER_RESET: i64 = 1 << 28;
    const PROVIDER_RESET: i64 = 1 << 4;
    const NO_CONNECTION: i64 = 1 << 5;
    const NO_CLUSTER: i64 = 1 << 24;
    for (flags, outcome, end) in [
        (CALLER_GONE, Outcome::Unanswered, Some(End::CallerGone)),
        (CALLER_RESET, Outcome::Unanswered, Some(End::CallerGone)),
        (
            PROVIDER_RESET,
            Outcome::Unanswered,
            Some(End::ProviderReset),
        ),
        (NO_CONNECTION, Outcome::Unreached, None),
        (NO_CLUSTER, Outcome::Unreached, None),
    ] {
        let mut bench = Bench::new();
        let exchange = bench.sent(BODY);
        bench.attributes.set("response.flags", flags.to_le_bytes());
        let record = exchange.on_end(&bench.host());
        assert_eq!(record.outcome(), outcome);
        assert_eq!(record.end_of_answer, end);
        assert_eq!(bench.spent() > 1000, end.is_some(), "{outcome:?}");
    }
}

#[test]
fn a_provider_that_never_answers_is_given_up_and_charged_whole() {
    let mut bench = Bench::new();
    let mut exchange = bench.sent(BODY);
    let reply = exchange.refuse(crate::refusal::ProviderFault::TooLong, &bench.host());
    assert_eq!(reply.status, 504);
    let record = exchange.on_end(&bench.host());
    assert_eq!(record.end_of_answer, Some(End::CutByUs));
    assert!(bench.spent() > 1000);
}

#[test]
fn a_stream_that_breaks_off_is_charged_by_what_came() {
    let mut bench = Bench::new();
    let mut exchange = bench.sent(STREAM);
    let step = bench.answer(&mut exchange, "200", "text/event-stream");
    assert!(matches!(step, AnswerStep::Pass(_)));
    let event =
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"some words came\"}}]}\n\n";
    assert_eq!(
        exchange.on_answer_bytes(event, More::Expected),
        Forward::Unchanged
    );
    bench
        .attributes
        .set("response.flags", (1i64 << 14).to_le_bytes());
    let record = exchange.on_end(&bench.host());
    let metered = record.metered.as_ref().unwrap();
    assert_eq!(metered.completeness.name(), "estimated");
    let spent = bench.spent();
    assert!((2..200).contains(&spent), "{spent}");
}

#[test]
fn a_refused_credential_is_dropped_and_not_shown() {
    let mut bench = Bench::new();
    let mut exchange = bench.sent(BODY);
    let step = bench.answer(&mut exchange, "401", "application/json");
    let AnswerStep::Refuse(reply) = step else {
        panic!("it passed")
    };
    assert_eq!(reply.status, 502);
    assert_eq!(
        header(&reply, "almoner-reason"),
        Some("provider_bad_credential")
    );
    assert_eq!(bench.leases.valid(NOW), 0);
    let record = exchange.on_end(&bench.host());
    assert_eq!(record.outcome(), Outcome::Refused);
    let completeness = record.metered.as_ref().unwrap().completeness;
    assert_eq!(completeness.name(), "failed");
    assert_eq!(bench.spent(), 0);
}

#[test]
fn an_answer_that_is_not_the_providers_passes_as_it_is() {
    let mut bench = Bench::new();
    let mut exchange = bench.sent(BODY);
    bench
        .attributes
        .set("response.code_details", "upstream_reset");
    let step = bench.answer(&mut exchange, "503", "text/plain");
    let AnswerStep::Pass(edits) = step else {
        panic!("refused")
    };
    assert_eq!(edits, HeaderEdits::default());
}

#[test]
fn observe_lets_a_spent_budget_pass_and_says_so() {
    let mut bench = Bench::with(&[("/policies/0/mode", json!("observe"))]);
    let body = br#"{"model":"gpt-4","n":9}"#;
    let mut exchange = bench.sent(body);
    assert!(matches!(
        bench.answer(&mut exchange, "200", "application/json"),
        AnswerStep::Pass(_)
    ));
    let _ = exchange.on_answer_bytes(ANSWER, More::Over);
    let record = exchange.on_end(&bench.host());
    assert_eq!(
        record.observed.map(|denial| denial.reason()),
        Some("budget_spent")
    );
}

#[test]
fn a_body_announced_beyond_the_limit_is_refused_at_once() {
    let bench = Bench::new();
    let limit = 8 * 1024 * 1024;
    for (length, refused) in [(limit, false), (limit + 1, true)] {
        let length = length.to_string();
        let step = bench.head(&mut Exchange::default(), &[("content-length", &length)]);
        match step {
            HeadStep::Hold(_) => assert!(!refused, "{length}"),
            HeadStep::Refuse(reply) => assert_eq!((reply.status, refused), (413, true)),
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused_as_it_grows() {
    let bench = Bench::new();
    let mut exchange = Exchange::default();
    assert!(matches!(bench.head(&mut exchange, &[]), HeadStep::Hold(_)));
    let limit = 8 * 1024 * 1024;
    assert!(!exchange.is_too_much(limit, &bench.config));
    assert!(exchange.is_too_much(limit + 1, &bench.config));
    let reply = exchange.refuse(Denial::BodyTooLarge, &bench.host());
    assert_eq!(reply.status, 413);
    assert_eq!(exchange.stance(), Stance::Hold);
}

#[test]
fn callbacks_out_of_order_let_nothing_up() {
    let mut bench = Bench::new();
    let mut exchange = Exchange::default();
    assert!(matches!(
        bench.body(&mut exchange, BODY),
        BodyStep::Refuse(_)
    ));
    assert_eq!(exchange.stance(), Stance::Hold);
    assert!(matches!(
        exchange.on_lease(&bench.leases, &bench.host()),
        LeaseStep::Nothing
    ));
    assert_eq!(exchange.stance(), Stance::Hold);
}

#[test]
fn an_answer_that_is_read_again_is_not_charged_again() {
    let mut bench = Bench::with(&[
        ("/providers/openai/state", json!("own")),
        ("/policies/0/allow/0/endpoints", json!(["responses"])),
    ]);
    let mut exchange = Exchange::default();
    let again = [(":method", "GET"), (":path", "/openai/v1/responses/resp_1")];
    assert!(matches!(
        bench.head(&mut exchange, &again),
        HeadStep::Hold(_)
    ));
    let BodyStep::Await(None, Some(fetch)) = bench.body(&mut exchange, b"") else {
        panic!("no lease is asked for")
    };
    bench.issue(&fetch.key, Ok("c1"));
    assert!(matches!(
        exchange.on_lease(&bench.leases, &bench.host()),
        LeaseStep::Send(_)
    ));
    assert!(matches!(
        bench.answer(&mut exchange, "200", "application/json"),
        AnswerStep::Pass(_)
    ));
    let response = br#"{"object":"response","usage":{"input_tokens":9,"output_tokens":3}}"#;
    let _ = exchange.on_answer_bytes(response, More::Over);
    assert_eq!(exchange.on_end(&bench.host()).outcome(), Outcome::Served);
    assert_eq!(bench.spent(), 0);
}
