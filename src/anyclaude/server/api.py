"""The Messages API's routes: a session's token is in the scope, put there by the guard."""

import secrets
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from anyclaude.backends.seam import Turn
from anyclaude.errors import InvalidRequest, Missing
from anyclaude.routing.choose import backend_for, choose_model
from anyclaude.server.answers import send_json
from anyclaude.server.gateway import Gateway
from anyclaude.server.sessions import Session
from anyclaude.server.turn import Labels, RunningTurn
from anyclaude.wire.blocks import BadField
from anyclaude.wire.messages import MessagesRequest, decode_request
from anyclaude.wire.text import mend_text


class Api:
    """Each method is one ASGI application; what it raises, `app` answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["state"]["session"]
        turn = await _read_turn(scope, receive, session, needs_max_tokens=True)
        backend = backend_for(session.target, self._gateway.clients)
        running = RunningTurn(turn, backend, _labels(scope, session))
        self._gateway.begin(running)
        try:
            await running.run(scope, receive, send)
        finally:
            self._gateway.end(running)

    async def count_tokens(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["state"]["session"]
        self._gateway.touch()
        turn = await _read_turn(scope, receive, session, needs_max_tokens=False)
        count = await backend_for(session.target, self._gateway.clients).count(turn)
        await send_json(scope, send, {"input_tokens": count.tokens})

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["state"]["session"]
        entries = [_model_entry(name) for name in _names(session)]
        first, last = (entries[0]["id"], entries[-1]["id"]) if entries else (None, None)
        await send_json(scope, send, {"data": entries, "has_more": False, "first_id": first, "last_id": last})

    async def model(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"]["model_id"]
        if name not in _names(scope["state"]["session"]):
            raise Missing(f"model: {name}")
        await send_json(scope, send, _model_entry(name))


async def _read_turn(scope: Scope, receive: Receive, session: Session, *, needs_max_tokens: bool) -> Turn:
    http = Request(scope, receive)
    body = await http.body()
    try:
        request = decode_request(body, needs_max_tokens=needs_max_tokens)
    except BadField:
        body = mend_text(body)
        request = _decode_mended(body, needs_max_tokens=needs_max_tokens)
    return Turn(
        request=request,
        body=body,
        model=choose_model(session.target, request.model),
        message_id=f"msg_{secrets.token_hex(12)}",
        betas=http.headers.get("anthropic-beta"),
    )


def _decode_mended(body: bytes, *, needs_max_tokens: bool) -> MessagesRequest:
    try:
        return decode_request(body, needs_max_tokens=needs_max_tokens)
    except BadField as error:
        raise InvalidRequest(str(error)) from None


def _labels(scope: Scope, session: Session) -> Labels:
    headers = Request(scope).headers
    return Labels(
        session=session.id,
        project=session.project,
        backend=session.target.kind,
        client_session=headers.get("x-claude-code-session-id"),
        agent=headers.get("x-claude-code-agent-id"),
        request_class=headers.get("x-claude-code-request-class"),
    )


def _names(session: Session) -> list[str]:
    target = session.target
    return list(dict.fromkeys([*([target.model] if target.model else []), *target.models]))


def _model_entry(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
