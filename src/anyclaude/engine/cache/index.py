"""The index of a store's folder: what each file is, without opening it. SQLite, made again from the files when it is
lost, damaged or another version's: nothing is in it only."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from anyclaude.engine.cache.seam import RequestClass, Stored

VERSION = 1
BUSY_S = 2.0
log = logging.getLogger(__name__)

_TABLES = f"""
    CREATE TABLE file (
        name BLOB PRIMARY KEY,
        kind TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        parent BLOB NOT NULL,
        ids BLOB NOT NULL,
        start INTEGER NOT NULL,
        n_bytes INTEGER NOT NULL,
        request_class TEXT NOT NULL,
        used_at REAL NOT NULL,
        size INTEGER NOT NULL,
        model TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE day (number INTEGER PRIMARY KEY, written INTEGER NOT NULL);
    PRAGMA user_version = {VERSION};
"""
_COLUMNS = "name, kind, fingerprint, parent, ids, start, n_bytes, request_class, used_at, size, model"


class File(Struct, frozen=True):
    """`size` is the file's."""

    entry: Stored
    size: int
    model: str


class Index:
    """Used by one thread at a time. Raises sqlite3.Error for what the disk says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection, self.files = self._opened()

    def written_on(self, day: int) -> int:
        found = self._connection.execute("SELECT written FROM day WHERE number = ?", (day,)).fetchone()
        return found[0] if found else 0

    def change(
        self,
        added: Iterable[File],
        removed: Iterable[bytes],
        used: Iterable[tuple[bytes, RequestClass, float]],
        day: tuple[int, int],
    ) -> None:
        """All of it or nothing. `day` is a day and what was written on it so far."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM file WHERE name = ?", [(name,) for name in removed])
            marks = ", ".join("?" * 11)
            connection.executemany(f"INSERT OR REPLACE INTO file ({_COLUMNS}) VALUES ({marks})", map(_row, added))  # noqa: S608
            connection.executemany(
                "UPDATE file SET request_class = ?, used_at = ? WHERE name = ?",
                [(request_class, used_at, name) for name, request_class, used_at in used],
            )
            connection.execute("INSERT OR REPLACE INTO day VALUES (?, ?)", day)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _opened(self) -> tuple[sqlite3.Connection, list[File]]:
        """And all that is in it."""
        try:
            return _connected(self._path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not isinstance(error, _Unknown):
                raise
            log.warning("the index %s is damaged or another version's: it is made again from the files", self._path)
        for suffix in ("-wal", "-shm", ""):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        return _connected(self._path)


class _Unknown(sqlite3.OperationalError):
    """Its tables are not ours."""


def read_files(path: Path) -> list[File]:
    """Of a folder that another process writes. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    try:
        return list(_files(connection))
    finally:
        connection.close()


def _connected(path: Path) -> tuple[sqlite3.Connection, list[File]]:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))  # SQLite gives its log the same mode
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(_TABLES)
        elif version != VERSION:
            raise _Unknown(f"version {version}")
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _Unknown("damaged")
        return connection, list(_files(connection))
    except BaseException:
        connection.close()
        raise


def _files(connection: sqlite3.Connection) -> Iterator[File]:
    """A row that makes no sense is as good as none."""
    for *entry, size, model in connection.execute(f"SELECT {_COLUMNS} FROM file"):  # noqa: S608
        with suppress(msgspec.ValidationError):
            fields = dict(zip(Stored.__struct_fields__, entry, strict=True))
            yield msgspec.convert({"entry": fields, "size": size, "model": model}, File)


def _row(file: File) -> tuple[object, ...]:
    entry = file.entry
    return (
        entry.name,
        entry.kind,
        entry.fingerprint,
        entry.parent,
        entry.ids,
        entry.start,
        entry.n_bytes,
        entry.request_class,
        entry.used_at,
        file.size,
        file.model,
    )
