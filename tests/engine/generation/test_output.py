"""Text as a model writes it, in any pieces, becomes thoughts, words and calls; nothing is lost."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.engine.generation.output import Answer, Markers
from anyclaude.engine.model import adapter
from anyclaude.wire.frames import CallPiece, FinishReason, Piece
from demo.tiny_model import CHAT_TEMPLATE

THINKS = Markers("<think>", "</think>")
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}},
)
HERMES = adapter.tool_parser(CHAT_TEMPLATE, {})
CALL = '<tool_call>\n{"name": "Bash", "arguments": {"command": "ls -l"}}\n</tool_call>'


def read(
    text: str,
    *,
    sizes: Sequence[int] = (),
    stops: Sequence[str] = (),
    reason: FinishReason = "stop",
    begins_in_reasoning: bool = False,
    tools: Sequence[dict[str, Any]] = TOOLS,
) -> tuple[Answer, list[Piece | CallPiece]]:
    answer = Answer(1, THINKS, HERMES, tools, stops, begins_in_reasoning=begins_in_reasoning)
    found: list[Piece | CallPiece] = []
    at = 0
    for size in (*sizes, len(text)):
        if answer.stop_sequence is None:
            found += answer.feed(text[at : at + size])
        at += size
    found += answer.finish(reason)
    return answer, found


def words(found: list[Piece | CallPiece], kind: str = "text") -> str:
    return "".join(piece.text for piece in found if isinstance(piece, Piece) and piece.kind == kind)


def calls(found: list[Piece | CallPiece]) -> list[tuple[str, object]]:
    return [(piece.name, json.loads(piece.arguments)) for piece in found if isinstance(piece, CallPiece)]


WHOLE = f"<think>\nlet me see\n</think>\n\nI look. {CALL}\n{CALL}\nand <b>done</b> with 1 < 2 \n"


@given(st.lists(st.integers(1, 9), max_size=60))
def test_any_chunking_gives_the_same_parts(sizes: list[int]) -> None:
    answer, found = read(WHOLE, sizes=sizes)
    assert words(found, "thinking") == "let me see"
    assert words(found) == "I look.and <b>done</b> with 1 < 2"
    assert calls(found) == [("Bash", {"command": "ls -l"})] * 2
    assert answer.reason("stop") == "tool_calls"
    assert answer.turn.content == "I look.\nand <b>done</b> with 1 < 2"
    assert [call.id for call in answer.turn.calls] == [p.call_id for p in found if isinstance(p, CallPiece)]
    assert answer.turn.signature


@given(st.lists(st.integers(1, 5), max_size=30))
def test_a_stop_sequence_is_found_across_pieces_and_not_written(sizes: list[int]) -> None:
    answer, found = read("one two STOP HERE three", sizes=sizes, stops=("never", "STOP HERE"))
    assert words(found) == "one two"
    assert (answer.stop_sequence, answer.reason("stop")) == ("STOP HERE", "stop_sequence")


def test_words_that_only_begin_like_a_marker_are_written_at_the_end() -> None:
    _, found = read("a < b and <tool_ca", sizes=(3, 4))
    assert words(found) == "a < b and <tool_ca"


@pytest.mark.parametrize(
    "broken",
    [
        "<tool_call>\nnot json\n</tool_call>",
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        "<tool_call>[1]</tool_call>",
    ],
)
def test_what_is_no_call_is_passed_on_as_it_was_written(broken: str) -> None:
    answer, found = read(f"see: {broken} ok")
    assert (calls(found), words(found)) == ([], f"see: {broken} ok")
    assert answer.reason("stop") == "stop"


def test_a_call_cut_by_the_limit_is_text_and_no_call() -> None:
    cut = CALL[:40]
    answer, found = read(cut, reason="length")
    assert (calls(found), words(found), answer.reason("length")) == ([], cut, "length")


def test_without_tools_nothing_is_a_call() -> None:
    _, found = read(CALL, tools=())
    assert (calls(found), words(found)) == ([], CALL)


def test_an_answer_that_begins_in_reasoning_needs_no_opening() -> None:
    _, found = read("thinking on</think>\nanswer", begins_in_reasoning=True)
    assert (words(found, "thinking"), words(found)) == ("thinking on", "answer")


def test_blanks_alone_are_no_block() -> None:
    answer, found = read(f"\n\n{CALL}\n\n")
    assert [type(piece) for piece in found] == [CallPiece]
    assert answer.turn.content == ""


def test_a_call_id_carries_nine_letters_and_digits() -> None:
    answer, _ = read(CALL)
    (call,) = answer.turn.calls
    assert re.fullmatch("toolu_[0-9a-f]{12}_[A-Za-z0-9]{9}", call.id)


HARMONY = Markers("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>", "<|start|>assistant")


@given(st.lists(st.integers(1, 9), max_size=40))
def test_what_opens_the_words_of_an_answer_is_not_shown(sizes: list[int]) -> None:
    text = (
        "<|channel|>analysis<|message|>let me see<|end|><|start|>assistant<|channel|>final<|message|>It is <|x|> done."
    )
    answer = Answer(1, HARMONY, None, (), (), begins_in_reasoning=False)
    found: list[Piece | CallPiece] = []
    at = 0
    for size in (*sizes, len(text)):
        found += answer.feed(text[at : at + size])
        at += size
    found += answer.finish("stop")
    assert (words(found, "thinking"), words(found)) == ("let me see", "It is <|x|> done.")
