"""The demo's story is so; and where the filter does nothing, each of its steps says so."""

import io
import os
import re
import subprocess
import sys

import pytest

from support import paths

DEMO = paths.REPOSITORY / "demo"


def tell(**environment: str) -> subprocess.CompletedProcess:
    """The demo, as scripts/demo runs it once all is built."""
    usual = {"PYTHONPATH": str(paths.REPOSITORY / "tests"), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, DEMO],
        env=os.environ | usual | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_every_promise_of_the_story_is_kept():
    ran = tell()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^✓ all \d+ promises kept$", ran.stdout, re.MULTILINE)
    assert "✗" not in ran.stdout
    # Nobody looks at it: no colours. And no secret in full.
    assert "\033" not in ran.stdout
    assert not re.search(r"sk-proj-[0-9a-f]{10}|eyJ\w{20}", ran.stdout)


@pytest.fixture
def demo(monkeypatch):
    """The demo's modules."""
    monkeypatch.syspath_prepend(str(DEMO))
    import page
    import scene
    import story

    yield page, scene, story
    for module in (page, scene, story):
        del sys.modules[module.__name__]


def test_without_the_filter_every_step_breaks_a_promise(demo, tmp_path, monkeypatch):
    page, scene, story = demo
    monkeypatch.setattr(paths, "PLUGIN", paths.empty_filter())
    with scene.running(tmp_path) as running:
        for title, step in story.STEPS:
            told = page.Page(io.StringIO())
            try:
                step(told, running)
            except Exception as error:
                told.promise(f"no {type(error).__name__}", False)
            assert told.broken, title


def test_it_fails_where_envoy_does_not_start():
    ran = tell(ENVOY="/bin/false")
    assert ran.returncode == 1
    assert "envoy ended with 1" in ran.stdout


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--nonsense", 1)])
def test_its_arguments_are_explained(argument, code):
    command = [paths.REPOSITORY / "scripts/demo", argument]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode == code
    assert "--keep" in ran.stdout if code == 0 else "--help" in ran.stderr
