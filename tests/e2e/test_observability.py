"""Each exchange leaves one record and moves the counters, which have no more series than names."""

import json
import re

import pytest

from support.provider import cue


def test_the_record_of_a_served_exchange_says_who_what_and_how_much(gateway, new_caller):
    caller = new_caller()
    text = f"{caller.subject} {cue(input=40, output=12)}"
    answer = caller.chat(text, stream=True, max_tokens=50)
    line = gateway.line(answer)
    assert (line["status"], line["route"]) == (200, "openai")
    record = line["record"]
    assert re.fullmatch("[0-9a-f]{16}", record.pop("almoner.policy_digest"))
    assert record.pop("almoner.began_ms") > 1_700_000_000_000
    assert 0 <= record.pop("almoner.duration_ms") < 10_000
    assert re.fullmatch("[0-9a-f-]{36}", record.pop("almoner.request_id"))
    assert record.pop("almoner.reserved.input_tokens") >= 40
    assert record == {
        "almoner.outcome": "served",
        "almoner.subject": caller.subject,
        "almoner.policy": "free",
        "almoner.provider": "openai",
        "almoner.credential_id": "openai/scripted",
        "almoner.attempts": 1,
        "almoner.ended": "complete",
        "almoner.request.stream": "true",
        "almoner.usage.completeness": "complete",
        "almoner.usage.reasoning_tokens": 0,
        "almoner.usage.reported_total_tokens": 52,
        "almoner.reserved.output_tokens": 50,
        "almoner.charged.input_tokens": 40,
        "almoner.charged.output_tokens": 12,
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.id": "chatcmpl-simulated",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/openai/v1/chat/completions",
    }


def test_the_record_of_a_refused_exchange_says_why(gateway, new_caller):
    caller = new_caller()
    answer = caller.messages(model="gpt-4o-mini")
    record = gateway.record(answer)
    assert answer.header("almoner-reason") == "model_not_allowed"
    assert record["almoner.outcome"] == "refused"
    assert (record["error.type"], record["almoner.fault"]) == ("model_not_allowed", "caller")
    assert record["almoner.status"] == answer.status == 403
    assert record["almoner.subject"] == caller.subject
    assert record["gen_ai.provider.name"] == "anthropic"
    assert record["gen_ai.request.model"] == "gpt-4o-mini"
    assert re.fullmatch("[0-9a-f]{16}", record["almoner.policy_digest"])
    assert not any(name.startswith(("almoner.charged", "http.response")) for name in record)


def test_the_record_of_an_aborted_exchange_says_what_it_cost(stand, gateway, new_caller):
    caller = new_caller()
    with caller.open_chat(f"{caller.subject} {cue(end='hang')}", max_tokens=33) as exchange:
        stand.provider.request(caller.subject)
        exchange.hang_up()
    record = gateway.record(exchange)
    assert record["almoner.outcome"] == "unanswered"
    assert record["almoner.ended"] == "caller_gone"
    assert record["almoner.subject"] == caller.subject
    assert record["almoner.credential_id"] == "openai/scripted"
    assert record["almoner.charged.output_tokens"] == 33
    assert "http.response.status_code" not in record


def test_each_exchange_leaves_one_line_with_one_record(gateway, new_caller):
    caller = new_caller()
    answers = [caller.chat(), caller.chat(model="other"), caller.chat(cue(fail="server"))]
    for answer in answers:
        gateway.record(answer)
    mine = [line for line in gateway.lines() if caller.subject in json.dumps(line)]
    assert len(mine) == 3


def test_a_record_does_not_grow_with_the_request(gateway, new_caller):
    record = gateway.record(new_caller().chat(model="m" * 100_000))
    assert record["gen_ai.request.model"] == "m" * 128
    assert len(json.dumps(record)) < 2_000


def series(gateway) -> set[str]:
    lines = gateway.prometheus().splitlines()
    found = {line.rsplit(" ", 1)[0] for line in lines if line.startswith("almoner_")}
    assert found
    return found


def test_prometheus_shows_the_counters_with_their_labels(gateway, new_caller):
    caller = new_caller()
    assert caller.chat().status == 200
    assert caller.chat(model="other").status == 403
    labels = 'policy="free",provider="openai"'
    for wanted in [
        f'almoner_exchanges{{outcome="served",{labels},reason="none"}}',
        f'almoner_exchanges{{outcome="refused",{labels},reason="model_not_allowed"}}',
        f'almoner_tokens{{kind="input",{labels},result="complete"}}',
        f'almoner_tokens{{kind="output",{labels},result="complete"}}',
        'almoner_leases{result="issued"}',
    ]:
        assert wanted in series(gateway)


