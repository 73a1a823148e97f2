import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.telemetry.turns import Tokens, TurnMeter
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
from tests.telemetry.rows import turn_row
from tests.translate.reading import called, chunks_in, finished, translated

NOTHING_TOLD = Tokens(prompt=None, cached=None, prefilled=None, out=None)
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

    assert meter.tokens == NOTHING_TOLD
    assert (meter.ttft_s, meter.stop_reason, meter.n_tool_calls) == (None, None, 0)
    assert meter.duration_s(103.5) == 3.5


def test_the_zeros_of_a_started_message_are_no_measurement() -> None:
    assert metered(START, MessageDelta(Stop("end_turn"), Usage(output_tokens=0))).tokens == NOTHING_TOLD


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

    assert meter.tokens == Tokens(prompt=412, cached=380, prefilled=32, out=21)


def test_cached_tokens_that_were_not_told_leave_prefilled_unknown() -> None:
    meter = metered(*translated(chunks_in([STREAMS["vllm/tool_call"]])))

    assert meter.tokens == Tokens(prompt=412, cached=None, prefilled=None, out=21)


def test_a_server_that_counts_nothing_says_zero_and_that_is_no_measurement() -> None:
    nothing = Usage(input_tokens=0, cache_read_input_tokens=0, cache_creation_input_tokens=0, output_tokens=0)

    assert metered(START, MessageDelta(Stop("end_turn"), nothing)).tokens == NOTHING_TOLD


def test_nothing_cached_is_a_measurement() -> None:
    usage = Usage(input_tokens=5, cache_read_input_tokens=0, cache_creation_input_tokens=7, output_tokens=1)

    meter = metered(START, MessageDelta(Stop("end_turn"), usage))

    assert meter.tokens == Tokens(prompt=12, cached=0, prefilled=12, out=1)


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

    assert meter.tokens == Tokens(prompt=100, cached=90, prefilled=10, out=30)
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


def test_foreign_usage_that_is_no_number_of_tokens_was_not_told() -> None:
    meter = metered(
        foreign("message_start", message={"usage": {"input_tokens": "many", "output_tokens": 1.5}}),
        foreign(
            "message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": -1, "output_tokens": 10**30}
        ),
    )

    assert meter.tokens == NOTHING_TOLD
    assert meter.stop_reason == "end_turn"


def test_foreign_events_whose_usage_is_null_still_tell_why_they_stopped() -> None:
    meter = metered(
        foreign("message_start", message={"usage": None}),
        foreign("message_delta", delta={"stop_reason": "tool_use"}, usage=None),
    )

    assert (meter.tokens, meter.stop_reason) == (NOTHING_TOLD, "tool_use")


NAMES = st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens", "usage", "stop_reason", "type"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(["message_start", "message_delta", "content_block_start", "content_block_delta"]),
    st.dictionaries(st.sampled_from(["message", "usage", "delta", "content_block", "index"]), JSON),
)
def test_no_foreign_event_ends_a_turn(name: str, fields: dict[str, Any]) -> None:
    meter = metered(foreign(name, **fields))

    tokens = (meter.tokens.prompt, meter.tokens.cached, meter.tokens.prefilled, meter.tokens.out)
    assert all(count is None or 0 <= count < 1 << 50 for count in tokens)
    assert meter.stop_reason is None or isinstance(meter.stop_reason, str)


@pytest.mark.parametrize(
    ("error", "ttft_s", "was_read"),
    [(None, None, True), (None, 0.5, True), ("overloaded_error", None, False), ("the client went away", 0.5, True)],
)
def test_a_prompt_was_read_once_an_answer_began(error: str | None, ttft_s: float | None, was_read: bool) -> None:
    assert turn_row(error=error, ttft_s=ttft_s).was_read is was_read


def test_a_row_never_changes() -> None:
    with pytest.raises(AttributeError):
        setattr(turn_row(), "error", "x")  # noqa: B010 (the type checker refuses the plain form)
