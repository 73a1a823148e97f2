"""The ledger beside other processes, on disks that fail, and in files that are damaged."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anyclaude.telemetry import database
from anyclaude.telemetry.history import History
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import forgetting, lazily, record, recorded, sections, turn_row

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
PAGE_BYTES = 4096


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Another connection holds the file for itself."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def running(script: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that knows tests.telemetry.rows."""
    known = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    command = [sys.executable, "-c", known + script, str(path), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_request_does_not_wait_while_another_process_holds_the_file(path: Path) -> None:
    ledger = Ledger(path)
    with locked(path):
        ledger.add(turn_row(), lazily("a"))
        assert list(ledger.recent) == []  # it came back before the row was written or lost
    ledger.flush()

    assert [row.id for row in recorded(path)] == [1]
    assert ledger.n_lost == 0
    ledger.close()


def test_a_file_that_is_locked_for_too_long_costs_rows_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    ledger = Ledger(path)
    with locked(path):
        lost = [record(ledger, "a", str(n), request_id=f"req_lost_{n}") for n in range(3)]
    record(ledger, "a", "b", request_id="req_kept")

    assert ledger.n_lost == 3
    assert [row.id for row in lost] == [None] * 3
    assert [row.request_id for row in recorded(path)] == ["req_kept"]
    assert [each.getMessage() for each in caplog.records] == [
        f"the ledger {path} cannot be written: database is locked"
    ]
    ledger.close()


def test_what_was_rolled_back_is_not_compared_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    ledger = Ledger(path)
    kept = record(ledger, "a")
    with locked(path):
        record(ledger, "a", "b")
    found = record(ledger, "a", "b", "c")

    assert (found.compared_with, found.n_shared) == (kept.id, 1)
    with History(path) as history:
        assert history.sections(2) == list(sections("a", "b", "c"))
    ledger.close()


_FULL_DISK = """
import logging, resource
from pathlib import Path
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import record

logging.basicConfig(stream=sys.stdout, format="%(message)s")
path = Path(sys.argv[1])
ledger = Ledger(path)
record(ledger, "a", request_id="req_before")
full = max(each.stat().st_size for each in path.parent.iterdir()) + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
n = 0
while ledger.n_lost < 5:
    n += 1
    record(ledger, "a", *(f"{n} {k}" for k in range(50)), request_id=f"req_{n}")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record(ledger, "a", "b", request_id="req_after")
assert ledger.n_lost == 5
ledger.close()
"""


def test_a_full_disk_costs_rows_and_nothing_else(path: Path) -> None:
    process = running(_FULL_DISK, path)
    printed, failed = process.communicate(timeout=LIMIT_S)
    rows = recorded(path)

    assert (process.returncode, failed) == (0, "")
    assert printed.count("cannot be written") == 1
    assert (rows[0].request_id, rows[-1].request_id) == ("req_before", "req_after")
    assert (rows[-1].n_shared, rows[-1].compared_with) == (1, rows[-2].id)
    assert_is_whole(path)


_WRITES_ON = """
from pathlib import Path
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import record

ledger = Ledger(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    row = record(ledger, *(f"{sys.argv[2]} {k}" for k in range(n % 40)), request_id=f"req_{sys.argv[2]}_{n}")
    print(row.request_id, flush=True)
"""


def test_whenever_a_writer_is_killed_what_it_had_written_is_there(path: Path) -> None:
    told: list[str] = []
    for n in range(8):
        process = running(_WRITES_ON, path, str(n))
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(5 + 13 * n)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=LIMIT_S)
        told += rest.split()
        assert_is_whole(path)
        assert set(told) <= {row.request_id for row in recorded(path)}


