"""The prompts that a new one is compared with: the newest distinct ones of its session and agent, and of its project.

Kept in memory as paths through the ledger's tree of sections, and read from the file where they are not known yet. Only
turns that the same model on the same server read can share anything.
"""

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from anyclaude.telemetry.history import WAS_READ, path_of
from anyclaude.telemetry.turns import TurnRow

PER_SESSION = 8
PER_PROJECT = 16
_SCOPES = 32  # sessions and projects that are kept in memory
_LOOKED_AT = 256


class Scope(Struct, frozen=True):
    """Whose turns: a condition of the turn's table, its values, and how many distinct prompts are kept."""

    condition: str
    values: tuple[str | None, ...]
    limit: int


class Branch(Struct, frozen=True):
    """One recorded prompt: its sections' digests and their ids in the tree."""

    turn: int
    digests: tuple[bytes, ...]
    ids: tuple[int, ...]

    def n_shared(self, digests: tuple[bytes, ...]) -> int:
        """By halves: slices are compared much faster than their items one by one."""
        low, high = 0, min(len(self.digests), len(digests))
        while low < high:
            middle = (low + high + 1) // 2
            if self.digests[low:middle] == digests[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low


class Match(Struct, frozen=True):
    """The best earlier turn, and the ids of the sections that both prompts begin with."""

    turn: int
    ids: tuple[int, ...]

    @property
    def n_shared(self) -> int:
        return len(self.ids)


class Branches:
    """Of one connection. They stand newest first, so that of equals the first is the best."""

    def __init__(self) -> None:
        self._known: dict[Scope, list[Branch]] = {}
        self._version: int | None = None

    def best(self, connection: sqlite3.Connection, row: TurnRow, digests: tuple[bytes, ...]) -> Match | None:
        """The turn of this session and agent that shares most, else of this project; the newest of equals. Inside a
        transaction: what another process wrote or pruned is seen."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._known.clear()
        for scope in _scopes(row):
            matches = [_match(branch, digests) for branch in self._of(connection, scope)]
            if any(match.ids for match in matches):
                return max(matches, key=lambda match: match.n_shared)
        return None

    def add(self, row: TurnRow, digests: tuple[bytes, ...], ids: tuple[int, ...]) -> None:
        """A turn that was just recorded. Those that it extends can never be better than it is."""
        if row.id is None or not row.was_read or not ids:
            return
        branch = Branch(row.id, digests, ids)
        for scope in _scopes(row):
            if (known := self._known.get(scope)) is not None:
                others = [each for each in known if each.ids != ids[: len(each.ids)]]
                self._known[scope] = [branch, *others][: scope.limit]

    def _of(self, connection: sqlite3.Connection, scope: Scope) -> list[Branch]:
        known = self._known.pop(scope, None)
        self._known[scope] = branches = _read(connection, scope) if known is None else known
        if len(self._known) > _SCOPES:
            del self._known[next(iter(self._known))]
        return branches


def _match(branch: Branch, digests: tuple[bytes, ...]) -> Match:
    return Match(branch.turn, branch.ids[: branch.n_shared(digests)])


def _scopes(row: TurnRow) -> tuple[Scope, Scope]:
    return (
        Scope("session = ? AND agent IS ?", (row.session, row.agent, *row.server), PER_SESSION),
        Scope("project = ?", (row.project, *row.server), PER_PROJECT),
    )


def _read(connection: sqlite3.Connection, scope: Scope) -> list[Branch]:
    """Newest first."""
    query = (
        f"SELECT id, leaf FROM turn WHERE {scope.condition} AND backend = ? AND base_url = ? AND model = ? "  # noqa: S608
        f"AND {WAS_READ} ORDER BY id DESC LIMIT ?"
    )
    branches: list[Branch] = []
    extended: set[int] = set()
    for turn, leaf in connection.execute(query, (*scope.values, _LOOKED_AT)).fetchall():
        if leaf not in extended and len(branches) < scope.limit:
            branches.append(_branch(turn, path_of(connection, leaf)))
            extended.update(branches[-1].ids)
    return branches


def _branch(turn: int, path: Sequence[sqlite3.Row]) -> Branch:
    return Branch(turn, tuple(section["digest"] for section in path), tuple(section["id"] for section in path))
