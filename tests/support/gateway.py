"""The gateway in this process, on a real socket and in a thread of its own, so that tests see both its sides."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
from msgspec import Struct

from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.seam import Target
from anyclaude.server.app import build_app
from anyclaude.server.gateway import Gateway
from anyclaude.server.process import process_start
from anyclaude.server.reading_note import AFTER_S
from anyclaude.server.run import Server, hosts_of, serve
from anyclaude.server.sessions import NewSession, Session, Sessions
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.traces import Traces
from anyclaude.wire.sse import ServerEvent, SseDecoder

LIMIT_S = 60.0
MANAGEMENT = "management-token-of-the-tests"


class Answer(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        found = SseDecoder().feed(self.body)
        return [json.loads(item.data) for item in found if isinstance(item, ServerEvent)]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events if event["type"] != "ping"]

    @property
    def text(self) -> str:
        """The words of a streamed answer."""
        deltas = [event["delta"] for event in self.events if event["type"] == "content_block_delta"]
        return "".join(delta.get("text", "") for delta in deltas)


class RunningGateway:
    def __init__(self, gateway: Gateway, server: Server, port: int) -> None:
        self.gateway = gateway
        self.server = server
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def session(self, target: Target, *, project: str = "/project", is_private: bool = False) -> Session:
        pid = os.getpid()
        new = NewSession(pid=pid, pid_started=process_start(pid), project=project, target=target, is_private=is_private)
        return self.gateway.sessions.add(new)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str) -> Answer:
        """One request. Bytes are sent as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given.setdefault("content-type", "application/json")
        if token:
            given["authorization"] = f"Bearer {token}"
        connection = self.connect()
        try:
            connection.request(method, path, body=data, headers=given)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


@contextmanager
def running_gateway(
    ledger: Ledger | None = None,
    traces: Traces | None = None,
    engine: EngineProcess | None = None,
    *,
    sessions: Sessions | None = None,
    note_after_s: float = AFTER_S,
) -> Generator[RunningGateway]:
    """Its ledger is in memory, nothing is traced, and it has neither engine nor sessions, unless they are given. They
    are closed with it."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = sock.getsockname()[1]
    sessions = Sessions(None) if sessions is None else sessions
    gateway = Gateway(sessions, ledger or Ledger(None), traces, engine, note_after_s=note_after_s)
    app = build_app(gateway, management_token=MANAGEMENT, hosts=hosts_of(port), stop=lambda: server.stop())
    server = Server(app, gateway)
    ready = threading.Event()

    async def run() -> None:
        ready.set()
        await serve(server, gateway, sock, None)

    thread = threading.Thread(target=lambda: anyio.run(run), daemon=True)
    thread.start()
    assert ready.wait(LIMIT_S)
    try:
        yield RunningGateway(gateway, server, port)
    finally:
        server.stop()
        thread.join(LIMIT_S)
        sock.close()
        assert not thread.is_alive()


def target(url: str, *, kind: str = "openai", **fields: Any) -> Target:
    limits: dict[str, Any] = {"silence_s": LIMIT_S}
    return Target(kind=kind, base_url=url, model="scripted", **(limits | fields))


def request(words: str = "hello", **fields: Any) -> dict[str, Any]:
    """A small Messages request, streamed unless it says otherwise."""
    message = {"role": "user", "content": words}
    return {"model": "asked-for", "max_tokens": 100, "stream": True, "messages": [message]} | fields
