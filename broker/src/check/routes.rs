//! The routes: that each leads where the policy thinks, with the path that it thinks, once.

use almoner_core::config::Provider;

use super::{
    World,
    bootstrap::{Route, has},
    finding::Findings,
    node::Node,
};

/// What a match may ask for: nothing that an edit of the plugin, or time, changes. Of `:path` the
/// plugin edits the query alone, which these leave out; of `headers` only the next two count.
const STEADY: [&str; 9] = [
    "prefix",
    "path",
    "safe_regex",
    "path_separated_prefix",
    "path_match_policy",
    "connect_matcher",
    "case_sensitive",
    "tls_context",
    "headers",
];
const STEADY_HEADERS: [&str; 2] = [":authority", ":method"];

/// What a retry may be for: nothing that a provider may have begun to bill.
const RETRIED: [&str; 2] = ["connect-failure", "refused-stream"];

/// Each route leads to one provider's clusters, and each provider has a route.
pub(super) fn target(world: &World<'_>, findings: &mut Findings<'_>) {
    let policy = world.policy;
    for server in &world.envoy.servers {
        let routes = server.routes();
        for route in &routes {
            let clusters = route.clusters();
            let clusters: Vec<_> = clusters.iter().filter_map(Node::text).collect();
            if route.providers(policy).is_empty() {
                findings.warning(
                    &route.action(),
                    "a cluster of one of the policy's providers",
                    "none of them",
                    "the plugin refuses its requests",
                );
                continue;
            }
            let owns_all = |provider: &Provider| clusters.iter().all(|name| has(provider, name));
            if !policy.providers.iter().any(|provider| owns_all(provider)) {
                findings.error_found(
                    &route.action(),
                    "clusters of one provider",
                    clusters.join(", "),
                    "where they are not the request's provider's, the plugin refuses it",
                );
            }
        }
        for provider in &policy.providers {
            if !routes.iter().any(|route| leads_to(route, provider)) {
                findings.warning(
                    &server.http.at("route_config"),
                    format!("a route to a cluster of the provider `{}`", provider.name),
                    "none",
                    "its requests are not found here",
                );
            }
        }
    }
}

fn leads_to(route: &Route<'_>, provider: &Provider) -> bool {
    route
        .clusters()
        .iter()
        .filter_map(Node::text)
        .any(|name| has(provider, name))
}

/// The route of a request is the same before and after the plugin's edits.
///
/// Envoy's router looks for the route again once a header or the path was edited, after the plugin
/// compared the route's cluster with the provider's. Routes to other upstreams count too: the
/// credential could go there. `route` and `chosen-by-caller` see to what the route found leads to.
pub(super) fn steady(world: &World<'_>, findings: &mut Findings<'_>) {
    const EXPECTED: &str = "a match by path, `:authority` and `:method` alone";
    const ADVICE: &str = "Envoy looks for the route again after the plugin's edits, and could send \
                          the credential elsewhere: lead to one provider by its path";
    for server in &world.envoy.servers {
        let host_header = server.http.down(&["route_config", "vhost_header"]);
        if host_header.is_there() {
            findings.error(&host_header, "none", ADVICE);
        }
        for host in server.virtual_hosts() {
            let matcher = host.at("matcher");
            if matcher.is_there() {
                findings.error(&matcher, "`routes`", ADVICE);
            }
        }
        for route in server.routes() {
            for place in unsteady(&route.node.at("match")) {
                findings.error(&place, EXPECTED, ADVICE);
            }
        }
    }
}

/// The parts of a route's match that may give another answer after an edit.
fn unsteady<'a>(rules: &Node<'a>) -> Vec<Node<'a>> {
    let steady = STEADY.map(|field| rules.at(field).path().to_owned());
    let entries = rules.entries().into_iter().map(|(_, place)| place);
    let others = entries.filter(|place| !steady.contains(&place.path().to_owned()));
    let headers = rules.at("headers").items().into_iter();
    let names = headers.map(|header| header.at("name"));
    let edited = names.filter(|name| !STEADY_HEADERS.iter().any(|steady| name.is_text(steady)));
    others.chain(edited).collect()
}

