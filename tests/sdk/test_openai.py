"""OpenAI's SDK through the gateway: it works as it does without, and what it reports is counted."""

import asyncio
import json

import openai
import pytest

from support.provider import cue
from support.sdk import Charge, by_certificate
from support.stand import BOT

MODEL = "gpt-4o-mini"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "give_alms",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
]


def says(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def charge(usage) -> Charge:
    """What the SDK's usage comes to."""
    return Charge(usage.prompt_tokens, usage.completion_tokens, "complete")


def test_a_completion_is_counted_as_the_sdk_reports_it(stand, workload, name):
    answer = workload.openai().chat.completions.create(model=MODEL, messages=says(name))
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 16
    assert Charge.of(workload.record()) == charge(answer.usage)
    received = stand.provider.request(name)
    assert received.header("authorization") == f"Bearer {stand.openai_key}"
    assert workload.token.encode() not in received.everything()


def test_several_choices_are_counted_together(workload):
    answer = workload.openai().chat.completions.create(model=MODEL, messages=says("three"), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert Charge.of(workload.record()) == charge(answer.usage)
    assert answer.usage.completion_tokens == 3 * 16


def test_a_stream_with_usage_is_counted_as_the_sdk_reports_it(workload):
    stream = workload.openai().chat.completions.create(
        model=MODEL,
        messages=says(f"a stream {cue(output=7)}"),
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert len([c for c in chunks if c.choices[0].delta.content]) == 7
    assert last.choices == []
    assert Charge.of(workload.record()) == charge(last.usage)


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_without_usage_is_counted_all_the_same(workload, stand, name, options):
    text = f"{name} {cue(output=7)}"
    stream = workload.openai().chat.completions.create(
        model=MODEL, messages=says(text), stream=True, **options
    )
    chunks = list(stream)
    assert len([c for c in chunks if c.choices[0].delta.content]) == 7
    # Nothing shows that the provider was made to report it.
    assert not [c for c in chunks if c.usage or not c.choices]
    reported = stand.provider.request(name, ended=True).reported
    assert Charge.of(workload.record()) == Charge(reported["input"], 7, "complete")


def test_a_provider_that_reports_nothing_is_charged_for_by_estimate(workload):
    text = f"no usage {cue(usage=False)}"
    answer = workload.openai().chat.completions.create(model=MODEL, messages=says(text))
    assert answer.usage is None
    charged = Charge.of(workload.record())
    assert charged.completeness == "estimated"
    assert charged.input > 0 and charged.output > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_goes_up(stand, workload, name, stream):
    conversation = says(name)

    def turn():
        """The SDK's own accumulation of a stream, or a plain answer."""
        fields = {"model": MODEL, "messages": conversation, "tools": TOOLS}
        completions = workload.openai().chat.completions
        if not stream:
            return completions.create(**fields)
        with completions.stream(**fields, stream_options={"include_usage": True}) as events:
            return events.get_final_completion()

    first = turn()
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert call.function.name == "give_alms"
    assert json.loads(call.function.arguments)["text"]

    conversation += [
        {"role": "assistant", "tool_calls": [call.model_dump(exclude={"parsed_arguments"})]},
        {"role": "tool", "tool_call_id": call.id, "content": "given"},
    ]
    second = turn()
    assert second.choices[0].message.content
    charges = [Charge.of(record) for record in workload.records(2)]
    assert charges == [charge(first.usage), charge(second.usage)]
    last = stand.provider.requests(name)[-1].json()["messages"][-1]
    assert (last["role"], last["content"]) == ("tool", "given")


def test_embeddings_are_counted(workload):
    answer = workload.openai().embeddings.create(
        model="text-embedding-3-small", input=["two", "texts"], encoding_format="float"
    )
    assert len(answer.data) == 2
    charged = Charge(answer.usage.prompt_tokens, 0, "complete")
    assert Charge.of(workload.record()) == charged


def test_models_are_listed(workload):
    assert "gpt-4o-mini" in [model.id for model in workload.openai().models.list()]
    assert workload.record()["almoner.outcome"] == "served"


def test_the_async_sdk_streams_several_at_once(workload):
    async def one(caller, length):
        stream = await caller.chat.completions.create(
            model=MODEL,
            messages=says(cue(output=length, pace_ms=2)),
            stream=True,
            stream_options={"include_usage": True},
        )
        return [chunk async for chunk in stream][-1].usage

    async def several():
        async with workload.openai(openai.AsyncOpenAI) as caller:
            return await asyncio.gather(*(one(caller, length) for length in range(1, 9)))

    usages = asyncio.run(several())
    assert [usage.completion_tokens for usage in usages] == list(range(1, 9))
    charges = [Charge.of(record) for record in workload.records(8)]
    by_length = sorted(charges, key=lambda charged: charged.output)
    assert by_length == [charge(usage) for usage in usages]


def test_a_certificate_does_without_any_token(stand, gateway, name):
    caller = by_certificate(stand, gateway, stand.certificate(BOT))
    caller.chat.completions.create(model=MODEL, messages=says(name))
    received = stand.provider.request(name)
    assert received.header("authorization") == f"Bearer {stand.openai_key}"


def test_the_answer_tells_nothing_of_the_account(workload):
    completions = workload.openai().chat.completions
    headers = completions.with_raw_response.create(model=MODEL, messages=says("raw")).headers
    assert headers["x-ratelimit-remaining-requests"] == "9999"
    assert headers["x-request-id"]
    assert not {"openai-organization", "set-cookie", "almoner-reason"} & set(headers)
