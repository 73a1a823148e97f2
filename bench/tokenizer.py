"""A scripted model server that counts tokens, in its own process: four characters make one.

    python -m bench.tokenizer KIND

KIND is `llamacpp`, `older` (a llama-server without the route that renders and counts in one step), `vllm`, or `openai`
(no such route at all). Listens on a free port of 127.0.0.1, prints the port, and serves until its standard input ends.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

MODEL = "bench"
Route = Callable[[dict[str, Any]], object]


def _text(body: dict[str, Any]) -> str:
    """All that a template would write."""
    return "".join([*(str(message["content"]) for message in body["messages"]), json.dumps(body.get("tools", []))])


def _tokens(text: str) -> list[int]:
    return list(range(10_000, 10_000 + len(text) // 4))


_RENDER: Route = lambda body: {"prompt": _text(body)}  # noqa: E731
_TOKENIZE: Route = lambda body: {"tokens": _tokens(body["content"])}  # noqa: E731
_IN_ONE: Route = lambda body: {"object": "response.input_tokens", "input_tokens": len(_tokens(_text(body)))}  # noqa: E731


def _vllm(body: dict[str, Any]) -> object:
    tokens = _tokens(_text(body))
    return {"count": len(tokens), "max_model_len": 65_536, "tokens": tokens, "token_strs": None}


ROUTES: dict[str, dict[str, Route]] = {
    "openai": {},
    "older": {"/apply-template": _RENDER, "/tokenize": _TOKENIZE},
    "llamacpp": {
        "/apply-template": _RENDER,
        "/tokenize": _TOKENIZE,
        "/v1/chat/completions/input_tokens": _IN_ONE,
    },
    "vllm": {"/tokenize": _vllm},
}


class Counter:
    """One kind of server, for every connection."""

    def __init__(self, kind: str) -> None:
        self._routes = ROUTES[kind]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                path = head.split(" ", 2)[1]
                length = next((line[15:] for line in head.split("\r\n") if line.startswith("content-length:")), "0")
                body = await reader.readexactly(int(length))
                writer.write(self._answer(path, body))
        writer.close()

    def _answer(self, path: str, body: bytes) -> bytes:
        if path == "/v1/models":
            return _http("200 OK", {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        if path not in self._routes:
            return _http("404 Not Found", {"error": {"message": "no such path"}})
        return _http("200 OK", self._routes[path](json.loads(body)))


def _http(status: str, value: object) -> bytes:
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def serve(kind: str) -> None:
    server = await asyncio.start_server(Counter(kind).talk, "127.0.0.1", 0, limit=1 << 20, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))
