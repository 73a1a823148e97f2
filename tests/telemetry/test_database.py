import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from anyclaude.errors import LedgerFailed
from anyclaude.telemetry import database
from anyclaude.telemetry.database import MIGRATIONS, Transaction, connect, open_to_write
from tests.telemetry.rows import digest_of, recorded, turn_row

VERSIONS = Path(__file__).parent / "versions"
GARBAGE = b"this was a database once\n" * 1000


@pytest.fixture
def careless_umask() -> Generator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        connection.close()


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.usefixtures("careless_umask")
def test_the_file_and_its_log_are_closed_to_others(path: Path) -> None:
    connection = open_to_write(path)
    connection.execute("INSERT INTO calibration VALUES ('', '', '', '')")

    assert modes(path.parent) == dict.fromkeys([f"ledger.sqlite3{end}" for end in ("", "-wal", "-shm")], 0o600)
    connection.close()


def test_a_file_that_was_open_to_others_is_closed_to_them(path: Path) -> None:
    open_to_write(path).close()
    path.chmod(0o644)
    connect(path).close()

    assert modes(path.parent) == {"ledger.sqlite3": 0o600}


@pytest.mark.parametrize("opens", [connect, open_to_write])
@pytest.mark.parametrize("leads_to", ["other", "nowhere"])
def test_a_link_in_its_place_is_refused(path: Path, opens: Callable[[Path], object], leads_to: str) -> None:
    other = path.with_name("other")
    other.write_bytes(b"mine")
    path.symlink_to(path.with_name(leads_to))

    with pytest.raises(LedgerFailed, match=r"ledger\.sqlite3 is a link"):
        opens(path)
    assert other.read_bytes() == b"mine"
    assert {each.name for each in path.parent.iterdir()} == {"ledger.sqlite3", "other"}


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()

    with pytest.raises(LedgerFailed, match="a link or a folder"):
        open_to_write(path)


def test_a_command_that_only_reads_makes_no_file(path: Path) -> None:
    with pytest.raises(LedgerFailed, match="cannot be read"):
        connect(path)
    assert list(path.parent.iterdir()) == []


def test_a_newer_versions_file_is_refused_and_left_as_it_is(path: Path) -> None:
    open_to_write(path).close()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE invention (a)")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = digest_of(path)

    for opens in (connect, open_to_write):
        with pytest.raises(LedgerFailed, match="was written by a newer anyclaude; update, or move it away"):
            opens(path)
    assert digest_of(path) == before
    assert [each.name for each in path.parent.iterdir()] == ["ledger.sqlite3"]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_what_each_version_wrote_is_still_read(path: Path, version: int) -> None:
    """`versions` holds what each released version wrote, as `sqlite3 ledger.sqlite3 .dump` prints it."""
    connection = sqlite3.connect(path)
    connection.executescript((VERSIONS / f"{version}.sql").read_text())
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()

    assert recorded(path) == [
        turn_row("req_1", id=1, n_characters=11, n_sections=2),
        turn_row("req_2", id=2, n_characters=20, n_sections=3, n_shared=2, compared_with=1),
    ]
    assert version_of(path) == len(MIGRATIONS)


