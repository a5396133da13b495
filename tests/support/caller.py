"""Takes a port and an identity; gives requests of every kind, down to the bytes.

    caller = Caller(port, trust=ca, certificate=bot)            # or token="ey..."; protocol="h2"
    answer = caller.chat("Hello")                               # Answer: status, headers, body
    with caller.open("POST", path, body=body) as exchange:      # or live:
        for event in exchange.events(): ...
        exchange.hang_up()
    caller.raw(b"GET / HTTP/1.1\\r\\n...")                        # or whatever bytes
"""

import collections
import dataclasses
import datetime
import http.client
import json
import pathlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from .identity import Certificate

SECONDS = 20
CHAT = "/openai/v1/chat/completions"
MESSAGES = "/anthropic/v1/messages"
ANTHROPIC_VERSION = ("anthropic-version", "2023-06-01")


# Where all that callers receive is kept, to be searched for secrets when the run is over.
transcript: BinaryIO | None = None


class Reset(Exception):
    """The other side cut the exchange off."""


@dataclasses.dataclass
class Answer:
    """A whole response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool
    """False where it was cut off."""
    source: str
    """The caller's address, as Envoy's access log has it."""
    began: str
    """When the caller connected, in the same form as there."""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None

    def json(self):
        return json.loads(self.body)

    def events(self) -> list[str]:
        """The data of each server-sent event."""
        return list(_events(iter([self.body])))


@dataclasses.dataclass
class Caller:
    """A workload. What it sends as its key is `token`, in the slot (header) `slot`."""

    port: int
    trust: pathlib.Path | None = None
    """Who signed the server's certificate; absent, the port is plaintext."""
    certificate: Certificate | None = None
    token: str | None = None
    slot: str = "authorization"
    protocol: str = "http/1.1"
    host: str = "almoner.prod.example"
    subject: str | None = None
    """Its SPIFFE ID, where it has a certificate."""

    def chat(self, text: str = "Hello", *, path=CHAT, headers=(), **fields) -> Answer:
        """An OpenAI chat completion; `fields` are the body's."""
        return self.request("POST", path, headers=headers, body=_chat(text, fields))

    def messages(self, text: str = "Hello", *, path=MESSAGES, headers=(), **fields) -> Answer:
        """An Anthropic message; `fields` are the body's."""
        headers = [ANTHROPIC_VERSION, *headers]
        return self.request("POST", path, headers=headers, body=_message(text, fields))

    def open_chat(self, text: str = "Hello", *, headers=(), **fields):
        """A streamed chat completion, live."""
        body = _chat(text, {"stream": True} | fields)
        return self.open("POST", CHAT, headers=headers, body=body)

    def open_messages(self, text: str = "Hello", *, headers=(), **fields):
        """A streamed message, live."""
        body = _message(text, {"stream": True} | fields)
        return self.open("POST", MESSAGES, headers=[ANTHROPIC_VERSION, *headers], body=body)

    def request(self, method: str, path: str, *, headers=(), body=b"", trailers=()) -> Answer:
        with self.open(method, path, headers=headers, body=body, trailers=trailers) as exchange:
            return exchange.answer()

    def open(self, method, path, *, headers=(), body=b"", trailers=(), finish=True):
        """A live exchange on a connection of its own. With `finish=False` the body goes on:
        `exchange.send(more)`, `exchange.finish(trailers)`."""
        headers = self._headers(headers, body)
        kind = Http2Exchange if self.protocol == "h2" else Http1Exchange
        return kind(self.connect(), self.host, method, path, headers, body, trailers, finish)

    def burst(self, path: str, count: int, begin: Callable[[], object]) -> list[int]:
        """The statuses of `count` GETs, written to one HTTP/2 connection after `begin()`."""
        with self.connect(alpn="h2") as connection:
            exchanges = h2.connection.H2Connection()
            exchanges.initiate_connection()
            exchanges.increment_flow_control_window(1 << 30)
            pseudo = [(":method", "GET"), (":path", path), (":scheme", "https")]
            pseudo.append((":authority", self.host))
            for stream in range(1, 2 * count, 2):
                exchanges.send_headers(stream, pseudo, end_stream=True)
            begin()
            connection.sendall(exchanges.data_to_send())
            statuses = []
            ended = 0
            while ended < count:
                for event in exchanges.receive_data(connection.recv(65536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        statuses.append(int(dict(event.headers)[b":status"]))
                    ended += isinstance(event, h2.events.StreamEnded)
                connection.sendall(exchanges.data_to_send())
            return statuses

    def raw(self, content: bytes, *, method: str = "GET") -> Answer:
        """These very bytes on a connection; reads an HTTP/1.1 answer."""
        connection = self.connect(alpn="http/1.1")
        with Http1Exchange.answered(connection, method) as exchange:
            connection.sendall(content)
            return exchange.answer()

    def connect(self, alpn: str | None = None) -> socket.socket:
        """A connection, TLS where `trust` is set. TLS failures are `ssl.SSLError`."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.trust is None:
            return plain
        context = ssl.create_default_context(cafile=str(self.trust))
        context.set_alpn_protocols([alpn or self.protocol])
        if self.certificate:
            context.load_cert_chain(self.certificate.cert, self.certificate.key)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def _headers(self, extra, body: bytes) -> list[tuple[str, str]]:
        headers = list(extra)
        if self.token is not None:
            prefix = "Bearer " if self.slot == "authorization" else ""
            headers.append((self.slot, prefix + self.token))
        if body and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("content-type", "application/json"))
        return headers


class Exchange:
    """One request and its response, live. Closes its connection."""

    status: int
    headers: list[tuple[str, str]]
    source: str
    began: str

    def read(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises `Reset`."""
        raise NotImplementedError

    def send(self, content: bytes):
        """More of the request's body."""
        raise NotImplementedError

    def finish(self, trailers=()):
        """The end of the request's body."""
        raise NotImplementedError

    def await_head(self):
        """Reads until `status` and `headers` are there. Raises `Reset`."""
        raise NotImplementedError

    def hang_up(self):
        """Cuts the exchange off: HTTP/1.1 by a TCP reset, HTTP/2 by RST_STREAM."""
        raise NotImplementedError

    def close(self):
        raise NotImplementedError

    def chunks(self) -> Iterator[bytes]:
        _keep("".join(f"{name}: {value}\n" for name, value in self.headers).encode())
        while content := self.read():
            _keep(content)
            yield content

    def events(self) -> Iterator[str]:
        """The data of each server-sent event as it arrives. Raises `Reset`."""
        self.await_head()
        return _events(self.chunks())

    def answer(self) -> Answer:
        """All of it; raises `Reset` only where not even the head came."""
        self.await_head()
        body = bytearray()
        try:
            for content in self.chunks():
                body += content
            complete = True
        except Reset:
            complete = False
        return Answer(self.status, self.headers, bytes(body), complete, self.source, self.began)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Http1Exchange(Exchange):
    def __init__(self, connection, host, method, path, headers, body, trailers, finish):
        self._begin(connection, method)
        announced = any(name == "content-length" for name, _ in headers)
        self._chunked = not announced and (bool(trailers) or not finish)
        head = [f"{method} {path} HTTP/1.1", f"host: {host}"]
        head += [f"{name}: {value}" for name, value in headers]
        if self._chunked:
            head.append("transfer-encoding: chunked")
        elif body and not announced:
            head.append(f"content-length: {len(body)}")
        head = "\r\n".join(head).encode() + b"\r\n\r\n"
        if not self._chunked:
            self._write(head + body)
            return
        self._write(head)
        self.send(body)
        if finish:
            self.finish(trailers)

    @classmethod
    def answered(cls, connection, method):
        """An exchange whose request goes out by other hands."""
        exchange = cls.__new__(cls)
        exchange._begin(connection, method)
        return exchange

    def _begin(self, connection, method):
        self._connection, self._response, self._method = connection, None, method
        self.source, self.began = _source(connection)

    def send(self, content: bytes):
        if content and self._chunked:
            content = f"{len(content):x}\r\n".encode() + content + b"\r\n"
        self._write(content)

    def finish(self, trailers=()):
        lines = [f"{name}: {value}\r\n" for name, value in trailers]
        self._write(("0\r\n" + "".join(lines) + "\r\n").encode())

    def await_head(self):
        if self._response:
            return
        response = http.client.HTTPResponse(self._connection, method=self._method)
        try:
            response.begin()
        except (OSError, http.client.HTTPException) as error:
            raise Reset from error
        self._response = response
        self.status = response.status
        self.headers = [(name.lower(), value) for name, value in response.getheaders()]

    def read(self) -> bytes:
        self.await_head()
        try:
            content = self._response.read1(65536)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Reset from error
        if not content and self._response.length:
            raise Reset
        return content

    def hang_up(self):
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # Not through TLS: its farewell would make it a polite goodbye.
        self.close()

    def close(self):
        if self._response:
            self._response.close()
        self._connection.close()

    def _write(self, content: bytes):
        try:
            self._connection.sendall(content)
        except (BrokenPipeError, ConnectionResetError):
            # Answered before all was sent: the answer tells.
            pass


class Http2Exchange(Exchange):
    def __init__(self, connection, host, method, path, headers, body, trailers, finish):
        self._connection = connection
        self.source, self.began = _source(connection)
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            # What is sent is the test's business, good or bad.
            normalize_outbound_headers=False,
            validate_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._arrived = collections.deque()
        self._ended = False
        self.status, self.headers, self.trailers = 0, [], []
        scheme = "https" if isinstance(connection, ssl.SSLSocket) else "http"
        pseudo = [(":method", method), (":path", path), (":scheme", scheme), (":authority", host)]
        self._stream = self._h2.get_next_available_stream_id()
        over = finish and not body and not trailers
        self._h2.send_headers(self._stream, pseudo + list(headers), end_stream=over)
        self._flush()
        if not over:
            self.send(body, over=finish and not trailers)
            if finish and trailers:
                self.finish(trailers)

    def send(self, content: bytes, over: bool = False):
        while content or over:
            if self._ended:
                return
            window = self._h2.local_flow_control_window(self._stream)
            size = min(len(content), window, self._h2.max_outbound_frame_size)
            if content and not size:
                self._receive()
                continue
            last = over and size == len(content)
            self._h2.send_data(self._stream, content[:size], end_stream=last)
            self._flush()
            content = content[size:]
            if not content:
                return

    def finish(self, trailers=()):
        if trailers:
            self._h2.send_headers(self._stream, list(trailers), end_stream=True)
            self._flush()
        else:
            self.send(b"", over=True)

    def await_head(self):
        while not self.status:
            if self._ended:
                raise Reset
            self._receive()

    def read(self) -> bytes:
        while not self._arrived:
            if self._ended:
                return b""
            self._receive()
        content = self._arrived.popleft()
        if content is Reset:
            raise Reset
        return content

    def hang_up(self):
        self._h2.reset_stream(self._stream, error_code=8)
        self._flush()

    def close(self):
        self._connection.close()

    def _receive(self):
        try:
            content = self._connection.recv(65536)
        except TimeoutError:
            raise
        except OSError:
            content = b""
        if not content:
            return self._cut()
        for event in self._h2.receive_data(content):
            match event:
                case h2.events.ResponseReceived():
                    fields = [(str(name), str(value)) for name, value in event.headers]
                    self.status = int(fields[0][1])
                    self.headers = [field for field in fields if not field[0].startswith(":")]
                case h2.events.DataReceived():
                    self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream)
                    if event.data:
                        self._arrived.append(event.data)
                case h2.events.TrailersReceived():
                    self.trailers = [(str(name), str(value)) for name, value in event.headers]
                case h2.events.StreamEnded():
                    self._ended = True
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    if not self._ended:
                        self._cut()
        self._flush()

    def _cut(self):
        self._ended = True
        self._arrived.append(Reset)

    def _flush(self):
        try:
            self._connection.sendall(self._h2.data_to_send())
        except (BrokenPipeError, ConnectionResetError):
            self._cut()


def _keep(content: bytes):
    if transcript:
        transcript.write(content + b"\n")


def _source(connection: socket.socket) -> tuple[str, str]:
    """Where a connection that was just made comes from, and when it was."""
    host, port = connection.getsockname()[:2]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return f"{host}:{port}", now.replace("+00:00", "Z")


def _chat(text: str, fields: dict) -> bytes:
    body = {"model": "gpt-4o-mini"} | fields
    body.setdefault("messages", [{"role": "user", "content": text}])
    return json.dumps(body).encode()


def _message(text: str, fields: dict) -> bytes:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 16} | fields
    body.setdefault("messages", [{"role": "user", "content": text}])
    return json.dumps(body).encode()


def _events(chunks: Iterator[bytes]) -> Iterator[str]:
    buffered = b""
    for content in chunks:
        buffered += content
        while b"\n\n" in buffered:
            event, buffered = buffered.split(b"\n\n", 1)
            lines = event.decode().splitlines()
            yield "\n".join(line[5:].lstrip() for line in lines if line.startswith("data:"))
