"""A scripted model server, in its own process: every answer is bytes that were built before the first request.

    python -m bench.backend EVENTS GAP_S

Listens on a free port of 127.0.0.1, prints the port, and serves until its standard input ends. It has two models:
`bench` writes a whole answer as fast as the socket takes it, `bench-paced` one event every GAP_S seconds.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence

BURST, PACED = "bench", "bench-paced"
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"


def words(n_events: int) -> list[str]:
    """The answer's text, event by event: each is known by its number."""
    return [f"w{n:04d} " for n in range(n_events)]


def frames(n_events: int) -> list[bytes]:
    """One HTTP chunk for each server-sent event: the words, the finish, the usage, the end."""
    chunks = [_chunk({"role": "assistant", "content": word}) for word in words(n_events)]
    chunks.append(_chunk({}, "stop"))
    usage = {"prompt_tokens": 25_000, "completion_tokens": n_events, "total_tokens": 25_000 + n_events}
    chunks.append(_envelope([], {"usage": usage}))
    return [_frame(json.dumps(chunk).encode()) for chunk in chunks] + [_frame(b"[DONE]")]


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
    return _envelope([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], {})


def _envelope(choices: list[dict[str, object]], more: dict[str, object]) -> dict[str, object]:
    fixed = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": BURST}
    return {**fixed, "choices": choices, **more}


def _frame(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _json_answer(status: bytes, value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Script:
    """What every connection answers."""

    def __init__(self, n_events: int, gap_s: float) -> None:
        self.gap_s = gap_s
        self.paced = frames(n_events)
        self.whole = _HEAD + b"".join(self.paced) + _END
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "bench"} for name in (BURST, PACED)]
        self.models = _json_answer(b"200 OK", {"object": "list", "data": listed})
        self.nothing = _json_answer(b"404 Not Found", {"error": {"message": "no such path"}})


class Connection(asyncio.Protocol):
    def __init__(self, script: Script) -> None:
        self._script = script
        self._transport: asyncio.Transport | None = None
        self._received: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Joins the pieces only when the body is whole: `_missing` counts what is still to come."""
        self._received.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        request = b"".join(self._received)
        head, separator, body = request.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        self._missing = (int(length[1]) if length else 0) - len(body) if separator else 1
        if self._missing <= 0:
            self._received.clear()
            self._missing = 0
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/chat/completions"):
            model = _MODEL.search(body)
            if model is not None and model[1] == PACED.encode():
                self._pace(iter(self._script.paced), _HEAD)
            else:
                self._write(self._script.whole)
        else:
            self._write(self._script.models if path.endswith(b"/models") else self._script.nothing)

    def _pace(self, left: Iterator[bytes], before: bytes = b"") -> None:
        if self._transport is None:
            return
        frame = next(left, None)
        self._write(_END if frame is None else before + frame)
        if frame is not None:
            asyncio.get_running_loop().call_later(self._script.gap_s, self._pace, left)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(script: Script) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(script), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    try:
        await loop.run_in_executor(None, sys.stdin.buffer.read)
    finally:
        server.close()


def main(arguments: Sequence[str]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Script(int(arguments[0]), float(arguments[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