def test_a_migration_keeps_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = open_to_write(path)
    connection.execute("INSERT INTO calibration VALUES ('vllm', 'http://one', 'm', 'learned')")
    connection.close()
    more = "ALTER TABLE calibration ADD COLUMN colour TEXT DEFAULT 'red'; CREATE TABLE invention (a)"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, more))
    connection = open_to_write(path)

    assert [tuple(row) for row in connection.execute("SELECT model, state, colour FROM calibration")] == [
        ("m", "learned", "red")
    ]
    assert connection.execute("SELECT * FROM invention").fetchall() == []
    connection.close()
    assert version_of(path) == len(MIGRATIONS) + 1


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_write(path).close()
    with monkeypatch.context() as changed:
        changed.setattr(database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE invention (a); nonsense"))
        with pytest.raises(LedgerFailed, match="syntax error"):
            connect(path)
    connection = connect(path)

    assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'invention'").fetchall() == []
    connection.close()


def test_a_damaged_file_is_kept_under_another_name(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(GARBAGE)
    open_to_write(path).close()
    kept = path.with_name("ledger.sqlite3.damaged-1")

    assert kept.read_bytes() == GARBAGE
    assert recorded(path) == []
    assert f"it is kept as {kept.name}" in caplog.text


def test_a_second_damaged_file_does_not_take_the_place_of_the_first(path: Path) -> None:
    for content in (GARBAGE, GARBAGE * 2):
        path.write_bytes(content)
        open_to_write(path).close()

    assert path.with_name("ledger.sqlite3.damaged-1").read_bytes() == GARBAGE
    assert path.with_name("ledger.sqlite3.damaged-2").read_bytes() == GARBAGE * 2


def test_the_log_of_a_damaged_file_goes_with_it(path: Path) -> None:
    other = open_to_write(path)  # as long as it is open, there is a log
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(GARBAGE)
    again = open_to_write(path)
    again.execute("INSERT INTO calibration VALUES ('', '', '', '')")

    assert path.with_name("ledger.sqlite3.damaged-1-wal").exists()
    again.close()
    other.close()
    connection = connect(path)
    assert len(connection.execute("SELECT * FROM calibration").fetchall()) == 1
    connection.close()


def test_a_command_that_only_reads_leaves_a_damaged_file_where_it_is(path: Path) -> None:
    path.write_bytes(GARBAGE)

    with pytest.raises(LedgerFailed, match="is damaged; the next gateway"):
        connect(path)
    assert path.read_bytes() == GARBAGE
    assert [each.name for each in path.parent.iterdir()] == ["ledger.sqlite3"]


def test_a_suspect_file_that_is_whole_stays(path: Path) -> None:
    open_to_write(path).close()
    open_to_write(path, is_suspect=True).close()

    assert [each.name for each in path.parent.iterdir()] == ["ledger.sqlite3"]


def test_a_suspect_file_is_read_to_its_last_page(path: Path) -> None:
    connection = open_to_write(path)
    connection.executemany("INSERT INTO calibration VALUES ('', '', ?, ?)", [(str(n), b"x" * 900) for n in range(100)])
    connection.close()
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096
    path.write_bytes(data)
    connect(path).close()  # which reads its first page only
    open_to_write(path, is_suspect=True).close()

    assert path.with_name("ledger.sqlite3.damaged-1").read_bytes() == data


def test_a_transaction_whose_end_fails_leaves_nothing_behind(path: Path) -> None:
    """Without a log, which some file systems do not allow, a reader keeps a COMMIT from happening."""
    writer, reader = (sqlite3.connect(path, isolation_level=None, timeout=0) for _ in range(2))
    writer.execute("CREATE TABLE word (a)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM word").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"), Transaction(writer):
        writer.execute("INSERT INTO word VALUES ('lost')")
    reader.execute("COMMIT")
    with Transaction(writer):
        writer.execute("INSERT INTO word VALUES ('kept')")

    assert reader.execute("SELECT * FROM word").fetchall() == [("kept",)]
    writer.close()
    reader.close()


# Six processes wait for one moment, then open the same file and write a row each; a new file in every round.
_AT_ONCE = """
import os, sys, time
from pathlib import Path
from anyclaude.telemetry.database import open_to_write

def begin(path, at):
    while time.time() < at:
        pass
    open_to_write(path).execute("INSERT INTO calibration VALUES (?, '', '', '')", (str(os.getpid()),))

for n in range(int(sys.argv[2])):
    path = Path(sys.argv[1]) / f"ledger-{n}.sqlite3"
    if sys.argv[3]:
        path.write_text(sys.argv[3] * 1000)
    at, children = time.time() + 0.02, []
    for _ in range(6):
        if child := os.fork():
            children.append(child)
        else:
            begin(path, at)
            os._exit(0)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""


def open_at_once(folder: Path, n_rounds: int, content: str = "") -> list[int]:
    """How many rows each round's file has in the end."""
    command = [sys.executable, "-c", _AT_ONCE, str(folder), str(n_rounds), content]
    subprocess.run(command, check=True, timeout=120)
    found: list[int] = []
    for n in range(n_rounds):
        connection = connect(folder / f"ledger-{n}.sqlite3")
        found.append(connection.execute("SELECT count(*) FROM calibration").fetchone()[0])
        connection.close()
    return found


def test_processes_that_make_the_file_at_the_same_moment_all_write_to_it(tmp_path: Path) -> None:
    assert open_at_once(tmp_path, 60) == [6] * 60


def test_processes_that_find_the_damage_at_the_same_moment_set_it_aside_once(tmp_path: Path) -> None:
    found = open_at_once(tmp_path, 40, "damaged")
    kept = sorted(path.name for path in tmp_path.iterdir() if ".damaged-" in path.name)

    assert found == [6] * 40
    assert kept == sorted(f"ledger-{n}.sqlite3.damaged-1" for n in range(40))
