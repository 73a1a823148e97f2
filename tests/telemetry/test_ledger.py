"""The ledger as one process sees it; what other processes and disks do to it is in test_ledger_faults."""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace

from anyclaude.prompt.canonical import canonical
from anyclaude.prompt.sections import rows_of, sections_of
from anyclaude.telemetry.history import History
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.write_behind import WAITING
from anyclaude.wire.messages import decode_request
from tests.support import chat
from tests.support.backend import Script, ScriptedBackend
from tests.support.gateway import request, running_gateway, target
from tests.support.script import in_order
from tests.telemetry.rows import everything_in, forgetting, lazily, n_sections_in, record, recorded, sections, turn_row

PROMISED = (
    "id", "started_at", "session", "agent", "request_class", "project", "backend", "model", "tokens_prompt",
    "tokens_cached", "tokens_prefilled", "tokens_out", "ttft_s", "duration_s", "stop_reason", "tool_calls", "repairs",
    "error",
)  # fmt: skip


def test_a_row_is_read_as_it_was_written(ledger: Ledger, path: Path) -> None:
    given = turn_row(agent="helper", error="overloaded_error")
    ledger.add(given, lazily("hello", "world!"))
    ledger.close()
    (found,) = recorded(path)

    assert found == replace(given, id=1, n_characters=11, n_sections=2)
    assert list(ledger.recent) == [found]


def test_the_promised_names_hold_what_they_say(ledger: Ledger, path: Path) -> None:
    record(ledger, "hello")
    (found,) = recorded(path)

    assert [asdict(found)[name] for name in PROMISED] == [
        1, 1_800_000_000.5, "s", None, "main", "/p", "vllm", "m", 412, 380, 32, 21, 0.25, 2.5, "tool_use", 2, 1, None,
    ]  # fmt: skip


def test_what_a_backend_did_not_tell_is_null_and_not_zero(ledger: Ledger, path: Path) -> None:
    untold = ("tokens_prompt", "tokens_cached", "tokens_prefilled", "tokens_out", "ttft_s", "stop_reason")
    record(ledger, "hello", **dict.fromkeys(untold))
    connection = sqlite3.connect(path)
    (found,) = connection.execute(f"SELECT {', '.join(untold)} FROM turn").fetchall()
    connection.close()

    assert found == (None,) * 6
    assert {asdict(recorded(path)[0])[name] for name in untold} == {None}


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("invalid_request_error: messages.3: the word marker", "invalid_request_error"),
        ("overloaded_error: ", "overloaded_error"),
        ("you said marker, did you not: no", "api_error"),
        ("the client went away", "the client went away"),
    ],
)
def test_of_an_error_only_its_kind_is_kept(ledger: Ledger, path: Path, error: str, kept: str) -> None:
    record(ledger, "hello", error=error)

    assert recorded(path)[0].error == kept


@pytest.mark.parametrize(("reason", "kept"), [("max_tokens", "max_tokens"), ("you said marker", "other")])
def test_a_reason_to_stop_is_a_word_of_the_protocol(ledger: Ledger, path: Path, reason: str, kept: str) -> None:
    record(ledger, "hello", stop_reason=reason)

    assert recorded(path)[0].stop_reason == kept


