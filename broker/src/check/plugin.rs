//! The plugin itself: that it runs, holds, comes back after a trap, and can't be switched off.

use almoner_core::config::Config;

use super::{World, finding::Findings};

/// What the plugin may use of its host, exactly: one too few and it does not load, one too many is
/// a power that it does not need.
pub(super) const CAPABILITIES: [&str; 49] = [
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_close_stream",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_done",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_queue_ready",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_on_vm_start",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

/// Some listener runs the plugin.
pub(super) fn present(world: &World<'_>, findings: &mut Findings<'_>) {
    if world.envoy.servers.is_empty() {
        findings.error_found(
            &world.envoy.root.down(&["static_resources", "listeners"]),
            "an HTTP connection manager with the plugin among its `http_filters`",
            "none",
            "without it nothing is decided; a Wasm filter is taken for the plugin if `almoner` is in \
             its name",
        );
    }
}

/// The plugin decides by the document that was checked.
pub(super) fn same_policy(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let place = server.embedded_policy();
        match Config::parse(place.text().unwrap_or_default().as_bytes()) {
            Err(error) => findings.error_found(
                &place,
                "the policy document as JSON",
                error.to_string(),
                "the plugin does not load",
            ),
            Ok(embedded) if embedded.digest != world.policy.digest => findings.error_found(
                &place,
                "the policy document that is being checked",
                "another one",
                "filter and broker must decide by one document",
            ),
            Ok(_) => {}
        }
    }
}

/// A request is held until it is judged.
pub(super) fn hold_mode(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let setting = server.plugin_config().at("allow_on_headers_stop_iteration");
        if !setting.is_true() {
            findings.error(
                &setting,
                "`true`",
                "without it every request with a body hangs, and is then answered with 500",
            );
        }
    }
}

/// A trap is over soon, and nothing passes by meanwhile.
pub(super) fn reload(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let config = server.plugin_config();
        let policy = config.at("failure_policy");
        if !policy.is_text("FAIL_RELOAD") {
            findings.error(
                &policy,
                "`FAIL_RELOAD`",
                "anything else lets requests pass, or keeps a worker down after one trap",
            );
        }
        if config.at("fail_open").is_true() {
            findings.error(
                &config.at("fail_open"),
                "none",
                "it lets requests pass undecided",
            );
        }
        let longest = config.down(&["reload_config", "backoff", "max_interval"]);
        if longest.seconds().is_none_or(|seconds| seconds > 0.1) {
            findings.error(
                &longest,
                "at most `0.100s`, with a `base_interval` to match",
                "by default one poison request a second keeps a worker down",
            );
        }
    }
}

/// The plugin may use what it needs, and no more.
pub(super) fn capabilities(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let config = server.plugin_config();
        const LIST: [&str; 2] = ["capability_restriction_config", "allowed_capabilities"];
        // Envoy reads the deprecated place, in the plugin's configuration, as well.
        let (list, deprecated) = (config.at("vm_config").down(&LIST), config.down(&LIST));
        let list = if deprecated.is_there() && !list.is_there() {
            deprecated
        } else {
            list
        };
        if !list.holds_any() {
            findings.error(
                &list,
                "the plugin's list of capabilities",
                "without a list the plugin may use everything that Envoy offers",
            );
            continue;
        }
        let entries = list.entries();
        for name in CAPABILITIES {
            if !entries.iter().any(|(entry, _)| *entry == name) {
                findings.error(
                    &list.at(name),
                    "an entry",
                    "the plugin does not load without it",
                );
            }
        }
        for (name, node) in entries {
            if !CAPABILITIES.contains(&name) {
                findings.error_found(&node, "none", "an entry", "the plugin does not need it");
            }
        }
    }
}

/// No route, and no listener, has the plugin switched off.
pub(super) fn never_disabled(world: &World<'_>, findings: &mut Findings<'_>) {
    for server in &world.envoy.servers {
        let switch = server.plugin.at("disabled");
        if switch.is_true() {
            findings.error(
                &switch,
                "none",
                "requests pass undecided, the caller's token with them",
            );
        }
        let Some(name) = server.plugin.at("name").text() else {
            continue;
        };
        for place in server.http.at("route_config").maps() {
            let own = place.at("typed_per_filter_config").at(name);
            if own.is_there() {
                findings.error(
                    &own,
                    "none",
                    "a route must neither disable nor replace the plugin: the caller's token would go up",
                );
            }
        }
    }
}

/// Whatever verifies stands before the plugin, and nothing but the router after it.
pub(super) fn order(world: &World<'_>, findings: &mut Findings<'_>) {
    const NEXT: &str = "the plugin directly before the router";
    for server in &world.envoy.servers {
        let path = server.plugin.path();
        let after = server
            .filters
            .iter()
            .skip_while(|filter| filter.path() != path)
            .skip(1);
        for filter in after {
            if filter.at("typed_config").is_message("Router") {
                continue;
            }
            findings.error_found(
                filter,
                NEXT,
                format!("{} behind it", filter.at("name").shown()),
                "what stands behind the plugin sees the provider's credential, or changes what was decided",
            );
        }
    }
}
