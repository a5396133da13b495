"""The demo's story is so; and where the filter does nothing, each of its steps says so."""

import io
import sys

import pytest

from support import paths


@pytest.fixture
def demo(monkeypatch):
    """The demo's modules."""
    monkeypatch.syspath_prepend(str(paths.REPOSITORY / "demo"))
    import page
    import scene
    import story

    yield page, scene, story
    for module in (page, scene, story):
        del sys.modules[module.__name__]


@pytest.fixture
def acted(demo, tmp_path):
    """Acts the steps; gives, for each, its title, what it promised and what of it was broken."""
    page_module, scene_module, story = demo

    def act():
        outcome = []
        with scene_module.running(tmp_path) as scene:
            for title, step in story.STEPS:
                page = page_module.Page(io.StringIO())
                try:
                    step(page, scene)
                except Exception as error:
                    page.promise(f"no {type(error).__name__}", False)
                outcome.append((title, page.promises, page.broken))
        return outcome

    return act


def test_every_promise_of_the_story_is_kept(acted):
    for title, promises, broken in acted():
        assert promises > 0 and broken == [], title


def test_without_the_filter_every_step_breaks_a_promise(acted, monkeypatch):
    monkeypatch.setattr(paths, "PLUGIN", paths.empty_filter())
    for title, _, broken in acted():
        assert broken, title
