"""Takes the built plugin, broker and provider; tells the story, and ends with 0 if all of it is so.

    PYTHONPATH=tests .tools/venv/bin/python demo [--keep]    # or scripts/demo: it builds first
"""

import argparse
import pathlib
import signal
import sys
import tempfile
import threading

from page import Page
from scene import Scene, running
from story import STEPS, opening
from support.process import tail


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--keep", action="store_true", help="leave it running; Ctrl-C ends it")
    options = parser.parse_args()
    # Whoever ends us ends what we started.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    page = Page(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="almoner-demo-") as directory:
        try:
            with running(pathlib.Path(directory)) as scene:
                tell(page, scene)
                if options.keep:
                    by_hand(page, scene)
        except KeyboardInterrupt:
            return 130
        except (FileNotFoundError, RuntimeError) as error:
            page.line(page.bad(f"✗ {error}"))
            return 1
        if page.broken:
            for log in sorted(pathlib.Path(directory).rglob("*.log")):
                print(f"\n--- end of {log.name}\n{tail(log)}", file=sys.stderr)
    return 1 if page.broken else 0


def tell(page: Page, scene: Scene):
    opening(page, scene)
    for number, (title, step) in enumerate(STEPS, 1):
        page.title(f"{number}  {title}")
        try:
            step(page, scene)
        except Exception as error:  # A step that ends early breaks a promise.
            page.promise("the step ran to its end", False, f"{type(error).__name__}: {error}")
    page.line()
    if not page.broken:
        page.line(page.good(f"✓ all {page.promises} promises kept"))
        return
    page.line(page.bad(f"✗ {len(page.broken)} of {page.promises} promises broken:"))
    for promise in page.broken:
        page.line(page.bad(f"    {promise}"))


def by_hand(page: Page, scene: Scene):
    page.title("Still running. To try by hand; Ctrl-C ends it all:")
    for comment, command in scene.by_hand():
        page.line(page.faint(f"\n# {comment}"))
        page.line(command)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.line()


if __name__ == "__main__":
    sys.exit(main())
