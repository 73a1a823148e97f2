"""The text that new turns add to a prompt whose tokens are known already.

A template renders whole conversations only. So a short stand-in for what came before is rendered with the new turns,
and its own part is cut off. The cost does not depend on how long the conversation is.
"""

import secrets
from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.engine.text.shape import Shape
from anyclaude.engine.text.template import Template, Tools
from anyclaude.wire.frames import Turn

_WORD = "-"
_MOST_TURNS = 4
_STUB_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "stub",
        "description": "-",
        "parameters": {"type": "object", "properties": {"k": {"type": "string", "description": "-"}}, "required": []},
    },
}
# Nobody can know it, so no content of a new turn is taken for the end of the stand-in.
_MARK = "m" + secrets.token_hex(12)
_MARKED_ARGUMENTS = msgspec.json.encode({"k": _MARK}).decode()


class Addition(Struct, frozen=True):
    """Shielded texts: of the turns, and what follows them where an answer is to come."""

    turns: str
    generation: str = ""


def whole(
    template: Template, shape: Shape, turns: Sequence[Turn], tools: Tools, *, thinks: bool | None, day: date
) -> Addition | None:
    """All of a prompt; None where it reads otherwise when an answer is to come. Raises TemplateRefused."""
    closed = template.render(turns, tools, add_generation_prompt=False, thinks=thinks, date=day, form=shape.form)
    asked = template.render(turns, tools, add_generation_prompt=True, thinks=thinks, date=day, form=shape.form)
    return Addition(closed, asked[len(closed) :]) if asked.startswith(closed) else None


def head(
    template: Template, shape: Shape, turns: Sequence[Turn], tools: Tools, *, thinks: bool | None, day: date
) -> str:
    """What stands before the first user turn's words. Raises TemplateRefused."""
    opening = [turn for turn in turns[:1] if turn.role == "system"] + [Turn("user", _MARK)]
    text = template.render(opening, tools, add_generation_prompt=False, thinks=thinks, date=day, form=shape.form)
    return text.partition(_MARK)[0]


def addition(
    template: Template,
    shape: Shape,
    before: Sequence[Turn],
    new: Sequence[Turn],
    *,
    is_open: bool,
    thinks: bool | None,
    day: date,
) -> Addition | None:
    """`is_open`: the last turn before was generated, and its end is still to be written. None where the template gives
    no text that could be appended. Raises TemplateRefused."""
    if shape.delta == "whole":
        return None
    tools = (_STUB_TOOL,) if shape.delta == "with tools" else ()

    def text(turns: Sequence[Turn], *, asks: bool) -> str:
        return template.render(turns, tools, add_generation_prompt=asks, thinks=thinks, date=day, form=shape.form)

    context = stand_in(before, has_system=shape.has_system)
    closed = text([*context, *new], asks=False)
    start = _end_of_answer(shape, before[-1], closed) if is_open else _end_of_turn(text(context, asks=False), closed)
    if start is None:
        return None
    asked = text([*context, *new], asks=True)
    if not asked.startswith(closed):
        return None
    return Addition(closed[start:], asked[len(closed) :])


def stand_in(before: Sequence[Turn], *, has_system: bool = True) -> list[Turn]:
    """Short turns that a template treats as it treats these: the last answer, what stands after it, and an opening."""
    before = before if has_system or before[0].role != "system" else before[1:]
    opening = [Turn("system", _WORD)] if before and before[0].role == "system" else []
    last = next((n for n in range(len(before) - 1, -1, -1) if before[n].role == "assistant"), None)
    if last is None:
        return opening + [_stub(turn) for turn in before[len(opening) :][-_MOST_TURNS:]]
    return [*opening, Turn("user", _WORD), *(_stub(turn) for turn in before[last:])]


def _stub(turn: Turn) -> Turn:
    if turn.role != "assistant":
        return Turn(turn.role, _MARK, call_id=turn.call_id)
    calls = tuple(replace(call, arguments=_MARKED_ARGUMENTS) for call in turn.calls)
    return Turn("assistant", "" if calls else _MARK, calls=calls)


def _end_of_turn(context: str, text: str) -> int | None:
    """Where the last turn of the stand-in ends: as it does with nothing after it. What stands before that turn may read
    otherwise by now."""
    end = context.rpartition(_MARK)[2]
    found = text.rfind(_MARK)
    start = found + len(_MARK)
    return start + len(end) if found >= 0 and _MARK in context and text.startswith(end, start) else None


def _end_of_answer(shape: Shape, answer: Turn, text: str) -> int | None:
    """Where the answer's own words end and the end of its turn begins."""
    found = text.rfind(_MARK)
    if found < 0:
        return None
    end = found + len(_MARK)
    if not answer.calls:
        return end
    if shape.call_end:
        closed = text.find(shape.call_end, end)
        return closed if closed >= 0 else None
    return end + len(shape.call_close) if shape.call_close and text.startswith(shape.call_close, end) else None
