"""Takes Kubernetes resources that patch Envoy; gives a bootstrap with the patches applied.

Istio and Envoy Gateway make the rest of Envoy's configuration themselves; here the smallest one that
the patches can be applied to stands in for it.
"""

import copy

import yaml

from . import paths

MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def istio(name: str) -> dict:
    """With each `configPatches` of each EnvoyFilter, in order."""
    bootstrap = _skeleton("mtls")
    [listener] = bootstrap["static_resources"]["listeners"]
    for resource in _resources(name, "EnvoyFilter"):
        for entry in resource["spec"]["configPatches"]:
            operation, value = entry["patch"]["operation"], entry["patch"]["value"]
            manager = listener["filter_chains"][0]["filters"][0]
            match entry["applyTo"], operation:
                case "LISTENER", "MERGE":
                    _merge(listener, value)
                case "NETWORK_FILTER", "MERGE":
                    _merge(manager, value)
                case "HTTP_FILTER", "INSERT_BEFORE":
                    manager["typed_config"]["http_filters"].insert(-1, value)
                case "CLUSTER", "ADD":
                    bootstrap["static_resources"]["clusters"].append(value)
                case unknown:
                    raise NotImplementedError(unknown)
    return bootstrap


def envoy_gateway(name: str) -> dict:
    """With each `jsonPatches` of each EnvoyPatchPolicy, in order."""
    bootstrap = _skeleton("almoner/almoner/mtls")
    resources = bootstrap["static_resources"]
    for policy in _resources(name, "EnvoyPatchPolicy"):
        for patch in policy["spec"]["jsonPatches"]:
            operation = patch["operation"]
            assert operation["op"] == "add"
            if patch["type"].endswith("Cluster"):
                assert (operation["path"], operation["value"]["name"]) == ("", patch["name"])
                resources["clusters"].append(operation["value"])
            else:
                [listener] = resources["listeners"]
                assert listener["name"] == patch["name"]
                _add(listener, operation["path"], operation["value"])
    return bootstrap


def _resources(name: str, kind: str) -> list[dict]:
    documents = yaml.safe_load_all((paths.CONFIGURATIONS / name).read_text())
    found = [copy.deepcopy(each) for each in documents if each["kind"] == kind]
    assert found, f"no {kind} in {name}"
    return found


def _skeleton(listener: str) -> dict:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}
    manager = {
        "@type": f"{MANAGER}.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": []}]},
        "http_filters": [router],
    }
    name = "envoy.filters.network.http_connection_manager"
    filters = [{"name": name, "typed_config": manager}]
    secrets = {"name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s"}
    secrets["load_assignment"] = {
        "cluster_name": "sds-grpc",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": copy.deepcopy(address)}}]}],
    }
    return {
        "node": {"id": "fragment", "cluster": "almoner"},
        "admin": {"address": copy.deepcopy(address)},
        "static_resources": {
            "listeners": [
                {"name": listener, "address": address, "filter_chains": [{"filters": filters}]},
            ],
            "clusters": [secrets],
        },
    }


def _merge(into: dict, value: dict):
    """As protobuf merges: messages field by field, lists one behind the other."""
    for key, new in value.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            _merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(new)
        else:
            into[key] = new


def _add(document, pointer: str, value):
    """JSON Patch's `add` (RFC 6902, section 4.1)."""
    *parents, last = [part.replace("~1", "/") for part in pointer.split("/")[1:]]
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if isinstance(document, list):
        document.insert(int(last), value)
    else:
        document[last] = value
