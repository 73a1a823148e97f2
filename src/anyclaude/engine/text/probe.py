"""What kind of chat template a model has, found by rendering with it when the model is loaded.

What cannot be verified is not assumed: a template whose new turns cannot be told from the old ones is rendered whole.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from msgspec.structs import replace

from anyclaude.engine.text.probe_answers import AnswerMarks, answer_marks
from anyclaude.engine.text.probe_delta import with_rule
from anyclaude.engine.text.probe_losses import losses
from anyclaude.engine.text.shape import Shape, capabilities
from anyclaude.engine.text.specimens import (
    DESCRIPTION,
    KEY,
    LATE_SYSTEM,
    NAME,
    OTHER_DAY,
    SYSTEM,
    TOOL,
    Rendering,
    answer,
    result,
    user,
    with_long_ids,
)
from anyclaude.engine.text.template import Form, Template, TemplateRefused, TemplateTooSlow
from anyclaude.engine.text.tokens import Vocabulary
from anyclaude.errors import ModelRefused
from anyclaude.wire.frames import Turn

__all__ = ["Shape", "capabilities", "probe"]

_LOOP = (user(1), answer(1, words="", calls=1), result(1))
_WITHOUT_CALLS = frozenset({"tools", "calls", "results"})


def probe(template: Template, vocabulary: Vocabulary) -> Shape:
    """Raises ModelRefused when the template takes not even one plain question."""
    rendering = Rendering(template, vocabulary, Form())
    _check_usable(rendering)
    has_system = SYSTEM.content in rendering.plain([SYSTEM, user(1)])
    head = (SYSTEM,) if has_system else ()
    rendering.form = Form(_argument_form(rendering, head), _reasoning_field(rendering, head))
    found = _classes(rendering, head)
    lost = losses(rendering, head)
    marks = answer_marks(rendering, head)
    shape = Shape(
        form=rendering.form,
        call_end=marks.call_end,
        call_close=marks.call_close,
        thinks_at=_thinks_at(rendering, head),
        think_open=marks.think_open,
        think_close=marks.think_close,
        words_open=marks.words_open,
        classes=tuple(sorted(found)),
        loses=lost,
        alternates="strict_roles" in found,
        one_call=bool(found & {"one_call", "drops_calls"}),
        nine_ids="nine_ids" in found,
        system_in_user=not has_system,
        calls_tools=not _WITHOUT_CALLS & set(lost),
    )
    return _with_ids(with_rule(rendering, shape, head), rendering, marks)


def _with_ids(shape: Shape, rendering: Rendering, marks: AnswerMarks) -> Shape:
    """Last: `written` is what the template wrote in all that was tried."""
    steering = rendering.vocabulary.special | rendering.written
    return replace(
        shape, answer_ids=marks.answer_ids, end_ids=marks.end_ids, masked_ids=frozenset(steering) - marks.answer_ids
    )


def _check_usable(rendering: Rendering) -> None:
    try:
        text = rendering.required([user(1)])
    except TemplateTooSlow as error:
        raise ModelRefused(f"the model's chat template cannot be used: {error.message}") from None
    except TemplateRefused as error:
        raise ModelRefused(f"the model's chat template refuses a plain question: {error.message}") from None
    if user(1).content not in text:
        raise ModelRefused("the model's chat template does not write what the user says")


def _argument_form(rendering: Rendering, head: Sequence[Turn]) -> Literal["object", "text"]:
    """Given the other form, templates write Python's own notation, or JSON inside a JSON string."""
    turns = [*head, user(1), answer(1, words="", calls=1, value='wq"q'), result(1)]
    for form in ("object", "text"):
        text = Rendering(rendering.template, rendering.vocabulary, Form(form)).plain(turns, [TOOL])
        if "wq" in text and f"{{'{KEY}'" not in text and f'{{\\"{KEY}' not in text:
            return form
    return "object"


def _reasoning_field(
    rendering: Rendering, head: Sequence[Turn]
) -> Literal["reasoning_content", "thinking", "reasoning"]:
    answers = (answer(1, thought=True), answer(1, words="", thought=True, calls=1))
    for field in ("reasoning_content", "thinking", "reasoning"):
        tried = Rendering(rendering.template, rendering.vocabulary, Form(reasoning=field))
        for each in answers:
            after = [result(1)] if each.calls else []
            if each.reasoning in tried.plain([*head, user(1), each, *after]):
                return field
    return "reasoning_content"


