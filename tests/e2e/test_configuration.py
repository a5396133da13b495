"""A configuration is taken whole or not at all, while Envoy runs, and takes no balance with it."""

import concurrent.futures
import copy
import itertools
import json
import os
import threading

import pytest

from support import envoy
from support.broker import ScriptedBroker
from support.caller import Reset
from support.process import eventually
from support.provider import cue

WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


class Discovered:
    """A gateway whose filter comes by ECDS, from a file."""

    def __init__(self, stand, broker):
        self.stand = stand
        self.file = stand.run / "almoner-extension.json"
        self.version = 0
        self.gateway = stand.envoy(
            edit=self.edit, name="discovered", concurrency=1, broker=broker.port
        )

    def edit(self, configuration):
        document = envoy.policy(configuration)
        document["budgets"]["bot-requests"]["limit"] = 4
        brief = copy.deepcopy(document["policies"][0]) | {"name": "brief", "budgets": []}
        brief["subjects"] = ["spiffe://prod.example/ns/brief/sa/*"]
        brief["max_stream_duration"] = "1s"
        document["policies"].append(brief)
        self.document = self.current = document
        for manager in envoy.http_managers(configuration):
            for http_filter in manager["http_filters"]:
                if http_filter["name"] == "almoner":
                    self.typed = http_filter.pop("typed_config")
                    source = {"path_config_source": {"path": str(self.file)}}
                    source["resource_api_version"] = "V3"
                    discovery = {"config_source": source, "type_urls": [WASM]}
                    http_filter["config_discovery"] = discovery
            break  # The listeners share one HTTP connection manager.
        self.write(document)

    def write(self, document: dict):
        self.version += 1
        typed = copy.deepcopy(self.typed)
        typed["config"]["configuration"]["value"] = json.dumps(document)
        resource = {"@type": EXTENSION, "name": "almoner", "typed_config": typed}
        response = {"version_info": str(self.version), "resources": [resource]}
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(response))
        os.replace(new, self.file)  # Envoy watches for moves.

    def update(self, document: dict):
        """Gives a good document to the running Envoy and awaits that the worker goes by it."""
        before = self.digest()
        self.write(document)
        eventually(lambda: self.digest() != before, what="another policy digest")
        self.current = document

    def reject(self, document: dict):
        """Gives a bad document to the running Envoy and awaits that it says so."""
        stat = "extension_config_discovery.http_filter.almoner.update_rejected"
        before = self.gateway.stats(stat)[stat]
        self.write(document)
        eventually(lambda: self.gateway.stats(stat)[stat] > before, what="a rejected update")

    def digest(self) -> str:
        """Of the document that decides about requests now."""
        answer = self.stand.workload(self.gateway).request("GET", "/nowhere")
        return self.gateway.record(answer)["almoner.policy_digest"]


@pytest.fixture(scope="module")
def broker(stand):
    return stand.adopt(ScriptedBroker(stand))


@pytest.fixture(scope="module")
def its_gateway(stand, broker):
    return Discovered(stand, broker)


@pytest.fixture
def discovered(its_gateway):
    """With the document as it was, at the end of each test."""
    yield its_gateway
    if its_gateway.current != its_gateway.document:
        its_gateway.update(its_gateway.document)


_numbers = itertools.count(1)


@pytest.fixture
def new_caller(stand, discovered):
    def make(namespace: str = "support", **how):
        subject = f"spiffe://prod.example/ns/{namespace}/sa/configured-{next(_numbers)}"
        return stand.workload(discovered.gateway, spiffe_id=subject, **how)

    return make


def changed(document: dict, path: str, value) -> dict:
    """The document with another value at a path such as `policies.0.name`."""
    document = copy.deepcopy(document)
    *way, last = [int(word) if word.isdigit() else word for word in path.split("/")]
    place = document
    for word in way:
        place = place[word]
    place[last] = value
    return document


