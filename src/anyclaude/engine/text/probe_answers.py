"""How a template writes an assistant's turn: what surrounds reasoning, what ends the turn, its control ids."""

import re
from collections.abc import Sequence

from msgspec import Struct

from anyclaude.engine.text.specimens import TOOL, Rendering, answer, result, user
from anyclaude.engine.text.tokens import Vocabulary
from anyclaude.wire.frames import Turn

_MAX_MARK = 64
_TAG = re.compile(r"</?[\w:|]+>|\[/?\w+\]")
_CLOSED = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<thinking>", "</thinking>"))
# Models write these although their templates, which render answers of the past, may not.
_WRITTEN_BY_MODELS = ("<|constrain|>", "<|python_tag|>", "<|eom_id|>")


class AnswerMarks(Struct, frozen=True):
    call_end: str
    call_close: str
    think_open: str | None
    think_close: str | None
    words_open: str
    answer_ids: frozenset[int]
    end_ids: frozenset[int]


def answer_marks(rendering: Rendering, head: Sequence[Turn]) -> AnswerMarks:
    vocabulary = rendering.vocabulary
    opening = [*head, user(1)]
    words = _Ends.of(rendering, opening, answer(1), user(2), "wanswer1")
    calls = _Ends.of(rendering, opening, answer(1, words="", calls=1), result(1), "wvalue1x0")
    call_close, call_end = calls.split_by(words.end, vocabulary)
    think_open, think_close = _reasoning(rendering, opening)
    inner = {token for text in _inner_texts(rendering, opening, call_end) for token in vocabulary.control_ids(text)}
    ends = {*_first(vocabulary, words.end), *_first(vocabulary, words.last), *_first(vocabulary, call_end)}
    for each in (words, calls):
        if not words.end:  # nothing ends a turn but the next one's beginning
            ends.update(_first(vocabulary, each.next_turn))
    end_ids = vocabulary.end_ids | (ends - inner)
    marks = vocabulary.control_ids((think_open or "") + "\n" + (think_close or ""))
    written = {vocabulary.added[text] for text in _WRITTEN_BY_MODELS if text in vocabulary.added}
    return AnswerMarks(
        call_end=call_end,
        call_close=call_close,
        think_open=think_open,
        think_close=think_close,
        words_open=_words_open(rendering, opening, think_close),
        answer_ids=frozenset(inner | end_ids | set(marks) | written),
        end_ids=end_ids,
    )


class _Ends(Struct, frozen=True):
    """`end` is what an answer's last word is followed by wherever it stands, `last` what follows it at the prompt's
    end, and `next_turn` what comes after `end` before another turn."""

    end: str = ""
    last: str = ""
    next_turn: str = ""

    @classmethod
    def of(cls, rendering: Rendering, opening: Sequence[Turn], turn: Turn, following: Turn, word: str) -> "_Ends":
        alone = rendering.text([*opening, turn], [TOOL])
        followed = rendering.text([*opening, turn, following], [TOOL])
        if alone is None or followed is None or word not in alone or word not in followed:
            return cls()
        last, after = alone.rpartition(word)[2], followed.rpartition(word)[2]
        end = _shared(rendering.vocabulary, after, last)
        if not end and last.strip():
            end = "".join(rendering.vocabulary.pieces(after)[:2])
        return cls(end, last, after[len(end) :])

    def split_by(self, turn_end: str, vocabulary: Vocabulary) -> tuple[str, str]:
        """What closes the call, and what ends the turn after it."""
        if turn_end and self.end.endswith(turn_end):
            return self.end.removesuffix(turn_end), turn_end
        pieces = vocabulary.pieces(self.end)
        if (
            turn_end
            and len(pieces) > 1
            and not pieces[-1].strip()
            and vocabulary.added[pieces[-2]] in vocabulary.special
        ):
            end = "".join(pieces[-2:])
            return self.end.removesuffix(end), end
        return self.end, ""


def _shared(vocabulary: Vocabulary, first: str, second: str) -> str:
    """What both begin with, no control token cut."""
    shared: list[str] = []
    for a, b in zip(vocabulary.pieces(first), vocabulary.pieces(second), strict=False):
        if a != b:
            if len(shared) % 2 == 0:
                n = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
                shared.append(a[:n])
            break
        shared.append(a)
    return "".join(shared)


