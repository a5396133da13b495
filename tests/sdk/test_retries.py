"""What the SDKs do by themselves with our answers: wait where that helps, and give up where not."""

import time

import openai
import pytest

from support import envoy
from support.broker import Reply, ScriptedBroker
from support.provider import cue
from support.sdk import Workload


def ask(workload: Workload, text: str, retries: int = 2):
    """A chat completion, with the SDK's usual patience."""
    return workload.openai(max_retries=retries).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}]
    )


def test_a_budget_that_is_soon_free_is_waited_for(stand, name):
    def small(configuration):
        document = envoy.policy(configuration)
        budget = {"unit": "requests", "limit": 1, "window": "2s", "per": "subject"}
        document["budgets"]["bot-requests"] = budget
        envoy.set_policy(configuration, document)

    configuration = stand.configuration("gateway.yaml")
    small(configuration)
    broker = stand.broker(policy=envoy.policy(configuration))
    gateway = stand.envoy(name="sdk-small-budget", edit=small, broker=broker.port)
    workload = Workload(stand, gateway, name)
    ask(workload, "takes the only request of two seconds")
    answer = ask(workload, "waits for the next")
    assert answer.choices
    outcomes = [record["almoner.outcome"] for record in workload.records(3)]
    assert outcomes[0] == outcomes[-1] == "served"
    assert set(outcomes[1:-1]) == {"refused"}


def test_a_budget_that_is_long_spent_is_not_waited_for(workload):
    ask(workload, f"spends it all {cue(input=200_000)}")
    begun = time.monotonic()
    with pytest.raises(openai.RateLimitError) as raised:
        ask(workload, "more")
    assert time.monotonic() - begun < 5
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert [r["almoner.outcome"] for r in workload.records(2)] == ["served", "refused"]


@pytest.mark.parametrize(
    "wrong", [{"model": "gpt-4"}, {"max_completion_tokens": 5000}], ids=["model", "output"]
)
def test_what_waiting_does_not_change_is_not_tried_again(workload, wrong):
    fields = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "no"}]} | wrong
    with pytest.raises(openai.APIStatusError):
        workload.openai(max_retries=2).chat.completions.create(**fields)
    assert len(workload.records()) == 1


def test_a_broker_that_comes_back_is_not_noticed(stand, name):
    broker = ScriptedBroker(stand)
    failures = iter([Reply(status=500)])
    broker.respond = lambda form: next(failures, None) or broker.lease(form)
    gateway = stand.envoy(name="sdk-broker-back", broker=broker.port)
    workload = Workload(stand, gateway, name)
    assert ask(workload, "waits for the broker").choices
    first, second = workload.records(2)
    assert (first["almoner.outcome"], first["almoner.fault"]) == ("refused", "broker")
    assert second["almoner.outcome"] == "served"
    broker.stop()


def test_the_providers_rate_limit_is_waited_for_as_it_says(stand, workload, name):
    rule = {"fail": "rate-limited", "retry-after": 1}
    stand.provider.rules([{"behaviour": rule, "model": "gpt-4o-mini", "times": 1}])
    try:
        begun = time.monotonic()
        assert ask(workload, name).choices
        assert time.monotonic() - begun >= 1
    finally:
        stand.provider.rules([])
    assert [request.status for request in stand.provider.requests(name)] == [429, 200]
    assert [r["http.response.status_code"] for r in workload.records(2)] == [429, 200]
