import json

from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Error,
    ErrorBody,
    Event,
    Foreign,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    StartedMessage,
    Stop,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolUseStart,
    Usage,
    encode_event,
)
from anyclaude.wire.sse import ServerEvent, SseDecoder


def encoded(event: Event) -> tuple[str, object]:
    (read,) = SseDecoder().feed(encode_event(event))
    assert isinstance(read, ServerEvent)
    return read.name, json.loads(read.data)


def test_a_message_starts_empty_and_with_the_tokens_known_so_far() -> None:
    event = MessageStart(StartedMessage("msg_1", "m", Usage(input_tokens=0, output_tokens=0)))

    assert encoded(event) == (
        "message_start",
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        },
    )


def test_blocks_start_in_the_form_that_the_api_documents() -> None:
    assert encoded(BlockStart(0, TextStart()))[1] == {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    assert encoded(BlockStart(1, ThinkingStart()))[1] == {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    }
    assert encoded(BlockStart(2, ToolUseStart("toolu_1", "Bash")))[1] == {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}},
    }


def test_deltas_and_stops_name_their_block() -> None:
    delta = "content_block_delta"
    assert encoded(BlockDelta(0, TextDelta("é"))) == (
        delta,
        {"type": delta, "index": 0, "delta": {"type": "text_delta", "text": "é"}},
    )
    assert encoded(BlockDelta(0, ThinkingDelta("hm"))) == (
        delta,
        {"type": delta, "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    )
    assert encoded(BlockDelta(3, InputJsonDelta('{"a'))) == (
        delta,
        {"type": delta, "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a'}},
    )
    assert encoded(BlockStop(3)) == ("content_block_stop", {"type": "content_block_stop", "index": 3})


def test_usage_that_was_not_told_is_not_written() -> None:
    assert encoded(MessageDelta(Stop("end_turn"), Usage(output_tokens=3)))[1] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    }


def test_the_small_events() -> None:
    assert encoded(MessageStop()) == ("message_stop", {"type": "message_stop"})
    assert encoded(Ping()) == ("ping", {"type": "ping"})
    assert encoded(Error(ErrorBody("api_error", "words"), "req_1")) == (
        "error",
        {"type": "error", "error": {"type": "api_error", "message": "words"}, "request_id": "req_1"},
    )


def test_a_foreign_event_is_passed_on_byte_for_byte() -> None:
    assert encode_event(Foreign("new_event", b'{ "a" : 1 }')) == b'event: new_event\ndata: { "a" : 1 }\n\n'


def test_line_breaks_in_text_never_break_an_event() -> None:
    assert encode_event(BlockDelta(0, TextDelta("a\n\r\n\u2028b"))).count(b"\n") == 3
