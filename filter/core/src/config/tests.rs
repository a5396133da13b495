use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "identity": { "sources": [
            { "mtls": { "trust_domains": ["prod.example"] } },
            { "jwt": { "slots": ["authorization", "x-api-key"], "audience": "llm" } },
        ] },
        "providers": {
            "openai": { "api": "openai", "match": { "path_prefix": "/openai" }, "clusters": ["openai"] },
            "anthropic": { "api": "anthropic", "match": { "authority": "api.anthropic.com" },
                           "clusters": ["anthropic"] },
        },
        "broker": { "cluster": "broker" },
        "budgets": {
            "calls": { "unit": "requests", "limit": 10, "window": "1m" },
            "team": { "unit": "tokens", "limit": 1000, "window": "1h", "per": "policy" },
        },
        "policies": [{
            "name": "bot",
            "subjects": ["spiffe://prod.example/ns/*/sa/bot", "jwt:https://issuer|bot-*"],
            "allow": [{ "providers": ["openai"], "endpoints": ["chat"], "models": ["gpt-4o*"] }],
            "budgets": ["calls"],
        }],
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(object) => drop(object.insert(field.to_owned(), value)),
        Value::Array(array) => array[field.parse::<usize>().unwrap()] = value,
        other => panic!("{parent} is {other}"),
    }
    document
}