INVALID = {
    "budgets/bot-tokens/window": ("1 min", "budgets.bot-tokens.window: expected a "),
    "providers/openai/api": ("opnai", "providers.openai.api: expected "),
    "policies/0/budgets": (["bot-hours"], "policies[0].budgets: expected the name of a budget"),
    "policies/0/subject": ("spiffe://prod.example/**", "policies[0].subject: expected one of"),
    "broker/timeout": ("2 s", "broker.timeout: expected a duration"),
    "providers/anthropic/match": ({"path_prefix": "/openai"}, "providers."),
}


@pytest.mark.parametrize("path", INVALID)
def test_an_invalid_document_is_not_loaded_and_the_old_one_stays(discovered, new_caller, path):
    value, complaint = INVALID[path]
    before = discovered.digest()
    discovered.reject(changed(discovered.document, path, value))
    log = discovered.gateway.log.read_text()
    told = [line for line in log.splitlines() if "configuration not loaded" in line]
    assert "[critical]" in told[-1]
    assert complaint in told[-1] and ", found `" in told[-1]
    assert discovered.digest() == before
    assert new_caller().chat().status == 200


def test_envoy_does_not_start_with_an_invalid_document(stand):
    def edit(configuration):
        document = changed(envoy.policy(configuration), "policies/0/mode", "watch")
        envoy.set_policy(configuration, document)

    with pytest.raises(RuntimeError) as ended:
        stand.envoy(edit=edit, name="invalid", concurrency=1)
    assert "policies[0].mode: expected `enforce` or `observe`, found `watch`" in str(ended.value)


def test_a_new_document_is_in_force_without_a_restart(discovered, broker, new_caller):
    caller = new_caller()
    assert caller.chat().status == 200
    assert caller.chat(model="gpt-4o").status == 403
    models = ["gpt-4o-mini", "gpt-4o"]
    discovered.update(changed(discovered.document, "policies/0/allow/0/models", models))
    assert caller.chat(model="gpt-4o").status == 200
    # What was granted under another policy is asked for again.
    digests = [form["policy_digest"] for form in broker.asked(caller.subject)]
    assert len(digests) == len(set(digests)) == 2
    discovered.update(discovered.document)
    assert caller.chat(model="gpt-4o").status == 403


def test_what_was_spent_stays_spent_over_an_update(discovered, new_caller):
    caller = new_caller()
    assert [caller.chat().status for _ in range(5)] == [200] * 4 + [429]
    discovered.update(another(discovered))
    assert caller.chat().status == 429
    discovered.update(changed(discovered.document, "budgets/bot-requests/limit", 6))
    assert [caller.chat().status for _ in range(3)] == [200, 200, 429]


def another(discovered) -> dict:
    """Another document that decides the same."""
    return changed(discovered.document, "policies/0/on_call", "pagerduty:other")


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_stream_that_an_update_overtakes_is_counted_and_settled(
    stand, discovered, new_caller, protocol
):
    caller = new_caller(protocol=protocol)
    text = f"{caller.subject} {cue(output=100, pace_ms=5)}"
    with caller.open_chat(text) as exchange:
        events = exchange.events()
        next(events)
        discovered.update(another(discovered))
        assert len(list(events)) > 90
    record = discovered.gateway.record(exchange)
    reported = stand.provider.request(caller.subject, ended=True).reported
    assert record["almoner.usage.completeness"] == "complete"
    assert record["almoner.charged.output_tokens"] == reported["output"] == 100


def test_a_stream_that_an_update_overtakes_is_cut_in_time(discovered, new_caller):
    caller = new_caller("brief", protocol="h2")
    with caller.open_chat(f"{caller.subject} {cue(end='hang', at=3)}") as exchange:
        next(exchange.events())
        discovered.update(another(discovered))
        with pytest.raises(Reset):
            list(exchange.chunks())
    assert discovered.gateway.record(exchange)["almoner.ended"] == "cut"


def test_a_request_that_an_update_overtakes_at_the_broker_goes_on(discovered, broker, new_caller):
    caller = new_caller()
    updated = threading.Event()

    def lease(form):
        assert updated.wait(10)
        return broker.lease(form)

    broker.scripts[caller.subject] = lease
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        answer = threads.submit(caller.chat)
        eventually(lambda: broker.asked(caller.subject), what="a request to the broker")
        discovered.update(another(discovered))
        updated.set()
        assert answer.result().status == 200
