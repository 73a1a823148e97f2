"""Which rule tells what new turns add to a prompt: tried on conversations whose whole text is known."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product

from msgspec.structs import replace

from anyclaude.engine.text.delta import addition
from anyclaude.engine.text.shape import DeltaRule, Shape
from anyclaude.engine.text.specimens import DAY, TOOL, Rendering, answer, result, user
from anyclaude.engine.text.template import TemplateRefused
from anyclaude.wire.frames import Turn


def with_rule(rendering: Rendering, shape: Shape, head: Sequence[Turn]) -> Shape:
    """The first rule that holds; the last one needs no proof."""
    rules: tuple[DeltaRule, ...] = ("with tools", "without tools")
    for has_system, rule in product((True, False) if head else (True,), rules):
        tried = replace(shape, delta=rule, has_system=has_system)
        if all(_holds(rendering, tried, turns) for turns in _conversations(shape, head if has_system else ())):
            return tried
    return replace(shape, delta="whole")


def _conversations(shape: Shape, head: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Without reasoning, which may go again, and without words beside calls, which some templates move or drop: both
    stay as they were generated."""
    yield [*head, user(1), answer(1), user(2), answer(2), user(3)]
    if not {"calls", "results"} & set(shape.loses):
        yield [*head, user(1), *_loop(1), *_loop(2), answer(3), user(2), *_loop(4), *_loop(5)]
        if not shape.one_call:
            yield [*head, user(1), answer(1, words="", calls=2), result(1), result(1, 1), answer(2), user(2)]
        if not shape.alternates:
            yield [*head, user(1), *_loop(1), user(2), answer(2), user(3)]
    if not shape.alternates:
        yield [*head, user(1), user(2), answer(1), user(3), user(4), answer(2), user(5)]


def _loop(n: int) -> tuple[Turn, ...]:
    return (answer(n, words="", calls=1), result(n))


def _holds(rendering: Rendering, shape: Shape, turns: list[Turn]) -> bool:
    """What is appended at each place is what the whole text has there, the prompt for an answer included."""
    answers = [n for n, turn in enumerate(turns) if turn.role == "assistant"]
    try:
        return all(
            _appends(rendering, shape, turns, start, end, is_open=False)
            and _appends(rendering, shape, turns, start + 1, end, is_open=True)
            for start, end in pairwise([*answers, len(turns)])
        )
    except TemplateRefused:
        return False


def _appends(rendering: Rendering, shape: Shape, turns: list[Turn], start: int, end: int, *, is_open: bool) -> bool:
    """Raises TemplateRefused."""
    tools = [TOOL] if shape.delta == "with tools" else []
    before, new = turns[:start], turns[start:end]
    added = addition(rendering.template, shape, before, new, is_open=is_open, thinks=None, day=DAY)
    whole = rendering.required(turns[:end], tools)
    if added is None or rendering.required(turns[:end], tools, asks=True) != whole + added.generation:
        return False
    if not whole.endswith(added.turns):
        return False
    rest = whole.removesuffix(added.turns)
    if is_open:
        return _ends_with_answer(shape, rest, before[-1])
    _, found, closing = rest.rpartition(before[-1].content)
    return bool(found) and closing == rendering.required(before, tools).rpartition(before[-1].content)[2]


def _ends_with_answer(shape: Shape, text: str, turn: Turn) -> bool:
    if not turn.calls:
        return text.endswith(turn.content)
    value = f"wvalue{turn.calls[-1].id[-1]}x{len(turn.calls) - 1}"
    rest = text.rpartition(value)[2]
    return value in text and (rest == shape.call_close or "w" not in rest)
