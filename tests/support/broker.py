"""Gives brokers: the real one, and one that answers whatever a test says.

    broker = stand.adopt(Broker(stand))          # dist/almoner-broker, serving the stand's gateway
    broker = ScriptedBroker(stand)               # mTLS too; `broker.respond = lambda form: ...`
    gateway = stand.envoy(broker=broker.port)
"""

import dataclasses
import http.server
import json
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable

from . import envoy, paths
from .identity import AUDIENCE
from .process import Process

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
# The SPIFFE ID of the stand's gateway, towards the broker.
GATEWAY = "spiffe://prod.example/ns/almoner/sa/gateway"
SPIFFE_ID = "urn:almoner:params:oauth:token-type:spiffe-id"


class Broker(Process):
    """dist/almoner-broker with the gateway's policy document; `port` is its token endpoint.

    It lists the stand's gateway, for all subjects of its trust domain and its issuer, and each
    workload of the namespace `support` as a sidecar, for itself.
    """

    def __init__(self, stand, name: str = "broker"):
        directory = stand.directory / name
        directory.mkdir()
        self._pages = stand.run / f"{name}-pages.txt"
        ready = directory / "ready.json"
        configuration = {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "policy": "policy.json",
            "tls": {
                "certificate": str(stand.broker_certificate.cert),
                "key": str(stand.broker_certificate.key),
                "trust_bundle": str(stand.envoys.ca),
            },
            "envoys": [
                {
                    "id": GATEWAY,
                    "speaks_for": ["spiffe://prod.example/ns/*/sa/*", f"jwt:{stand.issuer.url}|**"],
                },
                {"id": "spiffe://prod.example/ns/support/sa/*", "speaks_for": "self"},
            ],
            "issuers": [
                {
                    "issuer": stand.issuer.url,
                    "audiences": [AUDIENCE],
                    "jwks_file": str(stand.directory / "jwks.json"),
                }
            ],
            "credentials": "credentials.json",
        }
        expires = "2100-01-01"
        credentials = {
            "openai": {"key": stand.openai_key, "kind": "bearer", "expires": expires},
            "anthropic": {"key": stand.anthropic_key, "kind": "header", "expires": expires},
        }
        for credential in credentials.values():
            credential |= {"owner": "ml-platform", "environment": "prod"}
        policy = envoy.policy(envoy.parse("gateway.yaml"))
        contents = {"credentials": credentials, "policy": policy, "broker": configuration}
        for stem, content in contents.items():
            file = directory / f"{stem}.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps(content))
        command = [paths.broker(), "serve", "--config", directory / "broker.json"]
        super().__init__(name, [*command, "--ready-file", ready], stand.run)
        self.await_ready(ready.exists)
        bound = json.loads(ready.read_text())
        self.port = int(bound["token"].rsplit(":", 1)[1])
        self._admin = bound["admin"]

    def events(self) -> list[dict]:
        """The audit trail so far."""
        lines = self.log.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if "sequence" in entry]

    def stop(self, seconds: float = 10) -> int:
        """Keeps its metrics, then ends it."""
        if self.running() and hasattr(self, "_admin"):
            with urllib.request.urlopen(f"http://{self._admin}/metrics", timeout=10) as page:
                self._pages.write_bytes(page.read())
        return super().stop(seconds)


@dataclasses.dataclass
class Reply:
    """What the scripted broker answers."""

    status: int = 200
    body: bytes = b""
    delay: float = 0
    content_type: str = "application/json"
    hang_up: bool = False
    """No answer: the connection is closed."""


class ScriptedBroker:
    """An mTLS token endpoint. `respond` gets each request's form and gives a `Reply`;
    by default a lease as the real broker would give one. `forms` is what was asked, in order."""

    def __init__(self, stand, expires_in: int = 300):
        self.stand = stand
        self.expires_in = expires_in
        self.respond: Callable[[dict], Reply] = self.lease
        self.forms: list[dict[str, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = stand.broker_certificate
        context.load_cert_chain(certificate.cert, certificate.key)
        context.load_verify_locations(stand.envoys.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.context = context
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def lease(self, form: dict[str, str], **changes) -> Reply:
        """A good answer; `changes` replace its fields."""
        provider = form["audience"]
        keys = {"openai": self.stand.openai_key, "anthropic": self.stand.anthropic_key}
        answer = {
            "access_token": keys[provider],
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer" if provider == "openai" else "N_A",
            "expires_in": self.expires_in,
            "subject": self.subject(form),
            "credential_id": f"{provider}/scripted",
        }
        return Reply(body=json.dumps(answer | changes).encode())

    def refusal(self, error: str = "access_denied", status: int = 400) -> Reply:
        return Reply(status, json.dumps({"error": error}).encode())

    def subject(self, form: dict[str, str]) -> str:
        """The subject asked for: the SPIFFE ID, or the token's issuer and `sub`."""
        if form["subject_token_type"] != JWT:
            return form["subject_token"]
        import jwt

        claims = jwt.decode(form["subject_token"], options={"verify_signature": False})
        return f"jwt:{claims['iss']}|{claims['sub']}"

    def stop(self):
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request, client_address):
        # The handshake belongs to the connection's thread, not to the one that accepts.
        request.settimeout(20)
        try:
            request = self.context.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        super().finish_request(request, client_address)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def handle_error(self, request, client_address):
        """A caller that went away is not this server's error."""


def _handler(broker: ScriptedBroker):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):  # noqa: N802
            length = int(self.headers.get("content-length", 0))
            form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
            broker.forms.append(form)
            reply = broker.respond(form)
            time.sleep(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("content-type", reply.content_type)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_):
            """Quiet: forms contain tokens."""

    return Handler
