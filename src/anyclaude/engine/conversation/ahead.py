"""What prompts of a kind began with last: the ids that are worth having in memory before the next one is asked.

SQLite, on the thread of prompts. It only ever saves time: a file that cannot be used is done without, and said so once.
"""

import logging
import sqlite3
import time
from pathlib import Path

import numpy as np

from anyclaude.engine.text.tokens import Ids

_KEPT = 200
_SCHEMA = """
create table if not exists ahead (
    key text not null, fingerprint blob not null, ids blob not null, used_at real not null,
    primary key (key, fingerprint)
)
"""
log = logging.getLogger(__name__)


class Ahead:
    def __init__(self, path: Path) -> None:
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            self._give_up(error)

    def remember(self, key: str, fingerprint: bytes, ids: Ids) -> None:
        """The latest prompt of that kind takes the place of the one before."""
        row = (key, fingerprint, ids.astype("<u4").tobytes(), time.time())
        self._execute("insert or replace into ahead values (?, ?, ?, ?)", row)
        self._execute(
            "delete from ahead where rowid not in (select rowid from ahead order by used_at desc limit ?)", (_KEPT,)
        )

    def ids(self, key: str, fingerprint: bytes) -> Ids | None:
        found = self._execute("select ids from ahead where key = ? and fingerprint = ?", (key, fingerprint))
        return np.frombuffer(found[0][0], "<u4").astype(np.uint32) if found else None

    def clear(self) -> None:
        self._execute("delete from ahead", ())

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[tuple[bytes]]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: sqlite3.Error) -> None:
        log.warning("nothing is prepared ahead of the user: %s", error)
        self._connection = None
