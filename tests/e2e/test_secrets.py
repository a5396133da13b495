"""What a caller sends as a secret leaves Envoy in no form; nor does what a provider sets come down.

To hold a new slot to that, add a line to HEADERS, QUERIES, TRAILERS or BODIES.
"""

import json
import threading

import pytest

from support.broker import ScriptedBroker
from support.caller import CHAT, MESSAGES, Caller, Reset
from support.process import eventually
from support.provider import cue

PROTOCOLS = ["http/1.1", "h2"]
APIS = {"openai": CHAT, "anthropic": MESSAGES}

# Where callers put secrets, `{}`: header names and values. In upper case only over HTTP/1.1.
HEADERS = {
    "authorization": [("authorization", "Bearer {}")],
    "authorization, bare": [("authorization", "{}")],
    "authorization, basic": [("authorization", "Basic {}")],
    "authorization, repeated": [("authorization", "Bearer {}"), ("authorization", "Bearer {}x")],
    "authorization, mixed case": [("AuThOrIzAtIoN", "bEaReR {}")],
    "proxy-authorization": [("proxy-authorization", "Basic {}")],
    "x-api-key": [("x-api-key", "{}")],
    "x-api-key, mixed case": [("X-API-Key", "{}")],
    "x-api-key, repeated": [("x-api-key", "{}"), ("x-api-key", "{}x")],
    "api-key": [("api-key", "{}")],
    "x-goog-api-key": [("x-goog-api-key", "{}")],
    "ocp-apim-subscription-key": [("ocp-apim-subscription-key", "{}")],
    "every key at once": [
        (name, "{}") for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    ],
    "cookie": [("cookie", "session={}")],
    "cookie, repeated": [("cookie", "a={}"), ("cookie", "b={}x")],
    "set-cookie": [("set-cookie", "session={}")],
    "openai-organization": [("openai-organization", "{}")],
    "openai-project": [("OpenAI-Project", "{}")],
    "anthropic-workspace-id": [("anthropic-workspace-id", "{}")],
    "x-amz-security-token": [("x-amz-security-token", "{}")],
    "x-amz-date": [("X-Amz-Credential", "{}")],
    "x-auth-token": [("x-auth-token", "{}")],
    "websocket subprotocol": [("sec-websocket-protocol", "openai-insecure-api-key.{}")],
    "x-forwarded-client-cert": [("x-forwarded-client-cert", "By={}")],
    "x-forwarded-for": [("x-forwarded-for", "{}")],
    "x-envoy-original-path": [("x-envoy-original-path", "/?key={}")],
    "x-envoy-upstream-alt-stat-name": [("x-envoy-upstream-alt-stat-name", "{}")],
    "x-request-id": [("x-request-id", "{}")],
    "x-client-trace-id": [("x-client-trace-id", "{}")],
    "traceparent": [("traceparent", "00-{}")],
    "baggage": [("baggage", "key={}")],
    "referer": [("referer", "https://app.example/?key={}")],
    "idempotency-key": [("idempotency-key", "{}")],
    "x-stainless-lang": [("x-stainless-lang", "{}")],
    "a header that nobody knows": [("x-anything", "{}")],
    "connection-named": [("connection", "x-hop"), ("x-hop", "{}")],
}

QUERIES = {
    "key": "?key={}",
    "percent-encoded name": "?%6Bey={}",
    "wholly encoded name": "?%61%70%69%5F%6B%65%79={}",
    "upper case": "?KEY={}",
    "api_key": "?api_key={}",
    "api-key": "?api-key={}",
    "access_token": "?access_token={}",
    "x-amz": "?X-Amz-Credential={}&X-Amz-Signature={}&X-Amz-Security-Token={}",
    "behind a good one": "?beta=true&key={}",
    "behind a semicolon": "?beta=true;key={}",
    "repeated": "?key=a&key={}",
    "without a name": "?{}",
    "empty name": "?={}",
    "as a name": "?{}=1",
    "a second question mark": "?beta=true?key={}",
    "beside a percent sign": "?%zzkey={}",
    "plus": "?+key={}",
}

