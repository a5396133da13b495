//! The upstreams: that a credential goes to its provider alone, and the broker knows this Envoy.

use super::{World, bootstrap::has, finding::Findings, identity::validation_context, node::Node};

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Each cluster that the policy names is there.
pub(super) fn known(world: &World<'_>, findings: &mut Findings<'_>) {
    let clusters = world.envoy.root.down(&["static_resources", "clusters"]);
    let policy = world.policy;
    let of_providers = policy.providers.iter().flat_map(|provider| {
        let clusters = provider.clusters.iter();
        clusters.map(|name| {
            (
                format!("providers.{}.clusters", provider.name),
                name.as_str(),
            )
        })
    });
    let of_broker = [("broker.cluster".to_owned(), policy.broker.cluster.as_str())];
    for (field, name) in of_providers.chain(of_broker) {
        if world.envoy.cluster(name).is_none() {
            findings.error_found(
                &clusters,
                format!("the cluster `{name}`, which the policy names in `{field}`"),
                "none",
                "its requests are refused",
            );
        }
    }
}

/// The clusters of providers and broker, each with whether it is the broker's.
fn named<'a>(world: &World<'a>) -> Vec<Node<'a>> {
    let policy = world.policy;
    let is_named = |cluster: &&Node<'a>| {
        let name = cluster.at("name").text();
        name.is_some_and(|name| {
            name == policy.broker.cluster || policy.providers.iter().any(|p| has(p, name))
        })
    };
    world
        .envoy
        .clusters
        .iter()
        .filter(is_named)
        .cloned()
        .collect()
}

/// No request says where a credential goes.
pub(super) fn chosen_by_caller(world: &World<'_>, findings: &mut Findings<'_>) {
    const ADVICE: &str = "the caller would choose where the credential goes";
    for cluster in named(world) {
        let kind = cluster.at("type");
        if kind.is_text("ORIGINAL_DST") {
            findings.error(&kind, "an upstream with an address of its own", ADVICE);
        }
        let kind = cluster.at("cluster_type");
        if kind
            .at("name")
            .text()
            .is_some_and(|name| name.contains("dynamic_forward_proxy"))
        {
            findings.error(
                &kind.at("name"),
                "an upstream with an address of its own",
                ADVICE,
            );
        }
    }
    for server in &world.envoy.servers {
        for route in server.routes() {
            let action = route.action();
            let weighted = action.down(&["weighted_clusters", "clusters"]).items();
            let of_action = [
                "cluster_header",
                "cluster_specifier_plugin",
                "inline_cluster_specifier_plugin",
            ]
            .map(|field| action.at(field));
            let of_weighted = weighted.iter().map(|one| one.at("cluster_header"));
            for choice in of_action.into_iter().chain(of_weighted) {
                if choice.is_there() {
                    findings.error(&choice, "clusters by their names", ADVICE);
                }
            }
        }
    }
}

/// A provider proves who it is before it is sent a credential.
pub(super) fn provider_tls(world: &World<'_>, findings: &mut Findings<'_>) {
    for cluster in named(world) {
        for tls in contexts(&cluster) {
            if !tls.is_message("UpstreamTlsContext") {
                findings.error_found(
                    &tls,
                    "an UpstreamTlsContext",
                    "none",
                    "the credential would cross the network in plaintext",
                );
                continue;
            }
            let validation = validation_context(&tls);
            let authority = validation.at("trusted_ca");
            let system = validation.at("system_root_certs");
            if !authority.is_there() && !system.is_there() {
                findings.error(
                    &authority,
                    "the upstream's authorities",
                    "anybody could pose as the upstream",
                );
            }
            let chain = validation.at("trust_chain_verification");
            if chain.is_there() && !chain.is_text("VERIFY_TRUST_CHAIN") {
                findings.error(&chain, "none", "anybody could pose as the upstream");
            }
            if !matches_name(&cluster, &tls, &validation) {
                findings.error(
                    &validation.at("match_typed_subject_alt_names"),
                    "the upstream's name, or `auto_sni_san_validation` with `auto_sni`",
                    "any certificate of these authorities could pose as the upstream",
                );
            }
        }
    }
}

/// Where a cluster's TLS settings stand: one place, or one a match.
fn contexts<'a>(cluster: &Node<'a>) -> Vec<Node<'a>> {
    let matches = cluster.at("transport_socket_matches").items();
    let mut contexts: Vec<_> = matches
        .iter()
        .map(|one| one.down(&["transport_socket", "typed_config"]))
        .collect();
    let own = cluster.down(&["transport_socket", "typed_config"]);
    if own.is_there() || contexts.is_empty() {
        contexts.push(own);
    }
    contexts
}

fn matches_name(cluster: &Node<'_>, tls: &Node<'_>, validation: &Node<'_>) -> bool {
    let http = cluster
        .at("typed_extension_protocol_options")
        .at(PROTOCOL_OPTIONS);
    let general = http.at("upstream_http_protocol_options");
    validation.at("match_typed_subject_alt_names").holds_any()
        || tls.at("auto_sni_san_validation").is_true()
        || (general.at("auto_san_validation").is_true() && general.at("auto_sni").is_true())
}

/// The broker is shown this Envoy's certificate, and no provider is.
pub(super) fn broker_tls(world: &World<'_>, findings: &mut Findings<'_>) {
    let Some(cluster) = world.envoy.cluster(&world.policy.broker.cluster) else {
        return;
    };
    for tls in contexts(cluster) {
        let common = tls.at("common_tls_context");
        let own = [
            "tls_certificates",
            "tls_certificate_sds_secret_configs",
            "tls_certificate_provider_instance",
        ];
        if !own.iter().any(|field| common.at(field).holds_any()) {
            findings.error(
                &common.at("tls_certificates"),
                "this Envoy's certificate",
                "the broker answers only Envoys that it knows: invalid_client",
            );
        }
    }
}
