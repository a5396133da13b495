"""Takes planted secrets; gives where they were found in what anything of ours wrote.

    secrets = {"the provider's key": stand.openai_key, "a token": token}
    assert leaks(secrets, written(stand, gateway)) == []

A finding names the secret and the place; it never shows the secret.
"""

import base64
import pathlib
import urllib.parse
from collections.abc import Iterable, Iterator

# What Envoy tells about itself to who reaches its admin port.
ADMIN = ["/config_dump?include_eds", "/stats", "/stats/prometheus", "/clusters", "/listeners"]
ADMIN += ["/server_info", "/certs", "/init_dump", "/memory", "/runtime"]


def written(stand, *envoys) -> Iterator[tuple[str, bytes]]:
    """Every byte that the stand's processes wrote (logs, access logs, audit), and `envoys` tell.

    Not the files that a test itself gave them to read: keys, tokens, configurations.
    """
    for log in sorted(stand.run.rglob("*.log")):
        yield log.name, log.read_bytes()
    for envoy in envoys:
        for path in ADMIN:
            yield f"{envoy.name}{path}", envoy.admin(path).encode()


def files(paths: Iterable[pathlib.Path]) -> Iterator[tuple[str, bytes]]:
    """These files, as things that were written."""
    for path in paths:
        yield path.name, path.read_bytes()


def leaks(secrets: dict[str, str], things: Iterable[tuple[str, bytes]]) -> list[str]:
    """Which secret is found in which thing, as it is or in a usual disguise."""
    found = []
    for name, content in things:
        for what, secret in secrets.items():
            for disguise, form in _forms(secret.encode()):
                if form in content:
                    found.append(f"{what}, {disguise}, in {name}")
    return found


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", secret
    yield "hex", secret.hex().encode()
    yield "percent-encoded", urllib.parse.quote(secret, safe="").encode()
    # Inside a longer text, base64 depends on where the secret begins; its middle does not.
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret)
        yield "base64", encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
    # Half of a key is a leak too.
    yield "its first half", secret[: len(secret) // 2]
    yield "its second half", secret[len(secret) // 2 :]