def test_no_word_of_a_prompt_or_of_a_server_is_in_any_file(ledger: Ledger, path: Path) -> None:
    marker = "quetzal-3719"
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": f"/{marker}"}}
    made_up = {"type": "tool_use", "id": "toolu_2", "name": f"I think of {marker}", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": f"{marker} " * 100}
    refused = {"type": "tool_result", "tool_use_id": "toolu_2", "content": marker}
    thinking = {"type": "thinking", "thinking": f"what is {marker}", "signature": marker}
    body = request(
        system=f"you know {marker}",
        tools=[{"name": "Read", "description": f"reads {marker}", "input_schema": {"type": "object"}}],
        messages=[
            {"role": "user", "content": f"<system-reminder>{marker}</system-reminder> {marker}"},
            {"role": "system", "content": f"the project is {marker}"},
            {"role": "assistant", "content": [thinking, call, made_up]},
            {"role": "user", "content": [result, refused]},
        ],
    )
    prompt = canonical(decode_request(json.dumps(body).encode()))
    ledger.add(
        turn_row(error=f"api_error: the server wrote {marker}", stop_reason=f"at {marker}"),
        lambda: rows_of(sections_of(prompt)),
    )
    ledger.flush()
    written = everything_in(path.parent)
    ledger.close()
    closed = everything_in(path.parent)

    for data in (written, closed):
        assert b"messages.1.tool_use.Read.1" in data
        assert marker.encode() not in data
        assert marker.encode("utf-16-le") not in data


def test_what_a_gateway_records_has_every_figure_and_no_word(
    path: Path, scripted: Callable[[Script], ScriptedBackend]
) -> None:
    marker = "quetzal-3719"
    backend = scripted(
        in_order(
            chat.call("Read", {"path": f"/{marker}"}, call_id="call_1"),
            lambda exchange: exchange.json(500, {"error": {"message": f"cannot read {marker}", "type": marker}}),
        )
    )
    with running_gateway(Ledger(path)) as gateway:
        session = gateway.session(target(backend.url))
        for words in (marker, f"{marker} again"):
            gateway.ask("POST", "/v1/messages", request(words, system=marker), token=session.token,
                        x_claude_code_session_id="told", x_claude_code_request_class="main")  # fmt: skip
    read, failed = recorded(path)

    assert marker.encode() not in everything_in(path.parent)
    assert (read.session, read.launch, read.project, read.request_class) == ("told", session.id, "/project", "main")
    assert (read.backend, read.base_url, read.model) == ("openai", backend.url, "scripted")
    assert (read.tokens_prompt, read.tokens_cached, read.tokens_prefilled, read.tokens_out) == (1000, 900, 100, 5)
    assert (read.stop_reason, read.tool_calls, read.repairs, read.error) == ("tool_use", 1, 0, None)
    assert (read.ttft_s or 0) <= read.duration_s
    assert (failed.tokens_prompt, failed.tokens_cached, failed.ttft_s, failed.stop_reason) == (None,) * 4
    assert failed.error == "api_error"
    assert (failed.compared_with, failed.n_shared) == (read.id, 1)


def test_equal_beginnings_are_stored_once(ledger: Ledger, path: Path) -> None:
    record(ledger, "a", "b", "c")
    record(ledger, "a", "b", "c", "d", session="other", project="/other", model="other")
    record(ledger, "a", "b", "x", "d")
    record(ledger, "b")

    assert n_sections_in(path) == len(["a", "ab", "abc", "abcd", "abx", "abxd", "b"])


def test_sections_are_read_as_they_were_written(ledger: Ledger, path: Path) -> None:
    texts = ("a", "é" * 700, "", "long " * 300)
    row = record(ledger, *texts)
    assert row.id is not None
    with History(path) as history:
        assert history.sections(row.id) == list(sections(*texts))


def test_a_prompt_without_sections_is_recorded_too(ledger: Ledger, path: Path) -> None:
    first, second = record(ledger), record(ledger, "a")

    assert (first.n_sections, second.compared_with) == (0, None)
    with History(path) as history:
        assert history.sections(1) == []


def test_the_newest_thousand_are_in_memory() -> None:
    ledger = Ledger(None)
    rows = [turn_row(f"req_{n}") for n in range(1200)]
    for start in range(0, 1200, 400):  # as many as may wait
        for row in rows[start : start + 400]:
            ledger.add(row, lazily("a"))
        ledger.flush()

    assert [row.request_id for row in ledger.recent] == [f"req_{n}" for n in range(200, 1200)]
    assert ledger.n_lost == 0
    ledger.close()


def test_closing_writes_what_waits(ledger: Ledger, path: Path) -> None:
    for n in range(100):
        ledger.add(turn_row(f"req_{n}"), lazily("a", str(n)))
    ledger.close()
    ledger.close()

    assert [row.request_id for row in recorded(path)] == [f"req_{n}" for n in range(100)]


def test_a_turn_that_is_too_much_to_write_is_in_memory_all_the_same(ledger: Ledger) -> None:
    may_end = threading.Event()
    ledger.put(lambda _: assert_set(may_end))
    while not ledger.n_lost:
        ledger.add(turn_row("req_waits"), lazily("a"))
    assert [row.request_id for row in ledger.recent] == ["req_waits"]
    may_end.set()
    ledger.flush()

    assert WAITING <= len(ledger.recent) <= WAITING + 2
    assert ledger.n_lost == 1


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_digests_are_made_by_the_writer(ledger: Ledger) -> None:
    where: list[int] = []

    def slowly() -> tuple[()]:
        where.append(threading.get_ident())
        return ()

    ledger.add(turn_row(), slowly)
    ledger.flush()

    assert len(where) == 1
    assert where != [threading.get_ident()]


def test_a_turn_whose_sections_cannot_be_made_is_lost_alone(ledger: Ledger, path: Path) -> None:
    ledger.add(turn_row("req_bad"), lambda: sections(str(1 // 0)))
    record(ledger, "a", request_id="req_good")

    assert [row.request_id for row in recorded(path)] == ["req_good"]
    assert [row.request_id for row in ledger.recent] == ["req_bad", "req_good"]
    assert ledger.n_lost == 1


def test_old_turns_are_forgotten_with_the_sections_that_only_they_had(path: Path) -> None:
    ledger = Ledger(path)
    record(ledger, "a", "b", "old", started_at=1.0)
    record(ledger, "gone", "too", started_at=2.0)
    kept = record(ledger, "a", "b", "new", started_at=4e9)
    ledger.put(lambda connection: _insert_heads(connection, {"old": 1.0, "new": 4e9}))
    ledger.close()
    again = forgetting(path)
    heads = [row["session"] for row in again.read("SELECT session FROM head")]
    again.close()

    assert recorded(path) == [kept]
    assert n_sections_in(path) == len(["a", "ab", "ab new"])
    assert heads == ["new"]
    with History(path) as history:
        assert history.sections(3) == list(sections("a", "b", "new"))


def _insert_heads(connection: sqlite3.Connection, used_at: dict[str, float]) -> None:
    for session, at in used_at.items():
        connection.execute("INSERT INTO head VALUES (?, '', '', '', '', ?, '')", (session, at))


def test_nothing_young_is_forgotten(path: Path) -> None:
    ledger = Ledger(path)
    kept = record(ledger, "a", "b", started_at=4e9)
    ledger.close()
    forgetting(path).close()

    assert recorded(path) == [kept]
    assert n_sections_in(path) == 2


def test_a_number_is_never_given_twice(path: Path) -> None:
    ledger = Ledger(path)
    record(ledger, "a", started_at=1.0)
    ledger.close()
    again = forgetting(path)

    assert record(again, "a", started_at=4e9).id == 2
    again.close()


@pytest.mark.parametrize("what", ["link", "newer"])
def test_a_file_that_is_not_ours_to_write_is_left_alone_and_everything_works(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = path.with_name("elsewhere")
    if what == "link":
        path.symlink_to(elsewhere)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 1000")
        connection.close()
    before = path.lstat()
    ledger = Ledger(path)
    first = record(ledger, "a")

    assert record(ledger, "a", "b").compared_with == first.id
    assert (path.lstat().st_size, path.lstat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not elsewhere.exists()
    (said,) = (each.getMessage() for each in caplog.records)
    assert said.startswith("turns are kept in memory only, because ")
    assert ("is a link" if what == "link" else "a newer anyclaude") in said
    ledger.close()


def test_without_a_file_everything_works_and_is_forgotten() -> None:
    ledger = forgetting(None)
    first = record(ledger, "a", started_at=4e9)

    assert record(ledger, "a", "b").compared_with == first.id
    ledger.close()


def test_what_is_forgotten_is_not_compared_with(ledger: Ledger) -> None:
    record(ledger, "a", "b", started_at=1.0)
    ledger.forget(90)

    assert record(ledger, "a", "b", "c", started_at=4e9).compared_with is None
    assert ledger.n_lost == 0
