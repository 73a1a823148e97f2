"""A recorded stream read as a person reads it: its answer whole, and runs of equal events as one line each."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from anyclaude.telemetry.trace_files import TraceEvent
from anyclaude.telemetry.turns import Tokens, TurnMeter
from anyclaude.wire.events import Foreign


class Step(Struct, frozen=True):
    """`n` events of one kind in a row, with `n_characters` in all; `block` is the content block's index."""

    what: str
    n: int
    from_s: float
    to_s: float
    n_characters: int
    block: int | None = None


class Call(Struct, frozen=True):
    """A tool call; `arguments` is its JSON as it came."""

    name: str
    arguments: str


class Answer(Struct, frozen=True, kw_only=True):
    """What came, and when: `first_s` is the first piece, `last_s` the last event."""

    text: str
    thinking: str
    calls: tuple[Call, ...]
    stop_reason: str | None
    error: str | None
    tokens: Tokens
    first_s: float | None
    last_s: float | None


class _Delta(Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""

    @property
    def words(self) -> str:
        return self.text or self.thinking or self.partial_json


class _Block(Struct, frozen=True):
    type: str = ""
    name: str = ""


class _Problem(Struct, frozen=True):
    type: str = ""
    message: str = ""


class _Data(Struct, frozen=True):
    """What is read of any event's data; a foreign server's may hold anything."""

    index: int | None = None
    delta: _Delta = _Delta()
    content_block: _Block = _Block()
    error: _Problem = _Problem()


def folded(events: Iterable[TraceEvent]) -> list[Step]:
    steps: list[Step] = []
    for event in events:
        data = _read(event)
        step = Step(_name(event, data), 1, event.at_s, event.at_s, len(data.delta.words), data.index)
        if steps and (steps[-1].what, steps[-1].block) == (step.what, step.block):
            last = steps.pop()
            step = Step(
                step.what, last.n + 1, last.from_s, step.to_s, last.n_characters + step.n_characters, step.block
            )
        steps.append(step)
    return steps


def answer_of(events: Sequence[TraceEvent]) -> Answer:
    text: list[str] = []
    thinking: list[str] = []
    calls: dict[int | None, Call] = {}
    error = None
    meter = TurnMeter(started=0.0, started_at=0.0)
    for event in events:
        meter.see(Foreign(event.event, msgspec.json.encode(event.data)), event.at_s)
        data = _read(event)
        text.append(data.delta.text)
        thinking.append(data.delta.thinking)
        if data.content_block.type == "tool_use":
            calls[data.index] = Call(data.content_block.name, "")
        elif data.index in calls:
            calls[data.index] = Call(calls[data.index].name, calls[data.index].arguments + data.delta.partial_json)
        elif event.event == "error":
            error = f"{data.error.type}: {data.error.message}"
    return Answer(
        text="".join(text),
        thinking="".join(thinking),
        calls=tuple(calls.values()),
        stop_reason=meter.stop_reason,
        error=error,
        tokens=meter.tokens,
        first_s=meter.ttft_s,
        last_s=events[-1].at_s if events else None,
    )


def _read(event: TraceEvent) -> _Data:
    try:
        return msgspec.convert(event.data, _Data)
    except msgspec.ValidationError:
        return _Data()


def _name(event: TraceEvent, data: _Data) -> str:
    """`text_delta` says more than `content_block_delta`, `tool_use Read` more than `content_block_start`."""
    if event.event == "content_block_delta":
        return data.delta.type or event.event
    if event.event == "content_block_start":
        return " ".join(part for part in ("start of", data.content_block.type, data.content_block.name) if part)
    return event.event
