"""What each turn did, as frozen rows. Nothing here is awaited by a request.

Figures are the backend's own. What it did not tell is None, never a guess.
"""

from typing import Any

import msgspec
from msgspec import Struct

from anyclaude.wire.events import BlockDelta, BlockStart, Event, Foreign, MessageDelta, ToolUseStart, Usage

_MANY = 1 << 48  # more than any prompt, and less than SQLite's integers


CLIENT_LEFT = "the client went away"  # an `error` that is nobody's fault


class TurnRow(Struct, frozen=True, kw_only=True):
    """One answered (or failed) request. Times in seconds, `started_at` in seconds since 1970. The names are a promise.

    `id` is the ledger's number for it, None where it is not recorded; `session` the client's own id, or the launch's
    where it sent none. `n_shared` of `n_sections` sections of the prompt were those of the turn `compared_with`.
    """

    id: int | None = None
    request_id: str
    started_at: float
    launch: str
    session: str
    agent: str | None
    request_class: str | None
    entrypoint: str | None
    project: str
    backend: str
    base_url: str
    model: str
    tokens_prompt: int | None
    tokens_cached: int | None
    tokens_prefilled: int | None
    tokens_out: int | None
    ttft_s: float | None
    duration_s: float
    stop_reason: str | None
    tool_calls: int
    repairs: int
    error: str | None
    n_characters: int = 0
    n_sections: int = 0
    n_shared: int = 0
    compared_with: int | None = None

    @property
    def was_read(self) -> bool:
        """Whether the server came to an answer: of a turn that failed before, nothing may be cached."""
        return self.error is None or self.ttft_s is not None

    @property
    def server(self) -> tuple[str, str, str]:
        """Only turns that the same model on the same server answered can share anything."""
        return self.backend, self.base_url, self.model


class Reading(Struct, frozen=True):
    """A prompt being read: tokens so far and in all, as the server tells them."""

    n_read: int
    n_total: int


class Tokens(Struct, frozen=True, kw_only=True):
    """Of one turn, as the backend told them."""

    prompt: int | None
    cached: int | None
    prefilled: int | None
    out: int | None


class TurnMeter:
    """Watches one turn's events. `clock` and `started` count seconds, `started_at` is the time of day."""

    def __init__(self, *, started: float, started_at: float) -> None:
        self.started_at = started_at
        self.reading: Reading | None = None
        self.usage: dict[str, int] = {}
        self.stop_reason: str | None = None
        self.n_tool_calls = 0
        self.n_repairs = 0  # tool calls that had to be mended
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
            self.usage |= _counts((event.message.usage or {}) | (event.usage or {}))
            self.stop_reason = event.delta.stop_reason or self.stop_reason

    def _first(self, clock: float) -> None:
        if self._ttft_s is None:
            self._ttft_s = clock - self._started

    def duration_s(self, clock: float) -> float:
        return clock - self._started

    @property
    def tokens(self) -> Tokens:
        """The prompt is what was read, what came from the cache and what was put into it; some servers say 0 where they
        do not count."""
        read = self.usage.get("input_tokens") or 0
        cached = self.usage.get("cache_read_input_tokens")
        written = self.usage.get("cache_creation_input_tokens") or 0
        prompt = read + (cached or 0) + written
        return Tokens(
            prompt=prompt or None,
            cached=cached if prompt else None,
            prefilled=prompt - cached if prompt and cached is not None else None,
            out=self.usage.get("output_tokens") or None,
        )


class _ForeignBlock(Struct, frozen=True):
    type: str = ""


class _ForeignMessage(Struct, frozen=True):
    usage: dict[str, Any] | None = None


class _ForeignStop(Struct, frozen=True):
    stop_reason: str | None = None


class _ForeignEvent(Struct, frozen=True):
    content_block: _ForeignBlock = _ForeignBlock()
    message: _ForeignMessage = _ForeignMessage()
    usage: dict[str, Any] | None = None
    delta: _ForeignStop = _ForeignStop()


def _foreign(data: bytes) -> _ForeignEvent:
    """What cannot be read tells nothing: a figure that is missing must not end a turn."""
    try:
        return msgspec.json.decode(data, type=_ForeignEvent)
    except msgspec.MsgspecError:
        return _ForeignEvent()


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    """What is no plausible number of tokens was not told."""
    return {key: value for key, value in usage.items() if type(value) is int and 0 <= value < _MANY}


def _told(usage: Usage) -> dict[str, int]:
    fields: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    return _counts(fields)
