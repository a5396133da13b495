"""The gateway as shipped, with the real broker; and for each test a workload of its own name."""

import re

import pytest

from support import sdk
from support.sdk import Workload


@pytest.fixture(scope="session", autouse=True)
def trusted(stand):
    with sdk.trust(stand):
        yield


@pytest.fixture(scope="session")
def gateway(stand):
    return stand.envoy(broker=stand.broker().port, name="sdk")


@pytest.fixture
def name(request):
    """A subject that the policy knows, and that no other test has: its budgets are its own."""
    test = f"{request.path.stem}-{request.node.name}"
    return "support-" + re.sub(r"\W+", "-", test).strip("-")


@pytest.fixture
def workload(stand, gateway, name):
    return Workload(stand, gateway, name)
