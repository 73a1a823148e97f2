"""Streams as the translator's events, and what holds for every list of such events."""

import itertools
from collections.abc import Callable, Iterable

from msgspec import Struct

from anyclaude.translate.stream import StreamTranslator
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolUseStart,
)
from anyclaude.wire.openai import CallDelta, Choice, Chunk, Delta, ToolCallDelta, decode_chunk
from anyclaude.wire.sse import ServerEvent, SseDecoder


class Shown(Struct, frozen=True):
    """One whole block: its kind or the call's name, its words or arguments, and a call's id."""

    kind: str
    text: str
    id: str = ""


def numbered_ids() -> Callable[[str | None], str]:
    numbers = itertools.count(1)
    return lambda _: f"toolu_{next(numbers)}"


def translator(*, stop_sequences: tuple[str, ...] = ()) -> StreamTranslator:
    return StreamTranslator(message_id="msg_1", model="m", new_call_id=numbered_ids(), stop_sequences=stop_sequences)


def translated(chunks: Iterable[Chunk], *, stop_sequences: tuple[str, ...] = ()) -> list[Event]:
    """All events of one answer, checked for their order."""
    one = translator(stop_sequences=stop_sequences)
    events = [one.start(), *(event for chunk in chunks for event in one.feed(chunk)), *one.finish()]
    check_order(events)
    return events


def chunks_in(pieces: Iterable[bytes]) -> Iterable[Chunk]:
    decoder = SseDecoder()
    for piece in pieces:
        for item in decoder.feed(piece):
            if isinstance(item, ServerEvent) and item.data != b"[DONE]":
                yield decode_chunk(item.data)


def check_order(events: list[Event]) -> None:
    """The order of the Messages API: one block open at a time, indices ascend, all stopped before the end."""
    assert isinstance(events[0], MessageStart)
    assert isinstance(events[-2], MessageDelta)
    assert isinstance(events[-1], MessageStop)
    opened: BlockStart | None = None
    next_index = 0
    for event in events[1:-2]:
        match event:
            case BlockStart(index=index):
                assert opened is None
                assert index == next_index
                opened, next_index = event, next_index + 1
            case BlockDelta(index=index, delta=delta):
                assert opened is not None
                assert opened.index == index
                assert type(delta) is _DELTAS[type(opened.content_block)]
            case BlockStop(index=index):
                assert opened is not None
                assert opened.index == index
                opened = None
            case _:
                raise AssertionError(event)
    assert opened is None
    ids = [block.id for block in shown(events) if block.id]
    assert len(ids) == len(set(ids))


_DELTAS = {TextStart: TextDelta, ThinkingStart: ThinkingDelta, ToolUseStart: InputJsonDelta}


def shown(events: Iterable[Event]) -> list[Shown]:
    """The blocks of an answer, whole."""
    blocks: list[Shown] = []
    for event in events:
        match event:
            case BlockStart(content_block=ToolUseStart(id=call_id, name=name)):
                blocks.append(Shown(name, "", call_id))
            case BlockStart(content_block=TextStart()):
                blocks.append(Shown("text", ""))
            case BlockStart(content_block=ThinkingStart()):
                blocks.append(Shown("thinking", ""))
            case BlockDelta(delta=TextDelta() | ThinkingDelta() | InputJsonDelta() as delta):
                last = blocks.pop()
                blocks.append(Shown(last.kind, last.text + _words(delta), last.id))
            case _:
                pass
    return blocks


def _words(delta: TextDelta | ThinkingDelta | InputJsonDelta) -> str:
    match delta:
        case TextDelta(text=text) | ThinkingDelta(thinking=text) | InputJsonDelta(partial_json=text):
            return text


def ending(events: list[Event]) -> MessageDelta:
    last = events[-2]
    assert isinstance(last, MessageDelta)
    return last


def said(text: str) -> Chunk:
    return Chunk((Choice(Delta(content=text)),))


def called(
    arguments: str | None = None, *, index: int | None = None, name: str | None = None, call_id: str | None = None
) -> Chunk:
    return Chunk((Choice(Delta(tool_calls=(ToolCallDelta(index, call_id, CallDelta(name, arguments)),))),))


def finished(reason: str = "stop") -> Chunk:
    return Chunk((Choice(Delta(), finish_reason=reason),))
