import json
from typing import Any

import pytest
from msgspec.structs import replace

from anyclaude.telemetry.turns import TurnLog, TurnMeter, TurnRow
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    Event,
    Foreign,
    MessageDelta,
    MessageStart,
    Ping,
    StartedMessage,
    Stop,
    TextDelta,
    TextStart,
    Usage,
)
from tests.recorded import STREAMS
from tests.translate.reading import called, chunks_in, finished, translated

START = MessageStart(StartedMessage("msg_1", "m", Usage(input_tokens=0, output_tokens=0)))


def metered(*events: Event) -> TurnMeter:
    """The turn began at second 100; its events come at 101, 102, and so on."""
    meter = TurnMeter(started=100.0, started_at=1_800_000_000.0)
    for clock, event in enumerate(events, start=101):
        meter.see(event, float(clock))
    return meter


def foreign(name: str, **fields: Any) -> Event:
    return Foreign(name, json.dumps({"type": name} | fields).encode())


def test_a_turn_that_told_nothing_claims_nothing() -> None:
    meter = metered()

    assert meter.tokens == {
        "tokens_prompt": None,
        "tokens_cached": None,
        "tokens_prefilled": None,
        "tokens_out": None,
    }
    assert (meter.ttft_s, meter.stop_reason, meter.n_tool_calls) == (None, None, 0)
    assert meter.duration_s(103.5) == 3.5


def test_the_zeros_of_a_started_message_are_no_measurement() -> None:
    assert metered(START, MessageDelta(Stop("end_turn"), Usage(output_tokens=0))).tokens["tokens_prompt"] is None


def test_the_first_token_counts_from_the_request_and_not_from_what_comes_before_it() -> None:
    before: list[Event] = [START, Ping(), BlockStart(0, TextStart())]
    words = BlockDelta(0, TextDelta("a"))

    assert metered(*before).ttft_s is None
    assert metered(*before, words, words).ttft_s == 4.0


def test_calls_are_counted() -> None:
    meter = metered(*translated([called("{}", index=0, name="A"), called("{}", index=1, name="B"), finished()]))

    assert (meter.n_tool_calls, meter.stop_reason) == (2, "tool_use")


def test_cached_and_prefilled_tokens_are_the_servers_own() -> None:
    meter = metered(*translated(chunks_in([STREAMS["llamacpp/tool_call"]])))

    assert meter.tokens == {
        "tokens_prompt": 412,
        "tokens_cached": 380,
        "tokens_prefilled": 32,
        "tokens_out": 21,
    }


def test_cached_tokens_that_were_not_told_leave_prefilled_unknown() -> None:
    assert metered(*translated(chunks_in([STREAMS["vllm/tool_call"]]))).tokens == {
        "tokens_prompt": 412,
        "tokens_cached": None,
        "tokens_prefilled": None,
        "tokens_out": 21,
    }


def test_a_server_that_counts_nothing_says_zero_and_that_is_no_measurement() -> None:
    tokens = metered(START, MessageDelta(Stop("end_turn"), Usage(input_tokens=0, output_tokens=0))).tokens

    assert tokens == dict.fromkeys(tokens)


def test_nothing_cached_is_a_measurement() -> None:
    usage = Usage(input_tokens=5, cache_read_input_tokens=0, cache_creation_input_tokens=7, output_tokens=1)

    assert metered(START, MessageDelta(Stop("end_turn"), usage)).tokens == {
        "tokens_prompt": 12,
        "tokens_cached": 0,
        "tokens_prefilled": 12,
        "tokens_out": 1,
    }


def test_foreign_events_are_measured_too() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5, "output_tokens": 1}
    meter = metered(
        foreign("message_start", message={"id": "x", "usage": usage | {"server_tool_use": None}}),
        foreign("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        foreign("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        foreign(
            "content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "name": "A", "input": {}}
        ),
        foreign("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 30, "input_tokens": None}),
        foreign("message_stop"),
    )

    assert meter.tokens == {"tokens_prompt": 100, "tokens_cached": 90, "tokens_prefilled": 10, "tokens_out": 30}
    assert (meter.stop_reason, meter.n_tool_calls, meter.ttft_s) == ("tool_use", 1, 3.0)


def test_foreign_events_of_other_kinds_are_not_even_read() -> None:
    meter = metered(Foreign("ping", b"not json"), Foreign("new_event", b""))

    assert meter.ttft_s is None


def test_a_foreign_stop_reason_is_not_forgotten() -> None:
    meter = metered(
        foreign("message_delta", delta={"stop_reason": "end_turn"}),
        foreign("message_delta", delta={"stop_reason": None}),
    )

    assert meter.stop_reason == "end_turn"


ROW = TurnRow(
    id=1,
    started_at=1_800_000_000.0,
    session="s",
    client_session=None,
    agent=None,
    request_class=None,
    project="/p",
    backend="vllm",
    model="m",
    tokens_prompt=None,
    tokens_cached=None,
    tokens_prefilled=None,
    tokens_out=None,
    ttft_s=None,
    duration_s=1.0,
    stop_reason=None,
    tool_calls=0,
    error=None,
)


def test_the_log_keeps_the_newest_thousand_in_order() -> None:
    log = TurnLog()
    for _ in range(1200):
        log.add(replace(ROW, id=log.next_id()))

    assert [row.id for row in log.rows] == list(range(201, 1201))


def test_a_row_never_changes() -> None:
    with pytest.raises(AttributeError):
        setattr(ROW, "error", "x")  # noqa: B010 (the type checker refuses the plain form)
