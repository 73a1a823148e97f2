"""A made-up session: the requests that a client sends turn by turn, each with everything that was said before."""

import json
import random
from collections.abc import Iterator
from typing import Any

_TOOLS, _TOOL_CHARACTERS = 12, 2600
_SYSTEM_CHARACTERS, _ENVIRONMENT_CHARACTERS = 7000, 9000
_WORDS = (
    "shelf",
    "bolt",
    "plate",
    "spring",
    "label",
    "row",
    "count",
    "take",
    "put",
    "ask",
    "42",
    "def",
    "return",
    "{",
    "}",
)

Message = dict[str, Any]


def requests(n_turns: int) -> Iterator[bytes]:
    """The same bytes in every run. A turn is a tool call and its result; every twentieth begins with the person."""
    chance = random.Random(1)
    messages: list[Message] = []
    for n in range(n_turns):
        if n % 20 == 0:
            messages += [*_answer(n, chance), *_asked(n, chance)]
        else:
            messages += _called(n, chance)
        yield json.dumps(_FIXED | {"messages": messages}).encode()


def _asked(n: int, chance: random.Random) -> list[Message]:
    """The first message brings the project's reminders with it, and a system message after it."""
    words = _block(_filler(chance, 200))
    if n:
        return [{"role": "user", "content": [words]}]
    reminders = [_block(f"<system-reminder>\n{_filler(chance, 550)}\n</system-reminder>") for _ in range(2)]
    environment = {"role": "system", "content": _filler(chance, _ENVIRONMENT_CHARACTERS)}
    return [{"role": "user", "content": [*reminders, words]}, environment]


def _answer(n: int, chance: random.Random) -> list[Message]:
    return [{"role": "assistant", "content": [_block(_filler(chance, 600))]}] if n else []


def _called(n: int, chance: random.Random) -> list[Message]:
    """Thinking, words and a call; then the result, now and then a long one."""
    given = {"shelf": n, "labels": [_filler(chance, 60)], "where": _filler(chance, 80)}
    call = {"type": "tool_use", "id": f"toolu_{n:06}", "name": f"take_part_{n % _TOOLS}", "input": given}
    thinking = {"type": "thinking", "thinking": _filler(chance, 250), "signature": ""}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": _filler(chance, 5000 if n % 8 == 0 else 700)}
    return [
        {"role": "assistant", "content": [thinking, _block(_filler(chance, 120)), call]},
        {"role": "user", "content": [result]},
    ]


def _block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _filler(chance: random.Random, n_characters: int) -> str:
    words: list[str] = []
    while n_characters > 0:
        words.append(chance.choice(_WORDS))
        n_characters -= len(words[-1]) + 1
    return " ".join(words)


def _tool(n: int, chance: random.Random) -> dict[str, Any]:
    fields = {
        name: {"type": "string", "description": _filler(chance, 150)} for name in ("shelf", "labels", "where", "count")
    }
    schema = {"type": "object", "properties": fields, "required": ["shelf"], "additionalProperties": False}
    return {
        "name": f"take_part_{n}",
        "description": _filler(chance, _TOOL_CHARACTERS - len(json.dumps(schema))),
        "input_schema": schema,
    }


_FIXED: dict[str, Any] = {
    "model": "bench",
    "max_tokens": 32_000,
    "stream": True,
    "system": [
        _block("x-anthropic-billing-header: cc_version=0; cc_entrypoint=bench;"),
        _block("You answer in words."),
        _block(_filler(random.Random(2), _SYSTEM_CHARACTERS)),
    ],
    "tools": [_tool(n, random.Random(n)) for n in range(_TOOLS)],
}