def _region(rendering: Rendering, opening: Sequence[Turn], turn: Turn, *, from_prompt: bool = True) -> str:
    """A turn, its end included; from the prompt for it on, what the model itself would have written."""
    before = rendering.text(opening, [TOOL])
    after = rendering.text([*opening, turn], [TOOL])
    if before is None or after is None or not after.startswith(before):
        return ""
    written = after[len(before) :]
    asked = rendering.text(opening, [TOOL], asks=True) or before
    return written[len(_shared(rendering.vocabulary, asked[len(before) :], written)) :] if from_prompt else written


def _inner_texts(rendering: Rendering, opening: Sequence[Turn], call_end: str) -> list[str]:
    """Answers of all kinds without what ends them."""
    texts: list[str] = []
    for thought in (False, True):
        said = _region(rendering, opening, answer(1, thought=thought))
        texts.append(said.rpartition("wanswer1")[0])
        for words in ("", "wanswer1"):
            called = _region(rendering, opening, answer(1, words=words, thought=thought, calls=2))
            called = called or _region(rendering, opening, answer(1, words=words, thought=thought, calls=1))
            texts.append(called.rpartition(call_end)[0] if call_end else called)
    return texts


def _words_open(rendering: Rendering, opening: Sequence[Turn], think_close: str | None) -> str:
    before, found, _ = _region(rendering, opening, answer(1)).partition("wanswer1")
    is_reasoning = think_close is not None and think_close in before
    return before.strip() if found and not is_reasoning else ""


def _reasoning(rendering: Rendering, opening: Sequence[Turn]) -> tuple[str | None, str | None]:
    for calls in (0, 1):
        words = "" if calls else None
        thinking = answer(1, words=words, thought=True, calls=calls)
        plain = _region(rendering, opening, answer(1, words=words, calls=calls), from_prompt=False)
        before, found, after = _region(rendering, opening, thinking, from_prompt=False).partition("wthought1")
        written = _region(rendering, opening, thinking).partition("wthought1")[0].strip()
        close = _first_mark(rendering.vocabulary, after.partition("wanswer1")[0])
        if found and close is not None:
            open_ = written[:_MAX_MARK] or _opening_mark(rendering.vocabulary, plain, before)
            header = plain.partition("wanswer1" if not calls else "wname")[0]
            if open_ is not None and (_is_pair(open_, close) or (open_ not in header and close not in plain)):
                return open_, close
    return _unwritten(rendering, opening)


def _opening_mark(vocabulary: Vocabulary, plain: str, before: str) -> str | None:
    """What only an answer with reasoning has before it; else, as where every answer opens some, the last mark there."""
    own = before[len(_shared(vocabulary, plain, before)) :].strip()
    if own:
        return own if len(own) <= _MAX_MARK else None
    marks = _marks(vocabulary, before)
    return marks[-1] if marks else None


def _is_pair(opening: str, closing: str) -> bool:
    return closing == f"{opening[:1]}/{opening[1:]}"


def _unwritten(rendering: Rendering, opening: Sequence[Turn]) -> tuple[str | None, str | None]:
    """Of templates that show no reasoning of the past: as they open it for the next answer, or take it out."""
    asked = _generation(rendering, opening)
    for start, end in _CLOSED:
        knows = end in rendering.vocabulary.added or end in rendering.template.source
        if knows and (start in asked or end in rendering.template.source):
            return start, end
    return None, None


def _generation(rendering: Rendering, opening: Sequence[Turn]) -> str:
    before = rendering.text(opening, [TOOL]) or ""
    return (rendering.text(opening, [TOOL], asks=True) or before)[len(before) :]


def _first_mark(vocabulary: Vocabulary, text: str) -> str | None:
    marks = _marks(vocabulary, text)
    return marks[0] if marks else None


def _marks(vocabulary: Vocabulary, text: str) -> list[str]:
    found: list[str] = []
    for n, piece in enumerate(vocabulary.pieces(text)):
        found += [piece] if n % 2 else _TAG.findall(piece)
    return found


def _first(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.control_ids(text)[:1]
