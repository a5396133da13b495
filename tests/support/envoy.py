"""Takes a configuration file of envoy/, fits it to this machine; gives a running Envoy.

Nothing in the files is a placeholder: the harness reads the YAML and changes addresses and paths in
the parsed value, so what is tested is what users get.

    configuration = envoy.load("gateway.yaml", directory=d, trust=ca, endpoints={"openai": 4321})
    envoy.set_policy(configuration, document)
    with Envoy(configuration, d) as running:
        running.port("mtls"), running.lines(), running.stats()
"""

import collections
import json
import os
import pathlib
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable

import yaml

from . import paths, wasm
from .process import Process, eventually

PLACEHOLDER = "/etc/almoner/"
SYSTEM_TRUST = "/etc/ssl/certs/ca-certificates.crt"
ACCESS_LOG = "/dev/stdout"
# What Envoy tells about itself to who reaches its admin port.
ADMIN = ["/config_dump?include_eds", "/stats", "/stats/prometheus", "/clusters", "/listeners"]
ADMIN += ["/server_info", "/certs", "/init_dump", "/memory", "/runtime"]
# The end of the name of the file where that is kept when it stops.
PAGES = "-pages.txt"
# Nothing listens there: who asks for a cluster that a test did not provide is refused.
NOBODY = 1


def parse(name: str) -> dict:
    """The configuration `name` of envoy/ as it is."""
    return yaml.safe_load((paths.CONFIGURATIONS / name).read_text())


def load(name: str, *, directory: pathlib.Path, trust: pathlib.Path, endpoints: dict[str, int]):
    """The configuration `name` of envoy/ for this machine.

    `directory` stands for /etc/almoner, `trust` for the system's authorities; each cluster's
    endpoint is 127.0.0.1 at the port that `endpoints` names; listeners and admin take any port.
    """
    configuration = parse(name)
    fit(configuration, directory=directory, trust=trust, endpoints=endpoints)
    return configuration


