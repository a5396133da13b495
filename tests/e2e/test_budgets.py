"""Budgets hold whatever callers, providers and workers do at once, and are settled to the token."""

import concurrent.futures
import contextlib
import copy
import itertools
import threading

import pytest

from support import envoy
from support.broker import Reply, ScriptedBroker
from support.caller import Reset
from support.process import eventually
from support.provider import cue

LIMIT = 60_000
CALLERS = 64


@pytest.fixture(scope="module")
def broker(stand):
    return stand.adopt(ScriptedBroker(stand))


@pytest.fixture(scope="module")
def gateway(stand, broker):
    def edit(configuration):
        document = envoy.policy(configuration)
        document["budgets"] = {
            "tokens": {"unit": "tokens", "limit": LIMIT, "window": "1m"},
            "requests": {"unit": "requests", "limit": 5, "window": "1m"},
            "many": {"unit": "requests", "limit": 600, "window": "1m"},
            "second": {"unit": "tokens", "limit": 20_000, "window": "1s"},
        }
        shipped = document["policies"].pop()
        for name in [*document["budgets"], "both"]:
            policy = copy.deepcopy(shipped) | {"name": name, "max_output_tokens": 100_000}
            policy["subjects"] = [f"spiffe://prod.example/ns/{name}/sa/*"]
            policy["budgets"] = ["requests", "tokens"] if name == "both" else [name]
            document["policies"].append(policy)
        envoy.set_policy(configuration, document)

    return stand.envoy(edit=edit, name="budgets", concurrency=2, broker=broker.port)


@pytest.fixture
def new_caller(stand, gateway):
    """Makes callers with a budget of their own, by its name; `both` have two."""

    def make(budget: str, **how):
        subject = f"spiffe://prod.example/ns/{budget}/sa/spender-{next(_numbers)}"
        return stand.workload(gateway, spiffe_id=subject, **how)

    return make


_numbers = itertools.count(1)


def at_once(job, count: int = CALLERS) -> list:
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return list(threads.map(job, range(count)))


def tokens(record: dict, what: str) -> int:
    return sum(record.get(f"almoner.{what}.{kind}_tokens", 0) for kind in ("input", "output"))


def left(gateway, caller) -> int:
    """What is left of a token budget, by asking for it. The probes themselves cost nothing: the
    provider fails them. Their limits have five digits each, so their estimates are the same."""
    fits, most = 10_000, 99_999

    def probe(limit: int):
        answer = caller.chat(cue(fail="server"), max_tokens=limit)
        assert answer.status in (429, 500)
        return answer if answer.status == 500 else None

    found = probe(fits)
    while most - fits > 0:
        middle = (fits + most + 1) // 2
        if answer := probe(middle):
            fits, found = middle, answer
        else:
            most = middle - 1
    return tokens(gateway.record(found), "reserved")


def test_what_is_held_at_once_is_never_more_than_the_budget(stand, gateway, new_caller):
    """No exchange ends while others ask: 64 callers race for what few of them can have."""
    caller = new_caller("tokens")
    text = f"{caller.subject} {cue(end='hang', at=4)}"

    def begin(_):
        exchange = caller.open_chat(text, max_tokens=1000)
        exchange.await_head()
        return exchange

    with contextlib.ExitStack() as stack:
        exchanges = [stack.enter_context(exchange) for exchange in at_once(begin)]
        admitted = [exchange for exchange in exchanges if exchange.status == 200]
        refused = [exchange for exchange in exchanges if exchange.status == 429]
        assert len(admitted) + len(refused) == CALLERS
        for exchange in refused:
            assert ("almoner-reason", "budget_spent") in exchange.headers
        assert len(stand.provider.requests(caller.subject)) == len(admitted)
        for exchange in admitted:
            next(exchange.events())
            exchange.hang_up()

    records = [gateway.record(exchange) for exchange in admitted]
    [each] = {tokens(record, "reserved") for record in records}
    assert len(admitted) == LIMIT // each
    for record in records:
        assert record["almoner.ended"] == "caller_gone"
        assert record["almoner.usage.completeness"] == "estimated"
        assert tokens(record, "charged") > 0
    assert left(gateway, caller) == LIMIT - sum(tokens(record, "charged") for record in records)


