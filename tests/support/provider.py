"""Starts the simulated provider; gives what it received, and tells it how to misbehave.

What can be cued is said in tests/provider/src/behaviour.rs. Per request, by a marker in the text:

    caller.chat(cue(end="reset", at=3))        # "[[sim end=reset at=3]]" in the message

or for requests to come, whoever makes them:

    provider.script({"fail": "rate-limited", "retry-after": 3}, times=2)
"""

import base64
import dataclasses
import json
import pathlib
import urllib.request

from . import paths
from .identity import Certificate
from .process import Process, eventually


def cue(**behaviour) -> str:
    """A marker for one request: `cue(end="reset", at=3, pace_ms=20)`. No value may hold a space."""
    words = [f"{name.replace('_', '-')}={_word(value)}" for name, value in behaviour.items()]
    return f"[[sim {' '.join(words)}]]"


@dataclasses.dataclass(frozen=True)
class Received:
    """One request as the provider saw it, and what became of it."""

    number: int
    connection: int
    sni: str | None
    protocol: str
    method: str
    path: str
    authority: str | None
    headers: list[tuple[str, str]]
    body: bytes | None
    trailers: list[tuple[str, str]]
    status: int | None
    stream: bool
    spent: dict[str, int]
    reported: dict[str, int] | None
    ended: str | None

    def header(self, name: str) -> str | None:
        """The one value of a header; fails where it was repeated."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} arrived {len(values)} times"
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)

    def everything(self) -> bytes:
        """All bytes that arrived, to look for something in."""
        pairs = [self.method, self.path, self.authority or "", self.sni or ""]
        pairs += [f"{name}: {value}" for name, value in self.headers + self.trailers]
        return "\n".join(pairs).encode() + b"\n" + (self.body or b"")


class Provider(Process):
    """The simulated provider: `tls`, `plain` and `admin` are its ports."""

    def __init__(
        self, directory: pathlib.Path, certificate: Certificate, openai_key: str, anthropic_key: str
    ):
        ready = directory / "provider-ready.json"
        ready.unlink(missing_ok=True)
        command = [paths.provider(), "--ready-file", ready]
        command += ["--accept-key", f"openai={openai_key}"]
        command += ["--accept-key", f"anthropic={anthropic_key}"]
        command += ["--tls-cert", certificate.cert, "--tls-key", certificate.key]
        super().__init__("provider", command, directory)
        self.await_ready(ready.exists)
        ports = json.loads(ready.read_text())
        self.tls, self.plain, self.admin = ports["tls"], ports["plain"], ports["admin"]

    def script(self, behaviour: dict, *, model: str | None = None, times: int | None = None):
        """Requests to come (that name `model`) are answered so; replaces what was said before."""
        self.rules([{"behaviour": behaviour, "model": model, "times": times}])

    def rules(self, rules: list[dict]):
        """The whole script; an empty list is the normal provider."""
        self._ask("PUT", "/behaviour", json.dumps(rules).encode())

    def requests(self, containing: str = "") -> list[Received]:
        """All that was received, oldest first; only those with `containing` somewhere in them."""
        entries = json.loads(self._ask("GET", "/requests"))
        found = [_received(entry) for entry in entries]
        return [each for each in found if containing.encode() in each.everything()]

    def request(self, containing: str, *, ended: bool = False) -> Received:
        """The one request with `containing` in it; awaits it, and with `ended` also its end."""

        def one():
            found = self.requests(containing)
            assert len(found) < 2, f"{containing!r} arrived {len(found)} times"
            return found[0] if found and (found[0].ended or not ended) else None

        return eventually(one, what=f"a request with {containing!r} at the provider")

    def forget(self):
        self._ask("DELETE", "/requests")

    def served(self) -> dict:
        """Totals since the start: connections, requests, streams, spent, reported, ..."""
        return json.loads(self._ask("GET", "/served"))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.admin}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()


def _received(entry: dict) -> Received:
    body = None if entry["body"] is None else base64.b64decode(entry["body"])
    pairs = {name: [tuple(pair) for pair in entry[name]] for name in ("headers", "trailers")}
    return Received(**entry | pairs | {"body": body})


def _word(value) -> str:
    word = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if any(c.isspace() or c == '"' for c in word):
        raise ValueError(f"{word!r} does not fit in a marker; use Provider.script")
    return word
