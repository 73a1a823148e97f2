"""How long token counts take: 30 at once, as the client's `/context` sends them, each with one tool or one text.

    .venv/bin/python -m bench.counts [--rounds N] [--json FILE]

A gateway in a process of its own, and behind it a scripted model server in another (`bench.tokenizer`) that counts at
once: what is measured is the gateway, and no tokenizer. Every figure printed was measured in the run that prints it,
from the first byte of a request to the last byte of its answer; whether it was counted or estimated is checked.

estimate      a server that cannot be asked
llama-server  one that renders and counts in one step
  older       one that renders in one step and counts in another
vllm          one step
new           texts that were not counted before, others in every round
again         the same texts once more
"""

import argparse
import json
import selectors
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from bench.gateway import machine
from bench.servers import NotStarted, Server, anyclaude, counting_backend
from bench.tokenizer import MODEL

N_AT_ONCE = 30
SMALLEST, LARGEST = 80, 35_000  # bytes of one tool or text
TARGET_MS = 50.0
LIMIT_S = 30.0
WARM_UP = 3
# Name, what the scripted server can, and the mode in which the gateway asks it.
SETUPS = (
    ("estimate", "openai", "openai"),
    ("llama-server", "llamacpp", "llamacpp"),
    ("  older", "older", "llamacpp"),
    ("vllm", "vllm", "vllm"),
)


class BadAnswer(Exception):
    """An answer was not the count that it should be, so its time means nothing."""


class Figures(Struct, frozen=True):
    """Of one setup: all requests of all rounds, and the slowest of each 30."""

    server: str
    texts: str
    least_ms: float
    median_ms: float
    most_ms: float
    slowest_ms: float


def bodies(salt: str) -> list[bytes]:
    """Sizes grow by the same factor from one to the next; every second one is a tool."""
    ratio = (LARGEST / SMALLEST) ** (1 / (N_AT_ONCE - 1))
    return [_body(n, salt, int(SMALLEST * ratio**n)) for n in range(N_AT_ONCE)]


def _body(n: int, salt: str, size: int) -> bytes:
    text = (f"{salt} {n} " + "a folder of parts, each with a label: 14 bolts, 3 plates, 1 spring\n" * (size // 67 + 1))[
        :size
    ]
    fields: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "foo" if n % 2 else text}]}
    if n % 2:
        schema = {"type": "object", "properties": {"shelf": {"type": "string"}}}
        fields["tools"] = [{"name": f"take_part_{n}", "description": text, "input_schema": schema}]
    return json.dumps(fields).encode()


class Asking:
    """Requests on connections of their own, kept alive from one round to the next."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sockets = [_connected(server.port) for _ in range(N_AT_ONCE)]

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()

    def round(self, requests: list[bytes], how: str) -> list[float]:
        """The milliseconds of each."""
        received = {connection: bytearray() for connection in self._sockets}
        started: dict[socket.socket, float] = {}
        times: list[float] = []
        with selectors.DefaultSelector() as selector:
            for connection, body in zip(self._sockets, requests, strict=True):
                started[connection] = time.perf_counter()
                connection.sendall(self._head(len(body)) + body)
                selector.register(connection, selectors.EVENT_READ)
            until = time.perf_counter() + LIMIT_S
            while len(times) < len(requests) and time.perf_counter() < until:
                for key, _ in selector.select(1.0):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    received[connection] += connection.recv(1 << 16)
                    if received[connection].endswith(b"}"):
                        times.append((time.perf_counter() - started[connection]) * 1000)
                        selector.unregister(connection)
        for answer in received.values():
            _check(bytes(answer), how)
        return times

    def _head(self, length: int) -> bytes:
        server = self._server
        return (
            f"POST /v1/messages/count_tokens?beta=true HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
            f"authorization: Bearer {server.key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        ).encode()


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _check(answer: bytes, how: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    is_counted = head.startswith(b"HTTP/1.1 200") and f"x-anyclaude-count: {how}".encode() in head
    if not is_counted or json.loads(body)["input_tokens"] < 1:
        raise BadAnswer(f"not {how}: {answer[:600]!r}")


def measure(server: Server, name: str, mode: str, n_rounds: int) -> list[Figures]:
    how = "estimated" if mode == "openai" else "measured"
    asking = Asking(server)
    new: list[list[float]] = []
    again: list[list[float]] = []
    for n in range(WARM_UP + n_rounds):
        requests = bodies(f"{name} {n}")
        new.append(asking.round(requests, how))
        again.append(asking.round(requests, how))
    asking.close()
    return [_figures(name, "new", new[WARM_UP:]), _figures("", "again", again[WARM_UP:])]


def _figures(name: str, texts: str, rounds: list[list[float]]) -> Figures:
    times = [each for one in rounds for each in one]
    slowest = statistics.median(max(one) for one in rounds)
    return Figures(name, texts, min(times), statistics.median(times), max(times), slowest)


def print_table(rows: list[Figures]) -> None:
    print(f"{'':14}{'':7}{'least':>9}{'median':>9}{'most':>9}   slowest of {N_AT_ONCE}")
    for row in rows:
        times = "".join(f"{each:9.2f}" for each in (row.least_ms, row.median_ms, row.most_ms))
        print(f"{row.server:14}{row.texts:7}{times}   {row.slowest_ms:.2f} ms")
    print(f"\ntarget: each of {N_AT_ONCE} under {TARGET_MS:g} ms")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.counts")
    parser.add_argument("--rounds", type=int, default=20, choices=range(1, 501), metavar="1..500")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    before, rows = machine(), list[Figures]()
    try:
        for name, script, mode in SETUPS:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anyclaude-bench-")))
                port = stack.enter_context(counting_backend(folder, script)).port
                server = stack.enter_context(anyclaude(folder, port, mode=mode))
                rows += measure(server, name, mode, options.rounds)
    except (BadAnswer, NotStarted) as error:
        raise SystemExit(f"bench.counts: {error}") from None
    print(f"{before}; {options.rounds} rounds\n")
    print_table(rows)
    if options.json is not None:
        written = {"machine": before, "rounds": options.rounds, "figures": to_builtins(rows)}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
