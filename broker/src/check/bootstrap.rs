//! An Envoy bootstrap as the checks see it: its listeners that run the plugin, their routes, its
//! clusters.

use almoner_core::config::{Config, Provider};
use serde_json::Value;

use super::{node::Node, patches::Patched};

const HTTP_CONNECTION_MANAGER: &str = "HttpConnectionManager";
const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

/// A bootstrap.
pub(super) struct Bootstrap<'a> {
    pub(super) root: Node<'a>,
    /// Each HTTP connection manager with the plugin.
    pub(super) servers: Vec<Server<'a>>,
    pub(super) clusters: Vec<Node<'a>>,
    /// Where patches were put into an empty bootstrap: those that could not be.
    pub(super) unapplied: Option<&'a [String]>,
}

/// An HTTP connection manager that runs the plugin.
pub(super) struct Server<'a> {
    pub(super) listener: Node<'a>,
    pub(super) chain: Node<'a>,
    /// Its typed configuration.
    pub(super) http: Node<'a>,
    /// Its HTTP filters, in their order.
    pub(super) filters: Vec<Node<'a>>,
    /// The plugin among them.
    pub(super) plugin: Node<'a>,
}

/// A route, with what it inherits from.
pub(super) struct Route<'a> {
    pub(super) node: Node<'a>,
    /// The route itself, its virtual host, its route configuration: each may carry policies.
    pub(super) levels: [Node<'a>; 3],
}

impl<'a> Bootstrap<'a> {
    pub(super) fn new(root: Node<'a>) -> Self {
        let mut servers = Vec::new();
        for listener in root.down(&["static_resources", "listeners"]).items() {
            let mut chains = listener.at("filter_chains").items();
            chains.push(listener.at("default_filter_chain"));
            for chain in chains {
                servers.extend(
                    chain
                        .at("filters")
                        .items()
                        .into_iter()
                        .filter_map(|filter| {
                            Server::new(listener.clone(), chain.clone(), filter.at("typed_config"))
                        }),
                );
            }
        }
        let clusters = root.down(&["static_resources", "clusters"]).items();
        Self {
            root,
            servers,
            clusters,
            unapplied: None,
        }
    }

    /// What patches alone make of a bootstrap.
    pub(super) fn patched(patched: &'a Patched) -> Self {
        let bootstrap = Self::new(Node::root(&patched.bootstrap));
        Self {
            unapplied: Some(&patched.unapplied),
            ..bootstrap
        }
    }

    /// The policy document in the first plugin's configuration.
    pub(super) fn embedded_policy(&self) -> Option<&'a str> {
        self.servers
            .iter()
            .find_map(|server| server.embedded_policy().text())
    }

    pub(super) fn cluster(&self, name: &str) -> Option<&Node<'a>> {
        self.clusters
            .iter()
            .find(|cluster| cluster.at("name").is_text(name))
    }
}

impl<'a> Server<'a> {
    fn new(listener: Node<'a>, chain: Node<'a>, http: Node<'a>) -> Option<Self> {
        if !http.is_message(HTTP_CONNECTION_MANAGER) {
            return None;
        }
        let filters = http.at("http_filters").items();
        let plugin = filters.iter().find(|filter| is_plugin(filter))?.clone();
        Some(Self {
            listener,
            chain,
            http,
            filters,
            plugin,
        })
    }

    /// The plugin's PluginConfig.
    pub(super) fn plugin_config(&self) -> Node<'a> {
        self.plugin.down(&["typed_config", "config"])
    }

    /// The policy document in the plugin's configuration.
    pub(super) fn embedded_policy(&self) -> Node<'a> {
        embedded_policy(&self.plugin)
    }

    /// The configuration of the first filter before the plugin that is of this type.
    pub(super) fn filter_before_plugin(&self, message: &str) -> Option<Node<'a>> {
        let path = self.plugin.path();
        let before = self
            .filters
            .iter()
            .take_while(|filter| filter.path() != path);
        let mut found = before.map(|filter| filter.at("typed_config"));
        found.find(|config| config.is_message(message))
    }

    /// The TLS settings of this server's filter chain.
    pub(super) fn tls(&self) -> Option<Node<'a>> {
        let socket = self.chain.down(&["transport_socket", "typed_config"]);
        socket.is_message("DownstreamTlsContext").then_some(socket)
    }

    pub(super) fn virtual_hosts(&self) -> Vec<Node<'a>> {
        self.http.down(&["route_config", "virtual_hosts"]).items()
    }

    /// The routes to upstreams; redirects and direct responses are none.
    pub(super) fn routes(&self) -> Vec<Route<'a>> {
        let config = self.http.at("route_config");
        let hosts = self.virtual_hosts().into_iter();
        hosts
            .flat_map(|host| {
                let config = config.clone();
                let routes = host.at("routes").items().into_iter();
                routes
                    .filter(|route| route.at("route").is_there())
                    .map(move |node| Route {
                        levels: [node.clone(), host.clone(), config.clone()],
                        node,
                    })
            })
            .collect()
    }
}

impl<'a> Route<'a> {
    /// Where this route's action stands.
    pub(super) fn action(&self) -> Node<'a> {
        self.node.at("route")
    }

    /// The clusters that the route leads to, each at its place.
    pub(super) fn clusters(&self) -> Vec<Node<'a>> {
        let action = self.action();
        let weighted = action.down(&["weighted_clusters", "clusters"]).items();
        let mut clusters: Vec<_> = weighted.iter().map(|cluster| cluster.at("name")).collect();
        if action.at("cluster").is_there() {
            clusters.push(action.at("cluster"));
        }
        clusters
    }

    /// The providers whose credential may go where this route leads.
    pub(super) fn providers<'p>(&self, policy: &'p Config) -> Vec<&'p Provider> {
        let clusters = self.clusters();
        let leads_to = |provider: &&Provider| {
            let own = |node: &Node<'_>| node.text().is_some_and(|name| has(provider, name));
            clusters.iter().any(own)
        };
        policy
            .providers
            .iter()
            .map(AsRef::as_ref)
            .filter(leads_to)
            .collect()
    }
}

/// Whether a provider names this cluster.
pub(super) fn has(provider: &Provider, cluster: &str) -> bool {
    provider.clusters.iter().any(|name| name == cluster)
}

/// A Wasm filter that is called so, or that holds a policy document.
fn is_plugin(filter: &Node<'_>) -> bool {
    if !filter.at("typed_config").is_message(WASM) {
        return false;
    }
    let config = filter.down(&["typed_config", "config"]);
    let named = |node: Node<'_>| node.text().is_some_and(|name| name.contains("almoner"));
    let document = embedded_policy(filter)
        .text()
        .and_then(|text| serde_json::from_str(text).ok());
    named(filter.at("name"))
        || named(config.at("name"))
        || document.is_some_and(|document: Value| document.get("policies").is_some())
}

fn embedded_policy<'a>(filter: &Node<'a>) -> Node<'a> {
    filter.down(&["typed_config", "config", "configuration", "value"])
}
