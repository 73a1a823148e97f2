"""What the engine reports for one request, until its reader takes it.

A slow reader never holds up the engine's other requests: what waits is put together, so that it is bounded by the
length of one answer. Past that bound the request is given up.
"""

import asyncio
from collections import deque

from msgspec.structs import replace

from anyclaude.errors import ApiError, BackendFailed
from anyclaude.wire.frames import CallPiece, Counted, Failed, Finished, Loaded, Loading, Piece, Prefilled, Report, Told

MOST = 8 << 20  # characters that wait, more than any answer has
_JOINED = 4096  # joining ever longer texts would cost their square
_OVERHEAD = 64  # a report without text takes room too
_LAST = (Finished, Counted, Loaded, Told, Failed)


class Inbox:
    """`put` and `fail` are called on the event loop's thread, `next` by one task. Nothing is lost or reordered."""

    def __init__(self) -> None:
        self.is_over = False  # nothing will be put any more
        self._waiting: deque[Report] = deque()
        self._size = 0
        self._error: ApiError | None = None
        self._arrived = asyncio.Event()

    def put(self, report: Report) -> bool:
        """Whether the request goes on or has ended well; False where its reader was too slow."""
        if self.is_over:
            return True
        self.is_over = isinstance(report, _LAST)
        joined = _joined(self._waiting[-1], report) if self._waiting else None
        if joined is not None:
            self._size -= _size(self._waiting.pop())
        self._waiting.append(joined or report)
        self._size += _size(joined or report)
        if self._size > MOST and not self.is_over:
            self.fail(BackendFailed("the answer was not read: the client takes too little of it"))
            return False
        self._arrived.set()
        return True

    def fail(self, error: ApiError) -> None:
        """What has arrived is still read before it."""
        if not self.is_over:
            self.is_over = True
            self._error = error
            self._arrived.set()

    async def next(self) -> Report:
        """Raises what it failed with. Cancelled, it has taken nothing."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            assert not self.is_over, "nothing comes after the last report"
            self._arrived.clear()
            await self._arrived.wait()
        report = self._waiting.popleft()
        self._size -= _size(report)
        return report


def _joined(last: Report, new: Report) -> Report | None:
    """Both as one, where one says it all."""
    match last, new:
        case (Piece(), Piece()) if last.kind == new.kind and len(last.text) < _JOINED:
            return replace(last, text=last.text + new.text)
        case (CallPiece(), CallPiece()) if last.index == new.index and len(last.arguments) < _JOINED and not new.name:
            return replace(last, arguments=last.arguments + new.arguments)
        case (Prefilled(), Prefilled()) | (Loading(), Loading()):
            return new
        case _:
            return None


def _size(report: Report) -> int:
    match report:
        case Piece(text=text) | CallPiece(arguments=text):
            return _OVERHEAD + len(text)
        case _:
            return _OVERHEAD
