import json
from typing import Any

import pytest

from anyclaude.translate.whole import MessageCollector
from anyclaude.wire.events import Event, Foreign, Ping
from tests.recorded import STREAMS
from tests.translate.reading import called, chunks_in, finished, said, translated


def collected(events: list[Event]) -> dict[str, Any]:
    collector = MessageCollector()
    for event in events:
        collector.add(event)
    return collector.message


def foreign(*events: dict[str, Any]) -> list[Event]:
    return [Foreign(event["type"], json.dumps(event).encode()) for event in events]


_START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_9",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1},
    },
}
_END: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 12},
}


def block_of(start: dict[str, Any], *deltas: dict[str, Any]) -> dict[str, Any]:
    """One block of a server that speaks the Messages API itself."""
    events = [
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
    ]
    return collected(foreign(_START, *events, _END, {"type": "message_stop"}))["content"][0]


def test_a_stream_becomes_one_message() -> None:
    message = collected(translated(chunks_in([STREAMS["openrouter/tool_call"]])))

    assert message == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "Listing it."},
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls -la"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 32,
            "cache_read_input_tokens": 380,
            "cache_creation_input_tokens": 0,
            "output_tokens": 21,
        },
    }


def test_thoughts_are_a_block_with_an_empty_signature() -> None:
    message = collected(translated(chunks_in([STREAMS["vllm/reasoning"]])))

    assert message["content"][0] == {"type": "thinking", "thinking": "The user wants a count.", "signature": ""}


def test_an_answer_of_nothing_has_no_content() -> None:
    message = collected(translated([finished()]))

    assert message["content"] == []
    assert message["usage"] == {"input_tokens": 0, "output_tokens": 0}


def test_a_call_without_arguments_has_an_empty_input() -> None:
    message = collected(translated([called("", index=0, name="A", call_id="x"), said("b"), finished()]))

    assert message["content"][0] == {"type": "tool_use", "id": "toolu_1", "name": "A", "input": {}}


def test_arguments_that_are_not_json_are_marked_as_the_client_marks_them() -> None:
    message = collected(translated([called('{"a', index=0, name="A", call_id="x"), finished("length")]))

    assert message["content"][0]["input"] == {"__unparsedToolInput": {"raw": '{"a', "len": 3}}
    assert message["stop_reason"] == "max_tokens"


def test_arguments_of_one_call_never_reach_the_next() -> None:
    message = collected(
        translated(
            [
                called('{"a":1}', index=0, name="A", call_id="x"),
                called("", index=1, name="B", call_id="y"),
                finished(),
            ]
        )
    )

    assert [block["input"] for block in message["content"]] == [{"a": 1}, {}]


def test_foreign_events_become_one_message_with_all_their_fields() -> None:
    text = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 0},
    ]

    assert collected(foreign(_START, *text, _END, {"type": "message_stop"})) == _START["message"] | {
        "content": [{"type": "text", "text": "ab"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 12},
    }


@pytest.mark.parametrize(
    ("start", "deltas", "block"),
    [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "c2ln"}],
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        ),
        (
            {"type": "text", "text": "", "citations": None},
            [
                {"type": "citations_delta", "citation": {"n": 1}},
                {"type": "text_delta", "text": "a"},
                {"type": "citations_delta", "citation": {"n": 2}},
            ],
            {"type": "text", "text": "a", "citations": [{"n": 1}, {"n": 2}]},
        ),
        (
            {"type": "tool_use", "id": "t", "name": "A", "input": {}},
            [{"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": '{"a":1}'}],
            {"type": "tool_use", "id": "t", "name": "A", "input": {"a": 1}},
        ),
        (
            {"type": "compaction", "content": None},
            [{"type": "compaction_delta", "content": "summary"}],
            {"type": "compaction", "content": "summary"},
        ),
        ({"type": "redacted_thinking", "data": "x"}, [], {"type": "redacted_thinking", "data": "x"}),
    ],
)
def test_every_kind_of_foreign_delta(
    start: dict[str, Any], deltas: list[dict[str, Any]], block: dict[str, Any]
) -> None:
    assert block_of(start, *deltas) == block


def test_pings_and_unknown_events_change_nothing() -> None:
    assert collected([*foreign(_START, {"type": "new_event", "x": 1}), Ping()]) == _START["message"]


def test_events_that_were_added_are_not_changed_by_later_ones() -> None:
    events = translated([said("a"), finished()])

    assert collected(events) == collected(events)
