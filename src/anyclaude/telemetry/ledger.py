"""The ledger: one row a turn, and its prompt's sections as digests and lengths. Written behind, by a thread of its own;
no request waits for it, and none fails with it: what cannot be written is lost, counted and logged once.

Sections are a tree: equal beginnings of prompts are stored once, and a turn points to its last section. The newest rows
are in memory too, for `status`.
"""

import logging
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import asdict, replace

from anyclaude.errors import LedgerFailed
from anyclaude.telemetry.branches import Branches, Match
from anyclaude.telemetry.database import Transaction, is_damage, open_to_write
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow
from anyclaude.telemetry.write_behind import WriteBehind

LEDGER_DAYS = 90.0  # older turns are forgotten
_KEPT = 1000
_PROTOCOL_WORD = re.compile(r"\w{1,40}", re.ASCII)
log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Ledger:
    """`path` None keeps everything in memory.

    A file that cannot be written, or is not ours to write, does not keep a server from starting: turns stay in memory,
    and the log says why.
    """

    def __init__(self, path: Path | None) -> None:
        self.recent: deque[TurnRow] = deque(maxlen=_KEPT)
        self._path = path
        self._branches = Branches()
        self._connection = _connected(path)
        self._behind = WriteBehind(f"the ledger {path}", at_end=lambda: self._connection.close())

    @property
    def n_lost(self) -> int:
        """Turns, and other things, that could not be written."""
        return self._behind.n_lost

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        """For what is needed at the start: it waits for the writer. Nothing where the file cannot be read."""
        found: list[sqlite3.Row] = []
        self._behind.put(lambda: found.extend(self._connection.execute(query, values).fetchall()))
        self.flush()
        return found

    def add(self, row: TurnRow, sections: Callable[[], Sequence[SectionRow]], n_bytes: int = 0) -> None:
        """Returns at once. `sections` is called by the writer, so that digests cost the request nothing; until then it
        keeps `n_bytes` of prompt in memory."""
        if not self._behind.put(lambda: self._record(row, sections), n_bytes):
            self.recent.append(row)

    def put(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Returns at once. `write` runs later, in a transaction of its own; a second time if the file was damaged. It
        leaves turns and sections alone."""
        self._behind.put(lambda: self._transact(write))

    def forget(self, days: float) -> None:
        """Returns at once. What is older goes, in its turn."""
        before = time.time() - days * 86400

        def forget(connection: sqlite3.Connection) -> None:
            prune(connection, before=before)
            self._branches = Branches()  # the old one may remember what is gone

        self.put(forget)

    def flush(self) -> None:
        """Returns when everything so far is written."""
        self._behind.flush()

    def close(self) -> None:
        """Writes what waits, for some seconds at most. Safe to call twice."""
        self._behind.close()

    def _transact(self, write: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            with Transaction(self._connection):
                return write(self._connection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error) or self._path is None:
                raise
        self._connection.close()
        self._connection, self._branches = _connected(self._path, is_suspect=True), Branches()
        with Transaction(self._connection):
            return write(self._connection)

    def _record(self, row: TurnRow, sections: Callable[[], Sequence[SectionRow]]) -> None:
        try:
            found = sections()
            digests = tuple(section.digest for section in found)
            row, ids = self._transact(lambda connection: self._written(connection, row, found, digests))
            self._branches.add(row, digests, ids)
        finally:
            self.recent.append(row)

    def _written(
        self, connection: sqlite3.Connection, row: TurnRow, sections: Sequence[SectionRow], digests: tuple[bytes, ...]
    ) -> tuple[TurnRow, tuple[int, ...]]:
        """The row as it now stands in the ledger, and the ids of its sections."""
        best = self._branches.best(connection, row, digests)
        ids = _stored(connection, sections, best)
        row = replace(
            row,
            n_characters=sum(section.n_characters for section in sections),
            n_sections=len(sections),
            n_shared=best.n_shared if best else 0,
            compared_with=best.turn if best else None,
        )
        columns = _columns(row) | {"leaf": ids[-1] if ids else 0}
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        cursor = connection.execute(f"INSERT INTO turn ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608
        return replace(row, id=cursor.lastrowid), ids


def _connected(path: Path | None, *, is_suspect: bool = False) -> sqlite3.Connection:
    try:
        return open_to_write(path, is_suspect=is_suspect)
    except (LedgerFailed, sqlite3.Error, OSError) as error:
        log.warning("turns are kept in memory only, because %s cannot be opened: %s", path, error)
        return open_to_write(None)


def _stored(connection: sqlite3.Connection, sections: Sequence[SectionRow], best: Match | None) -> tuple[int, ...]:
    """The ids of the sections in the tree; those that were not there are added."""
    ids = list(best.ids) if best else []
    is_known = True
    for section in sections[len(ids) :]:
        parent = ids[-1] if ids else 0
        found = _child(connection, parent, section.digest) if is_known else None
        is_known = found is not None  # what was just added has no children yet
        ids.append(_added(connection, parent, section) if found is None else found)
    return tuple(ids)


def _child(connection: sqlite3.Connection, parent: int, digest: bytes) -> int | None:
    found = connection.execute("SELECT id FROM section WHERE parent = ? AND digest = ?", (parent, digest)).fetchone()
    return None if found is None else found[0]


def _added(connection: sqlite3.Connection, parent: int, section: SectionRow) -> int:
    cursor = connection.execute(
        "INSERT INTO section (parent, kind, name, n_characters, digest, marks) VALUES (?, ?, ?, ?, ?, ?)",
        (parent, section.kind, section.name, section.n_characters, section.digest, section.marks),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _columns(row: TurnRow) -> dict[str, Any]:
    """Of an error only its kind, and of a reason to stop only a word of the protocol: a server's words may quote the
    prompt."""
    columns = asdict(row)
    del columns["id"]
    columns["error"] = _kind(row.error) if row.error else None
    columns["stop_reason"] = _word(row.stop_reason, "other") if row.stop_reason else None
    return columns


def _kind(error: str) -> str:
    """What stands before the colon, if a server could not have written a sentence there; ours have no colon."""
    kind, colon, _ = error.partition(":")
    return _word(kind, "api_error") if colon else kind


def _word(text: str, otherwise: str) -> str:
    return text if _PROTOCOL_WORD.fullmatch(text) else otherwise


def prune(connection: sqlite3.Connection, *, before: float) -> None:
    """Forgets turns and heads from before that time (seconds since 1970), and the sections that only they had. Inside
    a transaction."""
    gone = connection.execute("DELETE FROM turn WHERE started_at < ?", (before,)).rowcount
    connection.execute("DELETE FROM head WHERE used_at < ?", (before,))
    if gone:
        connection.execute(
            "WITH RECURSIVE used (id) AS (SELECT DISTINCT leaf FROM turn UNION "
            "SELECT parent FROM section JOIN used USING (id)) "
            "DELETE FROM section WHERE id NOT IN (SELECT id FROM used)"
        )
