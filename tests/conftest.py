"""One stand for the whole run; what its processes wrote is shown where a test fails.

When the run is over, the secrets that were in use are searched for in all that was written.
"""

import pytest

from support import caller
from support.process import tail
from support.stand import Stand


@pytest.fixture(scope="session")
def stand(tmp_path_factory):
    stand = Stand(tmp_path_factory.mktemp("stand") / "etc")
    with (stand.run / "answers.log").open("wb", buffering=0) as caller.transcript, stand:
        yield stand
    leaks = stand.leaks()
    assert not leaks, "secrets were written:\n" + "\n".join(leaks)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    stand = getattr(item, "funcargs", {}).get("stand")
    if not stand:
        return
    with (stand.run / "tests.log").open("a") as output:
        output.write(report.capstdout + report.capstderr + report.caplog)
    if report.when == "call" and report.failed:
        for log in sorted(stand.run.glob("*.log")):
            report.sections.append((f"end of {log.name}", tail(log)))