/// What goes up is the path that was decided about: a route's rewrite is exactly the provider's
/// `match.path_prefix` to its `base_path`.
pub(super) fn rewrite(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        for route in server.routes() {
            let providers = route.providers(world.policy);
            let Some(first) = providers.first() else {
                continue;
            };
            if providers.iter().any(|provider| is_exact(&route, provider)) {
                continue;
            }
            for field in ["regex_rewrite", "path_rewrite_policy", "path_rewrite"] {
                let other = route.action().at(field);
                if other.is_there() {
                    findings.error(
                        &other,
                        "`prefix_rewrite` alone",
                        "what goes up can't be told from it",
                    );
                }
            }
            let Shape { matched, rewritten } = Shape::of(first);
            findings.error_found(
                &route.node,
                format!("`match: {{ prefix: {matched} }}` and `prefix_rewrite: {rewritten}`, as the provider \
                         `{}` has it", first.name),
                format!(
                    "match prefix {}, rewrite {}",
                    route.node.down(&["match", "prefix"]).shown(),
                    route.action().at("prefix_rewrite").shown()
                ),
                "else the provider receives another path than the one that was decided about",
            );
        }
    }
}

/// The prefix that a provider's route matches, and what it becomes.
struct Shape {
    matched: String,
    rewritten: String,
}

impl Shape {
    fn of(provider: &Provider) -> Self {
        Self {
            matched: format!("{}/", provider.path_prefix),
            rewritten: format!("{}/", provider.base_path),
        }
    }
}

fn is_exact(route: &Route<'_>, provider: &Provider) -> bool {
    let action = route.action();
    let rules = route.node.at("match");
    let rewritten = action.at("prefix_rewrite");
    let others = ["regex_rewrite", "path_rewrite_policy", "path_rewrite"];
    if others.iter().any(|field| action.at(field).is_there()) {
        return false;
    }
    let Shape {
        matched,
        rewritten: wanted,
    } = Shape::of(provider);
    if rules.at("prefix").is_text(&matched) {
        return rewritten.is_text(&wanted) || (!rewritten.is_there() && matched == wanted);
    }
    // This match ends before the slash, and so must its rewrite: an empty one does not rewrite.
    let base = provider.base_path.as_str();
    rules
        .at("path_separated_prefix")
        .is_text(&provider.path_prefix)
        && (rewritten.is_text(base) || (!rewritten.is_there() && provider.path_prefix == base))
        && !base.is_empty()
}

/// Nothing is tried again that a provider may have billed.
pub(super) fn retries(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let mut seen = Vec::new();
        for route in server.routes() {
            let action = route.action();
            let policies = route
                .levels
                .iter()
                .chain([&action])
                .map(|level| level.at("retry_policy"));
            for policy in policies.filter(Node::is_there) {
                if seen.contains(&policy.path().to_owned()) {
                    continue;
                }
                seen.push(policy.path().to_owned());
                let on = policy.at("retry_on");
                let reasons = on.text().unwrap_or_default().split(',').map(str::trim);
                let other = reasons
                    .filter(|one| !one.is_empty())
                    .any(|one| !RETRIED.contains(&one));
                let status = policy.at("retriable_status_codes");
                if other || status.holds_any() {
                    findings.error(
                        if other { &on } else { &status },
                        "`connect-failure,refused-stream` at most",
                        "anything else is billed again, and seen once",
                    );
                }
            }
        }
    }
}

/// A request is sent once, to where it was decided that it goes.
pub(super) fn copies(world: &World<'_>, findings: &mut Findings<'_>) {
    const FIELDS: [(&str, &str); 4] = [
        (
            "request_mirror_policies",
            "a copy goes where nobody decided, the credential with it",
        ),
        ("hedge_policy", "a hedged request is billed twice"),
        (
            "internal_redirect_policy",
            "an answer of the upstream would send the credential elsewhere",
        ),
        (
            "retry_policy_typed_config",
            "use `retry_policy`, which this check can read",
        ),
    ];
    for server in &world.envoy.servers {
        let mut seen = Vec::new();
        for route in server.routes() {
            let action = route.action();
            for level in route.levels.iter().chain([&action]) {
                for (field, advice) in FIELDS {
                    let place = level.at(field);
                    if place.is_there() && !seen.contains(&place.path().to_owned()) {
                        findings.error(&place, "none", advice);
                        seen.push(place.path().to_owned());
                    }
                }
            }
        }
    }
}
