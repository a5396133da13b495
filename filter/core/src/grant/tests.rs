use serde_json::{Value, json};

use super::*;
use crate::{body, config::Slot, head::endpoint, subject::Proof, testing::Map};

const JWT: &str = "metadata.filter_metadata.envoy.filters.http.jwt_authn";
/// 2026-11-21, 12:00 UTC.
const NOON: Timestamp = Timestamp(1_795_262_400_000);

fn config(policy: &Value) -> Config {
    let mut full = json!({
        "name": "bot",
        "subjects": ["spiffe://prod.example/**", "jwt:https://issuer|*"],
        "allow": [
            { "providers": ["openai"], "endpoints": ["chat", "embeddings"],
              "models": ["gpt-4o*"], "tools": ["web_search*"], "service_tiers": ["flex"] },
            { "providers": ["openai"], "endpoints": ["chat"], "models": ["o3"] },
        ],
    });
    for (field, value) in policy.as_object().unwrap() {
        full[field] = value.clone();
    }
    let document = json!({
        "identity": { "sources": [{ "jwt": { "slots": ["authorization"], "audience": "llm" } }] },
        "network": { "country_header": "x-geo-country" },
        "providers": {
            "openai": { "api": "openai", "match": { "path_prefix": "/openai" }, "clusters": ["o"] },
            "own": { "api": "openai", "match": { "path_prefix": "/own" }, "clusters": ["o"],
                     "state": "own" },
        },
        "broker": { "cluster": "broker" },
        "policies": [full],
    });
    Config::parse(document.to_string().as_bytes()).unwrap()
}

fn subject(name: &str) -> Subject {
    let proof = Proof::Token(Slot::Authorization);
    Subject {
        id: SubjectId::vouched(name),
        proof,
        claims_in: Some(Slot::Authorization),
    }
}

struct Request<'a> {
    path: &'a str,
    body: Value,
    betas: &'a [&'a str],
    provider: usize,
    attributes: Map,
    country: Option<&'a [u8]>,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            path: "/v1/chat/completions",
            body: json!({ "model": "gpt-4o-mini", "messages": [] }),
            betas: &[],
            provider: 0,
            attributes: Map::default(),
            country: None,
        }
    }
}

fn decide(config: &Config, request: &Request<'_>) -> Result<Grant, Denial> {
    let provider = &config.providers[request.provider];
    let route = endpoint::resolve(provider.api, "POST", request.path)?;
    let surroundings = Surroundings {
        attributes: &request.attributes,
        country: request.country,
    };
    let subject = subject("spiffe://prod.example/a");
    let policy = policy_of(config, &subject.id)?;
    let admission = admit(policy, &subject, provider, &route, &surroundings, NOON)?;
    let body = request.body.to_string();
    let facts = body::read(route.endpoint, body.as_bytes())?;
    let betas: Vec<String> = request
        .betas
        .iter()
        .map(|beta| (*beta).to_owned())
        .collect();
    admission.grant(Some(&facts), &betas)
}

