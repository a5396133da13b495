"""A provider's credential reaches that provider's clusters alone, wherever the caller points.

The simulated provider tells by the name in the TLS handshake (SNI) which cluster a request took.
"""

import json

import pytest

from support import envoy
from support.broker import ScriptedBroker
from support.caller import CHAT, MESSAGES, Reset

SNI = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
BODY = json.dumps(
    {
        "model": "gpt-4o-mini",
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "route me"}],
    }
).encode()


@pytest.fixture(scope="module")
def broker(stand):
    """Leases OpenAI's key for every provider but Anthropic."""
    broker = ScriptedBroker(stand)
    of = {"anthropic": "anthropic"}
    broker.respond = lambda form: broker.lease(
        form | {"audience": of.get(form["audience"], "openai")}
    )
    yield broker
    broker.stop()


# Routes that a provider `NAME` of OpenAI's API, matched by the path `/NAME`, could be given by
# mistake: matches and clusters, the first match counts.
MISTAKES = {
    # Simply the wrong cluster.
    "astray": [({}, "anthropic")],
    # By what the plugin takes off: Envoy looks for the route again, and finds another one.
    "by-header": [
        ({"headers": [{"name": "x-tenant", "present_match": True}]}, "openai"),
        ({}, "anthropic"),
    ],
    "by-query": [
        ({"query_parameters": [{"name": "tenant", "present_match": True}]}, "openai"),
        ({}, "anthropic"),
    ],
    "by-key": [
        ({"headers": [{"name": "x-api-key", "present_match": True}]}, "openai"),
        ({}, "anthropic"),
    ],
    # By what the plugin puts on.
    "by-credential": [
        ({"headers": [{"name": "authorization", "present_match": True}]}, "anthropic"),
        ({}, "openai"),
    ],
}


def with_mistakes(configuration):
    document = envoy.policy(configuration)
    openai = document["providers"]["openai"]
    document["providers"]["by-authority"] = openai | {"match": {"authority": "api.by-host.example"}}
    for name in MISTAKES:
        document["providers"][name] = openai | {"match": {"path_prefix": f"/{name}"}}
    document["policies"][0]["allow"][0]["providers"] += ["by-authority", *MISTAKES]
    envoy.set_policy(configuration, document)
    for manager in envoy.http_managers(configuration):
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        routes += [
            {
                "name": name,
                "match": {"prefix": f"/{name}/"} | match,
                "route": {
                    "cluster": cluster,
                    "prefix_rewrite": "/",
                    "host_rewrite_literal": SNI[cluster],
                },
            }
            for name, mistakes in MISTAKES.items()
            for match, cluster in mistakes
        ]
        routes.append(
            {
                "name": "by-authority",
                "match": {"prefix": "/v1/", "headers": [by_host("api.by-host.example")]},
                "route": {"cluster": "openai", "host_rewrite_literal": SNI["openai"]},
            }
        )


def by_host(name):
    return {"name": ":authority", "string_match": {"exact": name}}


@pytest.fixture(scope="module")
def gateway(stand, broker):
    return stand.envoy(edit=with_mistakes, name="routing", broker=broker.port)


@pytest.fixture(autouse=True)
def only_this_test(stand):
    stand.provider.forget()


def assert_each_key_at_its_provider(stand):
    keys = {"openai": stand.openai_key, "anthropic": stand.anthropic_key}
    for received in stand.provider.requests():
        wrong = [key for name, key in keys.items() if SNI[name] != received.sni]
        assert not any(key.encode() in received.everything() for key in wrong)


def head(target, *lines):
    lines = [f"POST {target} HTTP/1.1", *lines, "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {len(BODY)}", "", ""]).encode() + BODY


OWN = "host: almoner.prod.example"

