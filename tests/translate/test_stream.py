import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from anyclaude.translate.stream import usage_of
from anyclaude.wire.events import MessageStart, Usage
from anyclaude.wire.openai import (
    CallDelta,
    ChatUsage,
    Choice,
    Chunk,
    Delta,
    PromptDetails,
    ToolCallDelta,
)
from tests.translate.reading import Shown, called, ending, finished, said, shown, translated, translator


def blocks(*chunks: Chunk) -> list[Shown]:
    return shown(translated([*chunks, finished()]))


def thought(text: str) -> Chunk:
    return Chunk((Choice(Delta(reasoning_content=text)),))


def test_a_message_starts_with_the_name_that_was_asked_for_and_zeros() -> None:
    start = translator().start()

    assert isinstance(start, MessageStart)
    assert (start.message.id, start.message.model) == ("msg_1", "m")
    assert start.message.usage == Usage(input_tokens=0, output_tokens=0)


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    events = translated([Chunk(), Chunk(()), finished()])

    assert shown(events) == []
    assert ending(events).delta.stop_reason == "end_turn"


def test_neighbouring_pieces_of_text_are_one_block() -> None:
    assert blocks(said("a"), said(""), said(" b\n")) == [Shown("text", "a b\n")]


def test_each_piece_is_written_as_soon_as_it_arrives() -> None:
    one = translator()

    assert len(list(one.feed(said("a")))) == 2
    assert len(list(one.feed(said("b")))) == 1
    assert len(list(one.feed(called("{", index=0, name="Bash", call_id="x")))) == 3
    assert len(list(one.feed(called('"a"', index=0)))) == 1


def test_only_the_first_choice_is_the_answer() -> None:
    assert blocks(Chunk((Choice(Delta(content="a")), Choice(Delta(content="b"))))) == [Shown("text", "a")]


def test_an_answer_that_is_not_streamed_is_read_from_its_message() -> None:
    call = ToolCallDelta(None, "x", CallDelta("Bash", '{"a":1}'))
    events = translated([Chunk((Choice(message=Delta(content="a", tool_calls=(call,)), finish_reason="tool_calls"),))])

    assert shown(events) == [Shown("text", "a"), Shown("Bash", '{"a":1}', "toolu_1")]


# Thoughts


@pytest.mark.parametrize(
    "delta",
    [
        Delta(reasoning="hm"),
        Delta(reasoning_content="hm"),
        Delta(reasoning="hm", reasoning_content="hm"),
        Delta(reasoning="hm", reasoning_content=""),
        Delta(reasoning="", reasoning_content="hm"),
    ],
)
def test_thoughts_are_read_from_either_field_and_never_doubled(delta: Delta) -> None:
    assert blocks(Chunk((Choice(delta),))) == [Shown("thinking", "hm")]


def test_thoughts_and_words_of_one_delta_keep_that_order() -> None:
    assert blocks(Chunk((Choice(Delta(content="a", reasoning="hm")),))) == [Shown("thinking", "hm"), Shown("text", "a")]


def test_thoughts_between_words_are_a_block_of_their_own() -> None:
    assert blocks(thought("1"), said("a"), thought("2"), said("b")) == [
        Shown("thinking", "1"),
        Shown("text", "a"),
        Shown("thinking", "2"),
        Shown("text", "b"),
    ]


def test_a_refusal_is_text_that_the_person_sees() -> None:
    assert blocks(Chunk((Choice(Delta(refusal="I cannot.")),))) == [Shown("text", "I cannot.")]


# Which call a piece belongs to


def test_parallel_calls_interleaved_by_index() -> None:
    assert blocks(
        called("", index=0, name="A", call_id="x"),
        called("", index=1, name="B", call_id="y"),
        called('{"a"', index=0),
        called('{"b":', index=1),
        called(":1}", index=0),
        called("2}", index=1),
    ) == [Shown("A", '{"a":1}', "toolu_1"), Shown("B", '{"b":2}', "toolu_2")]


def test_whole_calls_of_one_delta() -> None:
    calls = (ToolCallDelta(0, "x", CallDelta("A", "{}")), ToolCallDelta(1, "y", CallDelta("B", "{}")))

    assert blocks(Chunk((Choice(Delta(tool_calls=calls)),))) == [
        Shown("A", "{}", "toolu_1"),
        Shown("B", "{}", "toolu_2"),
    ]


