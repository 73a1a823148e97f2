"""A scripted model server on a real socket: it does to the gateway exactly what a test says, and keeps what it saw."""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

LIMIT_S = 60.0


class Exchange:
    """One request and the connection it came on."""

    def __init__(self, connection: socket.socket, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.raw = body
        self.was_closed = threading.Event()
        self._connection = connection

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def start(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def json(self, status: int, value: Any, **headers: str) -> None:
        self.start(status, "application/json", **headers)
        self.send(json.dumps(value).encode())

    def chunks(self, chunks: Iterable[Any]) -> None:
        for chunk in chunks:
            self.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def done(self) -> None:
        self.send(b"data: [DONE]\n\n")

    def answer(self, chunks: Iterable[Any]) -> None:
        """A whole streamed answer."""
        self.start()
        self.chunks(chunks)
        self.done()

    def reset(self) -> None:
        """Ends the connection with RST, as a process that is killed does."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._connection.close()

    def wait_until_closed(self) -> bool:
        """Whether the other side hangs up within the limit."""
        self._connection.settimeout(LIMIT_S)
        try:
            while self._connection.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        self.was_closed.set()
        return True


Script = Callable[[Exchange], None]


class ScriptedBackend:
    """Runs `script` for every POST; answers GET /v1/models as a generic OpenAI-compatible server does."""

    def __init__(self, script: Script, *, model: str = "scripted", window: int | None = 200_000, port: int = 0) -> None:
        self.script = script
        self.model = model
        self.window = window
        self.extra: dict[str, Any] = {}
        self.exchanges: list[Exchange] = []
        self.arrived = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._address = self._listener.getsockname()
        self._is_closing = False
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._address[1]}"

    @property
    def turns(self) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.method == "POST"]

    def __enter__(self) -> "ScriptedBackend":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening: from now on a connection is refused."""
        if self._is_closing:
            return
        self._is_closing = True
        with socket.create_connection(self._address):  # accept() does not notice that its socket was closed
            self._threads[0].join(LIMIT_S)
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._is_closing:
                connection.close()
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            exchange = _read(connection)
            if exchange is None:
                return
            self.exchanges.append(exchange)
            try:
                if exchange.method == "POST":
                    self.arrived.release()
                    self.script(exchange)
                else:
                    self.get(exchange)
            except (BrokenPipeError, ConnectionResetError):
                exchange.was_closed.set()

    def get(self, exchange: Exchange) -> None:
        if exchange.path != "/v1/models":
            exchange.json(404, {"error": {"message": "no such path"}})
            return
        limit = {"context_length": self.window} if self.window else {}
        exchange.json(200, {"object": "list", "data": [{"id": self.model, "object": "model", **limit, **self.extra}]})


def _read(connection: socket.socket) -> Exchange | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(1 << 20)
    return Exchange(connection, method, path, headers, body)
