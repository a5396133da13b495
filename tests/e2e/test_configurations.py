"""Every file of envoy/ is loaded as it stands, but for addresses and paths."""

import pytest

from support import envoy, fragments, paths
from support.caller import Caller

FRAGMENTS = {"istio.yaml": fragments.istio, "envoy-gateway.yaml": fragments.envoy_gateway}


@pytest.mark.parametrize("name", ["gateway.yaml", "sidecar.yaml"])
def test_a_real_envoy_takes_the_configuration(stand, name):
    configuration = stand.configuration(name)
    envoy.use_module(configuration, paths.plugin(), adapt_capabilities=False)
    assert envoy.validate(configuration, stand.run) is None


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_real_envoy_takes_the_fragments(stand, name):
    configuration = FRAGMENTS[name](name)
    envoy.fit(configuration, directory=stand.directory, trust=stand.providers.ca, endpoints={})
    envoy.use_module(configuration, paths.plugin(), adapt_capabilities=False)
    assert envoy.plugins(configuration), "the filter is not in the chain"
    assert envoy.validate(configuration, stand.run) is None


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_has_what_the_gateway_has(name):
    gateway = envoy.parse("gateway.yaml")
    fragment = FRAGMENTS[name](name)
    assert chain(fragment) == chain(gateway)
    [ours], theirs = envoy.plugins(fragment), envoy.plugins(gateway)[0]
    for field in theirs.keys() - {"configuration"}:
        assert ours[field] == theirs[field], field
    assert envoy.policy(fragment)["policies"][0]["allow"] == envoy.policy(gateway)["policies"][0]["allow"]


def chain(configuration: dict) -> dict:
    manager = envoy.http_managers(configuration)[0]
    filters = {each["name"]: each["typed_config"] for each in manager["http_filters"]}
    del filters["almoner"], filters["envoy.filters.http.router"]
    names = ["early_header_mutation_extensions", "access_log", "normalize_path", "merge_slashes"]
    names += ["path_with_escaped_slashes_action", "stream_idle_timeout", "use_remote_address"]
    return {"filters": filters} | {name: manager[name] for name in names}


def test_an_app_reaches_the_provider_through_its_sidecar(stand):
    sidecar = stand.envoy(
        "sidecar.yaml", module=paths.empty_filter(), edit=stand.with_provider_keys, name="sidecar"
    )
    assert Caller(sidecar.port("app")).chat("through the sidecar").status == 200


@pytest.mark.parametrize("name", ["gateway.yaml", "sidecar.yaml"])
def test_envoy_does_not_take_a_policy_document_that_has_an_unknown_field(stand, name):
    configuration = stand.configuration(name)
    envoy.use_module(configuration, paths.plugin(), adapt_capabilities=False)
    envoy.set_policy(configuration, envoy.policy(configuration) | {"polices": []})
    assert "polices" in (envoy.validate(configuration, stand.run) or "")
