"""The stand itself, with the empty filter in the plugin's place: what Envoy does before us."""

import json
import ssl

import pytest

from support import envoy, paths
from support.caller import Caller, Reset
from support.identity import Issuer, self_signed
from support.provider import cue
from support.stand import BOT


@pytest.fixture(scope="module")
def gateway(stand):
    return stand.envoy(module=paths.empty_filter(), edit=stand.with_provider_keys, name="empty")


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_workload_reaches_both_providers_over_tls(stand, gateway, protocol):
    caller = stand.workload(gateway, protocol=protocol)
    answer = caller.chat(f"both providers {protocol} openai")
    assert answer.status == 200
    assert answer.json()["usage"]["completion_tokens"] == 16
    received = stand.provider.request(f"both providers {protocol} openai")
    assert (received.sni, received.path) == ("api.openai.com", "/v1/chat/completions")

    answer = caller.messages(f"both providers {protocol} anthropic")
    assert answer.json()["usage"]["output_tokens"] == 16
    received = stand.provider.request(f"both providers {protocol} anthropic")
    assert (received.sni, received.path) == ("api.anthropic.com", "/v1/messages")


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_stream_arrives_event_by_event(stand, gateway, protocol):
    text = f"event by event {protocol} {cue(output=5)}"
    with stand.workload(gateway, protocol=protocol).open_chat(text) as exchange:
        events = list(exchange.events())
    assert events[-1] == "[DONE]"
    assert len([e for e in events[:-1] if json.loads(e)["choices"][0]["delta"].get("content")]) == 5


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_caller_who_hangs_up_is_seen_by_the_provider(stand, gateway, protocol):
    text = f"hangs up {protocol} {cue(end='hang', at=3)}"
    with stand.workload(gateway, protocol=protocol).open_chat(text) as exchange:
        next(exchange.events())
        exchange.hang_up()
        received = stand.provider.request(f"hangs up {protocol}", ended=True)
    assert received.ended == "hung-up"
    assert received.spent["output"] == 2


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_reset_midway_is_seen_by_the_caller(stand, gateway, protocol):
    text = f"reset midway {cue(end='reset', at=3, pace_ms=5)}"
    answer = stand.workload(gateway, protocol=protocol).chat(text, stream=True)
    assert not answer.complete
    assert len(answer.events()) <= 3


def test_a_reset_before_the_headers_is_a_503(stand, gateway):
    assert stand.workload(gateway).chat(cue(end="reset")).status == 503


def test_request_trailers_reach_the_provider_through_plain_envoy(stand, gateway):
    caller = stand.workload(gateway, protocol="h2")
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"with trailers"}]}'
    trailers = [("x-late", "value")]
    caller.request("POST", "/openai/v1/chat/completions", body=body, trailers=trailers)
    assert ("x-late", "value") in stand.provider.request("with trailers").trailers


def test_a_forged_certificate_gets_no_connection(stand, gateway):
    forged = self_signed("forged", stand.directory / "tls", uri=BOT)
    with pytest.raises((ssl.SSLError, Reset, OSError)):
        Caller(gateway.port("mtls"), stand.servers.ca, certificate=forged).chat("forged")
    assert stand.provider.requests("forged") == []


def test_a_certificate_of_another_trust_domain_gets_no_connection(stand, gateway):
    stranger = stand.workload(gateway, spiffe_id="spiffe://elsewhere.example/ns/support/sa/bot")
    with pytest.raises((ssl.SSLError, Reset, OSError)):
        stranger.chat("stranger")


def test_no_certificate_gets_no_connection(stand, gateway):
    with pytest.raises((ssl.SSLError, Reset, OSError)):
        Caller(gateway.port("mtls"), stand.servers.ca).chat("nobody")


def test_headers_that_pose_as_envoy_are_gone_before_any_filter(stand, gateway):
    forged = [("x-geo-country", "DE"), ("x-envoy-retry-on", "5xx"), ("X-Forwarded-For", "10.0.0.1")]
    text = f"poses as envoy {cue(status=500)}"
    stand.workload(gateway).chat(text, headers=[*forged, ("x-envoy-max-retries", "5")])
    received = stand.provider.request("poses as envoy")  # once: not retried
    names = {name for name, _ in received.headers}
    assert "x-geo-country" not in names
    assert "x-envoy-retry-on" not in names and "x-envoy-max-retries" not in names
    assert not {name for name in names if name.startswith("x-forwarded-")}


