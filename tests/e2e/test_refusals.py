"""Each reason for a refusal: the caller hears it in the provider's shape, the record has it, and
not a byte of the request went anywhere.

To add a reason, add a line to REFUSALS: the policy document is below, and the subject
`jwt:..|NAME` falls under the policy NAME.
"""

import dataclasses
import datetime
import json
import re
from collections.abc import Callable

import pytest

from support import envoy, paths
from support.broker import Reply, ScriptedBroker
from support.caller import CHAT, MESSAGES, Answer, Caller


def document(shipped: dict) -> dict:
    """The shipped policy document, with a policy for each thing that can be refused."""
    hour = datetime.datetime.now(datetime.UTC).hour
    budget = {"unit": "requests", "limit": 1, "window": "1h", "per": "subject"}
    openai = shipped["providers"]["openai"]
    policies = {
        "usual": {},
        "by-address": {"conditions": {"cidrs": ["10.0.0.0/8"]}},
        "by-claim": {"conditions": {"claims": {"env": "prod"}}},
        "by-country": {"conditions": {"countries": ["DE"]}},
        "by-hour": {"conditions": {"utc_hours": [(hour + 2) % 24, (hour + 3) % 24]}},
        "one-request": {"budgets": ["one-request"]},
        "few-tokens": {"budgets": ["few-tokens"]},
    }
    usual = {
        "allow": [
            {
                "providers": ["openai"],
                "endpoints": ["chat", "responses", "models"],
                "models": ["gpt-4o-mini"],
            },
            {"providers": ["anthropic"], "endpoints": ["messages"], "models": ["claude-*"]},
        ],
        "max_output_tokens": 4096,
    }
    return shipped | {
        "providers": shipped["providers"]
        | {
            "by-authority": openai | {"match": {"authority": "api.by-host.example"}},
            "not-allowed": openai | {"match": {"path_prefix": "/not-allowed"}},
            "astray": openai | {"match": {"path_prefix": "/astray"}},
        },
        "budgets": {"one-request": budget, "few-tokens": budget | {"unit": "tokens", "limit": 50}},
        "policies": [
            usual
            | {"name": name, "subjects": [f"jwt:https://issuer.prod.example|{name}*"]}
            | policy
            for name, policy in policies.items()
        ],
        "network": {"country_header": "x-geo-country"},
        "limits": {"max_body_bytes": 50_000, "body_timeout": "1s"},
    }


def strict(configuration: dict):
    envoy.set_policy(configuration, document(envoy.policy(configuration)))
    routes = envoy.http_managers(configuration)[0]["route_config"]["virtual_hosts"][0]["routes"]
    for prefix, cluster in (("/not-allowed/", "openai"), ("/astray/", "anthropic")):
        route = {"cluster": cluster, "prefix_rewrite": "/"}
        routes.append({"name": prefix[1:-1], "match": {"prefix": prefix}, "route": route})
    listeners = configuration["static_resources"]["listeners"]
    # The listener by which callers come; the other is spared here.
    chain = listeners[1]["filter_chains"][0]["filters"][0]["typed_config"]
    chain["route_config"] = envoy.http_managers(configuration)[0]["route_config"]


@pytest.fixture(scope="module")
def broker(stand):
    """Answers each subject as its name says."""

    def respond(form):
        subject = broker.subject(form)
        match subject.rsplit("|", 1)[1]:
            case "usual-refused":
                return broker.refusal()
            case "usual-garbage":
                return Reply(body=b"{")
            case "usual-broken":
                return Reply(status=500)
            case "usual-mistaken":
                return broker.lease(form, subject="jwt:https://issuer.prod.example|other")
            case _:
                return broker.lease(form)

    broker = ScriptedBroker(stand)
    broker.respond = respond
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def gateway(stand, broker):
    return stand.envoy(edit=strict, name="refusals", broker=broker.port)