def test_what_is_settled_is_what_the_provider_reported(stand, gateway, new_caller):
    """A third hang up midway, a sixth is reset by the provider, the others end well."""
    caller = new_caller("tokens")
    before = gateway.counters()

    def tag(number):
        return f"{caller.subject} number {number} of all"

    def spend(number):
        hangs_up, is_reset = number % 6 in (0, 1), number % 6 == 2
        cues = {"output": 10 + number, "pace_ms": 1}
        if hangs_up or is_reset:
            cues |= {"end": "hang" if hangs_up else "reset", "at": 9}
        text = f"{tag(number)} {cue(**cues)}"
        send = caller.open_messages if number % 3 == 0 else caller.open_chat
        with send(text, max_tokens=1000, stream=number % 6 != 5) as exchange:
            exchange.await_head()
            if hangs_up and exchange.status == 200:
                for _, _ in zip(range(8), exchange.events()):
                    pass
                exchange.hang_up()
            else:
                with contextlib.suppress(Reset):
                    list(exchange.chunks())
        return exchange

    exchanges = at_once(spend)
    statuses = {exchange.status for exchange in exchanges}
    assert statuses <= {200, 429}
    served = [number for number in range(CALLERS) if exchanges[number].status == 200]
    assert len(served) >= LIMIT // 3000
    journal = {}
    for received in stand.provider.requests(caller.subject):
        [number] = [number for number in served if tag(number).encode() in received.body]
        journal[number] = received
    assert sorted(journal) == served, "a refused request reached the provider, or one got lost"

    spent = sum(sum(received.spent.values()) for received in journal.values())
    assert 0 < spent <= LIMIT
    records = {number: gateway.record(exchanges[number]) for number in served}
    reported = 0
    for number, record in records.items():
        marked = record["almoner.usage.completeness"]
        if number % 6 >= 3:
            reported += sum(journal[number].reported.values())
            assert marked == "complete"
            assert tokens(record, "charged") == sum(journal[number].reported.values())
        else:
            assert marked in ("estimated", "partial")
            assert tokens(record, "charged") > 0
    charged = sum(tokens(record, "charged") for record in records.values())
    assert left(gateway, caller) == LIMIT - charged
    new = gateway.counters() - before
    counted = [value for name, value in new.items() if name.startswith("almoner_tokens;")]
    complete = [value for name, value in new.items() if name.endswith(";result=complete")]
    assert (sum(counted), sum(complete)) == (charged, reported)


def test_a_budget_is_free_again_after_its_window(gateway, new_caller):
    caller = new_caller("second")
    # More than was reserved: what was used was used.
    answer = caller.chat(cue(input=15_000, output=4_000), max_tokens=4_000)
    assert answer.status == 200
    record = gateway.record(answer)
    assert tokens(record, "charged") == 19_000 > tokens(record, "reserved")
    refused = caller.chat(max_tokens=10_000)
    assert (refused.status, refused.header("almoner-reason")) == (429, "budget_spent")
    assert int(refused.header("retry-after")) in (1, 2)
    assert refused.json()["error"]["type"] == "rate_limit_exceeded"

    # What is reserved for the input, beside the limit on the output.
    probe = new_caller("second").chat(cue(fail="server"), max_tokens=10_000)
    whole = 20_000 - gateway.record(probe)["almoner.reserved.input_tokens"]

    def everything():
        answer = caller.chat(cue(fail="server"), max_tokens=whole)
        return answer if answer.status == 500 else None

    answer = eventually(everything, what="the whole budget")
    assert tokens(gateway.record(answer), "reserved") == 20_000


def test_a_request_that_no_budget_can_ever_cover_is_told_not_to_come_back(new_caller):
    answer = new_caller("second").chat(max_tokens=50_000)
    assert (answer.status, answer.header("almoner-reason")) == (429, "budget_spent")
    assert answer.header("retry-after") is None
    assert answer.header("x-should-retry") == "false"
    assert answer.json()["error"]["type"] == "insufficient_quota"


