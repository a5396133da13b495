//! Every check, by changes to one good configuration: which of them it reports, where, and which
//! it lets pass.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::{
    CHECKS, Report, Severity, bootstrap::Bootstrap, check, node::Node, plugin::CAPABILITIES,
};
use crate::document;

/// Places in the configuration, as JSON pointers.
const LISTENER: &str = "/static_resources/listeners/0";
const TLS: &str = "/static_resources/listeners/0/filter_chains/0/transport_socket/typed_config";
const HTTP: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const HOST: &str = "/route_config/virtual_hosts/0";
const CONFIG: &str = "/http_filters/2/typed_config/config";
const AUTHN: &str = "/http_filters/0/typed_config";
const CLUSTERS: &str = "/static_resources/clusters";

type Change = (String, Value);

fn policy() -> Value {
    json!({
        "identity": { "sources": [
            { "mtls": { "trust_domains": ["prod.example"] } },
            { "jwt": { "slots": ["authorization", "x-api-key"], "audience": "llm" } },
        ]},
        "network": { "country_header": "x-geo-country" },
        "providers": {
            "openai": { "api": "openai", "match": { "path_prefix": "/openai" }, "clusters": ["openai"] },
            "inner": { "api": "openai", "match": { "path_prefix": "/inner" }, "clusters": ["inner"],
                       "base_path": "/llm/v2" },
        },
        "broker": { "cluster": "broker" },
        "policies": [{
            "name": "bots", "subjects": ["spiffe://prod.example/**"],
            "allow": [{ "providers": ["openai"], "endpoints": ["chat"], "models": ["gpt-*"] }],
            "conditions": { "countries": ["DE"], "cidrs": ["10.0.0.0/8"] },
        }],
    })
}

fn envoy() -> Value {
    let text = include_str!("../../tests/fixtures/envoy.yaml");
    let mut envoy = document::parse(Path::new("envoy.yaml"), text).expect("YAML");
    let capabilities: serde_json::Map<_, _> = CAPABILITIES
        .iter()
        .map(|name| ((*name).to_owned(), json!({})))
        .collect();
    let restriction = "/vm_config/capability_restriction_config/allowed_capabilities";
    change(
        &mut envoy,
        &at(&[HTTP, CONFIG, restriction]),
        capabilities.into(),
    );
    envoy
}

fn at(parts: &[&str]) -> String {
    parts.concat()
}

/// Sets the value at a pointer, or removes it where the value is null.
fn change(document: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let last = last.replace("~1", "/");
    let parent = document
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("no parent of {pointer}"));
    match parent {
        Value::Object(fields) if value.is_null() => {
            fields
                .remove(&last)
                .unwrap_or_else(|| panic!("nothing at {pointer}"));
        }
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) => {
            let index: usize = last.parse().expect("an index");
            if value.is_null() {
                items.remove(index);
            } else if index < items.len() {
                items[index] = value;
            } else {
                items.push(value);
            }
        }
        _ => panic!("no parent of {pointer}"),
    }
}

fn report(mut policy: Value, envoy_changes: &[Change], policy_changes: &[Change]) -> Report {
    for (pointer, value) in policy_changes {
        change(&mut policy, pointer, value.clone());
    }
    let mut envoy = envoy();
    let embedded = at(&[HTTP, CONFIG, "/configuration/value"]);
    change(&mut envoy, &embedded, policy.to_string().into());
    for (pointer, value) in envoy_changes {
        change(&mut envoy, pointer, value.clone());
    }
    let bootstrap = Bootstrap::new(Node::root(&envoy));
    check(Path::new("policy.yaml"), &policy, Some(&bootstrap))
}

