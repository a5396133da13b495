"""Takes a directory; gives everything around Envoy, and Envoys in it.

    stand = Stand(directory)                       # authorities, issuer, keys, simulated provider
    broker = stand.broker()                        # dist/almoner-broker; or a ScriptedBroker(stand)
    gateway = stand.envoy(broker=broker.port)      # envoy/gateway.yaml with dist/almoner.wasm
    answer = stand.workload(gateway).chat("Hello") # by certificate, HTTP/1.1
    answer = stand.token_holder(gateway, slot="x-api-key", protocol="h2").messages("Hello")
    stand.provider.request("Hello").header("authorization")
"""

import pathlib
import secrets
from collections.abc import Callable

from . import broker, envoy, paths, redaction
from .caller import Caller
from .envoy import Envoy
from .identity import Authority, Certificate, Issuer
from .provider import Provider

TRUST_DOMAIN = "prod.example"
BOT = f"spiffe://{TRUST_DOMAIN}/ns/support/sa/bot"
TOKEN_SUBJECT = "support-bot"
GATEWAY = f"spiffe://{TRUST_DOMAIN}/ns/almoner/sa/gateway"
SIDECAR = f"spiffe://{TRUST_DOMAIN}/ns/support/sa/support-bot"
BROKER_NAME = "broker.almoner.internal"


class Stand:
    """`directory` stands for /etc/almoner; what processes write goes to its `run/`."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.run = directory / "run"
        self.run.mkdir(parents=True)
        tls = directory / "tls"
        self.callers = Authority("callers", tls)
        self.brokers = Authority("broker", tls)
        self.envoys = Authority("envoys", tls)
        self.providers = Authority("providers", tls)
        self.servers = Authority("servers", tls)
        self.servers.issue("server", dns=("almoner.prod.example", "localhost"))
        self.gateway_id = GATEWAY
        self.envoys.issue("envoy", uri=GATEWAY)
        self.broker_certificate = self.brokers.issue("broker", dns=(BROKER_NAME,))
        self.issuer = Issuer()
        (directory / "jwks.json").write_text(self.issuer.jwks())

        self._planted: list[str] = []
        self.openai_key = self.plant("sk-proj-")
        self.anthropic_key = self.plant("sk-ant-")
        certificate = self.providers.issue(
            "provider", dns=("api.openai.com", "api.anthropic.com", "localhost")
        )
        self.provider = Provider(self.run, certificate, self.openai_key, self.anthropic_key)
        self._processes = [self.provider]

    def configuration(self, name: str, **endpoints: int) -> dict:
        """envoy/NAME for this stand; both providers' clusters lead to the simulated one."""
        usual = {"openai": self.provider.tls, "anthropic": self.provider.tls}
        return envoy.load(
            name,
            directory=self.directory,
            trust=self.providers.ca,
            endpoints=usual | endpoints,
        )

    def broker(self, *, policy: dict | None = None, **changes) -> broker.Broker:
        """The real broker, with the gateway's policy document unless told; ends with the stand."""
        policy = policy or envoy.policy(self.configuration("gateway.yaml"))
        configuration = broker.configuration(self, policy, **changes)
        name = f"broker-{len(self._processes)}"
        return self.adopt(broker.Broker(configuration, self.run, name=name))

    def envoy(
        self,
        file: str = "gateway.yaml",
        *,
        name: str | None = None,
        module: pathlib.Path | None = None,
        edit: Callable[[dict], None] | None = None,
        concurrency: int = 2,
        **endpoints: int,
    ) -> Envoy:
        """A running Envoy with envoy/FILE; it ends with the stand.

        `module` takes the place of dist/almoner.wasm; `edit` may change the configuration before;
        `endpoints` are clusters' ports: `broker=stand.broker().port`.
        """
        configuration = self.configuration(file, **endpoints)
        wanted = module or paths.plugin()
        envoy.use_module(configuration, wanted, adapt_capabilities=module is not None)
        if edit:
            edit(configuration)
        name = name or f"envoy-{len(self._processes)}"
        return self.adopt(Envoy(configuration, self.run, name=name, concurrency=concurrency))

    def with_provider_keys(self, configuration: dict):
        """An edit for the empty filter, which swaps no credential: the routes add the keys."""
        keys = {
            "openai": ("authorization", f"Bearer {self.openai_key}"),
            "anthropic": ("x-api-key", self.anthropic_key),
        }
        for manager in envoy.http_managers(configuration):
            for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
                name, value = keys[route["name"]]
                header = {"key": name, "value": value}
                action = "OVERWRITE_IF_EXISTS_OR_ADD"
                route["request_headers_to_add"] = [{"header": header, "append_action": action}]

    def adopt(self, process):
        """Ends `process` with the stand."""
        self._processes.append(process)
        return process

    def workload(self, gateway: Envoy, *, spiffe_id: str = BOT, **how) -> Caller:
        """A caller with a certificate."""
        certificate = self.certificate(spiffe_id)
        how = {"subject": spiffe_id, "certificate": certificate} | how
        return Caller(gateway.port("mtls"), self.servers.ca, **how)

    def token_holder(self, gateway: Envoy, *, token: str | None = None, **how) -> Caller:
        """A caller with a token: a good one in the authorization header, unless told."""
        token = token or self.issuer.mint(TOKEN_SUBJECT)
        return Caller(gateway.port("jwt"), self.servers.ca, token=token, **how)

    def certificate(self, spiffe_id: str) -> Certificate:
        stem = spiffe_id.removeprefix("spiffe://").replace("/", "_")
        return self.callers.issue(stem, uri=spiffe_id)

    def plant(self, prefix: str = "sk-proj-") -> str:
        """A new secret, which must then be found in nothing that is written."""
        self._planted.append(prefix + secrets.token_hex(16))
        return self._planted[-1]

    def secrets(self) -> dict[str, str]:
        """Every secret of this stand: planted ones, tokens, private keys."""
        named = {f"planted key {n}": key for n, key in enumerate(self._planted)}
        named |= {f"token {n}": token for n, token in enumerate(self.issuer.minted)}
        for path in self.directory.rglob("*.key"):
            named[path.name] = "".join(path.read_text().splitlines()[1:-1])
        return named

    def leaks(self) -> list[str]:
        """Which secret stands in what, of all that processes and tests have written.

        What an Envoy tells repeats its configuration, so a secret that a test itself put there is
        no leak of the plugin's.
        """
        secrets, found, things = self.secrets(), [], []
        for name, content in redaction.written(self):
            owner = self.run / (name.removesuffix(envoy.PAGES) + ".json")
            given = owner.read_text() if name.endswith(envoy.PAGES) and owner.exists() else ""
            others = {what: secret for what, secret in secrets.items() if secret not in given}
            if others == secrets:
                things.append((name, content))
            else:
                found += redaction.leaks(others, [(name, content)])
        return found + redaction.leaks(secrets, things)

    def close(self):
        while self._processes:
            self._processes.pop().stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
