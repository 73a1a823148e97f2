"""The ledger's file: SQLite with a write-ahead log, 0600, migrated when it is opened.

A file that SQLite cannot read is set aside under another name; it is never deleted.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Generator
from pathlib import Path

from anyclaude.errors import LedgerFailed

BUSY_S = 5.0
log = logging.getLogger(__name__)

# Each entry leads to the next version; what was released is never edited, only added to.
MIGRATIONS = (
    """
    CREATE TABLE section (
        id INTEGER PRIMARY KEY,
        parent INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        n_characters INTEGER NOT NULL,
        digest BLOB NOT NULL,
        marks BLOB NOT NULL,
        UNIQUE (parent, digest)
    );
    CREATE TABLE turn (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        request_id TEXT NOT NULL,
        started_at REAL NOT NULL,
        launch TEXT NOT NULL,
        session TEXT NOT NULL,
        agent TEXT,
        request_class TEXT,
        entrypoint TEXT,
        project TEXT NOT NULL,
        backend TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        tokens_prompt INTEGER,
        tokens_cached INTEGER,
        tokens_prefilled INTEGER,
        tokens_out INTEGER,
        ttft_s REAL,
        duration_s REAL NOT NULL,
        stop_reason TEXT,
        tool_calls INTEGER NOT NULL,
        repairs INTEGER NOT NULL,
        error TEXT,
        n_characters INTEGER NOT NULL,
        n_sections INTEGER NOT NULL,
        n_shared INTEGER NOT NULL,
        compared_with INTEGER,
        leaf INTEGER NOT NULL
    );
    CREATE INDEX turn_by_session ON turn (session, agent, id);
    CREATE INDEX turn_by_project ON turn (project, id);
    CREATE INDEX turn_by_time ON turn (started_at);
    CREATE TABLE head (
        session TEXT NOT NULL,
        agent TEXT NOT NULL,
        entrypoint TEXT NOT NULL,
        project TEXT NOT NULL,
        origin TEXT NOT NULL,
        used_at REAL NOT NULL,
        heads BLOB NOT NULL,
        PRIMARY KEY (session, agent, entrypoint)
    );
    CREATE TABLE calibration (
        backend TEXT NOT NULL,
        base_url TEXT NOT NULL,
        model TEXT NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (backend, base_url, model)
    );
    """,
)


class Transaction:
    """All of its block or nothing, whatever fails: also a COMMIT, and what SQLite has rolled back by itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the newest schema, for a command that reads. May be used by one thread at a time.

    Raises LedgerFailed where there is no file or it cannot be read, is not ours, or belongs to a newer anyclaude.
    """
    try:
        with _alone(path.parent):
            _check(path)
            return _opened(path)
    except (sqlite3.Error, OSError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> LedgerFailed:
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return LedgerFailed(f"the ledger {path} is damaged; the next gateway that starts keeps it beside a new one")
    return LedgerFailed(f"the ledger {path} cannot be read: {error}")


def open_to_write(path: Path | None, *, is_suspect: bool = False) -> sqlite3.Connection:
    """As `connect`, for the one thread that writes: a missing file is made, a damaged one set aside, and what the disk
    says is raised as it is. None is a database in memory. A file that `is_suspect` is read whole first."""
    if path is None:
        return _opened(None)
    with _alone(path.parent):
        _create(path)
        try:
            return _opened(path, is_suspect=is_suspect)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        _set_aside(path)
        _create(path)
        return _opened(path)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's content is at fault, and not the disk, a lock or a limit."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Damaged) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Damaged(sqlite3.DatabaseError):
    """The file was read whole, and something in it cannot be."""


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One process at a time opens the file: the first of all makes its tables, the first to find it damaged sets it
    aside. Where a folder cannot be locked, or is for too long, nobody waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + BUSY_S
        while not _has_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _has_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems cannot
        pass
    return True


def _create(path: Path) -> None:
    """With 0600 from the start; SQLite gives its log the same mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    _check(path)


def _check(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise LedgerFailed(f"the ledger {path} is a link or a folder; move it away")
    if found.st_uid != os.getuid():
        raise LedgerFailed(f"the ledger {path} belongs to user {found.st_uid}, not to you; move it away")
    if found.st_mode & 0o077:
        path.chmod(0o600)


def _opened(path: Path | None, *, is_suspect: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as failed:
        failed.callback(connection.close)
        _version(connection, path)  # a newer version's file is not even given a log
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if is_suspect and (found := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise _Damaged(found)
        _migrate(connection, path)
        failed.pop_all()
    connection.row_factory = sqlite3.Row
    return connection


def _migrate(connection: sqlite3.Connection, path: Path | None) -> None:
    if _version(connection, path) == len(MIGRATIONS):
        return
    with Transaction(connection):
        for script in MIGRATIONS[_version(connection, path) :]:  # another process may have been quicker
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection, path: Path | None) -> int:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LedgerFailed(f"the ledger {path} was written by a newer anyclaude; update, or move it away")
    return version


def _set_aside(path: Path) -> None:
    """The log goes first: beside a new file it would be taken for that one's."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    log.warning("the ledger %s is damaged: it is kept as %s, and a new one begins", path, kept.name)
