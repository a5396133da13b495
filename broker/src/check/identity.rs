//! What mTLS and sidecar identity rest on: a listener that verifies, or one that nobody else reaches.

use almoner_core::config::{Require, Source};

use super::{World, finding::Findings, node::Node};

/// Client certificates are required and verified where they decide. Envoy shows a certificate that
/// it did not verify just as it shows one that it did.
pub(super) fn mtls(world: &World<'_>, findings: &mut Findings<'_>) {
    let sources = &world.policy.identity.sources;
    if !sources
        .iter()
        .any(|source| matches!(source, Source::Mtls { .. }))
    {
        return;
    }
    let only_way = sources.len() == 1 || world.policy.identity.require == Require::All;
    for server in &world.envoy.servers {
        let Some(tls) = server.tls() else {
            if only_way {
                let socket = server.chain.at("transport_socket");
                findings.error(
                    &socket,
                    "TLS",
                    "the policy identifies callers by their certificates",
                );
            }
            continue;
        };
        let required = tls.at("require_client_certificate");
        let validation = validation_context(&tls);
        if !only_way && !validation.is_there() && !required.is_there() {
            // No certificate is asked for: whoever comes here is identified by another source.
            continue;
        }
        if !required.is_true() {
            findings.error(
                &required,
                "`true`",
                "a caller without a certificate must not come this far",
            );
        }
        verified(&validation, findings);
    }
}

/// What TLS must say about the other side's certificate.
fn verified(validation: &Node<'_>, findings: &mut Findings<'_>) {
    let authority = validation.at("trusted_ca");
    if !authority.is_there() {
        findings.error(
            &authority,
            "the authority of the workloads' certificates",
            "anybody's certificate passes",
        );
    }
    let chain = validation.at("trust_chain_verification");
    if chain.is_there() && !chain.is_text("VERIFY_TRUST_CHAIN") {
        findings.error(
            &chain,
            "none",
            "a certificate that nobody trusted signed passes as its SPIFFE ID",
        );
    }
    let names = validation.at("match_typed_subject_alt_names");
    let by_uri = |name: &Node<'_>| {
        let text = name.at("matcher");
        let anchored = [text.at("prefix"), text.at("exact")];
        name.at("san_type").is_text("URI")
            && anchored
                .iter()
                .any(|m| m.text().is_some_and(|m| m.starts_with("spiffe://")))
    };
    if !names.items().first().is_some_and(by_uri) || !names.items().iter().all(by_uri) {
        findings.error(
            &names,
            "matchers `san_type: URI` with an `exact` or `prefix` that starts with `spiffe://`",
            "only the first URI SAN of a certificate is visible to the plugin",
        );
    }
}

/// Where the settings of verification stand, inline or combined.
pub(super) fn validation_context<'a>(tls: &Node<'a>) -> Node<'a> {
    let common = tls.at("common_tls_context");
    let combined = common.down(&["combined_validation_context", "default_validation_context"]);
    if combined.is_there() {
        combined
    } else {
        common.at("validation_context")
    }
}

/// A listener whose every caller counts as this Envoy takes callers of this machine alone.
pub(super) fn loopback(world: &World<'_>, findings: &mut Findings<'_>) {
    let is_proxy = |source: &Source| matches!(source, Source::Proxy { .. });
    if !world.policy.identity.sources.iter().any(is_proxy) {
        return;
    }
    for server in &world.envoy.servers {
        let mut addresses = vec![server.listener.at("address")];
        let more = server.listener.at("additional_addresses").items();
        addresses.extend(more.iter().map(|more| more.at("address")));
        for address in addresses {
            if !address.is_local_address() {
                let host = address.down(&["socket_address", "address"]);
                findings.error(
                    &host,
                    "a loopback address or a pipe",
                    "with a `proxy` source whoever connects is this Envoy",
                );
            }
        }
    }
}