fn parse(document: &Value) -> Result<Config, String> {
    Config::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn reads_a_document_with_its_defaults() {
    let config = parse(&document()).unwrap();
    assert_eq!(config.namespace, "almoner");
    assert_eq!(config.broker.timeout, Duration::from_secs(2));
    assert_eq!(config.broker.path, "/token");
    assert_eq!(config.limits.max_body_bytes, 8 * 1024 * 1024);
    assert_eq!(
        config.policies[0].max_stream_duration,
        Duration::from_mins(15)
    );
    assert_eq!(config.policies[0].mode, Mode::Enforce);
    assert_eq!(config.providers[0].base_path, "");
    assert_eq!(config.providers[0].state, StateAccess::None);
    assert!(config.warnings.is_empty());
}

#[test]
fn names_the_path_what_it_expected_and_what_it_found() {
    for (pointer, value, expected) in [
        (
            "/budgets/calls/window",
            json!("1 min"),
            "budgets.calls.window: expected a ",
        ),
        ("/budgets/calls/window", json!("1 min"), "found `1 min`"),
        (
            "/budgets/calls/limit",
            json!("5"),
            "budgets.calls.limit: expected u64, found string \"5\"",
        ),
        (
            "/budgets/calls/limit",
            json!(0),
            "budgets.calls.limit: expected at least 1, found `0`",
        ),
        (
            "/budgets/calls/unit",
            json!("words"),
            "budgets.calls.unit: expected one of",
        ),
        (
            "/budgets/calls/per",
            json!("planet"),
            "budgets.calls.per: expected one of",
        ),
        (
            "/budgets/team/subjects",
            json!(5),
            "budgets.team.subjects: expected nothing",
        ),
        ("/surprise", json!(1), "surprise: expected one of"),
        (
            "/providers/openai/surprise",
            json!(1),
            "providers.openai.surprise: expected one of",
        ),
        (
            "/providers/openai/api",
            json!("telepathy"),
            "providers.openai.api: expected",
        ),
        (
            "/providers/openai/clusters",
            json!([]),
            "providers.openai.clusters: expected at least",
        ),
        (
            "/providers/openai/match",
            json!({}),
            "providers.openai.match: expected a `path_prefix`",
        ),
        (
            "/providers/openai/match/path_prefix",
            json!("/openai/"),
            "found `/openai/`",
        ),
        (
            "/providers/openai/match/path_prefix",
            json!("/a/../b"),
            "found `/a/../b`",
        ),
        (
            "/providers/openai/match/authority",
            json!("API.example"),
            "expected a lower-case host",
        ),
        (
            "/providers/openai/base_path",
            json!("v1"),
            "providers.openai.base_path: expected a path",
        ),
        (
            "/providers/openai/pass_headers",
            json!(["authorization"]),
            "found `authorization`",
        ),
        (
            "/identity/sources",
            json!([]),
            "identity.sources: expected at least one source",
        ),
        (
            "/identity/sources/0/mtls/trust_domains",
            json!([]),
            "trust_domains: expected at least",
        ),
        (
            "/identity/sources/0/mtls/trust_domains",
            json!(["a/b"]),
            "found `a/b`",
        ),
        (
            "/identity/sources/1/jwt/slots",
            json!([]),
            "slots: expected at least one slot",
        ),
        (
            "/identity/sources/1/jwt/slots",
            json!(["cookie"]),
            "expected one of",
        ),
        (
            "/identity/require",
            json!("some"),
            "identity.require: expected",
        ),
        (
            "/broker/cluster",
            json!(""),
            "broker.cluster: expected a cluster name",
        ),
        (
            "/broker/timeout",
            json!("1h"),
            "broker.timeout: expected a duration",
        ),
        (
            "/limits",
            json!({ "max_body_bytes": 1 }),
            "limits.max_body_bytes: expected 1024",
        ),
        ("/policies", json!([]), "policies: expected at least one"),
        (
            "/policies/0/name",
            json!("a b"),
            "policies[0].name: expected 1 to 63",
        ),
        ("/policies/0/subjects", json!(["*"]), "found `*`"),
        (
            "/policies/0/subjects",
            json!(["spiffe://*/a"]),
            "found `spiffe://*/a`",
        ),
        (
            "/policies/0/subjects",
            json!(["jwt:https://*|a"]),
            "found `jwt:https://*|a`",
        ),
        (
            "/policies/0/subjects",
            json!(["jwt:https://i|a|b"]),
            "found `jwt:https://i|a|b`",
        ),
        (
            "/policies/0/subjects",
            json!([]),
            "policies[0].subjects: expected at least one",
        ),
        (
            "/policies/0/allow/0/providers",
            json!(["azure"]),
            "found `azure`",
        ),
        (
            "/policies/0/allow/0/endpoints",
            json!(["messages"]),
            "found `messages`",
        ),
        (
            "/policies/0/allow/0/endpoints",
            json!(["mint"]),
            "expected one of",
        ),
        (
            "/policies/0/allow/0/models",
            json!([]),
            "allow[0].models: expected at least one model",
        ),
        (
            "/policies/0/budgets",
            json!(["none"]),
            "policies[0].budgets: expected the name of a budget",
        ),
        (
            "/policies/0/budgets",
            json!(["calls", "calls"]),
            "expected each budget once",
        ),
        (
            "/policies/0/budgets",
            json!(["team"]),
            "max_output_tokens: expected a number, because",
        ),
        (
            "/policies/0/max_output_tokens",
            json!(0),
            "max_output_tokens: expected at least 1",
        ),
        (
            "/policies/0/max_stream_duration",
            json!("0s"),
            "max_stream_duration: expected a duration",
        ),
        (
            "/policies/0/conditions",
            json!({ "countries": ["DE"] }),
            "expected `network.country_header`",
        ),
        (
            "/policies/0/conditions",
            json!({ "cidrs": ["10.0.0.0/33"] }),
            "found `10.0.0.0/33`",
        ),
        (
            "/policies/0/conditions",
            json!({ "utc_hours": [6, 25] }),
            "found `[6, 25]`",
        ),
    ] {
        let error = parse(&with(pointer, value.clone())).err();
        let error = error.unwrap_or_else(|| panic!("{pointer} = {value} was accepted"));
        assert!(error.contains(expected), "{pointer} = {value}: {error}");
    }
}

#[test]
fn refuses_a_budget_of_money_while_nothing_has_a_price() {
    let error = parse(&with("/budgets/calls/unit", json!("usd"))).unwrap_err();
    assert!(
        error.starts_with("budgets.calls.unit: expected a unit that can be counted"),
        "{error}"
    );
}

#[test]
fn refuses_providers_that_could_claim_one_request() {
    for (matches, accepted) in [
        (json!({ "path_prefix": "/openai" }), false),
        (json!({ "path_prefix": "/openai/eu" }), false),
        (json!({ "path_prefix": "/openaieu" }), true),
        (
            json!({ "path_prefix": "/openai", "authority": "eu.example" }),
            false,
        ),
        (
            json!({ "authority": "api.anthropic.com", "path_prefix": "/x" }),
            false,
        ),
        (json!({ "authority": "api.anthropic.com" }), false),
        (json!({ "authority": "api.openai.com" }), true),
    ] {
        let provider = json!({ "api": "openai", "match": matches, "clusters": ["c"] });
        let found = parse(&with("/providers/second", provider));
        assert_eq!(found.is_ok(), accepted, "{matches}: {:?}", found.err());
    }
}

#[test]
fn refuses_what_json_parsers_read_differently() {
    for text in [
        document().to_string() + "x",
        document()
            .to_string()
            .replacen("\"calls\":", "\"team\":", 1),
        document()
            .to_string()
            .replacen("\"budgets\":", "\"broker\":", 1),
        String::new(),
        "[]".to_owned(),
        "\u{feff}{}".to_owned(),
    ] {
        assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn warns_of_a_policy_that_never_decides() {
    let mut document = document();
    let mut second = document["policies"][0].clone();
    second["name"] = json!("second");
    second["subjects"] = json!(["spiffe://prod.example/ns/a/sa/bot"]);
    document["policies"].as_array_mut().unwrap().push(second);
    let warnings = parse(&document).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("`second` never decides, because `bot`"),
        "{}",
        warnings[0]
    );
}

#[test]
fn the_digest_is_of_what_it_means() {
    let compact = parse(&document()).unwrap().digest;
    let pretty = serde_json::to_string_pretty(&document()).unwrap();
    assert_eq!(Config::parse(pretty.as_bytes()).unwrap().digest, compact);
    let other = parse(&with("/budgets/calls/limit", json!(11)))
        .unwrap()
        .digest;
    assert_ne!(other, compact);
}
