"""Takes the scene; acts the story, step by step, each with what it promises."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable

import openai
from page import NOTHING, Page, shown
from scene import MODEL, Scene
from support.identity import self_signed
from support.redaction import leaks, written
from support.sdk import Charge, Workload
from support.stand import BOT


def opening(page: Page, scene: Scene):
    version = json.loads(scene.gateway.admin("/server_info"))["version"].split("/")[1]
    page.title("Almoner: a workload calls OpenAI, and holds no key of OpenAI's")
    page.line()
    page.table(
        [
            ["the workload", "──▶", "Envoy with almoner.wasm", "──▶", "api.openai.com"],
            [f"OpenAI SDK {openai.__version__}", "", f"{version}, gateway.yaml", "", "simulated"],
            ["its own token", "", "▲ a lease, by mTLS", "", "OpenAI's key"],
            ["", "", "almoner-broker", "", ""],
        ],
        head=False,
    )


def swap_the_key(page: Page, scene: Scene):
    bot = scene.workload("support-bot")
    leftovers = {"x-api-key": scene.left_over, "cookie": "session=5up3rs3cret"}
    workload = bot.openai(organization="org-acme", default_headers=leftovers)
    page.line(f'    OpenAI(base_url="{workload.base_url}", api_key="{shown(bot.token)}")')
    answer = workload.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Who keeps the purse?"}]
    )
    sent, received = answer.http_request, scene.provider.request("Who keeps the purse?")

    rows = [["", "the workload sent", "the provider received"]]
    rows.append(["host", sent.headers["host"], received.authority or ""])
    rows.append(["path", sent.url.path, received.path])
    for name in ["authorization", "x-api-key", "cookie", "openai-organization"]:
        up = received.header(name)
        rows.append([name, shown(sent.headers[name]), shown(up) if up else NOTHING])
    asked, got = json.loads(sent.content), received.json()
    for name in sorted(got.keys() - asked.keys()):
        rows.append([name, NOTHING, json.dumps(got[name])])
    page.table(rows)

    key = scene.stand.openai_key
    attached = received.header("authorization")
    page.promise("the provider got OpenAI's key", attached == f"Bearer {key}")
    secrets = [bot.token, scene.left_over, "5up3rs3cret", "org-acme"]
    arrived = [shown(each) for each in secrets if each.encode() in received.everything()]
    page.promise("nothing that the workload sent as a secret reached it", not arrived, arrived)
    seen = key.encode() in answer.content or key in str(answer.headers)
    page.promise("the workload never saw OpenAI's key", not seen)
    scene.certified(scene.bot()).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "And by certificate?"}]
    )
    attached = scene.provider.request("And by certificate?").header("authorization")
    page.promise("likewise by SPIFFE certificate, without any token", attached == f"Bearer {key}")


def count_while_streaming(page: Page, scene: Scene):
    pace, words = 0.08, 12
    scene.provider.script({"pace-ms": int(pace * 1000), "output": words})
    singer = scene.workload("support-stream")
    arrived, usage = [], None
    page.live("    ")
    for chunk in sing(singer, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        if text := word(chunk):
            arrived.append(time.monotonic())
            page.live(text.rstrip(), len(arrived))
            page.live(" ")
    page.line("\n")

    counted = Charge.of(singer.record())
    aborted = hung_up(scene, after=4)
    reported = (usage.prompt_tokens, usage.completion_tokens) if usage else None
    page.table(
        [
            ["tokens", "input", "output", ""],
            ["by the SDK's usage", *map(str, reported or (NOTHING, NOTHING)), ""],
            ["by Almoner's record", *map(str, dataclasses.astuple(counted))],
            ["hung up on after 4", *map(str, dataclasses.astuple(aborted))],
        ]
    )
    spread = arrived[-1] - arrived[0]
    page.promise("each word passed as it came", spread > pace * words / 2, f"{spread:.2f} s")
    exact = (counted.input, counted.output) == reported and counted.completeness == "complete"
    page.promise("every token counted, exactly as the provider reports", exact)
    silent = streamed_without_usage(scene, words)
    page.promise("also where the workload does not ask for usage, and sees none", silent)
    kept = aborted.completeness == "estimated" and aborted.output >= 4
    page.promise("a stream that is hung up on is charged, and marked as estimated", kept)
    scene.provider.rules([])


def streamed_without_usage(scene: Scene, words: int) -> bool:
    """Whether a stream that does not ask for usage has none, and is counted all the same."""
    scene.provider.script({"output": words})
    singer = scene.workload("support-silent")
    seen = [chunk for chunk in sing(singer) if chunk.usage or not chunk.choices]
    counted = Charge.of(singer.record())
    return not seen and (counted.output, counted.completeness) == (words, "complete")


def hung_up(scene: Scene, after: int) -> Charge:
    """What a stream came to that its caller leaves after some words."""
    scene.provider.script({"pace-ms": 20, "output": 4000})
    singer = scene.workload("support-hangup")
    with sing(singer) as stream:
        list(itertools.islice(filter(word, stream), after))
    return Charge.of(singer.record())


def sing(singer: Workload, **fields) -> openai.Stream:
    messages = [{"role": "user", "content": "Sing, one word at a time."}]
    create = singer.openai().chat.completions.create
    return create(model=MODEL, messages=messages, stream=True, **fields)


def word(chunk) -> str | None:
    return chunk.choices[0].delta.content if chunk.choices else None


def run_dry(page: Page, scene: Scene):
    budget, answer_length = 200_000, 4096
    page.line(f"    gateway.yaml gives each subject {budget:,} tokens a minute. One loops:")
    page.live("    ")
    scene.provider.script({"output": answer_length})
    before = scene.provider.served()["requests"]
    workload = scene.workload("support-loop").openai()
    served, spent, refusal = 0, 0, None
    while refusal is None and spent <= budget:
        try:
            spent += ask(workload).usage.total_tokens
            served += 1
            page.live("▪")
        except openai.APIStatusError as error:
            refusal = error
    page.line(f" {served} answers of {answer_length:,} tokens, {spent:,} in all")
    name, status, reason = raised(refusal)
    waits = refusal.response.headers.get("retry-after", NOTHING) if refusal else NOTHING
    page.table(
        [
            ["raised", "status", "almoner-reason", "retry-after"],
            [f"openai.{name}", status, reason, f"{waits} s"],
        ]
    )
    kept = (name, reason) == ("RateLimitError", "budget_spent") and waits.isdigit()
    page.promise("the SDK raises its own RateLimitError, and knows when to come back", kept)
    asked = scene.provider.served()["requests"] - before
    page.promise("the refused request never left", asked == served, f"{asked}, served {served}")
    page.promise("what was spent is within the budget", 0 < spent <= budget, spent)
    scene.provider.rules([])
    calm = refusal_of(lambda: ask(scene.workload("support-calm").openai()))
    page.promise("another workload does not notice", calm is None, calm)


def forge(page: Page, scene: Scene):
    issuer, name = scene.stand.issuer, "support-bot"
    before = scene.provider.served()["requests"]
    rows = [["presented", "raised", "status", "almoner-reason"]]
    forgeries = [
        ("a token signed with another key", issuer.signed_by_another(name), "token_bad_signature"),
        ("a token whose name was changed", issuer.altered("x", to=name), "token_bad_signature"),
        ("a token that expired", issuer.mint(name, expires_in=-60), "token_expired"),
        ("OpenAI's own key", scene.stand.openai_key, "token_malformed"),
    ]
    kept = True
    for what, token, reason in forgeries:
        error = refusal_of(lambda token=token: ask(scene.workload(name, token).openai()))
        rows.append([what, *raised(error)])
        kept &= raised(error) == ["AuthenticationError", "401", reason]
    forged = self_signed("forged", scene.stand.directory / "tls", uri=BOT)
    unverified = scene.unverified_certificates()
    error = refusal_of(lambda: ask(scene.certified(forged)))
    rows.append(["a self-signed SPIFFE certificate", *raised(error)])
    page.table(rows)
    page.promise("the SDK raises its own AuthenticationError", kept)
    unverified = scene.unverified_certificates() - unverified
    kept = type(error) is openai.APIConnectionError and unverified == 1
    page.promise("the certificate gets no connection", kept)
    asked = scene.provider.served()["requests"] - before
    page.promise("nothing of it reached the provider", asked == 0, asked)


def exceed(page: Page, scene: Scene):
    before = scene.provider.served()["requests"]
    workload = scene.workload("support-bot").openai()
    attempts = [
        ("another model", lambda: ask(workload, model="gpt-4o"), "model_not_allowed"),
        (
            "more output than allowed",
            lambda: ask(workload, max_completion_tokens=100_000),
            "max_output_tokens_too_large",
        ),
        ("files of the account", lambda: workload.files.list(), "provider_state"),
        ("anything, by a stranger", lambda: ask(scene.workload("stranger").openai()), "no_policy"),
    ]
    rows, kept = [["asked for", "raised", "status", "almoner-reason"]], True
    for what, attempt, expected in attempts:
        name, status, reason = raised(refusal_of(attempt))
        rows.append([what, name, status, reason])
        error = "BadRequestError" if status == "400" else "PermissionDeniedError"
        kept &= (name, reason) == (error, expected)
    page.table(rows)
    page.promise("each is refused, as an error that the SDK knows", kept)
    asked = scene.provider.served()["requests"] - before
    page.promise("nothing of it reached the provider", asked == 0, asked)


def read_records(page: Page, scene: Scene):
    served = scene.provider.served()
    requests = sum(scene.gateway.stats("http.ingress.downstream_rq_total").values())
    scene.gateway.await_lines(requests)
    records = scene.records()
    rows = [["who", "policy", "outcome", "input", "output", "credential", ""]]
    for (*row, credential), group in itertools.groupby(records, summary):
        charges = [Charge.of(record) for record in group]
        sums = (f"{count:,}" if count else NOTHING for count in total(charges).values())
        rows.append([*row, *sums, credential, f"× {len(charges)}" if len(charges) > 1 else ""])
    page.table(rows)
    same = len(records) == requests == len(scene.gateway.lines())
    page.promise(f"one record for each of {requests} requests, refusals included", same)
    charges = [Charge.of(record) for record in records]
    sums = total([charge for charge in charges if charge.completeness == "complete"])
    reported = {kind: served["reported"][kind] for kind in sums}
    page.promise("they add up to what the provider reported, to the token", sums == reported, sums)
    things = list(written(scene.stand, scene.gateway))
    size = sum(len(content) for _, content in things)
    found = leaks(scene.stand.secrets(), things)
    page.promise(f"no secret in {size // 1024} KiB of logs, records and metrics", not found, found)


STEPS: list[tuple[str, Callable[[Page, Scene], None]]] = [
    ("The key is swapped on the way", swap_the_key),
    ("Tokens are counted while they stream", count_while_streaming),
    ("The budget runs dry", run_dry),
    ("A forged identity is refused", forge),
    ("So is what the policy does not allow", exceed),
    ("Each request leaves one record", read_records),
]


def ask(workload: openai.OpenAI, model: str = MODEL, **fields):
    """A chat completion."""
    messages = [{"role": "user", "content": "Tell me all about alms."}]
    return workload.chat.completions.create(model=model, messages=messages, **fields)


def refusal_of(attempt: Callable[[], object]) -> openai.APIError | None:
    """What the SDK raised."""
    try:
        attempt()
    except openai.APIError as error:
        return error
    return None


def raised(error: openai.APIError | None) -> list[str]:
    """Class, status and reason."""
    if not isinstance(error, openai.APIStatusError):
        return [type(error).__name__ if error else "nothing", NOTHING, NOTHING]
    reason = error.response.headers.get("almoner-reason", NOTHING)
    return [type(error).__name__, str(error.status_code), reason]


def total(charges: list[Charge]) -> dict[str, int]:
    kinds = ("input", "output")
    return {kind: sum(getattr(charge, kind) for charge in charges) for kind in kinds}


def summary(record: dict) -> tuple[str, ...]:
    """Who, policy, outcome, credential: short."""
    who = record.get("almoner.subject", NOTHING)
    for long in ["https://issuer.prod.example", "prod.example/ns/support"]:
        who = who.replace(long, "…")
    outcome = record["almoner.outcome"]
    if reason := record.get("error.type"):
        outcome += f": {reason}"
    policy = record.get("almoner.policy", NOTHING)
    return who, policy, outcome, record.get("almoner.credential_id", NOTHING)
