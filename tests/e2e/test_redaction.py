"""The scan for planted secrets finds them: else its silence would mean nothing."""

import base64

import pytest

from support.redaction import leaks

SECRET = "sk-proj-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("lead", ["", "x", "xy", "xyz"])
def test_a_secret_is_found_in_each_disguise(lead):
    things = {
        "plain": f"{lead}{SECRET} and more",
        "base64": base64.b64encode(f"{lead}{SECRET} and more".encode()).decode(),
        "hex": (lead + SECRET).encode().hex(),
        "half": lead + SECRET[20:],
    }
    for name, text in things.items():
        assert leaks({"key": SECRET}, [(name, text.encode())]), f"not found: {name}"


def test_a_text_without_it_is_clean():
    assert leaks({"key": SECRET}, [("clean", b"sk-proj-ffffffffffffffffffffffffffffffff")]) == []
