"""Chunks of an OpenAI stream to events of a Messages API stream, one at a time, without waiting.

Promises, for any chunking and any order that servers are known to use: event order is valid, one content
block is open at a time, no text is lost, and `finish` says whether the stream came to a real end.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from anyclaude.translate.calls import Call, CallTable
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    StartedMessage,
    Stop,
    StopReason,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolUseStart,
    Usage,
)
from anyclaude.wire.openai import ChatUsage, Chunk, Delta

_STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class Piece(Struct, frozen=True):
    """Something to be written: words, thoughts, or arguments of a call."""

    kind: Literal["text", "thinking", "call"]
    text: str
    call: Call | None = None


class StreamTranslator:
    """One answer. `start`, then `feed` each chunk, then `finish` once. `new_call_id` is given the server's own id."""

    def __init__(
        self,
        *,
        message_id: str,
        model: str,
        new_call_id: Callable[[str | None], str],
        stop_sequences: tuple[str, ...] = (),
    ) -> None:
        self._message = StartedMessage(message_id, model, Usage(input_tokens=0, output_tokens=0))
        self._stop_sequences = stop_sequences
        self._calls = CallTable(new_call_id)
        self._index = -1
        self._open: Piece | None = None
        self._waiting: list[Piece] = []
        self._finish_reason: str | None = None
        self._matched_stop: str | None = None
        self._usage: ChatUsage | None = None

    @property
    def has_finish_reason(self) -> bool:
        """Without one the server broke off, whatever its connection says."""
        return self._finish_reason is not None

    def start(self) -> Event:
        return MessageStart(self._message)

    def feed(self, chunk: Chunk) -> Iterator[Event]:
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in (chunk.choices or ())[:1]:
            if delta := choice.delta or choice.message:
                yield from self._delta(delta)
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason
                if isinstance(choice.stop_reason, str) and choice.stop_reason in self._stop_sequences:
                    self._matched_stop = choice.stop_reason

    def finish(self) -> Iterator[Event]:
        """The end of an answer: only to be called when `has_finish_reason`."""
        while self._waiting:
            yield from self._close()
            yield from self._write_waiting()
        for call in self._calls.unwritten:
            yield from self._write(Piece("call", call.take(), call))
        yield from self._close()
        yield MessageDelta(Stop(self._stop_reason(), self._matched_stop), usage_of(self._usage))
        yield MessageStop()

    def _delta(self, delta: Delta) -> Iterator[Event]:
        if thought := delta.reasoning_content or delta.reasoning:
            yield from self._take(Piece("thinking", thought))
        if text := delta.content or delta.refusal:
            yield from self._take(Piece("text", text))
        for call_delta in delta.tool_calls or ():
            call = self._calls.resolve(call_delta)
            call.add(call_delta)
            if call.name is not None:
                yield from self._take(Piece("call", call.take(), call))

    def _take(self, piece: Piece) -> Iterator[Event]:
        """Writes it now, or lets it wait until the call that is being written is whole."""
        if piece.call is not None and piece.call.is_closed and not piece.text.strip():
            return  # white space after the arguments would open the call a second time
        if self._must_wait(piece):
            self._wait(piece)
            return
        yield from self._write(piece)
        if self._waiting and self._open is not None and _is_whole(self._open):
            yield from self._write_waiting()

    def _must_wait(self, piece: Piece) -> bool:
        if self._open is None or self._open.call is None or piece.call is self._open.call:
            return False
        return bool(self._waiting) or not _is_whole(self._open)

    def _wait(self, piece: Piece) -> None:
        """A call's pieces wait as one: whether the open call is whole is asked of all that has arrived of it."""
        for n, earlier in enumerate(self._waiting):
            if piece.call is not None and earlier.call is piece.call:
                self._waiting[n] = Piece("call", earlier.text + piece.text, piece.call)
                return
        self._waiting.append(piece)

    def _write_waiting(self) -> Iterator[Event]:
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            yield from self._take(piece)

    def _write(self, piece: Piece) -> Iterator[Event]:
        if self._open is None or (self._open.kind, self._open.call) != (piece.kind, piece.call):
            yield from self._close()
            yield self._start_block(piece)
        match piece.kind:
            case "text":
                yield BlockDelta(self._index, TextDelta(piece.text))
            case "thinking":
                yield BlockDelta(self._index, ThinkingDelta(piece.text))
            case "call":
                if piece.text:
                    yield BlockDelta(self._index, InputJsonDelta(piece.text))

    def _start_block(self, piece: Piece) -> Event:
        self._index += 1
        self._open = piece
        if piece.call is not None:
            return BlockStart(self._index, ToolUseStart(piece.call.id, piece.call.name or ""))
        return BlockStart(self._index, TextStart() if piece.kind == "text" else ThinkingStart())

    def _close(self) -> Iterator[Event]:
        if self._open is not None:
            if self._open.call is not None:
                self._open.call.is_closed = True
            self._open = None
            yield BlockStop(self._index)

    def _stop_reason(self) -> StopReason:
        if self._matched_stop is not None:
            return "stop_sequence"
        reason = _STOP_REASONS.get(self._finish_reason or "", "end_turn")
        if reason in ("end_turn", "tool_use"):
            return "tool_use" if self._calls else "end_turn"
        return reason


def _is_whole(piece: Piece) -> bool:
    return piece.call is None or piece.call.is_complete()


def usage_of(usage: ChatUsage | None) -> Usage:
    """What the server told. Cached tokens that it did not tell stay untold."""
    if usage is None or usage.prompt_tokens is None:
        return Usage(output_tokens=(usage and usage.completion_tokens) or 0)
    details = usage.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    if cached is None:
        return Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens or 0)
    return Usage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        cache_creation_input_tokens=0,
        output_tokens=usage.completion_tokens or 0,
    )