fn lines(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn finds_nothing_where_nothing_is_wrong() {
    let found = lines(&report(policy(), &[], &[]));
    assert!(found.is_empty(), "{found:#?}");
}

/// A check, the changes of the Envoy configuration that it must report, and the end of the path
/// that it must name.
fn faults() -> Vec<(&'static str, Vec<Change>, &'static str)> {
    let http = |rest: &str, value: Value| (at(&[HTTP, rest]), value);
    let config = |rest: &str, value: Value| (at(&[HTTP, CONFIG, rest]), value);
    let authn = |rest: &str, value: Value| (at(&[HTTP, AUTHN, rest]), value);
    let tls = |rest: &str, value: Value| (at(&[TLS, rest]), value);
    let route = |rest: &str, value: Value| (at(&[HTTP, HOST, "/routes/0", rest]), value);
    let host = |rest: &str, value: Value| (at(&[HTTP, HOST, rest]), value);
    let cluster = |rest: &str, value: Value| (at(&[CLUSTERS, rest]), value);
    let capability = "/vm_config/capability_restriction_config/allowed_capabilities";
    let validation = "/common_tls_context/validation_context";
    let upstream = "/0/transport_socket/typed_config/common_tls_context/validation_context";
    let slot = "/providers/x-api-key";
    let any = "/rules/0/requires/requires_any/requirements";
    let null = || Value::Null;
    vec![
        (
            "plugin",
            vec![http("/http_filters/2", null())],
            "static_resources.listeners",
        ),
        (
            "same-policy",
            vec![config("/configuration/value", json!("{}"))],
            "configuration.value",
        ),
        (
            "same-policy",
            vec![config("/configuration/value", json!("a: b"))],
            "configuration.value",
        ),
        (
            "hold-mode",
            vec![config("/allow_on_headers_stop_iteration", null())],
            "stop_iteration",
        ),
        (
            "hold-mode",
            vec![config("/allow_on_headers_stop_iteration", json!(false))],
            "stop_iteration",
        ),
        (
            "reload",
            vec![config("/failure_policy", json!("FAIL_OPEN"))],
            "config.failure_policy",
        ),
        (
            "reload",
            vec![config("/failure_policy", null())],
            "config.failure_policy",
        ),
        (
            "reload",
            vec![config("/fail_open", json!(true))],
            "config.fail_open",
        ),
        (
            "reload",
            vec![config("/reload_config", null())],
            "backoff.max_interval",
        ),
        (
            "reload",
            vec![config("/reload_config/backoff/max_interval", json!("1s"))],
            "max_interval",
        ),
        (
            "capabilities",
            vec![config(capability, null())],
            "allowed_capabilities",
        ),
        (
            "capabilities",
            vec![config(&at(&[capability, "/proxy_log"]), null())],
            ".proxy_log",
        ),
        (
            "capabilities",
            vec![config(&at(&[capability, "/proxy_set_log"]), json!({}))],
            ".proxy_set_log",
        ),
        (
            "disabled",
            vec![route(
                "/typed_per_filter_config",
                json!({ "almoner": { "disabled": true } }),
            )],
            "[0].typed_per_filter_config.almoner",
        ),
        (
            "disabled",
            vec![host("/typed_per_filter_config", json!({ "almoner": {} }))],
            "typed_per_filter_config.almoner",
        ),
        (
            "disabled",
            vec![host("/typedPerFilterConfig", json!({ "almoner": {} }))],
            "typedPerFilterConfig.almoner",
        ),
        (
            "disabled",
            vec![http("/http_filters/2/disabled", json!(true))],
            "http_filters[2].disabled",
        ),
        (
            "order",
            vec![
                http("/http_filters/3", json!({ "name": "lua" })),
                http("/http_filters/9", json!({ "name": "r" })),
            ],
            "http_filters[3]",
        ),
        (
            "mtls",
            vec![tls("/require_client_certificate", json!(false))],
            "require_client_certificate",
        ),
        (
            "mtls",
            vec![tls("/require_client_certificate", null())],
            "require_client_certificate",
        ),
        (
            "mtls",
            vec![tls(&at(&[validation, "/trusted_ca"]), null())],
            "validation_context.trusted_ca",
        ),
        (
            "mtls",
            vec![tls("/common_tls_context/validation_context", null())],
            "validation_context.trusted_ca",
        ),
        (
            "mtls",
            vec![tls(
                &at(&[validation, "/trust_chain_verification"]),
                json!("ACCEPT_UNTRUSTED"),
            )],
            "trust_chain_verification",
        ),
        (
            "mtls",
            vec![tls(
                &at(&[validation, "/match_typed_subject_alt_names"]),
                null(),
            )],
            "match_typed_subject_alt_names",
        ),
        (
            "mtls",
            vec![tls(
                &at(&[validation, "/match_typed_subject_alt_names/1"]),
                json!({ "san_type": "DNS", "matcher": { "prefix": "spiffe://" } }),
            )],
            "match_typed_subject_alt_names",
        ),
        (
            "mtls",
            vec![tls(
                &at(&[validation, "/match_typed_subject_alt_names/0/matcher"]),
                json!({ "contains": "spiffe://" }),
            )],
            "match_typed_subject_alt_names",
        ),
        (
            "jwt-slots",
            vec![http("/http_filters/0", json!({ "name": "none" }))],
            "http_filters",
        ),
        ("jwt-slots", vec![authn(slot, null())], "providers"),
        (
            "jwt-slots",
            vec![authn(
                "/providers/more",
                json!({ "from_headers": [{ "name": "X-Api-Key" }] }),
            )],
            "providers",
        ),
        (
            "jwt-slots",
            vec![authn(
                &at(&[slot, "/from_headers/1"]),
                json!({ "name": "api-key" }),
            )],
            "x-api-key.from_headers",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/from_params"]), json!(["key"]))],
            "x-api-key.from_headers",
        ),
        (
            "jwt-slots",
            vec![authn(
                "/providers/authorization/from_headers/0/value_prefix",
                null(),
            )],
            "value_prefix",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/payload_in_metadata"]), json!("jwt"))],
            "payload_in_metadata",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/failed_status_in_metadata"]), null())],
            "failed_status_in_metadata",
        ),
        (
            "jwt-slots",
            vec![authn("/providers/by-default", json!({}))],
            "providers",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/require_expiration"]), null())],
            "x-api-key.require_expiration",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/forward"]), null())],
            "x-api-key.forward",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/audiences"]), null())],
            "x-api-key.audiences",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/audiences"]), json!(["other"]))],
            "x-api-key.audiences",
        ),
        (
            "jwt-slots",
            vec![authn(&at(&[slot, "/issuer"]), null())],
            "x-api-key.issuer",
        ),
        ("jwt-requirement", vec![authn("/rules", json!([]))], "rules"),
        (
            "jwt-requirement",
            vec![authn("/rules/1", json!({ "match": { "prefix": "/x" } }))],
            "rules",
        ),
        (
            "jwt-requirement",
            vec![authn("/rules/0/match/prefix", json!("/openai"))],
            "match.prefix",
        ),
        (
            "jwt-requirement",
            vec![authn(&at(&[any, "/2"]), null())],
            "requirements",
        ),
        (
            "jwt-requirement",
            vec![authn(&at(&[any, "/2"]), json!({ "allow_missing": {} }))],
            "requirements",
        ),
        (
            "jwt-requirement",
            vec![authn(&at(&[any, "/1"]), null())],
            "requirements",
        ),
        (
            "country",
            vec![http("/http_filters/1", json!({ "name": "none" }))],
            "http_filters",
        ),
        (
            "country",
            vec![http("/early_header_mutation_extensions", null())],
            "early_header_mutation_extensions",
        ),
        (
            "country",
            vec![http(
                "/early_header_mutation_extensions/0/typed_config/mutations/0",
                json!({ "remove": "x-other" }),
            )],
            "early_header_mutation_extensions",
        ),
        (
            "address",
            vec![http("/use_remote_address", null())],
            "use_remote_address",
        ),
        (
            "buffer-limit",
            vec![(
                at(&[LISTENER, "/per_connection_buffer_limit_bytes"]),
                null(),
            )],
            "buffer_limit_bytes",
        ),
        (
            "buffer-limit",
            vec![(
                at(&[LISTENER, "/per_connection_buffer_limit_bytes"]),
                json!(8_388_607),
            )],
            "buffer_limit_bytes",
        ),
        (
            "idle-timeout",
            vec![http("/stream_idle_timeout", json!("0s"))],
            "stream_idle_timeout",
        ),
        (
            "idle-timeout",
            vec![route("/route/idle_timeout", json!("0s"))],
            "route.idle_timeout",
        ),
        (
            "normal-path",
            vec![http("/normalize_path", null())],
            "normalize_path",
        ),
        (
            "normal-path",
            vec![http("/merge_slashes", json!(false))],
            "merge_slashes",
        ),
        ("record", vec![http("/access_log", null())], "access_log"),
        (
            "record",
            vec![http(
                "/access_log/0/filter",
                json!({ "status_code_filter": {} }),
            )],
            "access_log",
        ),
        (
            "record",
            vec![http(
                "/access_log/0/typed_config/log_format/json_format/record",
                json!("%FILTER_STATE(wasm.rec:PLAIN)%"),
            )],
            "access_log",
        ),
        (
            "admin",
            vec![(
                "/admin/address/socket_address/address".into(),
                json!("0.0.0.0"),
            )],
            "admin.address.socket_address.address",
        ),
        (
            "unseen",
            vec![("/dynamic_resources".into(), json!({ "lds_config": {} }))],
            "dynamic_resources",
        ),
        (
            "unseen",
            vec![http("/rds", json!({ "route_config_name": "a" }))],
            "rds",
        ),
        (
            "cluster",
            vec![cluster("/0/name", json!("other"))],
            "static_resources.clusters",
        ),
        (
            "cluster",
            vec![cluster("/2", null())],
            "static_resources.clusters",
        ),
        (
            "chosen-by-caller",
            vec![cluster("/0/type", json!("ORIGINAL_DST"))],
            "clusters[0].type",
        ),
        (
            "chosen-by-caller",
            vec![cluster(
                "/0/cluster_type",
                json!({ "name": "envoy.clusters.dynamic_forward_proxy" }),
            )],
            "cluster_type.name",
        ),
        (
            "chosen-by-caller",
            vec![route("/route", json!({ "cluster_header": "x-cluster" }))],
            "cluster_header",
        ),
        (
            "provider-tls",
            vec![cluster("/0/transport_socket", null())],
            "clusters[0].transport_socket.typed_config",
        ),
        (
            "provider-tls",
            vec![cluster(&at(&[upstream, "/trusted_ca"]), null())],
            "trusted_ca",
        ),
        (
            "provider-tls",
            vec![cluster(
                &at(&[upstream, "/match_typed_subject_alt_names"]),
                null(),
            )],
            "match_typed_subject_alt_names",
        ),
        (
            "provider-tls",
            vec![cluster(
                &at(&[upstream, "/trust_chain_verification"]),
                json!("ACCEPT_UNTRUSTED"),
            )],
            "trust_chain_verification",
        ),
        (
            "provider-tls",
            vec![cluster(
                "/0/transport_socket_matches",
                json!([{ "transport_socket": { "name": "raw" } }]),
            )],
            "transport_socket_matches[0].transport_socket.typed_config",
        ),
        (
            "provider-tls",
            vec![cluster(
                "/1/transport_socket/typed_config/auto_sni_san_validation",
                null(),
            )],
            "match_typed_subject_alt_names",
        ),
        (
            "provider-tls",
            vec![cluster("/2/transport_socket", null())],
            "clusters[2].transport_socket.typed_config",
        ),
        (
            "broker-tls",
            vec![cluster(
                "/2/transport_socket/typed_config/common_tls_context/tls_certificates",
                null(),
            )],
            "tls_certificates",
        ),
        (
            "route",
            vec![route("/route/cluster", json!("broker"))],
            "routes[0].route",
        ),
        (
            "route",
            vec![route(
                "/route",
                json!({ "weighted_clusters": { "clusters": [{ "name": "openai" }, { "name": "inner" }] } }),
            )],
            "routes[0].route",
        ),
        ("route", vec![host("/routes/1", null())], "route_config"),
        (
            "rewrite",
            vec![route("/match/prefix", json!("/openai"))],
            "routes[0]",
        ),
        (
            "rewrite",
            vec![route("/route/prefix_rewrite", null())],
            "routes[0]",
        ),
        (
            "rewrite",
            vec![route("/route/prefix_rewrite", json!("/v1/"))],
            "routes[0]",
        ),
        (
            "rewrite",
            vec![route(
                "/match",
                json!({ "path_separated_prefix": "/openai" }),
            )],
            "routes[0]",
        ),
        (
            "rewrite",
            vec![route(
                "/route/regex_rewrite",
                json!({ "substitution": "/" }),
            )],
            "regex_rewrite",
        ),
        (
            "rewrite",
            vec![route("/match", json!({ "safe_regex": {} }))],
            "routes[0]",
        ),
        (
            "retry",
            vec![host("/retry_policy/retry_on", json!("5xx"))],
            "retry_policy.retry_on",
        ),
        (
            "retry",
            vec![route(
                "/route/retry_policy",
                json!({ "retry_on": "connect-failure, reset" }),
            )],
            "route.retry_policy.retry_on",
        ),
        (
            "retry",
            vec![host("/retry_policy/retriable_status_codes", json!([503]))],
            "retriable_status_codes",
        ),
        (
            "copies",
            vec![route(
                "/route/request_mirror_policies",
                json!([{ "cluster": "openai" }]),
            )],
            "route.request_mirror_policies",
        ),
        (
            "copies",
            vec![host("/request_mirror_policies", json!([]))],
            "request_mirror_policies",
        ),
        (
            "copies",
            vec![http("/route_config/request_mirror_policies", json!([{}]))],
            "route_config.request_mirror_policies",
        ),
        (
            "copies",
            vec![route("/route/hedge_policy", json!({}))],
            "hedge_policy",
        ),
        (
            "copies",
            vec![route("/route/internal_redirect_policy", json!({}))],
            "internal_redirect_policy",
        ),
    ]
}

#[test]
fn each_fault_is_found_where_it_stands() {
    for (name, changes, place) in faults() {
        let report = report(policy(), &changes, &[]);
        let found = report
            .findings
            .iter()
            .any(|f| f.check == name && f.path.ends_with(place));
        assert!(
            found,
            "{name} at {place}: {:#?}\n{changes:?}",
            lines(&report)
        );
    }
}

#[test]
fn every_check_has_a_fault_that_it_finds() {
    let tested: BTreeSet<_> = faults()
        .into_iter()
        .map(|(name, ..)| name)
        .chain(["loopback"])
        .collect();
    let known: BTreeSet<_> = CHECKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, known);
    assert_eq!(known.len(), CHECKS.len(), "one name a check");
}

