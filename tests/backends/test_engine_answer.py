"""The engine's reports as events: valid order whatever the order of pieces, and exact figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.backends.engine_answer import EngineAnswer
from anyclaude.errors import BackendFailed
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    Stop,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolUseStart,
    Usage,
)
from anyclaude.wire.frames import Began, CallPiece, Finished, FinishReason, Piece

BEGAN = Began(1, 1000, 900)


def finished(reason: FinishReason = "stop", **fields: str) -> Finished:
    return Finished(1, reason, 1000, 900, 100, 7, **fields)


def events(*pieces: Piece | CallPiece, began: Began = BEGAN, end: Finished | None = None) -> list[Event]:
    answer = EngineAnswer("msg_1", "asked-for")
    found = [answer.begin(began)]
    for piece in pieces:
        found += answer.piece(piece)
    return [*found, *answer.finish(end or finished())]


def blocks(found: list[Event]) -> list[Event]:
    return found[1:-2]


def text(words: str) -> Piece:
    return Piece(1, "text", words)


def thought(words: str) -> Piece:
    return Piece(1, "thinking", words)


def test_figures_are_exact_at_the_start_and_at_the_end() -> None:
    found = events(text("hi"))
    start, delta = found[0], found[-2]
    assert isinstance(start, MessageStart)
    assert (start.message.id, start.message.model) == ("msg_1", "asked-for")
    assert start.message.usage == Usage(
        input_tokens=100, cache_read_input_tokens=900, cache_creation_input_tokens=0, output_tokens=0
    )
    assert delta == MessageDelta(
        Stop("end_turn"),
        Usage(input_tokens=100, cache_read_input_tokens=900, cache_creation_input_tokens=0, output_tokens=7),
    )
    assert found[-1] == MessageStop()


def test_reasoning_is_signed_at_its_end_and_words_follow_in_a_block_of_their_own() -> None:
    assert blocks(events(thought("hm"), thought("."), text("hi"), began=Began(1, 1000, 900, "sig"))) == [
        BlockStart(0, ThinkingStart()),
        BlockDelta(0, ThinkingDelta("hm")),
        BlockDelta(0, ThinkingDelta(".")),
        BlockDelta(0, SignatureDelta("sig")),
        BlockStop(0),
        BlockStart(1, TextStart()),
        BlockDelta(1, TextDelta("hi")),
        BlockStop(1),
    ]


def test_reasoning_that_is_cut_off_is_signed_too() -> None:
    assert blocks(events(thought("hm"), began=Began(1, 1000, 900, "sig"), end=finished("length")))[-2:] == [
        BlockDelta(0, SignatureDelta("sig")),
        BlockStop(0),
    ]


def test_reasoning_without_a_signature_is_not_signed() -> None:
    assert not any(
        isinstance(event, BlockDelta) and isinstance(event.delta, SignatureDelta) for event in events(thought("hm"))
    )


def test_calls_are_blocks_with_the_ids_that_the_engine_gave() -> None:
    found = events(
        text("two"),
        CallPiece(1, 0, "", "toolu_1", "Bash"),
        CallPiece(1, 0, '{"command":'),
        CallPiece(1, 0, '"ls"}'),
        CallPiece(1, 1, "{}", "toolu_2", "Read"),
        end=finished("tool_calls"),
    )
    starts = [event.content_block for event in found if isinstance(event, BlockStart)]
    calls = [block for block in starts if isinstance(block, ToolUseStart)]
    assert [call.name for call in calls] == ["Bash", "Read"]
    assert [call.id for call in calls] == ["toolu_1", "toolu_2"]
    pieces = [(event.index, event.delta) for event in found if isinstance(event, BlockDelta)]
    assert pieces[1:] == [
        (1, InputJsonDelta('{"command":')),
        (1, InputJsonDelta('"ls"}')),
        (2, InputJsonDelta("{}")),
    ]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("window", "model_context_window_exceeded"),
        ("tool_calls", "tool_use"),
        ("stop_sequence", "stop_sequence"),
    ],
)
def test_each_end_has_its_stop_reason(reason: FinishReason, stop: str) -> None:
    delta = events(text("x"), end=finished(reason))[-2]
    assert isinstance(delta, MessageDelta)
    assert delta.delta.stop_reason == stop


def test_a_stop_sequence_is_named() -> None:
    delta = events(text("x"), end=finished("stop_sequence", stop_sequence="</severity>"))[-2]
    assert isinstance(delta, MessageDelta)
    assert delta.delta == Stop("stop_sequence", "</severity>")


def test_a_call_that_the_limit_cuts_off_ends_as_such() -> None:
    delta = events(CallPiece(1, 0, '{"comm', "toolu_1", "Bash"), end=finished("length"))[-2]
    assert isinstance(delta, MessageDelta)
    assert delta.delta.stop_reason == "max_tokens"


def test_calls_and_a_plain_end_are_tool_use() -> None:
    delta = events(CallPiece(1, 0, "{}", "toolu_1", "Bash"))[-2]
    assert isinstance(delta, MessageDelta)
    assert delta.delta.stop_reason == "tool_use"


def test_an_empty_answer_has_no_block() -> None:
    assert blocks(events(text(""), thought(""))) == []


@pytest.mark.parametrize(
    "pieces",
    [
        [CallPiece(1, 0, "{}")],
        [CallPiece(1, 0, "{", "toolu_1", "Bash"), text("x"), CallPiece(1, 0, "}")],
        [CallPiece(1, 0, "{", "toolu_1", "Bash"), text("x"), CallPiece(1, 0, "}", "toolu_1", "Bash")],
    ],
    ids=["never named", "closed", "named again"],
)
def test_a_piece_of_a_call_that_is_not_open_is_an_error_and_never_dropped(pieces: list[Piece | CallPiece]) -> None:
    with pytest.raises(BackendFailed, match="not open"):
        events(*pieces)


def test_an_answer_before_its_beginning_is_an_error() -> None:
    with pytest.raises(BackendFailed, match="before it began"):
        list(EngineAnswer("m", "m").piece(text("x")))
    with pytest.raises(BackendFailed, match="before it began"):
        list(EngineAnswer("m", "m").finish(finished()))


@given(st.lists(st.builds(Piece, st.just(1), st.sampled_from(["text", "thinking"]), st.text(max_size=3))))
def test_one_block_is_open_at_a_time_and_no_word_is_lost(pieces: list[Piece]) -> None:
    found = blocks(events(*pieces, began=Began(1, 10, 0, "sig")))
    open_at, n_blocks = None, 0
    for event in found:
        match event:
            case BlockStart(index=index):
                assert open_at is None
                assert index == n_blocks
                open_at, n_blocks = index, n_blocks + 1
            case BlockDelta(index=index) | BlockStop(index=index):
                assert index == open_at
                open_at = None if isinstance(event, BlockStop) else open_at
            case _:
                raise AssertionError(event)
    assert open_at is None
    deltas = [event.delta for event in found if isinstance(event, BlockDelta)]
    assert "".join(d.text for d in deltas if isinstance(d, TextDelta)) == "".join(
        piece.text for piece in pieces if piece.kind == "text"
    )
    assert "".join(d.thinking for d in deltas if isinstance(d, ThinkingDelta)) == "".join(
        piece.text for piece in pieces if piece.kind == "thinking"
    )
