"""The SQLite file of committed turns: ours, 0600, of this version and sound, or none.

A file that cannot be read is set aside under another name; it is never deleted.
"""

import contextlib
import logging
import os
import sqlite3
import stat
from collections.abc import Generator
from pathlib import Path

_VERSION = 1
_BUSY_S = 0.2
_SCHEMA = """
CREATE TABLE root (key BLOB PRIMARY KEY, used REAL NOT NULL);
CREATE TABLE node (
    key BLOB PRIMARY KEY, parent BLOB, root BLOB NOT NULL, ids BLOB NOT NULL, day TEXT NOT NULL,
    head_end INTEGER NOT NULL, is_open INTEGER NOT NULL, digest BLOB NOT NULL, checksum BLOB NOT NULL
);
CREATE INDEX node_root ON node (root);
CREATE TABLE name (name BLOB PRIMARY KEY, key BLOB NOT NULL, root BLOB NOT NULL);
CREATE INDEX name_root ON name (root);
CREATE TABLE ahead (name BLOB PRIMARY KEY, ids BLOB NOT NULL, used REAL NOT NULL, checksum BLOB NOT NULL);
"""
log = logging.getLogger(__name__)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Generator[None]:
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def open_turns(path: Path) -> sqlite3.Connection | None:
    """None where there can be no file of ours. One that is damaged, or of another version, is set aside."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            if not _is_ours(path):
                log.warning("%s is not a file of our own: committed turns are not kept", path)
                return None
            if (db := _connected(path)) is not None:
                return db
            _set_aside(path)
    except (OSError, sqlite3.Error) as error:
        log.warning("committed turns are not kept: %s", error)
    return None


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()


def _connected(path: Path) -> sqlite3.Connection | None:
    """None where the file is damaged or of another version. Raises sqlite3.Error."""
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        is_sound = db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        if version in (0, _VERSION) and is_sound:
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                db.execute(f"PRAGMA {pragma}")
            with transaction(db):
                if not db.execute("PRAGMA user_version").fetchone()[0]:
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {_VERSION}")
            return db
    except sqlite3.DatabaseError as error:
        db.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        return None
    db.close()
    return None


def _set_aside(path: Path) -> None:
    log.warning("%s is damaged, or another version's: it is kept as %s.damaged", path, path.name)
    path.replace(path.with_name(f"{path.name}.damaged"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
