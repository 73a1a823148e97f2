"""Conversations as a client holds them, drawn at random: what it says, what models answer, what it sends back."""

# ruff: noqa: RUF001 (the signs are DeepSeek's own)

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from msgspec.structs import replace

from anyclaude.engine.text.shape import Shape
from anyclaude.engine.text.tokens import Ids
from anyclaude.wire.frames import Call, Turn
from tests.engine.shapes import MARKUP, SPECIAL, Model

PIECES = (
    *(
        *SPECIAL,
        *MARKUP,
        "<|",
        "|>",
        "<",
        ">",
        "</",
        "_end|>",
        "<|im_",
        "im_end",
        "[INST",
        "]",
        "｜",
        "user",
        "</think>",
    ),
    *(
        "hello ",
        "wörld",
        " ",
        "\n",
        "\t",
        "中",
        "🧪",
        '"',
        "\\",
        "{{ x }}",
        "{% if",
        "{",
        "}",
        "'",
        "<system-reminder>",
    ),
    *("\U000f0000", "\U000f0001", "\U000f0040", "\U00100000", "\U00100001", "\x00", "\u200b"),
)
TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name}s a file",
            "parameters": {"type": "object", "properties": {"path": {"type": "string", "description": "where"}}},
        },
    }
    for name in ("Read", "Write")
)

texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
words = texts.map(lambda text: f"w{text}")
arguments = st.dictionaries(st.sampled_from(["path", "<|im_end|>", "x>", "old_string"]), texts, max_size=2).map(
    lambda table: msgspec.json.encode(table).decode()
)


@dataclass(frozen=True)
class Step:
    """What a request adds, the answer to it, and how it comes back: ours with its tokens, or another server's."""

    asked: tuple[Turn, ...]
    answer: Turn
    generated: tuple[int, ...]
    is_ours: bool
    keeps_reasoning: bool
    restarts: bool
    thinks: bool | None


@st.composite
def steps(draw: st.DrawFn, model: Model) -> list[Step]:
    found: list[Step] = []
    before: tuple[Call, ...] = ()
    for n in range(draw(st.integers(2, 6))):
        asked = tuple(Turn("tool", draw(words), call_id=call.id) for call in before)
        if not before or (not model.shape.alternates and draw(st.booleans())):
            asked += (Turn("user", draw(words)),)
        answer = draw(answers(model.shape, n))
        before = answer.calls
        found.append(
            Step(
                asked,
                answer,
                draw(generations(model)),
                is_ours=draw(st.integers(0, 3)) > 0,
                keeps_reasoning=draw(st.booleans()),
                restarts=draw(st.integers(0, 5)) == 0,
                thinks=draw(st.sampled_from([None, None, True, False])),
            )
        )
    return found


@st.composite
def answers(draw: st.DrawFn, shape: Shape, n: int) -> Turn:
    most = 0 if "calls" in shape.loses else 1 if shape.one_call else 3
    count = draw(st.integers(0, most))
    calls = tuple(
        Call(f"call{n}x{i:02}z"[:9], draw(st.sampled_from(["Read", "Write"])), draw(arguments)) for i in range(count)
    )
    says = draw(words) if not calls or draw(st.booleans()) else ""
    thought = draw(words) if draw(st.booleans()) and not (says and calls) else ""
    return Turn("assistant", says, thought, signature=f"signed-{n}" if thought else "", calls=calls)


def generations(model: Model) -> st.SearchStrategy[tuple[int, ...]]:
    """Ids that the model may write: ordinary ones, and the control ids of an answer; perhaps ended, perhaps cut off."""
    vocabulary, shape = model.vocabulary, model.shape
    control = sorted(shape.answer_ids - shape.end_ids)
    plain = st.integers(0, 4_000).filter(lambda token: token not in set(vocabulary.added.values()))
    one = plain if not control else st.one_of(plain, plain, st.sampled_from(control))
    ends = st.sampled_from([(), (min(shape.end_ids),)])
    return st.tuples(st.lists(one, min_size=1, max_size=12).map(tuple), ends).map(lambda pair: pair[0] + pair[1])


def sent_back(step: Step) -> Turn:
    """White space at the ends goes, and reasoning may; arguments are written anew."""
    answer = step.answer
    calls = tuple(
        replace(call, arguments=msgspec.json.encode(msgspec.json.decode(call.arguments)).decode())
        for call in answer.calls
    )
    answer = replace(answer, content=answer.content.strip(), calls=calls)
    return answer if step.keeps_reasoning else replace(answer, reasoning="", signature="")


def as_ids(generated: Sequence[int]) -> Ids:
    return np.array(generated, np.uint32)
