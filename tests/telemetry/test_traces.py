"""What a trace's file holds, who may read it, how long it stays, and what becomes of one that was cut off."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from anyclaude.errors import TraceFailed, UnsafeFolder
from anyclaude.telemetry.trace_events import answer_of, folded
from anyclaude.telemetry.trace_files import Limits, TraceFolder, TraceHeader, read_trace, summary_of
from anyclaude.telemetry.traces import WAITING_EVENTS, Traces
from anyclaude.telemetry.turns import Reading, TurnRow
from anyclaude.wire.events import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    Foreign,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    StartedMessage,
    Stop,
    TextDelta,
    TextStart,
    ToolUseStart,
    Usage,
)

KEY = "sk-ant-api03-marker-of-the-tests"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "metadata": {"user_id": "who"}}
NOW = time.time()


def header(number: int = 1, *, started_at: float = NOW) -> TraceHeader:
    return TraceHeader(
        request_id=f"req_{number:024x}", started_at=started_at, launch="l", session="s", agent=None,
        request_class="main", project="/p", backend="openai", base_url="http://x", model="m", headers={},
    )  # fmt: skip


ROW = TurnRow(
    request_id="req_1", started_at=NOW, launch="l", session="s", agent=None, request_class="main", entrypoint="cli",
    project="/p", backend="openai", base_url="http://x", model="m", tokens_prompt=9, tokens_cached=None,
    tokens_prefilled=None, tokens_out=2, ttft_s=0.25, duration_s=2.0, stop_reason="end_turn", tool_calls=0, repairs=0,
    error=None,
)  # fmt: skip


def answer(words: str) -> list[Event]:
    pieces: list[Event] = [BlockDelta(0, TextDelta(words[at : at + 5])) for at in range(0, len(words), 5)]
    start = MessageStart(StartedMessage("msg_1", "m", Usage()))
    end = MessageDelta(Stop("end_turn"), Usage(input_tokens=9, output_tokens=2))
    return [start, BlockStart(0, TextStart()), *pieces, BlockStop(0), end, MessageStop()]


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    file = path.stat()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # closed meanwhile
            found = os.fstat(int(name))
            if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
                return True
    return False


@pytest.fixture
def folder(tmp_path: Path) -> TraceFolder:
    made = TraceFolder(tmp_path / "traces")
    made.turn_on(Limits())
    return made


@pytest.fixture
def traces(folder: TraceFolder) -> Generator[Traces]:
    made = Traces(folder.path, secrets=["the-management-token"])
    yield made
    made.close()


Record = Callable[..., Path]


@pytest.fixture
def record(traces: Traces, folder: TraceFolder) -> Record:
    """One whole turn; its file."""

    def run(
        *events: Event | Reading, body: Any = BODY, secrets: tuple[str, ...] = (), number: int = 1, **fields: Any
    ) -> Path:
        head = header(number, **fields)
        trace = traces.begin(head, msgspec.json.encode(body), started=100.0, secrets=secrets)
        for at_s, event in enumerate(events):
            trace.see(event, 100.0 + at_s / 8)
        trace.end(ROW)
        traces.flush()
        return folder.file_for(head)

    return run


def test_a_turn_is_one_file_for_its_owner_with_all_that_happened_in_order(record: Record) -> None:
    path = record(Reading(1, 2), *answer("hello world"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = read_trace(path)
    assert found.header == header()
    assert found.request == {"model": "m", "messages": BODY["messages"]}
    assert [event.event for event in found.events] == [
        "progress", "message_start", "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert [event.at_s for event in found.events] == [round(n / 8, 4) for n in range(9)]
    assert found.events[0].data == {"n_read": 1, "n_total": 2}
    assert found.end == ROW
    assert answer_of(found.events).text == "hello world"


def test_events_of_a_foreign_server_are_kept_as_they_are(record: Record) -> None:
    odd = {"type": "content_block_start", "index": 3, "content_block": {"type": "new", "deep": [{"x": None}]}}
    found = read_trace(record(Foreign("content_block_start", msgspec.json.encode(odd)), Foreign("odd", b"no json")))
    assert [(event.event, event.data) for event in found.events] == [("content_block_start", odd), ("odd", "no json")]


def test_no_secret_is_in_the_file_whatever_brought_it(record: Record) -> None:
    body = BODY | {"system": f"token the-session-token and {KEY}", "x": ["the-management-token", {"the-api-key": 1}]}
    events = answer(f"I found {KEY} and the-api-key, the-session-token.")
    path = record(*events, body=body, secrets=("the-session-token", "the-api-key"))
    data = path.read_text("utf-8")
    for secret in (KEY, "the-management-token", "the-session-token", "the-api-key", "user_id"):
        assert secret not in data
    found = read_trace(path)
    assert found.request is not None
    assert found.request["system"] == "token [secret] and [secret: Anthropic key]"
    assert answer_of(found.events).text == "I found [secret: Anthropic key] and [secret], [secret]."


def test_half_an_emoji_in_the_prompt_is_no_reason_to_lose_the_trace(traces: Traces, folder: TraceFolder) -> None:
    body = rb'{"model": "m", "messages": [{"role": "user", "content": "\ud83d cut"}]}'
    traces.begin(header(), body, started=0.0, secrets=()).end(ROW)
    traces.flush()
    found = read_trace(folder.file_for(header()))
    assert found.request == {"model": "m", "messages": [{"role": "user", "content": "\ufffd cut"}]}


def test_a_turn_that_still_runs_has_its_request_and_its_first_events(traces: Traces, folder: TraceFolder) -> None:
    trace = traces.begin(header(), msgspec.json.encode(BODY), started=0.0, secrets=())
    traces.flush()
    path = folder.file_for(header())
    assert read_trace(path).events == ()
    for n in range(WAITING_EVENTS):
        trace.see(BlockDelta(0, TextDelta("a word ")), n / 1000)
    traces.flush()
    found = read_trace(path)
    assert 100 < len(found.events) < WAITING_EVENTS  # the newest are held back: a secret may just begin in them
    assert found.end is None
    trace.end(ROW)
    traces.flush()
    assert len(read_trace(path).events) == WAITING_EVENTS


def test_events_that_come_slowly_are_written_all_the_same(traces: Traces, folder: TraceFolder) -> None:
    trace = traces.begin(header(), msgspec.json.encode(BODY), started=0.0, secrets=())
    trace.see(MessageStart(StartedMessage("msg_1", "m", Usage())), 1.0)
    trace.see(BlockStart(0, TextStart()), 3.5)
    traces.flush()
    assert len(read_trace(folder.file_for(header())).events) == 2


@pytest.mark.parametrize("torn", [b'{"at_s":1.0,"ev', b'{"at_s":1.0,"event":"x","data":1}', b"\xff\x00"])
def test_a_torn_last_line_is_left_out(record: Record, torn: bytes) -> None:
    path = record(*answer("hello"))
    *lines, _end = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + torn)
    found, summary = read_trace(path), summary_of(path)
    assert found.end is None
    assert summary.end is None
    assert len(found.events) == summary.n_events == 6


def test_a_damaged_or_empty_file_is_named_with_what_to_do(record: Record) -> None:
    path = record(*answer("hello"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"no json\n", *lines[4:]]))
    with pytest.raises(TraceFailed, match=rf"{path.name} is damaged in line 4; delete it"):
        read_trace(path)
    path.write_bytes(b"no json\n")
    with pytest.raises(TraceFailed, match="first line"):
        summary_of(path)
    path.write_bytes(b"")
    with pytest.raises(TraceFailed, match="empty"):
        summary_of(path)


def test_a_newer_format_is_not_guessed_at(record: Record) -> None:
    path = record()
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(TraceFailed, match="newer anyclaude"):
        read_trace(path)


def test_a_summary_tells_what_the_whole_file_would(record: Record) -> None:
    path = record(*answer("hello world"))
    summary, found = summary_of(path), read_trace(path)
    assert summary.n_events == len(found.events)
    assert (summary.header, summary.end, summary.n_bytes) == (found.header, found.end, path.stat().st_size)


def test_the_oldest_traces_make_room_for_the_newest(record: Record, folder: TraceFolder) -> None:
    size = record(number=1, started_at=NOW - 9).stat().st_size
    folder.turn_on(Limits(budget_bytes=3 * size))
    for number in range(2, 6):
        record(number=number, started_at=NOW - 10 + number)
    assert [summary_of(path).header.request_id[-1] for path in folder.files()] == ["3", "4", "5"]
    assert sum(path.stat().st_size for path in folder.files()) <= 3 * size


def test_an_answer_that_outgrows_the_budget_is_cut_and_the_turn_goes_on(
    traces: Traces, record: Record, folder: TraceFolder
) -> None:
    folder.turn_on(Limits(budget_bytes=5_000))
    path = record(*answer("word " * 1000))
    assert path.stat().st_size <= 5_000
    assert read_trace(path).end is None
    assert traces.n_lost > 0
    assert read_trace(record(number=2, started_at=NOW + 1)).end is not None


def test_a_prompt_larger_than_the_budget_leaves_no_file_and_costs_no_other(
    traces: Traces, record: Record, folder: TraceFolder
) -> None:
    earlier = record(number=2)
    folder.turn_on(Limits(budget_bytes=1_900))
    path = record(body=BODY | {"system": "x" * 2000})
    assert folder.files() == [earlier]
    assert path != earlier
    assert traces.n_lost == 1


def test_traces_are_deleted_when_they_are_too_old_with_the_next_one_and_at_the_start(
    record: Record, folder: TraceFolder
) -> None:
    old = record(number=1, started_at=NOW - 3 * 86400)
    folder.turn_on(Limits(days=2))
    new = record(number=2)
    assert not old.exists()
    folder.turn_on(Limits(days=1e-9))
    again = Traces(folder.path)
    again.close()
    assert not new.exists()


def test_the_limits_outlive_the_switch(folder: TraceFolder) -> None:
    folder.turn_on(Limits(budget_bytes=5, days=30))
    folder.turn_off()
    assert not folder.is_on
    assert folder.limits == Limits(5, 30)
    folder.turn_off()
    assert folder.limits == Limits(5, 30)
    folder.turn_on(Limits())
    assert folder.is_on
    assert folder.limits == Limits()


def test_a_switch_that_cannot_be_read_means_the_usual_limits(folder: TraceFolder) -> None:
    (folder.path / "on").write_bytes(b"")
    assert folder.is_on
    assert folder.limits == Limits()


def test_nothing_is_there_before_it_is_turned_on(tmp_path: Path) -> None:
    folder = TraceFolder(tmp_path / "traces")
    traces = Traces(folder.path)
    assert not traces.is_on
    assert folder.files() == []
    folder.turn_off()
    traces.close()
    assert not folder.path.exists()


def test_files_of_others_in_the_folder_are_left_alone(record: Record, folder: TraceFolder) -> None:
    other = folder.path / "notes.jsonl"
    other.write_text("mine")
    folder.turn_on(Limits(budget_bytes=1, days=1e-9))
    record()
    assert other.read_text() == "mine"
    assert folder.files() == []


def test_a_link_in_the_place_of_a_trace_is_neither_followed_nor_read(
    traces: Traces, record: Record, folder: TraceFolder, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder.file_for(header()).symlink_to(victim)
    path = record()
    assert victim.read_text() == "mine"
    assert traces.n_lost == 1
    with pytest.raises(TraceFailed, match="cannot be read"):
        read_trace(path)


def test_a_folder_that_is_open_to_others_gets_no_trace(traces: Traces, record: Record, folder: TraceFolder) -> None:
    folder.path.chmod(0o755)
    assert not record().exists()
    assert traces.n_lost == 1
    with pytest.raises(UnsafeFolder):
        folder.turn_on(Limits())


def test_a_folder_deleted_while_a_turn_runs_costs_that_trace_only(
    traces: Traces, record: Record, folder: TraceFolder
) -> None:
    trace = traces.begin(header(), msgspec.json.encode(BODY), started=0.0, secrets=())
    traces.flush()
    for path in folder.path.iterdir():
        path.unlink()
    folder.path.rmdir()
    trace.end(ROW)
    traces.flush()
    assert not folder.path.exists()
    assert record(number=2).exists()


def test_no_descriptor_stays_open(traces: Traces, folder: TraceFolder, record: Record) -> None:
    running = traces.begin(header(9), msgspec.json.encode(BODY), started=0.0, secrets=())
    finished = [record(*answer("hello"), number=number) for number in range(5)]
    assert [is_open(path) for path in (folder.file_for(header(9)), *finished)] == [True] + [False] * 5
    running.end(ROW)


def test_events_are_folded_and_the_answer_put_together(record: Record) -> None:
    call: list[Event] = [
        BlockStart(1, ToolUseStart("toolu_1", "Bash")),
        BlockDelta(1, InputJsonDelta('{"comm')),
        BlockDelta(1, InputJsonDelta('and": "ls"}')),
        BlockStop(1),
    ]
    start, block, *pieces, stop, end, last = answer("hello world")
    found = read_trace(record(start, block, *pieces, stop, *call, end, last))
    steps = [(step.what, step.n, step.n_characters, step.block) for step in folded(found.events)]
    assert steps == [
        ("message_start", 1, 0, None),
        ("start of text", 1, 0, 0),
        ("text_delta", 3, 11, 0),
        ("content_block_stop", 1, 0, 0),
        ("start of tool_use Bash", 1, 0, 1),
        ("input_json_delta", 2, 17, 1),
        ("content_block_stop", 1, 0, 1),
        ("message_delta", 1, 0, None),
        ("message_stop", 1, 0, None),
    ]
    told = answer_of(found.events)
    assert [(call.name, call.arguments) for call in told.calls] == [("Bash", '{"command": "ls"}')]
    assert (told.stop_reason, told.tokens.prompt, told.tokens.out, told.first_s) == ("end_turn", 9, 2, 0.25)
