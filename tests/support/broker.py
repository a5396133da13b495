"""Gives brokers: the real one, and one that answers whatever a test says.

    broker = stand.broker()                      # dist/almoner-broker, with the gateway's policy
    broker = ScriptedBroker(stand)               # mTLS too; `broker.respond = lambda form: ...`
    gateway = stand.envoy(broker=broker.port)
"""

import contextlib
import copy
import dataclasses
import http.server
import json
import pathlib
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable

from . import paths
from .identity import AUDIENCE
from .process import Process

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
SPIFFE_ID = "urn:almoner:params:oauth:token-type:spiffe-id"


class Broker(Process):
    """The real broker: `port` is its token endpoint's."""

    def __init__(self, configuration: dict, directory: pathlib.Path, *, name: str = "broker"):
        directory.mkdir(parents=True, exist_ok=True)
        ready = directory / f"{name}-ready.json"
        ready.unlink(missing_ok=True)
        file = directory / f"{name}.json"
        file.write_text(json.dumps(configuration, indent=1))
        command = [paths.broker(), "serve", "--config", file, "--ready-file", ready]
        super().__init__(name, command, directory)
        self.await_ready(ready.exists)
        self._pages = directory / f"{name}-pages.txt"
        self._audit = pathlib.Path(configuration["audit"])
        bound = json.loads(ready.read_text())
        self.port, self._admin = (int(bound[name].rsplit(":", 1)[1]) for name in ("token", "admin"))

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self._admin}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def events(self) -> list[dict]:
        """The audit trail so far."""
        lines = self._audit.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stop(self, seconds: float = 10) -> int:
        """Keeps its metrics, then ends it."""
        if self.running() and hasattr(self, "_admin"):
            self._pages.write_text(self.metrics())
        return super().stop(seconds)


def configuration(stand, policy: dict, **changes) -> dict:
    """What the real broker is told: the stand's gateway speaks for the workloads, a sidecar for
    itself. Writes the files that it names. `changes` replace fields."""
    directory = stand.run / "broker"
    directory.mkdir(exist_ok=True)
    (directory / "policy.json").write_text(json.dumps(policy))
    keys = {"openai": (stand.openai_key, "bearer"), "anthropic": (stand.anthropic_key, "header")}
    environment = policy["policies"][0].get("environment")
    credentials = {
        provider: {"key": key, "kind": kind, "expires": "2099-01-01", "environment": environment}
        for provider, (key, kind) in keys.items()
    }
    secret = directory / "credentials.json"
    secret.touch(mode=0o600)
    secret.write_text(json.dumps(credentials))
    usual = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "policy": str(directory / "policy.json"),
        "tls": {
            "certificate": str(stand.broker_certificate.cert),
            "key": str(stand.broker_certificate.key),
            "trust_bundle": str(stand.envoys.ca),
        },
        "envoys": [
            {
                "id": stand.gateway_id,
                "speaks_for": [
                    "spiffe://prod.example/ns/*/sa/*",
                    f"jwt:{stand.issuer.url}|**",
                ],
            },
            {"id": "spiffe://prod.example/ns/*/sa/*", "speaks_for": "self"},
        ],
        "issuers": [
            {
                "issuer": stand.issuer.url,
                "audiences": [AUDIENCE],
                "jwks_file": str(stand.directory / "jwks.json"),
            }
        ],
        "credentials": str(secret),
        "audit": str(directory / "audit.log"),
        # A test is one Envoy identity, and in more of a hurry than a gateway.
        "limits": {"exchanges_per_second": 10_000},
    }
    return copy.deepcopy(usual) | changes


@dataclasses.dataclass
class Reply:
    """What the scripted broker answers."""

    status: int = 200
    body: bytes = b""
    delay: float = 0
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    hang_up: bool = False
    """No answer: the connection is closed."""


class ScriptedBroker:
    """An mTLS token endpoint. `respond` gets each request's form and gives a `Reply`;
    by default a lease as the real broker would give one. `scripts` has other answers for some
    subjects. `forms` is what was asked, in order."""

    def __init__(self, stand, expires_in: int = 300):
        self.stand = stand
        self.expires_in = expires_in
        self.respond: Callable[[dict], Reply] = self.lease
        self.scripts: dict[str, Callable[[dict], Reply]] = {}
        self.forms: list[dict[str, str]] = []
        self.port = 0
        self._start()

    def answer(self, form: dict[str, str]) -> Reply:
        self.forms.append(form)
        return self.scripts.get(self.subject(form), self.respond)(form)

    def asked(self, subject: str) -> list[dict[str, str]]:
        """What was asked for one subject, in order."""
        return [form for form in self.forms if self.subject(form) == subject]

    def lease(self, form: dict[str, str], **changes) -> Reply:
        """A good answer; `changes` replace its fields."""
        provider = form["audience"]
        anthropic = provider == "anthropic"
        answer = {
            "access_token": self.stand.anthropic_key if anthropic else self.stand.openai_key,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "N_A" if anthropic else "Bearer",
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
        """Nobody listens any more, and open connections are cut."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()

    @contextlib.contextmanager
    def down(self, *, silent: bool = False):
        """Meanwhile connections are refused, or (`silent`) accepted and never served."""
        self.stop()
        with socket.socket() as listener:
            if silent:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen()
            yield
        self._start()

    def _start(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = self.stand.broker_certificate
        context.load_cert_chain(certificate.cert, certificate.key)
        context.load_verify_locations(self.stand.envoys.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self._server.context = context
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext

    def __init__(self, *arguments):
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def cut(self):
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request, client_address):
        # The handshake belongs to the connection's thread, not to the one that accepts.
        request.settimeout(20)
        try:
            request = self.context.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        self._open.add(request)
        super().finish_request(request, client_address)
        self._open.discard(request)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A caller that went away is not this server's error."""


def _handler(broker: ScriptedBroker):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One write an answer: else the other side's delayed acknowledgement costs 40 ms.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self):  # noqa: N802
            length = int(self.headers.get("content-length", 0))
            form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
            reply = broker.answer(form)
            time.sleep(reply.delay)
            if reply.hang_up:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("content-type", reply.content_type)
            self.send_header("content-length", str(len(reply.body)))
            for name, value in reply.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_):
            """Quiet: forms contain tokens."""

    return Handler
