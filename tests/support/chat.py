"""Chunks of chat completions, as a well-behaved server streams them."""

import json
from collections.abc import Iterator
from typing import Any

Chunks = list[dict[str, Any]]


def delta(**fields: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int = 1000, out: int = 5, cached: int | None = 900) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": out, **details}}


def text(words: str, *, reason: str = "stop", cached: int | None = 900) -> Chunks:
    pieces = [words[at : at + 7] for at in range(0, len(words), 7)]
    return [*(delta(content=piece) for piece in pieces), finish(reason), usage(cached=cached)]


def call(name: str, arguments: dict[str, Any], *, call_id: str = "call_0") -> Chunks:
    return [*call_pieces(name, arguments, call_id=call_id), finish("tool_calls"), usage()]


def call_pieces(name: str, arguments: dict[str, Any], *, index: int = 0, call_id: str = "call_0") -> Iterator[Any]:
    written = json.dumps(arguments)
    function = {"name": name, "arguments": ""}
    yield delta(tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}])
    for at in range(0, len(written), 9):
        yield delta(tool_calls=[{"index": index, "function": {"arguments": written[at : at + 9]}}])