TRAILERS = {
    "authorization": [("authorization", "Bearer {}")],
    "x-api-key": [("x-api-key", "{}"), ("x-api-key", "{}x")],
    "cookie": [("cookie", "{}")],
    "anything": [("x-checksum", "{}"), ("grpc-status", "0")],
}

# Fields that carry a secret in the body: refused, not edited.
BODIES = {
    "api_key": {"api_key": "{}"},
    "mcp server": {"mcp_servers": [{"type": "url", "url": "u", "authorization_token": "{}"}]},
    "mcp tool": {"tools": [{"type": "mcp", "server_label": "s", "authorization": "{}"}]},
    "mcp headers": {"tools": [{"type": "mcp", "server_label": "s", "headers": {"x": "{}"}}]},
    "azure data source": {
        "data_sources": [
            {"type": "azure_search", "parameters": {"authentication": {"key": "{}"}}},
        ]
    },
    "container domain": {
        "tools": [{"type": "shell", "environment": {"network_policy": {"domain_secrets": "{}"}}}]
    },
}

# What may arrive at a provider, beside the credential.
ARRIVES = {"host", "content-length", "content-type", "accept", "accept-encoding", "user-agent"}
ARRIVES |= {"transfer-encoding", "anthropic-version", "anthropic-beta", "openai-beta"}


@pytest.fixture(scope="module")
def broker(stand):
    broker = ScriptedBroker(stand)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def gateway(stand, broker):
    return stand.envoy(name="secrets", broker=broker.port)


@pytest.fixture(autouse=True)
def only_this_test(stand, broker):
    stand.provider.forget()
    stand.provider.rules([])
    broker.respond = broker.lease


def filled(pairs, secret):
    return [(name.format(secret), value.format(secret)) for name, value in pairs]


def request(caller: Caller, api: str, text: str, *, query="", **how):
    """A plain request to `api`, with whatever else is to be in it."""
    fields = how.pop("fields", {})
    model = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5"}[api]
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 16}
    headers = [("anthropic-version", "2023-06-01")] if api == "anthropic" else []
    headers += how.pop("headers", [])
    body = json.dumps(body | fields).encode()
    return caller.request("POST", APIS[api] + query, headers=headers, body=body, **how)


def assert_clean(stand, api: str, text: str, secret: str):
    """One request arrived, with the leased key and without the caller's."""
    received = stand.provider.request(text)
    assert secret.encode() not in received.everything()
    assert_leased(stand, api, received)


def assert_leased(stand, api: str, received):
    name, value, other = {
        "openai": ("authorization", f"Bearer {stand.openai_key}", "x-api-key"),
        "anthropic": ("x-api-key", stand.anthropic_key, "authorization"),
    }[api]
    assert received.header(name) == value
    assert received.header(other) is None
    assert {name for name, _ in received.headers} <= ARRIVES | {name}
    assert received.trailers == []


def callers(stand, gateway, protocol):
    """By each kind of identity."""
    yield "certificate", stand.workload(gateway, protocol=protocol)
    yield "token", stand.token_holder(gateway, protocol=protocol)


def sendable(slot: str, protocol: str) -> bool:
    """HTTP/2 has neither upper case in names nor hop-by-hop headers (RFC 9113, section 8.2)."""
    names = [name for name, _ in HEADERS[slot]]
    return protocol != "h2" or all(name == name.lower() != "connection" for name in names)


def free_for_a_token(slot: str) -> str | None:
    """Where the caller's token may stand beside the secret."""
    taken = {name.lower() for name, _ in HEADERS[slot]}
    free = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    return next((each for each in free if each not in taken), None)


