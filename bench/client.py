"""The measuring client: blocking sockets and HTTP/1.1, so that what is measured is the server.

Answers are taken apart and checked against the script after the clock has stopped.
"""

import json
import socket
import time
from typing import Any, Literal

from msgspec import Struct

from bench.backend import words

ANSWER_S = 60.0
NAP_S = 0.0005
Api = Literal["chat", "messages"]
_FIRST_WORDS = words(1)[0].encode()
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class BadAnswer(Exception):
    """A server did not give the scripted answer, so its figures would mean nothing."""


class Answer(Struct, frozen=True):
    """Times count from the first byte sent. `first_s` is when the first word of text was here."""

    first_s: float
    whole_s: float
    raw: bytes


class Connection:
    """One kept-alive connection; `ask` one request after the other, or `send` and `poll` beside other connections."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._started = self._first_s = 0.0

    def ask(self, request: bytes) -> Answer:
        self.send(request)
        while True:
            if (answer := self._take(self._socket.recv(1 << 18))) is not None:
                return answer

    def send(self, request: bytes) -> None:
        self._received.clear()
        self._first_s = 0.0
        self._socket.settimeout(ANSWER_S)
        self._started = time.perf_counter()
        self._socket.sendall(request)

    def poll(self) -> Answer | None:
        """Reads what has arrived, without waiting."""
        self._socket.settimeout(0)
        try:
            return self._take(self._socket.recv(1 << 18))
        except BlockingIOError:
            if time.perf_counter() - self._started > ANSWER_S:
                raise TimeoutError(f"no whole answer within {ANSWER_S:.0f} s") from None
            return None

    def _take(self, data: bytes) -> Answer | None:
        received = self._received
        received += data
        if not self._first_s and _FIRST_WORDS in received:
            self._first_s = time.perf_counter() - self._started
        if received.endswith(_LAST_CHUNK):
            return Answer(self._first_s, time.perf_counter() - self._started, bytes(received))
        if not data or (not self._first_s and not received.startswith(b"HTTP/1.1 200")):
            raise BadAnswer(f"no stream: {bytes(received[:600])!r}")
        return None

    def close(self) -> None:
        self._socket.close()


def stream_for(duration_s: float, port: int, request: bytes, n_clients: int) -> list[Answer]:
    """Streams on so many connections at once; after `duration_s` none begins any more, and the last ones end.

    It looks at its sockets every NAP_S only: a client that wakes up for each event would cost as much as a server.
    """
    until = time.perf_counter() + duration_s
    connections = [Connection(port) for _ in range(n_clients)]
    answers: list[Answer] = []
    for connection in connections:
        connection.send(request)
    running = list(connections)
    while running:
        time.sleep(NAP_S)
        for connection in tuple(running):
            if (answer := connection.poll()) is None:
                continue
            answers.append(answer)
            if time.perf_counter() < until:
                connection.send(request)
            else:
                running.remove(connection)
    for connection in connections:
        connection.close()
    return answers


def check(raw: bytes, api: Api, n_events: int) -> None:
    """Raises BadAnswer unless every word of the script is there, in order and once."""
    wanted = "".join(words(n_events))
    found = "".join(_text(event, api) for event in _events(raw))
    if found != wanted:
        raise BadAnswer(f"{api}: {len(found)} characters of text instead of {len(wanted)}: {found[:80]!r}")


def _events(raw: bytes) -> list[dict[str, Any]]:
    body, start = bytearray(), raw.index(b"\r\n\r\n") + 4
    while (line_end := raw.index(b"\r\n", start)) and (size := int(raw[start:line_end], 16)):
        body += raw[line_end + 2 : line_end + 2 + size]
        start = line_end + size + 4
    lines = (line[6:] for line in body.split(b"\n") if line.startswith(b"data: {"))
    return [json.loads(line) for line in lines]


def _text(event: dict[str, Any], api: Api) -> str:
    if api == "messages":
        return event["delta"].get("text", "") if event["type"] == "content_block_delta" else ""
    return "".join(choice["delta"].get("content", "") for choice in event["choices"])


def http_request(port: int, api: Api, key: str, body: bytes) -> bytes:
    path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}[api]
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
