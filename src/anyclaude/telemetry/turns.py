"""What each turn did, as frozen rows, and the newest of them in memory. Nothing here is awaited by a request.

Figures are the backend's own. What it did not tell is None, never a guess.
"""

import itertools
from collections import deque
from typing import Any

import msgspec
from msgspec import Struct, UnsetType

from anyclaude.wire.events import BlockDelta, BlockStart, Event, Foreign, MessageDelta, ToolUseStart, Usage

_KEPT = 1000


class TurnRow(Struct, frozen=True, kw_only=True):
    """One answered (or failed) request. Times in seconds, `started_at` in seconds since 1970."""

    id: int
    started_at: float
    session: str
    client_session: str | None
    agent: str | None
    request_class: str | None
    project: str
    backend: str
    model: str
    tokens_prompt: int | None
    tokens_cached: int | None
    tokens_prefilled: int | None
    tokens_out: int | None
    ttft_s: float | None
    duration_s: float
    stop_reason: str | None
    tool_calls: int
    error: str | None


class Reading(Struct, frozen=True):
    """A prompt being read: tokens so far and in all, as the server tells them."""

    n_read: int
    n_total: int


class TurnMeter:
    """Watches one turn's events. `clock` counts seconds, `now` is the time of day."""

    def __init__(self, *, started: float, started_at: float) -> None:
        self.started_at = started_at
        self.reading: Reading | None = None
        self.usage: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.n_tool_calls = 0
        self._started = started
        self._ttft_s: float | None = None

    @property
    def ttft_s(self) -> float | None:
        """From the request to the first piece of an answer."""
        return self._ttft_s

    def see(self, event: Event, clock: float) -> None:
        match event:
            case BlockDelta():
                self._first(clock)
            case BlockStart(content_block=block):
                self.n_tool_calls += isinstance(block, ToolUseStart)
            case MessageDelta(delta=delta, usage=usage):
                self.stop_reason = delta.stop_reason
                self.usage |= _told(usage)
            case Foreign(name=name, data=data):
                self._see_foreign(name, data, clock)
            case _:
                pass

    def _see_foreign(self, name: str, data: bytes, clock: float) -> None:
        if name == "content_block_delta":
            self._first(clock)
        elif name == "content_block_start":
            self.n_tool_calls += _foreign(data).content_block.type == "tool_use"
        elif name in ("message_start", "message_delta"):
            event = _foreign(data)
            self.usage |= {
                key: value for key, value in (event.usage | event.message.usage).items() if value is not None
            }
            self.stop_reason = event.delta.stop_reason or self.stop_reason

    def _first(self, clock: float) -> None:
        if self._ttft_s is None:
            self._ttft_s = clock - self._started

    def duration_s(self, clock: float) -> float:
        return clock - self._started

    @property
    def tokens(self) -> dict[str, int | None]:
        """The row's token columns. The prompt is what was read, what came from the cache and what was put into it; some
        servers say 0 where they do not count."""
        read = self.usage.get("input_tokens") or 0
        cached = self.usage.get("cache_read_input_tokens")
        written = self.usage.get("cache_creation_input_tokens") or 0
        prompt = read + (cached or 0) + written
        return {
            "tokens_prompt": prompt or None,
            "tokens_cached": cached,
            "tokens_prefilled": prompt - cached if prompt and cached is not None else None,
            "tokens_out": self.usage.get("output_tokens") or None,
        }


class TurnLog:
    """The newest rows, oldest first, and the turns still running."""

    def __init__(self) -> None:
        self.rows: deque[TurnRow] = deque(maxlen=_KEPT)
        self._ids = itertools.count(1)

    def add(self, row: TurnRow) -> None:
        self.rows.append(row)

    def next_id(self) -> int:
        return next(self._ids)


class _ForeignBlock(Struct, frozen=True):
    type: str = ""


class _ForeignMessage(Struct, frozen=True):
    usage: dict[str, Any] = {}


class _ForeignStop(Struct, frozen=True):
    stop_reason: str | None = None


class _ForeignEvent(Struct, frozen=True):
    content_block: _ForeignBlock = _ForeignBlock()
    message: _ForeignMessage = _ForeignMessage()
    usage: dict[str, Any] = {}
    delta: _ForeignStop = _ForeignStop()


def _foreign(data: bytes) -> _ForeignEvent:
    """What cannot be read tells nothing: a figure that is missing must not end a turn."""
    try:
        return msgspec.json.decode(data, type=_ForeignEvent)
    except msgspec.MsgspecError:
        return _ForeignEvent()


def _told(usage: Usage) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    return {key: value for key, value in fields.items() if not isinstance(value, UnsetType) and value is not None}