SENDABLE = [(slot, how) for slot in HEADERS for how in PROTOCOLS if sendable(slot, how)]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("slot", "protocol"), SENDABLE)
def test_no_header_of_a_certificate_holder_reaches_the_provider(
    stand, gateway, slot, protocol, api
):
    secret = stand.plant()
    caller = stand.workload(gateway, protocol=protocol)
    answer = request(caller, api, "in a header", headers=filled(HEADERS[slot], secret))
    assert answer.status == 200, answer.body
    assert_clean(stand, api, "in a header", secret)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("slot", "protocol"), [(slot, how) for slot, how in SENDABLE if free_for_a_token(slot)]
)
def test_no_header_beside_a_good_token_reaches_the_provider(stand, gateway, slot, protocol, api):
    secret = stand.plant("sk-ant-")
    caller = stand.token_holder(gateway, slot=free_for_a_token(slot), protocol=protocol)
    answer = request(caller, api, "beside a token", headers=filled(HEADERS[slot], secret))
    assert answer.status == 200, answer.body
    assert_clean(stand, api, "beside a token", secret)
    assert caller.token.encode() not in stand.provider.request("beside a token").everything()


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_no_query_parameter_reaches_the_provider(stand, gateway, query, protocol, api):
    secret = stand.plant()
    for kind, caller in callers(stand, gateway, protocol):
        text = f"in the query {kind}"
        answer = request(caller, api, text, query=query.replace("{}", secret))
        assert answer.status == 200, answer.body
        assert_clean(stand, api, text, secret)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS)
def test_no_trailer_reaches_the_provider(stand, gateway, trailers, protocol, api):
    secret = stand.plant()
    for kind, caller in callers(stand, gateway, protocol):
        text = f"in a trailer {kind}"
        answer = request(caller, api, text, trailers=filled(trailers, secret))
        assert answer.status == 200, answer.body
        assert_clean(stand, api, text, secret)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("fields", BODIES.values(), ids=BODIES)
def test_a_secret_in_the_body_is_refused(stand, gateway, fields, api):
    secret = stand.plant()
    fields = json.loads(json.dumps(fields).replace("{}", secret))
    answer = request(stand.workload(gateway), api, "in the body", fields=fields)
    assert (answer.status, answer.header("almoner-reason")) == (400, "secret_in_body")
    assert secret.encode() not in answer.body
    assert stand.provider.requests() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_websocket_with_a_key_as_its_subprotocol_is_refused(stand, gateway, protocol):
    secret = stand.plant()
    headers = [("sec-websocket-protocol", f"realtime, openai-insecure-api-key.{secret}")]
    if protocol == "h2":
        headers += [(":protocol", "websocket")]
    else:
        headers += [("connection", "upgrade"), ("upgrade", "websocket")]
        headers += [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZQ==")]
    caller = stand.workload(gateway, protocol=protocol)
    method = "CONNECT" if protocol == "h2" else "GET"
    try:
        answer = caller.request(method, "/openai/v1/realtime", headers=headers)
        assert answer.status in (400, 403)
    except Reset:
        # Envoy itself knows no extended CONNECT here.
        assert protocol == "h2"
    assert stand.provider.requests() == []


class Gate:
    """A broker that answers when it is told to."""

    def __init__(self, broker):
        self._broker, self._open = broker, threading.Event()
        self._before = len(broker.forms)
        broker.respond = self._respond

    def _respond(self, form):
        assert self._open.wait(20)
        return self._broker.lease(form)

    def await_asked(self):
        eventually(lambda: len(self._broker.forms) > self._before, what="the broker being asked")

    def open(self):
        self._open.set()


SLOW = {
    "headers": {"headers": [("x-api-key", "{}"), ("cookie", "{}")]},
    "trailers": {"trailers": [("authorization", "{}"), ("x-checksum", "{}")]},
    "query": {"query": "?key={}"},
}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", SLOW)
def test_nothing_goes_up_while_the_broker_is_slow(stand, broker, gateway, place, protocol, api):
    """The body, and the trailers, are in long before the credential is."""
    secret, gate = stand.plant(), Gate(broker)
    # A subject of its own, so that there is no lease yet.
    token = stand.issuer.mint(f"support-slow-{place}-{protocol}-{api}".replace("/", "-"))
    caller = stand.token_holder(gateway, token=token, protocol=protocol)
    how = json.loads(json.dumps(SLOW[place]).replace("{}", secret))
    how = {name: list(map(tuple, it)) if name != "query" else it for name, it in how.items()}
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(request(caller, api, "slow", **how)))
    waiting.start()
    try:
        gate.await_asked()
        assert stand.provider.requests() == []
        active = f"cluster.{api}.upstream_rq_active"
        assert gateway.stats(active)[active] == 0
    finally:
        gate.open()
        waiting.join(20)
    assert answers[0].status == 200
    assert_clean(stand, api, "slow", secret)
    assert token.encode() not in stand.provider.request("slow").everything()


