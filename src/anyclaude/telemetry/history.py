"""Reading the ledger: turns, sections, sums. For commands; the server itself only writes."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from anyclaude.telemetry.database import connect, unreadable
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow

_PATH = """
    WITH RECURSIVE path (id, parent, kind, name, n_characters, digest, marks, depth) AS (
        SELECT id, parent, kind, name, n_characters, digest, marks, 0 FROM section WHERE id = ?
        UNION ALL
        SELECT s.id, s.parent, s.kind, s.name, s.n_characters, s.digest, s.marks, path.depth + 1
        FROM section AS s JOIN path ON s.id = path.parent
    )
    SELECT * FROM path ORDER BY depth DESC
"""


# `TurnRow.was_read` of a turn with a prompt, for queries.
WAS_READ = "leaf != 0 AND (error IS NULL OR ttft_s IS NOT NULL)"


def path_of(connection: sqlite3.Connection, leaf: int) -> list[sqlite3.Row]:
    """The sections from the first to `leaf`."""
    return connection.execute(_PATH, (leaf,)).fetchall()


class Filter(Struct, frozen=True, kw_only=True):
    """Which turns. `since` in seconds since 1970; a session may be given by the beginning of its id,
    a model in a folder or of an owner by the last part of its name."""

    since: float | None = None
    session: str | None = None
    project: str | None = None
    model: str | None = None

    @property
    def where(self) -> tuple[str, list[object]]:
        parts: list[str] = ["1"]
        values: list[object] = []
        for clause, value in (
            ("started_at >= ?", self.since),
            ("substr(session, 1, length(?)) = ?", self.session),
            ("project = ?", self.project),
            ("(model = ? OR substr(model, -length(?) - 1) = '/' || ?)", self.model),
        ):
            if value is not None:
                parts.append(clause)
                values += [value] * clause.count("?")
        return " AND ".join(parts), values


class History:
    """Raises LedgerFailed where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._connection.execute(query, values).fetchall()
        except OverflowError:  # a number of more than 64 bits names nothing
            return []
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from None

    def _first(self, query: str, *values: object) -> TurnRow | None:
        found = self._all(query, *values)
        return _row(found[0]) if found else None

    def turns(self, chosen: Filter = Filter(), *, newest: int | None = None) -> list[TurnRow]:  # noqa: B008
        """Oldest first."""
        where, values = chosen.where
        limit = "" if newest is None else f" LIMIT {int(newest)}"
        query = f"SELECT * FROM turn WHERE {where} ORDER BY id DESC{limit}"  # noqa: S608
        return [_row(found) for found in reversed(self._all(query, *values))]

    def last_used(self, backend: str) -> dict[str, float]:
        """When each model of a backend last read a prompt, by its name; seconds since 1970. One that never did, because
        it could not be loaded for example, is not among them."""
        query = "SELECT model, max(started_at) AS at FROM turn WHERE backend = ? AND tokens_prompt > 0 GROUP BY model"
        return {row["model"]: row["at"] for row in self._all(query, backend)}

    def turn(self, number: int) -> TurnRow | None:
        return self._first("SELECT * FROM turn WHERE id = ?", number)

    def turn_of_request(self, request_id: str) -> TurnRow | None:
        """By its id or a beginning that is only its own."""
        query = "SELECT * FROM turn WHERE substr(request_id, 1, ?) = ? LIMIT 2"
        found = self._all(query, len(request_id), request_id)
        return _row(found[0]) if len(found) == 1 else None

    def has_compaction(self, turn: TurnRow, *, since: TurnRow) -> bool:
        """Whether the client summarised the conversation between the two turns."""
        found = self._all(
            "SELECT 1 FROM turn WHERE session = ? AND agent IS ? AND request_class = ? AND id >= ? AND id < ? LIMIT 1",
            turn.session, turn.agent, "compaction", since.id, turn.id,
        )  # fmt: skip
        return bool(found)

    def calibration(self, turn: TurnRow) -> bytes | None:
        """What was learned of the cost of that model's characters, as it was saved."""
        query = "SELECT state FROM calibration WHERE backend = ? AND base_url = ? AND model = ?"
        found = self._all(query, *turn.server)
        return found[0][0] if found else None

    def turn_before(self, row: TurnRow) -> TurnRow | None:
        """The one before in the same session and agent, whatever answered it."""
        return self._first(
            "SELECT * FROM turn WHERE session = ? AND agent IS ? AND id < ? ORDER BY id DESC LIMIT 1",
            row.session, row.agent, row.id,
        )  # fmt: skip

    def turn_alike(self, row: TurnRow) -> TurnRow | None:
        """The newest one before it that the same server answered for this project, of the same class, an agent's for an
        agent's."""
        return self._first(
            "SELECT * FROM turn WHERE project = ? AND backend = ? AND base_url = ? AND model = ? AND id < ? "  # noqa: S608
            f"AND request_class IS ? AND (agent IS NULL) = ? AND {WAS_READ} ORDER BY id DESC LIMIT 1",
            row.project, *row.server, row.id, row.request_class, row.agent is None,
        )  # fmt: skip

    def sections(self, number: int) -> Sequence[SectionRow]:
        """Of one turn's prompt, in order."""
        leaf = self._all("SELECT leaf FROM turn WHERE id = ?", number)
        return [
            SectionRow(found["kind"], found["name"], found["n_characters"], found["digest"], found["marks"])
            for found in (self._all(_PATH, leaf[0][0]) if leaf else ())
        ]


def _row(found: sqlite3.Row) -> TurnRow:
    fields: dict[str, Any] = dict(found)
    return msgspec.convert(fields, TurnRow)
