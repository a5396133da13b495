"""Takes a command; gives a process whose output is kept in files and which is always reaped."""

import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable


class Process:
    """A child process. `stop()` it, or use it as a context manager."""

    def __init__(self, name: str, command: list, directory: pathlib.Path, environment=None):
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def await_ready(self, ready: Callable[[], object], seconds: float = 20):
        """Awaits a truthy `ready()` and returns it; fails with the log if the process ends."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.running():
                code = self._child.returncode
                raise RuntimeError(f"{self.name} ended with {code}:\n{self.tail()}")
            if value := ready():
                return value
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"{self.name} was not ready in {seconds} s:\n{self.tail()}")

    def tail(self) -> str:
        return tail(self.log)

    def stop(self, seconds: float = 10) -> int:
        """Asks it to end, insists after `seconds`; gives the exit code."""
        if self.running():
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return self._child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def tail(log: pathlib.Path, lines: int = 40) -> str:
    """The end of a log, without the inventory that Envoy opens with."""
    found = [line[:500] for line in log.read_text(errors="replace").splitlines()]
    telling = [line for line in found if not re.search(r"server\.cc:\d+\]  ", line)]
    return "\n".join(telling[-lines:])


def eventually(condition: Callable[[], object], seconds: float = 5, what: str = "condition"):
    """Awaits `condition()` being truthy and returns its value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)