def assert_is_whole(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    with History(path) as history:
        assert {len(history.sections(row.id or 0)) == row.n_sections for row in history.turns()} == {True}
    assert not list(path.parent.glob("*.damaged*"))


_WRITES_HUNDRED = """
from pathlib import Path
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import record

ledger = Ledger(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
for n in range(100):
    record(ledger, *(str(k) for k in range(n)), request_id=f"req_{sys.argv[2]}_{n}", session=sys.argv[2])
ledger.close()
assert ledger.n_lost == 0
"""


def test_two_processes_write_to_one_ledger(path: Path) -> None:
    writers = [running(_WRITES_HUNDRED, path, name) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [(writer.communicate(timeout=LIMIT_S)[1], writer.returncode) for writer in writers] == [("", 0)] * 2

    rows = recorded(path)
    assert [row.id for row in rows] == list(range(1, 201))
    assert {row.request_id for row in rows} == {f"req_{name}_{n}" for name in ("one", "two") for n in range(100)}
    assert_is_whole(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM section").fetchone() == (99,)
    connection.close()


def test_a_turn_is_compared_with_what_another_process_recorded(path: Path) -> None:
    one, other = Ledger(path), Ledger(path)
    record(one, "a")
    record(other, "a", "b")
    third = record(one, "a", "b", "c")
    fourth = record(other, "a", "b", "c", "d")

    assert [(row.id, row.compared_with, row.n_shared) for row in (third, fourth)] == [(3, 2, 2), (4, 3, 3)]
    one.close()
    other.close()


def test_sections_that_another_process_forgot_are_written_again(path: Path) -> None:
    one = Ledger(path)
    record(one, "a", "b", started_at=1.0)
    forgetting(path).close()
    found = record(one, "a", "b", "c", started_at=4e9)

    assert (found.id, found.compared_with) == (2, None)
    with History(path) as history:
        assert history.sections(2) == list(sections("a", "b", "c"))
    one.close()


def filled(path: Path) -> bytearray:
    """A ledger of fifty turns that is closed, as bytes."""
    ledger = Ledger(path)
    for n in range(50):
        texts = [f"{k} {'word ' * 200}" for k in range(n)]
        record(ledger, *texts, session=str(n % 3), started_at=1.0 if n % 2 else 4e9)
    ledger.put(lambda connection: connection.execute("INSERT INTO head VALUES ('', '', '', '', '', 0, '')") and None)
    ledger.close()
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("with_what", [b"\xff", b"\x00", b"\x0d"])
def test_whatever_page_is_damaged_the_next_turn_is_recorded_and_nothing_is_deleted(
    path: Path, with_what: bytes
) -> None:
    whole, n_set_aside = filled(path), 0
    for page in range(len(whole) // PAGE_BYTES):
        for each in path.parent.iterdir():
            each.unlink()
        data = whole.copy()
        data[page * PAGE_BYTES + 100 : (page + 1) * PAGE_BYTES] = with_what * (PAGE_BYTES - 100)
        path.write_bytes(data)
        ledger = forgetting(path)
        ledger.read("SELECT * FROM head")
        found = record(ledger, "hello", request_id="req_new", started_at=4e9)
        ledger.close()

        connection = sqlite3.connect(path)
        assert connection.execute("SELECT request_id FROM turn WHERE id = ?", (found.id,)).fetchall() == [("req_new",)]
        connection.close()
        assert ledger.n_lost == 0
        for kept in path.parent.glob("*.damaged-*"):
            n_set_aside += 1
            assert len(kept.read_bytes()) == len(data)
    assert n_set_aside


def test_damage_that_is_found_while_writing_begins_a_new_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = filled(path)
    ledger = Ledger(path)
    whole[PAGE_BYTES:] = b"\xff" * (len(whole) - PAGE_BYTES)
    path.write_bytes(whole)
    first, second = record(ledger, "a"), record(ledger, "a", "b")
    ledger.close()

    assert recorded(path) == [first, second]
    assert (first.id, second.id, second.compared_with) == (1, 2, 1)
    assert path.with_name("ledger.sqlite3.damaged-1").read_bytes() == whole
    assert ledger.n_lost == 0
    assert "a new one begins" in caplog.text


def test_a_disk_that_refuses_the_file_does_not_keep_the_ledger_from_working(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = forgetting(path / "missing" / "ledger.sqlite3")
    first = record(ledger, "a", started_at=4e9)

    assert record(ledger, "a", "b").compared_with == first.id
    assert "turns are kept in memory only" in caplog.text
    ledger.close()
