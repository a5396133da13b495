"""Takes a gateway; gives workloads that call through it with the providers' own SDKs.

    with sdk.trust(stand):
        bot = Workload(stand, gateway, "support-bot")
        bot.openai().chat.completions.create(...)      # bot.openai(AsyncOpenAI), bot.anthropic()
        bot.record()["gen_ai.usage.output_tokens"]

The SDKs are as they come, but for their base URL and key.
"""

import contextlib
import dataclasses
import os
import ssl

import openai

from .envoy import Envoy
from .identity import Certificate
from .process import eventually
from .stand import Stand


@contextlib.contextmanager
def trust(stand: Stand):
    """Meanwhile the SDKs of this process trust the gateway's certificate."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(stand.servers.ca)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = before


def url(gateway: Envoy, path: str, listener: str = "jwt") -> str:
    return f"https://localhost:{gateway.port(listener)}{path}"


class Workload:
    """A workload with a token: a good one in the name of `name`, unless told."""

    def __init__(self, stand: Stand, gateway: Envoy, name: str, token: str | None = None):
        self.gateway = gateway
        self.subject = f"jwt:{stand.issuer.url}|{name}"
        self.token = token or stand.issuer.mint(name)

    # Without retries of their own, so that each answer is seen; `how` may say otherwise.

    def openai(self, kind: type = openai.OpenAI, **how):
        how = {"max_retries": 0} | how
        return kind(base_url=url(self.gateway, "/openai/v1"), api_key=self.token, **how)

    def anthropic(self, kind: type | None = None, **how):
        # Slow to import, and the demo has no use for it.
        import anthropic

        how = {"max_retries": 0} | how
        kind = kind or anthropic.Anthropic
        return kind(base_url=url(self.gateway, "/anthropic"), api_key=self.token, **how)

    def records(self, count: int = 1) -> list[dict]:
        """What it left; awaits `count` records."""

        def enough():
            records = [line["record"] for line in self.gateway.lines()]
            found = [each for each in records if each.get("almoner.subject") == self.subject]
            return found if len(found) >= count else None

        return eventually(enough, what=f"{count} records of {self.subject}")

    def record(self) -> dict:
        """The one record that it left."""
        found = self.records()
        assert len(found) == 1, f"{len(found)} records of {self.subject}"
        return found[0]


def by_certificate(stand: Stand, gateway: Envoy, certificate: Certificate, **how):
    """OpenAI's SDK with a certificate, and for a key whatever string it insists on."""
    context = ssl.create_default_context(cafile=str(stand.servers.ca))
    context.load_cert_chain(certificate.cert, certificate.key)
    http = openai.DefaultHttpxClient(verify=context)
    base = url(gateway, "/openai/v1", "mtls")
    return openai.OpenAI(base_url=base, api_key="none", http_client=http, max_retries=0, **how)


@dataclasses.dataclass(frozen=True)
class Charge:
    """What a record says that an exchange came to."""

    input: int
    output: int
    completeness: str

    @classmethod
    def of(cls, record: dict) -> "Charge":
        kinds = (record.get(f"almoner.charged.{kind}_tokens", 0) for kind in ("input", "output"))
        return cls(*map(int, kinds), record.get("almoner.usage.completeness", "none"))
