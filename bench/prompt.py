"""The request that is measured: one prompt of our own words, the same in every run, in either API."""

import functools
import json
from typing import Any

from bench.client import Api

_LINES = (
    "the gateway reads one line of the script and passes it on\n",
    "def step(state, item): return state.extend(item) if item else state\n",
    "a folder of parts, each with a label: 14 bolts, 3 plates, 1 spring\n",
)


@functools.cache
def request_body(api: Api, model: str, size: int) -> bytes:
    """The same prompt in either API: a system text, 20 tools, and turns until the body has about `size` bytes; a small
    size gives one short question and nothing else."""
    if size < 10_000:
        return _body(api, model, "Answer in words.", 0, 1, 100)
    n_turns = 12
    fixed = len(_body(api, model, _filler(size // 5), 20, n_turns, 0))
    return _body(api, model, _filler(size // 5), 20, n_turns, (size - fixed) * 14 // (15 * n_turns))


def _filler(n_bytes: int) -> str:
    text = "".join(_LINES)
    return (text * (n_bytes // len(text) + 1))[:n_bytes]


def _body(api: Api, model: str, system: str, n_tools: int, n_turns: int, turn_bytes: int) -> bytes:
    fields: dict[str, Any] = {"model": model, "max_tokens": 1024, "stream": True}
    if api == "messages":
        fields["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        fields["tools"] = [_tool(n) for n in range(n_tools)]
        fields["messages"] = _turns(n_turns, turn_bytes)
    else:
        fields["tools"] = [{"type": "function", "function": _function(n)} for n in range(n_tools)]
        fields["messages"] = [{"role": "system", "content": system}, *_chat_turns(n_turns, turn_bytes)]
    if not n_tools:
        del fields["tools"]
    return json.dumps(fields).encode()


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "shelf": {"type": "string", "description": _filler(300)},
        "amount": {"type": "integer", "minimum": 0},
        "labels": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["shelf"],
}


def _tool(n: int) -> dict[str, Any]:
    return {"name": f"take_part_{n}", "description": _filler(800), "input_schema": _SCHEMA}


def _function(n: int) -> dict[str, Any]:
    return {"name": f"take_part_{n}", "description": _filler(800), "parameters": _SCHEMA}


def _turns(n_turns: int, turn_bytes: int) -> list[dict[str, Any]]:
    """A question, then tool calls with their results."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": _filler(turn_bytes)}]}]
    for n in range(1, n_turns):
        use = {"type": "tool_use", "id": f"toolu_{n}", "name": "take_part_0", "input": {"shelf": f"row {n}"}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": _filler(turn_bytes)}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return messages


def _chat_turns(n_turns: int, turn_bytes: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": _filler(turn_bytes)}]
    for n in range(1, n_turns):
        function = {"name": "take_part_0", "arguments": json.dumps({"shelf": f"row {n}"})}
        call = {"id": f"toolu_{n}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"toolu_{n}", "content": _filler(turn_bytes)})
    return messages
