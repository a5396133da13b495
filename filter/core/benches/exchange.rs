//! The whole exchange, from head to record, with a held lease and budgets in memory; and the same
//! refused at the head.

use std::{cell::RefCell, collections::BTreeMap, hint::black_box, num::NonZeroU32, time::Duration};

use almoner_core::{
    attributes::Attributes,
    config::Config,
    exchange::{BodyStep, Exchange, HeadStep, Host, LeaseStep},
    lease::{Attach, Lease, Leases},
    meter::More,
    record::Outcome,
    reservation::{Ledger, Store, StoreError, Stored, Swap, Version},
    secret::{Credential, CredentialId},
    units::Timestamp,
};
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Timestamp = Timestamp(1_795_262_400_000);

const POLICY: &str = r#"{
    "identity": { "sources": [{ "mtls": { "trust_domains": ["prod.example"] } }] },
    "providers": { "openai": { "api": "openai", "match": { "path_prefix": "/openai" },
                               "clusters": ["openai"] } },
    "broker": { "cluster": "broker" },
    "budgets": {
        "calls": { "unit": "requests", "limit": 1000000000, "window": "1m" },
        "tokens": { "unit": "tokens", "limit": 1000000000000, "window": "1m" } },
    "policies": [{ "name": "bot", "subjects": ["spiffe://prod.example/ns/*/sa/bot"],
        "allow": [{ "providers": ["openai"], "endpoints": ["chat"], "models": ["gpt-4o-mini"] }],
        "max_output_tokens": 4096, "budgets": ["calls", "tokens"] }]
}"#;

const HEADERS: &[(&[u8], &[u8])] = &[
    (b":method", b"POST"),
    (b":path", b"/openai/v1/chat/completions"),
    (b":authority", b"gateway.example"),
    (b":scheme", b"https"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"authorization", b"Bearer workload"),
    (b"content-type", b"application/json"),
    (b"content-length", b"500"),
    (b"user-agent", b"OpenAI/Python 3.52.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-os", b"Linux"),
    (b"x-forwarded-proto", b"https"),
    (b"x-request-id", b"4c5f5ab2-0d6b-4d8f-a8f3-bb1cbc3c6d5e"),
];

struct Envoy;

impl Attributes for Envoy {
    fn attribute(&self, path: &[&str]) -> Option<Vec<u8>> {
        match path {
            ["connection", "mtls"] => Some(vec![1]),
            ["connection", _] => Some(b"spiffe://prod.example/ns/a/sa/bot".to_vec()),
            ["xds", _] => Some(b"openai".to_vec()),
            ["response", "code_details"] => Some(b"via_upstream".to_vec()),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Memory(RefCell<BTreeMap<String, (Vec<u8>, NonZeroU32)>>);

impl Store for Memory {
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let values = self.0.borrow();
        Ok(values.get(key).map(|(value, version)| Stored {
            value: value.clone(),
            version: Version(*version),
        }))
    }

    fn swap(&self, key: &str, value: &[u8], version: Version) -> Result<Swap, StoreError> {
        let mut values = self.0.borrow_mut();
        let stored = values.get_mut(key).ok_or(StoreError)?;
        if stored.1 != version.0 {
            return Ok(Swap::Conflict);
        }
        *stored = (value.to_vec(), stored.1.checked_add(1).ok_or(StoreError)?);
        Ok(Swap::Done)
    }
}

struct Worker {
    config: Config,
    ledger: Ledger,
    memory: Memory,
    leases: RefCell<Leases<u32>>,
}

impl Worker {
    fn new() -> Option<Self> {
        let config = Config::parse(POLICY.as_bytes()).ok()?;
        let ledger = Ledger::new(&config.namespace, config.ledger_budgets());
        let memory = Memory::default();
        for (key, value) in ledger.layout() {
            memory.0.borrow_mut().insert(key, (value, NonZeroU32::MIN));
        }
        Some(Self {
            config,
            ledger,
            memory,
            leases: RefCell::new(Leases::new(100)),
        })
    }

    fn host(&self) -> Host<'_, Envoy, Memory> {
        Host {
            config: &self.config,
            ledger: &self.ledger,
            attributes: &Envoy,
            store: &self.memory,
            now: NOW,
        }
    }

    fn exchange(&self, headers: &[(&[u8], &[u8])], body: &[u8], answer: &[u8]) -> Outcome {
        let host = self.host();
        let mut exchange = Exchange::default();
        if let HeadStep::Refuse(_) = exchange.on_head(headers, &host) {
            return exchange.on_end(&host).outcome();
        }
        let step = exchange.on_body(body, 1, &mut self.leases.borrow_mut(), &host);
        if let BodyStep::Await(_, Some(fetch)) = step {
            let lease = Credential::new("sk-proj-1".to_owned().into()).map(|credential| Lease {
                attach: Attach::Bearer,
                credential,
                credential_id: CredentialId::new("openai/1").unwrap_or_else(|| unreachable!()),
                issued: NOW,
                expires: NOW.after(Duration::from_mins(10)),
            });
            let lease = lease.unwrap_or_else(|| unreachable!());
            self.leases
                .borrow_mut()
                .complete(&fetch.key, Ok(lease), NOW);
            let step = exchange.on_lease(&self.leases.borrow(), &host);
            assert!(matches!(step, LeaseStep::Send(_)));
        }
        let head: [(&[u8], &[u8]); 2] =
            [(b":status", b"200"), (b"content-type", b"application/json")];
        let _ = exchange.on_answer_head(&head, &mut self.leases.borrow_mut(), &host);
        let _ = exchange.on_answer_bytes(answer, More::Over);
        let record = exchange.on_end(&host);
        black_box(record.fields());
        record.counts(|name, by| {
            black_box((name, by));
        });
        record.outcome()
    }
}

fn define(criterion: &mut Criterion) {
    let Some(worker) = Worker::new() else {
        unreachable!("the policy above is read")
    };
    let body = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "Which of your breads keep for three days? ".repeat(10)
    );
    let answer = format!(
        r#"{{"id":"c","model":"gpt-4o-mini","choices":[{{"message":{{"content":"{}"}},
        "finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":3,
        "total_tokens":12}}}}"#,
        "The rye keeps for a week. ".repeat(30)
    );
    criterion.bench_function("exchange/served", |bencher| {
        bencher.iter(|| {
            let outcome = worker.exchange(HEADERS, body.as_bytes(), answer.as_bytes());
            assert_eq!(outcome, Outcome::Served);
        });
    });
    let elsewhere: Vec<(&[u8], &[u8])> = HEADERS
        .iter()
        .map(|(name, value)| {
            if *name == b":path" {
                (*name, &b"/x"[..])
            } else {
                (*name, *value)
            }
        })
        .collect();
    criterion.bench_function("exchange/refused", |bencher| {
        bencher.iter(|| {
            let outcome = worker.exchange(&elsewhere, body.as_bytes(), answer.as_bytes());
            assert_eq!(outcome, Outcome::Refused);
        });
    });
}

criterion_group!(benches, define);
criterion_main!(benches);