def test_a_callers_request_id_is_replaced(stand, gateway):
    answer = stand.workload(gateway).chat("request id", headers=[("x-request-id", "sk-hidden")])
    sent = stand.provider.request("request id").header("x-request-id")
    assert sent == gateway.line(answer)["request_id"] != "sk-hidden"


def test_the_access_log_has_a_line_without_the_query(stand, gateway):
    path = "/openai/v1/chat/completions?key=sk-in-the-query"
    answer = stand.workload(gateway).chat("query", path=path)
    line = gateway.line(answer)
    assert (line["listener"], line["route"], line["status"]) == ("mtls", "openai", 200)
    assert line["record"] == {}
    assert "sk-in-the-query" not in gateway.access_log.read_text()


SLOTS = ["authorization", "x-api-key", "api-key", "x-goog-api-key"]


@pytest.fixture(scope="module")
def slots(stand):
    """A gateway whose access log says what jwt_authn left for the plugin."""

    def edit(configuration):
        stand.with_provider_keys(configuration)
        fields = envoy.http_managers(configuration)[0]["access_log"][0]["typed_config"]
        metadata = "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"
        where = {"time": "%START_TIME%", "source": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"}
        fields["log_format"] = {"json_format": where | {"jwt": metadata}}

    return stand.envoy(module=paths.empty_filter(), edit=edit, name="slots")


def left_by_jwt_authn(stand, slots, headers) -> dict:
    caller = Caller(slots.port("jwt"), stand.servers.ca)
    answer = caller.chat("slots", headers=headers)
    assert answer.status == 200, "jwt_authn refused what is the plugin's to refuse"
    return slots.line(answer)["jwt"] or {}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_good_token_is_found_in_each_slot(stand, slots, slot):
    token = stand.issuer.mint("support-bot")
    value = f"Bearer {token}" if slot == "authorization" else token
    left = left_by_jwt_authn(stand, slots, [(slot, value)])
    assert left[slot]["sub"] == "support-bot"
    assert set(left) == {slot}


def test_a_leftover_key_in_another_slot_does_no_harm(stand, slots):
    token = stand.issuer.mint("support-bot")
    headers = [("authorization", f"Bearer {token}"), ("x-api-key", "sk-ant-leftover")]
    assert left_by_jwt_authn(stand, slots, headers)["authorization"]["sub"] == "support-bot"
    headers = [("authorization", "Bearer sk-leftover"), ("x-api-key", token)]
    left = left_by_jwt_authn(stand, slots, headers)
    assert left["x-api-key"]["sub"] == "support-bot"
    assert "sub" not in left.get("authorization", {})


def test_of_two_good_tokens_the_first_slot_decides(stand, slots):
    headers = [
        ("x-api-key", stand.issuer.mint("second")),
        ("authorization", f"Bearer {stand.issuer.mint('first')}"),
    ]
    left = left_by_jwt_authn(stand, slots, headers)
    assert left["authorization"]["sub"] == "first"
    assert "x-api-key" not in left


@pytest.mark.parametrize(
    "bad",
    [
        "expired",
        "without an expiry",
        "not yet valid",
        "of another audience",
        "of another issuer",
        "signed by another",
        "unsigned",
        "signed with the public key",
        "altered",
        "no token",
    ],
)
def test_a_bad_token_leaves_why_and_no_payload(stand, slots, bad):
    issuer = stand.issuer
    token = {
        "expired": lambda: issuer.mint("support-bot", expires_in=-60),
        "without an expiry": lambda: issuer.mint("support-bot", expires_in=None),
        "not yet valid": lambda: issuer.mint("support-bot", nbf=4_000_000_000),
        "of another audience": lambda: issuer.mint("support-bot", aud="elsewhere"),
        "of another issuer": lambda: Issuer("https://elsewhere.example").mint("support-bot"),
        "signed by another": lambda: issuer.signed_by_another("support-bot"),
        "unsigned": lambda: issuer.unsigned("support-bot"),
        "signed with the public key": lambda: issuer.signed_with_public_key("support-bot"),
        "altered": lambda: issuer.altered("support-bot", to="root"),
        "no token": lambda: "sk-proj-just-a-key",
    }[bad]()
    left = left_by_jwt_authn(stand, slots, [("authorization", f"Bearer {token}")])
    assert "authorization" not in left
    assert left["authorization_failed"]["message"]