#[test]
fn other_sound_ways_of_writing_it_pass() {
    let http = |rest: &str, value: Value| (at(&[HTTP, rest]), value);
    let tls = |rest: &str, value: Value| (at(&[TLS, rest]), value);
    let route =
        |n: u8, rest: &str, value: Value| (at(&[HTTP, HOST, &format!("/routes/{n}"), rest]), value);
    let validation = envoy()
        .pointer(&at(&[TLS, "/common_tls_context/validation_context"]))
        .cloned();
    for changes in [
        // Protobuf's own spelling of fields.
        vec![
            http("/normalize_path", Value::Null),
            http("/normalizePath", json!(true)),
        ],
        vec![http("/stream_idle_timeout", Value::Null)],
        // A listener that asks for no certificate, where a token can identify the caller.
        vec![
            tls("/require_client_certificate", Value::Null),
            tls("/common_tls_context/validation_context", Value::Null),
        ],
        vec![
            tls("/common_tls_context/validation_context", Value::Null),
            tls(
                "/common_tls_context/combined_validation_context",
                json!({ "default_validation_context": validation }),
            ),
        ],
        vec![
            route(1, "/match", json!({ "path_separated_prefix": "/inner" })),
            route(1, "/route/prefix_rewrite", json!("/llm/v2")),
        ],
        vec![route(
            0,
            "/route",
            json!({ "weighted_clusters": { "clusters": [{ "name": "openai", "weight": 1 }] },
                    "prefix_rewrite": "/" }),
        )],
        vec![("/admin".to_owned(), Value::Null)],
        vec![(
            "/admin/address".to_owned(),
            json!({ "pipe": { "path": "/run/admin" } }),
        )],
        vec![http(
            "/early_header_mutation_extensions/0/typed_config/mutations/0",
            json!({ "remove": "X-Geo-Country" }),
        )],
    ] {
        let found = lines(&report(policy(), &changes, &[]));
        assert!(found.is_empty(), "{changes:?}\n{found:#?}");
    }
}

