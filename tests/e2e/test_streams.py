"""A stream passes as the provider wrote it, counted while it passes, and ends when it must."""

import json
import time

import pytest

from support.caller import Caller, Reset
from support.provider import cue

PROTOCOLS = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])


def from_the_provider(stand, received) -> bytes:
    """What the provider streams for the very request that it received."""
    if received.path == "/v1/messages":
        direct = Caller(stand.provider.plain, token=stand.anthropic_key, slot="x-api-key")
    else:
        direct = Caller(stand.provider.plain, token=stand.openai_key)
    return direct.request("POST", received.path, body=received.body).body


def without_usage_event(stream: bytes) -> bytes:
    events = stream.split(b"\n\n")
    kept = [event for event in events if b'"choices":[]' not in event]
    assert len(kept) == len(events) - 1
    return b"\n\n".join(kept)


def charged(record: dict) -> tuple[int, int]:
    return record["almoner.charged.input_tokens"], record["almoner.charged.output_tokens"]


# Pieces of every size: events split within keys, numbers, characters of several bytes, line ends.
PIECES = pytest.mark.parametrize(
    ("protocol", "chunk"),
    [("http/1.1", None), ("h2", None), ("h2", 1), ("http/1.1", 7), ("h2", 300), ("h2", 100_000)],
)


@PIECES
@pytest.mark.parametrize(
    "options",
    [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}],
    ids=["says nothing", "says null", "says no"],
)
def test_who_did_not_ask_for_usage_gets_the_stream_without_it(
    stand, gateway, new_caller, protocol, chunk, options
):
    caller = new_caller(protocol=protocol)
    cues = {"chunk": chunk} if chunk else {}
    answer = caller.chat(f"{caller.subject} {cue(output=9, **cues)}", stream=True, **options)

    received = stand.provider.request(caller.subject)
    assert received.json()["stream_options"] == {"include_usage": True}
    sent = from_the_provider(stand, received)
    assert answer.complete
    assert answer.body == without_usage_event(sent)
    assert answer.events()[-1] == "[DONE]"
    record = gateway.record(answer)
    assert charged(record) == (received.reported["input"], 9)
    assert record["almoner.usage.completeness"] == "complete"


@PIECES
def test_who_asked_for_usage_gets_the_stream_as_it_is(stand, gateway, new_caller, protocol, chunk):
    caller = new_caller(protocol=protocol)
    cues = {"chunk": chunk} if chunk else {}
    asking = {"stream": True, "stream_options": {"include_usage": True}}
    answer = caller.chat(f"{caller.subject} {cue(output=9, **cues)}", **asking)

    received = stand.provider.request(caller.subject)
    assert answer.body == from_the_provider(stand, received)
    usage = json.loads(answer.events()[-2])["usage"]
    assert charged(gateway.record(answer)) == (usage["prompt_tokens"], usage["completion_tokens"])


@PIECES
def test_a_stream_of_anthropic_passes_as_it_is(stand, gateway, new_caller, protocol, chunk):
    caller = new_caller(protocol=protocol)
    cues = {"chunk": chunk} if chunk else {}
    text = f"{caller.subject} {cue(output=9, input=21, **cues)}"
    answer = caller.messages(text, stream=True)
    received = stand.provider.request(caller.subject)
    assert "stream_options" not in received.json()
    assert answer.body == from_the_provider(stand, received)
    assert charged(gateway.record(answer)) == (21, 9)


@PROTOCOLS
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_each_event_arrives_before_the_next_is_written(stand, new_caller, protocol, api):
    """The provider falls silent after some events: who waits for more would wait for ever."""
    caller = new_caller(protocol=protocol)
    text = f"{caller.subject} {cue(end='hang', at=6)}"
    if api == "openai":
        live = caller.open_chat(text)
    else:
        live = caller.open_messages(text)
    with live as exchange:
        events = exchange.events()
        seen = [next(events) for _ in range(6)]
        assert len(seen) == 6
        exchange.hang_up()
        received = stand.provider.request(caller.subject, ended=True)
    assert received.ended == "hung-up", "the provider goes on for nobody"


@PROTOCOLS
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_caller_who_hangs_up_midway_pays_for_what_was_written(
    stand, gateway, new_caller, protocol, api
):
    caller = new_caller(protocol=protocol)
    before = gateway.counters()
    text = f"{caller.subject} {cue(end='hang', at=12)}"
    open_stream = {"openai": caller.open_chat, "anthropic": caller.open_messages}[api]
    with open_stream(text) as exchange:
        events = exchange.events()
        for _ in range(12):
            next(events)
        exchange.hang_up()
    record = gateway.record(exchange)
    assert (record["almoner.outcome"], record["almoner.ended"]) == ("served", "caller_gone")
    marked = {"openai": "estimated", "anthropic": "partial"}[api]
    assert record["almoner.usage.completeness"] == marked
    read, written = charged(record)
    received = stand.provider.request(caller.subject, ended=True)
    assert read > 0
    assert written >= received.spent["output"] > 5
    new = gateway.counters() - before
    tokens = f"almoner_tokens;provider={api};policy=free;kind=output;result={marked}"
    assert new[tokens] == written


@PROTOCOLS
def test_a_stream_beyond_its_longest_duration_is_cut_and_settled(
    stand, gateway, new_caller, protocol
):
    caller = new_caller("brief", protocol=protocol)  # a second
    before = gateway.counters()
    begin = time.monotonic()
    # It goes on for a minute.
    with caller.open_chat(f"{caller.subject} {cue(output=3000, pace_ms=20)}") as exchange:
        with pytest.raises(Reset):
            for _ in exchange.events():
                assert time.monotonic() < begin + 10
    assert stand.provider.request(caller.subject, ended=True).ended == "hung-up"
    record = gateway.record(exchange)
    assert (record["error.type"], record["almoner.ended"]) == ("stream_too_long", "cut")
    assert record["almoner.usage.completeness"] == "estimated"
    assert record["almoner.charged.output_tokens"] >= 10
    labels = "provider=openai;policy=brief;outcome=refused;reason=stream_too_long"
    assert (gateway.counters() - before)[f"almoner_exchanges;{labels}"] == 1


@PROTOCOLS
def test_a_provider_that_is_silent_for_too_long_is_a_504_and_settled(
    stand, gateway, new_caller, protocol
):
    caller = new_caller("brief", protocol=protocol)
    answer = caller.chat(f"{caller.subject} {cue(end='hang')}")
    assert (answer.status, answer.header("almoner-reason")) == (504, "stream_too_long")
    assert stand.provider.request(caller.subject, ended=True).ended == "hung-up"
    record = gateway.record(answer)
    assert (record["almoner.ended"], record["almoner.usage.completeness"]) == ("cut", "estimated")
    assert charged(record)[1] == record["almoner.reserved.output_tokens"] > 0


def test_a_stream_that_is_idle_is_cut_too(gateway, new_caller):
    caller = new_caller("brief", protocol="h2")
    with caller.open_chat(f"{caller.subject} {cue(end='hang', at=3)}") as exchange:
        with pytest.raises(Reset):
            list(exchange.events())
    assert gateway.record(exchange)["almoner.ended"] == "cut"


def test_many_streams_at_once_are_counted_each_for_itself(gateway, new_caller):
    caller = new_caller(protocol="h2")
    opened = []
    for length in range(20, 40):
        text = f"{caller.subject} {cue(output=length, pace_ms=1)}"
        opened.append((length, caller.open_chat(text)))
    for length, exchange in opened:
        with exchange:
            assert exchange.answer().complete
        assert charged(gateway.record(exchange))[1] == length
