"""Every file of envoy/ is loaded as it stands, but for addresses and paths."""

import pytest

from support import envoy, paths


@pytest.mark.parametrize("name", ["gateway.yaml", "sidecar.yaml"])
def test_a_real_envoy_takes_the_configuration(stand, name):
    configuration = stand.configuration(name)
    envoy.use_module(configuration, paths.plugin(), adapt_capabilities=False)
    assert envoy.validate(configuration, stand.run) is None


def test_an_app_reaches_the_provider_through_its_sidecar(stand):
    from support.caller import Caller

    sidecar = stand.envoy(
        "sidecar.yaml", module=paths.empty_filter(), edit=stand.with_provider_keys, name="sidecar"
    )
    assert Caller(sidecar.port("app")).chat("through the sidecar").status == 200
