"""Takes a directory; gives what runs: provider, broker, Envoy, and workloads with an SDK."""

import json
import os
import pathlib
import ssl

from openai import DefaultHttpxClient, OpenAI
from support.identity import Certificate
from support.process import eventually
from support.stand import BOT, Stand

MODEL = "gpt-4o-mini"
HOURS = 3600


class Scene:
    """envoy/gateway.yaml as it is, but for addresses and paths; the broker with its defaults."""

    def __init__(self, directory: pathlib.Path):
        self.stand = Stand(directory / "almoner")
        self.tokens: list[str] = []
        """Every token that `token` gave."""
        try:
            self.broker = self.stand.broker(limits={})
            self.gateway = self.stand.envoy("gateway.yaml", name="envoy", broker=self.broker.port)
        except BaseException:
            self.stand.close()
            raise
        # Who signed the gateway's certificate. With this, the SDK needs nothing but URL and key.
        os.environ["SSL_CERT_FILE"] = str(self.stand.servers.ca)

    @property
    def provider(self):
        return self.stand.provider

    def url(self, listener: str = "jwt") -> str:
        return f"https://localhost:{self.gateway.port(listener)}/openai/v1"

    def token(self, name: str) -> str:
        """What the workload `name` has of its platform."""
        self.tokens.append(self.stand.issuer.mint(name))
        return self.tokens[-1]

    def workload(self, token: str, **how) -> OpenAI:
        """A workload that has a token."""
        # The SDK would wait and try again by itself; here each answer is to be seen.
        return OpenAI(base_url=self.url(), api_key=token, max_retries=0, **how)

    def certified(self, certificate: Certificate, **how) -> OpenAI:
        """A workload that has a certificate, and for a key whatever string the SDK insists on."""
        context = ssl.create_default_context(cafile=str(self.stand.servers.ca))
        context.load_cert_chain(certificate.cert, certificate.key)
        http = DefaultHttpxClient(verify=context)
        url = self.url("mtls")
        return OpenAI(base_url=url, api_key="none", http_client=http, max_retries=0, **how)

    def bot(self) -> Certificate:
        return self.stand.certificate(BOT)

    def record(self, name: str) -> dict:
        """The first record that the workload `name` left."""
        return eventually(lambda: self.records(name), what=f"a record of {name}")[0]

    def records(self, name: str = "") -> list[dict]:
        """The records so far, of the workload `name` or of all."""
        lines = [line["record"] for line in self.gateway.lines()]
        records = [record["value"] for record in lines if record]
        subject = f"jwt:{self.stand.issuer.url}|{name}"
        return [r for r in records if not name or r.get("almoner.subject") == subject]

    def by_hand(self) -> list[tuple[str, str]]:
        """Shell lines to try, each with a word about it. Secrets stay in files."""
        directory = self.stand.directory
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(self.stand.issuer.mint("support-hand", expires_in=8 * HOURS))
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
                f"export OPENAI_BASE_URL={self.url()} OPENAI_API_KEY=$(cat $D/token)",
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
                f"{curl}{certificate} \\\n  {self.url('mtls')}/chat/completions",
            ),
            ("the records", f"tail $D/run/{self.gateway.access_log.name}"),
            (
                "the metrics; what the provider received",
                f"curl -sS http://{self.gateway.admin_address}/stats?filter=almoner\n"
                f"curl -sS http://127.0.0.1:{self.provider.admin}/requests",
            ),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stand.close()
