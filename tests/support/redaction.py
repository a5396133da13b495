"""Takes secrets; gives which of them, or of their pieces, stand in what was written.

    search = Search({"openai key": b"sk-proj-..."})
    search.content(log.read_bytes())              # {"openai key (plain)"}

Every run of the tests ends with such a search over all that was written: see conftest.py.
A piece is found wherever 20 of its characters stand together, so that a log line that cuts a key
short hides nothing. Keys are also looked for in hexadecimal and Base64.
"""

import base64
import re
from collections.abc import Iterator

WINDOW = 16
STRIDE = 5
# Longer than any provider's key: tokens and private keys, which are Base64 already.
KEY = 200
# All that a token, a key, or an encoding of one is made of.
_WORDS = re.compile(rb"[A-Za-z0-9+/_.=-]{%d,}" % (WINDOW + STRIDE - 1))


class Search:
    """What is looked for: names and secrets."""

    def __init__(self, secrets: dict[str, bytes]):
        self._windows: dict[bytes, str] = {}
        for name, secret in secrets.items():
            if len(secret) < WINDOW + STRIDE - 1:
                raise ValueError(f"{name} is too short to be told from chance")
            for how, form in _forms(secret):
                for at in range(len(form) - WINDOW + 1):
                    self._windows.setdefault(form[at : at + WINDOW], f"{name} ({how})")

    def content(self, content: bytes) -> set[str]:
        """Which secrets stand in `content`, and how they are written there."""
        found = set()
        for word in set(_WORDS.findall(content)):
            for at in range(0, len(word) - WINDOW + 1, STRIDE):
                if name := self._windows.get(word[at : at + WINDOW]):
                    found.add(name)
        return found


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    yield "plain", secret
    if len(secret) > KEY:
        return
    yield "hexadecimal", secret.hex().encode()
    yield "hexadecimal", secret.hex().upper().encode()
    for before in range(3):
        # What stands before it, and after it, in the same text shifts it.
        text = base64.b64encode(b"\0" * before + secret)[-(-before * 4 // 3) : -4]
        yield "Base64", text
        yield "Base64", text.replace(b"+", b"-").replace(b"/", b"_")
