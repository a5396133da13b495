"""Whatever the provider does, its answer is passed on or replaced as promised, and settled once."""

import json

import pytest

from support.caller import Caller
from support.provider import cue

KINDS = [
    pytest.param("openai", False, id="openai-json"),
    pytest.param("openai", True, id="openai-stream"),
    pytest.param("anthropic", False, id="anthropic-json"),
    pytest.param("anthropic", True, id="anthropic-stream"),
]
every_kind = pytest.mark.parametrize(("api", "stream"), KINDS)


def ask(caller, api: str, text: str, stream: bool = False):
    send = {"openai": caller.chat, "anthropic": caller.messages}[api]
    return send(text, **({"stream": True} if stream else {}))


def from_the_provider(stand, api: str, received):
    """What the provider answers to the very request that it received."""
    slot, key = {
        "openai": ("authorization", stand.openai_key),
        "anthropic": ("x-api-key", stand.anthropic_key),
    }[api]
    direct = Caller(stand.provider.plain, token=key, slot=slot)
    return direct.request(received.method, received.path, body=received.body)


def exchanges(api: str, outcome: str, reason: str = "none") -> str:
    return f"almoner_exchanges;provider={api};policy=free;outcome={outcome};reason={reason}"


def charged(record: dict) -> tuple[int, int]:
    return record["almoner.charged.input_tokens"], record["almoner.charged.output_tokens"]


@every_kind
def test_a_good_answer_is_charged_to_the_token(stand, gateway, new_caller, api, stream):
    caller = new_caller()
    before = gateway.counters()
    answer = ask(caller, api, f"{caller.subject} {cue(output=23, input=45)}", stream)
    # The caller of the gateway may set a lower limit than the cue asks for.
    reported = stand.provider.request(caller.subject).reported
    record = gateway.record(answer)
    assert answer.status == 200 and answer.complete
    assert charged(record) == (45, reported["output"])
    assert record["almoner.usage.completeness"] == "complete"
    new = gateway.counters() - before
    assert new[exchanges(api, "served")] == 1
    tokens = f"almoner_tokens;provider={api};policy=free;kind=input;result=complete"
    assert new[tokens] == 45


@every_kind
def test_a_credential_that_the_provider_refuses_is_dropped(
    gateway, broker, new_caller, api, stream
):
    caller = new_caller()
    assert ask(caller, api, "first", stream).status == 200
    before = gateway.counters()
    refused = ask(caller, api, cue(fail="bad-credential"), stream)

    assert (refused.status, refused.header("almoner-reason")) == (502, "provider_bad_credential")
    assert refused.header("content-type") == "application/json"
    assert b"key" not in refused.body, "the provider's text tells of its key"
    kind = {"openai": "server_error", "anthropic": "api_error"}[api]
    assert refused.json()["error"]["type"] == kind
    record = gateway.record(refused)
    assert (record["almoner.fault"], record["http.response.status_code"]) == ("provider", 401)
    assert record["almoner.usage.completeness"] == "failed"
    assert charged(record) == (0, 0)
    new = gateway.counters() - before
    assert new[exchanges(api, "refused", "provider_bad_credential")] == 1
    assert new[f"almoner_leases_dropped;provider={api}"] == 1

    assert ask(caller, api, "second", stream).status == 200
    assert len(broker.asked(caller.subject)) == 2
    # An account that is closed must not have the broker asked at each request.
    assert ask(caller, api, cue(fail="bad-credential"), stream).status == 502
    assert ask(caller, api, "third", stream).status == 200
    assert len(broker.asked(caller.subject)) == 2


@every_kind
@pytest.mark.parametrize(
    ("fail", "statuses"),
    [
        ("rate-limited", {429}),
        ("server", {500}),
        ("overloaded", {503, 529}),
        ("permission", {403}),
        ("bad-request", {400}),
    ],
)
def test_an_error_of_the_provider_passes_and_costs_no_tokens(
    stand, gateway, new_caller, api, stream, fail, statuses
):
    caller = new_caller()
    behaviour = {"fail": fail, "retry-after": 7, "headers": [["almoner-reason", "budget_spent"]]}
    stand.provider.script(behaviour, model=caller.subject)
    answer = ask(caller, api, caller.subject, stream)

    received = stand.provider.request(caller.subject)  # once: not retried
    assert answer.status in statuses
    assert answer.body == from_the_provider(stand, api, received).body
    assert answer.header("retry-after") == "7"
    assert answer.header("almoner-reason") is None, "it can't be told from ours"
    record = gateway.record(answer)
    assert record["almoner.outcome"] == "served"
    assert record["http.response.status_code"] == answer.status
    assert record["almoner.usage.completeness"] == "failed"
    assert charged(record) == (0, 0)