@pytest.mark.parametrize("ending", ["end of the body", "trailers"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_goes_up_while_the_body_arrives(stand, broker, gateway, protocol, ending):
    """Piece by piece, with a lease at hand: what has come is held until all has come."""
    secret = stand.plant()
    caller = stand.workload(gateway, protocol=protocol)
    body = b'{"model":"gpt-4o-mini","max_tokens":16,"messages":[{"role":"user","content":"piece"}]}'
    headers = [("content-type", "application/json"), ("x-api-key", secret)]
    with caller.open("POST", CHAT, headers=headers, body=body[:20], finish=False) as exchange:
        exchange.send(body[20:])
        total = "http.ingress.downstream_rq_active"
        eventually(lambda: gateway.stats(total)[total] == 1, what="the request at Envoy")
        assert stand.provider.requests() == []
        exchange.finish([("authorization", secret)] if ending == "trailers" else ())
        assert exchange.answer().status == 200
    assert_clean(stand, "openai", "piece", secret)


# What providers say of the account, or set for their own use, must not come down.
KEPT_FROM_CALLERS = {
    "set-cookie": "__cf_bm=secret",
    "openai-organization": "org-of-the-account",
    "openai-project": "proj-of-the-account",
    "anthropic-organization-id": "org-of-the-account",
    "x-ms-region": "West Europe",
    "x-envoy-upstream-service-time": "7",
    "cf-ray": "abc",
    "alt-svc": 'h3=":443"',
    "server": "cloudflare",
    "strict-transport-security": "max-age=1",
    "www-authenticate": "Bearer",
    "location": "https://elsewhere.example",
    "x-anything": "else",
}


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_provider_says_of_the_account_stays_here(stand, gateway, protocol, api, status):
    headers = [*KEPT_FROM_CALLERS.items(), ("set-cookie", "second=2"), ("retry-after-ms", "7")]
    behaviour = {"headers": headers, "trailers": [("set-cookie", "late=1")]}
    behaviour |= {"status": status} if status != 200 else {}
    stand.provider.script(behaviour, times=1)
    answer = request(stand.workload(gateway, protocol=protocol), api, "account")
    assert answer.status == status
    arrived = {name: answer.header(name) for name in KEPT_FROM_CALLERS}
    # `server` is Envoy's own.
    assert {name for name, value in arrived.items() if value} <= {"server"}
    assert answer.header("server") in (None, "envoy")
    assert answer.header("retry-after-ms") == "7"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_trailer_of_a_provider_comes_down(stand, gateway, protocol):
    trailers = {"trailers": [("set-cookie", "late=1"), ("x-usage", "7")]}
    stand.provider.script(trailers, times=1)
    caller = stand.workload(gateway, protocol=protocol)
    with caller.open_chat("trailers " + cue(output=2)) as exchange:
        assert list(exchange.events())[-1] == "[DONE]"
        assert getattr(exchange, "trailers", []) == []
