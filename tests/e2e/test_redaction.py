"""What the search at the end of every run finds: see tests/conftest.py."""

import base64
import json

import pytest

from support import envoy, paths
from support.caller import Caller
from support.redaction import Search

KEY = b"sk-proj-0123456789abcdefghijklmnopqrstuv"


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY[:20],
        KEY[-20:],
        b'{"authorization":"Bearer ' + KEY + b'"}',
        b"?key=" + KEY + b"&x=1",
        KEY.hex().encode(),
        KEY.hex().upper().encode(),
        base64.b64encode(KEY),
        base64.b64encode(b"u:" + KEY + b":"),
        base64.urlsafe_b64encode(b'{"k":"' + KEY + b'"}'),
    ],
)
def test_a_planted_key_is_found_however_it_is_written(written):
    assert Search({"planted": KEY}).content(b"[info] " + written + b" said somebody\n")


@pytest.mark.parametrize("written", [b"", b"sk-proj-", KEY[:15], KEY[::-1], b"x" * 10_000])
def test_what_is_no_piece_of_a_key_is_not_found(written):
    assert not Search({"planted": KEY}).content(written)


def test_a_token_is_found_in_any_of_its_parts(stand):
    token = stand.issuer.mint("support-bot").encode()
    search = Search({"token": token})
    for part in token.split(b"."):
        assert search.content(b"x " + part[:40] + b"\n")


def test_a_secret_in_an_envoys_debug_log_is_found(stand, tmp_path):
    """Envoy at `debug` prints what callers send: a leak that is there to be found."""
    secret, configuration = "sk-ant-planted-in-a-log-0123456789", stand.configuration("gateway.yaml")
    envoy.use_module(configuration, paths.empty_filter(), adapt_capabilities=True)
    with envoy.Envoy(configuration, tmp_path, concurrency=1, log_level="debug") as talkative:
        Caller(talkative.port("jwt"), stand.servers.ca, token=secret).chat("planted")
    search = Search({"planted": secret.encode()})
    assert search.content((tmp_path / "envoy.log").read_bytes())
    assert not search.content(json.dumps(configuration).encode())


def test_the_stand_searches_all_that_is_written(stand):
    """Each kind of file that something writes in a run."""
    for name in ("gateway.log", "gateway-access.log", "gateway-pages.txt", "answers.log"):
        leaky = stand.run / f"leaky-{name}"
        leaky.write_text(f"here: {stand.openai_key}\n")
        leaky.with_name("leaky-gateway.json").write_text("{}")
        try:
            assert [leak.split(":")[0] for leak in stand.leaks()] == [leaky.name]
        finally:
            leaky.unlink()
