"""The thinking block that tells how far a long prompt has been read."""

import json
from typing import Any

import pytest

from anyclaude.backends.seam import Item, Progress
from anyclaude.prompt.canonical import canonical
from anyclaude.prompt.own import own_signature
from anyclaude.server.reading_note import ReadingNote, is_wanted
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    StartedMessage,
    Stop,
    TextDelta,
    TextStart,
    Usage,
)
from anyclaude.wire.messages import MessagesRequest, Thinking, decode_request
from tests.support import chat
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.gateway import request, running_gateway, target
from tests.support.wait import wait_until

START = MessageStart(StartedMessage("m", "m", Usage()))
ANSWER: list[Item] = [
    BlockStart(0, TextStart()),
    BlockDelta(0, TextDelta("hi")),
    BlockStop(0),
    MessageDelta(Stop("end_turn"), Usage()),
    MessageStop(),
]
FIRST = "Reading the prompt: 12,000 of 18,490 tokens."
SECOND = "Reading the prompt: 14,048 of 18,490 tokens."


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def seen(*items: Item | float | int) -> list[Event]:
    """A number lets so many seconds pass."""
    clock = Clock()
    note = ReadingNote(after_s=60, every_s=30, clock=clock)
    found: list[Event] = []
    for item in items:
        if isinstance(item, float | int):
            clock.now += item
        else:
            found += note.see(item)
    return found


def thoughts(events: list[Any]) -> str:
    return "".join(event["delta"].get("thinking", "") for event in events if event["type"] == "content_block_delta")


def test_before_a_minute_has_passed_nothing_is_added() -> None:
    assert seen(START, Progress(1, 9), 59.0, Progress(5, 9), *ANSWER) == [START, *ANSWER]


def test_after_a_minute_the_reading_is_told_now_and_then_and_signed_before_the_first_block() -> None:
    found = seen(
        START, 61.0, Progress(12_000, 18_490), 29.0, Progress(13_000, 18_490), 2.0, Progress(14_048, 18_490), *ANSWER
    )
    assert [type(event).__name__ for event in found[:6]] == [
        "MessageStart", "BlockStart", "BlockDelta", "BlockDelta", "BlockDelta", "BlockStop",
    ]  # fmt: skip
    text = f"{FIRST}\n{SECOND}"
    deltas = [event.delta for event in found[2:5] if isinstance(event, BlockDelta)]
    assert "".join(getattr(delta, "thinking", "") for delta in deltas) == text
    assert getattr(deltas[-1], "signature", "") == own_signature(text)
    assert found[6:] == [
        BlockStart(1, TextStart()),
        BlockDelta(1, TextDelta("hi")),
        BlockStop(1),
        *ANSWER[3:],
    ]


def test_an_answer_without_blocks_closes_it_too() -> None:
    found = seen(START, 61.0, Progress(1, 9), *ANSWER[3:])
    assert found[-3:] == [BlockStop(0), *ANSWER[3:]]


def test_progress_inside_the_answer_adds_nothing() -> None:
    found = seen(START, ANSWER[0], 100.0, Progress(1, 9), *ANSWER[1:])
    assert found == [START, *ANSWER]


def test_before_the_message_begins_nothing_is_added() -> None:
    assert seen(100.0, Progress(1, 9), START, Ping(), *ANSWER) == [START, Ping(), *ANSWER]


@pytest.mark.parametrize(
    ("stream", "thinking", "wanted"),
    [
        (True, "adaptive", True),
        (True, "enabled", True),
        (True, "disabled", False),
        (True, None, False),
        (False, "adaptive", False),
    ],
)
def test_only_a_stream_that_asked_for_thinking_gets_it(stream: bool, thinking: str | None, wanted: bool) -> None:
    asked = MessagesRequest("m", (), stream=stream, thinking=Thinking(thinking) if thinking else None)
    assert is_wanted(asked) is wanted


def _slow(exchange: Exchange) -> None:
    exchange.start()
    for n_read in (2048, 4096):
        exchange.send(f": keepalive {n_read}/18490\n\n".encode())
    exchange.chunks(chat.text("done"))
    exchange.done()


def test_a_servers_progress_is_shown_as_thinking_and_never_comes_back_into_a_prompt() -> None:
    with ScriptedBackend(_slow) as backend, running_gateway(note_after_s=0.0) as gateway:
        session = gateway.session(target(backend.url, kind="mlx-lm"))
        body = request(thinking={"type": "adaptive"})
        answer = gateway.ask("POST", "/v1/messages", body, token=session.token)

        assert answer.text == "done"
        told = thoughts(answer.events)
        assert told == "Reading the prompt: 2,048 of 18,490 tokens."
        signature = next(
            event["delta"]["signature"] for event in answer.events if "signature" in event.get("delta", {})
        )
        assert signature == own_signature(told)
        recent = gateway.gateway.ledger.recent
        wait_until(lambda: recent, "the turn is recorded")
        assert recent[-1].error is None
        blocks = [
            {"type": "thinking", "thinking": told, "signature": signature},
            {"type": "text", "text": answer.text},
        ]
        again = body | {
            "messages": [
                *body["messages"],
                {"role": "assistant", "content": blocks},
                {"role": "user", "content": "go on"},
            ]
        }
        assert gateway.ask("POST", "/v1/messages", again, token=session.token).status == 200
        assert "Reading" not in backend.turns[-1].raw.decode()

    sent = decode_request(json.dumps(again).encode())
    assert not any("Reading" in str(block) for message in canonical(sent).messages for block in message.content)


@pytest.mark.parametrize("fields", [{"thinking": {"type": "disabled"}}, {}, {"stream": False}])
def test_who_did_not_ask_for_thinking_gets_the_answer_alone(fields: dict[str, Any]) -> None:
    with ScriptedBackend(_slow) as backend, running_gateway(note_after_s=0.0) as gateway:
        session = gateway.session(target(backend.url, kind="mlx-lm"))
        answer = gateway.ask("POST", "/v1/messages", request(**fields), token=session.token)
        assert answer.status == 200
        assert b"Reading" not in answer.body
        assert b"done" in answer.body
