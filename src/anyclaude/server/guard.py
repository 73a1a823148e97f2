"""The outermost application: whatever is not expressly allowed is refused, before any other code of ours runs.

address       exact Host (DNS rebinding gives a web page our address, never our name), Origin absent or ours
open to all   HEAD /, HEAD /api/hello, GET /health: they tell only that something listens
/v1/*         a session's token; every command that the model runs inherits it, so it opens nothing else
the rest      the management token, which is in a 0600 file
body          JSON where something is sent, and at most 32 MiB, counted as it arrives
"""

import hmac

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from anyclaude.errors import ApiError, InvalidRequest, Refused, TooLarge, Unauthenticated
from anyclaude.server.answers import new_request_id, send_error
from anyclaude.server.sessions import Session, Sessions

MAX_BODY = 32 << 20
OPEN = frozenset({("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/health")})
API = "/v1/"


class Guard:
    """`hosts` are the exact values of the Host header that name us."""

    def __init__(self, app: Starlette, *, sessions: Sessions, management_token: str, hosts: frozenset[str]) -> None:
        self.app = app
        self._sessions = sessions
        self._management_token = management_token
        self._hosts = hosts
        self._origins = frozenset(f"http://{host}" for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["state"] = {**scope.get("state", {}), "request_id": new_request_id()}
        try:
            session = self._admit(scope)
        except ApiError as error:
            await send_error(scope, send, error)
            return
        scope["state"]["session"] = session
        await self.app(scope, _limited(receive), send)

    def _admit(self, scope: Scope) -> Session | None:
        headers = _Headers(scope)
        self._check_address(headers)
        route = (scope["method"], scope["path"])
        if route in OPEN:
            return None
        if scope["method"] not in ("GET", "HEAD"):
            _check_body(headers)
        if scope["path"].startswith(API):
            return self._session(headers)
        self._check_management(headers)
        return None

    def _check_address(self, headers: "_Headers") -> None:
        if headers.all("host") not in ([host] for host in self._hosts):
            raise Refused("this gateway is reached by its own address only (Host header)")
        if any(origin not in self._origins for origin in headers.all("origin")):
            raise Refused("web pages may not use this gateway (Origin header)")

    def _session(self, headers: "_Headers") -> Session:
        for token in headers.tokens():
            if (session := self._sessions.by_token(token)) is not None:
                return session
        raise Unauthenticated("this token is not one of a running anyclaude session; start anyclaude again")

    def _check_management(self, headers: "_Headers") -> None:
        given = [hmac.compare_digest(token.encode(), self._management_token.encode()) for token in headers.tokens()]
        if not any(given):
            raise Unauthenticated("this route needs the management token")


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._pairs: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: str) -> list[str]:
        key = name.encode()
        return [value.decode("latin-1") for header, value in self._pairs if header == key]

    def tokens(self) -> list[str]:
        """The client sends one header, the other, or both."""
        bearer = [value[7:] for value in self.all("authorization") if value[:7].lower() == "bearer "]
        return [token for token in [*bearer, *self.all("x-api-key")] if token]


def _check_body(headers: _Headers) -> None:
    kinds = [value.partition(";")[0].strip().lower() for value in headers.all("content-type")]
    if kinds != ["application/json"]:
        raise InvalidRequest("content-type must be application/json")
    lengths = headers.all("content-length")
    if any(length.isdecimal() and int(length) > MAX_BODY for length in lengths):
        raise TooLarge(f"the request is larger than {MAX_BODY >> 20} MB")


def _limited(receive: Receive) -> Receive:
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MAX_BODY:
            raise TooLarge(f"the request is larger than {MAX_BODY >> 20} MB")
        return message

    return limited