#[test]
fn a_sidecar_listens_on_loopback_only() {
    let sidecar = vec![(
        "/identity/sources".to_owned(),
        json!([{ "proxy": { "subject": "spiffe://prod.example/ns/{node.NAMESPACE}" } }]),
    )];
    let address = at(&[LISTENER, "/address/socket_address/address"]);
    let found = |host: &str| {
        let report = report(policy(), &[(address.clone(), json!(host))], &sidecar);
        report
            .findings
            .into_iter()
            .map(|f| (f.check, f.path))
            .collect::<Vec<_>>()
    };
    let path = "static_resources.listeners[0].address.socket_address.address".to_owned();
    assert_eq!(found("0.0.0.0"), [("loopback", path.clone())]);
    assert_eq!(found("::"), [("loopback", path)]);
    for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert!(found(host).is_empty(), "{host}");
    }
    let more = json!([{ "address": { "socket_address": { "address": "10.0.0.1" } } }]);
    let changes = [
        (address, json!("127.0.0.1")),
        (at(&[LISTENER, "/additional_addresses"]), more),
    ];
    let found = lines(&report(policy(), &changes, &sidecar));
    assert!(
        found.len() == 1 && found[0].contains("additional_addresses[0]"),
        "{found:#?}"
    );
}

#[test]
fn mtls_alone_needs_a_listener_that_has_it() {
    let mtls_only = vec![("/identity/sources/1".to_owned(), Value::Null)];
    let tls = at(&[LISTENER, "/filter_chains/0/transport_socket"]);
    let found = lines(&report(policy(), &[(tls, Value::Null)], &mtls_only));
    assert!(
        found
            .iter()
            .any(|line| line.contains("[mtls]: expected TLS")),
        "{found:#?}"
    );
}

#[test]
fn a_policy_that_the_core_refuses_is_one_finding() {
    let wrong = vec![("/policies/0/mood".to_owned(), json!("bad"))];
    let report = report(policy(), &[], &wrong);
    assert_eq!(
        (report.findings.len(), report.count(Severity::Error)),
        (1, 1)
    );
    assert!(
        report.findings[0].found.contains("mood"),
        "{:#?}",
        report.findings
    );
}

#[test]
fn a_line_says_where_what_and_what_to_do() {
    let changes = [(at(&[HTTP, "/normalize_path"]), json!(false))];
    let found = lines(&report(policy(), &changes, &[]));
    assert_eq!(
        found,
        [
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.normalize_path: \
          error[normal-path]: expected `true`, found `false`; a path has one spelling, for the \
          router too"
        ]
    );
}