def test_a_missing_index_is_found_by_id() -> None:
    assert blocks(
        called("{", name="A", call_id="x"),
        called("{", name="B", call_id="y"),
        called("}", call_id="x"),
        called("}", call_id="y"),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_a_missing_index_without_an_id_continues_the_last_call() -> None:
    assert blocks(
        called('{"a":', name="A", call_id="x"), called("1}"), called("{", name="B", call_id="y"), called("}")
    ) == [Shown("A", '{"a":1}', "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_a_missing_id_is_found_by_index() -> None:
    assert blocks(
        called("{", index=0, name="A"), called("{", index=1, name="B"), called("}", index=0), called("}", index=1)
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_neither_index_nor_id_begins_a_call_with_each_new_name() -> None:
    assert blocks(called('{"a":', name="A"), called("1}"), called('{"a":2}', name="A")) == [
        Shown("A", '{"a":1}', "toolu_1"),
        Shown("A", '{"a":2}', "toolu_2"),
    ]


def test_calls_that_are_all_number_0_are_told_apart_by_id() -> None:
    assert blocks(
        called('{"a":1}', index=0, name="A", call_id="x"), called('{"a":2}', index=0, name="A", call_id="y")
    ) == [Shown("A", '{"a":1}', "toolu_1"), Shown("A", '{"a":2}', "toolu_2")]


def test_pieces_of_calls_that_are_all_number_0_follow_the_newest() -> None:
    assert blocks(
        called("{", index=0, name="A", call_id="x"),
        called("}", index=0),
        called("{", index=0, name="B", call_id="y"),
        called("}", index=0),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_an_id_that_is_repeated_with_every_piece_is_one_call() -> None:
    assert blocks(called("{", index=0, name="A", call_id="x"), called("}", index=0, name="A", call_id="x")) == [
        Shown("A", "{}", "toolu_1")
    ]


def test_one_id_under_two_numbers_is_two_calls() -> None:
    assert [
        block.kind
        for block in blocks(called("{}", index=0, name="A", call_id="x"), called("{}", index=1, name="B", call_id="x"))
    ] == ["A", "B"]


def test_an_id_that_comes_late_belongs_to_the_call_already_begun() -> None:
    assert blocks(called("{", index=0, name="A"), called("}", index=0, call_id="x")) == [Shown("A", "{}", "toolu_1")]


def test_a_name_that_comes_after_the_id_and_arguments() -> None:
    one = translator()
    assert list(one.feed(called("{", index=0, call_id="x"))) == []
    assert shown(one.feed(called("", index=0, name="A"))) == [Shown("A", "{", "toolu_1")]

    assert blocks(
        called(index=0, call_id="x"), called('{"a":', index=0), called("1", index=0, name="A"), called("}", index=0)
    ) == [Shown("A", '{"a":1}', "toolu_1")]


def test_a_name_that_is_repeated_before_the_arguments_end_is_one_call() -> None:
    assert blocks(called('{"a":', index=0, name="A"), called("1}", index=0, name="A")) == [
        Shown("A", '{"a":1}', "toolu_1")
    ]


def test_an_id_that_came_late_tells_the_next_call_apart() -> None:
    assert blocks(
        called("{}", index=0, name="A"),
        called("", index=0, call_id="x"),
        called("{}", index=0, name="B", call_id="y"),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_empty_names_and_ids_in_later_pieces_change_nothing() -> None:
    assert blocks(called("{", index=0, name="A", call_id="x"), called("}", index=0, name="", call_id="")) == [
        Shown("A", "{}", "toolu_1")
    ]


def test_a_call_that_was_never_named_is_shown_and_not_dropped() -> None:
    events = translated([called('{"a":1}', index=0, call_id="x"), finished("tool_calls")])

    assert shown(events) == [Shown("", '{"a":1}', "toolu_1")]
    assert ending(events).delta.stop_reason == "tool_use"


def test_arguments_as_an_object_become_json() -> None:
    call = ToolCallDelta(0, "x", CallDelta("A", {"a": [1, None], "b": "é"}))

    (block,) = blocks(Chunk((Choice(Delta(tool_calls=(call,))),)))

    assert block.text == '{"a":[1,null],"b":"é"}'


def test_a_call_without_arguments_is_a_call() -> None:
    assert blocks(called(index=0, name="A", call_id="x")) == [Shown("A", "", "toolu_1")]
    assert blocks(Chunk((Choice(Delta(tool_calls=(ToolCallDelta(0, "x", None),))),))) == [Shown("", "", "toolu_1")]


# What waits for whom


def test_text_between_the_pieces_of_a_call_waits_for_its_end() -> None:
    assert blocks(
        called('{"a":', index=0, name="A", call_id="x"),
        said("one "),
        said("two"),
        called("1}", index=0),
        said(" three"),
    ) == [Shown("A", '{"a":1}', "toolu_1"), Shown("text", "one two three")]


def test_what_waits_is_written_as_soon_as_the_call_ends() -> None:
    one = translator()
    assert len(list(one.feed(called("{", index=0, name="A", call_id="x")))) == 2
    assert list(one.feed(said("words"))) == []
    assert list(one.feed(called("{", index=1, name="B", call_id="y"))) == []

    assert shown(list(one.feed(called("}", index=0)))[1:]) == [Shown("text", "words"), Shown("B", "{", "toolu_2")]


def test_thoughts_between_the_pieces_of_a_call_wait_too() -> None:
    assert blocks(called("{", index=0, name="A", call_id="x"), thought("hm"), called("}", index=0)) == [
        Shown("A", "{}", "toolu_1"),
        Shown("thinking", "hm"),
    ]


def test_text_after_a_whole_call_is_written_at_once() -> None:
    one = translator()
    list(one.feed(called("{}", index=0, name="A", call_id="x")))

    assert shown(one.feed(said("after"))) == [Shown("text", "after")]


def test_text_after_a_call_that_never_ended_is_not_lost() -> None:
    assert blocks(
        called('{"a":', index=0, name="A", call_id="x"),
        said("a"),
        called('{"b":', index=1, name="B", call_id="y"),
        said("b"),
    ) == [
        Shown("A", '{"a":', "toolu_1"),
        Shown("text", "a"),
        Shown("B", '{"b":', "toolu_2"),
        Shown("text", "b"),
    ]


@pytest.mark.parametrize("rest", ["", " ", "\n"])
def test_white_space_after_a_call_does_not_open_it_again(rest: str) -> None:
    assert blocks(
        called("{}", index=0, name="A", call_id="x"),
        called("{", index=1, name="B", call_id="y"),
        called(rest, index=0),
        called("}", index=1),
        called(rest, index=0),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", "{}", "toolu_2")]


def test_white_space_inside_a_call_that_waits_is_kept() -> None:
    assert blocks(
        called("{", index=0, name="A", call_id="x"),
        called('{"b":"1', index=1, name="B", call_id="y"),
        called(" ", index=1),
        called('2"}', index=1),
        called("}", index=0),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", '{"b":"1 2"}', "toolu_2")]


def test_text_never_splits_a_call_that_waits() -> None:
    assert blocks(
        called("", index=0, name="A", call_id="x"),
        called("", index=1, name="B", call_id="y"),
        said("words"),
        called('{"b":2}', index=1),
        called("{}", index=0),
    ) == [Shown("A", "{}", "toolu_1"), Shown("B", '{"b":2}', "toolu_2"), Shown("text", "words")]


def _pieces(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


_ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(st.text(max_size=6) | st.integers() | st.none(), st.lists, max_leaves=4),
    max_size=3,
)
_PLACES = st.lists(st.integers(0, 200), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    first=_ARGUMENTS,
    second=_ARGUMENTS,
    cuts=st.tuples(_PLACES, _PLACES),
    words=st.lists(st.text(min_size=1, max_size=5), max_size=5),
    identity=st.sampled_from(["index and id", "index", "id"]),
    order=st.randoms(use_true_random=False),
)
def test_any_interleaving_of_two_calls_and_text_arrives_whole(
    first: dict[str, Any],
    second: dict[str, Any],
    cuts: tuple[list[int], list[int]],
    words: list[str],
    identity: str,
    order: random.Random,
) -> None:
    sent = [json.dumps(first), json.dumps(second, indent=1)]
    lanes = [
        [
            called(
                piece,
                index=None if identity == "id" else n,
                name=("A", "B")[n] if position == 0 else None,
                call_id=None if identity == "index" or (identity == "index and id" and position) else f"id{n}",
            )
            for position, piece in enumerate(_pieces(sent[n], cuts[n]))
        ]
        for n in (0, 1)
    ]
    lanes.append([said(word) for word in words])
    chunks = [lane.pop(0) for _ in range(sum(map(len, lanes))) for lane in [order.choice([x for x in lanes if x])]]

    seen = blocks(*chunks)

    assert {block.kind: block.text for block in seen if block.kind != "text"} == {"A": sent[0], "B": sent[1]}
    assert "".join(block.text for block in seen if block.kind == "text") == "".join(words)
    assert len([block for block in seen if block.kind != "text"]) == 2


# Why it ended


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("tool_calls", "end_turn"),
        ("function_call", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("a new one", "end_turn"),
    ],
)
def test_why_an_answer_without_calls_ended(finish_reason: str, stop_reason: str) -> None:
    assert ending(translated([said("a"), finished(finish_reason)])).delta.stop_reason == stop_reason


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [
        ("stop", "tool_use"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("a new one", "tool_use"),
    ],
)
def test_why_an_answer_with_calls_ended(finish_reason: str, stop_reason: str) -> None:
    chunks = [called("{}", index=0, name="A", call_id="x"), finished(finish_reason)]

    assert ending(translated(chunks)).delta.stop_reason == stop_reason


def test_a_call_cut_at_the_limit_stays_cut_and_says_so() -> None:
    events = translated([called('{"command":"ls', index=0, name="Bash", call_id="x"), finished("length")])

    assert shown(events) == [Shown("Bash", '{"command":"ls', "toolu_1")]
    assert ending(events).delta.stop_reason == "max_tokens"


def test_a_stop_sequence_that_vllm_names_is_told() -> None:
    stop = Chunk((Choice(Delta(), finish_reason="stop", stop_reason="</severity>"),))
    delta = ending(translated([said("a"), stop], stop_sequences=("</x>", "</severity>"))).delta

    assert (delta.stop_reason, delta.stop_sequence) == ("stop_sequence", "</severity>")


@pytest.mark.parametrize("stop_reason", ["<|im_end|>", 151645, None])
def test_a_stop_reason_that_nobody_asked_for_is_a_plain_end(stop_reason: str | int | None) -> None:
    stop = Chunk((Choice(Delta(), finish_reason="stop", stop_reason=stop_reason),))
    delta = ending(translated([said("a"), stop], stop_sequences=("</x>",))).delta

    assert (delta.stop_reason, delta.stop_sequence) == ("end_turn", None)


def test_without_a_finish_reason_the_stream_broke_off() -> None:
    one = translator()
    list(one.feed(said("a")))
    assert not one.has_finish_reason
    list(one.feed(finished()))
    assert one.has_finish_reason


def test_a_second_finish_with_usage_ends_once_and_keeps_the_usage() -> None:
    again = Chunk((Choice(Delta(content=""), finish_reason="tool_calls"),), ChatUsage(10, 2, PromptDetails(8)))
    events = translated([called("{}", index=0, name="A", call_id="x"), finished("tool_calls"), again])

    assert [block.kind for block in shown(events)] == ["A"]
    assert ending(events).delta.stop_reason == "tool_use"
    assert ending(events).usage == Usage(
        input_tokens=2, cache_read_input_tokens=8, cache_creation_input_tokens=0, output_tokens=2
    )


# Usage


def test_usage_with_cached_tokens_adds_up_to_the_prompt() -> None:
    assert usage_of(ChatUsage(100, 7, PromptDetails(60))) == Usage(
        input_tokens=40, cache_read_input_tokens=60, cache_creation_input_tokens=0, output_tokens=7
    )


def test_nothing_cached_is_told_as_zero() -> None:
    assert usage_of(ChatUsage(100, 7, PromptDetails(0))).cache_read_input_tokens == 0


@pytest.mark.parametrize("details", [None, PromptDetails(None)])
def test_cached_tokens_that_were_not_told_stay_untold(details: PromptDetails | None) -> None:
    usage = usage_of(ChatUsage(100, 7, details))

    assert usage == Usage(input_tokens=100, output_tokens=7)
    assert usage.cache_read_input_tokens is UNSET


def test_no_usage_at_all_claims_nothing_of_the_prompt() -> None:
    assert usage_of(None) == Usage(output_tokens=0)
    assert usage_of(None).input_tokens is UNSET
    assert usage_of(ChatUsage(None, 7)) == Usage(output_tokens=7)
    assert usage_of(ChatUsage(7, None)) == Usage(input_tokens=7, output_tokens=0)


def test_the_last_usage_of_a_stream_counts() -> None:
    events = translated([Chunk((Choice(Delta(content="a")),), ChatUsage(9, 1)), finished(), Chunk((), ChatUsage(9, 5))])

    assert ending(events).usage == Usage(input_tokens=9, output_tokens=5)
