//! Kubernetes resources that patch an Envoy: takes them, gives the least bootstrap with the patches
//! applied.
//!
//! Istio (EnvoyFilter) and Envoy Gateway (EnvoyPatchPolicy) make the rest of Envoy's configuration
//! themselves: what rests on it can't be judged here.

use serde_json::{Map, Value, json};

/// A bootstrap that holds what patches put into it, and nothing else.
pub(super) struct Patched {
    pub(super) bootstrap: Value,
    /// The patches that this module can't apply, as paths.
    pub(super) unapplied: Vec<String>,
}

/// Applies the patches among these documents; `None` where there are none.
pub(super) fn apply(documents: &[Value]) -> Option<Patched> {
    let mut patched = Patched {
        bootstrap: json!({ "static_resources": { "listeners": [], "clusters": [] } }),
        unapplied: Vec::new(),
    };
    let mut found = false;
    for (index, document) in documents.iter().enumerate() {
        let (list, apply): (_, fn(&mut Patched, &Value) -> Option<()>) =
            match document.get("kind").and_then(Value::as_str) {
                Some("EnvoyFilter") => ("configPatches", Patched::istio),
                Some("EnvoyPatchPolicy") => ("jsonPatches", Patched::envoy_gateway),
                _ => continue,
            };
        found = true;
        let patches = document
            .pointer(&format!("/spec/{list}"))
            .and_then(Value::as_array);
        for (at, patch) in patches.into_iter().flatten().enumerate() {
            if apply(&mut patched, patch).is_none() {
                patched
                    .unapplied
                    .push(format!("[{index}].spec.{list}[{at}]"));
            }
        }
    }
    found.then_some(patched)
}

impl Patched {
    /// An entry of an EnvoyFilter's `configPatches`. A listener is known by its port.
    fn istio(&mut self, entry: &Value) -> Option<()> {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
        let port = entry
            .pointer("/match/listener/portNumber")
            .unwrap_or(&Value::Null)
            .to_string();
        let value = entry.pointer("/patch/value")?;
        match (text("/applyTo")?, text("/patch/operation")?) {
            ("LISTENER", "MERGE") => merge(self.listener(&port)?, value),
            ("NETWORK_FILTER", "MERGE") => {
                merge(
                    self.listener(&port)?
                        .pointer_mut("/filter_chains/0/filters/0")?,
                    value,
                );
            }
            ("HTTP_FILTER", "INSERT_BEFORE") => {
                let filters = self
                    .listener(&port)?
                    .pointer_mut(HTTP_FILTERS)?
                    .as_array_mut()?;
                // Before the router, the one filter that is surely there, and last.
                filters.insert(filters.len().checked_sub(1)?, value.clone());
            }
            ("CLUSTER", "ADD") => self.add_cluster(value)?,
            _ => return None,
        }
        Some(())
    }

    /// An entry of an EnvoyPatchPolicy's `jsonPatches` (RFC 6902, section 4.1: `add`).
    fn envoy_gateway(&mut self, entry: &Value) -> Option<()> {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
        let value = entry.pointer("/operation/value")?;
        let (kind, path) = (text("/type")?, text("/operation/path")?);
        match text("/operation/op")? {
            "add" if kind.ends_with(".Cluster") && path.is_empty() => self.add_cluster(value),
            "add" if kind.ends_with(".Listener") => {
                let (parent, last) = path.rsplit_once('/')?;
                let last = last.replace("~1", "/").replace("~0", "~");
                match self.listener(text("/name")?)?.pointer_mut(parent)? {
                    Value::Object(fields) => {
                        fields.insert(last, value.clone());
                    }
                    Value::Array(items) if last == "-" => items.push(value.clone()),
                    Value::Array(items) => {
                        let at = last.parse().ok().filter(|at| *at <= items.len())?;
                        items.insert(at, value.clone());
                    }
                    _ => return None,
                }
                Some(())
            }
            _ => None,
        }
    }

    /// The listener of this name, made where it is new: an HTTP connection manager with a router.
    fn listener(&mut self, name: &str) -> Option<&mut Value> {
        let listeners = self
            .bootstrap
            .pointer_mut("/static_resources/listeners")?
            .as_array_mut()?;
        let known = listeners
            .iter()
            .position(|listener| listener["name"] == name);
        let at = known.unwrap_or(listeners.len());
        if known.is_none() {
            listeners.push(json!({ "name": name, "filter_chains": [{ "filters": [{ "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.\
                          http_connection_manager.v3.HttpConnectionManager",
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                }}],
            }}]}]}));
        }
        listeners.get_mut(at)
    }

    fn add_cluster(&mut self, cluster: &Value) -> Option<()> {
        let clusters = self
            .bootstrap
            .pointer_mut("/static_resources/clusters")?
            .as_array_mut()?;
        clusters.push(cluster.clone());
        Some(())
    }
}

