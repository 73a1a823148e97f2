"""One request from its parsed form to the last byte of its answer: the edge where errors become answers.

What the client acts on by HTTP status is settled before headers go: they wait for the backend's first item, 5 s at
most. From then on an error is an event. When the client goes away everything here is cancelled, and with it the
connection to the backend, so that the model stops working.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

import anyio
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from anyclaude.backends.seam import Backend, Item, Progress, Target, Turn
from anyclaude.errors import ApiError
from anyclaude.server.answers import send_json
from anyclaude.server.reading_note import AFTER_S, note_for
from anyclaude.server.stream import EventWriter
from anyclaude.telemetry.traces import RunningTrace
from anyclaude.telemetry.turns import CLIENT_LEFT, Reading, TurnMeter
from anyclaude.translate.whole import MessageCollector
from anyclaude.wire.events import Event, Foreign, MessageStop

_TELL_S = 10.0
log = logging.getLogger(__name__)


class UnexpectedFault(ApiError):
    """A defect of ours; the log has the traceback."""


class Labels(Struct, frozen=True):
    """Whose turn it is: the launch, and what the client's own headers say."""

    launch: str
    session: str
    project: str
    target: Target
    agent: str | None = None
    request_class: str | None = None
    entrypoint: str | None = None
    is_private: bool = False


class RunningTurn:
    """`run` once. `interrupt` from outside ends it with an error that the client sees."""

    def __init__(
        self, turn: Turn, backend: Backend, labels: Labels, request_id: str, *, note_after_s: float = AFTER_S
    ) -> None:
        self.turn = turn
        self.request_id = request_id
        self.labels = labels
        self.meter = TurnMeter(started=time.monotonic(), started_at=time.time())
        self.outcome: str | None = None
        self.trace: RunningTrace | None = None
        self._backend = backend
        self._note_after_s = note_after_s
        self._told_at = time.monotonic()
        self._work = anyio.CancelScope()
        self._interruption: ApiError | None = None
        self._is_answered = False

    def interrupt(self, error: ApiError) -> None:
        self._interruption = error
        self._work.cancel()

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leaves no connection to the backend behind, however it ends."""
        writer = EventWriter(scope, send)
        request = self.turn.request
        log.debug(
            "%s: %s for %s, %d bytes, %d messages, %d tools, max_tokens %s, %s",
            self.request_id, self.labels.request_class, self.turn.model, len(self.turn.body),
            len(request.messages), len(request.tools), request.max_tokens, "stream" if request.stream else "whole",
        )  # fmt: skip
        try:
            with self._work:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._leave_with_client, receive)
                    if self.turn.request.stream:
                        group.start_soon(writer.keep_alive)
                        await self._stream(writer)
                    else:
                        await self._whole(scope, send)
                    group.cancel_scope.cancel()
        except* ApiError as group_error:
            await self._fail(writer, cast("ApiError", _only(group_error)))
        except* Exception as group_error:  # one of the two edges: nothing may escape unanswered
            log.error("request %s failed", self.request_id, exc_info=_only(group_error))
            await self._fail(writer, UnexpectedFault("anyclaude failed on this request; see `anyclaude logs`"))
        if self._interruption is not None:
            await self._fail(writer, self._interruption)

    async def _stream(self, writer: EventWriter) -> None:
        note = note_for(self.turn.request, self._note_after_s)
        async for item in self._items():
            for event in note.see(item):
                await writer.write(event)
                self._is_answered = _is_last(event)
        await writer.close()

    async def _whole(self, scope: Scope, send: Send) -> None:
        collector = MessageCollector()
        async for item in self._items():
            if not isinstance(item, Progress):
                collector.add(item)
        self._is_answered = True
        await send_json(scope, send, collector.message)

    async def _items(self) -> AsyncIterator[Item]:
        items = self._backend.open(self.turn)
        async with aclosing(items):  # pyright: ignore[reportArgumentType]
            async for item in items:
                clock = time.monotonic()
                if isinstance(item, Progress):
                    self.meter.reading = seen = Reading(item.n_read, item.n_total)
                    self._tell_reading(item, clock)
                else:
                    seen = item
                    self.meter.see(item, clock)
                if self.trace is not None:
                    self.trace.see(seen, clock)
                yield item

    def _tell_reading(self, progress: Progress, clock: float) -> None:
        """Now and then, so that a long prompt is seen to move in the log."""
        if clock - self._told_at >= _TELL_S:
            self._told_at = clock
            log.info("%s: %d of %d prompt tokens read", self.request_id, progress.n_read, progress.n_total)

    async def _leave_with_client(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._is_answered:
            self.outcome = CLIENT_LEFT
        self._work.cancel()

    async def _fail(self, writer: EventWriter, error: ApiError) -> None:
        self.outcome = f"{error.kind}: {error.message}"
        await writer.fail(error)


def _is_last(event: Event) -> bool:
    """After it the client may hang up: it has its answer."""
    return isinstance(event, MessageStop) or (isinstance(event, Foreign) and event.name == "message_stop")


def _only(group: BaseException) -> BaseException:
    """The first fault inside nested groups: a turn has one worker, the rest only accompany it."""
    if isinstance(group, BaseExceptionGroup):
        return _only(cast("BaseExceptionGroup[BaseException]", group).exceptions[0])
    return group
