//! The listeners around the plugin: what they hold, how long, what they write down, and who may
//! administer.

use super::{World, bootstrap::Server, finding::Findings, node::Node};

/// Envoy's own limit, where none is set.
const DEFAULT_BUFFER: u64 = 1024 * 1024;
const RECORD: &str = "FILTER_STATE(wasm.rec:PLAIN)";

/// A body of the policy's limit fits into what Envoy holds.
pub(super) fn buffer_limit(world: &World<'_>, findings: &mut Findings<'_>) {
    let needed = world.policy.limits.max_body_bytes;
    for server in &world.envoy.servers {
        let limit = server.listener.at("per_connection_buffer_limit_bytes");
        if limit.number().unwrap_or(DEFAULT_BUFFER) < needed {
            findings.error(
                &limit,
                format!("at least {needed}, the policy's `limits.max_body_bytes`"),
                "Envoy answers larger bodies with a 413 of its own, 1 MiB where nothing is set",
            );
        }
    }
}

/// Streams that nobody ends, end by themselves: those of a plugin that trapped above all.
pub(super) fn idle_timeout(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let routes = server.routes();
        let places = routes.iter().map(|route| route.action().at("idle_timeout"));
        for place in places.chain([server.http.at("stream_idle_timeout")]) {
            // Envoy's default is five minutes; zero switches it off.
            if place.is_there() && place.seconds().is_none_or(|seconds| seconds <= 0.0) {
                findings.error(
                    &place,
                    "a finite timeout such as `300s`",
                    "streams of a plugin that trapped would hang for ever",
                );
            }
        }
    }
}

/// Router and plugin see one path.
pub(super) fn normal_path(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        for field in ["normalize_path", "merge_slashes"] {
            let setting = server.http.at(field);
            if !setting.is_true() {
                findings.error(
                    &setting,
                    "`true`",
                    "a path has one spelling, for the router too",
                );
            }
        }
    }
}

/// Every exchange leaves its record in an access log, refusals included.
pub(super) fn record(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let logs = server.http.at("access_log");
        let written = logs.items().iter().any(|log| {
            let unfiltered = !log.at("filter").is_there();
            unfiltered
                && log
                    .down(&["typed_config", "log_format"])
                    .maps()
                    .iter()
                    .any(holds_record)
        });
        if !written {
            findings.error(
                &logs,
                format!("a log without a filter, with `%{RECORD}%` in its `text_format_source`"),
                "without it nothing tells who used what",
            );
        }
    }
}

fn holds_record(map: &Node<'_>) -> bool {
    let mut texts = map
        .entries()
        .into_iter()
        .filter_map(|(_, node)| node.text());
    texts.any(|text| text.contains(RECORD))
}

/// Who administers Envoy stands on its machine.
pub(super) fn admin(world: &World<'_>, findings: &mut Findings<'_>) {
    let address = world.envoy.root.down(&["admin", "address"]);
    if address.is_there() && !address.is_local_address() {
        findings.error(
            &address.down(&["socket_address", "address"]),
            "a loopback address",
            "whoever reaches it reads the configuration and stops Envoy",
        );
    }
}

/// Says what this check can't see.
pub(super) fn unseen(world: &World<'_>, findings: &mut Findings<'_>) {
    const ADVICE: &str = "this check sees what stands in the file: check what is delivered as well";
    const PATCHES: &str = "the listener's TLS, routes and providers' clusters are the control plane's: \
                           not checked";
    if let Some(unapplied) = world.envoy.unapplied {
        let place = world.envoy.root.clone();
        findings.warning(&place, "a whole bootstrap", "patches of one", PATCHES);
        for patch in unapplied {
            findings.warning(
                &place,
                "a patch that this check can apply",
                patch.as_str(),
                ADVICE,
            );
        }
    }
    let dynamic = world.envoy.root.at("dynamic_resources");
    if dynamic.holds_any() {
        findings.warning(&dynamic, "none", "a map", ADVICE);
    }
    for server in &world.envoy.servers {
        for place in unseen_of(server) {
            findings.warning(&place, "its content in the file", place.shown(), ADVICE);
        }
    }
}

fn unseen_of<'a>(server: &Server<'a>) -> Vec<Node<'a>> {
    let http = &server.http;
    let mut places = vec![http.at("rds"), http.at("scoped_routes")];
    places.extend(
        server
            .filters
            .iter()
            .map(|filter| filter.at("config_discovery")),
    );
    places.retain(Node::is_there);
    places
}
