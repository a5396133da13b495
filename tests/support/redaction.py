"""Takes secrets; gives where they, or pieces of them, stand in what anything of ours wrote.

    leaks({"the provider's key": stand.openai_key}, written(stand, gateway)) == []

Every run of the tests ends with such a search, for all the secrets that it used: see conftest.py.
A finding names the secret and the place; it never shows the secret. A piece is found wherever 20 of
its characters stand together, so that a line that cuts a key short hides nothing.
"""

import base64
import pathlib
import re
from collections.abc import Iterable, Iterator

# A piece that is looked up, and how far apart such lookups are: together, what is surely found.
PIECE = 16
STRIDE = 5
# Longer than any provider's key: tokens and private keys, which are Base64 already.
KEY = 200
# All that a token, a key, or an encoding of one is made of.
_WORDS = re.compile(rb"[A-Za-z0-9+/_.=-]{%d,}" % (PIECE + STRIDE - 1))
# What processes and tests write, as against what they are given to read.
_WRITTEN = {".log", ".txt"}


def written(stand, *envoys) -> Iterator[tuple[str, bytes]]:
    """Every byte that the stand's processes wrote (logs, access logs, audit, answers, what admin
    ports told at the end), and what the admin ports of `envoys` tell now."""
    yield from files(path for path in sorted(stand.run.rglob("*")) if path.suffix in _WRITTEN)
    for envoy in envoys:
        yield f"{envoy.name}'s admin port", envoy.pages().encode()


def files(paths: Iterable[pathlib.Path]) -> Iterator[tuple[str, bytes]]:
    """These files, as things that were written."""
    for path in paths:
        yield path.name, path.read_bytes()


def leaks(secrets: dict[str, str], things: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which secret is found in which thing, as it is or in a usual disguise."""
    pieces = _pieces(secrets)
    found = {
        f"{what}, in {name}"
        for name, content in things
        for word in set(_WORDS.findall(content))
        for at in range(0, len(word) - PIECE + 1, STRIDE)
        if (what := pieces.get(word[at : at + PIECE]))
    }
    return sorted(found)


def _pieces(secrets: dict[str, str]) -> dict[bytes, str]:
    """Every piece of every form of each secret, and what it is a piece of."""
    pieces = {}
    for name, secret in secrets.items():
        if len(secret) < PIECE + STRIDE - 1:
            raise ValueError(f"{name} is too short to be told from chance")
        for disguise, form in _forms(secret.encode()):
            for at in range(len(form) - PIECE + 1):
                pieces.setdefault(form[at : at + PIECE], f"{name}, {disguise}")
    return pieces


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", secret
    if len(secret) > KEY:
        return
    yield "hex", secret.hex().encode()
    yield "hex", secret.hex().upper().encode()
    # Inside a longer text, Base64 depends on where the secret begins; its middle does not.
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret)
        middle = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield "Base64", middle
        yield "Base64", middle.replace(b"+", b"-").replace(b"/", b"_")
