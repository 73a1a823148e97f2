"""Which parts of a conversation a template does not hand on, or not as they are."""

import json
from collections.abc import Callable, Iterator, Sequence

from anyclaude.engine.text.specimens import DESCRIPTION, NAME, TOOL, Rendering, answer, result, user
from anyclaude.wire.frames import Turn

_SPACED = " \n wspaced\t \n "
_UNUSUAL = "we\u0301\u4e2d\U0001f9ea\ufb01\u2581\tw"

Conversation = Callable[[str], Sequence[Turn]]


def losses(rendering: Rendering, head: Sequence[Turn]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_parts(rendering, head), *_texts(rendering, head))))


def _parts(rendering: Rendering, head: Sequence[Turn]) -> Iterator[str]:
    opening = [*head, user(1)]
    if DESCRIPTION not in rendering.plain(opening, [TOOL]):
        yield "tools"
    loop = rendering.plain([*opening, answer(1, words="", calls=1), result(1)], [TOOL])
    if not (NAME in loop and "wvalue1x0" in loop):
        yield "calls"
    if "wresult1x0" not in loop:
        yield "results"
    two = rendering.plain([*opening, answer(1, words="", calls=2), result(1), result(1, 1)], [TOOL])
    if "wvalue1x0" in loop and "wvalue1x1" not in two:
        yield "calls after a turn's first"
    beside = rendering.plain([*opening, answer(1, calls=1), result(1)], [TOOL])
    if "wvalue1x0" in loop and "wanswer1" not in beside:
        yield "text beside calls"
    yield from _thoughts(rendering, opening)


def _thoughts(rendering: Rendering, opening: Sequence[Turn]) -> Iterator[str]:
    loop = [*opening, answer(1, words="", thought=True, calls=1), result(1)]
    alone = [*opening, answer(1, thought=True)]
    if not any("wthought1" in rendering.plain(turns, [TOOL]) for turns in (loop, alone)):
        yield "reasoning"
    elif not all(
        "wthought1" in rendering.plain(turns, [TOOL]) for turns in ([*loop, answer(2), user(2)], [*alone, user(2)])
    ):
        yield "reasoning of earlier turns"


def _texts(rendering: Rendering, head: Sequence[Turn]) -> Iterator[str]:
    """Of each kind of text: whether it comes through at all, with the white space at its ends, and with words in it
    that stand for control tokens elsewhere."""
    controls = " ".join(["w", *rendering.vocabulary.added, *("<think>x</think>", "{{ w }}", '"q" \\n'), "w"])
    for kind, conversation in _kinds(head).items():
        if not _comes_through(rendering, conversation, "wword"):
            continue  # told of as a part
        if not _comes_through(rendering, conversation, _SPACED):
            yield f"white space at the ends of {kind}"
        if not _comes_through(rendering, conversation, controls):
            yield f"control texts in {kind}"
    if not _comes_through(rendering, _kinds(head)["user text"], _UNUSUAL):
        yield "unusual characters"


def _kinds(head: Sequence[Turn]) -> dict[str, Conversation]:
    opening = [*head, user(1)]
    kinds: dict[str, Conversation] = {
        "user text": lambda text: [*head, user(1, text), answer(1), user(2)],
        "answers": lambda text: [*opening, answer(1, words=text), user(2)],
        "arguments": lambda text: [*opening, answer(1, words="", calls=1, value=text), result(1)],
        "results": lambda text: [*opening, answer(1, words="", calls=1), result(1, text=text)],
        "reasoning": lambda text: [*opening, _thinking(text), result(1)],
    }
    if head:
        kinds["system text"] = lambda text: [Turn("system", text), user(1)]
    return kinds


def _thinking(text: str) -> Turn:
    return Turn("assistant", "", text, calls=answer(1, calls=1).calls)


def _comes_through(rendering: Rendering, conversation: Conversation, text: str) -> bool:
    """As it is, or as a JSON string, which says the same."""
    plain = rendering.plain(conversation(text), [TOOL])
    return text in plain or json.dumps(text, ensure_ascii=False)[1:-1] in plain or json.dumps(text)[1:-1] in plain
