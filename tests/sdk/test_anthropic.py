"""Anthropic's SDK through the gateway: it works as it does without, and its usage is counted."""

import asyncio

import anthropic
import pytest

from support.provider import cue
from support.sdk import Charge

TURN = {"model": "claude-sonnet-5", "max_tokens": 64}
TOOLS = [
    {
        "name": "give_alms",
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
]


def says(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def charge(usage) -> Charge:
    """What the SDK's usage comes to: its input has no cached tokens in it, ours has."""
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Charge(usage.input_tokens + cached, usage.output_tokens, "complete")


def test_a_message_is_counted_as_the_sdk_reports_it(stand, workload, name):
    caller = workload.anthropic()
    message = caller.messages.create(**TURN, messages=says(name))
    assert message.content[0].text
    assert message.stop_reason == "end_turn"
    assert Charge.of(workload.record()) == charge(message.usage)
    received = stand.provider.request(name)
    assert received.header("x-api-key") == stand.anthropic_key
    version = "anthropic-version"
    assert received.header(version) == caller.default_headers[version]
    assert workload.token.encode() not in received.everything()


def test_a_stream_is_counted_as_the_sdk_reports_it(workload):
    with workload.anthropic().messages.stream(**TURN, messages=says(cue(output=7))) as stream:
        words = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(words) == 7
    assert message.usage.output_tokens == 7
    assert Charge.of(workload.record()) == charge(message.usage)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_and_its_result_goes_up(stand, workload, name, stream):
    conversation = says(name)

    def turn():
        fields = {**TURN, "messages": conversation, "tools": TOOLS}
        messages = workload.anthropic().messages
        if not stream:
            return messages.create(**fields)
        with messages.stream(**fields) as events:
            return events.get_final_message()

    first = turn()
    assert first.stop_reason == "tool_use"
    [use] = [block for block in first.content if block.type == "tool_use"]
    assert use.name == "give_alms" and use.input["text"]

    result = {"type": "tool_result", "tool_use_id": use.id, "content": "given"}
    use = {"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}
    conversation += [
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    second = turn()
    assert second.content[0].text
    charges = [Charge.of(record) for record in workload.records(2)]
    assert charges == [charge(first.usage), charge(second.usage)]
    assert stand.provider.requests(name)[-1].json()["messages"][-1]["content"] == [result]


def test_tokens_are_counted_for_nothing(workload):
    fields = {"model": TURN["model"], "messages": says("How many tokens?")}
    count = workload.anthropic().messages.count_tokens(**fields)
    assert count.input_tokens > 0
    charged = Charge.of(workload.record())
    assert (charged.input, charged.output) == (0, 0)


def test_the_async_sdk_streams_several_at_once(workload):
    async def one(caller, length):
        turn = caller.messages.stream(**TURN, messages=says(cue(output=length, pace_ms=2)))
        async with turn as stream:
            return (await stream.get_final_message()).usage

    async def several():
        async with workload.anthropic(anthropic.AsyncAnthropic) as caller:
            return await asyncio.gather(*(one(caller, length) for length in range(1, 9)))

    usages = asyncio.run(several())
    assert [usage.output_tokens for usage in usages] == list(range(1, 9))
    charges = [Charge.of(record) for record in workload.records(8)]
    assert sorted(charges, key=lambda charged: charged.output) == [charge(u) for u in usages]


def test_the_answer_tells_nothing_of_the_account(workload):
    messages = workload.anthropic().messages
    headers = messages.with_raw_response.create(**TURN, messages=says("raw")).headers
    assert headers["request-id"]
    assert not {"anthropic-organization-id", "set-cookie", "almoner-reason"} & set(headers)
