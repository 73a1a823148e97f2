import sqlite3
from collections.abc import Generator
from pathlib import Path

import pytest

from anyclaude.errors import LedgerFailed
from anyclaude.telemetry.history import Filter, History
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import record, recorded, sections, turn_row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Five turns, in the order of their numbers."""
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    record(ledger, "a", request_id="req_one", started_at=10.0, session="ab-1", project="/p", model="m")
    record(ledger, "a", "b", request_id="req_two", started_at=20.0, session="ab-2", project="/p", model="n")
    record(ledger, "x", request_id="req_three", started_at=30.0, session="ab-1", project="/q", model="m", agent="h")
    record(ledger, "a", "c", request_id="req_four", started_at=40.0, session="a%", project="/p", model="m")
    record(ledger, "a", "d", request_id="req_five", started_at=50.0, session="ab-1", project="/p", model="n")
    ledger.close()
    return path


@pytest.fixture
def history(path: Path) -> Generator[History]:
    with History(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (Filter(), [1, 2, 3, 4, 5]),
        (Filter(since=30.0), [3, 4, 5]),
        (Filter(since=50.5), []),
        (Filter(session="ab-1"), [1, 3, 5]),
        (Filter(session="ab"), [1, 2, 3, 5]),
        (Filter(session="a%"), [4]),
        (Filter(session="b-1"), []),
        (Filter(session=""), [1, 2, 3, 4, 5]),
        (Filter(project="/p"), [1, 2, 4, 5]),
        (Filter(project="/"), []),
        (Filter(model="n"), [2, 5]),
        (Filter(since=20.0, session="ab-1", project="/p", model="n"), [5]),
        (Filter(session="'; DROP TABLE turn; --"), []),
    ],
)
def test_turns_are_chosen_by_time_session_project_and_model(history: History, chosen: Filter, ids: list[int]) -> None:
    assert [row.id for row in history.turns(chosen)] == ids


def test_the_newest_turns_come_oldest_first(history: History) -> None:
    assert [row.id for row in history.turns(newest=2)] == [4, 5]
    assert [row.id for row in history.turns(Filter(model="m"), newest=1)] == [4]
    assert history.turns(newest=0) == []


def test_a_turn_is_found_by_its_number(history: History) -> None:
    found = history.turn(2)
    assert found is not None
    assert found.request_id == "req_two"
    assert [history.turn(number) for number in (0, 6, -1, 1 << 80)] == [None] * 4


def test_a_turn_is_found_by_its_request_or_a_beginning_that_is_only_its_own(history: History) -> None:
    found = [history.turn_of_request(name) for name in ("req_three", "req_thr", "req_f", "req_%", "three")]

    assert [row.id if row else None for row in found] == [3, 3, None, None, None]


def test_sections_are_those_of_the_turns_own_prompt_in_order(history: History) -> None:
    assert history.sections(4) == list(sections("a", "c"))
    assert history.sections(5) == list(sections("a", "d"))
    assert [history.sections(number) for number in (0, 6, 1 << 80)] == [[]] * 3


def test_the_turn_before_is_the_sessions_and_the_agents_own(history: History) -> None:
    turns = {row.id: row for row in history.turns()}
    before = {number: history.turn_before(row) for number, row in turns.items()}

    assert before == {1: None, 2: None, 3: None, 4: None, 5: turns[1]}


def test_a_turn_alike_is_the_newest_that_the_same_server_read_for_that_project_and_class(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    alike = record(ledger, "a", session="one")
    for differs in (
        {"project": "/q"},
        {"model": "n"},
        {"base_url": "http://two"},
        {"request_class": "auxiliary"},
        {"agent": "helper"},
        {"error": "overloaded_error", "ttft_s": None},
    ):
        record(ledger, "a", session="one", **differs)
    record(ledger, session="one")
    last = record(ledger, "b", session="two")
    helper = record(ledger, "b", session="two", agent="other")
    ledger.close()
    with History(path) as history:
        assert history.turn_alike(last) == alike
        assert history.turn_alike(alike) is None
        found = history.turn_alike(helper)
        assert found is not None
        assert found.agent == "helper"


def test_a_compaction_is_seen_between_two_turns_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    kinds = ("main", "compaction", "main", "main")
    first, _, third, fourth = (record(ledger, "a", request_class=kind) for kind in kinds)
    other = record(ledger, "a", session="other")
    ledger.close()
    with History(path) as history:
        assert history.has_compaction(third, since=first)
        assert not history.has_compaction(fourth, since=third)
        assert not history.has_compaction(other, since=first)


def test_what_was_learned_of_a_model_is_found_by_server_and_name(path: Path) -> None:
    ledger = Ledger(path)
    ledger.put(lambda connection: _learn(connection))
    ledger.close()
    with History(path) as history:
        assert history.calibration(turn_row()) == b"learned"
        assert history.calibration(turn_row(model="other")) is None


def _learn(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO calibration VALUES ('vllm', 'http://one', 'm', ?)", (b"learned",))


def test_reading_does_not_wait_for_a_process_that_writes(path: Path) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("DELETE FROM turn")

    assert len(recorded(path)) == 5
    writer.execute("ROLLBACK")
    writer.close()


def test_damage_is_told_in_words_and_nothing_is_moved(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with History(path) as history, pytest.raises(LedgerFailed, match=r"ledger\.sqlite3 is damaged; the next gateway"):
        history.turns()

    assert [each.name for each in path.parent.iterdir()] == ["ledger.sqlite3"]
