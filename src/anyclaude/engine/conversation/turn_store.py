"""Committed turns on disk, so that a conversation reads the same after a restart. One SQLite file of ours, 0600.

Used by one thread. A file that is damaged or cannot be written costs what it held, never an answer: it is set aside, or
nothing is kept. Whole conversations are forgotten, least recently used first, past a budget and an age.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import date
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec import Struct

from anyclaude.engine.conversation.committed import Node
from anyclaude.engine.conversation.turn_file import open_turns, transaction
from anyclaude.engine.text.tokens import Ids

_BUDGET_BYTES = 256 << 20
_MAX_AGE_S = 30 * 86_400
_MAX_AHEAD = 64
_CHUNK = 500
_MAX_DEPTH = 100_000
_FIELDS = "key, parent, ids, day, head_end, is_open, digest, checksum"
Value = TypeVar("Value")
log = logging.getLogger(__name__)


class StoredNode(Struct, frozen=True):
    """A node without what it hangs on."""

    key: bytes
    parent: bytes | None
    ids: bytes
    day: str
    head_end: int
    is_open: int
    digest: bytes

    @property
    def checksum(self) -> bytes:
        parts = (self.key, self.parent or b"", self.ids, self.day.encode(), self.digest)
        numbers = f"{self.head_end} {self.is_open} {[len(part) for part in parts]}"
        return blake2b(b"".join(parts) + numbers.encode(), digest_size=16).digest()

    def node(self, parent: Node | None) -> Node:
        return Node(
            key=self.key,
            parent=parent,
            ids=np.frombuffer(self.ids, "<u4").astype(np.uint32),
            day=date.fromisoformat(self.day),
            head_end=self.head_end,
            is_open=bool(self.is_open),
            digest=self.digest,
            is_saved=True,
        )


class Statistics(Struct, frozen=True):
    nbytes: int
    n_failed: int
    is_kept: bool


class TurnStore:
    """`path` None keeps nothing."""

    def __init__(
        self,
        path: Path | None,
        *,
        budget_bytes: int = _BUDGET_BYTES,
        max_age_s: float = _MAX_AGE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._budget = budget_bytes
        self._max_age = max_age_s
        self._clock = clock
        self._nbytes = 0
        self._n_failed = 0
        self._db = open_turns(path) if path is not None else None
        self._nbytes = self._try(_size, 0)
        self._try(self._prune, None)

    def path(self, keys: Sequence[bytes]) -> list[StoredNode]:
        """The node of the last key that is known, after all that it hangs on; empty where none is."""
        return self._try(lambda db: _up_from(db, _last_known(db, keys)), [])

    def named(self, names: Sequence[bytes]) -> Node | None:
        """An answer by one of its names, without what it hangs on."""
        found = self._try(lambda db: _named(db, names), None)
        return found.node(None) if found else None

    def save(self, node: Node) -> None:
        """With all that it hangs on."""
        path = node.path()
        fresh = [each for each in path if not each.is_saved]
        if self._try(lambda db: self._write(db, path[0].key, fresh), False):
            for each in fresh:
                each.is_saved = True

    def remember_ahead(self, ahead: str, fingerprint: bytes, ids: Ids) -> None:
        """The newest prompt of its kind; few are kept."""
        name, data = _ahead_name(ahead, fingerprint), ids.astype("<u4").tobytes()

        def write(db: sqlite3.Connection) -> None:
            row = (name, data, self._clock(), _digest(name, data))
            db.execute("INSERT OR REPLACE INTO ahead VALUES (?, ?, ?, ?)", row)
            db.execute(
                "DELETE FROM ahead WHERE name NOT IN (SELECT name FROM ahead ORDER BY used DESC LIMIT ?)", [_MAX_AHEAD]
            )

        self._try(write, None)

    def ahead(self, ahead: str, fingerprint: bytes) -> Ids | None:
        name = _ahead_name(ahead, fingerprint)
        row = self._try(
            lambda db: db.execute("SELECT ids, checksum FROM ahead WHERE name = ?", [name]).fetchone(), None
        )
        return np.frombuffer(row[0], "<u4").astype(np.uint32) if row and _digest(name, row[0]) == row[1] else None

    def clear(self) -> None:
        def empty(db: sqlite3.Connection) -> None:
            for table in ("node", "name", "root", "ahead"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 (names of ours)
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        self._try(empty, None)
        self._nbytes = 0

    def statistics(self) -> Statistics:
        return Statistics(self._nbytes, self._n_failed, is_kept=self._db is not None)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _write(self, db: sqlite3.Connection, root: bytes, nodes: Sequence[Node]) -> bool:
        with transaction(db):
            db.execute("INSERT OR REPLACE INTO root VALUES (?, ?)", (root, self._clock()))
            for node in nodes:
                row = _row(node)
                db.execute(
                    "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (row.key, row.parent, root, row.ids, row.day, row.head_end, row.is_open, row.digest, row.checksum),
                )
                for name in node.names:
                    db.execute("INSERT OR REPLACE INTO name VALUES (?, ?, ?)", (name, node.key, root))
        self._nbytes += sum(len(node.ids) * 4 for node in nodes)
        if self._nbytes > self._budget:
            self._prune(db)
        return True

    def _prune(self, db: sqlite3.Connection) -> None:
        """Whole conversations: a part of one is of no use."""
        with transaction(db):
            self._forget(db, "used < ?", self._clock() - self._max_age)
            self._nbytes = _size(db)
            while self._nbytes > self._budget * 9 // 10:
                self._forget(db, "key = (SELECT key FROM root ORDER BY used LIMIT ?)", 1)
                self._nbytes = _size(db)

    @staticmethod
    def _forget(db: sqlite3.Connection, condition: str, value: float) -> None:
        roots = [row[0] for row in db.execute(f"SELECT key FROM root WHERE {condition}", [value])]  # noqa: S608
        for root in roots:
            for statement in (
                "DELETE FROM node WHERE root = ?",
                "DELETE FROM name WHERE root = ?",
                "DELETE FROM root WHERE key = ?",
            ):
                db.execute(statement, [root])

    def _try(self, work: Callable[[sqlite3.Connection], Value], instead: Value) -> Value:
        """Generation goes on whatever the disk says."""
        if self._db is None:
            return instead
        try:
            return work(self._db)
        except sqlite3.Error as error:
            self._n_failed += 1
            if self._n_failed == 1:
                log.warning("committed turns cannot be kept: %s", error)
            return instead


def _row(node: Node) -> StoredNode:
    parent = node.parent.key if node.parent else None
    ids = node.ids.astype("<u4").tobytes()
    return StoredNode(node.key, parent, ids, node.day.isoformat(), node.head_end, int(node.is_open), node.digest)


def _last_known(db: sqlite3.Connection, keys: Sequence[bytes]) -> bytes | None:
    for start in range(len(keys), 0, -_CHUNK):
        chunk = keys[max(start - _CHUNK, 0) : start]
        marks = ", ".join("?" * len(chunk))
        known = {row[0] for row in db.execute(f"SELECT key FROM node WHERE key IN ({marks})", chunk)}  # noqa: S608
        if known:
            return next(key for key in reversed(chunk) if key in known)
    return None


def _up_from(db: sqlite3.Connection, key: bytes | None) -> list[StoredNode]:
    """From the root down; empty where a link is missing or damaged."""
    found: list[StoredNode] = []
    while key is not None:
        node = _read(db, key)
        if node is None or len(found) > _MAX_DEPTH:
            return []
        found.append(node)
        key = node.parent
    return found[::-1]


def _read(db: sqlite3.Connection, key: bytes) -> StoredNode | None:
    row = db.execute(f"SELECT {_FIELDS} FROM node WHERE key = ?", [key]).fetchone()  # noqa: S608
    if row is None:
        return None
    node = StoredNode(*row[:-1])
    return node if node.checksum == row[-1] else None


def _named(db: sqlite3.Connection, names: Sequence[bytes]) -> StoredNode | None:
    for name in names:
        row = db.execute("SELECT key FROM name WHERE name = ?", [name]).fetchone()
        if row is not None and (node := _read(db, row[0])) is not None:
            return node
    return None


def _size(db: sqlite3.Connection) -> int:
    return db.execute("SELECT coalesce(sum(length(ids)), 0) FROM node").fetchone()[0]


def _ahead_name(ahead: str, fingerprint: bytes) -> bytes:
    return sha256(fingerprint + ahead.encode("utf-8", "replace")).digest()


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=16).digest()
