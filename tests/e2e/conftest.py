"""One gateway for all tests of faults, bodies, streams and records, and callers that are new to it.

What tests must not share is kept by subject: leases, budgets, and what the scripted broker says.
"""

import copy
import itertools
import json

import pytest

from support import envoy
from support.broker import ScriptedBroker

# Where nothing listens.
NOBODY = 1
BODY_LIMIT = 8 << 20


@pytest.fixture(scope="session")
def broker(stand):
    return stand.adopt(ScriptedBroker(stand))


@pytest.fixture(scope="session")
def gateway(stand, broker):
    """One worker, so that what is kept by worker is kept once."""

    def edit(configuration):
        add_provider(configuration, "legacy", "http_protocol_options", stand.provider.tls)
        add_provider(configuration, "absent", "http2_protocol_options", NOBODY)
        document = envoy.policy(configuration)
        document["broker"]["timeout"] = "500ms"
        document["limits"] = {"body_timeout": "1s", "max_body_bytes": BODY_LIMIT}
        for name in ("legacy", "absent"):
            provider = {"match": {"path_prefix": f"/{name}"}, "clusters": [name]}
            document["providers"][name] = document["providers"]["openai"] | provider
        document["budgets"]["nothing"] = {"unit": "tokens", "limit": 1, "window": "1m"}
        document["policies"] += policies(document["policies"][0])
        envoy.set_policy(configuration, document)
        add_listener_without_hold_mode(configuration, document)

    return stand.envoy(edit=edit, name="faults", concurrency=1, broker=broker.port)


@pytest.fixture
def new_caller(stand, gateway):
    """Makes callers with a subject of their own, in a namespace that chooses their policy."""

    def make(namespace: str = "free", **how):
        subject = f"spiffe://prod.example/ns/{namespace}/sa/workload-{next(_numbers)}"
        return stand.workload(gateway, spiffe_id=subject, **how)

    return make


_numbers = itertools.count(1)


def policies(shipped: dict) -> list[dict]:
    """Variations of the shipped policy, each for the namespace of its name."""

    def variation(name: str, **changes) -> dict:
        policy = copy.deepcopy(shipped) | {"name": name, "budgets": []} | changes
        token = f"jwt:https://issuer.prod.example|{name}-*"
        policy["subjects"] = [f"spiffe://prod.example/ns/{name}/sa/*", token]
        policy["allow"][0]["providers"] = ["openai", "legacy", "absent"]
        return policy

    return [
        variation("free"),
        variation("brief", max_stream_duration="1s"),
        variation("watched", mode="observe"),
        variation("watched-place", mode="observe", conditions={"cidrs": ["192.0.2.0/24"]}),
        variation("watched-purse", mode="observe", budgets=["nothing"]),
    ]


def add_listener_without_hold_mode(configuration: dict, document: dict):
    """Another listener like `mtls`, named `unheld`."""
    listeners = configuration["static_resources"]["listeners"]
    listener = copy.deepcopy(listeners[0])
    listener["name"] = "unheld"
    listeners.append(listener)
    plugin = envoy.plugins(configuration)[-1]
    plugin["name"] = "unheld"
    del plugin["allow_on_headers_stop_iteration"]
    plugin["configuration"]["value"] = json.dumps(document | {"namespace": "unheld"})


def add_provider(configuration: dict, name: str, protocol: str, port: int):
    """A cluster like OpenAI's at another port, spoken to by `protocol`, and a route to it."""
    resources = configuration["static_resources"]
    cluster = copy.deepcopy(resources["clusters"][0])
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    [options] = cluster["typed_extension_protocol_options"].values()
    options.pop("auto_config")
    options["explicit_http_config"] = {protocol: {}}
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    resources["clusters"].append(cluster)
    # The listeners share one route table.
    [hosts] = envoy.http_managers(configuration)[0]["route_config"]["virtual_hosts"]
    route = copy.deepcopy(hosts["routes"][0])
    route["name"] = route["route"]["cluster"] = name
    route["match"] = {"prefix": f"/{name}/"}
    hosts["routes"].append(route)
