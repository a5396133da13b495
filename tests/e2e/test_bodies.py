"""A request's body is held until it is whole, judged, and goes up as it came, but for our edits."""

import dataclasses
import http.client
import json
import time

import pytest

from support.caller import CHAT
from support.process import eventually
from support.provider import cue

# As the gateway of these tests has it.
BODY_LIMIT = 8 << 20
LEGACY = "/legacy/v1/chat/completions"
PROTOCOLS = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
# The cluster of /legacy speaks HTTP/1.1 alone, that of /openai what ALPN gives.
UPSTREAMS = pytest.mark.parametrize(
    ("path", "upstream"), [(CHAT, "HTTP/2.0"), (LEGACY, "HTTP/1.1")], ids=["to h2", "to http/1.1"]
)


def chat(text: str, *, size: int = 0, **fields) -> bytes:
    """A body; with `size`, of exactly that many bytes."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]} | fields
    written = json.dumps(body).encode()
    padding = max(0, size - len(written))
    return written.replace(text.encode(), text.encode() + b"x" * padding)


# What the policy would add, so that nothing is left to edit.
COMPLETE = {"max_tokens": 16, "store": False}


@PROTOCOLS
@UPSTREAMS
@pytest.mark.parametrize("fields", [{}, COMPLETE], ids=["edited", "as it came"])
@pytest.mark.parametrize("announced", [True, False], ids=["with a length", "without"])
def test_a_body_arrives_whole(stand, new_caller, protocol, path, upstream, fields, announced):
    caller = new_caller(protocol=protocol)
    body = chat(f"{caller.subject} 施し🪙", **fields)
    if announced:
        length = [("content-length", str(len(body)))] if protocol == "h2" else []
        answer = caller.request("POST", path, headers=length, body=body)
    else:
        headers = [("content-type", "application/json")]
        with caller.open("POST", path, headers=headers, finish=False) as exchange:
            exchange.send(body)
            exchange.finish()
            answer = exchange.answer()
    assert answer.status == 200
    received = stand.provider.request(caller.subject)
    assert received.protocol == upstream
    if fields:
        assert received.body == body
    else:
        added = {"store": False, "max_completion_tokens": 4096}
        assert received.json() == json.loads(body) | added
    assert received.header("content-length") in (None, str(len(received.body)))


@PROTOCOLS
def test_a_body_in_many_slow_pieces_is_held_until_it_is_whole(stand, new_caller, protocol):
    caller = new_caller(protocol=protocol)
    body = chat(caller.subject, **COMPLETE)
    headers = [("content-type", "application/json")]
    with caller.open("POST", CHAT, headers=headers, finish=False) as exchange:
        for at in range(0, len(body), 8):
            exchange.send(body[at : at + 8])
            time.sleep(0.01)
        assert stand.provider.requests(caller.subject) == []
        exchange.finish()
        assert exchange.answer().status == 200
    assert stand.provider.request(caller.subject).body == body


@PROTOCOLS
def test_a_body_as_large_as_the_limit_passes(stand, new_caller, protocol):
    caller = new_caller(protocol=protocol)
    body = chat(caller.subject, size=BODY_LIMIT)
    assert len(body) == BODY_LIMIT
    assert caller.request("POST", CHAT, body=body).status == 200
    received = stand.provider.request(caller.subject)
    assert received.json()["messages"] == json.loads(body)["messages"]
    stand.provider.forget()  # megabytes that each later look would fetch


@PROTOCOLS
@pytest.mark.parametrize("announced", [False, True], ids=["as it grows", "when announced"])
def test_a_larger_body_is_a_413(stand, gateway, new_caller, protocol, announced):
    caller = new_caller(protocol=protocol)
    headers = [("content-type", "application/json")]
    if announced:
        headers.append(("content-length", str(BODY_LIMIT + 1)))
    with caller.open("POST", CHAT, headers=headers, finish=False) as exchange:
        if not announced:
            exchange.send(chat(caller.subject, size=BODY_LIMIT + 1))
        answer = exchange.answer()
    assert (answer.status, answer.header("almoner-reason")) == (413, "body_too_large")
    assert answer.json()["error"]["code"] == "body_too_large"
    assert gateway.record(answer)["error.type"] == "body_too_large"
    assert stand.provider.requests(caller.subject) == []


@UPSTREAMS
def test_two_requests_of_a_connection_stay_two(stand, new_caller, path, upstream):
    """The first grows by our edits: with its old length its end would be read as a request."""
    caller = new_caller()
    smuggled = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}"
    bodies = [chat(f"{caller.subject} {smuggled}"), chat(f"{caller.subject} second")]
    head = "POST {path} HTTP/1.1\r\nhost: a\r\n{close}content-type: application/json\r\n"
    requests = b""
    for body, close in zip(bodies, ["", "connection: close\r\n"]):
        start = head.format(path=path, close=close) + f"content-length: {len(body)}\r\n\r\n"
        requests += start.encode() + body
    with caller.connect(alpn="http/1.1") as connection:
        connection.sendall(requests)
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    received = stand.provider.requests(caller.subject)
    assert len(received) == 2
    for each, body in zip(received, bodies):
        assert each.json()["messages"] == json.loads(body)["messages"]
        assert each.protocol == upstream
        assert each.header("content-length") == str(len(each.body))


@UPSTREAMS
def test_a_connection_serves_one_exchange_after_another(stand, new_caller, path, upstream):
    caller = new_caller()
    connection = http.client.HTTPConnection("almoner.prod.example")
    connection.sock = caller.connect(alpn="http/1.1")
    headers = {"content-type": "application/json"}
    sent = [
        chat(f"{caller.subject} {'x' * 50 * number} {cue(output=3)}", stream=number % 2 == 1)
        for number in range(6)
    ]
    for body in sent:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
    received = stand.provider.requests(caller.subject)
    assert {each.protocol for each in received} == {upstream}
    assert [each.json()["messages"] for each in received] == [
        json.loads(body)["messages"] for body in sent
    ]


def test_a_caller_may_wait_for_100_continue(stand, new_caller):
    caller = new_caller()
    body = chat(caller.subject)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with caller.connect(alpn="http/1.1") as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert stand.provider.request(caller.subject).header("expect") is None


@UPSTREAMS
def test_trailers_end_a_body_and_stay_behind(stand, new_caller, path, upstream):
    caller = new_caller(protocol="h2")
    body = chat(caller.subject)
    trailers = [("x-late", "sk-in-a-trailer")]
    assert caller.request("POST", path, body=body, trailers=trailers).status == 200
    received = stand.provider.request(caller.subject)
    assert received.protocol == upstream
    assert received.json()["messages"] == json.loads(body)["messages"]
    assert received.trailers == []


def test_trailers_without_a_body_are_a_request_without_a_body(new_caller):
    caller = new_caller(protocol="h2")
    headers = [("content-type", "application/json")]
    answer = caller.request("POST", CHAT, headers=headers, trailers=[("x-late", "value")])
    assert (answer.status, answer.header("almoner-reason")) == (400, "body_missing")


@PROTOCOLS
def test_a_request_that_needs_no_body_is_served_without_one(new_caller, protocol):
    answer = new_caller(protocol=protocol).request("GET", "/openai/v1/models")
    assert answer.status == 200
    assert answer.json()["object"] == "list"


@PROTOCOLS
def test_a_hopeless_request_is_refused_before_its_body(new_caller, protocol):
    caller = new_caller(protocol=protocol)
    headers = [("content-type", "application/json")]
    with caller.open("POST", "/openai/v1/files", headers=headers, finish=False) as exchange:
        exchange.await_head()
        assert exchange.status in (403, 415)


@PROTOCOLS
@pytest.mark.parametrize(
    ("listener", "sent"),
    # Without hold mode, half a body that never comes to the plugin is what tells.
    [("mtls", b""), ("mtls", b'{"model":'), ("unheld", b"")],
    ids=["at once", "midway", "without hold mode"],
)
def test_a_caller_who_falls_silent_is_a_408(gateway, new_caller, protocol, listener, sent):
    caller = dataclasses.replace(new_caller(protocol=protocol), port=gateway.port(listener))
    before = gateway.counters()
    begin = time.monotonic()
    headers = [("content-type", "application/json")]
    with caller.open("POST", CHAT, headers=headers, body=sent, finish=False) as exchange:
        answer = exchange.answer()
    assert 0.9 < time.monotonic() - begin < 5  # a second
    assert (answer.status, answer.header("almoner-reason")) == (408, "body_timeout")
    assert gateway.record(answer)["error.type"] == "body_timeout"
    new = gateway.counters() - before
    labels = "provider=openai;policy=free;outcome=refused;reason=body_timeout"
    assert new[f"almoner_exchanges;{labels}"] == 1
    assert not any("almoner_critical" in name for name in new)


@PROTOCOLS
def test_without_hold_mode_a_request_is_a_500_that_says_so(stand, gateway, new_caller, protocol):
    caller = dataclasses.replace(new_caller(protocol=protocol), port=gateway.port("unheld"))
    before = gateway.counters()
    begin = time.monotonic()
    answer = caller.chat(caller.subject)
    assert time.monotonic() - begin < 5
    assert (answer.status, answer.header("almoner-reason")) == (500, "hold_mode_missing")
    assert "allow_on_headers_stop_iteration" in answer.json()["error"]["message"]
    assert stand.provider.requests(caller.subject) == []
    record = gateway.record(answer)
    assert (record["error.type"], record["almoner.fault"]) == ("hold_mode_missing", "operator")
    assert (gateway.counters() - before)["almoner_critical;reason=hold_mode_missing"] == 1
    told = "[critical][wasm]"
    eventually(
        lambda: any(
            told in line and "allow_on_headers_stop_iteration" in line
            for line in gateway.log.read_text().splitlines()
        ),
        what="a critical line in Envoy's log",
    )
