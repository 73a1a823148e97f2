"""What the client is shown while a long prompt is read: a thinking block of ours, put before the answer's own blocks.

The client gives up a stream that holds nothing but pings for ten minutes, and its person sees nothing move. The block
is never text, so nobody takes it for the answer, and its signature lets the prompt room take it out of the history.
"""

import math
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from anyclaude.backends.seam import Item, Progress
from anyclaude.prompt.own import own_signature
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    MessageDelta,
    MessageStart,
    SignatureDelta,
    ThinkingDelta,
    ThinkingStart,
)
from anyclaude.wire.messages import MessagesRequest

AFTER_S, EVERY_S = 60.0, 30.0


class ReadingNote:
    """`see` each item of one answer, from its beginning; `after_s` infinite: nothing is added."""

    def __init__(
        self, *, after_s: float = AFTER_S, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next_at = clock() + after_s
        self._has_begun = False  # after message_start and before the first block, a block of ours is in order
        self._text = ""
        self._shift = 0

    def see(self, item: Item) -> Iterator[Event]:
        """What is to be written for it."""
        match item:
            case Progress():
                yield from self._progress(item)
            case MessageStart():
                self._has_begun = True
                yield item
            case BlockStart(index=index):
                yield from self._closed()
                yield replace(item, index=index + self._shift)
            case BlockDelta(index=index) | BlockStop(index=index):
                yield replace(item, index=index + self._shift)
            case MessageDelta():
                yield from self._closed()
                yield item
            case _:
                yield item

    def _progress(self, progress: Progress) -> Iterator[Event]:
        now = self._clock()
        if not self._has_begun or now < self._next_at:
            return
        self._next_at = now + self._every_s
        line = f"Reading the prompt: {progress.n_read:,} of {progress.n_total:,} tokens."
        if not self._shift:
            self._shift = 1
            yield BlockStart(0, ThinkingStart())
        piece = f"\n{line}" if self._text else line
        self._text += piece
        yield BlockDelta(0, ThinkingDelta(piece))

    def _closed(self) -> Iterator[Event]:
        """The signature is of the whole text, so it comes last."""
        if self._has_begun and self._shift:
            yield BlockDelta(0, SignatureDelta(own_signature(self._text)))
            yield BlockStop(0)
        self._has_begun = False


def is_wanted(request: MessagesRequest) -> bool:
    """Only a client that streams and asked for thinking expects a thinking block."""
    return request.stream and request.thinking is not None and request.thinking.type != "disabled"


def note_for(request: MessagesRequest, after_s: float) -> ReadingNote:
    return ReadingNote(after_s=after_s if is_wanted(request) else math.inf)
