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
const ALLOWED: &str = "/vm_config/capability_restriction_config/allowed_capabilities";
const VALIDATION: &str = "/common_tls_context/validation_context";

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
    change(
        &mut envoy,
        &at(&[HTTP, CONFIG, ALLOWED]),
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
    check(
        Path::new("policy.yaml"),
        &policy.to_string(),
        Some(&bootstrap),
    )
}

fn lines(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn finds_nothing_where_nothing_is_wrong() {
    let found = lines(&report(policy(), &[], &[]));
    assert!(found.is_empty(), "{found:#?}");
}

/// One fault a line: the check that must report it; the place that is changed; its new value, or `-`
/// to remove it; the end of the path that the finding must name.
const FAULTS: &str = r#"
plugin           | http:/http_filters/2 | - | static_resources.listeners
same-policy      | plugin:/configuration/value | "{}" | configuration.value
same-policy      | plugin:/configuration/value | "a: b" | configuration.value
hold-mode        | plugin:/allow_on_headers_stop_iteration | - | allow_on_headers_stop_iteration
hold-mode        | plugin:/allow_on_headers_stop_iteration | false | allow_on_headers_stop_iteration
reload           | plugin:/failure_policy | "FAIL_OPEN" | config.failure_policy
reload           | plugin:/failure_policy | - | config.failure_policy
reload           | plugin:/fail_open | true | config.fail_open
reload           | plugin:/reload_config | - | backoff.max_interval
reload           | plugin:/reload_config/backoff/max_interval | "1s" | backoff.max_interval
capabilities     | plugin:/vm_config/capability_restriction_config | - | allowed_capabilities
capabilities     | allowed:/proxy_log | - | allowed_capabilities.proxy_log
capabilities     | allowed:/proxy_set_log_level | {} | allowed_capabilities.proxy_set_log_level
disabled         | route:/typed_per_filter_config | {"almoner": {"disabled": true}} | routes[0].typed_per_filter_config.almoner
disabled         | host:/typed_per_filter_config | {"almoner": {}} | hosts[0].typed_per_filter_config.almoner
disabled         | host:/typedPerFilterConfig | {"almoner": {}} | hosts[0].typedPerFilterConfig.almoner
disabled         | http:/http_filters/2/disabled | true | http_filters[2].disabled
order            | http:/http_filters/3/typed_config/@type | "a/envoy.Lua" | http_filters[3]
mtls             | tls:/require_client_certificate | false | require_client_certificate
mtls             | tls:/require_client_certificate | - | require_client_certificate
mtls             | tls:/common_tls_context/validation_context | - | validation_context.trusted_ca
mtls             | verify:/trusted_ca | - | validation_context.trusted_ca
mtls             | verify:/trust_chain_verification | "ACCEPT_UNTRUSTED" | trust_chain_verification
mtls             | verify:/match_typed_subject_alt_names | - | match_typed_subject_alt_names
mtls             | verify:/match_typed_subject_alt_names/1 | {"san_type": "DNS", "matcher": {"prefix": "spiffe://"}} | match_typed_subject_alt_names
mtls             | verify:/match_typed_subject_alt_names/0/matcher | {"contains": "spiffe://"} | match_typed_subject_alt_names
jwt-slots        | http:/http_filters/0/typed_config/@type | "a/envoy.Lua" | http_filters
jwt-slots        | authn:/providers/x-api-key | - | providers
jwt-slots        | authn:/providers/more | {"from_headers": [{"name": "X-Api-Key"}]} | providers
jwt-slots        | authn:/providers/more | {} | providers
jwt-slots        | slot:/from_headers/1 | {"name": "api-key"} | x-api-key.from_headers
jwt-slots        | slot:/from_params | ["key"] | x-api-key.from_headers
jwt-slots        | authn:/providers/authorization/from_headers/0/value_prefix | - | value_prefix
jwt-slots        | slot:/payload_in_metadata | "jwt" | payload_in_metadata
jwt-slots        | slot:/failed_status_in_metadata | - | failed_status_in_metadata
jwt-slots        | slot:/forward | - | x-api-key.forward
jwt-slots        | slot:/require_expiration | - | x-api-key.require_expiration
jwt-slots        | slot:/audiences | - | x-api-key.audiences
jwt-slots        | slot:/audiences | ["other"] | x-api-key.audiences
jwt-slots        | slot:/issuer | - | x-api-key.issuer
jwt-requirement  | authn:/rules | [] | rules
jwt-requirement  | authn:/rules/1 | {"match": {"prefix": "/x"}} | rules
jwt-requirement  | authn:/rules/0/match/prefix | "/openai" | match.prefix
jwt-requirement  | any:/2 | - | requirements
jwt-requirement  | any:/2 | {"allow_missing": {}} | requirements
jwt-requirement  | any:/1 | - | requirements
country          | http:/http_filters/1/typed_config/@type | "a/envoy.Lua" | http_filters
country          | http:/early_header_mutation_extensions | - | early_header_mutation_extensions
country          | http:/early_header_mutation_extensions/0/typed_config/mutations/0 | {"remove": "x-other"} | early_header_mutation_extensions
address          | http:/use_remote_address | - | use_remote_address
buffer-limit     | listener:/per_connection_buffer_limit_bytes | - | per_connection_buffer_limit_bytes
buffer-limit     | listener:/per_connection_buffer_limit_bytes | 8388607 | per_connection_buffer_limit_bytes
idle-timeout     | http:/stream_idle_timeout | "0s" | stream_idle_timeout
idle-timeout     | route:/route/idle_timeout | "0s" | route.idle_timeout
normal-path      | http:/normalize_path | - | normalize_path
normal-path      | http:/merge_slashes | false | merge_slashes
record           | http:/access_log | - | access_log
record           | http:/access_log/0/filter | {"status_code_filter": {}} | access_log
record           | http:/access_log/0/typed_config/log_format/text_format_source/inline_string | "%FILTER_STATE(wasm.rec:TYPED)%" | access_log
admin            | /admin/address/socket_address/address | "0.0.0.0" | admin.address.socket_address.address
unseen           | /dynamic_resources | {"lds_config": {}} | dynamic_resources
unseen           | http:/rds | {"route_config_name": "a"} | typed_config.rds
cluster          | clusters:/0/name | "other" | static_resources.clusters
cluster          | clusters:/2 | - | static_resources.clusters
chosen-by-caller | clusters:/0/type | "ORIGINAL_DST" | clusters[0].type
chosen-by-caller | clusters:/0/cluster_type | {"name": "envoy.clusters.dynamic_forward_proxy"} | cluster_type.name
chosen-by-caller | route:/route | {"cluster_header": "x-cluster"} | route.cluster_header
provider-tls     | clusters:/0/transport_socket | - | clusters[0].transport_socket.typed_config
provider-tls     | clusters:/2/transport_socket | - | clusters[2].transport_socket.typed_config
provider-tls     | upstream:/trusted_ca | - | trusted_ca
provider-tls     | upstream:/match_typed_subject_alt_names | - | match_typed_subject_alt_names
provider-tls     | upstream:/trust_chain_verification | "ACCEPT_UNTRUSTED" | trust_chain_verification
provider-tls     | clusters:/0/transport_socket_matches | [{"transport_socket": {"name": "raw"}}] | transport_socket_matches[0].transport_socket.typed_config
provider-tls     | clusters:/1/transport_socket/typed_config/auto_sni_san_validation | - | match_typed_subject_alt_names
broker-tls       | clusters:/2/transport_socket/typed_config/common_tls_context/tls_certificates | - | tls_certificates
chosen-by-caller | route:/route | {"weighted_clusters": {"clusters": [{"name": "openai"}, {"cluster_header": "x-cluster"}]}} | clusters[1].cluster_header
route            | route:/route/cluster | "broker" | routes[0].route
route            | route:/route | {"weighted_clusters": {"clusters": [{"name": "openai"}, {"name": "inner"}]}} | routes[0].route
route            | host:/routes/1 | - | route_config
steady-route     | route:/match/headers | [{"name": ":method"}, {"name": "x-team"}] | match.headers[1].name
steady-route     | route:/match/headers | [{"name": ":path"}] | match.headers[0].name
steady-route     | route:/match/headers | [{"present_match": true}] | match.headers[0].name
steady-route     | route:/match/query_parameters | [{"name": "key"}] | match.query_parameters
steady-route     | route:/match/queryParameters | [{"name": "key"}] | match.queryParameters
steady-route     | route:/match/runtime_fraction | {"default_value": {"numerator": 50}} | match.runtime_fraction
steady-route     | route:/match/dynamic_metadata | [{"filter": "a"}] | match.dynamic_metadata
steady-route     | route:/match/filter_state | [{"key": "a"}] | match.filter_state
steady-route     | route:/match/cookies | [{"name": "a"}] | match.cookies
steady-route     | route:/match/grpc | {} | match.grpc
steady-route     | host:/routes/2 | {"match": {"prefix": "/", "headers": [{"name": "x-a"}]}, "route": {"cluster": "other"}} | routes[2].match.headers[0].name
steady-route     | host:/matcher | {"matcher_tree": {}} | hosts[0].matcher
steady-route     | http:/route_config/vhost_header | "x-host" | route_config.vhost_header
rewrite          | route:/match/prefix | "/openai" | routes[0]
rewrite          | route:/match | {"path_separated_prefix": "/openai"} | routes[0]
rewrite          | route:/match | {"safe_regex": {}} | routes[0]
rewrite          | route:/route/prefix_rewrite | - | routes[0]
rewrite          | route:/route/prefix_rewrite | "/v1/" | routes[0]
rewrite          | route:/route/regex_rewrite | {"substitution": "/"} | route.regex_rewrite
retry            | host:/retry_policy/retry_on | "5xx" | retry_policy.retry_on
retry            | route:/route/retry_policy | {"retry_on": "connect-failure, reset"} | route.retry_policy.retry_on
retry            | host:/retry_policy/retriable_status_codes | [503] | retriable_status_codes
copies           | route:/route/request_mirror_policies | [{"cluster": "openai"}] | route.request_mirror_policies
copies           | host:/request_mirror_policies | [{}] | hosts[0].request_mirror_policies
copies           | http:/route_config/request_mirror_policies | [{}] | route_config.request_mirror_policies
copies           | route:/route/hedge_policy | {} | route.hedge_policy
copies           | route:/route/internal_redirect_policy | {} | route.internal_redirect_policy
"#;

/// The lines of [`FAULTS`]: check, change, end of the path.
fn faults() -> impl Iterator<Item = (&'static str, Change, &'static str)> {
    FAULTS.lines().filter(|line| !line.is_empty()).map(|line| {
        let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
        let [check, place, value, path] = columns[..] else {
            panic!("four columns: {line}")
        };
        let value = if value == "-" { "null" } else { value };
        (
            check,
            (pointer(place), serde_json::from_str(value).expect("JSON")),
            path,
        )
    })
}

/// The pointer behind a place that starts with one of the names below.
fn pointer(place: &str) -> String {
    let Some((name, rest)) = place.split_once(':') else {
        return place.to_owned();
    };
    let named = match name {
        "allowed" => at(&[HTTP, CONFIG, ALLOWED]),
        "any" => at(&[HTTP, AUTHN, "/rules/0/requires/requires_any/requirements"]),
        "authn" => at(&[HTTP, AUTHN]),
        "clusters" => CLUSTERS.to_owned(),
        "host" => at(&[HTTP, HOST]),
        "http" => HTTP.to_owned(),
        "listener" => LISTENER.to_owned(),
        "plugin" => at(&[HTTP, CONFIG]),
        "route" => at(&[HTTP, HOST, "/routes/0"]),
        "slot" => at(&[HTTP, AUTHN, "/providers/x-api-key"]),
        "tls" => TLS.to_owned(),
        "upstream" => at(&[CLUSTERS, "/0/transport_socket/typed_config", VALIDATION]),
        "verify" => at(&[TLS, VALIDATION]),
        _ => panic!("no place is called {name}"),
    };
    named + rest
}

#[test]
fn each_fault_is_found_where_it_stands() {
    for (name, change, place) in faults() {
        let report = report(policy(), std::slice::from_ref(&change), &[]);
        let found = report
            .findings
            .iter()
            .any(|f| f.check == name && f.path.ends_with(place));
        assert!(
            found,
            "{name} at {place}: {:#?}\n{change:?}",
            lines(&report)
        );
    }
}

#[test]
fn every_check_has_a_fault_that_it_finds() {
    let tested: BTreeSet<_> = faults()
        .map(|(name, ..)| name)
        .chain(["loopback"])
        .collect();
    let known: BTreeSet<_> = CHECKS.iter().map(|(name, ..)| *name).collect();
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
        vec![
            route(
                0,
                "/match/headers",
                json!([{ "name": ":authority" }, { "name": ":method" }]),
            ),
            route(0, "/match/caseSensitive", json!(true)),
            route(2, "/match/query_parameters", json!([{ "name": "probe" }])),
        ],
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