def test_nothing_of_a_request_becomes_a_series(gateway, new_caller):
    def requests(mark: str):
        caller = new_caller()
        answers = [
            caller.chat(mark, user=mark),
            caller.chat(model=f"model-{mark}"),
            caller.messages(model=f"model-{mark}"),
            caller.chat(path=f"/openai/v1/{mark}"),
            caller.chat(path=f"/{mark}/v1/chat/completions"),
            caller.request("GET", f"/openai/v1/models?{mark}=1", headers=[("x-mark", mark)]),
            caller.chat(cue(fail="server", content_type=f"text/{mark}")),
            caller.chat(tools=[{"type": mark}]),
        ]
        for answer in answers:
            gateway.record(answer)
        return caller

    requests("first")
    before = series(gateway)
    caller = requests("second")
    requests("third")
    assert series(gateway) == before
    everything = "\n".join(before)
    for word in ("first", "second", "gpt-", "claude", "/sa/", caller.subject, "prod.example"):
        assert word not in everything


OBSERVED = {
    "a model": ("watched", {"model": "gpt-4o"}, "model_not_allowed"),
    "a longer answer": ("watched", {"max_tokens": 5000}, "max_output_tokens_too_large"),
    "a service tier": ("watched", {"service_tier": "priority"}, "service_tier_not_allowed"),
    "a place": ("watched-place", {}, "condition_address"),
    "a budget": ("watched-purse", {}, "budget_spent"),
}


@pytest.mark.parametrize("what", OBSERVED)
def test_observing_lets_pass_and_records(stand, gateway, new_caller, what):
    policy, fields, reason = OBSERVED[what]
    caller = new_caller(policy)
    before = gateway.counters()
    answer = caller.chat(caller.subject, **fields)
    assert answer.status == 200
    assert answer.header("almoner-reason") is None
    record = gateway.record(answer)
    assert (record["almoner.outcome"], record["almoner.observed"]) == ("served", reason)
    assert "error.type" not in record
    reported = stand.provider.request(caller.subject).reported
    assert record["almoner.charged.output_tokens"] == reported["output"]
    new = gateway.counters() - before
    assert new[f"almoner_observed;provider=openai;policy={policy};reason={reason}"] == 1


def test_observing_what_would_pass_records_nothing(gateway, new_caller):
    assert "almoner.observed" not in gateway.record(new_caller("watched").chat())


def test_observing_still_needs_an_identity(stand, gateway):
    issuer = stand.issuer
    good = stand.token_holder(gateway, token=issuer.mint("watched-1"))
    assert good.chat(model="gpt-4o").status == 200
    for token in (issuer.mint("watched-1", expires_in=-60), issuer.signed_by_another("watched-1")):
        assert stand.token_holder(gateway, token=token).chat(model="gpt-4o").status == 401


def test_observing_keeps_other_tenants_state(stand, gateway, new_caller):
    caller = new_caller("watched")
    body = {"model": "gpt-4o-mini", "input": "Hello", "previous_response_id": "resp_1"}
    answer = caller.request("POST", "/openai/v1/responses", body=json.dumps(body).encode())
    assert (answer.status, answer.header("almoner-reason")) == (403, "provider_state")
    answer = caller.request("GET", "/openai/v1/chat/completions/chatcmpl-1")
    assert (answer.status, answer.header("almoner-reason")) == (403, "provider_state")
    assert "almoner.observed" not in gateway.record(answer)
    assert caller.chat(caller.subject).status == 200
    assert stand.provider.request(caller.subject).json()["store"] is False


def test_observing_still_reads_strictly_and_needs_the_brokers_yes(broker, new_caller):
    caller = new_caller("watched")
    twice = b'{"model":"gpt-4o-mini","model":"gpt-4o","messages":[]}'
    answer = caller.request("POST", "/openai/v1/chat/completions", body=twice)
    assert (answer.status, answer.header("almoner-reason")) == (400, "duplicate_key")
    broker.scripts[caller.subject] = lambda _: broker.refusal(status=403)
    assert caller.chat().status == 403
