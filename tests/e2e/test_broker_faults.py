"""Whatever the broker does, a request goes up with a good lease or not at all."""

import concurrent.futures
import json
import time

import pytest

from support.broker import Reply
from support.process import eventually


def refused(new, reason: str) -> int:
    return new[f"almoner_exchanges;provider=openai;policy=free;outcome=refused;reason={reason}"]


def answers(**changes):
    """A good answer but for these fields."""
    return lambda broker: lambda form: broker.lease(form, **changes)


def says(*reply, **more):
    return lambda broker: lambda form: Reply(*reply, **more)


def garbled(broker):
    """Half of a good answer."""
    return lambda form: Reply(body=broker.lease(form).body[:-20])


def huge(broker):
    """A good answer, if one reads on for long enough."""
    return lambda form: Reply(body=b" " * 70_000 + broker.lease(form).body)


UNAVAILABLE, BAD_ANSWER = "broker_unavailable", "broker_bad_answer"
FAULTS = {
    "answers 500": (says(500, b"{}"), UNAVAILABLE),
    "answers 503": (says(503), UNAVAILABLE),
    "answers 429": (says(429), UNAVAILABLE),
    "closes the connection": (says(hang_up=True), UNAVAILABLE),
    "is slower than its timeout": (says(delay=0.8), UNAVAILABLE),
    "answers nothing": (says(200, b""), BAD_ANSWER),
    "answers another page": (says(200, b"<html>", content_type="text/html"), BAD_ANSWER),
    "answers half": (garbled, BAD_ANSWER),
    "answers endlessly": (huge, BAD_ANSWER),
    "redirects": (says(302, headers=[("location", "https://elsewhere.example/")]), BAD_ANSWER),
    "gives an expired lease": (answers(expires_in=0), BAD_ANSWER),
    "gives a lease for a day": (answers(expires_in=86_400), BAD_ANSWER),
    "gives a lease of negative life": (answers(expires_in=-1), BAD_ANSWER),
    "gives a lease without an end": (answers(expires_in=None), BAD_ANSWER),
    "gives a credential that splits headers": (answers(access_token="a\r\nx: b"), BAD_ANSWER),
    "gives no credential": (answers(access_token=""), BAD_ANSWER),
    "gives an unknown kind of credential": (answers(token_type="mac"), BAD_ANSWER),
    "speaks of another subject": (
        answers(subject="spiffe://prod.example/ns/free/sa/other"),
        "broker_wrong_subject",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_goes_up_where_the_broker(stand, gateway, broker, new_caller, fault):
    script, reason = FAULTS[fault]
    caller = new_caller()
    broker.scripts[caller.subject] = script(broker)
    before = gateway.counters()
    answer = caller.chat(caller.subject)

    assert (answer.status, answer.header("almoner-reason")) == (503, reason)
    assert int(answer.header("retry-after")) > 0
    assert answer.json()["error"]["code"] == reason
    assert stand.provider.requests(caller.subject) == []
    record = gateway.record(answer)
    assert (record["error.type"], record["almoner.fault"]) == (reason, "broker")
    assert record["almoner.subject"] == caller.subject
    new = gateway.counters() - before
    assert new[f"almoner_leases;result={reason}"] == 1
    assert refused(new, reason) == 1
    assert not any("almoner_tokens" in name for name in new)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_remembered(stand, gateway, broker, new_caller, status):
    caller = new_caller()
    broker.scripts[caller.subject] = lambda _: broker.refusal(status=status)
    before = gateway.counters()
    for _ in range(3):
        answer = caller.chat(caller.subject)
        assert (answer.status, answer.header("almoner-reason")) == (403, "broker_refused")
        assert answer.header("retry-after") is None
    assert len(broker.asked(caller.subject)) == 1
    assert stand.provider.requests(caller.subject) == []
    new = gateway.counters() - before
    assert new["almoner_leases;result=broker_refused"] == 1
    assert refused(new, "broker_refused") == 3


@pytest.mark.parametrize("silent", [False, True], ids=["refuses connections", "never speaks"])
def test_without_a_broker_who_has_a_lease_is_served_and_nobody_else(broker, new_caller, silent):
    known, unknown = new_caller(), new_caller()
    assert known.chat().status == 200
    with broker.down(silent=silent):
        assert known.chat().status == 200
        answer = unknown.chat()
        assert (answer.status, answer.header("almoner-reason")) == (503, UNAVAILABLE)
    # A broker that is back is asked as soon as the failure is forgotten.
    eventually(lambda: unknown.chat().status == 200, what="a lease from the broker that is back")


def test_callers_of_one_subject_wait_for_one_answer(broker, new_caller):
    caller = new_caller()
    broker.scripts[caller.subject] = lambda form: Reply(body=broker.lease(form).body, delay=0.3)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: caller.chat(), range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert len(broker.asked(caller.subject)) == 1


def test_a_caller_who_leaves_while_waiting_leaves_the_others_waiting(
    stand, gateway, broker, new_caller
):
    caller = new_caller()
    broker.scripts[caller.subject] = lambda form: Reply(body=broker.lease(form).body, delay=0.3)
    before = gateway.counters()
    text = f"leaves {caller.subject}"
    with caller.open_chat(text) as gone:
        eventually(lambda: broker.asked(caller.subject), what="a request to the broker")
        gone.hang_up()
    assert caller.chat().status == 200
    record = gateway.record(gone)
    assert record["almoner.outcome"] == "abandoned"
    assert "almoner.charged.output_tokens" not in record
    assert stand.provider.requests(text) == []
    assert len(broker.asked(caller.subject)) == 1
    new = gateway.counters() - before
    outcome = "outcome=abandoned;reason=none"
    assert new[f"almoner_exchanges;provider=openai;policy=free;{outcome}"] == 1


def test_a_lease_is_renewed_ahead_and_used_to_its_end(gateway, broker, new_caller):
    caller = new_caller()
    broker.scripts[caller.subject] = lambda form: broker.lease(form, expires_in=2)
    begin = time.monotonic()
    assert caller.chat().status == 200
    while len(broker.asked(caller.subject)) < 2:
        assert caller.chat().status == 200
        assert time.monotonic() < begin + 5
    # The renewal came in time, and no request had to wait for it. Now the broker fails.
    broker.scripts[caller.subject] = lambda form: Reply(500)
    before = gateway.counters()
    begin = time.monotonic()
    served_since_failure = 0
    while (answer := caller.chat()).status == 200:
        if len(broker.asked(caller.subject)) > 2:
            served_since_failure += 1
        assert time.monotonic() < begin + 5
    assert served_since_failure > 0
    assert answer.header("almoner-reason") == UNAVAILABLE
    assert (gateway.counters() - before)["almoner_leases;result=broker_unavailable"] > 0


def test_the_broker_gets_the_subject_and_never_the_callers_body(broker, new_caller):
    caller = new_caller()
    assert caller.chat("for the provider alone").status == 200
    [form] = broker.asked(caller.subject)
    assert form["audience"] == "openai"
    assert form["subject_token"] == caller.subject
    assert "for the provider alone" not in json.dumps(form)
