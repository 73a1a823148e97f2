"""Launches that the gateway serves. Each has a token of its own and the backend that this launch chose.

They are on disk (0600), so that a restarted server knows the clients that are still running.
"""

import hmac
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from anyclaude.backends.seam import Target
from anyclaude.paths import private_folder, write_private
from anyclaude.server.process import is_same_process

LINGER_S = 24 * 3600.0


class Session(Struct, frozen=True, kw_only=True):
    """`pid` with its start time names the process that is, or will become, the client. One that `lingers` goes on in
    the background after that process. Of one that `is_private` no turn is written down."""

    id: str
    token: str
    pid: int
    pid_started: float
    project: str
    target: Target
    created_at: float
    log_level: str = "info"
    lingers: bool = False
    is_private: bool = False

    def __repr__(self) -> str:
        return f"Session({self.id}, pid {self.pid}, {self.target!r})"


class NewSession(Struct, frozen=True, kw_only=True):
    """What a launcher says of itself."""

    pid: int
    pid_started: float
    project: str
    target: Target
    log_level: str = "info"
    lingers: bool = False
    is_private: bool = False


class Sessions:
    """`folder` None keeps them in memory only, for `serve`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = private_folder(folder) if folder is not None else None
        self._by_id: dict[str, Session] = {}
        self._last_used: dict[str, float] = {}
        self._loaded_at = time.monotonic()
        for path in sorted(self._folder.glob("*.json")) if self._folder else ():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            session = msgspec.json.decode(path.read_bytes(), type=Session)
        except (OSError, msgspec.MsgspecError):
            path.unlink(missing_ok=True)
            return
        self._by_id[session.id] = session

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_id.values()))

    def add(self, new: NewSession, *, token: str | None = None) -> Session:
        session = Session(
            id=secrets.token_hex(8),
            token=token or secrets.token_urlsafe(32),
            pid=new.pid,
            pid_started=new.pid_started,
            project=new.project,
            target=new.target,
            created_at=time.time(),
            log_level=new.log_level,
            lingers=new.lingers,
            is_private=new.is_private,
        )
        if self._folder is not None:
            write_private(self._folder / f"{session.id}.json", msgspec.json.encode(session))
        self._by_id[session.id] = session
        return session

    def by_token(self, token: str) -> Session | None:
        """Every token is compared, whatever the outcome, so that time tells nothing."""
        found = None
        for session in self._by_id.values():
            if hmac.compare_digest(session.token.encode(), token.encode()):
                found = session
        if found is not None:
            self._last_used[found.id] = time.monotonic()
        return found

    def secrets(self) -> list[str]:
        """Every session's token and key: what one launch's model reads, or its server says, may hold another's."""
        return [secret for session in self for secret in (session.token, session.target.api_key) if secret]

    def remove_dead(self) -> list[Session]:
        """Forgets the sessions whose client is gone, and returns them."""
        dead = [session for session in self if not self._is_alive(session)]
        for session in dead:
            del self._by_id[session.id]
            self._last_used.pop(session.id, None)
            if self._folder is not None:
                (self._folder / f"{session.id}.json").unlink(missing_ok=True)
        return dead

    def _is_alive(self, session: Session) -> bool:
        if is_same_process(session.pid, session.pid_started):
            return True
        last_used = self._last_used.get(session.id, self._loaded_at)
        return session.lingers and time.monotonic() - last_used < LINGER_S