fn reason(config: &Config, request: &Request<'_>) -> Option<&'static str> {
    decide(config, request).err().map(Denial::reason)
}

#[test]
fn the_body_must_be_allowed_by_one_line_as_a_whole() {
    let config = config(&json!({ "max_output_tokens": 100 }));
    for (body, expected) in [
        (json!({ "model": "gpt-4o-mini" }), None),
        (json!({ "model": "gpt-4.1" }), Some("model_not_allowed")),
        (json!({ "model": "o3" }), None),
        (json!({ "model": "gpt-4o", "service_tier": "flex" }), None),
        (
            json!({ "model": "gpt-4o", "service_tier": "default" }),
            None,
        ),
        (
            json!({ "model": "gpt-4o", "service_tier": "priority" }),
            Some("service_tier_not_allowed"),
        ),
        (
            json!({ "model": "o3", "service_tier": "flex" }),
            Some("model_not_allowed"),
        ),
        (json!({ "messages": [] }), Some("model_missing")),
        (json!({ "model": "gpt-4o", "max_tokens": 100 }), None),
        (
            json!({ "model": "gpt-4o", "max_tokens": 101 }),
            Some("max_output_tokens_too_large"),
        ),
        (
            json!({ "model": "gpt-4o", "store": true }),
            Some("provider_state"),
        ),
    ] {
        let request = Request {
            body: body.clone(),
            ..Request::default()
        };
        assert_eq!(reason(&config, &request), expected, "{body}");
    }
}

#[test]
fn the_head_is_refused_by_the_first_that_is_wrong() {
    let config = config(&json!({}));
    for (path, provider, expected) in [
        ("/v1/moderations", 0, Some("unmetered_endpoint")),
        ("/v1/responses", 0, Some("endpoint_not_allowed")),
        ("/v1/embeddings", 0, None),
        ("/v1/chat/completions", 1, Some("provider_not_allowed")),
    ] {
        let body = json!({ "model": "gpt-4o", "input": "x" });
        let request = Request {
            path,
            provider,
            body,
            ..Request::default()
        };
        assert_eq!(reason(&config, &request), expected, "{path}");
    }
}

#[test]
fn a_beta_flag_must_be_named() {
    let named = json!({ "allow": [{ "providers": ["openai"], "endpoints": ["chat"],
        "models": ["**"], "betas": ["assistants=v*"] }] });
    let request = || Request {
        betas: &["assistants=v2"],
        ..Request::default()
    };
    assert_eq!(reason(&config(&named), &request()), None);
    assert_eq!(
        reason(&config(&json!({})), &request()),
        Some("beta_not_allowed")
    );
}

#[test]
fn a_condition_that_is_unknown_has_failed() {
    for (conditions, known, unknown) in [
        (
            json!({ "countries": ["DE", "FR"] }),
            None,
            "condition_country",
        ),
        (
            json!({ "cidrs": ["10.0.0.0/8"] }),
            None,
            "condition_address",
        ),
        (
            json!({ "claims": { "env": "prod" } }),
            None,
            "condition_claim",
        ),
        (
            json!({ "countries": ["US"] }),
            Some("condition_country"),
            "condition_country",
        ),
        (
            json!({ "cidrs": ["192.168.0.0/16"] }),
            Some("condition_address"),
            "condition_address",
        ),
        (
            json!({ "claims": { "env": "dev" } }),
            Some("condition_claim"),
            "condition_claim",
        ),
    ] {
        let config = config(&json!({ "conditions": conditions }));
        let mut attributes = Map::default();
        attributes.set("source.address", "[::ffff:10.1.2.3]:4711");
        attributes.set(&format!("{JWT}.authorization.env"), "prod");
        let request = Request {
            attributes,
            country: Some(b"DE"),
            ..Request::default()
        };
        assert_eq!(reason(&config, &request), known, "{conditions}");
        assert_eq!(
            reason(&config, &Request::default()),
            Some(unknown),
            "{conditions}"
        );
    }
}

#[test]
fn hours_wrap_around_midnight() {
    for (hours, expected) in [
        ([6, 22], None),
        ([12, 13], None),
        ([13, 12], Some("condition_hour")),
        ([22, 6], Some("condition_hour")),
        ([22, 13], None),
        ([0, 24], None),
        ([0, 12], Some("condition_hour")),
    ] {
        let config = config(&json!({ "conditions": { "utc_hours": hours } }));
        assert_eq!(reason(&config, &Request::default()), expected, "{hours:?}");
    }
}

#[test]
fn observe_relaxes_the_policy_and_nothing_else() {
    let config = config(&json!({ "mode": "observe", "max_output_tokens": 10,
        "conditions": { "utc_hours": [0, 1] } }));
    for (path, body, expected) in [
        (
            "/v1/chat/completions",
            json!({ "model": "gpt-5" }),
            Ok("condition_hour"),
        ),
        (
            "/v1/responses",
            json!({ "model": "gpt-5" }),
            Ok("endpoint_not_allowed"),
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "o3", "store": true }),
            Err("provider_state"),
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "o3", "n": "x" }),
            Err("field_invalid"),
        ),
    ] {
        let request = Request {
            path,
            body: body.clone(),
            ..Request::default()
        };
        let found = decide(&config, &request)
            .map(|grant| grant.observed.map_or("nothing", Denial::reason))
            .map_err(Denial::reason);
        assert_eq!(found, expected, "{path} {body}");
    }
}

#[test]
fn the_broker_asks_by_subject_and_provider() {
    let config = config(&json!({}));
    let may = |subject: &str, provider: &str| {
        may_use(&config, &SubjectId::vouched(subject), provider)
            .map(|_| ())
            .map_err(Denial::reason)
    };
    assert_eq!(may("spiffe://prod.example/a", "openai"), Ok(()));
    assert_eq!(
        may("spiffe://prod.example/a", "own"),
        Err("provider_not_allowed")
    );
    assert_eq!(
        may("spiffe://prod.example/a", "nobody"),
        Err("provider_not_allowed")
    );
    assert_eq!(may("spiffe://other.example/a", "openai"), Err("no_policy"));
}