const HTTP_FILTERS: &str = "/filter_chains/0/filters/0/typed_config/http_filters";

/// As protobuf merges: messages field by field, lists one behind the other.
fn merge(into: &mut Value, value: &Value) {
    match (into, value) {
        (Value::Object(fields), Value::Object(more)) => merge_fields(fields, more),
        (Value::Array(items), Value::Array(more)) => items.extend(more.iter().cloned()),
        (into, value) => *into = value.clone(),
    }
}

fn merge_fields(fields: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, value) in more {
        match fields.get_mut(name) {
            Some(old) => merge(old, value),
            None => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(patched: &Patched) -> &Value {
        &patched.bootstrap["static_resources"]["listeners"][0]
    }

    #[test]
    fn other_resources_are_no_patches() {
        assert!(apply(&[json!({ "kind": "Gateway" }), json!({ "admin": {} })]).is_none());
    }

    #[test]
    fn an_envoy_filter_is_applied_in_order() {
        let at = json!({ "listener": { "portNumber": 8443 } });
        let patch = |to: &str, operation: &str, value: Value| json!({ "applyTo": to, "match": at, "patch": { "operation": operation, "value": value } });
        let filter = json!({ "kind": "EnvoyFilter", "spec": { "configPatches": [
            patch("LISTENER", "MERGE", json!({ "per_connection_buffer_limit_bytes": 1 })),
            patch("NETWORK_FILTER", "MERGE", json!({ "typed_config": { "access_log": [1] } })),
            patch("NETWORK_FILTER", "MERGE", json!({ "typed_config": { "access_log": [2] } })),
            patch("HTTP_FILTER", "INSERT_BEFORE", json!({ "name": "first" })),
            patch("HTTP_FILTER", "INSERT_BEFORE", json!({ "name": "second" })),
            patch("CLUSTER", "ADD", json!({ "name": "broker" })),
            patch("HTTP_ROUTE", "MERGE", json!({})),
        ]}});
        let patched = apply(&[json!({ "kind": "Gateway" }), filter]).expect("patches");
        assert_eq!(patched.unapplied, ["[1].spec.configPatches[6]"]);
        assert_eq!(listener(&patched)["per_connection_buffer_limit_bytes"], 1);
        let http = &listener(&patched)["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(http["access_log"], json!([1, 2]));
        let names: Vec<_> = (0..3).map(|n| &http["http_filters"][n]["name"]).collect();
        assert_eq!(names, ["first", "second", "envoy.filters.http.router"]);
        assert_eq!(
            patched.bootstrap["static_resources"]["clusters"][0]["name"],
            "broker"
        );
    }

    #[test]
    fn an_envoy_patch_policy_is_applied_in_order() {
        let patch = |kind: &str, op: &str, path: &str, value: Value| {
            json!({ "type": format!("a.v3.{kind}"), "name": "mtls",
                    "operation": { "op": op, "path": path, "value": value } })
        };
        let policy = json!({ "kind": "EnvoyPatchPolicy", "spec": { "jsonPatches": [
            patch("Listener", "add", &format!("{HTTP_FILTERS}/0"), json!({ "name": "second" })),
            patch("Listener", "add", &format!("{HTTP_FILTERS}/0"), json!({ "name": "first" })),
            patch("Listener", "add", "/a~1b", json!(1)),
            patch("Cluster", "add", "", json!({ "name": "broker" })),
            patch("Listener", "add", "/no/such/place", json!(1)),
            patch("Listener", "remove", "/name", json!(1)),
        ]}});
        let patched = apply(&[policy]).expect("patches");
        assert_eq!(
            patched.unapplied,
            ["[0].spec.jsonPatches[4]", "[0].spec.jsonPatches[5]"]
        );
        assert_eq!(listener(&patched)["a/b"], 1);
        let http = &listener(&patched)["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(http["http_filters"][0]["name"], "first");
        assert_eq!(http["http_filters"][1]["name"], "second");
        assert_eq!(
            patched.bootstrap["static_resources"]["clusters"][0]["name"],
            "broker"
        );
    }
}
