"""The heads of all conversations, by session, agent and entry point; they outlive the server, in the ledger's file."""

import contextlib
import sqlite3
import time

import msgspec
from msgspec import Struct

from anyclaude.prompt.head import Head, head_for, is_listed, origin, remembered
from anyclaude.telemetry.ledger import Ledger
from anyclaude.wire.messages import MessagesRequest

_KEPT = 500
_decode = msgspec.json.Decoder(tuple[Head, ...]).decode


class Owner(Struct, frozen=True):
    """`entrypoint` is how the client was started (`cli`, `sdk-cli`): its tools' texts differ by it."""

    session: str
    agent: str
    entrypoint: str


class Known(Struct):
    """`day` is the one of its last use, counted from 1970, and 0 after a private one, which is not written down: a head
    that is used is written once a day, and stays."""

    project: str
    origin: str
    heads: tuple[Head, ...]
    day: int


class Heads:
    """The most recently used conversations; the rest begin anew, which costs one reading of their prompt."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        query = "SELECT * FROM (SELECT * FROM head ORDER BY used_at DESC LIMIT ?) ORDER BY used_at"
        self._known: dict[Owner, Known] = {}
        for row in ledger.read(query, _KEPT):
            with contextlib.suppress(msgspec.MsgspecError):  # what cannot be read begins anew
                known = Known(row["project"], row["origin"], _decode(row["heads"]), _day(row["used_at"]))
                self._known[Owner(row["session"], row["agent"], row["entrypoint"])] = known

    def head(
        self, owner: Owner, project: str, request: MessagesRequest, *, teaches: bool, is_private: bool = False
    ) -> Head | None:
        """None for a request without tools. Only one that `teaches` is remembered; a private one in memory only."""
        if not any(is_listed(tool) for tool in request.tools):
            return None
        heads = self._heads(owner, project, request)
        head = head_for(heads, request)
        if teaches:
            known = self._known.pop(owner, None)
            used = remembered(heads, head)
            day = 0 if is_private else _day(time.time())
            learned = self._known[owner] = Known(project, origin(request.messages), used, day)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
            if not is_private and known != learned:
                self._save(owner, learned)
        return head

    def _heads(self, owner: Owner, project: str, request: MessagesRequest) -> tuple[Head, ...]:
        """A conversation under an unknown id may be a fork: it begins with the same message as its original."""
        if (known := self._known.get(owner)) is not None:
            return known.heads
        if not any(message.role == "assistant" for message in request.messages):
            return ()
        first = origin(request.messages)
        for other, known in reversed(self._known.items()):
            if (other.agent, other.entrypoint, known.project, known.origin) == (
                owner.agent,
                owner.entrypoint,
                project,
                first,
            ):
                return known.heads
        return ()

    def _save(self, owner: Owner, known: Known) -> None:
        values = (
            owner.session, owner.agent, owner.entrypoint, known.project, known.origin, time.time(),
            msgspec.json.encode(known.heads),
        )  # fmt: skip

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO head (session, agent, entrypoint, project, origin, used_at, heads) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )

        self._ledger.put(write)


def _day(seconds: float) -> int:
    return int(seconds // 86400)
