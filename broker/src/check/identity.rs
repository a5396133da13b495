//! What identity rests on: the listener's TLS, jwt_authn's providers, and where facts about the
//! caller come from.

use almoner_core::config::{Require, Slot, Source};

use super::{World, bootstrap::Server, finding::Findings, node::Node};

const JWT_AUTHN: &str = "JwtAuthentication";

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

fn slots<'a>(world: &'a World<'_>) -> Option<(&'a [Slot], &'a str)> {
    world
        .policy
        .identity
        .sources
        .iter()
        .find_map(|source| match source {
            Source::Jwt {
                slots, audience, ..
            } => Some((slots.as_slice(), audience.as_str())),
            Source::Mtls { .. } | Source::Proxy { .. } => None,
        })
}

/// jwt_authn's configurations before the plugin.
fn jwt_authn<'a>(server: &Server<'a>) -> Option<Node<'a>> {
    let before = server
        .filters
        .iter()
        .take_while(|f| f.path() != server.plugin.path());
    let mut found = before
        .map(|f| f.at("typed_config"))
        .filter(|c| c.is_message(JWT_AUTHN));
    found.next()
}

/// Each slot has one jwt_authn provider of its own, which forwards the token and tells what it
/// found under the slot's name.
pub(super) fn jwt_slots(world: &World<'_>, findings: &mut Findings<'_>) {
    let Some((slots, audience)) = slots(world) else {
        return;
    };
    for server in &world.envoy.servers {
        let Some(authn) = jwt_authn(server) else {
            findings.error_found(
                &server.http.at("http_filters"),
                "envoy.filters.http.jwt_authn before the plugin",
                "none",
                "without it no token is ever verified",
            );
            continue;
        };
        let providers = authn.at("providers").entries();
        for slot in slots {
            let own: Vec<_> = providers
                .iter()
                .filter(|(_, provider)| reads(provider, *slot))
                .collect();
            let [(_, provider)] = own.as_slice() else {
                findings.error_found(
                    &authn.at("providers"),
                    format!("one provider whose `from_headers` is `{}`", slot.header()),
                    format!("{}", own.len()),
                    "the plugin can't know which token decided",
                );
                continue;
            };
            slot_provider(*slot, audience, provider, findings);
        }
    }
}

/// Whether a jwt_authn provider looks into a slot. Where it is not told where to look, that is in
/// `authorization`, and in the query too.
fn reads(provider: &Node<'_>, slot: Slot) -> bool {
    let places = ["from_headers", "from_params", "from_cookies"];
    if !places.iter().any(|field| provider.at(field).holds_any()) {
        return slot == Slot::Authorization;
    }
    let headers = provider.at("from_headers").items().into_iter();
    let mut names = headers.filter_map(|header| header.at("name").text());
    names.any(|name| name.eq_ignore_ascii_case(slot.header()))
}

fn slot_provider(slot: Slot, audience: &str, provider: &Node<'_>, findings: &mut Findings<'_>) {
    let headers = provider.at("from_headers");
    if headers.items().len() != 1
        || provider.at("from_params").holds_any()
        || provider.at("from_cookies").holds_any()
    {
        findings.error(
            &headers,
            "one header and nothing else",
            "a stray key elsewhere would refuse the request",
        );
    }
    let prefix = headers
        .items()
        .first()
        .map(|header| header.at("value_prefix"));
    if let Some(prefix) = prefix
        && slot == Slot::Authorization
        && !prefix.is_text("Bearer ")
    {
        findings.error(&prefix, "`Bearer `", "SDKs send the token behind it");
    }
    for (field, key) in [
        ("payload_in_metadata", slot.header()),
        ("failed_status_in_metadata", slot.failure_key()),
    ] {
        let place = provider.at(field);
        if !place.is_text(key) {
            findings.error(&place, format!("`{key}`"), "the plugin looks there");
        }
    }
    let ends = provider.at("require_expiration");
    if !ends.is_true() {
        findings.error(
            &ends,
            "`true`",
            "a token without an end would identify for ever",
        );
    }
    let forward = provider.at("forward");
    if !forward.is_true() {
        findings.error(
            &forward,
            "`true`",
            "else the token is gone before the broker could verify it",
        );
    }
    let audiences = provider.at("audiences");
    if !audiences.items().iter().any(|node| node.is_text(audience)) {
        findings.error(
            &audiences,
            format!("a list with `{audience}`, as in the policy document"),
            "a token for anybody else would pass here",
        );
    }
    if provider.at("issuer").text().is_none_or(str::is_empty) {
        findings.error(
            &provider.at("issuer"),
            "the issuer",
            "a token of any issuer with these keys passes",
        );
    }
}