def _classes(rendering: Rendering, head: Sequence[Turn]) -> set[str]:
    tests = {
        "append_only": _is_append_only,
        "drops_thinking": _drops_thinking,
        "moves_tools": _moves_tools,
        "one_call": _refuses_two_calls,
        "drops_calls": _drops_calls,
        "strict_roles": _is_strict,
        "hoists_system": _hoists_system,
        "dated": _is_dated,
        "nine_ids": _wants_nine_characters,
        "trims": _trims,
    }
    found = {name for name, is_so in tests.items() if is_so(rendering, head)}
    return found if head else found | {"no_system"}


def _is_append_only(rendering: Rendering, head: Sequence[Turn]) -> bool:
    turns = [*head, user(1), answer(1, thought=True), user(2), *_loop_turns(2), answer(3, thought=True), user(4)]
    ends = [n + 1 for n, turn in enumerate(turns) if turn.role in ("user", "tool")]
    texts = [rendering.text(turns[:end], [TOOL]) for end in ends]
    return all(a is not None and b is not None and b.startswith(a) for a, b in pairwise(texts))


def _loop_turns(n: int) -> tuple[Turn, ...]:
    return (answer(n, words="", thought=True, calls=1), result(n))


def _drops_thinking(rendering: Rendering, head: Sequence[Turn]) -> bool:
    loop = [*head, user(1), *_loop_turns(1)]
    plain = [*head, user(1), answer(1, thought=True)]
    shown = "wthought1" in rendering.plain(loop) or "wthought1" in rendering.plain(plain)
    later = [*loop, answer(2), user(2)], [*plain, user(2)]
    return shown and not all("wthought1" in rendering.plain(turns) for turns in later)


def _moves_tools(rendering: Rendering, head: Sequence[Turn]) -> bool:
    text = rendering.plain([*head, user(1), answer(1), user(2)], [TOOL])
    return DESCRIPTION in text and text.index(DESCRIPTION) > text.index(user(1).content)


def _two_calls(head: Sequence[Turn]) -> list[Turn]:
    return [*head, user(1), answer(1, words="", calls=2), result(1), result(1, 1)]


def _refuses_two_calls(rendering: Rendering, head: Sequence[Turn]) -> bool:
    return rendering.text([*head, *_LOOP]) is not None and rendering.text(_two_calls(head)) is None


def _drops_calls(rendering: Rendering, head: Sequence[Turn]) -> bool:
    text = rendering.plain(_two_calls(head))
    return "wvalue1x0" in text and "wvalue1x1" not in text


def _is_strict(rendering: Rendering, head: Sequence[Turn]) -> bool:
    two = rendering.plain([*head, user(1), user(2)])
    if user(1).content not in two or user(2).content not in two:
        return True
    return rendering.text([*head, *_LOOP]) is not None and rendering.text([*head, *_LOOP, user(2)]) is None


def _hoists_system(rendering: Rendering, head: Sequence[Turn]) -> bool:
    text = rendering.plain([*head, user(1), answer(1), LATE_SYSTEM, user(2)])
    return LATE_SYSTEM.content in text and text.index(LATE_SYSTEM.content) < text.index(user(1).content)


def _is_dated(rendering: Rendering, head: Sequence[Turn]) -> bool:
    turns = [*head, user(1)]
    return rendering.text(turns, [TOOL]) != rendering.text(turns, [TOOL], day=OTHER_DAY)


def _wants_nine_characters(rendering: Rendering, head: Sequence[Turn]) -> bool:
    turns = [*head, *_LOOP]
    return NAME in rendering.plain(turns) and NAME not in rendering.plain(with_long_ids(turns))


def _trims(rendering: Rendering, head: Sequence[Turn]) -> bool:
    return "  wspaced \n " not in rendering.plain([*head, user(1, "  wspaced \n "), answer(1)])


def _thinks_at(rendering: Rendering, head: Sequence[Turn]) -> Literal["nowhere", "generation", "head"]:
    turns, choices = [*head, *_LOOP, answer(2), user(2)], (None, True, False)
    closed = {rendering.text(turns, [TOOL], thinks=thinks) for thinks in choices}
    if len(closed) > 1:
        return "head"
    asked = {rendering.text(turns, [TOOL], thinks=thinks, asks=True) for thinks in choices}
    return "generation" if len(asked) > 1 else "nowhere"