@every_kind
def test_a_provider_that_resets_before_its_answer_costs_what_was_reserved(
    stand, gateway, new_caller, api, stream
):
    caller = new_caller()
    before = gateway.counters()
    answer = ask(caller, api, f"{caller.subject} {cue(end='reset')}", stream)
    assert answer.status == 503
    stand.provider.request(caller.subject)  # once: it may have been worked on, so not retried
    record = gateway.record(answer)
    assert record["almoner.outcome"] == "unanswered"
    assert record["almoner.ended"] == "provider_reset"
    assert record["almoner.usage.completeness"] == "estimated"
    read, written = charged(record)
    assert read > 0
    assert written == record["almoner.reserved.output_tokens"] > 0
    assert (gateway.counters() - before)[exchanges(api, "unanswered")] == 1


def test_a_provider_that_nobody_reaches_costs_nothing(gateway, new_caller):
    before = gateway.counters()
    answer = new_caller().chat(path="/absent/v1/chat/completions")
    assert answer.status == 503
    record = gateway.record(answer)
    assert record["almoner.outcome"] == "unreached"
    assert "almoner.charged.input_tokens" not in record
    new = gateway.counters() - before
    assert new[exchanges("absent", "unreached")] == 1
    assert not any("almoner_tokens" in name for name in new)


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/legacy/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_an_answer_that_breaks_off_is_charged_by_estimate(stand, gateway, new_caller, path, stream):
    caller = new_caller(protocol="h2")
    # A stream in its sixth event; a JSON value in its middle.
    text = f"{caller.subject} {cue(end='reset', at=6 if stream else 1, pace_ms=5)}"
    answer = caller.chat(text, path=path, **({"stream": True} if stream else {}))
    assert (answer.status, answer.complete) == (200, False)
    record = gateway.record(answer)
    assert record["almoner.ended"] == "provider_reset"
    assert record["almoner.usage.completeness"] == "estimated"
    read, written = charged(record)
    assert read > 0 and written > 0
    assert stand.provider.request(caller.subject, ended=True).reported is None


def test_what_anthropic_reported_before_it_broke_off_is_charged(stand, gateway, new_caller):
    caller = new_caller(protocol="h2")
    text = f"{caller.subject} {cue(end='reset', at=8, input=77, pace_ms=5)}"
    answer = ask(caller, "anthropic", text, stream=True)
    assert not answer.complete
    record = gateway.record(answer)
    assert record["almoner.usage.completeness"] == "partial"
    read, written = charged(record)
    assert read == 77
    assert written >= stand.provider.request(caller.subject, ended=True).spent["output"]


UNREADABLE = {
    "without usage": {"usage": False},
    "compressed": {"gzip": True},
    "of another content type": {"content_type": "text/html"},
    "that is no JSON": {"garbage": "json"},
    "that is no text": {"garbage": "bytes"},
}


@every_kind
@pytest.mark.parametrize("behaviour", UNREADABLE)
def test_an_answer_that_does_not_tell_its_usage_passes_and_is_charged_by_estimate(
    stand, gateway, new_caller, api, stream, behaviour
):
    caller = new_caller()
    answer = ask(caller, api, f"{caller.subject} {cue(**UNREADABLE[behaviour])}", stream)
    received = stand.provider.request(caller.subject, ended=True)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == from_the_provider(stand, api, received).body
    record = gateway.record(answer)
    assert record["almoner.usage.completeness"] == "estimated"
    read, written = charged(record)
    assert read > 0
    assert written >= received.spent["output"]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_an_error_inside_a_stream_passes_and_what_was_written_is_charged(
    stand, gateway, new_caller, api
):
    caller = new_caller()
    text = f"{caller.subject} {cue(end='error', at=8, pace_ms=5)}"
    answer = ask(caller, api, text, stream=True)
    assert (answer.status, answer.complete) == (200, True)
    assert "error" in json.loads(answer.events()[-1])
    record = gateway.record(answer)
    assert record["almoner.usage.completeness"] == "failed"
    assert charged(record)[1] >= stand.provider.request(caller.subject).spent["output"] > 0


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_an_answer_with_trailers_is_settled_and_they_stay_behind(
    stand, gateway, new_caller, stream
):
    caller = new_caller(protocol="h2")
    trailers = [["openai-organization", "org-simulated"]]
    stand.provider.script({"trailers": trailers}, model=caller.subject)
    with caller.open_chat(caller.subject, stream=stream) as exchange:
        answer = exchange.answer()
        assert exchange.trailers == []
    assert answer.complete
    reported = stand.provider.request(caller.subject, ended=True).reported
    record = gateway.record(answer)
    assert charged(record) == (reported["input"], reported["output"])
    assert (record["almoner.usage.completeness"], record["almoner.ended"]) == ("complete",) * 2
