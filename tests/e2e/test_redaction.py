"""The search for secrets that ends every run finds them: else its silence would mean nothing."""

import base64
import shutil

import pytest

from support import envoy, paths
from support.caller import Caller
from support.redaction import files, leaks, written

KEY = "sk-proj-0123456789abcdefghijklmnopqrstuv"


@pytest.mark.parametrize("lead", ["", "x", "xy", "xyz"])
def test_a_secret_is_found_in_each_disguise(lead):
    text = f"{lead}{KEY}&more".encode()
    things = {
        "plain": text,
        "in JSON": b'{"authorization":"Bearer ' + text + b'"}',
        "Base64": base64.b64encode(text),
        "Base64 of addresses": base64.urlsafe_b64encode(b'{"k":"' + text + b'"}'),
        "hex": text.hex().encode(),
        "upper case hex": text.hex().upper().encode(),
        "its beginning": text[: 20 + len(lead)],
        "its end": b"..." + KEY[-20:].encode(),
    }
    for name, content in things.items():
        assert leaks({"key": KEY}, [(name, b"[info] " + content + b" said\n")]), name


@pytest.mark.parametrize("content", ["", "sk-proj-", KEY[:15], KEY[::-1], "sk-proj-" + "f" * 32])
def test_a_text_without_it_is_clean(content):
    assert leaks({"key": KEY}, [("clean", content.encode())]) == []


def test_a_token_is_found_in_any_of_its_parts(stand):
    token = stand.issuer.mint("support-bot")
    for part in token.split("."):
        assert leaks({"token": token}, [("part", f"x {part[:40]}\n".encode())])


def test_a_secret_in_an_envoys_debug_log_is_found(stand, tmp_path):
    """Envoy at `debug` prints what callers send: a leak that is there to be found."""
    secret = "sk-ant-planted-in-a-log-0123456789"
    configuration = stand.configuration("gateway.yaml")
    envoy.use_module(configuration, paths.empty_filter(), adapt_capabilities=True)
    with envoy.Envoy(configuration, tmp_path, concurrency=1, log_level="debug") as talkative:
        Caller(talkative.port("jwt"), stand.servers.ca, token=secret).chat("planted")
    assert leaks({"planted": secret}, files([tmp_path / "envoy.log"]))


@pytest.mark.parametrize("name", ["envoy.log", "access.log", "pages.txt", "broker/audit.log"])
def test_the_end_of_the_run_searches_all_that_is_written(stand, name):
    leaky = stand.run / f"leaky/{name}"
    leaky.parent.mkdir(parents=True)
    leaky.write_text(f"here: {stand.openai_key}\n")
    try:
        assert [leak for leak in stand.leaks() if leak.endswith(f"in {leaky.name}")]
    finally:
        shutil.rmtree(stand.run / "leaky")


def test_what_admin_ports_and_answers_say_is_written(stand):
    """Each of the places that no process writes to by itself."""
    configuration = stand.configuration("gateway.yaml")
    envoy.use_module(configuration, paths.empty_filter(), adapt_capabilities=True)
    with envoy.Envoy(configuration, stand.run, name="told", concurrency=1) as told:
        Caller(told.port("jwt"), stand.servers.ca).chat("nobody listens: a 503 by Envoy")
    things = dict(written(stand))
    assert b"http.ingress.downstream_rq_total" in things["told-pages.txt"]
    assert b"envoy" in things["answers.log"]