/// A bad token is the plugin's to refuse: jwt_authn requires any slot, or none.
pub(super) fn jwt_requirement(world: &World<'_>, findings: &mut Findings<'_>) {
    const ADVICE: &str =
        "else jwt_authn refuses before the plugin, in text that no SDK understands";
    let Some((slots, _)) = slots(world) else {
        return;
    };
    for server in &world.envoy.servers {
        let Some(authn) = jwt_authn(server) else {
            continue;
        };
        let rules = authn.at("rules").items();
        let [rule] = rules.as_slice() else {
            let expected = "one rule, for all requests";
            findings.error_found(
                &authn.at("rules"),
                expected,
                format!("{}", rules.len()),
                ADVICE,
            );
            continue;
        };
        let scope = rule.down(&["match", "prefix"]);
        if !scope.is_text("/") {
            findings.error(&scope, "`/`", "tokens of other requests are not verified");
        }
        let any = rule.down(&["requires", "requires_any", "requirements"]);
        let requirements = any.items();
        if !requirements
            .iter()
            .any(|one| one.at("allow_missing_or_failed").is_there())
        {
            findings.error(&any, "`allow_missing_or_failed: {}` at its end", ADVICE);
        }
        for slot in slots {
            let providers = authn.at("providers").entries();
            let required = requirements
                .iter()
                .filter_map(|one| one.at("provider_name").text());
            let of_slot = |name: &str| {
                let provider = providers.iter().find(|(known, _)| *known == name);
                provider.is_some_and(|(_, provider)| reads(provider, *slot))
            };
            if !required.into_iter().any(of_slot) {
                findings.error_found(
                    &any,
                    format!("the provider of the slot `{}`", slot.header()),
                    "none",
                    "its tokens are never verified",
                );
            }
        }
    }
}

/// The country is Envoy's word: what a caller wrote is removed before, and a database answers.
pub(super) fn country(world: &World<'_>, findings: &mut Findings<'_>) {
    let asked = world
        .policy
        .policies
        .iter()
        .any(|policy| policy.conditions.countries.is_some());
    let Some(header) = world
        .policy
        .network
        .country_header
        .as_deref()
        .filter(|_| asked)
    else {
        return;
    };
    for server in &world.envoy.servers {
        let before = server
            .filters
            .iter()
            .take_while(|f| f.path() != server.plugin.path());
        if !before
            .into_iter()
            .any(|filter| filter.at("typed_config").is_message("Geoip"))
        {
            findings.error_found(
                &server.http.at("http_filters"),
                "envoy.filters.http.geoip before the plugin",
                "none",
                "a policy has `countries`: without it every such request is refused",
            );
        }
        let mutations = server.http.at("early_header_mutation_extensions");
        let removes = |place: &Node<'_>| {
            let exact = place
                .at("remove")
                .text()
                .is_some_and(|name| name.eq_ignore_ascii_case(header));
            let matcher = place.down(&["remove_on_match", "key_matcher"]);
            let prefix = matcher.at("prefix").text();
            let whole = matcher.at("exact").text();
            exact
                || prefix.is_some_and(|prefix| header.starts_with(&prefix.to_ascii_lowercase()))
                || whole.is_some_and(|name| name.eq_ignore_ascii_case(header))
        };
        if !mutations.maps().iter().any(removes) {
            findings.error(
                &mutations,
                format!("a header mutation that removes `{header}`"),
                "geoip leaves what the caller wrote where its database has no entry",
            );
        }
    }
}

/// Where an address decides, it is the connection's, not one that a caller wrote.
pub(super) fn address(world: &World<'_>, findings: &mut Findings<'_>) {
    if !world
        .policy
        .policies
        .iter()
        .any(|policy| policy.conditions.cidrs.is_some())
    {
        return;
    }
    for server in &world.envoy.servers {
        let setting = server.http.at("use_remote_address");
        if !setting.is_true() {
            findings.error(
                &setting,
                "`true`",
                "a policy has `cidrs`: else the address is what `x-forwarded-for` says",
            );
        }
    }
}