Send = Callable[[Caller], Answer]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What is sent, by the subject `by`, and the status that answers it."""

    status: int
    send: Send
    by: str | None = "usual"
    protocols: tuple[str, ...] = ("http/1.1", "h2")
    """Those over which Envoy lets it come to the plugin."""
    served_before: int = 0
    """How many of the requests that `send` makes are served, before the last is refused."""


def chat(path=CHAT, headers=(), text="no", **fields) -> Send:
    return lambda caller: caller.chat(text, path=path, headers=headers, **fields)


def messages(headers=(), **fields) -> Send:
    return lambda caller: caller.messages("no", headers=headers, **fields)


def responses(**fields) -> Send:
    body = json.dumps({"model": "gpt-4o-mini", "input": "no"} | fields).encode()
    return lambda caller: caller.request("POST", "/openai/v1/responses", body=body)


def body(content: bytes, path=CHAT, headers=()) -> Send:
    headers = [*headers, ("content-type", "application/json")]
    return lambda caller: caller.request("POST", path, headers=headers, body=content)


def get(path: str, method="GET", **how) -> Send:
    return lambda caller: caller.request(method, path, **how)


def at(host: str, send: Send) -> Send:
    return lambda caller: send(dataclasses.replace(caller, host=host))


def half_a_body(caller: Caller) -> Answer:
    headers = [("content-type", "application/json")]
    with caller.open("POST", CHAT, headers=headers, body=b'{"model"', finish=False) as exchange:
        return exchange.answer()


def twice(send: Send) -> Send:
    def both(caller):
        assert send(caller).status == 200
        return send(caller)

    return both


OBJECT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"no"}]'

REFUSALS = {
    "ambiguous_provider": Refusal(400, at("api.by-host.example", chat())),
    "background_not_allowed": Refusal(403, responses(background=True)),
    "beta_not_allowed": Refusal(403, messages(headers=[("anthropic-beta", "files-api-2025-04")])),
    "body_missing": Refusal(400, body(b"")),
    "body_not_json": Refusal(400, body(OBJECT)),
    "body_not_object": Refusal(400, body(b"[]")),
    "body_not_utf8": Refusal(400, body(b'{"model":"\xff"}')),
    "body_timeout": Refusal(408, half_a_body),
    "body_too_deep": Refusal(400, body(OBJECT + b',"x":' + b"[" * 200 + b"]" * 200 + b"}")),
    "body_too_large": Refusal(413, body(OBJECT + b" " * 60_000 + b"}")),
    "body_unexpected": Refusal(400, get("/openai/v1/models", body=b"{}")),
    "broker_bad_answer": Refusal(503, chat(), by="usual-garbage"),
    "broker_refused": Refusal(403, messages(), by="usual-refused"),
    "broker_unavailable": Refusal(503, chat(), by="usual-broken"),
    "broker_wrong_subject": Refusal(503, messages(), by="usual-mistaken"),
    "budget_spent": Refusal(429, twice(chat()), by="one-request", served_before=1),
    "condition_address": Refusal(403, chat(), by="by-address"),
    "condition_claim": Refusal(403, chat(), by="by-claim"),
    "condition_country": Refusal(403, messages(headers=[("x-geo-country", "DE")]), by="by-country"),
    "condition_hour": Refusal(403, chat(), by="by-hour"),
    "content_encoding_unsupported": Refusal(415, chat(headers=[("content-encoding", "gzip")])),
    "content_type_unsupported": Refusal(415, chat(headers=[("content-type", "text/plain")])),
    "duplicate_key": Refusal(400, body(OBJECT + b',"model":"o3"}')),
    "endpoint_not_allowed": Refusal(403, body(OBJECT + b"}", path="/openai/v1/embeddings")),
    "field_invalid": Refusal(400, chat(n="two")),
    "forbidden_endpoint": Refusal(403, body(b"{}", path="/openai/v1/realtime/client_secrets")),
    "header_invalid": Refusal(400, messages(headers=[("anthropic-beta", "files api")])),
    "key_not_exact": Refusal(400, body(OBJECT.replace(b"model", b"Model") + b"}")),
    "max_output_tokens_too_large": Refusal(400, messages(max_tokens=100_000)),
    "method_unsupported": Refusal(400, get(CHAT, method="brew"), protocols=("h2",)),
    "model_missing": Refusal(400, body(b'{"messages":[]}')),
    "model_not_allowed": Refusal(403, messages(model="gpt-4o")),
    "no_identity": Refusal(401, messages(), by=None),
    "no_policy": Refusal(403, messages(), by="somebody"),
    "path_not_normal": Refusal(400, chat(path="/openai/v1/Chat/completions")),
    "provider_not_allowed": Refusal(403, chat(path="/not-allowed/v1/chat/completions")),
    "provider_state": Refusal(403, responses(previous_response_id="resp_1")),
    "secret_in_body": Refusal(400, messages(mcp_servers=[{"authorization_token": "x"}])),
    "service_tier_not_allowed": Refusal(403, chat(service_tier="priority")),
    "speed_not_allowed": Refusal(403, messages(speed="fast")),
    "too_many_keys": Refusal(400, chat(**{f"x{n}": 0 for n in range(1100)})),
    "tool_not_allowed": Refusal(403, messages(tools=[{"type": "web_search_20250305"}])),
    "unknown_endpoint": Refusal(403, body(b"{}", path="/openai/v1/anything")),
    "unknown_provider": Refusal(403, body(OBJECT + b"}", path="/elsewhere/v1/chat/completions")),
    "unmetered_endpoint": Refusal(403, body(OBJECT + b"}", path="/openai/v1/images/generations")),
    "wrong_cluster": Refusal(502, chat(path="/astray/v1/chat/completions")),
}

# What is shown elsewhere, or what no caller can provoke.
ELSEWHERE = {
    # test_identity.py
    *("certificate_without_spiffe_id", "certificate_wrong_trust_domain", "subject_malformed"),
    *("token_bad_audience", "token_bad_issuer", "token_bad_signature", "token_expired"),
    *("token_malformed", "token_not_yet_valid"),
    # The request went up: the tests of faults.
    *("provider_bad_credential", "stream_too_long"),
    # Other configurations: the tests of faults and of budgets.
    *("hold_mode_missing", "identity_incomplete", "budget_table_full", "leases_full"),
    # Envoy itself is before us.
    *("framing_ambiguous", "upgrade_unsupported"),
    # Only where Envoy, shared data or an issuer's keys fail.
    *("host_failure", "budget_contended", "budget_unreadable", "token_unverified"),
    # Nothing in this version decides so.
    *("no_price", "subject_revoked"),
}


def test_every_reason_is_shown_here_or_elsewhere():
    core = paths.REPOSITORY / "filter/core/src"
    sources = [core / file for file in ("denial.rs", "refusal.rs", "lease/mod.rs")]
    reasons = set()
    for source in sources:
        for function in re.findall(r"fn reason\(self\).*?\n    }", source.read_text(), re.S):
            reasons |= set(re.findall(r'=> "(\w+)"', function))
    assert reasons == set(REFUSALS) | ELSEWHERE
    assert not set(REFUSALS) & ELSEWHERE


def caller(stand, gateway, by, protocol) -> Caller:
    if by is None:
        return Caller(gateway.port("jwt"), stand.servers.ca, protocol=protocol)
    suffix = protocol.replace("/", "") if by == "one-request" else ""
    return stand.token_holder(gateway, token=stand.issuer.mint(by + suffix), protocol=protocol)


def sent_up(gateway) -> int:
    """Requests that Envoy sent to any provider."""
    stats = gateway.stats("cluster.(openai|anthropic).upstream_rq_total")
    assert len(stats) == 2
    return sum(stats.values())


@pytest.mark.parametrize(
    ("reason", "protocol"),
    [(reason, protocol) for reason, refusal in REFUSALS.items() for protocol in refusal.protocols],
)
def test_a_refused_request_goes_nowhere_and_says_why(stand, gateway, reason, protocol):
    refusal = REFUSALS[reason]
    stand.provider.forget()
    before = sent_up(gateway)
    answer = refusal.send(caller(stand, gateway, refusal.by, protocol))

    assert answer.header("almoner-reason") == reason, answer
    assert answer.status == refusal.status
    record = gateway.record(answer)
    assert_in_shape(answer, record.get("url.path", "").startswith(MESSAGES), reason)
    assert record["error.type"] == reason
    assert record["almoner.status"] == refusal.status
    assert record["almoner.outcome"] == "refused"
    assert not [name for name in record if name.startswith("almoner.charged")]
    # Its line is written, so it is over: what has not arrived never will.
    assert len(stand.provider.requests()) == refusal.served_before
    assert sent_up(gateway) - before == refusal.served_before
    waits = answer.header("retry-after")
    assert bool(waits) == (refusal.status in (429, 503))


def assert_in_shape(answer: Answer, anthropic: bool, reason: str):
    assert answer.header("content-type") == "application/json"
    error = answer.json()["error"]
    assert error["message"]
    if anthropic:
        assert answer.json()["type"] == "error"
        assert answer.json()["request_id"]
        assert set(error) == {"type", "message"}
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == reason


def test_a_request_that_no_waiting_would_help_is_told_not_to_come_back(stand, gateway):
    answer = caller(stand, gateway, "few-tokens", "http/1.1").chat("a" * 1000)
    assert (answer.status, answer.header("almoner-reason")) == (429, "budget_spent")
    assert answer.header("retry-after") is None
    assert answer.header("x-should-retry") == "false"


def test_refusals_are_counted_by_reason(stand, gateway):
    def count():
        name = "wasmcustom.almoner_exchanges;provider=openai;policy=usual;"
        name += "outcome=refused;reason=model_not_allowed"
        return gateway.stats(re.escape(name)).get(name, 0)

    before = count()
    answer = caller(stand, gateway, "usual", "http/1.1").chat("no", model="o3")
    gateway.line(answer)
    assert count() == before + 1
