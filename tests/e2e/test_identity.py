"""Who counts as whom: by token, by certificate, by sidecar; and what never counts.

To add a token, a certificate or a header that must not be believed: add a line to its table.
"""

import json
import ssl
import time
import urllib.parse

import pytest

from support.broker import GRANT, JWT, SPIFFE_ID, ScriptedBroker
from support.caller import MESSAGES, Caller, Reset
from support.identity import Issuer, self_signed
from support.stand import BOT, GATEWAY, SIDECAR

PROTOCOLS = ["http/1.1", "h2"]
SLOTS = ["authorization", "x-api-key", "api-key", "x-goog-api-key"]


@pytest.fixture(scope="module")
def broker(stand):
    broker = ScriptedBroker(stand)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def gateway(stand, broker):
    """The gateway, and beside it a listener whose TLS asks for no name in the certificate."""

    def edit(configuration):
        listeners = configuration["static_resources"]["listeners"]
        lax = json.loads(json.dumps(listeners[0])) | {"name": "lax"}
        del tls(lax)["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
        listeners.append(lax)

    return stand.envoy(edit=edit, name="identity", broker=broker.port)


def tls(listener):
    return listener["filter_chains"][0]["transport_socket"]["typed_config"]


@pytest.fixture(autouse=True)
def only_this_test(stand):
    stand.provider.forget()


def bearer(slot: str, token: str) -> tuple[str, str]:
    return slot, f"Bearer {token}" if slot == "authorization" else token


def assert_refused(stand, gateway, answer, reason, status=401):
    assert (answer.status, answer.header("almoner-reason")) == (status, reason), answer.body
    assert gateway.record(answer)["error.type"] == reason
    assert stand.provider.requests() == []


# Tokens that prove nothing, and the reason that the caller is told.
BAD_TOKENS = {
    "expired": (lambda i: i.mint("support-bot", expires_in=-60), "token_expired"),
    # Of this, jwt_authn says no more than of a bad signature.
    "without an expiry": (
        lambda i: i.mint("support-bot", expires_in=None),
        "token_bad_signature",
    ),
    "not yet valid": (
        lambda i: i.mint("support-bot", nbf=time.time() + 900),
        "token_not_yet_valid",
    ),
    "of another audience": (lambda i: i.mint("support-bot", aud="elsewhere"), "token_bad_audience"),
    "of other audiences": (lambda i: i.mint("support-bot", aud=["a", "b"]), "token_bad_audience"),
    "without an audience": (lambda i: i.mint("support-bot", aud=None), "token_bad_audience"),
    "of another issuer": (
        lambda _: Issuer("https://elsewhere.example").mint("support-bot"),
        "token_bad_issuer",
    ),
    "signed by another": (lambda i: i.signed_by_another("support-bot"), "token_bad_signature"),
    "of another key id": (
        lambda i: Issuer(i.url, key_id="key-2").mint("support-bot"),
        "token_bad_signature",
    ),
    "altered": (lambda i: i.altered("support-bot", to="support-root"), "token_bad_signature"),
    "unsigned": (lambda i: i.unsigned("support-bot"), "token_malformed"),
    "signed with the public key": (
        lambda i: i.signed_with_public_key("support-bot"),
        "token_bad_signature",
    ),
    "without its signature": (
        lambda i: i.mint("support-bot").rsplit(".", 1)[0] + ".",
        "token_malformed",
    ),
    "cut short": (lambda i: i.mint("support-bot").rsplit(".", 1)[0], "token_malformed"),
    "a provider's key": (lambda _: "sk-proj-just-a-key", "token_malformed"),
    "empty": (lambda _: "", "token_malformed"),
    "two tokens": (lambda i: f"{i.mint('support-a')},{i.mint('support-b')}", "token_malformed"),
    "without a subject": (lambda i: i.mint(None), "subject_malformed"),
    "an empty subject": (lambda i: i.mint(""), "subject_malformed"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("slot", ["authorization", "x-api-key"])
@pytest.mark.parametrize("bad", BAD_TOKENS)
def test_a_bad_token_is_a_401_that_says_why(stand, gateway, bad, slot, protocol):
    make, reason = BAD_TOKENS[bad]
    caller = Caller(gateway.port("jwt"), stand.servers.ca, protocol=protocol)
    headers = [bearer(slot, make(stand.issuer))]
    assert_refused(stand, gateway, caller.chat("bad token", headers=headers), reason)
    answer = caller.messages("bad token", headers=headers)
    assert_refused(stand, gateway, answer, reason)
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("slot", SLOTS)
def test_a_good_token_counts_in_each_slot(stand, broker, gateway, slot):
    token = stand.issuer.mint(f"support-{slot}")
    caller = Caller(gateway.port("jwt"), stand.servers.ca)
    answer = caller.chat("good token", headers=[bearer(slot, token)])
    assert answer.status == 200
    subject = f"jwt:{stand.issuer.url}|support-{slot}"
    assert gateway.record(answer)["almoner.subject"] == subject
    asked = broker.forms[-1]
    assert (asked["subject_token"], asked["subject_token_type"]) == (token, JWT)


@pytest.mark.parametrize(
    ("first", "second", "subject", "reason"),
    [
        ("good", "good", "support-first", None),
        ("good", "key", "support-first", None),
        ("good", "expired", "support-first", None),
        ("key", "good", "support-second", None),
        ("expired", "good", "support-second", None),
        ("expired", "key", None, "token_expired"),
        ("key", "expired", None, "token_malformed"),
        ("nobody's", "good", "root", "no_policy"),
    ],
)
def test_of_two_tokens_the_first_good_one_decides(
    stand, broker, gateway, first, second, subject, reason
):
    def token(kind, name):
        issuer = stand.issuer
        return {
            "good": lambda: issuer.mint(name),
            "expired": lambda: issuer.mint(name, expires_in=-60),
            "nobody's": lambda: issuer.mint("root"),
            "key": lambda: stand.plant("sk-ant-"),
        }[kind]()

    tokens = [token(first, "support-first"), token(second, "support-second")]
    # The order of the slots counts, not that of the headers.
    headers = [bearer("x-api-key", tokens[1]), bearer("authorization", tokens[0])]
    before = len(broker.forms)
    caller = Caller(gateway.port("jwt"), stand.servers.ca)
    answer = caller.chat("two tokens", headers=headers)
    if reason:
        status = 403 if reason == "no_policy" else 401
        assert_refused(stand, gateway, answer, reason, status)
        assert len(broker.forms) == before
    else:
        assert answer.status == 200
        # A lease that is at hand is not asked for again.
        decided = tokens[subject != "support-first"]
        assert all(form["subject_token"] == decided for form in broker.forms[before:])
        received = stand.provider.request("two tokens").everything()
        assert not any(token.encode() in received for token in tokens)
    if subject:
        assert gateway.record(answer)["almoner.subject"] == f"jwt:{stand.issuer.url}|{subject}"


# What a `sub` may say, and the subject that it is: of a token, whatever it spells.
SUBJECTS = {
    "a SPIFFE ID": (BOT, BOT),
    "its own prefix": ("jwt:https://issuer.prod.example|support-bot", None),
    "a separator": ("x|support-bot", "x%7Csupport-bot"),
    "a star": ("*", "%2A"),
    "a path up": ("../support-bot", "../support-bot"),
    "an escape": ("support%2Dbot", "support%252Dbot"),
    "other case": ("Support-bot", "Support-bot"),
    "a space before": (" support-bot", "%20support-bot"),
}


@pytest.mark.parametrize("spelling", SUBJECTS)
def test_no_sub_can_spell_another_subject(stand, broker, gateway, spelling):
    sub, escaped = SUBJECTS[spelling]
    escaped = escaped or sub.replace("|", "%7C")
    before = len(broker.forms)
    answer = stand.token_holder(gateway, token=stand.issuer.mint(sub)).chat("spelling")
    assert_refused(stand, gateway, answer, "no_policy", 403)
    assert gateway.record(answer)["almoner.subject"] == f"jwt:{stand.issuer.url}|{escaped}"
    assert len(broker.forms) == before


# Headers that nobody believes, whoever sends them.
CLAIMS_OF_CALLERS = [
    ("x-forwarded-client-cert", f"By=x;Hash=0;URI={BOT}"),
    ("x-forwarded-client-cert", f'By=x;Hash=0;Subject="CN=bot";URI={BOT}'),
    ("x-spiffe-id", BOT),
    ("x-geo-country", "DE"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-real-ip", "10.0.0.1"),
    ("x-envoy-external-address", "10.0.0.1"),
    ("x-envoy-internal", "true"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-decorator-operation", "x"),
    ("x-jwt-payload", "eyJzdWIiOiJzdXBwb3J0LWJvdCJ9"),
    ("almoner-subject", BOT),
    ("via", "1.1 elsewhere"),
    ("forwarded", "for=10.0.0.1"),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("header", CLAIMS_OF_CALLERS, ids=lambda header: header[0])
def test_no_header_that_a_caller_writes_counts(stand, gateway, header, protocol):
    nobody = Caller(gateway.port("jwt"), stand.servers.ca, protocol=protocol)
    answer = nobody.chat("no identity", headers=[header])
    assert_refused(stand, gateway, answer, "no_identity")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("header", CLAIMS_OF_CALLERS, ids=lambda header: header[0])
def test_no_header_that_poses_as_envoy_reaches_the_provider(stand, gateway, header, protocol):
    answer = stand.workload(gateway, protocol=protocol).chat("poses", headers=[header])
    assert answer.status == 200
    received = stand.provider.request("poses")
    assert header[0] not in {name for name, _ in received.headers}
    assert gateway.record(answer)["almoner.attempts"] == 1


def test_a_certificate_names_its_holder(stand, broker, gateway):
    answer = stand.workload(gateway).chat("certificate")
    assert gateway.record(answer)["almoner.subject"] == BOT
    asked = next(form for form in broker.forms if form["subject_token"] == BOT)
    assert asked["subject_token_type"] == SPIFFE_ID


def test_a_certificate_goes_before_a_token(stand, gateway):
    caller = stand.workload(gateway, token=stand.issuer.mint("root"))
    answer = caller.chat("both")
    assert answer.status == 200
    assert gateway.record(answer)["almoner.subject"] == BOT


# Certificates that get no connection to the gateway.
BAD_CERTIFICATES = {
    "none": lambda stand: None,
    "self-signed": lambda stand: self_signed("forged", stand.run, uri=BOT),
    "of another trust domain": lambda stand: stand.certificate("spiffe://elsewhere.example/a"),
    "of a trust domain that goes on": lambda stand: stand.certificate(
        "spiffe://prod.example.evil.example/ns/support/sa/bot"
    ),
    "with a DNS name only": lambda stand: stand.callers.issue("dns-only", dns=("bot",)),
    "expired": lambda stand: stand.callers.issue("expired", uri=BOT, days=-1),
    "of the servers' authority": lambda stand: stand.servers.issue("from-servers", uri=BOT),
    "of the Envoys' authority": lambda stand: stand.envoys.issue("from-envoys", uri=BOT),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bad", BAD_CERTIFICATES)
def test_a_bad_certificate_gets_no_connection(stand, gateway, bad, protocol):
    certificate = BAD_CERTIFICATES[bad](stand)
    port = gateway.port("mtls")
    caller = Caller(port, stand.servers.ca, certificate=certificate, protocol=protocol)
    with pytest.raises((ssl.SSLError, Reset, OSError)):
        caller.chat("bad certificate")
    assert stand.provider.requests() == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("of another trust domain", "certificate_wrong_trust_domain"),
        ("of a trust domain that goes on", "certificate_wrong_trust_domain"),
        ("with a DNS name only", "certificate_without_spiffe_id"),
    ],
)
def test_where_the_listener_lets_it_in_the_plugin_refuses_it(stand, gateway, bad, reason):
    certificate = BAD_CERTIFICATES[bad](stand)
    caller = Caller(gateway.port("lax"), stand.servers.ca, certificate=certificate)
    # A good token beside it does not help: present but bad is refused.
    caller.token = stand.issuer.mint("support-bot")
    assert_refused(stand, gateway, caller.chat("let in"), reason)


# The real broker, and sidecars that ask it.


@pytest.fixture(scope="module")
def real_broker(stand):
    return stand.broker()


@pytest.fixture(scope="module")
def real_gateway(stand, real_broker):
    return stand.envoy(name="brokered", broker=real_broker.port)


def sidecar(stand, broker, name, spiffe_id, **metadata):
    """An Envoy with this certificate towards the broker; `metadata` is who it says that it is."""
    certificate = stand.envoys.issue(name, uri=spiffe_id)

    def edit(configuration):
        configuration["node"]["metadata"] |= metadata
        own = {
            "certificate_chain": {"filename": str(certificate.cert)},
            "private_key": {"filename": str(certificate.key)},
        }
        for cluster in configuration["static_resources"]["clusters"]:
            if cluster["name"] == "broker":
                tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
                tls["tls_certificates"] = [own]

    return stand.envoy("sidecar.yaml", edit=edit, name=name, concurrency=1, broker=broker.port)


def test_a_sidecar_speaks_for_its_own_workload(stand, real_broker):
    """The app's key may be any string; so may what it says of itself."""
    own = sidecar(stand, real_broker, "sidecar-own", SIDECAR)
    key = stand.plant("any-string-")
    for protocol in PROTOCOLS:
        for header in [("authorization", f"Bearer {key}"), *CLAIMS_OF_CALLERS]:
            stand.provider.forget()
            app = Caller(own.port("app"), protocol=protocol)
            answer = app.chat("sidecar", headers=[header])
            assert answer.status == 200, answer.body
            assert own.record(answer)["almoner.subject"] == SIDECAR
            received = stand.provider.request("sidecar")
            assert received.header("authorization") == f"Bearer {stand.openai_key}"
            assert key.encode() not in received.everything()
    event = next(e for e in real_broker.events() if e.get("subject") == SIDECAR)
    assert (event["event"], event["envoy"]) == ("credential_issued", SIDECAR)


def test_a_sidecar_that_speaks_for_another_workload_gets_nothing(stand, real_broker):
    name, claimed = "sidecar-other", "spiffe://prod.example/ns/support/sa/treasurer"
    other = sidecar(stand, real_broker, name, SIDECAR, SERVICE_ACCOUNT="treasurer")
    answer = Caller(other.port("app")).chat("other's")
    assert_refused(stand, other, answer, "broker_refused", 403)
    event = next(e for e in real_broker.events() if e.get("subject") == claimed)
    assert (event["event"], event["reason"]) == ("exchange_refused", "not_its_subject")


def test_the_real_broker_serves_both_kinds_of_subject(stand, real_broker, real_gateway):
    for caller in (stand.workload(real_gateway), stand.token_holder(real_gateway)):
        assert caller.chat("brokered").status == 200
        assert caller.messages("brokered").status == 200
    issued = [e["subject"] for e in real_broker.events() if e["event"] == "credential_issued"]
    assert set(issued) >= {BOT, f"jwt:{stand.issuer.url}|support-bot"}


def exchange(stand, broker, certificate, token, kind):
    """What the holder of `certificate` is answered by the broker."""
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": kind}
    body = urllib.parse.urlencode(form | {"audience": "openai"}).encode()
    headers = [("content-type", "application/x-www-form-urlencoded")]
    caller = Caller(broker.port, stand.brokers.ca, certificate=certificate)
    with caller.open("POST", "/token", headers=headers, body=body) as live:
        live.await_head()
        # Not by `answer()`, which keeps it: here a good answer has a secret in it.
        return live.status, json.loads(live.read())


OTHER = "spiffe://prod.example/ns/support/sa/other"
UNLISTED = "spiffe://prod.example/web/shop"

# Who asks the broker for whom: certificate, subject token, and the error that answers it; `None`
# where not even the TLS session comes about.
ASKERS = {
    "a workload, its own token": (lambda s: s.certificate(BOT), "token", None),
    "a workload, its own name": (lambda s: s.certificate(BOT), BOT, None),
    "nobody, a token": (lambda s: None, "token", "invalid_client"),
    "nobody, the gateway's name": (lambda s: None, GATEWAY, "invalid_client"),
    "a forged gateway": (lambda s: self_signed("forged-gw", s.run, uri=GATEWAY), BOT, None),
    "the gateway's name, of the callers' authority": (
        lambda s: s.callers.issue("called-gateway", uri=GATEWAY),
        BOT,
        None,
    ),
    "an expired gateway": (lambda s: s.envoys.issue("old-gw", uri=GATEWAY, days=-1), BOT, None),
    "an Envoy that is not listed": (
        lambda s: s.envoys.issue("unlisted", uri=UNLISTED),
        UNLISTED,
        "invalid_client",
    ),
    "an Envoy that is not listed, a token": (
        lambda s: s.envoys.issue("unlisted", uri=UNLISTED),
        "token",
        "invalid_client",
    ),
    "an Envoy with a DNS name": (
        lambda s: s.envoys.issue("dns-envoy", dns=("gateway",)),
        BOT,
        "invalid_client",
    ),
    "a sidecar, another's name": (
        lambda s: s.envoys.issue("sidecar", uri=SIDECAR),
        OTHER,
        "unauthorized_client",
    ),
    "a sidecar, a token of its own workload": (
        lambda s: s.envoys.issue("sidecar", uri=SIDECAR),
        "token",
        "unauthorized_client",
    ),
    "the gateway, a name outside its trust domain": (
        lambda s: s.envoys.issue("gateway", uri=GATEWAY),
        "spiffe://elsewhere.example/ns/support/sa/bot",
        "unauthorized_client",
    ),
    "the gateway, an expired token": (
        lambda s: s.envoys.issue("gateway", uri=GATEWAY),
        "expired token",
        "invalid_request",
    ),
    "the gateway, an unsigned token": (
        lambda s: s.envoys.issue("gateway", uri=GATEWAY),
        "unsigned token",
        "invalid_request",
    ),
    "the gateway, a token for another audience": (
        lambda s: s.envoys.issue("gateway", uri=GATEWAY),
        "foreign token",
        "invalid_request",
    ),
    "the gateway, a subject without a policy": (
        lambda s: s.envoys.issue("gateway", uri=GATEWAY),
        "spiffe://prod.example/ns/web/sa/shop",
        "invalid_target",
    ),
}
TOKENS = {
    "token": lambda issuer: issuer.mint("support-bot"),
    "expired token": lambda issuer: issuer.mint("support-bot", expires_in=-60),
    "unsigned token": lambda issuer: issuer.unsigned("support-bot"),
    "foreign token": lambda issuer: issuer.mint("support-bot", aud="elsewhere"),
}


@pytest.mark.parametrize("asker", ASKERS)
def test_who_may_not_speak_for_a_subject_gets_nothing_from_the_broker(stand, real_broker, asker):
    certificate, subject, error = ASKERS[asker]
    is_token = subject in TOKENS
    token = TOKENS[subject](stand.issuer) if is_token else subject
    ask = (stand, real_broker, certificate(stand), token, JWT if is_token else SPIFFE_ID)
    if error is None:
        with pytest.raises((ssl.SSLError, Reset, OSError)):
            exchange(*ask)
        return
    status, answer = exchange(*ask)
    assert status >= 400
    assert set(answer) == {"error", "error_description"}
    assert answer["error"] == error


def test_a_listed_gateway_gets_a_lease(stand, real_broker):
    """What the refusals above would be worth without it: nothing."""
    gateway = stand.envoys.issue("gateway", uri=GATEWAY)
    status, answer = exchange(stand, real_broker, gateway, BOT, SPIFFE_ID)
    assert (status, answer["access_token"] == stand.openai_key) == (200, True)
