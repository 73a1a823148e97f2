"""Names for what a conversation has been so far: each turn's key is a digest of the one before and of the turn.

Two turns that say the same have one digest: white space at the ends of an answer, how its arguments are written, its
reasoning, which clients drop, and the client's own part of a call's id make no difference.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import msgspec

from anyclaude.prompt.policy import nine_char_id
from anyclaude.wire.frames import Call, Chat, Turn

_encode = msgspec.msgpack.Encoder().encode


def first_key(scope: bytes, tools: Sequence[Mapping[str, Any]], thinks: bool | None) -> bytes:
    return sha256(_encode((scope, tools, thinks))).digest()


def next_key(key: bytes, digest: bytes) -> bytes:
    return sha256(key + digest).digest()


def keys_of(first: bytes, chat: Chat) -> list[bytes]:
    """One more than there are turns: `keys[n]` names the first n."""
    keys = [first]
    for turn in chat.turns:
        keys.append(next_key(keys[-1], turn_digest(turn)))
    return keys


def turn_digest(turn: Turn) -> bytes:
    if turn.role != "assistant":
        call_id = nine_char_id(turn.call_id) if turn.call_id else ""
        return sha256(_encode((turn.role, turn.content, call_id))).digest()
    calls = [(nine_char_id(call.id), call.name, _arguments(call)) for call in turn.calls]
    return sha256(_encode((turn.role, turn.content.strip(), calls))).digest()


def names_of(scope: bytes, turn: Turn) -> list[bytes]:
    """What an answer can be found by wherever it stands: its calls' ids and its signature."""
    names = [nine_char_id(call.id) for call in turn.calls]
    return [sha256(_encode((scope, name))).digest() for name in (*names, *([turn.signature] if turn.signature else []))]


def _arguments(call: Call) -> str:
    try:
        value: object = json.loads(call.arguments or "{}")
        return json.dumps(_plain(value), sort_keys=True)
    except (ValueError, RecursionError):
        return call.arguments


def _plain(value: object) -> object:
    """Numbers as JavaScript writes them back: 1.0 is 1, and long integers lose their last digits."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[object]", value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return value


def _number(value: float) -> float | str:
    try:
        return float(value)
    except OverflowError:
        return "Infinity"
