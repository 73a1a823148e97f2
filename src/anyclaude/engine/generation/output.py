"""What a model writes, as it writes it: text to pieces of an answer.

Reasoning, calls and stop sequences are found by their text, so a marker may be cut between tokens anywhere. No text is
lost: what looks like a call and cannot be read is passed on as text.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from anyclaude.engine.model.adapter import Segments, ToolParser
from anyclaude.prompt.policy import client_call_id
from anyclaude.wire.frames import Call, CallPiece, FinishReason, Piece, Turn

_STOP = "stop:"


class Markers(Struct, frozen=True):
    """`think_open` and `think_close` surround reasoning; None where a model has none. `words_open` is what some models
    write before their words, `role_open` before each part of an answer."""

    think_open: str | None = None
    think_close: str | None = None
    words_open: str | None = None
    role_open: str | None = None


class Answer:
    """One answer. `feed` text as it comes, `finish` once; then `turn` is what the client was told."""

    def __init__(
        self,
        request_id: int,
        markers: Markers,
        parser: ToolParser | None,
        tools: Sequence[dict[str, Any]],
        stop_sequences: Sequence[str],
        *,
        begins_in_reasoning: bool,
        new_id: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        self._id = request_id
        self._parser = parser if tools else None
        self._tools = tools
        self._stop_sequences = stop_sequences
        self._new_id = new_id
        transitions = _transitions(markers, self._parser, stop_sequences)
        initial = "thinking" if begins_in_reasoning and "thinking" in transitions else "text"
        self._segments = Segments(transitions, initial)
        self._blocks: dict[str, list[str]] = {"text": [], "thinking": []}
        self._open: str | None = None
        self._blanks = ""
        self._call_text: str | None = None
        self._calls: list[Call] = []
        self.stop_sequence: str | None = None
        self.signature = f"anyclaude-engine:{new_id()}"

    @property
    def turn(self) -> Turn:
        return Turn(
            role="assistant",
            content="\n".join(self._blocks["text"]),
            reasoning="\n".join(self._blocks["thinking"]),
            signature=self.signature if self._blocks["thinking"] else "",
            calls=tuple(self._calls),
        )

    def feed(self, text: str) -> Iterator[Piece | CallPiece]:
        for name, part in self._segments.feed(text):
            yield from self._segment(name, part)

    def finish(self, reason: FinishReason) -> Iterator[Piece | CallPiece]:
        """`reason` decides over what was held back: the start of a marker is text where the answer was cut."""
        name, rest = self._segments.finish()
        if self.stop_sequence is None:
            yield from self._segment(name, rest)
        if self._call_text is not None:
            whole = reason == "stop" and self._parser is not None and not self._parser.close
            yield from self._end_call(readable=whole)

    def reason(self, ended: FinishReason) -> FinishReason:
        if self.stop_sequence is not None:
            return "stop_sequence"
        return "tool_calls" if ended == "stop" and self._calls else ended

    def _segment(self, name: str, text: str) -> Iterator[Piece | CallPiece]:
        """One state's text; a state that is entered anew comes as a segment even without text."""
        if name.startswith(_STOP):
            self.stop_sequence = self._stop_sequences[int(name.removeprefix(_STOP))]
            return
        if self._call_text is not None and name != "call":
            yield from self._end_call(readable=True)
        if name == "call":
            if self._call_text is None:
                self._call_text = ""
            self._call_text += text
        elif name == "thinking":
            yield from self._words("thinking", text)
        else:
            yield from self._words("text", text)

    def _words(self, kind: Literal["text", "thinking"], text: str) -> Iterator[Piece]:
        """Blanks wait for words: a block of blanks alone, before a call or at the end, says nothing."""
        if self._open == kind:
            text = self._blanks + text
        elif text := text.lstrip():
            self._open = kind
            self._blocks[kind].append("")
        words = text.rstrip()
        self._blanks = text[len(words) :]
        if words:
            self._blocks[kind][-1] += words
            yield Piece(self._id, kind, words)

    def _end_call(self, *, readable: bool) -> Iterator[Piece | CallPiece]:
        text, self._call_text = self._call_text or "", None
        assert self._parser is not None
        try:
            if not readable:
                raise ValueError("cut off")
            found = [_call(self._new_id(), each) for each in self._parser.parse(text, self._tools)]
        except ValueError:
            close = self._parser.close if readable else ""
            yield from self._words("text", f"{self._parser.open}{text}{close}")
            return
        self._open = None
        for call in found:
            self._calls.append(call)
            yield CallPiece(self._id, len(self._calls) - 1, call.arguments, call.id, call.name)


def _call(unique: str, found: dict[str, Any]) -> Call:
    arguments = found.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("arguments are not an object")
    # The id that the client knows carries nine letters and digits, which templates that want such ids are shown.
    return Call(client_call_id(unique, unique[-9:]), found["name"], json.dumps(arguments, ensure_ascii=False))


def _transitions(
    markers: Markers, parser: ToolParser | None, stop_sequences: Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {"text": []}
    if markers.think_open and markers.think_close:
        found["text"].append((markers.think_open, "thinking"))
        found["thinking"] = [(markers.think_close, "text")]
        if parser is not None:
            found["thinking"].append((parser.open, "call"))
    if markers.words_open:
        for opening in (markers.words_open, f"{markers.role_open or ''}{markers.words_open}"):
            found["text"].append((opening, "text"))
            if "thinking" in found:
                found["thinking"].append((opening, "text"))
    if parser is not None:
        found["text"].append((parser.open, "call"))
        found["call"] = [(parser.close, "text")] if parser.close else []
    for n, words in enumerate(stop_sequences):
        found["text"].append((words, f"{_STOP}{n}"))
        found[f"{_STOP}{n}"] = []
    return found
