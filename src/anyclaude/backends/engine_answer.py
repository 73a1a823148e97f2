"""The engine's reports on one answer as events of a Messages API stream: valid order, one block open at a time."""

from collections.abc import Iterator

from anyclaude.errors import BackendFailed
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
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
from anyclaude.wire.frames import Began, CallPiece, Finished, FinishReason, Piece

_STOP_REASONS: dict[FinishReason, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "window": "model_context_window_exceeded",
}


class EngineAnswer:
    """One answer. `begin` once, then the pieces, then `finish` once. Raises BackendFailed for any other order."""

    def __init__(self, message_id: str, model: str) -> None:
        self._message_id = message_id
        self._model = model
        self._has_begun = False
        self._signature = ""
        self._index = -1
        self._open: str | int | None = None  # the kind of the block that is open, of a call its number
        self._calls = set[int]()

    def begin(self, began: Began) -> Event:
        self._has_begun = True
        self._signature = began.signature
        usage = usage_of(began.n_prompt, began.n_cached, 0)
        return MessageStart(StartedMessage(self._message_id, self._model, usage))

    def piece(self, piece: Piece | CallPiece) -> Iterator[Event]:
        self._check_begun()
        match piece:
            case Piece(kind="text", text=text) if text:
                yield from self._opened("text", TextStart())
                yield BlockDelta(self._index, TextDelta(text))
            case Piece(kind="thinking", text=text) if text:
                yield from self._opened("thinking", ThinkingStart())
                yield BlockDelta(self._index, ThinkingDelta(text))
            case CallPiece(index=index, arguments=arguments):
                if self._open != index:
                    yield from self._opened(index, self._call(piece))
                if arguments:
                    yield BlockDelta(self._index, InputJsonDelta(arguments))
            case _:
                pass  # an empty piece opens no block

    def finish(self, finished: Finished) -> Iterator[Event]:
        self._check_begun()
        yield from self._closed()
        reason = _STOP_REASONS[finished.reason]
        if reason == "end_turn" and self._calls:
            reason = "tool_use"
        usage = usage_of(finished.n_prompt, finished.n_cached, finished.n_out)
        yield MessageDelta(Stop(reason, finished.stop_sequence), usage)
        yield MessageStop()

    def _call(self, piece: CallPiece) -> ToolUseStart:
        if piece.index in self._calls or not piece.name or not piece.call_id:
            raise BackendFailed("the engine sent a piece of a call that is not open")
        self._calls.add(piece.index)
        return ToolUseStart(piece.call_id, piece.name)

    def _opened(self, key: str | int, block: TextStart | ThinkingStart | ToolUseStart) -> Iterator[Event]:
        if self._open == key:
            return
        yield from self._closed()
        self._open = key
        self._index += 1
        yield BlockStart(self._index, block)

    def _closed(self) -> Iterator[Event]:
        if self._open is None:
            return
        if self._open == "thinking" and self._signature:
            yield BlockDelta(self._index, SignatureDelta(self._signature))
        self._open = None
        yield BlockStop(self._index)

    def _check_begun(self) -> None:
        if not self._has_begun:
            raise BackendFailed("the engine answered before it began")


def usage_of(n_prompt: int, n_cached: int, n_out: int) -> Usage:
    """Exact: the engine itself counted. What it computed anew it counts as read."""
    return Usage(
        input_tokens=n_prompt - n_cached,
        cache_read_input_tokens=n_cached,
        cache_creation_input_tokens=0,
        output_tokens=n_out,
    )
