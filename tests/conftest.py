"""One stand for the whole run; what its processes wrote is shown where a test fails."""

import pytest

from support.process import tail
from support.stand import Stand


@pytest.fixture(scope="session")
def stand(tmp_path_factory):
    with Stand(tmp_path_factory.mktemp("stand") / "etc") as stand:
        yield stand


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    stand = getattr(item, "funcargs", {}).get("stand")
    if report.when == "call" and report.failed and stand:
        for log in sorted(stand.run.glob("*.log")):
            report.sections.append((f"end of {log.name}", tail(log)))

