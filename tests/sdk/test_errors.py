"""Each refusal and failure as the error that each SDK has for it; ours told from the provider's."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import anthropic
import httpx2
import openai
import pytest

from support.identity import self_signed
from support.provider import cue
from support.sdk import Workload, by_certificate
from support.stand import BOT

REASON = "almoner-reason"


@dataclasses.dataclass(frozen=True)
class Sdk:
    """What a test needs of an SDK, whichever it is."""

    module: ModuleType
    ask: Callable
    """Takes a workload, a text and fields; gives an answer or raises."""

    def refused(self, workload: Workload, text: str = "Hello", **fields):
        """The error that it raises."""
        with pytest.raises(self.module.APIError) as raised:
            self.ask(workload, text, **fields)
        return raised.value

    def __str__(self):
        return self.module.__name__


def ask_openai(workload, text, model="gpt-4o-mini", max_tokens=64, **fields):
    return workload.openai().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        max_completion_tokens=max_tokens,
        **fields,
    )


def ask_anthropic(workload, text, model="claude-sonnet-5", max_tokens=64, **fields):
    return workload.anthropic().messages.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        max_tokens=max_tokens,
        **fields,
    )


OPENAI, ANTHROPIC = Sdk(openai, ask_openai), Sdk(anthropic, ask_anthropic)
both = pytest.mark.parametrize("sdk", [OPENAI, ANTHROPIC], ids=str)


@both
@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        (lambda issuer: issuer.signed_by_another("support-bot"), "token_bad_signature"),
        (lambda issuer: issuer.mint("support-bot", expires_in=-60), "token_expired"),
        (lambda issuer: issuer.mint("support-bot", aud="another"), "token_bad_audience"),
        (lambda issuer: "sk-a-key-of-somebody", "token_malformed"),
    ],
    ids=["signature", "expired", "audience", "key"],
)
def test_a_bad_token_is_an_authentication_error(stand, gateway, name, sdk, forged, reason):
    error = sdk.refused(Workload(stand, gateway, name, forged(stand.issuer)), name)
    assert type(error) is sdk.module.AuthenticationError
    assert error.response.headers[REASON] == reason
    assert stand.provider.requests(name) == []


@both
def test_a_model_beyond_the_policy_is_a_permission_error(stand, workload, name, sdk):
    error = sdk.refused(workload, name, model="gpt-4")
    assert type(error) is sdk.module.PermissionDeniedError
    assert error.response.headers[REASON] == "model_not_allowed"
    assert stand.provider.requests(name) == []


@both
def test_a_workload_without_policy_gets_a_permission_error(stand, gateway, sdk):
    error = sdk.refused(Workload(stand, gateway, "stranger"))
    assert type(error) is sdk.module.PermissionDeniedError
    assert error.response.headers[REASON] == "no_policy"


def test_what_the_provider_keeps_is_a_permission_error(workload):
    with pytest.raises(openai.PermissionDeniedError) as raised:
        workload.openai().files.list()
    assert raised.value.response.headers[REASON] == "provider_state"


@both
def test_too_much_output_is_a_bad_request_that_names_the_limit(workload, sdk):
    error = sdk.refused(workload, max_tokens=4097)
    assert type(error) is sdk.module.BadRequestError
    assert error.response.headers[REASON] == "max_output_tokens_too_large"
    assert "4096" in error.message


@both
def test_a_body_beyond_the_limit_is_too_large(stand, workload, name, sdk):
    error = sdk.refused(workload, name + "x" * (9 << 20))
    kind = {OPENAI: openai.APIStatusError, ANTHROPIC: anthropic.RequestTooLargeError}[sdk]
    assert type(error) is kind
    assert error.status_code == 413
    assert error.response.headers[REASON] == "body_too_large"


@both
def test_a_spent_budget_is_a_rate_limit_error(stand, workload, name, sdk):
    sdk.ask(workload, f"spends it all {cue(input=200_000)}")
    error = sdk.refused(workload, name)
    assert type(error) is sdk.module.RateLimitError
    assert error.response.headers[REASON] == "budget_spent"
    assert 0 < int(error.response.headers["retry-after"]) < 120
    assert stand.provider.requests(name) == []


# What the provider answers itself passes as it is, without a reason of ours.
PROVIDERS_OWN = [
    ("bad-request", "BadRequestError", 400),
    ("permission", "PermissionDeniedError", 403),
    ("not-found", "NotFoundError", 404),
    ("rate-limited", "RateLimitError", 429),
    ("server", "InternalServerError", 500),
]


@both
@pytest.mark.parametrize(("fail", "kind", "status"), PROVIDERS_OWN, ids=str)
def test_the_providers_own_error_passes_without_our_reason(workload, sdk, fail, kind, status):
    error = sdk.refused(workload, cue(fail=fail, retry_after=7))
    assert type(error) is getattr(sdk.module, kind)
    assert error.status_code == status
    assert REASON not in error.response.headers
    assert error.response.headers["retry-after"] == "7"
    assert workload.record()["http.response.status_code"] == status


@both
def test_an_overloaded_provider_is_told_from_us(workload, sdk):
    error = sdk.refused(workload, cue(fail="overloaded"))
    kind, status = {
        OPENAI: (openai.InternalServerError, 503),
        ANTHROPIC: (anthropic.OverloadedError, 529),
    }[sdk]
    assert (type(error), error.status_code) == (kind, status)
    assert REASON not in error.response.headers


@both
def test_a_credential_that_the_provider_refuses_is_our_bad_gateway(stand, workload, sdk):
    error = sdk.refused(workload, cue(fail="bad-credential"))
    # Not an AuthenticationError: there is nothing wrong with what the workload presented.
    assert type(error) is sdk.module.InternalServerError
    assert error.status_code == 502
    assert error.response.headers[REASON] == "provider_bad_credential"
    assert "Incorrect API key" not in error.message
    assert sdk.ask(workload, "the next one gets a new lease")


@pytest.fixture(scope="module")
def brokerless(stand):
    return stand.envoy(name="sdk-brokerless")


@both
def test_without_a_broker_it_is_a_server_error(stand, name, sdk, brokerless):
    error = sdk.refused(Workload(stand, brokerless, name), name)
    assert isinstance(error, sdk.module.InternalServerError)
    assert error.status_code == 503
    assert error.response.headers[REASON] == "broker_unavailable"
    assert int(error.response.headers["retry-after"]) > 0
    assert stand.provider.requests(name) == []


def test_the_body_of_an_error_is_in_openais_shape(workload):
    error = OPENAI.refused(workload, model="gpt-4")
    assert (error.type, error.code) == ("insufficient_permissions", "model_not_allowed")
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.request_id == workload.record()["almoner.request_id"]


def test_the_body_of_an_error_is_in_anthropics_shape(workload):
    error = ANTHROPIC.refused(workload, model="gpt-4")
    assert error.type == "permission_error"
    assert error.body["request_id"] == workload.record()["almoner.request_id"]


@both
def test_an_error_event_inside_a_stream_is_raised(workload, sdk):
    with pytest.raises(sdk.module.APIError):
        list(sdk.ask(workload, cue(end="error", at=4), stream=True))
    assert workload.record()["almoner.charged.output_tokens"] > 0


@both
def test_a_stream_that_breaks_off_is_an_error_and_is_charged(workload, sdk):
    # Anthropic's SDK leaves it to the library below.
    kind = {OPENAI: openai.APIConnectionError, ANTHROPIC: httpx2.RemoteProtocolError}[sdk]
    with pytest.raises(kind):
        list(sdk.ask(workload, cue(end="reset", at=4, pace_ms=5), stream=True))
    record = workload.record()
    assert record["almoner.ended"] == "provider_reset"
    assert record["almoner.charged.output_tokens"] > 0
    # Anthropic had reported the input by then.
    completeness = {OPENAI: "estimated", ANTHROPIC: "partial"}[sdk]
    assert record["almoner.usage.completeness"] == completeness


def test_a_forged_certificate_is_a_connection_error(stand, gateway):
    forged = self_signed("sdk-forged", stand.directory / "tls", uri=BOT)
    with pytest.raises(openai.APIConnectionError):
        by_certificate(stand, gateway, forged).models.list()