# Whole requests, and where they may arrive: nowhere, or at whose key is whose cluster's.
TRICKS = {
    "another provider's host": (head(CHAT, "host: api.anthropic.com"), "openai"),
    "another provider's host and port": (head(CHAT, "host: api.anthropic.com:443"), "openai"),
    "a trailing dot": (head(CHAT, "host: api.anthropic.com."), "openai"),
    "absolute form": (head(f"https://api.anthropic.com{CHAT}", OWN), "openai"),
    "absolute form, plaintext": (head(f"http://api.anthropic.com{CHAT}", OWN), "openai"),
    "absolute form, userinfo": (head(f"https://u:p@api.anthropic.com{CHAT}", OWN), "openai"),
    "userinfo": (head(CHAT, "host: u:p@api.anthropic.com"), None),
    "two hosts": (head(CHAT, OWN, "host: api.anthropic.com"), None),
    "no host": (head(CHAT), None),
    "a host with a path": (head(CHAT, "host: api.anthropic.com/anthropic"), None),
    "matched twice": (head(CHAT, "host: api.by-host.example"), None),
    "matched twice, other case": (head(CHAT, "host: API.By-Host.Example:443"), None),
    "matched twice, absolute form": (head(f"https://api.by-host.example{CHAT}", OWN), None),
    "dot segments": (head(f"/anthropic/..{CHAT}", OWN), "openai"),
    "dot segments out": (head("/openai/../v1/chat/completions", OWN), None),
    "encoded dot segments": (head(f"/anthropic/%2e%2e{CHAT}", OWN), "openai"),
    "encoded slash": (head("/openai%2Fv1/chat/completions", OWN), None),
    "encoded slash between": (head("/anthropic/..%2f..%2fopenai/v1/chat/completions", OWN), None),
    "backslashes": (head("/anthropic\\..\\openai/v1/chat/completions", OWN), "openai"),
    "double slash": (head(f"/{CHAT}", OWN), "openai"),
    "prefix that goes on": (head("/openaix/v1/chat/completions", OWN), None),
    "other case": (head("/OPENAI/v1/chat/completions", OWN), None),
    "prefix alone": (head("/openai", OWN), None),
    "parameters of a segment": (head("/openai;x=/anthropic/v1/chat/completions", OWN), None),
    "fragment": (head(f"{CHAT}#/anthropic", OWN), None),
    "other API behind the prefix": (head("/anthropic/v1/chat/completions", OWN), None),
    "x-forwarded-host": (head(CHAT, OWN, "x-forwarded-host: api.anthropic.com"), "openai"),
    "x-original-url": (head(CHAT, OWN, f"x-original-url: {MESSAGES}"), "openai"),
    "x-rewrite-url": (head(CHAT, OWN, f"x-rewrite-url: {MESSAGES}"), "openai"),
    "x-envoy-original-path": (head(CHAT, OWN, f"x-envoy-original-path: {MESSAGES}"), "openai"),
    "x-envoy-original-host": (head(CHAT, OWN, "x-envoy-original-host: elsewhere"), "openai"),
    "x-http-method-override": (head(CHAT, OWN, "x-http-method-override: DELETE"), "openai"),
    "the right authority": (head("/v1/chat/completions", "host: api.by-host.example"), "openai"),
    "the wrong authority": (head("/v1/chat/completions", OWN), None),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_sends_a_key_to_another_provider(stand, gateway, trick):
    content, wanted = TRICKS[trick]
    try:
        answer = stand.workload(gateway).raw(content, method="POST")
        assert (answer.status == 200) == (wanted is not None), answer
    except Reset:
        assert wanted is None
    received = stand.provider.requests()
    assert [each.sni for each in received] == ([SNI[wanted]] if wanted else [])
    assert_each_key_at_its_provider(stand)


# Authorities over HTTP/2, where a `host` header may also contradict them; and whether Envoy takes
# them at all.
AUTHORITIES = [
    ("api.anthropic.com", [], True),
    ("api.anthropic.com:443", [], True),
    ("almoner.prod.example", [("host", "api.by-host.example")], True),
    ("api.anthropic.com", [("host", "api.by-host.example")], True),
    ("u:p@api.openai.com", [], False),
    ("", [], False),
]


@pytest.mark.parametrize(("authority", "headers", "taken"), AUTHORITIES)
def test_no_authority_sends_a_key_to_another_provider(stand, gateway, authority, headers, taken):
    caller = stand.workload(gateway, protocol="h2", host=authority)
    try:
        assert caller.chat("route me", headers=headers).status == 200
        assert taken
    except Reset:
        assert not taken
    assert [each.sni for each in stand.provider.requests()] == [SNI["openai"]] * taken
    assert_each_key_at_its_provider(stand)


def test_a_route_to_another_providers_cluster_is_a_502(stand, gateway):
    answer = stand.workload(gateway).chat("route me", path="/astray/v1/chat/completions")
    assert (answer.status, answer.header("almoner-reason")) == (502, "wrong_cluster")
    assert answer.json()["error"]["code"] == "wrong_cluster"
    assert gateway.record(answer)["error.type"] == "wrong_cluster"
    assert stand.provider.requests() == []


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "astray"])
def test_a_route_that_changes_on_the_way_up_is_noticed(stand, gateway, mistake, protocol):
    """The plugin's own edits make Envoy look for the route again, after the plugin has looked. Such
    routes must not be configured; where they are, the first answer says so, and none passes."""
    caller = stand.workload(gateway, protocol=protocol)
    headers = [("x-tenant", "a"), ("x-api-key", "sk-any")]
    path = f"/{mistake}/v1/chat/completions?tenant=a"
    critical = "wasmcustom.almoner_critical;reason=wrong_cluster"
    before = gateway.stats(critical).get(critical, 0)
    answer = caller.chat("route me", path=path, headers=headers)
    assert (answer.status, answer.header("almoner-reason")) == (502, "wrong_cluster")
    assert gateway.record(answer)["error.type"] == "wrong_cluster"
    assert gateway.stats(critical)[critical] == before + 1
