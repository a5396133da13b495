"""Takes a directory; gives what runs: provider, broker, Envoy, and workloads with an SDK."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

from support import sdk
from support.envoy import Envoy
from support.identity import Certificate
from support.sdk import Workload
from support.stand import BOT, Stand

MODEL = "gpt-4o-mini"
HOURS = 3600


@contextlib.contextmanager
def running(directory: pathlib.Path) -> Iterator["Scene"]:
    """envoy/gateway.yaml as it is, but for addresses and paths; the broker with its defaults."""
    with Stand(directory / "almoner") as stand, sdk.trust(stand):
        broker = stand.broker(limits={})
        gateway = stand.envoy("gateway.yaml", name="envoy", broker=broker.port)
        yield Scene(stand, gateway)


class Scene:
    def __init__(self, stand: Stand, gateway: Envoy):
        self.stand = stand
        self.gateway = gateway
        self.left_over = stand.plant("sk-ant-")
        """A key that somebody forgot in an application's configuration."""

    @property
    def provider(self):
        return self.stand.provider

    def workload(self, name: str, token: str | None = None) -> Workload:
        """A workload with the token that its platform gave it, unless told."""
        return Workload(self.stand, self.gateway, name, token)

    def certified(self, certificate: Certificate):
        """The SDK of a workload that has a certificate and no token."""
        return sdk.by_certificate(self.stand, self.gateway, certificate)

    def bot(self) -> Certificate:
        return self.stand.certificate(BOT)

    def unverified_certificates(self) -> int:
        """How many handshakes Envoy ended because it could not verify the caller."""
        counters = self.gateway.stats("listener").items()
        return sum(value for name, value in counters if name.endswith("ssl.fail_verify_error"))

    def records(self) -> list[dict]:
        """All records so far."""
        return [line["record"] for line in self.gateway.lines() if line["record"]]

    def by_hand(self) -> list[tuple[str, str]]:
        """Shell lines to try, each with a word about it. Secrets stay in files."""
        directory = self.stand.directory
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(self.stand.issuer.mint("support-hand", expires_in=8 * HOURS))
        url = sdk.url(self.gateway, "/openai/v1")
        bot = self.bot()
        messages = [{"role": "user", "content": "Hello"}]
        create = f"OpenAI().chat.completions.create(model={MODEL!r}, messages={messages})"
        body = json.dumps({"model": MODEL, "messages": messages})
        curl = "curl -sS -i --cacert $SSL_CERT_FILE -H 'content-type: application/json'"
        curl += f" \\\n  -d '{body}' \\\n  "
        certificate = f"--cert $D/tls/{bot.cert.name} --key $D/tls/{bot.key.name}"
        return [
            (
                "what a workload has: a base URL and its own token",
                f"export D={directory}\n"
                f"export SSL_CERT_FILE=$D/tls/{self.stand.servers.ca.name}\n"
                f"export OPENAI_BASE_URL={url} OPENAI_API_KEY=$(cat $D/token)",
            ),
            (
                "the SDK, unchanged",
                f'.tools/venv/bin/python -c "from openai import OpenAI\nprint({create})"',
            ),
            (
                "or curl",
                f'{curl}-H "authorization: Bearer $OPENAI_API_KEY" '
                f"$OPENAI_BASE_URL/chat/completions",
            ),
            (
                "by certificate, without any token",
                f"{curl}{certificate} \\\n"
                f"  {sdk.url(self.gateway, '/openai/v1/chat/completions', 'mtls')}",
            ),
            ("the records", f"tail $D/run/{self.gateway.access_log.name}"),
            (
                "the metrics; what the provider received",
                f"curl -sS http://{self.gateway.admin_address}/stats?filter=almoner\n"
                f"curl -sS http://127.0.0.1:{self.provider.admin}/requests | tail -c 900",
            ),
        ]
