"""The Messages API's routes: a session's token is in the scope, put there by the guard."""

import re
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from anyclaude.backends.seam import MAIN, Backend, Origin, Turn
from anyclaude.errors import InvalidRequest, Missing
from anyclaude.prompt.head import Head
from anyclaude.routing.choose import backend_for, choose_model, turn_for
from anyclaude.server.answers import send_json
from anyclaude.server.gateway import Gateway
from anyclaude.server.heads import Owner
from anyclaude.server.origin import origin_of
from anyclaude.server.sessions import Session
from anyclaude.server.tracing import begin_trace
from anyclaude.server.turn import Labels, RunningTurn
from anyclaude.wire.blocks import BadField
from anyclaude.wire.messages import MessagesRequest, decode_request
from anyclaude.wire.text import mend_text

# "claude-cli/2.1.330 (external, sdk-cli)", "... (external, cli)": how the client was started.
_ENTRYPOINT = re.compile(r"claude-cli/\S+ \(external, ([\w-]+).*\)")


class Api:
    """Each method is one ASGI application; what it raises, `app` answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["state"]["session"]
        request, body = await _read(scope, receive, needs_max_tokens=True)
        labels = _labels(scope, session)
        head = self._head(labels, request, session)
        turn = self._turn(scope, session, request, body, head, origin_of(labels))
        running = RunningTurn(
            turn,
            self._backend(session),
            labels,
            scope["state"]["request_id"],
            note_after_s=self._gateway.note_after_s,
        )
        running.trace = begin_trace(self._gateway, running, head, scope["headers"])
        self._gateway.begin(running)
        try:
            await running.run(scope, receive, send)
        finally:
            self._gateway.end(running)

    async def count_tokens(self, scope: Scope, receive: Receive, send: Send) -> None:
        session: Session = scope["state"]["session"]
        self._gateway.touch()
        request, body = await _read(scope, receive, needs_max_tokens=False)
        turn = self._turn(scope, session, request, body, None, MAIN)
        count = await self._backend(session).count(turn)
        how = b"measured" if count.is_measured else b"estimated"
        await send_json(scope, send, {"input_tokens": count.tokens}, headers=[(b"x-anyclaude-count", how)])

    def _head(self, labels: Labels, request: MessagesRequest, session: Session) -> Head | None:
        """Only main requests, and those of agents that say who they are, teach what the head of a conversation is: side
        requests carry the main session's id and other tools."""
        owner = Owner(labels.session, labels.agent or "", labels.entrypoint or "")
        teaches = labels.agent is not None or labels.request_class in (None, "main")
        return self._gateway.heads.head(owner, session.project, request, teaches=teaches, is_private=session.is_private)

    def _backend(self, session: Session) -> Backend:
        gateway = self._gateway
        return backend_for(session.target, gateway.clients, gateway.knowledge, gateway.engine)

    @staticmethod
    def _turn(
        scope: Scope, session: Session, request: MessagesRequest, body: bytes, head: Head | None, origin: Origin
    ) -> Turn:
        target = session.target
        return turn_for(
            target,
            request,
            head,
            body=body,
            model=choose_model(target, request.model),
            betas=Request(scope).headers.get("anthropic-beta"),
            origin=origin,
        )

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


async def _read(scope: Scope, receive: Receive, *, needs_max_tokens: bool) -> tuple[MessagesRequest, bytes]:
    body = await Request(scope, receive).body()
    try:
        return decode_request(body, needs_max_tokens=needs_max_tokens), body
    except BadField:
        body = mend_text(body)
        return _decode_mended(body, needs_max_tokens=needs_max_tokens), body


def _decode_mended(body: bytes, *, needs_max_tokens: bool) -> MessagesRequest:
    try:
        return decode_request(body, needs_max_tokens=needs_max_tokens)
    except BadField as error:
        raise InvalidRequest(str(error)) from None


def _labels(scope: Scope, session: Session) -> Labels:
    headers = Request(scope).headers
    entrypoint = _ENTRYPOINT.fullmatch(headers.get("user-agent", ""))
    return Labels(
        launch=session.id,
        session=headers.get("x-claude-code-session-id", session.id),
        project=session.project,
        target=session.target,
        agent=headers.get("x-claude-code-agent-id"),
        request_class=headers.get("x-claude-code-request-class"),
        entrypoint=entrypoint[1] if entrypoint else None,
        is_private=session.is_private,
    )


def _names(session: Session) -> list[str]:
    target = session.target
    return list(dict.fromkeys([*([target.model] if target.model else []), *target.models]))


def _model_entry(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
