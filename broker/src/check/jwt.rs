//! What token identity rests on: jwt_authn verifies each slot, and leaves the refusal to the plugin.

use almoner_core::config::{Slot, Source};

use super::{World, finding::Findings, node::Node};

const JWT_AUTHN: &str = "JwtAuthentication";

/// The policy's slots, and the audience of their tokens; nothing where no token identifies.
fn wanted<'a>(world: &'a World<'_>) -> (&'a [Slot], &'a str) {
    let mut sources = world.policy.identity.sources.iter();
    let tokens = sources.find_map(|source| match source {
        Source::Jwt {
            slots, audience, ..
        } => Some((slots.as_slice(), audience.as_str())),
        Source::Mtls { .. } | Source::Proxy { .. } => None,
    });
    tokens.unwrap_or((&[], ""))
}

/// Each slot has one jwt_authn provider of its own, which forwards the token and tells what it
/// found under the slot's name.
pub(super) fn slots(world: &World<'_>, findings: &mut Findings<'_>) {
    let (slots, audience) = wanted(world);
    if slots.is_empty() {
        return;
    }
    for server in &world.envoy.servers {
        let Some(authn) = server.filter_before_plugin(JWT_AUTHN) else {
            findings.error_found(
                &server.http.at("http_filters"),
                "envoy.filters.http.jwt_authn before the plugin",
                "none",
                "without it no token is ever verified",
            );
            continue;
        };
        let providers = authn.at("providers");
        for slot in slots {
            let mut own = providers.entries();
            own.retain(|(_, provider)| reads(provider, *slot));
            if let [(_, provider)] = own.as_slice() {
                looks_there_alone(*slot, provider, findings);
                tells_the_plugin(*slot, provider, findings);
                verifies(audience, provider, findings);
            } else {
                findings.error_found(
                    &providers,
                    format!("one provider whose `from_headers` is `{}`", slot.header()),
                    own.len().to_string(),
                    "the plugin can't know which token decided",
                );
            }
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

fn looks_there_alone(slot: Slot, provider: &Node<'_>, findings: &mut Findings<'_>) {
    let place = provider.at("from_headers");
    let headers = place.items();
    let elsewhere = ["from_params", "from_cookies"];
    let alone = !elsewhere.iter().any(|field| provider.at(field).holds_any());
    match headers.as_slice() {
        [header] if alone => {
            let prefix = header.at("value_prefix");
            if slot == Slot::Authorization && !prefix.is_text("Bearer ") {
                findings.error(&prefix, "`Bearer `", "SDKs send the token behind it");
            }
        }
        _ => findings.error(
            &place,
            "one header and nothing else",
            "a stray key elsewhere would refuse the request",
        ),
    }
}

fn tells_the_plugin(slot: Slot, provider: &Node<'_>, findings: &mut Findings<'_>) {
    let keys = [
        ("payload_in_metadata", slot.header()),
        ("failed_status_in_metadata", slot.failure_key()),
    ];
    for (field, key) in keys {
        let place = provider.at(field);
        if !place.is_text(key) {
            findings.error(&place, format!("`{key}`"), "the plugin looks there");
        }
    }
    let forward = provider.at("forward");
    if !forward.is_true() {
        let advice = "else the token is gone before the broker could verify it";
        findings.error(&forward, "`true`", advice);
    }
}

fn verifies(audience: &str, provider: &Node<'_>, findings: &mut Findings<'_>) {
    let issuer = provider.at("issuer");
    if issuer.text().is_none_or(str::is_empty) {
        findings.error(
            &issuer,
            "the issuer",
            "a token of any issuer with these keys passes",
        );
    }
    let audiences = provider.at("audiences");
    if !audiences.items().iter().any(|one| one.is_text(audience)) {
        let expected = format!("a list with `{audience}`, as in the policy document");
        findings.error(
            &audiences,
            expected,
            "a token for anybody else would pass here",
        );
    }
    let ends = provider.at("require_expiration");
    if !ends.is_true() {
        findings.error(
            &ends,
            "`true`",
            "a token without an end would identify for ever",
        );
    }
}

/// A bad token is the plugin's to refuse: jwt_authn requires any slot, or none.
pub(super) fn requirement(world: &World<'_>, findings: &mut Findings<'_>) {
    const ADVICE: &str = "else jwt_authn refuses by itself, in text that no SDK understands";
    let (slots, _) = wanted(world);
    if slots.is_empty() {
        return;
    }
    for server in &world.envoy.servers {
        let Some(authn) = server.filter_before_plugin(JWT_AUTHN) else {
            continue;
        };
        let rules = authn.at("rules");
        let items = rules.items();
        let [rule] = items.as_slice() else {
            let found = items.len().to_string();
            findings.error_found(&rules, "one rule, for all requests", found, ADVICE);
            continue;
        };
        let scope = rule.down(&["match", "prefix"]);
        if !scope.is_text("/") {
            findings.error(&scope, "`/`", "tokens of other requests are not verified");
        }
        let any = rule.down(&["requires", "requires_any", "requirements"]);
        if !any
            .items()
            .iter()
            .any(|one| one.at("allow_missing_or_failed").is_there())
        {
            findings.error(&any, "`allow_missing_or_failed: {}` at its end", ADVICE);
        }
        for slot in slots
            .iter()
            .filter(|slot| !is_required(**slot, &any, &authn))
        {
            findings.error_found(
                &any,
                format!("the provider of the slot `{}`", slot.header()),
                "none",
                "its tokens are never verified",
            );
        }
    }
}

fn is_required(slot: Slot, any: &Node<'_>, authn: &Node<'_>) -> bool {
    let mut of_slot = authn.at("providers").entries();
    of_slot.retain(|(_, provider)| reads(provider, slot));
    let is_its = |one: Node<'_>| {
        of_slot
            .iter()
            .any(|(name, _)| one.at("provider_name").is_text(name))
    };
    any.items().into_iter().any(is_its)
}
