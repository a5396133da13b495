"""Where things are; gives the binaries under test, or says which script makes them."""

import os
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CONFIGURATIONS = REPOSITORY / "envoy"
PLUGIN = REPOSITORY / "dist/almoner.wasm"


def envoy() -> pathlib.Path:
    """The Envoy binary: `$ENVOY`, or the one that scripts/setup installed."""
    chosen = os.environ.get("ENVOY")
    return _existing(pathlib.Path(chosen) if chosen else REPOSITORY / ".tools/bin/envoy", "setup")


def broker() -> pathlib.Path:
    return _existing(REPOSITORY / "dist/almoner-broker", "build")


def provider() -> pathlib.Path:
    return _existing(REPOSITORY / "dist/almoner-provider-sim", "build --for-tests")


def plugin() -> pathlib.Path:
    return _existing(PLUGIN, "build")


def empty_filter() -> pathlib.Path:
    return _existing(REPOSITORY / "dist/almoner-empty-filter.wasm", "build --for-tests")


def _existing(path: pathlib.Path, script: str) -> pathlib.Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; run ./scripts/{script}")
    return path
