"""Management routes, behind the management token: launchers register here, `status` and `stop` ask here."""

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from anyclaude.errors import InvalidRequest
from anyclaude.server.answers import send_json
from anyclaude.server.gateway import Gateway
from anyclaude.server.logs import set_level
from anyclaude.server.sessions import NewSession, Session


class Manage:
    """`stop` ends the process; each other method is one ASGI application."""

    def __init__(self, gateway: Gateway, stop: Callable[[], None]) -> None:
        self._gateway = gateway
        self._stop = stop

    async def statistics(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._gateway.forget_dead()
        sessions = [_shown(session) for session in self._gateway.sessions]
        await send_json(scope, send, {"server": self._gateway.statistics(), "sessions": sessions})

    async def turns(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(scope, send, {"turns": list(self._gateway.ledger.recent)})

    async def register(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            new = msgspec.json.decode(await Request(scope, receive).body(), type=NewSession)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(str(error)) from None
        self._gateway.touch()
        session = self._gateway.sessions.add(new)
        set_level(session.log_level for session in self._gateway.sessions)
        self._gateway.prepare(session)
        await send_json(scope, send, {"id": session.id, "token": session.token}, status=201)

    async def forget(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Every turn of the ledger, and of those in memory."""
        self._gateway.ledger.forget(0.0)
        self._gateway.ledger.recent.clear()
        await send_json(scope, send, {"is_forgotten": True})

    async def drain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """From now on the server stops as soon as its last client does."""
        self._gateway.is_draining = True
        await send_json(scope, send, {"is_draining": True})

    async def stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(scope, send, {"is_stopping": True})
        self._stop()


def _shown(session: Session) -> dict[str, Any]:
    """A session without its secrets."""
    target = session.target
    return {
        "id": session.id,
        "pid": session.pid,
        "project": session.project,
        "backend": target.kind,
        "base_url": target.base_url,
        "model": target.model,
        "context_window": target.context_window,
        "created_at": session.created_at,
    }