def fit(configuration: dict, *, directory: pathlib.Path, trust: pathlib.Path, endpoints: dict):
    """Changes addresses and paths in place."""
    moved = {PLACEHOLDER: f"{directory}/", SYSTEM_TRUST: str(trust)}

    def move(value):
        if isinstance(value, str):
            for old, new in moved.items():
                if value.startswith(old):
                    return new + value.removeprefix(old)
        return value

    _rewrite(configuration, move)
    addresses = [configuration["admin"]["address"]]
    addresses += [each["address"] for each in configuration["static_resources"]["listeners"]]
    for address in addresses:
        address["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    for cluster in configuration["static_resources"]["clusters"]:
        for group in cluster["load_assignment"]["endpoints"]:
            for each in group["lb_endpoints"]:
                port = endpoints.get(cluster["name"], NOBODY)
                each["endpoint"]["address"]["socket_address"] = {
                    "address": "127.0.0.1",
                    "port_value": port,
                }


def http_managers(configuration: dict) -> list[dict]:
    """The HTTP connection manager of each listener, in order."""
    return [
        network_filter["typed_config"]
        for listener in configuration["static_resources"]["listeners"]
        for chain in listener["filter_chains"]
        for network_filter in chain["filters"]
    ]


def plugins(configuration: dict) -> list[dict]:
    """The `PluginConfig` of our filter in each listener."""
    return [
        http_filter["typed_config"]["config"]
        for manager in http_managers(configuration)
        for http_filter in manager["http_filters"]
        if http_filter["name"] == "almoner"
    ]


def policy(configuration: dict) -> dict:
    """The policy document inside."""
    return json.loads(plugins(configuration)[0]["configuration"]["value"])


def set_policy(configuration: dict, document: dict):
    for plugin in plugins(configuration):
        plugin["configuration"]["value"] = json.dumps(document)


def use_module(configuration: dict, module: pathlib.Path, *, adapt_capabilities: bool):
    """Runs `module` as the filter, allowed what it needs, or else what the file allows."""
    for plugin in plugins(configuration):
        plugin["vm_config"]["code"] = {"local": {"filename": str(module)}}
        if adapt_capabilities:
            allowed = {name: {} for name in sorted(wasm.capabilities(module))}
            plugin["vm_config"]["capability_restriction_config"] = {"allowed_capabilities": allowed}


class Envoy(Process):
    """A running Envoy, ready to serve. `name` tells several in one directory apart."""

    def __init__(
        self,
        configuration: dict,
        directory: pathlib.Path,
        *,
        name: str = "envoy",
        concurrency: int = 2,
        log_level: str = "info",
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.access_log = directory / f"{name}-access.log"
        self.access_log.touch()
        self._pages = directory / f"{name}{PAGES}"
        for manager in http_managers(configuration):
            for log in manager.get("access_log", []):
                if log["typed_config"]["path"] in (ACCESS_LOG, str(self.access_log)):
                    log["typed_config"]["path"] = str(self.access_log)
        bootstrap = directory / f"{name}.json"
        bootstrap.write_text(json.dumps(configuration, indent=1))
        admin = directory / f"{name}-admin"
        admin.unlink(missing_ok=True)
        command = [paths.envoy(), "-c", bootstrap, "--admin-address-path", admin]
        command += ["--concurrency", concurrency, "--log-level", log_level]
        command += ["--disable-hot-restart", "--file-flush-interval-msec", 20]
        command += ["--drain-time-s", 1, "--parent-shutdown-time-s", 2]
        super().__init__(name, command, directory)
        self.admin_address = ""
        self.admin_address = self.await_ready(lambda: admin.exists() and admin.read_text().strip())
        self.await_ready(self._live)
        self._ports = {
            status["name"]: status["local_address"]["socket_address"]["port_value"]
            for status in json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        }

    def port(self, listener: str) -> int:
        return self._ports[listener]

    def admin(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(f"http://{self.admin_address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def stats(self, prefix: str = "") -> dict[str, int]:
        """Counters and gauges whose name starts with `prefix`."""
        path = f"/stats?format=json&filter={urllib.parse.quote('^' + prefix)}"
        found = json.loads(self.admin(path))["stats"]
        return {stat["name"]: stat["value"] for stat in found if "name" in stat}

    def counters(self) -> collections.Counter:
        """The plugin's: `after - before` is what was counted between."""
        found = self.stats("wasmcustom.almoner_")
        counts = {name.removeprefix("wasmcustom."): value for name, value in found.items()}
        return collections.Counter(counts)

    def prometheus(self) -> str:
        """All stats, with their labels."""
        return self.admin("/stats/prometheus")

    def config_dump(self) -> str:
        return self.admin("/config_dump?include_eds")

    def lines(self) -> list[dict]:
        """The access log so far."""
        text = self.access_log.read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def line(self, answer) -> dict:
        """The access log's line of an exchange. A caller has a connection for each, so a port: the
        last one that had it, since ports come back."""

        def one():
            lines = (line for line in reversed(self.lines()) if line["source"] == answer.source)
            return next((line for line in lines if line["time"] >= answer.began), None)

        return eventually(one, what=f"an access log line of {answer.source}")

    def record(self, answer) -> dict:
        """The record that the plugin left of an exchange."""
        return self.line(answer)["record"]

    def pages(self) -> str:
        """All that the admin port tells."""
        return "".join(self.admin(path) for path in ADMIN)

    def stop(self, seconds: float = 10) -> int:
        """Keeps what its admin port tells, then ends it."""
        try:
            self._pages.write_text(self.pages() if self.running() else "")
        except OSError:
            # Not ready yet, or hanging: it tells nothing.
            pass
        return super().stop(seconds)

    def await_lines(self, count: int, such: Callable[[dict], bool] = lambda _: True) -> list[dict]:
        """Awaits `count` lines (`such` that) and gives all of these."""

        def enough():
            found = [line for line in self.lines() if such(line)]
            return found if len(found) >= count else None

        return eventually(enough, seconds=10, what=f"{count} access log lines")

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _live(self) -> bool:
        try:
            return json.loads(self.admin("/server_info"))["state"] == "LIVE"
        except (OSError, ValueError):
            return False


def validate(configuration: dict, directory: pathlib.Path) -> str | None:
    """What Envoy has against the configuration; `None` if it would start with it."""
    bootstrap = directory / "validate.json"
    bootstrap.write_text(json.dumps(configuration))
    command = [paths.envoy(), "--mode", "validate", "--log-level", "warning", "-c", bootstrap]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    return None if run.returncode == 0 else run.stderr + run.stdout


def _rewrite(value, change: Callable):
    """Replaces each leaf by what `change` makes of it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(items):
        if isinstance(child, (dict, list)):
            _rewrite(child, change)
        else:
            value[key] = change(child)
