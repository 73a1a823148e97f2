"""Events on their way into a trace: a secret in an answer comes in pieces, so that the pieces of one block are read as
one text, and the newest are held back until nothing that began in them can go on.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.telemetry.redact import LONGEST_BLOCK, PEM_BEGIN, PEM_END, Redactor, Span
from anyclaude.telemetry.trace_files import TraceEvent

_TEXTS = ("text", "thinking", "partial_json")
_BEFORE = 16  # characters that tell whether a word begins
_HELD = 256  # characters: longer than what stands before a credential's last word
_WORD = re.compile(r"[\w\-.+/=~]")


class _Piece(Struct, frozen=True):
    """An event that waits. `text` is its part of the block's text, None for what may come between (progress)."""

    event: TraceEvent
    text: str | None


class PieceRedactor:
    """`feed` events in their order; they come out in it, clean, some later than they went in."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held_characters = max(_HELD, redactor.longest)
        self._waiting: list[_Piece] = []
        self._block: tuple[int, str] | None = None
        self._before = ""  # the end of what was given out of this block

    def feed(self, events: Sequence[TraceEvent]) -> list[TraceEvent]:
        ready: list[TraceEvent] = []
        for event in events:
            found = _piece_of(event)
            if found is None and self._waiting and event.event in ("progress", "ping"):
                self._waiting.append(_Piece(event, None))
                continue
            if found is None or found[0] != self._block:
                ready += self.finish()
            if found is None:
                ready.append(self._clean(event))
            else:
                self._block = found[0]
                self._waiting.append(_Piece(event, found[1]))
        return ready + self._released()

    def finish(self) -> list[TraceEvent]:
        """What still waits: its block has ended."""
        ready = self._taken(len(self._waiting), self._spans(self._text()))
        self._block = None
        self._before = ""
        return ready

    def _text(self) -> str:
        return self._before + "".join(piece.text or "" for piece in self._waiting)

    def _spans(self, text: str) -> list[Span]:
        return self._redactor.spans(text, len(self._before))

    def _released(self) -> list[TraceEvent]:
        """The pieces before anything that may still grow into a secret."""
        text = self._text()
        spans = self._spans(text)
        safe = self._safe(text, spans)
        n, end = 0, len(self._before)
        for number, piece in enumerate(self._waiting, 1):
            end += len(piece.text or "")
            if end > safe:
                break
            if not any(span.start < end < span.end for span in spans):
                n = number
        return self._taken(n, spans)

    def _safe(self, text: str, spans: Sequence[Span]) -> int:
        """Up to here the text's secrets are known, whatever follows."""
        safe = _start_of_word(text, len(text)) - self._held_characters
        for span in spans:
            if span.end == len(text):
                safe = min(safe, span.start)
        for begin in PEM_BEGIN.finditer(text, max(0, len(text) - LONGEST_BLOCK)):
            if PEM_END.search(text, begin.end()) is None:
                safe = min(safe, begin.start())
        return safe

    def _taken(self, n: int, spans: Sequence[Span]) -> list[TraceEvent]:
        """The first `n` pieces, clean. A secret's label stands in the piece in which it begins."""
        ready: list[TraceEvent] = []
        start = len(self._before)
        for piece in self._waiting[:n]:
            if piece.text is None:
                ready.append(self._clean(piece.event))
                continue
            end = start + len(piece.text)
            ready.append(_with_text(self._clean(piece.event), _within(piece.text, start, end, spans)))
            start = end
        released = "".join(piece.text or "" for piece in self._waiting[:n])
        self._before = (self._before + released)[-_BEFORE:]
        del self._waiting[:n]
        return ready

    def _clean(self, event: TraceEvent) -> TraceEvent:
        return replace(event, data=self._redactor.value(event.data))


def _start_of_word(text: str, end: int) -> int:
    """Where the word that ends there begins, but not too far back."""
    first = max(0, end - LONGEST_BLOCK)
    while end > first and _WORD.fullmatch(text[end - 1]):
        end -= 1
    return end


def _piece_of(event: TraceEvent) -> tuple[tuple[int, str], str] | None:
    """Block and field that a delta adds to, and what it adds. None for any other event."""
    if event.event != "content_block_delta":
        return None
    data = _fields(event.data)
    delta = _fields(data.get("delta"))
    name = next((name for name in _TEXTS if isinstance(delta.get(name), str)), None)
    return None if name is None else ((data.get("index", 0), name), delta[name])


def _fields(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _with_text(event: TraceEvent, text: str) -> TraceEvent:
    found = _piece_of(event)
    assert found is not None
    data = _fields(event.data)
    return replace(event, data={**data, "delta": {**data["delta"], found[0][1]: text}})


def _within(text: str, start: int, end: int, spans: Sequence[Span]) -> str:
    """The part of the block's text from `start` to `end`, without what the spans cover."""
    parts: list[str] = []
    position = start
    for span in spans:
        if span.end <= start or span.start >= end:
            continue
        if span.start >= start:
            parts += [text[position - start : span.start - start], span.label]
        position = min(span.end, end)
    return "".join((*parts, text[position - start :]))
