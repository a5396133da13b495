"""The plugin as a file: what it asks of its host, and how large it is."""

import pathlib
import subprocess

import pytest

from support import envoy, paths, wasm

LARGEST = 800 * 1024


def test_the_plugin_is_small_enough():
    assert paths.plugin().stat().st_size <= LARGEST


def test_the_plugin_imports_nothing_but_the_proxy_wasm_interface():
    stray = {name for name in wasm.imports(paths.plugin()) if not name.startswith("env.proxy_")}
    assert stray == set()


@pytest.mark.parametrize("name", ["gateway.yaml", "sidecar.yaml"])
def test_each_configuration_allows_exactly_what_the_plugin_needs(name):
    needed = wasm.capabilities(paths.plugin())
    for plugin in envoy.plugins(envoy.parse(name)):
        allowed = plugin["vm_config"]["capability_restriction_config"]["allowed_capabilities"]
        assert set(allowed) == needed


def test_the_core_as_wasm_imports_nothing_at_all(tmp_path):
    """No clock, no randomness, no I/O: whatever needed one would be an import."""
    command = ["cargo", "rustc", "--quiet", "--release", "--target=wasm32-unknown-unknown"]
    command += ["-p", "almoner-core", "--crate-type=cdylib", "--", "-o", tmp_path / "core.wasm"]
    subprocess.run(list(map(str, command)), cwd=paths.REPOSITORY, check=True)
    [module] = pathlib.Path(tmp_path).glob("*.wasm")
    assert wasm.imports(module) == set()