def test_no_more_requests_pass_than_the_budget_has(stand, gateway, new_caller):
    caller = new_caller("requests")
    before = gateway.counters()
    answers = at_once(lambda _: caller.chat(caller.subject), 16)
    statuses = [answer.status for answer in answers]
    assert (statuses.count(200), statuses.count(429)) == (5, 11)
    assert len(stand.provider.requests(caller.subject)) == 5
    new = gateway.counters() - before
    exchanges = "almoner_exchanges;provider=openai;policy=requests"
    assert new[f"{exchanges};outcome=refused;reason=budget_spent"] == 11
    assert new[f"{exchanges};outcome=served;reason=none"] == 5


def test_workers_that_change_one_balance_at_once_lose_nothing(new_caller):
    """Both workers have hundreds of requests to do, one after the other, at the same time."""
    caller = new_caller("many")
    connections = 12
    barrier = threading.Barrier(connections)
    models = "/openai/v1/models"
    assert caller.request("GET", models).status == 200  # there is a lease now

    bursts = at_once(lambda _: caller.burst(models, 100, barrier.wait), connections)
    statuses = [status for burst in bursts for status in burst]
    assert (statuses.count(200), statuses.count(429)) == (599, 601)


def requests_left(caller) -> int:
    left = 0
    while caller.chat(max_tokens=1).status == 200:
        left += 1
    return left


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_caller_who_leaves_before_the_answer_has_spent_the_request(
    stand, gateway, new_caller, protocol
):
    caller = new_caller("requests", protocol=protocol)
    with caller.open_chat(f"{caller.subject} {cue(end='hang')}", max_tokens=77) as exchange:
        stand.provider.request(caller.subject)
        exchange.hang_up()
    assert stand.provider.request(caller.subject, ended=True).ended == "hung-up"
    record = gateway.record(exchange)
    assert (record["almoner.outcome"], record["almoner.ended"]) == ("unanswered", "caller_gone")
    assert record["almoner.usage.completeness"] == "estimated"
    assert record["almoner.charged.input_tokens"] > 0
    assert record["almoner.charged.output_tokens"] == 77
    assert requests_left(caller) == 4


def test_a_caller_who_leaves_before_the_lease_has_spent_nothing(gateway, broker, new_caller):
    caller = new_caller("requests")
    broker.scripts[caller.subject] = lambda form: Reply(body=broker.lease(form).body, delay=0.2)
    with caller.open_chat(caller.subject) as exchange:
        eventually(lambda: broker.asked(caller.subject), what="a request to the broker")
        exchange.hang_up()
    assert gateway.record(exchange)["almoner.outcome"] == "abandoned"
    assert requests_left(caller) == 5


def test_a_refused_request_has_spent_nothing(broker, new_caller):
    caller = new_caller("requests")
    for _ in range(6):
        assert caller.chat(model="gpt-unknown").status == 403
    refused = new_caller("requests")
    broker.scripts[refused.subject] = lambda _: broker.refusal(status=403)
    for _ in range(6):
        assert refused.chat().status == 403
    assert requests_left(caller) == 5


def test_a_failure_of_the_provider_has_spent_a_request_and_no_tokens(gateway, new_caller):
    caller = new_caller("both")
    answer = caller.chat(cue(fail="server"), max_tokens=10_000)
    assert answer.status == 500
    record = gateway.record(answer)
    assert tokens(record, "charged") == 0
    # All tokens are there: the refusal below is the other budget's.
    whole = LIMIT - record["almoner.reserved.input_tokens"]
    assert caller.chat(cue(fail="server"), max_tokens=whole).status == 500
    assert requests_left(caller) == 3


def test_what_one_budget_refuses_is_given_back_to_the_other(new_caller):
    caller = new_caller("both")
    for _ in range(6):
        assert caller.chat(max_tokens=90_000).status == 429
    assert requests_left(caller) == 5


def test_subjects_spend_their_own(new_caller):
    poor, rich = new_caller("requests"), new_caller("requests")
    assert requests_left(poor) == 5
    assert poor.chat().status == 429
    assert rich.chat().status == 200
