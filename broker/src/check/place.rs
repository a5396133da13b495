//! Where a caller is: the country and the address are Envoy's word, not what the caller wrote.

use almoner_core::config::Conditions;

use super::{World, finding::Findings, node::Node};

/// Whether some policy has such a condition.
fn asked(world: &World<'_>, has: impl Fn(&Conditions) -> bool) -> bool {
    world
        .policy
        .policies
        .iter()
        .any(|policy| has(&policy.conditions))
}

/// What a caller wrote as its country is removed before a database answers.
pub(super) fn country(world: &World<'_>, findings: &mut Findings<'_>) {
    let Some(header) = world.policy.network.country_header.as_deref() else {
        return;
    };
    if !asked(world, |conditions| conditions.countries.is_some()) {
        return;
    }
    for server in &world.envoy.servers {
        if server.filter_before_plugin("Geoip").is_none() {
            findings.error_found(
                &server.http.at("http_filters"),
                "envoy.filters.http.geoip before the plugin",
                "none",
                "a policy has `countries`: without it every such request is refused",
            );
        }
        let mutations = server.http.at("early_header_mutation_extensions");
        if !mutations
            .maps()
            .iter()
            .any(|mutation| removes(mutation, header))
        {
            findings.error(
                &mutations,
                format!("a header mutation that removes `{header}`"),
                "geoip leaves what the caller wrote where its database has no entry",
            );
        }
    }
}

fn removes(mutation: &Node<'_>, header: &str) -> bool {
    let matcher = mutation.down(&["remove_on_match", "key_matcher"]);
    let whole = [mutation.at("remove"), matcher.at("exact")];
    let prefix = matcher.at("prefix").text();
    whole
        .iter()
        .filter_map(Node::text)
        .any(|name| name.eq_ignore_ascii_case(header))
        || prefix.is_some_and(|prefix| header.starts_with(&prefix.to_ascii_lowercase()))
}

/// Where an address decides, it is the connection's.
pub(super) fn address(world: &World<'_>, findings: &mut Findings<'_>) {
    if !asked(world, |conditions| conditions.cidrs.is_some()) {
        return;
    }
    for server in &world.envoy.servers {
        let setting = server.http.at("use_remote_address");
        if !setting.is_true() {
            let advice = "a policy has `cidrs`: else the address is what `x-forwarded-for` says";
            findings.error(&setting, "`true`", advice);
        }
    }
}
